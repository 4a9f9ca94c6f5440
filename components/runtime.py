"""The runtime as an input: library versions, threads, device and number format."""

from __future__ import annotations

import json
import os
from importlib.metadata import version
from pathlib import Path

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
)


def installed() -> dict[str, str]:
    """Versions of the libraries that results depend on, without build tags such as ``+cpu``."""
    return {name: version(name).split("+")[0] for name in LIBRARIES}


def record(path: Path = RUNTIME_FILE) -> dict[str, str]:
    """Write the installed versions to ``path``; the stages will run again under them."""
    found = installed()
    path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return found


def check(path: Path = RUNTIME_FILE) -> None:
    """Refuse to compute under library versions that the results would not be credited to.

    Raises:
        UserError: the file is missing or names other versions than the installed ones.
    """
    if not path.exists():
        raise UserError(f"{path} is missing.", "Record the installed versions: `stillhouse runtime`.", "runtime")
    expected, found = json.loads(path.read_text(encoding="utf-8")), installed()
    differing = [name for name in found if found[name] != expected.get(name)]
    if differing:
        lines = [f"  {name}: expected {expected.get(name, 'none')}, installed {found[name]}" for name in differing]
        raise UserError(
            "Other library versions are installed than the results are recorded under:\n" + "\n".join(lines),
            "Install the locked ones (`make setup`), or record these with `stillhouse runtime`; "
            "the stages then run again.",
            "runtime",
        )


def limit_threads(threads: int) -> None:
    """Set the CPU threads of every numeric library; call before torch is imported."""
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "RAYON_NUM_THREADS"):
        os.environ[name] = str(threads)
    os.environ["TOKENIZERS_PARALLELISM"] = "true" if threads > 1 else "false"
