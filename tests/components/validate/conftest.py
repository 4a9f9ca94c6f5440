"""A folder of the user's data, a database over it, and a tiny base model, for the tests of the validate stage."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from components.params.data import Data
from components.validate.classes import known_names
from components.validate.database import connect
from components.validate.facts import compute_facts
from components.validate.measure import measure
from components.validate.near import find_near
from components.validate.splits import place_rows

Row = Mapping[str, Any]


class Folder:
    """A repository's root with a folder ``data/``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / "data").mkdir()

    def write(self, name: str, content: str | bytes) -> Path:
        """A file under ``data/``."""
        path = self.root / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def write_rows(self, split: str, rows: Sequence[Row]) -> Path:
        """``data/SPLIT.jsonl``."""
        return self.write(f"{split}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

    def data(self, **changes: Any) -> Data:
        """The section ``data`` that names the JSON lines files there are; text and label columns unless changed."""
        given = {path.stem: f"data/{path.name}" for path in sorted((self.root / "data").glob("*.jsonl"))}
        return Data.model_validate({"columns": {"text": "text", "label": "label"}, **given, **changes})

    def database(self, data: Data) -> duckdb.DuckDBPyConnection:
        """A database over the measured rows; a token is a character."""
        target = self.root / "measured.parquet"
        measure(data, self.root, lambda texts: [len(text) for text in texts], target)
        return connect(target, self.root / "spill")

    @contextmanager
    def facts(self, data: Data, max_length: int = 10, near: float | None = None) -> Iterator[duckdb.DuckDBPyConnection]:
        """A database as it stands when the facts are computed."""
        with self.database(data) as database:
            names = known_names(database, data)
            place_rows(database, data)
            find_near(database, near, self.root)
            compute_facts(database, names, max_length)
            yield database


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    monkeypatch.chdir(tmp_path)
    return Folder(tmp_path)


@pytest.fixture(scope="session")
def base_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a configuration of 64 positions and a tokenizer of one token a word or Chinese character."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.normalizers import BertNormalizer
    from tokenizers.pre_tokenizers import BertPreTokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "good", "bad", *"这部手机很好用不差"]
    tokenizer = Tokenizer(WordLevel({word: index for index, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.normalizer = BertNormalizer()
    tokenizer.pre_tokenizer = BertPreTokenizer()
    tokenizer.post_processor = TemplateProcessing("[CLS] $A [SEP]", None, [("[CLS]", 2), ("[SEP]", 3)])
    folder = tmp_path_factory.mktemp("base") / "model"
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]").save_pretrained(folder)
    (folder / "config.json").write_text(json.dumps({"model_type": "bert", "max_position_embeddings": 64}))
    (folder / "model.safetensors").touch()
    return folder
