"""Everything that can be checked before anything starts: parameters, runtime, data, base model."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Sequence
from pathlib import Path

from components import runtime
from components.errors import UserError
from components.loader import load_params
from components.ml.models.folders import brings_code, check_folder, count_layers, trust_code
from components.params.project import Params
from components.validate.reading import check_files
from flows.phase_checks import check_layers, check_phases, check_students_tokenizer, raise_all
from flows.repo.workspace import PlannedStage, Workspace

MOST_LISTED = 20


def check(workspace: Workspace) -> Params:
    """Check what a run needs and return the parameters.

    Raises:
        UserError: all that is wrong, in one message, so that it can be mended in one go.
    """
    params = load_params(workspace.root / "params.yaml")
    trust_code(params.runtime.trust_remote_code)
    checks: list[Callable[[], None]] = [
        lambda: runtime.check(workspace.root / runtime.RUNTIME_FILE),
        workspace.check_data,
        lambda: check_folder(workspace.root / params.teacher.base, params.data.max_length),
        lambda: _check_models(workspace.root, params),
        lambda: _check_code(workspace.root, params),
        lambda: check_phases(params),
        lambda: check_layers(_layers_of_base(workspace.root, params), params, workspace.root),
        lambda: check_students_tokenizer(params, workspace.root),
        lambda: check_files(params.data, workspace.root),
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
    raise_all(problems)
    return params


def check_plan(params: Params, plan: Sequence[PlannedStage]) -> None:
    """Refuse stages that could not compute on this machine.

    Args:
        params: what names the device.
        plan: what a run would do; what is skipped or restored from DVC's cache needs no device.

    Raises:
        UserError: the device isn't there, in the words of the stage that would find it out.
    """
    device = params.runtime.device
    if device == "cpu" or all(stage.action in ("skip", "restore") for stage in plan):
        return
    from components.ml.models.device import check_device  # torch: 1.8 s

    check_device(device)


def check_groups(known: Sequence[str], params: Params) -> None:
    """Refuse groups that no training row belongs to.

    Args:
        known: the groups of the training rows, as ``validate`` found them.
        params: what names groups.

    Raises:
        UserError: every unknown group with the key it stands in, and the groups there are.
    """
    unknown = [
        f"{key}: no training row belongs to the group '{group}'.{_similar(group, known)}"
        for key, groups in params.named_groups().items()
        for group in groups
        if group not in known
    ]
    if unknown:
        more = f" and {len(known) - MOST_LISTED} more" if len(known) > MOST_LISTED else ""
        listed = f"The training rows belong to: {', '.join(known[:MOST_LISTED])}{more}."
        raise UserError("\n".join([*unknown, listed]), "Name these groups, or `all`, in params.yaml.", "parameters")


def _similar(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def _check_models(root: Path, params: Params) -> None:
    """Refuse other pretrained models that can't be loaded, under the name that params.yaml has for them.

    Raises:
        UserError: all that is wrong with any of them.
    """
    problems: list[UserError] = []
    for name, folder in params.data.models.items():
        try:
            check_folder(root / folder, params.data.max_length, f"data.models.{name}")
        except UserError as error:
            problems.append(error)
    raise_all(problems)


def _check_code(root: Path, params: Params) -> None:
    """Refuse to register a model that would need code of its own wherever it is served.

    Raises:
        UserError: nothing is exported, and the student has the teacher's architecture or another model's.
    """
    student = params.distill.student.model
    folder = root / (params.data.models.get(student, params.teacher.base) if student else params.teacher.base)
    if brings_code(folder) and not params.export.formats:
        raise UserError(
            f"The model {folder} brings code of its own, and nothing is exported (export.formats): what is registered "
            "would need that code where it is served.",
            "Export it: `export.formats: [int8]`; an exported model has no code.",
            "parameters",
        )


def _layers_of_base(root: Path, params: Params) -> int | None:
    try:
        return count_layers(root / params.teacher.base)
    except UserError:  # told by the check of the folder
        return None


@contextlib.contextmanager
def _relative_to(root: Path):  # type: ignore[no-untyped-def]
    """Messages name files as params.yaml does, not by their place on this machine."""
    try:
        yield
    except UserError as error:
        raise UserError(error.message.replace(f"{root}/", ""), error.remedy, error.kind) from None
