"""params.yaml -> typed parameters. The one YAML loader; it follows DVC's rules (YAML 1.2)."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components.component import COMPONENTS
from components.errors import UserError
from components.params.phases import SHARES
from components.params.project import Params
from components.params.section import nearest
from components.params.trainable import FORMS, SETTINGS


def load_yaml(path: Path) -> Any:
    """Read a YAML 1.2 file, as DVC does (``1e-4`` is a number).

    Raises:
        UserError: the file is missing, not UTF-8 or not YAML; names the line.
    """
    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(
            f"{path} is missing.", "Run the command in the folder that holds params.yaml and dvc.yaml.", "parameters"
        ) from None
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8: {error}.", "Save it as UTF-8.", "parameters") from None
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UserError(f"{path}{where}: {problem}.", "Mend the YAML there.", "parameters") from None


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check params.yaml.

    Raises:
        UserError: names the key, its section, what was expected, what arrived and the nearest valid key.
    """
    found = load_yaml(path)
    problems: list[str] = []
    params: Params | None = None
    try:
        params = Params.model_validate(found)
    except ValidationError as error:
        problems = [line for details in error.errors() if (line := _explain(details, path))]
    problems += _untracked(found, path)
    if params is None or problems:
        lines = "\n".join(dict.fromkeys(problems))
        raise UserError(lines, "docs/parameters.md lists every key and its default.", "parameters")
    return params


def _untracked(found: Any, path: Path) -> Iterator[str]:
    """Keys that dvc.yaml tracks must stand in the file, whatever their defaults: DVC reads it, not our types."""
    for key in sorted({key for component in COMPONENTS.values() for key in component.parameters.values()}):
        *sections, name = key.split(".")
        section: Any = found
        for part in sections:
            section = section.get(part) if isinstance(section, dict) else None
        if isinstance(section, dict) and name not in section:
            yield f"{path}: '{name}' is missing in {'.'.join(sections) or 'the top level'}"


def _explain(details: ErrorDetails, path: Path) -> str | None:
    """One line for one of pydantic's errors; None where another of them says it better."""
    location = _location(details["loc"])
    key, section = location[-1] if location else "", ".".join(location[:-1]) or "the top level"
    if details["type"] == "extra_forbidden":
        return f"{path}: unknown key '{key}' in {section}{nearest(key, _valid_keys(location[:-1]))}"
    if details["type"] == "missing":
        return f"{path}: '{key}' is missing in {section}"
    problem = details["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if details["type"] == "value_error":  # our own, which tells what arrived
        return ": ".join([str(path), *filter(None, [".".join(location)]), problem])
    return f"{path}: {'.'.join(location) or 'the file'}: {problem}, got {details['input']!r:.120}"


_BY_KEY: dict[str, dict[str, Any]] = {"trainable": FORMS, "sampling": SHARES}


def _location(parts: tuple[int | str, ...]) -> list[str]:
    """The key's path in the file: pydantic's, less the names it gives to the members of a union."""
    unions = {"word", "str", "float", "int", "constrained-int", "constrained-str"}
    location: list[str] = []
    for index, part in enumerate(map(str, parts)):
        tag = index > 0 and (
            (part in FORMS and parts[index - 1] == "trainable") or (part in SHARES and parts[index - 1] == "sampling")
        )
        if not tag and part not in unions and "[" not in part:
            location.append(part)
    return location


def _valid_keys(location: list[str]) -> list[str]:
    """The keys that the section at ``location`` takes."""
    section: Any = Params
    for part in location:
        section = SETTINGS.get(part) if section in (FORMS, SHARES) else _section(section, part)
    keys = section if isinstance(section, dict) else getattr(section, "model_fields", {})
    return [getattr(field, "alias", None) or name for name, field in keys.items()]


def _section(section: Any, part: str) -> Any:
    """What stands under the key ``part`` of a section: a section, the mapping of names to sections, or all forms."""
    if part in _BY_KEY:
        return _BY_KEY[part]
    if typing.get_origin(section) is dict:
        return _one_of(typing.get_args(section)[1])
    fields = getattr(section, "model_fields", {})
    found = next((field.annotation for name, field in fields.items() if part in (name, field.alias)), None)
    return found if typing.get_origin(found) is dict else _one_of(found)


def _one_of(annotation: Any) -> Any:
    """The first section among the members of a union."""
    if hasattr(annotation, "model_fields"):
        return annotation
    return next((found for member in typing.get_args(annotation) if (found := _one_of(member))), None)
