"""Stages killed by SIGKILL at any moment and run again end in the same bytes as one that wasn't; by the real entry."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from ruamel.yaml import YAML

from components import fingerprint, keeping
from components.component import COMPONENTS
from components.loader import load_params

ROOT = Path(__file__).parents[2]
KILLS = {
    "before the first checkpoint": "",
    "half of the weights written": "",
    "checkpoint not sealed": "",
    "between checkpoints": "",
    "old checkpoint removed, new one not sealed": "step 10 of 45",
    "in a validation": "step 20 of 45",
    "finished phase not sealed": "step 20 of 45",
    "phase finished": "step 40 of 45",
    "model half written": "step 45 of 45",
}
"""When the teacher is killed in run after run, and where that run had gone on."""
Run = Callable[..., tuple[int, str]]


def edit(project: Path, change: Callable[[dict[str, Any]], None]) -> None:
    path = project / "params.yaml"
    params = YAML(typ="safe").load(path)
    change(params)
    YAML(typ="safe").dump(params, path)


def tiny(params: dict[str, Any]) -> None:
    """45 steps of the teacher, 35 of the student, a checkpoint after every tenth."""
    params["runtime"]["threads"] = 1
    params["data"]["max_length"] = 32
    params["checkpoints"]["every"] = 10
    general = {"epochs": 9, "batch_size": 24, "lr": 5e-3, "early_stopping": {"metric": "accuracy", "patience": 9}}
    params["teacher"]["phases"]["general"] |= general
    params["distill"]["student"]["layers"] = 2
    params["distill"]["phases"]["distill"] |= {"epochs": 5, "batch_size": 24, "lr": 5e-3}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_encoder: Path, tiny_splits: Path) -> Path:
    """What the stages teacher and distill need, with a base model in place of the teacher; nothing has run."""
    root = tmp_path_factory.mktemp("crashes") / "project"
    shutil.copytree(tiny_encoder, root / "data/base_model")
    shutil.copytree(tiny_splits, root / "artifacts/validate")
    (root / "artifacts/validate/folders.json").write_text("{}")
    for split in ("train", "unlabelled"):
        rows = pq.read_table(tiny_splits / split)["row"]
        logits = np.random.default_rng(0).normal(size=(len(rows), 2)).astype(np.float32)
        place = root / "artifacts/label" / split / "part-00000.parquet"
        place.parent.mkdir(parents=True)
        columns = {"row": rows, "logits": list(logits), "confidence": pa.array([0.8] * len(rows), pa.float32())}
        pq.write_table(pa.table(columns), place)
    shutil.copyfile(ROOT / "runtime.json", root / "runtime.json")
    shutil.copyfile(ROOT / "tests/params.yaml", root / "params.yaml")
    edit(root, tiny)
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Run]:
    """Runs a stage in a folder, to its end or to where it dies; returns exit code and what it printed."""
    command = [sys.executable, str(Path(__file__).with_name("stage_server.py"))]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TQDM_DISABLE": "1"}
    server = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    logs = tmp_path_factory.mktemp("logs")

    def run_stage(folder: Path, stage: str = "teacher", dies: str = "") -> tuple[int, str]:
        log = logs / f"{len(list(logs.iterdir()))}.txt"
        order = {"stage": stage, "folder": str(folder), "log": str(log), "dies": dies}
        server.stdin.write(json.dumps(order) + "\n")
        server.stdin.flush()
        code = int(server.stdout.readline())
        return code, log.read_text()

    yield run_stage
    server.stdin.close()
    server.wait(timeout=30)


@pytest.fixture(scope="module")
def with_teacher(project: Path, run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project with a trained teacher."""
    root = tmp_path_factory.mktemp("whole") / "project"
    shutil.copytree(project, root)
    code, said = run(root)
    assert code == 0, said
    assert "resumed" not in said
    return root


@pytest.fixture
def copied(project: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(project, tmp_path / "project"))


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def checkpoints_of(project: Path, stage: str = "teacher") -> Path:
    (folder,) = keeping.folders(project / keeping.CHECKPOINTS / stage)
    return folder


def resumed(said: str) -> str:
    return said.partition("resumed at ")[2].partition("\n")[0]


def test_a_stage_killed_at_moment_after_moment_ends_in_the_same_bytes(
    copied: Path, with_teacher: Path, run: Run
) -> None:
    for moment, place in KILLS.items():
        code, said = run(copied, dies=moment)
        assert (code, resumed(said)) == (-9, place), moment
        assert not (copied / "artifacts/teacher").exists()
    code, said = run(copied)
    assert (code, resumed(said)) == (0, "step 45 of 45")
    assert contents(copied / "artifacts/teacher") == contents(with_teacher / "artifacts/teacher")


def test_a_student_gets_to_its_end_one_checkpoint_at_a_time(with_teacher: Path, tmp_path: Path, run: Run) -> None:
    whole, killed = (Path(shutil.copytree(with_teacher, tmp_path / name)) for name in ("whole", "killed"))
    assert run(whole, "distill")[0] == 0
    places = []
    while (found := run(killed, "distill", "second checkpoint not sealed"))[0] == -9:
        places.append(resumed(found[1]))
    assert places == ["", "step 10 of 35", "step 20 of 35"]
    assert contents(killed / "artifacts/distill") == contents(whole / "artifacts/distill")


def test_another_fingerprint_starts_anew_and_leaves_the_checkpoint_for_later(copied: Path, run: Run) -> None:
    run(copied, dies="between checkpoints")
    edit(copied, lambda params: params["teacher"]["phases"]["general"].update(lr=4e-3))
    assert "resumed" not in run(copied)[1]
    edit(copied, lambda params: params["teacher"]["phases"]["general"].update(lr=5e-3))
    assert resumed(run(copied)[1]) == "step 10 of 45"


@pytest.mark.parametrize(
    ("name", "harm"), [("best.safetensors", "missing"), ("optimizer.pt", "other bytes"), ("whole.json", "cut off")]
)
def test_a_damaged_checkpoint_is_removed_and_the_one_before_it_used(
    name: str, harm: str, copied: Path, with_teacher: Path, run: Run
) -> None:
    run(copied, dies="after two checkpoints")
    file = checkpoints_of(copied) / "0-general/checkpoint-20" / name
    content = file.read_bytes()
    file.unlink()  # it may have another name elsewhere
    if harm != "missing":
        half = len(content) // 2
        file.write_bytes(content[:half] if harm == "cut off" else content[:half] + bytes(len(content) - half))
    code, said = run(copied)
    assert code == 0, said
    assert "checkpoint-20 is half-written or damaged; it is removed" in said
    assert "resumed at step 10 of 45" in said
    assert contents(copied / "artifacts/teacher") == contents(with_teacher / "artifacts/teacher")


def test_a_damaged_finished_phase_is_trained_again(copied: Path, with_teacher: Path, run: Run) -> None:
    run(copied, dies="phase finished")
    file = checkpoints_of(copied) / "0-general/finished/model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    code, said = run(copied)
    assert code == 0, said
    assert "finished is half-written or damaged" in said
    assert "resumed" not in said
    assert contents(copied / "artifacts/teacher") == contents(with_teacher / "artifacts/teacher")


def test_the_second_of_two_runs_waits_and_then_finds_what_the_first_has_finished(
    with_teacher: Path, copied: Path, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(with_teacher / keeping.CHECKPOINTS, copied / keeping.CHECKPOINTS)
    found: list[tuple[int, str]] = []
    with keeping.hold(checkpoints_of(copied), lambda: None):  # the first run
        second = threading.Thread(target=lambda: found.append(run(copied)))
        second.start()
        time.sleep(1.5)
        assert second.is_alive()
    second.join()
    assert found[0][0] == 0, found
    assert found[0][1].index("waits: another run trains the same thing") < found[0][1].index("resumed at step 45 of 45")
    assert contents(copied / "artifacts/teacher") == contents(with_teacher / "artifacts/teacher")


def test_where_no_checkpoint_can_be_written_training_goes_on_without(
    copied: Path, with_teacher: Path, run: Run
) -> None:
    (copied / ".stillhouse").mkdir()
    (copied / ".stillhouse/checkpoints").write_text("in the way")
    code, said = run(copied)
    assert code == 0, said
    assert "no checkpoints are kept: " in said
    assert contents(copied / "artifacts/teacher") == contents(with_teacher / "artifacts/teacher")


def test_checkpoints_can_be_switched_off(copied: Path, run: Run) -> None:
    edit(copied, lambda params: params["checkpoints"].update(every=0))
    assert run(copied)[0] == 0
    assert not (copied / keeping.CHECKPOINTS).exists()


def test_the_command_of_dvc_yaml_goes_on_across_a_kill(copied: Path, with_teacher: Path) -> None:
    """As DVC runs it, killed from outside; the fingerprint is the one that a plan computes."""
    shutil.copytree(ROOT / "components", copied / "components", ignore=shutil.ignore_patterns("__pycache__"))
    environment = os.environ | {"TQDM_DISABLE": "1"}
    command = [sys.executable, "-m", "components", "teacher"]
    first = subprocess.Popen(command, cwd=copied, env=environment, stdout=subprocess.DEVNULL)
    while not list((copied / keeping.CHECKPOINTS).glob("*/*/*/checkpoint-20")):
        assert first.poll() is None
        time.sleep(0.01)
    first.kill()
    first.wait()
    parts = fingerprint.parts(COMPONENTS["teacher"], load_params(copied / "params.yaml"), copied)
    assert checkpoints_of(copied).name == fingerprint.digest(parts)
    again = subprocess.run(command, cwd=copied, env=environment, check=True, capture_output=True, text=True)
    assert "resumed at step" in again.stdout
    assert contents(copied / "artifacts/teacher") == contents(with_teacher / "artifacts/teacher")
