"""Text of data, of people and of other programs, made fit for Markdown pages."""

from __future__ import annotations

import re


def one_line(text: str) -> str:
    """In one line."""
    return " ".join(text.split())


def markdown(text: object) -> str:
    """Text as Markdown that reads just so: no markup in it, no HTML, in one line."""
    plain = one_line(str(text)).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", plain)
