"""The sections data and validate of params.yaml: the user's files, and the rules of the gate."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from components.ml.tasks.table import DEFAULT, TASKS
from components.ml.tasks.task import Reading, Task
from components.params.columns import Columns, task_name, with_roles
from components.params.section import Section, Share, inside_data

Severity = Literal["error", "warning", "off"]
InsideData = Annotated[str, AfterValidator(inside_data)]
TaskName = Annotated[str, AfterValidator(task_name)]
TARGET = "target"
"""What phases call the project's own task."""


class Split(Section):
    """Shares of the splits that are not given as files."""

    validation: Annotated[float, Field(gt=0, lt=1)] = 0.1
    test: Annotated[float, Field(gt=0, lt=1)] = 0.2
    seed: int = 13

    @model_validator(mode="after")
    def _leaves_training_rows(self) -> Split:
        if self.validation + self.test >= 1:
            raise ValueError("validation + test must leave a share for training, below 1 in sum")
        return self


class Windows(Section):
    """How rows that are longer than ``data.max_length`` tokens are read.

    With ``stride`` in windows that share that many tokens; what a model says of them is put together by ``pooling``,
    where a row is judged as a whole. null cuts such rows.
    """

    stride: Annotated[int, Field(ge=0)] | None = None
    pooling: Literal["mean", "max"] = "mean"

    def reading(self, max_length: int) -> Reading:
        """How rows are cut to at most ``max_length`` tokens."""
        return Reading(max_length, self.stride, self.pooling)


CUT = Windows()
"""No windows: rows that are too long are cut."""


class OtherTask(Section):
    """A task that phases may train beside the project's own; its columns have the names of their roles unless named."""

    type: TaskName
    train: InsideData
    validation: InsideData | None = None
    columns: Annotated[Columns, Field(validate_default=True)] = Columns()

    @field_validator("columns", mode="before")
    @classmethod
    def _roles_of_the_task(cls, value: Any, info: ValidationInfo) -> Any:
        given = {} if value == Columns() else value
        return with_roles(given, TASKS[info.data["type"]], about=()) if "type" in info.data else value

    @property
    def kind(self) -> Task:
        """What its task is."""
        return TASKS[self.type]


class JudgementColumns(Section):
    """Names of the columns in a file of judgements: ``label``, or ``probabilities`` (a mapping of label to number)."""

    text: str = "text"
    text_pair: str | None = None
    label: str | None = "label"
    probabilities: str | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> JudgementColumns:
        if (self.label is None) == (self.probabilities is None):
            raise ValueError(
                f"expected either label or probabilities to name a column and the other to be null, "
                f"got label {self.label!r} and probabilities {self.probabilities!r}"
            )
        return self


class Judgements(Section):
    """What a model that isn't trained here, such as a large language model, said of some texts.

    ``confidence`` is the probability that a bare label stands for; the other classes share the rest evenly.
    """

    file: InsideData
    columns: JudgementColumns = JudgementColumns()
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.9


class Data(Section):
    """The user's files inside ``data/``, the task that their rows are of and how to read them."""

    task: TaskName = DEFAULT
    train: InsideData
    validation: InsideData | None = None
    test: InsideData | None = None
    unlabelled: InsideData | None = None
    columns: Annotated[Columns, Field(validate_default=True)] = Columns()
    labels: Annotated[list[str], Field(min_length=2)] | None = None
    max_length: Annotated[int, Field(ge=8)] = 128
    windows: Windows = Windows()
    split: Split = Split()
    near_duplicate: Annotated[float, Field(gt=0, le=1)] | None = 0.8
    models: dict[str, InsideData] = Field(default_factory=dict)
    tasks: dict[str, OtherTask] = Field(default_factory=dict)
    judgements: Judgements | None = None

    @field_validator("columns", mode="before")
    @classmethod
    def _roles_of_the_task(cls, value: Any, info: ValidationInfo) -> Any:
        """Texts and classes have no name of their own: the user says it."""
        given, name = {} if value == Columns() else value, info.data.get("task")
        return value if name is None else with_roles(given, TASKS[name], named=name == DEFAULT)

    @field_validator("labels", mode="before")
    @classmethod
    def _numbers_are_names_too(cls, value: Any) -> Any:
        """Labels are read from files as text, `5` like the word five."""
        if not isinstance(value, list):
            return value
        return [str(label) if isinstance(label, int) and not isinstance(label, bool) else label for label in value]

    @field_validator("labels")
    @classmethod
    def _distinct_names(cls, value: list[str] | None) -> list[str] | None:
        for label, count in Counter(value).items():
            if not label.strip():
                raise ValueError(f"expected names of classes, got the empty {label!r}; name each class")
            if count > 1:
                raise ValueError(f"expected different names, got {label!r} {count} times; name each class once")
        return value

    @field_validator("labels")
    @classmethod
    def _names_what_the_data_names(cls, value: list[str] | None, info: ValidationInfo) -> list[str] | None:
        task = TASKS.get(info.data.get("task", ""))
        if value is not None and task is not None and (task.labels is not None or not task.least_labels):
            raise ValueError(f"expected null, since targets of {task.name} aren't classes, got {value!r:.80}")
        return value

    @field_validator("windows")
    @classmethod
    def _windows_of_one_text(cls, value: Windows, info: ValidationInfo) -> Windows:
        columns, longest = info.data.get("columns"), info.data.get("max_length")
        if value.stride is not None and columns is not None and columns.text_pair is not None:
            raise ValueError(
                f"expected stride null, since pairs of texts aren't read in windows, got {value.stride}; "
                "the longer text of a pair is cut"
            )
        if value.stride is not None and longest is not None and value.stride >= longest:
            raise ValueError(f"expected a stride below max_length ({longest}), got {value.stride}")
        return value

    @field_validator("models", "tasks")
    @classmethod
    def _names_for_files(cls, value: dict[str, Any]) -> dict[str, Any]:
        """Names of tasks become folders, and names of models stand in tables."""
        for name in value:
            if not name.replace("_", "").replace("-", "").isalnum() or name in (TARGET, "teacher", "mean"):
                raise ValueError(
                    f"expected names of letters, digits, - and _, other than teacher, target and mean, got {name!r}"
                )
        return value

    @field_validator("judgements")
    @classmethod
    def _judges_classes(cls, value: Judgements | None, info: ValidationInfo) -> Judgements | None:
        task = TASKS.get(info.data.get("task", ""))
        if value is not None and task is not None and not task.classes_per_row:
            known = ", ".join(name for name, one in TASKS.items() if one.classes_per_row)
            raise ValueError(f"expected null, since only rows of one class ({known}) are judged, got judgements")
        return value

    @model_validator(mode="after")
    def _judges_what_is_classified(self) -> Data:
        if self.judgements and (self.judgements.columns.text_pair is None) != (self.columns.text_pair is None):
            raise ValueError(
                "expected columns.text_pair and judgements.columns.text_pair both to name a column or both to be null, "
                f"got {self.columns.text_pair!r} and {self.judgements.columns.text_pair!r}"
            )
        return self

    @property
    def kind(self) -> Task:
        """What the project's own task is."""
        return TASKS[self.task]

    @property
    def files(self) -> dict[str, str]:
        """The splits that are given, by name, in the order train, validation, test, unlabelled."""
        named = {name: getattr(self, name) for name in ("train", "validation", "test", "unlabelled")}
        return {name: path for name, path in named.items() if path is not None}


class Rule(Section):
    """A gate rule without a bound."""

    severity: Severity


class ShareRule(Rule):
    """At most this share of the rows of a split may break the rule."""

    max_share: Share = 0.0


class RowsRule(Rule):
    """At least this many rows."""

    min_rows: Annotated[int, Field(ge=0)]


class BalanceRule(Rule):
    """At least this share of the rows."""

    min_share: Share


class Rules(Section):
    """The data gate's rules; each has a severity.

    ``sound_rows`` is about rows that the task can't read, such as tags that don't match their tokens; ``language_mix``
    about rows of other splits than training that are written in a script which hardly any training row is written in.
    """

    schema_: Rule = Field(Rule(severity="error"), alias="schema")
    missing_text: ShareRule = ShareRule(severity="error")
    missing_label: ShareRule = ShareRule(severity="error")
    blank_text: ShareRule = ShareRule(severity="error")
    known_label: ShareRule = ShareRule(severity="error")
    sound_rows: ShareRule = ShareRule(severity="error")
    encoding: ShareRule = ShareRule(severity="warning", max_share=0.001)
    language_mix: ShareRule = ShareRule(severity="warning", max_share=0.05)
    truncated: ShareRule = ShareRule(severity="warning", max_share=0.05)
    duplicates: ShareRule = ShareRule(severity="warning", max_share=0.01)
    conflicting_labels: ShareRule = ShareRule(severity="warning", max_share=0.01)
    leakage: ShareRule = ShareRule(severity="error")
    shared_texts: ShareRule = ShareRule(severity="warning")
    shared_documents: ShareRule = ShareRule(severity="error")
    rows_per_class: RowsRule = RowsRule(severity="error", min_rows=20)
    class_balance: BalanceRule = BalanceRule(severity="warning", min_share=0.1)


class Validate(Section):
    """The data gate."""

    rules: Rules = Field(default_factory=lambda: Rules.model_validate({}))
