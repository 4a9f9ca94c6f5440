"""How the data folder differs from what data.dvc pins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from components.errors import UserError

SHOWN = 5


@dataclass(frozen=True)
class DataChanges:
    """Files of data/ that differ, as paths inside data/; true when there are any.

    ``listed`` is False when data/ does differ but DVC's cache lacks the list of the pinned files.
    """

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    listed: bool = True

    @property
    def files(self) -> list[str]:
        """All of them."""
        return [*self.added, *self.changed, *self.removed]

    def __bool__(self) -> bool:
        return bool(self.files) or not self.listed

    def error(self) -> UserError:
        """The refusal to go on with such a folder: which files differ, and the commands for either way out."""
        named = {"added": self.added, "changed": self.changed, "removed": self.removed}
        lines = [f"  {word}: {_some(files)}" for word, files in named.items() if files]
        return UserError(
            "\n".join(["data/ differs from what data.dvc pins.", *lines]),
            "To version the files as they are: `stillhouse data add data/FILE...`, or `dvc add data` for all of "
            "data/. To go back: `dvc checkout data.dvc`.",
            kind="data",
        )


def compare(before: Mapping[str, str], after: Mapping[str, str]) -> DataChanges:
    """The difference between two listings, path -> hash."""
    return DataChanges(
        added=sorted(after.keys() - before.keys()),
        changed=sorted(path for path in after.keys() & before.keys() if after[path] != before[path]),
        removed=sorted(before.keys() - after.keys()),
    )


def _some(files: list[str]) -> str:
    """The first few names and how many more there are."""
    more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
    return ", ".join(files[:SHOWN]) + more
