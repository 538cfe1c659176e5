"""What is optimised: the W-coefficient, limits, bounds and dominance, over columns of candidates.

Every objective is a value to *minimise* (W enters as -W), infeasible is +inf, equal values are ties and are kept. NaN,
infinite and unequally long columns are refused where they enter, by a message that names the row.

    >>> objective = Objective("w", parameters_maximum=30e6, cost_maximum=9.0, max_cost=4.2)
    >>> objective.value([12e6, 20e6, 30e6], [3.0, 5.1, 9.0], [0.5, 0.24, 0.20])
    array([-0.8,  inf,  inf])
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subarch.errors import InvalidConfig

Name = Literal["w", "error", "latency"]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

BLOCK = 256
"""Points compared with the frontier at a time: 256 x 10^4 comparisons stay within a few MB."""

BOUNDED_ERRORS = {
    "embedding": "a distance to the teacher",
    "outputs": "a divergence from the teacher",
    "task": "one minus a score",
}
"""The others are masked-LM cross-entropies, which stay well above 0."""


@dataclass(frozen=True, slots=True)
class Objective:
    """What to minimise, under limits that go with any objective.

    `w`: -W (arXiv 2010.10499); `error`: e; `latency`: i, under a limit on the error (the quality floor).
    `max_cost` and `cost_maximum` have the unit of i (ms or multiply-adds). `max_megabytes` limits the file that is
    served, a column (N,) that is given where there is such a limit. `parameters_maximum` and `cost_maximum` are
    p(T) and i(T), the componentwise maxima over the whole of Ξ, trained or not.

    Raises:
        InvalidConfig: an unknown name, a limit that is not positive, no `max_error` with `latency`, no positive
            maxima with `w`.
    """

    name: Name
    _: KW_ONLY
    parameters_maximum: float
    cost_maximum: float
    max_cost: float | None = None
    max_parameters: int | None = None
    max_megabytes: float | None = None
    max_error: float | None = None

    def __post_init__(self) -> None:
        if self.name not in ("w", "error", "latency"):
            raise InvalidConfig(f"unknown objective {self.name!r}; choose w, error or latency")
        for field in ("max_cost", "max_parameters", "max_megabytes", "max_error"):
            limit = getattr(self, field)
            if limit is not None and not (math.isfinite(limit) and limit > 0):
                raise InvalidConfig(f"{field} is {limit}; a limit must be a positive number, or left out")
        if self.name == "latency" and self.max_error is None:
            raise InvalidConfig("least latency needs a limit on the error: without one the cheapest candidate wins")
        maxima = (self.parameters_maximum, self.cost_maximum)
        if self.name == "w" and not all(math.isfinite(maximum) and maximum > 0 for maximum in maxima):
            raise InvalidConfig(f"W divides by p(T) and i(T), which must be positive, not {maxima[0]} and {maxima[1]}")

    def affordable(self, parameters: ArrayLike, cost: ArrayLike, megabytes: ArrayLike | None = None) -> Mask:
        """Which candidates meet the limits known before training; mask of the columns' length.

        Raises:
            ValueError: a limit on megabytes, and no column of them.
        """
        p, i = checked_costs(parameters, cost)
        within: Mask = (p <= _or_inf(self.max_parameters)) & (i <= _or_inf(self.max_cost))
        if self.max_megabytes is not None:
            if megabytes is None or (size := np.asarray(megabytes, dtype=np.float64)).shape != p.shape:
                raise ValueError("a limit on megabytes needs a column of them, as long as the others")
            within &= size <= self.max_megabytes
        return within

    def value(
        self, parameters: ArrayLike, cost: ArrayLike, error: ArrayLike, megabytes: ArrayLike | None = None
    ) -> Floats:
        """The value to minimise of each trained candidate, (N,); +inf where a limit is not met.

        Raises:
            ValueError: columns of unequal length, a NaN or infinite error, an error <= 0 with W; it names the row.
        """
        p, i = checked_costs(parameters, cost)
        return self.bound(p, i, checked_errors(error, len(p), positive=self.name == "w"), megabytes)

    def bound(
        self, parameters: ArrayLike, cost: ArrayLike, least_error: ArrayLike, megabytes: ArrayLike | None = None
    ) -> Floats:
        """The best value possible of candidates whose error is at least `least_error`; -inf: nothing is known.

        Each objective only improves as the error falls, so the bound is the value at the least error.
        """
        p, i = checked_costs(parameters, cost)
        e = np.asarray(least_error, dtype=np.float64)
        refuse(np.isnan(e), "the least error", e, "must be a number, or -inf where nothing is known")
        if self.name == "w":
            f = cost_factor(p, i, self.parameters_maximum, self.cost_maximum)
            # W = 0 at f = 0 whatever the error; elsewhere an error without a positive bound leaves W without one
            value = np.where(f == 0, 0.0, np.where(e > 0, -f / np.where(e > 0, e, 1.0), -np.inf))
        else:
            value = e if self.name == "error" else i
        feasible = self.affordable(p, i, megabytes) & (e <= _or_inf(self.max_error))
        return np.where(feasible, value, np.inf)

    def break_even(
        self, parameters: ArrayLike, cost: ArrayLike, value: float, megabytes: ArrayLike | None = None
    ) -> Floats:
        """The least error at which a candidate is no better than `value`, (N,): the inverse of `bound`.

        -inf: it is no better whatever its error; +inf: whatever is known of its error, it may be better.
        """
        p, i = checked_costs(parameters, cost)
        beyond = np.nextafter(_or_inf(self.max_error), np.inf)  # where the limit on the error is broken
        if self.name == "w":
            f = cost_factor(p, i, self.parameters_maximum, self.cost_maximum)
            even = np.where(f == 0, np.inf if value > 0 else -np.inf, f / -value if value < 0 else np.inf)
        elif self.name == "error":
            even = np.full(len(p), value)
        else:
            even = np.where(i >= value, -np.inf, np.inf)
        return np.where(self.affordable(p, i, megabytes), np.minimum(even, beyond), -np.inf)


def _or_inf(limit: float | None) -> float:
    return math.inf if limit is None else limit


def cost_factor(parameters: ArrayLike, cost: ArrayLike, parameters_maximum: float, cost_maximum: float) -> Floats:
    """f(ξ) = (p(T) - p)/p(T) · (i(T) - i)/i(T), (N,), in [0, 1]: the part of W that is known before training.

    Raises:
        ValueError: a candidate above the maximum of Ξ (two negative factors would make it look good).
    """
    p, i = checked_costs(parameters, cost)
    refuse(p > parameters_maximum, "parameters", p, f"exceed p(T) = {parameters_maximum}, the maximum over Ξ")
    refuse(i > cost_maximum, "the cost", i, f"exceeds i(T) = {cost_maximum}, the maximum over Ξ")
    factor: Floats = (parameters_maximum - p) / parameters_maximum * ((cost_maximum - i) / cost_maximum)
    return factor


def w_coefficient(
    parameters: ArrayLike, cost: ArrayLike, error: ArrayLike, parameters_maximum: float, cost_maximum: float
) -> Floats:
    """W(ξ, T) as published (arXiv 2010.10499), larger is better: f(ξ) / e(ξ), (N,).

    Raises:
        ValueError: an error that is NaN, infinite or <= 0, columns of unequal length; it names the row.
    """
    f = cost_factor(parameters, cost, parameters_maximum, cost_maximum)
    weight: Floats = f / checked_errors(error, len(f), positive=True)
    return weight


def w_warning(objective: Name, error_kind: str) -> str | None:
    """A sentence for the report where W is used with an error that is bounded, or that can come near 0; else None."""
    if objective != "w" or error_kind not in BOUNDED_ERRORS:
        return None
    return (
        f"W assumes an error bounded away from 0, as a cross-entropy is; '{error_kind}' is "
        f"{BOUNDED_ERRORS[error_kind]}: near 0 the factor 1/e explodes, and as it cannot grow beyond its bound, the "
        "smallest candidates win however bad they are. Prefer the least error under limits (objective 'error')."
    )


def checked_costs(parameters: ArrayLike, cost: ArrayLike) -> tuple[Floats, Floats]:
    """Both as float64 (exact below 2^53); refuses all but two equally long columns of finite numbers >= 0."""
    p, i = np.asarray(parameters, dtype=np.float64), np.asarray(cost, dtype=np.float64)
    if p.ndim != 1 or p.shape != i.shape:
        raise ValueError(f"parameters and cost must be columns of one length, not {p.shape} and {i.shape}")
    refuse(~(np.isfinite(p) & (p >= 0)), "parameters", p, "must be finite and not negative")
    refuse(~(np.isfinite(i) & (i >= 0)), "the cost", i, "must be finite and not negative")
    return p, i


def checked_errors(error: ArrayLike, length: int, positive: bool) -> Floats:
    """The errors of `length` trained candidates as float64; refuses NaN, infinity and, where asked, errors <= 0."""
    e = np.asarray(error, dtype=np.float64)
    if e.shape != (length,):
        raise ValueError(f"error has shape {e.shape}; {length} candidates need ({length},)")
    refuse(~np.isfinite(e), "the error", e, "must be a finite number: report a diverged training as failed")
    if positive:
        refuse(e <= 0, "the error", e, "must be positive: W divides by it (use the objective 'error' instead)")
    return e


def refuse(bad: Mask | np.bool_, what: str, values: NDArray[Any], why: str) -> None:
    """Raise ValueError for the first bad row, naming it."""
    if bad.any():
        row = int(np.argmax(bad))
        raise ValueError(f"row {row}: {what} {values[row]} {why}")


def frontier(points: ArrayLike) -> Mask:
    """Which of the (N, k) points no other dominates, all columns minimised; exact duplicates are all kept.

    Sorted lexicographically, a point can only be dominated by one before it, so blocks are compared with the
    frontier so far: O(N · frontier) array operations, 10^4 x 3 in a fraction of a second.

    Raises:
        ValueError: not a (N, k) array with k >= 1, or NaN; it names the row.
    """
    values = _checked_points(points)
    order = np.lexsort(values.T[::-1])
    ordered = values[order]
    first = np.ones(len(ordered), dtype=np.bool_)
    first[1:] = (ordered[1:] != ordered[:-1]).any(axis=1)
    distinct = ordered[first]
    keep = np.zeros(len(distinct), dtype=np.bool_)
    for start in range(0, len(distinct), BLOCK):
        rows = np.arange(start, min(start + BLOCK, len(distinct)))
        rows = rows[~_covers(distinct[keep], distinct[rows]).any(axis=0)]
        within = _covers(distinct[rows], distinct[rows])
        np.fill_diagonal(within, False)
        keep[rows[~within.any(axis=0)]] = True
    mask = np.empty(len(values), dtype=np.bool_)
    mask[order] = keep[np.cumsum(first) - 1]
    return mask


def dominators(points: ArrayLike, preferred: int | None = None) -> NDArray[np.int64]:
    """For each of the (N, k) points one frontier point that dominates it, -1 on the frontier; (N,) int64.

    That is `preferred` wherever it dominates, elsewhere the first in order of index.
    """
    values = _checked_points(points)
    on_frontier = frontier(values)
    members = np.flatnonzero(on_frontier)
    if preferred is not None and on_frontier[preferred]:
        members = np.concatenate([[preferred], members[members != preferred]])
    found = np.full(len(values), -1, dtype=np.int64)
    losers = np.flatnonzero(~on_frontier)
    for start in range(0, len(losers), BLOCK):
        rows = losers[start : start + BLOCK]
        # a loser equals no frontier point (duplicates share their fate), so covered means dominated
        found[rows] = members[_covers(values[members], values[rows]).argmax(axis=0)]
    return found


def _checked_points(points: ArrayLike) -> Floats:
    values = np.asarray(points, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] == 0:
        raise ValueError(f"points must be (N, k) with k >= 1, not {values.shape}")
    refuse(np.isnan(values).any(axis=1), "the point", values, "holds NaN, which cannot be compared")
    return values


def _covers(some: Floats, points: Floats) -> Mask:
    """(len(some), len(points)): is the one at most the other in every column?"""
    covers: Mask = np.ones((len(some), len(points)), dtype=np.bool_)
    for column in range(points.shape[1]):
        covers &= some[:, None, column] <= points[None, :, column]
    return covers
