"""Other numbers of heads: what takes their place in the order, and by how much they may be better than it says.

A changes neither parameters nor operations, and nothing orders errors by it. So of each ⟨D, H, I⟩ one candidate, with
heads nearest the teacher's in size, represents the shape: it alone is ordered, bounds others, and teaches the law. The
others are its siblings. They are bounded by a difference,

    e(sibling) ≥ L(shape) - η_A,

where η_A is measured: the largest amount by which a trained sibling's error is below that of its representative, noise
and all, and at least 0. (Where only the sibling was trained: below that of the worst trained one at least as large.)
That no other sibling is better by more is presumed; the audit draws from siblings too, to see whether it holds. Until
one pair is trained nothing bounds any sibling.

A representative may be over a limit that a sibling meets, since a measured latency does depend on A.

    >>> siblings = Siblings(problem, lattice)
    >>> siblings.measured(error, highest)            # (η_A, number of pairs)
    (0.004, 9)
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from subarch.numbers.objectives import Floats, Mask
from subarch.search.base import Problem
from subarch.search.evidence import Known
from subarch.search.lattice import Lattice


class Siblings:
    """The S rows that do not represent their shape; columns are (S,). None where each shape has one number of heads."""

    def __init__(self, problem: Problem, lattice: Lattice) -> None:
        self.lattice, self.objective = lattice, problem.objective
        self.rows = np.flatnonzero(~lattice.represents)
        self.cell = lattice.cell[self.rows]
        self.representative = lattice.row[self.cell]
        self.parameters, self.cost = problem.parameters[self.rows], problem.cost[self.rows]
        self.affordable: Mask = problem.affordable[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def measured(self, error: Floats, highest: Floats, but: Sequence[int] = ()) -> tuple[float, int]:
        """η_A, and the pairs that it was measured on, from the (N,) errors without some rows; inf: there is no pair.

        `highest` (C,) is the worst error of a trained representative at least as large.
        """
        told = np.flatnonzero(~np.isnan(error[self.rows]) & ~np.isin(self.rows, but))
        own = error[self.representative[told]]
        paired = ~np.isnan(own)
        gains = np.where(paired, own, highest[self.cell[told]]) - error[self.rows[told]]
        return float(gains.max(initial=0.0)) if paired.any() else math.inf, int(paired.sum())

    def left(self, error: Floats, failed: Mask, pending: Sequence[int]) -> Mask:
        """Which may be the answer and can still be trained."""
        left: Mask = self.affordable & np.isnan(error[self.rows]) & ~failed[self.rows]
        return left & ~np.isin(self.rows, pending)

    def settled(self, error: Floats, failed: Mask) -> Mask:
        """Whose representative was trained, or failed."""
        settled: Mask = (~np.isnan(error) | failed)[self.representative]
        return settled

    def promising(self, error: Floats, left: Mask, target: float) -> int | None:
        """The row that beats the incumbent most if it is as good as its trained representative, if any does."""
        some = np.flatnonzero(left & ~np.isnan(error[self.representative]))
        own = error[self.representative[some]]
        value = self.objective.bound(self.parameters[some], self.cost[some], own)
        return int(self.rows[some[value.argmin()]]) if value.min(initial=np.inf) < target else None

    def needed(self, target: float, eta: float | Floats) -> Floats:
        """The least L of its shape that excludes each; -inf: its cost does."""
        even = self.objective.break_even(self.parameters, self.cost, target)
        return np.add(even, eta, out=even, where=even > -np.inf)

    def of_incumbent(self, known: Known) -> Mask:
        """Which have the shape of the incumbent."""
        same: Mask = self.cell == (-1 if known.best is None else self.lattice.cell[known.best])
        return same

    def open(self, known: Known, left: Mask) -> Mask:
        """Which are still to be trained: all of the incumbent's shape, and who is not excluded."""
        needed = self.needed(known.heads.target, known.heads.eta)
        still: Mask = left & (self.of_incumbent(known) | (known.least[self.cell] < needed))
        return still

    def first(self, known: Known, some: Mask) -> int | None:
        """Of some the row to train first: one of the incumbent's shape, else who may be best."""
        found = np.flatnonzero(some)
        value = self.objective.bound(self.parameters[found], self.cost[found], known.least[self.cell[found]])
        order = np.lexsort((value, ~self.of_incumbent(known)[found]))
        return int(self.rows[found[order[0]]]) if len(found) else None

    def by_cell(self, known: Known, some: Mask) -> Floats:
        """(C,) the least L that excludes these, -inf where there are none."""
        cells = np.full(len(self.lattice.row), -np.inf)
        np.maximum.at(cells, self.cell[some], self.needed(known.heads.target, known.heads.eta)[some])
        return cells

    def excluded(self, known: Known, error: Floats, highest: Floats) -> Mask:
        """Which the errors of others exclude, by themselves trained or not; the incumbent's shape is left out."""
        etas = np.full(len(self), known.heads.eta)
        for place in np.flatnonzero(~np.isnan(error[self.rows])):
            etas[place], _ = self.measured(error, highest, [self.rows[place]])
        needed = self.needed(known.heads.target, etas)
        excluded: Mask = (known.least[self.cell] >= needed) & np.isfinite(needed)
        return excluded & ~self.of_incumbent(known)
