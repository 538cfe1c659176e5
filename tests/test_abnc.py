"""The AB^nC check, against brute force over all pairs, and the rank agreement, against scipy."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kendalltau

from subarch.numbers.abnc import Condition, check, neighbours, rank_agreement, verdict
from subarch.numbers.architecture import Inputs
from subarch.numbers.space import SearchSpace

MINILM = Inputs(30522, output=384)
PAPER = Inputs(50265, positions=514, token_types=1)

NAMES = [
    "growth of parameters",
    "growth of operations",
    "share of embeddings",
    "order of parameters",
    "order of operations",
    "total order",
    "heads",
    "bounded gradients",
    "compact weights",
    "errors keep their order",
]


def conditions(space: SearchSpace | str, inputs: Inputs, length: int = 128) -> dict[str, Condition]:
    found = check(SearchSpace.load(space) if isinstance(space, str) else space, inputs, length)
    assert [condition.name for condition in found] == NAMES
    return {condition.name: condition for condition in found}


small_axis = st.lists(st.integers(1, 12), min_size=1, max_size=3)
small_spaces = st.builds(
    lambda depth, heads, hidden, intermediate: SearchSpace(
        tuple(depth), (1, *heads) if min(heads) > 2 else tuple(heads), tuple(hidden), tuple(intermediate)
    ),
    st.lists(st.integers(0, 4), min_size=1, max_size=4),
    st.lists(st.integers(1, 4), min_size=1, max_size=2),
    st.lists(st.sampled_from([4, 6, 7, 8, 12]), min_size=1, max_size=4).map(lambda values: [*values, 12]),
    small_axis,
)


@given(space=small_spaces, output=st.sampled_from([0, 6, 8, 12, 500]), vocabulary=st.sampled_from([1, 50]))
def test_orders_are_what_brute_force_over_all_pairs_finds(space: SearchSpace, output: int, vocabulary: int) -> None:
    inputs = Inputs(vocabulary, positions=4, token_types=1, output=output)
    costs = space.costs(inputs, 5)
    shapes = costs.table[:, [0, 2, 3]]
    below = (shapes[:, None] <= shapes[None, :]).all(axis=2)
    found = conditions(space, inputs, 5)
    for what in ("parameters", "operations"):
        cost = getattr(costs, what)
        assert found[f"order of {what}"].holds == (not (below & (cost[:, None] > cost[None, :])).any())
    distinct = {tuple(shape) for shape in shapes.tolist()}
    assert found["heads"].holds == (len(distinct) == len(costs))
    assert found["heads"].value == pytest.approx(len(costs) / len(distinct))
    if found["total order"].holds:
        assert (below | below.T).all()


@given(space=small_spaces)
def test_neighbours_reach_every_comparable_pair(space: SearchSpace) -> None:
    shapes, lower, upper = neighbours(space)
    assert sorted(map(tuple, shapes.tolist())) == sorted({(d, h, i) for d, _, h, i in space.table.tolist()})
    assert (shapes[lower] <= shapes[upper]).all()
    reach = np.eye(len(shapes), dtype=int)
    reach[lower, upper] = 1
    for _ in range(len(shapes)):
        reach = np.minimum(1, reach @ reach)
    assert (reach == (shapes[:, None] <= shapes[None, :]).all(axis=2)).all()


def test_a_smaller_vocabulary_has_more_operations() -> None:
    space = SearchSpace((1, 2), (2,), (16,), (32,), vocabulary=(0, 100))
    found = {one.name: one for one in check(space, Inputs(500), 8, {100: 12})}
    assert found["operations by vocabulary"].holds is False
    assert found["operations by vocabulary"].value == 1.5
    assert "one of 100 makes 12" in found["operations by vocabulary"].sentence
    assert found["heads"].holds is True
    assert found["total order"].sentence.startswith("Of candidates next to each other in cost")
    assert "⟨D, H, I, V⟩" in found["total order"].sentence or found["total order"].holds
    same = {one.name: one for one in check(space, Inputs(500), 8, {100: 8})}
    assert same["operations by vocabulary"].holds is True


def test_the_output_map_vanishes_where_widths_agree_and_breaks_the_order_of_operations() -> None:
    found = conditions("minilm", MINILM)
    assert found["order of parameters"].holds is True
    order = found["order of operations"]
    assert order.holds is False
    assert "⟨0, 384, 0⟩ has 0, ⟨0, 256, 0⟩ has 98,304" in order.sentence
    assert order.value is not None
    assert 0 < order.value < 0.01
    assert conditions("minilm", Inputs(30522))["order of operations"].holds is True
    # with few tokens the map's parameters outweigh a step in H as well
    assert conditions("minilm", Inputs(10, positions=8, output=384))["order of parameters"].holds is False


def test_growth_and_shares_are_the_closed_forms() -> None:
    found = conditions("paper", PAPER)
    embeddings = [(50265 + 514 + 1 + 2) * hidden for hidden in (512, 768, 1024)]
    layers = [
        2 * (4 * 512 * 512 + 2 * 512 * 256 + 256 + 9 * 512),
        12 * (4 * 1024 * 1024 + 2 * 1024 * 3072 + 3072 + 9 * 1024),
    ]
    growth = found["growth of parameters"]
    assert growth.holds is True
    assert growth.value == pytest.approx((embeddings[2] - embeddings[0]) / (layers[1] - layers[0]))
    assert found["growth of operations"].value == 0
    share = found["share of embeddings"]
    smallest, largest = embeddings[0] / (embeddings[0] + layers[0]), embeddings[2] / (embeddings[2] + layers[1])
    assert f"{100 * smallest:.0f} % of 2-4-512-256, the smallest" in share.sentence
    assert f"{100 * largest:.0f} % of 12-16-1024-3072, the largest" in share.sentence
    assert share.value is not None
    assert smallest > share.value > largest
    assert share.value == pytest.approx(0.607, abs=0.001)
    assert share.holds is False
    assert "the property is weak" in share.sentence


def test_a_large_vocabulary_at_small_width_makes_the_property_weak() -> None:
    space = SearchSpace((1, 2), (1,), (64, 128), (64, 128))
    large, small = conditions(space, Inputs(30522)), conditions(space, Inputs(100, positions=32))
    assert large["share of embeddings"].holds is False
    assert "the property is weak" in large["share of embeddings"].sentence
    assert large["growth of parameters"].holds is False
    assert small["share of embeddings"].holds is True
    assert "weak" not in small["share of embeddings"].sentence
    assert small["growth of parameters"].holds is True


def test_a_chain_is_ordered_totally() -> None:
    chain = conditions(SearchSpace((1, 2, 3, 4), (2,), (64,), (64,)), Inputs(100))
    assert (chain["total order"].holds, chain["total order"].value) == (True, 1.0)
    partial = conditions("paper", PAPER)["total order"]
    assert partial.holds is False
    assert partial.value is not None
    assert 0 < partial.value < 1


@pytest.mark.parametrize("space", [SearchSpace((2,), (2,), (64,), (64,)), SearchSpace((0,), (1,), (64, 96), (1,))])
def test_degenerate_spaces_are_answered(space: SearchSpace) -> None:
    found = conditions(space, Inputs(100, output=64))
    assert found["heads"].holds is True
    assert found["growth of parameters"].value is None
    assert found["growth of parameters"].holds is (len(space) == 1)


def test_what_cannot_be_checked_says_so_and_the_verdict_names_all() -> None:
    found = check(SearchSpace.load("minilm"), MINILM, 128)
    assert [condition.name for condition in found if condition.holds is None] == NAMES[-3:]
    text = verdict(found)
    assert text.startswith("Of the 7 conditions that can be checked 3 hold (growth of parameters, growth of operations")
    for condition in found:
        assert (condition.sentence in text) == (condition.holds is False)
        assert condition.name in text or condition.holds is False
    assert "no guarantee" in text
    ideal = [condition for condition in found if condition.holds is not False]
    assert "no guarantee" not in verdict(ideal)


def test_a_million_candidates_are_checked_quickly() -> None:
    space = SearchSpace(tuple(range(50)), (1, 2, 4, 8), tuple(range(16, 416, 16)), tuple(range(10, 2010, 10)))
    assert len(space) == 980_025
    start = time.perf_counter()
    conditions(space, MINILM)
    assert time.perf_counter() - start < 5


# --- rank agreement -------------------------------------------------------------------------------------------------

errors = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=3, max_size=30)


@settings(max_examples=50)
@given(errors, st.integers(0, 100))
def test_tau_is_scipys(rows: list[tuple[int, int]], seed: int) -> None:
    short, long = np.array(rows, dtype=float).T
    if len(set(short)) == 1 or len(set(long)) == 1:
        with pytest.raises(ValueError, match="no order to compare"):
            rank_agreement(short, long)
        return
    found = rank_agreement(short, long, seed, resamples=50)
    assert found.tau == pytest.approx(kendalltau(short, long).statistic)
    assert found.candidates == len(rows)
    assert -1 <= found.low <= found.high <= 1
    # the same resamples, each through scipy
    count = len(rows)
    counts = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=50)
    drawn = [np.repeat(np.arange(count), row) for row in counts]
    taus = np.array([kendalltau(short[rows_], long[rows_]).statistic for rows_ in drawn])
    low, high = np.percentile(taus[~np.isnan(taus)], [2.5, 97.5])
    assert (found.low, found.high) == pytest.approx((low, high))


def test_agreement_is_reproducible_and_bounded_by_perfect_order() -> None:
    rng = np.random.default_rng(0)
    long = rng.random(24)
    noisy = long + 0.5 * rng.random(24)
    assert rank_agreement(noisy, long) == rank_agreement(noisy, long)
    assert rank_agreement(noisy, long, seed=1) != rank_agreement(noisy, long)
    found = rank_agreement(noisy, long)
    assert found.low < found.tau < found.high
    perfect = rank_agreement(long**3, long)
    assert (perfect.tau, perfect.low, perfect.high) == (1.0, 1.0, 1.0)
    assert rank_agreement(-long, long).tau == -1.0


@pytest.mark.parametrize(
    ("short", "long", "message"),
    [
        ([0.1, 0.2], [0.1, 0.2], "2 candidates means nothing"),
        ([0.1, 0.2, 0.3], [0.1, 0.2], "one length"),
        ([0.1, math.nan, 0.3], [0.1, 0.2, 0.3], "row 1: the short run's error nan"),
        ([0.1, 0.2, 0.3], [0.1, 0.2, math.inf], "row 2: the long run's error inf"),
        ([0.1, 0.2, 0.3], [0.2, 0.2, 0.2], "all long runs have the error 0.2"),
    ],
)
def test_agreement_of_nothing_is_refused(short: list[float], long: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        rank_agreement(short, long)


def test_agreement_of_three_hundred_candidates_is_fast() -> None:
    rng = np.random.default_rng(0)
    start = time.perf_counter()
    rank_agreement(rng.random(300), rng.random(300))
    assert time.perf_counter() - start < 3
