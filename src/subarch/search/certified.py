"""Certified search: find a good candidate early, then prove that no untrained one beats it by more than δ.

    while some untrained candidate may still be better than the incumbent by more than δ:
        if the law fitted so far hopes for such a candidate:  train what gains most for its cost   (improve)
        else: train what is expected to exclude most candidates for its cost                       (close)
    train a random sample of what was excluded, to check the assumptions                    (the audit)
    train the incumbent and those nearest to it in error with another seed                  (the noise)

Proof sketch. Let x ≤ t mean that t is at least as large as x in each of D, H, I and V. Assume (M) that the true error,
the mean over seeds, does not rise along ≤, and (N) that the measured difference of any two trained candidates is within
η of the true one, for all pairs at once. Then for the incumbent b, and every trained t ≥ x,

    e(x) - e(b) ≥ e(t) - e(b) ≥ ê(t) - ê(b) - η,      where t = b without η;       L(x) = ê(b) + the greatest of these,

and p(x), i(x) are known, so against the incumbent's measured value no x does better than value(p(x), i(x), L(x)). If
for every untrained affordable x this is no better by more than δ (relative), no candidate is: the search stops, and
names for every x the t that excludes it. A t over a limit bounds what lies below it just as well, and one such training
may exclude many. All candidates are compared by errors of one seed, so what that does to all of them alike is not part
of η, see `Noise`.

The assumptions are checked. A trained pair x ≤ t with ê(x) < ê(t) - η contradicts (M): all bounds are then lowered by
the largest such contradiction (`slack`), and the search continues until it is closed again. The audit looks for such
pairs where the search did not choose to look. What noise and slack take away is added to δ: the search aims at δ + (η +
slack) / ê(b), so that they never make it train more, and reports what was reached. η is 0 until the last step, whose
trainings are those where noise decides. Encoders without layers (D = 0) bound no other: among themselves a wider one
was measured to be worse.

The next row depends on the set of known errors alone, not on their order: an interrupted search continues where it was,
and trials of earlier studies can be recalled.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from subarch.errors import InvalidConfig
from subarch.numbers.objectives import Floats, Mask
from subarch.search.base import Problem, Strategy
from subarch.search.bounds import Bounds, Grid, Law, Observed
from subarch.search.noise import Noise, floor, most_failing

LEVELS, CELLS = 32, 3_000_000
"""Where each candidate has a threshold of its own (W), the thresholds are rounded up to this many levels, or to fewer
where levels times cells are more than these, but at least to three."""
SAMPLE = 10_000
"""Of more thresholds than these the levels are found from a part."""
CAUTION = 0.5
"""How many of the law's deviations count as its doubt, in what it hopes for and in what it expects to be excluded."""
FIRST = (0.5, 0.2, 1.0)
"""Ranks in order of effort of the affordable rows that come first, after the best by the law before it is fitted."""


@dataclass(frozen=True, slots=True)
class Known:
    """What follows from the errors so far.

    `value` is that of `best`, the incumbent; a better candidate must reach `target`, which differs by the relative
    `aim`. By cell of the grid, `least` (C,) is L(x) and `needed` (C,) the least error that excludes. Bounds are
    compared with `reference`, the incumbent's error; None where there is none, or where latency is the objective.
    """

    trained: NDArray[np.int64]
    best: int | None
    reference: float | None
    value: float
    aim: float
    target: float
    eta: float
    slack: float
    violations: int
    least: Floats
    needed: Floats


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a certified search can prove from what it knows; rows are those of the problem.

    `closed`: no untrained candidate can be better than the incumbent by more than `aim`, relative to its value: `delta`
    as asked for, and what noise and violations take away. No other, trained or not, is better by more than `reached`,
    noise included (inf: no bound). `violations` are trained pairs that contradict the order by more than the
    noise; all bounds are lowered by `slack` for that. `because` names for each untrained affordable row the trained one
    that bounds its error best (-1: none). Of the excluded rows `audited`, drawn at random (none while some are not
    trained), `failures` contradict the order; with probability 0.95 at most the share `failing` of all excluded do.
    """

    incumbent: int | None
    closed: bool
    delta: float
    aim: float
    reached: float
    eta: float
    slack: float
    violations: int
    because: dict[int, int]
    audited: tuple[int, ...]
    failures: int
    failing: float


class Audit:
    """A random sample, of at most `size`, of the candidates that another's error excludes; they are then trained.

    It is the head of one random order of all of them, trained or not, so it is drawn without regard to their errors.
    One whose error is below the bound that excluded it, by more than the noise, is a failure.
    """

    def __init__(self, problem: Problem, bounds: Bounds, size: int) -> None:
        self.bounds, self.size = bounds, size
        self.order = np.random.default_rng(0).permutation(len(problem))

    def sample(self, known: Known, error: Floats) -> list[int]:
        """The rows to train; `error` (N,) is NaN where nothing was trained."""
        others = self.bounds.highest_by_others(known.trained, error[known.trained])
        least = floor(others - known.slack, known.eta, known.reference)
        excluded = ((least >= known.needed) & np.isfinite(known.needed))[self.bounds.grid.cell]
        return [int(row) for row in self.order[excluded[self.order]][: self.size]]

    def failures(self, known: Known, error: Floats, sample: Sequence[int]) -> int:
        """How many of a sample are better than the errors of the others allow."""
        least = self.bounds.highest_by_others(known.trained, error[known.trained])[self.bounds.grid.cell]
        return sum(bool(error[row] < least[row] - known.eta) for row in sample)


class Certified(Strategy):
    """See the module; δ is relative to the value, `audit` the number of excluded candidates to train.

    Raises:
        InvalidConfig: δ or the audit outside its range.
        ValueError: the problem has no table, or two candidates of one ⟨D, H, I, V⟩.
    """

    name = "certified"

    def __init__(self, problem: Problem, delta: float, audit: int = 0) -> None:
        if not 0 <= delta < 1:
            raise InvalidConfig(f"delta is {delta}; it is a relative difference, at least 0 and below 1, such as 0.01")
        if audit < 0:
            raise InvalidConfig(f"audit is {audit}; it is a number of candidates, at least 0")
        if problem.table is None:
            raise ValueError("a certified search needs the table of ⟨D, A, H, I⟩")
        super().__init__(problem, np.arange(len(problem), dtype=np.int64))
        self.delta, self.noise = delta, Noise()
        effort = np.ones(len(problem)) if problem.effort is None else problem.effort
        self.grid = grid = Grid(problem.table)
        self.law = Law(grid)
        # Columns in the order of the grid: read in order, a million cells take a fraction of the time
        self.is_row = grid.row >= 0
        self.parameters, self.cost = grid.column(problem.parameters, 0), grid.column(problem.cost, 0.0)
        self.megabytes = None if problem.megabytes is None else grid.column(problem.megabytes, 0.0)
        self.effort = grid.column(effort, np.inf)
        self.bounds = Bounds(grid, problem.table)
        self.audit = Audit(problem, self.bounds, audit)
        self.first = self._first()
        self._break_even = math.nan, np.empty(0)

    def learn(self, studies: Sequence[Observed]) -> None:
        """Begin with a law as in other studies of the same axes, before anything is trained; see `Law.learn`."""
        self.law.learn(studies)
        self.first = self._first()

    def ask(self) -> int | None:
        row = self._wanted()
        if row is not None:
            self.awaited.add(row)
        return row

    def recall(self, row: int, error: float) -> None:
        super().recall(row, error)
        self.bounds.take(row, error)

    @property
    def done(self) -> bool:
        return not self.awaited and self._wanted() is None

    @property
    def progress(self) -> tuple[float, float]:
        """Affordable rows that are trained or excluded, and all."""
        known, affordable = self._known(), float(self.problem.affordable.sum())
        rows = self.grid.row[self._free(known, []) & (known.least < known.needed)]
        return affordable - float(self.problem.affordable[rows].sum()), affordable

    def _wanted(self) -> int | None:
        """What to train next; None while all that is wanted is awaited."""
        pending = sorted(self.awaited)
        known = self._known()
        free = self._free(known, pending)
        if not len(known.trained):
            first = [row for row in self.first if free[self.grid.cell[row]]]
            if not pending:
                left = self.problem.affordable & ~self.failed & np.isnan(self.error)
                first += np.flatnonzero(left)[:1].tolist()
            return next(iter(first), None)
        guess, doubt = self._guess(known)
        cell = self._promising(known, guess, doubt, free)
        if cell is None:
            cell = self._excluding(known, guess, doubt, free, pending)
        if cell is not None:
            return int(self.grid.row[cell])
        sample = [row for row in self.audit.sample(known, self.error) if np.isnan(self.error[row])]
        if not self.awaited <= set(sample):
            return None  # what is awaited may change which candidates are excluded, and so the sample
        return next((row for row in sample if row not in self.awaited and not self.failed[row]), None)

    def _free(self, known: Known, pending: list[int]) -> Mask:
        """(C,) which cells can still be trained."""
        free = self.is_row.copy()
        for rows in (known.trained, np.flatnonzero(self.failed), np.array(pending, dtype=np.int64)):
            free[self.grid.cell[rows]] = False
        return free

    def _first(self) -> list[int]:
        """The rows that are trained first."""
        within = self.problem.objective.affordable(self.parameters, self.cost, self.megabytes) & self.bounds.bounding
        affordable = np.sort(self.grid.row[within])
        ranked = affordable[np.argsort(self.effort[self.grid.cell[affordable]], kind="stable")]
        spread = (int(ranked[round(share * (len(ranked) - 1))]) for share in FIRST if len(ranked))
        return list(dict.fromkeys([*self._presumed(affordable), *spread]))[: len(FIRST)]

    def _presumed(self, rows: NDArray[np.int64]) -> list[int]:
        """The best of some rows by the law before it is fitted, which knows errors up to a factor only."""
        if self.problem.objective.name == "latency" or not len(rows):
            return []
        cells = self.grid.cell[rows]
        guess = self.law.fit(rows[:0], np.empty(0))[0][cells]
        objective = replace(self.problem.objective, max_error=None, max_megabytes=None)  # these rows meet that limit
        return [int(rows[objective.bound(self.parameters[cells], self.cost[cells], guess).argmin()])]

    def _known(self) -> Known:
        problem, objective = self.problem, self.problem.objective
        trained = np.flatnonzero(~np.isnan(self.error))
        e = self.error[trained]
        eta = self.noise.between(len(trained), same_scale=objective.name == "error")
        rise = self.bounds.rises(trained, e)
        rise -= eta
        slack = float(rise.max(initial=0.0))
        values = problem.values(trained, e)
        best, reference, value, aim = None, None, float(values.min(initial=np.inf)), self.delta
        if value < np.inf:
            best = int(trained[values.argmin()])
            if objective.name != "latency":
                reference = float(self.error[best])
                aim = within_reach(eta + slack, reference, self.delta)
        target = less_by(value, aim)
        if target != self._break_even[0]:
            needed = objective.break_even(self.parameters, self.cost, target, self.megabytes)
            self._break_even = target, np.where(self.is_row, needed, -np.inf)
        violations, least = int((rise > 0).sum()), floor(self.bounds.highest - slack, eta, reference)
        if best is not None and reference is not None and self.bounds.bounding[self.grid.cell[best]]:
            below = least.reshape(self.grid.shape)[self.grid.below(best)]  # no noise between it and itself
            np.maximum(below, reference - slack, out=below)
        return Known(trained, best, reference, value, aim, target, eta, slack, violations, least, self._break_even[1])

    def _guess(self, known: Known) -> tuple[Floats, NDArray[np.float32]]:
        """(C,) the law's errors, within the bounds that are known, and by how much of it each may be off."""
        guess, doubt = self.law.fit(known.trained, np.maximum(self.error[known.trained], 1e-12))
        highest, lowest = self.bounds.highest, self.bounds.lowest
        held = np.maximum(guess, highest - known.slack)
        return np.minimum(held, np.maximum(lowest, highest) + known.slack, out=held), CAUTION * doubt

    def _promising(self, known: Known, guess: Floats, doubt: NDArray[np.float32], free: Mask) -> int | None:
        """The cell that, by the law and its doubt, improves on the incumbent most for its effort, if any does.

        Of the effort only the root counts: by what is gained for each second alone many small steps are taken.
        """
        some = np.flatnonzero(free & (known.least < known.needed))
        hoped = np.maximum(guess[some] * np.exp(-doubt[some]), known.least[some])
        some, hoped = some[within := hoped < known.needed[some]], hoped[within]
        megabytes = None if self.megabytes is None else self.megabytes[some]
        value = self.problem.objective.bound(self.parameters[some], self.cost[some], hoped, megabytes)
        if value.min(initial=np.inf) >= known.target:
            return None
        if not math.isfinite(known.target):
            return int(some[value.argmin()])  # nothing meets the limits yet
        return int(some[((known.target - value) / np.sqrt(self.effort[some])).argmax()])

    def _excluding(
        self, known: Known, guess: Floats, doubt: NDArray[np.float32], free: Mask, pending: list[int]
    ) -> int | None:
        """The cell that, by the law, may be expected to exclude most of what is open for its effort.

        Every row settles itself. What lies below a cell counts by the probability that its error suffices, which rises
        linearly over the doubt on either side.
        """
        reach = floor(guess - known.slack, known.eta, known.reference)
        reach[self.bounds.not_bounding] = -np.inf
        still = free & (known.least < known.needed)
        for row in pending:
            box = self.grid.below(row)
            by = reach[self.grid.cell[row]]
            still.reshape(self.grid.shape)[box] &= known.needed.reshape(self.grid.shape)[box] > by
        needed = known.needed[np.flatnonzero(still)]
        if not len(needed):
            return None
        sample = needed[:: 1 + len(needed) // SAMPLE]
        count = min(max(CELLS // len(free), 3), LEVELS)
        levels = np.unique(np.quantile(sample, np.linspace(0, 1, count), method="higher"))
        levels[-1] = needed.max()
        reach, width = reach.astype(np.float32), np.maximum(2.5 * doubt * guess, 1e-12).astype(np.float32)
        excluded, left = np.zeros(len(free), dtype=np.float32), still.copy()
        for level in levels:
            of_level = left & (known.needed <= level)
            left ^= of_level
            sure = reach - np.float32(level)
            sure /= width
            sure += np.float32(0.5)
            np.minimum(np.maximum(sure, 0, out=sure), 1, out=sure)
            sure *= self.grid.count_below(of_level)
            excluded += sure
        np.maximum(excluded, still, out=excluded)
        gained = excluded / self.effort
        gained *= free
        return int(gained.argmax())

    def nearest(self, count: int) -> list[int]:
        """The incumbent and the trained rows nearest to it in error, or to the floor: where noise decides."""
        known, limit = self._known(), self.problem.objective.max_error
        decides = limit if limit is not None else known.reference or 0.0
        away = np.abs(self.error[known.trained] - decides)
        return [int(row) for row in known.trained[np.argsort(away, kind="stable")[:count]]]

    def evidence(self) -> Evidence:
        """What can be proved now."""
        known, problem, cell = self._known(), self.problem, self.grid.cell
        unsettled = self._free(known, []) & (known.least < known.needed)
        least = known.least[cell]
        least[self.failed] = np.inf
        own = floor(self.error[known.trained], known.eta, known.reference)
        least[known.trained] = np.maximum(own, least[known.trained])
        value = problem.values(slice(None), least)
        if known.best is not None:
            value[known.best] = np.inf
        sample = [row for row in self.audit.sample(known, self.error) if not self.failed[row]]
        if np.isnan(self.error[sample]).any():
            sample = []  # the part that happens to be trained was not drawn at random
        failures = self.audit.failures(known, self.error, sample)
        by = self.bounds.bounded_by(known.trained, self.error[known.trained])
        rest = np.flatnonzero(np.isnan(self.error) & ~self.failed & problem.affordable)
        return Evidence(
            incumbent=known.best,
            closed=not unsettled.any(),
            delta=self.delta,
            aim=known.aim,
            reached=better_by(float(value.min()), known.value),
            eta=known.eta,
            slack=known.slack,
            violations=known.violations,
            because=dict(zip(rest.tolist(), by[cell[rest]].tolist(), strict=True)),
            audited=tuple(sample),
            failures=failures,
            failing=most_failing(failures, len(sample)),
        )


def better_by(value: float, worst: float) -> float:
    """By how much, relative, a value is better than another that is at worst so; inf: there is no bound."""
    if value >= worst:
        return 0.0
    if not math.isfinite(value) or not math.isfinite(worst):
        return math.inf
    return 1 - worst / value if value < 0 else 1 - value / worst


def less_by(value: float, share: float) -> float:
    """What is better than a value by a share of it; values below 0 (-W) are better where they are further from it."""
    return value / (1 - share) if value < 0 else value * (1 - share)


def within_reach(off: float, error: float, delta: float) -> float:
    """δ and what is added to it where a difference from this error may be off by so much; below 1."""
    return min(delta + off / max(error, 1e-12), max(delta, 0.99))  # an error may be 0
