"""Scores of resamples against `tasks.score` on the resampled rows; intervals and tests against SciPy and by hand."""

from __future__ import annotations

import itertools
import warnings
from typing import Any

import numpy as np
import pytest
from scipy import stats

from subarch.errors import InvalidTask
from subarch.evaluation.resampling import Scored, compare, compare_means, intervals, mean_intervals, units
from subarch.tasks import TASKS, Examples, score
from subarch.tasks.examples import Example
from task_layouts import BENCHMARKS, example

ENTITIES = ("The Bob, Ray", "Bob", "Ann", "Ray Ann")


def part_of(task: str, rows: int = 24, seed: int = 0) -> tuple[Examples, np.ndarray[Any, Any]]:
    """Random labels in groups of different sizes, and two rows of random predictions, right about half of the time."""
    source = np.random.default_rng(seed)
    made, labels = TASKS[task], []
    examples = []
    for n in range(rows):
        group, name = f"{('middle', 'high')[n % 2]}{n // 4}", str(n)
        if made.head == "regression":
            label = float(source.integers(0, 5)) / 2  # ties
        else:
            label = int(source.integers(len(made.labels) or 3))
        if made.cast == "multirc":
            group, name = f"p{n // 6}", f"{n // 6}-{n // 2}-{n}"
        if task == "ax-g":
            group = f"g{n // 5}"
        choices = ENTITIES if made.cast == "record" else tuple("abcd")
        golds = (ENTITIES[label], "Bob Ray") if made.cast == "record" else ()
        examples.append(example(name, label, group=group, choices=choices, golds=golds))
        labels.append(label)
    truth = np.asarray(labels, float)
    others = np.asarray([source.permutation(truth) for _ in range(2)])
    predictions = np.where(source.random((2, rows)) < 0.5, truth, others)
    return Examples(made, "validation", "here", tuple(examples)), predictions


def silent(examples: Examples, predictions: Any) -> dict[str, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return score(examples, predictions)


@pytest.mark.parametrize("task", BENCHMARKS)
def test_weighted_scores_are_those_of_the_resampled_rows(task: str) -> None:
    examples, predictions = part_of(task)
    unit = units(examples)
    source = np.random.default_rng(1)
    counts = source.multinomial(unit.max() + 1, np.full(unit.max() + 1, 1 / (unit.max() + 1)), size=12)
    weights = counts[:, unit]
    scored = Scored(examples, predictions.astype(int if examples.task.head != "regression" else float))
    for metric in examples.task.metrics:
        found = scored.by(metric, weights.astype(float), scored.predicted[:1])
        for row, value in zip(weights, found, strict=True):
            at = np.repeat(np.arange(len(examples)), row)
            again = Examples(examples.task, examples.part, examples.source, tuple(examples[int(n)] for n in at))
            assert value == pytest.approx(silent(again, predictions[0][at])[metric], abs=1e-12)


@pytest.mark.parametrize("task", BENCHMARKS)
def test_scores_of_many_predictions_at_once(task: str) -> None:
    examples, predictions = part_of(task)
    mixed = np.where(np.random.default_rng(2).random((9, len(examples))) < 0.5, *predictions)
    mixed[0] = predictions[0][0]  # a constant: correlations are not defined
    scored = Scored(examples, mixed.astype(int if examples.task.head != "regression" else float))
    for metric in examples.task.metrics:
        found = scored.by(metric, np.ones((1, len(examples))), scored.predicted)
        expected = [silent(examples, row)[metric] for row in mixed]
        assert found == pytest.approx(expected, abs=1e-12)


def test_what_belongs_together_is_resampled_together() -> None:
    def groups(task: str, *rows: tuple[str, str]) -> list[int]:
        examples = tuple(example(name, 0, group=group) for name, group in rows)
        return list(units(Examples(TASKS[task], "test", "here", examples)))

    assert groups("rte", ("0", "b"), ("1", "a"), ("2", "b")) == [1, 0, 1]
    # pairs (0, 1), (2, 3), (4, 5); the group x spans the first two
    found = groups("ax-g", ("0", "u"), ("1", "x"), ("2", "x"), ("3", "v"), ("4", "w"), ("5", "z"))
    assert len({*found[:4]}) == 1
    assert found[4] == found[5] != found[0]


def binary(right: np.ndarray[Any, Any], groups: int | None = None) -> tuple[Examples, np.ndarray[Any, Any]]:
    """Rows of sst2 whose predictions are right where `right` says so, `groups` rows a group."""
    rows = tuple(example(str(n), n % 2, group=str(n // (groups or 1))) for n in range(right.shape[-1]))
    truth = np.arange(right.shape[-1]) % 2
    return Examples(TASKS["sst2"], "validation", "here", rows), np.where(right, truth, 1 - truth)


def test_an_interval_is_that_of_scipy() -> None:
    right = np.random.default_rng(0).random(300) < 0.8
    found = intervals(*binary(right), resamples=20_000)
    metric = found.metrics["accuracy"]
    expected = stats.bootstrap(
        (right,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    assert metric.value == right.mean()
    assert (metric.low, metric.high) == pytest.approx((expected.low, expected.high), abs=0.004)
    assert metric.seeds == (metric.value,)
    assert metric.deviation is None
    assert {name: getattr(found, name) for name in ("examples", "groups", "n_seeds", "level", "resamples")} == {
        "examples": 300, "groups": 300, "n_seeds": 1, "level": 0.95, "resamples": 20_000,
    }  # fmt: skip


def test_rows_that_stand_or_fall_together_make_intervals_wider() -> None:
    once = np.random.default_rng(0).random(100) < 0.7
    alone = intervals(*binary(once)).metrics["accuracy"]
    together = intervals(*binary(np.repeat(once, 4), groups=4))
    # four copies of each row tell nothing new: the very same draws
    assert together.metrics["accuracy"] == alone
    assert (together.examples, together.groups) == (400, 100)
    apart = intervals(*binary(np.repeat(once, 4))).metrics["accuracy"]
    assert apart.high - apart.low == pytest.approx((alone.high - alone.low) / 2, rel=0.2)


def test_seeds_that_differ_widen_the_interval() -> None:
    right = np.random.default_rng(0).random((1, 400)) < np.array([[0.6], [0.7], [0.8]])
    examples, predictions = binary(right)
    found = intervals(examples, predictions).metrics["accuracy"]
    assert found.seeds == tuple(right.mean(1))
    assert found.deviation == pytest.approx(np.std(right.mean(1), ddof=1))
    single = [intervals(examples, row).metrics["accuracy"] for row in predictions]
    assert found.value == pytest.approx(np.mean([one.value for one in single]))
    assert found.high - found.low > 1.5 * max(one.high - one.low for one in single)
    alike = intervals(examples, predictions[[1, 1, 1]]).metrics["accuracy"]
    assert (alike.low, alike.high) == pytest.approx((single[1].low, single[1].high))


def test_the_same_seed_gives_the_same_figures_and_portions_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    examples, predictions = part_of("stsb")
    assert intervals(examples, predictions, seed=3) != intervals(examples, predictions, seed=4)
    whole = intervals(examples, predictions, resamples=50), compare(examples, *predictions, resamples=50)
    monkeypatch.setattr("subarch.evaluation.resampling.CELLS", 7 * len(examples))
    assert (intervals(examples, predictions, resamples=50), compare(examples, *predictions, resamples=50)) == whole


def test_a_comparison_of_one_seed_is_exact_where_all_swaps_can_be_listed() -> None:
    # ours is right on four more groups, theirs on one; of 2^5 swaps those as extreme: 5 or 0 ours (2), 4 or 1 (10)
    ours = np.array([[1, 1, 1, 1, 0] + [1] * 15], bool)[0]
    theirs = np.array([[0, 0, 0, 0, 1] + [1] * 15], bool)[0]
    examples, first = binary(ours)
    found = compare(examples, first, binary(theirs)[1], resamples=20_000)
    metric = found.metrics["accuracy"]
    assert metric.difference == pytest.approx(3 / 20)
    assert metric.p_examples == pytest.approx(12 / 32, abs=0.015)
    assert metric.p_seeds is found.p_seeds_least is None
    differences = ours.astype(float) - theirs
    expected = stats.bootstrap(
        (differences,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(5)
    ).confidence_interval
    assert (metric.low, metric.high) == pytest.approx((expected.low, expected.high), abs=0.051)
    other = compare(examples, binary(theirs)[1], first, resamples=20_000).metrics["accuracy"]
    assert (other.difference, other.low, other.high) == pytest.approx((-metric.difference, -metric.high, -metric.low))


def test_a_model_does_not_differ_from_itself() -> None:
    for task in ("mrpc", "stsb", "ax-g", "multirc", "record"):
        examples, predictions = part_of(task)
        for metric in compare(examples, predictions[0], predictions[0], resamples=200).metrics.values():
            assert (metric.difference, metric.low, metric.high, metric.p_examples) == (0, 0, 0, 1)


def test_the_seeds_own_test() -> None:
    share = np.array([[0.8], [0.82], [0.84]])
    source = np.random.default_rng(0)
    examples, ours = binary(source.random((3, 500)) < share)
    _, theirs = binary(source.random((3, 500)) < share - 0.2)
    found = compare(examples, ours, theirs, resamples=400)
    metric = found.metrics["accuracy"]
    # all three of ours above all three of theirs: the most extreme two of the 20 ways to divide six
    assert metric.p_seeds == found.p_seeds_least == pytest.approx(2 / 20)
    assert metric.p_examples == pytest.approx(1 / 401)
    assert 0 < metric.low < metric.difference < metric.high
    scores = {"a": [0.7, 0.9], "b": [0.8, 0.6]}
    ways = [
        abs(sum(pool[n] for n in kept) - sum(pool[n] for n in range(4) if n not in kept))
        for pool in [scores["a"] + scores["b"]]
        for kept in itertools.combinations(range(4), 2)
    ]
    examples, ours = binary(np.arange(10) < 10 * np.array([[0.7], [0.9]]))
    _, theirs = binary(np.arange(10) < 10 * np.array([[0.8], [0.6]]))
    expected = np.mean([way >= 0.2 - 1e-9 for way in ways])
    assert compare(examples, ours, theirs, resamples=20).metrics["accuracy"].p_seeds == pytest.approx(expected)


def test_the_test_keeps_its_level() -> None:
    """Of two models that err alike a share of about 5 % is called different at 5 %."""
    source = np.random.default_rng(0)
    found = []
    for _ in range(200):
        examples, predictions = binary(source.random((2, 60)) < 0.7)
        found.append(compare(examples, *predictions, resamples=99).metrics["accuracy"].p_examples)
    assert np.mean(np.array(found) <= 0.05) < 0.05 + 3 * (0.05 * 0.95 / 200) ** 0.5


def test_refused() -> None:
    examples, predictions = part_of("rte")
    with pytest.raises(InvalidTask, match="1 seeds against 2"):
        compare(examples, predictions[0], predictions)
    unlabelled = Examples(TASKS["rte"], "test", "here", (Example("0", "g", ("x",)),))
    with pytest.raises(InvalidTask, match="cannot be scored"):
        intervals(unlabelled, [0])
    with pytest.raises(InvalidTask, match=r"predictions of shape \(3,\)"):
        intervals(examples, [0, 0, 0])


def test_means_of_queries() -> None:
    """Their intervals are SciPy's; differences are those of the pairs, which are narrower than the two alone."""
    draw = np.random.default_rng(5)
    ours = draw.beta(2, 3, size=80)
    theirs = np.clip(ours + draw.normal(0.03, 0.05, size=80), 0, 1)
    found = mean_intervals({"a": ours, "b": theirs}, resamples=5000)
    for name, values in (("a", ours), ("b", theirs)):
        metric = found.metrics[name]
        expected = stats.bootstrap((values,), np.mean, n_resamples=5000, method="percentile", rng=1)
        assert metric.value == pytest.approx(values.mean())
        assert (metric.low, metric.high) == pytest.approx(tuple(expected.confidence_interval), abs=0.004)
    compared = compare_means({"a": ours}, {"a": theirs}, resamples=5000)
    pair = compared.metrics["a"]
    expected = stats.bootstrap((ours - theirs,), np.mean, n_resamples=5000, method="percentile", rng=1)
    assert pair.difference == pytest.approx((ours - theirs).mean())
    assert (pair.low, pair.high) == pytest.approx(tuple(expected.confidence_interval), abs=0.002)
    tested = stats.permutation_test(
        (ours[:12], theirs[:12]), lambda a, b, axis: np.mean(a - b, axis=axis), permutation_type="samples"
    )
    few = compare_means({"a": ours[:12]}, {"a": theirs[:12]}, resamples=20_000).metrics["a"]
    assert few.p_examples == pytest.approx(tested.pvalue, abs=0.015)
    assert 0.01 < tested.pvalue < 0.99
    assert (compared.groups, compared.n_seeds, compared.p_seeds_least) == (80, 1, None)


def test_means_of_one_query() -> None:
    found = mean_intervals({"a": [0.5]}).metrics["a"]
    assert (found.value, found.low, found.high) == (0.5, 0.5, 0.5)
