"""The comparison of two data versions, as one mapping for machines; the terminal shows the same."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import duckdb
from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components.errors import UserError
from components.loader import load_params
from components.params.data import Data
from flows.data.changes import compare
from flows.data.diff import matching, shift
from flows.data.diff.reading import Side, opened
from flows.repo import data_versions
from flows.repo.data_versions import CHECKOUT, DataVersion
from flows.repo.workspace import Workspace

EXAMPLES = 3
MOST_PAIRS = 20
SHORT = 200  # characters of an example's text
SPLITS = ("train", "validation", "test", "unlabelled")


def diff(
    workspace: Workspace, before: str = "HEAD", after: str = CHECKOUT, *, examples: int = EXAMPLES
) -> dict[str, Any]:
    """Compare two versions of the data; nothing in data/ is touched.

    Args:
        workspace: whose versions they are.
        before: a git revision, the hash of a data version, or ``.`` for the checkout as it is.
        after: likewise.
        examples: how many rows of each kind are shown for each split.

    Returns:
        ``from`` and ``to`` (name, hash, commit), ``notes``, ``files`` that are no splits (added, changed, removed),
        ``splits`` by name (rows, unchanged, added, removed, relabelled, regrouped, moved_in, moved_out, labels,
        lengths), ``relabelled`` and ``moved`` (from, to and rows of each), ``examples`` by kind.

    Raises:
        UserError: a version can't be had or read, or no params.yaml says what its columns are.
    """
    versions = {"a": data_versions.find(workspace, before), "b": data_versions.find(workspace, after)}
    notes: list[str] = []
    sections = {name: _section(workspace, version, notes) for name, version in versions.items()}
    workspace.state.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="data-diff-", dir=workspace.state) as folder:
        sides = {
            name: _placed(workspace, version, sections[name], Path(folder) / name, notes)
            for name, version in versions.items()
        }
        return {
            "from": _named(versions["a"]),
            "to": _named(versions["b"]),
            "notes": notes,
            "files": _other_files(sides["a"], sides["b"]),
            **_compared(sides, Path(folder), examples, notes),
        }


def _section(workspace: Workspace, version: DataVersion, notes: list[str]) -> Data:
    """The section ``data`` that goes with a version; the checkout's own if the version has none that can be read."""
    path = workspace.root / "params.yaml"
    found = _parsed(version.params)
    if found is None and version.name != CHECKOUT:
        why = "comes without a params.yaml" if version.params is None else "has a params.yaml of another version"
        notes.append(f"{version.name} {why}: the checkout's names its files and columns")
        found = _parsed(path.read_text(encoding="utf-8") if path.exists() else None)
    return found or load_params(path).data


def _parsed(params: str | None) -> Data | None:
    try:
        return Data.model_validate(YAML(typ="safe", pure=True).load(params or "")["data"])
    except (YAMLError, ValidationError, KeyError, TypeError):
        return None


def _placed(workspace: Workspace, version: DataVersion, data: Data, root: Path, notes: list[str]) -> Side:
    """The version's tables under their names in ``root``; a split whose file isn't there is left out."""
    paths = {split: path.removeprefix("data/") for split, path in data.files.items()}
    there = [split for split, path in paths.items() if _files_at(version, path)]
    notes += [
        f"{version.name} has no {data.files[split]}: it counts as a {split} split without rows"
        for split in paths
        if split not in there
    ]
    data_versions.place(workspace, version, root / "data", [paths[split] for split in there])
    return Side(version, data, tuple(there), root)


def _files_at(version: DataVersion, path: str) -> list[str]:
    return [name for name in version.files if name == path or name.startswith(f"{path}/")]


def _named(version: DataVersion) -> dict[str, str | None]:
    return {"name": version.name, "hash": version.hash, "commit": version.commit}


def _other_files(a: Side, b: Side) -> dict[str, list[str]]:
    """The files that differ and hold no rows of a split, in either version."""
    tables = {
        name
        for side in (a, b)
        for split in side.splits
        for name in _files_at(side.version, side.data.files[split].removeprefix("data/"))
    }
    before, after = ({name: side.version.files[name] for name in side.version.files if name not in tables}
                     for side in (a, b))  # fmt: skip
    changes = compare(before, after)
    return {"added": changes.added, "changed": changes.changed, "removed": changes.removed}


def _compared(sides: Mapping[str, Side], scratch: Path, examples: int, notes: list[str]) -> dict[str, Any]:
    if not any(side.splits for side in sides.values()):
        named = " nor ".join(side.version.name for side in sides.values())
        raise UserError(
            f"Neither {named} holds a file that the section data of params.yaml names.",
            "Name the files of the data in that section; `stillhouse data add` shows what to write.",
            kind="data",
        )
    compared = [name for name in ("group", "document") if _in_both(sides, name, notes)]
    with opened(dict(sides), scratch) as database:
        matching.match(database, compared)
        return {
            "splits": {
                split: {
                    **counts,
                    "labels": shift.labels(database, split),
                    "lengths": shift.lengths(database, split),
                }
                for split, counts in matching.totals(database).items()
            },
            "relabelled": _records(database, _RELABELLED),
            "moved": _records(database, _MOVED),
            "examples": {kind: _records(database, query, examples) for kind, query in _EXAMPLES.items()},
        }


def _in_both(sides: Mapping[str, Side], column: str, notes: list[str]) -> bool:
    """Whether both versions have the column; one that only one of them has says nothing of a row."""
    named = [getattr(side.data.columns, column) for side in sides.values()]
    if None in named and any(named):
        notes.append(f"only one of the two has a column of {column}s: rows are compared without it")
    return None not in named


def _records(database: duckdb.DuckDBPyConnection, query: str, examples: int = MOST_PAIRS) -> list[dict[str, Any]]:
    found = database.execute(query, {"most": examples})
    names = [column[0] for column in found.description or []]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


_RELABELLED = """
    SELECT from_split AS split, from_label AS "from", to_label AS "to", sum(n)::BIGINT AS rows
    FROM pairs WHERE kind = 'relabelled' GROUP BY ALL ORDER BY rows DESC, from_split, from_label, to_label LIMIT $most
"""
_MOVED = """
    SELECT from_split AS "from", to_split AS "to", sum(n)::BIGINT AS rows,
           coalesce(sum(n) FILTER (from_label IS DISTINCT FROM to_label), 0)::BIGINT AS with_another_label
    FROM pairs WHERE kind = 'moved' GROUP BY ALL ORDER BY rows DESC, from_split, to_split LIMIT $most
"""
_TEXT = f"text[:{SHORT}] AS text"
_LEFT = """
    WITH chosen AS (SELECT split, row FROM left_{side}
                    QUALIFY row_number() OVER (PARTITION BY split ORDER BY row) <= $most)
    SELECT split, row, label, {text} FROM rows JOIN chosen USING (split, row) WHERE side = '{side}' ORDER BY split, row
"""
_PAIRED = """
    WITH chosen AS (SELECT * FROM pairs WHERE kind = '{kind}'
                    QUALIFY row_number() OVER (PARTITION BY from_split, to_split ORDER BY from_row, to_row) <= $most)
    SELECT from_split, to_split, from_row, to_row, from_label, to_label, {text}
    FROM rows JOIN chosen ON rows.split = to_split AND rows.row = to_row
    WHERE side = 'b' ORDER BY from_split, to_split, from_row, to_row
"""
_EXAMPLES = {
    "added": _LEFT.format(side="b", text=_TEXT),
    "removed": _LEFT.format(side="a", text=_TEXT),
    "relabelled": _PAIRED.format(kind="relabelled", text=_TEXT),
    "moved": _PAIRED.format(kind="moved", text=_TEXT),
}
