"""The paper's scheme (arXiv 2010.08512, arXiv 2010.10499), and the exhaustive search that it approximates.

    Ξ      <- the affordable candidates, ascending by operations, then parameters
    Ξ_ε    <- every ε-th of Ξ, from the first, and the last
    for ξ in Ξ_ε:   e(ξ) <- the least error over Θ, after at most s steps, on a fixed sample
    return  argmax W(ξ, T) over Ξ_ε

Training is the estimator's part and the argmax is `selection.select`'s; what is left is the grid. ε = 1 is the
exhaustive search. Inferred, not the paper's word: the order; that the grid holds the cheapest and the costliest
candidate, so that each skipped one lies between two trained ones; and that candidates over a limit that is known before
training are left out first.

The guarantee assumes that cost orders error totally; `base.gap_under_total_order` then bounds what was skipped.

    >>> Fptas(problem, epsilon=3).rows.tolist()    # of 8 candidates
    [0, 3, 6, 7]
"""

from __future__ import annotations

import numpy as np

from subarch.errors import InvalidConfig
from subarch.search.base import FixedRows, Problem


class Fptas(FixedRows):
    """Trains every ε-th affordable candidate in order of cost, and the last.

    Raises:
        InvalidConfig: ε is not a whole number with 1 <= ε <= |Ξ|.
    """

    name = "fptas"

    def __init__(self, problem: Problem, epsilon: int) -> None:
        if not isinstance(epsilon, int) or isinstance(epsilon, bool) or not 1 <= epsilon <= len(problem):
            raise InvalidConfig(f"epsilon is {epsilon!r}; it must be from 1 (train all) to |Ξ| = {len(problem)}")
        self.epsilon = epsilon
        ordered = np.flatnonzero(problem.affordable)
        super().__init__(problem, np.union1d(ordered[::epsilon], ordered[-1:]))


class Exhaustive(FixedRows):
    """Trains every affordable candidate, in ascending order of cost; the best of them is the optimum."""

    name = "exhaustive"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem, np.flatnonzero(problem.affordable))
