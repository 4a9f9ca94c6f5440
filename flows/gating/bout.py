"""Who meets whom at the gate, and the evidence that is gathered of both."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.ml.tasks.row_task import RowTask
from components.ml.tasks.task import Task
from components.params.project import Params
from flows import compare
from flows.gating import champion as logits
from flows.gating import evidence as paired
from flows.gating.decision import (
    BY_HAND,
    LOST,
    NO_FILES,
    NO_ROWS,
    OTHER_LABELS,
    OVERRULED,
    TAKEN_BACK,
    UNCHANGED,
    Challenger,
    Evidence,
)
from flows.models import Model, contents, evaluated
from flows.repo.workspace import Workspace
from flows.settings import STATE
from flows.tracking.champions import CHAMPION, Champions, Version
from flows.tracking.headline import task_of
from flows.tracking.record import CANDIDATES

PREDICTIONS = Path("artifacts/evaluate/predictions")
TEST = Path("artifacts/validate/test")
CACHE = STATE / "gate"


@dataclasses.dataclass(frozen=True)
class Bout:
    """Who meets whom: the registered candidate and the champion, by what rules, on which test rows."""

    workspace: Workspace
    params: Params
    model: Model
    version: Version
    champion: Version | None

    @property
    def group(self) -> str:
        """The group that both are compared on."""
        return self.params.gate.group or self.params.finetune.group

    @property
    def test(self) -> str:
        """The hash of the test rows."""
        return self.workspace.output_hash(TEST) or "none"

    @cached_property
    def compared(self) -> dict[str, Any]:
        """The comparison of the run's models."""
        return compare.comparison(self.workspace.root)

    @property
    def task(self) -> Task:
        """What the models do."""
        return task_of(self.compared)


def arrange(workspace: Workspace, params: Params, champions: Champions) -> Bout:
    """The candidate of these results, as it is registered, and the champion.

    Raises:
        UserError: the registry holds no such version (``tracking``).
    """
    named = {model.name: model for model in evaluated(workspace.root)}
    model = next(named[name] for name in CANDIDATES if name in named)
    content, versions = contents(workspace.root)[model.name], champions.versions()
    version = next((version for version in versions if version.content == content), None)
    if version is None:
        raise UserError(
            f"No version of '{champions.name}' holds the model '{model.name}' of these results.",
            "Publish them again: remove .stillhouse/receipts and run `stillhouse run`.",
            "tracking",
        )
    champion = next((version for version in versions if CHAMPION in version.aliases), None)
    return Bout(workspace, params, model, version, champion)


def gather(bout: Bout, champions: Champions, say: logits.Progress) -> Evidence:
    """All that the decision depends on.

    Args:
        bout: who meets whom.
        champions: gives the champion's model.
        say: is told how far its scoring is.
    """
    place = bout.workspace.root / PREDICTIONS / f"{bout.model.name}.parquet"
    predicted = paired.read_predictions(place, bout.task, _labels(bout))
    challenger, champion = _challenger(bout, predicted.accuracy), bout.champion
    known = (champion.decision or {}).get("test") if champion else None
    gathered = Evidence(
        challenger,
        bout.group,
        champion=champion.number if champion else None,
        other_test_set=known not in (None, bout.test),
        headline=bout.task.headline,
    )
    if (obstacle := without_files(bout, champions) or _before(bout) or _other_task(bout)) or champion is None:
        return dataclasses.replace(gathered, obstacle=obstacle)
    try:
        scored = _score(bout, champions, champion, say)
    except UserError as error:
        if error.kind != "model":
            raise
        return dataclasses.replace(gathered, obstacle=(NO_FILES, _without(bout, champion, error)))
    if scored.predictions is None:
        return dataclasses.replace(gathered, obstacle=(OTHER_LABELS, _others(bout, champion, scored.labels)))
    assert (predicted.rows == scored.rows).all()
    pair = paired.compare(predicted, scored.predictions, bout.group, bout.params.gate.bootstrap)
    if pair is None:
        said = f"No test row belongs to the group '{bout.group}' (gate.group), so nothing could be compared."
        return dataclasses.replace(gathered, obstacle=(NO_ROWS, said))
    return dataclasses.replace(gathered, pair=pair)


def without_files(bout: Bout, champions: Champions) -> tuple[str, str] | None:
    """That the new model's own files are gone from the store."""
    try:
        champions.check_files(bout.version)
    except UserError as error:
        if error.kind != "model":
            raise
        return NO_FILES if CHAMPION in bout.version.aliases else LOST, f"{error.message} {error.remedy}"
    return None


def _before(bout: Bout) -> tuple[str, str] | None:
    """Why nothing needs to be compared."""
    number, known = bout.version.number, bout.version.decision or {}
    if CHAMPION in bout.version.aliases:
        return UNCHANGED, f"Version {number} is the champion already: these results hold the very same model."
    if known.get("outcome") == TAKEN_BACK:
        return TAKEN_BACK, f"Version {number} was taken back by hand; `stillhouse promote {number}` puts it back."
    chosen = (bout.champion.decision or {}) if bout.champion else {}
    if bout.champion and chosen.get("outcome") == BY_HAND and int(number) <= int(chosen.get("newest", 0)):
        return OVERRULED, (
            f"Version {bout.champion.number} was made champion by hand when version {number} was there already: only a "
            f"newer version takes its place, or `stillhouse promote {number}`."
        )
    return None


def _other_task(bout: Bout) -> tuple[str, str] | None:
    """That the champion does something else."""
    known = (bout.champion.decision or {}).get("task") if bout.champion else None
    if bout.champion is None or known in (None, bout.task.name):
        return None
    return OTHER_LABELS, (
        f"The champion, version {bout.champion.number}, is a model for {known}, the new one for {bout.task.name}: they "
        f"can't be compared. To put the new model in its place: `stillhouse promote {bout.version.number}`."
    )


def _without(bout: Bout, champion: Version, error: UserError) -> str:
    return (
        f"The champion, version {champion.number}, can't be scored: {error.message} {error.remedy} "
        f"Or put the new model in its place by hand: `stillhouse promote {bout.version.number}`."
    )


def _others(bout: Bout, champion: Version, labels: list[str]) -> str:
    return (
        f"The champion, version {champion.number}, knows the labels {', '.join(labels)}, the new model "
        f"{', '.join(_labels(bout))}: they can't be compared. To put the new model in its place: "
        f"`stillhouse promote {bout.version.number}`."
    )


def _score(bout: Bout, champions: Champions, champion: Version, say: logits.Progress) -> logits.Scored:
    """The champion on today's test rows."""
    champions.check_files(champion)  # even where its logits are kept: it serves, and may be rolled back to
    stored = _Stored(bout.task, champions, champion)
    return logits.score(
        bout.workspace.owner.root / CACHE,
        [champion.content or f"{champions.name} {champion.number}", bout.test],
        bout.workspace.root / TEST,
        _labels(bout),
        stored.loaded,
        say,
        bout.task,
        stored.tokenizer,
    )


class _Stored:
    """The champion, loaded when it is needed; its tokenizer, which its positions follow, stays."""

    def __init__(self, task: Task, champions: Champions, version: Version) -> None:
        self._task, self._champions, self._version = task, champions, version
        self._tokenizer: Any = None

    @contextlib.contextmanager
    def loaded(self) -> Iterator[logits.Predict]:
        """What gives logits: one vector for each row, or any number where rows have no one class."""
        with self._champions.loaded(self._version) as predictor:
            if not isinstance(self._task, RowTask):
                self._tokenizer = predictor.tokenizer
            yield predictor if self._task.classes_per_row else predictor.rows

    def tokenizer(self) -> Any:
        """None where a row as a whole is judged."""
        if self._tokenizer is None and not isinstance(self._task, RowTask):
            with self.loaded():
                pass
        return self._tokenizer


def _labels(bout: Bout) -> list[str]:
    """Today's labels, by class, as the new model has them."""
    config = json.loads((bout.workspace.root / bout.model.folder / "config.json").read_text(encoding="utf-8"))
    names = config.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})  # which transformers doesn't write
    return [name for _, name in sorted((int(index), name) for index, name in names.items())]


def _challenger(bout: Bout, accuracy: float) -> Challenger:
    """What the new model scores and costs; its speed only where these very models were measured."""
    found = bout.compared["models"]
    model = found[bout.model.name]
    return Challenger(
        version=bout.version.number,
        accuracy=accuracy,
        teacher_accuracy=found["teacher"][bout.task.headline.key],
        latency_p50_ms=model["latency_p50_ms"],
        megabytes=model["megabytes"],
    )
