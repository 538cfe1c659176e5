"""Latency: wall time of forward passes on this machine, measured so that drift hits all candidates alike.

Candidates are visited in turn, round after round. A visit starts with one untimed pass, which brings the
candidate's weights back into the caches as in steady serving, then times a few. The result is the median and the
interquartile range over all timed passes, per batch. Weights do not matter for time, so candidates are built
with arbitrary ones and share every tensor of equal name and shape: a space of hundreds fits in memory.

A runtime turns a model into a call; whatever can be called can be measured.

    >>> runtime = TorchRuntime(threads=2)
    >>> calls = {name: runtime.prepare(model, vocabulary, batch=1, length=32) for name, model in models.items()}
    >>> measure(calls)["2-12-384-512"].median_ms
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from subarch.architecture import Architecture
from subarch.model import Student

ROUNDS, PASSES = 9, 4
"""Visits of each candidate, and timed passes of each visit."""

Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Latency:
    """Wall time of one forward pass of one batch, in milliseconds, over `passes` timed passes."""

    median_ms: float
    q1_ms: float
    q3_ms: float
    passes: int


class Runtime(Protocol):
    """Prepares a module of (ids, mask) to be timed: each call is one pass over `batch` sequences of `length` tokens."""

    name: str

    def prepare(self, model: nn.Module, vocabulary: int, batch: int, length: int) -> Call: ...


@dataclass(frozen=True, slots=True)
class TorchRuntime:
    """Eager PyTorch on the processor, with a fixed number of threads."""

    threads: int
    name: str = "torch"

    def prepare(self, model: nn.Module, vocabulary: int, batch: int, length: int) -> Call:
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(5, vocabulary, (batch, length), generator=generator)
        mask = torch.ones_like(ids)
        model.eval()

        def call() -> object:
            if torch.get_num_threads() != self.threads:
                torch.set_num_threads(self.threads)
            with torch.inference_mode():
                return model(ids, mask)

        return call


def measure(
    calls: Mapping[str, Call], rounds: int = ROUNDS, on_round: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Latency]:
    """Time all calls in turn; the first round only warms up. `on_round` hears the rounds done and their total."""
    threads = torch.get_num_threads()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for done in range(rounds + 1):
        for name, call in calls.items():
            call()
            for _ in range(PASSES if done else 0):
                start = time.perf_counter_ns()
                call()  # the processor's operations are synchronous: nothing is left running when it returns
                times[name].append((time.perf_counter_ns() - start) / 1e6)
        on_round(done + 1, rounds + 1)
    torch.set_num_threads(threads)
    quartiles = {name: np.percentile(values, [25, 50, 75]) for name, values in times.items()}
    return {name: Latency(float(q[1]), float(q[0]), float(q[2]), rounds * PASSES) for name, q in quartiles.items()}


def untrained(architectures: Iterable[Architecture], make: Callable[[Architecture], Student]) -> dict[str, Student]:
    """Students by name with arbitrary weights, for timing only; equal tensors are shared between them."""
    shared: dict[tuple[str, tuple[int, ...]], Tensor] = {}
    students = {}
    for architecture in architectures:
        with init_empty_weights(include_buffers=False):
            student = make(architecture)
        for name, parameter in student.named_parameters():
            key = (name, tuple(parameter.shape))
            if key not in shared:
                # Ordinary magnitudes: denormal numbers would slow the arithmetic down.
                shared[key] = torch.empty(parameter.shape).normal_(std=0.02)
        state = {name: shared[name, tuple(parameter.shape)] for name, parameter in student.named_parameters()}
        student.load_state_dict(state, strict=False, assign=True)
        students[str(architecture)] = student.requires_grad_(False).eval()
    return students
