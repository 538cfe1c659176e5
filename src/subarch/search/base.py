"""What every strategy shares: the problem, ask/tell, and the bound on what was not trained.

A strategy never trains: it hands out rows of the space in order of cost (`space.Costs`) and is told their errors, or
that their training failed. Which candidate wins is decided by `selection.select`, from the same errors.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subarch.numbers.objectives import Floats, Mask, Objective, checked_costs


@dataclass(frozen=True, eq=False)
class Problem:
    """The candidates as columns (N,), in the order of `space.Costs`, and what is sought.

    `parameters` is p(ξ); `cost` is i(ξ) in the unit of the objective (a measured latency need not ascend in this
    order). `table` is ⟨D, A, H, I⟩, (N, 4), or (N, 5) with V, and `effort` (N,) what a training costs, for the
    certified search. `megabytes` (N,) are there where the objective limits them.

    Raises:
        ValueError: no candidate, columns of unequal length, a negative or non-finite cost.
    """

    parameters: NDArray[np.int64]
    cost: Floats
    objective: Objective
    table: NDArray[np.int64] | None = None
    effort: Floats | None = None
    megabytes: Floats | None = None

    def __post_init__(self) -> None:
        if not len(checked_costs(self.parameters, self.cost)[0]):
            raise ValueError("a search needs at least one candidate")

    def __len__(self) -> int:
        return len(self.parameters)

    def only(self, some: Mask) -> Problem:
        """Some of the candidates; the objective stays that of all."""
        table = None if self.table is None else self.table[some]
        effort = None if self.effort is None else self.effort[some]
        megabytes = None if self.megabytes is None else self.megabytes[some]
        return Problem(self.parameters[some], self.cost[some], self.objective, table, effort, megabytes)

    def values(self, rows: Any, error: ArrayLike) -> Floats:
        """The best values possible of some rows at these errors, see `Objective.bound`."""
        megabytes = None if self.megabytes is None else self.megabytes[rows]
        return self.objective.bound(self.parameters[rows], self.cost[rows], error, megabytes)

    @cached_property
    def affordable(self) -> Mask:
        """Which rows meet the limits known before training; the others are never trained."""
        return self.objective.affordable(self.parameters, self.cost, self.megabytes)


@dataclass(frozen=True, slots=True)
class Gap:
    """What may remain among affordable candidates that were not trained, if the order of cost orders error totally.

    `bound` is the best value any of them can have (minimised: -W for W), and `row` which could have it; +inf and None
    if none of them can meet the limits or all are trained. `best` is the best value trained (+inf: none meets the
    limits), `absolute` = max(best - bound, 0). `violations` counts neighbours among the trained whose errors rise along
    the order: above 0 the order is not total here, and the bound is void.
    """

    bound: float
    best: float
    absolute: float
    row: int | None
    violations: int


class Strategy(ABC):
    """Ask for rows, tell their errors. What is asked and concluded does not depend on the order of the tells.

    `rows` are those that may be asked for; `error` (N,) is NaN where none is known; `awaited` rows were asked for and
    not answered yet.
    """

    name: str

    def __init__(self, problem: Problem, rows: NDArray[np.int64]) -> None:
        self.problem, self.rows = problem, rows
        self.error = np.full(len(problem), np.nan)
        self.failed = np.zeros(len(problem), dtype=np.bool_)
        self.awaited: set[int] = set()

    @abstractmethod
    def ask(self) -> int | None:
        """The row to train next; None: nothing to hand out at the moment (ask again after a tell, unless `done`)."""

    def tell(self, row: int, error: float) -> None:
        """The error of a row that was asked for.

        Raises:
            ValueError: NaN, infinity, an error <= 0 with W (report those with `fail`), or a row that is not awaited.
        """
        if not math.isfinite(error) or (self.problem.objective.name == "w" and error <= 0):
            raise ValueError(f"row {row}: an error of {error} cannot be compared; report the training as failed")
        self._settle(row)
        self.recall(row, error)

    def recall(self, row: int, error: float) -> None:
        """Take in an error that is known from before, though it was not asked for."""
        self.error[row] = error

    def fail(self, row: int) -> None:
        """The row's training failed: it cannot win, and the search goes on."""
        self._settle(row)
        self.failed[row] = True

    def _settle(self, row: int) -> None:
        if row not in self.awaited:
            raise ValueError(f"row {row} is not awaited: it was never asked for, or was answered already")
        self.awaited.remove(row)

    @property
    @abstractmethod
    def done(self) -> bool:
        """Nothing is awaited and nothing more will be asked."""

    @property
    @abstractmethod
    def progress(self) -> tuple[float, float]:
        """What is settled, and of how much, in any unit."""


class FixedRows(Strategy):
    """Hands out rows known at the start, in ascending order of cost, whatever it is told."""

    def __init__(self, problem: Problem, rows: NDArray[np.int64]) -> None:
        super().__init__(problem, rows)
        self._handed_out = 0

    def ask(self) -> int | None:
        if self._handed_out == len(self.rows):
            return None
        row = int(self.rows[self._handed_out])
        self._handed_out += 1
        self.awaited.add(row)
        return row

    @property
    def done(self) -> bool:
        return self._handed_out == len(self.rows) and not self.awaited

    @property
    def progress(self) -> tuple[float, float]:
        effort = np.ones(len(self.problem)) if self.problem.effort is None else self.problem.effort
        settled = self.rows[: self._handed_out]
        waiting = effort[list(self.awaited)].sum()
        return float(effort[settled].sum() - waiting), float(effort[self.rows].sum())


def optimistic_values(problem: Problem, error: ArrayLike) -> Floats:
    """The best value each row could have, (N,), if e does not increase along the order; NaN in `error`: not trained.

    A skipped ξ below the trained b then has e(ξ) >= e(b), so with f the known cost factor W(ξ) <= f(ξ)/e(b). (The
    textbook form f(a)/e(b), a being the trained neighbour below, is wrong where f does not decrease along the order:
    parameters and a measured latency need not ascend.) `error` and `latency` take the same e(b). Rows with nothing
    trained above them have no bound on e, those over a limit have +inf, trained rows their own value.
    """
    e = np.asarray(error, dtype=np.float64)
    index = np.where(np.isnan(e), len(e), np.arange(len(e)))
    above = np.minimum.accumulate(index[::-1])[::-1]
    return problem.values(slice(None), np.append(e, -np.inf)[above])


def gap_under_total_order(problem: Problem, error: ArrayLike) -> Gap | None:
    """The gap that `optimistic_values` leaves, failed rows counted as untrained; None: a row's value has no bound.

    ⟨D, H, I, V⟩ order errors only partially: a skipped candidate may be incomparable to its neighbour above in cost,
    and better than the bound (the tests keep a counterexample).
    """
    e = np.asarray(error, dtype=np.float64)
    trained = ~np.isnan(e)
    value = optimistic_values(problem, e)
    best = float(value[trained].min(initial=np.inf))
    untrained = np.where(trained, np.inf, value)
    row = int(untrained.argmin())
    bound = float(untrained[row])
    if bound == -math.inf:
        return None
    violations = int((np.diff(e[trained]) > 0).sum())
    absolute = best - bound if bound < best else 0.0
    return Gap(bound, best, absolute, row if math.isfinite(bound) else None, violations)
