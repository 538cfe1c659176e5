"""Agora's loop on stand-ins for training, teacher and τ: what is trained on what, what goes, when it ends; killed at
every instant it can be killed at, it ends the same and repeats nothing."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tasks_tiny
from subarch.errors import InvalidConfig, InvalidStudy, InvalidTask, TrainingDiverged
from subarch.finetuning import agora as module
from subarch.finetuning.agora import (
    PRUNINGS,
    SAMPLE,
    SHAPED,
    Outcome,
    adequate,
    agora,
    common,
    forecast,
    halving,
    longest_common,
    mistakes,
    worded,
)
from subarch.finetuning.config import Theta
from subarch.finetuning.neighbours import Made, Point
from subarch.tasks import TASKS, Example, Examples, Task, score
from task_layouts import example

WORKED = [(1e-4, 0, 0.35, 8), (1e-4, 10, 0.35, 8), (1e-4, 10, 0.45, 16), (1e-5, 10, 0.45, 8)]


def examples(part: str, labels: Sequence[float], task: str = "sst2", choices: tuple[str, ...] = ()) -> Examples:
    rows = (example(f"{part}{n}", label, texts=(f"{part} {n}",), choices=choices) for n, label in enumerate(labels))
    return Examples(TASKS[task], part, f"{part}.tsv", tuple(rows))


def theta(*values: float, seed: int = 0) -> Theta:
    rate, decay, warm_up, batch = values
    return Theta(rate, decay, warm_up, int(batch), seed=seed)


def logits_for(dev: Examples, predictions: list[float]) -> np.ndarray[Any, Any]:
    """Outputs whose labels are these predictions."""
    if dev.task.head == "regression":
        return np.asarray(predictions)[:, None]
    return np.eye(3)[np.asarray(predictions, dtype=int)]


THETAS = [theta(*values) for values in WORKED]
TRAIN = examples("train", [0, 1] * 4)
DEV = examples("dev", [0, 1] * 5)
RIGHT = [0, 1] * 5


@dataclass
class World:
    """Stand-ins. A training's predictions on ℰ have `wrong(theta, rows of 𝒟)` mistakes, at its first examples.

    `log` has a line per call that was finished, on disk, so that it outlives the process.
    """

    folder: Path
    wrong: Callable[[Theta, int], int | None] = lambda theta, rows: 3
    dev: Examples = DEV
    points: int = 2
    dies_at: int = -1
    events: int = 0
    trained_on: list[tuple[Theta, Examples]] = field(default_factory=list)

    def event(self) -> None:
        """An instant at which the process may be killed."""
        self.events += 1
        if self.events == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)

    def note(self, line: str) -> None:
        with (self.folder / "log").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def log(self) -> list[str]:
        path = self.folder / "log"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def fit(self, train: Examples, dev: Examples, theta: Theta, folder: Path) -> Any:
        """As the real one: the folder appears whole, and what is there is not trained again."""
        self.event()
        assert dev == self.dev
        self.trained_on.append((theta, train))
        wrong = self.wrong(theta, len(train))
        if wrong is None:
            raise TrainingDiverged(f"the loss of {theta} is NaN")
        labels = list(dev.labels or ())
        flipped = [1 - label if n < wrong else label for n, label in enumerate(labels)]
        if not folder.exists():
            partial = folder.with_name(folder.name + ".partial")
            partial.mkdir(parents=True, exist_ok=True)
            self.event()
            (partial / "model").write_text(f"{theta} on {len(train)}")
            self.note(f"fit {folder.parent.name} {theta}")
            partial.rename(folder)
            self.event()
        return SimpleNamespace(
            dev_scores=score(dev, flipped),
            dev_logits=logits_for(dev, flipped),
            epoch=1,
            history=[{"epoch": 1, "loss": 0.25}],
            steps=5,
            examples_seen=10 * len(train),
            seconds=0.5,
        )

    def teacher(self, asked: Examples) -> list[int]:
        self.event()
        labels = [row.label if row.label is not None else 1 for row in asked]
        self.note(f"label {asked[0].id} {len(asked)}")
        self.event()
        return [int(label) for label in labels]

    def transform(self, wrong: Examples, data: Examples, iteration: int) -> Made:
        self.event()
        made = [
            Point(replace(row, id=f"agora-{iteration}-{row.id}-{n}", label=None), row.id, "edits", 0.9)
            for row in wrong
            for n in range(self.points)
        ]
        self.note(f"points {iteration} from {[row.id for row in wrong]} beside {len(data)}")
        self.event()
        return Made(tuple(made), {"copy": 1})

    def run(self, thetas: Sequence[Theta] = THETAS, **options: Any) -> Outcome:
        return agora(
            thetas,
            options.pop("train", TRAIN),
            self.dev,
            self.folder / "agora",
            fit=self.fit,
            teacher=options.pop("teacher", self.teacher),
            transform=options.pop("transform", self.transform),
            **options,
        )


# the worked example's order: the first is the worst
def in_order(given: Theta, rows: int) -> int:
    return 4 - WORKED.index(given.values)


def test_the_loop_as_specified(tmp_path: Path) -> None:
    world = World(tmp_path, in_order)
    outcome = world.run(list(reversed(THETAS)))  # the best first
    record = outcome.record
    assert record.stopped == "one set was left"
    assert [[one.theta for one in i.trainings] for i in record.iterations] == [[0, 1, 2, 3], [0, 1], [0]]
    assert [[one.theta for one in i.pruned] for i in record.iterations] == [[3, 2], [1], []]
    # one mistake of the best, of which τ makes two points, each time but the last
    assert [i.examples for i in record.iterations] == [8, 10, 12]
    assert [i.mistakes for i in record.iterations] == [1, 1, 1]
    assert [i.points for i in record.iterations] == [2, 2, 0]
    assert world.log() == [
        "label dev0 10",
        *(f"fit iteration-1 {theta}" for theta in reversed(THETAS)),
        "points 1 from ['dev0'] beside 8",
        "label agora-1-dev0-0 2",
        *(f"fit iteration-2 {theta}" for theta in (THETAS[3], THETAS[2])),
        "points 2 from ['dev0'] beside 10",
        "label agora-2-dev0-0 2",
        f"fit iteration-3 {THETAS[3]}",
    ]
    _, last = world.trained_on[-1]
    assert last[:8] == TRAIN
    assert [(row.id, row.label) for row in last[8:]] == [
        *(("agora-1-dev0-0", 1), ("agora-1-dev0-1", 1)),
        *(("agora-2-dev0-0", 1), ("agora-2-dev0-1", 1)),
    ]
    # equally good each time: the first is kept, the others are deleted
    assert (outcome.theta, outcome.data) == (THETAS[3], TRAIN)
    assert outcome.model == tmp_path / "agora/iteration-1/model-0"
    assert [path.parent for path in tmp_path.rglob("model")] == [outcome.model]
    cost = {"trainings": 7, "examples_seen": 10 * (4 * 8 + 2 * 10 + 12), "training_seconds": 3.5, "points": 4}
    assert record.cost.to_dict() | cost == record.cost.to_dict()
    assert json.loads((tmp_path / "agora/agora.json").read_text()) == record.to_dict()


def test_points_to_read_are_recorded(tmp_path: Path) -> None:
    first = World(tmp_path, in_order, points=30).run().record.iterations[0]
    assert (first.points, first.labels, first.dropped) == (30, {"positive": 30}, {"copy": 1})
    assert len(first.sample) == SAMPLE
    assert all(
        point.origin.to_dict() == {"id": "dev0", "texts": ["dev 0"], "choices": [], "label": 0}
        and point.point.label == 1
        and (point.method, point.similarity) == ("edits", 0.9)
        for point in first.sample
    )


def test_the_best_ever_may_be_an_earlier_or_a_later_one(tmp_path: Path) -> None:
    worse = World(tmp_path / "a", lambda theta, rows: 1 if rows == 8 else 4).run()
    assert worse.model.parent.name == "iteration-1"
    assert worse.data == TRAIN
    better = World(tmp_path / "b", lambda theta, rows: 4 if rows == 8 else 1).run()
    assert better.model.parent.name == "iteration-2"
    assert len(better.data) == better.record.iterations[1].examples > 8
    for outcome in (worse, better):
        assert [path.name for path in outcome.model.iterdir()] == ["model"]
    # called again, all is there
    again = World(tmp_path / "b", lambda theta, rows: pytest.fail("trained again")).run()  # type: ignore[arg-type]
    assert (again, [path.name for path in again.model.iterdir()]) == (better, ["model"])


def test_a_score_on_the_development_set_warns(tmp_path: Path) -> None:
    outcome = World(tmp_path, in_order).run()
    assert outcome.record.warning == SHAPED
    with pytest.warns(UserWarning, match="no estimate of quality"):
        assert outcome.dev_score == 0.9


def test_one_set_is_one_training(tmp_path: Path) -> None:
    world = World(tmp_path)
    record = world.run(THETAS[:1]).record
    assert (record.cost.trainings, record.stopped) == (1, "one set was left")
    assert not [line for line in world.log() if line.startswith("points")]


def test_no_mistakes_end_it(tmp_path: Path) -> None:
    record = World(tmp_path, lambda theta, rows: 0).run().record
    assert record.cost.trainings == 4
    assert "no mistake on ℰ" in record.stopped


def test_no_points_end_it(tmp_path: Path) -> None:
    world = World(tmp_path, points=0)
    record = world.run().record
    assert record.cost.trainings == 4
    assert "τ made no point" in record.stopped
    assert [line.split()[0] for line in world.log()] == ["label", *["fit"] * 4, "points"]


def test_a_set_that_diverges_is_the_worst(tmp_path: Path) -> None:
    record = World(tmp_path, lambda theta, rows: None if theta == THETAS[2] else 1).run().record
    first = record.iterations[0]
    assert first.pruned[0].to_dict() == {"theta": 2, "reason": "the worst"}
    assert "is NaN" in first.trainings[2].failure
    with pytest.raises(TrainingDiverged, match="all 4 trainings diverged"):
        World(tmp_path / "all", lambda theta, rows: None).run()


def test_what_was_found_before_all_sets_diverge_is_kept(tmp_path: Path) -> None:
    outcome = World(tmp_path, lambda theta, rows: 1 if rows == 8 else None).run()
    assert [len(one.trainings) for one in outcome.record.iterations] == [4, 1]
    assert (outcome.record.iterations[1].mistakes, outcome.record.iterations[1].points) == (0, 0)
    assert "no set could be trained any more: the loss of" in outcome.record.stopped
    assert (outcome.model / "model").is_file()


def test_halving(tmp_path: Path) -> None:
    thetas = [theta(n / 1e4, 0, 0.1, 16) for n in range(1, 9)]
    record = World(tmp_path, lambda given, rows: int(given.learning_rate * 1e4)).run(thetas, pruning="halving").record
    left = [[one.theta for one in iteration.trainings] for iteration in record.iterations]
    assert left == [[*range(8)], [0, 1, 2, 3], [0, 1], [0]]
    assert record.cost.trainings == forecast(8, "halving").most == 15


# -- killed


MEASURED = ("seconds", "points_seconds", "labels_seconds")


def whole(folder: Path) -> dict[str, Any]:
    """All that is there, without measured seconds and what was being written."""
    found: dict[str, Any] = {}
    for path in sorted(path for path in (folder / "agora").rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        if path.suffix == ".json":
            found[name] = json.loads(path.read_text(), object_hook=lambda item: item | dict.fromkeys(MEASURED, 0))
        elif not path.name.endswith(".tmp"):
            found[name] = path.read_text()
    return found


def killed(folder: Path, at: int, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run in a process of its own that kills itself at event `at`; False: it came to its end before."""
    child = os.fork()
    if child == 0:
        signal.alarm(60)  # rather than wait forever
        world = World(folder, in_order, dies_at=at)
        replaced, removed = os.replace, module.shutil.rmtree

        def replacing(old: Path, new: Path) -> None:
            world.event()  # written, not yet there
            replaced(old, new)
            world.event()

        def removing(path: Path, **options: Any) -> None:
            world.event()
            for file in path.glob("*"):  # killed half-way through
                file.unlink()
                world.event()
            removed(path, **options)

        monkeypatch.setattr(os, "replace", replacing)
        monkeypatch.setattr(module.shutil, "rmtree", removing)
        try:
            world.run()
        finally:
            os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert not os.WIFSIGNALED(status) or os.WTERMSIG(status) == signal.SIGKILL
    return os.WIFSIGNALED(status)


@pytest.mark.slow
def test_killed_at_any_instant_it_ends_the_same_and_repeats_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "straight").mkdir()
    straight = World(tmp_path / "straight", in_order)
    expected, log = straight.run(), straight.log()
    for at in itertools.count(1):
        folder = tmp_path / str(at)
        folder.mkdir()
        if not killed(folder, at, monkeypatch):
            break
        before = World(folder, in_order).log()
        again = World(folder, in_order)
        outcome = again.run()
        assert outcome.model.relative_to(folder) == expected.model.relative_to(straight.folder)
        assert whole(folder) == whole(straight.folder), at
        # what was finished but not yet written down may stand twice, once: a result that nobody has is no result
        repeated = Counter(again.log()) - Counter(log)
        assert set(again.log()) == set(log)
        assert repeated.total() <= 1, at
        assert set(repeated) <= set(before[-1:]), at
        assert not [line for line in repeated if line.startswith("fit")]
    assert at > 60  # calls, writings and deletions


@pytest.mark.slow
def test_killed_again_and_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "straight").mkdir()
    (tmp_path / "often").mkdir()
    World(tmp_path / "straight", in_order).run()
    # each time a few events further than what is replayed needs
    kills = sum(killed(tmp_path / "often", at, monkeypatch) for at in range(5, 80, 5))
    assert kills > 3
    World(tmp_path / "often", in_order).run()
    assert whole(tmp_path / "often") == whole(tmp_path / "straight")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"thetas": THETAS[:3]}, "thetas"),
        ({"pruning": "halving"}, "pruning"),
        ({"train": TRAIN[:7]}, "train"),
        ({"about": {"model": "another"}}, "about"),
    ],
)
def test_another_question_in_the_same_folder_is_refused(tmp_path: Path, change: dict[str, Any], named: str) -> None:
    World(tmp_path, in_order).run(about={"model": "one"})
    with pytest.raises(InvalidStudy, match=f"begun with another {named};"):
        World(tmp_path, in_order).run(**({"about": {"model": "one"}} | change))


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    World(tmp_path, in_order).run()
    (tmp_path / "agora/iteration-1/training-2.json").write_text("{")
    with pytest.raises(InvalidStudy, match=r"training-2.json: damaged .* delete it"):
        World(tmp_path, in_order).run()


# -- refused


def test_a_teacher_must_be_adequate(tmp_path: Path) -> None:
    world = World(tmp_path)

    def majority(asked: Examples) -> list[int]:
        return [0] * len(asked)

    with pytest.raises(InvalidTask, match=r"not adequate: its balanced accuracy .* 0\.500"):
        world.run(teacher=majority)
    assert not world.trained_on
    record = world.run(teacher=majority, inadequate=True).record
    assert "balanced accuracy" in record.objection
    assert record.iterations[0].labels == {"negative": 6}


def test_many_sets_must_be_asked_for(tmp_path: Path) -> None:
    nine = [theta(n / 1e4, n, 0.1, 16) for n in range(9)]
    with pytest.raises(InvalidConfig, match="9 sets, which take up to 45 trainings; give at most 8"):
        World(tmp_path).run(nine)
    assert World(tmp_path).run(nine, many=True).record.cost.trainings <= 45


def test_what_cannot_be_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="0 sets"):
        World(tmp_path).run([])
    with pytest.raises(InvalidConfig, match="2 sets, 1 of them different"):
        World(tmp_path).run([THETAS[0]] * 2)
    with pytest.raises(InvalidConfig, match="choose one of common, halving"):
        World(tmp_path).run(pruning="lcs")
    with pytest.raises(InvalidTask, match=r"train\.tsv: Agora needs labelled examples to train on"):
        World(tmp_path).run(train=TRAIN[:0])
    unlabelled = replace(DEV, rows=(*DEV[:3], replace(DEV[3], label=None)))
    with pytest.raises(InvalidTask, match="labelled examples to find mistakes in"):
        World(tmp_path, dev=unlabelled).run()
    assert not (tmp_path / "agora").exists()


# -- the casts


def ids(found: Examples) -> list[str]:
    return [row.id for row in found]


def test_mistakes_of_classes_and_choices() -> None:
    assert ids(mistakes(DEV, [0, 0, 0, 1, 1, 1, 0, 1, 0, 1])) == ["dev1", "dev4"]
    three = examples("dev", [0, 1, 2], "mnli")
    assert ids(mistakes(three, [0, 2, 1])) == ["dev1", "dev2"]
    choice = examples("dev", [0, 1], "copa", ("x", "y"))
    assert ids(mistakes(choice, [1, 1])) == ["dev0"]


def test_of_a_cloze_every_spelling_of_the_answer_is_right() -> None:
    row = example("dev0", 1, texts=("Ann met Bob Ray.", "@placeholder left"), choices=("Ann", "Bob", "Bob Ray"))
    dev = Examples(TASKS["record"], "dev", "here", (replace(row, golds=("Bob", "Bob Ray")),))
    assert [len(mistakes(dev, [answer])) for answer in range(3)] == [1, 0, 0]


def test_of_a_regression_the_worst_fifth_are_mistakes() -> None:
    dev = examples("dev", [0.5 * n for n in range(11)], "stsb")
    right = [float(label) for label in dev.labels or ()]
    assert len(mistakes(dev, right)) == 0
    off = {2: 0.1, 4: -3.0, 7: 0.2, 9: 0.3}
    # a fifth of 11, rounded up, is 3: the greatest, whatever their sign, in the order of ℰ
    assert ids(mistakes(dev, [value + off.get(n, 0) for n, value in enumerate(right)])) == ["dev4", "dev7", "dev9"]
    assert ids(mistakes(dev, [value + (n == 5) for n, value in enumerate(right)])) == ["dev5"]


@pytest.mark.parametrize(
    ("task", "answer", "label", "golds"),
    [("stsb", 2.75, 2.75, ()), ("mnli", 2.0, 2, ()), ("record", 1, 1, ("b",)), ("copa", 1, 1, ())],
)
def test_the_teacher_labels_each_type(
    tmp_path: Path, task: str, answer: float, label: float, golds: tuple[str, ...]
) -> None:
    choices = ("a", "b") if task in ("record", "copa") else ()
    dev = examples("dev", [1, 0, 1, 0], task, choices)
    if task == "record":
        dev = replace(dev, rows=tuple(replace(row, golds=(choices[int(row.label or 0)],)) for row in dev))
    world = World(tmp_path, dev=dev)
    data = replace(dev, part="train")

    def teacher(asked: Examples) -> list[float]:
        return [answer if row.label is None else row.label for row in asked]

    world.run(THETAS[:2], train=data, teacher=teacher)
    _, last = world.trained_on[-1]
    grown: list[Example] = list(last[4:])
    assert grown
    assert {(row.label, type(row.label), row.golds) for row in grown} == {(label, type(label), golds)}


# -- pruning


def test_the_worked_example() -> None:
    assert [longest_common(WORKED[0], other) for other in WORKED[1:3]] == [3, 1]
    assert len(common(WORKED)) == 2


def subsequences(values: tuple[float, ...]) -> set[tuple[float, ...]]:
    return {taken for size in range(len(values) + 1) for taken in itertools.combinations(values, size)}


values = st.tuples(*[st.integers(0, 3)] * 4)


@given(values, st.lists(st.integers(0, 3), max_size=6).map(tuple))
def test_the_longest_common_subsequence_by_brute_force(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    assert longest_common(one, other) == max(map(len, subsequences(one) & subsequences(other)))


@given(st.lists(values, min_size=2, max_size=8))
def test_what_goes_is_what_is_specified(ascending: list[tuple[int, ...]]) -> None:
    shared = [max(map(len, subsequences(ascending[0]) & subsequences(other))) for other in ascending[1:-1]]
    gone = 1
    while gone <= len(shared) and shared[gone - 1] == max(shared):
        gone += 1
    assert len(common(ascending)) == gone
    assert len(halving(ascending)) == len(ascending) // 2


@given(st.lists(values, min_size=2, max_size=8), st.sampled_from(sorted(PRUNINGS)), st.randoms())
def test_at_least_one_goes_the_best_never_and_it_ends(sets: list[Any], pruning: str, random: Any) -> None:
    left, trainings = sets, len(sets)
    for _ in sets:
        if len(left) == 1:
            break
        random.shuffle(left)  # any order of scores
        reasons = PRUNINGS[pruning](left)
        assert 1 <= len(reasons) < len(left)
        left = left[len(reasons) :]
        trainings += len(left)
    assert len(left) == 1
    assert forecast(len(sets), pruning).fewest <= trainings <= forecast(len(sets), pruning).most


def test_the_forecast() -> None:
    assert worded(forecast(8)) == "8 to 36 trainings"
    assert worded(forecast(1)) == "1 training"
    assert (forecast(480).most, forecast(8, "halving").most, forecast(5, "halving").most) == (
        115_440,
        15,
        5 + 3 + 2 + 1,
    )
    # sets * epochs * examples * seconds: 3 * 10 * 360, then 2 * 10 * 400, then 10 * 440
    hours = forecast(3, examples=360, epochs=10, growth=40, seconds=2).hours
    assert hours == (pytest.approx(6.0), pytest.approx(2 * 10 * (3 * 360 + 2 * 400 + 440) / 3600))
    # the best with two other seeds: at least on what there is, at most on the data of the last iteration
    again = forecast(3, repeats=2, examples=360, epochs=10, growth=40, seconds=2)
    assert (again.fewest, again.most) == (5, 8)
    most = 2 * 10 * (3 * 360 + 2 * 400 + 440 + 2 * 440) / 3600
    assert again.hours == (pytest.approx(10.0), pytest.approx(most))
    assert worded(forecast(1, examples=360, seconds=10)) == "1 training, 1 hours if no training stops early"


# When a teacher is good enough


def labelled(of: Task, labels: list[float], choices: int = 0) -> Examples:
    texts = tuple(f"choice {n}" for n in range(choices))
    rows = [Example(str(n), str(n), ("x",), texts, label) for n, label in enumerate(labels)]
    return tasks_tiny.examples(of, rows, "validation")


def test_two_classes_need_two_thirds_of_balanced_accuracy() -> None:
    dev = labelled(tasks_tiny.SAME, [0, 0, 0, 1, 1, 1])
    assert adequate(dev, [0, 0, 1, 1, 1, 0]) is None  # 2/3 of both
    said = adequate(dev, [0, 0, 1, 1, 0, 0])
    assert said == "its balanced accuracy on 6 examples of same, validation, is 0.500; a teacher needs 0.667"


def test_a_majority_vote_on_unbalanced_classes_teaches_nothing() -> None:
    dev = labelled(tasks_tiny.SAME, [0] * 9 + [1])
    assert "balanced accuracy" in str(adequate(dev, [0] * 10))
    # Balanced 0.83, but accuracy 0.7 under the 0.9 of the majority
    assert adequate(dev, [0] * 6 + [1] * 4) == (
        "its accuracy on 10 examples of same, validation, is 0.700; always predicting 'different' gives 0.900"
    )
    assert adequate(dev, [0] * 9 + [1]) is None


def test_more_classes_need_more_than_the_majority() -> None:
    dev = labelled(tasks_tiny.TOPIC, [0, 0, 1, 2])
    assert "always predicting 'harbour' gives 0.500" in str(adequate(dev, [0, 0, 0, 0]))
    assert adequate(dev, [0, 1, 1, 2]) is None


def test_choices_are_compared_with_the_most_frequent_position() -> None:
    two = labelled(tasks_tiny.QUIZ, [0, 0, 1, 1], choices=2)
    assert "balanced accuracy" in str(adequate(two, [0, 1, 0, 1]))
    assert adequate(two, [0, 0, 1, 1]) is None
    four = labelled(tasks_tiny.QUIZ, [0, 0, 1, 2, 3], choices=4)
    assert "always predicting '0' gives 0.400" in str(adequate(four, [0, 0, 3, 3, 1]))
    assert adequate(four, [0, 1, 1, 2, 1]) is None


def test_numbers_need_to_be_nearer_than_their_mean() -> None:
    dev = labelled(tasks_tiny.PRICE, [1.0, 2.0, 3.0, 6.0])
    assert "the mean gives 3.5" in str(adequate(dev, [3.0] * 4))
    assert adequate(dev, [1.5, 2.0, 3.0, 5.0]) is None
