"""The certified search with A free, against brute force: what it claims holds while η_A does, and that was measured."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_tables import NAMES, run
from subarch.numbers.objectives import Objective
from subarch.search import Certified, Problem
from subarch.search.evidence import Evidence
from subarch.search.lattice import Lattice
from subarch.search.noise import Noise
from test_certified import below, better_by, problem_of


def with_siblings(
    seed: int, name: str, off: tuple[float, float], jitter: float = 0.1
) -> tuple[Problem, np.ndarray, np.random.Generator]:
    """A monotone table where most shapes come with up to three numbers of heads, in no order.

    A sibling's error is its representative's and something between the two of `off`; its latency differs by up to
    `jitter`.
    """
    problem, error, rng = problem_of(seed, name)
    assert problem.table is not None
    assert problem.effort is not None
    shape = rng.permutation(np.repeat(np.arange(len(problem)), rng.integers(1, 4, len(problem))))
    nearest = np.zeros(len(shape), dtype=bool)
    nearest[np.unique(shape, return_index=True)[1]] = True
    heads = np.array([1 + (shape[:row] == shape[row]).sum() for row in range(len(shape))])
    table = np.stack([problem.table[shape, 0], heads, *problem.table[shape, 2:].T], axis=1)
    cost = problem.cost[shape] * np.where(nearest, 1.0, rng.uniform(1 - jitter, 1 + jitter, len(shape)))
    errors = np.maximum(error[shape] + np.where(nearest, 0.0, rng.uniform(*off, len(shape))), 1e-3)
    objective = replace(problem.objective, cost_maximum=float(cost.max()) + 1)
    made = Problem(problem.parameters[shape], cost, objective, table, problem.effort[shape], nearest)
    return made, errors, rng


def gains(problem: Problem, error: np.ndarray, rows: list[int]) -> list[float]:
    """By how much these siblings are better than their representatives."""
    return [float(error[own(problem, row)] - error[row]) for row in rows if not marked(problem)[row]]


def marked(problem: Problem) -> np.ndarray:
    assert problem.nearest is not None
    return problem.nearest


def own(problem: Problem, row: int) -> int:
    """The representative of a row's shape."""
    same = below(problem.table, row) & marked(problem)  # type: ignore[arg-type]
    found = [one for one in np.flatnonzero(same) if (problem.table[one, 2:] == problem.table[row, 2:]).all()]  # type: ignore[index]
    return int(next(one for one in found if problem.table[one, 0] == problem.table[row, 0]))  # type: ignore[index]


def seen(problem: Problem, error: np.ndarray, trained: list[int]) -> tuple[float, int]:
    """η_A and the pairs, from the definition."""
    ordered = [row for row in trained if marked(problem)[row]]
    most, pairs = 0.0, 0
    for row in trained:
        if not marked(problem)[row]:
            above = [one for one in ordered if below(problem.table, row)[one]]  # type: ignore[arg-type]
            if own(problem, row) in ordered:
                above, pairs = [own(problem, row)], pairs + 1
            most = max([most, *(float(error[one] - error[row]) for one in above)])
    return (most if pairs else math.inf), pairs


def check(problem: Problem, error: np.ndarray, trained: list[int], found: Evidence, delta: float) -> bool:
    """All that has to hold of a finished search; is no untrained sibling better than was measured?"""
    table = problem.table
    assert table is not None
    assert len(trained) == len(set(trained))
    assert found.closed
    assert set(found.because) == set(np.flatnonzero(problem.affordable)) - set(trained)
    if found.heads is None:
        assert marked(problem).all()
        return True
    assert (found.heads.eta, found.heads.pairs) == seen(problem, error, trained)
    assert found.eta or found.reached <= max(found.aim, found.heads.aim) + 1e-12
    if found.incumbent is not None:
        alike = own(problem, found.incumbent)
        assert alike in trained
        for row in np.flatnonzero(problem.affordable):
            assert own(problem, row) != alike or row in trained
        if problem.objective.name != "latency":
            off = 0.0 if found.heads.pairs == 0 else found.heads.eta
            off += 3 * found.eta + found.slack
            assert found.heads.aim == max(delta, min(off / error[found.incumbent], 0.99))
    for by in found.because.values():
        assert by < 0 or marked(problem)[by]
    untrained = [row for row in range(len(table)) if row not in trained]
    return max(gains(problem, error, untrained), default=0.0) <= found.heads.eta + 1e-12


@given(
    seed=st.integers(0, 10**6),
    name=st.sampled_from(NAMES),
    delta=st.sampled_from([0.0, 0.01, 0.1]),
    off=st.sampled_from([(0.0, 0.0), (0.0, 0.2), (-0.02, 0.02), (-0.3, 0.3)]),
    audit=st.integers(0, 3),
)
def test_the_claim_holds_while_no_sibling_is_better_than_was_measured(
    seed: int, name: str, delta: float, off: tuple[float, float], audit: int
) -> None:
    problem, error, _ = with_siblings(seed, name, off)
    search = Certified(problem, delta, audit)
    trained = run(search, error)
    found = search.evidence()
    as_measured = check(problem, error, trained, found, delta)
    assert as_measured or off[0] < 0
    if as_measured:
        assert better_by(problem, error, found.incumbent) <= found.reached + 1e-12


@given(seed=st.integers(0, 10**6), name=st.sampled_from(NAMES), gain=st.sampled_from([0.001, 0.05, 0.3]))
def test_where_all_siblings_are_better_by_the_same_one_pair_tells_it(seed: int, name: str, gain: float) -> None:
    problem, error, _ = with_siblings(seed, name, (0.0, 0.0))
    error = np.where(marked(problem), error + 0.5, error + 0.5 - gain)
    search = Certified(problem, 0.01)
    trained = run(search, error)
    found = search.evidence()
    assert check(problem, error, trained, found, 0.01)
    if found.heads is not None and found.heads.pairs:
        assert found.heads.eta == pytest.approx(gain)
    assert better_by(problem, error, found.incumbent) <= found.reached + 1e-9


@given(seed=st.integers(0, 10**6), name=st.sampled_from(NAMES), audit=st.integers(0, 3), noise=st.booleans())
def test_with_one_number_of_heads_for_each_shape_nothing_changes(seed: int, name: str, audit: int, noise: bool) -> None:
    problem, error, _ = problem_of(seed, name)
    plain, every = (Certified(one, 0.01, audit) for one in (problem, replace(problem, nearest=error > 0)))
    for search in (plain, every):
        search.noise = Noise(0.003, 5) if noise else Noise()
    assert run(plain, error) == run(every, error)
    assert plain.evidence() == every.evidence()
    assert plain.evidence().heads is None


@given(seed=st.integers(0, 10**6), name=st.sampled_from(NAMES), data=st.data())
def test_stopped_and_told_what_was_known_it_goes_on_as_before(seed: int, name: str, data: st.DataObject) -> None:
    problem, error, _ = with_siblings(seed, name, (-0.05, 0.05))
    whole = Certified(problem, 0.01, audit=2)
    trained = run(whole, error)
    again = Certified(problem, 0.01, audit=2)
    known = data.draw(st.permutations(trained[: data.draw(st.integers(0, len(trained)))]))
    for row in known:
        again.recall(row, float(error[row]))
    assert known + run(again, error) == [*known, *trained[len(known) :]]
    assert again.evidence() == whole.evidence()


@given(seed=st.integers(0, 10**6), name=st.sampled_from(NAMES), workers=st.integers(2, 4), data=st.data())
def test_several_workers_and_failures(seed: int, name: str, workers: int, data: st.DataObject) -> None:
    problem, error, rng = with_siblings(seed, name, (0.0, 0.2))
    failing = set(np.flatnonzero(rng.random(len(error)) < 0.1).tolist())
    search = Certified(problem, 0.0, audit=1)
    running: list[int] = []
    asked: list[int] = []
    while not search.done:
        while len(running) < workers and (row := search.ask()) is not None:
            running.append(row)
            asked.append(row)
        row = running.pop(data.draw(st.integers(0, len(running) - 1)))
        if row in failing:
            search.fail(row)
        else:
            search.tell(row, float(error[row]))
        settled, of = search.progress
        assert 0 <= settled <= of
    assert len(asked) == len(set(asked))
    assert search.ask() is None
    found = search.evidence()
    assert found.closed
    error = np.where([row in failing and row in asked for row in range(len(error))], 10.0, error)
    assert better_by(problem, error, found.incumbent) <= found.reached + 1e-12


@given(seed=st.integers(0, 10**6), name=st.sampled_from(NAMES), rate=st.floats(0.02, 0.5))
def test_nothing_that_was_trained_contradicts_the_bounds(seed: int, name: str, rate: float) -> None:
    """Neither violations of the order nor siblings that are better than their shape's bound, whoever was trained."""
    problem, error, rng = with_siblings(seed, name, (-0.2, 0.2))
    planted = rng.random(len(error)) < rate
    error = np.where(planted, np.maximum(error - rng.uniform(0.05, 0.5, len(error)), 0.01), error)
    search = Certified(problem, 0.01, audit=3)
    search.noise = Noise(0.002, 6)
    trained = run(search, error)
    found = search.evidence()
    check(problem, error, trained, found, 0.01)
    ordered = [row for row in trained if marked(problem)[row]]
    for row in trained if found.heads is not None and found.heads.pairs else ordered:
        off = 2 * found.eta + found.slack + (0.0 if row in ordered or found.heads is None else found.heads.eta)
        for one in ordered:
            if one != row and below(problem.table, row)[one]:  # type: ignore[arg-type]
                assert error[row] >= error[one] - off - 1e-12


@given(seed=st.integers(0, 10**6), name=st.sampled_from(NAMES))
def test_the_audit_counts_siblings_that_are_better_than_others_allow(seed: int, name: str) -> None:
    problem, error, _ = with_siblings(seed, name, (-0.3, 0.1))
    search = Certified(problem, 0.01, audit=4)
    trained = run(search, error)
    found = search.evidence()
    gain, pairs = seen(problem, error, [row for row in trained if marked(problem)[row] or row not in found.audited])
    failures = 0
    for row in found.audited:
        off = 0.0 if marked(problem)[row] or not pairs else gain
        failures += any(
            error[row] < error[one] - off - 1e-12
            for one in trained
            if one != row and marked(problem)[one] and below(problem.table, row)[one]  # type: ignore[arg-type]
        )
    assert found.failures == failures
    assert set(found.audited) <= set(trained)
    if found.incumbent is not None:
        assert all(
            own(problem, row) != own(problem, found.incumbent)
            for row in found.audited
            if row not in marked_rows(problem)
        )


def marked_rows(problem: Problem) -> set[int]:
    return set(np.flatnonzero(marked(problem)).tolist())


def three_shapes() -> tuple[Problem, np.ndarray]:
    """Of the first shape one number of heads, of the second two, of the third three."""
    table = np.array(
        [[1, 2, 64, 64], [1, 2, 64, 128], [1, 4, 64, 128], [2, 2, 64, 128], [2, 4, 64, 128], [2, 8, 64, 128]]
    )
    cost = np.array([1.0, 2.0, 1.9, 4.0, 3.0, 5.0])
    objective = Objective("error", parameters_maximum=9, cost_maximum=9, max_cost=3.5)
    nearest = np.array([True, True, False, True, False, False])
    return Problem(np.array([1, 2, 2, 4, 4, 4]), cost, objective, table, None, nearest), np.array(
        [0.5, 0.4, 0.39, 0.3, 0.31, 0.2]
    )


def test_a_shape_that_only_a_sibling_can_afford() -> None:
    problem, error = three_shapes()
    search = Certified(problem, 0.01)
    trained = run(search, error)
    found = search.evidence()
    assert found.incumbent == 4
    assert 3 in trained  # over the limit, but what the others are measured by
    assert 5 not in trained
    assert found.heads is not None
    if 2 in trained:
        assert (found.heads.eta, found.heads.pairs) == (pytest.approx(0.01), 2)
    else:
        assert (found.heads.eta, found.heads.pairs) == (0.0, 1)  # 0.30 against 0.31
    assert found.because.keys() == {0, 1, 2} - set(trained)


def test_nothing_bounds_siblings_before_a_pair_is_trained() -> None:
    """The best shape has one number of heads; what is known of the others must come from elsewhere."""
    problem, error = three_shapes()
    problem = replace(problem, objective=replace(problem.objective, max_cost=None))
    table = np.concatenate([problem.table, [[3, 2, 64, 128]]])  # type: ignore[list-item]
    problem = Problem(
        np.append(problem.parameters, 6),
        np.append(problem.cost, 6.0),
        problem.objective,
        table,
        None,
        np.append(marked(problem), True),
    )
    error = np.append(error, 0.28)
    search = Certified(problem, 0.01)
    search.recall(6, 0.28)
    before = search.evidence()
    assert before.heads is not None
    assert (before.heads.pairs, before.closed, before.reached) == (0, False, math.inf)
    trained = [6, *run(search, error)]
    found = search.evidence()
    assert found.heads is not None
    assert found.heads.pairs >= 1
    check(problem, error, trained, found, 0.01)


def test_a_shape_needs_one_representative() -> None:
    table = np.array([[1, 2, 8, 8], [1, 4, 8, 8], [2, 4, 8, 8]])
    with pytest.raises(ValueError, match="only their heads differ"):
        Lattice(table, np.array([True, True, True]))
    with pytest.raises(ValueError, match="has no candidate that is marked"):
        Lattice(table, np.array([True, False, False]))
    assert Lattice(table, np.array([False, True, True])).row.tolist() == [1, 2]
