"""The gate before files are added: what it is asked, that a refusal changes nothing, and when it can't be asked."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from components.errors import UserError
from components.loader import load_params
from flows.data import validation
from flows.data.add import add
from flows.data.suggest import suggest_section

Toy = Any
Texts = Callable[..., list[tuple[str, str]]]
PARAMS = Path(__file__).parents[2] / "params.yaml"


@pytest.fixture
def project(new_toy: Toy, tiny_encoder: Path, texts: Texts) -> Toy:
    """A project with the test's parameters, a tiny base model and three splits, versioned."""
    data = new_toy.workspace.data
    (data / "rows.csv").unlink()
    shutil.copytree(tiny_encoder, data / "base_model")
    rows = texts(400)
    for name, part in {"train": rows[:240], "validation": rows[240:300], "test": rows[300:380]}.items():
        write(data / f"{name}.jsonl", part)
    write(data / "unlabelled.jsonl", rows[380:])
    shutil.copyfile(PARAMS, new_toy.root / "params.yaml")
    new_toy.edit("params.yaml", "max_length: 128", "max_length: 32")
    new_toy.workspace.add_data()
    return new_toy


def write(path: Path, rows: list[tuple[str, str]]) -> Path:
    lines = [
        json.dumps({"text": text, "label": label, "group": "products", "document": text}, ensure_ascii=False)
        for text, label in rows
    ]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the gate would have judged by, in place of running it: the files, their targets, the columns."""
    found: list[dict[str, Any]] = []

    def run(_: Any, place: Path) -> list[str]:
        data = load_params(place / "params.yaml").data
        links = {path.name: str(path.resolve()) for path in (place / "data").iterdir()}
        found.append({"files": data.files, "columns": data.columns, "links": links})
        return ["judged"]

    monkeypatch.setattr(validation, "_run", run)
    return found


def test_data_that_breaks_a_rule_is_refused_before_anything_changes(project: Toy, texts: Texts, tmp_path: Path) -> None:
    rows = texts(400)
    leaky = write(tmp_path / "train.jsonl", rows[:250] + rows[300:310])
    pinned, before = project.workspace.data_hash(), (project.workspace.data / "train.jsonl").read_bytes()
    with pytest.raises(UserError, match="leakage: 10 of 260 rows of train whose text also stands in test") as caught:
        add(project.workspace, [leaky])
    assert caught.value.kind == "gate"
    assert "reports/added/report.html" in caught.value.remedy
    assert "--no-validate" in caught.value.remedy
    assert (project.root / "reports/added/report.html").exists()
    assert not (project.root / "reports/gate").exists()
    assert (project.workspace.data_hash(), (project.workspace.data / "train.jsonl").read_bytes()) == (pinned, before)
    assert not list(project.workspace.state.iterdir())
    add(project.workspace, [leaky], validate=False)
    assert project.workspace.data_hash() != pinned


def test_a_projects_own_data_is_judged_as_the_suggested_section_reads_it(
    project: Toy, texts: Texts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The tiny model takes no 128 tokens.
    monkeypatch.setattr(validation, "suggest_section", lambda *given: suggest_section(*given).replace("128", "32"))
    rows = [row for row in texts(1100)[400:] if "\n" not in row[0]]
    own = tmp_path / "评论.csv"
    own.write_text("review,stars\n" + "".join(f"{text},{label}\n" for text, label in rows), encoding="utf-8")
    said: list[str] = []
    add(project.workspace, [own], report=said.append)
    assert any(line.startswith("2 classes; rows: train ") for line in said)
    assert said[-1] == "judged under the section below, since params.yaml doesn't name these files yet"
    assert (project.workspace.data / "评论.csv").exists()


def test_the_gate_sees_the_data_as_it_would_be(
    project: Toy, asked: list[dict[str, Any]], texts: Texts, tmp_path: Path
) -> None:
    new = write(tmp_path / "train.jsonl", texts(20))
    other = write(tmp_path / "more.jsonl", texts(20))
    said: list[str] = []
    add(project.workspace, [new, other], report=said.append)
    (found,) = asked
    assert found["files"] == {name: f"data/{name}.jsonl" for name in ("train", "validation", "test", "unlabelled")}
    assert found["links"]["train.jsonl"] == str(new)
    assert found["links"]["test.jsonl"] == str((project.workspace.data / "test.jsonl").resolve())
    assert said == ["judged", "not looked at, since params.yaml doesn't name it: data/more.jsonl"]


def test_while_named_files_are_still_missing_the_new_ones_are_judged_alone(
    project: Toy, asked: list[dict[str, Any]], texts: Texts, tmp_path: Path
) -> None:
    (project.workspace.data / "test.jsonl").unlink()
    project.workspace.add_data()
    add(project.workspace, [write(tmp_path / "train.jsonl", texts(20))])
    assert asked[0]["files"] == {"train": "data/train.jsonl"}
    assert asked[0]["columns"].document == "document"


@pytest.mark.parametrize(
    ("content", "because"),
    [
        ("题目,备注\n好,1\n差,0\n", "their columns can only be guessed"),
        ("text,label\n好,1\n差,0\n", "base_model"),
    ],
)
def test_what_the_gate_cannot_judge_yet_is_added_with_a_word(
    project: Toy, asked: list[dict[str, Any]], tmp_path: Path, content: str, because: str
) -> None:
    if because == "base_model":
        shutil.rmtree(project.workspace.data / "base_model")
        project.workspace.add_data()
    own = tmp_path / "own.csv"
    own.write_text(content, encoding="utf-8")
    said: list[str] = []
    add(project.workspace, [own], report=said.append)
    assert not asked
    (line,) = said
    assert line.startswith("not asked, the next run will ask it: ")
    assert because in line
    assert (project.workspace.data / "own.csv").exists()


def test_broken_parameters_do_not_keep_data_out(project: Toy, tmp_path: Path) -> None:
    project.edit("params.yaml", "temperature", "temprature")
    own = tmp_path / "own.csv"
    own.write_text("text,label\n好,1\n", encoding="utf-8")
    said: list[str] = []
    add(project.workspace, [own], report=said.append)
    assert said[0].startswith("not asked, the next run will ask it: params.yaml: unknown key")
    assert str(project.root) not in said[0]


def test_an_interrupted_gate_changes_nothing(project: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any) -> list[str]:
        raise KeyboardInterrupt

    monkeypatch.setattr(validation, "_run", interrupted)
    pinned = project.workspace.data_hash()
    with pytest.raises(KeyboardInterrupt):
        add(project.workspace, [write(tmp_path / "train.jsonl", [("好", "positive")])])
    project.workspace.check_data()
    assert project.workspace.data_hash() == pinned
    assert not list(project.workspace.state.iterdir())
