"""A registered version, loaded and ready to score."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from components.ml.tasks.table import TASKS
from components.params.project import Params
from flows.inference.choosing import choose
from flows.inference.scoring import Model
from flows.tracking.champions import Champions
from flows.tracking.tracker import Tracker


@contextlib.contextmanager
def loaded(root: Path, params: Params, wanted: str | None = None) -> Iterator[Model]:
    """The version that ``wanted`` names (a number or an alias), without it the one in use.

    Raises:
        UserError: there is none such (``parameters``), its files are gone or don't work (``model``), or MLflow can't be
            used (``tracking``).
    """
    champions = Champions(Tracker(root, params.publish.experiment), params.publish.registered_model)
    version = choose(champions, wanted)
    with champions.loaded(version) as predictor:
        yield Model(
            f"{champions.name}/{version.number}",
            version.content or "",
            predictor.rows([])[0],
            predictor.rows,
            predictor.paired,
            TASKS[predictor.task],
            lambda: predictor.tokenizer,
        )
