"""What all tests share: no network, one thread a process, repeatable property tests, the shared data where present."""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from pathlib import Path

# Read when torch, NumPy and huggingface_hub are first imported, hence before everything else
os.environ["HF_HUB_OFFLINE"] = "1"
# Two pytest processes with two threads each would wait for each other on two cores
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest
from hypothesis import HealthCheck, settings

REPOSITORY = Path(__file__).parents[1]

# No deadline: the first example of a test may import torch. derandomize: a failure is one for everybody
settings.register_profile(
    "subarch", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
settings.load_profile("subarch")


def pytest_collection_finish() -> None:
    """What was imported is no garbage, but half a million objects to look through, and Trainer looks at each start."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def one_usable_core() -> Iterator[None]:
    """What would take all cores, such as a measurement of latency, takes one, for the reason above."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subarch.run.machine._affinity", lambda: 1)
        yield


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What outlives runs on a user's machine does not outlive the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUBARCH_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `tiny_pretraining` makes its teachers and its corpus: once for all tests."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture
def one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Searches train in this process, see `tiny_run`."""
    from tiny_run import OneProcess  # not above: it imports torch

    monkeypatch.setattr("subarch.pipeline.Workers", OneProcess)


@pytest.fixture(scope="module")
def quick_trainer() -> Iterator[None]:
    """For tests that train with Trainer, in forked processes too."""
    import torch  # not above: most tests need none of these
    from tqdm import tqdm

    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # what the tests before have left
    with pytest.MonkeyPatch.context() as patch:
        # The usual lock is common to all processes: one that is killed while it holds it stops the others
        tqdm.set_lock(threading.RLock())
        patch.setattr(tqdm, "monitor_interval", 0)
        yield
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real corpora and tasks beside the repository; it is not part of it."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the shared data folder is not beside this repository")
    return folder


@pytest.fixture(scope="session")
def shared_cases() -> Path:
    """The folder of small inputs that once failed, beside the repository; its README says what is right."""
    folder = REPOSITORY.parent / "shared" / "cases"
    if not folder.is_dir():
        pytest.skip("the shared folder of faulty inputs is not beside this repository")
    return folder
