"""Whole runs: every artifact, any interruption, any later question, and whatever can go wrong on the way."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from signal import SIGINT, SIGKILL, default_int_handler, signal
from typing import Any

import psutil
import pytest
import yaml
from safetensors import SafetensorError
from transformers import PreTrainedModel

import subarch.extraction.study
import subarch.extraction.workbench
import subarch.pipeline
from forked import start
from subarch.cli.app import main
from subarch.errors import (
    InvalidConfig,
    InvalidCorpus,
    InvalidSpace,
    InvalidStudy,
    InvalidTeacher,
    TrainingDiverged,
)
from subarch.extraction.config import ExtractConfig
from subarch.extraction.workers import Workers
from subarch.numbers.architecture import Architecture, Inputs
from subarch.numbers.space import SearchSpace
from subarch.pipeline import extract, select, write_report
from subarch.run.folder import RunFolder
from subarch.run.machine import environment
from tiny import tiny_sentences, tiny_teacher
from tiny_run import AXES, OneProcess, tiny_config, tiny_options

ARTIFACTS = {
    *("format.json", "config.yaml", "environment.json", "space.json", "basis.json", "latency.json", "study.json"),
    *("layers.json", "study.db", "weights", "corpus", "tokenizer", "targets", "anatomy"),
    *("extraction.inputs.json", "selection.json", "conclusion.json", "selected", "report.html"),
}


BLOCKS = count()


def steady(calls: Mapping[str, Callable[[], object]], rounds: int, *_: object) -> dict[str, list[list[float]]]:
    """In place of the clock: everything runs once, and takes what follows from its shape; never twice the same."""
    later, found = 1 + next(BLOCKS) / 100, {}
    for name, call in calls.items():
        call()
        depth, _, hidden, intermediate = (4, 4, 32, 64) if "-" not in name else map(int, name.split("-"))
        found[name] = [[later * (0.1 + 0.2 * depth + hidden / 1000 + intermediate / 5000)]] * rounds
    return found


@pytest.fixture(scope="module", autouse=True)
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUBARCH_CACHE", str(tmp_path_factory.mktemp("steady")))  # other tests' latencies are of the clock
        patch.setattr("subarch.pipeline.Workers", OneProcess)
        patch.setattr("subarch.latency.measuring.visits", steady)
        yield


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with teacher, corpus and space."""
    folder = tmp_path_factory.mktemp("world")
    tiny_options(folder)
    return folder


@pytest.fixture(scope="module")
def config(world: Path) -> ExtractConfig:
    """Measured latency, and a Θ of which one element fails everywhere."""
    return tiny_config(world, cost="latency", learning_rate=[2e-3, 1e30], epsilon=2, steps=20)


@pytest.fixture(scope="module")
def finished(world: Path, config: ExtractConfig) -> Path:
    """A run that nothing interrupted; tests that change it take a copy."""
    extract(config, world / "finished")
    return world / "finished"


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "copy"))


@pytest.fixture(scope="module")
def small(world: Path) -> Path:
    """The quickest run there is: the cheapest and the costliest candidate, no latency."""
    extract(tiny_config(world, epsilon=13), world / "small")
    return world / "small"


@pytest.fixture
def small_copy(small: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(small, tmp_path / "small"))


def read(run: Path, name: str = "selection") -> Any:
    return json.loads((run / f"{name}.json").read_text())


def decided(run: Path) -> dict[str, Any]:
    """All of a selection that may not depend on when and how it was made: without times and the numbers of trials."""
    selection = read(run)
    selection.pop("ledger")
    for row in (*selection["candidates"], selection["winner"], (selection["nearest"] or {}).get("row")):
        if row is not None:
            row.pop("trial")
    return dict(selection)


def trials(run: Path) -> list[dict[str, Any]]:
    """What training gave, in an order of its own, without times."""
    found = [dict(trial) for trial in read(run, "conclusion")["trials"]]
    for trial in found:
        trial["curve"] = [point[:2] for point in trial["curve"]]
        del trial["number"], trial["seconds"]
    return sorted(found, key=lambda trial: json.dumps(trial, sort_keys=True))


def recorded(run: Path) -> int:
    """Finished trials in the study, whoever is writing to it."""
    if not (run / "study.db").is_file():
        return 0
    with sqlite3.connect(f"file:{run / 'study.db'}?mode=ro", uri=True) as connection:
        try:
            return int(connection.execute("select count(*) from trials where state != 'RUNNING'").fetchone()[0])
        except sqlite3.OperationalError:  # not created yet, or locked
            return 0


# What a run leaves


def test_every_artifact_is_there_and_nothing_else(finished: Path) -> None:
    names = {path.name for path in finished.iterdir() if path.suffix != ".lock" and path.name != ".lock"}
    assert {"anatomy" if name.startswith("anatomy-") else name for name in names} == ARTIFACTS
    assert not [path for path in finished.rglob("*") if "tmp" in path.name or "partial" in path.name]


def test_the_selection_names_what_was_decided_and_on_what(finished: Path, config: ExtractConfig) -> None:
    selection = read(finished)
    space = SearchSpace.load(config.space)
    costs = space.costs(Inputs(**read(finished, "basis")["inputs"]), config.latency_length)
    order = [str(costs.architecture(row)) for row in range(len(costs))]
    rows = {row["architecture"]: row for row in selection["candidates"]}
    assert list(rows) == [order[row] for row in (0, 2, 4, 6, 8, 10, 12, 13)]
    winner = selection["winner"]
    assert winner == rows[winner["architecture"]]
    assert winner["error"] == min(row["error"] for row in rows.values())
    assert selection["outcome"] == "selected"
    assert selection["nearest"] is None
    assert winner["architecture"] in selection["frontier"]
    assert winner["reason"] is None
    assert [name for name, row in rows.items() if not row["reason"]] == [winner["architecture"]]
    assert selection["strategy"] == {
        "name": "fptas",
        "epsilon": 2,
        "steps": 20,
        "hyperparameters": [{"learning_rate": rate, "batch_size": 16} for rate in (2e-3, 1e30)],
    }
    assert selection["maximum_point"] == "3-4-32-64"
    assert selection["seeds"] == [0]
    assert selection["teacher"]["architecture"] == "3-4-32-64"
    assert selection["teacher"]["latency_ms"] > 0
    assert selection["cost_kind"] == "latency"
    measured = read(finished, "latency")["candidates"]
    assert set(measured) == set(order)  # the whole space, trained or not
    for name, row in rows.items():
        count = Architecture.parse(name).parameters(Inputs(**read(finished, "basis")["inputs"]))
        assert (row["parameters"], row["encoder_parameters"]) == (count.total, count.encoder)
        assert row["latency_ms"] == measured[name]["median_ms"]
        assert row["hyperparameters"] == {"learning_rate": 2e-3, "batch_size": 16}
    ledger = {entry["what"]: entry["seconds"] for entry in selection["ledger"]}
    count = len(read(finished, "layers")["trials"])
    assert list(ledger) == [
        "corpus, teacher targets, anatomy",
        "latency measurements",
        f"{count} short trainings to choose layers, summed over workers",
        "16 trials, summed over workers",
    ]
    assert all(seconds > 0 for seconds in ledger.values())


def test_the_environment_is_recorded_with_git_or_without(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded_then = read(finished, "environment")
    assert set(recorded_then) == {"versions", "git", "machine"}
    assert recorded_then["versions"]["subarch"] == subarch.__version__
    monkeypatch.setenv("PATH", "")
    assert environment().git is None


def test_a_failing_theta_stops_nothing_and_is_told(finished: Path) -> None:
    found = read(finished, "conclusion")["trials"]
    failed = [trial for trial in found if trial["state"] == "failed"]
    assert len(found) == 16
    assert len(failed) == 8
    assert {trial["hyperparameters"]["learning_rate"] for trial in failed} == {1e30}
    assert all("lower learning rate" in trial["reason"] for trial in failed)
    assert "8 trials failed; the table of trials gives their reasons." in read(finished)["warnings"]


def test_the_report_shows_the_winner_and_the_command_survives_a_shell(finished: Path) -> None:
    page = (finished / "report.html").read_text()
    assert read(finished)["winner"]["architecture"] in page
    assert "lower learning rate" in page
    assert f"subarch extract --config {finished}/config.yaml" in page


def test_a_finished_run_resumed_trains_and_changes_nothing(copy: Path, config: ExtractConfig) -> None:
    before, asked = read(copy), OneProcess.submitted
    assert extract(config, copy, resume=True).to_dict() == before == read(copy)
    assert OneProcess.submitted == asked


def test_a_moved_run_keeps_its_trials(copy: Path, config: ExtractConfig, tmp_path: Path) -> None:
    before, asked = read(copy), OneProcess.submitted
    moved = copy.rename(tmp_path / "what? a [bold] name")
    assert select(moved, {}).to_dict() == before
    assert extract(config, moved, resume=True).to_dict() == before
    assert OneProcess.submitted == asked
    assert "--run &#39;" in (moved / "report.html").read_text() or "--run '" in (moved / "report.html").read_text()


@pytest.mark.slow
def test_a_storage_elsewhere_is_shared_by_runs(world: Path, tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/all.db"
    for name in ("one", "two"):
        extract(tiny_config(world, epsilon=13, database=storage), tmp_path / name)
        assert not (tmp_path / name / "study.db").exists()
    asked = OneProcess.submitted
    select(tmp_path / "one", {"cost": "operations", "max_parameters": 10**9})
    assert OneProcess.submitted == asked
    assert len(read(tmp_path / "one", "conclusion")["trials"]) == 2
    assert decided(tmp_path / "two")["candidates"] == decided(tmp_path / "one")["candidates"]


# Any interruption


@pytest.mark.slow
def test_a_run_stopped_by_ctrl_c_then_killed_ends_as_if_nothing_had_happened(
    finished: Path, config: ExtractConfig, tmp_path: Path
) -> None:
    """Two workers, then one, then this process: the errors are those of the run that trained in it, bit for bit."""
    run = tmp_path / "interrupted"
    RunFolder.create(run, config, resume=False)
    shutil.copy(finished / "latency.json", run)  # measured figures never come out the same again

    with launched(tmp_path / "said", "extract", "--run", run, "--resume", "--workers", 2) as process:
        wait_for(process, run, more_than=0)
        with pytest.raises(InvalidStudy, match="another process is working in this run"):
            extract(config, run, resume=True)
        workers = process.children(recursive=True)
        os.killpg(process.pid, SIGINT)  # as a terminal does
        assert process.wait(600) == 130
    said = (tmp_path / "said").read_text()
    assert f"continue with: subarch extract --run {run} --resume" in " ".join(said.split())
    assert "Traceback" not in said
    assert len(workers) >= 2
    assert psutil.wait_procs(workers, timeout=10)[1] == []
    stopped = recorded(run)
    assert 0 < stopped < 16

    with launched(tmp_path / "said", "extract", "--run", run, "--resume", "--workers", 1) as process:
        wait_for(process, run, more_than=stopped)
        workers = process.children(recursive=True)
        process.kill()
        assert process.wait(600) == -SIGKILL
    assert psutil.wait_procs(workers, timeout=10)[1] == []  # they notice that their parent is gone
    assert stopped < recorded(run) < 16

    assert extract(config, run, resume=True).to_dict() == read(run)
    assert decided(run) == decided(finished)
    assert trials(run) == trials(finished)  # no trial twice, and every curve bit for bit
    assert {path.name for path in (run / "weights").iterdir()} == {
        path.name for path in (finished / "weights").iterdir()
    }


@contextmanager
def launched(said: Path, *words: object) -> Iterator[psutil.Process]:
    """The command with its workers in a process group of its own, which does not outlive the test; it writes `said`."""

    def command() -> None:
        os.setsid()
        signal(SIGINT, default_int_handler)  # also where the tests run in the background, which ignores it
        sys.argv = ["subarch", *map(str, words)]
        subarch.pipeline.Workers = Workers  # type: ignore[misc]
        os.dup2(os.open(said, os.O_WRONLY | os.O_CREAT), 2)  # the workers' too
        sys.stdout = sys.stderr = os.fdopen(2, "w")
        main()

    process = psutil.Process(start(command))
    try:
        yield process
    finally:
        if process.is_running():
            os.killpg(process.pid, SIGKILL)
            process.wait()


def wait_for(process: psutil.Process, run: Path, more_than: int) -> None:
    deadline = time.monotonic() + 600  # others may be using the machine
    while recorded(run) <= more_than:
        assert process.status() != psutil.STATUS_ZOMBIE
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Death(BaseException):
    """Nothing catches it."""


def test_a_death_after_any_write_changes_nothing(
    small: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    died: list[str] = []

    def die(name: str) -> None:
        if name not in died:
            died.append(name)
            raise Death(name)

    def dying(owner: Any, attribute: str, name: str | None = None) -> None:
        original = getattr(owner, attribute)

        def wrapper(*arguments: Any, **options: Any) -> Any:
            result = original(*arguments, **options)
            die(name or arguments[1])
            return result

        monkeypatch.setattr(owner, attribute, wrapper)

    dying(RunFolder, "write_text")
    dying(subarch.extraction.study.Study, "record", "trial")
    dying(subarch.extraction.workbench, "save_weights", "weights")
    dying(subarch.pipeline, "hand_over", "selected")
    run, config = tmp_path / "run", tiny_config(world, epsilon=13)
    for attempt in range(20):
        with suppress(Death):
            extract(config, run, resume=(run / "config.yaml").is_file())
            break
        assert len(died) == attempt + 1
    written = ["format", "extraction.inputs", "environment", "space", "layers", "basis", "study", "selection"]
    written.append("conclusion")
    expected = {"config.yaml", "weights", "trial", "selected", "report.html", *(f"{name}.json" for name in written)}
    assert set(died) == expected
    assert decided(run) == decided(small)
    assert trials(run) == trials(small)


@contextmanager
def disk_of(kilobytes: int) -> Iterator[None]:
    """The kernel refuses files beyond a size, as a full disk refuses them, and whoever writes them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.slow
def test_a_full_disk_at_any_point_keeps_what_is_finished(small: Path, world: Path, tmp_path: Path) -> None:
    run, config = tmp_path / "run", tiny_config(world, epsilon=13)

    def fill(kilobytes: int) -> None:
        with (
            disk_of(kilobytes),
            pytest.raises(InvalidStudy, match="what was finished before is kept"),
        ):
            extract(config, run, resume=(run / "config.yaml").is_file())
        assert not [path for path in run.rglob("*") if "tmp" in path.name or "partial" in path.name]

    fill(1)
    assert sorted(path.name for path in run.iterdir()) == [".lock", "format.json"]
    fill(9)
    assert not (run / "corpus").exists()
    fill(16)
    assert (run / "corpus").is_dir()
    assert len(list((run / "targets").iterdir())) == 1
    fill(500)
    assert not list(run.glob("anatomy-*.safetensors"))
    fill(3500)
    assert (run / "selected").is_dir()
    assert not (run / "report.html").exists()
    (run / "study.db").unlink()
    shutil.rmtree(run / "weights")
    fill(125)
    assert len(list((run / "weights").iterdir())) == recorded(run) == 1
    extract(config, run, resume=True)
    assert decided(run) == decided(small)
    assert trials(run) == trials(small)


def test_a_disk_that_fills_up_under_a_later_question_keeps_the_earlier_answer(
    small_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: (small_copy / name).read_bytes() for name in ("selection.json", "report.html")}
    weights = (small_copy / "selected" / "model.safetensors").read_bytes()

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(InvalidStudy, match=r"json: cannot be written: .*No space left.*is kept"):
            select(small_copy, {"max_parameters": 8000})
    assert {name: (small_copy / name).read_bytes() for name in before} == before

    def refused(*arguments: Any, **options: Any) -> None:
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch:
        patch.setattr(PreTrainedModel, "save_pretrained", refused)
        with pytest.raises(InvalidStudy, match=r"No space left on device .* what was finished before is kept"):
            select(small_copy, {"max_parameters": 8000})
    assert (small_copy / "selected" / "model.safetensors").read_bytes() == weights
    assert not list(small_copy.glob(".*partial*"))
    assert (
        select(small_copy, {}).to_dict()["winner"]["architecture"]
        == json.loads(before["selection.json"])["winner"]["architecture"]
    )


# Later questions


def test_later_questions_are_answered_without_training_and_the_first_one_again_as_before(
    copy: Path, finished: Path
) -> None:
    asked, stored = OneProcess.submitted, recorded(copy)
    measured = (copy / "latency.json").read_bytes()
    rows = read(finished)["candidates"]

    def best(key: Any, allowed: Any = lambda row: True) -> str:
        return str(min((row for row in rows if allowed(row)), key=key)["architecture"])

    found = select(copy, {"objective": "w"}).to_dict()
    assert found["winner"]["architecture"] == best(lambda row: -row["w"])
    assert any("bounded away from 0" in warning for warning in found["warnings"])
    assert (copy / "report.html").read_text().count("bounded away from 0")

    errors = [row["error"] for row in rows if row["error"] < 1]
    assert len(rows) > len(errors) > 0
    keep = 1 - max(errors)
    found = select(copy, {"objective": "latency", "keep": keep}).to_dict()
    assert found["winner"]["architecture"] == best(lambda row: row["latency_ms"], lambda row: row["error"] <= 1 - keep)

    limit = sorted(row["parameters"] for row in rows)[4]
    found = select(copy, {"max_parameters": limit}).to_dict()
    assert found["winner"]["architecture"] == best(lambda row: row["error"], lambda row: row["parameters"] <= limit)
    over = [row for row in found["candidates"] if row["parameters"] > limit]
    assert over
    assert all("over the size limit" in row["reason"] for row in over)

    found = select(copy, {"max_latency_ratio": 0.5}).to_dict()
    most = 0.5 * read(copy, "latency")["teacher"]["median_ms"]
    assert found["objective"]["max_latency_ms"] == most
    assert found["winner"]["latency_ms"] <= most

    found = select(copy, {"cost": "operations"}).to_dict()
    assert found["objective"] == dict.fromkeys(found["objective"]) | {"name": "error"}
    assert {row["latency_ms"] for row in found["candidates"]} == {None}
    assert found["teacher"]["latency_ms"] is None

    found = select(copy, {"latency_batch": 2, "latency_length": 4}).to_dict()
    assert [row["error"] for row in found["candidates"]] == [row["error"] for row in rows]
    assert [row["latency_ms"] for row in found["candidates"]] != [row["latency_ms"] for row in rows]
    assert [row["operations"] for row in found["candidates"]] != [row["operations"] for row in rows]
    again = select(copy, {"latency_batch": 2, "latency_length": 4}).to_dict()
    assert again == found  # measured once

    found = select(copy, {"max_latency_ms": 1e-6, "max_parameters": 6000}).to_dict()
    assert found["outcome"] == "infeasible"
    assert found["winner"] is None
    assert found["nearest"]["row"]["architecture"] == best(lambda row: row["latency_ms"])
    assert found["nearest"]["limits"]["max_latency_ms"] == found["nearest"]["row"]["latency_ms"]
    assert found["nearest"]["sentence"].startswith("no candidate meets the limits; ")
    assert not (copy / "selected").exists()  # nobody is

    assert select(copy, {}).to_dict() == read(finished)
    assert (copy / "selected" / "model.safetensors").read_bytes() == (
        finished / "selected" / "model.safetensors"
    ).read_bytes()
    assert (OneProcess.submitted, recorded(copy)) == (asked, stored)
    assert (copy / "latency.json").read_bytes() == measured


def test_measuring_again_replaces_the_figures_once_there_are_new_ones(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (copy / "latency.json").read_bytes()

    def stop(*arguments: Any, **options: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("subarch.latency.measuring.visits", stop)
        with pytest.raises(KeyboardInterrupt):
            select(copy, {}, remeasure=True)
    assert (copy / "latency.json").read_bytes() == before
    select(copy, {}, remeasure=True)
    assert (copy / "latency.json").read_bytes() != before


def test_a_later_question_needs_neither_the_space_file_nor_the_weights_of_losers(world: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(yaml.safe_dump(AXES))
    config, run = tiny_config(world, epsilon=13, space=str(space)), tmp_path / "run"
    extract(config, run)
    space.unlink()
    winner = select(run, {"max_parameters": 20_000}).to_dict()["winner"]["architecture"]
    assert winner != "3-4-32-64"
    space.write_text(yaml.safe_dump(AXES | {"depth": [1, 2]}))
    with pytest.raises(InvalidStudy, match=r"the search space .*space.yaml has other content now; restore it"):
        extract(config, run, resume=True)
    space.write_text(yaml.safe_dump(AXES))
    assert extract(config, run, resume=True).to_dict()["winner"]["architecture"] == "3-4-32-64"


def test_a_floor_that_only_the_teacher_reaches_is_refused(small_copy: Path) -> None:
    with pytest.raises(InvalidConfig, match="only the teacher itself"):
        select(small_copy, {"objective": "latency", "keep": 1.0})
    with pytest.raises(InvalidConfig, match=r"max_latency_ms 1.0 needs measured latency"):
        select(small_copy, {"cost": "operations", "max_latency_ms": 1.0})


def test_the_task_error_is_that_of_the_users_own_set(world: Path, tmp_path: Path) -> None:
    task = tmp_path / "task.jsonl"
    words = [sentence.split() for sentence in tiny_sentences(24, seed=5)]
    rows = [{"query": " ".join(sentence[:-1]), "document": " ".join(sentence)} for sentence in words]
    task.write_text("".join(json.dumps(row) + "\n" for row in rows))
    changes = {"error": "task", "task": str(task), "objective": "latency", "keep": 0.6, "cost": "latency"}
    selection = extract(tiny_config(world, epsilon=4, **changes), tmp_path / "run").to_dict()
    reference = read(tmp_path / "run", "basis")["reference_error"]
    assert 0 < reference < 0.5  # the teacher finds most
    floor = 1 - 0.6 * (1 - reference)
    assert selection["objective"]["max_error"] == floor
    candidates = selection["candidates"]
    assert {row["error_kind"] for row in candidates} == {"task"}
    good = [row for row in candidates if row["error"] <= floor]
    assert selection["winner"]["latency_ms"] == min(row["latency_ms"] for row in good)


# Bad input


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({"depth": [1], "hidden": [30]}, "empty: no hidden size of .30. is divisible"),
        ({"depth": []}, "depth must be a non-empty list"),
    ],
)
def test_a_space_without_candidates_is_refused_before_anything_is_made(
    world: Path, tmp_path: Path, axes: dict[str, list[int]], message: str
) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(yaml.safe_dump(AXES | axes))
    with pytest.raises(InvalidSpace, match=message):
        extract(tiny_config(world, space=str(space), epsilon=1), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_bad_sources_are_refused(world: Path, tmp_path: Path) -> None:
    tiny = tmp_path / "tiny.txt"
    tiny.write_text("the old boat needs a captain\n\nthe red rose finds one bee\n")
    for changes, error, message in (
        ({"corpus": [str(tiny)]}, InvalidCorpus, "only 2 distinct documents"),
        ({"corpus": [str(tmp_path / "no.txt")]}, InvalidCorpus, "no such file"),
        ({"teacher": str(tmp_path / "nobody")}, InvalidTeacher, "no such folder"),
        ({"epsilon": 15}, InvalidConfig, r"from 1 \(train all\) to \|Ξ\| = 14"),
        ({"latency_length": 65, "cost": "latency"}, InvalidConfig, "latency_length 65: these encoders read at most 64"),
    ):
        run = tmp_path / str(len(list(tmp_path.iterdir())))
        with pytest.raises(error, match=message):
            extract(tiny_config(world, **changes), run)
        assert not (run / "selection.json").exists()


@pytest.mark.slow
def test_positions_that_roberta_never_uses_are_not_measured(tmp_path: Path) -> None:
    teacher = tiny_teacher(tmp_path / "teacher", family="roberta")
    options = {"teacher": str(teacher), "cost": "latency", "epsilon": 13, "steps": 1}
    with pytest.raises(InvalidConfig, match="at most 64 tokens"):
        extract(tiny_config(tmp_path, **options, latency_length=65), tmp_path / "run")
    extract(tiny_config(tmp_path, **options, latency_length=64), tmp_path / "other")


def test_if_every_training_fails_the_reason_is_told_once_and_nothing_is_tried_again(
    world: Path, tmp_path: Path
) -> None:
    config, run = tiny_config(world, epsilon=13, learning_rate=[1e30]), tmp_path / "run"
    with pytest.raises(TrainingDiverged, match=r"all 2 trials failed, .* is nan at step 1; try a lower learning rate"):
        extract(config, run)
    asked = OneProcess.submitted
    with pytest.raises(TrainingDiverged, match="all 2 trials failed"):
        extract(config, run, resume=True)
    with pytest.raises(TrainingDiverged, match="all 2 trials failed"):
        select(run, {"max_parameters": 10**6})
    assert (OneProcess.submitted, recorded(run)) == (asked, 2)
    # beyond what is known beforehand it is still an answer: nothing was to be trained
    assert select(run, {"max_parameters": 1}).to_dict()["outcome"] == "infeasible"


def test_limits_that_nobody_meets_are_an_answer_before_any_training(world: Path, tmp_path: Path) -> None:
    asked = OneProcess.submitted
    found = extract(tiny_config(world, max_parameters=10), tmp_path / "run").to_dict()
    assert OneProcess.submitted == asked
    assert (found["outcome"], found["winner"], found["candidates"]) == ("infeasible", None, [])
    least = found["nearest"]["row"]
    assert least["architecture"] == "0-0-16-0"
    assert least["error"] is None
    assert found["nearest"]["limits"] == {"max_parameters": least["parameters"]}
    assert (tmp_path / "run" / "report.html").is_file()
    with pytest.raises(InvalidStudy, match="no candidate has been trained yet: resume the run first"):
        select(tmp_path / "run", {"max_parameters": 10**9})


def test_a_corrupt_study_is_refused_and_left_alone(small_copy: Path, world: Path) -> None:
    (small_copy / "study.db").write_bytes(b"no database" * 100)
    for call in (
        lambda: extract(tiny_config(world, epsilon=13), small_copy, resume=True),
        lambda: select(small_copy, {}),
    ):
        with pytest.raises(InvalidStudy, match="cannot be opened"):
            call()
    assert (small_copy / "study.db").read_bytes() == b"no database" * 100


def test_another_corpus_than_at_the_start_is_refused(world: Path, tmp_path: Path) -> None:
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("\n\n".join(tiny_sentences(60)))
    config, run = tiny_config(world, epsilon=13, corpus=[str(corpus)]), tmp_path / "run"
    extract(config, run)
    corpus.write_text("\n\n".join(tiny_sentences(61)))
    packed = (run / "corpus" / "corpus.json").read_bytes()
    with pytest.raises(InvalidStudy, match=r"the corpus .*corpus.txt has other content now; restore it to resume"):
        extract(config, run, resume=True)
    assert (run / "corpus" / "corpus.json").read_bytes() == packed


def test_weights_of_the_winner_that_are_damaged_or_gone(small_copy: Path, world: Path) -> None:
    winner = read(small_copy)["winner"]["architecture"]
    (path,) = (small_copy / "weights").glob(f"{winner}_*")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InvalidStudy, match=r"cannot be read .*; delete the file to train it again"):
        select(small_copy, {})
    path.unlink()
    with pytest.raises(InvalidStudy, match="delete the file to train it again"):
        select(small_copy, {})
    # and that is what resuming does
    extract(tiny_config(world, epsilon=13), small_copy, resume=True)
    assert path.read_bytes() == whole
    assert recorded(small_copy) == 2


def test_a_report_needs_a_finished_run(world: Path, tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", tiny_config(world), resume=False)
    with pytest.raises(InvalidStudy, match=r"conclusion.json: missing; finish the run first: subarch extract --run"):
        write_report(tmp_path / "run")
