"""How sure a latency is: an interval for the median of its visits, and the side of a limit that it is on.

Visits of one candidate are spread over the minutes of a block, and over several blocks if it is measured again, each on
the common scale. Between which two of them in order the true median lies is a matter of coin tosses, whatever the
distribution: of n visits j lie below it with the probability of j heads. Nothing else is assumed, neither normal times
nor a quiet machine; visits that are slowed down together for a whole block are what anchors correct.

    >>> interval([5.8, 5.7, 5.9, 6.3, 5.8, 5.6, 5.8, 5.7, 5.9, 5.8, 8.1, 5.7])     # but the least and the greatest
    (5.7, 6.3)
    >>> side((5.7, 6.3), (5.8, 5.8))
    'open'
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import Literal

from scipy.special import bdtr

TAIL = 0.005
"""Largest probability that the true median lies below an interval, and that it lies above."""

Interval = tuple[float, float]
Side = Literal["within", "over", "open"]


def interval(visits: Sequence[float]) -> Interval:
    """The least and the greatest that the median can be; 0 and infinity where there are too few visits to tell."""
    left_out = _left_out(len(visits))
    if left_out < 0:
        return 0.0, float("inf")
    ordered = sorted(visits)
    return ordered[left_out], ordered[-1 - left_out]


def side(latency: Interval, limit: Interval) -> Side:
    """Where an interval lies of a limit that is an interval too, as a share of the teacher's latency is."""
    if latency[1] <= limit[0]:
        return "within"
    return "over" if latency[0] > limit[1] else "open"


def tail(count: int) -> float:
    """The probability that the median of so many visits lies above their interval, as that it lies below."""
    left_out = _left_out(count)
    return float(bdtr(left_out, count, 0.5)) if left_out >= 0 else 0.0


def doubt(blocks: Sequence[int]) -> float:
    """The probability that an interval, looked at after each block of so many visits, was once on the wrong side."""
    return sum(tail(count) for count in accumulate(blocks))


@cache
def _left_out(count: int) -> int:
    """How many of the least visits, and of the greatest, an interval leaves out; -1: it cannot even have them all."""
    return next((below for below in range(count, -1, -1) if bdtr(below, count, 0.5) <= TAIL), -1)
