"""Objectives and dominance, against brute force and the paper's formula."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subarch.errors import InvalidConfig
from subarch.numbers.objectives import Objective, dominators, frontier, w_coefficient, w_warning

P = np.array([10, 20, 20, 30, 40], dtype=np.int64)
COST = np.array([1.0, 2.0, 2.5, 4.0, 5.0])
ERROR = np.array([0.50, 0.30, 0.35, 0.199, 0.1])


def objective(name: str, **limits: float) -> Objective:
    return Objective(name, parameters_maximum=40, cost_maximum=5.0, **limits)  # type: ignore[arg-type]


def brute_frontier(points: np.ndarray) -> list[bool]:
    return [not any((q <= p).all() and (q < p).any() for q in points) for p in points]


# --- W ------------------------------------------------------------------------------------------------------------


def test_w_is_the_published_formula() -> None:
    expected = [(40 - p) / 40 * (5.0 - i) / 5.0 * 1 / e for p, i, e in zip(P, COST, ERROR, strict=True)]
    assert w_coefficient(P, COST, ERROR, 40, 5.0) == pytest.approx(expected)
    assert w_coefficient(P, COST, ERROR, 40, 5.0)[-1] == 0  # W(T, T) = 0 by construction
    assert objective("w").value(P, COST, ERROR) == pytest.approx([-w for w in expected])


@pytest.mark.parametrize(("row", "bad"), [(0, 0.0), (2, -0.1), (3, math.nan), (4, math.inf)])
def test_w_names_the_row_of_a_bad_error(row: int, bad: float) -> None:
    error = ERROR.copy()
    error[row] = bad
    with pytest.raises(ValueError, match=f"row {row}: the error"):
        w_coefficient(P, COST, error, 40, 5.0)
    with pytest.raises(ValueError, match=f"row {row}: the error"):
        objective("w").value(P, COST, error)


def test_w_refuses_columns_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="error has shape"):
        w_coefficient(P, COST, ERROR[:-1], 40, 5.0)
    with pytest.raises(ValueError, match="one length"):
        w_coefficient(P[:-1], COST, ERROR, 40, 5.0)
    # (-1)(-1) > 0: a candidate larger than T would win
    with pytest.raises(ValueError, match=r"row 4: parameters 40.0 exceed p\(T\) = 39"):
        w_coefficient(P, COST, ERROR, 39, 5.0)
    with pytest.raises(ValueError, match=r"row 4: the cost 5.0 exceeds i\(T\) = 4.9"):
        w_coefficient(P, COST, ERROR, 40, 4.9)


def test_w_with_a_bounded_error_is_warned_about() -> None:
    assert "Prefer the least error under limits" in str(w_warning("w", "embedding"))
    assert w_warning("w", "task") is not None
    assert w_warning("w", "mlm") is None
    assert w_warning("error", "embedding") is None


# --- objectives and limits ------------------------------------------------------------------------------------------


def test_limits_go_with_every_objective() -> None:
    limits = {"max_cost": 4.0, "max_parameters": 25, "max_error": 0.32}
    met = (COST <= 4.0) & (P <= 25) & (ERROR <= 0.32)
    assert met.tolist() == [False, True, False, False, False]
    for name, plain in (("w", -w_coefficient(P, COST, ERROR, 40, 5.0)), ("error", ERROR), ("latency", COST)):
        value = objective(name, **limits).value(P, COST, ERROR)
        assert value.tolist() == np.where(met, plain, np.inf).tolist()
    assert objective("error", **limits).affordable(P, COST).tolist() == [True, True, True, False, False]
    assert objective("error").affordable(P, COST).all()


def test_a_limit_on_the_file_goes_with_every_objective_too() -> None:
    size = np.array([9.0, 1.0, 8.0, 8.1, 2.0])
    met = size <= 8.0
    for name, more in (("w", {}), ("error", {}), ("latency", {"max_error": 1.0})):
        wanted, free = objective(name, max_megabytes=8.0, **more), objective(name, **more)
        assert wanted.affordable(P, COST, size).tolist() == met.tolist()
        plain = free.value(P, COST, ERROR)
        assert wanted.value(P, COST, ERROR, size).tolist() == np.where(met, plain, np.inf).tolist()
        assert wanted.bound(P, COST, ERROR, size).tolist() == np.where(met, plain, np.inf).tolist()
        even = np.where(met, free.break_even(P, COST, -0.5), -np.inf)
        assert wanted.break_even(P, COST, -0.5, size).tolist() == even.tolist()
        for wrong in (None, size[:3]):
            with pytest.raises(ValueError, match="a limit on megabytes needs a column of them"):
                wanted.affordable(P, COST, wrong)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("speed", {}, "choose w, error or latency"),
        ("error", {"max_cost": 0.0}, "max_cost is 0.0"),
        ("error", {"max_parameters": -1}, "max_parameters is -1"),
        ("error", {"max_megabytes": 0.0}, "max_megabytes is 0.0"),
        ("error", {"max_error": math.nan}, "max_error is nan"),
        ("latency", {}, "needs a limit on the error"),
        ("w", {"cost_maximum": 0.0}, "must be positive"),
    ],
)
def test_impossible_objectives_are_refused(name: str, settings: dict[str, float], message: str) -> None:
    with pytest.raises(InvalidConfig, match=message):
        Objective(name, **({"parameters_maximum": 40.0, "cost_maximum": 5.0} | settings))  # type: ignore[arg-type]


@given(seed=st.integers(0, 10_000), name=st.sampled_from(["w", "error", "latency"]))
def test_a_bound_on_the_error_bounds_the_value(seed: int, name: str) -> None:
    rng = np.random.default_rng(seed)
    p, cost, error = rng.integers(1, 41, 20), rng.uniform(0, 5, 20), rng.uniform(0.01, 1, 20)
    wanted = objective(name, max_error=0.7, max_cost=4.0)
    for slack in (0.0, rng.uniform(0, 0.5), math.inf):
        assert (wanted.bound(p, cost, error - slack) <= wanted.value(p, cost, error)).all()


def test_without_a_bound_on_the_error_nothing_is_claimed() -> None:
    unknown = np.full(5, -math.inf)
    # T has W = 0 whatever its error
    assert objective("w").bound(P, COST, unknown).tolist() == [-math.inf] * 4 + [0.0]
    assert objective("error").bound(P, COST, unknown).tolist() == [-math.inf] * 5
    assert objective("latency", max_error=0.2).bound(P, COST, unknown).tolist() == COST.tolist()
    with pytest.raises(ValueError, match="row 1: the least error"):
        objective("w").bound(P, COST, [0.1, math.nan, 0.1, 0.1, 0.1])


# --- dominance --------------------------------------------------------------------------------------------------------

points_with_ties = st.integers(1, 4).flatmap(
    lambda k: st.lists(st.lists(st.integers(-2, 3), min_size=k, max_size=k), min_size=1, max_size=40)
)


@given(points_with_ties)
def test_the_frontier_is_brute_forces(rows: list[list[int]]) -> None:
    points = np.array(rows, dtype=float)
    assert frontier(points).tolist() == brute_frontier(points)


def test_the_frontier_across_blocks_is_brute_forces() -> None:
    points = np.random.default_rng(0).integers(0, 12, size=(900, 3)).astype(float)
    points[:300, 2] = 24 - points[:300, 0] - points[:300, 1]
    assert frontier(points).tolist() == brute_frontier(points)
    anti_chain = np.stack([np.arange(900), -np.arange(900)], axis=1)
    assert frontier(anti_chain).all()


def test_the_frontier_keeps_every_duplicate_and_refuses_nan() -> None:
    assert frontier([[1.0, 1.0], [2.0, 0.0], [1.0, 1.0], [2.0, 1.0]]).tolist() == [True, True, True, False]
    assert frontier([[-0.0], [0.0]]).tolist() == [True, True]
    assert frontier(np.zeros((0, 3))).tolist() == []
    with pytest.raises(ValueError, match="row 1: the point"):
        frontier([[1.0, 1.0], [0.0, math.nan]])
    with pytest.raises(ValueError, match="k >= 1"):
        frontier([1.0, 2.0])


def test_the_frontier_of_ten_thousand_is_fast() -> None:
    rng = np.random.default_rng(0)
    first = rng.random(10_000)
    start = time.perf_counter()
    assert frontier(np.stack([first, 1 - first, rng.random(10_000)], axis=1)).all()
    assert time.perf_counter() - start < 3


@given(points_with_ties)
def test_dominators_dominate(rows: list[list[int]]) -> None:
    points = np.array(rows, dtype=float)
    mask = frontier(points)
    preferred = int(np.flatnonzero(mask)[-1])
    for row, by in enumerate(dominators(points, preferred)):
        assert (by == -1) == mask[row]
        if by >= 0:
            assert (points[by] <= points[row]).all()
            assert (points[by] < points[row]).any()
            assert mask[by]
            if (points[preferred] <= points[row]).all():
                assert by == preferred
