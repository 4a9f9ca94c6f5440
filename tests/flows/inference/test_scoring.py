"""Scoring files: every row in order, resumed to the same bytes, little memory, and mistakes told before anything."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.errors import UserError
from flows.inference import log, rows, scoring
from flows.inference.rows import Rows
from flows.inference.scoring import Model, Settings, score_file

LABELS = ["negative", "正面"]


class Scorer:
    """Logits that follow from a text alone; stops after ``most`` calls."""

    def __init__(self, most: int = 10**9) -> None:
        self.most, self.texts = most, 0

    def __call__(self, texts: Sequence[str]) -> tuple[list[str], np.ndarray]:
        if self.most == 0:
            raise KeyboardInterrupt
        self.most -= 1
        self.texts += len(texts)
        sizes = np.array([len(text) % 7 - 3 for text in texts], np.float32).reshape(-1, 1)
        return LABELS, np.concatenate([-sizes, sizes], axis=1)


def model(predict: Scorer | None = None, content: str = "abc") -> Model:
    return Model("小模型/3", content, LABELS, predict or Scorer())


def score(source: Rows, target: Path, scorer: Model | None = None, settings: Settings | None = None) -> list[int]:
    said: list[int] = []
    score_file(source, target, scorer or model(), settings or Settings(), lambda done, before: said.append(done))
    return said


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "AT_ONCE", 10)
    monkeypatch.setattr(scoring, "TABLES_IN_A_PART", 2)


@pytest.fixture
def source(tmp_path: Path) -> Rows:
    path = tmp_path / "in.parquet"
    texts = ["x" * (index * 5 % 11) for index in range(95)]
    pq.write_table(pa.table({"id": range(95), "text": texts, "label": ["?"] * 95}), path, row_group_size=33)
    return Rows(path, "text")


def test_every_row_is_there_in_order_with_its_own_columns(source: Rows, tmp_path: Path) -> None:
    said = score(source, tmp_path / "out.parquet", settings=Settings(probabilities=True))
    found = pq.read_table(tmp_path / "out.parquet")
    assert found.column_names[:5] == ["id", "text", "label", scoring.LABEL, scoring.SCORE]
    assert found.column_names[5:] == ["probability_negative", "probability_正面"]
    assert found["id"].to_pylist() == list(range(95))
    names = ("text", scoring.LABEL, scoring.SCORE, "probability_正面")
    for text, label, share, second in zip(*(found[name].to_pylist() for name in names), strict=True):
        assert second == pytest.approx(1 / (1 + np.exp(-2 * (len(text) % 7 - 3))))
        assert (label, share) == (LABELS[second > 0.5], pytest.approx(max(second, 1 - second)))
    assert said[-1] == 95
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.parquet", "out.parquet"]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
def test_other_formats_and_folders_of_shards_are_read(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    mark = "\t" if suffix == "tsv" else ","
    for shard in range(2):
        lines = [{"text": f"第 {shard}-{row}", "n": str(row)} for row in range(12)]
        if suffix == "jsonl":
            body = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        else:
            body = "".join(mark.join(line) + "\n" for line in [("text", "n"), *(line.values() for line in lines)])
        (folder / f"part-{shard}.{suffix}").write_text(body, encoding="utf-8")
    score(Rows(folder, "text"), tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    assert found["text"].to_pylist() == [f"第 {shard}-{row}" for shard in range(2) for row in range(12)]
    assert found["n"].to_pylist() == [str(row) for row in range(12)] * 2


def test_a_stopped_run_goes_on_and_ends_in_the_same_bytes_and_log(source: Rows, tmp_path: Path) -> None:
    score(source, tmp_path / "whole.parquet", settings=Settings(log=tmp_path / "first", id_column="id"))
    settings = Settings(log=tmp_path / "second", id_column="id")
    target, calls = tmp_path / "out.parquet", 0
    while not target.exists():
        scorer = Scorer(most=3)
        try:
            score(source, target, model(scorer), settings)
        except KeyboardInterrupt:
            assert not target.exists()
        calls += 1
    assert calls == 5
    assert scorer.texts < 95
    assert target.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    parts = [pq.read_table(path) for path in log.read(tmp_path / "second")]
    logged = pa.concat_tables(parts).sort_by([("at", "ascending")])
    assert sorted(map(int, logged["id"].to_pylist())) == list(range(95))
    assert set(logged["model"].to_pylist()) == {"小模型/3"}
    assert set(logged["content"].to_pylist()) == {"abc"}


@pytest.mark.parametrize(
    ("scorer", "settings"),
    [
        (Model("other/9", "abc", LABELS, Scorer()), Settings()),
        (model(content="other"), Settings()),
        (model(), Settings(log=Path("log"))),
        (model(), Settings(probabilities=True)),
    ],
    ids=["name", "content", "log", "columns"],
)
def test_a_run_of_another_kind_starts_anew(
    source: Rows, tmp_path: Path, scorer: Model, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        score(source, tmp_path / "out.parquet", model(Scorer(most=5)))
    score(source, tmp_path / "out.parquet", scorer, settings)
    assert isinstance(scorer.predict, Scorer)
    assert scorer.predict.texts == 95
    if settings.log:
        assert sum(pq.read_metadata(path).num_rows for path in log.read(settings.log)) == 95


def test_progress_is_told_after_every_table(source: Rows, tmp_path: Path) -> None:
    assert score(source, tmp_path / "out.parquet") == [*range(10, 95, 10), 95]


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        ({"text": ["a"], "n": [1]}, {"text": ["b"], "n": ["1"]}, r"n \(string\); expected n \(int64\)"),
        ({"text": ["a"], "n": [1]}, {"text": ["b"]}, r"other columns than 1\.parquet"),
        ({"text": ["a"], "n": [1]}, {"n": [1], "text": ["b"]}, r"n \(int64\), text \(string\); expected text"),
    ],
)
def test_shards_that_differ_are_refused_before_anything_is_scored(
    tmp_path: Path, first: dict[str, list[object]], second: dict[str, list[object]], words: str
) -> None:
    (tmp_path / "in").mkdir()
    for name, columns in {"1": first, "2": second}.items():
        pq.write_table(pa.table(columns), tmp_path / "in" / f"{name}.parquet")
    with pytest.raises(UserError, match=words):
        Rows(tmp_path / "in", "text")


def test_json_lines_may_leave_keys_out(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in/1.jsonl").write_text('{"text": "a"}\n')
    (tmp_path / "in/2.jsonl").write_text('{"n": 2, "text": "b"}\n')
    score(Rows(tmp_path / "in", "text"), tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    assert (found["text"].to_pylist(), found["n"].to_pylist()) == (["a", "b"], [None, "2"])


def test_an_empty_text_of_a_table_is_a_text(tmp_path: Path) -> None:
    (tmp_path / "in.csv").write_text('text,n\n"",1\nb,\n')
    score(Rows(tmp_path / "in.csv", "text"), tmp_path / "out.parquet")
    found = pq.read_table(tmp_path / "out.parquet")
    assert (found["text"].to_pylist(), found["n"].to_pylist()) == (["", "b"], ["1", None])


def test_damage_inside_a_file_is_told(source: Rows, tmp_path: Path) -> None:
    content = bytearray(source.path.read_bytes())
    content[4:400] = b"\xff" * 396
    source.path.write_bytes(content)
    with pytest.raises(UserError, match="is not a sound Parquet file"):
        score(Rows(source.path, "text"), tmp_path / "out.parquet")


def test_two_runs_do_not_write_the_same_file(source: Rows, tmp_path: Path) -> None:
    target = tmp_path / "out.parquet"

    def second(done: int, before: int) -> None:
        with pytest.raises(UserError, match="Another run scores"):
            score(source, target)

    assert score_file(source, target, model(), Settings(), second) == 95
    assert score(source, target)[-1] == 95


def test_parts_of_other_rows_or_another_model_are_not_taken(source: Rows, tmp_path: Path) -> None:
    target = tmp_path / "out.parquet"
    with pytest.raises(KeyboardInterrupt):
        score(source, target, model(Scorer(most=5)))
    again = Scorer()
    score(source, target, model(again, content="another"))
    assert again.texts == 95
    assert not list(tmp_path.glob(".out*"))


def test_nothing_is_logged_unless_asked_for(source: Rows, tmp_path: Path) -> None:
    score(source, tmp_path / "out.parquet")
    assert not (tmp_path / ".stillhouse").exists()


def test_mistakes_are_told_before_anything_is_written(source: Rows, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected a column 'txt' with the texts; it has id, text, label"):
        Rows(source.path, "txt")
    with pytest.raises(UserError, match="expected texts in the column 'id'; it holds int64"):
        score(Rows(source.path, "id"), tmp_path / "out.parquet")
    with pytest.raises(
        UserError, match="expected a column 'nr' of texts or numbers for the log's ids; such columns are id, text"
    ):
        score(source, tmp_path / "out.parquet", settings=Settings(log=tmp_path, id_column="nr"))
    pq.write_table(pa.table({"text": ["a"] * 14 + [None]}), tmp_path / "holes.parquet")
    with pytest.raises(UserError, match="row 15 has no text"):
        score(Rows(tmp_path / "holes.parquet", "text"), tmp_path / "out.parquet")
    pq.write_table(pa.table({"text": ["a"], "predicted_label": ["b"]}), tmp_path / "twice.parquet")
    with pytest.raises(UserError, match="columns that scoring adds: predicted_label"):
        score(Rows(tmp_path / "twice.parquet", "text"), tmp_path / "out.parquet")
    (tmp_path / "names.csv").write_text("text,text\na,b\n")
    with pytest.raises(UserError, match="the column 'text' twice"):
        Rows(tmp_path / "names.csv", "text")
    pq.write_table(pa.table({"text": ["a"], "tags": [["b"]]}), tmp_path / "lists.parquet")
    settings = Settings(log=tmp_path, id_column="tags")
    with pytest.raises(UserError, match="such columns are text"):
        score(Rows(tmp_path / "lists.parquet", "text"), tmp_path / "out.parquet", settings=settings)
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(UserError, match=r"text\.parquet"):
        Rows(tmp_path / "text.parquet", "text")
    assert not (tmp_path / "out.parquet").exists()
    there = tmp_path / "source.parquet"
    scoring.check_target(there, tmp_path / "new.parquet", overwrite=False)
    for target, words in {"in.parquet": "there already", "out.csv": "Parquet", "no/out.parquet": "not exist"}.items():
        with pytest.raises(UserError, match=words):
            scoring.check_target(there, tmp_path / target, overwrite=False)
    scoring.check_target(there, tmp_path / "in.parquet", overwrite=True)
    for scored in (tmp_path / "in.parquet", tmp_path):
        with pytest.raises(UserError, match="is what is scored, or would stand among it"):
            scoring.check_target(scored, tmp_path / "in.parquet", overwrite=True)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    pytest.importorskip("resource")
    code = (
        "import resource, sys; from pathlib import Path; import pyarrow.parquet as pq; "
        "from tests.flows.inference.test_scoring import model; from flows.inference.rows import Rows; "
        "from flows.inference.scoring import Settings, score_file; "
        "score_file(Rows(Path(sys.argv[1]), 'text'), Path(sys.argv[2]), model(), Settings(), lambda *_: None); "
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    peaks = []
    for size in (20_000, 400_000):
        path = tmp_path / f"{size}.parquet"
        texts = pa.array([f"{index:0200d}" for index in range(20_000)])
        with pq.ParquetWriter(path, pa.schema({"text": pa.string()})) as writer:
            for _ in range(size // 20_000):
                writer.write_table(pa.table({"text": texts}))
        command = [sys.executable, "-c", code, str(path), str(tmp_path / f"{size}.out.parquet")]
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3])}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout) / 1024)
    assert peaks[1] < peaks[0] + 80, peaks  # of 80 MB of texts


def test_pairs_are_scored_by_both_texts_and_logged_with_them(tmp_path: Path) -> None:
    path = tmp_path / "in.csv"
    path.write_text("a,b\nxx,yyy\n,y\n", encoding="utf-8")
    given: list[object] = []

    def predict(inputs: Sequence[object]) -> tuple[list[str], np.ndarray]:
        given.extend(inputs)
        return LABELS, np.zeros((len(inputs), 2), np.float32)

    paired = Model("pairs/1", "abc", LABELS, predict, paired=True)
    score(Rows(path, "a", "b"), tmp_path / "out.parquet", paired, Settings(log=tmp_path))
    assert given == [("xx", "yyy"), ("", "y")]
    (part,) = log.read(tmp_path)
    logged = pq.read_table(part)
    assert (logged["text"].to_pylist(), logged["text_pair"].to_pylist()) == (["xx", ""], ["yyy", "y"])


def test_a_model_gets_what_it_reads(source: Rows, tmp_path: Path) -> None:
    paired = Model("pairs/1", "abc", LABELS, Scorer(), paired=True)
    with pytest.raises(UserError, match="pairs/1 reads pairs of texts; got one text a row"):
        score(source, tmp_path / "out.parquet", paired)
    with pytest.raises(UserError, match="reads one text a row; got pairs"):
        score(Rows(source.path, "text", "label"), tmp_path / "out.parquet")
    with pytest.raises(UserError, match="got 'text' for both"):
        Rows(source.path, "text", "text")
    with pytest.raises(UserError, match="expected a column 'nothing'") as caught:
        Rows(source.path, "text", "nothing")
    assert "--pair NAME" in caught.value.remedy
