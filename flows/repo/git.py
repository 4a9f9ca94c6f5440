"""Git as a program: calls that never prompt, run no hooks and heed no GIT_DIR, and the checkout's files as trees."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from components.errors import UserError

# Set in git's hooks, they would point us to another repository; what else is set there is the user's.
_MISLEADING = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_COMMON_DIR", "GIT_OBJECT_DIRECTORY")
_SETTINGS = ("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "core.looseCompression=1")
# Files of the project that a run reads by these names, versioned or not.
ALWAYS = ("dvc.yaml", "dvc.lock", "params.yaml", "data.dvc", "runtime.json", ".dvcignore", ".dvc/config")
# Folders and files of the project that are no part of it, even where no .gitignore says so.
NEVER = (".stillhouse", ".dvc/tmp", ".dvc/cache", ".dvc/config.local", "data", "data.partial", "artifacts", "reports")
_LARGEST_UNTRACKED = 50_000_000


def attempt(
    folder: Path,
    *arguments: str,
    stdin: str = "",
    timeout: float | None = None,
    hooks: bool = False,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run git and say how it went; 127 when there is no git.

    Only with ``hooks`` do the repository's hooks run, and may they, or a signing program, use the terminal.

    Raises:
        subprocess.TimeoutExpired: it took longer than ``timeout`` seconds, and was ended.
    """
    command = ["git", *(() if hooks else _SETTINGS), *arguments]
    kept = {name: value for name, value in os.environ.items() if name not in _MISLEADING}
    try:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env=kept | {"GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"} | dict(env or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=not hooks,  # without a terminal ssh can't ask either
        )
    except FileNotFoundError as error:
        return subprocess.CompletedProcess(command, 127, "", str(error))
    try:
        out, err = process.communicate(encoded(stdin), timeout)
    except BaseException:
        process.kill() if hooks else os.killpg(process.pid, signal.SIGKILL)  # ssh would hold the pipes open
        process.wait()
        raise
    return subprocess.CompletedProcess(command, process.returncode, decoded(out), decoded(err))


def encoded(text: str) -> bytes:
    """The bytes that ``decoded`` made ``text`` of."""
    return text.encode("utf-8", "surrogateescape")


def decoded(content: bytes) -> str:
    """``content`` as text; what isn't UTF-8, and ends of lines, are kept."""
    return content.decode("utf-8", "surrogateescape")


def git(folder: Path, *arguments: str, stdin: str = "", env: Mapping[str, str] | None = None) -> str:
    """What git printed, less the last line's end.

    Raises:
        UserError: git failed; in its own words.
    """
    done = attempt(folder, *arguments, stdin=stdin, env=env)
    if done.returncode:
        said = done.stderr.strip() or done.stdout.strip()
        raise UserError(f"`git {arguments[0]}` failed in {folder}: {said}", "Mend the git repository.", "pipeline")
    return done.stdout.removesuffix("\n")


def top(root: Path) -> tuple[Path, str]:
    """The folder of the git repository, and the project's place in it: empty, or such as ``models/reviews/``.

    Raises:
        UserError: the project isn't in git, git is missing, or nothing has been committed yet.
    """
    found = attempt(root, "rev-parse", "--show-toplevel", "--show-prefix")
    if found.returncode == 127:
        raise UserError("This needs git, which isn't installed.", "Install git.")
    if found.returncode:
        raise UserError(
            f"{root} is not in a git repository: {found.stderr.strip()}",
            "Put the project under git: `git init`, `git add .`, `git commit`.",
        )
    if commit_of(root) is None:
        raise UserError(
            f"The git repository of {root} has no commit yet.", "Make a first one: `git add .`, then `git commit`."
        )
    folder, prefix = found.stdout.split("\n")[:2]
    return Path(folder), prefix


def commit_of(root: Path, revision: str = "HEAD") -> str | None:
    """The commit that ``revision`` names; None without git or when there is none, as before the first commit."""
    found = attempt(root, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
    return found.stdout.strip() if found.returncode == 0 else None


@contextmanager
def scratch_index(folder: Path) -> Iterator[dict[str, str]]:
    """An environment in which git has a copy of the index, so that the real one stays as it is."""
    index = folder / git(folder, "rev-parse", "--git-path", "index")
    with tempfile.TemporaryDirectory(prefix="stillhouse-") as temporary:
        copy = Path(temporary) / "index"
        environment = {"GIT_INDEX_FILE": str(copy)}
        if index.exists():
            shutil.copy2(index, copy)  # by its time git tells edits that came right after it
        else:
            git(folder, "read-tree", "HEAD", env=environment)
        yield environment


def tracked_tree(folder: Path, environment: Mapping[str, str], more: Iterable[str] = ()) -> str:
    """A tree of the tracked files as they are, and of ``more`` files whether tracked, ignored or missing."""
    git(folder, "add", "--update", "--", ":/", env=environment)
    return tree_with(folder, environment, more)


def tree_with(folder: Path, environment: Mapping[str, str], names: Iterable[str]) -> str:
    """A tree of the index, with the files named as they are on disk, whether tracked, ignored or missing."""
    stdin = "".join(f"{name}\0" for name in names)
    git(folder, "update-index", "--add", "--remove", "--replace", "-z", "--stdin", stdin=stdin, env=environment)
    return git(folder, "write-tree", env=environment)


def untracked(folder: Path, prefix: str, environment: Mapping[str, str]) -> list[str]:
    """The files git neither tracks nor ignores; without huge ones, repositories in it, and what is no part of it."""
    listed = git(folder, "ls-files", "--others", "--exclude-standard", "-z", env=environment).split("\0")
    outside = tuple(f"{prefix}{name}" for name in NEVER)
    return [
        name
        for name in listed
        if name and not name.endswith("/") and not any(name == out or name.startswith(f"{out}/") for out in outside)
        # A huge one that a stage reads is linked.
        if (folder / name).lstat().st_size <= _LARGEST_UNTRACKED
    ]


def always(prefix: str) -> list[str]:
    """``ALWAYS`` by their names in the git repository."""
    return [f"{prefix}{name}" for name in ALWAYS]
