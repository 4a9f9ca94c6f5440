"""The sections of params.yaml that belong to one stage each, and the runtime of them all."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from components.params.data import InsideData
from components.params.phases import Distillation, Dtype, Phases
from components.params.section import Count, Positive, Section, Seed, Weight


class Runtime(Section):
    """Device, CPU threads, number format, the room for reused activations, and whether models may bring code of their
    own: inputs of every result."""

    device: Literal["cpu", "cuda", "mps"] = "cpu"
    threads: Count = 2
    dtype: Dtype = "float32"
    reuse_gb: Weight = 4.0
    trust_remote_code: bool = False


class Teacher(Phases):
    """The model to learn from; an empty order takes ``base`` as already tuned."""

    base: InsideData


class Label(Section):
    """What students learn from: the teacher's logits, several teachers' mean, or given judgements."""

    batch_size: Count = 64
    source: Literal["teachers", "judgements"] = "teachers"
    teachers: Annotated[dict[str, Positive], Field(min_length=1)] = Field(default_factory=lambda: {"teacher": 1.0})


class Student(Section):
    """What the student is built from: layers of the teacher, another pretrained model, or a configuration.

    ``model`` is a name under ``data.models``; ``config`` changes the teacher's configuration, and the weights
    are drawn at random.
    """

    layers: Count | Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] | None = None
    take: Literal["lower", "upper", "uniform"] = "lower"
    model: str | None = None
    config: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Student:
        given = [name for name in ("layers", "model", "config") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(f"expected one of layers, model and config, got {' and '.join(given) or 'none'}")
        return self


class Distill(Distillation):
    """Distillation into a student."""

    student: Student = Student(layers=3)

    @model_validator(mode="after")
    def _has_a_phase(self) -> Distill:
        if not self.order:
            raise ValueError("order is empty: the student needs at least one phase")
        return self


class Finetune(Distillation):
    """The task-specific fine-tune of the student on one group, or on ``all`` rows."""

    prompts = True
    group: str


class Controls(Section):
    """What the comparison may be given besides: the fine-tune without distillation first, and more seeds."""

    direct_finetune: bool = False
    seeds: list[Seed] = Field(default_factory=list)

    @field_validator("seeds")
    @classmethod
    def _named_once(cls, value: list[int]) -> list[int]:
        if len(set(value)) < len(value):
            raise ValueError(f"expected different seeds, got {value}")
        return value


class Bootstrap(Section):
    """Resampling of whole documents (Efron & Tibshirani 1993, percentile intervals)."""

    resamples: Annotated[int, Field(ge=100)] = 2000
    confidence: Annotated[float, Field(gt=0, lt=1)] = 0.95
    seed: Seed = 13


class Evaluate(Section):
    """How models are compared on the test rows."""

    bootstrap: Bootstrap = Bootstrap()
    calibration_bins: Count = 15
    batch_size: Count = 64
