"""The Hugging Face Trainer with our objectives, batches and checkpoints; no training loop of our own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import EvalLoopOutput, EvalPrediction
from transformers.training_args import OptimizerNames

from components.errors import UserError
from components.ml.training.batches import LengthBatches, LongestFirst
from components.ml.training.checkpoints import WEIGHTS, PhaseCheckpoints, give_up
from components.ml.training.objectives import Batch, Objective

Metrics = Callable[[np.ndarray, np.ndarray], dict[str, float]]
"""From logits and labels of the validation rows to named numbers."""
_SPEEDS = ("model_preparation_time", "runtime", "samples_per_second", "steps_per_second")


class Learner(nn.Module):
    """The model that trains and what it minimises, in one module: its output is the loss, as distributed training
    needs it."""

    def __init__(self, model: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective  # a module where it has parameters of its own
        self.changing: set[str] = set()

    def forward(self, batch: Batch, counts: Tensor) -> Tensor:
        """The micro-batch's part of the loss; a scalar."""
        return self.objective.loss(self.model, batch, counts)

    def training_state(self) -> dict[str, Tensor]:
        """The parameters that may change, by name, each once."""
        return {name: one.detach() for name, one in self.named_parameters() if name in self.changing}

    def remember_changing(self) -> None:
        """From here on, the parameters that require a gradient now count as those that may change."""
        self.changing = {name for name, one in self.named_parameters() if one.requires_grad}

    def save_state(self, path: Path) -> None:
        """Write what may change, so that a reader never sees half a file."""
        draft = path.with_suffix(".new")
        save_file({name: value.contiguous() for name, value in self.training_state().items()}, draft)
        draft.replace(path)

    def load_state(self, path: Path) -> None:
        """Take back what :meth:`save_state` wrote."""
        state = self.training_state()
        with torch.no_grad():
            for name, value in load_file(path).items():
                state[name].copy_(value)


class Validation:
    """The rows that a phase is validated on, and what is measured there."""

    def __init__(self, rows: Any, metrics: Metrics | None) -> None:
        self.rows = rows
        self.metrics = metrics


class PhaseTrainer(Trainer):
    """Trains a :class:`Learner`.

    Validation runs after every epoch, over the rows of each task; the metrics of other tasks than the first
    carry their names, and with several tasks there are means over them.
    """

    loss_is_scaled_for_ga = True

    def __init__(
        self,
        *,
        learner: Learner,
        batches: LengthBatches,
        validations: Mapping[str, Validation],
        learning_rates: Mapping[str, float],
        best: Path | None,
        checkpoints: PhaseCheckpoints | None,
        **arguments: Any,
    ) -> None:
        super().__init__(model=learner, **arguments)
        self.learner = learner
        self.batches = batches
        self.validations = validations
        self.learning_rates = learning_rates
        self.best = best
        self.checkpoints = checkpoints

    # Losses

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The micro-batch's loss; gradients are averaged over processes afterwards, while counts are sums over all."""
        counts = torch.as_tensor(num_items_in_batch)
        return model(inputs, counts) * self.accelerator.num_processes

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Tensor | None:
        """What the objective counts in the accumulated batch, over all processes."""
        if not batch_samples:
            return None
        counts = torch.stack([self.learner.objective.counts(batch) for batch in batch_samples]).sum(dim=0)
        if self.args.world_size > 1:
            counts = self.accelerator.gather(counts.to(device).unsqueeze(0)).sum(dim=0)
        return counts

    # Batches

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches as ``batches`` cuts them."""
        return self._loader(self.train_dataset, batch_sampler=self.batches)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Rows by falling length."""
        sampler = LongestFirst(eval_dataset.lengths)
        return self._loader(eval_dataset, sampler=sampler, batch_size=self.args.per_device_eval_batch_size)

    def _loader(self, rows: Any, **how: Any) -> DataLoader[Any]:
        loader: DataLoader[Any] = DataLoader(
            rows, collate_fn=self.data_collator, pin_memory=self.args.dataloader_pin_memory, **how
        )
        prepared: DataLoader[Any] = self.accelerator.prepare(loader)
        return prepared

    # Validation

    def evaluate(
        self,
        eval_dataset: Any = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> dict[str, float]:
        """Loss and metrics of every task, and their means where there are several."""
        found: dict[str, dict[str, float]] = {}
        for task, validation in self.validations.items():
            self._metrics = validation.metrics
            self.compute_metrics = _of_prediction(validation.metrics)
            output = self.evaluation_loop(self.get_eval_dataloader(validation.rows), "Validation")
            found[task] = _measured(output)
        first = next(iter(found))
        metrics = {f"eval_{name}": value for name, value in found[first].items()}
        if len(found) > 1:
            for task, values in found.items():
                metrics |= {f"eval_{task}/{name}": value for name, value in values.items() if task != first}
            for name in sorted(set.intersection(*map(set, found.values()))):
                metrics[f"eval_mean/{name}"] = sum(values[name] for values in found.values()) / len(found)
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def prediction_step(
        self, model: nn.Module, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: list[str] | None = None
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Loss, logits and labels of a validation batch."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.accelerator.autocast():
            loss, logits = self.learner.objective.validate(self.learner.model, inputs)
        if logits is None or self._metrics is None:
            return loss.detach(), None, None
        return loss.detach(), logits.detach().float(), inputs["labels"]

    # Optimiser

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """transformers' optimiser over what requires a gradient; layers may have shares of the learning rate.

        Raises:
            UserError: the optimiser needs a package that isn't there, or can't have several learning rates.
        """
        if self.optimizer is not None:
            return self.optimizer
        try:
            if not self.learning_rates:
                return super().create_optimizer(model)
            kind, settings = self.get_optimizer_cls_and_kwargs(self.args, self.learner)  # type: ignore[arg-type]
            if {"params", "model", "optimizer_dict"} & settings.keys():
                raise ValueError("it sets the learning rate of each parameter itself, so layer_lr_decay can't")
            self.optimizer = kind(self._groups(), **settings)
        except (ImportError, ValueError, NotImplementedError, RuntimeError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"optimizer: '{OptimizerNames(self.args.optim).value}' can't be used here: {reason}",
                "Install what it needs, or choose another, such as adamw_torch_fused.",
                "parameters",
            ) from None
        return self.optimizer

    def _groups(self) -> list[dict[str, Any]]:
        """Parameters by share of the learning rate and by whether weights decay (biases and norms don't)."""
        decaying = set(self.get_decay_parameter_names(self.learner))
        groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
        for name, parameter in self.learner.named_parameters():
            if parameter.requires_grad:
                share = self.learning_rates.get(name.removeprefix("model."), 1.0)
                groups.setdefault((share, name in decaying), []).append(parameter)
        return [
            {
                "params": parameters,
                "lr": self.args.learning_rate * share,
                "weight_decay": self.args.weight_decay if decays else 0.0,
            }
            for (share, decays), parameters in groups.items()
        ]

    # Checkpoints: just what may change, and the best weights apart from them

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Nothing to resume where training ends: a run killed after its last step goes back to the step before that
        was saved, and ends again as it did."""
        if self.checkpoints is None or self.control.should_training_stop:
            return
        checkpoint = Path(self.args.output_dir or "") / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
            self.checkpoints.keep(checkpoint)
        except (
            OSError,
            RuntimeError,
            SafetensorError,
        ) as error:  # torch and safetensors have their own for a full disk
            give_up(checkpoint, error)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        self.learner.save_state(folder / WEIGHTS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        self.learner.load_state(Path(resume_from_checkpoint) / WEIGHTS)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        try:
            super()._load_optimizer_and_scheduler(checkpoint)
        except (KeyError, ValueError) as error:
            raise UserError(
                f"The optimiser's state in the checkpoint {checkpoint} is not of this code's optimiser: {error}",
                "The edit that was accepted changed more than it seemed. Remove the checkpoint and run again: "
                f"rm -r {checkpoint}",
            ) from error

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """As transformers does it; new best weights are kept."""
        better: bool = super()._determine_best_metric(metrics, trial)
        if better and self.best is not None:
            self.best.parent.mkdir(parents=True, exist_ok=True)
            self.learner.save_state(self.best)
            self.state.best_global_step = self.state.global_step
        return better


def _of_prediction(metrics: Metrics | None) -> Callable[[EvalPrediction], dict[str, Any]] | None:
    return None if metrics is None else lambda found: dict(metrics(found.predictions, found.label_ids))  # type: ignore[arg-type]


def _measured(output: EvalLoopOutput) -> dict[str, float]:
    names = {name.removeprefix("eval_"): value for name, value in (output.metrics or {}).items()}
    return {name: float(value) for name, value in names.items() if name not in _SPEEDS}
