"""Every affordable candidate, in ascending order of cost: what the others are measured against.

>>> strategy = Exhaustive(problem)
>>> while (row := strategy.ask()) is not None:
...     strategy.tell(row, train(row))
"""

from __future__ import annotations

import numpy as np

from subarch.search.base import FixedRows, Problem


class Exhaustive(FixedRows):
    """Trains all of Ξ that the limits on cost and size allow; its answer is the optimum."""

    name = "exhaustive"

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem, np.flatnonzero(problem.affordable))
