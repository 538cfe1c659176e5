"""Latencies of a search: what is measured, in which blocks, what is predicted, and that no decision rests on a guess.

The runtime is a stand-in that looks latencies up in a table and notes what was asked of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subarch.errors import InvalidConfig, InvalidCorpus, InvalidStudy, MissingExtra
from subarch.extraction import latencies as module
from subarch.extraction.conclude import measurement
from subarch.extraction.config import ExtractConfig
from subarch.extraction.latencies import MOST_MEASURED, check_runtime, confirm, decisive, measure_latencies
from subarch.extraction.question import Question
from subarch.latency.interval import interval, side
from subarch.latency.measuring import ANCHORS, Candidates, LatencyCache, Stopwatch, untrained
from subarch.models.sentence import Recipe
from subarch.models.student import Blueprint, Student, hand_over
from subarch.models.teacher import Teacher
from subarch.numbers.architecture import Architecture, Inputs
from subarch.numbers.space import SearchSpace
from subarch.pipeline import extract, select
from subarch.run import records, silent
from subarch.run.folder import RunFolder
from subarch.run.records import Basis, EmbeddingRecipe, EncoderBlueprint, EncoderInputs, Latencies, Predicted
from tiny import tiny_teacher
from tiny_export import exported, with_corpus
from tiny_run import OneProcess, tiny_config

SPACE = SearchSpace((0, 1, 2, 3, 4), (2, 4), (8, 16, 32), (8, 16, 32), "small")
INPUTS = Inputs(vocabulary=50, positions=40, output=32)
BASIS = Basis(
    inputs=EncoderInputs(**asdict(INPUTS)),
    blueprint=EncoderBlueprint(**asdict(Blueprint("bert", INPUTS, settings={"pad_token_id": 0}))),
    recipe=EmbeddingRecipe(**asdict(Recipe(max_length=24))),
    identity={"teacher": "abc"},
    reference_error=0.0,
    constant_distance=0.5,
    teacher=records.Teacher(name="abc", architecture=None, parameters=None, operations=None, timed=True),
    start=None,
    seconds=0.0,
)
NAMES = [str(architecture) for architecture in SPACE]


class Machine:
    """Latencies by name times `speed`; `blocks` are the names of each block that was measured.

    Visits are spread evenly, by so much to either side.
    """

    def __init__(self, milliseconds: Mapping[str, float], spread: float = 0.0) -> None:
        self.milliseconds, self.speed, self.spread, self.blocks = milliseconds, 1.0, spread, list[list[str]]()

    @contextmanager
    def calls(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        yield {name: lambda: None for name in names}

    def visits(self, calls: Mapping[str, Any], rounds: int, on_round: Any = None) -> dict[str, list[list[float]]]:
        self.blocks.append(list(calls))
        factors = self.speed * np.linspace(1 - self.spread, 1 + self.spread, rounds)
        return {name: [[self.milliseconds[name] * factor] * 4 for factor in factors.tolist()] for name in calls}

    @property
    def measured(self) -> list[str]:
        return [name for block in self.blocks for name in block]


def law(seed: int = 0, noise: float = 0.0) -> dict[str, float]:
    """Milliseconds of every candidate and of the teacher, with deviations that no model knows."""
    depth, heads, hidden, intermediate = SPACE.table.T
    rng = np.random.default_rng(seed)
    parts = 0.05 + 0.2 * depth + 0.01 * depth * heads + 2e-3 * depth * hidden + 5e-4 * depth * hidden * intermediate
    values = parts * np.exp(noise * rng.normal(size=len(parts)))
    return dict(zip(NAMES, values.tolist(), strict=True)) | {"teacher abc": 3.0}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine with some noise of its own, with nothing known of it."""
    found = Machine(law(noise=0.1))
    with simulated(found, tmp_path):
        yield found


def watch(machine: Machine, parts: int = 1) -> Stopwatch:
    return Stopwatch(machine.calls, LatencyCache({"some": "conditions"}), 10, parts)


@contextmanager
def simulated(machine: Machine, folder: Path, design: int = 14) -> Iterator[None]:
    """The machine stands in for all runtimes, under an empty cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUBARCH_CACHE", str(folder / "cache"))
        patch.setattr("subarch.latency.measuring.visits", machine.visits)
        patch.setattr("subarch.latency.measuring.Watch.__exit__", lambda *_: None)  # what runs beside the tests
        patch.setattr(module, "Candidates", lambda *given: SimpleNamespace(calls=machine.calls, block=8))
        patch.setattr(module, "DESIGN", design)
        yield


def config(folder: Path, **changes: Any) -> ExtractConfig:
    given = {"corpus": ["text"], "teacher": folder / "teacher", "runtime": "onnx", "latency_length": 8}
    return ExtractConfig(**(given | {"latency_threads": 1} | changes))


def measured_by(run: RunFolder, settings: ExtractConfig, remeasure: bool = False) -> Latencies:
    return measure_latencies(run, settings, SPACE, BASIS, silent, remeasure)


def opened(folder: Path, settings: ExtractConfig) -> RunFolder:
    return RunFolder.create(folder / "run", settings, resume=False)


# Blocks


def test_blocks_are_small_and_linked_by_anchors(machine: Machine) -> None:
    watch(machine).measure(NAMES[:34])
    fresh = [[name for name in block if name in NAMES[10 * n :]] for n, block in enumerate(machine.blocks)]
    assert fresh == [NAMES[0:10], NAMES[10:20], NAMES[20:30], NAMES[30:34]]
    anchors = [block[: len(block) - len(new)] for block, new in zip(machine.blocks, fresh, strict=True)]
    assert [len(names) for names in anchors] == [0, ANCHORS, ANCHORS, ANCHORS]
    for n, names in enumerate(anchors[1:], 1):  # of all that was known, from the fastest to the slowest
        known = sorted(NAMES[: 10 * n], key=lambda name: machine.milliseconds[name])
        assert (names[0], names[-1]) == (known[0], known[-1])


def test_a_machine_whose_speed_changes_between_blocks_is_corrected_for(machine: Machine) -> None:
    for first, speed in ((0, 1.0), (10, 1.7), (20, 0.6)):
        machine.speed = speed
        stopwatch = watch(machine, parts=2)  # a new one, as in another run; a call is two passes
        stopwatch.measure(NAMES[first : first + 10])
    assert {name: entry.median_ms for name, entry in stopwatch.known.items()} == pytest.approx(
        {name: machine.milliseconds[name] / 2 for name in NAMES[:30]}
    )
    assert [stopwatch.known[NAMES[n]].drift for n in (0, 10, 20)] == pytest.approx([1.0, 1.7, 0.6])
    last = stopwatch.known[NAMES[25]]
    assert last.visits == pytest.approx([last.median_ms] * 12)
    assert (last.blocks, last.passes) == ((12,), 48)
    assert last.measured.endswith("+00:00")


def test_what_is_in_the_cache_is_not_measured_again(machine: Machine) -> None:
    watch(machine).measure(NAMES[:20])
    machine.blocks.clear()
    again = watch(machine)
    again.measure([*NAMES[:20], *NAMES[:20]])
    assert machine.blocks == []
    again.measure(NAMES[:21])
    assert [len(block) for block in machine.blocks] == [ANCHORS + 1]


def test_killed_in_between_finished_blocks_are_kept(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(calls: Mapping[str, Any], rounds: int, on_round: Any = None) -> dict[str, list[list[float]]]:
        if len(machine.blocks) == 2:
            raise KeyboardInterrupt
        return machine.visits(calls, rounds)

    with monkeypatch.context() as patch:
        patch.setattr("subarch.latency.measuring.visits", killed)
        with pytest.raises(KeyboardInterrupt):
            watch(machine).measure(NAMES[:30])
    assert set(watch(machine).known) == set(NAMES[:20])
    watch(machine).measure(NAMES[:30])
    assert [name for name in machine.blocks[2] if name not in NAMES[:20]] == NAMES[20:30]
    assert len(machine.blocks) == 3


# What is measured before training


@settings(max_examples=25)
@given(
    seed=st.integers(0, 10**6),
    noise=st.sampled_from([0.0, 0.05, 0.2]),
    limit=st.floats(0.1, 4.0),
    ratio=st.booleans(),
    parameters=st.none() | st.sampled_from([1500, 3000, 6000, 12000]),
    objective=st.sampled_from(["error", "w"]),
)
def test_whatever_a_decision_turns_on_is_measured(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    noise: float,
    limit: float,
    ratio: bool,
    parameters: int | None,
    objective: str,
) -> None:
    folder, machine = tmp_path_factory.mktemp("run"), Machine(law(seed, noise))
    limits = {"max_latency_ratio": limit / 3.0} if ratio else {"max_latency_ms": limit}
    asked = config(folder, max_parameters=parameters, objective=objective, **limits)
    with simulated(machine, folder):
        found = measured_by(opened(folder, asked), asked)
    entries, model = found.candidates, found.model
    assert set(entries) == set(NAMES)
    guessed = {name: entry.median_ms for name, entry in entries.items() if isinstance(entry, Predicted)}
    known = set(entries) - set(guessed)
    assert known == set(machine.measured) - {"teacher abc"}
    assert len(machine.measured) - len(set(machine.measured)) <= ANCHORS * len(machine.blocks)
    assert model.measured == len(known) >= 14
    assert model.left_near_limit == 0
    assert found.teacher.median_ms == 3.0
    for name in known:
        assert entries[name].median_ms == pytest.approx(machine.milliseconds[name])
    size = {str(a): a.parameters(INPUTS).total / (parameters or 10**9) for a in SPACE}
    for name, milliseconds in guessed.items():  # far from the limit, by more than the model is off
        assert size[name] > 1 or abs(np.log(milliseconds / limit)) > np.log1p(model.p90_error)
    value = {name: entry.median_ms for name, entry in entries.items()}
    excess = {name: max(value[name] / limit, size[name]) for name in NAMES}
    if min(excess.values()) > 1:
        assert min(excess, key=excess.__getitem__) in known
    if objective == "w":
        assert max(value, key=value.__getitem__) in known


def test_decisive_rows_by_hand() -> None:
    milliseconds, predicted = np.array([1.0, 1.9, 2.19, 2.15, 5.0]), np.array([True, True, True, False, True])
    fits = np.zeros(5)

    def rows(limit: float | None = 2.0, error: float = 0.1, others: Any = fits, scale: bool = False) -> list[int]:
        return decisive(milliseconds, predicted, np.asarray(others), limit, error, scale).tolist()

    assert rows() == [1, 2]  # nearest first; the fourth is measured
    assert rows(error=0.06) == [1]
    assert rows(error=0.01) == []
    assert rows(others=[0, 2, 0, 0, 0]) == [2]  # too large, however fast
    assert rows(limit=None) == []
    assert rows(limit=None, scale=True) == [4]
    assert rows(limit=0.5) == [0]  # nobody meets it; this one comes nearest
    assert rows(limit=0.5, others=[9, 0, 0, 0, 0]) == [1]


def test_small_spaces_are_measured_whole_and_so_are_all_in_pytorch(tmp_path: Path) -> None:
    machine = Machine(law(noise=0.2))
    for runtime, design, folder in (("onnx", 100, "a"), ("torch", 14, "b")):
        machine.blocks.clear()
        asked = config(tmp_path, runtime=runtime, max_latency_ms=1.0)
        with simulated(machine, tmp_path / folder, design):
            found = measured_by(opened(tmp_path / folder, asked), asked)
        assert found.model is None
        assert set(machine.measured) == {*NAMES, "teacher abc"}
        assert [found.candidates[name].median_ms for name in NAMES] == [
            pytest.approx(machine.milliseconds[name]) for name in NAMES
        ]
        assert measurement(found).sentence.endswith(f"all {len(NAMES)} candidates were measured.")


def test_where_latency_is_not_asked_about_few_are_measured_in_pytorch_too(tmp_path: Path) -> None:
    machine = Machine(law())
    asked = config(tmp_path, runtime="torch")
    with simulated(machine, tmp_path):
        found = measured_by(opened(tmp_path, asked), asked)
    assert len(set(machine.measured)) == 14 + 1 < len(NAMES)
    assert [found.candidates[name].median_ms for name in NAMES] == pytest.approx(
        [machine.milliseconds[name] for name in NAMES], rel=1e-6
    )


def test_too_many_near_the_limit_are_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine, asked = Machine(law(noise=0.3)), config(tmp_path, max_latency_ms=1.0)
    monkeypatch.setattr(module, "MOST_MEASURED", 18)
    with simulated(machine, tmp_path):
        found = measured_by(opened(tmp_path, asked), asked)
    assert len(set(machine.measured)) == 18 + 1
    assert found.model.left_near_limit > 0
    assert "rests on predictions" in measurement(found).warnings[0]


def test_a_space_too_large_to_measure_is_predicted_in_pytorch_too(tmp_path: Path) -> None:
    space = SearchSpace(tuple(range(1, 51)), (4,), (16,), tuple(range(1, 42)))
    assert len(space) > MOST_MEASURED
    depth, _, _, intermediate = space.table.T
    names = [str(architecture) for architecture in space]
    values = (1 + depth + 0.02 * depth * intermediate).tolist()
    machine = Machine(dict(zip(names, values, strict=True)) | {"teacher abc": 9.0})
    asked = config(tmp_path, runtime="torch", max_latency_ms=10.0)
    with simulated(machine, tmp_path):
        found = measure_latencies(opened(tmp_path, asked), asked, space, BASIS, silent)
    assert len(set(machine.measured)) < 100
    assert [found.candidates[name].median_ms for name in names] == pytest.approx(
        [machine.milliseconds[name] for name in names], rel=1e-6
    )


# Kept, and asked again


def test_a_run_reads_its_latencies_back_another_takes_them_from_the_cache(machine: Machine, tmp_path: Path) -> None:
    asked = config(tmp_path, max_latency_ms=1.0)
    run = opened(tmp_path, asked)
    first = measured_by(run, asked)
    count = len(machine.blocks)
    assert measured_by(run, asked) == first
    other = opened(tmp_path / "other", asked)
    second = measured_by(other, asked)
    assert len(machine.blocks) == count
    assert second.model_copy(update={"seconds": first.seconds}) == first
    again = measured_by(other, asked, remeasure=True)
    assert len(machine.blocks) == 2 * count
    assert again.candidates.keys() == first.candidates.keys()
    for changes in ({"latency_batch": 2}, {"latency_length": 4}, {"latency_threads": 2}, {"runtime": "openvino"}):
        machine.blocks.clear()
        measured_by(run, config(tmp_path, max_latency_ms=1.0, **changes))
        assert machine.blocks  # a latency under other conditions is another
    assert len(list(run.path.glob("latency_*.json"))) == 4
    assert run.read(Latencies) == first


def test_what_was_trained_and_what_another_limit_turns_on_is_measured_afterwards(
    machine: Machine, tmp_path: Path
) -> None:
    asked = config(tmp_path, max_latency_ms=4.0, strategy="exhaustive", heads="all")
    run = opened(tmp_path, asked)
    before = measured_by(run, asked)
    guessed = sorted(name for name, entry in before.candidates.items() if isinstance(entry, Predicted))
    trained = guessed[::7]
    other = config(tmp_path, max_latency_ms=1.0, strategy="exhaustive", heads="all")
    machine.blocks.clear()
    errors = dict.fromkeys(trained, 0.3)
    found = confirm(run, Question.pose(other, SPACE, BASIS, before), BASIS, errors, silent)
    entries = found.candidates
    assert not [name for name in trained if isinstance(entries[name], Predicted)]
    for name, entry in entries.items():
        if isinstance(entry, Predicted):
            assert abs(np.log(entry.median_ms)) > np.log1p(before.model.p90_error)
            assert entry == before.candidates[name]
        else:
            assert entry.median_ms == pytest.approx(machine.milliseconds[name])
    # what the search began with stays as it was, so that a resumed one trains the same
    kept = run.read(Latencies)
    assert kept.candidates == before.candidates
    assert set(kept.confirmed) == {name for name in guessed if not isinstance(entries[name], Predicted)} > set(trained)
    machine.blocks.clear()
    again = confirm(run, Question.pose(other, SPACE, BASIS, kept), BASIS, errors, silent)
    assert machine.blocks == []
    assert again == found


def test_where_latency_is_the_objective_those_about_as_fast_as_the_best_are_measured(
    machine: Machine, tmp_path: Path
) -> None:
    asked = config(tmp_path, objective="latency", keep=0.5, strategy="exhaustive", heads="all")
    run = opened(tmp_path, asked)
    before = measured_by(run, asked)
    guessed = [name for name, entry in before.candidates.items() if isinstance(entry, Predicted)]
    errors = {guessed[5]: 0.4, guessed[-1]: 0.2, guessed[0]: 0.6}  # the floor admits 0.5
    found = confirm(run, Question.pose(asked, SPACE, BASIS, before), BASIS, errors, silent).candidates
    best = min(machine.milliseconds[name] for name in (guessed[5], guessed[-1]))
    left = {name: entry.median_ms for name, entry in found.items() if isinstance(entry, Predicted)}
    assert left
    assert not left.keys() & errors.keys()
    assert all(abs(np.log(ms / best)) > np.log1p(before.model.p90_error) for ms in left.values())


def test_the_sentence_and_the_warning_say_how_latencies_came_about(machine: Machine, tmp_path: Path) -> None:
    asked = config(tmp_path, max_latency_ms=1.0, latency_batch=4)
    found = measurement(measured_by(opened(tmp_path, asked), asked))
    assert found.measured + found.predicted == len(NAMES)
    assert found.sentence.startswith(
        f"Latency is that of a forward pass of batch 4 at 8 tokens in onnx on 1 thread; {found.measured} of "
        f"{len(NAMES)} candidates were measured"
    )
    assert f"{100 * found.model.p90_error:.1f} % at the 90th percentile" in found.sentence
    assert found.warnings == ()
    machine.speed = 1.4
    drifted = measured_by(opened(tmp_path / "other", asked), config(tmp_path, max_latency_ms=3.0, latency_batch=4))
    assert "differed by up to 40 %" in measurement(drifted).warnings[0]


@pytest.mark.parametrize("figure", ["-1.0", "0.0", "NaN", "Infinity"])
def test_latencies_of_a_run_that_cannot_be_are_refused(machine: Machine, tmp_path: Path, figure: str) -> None:
    asked = config(tmp_path, max_latency_ms=1.0)
    run = opened(tmp_path, asked)
    found = measured_by(run, asked)
    name = next(name for name, entry in found.candidates.items() if not isinstance(entry, Predicted))
    record = json.loads((run.path / "latency.json").read_text())
    record["candidates"][name]["visits"][3] = float(figure)
    (run.path / "latency.json").write_text(json.dumps(record))
    with pytest.raises(InvalidStudy, match=r"latency\.json"):
        measured_by(run, asked)


# Told apart


def sides(found: Latencies, limit: float) -> dict[str, str]:
    return {name: side(interval(entry.visits), (limit, limit)) for name, entry in found.candidates.items()}


def test_what_straddles_the_limit_is_measured_again_until_it_is_told_apart(tmp_path: Path) -> None:
    near = {NAMES[3]: 0.955, NAMES[4]: 1.05, NAMES[5]: 1.0001, NAMES[6]: 0.5, NAMES[7]: 2.0}
    machine = Machine(law() | dict.fromkeys(NAMES, 5.0) | near, spread=0.08)
    asked = config(tmp_path, runtime="torch", max_latency_ms=1.0, strategy="exhaustive", heads="all")
    run = opened(tmp_path, asked)
    with simulated(machine, tmp_path):
        found = measured_by(run, asked)
        assert {name: sides(found, 1.0)[name] for name in near} == {
            NAMES[3]: "within",
            NAMES[4]: "over",
            NAMES[5]: "open",
            NAMES[6]: "within",
            NAMES[7]: "over",
        }
        assert [len(found.candidates[name].blocks) for name in near] == [2, 2, 3, 1, 1]
        assert found.candidates[NAMES[5]].blocks == (12, 24, 24)
        question = Question.pose(asked, SPACE, BASIS, found)
        assert question.undecided == (NAMES[5],)
        within = [str(question.costs.architecture(row)) for row in np.flatnonzero(question.affordable)]
        assert within == [NAMES[3], NAMES[6]]  # what cannot be told apart is on the safer side
        machine.blocks.clear()
        assert confirm(run, question, BASIS, {}, silent) == found  # nor is it measured for ever
        assert machine.blocks == []
        # Another limit may turn on what is far from this one
        other = config(tmp_path, runtime="torch", max_latency_ms=2.1, strategy="exhaustive", heads="all")
        later = confirm(run, Question.pose(other, SPACE, BASIS, found), BASIS, {}, silent)
        assert len(later.candidates[NAMES[7]].blocks) == 2
        assert run.read(Latencies).candidates == found.candidates
        # Nothing is added to what was measured on another machine
        record = run.read(Latencies)
        elsewhere = record.model_copy(update={"machine": record.machine.model_copy(update={"processor": "another"})})
        run.write(elsewhere.model_copy(update={"confirmed": None}))
        machine.blocks.clear()
        confirm(run, Question.pose(other, SPACE, BASIS, found), BASIS, {}, silent)
        assert machine.blocks == []


def test_the_teachers_interval_enters_a_limit_that_is_a_share_of_it(tmp_path: Path) -> None:
    near = {NAMES[3]: 0.985, NAMES[4]: 1.2}
    machine = Machine(dict.fromkeys(NAMES, 5.0) | near | {"teacher abc": 2.0}, spread=0.04)
    asked = config(tmp_path, runtime="torch", max_latency_ratio=0.5, strategy="exhaustive", heads="all")
    with simulated(machine, tmp_path):
        found = measured_by(opened(tmp_path, asked), asked)
    low, high = interval(found.teacher.visits)
    assert low < 2.0 < high
    assert len(found.teacher.blocks) == len(found.candidates[NAMES[3]].blocks) == 3  # each time beside it
    assert Question.pose(asked, SPACE, BASIS, found).undecided == (NAMES[3],)


def test_the_fastest_of_those_that_are_good_enough_are_told_apart_where_that_is_asked_for(tmp_path: Path) -> None:
    near = {NAMES[3]: 1.0, NAMES[4]: 1.03, NAMES[5]: 0.5, NAMES[6]: 1.5}
    machine = Machine(dict.fromkeys(NAMES, 5.0) | near | {"teacher abc": 2.0}, spread=0.06)
    asked = config(tmp_path, runtime="torch", objective="latency", keep=0.5, strategy="exhaustive", heads="all")
    run = opened(tmp_path, asked)
    with simulated(machine, tmp_path):
        found = measured_by(run, asked)
        errors = {NAMES[3]: 0.3, NAMES[4]: 0.2, NAMES[5]: 0.9, NAMES[6]: 0.2}
        later = confirm(run, Question.pose(asked, SPACE, BASIS, found), BASIS, errors, silent).candidates
    assert [len(later[name].blocks) for name in near] == [3, 3, 1, 1]


def test_a_busy_machine_is_told_of(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subarch.latency.measuring.Watch.others", 999.5)
    asked = config(tmp_path, max_latency_ms=1.0)
    busy, *more = measurement(measured_by(opened(tmp_path, asked), asked)).warnings
    assert busy.startswith("Other programs kept 999.5 of ")
    assert "--remeasure" in busy
    assert not more
    machine.spread = 0.5
    uneven = measurement(measured_by(opened(tmp_path / "other", asked), asked, remeasure=True)).warnings
    assert "wider than" in uneven[1]


# Lengths


def test_the_lengths_of_the_corpus_are_cut_as_the_encoder_cuts_them(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = SimpleNamespace(train=SimpleNamespace(size=np.array([3, 3, 5, 8, 8, 13, 40, 100])))
    monkeypatch.setattr(module, "Corpus", SimpleNamespace(load=lambda folder: tokens))
    asked = config(tmp_path, length_from="corpus", strategy="exhaustive")
    found = measured_by(opened(tmp_path, asked), asked)
    assert found.settings.length == (5, 5, 7, 10, 10, 15, 24, 24)  # two special tokens; 24 at most
    assert found.candidates[NAMES[0]].median_ms == pytest.approx(machine.milliseconds[NAMES[0]] / 8)
    assert "at the lengths of the corpus (the mean over 5, 5, 7, 10, 10, 15, 24, 24 tokens)" in (
        measurement(found).sentence
    )
    # operations are counted at latency_length all the same
    assert Question.pose(asked, SPACE, BASIS, found).costs.operations[-1] == max(
        architecture.operations(INPUTS, 8) for architecture in SPACE
    )


def test_lengths_that_cannot_be_measured_are_refused(machine: Machine, tmp_path: Path) -> None:
    for changes, error, message in (
        ({"latency_length": 41}, InvalidConfig, "latency_length 41: these encoders read at most 40 tokens"),
        ({"length_from": "corpus"}, InvalidCorpus, "no readable corpus"),
    ):
        asked = config(tmp_path, **changes)
        with pytest.raises(error, match=message):
            measured_by(opened(tmp_path / error.__name__, asked), asked)
    assert machine.blocks == []


# Real runtimes


def test_a_runtime_that_is_not_installed_is_told_of_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = {"complete": False, "missing": ["onnxruntime>=1.24"], "command": "python -m pip install onnxruntime"}
    monkeypatch.setattr("subarch.exporting.runtimes.extras", lambda: {"onnx": missing, "openvino": missing})
    for runtime in ("onnx", "onnx-int8", "openvino-int8-static"):
        with pytest.raises(MissingExtra, match=rf"install the extra subarch\[{runtime.split('-')[0]}\]"):
            extract(tiny_config(tmp_path, cost="latency", runtime=runtime), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    check_runtime(tiny_config(tmp_path, cost="latency", runtime="torch"))
    check_runtime(tiny_config(tmp_path, cost="operations", runtime="onnx"))


@pytest.mark.parametrize("family", ["bert", pytest.param("roberta", marks=pytest.mark.slow)])
def test_what_is_timed_is_what_an_export_would_serve(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    """The same operators and shapes as in the file that `subarch export` makes of the candidate."""
    teacher = Teacher.load(tiny_teacher(tmp_path / "teacher", family=family))
    blueprint, shape = Blueprint.of_teacher(teacher), Architecture.parse("1-4-16-64")
    student = untrained([shape], lambda shape: Student(shape, blueprint))[str(shape)]  # no two of its biases are equal
    hand_over(student, teacher.tokenizer, teacher.recipe, tmp_path / "model")
    served = exported(tmp_path / "model", tmp_path / "run", quantize="int8", **with_corpus(tmp_path))
    timed = list[Any]()

    def opened(engine: str, file: Path, threads: int) -> str:
        timed.append((engine, threads))
        timed.append(content(file))
        return "session"

    monkeypatch.setattr("subarch.latency.measuring.open_file", opened)
    monkeypatch.setattr("subarch.latency.measuring.session_call", lambda *given: given)
    candidates = Candidates("onnx-int8", 3, 2, (8, 16), blueprint, teacher.recipe, teacher.folder)
    with candidates.calls([str(shape), "teacher abc"]) as calls:
        assert list(calls) == [str(shape), "teacher abc"]
        assert set(calls.values()) == {("session", len(teacher.tokenizer), 2, (8, 16))}
    assert timed[0] == timed[2] == ("onnx", 3)
    assert timed[1] == content(Path(str(served.folder)) / "onnx" / "model.onnx")
    served = exported(tmp_path / "teacher", tmp_path / "run", quantize="int8", **with_corpus(tmp_path))
    assert timed[3] == content(Path(str(served.folder)) / "onnx" / "model.onnx")


def content(file: Path) -> list[Any]:
    graph = onnx.load(file).graph
    shapes = sorted((tensor.data_type, *tensor.dims) for tensor in graph.initializer if len(tensor.dims))
    return [[node.op_type for node in graph.node], shapes]


@pytest.mark.slow
def test_an_old_study_is_retargeted_to_another_runtime_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUBARCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("subarch.pipeline.Workers", OneProcess)
    monkeypatch.setattr(module, "DESIGN", 4)
    (tmp_path / "space.yaml").write_text("{depth: [0, 1, 2], heads: [4], hidden: [32], intermediate: [16, 64]}")
    options = {"strategy": "exhaustive", "cost": "latency", "steps": 1, "max_latency_ratio": 2.0}
    run = tmp_path / "run"
    first = extract(tiny_config(tmp_path, **options), run).to_dict()
    trained, measured = OneProcess.submitted, (run / "latency.json").read_bytes()
    found = select(run, {"runtime": "onnx-int8", "length_from": "corpus", "max_latency_ratio": 0.8}).to_dict()
    assert OneProcess.submitted == trained
    assert (run / "latency.json").read_bytes() == measured
    assert [row["error"] for row in found["candidates"]] == [row["error"] for row in first["candidates"]]
    assert not any(row["latency_predicted"] for row in found["candidates"])
    assert found["latency"]["runtime"] == "onnx-int8"
    assert found["objective"]["max_latency_ms"] == pytest.approx(0.8 * found["teacher"]["latency_ms"])
    assert found["teacher"]["latency_ms"] != first["teacher"]["latency_ms"]
    kept = json.loads((run / "latency_onnx-int8_1_corpus_1.json").read_text())
    assert kept["model"]["measured"] >= 4
    assert found["winner"] is None or found["winner"]["latency_ms"] <= found["objective"]["max_latency_ms"]
    assert "in onnx-int8 on 1 thread" in (run / "report.html").read_text()
