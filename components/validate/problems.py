"""Rows that can't be used, gathered by what is wrong with them, so that one message tells of all."""

from __future__ import annotations

from collections.abc import Iterable

from components.errors import UserError
from components.validate.tables import Table

SHOWN = 5


class Problems:
    """What is wrong with the rows of one table: how many rows by fault, and the first few of each."""

    def __init__(self, table: Table) -> None:
        self.table = table
        self._rows: dict[str, int] = {}
        self._shown: dict[str, list[str]] = {}

    def add(self, fault: str, row: int, detail: str = "") -> None:
        """Note a row with a fault (what follows "5 rows ") and what stands there."""
        self.add_many(fault, 1, [(row, detail)])

    def add_many(self, fault: str, rows: int, examples: Iterable[tuple[int, str]]) -> None:
        """Note how many rows have a fault, with the first of them."""
        self._rows[fault] = self._rows.get(fault, 0) + rows
        shown = self._shown.setdefault(fault, [])
        if len(shown) < SHOWN:
            shown += [f"row {row}" + (f" ({detail})" if detail else "") for row, detail in examples]

    def stop(self, remedy: str = "Mend these rows or take them out.") -> None:
        """Refuse the table if there is any problem.

        Raises:
            UserError: every fault with its first rows; kind data.
        """
        if not self._rows:
            return
        lines = [
            f"  {rows:,} row{'s' * (rows > 1)} {fault}: {', '.join(self._shown[fault])}{', ...' * (rows > SHOWN)}"
            for fault, rows in self._rows.items()
        ]
        raise UserError(
            "\n".join([f"{self.table.path} ({self.table.key}) can't be used:", *lines]),
            f"{remedy} Rows are counted from 0, over the files of a folder by name; a header doesn't count.",
            "data",
        )
