"""Certified search: find a good candidate early, then prove that nothing untrained beats it by more than δ.

    while something may still be better than the incumbent by more than δ:
        if the law fitted so far puts such a candidate somewhere:   train it              (the incumbent's part)
        else: train what excludes most candidates for its cost                            (the certificate's part)
    train a random sample of what was excluded, to see whether the reasons hold           (the audit)

Proof sketch. Let x ≤ t mean that t is at least as large as x in each of D, H and I. Assume (M) that the true error, the
mean over seeds, does not rise along ≤, and (N) that |measured - true| ≤ η for all trials at once. Then

    e(x) ≥ e(t) ≥ ê(t) - η    for every trained t ≥ x;      L(x) = the greatest of these,

and p(x), i(x) are known exactly, so no x does better than value(p(x), i(x), L(x)). The incumbent's own value is at
worst value(p, i, ê + η). If for every untrained affordable x the first is no better than the second by more than δ
(relative), nothing is: the search stops, and names for every x the t that excludes it. An unaffordable t bounds what
lies below it just as well, and one such training may exclude many. (A does not enter p or i, and no order rests on it.)

What it rests on is checked, not believed. A trained pair x ≤ t with ê(x) < ê(t) - 2η contradicts (M): all bounds are
then lowered by as much as it takes to agree with what was seen, and the search goes on until it is done again. The
audit looks for such pairs where the search did not choose to look. Where noise and what was seen leave δ out of reach,
it aims at the least that is within reach, and says so. η comes from `Noise`.

Encoders without layers (D = 0) bound nobody: among themselves a wider one was seen to be worse.

The next row depends on what is known alone, not on the order in which it came. So a search that was stopped goes on
where it was, and trials of earlier studies can be recalled. NumPy only; a step over a million candidates takes
tens of milliseconds.

    >>> search = Certified(problem, delta=0.01, audit=5)
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from subarch.errors import InvalidConfig
from subarch.objectives import Floats, Mask
from subarch.search.base import Problem
from subarch.search.evidence import Evidence, better_by
from subarch.search.lattice import Lattice
from subarch.search.law import Law
from subarch.search.noise import Noise, most_failing

LEVELS = 6
"""Where each candidate has a threshold of its own (W), they are told apart at so many levels."""
SAMPLE = 10_000
"""Of more thresholds than these the levels are found from a part."""
FIRST = (0.5, 0.2, 1.0)
"""Ranks in order of effort of the affordable rows that come first, after the best by the law before it is fitted."""


@dataclass(frozen=True, slots=True)
class Known:
    """What the errors told so far come to.

    `trained` are rows, `best` the incumbent, `worst` its value at ê + η, `target` the value that a better one would
    have to beat. `least` (C,) is L(x), `needed` (C,) the least error that excludes, by cell of the grid.
    """

    trained: NDArray[np.int64]
    best: int | None
    worst: float
    aim: float
    target: float
    eta: float
    slack: float
    violations: int
    least: Floats
    needed: Floats


class Certified:
    """See the module. `rows` are all candidates: also those over a limit may be trained, to exclude others.

    Args:
        delta: relative difference of value up to which a better candidate may be missed, 0 <= δ < 1.
        audit: excluded candidates to train, to check the reasons.

    Raises:
        InvalidConfig: δ or the audit outside its range.
        ValueError: the problem has no table, or candidates that differ in their heads only.
    """

    name = "certified"

    def __init__(self, problem: Problem, delta: float, audit: int = 0) -> None:
        if not 0 <= delta < 1:
            raise InvalidConfig(f"delta is {delta}; it is a relative difference, from 0 to less than 1, as 0.01")
        if audit < 0:
            raise InvalidConfig(f"audit is {audit}; it is a number of candidates, from 0")
        if problem.table is None:
            raise ValueError("a certified search needs the table of ⟨D, A, H, I⟩")
        self.problem, self.delta, self.audit = problem, delta, audit
        self.noise = Noise()
        self.rows = np.arange(len(problem), dtype=np.int64)
        self.effort = np.ones(len(problem)) if problem.effort is None else problem.effort
        self.lattice = Lattice(problem.table)
        self.law = Law(self.lattice, problem.hints)
        # Columns in the order of the grid: read in order, a million cells take a fraction of the time
        grid = self.lattice.grid
        self.is_row = self.lattice.row >= 0
        self.parameters, self.cost = grid(problem.parameters, 0), grid(problem.cost, 0.0)
        self.price = grid(self.effort, np.inf)
        self.bounding: Mask = grid(problem.table[:, 0] > 0, False)
        self.drawing = np.random.default_rng(0).permutation(len(problem))
        affordable = np.flatnonzero(problem.affordable & (problem.table[:, 0] > 0))
        ranked = affordable[np.argsort(self.effort[affordable], kind="stable")]
        spread = (int(ranked[round(share * (len(ranked) - 1))]) for share in FIRST if len(ranked))
        self.first = list(dict.fromkeys([*self._presumed(affordable), *spread]))[: len(FIRST)]
        self.error = np.full(len(problem), np.nan)
        self.failed = np.zeros(len(problem), dtype=np.bool_)
        self.awaited: set[int] = set()
        # ê of the worst trained row above each cell, and of the best below
        self.highest = np.full(self.lattice.shape, -np.inf)
        self.lowest = np.full(self.lattice.shape, np.inf)
        self.even = math.nan, np.empty(0)

    def ask(self) -> int | None:
        row = self._wanted()
        if row is not None:
            self.awaited.add(row)
        return row

    def tell(self, row: int, error: float) -> None:
        if not math.isfinite(error) or (self.problem.objective.name == "w" and error <= 0):
            raise ValueError(f"row {row}: an error of {error} cannot be compared; report the training as failed")
        self._settle(row)
        self.recall(row, error)

    def recall(self, row: int, error: float) -> None:
        """Take in an error that is known from before, though nobody asked for it."""
        self.error[row] = error
        above, below = self.lattice.above(row), self.lattice.below(row)
        np.minimum(self.lowest[above], error, out=self.lowest[above])
        if self.bounding[self.lattice.cell[row]]:
            np.maximum(self.highest[below], error, out=self.highest[below])

    def fail(self, row: int) -> None:
        self._settle(row)
        self.failed[row] = True

    def _settle(self, row: int) -> None:
        if row not in self.awaited:
            raise ValueError(f"row {row} is not awaited: it was never asked for, or was answered already")
        self.awaited.remove(row)

    @property
    def done(self) -> bool:
        return not self.awaited and self._wanted() is None

    @property
    def progress(self) -> tuple[float, float]:
        """Affordable rows that are trained or excluded, and all."""
        known, affordable = self._known(), float(self.problem.affordable.sum())
        return affordable - float((self._free(known, []) & (known.least < known.needed)).sum()), affordable

    def _wanted(self) -> int | None:
        """What to train next; None while all that is wanted is awaited."""
        pending = sorted(self.awaited)
        known = self._known()
        free = self._free(known, pending)
        if not len(known.trained):
            first = [row for row in self.first if free[self.lattice.cell[row]]]
            if not pending:
                first += np.flatnonzero(self.problem.affordable & ~self.failed)[:1].tolist()
            return next(iter(first), None)
        guess = self._guess(known)
        for cell in (self._promising(known, guess, free), self._excluding(known, guess, free, pending)):
            if cell is not None:
                return int(self.lattice.row[cell])
        if pending:
            return None
        return next((row for row in self._sample(known) if free[self.lattice.cell[row]]), None)

    def _free(self, known: Known, pending: list[int]) -> Mask:
        """(C,) which cells can still be trained."""
        free = self.is_row.copy()
        for rows in (known.trained, np.flatnonzero(self.failed), np.array(pending, dtype=np.int64)):
            free[self.lattice.cell[rows]] = False
        return free

    def _presumed(self, rows: NDArray[np.int64]) -> list[int]:
        """The best of some rows by the law before it is fitted, which knows errors up to a factor only."""
        if self.problem.objective.name == "latency" or not len(rows):
            return []
        guess = self.law.fit(rows[:0], np.empty(0))[self.lattice.cell[rows]]
        objective = replace(self.problem.objective, max_error=None)
        return [int(rows[objective.bound(self.problem.parameters[rows], self.problem.cost[rows], guess).argmin()])]

    def _known(self) -> Known:
        """What the errors so far say."""
        problem, objective = self.problem, self.problem.objective
        trained = np.flatnonzero(~np.isnan(self.error))
        e = self.error[trained]
        eta = self.noise.bound(len(trained))
        below = self.lattice.comparable(trained) & self.bounding[self.lattice.cell[trained]]
        rise = np.where(below, e[None, :] - e[:, None], -np.inf)
        rise -= 2 * eta
        slack = float(rise.max(initial=0.0))
        value = objective.value(problem.parameters[trained], problem.cost[trained], e)
        best = int(value.argmin()) if len(value) and value.min() < np.inf else None
        aim, worst = self.delta, math.inf
        if best is not None:
            row = trained[best : best + 1]
            certain = objective.bound(problem.parameters[row], problem.cost[row], e[best : best + 1] + eta)[0]
            worst = float(certain if certain < np.inf else value[best])
            if objective.name != "latency":
                aim = max(aim, min((3 * eta + slack) / float(e[best]), 0.99))
        target = worst / (1 - aim) if worst < 0 else worst * (1 - aim)
        if target != self.even[0]:
            needed = objective.break_even(self.parameters, self.cost, target)
            self.even = target, np.where(self.is_row, needed, -np.inf)
        incumbent = None if best is None else int(trained[best])
        violations, least = int((rise > 0).sum()), self.highest.reshape(-1) - eta - slack
        return Known(trained, incumbent, worst, aim, target, eta, slack, violations, least, self.even[1])

    def _guess(self, known: Known) -> Floats:
        """(C,) the law's errors, within what is known of them."""
        guess = self.law.fit(known.trained, np.maximum(self.error[known.trained], 1e-12))
        highest, lowest = self.highest.reshape(-1), self.lowest.reshape(-1)
        return np.clip(guess, highest - known.slack, np.maximum(lowest, highest) + known.slack)

    def _promising(self, known: Known, guess: Floats, free: Mask) -> int | None:
        """The cell that beats the incumbent most, by the law, if any does."""
        some = np.flatnonzero(free & (guess < known.needed))
        value = self.problem.objective.bound(self.parameters[some], self.cost[some], guess[some])
        return int(some[value.argmin()]) if value.min(initial=np.inf) < known.target else None

    def _excluding(self, known: Known, guess: Floats, free: Mask, pending: list[int]) -> int | None:
        """The cell that, by the law, excludes most of what is open for its effort; every row settles itself."""
        reach = np.where(self.bounding, guess - (known.eta + known.slack), -np.inf)
        still = free & (known.least < known.needed)
        for row in pending:
            box = self.lattice.below(row)
            by = reach[self.lattice.cell[row]]
            still.reshape(self.lattice.shape)[box] &= known.needed.reshape(self.lattice.shape)[box] > by
        needed = known.needed[still]
        if not len(needed):
            return None
        sample = needed[:: 1 + len(needed) // SAMPLE]
        levels = np.unique(np.quantile(sample, np.linspace(0, 1, LEVELS), method="higher"))
        excluded = still.astype(np.int32)
        for level in levels:
            below = self.lattice.count_below(still & (known.needed <= level))
            np.copyto(excluded, below, where=reach >= level)
        np.maximum(excluded, still, out=excluded)
        return int(np.where(free, excluded / self.price, 0.0).argmax())

    def _sample(self, known: Known) -> list[int]:
        """The first of a random order of all rows that another's error excludes, by themselves trained or not."""
        by_others = self._least_by_others(known)
        excluded = ((by_others >= known.needed) & np.isfinite(known.needed))[self.lattice.cell]
        return [int(row) for row in self.drawing[excluded[self.drawing]][: self.audit]]

    def _least_by_others(self, known: Known) -> Floats:
        """(C,) L(x) without a row's own error."""
        least, cells = known.least.copy(), self.lattice.cell[known.trained]
        below = self.lattice.comparable(known.trained) & self.bounding[cells]
        e = np.where(below, self.error[known.trained][None, :], -np.inf).max(axis=1, initial=-np.inf)
        least[cells] = e - known.eta - known.slack
        return least

    def evidence(self) -> Evidence:
        """What can be said now."""
        known, problem = self._known(), self.problem
        open_cells = self._free(known, []) & (known.least < known.needed)
        floor = np.where(self.failed, np.inf, known.least[self.lattice.cell])
        floor[known.trained] = self.error[known.trained] - known.eta
        value = problem.objective.bound(problem.parameters, problem.cost, floor)
        if known.best is not None:
            value[known.best] = np.inf
        sample, by_others = self._sample(known), self._least_by_others(known)[self.lattice.cell]
        failures = sum(self.error[row] < by_others[row] + known.slack - known.eta for row in sample)
        return Evidence(
            incumbent=known.best,
            closed=not open_cells.any(),
            delta=self.delta,
            aim=known.aim,
            reached=better_by(float(value.min()), known.worst),
            eta=known.eta,
            slack=known.slack,
            violations=known.violations,
            because=self._because(known),
            audited=tuple(sample),
            failures=int(failures),
            failing=most_failing(int(failures), len(sample)),
        )

    def _because(self, known: Known) -> dict[int, int]:
        by = np.full(self.lattice.shape, -1, dtype=np.int64)
        for row in known.trained[np.argsort(self.error[known.trained], kind="stable")]:
            if self.bounding[self.lattice.cell[row]]:
                by[self.lattice.below(row)] = row
        rows = np.flatnonzero(np.isnan(self.error) & ~self.failed & self.problem.affordable)
        return dict(zip(rows.tolist(), by.reshape(-1)[self.lattice.cell[rows]].tolist(), strict=True))
