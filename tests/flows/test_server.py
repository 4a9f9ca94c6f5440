"""Local servers: whose API a run uses, what is said when one doesn't start, and what is left behind: nothing."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NoReturn

import pytest

from components.errors import UserError
from flows import server
from flows.runs.processes import Process

ROOT = Path(__file__).parents[2]
# What stands in for a server: it answers everything with 200.
TINY = """
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_HOME"):
        monkeypatch.delenv(name, raising=False)


def tiny_server(root: Path, port: int, **_: Any) -> Process:
    return Process([sys.executable, "-S", "-c", TINY, str(port)], root)


def shell(root: Path, script: str) -> Process:
    return Process(["sh", "-c", script], root)


def not_to_be_started(*_: Any, **__: Any) -> Process:
    raise AssertionError("a server was started")


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Starts HTTP servers in this process that give one answer; the address of each."""
    servers: list[ThreadingHTTPServer] = []

    def start(status: int = 200) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        servers.append(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, args=(0.05,), daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_port}"

    yield start
    for each in servers:
        each.shutdown()
        each.server_close()


def leave_note(root: Path, text: str) -> None:
    (root / ".stillhouse").mkdir()
    (root / ".stillhouse/ui.url").write_text(text)


class TestPrefectApi:
    """Which API a run talks to."""

    def test_the_one_that_the_user_names_is_taken_at_once(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PREFECT_API_URL", "http://prefect.example/api")
        monkeypatch.setattr(server, "start_prefect", not_to_be_started)
        with server.prefect_api(tmp_path):
            assert os.environ["PREFECT_API_URL"] == "http://prefect.example/api"
        assert os.environ["PREFECT_API_URL"] == "http://prefect.example/api"
        assert list(tmp_path.iterdir()) == []

    def test_the_one_that_the_users_profile_names_is_taken(self, tmp_path: Path) -> None:
        (tmp_path / "profiles.toml").write_text('[profiles.mine]\nPREFECT_API_URL = "http://prefect.example/api"\n')
        code = (
            "import os; from pathlib import Path; from flows import server; server.start_prefect = None\n"
            "with server.prefect_api(Path.cwd()):\n"
            "    from prefect.settings import PREFECT_API_URL; print(PREFECT_API_URL.value())"
        )
        environment = os.environ | {
            "PREFECT_PROFILE": "mine", "PREFECT_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)
        }  # fmt: skip
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
        assert done.stdout == "http://prefect.example/api\n", done.stderr

    def test_the_one_of_a_running_ui_is_taken_and_the_environment_restored(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Callable[..., str]
    ) -> None:
        monkeypatch.setattr(server, "start_prefect", not_to_be_started)
        monkeypatch.setenv("PREFECT_API_URL", "")
        address = serve()
        with server._only_ui(tmp_path) as write_note:
            write_note(address)
            with server.prefect_api(tmp_path):
                assert os.environ["PREFECT_API_URL"] == f"{address}/api"
            assert os.environ["PREFECT_API_URL"] == ""
        assert not (tmp_path / ".stillhouse/ui.url").exists()

    def test_our_own_ends_with_the_run_however_that_ends(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        started: list[Process] = []
        sent: list[bool] = []

        def start(root: Path, port: int, *, ui: bool) -> Process:
            started.append(tiny_server(root, port))
            return started[-1]

        monkeypatch.setattr(server, "start_prefect", start)
        monkeypatch.setattr(server, "_send_logs", lambda: sent.append(started[0].alive))

        def interrupted_run() -> NoReturn:
            with server.prefect_api(tmp_path):
                address = os.environ["PREFECT_API_URL"]
                assert server.answers(f"{address}/health")
                raise KeyboardInterrupt(address)

        with pytest.raises(KeyboardInterrupt) as caught:
            interrupted_run()
        assert sent == [True]
        assert not started[0].alive
        assert not server.answers(f"{caught.value}/health")
        assert "PREFECT_API_URL" not in os.environ

    def test_our_own_that_does_not_start_leaves_the_environment_as_it_was(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server, "start_prefect", lambda root, *_, **__: shell(root, "echo no such table; exit 1"))
        with pytest.raises(UserError, match="no such table"), server.prefect_api(tmp_path):
            pass
        assert "PREFECT_API_URL" not in os.environ


class TestRunningUi:
    """Whether `stillhouse ui` runs in this project."""

    def test_without_a_note_none_runs(self, tmp_path: Path) -> None:
        assert server.running_ui(tmp_path) is None

    @pytest.mark.parametrize("text", ["http://127.0.0.1:1\n", "", "not an address\n"])
    def test_a_stale_note_is_ignored(self, tmp_path: Path, text: str) -> None:
        leave_note(tmp_path, text)
        assert server.running_ui(tmp_path) is None

    def test_a_stale_note_is_ignored_though_another_project_serves_on_its_port(
        self, tmp_path: Path, serve: Callable[..., str]
    ) -> None:
        leave_note(tmp_path, serve())
        assert server.running_ui(tmp_path) is None

    @pytest.mark.parametrize("text", ["http://127.0.0.1:1", "", "not an address"])
    def test_one_that_has_not_started_or_hangs_is_ignored(self, tmp_path: Path, text: str) -> None:
        with server._only_ui(tmp_path) as write_note:
            write_note(text)
            assert server.running_ui(tmp_path) is None

    def test_a_killed_one_leaves_room_for_the_next_whose_note_counts(
        self, tmp_path: Path, serve: Callable[..., str]
    ) -> None:
        leave_note(tmp_path, "http://127.0.0.1:1\n")
        address = serve()
        with server._only_ui(tmp_path) as write_note:
            write_note(address)
            assert server.running_ui(tmp_path) == address

    def test_a_second_one_is_refused_and_disturbs_nothing(self, tmp_path: Path, serve: Callable[..., str]) -> None:
        address = serve()
        with server._only_ui(tmp_path) as write_note:
            write_note(address)
            with pytest.raises(UserError, match="runs already"), server._only_ui(tmp_path):
                pass
            assert server.running_ui(tmp_path) == address

    def test_both_addresses_are_noted_and_mlflows_is_taken_at_its_word(
        self, tmp_path: Path, serve: Callable[..., str]
    ) -> None:
        prefect, mlflow = serve(), "http://127.0.0.1:1"
        with server._only_ui(tmp_path) as write_note:
            write_note(prefect, mlflow)
            assert (server.running_ui(tmp_path), server.mlflow_ui(tmp_path)) == (prefect, mlflow)
            write_note(prefect)
            assert (server.running_ui(tmp_path), server.mlflow_ui(tmp_path)) == (prefect, None)
        assert server.mlflow_ui(tmp_path) is None

    def test_what_a_killed_one_noted_is_not_taken_for_the_addresses_of_one_that_is_starting(
        self, tmp_path: Path, serve: Callable[..., str]
    ) -> None:
        leave_note(tmp_path, f"{serve()}\nhttp://127.0.0.1:5091\n")
        assert server.mlflow_ui(tmp_path) is None
        with server._only_ui(tmp_path):
            assert server.mlflow_ui(tmp_path) is None
            assert server.running_ui(tmp_path) is None


class TestWaitUntilUp:
    """Waiting for a server's first answer."""

    def test_it_returns_when_the_server_answers(self, tmp_path: Path) -> None:
        port = server.free_port()
        process = tiny_server(tmp_path, port)
        server.wait_until_up(process, f"http://127.0.0.1:{port}/health", "the server")
        assert process.alive
        process.end()

    def test_one_that_ended_is_told_by_its_last_lines(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        follow = Process.follow

        def late(self: Process, on_line: Callable[[str], None]) -> tuple[int, list[str]]:
            time.sleep(0.5)  # its output is read later than its end is seen
            return follow(self, on_line)

        monkeypatch.setattr(Process, "follow", late)
        process = shell(tmp_path, "for i in $(seq 40); do echo line $i; done; echo [bad] 表 >&2; exit 3")
        with pytest.raises(UserError) as caught:
            server.wait_until_up(process, "http://127.0.0.1:1", "the server")
        lines = caught.value.message.splitlines()
        assert lines[0] == "the server did not start:"
        assert lines[1:] == [*(f"line {number}" for number in range(27, 41)), "[bad] 表"]
        assert caught.value.kind == "server"

    def test_one_that_stays_silent_is_ended(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "START_SECONDS", 0.5)
        process = shell(tmp_path, "sleep 60")
        with pytest.raises(UserError, match="did not start"):
            server.wait_until_up(process, "http://127.0.0.1:1", "the server")
        assert not process.alive

    def test_one_that_writes_a_lot_is_not_blocked(self, tmp_path: Path) -> None:
        port = server.free_port()
        script = f"seq 100000; exec {sys.executable} -S -c '{TINY}' {port}"
        process = shell(tmp_path, script)
        server.wait_until_up(process, f"http://127.0.0.1:{port}", "the server")
        process.end()


class TestAnswers:
    """Whether an HTTP server answers."""

    def test_only_200_counts(self, serve: Callable[..., str]) -> None:
        assert server.answers(serve())
        assert not server.answers(serve(503))

    def test_a_proxy_is_not_asked(self, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, "http://127.0.0.1:1")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        assert server.answers(serve())

    def test_a_server_that_speaks_something_else_is_none(self) -> None:
        with closing(socket.create_server(("127.0.0.1", 0))) as listening:

            def greet() -> None:
                connection = listening.accept()[0]
                connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")
                connection.recv(1000)
                connection.close()

            threading.Thread(target=greet, daemon=True).start()
            assert not server.answers(f"http://127.0.0.1:{listening.getsockname()[1]}/")


class TestServeUis:
    """`stillhouse ui`."""

    @pytest.mark.parametrize("which", [0, 1], ids=["prefect", "mlflow"])
    def test_a_taken_port_is_refused_naming_the_options(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, which: int
    ) -> None:
        monkeypatch.setattr(server, "Process", not_to_be_started)
        with closing(socket.create_server(("127.0.0.1", 0))) as listening:
            taken = listening.getsockname()[1]
            ports = [taken, server.free_port()] if which == 0 else [server.free_port(), taken]
            with pytest.raises(UserError, match=f"Port {taken} is in use") as caught:
                server.serve_uis(tmp_path, ports[0], ports[1], print)
        assert "--prefect-port" in caught.value.remedy
        assert "--mlflow-port" in caught.value.remedy

    def test_one_port_for_both_is_refused(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "Process", not_to_be_started)
        port = server.free_port()
        with pytest.raises(UserError, match=f"Port {port} can't serve both"):
            server.serve_uis(tmp_path, port, port, print)

    def test_usual_ports_that_are_taken_give_way_to_the_next_free_ones_and_this_is_said(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server, "start_prefect", tiny_server)
        monkeypatch.setattr(server, "_start_mlflow", tiny_server)
        said: list[str] = []

        def say(text: str) -> None:
            said.append(text)
            if "Ctrl-C" in text:
                raise KeyboardInterrupt

        with closing(socket.create_server(("0.0.0.0", 0))) as listening:  # on all addresses, as AirPlay does
            usual = listening.getsockname()[1]
            monkeypatch.setattr(server, "PREFECT_PORT", usual)
            monkeypatch.setattr(server, "MLFLOW_PORT", usual)
            with pytest.raises(KeyboardInterrupt):
                server.serve_uis(tmp_path, None, None, say)
        found = [re.fullmatch(rf"\w+: http://127.0.0.1:(\d+) \(port {usual} is in use\)", line) for line in said[:2]]
        prefect, mlflow = (int(match[1]) for match in found if match)
        assert usual < prefect < mlflow

    def test_usual_ports_are_taken_when_they_are_free(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "_taken", lambda port: False)
        assert server._choose_ports(None, None) == (4200, 5000)
        assert server._choose_ports(4300, None) == (4300, 5000)

    def test_a_port_that_the_other_ui_was_given_is_not_chosen(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "_taken", lambda port: port == 5001)
        assert server._choose_ports(5000, None) == (5000, 5002)
        assert server._choose_ports(None, 4200) == (4201, 4200)

    def test_when_no_port_is_free_the_options_are_named(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(server, "_taken", lambda port: port >= 5000)
        with pytest.raises(UserError, match="from 5000 on; all up to 5099 are in use") as caught:
            server._choose_ports(None, None)
        assert "--mlflow-port" in caught.value.remedy

    def test_both_are_served_until_interrupted_and_nothing_is_left(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(server, "start_prefect", tiny_server)
        monkeypatch.setattr(server, "_start_mlflow", tiny_server)
        ports = [server.free_port(), server.free_port()]
        said: list[str] = []

        def say(text: str) -> None:
            said.append(text)
            if "Ctrl-C" in text:
                assert server.running_ui(tmp_path) == f"http://127.0.0.1:{ports[0]}"
                assert server.mlflow_ui(tmp_path) == f"http://127.0.0.1:{ports[1]}"
                assert all(server.answers(f"http://127.0.0.1:{port}") for port in ports)
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            server.serve_uis(tmp_path, ports[0], ports[1], say)
        assert said[:2] == [f"Prefect: http://127.0.0.1:{ports[0]}", f"MLflow: http://127.0.0.1:{ports[1]}"]
        assert not any(server.answers(f"http://127.0.0.1:{port}") for port in ports)
        assert list((tmp_path / ".stillhouse").iterdir()) == []

    def test_one_that_ends_by_itself_ends_the_other(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        somebody_elses = shell(tmp_path, "sleep 60")
        started: list[Process] = []

        def start(root: Path, port: int, **_: Any) -> Process:
            started.append(tiny_server(root, port))
            return started[-1]

        monkeypatch.setattr(server, "start_prefect", start)
        monkeypatch.setattr(server, "_start_mlflow", start)

        def say(text: str) -> None:
            if "Ctrl-C" in text:
                started[1].end()

        with pytest.raises(UserError, match="ended by itself"):
            server.serve_uis(tmp_path, server.free_port(), server.free_port(), say)
        assert not started[0].alive
        assert somebody_elses.alive
        somebody_elses.end()


class TestCommands:
    """What is really started."""

    @pytest.fixture(autouse=True)
    def started(self, monkeypatch: pytest.MonkeyPatch) -> list[tuple[list[str], dict[str, str]]]:
        """The commands and what is set for each beside our environment; none is run."""
        calls: list[tuple[list[str], dict[str, str]]] = []
        monkeypatch.setattr(server, "Process", lambda command, root, given: calls.append((command, given)))
        return calls

    def test_both_listen_on_loopback_only_whatever_is_set(
        self, tmp_path: Path, started: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_HOST", "0.0.0.0")
        server.start_prefect(tmp_path, 4300, ui=True)
        server._start_mlflow(tmp_path, 5300)
        (prefect, _), (mlflow, given) = started
        assert prefect[prefect.index("--host") + 1 :] == ["127.0.0.1", "--port", "4300"]
        assert (given["MLFLOW_HOST"], given["MLFLOW_PORT"]) == ("127.0.0.1", "5300")
        script = Path(mlflow[1])
        assert script.is_file()
        for name in ("host", "port"):
            assert f'--{name} "$MLFLOW_{name.upper()}"' in script.read_text(encoding="utf-8")

    def test_the_pages_of_prefect_ask_their_own_server_over_the_projects_database(
        self, tmp_path: Path, started: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PREFECT_API_URL", "http://prefect.example/api")
        server.start_prefect(tmp_path, 4300, ui=True)
        given = started[0][1]
        assert given["PREFECT_UI_API_URL"] == given["PREFECT_API_URL"] == "http://127.0.0.1:4300/api"
        assert given["PREFECT_HOME"] == str(tmp_path / ".stillhouse/prefect")
        assert Path(given["PREFECT_HOME"]).is_dir()
        monkeypatch.setenv("PREFECT_HOME", str(tmp_path / "mine"))
        server.start_prefect(tmp_path, 4300, ui=False)
        assert started[1][1]["PREFECT_HOME"] == str(tmp_path / "mine")
        assert [given["PREFECT_SERVER_UI_ENABLED"] for _, given in started] == ["true", "false"]
