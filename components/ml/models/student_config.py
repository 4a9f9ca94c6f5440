"""Configurations of students: the teacher's with other layers or other sizes, of any architecture."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from transformers import PreTrainedConfig

from components.errors import UserError

_KEPT = (
    *("vocab_size", "type_vocab_size", "num_labels", "id2label", "label2id", "problem_type", "model_type"),
    *("architectures", "auto_map", "transformers_version", "dtype", "torch_dtype", "is_decoder", "is_encoder_decoder"),
    *("stillhouse_task", "entity_markers"),
    *("add_cross_attention", "return_dict", "output_attentions", "output_hidden_states", "tie_word_embeddings"),
)
"""What a student's configuration can't change: it reads the teacher's tokens and tells the teacher's labels."""


def with_layers(config: PreTrainedConfig, chosen: Sequence[int]) -> PreTrainedConfig:
    """A copy for a model of some of the layers; lists with one entry a layer keep those layers' entries.

    Raises:
        UserError: the configuration would read back as another one.
    """
    changed = copy.deepcopy(config)
    lists = {name: [entries[index] for index in chosen] for name, entries in _per_layer(config).items()}
    changed.num_hidden_layers = len(chosen)
    for name, entries in lists.items():
        setattr(changed, name, entries)
    if len(chosen) < config.num_hidden_layers and not _reads_back(changed):
        raise UserError(
            f"distill.student.layers: the configuration of {config.model_type} says in a way of its own what each "
            "layer does, so layers can't be left out.",
            "Use an encoder such as BERT, RoBERTa or DistilBERT as the base model, or another kind of student.",
            "parameters",
        )
    return changed


def with_changes(config: PreTrainedConfig, changes: Mapping[str, Any]) -> PreTrainedConfig:
    """A copy of the teacher's configuration with other sizes, depth, dropout and the like.

    Keys may have the architecture's names or the usual ones (``num_hidden_layers`` for DistilBERT's ``n_layers``).
    Lists with one entry a layer are cut, or begun again where there are more layers. The widths of heads and pooler
    and the number of key and value heads follow the width and the number of heads, where they did so in the teacher.

    Raises:
        UserError: a key that the architecture lacks or that must stay the teacher's, or sizes that don't fit together.
    """
    wanted = _own_names(config, changes)
    settings = {**config.to_dict(), **wanted}
    layers = int(settings[_own_name(config, "num_hidden_layers")])
    for name, entries in _per_layer(config).items():
        if name not in wanted:
            settings[name] = [entries[index % len(entries)] for index in range(layers)]
    settings |= {name: value for name, value in _following(config, settings).items() if name not in wanted}
    try:
        changed: PreTrainedConfig = type(config).from_dict(settings)
    except Exception as error:  # of as many kinds as there are architectures
        raise unfit(config, error) from error
    _check_heads(changed)
    return changed


def unfit(config: PreTrainedConfig, error: Exception) -> UserError:
    """The error for a configuration that no model can be built from."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return UserError(
        f"distill.student.config: no {config.model_type} model can be built with it: {' '.join(lines)}",
        "Change the values, or leave them out: they are the teacher's then.",
        "parameters",
    )


def _own_name(config: PreTrainedConfig, name: str) -> str:
    return str(config.attribute_map.get(name, name))


def _own_names(config: PreTrainedConfig, changes: Mapping[str, Any]) -> dict[str, Any]:
    """The changes under the names of the architecture."""
    fixed = {name for name in config.to_dict() if name in _KEPT or name.endswith("_token_id") or name.startswith("_")}
    known = [name for name in {**config.to_dict(), **config.attribute_map} if name not in {*fixed, *_KEPT}]
    found: dict[str, Any] = {}
    for name, value in changes.items():
        if name in fixed or name in _KEPT:
            raise _refused(f"{name} stays the teacher's", "Leave it out.")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
            guess = f"Did you mean '{near[0]}'? " if near else ""
            raise _refused(f"{config.model_type} knows no '{name}'", f"{guess}It knows: {', '.join(sorted(known))}.")
        if _own_name(config, name) in found:
            raise _refused(f"{name} and {_own_name(config, name)} are one setting", "Leave one of them out.")
        found[_own_name(config, name)] = value
    depth = found.get(_own_name(config, "num_hidden_layers"), 1)
    if not isinstance(depth, int) or isinstance(depth, bool) or depth < 1:
        raise _refused(f"expected a number of layers of 1 or more, got {depth!r}", "Give a whole number.")
    return found


def _per_layer(config: PreTrainedConfig) -> dict[str, list[Any]]:
    """The lists with one entry for each layer, such as ``layer_types``."""
    return {
        name: list(value)
        for name, value in config.to_dict().items()
        if "layer" in name and isinstance(value, list | tuple) and len(value) == config.num_hidden_layers
    }


def _reads_back(config: PreTrainedConfig) -> bool:
    """Whether what will be written to config.json is read as the same configuration."""
    try:
        return bool(type(config).from_dict(config.to_dict()).to_dict() == config.to_dict())
    except Exception:  # of as many kinds as there are architectures
        return False


def _following(config: PreTrainedConfig, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Values that configurations hold though they follow from others: they follow the new ones."""
    width, heads = (settings.get(_own_name(config, name)) for name in ("hidden_size", "num_attention_heads"))
    if not (isinstance(width, int) and isinstance(heads, int) and heads > 0):
        return {}
    were = {
        "head_dim": (config.hidden_size // config.num_attention_heads, width // heads),
        "d_head": (config.hidden_size // config.num_attention_heads, width // heads),
        "num_key_value_heads": (config.num_attention_heads, heads),
        "pooler_hidden_size": (config.hidden_size, width),
    }
    return {name: new for name, (old, new) in were.items() if settings.get(name) == old}


def _check_heads(config: PreTrainedConfig) -> None:
    width, heads = (getattr(config, name, None) for name in ("hidden_size", "num_attention_heads"))
    if not (isinstance(width, int) and isinstance(heads, int)):
        return
    own_width = getattr(config, "head_dim", None) not in (None, width // max(heads, 1))
    if heads < 1 or (width % heads and not own_width):
        raise _refused(
            f"the width (hidden_size) is {width}, which {heads} attention heads (num_attention_heads) don't divide",
            "Choose a width that is a multiple of the number of heads.",
        )
    shared = getattr(config, "num_key_value_heads", None)
    if isinstance(shared, int) and (shared < 1 or heads % shared):
        raise _refused(
            f"{heads} attention heads can't share {shared} key and value heads (num_key_value_heads)",
            "Choose a number that divides the number of attention heads.",
        )


def _refused(found: str, remedy: str) -> UserError:
    return UserError(f"distill.student.config: {found}.", remedy, "parameters")
