"""A DuckDB connection for whole-data questions, out of core: beyond its memory it spills to a folder."""

from __future__ import annotations

from pathlib import Path

import duckdb

from components.ml.rows.inputs import BETWEEN

MEMORY = "2GB"
THREADS = 4  # each needs buffers of its own: all of a large machine's would outgrow MEMORY


def connect(measured: Path, spill: Path, threads: int = THREADS) -> duckdb.DuckDBPyConnection:
    """A database in memory over the measured rows (view ``measured``) that spills to the folder ``spill``.

    Rows come in any order unless a query says ORDER BY; then the number of threads changes no result.
    """
    database = duckdb.connect()
    database.execute(f"SET memory_limit = '{MEMORY}'")
    database.execute(f"SET threads = {threads}")
    database.execute("SET preserve_insertion_order = false")
    database.execute("SET autoinstall_known_extensions = false")
    database.execute(f"SET temp_directory = {quoted(spill)}")
    database.execute(f"CREATE VIEW measured AS SELECT * FROM read_parquet({quoted(measured)})")
    return database


def quoted(path: Path) -> str:
    """A path as an SQL string."""
    return "'" + str(path).replace("'", "''") + "'"


def shown(table: str) -> str:
    """A row's text in SQL, as people read it: of a pair both texts."""
    pair = f"{table}.text || '{BETWEEN}' || {table}.text_pair"
    return f"(CASE WHEN {table}.text_pair IS NULL THEN {table}.text ELSE {pair} END)"
