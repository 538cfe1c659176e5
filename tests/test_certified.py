"""The certified search against brute force: on monotone tables never a miss, on others no claim that the data deny."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import studentized_range

from search_tables import NAMES, run
from subarch.errors import InvalidConfig
from subarch.numbers.objectives import Objective
from subarch.numbers.space import nearest_heads
from subarch.search import Certified, Evidence, Problem
from subarch.search.bounds import BELIEF, OFF, Grid, Law
from subarch.search.noise import Noise, floor, most_failing


def shapes(rng: np.random.Generator) -> np.ndarray:
    """Rows ⟨D, A, H, I⟩, or ⟨D, A, H, I, V⟩, of a small grid with holes, in no order."""
    several = rng.random() < 0.5
    axes = [rng.choice(range(1, 9), rng.integers(1, 4 if several else 5), replace=False) for _ in range(3)]
    axes += [rng.choice([0, 2000, 4000, 8000], rng.integers(1, 5), replace=False)] if several else []
    grid = np.stack([axis.ravel() for axis in np.meshgrid(*axes, indexing="ij")], axis=1)
    kept = grid[rng.random(len(grid)) < 0.9] if len(grid) > 3 else grid
    d, h, i, *v = (kept if len(kept) else grid).T
    return np.stack([d, np.full(len(d), 2), 16 * h, 32 * i, *v], axis=1).astype(np.int64)


def kept_of(table: np.ndarray) -> np.ndarray:
    """(N,) V; the whole vocabulary is the largest."""
    vocabulary = table[:, 4] if table.shape[1] == 5 else np.zeros(len(table))
    return np.where(vocabulary == 0, 16_000, vocabulary).astype(np.int64)


def monotone(table: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Random errors that never rise from a shape to a larger one: the worst drawn of all that is no smaller."""
    drawn = rng.integers(1, 60, len(table)) / 60
    return np.array([drawn[below(table, row)].max() for row in range(len(table))])


def below(table: np.ndarray, row: int) -> np.ndarray:
    """Which rows are at least as large as this one in D, H, I and V, itself among them."""
    larger: np.ndarray = (table[:, [0, 2, 3]] >= table[row, [0, 2, 3]]).all(axis=1)
    return larger & (kept_of(table) >= kept_of(table)[row])


def problem_of(seed: int, name: str) -> tuple[Problem, np.ndarray, np.random.Generator]:
    rng = np.random.default_rng(seed)
    table = shapes(rng)
    work = table[:, 0] * table[:, 2] * (table[:, 2] + table[:, 3])
    size = work + table[:, 2] * kept_of(table) // 100
    cost = work * rng.uniform(0.8, 1.2, len(table)) / 1000  # measured latency does not quite follow size
    cost *= (16_000 / kept_of(table)) ** 0.2  # and a smaller vocabulary has more tokens to read
    objective = Objective(
        name,  # type: ignore[arg-type]
        parameters_maximum=float(size.max()),
        cost_maximum=float(cost.max()) + 1,
        max_cost=float(rng.choice(cost)) if rng.random() < 0.6 else None,
        max_parameters=int(rng.choice(size)) if rng.random() < 0.3 else None,
        max_error=float(rng.uniform(0.2, 1)) if name == "latency" else None,
    )
    effort, errors, megabytes = size.astype(float), monotone(table, rng), None
    if rng.random() < 0.3:  # bytes of a file follow no order of the shapes here
        megabytes = rng.permutation(size) / 1e6
        objective = replace(objective, max_megabytes=float(rng.choice(megabytes)))
    return Problem(size, cost, objective, table, effort, megabytes), errors, rng


def better_by(problem: Problem, error: np.ndarray, incumbent: int | None) -> float:
    """By how much the best of all is better than the incumbent, by brute force."""
    value = problem.values(slice(None), error)
    best = value.min()
    if incumbent is None or value[incumbent] == math.inf:
        return 0.0 if best == math.inf else math.inf
    return float(1 - (value[incumbent] / best if best < 0 else best / value[incumbent])) if value[incumbent] else 0.0


@given(seed=st.integers(0, 10**6), name=st.sampled_from(NAMES), delta=st.sampled_from([0.0, 0.01, 0.1]))
def test_on_monotone_errors_nothing_is_better_by_more_than_delta(seed: int, name: str, delta: float) -> None:
    problem, error, _ = problem_of(seed, name)
    search = Certified(problem, delta, audit=2)
    trained = run(search, error)
    assert len(trained) == len(set(trained))
    found = search.evidence()
    assert found.closed
    assert (found.slack, found.violations, found.failures, found.eta) == (0.0, 0, 0, 0.0)
    assert better_by(problem, error, found.incumbent) <= found.reached + 1e-12
    assert found.reached <= delta + 1e-12
    assert set(found.because) == set(np.flatnonzero(problem.affordable)) - set(trained)
    for row, by in found.because.items():  # each reason holds by itself
        # Without a reason among the trained only what its cost rules out: too slow, or of W = 0
        factor = problem.parameters[row] < problem.objective.parameters_maximum
        assert by in trained or problem.objective.name == "latency" or (problem.objective.name == "w" and not factor)
        if by >= 0:
            assert below(problem.table, row)[by]  # type: ignore[arg-type]
            assert error[by] == max(error[other] for other in trained if below(problem.table, row)[other])  # type: ignore[arg-type]


@given(seed=st.integers(0, 10**6), name=st.sampled_from(NAMES), rate=st.floats(0.02, 0.5))
def test_violations_that_are_seen_widen_the_certificate(seed: int, name: str, rate: float) -> None:
    problem, error, rng = problem_of(seed, name)
    planted = rng.random(len(error)) < rate
    error = np.where(planted, np.maximum(error - rng.uniform(0.05, 0.5, len(error)), 0.01), error)
    search = Certified(problem, 0.01)
    trained = run(search, error)
    found = search.evidence()
    drops = [
        error[large] - error[small]
        for small in trained
        for large in trained
        if large != small and below(problem.table, small)[large]  # type: ignore[arg-type]
    ]
    assert found.slack == max([0.0, *drops])
    assert found.violations == sum(drop > 0 for drop in drops)
    # What is claimed holds for all whose errors keep within the slack that was seen
    within = all(
        error[row] >= error[large] - found.slack - 1e-12
        for row in np.flatnonzero(problem.affordable)
        for large in trained
        if below(problem.table, int(row))[large]  # type: ignore[arg-type]
    )
    assert not within or better_by(problem, error, found.incumbent) <= found.reached + 1e-9


@given(seed=st.integers(0, 10**6), name=st.sampled_from(NAMES), workers=st.integers(2, 4), data=st.data())
def test_several_workers_and_failures(seed: int, name: str, workers: int, data: st.DataObject) -> None:
    problem, error, rng = problem_of(seed, name)
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
    assert len(asked) == len(set(asked))
    assert search.ask() is None
    if failing.issuperset(np.flatnonzero(problem.affordable)):  # nothing is left that could be selected
        assert search.evidence().incumbent is None
        return
    left = np.array([row not in failing or row not in asked for row in range(len(error))])
    error = np.where(left, error, 10.0)  # who failed cannot win
    assert better_by(problem, error, search.evidence().incumbent) <= 1e-12


@given(seed=st.integers(0, 10**6), name=st.sampled_from(NAMES))
def test_the_audit_occupies_all_workers(seed: int, name: str) -> None:
    """With nothing else left to train, what the audit draws is handed out at once."""
    problem, error, _ = problem_of(seed, name)
    search = Certified(problem, 0.0)
    for row in iter(search.ask, None):
        search.tell(row, float(error[row]))
    told = set(np.flatnonzero(~np.isnan(search.error)))
    search.audit.size = 4
    drawn = search.audit.sample(search._known(), search.error)
    together = list(iter(search.ask, None))
    assert together == [row for row in drawn if row not in told]
    for row in together:
        search.tell(row, float(error[row]))
    for row in iter(search.ask, None):  # what the audit told may have changed who is excluded, and so who is drawn
        search.tell(row, float(error[row]))
    assert search.done
    assert not np.isnan(search.error[list(search.evidence().audited)]).any()


@given(seed=st.integers(0, 10**6), name=st.sampled_from(NAMES), data=st.data())
def test_stopped_and_told_what_was_known_it_goes_on_as_before(seed: int, name: str, data: st.DataObject) -> None:
    problem, error, _ = problem_of(seed, name)
    whole = Certified(problem, 0.01, audit=2)
    trained = run(whole, error)
    again = Certified(problem, 0.01, audit=2)
    known = data.draw(st.permutations(trained[: data.draw(st.integers(0, len(trained)))]))
    for row in known:
        again.recall(row, float(error[row]))
    assert known + run(again, error) == [*known, *trained[len(known) :]]
    assert again.evidence() == whole.evidence()


def grid_problem(side: int = 3) -> tuple[Problem, np.ndarray]:
    """Shapes of one depth; cost and error both go by H + I, so that a limit cuts a corner off."""
    sizes = range(1, side + 1)
    table = np.array([[1, 1, h, i] for h in sizes for i in sizes], dtype=np.int64)
    size = table[:, 2] + table[:, 3]
    objective = Objective("error", parameters_maximum=2 * side, cost_maximum=2 * side, max_cost=side + 1)
    return Problem(size, size.astype(float), objective, table), 1.0 / size


def test_a_candidate_over_the_limit_may_exclude_many() -> None:
    problem, _ = grid_problem(side=6)
    search = Certified(problem, 0.05)
    trained = run(search, problem.parameters**-0.1)
    assert any(not problem.affordable[row] for row in trained)
    assert len(trained) <= 5  # the six largest that are affordable do not exclude each other


@given(seed=st.integers(0, 10**6))
def test_the_law_doubts_what_is_far_from_what_was_trained(seed: int) -> None:
    """The predictive deviation of a Bayesian regression, by the definition; on longer axes that of a place nearby."""
    rng = np.random.default_rng(seed)
    table = shapes(rng)
    law, rows = Law(Grid(table)), rng.permutation(len(table))[: rng.integers(1, 8)]
    errors = rng.uniform(0.1, 0.6, len(rows))
    _, doubt = law.fit(rows, errors)
    features = law._features(np.arange(len(table)))
    weights = np.array([1e-9] + [3e-5] * len(law.scaled) + [3e-3] * (features.shape[1] - 1 - len(law.scaled)))
    covariance = np.linalg.inv(features[rows].T @ features[rows] + np.diag(weights))
    share = 1 + np.einsum("nf,fg,ng->n", features, covariance, features)
    ratio = doubt[law.grid.cell] / np.sqrt(share)
    assert ratio == pytest.approx(np.full(len(table), ratio[0]), rel=1e-4)
    assert ratio[0] >= OFF * math.sqrt(BELIEF / (BELIEF + len(rows) - 1)) * (1 - 1e-4)
    long = np.array([[1, 1, 8, width] for width in range(8, 808, 8)])
    _, doubt = Law(Grid(long)).fit(np.array([0]), np.array([0.5]))
    assert (np.diff(doubt) >= -1e-6).all()
    assert doubt[-1] > 10 * doubt[0]


@given(seed=st.integers(0, 10**6), name=st.sampled_from(NAMES))
def test_a_law_of_other_studies_orders_trainings_and_proves_nothing(seed: int, name: str) -> None:
    """Whatever was learnt, from any errors of any sizes, what is claimed holds."""
    problem, error, rng = problem_of(seed, name)
    assert problem.table is not None
    other = rng.integers(1, 9, (rng.integers(1, 12), problem.table.shape[1])) * 40
    search = Certified(problem, 0.01, audit=2)
    search.learn([(other, rng.uniform(0.01, 2, len(other))), (problem.table, rng.uniform(0.01, 2, len(error)))])
    run(search, error)
    found = search.evidence()
    assert found.closed
    assert better_by(problem, error, found.incumbent) <= found.reached + 1e-12
    assert found.reached <= 0.01 + 1e-12


def test_a_law_is_learnt_from_another_space_whatever_the_level_there() -> None:
    """Errors that depend on width alone: learnt among other sizes, at twice the level, they do so here."""
    ours = np.array([[d, 1, h, i] for d in (1, 2, 4) for h in (64, 128, 256) for i in (64, 128, 256)])
    theirs = np.array([[d, 1, h, i] for d in (1, 2, 5) for h in (96, 192, 384) for i in (96, 192, 384)])
    law = Law(Grid(ours))
    law.learn([(theirs, 2 * theirs[:, 2] ** -0.5), (theirs, 0.1 * theirs[:, 2] ** -0.5)])
    guess, _ = law.fit(np.array([0]), ours[:1, 2] ** -0.5)
    assert guess[law.grid.cell] == pytest.approx(ours[:, 2] ** -0.5, rel=0.02)
    kept = np.array([[1, 1, 8, 8, v] for v in (0, 2000, 8000)])
    law = Law(Grid(kept))
    law.learn([(kept, np.array([0.2, 0.4, 0.3]))])
    guess, _ = law.fit(np.array([1]), np.array([0.8]))
    assert guess[law.grid.cell] == pytest.approx([0.4, 0.8, 0.6], rel=0.02)


def test_the_words_of_the_evidence() -> None:
    problem, error = grid_problem()
    search = Certified(problem, 0.0, audit=9)
    run(search, error)
    found = search.evidence()
    assert isinstance(found, Evidence)
    assert found.incumbent in (2, 4, 6)  # H + I = 4
    assert (found.aim, found.reached) == (0.0, 0.0)
    assert set(found.audited) <= {0, 1, 2, 3, 4, 6}
    assert found.failing == most_failing(0, len(found.audited))


def test_an_audit_that_fails_is_counted_and_widens() -> None:
    problem, error = grid_problem()
    error = error.copy()
    error[0] = 0.2  # the smallest is better than all that is larger
    search = Certified(problem, 0.01, audit=6)
    trained = run(search, error)
    found = search.evidence()
    assert 0 in trained
    assert found.incumbent == 0
    assert found.violations > 0
    assert found.failures >= (0 in found.audited)
    assert found.slack == pytest.approx(max(error[row] for row in trained) - 0.2)


def test_an_audit_counts_once_it_is_finished_without_those_whose_training_failed() -> None:
    problem, error = grid_problem()
    whole = Certified(problem, 0.01, audit=3)
    trained = run(whole, error)
    drawn = whole.evidence().audited
    assert len(drawn) == 3
    last = next(row for row in reversed(trained) if row in drawn)
    before = Certified(problem, 0.01, audit=3)
    for row in trained[: trained.index(last)]:
        before.recall(row, float(error[row]))
    found = before.evidence()
    assert (found.closed, found.audited, found.failing) == (True, (), 1.0)
    failing = Certified(problem, 0.01, audit=3)
    run(failing, error, frozenset([last]))
    assert failing.evidence().audited == tuple(row for row in drawn if row != last)


def test_an_error_of_zero_cannot_be_beaten() -> None:
    problem, error = grid_problem()
    search = Certified(problem, 0.01)
    search.noise = Noise(0.1, 4)
    run(search, np.where(error == error[problem.affordable].min(), 0.0, error))
    found = search.evidence()
    assert (found.closed, found.aim) == (True, 0.99)


def test_noise_is_added_to_the_aim() -> None:
    problem, error = grid_problem()
    search = Certified(problem, 0.01)
    trained = run(search, error)
    search.noise = Noise(deviation=0.01, freedom=8)
    assert search.ask() is None  # never a reason to train more
    found = search.evidence()
    assert found.eta == search.noise.between(len(trained))
    assert found.aim == pytest.approx(0.01 + found.eta / error[found.incumbent])
    assert found.closed
    # A rise within the noise of two errors is no violation
    noisy = error + np.where(np.arange(9) % 2, 0.45, -0.45) * found.eta
    again = Certified(problem, 0.01)
    again.noise = search.noise
    run(again, noisy)
    assert again.evidence().violations == 0


def test_what_lies_below_the_incumbent_is_compared_without_noise() -> None:
    problem, error = grid_problem()
    all_below = replace(problem, objective=replace(problem.objective, max_cost=None))
    search = Certified(all_below, 0.0)
    search.noise = Noise(deviation=0.05, freedom=3)
    run(search, error)
    found = search.evidence()
    assert (found.incumbent, found.reached) == (8, 0.0)
    assert found.eta > 0.1


def noisy(true: np.ndarray, rng: np.random.Generator, seeds: int = 2) -> np.ndarray:
    """(seeds, N) errors: what a seed does to all of them is twice what it does to each."""
    return np.maximum(true + rng.normal(0, 0.02, (seeds, 1)) + rng.normal(0, 0.01, (seeds, len(true))), 1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_coverage_under_noise(name: str) -> None:
    """True errors, measured with noise: the true gap is within what is claimed nearly always (level 0.95)."""
    held, searches = 0, 60
    for seed in range(searches):
        problem, true, rng = problem_of(seed, name)
        measured = noisy(true, rng)
        search = Certified(problem, 0.01)
        run(search, measured[0])
        again = search.nearest(6)
        search.noise = Noise.of([dict(enumerate(measured[:, row])) for row in again])
        run(search, measured[0])
        found = search.evidence()
        if name == "latency" and found.incumbent is not None and true[found.incumbent] > problem.objective.max_error:
            true = np.where(np.arange(len(true)) == found.incumbent, problem.objective.max_error, true)
        held += better_by(problem, true, found.incumbent) <= found.reached + 1e-12
    assert held >= 0.95 * searches


def test_encoders_without_layers_bound_no_other() -> None:
    table = np.array([[0, 0, 64, 0], [0, 0, 128, 0], [1, 2, 64, 64], [1, 2, 128, 64]], dtype=np.int64)
    objective = Objective("error", parameters_maximum=9, cost_maximum=9, max_cost=1.5)
    problem = Problem(np.array([1, 2, 3, 4]), np.array([0.5, 1.0, 2.0, 3.0]), objective, table)
    search = Certified(problem, 0.0)
    run(search, np.array([0.5, 0.9, 0.3, 0.2]))
    found = search.evidence()
    assert found.incumbent == 0
    assert found.violations == 0


def test_a_space_of_one_and_one_with_nothing_affordable() -> None:
    objective = Objective("error", parameters_maximum=9, cost_maximum=9)
    one = Certified(Problem(np.array([3]), np.array([2.0]), objective, np.array([[1, 1, 8, 8]])), 0.01, audit=3)
    assert run(one, np.array([0.4])) == [0]
    assert (one.evidence().incumbent, one.evidence().closed) == (0, True)
    tight = Objective("error", parameters_maximum=9, cost_maximum=9, max_cost=1.0)
    none = Certified(Problem(np.array([3]), np.array([2.0]), tight, np.array([[1, 1, 8, 8]])), 0.01)
    assert none.done
    assert (none.evidence().incumbent, none.evidence().reached) == (None, 0.0)


@pytest.mark.parametrize(("delta", "audit"), [(-0.01, 0), (1.0, 0), (math.nan, 0), (0.1, -1)])
def test_impossible_settings_are_refused(delta: float, audit: int) -> None:
    with pytest.raises(InvalidConfig):
        Certified(grid_problem()[0], delta, audit)


def test_misuse_is_refused() -> None:
    problem, _ = grid_problem()
    with pytest.raises(ValueError, match="needs the table"):
        Certified(Problem(problem.parameters, problem.cost, problem.objective), 0.01)
    with pytest.raises(ValueError, match="differ in heads only"):
        Grid(np.array([[1, 2, 8, 8], [1, 4, 8, 8]]))
    with pytest.raises(ValueError, match="differ in heads only"):
        Grid(np.array([[1, 2, 8, 8, 500], [1, 4, 8, 8, 500]]))
    assert Grid(np.array([[1, 2, 8, 8, 500], [1, 2, 8, 8, 0], [1, 2, 8, 8, 90]])).cells[3].tolist() == [1, 2, 0]
    search = Certified(problem, 0.01)
    with pytest.raises(ValueError, match="row 5 is not awaited"):
        search.tell(5, 0.1)
    with pytest.raises(ValueError, match="report the training as failed"):
        search.tell(0, math.nan)


def pairs(rows: Iterable[tuple[int, int]]) -> np.ndarray:
    return np.array([[1, heads, hidden, 8] for heads, hidden in rows])


def test_heads_nearest_in_size() -> None:
    table = pairs([(1, 64), (2, 64), (4, 64), (2, 128), (4, 128), (3, 96)])
    assert nearest_heads(table, 32).tolist() == [False, True, False, False, True, True]
    assert nearest_heads(pairs([(2, 64), (4, 64)]), math.sqrt(32 * 16)).tolist() == [False, True]  # a tie: more heads


def test_heads_nearest_in_size_for_each_vocabulary() -> None:
    table = np.array([[1, 2, 64, 8, 0], [1, 4, 64, 8, 0], [1, 2, 64, 8, 500], [1, 4, 64, 8, 500]])
    assert nearest_heads(table, 16).tolist() == [False, True, False, True]


def test_noise_and_audit_bounds() -> None:
    assert Noise.of([{0: 0.3}, {0: 0.4}]).between(10) == 0.0
    # Both rise by 0.02 with the seed and differ by 0.002 beyond that
    known = Noise.of([{0: 0.30, 1: 0.321}, {0: 0.50, 1: 0.519}, {0: 0.7}])
    assert known.freedom == 1
    assert known.deviation == pytest.approx(0.001)
    assert known.over_seeds == pytest.approx(math.sqrt((0.021**2 + 0.019**2) / 2 / 2))
    assert known.between(2) == pytest.approx(
        0.001 * math.sqrt(2) * 12.7062, rel=1e-4
    )  # Student's t, 1 degree, two-sided
    assert known.between(10) > known.between(3) > known.between(2)
    assert known.scale(False) == pytest.approx(known.over_seeds / math.sqrt(2))
    alone = Noise.of([{0: 0.3, 1: 0.32}])
    assert (alone.freedom, alone.deviation) == (1, pytest.approx(math.sqrt(2) * 0.01))
    assert most_failing(0, 10) == pytest.approx(1 - 0.05 ** (1 / 10))
    assert most_failing(3, 3) == most_failing(0, 0) == 1.0


def test_the_deviation_within_seeds_is_found_whatever_they_shift() -> None:
    rng, found = np.random.default_rng(0), []
    for _ in range(200):
        errors = rng.normal(0, 0.01, (6, 3)) + rng.normal(0, 0.1, 3) + rng.normal(0, 1, (6, 1))
        groups = [dict(enumerate(row)) for row in errors]
        del groups[0][1], groups[1][2]
        found.append(Noise.of(groups))
    assert {noise.freedom for noise in found} == {16 - 6 - 3 + 1}
    assert np.mean([noise.deviation**2 for noise in found]) == pytest.approx(0.01**2, rel=0.1)
    assert np.mean([noise.over_seeds**2 for noise in found]) == pytest.approx(0.01**2 + 0.1**2, rel=0.3)


@pytest.mark.parametrize(("bound", "least"), [(0.3, 0.3 / 1.1), (0.23, 0.23 / 1.1), (0.22, 0.2), (0.15, 0.13)])
def test_floors_by_hand(bound: float, least: float) -> None:
    """Against 0.2, with η = 0.02: less by that up to there, above in proportion; without a reference, less by it."""
    assert floor(np.array([bound]), 0.02, 0.2)[0] == pytest.approx(least)
    assert floor(np.array([bound]), 0.02, None)[0] == pytest.approx(bound - 0.02)


@pytest.mark.parametrize(("count", "freedom"), [(2, 1), (7, 2), (11, 5), (60, 5), (40, 150)])
def test_the_range_of_so_many_errors(count: int, freedom: int) -> None:
    assert studentized_range.cdf(Noise(1.0, freedom).between(count), count, freedom) == pytest.approx(0.95, abs=5e-4)
