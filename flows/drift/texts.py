"""What is measured of texts, out of core: their lengths, the words that training never showed, and all word counts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.parquet as pq
from scipy import sparse

from components.ml.rows.inputs import PAIR, TEXT, TOKENS
from components.validate.database import quoted

MEMORY, THREADS = "1GB", 2
ROWS_AT_ONCE = 8192
TRAIN, ELSEWHERE, HELD_OUT, INCOMING = "train", "elsewhere", "held out", "incoming"
"""The sides: training rows of the group that is expected, of the other groups, test and validation rows, the log's."""
# Scripts that put no blanks between words: each of their characters counts as a word.
_UNSEGMENTED = r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]"
_WORD = r"[\p{L}\p{M}\p{N}]+"
_READ = pa.schema([("row", pa.int64()), ("characters", pa.int32()), ("folded", pa.string())])


@dataclass(frozen=True)
class Histogram:
    """How many rows have each value; the values ascend. Integer counts of shape (values,)."""

    values: np.ndarray
    counts: np.ndarray

    @property
    def rows(self) -> int:
        """How many rows there are."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """The smallest value that at least this share of the rows doesn't exceed."""
        place = int(np.searchsorted(np.cumsum(self.counts), share * self.rows))
        return float(self.values[min(place, len(self.values) - 1)])


@dataclass(frozen=True)
class WordCounts:
    """How often each row has each of the most frequent words, and all others as one.

    ``counts`` is a sparse matrix of shape (rows, words + 1), the reference's rows first.
    """

    words: list[str]
    counts: sparse.csr_array
    reference_rows: int


@contextmanager
def opened(spill: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database that spills to a folder, with the empty table ``texts`` (side, row, characters, words)."""
    with duckdb.connect() as database:
        database.execute(f"SET memory_limit = '{MEMORY}'; SET threads = {THREADS}")
        database.execute("SET preserve_insertion_order = false; SET autoinstall_known_extensions = false")
        database.execute(f"SET temp_directory = {quoted(spill)}")
        database.execute("CREATE TABLE texts (side VARCHAR, row BIGINT, characters INTEGER, words VARCHAR[])")
        yield database


def add(database: duckdb.DuckDBPyConnection, side: str, files: Sequence[Path], only: ds.Expression) -> int:
    """Read the texts of the rows that ``only`` admits; returns how many. Missing texts are left out, pairs are one.

    The form is that of the data gate's duplicates: NFKC and without case. Words are runs of letters, marks and numbers
    of any script; a character of a script without blanks between words, such as Chinese, is a word of its own.
    """
    reader = pa.RecordBatchReader.from_batches(_READ, _read(files, only))
    database.register("arriving", reader)
    database.execute(
        f"""
        INSERT INTO texts SELECT $side, row, characters,
            regexp_extract_all(regexp_replace(folded, '({_UNSEGMENTED})', ' \\1 ', 'g'), '{_WORD}') FROM arriving
        """,
        {"side": side},
    )
    database.unregister("arriving")
    return _number(database, "SELECT count(*) FROM texts WHERE side = $side", side=side)


def _read(files: Sequence[Path], only: ds.Expression) -> Iterator[pa.RecordBatch]:
    """Numbered texts in the form that is compared, rows of words as one text; no row becomes a Python object."""
    first = 0
    schema = pa.unify_schemas([pq.read_schema(path).remove_metadata() for path in files])
    found = ds.dataset([str(path) for path in files], schema=schema, format="parquet")
    name = TEXT if TEXT in schema.names else TOKENS
    columns = [name, *(PAIR for column in schema.names if column == PAIR)]
    for batch in found.to_batches(columns, filter=only & ~ds.field(name).is_null(), batch_size=ROWS_AT_ONCE):
        text = batch[TEXT] if name == TEXT else pc.binary_join(batch[TOKENS], " ")
        if PAIR in columns:  # null where a row isn't a pair
            text = pc.binary_join_element_wise(text, batch[PAIR], "\n", null_handling="skip")
        rows = pa.array(np.arange(first, first + len(text)))
        folded = pc.utf8_lower(pc.utf8_normalize(text, form="NFKC"))
        yield pa.RecordBatch.from_arrays([rows, pc.utf8_length(text).cast(pa.int32()), folded], schema=_READ)
        first += len(text)


def lengths(database: duckdb.DuckDBPyConnection, side: str, measure: str) -> Histogram:
    """How long the texts of a side are, in ``characters`` or ``words``."""
    expression = {"characters": "characters", "words": "len(words)"}[measure]
    query = f"SELECT {expression} AS length, count(*) AS n FROM texts WHERE side = $side GROUP BY 1 ORDER BY 1"
    found = database.execute(query, {"side": side}).fetchnumpy()
    return Histogram(np.asarray(found["length"]), np.asarray(found["n"]))


def unseen(database: duckdb.DuckDBPyConnection, side: str) -> Histogram:
    """The share of a text's words that no training row has, in thousandths, of the texts of a side that have words."""
    found = database.execute(
        """
        WITH known AS (SELECT DISTINCT unnest(words) AS word FROM texts WHERE side IN ($train, $elsewhere)),
        used AS (SELECT row, unnest(words) AS word FROM texts WHERE side = $side),
        shares AS (SELECT row, round(1000 * avg((known.word IS NULL)::INTEGER)) / 1000 AS share
                   FROM used LEFT JOIN known USING (word) GROUP BY row)
        SELECT share, count(*) AS n FROM shares GROUP BY 1 ORDER BY 1
        """,
        {"side": side, "train": TRAIN, "elsewhere": ELSEWHERE},
    ).fetchnumpy()
    return Histogram(np.asarray(found["share"]), np.asarray(found["n"]))


def word_counts(database: duckdb.DuckDBPyConnection, words: int, most_rows: int, seed: int) -> WordCounts:
    """The words of training and incoming texts; of either side at most ``most_rows`` rows, drawn by a hash."""
    database.execute(
        """
        CREATE OR REPLACE TEMP TABLE drawn AS
        SELECT row_number() OVER (ORDER BY side = $incoming, row) - 1 AS place, side, words FROM (
            SELECT * FROM texts WHERE side IN ($train, $incoming)
            QUALIFY row_number() OVER (PARTITION BY side ORDER BY hash(row, $seed)) <= $most)
        """,
        {"train": TRAIN, "incoming": INCOMING, "seed": seed, "most": most_rows},
    )
    database.execute(
        """
        CREATE OR REPLACE TEMP TABLE frequent AS
        SELECT word, row_number() OVER (ORDER BY count(*) DESC, word) - 1 AS number
        FROM (SELECT unnest(words) AS word FROM drawn) GROUP BY word ORDER BY number LIMIT $words
        """,
        {"words": words},
    )
    names = [str(word) for word in database.execute("SELECT word FROM frequent ORDER BY number").fetchnumpy()["word"]]
    found = database.execute(_CELLS, {"rest": len(names)}).fetchnumpy()
    reference, rows = (
        _number(database, f"SELECT count(*) FROM drawn {condition}", **values)
        for condition, values in (("WHERE side = $side", {"side": TRAIN}), ("", {}))
    )
    places = (np.asarray(found["place"]), np.asarray(found["number"]))
    counts = sparse.coo_array((np.asarray(found["n"], dtype=np.float64), places), shape=(rows, len(names) + 1))
    return WordCounts(names, counts.tocsr(), reference)


_CELLS = """
    SELECT place, coalesce(number, $rest)::BIGINT AS number, count(*) AS n
    FROM (SELECT place, unnest(words) AS word FROM drawn) LEFT JOIN frequent USING (word) GROUP BY 1, 2
"""


def _number(database: duckdb.DuckDBPyConnection, query: str, **values: Any) -> int:
    return int(_one(database, query, values)[0])


def _one(database: duckdb.DuckDBPyConnection, query: str, values: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(database.execute(query, values).fetchall()[0])  # all: an unfinished result would block the connection
