"""params.yaml is checked key by key, and every message says what to do."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from components.errors import UserError
from components.loader import load_params, load_yaml
from components.params.project import Params

SAMPLE = Path(__file__).parents[1] / "params.yaml"
OWN = Path(__file__).parents[2] / "params.yaml"
Edited = Callable[[str, str], Path]


@pytest.fixture
def edited(tmp_path: Path) -> Edited:
    """A params.yaml with one replacement, as a file."""

    def edit(old: str, new: str) -> Path:
        text = SAMPLE.read_text(encoding="utf-8")
        assert old in text
        path = tmp_path / "params.yaml"
        path.write_text(text.replace(old, new, 1), encoding="utf-8")
        return path

    return edit


def test_the_projects_own_file_is_valid() -> None:
    params = load_params(OWN)
    assert params.get("data.max_length") == params.data.max_length
    assert params.get("validate.rules.schema").severity == "error"


PHASE = "      on: products\n"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("temperature: 2.0", "temprature: 2.0", r"unknown key 'temprature' in distill; did you mean 'temperature'"),
        ("seed: 13  ", "sed: 13  ", r"unknown key 'sed' in the top level; did you mean 'seed'"),
        ("epochs: 2,", "epochs: three,", r"teacher.phases.general.epochs: should be a valid number, got 'three'"),
        ("every: 100", "every: 15", r"checkpoints.every: should be a multiple of 10, got 15"),
        ("every: 100", "every: -10", r"checkpoints.every: should be greater than or equal to 0, got -10"),
        ("newest: 3", "newst: 3", r"unknown key 'newst' in checkpoints; did you mean 'newest'"),
        ("confidence: 0.95, seed: 13", "confidence: 0.95, seed: -1", r"evaluate.bootstrap.seed: should be greater"),
        ("seed: 13  ", "seed: 4294967295  ", r"seed: should be less than 4294966296, got 4294967295"),
        ("threads: 2", "threads: '2'", r"runtime.threads: should be a valid integer, got '2'"),
        ("threads: 2", "threads: true", r"runtime.threads: should be a valid integer, got True"),
        ("trainable: all", "trainable: al", r"general.trainable: should be 'all' or 'head', got 'al'"),
        ("trainable: all", "trainable: {last_layer: 2}", r"unknown key 'last_layer' .*; did you mean 'last_layers'"),
        ("lora: {r: 8", "lora: {rank: 8", r"unknown key 'rank' in finetune.phases.specific.trainable.lora"),
        ("objective: labels", "objective: label", r"teacher.phases.general.objective: should be"),
        ("order: [general]", "order: [genral]", r"teacher: order names the phase 'genral'.*did you mean 'general'"),
        ("order: [general]", "order: [general, general]", r"teacher: order names a phase twice"),
        ("train: data/train.jsonl", "train: elsewhere/a.csv", r"data.train: must be inside data/"),
        ("train: data/train.jsonl", "train: data/../a.csv", r"data.train: must be inside data/"),
        ("alpha: 0.9 ", "alpha: -1 ", r"distill.alpha: should be greater than or equal to 0, got -1"),
        ("test: 0.2", "test: 0.95", r"data.split: validation \+ test must leave a share"),
        ("max_share: 0.05", "max_shar: 0.05", r"unknown key 'max_shar' in validate.rules.truncated"),
        ("  base: data/base_model ", "  #", r"'base' is missing in teacher"),
        ("labels: [negative, positive]", "labels: [1.5, a]", r"data.labels.0: should be a valid string, got 1.5"),
        (
            "labels: [negative, positive]",
            "labels: [a, b, a]",
            r"data.labels: expected different names, got 'a' 2 times",
        ),
        (
            "labels: [negative, positive]",
            "labels: [a, ' ']",
            r"data.labels: expected names of classes, got the empty ' '",
        ),
        ("seed: 13 ", "sead: 13 ", r"params.yaml: 'seed' is missing in the top level"),
        ("base: data/base_model", "base: models/base", r"teacher.base: must be inside data/.* got 'models/base'"),
        ("registered_model: ", "registered_model: a/", r"publish.registered_model: expected a name without /, got 'a/"),
        (
            "seed: 13 ",
            "monitoring: {deployment: a/b/c}\nseed: 13 ",
            r"monitoring.deployment: expected NAME or FLOW/NAME, .* got 'a/b/c'",
        ),
        ("experiment: stillhouse", "experiment: ' '", r"publish.experiment: expected a name, got ' '"),
        ("epochs: 2,", "epochs: .nan,", r"teacher.phases.general.epochs: should be a finite number, got nan"),
        ("lr: 8.0e-5", "lr: .inf", r"teacher.phases.general.lr: should be a finite number, got inf"),
        ("alpha: 0.9 ", "alpha: .inf ", r"distill.alpha: should be a finite number"),
        ("on: all", "on: []", r"teacher.phases.general.on: expected `all`, a group or a list of groups, got \[\]"),
        (
            "{objective: labels, on: all",
            "{objective: distill, on: all",
            r"teacher: phases.general.objective: expected mlm or labels, got 'distill', which .* only the phases",
        ),
        (
            PHASE,
            PHASE + "      sampling: {temperatur: 2}\n",
            r"unknown key 'temperatur' in finetune.*did you mean 'temperature'",
        ),
        (
            "    specific:\n",
            "    a/b: {objective: labels, epochs: 1, lr: 1.0}\n    specific:\n",
            r"finetune.phases: expected names of .*got 'a/b'",
        ),
        (
            PHASE,
            "      on: [all, products]\n",
            r"specific.on: expected `all`, a group or a list .* got \['all'",
        ),
        (PHASE, PHASE + "      tasks: [topics]\n      class_weights: balanced\n", r"which tasks lacks: \['topics'\]"),
        ("alpha: 0.9 ", "alpha: 0.0 ", r"pseudo_labels.kind is soft, but alpha is 0"),
        (PHASE, PHASE + "      sampling: even\n", r"specific.sampling: should be 'proportional', got 'even'"),
        (
            PHASE,
            PHASE + "      sampling: {weights: {topics: 1}}\n",
            r"sampling.weights must name the phase's tasks \(target\)",
        ),
        (PHASE, PHASE + "      tasks: [target, topics]\n", r"specific.tasks names 'topics', which data.tasks lacks"),
        (
            PHASE,
            PHASE + "      optimizer: adamw_tourch\n",
            r"transformers' optimisers, got 'adamw_tourch'; did you mean 'adamw_",
        ),
        (
            PHASE,
            PHASE + "      early_stopping: {patence: 2}\n",
            r"unknown key 'patence' in .*early_stopping; .* 'patience'",
        ),
        (PHASE, PHASE + "      schedule: reduce_on_plateau\n      warmup: 0.1\n", r"reduce_on_plateau has no warm-up"),
        (PHASE, PHASE + "      label_smoothing: 1.0\n", r"specific.label_smoothing: should be less than 1"),
        (PHASE, PHASE + "      mask: {probability: 2.0}\n", r"specific.mask.probability: should be less than 1"),
        (
            "{lora: {r: 8, ",
            "{gradual: {epochs: 1}}  # ",
            r"unknown key 'epochs' in .*gradual; did you mean 'epochs_per_layer'",
        ),
        ("{lora: {r: 8, ", "{pattern: '('}  # ", r"trainable.pattern: expected a regular expression, got '\('"),
        (
            "trainable: all}",
            "trainable: {prompt_tuning: {}}}",
            r"prompts can't be merged .* the last phase of finetune",
        ),
        (
            "{layers: 3, take",
            "{layers: 3, model: small, take",
            r"expected one of layers, model and config, got layers and",
        ),
        ("{layers: 3, take", "{model: smal, take", r"distill.student.model is 'smal', which data.models lacks"),
        ("{teacher: 1.0}", "{mentor: 1.0}", r"label.teachers names 'mentor', which data.models lacks"),
        ("source: teachers", "source: judgements", r"label.source is judgements, but data.judgements is null"),
        (
            "tasks: {}",
            "tasks: {target: {type: text-classification, train: data/x}}",
            r"expected names of letters.* other than teacher, target and mean, got 'target'",
        ),
        ("{kind: soft", "{kind: sofd", r"pseudo_labels.kind: should be 'soft', 'hard' or 'none', got 'sofd'"),
        ("seed: 13  ", "gate: {margn: 0.1}\nseed: 13  ", r"unknown key 'margn' in gate; did you mean 'margin'"),
        ("seed: 13  ", "gate: {margin: -0.1}\nseed: 13  ", r"gate.margin: should be greater than or equal to 0"),
        ("seed: 13  ", "gate: {tie: maybe}\nseed: 13  ", r"gate.tie: should be 'keep' or 'promote', got 'maybe'"),
        ("seed: 13  ", "gate: {floors: {megabyte: 1}}\nseed: 13  ", r"unknown key 'megabyte' in gate.floors; .*'mega"),
        (
            "seed: 13  ",
            "gate: {floors: {retention: 0}}\nseed: 13  ",
            r"gate.floors.retention: should be greater than 0",
        ),
        ("seed: 13  ", "gate: {group: ''}\nseed: 13  ", r"gate.group: .*should have at least 1 character"),
        ("seed: 13  ", "gate: {bootstrap: {resamples: 5}}\nseed: 13  ", r"gate.bootstrap.resamples: should be greater"),
        (
            "group: group,",
            "group: null,",
            r"params.yaml: data.columns.group is null, so there are no groups, but finetune.phases.specific.on names "
            r"products and finetune.group names products; name the column .* to all$",
        ),
    ],
)
def test_a_mistake_names_key_section_and_remedy(edited: Edited, old: str, new: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        load_params(edited(old, new))
    assert re.search(message, caught.value.message), caught.value.message
    assert "pydantic" not in str(caught.value).lower()
    assert caught.value.remedy


def test_all_mistakes_are_told_at_once(edited: Edited) -> None:
    path = edited("threads: 2", "threads: two")
    path.write_text(path.read_text().replace("temperature", "temprature"))
    with pytest.raises(UserError) as caught:
        load_params(path)
    assert "threads" in caught.value.message
    assert "temprature" in caught.value.message


def test_numbers_follow_yaml_1_2_as_in_dvc(edited: Edited) -> None:
    assert load_params(edited("lr: 8.0e-5", "lr: 8e-5")).teacher.phases["general"].lr == 8e-5


@pytest.mark.parametrize(("text", "message"), [("a: [", "line"), ("a: 1\na: 2\n", "line")])
def test_broken_yaml_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        load_yaml(tmp_path / "params.yaml")


def test_a_missing_or_non_utf8_file_is_the_users_to_mend(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing"):
        load_params(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_bytes("größe: 1".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        load_params(tmp_path / "params.yaml")


def test_an_empty_file_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("")
    with pytest.raises(UserError):
        load_params(tmp_path / "params.yaml")


def test_chinese_labels_and_columns_are_taken_as_they_stand(edited: Edited) -> None:
    params = load_params(edited("labels: [negative, positive]", "labels: [差评, 好评]"))
    assert params.data.labels == ["差评", "好评"]


def test_whole_numbers_are_labels_as_they_are_read_from_files(edited: Edited) -> None:
    assert load_params(edited("labels: [negative, positive]", "labels: [1, 5]")).data.labels == ["1", "5"]


def test_all_keys_that_dvc_tracks_must_stand_in_the_file_whatever_their_defaults(edited: Edited) -> None:
    path = edited("seed: 13", "# seed: 13")
    params = load_yaml(path)
    del params["label"], params["distill"]["student"]
    YAML(typ="safe").dump(params, path)
    with pytest.raises(UserError) as caught:
        load_params(path)
    for told in ("'seed' is missing in the top level", "'label' is missing", "'student' is missing in distill"):
        assert told in caught.value.message


def test_without_a_column_of_groups_all_is_the_only_group(edited: Edited) -> None:
    path = edited("group: group,", "group: null,")
    path.write_text(path.read_text("utf-8").replace(" products", " all"), encoding="utf-8")
    params = load_params(path)
    assert (params.finetune.group, params.named_groups()) == ("all", {})


def test_the_group_of_the_gate_is_named_where_it_is_one_of_its_own(edited: Edited) -> None:
    named = load_params(edited("seed: 13  ", "gate: {group: tweets}\nseed: 13  ")).named_groups()
    assert named["gate.group"] == ["tweets"]
    assert "gate.group" not in load_params(edited("seed: 13  ", "gate: {group: all}\nseed: 13  ")).named_groups()


def test_groups_are_named_by_the_phases_that_run(edited: Edited) -> None:
    expected = {"finetune.phases.specific.on": ["products"], "finetune.group": ["products"]}
    assert load_params(SAMPLE).named_groups() == expected
    del expected["finetune.phases.specific.on"]
    assert load_params(edited("order: [specific]", "order: []")).named_groups() == expected


def test_parameters_cannot_change_once_loaded() -> None:
    params: Params = load_params(SAMPLE)
    with pytest.raises(Exception, match="frozen"):
        params.seed = 1
