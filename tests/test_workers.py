"""Workers: the results of in-process training, whoever is killed; and nobody is left behind.

Where only the processes matter, they run a stand-in for the training that needs no torch and so starts at once. It is
a function of this module, which the spawned processes import: torch is imported in functions only.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from subarch.errors import InvalidCorpus
from subarch.extraction import workers
from subarch.extraction.config import ExtractConfig
from subarch.extraction.trial import Settings, Trial, weights_path
from subarch.extraction.workers import Workers
from subarch.numbers.architecture import Architecture
from subarch.run.configuration import load

THETA = Settings(6, 5e-3, 8)


def drive(pool: Workers, candidates: list[Architecture], settings: Settings = THETA) -> list[Trial]:
    """As the search does: keep the workers busy, collect what ends."""
    left = list(candidates)
    ended: list[Trial] = []
    while left or pool.free < pool.count:
        while left and pool.free:
            pool.submit(left.pop(0), settings)
        ended += pool.next()
    return ended


def wait_for(condition: Callable[[], object], seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def gone(pids: list[int]) -> bool:
    """No such process any more, or a dead one that nobody has asked after."""
    return all(not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE for pid in pids)


def pids_of(pool: Workers) -> list[int]:
    return list(pool._pool._processes)


# With a stand-in for the training


def _mark(name: str) -> bool:
    """Whether this is the first call with this name, in whatever process."""
    try:
        (workers._place[1] / name).touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _stand_in(architecture: Architecture, settings: Settings) -> Trial:
    """Depth 2 kills its worker once, depth 3 always, depth 9 takes a minute; the others give their depth as error."""
    if architecture.depth == 3 or (architecture.depth == 2 and _mark(str(architecture))):
        os.kill(os.getpid(), signal.SIGKILL)
    if architecture.depth == 9:
        time.sleep(60)
    return Trial(architecture, settings, float(architecture.depth), (), os.getpid(), workers._place[2])


def _hanging(architecture: Architecture, settings: Settings) -> Trial:
    """Depth 3 never ends by itself."""
    with workers._in_time(workers._place[0].trial_minutes):
        if architecture.depth == 3:
            time.sleep(600)
        return Trial(architecture, settings, 1.0, (), os.getpid(), 1)


def shape(depth: int, intermediate: int = 8) -> Architecture:
    return Architecture(depth, 1, 8, intermediate)


def unused_config() -> ExtractConfig:
    return load(ExtractConfig, None, {"teacher": "none", "corpus": ["none"], "threads_per_worker": 3})


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_train", _stand_in)


@pytest.mark.usefixtures("stand_in")
def test_each_candidate_comes_back_once_from_a_process_of_its_own(tmp_path: Path) -> None:
    candidates = [shape(1, inner) for inner in range(1, 9)]
    with Workers(unused_config(), tmp_path, 2) as pool:
        assert pool.free == 2
        ended = drive(pool, candidates)
        assert pool.free == 2
    assert sorted(trial.architecture for trial in ended) == candidates
    assert {trial.threads for trial in ended} == {3}
    assert os.getpid() not in {trial.seconds for trial in ended}
    assert len({trial.seconds for trial in ended}) <= 2  # processes are used again


def test_a_candidate_that_hangs_fails_after_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "_train", _hanging)
    config = load(ExtractConfig, None, {"teacher": "none", "corpus": ["none"], "trial_minutes": 0.01})
    with Workers(config, tmp_path, 1) as pool:
        ended = drive(pool, [shape(1), shape(3), shape(4)])
    reasons = {trial.architecture.depth: trial.reason for trial in ended}
    assert reasons == {
        1: None,
        3: "its worker process died twice, killed or out of memory, or over the limit of 0.01 minutes",
        4: None,
    }


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize(
    # Beside another that dies, the one that dies once would fail too if it is cut down before it gets there.
    ("count", "depths"),
    [pytest.param(1, [1, 3, 2, 4], marks=pytest.mark.slow), (2, [1, 3, 4, 5])],
)
def test_a_candidate_that_kills_its_worker_twice_fails_and_the_others_do_not(
    tmp_path: Path, count: int, depths: list[int]
) -> None:
    with Workers(unused_config(), tmp_path, count) as pool:
        ended = drive(pool, [shape(depth) for depth in depths])
    assert sorted(trial.architecture.depth for trial in ended) == sorted(depths)
    for trial in ended:
        if trial.architecture.depth == 3:
            assert (trial.error, trial.threads) == (None, 3)
            assert trial.reason == "its worker process died twice, killed or out of memory"
        else:
            assert (trial.error, trial.reason) == (trial.architecture.depth, None)


@pytest.mark.usefixtures("stand_in")
def test_a_worker_that_dies_while_idle_costs_nothing(tmp_path: Path) -> None:
    with Workers(unused_config(), tmp_path, 1) as pool:
        assert [trial.error for trial in drive(pool, [shape(1)])] == [1]
        os.kill(pids_of(pool)[0], signal.SIGKILL)
        wait_for(lambda: pool._pool._broken)
        assert [trial.error for trial in drive(pool, [shape(4), shape(5)])] == [4, 5]


@pytest.mark.usefixtures("stand_in")
def test_nothing_is_left_behind_though_work_was_going_on(tmp_path: Path) -> None:
    with Workers(unused_config(), tmp_path, 2) as pool:
        pool.submit(shape(9), THETA)
        pool.submit(shape(1), THETA)
        assert [trial.error for trial in pool.next()] == [1]
        pids = pids_of(pool)
        assert len(pids) == 2
        assert not any(gone([pid]) for pid in pids)
    wait_for(lambda: gone(pids))


PARENT = """
import signal, sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import test_workers
from subarch.extraction import workers
workers._train = test_workers._stand_in
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in the background it is ignored
    with workers.Workers(test_workers.unused_config(), Path({run!r}), 2) as pool:
        pool.submit(test_workers.shape(9), test_workers.THETA)
        pool.submit(test_workers.shape(1), test_workers.THETA)
        list(pool.next())
        print(*test_workers.pids_of(pool), flush=True)
        list(pool.next())
"""


@pytest.fixture
def family(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], list[int]]]:
    """A process with a worker that sleeps and one that is idle, and the pids of these. It writes to err.txt."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(tests=str(Path(__file__).parent), run=str(tmp_path)), encoding="utf-8")
    with (tmp_path / "err.txt").open("wb") as error:
        command = [sys.executable, str(script)]
        parent = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=error, start_new_session=True)
    assert parent.stdout is not None
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 2
    assert not any(gone([pid]) for pid in pids)
    yield parent, pids
    for pid in (parent.pid, *pids):
        if not gone([pid]):
            os.kill(pid, signal.SIGKILL)
    parent.wait()
    parent.stdout.close()


@pytest.mark.slow
def test_workers_end_when_their_parent_is_killed(family: tuple[subprocess.Popen[bytes], list[int]]) -> None:
    parent, pids = family
    parent.kill()
    wait_for(lambda: gone(pids))


@pytest.mark.slow
def test_ctrl_c_is_the_parents_alone(tmp_path: Path, family: tuple[subprocess.Popen[bytes], list[int]]) -> None:
    parent, pids = family
    for pid in pids:
        os.kill(pid, signal.SIGINT)
    time.sleep(0.5)
    assert parent.poll() is None
    assert not any(gone([pid]) for pid in pids)
    os.killpg(parent.pid, signal.SIGINT)  # as a terminal does: to all of them
    parent.wait(60)
    wait_for(lambda: gone(pids))
    error = (tmp_path / "err.txt").read_text(encoding="utf-8")
    # one trace, the parent's, and no complaint about anything that leaked
    assert error.count("Traceback") == 1
    assert error.rstrip().endswith("KeyboardInterrupt")
    assert "leaked" not in error


def test_weights_of_different_trials_have_different_places() -> None:
    settings = [
        Settings(100, 1e-3, 64),
        Settings(50, 1e-3, 64),
        Settings(100, 1.0000001e-3, 64),
        Settings(100, 1e-3, 32),
        Settings(100, 1e-3, 64, 1),
    ]
    paths = {weights_path(Path("run"), one, theta) for one in (shape(1), shape(2)) for theta in settings}
    assert len(paths) == 10
    name = "run/weights/1-1-8-8_s100_lr0.001_b64_seed0.safetensors"
    assert weights_path(Path("run"), shape(1), settings[0]) == Path(name)


# With real training


def in_process(config: ExtractConfig, run: Path, candidate: Architecture) -> tuple[list[tuple[int, float]], bytes]:
    """Curve and weights of the same training in this process, with the same number of threads."""
    import torch

    from subarch.extraction.workbench import Workbench

    threads = torch.get_num_threads()
    torch.set_num_threads(config.threads_per_worker)
    try:
        path = run / "expected.safetensors"
        trial = Workbench.open(config, run).train(candidate, THETA, path)
    finally:
        torch.set_num_threads(threads)
    return [(point.step, point.error) for point in trial.curve], path.read_bytes()


def outcome(run: Path, trial: Trial) -> tuple[list[tuple[int, float]], bytes]:
    path = weights_path(run, trial.architecture, trial.settings)
    return [(point.step, point.error) for point in trial.curve], path.read_bytes()


def _killed_while_training(architecture: Architecture, settings: Settings) -> Trial:
    """The first time that it gets so far the process dies in the third step."""
    bench: Any = workers._bench()
    if _mark("killed"):
        loss = bench.signal.loss
        steps: list[None] = []

        def deadly(*arguments: Any) -> Any:
            steps.append(None)
            if len(steps) == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            return loss(*arguments)

        bench.signal.loss = deadly
    return workers._train(architecture, settings)


@pytest.mark.slow
def test_results_are_those_of_training_in_process_bit_for_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the worker cannot begin at first, and is killed later. (One: importing torch takes the longest here.)"""
    from tiny import tiny_corpus, tiny_teacher

    run, corpus = tmp_path / "run", tmp_path / "corpus.txt"
    values: dict[str, Any] = {"teacher": tiny_teacher(tmp_path / "teacher", layers=2), "max_length": 24, "heldout": 8}
    config = load(ExtractConfig, None, values | {"corpus": [str(corpus)], "steps": THETA.steps, "batch_size": [8]})
    candidates = [Architecture(1, 4, 32, 24), Architecture(0, 0, 16, 0), Architecture(2, 2, 16, 64)]
    monkeypatch.setattr(workers, "_train", _killed_while_training)
    with Workers(config, run, 1) as pool:
        with pytest.raises(InvalidCorpus, match=r"corpus\.txt"):
            drive(pool, candidates[:1])
        assert not (run / "killed").exists()
        tiny_corpus(corpus)
        ended = drive(pool, candidates)
    assert (run / "killed").exists()
    assert [trial.architecture for trial in ended] == candidates
    for trial in ended:
        assert trial.threads == config.threads_per_worker
        assert outcome(run, trial) == in_process(config, run, trial.architecture)
    assert not [path for path in run.rglob("*") if path.suffix == ".tmp"]
