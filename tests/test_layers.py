"""Layers by trial: against brute force, in any order of ending, after any kill, and what later stages make of it."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from signal import SIGKILL

import pytest
import torch

from forked import dies, fork
from subarch.errors import InvalidStudy
from subarch.extraction.config import ExtractConfig
from subarch.extraction.layers import choose_layers, neighbours, proposals, rises, sentence, take_over
from subarch.extraction.question import thetas
from subarch.extraction.trial import Settings, Trial
from subarch.extraction.workbench import Workbench, make_basis
from subarch.models.inherit import inherit
from subarch.models.teacher import Teacher
from subarch.numbers.architecture import Architecture
from subarch.numbers.space import SearchSpace
from subarch.pipeline import extract, select
from subarch.pretraining.config import PretrainConfig
from subarch.pretraining.setup import Setup
from subarch.run.configuration import load
from subarch.run.folder import RunFolder
from subarch.run.records import Layers, LayerTrial, Selection
from subarch.show.search import Search, view
from tiny import tiny_teacher
from tiny_run import OneProcess, tiny_config

Error = Callable[[tuple[int, ...], int], float | None]
SPACE = SearchSpace((0, 1, 2, 3, 6), (2, 4), (16, 32), (16, 64))
CONFIG = load(ExtractConfig, None, {"teacher": "t", "corpus": ["c"], "steps": 100})


class Table:
    """A pool that looks errors up; `shuffled`: the order in which trainings end is any."""

    count = 3

    def __init__(self, error: Error, shuffled: int | None = None, dies_after: int = 10**9) -> None:
        self.error, self.random, self.left = error, shuffled and random.Random(shuffled), dies_after
        self.asked: list[tuple[int, tuple[int, ...], int]] = []
        self._waiting: list[tuple[Architecture, Settings]] = []

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *exception: object) -> None: ...

    @property
    def free(self) -> int:
        return self.count

    def submit(self, architecture: Architecture, settings: Settings) -> None:
        assert settings.layers is not None
        self.asked.append((architecture.depth, settings.layers, settings.steps))
        self._waiting.append((architecture, settings))

    def next(self) -> Iterator[Trial]:
        if self.random:
            self.random.shuffle(self._waiting)
        for shape, settings in self._waiting[:2]:
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            self._waiting.remove((shape, settings))
            assert settings.layers is not None
            yield Trial(shape, settings, self.error(settings.layers, settings.steps), (), 1.0, 1)


def empty(path: Path, ranked: tuple[int, ...] = (5, 4, 0, 1, 3, 2)) -> RunFolder:
    """A run in which nothing is chosen yet."""
    path.mkdir(exist_ok=True)
    run = RunFolder(path)
    run.write(Layers(start="x", ranked=ranked, trials=(), chosen={}))
    return run


def towards(*target: int) -> Error:
    """The error is how far the layers are from these, well below a constant's; shorter runs blur it."""

    def error(kept: tuple[int, ...], steps: int) -> float:
        return (sum(min(abs(layer - wanted) for wanted in target) for layer in kept) + 1 / steps) / 20

    return error


def test_it_proposes_what_is_known_to_be_good() -> None:
    assert proposals(2, (5, 4, 0, 1, 3, 2)) == {
        "greedy removal": (4, 5),
        "lowest": (0, 1),
        "evenly spread": (0, 5),
        "highest": (4, 5),
    }
    assert proposals(1, (3, 1, 0, 2))["evenly spread"] == (2,)
    for count in (2, 3, 6, 12):
        for depth in range(1, count):
            for kept in proposals(depth, range(count)).values():
                assert len(set(kept)) == depth
                assert kept == tuple(sorted(kept))
                assert set(kept) <= set(range(count))


def test_neighbours_are_all_subsets_that_differ_in_one_step_of_one_layer() -> None:
    for count, depth in ((3, 1), (5, 2), (6, 3), (6, 5)):
        every = list(combinations(range(count), depth))
        for kept in every:
            near = {
                other
                for other in every
                if sorted(map(abs, (a - b for a, b in zip(kept, other, strict=True))))[-2:] in ([1], [0, 1])
            }
            assert set(neighbours(kept, count)) == near


@pytest.mark.parametrize("target", combinations(range(6), 2))
def test_the_best_neighbour_of_the_best_proposal_wins_in_whatever_order_trainings_end(
    tmp_path: Path, target: tuple[int, int]
) -> None:
    error = towards(*target)
    runs = [empty(tmp_path / str(order)) for order in range(3)]
    for order, run in enumerate(runs):
        choose_layers(run, CONFIG, SPACE, Table(error, shuffled=order))
    assert len({json.dumps(run.read(Layers).chosen) for run in runs}) == 1
    found = runs[0].read(Layers)
    assert found.chosen.keys() == {"1", "2", "3"}
    for depth, kept in found.chosen.items():
        first = min(proposals(int(depth), found.ranked).values(), key=lambda some: error(some, 5))
        assert error(kept, 20) <= min(error(some, 20) for some in (first, *neighbours(first, 6)))
        assert error(kept, 20) <= error(tuple(sorted(found.ranked[: int(depth)])), 20)


def test_few_go_on_to_longer_trainings(tmp_path: Path) -> None:
    pool = Table(towards(1, 2))
    choose_layers(empty(tmp_path), CONFIG, SPACE, pool)
    assert len(pool.asked) == len(set(pool.asked))
    for depth in (1, 2, 3):
        by_steps = {steps: {kept for d, kept, s in pool.asked if (d, s) == (depth, steps)} for steps in (5, 10, 20)}
        assert len(by_steps[20]) == 2 < len(by_steps[10]) == 4 < len(by_steps[5])
        assert by_steps[20] < by_steps[10] < by_steps[5]
    rows = RunFolder(tmp_path).read(Layers).trials
    assert {row.architecture for row in rows} == {"1-4-32-64", "2-4-32-64", "3-4-32-64"}  # the largest of each depth
    assert {row.proposed for row in rows} >= {"greedy removal", "lowest", "neighbour of the best"}
    assert sum(depth * steps for depth, _, steps in pool.asked) < 3 * 6 * CONFIG.steps  # three of the start


def test_where_errors_tell_nothing_trials_are_longer(tmp_path: Path) -> None:
    """Two layers know nothing before 30 steps: what is best at 5 leads nowhere, and 1, 4 is a neighbour of 1, 5."""

    def error(kept: tuple[int, ...], steps: int) -> float:
        if len(kept) != 2:
            return towards(1, 4)(kept, steps)
        return towards(1, 4)(kept, steps) if steps > 30 else 1 + sum(kept) / 100

    of_outputs = CONFIG.model_copy(update={"error": "outputs"})
    pool, run = Table(error), empty(tmp_path / "share", ranked=(5, 1, 0, 4, 3, 2))
    choose_layers(run, of_outputs, SPACE, pool)
    assert run.read(Layers).chosen["2"] == (1, 4)
    steps = {depth: sorted({s for d, _, s in pool.asked if d == depth}) for depth in (1, 2, 3)}
    assert steps == {1: [5, 10, 20], 2: [5, 10, 20, 40, 80, 100], 3: [5, 10, 20]}
    assert sum(s == 80 for d, _, s in pool.asked if d == 2) == 4
    never = Table(lambda kept, steps: 1.0)
    choose_layers(empty(tmp_path / "never"), of_outputs, SPACE, never)
    assert sorted({s for _, _, s in never.asked}) == [5, 10, 20, 40, 80, 100]
    assert sum(s == 80 for d, _, s in never.asked if d == 2) == 4
    assert sum(s == 100 for d, _, s in never.asked if d == 2) == 2
    of_texts = Table(error)
    choose_layers(empty(tmp_path / "texts"), CONFIG, SPACE, of_texts)
    assert {s for _, _, s in of_texts.asked} == {5, 10, 20}


def test_what_was_best_below_is_proposed_with_more_layers(tmp_path: Path) -> None:
    """Without it a depth could end with a greater error than the one below, which the certificate presumes not."""
    pool, run = Table(towards(0, 2)), empty(tmp_path, ranked=(4, 5, 3, 1, 0, 2))
    choose_layers(run, CONFIG, SearchSpace((2, 3), (4,), (32,), (64,)), pool)
    assert (3, (0, 2, 4), 5) in pool.asked  # 0, 2 was best, and removal keeps 4 longest
    assert "best of depth 2, grown" in {row.proposed for row in run.read(Layers).trials if row.layers == (0, 2, 4)}


def test_trainings_that_fail_are_behind_all_others(tmp_path: Path) -> None:
    some = empty(tmp_path / "some")
    choose_layers(some, CONFIG, SPACE, Table(lambda kept, steps: None if 5 in kept else 1.0 + kept[0]))
    assert some.read(Layers).chosen == {"1": (0,), "2": (0, 1), "3": (0, 1, 2)}
    every = empty(tmp_path / "every")
    choose_layers(every, CONFIG, SPACE, Table(lambda kept, steps: None))
    assert every.read(Layers).chosen == {"1": (5,), "2": (4, 5), "3": (0, 4, 5)}


def test_what_has_ended_is_not_trained_again(tmp_path: Path) -> None:
    whole, error = Table(towards(1, 4), shuffled=1), towards(1, 4)
    choose_layers(empty(tmp_path / "whole"), CONFIG, SPACE, whole)
    run, ended, asked = empty(tmp_path / "run"), 0, 0
    for _ in range(100):
        pool = Table(error, dies_after=7)
        try:
            choose_layers(run, CONFIG, SPACE, pool)
            break
        except KeyboardInterrupt:
            assert len(run.read(Layers).trials) == ended + 7
            assert run.read(Layers).chosen == {}
            ended += 7
            asked += 1
    assert asked > 3
    assert ended + 7 - pool.left == len(whole.asked)
    found, expected = run.read(Layers), RunFolder(tmp_path / "whole").read(Layers)
    assert found.chosen == expected.chosen
    assert set(found.trials) == set(expected.trials)
    pool = Table(error)
    choose_layers(run, CONFIG, SPACE, pool)
    assert (pool.asked, run.read(Layers)) == ([], found)


def test_where_there_is_no_choice_nothing_is_tried(tmp_path: Path) -> None:
    pool = Table(towards(0))
    (tmp_path / "scratch").mkdir()
    choose_layers(RunFolder(tmp_path / "scratch"), CONFIG, SPACE, pool)  # inherits nothing
    assert not list((tmp_path / "scratch").glob("*.json"))
    whole = empty(tmp_path / "whole")
    choose_layers(whole, CONFIG, SearchSpace((0, 6, 8), (4,), (32,), (64,)), pool)
    assert pool.asked == []
    assert (whole.read(Layers).chosen, sentence(whole.read(Layers))) == ({}, None)


def test_an_error_that_rises_with_depth_is_said(tmp_path: Path) -> None:
    run = empty(tmp_path)
    choose_layers(run, CONFIG, SPACE, Table(lambda kept, steps: 1.0 if len(kept) == 3 else 0.9 / len(kept)))
    assert rises(run.read(Layers)) == [(2, 3)]
    choose_layers(empty(tmp_path), CONFIG, SPACE, Table(lambda kept, steps: 1 / len(kept)))
    assert rises(run.read(Layers)) == []


def test_the_choice_of_another_run_is_taken_over(tmp_path: Path) -> None:
    theirs, ours = empty(tmp_path / "theirs"), empty(tmp_path / "ours")
    choose_layers(theirs, CONFIG, SearchSpace((1, 2), (4,), (32,), (64,)), Table(towards(1, 2)))
    take_over(ours, theirs)
    assert ours.read(Layers) == theirs.read(Layers)
    pool = Table(towards(4, 5))
    choose_layers(ours, CONFIG, SPACE, pool)
    assert {depth for depth, _, _ in pool.asked} == {3}
    take_over(ours, theirs)  # as when it goes on
    assert len(ours.read(Layers).trials) == len(theirs.read(Layers).trials) + len(pool.asked)
    other = empty(tmp_path / "other")
    choose_layers(other, CONFIG, SPACE, Table(towards(4, 5)))
    with pytest.raises(InvalidStudy, match="other: its candidates of depth 1 keep the layers 5 of the start"):
        take_over(ours, other)


# With real trainings


AXES = {"depth": [1, 2, 3, 4], "heads": [4], "hidden": [32], "intermediate": [64]}
TRIED = SearchSpace.from_dict(AXES)


def teacher_with(folder: Path, useless: int) -> Path:
    """A teacher of four layers, of which one does nothing but to normalise what is normalised."""
    teacher = Teacher.load(tiny_teacher(folder, layers=4, seed=3))
    layer = teacher.encoder.encoder.layer[useless]
    with torch.no_grad():
        for part in (layer.attention.output, layer.output):
            part.dense.weight.zero_()
            part.dense.bias.zero_()
            part.LayerNorm.weight.fill_(1.0)
            part.LayerNorm.bias.zero_()
    teacher.encoder.save_pretrained(folder)
    return folder


def chosen_in(folder: Path, run: Path, **changes: object) -> tuple[Workbench, Layers]:
    config = tiny_config(folder, steps=20, **changes)
    made = RunFolder.create(run, config, resume=True)
    make_basis(made, config, lambda *_: None)
    with OneProcess(config, run, 1) as workers:
        choose_layers(made, config, TRIED, workers)
    return Workbench.open(config, run), made.read(Layers)


@pytest.mark.parametrize(
    "useless",
    [pytest.param(0, marks=pytest.mark.slow), 1, *(pytest.param(at, marks=pytest.mark.slow) for at in (2, 3))],
)
def test_the_layers_are_those_of_brute_force_where_one_is_useless(tmp_path: Path, useless: int) -> None:
    teacher_with(tmp_path / "teacher", useless)
    bench, found = chosen_in(tmp_path, tmp_path / "run")
    theta = replace(thetas(bench.config)[0], steps=4)  # a fifth of the steps

    def error(kept: tuple[int, ...]) -> float:
        trial = bench.train(Architecture.parse(f"{len(kept)}-4-32-64"), replace(theta, layers=kept))
        assert trial.error is not None
        assert len(trial.curve) == 1  # measured at the end alone
        return trial.error

    errors = {kept: error(kept) for kept in combinations(range(4), 3)}
    assert found.chosen["3"] == min(errors, key=lambda kept: errors[kept])
    assert found.chosen["3"] == tuple(layer for layer in range(4) if layer != useless)
    last = {trial.layers: trial.error for trial in found.trials if trial.steps == 4 and len(trial.layers) == 3}
    assert last == {kept: errors[kept] for kept in last}  # bit for bit


def test_candidates_keep_the_layers_that_were_chosen_and_the_whole_depth_all(tmp_path: Path) -> None:
    bench, found = chosen_in(tmp_path, tmp_path / "run")
    teacher, anatomy = bench.material.teacher, bench.anatomy
    assert isinstance(teacher, Teacher)
    assert anatomy is not None
    assert not list((tmp_path / "run" / "weights").glob("*"))  # of trials nothing is kept
    for depth in (1, 2, 3):
        shape = Architecture.parse(f"{depth}-4-32-64")
        kept = list(range(depth))  # other layers than removal would keep
        RunFolder(tmp_path / "run").write(found.model_copy(update={"chosen": {str(depth): tuple(kept)}}))
        expected = inherit(shape, bench.blueprint, teacher, anatomy, kept)
        for a, b in zip(bench.student(shape).parameters(), expected.parameters(), strict=True):
            assert torch.equal(a, b)
        assert sorted(anatomy.keep[:depth]) != kept or depth == 3
    student = bench.student(Architecture.parse("3-4-32-64"))
    assert len(student.encoder.encoder.layer) == 3
    assert "3" not in found.chosen


def test_a_pretraining_inherits_the_layers_that_the_search_of_its_run_chose(tmp_path: Path) -> None:
    bench, found = chosen_in(tmp_path, tmp_path / "run")
    run, shape = RunFolder(tmp_path / "run"), Architecture.parse("1-4-32-64")
    assert bench.anatomy is not None
    values = {"teacher": str(tmp_path / "teacher"), "corpus": bench.config.corpus, "initialise": "inherit"}

    def values_of(chosen: dict[str, tuple[int, ...]], start: str) -> torch.Tensor:
        run.write(found.model_copy(update={"chosen": chosen, "start": start}))
        setup = Setup.load(load(PretrainConfig, None, values), run.path, shape)
        return setup.distiller.student.encoder.encoder.layer[0].output.dense.weight

    least, other = bench.anatomy.keep[0], bench.anatomy.keep[-1]
    assert isinstance(bench.material.teacher, Teacher)
    layers = bench.material.teacher.encoder.encoder.layer
    assert torch.equal(values_of({"1": (other,)}, found.start), layers[other].output.dense.weight)
    assert torch.equal(values_of({}, found.start), layers[least].output.dense.weight)
    assert torch.equal(values_of({"1": (other,)}, "of another teacher"), layers[least].output.dense.weight)


@pytest.mark.slow
def test_a_killed_trial_goes_on_and_ends_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subarch.pipeline.Workers", OneProcess)
    space = tmp_path / "space.yaml"
    space.write_text(json.dumps(AXES | {"depth": [1, 3]}), encoding="utf-8")
    config = tiny_config(tmp_path, space=str(space), epsilon=1)
    selection = extract(config, tmp_path / "whole")
    whole = RunFolder(tmp_path / "whole").read(Layers)
    assert whole.chosen.keys() == {"1"}

    def killed() -> None:
        Workbench.train = dies(Workbench.train, 3)  # type: ignore[method-assign]
        extract(config, tmp_path / "run")

    assert fork(killed) == [-SIGKILL]
    assert len(RunFolder(tmp_path / "run").read(Layers).trials) == 2
    again = extract(config, tmp_path / "run", resume=True)
    found = RunFolder(tmp_path / "run").read(Layers)

    def known(record: Layers) -> list[object]:
        return [trial.model_copy(update={"seconds": 0.0}) for trial in record.trials]

    assert known(found) == known(whole)
    assert found.chosen == whole.chosen
    assert [row.error for row in again.candidates] == [row.error for row in selection.candidates]


def test_it_is_counted_said_and_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subarch.pipeline.Workers", OneProcess)
    selection = extract(tiny_config(tmp_path, epsilon=5), tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    found = run.read(Layers)
    ledger = {row.what: row.seconds for row in selection.ledger}
    what = f"{len(found.trials)} short trainings to choose layers, summed over workers"
    assert ledger[what] == found.seconds == sum(trial.seconds for trial in found.trials) > 0
    one, two = (", ".join(map(str, found.chosen[depth])) for depth in "12")
    assert selection.layers_sentence == (
        f"Layers kept, by {len(found.trials)} short trainings, counted from 0, for each depth: "
        f"1: {one}; 2: {two} (of 3)."
    )
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert "Which layers are kept" in page
    assert selection.layers_sentence in page
    table = view(Search(selection=run.read(Selection), trials=(), order=(), config={}, layers=found))["layers"]
    assert [column.title for column in table.columns][:3] == ["⟨D, A, H, I⟩", "Layers", "Proposed by"]
    winners = [[cell.text for cell in row.cells] for row in table.rows if row.emphasis == "winner"]
    assert [cells[:2] for cells in winners] == [["1-4-32-64", one], ["2-4-32-64", two]]
    assert len(table.rows) == len({(trial.architecture, trial.layers) for trial in found.trials})

    def risen(trial: LayerTrial) -> LayerTrial:
        return trial.model_copy(update={"error": float(trial.architecture[0])})

    run.write(found.model_copy(update={"trials": tuple(map(risen, found.trials))}))
    again = select(tmp_path / "run", {"max_parameters": 10**9})
    assert [text for text in again.warnings if "the error was greater at depth 2 than at depth 1" in text]
    assert not [text for text in selection.warnings if "greater at depth" in text] or rises(found)
