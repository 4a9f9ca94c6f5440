"""The comparison as data, table, Markdown and sentences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from components.errors import UserError
from components.ml.tasks.table import TASKS
from flows.compare import comparison, markdown, table, verdicts
from flows.models import models
from tests.flows import of_tasks

GROUPS = {"editorials": -0.026, "products": -0.027, "tweets": 0.048}


def model(accuracy: float, parameters: int, groups: dict[str, float]) -> dict[str, Any]:
    return {
        "accuracy": accuracy,
        "macro_f1": accuracy - 0.001,
        "accuracy_ci": [accuracy - 0.017, accuracy + 0.014],
        "agreement_with_teacher": 0.95,
        "parameters": parameters,
        "megabytes": parameters * 4 / 1e6,
        "groups": {name: {"accuracy": accuracy + shift, "rows": 600} for name, shift in groups.items()},
    }


def difference(points: float, low: float, high: float, groups: dict[str, float] = GROUPS) -> dict[str, Any]:
    whole = {"accuracy": points / 100, "ci": [low / 100, high / 100]}
    return whole | {"groups": dict.fromkeys(groups, whole)}


def gain(points: float, low: float, high: float, seeds: int = 1) -> dict[str, Any]:
    """The same on all rows and on the target group."""
    whole = {"accuracy": points / 100, "ci": [low / 100, high / 100], "seeds": seeds, "documents": 1403}
    return whole | {"target": whole | {"documents": 60}}


def write(root: Path, groups: dict[str, float] = GROUPS, benchmark: bool = True) -> None:
    metrics: dict[str, Any] = {
        "models": {
            "lora": model(0.895, 17_300_000, groups),
            "student": model(0.893, 17_300_000, groups),
            "student_without_distillation": model(0.885, 17_300_000, groups),
            "teacher": model(0.906, 22_700_000, groups),
        },
        "differences": {
            "student - teacher": difference(-1.3, -2.4, -0.2, groups),
            "student - student_without_distillation": difference(0.8, -0.3, 1.9, groups),
            "lora - student": difference(0.2, 0.1, 0.4, groups),
        },
        "gains": {"distillation": gain(0.8, -0.3, 1.9), "lora": gain(0.2, 0.1, 0.4)},
        "rows": 1928,
        "documents": 1403,
        "target_group": next(reversed(groups)) if "products" not in groups else "products",
        "confidence": 0.95,
    }
    (root / "artifacts/evaluate").mkdir(parents=True)
    (root / "artifacts/evaluate/metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    (root / "artifacts/finetune/adapter").mkdir(parents=True)
    (root / "artifacts/finetune/adapter/adapter_config.json").write_text('{"peft_type": "LORA"}', encoding="utf-8")
    if benchmark:
        speeds = {
            name: {"latency_p50_ms": latency, "latency_p95_ms": 2 * latency, "throughput_per_s": 1000 / latency}
            for name, latency in {
                "teacher": 8.0,
                "student": 4.0,
                "lora": 4.0,
                "student_without_distillation": 4.0,
            }.items()
        }
        (root / "reports").mkdir()
        report = {"models": speeds, "content": {model.name: f"hash of {model.stage}" for model in models()}}
        (root / "reports/benchmark.json").write_text(json.dumps(report), encoding="utf-8")
    outs = {
        model.stage: {"outs": [{"path": f"artifacts/{model.stage}", "md5": f"hash of {model.stage}"}]}
        for model in models()
    }
    (root / "dvc.lock").write_text(json.dumps({"stages": outs}), encoding="utf-8")


def rendered(found: dict[str, Any], width: int) -> list[str]:
    console = Console(width=width, color_system=None)
    with console.capture() as capture:
        console.print(table(found, width))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_models_come_in_the_order_of_the_pipeline_with_ratios_to_the_teacher(tmp_path: Path) -> None:
    write(tmp_path)
    found = comparison(tmp_path)
    assert list(found["models"]) == ["teacher", "student_without_distillation", "student", "lora"]
    assert found["models"]["student"]["ratios"] == {
        "size": pytest.approx(22.7 / 17.3),
        "latency": 2.0,
        "throughput": 2.0,
    }
    assert found["models"]["student"]["latency_p95_ms"] == 8.0
    assert json.loads(json.dumps(found)) == found


def test_the_table_shows_every_column_in_100_cells(tmp_path: Path) -> None:
    write(tmp_path)
    lines = rendered(comparison(tmp_path), 100)
    assert max(map(len, lines)) <= 100
    header = lines[0].split()
    assert header == ["model", "accuracy", "F1", *GROUPS, "agree", "params", "MB", "p50", "ms", "texts/s"]
    assert lines[1].split() == [
        *["teacher", "90.6", "90.5", "88.0", "87.9", "95.4", "95.0", "22.7", "M", "90.8", "8.0", "125"]
    ]
    assert "88.9-92.0" in lines[2]
    student = next(index for index, line in enumerate(lines) if line.startswith("student  "))
    assert lines[student + 1].split() == ["87.6-90.7", "1.3x", "2.0x", "2.0x"]
    assert not [line for line in lines if "Left out" in line]


@pytest.mark.parametrize("width", [80, 60, 40])
def test_a_narrow_table_drops_the_least_needed_columns_and_says_so(tmp_path: Path, width: int) -> None:
    write(tmp_path)
    lines = rendered(comparison(tmp_path), width)
    assert max(map(len, lines)) <= width
    assert "accuracy" in lines[0]
    assert "…" not in "".join(lines)
    assert "Left out for width" in " ".join(lines)


def test_many_groups_leave_room_for_size_speed_and_the_target_group(tmp_path: Path) -> None:
    groups = {f"领域{index}": 0.0 for index in range(20)} | {"products": 0.01}
    write(tmp_path, groups)
    lines = rendered(comparison(tmp_path), 100)
    for header in ("products", "MB", "p50 ms", "texts/s"):
        assert header in lines[0]
    assert lines[-1].endswith(" more.")


def test_without_a_benchmark_speed_is_a_dash(tmp_path: Path) -> None:
    write(tmp_path, benchmark=False)
    found = comparison(tmp_path)
    assert found["models"]["teacher"]["latency_p50_ms"] is None
    assert found["models"]["student"]["ratios"]["throughput"] is None
    assert rendered(found, 100)[1].split()[-2:] == ["-", "-"]
    assert "throughput" not in " ".join(verdicts(found))


def test_nothing_evaluated_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="stillhouse run"):
        comparison(tmp_path)


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "reports/benchmark.json").write_text("{", encoding="utf-8")
    with pytest.raises(UserError, match=r"benchmark\.json is damaged"):
        comparison(tmp_path)


def test_verdicts_call_a_gain_clear_only_when_its_interval_leaves_zero_out(tmp_path: Path) -> None:
    write(tmp_path)
    kept, distilled, target, everywhere = verdicts(comparison(tmp_path))
    assert kept == (
        "The student keeps 98.6% of the teacher's accuracy (89.3 against 90.6), "
        "at 76% of its size and 2.0 times its throughput."
    )
    assert distilled == (
        "Distillation, against the same student without it: no clear gain, +0.8 points of accuracy (the 95% interval "
        "-0.3 to +1.9 includes 0; over 1 seed, so without the spread of seeds, and 1403 test documents)."
    )
    assert target.startswith("LoRA on products: a clear gain, +0.2 points of accuracy (95% interval +0.1 to +0.4; over")
    assert target.endswith("and 60 test documents).")
    assert everywhere.startswith("LoRA on all rows: a clear gain, +0.2 points")


def test_of_a_teacher_that_learnt_nothing_there_is_nothing_to_keep(tmp_path: Path) -> None:
    write(tmp_path)
    found = comparison(tmp_path)
    found["models"]["teacher"]["accuracy"] = 0.0
    assert verdicts(found)[0].startswith(
        "The teacher's accuracy is 0.0, so there is nothing to keep; the student's is 89.3"
    )


@pytest.mark.parametrize(
    ("points", "low", "high", "said"),
    [
        (1.0, 0.1, 2.0, "a clear gain, +1.0 points"),
        (1.0, 0.0, 2.0, "no clear gain, +1.0 points"),
        (-0.2, -0.5, 0.0, "no clear gain, -0.2 points"),
        (-1.0, -2.0, -0.1, "a clear loss, -1.0 points"),
    ],
)
def test_a_verdict_is_a_gain_a_loss_or_neither(
    tmp_path: Path, points: float, low: float, high: float, said: str
) -> None:
    write(tmp_path)
    found = comparison(tmp_path)
    gains = found["gains"] | {"distillation": gain(points, low, high, seeds=3)}
    (distilled,) = [told for told in verdicts(found | {"gains": gains}) if told.startswith("Distillation")]
    assert said in distilled
    assert distilled.endswith("over 3 seeds and 1403 test documents).")


def test_a_direct_fine_tune_has_a_row_and_a_verdict(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "artifacts/evaluate/metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8"))
    metrics["models"]["lora_without_distillation"] = model(0.884, 17_300_000, GROUPS)
    metrics["gains"]["distillation_before_lora"] = gain(1.1, 0.2, 2.0)
    path.write_text(json.dumps(metrics), encoding="utf-8")
    found = comparison(tmp_path)
    assert list(found["models"])[-2:] == ["lora_without_distillation", "lora"]
    assert "LoRA without" in " ".join(rendered(found, 100))
    assert "| LoRA without<br>distillation | 88.4" in markdown(found)
    told = "Distillation before LoRA, against LoRA alone, on {}: a clear gain, +1.1 points"
    for place in ("products", "all rows"):
        assert [said for said in verdicts(found) if said.startswith(told.format(place))]


def test_verdicts_survive_a_target_group_without_test_rows(tmp_path: Path) -> None:
    write(tmp_path)
    found = comparison(tmp_path) | {"target_group": "小说"}
    found["gains"] = {name: {key: one[key] for key in one if key != "target"} for name, one in found["gains"].items()}
    assert "LoRA on 小说: no test rows of that group." in verdicts(found)


def test_results_from_before_gains_were_measured_ask_for_a_run(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "artifacts/evaluate/metrics.json"
    metrics = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({key: metrics[key] for key in metrics if key != "gains"}), encoding="utf-8")
    with pytest.raises(UserError, match="stillhouse run"):
        comparison(tmp_path)


def test_a_fine_tune_for_all_rows_is_told_once(tmp_path: Path) -> None:
    write(tmp_path)
    found = comparison(tmp_path) | {"target_group": "all"}
    assert [said.split(":")[0] for said in verdicts(found) if said.startswith("LoRA")] == ["LoRA on all rows"]


def test_markdown_has_a_row_for_each_model_and_keeps_pipes_out_of_cells(tmp_path: Path) -> None:
    write(tmp_path, {"a|b": 0.0})
    lines = markdown(comparison(tmp_path)).splitlines()
    assert lines[0].startswith("| model | accuracy | F1 | a\\|b |")
    assert [line.split(" | ")[0] for line in lines[2:6]] == [
        "| teacher",
        "| student without<br>distillation",
        "| student",
        "| LoRA student",
    ]
    assert len([line for line in lines if line.startswith("- ")]) == 4


def test_speeds_of_other_models_are_not_shown(tmp_path: Path) -> None:
    write(tmp_path)
    lock = (tmp_path / "dvc.lock").read_text(encoding="utf-8")
    (tmp_path / "dvc.lock").write_text(lock.replace("hash of finetune", "another hash"), encoding="utf-8")
    assert comparison(tmp_path)["models"]["lora"]["throughput_per_s"] is None


@pytest.mark.parametrize(
    ("method", "title", "sentence"),
    [("IA3", "IA3 student", "IA3 on products"), (None, "fine-tuned student", "Fine-tuning on products")],
)
def test_the_fine_tune_is_called_what_it_was(tmp_path: Path, method: str | None, title: str, sentence: str) -> None:
    write(tmp_path)
    config = tmp_path / "artifacts/finetune/adapter/adapter_config.json"
    if method is None:
        config.unlink()
    else:
        config.write_text(json.dumps({"peft_type": method}), encoding="utf-8")
    found = comparison(tmp_path)
    assert any(line.startswith(title) for line in rendered(found, 120))
    assert any(said.startswith(sentence) for said in verdicts(found))
    assert not any("LoRA" in said for said in verdicts(found))


def of_a_task(root: Path, task: str) -> dict[str, Any]:
    write(root)
    path = root / "artifacts/evaluate/metrics.json"
    path.write_text(json.dumps(of_tasks.evaluated(task)[0]), encoding="utf-8")
    return comparison(root)


@pytest.mark.parametrize("task", list(of_tasks.NAMES))
def test_any_task_is_compared_by_its_headline(tmp_path: Path, task: str) -> None:
    found = of_a_task(tmp_path, task)
    headline = TASKS[task].headline.name
    others = [metric.name for metric in TASKS[task].metrics[1:] if metric.key in found["models"]["lora"]]
    assert others
    header, _, teacher = markdown(found).splitlines()[:3]
    columns = [cell.strip().replace("<br>", " ") for cell in header.split("|")[1:-1]]
    assert columns[:2] == ["model", headline]
    for name in others:
        assert name in columns
    key = found["headline"]
    score = f"{100 * found['models']['teacher'][key]:.1f}"
    assert teacher.split("|")[2].strip().startswith(score)
    kept, distilled, *_ = verdicts(found)
    assert f"of the teacher's {headline} (" in kept
    assert f"a clear gain, +2.1 points of {headline} (95% interval +1.1 to +3.1;" in distilled
    assert max(map(len, rendered(found, 100))) <= 100


def test_what_is_no_share_is_told_as_it_was_measured(tmp_path: Path) -> None:
    found = of_a_task(tmp_path, "regression")
    row = next(line for line in markdown(found).splitlines() if line.startswith("| teacher"))
    assert f"| {found['models']['teacher']['rmse']:.3f} |" in row
    assert "Scores in % (root mean squared error as measured)" in " ".join(rendered(found, 200))


def test_an_interval_that_goes_below_nothing_is_readable(tmp_path: Path) -> None:
    found = of_a_task(tmp_path, "regression")
    found["models"]["lora"]["pearson_ci"] = [-0.05, 0.3]
    assert "-5.0 to 30.0" in markdown(found)
