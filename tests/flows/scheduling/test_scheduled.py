"""What a schedule starts: which revision it works on, when there is nothing to do, how it ends, who waits for whom."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from components.errors import UserError
from flows import notifications
from flows.repo.workspace import Workspace
from flows.scheduling import workers

Toy = Any
# Stands for the revision's own `stillhouse`: does what script.json says, and notes how it was called.
COMMAND = """
import json, os, sys
from pathlib import Path
script = json.loads(Path("script.json").read_text())
with Path(".stillhouse/calls").open("a") as calls:
    calls.write(" ".join(sys.argv[1:]) + "\\n")
if sys.argv[1] == "plan":
    print(json.dumps({"stages": [{"name": "first", "action": script["action"], "because": ["why"]}], "then": []}))
else:
    print("\\n".join(script.get("says", ["trained"])))
    lock = Path("dvc.lock")
    lock.write_text(lock.read_text() + "# of this run\\n")
    if "left" in script:
        Path(os.environ["STILLHOUSE_ENDING"]).write_text(json.dumps(script["left"]))
    sys.exit(script.get("code", 0))
"""


@pytest.fixture
def project(toy: Toy, prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """The toy, with a command of its own in which nothing is to be done."""
    (toy.root / "flows").mkdir()
    (toy.root / "flows" / "__init__.py").touch()
    (toy.root / "flows" / "cli.py").write_text(COMMAND)
    (toy.root / ".gitignore").write_text("/data\n/artifacts\n/.stillhouse\n__pycache__\n")
    play(toy, action="skip")
    monkeypatch.chdir(toy.root)
    monkeypatch.setenv("STILLHOUSE_RETRY_DELAYS", "")
    monkeypatch.setenv("PREFECT_LOGGING_LEVEL", "ERROR")
    for name in ("PREFECT_HOME", "PREFECT_API_URL"):  # scheduled() sets what isn't set
        monkeypatch.setenv(name, os.environ.get(name, ""))
    return toy


def play(toy: Toy, **script: Any) -> None:
    """Commit what the command shall do from now on."""
    (toy.root / "script.json").write_text(json.dumps(script))
    toy.git("add", ".")
    toy.git("commit", "--quiet", "--allow-empty", "-m", "script")


def run(**parameters: Any) -> Any:
    """The state in which a scheduled run ends."""
    from flows.scheduling.scheduled import scheduled

    return scheduled(**parameters, return_state=True)


def worktree(toy: Toy) -> Path:
    return Path(toy.root) / ".stillhouse" / "worktrees" / "scheduled-by-hand"


def calls(toy: Toy) -> list[str]:
    return (worktree(toy) / ".stillhouse" / "calls").read_text().splitlines()


class TestWhatIsRun:
    """Plan first, then run, both in the revision's worktree."""

    def test_nothing_to_do_ends_as_nothing_changed_and_runs_nothing(self, project: Toy) -> None:
        state = run()
        assert (state.type.value, state.name, state.message) == ("COMPLETED", "NothingChanged", "nothing changed")
        assert calls(project) == ["plan --json"]

    def test_what_is_out_of_date_is_run_with_the_parameters_of_this_run_alone(self, project: Toy) -> None:
        play(project, action="resume")
        state = run(overrides={"first.rate": 0.5, "a.b": [1, "x"]}, time_limit="8h", pull=False, parallel=2)
        assert state.is_completed()
        assert "resume first" in state.message
        shared = '--no-pull --set first.rate=0.5 --set a.b=[1, "x"]'
        assert calls(project) == [f"plan --json {shared}", f"run {shared} --wait --parallel 2 --time-limit 8h"]

    def test_results_are_pushed_where_there_is_a_remote(self, project: Toy, tmp_path: Path) -> None:
        (project.root / ".dvc" / "config").write_text(f"[core]\nremote = a\n['remote \"a\"']\nurl = {tmp_path}/dvc\n")
        play(project, action="run")
        run()
        assert calls(project) == ["plan --json --push", "run --push --wait --parallel 1"]
        run(push=False)
        assert "--push" not in calls(project)[3]

    def test_the_revision_asked_for_counts_and_the_checkout_stays_as_it_is(self, project: Toy) -> None:
        first = project.workspace.git_commit()
        play(project, action="run", says=["later"])
        lock = (project.root / "dvc.lock").read_bytes()
        assert run(revision=first).name == "NothingChanged"
        assert run(revision="HEAD").name == "Completed"
        assert (project.root / "dvc.lock").read_bytes() == lock
        assert b"# of this run" in (worktree(project) / "dvc.lock").read_bytes()

    def test_the_next_run_starts_from_what_the_last_one_recorded(self, project: Toy) -> None:
        play(project, action="run")
        run()
        play(project, action="skip")
        run()
        assert (worktree(project) / "dvc.lock").read_text().endswith("# of this run\n")

    def test_a_committed_lock_counts_once_it_is_another_one(self, project: Toy) -> None:
        play(project, action="run")
        run()
        lock = project.root / "dvc.lock"
        lock.write_text("# committed\n" + lock.read_text())
        play(project, action="skip")
        run()
        assert "# of this run" not in (worktree(project) / "dvc.lock").read_text()

    def test_where_only_data_counts_other_changes_are_left_alone(self, project: Toy) -> None:
        play(project, action="run")
        assert run(only_if_data_changed=True).name == "Completed"
        play(project, action="run", says=["code changed"])
        assert run(only_if_data_changed=True).name == "NothingChanged"
        assert len(calls(project)) == 2
        (project.root / "data" / "rows.csv").write_text("文本,label\n新,1\n不好,0\n", encoding="utf-8")
        project.workspace.add_data()
        play(project, action="run", says=["data changed"])
        assert run(only_if_data_changed=True).name == "Completed"
        assert len(calls(project)) == 4


class TestHowItEnds:
    """States, and who is told."""

    @pytest.fixture(autouse=True)
    def told(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """The notifications."""
        sent: list[str] = []
        monkeypatch.setattr(notifications, "notify", lambda root, event, subject, body: sent.append(f"{event} {body}"))
        return sent

    def test_a_users_mistake_fails_with_the_message_that_a_person_would_see(
        self, project: Toy, told: list[str]
    ) -> None:
        says, left = ["noise", "Error: params.yaml: no.", "To do: mend it."], {"kind": "parameters", "told": True}
        play(project, action="run", code=2, says=says, left=left)
        state = run()
        assert (state.type.value, state.message) == ("FAILED", "Error: params.yaml: no.\nTo do: mend it.")
        assert told == []  # the run itself has told

    def test_one_that_was_killed_fails_with_the_end_of_its_output(self, project: Toy, told: list[str]) -> None:
        play(project, action="run", code=137, says=["last words"])
        state = run()
        assert state.is_failed()
        assert "code 137" in state.message
        assert "last words" in state.message
        assert len(told) == 1

    @pytest.mark.parametrize(("code", "says"), [(130, ["Interrupted."]), (2, ["Error: Cancelled from Prefect; x."])])
    def test_an_interrupted_one_is_cancelled(self, project: Toy, told: list[str], code: int, says: list[str]) -> None:
        play(project, action="run", code=code, says=says)
        assert run().is_cancelled()
        assert told == []

    def test_somebody_is_told_unless_the_run_says_that_it_has_told(self, project: Toy, told: list[str]) -> None:
        play(project, action="run", code=2, says=["Error: no."])
        assert run().is_failed()
        assert told == ["failure Error: no."]

    @pytest.mark.parametrize("wrong", [{"time_limit": "soon"}, {"parallel": 0}])
    def test_a_wrong_option_is_refused_first_and_told(self, project: Toy, told: list[str], wrong: Any) -> None:
        assert run(**wrong).is_failed()
        assert len(told) == 1
        assert not worktree(project).exists()

    def test_bad_data_is_refused_once_until_the_commit_or_the_data_changes(self, project: Toy) -> None:
        refused = {"action": "run", "code": 2, "says": ["Error: no."], "left": {"kind": "gate", "told": True}}
        play(project, **refused)
        assert run(only_if_data_changed=True).is_failed()
        assert run(only_if_data_changed=True).name == "AlreadyRefused"
        assert len(calls(project)) == 2
        play(project, **refused)
        assert run(only_if_data_changed=True).is_failed()

    def test_a_fault_that_passes_is_tried_again(self, project: Toy) -> None:
        play(project, action="run", code=2, says=["Error: no."], left={"kind": "time limit", "told": True})
        assert [run(only_if_data_changed=True).is_failed() for _ in range(2)] == [True, True]

    def test_what_failed_is_not_taken_for_finished(self, project: Toy) -> None:
        play(project, action="run", code=1)
        run(only_if_data_changed=True)
        play(project, action="skip")
        run(only_if_data_changed=True)
        assert calls(project)[2:] == ["plan --json"]

    def test_an_unknown_revision_fails_and_somebody_is_told(self, project: Toy, told: list[str]) -> None:
        state = run(revision="nowhere")
        assert state.is_failed()
        assert "nowhere" in state.message
        assert [message.split()[0] for message in told] == ["failure"]

    def test_the_worker_is_gone_so_the_run_ends_and_says_so(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from flows.scheduling import scheduled
        from flows.scheduling.commands import Ended

        def terminated(*_: Any) -> None:
            raise SystemExit

        monkeypatch.setattr(scheduled, "POLL_SECONDS", 0.05)
        monkeypatch.setattr(workers.Worker, "gone", property(lambda _: time.monotonic() > died))
        before, died = signal.signal(signal.SIGTERM, terminated), time.monotonic() + 0.2
        try:
            with pytest.raises(Ended) as ended, scheduled._ending_with_the_worker():
                time.sleep(20)
        finally:
            signal.signal(signal.SIGTERM, before)
        assert ended.value.state.is_crashed()
        assert "worker" in str(ended.value.state.message)


class TestOneAtATime:
    """At most one scheduled run in a project."""

    def test_a_second_one_is_cancelled_if_that_is_wanted(self, project: Toy) -> None:
        from flows.scheduling.scheduled import only_scheduled_run

        with only_scheduled_run(project.workspace, "wait", print):
            state = run(if_busy="cancel")
        assert state.is_cancelled()
        assert not worktree(project).exists()

    def test_a_second_one_waits_otherwise(self, project: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
        from flows.scheduling import scheduled

        monkeypatch.setattr(scheduled, "POLL_SECONDS", 0.05)
        waiting = threading.Event()
        ends: list[float] = []

        def second() -> None:
            with scheduled.only_scheduled_run(project.workspace, "wait", lambda _: waiting.set()):
                ends.append(time.monotonic())

        thread = threading.Thread(target=second)
        with scheduled.only_scheduled_run(project.workspace, "cancel", print):
            thread.start()
            assert waiting.wait(10)
            assert ends == []
            released = time.monotonic()
        thread.join(10)
        assert ends[0] >= released


class TestRevisions:
    """A branch is what it is on the git remote."""

    @pytest.fixture
    def clone(self, project: Toy, tmp_path: Path) -> Workspace:
        """A clone, behind its origin by a commit."""
        project.git("branch", "--move", "--force", "main")
        project.git("clone", "--quiet", str(project.root), str(tmp_path / "clone"))
        play(project, action="run")
        return Workspace(tmp_path / "clone")

    def test_the_remotes_branch_is_fetched_and_wins(self, project: Toy, clone: Workspace) -> None:
        from flows.scheduling.scheduled import find_commit

        behind = clone.git_commit()
        assert find_commit(clone, "main", print) == project.workspace.git_commit() != behind
        assert find_commit(clone, str(behind), print) == behind
        assert clone.git_commit() == behind

    def test_an_unreachable_remote_is_tried_again_and_then_named(
        self, clone: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from flows.scheduling.scheduled import find_commit

        monkeypatch.setenv("STILLHOUSE_RETRY_DELAYS", "0,0")
        (clone.root / ".git" / "config").write_text(f'[remote "origin"]\nurl = {tmp_path}/nowhere\n')
        said: list[str] = []
        with pytest.raises(UserError, match="origin") as caught:
            find_commit(clone, "main", said.append)
        assert caught.value.kind == "network"
        assert len(said) == 2
