"""From trials to a selection: the winner by brute force, whatever is asked, failed or missing."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from subarch.errors import InvalidConfig, InvalidStudy, TrainingDiverged
from subarch.extraction.conclude import conclude
from subarch.extraction.config import ExtractConfig
from subarch.extraction.question import Question, best_trials, thetas
from subarch.extraction.trial import Point, Settings, Trial
from subarch.models.sentence import Recipe
from subarch.numbers.architecture import Architecture, Inputs
from subarch.numbers.space import SearchSpace
from subarch.run.configuration import load
from subarch.run.machine import machine
from subarch.run.records import (
    Basis,
    EmbeddingRecipe,
    EncoderBlueprint,
    EncoderInputs,
    Latencies,
    LatencySettings,
    Machine,
    Measured,
    Teacher,
)

SPACE = SearchSpace((0, 1, 2), (2,), (8, 16), (8, 32), "tiny")
INPUTS = Inputs(vocabulary=50, positions=16, output=16)
NAMES = [str(architecture) for architecture in SPACE]
TEACHER: dict[str, Any] = {
    "name": "teacher",
    "architecture": "2-2-16-32",
    "parameters": 9000,
    "operations": 10**6,
    "timed": True,
}


def configured(**changes: Any) -> ExtractConfig:
    given = {"teacher": "teacher", "corpus": ["text"], "strategy": "exhaustive", "steps": 4, "learning_rate": [2e-3]}
    return load(ExtractConfig, None, given | {"latency_length": 8} | changes)


def basis(reference: float | None = 0.0, teacher: bool = True) -> Basis:
    inputs = EncoderInputs(**asdict(INPUTS))
    return Basis(
        inputs=inputs,
        blueprint=EncoderBlueprint(family="bert", inputs=inputs, pooling="mean", masked_lm=False, settings={}),
        recipe=EmbeddingRecipe(**asdict(Recipe())),
        teacher=Teacher(**TEACHER) if teacher else None,
        start=TEACHER["architecture"] if teacher else None,
        reference_error=reference,
        constant_distance=0.5,
        identity={},
        seconds=1.5,
    )


def latencies(values: list[float], teacher: float | None = 10.0, spread: float = 0.0) -> Latencies:
    """Of 12 visits each; `spread`: how far the second least and the second greatest are from the others."""

    def measured(value: float) -> Measured:
        visits = tuple(value * (1 + factor * spread) for factor in (-9, -1, *[0] * 8, 1, 9))
        about = {"blocks": (12,), "passes": 48, "measured": "today", "drift": 1.0, "others": 0.0}
        return Measured(median_ms=value, visits=visits, **about)

    return Latencies(
        settings=LatencySettings(runtime="torch", batch=1, length=8, threads=1),
        machine=Machine(**machine()),
        model=None,
        candidates={name: measured(value) for name, value in zip(NAMES, values, strict=True)},
        teacher=None if teacher is None else measured(teacher),
        seconds=2.5,
    )


def trial(name: str, error: float | None, settings: Settings, number: int = 0) -> Trial:
    curve = () if error is None else tuple(Point(step, error + 0.1 * (4 - step), step) for step in (0, 2, 4))
    return Trial(
        Architecture.parse(name), settings, error, curve, 3.0, 1, None if error is not None else "it blew up", number
    )


def asked(config: ExtractConfig, **given: Any) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Conclude from `errors` by candidate, None where it failed, and the other figures."""
    measured = given.get("latencies")
    known = given.get("basis", basis())
    question = Question.pose(config, SPACE, known, measured)
    trials = given.get("trials")
    if trials is None:
        errors = given["errors"]
        trials = [trial(name, error, thetas(config)[0], n) for n, (name, error) in enumerate(errors.items())]
    selection, order = conclude(question, known, measured, trials)
    return selection.to_dict(), [row.model_dump() for row in order]


figures = st.lists(st.integers(1, 30).map(lambda value: value / 10), min_size=len(NAMES), max_size=len(NAMES))
"""Few distinct values: ties are common."""


@given(
    errors=st.lists(st.none() | st.integers(1, 9).map(lambda value: value / 10), min_size=10, max_size=10),
    times=figures,
    objective=st.sampled_from(["error", "latency", "w"]),
    keep=st.sampled_from([0.3, 0.5, 0.8, 0.99]),
    most=st.none() | st.sampled_from([0.4, 1.0, 2.0]),
    size=st.none() | st.sampled_from([1500, 3000, 5000]),
)
def test_the_winner_is_the_best_of_those_that_meet_the_limits(
    errors: list[float | None],
    times: list[float],
    objective: str,
    keep: float,
    most: float | None,
    size: int | None,
) -> None:
    config = configured(
        objective=objective,
        keep=keep if objective == "latency" else None,
        max_latency_ms=most,
        max_parameters=size,
    )
    by_name = dict(zip(NAMES, zip(times, errors, strict=True), strict=True))
    count = {name: Architecture.parse(name).parameters(INPUTS).total for name in NAMES}
    # as the pipeline does: what is known to break a limit is not trained
    affordable = [n for n in NAMES if by_name[n][0] <= (most or 99) and count[n] <= (size or 10**9)]
    trained = {name: by_name[name][1] for name in affordable}
    assume(not affordable or any(error is not None for error in trained.values()))
    selection, _ = asked(config, errors=trained, latencies=latencies(times))
    json.dumps(selection, allow_nan=False)

    largest = max(count.values())

    def value(name: str) -> float:
        time, error = by_name[name]
        assert error is not None
        if objective == "w":
            return -(1 - count[name] / largest) * (1 - time / max(times)) / error
        return error if objective == "error" else time

    allowed = [name for name in affordable if by_name[name][1] is not None]
    if objective == "latency":
        allowed = [name for name in allowed if (by_name[name][1] or 0) <= 1 - keep]
    rows = {row["architecture"]: row for row in selection["candidates"]}
    assert set(rows) == {name for name, error in trained.items() if error is not None}
    if not allowed:
        assert (selection["outcome"], selection["winner"]) == ("infeasible", None)
        assert selection["nearest"]["sentence"].startswith("no candidate meets the limits")
        assert selection["nearest"]["row"]["architecture"] in (rows or NAMES)
        assert selection["nearest"]["limits"]
        return
    winner = selection["winner"]["architecture"]
    assert winner in allowed
    assert value(winner) == pytest.approx(min(map(value, allowed)))
    assert winner in selection["ties"]
    assert winner in selection["frontier"]
    assert [name for name in rows if rows[name]["reason"] is None] == [winner]
    failed = sum(error is None for error in trained.values())
    assert any(f"{failed} trials failed" in warning for warning in selection["warnings"]) == (failed > 0)


def test_of_theta_the_least_error_counts_and_is_named() -> None:
    config = configured(learning_rate=[1e-3, 1e-2], batch_size=[8, 16], cost="operations")
    first, second, third, fourth = thetas(config)
    assert [(s.learning_rate, s.batch_size) for s in (first, second, third, fourth)] == [
        (1e-3, 8),
        (1e-3, 16),
        (1e-2, 8),
        (1e-2, 16),
    ]
    longer, other_seed = replace(first, steps=40), replace(first, seed=1)
    trials = [
        trial("1-2-8-8", 0.5, first, 0),
        trial("1-2-8-8", 0.3, third, 1),
        trial("1-2-8-8", None, second, 2),
        trial("1-2-8-8", 0.3, fourth, 3),  # as good, but later
        trial("1-2-8-8", 0.1, longer, 4),  # of another question
        trial("1-2-8-8", 0.1, other_seed, 5),
        trial("2-2-8-8", None, first, 6),
    ]
    best = best_trials(trials, thetas(config))
    assert {str(architecture): found.number for architecture, found in best.items()} == {"1-2-8-8": 1}
    selection, _ = asked(config, trials=trials)
    (row,) = selection["candidates"]
    assert row["hyperparameters"] == {"learning_rate": 1e-2, "batch_size": 8}
    assert (row["trial"], row["error"]) == (1, 0.3)
    assert selection["warnings"] == ["2 trials failed; the table of trials gives their reasons."]
    assert selection["ledger"][-1] == {"what": "7 trials, summed over workers", "seconds": 21.0}


def test_shapes_from_outside_the_space_take_no_part() -> None:
    config = configured(cost="operations")
    settings = thetas(config)[0]
    trials = [trial("1-2-8-8", 0.5, settings), trial("4-4-16-64", 0.01, settings, 1)]
    selection, order = asked(config, trials=trials)
    assert [row["architecture"] for row in selection["candidates"]] == ["1-2-8-8"]
    assert selection["winner"]["architecture"] == "1-2-8-8"
    assert len(order) == len(SPACE)


def test_the_order_draws_the_whole_space_and_marks_the_grid() -> None:
    config = configured(strategy="fptas", epsilon=4, cost="operations")
    costs = SPACE.costs(INPUTS, 8)
    names = [str(costs.architecture(row)) for row in range(len(costs))]
    grid = [names[row] for row in (0, 4, 8, 9)]
    selection, order = asked(config, errors=dict.fromkeys(grid, 0.5))
    assert [row["architecture"] for row in order] == names
    assert [row["architecture"] for row in order if row["grid"]] == grid
    assert [row["architecture"] for row in order if row["trained"]] == grid
    assert [row["cost"] for row in order] == costs.operations.tolist()
    assert [row["parameters"] for row in order] == costs.parameters.tolist()
    assert {row["error"] for row in order} == {0.5, None}
    assert [row["architecture"] for row in selection["candidates"]] == grid
    assert selection["strategy"] == {
        "name": "fptas",
        "epsilon": 4,
        "steps": 4,
        "hyperparameters": [{"learning_rate": 2e-3, "batch_size": 64}],
    }
    assert selection["gap_sentence"].startswith(
        "6 of the 10 candidates that meet the limits known before training were not"
    )


def test_the_gap_is_that_of_the_skipped_and_says_when_it_is_void() -> None:
    config = configured(strategy="fptas", epsilon=4, cost="operations")
    costs = SPACE.costs(INPUTS, 8)
    grid = [str(costs.architecture(row)) for row in (0, 4, 8, 9)]
    falling, _ = asked(config, errors=dict(zip(grid, (0.9, 0.6, 0.3, 0.2), strict=True)))
    assert falling["gap"]["absolute"] == 0
    assert falling["gap_sentence"].endswith(
        "If errors fall as cost rises, none of them is better than the best trained one."
    )
    # W falls with cost: a skipped candidate may have the error of the next trained one above it at a lower cost
    by_w, _ = asked(
        configured(strategy="fptas", epsilon=4, cost="operations", objective="w"),
        errors=dict(zip(grid, (0.9, 0.6, 0.3, 0.2), strict=True)),
    )
    maxima = costs.parameters.max(), costs.operations.max()
    factor = (1 - costs.parameters / maxima[0]) * (1 - costs.operations / maxima[1])
    above = np.array([0.9, 0.6, 0.6, 0.6, 0.6, 0.3, 0.3, 0.3, 0.3, 0.2])
    trained = max(factor[row] / above[row] for row in (0, 4, 8, 9))
    possible = max(factor[row] / above[row] for row in (1, 2, 3, 5, 6, 7))
    assert possible > trained
    assert by_w["gap"]["absolute"] == pytest.approx(possible - trained)
    assert (
        f"may be better than the best trained one by {possible - trained:.4g}, and none by more."
        in by_w["gap_sentence"]
    )
    rising, _ = asked(config, errors=dict(zip(grid, (0.2, 0.3, 0.6, 0.9), strict=True)))
    assert "But 3 pairs of trained neighbours contradict that, so this is no guarantee here." in rising["gap_sentence"]
    whole, _ = asked(configured(cost="operations"), errors=dict.fromkeys(NAMES, 0.5))
    assert whole["gap_sentence"].endswith("known before training were trained.")
    last_failed, _ = asked(config, errors=dict(zip(grid, (0.9, 0.6, 0.3, None), strict=True)))
    assert last_failed["gap_sentence"].endswith("There is no bound on how good they may be.")


@pytest.mark.parametrize(
    ("error", "reference", "keep", "floor"),
    [
        ("embedding", 0.0, 0.9, 0.1),
        ("task", 0.2, 0.75, 0.4),
        ("mlm", 3.0, 0.5, 3.0 + math.log(2)),
        ("logits", 3.0, 1.0, 3.0),
    ],
)
def test_the_floor_is_a_share_of_the_references_quality(
    error: str, reference: float, keep: float, floor: float
) -> None:
    task = {"task": "task.jsonl"} if error == "task" else {}
    config = configured(error=error, objective="latency", keep=keep, **task)
    question = Question.pose(config, SPACE, basis(reference), latencies([1.0] * len(NAMES)))
    assert question.objective.max_error == pytest.approx(floor)


def test_a_floor_without_a_reference_or_without_room_is_refused() -> None:
    measured = latencies([1.0] * len(NAMES))
    config = configured(error="mlm", objective="latency", keep=0.9)
    with pytest.raises(InvalidConfig, match="no reference quality in this run"):
        Question.pose(config, SPACE, basis(None), measured)
    with pytest.raises(InvalidConfig, match="only the teacher itself"):
        Question.pose(configured(objective="latency", keep=1.0), SPACE, basis(0.0), measured)


def test_a_ratio_is_of_the_teachers_latency() -> None:
    times = [float(n + 1) for n in range(len(NAMES))]
    config = configured(max_latency_ratio=0.25)
    question = Question.pose(config, SPACE, basis(), latencies(times, teacher=14.0))
    assert question.objective.max_cost == 3.5
    affordable = [str(question.costs.architecture(row)) for row in np.flatnonzero(question.affordable)]
    assert sorted(affordable) == sorted(NAMES[:3])


def test_what_cannot_be_told_apart_from_the_limit_is_over_it_and_says_so() -> None:
    """The best of all has a latency of 5, and at a limit of 5.02 its visits are on both sides."""
    config = configured(max_latency_ms=5.02)
    values = [1.0, 2.0, 3.0, 4.0, 5.0, *[9.0] * (len(NAMES) - 5)]
    trials = [trial(name, 0.5 - 0.01 * number, thetas(config)[0], number) for number, name in enumerate(NAMES)]
    found = latencies(values, spread=0.01)
    question = Question.pose(config, SPACE, basis(), found)
    assert question.undecided == (NAMES[4],)
    selection, _ = conclude(question, basis(), found, trials)
    assert selection.winner.architecture == NAMES[3]
    row = next(one for one in selection.candidates if one.architecture == NAMES[4])
    assert row.reason == (
        "cannot be told apart from the latency limit: 5 ms, between 4.95 and 5.05, at 5.02 ms; the safer side is taken"
    )
    assert row.latency_interval_ms == pytest.approx((4.95, 5.05))
    told = f"{NAMES[4]} is not told apart from the limit on latency, and counts as over it"
    assert any(warning.startswith(told) for warning in selection.warnings)


def test_w_cannot_be_had_of_an_error_of_zero() -> None:
    errors = {"1-2-8-8": 0.5, "2-2-16-32": 0.0}
    with pytest.raises(InvalidConfig, match="the error of 2-2-16-32 is 0 and W divides by it"):
        asked(configured(objective="w", cost="operations"), errors=errors)
    selection, _ = asked(configured(cost="operations"), errors=errors)  # nothing else divides by it
    assert selection["winner"]["architecture"] == "2-2-16-32"
    assert {row["w"] for row in selection["candidates"]} == {None}


def test_if_all_failed_the_first_reason_is_told() -> None:
    with pytest.raises(TrainingDiverged, match="all 2 trials failed, the first one because: it blew up"):
        asked(configured(cost="operations"), errors={"1-2-8-8": None, "2-2-8-8": None})


def test_if_nothing_was_trained_that_could_be_there_is_nothing_to_conclude() -> None:
    with pytest.raises(InvalidStudy, match="no candidate has been trained yet: resume the run first"):
        asked(configured(cost="operations"), errors={})


def test_limits_that_nobody_meets_name_the_nearest_trained_or_not() -> None:
    times = [float(n + 1) for n in range(len(NAMES))]
    config = configured(max_latency_ms=0.5)
    before, _ = asked(config, errors={}, latencies=latencies(times))
    assert before["nearest"]["row"]["architecture"] == NAMES[0]
    assert before["nearest"]["limits"] == {"max_latency_ms": 1.0}
    assert before["nearest"]["row"]["error"] is None
    assert (before["frontier"], before["ties"]) == ([], [])
    assert before["gap_sentence"] == "None of the 10 candidates meets the limits known before training."
    after, _ = asked(config, errors={NAMES[3]: 0.1, NAMES[5]: 0.2}, latencies=latencies(times))
    assert after["nearest"]["row"] == next(r for r in after["candidates"] if r["architecture"] == NAMES[3])
    assert after["nearest"]["limits"] == {"max_latency_ms": 4.0}
    assert all("over the latency limit" in row["reason"] for row in after["candidates"])
    operations, _ = asked(configured(cost="operations", max_parameters=1), errors={})
    assert set(operations["nearest"]["limits"]) == {"max_parameters"}
    assert "max_operations" in operations["objective"]


def test_rank_agreement_is_with_the_longest_run_or_within_the_run() -> None:
    config = configured(cost="operations")
    settings = thetas(config)[0]
    errors = {name: 0.9 - 0.05 * n for n, name in enumerate(NAMES)}
    trials = [trial(name, error, settings, n) for n, (name, error) in enumerate(errors.items())]
    within, _ = asked(config, trials=trials)
    agreement = within["abnc"]["rank_agreement"]
    assert agreement["steps"] == [2, 4]
    assert agreement["tau"] == 1.0
    longer = [
        trial(name, -error, replace(settings, steps=40), 10 + n) for n, (name, error) in enumerate(errors.items())
    ]
    longest, _ = asked(config, trials=[*trials, *longer[:6]])
    agreement = longest["abnc"]["rank_agreement"]
    assert agreement["steps"] == [4, 40]
    assert (agreement["tau"], agreement["candidates"]) == (-1.0, 6)
    few, _ = asked(config, trials=trials[:2])
    assert few["abnc"]["rank_agreement"] is None


def test_without_a_teacher_there_is_none_to_compare_with() -> None:
    config = load(
        ExtractConfig,
        None,
        {"corpus": ["text"], "error": "mlm", "initialise": "scratch", "strategy": "exhaustive", "latency_length": 8},
    )
    times = [1.0] * len(NAMES)
    errors = dict.fromkeys(NAMES, 2.0)
    selection, _ = asked(config, errors=errors, latencies=latencies(times, None), basis=basis(None, teacher=False))
    assert selection["teacher"] is None
    with_teacher, _ = asked(configured(), errors=errors, latencies=latencies(times))
    assert with_teacher["teacher"] == TEACHER | {"latency_ms": 10.0}
