"""From a transformers folder to an ONNX file: any number of texts and tokens, no path and no time in it."""

from __future__ import annotations

import json
import logging
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import torch

from components.errors import UserError
from components.export.attention import fuse_attention
from components.export.first_token import keep_first_token
from components.ml.models.onnx_classifier import PARAMETERS, WEIGHTS
from components.ml.models.scoring import ADAPTER, load_classifier
from components.ml.models.task_models import task_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_SAMPLE = ["one two three four", "five"]  # two texts of different lengths: nothing takes a size for a constant


class _Logits(torch.nn.Module):
    """The model as a function of tensors alone."""

    def __init__(self, model: PreTrainedModel, names: list[str]) -> None:
        super().__init__()
        self.model, self.names, self.task = model, names, task_of(model)

    def forward(self, *features: torch.Tensor) -> torch.Tensor:
        return self.task.logits(self.model(**dict(zip(self.names, features, strict=True))))


def convert(source: Path, target: Path, max_length: int) -> None:
    """Write ``model.onnx``, config.json and the tokenizer of the transformers folder ``source`` to ``target``.

    The graph comes from `torch.export`, which refuses what it can't follow; a traced one would silently be wrong for
    other lengths. The tokenizer there cuts texts at ``max_length`` tokens where it isn't told otherwise.

    Raises:
        UserError: the model needs prompts, or PyTorch can't export its architecture.
    """
    if (source / ADAPTER).is_dir():
        raise _refused("its prompts are added by peft, which `torch.export` doesn't follow")
    model, tokenizer = load_classifier(source)
    plain: Any = model
    try:
        exported = _export(plain, tokenizer)
    except Exception as error:
        raise _refused(f"{type(error).__name__}: {str(error).strip().splitlines()[0]}") from error
    parameters = sum(weight.numel() for weight in plain.parameters())
    onnx.helper.set_model_props(exported, {PARAMETERS: str(parameters)})
    target.mkdir(parents=True, exist_ok=True)
    onnx.save(exported, target / WEIGHTS)
    plain.config.save_pretrained(target)
    _forget_code(target)
    tokenizer.model_max_length = max_length
    tokenizer.save_pretrained(target)


def _forget_code(folder: Path) -> None:
    """The graph is all the code there is: what stood beside the weights isn't needed, nor wanted where it is served."""
    for path in folder.glob("*.py"):
        path.unlink()
    path = folder / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    if config.pop("auto_map", None):
        path.write_text(json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n", encoding="utf-8")


def _export(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> onnx.ModelProto:
    model.set_attn_implementation("eager")  # the others guard against rows without tokens, which takes operations
    features = tokenizer(_SAMPLE, padding=True, return_tensors="pt")
    names = list(features)
    texts, tokens = torch.export.Dim("texts"), torch.export.Dim("tokens")
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logger.setLevel(logging.ERROR)  # it tells of torchvision, which isn't installed
        try:
            program = torch.onnx.export(
                _Logits(model, names),
                tuple(features.values()),
                input_names=names,
                output_names=["logits"],
                dynamic_shapes=(tuple({0: texts, 1: tokens} for _ in names),),
                dynamo=True,
                verbose=False,
            )
        finally:
            logger.setLevel(level)
    assert program is not None
    fuse_attention(program.model)
    keep_first_token(program.model)  # where tokens have logits, all of them are read, and it changes nothing
    return _clean(program.model_proto)


def _clean(exported: onnx.ModelProto) -> onnx.ModelProto:
    """Without where on this machine each operation came from."""
    del exported.metadata_props[:]
    graph = exported.graph
    for part in [graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output]:
        del part.metadata_props[:]
        part.doc_string = ""
    return exported


def _refused(because: str) -> UserError:
    return UserError(
        f"The fine-tuned student can't be exported to ONNX: {because}.",
        "Leave the export out: `export.formats: []`; everything else works without it.",
        "model",
    )
