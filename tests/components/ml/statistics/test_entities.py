"""Entities and their scores against seqeval's, and faults of tag sequences.

``seqeval.json`` holds what seqeval 1.2.2 computed in its default mode: ``get_entities`` (whose last tag counts as
inside) of random sequences in IOB1, IOB2, IOE2 and BIOES, of the same with random tags put in, and of sequences
written by hand; and ``precision_score``, ``recall_score`` and ``f1_score`` (micro and macro) of small sets of rows.
Tags of a row are joined by spaces.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.ml.statistics import entities as found

SEQEVAL: dict[str, Any] = json.loads(Path(__file__).with_name("seqeval.json").read_text(encoding="utf-8"))


def split(rows: list[str]) -> list[list[str]]:
    return [row.split() for row in rows]


def test_entities_are_seqevals() -> None:
    assert len(SEQEVAL["sequences"]) > 300
    for tags, expected in SEQEVAL["sequences"]:
        assert found.entities(tags.split()) == [(type_, first, last + 1) for type_, first, last in expected], tags


@pytest.mark.parametrize("corpus", SEQEVAL["corpora"])
def test_scores_are_seqevals(corpus: dict[str, Any]) -> None:
    actual, predicted = split(corpus["actual"]), split(corpus["predicted"])
    types = found.entity_types([tag for row in actual + predicted for tag in row])
    counts = found.entity_counts(actual, predicted, types)
    assert counts.shape == (len(actual), 3 * len(types))
    assert counts.dtype == np.int64
    scores = found.entity_scores(counts.sum(axis=0), len(types))
    assert {name: float(score) for name, score in scores.items()} == pytest.approx(corpus["scores"], abs=1e-12)


def test_types_that_occur_nowhere_change_no_score() -> None:
    corpus = SEQEVAL["corpora"][1]
    counts = found.entity_counts(split(corpus["actual"]), split(corpus["predicted"]), ["LOC", "MISC", "ORG-x", "PER"])
    scores = found.entity_scores(counts.sum(axis=0), 4)
    assert {name: float(score) for name, score in scores.items()} == pytest.approx(corpus["scores"], abs=1e-12)


def test_counts_are_hits_then_predicted_then_actual_by_type() -> None:
    actual = [["B-A", "I-A", "O", "B-B"], ["O"], ["B-B"]]
    predicted = [["B-A", "I-A", "O", "B-A"], ["B-B"], ["O"]]
    expected = [[1, 0, 2, 0, 1, 1], [0, 0, 0, 1, 0, 0], [0, 0, 0, 0, 0, 1]]
    assert found.entity_counts(actual, predicted, ["A", "B"]).tolist() == expected


def test_scores_take_many_sums_at_once() -> None:
    sums = np.random.default_rng(3).integers(0, 9, (5, 4, 6)) + np.repeat([0, 9, 9], 2)
    together = found.entity_scores(sums, 2)
    for place in np.ndindex(5, 4):
        alone = found.entity_scores(sums[place], 2)
        assert {name: score[place] for name, score in together.items()} == alone


def test_without_any_entity_scores_are_0() -> None:
    assert set(map(float, found.entity_scores(np.zeros(6, dtype=np.int64), 2).values())) == {0.0}
    nothing = found.entity_counts([["O"]], [["O"]], []).sum(axis=0)
    assert set(map(float, found.entity_scores(nothing, 0).values())) == {0.0}


def test_types_are_those_in_tag_names() -> None:
    assert found.entity_types(["O", "B-PER", "I-PER", "S-a-b", "E-LOC"]) == ["LOC", "PER", "a-b"]
    assert found.entity_types(["O"]) == []


@pytest.mark.parametrize(
    "tags",
    [
        "",
        "O O",
        "I-X I-X O I-Y",  # IOB1
        "I-X B-X I-X O I-Y I-X",
        "B-X I-X O B-Y B-Y",  # IOB2
        "B-X B-Y I-Y",
        "S-X B-X E-X B-Y I-Y E-Y O",  # BIOES
        "B-X E-X S-X",
        "B-X",
        "I-a-b I-a-b",
    ],
)
def test_sequences_of_a_known_scheme_have_no_fault(tags: str) -> None:
    assert found.sequence_fault(tags.split()) is None


@pytest.mark.parametrize(
    ("tags", "place", "why"),
    [
        ("O L-X", 1, "'L-X' is neither O nor B-, I-, E- or S- with a type"),
        ("O B", 1, "'B' is neither"),
        ("I-X I-", 1, "'I-' is neither"),
        ("O-X", 0, "'O-X' is neither"),
        ("PER", 0, "'PER' is neither"),
        ("S-X b-X", 1, "'b-X' is neither"),
        ("E-X", 0, "E-X at the start, which BIOES has only after B- or I- of its type"),
        ("O E-X", 1, "E-X directly after O"),
        ("B-Y E-X", 1, "E-X directly after B-Y"),
        ("S-X E-X", 1, "E-X directly after S-X"),
        ("S-X I-X E-X", 1, "I-X directly after S-X"),
        ("B-X I-X O I-X", 3, "I-X directly after O, which IOB2 has only after B- or I- of its type"),
        ("B-X I-Y", 1, "I-Y directly after B-X"),
        ("I-X O B-X", 2, "B-X directly after O, which IOB1 has only after I- or B- of its type"),
        ("I-X B-Y", 1, "B-Y directly after I-X"),
        ("B-X O S-Y", 0, "B-X with neither I- nor E- of its type after it"),
        ("S-Y B-X I-X B-X E-X", 2, "I-X with neither"),
        ("S-X O B-X", 2, "B-X at the end, where BIOES has E- or S-"),
        ("B-X E-X B-X I-X", 3, "I-X at the end"),
    ],
)
def test_faults_are_told_where_the_best_scheme_breaks(tags: str, place: int, why: str) -> None:
    fault = found.sequence_fault(tags.split())
    assert fault is not None
    assert fault[0] == place
    assert fault[1].startswith(why)
