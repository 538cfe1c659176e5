"""Whether an exported file computes what PyTorch does, and how much it differs.

Every batch goes through the stock model in PyTorch and through the file; outputs at padding are left out. Two figures
are kept for each output: the largest difference, absolute and as a share of the rounding error that is allowed (1e-4
plus 1e-4 of the value, since logits are large); and the cosine between the two outputs of a sequence, the worst and the
mean over sequences. Before the cosine is taken, an output is transformed by its kind:

    token vectors, embeddings   as they are, all token vectors of a sequence as one vector
    logits of tokens            less their mean over the vocabulary, which no probability depends on
    logits of classes, choices  probabilities
    numbers of a regression     less their mean, all sequences as one vector

`agreement` is the share of tokens, sequences or examples with the same most likely token, class or choice.

    >>> compare(exportable, session, batches)["sentence_embedding"]
    Likeness(difference=2.1e-07, share_of_limit=0.0019, worst_cosine=0.9999999, mean_cosine=1.0, agreement=None)

A fine-tuned model is also scored on the held-out examples of its task, by both (`metric_drop`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor

from subarch.errors import InvalidTask
from subarch.exporting.config import ExportConfig
from subarch.exporting.graph import Exportable
from subarch.exporting.runtimes import Session
from subarch.exporting.text import Batch
from subarch.models.heads import columns_of, encode, labels_of, logits_of, tokenizer_for
from subarch.run import Report, silent
from subarch.run.folder import RunFolder
from subarch.run.records import Likeness, MetricDrop, Metrics
from subarch.tasks import score
from subarch.tasks.division import TaskData, parts_of
from subarch.tasks.metrics import primary

ABSOLUTE = RELATIVE = 1e-4
"""Rounding error allowed in fp32: the sum of the two, the second times the absolute value."""

MOST_EXAMPLES = 1000
"""Of a task's held-out part, the first so many are predicted."""

Array = NDArray[Any]


def compare(
    model: Exportable, session: Session, batches: Sequence[Batch], report: Report = silent
) -> dict[str, Likeness]:
    """Run all batches through PyTorch and through the file, and compare each output."""
    outputs = model.graph.outputs
    tallies = {name: _tally(model) for name in outputs}
    for done, batch in enumerate(batches, 1):
        with torch.inference_mode():
            expected = model.graph(*(torch.from_numpy(batch[name]) for name in model.graph.inputs))
        found = session(batch)
        for (name, axes), reference in zip(outputs.items(), expected, strict=True):
            for row, mask in enumerate(batch["attention_mask"]):
                real = mask > 0 if "length" in axes else ...
                tallies[name].add(reference[row].numpy()[real], found[name][row][real])
        report("comparing with PyTorch", done, len(batches))
    return {name: tally.likeness() for name, tally in tallies.items()}


def objection(config: ExportConfig, found: dict[str, Likeness]) -> str | None:
    """Why an exported file must not be kept, or None. With int8 or 16 bits the last output decides."""
    if config.is_exact:
        for name, like in found.items():
            if not like.share_of_limit <= 1:  # NaN is refused too
                return (
                    f"{name} differs from PyTorch's by up to {like.difference:.3g}, {like.share_of_limit:.3g} times "
                    "the rounding error that is allowed; this is a fault of the runtime or the exporter, try the other "
                    "runtime"
                )
        return None
    name, like = list(found.items())[-1]
    if not like.worst_cosine >= config.min_cosine:
        return (
            f"the cosine of {name} with PyTorch's falls to {like.worst_cosine:.4f} (mean {like.mean_cosine:.4f}), the "
            f"limit is {config.min_cosine:g}; quantise less or in another way, or allow it with --min-cosine"
        )
    return None


class Tally:
    """Collects the likeness of pairs of arrays, one pair a sequence or example.

    Args:
        transform: applied to both before the cosine is taken; None: they are numbers of a regression.
        wins: whether the greatest entry of a vector is an answer.
    """

    def __init__(self, transform: Callable[[Array], Array] | None, wins: bool) -> None:
        self._transform, self._wins = transform, wins
        self._difference = self._share = np.float64(0)
        self._cosines: list[float] = []
        self._numbers: list[tuple[float, float]] = []
        self._same: list[NDArray[np.bool_]] = []

    def add(self, ours: Array, theirs: Array) -> None:
        """Outputs of PyTorch (`ours`) and of the file for a sequence: (W,), or (length, W)."""
        ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
        gap = np.abs(ours - theirs)
        # np.maximum keeps NaN, max() does not
        self._difference = np.maximum(self._difference, gap.max())
        self._share = np.maximum(self._share, (gap / (ABSOLUTE + RELATIVE * np.abs(ours))).max())
        if self._transform is None:
            self._numbers.append((ours.item(), theirs.item()))
        else:
            self._cosines.append(_cosine(self._transform(ours), self._transform(theirs)))
        if self._wins:
            self._same.append(np.atleast_1d(ours.argmax(-1) == theirs.argmax(-1)))

    def likeness(self) -> Likeness:
        """Over all pairs."""
        cosines = self._cosines
        if self._transform is None:
            ours, theirs = np.array(self._numbers).T
            cosines = [_cosine(ours - ours.mean(), theirs - theirs.mean())]
        agreement = float(np.concatenate(self._same).mean()) if self._same else None
        return Likeness.model_construct(  # not validated: figures may be NaN, which `objection` refuses
            difference=float(self._difference),
            share_of_limit=float(self._share),
            worst_cosine=float(np.min(cosines)),
            mean_cosine=float(np.mean(cosines)),
            agreement=agreement,
        )


def _tally(model: Exportable) -> Tally:
    head = model.graph.head
    if head == "masked-lm":
        return Tally(lambda logits: logits - logits.mean(-1, keepdims=True), wins=True)
    if head in ("classification", "choice"):
        return Tally(None if model.is_regression else partial(softmax, axis=-1), wins=not model.is_regression)
    return Tally(lambda vectors: vectors, wins=False)


def _cosine(ours: Array, theirs: Array) -> float:
    sizes = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    return float((ours * theirs).sum()) / sizes if sizes else float(np.array_equal(ours, theirs))


def metric_drop(model: Exportable, session: Session, report: Report = silent) -> MetricDrop | None:
    """Scores of PyTorch and of the file on the task's held-out examples, and the difference.

    None for a model without the metrics.json of `subarch finetune`, which says what its task and data are. If the data
    is gone, `unknown` holds the reason why there are no scores.
    """
    folder = RunFolder(model.teacher.folder)
    if model.graph.head not in ("classification", "choice") or not folder.has(Metrics):
        return None
    config = folder.read(Metrics).config
    try:
        examples = parts_of(TaskData.of(config)).heldout[:MOST_EXAMPLES]
    except InvalidTask as error:
        return MetricDrop(name=config["task"], unknown=str(error))
    task, stock = examples.task, model.graph.model
    tokenizer = tokenizer_for(model.teacher, config["max_length"])
    encoded, _ = encode(examples, tokenizer)
    values = []
    for what, runner in (("scoring PyTorch", stock), ("scoring the file", _AsModel(session, stock))):
        report(what, 0, 0)
        logits = logits_of(runner, encoded, tokenizer, task)
        if task.head != "choice":
            logits = logits[:, columns_of(stock, task)]
        values.append(score(examples, labels_of(task, logits))[primary(task)])
    return MetricDrop.model_construct(  # not validated: scores of constant predictions may be NaN
        name=config["task"],
        examples=len(examples),
        metric=primary(task),
        pytorch=values[0],
        exported=values[1],
        drop=values[0] - values[1],
    )


class _AsModel:
    """An exported file with the interface of the stock model it was made from."""

    def __init__(self, session: Session, model: Any) -> None:
        self._session, self.config, self.device = session, model.config, torch.device("cpu")

    def __call__(self, **inputs: Tensor) -> SimpleNamespace:
        found = self._session({name: value.numpy() for name, value in inputs.items()})
        return SimpleNamespace(logits=torch.from_numpy(found["logits"]))
