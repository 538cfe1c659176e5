"""Certified searches from end to end: what a run leaves, that it goes on as it would have, and that edits are found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from subarch.cli.app import app
from subarch.errors import InvalidStudy
from subarch.extraction.study import Study
from subarch.extraction.trial import Trial, weights_path
from subarch.extraction.verify import verify
from subarch.extraction.workbench import Workbench
from subarch.models.student import save_weights
from subarch.numbers.architecture import Architecture
from subarch.pipeline import extract, select
from tiny_run import OneProcess, searched, tiny_config, train_also

pytestmark = pytest.mark.usefixtures("one_process")
CERTIFIED: dict[str, Any] = {"strategy": "certified", "delta": 0.02, "repeats": 4, "audit": 2, "max_parameters": 9_000}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("world")


@pytest.fixture(scope="module")
def finished(world: Path) -> Path:
    return searched(world / "finished", **CERTIFIED)


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


def certificate(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "selection.json").read_text(encoding="utf-8"))["certificate"]
    return found


def test_what_a_run_leaves(finished: Path) -> None:
    selection = json.loads((finished / "selection.json").read_text(encoding="utf-8"))
    found = selection["certificate"]
    assert found["closed"]
    assert found["incumbent"] == selection["winner"]["architecture"]
    assert found["noise"]["freedom"] >= 2
    assert selection["seeds"] == [0, 1]
    assert (found["candidates"], found["delta"]) == (14, 0.02)
    assert set(found["trained"]).isdisjoint(found["excluded"])
    assert found["affordable"] < 14
    assert selection["gap_sentence"] == found["sentence"]
    assert found["heads"] is None
    assert found["sentence"].startswith(f"Trained {len(found['trained'])} of 14 candidates")
    assert "This assumes that errors do not rise with size" in found["sentence"]
    assert "Certificate" in (finished / "report.html").read_text(encoding="utf-8")


def test_it_verifies(finished: Path) -> None:
    sentences = verify(finished)
    assert sentences[0].startswith("14 candidates: ")
    shown = CliRunner().invoke(app, ["verify", str(finished)])
    assert shown.exit_code == 0
    assert shown.stdout.split("\n") == [*sentences, ""]


def double(values: dict[str, Any], name: str) -> None:
    values[name] = 2 * values[name] + 1


EDITS: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda c: c["trained"].pop(), ": claimed|was not trained"),
    (lambda c: c["trained"].append("9-4-32-64"), "trained candidates: claimed"),
    (lambda c: double(c, "candidates"), "number of candidates: claimed"),
    (lambda c: double(c, "affordable"), "affordable candidates: claimed"),
    (lambda c: c.update(closed=False), "closed: claimed False"),
    (lambda c: c.update(delta=0.5), "delta: claimed 0.5, recomputed 0.02"),
    (lambda c: c["noise"].update(level=0.5), "confidence level of the noise: claimed 0.5"),
    (lambda c: c["noise"].update(eta=c["noise"]["eta"] / 2), "eta: claimed"),
    (lambda c: double(c["noise"], "deviation"), "deviation of the noise: claimed"),
    (lambda c: double(c["noise"], "freedom"), "degrees of freedom of the noise: claimed"),
    (lambda c: double(c, "slack"), "slack: claimed"),
    (lambda c: double(c, "violations"), "violations: claimed"),
    (lambda c: c.update(aim=c["aim"] / 2), "aim: claimed"),
    (lambda c: c.update(reached=(c["reached"] or 1) / 2), "reached: claimed"),
    (lambda c: double(c["audit"], "failures"), "failures in the audit: claimed"),
    (lambda c: c["audit"].update(failing=0.001), "rate of failures that the audit leaves possible: claimed"),
    (lambda c: c.update(incumbent="0-0-16-0"), "incumbent"),
    (lambda c: c.update(equal=["0-0-16-0"]), "not told apart from the incumbent: claimed"),
    (lambda c: c.update(probability=0.99), "probability of all: claimed 0.99"),
    (
        lambda c: c.update(latency={"ratio": None, "limit_ms": [1, 1], "undecided": [], "near": 1, "probability": 1}),
        "claim about latencies: claimed",
    ),
    (lambda c: c["audit"]["drawn"].append("9-4-32-64"), "which the audit drew, was not trained"),
    (lambda c: double(c, "over"), "trained candidates over a limit: claimed"),
    (lambda c: c.update(sentence=c["sentence"].replace("2 %", "1 %")), "sentence: claimed Trained"),
]


@pytest.mark.parametrize(("edit", "message"), EDITS)
def test_an_edited_certificate_is_refused(copy: Path, edit: Callable[[dict[str, Any]], object], message: str) -> None:
    file = copy / "selection.json"
    selection = json.loads(file.read_text(encoding="utf-8"))
    edit(selection["certificate"])
    file.write_text(json.dumps(selection), encoding="utf-8")
    with pytest.raises(InvalidStudy, match=message):
        verify(copy)
    shown = CliRunner().invoke(app, ["verify", str(copy)])
    assert shown.exit_code == 1


def places(values: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path to every value inside, at any depth."""
    for key in values if isinstance(values, dict) else range(len(values)) if isinstance(values, list) else ():
        yield (*at, key)
        yield from places(values[key], (*at, key))


def test_no_part_can_be_missing_or_of_another_kind(copy: Path) -> None:
    file = copy / "selection.json"
    text = file.read_text(encoding="utf-8")
    for *way, last in places(json.loads(text)["certificate"]):
        for junk in (None, "junk", {"a": []}, -7.5, ...):
            selection = json.loads(text)
            holder = reduce(getitem, way, selection["certificate"])
            if holder[last] is junk:
                continue
            if junk is ...:
                del holder[last]
            else:
                holder[last] = junk
            file.write_text(json.dumps(selection), encoding="utf-8")
            with pytest.raises(InvalidStudy, match=r"does not follow from the study|damaged"):
                verify(copy)


def test_excluders_that_do_not_exclude_are_refused(world: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    extract(tiny_config(world, **CERTIFIED | {"delta": 0.5, "repeats": 0, "audit": 0}), run)
    file = run / "selection.json"
    text = file.read_text(encoding="utf-8")
    verify(run)
    name = next(iter(certificate(run)["excluded"]))
    for by, message in (
        ("9-4-32-64", "was not trained"),
        ("0-0-16-0", "not trained|which is smaller"),
        (None, "may beat"),
    ):
        selection = json.loads(text)
        selection["certificate"]["excluded"][name] = by
        file.write_text(json.dumps(selection), encoding="utf-8")
        with pytest.raises(InvalidStudy, match=message):
            verify(run)


def test_a_run_without_a_certificate_says_so(world: Path, tmp_path: Path) -> None:
    extract(tiny_config(world, epsilon=13), tmp_path / "run")
    with pytest.raises(InvalidStudy, match="was searched by strategy fptas"):
        verify(tmp_path / "run")


class Killed(BaseException):
    """As if the process had ended."""


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 4, 7])
def test_killed_and_resumed_it_ends_the_same(
    world: Path, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    config, run = tiny_config(world, **CERTIFIED), tmp_path / "run"
    done = 0
    whole = OneProcess.next

    def dying(self: OneProcess) -> Iterator[Trial]:
        nonlocal done
        for trial in whole(self):
            done += 1
            if done > after:
                raise Killed
            yield trial

    monkeypatch.setattr(OneProcess, "next", dying)
    with pytest.raises(Killed):
        extract(config, run)
    monkeypatch.setattr(OneProcess, "next", whole)
    extract(config, run, resume=True)
    assert certificate(run) == certificate(finished)
    trials = json.loads((run / "conclusion.json").read_text(encoding="utf-8"))["trials"]
    keys = [(trial["architecture"], trial["seed"]) for trial in trials]
    assert len(keys) == len(set(keys))
    verify(run)


def test_trials_of_another_run_are_taken_over(world: Path, finished: Path, tmp_path: Path) -> None:
    asked = OneProcess.submitted
    selection = extract(tiny_config(world, **CERTIFIED, reuse=[str(finished)]), tmp_path / "run").to_dict()
    assert OneProcess.submitted == asked
    assert selection["certificate"] == certificate(finished)
    assert (tmp_path / "run" / "selected" / "model.safetensors").is_file()
    verify(tmp_path / "run")
    with pytest.raises(InvalidStudy, match="trained with another heldout"):
        extract(tiny_config(world, **CERTIFIED, heldout=32, reuse=[str(finished)]), tmp_path / "other")


def test_what_was_trained_since_does_not_void_it_but_a_wonder(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [Architecture.parse(name) for name in certificate(copy)["excluded"]]
    assert names
    train_also(copy, names)
    verify(copy)
    whole = Study.trials

    def with_a_wonder(study: Study) -> list[Trial]:
        return [replace(trial, error=1e-6) if trial.architecture == names[0] else trial for trial in whole(study)]

    monkeypatch.setattr(Study, "trials", with_a_wonder)
    with pytest.raises(InvalidStudy, match="was trained since, and beats the incumbent"):
        verify(copy)


def test_another_question_to_the_same_trials(copy: Path) -> None:
    """What was trained for one limit may not close another; then it is said, and the record still verifies."""
    asked = OneProcess.submitted
    selection = select(copy, {"max_parameters": 10**6}).to_dict()
    assert OneProcess.submitted == asked
    found = selection["certificate"]
    assert found["affordable"] == 14
    if found["closed"]:
        verify(copy)
    else:
        assert "The search is not finished" in found["sentence"]
        with pytest.raises(InvalidStudy, match="closed: claimed False"):
            verify(copy)


class Formula(OneProcess):
    """Trains nobody: errors fall with size. What is saved are untrained weights, small as the shapes asked for are."""

    def next(self) -> Iterator[Trial]:
        self._bench = self._bench or Workbench.open(self.config, self.run)
        while self._waiting:
            shape, settings = self._waiting.pop(0)
            save_weights(self._bench.student(shape), weights_path(self.run, shape, settings))
            yield Trial(shape, settings, 0.9 / (1 + shape.depth + shape.intermediate / 100), (), 1.0, 1)


class Clock:
    """In place of a runtime: milliseconds by a formula."""

    block = 1000

    def __init__(self, *conditions: object) -> None:
        pass

    @contextmanager
    def calls(self, names: Sequence[str]) -> Iterator[dict[str, Any]]:
        yield {name: name for name in names}

    @staticmethod
    def visits(calls: dict[str, Any], rounds: int, on_round: object = None) -> dict[str, list[list[float]]]:
        found = {}
        for name in calls:
            shape = Architecture(6, 4, 32, 64) if name.startswith("teacher") else Architecture.parse(name)
            milliseconds = 0.1 + shape.depth * (0.2 + shape.intermediate / 1000)
            found[name] = [[milliseconds * (0.999 + 0.002 * n / (rounds - 1))] for n in range(rounds)]
        return found


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certified run over 6,000 candidates under a limit on latency."""
    folder = tmp_path_factory.mktemp("large")
    axes = {"depth": list(range(1, 21)), "heads": [4], "hidden": [32], "intermediate": list(range(1, 301))}
    (folder / "space.yaml").write_text(json.dumps(axes), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUBARCH_CACHE", str(folder / "cache"))
        patch.setattr("subarch.pipeline.Workers", Formula)
        patch.setattr("subarch.extraction.latencies.Candidates", Clock)
        patch.setattr("subarch.latency.measuring.visits", Clock.visits)
        options = {"strategy": "certified", "repeats": 0, "audit": 3, "cost": "latency", "max_latency_ms": 1.5}
        selection = extract(tiny_config(folder, **options), folder / "run").to_dict()
    assert selection["certificate"]["candidates"] == 6_000
    assert selection["latency"]["predicted"] > 1_000
    return folder / "run"


def test_a_certificate_of_a_space_larger_than_the_report_draws_is_accepted(large: Path) -> None:
    assert len(json.loads((large / "conclusion.json").read_text(encoding="utf-8"))["order"]) < 6_000
    checked = verify(large)
    assert checked[0].startswith("6000 candidates: ")
    found = certificate(large)
    assert checked[3].startswith(f"latencies: {found['latency']['near']} near the limit")
    assert checked[3].endswith(f"probability {found['probability']:.3f}")


@pytest.mark.parametrize("among", ["trained", "excluded", "over a limit"])
def test_an_edited_latency_is_refused(large: Path, tmp_path: Path, among: str) -> None:
    run = Path(shutil.copytree(large, tmp_path / "copy", ignore=shutil.ignore_patterns("weights", "selected")))
    found = certificate(run)
    record = json.loads((run / "latency.json").read_text(encoding="utf-8"))
    names = found["trained"] if among == "trained" else list(found["excluded"])
    if among == "over a limit":
        names = [name for name in record["candidates"] if name not in {*found["trained"], *found["excluded"]}]
    name = names[0]
    figure = record.get("confirmed", {}).get(name, record["candidates"][name])
    figure["median_ms"] *= 1.01  # of a prediction, or beside its visits
    (run / "latency.json").write_text(json.dumps(record), encoding="utf-8")
    with pytest.raises(InvalidStudy, match=r"the latencies in latency\.json"):
        verify(run)
    (run / "latency.json").rename(run / "elsewhere.json")
    with pytest.raises(InvalidStudy, match="no record of latencies"):
        verify(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"latency": None}, "claims nothing about latencies, which are limited"),
        ({"limit_ms": [1.4, 1.5]}, "least limit on latency: claimed 1.4, recomputed 1.5"),
        ({"limit_ms": [1.5, 1.6]}, "greatest limit on latency: claimed 1.6, recomputed 1.5"),
        ({"undecided": ["1-4-32-1"]}, "not told apart from the limit: claimed"),
        ({"near": 1}, "latencies near the limit: claimed 1, "),
        ({"probability": 1.0}, "probability of the latencies: claimed 1.0"),
    ],
)
def test_an_edited_claim_about_latencies_is_refused(
    large: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    run = Path(shutil.copytree(large, tmp_path / "copy", ignore=shutil.ignore_patterns("weights", "selected")))
    file = run / "selection.json"
    selection = json.loads(file.read_text(encoding="utf-8"))
    found = selection["certificate"]
    assert 0.9 < found["latency"]["probability"] < 1
    assert found["probability"] == pytest.approx(found["latency"]["probability"])  # errors count as exact here
    assert f"all that decide are on their side of it with probability {found['probability']:.2f}" in found["sentence"]
    (found if "latency" in change else found["latency"]).update(change)
    file.write_text(json.dumps(selection), encoding="utf-8")
    with pytest.raises(InvalidStudy, match=message):
        verify(run)


def test_latencies_of_a_later_question_are_not_mistaken_for_the_ones_selected_by(large: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(large, tmp_path / "copy", ignore=shutil.ignore_patterns("weights", "selected")))
    record = json.loads((run / "latency.json").read_text(encoding="utf-8"))
    record["settings"]["runtime"] = "onnx"
    record["candidates"] = {name: {"median_ms": 9.0} for name in record["candidates"]}
    (run / "latency_another.json").write_text(json.dumps(record), encoding="utf-8")
    assert verify(run)[0].startswith("6000 candidates: ")


# Every number of heads

HEADS = {"depth": [0, 1, 2], "heads": [2, 4, 8], "hidden": [16, 32], "intermediate": [16, 64]}
"""26 candidates: three numbers of heads for each shape with layers. The tiny teacher has heads of 8 units."""


@pytest.fixture(scope="module")
def all_heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("heads")
    (folder / "space.yaml").write_text(json.dumps(HEADS), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subarch.pipeline.Workers", OneProcess)
        options = {"strategy": "certified", "delta": 0.02, "repeats": 2, "audit": 1}
        extract(tiny_config(folder, **options, heads="all"), folder / "all")
        extract(tiny_config(folder, **options), folder / "nearest")
    return folder


def test_every_number_of_heads_of_the_best_shape_is_trained_and_the_best_taken(all_heads: Path) -> None:
    found, nearest = certificate(all_heads / "all"), certificate(all_heads / "nearest")
    selection = json.loads((all_heads / "all" / "selection.json").read_text(encoding="utf-8"))
    errors = {one["architecture"]: one["error"] for one in selection["candidates"]}
    best = Architecture.parse(found["incumbent"])
    own = [f"{best.depth}-{heads}-{best.hidden}-{best.intermediate}" for heads in HEADS["heads"]]
    assert set(errors) == {*nearest["trained"], *own}
    assert selection["winner"]["architecture"] == min(own, key=lambda name: errors[name]) == found["heads"]["best"]
    assert found["heads"] == {"candidates": 3, "over": 0, "failed": 0, "left": [], "best": found["heads"]["best"]}
    said = ("heads", "sentence")
    assert {k: v for k, v in found.items() if k not in said} == {k: v for k, v in nearest.items() if k not in said}
    assert found["sentence"].startswith(
        "For each shape only the number of heads nearest to the teacher's head size was"
    )
    assert (
        f"Of the 3 numbers of heads that its shape can have, 3 were trained; {found['heads']['best']} is the best. "
        "Other numbers of heads of other shapes were not searched."
    ) in found["sentence"]
    assert "number of heads" not in nearest["sentence"]
    assert verify(all_heads / "all")[-1] == f"of 3 numbers of heads of its shape {found['heads']['best']} has the best"
    verify(all_heads / "nearest")


@pytest.mark.slow
def test_numbers_of_heads_that_another_question_would_need_are_named(all_heads: Path) -> None:
    """Another question to the same trials: what it would need and was not trained is named."""
    run = Path(shutil.copytree(all_heads / "all", all_heads / "another"))
    before = json.loads((run / "selection.json").read_text(encoding="utf-8"))
    found = select(run, {"max_parameters": before["winner"]["parameters"] - 1}).to_dict()["certificate"]
    best = Architecture.parse(found["incumbent"])
    left = [f"{best.depth}-{a}-{best.hidden}-{best.intermediate}" for a in HEADS["heads"] if a != best.heads]
    assert (found["heads"]["left"], found["closed"]) == (left, False)
    assert f"The search is not finished: {', '.join(left)} were not trained." in found["sentence"]
    with pytest.raises(InvalidStudy, match="closed: claimed False, recomputed True"):
        verify(run)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": None}, "other numbers of heads: claimed None"),
        ({"candidates": 2}, "shape, candidates: claimed 2, recomputed 3"),
        ({"over": 1}, "shape, over: claimed 1, recomputed 0"),
        ({"failed": 1}, "shape, failed: claimed 1, recomputed 0"),
        ({"left": ["2-8-32-64"]}, "shape, left: claimed"),
        ({"best": "1-2-16-16"}, "shape, best: claimed 1-2-16-16"),
    ],
)
def test_edited_claims_about_heads_are_refused(
    all_heads: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    run = Path(shutil.copytree(all_heads / "all", tmp_path / "copy", ignore=shutil.ignore_patterns("weights")))
    file = run / "selection.json"
    selection = json.loads(file.read_text(encoding="utf-8"))
    holder = selection["certificate"] if "heads" in change else selection["certificate"]["heads"]
    holder.update(change)
    file.write_text(json.dumps(selection), encoding="utf-8")
    with pytest.raises(InvalidStudy, match=message):
        verify(run)


def test_a_number_of_heads_whose_trial_is_gone_is_missed(all_heads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    best = Architecture.parse(certificate(all_heads / "all")["incumbent"])
    other = replace(best, heads=next(heads for heads in HEADS["heads"] if heads != best.heads))
    whole = Study.trials
    monkeypatch.setattr(Study, "trials", lambda study: [t for t in whole(study) if t.architecture != other])
    with pytest.raises(InvalidStudy, match=f"shape, left: claimed .*{other}|shape, best: claimed {other}"):
        verify(all_heads / "all")
