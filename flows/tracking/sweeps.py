"""Sweeps in MLflow: one parent for the grid, one flat child for each combination; found again by their tags."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import UserError
from flows.tracking import runs, store
from flows.tracking.record import metric_name
from flows.tracking.tracker import Tracker

if TYPE_CHECKING:
    from mlflow.entities import Run

SWEEP, COMBINATION = "stillhouse.sweep", "stillhouse.combination"
LOCK = "stillhouse.sweep.lock"
"""A combination's lock digest. The pipeline's own tag would make it pass for a published run."""
_PARENT = "mlflow.parentRunId"
_SOURCE = {"mlflow.source.name": "stillhouse sweep", "mlflow.source.type": "LOCAL"}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CombinationRecord:
    """One combination: ``name`` for people, ``digest`` of its values, what was set, what came of it.

    ``failure`` says why there are no metrics.
    """

    name: str
    digest: str
    values: Mapping[str, Any]
    metrics: Mapping[str, float]
    lock_digest: str = ""
    git_commit: str = "none"
    data_hash: str = "none"
    failure: str | None = None


class SweepTracker:
    """Everything warns and goes on when MLflow can't be used: running the sweep again publishes what is missing.

    Args:
        root: the project's folder; holds the embedded store.
        experiment: the experiment's name.
        digest: identifies the sweep.
    """

    def __init__(self, root: Path, experiment: str, digest: str) -> None:
        self.digest = digest
        self._tracker = Tracker(root, experiment)
        self._parent: str | None = None

    def begin(self, name: str, params: Mapping[str, Any]) -> str | None:
        """The sweep's parent run, made or taken up again; gives its page's address, None when MLflow can't be used."""
        try:
            with store.readable(store.tracking_uri(self._tracker.root)):
                run = self._begin(name)
                self._parent = run.info.run_id
                runs.log_once(self._tracker.client, self._parent, params=params)
                return self._tracker.url(self._parent)
        except UserError as error:
            log.warning("%s", error)
            return None

    def _begin(self, name: str) -> Run:
        known = runs.search(self._tracker.client, self._tracker.experiment_id, {SWEEP: self.digest})
        if not known:
            tags = {**_SOURCE, SWEEP: self.digest}
            return self._tracker.client.create_run(self._tracker.experiment_id, tags=tags, run_name=name)
        self._tracker.client.update_run(known[0].info.run_id, status="RUNNING", name=name)
        return runs.reopen(self._tracker.client, known[0])

    def add(self, record: CombinationRecord) -> bool:
        """Write a combination's child run, once; a failed one may end well later. False: it could not be done."""
        if self._parent is None:
            return False
        try:
            with store.readable(self._tracker.client.tracking_uri):
                self._add(record, self._parent)
        except UserError as error:
            log.warning("%s", error)
            return False
        return True

    def _add(self, record: CombinationRecord, parent: str) -> None:
        tags = {_PARENT: parent, COMBINATION: record.digest}
        known = runs.search(self._tracker.client, self._tracker.experiment_id, tags)
        run_id = (
            known[0]
            if known
            else self._tracker.client.create_run(self._tracker.experiment_id, tags=_SOURCE | tags, run_name=record.name)
        ).info.run_id
        origin = {LOCK: record.lock_digest, "mlflow.source.git.commit": record.git_commit}
        metrics = {_slashed(key): value for key, value in record.metrics.items()}
        runs.log_once(self._tracker.client, run_id, metrics, {**record.values, "data_hash": record.data_hash}, origin)
        if record.failure is None:
            runs.finish(self._tracker.client, run_id)
        elif not (known and known[0].info.status == "FINISHED"):
            self._tracker.client.set_tag(run_id, runs.FAILURE, record.failure[:8000])
            self._tracker.client.set_terminated(run_id, "FAILED")

    def end(self, table: str, best: Mapping[str, float], status: str = "FINISHED") -> None:
        """End the parent with the ranked table as its note and its file ``sweep.md``, and the best one's metrics.

        Any other status than FINISHED stands there first: whoever interrupts may not wait for the rest.
        """
        if self._parent is None:
            return
        try:
            with store.readable(self._tracker.client.tracking_uri):
                if status != "FINISHED":
                    self._tracker.client.set_terminated(self._parent, status)
                runs.log_once(self._tracker.client, self._parent, {_slashed(key): value for key, value in best.items()})
                self._tracker.client.set_tag(self._parent, runs.NOTE, table[:8000])
                self._tracker.client.log_text(self._parent, table, "sweep.md")
                if status == "FINISHED":
                    self._tracker.client.set_terminated(self._parent, status)
        except UserError as error:
            log.warning("%s", error)


def _slashed(name: str) -> str:
    """A metric's name with characters that MLflow takes; it takes slashes."""
    return "/".join(metric_name(part) for part in name.split("/"))
