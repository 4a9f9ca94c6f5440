"""Parquet shards whose bytes depend on the rows and their order alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SHARD_ROWS = 100_000


def write_shards(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, folder: Path, shard_rows: int = SHARD_ROWS
) -> int:
    """Write the rows of ``batches``, in order, as part-00000.parquet ... of ``shard_rows`` rows each.

    The cuts between the batches leave no trace. No rows make one shard with 0 rows.

    Returns:
        how many rows were written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    waiting: list[pa.Table] = []
    held = shard = written = 0
    for batch in batches:
        waiting.append(pa.Table.from_batches([batch]).cast(schema))
        held += batch.num_rows
        while held >= shard_rows:
            table = pa.concat_tables(waiting)
            _write(table.slice(0, shard_rows), folder, shard)
            waiting, held = [table.slice(shard_rows)], held - shard_rows
            shard, written = shard + 1, written + shard_rows
    if held or not shard:
        _write(pa.concat_tables(waiting) if waiting else schema.empty_table(), folder, shard)
    return written + held


def _write(table: pa.Table, folder: Path, shard: int) -> None:
    path = folder / f"part-{shard:05}.parquet"
    # A fresh copy: slices and batches would show in the pages' bounds.
    pq.write_table(table.combine_chunks(), path, compression="zstd", row_group_size=SHARD_ROWS)
