"""Exact match and token F1 against values worked out by hand from SQuAD's published rules."""

from __future__ import annotations

import pytest

from components.ml.statistics import answers


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The  Eiffel\tTower!", "eiffel tower"),
        ("an apple, a pear and the plum", "apple pear and plum"),
        ("Theatre another", "theatre another"),  # articles are whole words
        ("U.S.A.", "usa"),
        ("A.", ""),  # punctuation goes first, then the article
        ("a-b", "ab"),  # a hyphen joins
        ("$1,000.50", "100050"),
        ("“Ünïcode” – naïve", "“ünïcode” – naïve"),  # only ASCII punctuation is stripped
        ("no\u00a0break", "no break"),
        ("L'École", "lécole"),
        ("the the", ""),
        ("", ""),
    ],
)
def test_normalised(text: str, expected: str) -> None:
    assert answers.normalised(text) == expected


@pytest.mark.parametrize(
    ("answer", "golds", "exact", "f1"),
    [
        ("The Eiffel Tower.", ["eiffel tower"], 1, 1),
        ("Eiffel", ["the Eiffel Tower"], 0, 2 / 3),  # precision 1, recall 1/2
        ("in the city of Paris France", ["Paris"], 0, 2 / 6),  # precision 1/5, recall 1
        ("Paris, France", ["Lyon", "France", "Paris in France"], 0, 4 / 5),  # 2/3 against the second
        ("Lyon", ["Paris", "Lyon"], 1, 1),
        ("Rome", ["Paris", "Lyon"], 0, 0),
        ("to be or not to be", ["to be to"], 0, 2 * 3 / 9),  # "to" twice and "be" once are shared
        ("be", ["be be be"], 0, 2 / 4),
        ("tower Eiffel", ["Eiffel tower"], 0, 1),
        ("CAFÉ", ["café"], 1, 1),
        ("cafe", ["café"], 0, 0),
        ("1,000", ["1000"], 1, 1),
        ("", ["Paris"], 0, 0),
        ("the", ["Paris"], 0, 0),
    ],
)
def test_answers_are_scored_against_the_best_gold(answer: str, golds: list[str], exact: float, f1: float) -> None:
    assert answers.exact_match(answer, golds) == exact
    assert answers.token_f1(answer, golds) == pytest.approx(f1, abs=1e-12)


@pytest.mark.parametrize("golds", [[], [""], ["the", "?!"]])
@pytest.mark.parametrize(("answer", "score"), [("", 1), ("The.", 1), (" ", 1), ("Paris", 0)])
def test_no_gold_wants_no_answer(golds: list[str], answer: str, score: float) -> None:
    assert answers.exact_match(answer, golds) == score
    assert answers.token_f1(answer, golds) == score


def test_golds_that_normalise_to_nothing_do_not_count_beside_others() -> None:
    assert answers.exact_match("", ["", "Paris"]) == 0
    assert answers.token_f1("the", ["the", "Paris"]) == 0
    assert answers.token_f1("Paris", ["the", "Paris"]) == 1
