"""What a served model of any task takes and answers, in numpy; a copy travels with models that need it.

Input comes in columns named by the roles of the task's columns but for the target: ``text`` (and ``text_pair``),
``question`` and ``context``, ``tokens`` (lists of words) or ``text``. Nothing here imports PyTorch unless a
transformers model is loaded.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from components.ml.rows.inputs import PAIR, TEXT, TOKENS, Input
from components.ml.tasks.configured import configured_labels
from components.ml.tasks.table import TASKS
from components.ml.tasks.task import Reading, Task, Window

ANSWERS: dict[str, Any] = {
    "label": str,
    "labels": [str],
    "score": float,
    "entities": [{"type": str, "text": str, "start": int, "end": int, "score": float}],
    "answer": str,
    "start": int,
    "end": int,
}
"""The types of what tasks answer, by name: a list stands for lists of its one element, a mapping for a structure."""
Forward = Callable[[Mapping[str, np.ndarray]], np.ndarray]
"""From the tokenizer's arrays of shape (windows, tokens) to logits, float32 of shape (windows, classes), or (windows,
tokens, classes)."""
_BATCH, _ROWS_AT_ONCE = 32, 1024
_CHARACTERS = 256
"""What stands behind this many characters for each token is cut unread: megabytes would take seconds to tokenise."""
_TEXTS = ("a text", "一段文字")


class Refused(Exception):
    """An input that the task doesn't read; ``number`` of the row, counted from 0, ``expected`` and what it is."""

    def __init__(self, number: int, expected: str, found: str) -> None:
        super().__init__(f"expected {expected}; number {number}, counted from 0, is {found}.")
        self.number, self.expected, self.found = number, expected, found


def usual_form(task: Task, paired: bool = False) -> list[str]:
    """The columns of input: what rows without names of columns are read as.

    Args:
        task: whose input it is.
        paired: whether it reads pairs, where it may.
    """
    roles = [role for role in task.columns if role != task.target]
    return [*roles, PAIR] if paired and PAIR in task.optional else roles


def forms(task: Task, paired: bool = False) -> list[list[str]]:
    """All that the columns may be; of those that are all there, the first count."""
    usual = usual_form(task, paired)
    spans = [role for role in task.optional if role in task.lists]
    return [usual, [TEXT]] if TOKENS in usual else [[*usual, *spans], usual] if spans else [usual]


def read(task: Task, columns: Mapping[str, Sequence[Any]]) -> list[Input]:
    """What a model reads of each row.

    Args:
        task: the model's.
        columns: the values of one of ``forms``, by role.

    Raises:
        Refused: a row isn't what the task reads.
    """
    rows = zip(*columns.values(), strict=True)
    return [_read_row(task, number, dict(zip(columns, row, strict=True))) for number, row in enumerate(rows)]


def _read_row(task: Task, number: int, values: dict[str, Any]) -> Input:
    given = {role: _plain(value) for role, value in values.items()}
    if TOKENS in task.columns:
        (value,) = given.values()
        if isinstance(value, str):
            return _sound(value)
        given = {TOKENS: _words(number, value)}
        if not given[TOKENS]:
            return []
    else:
        for role, value in given.items():
            if role not in task.lists:
                given[role] = _text(number, value, f" as '{role}'" if len(given) > 1 else "")
    example = task.read(given)
    if example.faults:
        fault = example.faults[0]
        raise Refused(number, f"what {task.name} reads", f"one {fault.what}{fault.detail and f': {fault.detail}'}")
    if task.markers and not any(text and text.strip() for text in example.texts):
        raise Refused(number, f"what {task.name} reads", f"one without {', '.join(task.markers)}: no text")
    if example.tokens is not None:
        return example.tokens
    texts = [text or "" for text in example.texts]
    return texts[0] if len(texts) == 1 else (texts[0], texts[1])


def _plain(value: Any) -> Any:
    """Without numpy's types."""
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    return list(value) if isinstance(value, tuple) else value


def _text(number: int, value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise Refused(number, f"texts{where}", _told(value))
    return _sound(value)


def _words(number: int, value: Any) -> list[str]:
    if not isinstance(value, list):
        raise Refused(number, "a text or a list of words", _told(value))
    for word in value:
        if not isinstance(word, str):
            raise Refused(number, "a text or a list of words", f"a list with {_told(word)}")
    return [_sound(word) for word in value]


def _told(value: Any) -> str:
    return f"{value!r:.100} ({type(value).__name__})"


def _sound(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")  # JSON can hold half a character


def example(task: Task, paired: bool = False) -> list[Input]:
    """Some input that a model of the task can read."""
    first, second = _TEXTS
    if len(usual_form(task, paired)) > 1:
        return [_TEXTS]
    if task.markers:
        return [f"{task.markers[0]}{first}{task.markers[1]} {task.markers[2]}{second}{task.markers[3]}"]
    return list(_TEXTS)


def answer_keys(task: Task, labels: Sequence[str], tokenizer: Any = None, paired: bool = False) -> list[str]:
    """What an answer holds that has a column of its own, in order; see ``ANSWERS`` for the types."""
    inputs = example(task, paired)
    logits = [np.zeros((positions, len(labels)), dtype=np.float32) for positions in task.positions(inputs, tokenizer)]
    told = task.answers(inputs, task.decode(inputs, logits, labels, tokenizer), logits, labels)
    return [key for key, value in told[0].items() if not isinstance(value, dict)]


def has_probabilities(task: Task) -> bool:
    """Whether a row has a probability for each label."""
    return task.classes_per_row or task.problem_type == "multi_label_classification"


def probabilities(task: Task, logits: Sequence[np.ndarray], classes: int) -> np.ndarray:
    """Of each label: float64 of shape (rows, classes). Only where the task has them."""
    from components.ml.statistics.metrics import softmax

    rows = np.concatenate([np.zeros((0, classes)), *logits]).astype(np.float64)
    return softmax(rows) if task.classes_per_row else 1 / (1 + np.exp(-rows))


@dataclass(frozen=True)
class Served:
    """A model's task, tokenizer and labels, and how it reads rows; what computes logits is given to ``logits``."""

    task: Task
    tokenizer: Any
    labels: list[str]
    reading: Reading
    paired: bool = False
    refused: ClassVar[type[Exception]] = Refused

    @classmethod
    def of(cls, folder: Path, settings: Mapping[str, Any]) -> Served:
        """The model in a transformers folder, or one with an ONNX file.

        Args:
            folder: where it is.
            settings: ``task``, ``max_length``, ``stride``, ``pooling`` and ``paired``.
        """
        from transformers import AutoTokenizer

        stride = settings.get("stride")
        return cls(
            task=TASKS[settings["task"]],
            tokenizer=AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False),
            labels=configured_labels(json.loads((folder / "config.json").read_text(encoding="utf-8"))),
            reading=Reading(
                int(settings["max_length"]),
                None if stride is None else int(stride),
                str(settings.get("pooling") or "mean"),
            ),
            paired=bool(settings.get("paired")),
        )

    @property
    def forms(self) -> list[list[str]]:
        """The columns that input may have, the usual ones last; see `forms`."""
        usual = usual_form(self.task, self.paired)
        return [*forms(self.task, self.paired), usual]

    @property
    def returns(self) -> tuple[str, ...]:
        """What may be asked for, the usual first."""
        usual = "label" if self.task.classes_per_row else "answers"
        return (usual, "probabilities", "logits") if has_probabilities(self.task) else (usual, "logits")

    @property
    def by_label(self) -> bool:
        """Whether a row has one logit for each label."""
        from components.ml.tasks.row_task import RowTask

        return isinstance(self.task, RowTask)

    def auto_model(self) -> Any:
        """What has ``from_pretrained`` for a transformers folder."""
        from components.ml.models.task_models import auto_model

        return auto_model(self.task)

    def read(self, columns: Mapping[str, Sequence[Any]]) -> list[Input]:
        """See `read`; what can't be reached is cut, unless rows are read in windows."""
        inputs = read(self.task, columns)
        if self.reading.stride is not None or self.tokenizer.truncation_side != "right":
            return inputs
        return [_cut(given, self.reading.max_length * _CHARACTERS) for given in inputs]

    def logits(self, inputs: Sequence[Input], forward: Forward) -> list[np.ndarray]:
        """Of each row, in input order, float32 of shape (positions, classes)."""
        found: list[np.ndarray] = []
        for first in range(0, len(inputs), _ROWS_AT_ONCE):
            rows = self.task.windows(self.tokenizer, inputs[first : first + _ROWS_AT_ONCE], self.reading)
            scored = iter(self._scored([window for row in rows for window in row], forward))
            found += [self.task.merge(row, list(itertools.islice(scored, len(row))), self.reading) for row in rows]
        return found

    def _scored(self, windows: Sequence[Window], forward: Forward) -> list[np.ndarray]:
        """The logits of each window; batches hold windows of similar length."""
        lengths = [len(window.features["input_ids"]) for window in windows]
        order = sorted(range(len(windows)), key=lengths.__getitem__)
        found = [np.zeros(0, dtype=np.float32)] * len(windows)
        for start in range(0, len(order), _BATCH):
            batch = order[start : start + _BATCH]
            features = [dict(windows[index].features) for index in batch]
            logits = forward(self.tokenizer.pad(features, padding=True, return_tensors="np"))
            for index, one in zip(batch, logits, strict=True):
                at = windows[index].at
                found[index] = one if at is None else one[list(at)]
        return found

    def answers(self, inputs: Sequence[Input], logits: Sequence[np.ndarray]) -> list[dict[str, Any]]:
        """What a user is told of each row, by name."""
        if not inputs:
            return []
        predictions = self.task.decode(inputs, logits, self.labels, self.tokenizer)
        return self.task.answers(inputs, predictions, logits, self.labels)

    def table(self, inputs: Sequence[Input], logits: Sequence[np.ndarray], wanted: str) -> dict[str, Any]:
        """Columns of one of ``returns``.

        Logits of rows with several positions are one list for each row, position after position, None where one
        was cut off.
        """
        if wanted == "probabilities":
            return dict(zip(self.labels, probabilities(self.task, logits, len(self.labels)).T, strict=True))
        if wanted == "logits" and self.by_label:
            whole = np.concatenate([np.zeros((0, len(self.labels)), dtype=np.float32), *logits])
            return dict(zip(self.labels, whole.T, strict=True))
        if wanted == "logits":
            return {"logits": [[None if each != each else each for each in one.ravel().tolist()] for one in logits]}
        told = self.answers(inputs, logits)
        return {key: [answer[key] for answer in told] for key in answer_keys_of(told)}


def answer_keys_of(answers: Sequence[Mapping[str, Any]]) -> list[str]:
    """As `answer_keys`, of answers; none where there is no answer."""
    return [key for key, value in answers[0].items() if not isinstance(value, dict)] if answers else []


def _cut(given: Input, most: int) -> Input:
    """Without what stands behind so many characters."""
    if isinstance(given, str):
        return given[:most]
    if isinstance(given, tuple):
        return given[0][:most], given[1][:most]
    ends = itertools.accumulate(len(word) + 1 for word in given)
    return [word[:most] for word, end in zip(given, ends, strict=True) if end - len(word) - 1 < most]
