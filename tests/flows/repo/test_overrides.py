"""Parameters for one run: how they are read, checked and written, and the worktree that they get."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from components.errors import UserError
from components.loader import load_params, load_yaml
from flows.repo.overrides import edit, parse, worktree_with

Toy = Any
PARAMS = Path(__file__).parents[2] / "params.yaml"
TEXT = PARAMS.read_text(encoding="utf-8")
DVC_YAML = f"""\
stages:
  distill:
    cmd: {sys.executable} code/distill.py
    deps: [data/rows.csv]
    params: [distill.temperature]
    outs: [artifacts/distill]
  other:
    cmd: {sys.executable} code/other.py
    deps: [code/other.py, data/rows.csv]
    outs: [artifacts/other]
"""
DISTILL = """
from pathlib import Path
text = Path("params.yaml").read_text(encoding="utf-8")
Path("artifacts").mkdir(exist_ok=True)
Path("artifacts/distill").write_text(text.split("temperature: ")[1].split()[0])
"""


@pytest.fixture
def tuned(toy: Toy) -> Toy:
    """A finished toy whose params.yaml is a real one."""
    shutil.copyfile(PARAMS, toy.root / "params.yaml")
    (toy.root / "dvc.yaml").write_text(DVC_YAML, encoding="utf-8")
    (toy.root / "code/distill.py").write_text(DISTILL, encoding="utf-8")
    (toy.root / "dvc.lock").unlink()
    toy.repro()
    toy.git("add", ".")
    toy.git("commit", "-qm", "tuned")
    return toy


def changed_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line not in TEXT.splitlines()]


def test_values_are_read_as_in_the_file() -> None:
    given = {
        "1e-4": 1e-4,
        "4": 4,
        "4.0": 4.0,
        "true": True,
        "null": None,
        "": None,
        "no": "no",
        "[0, 2,5]": [0, 2, 5],
        "{lora: {r: 8}}": {"lora": {"r": 8}},
        "'5'": "5",
        '"a: b"': "a: b",
        "a=b": "a=b",
        "词": "词",
        "12:30": "12:30",
    }
    assert parse([f"a.b{index}={text}" for index, text in enumerate(given)]) == {
        f"a.b{index}": value for index, value in enumerate(given.values())
    }
    assert type(parse(["a=4"])["a"]) is int
    assert type(parse(["a=4.0"])["a"]) is float


@pytest.mark.parametrize(
    ("assignments", "message"),
    [
        (["distill.temperature"], "--set distill.temperature: expected KEY=VALUE"),
        (["=4"], "--set =4: expected KEY=VALUE"),
        (["a..b=4"], "expected KEY=VALUE"),
        (["a=[1"], "--set a=[1: the value isn't YAML"),
        (["a=1", "a=2"], "--set a=2: a is set twice"),
        (["a.b=1", "a={b: 2}"], "a is set both in itself and by a.b"),
    ],
)
def test_an_assignment_that_is_none_is_refused(assignments: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse(assignments)
    assert message in caught.value.message
    assert caught.value.kind == "parameters"


def test_the_rest_of_the_file_keeps_its_comments_order_and_forms(tmp_path: Path) -> None:
    edited = edit(TEXT, parse(["distill.temperature=4", "distill.phases.distill.lr=1e-5", "finetune.order=[]"]))
    assert changed_lines(edited) == ["  temperature: 4", "      lr: 1e-05", "  order: []"]
    (tmp_path / "params.yaml").write_text(edited, encoding="utf-8")
    load_params(tmp_path / "params.yaml")
    assert edit(TEXT, {}) == TEXT


def test_absent_keys_whole_sections_and_keys_under_null_can_be_set() -> None:
    edited = edit(
        TEXT,
        parse(
            [
                "teacher.phases.general.warmup=0.2",  # has a default
                "teacher.phases.adapt={objective: mlm, on: all, epochs: 1, lr: 1e-4}",
                "teacher.order=[adapt, general]",
                "distill.terms.hidden.weight=0.5",
                "finetune.phases.specific.trainable.lora.r=4",
            ]
        ),
    )
    found = load_yaml_text(edited)
    assert found["teacher"]["phases"]["general"]["warmup"] == 0.2
    assert found["teacher"]["phases"]["adapt"]["lr"] == 1e-4
    assert found["teacher"]["order"] == ["adapt", "general"]
    assert found["distill"]["terms"]["hidden"] == {"weight": 0.5}
    assert found["finetune"]["phases"]["specific"]["trainable"]["lora"]["r"] == 4


def load_yaml_text(text: str) -> Any:
    from ruamel.yaml import YAML

    return YAML(typ="safe", pure=True).load(text)


def test_what_other_places_refer_to_changes_in_one_place_alone() -> None:
    text = "base: &b {epochs: 1, lr: 2}\none: *b\ntwo:\n  <<: *b\n  lr: 3\n"
    assert load_yaml_text(edit(text, {"one.lr": 9})) == load_yaml_text(text) | {"one": {"epochs": 1, "lr": 9}}
    assert load_yaml_text(edit(text, {"base.lr": 9}))["one"] == {"epochs": 1, "lr": 2}
    assert load_yaml_text(edit(text, {"two.lr": 9}))["two"] == {"epochs": 1, "lr": 9}


def test_a_number_that_is_a_key_is_found() -> None:
    assert load_yaml_text(edit("a: {5: 1.0}\n", {"a.5": 2.0})) == {"a": {5: 2.0}}


@pytest.mark.parametrize(
    ("assignments", "messages"),
    [
        (
            ["distill.temprature=4"],
            ["--set distill.temprature=4: unknown key 'temprature' in distill; did you mean 'temperature'?"],
        ),
        (["distil.temperature=4"], ["--set distil.temperature=4: unknown key 'distil' in the top level; did you"]),
        (["distill.temperature=hot"], ["--set distill.temperature=hot: distill.temperature: ", "got 'hot'"]),
        (
            ["seed=1", "distill.alpha=-1", "distill.betta=1"],
            ["--set distill.alpha=-1: distill.alpha", "--set distill.betta=1: unknown key 'betta' in distill"],
        ),
        (["seed.x=1"], ["--set seed.x=1: params.yaml has seed: 13, which is no section with a key x"]),
        (["teacher.phases.general.trainable.lora.r=4"], ["trainable: all, which is no section with a key lora.r"]),
        (["distill={temperature: 4}"], ["--set distill={temperature: 4}: ", "'student' is missing in distill"]),
        (["distill=null"], ["--set distill=null: distill"]),
        (["teacher.order=[nope]"], ["--set teacher.order=[nope]: teacher", "nope"]),
    ],
)
def test_what_the_file_may_not_say_is_refused_in_its_words_before_anything_is_made(
    tuned: Toy, assignments: list[str], messages: list[str]
) -> None:
    with pytest.raises(UserError) as caught:
        worktree_with(tuned.workspace, parse(assignments))
    for message in messages:
        assert message in caught.value.message
    assert "seed=1" not in caught.value.message
    assert caught.value.kind == "parameters"
    assert not (tuned.workspace.state / "worktrees").exists()


def test_a_mistake_that_two_values_make_together_names_both(tuned: Toy) -> None:
    with pytest.raises(UserError) as caught:
        worktree_with(tuned.workspace, parse(["seed=5", "controls.seeds=[5]"]))
    assert caught.value.message.startswith("--set seed=5 --set controls.seeds=[5]: controls.seeds names 5")


def test_a_mistake_in_the_file_is_the_files(tuned: Toy) -> None:
    tuned.edit("params.yaml", "seed: 13  ", "sead: 13  ")
    with pytest.raises(UserError, match=r"params\.yaml: unknown key 'sead'") as caught:
        worktree_with(tuned.workspace, parse(["distill.temperature=4"]))
    assert "--set" not in caught.value.message


def test_the_run_has_the_values_and_the_checkout_stays_as_it_is(tuned: Toy) -> None:
    before = {name: (tuned.root / name).read_bytes() for name in ("params.yaml", "dvc.lock", "artifacts/distill")}
    worktree = worktree_with(tuned.workspace, parse(["distill.temperature=4"]))
    assert worktree.root.name.startswith("set-")
    assert changed_lines((worktree.root / "params.yaml").read_text(encoding="utf-8")) == ["  temperature: 4"]
    plan = {stage.name: (stage.action, stage.because) for stage in worktree.plan()}
    assert plan == {"distill": ("run", ["distill.temperature: 2.0 -> 4"]), "other": ("skip", [])}
    assert type(tuned)(worktree).repro() == ["distill"]
    assert {name: (tuned.root / name).read_bytes() for name in before} == before
    assert all(planned == ("skip", []) for planned in tuned.plan().values())
    again = worktree_with(tuned.workspace, parse(["distill.temperature=4"]))
    assert again == worktree
    assert [stage.action for stage in again.plan()] == ["restore", "skip"]
    type(tuned)(again).repro()
    assert (again.root / "artifacts/distill").read_text() == "4"


def test_other_values_have_another_worktree_and_their_order_makes_no_difference(tuned: Toy) -> None:
    one, two = ["distill.alpha=0.5", "seed=1"], ["seed=1", "distill.alpha=0.5"]
    worktree = worktree_with(tuned.workspace, parse(one))
    assert worktree_with(tuned.workspace, parse(two)) == worktree
    assert worktree_with(tuned.workspace, parse(["seed=2"])) != worktree
    assert worktree_with(tuned.workspace, parse(one), "mine").root.name == "mine"


def test_values_can_be_set_on_a_revision(tuned: Toy) -> None:
    tuned.edit("params.yaml", "alpha: 0.9", "alpha: 0.7")
    worktree = worktree_with(tuned.workspace, parse(["distill.temperature=4"]), "a", revision="HEAD")
    assert changed_lines((worktree.root / "params.yaml").read_text(encoding="utf-8")) == ["  temperature: 4"]
    assert load_yaml(worktree.root / "params.yaml")["distill"]["alpha"] == 0.9


@pytest.mark.parametrize("text", ["", "- a\n", "seed\n", "seed: [1\n"])
def test_a_file_in_which_nothing_can_be_set_is_told_in_its_own_words(tuned: Toy, text: str) -> None:
    (tuned.root / "params.yaml").write_text(text, encoding="utf-8")
    tuned.git("commit", "-qam", "broken")
    for revision in (None, "HEAD"):
        with pytest.raises(UserError, match=r"params\.yaml") as caught:
            worktree_with(tuned.workspace, parse(["distill.temperature=4"]), revision=revision)
        assert "--set" not in caught.value.message
        assert "stillhouse-" not in caught.value.message


def test_a_value_may_mend_a_mistake_of_the_file(tuned: Toy) -> None:
    tuned.edit("params.yaml", "alpha: 0.9", "alpha: -1")
    assert worktree_with(tuned.workspace, parse(["distill.alpha=0.5"])).root.name.startswith("set-")
