"""The commands that make the results of a run again, from the revision that made them."""

from __future__ import annotations

from flows.repo.revisions import REFS
from flows.reporting.evidence import Evidence


def commands(evidence: Evidence) -> str:
    """As a person types them, in a clone of the project's repository."""
    return "\n".join([*_revision(evidence), *_DATA, *_STAGES])


def _revision(evidence: Evidence) -> list[str]:
    if evidence.origin.commit is None:
        return ["# The revision was not recorded; in the folder of the project as it was:"]
    return [
        "# the revision that made the results: code, parameters, dvc.lock",
        f"git fetch origin '{REFS}*:{REFS}*'",
        f"git checkout {evidence.origin.commit}",
    ]


_DATA = (
    "",
    "# the locked packages and the pinned data",
    "make setup",
    ". .venv/bin/activate",
    "stillhouse data pull",
)
_STAGES = (
    "",
    "# every stage, or what the caches hold of them",
    "dvc repro",
    "# every stage from nothing in a clean clone, compared with dvc.lock",
    "stillhouse verify",
)
