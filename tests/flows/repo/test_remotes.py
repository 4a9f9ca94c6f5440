"""Sharing on a torch-free graph, through a folder and through an S3-compatible server on loopback."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from components.errors import UserError
from flows.repo import remotes
from flows.repo.remote_errors import failed
from flows.repo.workspace import Workspace

Toy = Any
SECRET = "the-secret-of-the-test"
STAGES = ["first", "second", "join", "other"]


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """The address of an S3-compatible server that forgets everything at the end."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(params=["folder", "s3"])
def shared(request: pytest.FixtureRequest, toy: Toy, tmp_path: Path) -> Toy:
    """A finished toy with an empty default remote; its settings are committed, as a clone needs them."""
    if request.param == "folder":
        dvc(toy, "remote", "add", "--default", "store", str(tmp_path / "store"))
    else:
        s3_remote(toy, request.getfixturevalue("s3_server"), request.node.name.translate({91: "-", 93: None, 95: "-"}))
    toy.git("commit", "--quiet", "--all", "-m", "remote")
    return toy


def s3_remote(toy: Toy, address: str, bucket: str) -> None:
    import boto3

    keys = {"access_key_id": "the-id", "secret_access_key": SECRET}
    client = boto3.client(
        "s3", endpoint_url=address, region_name="us-east-1", aws_access_key_id="the-id", aws_secret_access_key=SECRET
    )
    client.create_bucket(Bucket=bucket[:63])
    dvc(toy, "remote", "add", "--default", "store", f"s3://{bucket[:63]}/results")
    for name, value in {"endpointurl": address, "region": "us-east-1", **keys}.items():
        dvc(toy, "remote", "modify", "store", name, value)


def dvc(toy: Toy, *arguments: str) -> str:
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=toy.root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def clone(toy: Toy, folder: Path) -> Toy:
    """What a second machine starts with: the git repository and the data."""
    subprocess.run(["git", "clone", "--quiet", str(toy.root), str(folder)], check=True)
    other = type(toy)(Workspace(folder))
    assert other.workspace.pull_data()
    return other


def push_all(toy: Toy) -> list[int]:
    return [*(remotes.push_stage(toy.workspace, stage) for stage in STAGES), remotes.push_data(toy.workspace)]


def restore(toy: Toy) -> None:
    """As a run does: pull and reproduce stage by stage."""
    for stage in STAGES:
        remotes.pull_stage(toy.workspace, stage)
        toy.repro(stage)


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages whose commands DVC starts in this process, growing; the commands run all the same."""
    from dvc.stage import run

    started: list[str] = []
    real = run.cmd_run
    monkeypatch.setattr(run, "cmd_run", lambda stage, **rest: (started.append(stage.name), real(stage, **rest)))
    return started


@pytest.fixture
def in_folder(toy: Toy, tmp_path: Path) -> Callable[[], Toy]:
    """Pushes everything to a folder; gives what makes a second machine."""
    dvc(toy, "remote", "add", "--default", "store", str(tmp_path / "store"))
    toy.git("commit", "--quiet", "--all", "-m", "remote")
    push_all(toy)
    return lambda: clone(toy, tmp_path / "other")


def test_what_was_pushed_is_not_pushed_again_and_a_second_machine_restores_it(
    toy: Toy, in_folder: Callable[[], Toy], commands: list[str]
) -> None:
    other = in_folder()
    assert not any(push_all(toy))
    restore(other)
    assert not commands
    assert other.workspace.lock_entries() == toy.workspace.lock_entries()


def test_a_result_that_no_dvc_lock_names_is_restored_through_its_run_cache_entry(
    shared: Toy, tmp_path: Path, commands: list[str]
) -> None:
    push_all(shared)
    shared.edit("params.yaml", "times: 1", "times: 2")
    shared.repro()
    for stage in ("second", "join"):
        assert remotes.push_stage(shared.workspace, stage) > 0
    commands.clear()
    other = clone(shared, tmp_path / "other")
    other.git("checkout", "--quiet", "dvc.lock")
    assert other.workspace.lock_entries() != shared.workspace.lock_entries()
    other.edit("params.yaml", "times: 1", "times: 2")
    restore(other)
    assert not commands
    assert (other.root / "artifacts/join").read_bytes() == (shared.root / "artifacts/join").read_bytes()


def test_bare_dvc_understands_what_was_pushed(shared: Toy, tmp_path: Path) -> None:
    push_all(shared)
    other = clone(shared, tmp_path / "other")
    assert "Running" not in dvc(other, "repro", "--pull")
    assert other.workspace.lock_entries() == shared.workspace.lock_entries()
    assert "in sync" in dvc(other, "status", "--cloud")


def stored(toy: Toy, path: str) -> Path:
    """The file in the remote that holds an output."""
    oid = str(toy.workspace.output_hash(path))
    return Path(toy.root).parent / "store/files/md5" / oid[:2] / oid[2:]


def test_a_damaged_file_is_named_and_never_restored(
    toy: Toy, in_folder: Callable[[], Toy], commands: list[str]
) -> None:
    other, damaged = in_folder(), stored(toy, "artifacts/other")
    damaged.chmod(0o644)
    damaged.write_bytes(b"something else")
    with pytest.raises(UserError, match="1 file there is damaged") as caught:
        remotes.pull_stage(other.workspace, "other")
    assert caught.value.kind == "remote"
    assert str(damaged) in caught.value.message
    assert "\n" not in caught.value.message
    damaged.unlink()
    assert remotes.pull_stage(other.workspace, "other") == 0
    other.repro("other")
    assert commands == ["other"]
    assert remotes.push_stage(other.workspace, "other") == 1
    assert damaged.read_bytes() == (toy.root / "artifacts/other").read_bytes()


def test_what_was_removed_from_the_remote_is_computed_anew(
    toy: Toy, in_folder: Callable[[], Toy], commands: list[str]
) -> None:
    other = in_folder()
    for path in ("artifacts/first", "artifacts/second"):
        stored(toy, path).unlink()
    restore(other)
    assert commands[0] == "first"
    assert "other" not in commands


def test_a_stage_whose_inputs_are_missing_has_nothing_to_pull(in_folder: Callable[[], Toy]) -> None:
    assert remotes.pull_stage(in_folder().workspace, "join") == 0


def test_what_another_machine_is_still_writing_is_left_alone(toy: Toy, in_folder: Callable[[], Toy]) -> None:
    other = in_folder()
    for entry in (toy.root.parent / "store/runs").rglob("*/*/*"):
        entry.with_name(f"{entry.name}.tmp").write_text("cmd: [", encoding="utf-8")
    (other.root / "dvc.lock").unlink()
    restore(other)
    assert other.workspace.lock_entries() == toy.workspace.lock_entries()
    assert not list((other.root / ".dvc/cache/runs").rglob("*.tmp"))


def test_a_result_that_is_not_whole_is_not_pushed(toy: Toy, in_folder: Callable[[], Toy]) -> None:
    in_folder()
    oid = toy.workspace.output_hash("artifacts/other")
    (toy.root / ".dvc/cache/files/md5" / oid[:2] / oid[2:]).unlink()
    with pytest.raises(UserError, match="artifacts/other is not, or not whole, in DVC's cache"):
        remotes.push_stage(toy.workspace, "other")


def test_without_a_remote_the_error_says_how_to_set_one(toy: Toy) -> None:
    assert remotes.remote(toy.workspace) is None
    assert remotes.limits(toy.workspace) is None
    with pytest.raises(UserError, match="no default DVC remote") as caught:
        remotes.push_stage(toy.workspace, "first")
    assert "dvc remote add --default" in caught.value.remedy


def test_an_unreachable_remote_is_one_message_without_credentials(
    toy: Toy, s3_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    s3_remote(toy, s3_server, "to-be-lost")
    dvc(toy, "remote", "modify", "store", "endpointurl", "http://127.0.0.1:1")
    for action in (lambda: remotes.push_stage(toy.workspace, "other"), lambda: remotes.push_data(toy.workspace)):
        with pytest.raises(UserError, match="'store' \\(s3://to-be-lost/results\\) could not be used") as caught:
            action()
        assert caught.value.kind == "remote"
        assert SECRET not in str(caught.value)
        assert "127.0.0.1:1" in caught.value.message


def test_a_bucket_that_does_not_exist_is_told(toy: Toy, s3_server: str) -> None:
    s3_remote(toy, s3_server, "there")
    dvc(toy, "remote", "modify", "store", "url", "s3://not-there/results")
    with pytest.raises(UserError, match="'store' \\(s3://not-there/results\\)") as caught:
        remotes.push_stage(toy.workspace, "other")
    assert caught.value.kind == "remote"


def test_a_folder_that_can_not_be_made_is_told(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    dvc(toy, "remote", "add", "--default", "store", str(tmp_path / "file" / "store"))
    with pytest.raises(UserError, match="Not a directory") as caught:
        remotes.push_stage(toy.workspace, "other")
    assert caught.value.kind == "remote"


def test_an_http_remote_is_told_to_hold_no_run_cache(toy: Toy) -> None:
    dvc(toy, "remote", "add", "--default", "store", "http://127.0.0.1:1/results")
    assert "run-cache" in (remotes.limits(toy.workspace) or "")


HOLD_THE_LOCK = """
import sys
from dvc.repo import Repo
repo = Repo()
repo.lock.lock()
print("locked", flush=True)
sys.stdin.read()
"""


def test_pushing_waits_for_dvc_to_have_written_its_files(toy: Toy, in_folder: Callable[[], Toy]) -> None:
    in_folder()
    command = [sys.executable, "-c", HOLD_THE_LOCK]
    with subprocess.Popen(command, cwd=toy.root, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "locked\n"
        pushed: list[int] = []
        pushing = threading.Thread(target=lambda: pushed.append(remotes.push_stage(toy.workspace, "other")))
        pushing.start()
        pushing.join(1)
        assert pushing.is_alive()
        holder.communicate()
    pushing.join(30)
    assert pushed == [0]


def test_a_lock_that_dvc_keeps_is_told_as_busy(
    toy: Toy, in_folder: Callable[[], Toy], monkeypatch: pytest.MonkeyPatch
) -> None:
    from dvc.lock import LockError

    def locked(_repo: Any) -> Any:
        raise LockError("held")

    in_folder()
    monkeypatch.setattr("dvc.repo.lock_repo", locked)
    monkeypatch.setattr(remotes, "LOCK_SECONDS", 0.0)
    with pytest.raises(UserError, match="another DVC command") as caught:
        remotes.push_stage(toy.workspace, "other")
    assert caught.value.kind == "busy"


def test_a_remote_is_known_by_its_name_and_address_without_credentials(toy: Toy) -> None:
    assert remotes.identity(toy.workspace) == ""
    dvc(toy, "remote", "add", "--default", "store", "https://me:hunter2@host/results")
    assert remotes.identity(toy.workspace) == "store https://***@host/results"


def test_no_secret_of_the_settings_or_the_environment_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "from-the-environment")
    settings = {"url": "s3://bucket", "secret_access_key": SECRET, "keyfile": "/home/me/key"}
    repo = SimpleNamespace(config={"remote": {"store": settings}})
    told = f"403 for https://me:pass@host/a?X-Signature=abc with {SECRET} and from-the-environment, /home/me/key"
    error = failed(repo, "store", told)
    for secret in (SECRET, "pass", "abc", "from-the-environment"):
        assert secret not in str(error)
    assert "403 for https://***@host/a?*** with *** and ***, /home/me/key" in error.message
