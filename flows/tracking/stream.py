"""A model's training curve, logged while it trains; MLflow failing never disturbs the training."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from flows.tracking import curves

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)


class Stream:
    """Takes new lines of one model's history.jsonl; silent when there is no run to log to.

    Args:
        client, run_id: the model's child run; None for a stream that leads nowhere.
    """

    def __init__(self, client: MlflowClient | None, run_id: str | None) -> None:
        self._client = client
        self.run_id = run_id
        self._seen: curves.Seen | None = None

    def push(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Log the lines' values; those already there (an earlier, killed attempt's) are skipped."""
        if self._client is None or self.run_id is None:
            return
        try:
            if self._seen is None:
                self._seen = curves.logged(self._client, self.run_id)
            curves.add(self._client, self.run_id, lines, self._seen)
        except Exception as error:  # whatever fails here, the training must go on; publish adds what is missing
            self._give_up(error)

    def close(self, status: str = "FINISHED") -> None:
        """End the child run: FINISHED, FAILED or KILLED. A finished one stays as it is."""
        if self._client is None or self.run_id is None:
            return
        try:
            if self._client.get_run(self.run_id).info.status != "FINISHED":
                self._client.set_terminated(self.run_id, status)
        except Exception as error:  # as in push
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        log.warning("MLflow no longer takes the training curve (%.200s); it will be published afterwards.", reason)
        self._client = None
