"""The choice among trained candidates, and in plain words why each of the others lost.

An infeasible limit is an answer, not an error: there is no winner, and the candidate that comes nearest is named with
the limits that would admit it.

    >>> objective = Objective("error", parameters_maximum=30e6, cost_maximum=9.0, max_cost=4.2)
    >>> chosen = select(objective, [12e6, 20e6, 30e6], [2.0, 5.1, 9.0], [0.30, 0.24, 0.20])
    >>> chosen.winner, chosen.reasons[1]
    (0, 'over the latency limit: 5.10 ms > 4.20 ms')
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from subarch.numbers.objectives import Floats, Mask, Objective, checked_costs, checked_errors, dominators, frontier

CostUnit = Literal["ms", "multiply-adds"]


@dataclass(frozen=True, slots=True)
class Nearest:
    """The candidate that needs the least relaxation, where none meets the limits.

    `limits` are the limits that would admit it, by the field of `Objective`, those it already meets left out.
    """

    index: int
    excess: float
    """Largest relative excess over a limit; 0.2: 20 % over."""
    limits: dict[str, float]
    sentence: str


@dataclass(frozen=True, slots=True, eq=False)
class Selection:
    """The choice among N trained candidates; all indices are positions in the columns given.

    `ties` are the candidates whose value equals the winner's, itself included; the winner among them has the fewest
    parameters, then the least cost, error and index. `frontier`, (N,), marks the candidates not dominated in (p, i, e),
    whether they meet the limits or not. Where no candidate meets the limits, `winner` is None and `nearest` is set.
    """

    winner: int | None
    ties: tuple[int, ...]
    frontier: Mask
    reasons: dict[int, str]
    nearest: Nearest | None


def select(
    objective: Objective,
    parameters: ArrayLike,
    cost: ArrayLike,
    error: ArrayLike,
    cost_unit: CostUnit = "ms",
    names: Sequence[str] | None = None,
    megabytes: ArrayLike | None = None,
) -> Selection:
    """The best of N trained candidates, and why each other one lost.

    `cost_unit` is the unit of `cost` and of the objective's cost limit; `names` are what the reasons call the
    candidates (default "candidate 3", by position); `megabytes` are those of their files, needed under a limit on them.

    Raises:
        ValueError: no candidate, columns of unequal length, a NaN or infinite error, an error <= 0 with W.
    """
    p, i = checked_costs(parameters, cost)
    e = checked_errors(error, len(p), positive=objective.name == "w")
    if not len(p):
        raise ValueError("no trained candidate to select from; `nearest` tells which limits would admit one")
    names = _names(names, len(p))
    value = objective.value(p, i, e, megabytes)
    limits = _limits(objective, p, i, e, cost_unit, megabytes)
    points = np.stack([p, i, e], axis=1)
    winner = int(np.lexsort((e, i, p, value))[0])
    if math.isinf(value[winner]):
        reasons = {row: _excesses_in_words(limits, row) for row in range(len(p))}
        return Selection(None, (), frontier(points), reasons, nearest(objective, p, i, e, cost_unit, names, megabytes))
    dominator = dominators(points, preferred=winner)
    reasons = {}
    for row in range(len(p)):
        if row == winner:
            continue
        if math.isinf(value[row]):
            reasons[row] = _excesses_in_words(limits, row)
            continue
        if value[row] == value[winner]:
            reasons[row] = _tie_in_words(points, row, winner, names[winner], cost_unit)
        else:
            reasons[row] = _defeat_in_words(objective, float(value[row]), float(value[winner]), cost_unit)
        if dominator[row] >= 0:
            reasons[row] += f"; dominated by {names[dominator[row]]}"
    ties = tuple(int(row) for row in np.flatnonzero(value == value[winner]))
    return Selection(winner, ties, dominator < 0, reasons, None)


def nearest(
    objective: Objective,
    parameters: ArrayLike,
    cost: ArrayLike,
    error: ArrayLike | None = None,
    cost_unit: CostUnit = "ms",
    names: Sequence[str] | None = None,
    megabytes: ArrayLike | None = None,
) -> Nearest:
    """The candidate whose largest relative excess over the limits is least; equals: fewest parameters, least cost.

    Before training `error` is None, and only the limits on cost and parameters count.

    Raises:
        ValueError: no candidate, no limit, or a candidate that meets all of them.
    """
    p, i = checked_costs(parameters, cost)
    e = None if error is None else checked_errors(error, len(p), positive=False)
    limits = _limits(objective, p, i, e, cost_unit, megabytes)
    if not len(p) or not limits:
        raise ValueError("nearest needs at least one candidate and one limit")
    excess = np.max([limit.values / limit.most - 1 for limit in limits], axis=0)
    index = int(np.lexsort((i, p, excess))[0])
    exceeded = {limit.field: float(limit.values[index]) for limit in limits if limit.values[index] > limit.most}
    if not exceeded:
        raise ValueError(f"row {index} meets every limit: there is nothing to relax")
    percent = _figures(100 * excess[index])[0]
    sentence = (
        f"no candidate meets the limits; {_names(names, len(p))[index]} comes nearest, {percent} % off "
        f"({_excesses_in_words(limits, index)})"
    )
    return Nearest(index, float(excess[index]), exceeded, sentence)


@dataclass(frozen=True, slots=True, eq=False)
class _Limit:
    field: str
    noun: str
    unit: str
    values: Floats
    most: float


def _limits(
    objective: Objective, p: Floats, i: Floats, e: Floats | None, cost_unit: CostUnit, megabytes: ArrayLike | None
) -> list[_Limit]:
    limits = []
    if objective.max_cost is not None:
        limits.append(_Limit("max_cost", _cost_noun(cost_unit), f" {cost_unit}", i, objective.max_cost))
    if objective.max_parameters is not None:
        limits.append(_Limit("max_parameters", "size", " parameters", p, objective.max_parameters))
    if objective.max_megabytes is not None:
        size = np.asarray(megabytes, dtype=np.float64)
        limits.append(_Limit("max_megabytes", "file size", " MB", size, objective.max_megabytes))
    if objective.max_error is not None and e is not None:
        limits.append(_Limit("max_error", "error", "", e, objective.max_error))
    return limits


def _excesses_in_words(limits: list[_Limit], row: int) -> str:
    words = []
    for limit in limits:
        if limit.values[row] > limit.most:
            found, allowed = _figures(limit.values[row], limit.most)
            words.append(f"over the {limit.noun} limit: {found}{limit.unit} > {allowed}{limit.unit}")
    return "; ".join(words)


def _defeat_in_words(objective: Objective, value: float, best: float, cost_unit: CostUnit) -> str:
    if objective.name == "w":
        mine, winners = _figures(-value, -best)
        return f"W {mine} against {winners}"
    mine, winners = _figures(value, best)
    if objective.name == "error":
        return f"error {mine} against {winners}"
    return f"{_cost_noun(cost_unit)} {mine} {cost_unit} against {winners} {cost_unit}"


def _tie_in_words(points: Floats, row: int, winner: int, name: str, cost_unit: CostUnit) -> str:
    columns = (("fewer parameters", ""), (f"less {_cost_noun(cost_unit)}", f" {cost_unit}"), ("less error", ""))
    for column, (advantage, unit) in enumerate(columns):
        if points[row, column] != points[winner, column]:
            mine, winners = _figures(points[row, column], points[winner, column])
            return f"ties with {name}, which has {advantage}: {winners}{unit} against {mine}{unit}"
    return f"ties with {name} in everything; the first in order is taken"


def _cost_noun(cost_unit: CostUnit) -> str:
    return "latency" if cost_unit == "ms" else "operations"


def _names(names: Sequence[str] | None, length: int) -> Sequence[str]:
    if names is None:
        return [f"candidate {row}" for row in range(length)]
    if len(names) != length:
        raise ValueError(f"{len(names)} names for {length} candidates")
    return names


def _figures(*values: float) -> list[str]:
    """The numbers with three significant digits, or as many as it takes to tell different ones apart."""
    texts: list[str] = []
    for digits in range(3, 19):
        texts = [_figure(float(value), digits) for value in values]
        if len(set(texts)) == len(set(values)):
            break
    return texts


def _figure(value: float, digits: int) -> str:
    if value == 0 or (value.is_integer() and abs(value) >= 1000):
        return f"{value:,.0f}"
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(value))))
    return f"{value:,.{decimals}f}"
