"""What the errors of trained candidates say about all others: bounds, by the partial order of shapes, and a guess.

Under AB^nC a candidate that is at least as large in each of D, H and I has no larger error, nor has one that keeps more
of the vocabulary (ours); A orders nothing. So every trained error is a lower bound for all smaller shapes. On a grid
with one axis for each of D, H, I and, where it differs, V, all that is no larger than a candidate is a box from the
origin: taking in an error is two slices, and counting what lies below every candidate at once is a cumulative sum along
each axis. A million candidates take milliseconds.

    >>> grid = Grid(table)                           # (N, 4) rows ⟨D, A, H, I⟩, or (N, 5) with V; one A for each shape
    >>> bounds = Bounds(grid, table)
    >>> bounds.take(row, 0.31)
    >>> bounds.highest[grid.cell[other]]             # the largest error among trained candidates at least as large
    >>> guess, doubt = Law(grid).fit(rows, errors)   # errors on the whole grid, and how far off they may be
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from subarch.numbers.objectives import Floats, Mask
from subarch.numbers.space import WHOLE, sizes_of

Box = tuple[slice, ...]
Observed = tuple[NDArray[np.int64], Floats]
"""A table of candidates, (n, 4 or 5), and their errors, (n,)."""
Kind = TypeVar("Kind", bound=np.generic)

SLOPE, CURVE = -0.4, 0.1
"""The law before anything is known: along each axis log e falls by 0.3 from its smallest value to its largest."""
RIDGE = 3e-5, 3e-3
"""Weight of a squared deviation from those slopes and from those curvatures, against one squared residual."""
OFF, BELIEF = 0.0025, 4.0
"""How far off the law is expected to be, relative, before residuals tell; it counts as much as so many residuals."""
COARSE = 16
"""Positions an axis at which the doubt is computed: it is smooth, and its matrix costs a hundred operations a cell."""


class Grid:
    """The N candidates as cells of a grid whose k axes are the values of D, H, I and, where the table has it, V.

    `axes` are these values, ascending, `shape` how many there are, `cells` (k, N) the position of each candidate.
    `cell` (N,) is that position in a flat array of the grid's C cells, and `row` (C,) its inverse, -1 where there is no
    candidate.

    Raises:
        ValueError: two candidates with the same ⟨D, H, I, V⟩.
    """

    def __init__(self, table: NDArray[np.int64]) -> None:
        found = [np.unique(column, return_inverse=True) for column in sizes_of(table).T]
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
        """All that is at most as large as the row along each axis, including itself."""
        return tuple(slice(0, cell + 1) for cell in self.cells[:, row])

    def above(self, row: int) -> Box:
        """All that is at least as large, including itself."""
        return tuple(slice(cell, None) for cell in self.cells[:, row])

    def count_below(self, marked: Mask) -> NDArray[np.float32]:
        """(C,) how many of the marked cells (C,) lie in the box below each; exact up to 2²⁴."""
        counts = marked.astype(np.float32).reshape(self.shape)
        for axis, size in enumerate(self.shape):
            slabs = np.moveaxis(counts, axis, 0)
            for place in range(1, size):  # whole slabs at once: half of the time of a cumulative sum
                slabs[place] += slabs[place - 1]
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
    the smallest of one at most as large (inf: none). `bounding` (C,) marks those that bound others: D > 0;
    `not_bounding` names the other cells.
    """

    def __init__(self, grid: Grid, table: NDArray[np.int64]) -> None:
        self.grid = grid
        self.bounding: Mask = grid.column(table[:, 0] > 0, False)
        self.not_bounding = np.flatnonzero(~self.bounding)
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


@dataclass(frozen=True, slots=True)
class Fitted:
    """The mean of the residuals from the prior law; the coefficients; their covariance and the deviation it is of."""

    centre: float
    coefficients: Floats
    covariance: Floats
    deviation: float


class Law:
    """A guess at errors: a quadratic in the logarithms of D, H, I and V; the search only takes proposals from it.

    log e = a quadratic in log(1 + D), log(1 + H) and log(1 + I), each scaled to [0, 1] over the space, and in the rank
    of V. A ridge holds it near a law that falls alike along all of them: it says something before any point is known,
    and bends as points come. On the grid it is a sum of curves and planes, so a million candidates take milliseconds.
    """

    def __init__(self, grid: Grid) -> None:
        self.grid = grid
        axes = len(grid.axes)
        self.pairs = list(combinations(range(axes), 2))
        self.prior = np.array([0.0, *[SLOPE] * axes, *[CURVE] * axes, *[0.0] * len(self.pairs)])
        self.scaled = []
        for values in grid.axes:
            logs = np.log1p(values.astype(np.float64)) if values[-1] < WHOLE else np.arange(float(len(values)))
            self.scaled.append((logs - logs[0]) / (float(np.ptp(logs)) or 1.0))

    def learn(self, studies: Sequence[Observed]) -> None:
        """Expect errors to fall as they did in other studies of the same axes, each of which has a level of its own."""
        moments, sides = np.diag(self._weights[1:]), np.zeros(len(self.prior) - 1)
        for table, errors in studies:
            features = self._features_of(self._places(table))
            residual = np.log(errors) - features @ self.prior
            around = features[:, 1:] - features[:, 1:].mean(axis=0)
            moments += around.T @ around
            sides += around.T @ (residual - residual.mean())
        self.prior[1:] += np.linalg.solve(moments, sides)

    def _places(self, table: NDArray[np.int64]) -> Floats:
        """(k, n) where on the scaled axes candidates of another space would be, beyond their ends too."""
        places = []
        for values, scaled, sizes in zip(self.grid.axes, self.scaled, sizes_of(table).T, strict=True):
            if values[-1] == WHOLE:
                places.append(
                    np.interp(np.log1p(sizes.astype(np.float64)), np.log1p(values.astype(np.float64)), scaled)
                )
            else:
                logs = np.log1p(values[[0, -1]].astype(np.float64))
                places.append((np.log1p(sizes) - logs[0]) / (float(np.ptp(logs)) or 1.0))
        return np.stack(places)

    @property
    def _weights(self) -> Floats:
        """Of the ridge, by coefficient."""
        slopes = len(self.scaled)
        return np.array([1e-9, *[RIDGE[0]] * slopes, *[RIDGE[1]] * (slopes + len(self.pairs))])

    def fit(self, rows: NDArray[np.int64], errors: Floats) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Errors on the whole grid from those of some rows, which must be positive; and their relative deviation.

        Two columns (C,). From no rows errors are known up to a factor only.
        """
        fitted = self._fitted(rows, np.log(errors))
        return self._guess(fitted.centre, fitted.coefficients), self._doubt(fitted)

    def _guess(self, centre: float, coefficients: Floats) -> NDArray[np.float32]:
        c, count = coefficients.astype(np.float32), len(self.scaled)
        x = [axis.astype(np.float32) for axis in self.scaled]
        curves = [c[1 + k] * axis + c[1 + count + k] * axis**2 for k, axis in enumerate(x)]

        def plane(a: int, b: int) -> NDArray[np.float32]:
            """What both together add, along a leading axis a and a last axis b of so many."""
            product: NDArray[np.float32] = c[1 + 2 * count + self.pairs.index((a, b))] * x[a][:, None] * x[b]
            return product.reshape(*(len(x[a]) if k == a else 1 for k in range(b)), len(x[b]))

        guess = curves[0] + np.float32(centre) + c[0]
        for axis in range(1, count):
            side = plane(0, axis)
            # One sum over all cells for the first two: of the last axis they are most of the work
            guess = guess[..., None] + (curves[axis] + side) if axis > 1 else guess[:, None] + curves[axis] + side
            for other in range(1, axis):
                guess += plane(other, axis)
        found: NDArray[np.float32] = np.exp(guess, out=guess).reshape(-1)
        return found

    def _doubt(self, fitted: Fitted) -> NDArray[np.float32]:
        """(C,) deviation of log e: what residuals and departures say, and more where no row is near."""
        axes = [np.unique(np.linspace(0, len(x) - 1, COARSE).round().astype(np.int64)) for x in self.scaled]
        places = np.meshgrid(*(x[some] for x, some in zip(self.scaled, axes, strict=True)), indexing="ij")
        features = self._features_of(np.stack([place.ravel() for place in places]))
        leverage = np.einsum("cf,fg,cg->c", features, fitted.covariance, features, optimize=True)
        coarse = (fitted.deviation * np.sqrt(1 + leverage)).astype(np.float32).reshape([len(some) for some in axes])
        for axis, (size, some) in enumerate(zip(self.grid.shape, axes, strict=True)):
            nearest = np.abs(np.arange(size)[:, None] - some).argmin(axis=1)
            coarse = coarse.take(nearest, axis=axis)
        doubt: NDArray[np.float32] = coarse.reshape(-1)
        return doubt

    def _features(self, rows: NDArray[np.int64]) -> Floats:
        return self._features_of(
            np.stack([axis[cells] for axis, cells in zip(self.scaled, self.grid.cells[:, rows], strict=True)])
        )

    def _features_of(self, x: Floats) -> Floats:
        """(n, 10), or (n, 15) with V, of places (k, n)."""
        return np.stack([np.ones(x.shape[1]), *x, *(x**2), *(x[a] * x[b] for a, b in self.pairs)], axis=1)

    def _fitted(self, rows: NDArray[np.int64], logs: Floats) -> Fitted:
        """Held near the prior law by a ridge; that is Bayesian regression, whose posterior tells how far off it is."""
        features = self._features(rows)
        residual = logs - features @ self.prior
        centre = float(residual.mean()) if len(rows) else 0.0
        covariance = np.asarray(np.linalg.inv(features.T @ features + np.diag(self._weights)), dtype=np.float64)
        departure: Floats = covariance @ (features.T @ (residual - centre))
        off = residual - centre - features @ departure
        squares = float(off @ off + self._weights @ departure**2)
        deviation = math.sqrt((BELIEF * OFF**2 + squares) / (BELIEF + max(len(rows) - 1, 0)))
        coefficients: Floats = self.prior + departure
        return Fitted(centre, coefficients, covariance, deviation)
