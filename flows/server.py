"""Local servers on loopback: Prefect's API for the time of a run, and both UIs for `stillhouse ui`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path

from components.errors import UserError
from flows.repo.workspace import Workspace
from flows.runs.processes import Process
from flows.settings import STATE

HOST = "127.0.0.1"
START_SECONDS = 90.0
PREFECT_PORT, MLFLOW_PORT = 4200, 5000
PORTS_TRIED = 100
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
    address = running_ui(root)
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
    import http.client  # what only asks where a UI runs is spared these
    import urllib.request

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


def mlflow_ui(root: Path) -> str | None:
    """The address of this repo's MLflow UI, if `stillhouse ui` runs; its word is taken for it."""
    return _noted(root)[1]


def running_ui(root: Path) -> str | None:
    """The address of this repo's Prefect UI server, if `stillhouse ui` runs and the server answers.

    A worktree's is the one of the checkout that it belongs to: they share the database.
    """
    address = _noted(Workspace(root).owner.root)[0]
    return address if address and answers(f"{address}/api/health") else None


def _noted(root: Path) -> tuple[str | None, str | None]:
    """The addresses of Prefect and MLflow that a living `stillhouse ui` has noted. One that was killed left its note,
    and one that is just starting has noted nothing."""
    with contextlib.suppress(OSError), (root / NOTE).open(encoding="utf-8") as note:
        try:
            fcntl.flock(note, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:  # its writer lives
            prefect, mlflow, *_ = [*note.read().splitlines(), "", ""]
            return prefect or None, mlflow or None
    return None, None


@contextlib.contextmanager
def _only_ui(root: Path) -> Iterator[Callable[..., None]]:
    """Be this repo's only `stillhouse ui`; gives what leaves the addresses, Prefect's first, for other commands to
    find as long as we live.

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
        note.truncate(0)  # from now on a killed one's addresses would pass for ours

        def write(*addresses: str) -> None:
            note.truncate(0)
            note.writelines(f"{address}\n" for address in addresses)
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


def serve_uis(root: Path, prefect_port: int | None, mlflow_port: int | None, say: Callable[[str], None]) -> None:
    """Run the Prefect and MLflow UIs until interrupted.

    Args:
        root: the project's folder.
        prefect_port: None takes 4200 or, if it is in use, the next free one.
        mlflow_port: None takes 5000 or the next free one; on macOS, AirPlay sits on 5000.
        say: shows a line.

    Raises:
        UserError: a port that was asked for is taken, a server doesn't start, or the UIs are open already.
    """
    prefect, mlflow = _choose_ports(prefect_port, mlflow_port)
    with _only_ui(root) as write_note:
        servers: list[Process] = []
        try:
            servers.append(start_prefect(root, prefect, ui=True))
            servers.append(_start_mlflow(root, mlflow))
            addresses = [f"http://{HOST}:{port}" for port in (prefect, mlflow)]
            wait_until_up(servers[0], f"{addresses[0]}/api/health", "the Prefect server")
            say(f"Prefect: {addresses[0]}{_instead(prefect_port, prefect, PREFECT_PORT)}")
            wait_until_up(servers[1], f"{addresses[1]}/health", "the MLflow server")
            say(f"MLflow: {addresses[1]}{_instead(mlflow_port, mlflow, MLFLOW_PORT)}")
            write_note(*addresses)
            say("Ctrl-C ends both.")
            while all(server.alive for server in servers):
                time.sleep(0.5)
            raise UserError("A server ended by itself.", "Start again; is another one using its database?", "server")
        finally:
            Process.end_all(servers)


def _choose_ports(prefect: int | None, mlflow: int | None) -> tuple[int, int]:
    """The ports that were asked for, and in place of None the usual one or the next that is free."""
    _check_ports(*(port for port in (prefect, mlflow) if port is not None))
    prefect = prefect or _next_free(PREFECT_PORT, mlflow)
    return prefect, mlflow or _next_free(MLFLOW_PORT, prefect)


def _check_ports(*ports: int) -> None:
    if len(set(ports)) < len(ports):
        raise _no_port(f"Port {ports[0]} can't serve both UIs.")
    for port in ports:
        if _taken(port):
            raise _no_port(f"Port {port} is in use.")


def _next_free(usual: int, other: int | None) -> int:
    """The first port from ``usual`` on that nothing listens on and that isn't the other UI's."""
    for port in range(usual, usual + PORTS_TRIED):
        if port != other and not _taken(port):
            return port
    raise _no_port(f"Expected a free port from {usual} on; all up to {usual + PORTS_TRIED - 1} are in use.")


def _taken(port: int) -> bool:
    """Whether somebody listens there, or has the port for a connection of their own."""
    with socket.socket() as probe:
        if probe.connect_ex((HOST, port)) == 0:
            return True
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        try:
            probe.bind((HOST, port))
        except OSError:
            return True
    return False


def _no_port(message: str) -> UserError:
    return UserError(message, "Choose others: --prefect-port, --mlflow-port.", "server")


def _instead(asked: int | None, port: int, usual: int) -> str:
    """Why a UI isn't where it is looked for, when nobody asked for another place."""
    return "" if asked or port == usual else f" (port {usual} is in use)"


def _start_mlflow(root: Path, port: int) -> Process:
    """The MLflow server over the repo's store."""
    script = Path(__file__).parent.parent / "mlflow" / "serve.sh"
    settings = {"MLFLOW_HOST": HOST, "MLFLOW_PORT": str(port), "PYTHON": sys.executable}
    return Process(["sh", str(script)], root, settings)
