"""params.yaml -> typed parameters. The one YAML loader; it follows DVC's rules (YAML 1.2)."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from components.errors import UserError

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Severity = Literal["error", "warning", "off"]


class Section(BaseModel):
    """A mapping of params.yaml: unknown keys and wrong types are errors, values don't change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


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
        if value is not None and (not value.startswith("data/") or ".." in Path(value).parts):
            raise ValueError(f"must name a file inside data/, such as data/{Path(value).name}")
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
    Annotated[Literal["all", "head"], Tag("word")]
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

    @property
    def groups(self) -> list[str] | None:
        """The groups to train on; None for all of them."""
        return None if self.on == "all" else [self.on] if isinstance(self.on, str) else self.on


class Phases(Section):
    """Named phases and the order they run in (DVC ignores the order of a mapping's keys)."""

    order: list[str]
    phases: dict[str, Phase] = {}

    @model_validator(mode="after")
    def _order_names_phases(self) -> Phases:
        for name in self.order:
            if name not in self.phases:
                raise ValueError(f"order names the phase '{name}', which phases lacks{_nearest(name, self.phases)}")
        if len(set(self.order)) < len(self.order):
            raise ValueError("order names a phase twice")
        return self

    @property
    def sequence(self) -> list[tuple[str, Phase]]:
        """The phases that run, in order, by name."""
        return [(name, self.phases[name]) for name in self.order]


class Teacher(Phases):
    """The model to learn from; an empty order takes ``base`` as already tuned."""

    base: str


class Label(Section):
    """The teacher's logits over the training rows and the pool."""

    batch_size: Count = 64


class Student(Section):
    """Which of the teacher's layers the student is built from."""

    layers: Count | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = 3
    take: Literal["lower", "upper", "uniform"] = "lower"


class Distill(Phases):
    """Distillation: ``alpha * KD(temperature) + beta * CE``."""

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
    """The task-specific fine-tune of the student on one group."""

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

    def get(self, key: str) -> Any:
        """The value of a dotted key, such as ``data.max_length``."""
        value: Any = self
        for part in key.split("."):
            fields = type(value).model_fields
            value = getattr(value, next(name for name, field in fields.items() if part in (name, field.alias)))
        return value


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
    try:
        return Params.model_validate(found)
    except ValidationError as error:
        lines = {line: None for details in error.errors() if (line := _explain(details, path))}
        raise UserError("\n".join(lines), "docs/parameters.md lists every key.", "parameters") from None


def _explain(details: ErrorDetails, path: Path) -> str | None:
    """One line for one of pydantic's errors; None where another of them says it better."""
    location = _location(details["loc"])
    key, section = location[-1] if location else "", ".".join(location[:-1]) or "the top level"
    if details["type"] == "extra_forbidden":
        return f"{path}: unknown key '{key}' in {section}{_nearest(key, _valid_keys(location[:-1]))}"
    if details["type"] == "missing":
        return f"{path}: '{key}' is missing in {section}"
    problem = details["msg"].removeprefix("Value error, ").removeprefix("Input ")
    came = f", got {details['input']!r:.120}" if details["type"] != "value_error" else ""
    return f"{path}: {'.'.join(location) or 'the file'}: {problem}{came}"


def _location(parts: tuple[int | str, ...]) -> list[str]:
    """The key's path in the file: pydantic's, less the names it gives to the members of a union."""
    unions = {"word", "str", "float", "constrained-int"}
    location: list[str] = []
    for index, part in enumerate(map(str, parts)):
        tag = part in ("last_layers", "lora") and index > 0 and parts[index - 1] == "trainable"
        if not tag and part not in unions and "[" not in part:
            location.append(part)
    return location


def _valid_keys(location: list[str]) -> list[str]:
    """The keys that the section at ``location`` takes."""
    section: Any = Params
    for part in location:
        fields = getattr(section, "model_fields", {})
        matched = [field.annotation for name, field in fields.items() if part in (name, field.alias)]
        if part == "trainable":
            section = _TRAINABLE_KEYS
        elif section == dict[str, Phase]:
            section = Phase
        elif section is _TRAINABLE_KEYS:
            section = LoraSettings
        else:
            section = matched[0] if matched else None
    if section is _TRAINABLE_KEYS:
        return list(_TRAINABLE_KEYS)
    return [field.alias or name for name, field in getattr(section, "model_fields", {}).items()]


_TRAINABLE_KEYS = ("last_layers", "lora")


def _nearest(name: str, valid: Any) -> str:
    near = difflib.get_close_matches(name, [str(key) for key in valid], n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else f"; valid: {', '.join(map(str, valid))}" if valid else ""
