"""A tiny random model of each task, with input that it reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from components.ml.tasks.table import TASKS
from tests.onnx_models import _save_tokenizer

WORDS = ["the", "phone", "film", "story", "was", "a", "it", "这", "个", "手", "机", "电", "影", "good", "bad"]
LONG = " ".join(WORDS * 6)
LABELS: dict[str, list[str]] = {
    "text-classification": ["negative", "正面"],
    "multi-label-classification": ["about films", "关于手机", "praise"],
    "regression": ["score"],
    "token-classification": ["B-PER", "I-PER", "O", "B-地点", "I-地点"],
    "relation-classification": ["Cause(e1,e2)", "Cause(e2,e1)", "Other"],
    "question-answering": ["start or no answer", "end or no answer"],
}
INPUTS: dict[str, list[Any]] = {
    "text-classification": ["a good film", LONG, ""],
    "multi-label-classification": ["a good film", LONG, "", "这个手机"],
    "regression": ["a good film", LONG, "", "这个手机"],
    "token-classification": [["a", "good", "film"], ["这", "个", "手", "机"], LONG.split(), ["bad"]],
    "relation-classification": [
        "<e1>the film</e1> was <e2>good</e2>",
        "<e2>手机</e2>很<e1>好</e1>",
        f"{LONG} <e1>a</e1> <e2>b</e2>",
    ],
    "question-answering": [
        ("was it good", "the film was good"),
        ("手机", "这个 手机 good"),
        ("the story", LONG),
        ("", ""),
    ],
}


def save_task_model(folder: Path, encoder: Path, task: str, seed: int = 0) -> Path:
    """A transformers folder: the encoder with a random head."""
    import torch
    from transformers import AutoConfig, AutoTokenizer

    from components.ml.models.entity_markers import add_markers
    from components.ml.models.task_models import configure, new_model

    torch.manual_seed(seed)
    config = AutoConfig.from_pretrained(encoder)
    config.initializer_range = 0.5
    model = new_model(configure(config, TASKS[task], LABELS[task]))
    tokenizer = AutoTokenizer.from_pretrained(encoder)
    if TASKS[task].markers:
        add_markers(model, tokenizer)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def save_tiny_onnx(folder: Path, task: str) -> Path:
    """``model.onnx`` with logits for each token that follow from it alone, config.json and a tokenizer."""
    from tokenizers import Tokenizer, processors

    folder.mkdir(parents=True)
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS]
    _save_graph(folder / "model.onnx", np.random.default_rng(3).normal(size=(len(words), len(LABELS[task]))))
    _save_tokenizer(folder, words)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"id2label": dict(enumerate(LABELS[task])), "stillhouse_task": task}
    config = {"model_type": "bert", "num_hidden_layers": 1, "max_position_embeddings": 64, **names}
    (folder / "config.json").write_text(json.dumps(config, ensure_ascii=False), encoding="utf-8")
    return folder


def _save_graph(path: Path, weights: np.ndarray) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    inputs = [helper.make_tensor_value_info("input_ids", TensorProto.INT64, ["texts", "tokens"])]
    output = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["texts", "tokens", weights.shape[1]])
    nodes = [helper.make_node("Gather", ["weights", "input_ids"], ["logits"])]
    constants = [numpy_helper.from_array(weights.astype(np.float32), "weights")]
    graph = helper.make_graph(nodes, "tiny", inputs, [output], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
