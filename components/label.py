"""The teacher's logits over the training rows and the pool, computed once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from components.ml.device import use_device
from components.ml.rows import read_shard
from components.ml.scoring import load_classifier, predict_logits
from components.params import Label, Runtime


def run(
    *,
    train: Path,
    unlabelled: Path,
    teacher: Path,
    runtime: Runtime,
    max_length: int,
    settings: Label,
    output: Path,
) -> None:
    """Write ``train/`` and ``unlabelled/``: Parquet shards with ``row`` and ``logits``, in the order of the rows."""
    device = use_device(runtime.device, runtime.threads)
    model, tokenizer = load_classifier(teacher, device)
    for split in (train, unlabelled):
        for shard in sorted(split.glob("*.parquet")):
            target = output / split.name / shard.name
            target.parent.mkdir(exist_ok=True)
            _label_shard(shard, target, model, tokenizer, max_length, settings.batch_size)


def _label_shard(
    shard: Path,
    target: Path,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
    batch_size: int,
) -> None:
    classes = model.config.num_labels
    schema = pa.schema([("row", pa.int64()), ("logits", pa.list_(pa.float32(), classes))])
    with pq.ParquetWriter(target, schema, compression="zstd") as writer:
        for batch in read_shard(shard, ["row", "text"]):
            logits = predict_logits(
                model, tokenizer, batch["text"].to_pylist(), max_length=max_length, batch_size=batch_size
            )
            values = pa.FixedSizeListArray.from_arrays(pa.array(np.ravel(logits), pa.float32()), classes)
            writer.write_batch(pa.record_batch([batch["row"], values], schema=schema))
        print(f"labelled {target.parent.name}/{target.name}", flush=True)
