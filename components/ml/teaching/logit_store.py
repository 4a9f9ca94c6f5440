"""Logits kept by text, so that a text is scored once by the same teacher; may be deleted at any time."""

from __future__ import annotations

import hashlib
import inspect
import json
import sqlite3
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from components.ml.models import device, scoring
from components.ml.rows import inputs, words
from components.ml.tasks import windows
from components.ml.tasks.table import DEFAULT, TASKS
from components.ml.tasks.task import Task

KEPT_TEACHERS = 5
"""How many teachers' stores stay; those that were used least recently go."""
_APPLICATION = 0x57111  # of our files, in SQLite's header; and the version of what is in them
_FORMAT = 1
_KEYS_AT_ONCE = 500
_SUFFIXES = ("", "-wal", "-shm", "-journal")
Result = TypeVar("Result")


def teacher_key(folder: Path, facts: Mapping[str, Any], task: Task = TASKS[DEFAULT]) -> str:
    """The name of a teacher's store: a digest of everything that its logits follow from.

    That is every file of the model's folder, ``facts`` (lengths, batch size, device, threads, versions of libraries),
    the processor, and the code that scores, that of the task among it.
    """
    digest = hashlib.sha256(json.dumps([dict(facts), _machine()], sort_keys=True, default=str).encode())
    kinds = [kind for kind in type(task).__mro__ if issubclass(kind, Task)]
    sources = [Path(str(module.__file__)) for module in (scoring, device, inputs, words, windows)]
    sources += [Path(inspect.getfile(kind)) for kind in kinds]
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    for name, path in [*((path.name, path) for path in sources), *((str(p.relative_to(folder)), p) for p in files)]:
        with path.open("rb") as file:
            digest.update(name.encode() + b"\0" + hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def _machine() -> list[str]:
    """What else kernels are chosen by; libraries' versions are among the facts."""
    found = [torch.backends.cpu.get_cpu_capability(), torch.__version__, torch.__config__.show()]
    if torch.cuda.is_available():
        found += [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    processor = Path("/proc/cpuinfo")
    lines = processor.read_text(encoding="utf-8", errors="replace").splitlines() if processor.exists() else []
    return [*found, *sorted({line for line in lines if line.startswith(("model name", "vendor_id", "flags"))})]


class LogitTable:
    """Logits by row in one SQLite file: of each row those of its positions, one after the other.

    Everything may raise sqlite3.Error or OSError. An entry whose checksum is wrong counts as missing.
    """

    def __init__(self, path: Path, classes: int) -> None:
        self.path, self.classes = path, classes
        path.parent.mkdir(parents=True, exist_ok=True)
        self.connection = sqlite3.connect(path, timeout=60, isolation_level="IMMEDIATE")
        try:
            self._prepare()
        except sqlite3.Error:
            self.connection.close()
            raise

    def _prepare(self) -> None:
        (tables,) = self.connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        marks = [self.connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")]
        if tables and marks != [_APPLICATION, _FORMAT]:
            raise sqlite3.DatabaseError("the file holds something else than logits")
        self.connection.execute("PRAGMA journal_mode = WAL")
        # A crash of the machine may cost the last entries, never the file.
        self.connection.execute("PRAGMA synchronous = NORMAL")
        self.connection.execute(f"PRAGMA application_id = {_APPLICATION}")
        self.connection.execute(f"PRAGMA user_version = {_FORMAT}")
        self.connection.execute(
            "CREATE TABLE IF NOT EXISTS logits (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID"
        )

    def get(self, keys: Sequence[bytes]) -> list[np.ndarray | None]:
        """The float32 logits of each row, of shape (positions, classes); None where there are none."""
        entries: dict[bytes, bytes] = {}
        for start in range(0, len(keys), _KEYS_AT_ONCE):
            part = keys[start : start + _KEYS_AT_ONCE]
            places = ",".join("?" * len(part))
            entries.update(self.connection.execute(f"SELECT key, value FROM logits WHERE key IN ({places})", part))
        return [self._unpacked(key, entries.get(key, b"")) for key in keys]

    def put(self, keys: Sequence[bytes], logits: Sequence[np.ndarray]) -> None:
        """Keep each row's logits in one transaction; entries that are there are replaced."""
        rows = [(key, _packed(key, row.astype("<f4").tobytes())) for key, row in zip(keys, logits, strict=True)]
        with self.connection:
            self.connection.executemany("INSERT OR REPLACE INTO logits VALUES (?, ?)", rows)

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def _unpacked(self, key: bytes, value: bytes) -> np.ndarray | None:
        body = value[:-4]
        if not body or len(body) % (4 * self.classes) or _packed(key, body) != value:
            return None
        return np.frombuffer(body, dtype="<f4").reshape(-1, self.classes)


def _packed(key: bytes, body: bytes) -> bytes:
    return body + zlib.crc32(key + body).to_bytes(4, "little")


class LogitStore:
    """A teacher's logits by text, as a help that may fail: then everything is missing, and a warning is printed.

    A damaged or foreign file is removed and begun anew. ``close`` it when done, or use it in a ``with``.
    """

    def __init__(self, folder: Path, name: str, classes: int) -> None:
        self.path, self.classes = folder / f"{name}.sqlite", classes
        self.table: LogitTable | None = None
        self.usable = True
        self._try(lambda table: self.path.touch())  # the time of use

    def get(self, keys: Sequence[bytes]) -> list[np.ndarray | None]:
        """The float32 logits of each row, of shape (positions, classes); None where there are none."""
        return self._try(lambda table: table.get(keys)) or [None] * len(keys)

    def put(self, keys: Sequence[bytes], logits: Sequence[np.ndarray]) -> None:
        """Keep each row's logits."""
        self._try(lambda table: table.put(keys, logits))

    def close(self) -> None:
        """Close the file."""
        if self.table is not None:
            self.table.close()

    def __enter__(self) -> LogitStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _try(self, work: Callable[[LogitTable], Result]) -> Result | None:
        """Do it, once more with a new file if this one is damaged; None if it can't be done."""
        if not self.usable:
            return None
        try:
            try:
                return work(self._opened())
            except sqlite3.OperationalError:  # a full or read-only disk, a lock: the file is sound
                raise
            except sqlite3.DatabaseError as error:
                print(f"stored logits: {self.path} is damaged ({error}) and is begun anew", flush=True)
                self.close()
                self.table = None
                _remove(self.path)
                return work(self._opened())
        except (sqlite3.Error, OSError) as error:
            print(f"stored logits: {self.path} can't be used, texts are scored without it ({error})", flush=True)
            self.close()
            self.table, self.usable = None, False
            return None

    def _opened(self) -> LogitTable:
        if self.table is None:
            self.table = LogitTable(self.path, self.classes)
        return self.table


def prune(folder: Path, in_use: Sequence[str], kept: int = KEPT_TEACHERS) -> None:
    """Delete the stores that were used least recently, until ``kept`` are left; never those named ``in_use``."""
    try:
        stores = sorted(_stores(folder), key=lambda path: (path.stem in in_use, path.stat().st_mtime_ns), reverse=True)
        for path in stores[max(kept, len(in_use)) :]:
            _remove(path)
    except OSError as error:
        print(f"stored logits: old ones in {folder} can't be deleted ({error})", flush=True)


def _stores(folder: Path) -> Iterator[Path]:
    return (path for path in folder.glob("*.sqlite") if len(path.stem) == 32)


def _remove(path: Path) -> None:
    for suffix in _SUFFIXES:
        path.with_name(path.name + suffix).unlink(missing_ok=True)
