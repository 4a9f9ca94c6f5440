"""What the Prefect UI shows of a run, read back from a real server."""

from __future__ import annotations

import contextvars
import json
import threading
from typing import Any

import pytest

from flows.repo.planning import PlannedStage

pytestmark = pytest.mark.usefixtures("prefect_server")


def made(flow_run_id: Any) -> dict[str, Any]:
    """The artifacts of a flow run by key; a key that stands twice is an error."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    with get_client(sync_client=True) as client:
        only = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[flow_run_id]))
        found = client.read_artifacts(artifact_filter=only)
    assert len({artifact.key for artifact in found}) == len(found)
    return {str(artifact.key): artifact for artifact in found}


def line(step: int, **more: Any) -> dict[str, Any]:
    return {"phase": "general", "step": step, "total_steps": 100, "epoch": step / 50, "rows": 500, **more}


def test_the_plan_the_comparison_and_links_belong_to_the_run() -> None:
    from prefect import flow
    from prefect.runtime import flow_run

    from flows import artifacts

    @flow
    def showing() -> str:
        artifacts.plan(
            [
                PlannedStage("first", "skip"),
                PlannedStage("second", "resume", ["a: 1 -> 2", "code/second.py changed"], step=40, seconds=95.0),
            ]
        )
        artifacts.comparison("| a |\n|---|\n")
        artifacts.decision("**promoted**")
        artifacts.mlflow_run("http://127.0.0.1:5000/#/x")
        return str(flow_run.id)

    found = made(showing())
    assert json.loads(found["plan"].data) == [
        {"stage": "first", "action": "skip", "because": "", "takes about": ""},
        {
            "stage": "second",
            "action": "resume at step 40",
            "because": "a: 1 -> 2; code/second.py changed",
            "takes about": "2 min",
        },
    ]
    assert found["comparison"].data == "| a |\n|---|\n"
    assert found["decision"].data == "**promoted**"
    assert "http://127.0.0.1:5000/#/x" in found["mlflow"].data


def test_progress_is_one_artifact_of_the_task_run_brought_up_to_date_from_another_thread() -> None:
    from prefect import flow, task
    from prefect.runtime import flow_run, task_run

    from flows import artifacts

    @task
    def training() -> str:
        with artifacts.progress("Head_tune") as show:
            lines = [line(10, loss=0.5), line(20, loss=0.25), line(100, eval_loss=0.125)]
            follower = threading.Thread(target=lambda: [show(each) for each in lines])
            follower.start()
            follower.join()
        return str(task_run.id)

    @flow
    def showing() -> tuple[str, str]:
        return str(flow_run.id), training()

    flow_run_id, task_run_id = showing()
    shown = made(flow_run_id)["progress-head-tune"]
    assert str(shown.task_run_id) == task_run_id
    assert float(shown.data) == 100
    assert shown.description.startswith("step 100 of 100, general, loss 0.125")


def test_a_stage_that_trains_nothing_shows_no_progress() -> None:
    from prefect import flow
    from prefect.runtime import flow_run

    from flows import artifacts

    @flow
    def showing() -> str:
        with artifacts.progress("validate"):
            pass
        return str(flow_run.id)

    assert made(showing()) == {}


def test_it_is_shown_every_few_seconds_and_the_rate_counts_from_the_first_line_seen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from flows import artifacts

    said: list[tuple[float, str]] = []
    monkeypatch.setattr(artifacts, "create_progress_artifact", lambda percent, key, description: "id")
    monkeypatch.setattr(
        artifacts, "update_progress_artifact", lambda id, percent, description: said.append((percent, description))
    )
    now = [1000.0]
    progress = artifacts.Progress("a", contextvars.copy_context(), lambda: now[0])
    progress.line(line(40))  # resumed there
    for step in range(41, 51):
        now[0] += 1
        progress.line(line(step))
    progress.close()
    # 1 step a second, 50 steps of 500 rows an epoch
    assert said == [
        (45, "step 45 of 100, general, 10 examples/s, 55 s left"),
        (50, "step 50 of 100, general, 10 examples/s, 50 s left"),
    ]


def test_whatever_goes_wrong_disturbs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import artifacts

    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("no server")

    for name in (
        "create_table_artifact",
        "create_markdown_artifact",
        "create_link_artifact",
        "create_progress_artifact",
    ):
        monkeypatch.setattr(artifacts, name, broken)
    artifacts.plan([PlannedStage("first", "skip")])
    artifacts.comparison("x")
    artifacts.decision("x")
    artifacts.mlflow_run("x")
    with artifacts.progress("a") as show:
        show(line(1))
        show(line(2))
