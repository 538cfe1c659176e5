"""A guess at the errors of what was not trained: a law in the logarithms of D, H and I, fitted to what was.

log e = a quadratic in log(1 + D), log H and log(1 + I), each scaled to [0, 1] over the space. Held near a plane by a
ridge, it says something sensible from three points on, and bends as points come. It is on the grid of `Lattice` a sum
of three curves and three planes, so that a million candidates are predicted within milliseconds. The search only takes
proposals from it; no guarantee rests on it.

    >>> guess = Law(lattice).fit(rows, errors)       # errors on the whole grid
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from subarch.objectives import Floats
from subarch.search.lattice import Lattice

RIDGE = 1e-4, 1e-2
"""Weight of the squared slopes, and of the squared curvatures, against one squared residual."""


class Law:
    def __init__(self, lattice: Lattice) -> None:
        self.cells = lattice.cells
        self.scaled = []
        for values in lattice.axes:
            logs = np.log1p(values.astype(np.float64))
            self.scaled.append((logs - logs[0]) / (float(np.ptp(logs)) or 1.0))

    def fit(self, rows: NDArray[np.int64], errors: Floats) -> NDArray[np.float32]:
        """Errors on the whole grid from those of at least one row; errors must be positive."""
        x = np.stack([axis[cells] for axis, cells in zip(self.scaled, self.cells[:, rows], strict=True)])
        target = np.log(errors)
        centre = target.mean()
        features = np.stack([np.ones(len(rows)), *x, *(x**2), x[0] * x[1], x[0] * x[2], x[1] * x[2]], axis=1)
        weights = np.array([1e-9, *[RIDGE[0]] * 3, *[RIDGE[1]] * 6])
        solved = np.linalg.solve(features.T @ features + np.diag(weights), features.T @ (target - centre))
        d, h, i = (axis.astype(np.float32) for axis in self.scaled)
        c = solved.astype(np.float32)
        curves = [c[1 + k] * axis + c[4 + k] * axis**2 for k, axis in enumerate((d, h, i))]
        plane = (curves[0] + np.float32(centre) + c[0])[:, None] + curves[1][None] + c[7] * d[:, None] * h[None]
        side = curves[2][None] + c[8] * d[:, None] * i[None]
        guess = plane[:, :, None] + side[:, None, :]
        guess += (c[9] * h[:, None] * i[None])[None]
        found: NDArray[np.float32] = np.exp(guess, out=guess)
        return found
