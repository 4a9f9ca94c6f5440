"""The gate for tasks whose rows have no one class: scored, decoded, compared by the headline, said in its words."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from components.loader import load_yaml
from components.ml.tasks.table import TASKS
from components.params.gate import Floors, Gate
from components.params.project import Params
from components.params.stages import Bootstrap
from flows.gating import evidence, gate
from flows.gating import report as reporting
from flows.gating.champion import score
from flows.gating.decision import BETTER, OTHER_LABELS, TIE
from flows.repo.workspace import Workspace
from tests.flows import of_tasks
from tests.flows.gating.conftest import SAMPLE, Registry

SETTINGS = Bootstrap(resamples=400)
TOKEN, QUESTIONS = "token-classification", "question-answering"


def read(task: str, tmp_path: Path, wrong: float, rows: int = 120) -> evidence.Predicted:
    inputs, targets = of_tasks.truth(task, rows)
    path = tmp_path / "lora.parquet"
    pq.write_table(of_tasks.table(task, targets, of_tasks.predicted(task, inputs, targets, wrong)), path)
    return evidence.read_predictions(path, TASKS[task], of_tasks.NAMES[task])


@pytest.mark.parametrize("task", list(of_tasks.NAMES))
def test_the_difference_of_headlines_has_a_paired_interval_over_documents(task: str, tmp_path: Path) -> None:
    new = read(task, tmp_path, 0.05)
    inputs, targets = of_tasks.truth(task, 120)
    old = of_tasks.predicted(task, inputs, targets, 0.5, seed=7)
    pair = evidence.compare(new, old, "all", SETTINGS)
    assert pair
    kind, names = TASKS[task], of_tasks.NAMES[task]
    sums = [kind.counts(targets, each, names).sum(axis=0) for each in (new.predictions, old)]
    first, second = (float(kind.scores(each, names)[kind.headline.key]) for each in sums)
    assert pair.difference == pytest.approx(first - second)
    assert new.accuracy == pytest.approx(first)
    assert 0 < pair.ci[0] < pair.difference < pair.ci[1]
    assert (pair.mcnemar is None) == (task == "regression")
    assert pair.differing
    assert pair.differing > 20
    assert set(pair.groups) == set(of_tasks.GROUPS)
    same = evidence.compare(new, new.predictions, "products", SETTINGS)
    assert same
    assert (same.difference, same.ci, same.differing, same.rows) == (0.0, (0.0, 0.0), 0, 60)


class Model:
    """A champion whose logits say what is asked of it; ``labels`` are in an order of its own."""

    def __init__(self, task: str, labels: Sequence[str], said: dict[Any, Any]) -> None:
        self.task, self.labels, self.said, self.asked = task, list(labels), said, 0
        self.tokenizer: Any = None

    def rows(self, inputs: Sequence[Any]) -> tuple[list[str], list[np.ndarray]]:
        self.asked += len(inputs)
        return self.labels, [self._logits(given) for given in inputs]

    def _logits(self, given: Any) -> np.ndarray:
        found = self.said[_key(given)]
        names = of_tasks.NAMES[self.task]
        if self.task == TOKEN:
            return of_tasks.one_hot([self.labels.index(names[tag]) for tag in found], len(names))
        # A question's context of words: the first position stands for no answer.
        words = given[1].split()
        place = 0 if not found["text"] else 1 + len(given[1][: found["start"]].split())
        return of_tasks.one_hot([0], len(words) + 1).T.repeat(2, axis=1) if not place else _at(place, len(words) + 1)


def _at(place: int, positions: int) -> np.ndarray:
    logits = np.zeros((positions, 2), dtype=np.float32)
    logits[place] = 4.0
    return logits


def _key(given: Any) -> Any:
    return tuple(given)


def model_of(task: str, inputs: Sequence[Any], found: Sequence[Any], labels: Sequence[str] | None = None) -> Model:
    said = {_key(given): one for given, one in zip(inputs, found, strict=True)}
    return Model(task, labels or of_tasks.NAMES[task], said)


def unlike(task: str, rows: int) -> tuple[list[Any], list[Any]]:
    """No two rows alike, so that a model can be told what to say of each."""
    inputs, targets = of_tasks.truth(task, 4 * rows)
    first = {_key(given): (given, target) for given, target in zip(inputs, targets, strict=True)}
    kept = list(first.values())[:rows]
    return [given for given, _ in kept], [target for _, target in kept]


def test_positions_are_kept_and_decoded_again_by_todays_labels(tmp_path: Path) -> None:
    inputs, targets = unlike(TOKEN, 40)
    (tmp_path / "test").mkdir()
    for part, chosen in enumerate((slice(0, 25), slice(25, 40))):
        rows = of_tasks.shard(inputs)[chosen]
        pq.write_table(rows, tmp_path / f"test/part-0000{part}.parquet")
    names = of_tasks.NAMES[TOKEN]
    champion = model_of(TOKEN, inputs, targets, names[::-1])

    def ask() -> Any:
        load = lambda: contextlib.nullcontext(champion.rows)  # noqa: E731
        place = tmp_path / "cache", ["champion"], tmp_path / "test", names
        return score(*place, load, lambda done, total: None, TASKS[TOKEN])

    first, again = ask(), ask()
    assert first.predictions == again.predictions == targets
    assert list(first.rows) == list(range(40))
    assert champion.asked == 40
    (kept,) = (tmp_path / "cache").glob("*.parquet")
    kept.write_bytes(kept.read_bytes()[:100])
    assert ask().predictions == targets


class Champions(Registry):
    """A registry whose champion is one model."""

    champion: Model

    @contextlib.contextmanager
    def loaded(self, version: Any) -> Iterator[Any]:
        yield self.champion


def project(root: Path, task: str, new: float, old: float, rows: int = 80) -> Champions:
    """A run whose student gets ``new`` of the rows wrong, beside a champion that gets ``old`` of them wrong."""
    inputs, targets = unlike(task, rows)
    found = of_tasks.predicted(task, inputs, targets, new)
    write(root / "artifacts/evaluate/predictions/lora.parquet", of_tasks.table(task, targets, found))
    write(root / "artifacts/validate/test/part-00000.parquet", of_tasks.shard(inputs))
    models = dict.fromkeys(of_tasks.MODELS, found)
    metrics = of_tasks.metrics(task, targets, models)
    write(root / "artifacts/evaluate/metrics.json", metrics)
    config = {"id2label": dict(enumerate(of_tasks.NAMES[task])), "model_type": "bert"}
    write(root / "artifacts/finetune/model/config.json", config)
    stages = ("teacher", "distill", "control", "finetune")
    outs = {name: {"outs": [{"path": f"artifacts/{name}", "md5": f"{name} b"}]} for name in stages}
    write(root / "dvc.lock", {"stages": outs})
    champions = Champions(root)
    champions.register("finetune a", 0)
    champions.aliases["champion"] = "1"
    champions.register("finetune b", 0)
    champions.champion = model_of(task, inputs, of_tasks.predicted(task, inputs, targets, old, seed=9))
    return champions


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, dict):
        path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    else:
        pq.write_table(content, path)


def judge(root: Path, champions: Any, **rules: Any) -> dict[str, Any]:
    params = Params.model_validate(load_yaml(SAMPLE))
    params = params.model_copy(update={"gate": Gate(**{"floors": Floors(), "group": "all", **rules})})
    return gate.judge(Workspace(root), params, champions, "this run", lambda done, total: None)


def test_a_better_tagger_is_promoted_by_its_entities(tmp_path: Path) -> None:
    champions = project(tmp_path, TOKEN, new=0.05, old=0.6)
    decision = judge(tmp_path, champions)
    assert (decision["outcome"], decision["promoted"]) == (BETTER, True)
    assert (decision["task"], decision["headline"]) == (TOKEN, "f1")
    assert {"f1", "teacher_f1"} <= set(decision["challenger"])
    told = decision["reasons"][0]
    name = TASKS[TOKEN].headline.name
    assert f"points of {name} on all rows, 95% interval +" in told
    assert "differing on " in told
    assert "of rows that are right as a whole, McNemar's p" in told
    assert f"It keeps 100.0% of the teacher's {name}; at least 95.0% is asked." in decision["reasons"]
    assert "promoted: version 2" in reporting.headline(decision)


def test_too_few_documents_that_differ_show_nothing_however_sure_the_interval_is(tmp_path: Path) -> None:
    champions = project(tmp_path, TOKEN, new=0.0, old=0.0)
    # The new model finds all; the champion misses the entities of rows of four documents.
    inputs, targets = unlike(TOKEN, 80)
    missed = [row for row in range(80) if row % 2 == 0 and any(tag != 3 for tag in targets[row])][:4]
    for row in missed:
        champions.champion.said[_key(inputs[row])] = [3] * len(targets[row])
    decision = judge(tmp_path, champions)
    assert decision["difference"] > 0
    assert (decision["outcome"], decision["differing"]) == (TIE, 4)


def test_a_tagger_is_not_compared_with_what_does_something_else(tmp_path: Path) -> None:
    champions = project(tmp_path, TOKEN, new=0.1, old=0.1)
    champions.decisions["1"] = {"promoted": True, "outcome": "first model", "task": "text-classification"}
    decision = judge(tmp_path, champions)
    assert decision["outcome"] == OTHER_LABELS
    assert "is a model for text-classification, the new one for token-classification" in decision["reasons"][0]


def test_answers_are_decoded_with_the_champions_own_tokenizer(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    champions = project(tmp_path, QUESTIONS, new=0.05, old=0.6)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    champions.champion.tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **special)
    decision = judge(tmp_path, champions)
    asked = champions.champion.asked
    champions.aliases["champion"] = "1"
    again = judge(tmp_path, champions, margin=0.01)  # from kept logits
    assert (again["difference"], champions.champion.asked) == (decision["difference"], asked)
    assert (decision["outcome"], decision["promoted"]) == (BETTER, True)
    assert f"points of {TASKS[QUESTIONS].headline.name} on all rows" in decision["reasons"][0]


@pytest.mark.parametrize("task", ["regression", "multi-label-classification"])
def test_rows_judged_as_a_whole_need_no_tokenizer(task: str, tmp_path: Path) -> None:
    champions: Any = project(tmp_path, task, new=0.05, old=0.6)
    said = champions.champion.said
    width = len(of_tasks.NAMES[task])

    def rows(inputs: Sequence[Any]) -> tuple[list[str], list[np.ndarray]]:
        found = [said[_key(given)] for given in inputs]
        if task == "regression":
            return ["score"], [np.array([[one]], dtype=np.float32) for one in found]
        names = of_tasks.NAMES[task]
        return names, [np.array([[4.0 if label in one else -4.0 for label in range(width)]]) for one in found]

    champions.champion.rows = rows
    decision = judge(tmp_path, champions)
    assert (decision["outcome"], decision["promoted"]) == (BETTER, True)
    if task == "regression":
        assert decision["mcnemar"] is None
        assert "no McNemar's test, as rows are only more or less right" in decision["reasons"][0]
