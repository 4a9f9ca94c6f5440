"""Which task a model folder is for, as its config.json says it; needs no PyTorch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from components.ml.tasks.table import DEFAULT, TASKS
from components.ml.tasks.task import Task

TASK = "stillhouse_task"
"""The key of config.json that names the task, where the architecture alone doesn't tell."""
_BY_ARCHITECTURE = {"ForTokenClassification": "token-classification", "ForQuestionAnswering": "question-answering"}
_UNNAMED = {"0": "LABEL_0", "1": "LABEL_1"}  # which transformers doesn't write


def configured_task(config: Mapping[str, Any], classes: Sequence[str] = ()) -> Task:
    """The task that a parsed config.json names, or else the one of its architecture.

    Args:
        config: the content of config.json.
        classes: names of the model's classes, where it is at hand.
    """
    if (named := config.get(TASK)) in TASKS:
        return TASKS[str(named)]
    names = [*(config.get("architectures") or []), *classes]
    for ending, task in _BY_ARCHITECTURE.items():
        if any(name.endswith(ending) for name in names):
            return TASKS[task]
    by_problem = {task.problem_type: task for task in TASKS.values() if task.problem_type}
    return by_problem.get(str(config.get("problem_type")), TASKS[DEFAULT])


def configured_labels(config: Mapping[str, Any]) -> list[str]:
    """What the logits of a position stand for, in order."""
    names = config.get("id2label") or _UNNAMED
    return [str(name) for _, name in sorted((int(index), name) for index, name in names.items())]
