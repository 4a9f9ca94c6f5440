"""Which version of the registered model is used: the champion, else the candidate, or the one that is named."""

from __future__ import annotations

from components.errors import UserError
from flows.tracking.champions import CANDIDATE, CHAMPION, Champions, Version


def choose(champions: Champions, wanted: str | None = None) -> Version:
    """The version that ``wanted``, a number or an alias, names; without it the champion, before there is one the
    candidate.

    Raises:
        UserError: there is none such (``parameters``), or MLflow can't be used (``tracking``).
    """
    versions = champions.versions()
    for name in [wanted] if wanted else [CHAMPION, CANDIDATE]:
        found = next((version for version in versions if name in (version.number, *version.aliases)), None)
        if found:
            return found
    there = ", ".join(version.number for version in versions[:10])
    raise UserError(
        f"'{champions.name}' has no {f'version or alias {wanted!r}' if wanted else 'champion and no candidate'}; "
        f"it has {f'the versions {there}' if there else 'no versions'}.",
        "`stillhouse decisions` lists them." if versions else "`stillhouse run` makes and registers a model.",
        "parameters",
    )
