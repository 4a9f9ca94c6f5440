"""How values of a headline are written."""

from __future__ import annotations

from components.ml.tasks.task import Metric
from flows.tracking.headline import change

SHARE, ERROR = Metric("accuracy", "accuracy"), Metric("rmse", "root mean squared error", percent=False)


def test_a_difference_has_its_sign_and_nothing_is_never_less_than_nothing() -> None:
    assert [change(SHARE, value) for value in (0.012, -0.012, -0.0001, 0.0)] == ["+1.2", "-1.2", "+0.0", "+0.0"]
    assert [change(ERROR, value) for value in (0.5, -0.0001)] == ["+0.500", "+0.000"]
