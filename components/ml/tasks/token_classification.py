"""A tag for each word, such as IOB tags of named entities."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from components.ml.tasks.task import IGNORED, Counts, Example, Fault, Metric, Reading, Task, Window
from components.text import CHINESE_CHARACTER

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from components.ml.rows.inputs import Input

OUTSIDE = "O"
_WORD = re.compile(rf"{CHINESE_CHARACTER}|(?:(?!{CHINESE_CHARACTER})\w)+|[^\w\s]")


class TokenClassification(Task):
    """Tag logits at the first token of each word (Devlin et al. 2019, section 5.3); entities are what is measured."""

    name = "token-classification"
    columns = ("tokens", "tags")
    target = "tags"
    lists = ("tokens", "tags")
    takes_class_weights = True
    calibrated = True
    validated = ("loss", "f1", "accuracy", "macro_f1")
    metrics = (
        Metric("f1", "entity F1"),
        Metric("precision", "entity precision"),
        Metric("recall", "entity recall"),
        Metric("macro_f1", "macro F1 of the types"),
        Metric("accuracy", "accuracy of tags"),
    )

    def read(self, values: Mapping[str, Any]) -> Example:
        tokens, faults = _strings(values.get("tokens"), "token")
        tags: list[str] | None = None
        if "tags" in values and values["tags"] is not None:
            tags, more = _strings(values["tags"], "tag")
            faults += more
        if not faults and tokens is not None and tags is not None and len(tokens) != len(tags):
            faults.append(Fault("with not as many tags as tokens", f"{len(tokens)} tokens, {len(tags)} tags"))
        if not faults and tags is not None:
            faults += _sequence_faults(tags)
        return Example((" ".join(tokens) if tokens else None,), tokens=tokens, names=tags, faults=tuple(faults))

    def target_type(self) -> pa.DataType:
        import pyarrow as pa

        return pa.list_(pa.int32())

    def encode(self, example: Example, places: Mapping[str, int]) -> Any:
        return None if example.names is None else [places[name] for name in example.names]

    @property
    def head(self) -> str:
        return "AutoModelForTokenClassification"

    def windows(
        self, tokenizer: PreTrainedTokenizerBase, inputs: Sequence[Input], reading: Reading
    ) -> list[list[Window]]:
        from components.ml.rows.words import spaced_words
        from components.ml.tasks.windows import features_at, overflowing

        rows = spaced_words(tokenizer, [words_of(each) for each in inputs])
        options: dict[str, Any] = {"truncation": True, "max_length": reading.max_length, "is_split_into_words": True}
        if reading.stride is not None:
            options |= overflowing(tokenizer, reading)
        encoded = tokenizer(rows, **options)
        owners = encoded.get("overflow_to_sample_mapping", range(len(rows)))
        found: list[list[Window]] = [[] for _ in rows]
        before: list[int] = []
        for index, row in enumerate(owners):
            words = encoded.word_ids(index)
            content = [word for word in words if word is not None]
            begun = content[0] if content and found[row] and _goes_on(before, content, reading.stride or 0) else None
            at = [
                place
                for place, word in enumerate(words)
                if word is not None and word != begun and (place == 0 or words[place - 1] != word)
            ]
            found[row].append(Window(features_at(encoded, index), at, [words[place] for place in at]))
            before = content
        return found

    def positions(self, inputs: Sequence[Input], tokenizer: Any) -> list[int]:
        return [len(words_of(each)) for each in inputs]

    def merge(self, windows: Sequence[Window], logits: Sequence[np.ndarray], reading: Reading) -> np.ndarray:
        from components.ml.tasks.windows import best_covered

        covered = max((max(window.covers, default=-1) for window in windows), default=-1) + 1
        return best_covered(windows, logits, covered, logits[0].shape[-1])

    def window_target(self, window: Window, target: Any, classes: int) -> Any:
        return [target[word] for word in window.covers]

    def batch_targets(self, targets: Sequence[Any], ids: Tensor, at: Sequence[Sequence[int]]) -> Tensor:
        """Tags of shape (rows, tokens), ``IGNORED`` where no word begins."""
        import torch

        labels = torch.full_like(ids, IGNORED)
        for row, (places, target) in enumerate(zip(at, targets, strict=True)):
            if target is not None:
                labels[row, list(places)] = torch.tensor(target).to(labels)
        return labels

    def aligned(self, logits: Tensor | None, batch: Mapping[str, Tensor]) -> tuple[Any, Tensor, Tensor | None]:
        teacher = batch.get("teacher_logits")
        mine = None if logits is None else logits.flatten(0, 1)
        return mine, batch["labels"].flatten(), None if teacher is None else teacher.flatten(0, 1)

    def found(self, logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Of each row the sum of its words' losses, their number, and the tags: of shape (rows, 2 + tokens)."""
        import torch
        from torch.nn.functional import cross_entropy

        labels = batch["labels"]
        losses = cross_entropy(logits.float().mT, labels, ignore_index=IGNORED, reduction="none").sum(dim=1)
        words = (labels != IGNORED).sum(dim=1).to(losses)
        return torch.cat([torch.stack([losses, words], dim=1), logits.argmax(dim=-1).to(losses)], dim=1)

    def validation(self, found: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> dict[str, float]:
        """The loss, too: the mean over words is not that over rows, nor over batches."""
        from components.ml.statistics.metrics import accuracy, confusion_matrix, macro_scores_of

        known = labels != IGNORED
        losses, tags = found[:, :2].astype(float).sum(axis=0), found[:, 2:]
        actual, predicted = labels[known], tags[known].astype(int)
        rows = [
            ([int(tag) for tag in line[there]], [int(tag) for tag in guess[there]])
            for line, guess, there in zip(labels, tags, known, strict=True)
        ]
        sums = self.counts([row for row, _ in rows], [row for _, row in rows], names).sum(axis=0)
        macro = macro_scores_of(confusion_matrix(actual, predicted, len(names)))
        return {
            "loss": float(losses[0] / max(losses[1], 1.0)),
            "f1": float(self.scores(sums, names)["f1"]),
            "accuracy": accuracy(actual, predicted) if len(actual) else 0.0,
            "macro_f1": float(macro.f1),
        }

    def prediction_type(self) -> pa.DataType:
        return self.target_type()

    def decode(
        self, inputs: Sequence[Input], logits: Sequence[np.ndarray], names: Sequence[str], tokenizer: Any
    ) -> list[Any]:
        """A tag for each word; words that were cut off are outside of all entities."""
        import numpy as np

        outside = list(names).index(OUTSIDE) if OUTSIDE in names else 0
        decoded = []
        for given, one in zip(inputs, logits, strict=True):
            tags = np.full(len(words_of(given)), outside)
            read = ~np.isnan(one).any(axis=-1)
            tags[: len(one)][read] = one[read].argmax(axis=-1)
            decoded.append(tags.tolist())
        return decoded

    def said(self, value: Any, names: Sequence[str]) -> str:
        return " ".join(names[tag] for tag in value)

    def counts(self, targets: Sequence[Any], predictions: Sequence[Any], names: Sequence[str]) -> Counts:
        """Hits, predicted and actual entities by type, then words with the right tag, and words."""
        import numpy as np

        from components.ml.statistics.entities import entity_counts, entity_types

        actual, predicted = ([[names[tag] for tag in row] for row in rows] for rows in (targets, predictions))
        own = entity_counts(actual, predicted, entity_types(names))
        right = [sum(a == b for a, b in zip(*pair, strict=True)) for pair in zip(targets, predictions, strict=True)]
        words = np.array([right, [len(row) for row in targets]], dtype=np.int64).T.reshape(-1, 2)
        return np.concatenate([own, words], axis=1)

    def scores(self, sums: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        import numpy as np

        from components.ml.statistics.entities import entity_scores, entity_types

        own = entity_scores(sums[..., :-2], len(entity_types(names)))
        return {**own, "accuracy": sums[..., -2] / np.maximum(sums[..., -1], 1)}

    def beside(
        self, targets: Sequence[Any], predictions: Sequence[Any], logits: Sequence[np.ndarray], names: Sequence[str]
    ) -> dict[str, Any]:
        """Scores of each type of entity."""
        import numpy as np

        from components.ml.statistics.entities import entity_types

        types = entity_types(names)
        sums = self.counts(targets, predictions, names).sum(axis=0)[:-2]
        details = {}
        for kind, hits, predicted, actual in zip(types, *np.split(sums, 3), strict=True):
            details[kind] = {
                "precision": float(hits / max(predicted, 1)),
                "recall": float(hits / max(actual, 1)),
                "f1": float(2 * hits / max(predicted + actual, 1)),
                "support": int(actual),
            }
        return {"details": details}

    def right(self, targets: Sequence[Any], predictions: Sequence[Any]) -> np.ndarray | None:
        import numpy as np

        return np.array([list(a) == list(b) for a, b in zip(targets, predictions, strict=True)], dtype=bool)

    def agreement(self, predictions: Sequence[Any], others: Sequence[Any]) -> float:
        same = sum(a == b for pair in zip(predictions, others, strict=True) for a, b in zip(*pair, strict=True))
        return float(same / max(sum(map(len, predictions)), 1))

    def confidence(self, logits: Sequence[np.ndarray]) -> np.ndarray | None:
        """The probability of the least certain tag."""
        import numpy as np

        from components.ml.statistics.metrics import softmax

        return np.array([float(np.nanmin(softmax(one).max(axis=-1))) if len(one) else 1.0 for one in logits])

    def answers(
        self, inputs: Sequence[Any], predictions: Sequence[Any], logits: Sequence[np.ndarray], names: Sequence[str]
    ) -> list[dict[str, Any]]:
        """``entities``: each with its type, text, characters (end exclusive) and the probability of its least tag."""
        import numpy as np

        from components.ml.statistics.entities import entities
        from components.ml.statistics.metrics import softmax

        told = []
        for given, tags, one in zip(inputs, predictions, logits, strict=True):
            text, spans = text_and_spans(given)
            sure = np.ones(len(tags))
            sure[: len(one)] = softmax(one).max(axis=-1)
            found = [
                {
                    "type": kind,
                    "text": text[spans[first][0] : spans[end - 1][1]],
                    "start": spans[first][0],
                    "end": spans[end - 1][1],
                    "score": float(sure[first:end].min()),
                }
                for kind, first, end in entities([names[tag] for tag in tags])
            ]
            told.append({"entities": found})
        return told


def words_of(given: Any) -> list[str]:
    """The words of a row: as they are given, or those of a text, where marks and Chinese characters stand alone."""
    return _WORD.findall(given) if isinstance(given, str) else list(given)


def text_and_spans(given: Any) -> tuple[str, list[tuple[int, int]]]:
    """A row as one text, and the characters of each of its words there, the end exclusive."""
    if isinstance(given, str):
        return given, [match.span() for match in _WORD.finditer(given)]
    spans, place = [], 0
    for word in given:
        spans.append((place, place + len(word)))
        place += len(word) + 1
    return " ".join(given), spans


def _goes_on(before: Sequence[int], content: Sequence[int], stride: int) -> bool:
    """Whether a window begins inside of a word: whether the token before it is of the same word."""
    place = len(before) - stride - 1
    return place >= 0 and before[place] == content[0]


def _strings(value: Any, what: str) -> tuple[list[str] | None, list[Fault]]:
    """A list of strings and numbers, none of them empty, as strings."""
    if not isinstance(value, list | tuple):
        return None, [Fault(f"without a list of {what}s", "null" if value is None else f"{value!r:.40}")]
    if not value and what == "token":
        return None, [Fault("with an empty list of tokens")]
    nested = next((item for item in value if isinstance(item, list | dict | tuple)), None)
    if nested is not None:
        return None, [Fault(f"with a {what} that is no text", f"{nested!r:.40}")]
    found = ["" if item is None else str(item).lower() if isinstance(item, bool) else str(item) for item in value]
    if not all(item.strip() for item in found):
        place = next(place for place, item in enumerate(found) if not item.strip())
        return None, [Fault(f"with an empty {what}", f"{what} {place}")]
    return found, []


def _sequence_faults(tags: Sequence[str]) -> list[Fault]:
    """Tags with a prefix must be a valid sequence; tags such as parts of speech may stand in any order."""
    from components.ml.statistics.entities import sequence_fault

    if not any("-" in tag for tag in tags):
        return []
    fault = sequence_fault(tags)
    return (
        []
        if fault is None
        else [Fault("with tags that follow neither IOB1, IOB2 nor BIOES", f"tag {fault[0]}: {fault[1]}")]
    )
