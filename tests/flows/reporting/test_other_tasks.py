"""The report and the card of any task: its headline, its words, and what can't be shown of it said."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import pyarrow.parquet as pq
import pytest

from components.ml.tasks.table import TASKS
from components.params.project import Params
from components.plots import validated
from flows.repo.workspace import Workspace
from flows.reporting import card, page, words
from flows.reporting.evidence import Evidence, Origin, gather
from tests.flows import of_tasks
from tests.flows.reporting.test_card import head
from tests.flows.reporting.test_page import Seen

Made = Callable[[str], Evidence]
TOKEN = "token-classification"


@pytest.fixture
def of_a_task(workspace: Workspace, params: Params) -> Made:
    """The run as another task leaves it."""

    def made(task: str) -> Evidence:
        metrics, inputs, targets, models = of_tasks.evaluated(task)
        folder = workspace.root / "artifacts/evaluate"
        (folder / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
        for name, found in models.items():
            pq.write_table(of_tasks.table(task, targets, found), folder / f"predictions/{name}.parquet")
            if not TASKS[task].classes_per_row:
                lines = "confidence,accuracy,rows\n"
                (folder / f"plots/reliability/{name}.csv").write_text(lines, encoding="utf-8")
        for shard in (workspace.root / "artifacts/validate/test").glob("*.parquet"):
            shard.unlink()
        pq.write_table(of_tasks.shard(inputs), workspace.root / "artifacts/validate/test/part-00000.parquet")
        measured = validated(TASKS[task]).key
        said = {"step": 10, "eval_loss": 0.4, f"eval_{measured}": 0.71}
        text = "".join(json.dumps(line) + "\n" for line in ({"phase": "general", "step": 10, "loss": 1.0}, said))
        (workspace.root / "artifacts/teacher/history.jsonl").write_text(text, encoding="utf-8")
        gate = json.loads((workspace.root / "artifacts/validate/gate.json").read_text(encoding="utf-8"))
        gate["labels"] = of_tasks.NAMES[task]
        (workspace.root / "artifacts/validate/gate.json").write_text(json.dumps(gate), encoding="utf-8")
        data = params.data.model_copy(update={"task": task})
        return gather(workspace, params.model_copy(update={"data": data}), "2026-11-23 abc", Origin())

    return made


def text_of(evidence: Evidence) -> str:
    return " ".join(Seen(page.render(evidence, "")).text.split())


@pytest.mark.parametrize("task", list(of_tasks.NAMES))
def test_the_page_tells_the_headline_of_the_task(of_a_task: Made, task: str) -> None:
    evidence = of_a_task(task)
    headline = TASKS[task].headline
    score = f"{100 * evidence.models['lora'][headline.key]:.1f}%"
    seen = Seen(page.render(evidence, ""))
    assert seen.open == [""]
    text = " ".join(seen.text.split())
    assert f"the LoRA student for {task}, comes to {score} {headline.name} on 60 test rows" in text
    assert f"points of {headline.name} gained" in text.lower().replace(headline.name.lower(), headline.name)
    alts = " ".join(image["alt"] for image in seen.all("img"))
    capital = headline.name[0].upper() + headline.name[1:]
    assert f"{capital} against size in MB. On the front:" in alts
    assert f"{capital} on all rows, 60 rows, with intervals: teacher" in alts
    assert f"Gains in {headline.name} with intervals" in alts
    assert "on the validation rows 71.0% at step 10" in alts


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ("per_tensor", "scales per tensor were taken, by the validation rows: Pearson correlation 76.0% for 80.0% in"),
        ("float", "lost more than export.tolerance on the validation rows (Pearson correlation 76.0% for 80.0% in"),
    ],
)
def test_what_int8_took_is_said(of_a_task: Made, chosen: str, said: str) -> None:
    tried = {name: {"pearson": score} for name, score in (("float", 0.8), ("per_tensor", 0.76), ("per_channel", 0.7))}
    evidence = of_a_task("regression")
    told = dataclasses.replace(evidence, export={"int8": {"chosen": chosen, "tried": tried}})
    (line,) = words.export(told)
    assert said in line


@pytest.mark.parametrize("task", [task for task in of_tasks.NAMES if not TASKS[task].classes_per_row])
def test_what_takes_rows_with_one_class_is_said_not_to_be_there(of_a_task: Made, task: str) -> None:
    text = text_of(of_a_task(task))
    assert f"are made of rows with one class each, which {task} doesn't have" in text
    assert "Calibration error" not in text
    assert "The calibration curves aren't there." not in text


def test_a_relation_has_classes_so_all_of_it_is_shown(of_a_task: Made) -> None:
    evidence = of_a_task("relation-classification")
    assert evidence.confusions
    text = text_of(evidence)
    assert "Confusion matrices" in text
    assert "doesn't have" not in text


@pytest.mark.parametrize("task", ["token-classification", "question-answering", "multi-label-classification"])
def test_rows_on_which_two_models_disagree_are_told_as_people_read_them(of_a_task: Made, task: str) -> None:
    evidence = of_a_task(task)
    (found,) = evidence.disagreements
    assert 0 < found.differ <= 60
    assert found.counts["first"] > found.counts["second"]
    text = text_of(evidence)
    row = found.shown["first"][0]
    assert f"actually {row.label} · teacher: {row.predictions[0]}" in text
    assert row.text
    assert row.text in text
    first = "the first" if task == "multi-label-classification" else "the most confident mistake"
    assert first in text
    if task == TOKEN:
        assert set(row.label.split()) <= set(of_tasks.NAMES[TOKEN])


def test_rows_of_a_regression_are_only_more_or_less_right(of_a_task: Made) -> None:
    evidence = of_a_task("regression")
    assert evidence.disagreements == []
    assert "Rows of regression are only more or less right" in text_of(evidence)


def test_predictions_from_before_people_could_read_them_show_no_disagreements(
    of_a_task: Made, workspace: Workspace, params: Params
) -> None:
    of_a_task(TOKEN)
    path = workspace.root / "artifacts/evaluate/predictions/lora.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["actual", "predicted", "right", "confidence"]), path)
    evidence = gather(workspace, params, "2026-11-23 abc", Origin())
    assert evidence.disagreements == []
    assert "disagreements can't be shown" in text_of(evidence)


def test_scores_by_type_are_a_table(of_a_task: Made) -> None:
    evidence = of_a_task(TOKEN)
    text, scores = text_of(evidence), evidence.models["lora"]["details"]["人"]
    assert "By type: LoRA student" in text
    assert "The same of the other models" in text
    told = "".join(f"{100 * scores[key]:.1f}" for key in ("precision", "recall", "f1"))
    assert f"人{told}{scores['support']}" in text
    assert "By type" not in text_of(of_a_task("regression"))


@pytest.mark.parametrize(
    ("task", "pipeline", "metrics", "kind"),
    [
        (TOKEN, TOKEN, ["f1", "precision"], "a token classifier for 4 tags (B-人, B-place, I-人, O), distilled"),
        ("question-answering", "question-answering", ["f1", "exact_match"], "a model that finds the answer to a"),
        ("regression", "text-classification", ["pearsonr", "spearmanr"], "a model that gives texts a score, distilled"),
        ("multi-label-classification", "text-classification", ["f1"], "a text classifier for 3 labels, of which"),
        ("relation-classification", "text-classification", ["f1", "accuracy"], "a classifier of the relation between"),
    ],
)
def test_the_card_says_what_the_model_is(
    of_a_task: Made, task: str, pipeline: str, metrics: list[str], kind: str
) -> None:
    evidence = of_a_task(task)
    told = card.render(evidence, "")
    found: dict[str, Any] = head(told)
    assert (found["pipeline_tag"], found["metrics"]) == (pipeline, metrics)
    assert found["tags"][:2] == ([pipeline, task] if pipeline != task else [task, "distillation"])
    (index,) = found["model-index"]
    headline, scores = TASKS[task].headline, evidence.models["lora"]
    assert index["results"][0]["metrics"][0]["value"] == pytest.approx(scores[headline.key], abs=1e-6)
    assert kind in told
    assert f"| model | {headline.name} | parameters |" in told
    low, high = (100 * end for end in scores[f"{headline.key}_ci"])
    assert f"| all rows | 60 | {100 * scores[headline.key]:.1f} ({low:.1f} to {high:.1f}) |" in told
    assert ("expected calibration error" in told) == TASKS[task].classes_per_row
    assert ("By type" in told) == (task == TOKEN)
