"""The lines of a text file, and what is said of a bad one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from components.errors import UserError

MARK = "\ufeff"
"""A byte order mark."""


def lines(path: Path) -> Iterator[str]:
    """The file's lines as text, line ends kept, a byte order mark dropped.

    Raises:
        UserError: the file isn't UTF-8; names the line and the byte.
    """
    offset = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise _not_utf8(path, number, offset + error.start, line[error.start]) from None
            offset += len(line)
            yield text.removeprefix(MARK) if number == 1 else text


def _not_utf8(path: Path, line: int, offset: int, byte: int) -> UserError:
    return UserError(
        f"{path} is not UTF-8: line {line}, byte {offset} of the file is 0x{byte:02x}.",
        f"Convert it from its true encoding (such as GB18030, CP1252 or UTF-16): "
        f"`iconv -f ENCODING -t UTF-8 {path.name} > new{path.suffix}`.",
        "data",
    )


def malformed(path: Path, line: int, problem: str, remedy: str) -> UserError:
    """What is wrong with a line, and what should stand there."""
    return UserError(f"{path}, line {line}: {problem}.", remedy, "data")
