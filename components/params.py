"""The sections of params.yaml as types: every key, its type, its bounds, its default."""

from __future__ import annotations

import difflib
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_validator,
)

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Severity = Literal["error", "warning", "off"]


def nearest(name: str, valid: Any) -> str:
    """The valid name that was probably meant, or all of them; the end of a message."""
    near = difflib.get_close_matches(name, [str(key) for key in valid], n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else f"; valid: {', '.join(map(str, valid))}" if valid else ""


def inside_data(path: str) -> str:
    """``path``, which must be inside data/: that alone is pinned.

    Raises:
        ValueError: it isn't.
    """
    if not path.startswith("data/") or ".." in Path(path).parts:
        raise ValueError(f"must be inside data/, such as data/{Path(path).name}, got '{path}'")
    return path


class Section(BaseModel):
    """A mapping of params.yaml: unknown keys, wrong types and infinite numbers are errors, values don't change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


class Runtime(Section):
    """Device, CPU threads and number format: inputs of every result."""

    device: Literal["cpu", "cuda", "mps"] = "cpu"
    threads: Count = 2
    dtype: Literal["float32", "bfloat16"] = "float32"


class Columns(Section):
    """Names of the columns in the user's files; ``group`` and ``document`` may be absent."""

    text: str
    label: str
    group: str | None = None
    document: str | None = None


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


class Data(Section):
    """The user's files inside ``data/`` and how to read them."""

    train: str
    validation: str | None = None
    test: str | None = None
    unlabelled: str | None = None
    columns: Columns
    labels: Annotated[list[str], Field(min_length=2)] | None = None
    max_length: Annotated[int, Field(ge=8)] = 128
    split: Split = Split()

    @field_validator("train", "validation", "test", "unlabelled")
    @classmethod
    def _inside_data(cls, value: str | None) -> str | None:
        return value if value is None else inside_data(value)

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
    """The data gate's rules; each has a severity."""

    schema_: Rule = Field(Rule(severity="error"), alias="schema")
    missing_text: ShareRule = ShareRule(severity="error")
    missing_label: ShareRule = ShareRule(severity="error")
    blank_text: ShareRule = ShareRule(severity="error")
    known_label: ShareRule = ShareRule(severity="error")
    encoding: ShareRule = ShareRule(severity="warning", max_share=0.001)
    truncated: ShareRule = ShareRule(severity="warning", max_share=0.05)
    duplicates: ShareRule = ShareRule(severity="warning", max_share=0.01)
    conflicting_labels: ShareRule = ShareRule(severity="warning", max_share=0.01)
    leakage: ShareRule = ShareRule(severity="error")
    shared_documents: ShareRule = ShareRule(severity="error")
    rows_per_class: RowsRule = RowsRule(severity="error", min_rows=20)
    class_balance: BalanceRule = BalanceRule(severity="warning", min_share=0.1)


class Validate(Section):
    """The data gate."""

    rules: Rules = Field(default_factory=lambda: Rules.model_validate({}))


class LastLayers(Section):
    """The last N encoder layers and everything above them."""

    last_layers: Annotated[int, Field(ge=0)]


class LoraSettings(Section):
    """Low-rank adaptation (Hu et al. 2021): rank, scale ``alpha / r``, dropout, names of the layers to adapt."""

    r: Count = 8
    alpha: Annotated[float, Field(gt=0)] = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Annotated[list[str], Field(min_length=1)] | None = None


class Lora(Section):
    """Low-rank adapters; the classifier head trains with them."""

    lora: LoraSettings


def _kind_of_trainable(value: Any) -> str | None:
    """Which form of ``trainable`` was meant, so that an error speaks of that form alone."""
    if isinstance(value, dict):
        near = difflib.get_close_matches(str(next(iter(value), "")), ["last_layers", "lora"], n=1, cutoff=0.0)
        return near[0] if near else None
    return "last_layers" if isinstance(value, LastLayers) else "lora" if isinstance(value, Lora) else "word"


Trainable = Annotated[
    Annotated[Literal["all", "encoder", "head"], Tag("word")]
    | Annotated[LastLayers, Tag("last_layers")]
    | Annotated[Lora, Tag("lora")],
    Discriminator(_kind_of_trainable),
]


class Phase(Section):
    """One step of training over one model."""

    objective: Literal["labels", "distill"]
    on: str | list[str] = "all"
    epochs: Annotated[float, Field(gt=0)]
    lr: Annotated[float, Field(gt=0)]
    trainable: Trainable = "all"
    batch_size: Count = 32
    accumulate: Count = 1
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None

    @field_validator("on")
    @classmethod
    def _names_a_group(cls, value: str | list[str]) -> str | list[str]:
        if not value:
            raise ValueError(f"expected `all`, a group or a list of groups, got {value!r}")
        return value

    @property
    def groups(self) -> list[str] | None:
        """The groups to train on; None for all of them."""
        return None if self.on == "all" else [self.on] if isinstance(self.on, str) else self.on


class Phases(Section):
    """Named phases and the order they run in (DVC ignores the order of a mapping's keys)."""

    objectives: ClassVar[tuple[str, ...]] = ("labels",)
    order: list[str]
    phases: dict[str, Phase] = {}

    @model_validator(mode="after")
    def _order_names_phases(self) -> Phases:
        for name in self.order:
            if name not in self.phases:
                raise ValueError(f"order names the phase '{name}', which phases lacks{nearest(name, self.phases)}")
        if len(set(self.order)) < len(self.order):
            raise ValueError("order names a phase twice")
        return self

    @model_validator(mode="after")
    def _objectives_can_be_met(self) -> Phases:
        for name, phase in self.phases.items():
            if phase.objective not in self.objectives:
                raise ValueError(
                    f"phases.{name}.objective: expected {' or '.join(self.objectives)}, got '{phase.objective}', which "
                    "learns from the teacher's logits; only the phases of distill have them"
                )
        return self

    @property
    def sequence(self) -> list[tuple[str, Phase]]:
        """The phases that run, in order, by name."""
        return [(name, self.phases[name]) for name in self.order]


class Teacher(Phases):
    """The model to learn from; an empty order takes ``base`` as already tuned."""

    base: str

    @field_validator("base")
    @classmethod
    def _inside_data(cls, value: str) -> str:
        return inside_data(value)


class Label(Section):
    """The teacher's logits over the training rows and the pool."""

    batch_size: Count = 64


class Student(Section):
    """Which of the teacher's layers the student is built from."""

    layers: Count | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = 3
    take: Literal["lower", "upper", "uniform"] = "lower"


class Distill(Phases):
    """Distillation: ``alpha * KD(temperature) + beta * CE``."""

    objectives = ("labels", "distill")
    student: Student = Student()
    temperature: Annotated[float, Field(gt=0)] = 2.0
    alpha: Annotated[float, Field(ge=0)] = 0.9
    beta: Annotated[float, Field(ge=0)] = 0.1

    @model_validator(mode="after")
    def _some_loss(self) -> Distill:
        if self.alpha + self.beta == 0:
            raise ValueError("alpha and beta are both 0: nothing would be learnt")
        if not self.order:
            raise ValueError("order is empty: the student needs at least one phase")
        return self


class Finetune(Phases):
    """The task-specific fine-tune of the student on one group, or on ``all`` rows."""

    group: str


class Bootstrap(Section):
    """Resampling of whole documents (Efron & Tibshirani 1993, percentile intervals)."""

    resamples: Annotated[int, Field(ge=100)] = 2000
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    seed: int = 13


class Evaluate(Section):
    """How models are compared on the test rows."""

    bootstrap: Bootstrap = Bootstrap()
    calibration_bins: Count = 15
    batch_size: Count = 64


class Benchmark(Section):
    """How many texts latency and throughput are measured on."""

    latency_texts: Count = 100
    throughput_texts: Count = 512


class Publish(Section):
    """Where results go in MLflow."""

    experiment: str = "stillhouse"
    registered_model: str = "stillhouse"

    @field_validator("experiment", "registered_model")
    @classmethod
    def _is_a_name(cls, value: str) -> str:
        if not value.strip():
            raise ValueError(f"expected a name, got {value!r}")
        return value

    @field_validator("registered_model")
    @classmethod
    def _stands_in_an_address(cls, value: str) -> str:
        """``models:/NAME@candidate`` must find it."""
        if wrong := sorted(set(value) & set("/:@'\"")):
            raise ValueError(f"expected a name without {' '.join(wrong)}, got {value!r}")
        return value


class Params(Section):
    """All of params.yaml."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 13
    runtime: Runtime = Runtime()
    data: Data
    validate_: Validate = Field(Validate(), alias="validate")
    teacher: Teacher
    label: Label = Label()
    distill: Distill
    finetune: Finetune
    evaluate: Evaluate = Evaluate()
    benchmark: Benchmark = Benchmark()
    publish: Publish = Publish()

    @model_validator(mode="after")
    def _groups_have_a_column(self) -> Params:
        named = self.named_groups()
        if named and self.data.columns.group is None:
            listed = " and ".join(f"{key} names {', '.join(groups)}" for key, groups in named.items())
            raise ValueError(
                f"data.columns.group is null, so there are no groups, but {listed}; "
                f"name the column of the groups there, or set {' and '.join(named)} to all"
            )
        return self

    def named_groups(self) -> dict[str, list[str]]:
        """The groups that are named, by key; ``all`` is no group, and phases that don't run don't count."""
        sections: dict[str, Phases] = {"teacher": self.teacher, "distill": self.distill, "finetune": self.finetune}
        named = {
            f"{section}.phases.{name}.on": phase.groups or []
            for section, phases in sections.items()
            for name, phase in phases.sequence
        }
        named["finetune.group"] = [self.finetune.group]
        return {key: found for key, groups in named.items() if (found := [name for name in groups if name != "all"])}

    def get(self, key: str) -> Any:
        """The value of a dotted key, such as ``data.max_length``."""
        value: Any = self
        for part in key.split("."):
            fields = type(value).model_fields
            value = getattr(value, next(name for name, field in fields.items() if part in (name, field.alias)))
        return value
