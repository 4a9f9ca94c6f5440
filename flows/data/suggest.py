"""Writes what params.yaml needs for files that were added to data/: a section, and single keys of others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from components.validate.formats import column_names
from components.validate.reading import shards

# Words in a file's name, and names of columns, that tell what it holds; the first that is found counts.
SPLITS = {
    "train": {"train", "training"},
    "validation": {"validation", "valid", "val", "dev", "eval"},
    "test": {"test", "testing", "heldout"},
    "unlabelled": {"unlabelled", "unlabeled", "pool"},
}
COLUMNS = {
    "text": ("text", "sentence", "content", "body", "review", "message", "文本", "内容"),
    "label": ("label", "sentiment", "class", "category", "target", "标签", "类别"),
    "group": ("group", "domain", "source", "领域"),
    "document": ("document", "document_id", "doc_id", "doc", "文档"),
}


def suggest_section(paths: Sequence[Path], unlabelled: Path | None = None) -> str:
    """The ``data:`` section for files in data/, with the roles that their names and columns suggest.

    A file without a role by its name is the training one. After it stand the keys of other sections that the
    files call for: a model folder as ``teacher.base``, and a fine-tune that names no group of other data.

    Raises:
        UserError: a file can't be read, or there is none.
    """
    models = [path for path in paths if (path / "config.json").exists()]
    splits = _splits([path for path in paths if path not in models], unlabelled)
    found = column_names(shards(splits["train"])[0]) if "train" in splits else []
    columns = _columns(found)
    lines = [f"  {name}: {_file(splits.get(name))}" for name in SPLITS]
    pairs = ", ".join(f"{role}: {_plain(column)}" for role, column in columns.items())
    lines.append(f"  columns: {{{pairs}}}  # found: {', '.join(map(_plain, found))}")
    section = ["data:", *lines, "  labels: null", "  max_length: 128", ""]
    return "\n".join([*section, *_other_sections(models, columns["group"])])


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


def _columns(found: Sequence[str]) -> dict[str, str | None]:
    """Role -> column; text and label are guessed by place where no name tells."""
    by_name = {name.strip().lower(): name for name in found}
    columns = {
        role: next((by_name[word] for word in words if word in by_name), None) for role, words in COLUMNS.items()
    }
    free = [name for name in found if name not in columns.values()]
    for role in ("text", "label"):
        if columns[role] is None and free:
            columns[role] = free.pop(0)
    return columns


def _file(path: Path | None) -> str:
    return _plain(None if path is None else f"data/{path.name}")


def _plain(value: str | None) -> str:
    """A YAML scalar, quoted unless it is plainly a word or path."""
    if value is None:
        return "null"
    safe = re.fullmatch(r"[^\W\d][\w./-]*", value) and value.lower() not in ("null", "true", "false", "yes", "no")
    return value if safe else json.dumps(value, ensure_ascii=False)
