"""What `stillhouse data diff` says of two versions, against rows that were changed on purpose and by chance."""

from __future__ import annotations

import csv
import io
import json
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from components.errors import UserError
from flows.data.diff.report import diff
from flows.data.diff.terminal import plain, show

Toy = Any
Row = tuple[str | None, str | None, str, str]  # text, label, group, document
FIELDS = ("text", "label", "group", "document")
SECTION = """\
data:
  train: data/train.jsonl
  test: data/test.jsonl
  unlabelled: data/pool.jsonl
  columns: {text: text, label: label, group: group, document: document}
"""
TRAIN: list[Row] = [(f"Text number {index}", "ab"[index % 2], "g", f"d{index // 2}") for index in range(10)]
TEST: list[Row] = [(f"Held out {index}", "ab"[index % 2], "g", f"t{index}") for index in range(4)]
POOL: list[Row] = [(f"Pool {index}", None, "g", f"p{index}") for index in range(3)]
KINDS = ("unchanged", "added", "removed", "relabelled", "regrouped", "moved_in", "moved_out")


def write(toy: Toy, **splits: list[Row]) -> None:
    """Write the splits into data/ as JSON lines."""
    for name, rows in splits.items():
        lines = [json.dumps(dict(zip(FIELDS, row, strict=True)), ensure_ascii=False) for row in rows]
        path = toy.workspace.data / f"{name}.jsonl"
        path.unlink(missing_ok=True)
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def commit(toy: Toy, name: str) -> None:
    """Version data/ and tag the commit."""
    toy.workspace.add_data()
    toy.git("add", "--all")
    toy.git("commit", "--quiet", "--allow-empty", "-m", name)
    toy.git("tag", name)


@pytest.fixture
def project(toy: Toy) -> Toy:
    """Three splits, committed as `first`."""
    (toy.workspace.data / "rows.csv").unlink()
    (toy.root / "params.yaml").write_text(SECTION, encoding="utf-8")
    (toy.workspace.data / "model").mkdir()
    (toy.workspace.data / "model" / "weights").write_text("1")
    write(toy, train=TRAIN, test=TEST, pool=POOL)
    commit(toy, "first")
    return toy


def counts(found: dict[str, Any], split: str = "train") -> dict[str, int]:
    """The counts of a split that aren't 0."""
    return {kind: found["splits"][split][kind] for kind in KINDS if found["splits"][split][kind]}


def test_every_kind_of_change_is_counted_and_shown(project: Toy) -> None:
    changed: list[Row] = [
        ("text NUMBER 0!", "a", "g", "d0"),  # written otherwise: unchanged
        ("Text number 1", "a", "g", "d0"),  # relabelled
        ("Text number 2", "a", "other", "d1"),  # regrouped
        ("Text number 3", "a", "g", "d9"),  # both: relabelled
        *TRAIN[4:8],
        TRAIN[4],  # a second copy: added
        TEST[0],  # a leak: moved
        ("Pool 0", "b", "g", "p0"),  # the pool's first row got a label: moved
        ("Ganz neu\x1b[31m", "c", "g", "n"),  # added
    ]  # and rows 8 and 9 removed
    write(project, train=changed, test=TEST[1:], pool=POOL[1:])
    found = diff(project.workspace)
    assert counts(found) == {
        "unchanged": 5, "added": 2, "removed": 2, "relabelled": 2, "regrouped": 1, "moved_in": 2,
    }  # fmt: skip
    assert counts(found, "test") == {"unchanged": 3, "moved_out": 1}
    assert counts(found, "unlabelled") == {"unchanged": 2, "moved_out": 1}
    assert found["moved"] == [
        {"from": "test", "to": "train", "rows": 1, "with_another_label": 0},
        {"from": "unlabelled", "to": "train", "rows": 1, "with_another_label": 1},
    ]
    assert found["relabelled"] == [{"split": "train", "from": "b", "to": "a", "rows": 2}]
    assert [row["text"] for row in found["examples"]["added"]] == ["Text number 4", "Ganz neu\x1b[31m"]
    assert [row["row"] for row in found["examples"]["removed"]] == [8, 9]
    assert found["splits"]["train"]["labels"]["values"]["c"] == {"from": 0, "to": 1}
    shown = printed(found)
    assert "Ganz neu\\x1b[31m" in shown
    assert "\x1b" not in shown
    assert "1 row moved from test to train: results on the test rows are no longer comparable" in shown


def printed(found: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=200)
    show(console, found)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


def test_a_version_differs_in_nothing_from_itself(project: Toy) -> None:
    for before, after in (("first", "first"), ("HEAD", "."), (".", project.workspace.data_hash())):
        found = diff(project.workspace, before, after)
        assert counts(found) == {"unchanged": 10}
        assert not any(found["files"].values())
        assert found["splits"]["train"]["labels"]["total_variation"] == 0
        assert found["splits"]["train"]["lengths"]["distance"] == 0
        assert "Nothing differs." in printed(found)


def test_data_is_not_touched_and_nothing_is_left_behind(project: Toy) -> None:
    write(project, train=TRAIN[:5])
    before = {path: path.read_bytes() for path in sorted(project.workspace.data.rglob("*")) if path.is_file()}
    diff(project.workspace)
    assert {path: path.read_bytes() for path in sorted(project.workspace.data.rglob("*")) if path.is_file()} == before
    assert not list(project.workspace.state.iterdir())


def expected(before: dict[str, list[Row]], after: dict[str, list[Row]]) -> dict[str, Counter[str]]:
    """The same counts by brute force: pairs are taken out one by one, the nearest likeness first."""
    likeness: list[tuple[str, Any]] = [
        ("unchanged", lambda split, row: (split, row)),
        ("relabelled", lambda split, row: (split, row[0], row[2:])),
        ("regrouped", lambda split, row: (split, row[0], row[1])),
        ("relabelled", lambda split, row: (split, row[0])),
        ("moved", lambda split, row: (row[0], row[1])),
        ("moved", lambda split, row: row[0]),
    ]
    old = [(split, row) for split, rows in before.items() for row in rows]
    new = [(split, row) for split, rows in after.items() for row in rows]
    found: dict[str, Counter[str]] = {split: Counter() for split in before}
    for kind, key in likeness:
        waiting: dict[Any, list[tuple[str, Row]]] = {}
        for item in sorted(old, key=repr):
            waiting.setdefault(key(*item), []).append(item)
        for item in sorted(new, key=repr):
            if partners := waiting.get(key(*item)):
                partner = partners.pop(0)
                old.remove(partner)
                new.remove(item)
                found[item[0]]["moved_in" if kind == "moved" else kind] += 1
                if kind == "moved":
                    found[partner[0]]["moved_out"] += 1
    for split, _ in old:
        found[split]["removed"] += 1
    for split, _ in new:
        found[split]["added"] += 1
    return found


@pytest.mark.parametrize("seed", range(4))
def test_counts_are_those_of_brute_force_and_the_mirror_image_the_other_way_round(project: Toy, seed: int) -> None:
    draw = random.Random(seed)

    def some(count: int) -> list[Row]:
        return [(draw.choice("uvwxyz"), draw.choice(["a", "b", None]), draw.choice("gh"), draw.choice("de"))
                for _ in range(count)]  # fmt: skip

    def version() -> dict[str, list[Row]]:
        return {"train": some(60), "test": some(20)}

    before, after = version(), version()
    after["train"] += before["train"][:20]
    write(project, **before)
    commit(project, "before")
    write(project, **after)
    commit(project, "after")
    there, back = diff(project.workspace, "before", "after"), diff(project.workspace, "after", "before")
    wanted = expected(before, after)
    mirrored = {"added": "removed", "removed": "added", "moved_in": "moved_out", "moved_out": "moved_in"}
    for split in ("train", "test"):
        about = there["splits"][split]
        assert counts(there, split) == {kind: wanted[split][kind] for kind in KINDS if wanted[split][kind]}
        assert {mirrored.get(kind, kind): rows for kind, rows in counts(back, split).items()} == counts(there, split)
        kept = about["unchanged"] + about["relabelled"] + about["regrouped"]
        assert about["rows"]["from"] == kept + about["removed"] + about["moved_out"] == len(before[split])
        assert about["rows"]["to"] == kept + about["added"] + about["moved_in"] == len(after[split])
        assert back["splits"][split]["labels"]["total_variation"] == about["labels"]["total_variation"]


def test_the_shift_of_labels_and_lengths_is_measured(project: Toy) -> None:
    write(project, train=[("x" * length, "a" if length <= 75 else "b", "g", str(length)) for length in range(1, 101)])
    commit(project, "before")
    write(project, train=[("x" * length, "a" if length <= 75 else "c", "g", str(length)) for length in range(51, 151)])
    about = diff(project.workspace)["splits"]["train"]
    assert about["labels"]["total_variation"] == pytest.approx(0.75)
    assert about["labels"]["values"] == {
        "c": {"from": 0, "to": 75}, "a": {"from": 75, "to": 25}, "b": {"from": 25, "to": 0},
    }  # fmt: skip
    assert about["labels"]["says"] == "large"
    assert about["lengths"]["from"] == {
        "quantiles": {"0.05": 5, "0.25": 25, "0.5": 50, "0.75": 75, "0.95": 95}, "mean": 50.5, "max": 100,
    }  # fmt: skip
    assert about["lengths"]["distance"] == pytest.approx(0.5)


def test_formats_and_columns_may_differ_between_the_versions(project: Toy) -> None:
    rows = [dict(zip(("Satz", "Urteil"), row[:2], strict=True)) for row in TRAIN[:-1]]
    folder = project.workspace.data / "teile"
    folder.mkdir()
    pq.write_table(pa.Table.from_pylist(rows[:4]), folder / "a.parquet")
    pq.write_table(pa.Table.from_pylist(rows[4:]), folder / "b.parquet")
    with (project.workspace.data / "test.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("Satz", "Urteil"), *(row[:2] for row in TEST)])
    (project.root / "params.yaml").write_text(
        "data: {train: data/teile, test: data/test.csv, columns: {text: Satz, label: Urteil}}", encoding="utf-8"
    )
    found = diff(project.workspace)
    assert counts(found) == {"unchanged": 9, "removed": 1}
    assert counts(found, "test") == {"unchanged": 4}
    assert counts(found, "unlabelled") == {"removed": 3}
    assert found["notes"] == [
        "only one of the two has a column of groups: rows are compared without it",
        "only one of the two has a column of documents: rows are compared without it",
    ]


def test_files_that_are_no_rows_are_listed_by_name(project: Toy) -> None:
    model = project.workspace.data / "model"
    (model / "weights").unlink()
    (model / "weights").write_text("2")
    (model / "config").write_text("{}")
    assert diff(project.workspace)["files"] == {"added": ["model/config"], "changed": ["model/weights"], "removed": []}


def test_a_version_comes_from_the_remote_when_the_cache_lacks_it(project: Toy, tmp_path: Path) -> None:
    hashed = project.workspace.data_hash()
    with project.repo() as repo:
        with repo.config.edit() as config:
            config["remote"]["store"] = {"url": str(tmp_path / "store")}
            config["core"]["remote"] = "store"
        repo.push()
    write(project, train=TRAIN[1:])
    shutil.rmtree(project.root / ".dvc/cache/files")
    found = diff(project.workspace, hashed)
    assert counts(found) == {"unchanged": 9, "removed": 1}
    assert found["from"] == {"name": hashed, "hash": hashed, "commit": None}
    kept = [path for path in (project.root / ".dvc/cache/files").rglob("*") if path.is_file()]
    assert len(kept) == 4  # the list and three splits: the model stays where it is


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ("nowhere", "There is no git revision 'nowhere'"),
        ("0" * 32, "can't be had: DVC's cache lacks it"),
        ("empty", "empty has no data.dvc"),
    ],
)
def test_what_is_no_version_is_refused(project: Toy, version: str, message: str) -> None:
    project.git("rm", "--quiet", "--cached", "data.dvc")
    project.git("commit", "--quiet", "-m", "empty")
    project.git("tag", "empty")
    with pytest.raises(UserError, match=message) as caught:
        diff(project.workspace, version)
    assert caught.value.remedy


def test_a_malformed_row_names_the_version_and_the_line(project: Toy) -> None:
    (project.workspace.data / "train.jsonl").unlink()
    (project.workspace.data / "train.jsonl").write_text('{"text": "a"}\n{"text\n')
    commit(project, "broken")
    write(project, train=TRAIN)
    with pytest.raises(UserError, match=r"broken:data/train\.jsonl, line 2: malformed JSON"):
        diff(project.workspace, "broken")


def test_a_split_that_a_version_lacks_counts_as_empty(project: Toy) -> None:
    (project.workspace.data / "test.jsonl").unlink()
    found = diff(project.workspace)
    assert counts(found, "test") == {"removed": 4}
    assert found["notes"] == [". has no data/test.jsonl: it counts as a test split without rows"]
    assert found["splits"]["test"]["lengths"]["to"] is None
    printed(found)


def test_texts_are_cut_and_harmless_on_a_terminal() -> None:
    assert plain("a\tb\x00\u202e" + "c" * 100, 20) == "a\\tb\\x00\\u202e" + "c" * 14 + "…"
    assert plain(None) == "(no text)"


def test_rows_of_any_task_are_compared_by_what_is_read_and_by_their_target(toy: Toy) -> None:
    path = toy.workspace.data / "train.conll"
    section = "data:\n  task: token-classification\n  train: data/train.conll\n"
    (toy.root / "params.yaml").write_text(section, encoding="utf-8")
    path.write_text("张三 B-PER\n在 O\n\nend O\n", encoding="utf-8")
    commit(toy, "words")
    path.unlink()
    path.write_text("张三 O\n在 O\n\nend O\n\nnew O\n", encoding="utf-8")
    found = diff(toy.workspace, "words")
    assert counts(found) == {"unchanged": 1, "added": 1, "relabelled": 1}
    assert found["relabelled"] == [{"split": "train", "from": "B-PER O", "to": "O O", "rows": 1}]
