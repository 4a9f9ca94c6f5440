"""Everything that can be checked before anything starts: parameters, runtime, data, base model."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from components import runtime
from components.errors import UserError
from components.ml.folders import check_folder
from components.params import Params, load_params
from components.validate.reading import check_files
from flows.workspace import Workspace


def check(workspace: Workspace) -> Params:
    """Check what a run needs and return the parameters.

    Raises:
        UserError: all that is wrong, in one message, so that it can be mended in one go.
    """
    params = load_params(workspace.root / "params.yaml")
    checks: list[Callable[[], None]] = [
        lambda: runtime.check(workspace.root / runtime.RUNTIME_FILE),
        workspace.check_data,
        lambda: _check_inputs(workspace.root, params),
    ]
    problems: list[UserError] = []
    for each in checks:
        try:
            with _relative_to(workspace.root):
                each()
        except UserError as error:
            problems.append(error)
            if error.kind == "data":
                break  # what is read from data/ would only say the same again
    if len(problems) > 1:
        raise UserError("\n".join(map(str, problems)), kind=problems[0].kind)
    if problems:
        raise problems[0]
    return params


def _check_inputs(root: Path, params: Params) -> None:
    check_folder(root / params.teacher.base, params.data.max_length)
    check_files(params.data, root)


@contextlib.contextmanager
def _relative_to(root: Path):  # type: ignore[no-untyped-def]
    """Messages name files as params.yaml does, not by their place on this machine."""
    try:
        yield
    except UserError as error:
        raise UserError(error.message.replace(f"{root}/", ""), error.remedy, error.kind) from None
