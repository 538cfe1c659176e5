"""A model of latency: fitted to a few dozen measured candidates, it predicts the others and estimates its own error.

A forward pass is a sum of parts, each of which grows with the architecture in a known way: matrix products, attention,
elementwise operations, the start of each operation, and reading weights that the caches no longer hold. How much each
part costs is fitted: non-negative least squares of the relative error, since no part takes negative time and 10 %
matter as much at 0.2 ms as at 20 ms. Batch and lengths are fixed in a search. docs/latency.md lists alternatives.

    >>> model = fit(table[rows], milliseconds, Inputs(30522, output=384))
    >>> model.predict(table), model.median_error, model.p90_error
    (array([0.21, ...]), 0.043, 0.108)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from subarch.numbers.architecture import Inputs, has_map
from subarch.numbers.space import sizes_of, vocabularies_of

Floats = NDArray[np.float64]
Table = NDArray[np.int64]
"""(N, 4) candidates ⟨D, A, H, I⟩, or (N, 5) with V, as in `space.Costs`."""

TERMS = ("call", "H", "projection", "D", "D·A", "D·H", "D·I", "D·H²", "D·H·I", "D²", "weights^1.5")
"""The parts: a fixed one, embeddings, the map to the output width; per layer a fixed one, one per head, elementwise
operations of hidden (with attention's products) and of intermediate width, products with weights; and two that grow
faster than the number of operations, as caches overflow."""


@dataclass(frozen=True)
class LatencyModel:
    """Milliseconds of a pass, a non-negative sum of `TERMS`.

    `median_error` and `p90_error` are the median and the 90th percentile of the relative error on measured candidates
    that the model was not fitted to: each is left out in turn (cross-validation).
    """

    coefficients: tuple[float, ...]
    inputs: Inputs
    median_error: float
    p90_error: float
    longer: Mapping[int, float] = field(default_factory=dict)

    def predict(self, table: Table) -> Floats:
        """(N,) milliseconds."""
        milliseconds: Floats = terms(table, self.inputs, self.longer) @ np.array(self.coefficients)
        return milliseconds


def terms(table: Table, inputs: Inputs, longer: Mapping[int, float] | None = None) -> Floats:
    """(N, len(TERMS)). `longer`: by V how many times the tokens of the whole vocabulary it makes of a text."""
    depth, heads, hidden, intermediate = table[:, :4].T.astype(np.float64)
    vocabulary, tokens = vocabularies_of(table), np.ones(len(table))
    for size, share in (longer or {}).items():
        tokens[vocabulary == size] = share
    mapped = hidden * inputs.output * has_map(table[:, 2], inputs)
    weights = depth * (4 * hidden * hidden + 2 * hidden * intermediate)
    per_token = tokens * np.stack([hidden, intermediate, hidden * hidden, hidden * intermediate])
    per_layer = depth * np.stack([np.ones_like(depth), heads, *per_token])
    return np.column_stack([np.ones_like(depth), tokens * hidden, mapped, *per_layer, depth * depth, weights**1.5])


def fit(table: Table, milliseconds: Floats, inputs: Inputs, longer: Mapping[int, float] | None = None) -> LatencyModel:
    """The model of measured candidates and their (n,) latencies, n >= 2; `longer`: see `terms`."""
    columns = terms(table, inputs, longer)
    left_out = [
        float(columns[row] @ _solve(np.delete(columns, row, 0), np.delete(milliseconds, row)))
        for row in range(len(table))
    ]
    error = np.abs(np.array(left_out) / milliseconds - 1)
    median, p90 = np.percentile(error, [50, 90])
    coefficients = tuple(_solve(columns, milliseconds).tolist())
    return LatencyModel(coefficients, inputs, float(median), float(p90), longer or {})


def spread(table: Table, count: int) -> list[int]:
    """Rows of candidates that represent the space, in the order to measure them.

    The largest and the smallest come first; then, in turn, the candidate that is furthest from all chosen so far, in
    the ranks of its ⟨D, A, H, I, V⟩: first the corners, later those between them.
    """
    columns = np.insert(sizes_of(table), 1, table[:, 1], axis=1).T
    ranks = np.column_stack([np.unique(column, return_inverse=True)[1] for column in columns]).astype(np.float64)
    ranks /= np.maximum(1, ranks.max(0))
    distance = np.full(len(table), np.inf)
    chosen: list[int] = []
    for turn in range(min(count, len(table))):
        row = (int(ranks.sum(1).argmax()), int(ranks.sum(1).argmin()))[turn] if turn < 2 else int(distance.argmax())
        chosen.append(row)
        distance = np.minimum(distance, ((ranks - ranks[row]) ** 2).sum(1))
    return chosen


def _solve(columns: Floats, milliseconds: Floats) -> Floats:
    # Columns of like size: nnls stops by an absolute tolerance
    size = np.maximum(columns.max(0), 1e-12)
    found: Floats = nnls(columns / size / milliseconds[:, None], np.ones(len(columns)))[0]
    coefficients: Floats = found / size
    return coefficients
