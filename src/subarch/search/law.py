"""A guess at the errors of what was not trained: a law in the logarithms of D, H and I, fitted to what was.

log e = a quadratic in log(1 + D), log(1 + H) and log(1 + I), each scaled to [0, 1] over the space. A ridge holds it
near a law that falls alike along all three: it says something before any point is known, and bends as points come. On
the grid of all candidates it is a sum of three curves and three planes, so that a million are predicted within
milliseconds. The search only takes proposals from it; no guarantee rests on it.

    >>> guess = Law(grid).fit(rows, errors)          # errors on the whole grid
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from subarch.numbers.objectives import Floats
from subarch.search.bounds import Grid

SLOPE, CURVE = -0.4, 0.1
"""The law before anything is known: along each axis log e falls by 0.3 from its smallest value to its largest."""
RIDGE = 3e-5, 3e-3
"""Weight of a squared deviation from those slopes and from those curvatures, against one squared residual."""


class Law:
    """A law over the grid of all candidates."""

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
