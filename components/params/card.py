"""The section ``card`` of params.yaml: what the model card says that no run can know; null: it says "not stated"."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from components.params.section import Section

Words = Annotated[str, Field(min_length=1)]


class Card(Section):
    """What people state of the model; no stage depends on it.

    Args:
        intended_use: what the model is for.
        out_of_scope: what it must not be used for.
        limits: what is known to go wrong, besides what the run itself shows.
        language: codes of the texts' languages, such as ``en`` or ``zh``.
        licence: under which the tuned model may be used; an SPDX name such as ``apache-2.0`` where there is one.
        base_model: where the base model comes from, such as its name on the Hugging Face hub.
        base_licence: the base model's licence; null: the one that its folder states.
        data: where the data comes from.
        data_licence: the data's licence.
        contact: whom to ask.
    """

    intended_use: Words | None = None
    out_of_scope: Words | None = None
    limits: Words | None = None
    language: list[Words] = Field(default_factory=list)
    licence: Words | None = None
    base_model: Words | None = None
    base_licence: Words | None = None
    data: Words | None = None
    data_licence: Words | None = None
    contact: Words | None = None
