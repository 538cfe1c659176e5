"""One fine-tuning: a pretrained encoder, a new head, one set of hyperparameters.

`fit` depends on nothing but its arguments: on a CPU, with the same number of threads, the same call writes the same
weights bit for bit. The stock folder it writes appears whole or not at all, and the same call finds it again, so a
search that was killed repeats no finished training.

The loop is `transformers.Trainer` with three differences. Batches hold texts of similar length, so that there is little
padding; their order depends on the seed alone. A batch that is too large for one pass is split, and each part
contributes its share of the mean loss over the whole batch; see `pretraining/trainer.py` for what goes wrong otherwise.
Epochs are compared by the official metric, and early stopping starts to count after the warm-up.

Only the embeddings of tokens that occur in the task's texts are trained (`Occurring`). The others get no gradient, but
clearing, measuring and updating all 30,000 of them each step costs more than a small encoder does on short texts.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_pt_utils import LengthGroupedSampler

from subarch.errors import InvalidStudy, InvalidTask, TrainingDiverged
from subarch.finetuning.config import FitSettings, Theta
from subarch.learning.distill import soft_targets
from subarch.models.heads import (
    Encoded,
    Logits,
    collate,
    encode,
    labels_of,
    last_layer,
    logits_of,
    outputs,
    tokenizer_for,
    with_head,
)
from subarch.models.sentence import save_tokenizer
from subarch.models.teacher import Teacher, quiet
from subarch.run import Report, silent
from subarch.run.files import replaced, unreadable
from subarch.tasks import Examples, score
from subarch.tasks.metrics import primary

RECORD = "fit.json"
LOGITS = "dev_logits.npy"

TRAINED_TOKENS = 16_384
"""Tokens, including padding, of the examples in one forward pass of training; larger batches are split."""

SOFT_WEIGHT = 0.5
"""Share of the loss that compares with the teacher's soft targets, if there are any."""

TEMPERATURE = 2.0
"""Both logits are divided by it before they are compared."""


@dataclass(frozen=True, slots=True)
class Fitted:
    """The result of a training: the stock folder, its scores and outputs on dev, and what it took.

    Attributes:
        folder: holds the weights of the epoch with the best primary metric on dev (the first if equal).
        dev_scores: official metrics on dev, the primary one first.
        epoch: the one whose weights were kept, from 1.
        examples_seen: forward and backward passes over one training example (with all its choices).
        truncated: share of the training examples that were longer than max_length.
        history: per epoch: loss on train, scores on dev.
    """

    folder: Path
    theta: Theta
    dev_scores: dict[str, float]
    dev_logits: Logits
    epoch: int
    steps: int
    examples_seen: int
    seconds: float
    truncated: float
    history: list[dict[str, float]]

    @property
    def dev_score(self) -> float:
        return next(iter(self.dev_scores.values()))

    @classmethod
    def read(cls, folder: Path) -> Fitted:
        """Read a finished training; InvalidStudy if files are missing or damaged."""
        try:
            record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            logits = np.load(folder / LOGITS)
            return cls(**record["fitted"] | {"folder": folder, "theta": Theta(**record["theta"]), "dev_logits": logits})
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            problem = f"not a finished fine-tuning ({error}); delete it and fit again"
            raise InvalidStudy(unreadable(folder, error, problem)) from error


def fit(
    model: Path,
    train: Examples,
    dev: Examples,
    theta: Theta,
    folder: Path,
    *,
    settings: FitSettings,
    teacher: Logits | None = None,
    report: Report = silent,
) -> Fitted:
    """Fine-tune the encoder of `model` with a new head into `folder`; a training that is finished there is returned.

    Args:
        model: folder with a BERT or RoBERTa encoder; the head of a fine-tuned model is replaced.
        dev: labelled; its primary metric decides about the best epoch and early stopping.
        folder: appears whole or not at all. If killed before, the same call starts the training from the beginning.
        teacher: (N, C) soft targets for `train`, from `predict`; a row for each word where words are tagged.

    Raises:
        InvalidTask: missing labels, an empty part, labels that are not finite or out of range, dev of another task, or
            soft targets of the wrong shape.
        InvalidTeacher: `model` cannot be loaded.
        InvalidStudy: `folder` holds a training with other arguments.
        TrainingDiverged: a loss or an output is not finite.
    """
    _check(train, dev, teacher)
    encoder = Teacher.load(model)
    key = _key(encoder.fingerprint, train, dev, theta, settings, teacher)
    if (folder / RECORD).is_file():
        if json.loads((folder / RECORD).read_text(encoding="utf-8"))["key"] != key:
            raise InvalidStudy(f"{folder}: was fitted with another model, data or settings; choose another folder")
        return Fitted.read(folder)
    if encoder.architecture.depth == 0:
        warnings.warn(
            f"{model}: has no layers, so the head sees the same first token for every text and can only learn to give "
            "one answer",
            stacklevel=2,
        )
    with replaced(folder) as partial, quiet(), _threads(settings.threads):
        fitted = _fit(encoder, train, dev, theta, partial, settings, teacher, report)
        elsewhere = ("folder", "theta", "dev_logits")
        record = {name: value for name, value in asdict(fitted).items() if name not in elsewhere}
        np.save(partial / LOGITS, fitted.dev_logits)
        told = {"key": key, "theta": asdict(theta), "settings": asdict(settings), "fitted": record}
        (partial / RECORD).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return Fitted.read(folder)


def _check(train: Examples, dev: Examples, teacher: Logits | None) -> None:
    task = train.task
    if dev.task != task:
        raise InvalidTask(f"train is of {task.name}, dev of {dev.task.name}; take both from the same task")
    for examples in (train, dev):
        where = f"{examples.source}: part {examples.part} of {task.name}"
        if not len(examples):
            raise InvalidTask(f"{where} is empty")
        if examples.labels is None:
            raise InvalidTask(f"{where} has rows without a label, which cannot be learnt from or scored")
        if task.head == "tagging":
            continue  # tags are names, which `labels` has found among the task's
        for example, label in zip(examples, examples.labels, strict=True):
            classes = len(example.choices) if task.head == "choice" else len(task.labels)
            fits = math.isfinite(label) if task.head == "regression" else label in range(classes)
            if not fits:
                allowed = "a finite number" if task.head == "regression" else f"one of 0 to {classes - 1}"
                raise InvalidTask(f"{where}: the label of example {example.id!r} is {label}; expected {allowed}")
    if task.head in ("classification", "tagging") and len(set(train.labels or ())) < 2:
        what = "words" if task.head == "tagging" else "examples"
        raise InvalidTask(
            f"{train.source}: all {train.answers} {what} of {train.part} have the same label; there is nothing to learn"
        )
    if teacher is not None:
        columns = 1 if task.head == "regression" else len(task.labels)
        columns = max(len(example.choices) for example in train) if task.head == "choice" else columns
        if teacher.shape != (train.answers, columns):
            what = "words" if task.head == "tagging" else "examples"
            raise InvalidTask(
                f"{task.name}: soft targets have shape {teacher.shape}, but there are {train.answers} {what} and "
                f"{columns} outputs; take them from `predict` for the same examples"
            )
        if not np.isfinite(teacher.max(axis=1)).all():
            raise InvalidTask(f"{task.name}: soft targets are not finite; check the teacher's weights")


def _key(
    fingerprint: str, train: Examples, dev: Examples, theta: Theta, settings: FitSettings, teacher: Logits | None
) -> str:
    """A hash of everything that decides the result, except for the number of threads (it only changes rounding)."""
    digest = hashlib.sha256(repr((fingerprint, theta, replace(settings, threads=None))).encode())
    for examples in (train, dev):
        digest.update(repr((examples.task.name, examples.task.labels, examples.rows)).encode())
    digest.update(b"" if teacher is None else np.ascontiguousarray(teacher).tobytes())
    return digest.hexdigest()


@contextmanager
def _threads(threads: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(threads or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fit(
    encoder: Teacher,
    train: Examples,
    dev: Examples,
    theta: Theta,
    folder: Path,
    settings: FitSettings,
    teacher: Logits | None,
    report: Report,
) -> Fitted:
    task, began = train.task, time.perf_counter()
    tokenizer = tokenizer_for(encoder, settings.max_length)
    encoded, truncated = encode(train, tokenizer, teacher)
    if truncated and task.head == "tagging":
        warnings.warn(
            f"{train.source}: {truncated:.1%} of the sentences of {train.part} are longer than {settings.max_length} "
            "tokens: what lies beyond is not learnt, and where models are scored its spans count as missed; raise "
            "max_length, or cut the sentences",
            stacklevel=2,
        )
    scale = Scale.of(train)
    model = with_head(encoder, task, theta.dropout, theta.seed)
    dev_encoded, _ = encode(dev, tokenizer)
    occurring = Occurring(model, [*encoded, *dev_encoded], tokenizer.pad_token_id)
    trainer = FitTrainer(
        model,
        arguments(folder / "checkpoints", theta, encoded, primary(task)),
        occurring.renumber([scale.shrink(one) for one in encoded]),
        tokenizer,
        Dev(dev, occurring.renumber(dev_encoded), scale),
        settings.patience,
        report,
    )
    trainer.train()
    model.eval()
    occurring.restore()
    scale.fold_into(model)
    model.save_pretrained(folder)
    save_tokenizer(tokenizer, folder, int(tokenizer.model_max_length))
    shutil.rmtree(folder / "checkpoints")
    logits = logits_of(model, dev_encoded, tokenizer, task)
    state = trainer.state
    assert state.best_global_step is not None
    per_epoch = math.ceil(len(encoded) / theta.batch_size)
    return Fitted(
        folder=folder,
        theta=theta,
        dev_scores=score(dev, labels_of(task, logits)),
        dev_logits=logits,
        epoch=state.best_global_step // per_epoch,
        steps=state.global_step,
        examples_seen=trainer.seen,
        seconds=time.perf_counter() - began,
        truncated=truncated,
        history=history(state.log_history),
    )


def arguments(folder: Path, theta: Theta, encoded: Sequence[Encoded], metric: str) -> TrainingArguments:
    longest = max(one.tokens for one in encoded)
    # the fewest equal parts of a batch, each within the limit, or of one example
    parts = next(
        n
        for n in range(1, theta.batch_size + 1)
        if theta.batch_size % n == 0 and (n == theta.batch_size or theta.batch_size // n * longest <= TRAINED_TOKENS)
    )
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


def history(log: list[dict[str, float]]) -> list[dict[str, float]]:
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
    """Standardises the labels of a regression; labels of other tasks stay as they are.

    A learning rate of 1e-4 could not reach prices in the thousands. After training the scale is folded into the last
    layer, so that the stock model predicts in the units of the labels.
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
    """See the module. `seen` counts the training examples that were passed through the model."""

    loss_is_scaled_for_ga = True  # the loss of a part is its share of the whole batch's

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        train: list[Encoded],
        tokenizer: Any,
        dev: Dev,
        patience: int,
        report: Report,
    ) -> None:
        callbacks: list[TrainerCallback] = [_Report(report)]
        if patience:
            callbacks.append(_Patience(patience))
        super().__init__(
            model=model,
            args=args,
            train_dataset=train,
            eval_dataset=dev.encoded,
            data_collator=lambda rows: collate(rows, tokenizer, dev.examples.task),
            callbacks=callbacks,
        )
        self.remove_callback(PrinterCallback)
        self.train_rows, self.tokenizer, self.dev = train, tokenizer, dev
        self.seen = 0

    def _get_train_sampler(self, train_dataset: Any = None) -> LengthGroupedSampler:
        """Batches of similar length, in an order that depends on the seed alone."""
        order = torch.Generator().manual_seed(self.args.seed)
        whole = self.args.train_batch_size * self.args.gradient_accumulation_steps
        lengths = [one.tokens for one in self.train_rows]
        return LengthGroupedSampler(whole, lengths=lengths, generator=order)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> tuple[list[Any], int]:
        """Also count the examples (or words) in all parts of a batch; Trainer would count labels that are not -100."""
        parts, _ = super().get_batch_samples(*args, **kwargs)
        return parts, max(1, sum(len(part["labels"]) for part in parts))

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """This part's share of the mean loss over the whole batch."""
        loss = loss_of(outputs(model, inputs), inputs, SOFT_WEIGHT, TEMPERATURE)
        if not math.isfinite(value := loss.item()):
            raise TrainingDiverged(
                f"the loss became {value} at step {self.state.global_step + 1}; use a lower learning rate"
            )
        self.seen += len(inputs["input_ids" if "words" in inputs else "labels"])
        return loss / num_items_in_batch

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        assert self.model is not None
        logits = logits_of(self.model.eval(), self.dev.encoded, self.tokenizer, self.dev.examples.task)
        if not np.isfinite(logits.max(axis=1)).all():
            raise TrainingDiverged(
                f"the outputs on dev are not finite after step {self.state.global_step}; use a lower learning rate"
            )
        predicted = labels_of(self.dev.examples.task, logits * self.dev.scale.deviation + self.dev.scale.mean)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # early epochs may predict one class; the final scores do warn
            metrics = {f"eval_{name}": value for name, value in score(self.dev.examples, predicted).items()}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics


class _Patience(EarlyStoppingCallback):
    """Counts from the end of the warm-up, which takes up to half of the steps in the published ranges."""

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any = None, **kwargs: Any) -> None:
        if state.global_step > args.warmup_steps:
            super().on_evaluate(args, state, control, metrics, **kwargs)  # type: ignore[no-untyped-call]


class _Report(TrainerCallback):
    def __init__(self, report: Report) -> None:
        self.report = report

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.report("fine-tuning", state.global_step, state.max_steps)


def loss_of(
    logits: Tensor, batch: dict[str, Tensor], soft_weight: float = SOFT_WEIGHT, temperature: float = TEMPERATURE
) -> Tensor:
    """The sum over a batch of each example's loss, or each word's where words are tagged.

    Cross-entropy, or squared error for one output. With soft targets, (1 - w) times that plus w times the divergence
    from the teacher at the temperature, or w times the squared distance to the teacher's output.

    Args:
        logits: (N, C), -inf where an example has fewer choices.
        batch: `labels`, and `soft` if there are soft targets; both standardised for regression.
    """
    labels, soft = batch["labels"], batch.get("soft")
    if labels.is_floating_point():
        losses = (logits[:, 0] - labels) ** 2
        imitation = None if soft is None else (logits[:, 0] - soft[:, 0]) ** 2
    else:
        losses = functional.cross_entropy(logits, labels, reduction="none")
        imitation = None if soft is None else soft_targets(logits, soft[:, : logits.shape[1]], temperature)
    if imitation is not None:
        losses = (1 - soft_weight) * losses + soft_weight * imitation
    return losses.sum()


class Occurring:
    """Reduces `model` to the embeddings of the tokens in `encoded`, until `restore`.

    The embeddings of all other tokens are set aside and put back unchanged; weight decay does not touch them either.
    Token ids up to that of padding keep their position.
    """

    def __init__(self, model: Any, encoded: Sequence[Encoded], padding: int) -> None:
        self.embeddings: nn.Embedding = model.get_input_embeddings()
        self.all = self.embeddings.weight.detach()
        ids = chain.from_iterable(chain.from_iterable(one.ids for one in encoded))
        self.kept = np.union1d(np.arange(padding + 1), np.fromiter(ids, np.int64))
        self.embeddings.weight = nn.Parameter(self.all[self.kept])

    def renumber(self, encoded: Sequence[Encoded]) -> list[Encoded]:
        return [replace(one, ids=[np.searchsorted(self.kept, row).tolist() for row in one.ids]) for one in encoded]

    @torch.no_grad()
    def restore(self) -> None:
        """Put all embeddings back, those of the occurring tokens as trained."""
        whole = self.all.to(self.embeddings.weight.device)
        whole[self.kept] = self.embeddings.weight
        self.embeddings.weight = nn.Parameter(whole)
