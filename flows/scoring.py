"""Scoring a file with the model in use, as a flow."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from components.errors import UserError
from components.loader import load_params
from flows import artifacts, notifications, settings
from flows.inference import scoring as files
from flows.inference.loading import loaded
from flows.inference.rows import Rows
from flows.markup import markdown
from flows.repo.workspace import Workspace


@flow(name="scoring", persist_result=False)
def scoring(
    source: str,
    target: str,
    column: str | None = None,
    pair: str | None = None,
    model: str | None = None,
    probabilities: bool = False,
    log: bool = False,
    id_column: str | None = None,
    overwrite: bool = True,
) -> State[Any]:
    """Label every row of a file or a folder; cancelled or killed, the next run goes on.

    Args:
        source: Parquet, CSV, TSV or JSON lines; relative to the project.
        target: the Parquet file to write.
        column: the column of the texts, words or questions; none: what the model's task calls it.
        pair: of pairs, the column of the second texts; of questions, that of their contexts.
        model: a version or an alias; none: the champion, or before there is one the candidate.
        probabilities: a column for each label as well.
        log: log the rows for the flow `monitoring`.
        id_column: the column with the log's ids.
        overwrite: whether the target may be there already.
    """
    workspace = Workspace.find()
    settings.apply(workspace.root)
    started, written = time.monotonic(), workspace.root / target
    logged = files.Settings(probabilities, workspace.root if log else None, id_column)
    try:
        params = load_params(workspace.root / "params.yaml")
        files.check_target(workspace.root / source, written, overwrite)
        rows = Rows(workspace.root / source, column, pair)
        with loaded(workspace.root, params, model) as found:
            count = files.score_file(rows, written, found, logged, lambda done, before: _say(done))
    except UserError as error:
        notifications.notify(workspace.root, "failure", "Scoring failed", str(error))
        return Failed(message=str(error))
    told = f"{count:,} rows of {source} labelled by {found.name} in {time.monotonic() - started:.0f} s"
    artifacts.scored(_markdown(told, target, _shares(written)))
    return Completed(message=told)


def _say(done: int) -> None:
    get_run_logger().info(f"{done:,} rows")


def _shares(path: Path) -> dict[str, int]:
    """How many rows have each label, where a row has one."""
    import pyarrow.parquet as pq

    found: Counter[str] = Counter()
    with pq.ParquetFile(path) as opened:
        if files.LABEL not in opened.schema_arrow.names:
            return {}
        for batch in opened.iter_batches(columns=[files.LABEL]):
            found.update({entry["values"]: entry["counts"] for entry in batch[files.LABEL].value_counts().to_pylist()})
    return dict(found.most_common())


def _markdown(told: str, target: str, labels: dict[str, int]) -> str:
    total = sum(labels.values())
    lines = [f"| {markdown(label)} | {count:,} | {count / total:.1%} |" for label, count in labels.items()]
    table = ["", "| label | rows | share |", "|---|---|---|", *lines] if lines else []
    return "\n".join([markdown(told), "", markdown(target), *table])
