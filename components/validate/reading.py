"""The user's files as rows of named values; every fault of a file is one readable message."""

from __future__ import annotations

import difflib
import itertools
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from components.errors import UserError
from components.ml.models.folders import check_folder
from components.params.data import Data
from components.validate.formats import TEXT_ALONE, as_text, column_names, kind_of, records, values
from components.validate.tables import Table, split_table, tables

BATCH_ROWS = 4096


@dataclass(frozen=True)
class Rows:
    """Some consecutive rows of a source: the first one's number and the values by role."""

    first: int
    values: dict[str, list[Any]]


def check_files(data: Data, root: Path = Path()) -> None:
    """Check all that can be known from names, headers and first rows; reads no file to its end.

    Raises:
        UserError: a file that is missing, empty, of an unknown or mixed format, or lacks a column (kind data),
            or a folder of ``data.models`` that holds no model that fits (kind parameters).
    """
    for table in tables(data, root):
        paths = shards(table.path)
        for path in paths:
            _columns(path, table)
        if not any(next(records(path, []), None) is not None for path in paths):
            raise _no_rows(table)
    for name, folder in data.models.items():
        check_folder(root / folder, data.max_length, f"data.models.{name}")


def read_rows(data: Data, source: str, root: Path = Path()) -> Iterator[Rows]:
    """The rows of one source (``train``, ``validation``, ``test`` or ``unlabelled``) in batches, in order.

    Raises:
        UserError: whatever is wrong with a file; names the file and the line.
    """
    return read_values(split_table(data, source, root))


def read_values(table: Table) -> Iterator[Rows]:
    """The rows of a table in batches, in order: text, or what stands in the file for roles that ``kept`` names.

    Raises:
        UserError: whatever is wrong with a file; names the file and the line.
    """
    first = 0
    for shard in shards(table.path):
        found = values(shard, _columns(shard, table))
        text_alone = kind_of(shard) in TEXT_ALONE
        while batch := list(itertools.islice(found, BATCH_ROWS)):
            columns = zip(table.columns, zip(*batch, strict=True), strict=True)
            yield Rows(first, {role: list(_converted(role, each, table, text_alone)) for role, each in columns})
            first += len(batch)
    if first == 0:
        raise _no_rows(table)


def _converted(role: str, column: Iterable[Any], table: Table, text_alone: bool) -> Iterable[Any]:
    if role not in table.kept:
        return map(as_text, column)
    if not text_alone or role not in table.as_json:
        return column
    return (_from_json(("" if role in table.empty else None) if value is None else value) for value in column)


def _from_json(value: str | None) -> Any:
    """The list or mapping that a text may be, else the text."""
    if not value or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def shards(path: Path) -> list[Path]:
    """The files of a source in order: the file itself, or a folder's visible files by name.

    Raises:
        UserError: nothing is there, or the folder is empty or mixes formats.
    """
    if path.is_file():
        kind_of(path)
        return [path]
    if not path.is_dir():
        raise UserError(f"{path} does not exist; {_contents(path.parent)}", _NAMES_REMEDY, "data")
    found = sorted(shard for shard in path.iterdir() if shard.is_file() and shard.name[0] not in "._")
    if not found:
        raise UserError(f"The folder {path} holds no files.", _NAMES_REMEDY, "data")
    kinds = {kind_of(shard): shard.name for shard in found}
    if len(kinds) > 1:
        listed = " and ".join(f"{kind} ({name})" for kind, name in kinds.items())
        raise UserError(f"The folder {path} mixes formats: {listed}.", "Keep shards of one format.", "data")
    return found


_NAMES_REMEDY = "Name the files in the section data of params.yaml; `stillhouse data add` puts files there."


def _contents(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"{folder} holds {', '.join(names[:20])}{more}." if names else f"{folder} is empty or missing."


def _no_rows(table: Table) -> UserError:
    leave_out = "" if table.needed else f", or set {table.key} to null"
    return UserError(f"{table.path} is empty: it holds no rows.", f"Give a file with rows{leave_out}.", "data")


def _columns(path: Path, table: Table) -> list[str | None]:
    """The column of each role, checked to be there; None for a role that has none."""
    lists = [role for role in table.lists if table.columns.get(role) is not None]
    if lists and kind_of(path) in TEXT_ALONE:
        raise UserError(
            f"{path} ({table.key}) must hold lists of {' and '.join(lists)}, but a {kind_of(path)} file has no lists.",
            "Give JSON lines or Parquet.",
            "data",
        )
    found = column_names(path)
    for role, column in table.columns.items():
        if column is None:
            continue
        if column not in found and role not in table.optional:
            raise _missing_column(path, f"{table.columns_key}.{role}", column, found)
        if found.count(column) > 1:
            raise UserError(f"{path} has {found.count(column)} columns '{column}'.", "Rename one of them.", "data")
    return list(table.columns.values())


def _missing_column(path: Path, key: str, column: str, found: list[str]) -> UserError:
    near = difflib.get_close_matches(column.lower(), {name.lower(): name for name in found}, n=1, cutoff=0.5)
    guess = next((name for name in found if near and name.lower() == near[0]), None)
    listed = ", ".join(f"'{name}'" for name in found[:30])
    return UserError(
        f"{path} has no column '{column}' ({key}); it has {listed or 'none'}."
        + (f" Did you mean '{guess}'?" if guess else ""),
        f"Name the column in {key.rpartition('.')[0]} of params.yaml, or give the file that column.",
        "data",
    )
