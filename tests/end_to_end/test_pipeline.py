"""The real flow, real DVC, real MLflow and real Great Expectations on a tiny model, as a user runs them."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

Project = Any

NAMES = ["teacher", "student", "student_without_distillation", "lora", "lora_onnx", "lora_int8"]
STAGES = ["validate", "teacher", "label", "distill", "control", "finetune", "controls", "export", "evaluate"]


def count(project: Project, database: str, query: str) -> list[tuple[Any, ...]]:
    """Ask one of the embedded databases."""
    with closing(sqlite3.connect(project.root / ".stillhouse" / database)) as connection:
        return connection.execute(query).fetchall()


def mlflow_rows(project: Project) -> dict[str, int]:
    """How much the tracking store holds."""
    tables = ("runs", "metrics", "params", "tags", "model_versions", "logged_models", "inputs")
    return {table: count(project, "mlflow/mlflow.db", f"SELECT count(*) FROM {table}")[0][0] for table in tables}


def flow_runs(project: Project) -> int:
    return int(count(project, "prefect/prefect.db", "SELECT count(*) FROM flow_run")[0][0])


def test_the_first_run_runs_every_stage_and_shows_the_comparison(finished_project: Project) -> None:
    output = (finished_project.root / ".stillhouse/first_run.txt").read_text(encoding="utf-8")
    outcomes = finished_project.outcomes(output)
    assert outcomes == dict.fromkeys([*STAGES, "benchmark", "publish", "gate", "revision", "report"], "ran"), output
    for shown in ("teacher", "student", "LoRA", "accuracy", "reports/gate/report.html", "make ui"):
        assert shown in output
    assert "Traceback" not in output


def test_the_files_that_others_rely_on_are_there(finished_project: Project) -> None:
    models = finished_project.json("artifacts/evaluate/metrics.json")["models"]
    assert sorted(models) == sorted(NAMES)
    for model in models.values():
        assert {"accuracy", "macro_f1", "accuracy_ci", "parameters", "megabytes", "groups"} <= set(model)
        assert model["accuracy_ci"][0] <= model["accuracy"] <= model["accuracy_ci"][1]
    speeds = finished_project.json("reports/benchmark.json")["models"]
    assert sorted(speeds) == sorted(NAMES)
    assert all({"latency_p50_ms", "latency_p95_ms", "throughput_per_s"} <= set(speed) for speed in speeds.values())
    assert models["student"]["parameters"] < models["teacher"]["parameters"]
    assert (finished_project.root / "reports/gate/report.html").exists()
    assert (finished_project.root / "reports/gate/data_docs/index.html").exists()
    page = (finished_project.root / "reports/report.html").read_text(encoding="utf-8")
    assert "LoRA student, int8" in page
    assert "aren't there" not in page
    card = (finished_project.root / "reports/model_card.md").read_text(encoding="utf-8")
    assert "# stillhouse-sentiment, version 1" in card


def test_model_folders_are_ordinary_transformers_folders(finished_project: Project) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    for stage in ("teacher", "distill", "control", "finetune"):
        folder = finished_project.root / "artifacts" / stage / "model"
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        assert model.config.id2label == {0: "negative", 1: "positive"}
        assert AutoTokenizer.from_pretrained(folder)("这个手机很好")["input_ids"]
        assert not [path for path in folder.rglob("*") if path.suffix in (".bin", ".pt", ".pkl")]


def test_outputs_hold_no_path_of_this_machine(finished_project: Project) -> None:
    for path in (finished_project.root / "artifacts").rglob("*"):
        if path.is_file() and path.suffix in (".json", ".jsonl", ".csv", ".svg"):
            assert str(finished_project.root) not in path.read_text(encoding="utf-8"), path


def test_the_output_of_every_stage_is_in_the_log_of_its_task(finished_project: Project) -> None:
    query = "SELECT task_run.name, log.message FROM log JOIN task_run ON log.task_run_id = task_run.id"
    logged = count(finished_project, "prefect/prefect.db", query)
    for stage, words in {
        "validate": "rows",
        "teacher": "phase general",
        "label": "calibration: temperature",
        "evaluate": "",
    }.items():
        assert any(stage == name and words in message for name, message in logged), (stage, logged)


def test_dvc_shows_metrics_and_plots(finished_project: Project) -> None:
    assert "macro_f1" in finished_project.run("dvc", "metrics", "show", "--json").stdout
    assert "confusion" in finished_project.run("dvc", "plots", "show", "--json").stdout


def test_a_run_in_which_nothing_changed_starts_no_server_and_creates_no_run(finished_project: Project) -> None:
    before = mlflow_rows(finished_project), flow_runs(finished_project), finished_project.lock()
    done = finished_project.run("stillhouse", "run")
    assert "Nothing changed" in done.stdout
    assert (mlflow_rows(finished_project), flow_runs(finished_project), finished_project.lock()) == before


def test_mlflow_holds_one_parent_and_a_child_for_each_model(finished_project: Project) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{finished_project.root}/.stillhouse/mlflow/mlflow.db")
    (experiment,) = [found for found in client.search_experiments() if found.name == "stillhouse"]
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = {run.data.tags["stillhouse.model"]: run for run in runs if run is not parent}
    assert sorted(children) == sorted(NAMES)
    assert {run.info.status for run in runs} == {"FINISHED"}
    compared = [frozenset(key for key in run.data.metrics if "/" not in key) for run in children.values()]
    assert len(set(compared)) == 1
    assert {"accuracy", "macro_f1", "ece", "megabytes", "latency_p50_ms", "throughput_per_s"} <= compared[0]
    for name, run in children.items():
        accuracy = finished_project.json("artifacts/evaluate/metrics.json")["models"][name]["accuracy"]
        assert run.data.metrics["accuracy"] == pytest.approx(accuracy)
        assert run.inputs.dataset_inputs
        assert run.data.params["component_version"]
    candidate = client.get_model_version_by_alias("stillhouse-sentiment", "candidate")
    assert int(candidate.version) == 1
    decision = finished_project.json("reports/decision.json")
    assert decision["outcome"] == "first model"
    champion = "champion" in dict(client.get_registered_model("stillhouse-sentiment").aliases)
    assert decision["promoted"] == champion == all(floor["met"] for floor in decision["floors"].values())


def test_the_registered_model_labels_a_file_like_the_evaluation(finished_project: Project, tmp_path: Path) -> None:
    done = finished_project.run("stillhouse", "score", "data/test.jsonl", str(tmp_path / "out.parquet"))
    assert "80 rows labelled by stillhouse-sentiment/1" in " ".join(done.stdout.split())
    found = pq.read_table(tmp_path / "out.parquet").sort_by("text")
    predictions = finished_project.root / "artifacts/evaluate/predictions/lora_int8.parquet"
    texts = pq.read_table(finished_project.root / "artifacts/validate/test", columns=["row", "text"])
    expected = texts.join(pq.read_table(predictions, columns=["row", "prediction"]), "row").sort_by("text")
    names = ["negative", "positive"]
    assert found["text"].to_pylist() == expected["text"].to_pylist()
    assert found["predicted_label"].to_pylist() == [names[index] for index in expected["prediction"].to_pylist()]


def test_a_changed_parameter_reruns_what_depends_on_it_a_dead_server_loses_nothing_and_going_back_restores(
    copied: Project,
) -> None:
    before = (copied.root / "params.yaml").read_bytes()
    copied.edit(lambda params: params["finetune"]["phases"]["specific"].update(epochs=2))
    copied.edit(lambda params: params["export"].update(formats=[]))  # which takes long, and is no part of this
    done = copied.run("stillhouse", "run", MLFLOW_TRACKING_URI="http://127.0.0.1:1")
    unchanged = dict.fromkeys(STAGES[:5], "unchanged")
    ran = dict.fromkeys(["finetune", "controls", "export", "evaluate", "benchmark"], "ran")
    assert copied.outcomes(done.stdout) == unchanged | ran | {"publish": "failed", "report": "ran"}
    assert "tries again" in done.stdout
    outcomes = copied.outcomes(copied.run("stillhouse", "run").stdout)
    again = dict.fromkeys(["benchmark", "publish", "gate", "revision", "report"], "ran")  # each server has its receipt
    assert outcomes == dict.fromkeys(STAGES, "unchanged") | again
    parents = (
        "SELECT count(*) FROM runs WHERE run_uuid NOT IN (SELECT run_uuid FROM tags WHERE key='mlflow.parentRunId')"
    )
    assert count(copied, "mlflow/mlflow.db", parents) == [(2,)]
    (copied.root / "params.yaml").write_bytes(before)
    outcomes = copied.outcomes(copied.run("stillhouse", "run").stdout)
    assert outcomes["finetune"] == outcomes["evaluate"] == "restored"
    candidate = "SELECT version FROM registered_model_aliases WHERE alias = 'candidate'"
    assert count(copied, "mlflow/mlflow.db", candidate) == [(1,)]  # it follows the results in the workspace
    assert (count(copied, "mlflow/mlflow.db", parents), mlflow_rows(copied)["runs"]) == ([(2,)], 12)


def test_flow_and_bare_dvc_repro_agree(finished_project: Project, tmp_path: Path) -> None:
    clone = type(finished_project)(tmp_path / "clone")
    ignored = shutil.ignore_patterns("artifacts", "reports", ".stillhouse", "cache", "tmp", "dvc.lock")
    shutil.copytree(finished_project.root, clone.root, symlinks=True, ignore=ignored)
    clone.run("dvc", "repro", "--quiet")
    assert clone.lock() == finished_project.lock()


def test_a_failed_gate_stops_the_run_and_earlier_results_stay_restorable(copied: Project) -> None:
    before = copied.lock()
    good = (copied.root / "data/train.jsonl").read_bytes()
    leak = (copied.root / "data/test.jsonl").read_bytes()
    (copied.root / "data/train.jsonl").write_bytes(good + leak)
    refused = copied.run("stillhouse", "run", code=2)
    assert "data/ differs" in refused.stderr
    copied.run("dvc", "add", "--quiet", "data")
    stopped = copied.run("stillhouse", "run", code=2)
    assert "leakage" in stopped.stderr
    assert "Traceback" not in stopped.stdout + stopped.stderr
    assert copied.json("reports/gate/gate.json")
    assert copied.outcomes(stopped.stdout) == {"validate": "failed"}
    (copied.root / "data/train.jsonl").write_bytes(good)
    copied.run("dvc", "add", "--quiet", "data")
    outcomes = copied.outcomes(copied.run("stillhouse", "run").stdout)
    assert outcomes.get("validate", "restored") == "restored"
    assert "ran" not in {outcome for stage, outcome in outcomes.items() if stage in STAGES}
    assert copied.lock() == before


def test_what_was_deleted_is_made_again_without_training(copied: Project) -> None:
    before = mlflow_rows(copied)
    shutil.rmtree(copied.root / ".stillhouse/mlflow")
    shutil.rmtree(copied.root / "reports")
    done = copied.run("stillhouse", "run").stdout
    assert {"gate", "benchmark", "publish"} <= set(copied.outcomes(done)), done
    assert mlflow_rows(copied) == before
    assert (copied.root / "reports/gate/report.html").exists()
    assert "Nothing changed" in copied.run("stillhouse", "run").stdout
