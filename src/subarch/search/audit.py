"""The audit: a random sample of what a certified search excludes is trained all the same, to see whether it had reason.

The sample is the head of a random order of all candidates that another's error excludes, whether they happen to be
trained or not; so it is drawn without regard to their errors. Who turns out better than the reason allows, beyond the
noise, is a failure. For another number of heads the reason counts on η_A as measured without the sample itself.

    >>> audit = Audit(problem, bounds, siblings, size=5)
    >>> sample = audit.sample(known, error)
    >>> most_failing(audit.failures(known, error, sample), len(sample))
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from subarch.numbers.objectives import Floats
from subarch.search.base import Problem
from subarch.search.bounds import Bounds
from subarch.search.evidence import Known
from subarch.search.heads import Siblings


class Audit:
    """`size` is how many are drawn at most."""

    def __init__(self, problem: Problem, bounds: Bounds, siblings: Siblings, size: int) -> None:
        self.problem, self.bounds, self.siblings, self.size = problem, bounds, siblings, size
        self.cell = bounds.lattice.cell
        self.drawing = np.random.default_rng(0).permutation(len(problem))

    def sample(self, known: Known, error: Floats) -> list[int]:
        """Rows; `error` (N,) is NaN where there is none."""
        least = self._least_by_others(known, error)
        excluded = ((least >= known.needed) & np.isfinite(known.needed))[self.cell]
        if len(self.siblings):
            excluded &= self.problem.affordable  # a representative over a limit stands in the grid for its siblings
            excluded[self.siblings.rows] = self.siblings.excluded(known, error, self.bounds.highest)
        return [int(row) for row in self.drawing[excluded[self.drawing]][: self.size]]

    def failures(self, known: Known, error: Floats, sample: Sequence[int]) -> int:
        """How many of a sample are better than the errors of others allow."""
        least = self._least_by_others(known, error)[self.cell]
        eta, pairs = self.siblings.measured(error, self.bounds.highest, sample)
        least[self.siblings.rows] = known.least[self.siblings.cell] - (eta if pairs else 0.0)
        return sum(bool(error[row] < least[row] + known.slack - known.eta) for row in sample)

    def _least_by_others(self, known: Known, error: Floats) -> Floats:
        """(C,) L(x) without a row's own error."""
        return self.bounds.highest_by_others(known.trained, error[known.trained]) - known.eta - known.slack
