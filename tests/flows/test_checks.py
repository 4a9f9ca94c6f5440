"""What a run refuses before anything starts, and groups that it refuses as soon as the data is validated."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ruamel.yaml import YAML

from components.errors import UserError
from components.params.project import Params
from flows.checks import check, check_groups, check_plan
from flows.phase_checks import check_layers, check_phases, check_students_tokenizer
from flows.repo.planning import Action, PlannedStage

ROOT = Path(__file__).parents[2]
Change = Callable[[dict[str, Any]], None]


def raw(*changes: Change) -> dict[str, Any]:
    """The parameters of the tests, changed."""
    params: dict[str, Any] = YAML(typ="safe").load(ROOT / "tests/params.yaml")
    for change in changes:
        change(params)
    return params


def last_layers(section: str, count: int) -> Change:
    def change(params: dict[str, Any]) -> None:
        for phase in params[section]["phases"].values():
            phase["trainable"] = {"last_layers": count}

    return change


def student(layers: int | list[int]) -> Change:
    return lambda params: params["distill"].update(student={"layers": layers, "take": "lower"})


def other_student(**origin: Any) -> Change:
    def change(params: dict[str, Any]) -> None:
        params["data"]["models"] = {"small": "data/small"}
        params["distill"]["student"] = origin

    return change


def terms(section: str, **given: Any) -> Change:
    def change(params: dict[str, Any]) -> None:
        params[section]["terms"] = given

    return change


def phase(section: str, **given: Any) -> Change:
    def change(params: dict[str, Any]) -> None:
        for each in params[section]["phases"].values():
            each.update(given)

    return change


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([student(7)], "distill.student.layers: the teacher has 6 layers, got 7"),
        ([student([0, 6])], "distill.student.layers: expected ascending indices below 6, got [0, 6]"),
        ([student([3, 2])], "distill.student.layers: expected ascending indices below 6, got [3, 2]"),
        (
            [last_layers("teacher", 7)],
            "teacher.phases.general.trainable.last_layers: the base model data/base_model has 6 layers, got 7",
        ),
        ([last_layers("distill", 4)], "distill.phases.distill.trainable.last_layers: the student has 3 layers, got 4"),
        (
            [student([0, 5]), last_layers("finetune", 3)],
            "finetune.phases.specific.trainable.last_layers: the student has 2 layers, got 3",
        ),
        (
            [other_student(config={"num_hidden_layers": 2}), last_layers("distill", 3)],
            "distill.phases.distill.trainable.last_layers: the student has 2 layers, got 3",
        ),
        (
            [other_student(config={"hidden_size": 32}), last_layers("distill", 7)],
            "distill.phases.distill.trainable.last_layers: the student has 6 layers, got 7",
        ),
        (
            [terms("distill", hidden={"layers": [0, 1]})],
            "distill.terms.hidden.layers: expected one entry for each of the student's 3 layers, got 2",
        ),
        (
            [terms("distill", attention={"layers": [0, None, 6]})],
            "distill.terms.attention.layers: the teacher has 6 layers, got layer 6",
        ),
        (
            [terms("distill", relation={"student_layer": 3})],
            "distill.terms.relation.student_layer: the student has 3 layers, got layer 3",
        ),
        (
            [terms("finetune", relation={"teacher_layer": 6}), phase("finetune", objective="distill")],
            "finetune.terms.relation.teacher_layer: the teacher has 6 layers, got layer 6",
        ),
    ],
)
def test_layers_that_a_model_lacks_are_refused(changes: list[Change], words: str) -> None:
    with pytest.raises(UserError) as caught:
        check_layers(6, Params.model_validate(raw(*changes)))
    assert words in caught.value.message
    assert caught.value.remedy
    assert caught.value.kind == "parameters"


def test_layers_that_are_there_pass_and_phases_that_do_not_run_are_not_looked_at() -> None:
    check_layers(6, Params.model_validate(raw()))
    check_layers(3, Params.model_validate(raw(student([0, 2]), last_layers("teacher", 3), last_layers("distill", 2))))
    switched_off = raw(last_layers("finetune", 9), lambda params: params["finetune"].update(order=[]))
    check_layers(6, Params.model_validate(switched_off))
    check_layers(6, Params.model_validate(raw(terms("finetune", hidden={"layers": [9]}))))  # no phase there distils
    check_layers(6, Params.model_validate(raw(terms("distill", hidden={"layers": [None, 3, 5]}, relation={}))))


def test_an_unknown_number_of_layers_leaves_the_students_to_be_checked() -> None:
    check_layers(None, Params.model_validate(raw(student(99), last_layers("teacher", 99))))
    with pytest.raises(UserError, match="the student has 3 layers, got 4"):
        check_layers(None, Params.model_validate(raw(last_layers("distill", 4))))


def test_all_wrong_layers_are_told_at_once() -> None:
    with pytest.raises(UserError) as caught:
        check_layers(2, Params.model_validate(raw(last_layers("teacher", 3), student(4), last_layers("finetune", 5))))
    assert [line.split(":")[0] for line in caught.value.message.splitlines() if "got" in line] == [
        "teacher.phases.general.trainable.last_layers",
        "distill.student.layers",
        "finetune.phases.specific.trainable.last_layers",
    ]


def refused(*changes: Change) -> str:
    with pytest.raises(UserError) as caught:
        check_phases(Params.model_validate(raw(*changes)))
    assert caught.value.kind == "parameters"
    return str(caught.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            [lambda params: params["runtime"].update(dtype="float16")],
            "runtime.dtype: float16 needs the device cuda, runtime.device is cpu",
        ),
        ([phase("distill", dtype="float16")], "distill.phases.distill.dtype: float16 needs the device cuda"),
        (
            [phase("teacher", early_stopping={"metric": "acuracy"})],
            "teacher.phases.general.early_stopping.metric: 'acuracy' isn't measured in this phase. "
            "Did you mean 'accuracy'?\nChoose one of: loss, accuracy, macro_f1.",
        ),
        (
            [phase("teacher", objective="mlm", early_stopping={"metric": "accuracy"})],
            "'accuracy' isn't measured in this phase.\nChoose one of: loss, perplexity.",
        ),
        ([phase("teacher", early_stopping={"metric": "mean/accuracy"})], "'mean/accuracy' isn't measured"),
        (
            [phase("finetune", class_weights={"negative": 1.0, "positif": 2.0})],
            "finetune.phases.specific.class_weights: expected a weight for each of data.labels (negative, positive), "
            "got negative, positif",
        ),
        (
            [
                terms("finetune", hidden={}),
                phase("finetune", objective="distill", trainable={"prompt_tuning": {"tokens": 4}}),
            ],
            "finetune.phases.specific: prompts are positions that the teacher doesn't have",
        ),
    ],
)
def test_what_phases_ask_for_in_vain_is_refused(changes: list[Change], words: str) -> None:
    assert words in refused(*changes)


def test_all_that_phases_ask_for_in_vain_is_told_at_once() -> None:
    told = refused(
        phase("teacher", dtype="float16", early_stopping={"metric": "f1"}, class_weights={"x": 1.0}),
        phase("distill", dtype="float16"),
    )
    assert told.count("\n") == 7
    for key in ("general.dtype", "general.early_stopping", "general.class_weights", "distill.dtype"):
        assert f"{key}" in told


def test_what_phases_can_have_passes() -> None:
    def with_task(params: dict[str, Any]) -> None:
        params["data"]["tasks"] = {"names": {"type": "token-classification", "train": "data/names.jsonl"}}

    for metric in ("loss", "accuracy", "names/macro_f1", "mean/accuracy"):
        several = phase("teacher", tasks=["target", "names"], early_stopping={"metric": metric})
        check_phases(Params.model_validate(raw(with_task, several)))
    check_phases(Params.model_validate(raw(phase("distill", dtype="bfloat16", class_weights="balanced"))))
    on_cuda = raw(phase("distill", dtype="float16"), lambda params: params["runtime"].update(device="cuda"))
    check_phases(Params.model_validate(on_cuda))
    switched_off = raw(phase("finetune", dtype="float16"), lambda params: params["finetune"].update(order=[]))
    check_phases(Params.model_validate(switched_off))
    weights = phase("finetune", class_weights={"甲": 1.0})
    check_phases(Params.model_validate(raw(weights, lambda params: params["data"].update(labels=None))))


def of_task(task: str, **columns: str) -> Change:
    def change(params: dict[str, Any]) -> None:
        params["data"] |= {"task": task, "columns": columns | {"group": "group"}, "labels": None}

    return change


def test_phases_stop_early_by_what_their_tasks_are_validated_by() -> None:
    def with_task(params: dict[str, Any]) -> None:
        params["data"]["tasks"] = {"scores": {"type": "regression", "train": "data/scores.jsonl"}}

    for metric in ("f1", "accuracy"):
        early = phase("teacher", early_stopping={"metric": metric})
        check_phases(Params.model_validate(raw(of_task("token-classification"), early)))
    told = refused(of_task("regression"), phase("teacher", early_stopping={"metric": "accuracy"}))
    assert "'accuracy' isn't measured in this phase" in told
    assert "Choose one of: loss, pearson, rmse." in told
    several = phase("teacher", tasks=["target", "scores"], early_stopping={"metric": "f1"})
    told = refused(of_task("question-answering"), with_task, several, phase("teacher", early_stopping={"metric": "x"}))
    assert "loss, exact_match, f1, scores/loss, scores/pearson, scores/rmse, mean/loss." in told
    alone = phase("teacher", tasks=["scores"], early_stopping={"metric": "rmse"})
    check_phases(Params.model_validate(raw(with_task, alone)))


@pytest.mark.parametrize("task", ["regression", "question-answering", "multi-label-classification"])
def test_weights_of_classes_are_refused_where_the_loss_has_none(task: str) -> None:
    told = refused(of_task(task), phase("finetune", class_weights="balanced"))
    assert f"finetune.phases.specific.class_weights: the loss of {task} has no weights" in told
    assert "weights are for text-classification, token-classification, relation-classification" in told
    weighted = raw(of_task("relation-classification"), phase("finetune", class_weights="balanced"))
    check_phases(Params.model_validate(weighted))


@pytest.mark.parametrize("task", ["regression", "question-answering"])
def test_smoothing_is_refused_where_there_are_no_labels_to_smooth(task: str) -> None:
    told = refused(of_task(task), phase("finetune", label_smoothing=0.1))
    assert f"finetune.phases.specific.label_smoothing: {task} has no labels to smooth, got 0.1" in told
    check_phases(
        Params.model_validate(raw(of_task("multi-label-classification"), phase("teacher", label_smoothing=0.1)))
    )


def test_groups_that_no_training_row_has_are_refused() -> None:
    params = raw(lambda params: params["teacher"]["phases"]["general"].update(on=["tweets", "小说", "prodcts"]))
    known = ["editorials", "products_", "tweets"]
    with pytest.raises(UserError) as caught:
        check_groups(known, Params.model_validate(params))
    assert caught.value.message.splitlines() == [
        "teacher.phases.general.on: no training row belongs to the group '小说'.",
        "teacher.phases.general.on: no training row belongs to the group 'prodcts'. Did you mean 'products_'?",
        "finetune.phases.specific.on: no training row belongs to the group 'products'. Did you mean 'products_'?",
        "finetune.group: no training row belongs to the group 'products'. Did you mean 'products_'?",
        "The training rows belong to: editorials, products_, tweets.",
    ]
    assert caught.value.kind == "parameters"
    assert caught.value.remedy


def test_known_groups_and_all_pass_and_many_groups_are_cut_short() -> None:
    check_groups(["products"], Params.model_validate(raw()))
    for_all = raw(
        lambda params: params["finetune"].update(group="all"),
        lambda params: params["finetune"]["phases"]["specific"].update(on="all"),
    )
    check_groups(["tweets"], Params.model_validate(for_all))
    with pytest.raises(UserError, match=r"g18, g19 and 5 more\."):
        check_groups([f"g{number}" for number in range(25)], Params.model_validate(raw()))


@pytest.fixture
def workspace(tmp_path: Path, tiny_encoder: Path) -> Any:
    """A project whose base model has 3 layers, and which asks for 3; data/ is taken to be as pinned."""
    shutil.copytree(tiny_encoder, tmp_path / "data/base_model")
    shutil.copyfile(ROOT / "runtime.json", tmp_path / "runtime.json")
    row = json.dumps(dict.fromkeys(("text", "label", "group", "document"), "x")) + "\n"
    for split in ("train", "validation", "test", "unlabelled"):
        (tmp_path / f"data/{split}.jsonl").write_text(row)
    YAML(typ="safe").dump(raw(lambda params: params["data"].update(max_length=32)), tmp_path / "params.yaml")
    return SimpleNamespace(root=tmp_path, check_data=lambda: None)


def test_a_sound_project_passes(workspace: Any) -> None:
    assert check(workspace).data.max_length == 32


def test_faults_of_runtime_model_data_and_layers_are_told_together(workspace: Any) -> None:
    (workspace.root / "runtime.json").write_text("{")
    (workspace.root / "data/base_model/model.safetensors").unlink()
    (workspace.root / "data/test.jsonl").write_text("")
    params = raw(student(4), lambda params: params["data"].update(max_length=32))
    YAML(typ="safe").dump(params, workspace.root / "params.yaml")
    with pytest.raises(UserError) as caught:
        check(workspace)
    for words in ("runtime.json is damaged", "no model.safetensors", "data/test.jsonl is empty", "layers, got 4"):
        assert words in caught.value.message
    assert str(workspace.root) not in caught.value.message


def change(workspace: Any, *changes: Change) -> Params:
    """Write changed parameters over the project's."""
    params = raw(lambda params: params["data"].update(max_length=32), *changes)
    YAML(typ="safe").dump(params, workspace.root / "params.yaml")
    return Params.model_validate(params)


def save_small_model(workspace: Any) -> Path:
    """The folder data/small, which calls itself a model of two layers."""
    folder: Path = workspace.root / "data/small"
    shutil.copytree(workspace.root / "data/base_model", folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 2}))
    return folder


def test_another_model_as_the_student_is_checked_under_its_name(workspace: Any) -> None:
    change(workspace, other_student(model="small"), last_layers("distill", 3))
    with pytest.raises(UserError) as caught:
        check(workspace)
    assert "data.models.small" in caught.value.message
    assert "data/small does not exist" in caught.value.message
    assert "teacher.base" not in str(caught.value)
    save_small_model(workspace)
    with pytest.raises(UserError, match=r"trainable\.last_layers: the student has 2 layers, got 3"):
        check(workspace)
    change(workspace, other_student(model="small"), last_layers("distill", 2))
    check(workspace)


def test_terms_for_a_student_with_another_vocabulary_are_refused(workspace: Any) -> None:
    params = change(workspace, other_student(model="small"), terms("distill", hidden={}))
    path = save_small_model(workspace) / "tokenizer.json"
    check_students_tokenizer(params, workspace.root)
    tokenizer = json.loads(path.read_text())
    tokenizer["model"]["vocab"]["新"] = len(tokenizer["model"]["vocab"])
    path.write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match=r"distill\.terms: the student data/small has another vocabulary"):
        check_students_tokenizer(params, workspace.root)
    check_students_tokenizer(change(workspace, other_student(model="small")), workspace.root)


@pytest.mark.parametrize("action", ["run", "depends"])
def test_a_device_that_is_not_there_is_refused_as_the_stage_would(
    monkeypatch: pytest.MonkeyPatch, action: Action
) -> None:
    import torch

    from components.ml.models.device import use_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    params = Params.model_validate(raw(lambda params: params["runtime"].update(device="cuda")))
    with pytest.raises(UserError) as told:
        check_plan(params, [PlannedStage("validate", "skip"), PlannedStage("teacher", action)])
    with pytest.raises(UserError) as by_the_stage:
        use_device("cuda", 1)
    assert told.value.message == by_the_stage.value.message
    assert told.value.message.startswith("runtime.device: cuda was asked for")
    assert told.value.remedy.startswith("Choose one of: cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_plan(params, [PlannedStage("teacher", action)])


@pytest.mark.parametrize(("device", "actions"), [("cuda", ["skip", "restore"]), ("cuda", []), ("cpu", ["run"])])
def test_a_plan_that_needs_no_other_device_passes_without_torch(device: str, actions: list[Action]) -> None:
    code = f"""
import sys
from types import SimpleNamespace as Some
from flows.checks import check_plan
check_plan(Some(runtime=Some(device={device!r})), [Some(action=action) for action in {actions!r}])
print("torch" in sys.modules)
"""
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout == "False\n"


def test_checking_imports_nothing_heavy() -> None:
    code = (
        "import sys, flows.phase_checks, components.params.project; "
        "import components.ml.models.layers, components.ml.models.folders; "
        "print([name for name in ('torch', 'transformers', 'numpy') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
