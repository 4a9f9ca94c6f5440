"""Language modelling on the rows' own texts: which tokens are hidden, and the loss of guessing them."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from components.errors import UserError
from components.ml.rows.tokenised import pad
from components.ml.rows.words import OUTSIDE
from components.ml.tasks.task import IGNORED
from components.ml.training.objectives import Batch, features_of
from components.params.phases import Mask

MASKED, REPLACED = 0.8, 0.1
"""Shares of the chosen tokens that become the mask token and another token; the rest stays (Devlin et al. 2019)."""


class NumberedRows(Dataset[dict[str, Any]]):
    """Rows that know their number and the epoch, which is all that the choice of hidden tokens depends on.

    Args:
        rows: tokenised rows with ``lengths``.
        fixed: hide the same tokens in every epoch, as validation needs it.
    """

    def __init__(self, rows: Any, *, fixed: bool = False) -> None:
        self.rows = rows
        self.fixed = fixed
        self.lengths: list[int] = rows.lengths
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch that the next items belong to."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, Any]:
        numbered = {"row": index, "epoch": 0 if self.fixed else self.epoch + 1}
        return {**self.rows[index], **numbered}


class LanguageCollator:
    """Rows to batches with hidden tokens and, as labels, what was there; ``IGNORED`` everywhere else.

    ``mask.probability`` of a row's words, or of its tokens, is chosen, to the next whole number up or down so that
    the share is right on average. Of the chosen tokens 80% become the mask token, 10% another token at random and
    10% stay (Devlin et al. 2019). Special tokens are never chosen. What is hidden depends on the seed, the epoch and
    the number of the row alone: neither on the batch nor on how often the run was interrupted.

    Args:
        tokenizer: pads the rows, and knows the special tokens.
        mask: how much is hidden; ``whole_words`` needs rows with ``word_ids``, see ``words.py``.
        seed: of the choice.
        causal: hide nothing: all tokens are labels, and the objective shifts them.

    Raises:
        UserError: the tokenizer has no mask token.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, mask: Mask, seed: int, *, causal: bool = False) -> None:
        if not causal and tokenizer.mask_token_id is None:
            raise UserError(
                "Objective mlm hides words behind a mask token, but the base model's tokenizer has none.",
                "Leave phases with the objective mlm out, or use a base model whose tokenizer has a mask token.",
                "parameters",
            )
        self.tokenizer = tokenizer
        self.mask = mask
        self.seed = seed
        self.causal = causal
        ids = np.array(sorted(tokenizer.get_vocab().values()))
        self.ordinary = ids[~np.isin(ids, tokenizer.all_special_ids)]
        self.choosable = np.zeros(ids[-1] + 1, dtype=bool)
        self.choosable[self.ordinary] = True

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Tensor]:
        rows = [self._row(item) for item in items]
        batch = pad(self.tokenizer, items, [ids.tolist() for ids, _ in rows])
        batch["labels"] = torch.full_like(batch["input_ids"], IGNORED)
        batch["labels"][batch["attention_mask"].bool()] = torch.from_numpy(np.concatenate([one for _, one in rows]))
        return batch

    def _row(self, item: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        """What the model sees of a row, and the labels."""
        ids = np.array(item["input_ids"])
        if self.causal:
            return ids, ids
        draw = np.random.Generator(np.random.PCG64([self.seed, item["epoch"], item["row"]]))
        places = np.flatnonzero(self.choosable[ids])
        words = _counted(np.array(item["word_ids"])[places]) if self.mask.whole_words else np.arange(len(places))
        chosen = places[_choose(words, self.mask.probability, draw)]
        fate = draw.random(len(chosen))
        others = self.ordinary[draw.integers(0, len(self.ordinary), len(chosen))]
        seen, labels = ids.copy(), np.full_like(ids, IGNORED)
        labels[chosen] = ids[chosen]
        seen[chosen[fate < MASKED]] = self.tokenizer.mask_token_id
        replaced = (fate >= MASKED) & (fate < MASKED + REPLACED)
        seen[chosen[replaced]] = others[replaced]
        return seen, labels


def _counted(words: np.ndarray) -> np.ndarray:
    """The words, whose tokens stand together, numbered 0, 1, 2 ..."""
    return np.cumsum(np.diff(words, prepend=OUTSIDE) != 0) - 1


def _choose(words: np.ndarray, probability: float, draw: np.random.Generator) -> np.ndarray:
    """Which tokens are chosen, as booleans: all those of ``probability`` of the words; each word is equally likely."""
    chosen = np.zeros(words[-1] + 1 if len(words) else 0, dtype=bool)
    count = math.floor(probability * len(chosen) + draw.random())
    chosen[draw.permutation(len(chosen))[:count]] = True
    return np.asarray(chosen[words])


class LanguageObjective:
    """Cross-entropy of the hidden tokens, or with ``causal`` of each next token, averaged over the accumulated batch.

    The vocabulary's logits are only computed where there is something to guess, about 15% of the tokens of a masked
    batch.
    """

    def __init__(self, causal: bool) -> None:
        self.causal = causal

    def counts(self, batch: Batch) -> Tensor:
        """How many tokens are guessed; of shape (1,)."""
        return (self._targets(batch) != IGNORED).sum().cpu().double().unsqueeze(0)

    def loss(self, model: nn.Module, batch: Batch, counts: Tensor) -> Tensor:
        """The part of the accumulated batch's loss; a scalar."""
        losses, _ = self._losses(model, batch)
        return losses.sum() / max(float(counts), 1.0)

    def validate(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The mean loss, and of each row the sum of its losses and their number, of shape (rows, 2)."""
        losses, guessed = self._losses(model, batch)
        sums = torch.zeros(guessed.shape, device=losses.device).masked_scatter(guessed, losses).sum(dim=1)
        numbers = guessed.sum(dim=1)
        return losses.sum() / numbers.sum().clamp(min=1), torch.stack([sums, numbers.to(sums)], dim=1)

    def _targets(self, batch: Batch) -> Tensor:
        """What is to be guessed from each position, of shape (rows, tokens)."""
        labels = batch["labels"]
        if not self.causal:
            return labels
        following = torch.full_like(labels, IGNORED)
        following[:, :-1] = labels[:, 1:]
        return following.masked_fill(batch["attention_mask"] == 0, IGNORED)  # padding may come first

    def _losses(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The losses of all guessed tokens, of shape (tokens,), and where they are, of shape (rows, tokens)."""
        targets = self._targets(batch)
        guessed = targets != IGNORED
        with _only_at(guessed, model):
            logits = model(**features_of(batch)).logits
        return F.cross_entropy(logits[0].float(), targets[guessed], reduction="none"), guessed


@contextlib.contextmanager
def _only_at(places: Tensor, model: nn.Module) -> Iterator[None]:
    """Let the head see one row of the hidden states at ``places`` alone: it works on each position by itself."""
    whole = next(module for module in model.modules() if isinstance(module, PreTrainedModel))

    def gather(module: nn.Module, inputs: Any, output: Any) -> Any:
        output.last_hidden_state = output.last_hidden_state[places].unsqueeze(0)
        return output

    handle = whole.base_model.register_forward_hook(gather)
    try:
        yield
    finally:
        handle.remove()


def language_metrics(sums: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Mean loss of the guessed tokens in nats, and perplexity, its exponential.

    Args:
        sums: of each row the sum of its losses and their number, of shape (rows, 2).
        labels: not used.
    """
    total, number = sums[:, :2].astype(np.float64).sum(axis=0)
    loss = float(total / max(number, 1.0))
    return {"loss": loss, "perplexity": math.exp(min(loss, 700.0))}
