"""The processes that serve: what they answer, with which memory, and how they end."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from forked import start
from subarch.errors import InvalidExport
from subarch.exporting.graph import load_graph
from subarch.latency import bench as stage
from subarch.latency import timing
from subarch.latency.bench import bench, write_shape
from subarch.latency.config import BenchConfig
from subarch.latency.timing import Group, Task, TorchSession, open_task, peak_memory, session_call
from subarch.numbers.architecture import Architecture, Inputs
from subarch.run.configuration import load
from tiny_export import exported, tiny_model

SHAPE, INPUTS = Architecture.parse("1-2-16-24"), Inputs(60, 32)


class Forked:
    """In place of a process of Python's, with its pipes: one that has torch imported."""

    def __init__(self, task: Task) -> None:
        (asked, ask), (answer, answered) = os.pipe(), os.pipe()

        def work() -> None:
            os.close(ask)
            os.close(answer)
            os.dup2(asked, 0)
            os.dup2(answered, 1)
            sys.stdin, sys.argv = os.fdopen(0), ["serving", json.dumps(asdict(task))]
            timing.main()

        self.pid = start(work)
        os.close(asked)
        os.close(answered)
        self.stdin, self.stdout = os.fdopen(ask, "w"), os.fdopen(answer)
        self.code: int | None = None

    def kill(self) -> None:
        if self.code is None:
            os.kill(self.pid, 9)

    def wait(self) -> int:
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self.code


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Forked]]:
    begun: list[Forked] = []

    def begin(task: Task) -> Forked:
        begun.append(Forked(task))
        return begun[-1]

    monkeypatch.setattr(timing, "_start", begin)
    yield begun
    assert all(process.code is not None for process in begun)


@pytest.fixture(scope="module")
def shape(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serving") / "shape"
    write_shape(SHAPE, INPUTS, folder)
    return folder


def task(path: Path, engine: Any = "torch") -> Task:
    return Task(engine, threads=1, path=str(path), vocabulary=60)


def test_an_export_in_a_process_of_its_own(tmp_path: Path) -> None:
    """A real one: it loads no torch, and the memory is its own and not that of the tests' process."""
    run = tmp_path / "run"
    tiny_model(run / "selected", "sentence", layers=1)
    exported(run / "selected", run, runtime="onnx")
    about = task(run / "exported" / "onnx" / "onnx" / "model.onnx", engine="onnx")
    with Group("it", about, count=1) as group:
        assert group.visit(2, (4, 9), passes=0) == [[]]
        (times,) = group.visit(2, (4, 9), passes=3)
        pid = group._processes[0].pid
        maps = Path(f"/proc/{pid}/maps").read_text()
    assert len(times) == 3
    assert all(0 < time < 1000 for time in times)
    assert 0 < group.load_seconds[0] < 60
    assert "libtorch" not in maps
    assert "onnxruntime" in maps
    ours, theirs = peak_memory(), group.peak_bytes[0]
    assert ours is not None
    assert theirs is not None
    assert 20e6 < theirs < ours
    assert not Path(f"/proc/{pid}").exists()


def test_several_serve_at_the_same_time(shape: Path, forked: list[Forked], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "TOGETHER", 0.02)
    with Group("it", task(shape), count=2) as group:
        assert group.visit(1, (8,), passes=0) == [[], []]  # a warm-up is one pass
        for times in group.visit(1, (8,), passes=2):
            assert len(times) >= 2
            assert sum(times) >= 20
    assert len(group.load_seconds) == len(group.peak_bytes) == 2
    assert [process.code for process in forked] == [-9, -9]


def test_it_ends_when_nobody_asks_any_more(shape: Path, forked: list[Forked]) -> None:
    """As when the process that asks was killed."""
    group = Group("it", task(shape), count=1)
    forked[0].stdin.close()
    assert forked[0].wait() == 0
    group.close()


def test_one_that_dies_is_named(shape: Path, forked: list[Forked]) -> None:
    with Group("MiniLM in torch", task(shape), count=2) as group:
        os.kill(forked[1].pid, 9)
        forked[1].wait()
        with pytest.raises(InvalidExport, match=r"MiniLM in torch: its process ended with code -9"):
            group.visit(1, (8,), passes=1)


def test_one_that_cannot_open_its_model_is_named(tmp_path: Path, forked: list[Forked]) -> None:
    with pytest.raises(InvalidExport, match="it in torch: its process ended with code 1"):
        Group("it in torch", task(tmp_path / "gone"), count=1)


def test_torch_computes_what_the_model_does(tmp_path: Path) -> None:
    import numpy as np
    import torch

    for head, rows in (("sentence", (2, 7)), ("choice", (2, 3, 7))):
        folder = tiny_model(tmp_path / head, head, layers=1)
        graph = load_graph(folder, head)  # type: ignore[arg-type]
        session = TorchSession(graph)
        ids = np.random.default_rng(0).integers(5, 60, rows)
        found = session({"input_ids": ids, "attention_mask": np.ones_like(ids)})
        tensors = [torch.from_numpy(values) for values in (ids, np.ones_like(ids), np.zeros_like(ids))]
        with torch.inference_mode():
            expected = dict(zip(graph.outputs, graph(*tensors), strict=True))
        for name, values in expected.items():
            np.testing.assert_array_equal(found[name], values.numpy())
        assert dict(session.inputs) == dict.fromkeys(graph.inputs, len(rows))
        first, second = session_call(session, 60, 2, (4, 9))()  # type: ignore[misc]
        key = session.outputs[0]
        assert len(first[key]) == len(second[key]) == 2


def test_products_are_multiplied_by_the_faster_of_what_torch_has(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from subarch.models import products

    used = []
    monkeypatch.setattr(products, "_fits", lambda states, weight: used.append(states.shape))
    prepare, seconds = open_task(Task("product", torch.get_num_threads(), size=5))
    assert seconds == 0
    assert torch.equal(prepare(1, ())(), torch.full((5, 5), 5.0))  # type: ignore[arg-type]
    assert used == ([(5, 5)] if products.AVAILABLE else [])


def test_the_whole_of_it(tmp_path: Path, forked: list[Forked], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "SIZE", 64)
    run = tmp_path / "run"
    tiny_model(run / "selected", "sentence", layers=1)
    options: dict[str, Any] = {"runtime": ["torch", "onnx", "onnx-int8"], "length": [6, 9], "rounds": 1, "threads": 1}
    found = bench([str(run), "1-2-8-16"], load(BenchConfig, None, options | {"vocabulary": 60}))
    assert [(row.subject, row.runtime, row.lengths) for row in found.rows] == [
        (subject, runtime, (length,))
        for subject in ("run", "1-2-8-16")
        for runtime in ("torch", "onnx", "onnx-int8")
        for length in (6, 9)
    ]
    for row in found.rows:
        assert 0 < row.q1_ms <= row.median_ms <= row.q3_ms <= row.p95_ms
        assert row.sentences_per_second > 0
        assert 0 < row.share_of_peak == pytest.approx(row.gflops / found.peak_gflops)
        assert row.peak_bytes > 0
        assert row.load_seconds > 0
    assert len(forked) == 7


def test_where_the_system_does_not_tell_memory_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "_STATUS", Path("/no/such/file"))
    assert peak_memory() is None
