"""The forms of a phase's key ``trainable``: which parameters train, and how."""

from __future__ import annotations

import difflib
import re
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, field_validator

from components.params.section import Count, Positive, Section

Targets = Annotated[list[str], Field(min_length=1)]


class LastLayers(Section):
    """The last N encoder layers and everything above them."""

    last_layers: Annotated[int, Field(ge=0)]


class Pattern(Section):
    """The parameters whose name the regular expression matches somewhere (``re.search``)."""

    pattern: str

    @field_validator("pattern")
    @classmethod
    def _is_an_expression(cls, value: str) -> str:
        try:
            re.compile(value)
        except re.error as error:
            raise ValueError(f"expected a regular expression, got {value!r}: {error}") from None
        return value


class GradualSettings(Section):
    """How many epochs pass before the next lower layer thaws."""

    epochs_per_layer: Positive


class Gradual(Section):
    """Gradual unfreezing (Howard & Ruder 2018): the head first, then one more layer at a time from the top."""

    gradual: GradualSettings


class LayerLrDecay(Section):
    """Discriminative learning rates (Howard & Ruder 2018): each layer down has this factor less; the head has lr."""

    layer_lr_decay: Annotated[float, Field(gt=0, le=1)]


class LoraSettings(Section):
    """Low-rank adaptation (Hu et al. 2021): rank, scale ``alpha / r``, dropout, names of the layers to adapt.

    ``dora`` learns magnitudes apart from directions (Liu et al. 2024), ``rslora`` scales by ``alpha / sqrt(r)``
    (Kalajdzievski 2023).
    """

    r: Count = 8
    alpha: Positive = 16
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    targets: Targets | None = None
    dora: bool = False
    rslora: bool = False


class Lora(Section):
    """Low-rank adapters; the classifier head trains with them."""

    lora: LoraSettings


class Ia3Settings(Section):
    """Learned scales of keys, values and feed-forward activations (Liu et al. 2022)."""

    targets: Targets | None = None
    feedforward: Targets | None = None


class Ia3(Section):
    """IA3; the classifier head trains with it."""

    ia3: Ia3Settings


class PromptSettings(Section):
    """How many virtual tokens stand before each text."""

    tokens: Count = 16


class PromptTuning(Section):
    """Prompt tuning (Lester et al. 2021): learned embeddings before the text. Can't be merged into the weights."""

    prompt_tuning: PromptSettings


class PrefixTuning(Section):
    """Prefix tuning (Li & Liang 2021): learned keys and values in every layer. Can't be merged into the weights."""

    prefix_tuning: PromptSettings


class PTuningSettings(PromptSettings):
    """Virtual tokens, and the width of the network that makes their embeddings."""

    hidden: Count = 128


class PTuning(Section):
    """P-tuning (Liu et al. 2021): embeddings before the text, made by a small network. Can't be merged."""

    p_tuning: PTuningSettings


Prompts = PromptTuning | PrefixTuning | PTuning
Adapters = Lora | Ia3 | Prompts
"""What peft adds to the model."""

FORMS: dict[str, type[Section]] = {
    "last_layers": LastLayers,
    "pattern": Pattern,
    "gradual": Gradual,
    "layer_lr_decay": LayerLrDecay,
    "lora": Lora,
    "ia3": Ia3,
    "prompt_tuning": PromptTuning,
    "prefix_tuning": PrefixTuning,
    "p_tuning": PTuning,
}
SETTINGS: dict[str, type[Section]] = {
    "gradual": GradualSettings,
    "lora": LoraSettings,
    "ia3": Ia3Settings,
    "prompt_tuning": PromptSettings,
    "prefix_tuning": PromptSettings,
    "p_tuning": PTuningSettings,
}


def _form(value: Any) -> str | None:
    """Which form of ``trainable`` was meant, so that an error speaks of that form alone."""
    if isinstance(value, dict):
        near = difflib.get_close_matches(str(next(iter(value), "")), FORMS, n=1, cutoff=0.0)
        return near[0] if near else None
    return next((name for name, form in FORMS.items() if isinstance(value, form)), "word")


Trainable = Annotated[
    Annotated[Literal["all", "head"], Tag("word")]
    | Annotated[LastLayers, Tag("last_layers")]
    | Annotated[Pattern, Tag("pattern")]
    | Annotated[Gradual, Tag("gradual")]
    | Annotated[LayerLrDecay, Tag("layer_lr_decay")]
    | Annotated[Lora, Tag("lora")]
    | Annotated[Ia3, Tag("ia3")]
    | Annotated[PromptTuning, Tag("prompt_tuning")]
    | Annotated[PrefixTuning, Tag("prefix_tuning")]
    | Annotated[PTuning, Tag("p_tuning")],
    Discriminator(_form),
]
