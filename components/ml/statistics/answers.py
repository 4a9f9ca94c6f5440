"""Exact match and token F1 of short answers, by SQuAD's published rules.

Rajpurkar et al. 2016 (SQuAD 1.1), and Rajpurkar, Jia & Liang 2018 (SQuAD 2.0) for questions without an answer. Only
ASCII punctuation and English articles are stripped, as in the published script.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

_PUNCTUATION = str.maketrans("", "", string.punctuation)
_ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalised(text: str) -> str:
    """Lower case without punctuation and articles, one space between words."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())


def exact_match(answer: str, golds: Sequence[str]) -> float:
    """1.0 where the normalised answer equals one of the normalised golds, else 0.0.

    Golds that normalise to nothing don't count; where no other is left, "no answer" is right: 1.0 where the answer
    normalises to nothing.
    """
    return float(normalised(answer) in _targets(golds))


def token_f1(answer: str, golds: Sequence[str]) -> float:
    """The best F1 of the words shared with a gold, in [0, 1]; golds that normalise to nothing as in ``exact_match``."""
    words = normalised(answer).split()
    return max(_overlap(words, target.split()) for target in _targets(golds))


def _targets(golds: Sequence[str]) -> list[str]:
    """The normalised golds, at least one: "" stands for "no answer"."""
    return [target for target in map(normalised, golds) if target] or [""]


def _overlap(words: list[str], targets: list[str]) -> float:
    if not words or not targets:
        return float(words == targets)
    shared = (Counter(words) & Counter(targets)).total()
    return 2 * shared / (len(words) + len(targets))
