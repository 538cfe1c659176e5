"""The process that a model is timed in: fresh, with one model and one runtime, as it would be where it serves.

It opens what it is told to and then answers visits, one JSON line each, until its input ends; so it also ends when
whoever asked is killed. In a process of its own a runtime meets neither the threads nor the memory of another, the
memory that it takes can be read off the system, and several of them can serve at once.

    python -m subarch.latency.bench.serving '{"engine": "onnx", "path": "model.onnx", "threads": 2, ...}'
    {"load_seconds": 0.21}
    {"batch": 1, "lengths": [32], "passes": 4, "seconds": 0}                 the line that is read
    {"times_ms": [2.9, 2.8, 2.8, 2.9], "peak_bytes": 241467392}              the line that is written

Importing this module imports no runtime and no torch.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subarch.latency.runtimes import Arrays, FileRuntime, given, timed
from subarch.latency.visits import Call, visit

Prepare = Callable[[int, Sequence[int]], Call]
"""From the sequences of a batch, and their lengths in turn, to a call that is timed."""

_STATUS = Path("/proc/self/status")


def main() -> None:
    """Serve; see the module."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a runtime prints is no answer
    task = json.loads(sys.argv[1])
    prepare, seconds = opened(task)
    print(json.dumps({"load_seconds": seconds}), file=answers, flush=True)
    calls: dict[str, Call] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        key = json.dumps([asked["batch"], asked["lengths"]])
        if key not in calls:
            calls[key] = prepare(asked["batch"], asked["lengths"])
        times = visit(calls[key], asked["passes"], asked["seconds"])
        print(json.dumps({"times_ms": times, "peak_bytes": peak_memory()}), file=answers, flush=True)


def opened(task: dict[str, Any]) -> tuple[Prepare, float]:
    """What is to be timed, and the seconds that opening it took, without importing its runtime.

    Args:
        task: `engine` (torch, onnx, openvino, or product: products of `size` × `size` matrices, by the faster of what
            torch has), `threads`; of a model also `vocabulary`, `path` (its folder for torch, else its file), and
            for torch `head`.
    """
    engine, threads = task["engine"], task["threads"]
    if engine in ("torch", "product"):
        import torch

        torch.set_num_threads(threads)
    if engine == "product":
        return _products(task["size"]), 0.0
    if engine == "torch":
        import subarch.models.student  # noqa: F401  # the families, which transformers would import when they are first loaded
        from subarch.export.exportable import reload

        start = time.perf_counter()
        session: Any = TorchSession(reload(Path(task["path"]), task["head"]))
    else:
        __import__({"onnx": "onnxruntime"}.get(engine, engine))
        start = time.perf_counter()
        session = FileRuntime(engine, threads).open(Path(task["path"]))
    seconds = time.perf_counter() - start
    return lambda batch, lengths: timed(session, task["vocabulary"], batch, lengths), seconds


class TorchSession:
    """A model in eager PyTorch, with the manners of an opened file."""

    def __init__(self, graph: Any) -> None:
        self._graph = graph
        self.inputs = dict.fromkeys(graph.inputs, len(graph.axes))
        self.outputs = tuple(graph.outputs)

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        import torch

        with torch.inference_mode():
            found = self._graph(*(torch.from_numpy(values) for values in given(self.inputs, inputs).values()))
        return {name: values.numpy() for name, values in zip(self.outputs, found, strict=True)}


def peak_memory() -> int | None:
    """The most bytes of memory that this process has held so far; None where the system does not tell.

    Not `resource.getrusage`, whose figure begins with the memory of the process that started this one.
    """
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return None
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM:")), None)


def _products(size: int) -> Prepare:
    import torch

    from subarch.models.products import products

    left, right = torch.ones(size, size), torch.ones(size, size)

    def call() -> object:
        with torch.inference_mode(), products():
            return torch.nn.functional.linear(left, right)

    return lambda batch, lengths: call


if __name__ == "__main__":
    main()
