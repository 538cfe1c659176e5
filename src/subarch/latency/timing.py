"""The clock: wall time of forward passes, here or in processes of their own, so that drift hits all models alike.

Models are visited in turn, round after round. A visit starts with one untimed pass, which brings the weights back into
the caches as in steady serving, then times a few. The result is the median and the quartiles over all timed passes. A
call is one pass at each of some lengths: one length, or the quantiles of a corpus.

    >>> lengths = quantiles_of(tokens_of_each_text)
    >>> calls = {"exported": session_call(open_export(folder, threads=2), vocabulary=30522, batch=1, lengths=lengths)}
    >>> measure(calls)["exported"].per(len(lengths)).median_ms
    2.9

In a process of its own a runtime meets neither the threads nor the memory of another, its memory can be read off the
system, and several of them can serve at once.

    >>> with Group("MiniLM in onnx", Task("onnx", threads=2, path="model.onnx", vocabulary=30522), count=2) as group:
    ...     group.visit(batch=1, lengths=(32,), passes=4)
    [[2.9, 2.8, 2.8, 2.9], [3.1, 3.0, 3.0, 3.0]]

A process opens its model and then answers visits, one JSON line each, until its input ends; so it also ends when the
asking process is killed.

    python -m subarch.latency.timing '{"engine": "onnx", "path": "model.onnx", "vocabulary": 30522, "threads": 2}'
    {"load_seconds": 0.21}
    {"batch": 1, "lengths": [32], "passes": 4, "seconds": 0}                 a line that it reads
    {"times_ms": [2.9, 2.8, 2.8, 2.9], "peak_bytes": 241467392}              a line that it writes

Importing this module imports neither torch nor a runtime.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from subarch.errors import InvalidCorpus, InvalidExport, UnsteadyClock
from subarch.exporting.config import Engine, Head
from subarch.exporting.runtimes import Arrays, Session, named, open_file
from subarch.run.records import Timing

ROUNDS, PASSES = 12, 4
"""Visits of each candidate, and timed passes of each visit."""

CHOICES = 2
"""Choices of each example when a multiple-choice model is timed."""

Call = Callable[[], object]
Result = TypeVar("Result")


class Latency(Timing):
    """Wall time of a call, in milliseconds: median, quartiles and 95th percentile over `passes` timed calls."""

    @classmethod
    def of(cls, times: Sequence[float]) -> Latency:
        """From the milliseconds of each call."""
        median, q1, q3, p95 = np.percentile(times, [50, 25, 75, 95]).tolist()
        return cls(median_ms=median, q1_ms=q1, q3_ms=q3, p95_ms=p95, passes=len(times))

    def per(self, parts: float) -> Latency:
        """Divided by the number of passes in a call: the mean forward pass over that many lengths."""
        return Latency(
            median_ms=self.median_ms / parts,
            q1_ms=self.q1_ms / parts,
            q3_ms=self.q3_ms / parts,
            p95_ms=self.p95_ms / parts,
            passes=self.passes,
        )


def visit(call: Call, passes: int = PASSES, seconds: float = 0.0) -> list[float]:
    """One untimed pass, then `passes` timed ones, and more until `seconds` are over: milliseconds of each timed one.

    Raises:
        UnsteadyClock: a pass took no time, or less. A clock that jumps ahead makes one visit of many too long.
    """
    call()
    times: list[float] = []
    while len(times) < passes or sum(times) < 1e3 * seconds:
        start = time.perf_counter_ns()
        call()  # operations on the CPU are synchronous: nothing is left running when it returns
        times.append((time.perf_counter_ns() - start) / 1e6)
        if times[-1] <= 0:
            raise UnsteadyClock(
                f"the clock says that a forward pass took {times[-1]:g} ms: it stood still or was set back, as virtual "
                "machines do when they are paused or moved; measure again (--remeasure)"
            )
    return times


def take_turns(
    visits: Sequence[Callable[[int], Result]], rounds: int, on_round: Callable[[int, int], None]
) -> list[list[Result]]:
    """For each visit, a function of the number of passes to time, its results of all timed rounds.

    The first round only warms up. `on_round` is told the number of finished rounds and their total.
    """
    found: list[list[Result]] = [[] for _ in visits]
    for done in range(rounds + 1):
        for make, results in zip(visits, found, strict=True):
            result = make(PASSES if done else 0)
            if done:
                results.append(result)
        on_round(done + 1, rounds + 1)
    return found


def visits(
    calls: Mapping[str, Call], rounds: int = ROUNDS, on_round: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, list[list[float]]]:
    """Time all calls in turn: of each the milliseconds of its passes, a list for each visit."""
    times = take_turns([partial(visit, call) for call in calls.values()], rounds, on_round)
    return dict(zip(calls, times, strict=True))


def measure(
    calls: Mapping[str, Call], rounds: int = ROUNDS, on_round: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Latency]:
    """Time all calls in turn."""
    return {name: Latency.of([*itertools.chain(*own)]) for name, own in visits(calls, rounds, on_round).items()}


def session_call(session: Session, vocabulary: int, batch: int, lengths: Sequence[int]) -> Call:
    """A call that is one pass over `batch` sequences of random tokens at each length, in turn.

    For multiple choice it is `batch` examples of `CHOICES` sequences. The call returns the outputs, one per length.
    """
    draw, choices = np.random.default_rng(0), [CHOICES] * (session.inputs["input_ids"] - 2)
    rows = [draw.integers(5, vocabulary, (batch, *choices, length)) for length in lengths]
    inputs = [named(session.inputs, {"input_ids": ids, "attention_mask": np.ones_like(ids)}) for ids in rows]
    return lambda: [session(one) for one in inputs]


def quantiles_of(lengths: Sequence[int] | NDArray[np.int_], count: int = 8) -> tuple[int, ...]:
    """Lengths that stand for those of a corpus, as time grows faster than length: the middle of `count` equal shares.

    Each is a length that occurs.

    Args:
        lengths: tokens of each text as the encoder gets it, with special tokens, cut at its positions.

    Raises:
        InvalidCorpus: there is no text.
    """
    if not len(lengths):
        raise InvalidCorpus("no text to take lengths from; give a corpus that has some")
    middles = (np.arange(count) + 0.5) / count
    return tuple(int(length) for length in np.quantile(np.asarray(lengths), middles, method="inverted_cdf"))


if TYPE_CHECKING:
    from subarch.exporting.graph import Graph

TOGETHER = 0.25
"""Least seconds of a visit when several processes serve, so that they do so at the same time."""

Prepare = Callable[[int, Sequence[int]], Call]
"""From the batch size and the lengths to a call to be timed."""

_STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Task:
    """What a process serves: a model, or products of `size` × `size` matrices by the faster of torch's libraries.

    `path` is the folder of a model for torch (with its `head`), else the exported file.
    """

    engine: Engine | Literal["product"]
    threads: int
    path: str = ""
    head: Head = "encoder"
    vocabulary: int = 0
    size: int = 0


class Group:
    """Processes that serve the same model at the same time. As a context manager it ends them."""

    def __init__(self, name: str, task: Task, count: int) -> None:
        """Start them one after the other, so that none disturbs the loading of another.

        Args:
            name: of the model, for messages.

        Raises:
            InvalidExport: a process could not open the model.
        """
        self.name, self.load_seconds, self.peak_bytes = name, list[float](), list[int | None]()
        self._processes: list[Any] = []
        try:
            for _ in range(count):
                self._processes.append(_start(task))
                self.load_seconds.append(self._answer(self._processes[-1])["load_seconds"])
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def visit(self, batch: int, lengths: Sequence[int], passes: int) -> list[list[float]]:
        """Ask all at once: milliseconds of each timed call, by process.

        Raises:
            InvalidExport: a process died.
        """
        seconds = TOGETHER if passes and len(self._processes) > 1 else 0.0
        asked = {"batch": batch, "lengths": list(lengths), "passes": passes, "seconds": seconds}
        for process in self._processes:
            try:
                print(json.dumps(asked), file=process.stdin, flush=True)
            except BrokenPipeError:
                raise self._dead(process) from None
        answers = [self._answer(process) for process in self._processes]
        self.peak_bytes = [answer["peak_bytes"] for answer in answers]
        return [answer["times_ms"] for answer in answers]

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()
            process.stdout.close()
            with suppress(BrokenPipeError):  # a dead process has not read all of its input
                process.stdin.close()

    def _answer(self, process: Any) -> dict[str, Any]:
        line = process.stdout.readline()
        if not line:
            raise self._dead(process)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _dead(self, process: Any) -> InvalidExport:
        return InvalidExport(
            f"{self.name}: its process ended with code {process.wait()}; what it printed is above. If it was killed "
            "(-9), memory was probably too small: time fewer models, runtimes or processes at once"
        )


def _start(task: Task) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "subarch.latency.timing", json.dumps(asdict(task))]
    # In a session of its own, so that Ctrl-C goes to the asking process alone, which then ends the others
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a runtime prints is no answer
    prepare, seconds = open_task(Task(**json.loads(sys.argv[1])))
    print(json.dumps({"load_seconds": seconds}), file=answers, flush=True)
    calls: dict[str, Call] = {}
    for line in sys.stdin:
        asked = json.loads(line)
        key = json.dumps([asked["batch"], asked["lengths"]])
        if key not in calls:
            calls[key] = prepare(asked["batch"], asked["lengths"])
        times = visit(calls[key], asked["passes"], asked["seconds"])
        print(json.dumps({"times_ms": times, "peak_bytes": peak_memory()}), file=answers, flush=True)


def open_task(task: Task) -> tuple[Prepare, float]:
    """The model of a task, ready for calls, and the seconds that opening took, without the import of its runtime."""
    if task.engine in ("torch", "product"):
        import torch

        torch.set_num_threads(task.threads)
    if task.engine == "product":
        return _products(task.size), 0.0
    if task.engine == "torch":
        import subarch.models.student  # noqa: F401  # the model classes, which transformers imports on first use
        from subarch.exporting.graph import load_graph

        start = time.perf_counter()
        session: Session = TorchSession(load_graph(Path(task.path), task.head))
    else:
        __import__({"onnx": "onnxruntime"}.get(task.engine, task.engine))
        start = time.perf_counter()
        session = open_file(task.engine, Path(task.path), task.threads)
    seconds = time.perf_counter() - start
    return lambda batch, lengths: session_call(session, task.vocabulary, batch, lengths), seconds


class TorchSession:
    """A model in eager PyTorch, with the interface of an exported file."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self.inputs = dict.fromkeys(graph.inputs, len(graph.axes))
        self.outputs = tuple(graph.outputs)

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        import torch

        with torch.inference_mode():
            found = self._graph(*(torch.from_numpy(values) for values in named(self.inputs, inputs).values()))
        return {name: values.numpy() for name, values in zip(self.outputs, found, strict=True)}


def peak_memory() -> int | None:
    """Most bytes of memory that this process has held so far; None where the system does not report it.

    `resource.getrusage` would not do: its figure starts with the memory of the parent process.
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
