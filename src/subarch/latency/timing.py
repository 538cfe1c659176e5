"""The clock: wall time of forward passes on this machine, measured so that drift of its speed hits all models alike.

Models are visited in turn, round after round. A visit starts with one untimed pass, which brings the weights back into
the caches as in steady serving, then times a few. The result is the median and the quartiles over all timed passes.

A call is one pass at each of some lengths: one length, or the quantiles of a corpus, over which the time of a pass is
then the mean.

    >>> lengths = quantiles_of(tokens_of_each_text)
    >>> calls = {"exported": session_call(open_export(folder, threads=2), vocabulary=30522, batch=1, lengths=lengths)}
    >>> measure(calls)["exported"].per(len(lengths)).median_ms
    2.9

Importing this module imports neither torch nor a runtime.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from subarch.errors import InvalidCorpus
from subarch.exporting.runtimes import Session, named
from subarch.run.records import Timing

ROUNDS, PASSES = 9, 4
"""Visits of each candidate, and timed passes of each visit."""

CHOICES = 2
"""Choices of each example when a multiple-choice model is timed."""

Call = Callable[[], object]
Result = TypeVar("Result")


class Latency(Timing):
    """Wall time of a call, in milliseconds: median, quartiles and 95th percentile over `passes` timed calls."""

    @classmethod
    def of(cls, times: Sequence[float]) -> Latency:
        """From the milliseconds of each call."""
        median, q1, q3, p95 = np.percentile(times, [50, 25, 75, 95]).tolist()
        return cls(median_ms=median, q1_ms=q1, q3_ms=q3, p95_ms=p95, passes=len(times))

    def per(self, parts: float) -> Latency:
        """Divided by the number of passes in a call: the mean forward pass over that many lengths."""
        return Latency(
            median_ms=self.median_ms / parts,
            q1_ms=self.q1_ms / parts,
            q3_ms=self.q3_ms / parts,
            p95_ms=self.p95_ms / parts,
            passes=self.passes,
        )


def visit(call: Call, passes: int = PASSES, seconds: float = 0.0) -> list[float]:
    """One untimed pass, then `passes` timed ones, and more until `seconds` are over: milliseconds of each timed one."""
    call()
    times: list[float] = []
    while len(times) < passes or sum(times) < 1e3 * seconds:
        start = time.perf_counter_ns()
        call()  # operations on the CPU are synchronous: nothing is left running when it returns
        times.append((time.perf_counter_ns() - start) / 1e6)
    return times


def take_turns(
    visits: Sequence[Callable[[int], Result]], rounds: int, on_round: Callable[[int, int], None]
) -> list[list[Result]]:
    """For each visit, a function of the number of passes to time, its results of all timed rounds.

    The first round only warms up. `on_round` is told the number of finished rounds and their total.
    """
    found: list[list[Result]] = [[] for _ in visits]
    for done in range(rounds + 1):
        for make, results in zip(visits, found, strict=True):
            result = make(PASSES if done else 0)
            if done:
                results.append(result)
        on_round(done + 1, rounds + 1)
    return found


def measure(
    calls: Mapping[str, Call], rounds: int = ROUNDS, on_round: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Latency]:
    """Time all calls in turn."""
    times = take_turns([partial(visit, call) for call in calls.values()], rounds, on_round)
    return {name: Latency.of([*itertools.chain(*own)]) for name, own in zip(calls, times, strict=True)}


def session_call(session: Session, vocabulary: int, batch: int, lengths: Sequence[int]) -> Call:
    """A call that is one pass over `batch` sequences of random tokens at each length, in turn.

    For multiple choice it is `batch` examples of `CHOICES` sequences. The call returns the outputs, one per length.
    """
    draw, choices = np.random.default_rng(0), [CHOICES] * (session.inputs["input_ids"] - 2)
    rows = [draw.integers(5, vocabulary, (batch, *choices, length)) for length in lengths]
    inputs = [named(session.inputs, {"input_ids": ids, "attention_mask": np.ones_like(ids)}) for ids in rows]
    return lambda: [session(one) for one in inputs]


def quantiles_of(lengths: Sequence[int] | NDArray[np.int_], count: int = 8) -> tuple[int, ...]:
    """Lengths that stand for those of a corpus, as time grows faster than length: the middle of `count` equal shares.

    Each is a length that occurs.

    Args:
        lengths: tokens of each text as the encoder gets it, with special tokens, cut at its positions.

    Raises:
        InvalidCorpus: there is no text.
    """
    if not len(lengths):
        raise InvalidCorpus("no text to take lengths from; give a corpus that has some")
    middles = (np.arange(count) + 0.5) / count
    return tuple(int(length) for length in np.quantile(np.asarray(lengths), middles, method="inverted_cdf"))
