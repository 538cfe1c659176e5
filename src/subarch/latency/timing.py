"""Latency: wall time of forward passes on this machine, measured so that drift hits all candidates alike.

Candidates are visited in turn, round after round (`visits.visit`). The result is the median and the
interquartile range over all timed passes, per batch. Weights do not matter for time, so candidates are built
with arbitrary ones and share every tensor of equal name and shape: a space of hundreds fits in memory.

A runtime turns a model into a call; whatever can be called can be measured. A call is one pass at each of some lengths:
one length, or the quantiles of a corpus (`lengths.quantiles_of`), over which the time of a pass is then the mean.

    >>> runtime = TorchRuntime(threads=2)
    >>> lengths = quantiles_of(tokens_of_each_text)
    >>> calls = {name: runtime.prepare(model, vocabulary, 1, lengths) for name, model in models.items()}
    >>> measure(calls)["2-12-384-512"].per(len(lengths)).median_ms
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from accelerate import init_empty_weights
from torch import Tensor, nn

from subarch.latency.visits import PASSES, ROUNDS, Call, Latency, visit
from subarch.models.student import Student
from subarch.numbers.architecture import Architecture

__all__ = ["PASSES", "ROUNDS", "Call", "Latency", "Runtime", "TorchRuntime", "measure", "untrained"]


class Runtime(Protocol):
    """Prepares a module of (ids, mask) to be timed.

    A call is one pass over `batch` sequences of so many tokens for each of `lengths`, in turn.
    """

    name: str

    def prepare(self, model: nn.Module, vocabulary: int, batch: int, lengths: Sequence[int]) -> Call: ...


@dataclass(frozen=True, slots=True)
class TorchRuntime:
    """Eager PyTorch on the processor, with a fixed number of threads."""

    threads: int
    name: str = "torch"

    def prepare(self, model: nn.Module, vocabulary: int, batch: int, lengths: Sequence[int]) -> Call:
        """The call gives the outputs, one per length."""
        generator = torch.Generator().manual_seed(0)
        inputs = [torch.randint(5, vocabulary, (batch, length), generator=generator) for length in lengths]
        masks = [torch.ones_like(ids) for ids in inputs]
        model.eval()

        def call() -> object:
            if torch.get_num_threads() != self.threads:
                torch.set_num_threads(self.threads)
            with torch.inference_mode():
                return [model(ids, mask) for ids, mask in zip(inputs, masks, strict=True)]

        return call


def measure(
    calls: Mapping[str, Call], rounds: int = ROUNDS, on_round: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Latency]:
    """Time all calls in turn; the first round only warms up. `on_round` hears the rounds done and their total."""
    threads = torch.get_num_threads()
    times: dict[str, list[float]] = {name: [] for name in calls}
    for done in range(rounds + 1):
        for name, call in calls.items():
            times[name] += visit(call, PASSES if done else 0)
        on_round(done + 1, rounds + 1)
    torch.set_num_threads(threads)
    return {name: Latency.of(values) for name, values in times.items()}


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
