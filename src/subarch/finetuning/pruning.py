"""Which sets of Θ Agora takes out after an iteration, those like the worst or the worse half, and what that costs.

`common` is the published way (arXiv 2010.07990: "the longest common sequence rooted at the first element" of Θ sorted
by accuracy). What that means in detail is inferred. The order is ascending, so the first is the worst; a set is the
ordered tuple of its values (`Theta.values`); ℓ is the greatest length of a longest common subsequence of the worst with
any other set but the best. The worst goes, and after it each next set for as long as what it has in common with the
worst has length ℓ. Taken at its word this clears all but the best where no other set shares a value with the worst.

`halving` (Jamieson and Talwalkar, arXiv 1502.07943) keeps the better half, and of an odd number the one in the middle.

Both get the sets in ascending order, two at least, and say of each that goes why: always the first ones, at least one,
and never the last, which is the best.

    >>> common([(1e-4, 0, .35, 8), (1e-4, 10, .35, 8), (1e-4, 10, .45, 16), (1e-5, 10, .45, 8)])
    ['the worst', 'has 3 values in common with the worst, as many as any']
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

Values = tuple[float, ...]


def common(ascending: Sequence[Values]) -> list[str]:
    """Reasons for the first sets to go, in their order: the worst, and those next to it that are most like it."""
    worst, others = ascending[0], ascending[1:-1]
    shared = [longest_common(worst, other) for other in others]
    reasons = ["the worst"]
    for length in shared:
        if length < max(shared):
            break
        reasons.append(f"has {length} values in common with the worst, as many as any")
    return reasons


def halving(ascending: Sequence[Values]) -> list[str]:
    """Reasons for the first sets to go: one for each of the worse half."""
    return ["of the worse half"] * (len(ascending) // 2)


def longest_common(one: Values, other: Values) -> int:
    """Length of the longest common subsequence: values that both have, in the same order, not necessarily adjacent."""
    lengths = [0] * (len(other) + 1)
    for value in one:
        before = lengths[:]
        for at, theirs in enumerate(other, 1):
            lengths[at] = before[at - 1] + 1 if value == theirs else max(before[at], lengths[at - 1])
    return lengths[-1]


PRUNINGS: dict[str, Callable[[Sequence[Values]], list[str]]] = {"common": common, "halving": halving}


@dataclass(frozen=True, slots=True)
class Forecast:
    """What Agora may cost: trainings at least (ℰ has no mistakes) and at most, and the hours of each, if known."""

    fewest: int
    most: int
    hours: tuple[float, float] | None = None

    def __str__(self) -> str:
        number = f"{self.fewest}" if self.fewest == self.most else f"{self.fewest} to {self.most}"
        text = f"{number} training{'s' * (self.most > 1)}"
        if self.hours is None:
            return text
        hours = " to ".join(dict.fromkeys(f"{hours:.2g}" for hours in self.hours))
        return f"{text}, {hours} hours if no training stops early"


def forecast(
    sets: int,
    pruning: str = "common",
    *,
    repeats: int = 0,
    examples: int = 0,
    epochs: int = 1,
    growth: int = 0,
    seconds: float | None = None,
) -> Forecast:
    """What so many sets may cost.

    Args:
        sets: |Θ|.
        repeats: trainings of the best set with other seeds afterwards, on as much data as there is then.
        examples: of 𝒟 at the start.
        epochs: of a training, at most.
        growth: points that an iteration may add (mistakes on ℰ times points for each).
        seconds: for one example, forward and backward; None: not known.

    >>> str(forecast(8, examples=8_000, epochs=10, growth=400, seconds=0.01))
    '8 to 36 trainings, 1.8 to 8.9 hours if no training stops early'
    """
    left = [sets]
    while left[-1] > 1:
        left.append(left[-1] - len(halving([()] * left[-1])) if pruning == "halving" else left[-1] - 1)
    # the repeats come after the only iteration, or after the last of all
    least = (sets + repeats) * examples
    most = sum(number * (examples + at * growth) for at, number in enumerate(left))
    most += repeats * (examples + (len(left) - 1) * growth)
    hours = None if seconds is None else (least * epochs * seconds / 3600, most * epochs * seconds / 3600)
    return Forecast(sets + repeats, sum(left) + repeats, hours)
