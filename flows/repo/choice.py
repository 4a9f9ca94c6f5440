"""Which stages a run is about: all, some by name, or those from one to another."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass

from components.errors import UserError
from flows.repo.graph import Stage


@dataclass(frozen=True)
class Choice:
    """The stages named by ``--only``, and those from ``--from`` to ``--until``; none of the three: every stage.

    ``first`` chooses the stage and all that depend on it, ``last`` the stage and all that it depends on, both
    together the stages on the way from one to the other.
    """

    only: tuple[str, ...] = ()
    first: str | None = None
    last: str | None = None

    def names(self, stages: Mapping[str, Stage]) -> list[str]:
        """The chosen stages in the graph's order.

        Raises:
            UserError: there is no such stage, or nothing lies between the two.
        """
        if self == EVERYTHING:
            return list(stages)
        _check([*self.only, *filter(None, (self.first, self.last))], stages)
        between = self._between(stages)
        if not between and self.first and self.last:
            raise UserError(
                f"No stage lies between {self.first} and {self.last}: {self.last} doesn't depend on {self.first}.",
                f"Name the two the other way round, or one by one: `--only {self.first},{self.last}`.",
                "pipeline",
            )
        return [name for name in stages if name in {*self.only, *between}]

    def _between(self, stages: Mapping[str, Stage]) -> set[str]:
        if not (self.first or self.last):
            return set()
        after = descendants(stages, self.first) if self.first else set(stages)
        return after & (ancestors(stages, self.last) if self.last else set(stages))


EVERYTHING = Choice()


def ancestors(stages: Mapping[str, Stage], name: str) -> set[str]:
    """The stage and all that it depends on, however far away."""
    found = {name}
    for stage in reversed(list(stages.values())):  # in topological order, so that what depends on a stage comes first
        if stage.name in found:
            found |= stage.upstream
    return found


def descendants(stages: Mapping[str, Stage], name: str) -> set[str]:
    """The stage and all that depend on it, however far away."""
    found = {name}
    for stage in stages.values():
        if stage.upstream & found:
            found.add(stage.name)
    return found


def _check(names: list[str], stages: Mapping[str, Stage]) -> None:
    unknown = [name for name in dict.fromkeys(names) if name not in stages]
    if unknown:
        problems = [f"There is no stage '{name}'.{_similar(name, stages)}" for name in unknown]
        raise UserError("\n".join(problems), f"The stages are: {', '.join(stages)}.", "pipeline")


def _similar(name: str, stages: Mapping[str, Stage]) -> str:
    near = difflib.get_close_matches(name, list(stages), n=1)
    return f" Did you mean '{near[0]}'?" if near else ""
