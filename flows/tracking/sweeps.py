"""Sweeps in MLflow: one parent for the grid, one flat child for each combination; found again by their tags."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import UserError
from flows.tracking import runs, store
from flows.tracking.record import metric_name

if TYPE_CHECKING:
    from mlflow import MlflowClient
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
        self.root, self.experiment, self.digest = root, experiment, digest
        self._parent: str | None = None

    @cached_property
    def _client(self) -> MlflowClient:
        uri = store.prepare(self.root)
        from mlflow import MlflowClient

        return MlflowClient(uri)

    @cached_property
    def _experiment_id(self) -> str:
        return runs.experiment_id(self._client, self.experiment)

    def begin(self, name: str, params: Mapping[str, Any]) -> str | None:
        """The sweep's parent run, made or taken up again; gives its page's address, None when MLflow can't be used."""
        try:
            with store.readable(store.tracking_uri(self.root)):
                run = self._begin(name)
                self._parent = run.info.run_id
                runs.log_once(self._client, self._parent, params=params)
                web = store.web_address(self._client.tracking_uri)
                return f"{web}/#/experiments/{self._experiment_id}/runs/{self._parent}"
        except UserError as error:
            log.warning("%s", error)
            return None

    def _begin(self, name: str) -> Run:
        known = runs.search(self._client, self._experiment_id, {SWEEP: self.digest})
        if not known:
            tags = {**_SOURCE, SWEEP: self.digest}
            return self._client.create_run(self._experiment_id, tags=tags, run_name=name)
        self._client.update_run(known[0].info.run_id, status="RUNNING", name=name)
        return runs.reopen(self._client, known[0])

    def add(self, record: CombinationRecord) -> bool:
        """Write a combination's child run, once; a failed one may end well later. False: it could not be done."""
        if self._parent is None:
            return False
        try:
            with store.readable(self._client.tracking_uri):
                self._add(record, self._parent)
        except UserError as error:
            log.warning("%s", error)
            return False
        return True

    def _add(self, record: CombinationRecord, parent: str) -> None:
        tags = {_PARENT: parent, COMBINATION: record.digest}
        known = runs.search(self._client, self._experiment_id, tags)
        run_id = (
            known[0]
            if known
            else self._client.create_run(self._experiment_id, tags=_SOURCE | tags, run_name=record.name)
        ).info.run_id
        origin = {LOCK: record.lock_digest, "mlflow.source.git.commit": record.git_commit}
        metrics = {_slashed(key): value for key, value in record.metrics.items()}
        runs.log_once(self._client, run_id, metrics, {**record.values, "data_hash": record.data_hash}, origin)
        if record.failure is None:
            runs.finish(self._client, run_id)
        elif not (known and known[0].info.status == "FINISHED"):
            self._client.set_tag(run_id, runs.FAILURE, record.failure[:8000])
            self._client.set_terminated(run_id, "FAILED")

    def end(self, table: str, best: Mapping[str, float], status: str = "FINISHED") -> None:
        """End the parent with the ranked table as its note and its file ``sweep.md``, and the best one's metrics."""
        if self._parent is None:
            return
        try:
            with store.readable(self._client.tracking_uri):
                runs.log_once(self._client, self._parent, {_slashed(key): value for key, value in best.items()})
                self._client.set_tag(self._parent, runs.NOTE, table[:8000])
                self._client.log_text(self._parent, table, "sweep.md")
                self._client.set_terminated(self._parent, status)
        except UserError as error:
            log.warning("%s", error)


def _slashed(name: str) -> str:
    """A metric's name with characters that MLflow takes; it takes slashes."""
    return "/".join(metric_name(part) for part in name.split("/"))
