"""How far a score can be trusted: bootstrap intervals over examples and seeds, and paired comparisons of two models.

Whole groups are resampled (a passage with its questions, equal first texts, a pair of AX-g), because their members
stand or fall together: resampling rows would make the intervals too narrow. A resample is a row of weights, how often
each example occurs in it. `tasks.score` is too slow for thousands of resamples: `Scored` computes the official metrics
of weighted examples for many at once; a test compares each formula with `tasks.score`. Where words are tagged,
sentences are resampled, and what a model finds in each is counted once. Scores that are means of a value for each query
need no such formulas: `mean_intervals` and `compare_means`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from math import comb
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subarch.errors import InvalidTask
from subarch.run.records import Difference, Interval, ScoreComparison, Scores
from subarch.tasks import Example, Examples, score
from subarch.tasks.metrics import checked, question_of
from subarch.tasks.tagging import by_sentence, spans

Values = NDArray[Any]

RESAMPLES = 2000
LEVEL = 0.95
CELLS = 1 << 20
"""Resamples times examples that are scored at once: 8 MB per array."""


def intervals(examples: Examples, predictions: ArrayLike, *, resamples: int = RESAMPLES, seed: int = 0) -> Scores:
    """Official scores with percentile bootstrap intervals over groups of examples, and the spread over seeds.

    `predictions` are (rows,) of one model, or (seeds, rows) of models that differ only by their seed; a row is an
    example, or a word to tag. `value` is the mean over seeds and `deviation` their standard deviation (n - 1). With
    several seeds, each resample draws seeds as well; the variance of such a draw is (S - 1) / S of what it should
    be, so few seeds make intervals too narrow. A resample in which a score is undefined counts as 0, as the score
    itself would. The result is deterministic.

    Raises:
        InvalidTask: as `tasks.score`.
    """
    rows = _rows(examples, predictions)
    scores = _scores(examples, rows)
    drawn = _bootstrap(examples, [rows], resamples, seed)
    metrics = {}
    for name, seeds in scores.items():
        low, high = _quantiles(drawn[name][0])
        deviation = float(np.std(seeds, ddof=1)) if len(seeds) > 1 else None
        mean = float(np.mean(seeds))
        metrics[name] = Interval(value=mean, low=low, high=high, seeds=tuple(seeds), deviation=deviation)
    return Scores(metrics=metrics, **_described(examples, len(rows), resamples, seed))


def compare(
    examples: Examples,
    ours: ArrayLike,
    theirs: ArrayLike,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> ScoreComparison:
    """How much better `ours` is than `theirs` on the same examples, per metric, with as many seeds of each.

    `low` to `high`: percentile interval of the difference; a resample draws the same groups for both models, but seeds
    separately. `p_examples`: two-sided permutation test that swaps each group's predictions between the models (seed by
    seed) or not: could these two trained models be equally good? `p_seeds`: exact permutation test of the scores of the
    seeds: could the difference come from the choice of seeds? It is at least `p_seeds_least`; None for one seed.

    Raises:
        InvalidTask: as `tasks.score`, or the numbers of seeds differ.
    """
    pair = [_rows(examples, ours), _rows(examples, theirs)]
    if len(pair[0]) != len(pair[1]):
        raise InvalidTask(f"{examples.task.name}: {len(pair[0])} seeds against {len(pair[1])}; give as many of both")
    scores = [_scores(examples, rows) for rows in pair]
    drawn = _bootstrap(examples, pair, resamples, seed)
    swapped = _swapped(examples, pair, resamples, seed)
    seeds = len(pair[0])
    metrics = {}
    for name in scores[0]:
        first, second = (np.asarray(found[name]) for found in scores)
        difference = float(first.mean() - second.mean())
        low, high = _quantiles(drawn[name][0] - drawn[name][1])
        # the sample itself is one of the permutations; rounding errors must not separate equal differences
        extreme = np.abs(swapped[name]) >= abs(difference) - 1e-12
        metrics[name] = Difference(
            ours=float(first.mean()),
            theirs=float(second.mean()),
            difference=difference,
            low=low,
            high=high,
            p_examples=float((1 + extreme.sum()) / (1 + resamples)),
            p_seeds=_exchanged(first, second) if seeds > 1 else None,
        )
    least = 2 / comb(2 * seeds, seeds) if seeds > 1 else None
    return ScoreComparison(metrics=metrics, p_seeds_least=least, **_described(examples, seeds, resamples, seed))


def mean_intervals(values: Mapping[str, ArrayLike], *, resamples: int = RESAMPLES, seed: int = 0) -> Scores:
    """Means by metric, of a value for each unit (a query), with percentile bootstrap intervals over the units."""
    rows = np.asarray(list(values.values()), dtype=float)
    metrics = {}
    for name, mean, drawn in zip(values, rows.mean(1), _drawn_means(rows, resamples, seed), strict=True):
        low, high = _quantiles(drawn)
        metrics[name] = Interval(value=float(mean), low=low, high=high, seeds=(float(mean),), deviation=None)
    return Scores(metrics=metrics, **_of_means(rows, resamples, seed))


def compare_means(
    ours: Mapping[str, ArrayLike], theirs: Mapping[str, ArrayLike], *, resamples: int = RESAMPLES, seed: int = 0
) -> ScoreComparison:
    """How much higher means are than others of the same units, per metric; the figures are those of `compare`.

    A resample draws the same units for both. `p_examples`: two-sided permutation test that swaps the two values of each
    unit or not.
    """
    first, second = (np.asarray(list(values.values()), dtype=float) for values in (ours, theirs))
    drawn = _drawn_means(first - second, resamples, seed)
    source, swapped = np.random.default_rng([seed, 2]), []
    for size in _portions(resamples, first.shape[1]):
        signs = source.choice([-1.0, 1.0], size=(first.shape[1], size))
        swapped.append((first - second) @ signs / first.shape[1])
    metrics = {}
    for name, a, b, resampled, permuted in zip(ours, first, second, drawn, np.hstack(swapped), strict=True):
        difference = float(a.mean() - b.mean())
        low, high = _quantiles(resampled)
        extreme = np.abs(permuted) >= abs(difference) - 1e-12  # as in `compare`
        metrics[name] = Difference(
            ours=float(a.mean()),
            theirs=float(b.mean()),
            difference=difference,
            low=low,
            high=high,
            p_examples=float((1 + extreme.sum()) / (1 + resamples)),
            p_seeds=None,
        )
    return ScoreComparison(metrics=metrics, p_seeds_least=None, **_of_means(first, resamples, seed))


def _drawn_means(rows: Values, resamples: int, seed: int) -> Values:
    """(M, N) values -> (M, resamples): means over the same draws of N columns."""
    source, count = np.random.default_rng(seed), rows.shape[1]
    drawn = [rows[:, source.integers(count, size=(size, count))].mean(-1) for size in _portions(resamples, count)]
    return np.hstack(drawn)


def _of_means(rows: Values, resamples: int, seed: int) -> dict[str, Any]:
    count = rows.shape[1]
    return {
        "examples": count,
        "groups": count,
        "n_seeds": 1,
        "level": LEVEL,
        "resamples": resamples,
        "seed": seed,
        "method": "percentile bootstrap over queries",
    }


def _rows(examples: Examples, predictions: ArrayLike) -> Values:
    found = np.asarray(predictions, dtype=np.float64)
    if found.ndim == 1:
        found = found[None]
    return np.stack([checked(examples, row) for row in found])


def _scores(examples: Examples, rows: Values) -> dict[str, list[float]]:
    found = [score(examples, row) for row in rows]
    return {name: [one[name] for one in found] for name in examples.task.metrics}


def _bootstrap(examples: Examples, models: list[Values], resamples: int, seed: int) -> dict[str, list[Values]]:
    """Per metric and model the (resamples,) scores: the same groups for all models, a draw of seeds for each."""
    unit, scored, models = units(examples), Scored(examples, np.concatenate(models)), _rowed(examples, models)
    count = int(unit.max()) + 1
    source = np.random.default_rng(seed)
    found: dict[str, list[list[Values]]] = {name: [[] for _ in models] for name in examples.task.metrics}
    for size in _portions(resamples, len(examples)):
        drawn = source.integers(count, size=(size, count))
        weights = tally(np.ones((1, 1)), drawn, count)[:, unit]
        for name, kept in found.items():
            for model, scores in zip(models, kept, strict=True):
                scores.append(np.stack([scored.by(name, weights, row[None]) for row in model], 1))
    # a separate stream: which groups are drawn must not depend on the number of seeds
    source = np.random.default_rng([seed, 1])
    choices = [source.integers(len(model), size=(resamples, len(model))) for model in models]
    return {
        name: [
            np.take_along_axis(np.concatenate(scores), chosen, 1).mean(1)
            for scores, chosen in zip(kept, choices, strict=True)
        ]
        for name, kept in found.items()
    }


def _rowed(examples: Examples, models: list[Values]) -> list[Values]:
    """The predictions of each model as resamples are scored: (seeds, examples).

    Where words are tagged, a sentence's stands as the number of its row among the predictions of all models.
    """
    if examples.task.head != "tagging":
        return models
    rows = np.arange(sum(map(len, models)))[:, None].repeat(len(examples), 1)
    return np.split(rows, np.cumsum([len(model) for model in models])[:-1])


def _swapped(examples: Examples, pair: list[Values], resamples: int, seed: int) -> dict[str, Values]:
    """Per metric the (resamples,) differences after randomly swapping the predictions of each group."""
    unit, scored, pair = units(examples), Scored(examples, np.concatenate(pair)), _rowed(examples, pair)
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
    from scipy.stats import permutation_test

    def difference(a: Values, b: Values, axis: int) -> Values:
        return np.asarray(np.mean(a, axis=axis) - np.mean(b, axis=axis))

    return float(permutation_test((first, second), difference, vectorized=True, n_resamples=np.inf).pvalue)


def _portions(resamples: int, examples: int) -> Iterator[int]:
    size = max(CELLS // examples, 1)
    for begun in range(0, resamples, size):
        yield min(size, resamples - begun)


def _quantiles(values: Values) -> tuple[float, float]:
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def _described(examples: Examples, seeds: int, resamples: int, seed: int) -> dict[str, Any]:
    over = "groups of examples" + (" and seeds" if seeds > 1 else "")
    return {
        "examples": len(examples),
        "groups": int(units(examples).max()) + 1,
        "n_seeds": seeds,
        "level": LEVEL,
        "resamples": resamples,
        "seed": seed,
        "method": f"percentile bootstrap over {over}",
    }


@dataclass(frozen=True)
class Scored:
    """The official metrics of labelled examples for many resamples at once.

    Every metric takes weights (B or 1, N), how often each example occurs, and predictions (1 or B, N), and gives (B,).
    Examples that are resampled together (`units`) must have equal weights. `predicted` (any, N): all predictions that
    will be scored; where words are tagged, (any, words), and predictions are numbers of its rows (`_rowed`).
    """

    examples: Examples
    predicted: Values

    def by(self, metric: str, weights: Values, predictions: Values) -> Values:
        if self.examples.task.cast == "record":
            values = np.take_along_axis(self.answers[metric], predictions.T, 1).T
            return ratio(np.vecdot(weights, values), weights.sum(-1))
        if self.examples.task.head == "tagging":
            right, said, true = (np.take_along_axis(counts, predictions.T, 1).T for counts in self.spans)
            above, below = {
                "span_f1": (2 * right, said + true),
                "span_precision": (right, said),
                "span_recall": (right, true),
            }[metric]
            return ratio(np.vecdot(weights, above), np.vecdot(weights, below))
        return _METRICS[metric](self, weights, predictions)

    @cached_property
    def truth(self) -> Values:
        """(1, N)"""
        return np.asarray([self.examples.labels], dtype=self.predicted.dtype)

    @cached_property
    def classes(self) -> int:
        return int(max(self.truth.max(), self.predicted.max())) + 1

    @cached_property
    def question(self) -> Values:
        """(1, N): the number of the question, of MultiRC."""
        return _numbered(map(question_of, self.examples))[None]

    @cached_property
    def pair(self) -> Values:
        """(1, N): the number of the pair, of AX-g."""
        return _numbered(map(_pair_of, self.examples))[None]

    @cached_property
    def spans(self) -> Values:
        """(3, N, any): spans of each sentence that each row of predictions has right, has, and should have."""
        truth = [spans(example.golds) for example in self.examples]
        found = [[spans(tags) for tags in by_sentence(self.examples, row)] for row in self.predicted]
        counts = [
            [(len(said & true), len(said), len(true)) for said, true in zip(row, truth, strict=True)] for row in found
        ]
        return np.array(counts, dtype=float).transpose(2, 1, 0)

    @cached_property
    def answers(self) -> dict[str, Values]:
        """ReCoRD: (N, choices), the score of each predicted choice, which depends on its text."""
        size = (len(self.examples), self.classes)
        found = {name: np.zeros(size) for name in self.examples.task.metrics}
        for row, said in enumerate(self.predicted.T):
            for choice in set(said.tolist()):
                for name, value in score(self.examples[row : row + 1], [choice]).items():
                    found[name][row, choice] = value
        return found


def units(examples: Examples) -> Values:
    """For each example the number, from 0, of the unit it is resampled with.

    A unit is a group; for scores by pair (AX-g), the examples of a pair also belong together.
    """
    groups = _numbered(example.group for example in examples)
    if "gender_parity" not in examples.task.metrics:
        return groups
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # groups and pairs may overlap: a unit is a connected component of both
    pairs = _numbered(map(_pair_of, examples)) + groups.max() + 1
    size = int(pairs.max()) + 1
    links = coo_array((np.ones(len(groups)), (groups, pairs)), shape=(size, size))
    components: Values = connected_components(links, directed=False)[1][groups]
    return components


def tally(weights: Values, codes: Values, count: int) -> Values:
    """(B, count): the weight of each code 0..count-1 in each row. Both arguments are (B or 1, N or 1)."""
    weights, codes = np.broadcast_arrays(weights, codes)
    rows = len(codes)
    flat = (codes + count * np.arange(rows)[:, None]).ravel()
    return np.bincount(flat, weights.ravel(), rows * count).reshape(rows, count)


def _numbered(keys: Iterable[Hashable]) -> Values:
    """A number from 0 for each different key."""
    return np.unique([str(key) for key in keys], return_inverse=True)[1]


def _pair_of(example: Example) -> int:
    return int(example.id) // 2


def ratio(above: Values, below: Values) -> Values:
    """above / below, 0 where there is nothing below."""
    return np.divide(above, below, out=np.zeros(np.broadcast_shapes(above.shape, below.shape)), where=below != 0)


def _accuracy(of: Scored, weights: Values, said: Values) -> Values:
    return ratio(np.vecdot(weights, (said == of.truth).astype(float)), weights.sum(-1))


def _accuracy_of(part: str) -> Metric:
    def accuracy(of: Scored, weights: Values, said: Values) -> Values:
        inside = np.asarray([example.group.startswith(part) for example in of.examples])
        return _accuracy(of, weights * inside, said)

    return accuracy


def _f1(of: Scored, weights: Values, said: Values) -> Values:
    right = np.vecdot(weights, ((said == 1) & (of.truth == 1)).astype(float))
    return ratio(2 * right, np.vecdot(weights, (said == 1).astype(float) + (of.truth == 1)))


def _macro_f1(of: Scored, weights: Values, said: Values) -> Values:
    right = tally(weights * (said == of.truth), said, of.classes)
    both = tally(weights, of.truth, of.classes) + tally(weights, said, of.classes)
    return ratio(ratio(2 * right, both).sum(-1), (both > 0).sum(-1))


def _mcc(of: Scored, weights: Values, said: Values) -> Values:
    """Gorodkin's correlation of any number of classes, as scikit-learn has it."""
    total, right = weights.sum(-1), np.vecdot(weights, (said == of.truth).astype(float))
    true, predicted = tally(weights, of.truth, of.classes), tally(weights, said, of.classes)
    spread = (total**2 - np.vecdot(true, true)) * (total**2 - np.vecdot(predicted, predicted))
    return ratio(right * total - np.vecdot(true, predicted), np.sqrt(spread))


def _pearson(of: Scored, weights: Values, said: Values) -> Values:
    return correlation(weights, of.truth, said)


def _spearman(of: Scored, weights: Values, said: Values) -> Values:
    return correlation(weights, ranks(weights, of.truth), ranks(weights, said))


def correlation(weights: Values, x: Values, y: Values) -> Values:
    """Pearson's correlation of weighted values, all (B or 1, N); 0 if either is constant up to rounding."""
    total = weights.sum(-1, keepdims=True)
    noise = [1e-13 * max(1.0, float(np.abs(z).max())) for z in (x, y)]
    x, y = (z - np.vecdot(weights, z)[:, None] / total for z in (x, y))
    xx, yy = np.vecdot(weights, x * x), np.vecdot(weights, y * y)
    constant = (xx <= total[:, 0] * noise[0] ** 2) | (yy <= total[:, 0] * noise[1] ** 2)
    return np.where(constant, 0.0, ratio(np.vecdot(weights, x * y), np.sqrt(xx * yy)))


def ranks(weights: Values, values: Values) -> Values:
    """(B, N): the rank of each value if each occurs as often as its weight; equal values share the mean rank."""
    from scipy.stats import rankdata

    codes = rankdata(values, method="dense", axis=-1) - 1
    counts = tally(weights, codes, int(codes.max()) + 1)
    middle = np.cumsum(counts, -1) - (counts - 1) / 2
    return np.take_along_axis(middle, np.broadcast_to(codes, (len(middle), codes.shape[1])), -1)


def _em(of: Scored, weights: Values, said: Values) -> Values:
    """Share of the questions without a wrong answer."""
    count = int(of.question.max()) + 1
    wrong = tally((said != of.truth).astype(float), of.question, count)
    once = np.unique(of.question[0], return_index=True)[1]
    return ratio(np.vecdot(weights[:, once], (wrong == 0).astype(float)), weights[:, once].sum(-1))


def _gender_parity(of: Scored, weights: Values, said: Values) -> Values:
    """Share of the pairs whose two members get the same prediction."""
    first, second = np.argsort(of.pair[0], kind="stable").reshape(-1, 2).T
    alike = (said[:, first] == said[:, second]).astype(float)
    return ratio(np.vecdot(weights[:, first], alike), weights[:, first].sum(-1))


Metric = Callable[[Scored, Values, Values], Values]

_METRICS: dict[str, Metric] = {
    "accuracy": _accuracy,
    "accuracy_middle": _accuracy_of("middle"),
    "accuracy_high": _accuracy_of("high"),
    "f1": _f1,
    "f1a": _f1,
    "macro_f1": _macro_f1,
    "mcc": _mcc,
    "pearson": _pearson,
    "spearman": _spearman,
    "em": _em,
    "gender_parity": _gender_parity,
}
