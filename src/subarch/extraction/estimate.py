"""The error estimate e(ξ): s training steps of a candidate, then its error on a fixed sample of held-out text.

A `Signal` (see `learning.signals`) is what a candidate is trained on and what its error is. The batches depend on the
seed, the batch size and the step alone: every candidate sees the same data, and a trial repeats bit for bit with the
same number of threads.

    >>> result = estimate(student, signal, Settings(steps=100, learning_rate=2e-3, batch_size=64))
    >>> result.error, result.curve[-1].seconds
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from subarch.errors import TrainingDiverged
from subarch.extraction.trial import Point, Settings
from subarch.models.student import Student

WARM_UP = 10
AVERAGING = 4
"""η of the polynomial-decay average: about the last 1/(η + 1) of the steps count."""
CLIP = 1.0
WEIGHT_DECAY = 0.01
CURVE = (0.0, 0.05, 0.1, 0.25, 0.5, 1.0)
"""Shares of the steps after which the error is measured, the start among them."""
BUCKET = 50
"""Batches whose sequences are sorted by length together, so that little of a batch is padding."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """e after the last step, the curve that led there, and all seconds spent, evaluation included."""

    error: float
    curve: tuple[Point, ...]
    seconds: float


class Signal(Protocol):
    """What a candidate learns from, and how far off it is."""

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(n,) tokens of each training sequence."""
        ...

    def loss(self, student: Student, rows: NDArray[np.int64], epoch: int) -> Tensor:
        """Scalar training loss of the sequences in `rows`, in their `epoch`-th visit."""
        ...

    def error(self, student: Student) -> float:
        """Error on the fixed held-out sample; lower is better."""
        ...


def estimate(student: Student, signal: Signal, settings: Settings, shares: Sequence[float] = CURVE) -> Estimate:
    """Train `student` in place for s steps of AdamW; return its error and curve, leave the averaged weights in it.

    The learning rate warms up over ten steps and stays; errors are those of the running average of the weights
    (polynomial-decay averaging, Shamir and Zhang, arXiv 1212.1824), which does what a decaying learning rate does
    without having to know the last step: the curve of a long run *is* that of every shorter one. The gradient norm is
    clipped at 1 (a condition of AB^nC). Dropout is off. Token embeddings learn by sparse updates where the loss allows
    it, since a dense update of 30,000 rows costs more than a small encoder.

    Args:
        shares: of the steps, after which the error is measured; the last is 1.

    Raises:
        TrainingDiverged: the loss or the error became NaN or infinite, at the step named.
    """
    began = time.perf_counter()
    student.eval()  # no dropout; nothing else in these models depends on the mode
    sparse = _sparse_parameters(student)
    dense = [p for p in student.parameters() if p.requires_grad and all(p is not s for s in sparse)]
    rate = settings.learning_rate
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW(dense, rate, weight_decay=WEIGHT_DECAY)]
    if sparse:
        optimizers.append(torch.optim.SparseAdam(sparse, rate))
    weights = [p.detach() for p in (*dense, *sparse)]
    average = [weight.clone() for weight in weights]
    points = {math.ceil(settings.steps * share) for share in shares}
    curve, training = [_point(student, signal, 0, 0.0)] if 0 in points else [], 0.0
    for step, (epoch, rows) in enumerate(batches(signal.lengths, settings), 1):
        start = time.perf_counter()
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = rate * min(1.0, step / WARM_UP)
            optimizer.zero_grad()
        loss = signal.loss(student, rows, epoch)
        if not math.isfinite(value := loss.item()):
            raise TrainingDiverged(f"the loss became {value} at step {step}; try a lower learning rate")
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(dense, CLIP)
        for optimizer in optimizers:
            optimizer.step()
        torch._foreach_lerp_(average, weights, (AVERAGING + 1) / (step + AVERAGING))
        training += time.perf_counter() - start
        if step in points:
            with _swapped(weights, average):
                curve.append(_point(student, signal, step, training))
    torch._foreach_copy_(weights, average)
    return Estimate(curve[-1].error, tuple(curve), time.perf_counter() - began)


def _point(student: Student, signal: Signal, step: int, seconds: float) -> Point:
    if not math.isfinite(error := signal.error(student)):
        raise TrainingDiverged(f"the error is {error} at step {step}; try a lower learning rate")
    return Point(step, error, seconds)


def _sparse_parameters(student: Student) -> list[torch.nn.Parameter]:
    """The token embeddings, unless a masked-LM head is tied to them: its gradient is dense."""
    if student.masked_lm:
        return []
    table = student.encoder.get_input_embeddings()
    table.sparse = True
    return [table.weight]


@contextmanager
def _swapped(weights: list[Tensor], average: list[Tensor]) -> Iterator[None]:
    """The average in place of the weights, for the time of an evaluation."""
    kept = [weight.clone() for weight in weights]
    torch._foreach_copy_(weights, average)
    try:
        yield
    finally:
        torch._foreach_copy_(weights, kept)


def batches(lengths: NDArray[np.int64], settings: Settings) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """(epoch, rows) for each step: bucket after bucket of fifty batches, sorted by length in each.

    The seed shuffles inside the buckets, so a short run reads a prefix of what a long one does. The last, incomplete
    batch of an epoch is dropped, unless it is the only one.
    """
    done, epoch, size = 0, 0, min(settings.batch_size, len(lengths))
    whole = len(lengths) // size * size
    while True:
        for start in range(0, whole, BUCKET * size):
            generator = np.random.default_rng([settings.seed, epoch, start])
            bucket = generator.permutation(np.arange(start, min(start + BUCKET * size, whole)))
            bucket = bucket[np.argsort(lengths[bucket], kind="stable")].reshape(-1, size)
            for rows in generator.permutation(bucket):
                if done == settings.steps:
                    return
                yield epoch, rows
                done += 1
        epoch += 1


def segments_needed(steps: int, batch_size: int) -> int:
    """How many of the training segments, from the first on, `batches` can draw in so many steps."""
    return -(-steps // BUCKET) * BUCKET * batch_size
