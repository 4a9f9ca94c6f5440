"""The Hugging Face Trainer with our losses and our batches; no training loop of our own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import Trainer
from transformers.trainer_pt_utils import LengthGroupedSampler

from components.ml.losses import IGNORED, ce_loss

Loss = Callable[..., torch.Tensor]


class PhaseTrainer(Trainer):
    """Minimises ``loss(student_logits, teacher_logits, labels, positions=, labelled=)``.

    Validation measures the cross-entropy alone, so that curves of different objectives compare.
    The averages are taken over the whole accumulated batch, so that micro-batches give the gradient
    of the full batch, also where some hold more labelled rows than others.
    """

    loss_is_scaled_for_ga = True

    def __init__(self, *, loss: Loss, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.loss = loss

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, torch.Tensor],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        features = {name: value for name, value in inputs.items() if name not in ("labels", "teacher_logits")}
        labels = inputs["labels"]
        logits = model(**features).logits
        if not model.training:
            loss = ce_loss(logits, labels)
            return (loss, {"logits": logits}) if return_outputs else loss
        counts = _counts([inputs]) if num_items_in_batch is None else torch.as_tensor(num_items_in_batch)
        positions, labelled = counts.tolist()
        loss = self.loss(logits, inputs.get("teacher_logits"), labels, positions=positions, labelled=labelled)
        # Gradients are averaged over processes afterwards, while the counts are sums over all of them.
        return loss * self.accelerator.num_processes

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> torch.Tensor | None:
        """Rows and labelled rows of the accumulated batch, over all processes; shape (2,)."""
        if not batch_samples:
            return None
        counts = _counts(batch_samples).to(device)
        if self.args.world_size > 1:
            counts = self.accelerator.gather(counts.unsqueeze(0)).sum(dim=0)
        return counts

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        rows: Any = train_dataset if train_dataset is not None else self.train_dataset
        size = self.args.train_batch_size * self.args.gradient_accumulation_steps
        return LengthGroupedSampler(size, lengths=rows.lengths)

    def _get_eval_sampler(self, eval_dataset: Any) -> Sampler[int]:
        return LongestFirst(eval_dataset.lengths)


class LongestFirst(Sampler[int]):
    """Rows by falling length: the least padding, and no random number is drawn."""

    def __init__(self, lengths: Sequence[int]) -> None:
        self.order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))

    def __iter__(self) -> Any:
        return iter(self.order)

    def __len__(self) -> int:
        return len(self.order)


def _counts(batches: list[dict[str, torch.Tensor]]) -> torch.Tensor:
    positions = sum(batch["labels"].numel() for batch in batches)
    labelled = sum(int((batch["labels"] != IGNORED).sum()) for batch in batches)
    return torch.tensor([positions, labelled])
