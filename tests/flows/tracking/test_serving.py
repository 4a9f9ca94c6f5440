"""`mlflow models serve` answers texts with labels and probabilities, and what is no text with a code 4xx."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.server import HOST, answers, free_port
from flows.tracking import models
from tests.onnx_models import LABELS, save_tiny_onnx

STARTS_WITHIN = 180.0
MEGABYTES = 10_000_000


@contextlib.contextmanager
def served(model: Path, log: Path) -> Iterator[str]:
    """The address of `mlflow models serve` over a saved model, offline; the command that the documentation gives."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--model-uri", str(model), "--env-manager", "local"]
    scripts = Path(sys.executable).parent  # MLflow calls uvicorn by name
    environment = os.environ | {"PATH": f"{scripts}:{os.environ['PATH']}", "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "0"}
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, "--port", str(port)], env=environment, stdout=output, stderr=output, start_new_session=True
        )
        try:
            deadline = time.monotonic() + STARTS_WITHIN
            while not answers(f"http://{HOST}:{port}/ping"):
                assert server.poll() is None, log.read_text()
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.1)
            yield f"http://{HOST}:{port}"
        finally:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny ONNX model as MLflow keeps it."""
    root = tmp_path_factory.mktemp("served")
    logged: Any = SimpleNamespace(artifact_location=str(root), model_id="m-0123456789abcdef0123456789abcdef")
    models.save(
        root / "model", save_tiny_onnx(root / "source"), 12, ["text"], logged, "0123456789abcdef0123456789abcdef"
    )
    return root / "model"


@pytest.fixture(scope="module")
def server(saved: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(saved, tmp_path_factory.mktemp("log") / "log") as address:
        yield address


def asked(address: str, body: Any, content_type: str = "application/json") -> tuple[int, Any]:
    """The code and the content of the answer."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}/invocations", data, {"Content-Type": content_type})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def labels(address: str, body: Any) -> list[str]:
    code, found = asked(address, body)
    assert code == 200, found
    assert all(set(each) == {"label", "score"} and 0.5 <= each["score"] <= 1 for each in found["predictions"])
    return [each["label"] for each in found["predictions"]]


def test_single_texts_and_batches_in_every_form_get_labels_with_probabilities(server: str) -> None:
    bad, good = LABELS
    assert labels(server, {"inputs": ["good film"]}) == [good]
    assert labels(server, {"inputs": "good film"}) == [good]
    batch = ["good film", "这个手机差", "bad", "很棒"]
    for body in (
        {"inputs": batch},
        {"inputs": {"text": batch}},
        {"instances": batch},
        {"instances": [{"text": text} for text in batch]},
        {"dataframe_split": {"columns": ["id", "text"], "data": list(enumerate(batch))}},
        {"dataframe_split": {"data": [[text] for text in batch]}},
        {"dataframe_records": [{"text": text, "id": 7} for text in batch]},
    ):
        assert labels(server, body) == [good, bad, bad, good]
    assert labels(server, {"inputs": ["good", "bad"] * 500}) == [good, bad] * 500
    wanted = {"inputs": ["good film", "bad"], "params": {"return": "probabilities"}}
    first, second = asked(server, wanted)[1]["predictions"]
    assert set(first) == set(LABELS)
    assert first[good] > 0.5 > second[good]
    assert sum(first.values()) == pytest.approx(1)


def test_empty_and_very_long_texts_and_bodies_of_ten_megabytes_are_answered(server: str) -> None:
    bad, good = LABELS
    assert len(labels(server, {"inputs": [""]})) == 1
    assert labels(server, {"inputs": ["good " * 8 + "bad " * 100_000, "\ud83d good", "\U0001f600 bad"]}) == [
        good,
        good,
        bad,
    ]
    assert asked(server, {"inputs": []})[1] == {"predictions": []}
    began = time.monotonic()
    assert labels(server, {"inputs": ["good " * (MEGABYTES // 5)]}) == [good]
    assert labels(server, {"dataframe_records": [{"text": "bad " * 250}] * (MEGABYTES // 1000)}) == [bad] * 10_000
    assert time.monotonic() - began < 30


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({"inputs": [5]}, "expected texts; number 0, counted from 0, is 5"),
        ({"inputs": 5}, "expected texts; number 0"),
        ({"inputs": ["good", None]}, "expected texts; number 1, counted from 0, is None"),
        ({"inputs": [["good", "bad"]]}, "expected texts; number 0"),
        ({"inputs": {"words": ["good"]}}, "expected 'text'; got 'words'"),
        ({"instances": [{"words": "good"}]}, "expected 'text'; got 'words'"),
        ({"dataframe_records": [{"text": "good"}, {"text": None}]}, "expected texts; number 1"),
        ({"dataframe_records": [{"text": 5}]}, "expected texts; number 0"),
        ({"dataframe_records": [{"text": {"text": 5}}]}, "expected texts; number 0"),
        ({"dataframe_records": [{"words": "good"}]}, "expected one column 'text'; got the columns 'words'"),
        ({"dataframe_split": {"columns": ["a", "b"], "data": [["good", "bad"]]}}, "expected one column 'text'"),
        ({"dataframe_split": {"columns": ["text"], "data": [[True]]}}, "expected texts; number 0"),
        ({"inputs": ["good"], "params": {"return": "colours"}}, "label, probabilities, logits"),
        ({"inputs": ["good"], "params": {"return": 5}}, "return"),
        ({"texts": ["good"]}, "must be a JSON dictionary with exactly one"),
        (b"good", "JSON"),
    ],
)
def test_what_is_no_text_is_refused_with_what_was_expected(server: str, body: Any, told: str) -> None:
    code, answer = asked(server, body)
    assert code == 400, answer
    assert told in answer
    assert "Traceback" not in answer


def test_a_refusal_does_not_send_megabytes_back(server: str) -> None:
    code, answer = asked(server, {"dataframe_records": [{"words": "good " * (MEGABYTES // 5)}]})
    assert code == 400
    assert len(answer) < 10_000
    assert asked(server, b"good", "text/plain")[0] == 415


def test_a_saved_model_holds_no_pickle(saved: Path) -> None:
    files = [path for path in saved.rglob("*") if path.is_file() and path.parent.name != "__pycache__"]
    assert {path.suffix for path in files} <= {"", ".json", ".onnx", ".txt", ".yaml", ".py"}
    assert not any(path.read_bytes()[:1] == b"\x80" for path in files)
