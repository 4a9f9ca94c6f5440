"""The section ``monitoring`` of params.yaml: when incoming texts count as other than those of the training."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from components.params.section import Count, Positive, Section, Share


class Thresholds(Section):
    """The least effect that counts as drift, if it is significant too; null: that test isn't made.

    The last three tests are made where a row has one class; the others whatever the task.

    Args:
        length: Kolmogorov-Smirnov distance of the texts' lengths, in characters and in words.
        unseen_words: share of a text's words that no training text has, by how much more than on held-out rows.
        word_frequencies: Jensen-Shannon divergence of the words' frequencies, in bits, above what chance gives.
        labels: total variation distance of the predicted labels' shares, against the test rows.
        confidence: Kolmogorov-Smirnov distance of the predicted labels' probabilities, against the test rows.
        accuracy: accuracy below the one on the test rows, as a share, where labels have come.
    """

    length: Share | None = 0.1
    unseen_words: Share | None = 0.03
    word_frequencies: Share | None = 0.02
    labels: Share | None = 0.2
    confidence: Share | None = 0.2
    accuracy: Share | None = 0.03


def _deployment(name: str) -> str:
    """NAME or FLOW/NAME, as Prefect has them.

    Raises:
        ValueError: it is neither.
    """
    parts = name.split("/")
    if len(parts) > 2 or not all(part.strip() for part in parts):
        raise ValueError(f"expected NAME or FLOW/NAME, such as on-demand, got '{name}'")
    return name


class Monitoring(Section):
    """How the logged rows of the model in use are compared with its training; no stage depends on it.

    Args:
        group: whose training and test rows are expected: a group, ``all``, or null for the group of the fine-tune.
        window_days: the rows of so many days count.
        min_rows: with fewer logged rows nothing is tested.
        min_labels: with fewer rows whose labels have come, accuracy is told and not tested.
        level: the chance of a false alarm, for all tests of one report together, where rows are independent.
        thresholds: the effects that matter.
        retrain: whether drift starts the training deployment.
        deployment: its name in prefect.yaml; FLOW/NAME for one of another flow than ``scheduled``.
    """

    group: Annotated[str, Field(min_length=1)] | None = None
    window_days: Positive = 7.0
    min_rows: Count = 200
    min_labels: Count = 50
    level: Annotated[float, Field(ge=0.0001, le=0.5)] = 0.01
    thresholds: Thresholds = Thresholds()
    retrain: Literal["never", "drift"] = "never"
    deployment: Annotated[str, AfterValidator(_deployment)] = "on-demand"
