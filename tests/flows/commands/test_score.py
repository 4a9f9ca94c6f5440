"""`stillhouse predict` and `stillhouse score`: what they print and write, and how they refuse mistakes."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from typer.testing import CliRunner

from flows import cli
from flows.inference import loading, log
from tests.flows.inference.test_scoring import model


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project whose registered model is one that needs no files."""

    @contextlib.contextmanager
    def loaded(root: Path, params: Any, wanted: str | None = None) -> Iterator[Any]:
        yield model()

    monkeypatch.setattr(loading, "loaded", loaded)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / "dvc.yaml").write_text("stages: {}\n")
    (tmp_path / "params.yaml").write_bytes((Path(__file__).parents[2] / "params.yaml").read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


def invoke(*arguments: str, given: str | None = None) -> Result:
    return CliRunner().invoke(cli.app, arguments, input=given, env={"COLUMNS": "100"})


def test_texts_come_as_arguments_or_as_lines_and_each_gets_a_label() -> None:
    done = invoke("predict", "x", "[b]x:100:[/b]")
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines == [
        "label probability text",
        "negative 98.2% x",
        "正面 99.8% [b]x:100:[/b]",
        "小模型/3",
    ]
    answers = [json.loads(line) for line in invoke("predict", "--json", given="x\n很好\n").stdout.splitlines()]
    assert [answer["text"] for answer in answers] == ["x", "很好"]
    assert set(answers[0]) == {"text", "label", "score", "probabilities"}
    assert answers[0]["probabilities"]["negative"] == answers[0]["score"]
    assert sum(answers[0]["probabilities"].values()) == pytest.approx(1)


def test_a_file_is_scored_from_where_the_command_was_called(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "below").mkdir()
    monkeypatch.chdir(project / "below")
    pq.write_table(pa.table({"n": [7, 8], "review": ["x", "很好"]}), "in.parquet")
    done = invoke("score", "in.parquet", "out.parquet", "--column", "review", "--probabilities", "--log", "--id", "n")
    assert done.exit_code == 0, done.output
    assert " ".join(done.stdout.split()).startswith("2 rows labelled by 小模型/3: ")
    found = pq.read_table(project / "below/out.parquet")
    assert found["predicted_label"].to_pylist() == ["negative", "negative"]
    assert "probability_正面" in found.column_names
    (part,) = log.read(project)
    assert pq.read_table(part)["id"].to_pylist() == ["7", "8"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["out.csv"], "Expected a Parquet file to write"),
        (["there.parquet"], "is there already"),
        (["in.parquet", "--overwrite"], "is what is scored"),
        (["nowhere/out.parquet"], "does not exist"),
        (["out.parquet", "--column", "review"], "expected a column 'review'"),
        (["out.parquet", "--log", "--id", "key"], "expected a column 'key' of texts or numbers"),
    ],
)
def test_a_mistake_is_told_and_nothing_is_written(project: Path, arguments: list[str], said: str) -> None:
    pq.write_table(pa.table({"text": ["x"]}), "in.parquet")
    pq.write_table(pa.table({"text": ["x"]}), "there.parquet")
    before = sorted(project.iterdir())
    done = invoke("score", "in.parquet", *arguments)
    assert (done.exit_code, said in " ".join(done.stderr.split())) == (2, True), done.stderr
    assert sorted(project.iterdir()) == before
    assert not log.read(project)


def test_lines_that_are_not_utf8_are_refused() -> None:
    given = "很好\n太差了\n".encode("gb18030")
    done = CliRunner().invoke(cli.app, ["predict"], input=b"ok\n" + given)
    assert (done.exit_code, "Line 2 of standard input is not UTF-8" in done.stderr) == (2, True)


def test_no_text_is_refused() -> None:
    assert "Expected a text" in invoke("predict", given="").stderr


def test_pairs_come_with_an_option_or_parted_by_a_tab(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextlib.contextmanager
    def loaded(root: Path, params: Any, wanted: str | None = None) -> Iterator[Any]:
        single = model()
        yield dataclasses.replace(
            single, paired=True, predict=lambda pairs: single.predict(["".join(p) for p in pairs])
        )

    assert invoke("predict", "a", "--pair", "b").exit_code == 2
    monkeypatch.setattr(loading, "loaded", loaded)
    line = json.loads(invoke("predict", "--json", "a", "--pair", "b").stdout)
    assert (line["text"], line["text_pair"]) == ("a", "b")
    assert "a ⟷ b" in invoke("predict", given="a\tb\n").stdout
    assert "Line 2 of standard input: expected two texts" in invoke("predict", given="a\tb\nc\n").stderr
    assert invoke("predict", "a").exit_code == 2
