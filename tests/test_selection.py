"""The choice and the reasons of those who lost, against brute force."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subarch.numbers.objectives import Objective, frontier
from subarch.numbers.selection import nearest, select

P = np.array([10, 20, 20, 30, 40], dtype=np.int64)
COST = np.array([1.0, 2.0, 2.5, 4.0, 5.0])
ERROR = np.array([0.50, 0.30, 0.35, 0.199, 0.1])


def objective(name: str, **limits: float) -> Objective:
    return Objective(name, parameters_maximum=40, cost_maximum=5.0, **limits)  # type: ignore[arg-type]


@given(
    name=st.sampled_from(["w", "error", "latency"]),
    max_cost=st.none() | st.integers(1, 6),
    max_parameters=st.none() | st.integers(1, 6),
    max_error=st.integers(1, 6),
    rows=st.lists(st.tuples(*[st.integers(1, 5)] * 3), min_size=1, max_size=25),
)
def test_the_selection_is_brute_forces(
    name: str, max_cost: int | None, max_parameters: int | None, max_error: int, rows: list[tuple[int, int, int]]
) -> None:
    wanted = Objective(
        name,  # type: ignore[arg-type]
        parameters_maximum=5,
        cost_maximum=5,
        max_cost=max_cost,
        max_parameters=max_parameters,
        max_error=max_error,
    )
    p, i, e = np.array(rows).T

    def excess(row: tuple[int, int, int]) -> float:
        limits = zip(row, (max_parameters, max_cost, max_error), strict=True)
        return max(value / limit - 1 for value, limit in limits if limit is not None)

    def value(row: tuple[int, int, int]) -> float:
        return {"w": -(5 - row[0]) / 5 * ((5 - row[1]) / 5) / row[2], "error": row[2], "latency": row[1]}[name]

    chosen = select(wanted, p, i, e)
    feasible = [row for row in range(len(rows)) if excess(rows[row]) <= 0]
    assert chosen.frontier.tolist() == frontier(rows).tolist()
    if not feasible:
        assert (chosen.winner, chosen.ties) == (None, ())
        assert sorted(chosen.reasons) == list(range(len(rows)))
        assert chosen.nearest is not None
        assert chosen.nearest.excess == pytest.approx(min(map(excess, rows)))
        relaxed = {
            "max_cost": max_cost,
            "max_parameters": max_parameters,
            "max_error": max_error,
        } | chosen.nearest.limits
        admitted = Objective(name, parameters_maximum=5, cost_maximum=5, **relaxed)  # type: ignore[arg-type]
        assert math.isfinite(admitted.value(p, i, e)[chosen.nearest.index])
        return
    best = min(value(rows[row]) for row in feasible)
    ties = [row for row in feasible if value(rows[row]) == best]
    assert chosen.winner == min(ties, key=lambda row: (*rows[row], row))
    assert chosen.ties == tuple(ties)
    assert chosen.frontier[chosen.winner]
    assert chosen.nearest is None
    assert sorted([*chosen.reasons, chosen.winner]) == list(range(len(rows)))
    for row, reason in chosen.reasons.items():
        assert ("over the" in reason) == (row not in feasible)
        assert ("ties with" in reason) == (row in ties)
        assert ("dominated by" in reason) == (row in feasible and not chosen.frontier[row])


def test_reasons_are_in_plain_words() -> None:
    names = ["1-1-8-8", "2-1-8-8", "2-1-8-16", "3-1-8-8", "4-1-8-8"]
    chosen = select(objective("error", max_cost=4.2), P, COST, ERROR, names=names)
    assert chosen.winner == 3
    assert chosen.reasons == {
        0: "error 0.500 against 0.199",
        1: "error 0.300 against 0.199",
        2: "error 0.350 against 0.199; dominated by 2-1-8-8",
        4: "over the latency limit: 5.00 ms > 4.20 ms",
    }
    chosen = select(objective("latency", max_error=0.36), P * 1000, COST * 1000, ERROR, "multiply-adds", names)
    assert chosen.reasons[0] == "over the error limit: 0.500 > 0.360"
    assert chosen.reasons[2] == "operations 2,500 multiply-adds against 2,000 multiply-adds; dominated by 2-1-8-8"
    # candidates 0 and 2 both dominate 1; the winner is the one worth naming
    chosen = select(objective("error"), [10, 30, 20], [1.0, 3.0, 2.0], [0.3, 0.4, 0.2])
    assert chosen.reasons[1] == "error 0.400 against 0.200; dominated by candidate 2"
    assert select(objective("w"), P, COST, ERROR).reasons[1] == "W 1.00 against 1.20"


def test_numbers_that_differ_are_written_differently() -> None:
    chosen = select(objective("error", max_cost=4.0), P, [4.0, 4.0000001, 4, 4, 4], ERROR)
    assert chosen.reasons[1] == "over the latency limit: 4.0000001 ms > 4.0000000 ms"


def test_ties_are_kept_and_broken_by_size_then_cost_then_error_then_order() -> None:
    chosen = select(objective("error"), [20, 10, 10, 10], [1.0, 2.0, 1.5, 1.5], [0.3, 0.3, 0.3, 0.3])
    assert (chosen.winner, chosen.ties) == (2, (0, 1, 2, 3))
    assert chosen.reasons == {
        0: "ties with candidate 2, which has fewer parameters: 10.0 against 20.0",
        1: "ties with candidate 2, which has less latency: 1.50 ms against 2.00 ms; dominated by candidate 2",
        3: "ties with candidate 2 in everything; the first in order is taken",
    }
    # heads change neither parameters nor operations: the better error must win, or a dominated candidate would
    chosen = select(objective("latency", max_error=0.5), [10, 10], [1.0, 1.0], [0.4, 0.3])
    assert (chosen.winner, chosen.frontier.tolist()) == (1, [False, True])
    assert chosen.reasons[0].startswith(
        "ties with candidate 1, which has less error: 0.300 against 0.400; dominated by"
    )


def test_an_infeasible_limit_is_answered_with_the_nearest_candidate() -> None:
    chosen = select(objective("error", max_cost=0.8, max_error=0.25), P, COST, ERROR)
    assert chosen.winner is None
    assert chosen.nearest is not None
    # 0 is 25 % over the cost and 100 % over the error limit; 1 is 150 % and 20 % over
    assert chosen.nearest.index == 0
    assert chosen.nearest.limits == {"max_cost": 1.0, "max_error": 0.5}
    assert chosen.nearest.sentence == (
        "no candidate meets the limits; candidate 0 comes nearest, 100 % off "
        "(over the latency limit: 1.00 ms > 0.800 ms; over the error limit: 0.500 > 0.250)"
    )
    assert chosen.reasons[3] == "over the latency limit: 4.00 ms > 0.800 ms"


def test_nearest_answers_before_anything_is_trained() -> None:
    found = nearest(objective("error", max_cost=0.8, max_parameters=5, max_error=0.1), P, COST)
    assert (found.index, found.limits) == (0, {"max_cost": 1.0, "max_parameters": 10.0})
    with pytest.raises(ValueError, match="row 0 meets every limit"):
        nearest(objective("error", max_cost=1.0), P, COST)
    with pytest.raises(ValueError, match="one limit"):
        nearest(objective("error"), P, COST)


def test_the_selection_refuses_what_it_cannot_compare() -> None:
    with pytest.raises(ValueError, match="no trained candidate"):
        select(objective("error"), [], [], [])
    with pytest.raises(ValueError, match="row 1: the error nan"):
        select(objective("error"), [1, 2], [1.0, 2.0], [0.1, math.nan])
    with pytest.raises(ValueError, match=r"row 0: the error 0\.0 must be positive"):
        select(objective("w"), [1, 2], [1.0, 2.0], [0.0, 0.1])
    with pytest.raises(ValueError, match="1 names for 2 candidates"):
        select(objective("error"), [1, 2], [1.0, 2.0], [0.2, 0.1], names=["a"])


def test_a_single_candidate_wins() -> None:
    chosen = select(objective("w"), [40], [5.0], [0.3])
    assert (chosen.winner, chosen.ties, chosen.reasons) == (0, (0,), {})
