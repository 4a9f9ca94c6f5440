"""Phases: the steps of training over one model, each with its objective, rows, parameters and optimisation."""

from __future__ import annotations

import difflib
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from components.params.data import TARGET
from components.params.section import Count, Positive, Section, Share, Weight, nearest
from components.params.trainable import Prompts, Trainable

OPTIMIZERS = (
    *("adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adamw_torch_npu_fused", "adafactor"),
    *("adamw_anyprecision", "adamw_torch_4bit", "adamw_torch_8bit", "ademamix", "sgd", "adagrad", "adamw_bnb_8bit"),
    *("adamw_8bit", "ademamix_8bit", "lion_8bit", "lion_32bit", "paged_adamw_32bit", "paged_adamw_8bit"),
    *("paged_ademamix_32bit", "paged_ademamix_8bit", "paged_lion_32bit", "paged_lion_8bit", "rmsprop", "rmsprop_bnb"),
    *("rmsprop_bnb_8bit", "rmsprop_bnb_32bit", "galore_adamw", "galore_adamw_8bit", "galore_adafactor"),
    *("galore_adamw_layerwise", "galore_adamw_8bit_layerwise", "galore_adafactor_layerwise", "lomo", "adalomo"),
    *("grokadamw", "schedule_free_radam", "schedule_free_adamw", "schedule_free_sgd", "apollo_adamw"),
    *("apollo_adamw_layerwise", "stable_adamw"),
)
"""What transformers calls its optimisers; some need a package of their own."""

Dtype = Literal["float32", "bfloat16", "float16"]


class Mask(Section):
    """Which tokens the objective ``mlm`` hides: of those chosen 80% are masked, 10% replaced, 10% kept (BERT)."""

    probability: Annotated[float, Field(gt=0, lt=1)] = 0.15
    whole_words: bool = False


class EarlyStopping(Section):
    """Stop when ``metric`` hasn't improved by ``min_delta`` for ``patience`` validations, and keep the best."""

    metric: str = "loss"
    patience: Count = 2
    min_delta: Weight = 0.0


class ByTemperature(Section):
    """Tasks drawn in proportion to ``rows ** (1 / temperature)`` (Aharoni et al. 2019): 1 is proportional."""

    temperature: Annotated[float, Field(ge=1)]


class ByWeight(Section):
    """Tasks drawn in proportion to given weights, by name."""

    weights: dict[str, Positive]


SHARES: dict[str, type[Section]] = {"temperature": ByTemperature, "weights": ByWeight}


def _way(value: Any) -> str | None:
    """Which way of sampling was meant, so that an error speaks of that one alone."""
    if isinstance(value, dict):
        near = difflib.get_close_matches(str(next(iter(value), "")), SHARES, n=1, cutoff=0.0)
        return near[0] if near else None
    return next((name for name, way in SHARES.items() if isinstance(value, way)), "word")


Sampling = Annotated[
    Annotated[Literal["proportional"], Tag("word")]
    | Annotated[ByTemperature, Tag("temperature")]
    | Annotated[ByWeight, Tag("weights")],
    Discriminator(_way),
]


class Phase(Section):
    """One step of training over one model."""

    objective: Literal["mlm", "labels", "distill"]
    on: str | list[str] = "all"
    epochs: Positive
    lr: Positive
    trainable: Trainable = "all"
    freeze_embeddings: bool = False
    batch_size: Count = 32
    batch_tokens: Count | None = None
    accumulate: Count = 1
    optimizer: str = "adamw_torch_fused"
    schedule: Literal["linear", "cosine", "constant", "polynomial", "reduce_on_plateau"] = "linear"
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.1
    weight_decay: Weight = 0.01
    max_grad_norm: Positive = 1.0
    dtype: Dtype | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    class_weights: Literal["balanced"] | dict[str, Positive] | None = None
    early_stopping: EarlyStopping | None = None
    mask: Mask = Mask()
    tasks: Annotated[list[str], Field(min_length=1)] = Field(default_factory=lambda: [TARGET])
    sampling: Sampling = "proportional"

    @field_validator("on")
    @classmethod
    def _names_a_group(cls, value: str | list[str]) -> str | list[str]:
        if not value or (isinstance(value, list) and "all" in value):
            raise ValueError(f"expected `all`, a group or a list of groups, got {value!r}")
        return value

    @field_validator("optimizer")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in OPTIMIZERS:
            raise ValueError(f"expected one of transformers' optimisers, got '{value}'{nearest(value, OPTIMIZERS)}")
        return value

    @model_validator(mode="after")
    def _fits_together(self) -> Phase:
        if self.schedule == "reduce_on_plateau" and "warmup" in self.model_fields_set and self.warmup:
            raise ValueError(f"schedule reduce_on_plateau has no warm-up, got warmup {self.warmup}; leave it out")
        if self.objective == "mlm" and (self.tasks != [TARGET] or self.class_weights or self.label_smoothing):
            raise ValueError("objective mlm learns from the texts alone; it takes no tasks, weights or smoothing")
        if isinstance(self.trainable, Prompts) and (self.objective == "mlm" or self.tasks != [TARGET]):
            raise ValueError("prompts stand before the texts of the target task alone; train them on labels or distill")
        if self.objective == "mlm" and self.trainable == "head":
            raise ValueError(
                "objective mlm drops its head afterwards: with trainable: head nothing that stays would be trained"
            )
        if TARGET not in self.tasks and (self.class_weights or self.objective == "distill"):
            raise ValueError(
                f"class_weights and objective distill are about the project's own task, which tasks lacks: {self.tasks}"
            )
        if isinstance(self.sampling, ByWeight) and set(self.sampling.weights) != set(self.tasks):
            raise ValueError(
                f"sampling.weights must name the phase's tasks ({', '.join(self.tasks)}), "
                f"got {', '.join(self.sampling.weights)}"
            )
        if len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"tasks names one twice: {', '.join(self.tasks)}")
        return self

    @property
    def groups(self) -> list[str] | None:
        """The groups to train on; None for all of them."""
        return None if self.on == "all" else [self.on] if isinstance(self.on, str) else self.on


class Phases(Section):
    """Named phases and the order they run in (DVC ignores the order of a mapping's keys)."""

    objectives: ClassVar[tuple[str, ...]] = ("mlm", "labels")
    prompts: ClassVar[bool] = False  # whether the last phase may leave adapters that can't be merged
    order: list[str]
    phases: dict[str, Phase] = Field(default_factory=dict)

    @field_validator("phases")
    @classmethod
    def _names_for_files(cls, value: dict[str, Phase]) -> dict[str, Phase]:
        for name in value:
            if not name.replace("_", "").replace("-", "").isalnum():
                raise ValueError(f"expected names of letters, digits, - and _, got {name!r}")
        return value

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
                    "learns from the teacher's logits; only the phases of distill and finetune have them"
                )
        return self

    @model_validator(mode="after")
    def _prompts_come_last(self) -> Phases:
        for name, phase in self.sequence:
            if isinstance(phase.trainable, Prompts) and not (self.prompts and name == self.order[-1]):
                raise ValueError(
                    f"phases.{name}.trainable: prompts can't be merged into the weights, so nothing can be trained "
                    "or built on them; they can only be the last phase of finetune"
                )
        return self

    @property
    def sequence(self) -> list[tuple[str, Phase]]:
        """The phases that run, in order, by name."""
        return [(name, self.phases[name]) for name in self.order]


class PseudoLabels(Section):
    """What the teacher's word on rows without labels is worth.

    ``soft``: its logits, in the term alpha * KD. ``hard``: its class, in the term beta * CE. Rows on which its
    calibrated probability is below ``min_confidence`` are left out, and beyond ``max_per_class`` rows of one
    predicted class the least certain. ``none`` leaves out all rows without labels.
    """

    kind: Literal["soft", "hard", "none"] = "soft"
    min_confidence: Share = 0.0
    max_per_class: Count | None = None


class HiddenTerm(Section):
    """Mean squared error of hidden states (Jiao et al. 2020); ``layers[i]`` is the teacher's layer for student layer i.

    null for ``layers`` spreads the teacher's layers evenly, null for one layer leaves it out.
    """

    weight: Positive = 1.0
    layers: list[Annotated[int, Field(ge=0)] | None] | None = None


class AttentionTerm(HiddenTerm):
    """KL divergence of attention probabilities, layer by layer; as many heads in both models."""


class RelationTerm(Section):
    """MiniLM's self-attention relations (Wang et al. 2020, 2021): KL of the relations among queries, keys and values.

    Of one layer of each model (null: the last), split into ``heads`` relation heads, so widths may differ.
    """

    weight: Positive = 1.0
    heads: Count = 12
    student_layer: Annotated[int, Field(ge=0)] | None = None
    teacher_layer: Annotated[int, Field(ge=0)] | None = None


class Terms(Section):
    """What the student learns from inside the teacher, besides its logits; null switches a term off."""

    hidden: HiddenTerm | None = None
    attention: AttentionTerm | None = None
    relation: RelationTerm | None = None


class Distillation(Phases):
    """Phases with the objective ``distill``: ``alpha * KD(temperature) + beta * CE``, and the optional terms."""

    objectives = ("mlm", "labels", "distill")
    temperature: Positive = 2.0
    alpha: Weight = 0.9
    beta: Weight = 0.1
    pseudo_labels: PseudoLabels = PseudoLabels()
    terms: Terms = Terms()

    @model_validator(mode="after")
    def _some_loss(self) -> Any:
        if all(phase.objective != "distill" for _, phase in self.sequence):
            return self
        if self.alpha + self.beta == 0 and self.terms == Terms():
            raise ValueError("alpha and beta are both 0 and there are no terms: nothing would be learnt")
        kind = self.pseudo_labels.kind
        if (kind == "hard" and self.beta == 0) or (kind == "soft" and self.alpha == 0 and self.terms == Terms()):
            weight = "beta" if kind == "hard" else "alpha"
            raise ValueError(
                f"pseudo_labels.kind is {kind}, but {weight} is 0, so rows without labels would teach nothing; "
                f"raise {weight}, or set kind to none"
            )
        return self
