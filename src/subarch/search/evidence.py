"""What a certified search knows, and what it leaves: rows of the problem and figures.

`extraction/certificate.py` puts `Evidence` in words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from subarch.numbers.objectives import Floats


@dataclass(frozen=True, slots=True)
class Heads:
    """What is known of other numbers of heads than the nearest; see `heads`.

    Attributes:
        eta: η_A, by which the error of another number of heads may be lower; inf: it was not measured.
        pairs: representatives with a sibling, both trained, that it was measured on.
        aim: by how much a sibling may be better than the incumbent, relative to its value: δ, or the least within
            reach of the noise, the violations and η_A.
        target: the value that a sibling would have to beat.
    """

    eta: float
    pairs: int
    aim: float
    target: float


@dataclass(frozen=True, slots=True)
class Known:
    """What the errors told so far come to.

    `told` are rows, `trained` those of them that represent a shape, `best` the incumbent, `worst` its value at ê + η,
    `target` the value that a better one would have to beat. `least` (C,) is L(x), `needed` (C,) the least error that
    excludes, by cell of the grid.
    """

    told: NDArray[np.int64]
    trained: NDArray[np.int64]
    best: int | None
    worst: float
    aim: float
    target: float
    eta: float
    slack: float
    violations: int
    least: Floats
    needed: Floats
    heads: Heads


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a certified search can say of what it knows; rows are those of the problem.

    Attributes:
        incumbent: the best row trained; None: none meets the limits.
        closed: nothing untrained can be better than the incumbent by more than `aim` (siblings: `heads.aim`), relative
            to its value.
        delta: what was asked for; `aim`: that, or the least within reach of the noise and the violations.
        reached: by how much anything may be better at most, trained or not, noise counted; inf: nothing is known.
        eta, slack: η, and what the bounds are lowered by on account of violations.
        violations: trained pairs that contradict the order by more than the noise.
        because: for each untrained affordable row the trained one that bounds its error best, -1: none.
        audited: rows drawn at random of those excluded by another's error, none while some are not trained; of these
            `failures` contradicted it, and with probability 0.95 at most the share `failing` of all so excluded do.
        heads: None: no two rows differ in their heads only.
    """

    incumbent: int | None
    closed: bool
    delta: float
    aim: float
    reached: float
    eta: float
    slack: float
    violations: int
    because: dict[int, int]
    audited: tuple[int, ...]
    failures: int
    failing: float
    heads: Heads | None


def better_by(value: float, worst: float) -> float:
    """By how much, relative, a value is better than another that is at worst so; inf: nothing bounds it."""
    if value >= worst:
        return 0.0
    if not math.isfinite(value) or not math.isfinite(worst):
        return math.inf
    return 1 - worst / value if value < 0 else 1 - value / worst


def less_by(value: float, share: float) -> float:
    """What is better than a value by a share of it; values below 0 are better where they are further from it."""
    return value / (1 - share) if value < 0 else value * (1 - share)


def within_reach(off: float, error: float, delta: float) -> float:
    """δ, or the least that can be claimed of an error where others may be off by so much; below 1."""
    return max(delta, min(off / max(error, 1e-12), 0.99))  # an error may be 0
