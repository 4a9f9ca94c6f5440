"""All of params.yaml: its sections, and what they say of each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from components.params.card import Card
from components.params.data import TARGET, Data, Validate
from components.params.export import Export
from components.params.gate import Gate
from components.params.monitoring import Monitoring
from components.params.phases import Phases
from components.params.section import Count, Positive, Section, Seed, Weight, nearest
from components.params.stages import Controls, Distill, Evaluate, Finetune, Label, Runtime, Teacher


class Benchmark(Section):
    """How many texts latency and throughput are measured on."""

    latency_texts: Count = 100
    throughput_texts: Count = 512


class Publish(Section):
    """Where results go in MLflow; a model of more than ``copy_below_gb`` is logged by reference, unless it is
    registered."""

    experiment: str = "stillhouse"
    registered_model: str = "stillhouse"
    copy_below_gb: Weight = 2.0

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


class Checkpoints(Section):
    """How often stages that train save where they are, and how long that is kept; no result depends on it."""

    every: Annotated[int, Field(ge=0, multiple_of=10)] = 100
    keep_days: Positive = 7.0
    newest: Count = 3


class Params(Section):
    """All of params.yaml."""

    seed: Seed = 13
    runtime: Runtime = Runtime()
    data: Data
    validate_: Validate = Field(Validate(), alias="validate")
    teacher: Teacher
    label: Label = Label()
    distill: Distill
    finetune: Finetune
    controls: Controls = Controls()
    export: Export = Export()
    evaluate: Evaluate = Evaluate()
    checkpoints: Checkpoints = Checkpoints()
    benchmark: Benchmark = Benchmark()
    publish: Publish = Publish()
    gate: Gate = Gate()
    card: Card = Card()
    monitoring: Monitoring = Monitoring()

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

    @model_validator(mode="after")
    def _names_have_files(self) -> Params:
        problems = list(self._unknown_names())
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @model_validator(mode="after")
    def _seeds_differ(self) -> Params:
        if self.seed in self.controls.seeds:
            raise ValueError(
                f"controls.seeds names {self.seed}, the seed of the main models, which count as one seed already"
            )
        return self

    def _unknown_names(self) -> Iterator[str]:
        for key, phases in self.all_phases().items():
            for name, phase in phases.phases.items():
                for task in phase.tasks:
                    if task not in (TARGET, *self.data.tasks):
                        near = nearest(task, [TARGET, *self.data.tasks])
                        yield f"{key}.phases.{name}.tasks names '{task}', which data.tasks lacks{near}"
        models = self.data.models
        if self.distill.student.model not in (None, *models):
            yield (
                f"distill.student.model is '{self.distill.student.model}', which data.models lacks"
                f"{nearest(str(self.distill.student.model), models)}"
            )
        for teacher in self.label.teachers:
            if teacher not in ("teacher", *models):
                near = nearest(teacher, ["teacher", *models])
                yield f"label.teachers names '{teacher}', which data.models lacks{near}"
        if self.label.source == "judgements" and self.data.judgements is None:
            yield "label.source is judgements, but data.judgements is null; name the file there"

    def all_phases(self) -> dict[str, Phases]:
        """The sections that are mappings of phases, by name."""
        return {"teacher": self.teacher, "distill": self.distill, "finetune": self.finetune}

    def named_groups(self) -> dict[str, list[str]]:
        """The groups that are named, by key; ``all`` is no group, and phases that don't run don't count."""
        named = {
            f"{section}.phases.{name}.on": phase.groups or []
            for section, phases in self.all_phases().items()
            for name, phase in phases.sequence
        }
        named["finetune.group"] = [self.finetune.group]
        named["gate.group"] = [self.gate.group or "all"]
        named["monitoring.group"] = [self.monitoring.group or "all"]
        return {key: found for key, groups in named.items() if (found := [name for name in groups if name != "all"])}

    def get(self, key: str) -> Any:
        """The value of a dotted key, such as ``data.max_length``."""
        value: Any = self
        for part in key.split("."):
            fields = type(value).model_fields
            value = getattr(value, next(name for name, field in fields.items() if part in (name, field.alias)))
        return value
