"""Who is told of failures and promotions: real Prefect blocks against receivers on this machine."""

from __future__ import annotations

import json
import logging
import socketserver
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from flows.notifications import blocks, notify

SECRET = "hush-4711"


class Receiver:
    """An HTTP server that keeps what it is sent."""

    def __init__(self) -> None:
        self.status = 200
        self.received: list[tuple[str, dict[str, str], Any]] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.received.append((self.path, dict(self.headers), json.loads(body)))
                self.send_response(receiver.status)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    started = Receiver()
    yield started
    started.server.shutdown()
    started.server.server_close()


@pytest.fixture
def team(prefect_server: None, receiver: Receiver) -> str:
    """A custom webhook with a secret in its address and its headers."""
    from prefect.blocks.notifications import CustomWebhookNotificationBlock

    block = CustomWebhookNotificationBlock(
        name="team",
        url=f"{receiver.url}/{{{{token}}}}",
        headers={"Authorization": "Bearer {{token}}"},
        cookies=None,
        json_data={"title": "{{subject}}", "text": "{{body}}"},
        secrets={"token": SECRET},
    )
    block.save("team", overwrite=True)
    return "custom-webhook/team"


def configure(root: Path, **told: Any) -> None:
    (root / "prefect.yaml").write_text(f"name: x\nnotify: {json.dumps(told)}\n")


def test_the_blocks_of_an_event_are_told_of_it_and_of_no_other(team: str, receiver: Receiver, tmp_path: Path) -> None:
    configure(tmp_path, failure=[team], promotion=[])
    assert notify(tmp_path, "promotion", "a", "b") == []
    assert receiver.received == []
    assert notify(tmp_path, "failure", "A run failed", "the gate 很\nno") == []
    path, headers, body = receiver.received[0]
    assert (path, headers["Authorization"]) == (f"/{SECRET}", f"Bearer {SECRET}")
    assert body == {"title": "A run failed", "text": "the gate 很\nno"}


def test_without_a_file_or_a_mapping_nobody_is_told(tmp_path: Path) -> None:
    assert notify(tmp_path, "failure", "a", "b") == []
    (tmp_path / "prefect.yaml").write_text("name: x\n")
    assert blocks(tmp_path, "failure") == []


@pytest.mark.parametrize("told", [{"failures": []}, {"failure": "slack-webhook/team"}, {"failure": ["team"]}])
def test_a_misread_mapping_is_a_warning_that_says_what_was_expected(tmp_path: Path, told: dict[str, Any]) -> None:
    configure(tmp_path, **told)
    assert "Expected under `notify:`" in notify(tmp_path, "failure", "a", "b")[0]


def test_a_receiver_that_refuses_is_a_warning_and_the_others_are_still_told(
    team: str, receiver: Receiver, tmp_path: Path
) -> None:
    receiver.status = 500
    configure(tmp_path, failure=["custom-webhook/unknown", team])
    assert notify(tmp_path, "failure", "a", "b") == [
        "custom-webhook/unknown was not notified: Prefect knows no such block",
        f"{team} was not notified: it answered 500",
    ]
    assert len(receiver.received) == 1


def test_no_secret_is_logged_whatever_happens(
    team: str, receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    configure(tmp_path, failure=[team])
    with caplog.at_level(logging.DEBUG):
        for logger in ("httpx", "httpcore", "apprise"):
            caplog.set_level(logging.DEBUG, logger)
        said = notify(tmp_path, "failure", "a", "b")
        receiver.status = 404
        said += notify(tmp_path, "failure", "a", "b")
        receiver.server.shutdown()
        receiver.server.server_close()
        said += notify(tmp_path, "failure", "a", "b")
    assert len(said) == 2
    assert len(receiver.received) == 2
    assert SECRET not in "".join([caplog.text, *said, *capfd.readouterr()])


def test_a_block_of_another_kind_is_refused(prefect_server: None, tmp_path: Path) -> None:
    from prefect.blocks.system import Secret

    Secret(value=SECRET).save("not-a-webhook", overwrite=True)
    configure(tmp_path, failure=["secret/not-a-webhook"])
    assert notify(tmp_path, "failure", "a", "b") == [
        "secret/not-a-webhook was not notified: it is no notification block"
    ]


class Mail(socketserver.StreamRequestHandler):
    """As much of SMTP as a mail needs."""

    def handle(self) -> None:
        self.say("220 here")
        data = False
        for raw in self.rfile:
            line = raw.decode().rstrip("\r\n")
            self.server.lines.append(line)  # type: ignore[attr-defined]
            command = line.split(" ")[0].upper()
            if data:
                data = line != "."
                if not data:
                    self.say("250 ok")
            elif command == "DATA":
                data = True
                self.say("354 go on")
            elif command == "QUIT":
                self.say("221 bye")
                return
            else:
                self.say({"EHLO": "250-here\r\n250 AUTH PLAIN", "AUTH": "235 ok"}.get(command, "250 ok"))

    def say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


def test_an_address_of_a_mail_server_sends_an_email(prefect_server: None, tmp_path: Path) -> None:
    from prefect.blocks.notifications import SlackWebhook

    with socketserver.TCPServer(("127.0.0.1", 0), Mail) as server:
        server.lines = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_address[1]}?from=bot@example.org&to=team@example.org&mode=insecure"
        SlackWebhook(url=f"mailto://bot:{SECRET}@{address}").save("mail", overwrite=True)
        configure(tmp_path, promotion=["slack-webhook/mail"])
        assert notify(tmp_path, "promotion", "Version 3", "It won.") == []
        server.shutdown()
    lines = server.lines  # type: ignore[attr-defined]
    assert "Subject: Version 3" in lines
    assert any("team@example.org" in line for line in lines if line.lower().startswith("rcpt"))
