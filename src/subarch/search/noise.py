"""What chance does to a certificate: how far errors may be off, and how often an assumption may fail unseen.

>>> noise = Noise.of([[0.301, 0.303, 0.302], [0.412, 0.409, 0.411]])   # errors of the same candidates, other seeds
>>> noise.bound(trials=12)                       # |measured - true| of all twelve at once, with probability 0.95
0.0069...
>>> most_failing(failures=0, drawn=10)           # of the rest at most a quarter may fail, with probability 0.95
0.2588...
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv, stdtrit

LEVEL = 0.95
"""Probability of both statements."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Deviation of an error over seeds, pooled over candidates, and its degrees of freedom; 0: none is known."""

    deviation: float = 0.0
    freedom: int = 0

    @classmethod
    def of(cls, repeated: Iterable[Sequence[float]]) -> Noise:
        """From errors of candidates that were trained with several seeds; those with one say nothing."""
        groups = [np.asarray(errors, dtype=np.float64) for errors in repeated if len(errors) > 1]
        freedom = sum(len(group) - 1 for group in groups)
        squares = sum(float(((group - group.mean()) ** 2).sum()) for group in groups)
        return cls(math.sqrt(squares / freedom), freedom) if freedom else cls()

    def bound(self, trials: int) -> float:
        """η: no measured error of so many trials is further from its mean over seeds, with probability `LEVEL`.

        Student's t for normal errors of equal deviation, by Bonferroni over the trials. Without repeats it is 0: errors
        then count as exact.
        """
        if not self.freedom or not self.deviation:
            return 0.0
        return float(self.deviation * stdtrit(self.freedom, 1 - (1 - LEVEL) / (2 * max(trials, 1))))


def most_failing(failures: int, drawn: int) -> float:
    """The largest rate at which so few failures among so many draws have probability 1 - `LEVEL` (Clopper-Pearson)."""
    if failures >= drawn:
        return 1.0
    return float(betaincinv(failures + 1, drawn - failures, LEVEL))
