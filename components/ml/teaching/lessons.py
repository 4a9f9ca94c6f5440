"""What a student learns from besides true labels: a teacher's logits, and where wanted the teacher itself."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedModel

from components.params.phases import Distillation


@dataclass(frozen=True)
class Lessons:
    """``logits`` is the output of ``label``; ``teacher`` is needed by the terms of ``settings`` alone.

    ``layer_origin`` names, for each layer of the student, the teacher's layer that it was copied from.
    """

    logits: Path
    settings: Distillation
    teacher: PreTrainedModel | None = None
    layer_origin: list[int] | None = None
