"""One process at a time trains in a folder; nobody takes half of a removed one for whole."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from components import fingerprint, keeping
from components.component import COMPONENTS, Component
from components.loader import load_params
from components.ml.training import seal

ROOT = Path(__file__).parents[2]
PARAMS = load_params(ROOT / "params.yaml")
HOLDS = """
import sys, time
from pathlib import Path
from components import keeping
lock = keeping.hold(Path(sys.argv[1]), lambda: None)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def other(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the folder a."""
    command = [sys.executable, "-c", HOLDS, str(tmp_path / "a")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_held_folder_is_nobody_elses_until_its_process_dies(tmp_path: Path, other: subprocess.Popen[str]) -> None:
    assert keeping.try_hold(tmp_path / "a") is None
    waited: list[str] = []

    def wait() -> None:
        waited.append("told")
        os.kill(other.pid, signal.SIGKILL)

    with keeping.hold(tmp_path / "a", wait):
        assert waited == ["told"]
        assert keeping.try_hold(tmp_path / "a") is None


def test_who_waited_for_a_folder_that_was_removed_meanwhile_gets_a_new_one(tmp_path: Path) -> None:
    folder, waits, got = tmp_path / "a", threading.Event(), []
    lock = keeping.hold(folder, lambda: None)
    (folder / "old").touch()
    waiting = threading.Thread(target=lambda: got.append(keeping.hold(folder, waits.set)))
    waiting.start()
    waits.wait(10)
    with lock:
        keeping.remove_held(folder)
    waiting.join(10)
    assert [path.name for path in folder.iterdir()] == ["lock"]
    assert keeping.try_hold(folder) is None
    got[0].close()


def test_there_is_nothing_to_hold_where_there_is_no_folder(tmp_path: Path) -> None:
    assert keeping.try_hold(tmp_path / "a") is None
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_removal_is_finished_and_not_taken_for_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "a.removed/deep").mkdir(parents=True)
    assert keeping.folders(tmp_path) == []
    keeping.sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def toy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Component:
    """A component that trains, as far as its launcher can tell."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runtime.json").write_text("{}")
    (tmp_path / "rows").write_text("1")
    return Component("toy", "1.0.0", "components.errors:no_space", {"rows": "rows"}, {"seed": "seed"}, resumes=True)


def test_a_folder_in_which_nothing_was_put_goes_again(toy: Component) -> None:
    with keeping.checkpoint_folder(toy, PARAMS, fingerprint.parts(toy, PARAMS)) as folder:
        assert folder is not None
        assert keeping.read_parts(folder) == {"parts": fingerprint.parts(toy, PARAMS), "accepted": []}
    assert keeping.folders(keeping.CHECKPOINTS / "toy") == []


def test_a_folder_in_which_training_was_stopped_stays(toy: Component) -> None:
    with (
        contextlib.suppress(KeyboardInterrupt),
        keeping.checkpoint_folder(toy, PARAMS, fingerprint.parts(toy, PARAMS)) as folder,
    ):
        (folder / "0-phase").mkdir()
        raise KeyboardInterrupt
    with keeping.checkpoint_folder(toy, PARAMS, fingerprint.parts(toy, PARAMS)) as again:
        assert keeping.folders(keeping.CHECKPOINTS / "toy") == [again]


def test_stages_that_do_not_train_keep_nothing(toy: Component) -> None:
    without = PARAMS.model_copy(update={"checkpoints": PARAMS.checkpoints.model_copy(update={"every": 0})})
    for component, params in ((COMPONENTS["validate"], PARAMS), (toy, without)):
        with keeping.checkpoint_folder(component, params, fingerprint.parts(toy, params)) as folder:
            assert folder is None
    assert not keeping.CHECKPOINTS.exists()


@pytest.fixture
def accepted(toy: Component) -> Path:
    """The folder of a checkpoint that was accepted across an edit."""
    parts = fingerprint.parts(toy, PARAMS)
    folder = keeping.CHECKPOINTS / "toy" / fingerprint.digest(parts)
    keeping.write_parts(folder, parts, ["components/a.py"])
    (folder / "0-phase").mkdir()
    return folder


def note_of(folder: Path) -> Path:
    return keeping.ACCEPTED / "toy" / f"{folder.name}.json"


def test_going_on_from_an_accepted_checkpoint_is_told_and_noted(
    toy: Component, accepted: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seal, "loaded", [])
    with keeping.checkpoint_folder(toy, PARAMS, fingerprint.parts(toy, PARAMS)):
        seal.loaded.append(accepted / "0-phase/checkpoint-10")
    assert "accepted across edits of components/a.py" in capsys.readouterr().out
    assert note_of(accepted).is_file()


def test_a_result_owes_nothing_to_an_accepted_checkpoint_that_did_not_fit(toy: Component, accepted: Path) -> None:
    parts = fingerprint.parts(toy, PARAMS)
    with contextlib.suppress(KeyboardInterrupt), keeping.checkpoint_folder(toy, PARAMS, parts):
        raise KeyboardInterrupt
    assert note_of(accepted).is_file()  # stopped before it looked
    with keeping.checkpoint_folder(toy, PARAMS, parts):
        pass
    assert not note_of(accepted).exists()
    assert keeping.read_parts(accepted) == {"parts": parts, "accepted": []}


@pytest.mark.parametrize("gone", [True, False], ids=["checkpoint gone", "checkpoints off"])
def test_a_training_that_starts_from_nothing_forgets_an_earlier_acceptance(
    gone: bool, toy: Component, accepted: Path
) -> None:
    keeping.write_json(note_of(accepted), {"files": ["components/a.py"]})
    params = PARAMS
    if gone:
        keeping.remove_held(accepted)
    else:
        params = PARAMS.model_copy(update={"checkpoints": PARAMS.checkpoints.model_copy(update={"every": 0})})
    with keeping.checkpoint_folder(toy, params, fingerprint.parts(toy, PARAMS)):
        assert not note_of(accepted).exists()


def test_damaged_parts_are_written_anew(toy: Component) -> None:
    parts = fingerprint.parts(toy, PARAMS)
    folder = keeping.CHECKPOINTS / "toy" / fingerprint.digest(parts)
    keeping.write_parts(folder, parts, ["components/a.py"])
    (folder / keeping.PARTS_FILE).write_text('{"parts')
    with keeping.checkpoint_folder(toy, PARAMS, fingerprint.parts(toy, PARAMS)):
        assert keeping.read_parts(folder) == {"parts": parts, "accepted": []}
