"""Local servers on loopback: Prefect's API for the time of a run, and both UIs for `stillhouse ui`."""

from __future__ import annotations

import contextlib
import fcntl
import http.client
import os
import socket
import sys
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from components.errors import UserError
from flows.processes import Process
from flows.settings import STATE

HOST = "127.0.0.1"
START_SECONDS = 90.0
NOTE = STATE / "ui.url"


@contextlib.contextmanager
def prefect_api(root: Path) -> Iterator[None]:
    """Make a Prefect API reachable: the one that the user's settings name, a running `stillhouse ui`, or our own.

    Our own keeps its database under .stillhouse/, where `stillhouse ui` finds it again. It runs under
    the supervisor, so it never outlives us.
    """
    if _named_by_the_user():
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


def _named_by_the_user() -> bool:
    """Whether PREFECT_API_URL, or the profile that PREFECT_PROFILE names, leads to an API."""
    if os.environ.get("PREFECT_API_URL"):
        return True
    if not os.environ.get("PREFECT_PROFILE"):
        return False
    from prefect.settings import get_current_settings

    return bool(get_current_settings().api.url)


def _send_logs() -> None:
    """Prefect's client sends them in the background; those that come after the server's end would be complained of."""
    from prefect.logging.handlers import APILogHandler

    APILogHandler().flush()


def start_prefect(root: Path, port: int, *, ui: bool) -> Process:
    """A Prefect server over the repo's database, unless PREFECT_HOME names another."""
    home = Path(os.environ.get("PREFECT_HOME") or root.resolve() / STATE / "prefect")
    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(port)]
    api, shown = f"http://{HOST}:{port}/api", str(ui).lower()
    # Without its own address its pages would ask whatever PREFECT_API_URL names, or port 4200.
    addresses = {"PREFECT_API_URL": api, "PREFECT_UI_API_URL": api, "PREFECT_SERVER_UI_API_URL": api}
    enabled = {"PREFECT_UI_ENABLED": shown, "PREFECT_SERVER_UI_ENABLED": shown}
    return Process(command, root, {"PREFECT_HOME": str(home), **addresses, **enabled})


def wait_until_up(process: Process, address: str, name: str) -> None:
    """Wait for a server's first answer.

    Raises:
        UserError: it ended or stayed silent; shows its last lines.
    """
    tail, reader = drain(process)
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.alive:
        if answers(address):
            return
        time.sleep(0.1)
    process.end()
    reader.join(timeout=5)  # the last lines may still be on their way
    raise UserError(
        f"{name} did not start:\n" + "\n".join(list(tail)[-15:]),
        "Mend what it says, or point PREFECT_API_URL at a server that runs.",
        "server",
    )


def drain(process: Process) -> tuple[deque[str], threading.Thread]:
    """Read a server's output in the background, so that it never blocks; the last lines, growing, and the reader."""
    tail: deque[str] = deque(maxlen=60)
    reader = threading.Thread(target=process.follow, args=(tail.append,), daemon=True)
    reader.start()
    return tail, reader


def answers(address: str) -> bool:
    """Whether an HTTP server of this machine answers there within two seconds; asked past any proxy."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(address, timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException, ValueError):
        return False


def free_port() -> int:
    """A port that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _running_ui(root: Path) -> str | None:
    """The address of this repo's Prefect UI server, if `stillhouse ui` runs. One that was killed left its note."""
    with contextlib.suppress(FileNotFoundError), (root / NOTE).open(encoding="utf-8") as note:
        try:
            fcntl.flock(note, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:  # its writer lives
            address = note.read().strip()
            return address if answers(f"{address}/api/health") else None
    return None


@contextlib.contextmanager
def _only_ui(root: Path) -> Iterator[Callable[[str], None]]:
    """Be this repo's only `stillhouse ui`; gives what leaves the address for runs to find, as long as we live.

    Raises:
        UserError: another one runs.
    """
    path = root / NOTE
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as note:
        try:
            fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError("`stillhouse ui` runs already in this project.", "Use that one.", "server") from None

        def write(address: str) -> None:
            note.truncate(0)
            note.write(address + "\n")
            note.flush()

        try:
            yield write
        finally:
            path.unlink(missing_ok=True)


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
        UserError: a port is taken, a server doesn't start, or the UIs are open already.
    """
    _check_ports(prefect_port, mlflow_port)
    with _only_ui(root) as write_note:
        try:
            servers = {
                "Prefect": (start_prefect(root, prefect_port, ui=True), f"http://{HOST}:{prefect_port}", "/api/health"),
                "MLflow": (_start_mlflow(root, mlflow_port), f"http://{HOST}:{mlflow_port}", "/health"),
            }
            for name, (process, address, health) in servers.items():
                wait_until_up(process, address + health, f"the {name} server")
                say(f"{name}: {address}")
            write_note(servers["Prefect"][1])
            say("Ctrl-C ends both.")
            while all(process.alive for process, _, _ in servers.values()):
                time.sleep(0.5)
            raise UserError("A server ended by itself.", "Start again; is another one using its database?", "server")
        finally:
            Process.end_all()


def _check_ports(*ports: int) -> None:
    remedy = "Choose others: --prefect-port, --mlflow-port."
    if len(set(ports)) < len(ports):
        raise UserError(f"Port {ports[0]} can't serve both UIs.", remedy, "server")
    for port in ports:
        with socket.socket() as probe:
            if probe.connect_ex((HOST, port)) == 0:
                raise UserError(f"Port {port} is in use.", remedy, "server")


def _start_mlflow(root: Path, port: int) -> Process:
    """The MLflow server over the repo's store."""
    script = Path(__file__).parent.parent / "mlflow" / "serve.sh"
    settings = {"MLFLOW_HOST": HOST, "MLFLOW_PORT": str(port), "PYTHON": sys.executable}
    return Process(["sh", str(script)], root, settings)
