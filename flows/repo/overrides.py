"""Parameters set for one run alone: ``distill.temperature=4``, checked as the file is."""

from __future__ import annotations

import copy
import io
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.representer import RoundTripRepresenter

from components.errors import UserError
from components.loader import load_params, load_yaml
from flows.repo import git, lockfile, worktrees
from flows.repo.workspace import Workspace

FILE = "params.yaml"


def parse(assignments: Sequence[str]) -> dict[str, Any]:
    """``["a.b=c"]`` as values by dotted key; a value is read as YAML 1.2, as in params.yaml.

    Raises:
        UserError: an assignment has no ``=`` or no key, a value isn't YAML, a key is set twice or inside another.
    """
    found: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        key = key.strip()
        if not equals or not all(part.strip() for part in key.split(".")):
            raise _refused(assignment, "expected KEY=VALUE, such as distill.temperature=4")
        for other in found:
            if f"{key}.".startswith(f"{other}.") or f"{other}.".startswith(f"{key}."):
                twice = "twice" if key == other else f"both in itself and by {max(key, other, key=len)}"
                raise _refused(assignment, f"{min(key, other, key=len)} is set {twice}")
        try:
            found[key] = YAML(typ="safe", pure=True).load(text)
        except YAMLError as error:
            problem = getattr(error, "problem", None) or str(error).splitlines()[0]
            raise _refused(assignment, f"the value isn't YAML: {problem}") from None
    return found


def worktree_with(
    owner: Workspace,
    overrides: Mapping[str, Any],
    name: str | None = None,
    *,
    revision: str | None = None,
    if_busy: str = "refuse",
) -> Workspace:
    """A worktree of the checkout as it stands, or of a revision, whose params.yaml has these values.

    Args:
        owner: the checkout.
        overrides: values by dotted key, as ``parse`` gives them.
        name: the worktree's; by default one that belongs to these values.
        revision: see ``open_worktree``.
        if_busy: see ``open_worktree``.

    Raises:
        UserError: a key doesn't exist or a value isn't allowed, in the words of the check of params.yaml;
            or see ``open_worktree``.
    """
    text = _params(owner, revision)
    edited = _checked(text, overrides)
    name = name or f"{worktrees.DISPOSABLE}{lockfile.digest(dict(overrides))[:10]}"
    return worktrees.open_worktree(owner, name, revision, replacing={FILE: edited}, if_busy=if_busy)


def edit(text: str, overrides: Mapping[str, Any]) -> str:
    """The text of params.yaml with these values; comments, order and forms of the rest are kept.

    Raises:
        UserError: a key leads through a value that is no section.
    """
    yaml = YAML()
    yaml.Representer = _Representer
    yaml.preserve_quotes = True
    yaml.width = 1_000_000
    params = yaml.load(text)
    for key, value in overrides.items():
        _set(params, key, value)
    written = io.StringIO()
    yaml.dump(params, written)
    return written.getvalue()


class _Representer(RoundTripRepresenter):
    """Writes null as such, where ruamel would leave the place empty."""


_Representer.add_representer(type(None), lambda writer, _: writer.represent_scalar("tag:yaml.org,2002:null", "null"))


def _set(params: Any, key: str, value: Any) -> None:
    *sections, last = key.split(".")
    section = params
    for index, part in enumerate(sections):
        part = _present(section, part)
        found = section.get(part)
        if not isinstance(found, dict | None):
            name = ".".join(sections[: index + 1])
            rest = ".".join([*sections[index + 1 :], last])
            raise _refused(
                f"{key}={_shown(value)}",
                f"{FILE} has {name}: {_shown(found)}, which is no section with a key {rest}; set {name} as a whole, "
                f"such as {name}={{...}}",
            )
        # One that other places refer to (*name) must change here alone.
        section[part] = {} if found is None else copy.deepcopy(found)
        if hasattr(section[part], "yaml_set_anchor"):
            section[part].yaml_set_anchor(None)
        section = section[part]
    section[_present(section, last)] = value


def _present(section: Any, part: str) -> Any:
    """The key as the section has it: `5` may be a number there."""
    return next((key for key in section if str(key) == part), part)


def _params(owner: Workspace, revision: str | None) -> str:
    """The text of params.yaml in the checkout or in a revision."""
    if revision is None:
        load_yaml(owner.root / FILE)  # it is there, and YAML
        return (owner.root / FILE).read_text(encoding="utf-8")
    git.top(owner.root)
    return git.git(owner.root, "cat-file", "blob", f"{revision}:./{FILE}")


def _checked(text: str, overrides: Mapping[str, Any]) -> str:
    """The edited text of params.yaml.

    Raises:
        UserError: the text as it stands is broken, or the edited one isn't allowed; says by which of the overrides.
    """
    own = _problems(text)
    if own and not _has_sections(text):
        raise UserError("\n".join(own), f"Mend {FILE}; docs/parameters.md lists every key.", "parameters")
    edited = edit(text, overrides)
    problems = _problems(edited)
    if not problems:
        return edited
    lines = [line for line in problems if line in own]
    told = set(lines)
    for key, value in overrides.items():
        alone = [line for line in _problems(edit(text, {key: value})) if line in problems and line not in told]
        told.update(alone)
        lines += [f"--set {key}={_shown(value)}: {line.removeprefix(f'{FILE}: ')}" for line in alone]
    together = " ".join(f"--set {key}={_shown(value)}" for key, value in overrides.items())
    lines += [f"{together}: {line.removeprefix(f'{FILE}: ')}" for line in problems if line not in told]
    raise UserError("\n".join(lines), "docs/parameters.md lists every key and its default.", "parameters")


def _has_sections(text: str) -> bool:
    """Whether it is YAML with keys, in which values can be set."""
    try:
        return isinstance(YAML(typ="safe", pure=True).load(text), dict)
    except YAMLError:
        return False


def _problems(text: str) -> list[str]:
    """What the check of params.yaml says to ``text``, in lines that begin with the file's name."""
    with tempfile.TemporaryDirectory(prefix="stillhouse-") as folder:
        path = Path(folder) / FILE
        path.write_text(text, encoding="utf-8", errors="surrogateescape")  # as git gave it
        try:
            load_params(path)
        except UserError as error:
            return error.message.replace(str(path), FILE).splitlines()
    return []


def _shown(value: Any) -> str:
    """A value in YAML's flow style, as it is given on the command line."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.width = True, 1_000_000
    written = io.StringIO()
    yaml.dump(value, written)
    return written.getvalue().removesuffix("\n").removesuffix("\n...")


def _refused(assignment: str, problem: str) -> UserError:
    return UserError(
        f"--set {assignment}: {problem}.", "docs/parameters.md lists every key and its default.", "parameters"
    )
