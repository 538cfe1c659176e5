"""The benchmark: models timed against each other, by runtime, batch size and length.

    subarch bench models/all-MiniLM-L6-v2 runs/mine 4-8-1024-768 --runtime onnx --runtime onnx-int8 --length 128

    runs/mine                       a run folder: its pretrained model, else the selected one
    models/all-MiniLM-L6-v2         a stock Hugging Face folder, with or without a head
    4-8-1024-768                    a shape: an encoder with arbitrary weights, which do not matter for time
    runs/mine/exported/onnx-int8    an export, or its file: timed as it is

A model is exported for the runtimes asked for, into a scratch folder, unless an export of it exists already. Such an
export is neither compared with PyTorch nor calibrated. Every model in every runtime gets processes of its own
(`timing.Group`), visited in turn, round after round, so that drift of the machine hits all alike. One more process
multiplies matrices; its speed is the peak that the others are compared with.

    >>> found = bench(["models/all-MiniLM-L6-v2", "2-12-384-512"], load(BenchConfig, None, {}))
    >>> found.rows[0].subject, found.rows[0].runtime, found.rows[0].median_ms
    ('all-MiniLM-L6-v2', 'torch', 10.3)
"""

from __future__ import annotations

import itertools
import os
import re
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from transformers import AutoConfig, AutoTokenizer
from transformers.utils import logging

from subarch.errors import InvalidConfig, InvalidExport, InvalidTeacher
from subarch.exporting.config import Engine, ExportConfig, Head, RuntimeName, parse_runtime
from subarch.exporting.export import target, write
from subarch.exporting.graph import load_exportable, load_graph
from subarch.exporting.runtimes import FILES, PARITY, find_export, require
from subarch.latency.config import RUNTIMES, BenchConfig, BenchRuntime
from subarch.latency.measuring import untrained
from subarch.latency.timing import Group, Latency, Task, quantiles_of, take_turns
from subarch.models.families import stock_config
from subarch.models.parts import inputs_of, usable_positions
from subarch.models.student import Blueprint, Student
from subarch.models.teacher import FAMILIES, TOKENIZER_FILES
from subarch.numbers.architecture import Architecture, Inputs
from subarch.run import Report, silent
from subarch.run.files import unreadable
from subarch.run.folder import places
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
        subjects: models as the user names them, see above.

    Raises:
        MissingExtra: a runtime that is asked for is not installed.
        InvalidConfig, InvalidArchitecture, InvalidTeacher: a subject that does not exist or cannot be loaded; a length
            beyond the positions of one.
        InvalidExport: an export that was changed after its comparison with PyTorch; a full disk; a process that died.
        InvalidCorpus: text that cannot be read.
    """
    start, begun = time.perf_counter(), datetime.now().astimezone().isoformat(timespec="seconds")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None  # before our own processes raise it
    runtimes = list(dict.fromkeys(config.runtime or installed()))
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
        subjects=tuple(
            BenchSubject(
                name=subject.name,
                kind=subject.kind,
                head=subject.head,
                architecture=str(subject.architecture),
                parameters=subject.architecture.parameters(subject.inputs).total,
            )
            for subject in found
        ),
        rows=tuple(rows),
        config=config.model_dump(mode="json"),
        versions=versions(),
        machine=Machine(**machine()),
    )


def _prepare(
    subjects: Sequence[str], config: BenchConfig, runtimes: Sequence[RuntimeName], scratch: Path, report: Report
) -> tuple[list[Subject], list[Lengths], list[Artifact]]:
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
    """The lengths of each setting: one, or the quantiles of a corpus, cut at what all subjects can read."""
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


def installed() -> list[BenchRuntime]:
    """The runtimes whose packages are there."""
    found = extras()
    engines = {name: parse_runtime(name)[0] for name in RUNTIMES}
    return [name for name, engine in engines.items() if engine == "torch" or found[engine]["complete"]]


GENERIC = ("model", "pretrained", "selected", "model.onnx", "onnx", "openvino", "onnx-int8", "openvino-int8")
"""Names of files and folders that say nothing without the name of the folder they are in."""


@dataclass(frozen=True)
class Subject:
    """A model under the name it is shown with.

    `source` is what the user named, `folder` holds its config.json, `longest` is the most tokens that it can read at
    once. By the `fingerprint` of a model its exports are recognised.
    """

    name: str
    kind: Literal["model", "shape", "export"]
    source: Path
    folder: Path
    head: Head
    architecture: Architecture
    inputs: Inputs
    longest: int
    fingerprint: str | None = None

    def operations(self, length: int) -> int:
        """Multiply-adds over one sequence of `length` tokens: the closed form, and those of a masked-LM head."""
        hidden, vocabulary = self.architecture.hidden, self.inputs.vocabulary
        head = length * hidden * (hidden + vocabulary) if self.head == "masked-lm" else 0
        return self.architecture.operations(self.inputs, length) + head


@dataclass(frozen=True)
class Artifact:
    """A model in a runtime. `path` is its folder for torch, else its file; `bytes` is the size of its files."""

    subject: Subject
    runtime: str
    engine: Engine
    path: Path
    bytes: int

    def task(self, threads: int) -> Task:
        return Task(self.engine, threads, str(self.path), self.subject.head, self.subject.inputs.vocabulary)


def find(texts: Sequence[str], config: BenchConfig, scratch: Path) -> list[Subject]:
    """The subjects of these names. `scratch`: a folder for the models of shapes.

    Raises:
        InvalidConfig: a name that is neither a path nor a shape.
        InvalidArchitecture: a shape that no encoder can have.
        InvalidTeacher: a model that cannot be loaded, or is of an unknown family.
        InvalidExport: an export that is damaged, or was changed after it was compared with PyTorch.
    """
    texts = list(dict.fromkeys(texts))
    paths = [Path(os.path.abspath(text)) for text in texts if Path(text).exists()]
    return [_subject(text, _short(Path(os.path.abspath(text)), paths), config, scratch) for text in texts]


def artifacts(subject: Subject, runtimes: Sequence[RuntimeName], scratch: Path) -> Iterator[Artifact]:
    """A subject in each of some runtimes; an export only in its own.

    Raises:
        InvalidExport: its export was changed after it was compared with PyTorch.
    """
    if subject.kind == "export":
        file, record = find_export(subject.source)
        yield Artifact(subject, record.variant, record.runtime, file, _size(file.parent, FILES[record.runtime]))
        return
    for runtime in runtimes:
        if runtime == "torch":
            weights = [path.name for path in subject.folder.glob("model*.safetensors")]
            yield Artifact(subject, runtime, "torch", subject.folder, _size(subject.folder, weights))
        else:
            export = ExportConfig.of_runtime(runtime)
            file = _exported(subject, export) or _write(subject, export, scratch)
            yield Artifact(subject, runtime, export.runtime, file, _size(file.parent, FILES[export.runtime]))


def write_shape(architecture: Architecture, inputs: Inputs, folder: Path, family: str = "bert") -> None:
    """Write a stock encoder of this shape, with arbitrary weights of ordinary magnitude and no tokenizer."""
    blueprint = Blueprint(family, inputs, settings={"pad_token_id": 1 if family == "roberta" else 0})
    student = untrained([architecture], lambda shape: Student(shape, blueprint))[str(architecture)]
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    student.model.save_pretrained(folder)
    if bars:
        logging.enable_progress_bar()


def _subject(text: str, name: str, config: BenchConfig, scratch: Path) -> Subject:
    source = Path(text)
    if not source.exists():
        if not re.fullmatch(r"\d+(-\d+){3,4}", text):
            raise InvalidConfig(
                f"{text}: is neither a path nor a shape: give a folder of a model, a run folder, an export, or "
                "depth-heads-hidden-intermediate, as in 4-8-1024-768, with its vocabulary behind them if it is another"
            )
        architecture = Architecture.parse(text)
        inputs = architecture.reading(Inputs(config.vocabulary, config.positions))
        folder = scratch / text
        write_shape(architecture, inputs, folder)
        return Subject(text, "shape", folder, folder, "encoder", architecture, inputs, config.positions)
    place = source.parent if source.is_file() else source
    is_model = any(place.glob("model*.safetensors"))
    if source.is_file() or (not is_model and any((place / at / PARITY).is_file() for at in ("", *FILES))):
        file, record = find_export(place)
        folder = file.parent.parent
        return Subject(name, "export", place, folder, record.head, *_read(folder))
    folder, _ = places(source, None)
    if not (folder / "config.json").is_file():
        raise InvalidTeacher(
            f"{source}: holds no model (there is no config.json), and is neither a run folder with a pretrained or "
            "selected model nor an export"
        )
    model = load_exportable(folder)
    about = (*_read(folder), model.teacher.fingerprint)
    return Subject(name, "model", source, folder, model.graph.head, *about)


def _short(path: Path, others: Sequence[Path]) -> str:
    """The end of a path, as long as it takes to tell it from the others and to be meaningful."""
    for count in range(1 + (path.name in GENERIC), len(path.parts)):
        end = path.parts[-count:]
        if sum(other.parts[-count:] == end for other in others) < 2:
            return "/".join(end)
    return str(path)


def _read(folder: Path) -> tuple[Architecture, Inputs, int]:
    """Shape, inputs and usable positions of a stock folder."""
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        problem = f"its config.json cannot be read ({error}); export the model again"
        raise InvalidExport(unreadable(folder, error, problem)) from error
    config = stock_config(config)
    if config.model_type not in FAMILIES:
        raise InvalidTeacher(
            f"{folder}: model type {config.model_type!r} is not supported; use one of {', '.join(FAMILIES)}"
        )
    inputs = inputs_of(config)
    longest = usable_positions(config.model_type, config.max_position_embeddings, config.pad_token_id)
    return Architecture.from_config(config), inputs, longest


def _exported(subject: Subject, config: ExportConfig) -> Path | None:
    """The file of an existing export of this very model."""
    if subject.kind != "model":
        return None
    folder = target(subject.folder, config, places(subject.source, None)[1])
    if not (folder / config.runtime / PARITY).is_file():
        return None
    file, record = find_export(folder)
    return file if record.fingerprint == subject.fingerprint else None


def _write(subject: Subject, config: ExportConfig, scratch: Path) -> Path:
    place = scratch / "exported" / re.sub(r"\W", "_", subject.name) / config.variant
    place.mkdir(parents=True)
    write(load_graph(subject.folder, subject.head), config, None, place)
    return place / FILES[config.runtime][0]


def _size(folder: Path, names: Sequence[str]) -> int:
    return sum((folder / name).stat().st_size for name in names)
