"""Which split each row belongs to; splits that are not given are cut off the training rows by a seeded rule.

The rule:

1. Rows of the training file that share a document (where no column has them, what the task calls one) or a normalised
   text are linked; a unit is all rows that hang together by such links. So documents stay whole and no text straddles
   two splits.
2. A unit that also stands in a split that was given (its document or a normalised text) stays in training.
3. The other units are stratified by their most frequent stratum (as the task says; a class is one) and group.
4. Within a stratum they are ordered by md5 of the seed and the unit's name (its smallest text digest: the order of the
   file doesn't matter). They fill test, then validation, then training: a unit goes to test if the middle of its
   rows lies within the first ``data.split.test`` of the stratum's rows, to validation if it lies within the next
   ``data.split.validation``. A split that was given takes no share.
5. Rows of the unlabelled pool that share a document or a normalised text with a split made here are set aside.
"""

from __future__ import annotations

import duckdb

from components.params.data import Data


def place_rows(database: duckdb.DuckDBPyConnection, data: Data) -> list[str]:
    """Make the table ``placed`` (source, row, split, set_aside) from the view ``measured``.

    Returns:
        the splits that were made, in the order test, validation; empty if both are given.
    """
    made = [split for split in ("test", "validation") if split not in data.files]
    if not made:
        database.execute("CREATE TABLE placed AS SELECT source, row, source AS split, false AS set_aside FROM measured")
        return made
    _make_links(database)
    if _one(database.execute("SELECT count(document) FROM measured WHERE source = 'train'")) != (0,):
        _join_documents(database)
    test = data.split.test if "test" in made else 0.0
    validation = data.split.validation if "validation" in made else 0.0
    database.execute(_UNITS)
    database.execute(_CUT, {"seed": str(data.split.seed), "test": test, "held_out": test + validation})
    database.execute(_PLACED)
    return made


def _make_links(database: duckdb.DuckDBPyConnection) -> None:
    """``links``: the text's form and the document of every training row, and the unit it is known to be in so far."""
    database.execute("""
        CREATE TABLE links AS
        SELECT DISTINCT form, document, form AS unit FROM (
            SELECT hex(coalesce(same_form, encode('row ' || row))) AS form,
                   coalesce('named ' || document, 'row ' || row) AS document
            FROM measured WHERE source = 'train')
    """)


def _join_documents(database: duckdb.DuckDBPyConnection) -> None:
    """Carry the smallest unit along shared documents and texts until nothing changes."""
    changed = 1
    while changed:
        database.execute("""
            CREATE OR REPLACE TABLE carried AS
            SELECT form, document, unit AS before, min(by_document) OVER (PARTITION BY form) AS unit
            FROM (SELECT *, min(unit) OVER (PARTITION BY document) AS by_document FROM links)
        """)
        (changed,) = _one(database.execute("SELECT count(*) FROM carried WHERE unit <> before"))
        database.execute("CREATE OR REPLACE TABLE links AS SELECT form, document, unit FROM carried")


def _one(result: duckdb.DuckDBPyConnection) -> tuple[int, ...]:
    row = result.fetchone()
    assert row is not None
    return row


_UNITS = """
    CREATE TABLE members AS
    SELECT row, unit, stratum, "group", same_form, measured.document
    FROM measured JOIN (SELECT DISTINCT form, unit FROM links)
      ON form = hex(coalesce(same_form, encode('row ' || row)))
    WHERE source = 'train';

    CREATE TABLE pinned AS
    WITH given AS (SELECT * FROM measured WHERE source IN ('validation', 'test'))
    SELECT DISTINCT unit FROM members
    WHERE same_form IN (SELECT same_form FROM given WHERE same_form IS NOT NULL)
       OR document IN (SELECT document FROM given WHERE document IS NOT NULL);

    CREATE TABLE units AS
    WITH stratum_counts AS (SELECT unit, stratum, count(*) AS n FROM members GROUP BY ALL),
         group_counts AS (SELECT unit, coalesce("group", '') AS "group", count(*) AS n FROM members GROUP BY ALL),
         strata AS (SELECT unit, first(stratum ORDER BY n DESC, stratum) AS stratum, sum(n) AS n
                    FROM stratum_counts GROUP BY unit),
         groups AS (SELECT unit, first("group" ORDER BY n DESC, "group") AS "group" FROM group_counts GROUP BY unit)
    SELECT unit, stratum, "group", n FROM strata JOIN groups USING (unit)
    WHERE unit NOT IN (SELECT unit FROM pinned);
"""

_CUT = """
    CREATE TABLE cut AS
    WITH lined_up AS (
        SELECT unit, (sum(n) OVER line - n / 2) / sum(n) OVER (PARTITION BY stratum, "group") AS middle
        FROM units
        WINDOW line AS (PARTITION BY stratum, "group" ORDER BY md5($seed || ' ' || unit), unit
                        ROWS UNBOUNDED PRECEDING))
    SELECT unit,
           CASE WHEN middle < $test THEN 'test' WHEN middle < $held_out THEN 'validation' ELSE 'train' END AS split
    FROM lined_up
"""

_PLACED = """
    CREATE TABLE made AS
    SELECT row, coalesce(split, 'train') AS split, same_form, document FROM members LEFT JOIN cut USING (unit);

    CREATE TABLE placed AS
    SELECT 'train' AS source, row, split, false AS set_aside FROM made
    UNION ALL
    SELECT source, row, source, source = 'unlabelled' AND (
        coalesce(same_form IN (SELECT same_form FROM made WHERE split <> 'train' AND same_form IS NOT NULL), false)
        OR coalesce(document IN (SELECT document FROM made WHERE split <> 'train' AND document IS NOT NULL), false))
    FROM measured WHERE source <> 'train';
"""
