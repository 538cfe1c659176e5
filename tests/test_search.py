"""Strategies against brute force on random tables, in any order of tells, with failures and bad input."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from search_tables import NAMES, all_values, random_problem, run
from subarch.errors import InvalidConfig
from subarch.numbers.objectives import Objective
from subarch.numbers.selection import select
from subarch.search import Exhaustive, Fptas, Problem, Strategy
from subarch.search.base import Gap, gap_under_total_order

STRATEGIES = ("exhaustive", "fptas")


def make(name: str, problem: Problem, epsilon: int = 1) -> Exhaustive | Fptas:
    return Fptas(problem, epsilon) if name == "fptas" else Exhaustive(problem)


def gap_of(strategy: Exhaustive | Fptas) -> Gap | None:
    return gap_under_total_order(strategy.problem, strategy.error)


def winner(problem: Problem, error: np.ndarray, rows: list[int]) -> int | None:
    """Row of the space that wins among the trained."""
    chosen = select(problem.objective, problem.parameters[rows], problem.cost[rows], error[rows])
    return None if chosen.winner is None else rows[chosen.winner]


@given(seed=st.integers(0, 100_000), name=st.sampled_from(NAMES), total_order=st.booleans())
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_with_epsilon_one_the_optimum_is_found(strategy: str, seed: int, name: str, total_order: bool) -> None:
    problem, error = random_problem(seed, name, total_order)
    searched = make(strategy, problem, epsilon=1)
    rows = run(searched, error)
    assert rows == np.flatnonzero(problem.affordable).tolist()
    value = all_values(problem, error)
    assume(rows)
    found = winner(problem, error, rows)
    assert (found is None) == math.isinf(value.min())
    if found is not None:
        assert value[found] == value.min()
        chosen = select(problem.objective, problem.parameters[rows], problem.cost[rows], error[rows])
        assert [rows[tie] for tie in chosen.ties] == np.flatnonzero(value == value.min()).tolist()
    gap = gap_of(searched)
    assert gap is not None
    assert (gap.bound, gap.best, gap.absolute, gap.row) == (math.inf, value.min(), 0.0, None)


@pytest.mark.parametrize(
    ("length", "epsilon", "grid"),
    [(8, 1, [0, 1, 2, 3, 4, 5, 6, 7]), (8, 3, [0, 3, 6, 7]), (7, 3, [0, 3, 6]), (8, 8, [0, 7]), (1, 1, [0])],
)
def test_the_grid(length: int, epsilon: int, grid: list[int]) -> None:
    objective = Objective("error", parameters_maximum=100, cost_maximum=100)
    problem = Problem(np.arange(1, length + 1), np.arange(length, dtype=float), objective)
    assert Fptas(problem, epsilon).rows.tolist() == grid


def test_the_grid_is_laid_over_affordable_candidates() -> None:
    objective = Objective("error", parameters_maximum=9, cost_maximum=9, max_cost=6.0)
    problem = Problem(np.arange(1, 9), np.array([0.0, 1, 9, 2, 3, 4, 9, 6]), objective)
    assert Fptas(problem, 2).rows.tolist() == [0, 3, 5, 7]
    assert Fptas(problem, 8).rows.tolist() == [0, 7]
    assert Exhaustive(problem).rows.tolist() == [0, 1, 3, 4, 5, 7]


@pytest.mark.parametrize("epsilon", [0, -1, 9, 2.0, True, "2"])
def test_an_epsilon_outside_the_space_is_refused(epsilon: int) -> None:
    objective = Objective("error", parameters_maximum=9, cost_maximum=9)
    problem = Problem(np.arange(1, 9), np.arange(8, dtype=float), objective)
    with pytest.raises(InvalidConfig, match=r"from 1 \(train all\) to \|Ξ\| = 8"):
        make("fptas", problem, epsilon)


@given(seed=st.integers(0, 100_000), name=st.sampled_from(NAMES), workers=st.integers(1, 5), data=st.data())
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_order_of_tells_changes_nothing(
    strategy: str, seed: int, name: str, workers: int, data: st.DataObject
) -> None:
    problem, error = random_problem(seed, name, total_order=False)
    epsilon = min(3, len(problem))
    alone, shared = make(strategy, problem, epsilon), make(strategy, problem, epsilon)
    failing = frozenset(range(0, len(problem), 5))
    expected = run(alone, error, failing)
    trained: list[int] = []
    running: list[int] = []
    while not shared.done:
        while len(running) < workers and (row := shared.ask()) is not None:
            running.append(row)
        row = running.pop(data.draw(st.integers(0, len(running) - 1)))
        if row in failing:
            shared.fail(row)
        else:
            shared.tell(row, float(error[row]))
            trained.append(row)
    assert sorted(trained) == expected
    assert gap_of(shared) == gap_of(alone)


def ask_twice(strategy: Strategy) -> None:
    assert (strategy.ask(), strategy.ask()) == (0, 1)


@pytest.mark.parametrize(
    ("misuse", "message"),
    [
        (lambda s: s.tell(0, math.nan), "row 0: an error of nan"),
        (lambda s: s.tell(0, math.inf), "row 0: an error of inf"),
        (lambda s: s.tell(0, 0.0), "row 0: an error of 0.0"),
        (lambda s: s.tell(5, 0.1), "row 5 is not awaited"),
        (lambda s: s.fail(5), "row 5 is not awaited"),
        (lambda s: (s.tell(0, 0.1), s.tell(0, 0.1)), "row 0 is not awaited"),
        (lambda s: (s.fail(1), s.tell(1, 0.1)), "row 1 is not awaited"),
    ],
)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_bad_tells_are_refused(strategy: str, misuse: Callable[[Strategy], None], message: str) -> None:
    problem, _ = random_problem(1, "w", total_order=False, limits=False, size=8)
    searched = make(strategy, problem)
    ask_twice(searched)
    with pytest.raises(ValueError, match=message):
        misuse(searched)


def test_a_refused_error_can_still_be_reported_as_failed() -> None:
    problem, _ = random_problem(1, "error", total_order=False, limits=False, size=2)
    strategy = make("exhaustive", problem)
    ask_twice(strategy)
    with pytest.raises(ValueError, match="report the training as failed"):
        strategy.tell(0, math.nan)
    strategy.fail(0)
    assert not strategy.done
    strategy.tell(1, 0.0)  # no W, no division
    assert strategy.done
    gap = gap_of(strategy)
    assert gap is not None
    assert (gap.row, gap.bound, gap.best, gap.absolute) == (0, 0.0, 0.0, 0.0)


def test_limits_that_exclude_everybody_end_the_search_at_once() -> None:
    objective = Objective("error", parameters_maximum=10, cost_maximum=10, max_cost=0.5)
    problem = Problem(np.arange(1, 4), np.arange(1.0, 4.0), objective)
    for name in STRATEGIES:
        strategy = make(name, problem, 2)
        assert strategy.done
        assert strategy.ask() is None
        gap = gap_of(strategy)
        assert gap is not None
        assert (gap.bound, gap.best, gap.absolute, gap.row) == (math.inf, math.inf, 0.0, None)


def test_bad_problems_are_refused() -> None:
    objective = Objective("error", parameters_maximum=10, cost_maximum=10)
    with pytest.raises(ValueError, match="at least one candidate"):
        Problem(np.zeros(0, dtype=np.int64), np.zeros(0), objective)
    with pytest.raises(ValueError, match="one length"):
        Problem(np.arange(3), np.zeros(2), objective)
    with pytest.raises(ValueError, match="row 1: the cost nan"):
        Problem(np.arange(2), np.array([0.0, math.nan]), objective)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_million_candidates(strategy: str) -> None:
    size = 1_000_000
    objective = Objective("w", parameters_maximum=2.0 * size, cost_maximum=2.0 * size, max_cost=0.9 * size)
    problem = Problem(np.arange(1, size + 1), np.arange(1.0, size + 1), objective)
    searched = make(strategy, problem, epsilon=1000)
    seconds = []
    for _ in range(100):
        start = time.perf_counter()
        row = searched.ask()
        assert row is not None
        searched.tell(row, 1.0)
        seconds.append(time.perf_counter() - start)
    assert np.median(seconds) < 0.05
    start = time.perf_counter()
    assert gap_of(searched) is None
    assert time.perf_counter() - start < 2
