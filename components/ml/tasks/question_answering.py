"""The span of a context that answers a question, as in SQuAD; some questions may have no answer."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from components.errors import UserError
from components.ml.tasks.task import IGNORED, Counts, Example, Fault, Metric, Reading, Task, Window

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from components.ml.rows.inputs import Input

ANSWER, NO_ANSWER = "answer", "no answer"
LONGEST = 30
"""How many tokens an answer has at most."""
_NOTHING = {"text": "", "start": -1, "end": -1}


class QuestionAnswering(Task):
    """Start and end logits over the context's tokens; position 0 is the first token, which stands for no answer."""

    name = "question-answering"
    columns = ("question", "context", "answers")
    target = "answers"
    lists = ("answers",)
    least_labels = 0
    takes_label_smoothing = False
    validated = ("loss", "exact_match", "f1")
    metrics = (
        Metric("f1", "F1"),
        Metric("exact_match", "exact match"),
        Metric("has_answer_f1", "F1 where there is an answer"),
        Metric("has_answer_exact_match", "exact match where there is an answer"),
        Metric("no_answer_accuracy", "no answer where there is none"),
    )

    def read(self, values: Mapping[str, Any]) -> Example:
        """``answers`` is a list of {text, start}, or SQuAD's {text: [...], answer_start: [...]}; empty for none."""
        question, context = (
            None if values.get(role) is None else str(values[role]) for role in ("question", "context")
        )
        if values.get("answers") is None:
            return Example((question, context))
        answers = _answers(values["answers"])
        if answers is None:
            return Example(
                (question, context),
                faults=(Fault("with answers that are no list of text and start", f"{values['answers']!r:.60}"),),
            )
        for text, start in answers:
            if (context or "")[start : start + len(text)] != text or not text.strip():
                said = f"{text!r:.40} at character {start}"
                return Example((question, context), faults=(Fault("with an answer that isn't in its context", said),))
        value = [{"text": text, "start": start} for text, start in answers]
        return Example((question, context), names=[ANSWER if answers else NO_ANSWER], value=value)

    def target_type(self) -> pa.DataType:
        import pyarrow as pa

        return pa.list_(pa.struct([("text", pa.string()), ("start", pa.int32())]))

    def labels_of(self, names: Sequence[str]) -> list[str]:
        """What the logits stand for tells whether there may be no answer."""
        return [f"start or {NO_ANSWER}", f"end or {NO_ANSWER}"] if NO_ANSWER in names else ["start", "end"]

    def encode(self, example: Example, places: Mapping[str, int]) -> Any:
        return example.value

    def stratum(self, example: Example) -> str:
        return "".join(example.names or [])

    def document_of(self, example: Example) -> str | None:
        """The questions of one context belong together."""
        context = example.texts[1]
        return None if context is None else hashlib.blake2b(context.encode("utf-8"), digest_size=16).hexdigest()

    def shown(self, example: Example) -> str | None:
        if example.value is None:
            return None
        return " | ".join(dict.fromkeys(answer["text"] for answer in example.value)) or f"({NO_ANSWER})"

    @property
    def head(self) -> str:
        return "AutoModelForQuestionAnswering"

    def windows(
        self, tokenizer: PreTrainedTokenizerBase, inputs: Sequence[Input], reading: Reading
    ) -> list[list[Window]]:
        from components.ml.tasks.windows import features_at, overflowing

        if not inputs:
            return []
        if not tokenizer.is_fast:
            raise UserError(
                "question-answering needs a fast tokenizer, which tells the characters of each token; the base model's "
                "is a slow one.",
                "Save a fast tokenizer (tokenizer.json) beside the base model.",
                "parameters",
            )
        most = max((reading.max_length - tokenizer.num_special_tokens_to_add(pair=True)) // 2, 1)
        options: dict[str, Any] = {
            "truncation": "only_second",
            "max_length": reading.max_length,
            "return_offsets_mapping": True,
        }
        if reading.stride is not None:
            room = reading.max_length - tokenizer.num_special_tokens_to_add(pair=True) - most
            options |= overflowing(tokenizer, reading, room)
        found: list[list[Window]] = [[] for _ in inputs]
        rows = _short_questions(tokenizer, inputs, most)
        encoded = tokenizer([question for question, _ in rows], [context for _, context in rows], **options)
        starts: dict[int, int] = {}
        for index, row in enumerate(encoded.get("overflow_to_sample_mapping", range(len(rows)))):
            at = [place for place, sequence in enumerate(encoded.sequence_ids(index)) if sequence == 1]
            starts.setdefault(row, len(at))
            first = len(found[row]) * (starts[row] - (reading.stride or 0))
            spans = [tuple(encoded["offset_mapping"][index][place]) for place in at]
            found[row].append(
                Window(
                    features_at(encoded, index),
                    [0, *at],
                    [0, *range(first + 1, first + 1 + len(at))],
                    [(-1, -1), *spans],
                )
            )
        return found

    def logits(self, output: Any) -> Tensor:
        import torch

        if hasattr(output, "logits"):  # of an exported file
            logits: Tensor = output.logits
            return logits
        return torch.stack([output.start_logits, output.end_logits], dim=-1)

    def positions(self, inputs: Sequence[Input], tokenizer: Any) -> list[int]:
        return [1 + len(spans) for spans in context_spans(tokenizer, inputs)] if inputs else []

    def merge(self, windows: Sequence[Window], logits: Sequence[np.ndarray], reading: Reading) -> np.ndarray:
        """No answer in a row is what the window says that is least sure of it (as in BERT's code for SQuAD 2)."""
        from components.ml.tasks.windows import best_covered

        positions = max(max(window.covers) for window in windows) + 1
        merged = best_covered(windows, logits, positions, 2)
        merged[0] = min((found[0] for found in logits), key=lambda pair: float(pair.sum()))
        return merged

    def window_target(self, window: Window, target: Any, classes: int) -> Any:
        """The places of the answer's first and last token; those of the first token of all where it isn't there."""
        for answer in target:
            start, end = answer["start"], answer["start"] + len(answer["text"])
            inside = [
                place
                for place, (first, last) in zip(window.at or [], window.spans, strict=True)
                if first >= 0 and last > start and first < end and last > first
            ]
            spans = [span for span in window.spans if span[0] >= 0]
            if inside and spans[0][0] <= start and end <= spans[-1][1]:
                return [inside[0], inside[-1]]
        return [0, 0]

    def batch_targets(self, targets: Sequence[Any], ids: Tensor, at: Sequence[Sequence[int]]) -> Tensor:
        """Places of shape (rows, 2 + tokens): of the first and the last token, then which tokens may be either.

        The first of the positions is the window's first token.
        """
        import torch

        labels = torch.zeros((len(ids), 2 + ids.shape[1]), dtype=torch.long)
        for row, (target, places) in enumerate(zip(targets, at, strict=True)):
            ends = torch.tensor([IGNORED, IGNORED] if target is None else target).to(labels)
            labels[row, :2] = torch.where(ends == IGNORED, ends, ends + places[0])  # padding may come first
            labels[row, [2 + place for place in places]] = 1
        return labels

    def aligned(self, logits: Tensor | None, batch: Mapping[str, Tensor]) -> tuple[Any, Tensor, Tensor | None]:
        """Two rows for each window, over its tokens; those that can't be an answer's are as good as impossible."""
        import torch

        labels = batch["labels"]
        # The same that all processes and validation batches see: -100 pads labels that are gathered.
        possible = (labels[:, 2:] == 1)[:, None, :]
        lowest = torch.finfo(torch.float32).min / 2**16  # finite when it is divided by any temperature
        mine = None if logits is None else logits.float().transpose(1, 2).masked_fill(~possible, lowest).flatten(0, 1)
        teacher = batch.get("teacher_logits")
        if teacher is not None:
            known = ~teacher.isnan().any(dim=-1)
            complete = (known | ~possible[:, 0]).all(dim=-1)[:, None, None]
            teacher = teacher.transpose(1, 2).masked_fill(~possible, lowest)
            teacher = teacher.masked_fill(~complete, float("nan")).flatten(0, 1)
        return mine, labels[:, :2].flatten(), teacher

    def hard_loss(
        self, logits: Tensor, labels: Tensor, labelled: float, weights: Tensor | None, smoothing: float
    ) -> Tensor:
        """Cross-entropy over the tokens that may be an answer's."""
        from components.ml.training.losses import ce_loss

        return ce_loss(logits, labels, labelled)

    def found(self, logits: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """The first and the last token of the best answer of each window, of shape (rows, 2)."""
        import torch

        starts, ends = self.aligned(logits, batch)[0].unflatten(0, (-1, 2)).unbind(dim=1)
        together = starts[:, :, None] + ends[:, None, :]
        length = together.shape[-1]
        allowed = torch.ones(length, length, device=logits.device).triu().tril(LONGEST - 1).bool()
        first = (batch["labels"][:, 2:] == 1).int().argmax(dim=1)  # no answer begins there and ends in the context
        nothing = torch.arange(length, device=logits.device) == first[:, None]
        allowed = allowed & (~nothing[:, :, None] | nothing[:, None, :])
        best = together.masked_fill(~allowed, float("-inf")).flatten(1).argmax(dim=1)
        return torch.stack([best // length, best % length], dim=1).float()

    def validation(self, found: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> dict[str, float]:
        """Of windows and their tokens: how often both ends are right, and the F1 of the tokens."""
        import numpy as np

        known = labels[:, 0] != IGNORED
        actual, guess = labels[known, :2].astype(np.int64), found[known, :2].astype(np.int64)
        if not len(actual):
            return {"exact_match": 0.0, "f1": 0.0}
        shared = np.minimum(actual[:, 1], guess[:, 1]) - np.maximum(actual[:, 0], guess[:, 0]) + 1
        lengths = actual[:, 1] - actual[:, 0] + 1 + guess[:, 1] - guess[:, 0] + 1
        return {
            "exact_match": float((actual == guess).all(axis=1).mean()),
            "f1": float((2 * np.maximum(shared, 0) / lengths).mean()),
        }

    def prediction_type(self) -> pa.DataType:
        import pyarrow as pa

        return pa.struct([("text", pa.string()), ("start", pa.int32()), ("end", pa.int32())])

    def decode(
        self, inputs: Sequence[Input], logits: Sequence[np.ndarray], names: Sequence[str], tokenizer: Any
    ) -> list[Any]:
        """The best answer of each row and its characters; none where that is likelier, if there may be none."""
        if not inputs:
            return []
        contexts = [each[1] for each in inputs]
        spans = context_spans(tokenizer, inputs)
        decoded = []
        for context, ends, one in zip(contexts, spans, logits, strict=True):
            best = best_span(one)
            if best is None or (NO_ANSWER in names[0] and one[0].sum() >= one[best[0], 0] + one[best[1], 1]):
                decoded.append(dict(_NOTHING))
                continue
            start, end = ends[best[0] - 1][0], ends[best[1] - 1][1]
            decoded.append({"text": context[start:end], "start": start, "end": end})
        return decoded

    def said(self, value: Any, names: Sequence[str]) -> str:
        given = [value] if isinstance(value, Mapping) else value
        return " | ".join(dict.fromkeys(answer["text"] for answer in given if answer["text"])) or f"({NO_ANSWER})"

    def counts(self, targets: Sequence[Any], predictions: Sequence[Any], names: Sequence[str]) -> Counts:
        """Exact match, F1 and rows; the same of rows with an answer; the same of rows without one."""
        import numpy as np

        from components.ml.statistics.answers import exact_match, token_f1

        counted = []
        for target, found in zip(targets, predictions, strict=True):
            golds = [answer["text"] for answer in target]
            own = [exact_match(found["text"], golds), token_f1(found["text"], golds), 1.0]
            counted.append([*own, *(own if golds else [0.0] * 3), *([0.0] * 3 if golds else own)])
        return np.array(counted, dtype=np.float64).reshape(-1, 9)

    def scores(self, sums: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
        import numpy as np

        def share(place: int, of: int) -> np.ndarray:
            return np.asarray(sums[..., place] / np.maximum(sums[..., of], 1))

        found = {"f1": share(1, 2), "exact_match": share(0, 2)}
        if NO_ANSWER in names[0]:
            found |= {
                "has_answer_f1": share(4, 5),
                "has_answer_exact_match": share(3, 5),
                "no_answer_accuracy": share(6, 8),
            }
        return found

    def right(self, targets: Sequence[Any], predictions: Sequence[Any]) -> np.ndarray | None:
        import numpy as np

        return np.array(self.counts(targets, predictions, ("", ""))[:, 0] == 1, dtype=bool)

    def agreement(self, predictions: Sequence[Any], others: Sequence[Any]) -> float:
        from components.ml.statistics.answers import normalised

        same = [normalised(a["text"]) == normalised(b["text"]) for a, b in zip(predictions, others, strict=True)]
        return sum(same) / max(len(same), 1)

    def confidence(self, logits: Sequence[np.ndarray]) -> np.ndarray | None:
        """The probability of the best answer's ends, or of no answer, whichever is likelier."""
        import numpy as np

        return np.array([max(_probabilities(one)) for one in logits], dtype=np.float64)

    def answers(
        self, inputs: Sequence[Any], predictions: Sequence[Any], logits: Sequence[np.ndarray], names: Sequence[str]
    ) -> list[dict[str, Any]]:
        """``answer`` with its characters in the context (end exclusive; -1 for no answer) and its probability."""
        told = []
        for found, one in zip(predictions, logits, strict=True):
            answered, nothing = _probabilities(one)
            score = nothing if found["start"] < 0 else answered
            told.append({"answer": found["text"], "start": found["start"], "end": found["end"], "score": score})
        return told


def best_span(logits: np.ndarray) -> tuple[int, int] | None:
    """The likeliest first and last position of an answer of at most ``LONGEST`` tokens; None where there is none."""
    import numpy as np

    starts, ends = np.where(np.isnan(logits), -np.inf, logits.astype(np.float64)).T
    best, value = None, -np.inf
    for length in range(min(LONGEST, len(starts) - 1)):
        together = starts[1 : len(starts) - length] + ends[1 + length :]
        place = int(together.argmax())
        if together[place] > value:
            best, value = (place + 1, place + 1 + length), together[place]
    return best


def _probabilities(logits: np.ndarray) -> tuple[float, float]:
    """Of the ends of a row's best answer, and of no answer."""
    import numpy as np

    from components.ml.statistics.metrics import softmax

    starts, ends = softmax(np.where(np.isnan(logits), np.finfo(np.float32).min, logits).T)
    best = best_span(logits)
    return 0.0 if best is None else float(starts[best[0]] * ends[best[1]]), float(starts[0] * ends[0])


def context_spans(tokenizer: Any, inputs: Sequence[Any]) -> list[list[tuple[int, int]]]:
    """The characters of each token of the contexts, none of them cut."""
    encoded = tokenizer(
        [question for question, _ in inputs],
        [context for _, context in inputs],
        truncation=False,
        return_offsets_mapping=True,
        verbose=False,
    )
    return [
        [
            tuple(span)
            for span, sequence in zip(encoded["offset_mapping"][index], encoded.sequence_ids(index), strict=True)
            if sequence == 1
        ]
        for index in range(len(inputs))
    ]


def _short_questions(tokenizer: PreTrainedTokenizerBase, inputs: Sequence[Any], most: int) -> list[tuple[str, str]]:
    """Questions cut to ``most`` tokens: a context must have room beside them."""
    questions = [question for question, _ in inputs]
    encoded = tokenizer(questions, add_special_tokens=False, return_offsets_mapping=True, verbose=False)
    cut = [
        question if len(spans) <= most else question[: spans[most - 1][1]]
        for question, spans in zip(questions, encoded["offset_mapping"], strict=True)
    ]
    return [(question, context) for question, (_, context) in zip(cut, inputs, strict=True)]


def _answers(value: Any) -> list[tuple[str, int]] | None:
    """Texts and their first characters; None where they can't be told."""
    if isinstance(value, Mapping) and {"text", "answer_start"} <= set(value):
        texts, starts = value["text"], value["answer_start"]
        if not isinstance(texts, list | tuple) or not isinstance(starts, list | tuple) or len(texts) != len(starts):
            return None
        pairs: list[tuple[Any, Any]] = list(zip(texts, starts, strict=True))
    elif isinstance(value, list | tuple) and all(isinstance(answer, Mapping) for answer in value):
        pairs = [(answer.get("text"), answer.get("start", answer.get("answer_start"))) for answer in value]
    else:
        return None
    whole = [isinstance(text, str) and isinstance(start, int) and start >= 0 for text, start in pairs]
    return pairs if all(whole) else None
