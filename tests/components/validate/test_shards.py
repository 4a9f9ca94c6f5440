"""Parquet shards: their size, and bytes that depend on the rows alone."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.validate.shards import write_shards

SCHEMA = pa.schema([pa.field("row", pa.int64()), pa.field("text", pa.string())])


def batches(rows: int, size: int) -> list[pa.RecordBatch]:
    table = pa.table({"row": range(rows), "text": [f"第{row}行" for row in range(rows)]}, schema=SCHEMA)
    found: list[pa.RecordBatch] = table.to_batches(max_chunksize=size)
    return found


@pytest.mark.parametrize(("rows", "sizes"), [(0, [0]), (5, [5]), (10, [10]), (11, [10, 1]), (30, [10, 10, 10])])
def test_every_shard_but_the_last_is_full(tmp_path: Path, rows: int, sizes: list[int]) -> None:
    assert write_shards(batches(rows, 4), SCHEMA, tmp_path, shard_rows=10) == rows
    shards = sorted(tmp_path.iterdir())
    assert [shard.name for shard in shards] == [f"part-{index:05}.parquet" for index in range(len(sizes))]
    assert [pq.read_metadata(shard).num_rows for shard in shards] == sizes
    assert pq.read_table(tmp_path).column("row").to_pylist() == list(range(rows))


def test_the_cuts_between_batches_leave_no_trace(tmp_path: Path) -> None:
    for size in (1, 7, 100):
        write_shards(batches(64, size), SCHEMA, tmp_path / str(size), shard_rows=50)
    contents = {tuple(path.read_bytes() for path in sorted((tmp_path / str(size)).iterdir())) for size in (1, 7, 100)}
    assert len(contents) == 1
