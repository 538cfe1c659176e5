"""What the errors of trained candidates say of all others, by the partial order of shapes.

Each error is a bound from below for all that is at most as large, and a guess from above for all that is at least as
large; both are kept on the grid of `Lattice`, so that an error is taken in by two slices. Encoders without layers
bound nobody.

    >>> bounds = Bounds(lattice, problem.table)
    >>> bounds.take(row, 0.31)
    >>> bounds.highest[lattice.cell[other]]          # no trained one at least as large has a larger error
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from subarch.numbers.objectives import Floats, Mask
from subarch.search.lattice import Lattice


class Bounds:
    """`highest` (C,) is ê of the worst trained row at least as large as each cell, -inf: none; `lowest` (C,) that of
    the best at most as large, inf: none. `bounding` (C,) are the cells with layers."""

    def __init__(self, lattice: Lattice, table: NDArray[np.int64]) -> None:
        self.lattice = lattice
        self.bounding: Mask = lattice.grid(table[:, 0] > 0, False)
        self.highest = np.full(len(lattice.row), -np.inf)
        self.lowest = np.full(len(lattice.row), np.inf)

    def take(self, row: int, error: float) -> None:
        """Take in the error of a row that represents its shape."""
        below, above = (box(row) for box in (self.lattice.below, self.lattice.above))
        lowest, highest = (cells.reshape(self.lattice.shape) for cells in (self.lowest, self.highest))
        np.minimum(lowest[above], error, out=lowest[above])
        if self.bounding[self.lattice.cell[row]]:
            np.maximum(highest[below], error, out=highest[below])

    def rises(self, rows: NDArray[np.int64], errors: Floats) -> Floats:
        """(n, n) of these rows by how much the error of the second is above that of the first, which is strictly
        smaller; -inf where it is not."""
        below = self.lattice.comparable(rows) & self.bounding[self.lattice.cell[rows]]
        return np.where(below, errors[None, :] - errors[:, None], -np.inf)

    def highest_by_others(self, rows: NDArray[np.int64], errors: Floats) -> Floats:
        """(C,) `highest` without what these rows, which are all that was taken in, say of themselves."""
        highest, cells = self.highest.copy(), self.lattice.cell[rows]
        below = self.lattice.comparable(rows) & self.bounding[cells]
        highest[cells] = np.where(below, errors[None, :], -np.inf).max(axis=1, initial=-np.inf)
        return highest

    def bounded_by(self, rows: NDArray[np.int64], errors: Floats) -> NDArray[np.int64]:
        """(C,) which of these rows has the error that bounds each cell best, -1: none."""
        by = np.full(self.lattice.shape, -1, dtype=np.int64)
        for row in rows[np.argsort(errors, kind="stable")]:
            if self.bounding[self.lattice.cell[row]]:
                by[self.lattice.below(row)] = row
        return by.reshape(-1)
