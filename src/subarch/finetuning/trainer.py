"""The training loop of a fine-tuning: `transformers.Trainer`, told what batches and losses are, and what dev says.

Three things differ from Trainer's own ways. Batches hold texts of like length, so that little of them is padding, in an
order that is the seed's alone. A batch that is too large for one pass is made in parts, each of which brings its share
of the mean loss over the whole; see `pretraining/trainer.py` for what goes wrong otherwise. Epochs are compared by the
official metric, and patience with epochs that bring no gain begins after the warm-up.

    >>> args = arguments(folder, theta, encoded, "accuracy")
    >>> FitTrainer(model, args, encoded, tokenizer, dev, None, settings, report).train()
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_pt_utils import LengthGroupedSampler

from subarch.errors import TrainingDiverged
from subarch.finetuning.config import FitSettings, Theta
from subarch.models.heads import Encoded, collate, labels_of, last_layer, logits_of, outputs
from subarch.run.progress import Report
from subarch.tasks import Examples, score

TRAINED_TOKENS = 16_384
"""Tokens, padding included, of the examples of one forward pass in training; larger batches are made in parts."""


def arguments(folder: Path, theta: Theta, encoded: Sequence[Encoded], metric: str) -> TrainingArguments:
    longest = max(one.tokens for one in encoded)
    parts = next(n for n in range(1, theta.batch_size + 1) if _fits(theta.batch_size, n, longest))
    steps = theta.epochs * math.ceil(len(encoded) / theta.batch_size)
    arguments = TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=theta.epochs,
        per_device_train_batch_size=theta.batch_size // parts,
        gradient_accumulation_steps=parts,
        optim="adamw_torch_fused",
        learning_rate=theta.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=round(theta.warm_up * steps),
        weight_decay=theta.weight_decay,
        use_cpu=not torch.cuda.is_available(),
        eval_strategy="epoch",
        logging_strategy="epoch",
        save_strategy="best",
        save_only_model=True,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model=metric,
        greater_is_better=True,
        remove_unused_columns=False,
        report_to="none",
        disable_tqdm=True,
        seed=theta.seed,
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # Trainer would copy so small a model to all, and divide batches where no example ends
    return arguments


def _fits(batch_size: int, parts: int, longest: int) -> bool:
    """Whether a batch may be made in so many equal parts: each within the limit, or of one example."""
    return batch_size % parts == 0 and (parts == batch_size or batch_size // parts * longest <= TRAINED_TOKENS)


def class_weights(train: Examples) -> Tensor | None:
    """(C,) inverse frequencies, 1 on average over the examples ("balanced" of scikit-learn)."""
    if train.task.head != "classification":
        return None
    counts = np.bincount(np.asarray(train.labels, dtype=np.int64), minlength=len(train.task.labels))
    weights = len(train) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return torch.tensor(weights, dtype=torch.float32)


def history(log: list[dict[str, float]]) -> list[dict[str, Any]]:
    """Per epoch: the mean loss on train, the scores on dev."""
    losses = [row["loss"] for row in log if "loss" in row]
    scores = [row for row in log if "eval_loss" not in row and any(name.startswith("eval_") for name in row)]
    return [
        {"epoch": number, "loss": loss}
        | {name.removeprefix("eval_"): value for name, value in row.items() if name.startswith("eval_")}
        for number, (loss, row) in enumerate(zip(losses, scores, strict=True), 1)
    ]


@dataclass(frozen=True)
class Scale:
    """Targets of a regression are learnt in units of their deviation from their mean, whatever their own units are.

    Prices in thousands would be out of reach of a learning rate of 1e-4. The trained model is rescaled in its last
    layer, so that the stock folder speaks in the units of the labels. Nothing is changed where labels are classes.
    """

    mean: float = 0.0
    deviation: float = 1.0

    @classmethod
    def of(cls, train: Examples) -> Scale:
        if train.task.head != "regression":
            return cls()
        labels = np.asarray(train.labels, dtype=np.float64)
        return cls(float(labels.mean()), float(labels.std()) or 1.0)

    def shrink(self, one: Encoded) -> Encoded:
        if self == Scale():
            return one
        assert one.label is not None
        soft = None if one.soft is None else (one.soft - self.mean) / self.deviation
        return replace(one, label=(one.label - self.mean) / self.deviation, soft=soft)

    @torch.no_grad()
    def fold_into(self, model: nn.Module) -> None:
        layer = last_layer(model)
        layer.weight.mul_(self.deviation)
        layer.bias.mul_(self.deviation).add_(self.mean)


@dataclass(frozen=True)
class Dev:
    examples: Examples
    encoded: list[Encoded]
    scale: Scale


class FitTrainer(Trainer):
    """See the module. `seen` counts the training examples that went through."""

    loss_is_scaled_for_ga = True  # each part's loss is its share of the whole batch's

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        train: list[Encoded],
        tokenizer: Any,
        dev: Dev,
        weights: Tensor | None,
        settings: FitSettings,
        report: Report,
    ) -> None:
        callbacks: list[TrainerCallback] = [_Report(report)]
        if settings.patience:
            callbacks.append(_Patience(settings.patience))
        super().__init__(
            model=model,
            args=args,
            train_dataset=train,
            eval_dataset=dev.encoded,
            data_collator=lambda rows: collate(rows, tokenizer, dev.examples.task),
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)
        self.train_rows, self.tokenizer, self.dev, self.settings = train, tokenizer, dev, settings
        self.weights = None if weights is None else weights.to(args.device)
        self.seen = 0

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGroupedSampler:
        """Batches of like length have little padding; the order is the seed's alone."""
        order = torch.Generator().manual_seed(self.args.seed)
        whole = self.args.train_batch_size * self.args.gradient_accumulation_steps
        lengths = [one.tokens for one in self.train_rows]
        return LengthGroupedSampler(whole, lengths=lengths, generator=order)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], int]:
        """With the number of examples in all parts of a batch; Trainer would count labels that are not -100."""
        parts, _ = super().get_batch_samples(*args, **kwargs)
        return parts, sum(len(part["labels"]) for part in parts)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """This part's share of the mean over the whole batch."""
        logits = outputs(model, inputs)
        loss = loss_of(logits, inputs, self.weights, self.settings.soft_weight, self.settings.temperature)
        if not math.isfinite(value := loss.item()):
            raise TrainingDiverged(
                f"the loss became {value} at step {self.state.global_step + 1}; take a lower learning rate"
            )
        self.seen += len(inputs["labels"])
        return loss / num_items_in_batch

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """The official scores on dev."""
        assert self.model is not None
        logits = logits_of(self.model.eval(), self.dev.encoded, self.tokenizer, self.dev.examples.task)
        if not np.isfinite(logits.max(axis=1)).all():
            raise TrainingDiverged(
                f"outputs for dev are not finite after step {self.state.global_step}; take a lower learning rate"
            )
        predicted = labels_of(self.dev.examples.task, logits * self.dev.scale.deviation + self.dev.scale.mean)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # early epochs predict one class: said at the end, if it stays so
            metrics = {f"eval_{name}": value for name, value in score(self.dev.examples, predicted).items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class _Patience(EarlyStoppingCallback):
    """Counts from the end of the warm-up: published ranges spend up to half of the steps on it."""

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        if state.global_step > args.warmup_steps:
            super().on_evaluate(args, state, control, metrics, **kwargs)  # type: ignore[no-untyped-call]


class _Report(TrainerCallback):
    """Hands progress on."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.report("fine-tuning", state.global_step, state.max_steps)


def loss_of(
    logits: Tensor,
    batch: dict[str, Tensor],
    weights: Tensor | None = None,
    soft_weight: float = 0.0,
    temperature: float = 1.0,
) -> Tensor:
    """The sum over a batch of each example's loss.

    Cross-entropy, or squared error for one output; with soft targets, (1 - w) times that plus w times the divergence
    τ² KL(teacher ‖ student) at temperature τ, or the squared distance to the teacher's output.

    Args:
        logits: (N, C), -inf where there is no choice.
        batch: `labels`, and `soft` where there are soft targets; both standardised for regression.
        weights: (C,) of the classes.
    """
    labels, soft = batch["labels"], batch.get("soft")
    if labels.is_floating_point():
        losses = (logits[:, 0] - labels) ** 2
        imitation = None if soft is None else (logits[:, 0] - soft[:, 0]) ** 2
    else:
        losses = functional.cross_entropy(logits, labels, weight=weights, reduction="none")
        imitation = None if soft is None else _divergence(logits, soft[:, : logits.shape[1]], temperature)
    if imitation is not None:
        losses = (1 - soft_weight) * losses + soft_weight * imitation
    return losses.sum()


def _divergence(logits: Tensor, soft: Tensor, temperature: float) -> Tensor:
    """(N,) τ² KL(teacher ‖ student); choices that are not there, -inf for both, add nothing."""
    absent = torch.isinf(soft)
    student = functional.log_softmax(logits / temperature, dim=1).masked_fill(absent, 0.0)
    teacher = functional.log_softmax(soft / temperature, dim=1)
    return temperature**2 * (teacher.exp() * (teacher.masked_fill(absent, 0.0) - student)).sum(1)
