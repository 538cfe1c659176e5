"""The partial order of ⟨D, H, I⟩ on a grid: who lies below whom, in slices instead of comparisons.

Under AB^nC a candidate that is at least as large in every one of D, H and I has no larger error; A orders nothing. Put
on a grid with one axis for each, all that lies below a candidate is a box from the origin, and counting what lies below
every candidate at once is three cumulative sums: a million candidates take milliseconds. Where rows differ in A only,
one of them stands in the grid for its shape (`heads`).

    >>> lattice = Lattice(table)                     # (N, 4) rows ⟨D, A, H, I⟩, one A for each ⟨D, H, I⟩
    >>> bounds.reshape(lattice.shape)[lattice.below(row)]        # a view
    >>> lattice.count_below(open_cells)              # (C,) how many lie in the box of each cell
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from subarch.numbers.objectives import Mask

Box = tuple[slice, slice, slice]
Kind = TypeVar("Kind", bound=np.generic)


class Lattice:
    """Rows as cells of a grid whose axes are the values of D, H and I, ascending.

    `axes` are these values, `shape` how many there are, and `cells` (3, N) the position of each row. `cell` (N,) is
    that position in a flat array of the grid's C cells, and `row` (C,) its inverse, -1 where there is no row. Of rows
    with the same ⟨D, H, I⟩ it is the one that `nearest` (N,) marks; None: there are no such rows.

    Raises:
        ValueError: a ⟨D, H, I⟩ with two such rows, or with none.
    """

    def __init__(self, table: NDArray[np.int64], nearest: Mask | None = None) -> None:
        found = [np.unique(table[:, column], return_inverse=True) for column in (0, 2, 3)]
        self.axes = tuple(values for values, _ in found)
        self.cells = np.stack([positions for _, positions in found])
        self.shape = tuple(len(values) for values in self.axes)
        self.cell = np.ravel_multi_index(tuple(self.cells), self.shape)
        self.represents = np.ones(len(table), dtype=np.bool_) if nearest is None else nearest
        self.rows = np.flatnonzero(self.represents)
        self.row = np.full(math.prod(self.shape), -1, dtype=np.int64)
        self.row[self.cell[self.rows]] = self.rows
        if (self.row >= 0).sum() < len(self.rows):
            raise ValueError("two candidates share depth, hidden and intermediate size: only their heads differ")
        if (self.row[self.cell] < 0).any():
            raise ValueError("a depth, hidden and intermediate size has no candidate that is marked as the nearest")

    def grid(self, column: NDArray[Kind], empty: float | bool) -> NDArray[Kind]:
        """(C,) a column (N,) in the order of the grid; `empty` where there is no row."""
        cells = np.full(len(self.row), empty, dtype=column.dtype)
        cells[self.cell[self.rows]] = column[self.rows]
        return cells

    def below(self, row: int) -> Box:
        """All at most as large as the row in each of D, H and I, itself among them."""
        d, h, i = self.cells[:, row]
        return slice(0, d + 1), slice(0, h + 1), slice(0, i + 1)

    def above(self, row: int) -> Box:
        """All at least as large, itself among them."""
        d, h, i = self.cells[:, row]
        return slice(d, None), slice(h, None), slice(i, None)

    def count_below(self, marked: Mask) -> NDArray[np.int32]:
        """(C,) how many of the marked cells (C,) lie in the box below each."""
        counts = marked.astype(np.int32).reshape(self.shape)
        for axis in range(3):
            np.cumsum(counts, axis=axis, out=counts)
        return counts.reshape(-1)

    def comparable(self, some: NDArray[np.int64]) -> Mask:
        """(n, n): is the first of these rows strictly below the second?"""
        cells = self.cells[:, some]
        below = np.asarray((cells[:, :, None] <= cells[:, None, :]).all(axis=0))
        np.fill_diagonal(below, False)
        return below
