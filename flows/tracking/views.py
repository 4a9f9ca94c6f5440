"""How MLflow's pages show models side by side: a saved view of the runs table, and the addresses that open them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from components.ml.tasks.task import Task
from flows.tracking.headline import leading
from flows.tracking.runs import MODEL, ORDER

if TYPE_CHECKING:
    from mlflow import MlflowClient

VIEW = "stillhouse"
TITLE = "Models side by side"
COLUMNS = (
    "agreement_with_teacher",
    "megabytes",
    "latency_p50_ms",
    "throughput_per_s",
    "parameters",
)
"""Behind the task's leading metrics."""
_SHARED = "mlflow.sharedViewState."  # where MLflow's pages look for a view: a tag of the experiment, by its key
_KIND, _TRAINING = "mlflow.experimentKind", "custom_model_development"
_DESCRIPTION = "attributes.`Description`"
_WIDTH, _DESCRIPTION_WIDTH = 110, 600
_ROWS = {
    "orderByKey": f"tags.`{ORDER}`",
    "orderByAsc": False,
    "startTime": "ALL",
    "lifecycleFilter": "Active",
    "modelVersionFilter": "All Runs",
    "datasetsFilter": [],
}
_KIND_OF_PAGES = "workflowType=machine_learning"  # MLflow's other pages are about prompts and traces


def ensure(client: MlflowClient, experiment: str, task: Task) -> None:
    """Give the experiment the view, and pages that are about training; what people have changed stays.

    The columns are those of the task that is published first.
    """
    tags = client.get_experiment(experiment).tags
    whole = {**_state(task), **_ROWS, "searchFilter": f"tags.`{MODEL}` != ''"}
    envelope = {"name": TITLE, "createdAt": int(time.time() * 1000), "state": json.dumps(whole)}
    wanted = {_KIND: _TRAINING, _SHARED + VIEW: json.dumps(envelope)}
    for key, value in wanted.items():
        if key not in tags:
            client.set_experiment_tag(experiment, key, value)


def _state(task: Task) -> dict[str, Any]:
    """Which columns there are, in which order, how wide: what MLflow's own pages save."""
    metrics = [f"metrics.`{name}`" for name in (*(metric.key for metric in leading(task)), *COLUMNS)]
    columns = [*metrics, _DESCRIPTION]
    return {
        "selectedColumns": columns,
        "columnOrder": columns,
        "columnWidths": {**dict.fromkeys(metrics, _WIDTH), _DESCRIPTION: _DESCRIPTION_WIDTH},
        "runsExpanded": {},
        "runsPinned": [],
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsHiddenMode": "SHOW_ALL",
        "viewMaximized": True,
        "runListHidden": False,
        "isAccordionReordered": False,
        "groupBy": None,
        "groupsExpanded": {},
        "autoRefreshEnabled": True,
        "useGroupedValuesInCharts": True,
        "hideEmptyCharts": True,
    }


def table(web: str, experiment: str) -> str:
    """The address of the runs table with all models of all pipeline runs, the newest first; ``web`` may be empty."""
    return f"{web}/#/experiments/{experiment}/runs?viewStateShareKey={VIEW}&{_KIND_OF_PAGES}"


def comparison(web: str, experiment: str, models: Iterable[str]) -> str:
    """The address of MLflow's page that compares these models' runs, in this order."""
    runs, experiments = (quote(json.dumps(ids, separators=(",", ":"))) for ids in ([*models], [experiment]))
    return f"{web}/#/compare-runs?runs={runs}&experiments={experiments}&{_KIND_OF_PAGES}"
