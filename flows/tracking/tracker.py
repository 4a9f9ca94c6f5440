"""The flow's door to MLflow: begin a run, follow its training, publish its results."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from components.errors import UserError
from flows.tracking import publish as publication
from flows.tracking import runs, store
from flows.tracking.publish import Published
from flows.tracking.record import PipelineRecord
from flows.tracking.stream import Stream

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Parent:
    """The parent run of a pipeline run that is under way."""

    run_id: str
    experiment_id: str
    url: str


class Tracker:
    """Everything goes by explicit run ids, never by MLflow's thread-local active run.

    ``follow`` and ``fail`` warn and go on when MLflow can't be used; ``begin`` and ``publish`` raise.

    Args:
        root: the project's folder; holds the embedded store.
        experiment: the experiment's name.
    """

    def __init__(self, root: Path, experiment: str) -> None:
        self.root = root
        self.experiment = experiment

    @cached_property
    def client(self) -> MlflowClient:
        """MLflow's client, over a store made ready.

        Raises:
            UserError: MLflow can't be used (``tracking``).
        """
        uri = store.prepare(self.root)
        from mlflow import MlflowClient

        return MlflowClient(uri)

    @cached_property
    def experiment_id(self) -> str:
        """The experiment, made if it is missing."""
        return runs.experiment_id(self.client, self.experiment)

    def begin(self, inputs_digest: str, name: str, tags: Mapping[str, str] | None = None) -> Parent:
        """The parent run for these inputs, made or taken up again after a kill.

        Raises:
            UserError: MLflow can't be used (``tracking``).
        """
        with store.readable(store.tracking_uri(self.root)):
            run = runs.begin_parent(self.client, self.experiment_id, inputs_digest, name, tags or {})
        return Parent(run.info.run_id, self.experiment_id, self.url(run.info.run_id))

    def follow(self, parent: Parent | None, model: str) -> Stream:
        """A stream for the training curve of one model, on its own child run."""
        if parent is None:
            return Stream(None, None)
        try:
            with store.readable(self.client.tracking_uri):
                run = runs.child(self.client, parent.experiment_id, parent.run_id, model)
                runs.reopen(self.client, run)
        except UserError as error:
            log.warning("%s", error)
            return Stream(None, None)
        return Stream(self.client, run.info.run_id)

    def fail(self, parent: Parent | None, reason: str, status: str = "FAILED") -> None:
        """End an unfinished pipeline run: FAILED, or KILLED."""
        if parent is None:
            return
        try:
            with store.readable(self.client.tracking_uri):
                runs.fail(self.client, parent.experiment_id, parent.run_id, status, reason)
        except UserError as error:
            log.warning("%s", error)

    def publish(self, record: PipelineRecord) -> Published:
        """Write the results of a pipeline run; repeating it adds nothing.

        Raises:
            UserError: MLflow can't be used (``tracking``): try again later;
                or a model loads back with other logits (``model``).
        """
        with store.readable(store.tracking_uri(self.root)):
            web = store.web_address(self.client.tracking_uri)
            return publication.publish(self.client, self.experiment_id, record, web)

    def attach(self, run_id: str, files: Mapping[str, Path]) -> None:
        """Put files under their names among a run's artifacts, unless just these are there.

        Raises:
            UserError: MLflow can't be used (``tracking``).
        """
        with store.readable(store.tracking_uri(self.root)):
            publication.attach(self.client, run_id, files)

    def describe(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run; those that it has already are replaced.

        Raises:
            UserError: MLflow can't be used (``tracking``).
        """
        with store.readable(store.tracking_uri(self.root)):
            runs.describe(self.client, run_id, tags)

    def url(self, run_id: str) -> str:
        """Where people look at a run; over SQLite that is where ``make ui`` will show it."""
        web = store.web_address(self.client.tracking_uri)
        return f"{web}/#/experiments/{self.experiment_id}/runs/{run_id}"
