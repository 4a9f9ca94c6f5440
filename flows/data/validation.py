"""Runs the data gate on data/ as it would be with some files added, before anything is changed.

The gate is the stage ``validate`` itself, in a process of its own (Great Expectations takes 5 seconds to import) and
in a temporary folder whose ``data`` links to the files.
"""

from __future__ import annotations

import io
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

import components
from components import errors, runtime
from components.errors import UserError
from components.loader import load_params, load_yaml
from components.params.columns import roles
from components.params.project import Params
from components.validate.reading import check_files
from components.validate.report import REPORT
from flows.data.suggest import suggest_section
from flows.repo.workspace import Workspace
from flows.runs.processes import Process

REPORT_OF_ADDED = Path("reports/added")
STAGE = "validate"


def judge(workspace: Workspace, sources: Mapping[Path, Path], unlabelled: Path | None = None) -> list[str]:
    """Let the gate judge data/ with ``sources`` (by their places in data/) in it; changes nothing.

    It reads data/ as params.yaml says, or, when that names none of the new files, or files that aren't there, as
    the section would that is suggested for them. The report goes to ``reports/added``.

    Args:
        workspace: the project.
        sources: where each new file or folder comes from, by its path in data/.
        unlabelled: the path in data/ of the pool, if it is among them.

    Returns:
        what it said, line by line, or why it could not judge.

    Raises:
        UserError: the gate refuses the data, in its own words.
    """
    workspace.state.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="gate-", dir=workspace.state) as folder:
        place = Path(folder)
        _compose(workspace, sources, place / "data")
        try:
            suggested, unnamed = _parameters(workspace, sources, unlabelled, place)
        except UserError as error:
            because = error.message.splitlines()[0].replace(f"{place}/", "").replace(f"{workspace.root}/", "")
            return [f"not asked, the next run will ask it: {because}"]
        try:
            lines = _run(workspace, place)
        except UserError as error:
            if suggested and error.kind != "gate":
                return [f"can't judge the data under the section below: {error.message}"]
            if suggested:
                raise UserError(f"{error.message}\n{_read_as(place)}", error.remedy, error.kind) from None
            raise
        finally:
            _keep_report(place, workspace.root)
        return [*lines, *_doubts(suggested, unnamed)]


def _compose(workspace: Workspace, sources: Mapping[Path, Path], data: Path) -> None:
    """A folder like data/ once the sources are in it, of links."""
    data.mkdir()
    there = {path.name: path for path in workspace.data.iterdir()} if workspace.data.is_dir() else {}
    for name, path in (there | {target.name: source for target, source in sources.items()}).items():
        (data / name).symlink_to(path.resolve())


def _parameters(
    workspace: Workspace, sources: Mapping[Path, Path], unlabelled: Path | None, place: Path
) -> tuple[bool, list[str]]:
    """Write the params.yaml to judge by; whether it is the suggested one, and the new files that it doesn't name.

    Raises:
        UserError: why the gate can't judge by either.
    """
    params = load_params(workspace.root / "params.yaml")
    added = [f"data/{target.name}" for target in sources]
    named = [path for path in added if path in set(_named(params))]
    suggested = not (named and all((place / path).exists() for path in _named(params)))
    if suggested:
        pool = place / "data" / unlabelled.name if unlabelled else None
        text = _suggested(workspace, [place / path for path in added], pool)
    else:
        text = (workspace.root / "params.yaml").read_text(encoding="utf-8")
    (place / "params.yaml").write_text(text, encoding="utf-8")
    runtime.record(place / runtime.RUNTIME_FILE)  # what is installed: no result is credited to these versions
    judged_by = load_params(place / "params.yaml")
    if suggested:
        check_files(judged_by.data, place)
        if not (place / judged_by.teacher.base).is_dir():
            raise UserError(f"{judged_by.teacher.base}, whose tokenizer counts the tokens, isn't there.", "", "data")
    return suggested, [path for path in added if path not in set(_named(judged_by))]


def _named(params: Params) -> Iterator[str]:
    """Every file and folder of data/ that params.yaml names, up to its first part inside data/."""
    data = params.data
    paths = [*data.files.values(), *data.models.values(), params.teacher.base]
    paths += [path for task in data.tasks.values() for path in (task.train, task.validation) if path]
    paths += [data.judgements.file] if data.judgements else []
    for path in paths:
        yield "/".join(Path(path).parts[:2])


def _suggested(workspace: Workspace, paths: list[Path], unlabelled: Path | None) -> str:
    """params.yaml with the section that is suggested for the new files, and no groups if they have none."""
    section = suggest_section(paths, unlabelled)
    suggestion = YAML(typ="safe", pure=True).load(section)
    if suggestion["data"]["train"] is None or "# guessed:" in section:
        raise UserError("params.yaml doesn't name the new files, and their columns can only be guessed.", "", "data")
    found: dict[str, Any] = load_yaml(workspace.root / "params.yaml")
    found["data"] = suggestion["data"]
    found["teacher"].update(suggestion.get("teacher", {}))
    found["finetune"]["group"] = "all"
    for key in ("teacher", "distill", "finetune"):
        for phase in found[key]["phases"].values():
            phase["on"] = "all"
    text = io.StringIO()
    YAML(typ="safe", pure=True).dump(found, text)
    return text.getvalue()


def _run(workspace: Workspace, place: Path) -> list[str]:
    """Run the stage in ``place``; what it printed.

    Raises:
        UserError: it refused the data.
    """
    own = (workspace.root / "components" / "__main__.py").exists()
    code = workspace.root if own else Path(components.__path__[0]).parent
    search = os.pathsep.join(filter(None, [str(code), os.environ.get("PYTHONPATH")]))
    process = Process([sys.executable, "-m", "components", STAGE], place, {"PYTHONPATH": search})
    ended, lines = process.follow(lambda _: None)
    if not ended:
        return lines
    told = errors.recall(STAGE, place / errors.ERROR_FOLDER)
    if told is None:
        raise RuntimeError("\n".join([f"The data gate ended with code {ended}:", *lines]))
    remedy = told.remedy.replace(str(REPORT), str(REPORT_OF_ADDED))
    raise UserError(told.message, f"{remedy} Nothing was added; `--no-validate` adds without the gate.", told.kind)


def _read_as(place: Path) -> str:
    data = load_params(place / "params.yaml").data
    files = ", ".join(f"{split} {path}" for split, path in data.files.items())
    named = [f"{role} '{data.columns.of(role)}'" for role in roles(data.kind, about=()) if data.columns.of(role)]
    read = f"the task {data.task} and the columns {' and '.join(filter(None, [', '.join(named[:-1]), named[-1]]))}"
    return f"params.yaml doesn't name these files yet; they were read as {files}, with {read}."


def _keep_report(place: Path, root: Path) -> None:
    if (place / REPORT).is_dir():
        shutil.rmtree(root / REPORT_OF_ADDED, ignore_errors=True)
        (root / REPORT_OF_ADDED).parent.mkdir(exist_ok=True)
        shutil.move(place / REPORT, root / REPORT_OF_ADDED)


def _doubts(suggested: bool, unnamed: list[str]) -> Iterator[str]:
    if suggested:
        yield "judged under the section below, since params.yaml doesn't name these files yet"
    if unnamed:
        yield f"not looked at, since params.yaml doesn't name it: {', '.join(unnamed)}"
