"""The rows of a file or of a folder of shards, a few thousand at a time, in order."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import UserError
from components.ml.rows.inputs import PAIR, TEXT, TOKENS, Input
from components.ml.tasks import serving
from components.ml.tasks.table import DEFAULT, TASKS
from components.ml.tasks.task import Task
from components.validate.formats import TEXT_ALONE, as_text, column_names, kind_of, parquet, values
from components.validate.reading import shards

if TYPE_CHECKING:
    import pyarrow as pa

AT_ONCE = 4096


@dataclass(frozen=True)
class Rows:
    """What is to be scored: the files, the column that holds the texts and, of pairs, that of the second texts.

    A column that isn't named follows from the ``task``, once `read_by` has said it.

    Raises:
        UserError: a file is missing, damaged or of an unknown format, one lacks the column of the texts or has a column
            twice, or the files have different columns (``data``).
    """

    path: Path
    column: str | None
    pair: str | None = None
    task: Task = TASKS[DEFAULT]

    def __post_init__(self) -> None:
        if self.pair is not None and self.pair == self.column:
            raise UserError(
                f"Expected two columns for the texts of pairs; got '{self.column}' for both.",
                "Name the column of the second texts: `--pair NAME`.",
                "parameters",
            )
        there = self.columns
        for column, option in self.texts.items():
            if column not in there:
                raise UserError(
                    f"{self.path}: expected a column '{column}' with the texts; it has {', '.join(there[:10])}.",
                    f"Name the column of the texts: `{option} NAME`.",
                    "data",
                )

    def read_by(self, task: Task) -> Rows:
        """The same for a model of this task: columns that weren't named have the names that the task gives them.

        Raises:
            UserError: there is no such column (``data``).
        """
        usual = serving.usual_form(task)
        first = TEXT if usual == [TOKENS] and TOKENS not in self.columns else usual[0]
        second = usual[1] if len(usual) > 1 else None
        return dataclasses.replace(self, task=task, column=self.column or first, pair=self.pair or second)

    @property
    def texts(self) -> dict[str, str]:
        """The columns of texts, and the options that name them."""
        named = {self.column: "--column", self.pair: "--pair"}
        return {column: option for column, option in named.items() if column is not None}

    @cached_property
    def spans(self) -> list[str]:
        """The columns that say where a text's entities are, if the task has such and the rows have all of them."""
        roles = [role for role in self.task.optional if role in self.task.lists]
        return roles if set(roles) <= set(self.columns) else []

    @cached_property
    def worded(self) -> bool:
        """Whether the texts are given as lists of words."""

        if self.column is None or TOKENS not in self.task.columns:
            return False
        if kind_of(self.files[0]) == "Parquet":
            return bool(_is_list(_schema(self.files[0]).field(self.column).type))
        found = (row[0] for file in self.files for row in values(file, [self.column]))
        return isinstance(next((value for value in found if value is not None), None), list)

    def inputs(self, table: pa.Table) -> list[Input]:
        """What the model reads of each row.

        Raises:
            serving.Refused: a row isn't what the task reads.
        """
        columns = [table[column].to_pylist() for column in self.texts]
        if self.task.name == DEFAULT:
            return columns[0] if len(columns) == 1 else list(zip(*columns, strict=True))
        names = serving.usual_form(self.task, PAIR in self.task.optional and len(columns) > 1)
        spans = {role: [_span(value) for value in table[role].to_pylist()] for role in self.spans}
        return serving.read(self.task, dict(zip(names, columns, strict=True)) | spans)

    @cached_property
    def files(self) -> list[Path]:
        return shards(self.path)

    @cached_property
    def columns(self) -> list[str]:
        """All columns; JSON lines have those of all files, other files must agree."""
        if all(kind_of(file) == "JSON lines" for file in self.files):
            return list(dict.fromkeys(name for file in self.files for name in column_names(file)))
        first = _schema(self.files[0])
        for file in self.files[1:]:
            if (schema := _schema(file)) != first:
                raise UserError(
                    f"{file} has other columns than {self.files[0].name}: {_told(schema, first)}; expected "
                    f"{_told(first, schema)}.",
                    "Give the files the same columns of the same types in the same order, or score them one by one.",
                    "data",
                )
        return list(first.names)

    @cached_property
    def plain_columns(self) -> list[str]:
        """Those of them that hold texts or numbers, no lists and the like."""
        import pyarrow as pa

        if kind_of(self.files[0]) != "Parquet":
            return self.columns
        return [field.name for field in _schema(self.files[0]) if not pa.types.is_nested(field.type)]

    def identity(self) -> str:
        """A hash that is another when a file was changed: of the names, sizes and times of change."""
        told = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in self.files]
        return hashlib.sha256(repr((told, *self.texts)).encode()).hexdigest()

    def count(self) -> int | None:
        """How many rows there are, where that is known without reading them."""
        if any(kind_of(file) != "Parquet" for file in self.files):
            return None
        total = 0
        for file in self.files:
            with parquet(file) as opened:
                total += opened.metadata.num_rows
        return total

    def tables(self) -> Iterator[pa.Table]:
        """Every row, `AT_ONCE` at a time; values of CSV, TSV and JSON lines are text, but for lists of words.

        An empty text of a CSV or TSV file is one.

        Raises:
            UserError: a row is damaged, has no text or isn't what the task reads; names it (``data``).
        """
        for file in self.files:
            first = 0
            words = self.column if self.worded else None
            parquet_file = kind_of(file) == "Parquet"
            for table in _parquet(file) if parquet_file else _text(file, self.columns, list(self.texts), words):
                self._check(file, table, first)
                first += len(table)
                yield table

    def _check(self, file: Path, table: pa.Table, first: int) -> None:
        import pyarrow as pa
        import pyarrow.compute as pc

        for column, option in self.texts.items():
            texts = table[column]
            kind = texts.type.value_type if self.worded and _is_list(texts.type) else texts.type
            if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                wanted = "texts, or lists of words," if TOKENS in self.task.columns else "texts"
                raise UserError(
                    f"{file}: expected {wanted} in the column '{column}'; it holds {texts.type}.",
                    f"Name the column of the texts: `{option} NAME`.",
                    "data",
                )
            if texts.null_count:
                row = first + pc.index(pc.is_null(texts), True).as_py() + 1
                raise UserError(
                    f"{file}: row {row} has no text in the column '{column}'.",
                    "Leave such rows out, or give them an empty text.",
                    "data",
                )
        try:
            self.inputs(table)
        except serving.Refused as refusal:
            raise UserError(
                f"{file}: row {first + refusal.number + 1} is {refusal.found}; expected {refusal.expected}.",
                "Mend such rows, or leave them out.",
                "data",
            ) from None


def _span(value: Any) -> Any:
    """A span that stands in a field of text, such as ``[0, 5]``, as the list it is."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _is_list(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind))


def _schema(file: Path) -> pa.Schema:
    """The columns of a file and their types; those of CSV, TSV and JSON lines are text.

    Raises:
        UserError: it is damaged, or has two columns of one name (``data``).
    """
    import pyarrow as pa

    if kind_of(file) == "Parquet":
        with parquet(file) as opened:
            schema = opened.schema_arrow.remove_metadata()
    else:
        schema = pa.schema([(name, pa.string()) for name in column_names(file)])
    if twice := [name for name, count in Counter(schema.names).items() if count > 1]:
        raise UserError(f"{file} has the column '{twice[0]}' twice.", "Rename one of them, or leave it out.", "data")
    return schema


def _told(schema: pa.Schema, other: pa.Schema) -> str:
    """The columns in which a schema differs from the other, all of them if they differ in order alone."""
    differing = [field for field in schema if field not in list(other)] or list(schema)
    return ", ".join(f"{field.name} ({field.type})" for field in differing[:10])


def _parquet(file: Path) -> Iterator[pa.Table]:
    import pyarrow as pa

    with parquet(file) as opened:
        for batch in opened.iter_batches(AT_ONCE):
            yield pa.Table.from_batches([batch]).replace_schema_metadata()


def _text(file: Path, columns: list[str], texts: list[str], words: str | None) -> Iterator[pa.Table]:
    import pyarrow as pa

    empty_is_null = kind_of(file) in TEXT_ALONE
    kinds = [pa.list_(pa.string()) if name == words else pa.string() for name in columns]
    rows = values(file, columns)
    done = 0
    while batch := list(itertools.islice(rows, AT_ONCE)):
        arrays = []
        for name, kind, column in zip(columns, kinds, zip(*batch, strict=True), strict=True):
            given = _worded(file, name, column, done) if name == words else [as_text(value) for value in column]
            arrays.append(pa.array(given, kind))
        if empty_is_null:
            for place in map(columns.index, texts):
                arrays[place] = arrays[place].fill_null("")
        yield pa.Table.from_arrays(arrays, schema=pa.schema(list(zip(columns, kinds, strict=True))))
        done += len(batch)


def _worded(file: Path, name: str, column: Sequence[Any], done: int) -> Sequence[Any]:
    """The column again; all its values are lists of texts.

    Raises:
        UserError: one isn't (``data``).
    """
    for place, value in enumerate(column):
        if value is None or (isinstance(value, list) and all(isinstance(word, str) for word in value)):
            continue
        raise UserError(
            f"{file}: row {done + place + 1} has {value!r:.60} in the column '{name}'; expected a list of words.",
            "Give all rows lists of words, or all of them texts.",
            "data",
        )
    return column
