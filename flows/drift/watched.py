"""Which model is watched, and what it said of the test rows: the champion's, wherever its predictions are kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import UserError
from flows.drift.said import labels_of
from flows.gating import champion as logits
from flows.models import contents
from flows.repo.workspace import Workspace
from flows.settings import STATE

if TYPE_CHECKING:
    from flows.tracking.champions import Champions, Version

VALIDATED = Path("artifacts/validate")
TEST = VALIDATED / "test"
PREDICTIONS = Path("artifacts/evaluate/predictions")
CACHE = STATE / "gate"


@dataclass(frozen=True)
class Predicted:
    """A file with the model's logits of the test rows, and the model's labels by class."""

    path: Path
    labels: list[str]


def version(champions: Champions) -> Version:
    """The champion; before there is one, the candidate.

    Raises:
        UserError: the registry holds neither (``nothing``).
    """
    found = champions.on("champion") or champions.on("candidate")
    if found is None:
        raise UserError(
            f"'{champions.name}' has no version yet, so there is no model to watch.",
            "Run the pipeline first: `stillhouse run`.",
            "nothing",
        )
    return found


def check(root: Path) -> None:
    """See to it that the rows are there which the log is compared with.

    Raises:
        UserError: they aren't (``pipeline``).
    """
    needed = [VALIDATED / "train", VALIDATED / "validation", TEST, VALIDATED / "schema.json"]
    if lacking := [path for path in needed if not (root / path).exists()]:
        raise UserError(
            f"Expected {lacking[0]}, with which the log is compared; it isn't there.",
            "Restore the results (`dvc checkout`), or make them: `stillhouse run`.",
            "pipeline",
        )


def predictions(workspace: Workspace, champions: Champions, watched: Version) -> Predicted | None:
    """The model's logits of today's test rows: the evaluation's, if these results hold the model, else the gate's,
    scored now if need be; None where it knows other labels than today's.

    Raises:
        UserError: the model's files are gone or no longer work (``model``).
    """
    root, today = workspace.root, labels_of(workspace.root / VALIDATED / "schema.json")
    here = next((name for name, content in contents(root).items() if content == watched.content), None)
    if here and (path := root / PREDICTIONS / f"{here}.parquet").is_file():
        return Predicted(path, today)
    cache = workspace.owner.root / CACHE
    identity = [
        watched.content or f"{champions.name} {watched.number}",
        workspace.output_hash(TEST) or "none",
    ]
    scored = logits.score(
        cache, identity, root / TEST, today, lambda: champions.loaded(watched), lambda done, total: None
    )
    return Predicted(logits.kept(cache, identity), scored.labels) if scored.predictions is not None else None
