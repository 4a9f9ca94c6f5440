"""The commands that make the results of a run again, from the revision that made them, and compare them."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from flows.data import demo
from flows.repo import git, remotes, revisions
from flows.repo.workspace import Workspace
from flows.reporting.evidence import Evidence

_CLONE = "stillhouse-again"


@dataclass(frozen=True)
class Source:
    """Where the project and its data can be had.

    Args:
        repository: what to clone: an address or a folder; None without git.
        place: the project's folder in the repository, where it isn't the whole of it.
        remote: the name of the DVC remote; None where none is set.
        public: whether the data can be built from public packages.
        data: the data folder on the machine of the run, where the repository is a folder there.
    """

    repository: str | None = None
    place: str = ""
    remote: str | None = None
    public: bool = True
    data: Path | None = None


def source(workspace: Workspace) -> Source:
    """Where the project of this workspace and its data can be had."""
    repository = revisions.clone_from(workspace)
    home = workspace.owner
    return Source(
        repository=repository,
        place=git.top(home.root)[1] if repository else "",
        remote=remotes.remote(workspace),
        public=workspace.data_hash() == demo.PINNED_HASH,
        data=home.data if repository and Path(repository).is_dir() else None,
    )


def commands(evidence: Evidence, source: Source) -> str:
    """As a person types them, anywhere; the last one fails where a result differs."""
    ref, commit = evidence.origin.ref, evidence.origin.commit
    if ref is None or commit is None or source.repository is None:
        start, compare = _HERE, "diff recorded.lock dvc.lock"
    else:
        # Naming the commit, it also fails where the checkout did.
        start, compare = _clone(source, source.repository, ref, commit), f"git diff --exit-code {commit} -- dvc.lock"
    return "\n".join([*start, *_SETUP, *_data(source), *_STAGES, f"dvc repro --force && {compare}"])


def _clone(source: Source, repository: str, ref: str, commit: str) -> list[str]:
    folder = f"{_CLONE}/{source.place}".rstrip("/")
    return [
        "# the revision that made the results: code, parameters, dvc.lock",
        f"git clone {shlex.quote(repository)} {_CLONE} && cd {shlex.quote(folder)}",
        f"git fetch origin {ref} && git checkout {commit}",
    ]


_HERE = ["# The revision was not recorded; in the folder of the project as it was:", "cp dvc.lock recorded.lock"]
_SETUP = ["", "# the locked packages", "make setup", ". .venv/bin/activate"]
_STAGES = [
    "",
    "# every stage again, whatever caches hold; dvc.lock has the hash of each result: no difference, the same bytes",
]


def _data(source: Source) -> list[str]:
    """The pinned data; ``data pull`` compares what is there already with data.dvc."""
    copy: list[str] = []
    if source.remote:
        origin = f"from the DVC remote '{source.remote}'; what .dvc/config.local says of it isn't in a clone"
    elif source.public:
        origin = "built from public packages"
    elif source.data:
        origin = "copied, since no DVC remote is set"
        copy = [f"cp -RL {shlex.quote(str(source.data))} data"]
    else:
        origin = "which has to be copied to data/ here before, since no DVC remote is set"
    return ["", f"# the pinned data, {origin}", *copy, "stillhouse data pull"]
