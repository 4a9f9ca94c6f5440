"""What a student learns from inside its teacher: terms over hidden states, attention and relations."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from components.errors import UserError
from components.ml.models.layers import map_layers, one_layer
from components.ml.reuse.frozen import evaluating
from components.ml.teaching.recording import Recorder, Recording
from components.ml.teaching.terms import attention_sum, hidden_sum, relation_sum
from components.params.phases import Terms

_PROBED_TOKENS = 4


class FeatureTerms(nn.Module):
    """The terms that are on, each times its weight and summed over its layers, as in TinyBERT (Jiao et al. 2020).

    The student runs once, in ``outputs``, for these terms and whatever else is learnt from its logits. As a module it
    holds only what the terms train besides the student: where widths differ, one linear projection of the student's
    hidden states for all layers, drawn under torch's global seed; there are no parameters otherwise.

    Args:
        teacher: is put into evaluation mode, and learns nothing.
        student: adapters may be put into it later; its list of layers must stay the same.
        terms: the section ``terms`` of a stage.
        layer_origin: the teacher's layers that the student was made of, to be told by ``describe``.

    Raises:
        UserError: a layer that is lacking, heads or widths that don't fit, or a model that doesn't show what a term
            needs.
    """

    def __init__(
        self,
        teacher: PreTrainedModel,
        student: PreTrainedModel | PeftModel,
        terms: Terms,
        layer_origin: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        _refuse_prompts(student)
        for model in (student, teacher):
            _refuse_decoder(model)
        self.terms, self.layer_origin = terms, layer_origin
        self.layers = _layer_maps(terms, len(Recorder(student).layers), len(Recorder(teacher).layers))
        # Recorders are no modules: the two models must not become a part of this one.
        self.student, self.teacher = (
            Recorder(model, self._layers_of("hidden", end), self._layers_of("attention", end, "relation"))
            for end, model in enumerate((student, teacher))
        )
        teacher.eval()
        seen = _probe(self.student), _probe(self.teacher)
        for name, pairs in self.layers.items():
            for pair in pairs:
                self._check(name, pair, seen)
        self.projection = _projection(self.layers.get("hidden", []), *seen).to(self.student.model.device)

    def describe(self) -> str:
        """Which layer learns from which, in words, one line a term."""
        origin = (
            f"the student's layers were the teacher's {', '.join(map(str, self.layer_origin))}"
            if self.layer_origin
            else ""
        )
        return "\n".join(filter(None, [origin, *map(self._describe, self.layers)]))

    def counts(self, batch: Mapping[str, Tensor]) -> Tensor:
        """How many positions the averages run over, padding left out; shape (1,), float64."""
        return _valid(batch).sum().cpu().double().reshape(1)

    def outputs(self, model: nn.Module, features: dict[str, Tensor]) -> tuple[Any, Recording]:
        """The output of ``model``, which is the student or holds it, and what was seen inside the student."""
        _refuse_prompts(model)
        with self.student.recording() as seen:
            output = model(**features)
        return output, seen

    def loss(self, seen: object, features: dict[str, Tensor], counts: Tensor) -> Tensor:
        """This micro-batch's part of the terms; a scalar.

        Args:
            seen: what ``outputs`` gave for the same features.
            features: ``input_ids`` and ``attention_mask``, shape (batch, length).
            counts: the sum of ``counts`` over the whole accumulated batch.
        """
        assert isinstance(seen, Recording)
        valid = _valid(features)
        taught = self._run_teacher(features)
        parts = [
            getattr(self.terms, name).weight * self._term(name, seen, taught, pair, valid)
            for name, pairs in self.layers.items()
            for pair in pairs
        ]
        return torch.stack(parts).sum() / max(float(counts[0]), 1.0)

    def _describe(self, name: str) -> str:
        listed = ", ".join(f"student {mine} <- teacher {theirs}" for mine, theirs in self.layers[name])
        more = ""
        if name == "hidden" and isinstance(self.projection, nn.Linear):
            more = f"; projected from width {self.projection.in_features} to {self.projection.out_features}"
        if name == "relation" and self.terms.relation:
            more = f"; {self.terms.relation.heads} relation heads"
        return f"{_TITLES[name]}: {listed}{more}"

    def _layers_of(self, name: str, end: int, *more: str) -> set[int]:
        """The student's layers (end 0) or the teacher's (end 1) that some terms need."""
        return {pair[end] for each in (name, *more) for pair in self.layers.get(each, [])}

    def _check(self, name: str, pair: tuple[int, int], seen: tuple[Recording, Recording]) -> None:
        models = self.student.model, self.teacher.model
        for found, layer, whose, model in zip(seen, pair, _MODELS, models, strict=True):
            if not _recorded(found, name, layer):
                raise UserError(
                    f"terms.{name}: the {_INSIDE[name]} in layer {layer} of the {whose} can't be read: "
                    f"{type(model).__name__} computes them in a way of its own.",
                    f"Set terms.{name} to null, or use an encoder such as BERT, RoBERTa or DistilBERT.",
                    "parameters",
                )
        (mine, theirs), (student, teacher) = seen, pair
        if name == "attention":
            _check_heads(mine.attention[student].shape[1], theirs.attention[teacher].shape[1])
        if name == "relation" and self.terms.relation:
            for found, layer, whose in zip(seen, pair, _MODELS, strict=True):
                _check_widths(found.vectors[layer], self.terms.relation.heads, whose)

    def _run_teacher(self, features: Mapping[str, Tensor]) -> Recording:
        model = self.teacher.model
        nn.Module.to(model, device=features["input_ids"].device)
        inputs = {name: features[name] for name in ("input_ids", "attention_mask") if name in features}
        with torch.no_grad(), self.teacher.recording() as found:
            model.base_model(**inputs)
        return found

    def _term(self, name: str, mine: Recording, theirs: Recording, pair: tuple[int, int], valid: Tensor) -> Tensor:
        """The sum of one term over valid positions, for one pair of layers."""
        student, teacher = pair
        if name == "hidden":
            return hidden_sum(self.projection(mine.hidden[student]), theirs.hidden[teacher], valid)
        if name == "attention":
            return attention_sum(mine.attention[student], theirs.attention[teacher], valid)
        assert self.terms.relation is not None
        heads = self.terms.relation.heads
        vectors = [(mine.vectors[student][kind], theirs.vectors[teacher][kind]) for kind in _VECTORS]
        return torch.stack([relation_sum(*both, valid, heads) for both in vectors]).sum()


_TITLES = {"hidden": "hidden states", "attention": "attention", "relation": "relations"}
_INSIDE = {"hidden": "hidden states", "attention": "attention probabilities", "relation": "queries, keys and values"}
_MODELS = ("student", "teacher")
_VECTORS = ("queries", "keys", "values")


def check_tokenizers(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> None:
    """Refuse terms between models that cut texts into different tokens: their positions don't correspond.

    Raises:
        UserError: names what differs.
    """
    if student.get_vocab() != teacher.get_vocab():
        differing = "their vocabularies differ"
    elif _rules(student) != _rules(teacher):
        differing = "their rules for cutting texts into tokens differ"
    else:
        return
    raise UserError(
        f"terms: the student has another tokenizer than the teacher ({differing}), "
        "so a position of one corresponds to none of the other.",
        "Set hidden, attention and relation to null; a student with another tokenizer learns from the logits alone.",
        "parameters",
    )


def _rules(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """How a tokenizer cuts texts, but for the length it was last asked for."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return {"class": type(tokenizer).__name__}
    rules: dict[str, Any] = json.loads(backend.to_str())
    return {name: rule for name, rule in rules.items() if name not in ("padding", "truncation")}


def _valid(batch: Mapping[str, Tensor]) -> Tensor:
    """True where there is no padding; shape (batch, length)."""
    mask = batch.get("attention_mask")
    return torch.ones_like(batch["input_ids"], dtype=torch.bool) if mask is None else mask.bool()


def _refuse_prompts(student: nn.Module) -> None:
    if isinstance(student, PeftModel) and student.active_peft_config.is_prompt_learning:
        raise UserError(
            "terms: the student's prompts are positions that the teacher doesn't have.",
            "Set hidden, attention and relation to null, or train other parameters than prompts.",
            "parameters",
        )


def _refuse_decoder(model: PreTrainedModel | PeftModel) -> None:
    if model.config.is_encoder_decoder:
        raise UserError(
            f"terms: {type(model).__name__} has an encoder and a decoder; terms are made for one stack of layers.",
            "Set hidden, attention and relation to null, or use an encoder such as BERT, RoBERTa or DistilBERT.",
            "parameters",
        )


def _layer_maps(terms: Terms, student: int, teacher: int) -> dict[str, list[tuple[int, int]]]:
    """Pairs of layers, the student's first, by the name of the term."""
    found: dict[str, list[tuple[int, int]]] = {}
    for name, term in (("hidden", terms.hidden), ("attention", terms.attention)):
        if term is not None:
            found[name] = list(map_layers(term.layers, student, teacher, f"terms.{name}.layers").items())
    if terms.relation is not None:
        mine = one_layer(terms.relation.student_layer, student, "terms.relation.student_layer", "student")
        theirs = one_layer(terms.relation.teacher_layer, teacher, "terms.relation.teacher_layer", "teacher")
        found["relation"] = [(mine, theirs)]
    return found


def _probe(recorder: Recorder) -> Recording:
    """What a pass over a few tokens leaves; draws no random number."""
    model = recorder.model
    ids = torch.ones((1, _PROBED_TOKENS), dtype=torch.long, device=model.device)
    with torch.no_grad(), evaluating(model), recorder.recording() as found:
        model.base_model(input_ids=ids, attention_mask=torch.ones_like(ids))
    return found


def _recorded(found: Recording, name: str, layer: int) -> bool:
    """Whether the probe left what the term needs, a vector or a row of probabilities for each token."""
    length = _PROBED_TOKENS
    if name == "hidden":
        return layer in found.hidden and found.hidden[layer].shape[:-1] == (1, length)
    if name == "attention":
        return layer in found.attention and found.attention[layer].shape[2:] == (length, length)
    vectors = found.vectors.get(layer, {})
    return all(kind in vectors and vectors[kind].shape[:-1] == (1, length) for kind in _VECTORS)


def _check_heads(student: int, teacher: int) -> None:
    if student != teacher:
        raise UserError(
            "terms.attention: expected as many attention heads in both models, "
            f"the student has {student}, the teacher {teacher}.",
            "Set terms.attention to null and use terms.relation, which compares any number of heads.",
            "parameters",
        )


def _check_widths(vectors: Mapping[str, Tensor], heads: int, whose: str) -> None:
    for kind in _VECTORS:
        width = vectors[kind].shape[-1]
        if width % heads:
            raise UserError(
                f"terms.relation.heads: the {whose}'s {kind} are {width} wide, which {heads} doesn't divide.",
                "Choose a number of relation heads that divides the widths of both models.",
                "parameters",
            )


def _projection(pairs: list[tuple[int, int]], mine: Recording, theirs: Recording) -> nn.Module:
    """From the student's width to the teacher's, drawn at random; nothing to learn where they are equal."""
    if not pairs:
        return nn.Identity()
    student, teacher = pairs[0]
    widths = mine.hidden[student].shape[-1], theirs.hidden[teacher].shape[-1]
    return nn.Identity() if widths[0] == widths[1] else nn.Linear(*widths, bias=False)
