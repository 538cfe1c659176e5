"""The official metrics of weighted examples, thousands of resamples at once.

A resample is a row of weights: how often each example stands in it. `tasks.score` scores one in milliseconds, which is
too slow for thousands of them, several seeds and two models; a test holds every formula here against it.

    >>> scored = Scored(examples, predictions)                     # (models, N)
    >>> scored.by("f1", weights, predictions[:1])                  # (B, N) and (1, N) -> (B,)
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subarch.tasks import Example, Examples, score
from subarch.tasks.metrics import question_of

Values = NDArray[Any]


@dataclass(frozen=True)
class Scored:
    """The metrics of labelled examples for many resamples at once.

    Every metric takes weights (B or 1, N), how often each example stands, and predictions (1 or B, N), and gives (B,).
    What is resampled together (`units`) must have equal weights. `predicted` (any, N): all predictions there will be.
    """

    examples: Examples
    predicted: Values

    def by(self, metric: str, weights: Values, predictions: Values) -> Values:
        if self.examples.task.cast == "record":
            values = np.take_along_axis(self.answers[metric], predictions.T, 1).T
            return ratio(np.vecdot(weights, values), weights.sum(-1))
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
    def answers(self) -> dict[str, Values]:
        """ReCoRD: (N, choices), how right each predicted choice is, which only its text tells."""
        size = (len(self.examples), self.classes)
        found = {name: np.zeros(size) for name in self.examples.task.metrics}
        for row, said in enumerate(self.predicted.T):
            for choice in set(said.tolist()):
                for name, value in score(self.examples[row : row + 1], [choice]).items():
                    found[name][row, choice] = value
        return found


def units(examples: Examples) -> Values:
    """For each example the number, from 0, of what it is resampled with.

    Examples of one group belong together, and for scores by pair (AX-g) those of one pair.
    """
    groups = _numbered(example.group for example in examples)
    if "gender_parity" not in examples.task.metrics:
        return groups
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    # a group may reach into several pairs and a pair into several groups: what hangs together is one unit
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
    """Pearson's of weighted values, all (B or 1, N); 0 where either is constant but for rounding."""
    total = weights.sum(-1, keepdims=True)
    noise = [1e-13 * max(1.0, float(np.abs(z).max())) for z in (x, y)]
    x, y = (z - np.vecdot(weights, z)[:, None] / total for z in (x, y))
    xx, yy = np.vecdot(weights, x * x), np.vecdot(weights, y * y)
    constant = (xx <= total[:, 0] * noise[0] ** 2) | (yy <= total[:, 0] * noise[1] ** 2)
    return np.where(constant, 0.0, ratio(np.vecdot(weights, x * y), np.sqrt(xx * yy)))


def ranks(weights: Values, values: Values) -> Values:
    """(B, N): the rank of each value when each stands as often as its weight; equal ones share the mean."""
    from scipy.stats import rankdata

    codes = rankdata(values, method="dense", axis=-1) - 1
    counts = tally(weights, codes, int(codes.max()) + 1)
    middle = np.cumsum(counts, -1) - (counts - 1) / 2
    return np.take_along_axis(middle, np.broadcast_to(codes, (len(middle), codes.shape[1])), -1)


def _em(of: Scored, weights: Values, said: Values) -> Values:
    """Share of the questions of which no answer is wrong."""
    count = int(of.question.max()) + 1
    wrong = tally((said != of.truth).astype(float), of.question, count)
    once = np.unique(of.question[0], return_index=True)[1]
    return ratio(np.vecdot(weights[:, once], (wrong == 0).astype(float)), weights[:, once].sum(-1))


def _gender_parity(of: Scored, weights: Values, said: Values) -> Values:
    """Share of the pairs whose two members are predicted alike."""
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
