"""Registering the deployments of prefect.yaml on a real Prefect API, and what is told of their schedules."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from components.errors import UserError
from flows import server
from flows.scheduling import deploying
from flows.scheduling.workers import POOL, PROJECT

ROOT = Path(__file__).parents[3]
Toy = Any


@pytest.fixture
def project(toy: Toy, prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy with our prefect.yaml and flows, on the branch `trunk`."""
    from prefect.settings import get_current_settings

    shutil.copyfile(ROOT / "prefect.yaml", toy.root / "prefect.yaml")
    for name in ("flows", "components"):
        shutil.copytree(ROOT / name, toy.root / name, ignore=shutil.ignore_patterns("__pycache__"))
    toy.git("branch", "--move", "--force", "trunk")
    monkeypatch.setenv("PREFECT_API_URL", str(get_current_settings().api.url))
    return Path(toy.root)


def deployment(name: str) -> Any:
    from prefect.client.orchestration import get_client

    with get_client(sync_client=True) as client:
        return client.read_deployment_by_name(f"scheduled/{name}")


def test_every_deployment_is_registered_with_its_schedule_and_its_branch_and_again_changes_nothing(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.client.orchestration import get_client

    assert deploying.lasting_api(project).startswith("http://127.0.0.1")
    first = deploying.register(project, [])
    assert [(each.name, len(each.timings)) for each in first] == [
        ("nightly", 1),
        ("on-demand", 0),
        ("when-data-changes", 1),
        ("watch", 1),
        ("score", 0),
    ]
    assert [each.flow for each in first] == ["scheduled"] * 3 + ["monitoring", "scoring"]
    nightly = first[0].timings[0]
    assert (nightly.rule, nightly.zone) == ("30 2 * * *", "Europe/London")
    assert nightly.next is not None
    assert (nightly.next.hour, nightly.next.minute) == (2, 30)
    once = deployment("nightly")
    assert once.parameters == {"revision": "trunk", "if_busy": "wait", "time_limit": "8h"}
    assert (once.work_pool_name, once.global_concurrency_limit.limit) == (POOL, 1)
    assert once.concurrency_options.collision_strategy.value == "ENQUEUE"
    assert deployment("when-data-changes").concurrency_options.collision_strategy.value == "CANCEL_NEW"
    with get_client(sync_client=True) as client:
        assert client.read_work_pool(POOL).type == "process"

    # Each worker fills in its own folder, wherever the deployment was registered.
    monkeypatch.setenv(PROJECT, "/elsewhere")
    assert [each.name for each in deploying.register(project, ["nightly"])] == ["nightly"]
    again = deployment("nightly")
    assert (again.id, len(again.schedules)) == (once.id, 1)
    assert again.pull_steps == once.pull_steps
    assert "{{ $STILLHOUSE_PROJECT }}" in str(again.pull_steps)


def test_what_prefect_refuses_is_told_in_its_words(project: Path) -> None:
    path = project / "prefect.yaml"
    path.write_text(path.read_text().replace("scheduled.py:scheduled", "scheduled.py:nothing"))
    path.write_text(path.read_text().replace("name: nightly", "name: broken"))
    with pytest.raises(UserError, match="nothing") as caught:
        deploying.register(project, ["broken"])
    assert "prefect.yaml" in caught.value.remedy


def test_an_unknown_name_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(UserError, match="weekly") as caught:
        deploying.register(ROOT, ["weekly"])
    assert "nightly, on-demand, when-data-changes" in caught.value.remedy


@pytest.mark.parametrize("content", [None, "name: x\n", "deployments: []\n", "- a\n"])
def test_a_file_without_deployments_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "prefect.yaml").write_text(content)
    with pytest.raises(UserError, match=r"prefect\.yaml"):
        deploying.declared(tmp_path)


def test_without_a_server_that_stays_none_is_started_and_the_way_to_one_is_told(
    tmp_path: Path, prefect_server: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from prefect.settings import PREFECT_API_URL, temporary_settings

    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(server, "start_prefect", lambda *_, **__: pytest.fail("started"))
    with temporary_settings(restore_defaults=[PREFECT_API_URL]), pytest.raises(UserError, match="Expected a Prefect"):
        deploying.lasting_api(tmp_path)
    port = server.free_port()
    silent = temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port}/api"})
    with silent, pytest.raises(UserError, match=str(port)) as caught:
        deploying.lasting_api(tmp_path)
    assert "stillhouse ui" in caught.value.remedy


def test_the_next_time_is_told_in_the_schedules_own_zone_through_the_change_of_clocks() -> None:
    from prefect.client.schemas.schedules import CronSchedule

    nightly = CronSchedule(cron="30 2 * * *", timezone="Europe/London")
    winter = deploying.timing(nightly, datetime(2026, 1, 10, 12, tzinfo=UTC)).next
    summer = deploying.timing(nightly, datetime(2026, 7, 10, 12, tzinfo=UTC)).next
    assert winter == datetime(2026, 1, 11, 2, 30, tzinfo=UTC)
    assert summer == datetime(2026, 7, 11, 1, 30, tzinfo=UTC)
    assert winter is not None
    assert summer is not None
    assert (winter.hour, summer.hour) == (2, 2)
