"""Reads the weights of a safetensors file as NumPy arrays mapped from the disk, bfloat16 included, without torch."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

_LENGTH = struct.Struct("<Q")
_TYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "BOOL": "?", "C64": "<c8",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}  # fmt: skip
_BLOCK = 2**20  # numbers held at a time


class Tensors:
    """The tensors of one file, by name.

    Raises:
        ValueError: it isn't a safetensors file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            start = file.read(_LENGTH.size)
            if len(start) < _LENGTH.size:
                raise ValueError("not a safetensors file: cut short")
            (length,) = _LENGTH.unpack(start)
            if length > path.stat().st_size:
                raise ValueError("not a safetensors file: cut short")
            self._header: dict[str, Any] = json.loads(file.read(length))
        self._start = _LENGTH.size + length
        self.metadata: dict[str, str] = self._header.pop("__metadata__", None) or {}
        self.names = sorted(self._header)

    def described(self, name: str) -> str:
        """Type and shape of a tensor; ``nothing`` when the file has none of that name."""
        about = self._header.get(name)
        return f"{about['dtype']} {about['shape']}" if about else "nothing"

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(self._header[name]["shape"])

    def blocks(self, name: str) -> Iterator[Any]:
        """The numbers of a tensor in flat arrays of at most a million, in order.

        Raises:
            ValueError: the file is cut short.
        """
        about = self._header[name]
        kind = np.dtype(_TYPES.get(about["dtype"], "u1"))
        first, last = about["data_offsets"]
        count = (last - first) // kind.itemsize
        if self._start + last > self._path.stat().st_size:
            raise ValueError(f"the tensor {name} is cut short")
        if not count:
            return
        flat = np.memmap(self._path, dtype=kind, mode="r", offset=self._start + first, shape=(count,))
        for position in range(0, count, _BLOCK):
            block = np.asarray(flat[position : position + _BLOCK])
            # The upper half of a float32's bits.
            yield (block.astype(np.uint32) << 16).view(np.float32) if about["dtype"] == "BF16" else block
