"""Latencies of candidates, in the runtime that will serve them: measured, and kept in a cache across runs.

Weights do not matter for time, so candidates are built with arbitrary ones. For an exported runtime each is written as
`subarch export` would write it, smoothing and int8 included, calibrated on random tokens, opened, and its file deleted:
about a second a candidate (docs/latency.md).

Candidates are measured in blocks, because opened files take memory and because each finished block is saved. In a block
they take turns (`timing.measure`); between blocks, which may be days apart, the machine's speed drifts. So a few known
candidates, the anchors, are measured again in each block, and the block's latencies are divided by the median ratio of
the anchors' new latencies to their old ones: all latencies are on the scale of the first block.

    >>> cache = LatencyCache(conditions("onnx-int8", threads=2, batch=1, lengths=[32], blueprint={...}))
    >>> stopwatch = Stopwatch(candidates.calls, cache, candidates.block, parts=1)
    >>> stopwatch.measure(["2-12-384-512", "6-12-384-1536"])
    >>> stopwatch.known["2-12-384-512"].median_ms
    0.93
"""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from accelerate import init_empty_weights
from pydantic import ValidationError
from torch import Tensor, nn

from subarch.exporting.config import ExportConfig, Head, RuntimeName, parse_runtime
from subarch.exporting.export import write
from subarch.exporting.graph import Graph
from subarch.exporting.runtimes import FILES, open_file
from subarch.latency.timing import ROUNDS, Call, Latency, measure, session_call, visits
from subarch.models.outputs import TaskTeacher
from subarch.models.sentence import Recipe
from subarch.models.source import AnyTeacher, source_of, timed
from subarch.models.stock import StockTeacher
from subarch.models.student import Blueprint, Student
from subarch.models.teacher import Teacher
from subarch.numbers.architecture import Architecture
from subarch.run import Report, silent
from subarch.run.machine import VARIABLES, machine, versions
from subarch.run.records import Measured

ANCHORS = 5
"""Known candidates that are measured again in each block."""

TEACHER = "teacher "
"""Prefix of a teacher's name; its fingerprint follows."""


@contextmanager
def torch_calls(
    models: Mapping[str, nn.Module],
    vocabulary: int,
    batch: int,
    lengths: Sequence[int],
    threads: int,
    others: Mapping[str, tuple[int, Sequence[int]]] | None = None,
) -> Iterator[dict[str, Call]]:
    """Calls of models of (ids, mask) in eager PyTorch, as of `session_call`; the context sets the threads.

    `others`: the vocabulary and the lengths of models, by name, that read with another tokenizer.
    """

    def drawn(vocabulary: int, lengths: Sequence[int]) -> list[Tensor]:
        generator = torch.Generator().manual_seed(0)
        return [torch.randint(5, vocabulary, (batch, length), generator=generator) for length in lengths]

    shared = drawn(vocabulary, lengths)
    own = {name: drawn(*read) for name, read in (others or {}).items()}

    def call(name: str, model: nn.Module) -> object:
        with torch.inference_mode():
            return [model(ids, torch.ones_like(ids)) for ids in own.get(name, shared)]

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield {name: partial(call, name, model.eval()) for name, model in models.items()}
    finally:
        torch.set_num_threads(before)


def measure_models(
    models: Mapping[str, nn.Module],
    vocabulary: int,
    batch: int,
    length: int,
    threads: int,
    rounds: int = ROUNDS,
    on_round: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Latency]:
    """Latencies of a forward pass of models of (ids, mask) in eager PyTorch."""
    with torch_calls(models, vocabulary, batch, (length,), threads) as calls:
        return measure(calls, rounds, on_round)


def untrained(architectures: Iterable[Architecture], make: Callable[[Architecture], Student]) -> dict[str, Student]:
    """Students by name with arbitrary weights; tensors of equal name and shape are shared, so that hundreds fit."""
    shared: dict[tuple[str, tuple[int, ...]], Tensor] = {}
    students = {}
    for architecture in architectures:
        with init_empty_weights(include_buffers=False):
            student = make(architecture)
        for name, parameter in student.named_parameters():
            key = (name, tuple(parameter.shape))
            if key not in shared:
                # Ordinary magnitudes: denormal numbers would slow the arithmetic down.
                shared[key] = torch.empty(parameter.shape).normal_(std=0.02)
        state = {name: shared[name, tuple(parameter.shape)] for name, parameter in student.named_parameters()}
        student.load_state_dict(state, strict=False, assign=True)
        students[str(architecture)] = student.requires_grad_(False).eval()
    return students


@dataclass(frozen=True)
class Candidates:
    """Prepares candidates of a search, and its teacher, for a runtime: a call is a pass at each of `lengths`.

    `others`: by V what candidates with another vocabulary than the whole one are built from, and their lengths.
    """

    runtime: RuntimeName
    threads: int
    batch: int
    lengths: Sequence[int]
    blueprint: Blueprint
    recipe: Recipe
    teacher: Path | None
    report: Report = silent
    others: Mapping[int, tuple[Blueprint, Sequence[int]]] = field(default_factory=dict)

    @property
    def block(self) -> int:
        """Candidates that are open at the same time. In PyTorch they share their weights."""
        return 128 if self.runtime == "torch" else 16

    @contextmanager
    def calls(self, names: Sequence[str]) -> Iterator[dict[str, Call]]:
        """Calls by name, of candidates "D-A-H-I" or "D-A-H-I-V" and of the teacher."""
        if self.runtime != "torch":
            yield {name: self._exported(name, done, len(names)) for done, name in enumerate(names)}
            return
        models: dict[str, nn.Module] = {}
        for name in names:
            if name.startswith(TEACHER) and (teacher := timed(self._teacher())) is not None:
                models[name] = teacher
        models |= self._students(name for name in names if name not in models)
        models = {name: models[name] for name in names}
        read = {name: self._read(name) for name in names}
        with torch_calls(models, self._vocabulary, self.batch, self.lengths, self.threads, read) as calls:
            yield calls

    def _exported(self, name: str, done: int, total: int) -> Call:
        self.report("exporting candidates to measure", done, total)
        graph, config = self._graph(name), ExportConfig.of_runtime(self.runtime)
        vocabulary, lengths = self._read(name)
        ids = np.random.default_rng(0).integers(5, vocabulary, (2, max(lengths)))
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        # As an export with a corpus: OpenVINO's int8 needs no text, every other kind of int8 is calibrated
        calibrated = config.quantize is not None and self.runtime != "openvino-int8"
        calibration = [{name: given[name] for name in graph.inputs}] if calibrated else None
        # An opened file is held in memory, or by the system until it is closed
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            write(graph, config, calibration, Path(folder))
            session = open_file(config.runtime, Path(folder) / FILES[config.runtime][0], self.threads)
            return session_call(session, vocabulary, self.batch, lengths)

    def _graph(self, name: str) -> Graph:
        task = self.blueprint.task
        head: Head = "sentence" if self.blueprint.inputs.output or not self.blueprint.masked_lm else "encoder"
        if task is not None:  # of tags and choices the head takes next to nothing
            head = "classification" if task.head == "sequence" else "encoder"
        if name.startswith(TEACHER):
            teacher = self._teacher()
            if isinstance(teacher, TaskTeacher) and head == "classification":
                return Graph(teacher.task, head, nn.Identity(), Recipe()).eval()
            if isinstance(teacher, Teacher):
                return Graph(teacher.encoder, head, teacher.dense, teacher.recipe).eval()
            assert isinstance(teacher, StockTeacher)  # recorded vectors have no latency
            return Graph(teacher.module, "encoder", nn.Identity(), Recipe()).eval()  # what pooling takes is little
        student = self._students([name])[name]
        dense = nn.Identity() if student.projection is None else student.projection
        return Graph(student.model if head == "classification" else student.encoder, head, dense, self.recipe).eval()

    def _students(self, names: Iterable[str]) -> dict[str, Student]:
        return untrained(map(Architecture.parse, names), lambda one: Student(one, self._built_of(one)[0]))

    def _built_of(self, architecture: Architecture) -> tuple[Blueprint, Sequence[int]]:
        return self.others.get(architecture.vocabulary, (self.blueprint, self.lengths))

    def _read(self, name: str) -> tuple[int, Sequence[int]]:
        """How many tokens a model knows, and of how many its inputs are."""
        if name.startswith(TEACHER):
            return self._vocabulary, self.lengths
        architecture = Architecture.parse(name)
        return architecture.vocabulary or self._vocabulary, self._built_of(architecture)[1]

    def _teacher(self) -> AnyTeacher:
        assert self.teacher is not None  # without a teacher no name is a teacher's
        return source_of(self.teacher)

    @property
    def _vocabulary(self) -> int:
        return self.blueprint.inputs.vocabulary


class Stopwatch:
    """Measures by name, through a cache. `known` are the latencies measured so far, in milliseconds per pass."""

    def __init__(
        self,
        calls: Callable[[Sequence[str]], AbstractContextManager[Mapping[str, Call]]],
        cache: LatencyCache,
        block: int,
        parts: int,
        report: Report = silent,
    ) -> None:
        """`parts`: passes in a call, one per length."""
        self.known: dict[str, Measured] = cache.read()
        self._calls, self._cache, self._block, self._parts, self._report = calls, cache, block, parts, report

    def measure(self, names: Iterable[str]) -> None:
        """Measure those that are not known yet."""
        missing = [name for name in dict.fromkeys(names) if name not in self.known]
        for first in range(0, len(missing), self._block):
            self._measure(missing[first : first + self._block], ROUNDS)

    def again(self, names: Sequence[str]) -> None:
        """Measure some that are known, in one block, with twice as many visits; these are added to what they have."""
        self._measure(names, 2 * ROUNDS)

    def _measure(self, block: Sequence[str], rounds: int) -> None:
        anchors = self._anchors(block)
        with self._calls([*anchors, *block]) as calls, Watch() as watch:
            found = visits(calls, rounds, partial(self._report, "measuring latency"))
        now = datetime.now(UTC).isoformat(timespec="seconds")
        times = {name: [float(np.median(visit)) / self._parts for visit in own] for name, own in found.items()}
        ratios = [float(np.median(times[name])) / self.known[name].median_ms for name in anchors]
        drift = float(np.median(ratios)) if ratios else 1.0
        entries = {}
        for name in block:
            own, before = [time / drift for time in times[name]], self.known.get(name)
            passes = sum(map(len, found[name]))
            entry = Measured(
                median_ms=float(np.median(own)),
                visits=tuple(own),
                blocks=(len(own),),
                passes=passes,
                measured=now,
                drift=drift,
                others=watch.others,
            )
            entries[name] = entry if before is None else joined(before, entry)
        self.known |= entries
        self._cache.add(entries)

    def _anchors(self, block: Sequence[str]) -> list[str]:
        """Known candidates besides those of a block, evenly from the fastest to the slowest."""
        others = (name for name in self.known if not name.startswith(TEACHER) and name not in block)
        names = sorted(others, key=lambda name: self.known[name].median_ms)
        places = np.linspace(0, len(names) - 1, min(ANCHORS, len(names))).round()
        return [names[int(place)] for place in places]


def joined(before: Measured, entry: Measured) -> Measured:
    """Both as one measurement."""
    both = (*before.visits, *entry.visits)
    busy = [one.others for one in (before, entry) if one.others is not None]
    return Measured(
        median_ms=float(np.median(both)),
        visits=both,
        blocks=(*before.blocks, *entry.blocks),
        passes=before.passes + entry.passes,
        measured=entry.measured,
        drift=max(before.drift, entry.drift, key=lambda drift: abs(drift - 1)),
        others=max(busy, default=None),
    )


class Watch:
    """How many cores other programs kept busy meanwhile, what a virtual machine was denied of them included.

    `others` is None where the system does not tell, or where it was too short: it counts in hundredths of a second.
    """

    others: float | None = None

    def __enter__(self) -> Watch:
        self._before = self._now()
        return self

    def __exit__(self, *_: object) -> None:
        (began, busy, own), (ended, busy_then, own_then) = self._before, self._now()
        if ended - began > 0.2 and busy_then > busy:
            self.others = max(0.0, (busy_then - busy) - (own_then - own)) / (ended - began)

    @staticmethod
    def _now() -> tuple[float, float, float]:
        """The time, and the processor seconds of the machine and of this process."""
        times = psutil.cpu_times()
        kinds = ("user", "nice", "system", "irq", "softirq", "steal")
        return time.monotonic(), sum(getattr(times, kind, 0.0) for kind in kinds), time.process_time()


PACKAGES = {
    "torch": ("torch", "transformers"),
    "onnx": ("subarch", "torch", "transformers", "onnx", "onnxruntime"),
    "openvino": ("subarch", "torch", "transformers", "onnx", "openvino", "nncf"),
}
"""Packages by engine whose version can change a latency: those that run a file, and those that write it."""


def cache_folder() -> Path:
    """$SUBARCH_CACHE, else $XDG_CACHE_HOME/subarch or ~/.cache/subarch; OSError if the user has no home folder."""
    if own := os.environ.get("SUBARCH_CACHE"):
        return Path(own)
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "subarch"
    try:
        return Path.home() / ".cache" / "subarch"
    except RuntimeError as error:
        raise OSError("the user has no home folder") from error


def conditions(runtime: str, threads: int, batch: int, lengths: Sequence[int], **candidates: Any) -> dict[str, Any]:
    """Everything that a latency depends on besides the architecture; `candidates`: what they are built of, as JSON."""
    found = versions()
    return {
        "runtime": runtime,
        "batch": batch,
        "lengths": list(lengths),
        "threads": threads,
        "machine": machine(),
        "versions": {name: found.get(name) for name in PACKAGES[parse_runtime(runtime)[0]]},
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        **candidates,
    }


class LatencyCache:
    """Latencies in an SQLite file in the user's cache folder, under the conditions (any JSON object) of measuring.

    A damaged or unwritable cache costs a warning and the time to measure again.
    """

    def __init__(self, conditions: Mapping[str, Any]) -> None:
        self._conditions = json.dumps(conditions, sort_keys=True)

    def read(self) -> dict[str, Measured]:
        """Latencies by name; damaged entries are left out."""
        rows = self._run("SELECT name, entry FROM latencies WHERE conditions = ?", [(self._conditions,)])
        found = {name: _parsed(entry) for name, entry in rows}
        if None in found.values():
            warnings.warn(
                "the cache of latencies holds entries that are damaged or of another version; they are measured again",
                stacklevel=2,
            )
        return {name: entry for name, entry in found.items() if entry is not None}

    def add(self, entries: Mapping[str, Measured]) -> None:
        """Store latencies; older ones of the same names are replaced."""
        rows = [(self._conditions, name, entry.model_dump_json()) for name, entry in entries.items()]
        self._run("INSERT OR REPLACE INTO latencies VALUES (?, ?, ?)", rows)

    def clear(self) -> None:
        self._run("DELETE FROM latencies WHERE conditions = ?", [(self._conditions,)])

    def _run(self, command: str, rows: Sequence[tuple[str, ...]]) -> list[tuple[str, str]]:
        """Run a command for each row, in one transaction; the answer to the last one. A failure is a warning."""
        path = None
        try:
            path = cache_folder() / "latencies.sqlite"
            path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(path, timeout=30)) as database, database:
                database.execute(
                    "CREATE TABLE IF NOT EXISTS latencies (conditions TEXT, name TEXT, entry TEXT, "
                    "PRIMARY KEY (conditions, name))"
                )
                found: list[tuple[str, str]] = []
                for row in rows:
                    found = database.execute(command, row).fetchall()
                return found
        except (OSError, sqlite3.Error) as error:
            warnings.warn(
                f"{path or 'no cache'}: latencies cannot be kept there ({error}), so every run measures them again. "
                "Delete the file if it is damaged, or set SUBARCH_CACHE to another folder",
                stacklevel=3,
            )
            return []


def _parsed(text: Any) -> Measured | None:
    try:
        return Measured.model_validate_json(text, strict=True)
    except (ValidationError, TypeError):
        return None
