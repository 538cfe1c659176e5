"""Workers on a ray cluster of two local nodes: the selection of one process, whoever is killed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from subarch.errors import InvalidConfig
from subarch.extraction.config import ExtractConfig
from subarch.extraction.trial import Settings, Trial
from subarch.extraction.workers import RayWorkers
from subarch.numbers.architecture import Architecture
from subarch.pipeline import extract
from subarch.run.configuration import load
from tiny_run import OneProcess, tiny_config

ray = pytest.importorskip("ray", reason="the extra ray is not installed")
from ray.cluster_utils import Cluster  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning", "ignore::DeprecationWarning"),
]
SEARCH: dict[str, Any] = {"strategy": "certified", "repeats": 2, "audit": 1}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """One node of one processor; starting it takes seconds, so all tests share it."""
    made = Cluster()
    made.add_node(num_cpus=1, object_store_memory=10**8)
    made.add_node(num_cpus=1, object_store_memory=10**8)
    yield made
    ray.shutdown()
    made.shutdown()


def trials(run: Path) -> list[tuple[str, int, float]]:
    found = json.loads((run / "conclusion.json").read_text(encoding="utf-8"))["trials"]
    return [(trial["architecture"], trial["seed"], trial["error"]) for trial in found]


def test_errors_of_the_run_are_raised_as_they_are(cluster: Cluster, tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    shutil.rmtree(tmp_path / "teacher")
    with RayWorkers(config, tmp_path / "run", cluster.address) as pool:
        assert pool.count == pool.free >= 1
        pool.submit(Architecture.parse("1-4-16-16"), Settings(2, 1e-3, 4))
        assert pool.free == pool.count - 1
        with pytest.raises(Exception, match="teacher") as caught:
            list(pool.next())
        assert type(caught.value).__name__ == "InvalidTeacher"


def test_a_cluster_that_is_not_there_or_too_small_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    config = load(ExtractConfig, None, {"teacher": "none", "corpus": ["none"], "threads_per_worker": 4})
    with pytest.raises(InvalidConfig, match="has fewer processors than threads_per_worker 4"):
        RayWorkers(config, tmp_path, cluster.address)


def test_a_node_that_dies_loses_and_repeats_nothing(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    second = cluster.add_node(num_cpus=1, object_store_memory=10**8)
    world = tmp_path / "world"
    world.mkdir()
    ended = 0
    whole = RayWorkers.next

    def watched(self: RayWorkers) -> Iterator[Trial]:
        nonlocal ended
        for trial in whole(self):
            ended += 1
            if ended == 3:  # others are being trained now
                cluster.remove_node(second, allow_graceful=False)
            yield trial

    monkeypatch.setattr(RayWorkers, "next", watched)
    shared = extract(tiny_config(world, **SEARCH, ray=cluster.address), tmp_path / "shared").to_dict()
    assert ended > 3
    monkeypatch.setattr("subarch.pipeline.Workers", OneProcess)
    alone = extract(tiny_config(world, **SEARCH), tmp_path / "alone").to_dict()
    assert shared["winner"]["architecture"] == alone["winner"]["architecture"]
    assert shared["certificate"]["closed"]
    found = trials(tmp_path / "shared")
    assert len({(name, seed) for name, seed, _ in found}) == len(found)
    known = {(name, seed): error for name, seed, error in trials(tmp_path / "alone")}
    assert all(error == known.get((name, seed), error) for name, seed, error in found)
