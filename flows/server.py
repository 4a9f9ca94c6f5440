"""Local servers on loopback: Prefect's API for the time of a run, and both UIs for `stillhouse ui`."""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from components.errors import UserError
from flows.processes import Process

HOST = "127.0.0.1"
START_SECONDS = 90.0


@contextlib.contextmanager
def prefect_api(root: Path) -> Iterator[None]:
    """Make a Prefect API reachable: the one that PREFECT_API_URL names, a running `stillhouse ui`, or our own.

    Our own keeps its database under .stillhouse/, where `stillhouse ui` finds it again. It runs under
    the supervisor, so it never outlives us.
    """
    if os.environ.get("PREFECT_API_URL"):
        yield
        return
    address = _running_ui(root)
    if address:
        with _environment("PREFECT_API_URL", f"{address}/api"):
            yield
        return
    port = free_port()
    process = start_prefect(root, port, ui=False)
    try:
        wait_until_up(process, f"http://{HOST}:{port}/api/health", "the Prefect server")
        with _environment("PREFECT_API_URL", f"http://{HOST}:{port}/api"):
            try:
                yield
            finally:
                _send_logs()
    finally:
        process.end()


def _send_logs() -> None:
    """Prefect's client sends them in the background; those that come after the server's end would be complained of."""
    from prefect.logging.handlers import APILogHandler

    APILogHandler().flush()


def start_prefect(root: Path, port: int, *, ui: bool) -> Process:
    """A Prefect server over the repo's database."""
    home = os.environ.get("PREFECT_HOME")
    if home:
        Path(home).mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    return Process(command, root, {"PREFECT_UI_ENABLED": str(ui).lower(), "PREFECT_SERVER_UI_ENABLED": str(ui).lower()})


def wait_until_up(process: Process, address: str, name: str) -> None:
    """Wait for a server's first answer.

    Raises:
        UserError: it ended or stayed silent; shows its last lines.
    """
    tail = drain(process)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.alive:
        if answers(address):
            return
        time.sleep(0.1)
    process.end()
    raise UserError(
        f"{name} did not start:\n" + "\n".join(list(tail)[-15:]),
        "Mend what it says, or point PREFECT_API_URL at a server that runs.",
        "server",
    )


def drain(process: Process) -> deque[str]:
    """Read a server's output in the background, so that it never blocks; the last lines, growing."""
    tail: deque[str] = deque(maxlen=60)
    threading.Thread(target=process.follow, args=(tail.append,), daemon=True).start()
    return tail


def answers(address: str) -> bool:
    """Whether an HTTP server answers there within two seconds."""
    try:
        with urllib.request.urlopen(address, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def free_port() -> int:
    """A port that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _running_ui(root: Path) -> str | None:
    """The address of this repo's Prefect UI server, if `stillhouse ui` runs."""
    path = root / ".stillhouse" / "ui.url"
    if not path.exists():
        return None
    address = path.read_text(encoding="utf-8").strip()
    return address if answers(f"{address}/api/health") else None


@contextlib.contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


def serve_uis(root: Path, prefect_port: int, mlflow_port: int, say: Callable[[str], None]) -> None:
    """Run the Prefect and MLflow UIs until interrupted.

    Raises:
        UserError: a port is taken, or a server doesn't start.
    """
    for port in (prefect_port, mlflow_port):
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                raise UserError(f"Port {port} is in use.", "Choose others: --prefect-port, --mlflow-port.", "server")
    script = Path(__file__).parent.parent / "mlflow" / "serve.sh"
    servers = [
        ("Prefect", start_prefect(root, prefect_port, ui=True), f"http://{HOST}:{prefect_port}", "/api/health"),
        (
            "MLflow",
            Process(["sh", str(script)], root, {"MLFLOW_PORT": str(mlflow_port), "PYTHON": sys.executable}),
            f"http://{HOST}:{mlflow_port}",
            "/health",
        ),
    ]
    note = root / ".stillhouse" / "ui.url"
    try:
        for name, process, address, health in servers:
            wait_until_up(process, address + health, f"the {name} server")
            say(f"{name}: {address}")
        note.write_text(servers[0][2] + "\n", encoding="utf-8")
        say("Ctrl-C ends both.")
        while all(process.alive for _, process, _, _ in servers):
            time.sleep(0.5)
        raise UserError("A server ended by itself.", "Start again; is another one using its database?", "server")
    finally:
        note.unlink(missing_ok=True)
        Process.end_all()
