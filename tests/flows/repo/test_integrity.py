"""A result restored from DVC's cache has the bytes that dvc.lock says, or is found out."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from flows.repo import integrity

Toy = Any


def kept(toy: Toy, value: str) -> Path:
    """The file of the cache with that hash."""
    return Path(toy.root / ".dvc/cache/files/md5" / value[:2] / value[2:])


def corrupt(path: Path) -> None:
    """Other bytes in a file that is read-only, as all of the cache are: DVC trusts it."""
    mode = path.stat().st_mode
    path.chmod(0o644)
    path.write_bytes(b"XX")
    path.chmod(mode)


def restore(toy: Toy, stage: str, place: str) -> None:
    path = toy.root / place
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    assert toy.repro(stage) == [stage]


def test_sound_outputs_are_left_alone(toy: Toy) -> None:
    for stage in ("first", "second"):
        assert integrity.discard_damaged(toy.workspace, stage) == []
    assert toy.plan()["second"][0] == "skip"


def test_a_wrong_file_in_the_cache_is_found_in_what_was_restored_and_removed(toy: Toy) -> None:
    right = (toy.root / "artifacts/second").read_bytes()
    value = toy.workspace.output_hash("artifacts/second")
    corrupt(kept(toy, value))
    restore(toy, "second", "artifacts/second")
    assert (toy.root / "artifacts/second").read_bytes() == b"XX"  # DVC has noticed nothing
    assert integrity.discard_damaged(toy.workspace, "second") == ["artifacts/second"]
    assert not kept(toy, value).exists()
    assert toy.repro("second") == ["second"]
    assert (toy.root / "artifacts/second").read_bytes() == right


@pytest.mark.parametrize("name", ["part", "log"])
def test_one_wrong_file_of_a_folder_is_enough_and_the_others_stay_in_the_cache(toy: Toy, name: str) -> None:
    import hashlib

    folder = toy.root / "artifacts/first"
    right = {path.name: path.read_bytes() for path in folder.iterdir()}
    values = {name: hashlib.md5(content).hexdigest() for name, content in right.items()}
    corrupt(kept(toy, values[name]))
    restore(toy, "first", "artifacts/first")
    assert integrity.discard_damaged(toy.workspace, "first") == ["artifacts/first"]
    assert {other: kept(toy, value).exists() for other, value in values.items()} == {
        other: other != name for other in values
    }
    toy.repro("first")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == right


def test_a_wrong_listing_of_a_folder_is_removed_before_anything_is_restored_by_it(toy: Toy) -> None:
    before = toy.workspace.lock_entries()
    value = toy.workspace.output_hash("artifacts/first")
    listing = kept(toy, value)
    listing.chmod(0o644)
    listing.write_bytes(listing.read_bytes().replace(b"part", b"trap"))
    listing.chmod(0o444)
    assert integrity.discard_wrong_listings(toy.workspace) == [value]
    assert integrity.discard_wrong_listings(toy.workspace) == []
    restore(toy, "first", "artifacts/first")
    assert (toy.root / "artifacts/first/part").exists()
    assert toy.workspace.lock_entries() == before
