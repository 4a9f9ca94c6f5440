"""A sealed folder is whole just as long as every file has its bytes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from components.ml.training.seal import SEAL, is_whole, said_of, seal


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    (tmp_path / "a.bin").write_bytes(b"weights")
    (tmp_path / "b.json").write_text("{}")
    seal(tmp_path, step=10, total=20)
    return tmp_path


def test_what_was_said_is_read_again(sealed: Path) -> None:
    assert said_of(sealed) == {"step": 10, "total": 20}
    assert is_whole(sealed)


HARM: list[Callable[[Path], object]] = [
    lambda folder: (folder / "a.bin").write_bytes(b"weight"),
    lambda folder: (folder / "a.bin").write_bytes(b""),
    lambda folder: (folder / "b.json").unlink(),
    lambda folder: (folder / SEAL).unlink(),
    lambda folder: (folder / SEAL).write_text((folder / SEAL).read_text()[:-5]),
    lambda folder: (folder / SEAL).write_text("[]"),
]


@pytest.mark.parametrize("harm", HARM)
def test_a_file_cut_off_or_missing_is_seen_at_once(harm: Callable[[Path], object], sealed: Path) -> None:
    harm(sealed)
    assert said_of(sealed) is None
    assert not is_whole(sealed)


def test_other_bytes_of_the_same_length_are_noticed(sealed: Path) -> None:
    (sealed / "a.bin").write_bytes(b"Weights")
    assert not is_whole(sealed)


def test_reading_a_seal_needs_no_torch() -> None:
    script = "import sys\nimport components.ml.training.seal\nassert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=Path(__file__).parents[4])
