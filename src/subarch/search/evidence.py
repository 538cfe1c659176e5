"""What a certified search leaves: rows of the problem and figures; `extraction/certificate.py` puts them in words."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a certified search can say of what it knows; rows are those of the problem.

    Attributes:
        incumbent: the best row trained; None: none meets the limits.
        closed: nothing untrained can be better than the incumbent by more than `aim`, relative to its value.
        delta: what was asked for; `aim`: that, or the least within reach of the noise and the violations.
        reached: by how much anything may be better at most, trained or not, noise counted; inf: nothing is known.
        eta, slack: η, and what the bounds are lowered by on account of violations.
        violations: trained pairs that contradict the order by more than the noise.
        because: for each untrained affordable row the trained one that bounds its error best, -1: none.
        audited: rows drawn at random of those excluded by another's error, and of these `failures` contradicted it;
            with probability 0.95 at most the share `failing` of all so excluded do.
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


def better_by(value: float, worst: float) -> float:
    """By how much, relative, a value is better than another that is at worst so; inf: nothing bounds it."""
    if value >= worst:
        return 0.0
    if not math.isfinite(value) or not math.isfinite(worst):
        return math.inf
    return 1 - worst / value if value < 0 else 1 - value / worst
