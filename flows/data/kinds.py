"""Which task the rows of a file are of, told by its format, its columns and what its first rows hold."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from components.ml.tasks.multi_label import MultiLabelClassification
from components.ml.tasks.question_answering import QuestionAnswering
from components.ml.tasks.regression import Regression
from components.ml.tasks.relation_classification import RelationClassification
from components.ml.tasks.token_classification import TokenClassification
from components.validate.formats import kind_of, values

LOOKED_AT = 1000
MANY = 20
"""A numeric target with more different values than this among the rows looked at is no class."""
STRAYS = 0.05
"""The share of a numeric target that may be no number: the gate tells of these rows."""
WORDS = ("tokens", "words")
TAGS = ("tags", "ner_tags", "ner", "pos_tags", "pos", "labels")
_MARKED = re.compile(r"<e1>.+</e1>|<e2>.+</e2>", re.DOTALL)
Columns = dict[str, str | None]


def annotated(path: Path, found: Sequence[str]) -> tuple[str, Columns] | None:
    """The task and the columns of its roles where format and names tell them: words with tags, or questions."""
    kind = kind_of(path)
    if kind == "CoNLL":
        return TokenClassification.name, {"tokens": "tokens", "tags": "tags"}
    if kind == "SQuAD JSON" or set(QuestionAnswering.columns) <= set(found):
        columns: Columns = dict(zip(QuestionAnswering.columns, QuestionAnswering.columns, strict=True))
        return QuestionAnswering.name, columns | ({"document": "title"} if "title" in found else {})
    words, tags = (_first_of_lists(path, found, names) for names in (WORDS, TAGS))
    return (TokenClassification.name, {"tokens": words, "tags": tags}) if words and tags else None


def labels_column(path: Path, found: Sequence[str]) -> str | None:
    """The column of several labels a row, if there is one."""
    return _first_of_lists(path, found, (MultiLabelClassification.target,))


def of_texts(path: Path, text: str | None, target: str | None) -> str | None:
    """The task of rows with a text and one target, where it isn't the class of a text."""
    if text and any(_MARKED.search(str(value)) for value in _column(path, text)):
        return RelationClassification.name
    if target is None:
        return None
    given = _column(path, target)
    numbers = {number for value in given if (number := _number(value)) is not None}
    strays = sum(_number(value) is None for value in given)
    return Regression.name if len(numbers) > MANY and strays <= STRAYS * len(given) else None


def _first_of_lists(path: Path, found: Sequence[str], names: Sequence[str]) -> str | None:
    """The first of the columns with one of the names, if it holds lists."""
    column = next((column for name in names for column in found if column.lower() == name), None)
    return column if column is not None and any(map(_is_list, _column(path, column))) else None


def _column(path: Path, column: str) -> list[Any]:
    """What the first rows have in a column, but for those that have nothing."""
    first = itertools.islice(values(path, [column]), LOOKED_AT)
    return [value for (value,) in first if value is not None]


def _is_list(value: Any) -> bool:
    if isinstance(value, str) and value.startswith("["):
        try:
            return isinstance(json.loads(value), list)
        except ValueError:
            return False
    return isinstance(value, list)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
