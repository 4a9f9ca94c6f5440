"""The runtime as an input: library versions, threads, device and number format."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from components.errors import UserError

RUNTIME_FILE = Path("runtime.json")
# The libraries whose version can change the bytes of a result.
LIBRARIES = (
    "torch",
    "transformers",
    "tokenizers",
    "peft",
    "accelerate",
    "pyarrow",
    "duckdb",
    "numpy",
    "scipy",
    "matplotlib",
    "onnx",
    "onnx-ir",
    "onnxscript",
    "onnxruntime",
)


def installed(names: Iterable[str] = LIBRARIES) -> dict[str, str | None]:
    """Versions of libraries without build tags such as ``+cpu``; None for one that isn't installed."""
    return {name: _version(name) for name in names}


def _version(name: str) -> str | None:
    try:
        return version(name).split("+")[0]
    except PackageNotFoundError:
        return None


def record(path: Path = RUNTIME_FILE) -> dict[str, str]:
    """Write the installed versions to ``path``; the stages will run again under them.

    Raises:
        UserError: a library that results depend on isn't installed.
    """
    found = {name: number for name, number in installed().items() if number is not None}
    if missing := [name for name in LIBRARIES if name not in found]:
        raise UserError(
            f"Expected all libraries that results depend on; not installed: {', '.join(missing)}.",
            "Install the locked ones: `make setup`.",
            "runtime",
        )
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def check(path: Path = RUNTIME_FILE) -> None:
    """Refuse to compute under library versions that the results would not be credited to.

    Raises:
        UserError: the file is missing or damaged, or names other versions than the installed ones.
    """
    expected = _recorded(path)
    found = installed(dict.fromkeys([*LIBRARIES, *expected]))
    differing = [name for name in found if found[name] is None or found[name] != expected.get(name)]
    if differing:
        lines = [
            f"  {name}: expected {expected.get(name, 'none')}, installed {found[name] or 'none'}" for name in differing
        ]
        raise UserError(
            "Other library versions are installed than the results are recorded under:\n" + "\n".join(lines),
            "Install the locked ones (`make setup`), or record these with `stillhouse runtime`; "
            "the stages then run again.",
            "runtime",
        )


def _recorded(path: Path) -> dict[str, Any]:
    """Library -> version, as ``record`` wrote them."""
    remedy = "Record the installed versions: `stillhouse runtime`."
    try:
        recorded = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is missing.", remedy, "runtime") from None
    except ValueError as error:
        raise UserError(f"{path} is damaged: expected JSON, got {error}.", remedy, "runtime") from None
    if not isinstance(recorded, dict):
        raise UserError(f"{path} is damaged: expected libraries and versions, got {recorded!r:.40}.", remedy, "runtime")
    return recorded


def collect_rarely() -> None:
    """Look for garbage rarely: what libraries make while they are imported and set up lives on.

    At Python's own thresholds the search takes a sixth of a short command's time.
    """
    gc.set_threshold(100_000, 50, 100)


def limit_threads(threads: int) -> None:
    """Set the CPU threads of every numeric library; call before torch is imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
