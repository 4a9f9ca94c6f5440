"""The evaluate stage on tiny random models: its files, its numbers, its pictures."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components import plots
from components.errors import UserError
from components.evaluate.stage import run
from components.params.stages import Bootstrap, Evaluate, Runtime

WORDS = ["good", "bad", "film", "not", "plot", "the", "很", "好", "坏", "书", "评", "论"]
LABELS = ["负面", "正面", "$5 & <$9_x>"]  # the last one is neither markup nor mathematics
STAGES = ("teacher", "student", "student_without_distillation", "lora")
DIRECT = "lora_without_distillation"
HISTORY = [
    {"phase": "general", "step": 10, "loss": 1.1, "learning_rate": 1e-4},
    {"phase": "general", "step": 20, "loss": 0.9, "learning_rate": 5e-5},
    {"phase": "general", "step": 20, "epoch": 1.0, "eval_loss": 1.0, "eval_accuracy": 0.5},
]


def write_model(folder: Path, seed: int, labels: list[str] = LABELS) -> None:
    """A random two-layer BERT, 16 wide, that knows a few English words and Chinese characters."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizer

    folder.mkdir(parents=True)
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    tokenizer = BertTokenizer(str(folder / "vocab.txt"))
    torch.manual_seed(seed)
    config = BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=64,
        id2label=dict(enumerate(labels)),
        label2id={label: index for index, label in enumerate(labels)},
        initializer_range=1.0,
    )
    BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_rows(folder: Path, shards: int = 2, each: int = 30, documents: bool = True, groups: int = 2) -> None:
    folder.mkdir(parents=True)
    generator = np.random.default_rng(5)
    for shard in range(shards):
        row = np.arange(shard * each, (shard + 1) * each)
        texts = [" ".join(generator.choice(WORDS, generator.integers(1, 12))) for _ in row]
        table = pa.table(
            {
                "row": pa.array(row, pa.int64()),
                "text": texts,
                "label": pa.array(generator.integers(0, len(LABELS), each), pa.int32()),
                "group": [["新闻", "books"][index % groups] for index in row],
                "document": [f"d{index // 5}" if documents else f"row:test:{index}" for index in row],
            }
        )
        pq.write_table(table, folder / f"part-{shard:05d}.parquet")


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("inputs")
    for seed, stage in enumerate(STAGES):
        write_model(root / stage / "model", seed)
        lines = [] if stage == "teacher" else HISTORY  # an already tuned teacher was given
        (root / stage / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_rows(root / "test")
    write_controls(root / "controls")
    (root / "export").mkdir()
    return {name: root / name for name in (*STAGES, "test", "controls", "export")}


def write_controls(folder: Path, seeds: tuple[int, ...] = (), direct: bool = False) -> Path:
    """What the stage `controls` leaves, with models that are all different."""
    folder.mkdir(parents=True)
    told = {"seed": 13, "seeds": seeds, "direct_finetune": direct, "direct": "a hash" if direct else None}
    (folder / "controls.json").write_text(json.dumps(told))
    names = [name for name in STAGES if name != "teacher"] + [DIRECT] * direct
    models = [folder / "seeds" / str(seed) / name for seed in seeds for name in names]
    for number, place in enumerate([*models, *([folder / "direct"] * direct)]):
        write_model(place / "model", 100 + number)
        (place / "history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in HISTORY))
    return folder


def evaluate(inputs: dict[str, Path], output: Path, target_group: str = "新闻", resamples: int = 200) -> dict[str, Any]:
    output.mkdir()
    settings = Evaluate(bootstrap=Bootstrap(resamples=resamples), batch_size=8)
    run(
        **inputs,
        runtime=Runtime(threads=1),
        max_length=16,
        settings=settings,
        target_group=target_group,
        output=output,
    )
    found: dict[str, Any] = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture(scope="module")
def controlled(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation with a direct fine-tune and three seeds in all."""
    root = tmp_path_factory.mktemp("controlled")
    evaluate(inputs | {"controls": write_controls(root / "controls", (14, 15), direct=True)}, root / "output")
    return root / "output"


@pytest.fixture(scope="module")
def output(inputs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("evaluate") / "output"
    evaluate(inputs, folder)
    return folder


@pytest.fixture(scope="module")
def metrics(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    return found


def test_every_model_has_every_number(metrics: dict[str, Any]) -> None:
    assert set(metrics["models"]) == set(STAGES)
    for model in metrics["models"].values():
        low, high = model["accuracy_ci"]
        assert 0 <= low <= model["accuracy"] <= high <= 1
        assert {"macro_precision", "macro_recall", "macro_f1", "macro_f1_ci", "mcc", "ece"} < set(model)
        assert model["parameters"] > 1000
        assert model["megabytes"] == pytest.approx(model["parameters"] * 4 / 1e6, rel=0.2)
        assert set(model["groups"]) == {"新闻", "books"}
        assert all(group["rows"] == 30 for group in model["groups"].values())
    assert metrics["models"]["teacher"]["agreement_with_teacher"] == 1
    assert (metrics["rows"], metrics["documents"], metrics["target_group"]) == (60, 12, "新闻")


def test_differences_are_paired_and_given_by_group(metrics: dict[str, Any]) -> None:
    models = metrics["models"]
    assert {"student - teacher", "student - student_without_distillation", "lora - student"} <= set(
        metrics["differences"]
    )
    for name, difference in metrics["differences"].items():
        first, second = name.split(" - ")
        assert difference["accuracy"] == pytest.approx(models[first]["accuracy"] - models[second]["accuracy"])
        assert difference["ci"][0] <= difference["accuracy"] <= difference["ci"][1]
        for group, part in difference["groups"].items():
            expected = models[first]["groups"][group]["accuracy"] - models[second]["groups"][group]["accuracy"]
            assert part["accuracy"] == pytest.approx(expected)


def test_with_one_seed_gains_are_the_differences_and_say_that_no_seed_was_drawn(metrics: dict[str, Any]) -> None:
    pairs = {"distillation": "student - student_without_distillation", "lora": "lora - student"}
    assert set(metrics["gains"]) == set(pairs)
    for name, pair in pairs.items():
        gain, difference = metrics["gains"][name], metrics["differences"][pair]
        for found, expected in ((gain, difference), (gain["target"], difference["groups"]["新闻"])):
            assert found["accuracy"] == found["by_seed"]["13"] == expected["accuracy"]
            assert found["ci"] == expected["ci"]
            assert (found["seeds"], found["interval_over"]) == (1, "documents")
        assert (gain["documents"], gain["target"]["documents"]) == (12, 12)


def test_gains_are_means_over_the_seeds_of_paired_differences_on_the_test_rows(controlled: Path) -> None:
    metrics = json.loads((controlled / "metrics.json").read_text(encoding="utf-8"))

    def right(model: str, seed: int) -> np.ndarray:
        place = Path(f"{model}.parquet") if seed == 13 else Path("seeds") / str(seed) / f"{model}.parquet"
        table = pq.read_table(controlled / "predictions" / place)
        return np.array([said == label for said, label in zip(table["prediction"], table["label"], strict=True)])

    group = pq.read_table(controlled / "predictions/lora.parquet")["group"].to_pylist()
    target = np.array([name == "新闻" for name in group])
    for name, (model, other) in {
        "distillation": ("student", "student_without_distillation"),
        "lora": ("lora", "student"),
        "distillation_before_lora": ("lora", DIRECT),
    }.items():
        gain = metrics["gains"][name]
        for found, chosen in ((gain, slice(None)), (gain["target"], target)):
            each = [np.mean(right(model, seed)[chosen]) - np.mean(right(other, seed)[chosen]) for seed in (13, 14, 15)]
            assert list(found["by_seed"]) == ["13", "14", "15"]
            assert list(found["by_seed"].values()) == pytest.approx(each)
            assert found["accuracy"] == pytest.approx(np.mean(each))
            assert found["ci"][0] < found["accuracy"] < found["ci"][1]
            assert (found["seeds"], found["interval_over"]) == (3, "documents and seeds")


def test_a_direct_fine_tune_stands_beside_the_others(controlled: Path, metrics: dict[str, Any]) -> None:
    found = json.loads((controlled / "metrics.json").read_text(encoding="utf-8"))
    assert [*found["models"]] == ["teacher", "student_without_distillation", "student", DIRECT, "lora"]
    assert {name: found["models"][name] for name in STAGES} == metrics["models"]
    assert found["differences"] == metrics["differences"]
    pictures = {path.stem: path.read_text(encoding="utf-8") for path in (controlled / "plots").glob("*.svg")}
    assert all("LoRA without distillation" in picture for picture in pictures.values())
    for path in (controlled / "plots").glob("*/lora_without_distillation.csv"):
        assert len(path.read_text(encoding="utf-8").splitlines()) > 1


def test_exported_models_stand_beside_the_fine_tune_and_are_compared_with_it(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    for place in ("onnx", "int8"):
        shutil.copytree(inputs["lora"] / "model", tmp_path / "export" / place / "model")
    found = evaluate(inputs | {"export": tmp_path / "export"}, tmp_path / "output")
    assert [*found["models"]][-3:] == ["lora", "lora_onnx", "lora_int8"]
    for name in ("lora_onnx", "lora_int8"):
        assert found["differences"][f"{name} - lora"]["ci"] == [0.0, 0.0]
        table = (tmp_path / "output" / "plots" / "confusion" / f"{name}.csv").read_text(encoding="utf-8")
        assert len(table.splitlines()) == 1 + 60


def test_tables_of_a_model_that_is_not_there_are_empty_since_dvc_plots_looks_for_them(output: Path) -> None:
    for kind in ("confusion", "reliability", "training", "validation"):
        for name in (DIRECT, "lora_onnx", "lora_int8"):
            assert len((output / "plots" / kind / f"{name}.csv").read_text(encoding="utf-8").splitlines()) == 1
    assert DIRECT not in (output / "plots/groups.csv").read_text(encoding="utf-8")


def test_prompts_inside_a_model_folder_count_as_its_size(inputs: dict[str, Path], tmp_path: Path) -> None:
    from peft import PromptTuningConfig, TaskType, get_peft_model
    from transformers import AutoModelForSequenceClassification

    base = AutoModelForSequenceClassification.from_pretrained(inputs["student"] / "model")
    config = PromptTuningConfig(task_type=TaskType.SEQ_CLS, num_virtual_tokens=4, token_dim=16, num_layers=2)
    shutil.copytree(inputs["student"], tmp_path / "lora")
    get_peft_model(base, config).save_pretrained(str(tmp_path / "lora/model/adapter"))
    found = evaluate(inputs | {"lora": tmp_path / "lora"}, tmp_path / "output")["models"]
    assert found["lora"]["parameters"] == found["student"]["parameters"] + 4 * 16
    assert found["lora"]["megabytes"] > found["student"]["megabytes"]


def test_predictions_keep_every_row_and_agree_with_the_metrics(
    output: Path, inputs: dict[str, Path], metrics: dict[str, Any]
) -> None:
    rows = pa.concat_tables([pq.read_table(path) for path in sorted(inputs["test"].glob("*.parquet"))])
    for name in STAGES:
        table = pq.read_table(output / "predictions" / f"{name}.parquet")
        data = ["row", "group", "document", "label", "prediction", "logits"]
        assert table.column_names == [*data, "actual", "predicted", "right", "confidence"]
        assert table["predicted"].to_pylist() == [LABELS[one] for one in table["prediction"].to_pylist()]
        assert table["right"].to_pylist() == [
            a == p for a, p in zip(table["label"].to_pylist(), table["prediction"].to_pylist(), strict=True)
        ]
        assert table.schema.field("prediction").type == pa.int32()
        assert table.schema.field("logits").type == pa.list_(pa.float32(), len(LABELS))
        for column in ("row", "group", "document", "label"):
            assert table[column].to_pylist() == rows[column].to_pylist()
        logits = np.array(table["logits"].to_pylist())
        assert (logits.argmax(axis=1) == table["prediction"].to_numpy()).all()
        right = np.mean(table["prediction"].to_numpy() == table["label"].to_numpy())
        assert right == pytest.approx(metrics["models"][name]["accuracy"])


def test_the_same_inputs_give_the_same_bytes(inputs: dict[str, Path], output: Path, tmp_path: Path) -> None:
    evaluate(inputs, tmp_path / "again")
    first, second = (
        {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
        for folder in (output, tmp_path / "again")
    )
    assert list(first) == list(second)
    assert [path for path in first if first[path] != second[path]] == []
    assert not [path for path, content in first.items() if str(tmp_path.parent).encode() in content]


def test_pictures_are_valid_undated_and_keep_chinese_as_text(output: Path) -> None:
    pictures = {path.stem: path.read_text(encoding="utf-8") for path in (output / "plots").glob("*.svg")}
    assert set(pictures) == {"confusion", "reliability", "groups", "training"}
    for picture in pictures.values():
        ET.fromstring(picture)
        assert not re.search(r"dc:date|20\d\d-\d\d-\d\d", picture)
        assert "sans-serif" in picture
    assert "正面" in pictures["confusion"]
    assert "$5 &amp; &lt;$9_x&gt;" in pictures["confusion"]
    assert "新闻" in pictures["groups"]
    assert "not trained here" in pictures["training"]


def test_tables_hold_what_the_pictures_show(output: Path) -> None:
    lines = {
        path.relative_to(output / "plots").as_posix(): path.read_text(encoding="utf-8").splitlines()
        for path in (output / "plots").rglob("*.csv")
    }
    assert lines["confusion/lora.csv"][0] == "actual,predicted"
    assert len(lines["confusion/lora.csv"]) == 1 + 60
    assert lines["groups.csv"][0] == "model,group,accuracy,low,high,rows"
    assert len(lines["groups.csv"]) == 1 + 4 * 2
    assert lines["reliability/lora.csv"][0] == "confidence,accuracy,rows"
    assert sum(int(line.split(",")[-1]) for line in lines["reliability/lora.csv"][1:]) == 60
    assert "general,10,1.1" in lines["training/student.csv"]
    assert "general,20,1.0,0.5" in lines["validation/student.csv"]
    assert lines["training/teacher.csv"] == ["phase,step,loss"]


def test_rows_without_document_keys_and_one_group_work(inputs: dict[str, Path], tmp_path: Path) -> None:
    write_rows(tmp_path / "test", documents=False, groups=1)
    found = evaluate(inputs | {"test": tmp_path / "test"}, tmp_path / "output", target_group="all")
    assert found["documents"] == found["rows"] == 60


def test_a_fine_tune_for_all_groups_is_evaluated_like_one_for_a_group(
    inputs: dict[str, Path], metrics: dict[str, Any], tmp_path: Path
) -> None:
    found = evaluate(inputs, tmp_path / "output", target_group="all")
    gains = {name: {key: gain[key] for key in gain if key != "target"} for name, gain in metrics["gains"].items()}
    assert found == metrics | {"target_group": "all", "gains": gains}


def test_a_group_of_one_document_claims_no_certainty(inputs: dict[str, Path], tmp_path: Path) -> None:
    write_rows(tmp_path / "test", shards=1, each=2)
    found = evaluate(inputs | {"test": tmp_path / "test"}, tmp_path / "output")
    group = found["models"]["student"]["groups"]["新闻"]
    assert group["rows"] == 1
    assert group["accuracy_ci"] == [0.0, 1.0]
    assert found["differences"]["lora - student"]["groups"]["新闻"]["ci"] == [-1.0, 1.0]


def test_no_test_rows_is_the_users_mistake(inputs: dict[str, Path], tmp_path: Path) -> None:
    write_rows(tmp_path / "test", shards=1, each=0)
    with pytest.raises(UserError, match="no rows"):
        evaluate(inputs | {"test": tmp_path / "test"}, tmp_path / "output")


def test_models_with_other_classes_are_refused_by_name(inputs: dict[str, Path], tmp_path: Path) -> None:
    write_model(tmp_path / "teacher" / "model", 1, labels=["a", "b", "c"])
    with pytest.raises(UserError, match="student_without_distillation has"):
        evaluate(inputs | {"teacher": tmp_path / "teacher"}, tmp_path / "output")


def test_a_label_that_no_model_knows_is_refused(inputs: dict[str, Path], tmp_path: Path) -> None:
    for seed, stage in enumerate(STAGES):
        write_model(tmp_path / stage / "model", seed, labels=LABELS[:2])
    with pytest.raises(UserError, match="know 2 classes"):
        evaluate(inputs | {stage: tmp_path / stage for stage in STAGES}, tmp_path / "output")


def test_long_labels_are_cut_to_the_room_they_have() -> None:
    assert plots.shorten("short") == "short"
    assert plots.shorten("非常长的类别名称在这里超过宽度", 12) == "非常长的类…"
