"""Rows of the pool that nearly repeat a test row: an exact set-similarity join, out of core.

Two texts are as similar as the Jaccard index of their sets of shingles: shared / (all of both). Comparing every pair is
out of the question, and so is joining on every shingle, since some stand in most texts. With all shingles in one
order, the rarest first, two sets of a similarity of at least s share one of the first ``size - ceil(s * size) + 1``
shingles of each (prefix filter: Chaudhuri et al. 2006, Bayardo et al. 2007), their sizes differ by a factor of at
most s, and what is left after the place of the first shared one is enough to reach s (positional filter: Xiao et
al. 2008). Pairs that pass are compared in full, so nothing is missed and nothing is guessed.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from components.validate.database import quoted, shown
from components.validate.shingles import shingles, words

BATCH_ROWS = 8192
FIRST_ROUND, GROWTH = 64, 4
SHORT = 160  # characters of an example's text
# Texts of the same words count once: ``same`` is a digest of the words in order.
_SHINGLED = pa.schema(
    [
        pa.field("source", pa.string()),
        pa.field("row", pa.int64()),
        pa.field("same", pa.binary()),
        pa.field("shingles", pa.list_(pa.string())),
    ]
)


def find_near(database: duckdb.DuckDBPyConnection, similarity: float | None, scratch: Path) -> None:
    """Make the table ``near`` (row, like_source, like_row, similarity): pool rows that nearly repeat a test row.

    Reads the view ``measured`` and the table ``placed``; pool rows that are set aside already don't count. Equal
    normalised texts have a similarity of 1. Of the test rows that a pool row is like, one is named; the order of the
    test rows decides which.

    Args:
        database: see above.
        similarity: how similar is near, more than 0 and at most 1; None leaves the table empty.
        scratch: an existing folder; takes files of about the size of the texts, which are gone at the end.
    """
    database.execute("CREATE TABLE near (row BIGINT, like_source VARCHAR, like_row BIGINT, similarity DOUBLE)")
    if similarity is None or not _any(database, _ROWS["pool"]):
        return
    files = {name: scratch / f"{name}-shingles.parquet" for name in _ROWS}
    for name, path in files.items():
        _write_shingles(database, _ROWS[name], path)
        database.execute(f"CREATE TEMP VIEW {name}_file AS SELECT * FROM read_parquet({quoted(path)})")
    for statement in (_SETS, _PREFIXES):
        database.execute(statement.replace("$similarity", f"{similarity!r}::DOUBLE"))
    _compare(database, similarity)
    database.execute(_NEAR)
    database.execute(_TIDY)
    for path in files.values():
        path.unlink()


def examples_of_near(database: duckdb.DuckDBPyConnection, count: int = 3) -> list[dict[str, Any]]:
    """The first pool rows that were found, with the test row that each is like: row, text, similarity, like."""
    query = f"""
        SELECT near.row, {shown("pool")}[:{SHORT}], round(similarity, 4), like_row, like_source,
               {shown("test")}[:{SHORT}]
        FROM near JOIN measured AS pool ON pool.source = 'unlabelled' AND pool.row = near.row
             JOIN measured AS test ON test.source = like_source AND test.row = like_row
        ORDER BY near.row LIMIT {count}
    """
    return [
        {
            "row": row,
            "text": text,
            "similarity": similarity,
            "like": {"source": source, "row": like_row, "text": like_text},
        }
        for row, text, similarity, like_row, source, like_text in database.execute(query).fetchall()
    ]


def _any(database: duckdb.DuckDBPyConnection, query: str) -> bool:
    return bool(database.execute(f"SELECT 1 FROM ({query}) LIMIT 1").fetchall())


def _compare(database: duckdb.DuckDBPyConnection, similarity: float) -> None:
    """Fill ``matched`` from the test sets, few at first and then ever more at a time.

    Pool sets that have found their like drop out. So texts from one template, where all are near all, cost
    one comparison with the first few, not one with each.
    """
    database.execute("CREATE TABLE matched (row BIGINT, like_row BIGINT, similarity DOUBLE)")
    ((last,),) = database.execute("SELECT coalesce(max(place_in_line), 0) FROM test_prefixes").fetchall()
    lower, upper = 0, FIRST_ROUND
    while lower < last:
        database.execute(_ROUND, {"similarity": similarity, "lower": lower, "upper": upper})
        database.execute("DELETE FROM pool_prefixes WHERE row IN (SELECT row FROM matched)")
        lower, upper = upper, upper * GROWTH


_ROWS = {
    "pool": f"""SELECT source, row, {shown("measured")} AS text FROM measured JOIN placed USING (source, row)
               WHERE split = 'unlabelled' AND NOT set_aside AND same_form IS NOT NULL""",
    "test": f"""SELECT source, row, {shown("measured")} AS text FROM measured JOIN placed USING (source, row)
               WHERE split = 'test' AND same_form IS NOT NULL""",
}

# Sets of shingles as lists of numbers, one for each different text; the pool's hold only the shingles that a test row
# has, and only of texts that have enough of them. ``size`` counts all. The margin keeps rounding on the safe side.
_NEEDED = "greatest(1, ceil($similarity * size - 1e-6))"
_SETS = f"""
    CREATE TABLE test_firsts AS
    SELECT same, min(row) AS row, any_value(len(shingles)) AS size FROM test_file WHERE len(shingles) > 0 GROUP BY same;

    CREATE TABLE pool_firsts AS
    SELECT same, min(row) AS row, any_value(len(shingles)) AS size FROM pool_file WHERE len(shingles) > 0 GROUP BY same;

    CREATE TABLE numbered AS
    SELECT shingle, row_number() OVER () AS number FROM (SELECT DISTINCT unnest(shingles) AS shingle FROM test_file);

    CREATE TABLE test_sets AS
    SELECT row, size, list(number) AS numbers
    FROM (SELECT row, size, unnest(shingles) AS shingle FROM test_file JOIN test_firsts USING (same, row))
         JOIN numbered USING (shingle)
    GROUP BY row, size;

    CREATE TABLE pool_sets AS
    SELECT row, size, list(number) AS numbers
    FROM (SELECT row, size, unnest(shingles) AS shingle FROM pool_file JOIN pool_firsts USING (same, row))
         JOIN numbered USING (shingle)
    GROUP BY row, size HAVING count(*) >= {_NEEDED};

    DROP TABLE numbered;
"""

# The order of the shingles: how many pairs of texts share one. What stands on one side only comes first.
_PREFIX = f"""
    SELECT *, dense_rank() OVER (ORDER BY row) AS place_in_line FROM (
        SELECT row, size, number,
               size - count(*) OVER (PARTITION BY row)
                    + row_number() OVER (PARTITION BY row ORDER BY pairs, number) AS place
        FROM (SELECT row, size, unnest(numbers) AS number FROM SIDE) JOIN order_of_shingles USING (number))
    WHERE place <= size - {_NEEDED} + 1
"""
_PREFIXES = f"""
    CREATE TABLE order_of_shingles AS
    SELECT number, pool.texts * test.texts AS pairs
    FROM (SELECT unnest(numbers) AS number, count(*) AS texts FROM pool_sets GROUP BY 1) AS pool
    JOIN (SELECT unnest(numbers) AS number, count(*) AS texts FROM test_sets GROUP BY 1) AS test USING (number);

    CREATE TABLE test_prefixes AS {_PREFIX.replace("SIDE", "test_sets")};
    CREATE TABLE pool_prefixes AS {_PREFIX.replace("SIDE", "pool_sets")};
"""

# least(...) is how many shingles two sets can share if the one at these places is the first that they share.
_ROUND = """
    INSERT INTO matched
    WITH candidates AS (
        SELECT DISTINCT pool.row AS pool_row, test.row AS test_row
        FROM pool_prefixes AS pool JOIN test_prefixes AS test USING (number)
        WHERE test.place_in_line > $lower AND test.place_in_line <= $upper
          AND (1 + least(pool.size - pool.place, test.size - test.place))
              / (pool.size + test.size - 1 - least(pool.size - pool.place, test.size - test.place)) >= $similarity
    ), compared AS (
        SELECT pool_row, test_row, len(list_intersect(pool.numbers, test.numbers)) AS shared,
               shared / (pool.size + test.size - shared) AS similarity
        FROM candidates JOIN pool_sets AS pool ON pool.row = pool_row JOIN test_sets AS test ON test.row = test_row
    )
    SELECT pool_row, first(test_row ORDER BY similarity DESC, test_row), max(similarity)
    FROM compared WHERE similarity >= $similarity GROUP BY pool_row
"""

_NEAR = f"""
    INSERT INTO near
    WITH pool AS (SELECT row, same_form FROM measured JOIN ({_ROWS["pool"]}) USING (source, row)),
         test AS (SELECT source, row, same_form FROM measured JOIN ({_ROWS["test"]}) USING (source, row)),
         alike AS (
             SELECT pool_file.row, like_row, similarity
             FROM pool_file JOIN pool_firsts USING (same) JOIN matched ON matched.row = pool_firsts.row
             UNION ALL
             SELECT pool.row, min(test.row), 1 FROM pool JOIN test USING (same_form) GROUP BY pool.row)
    SELECT row, (SELECT any_value(source) FROM test), first(like_row ORDER BY similarity DESC, like_row),
           max(similarity)
    FROM alike GROUP BY row
"""
_TIDY = "DROP VIEW pool_file; DROP VIEW test_file;" + "".join(
    f"DROP TABLE {name};"
    for name in (
        *("test_firsts", "pool_firsts", "test_sets", "pool_sets", "order_of_shingles", "test_prefixes"),
        *("pool_prefixes", "matched"),
    )
)


def _write_shingles(database: duckdb.DuckDBPyConnection, query: str, path: Path) -> None:
    reader = database.sql(query).to_arrow_reader(BATCH_ROWS)
    with pq.ParquetWriter(path, _SHINGLED, compression="zstd", use_dictionary=False, write_statistics=False) as writer:
        for batch in reader:
            writer.write_batch(_shingled(batch))


def _shingled(batch: pa.RecordBatch) -> pa.RecordBatch:
    found = [words(text) for text in batch["text"].to_pylist()]
    same = [hashlib.blake2b(" ".join(each).encode("utf-8"), digest_size=16).digest() for each in found]
    return pa.record_batch(
        [batch["source"], batch["row"], same, pa.array(map(shingles, found), _SHINGLED.field("shingles").type)],
        schema=_SHINGLED,
    )
