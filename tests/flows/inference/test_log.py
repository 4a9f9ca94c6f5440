"""The log of scored texts keeps its columns, its order, and nothing half written."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from flows.inference import log

ROW = {"text": "一段文字", "id": None, "label": "good", "score": 0.9, "model": "m/3", "content": "c"}


def table(**changed: object) -> pa.Table:
    return pa.Table.from_pylist([ROW | {"at": datetime.now(UTC)} | changed])


def test_parts_come_back_in_the_order_of_time_and_from_a_time_on(tmp_path: Path) -> None:
    assert log.read(tmp_path) == []
    first = log.append(tmp_path, table())
    between = datetime.now(UTC)
    second = log.append(tmp_path, table(id="7"))
    assert log.read(tmp_path) == [first, second]
    assert log.read(tmp_path, between) == [second]
    assert log.read(tmp_path, between + timedelta(hours=1)) == []
    found = pq.read_table(second)
    assert found.schema.equals(log.schema())
    assert found.to_pylist()[0]["id"] == "7"


def test_a_table_of_other_columns_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises((KeyError, pa.ArrowInvalid)):
        log.append(tmp_path, table().drop_columns(["score"]))
    assert list((tmp_path / log.FOLDER).iterdir()) == []
