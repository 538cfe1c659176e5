"""Candidates as calls to be timed, in the runtime that will serve them, and their latencies, measured and kept.

Weights do not matter for time, so candidates are built with arbitrary ones. For PyTorch that costs nothing. For an
exported runtime each is written as `subarch export` would write it, smoothing and int8 included, calibrated on random
tokens, opened, and its file deleted: about a second a candidate (docs/latency.md).

They are measured a block at a time, because opened files take memory and because a block that is measured is kept. In
a block candidates take turns (`latency.measure`); between blocks, which may be days apart, the machine's speed drifts.
So a few candidates that are known already, the anchors, are measured again in each block, and the block's latencies
are divided by the median ratio of the anchors' new figures to their old ones: all latencies are on the scale of the
first block.

    >>> stopwatch = Stopwatch(bench.calls, LatencyCache(conditions), bench.block, len(lengths))
    >>> stopwatch.measure(["2-12-384-512", "6-12-384-1536"])
    >>> stopwatch.known["2-12-384-512"]["median_ms"]
    0.93
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
from torch import nn

from subarch.export.config import ExportConfig, Head
from subarch.export.exportable import Graph
from subarch.export.packages import require
from subarch.export.seal import FILES
from subarch.extraction.config import RuntimeName
from subarch.latency.cache import Entry, LatencyCache
from subarch.latency.runtimes import FileRuntime
from subarch.latency.timing import Call, TorchRuntime, measure, untrained
from subarch.models.sentence import Recipe
from subarch.models.student import Blueprint, Student
from subarch.models.teacher import Teacher
from subarch.numbers.architecture import Architecture
from subarch.run.configuration import load
from subarch.run.progress import Report, silent

ANCHORS = 5
"""Known candidates that are measured again in each block."""

TEACHER = "teacher "
"""What the name of a teacher begins with; its fingerprint follows."""


def export_config(runtime: RuntimeName) -> ExportConfig:
    """How candidates are exported for a runtime that is not torch.

    Raises:
        MissingExtra: the runtime is not installed; the message names the extra.
    """
    name, _, quantize = runtime.partition("-")
    require(name)
    return load(ExportConfig, None, {"runtime": name, "quantize": quantize or None})


@dataclass(frozen=True)
class Bench:
    """Prepares candidates of a search, and its teacher, for a runtime: a call is a pass over each of `lengths`."""

    runtime: RuntimeName
    threads: int
    batch: int
    lengths: Sequence[int]
    blueprint: Blueprint
    recipe: Recipe
    teacher: Path | None
    report: Report = silent

    @property
    def block(self) -> int:
        """Candidates that are open at the same time. In PyTorch they share their weights."""
        return 128 if self.runtime == "torch" else 16

    @contextmanager
    def calls(self, names: Sequence[str]) -> Iterator[dict[str, Call]]:
        """Calls by name, of candidates written D-A-H-I and of the teacher."""
        vocabulary = self.blueprint.inputs.vocabulary
        if self.runtime == "torch":
            runtime = TorchRuntime(self.threads)
            models = {name: self._model(name) for name in names if name.startswith(TEACHER)}
            shapes = [Architecture.parse(name) for name in names if name not in models]
            models |= untrained(shapes, lambda architecture: Student(architecture, self.blueprint))
            yield {n: runtime.prepare(models[n], vocabulary, self.batch, self.lengths) for n in names}
            return
        yield {name: self._exported(name, done, len(names)) for done, name in enumerate(names)}

    def _model(self, name: str) -> nn.Module:
        if name.startswith(TEACHER):
            assert self.teacher is not None  # else it has no name here
            return Teacher.load(self.teacher).model
        return untrained([Architecture.parse(name)], lambda shape: Student(shape, self.blueprint))[name]

    def _exported(self, name: str, done: int, total: int) -> Call:
        from subarch.export.export import write  # fine-tuning comes with it, which takes seconds to import

        self.report("exporting candidates to measure", done, total)
        graph, config = self._graph(name), export_config(self.runtime)
        vocabulary = self.blueprint.inputs.vocabulary
        ids = np.random.default_rng(0).integers(5, vocabulary, (2, max(self.lengths)))
        given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        # As an export with a corpus: OpenVINO's int8 needs no text, every other kind of int8 is fitted to some
        fitted = config.quantize is not None and self.runtime != "openvino-int8"
        calibration = [{name: given[name] for name in graph.inputs}] if fitted else None
        # What is opened is held in memory, or by the system until it is closed
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            write(graph, config, calibration, Path(folder))
            file = Path(folder) / FILES[config.runtime][0]
            return FileRuntime(config.runtime, self.threads).prepare(file, vocabulary, self.batch, self.lengths)

    def _graph(self, name: str) -> Graph:
        head: Head = "sentence" if self.blueprint.inputs.output or not self.blueprint.masked_lm else "encoder"
        if name.startswith(TEACHER):
            assert self.teacher is not None
            teacher = Teacher.load(self.teacher)
            return Graph(teacher.encoder, head, teacher.dense, teacher.recipe).eval()
        student = self._model(name)
        assert isinstance(student, Student)
        dense = nn.Identity() if student.projection is None else student.projection
        return Graph(student.encoder, head, dense, self.recipe).eval()


class Stopwatch:
    """Measures by name, through a cache. `known` is what was measured so far, in milliseconds per pass."""

    def __init__(
        self,
        calls: Callable[[Sequence[str]], AbstractContextManager[Mapping[str, Call]]],
        cache: LatencyCache,
        block: int,
        parts: int,
        report: Report = silent,
    ) -> None:
        """`parts`: passes that a call makes, one per length."""
        self.known: dict[str, Entry] = cache.read()
        self._calls, self._cache, self._block, self._parts, self._report = calls, cache, block, parts, report

    def measure(self, names: Iterable[str]) -> None:
        """Make these known; those that are, are not measured again."""
        missing = [name for name in dict.fromkeys(names) if name not in self.known]
        for first in range(0, len(missing), self._block):
            block = missing[first : first + self._block]
            anchors = self._anchors()
            with self._calls([*anchors, *block]) as calls:
                found = measure(calls, on_round=partial(self._report, "measuring latency"))
            now = datetime.now(UTC).isoformat(timespec="seconds")
            figures = {name: asdict(latency.per(self._parts)) for name, latency in found.items()}
            ratios = [figures[name]["median_ms"] / self.known[name]["median_ms"] for name in anchors]
            drift = float(np.median(ratios)) if ratios else 1.0
            entries: dict[str, Entry] = {}
            for name in block:
                scaled = {key: value / drift for key, value in figures[name].items() if key.endswith("_ms")}
                entries[name] = figures[name] | scaled | {"measured": now, "drift": drift}
            self.known |= entries
            self._cache.add(entries)

    def _anchors(self) -> list[str]:
        """From the fastest known candidate to the slowest, evenly."""
        names = sorted(
            (name for name in self.known if not name.startswith(TEACHER)), key=lambda n: self.known[n]["median_ms"]
        )
        places = np.linspace(0, len(names) - 1, min(ANCHORS, len(names))).round()
        return [names[int(place)] for place in places]
