"""A PostgreSQL for tests: Debian's binaries over a fresh folder on loopback, whether we are root or not."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from flows.server import HOST, free_port

USER, PASSWORD = "mlflow", "100%-secret@database"
STARTS_WITHIN = 60.0


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """The address of an empty database ``postgres``, password and all; the test is skipped where there is none."""
    programs = binaries()
    with _folder() as (folder, command):
        (folder / "password").write_text(PASSWORD)
        shutil.chown(folder / "password", *_owner(folder))
        data = ["-D", str(folder / "data")]
        initdb = [str(programs / "initdb"), *data, "--username", USER, "--pwfile", str(folder / "password")]
        options = ["--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C.UTF-8", "--no-sync"]
        subprocess.run([*command, *initdb, *options], check=True, capture_output=True, cwd=folder)
        port = free_port()
        start = [str(programs / "postgres"), *data, "-h", HOST, "-p", str(port), "-k", str(folder), "-F"]
        server = subprocess.Popen(
            [*command, *start], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            _wait(programs, port, server)
            yield f"postgresql://{USER}:{quote(PASSWORD, safe='')}@{HOST}:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)  # a fast shutdown: open connections are ended
            server.wait(timeout=20)


def binaries() -> Path:
    """The folder of PostgreSQL's programs; the test is skipped where there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    on_path = shutil.which("initdb")
    if not found and not on_path:
        pytest.skip("PostgreSQL is not installed; on Debian: apt-get install postgresql")
    return found[-1].parent if found else Path(str(on_path)).resolve().parent


@contextlib.contextmanager
def _folder() -> Iterator[tuple[Path, list[str]]]:
    """A folder that PostgreSQL may use, and what to put before its commands: it refuses to run as root."""
    command: list[str] = []
    folder = Path(tempfile.mkdtemp(prefix="stillhouse-pg-"))
    try:
        if os.geteuid() == 0:
            try:
                account = pwd.getpwnam("postgres")
            except KeyError:
                pytest.skip("PostgreSQL refuses to run as root, and there is no user 'postgres'")
            os.chown(folder, account.pw_uid, account.pw_gid)
            command = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
        yield folder, command
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _owner(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_uid, found.st_gid


def _wait(folder: Path, port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + STARTS_WITHIN
    while subprocess.run([str(folder / "pg_isready"), "-h", HOST, "-p", str(port)], capture_output=True).returncode:
        assert server.poll() is None, "PostgreSQL ended by itself"
        assert time.monotonic() < deadline, "PostgreSQL did not start"
        time.sleep(0.1)
