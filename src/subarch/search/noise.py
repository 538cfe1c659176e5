"""What chance does to a certificate: how far errors may be off, and how often an assumption may fail unseen.

The error of a candidate after training with seed s is its mean over seeds, plus what this seed does to all candidates
alike (they see the same batches), plus what it does to this one alone. Candidates of one seed are compared with each
other, so the second part cancels, and only the third counts: the residual of an additive model of candidates and seeds.

    >>> noise = Noise.of([{0: 0.301, 1: 0.304}, {0: 0.312, 1: 0.316}, {0: 0.409, 1: 0.411}])    # by candidate and seed
    >>> noise.deviation, noise.freedom
    (0.0007..., 2)
    >>> noise.between(trials=7)      # so near the true one is each measured difference of two of seven, p = 0.95
    0.0088...
    >>> most_failing(failures=0, drawn=10)           # of the rest at most a quarter may fail, with probability 0.95
    0.2588...
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from scipy.optimize import brentq
from scipy.special import betaincinv, chdtri, ndtr

from subarch.numbers.objectives import Floats

LEVEL = 0.95
"""Probability of both statements."""


@dataclass(frozen=True, slots=True)
class Noise:
    """Deviation of an error within its seed, the degrees of freedom of that, and the deviation over seeds as a whole.

    `freedom` 0: nothing is known, and errors count as exact.
    """

    deviation: float = 0.0
    freedom: int = 0
    over_seeds: float = 0.0

    @classmethod
    def of(cls, repeated: Iterable[Mapping[int, float]]) -> Noise:
        """From errors by seed of candidates that were trained with several; those with one seed say nothing.

        Of a single candidate the two parts cannot be told apart; then all that differs counts as its own.
        """
        groups = [errors for errors in repeated if len(errors) > 1]
        error = np.array([error for errors in groups for error in errors.values()])
        if not len(error):
            return cls()
        seed = np.unique([seed for errors in groups for seed in errors], return_inverse=True)[1]
        candidate = np.repeat(np.arange(len(groups)), [len(errors) for errors in groups])
        alone = np.eye(len(groups))[candidate]
        both = np.hstack([alone, np.eye(int(seed.max()) + 1)[seed]])
        (total, degrees), (own, freedom) = _left(alone, error), _left(both, error)
        over_seeds = math.sqrt(total / degrees)
        return cls(math.sqrt(own / freedom), freedom, over_seeds) if freedom else cls(over_seeds, degrees, over_seeds)

    def between(self, trials: int, same_scale: bool = True) -> float:
        """η: no difference between two measured errors of so many is further from that of their means over seeds.

        With probability `LEVEL`, for all pairs at once, whichever of them is looked at: the studentized range of normal
        errors of one deviation. `same_scale`: the errors are compared as they are, so that what a seed does to all of
        them cancels. If they are divided by each other (W) or held against a fixed floor it does not, and η covers it.
        """
        return self.scale(same_scale) * _range(max(trials, 2), self.freedom) if self.freedom else 0.0

    def scale(self, same_scale: bool) -> float:
        """The deviation that `between` counts with."""
        return self.deviation if same_scale else max(self.deviation, self.over_seeds / math.sqrt(2))


def _left(columns: Floats, error: Floats) -> tuple[float, int]:
    """The sum of squares that a linear model of these columns leaves, and its degrees of freedom."""
    fitted = columns @ np.linalg.pinv(columns) @ error
    return float(((error - fitted) ** 2).sum()), len(error) - int(np.linalg.matrix_rank(columns))


@cache
def _range(count: int, freedom: int) -> float:
    """The quantile of the studentized range; `scipy.stats.studentized_range.ppf` takes fifty times as long."""
    z = np.linspace(-8, 8, 401)
    share, weight = np.polynomial.legendre.leggauss(64)
    estimated = np.sqrt(chdtri(freedom, (1 - share) / 2) / freedom)[:, None]
    density = count * np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])

    def beyond(q: float) -> float:
        within = ((ndtr(z) - ndtr(z - q * estimated)) ** (count - 1)) @ density
        return LEVEL - float(weight @ within) / 2

    return float(brentq(beyond, 0, 1e4))


def floor(bound: Floats, eta: float, reference: float | None) -> Floats:
    """What is left of lower bounds that were measured, when compared with another measured error, the reference.

    A true error that is at least so large as one measured at `bound` is, relative to the true error of the reference,
    at least so large as this is to the reference: less by η; above the reference, where a share of the bound may be
    asked for (W), less by the share that η is of the reference. None: there is nothing to compare with.
    """
    less = bound - eta
    if reference is None or not eta:
        return less
    return np.where(less <= reference, less, np.maximum(bound, 0) * (reference / (reference + eta)))


def most_failing(failures: int, drawn: int) -> float:
    """The largest rate at which so few failures among so many draws have probability 1 - `LEVEL` (Clopper-Pearson)."""
    if failures >= drawn:
        return 1.0
    return float(betaincinv(failures + 1, drawn - failures, LEVEL))
