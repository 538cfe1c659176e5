"""What the errors of trained candidates say about all others, by the partial order of shapes.

Under AB^nC a candidate that is at least as large in each of D, H and I has no larger error; A orders nothing. So every
trained error is a lower bound for all smaller shapes, and a guess from above for all larger ones. On a grid with one
axis for each of D, H and I, all that is no larger than a candidate is a box from the origin: taking in an error is two
slices, and counting what lies below every candidate at once is three cumulative sums. A million candidates take
milliseconds.

    >>> grid = Grid(table)                           # (N, 4) rows ⟨D, A, H, I⟩, one A for each ⟨D, H, I⟩
    >>> bounds = Bounds(grid, table)
    >>> bounds.take(row, 0.31)
    >>> bounds.highest[grid.cell[other]]             # the largest error among trained candidates at least as large
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from subarch.numbers.objectives import Floats, Mask

Box = tuple[slice, slice, slice]
Kind = TypeVar("Kind", bound=np.generic)


class Grid:
    """The N candidates as cells of a grid whose axes are the values of D, H and I, ascending.

    `axes` are these values, `shape` how many there are, and `cells` (3, N) the position of each candidate. `cell` (N,)
    is that position in a flat array of the grid's C cells, and `row` (C,) its inverse, -1 where there is no candidate.

    Raises:
        ValueError: two candidates with the same ⟨D, H, I⟩.
    """

    def __init__(self, table: NDArray[np.int64]) -> None:
        found = [np.unique(table[:, column], return_inverse=True) for column in (0, 2, 3)]
        self.axes = tuple(values for values, _ in found)
        self.cells = np.stack([positions for _, positions in found])
        self.shape = tuple(len(values) for values in self.axes)
        self.cell = np.ravel_multi_index(tuple(self.cells), self.shape)
        self.row = np.full(math.prod(self.shape), -1, dtype=np.int64)
        self.row[self.cell] = np.arange(len(table))
        if (self.row >= 0).sum() < len(table):
            raise ValueError(
                "two candidates have the same depth, hidden and intermediate size and differ in heads only"
            )

    def column(self, values: NDArray[Kind], empty: float | bool) -> NDArray[Kind]:
        """(C,) values by row, (N,), in the order of the grid; `empty` where there is no candidate."""
        cells = np.full(len(self.row), empty, dtype=values.dtype)
        cells[self.cell] = values
        return cells

    def below(self, row: int) -> Box:
        """All that is at most as large as the row in each of D, H and I, including itself."""
        d, h, i = self.cells[:, row]
        return slice(0, d + 1), slice(0, h + 1), slice(0, i + 1)

    def above(self, row: int) -> Box:
        """All that is at least as large, including itself."""
        d, h, i = self.cells[:, row]
        return slice(d, None), slice(h, None), slice(i, None)

    def count_below(self, marked: Mask) -> NDArray[np.int32]:
        """(C,) how many of the marked cells (C,) lie in the box below each."""
        counts = marked.astype(np.int32).reshape(self.shape)
        for axis in range(3):
            np.cumsum(counts, axis=axis, out=counts)
        return counts.reshape(-1)

    def strictly_below(self, rows: NDArray[np.int64]) -> Mask:
        """(n, n): is the first of these rows strictly below the second?"""
        cells = self.cells[:, rows]
        below = np.asarray((cells[:, :, None] <= cells[:, None, :]).all(axis=0))
        np.fill_diagonal(below, False)
        return below


class Bounds:
    """The errors taken in so far, by cell of the grid.

    `highest` (C,) is the largest ê of a trained candidate at least as large as each cell, -inf: none; `lowest` (C,) the
    smallest of one at most as large, inf: none. Candidates without layers (D = 0) bound no other; `bounding` (C,) marks
    those that do.
    """

    def __init__(self, grid: Grid, table: NDArray[np.int64]) -> None:
        self.grid = grid
        self.bounding: Mask = grid.column(table[:, 0] > 0, False)
        self.highest = np.full(len(grid.row), -np.inf)
        self.lowest = np.full(len(grid.row), np.inf)

    def take(self, row: int, error: float) -> None:
        """Take in the error of a trained row."""
        below, above = self.grid.below(row), self.grid.above(row)
        lowest, highest = (cells.reshape(self.grid.shape) for cells in (self.lowest, self.highest))
        np.minimum(lowest[above], error, out=lowest[above])
        if self.bounding[self.grid.cell[row]]:
            np.maximum(highest[below], error, out=highest[below])

    def rises(self, rows: NDArray[np.int64], errors: Floats) -> Floats:
        """(n, n) by how much the error of the second row is above that of the first, where the first is smaller; -inf
        where it is not."""
        below = self.grid.strictly_below(rows) & self.bounding[self.grid.cell[rows]]
        return np.where(below, errors[None, :] - errors[:, None], -np.inf)

    def highest_by_others(self, rows: NDArray[np.int64], errors: Floats) -> Floats:
        """(C,) `highest` without each row's own error; `rows` are all that was taken in."""
        highest, cells = self.highest.copy(), self.grid.cell[rows]
        below = self.grid.strictly_below(rows) & self.bounding[cells]
        highest[cells] = np.where(below, errors[None, :], -np.inf).max(axis=1, initial=-np.inf)
        return highest

    def bounded_by(self, rows: NDArray[np.int64], errors: Floats) -> NDArray[np.int64]:
        """(C,) which of these rows has the error that bounds each cell best, -1: none."""
        by = np.full(self.grid.shape, -1, dtype=np.int64)
        for row in rows[np.argsort(errors, kind="stable")]:
            if self.bounding[self.grid.cell[row]]:
                by[self.grid.below(row)] = row
        return by.reshape(-1)
