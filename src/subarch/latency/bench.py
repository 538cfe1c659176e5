"""The benchmark: models timed against each other, by runtime, batch size and length.

    subarch bench models/all-MiniLM-L6-v2 runs/mine 4-8-1024-768 --runtime onnx --runtime onnx-int8 --length 128

Every model in every runtime gets a process of its own (`serving`), or several that serve at the same time. They are
visited in turn, round after round, each for every batch size and length, so that drift of the machine hits all alike; a
process that is not visited waits. One more process multiplies matrices; its speed is the peak that the others are
compared with. Operations come from the closed form, whatever the runtime makes of them.

    >>> found = bench(["models/all-MiniLM-L6-v2", "2-12-384-512"], load(BenchConfig, None, {}))
    >>> found.rows[0].subject, found.rows[0].runtime, found.rows[0].median_ms
    ('all-MiniLM-L6-v2', 'torch', 10.3)
"""

from __future__ import annotations

import itertools
import os
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoTokenizer

from subarch.errors import InvalidConfig, InvalidExport
from subarch.exporting.config import RuntimeName, parse_runtime
from subarch.exporting.runtimes import require
from subarch.latency.config import RUNTIMES, BenchConfig
from subarch.latency.serving import Group, Task
from subarch.latency.subjects import Artifact, Subject, artifacts, find
from subarch.latency.timing import Latency, quantiles_of, take_turns
from subarch.models.teacher import TOKENIZER_FILES
from subarch.run import Report, silent
from subarch.run.machine import SIZE, extras, machine, usable_cores, versions
from subarch.run.records import Bench, BenchRow, BenchSubject, Machine
from subarch.text.corpus import build

VERSION = 1
"""Version of bench.json."""

CORPUS_TOKENS = 2_000_000
"""Tokens to read of a corpus that lengths are taken from."""

Lengths = tuple[int, ...]


@dataclass(frozen=True)
class Times:
    """Milliseconds of each timed call, by process."""

    by_process: Sequence[Sequence[float]]

    @classmethod
    def of(cls, visits: Sequence[Sequence[Sequence[float]]]) -> Times:
        """From the times by visit and process."""
        return cls([[*itertools.chain(*own)] for own in zip(*visits, strict=True)])

    @property
    def per_second(self) -> float:
        """Calls per second of all processes together."""
        return sum(1e3 * len(times) / sum(times) for times in self.by_process)

    @property
    def latency(self) -> Latency:
        return Latency.of([*itertools.chain(*self.by_process)])


def bench(subjects: Sequence[str], config: BenchConfig, report: Report = silent) -> Bench:
    """Time models.

    A row is a model in a runtime at a batch size and a length, in milliseconds per forward pass. Memory is the most
    that a process held which only served this model, over all batch sizes and lengths; of several processes the most
    of one. `share_of_peak` is relative to fp32 matrix products by as many processes and threads.

    Args:
        subjects: models as the user names them, see the module `subjects`.

    Raises:
        MissingExtra: a runtime that is asked for is not installed.
        InvalidConfig, InvalidArchitecture, InvalidTeacher: a subject that does not exist or cannot be loaded; a length
            beyond the positions of one.
        InvalidExport: an export that was changed after its comparison with PyTorch; a full disk; a process that died.
        InvalidCorpus: text that cannot be read.
    """
    start, begun = time.perf_counter(), datetime.now().astimezone().isoformat(timespec="seconds")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None  # before our own processes raise it
    runtimes = list(dict.fromkeys(config.runtime or filter(_is_installed, RUNTIMES)))
    for engine in {parse_runtime(name)[0] for name in runtimes} - {"torch"}:
        require(engine)
    threads = config.threads or max(1, usable_cores() // config.processes)
    with tempfile.TemporaryDirectory(prefix="subarch-bench-", ignore_cleanup_errors=True) as folder:
        scratch = Path(folder)
        found, lengths, timed = _prepare(subjects, config, runtimes, scratch, report)
        settings = [(batch, some) for batch in dict.fromkeys(config.batch) for some in lengths]
        with ExitStack() as stack:
            groups = []
            for done, artifact in enumerate(timed):
                report("starting processes", done, len(timed) + 1)
                name = f"{artifact.subject.name} in {artifact.runtime}"
                groups.append(stack.enter_context(Group(name, artifact.task(threads), config.processes)))
            product = Task("product", threads, size=SIZE)
            peak = stack.enter_context(Group("matrix products", product, config.processes))
            stops = [(number, *setting) for number in range(len(groups)) for setting in settings]
            visits = [partial(groups[number].visit, batch, some) for number, batch, some in stops]
            visits.append(partial(peak.visit, 1, ()))
            *times, products = map(Times.of, take_turns(visits, config.rounds, partial(report, "measuring")))
    limit = 2e-9 * SIZE**3 * products.per_second
    rows = [
        _row(timed[number], groups[number], batch, some, measured, limit)
        for (number, batch, some), measured in zip(stops, times, strict=True)
    ]
    return Bench(
        version=VERSION,
        begun=begun,
        seconds=time.perf_counter() - start,
        load_average=load,
        threads=threads,
        processes=config.processes,
        peak_gflops=limit,
        subjects=tuple(map(_about, found)),
        rows=tuple(rows),
        config=config.model_dump(mode="json"),
        versions=versions(),
        machine=Machine(**machine()),
    )


def _prepare(
    subjects: Sequence[str], config: BenchConfig, runtimes: Sequence[RuntimeName], scratch: Path, report: Report
) -> tuple[list[Subject], list[Lengths], list[Artifact]]:
    """What to time, at which lengths, and its files."""
    try:
        report("loading", 0, 0)
        found = find(subjects, config, scratch)
        lengths = _lengths(found, config, scratch)
        timed: list[Artifact] = []
        for done, subject in enumerate(found):
            report("exporting", done, len(found))
            timed += artifacts(subject, runtimes, scratch)
    except OSError as error:
        raise InvalidExport(
            f"{scratch}: cannot be written: {error}; free some space, or set TMPDIR to a folder that has some"
        ) from error
    for engine in {artifact.engine for artifact in timed} - {"torch"}:
        require(engine)  # that of an export named by the user
    return found, lengths, timed


def _row(artifact: Artifact, group: Group, batch: int, lengths: Lengths, times: Times, limit: float) -> BenchRow:
    """One model in one runtime at one batch size and one or several lengths."""
    per_second = batch * len(lengths) * times.per_second
    operations = sum(map(artifact.subject.operations, lengths)) / len(lengths)
    gflops = 2e-9 * operations * per_second
    peaks = [peak for peak in group.peak_bytes if peak is not None]
    return BenchRow(
        subject=artifact.subject.name,
        architecture=str(artifact.subject.architecture),
        runtime=artifact.runtime,
        batch=batch,
        lengths=lengths,
        **times.latency.per(len(lengths)).model_dump(),
        sentences_per_second=per_second,
        gflops=gflops,
        share_of_peak=gflops / limit,
        peak_bytes=max(peaks, default=None),
        load_seconds=float(np.median(group.load_seconds)),
        file_bytes=artifact.bytes,
    )


def _lengths(subjects: Sequence[Subject], config: BenchConfig, scratch: Path) -> list[Lengths]:
    """The lengths of each setting: one, or the quantiles of a corpus, cut at what all subjects can read.

    Raises:
        InvalidConfig: a length that a subject cannot read, or no subject with a tokenizer.
    """
    longest = min(subject.longest for subject in subjects)
    if config.length_from is None:
        wanted = max(config.lengths)
        if wanted > longest:
            name = min(subjects, key=lambda subject: subject.longest).name
            raise InvalidConfig(f"length {wanted}: {name} reads at most {longest} tokens; give a smaller --length")
        return [(length,) for length in config.lengths]
    folders = [subject.folder for subject in subjects]
    folders = [folder for folder in folders if any((folder / name).is_file() for name in TOKENIZER_FILES)]
    if not folders:
        raise InvalidConfig(
            "--length-from: no subject has a tokenizer to count tokens with (a shape has none); name a model too, "
            "or give --length"
        )
    tokenizer: Any = AutoTokenizer.from_pretrained(folders[0], trust_remote_code=False)
    place, column = scratch / "corpus", config.text_column
    corpus = build(config.length_from, tokenizer, place, text_column=column, max_tokens=CORPUS_TOKENS)
    sizes = np.concatenate([corpus.train.size, corpus.heldout.size]) + 2  # special tokens
    return [quantiles_of(np.minimum(sizes, longest))]


def _about(subject: Subject) -> BenchSubject:
    return BenchSubject(
        name=subject.name,
        kind=subject.kind,
        head=subject.head,
        architecture=str(subject.architecture),
        parameters=subject.architecture.parameters(subject.inputs).total,
    )


def _is_installed(runtime: str) -> bool:
    engine, _ = parse_runtime(runtime)
    return engine == "torch" or bool(extras()[engine]["complete"])
