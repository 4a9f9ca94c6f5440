"""Records of one file of any format, streamed, every value as text or as it stands there."""

from __future__ import annotations

import contextlib
import csv
import itertools
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from components.errors import UserError
from components.validate.corpora import CONLL_COLUMNS, conll_sentences, squad_columns, squad_questions
from components.validate.lines import lines, malformed

if TYPE_CHECKING:
    import pyarrow.parquet

Record = list[str | None]
Values = list[Any]
Columns = Sequence[str | None]  # None takes no column: its values are all null

EXTENSIONS = {
    **{".csv": "CSV", ".tsv": "TSV", ".jsonl": "JSON lines", ".ndjson": "JSON lines", ".parquet": "Parquet"},
    **dict.fromkeys((".conll", ".iob", ".iob2", ".bio", ".bioes"), "CoNLL"),
    ".json": "SQuAD JSON",
}
TEXT_ALONE = ("CSV", "TSV")
"""The formats whose values are all text."""
_LONGEST_FIELD = 16 * 2**20  # an unclosed quote would otherwise swallow the rest of the file
_KEYS_FROM = 1000  # JSON lines that are looked at for the names of the columns
_BATCH = 8192  # rows of a Parquet file held at a time
_LONE_SURROGATE = re.compile("[\ud800-\udfff]")
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


def kind_of(path: Path) -> str:
    """The format by the file's extension.

    Raises:
        UserError: an unknown extension.
    """
    kind = EXTENSIONS.get(path.suffix.lower())
    if kind is None:
        known = ", ".join(EXTENSIONS)
        raise UserError(
            f"{path}: the extension must be one of {known}; got '{path.suffix}'.",
            "Name the file by its format, or convert it. One JSON object a line is .jsonl; .json is SQuAD's format.",
            "data",
        )
    return kind


def column_names(path: Path) -> list[str]:
    """The columns of a file: its header, its Parquet schema, or the keys of its first JSON lines.

    Raises:
        UserError: the file is empty, damaged, not UTF-8 or of an unknown format.
    """
    if path.stat().st_size == 0:
        raise UserError(f"{path} is empty: 0 bytes.", "Give a file with rows.", "data")
    return _FORMATS[kind_of(path)][0](path)


def records(path: Path, columns: Columns) -> Iterator[Record]:
    """Every record, in the file's order, as its values for ``columns``; None for what is absent or null.

    An empty field of a CSV or TSV file is null. A TSV field isn't quoted, unless the whole of it is,
    with its inner quotes doubled. Numbers and booleans become their JSON form, such as ``1`` and ``true``.

    Raises:
        UserError: a row that is malformed or not UTF-8; names the file, the line and what was expected.
    """
    return _FORMATS[kind_of(path)][1](path, columns, as_text)


def values(path: Path, columns: Columns) -> Iterator[Values]:
    """Like ``records``, but lists, mappings and numbers stay what they are in JSON lines and Parquet.

    Raises:
        UserError: as of ``records``.
    """
    return _FORMATS[kind_of(path)][1](path, columns, _as_value)


def count_rows(path: Path) -> int:
    """How many rows a file holds; reads all of it, so that damage anywhere shows.

    Raises:
        UserError: as of ``records``.
    """
    if kind_of(path) != "Parquet":
        return sum(1 for _ in records(path, []))
    with parquet(path) as file:
        return sum(batch.num_rows for batch in file.iter_batches(_BATCH))


def _csv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Line number and fields of every row that isn't blank, the header among them."""
    csv.field_size_limit(_LONGEST_FIELD)
    reader = csv.reader(lines(path), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            remedy = 'A field with a comma, a quote or a line end stands in "quotes", its own quotes doubled.'
            raise malformed(path, line, f"malformed CSV: {error}", remedy) from None
        if row is None:
            return
        if row:
            yield line, row


def _tsv_rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(lines(path), 1):
        if bare := line.rstrip("\r\n"):
            yield number, [_unquoted(field) for field in bare.split("\t")]


def _unquoted(field: str) -> str:
    """Undo the quoting that pandas and spreadsheets give to a TSV field that holds a quote."""
    if field.startswith('"') and len(field) > 1 and _QUOTED.fullmatch(field):
        return field[1:-1].replace('""', '"')
    return field


_Rows = Callable[[Path], Iterator[tuple[int, list[str]]]]
_Convert = Callable[[Any], Any]
_Reader = Callable[[Path, Columns, _Convert], Iterator[Values]]


def _header(rows: _Rows) -> Callable[[Path], list[str]]:
    def names(path: Path) -> list[str]:
        return next(rows(path), (0, []))[1]

    return names


def _table_records(rows: _Rows) -> _Reader:
    def read(path: Path, columns: Columns, _: _Convert) -> Iterator[Values]:
        found = rows(path)
        names = next(found, (0, []))[1]
        places = [names.index(name) if name in names else None for name in columns]
        for line, row in found:
            if len(row) != len(names):
                raise malformed(
                    path,
                    line,
                    f"expected {len(names)} fields as in the header, got {len(row)}",
                    "Mend the row; a field that holds the delimiter must be quoted (CSV) or cleaned of it (TSV).",
                )
            yield [None if place is None else row[place] or None for place in places]

    return read


def _json_objects(path: Path) -> Iterator[dict[str, Any]]:
    remedy = 'Expected one JSON object a line, such as {"text": "...", "label": "..."}.'
    for number, line in enumerate(lines(path), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise malformed(path, number, f"malformed JSON: {error}", remedy) from None
        if not isinstance(found, dict):
            raise malformed(path, number, f"expected a JSON object, got {line.strip():.40}", remedy)
        yield found


def _json_keys(path: Path) -> list[str]:
    first = itertools.islice(_json_objects(path), _KEYS_FROM)
    return list(dict.fromkeys(itertools.chain.from_iterable(first)))


def _mapping_records(mappings: Callable[[Path], Iterator[dict[str, Any]]]) -> _Reader:
    def read(path: Path, columns: Columns, convert: _Convert) -> Iterator[Values]:
        for found in mappings(path):
            yield [None if name is None else convert(found.get(name)) for name in columns]

    return read


def _conll_columns(path: Path) -> list[str]:
    next(conll_sentences(path), None)  # what its head shows
    return list(CONLL_COLUMNS)


def as_text(value: Any) -> str | None:
    """A value of any type as text; null and NaN (pandas' null) as None."""
    if value is None or value != value:
        return None
    if isinstance(value, str):
        return value if value.isascii() else _LONE_SURROGATE.sub("\ufffd", value)
    if isinstance(value, bytes):
        return value.decode("utf-8")
    return json.dumps(value, ensure_ascii=False, default=str).strip('"')


def _as_value(value: Any) -> Any:
    """Text as ``as_text`` gives it, in a list or mapping too, null and NaN as None, all else as it stands."""
    if isinstance(value, list | dict):
        return _with_text(value)
    return as_text(value) if isinstance(value, str | bytes) or value != value else value


def _with_text(value: Any) -> Any:
    """A list or mapping with all its text, however deep, as ``as_text`` gives it."""
    if isinstance(value, list):
        return [_with_text(item) for item in value]
    if isinstance(value, dict):
        return {as_text(key): _with_text(item) for key, item in value.items()}
    return as_text(value) if isinstance(value, str | bytes) else value


@contextlib.contextmanager
def parquet(path: Path) -> Iterator[pyarrow.parquet.ParquetFile]:
    """An open Parquet file; damage that shows then, or while it is read in the block, becomes a readable error."""
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            yield file
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError, UnicodeDecodeError, OSError) as error:
        if isinstance(error, OSError) and error.errno:  # the system's own: a missing file, a failing disk
            raise
        raise UserError(
            f"{path} is not a sound Parquet file: {str(error).splitlines()[0]}",
            "It may be damaged or cut short: copy or write it again.",
            "data",
        ) from None


def _parquet_names(path: Path) -> list[str]:
    with parquet(path) as file:
        return list(file.schema_arrow.names)


def _parquet_records(path: Path, columns: Columns, convert: _Convert) -> Iterator[Values]:
    row = 0
    with parquet(path) as file:
        present = [name for name in columns if name is not None and name in file.schema_arrow.names]
        for batch in file.iter_batches(_BATCH, columns=present):
            try:
                found = {name: [convert(value) for value in batch.column(name).to_pylist()] for name in present}
            except UnicodeDecodeError as error:
                where = f"rows {row} to {row + batch.num_rows - 1} (counted from 0)"
                raise UserError(
                    f"{path} is not UTF-8: {where}: {error}.", "Write the columns as UTF-8 text.", "data"
                ) from None
            for index in range(batch.num_rows):
                yield [found[name][index] if name in found else None for name in columns]
            row += batch.num_rows


_FORMATS: dict[str, tuple[Callable[[Path], list[str]], _Reader]] = {
    "CSV": (_header(_csv_rows), _table_records(_csv_rows)),
    "TSV": (_header(_tsv_rows), _table_records(_tsv_rows)),
    "JSON lines": (_json_keys, _mapping_records(_json_objects)),
    "Parquet": (_parquet_names, _parquet_records),
    "CoNLL": (_conll_columns, _mapping_records(conll_sentences)),
    "SQuAD JSON": (squad_columns, _mapping_records(squad_questions)),
}
