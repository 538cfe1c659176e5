"""Certified search: find a good candidate early, then prove that nothing untrained beats it by more than δ.

    while something may still be better than the incumbent by more than δ:
        if the law fitted so far puts such a candidate somewhere:   train it              (the incumbent's part)
        else: train what excludes most candidates for its cost                            (the certificate's part)
    the same for other numbers of heads, first all of the incumbent's shape               (`heads`)
    train a random sample of what was excluded, to see whether the reasons hold           (the audit)

Proof sketch. Let x ≤ t mean that t is at least as large as x in each of D, H and I. Assume (M) that the true error, the
mean over seeds, does not rise along ≤, and (N) that |measured - true| ≤ η for all trials at once. Then

    e(x) ≥ e(t) ≥ ê(t) - η    for every trained t ≥ x;      L(x) = the greatest of these,

and p(x), i(x) are known exactly, so no x does better than value(p(x), i(x), L(x)). The incumbent's own value is at
worst value(p, i, ê + η). If for every untrained affordable x the first is no better than the second by more than δ
(relative), nothing is: the search stops, and names for every x the t that excludes it. An unaffordable t bounds what
lies below it just as well, and one such training may exclude many. No order rests on A: where it is free, one candidate
represents each shape, and the others are bounded by a measured difference from it.

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
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from subarch.errors import InvalidConfig
from subarch.numbers.objectives import Floats, Mask
from subarch.search.audit import Audit
from subarch.search.base import Problem
from subarch.search.bounds import Bounds
from subarch.search.evidence import Evidence, Heads, Known, better_by, less_by, within_reach
from subarch.search.heads import Siblings
from subarch.search.lattice import Lattice
from subarch.search.law import Law
from subarch.search.noise import Noise, most_failing

LEVELS = 6
"""Where each candidate has a threshold of its own (W), they are told apart at so many levels."""
SAMPLE = 10_000
"""Of more thresholds than these the levels are found from a part."""
FIRST = (0.5, 0.2, 1.0)
"""Ranks in order of effort of the affordable rows that come first, after the best by the law before it is fitted."""


class Certified:
    """See the module. `rows` are all candidates: also those over a limit may be trained, to exclude others.

    Args:
        delta: relative difference of value up to which a better candidate may be missed, 0 <= δ < 1.
        audit: excluded candidates to train, to check the reasons.

    Raises:
        InvalidConfig: δ or the audit outside its range.
        ValueError: the problem has no table, or two candidates for a shape where none or both represent it.
    """

    name = "certified"

    def __init__(self, problem: Problem, delta: float, audit: int = 0) -> None:
        if not 0 <= delta < 1:
            raise InvalidConfig(f"delta is {delta}; it is a relative difference, from 0 to less than 1, as 0.01")
        if audit < 0:
            raise InvalidConfig(f"audit is {audit}; it is a number of candidates, from 0")
        if problem.table is None:
            raise ValueError("a certified search needs the table of ⟨D, A, H, I⟩")
        self.problem, self.delta = problem, delta
        self.noise = Noise()
        self.rows = np.arange(len(problem), dtype=np.int64)
        self.effort = np.ones(len(problem)) if problem.effort is None else problem.effort
        self.lattice = Lattice(problem.table, problem.nearest)
        self.siblings = Siblings(problem, self.lattice)
        self.law = Law(self.lattice, problem.hints)
        # Columns in the order of the grid: read in order, a million cells take a fraction of the time
        grid = self.lattice.grid
        self.is_row = self.lattice.row >= 0
        self.parameters, self.cost = grid(problem.parameters, 0), grid(problem.cost, 0.0)
        np.minimum.at(self.cost, self.siblings.cell, self.siblings.cost)  # what excludes a cell excludes all its rows
        self.price = grid(self.effort, np.inf)
        self.bounds = Bounds(self.lattice, problem.table)
        self.audit = Audit(problem, self.bounds, self.siblings, audit)
        within = problem.objective.affordable(self.parameters, self.cost) & self.bounds.bounding
        affordable = np.sort(self.lattice.row[within])
        ranked = affordable[np.argsort(self.effort[affordable], kind="stable")]
        spread = (int(ranked[round(share * (len(ranked) - 1))]) for share in FIRST if len(ranked))
        self.first = list(dict.fromkeys([*self._presumed(affordable), *spread]))[: len(FIRST)]
        self.error = np.full(len(problem), np.nan)
        self.failed = np.zeros(len(problem), dtype=np.bool_)
        self.awaited: set[int] = set()
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
        if self.lattice.represents[row]:
            self.bounds.take(row, error)

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
        rows = self.lattice.row[self._free(known, []) & (known.least < known.needed)]
        siblings = self.siblings.open(known, self.siblings.left(self.error, self.failed, []))
        return affordable - float(self.problem.affordable[rows].sum() + siblings.sum()), affordable

    def _wanted(self) -> int | None:
        """What to train next; None while all that is wanted is awaited."""
        pending = sorted(self.awaited)
        known = self._known()
        free = self._free(known, pending)
        if not len(known.trained):
            first = [row for row in self.first if free[self.lattice.cell[row]]]
            if not pending:
                left = self.problem.affordable & ~self.failed & np.isnan(self.error)
                first += np.flatnonzero(left)[:1].tolist()
            return next(iter(first), None)
        left = self.siblings.left(self.error, self.failed, pending)
        if (sibling := self.siblings.promising(self.error, left, known.target)) is not None:
            return sibling
        guess = self._guess(known)
        for cell in (self._promising(known, guess, free), self._excluding(known, guess, free, pending)):
            if cell is not None:
                return int(self.lattice.row[cell])
        if (row := self._of_other_heads(known, guess, free, left, pending)) is not None:
            return row
        sample = [row for row in self.audit.sample(known, self.error) if np.isnan(self.error[row])]
        if not self.awaited <= set(sample):
            return None  # it may change who is excluded, and so who is drawn
        return next((row for row in sample if row not in self.awaited and not self.failed[row]), None)

    def _free(self, known: Known, pending: list[int]) -> Mask:
        """(C,) which cells can still be trained."""
        free = self.is_row.copy()
        for rows in (known.trained, np.flatnonzero(self.failed), np.array(pending, dtype=np.int64)):
            free[self.lattice.cell[rows[self.lattice.represents[rows]]]] = False
        return free

    def _presumed(self, rows: NDArray[np.int64]) -> list[int]:
        """The best of some rows by the law before it is fitted, which knows errors up to a factor only."""
        if self.problem.objective.name == "latency" or not len(rows):
            return []
        cells = self.lattice.cell[rows]
        guess = self.law.fit(rows[:0], np.empty(0))[cells]
        objective = replace(self.problem.objective, max_error=None)
        return [int(rows[objective.bound(self.parameters[cells], self.cost[cells], guess).argmin()])]

    def _known(self) -> Known:
        """What the errors so far say."""
        problem, objective = self.problem, self.problem.objective
        told = np.flatnonzero(~np.isnan(self.error))
        trained = told[self.lattice.represents[told]]
        e = self.error[trained]
        eta = self.noise.bound(len(told))
        rise = self.bounds.rises(trained, e)
        rise -= 2 * eta
        slack = float(rise.max(initial=0.0))
        value = objective.value(problem.parameters[told], problem.cost[told], self.error[told])
        eta_heads, pairs = self.siblings.measured(self.error, self.bounds.highest)
        best, worst, aim, wider = None, math.inf, self.delta, self.delta
        if value.min(initial=np.inf) < np.inf:
            row = told[value.argmin() :][:1]
            best, e = int(row[0]), self.error[row]
            certain = objective.bound(problem.parameters[row], problem.cost[row], e + eta)[0]
            worst = float(certain if certain < np.inf else value.min())
            if objective.name != "latency":
                off = 3 * eta + slack
                aim = within_reach(off, float(e[0]), self.delta)
                wider = within_reach(off + eta_heads, float(e[0]), self.delta) if pairs else aim
        target = less_by(worst, aim)
        if target != self.even[0]:
            needed = objective.break_even(self.parameters, self.cost, target)
            self.even = target, np.where(self.is_row, needed, -np.inf)
        heads = Heads(eta_heads, pairs, wider, less_by(worst, wider))
        violations, least = int((rise > 0).sum()), self.bounds.highest - eta - slack
        return Known(told, trained, best, worst, aim, target, eta, slack, violations, least, self.even[1], heads)

    def _guess(self, known: Known) -> Floats:
        """(C,) the law's errors, within what is known of them."""
        guess = self.law.fit(known.trained, np.maximum(self.error[known.trained], 1e-12))
        highest, lowest = self.bounds.highest, self.bounds.lowest
        return np.clip(guess, highest - known.slack, np.maximum(lowest, highest) + known.slack)

    def _promising(self, known: Known, guess: Floats, free: Mask) -> int | None:
        """The cell that beats the incumbent most, by the law, if any does."""
        some = np.flatnonzero(free & (guess < known.needed))
        value = self.problem.objective.bound(self.parameters[some], self.cost[some], guess[some])
        return int(some[value.argmin()]) if value.min(initial=np.inf) < known.target else None

    def _excluding(self, known: Known, guess: Floats, free: Mask, pending: list[int]) -> int | None:
        """The cell that, by the law, excludes most of what is open for its effort; every row settles itself."""
        reach = np.where(self.bounds.bounding, guess - (known.eta + known.slack), -np.inf)
        still = free & (known.least < known.needed)
        for row in (row for row in pending if self.lattice.represents[row]):
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

    def _of_other_heads(self, known: Known, guess: Floats, free: Mask, left: Mask, pending: list[int]) -> int | None:
        """A sibling that is open though its representative is settled; or what excludes most of the others."""
        siblings = self.siblings
        if not len(siblings):
            return None
        if known.best is not None and free[cell := self.lattice.cell[known.best]]:
            return int(self.lattice.row[cell])
        if pending and not known.heads.pairs:
            left = left & siblings.of_incumbent(known)
        still = siblings.open(known, left)
        if (row := siblings.first(known, still & siblings.settled(self.error, self.failed))) is not None:
            return row
        wanted = self._excluding(replace(known, needed=siblings.by_cell(known, still)), guess, free, pending)
        return None if wanted is None else int(self.lattice.row[wanted])

    def evidence(self) -> Evidence:
        """What can be said now."""
        known, problem = self._known(), self.problem
        siblings, free, cell = self.siblings, self._free(known, []), self.lattice.cell
        unsettled = (free & (known.least < known.needed)).any()
        unsettled |= siblings.open(known, siblings.left(self.error, self.failed, [])).any()
        floor = known.least[cell]
        floor[siblings.rows] -= known.heads.eta
        floor[self.failed] = np.inf
        floor[known.told] = self.error[known.told] - known.eta
        value = problem.objective.bound(problem.parameters, problem.cost, floor)
        if known.best is not None:
            value[known.best] = np.inf
            unsettled |= free[cell[known.best]]
        sample = [row for row in self.audit.sample(known, self.error) if not self.failed[row]]
        if np.isnan(self.error[sample]).any():
            sample = []  # the part that happens to be trained was not drawn at random
        failures = self.audit.failures(known, self.error, sample)
        by = self.bounds.bounded_by(known.trained, self.error[known.trained])
        rest = np.flatnonzero(np.isnan(self.error) & ~self.failed & problem.affordable)
        return Evidence(
            incumbent=known.best,
            closed=not unsettled,
            delta=self.delta,
            aim=known.aim,
            reached=better_by(float(value.min()), known.worst),
            eta=known.eta,
            slack=known.slack,
            violations=known.violations,
            because=dict(zip(rest.tolist(), by[cell[rest]].tolist(), strict=True)),
            audited=tuple(sample),
            failures=failures,
            failing=most_failing(failures, len(sample)),
            heads=known.heads if len(siblings) else None,
        )
