"""The section ``export`` of params.yaml."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from components.params.section import Count, Positive, Section

Share = Annotated[float, Field(ge=0, le=1)]
Format = Literal["onnx", "int8"]


class Export(Section):
    """Which files the fine-tuned student is exported to, and how much they may differ from it.

    ``tolerance`` is the share of validation rows that int8 may lose against float32; ``parity`` the largest
    difference of a logit that float32 may show on any test row; ``calibration_texts`` are training texts from which
    int8 takes the ranges of activations.
    """

    formats: list[Format] = Field(default=["onnx", "int8"])
    tolerance: Share = 0.01
    parity: Positive = 1.0e-4
    calibration_texts: Count = 256
    batch_size: Count = 64

    @field_validator("formats")
    @classmethod
    def _named_once(cls, value: list[Format]) -> list[Format]:
        if len(set(value)) < len(value):
            raise ValueError(f"expected different formats, got {value}")
        return value
