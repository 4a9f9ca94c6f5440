"""The log of scored texts: Parquet files in .stillhouse/scored, one for each scored part, names sortable by time."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from components.ml.rows.inputs import PAIR
from flows.settings import STATE

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = STATE / "scored"
STAMP = "%Y%m%dT%H%M%S.%fZ"
"""When a part was written, in UTC: its name begins with that."""


def schema() -> pa.Schema:
    """The columns: ``score`` is the label's probability, ``content`` the hash of the model's content.

    ``text_pair`` is null but for pairs, ``id`` where rows have none.
    """
    import pyarrow as pa

    texts = [pa.field(name, pa.string(), name in ("text_pair", "id")) for name in ("text", "text_pair", "id", "label")]
    model = [pa.field(name, pa.string(), False) for name in ("model", "content")]
    return pa.schema(
        [*texts, pa.field("score", pa.float64(), False), *model, pa.field("at", pa.timestamp("us", "UTC"), False)]
    )


def append(root: Path, table: pa.Table, part: str | None = None) -> Path:
    """Write a part of the log; it appears whole or not at all.

    Args:
        root: the project's folder.
        table: the columns of `schema`, in any order; ``text_pair`` may be left out.
        part: a name that a part keeps over runs: one that is there already isn't written twice.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    wanted = schema()
    if PAIR not in table.column_names:
        table = table.append_column(PAIR, pa.nulls(len(table), pa.string()))
    folder = root / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    if part and (there := sorted(folder.glob(f"*-{part}.parquet"))):
        return there[0]
    name = f"{datetime.now(UTC).strftime(STAMP)}-{part or uuid.uuid4().hex[:8]}.parquet"
    draft = folder / f".{name}.partial"
    try:
        pq.write_table(table.select(wanted.names).cast(wanted), draft)
        draft.replace(folder / name)
    finally:
        draft.unlink(missing_ok=True)
    return folder / name


def read(root: Path, since: datetime | None = None) -> list[Path]:
    """The parts of the log, the oldest first; with ``since``, which must have a time zone, those written from then.

    Parts are written after their rows were scored, so the others have only rows of before. A file whose name
    begins with a letter is read always.
    """
    first = since.astimezone(UTC).strftime(STAMP) if since else ""
    return sorted(path for path in (root / FOLDER).glob("[!.]*.parquet") if path.name >= first)
