"""Everything that can be checked before anything starts: parameters, runtime, data, base model."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from components import runtime
from components.errors import UserError
from components.loader import load_params
from components.ml.folders import check_folder, count_layers
from components.ml.layers import choose_layers
from components.params import LastLayers, Params, Phases
from components.validate.reading import check_files
from flows.workspace import PlannedStage, Workspace

MOST_LISTED = 20


def check(workspace: Workspace) -> Params:
    """Check what a run needs and return the parameters.

    Raises:
        UserError: all that is wrong, in one message, so that it can be mended in one go.
    """
    params = load_params(workspace.root / "params.yaml")
    checks: list[Callable[[], None]] = [
        lambda: runtime.check(workspace.root / runtime.RUNTIME_FILE),
        workspace.check_data,
        lambda: check_folder(workspace.root / params.teacher.base, params.data.max_length),
        lambda: check_layers(_layers_of_base(workspace.root, params), params),
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
    _raise_all(problems)
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
    from components.ml.device import check_device  # torch: 1.8 s

    check_device(device)


def check_layers(total: int | None, params: Params) -> None:
    """Refuse layers that the base model, or the student built from it, doesn't have.

    Args:
        total: the base model's number of encoder layers; None if it isn't known.
        params: what asks for layers.

    Raises:
        UserError: the key, how many layers were asked for and how many there are.
    """
    student = params.distill.student
    kept = len(student.layers) if isinstance(student.layers, list) else student.layers
    problems: list[UserError] = []
    if total is not None:
        problems += _too_many_layers("teacher", params.teacher, f"base model {params.teacher.base}", total)
        try:
            choose_layers(total, student.layers, student.take)
        except UserError as error:
            problems.append(error)
    problems += _too_many_layers("distill", params.distill, "student", kept)
    problems += _too_many_layers("finetune", params.finetune, "student", kept)
    _raise_all(problems)


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


def _layers_of_base(root: Path, params: Params) -> int | None:
    try:
        return count_layers(root / params.teacher.base)
    except UserError:  # told by the check of the folder
        return None


def _too_many_layers(section: str, phases: Phases, model: str, layers: int) -> Iterator[UserError]:
    for name, phase in phases.sequence:
        if isinstance(phase.trainable, LastLayers) and phase.trainable.last_layers > layers:
            yield UserError(
                f"{section}.phases.{name}.trainable.last_layers: the {model} has {layers} layers, "
                f"got {phase.trainable.last_layers}.",
                f"Choose at most {layers}, or `trainable: all`.",
                "parameters",
            )


def _raise_all(problems: Sequence[UserError]) -> None:
    if len(problems) > 1:
        raise UserError("\n".join(map(str, problems)), kind=problems[0].kind)
    if problems:
        raise problems[0]


@contextlib.contextmanager
def _relative_to(root: Path):  # type: ignore[no-untyped-def]
    """Messages name files as params.yaml does, not by their place on this machine."""
    try:
        yield
    except UserError as error:
        raise UserError(error.message.replace(f"{root}/", ""), error.remedy, error.kind) from None
