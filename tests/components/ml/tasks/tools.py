"""What tests of tasks share: rows of every task, tiny models of every architecture, and how rows become batches."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from components.ml.models.entity_markers import add_markers
from components.ml.models.task_models import configure, new_model
from components.ml.rows.tokenised import Collator, Source, tokenise
from components.ml.tasks.relation_classification import MARKERS
from components.ml.tasks.table import TASKS
from components.ml.tasks.task import Reading
from components.ml.training.objectives import Labels
from tests.conftest import BAD, GOOD, NEUTRAL

LABELS: dict[str, list[str]] = {
    "text-classification": ["negative", "neutral", "positive"],
    "multi-label-classification": ["battery", "price", "screen", "屏幕"],
    "regression": ["score"],
    "token-classification": ["B-人", "I-人", "O"],
    "relation-classification": ["Born(e1,e2)", "Born(e2,e1)", "Other"],
    "question-answering": ["start or no answer", "end or no answer"],
}
SMALL: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 16,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 66,
    "pad_token_id": 0,
}
RELATIVE: dict[str, Any] = {"relative_attention": True, "position_buckets": 8, "pos_att_type": ["p2c", "c2p"]}
CONFIGS: dict[str, Callable[[], Any]] = {
    "bert": lambda: transformers.BertConfig(**SMALL),
    "roberta": lambda: transformers.RobertaConfig(**SMALL),
    "distilbert": lambda: transformers.DistilBertConfig(
        vocab_size=64, dim=16, n_layers=3, n_heads=2, hidden_dim=32, max_position_embeddings=66, pad_token_id=0
    ),
    "deberta-v2": lambda: transformers.DebertaV2Config(**SMALL, **RELATIVE),
    "modernbert": lambda: transformers.ModernBertConfig(
        **SMALL, bos_token_id=2, eos_token_id=3, cls_token_id=2, sep_token_id=3
    ),
}
WORDS = [*GOOD, *BAD, *NEUTRAL, "goodbad", "手机", "filmstory电影"]
"""Some are one token, some more; of the Chinese ones each character is one."""
WHOLE = Reading(64)


def words(draw: random.Random, least: int, most: int) -> list[str]:
    return draw.choices(WORDS, k=draw.randint(least, most))


def sample(kind: str, count: int, seed: int = 0, longest: int = 12) -> list[tuple[Any, Any]]:
    """Rows of a task as a model reads them, with canonical targets."""
    draw = random.Random(seed)
    made = {
        "multi-label-classification": lambda: (
            " ".join(words(draw, 1, longest)),
            sorted(draw.sample(range(4), draw.randint(0, 4))),
        ),
        "regression": lambda: (" ".join(words(draw, 1, longest)), draw.uniform(-2, 3)),
        "token-classification": lambda: _tagged(draw, longest),
        "relation-classification": lambda: _related(draw, longest),
        "question-answering": lambda: _asked(draw, longest),
    }.get(kind, lambda: (" ".join(words(draw, 1, longest)), draw.randrange(3)))
    return [made() for _ in range(count)]


def _tagged(draw: random.Random, longest: int) -> tuple[list[str], list[int]]:
    tokens = words(draw, 1, longest)
    return tokens, [draw.randrange(3) for _ in tokens]


def _related(draw: random.Random, longest: int) -> tuple[str, int]:
    parts = [words(draw, 1, max(longest // 4, 1)) for _ in range(5)]
    pairs = [MARKERS[:2], MARKERS[2:]][:: draw.choice([1, -1])]
    for place, (before, after) in zip((1, 3), pairs, strict=True):
        parts[place] = [before, *parts[place], after]
    return " ".join(word for part in parts for word in part), draw.randrange(3)


def _asked(draw: random.Random, longest: int) -> tuple[tuple[str, str], list[dict[str, Any]]]:
    question, tokens = " ".join(words(draw, 1, 4)), words(draw, 1, longest)
    context, answers = " ".join(tokens), []
    if draw.random() < 0.8:
        first = draw.randrange(len(tokens))
        start = len(" ".join(tokens[:first])) + bool(first)
        answers = [{"text": " ".join(tokens[first : first + draw.randint(1, 3)]), "start": start}]
    return (question, context), answers


def write_rows(folder: Path, kind: str, rows: Sequence[tuple[Any, Any]]) -> Path:
    """A split as `validate` writes it, of one shard; the documents are pairs of rows, the groups a and b."""
    folder.mkdir(parents=True)
    count = len(rows)
    inputs = [given for given, _ in rows]
    columns: dict[str, Any] = {"row": pa.array(range(count), pa.int64())}
    if kind == "token-classification":
        columns["tokens"] = pa.array(inputs, pa.list_(pa.string()))
    columns["text"] = pa.array([given if isinstance(given, str) else " ".join(given) for given in inputs], pa.string())
    if kind == "question-answering":
        columns |= {
            name: pa.array([given[place] for given in inputs]) for place, name in enumerate(("text", "text_pair"))
        }
    columns["label"] = pa.array([target for _, target in rows], TASKS[kind].target_type())
    columns["group"] = pa.array(["ab"[index % 2] for index in range(count)], pa.string())
    columns["document"] = pa.array([f"d{index // 2}" for index in range(count)], pa.string())
    pq.write_table(pa.table(columns), folder / "part-00000.parquet")
    return folder


def model_of(
    kind: str, tokenizer: PreTrainedTokenizerBase, architecture: str = "bert", labels: list[str] | None = None
) -> PreTrainedModel:
    """A random model of a task in evaluation mode, whose weights are large enough for its logits to differ."""
    torch.manual_seed(7)
    task = TASKS[kind]
    model = new_model(configure(CONFIGS[architecture](), task, LABELS[kind] if labels is None else labels))
    if task.markers:
        add_markers(model, tokenizer)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() == 2 and "embed" not in name:
                weight.normal_(0, 0.3)
    model.eval()
    return model


def reading_only(tokenizer: PreTrainedTokenizerBase, architecture: str) -> PreTrainedTokenizerBase:
    """The tokenizer with the features that an architecture takes."""
    own = copy.deepcopy(tokenizer)
    if architecture != "bert":
        own.model_input_names = ["input_ids", "attention_mask"]
    return own


def items_of(
    folder: Path,
    kind: str,
    rows: Sequence[tuple[Any, Any]],
    tokenizer: PreTrainedTokenizerBase,
    reading: Reading = WHOLE,
    taught: Sequence[bool] = (),
) -> tuple[list[dict[str, Any]], list[np.ndarray | None]]:
    """Rows as a phase reads them, and the teacher's logits of each, drawn at random; None where ``taught`` says so."""
    task, classes = TASKS[kind], len(LABELS[kind])
    split = write_rows(folder / "rows", kind, rows)
    draw = np.random.default_rng(3)
    counts = task.positions([given for given, _ in rows], tokenizer)
    given: list[np.ndarray | None] = [draw.normal(0, 2, (count, classes)).astype(np.float32) for count in counts]
    given = [
        one if not taught or there else None for one, there in zip(given, taught or [True] * len(rows), strict=True)
    ]
    lists = [None if one is None else one.ravel().tolist() for one in given]
    table = pa.table({"row": pa.array(range(len(rows)), pa.int64()), "logits": pa.array(lists, pa.list_(pa.float32()))})
    (folder / "logits").mkdir()
    pq.write_table(table, folder / "logits/part-00000.parquet")
    source = Source(split, folder / "logits", taught=False)
    found = tokenise([source], tokenizer, folder / "rows.arrow", task=task, classes=classes, reading=reading)
    return [found[index] for index in range(len(found))], given


def gradient(
    model: PreTrainedModel, objective: Labels, collate: Collator, batches: Sequence[list[dict[str, Any]]]
) -> tuple[float, list[Tensor]]:
    """Loss and gradient of an accumulated batch, the sum over its micro-batches."""
    model.zero_grad()
    parts = [collate(items) for items in batches]
    counts = torch.stack([objective.counts(part) for part in parts]).sum(dim=0)
    losses = [objective.loss(model, part, counts) for part in parts]
    torch.stack(losses).sum().backward()
    grads = [weight.grad.clone() for weight in model.parameters() if weight.grad is not None]
    return float(torch.stack(losses).sum().detach()), grads


def assert_micro_batches_add_up(
    model: PreTrainedModel, objective: Labels, collate: Collator, items: list[dict[str, Any]]
) -> float:
    """However rows are batched, and so padded, loss and gradient are the same; gives the loss."""
    loss, whole = gradient(model, objective, collate, [items])
    shuffled = sorted(items, key=lambda item: len(item["input_ids"]))
    for batches in ([items[:2], items[2:]], [[item] for item in items], [shuffled[::2], shuffled[1::2]]):
        again, parts = gradient(model, objective, collate, batches)
        assert abs(again - loss) < 1e-5 * max(abs(loss), 1.0)
        for one, other in zip(whole, parts, strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)
    return loss


def own_logits(
    model: Any, tokenizer: PreTrainedTokenizerBase, kind: str, ids: Sequence[int], types: Any = None
) -> Tensor:
    """What a model says of one window alone: of shape (classes,) or (tokens, classes)."""
    features = {"input_ids": torch.tensor([list(ids)])}
    features["attention_mask"] = torch.ones_like(features["input_ids"])
    if types is not None:
        features["token_type_ids"] = torch.tensor([list(types)])
    return TASKS[kind].logits(model(**features))[0]
