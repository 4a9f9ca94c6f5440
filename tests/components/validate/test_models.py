"""One digest for each model's folder: it changes with any file in it, and with nothing else."""

from __future__ import annotations

import shutil
from pathlib import Path

from components.validate.models import digests


def test_a_digest_depends_on_paths_and_bytes_alone(tmp_path: Path) -> None:
    (tmp_path / "data/one/nested").mkdir(parents=True)
    (tmp_path / "data/one/config.json").write_text("{}")
    (tmp_path / "data/one/nested/模型.bin").write_bytes(bytes(3))
    shutil.copytree(tmp_path / "data/one", tmp_path / "data/two")
    models = {"b": "data/two", "a": "data/one"}
    found = digests(models, tmp_path)
    assert list(found) == ["a", "b"]
    assert found["a"] == found["b"]
    assert len(found["a"]) == 64

    changes = {
        "bytes": lambda folder: (folder / "config.json").write_text("[]"),
        "name": lambda folder: (folder / "config.json").rename(folder / "configs.json"),
        "new": lambda folder: (folder / "empty").touch(),
        "gone": lambda folder: (folder / "nested/模型.bin").unlink(),
    }
    seen = {found["a"]}
    for change in changes.values():
        shutil.rmtree(tmp_path / "data/two")
        shutil.copytree(tmp_path / "data/one", tmp_path / "data/two")
        change(tmp_path / "data/two")
        seen.add(digests(models, tmp_path)["b"])
    assert len(seen) == 1 + len(changes)


def test_without_models_there_are_no_digests(tmp_path: Path) -> None:
    assert digests({}, tmp_path) == {}
