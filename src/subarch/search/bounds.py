"""What the errors of trained candidates say about all others: bounds, by the partial order of shapes, and a guess.

Under AB^nC a candidate that is at least as large in each of D, H and I has no larger error; A orders nothing. So every
trained error is a lower bound for all smaller shapes. On a grid with one axis for each of D, H and I, all that is no
larger than a candidate is a box from the origin: taking in an error is two slices, and counting what lies below every
candidate at once is three cumulative sums. A million candidates take milliseconds.

    >>> grid = Grid(table)                           # (N, 4) rows ⟨D, A, H, I⟩, one A for each ⟨D, H, I⟩
    >>> bounds = Bounds(grid, table)
    >>> bounds.take(row, 0.31)
    >>> bounds.highest[grid.cell[other]]             # the largest error among trained candidates at least as large
    >>> guess = Law(grid).fit(rows, errors)          # errors on the whole grid
"""

from __future__ import annotations

import math
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from subarch.numbers.objectives import Floats, Mask

Box = tuple[slice, slice, slice]
Kind = TypeVar("Kind", bound=np.generic)

SLOPE, CURVE = -0.4, 0.1
"""The law before anything is known: along each axis log e falls by 0.3 from its smallest value to its largest."""
RIDGE = 3e-5, 3e-3
"""Weight of a squared deviation from those slopes and from those curvatures, against one squared residual."""


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

    `highest` (C,) is the largest ê of a trained candidate at least as large as each cell (-inf: none), `lowest` (C,)
    the smallest of one at most as large (inf: none). `bounding` (C,) marks those that bound others: D > 0.
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
        """(n, n) error of the second row minus that of the first where the first is smaller, else -inf."""
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


class Law:
    """A guess at errors: a quadratic in the logarithms of D, H and I; the search only takes proposals from it.

    log e = a quadratic in log(1 + D), log(1 + H) and log(1 + I), each scaled to [0, 1] over the space. A ridge holds
    it near a law that falls alike along all three: it says something before any point is known, and bends as points
    come. On the grid it is a sum of three curves and three planes, so a million candidates take milliseconds.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        self.prior = np.array([0.0, *[SLOPE] * 3, *[CURVE] * 3, *[0.0] * 3])
        self.scaled = []
        for values in grid.axes:
            logs = np.log1p(values.astype(np.float64))
            self.scaled.append((logs - logs[0]) / (float(np.ptp(logs)) or 1.0))

    def fit(self, rows: NDArray[np.int64], errors: Floats) -> NDArray[np.float32]:
        """(C,) errors on the whole grid from those of some rows, which must be positive; from none up to a factor."""
        centre, coefficients = self._fitted(rows, np.log(errors))
        c = coefficients.astype(np.float32)
        d, h, i = (axis.astype(np.float32) for axis in self.scaled)
        curves = [c[1 + k] * axis + c[4 + k] * axis**2 for k, axis in enumerate((d, h, i))]
        plane = (curves[0] + np.float32(centre) + c[0])[:, None] + curves[1][None] + c[7] * d[:, None] * h[None]
        side = curves[2][None] + c[8] * d[:, None] * i[None]
        guess = plane[:, :, None] + side[:, None, :]
        guess += (c[9] * h[:, None] * i[None])[None]
        found: NDArray[np.float32] = np.exp(guess, out=guess).reshape(-1)
        return found

    def _features(self, rows: NDArray[np.int64]) -> Floats:
        """(n, 10)"""
        x = np.stack([axis[cells] for axis, cells in zip(self.scaled, self.grid.cells[:, rows], strict=True)])
        return np.stack([np.ones(len(rows)), *x, *(x**2), x[0] * x[1], x[0] * x[2], x[1] * x[2]], axis=1)

    def _fitted(self, rows: NDArray[np.int64], logs: Floats) -> tuple[float, Floats]:
        """The mean of the residuals, and the coefficients of what departs from it, held near the prior ones."""
        features = self._features(rows)
        residual = logs - features @ self.prior
        centre = float(residual.mean()) if len(rows) else 0.0
        weights = np.array([1e-9, *[RIDGE[0]] * 3, *[RIDGE[1]] * 6])
        departure = np.linalg.solve(features.T @ features + np.diag(weights), features.T @ (residual - centre))
        return centre, self.prior + departure
