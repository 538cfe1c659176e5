"""The clock: what a visit to a candidate is, and how times become figures.

A visit starts with one untimed pass, which brings the weights back into the caches as in steady serving, then times a
few. It stands apart from `latency` because it is also run in processes that shall not load torch (`bench.serving`).

    >>> times = [time for _ in range(ROUNDS) for time in visit(call)]
    >>> Latency.of(times).median_ms
    2.9
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

ROUNDS, PASSES = 9, 4
"""Visits of each candidate, and timed passes of each visit."""

Call = Callable[[], object]


@dataclass(frozen=True, slots=True)
class Latency:
    """Wall time of a call, in milliseconds: median, quartiles and 95th percentile over `passes` timed calls."""

    median_ms: float
    q1_ms: float
    q3_ms: float
    p95_ms: float
    passes: int

    @classmethod
    def of(cls, times: Sequence[float]) -> Latency:
        """The figures of some times in milliseconds."""
        q = np.percentile(times, [50, 25, 75, 95]).tolist()
        return cls(q[0], q[1], q[2], q[3], len(times))

    def per(self, parts: int) -> Latency:
        """The same per part of a call: of the mean forward pass, where a call made one at each of so many lengths."""
        return Latency(self.median_ms / parts, self.q1_ms / parts, self.q3_ms / parts, self.p95_ms / parts, self.passes)


def visit(call: Call, passes: int = PASSES, seconds: float = 0.0) -> list[float]:
    """One untimed pass, then `passes` timed ones, and more until `seconds` are over: milliseconds of each timed one."""
    call()
    times: list[float] = []
    while len(times) < passes or sum(times) < 1e3 * seconds:
        start = time.perf_counter_ns()
        call()  # the processor's operations are synchronous: nothing is left running when it returns
        times.append((time.perf_counter_ns() - start) / 1e6)
    return times
