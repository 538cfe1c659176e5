"""How far a score can be trusted: official metrics over resampled examples and seeds, and two models compared in pairs.

What is resampled are whole groups (a passage with its questions, equal first texts, a pair of AX-g), because their
members stand or fall together: resampling rows would give intervals that are too narrow. Thousands of resamples are
scored at once, see `weighted`.

    >>> part = read("rte", folder, "validation")
    >>> intervals(part, predictions)["metrics"]["accuracy"]                    # one model; (seeds, rows) for several
    {'value': 0.61, 'low': 0.55, 'high': 0.67, 'seeds': [0.61], 'deviation': None}
    >>> compare(part, predictions, others)["metrics"]["accuracy"]["difference"]
    0.04
"""

from __future__ import annotations

from collections.abc import Iterator
from math import comb
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subarch.errors import InvalidTask
from subarch.evaluation.weighted import Scored, tally, units
from subarch.tasks import Examples, score
from subarch.tasks.metrics import checked

Values = NDArray[Any]

RESAMPLES = 2000
LEVEL = 0.95
CELLS = 1 << 20
"""Resamples times examples that are scored at once: 8 MB an array."""


def intervals(
    examples: Examples, predictions: ArrayLike, *, resamples: int = RESAMPLES, level: float = LEVEL, seed: int = 0
) -> dict[str, Any]:
    """Official scores with percentile bootstrap intervals over groups of examples, and the spread over seeds.

    `predictions` are (rows,) of one model or (seeds, rows) of several that differ by their seed only. `value` is the
    mean over seeds and `deviation` their standard deviation (n - 1). With several seeds each resample draws seeds, too;
    of S seeds such a draw varies by (S - 1) / S of what it should, so few seeds make intervals too narrow. A resample
    in which a score is not defined counts as 0, like such a score. The same arguments give the same figures.

    Raises:
        InvalidTask: as `tasks.score`.
    """
    rows = _rows(examples, predictions)
    scores = _scores(examples, rows)
    drawn = _bootstrap(examples, [rows], resamples, seed)
    metrics: dict[str, Any] = {}
    for name, seeds in scores.items():
        low, high = _quantiles(drawn[name][0], level)
        deviation = float(np.std(seeds, ddof=1)) if len(seeds) > 1 else None
        metrics[name] = {"value": float(np.mean(seeds)), "low": low, "high": high}
        metrics[name] |= {"seeds": seeds, "deviation": deviation}
    return {"metrics": metrics} | _described(examples, len(rows), resamples, level, seed)


def compare(
    examples: Examples,
    ours: ArrayLike,
    theirs: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    level: float = LEVEL,
    seed: int = 0,
) -> dict[str, Any]:
    """How much better `ours` is than `theirs` on the same examples, per metric; as many seeds of both.

    `low` to `high`: percentile interval of the difference; a resample draws the same groups for both, and seeds for
    each on its own. `p_examples`: two-sided permutation test, in which each group's predictions are swapped between the
    two (seed by seed) or not: could these trained models as well be the same? `p_seeds`: exact permutation of the
    seeds' scores between the two: could other seeds as well have made the difference? It cannot be below
    `p_seeds_least`. Both are None for one seed.

    Raises:
        InvalidTask: as `tasks.score`, or not as many seeds of both.
    """
    pair = [_rows(examples, ours), _rows(examples, theirs)]
    if len(pair[0]) != len(pair[1]):
        raise InvalidTask(
            f"{examples.task.name}: {len(pair[0])} seeds against {len(pair[1])}; compare as many of both models"
        )
    scores = [_scores(examples, rows) for rows in pair]
    drawn = _bootstrap(examples, pair, resamples, seed)
    swapped = _swapped(examples, pair, resamples, seed)
    seeds = len(pair[0])
    metrics: dict[str, Any] = {}
    for name in scores[0]:
        first, second = (np.asarray(found[name]) for found in scores)
        difference = float(first.mean() - second.mean())
        low, high = _quantiles(drawn[name][0] - drawn[name][1], level)
        # the sample itself is one of its permutations; rounding must not tell equal differences apart
        extreme = np.abs(swapped[name]) >= abs(difference) - 1e-12
        metrics[name] = {
            "ours": float(first.mean()),
            "theirs": float(second.mean()),
            "difference": difference,
            "low": low,
            "high": high,
            "p_examples": float((1 + extreme.sum()) / (1 + resamples)),
            "p_seeds": _exchanged(first, second) if seeds > 1 else None,
        }
    least = 2 / comb(2 * seeds, seeds) if seeds > 1 else None
    return {"metrics": metrics, "p_seeds_least": least} | _described(examples, seeds, resamples, level, seed)


def _rows(examples: Examples, predictions: ArrayLike) -> Values:
    found = np.asarray(predictions, dtype=np.float64)
    if found.ndim == 1:
        found = found[None]
    return np.stack([checked(examples, row) for row in found])


def _scores(examples: Examples, rows: Values) -> dict[str, list[float]]:
    """The official scores of each seed."""
    found = [score(examples, row) for row in rows]
    return {name: [one[name] for one in found] for name in examples.task.metrics}


def _bootstrap(examples: Examples, models: list[Values], resamples: int, seed: int) -> dict[str, list[Values]]:
    """Per metric and model the (resamples,) scores: the same groups for all models, a draw of seeds for each."""
    unit, scored = units(examples), Scored(examples, np.concatenate(models))
    count = int(unit.max()) + 1
    source = np.random.default_rng(seed)
    found: dict[str, list[list[Values]]] = {name: [[] for _ in models] for name in examples.task.metrics}
    for size in _portions(resamples, len(examples)):
        drawn = source.integers(count, size=(size, count))
        weights = tally(np.ones((1, 1)), drawn, count)[:, unit]
        for name, kept in found.items():
            for model, scores in zip(models, kept, strict=True):
                scores.append(np.stack([scored.by(name, weights, row[None]) for row in model], 1))
    # from a stream of its own, so that the groups drawn do not depend on the number of seeds
    source = np.random.default_rng([seed, 1])
    choices = [source.integers(len(model), size=(resamples, len(model))) for model in models]
    return {
        name: [
            np.take_along_axis(np.concatenate(scores), chosen, 1).mean(1)
            for scores, chosen in zip(kept, choices, strict=True)
        ]
        for name, kept in found.items()
    }


def _swapped(examples: Examples, pair: list[Values], resamples: int, seed: int) -> dict[str, Values]:
    """Per metric the (resamples,) differences when each group's predictions may have been swapped."""
    unit, scored = units(examples), Scored(examples, np.concatenate(pair))
    source = np.random.default_rng([seed, 2])
    found: dict[str, list[Values]] = {name: [] for name in examples.task.metrics}
    once = np.ones((1, len(examples)))
    for size in _portions(resamples, len(examples)):
        swap = source.integers(2, size=(size, int(unit.max()) + 1), dtype=np.int8)[:, unit] == 1
        mixed = [(np.where(swap, b, a), np.where(swap, a, b)) for a, b in zip(*pair, strict=True)]
        for name, kept in found.items():
            kept.append(np.mean([scored.by(name, once, a) - scored.by(name, once, b) for a, b in mixed], axis=0))
    return {name: np.concatenate(kept) for name, kept in found.items()}


def _exchanged(first: Values, second: Values) -> float:
    """Exact two-sided permutation test of two sets of scores."""
    from scipy.stats import permutation_test

    def difference(a: Values, b: Values, axis: int) -> Values:
        return np.asarray(np.mean(a, axis=axis) - np.mean(b, axis=axis))

    return float(permutation_test((first, second), difference, vectorized=True, n_resamples=np.inf).pvalue)


def _portions(resamples: int, examples: int) -> Iterator[int]:
    size = max(CELLS // examples, 1)
    for begun in range(0, resamples, size):
        yield min(size, resamples - begun)


def _quantiles(values: Values, level: float) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _described(examples: Examples, seeds: int, resamples: int, level: float, seed: int) -> dict[str, Any]:
    """What the figures rest on: counts, method, level."""
    over = "groups of examples" + (" and seeds" if seeds > 1 else "")
    return {
        "examples": len(examples),
        "groups": int(units(examples).max()) + 1,
        "n_seeds": seeds,
        "level": level,
        "resamples": resamples,
        "seed": seed,
        "method": f"percentile bootstrap over {over}",
    }
