"""Cheap errors: what is trained for them, how they are used, and that no certificate rests on them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from subarch.errors import InvalidConfig
from subarch.extraction.config import ExtractConfig
from subarch.extraction.hints import hints
from subarch.extraction.question import Question
from subarch.extraction.study import Study, sqlite
from subarch.extraction.trial import Settings, Trial
from subarch.extraction.verify import verify
from subarch.numbers.architecture import Architecture, Inputs
from subarch.numbers.objectives import Objective
from subarch.numbers.space import SearchSpace
from subarch.pipeline import extract
from subarch.run.folder import RunFolder
from subarch.search import Certified, Problem
from subarch.search.lattice import Lattice
from subarch.search.law import Law
from tiny_run import OneProcess, tiny_config

CERTIFIED: dict[str, Any] = {"strategy": "certified", "delta": 0.02, "repeats": 1, "audit": 0, "max_parameters": 9_000}


@pytest.fixture(autouse=True)
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subarch.pipeline.Workers", OneProcess)


class Recorded:
    """A pool that trains nothing: the error is a function of the job. `jobs` are those it was given."""

    count = free = 1

    def __init__(self, error: Any) -> None:
        self.error, self.jobs = error, list[tuple[Architecture, Settings]]()
        self._new: list[tuple[Architecture, Settings]] = []

    def __enter__(self) -> Recorded:
        return self

    def __exit__(self, *_: object) -> None: ...

    def submit(self, architecture: Architecture, settings: Settings) -> None:
        self.jobs.append((architecture, settings))
        self._new.append((architecture, settings))

    def next(self) -> Iterator[Trial]:
        while self._new:
            job = self._new.pop(0)
            error = self.error(*job)
            yield Trial(*job, error, (), 1.0, 1, None if error is not None else "diverged")


BASIS = {
    "inputs": asdict(Inputs(100, 64, 2, 32)),
    "teacher": {"architecture": "3-4-32-64"},
    "reference_error": 0.0,
}
AXES = {"depth": [0, 1, 2, 3], "heads": [4], "hidden": [16, 32], "intermediate": [16, 64]}


def posed(folder: Path, **changes: Any) -> Question:
    config = tiny_config(folder, **{"strategy": "certified", "steps": 40} | changes)
    space = SearchSpace(**{name: tuple(values) for name, values in AXES.items()}, head_size=8)
    return Question.pose(config, space, BASIS, None)


def by_name(question: Question, found: dict[int, float]) -> dict[str, float]:
    return {str(question.costs.architecture(row)): error for row, error in found.items()}


def true(shape: Architecture) -> float:
    return 1 / (shape.depth * shape.hidden * shape.intermediate)


def test_halving_trains_the_better_half_longer(tmp_path: Path) -> None:
    """An error of steps^-1 exactly: what was left behind is put where the others are, 2 and 4 times as low."""
    question = posed(tmp_path, hints="rungs")
    pool = Recorded(lambda shape, theta: true(shape) / theta.steps)
    study = Study.open(sqlite(tmp_path / "study.db"), "x", {})
    found = by_name(question, hints(question, study, pool, tmp_path))
    steps = [theta.steps for _, theta in pool.jobs]
    assert (steps.count(5), steps.count(10), steps.count(20), len(steps)) == (12, 6, 3, 21)
    shapes = [Architecture(d, 4, h, i) for d in (1, 2, 3) for h in (16, 32) for i in (16, 64)]
    assert {shape for shape, theta in pool.jobs if theta.steps == 20} == set(sorted(shapes, key=true)[:3])
    assert found == pytest.approx({str(shape): true(shape) / 20 for shape in shapes})
    again = Recorded(None)
    assert by_name(question, hints(question, study, again, tmp_path)) == found
    assert not again.jobs


def test_of_each_hidden_size_the_largest_is_trained_and_the_others_begin_as_its_parts(tmp_path: Path) -> None:
    question = posed(tmp_path, hints="warm", max_parameters=16_000)
    pool = Recorded(lambda shape, theta: true(shape))
    found = hints(question, Study.open(sqlite(tmp_path / "study.db"), "x", {}), pool, tmp_path)
    assert set(found) == {row for row in np.flatnonzero(question.affordable) if question.costs.table[row, 0]}
    full = Settings(40, 2e-3, 16)
    largest = {16: Architecture(3, 4, 16, 64), 32: Architecture(3, 4, 32, 64)}
    assert {job for job in pool.jobs if job[1].parent is None} == {(shape, full) for shape in largest.values()}
    parts = [job for job in pool.jobs if job[1].parent is not None]
    assert len(parts) == len(found)
    assert all(theta == replace(full, steps=5, parent=largest[shape.hidden], parent_steps=40) for shape, theta in parts)


def test_parts_of_a_network_that_failed_have_no_hint(tmp_path: Path) -> None:
    question = posed(tmp_path, hints="supernet")
    pool = Recorded(lambda shape, theta: None if theta.parent is None and shape.hidden == 16 else true(shape))
    found = by_name(question, hints(question, Study.open(sqlite(tmp_path / "study.db"), "x", {}), pool, tmp_path))
    assert len(found) == 6
    assert all(Architecture.parse(name).hidden == 32 for name in found)
    assert {(theta.steps, theta.elastic) for _, theta in pool.jobs} == {(40, True), (0, True)}
    hinted = question.hinted(hints(question, Study.open(sqlite(tmp_path / "study.db"), "x", {}), pool, tmp_path))
    assert hinted.problem.hints is not None
    assert np.isnan(hinted.problem.hints).sum() == len(question.costs) - 6


@pytest.mark.parametrize("kind", ["rungs", "warm", "supernet"])
def test_a_whole_run(kind: str, tmp_path: Path) -> None:
    selection = extract(tiny_config(tmp_path, **CERTIFIED, hints=kind), tmp_path / "run")
    verify(tmp_path / "run")
    run = RunFolder.open(tmp_path / "run")
    trials = [Trial.from_dict(one) for one in run.read("conclusion")["trials"]]
    cheap = [one for one in trials if one.settings.steps < 6 or one.settings.elastic or one.settings.parent]
    assert len(cheap) >= 4
    full = {str(one.architecture) for one in trials if one not in cheap}
    assert set(selection["certificate"]["trained"]) == full
    before = OneProcess.submitted
    assert extract(run.config(ExtractConfig), tmp_path / "run", resume=True) == selection
    assert OneProcess.submitted == before


def test_killed_between_hints_it_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tiny_config(tmp_path, **CERTIFIED, hints="supernet")
    expected = extract(config, tmp_path / "whole")
    record, left = Study.record, 4

    def dying(study: Study, trial: Trial) -> None:
        nonlocal left
        if not left:
            raise KeyboardInterrupt
        left -= 1
        record(study, trial)

    monkeypatch.setattr(Study, "record", dying)
    with pytest.raises(KeyboardInterrupt):
        extract(config, tmp_path / "killed")
    monkeypatch.setattr(Study, "record", record)
    for weights in (tmp_path / "killed" / "weights").iterdir():
        weights.unlink()  # the study knows the networks, and their weights are gone
    assert extract(config, tmp_path / "killed", resume=True)["certificate"] == expected["certificate"]


def test_a_law_with_hints_knows_their_order_and_learns_their_scale() -> None:
    space = SearchSpace((1, 2, 3), (4,), (16, 32, 64), (16, 64))
    lattice = Lattice(space.table)
    hinted = np.random.default_rng(0).uniform(0.1, 0.5, len(space))
    law = Law(lattice, hinted)
    rows = np.arange(len(space))
    before = law.fit(rows[:0], np.empty(0))[lattice.cell]
    assert (np.argsort(before) == np.argsort(hinted)).all()
    after = law.fit(rows[:1], 0.3 * hinted[:1])[lattice.cell]
    np.testing.assert_allclose(after, 0.3 * hinted, rtol=1e-4)
    hinted[4] = math.nan
    assert np.isfinite(Law(lattice, hinted).fit(rows[:1], hinted[:1])).all()


def test_with_exact_hints_the_first_training_is_the_optimum() -> None:
    space = SearchSpace((1, 2, 3, 4), (4,), (16, 32, 64), (16, 32, 64))
    e = np.random.default_rng(1).uniform(0.1, 0.5, len(space))
    objective = Objective("error", parameters_maximum=100.0, cost_maximum=100.0, max_cost=60.0)
    cost = np.linspace(1, 100, len(space))
    problem = Problem(np.full(len(space), 10), cost, objective, space.table, hints=e)
    search = Certified(problem, 0.01)
    row = search.ask()
    assert row == np.flatnonzero(cost <= 60)[e[cost <= 60].argmin()]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"strategy": "fptas", "hints": "warm"}, "would not be used with strategy 'fptas'"),
        ({"hints": "rungs", "objective": "latency", "keep": 0.9, "cost": "latency"}, "no candidate meets"),
        ({"hints": "rung"}, "rung"),
    ],
)
def test_hints_that_make_no_sense_are_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=message):
        tiny_config(tmp_path, **{"strategy": "certified"} | changes)


def test_trials_written_before_there_were_hints_are_read(tmp_path: Path) -> None:
    trial = Trial(Architecture(1, 4, 16, 16), Settings(4, 1e-3, 8), 0.5, (), 1.0, 1)
    told = trial.to_dict()
    assert json.loads(json.dumps(told))["start"] is None
    del told["start"]
    assert Trial.from_dict(told) == trial
    parent = replace(trial.settings, elastic=True, parent=Architecture(3, 4, 16, 64), parent_steps=9)
    assert Trial.from_dict(replace(trial, settings=parent).to_dict()).settings == parent
