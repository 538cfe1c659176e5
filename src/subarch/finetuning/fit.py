"""One fine-tuning: a pretrained encoder, a new head, one set of settings; and the predictions of what came out.

`fit` is a function of its arguments alone: on a CPU, with the same threads, the same call leaves the same weights bit
for bit. What it leaves is a stock folder, which appears whole or not at all, and the same call finds it again; so a
search that was killed repeats nothing it had finished.

    >>> fitted = fit(Path("runs/mine/pretrained"), train, dev, Theta(1e-4), Path("fits/0"), settings=FitSettings())
    >>> fitted.dev_scores
    {'accuracy': 0.61}
    >>> score(test, labels_of(test.task, predict(fitted.folder, test, max_length=128)))
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from subarch.errors import InvalidStudy, InvalidTask
from subarch.finetuning.config import FitSettings, Theta
from subarch.finetuning.occurring import Occurring
from subarch.finetuning.trainer import Dev, FitTrainer, Scale, arguments, class_weights, history
from subarch.models.heads import Logits, encode, labels_of, logits_of, tokenizer_for, with_head
from subarch.models.teacher import Teacher, quiet
from subarch.run.files import replaced
from subarch.run.progress import Report, silent
from subarch.tasks import Examples, score
from subarch.tasks.metrics import primary

RECORD = "fit.json"
LOGITS = "dev_logits.npy"


@dataclass(frozen=True, slots=True)
class Fitted:
    """What a training came to.

    Attributes:
        folder: stock files, the weights of the epoch with the best primary metric on dev (the first of equals).
        theta: its settings.
        dev_scores: official metrics on dev, the primary one first.
        dev_logits: see `Logits`, in the order of dev.
        epoch: the one that was kept, from 1.
        steps: of the optimiser, all that were taken.
        examples_seen: forward and backward passes over one training example (with all its choices).
        seconds: of training and of its evaluations.
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
    history: list[dict[str, Any]]

    @property
    def dev_score(self) -> float:
        """The primary metric on dev, by which models are chosen."""
        return next(iter(self.dev_scores.values()))

    @classmethod
    def read(cls, folder: Path) -> Fitted:
        """What a finished training left.

        Raises:
            InvalidStudy: its files are missing or damaged.
        """
        try:
            record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            logits = np.load(folder / LOGITS)
            return cls(**record["fitted"] | {"folder": folder, "theta": Theta(**record["theta"]), "dev_logits": logits})
        except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
            raise InvalidStudy(
                f"{folder}: no finished fine-tuning ({error}); delete the folder and fit again"
            ) from error


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
    """Fine-tune the encoder of `model` with a new head into `folder`, or return what a call like this left there.

    Args:
        model: a folder with a BERT or RoBERTa encoder: a student, a hub's, a fine-tuned one (whose head is dropped).
        train: labelled; rows may be anybody's, ids are not looked at.
        dev: labelled; the best epoch and early stopping go by its primary metric.
        folder: appears whole or not at all. Killed in between, the same call begins this training again.
        teacher: soft targets for `train`, from `predict`.
        report: called with what is done, steps, and steps at most.

    Raises:
        InvalidTask: no labels, an empty part, targets that are not finite, dev of another task, soft targets that do
            not fit.
        InvalidTeacher: `model` cannot be loaded.
        InvalidStudy: `folder` holds a training with other arguments.
        TrainingDiverged: a loss or an output is not finite.
    """
    _check(train, dev, teacher)
    encoder = Teacher.load(model)
    key = _key(encoder.fingerprint, train, dev, theta, settings, teacher)
    if (folder / RECORD).is_file():
        if json.loads((folder / RECORD).read_text(encoding="utf-8"))["key"] != key:
            raise InvalidStudy(
                f"{folder}: holds a fine-tuning of another model, other examples or other settings; choose another "
                "folder"
            )
        return Fitted.read(folder)
    if encoder.architecture.depth == 0:
        warnings.warn(
            f"{model}: has no layers, so the first token, which the head reads, is the same for every text: it can "
            "learn one answer only",
            stacklevel=2,
        )
    with replaced(folder) as partial, quiet(), _threads(settings.threads):
        fitted = _fit(encoder, train, dev, theta, partial, settings, teacher, report)
        record = {
            name: value for name, value in asdict(fitted).items() if name not in ("folder", "theta", "dev_logits")
        }
        np.save(partial / LOGITS, fitted.dev_logits)
        told = {"key": key, "theta": asdict(theta), "settings": asdict(settings), "fitted": record}
        (partial / RECORD).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    return Fitted.read(folder)


def _check(train: Examples, dev: Examples, teacher: Logits | None) -> None:
    task = train.task
    if dev.task != task:
        raise InvalidTask(f"{task.name} is learnt and {dev.task.name} is to be scored; take both from one task")
    for examples in (train, dev):
        where = f"{examples.source}: the part {examples.part} of {task.name}"
        if not len(examples):
            raise InvalidTask(f"{where} is empty")
        if examples.labels is None:
            raise InvalidTask(f"{where} has rows without a label: they can be predicted, not learnt or scored")
        for example, label in zip(examples, examples.labels, strict=True):
            classes = len(example.choices) if task.head == "choice" else len(task.labels)
            fits = math.isfinite(label) if task.head == "regression" else label in range(classes)
            if not fits:
                allowed = "a finite number" if task.head == "regression" else f"one of 0 to {classes - 1}"
                raise InvalidTask(f"{where}: the label of example {example.id!r} is {label}, not {allowed}")
    if task.head == "classification" and len(set(train.labels or ())) < 2:
        raise InvalidTask(
            f"{train.source}: all {len(train)} examples of {train.part} have the same label; nothing is learnt"
        )
    if teacher is not None:
        columns = len(task.labels) if task.head == "classification" else 1
        columns = max(len(example.choices) for example in train) if task.head == "choice" else columns
        if teacher.shape != (len(train), columns):
            raise InvalidTask(
                f"{task.name}: soft targets of shape {teacher.shape} for {len(train)} examples and {columns} outputs; "
                "take those of `predict` for the same examples"
            )
        if not np.isfinite(teacher.max(axis=1)).all():
            raise InvalidTask(f"{task.name}: soft targets are not finite; the teacher is broken")


def _key(
    fingerprint: str, train: Examples, dev: Examples, theta: Theta, settings: FitSettings, teacher: Logits | None
) -> str:
    """Identifies all that decides the outcome, but for the threads, which decide about rounding."""
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
    """Train, and write the stock folder."""
    task, began = train.task, time.perf_counter()
    tokenizer = tokenizer_for(encoder, settings.max_length)
    encoded, truncated = encode(train, tokenizer, teacher)
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
        class_weights(train) if settings.class_weights else None,
        settings,
        report,
    )
    trainer.train()
    model.eval()
    occurring.restore()
    scale.fold_into(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
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
