"""The user's files as rows of text, label, group and document; every fault of a file is one readable message."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from components.errors import UserError
from components.params import Data
from components.validate.formats import Record, column_names, kind_of, records

ROLES = ("text", "label", "group", "document")
BATCH_ROWS = 4096


@dataclass(frozen=True)
class Rows:
    """Some consecutive rows of a source: the first one's number and the values by role."""

    first: int
    values: dict[str, list[str | None]]


def check_files(data: Data, root: Path = Path()) -> None:
    """Check all that can be known from names, headers and first rows; reads no file to its end.

    Raises:
        UserError: a file that is missing, empty, of an unknown or mixed format, or lacks a column.
    """
    for source, name in data.files.items():
        paths = shards(root / name)
        for path in paths:
            _columns(path, source, data)
        if not any(next(records(path, []), None) is not None for path in paths):
            raise _no_rows(root / name, source)


def read_rows(data: Data, source: str, root: Path = Path()) -> Iterator[Rows]:
    """The rows of one source (``train``, ``validation``, ``test`` or ``unlabelled``) in batches, in order.

    Raises:
        UserError: whatever is wrong with a file; names the file and the line.
    """
    first = 0
    path = root / data.files[source]
    for batch in _batches(path, source, data):
        columns = zip(*batch, strict=True)
        yield Rows(first, {role: list(values) for role, values in zip(ROLES, columns, strict=True)})
        first += len(batch)
    if first == 0:
        raise _no_rows(path, source)


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


def _no_rows(path: Path, source: str) -> UserError:
    leave_out = "" if source == "train" else f", or set data.{source} to null"
    return UserError(f"{path} is empty: it holds no rows.", f"Give a file with rows{leave_out}.", "data")


def _batches(path: Path, source: str, data: Data) -> Iterator[list[Record]]:
    for shard in shards(path):
        found = records(shard, _columns(shard, source, data))
        while batch := list(itertools.islice(found, BATCH_ROWS)):
            yield batch


def _columns(path: Path, source: str, data: Data) -> list[str | None]:
    """The column of each role, checked to be there; None for a role that has none."""
    named: dict[str, str | None] = {role: getattr(data.columns, role) for role in ROLES}
    if source == "unlabelled":
        named["label"] = None
    found = column_names(path)
    for role, column in named.items():
        if column is None:
            continue
        if column not in found and (source != "unlabelled" or role == "text"):
            raise _missing_column(path, role, column, found)
        if found.count(column) > 1:
            raise UserError(f"{path} has {found.count(column)} columns '{column}'.", "Rename one of them.", "data")
    return list(named.values())


def _missing_column(path: Path, role: str, column: str, found: list[str]) -> UserError:
    near = difflib.get_close_matches(column.lower(), {name.lower(): name for name in found}, n=1, cutoff=0.5)
    guess = next((name for name in found if near and name.lower() == near[0]), None)
    listed = ", ".join(f"'{name}'" for name in found[:30])
    return UserError(
        f"{path} has no column '{column}' (data.columns.{role}); it has {listed or 'none'}."
        + (f" Did you mean '{guess}'?" if guess else ""),
        "Name the column in data.columns of params.yaml, or give the file that column.",
        "data",
    )
