"""What every section of params.yaml shares: strict keys, bounded numbers, errors that name what was meant."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32 - 1000)]
"""Random numbers take seeds below 2**32, and each phase and task counts one on."""


class Section(BaseModel):
    """A mapping of params.yaml: unknown keys, wrong types and infinite numbers are errors, values don't change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


def nearest(name: str, valid: Any) -> str:
    """The valid name that was probably meant, or all of them; the end of a message."""
    near = difflib.get_close_matches(name, [str(key) for key in valid], n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else f"; valid: {', '.join(map(str, valid))}" if valid else ""


def inside_data(path: str) -> str:
    """``path``, which must be inside data/: that alone is pinned.

    Raises:
        ValueError: it isn't.
    """
    if not path.startswith("data/") or ".." in Path(path).parts:
        raise ValueError(f"must be inside data/, such as data/{Path(path).name}, got '{path}'")
    return path
