"""The environment of the libraries: telemetry is off whatever was set, the rest is the user's to choose."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import pytest

from flows import settings


def applied(root: Path, **given: str) -> dict[str, str]:
    """The environment after ``apply``, starting from ``given``."""
    with mock.patch.dict(os.environ, given, clear=True):
        settings.apply(root)
        return dict(os.environ)


def test_telemetry_is_off_even_where_the_user_switched_it_on(tmp_path: Path) -> None:
    on = dict.fromkeys(settings.TELEMETRY_OFF, "surely")
    assert settings.TELEMETRY_OFF.items() <= applied(tmp_path, **on).items()
    assert settings.TELEMETRY_OFF.items() <= applied(tmp_path).items()


def test_every_library_with_telemetry_is_named() -> None:
    for library in ("PREFECT", "MLFLOW", "DVC", "HF_HUB", "GX", "DO_NOT_TRACK"):
        assert any(name.startswith(library) for name in settings.TELEMETRY_OFF)


def test_consoles_are_quiet_unless_the_user_asks_for_more(tmp_path: Path) -> None:
    found = applied(tmp_path, PREFECT_LOGGING_LEVEL="DEBUG")
    assert found["PREFECT_LOGGING_LEVEL"] == "DEBUG"
    assert (settings.QUIET | {"PREFECT_LOGGING_LEVEL": "DEBUG"}).items() <= found.items()


def test_prefect_keeps_its_state_inside_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert applied(Path())["PREFECT_HOME"] == str(tmp_path / ".stillhouse/prefect")
    assert applied(Path(), PREFECT_HOME="/elsewhere")["PREFECT_HOME"] == "/elsewhere"


@pytest.mark.parametrize("name", ["PREFECT_API_URL", "PREFECT_PROFILE"])
def test_a_prefect_that_the_user_set_up_keeps_its_home_but_an_empty_variable_sets_up_none(
    tmp_path: Path, name: str
) -> None:
    assert "PREFECT_HOME" not in applied(tmp_path, **{name: "mine"})
    assert "PREFECT_HOME" in applied(tmp_path, **{name: ""})
