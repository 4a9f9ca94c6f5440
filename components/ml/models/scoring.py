"""Scoring rows with a model of any task: no row's logits depend on its neighbours."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from transformers import (
    AutoConfig,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from components.errors import UserError
from components.ml.models.folders import loading, refuse_code
from components.ml.models.task_models import auto_model, task_of
from components.ml.rows.inputs import Input, padding_before
from components.ml.tasks.task import Reading, Window

if TYPE_CHECKING:  # importing peft takes seconds, and only training needs it
    from peft import PeftModel


Tag = TypeVar("Tag")
Features = Mapping[str, Any]
"""What a tokenizer makes of one text."""
Shape = tuple[int, bool]
TOKENISED_AT_ONCE = 4096
TOKENS_PER_TEXT = {"cpu": 8}
"""``batch_size`` times this many tokens make a batch: a CPU does best with what its caches hold."""
TOKENS_PER_TEXT_ELSEWHERE = 128
LEAST_TOKENS = 512
"""Fewer tokens at once leave a CPU waiting for memory."""


class Classifier(Protocol):
    """What can be scored: a model of transformers or peft, or whatever stands in for one."""

    @property
    def config(self) -> Any:
        """Holds ``id2label``."""

    @property
    def device(self) -> torch.device:
        """Where it takes its tensors."""

    def __call__(self, **features: torch.Tensor) -> Any:
        """From tensors of shape (texts, tokens) to something with ``logits`` of shape (texts, classes)."""


ADAPTER = "adapter"
"""Where a model folder keeps what peft must add to its weights."""


def load_classifier(
    folder: Path, device: torch.device | None = None
) -> tuple[PreTrainedModel | PeftModel, PreTrainedTokenizerBase]:
    """The model of a folder, with its prompts where it has an ``adapter/``, and the tokenizer.

    In evaluation mode and float32; no network, no pickle.

    Raises:
        UserError: some weights are missing, which transformers would draw at random; such as a head never trained.
    """
    device = device or torch.device("cpu")
    model, tokenizer = _load(folder, device)
    return (_adapted(model, folder, device) if (folder / ADAPTER).is_dir() else model), tokenizer


def load_plain(folder: Path, device: torch.device | None = None) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """As `load_classifier`, for whoever needs the weights themselves: to train them, or to build on them.

    Raises:
        UserError: some weights are missing, or the model needs prompts.
    """
    refuse_adapter(folder)
    return _load(folder, device or torch.device("cpu"))


def refuse_adapter(folder: Path) -> None:
    """Refuse a model that isn't in its weights alone.

    Raises:
        UserError: the folder has an ``adapter/``.
    """
    if (folder / ADAPTER).is_dir():
        raise UserError(
            f"{folder} can't be trained or built on: its {ADAPTER}/ holds prompts, which can't be merged into weights.",
            f"Give a model without {ADAPTER}/, such as one tuned with `trainable: {{lora: {{}}}}`.",
            "parameters",
        )


def _load(folder: Path, device: torch.device) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    refuse_code(folder)
    config = AutoConfig.from_pretrained(folder, **loading())
    model, report = auto_model(task_of(config)).from_pretrained(
        folder, config=config, **loading(), use_safetensors=True, dtype=torch.float32, output_loading_info=True
    )
    if report["missing_keys"]:
        raise UserError(
            f"{folder} is no tuned classifier: it lacks the weights {', '.join(sorted(report['missing_keys']))}.",
            "Give a model that was tuned for the task, or tune it: name a phase in teacher.order.",
            "parameters",
        )
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    torch.nn.Module.to(model, device=device)
    return model.eval(), tokenizer


def _adapted(model: PreTrainedModel, folder: Path, device: torch.device) -> PeftModel:
    """The model with what ``adapter/`` adds; peft first draws weights at random, which nobody else shall notice."""
    from peft import PeftModel

    if not (folder / ADAPTER / "adapter_model.safetensors").is_file():
        raise UserError(
            f"{folder / ADAPTER} has no adapter_model.safetensors.",
            "Save the adapter there with peft's save_pretrained; only safetensors weights are read, no pickles.",
            "parameters",
        )
    with torch.random.fork_rng(devices=[]):
        adapted = PeftModel.from_pretrained(model, str(folder / ADAPTER), torch_device=str(device))
    return adapted.to(device).eval()


def label_names(model: Classifier) -> list[str]:
    """The names of the classes, in the order of the logits."""
    names = {int(index): str(name) for index, name in (model.config.id2label or {}).items()}
    return [names[index] for index in sorted(names)]


def predict_logits(
    model: Classifier,
    tokenizer: PreTrainedTokenizerBase,
    inputs: Sequence[Input],
    *,
    max_length: int,
    batch_size: int = 64,
) -> np.ndarray:
    """Logits of every text or pair, in input order, where rows have one position; see `score` for what they depend on.

    Returns:
        float32 array of shape (inputs, classes).
    """
    logits = np.zeros((len(inputs), len(label_names(model))), dtype=np.float32)
    reading = Reading(max_length)
    for places, scored in score(model, tokenizer, enumerate(inputs), reading=reading, batch_size=batch_size):
        logits[places] = np.concatenate(scored)
    return logits


def predict_rows(
    model: Classifier,
    tokenizer: PreTrainedTokenizerBase,
    inputs: Sequence[Input],
    *,
    reading: Reading,
    batch_size: int = 64,
) -> list[np.ndarray]:
    """Logits of every row, in input order, each float32 of shape (positions, classes); see `score`."""
    logits: list[np.ndarray] = [np.zeros(0)] * len(inputs)
    for places, scored in score(model, tokenizer, enumerate(inputs), reading=reading, batch_size=batch_size):
        for place, one in zip(places, scored, strict=True):
            logits[place] = one
    return logits


def sound(logits: np.ndarray) -> bool:
    """Whether a row's logits, of shape (positions, classes), are finite; positions that were cut off have NaN alone."""
    cut = np.isnan(logits).all(axis=-1)
    return bool(np.isfinite(logits[~cut]).all()) and not (len(cut) and cut.all())


def score(
    model: Classifier,
    tokenizer: PreTrainedTokenizerBase,
    inputs: Iterable[tuple[Tag, Input]],
    *,
    reading: Reading,
    batch_size: int,
    checked: bool = False,
) -> Iterator[tuple[list[Tag], list[np.ndarray]]]:
    """Score rows as they come, in batches: the rows' tags, and of each float32 logits of shape (positions, classes).

    A row's logits don't depend, to the bit, on which others are scored with it or in which order. For that, the
    shape of its batch (`_padded`, `_rows`) follows from its own length and ``batch_size``; a last batch is filled
    up with repeats. Kernels are chosen by shape, and those of such shapes treat all rows alike.
    Rows wait until a batch of their length is full; a row that is read in several windows waits for all of them.

    Args:
        reading: how long rows are cut.
        batch_size: how many windows go through the model at once, at most; of long ones fewer (`TOKENS_PER_TEXT`), so
            that a batch's tokens, and with them the memory, stay about the same.
        checked: try every shape out before it is used, and take fewer windows at once where one's place in the
            batch changes its logits. Costs a batch for each shape.
    """
    scorer: _Scorer[Tag] = _Scorer(model, tokenizer, reading, batch_size, checked)
    stream = iter(inputs)
    while window := list(itertools.islice(stream, TOKENISED_AT_ONCE)):
        scorer.add(window)
        yield from scorer.batches(full=True)
    yield from scorer.batches(full=False)


@dataclass
class _Row(Generic[Tag]):
    """A row whose windows are being scored; ``logits`` are filled in as they come."""

    tag: Tag
    windows: list[Window]
    logits: list[np.ndarray | None]

    @property
    def complete(self) -> list[np.ndarray] | None:
        """The logits of all windows, once they are there."""
        found = [one for one in self.logits if one is not None]
        return found if len(found) == len(self.windows) else None


class _Scorer(Generic[Tag]):
    """Windows that wait for company of their shape: the padded length, and whether there is any padding."""

    def __init__(
        self,
        model: Classifier,
        tokenizer: PreTrainedTokenizerBase,
        reading: Reading,
        batch_size: int,
        checked: bool,
    ) -> None:
        self.model, self.tokenizer, self.task = model, tokenizer, task_of(model)
        self.reading, self.batch_size, self.checked = reading, batch_size, checked
        self.waiting: dict[Shape, list[tuple[_Row[Tag], int]]] = {}
        self.rows: dict[Shape, int] = {}

    def add(self, inputs: Sequence[tuple[Tag, Input]]) -> None:
        """Tokenise rows and let their windows wait."""
        found = self.task.windows(self.tokenizer, [each for _, each in inputs], self.reading)
        for (tag, _), windows in zip(inputs, found, strict=True):
            row = _Row(tag, windows, [None] * len(windows))
            for index, window in enumerate(windows):
                length = len(window.features["input_ids"])
                padded = _padded(length, self.reading.max_length, self.batch_size)
                # Without any padding transformers leaves the mask out, and other kernels run: such texts stay apart.
                self.waiting.setdefault((padded, length < padded), []).append((row, index))

    def batches(self, *, full: bool) -> Iterator[tuple[list[Tag], list[np.ndarray]]]:
        """Score full batches, or all that wait; long texts first, so that a lack of memory shows soon."""
        for shape in sorted(self.waiting, reverse=True):
            queue = self.waiting[shape]
            while len(queue) >= (self._rows_of(shape) if full else 1):
                rows = self._rows_of(shape)
                batch = queue[:rows]
                del queue[:rows]
                done = self._done(batch, rows, shape[0])
                if done:
                    yield [row.tag for row, _ in done], [logits for _, logits in done]

    def _done(
        self, batch: Sequence[tuple[_Row[Tag], int]], rows: int, padded: int
    ) -> list[tuple[_Row[Tag], np.ndarray]]:
        """Score a batch: the rows whose last window was in it, and their logits."""
        features = [row.windows[index].features for row, index in batch]
        before = padding_before(self.tokenizer, padded, [len(one["input_ids"]) for one in features])
        done = []
        for (row, index), more, logits in zip(batch, before, self._forward(features, rows, padded), strict=True):
            at = row.windows[index].at
            row.logits[index] = logits if at is None else logits[[place + more for place in at]]
            if (found := row.complete) is not None:
                done.append((row, self.task.merge(row.windows, found, self.reading)))
        return done

    def _rows_of(self, shape: Shape) -> int:
        if shape not in self.rows:
            rows = _rows(shape[0], self.batch_size, self.model.device.type)
            self.rows[shape] = self._even_rows(rows, shape) if self.checked else rows
        return self.rows[shape]

    def _even_rows(self, rows: int, shape: Shape) -> int:
        """``rows``, or the half of it, or its half, until a text's logits are the same at every place of the batch."""
        padded, some_padding = shape
        words = " ".join(map(str, range(padded)))  # some text that is long enough
        sample = dict(self.tokenizer(words, truncation=True, max_length=padded - some_padding))

        def differ() -> bool:
            logits = self._forward([sample] * rows, rows, padded).reshape(rows, -1)
            return len(np.unique(logits.view(np.uint32), axis=0)) > 1

        while rows > 1 and differ():
            rows //= 2
        return rows

    @torch.inference_mode()
    def _forward(self, texts: Sequence[Features], rows: int, padded: int) -> np.ndarray:
        """Logits of ``texts`` in a batch of ``rows``, which repeats of them fill up."""
        filled: Any = list(itertools.islice(itertools.cycle(texts), rows))
        batch = self.tokenizer.pad(filled, padding="max_length", max_length=padded, return_tensors="pt")
        logits = self.task.logits(self.model(**batch.to(self.model.device)))[: len(texts)]
        return np.asarray(logits.float().cpu().numpy())


def _padded(length: int, max_length: int, batch_size: int) -> int:
    """The length to pad a text of ``length`` tokens to: steps of 4, from 32 on of an eighth to a quarter of it.

    Always at least one token of padding, but where ``max_length`` leaves no room for it; none for texts on their own.
    """
    if batch_size == 1:
        return length
    step = max(4, 1 << max(length.bit_length() - 3, 0))
    return max(length, min((length // step + 1) * step, max_length))


def _rows(padded: int, batch_size: int, device: str) -> int:
    """How many texts of a padded length make a batch: a multiple of 8, or where ``batch_size`` is less, 4 or 1.

    On CPUs with several threads, other numbers (5, 6, 7, 9, 10, 11; with 16 threads also 17 to 19 and 25 to 27) give
    the last rows other kernels in the layers above the encoder, and other last bits.
    """
    tokens = max(batch_size * TOKENS_PER_TEXT.get(device, TOKENS_PER_TEXT_ELSEWHERE), LEAST_TOKENS)
    rows = min(batch_size, max(tokens // padded, 8))
    return rows // 8 * 8 or (4 if rows >= 4 else 1)
