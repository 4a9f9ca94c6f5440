"""Stages compute only under the library versions that runtime.json records; every fault of it is readable."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from components import runtime
from components.errors import UserError


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    path = tmp_path / "runtime.json"
    runtime.record(path)
    return path


def refused(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        runtime.check(path)
    assert caught.value.kind == "runtime"
    assert "stillhouse runtime" in caught.value.remedy
    return caught.value.message


def test_recorded_versions_pass(recorded: Path) -> None:
    runtime.check(recorded)
    assert list(json.loads(recorded.read_text())) == list(runtime.LIBRARIES)


@pytest.mark.parametrize("content", [b"", b'{"torch": ', b"\xff\xfe", b"[1, 2]", b"null"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "runtime.json"
    path.write_bytes(content)
    assert "runtime.json is damaged" in refused(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "runtime.json is missing" in refused(tmp_path / "runtime.json")


@pytest.mark.parametrize("version", ["0.0.1", 2, None])
def test_other_versions_are_listed(recorded: Path, version: object) -> None:
    recorded.write_text(json.dumps(json.loads(recorded.read_text()) | {"torch": version}))
    assert f"torch: expected {version}, installed 2" in refused(recorded)


def test_a_recorded_library_that_is_not_installed_is_listed(recorded: Path) -> None:
    recorded.write_text(json.dumps(json.loads(recorded.read_text()) | {"no-such-library": "1.0"}))
    assert "no-such-library: expected 1.0, installed none" in refused(recorded)


def test_a_library_that_results_need_must_be_installed(recorded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "LIBRARIES", (*runtime.LIBRARIES, "no-such-library"))
    assert "no-such-library: expected none, installed none" in refused(recorded)
    with pytest.raises(UserError, match="not installed: no-such-library"):
        runtime.record(recorded)
