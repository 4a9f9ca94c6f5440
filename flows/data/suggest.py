"""Writes what params.yaml needs for files that were added to data/: a section, and single keys of others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path

from components.ml.models.folders import context_length
from components.ml.tasks.multi_label import MultiLabelClassification
from components.ml.tasks.regression import Regression
from components.ml.tasks.table import DEFAULT
from components.ml.tasks.task import Task
from components.params.columns import ABOUT
from components.validate.formats import column_names
from components.validate.reading import shards
from flows.data import kinds

MAX_LENGTH = 128
"""Tokens of a row that are read unless params.yaml says otherwise."""
# Words in a file's name, and names of columns, that tell what it holds; the first that is found counts.
SPLITS = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "val", "dev", "eval"},
    "test": {"test", "testing", "heldout"},
    "unlabelled": {"unlabelled", "unlabeled", "pool"},
}
# A name means what its last words say: review_text is a text, review_date and label_id are neither.
COLUMNS = {
    "text": (
        *("text", "sentence", "content", "body", "review", "comment", "message"),
        *("文本", "内容", "正文", "评论", "评语"),
    ),
    "label": (
        *("label", "sentiment", "class", "category", "target", "stars", "star", "rating", "score"),
        *("标签", "类别", "分类", "情感", "星级", "评级", "评分"),
    ),
    "group": ("group", "domain", "source", "领域", "来源"),
    "document": ("document", "document_id", "doc_id", "doc", "文档", "文档编号"),
}
# Columns whose texts belong together: the first text's, and the second's.
PAIRS = {
    "premise": "hypothesis",
    "sentence1": "sentence2",
    "question1": "question2",
    "text1": "text2",
    "text_a": "text_b",
    "sentence_a": "sentence_b",
    "text": "text_pair",
    "query": "passage",
}
# What only numbers the rows; a column without a name is the index that pandas writes.
IDS = ("id", "index", "idx", "row", "uuid", "unnamed", "编号", "序号", "行号", "")
_WORD = re.compile(r"[\u4e00-\u9fff]|[A-Z]+(?![a-z])|\d+|[A-Z]?[^\WA-Z\d_\u4e00-\u9fff]+")
_WITHIN, _AT_THE_END = 1, 2  # how a name fits a word, see _fit


def suggest_section(paths: Sequence[Path], unlabelled: Path | None = None) -> str:
    """The ``data:`` section for files in data/, with the task and the roles that names, columns and rows suggest.

    A file without a role by its name is the training one. After it stand the keys of other sections that the
    files call for: a model folder as ``teacher.base``, and a fine-tune that names no group of other data.
    A comment says which columns are guesses.

    Raises:
        UserError: a file can't be read, or there is none.
    """
    models = [path for path in paths if (path / "config.json").exists()]
    splits = _splits([path for path in paths if path not in models], unlabelled)
    task, found, columns, guessed = _read(splits.get("train"))
    lines = [f"  task: {task}", *(f"  {name}: {_file(splits.get(name))}" for name in SPLITS)]
    pairs = ", ".join(f"{role}: {_plain(column)}" for role, column in columns.items())
    doubt = f"guessed: check {' and '.join(guessed)}; " if guessed else ""
    lines.append(f"  columns: {{{pairs}}}  # {doubt}found: {', '.join(map(_plain, found))}")
    windows = "  windows: {stride: null, pooling: mean}"
    length = f"  max_length: {_max_length(models)}"
    section = ["data:", *lines, "  labels: null", length, windows, "  models: {}", ""]
    return "\n".join([*section, *_other_sections(models, columns["group"])])


def _read(train: Path | None) -> tuple[str, list[str], dict[str, str | None], list[str]]:
    """The task, the columns that are found, role -> column, and the roles whose column is a guess."""
    if train is None:
        return DEFAULT, [], *_columns([])
    shard = shards(train)[0]
    found = column_names(shard)
    if told := kinds.annotated(shard, found):
        task, given = told
        rest = _columns([name for name in found if name not in given.values()])[0]
        return task, found, {**given, **{role: rest[role] for role in ABOUT if role not in given}}, []
    labels = kinds.labels_column(shard, found)
    columns, guessed = _columns([name for name in found if name != labels])
    if labels:
        return _task(MultiLabelClassification, columns, guessed, found, labels)
    other = kinds.of_texts(shard, columns["text"], columns["label"])
    if other == Regression.name:
        return _task(Regression, columns, guessed, found, columns["label"])
    return other or DEFAULT, found, columns, guessed


def _task(
    task: type[Task], columns: dict[str, str | None], guessed: list[str], found: list[str], target: str | None
) -> tuple[str, list[str], dict[str, str | None], list[str]]:
    """As ``_read`` says it, with the target's column under the name of its role."""
    named = {task.target if role == "label" else role: column for role, column in columns.items()}
    return task.name, found, named | {task.target: target}, [role for role in guessed if role != "label"]


def _max_length(models: Sequence[Path]) -> int:
    """`MAX_LENGTH`, or what the base model can read at most."""
    limit = context_length(models[-1]) if models else None
    return min(MAX_LENGTH, limit or MAX_LENGTH)


def _other_sections(models: Sequence[Path], group: str | None) -> list[str]:
    """Lines that set single keys outside ``data``; the phase is the one that params.yaml comes with."""
    base = ["teacher:", f"  base: {_file(models[-1])}"] if models else []
    choice = f"or a value of the column {_plain(group)}" if group else "there is no column of groups"
    return [
        "# In the other sections, set these keys, and `on: all` in phases that name a group:",
        *base,
        "finetune:",
        f"  group: all  # {choice}",
        "  phases: {specific: {on: all}}",
        "",
    ]


def _splits(tables: Iterable[Path], unlabelled: Path | None) -> dict[str, Path]:
    """Split -> file; every file gets a place while there are any."""
    splits = {"unlabelled": unlabelled} if unlabelled else {}
    rest: list[Path] = []
    for path in tables:
        words = set(re.split(r"[^a-z]+", path.name.lower()))
        role = next((name for name, known in SPLITS.items() if words & known), None)
        if path == unlabelled:
            continue
        if role and role not in splits:
            splits[role] = path
        else:
            rest.append(path)
    for role, path in zip([name for name in SPLITS if name not in splits], rest, strict=False):
        splits[role] = path
    return splits


def _columns(found: Sequence[str]) -> tuple[dict[str, str | None], list[str]]:
    """Role -> column, and the roles whose column is a guess: of text and label, those that no name tells."""
    named = {name.lower().replace("_", ""): name for name in found}
    pairs = [(named.get(first.replace("_", "")), named.get(second.replace("_", ""))) for first, second in PAIRS.items()]
    first, second = next((pair for pair in pairs if None not in pair), (None, None))
    if first and second:
        columns, guessed = _columns([name for name in found if name not in (first, second)])
        rest = {role: column for role, column in columns.items() if role != "text"}
        return {"text": first, "text_pair": second, **rest}, [role for role in guessed if role != "text"]
    columns = {role: _best(found, role, _AT_THE_END) for role in COLUMNS}
    guessed = [role for role in ("text", "label") if columns[role] is None]
    for at_least, role in product((_WITHIN, 0), guessed):
        free = [name for name in found if name not in columns.values() and not _fit(name, IDS)[0]]
        columns[role] = columns[role] or _best(free, role, at_least)
    return columns, guessed


def _best(names: Sequence[str], role: str, at_least: int) -> str | None:
    """The first of the columns whose name fits the role best, if any fits well enough."""
    fits = {name: _fit(name, COLUMNS[role]) for name in names}
    return max((name for name in fits if fits[name][0] >= at_least), key=fits.__getitem__, default=None)


def _fit(name: str, known: Sequence[str]) -> tuple[int, int]:
    """3 if the name is a known word, 2 if it ends in one, 1 if one is within, else 0; then, earlier words first."""
    spaced = _spaced(name)
    words = [_spaced(word) for word in known]
    return max(((word == spaced) + spaced.endswith(word) + (word in spaced), -at) for at, word in enumerate(words))


def _spaced(name: str) -> str:
    """Its words in lower case with a space around each, so that ``context`` holds no ``text``.

    Each Chinese character is a word, since nothing marks where words end.
    """
    return f" {' '.join(_WORD.findall(name))} ".lower()


def _file(path: Path | None) -> str:
    return _plain(None if path is None else f"data/{path.name}")


def _plain(value: str | None) -> str:
    """A YAML scalar, quoted unless it is plainly a word or path."""
    if value is None:
        return "null"
    safe = re.fullmatch(r"[^\W\d][\w./-]*", value) and value.lower() not in ("null", "true", "false", "yes", "no")
    return value if safe else json.dumps(value, ensure_ascii=False)
