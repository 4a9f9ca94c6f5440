"""A classifier that reads the hidden states at the opening markers of two entities, over any encoder."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.models.auto.modeling_auto import MODEL_MAPPING

from components.ml.tasks.relation_classification import HEAD, MARKERS

PLACES = "entity_markers"
"""The key of config.json with the ids of both opening markers."""


class EntityMarkerModels:
    """Makes models as the auto classes of transformers do (Baldini Soares et al. 2019, "entity markers, entity start").

    A model gives logits of shape (rows, classes) from the concatenated hidden states at the first ``<e1>`` and the
    first ``<e2>`` of each row; where a marker was cut off, from those at the first token.
    """

    _model_mapping = MODEL_MAPPING

    @staticmethod
    def from_config(config: PreTrainedConfig, *, dtype: torch.dtype | None = None, **_: Any) -> PreTrainedModel:
        """A model whose weights are drawn under torch's global seed."""
        model = _class(config)(config)
        return model if dtype is None else nn.Module.to(model, dtype=dtype)

    @staticmethod
    def from_pretrained(folder: Any, *, config: PreTrainedConfig | None = None, **options: Any) -> Any:
        """As ``PreTrainedModel.from_pretrained``."""
        trusted = {name: options.pop(name) for name in ("trust_remote_code",) if name in options}
        config = config or AutoConfig.from_pretrained(folder, local_files_only=True, **trusted)
        return _class(config).from_pretrained(folder, config=config, **options)


def add_markers(model: PreTrainedModel, tokenizer: Any) -> None:
    """Put the markers into the vocabulary, where they aren't yet, and tell the model their ids."""
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKERS)}, replace_extra_special_tokens=False)
    if len(tokenizer) > model.config.vocab_size:
        model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    setattr(model.config, PLACES, [tokenizer.convert_tokens_to_ids(MARKERS[place]) for place in (0, 2)])


def _class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The classifier of an architecture: it shares what the architecture's other models have in common."""
    base: Any = MODEL_MAPPING[type(config)]
    shared: Any = next(
        each for each in base.__mro__ if each.__name__.endswith("PreTrainedModel") and each is not PreTrainedModel
    )
    options = {"add_pooling_layer": False} if "add_pooling_layer" in inspect.signature(base.__init__).parameters else {}

    def init(self: Any, config: PreTrainedConfig) -> None:
        shared.__init__(self, config)
        setattr(self, shared.base_model_prefix, base(config, **options))
        dropout = getattr(config, "hidden_dropout_prob", None)
        self.dropout = nn.Dropout(0.1 if dropout is None else float(dropout))
        self.classifier = nn.Linear(2 * config.hidden_size, len(config.id2label or ()))
        self.post_init()

    made: type[PreTrainedModel] = type(HEAD, (shared,), {"__init__": init, "forward": _forward, "__module__": __name__})
    return made


def _forward(
    self: Any, input_ids: Tensor, attention_mask: Tensor | None = None, token_type_ids: Tensor | None = None, **_: Any
) -> SequenceClassifierOutput:
    features: dict[str, Any] = {"input_ids": input_ids, "attention_mask": attention_mask}
    if token_type_ids is not None:
        features["token_type_ids"] = token_type_ids
    hidden = self.base_model(**features)[0]
    # Where a marker was cut off, the first token stands in, before which there may be padding.
    first = torch.zeros_like(input_ids) if attention_mask is None else (attention_mask.cumsum(dim=1) == 1)
    states = [
        _at(hidden, (2 * (input_ids == marker).int() + first.int()).argmax(dim=1))
        for marker in self.config.entity_markers
    ]
    return SequenceClassifierOutput(logits=self.classifier(self.dropout(torch.cat(states, dim=-1))))


def _at(hidden: Tensor, places: Tensor) -> Tensor:
    """The state at one place of each row, of shape (rows, width)."""
    return hidden.gather(1, places[:, None, None].expand(-1, 1, hidden.shape[-1])).squeeze(1)
