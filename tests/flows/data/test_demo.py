"""The demonstration data: cleaning, labels, splits and the files, from small wheels."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from components.text import normalise
from flows.data import demo

Wheels = dict[str, Path]


@pytest.fixture
def built(wheels: Wheels, tmp_path: Path) -> dict[str, list[dict[str, Any]]]:
    """The rows of each file."""
    demo.build(tmp_path / "data")
    return {
        name: [json.loads(line) for line in (tmp_path / "data" / f"{name}.jsonl").read_text("utf-8").splitlines()]
        for name in ("train", "validation", "test", "unlabelled")
    }


def labelled(built: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    return [row for name in ("train", "validation", "test") for row in built[name]]


def test_entities_escaped_twice_and_white_space_are_cleaned() -> None:
    assert demo.clean(" loud &amp;#38; clear \t &lt;3 ") == "loud & clear <3"


def test_label_is_the_sign_of_a_clear_score(built: dict[str, Any]) -> None:
    labels = {row["text"]: row["label"] for row in labelled(built)}
    assert labels["Exactly half a point."] == "positive"
    assert labels["Not good, no tab here"] == "negative"
    assert labels["It plays DVDs well & loud."] == "positive"
    assert "It is a player." not in labels


def test_rows_without_letters_or_digits_are_left_out(built: dict[str, Any]) -> None:
    assert all(normalise(row["text"]) for rows in built.values() for row in rows)


def test_of_rows_with_one_text_the_first_is_kept_whatever_their_labels(built: dict[str, Any]) -> None:
    assert [row["label"] for row in labelled(built) if normalise(row["text"]) == "itbroke"] == ["negative"]


def test_no_text_is_met_twice_in_all_the_files(built: dict[str, Any]) -> None:
    keys = Counter(normalise(row["text"]) for rows in built.values() for row in rows)
    assert max(keys.values()) == 1


def test_no_document_is_in_two_splits(built: dict[str, Any]) -> None:
    documents = [{row["document"] for row in built[name]} for name in ("train", "validation", "test")]
    assert not documents[0] & documents[1]
    assert not documents[0] & documents[2]
    assert not documents[1] & documents[2]


def test_the_pool_is_unclear_rows_of_training_documents_without_a_label(built: dict[str, Any]) -> None:
    train = {row["document"] for row in built["train"]}
    assert built["unlabelled"]
    for row in built["unlabelled"]:
        assert set(row) == {"text", "group", "document"}
        assert row["document"] in train


def test_documents_are_dealt_out_by_rows_within_each_group(built: dict[str, Any]) -> None:
    counts = {name: sum(row["group"] == "editorials" for row in built[name]) for name in built}
    assert (counts["test"], counts["validation"], counts["train"]) == (8, 4, 28)


def test_near_identical_tweets_are_one_document(built: dict[str, Any]) -> None:
    tweets = {row["text"]: row["document"] for row in labelled(built) if row["group"] == "tweets"}
    love = [document for text, document in tweets.items() if "this feeling" in text]
    assert len(love) == 2
    assert len(set(love)) == 1
    gross = [document for text, document in tweets.items() if text.lower().startswith("gross")]
    assert len(gross) == 2
    assert len(set(gross)) == 1
    assert len(set(tweets.values())) == 3


def test_chinese_text_is_written_as_it_is(built: dict[str, Any], tmp_path: Path) -> None:
    everything = "".join((tmp_path / "data" / f"{name}.jsonl").read_text("utf-8") for name in built)
    assert "很好，我喜欢" in everything


def test_two_builds_are_the_same_bytes(wheels: Wheels, tmp_path: Path) -> None:
    contents = []
    for name in ("one", "two"):
        demo.build(tmp_path / name)
        files = sorted(path for path in (tmp_path / name).rglob("*") if path.is_file())
        contents.append([(path.relative_to(tmp_path / name), path.read_bytes()) for path in files])
    assert contents[0] == contents[1]


def test_the_base_model_is_what_transformers_needs(wheels: Wheels, tmp_path: Path) -> None:
    counts = demo.build(tmp_path / "data")
    assert {path.name for path in (tmp_path / "data" / "base_model").iterdir()} == set(demo.MODEL_FILES)
    readme = (tmp_path / "data" / "README.md").read_text("utf-8")
    assert "Hutto" in readme
    assert "Apache-2.0" in readme
    assert f"`train.jsonl`: {counts['train']:,} rows" in readme
