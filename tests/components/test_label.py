"""The stage `label`: the same bytes with or without stored logits, teachers' means, judgements, calibration."""

from __future__ import annotations

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from components import label
from components.errors import UserError
from components.ml.models import scoring
from components.ml.models.scoring import load_classifier, predict_logits
from components.ml.statistics.metrics import softmax
from components.ml.teaching import teachers
from components.params.stages import Label, Runtime

LABELS = ["negative", "positive"]


def tuned(base: Path, folder: Path, seed: int, labels: list[str] = LABELS) -> Path:
    """A tiny classifier with a random head that is sure of itself."""
    torch.manual_seed(seed)
    names = {"id2label": dict(enumerate(labels)), "label2id": {name: index for index, name in enumerate(labels)}}
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(labels), **names)
    with torch.no_grad():
        model.classifier.weight.mul_(30)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(base).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def teacher(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tuned(tiny_encoder, tmp_path_factory.mktemp("teacher") / "model", 1)


@pytest.fixture(scope="module")
def other(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tuned(tiny_encoder, tmp_path_factory.mktemp("other") / "model", 2)


def run(splits: Path, teacher: Path, output: Path, store: Path, **changes: Any) -> Path:
    output.mkdir(parents=True)
    arguments = {
        **{name: splits / name for name in ("train", "unlabelled", "validation", "judgements")},
        "teacher": teacher,
        "folders": splits / "folders.json",
        "runtime": Runtime(threads=1),
        "max_length": 32,
        "models": {},
        "settings": Label(batch_size=16),
        "logit_store": store,
        "output": output,
    }
    label.run(**arguments | changes)
    return output


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def logits_of(output: Path, split: str = "unlabelled") -> dict[int, list[float] | None]:
    table = pq.read_table(output / split)
    return dict(zip(table["row"].to_pylist(), table["logits"].to_pylist(), strict=True))


def rewrite(splits: Path, target: Path, order: np.ndarray, shards: int) -> Path:
    """The same splits with the pool's rows in another order and in other shards."""
    shutil.copytree(splits, target)
    shutil.rmtree(target / "unlabelled")
    (target / "unlabelled").mkdir()
    rows = pq.read_table(splits / "unlabelled")
    for index, part in enumerate(np.array_split(order, shards)):
        pq.write_table(rows.take(part), target / "unlabelled" / f"part-{index:05}.parquet")
    return target


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that went through a teacher."""
    seen: list[str] = []

    def spy(model: Any, tokenizer: Any, texts: Iterator[tuple[Any, str]], **settings: Any) -> Any:
        def watched() -> Iterator[tuple[Any, str]]:
            for tag, text in texts:
                seen.append(text)
                yield tag, text

        return original(model, tokenizer, watched(), **settings)

    original = scoring.score
    monkeypatch.setattr(teachers, "score", spy)
    return seen


def test_rows_get_the_teachers_logits_and_calibrated_confidence(
    tiny_splits: Path, teacher: Path, tmp_path: Path
) -> None:
    output = run(tiny_splits, teacher, tmp_path / "label", tmp_path / "store")
    model, tokenizer = load_classifier(teacher)
    temperature = json.loads((output / "calibration.json").read_text())["temperature"]
    for split in ("train", "unlabelled"):
        rows, written = pq.read_table(tiny_splits / split), pq.read_table(output / split)
        assert written["row"].equals(rows["row"])
        expected = predict_logits(model, tokenizer, rows["text"].to_pylist(), max_length=32, batch_size=16)
        assert np.array(written["logits"].to_pylist(), dtype=np.float32).tobytes() == expected.tobytes()
        sure = softmax(expected / temperature).max(axis=1)
        assert np.allclose(written["confidence"], sure, atol=1e-6)
        assert written["confidence"].type == pa.float32()
    assert sorted(path.name for path in output.iterdir()) == ["calibration.json", "train", "unlabelled"]


def test_stored_logits_change_time_and_nothing_else(
    tiny_splits: Path, teacher: Path, tmp_path: Path, scored: list[str]
) -> None:
    first = run(tiny_splits, teacher, tmp_path / "first", tmp_path / "store")
    assert len(scored) == 120 + 30 + 24
    scored.clear()
    again = run(tiny_splits, teacher, tmp_path / "again", tmp_path / "store")
    assert not scored
    (path,) = (tmp_path / "store").glob("*.sqlite")
    with contextlib.closing(sqlite3.connect(path)) as table, table:
        table.execute("DELETE FROM logits WHERE hex(key) < '8'")
    half = run(tiny_splits, teacher, tmp_path / "half", tmp_path / "store")
    assert 20 < len(scored) < 150
    shutil.rmtree(tmp_path / "store")
    deleted = run(tiny_splits, teacher, tmp_path / "deleted", tmp_path / "store")
    (tmp_path / "file").write_text("nothing can be stored below a file")
    without = run(tiny_splits, teacher, tmp_path / "without", tmp_path / "file")
    assert contents(first) == contents(again) == contents(half) == contents(deleted) == contents(without)


def test_order_and_shards_of_the_rows_dont_matter(
    tiny_splits: Path, teacher: Path, tmp_path: Path, scored: list[str]
) -> None:
    first = run(tiny_splits, teacher, tmp_path / "first", tmp_path / "store")
    shuffled = rewrite(tiny_splits, tmp_path / "splits", np.random.default_rng(0).permutation(30), shards=3)
    scored.clear()
    kept = run(shuffled, teacher, tmp_path / "kept", tmp_path / "store")
    assert not scored
    anew = run(shuffled, teacher, tmp_path / "anew", tmp_path / "none")
    assert contents(kept) == contents(anew)
    assert logits_of(first) == logits_of(anew)
    assert len(list((anew / "unlabelled").iterdir())) == 3


def test_added_rows_cost_their_own_scoring_and_no_more(
    tiny_splits: Path, teacher: Path, tmp_path: Path, scored: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    run(rewrite(tiny_splits, tmp_path / "fewer", np.arange(27), 1), teacher, tmp_path / "first", tmp_path / "store")
    scored.clear()
    capsys.readouterr()
    more = run(tiny_splits, teacher, tmp_path / "more", tmp_path / "store")
    assert scored == pq.read_table(tiny_splits / "unlabelled")["text"].to_pylist()[27:]
    assert "teacher: 171 of 174 rows found in the store, 3 scored" in capsys.readouterr().out
    assert contents(more) == contents(run(tiny_splits, teacher, tmp_path / "anew", tmp_path / "none"))


@pytest.mark.parametrize("change", [{"max_length": 24}, {"settings": Label(batch_size=8)}, {"teacher": None}])
def test_what_changes_logits_begins_another_store(
    tiny_splits: Path, teacher: Path, other: Path, tmp_path: Path, scored: list[str], change: dict[str, Any]
) -> None:
    run(tiny_splits, teacher, tmp_path / "first", tmp_path / "store")
    scored.clear()
    if "teacher" in change:
        change = {"teacher": other}
    run(tiny_splits, output=tmp_path / "second", store=tmp_path / "store", **{"teacher": teacher} | change)
    assert len(scored) == 174
    assert len(list((tmp_path / "store").glob("*.sqlite"))) == 2


def test_a_crash_keeps_what_was_scored(
    tiny_splits: Path, teacher: Path, tmp_path: Path, scored: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = iter(range(3))
    monkeypatch.setattr(teachers._Progress, "add", lambda self, count: next(batches))
    with pytest.raises(StopIteration):
        run(tiny_splits, teacher, tmp_path / "crash", tmp_path / "store")
    monkeypatch.undo()
    spied: list[str] = []
    original = scoring.score
    monkeypatch.setattr(
        teachers, "score", lambda m, t, texts, **s: original(m, t, (spied.append(x[1]) or x for x in texts), **s)
    )
    run(tiny_splits, teacher, tmp_path / "again", tmp_path / "store")
    assert 0 < len(spied) < 174


def test_the_mean_of_teachers_is_weighted(tiny_splits: Path, teacher: Path, other: Path, tmp_path: Path) -> None:
    models = {"other": str(other)}
    alone = logits_of(run(tiny_splits, teacher, tmp_path / "one", tmp_path / "store"))
    settings = Label(batch_size=16, teachers={"other": 5.0})
    others = logits_of(
        run(tiny_splits, teacher, tmp_path / "two", tmp_path / "store", models=models, settings=settings)
    )
    means = []
    for index, weights in enumerate([{"teacher": 1.0, "other": 3.0}, {"other": 0.75, "teacher": 0.25}]):
        settings = Label(batch_size=16, teachers=weights)
        output = run(tiny_splits, teacher, tmp_path / f"{index}", tmp_path / "store", models=models, settings=settings)
        means.append(contents(output))
        for row, values in logits_of(output).items():
            assert values == pytest.approx(0.25 * np.array(alone[row]) + 0.75 * np.array(others[row]), abs=1e-5)
    assert means[0] == means[1]


def test_labels_in_another_order_are_put_right(tiny_splits: Path, teacher: Path, tmp_path: Path) -> None:
    turned = tmp_path / "turned"
    shutil.copytree(teacher, turned)
    config = json.loads((turned / "config.json").read_text())
    config |= {"id2label": {"0": "positive", "1": "negative"}, "label2id": {"positive": 0, "negative": 1}}
    (turned / "config.json").write_text(json.dumps(config))
    settings = Label(batch_size=16, teachers={"turned": 1.0})
    plain = logits_of(run(tiny_splits, teacher, tmp_path / "plain", tmp_path / "store"))
    models = {"turned": str(turned)}
    put_right = run(tiny_splits, teacher, tmp_path / "right", tmp_path / "store", models=models, settings=settings)
    assert logits_of(put_right) == {row: values[::-1] for row, values in plain.items() if values}


def test_teachers_of_other_labels_are_refused(
    tiny_splits: Path, tiny_encoder: Path, teacher: Path, tmp_path: Path
) -> None:
    models = {"stars": str(tuned(tiny_encoder, tmp_path / "stars", 1, ["one", "two", "three"]))}
    settings = Label(teachers={"teacher": 1.0, "stars": 1.0})
    with pytest.raises(UserError, match=r"stars.*\['one', 'two', 'three'\].*\['negative', 'positive'\]"):
        run(tiny_splits, teacher, tmp_path / "label", tmp_path / "store", models=models, settings=settings)


def test_logits_that_are_not_finite_are_refused(
    tiny_splits: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teachers, "score", lambda *_, **__: iter([([(0, b"key")], [np.array([[np.nan, 0.0]])])]))
    with pytest.raises(UserError, match="not finite"):
        run(tiny_splits, teacher, tmp_path / "label", tmp_path / "store")


def test_the_temperature_is_fitted_on_the_validation_rows(tiny_splits: Path, teacher: Path, tmp_path: Path) -> None:
    output = run(tiny_splits, teacher, tmp_path / "label", tmp_path / "store")
    found = json.loads((output / "calibration.json").read_text())
    assert found["nll_after"] <= found["nll_before"] + 1e-12
    assert found["rows"] == 24
    empty = rewrite(tiny_splits, tmp_path / "empty", np.arange(30), 1)
    nothing = pq.read_table(tiny_splits / "validation").slice(0, 0)
    pq.write_table(nothing, empty / "validation" / "part-00000.parquet")
    output = run(empty, teacher, tmp_path / "uncalibrated", tmp_path / "store")
    assert json.loads((output / "calibration.json").read_text())["temperature"] == 1.0


def judged(splits: Path, target: Path, counts: dict[str, int], extra: int = 1) -> Path:
    """Splits with judgements of the first texts of each split: 0.8 for the second class, 0.2 for the first."""
    shutil.copytree(splits, target)
    given = [text for name, n in counts.items() for text in pq.read_table(splits / name)["text"].to_pylist()[:n]]
    given += [f"nobody asked {index}" for index in range(extra)]
    probabilities = pa.array([[0.2, 0.8]] * (len(given) - 1) + [[0.0, 1.0]], pa.list_(pa.float64()))
    (target / "judgements").mkdir()
    pq.write_table(pa.table({"text": given[::-1], "probabilities": probabilities}), target / "judgements" / "p.parquet")
    return target


JUDGEMENTS = Label(source="judgements")


def test_judgements_become_logits_and_rows_without_one_stay_unknown(
    tiny_splits: Path, teacher: Path, tmp_path: Path, scored: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    splits = judged(tiny_splits, tmp_path / "splits", {"train": 100, "unlabelled": 20, "validation": 10})
    output = run(splits, teacher, tmp_path / "label", tmp_path / "store", settings=JUDGEMENTS)
    assert not scored
    assert not (tmp_path / "store").exists()
    pool = pq.read_table(output / "unlabelled")
    assert (
        pool["logits"].is_null().to_pylist() == pool["confidence"].is_null().to_pylist() == [False] * 20 + [True] * 10
    )
    assert pool["confidence"].to_pylist()[:20] == pytest.approx([0.8] * 20)
    found = np.array(pool["logits"].to_pylist()[:20])
    assert np.exp(found) == pytest.approx(np.tile([0.2, 0.8], (20, 1)))
    first = np.array(logits_of(output, "train")[0])  # was given 0 and 1
    assert np.exp(first) == pytest.approx([1e-6, 1 - 1e-6], rel=1e-3)
    said = capsys.readouterr().out
    assert "100 of 120 in train, 20 of 30 in unlabelled, 10 of 24 in validation" in said
    assert "temperature 1, as 10 validation rows were judged" in said
    assert json.loads((output / "calibration.json").read_text())["temperature"] == 1.0


def test_enough_judged_validation_rows_calibrate(
    tiny_splits: Path, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(label, "ENOUGH_JUDGEMENTS", 20)
    splits = judged(tiny_splits, tmp_path / "splits", {"unlabelled": 20, "validation": 22})
    output = run(splits, teacher, tmp_path / "label", tmp_path / "store", settings=JUDGEMENTS)
    calibration = json.loads((output / "calibration.json").read_text())
    assert calibration["rows"] == 22
    assert calibration["temperature"] != 1.0
    sure = pq.read_table(output / "unlabelled")["confidence"].to_pylist()
    assert sure[1] == pytest.approx(softmax(np.log([[0.2, 0.8]]) / calibration["temperature"]).max())


def test_judgements_of_other_texts_are_refused(tiny_splits: Path, teacher: Path, tmp_path: Path) -> None:
    splits = judged(tiny_splits, tmp_path / "splits", {"validation": 5})
    with pytest.raises(UserError, match="no text of the training rows and the pool was judged"):
        run(splits, teacher, tmp_path / "label", tmp_path / "store", settings=JUDGEMENTS)


def test_judgements_with_other_classes_are_refused(tiny_splits: Path, teacher: Path, tmp_path: Path) -> None:
    splits = judged(tiny_splits, tmp_path / "splits", {"train": 5})
    table = pa.table({"text": ["a"], "probabilities": pa.array([[0.2, 0.3, 0.5]])})
    pq.write_table(table, splits / "judgements" / "p.parquet")
    with pytest.raises(UserError, match="2 probabilities, one for each label; got 3"):
        run(splits, teacher, tmp_path / "label", tmp_path / "store", settings=JUDGEMENTS)


def test_an_empty_pool_is_no_trouble(tiny_splits: Path, teacher: Path, tmp_path: Path) -> None:
    splits = tmp_path / "splits"
    shutil.copytree(tiny_splits, splits)
    shutil.rmtree(splits / "unlabelled")
    (splits / "unlabelled").mkdir()
    output = run(splits, teacher, tmp_path / "label", tmp_path / "store")
    assert list((output / "unlabelled").iterdir()) == []
    assert len(logits_of(output, "train")) == 120
