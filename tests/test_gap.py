"""The bound on what was skipped: where it holds, against every skipped row, and where it does not."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_tables import NAMES, all_values, random_problem, run
from subarch.numbers.architecture import Inputs
from subarch.numbers.objectives import Objective, cost_factor
from subarch.numbers.space import SearchSpace
from subarch.search import Fptas, Problem
from subarch.search.base import gap_under_total_order, optimistic_values


def maxima(objective: Objective) -> tuple[float, float]:
    return objective.parameters_maximum, objective.cost_maximum


@given(seed=st.integers(0, 100_000), name=st.sampled_from(NAMES), epsilon=st.integers(1, 12), data=st.data())
def test_under_a_total_order_the_bound_holds_for_every_skipped_row(
    seed: int, name: str, epsilon: int, data: st.DataObject
) -> None:
    problem, error = random_problem(seed, name, total_order=True)
    strategy = Fptas(problem, min(epsilon, len(problem)))
    failing = data.draw(st.frozensets(st.sampled_from(strategy.rows.tolist()))) if len(strategy.rows) else frozenset()
    rows = run(strategy, error, failing)
    known = np.full(len(problem), np.nan)
    known[rows] = error[rows]
    value = all_values(problem, error)
    assert (optimistic_values(problem, known) <= value).all()
    gap = gap_under_total_order(strategy.problem, strategy.error)
    if gap is None:  # somebody has nothing trained above
        assert not rows or (problem.affordable[max(rows) + 1 :]).any()
        return
    skipped = [row for row in np.flatnonzero(problem.affordable) if row not in rows]
    assert gap.violations == 0
    assert gap.best == value[rows].min(initial=math.inf)
    assert all(gap.bound <= value[row] for row in skipped)
    if math.isfinite(gap.best):
        assert value.min() >= gap.best - gap.absolute - 1e-12
    if gap.row is not None:
        assert gap.row in skipped


@given(seed=st.integers(0, 100_000), epsilon=st.integers(2, 12))
def test_the_bound_is_at_least_as_tight_as_the_neighbours(seed: int, epsilon: int) -> None:
    """W(ξ) <= f(ξ)/e(b) <= f(a)/e(b) for grid neighbours a < ξ < b, where the cost factor falls along the order."""
    problem, error = random_problem(seed, "w", total_order=True, limits=False)
    order = np.argsort(-cost_factor(problem.parameters, problem.cost, *maxima(problem.objective)), kind="stable")
    problem = Problem(problem.parameters[order], problem.cost[order], problem.objective)
    f = cost_factor(problem.parameters, problem.cost, *maxima(problem.objective))
    strategy = Fptas(problem, min(epsilon, len(problem)))
    rows = run(strategy, error)
    known = np.full(len(problem), np.nan)
    known[rows] = error[rows]
    bound = -optimistic_values(problem, known)
    for a, b in pairwise(rows):
        for skipped in range(a + 1, b):
            assert bound[skipped] == pytest.approx(f[skipped] / error[b])
            assert f[skipped] / error[skipped] <= bound[skipped] <= f[a] / error[b]


def test_where_the_cost_factor_rises_the_neighbours_bound_would_be_wrong() -> None:
    """Measured latency need not ascend with operations: the skipped row is faster than its neighbour below."""
    objective = Objective("w", parameters_maximum=100, cost_maximum=10.0)
    problem = Problem(np.array([50, 50, 60]), np.array([6.0, 3.0, 8.0]), objective)
    error = np.array([0.5, 0.4, 0.39])
    strategy = Fptas(problem, 3)
    assert run(strategy, error) == [0, 2]
    f = cost_factor(problem.parameters, problem.cost, *maxima(objective))
    assert f[1] / error[1] > f[0] / error[2]
    gap = gap_under_total_order(strategy.problem, strategy.error)
    assert gap is not None
    assert gap.row == 1
    assert gap.bound == pytest.approx(-f[1] / 0.39)
    assert gap.bound <= -f[1] / error[1]


def test_counterexample_a_partial_order_breaks_the_bound_invisibly() -> None:
    """Errors that fall along every step of ⟨D, H, I⟩, and a skipped candidate that is far better than the gap allows.

    1-1-128-64 costs more than 2-1-64-64, but the two are not comparable: the deep one may well have the least error.
    The trained candidates show nothing wrong.
    """
    space = SearchSpace((1, 2), (1,), (64, 128), (64,))
    costs = space.costs(Inputs(1000), length=32)
    assert [str(costs.architecture(row)) for row in range(4)] == ["1-1-64-64", "2-1-64-64", "1-1-128-64", "2-1-128-64"]
    error = np.array([0.5, 0.2, 0.4, 0.15])
    for low in range(4):
        for high in range(4):
            if (costs.table[low] <= costs.table[high]).all():
                assert error[low] >= error[high]
    maximum = float(costs.parameters.max()), float(costs.operations.max())
    objective = Objective("w", parameters_maximum=maximum[0], cost_maximum=maximum[1])
    problem = Problem(costs.parameters, costs.operations.astype(float), objective)
    strategy = Fptas(problem, epsilon=2)
    rows = run(strategy, error)
    assert rows == [0, 2, 3]
    gap = gap_under_total_order(strategy.problem, strategy.error)
    assert gap is not None
    assert (gap.row, gap.violations) == (1, 0)
    value = all_values(problem, error)
    assert value[1] < gap.bound
    assert value[1] < gap.best - gap.absolute


def test_errors_that_rise_along_the_order_void_the_bound_visibly() -> None:
    problem, _ = random_problem(3, "error", total_order=False, limits=False, size=5)
    gap = gap_under_total_order(problem, [0.5, math.nan, 0.3, 0.4, 0.2])
    assert gap is not None
    assert gap.violations == 1


def test_nothing_is_claimed_of_rows_above_the_last_trained() -> None:
    problem, error = random_problem(2, "w", total_order=True, limits=False, size=9)
    strategy = Fptas(problem, 4)
    assert gap_under_total_order(strategy.problem, strategy.error) is None
    assert run(strategy, error, failing=frozenset({8})) == [0, 4]
    assert gap_under_total_order(strategy.problem, strategy.error) is None
    # the middle one failing costs tightness only: its interval is closed by the next above
    strategy = Fptas(problem, 4)
    assert run(strategy, error, failing=frozenset({4})) == [0, 8]
    gap = gap_under_total_order(strategy.problem, strategy.error)
    assert gap is not None
    f = cost_factor(problem.parameters, problem.cost, *maxima(problem.objective))
    assert gap.bound == pytest.approx(-f[1:8].max() / error[8])


def test_least_latency_is_bounded_by_the_cheapest_that_may_meet_the_floor() -> None:
    objective = Objective("latency", parameters_maximum=10, cost_maximum=10, max_error=0.3)
    problem = Problem(np.arange(1, 8), np.arange(1.0, 8.0), objective)
    strategy = Fptas(problem, 3)
    run(strategy, np.array([0.9, 0.8, 0.7, 0.4, 0.35, 0.3, 0.2]))
    gap = gap_under_total_order(strategy.problem, strategy.error)
    assert gap is not None
    # rows 1 and 2 have e >= 0.4 and cannot meet the floor; row 4 has e >= 0.2 and might, at 5 against 7
    assert (gap.row, gap.bound, gap.best, gap.absolute) == (4, 5.0, 7.0, 2.0)
