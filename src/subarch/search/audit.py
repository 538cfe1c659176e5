"""The audit: a random sample of what a certified search excludes is trained, to check the assumptions.

The sample is the head of one random order of all candidates that another's error excludes, whether or not they happen
to be trained; so it is drawn without regard to their errors. A candidate whose error turns out below the bound that
excluded it, by more than the noise, is a failure.

    >>> audit = Audit(problem, bounds, size=5)
    >>> sample = audit.sample(known, error)
    >>> most_failing(audit.failures(known, error, sample), len(sample))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from subarch.numbers.objectives import Floats
from subarch.search.base import Problem
from subarch.search.bounds import Bounds

if TYPE_CHECKING:
    from subarch.search.certified import Known


class Audit:
    """`size` candidates are drawn at most."""

    def __init__(self, problem: Problem, bounds: Bounds, size: int) -> None:
        self.bounds, self.size = bounds, size
        self.order = np.random.default_rng(0).permutation(len(problem))

    def sample(self, known: Known, error: Floats) -> list[int]:
        """The rows to train; `error` (N,) is NaN where nothing was trained."""
        least = self._least_by_others(known, error)
        excluded = ((least >= known.needed) & np.isfinite(known.needed))[self.bounds.grid.cell]
        return [int(row) for row in self.order[excluded[self.order]][: self.size]]

    def failures(self, known: Known, error: Floats, sample: Sequence[int]) -> int:
        """How many of a sample are better than the errors of the others allow."""
        least = self._least_by_others(known, error)[self.bounds.grid.cell]
        return sum(bool(error[row] < least[row] + known.slack - known.eta) for row in sample)

    def _least_by_others(self, known: Known, error: Floats) -> Floats:
        """(C,) L(x) without a row's own error."""
        return self.bounds.highest_by_others(known.trained, error[known.trained]) - known.eta - known.slack
