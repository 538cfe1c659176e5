"""Simulated workers against a schedule by hand, planted violations against their definition, plots against results."""

from __future__ import annotations

import json
import runpy
import sys
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from subarch.numbers.objectives import Objective
from subarch.search import Certified, Exhaustive, Problem
from subarch.search.certified import better_by

AXES = ((1, 2, 3), (64, 128), (128, 256, 384, 512))


def problem(count: int) -> Problem:
    objective = Objective("error", parameters_maximum=9, cost_maximum=9)
    return Problem(np.arange(1, count + 1), np.ones(count), objective)


def test_two_workers_by_hand() -> None:
    from benchmarks.studies.workers import schedule

    #  0: ───┤───────┤      row 0 till 3, row 3 till 7
    #  1: ─┤──┤─────┤       row 1 till 1, row 2 till 3 (told after row 0, asked for later), row 4 till 8
    error, seconds = np.full(5, 0.5), np.array([3.0, 1.0, 2.0, 4.0, 5.0])
    done = schedule(Exhaustive(problem(5)), error, seconds, workers=2)
    assert done.ended == [(1.0, 1), (3.0, 0), (3.0, 2), (7.0, 3), (8.0, 4)]
    assert done.full
    later = schedule(Exhaustive(problem(5)), error, seconds, workers=6, clock=10.0)
    assert later.ended == [(11.0, 1), (12.0, 2), (13.0, 0), (14.0, 3), (15.0, 4)]
    assert not later.full


def test_a_worker_without_work_waits_for_the_next_tell() -> None:
    from benchmarks.studies.workers import schedule

    class Pairs(Exhaustive):
        """Hands out rows 0 and 1, and the next two only when both are told."""

        def ask(self) -> int | None:
            return super().ask() if not self.awaited or self._handed_out % 2 else None

    seconds = np.array([1.0, 3.0, 2.0, 2.0])
    done = schedule(Pairs(problem(4)), np.full(4, 0.5), seconds, workers=3)
    assert done.ended == [(1.0, 0), (3.0, 1), (5.0, 2), (5.0, 3)]
    assert not done.full


def test_what_is_judged_of_a_schedule() -> None:
    from benchmarks.search.tables import synthetic
    from benchmarks.studies.workers import judged

    table = synthetic(AXES, 0)
    cheap, dear = 0, len(table) - 1  # the dearest is the largest, which has the least error
    objective = Objective("error", parameters_maximum=1e9, cost_maximum=1e9)
    of = Problem(table.parameters, table.operations.astype(float), objective)
    took = table.trial[[cheap, dear]]
    found = judged([(took[0], cheap), (took[1], dear)], of, table, workers=4)
    assert found == {
        "seconds": took[1],
        "idle": pytest.approx(1 - took.sum() / (4 * took[1])),
        "trainings": 2,
        "near": took[1],
    }
    assert judged([(took[0], cheap)], of, table, workers=1)["near"] is None


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_a_certified_search_begins_with_its_first_candidates_side_by_side(workers: int) -> None:
    from benchmarks.search.measures import questions
    from benchmarks.search.tables import synthetic
    from benchmarks.studies.workers import search

    table = synthetic(AXES, 1)
    _, of = list(questions(table))[5]
    strategy = Certified(of, 0.01)
    ended = search(strategy, of, table, workers).ended
    first, begun = ended[: len(strategy.first)], [clock - table.trial[row] for clock, row in ended]
    assert {row for _, row in first} == set(strategy.first)
    assert min(begun[len(first) :]) == pytest.approx(first[-1][0])
    assert all(before <= after for (before, _), (after, _) in pairwise(ended))
    for moment in begun:  # never more at a time than there are workers
        running = [start <= moment < clock - 1e-9 for start, (clock, _) in zip(begun, ended, strict=True)]
        assert sum(running) <= workers
    assert strategy.done
    assert strategy.evidence().closed
    value = of.objective.value(of.parameters, of.cost, table.error())
    assert better_by(float(value.min()), float(value[strategy.evidence().incumbent])) <= 0.01


def test_planted_violations_lie_below_what_is_one_step_larger() -> None:
    from benchmarks.search.tables import synthetic
    from benchmarks.studies.violations import planted

    table = synthetic(AXES, 2)
    error, sizes = table.error(), table.shapes[:, [0, 2, 3]]
    larger = (sizes[None] >= sizes[:, None]).all(axis=2) & ~np.eye(len(error), dtype=bool)
    least = np.where(larger, error, np.inf).min(axis=1)  # of monotone errors: that of all
    step = [np.unique(column, return_inverse=True)[1] for column in sizes.T]
    apart = sum(abs(position[:, None] - position) for position in step)
    neighbour = np.where(larger & (apart == 1), error, np.inf).min(axis=1)
    top = np.isinf(least)
    assert top.sum() == 1
    assert (planted(table, 0.0, seed=3) == error).all()
    every = planted(table, 1.0, seed=3)
    assert (every[~top] <= 0.98 * neighbour[~top]).all()
    assert (every[~top] >= 0.7 * neighbour[~top]).all()
    assert every[top] == error[top]
    few, more = planted(table, 0.2, seed=3), planted(table, 0.5, seed=3)
    assert set(np.flatnonzero(few != error)) < set(np.flatnonzero(more != error))
    assert (more == every)[more != error].all()


def test_one_search_serves_all_audits_and_is_judged_as_each_would_be() -> None:
    from benchmarks.search.measures import asked, questions
    from benchmarks.search.tables import synthetic
    from benchmarks.studies.violations import judged, planted

    seen = 0
    for seed in range(4):
        table = synthetic(AXES, seed)
        _, of = list(questions(table))[seed]
        error = planted(table, 0.3, seed)
        together = Certified(of, 0.01)
        for together.audit.size in (0, 3, 9):
            list(asked(together, error))
            alone = Certified(of, 0.01, together.audit.size)
            list(asked(alone, error))
            assert alone.evidence() == together.evidence()
            found = judged(together, error)
            assert found == judged(alone, error)
            assert found["widened"]
            seen += bool(found["seen"])
    assert seen


def test_a_false_certificate_is_known_as_one() -> None:
    from benchmarks.studies.violations import judged

    # The larger two share an error of 0.5, and exclude the least, which has 0.3
    shapes = np.array([[1, 1, 8, 8], [1, 1, 8, 16], [1, 1, 16, 16]])
    objective = Objective("error", parameters_maximum=9, cost_maximum=9)
    of = Problem(np.array([1, 2, 3]), np.array([1.0, 2.0, 3.0]), objective, shapes)
    search = Certified(of, 0.01)
    for row in (1, 2):
        search.recall(row, 0.5)
    found = judged(search, np.array([0.3, 0.5, 0.5]))
    assert (found["false"], found["seen"], found["widened"]) == (True, False, True)
    assert found["off"] == pytest.approx(0.4)
    # Rows 0 and 1 are excluded by another's error, and row 0 contradicts it; nothing was drawn, so nothing is stated
    assert (found["excluded"], found["contradict"], found["failing"], found["held"]) == (2, 1, 1.0, True)
    search.recall(0, 0.3)
    found = judged(search, np.array([0.3, 0.5, 0.5]))
    assert (found["false"], found["seen"], found["widened"], found["off"]) == (False, True, True, 0.0)


@pytest.mark.parametrize("script", ["workers", "violations"])
def test_the_simulations_run(
    script: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    results = tmp_path / "results.json"
    monkeypatch.setattr(sys, "argv", [f"{script}.py", "--quick", "--results", str(results)])
    runpy.run_module(f"benchmarks.studies.{script}", run_name="__main__")
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    raw = json.loads(results.read_text())["parts"][script]["found"]
    if script == "workers":
        assert found["24"]["searches"] == 2
        assert 1 <= found["24"]["speedup_4"] <= 4
        assert [run["idle"] for run in raw["24"]["exhaustive"]["1"]] == pytest.approx([0, 0])
        assert [run["idle"] for run in raw["24"]["certified"]["1"]] == pytest.approx([0, 0])
    else:
        assert found["runs"] == 7 * len(raw) * len(raw["0.0"])
        assert (found["false_without_violations"], found["seen_and_not_widened"]) == (0, 0)
        assert sum(raw["0.0"]["59"]["seen"]) == 0


def test_noise_as_it_was_recorded_is_about_a_monotone_truth_and_a_claim_on_it_holds() -> None:
    from benchmarks.search.measures import questions
    from benchmarks.search.tables import recorded
    from benchmarks.studies.claims import claimed, monotone, recorded_noise
    from benchmarks.studies.recording import contradictions

    table = recorded(Path(__file__).parents[1] / "benchmarks" / "search" / "minilm.parquet")
    true = monotone(table)
    assert contradictions(table.shapes, true)["contradict"] == 0
    assert 0 <= (true - table.error()).min() <= (true - table.error()).max() < 0.003
    noisy = recorded_noise(table, 3)
    off = noisy.errors[:, 0] - true
    shift = off.mean(axis=1, keepdims=True)
    assert 0.0005 < (off - shift).std() < 0.0015
    found = claimed(dict(questions(noisy))["error at 0.2"], noisy)
    assert found["held"]
    assert found["reached"] < 0.03


def test_selections_agree_if_either_names_the_others_choice() -> None:
    from benchmarks.studies.repeatability import agree

    error = {"a": 0.30, "b": 0.304, "c": 0.32}
    chosen = {name: {"selected": name, "undecided": []} for name in error}
    none = {"selected": None, "undecided": []}
    assert agree(chosen["a"], chosen["a"], error)
    assert agree(chosen["a"], chosen["b"], error)  # their errors differ by less than the noise
    assert not agree(chosen["a"], chosen["c"], error)
    assert agree(chosen["c"], {"selected": "a", "undecided": ["c"]}, error)
    assert not agree(none, chosen["a"], error)
    assert agree({"selected": None, "undecided": ["a"]}, chosen["a"], error)
