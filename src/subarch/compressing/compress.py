"""The whole way: the plan, the teacher's files, the search, the training, the student's files, and what came of it.

    subarch compress path/to/all-MiniLM-L6-v2 --corpus my-texts/ --faster 4x --minutes 60 --run runs/mine

Each stage is a command of its own, called as a user would, in one run folder; this module decides only what they are
asked for:

1. The plan: some training steps are timed, from which follow the steps of a candidate that a search has time for.
2. The teacher (or what the student starts from) is exported for every runtime that is installed, and timed on one
   thread and on all. What serves fastest is what the search is limited in. A file in int8 counts if its export keeps
   it.
3. The search, under the limit, with a limit on its time; what is not finished then is not certified.
4. The training in full, in the time that is left; for a task with labels, fine-tuning last, kept if better on dev.
5. The student is exported and timed in the same way, the teacher's files beside it in turn, and the fidelity of each
   file is measured as the search measures the error.

Everything that was decided or measured is in a record before the next stage begins, so the same call goes on wherever
it was stopped, and decides the same.

    >>> compress(load(CompressConfig, None, {"teacher": ..., "corpus": ["my-texts"]}), Path("runs/mine")).lines
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from subarch import pipeline
from subarch.compressing.config import CompressConfig
from subarch.errors import InvalidConfig, InvalidCorpus, InvalidExport, InvalidStudy
from subarch.exporting.config import ExportConfig
from subarch.exporting.export import target
from subarch.exporting.graph import load_exportable
from subarch.exporting.parity import CORPUS_TOKENS
from subarch.exporting.runtimes import PARITY, find_export, open_export
from subarch.extraction.config import ExtractConfig
from subarch.extraction.workbench import INPUTS, Workbench
from subarch.finetuning.config import FinetuneConfig
from subarch.latency.bench import bench, installed
from subarch.latency.config import BenchConfig
from subarch.learning.material import OF_INPUTS, OF_PROSE, teacher_and_start
from subarch.learning.signals import EmbeddingSignal, Forward, GoldSignal, OutputsSignal
from subarch.models.heads import labels_of, predict
from subarch.models.outputs import Outputs, TaskTeacher, token_types
from subarch.models.source import AnyTeacher, figures_of, is_of_task, source_of, timed
from subarch.models.source import content_of as teacher_content
from subarch.models.teacher import Teacher
from subarch.numbers.architecture import Architecture
from subarch.numbers.space import SearchSpace
from subarch.planning.cost import Job
from subarch.planning.pace import measure
from subarch.planning.plan import read_teacher
from subarch.pretraining.pretrain import configure
from subarch.run import Report, silent
from subarch.run.configuration import load
from subarch.run.folder import COMPRESSION, RunFolder
from subarch.run.inputs import StageInputs, claim
from subarch.run.machine import examine, machine, usable_cores, versions
from subarch.run.record import Free, Record
from subarch.run.records import (
    Basis,
    Bench,
    BenchRow,
    Compressed,
    Conclusion,
    Latencies,
    Layers,
    Machine,
    Pretraining,
    Selection,
    ServedFile,
    Serving,
    TaskScores,
)
from subarch.show.compressed import certified, lines, serving_sentence
from subarch.tasks import Examples, score
from subarch.tasks.division import TaskData, parts_of
from subarch.tasks.inputs import write_inputs
from subarch.tasks.metrics import primary
from subarch.text.corpus import Corpus, build
from subarch.text.corpus import content_of as corpus_content

FREE = {"teacher", "start_from", "corpus"}
"""Keys that may differ when the same call goes on: what they name is hashed."""
DOCTOR, PACE = 1.0, 3.0
"""Seconds of matrix products for the warnings about the machine, and of training steps for the plan."""
LENGTH = 32
"""Tokens of the sequences that are timed, at batch 1."""
BATCH = 64
"""Sequences of a training step of a candidate, the default of a search."""
SEARCH, TRAINING = 0.45, 0.25
"""Share of the minutes that the search may take, and the least that is left for training."""
TRIALS = 40
"""Trainings that a search is expected to take, those with other seeds, of layers and of the audit included."""
STEPS = (25, 100)
"""Fewest and most steps of a candidate: fewer do not order them well, more do not order them better."""
SHORT: tuple[int, dict[str, Any]] = 20, {"batch_tokens": 2048, "evaluations": 8}
"""Trainings of fewer minutes have small batches, since they need the steps, and fewer evaluations and checkpoints."""
TUNING, EPOCHS = 0.3, 3
"""Share of the training that fine-tuning gets where there are labels, and its passes over the examples."""


class Outline(Record):
    """The plan: steps of a candidate and minutes of the search; `pace` is what it follows from."""

    NAME = "outline"

    steps: int
    search_minutes: float
    pace: Free
    seconds: float
    sentence: str


def compress(
    config: CompressConfig,
    path: Path,
    report: Report = silent,
    say: Callable[[str], object] = lambda sentence: None,
    *,
    search: dict[str, Any] | None = None,
    training: dict[str, Any] | None = None,
) -> Compressed:
    """Go the whole way in the run folder `path`; what is there of it already is gone on with.

    Args:
        say: called with warnings about the machine, the plan, and what was decided.
        search: keys of the configuration of `extract` over those that are decided here.
        training: the same of `pretrain`.

    Raises:
        InvalidStudy: the folder holds another run, or was begun with other input.
        SubarchError: see the stages; whatever was finished before is kept.
    """
    folder = _claimed(config, path)
    if folder.has(Compressed):
        return folder.read(Compressed)
    for warning in examine(DOCTOR)["warnings"]:
        say(f"warning: {warning}")
    settings = load(ExtractConfig, None, _asked(config) | (search or {}))
    teacher, start = _sources(config, settings, path)

    if not folder.has(Outline):
        folder.write(_outline(config, start, report))
    outline = folder.read(Outline)
    say(outline.sentence)

    home = path / "teacher"
    if not RunFolder(home).has(Serving):
        RunFolder(home).write(_of_start(config, start, home, partial(_told, report, "teacher")))
    served = RunFolder(home).read(Serving)
    say(serving_sentence(served, _wanted(config)))
    runtime = served.best()
    decided = {"steps": outline.steps, "minutes": outline.search_minutes, "runtime": runtime.runtime}
    decided |= {"latency_threads": runtime.threads, "latency_length": served.length}
    settings = load(ExtractConfig, None, _asked(config) | decided | (search or {}))

    selection = pipeline.extract(settings, path, resume=True, report=partial(_told, report, "search"))
    spent = {"plan": outline.seconds, "teacher's files": served.seconds, "search": _search_seconds(folder)}
    if selection.winner is None:
        return _finished(folder, config, teacher, selection, spent)

    left = max(TRAINING * config.minutes, config.minutes - (sum(spent.values()) + served.seconds) / 60)
    tuning = TUNING * left if config.task is not None else 0.0
    asked = {"minutes": round(left - tuning, 2)} | (SHORT[1] if left < SHORT[0] else {})
    if "amx_bf16" in machine()["features"]:  # shorter steps (docs/throughput.md)
        asked["precision"] = "bf16"
    say(f"training: {asked['minutes']:.3g} minutes")
    told = partial(_told, report, "training")
    trained = pipeline.pretrain(path, configure(path, None, asked | (training or {})), report=told)
    spent["training"] = trained.seconds
    model, scores = path / "pretrained", None
    if (gold := trained.gold) is not None:
        named: dict[str, Any] = {"task": "held-out inputs", "metric": gold.metric, "examples": gold.inputs}
        scores = TaskScores(**named, ours=gold.student, theirs=gold.teacher)
    if config.task is not None:
        model, scores = _fine_tuned(config, teacher, path, tuning, trained, partial(_told, report, "fine-tuning"))

    told = partial(_told, report, "files")
    own = None if start is not teacher else served
    ours, theirs, timed_together = _of_student(model, own, path, start, served.length, told)
    spent["files"] = ours.seconds
    folder.write(timed_together)
    folder.write(ours)
    result = _finished(folder, config, teacher, selection, spent, model, scores, trained, ours, theirs)
    pipeline.write_report(path)
    return result


def _claimed(config: CompressConfig, path: Path) -> RunFolder:
    """The run folder, which is new or was begun with the same input."""
    folder = RunFolder(path)
    if not (path / COMPRESSION).is_file() and path.is_dir() and any(one.name[0] != "." for one in path.iterdir()):
        raise InvalidStudy(f"{path}: is not empty and holds no compression; choose another folder with --run")
    sources = {"teacher": teacher_content(config.teacher)}
    if config.start_from is not None:
        sources["start_from"] = teacher_content(config.start_from)
    if config.corpus:
        sources["corpus"] = corpus_content(config.corpus, "text", is_of_task(config.teacher))
    inputs = StageInputs(config=config.model_dump(mode="json"), sources=sources)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidStudy(f"{path}: cannot be made: {error}; choose another folder with --run") from error
    remedy = "restore it, or choose another folder with --run"
    claim(folder, inputs, begun=folder.has(Outline), free=FREE, name=COMPRESSION.removesuffix(".json"), remedy=remedy)
    return folder


def _asked(config: CompressConfig) -> dict[str, Any]:
    """What a search is asked for, without what is decided by measurement."""
    of_task = is_of_task(config.teacher)
    goal = {"objective": "latency", "keep": config.keep, "error": "task"} if config.keep else {"objective": "error"}
    limits = {"max_latency_ratio": config.ratio, "max_latency_ms": config.max_latency_ms}
    limits["max_megabytes"] = config.max_megabytes
    text = {"corpus": config.corpus, "task": config.task, "data": config.data, "max_length": 128 if of_task else None}
    named = {"teacher": config.teacher, "start_from": config.start_from, "seed": config.seed}
    return {key: value for key, value in (goal | limits | text | named).items() if value is not None}


def _wanted(config: CompressConfig) -> str:
    limits = [f"at most {config.max_latency_ms:g} ms"] if config.max_latency_ms else []
    limits += [f"at most {config.max_megabytes:g} MB"] if config.max_megabytes else []
    limits += [f"{config.faster} as fast as the teacher"] if config.faster else []
    limits += [f"the fastest that keeps {config.keep:.0%} of its score"] if config.keep else []
    return ", ".join(limits)


def _sources(config: CompressConfig, settings: ExtractConfig, path: Path) -> tuple[AnyTeacher, Teacher]:
    """The teacher and what the student starts from; refused here, before anything is measured, if they do not fit."""
    teacher, start = teacher_and_start(settings)
    assert teacher is not None
    assert start is not None
    if config.faster is not None and timed(teacher) is None:
        raise InvalidConfig(
            f"faster {config.faster}: {teacher.name} (recorded vectors, or a static table) has no latency that a "
            "student could be compared with; give max_latency_ms instead"
        )
    if not isinstance(teacher, TaskTeacher):
        for key in ("task", "keep"):
            if (value := getattr(config, key)) is not None:
                raise InvalidConfig(
                    f"{key} {value}: the teacher {teacher.name} embeds texts and is not fine-tuned for a task; leave "
                    "it out, or fine-tune the teacher first (subarch finetune) and name that folder as the teacher"
                )
    return teacher, start


def _told(report: Report, stage: str, what: str, done: float, total: float) -> None:
    report(f"{stage}: {what}", done, total)


# The plan


def _outline(config: CompressConfig, start: Teacher, report: Report) -> Outline:
    """Time some training steps of a student as large as the limit lets it be, and divide the minutes."""
    began = time.perf_counter()
    report("plan: timing training steps", 0, 0)
    torch.set_num_threads(usable_cores())
    known = read_teacher(str(start.folder))
    assert known.inputs is not None
    length = min(64, start.recipe.max_length)
    student = _typical(start, config.ratio or 0.5, length)
    tokens = BATCH * length
    pace = measure(Job(student, known.inputs, ("embedding",), known.architecture, length, tokens, tokens), None, PACE)
    step = pace.student_token * tokens + pace.optimizer_step
    minutes = SEARCH * config.minutes
    # Half of it for what is measured and computed once: text, the teacher's outputs, latencies
    fitting = int(60 * minutes / 2 / (TRIALS * step))
    steps = min(max(fitting, STEPS[0]), STEPS[1])
    sentence = (
        f"plan: {config.minutes:g} minutes, of which at most {minutes:.3g} for the search ({steps} steps a candidate, "
        f"{step:.2g} s a step of {student}); what exports and timing leave is for training"
    )
    if fitting < STEPS[0]:
        sentence += f". The search needs about {TRIALS * steps * step / 30:.0f} minutes to finish: give it more"
    seconds = time.perf_counter() - began
    return Outline(steps=steps, search_minutes=minutes, pace=pace.source, seconds=seconds, sentence=sentence)


def _typical(start: Teacher, ratio: float, length: int) -> Architecture:
    """The candidate with about this share of the operations of what it starts from."""
    inputs, own = start.inputs(start.width), start.architecture
    shallowest = int(start.family == "modernbert")
    space = SearchSpace.below(own, shallowest).with_heads_of(own.hidden / max(own.heads, 1))
    costs = space.costs(inputs, length)
    wanted = np.log(ratio * own.operations(inputs, length))
    return costs.architecture(int(np.abs(np.log(costs.operations + 1.0) - wanted).argmin()))


def _search_seconds(run: RunFolder) -> float:
    """What a finished search took, by its records: interruptions do not count."""
    trained = sum(row.seconds for row in run.read(Conclusion).trials)
    trained += run.read(Layers).seconds if run.has(Layers) else 0
    latencies = run.read(Latencies).seconds if run.has(Latencies) else 0
    return run.read(Basis).seconds + latencies + trained / usable_cores()


# Files


def _of_start(config: CompressConfig, start: Teacher, home: Path, report: Report) -> Serving:
    """What the student starts from, exported for every runtime and timed, in `home`."""
    began = time.perf_counter()
    corpus = config.corpus
    home.mkdir(exist_ok=True)
    if config.task is not None:
        write_inputs(config.task, str(config.data), home / INPUTS)
        corpus = [str(home / INPUTS)]
    between = start.between if isinstance(start, TaskTeacher) else None
    share = OF_PROSE if between is None else OF_INPUTS
    build(corpus, start.tokenizer, home / "corpus", heldout_fraction=share, max_tokens=CORPUS_TOKENS, between=between)
    length = min(LENGTH, start.recipe.max_length)
    places, refused = export_all(start.folder, home, report)
    files: list[ServedFile] = []
    for threads in _threads():
        rows = _timed([*places.values()], length, threads, report).rows
        files += _files(places, rows, threads, {}, home.parent)
    seconds = time.perf_counter() - began
    return Serving(fingerprint=start.fingerprint, length=length, files=tuple(files), refused=refused, seconds=seconds)


def _of_student(
    model: Path, teacher: Serving | None, path: Path, start: Teacher, length: int, report: Report
) -> tuple[Serving, Serving | None, Bench]:
    """The student's files and, if it has some, the teacher's, timed together and judged by fidelity; the benchmark."""
    began = time.perf_counter()
    places, refused = export_all(model, path, report)
    others: dict[str, Path] = {}
    if teacher is not None:
        others = {file.runtime: path / file.folder if file.folder else start.folder for file in teacher.files}
    vocabulary = Architecture.parse(RunFolder(path).read(Pretraining).architecture).vocabulary
    kept = _fidelity(path, places, vocabulary, report) if model.name == "pretrained" else {}
    in_int8 = {name: place for name, place in others.items() if "int8" in name}
    theirs_kept = dict.fromkeys(others, 1.0) | _fidelity(path, in_int8, 0, report)
    ours: list[ServedFile] = []
    theirs: list[ServedFile] = []
    timings = {}
    for threads in _threads():
        timings[threads] = _timed([*places.values(), *others.values()], length, threads, report)
        rows = timings[threads].rows
        ours += _files(places, rows[: len(places)], threads, kept, path)
        theirs += _files(others, rows[len(places) :], threads, theirs_kept, path)
    fingerprint = load_exportable(model).teacher.fingerprint
    seconds = time.perf_counter() - began
    found = Serving(fingerprint=fingerprint, length=length, files=tuple(ours), refused=refused, seconds=seconds)
    beside = None if teacher is None else teacher.model_copy(update={"files": tuple(theirs)})
    return found, beside, timings[found.best().threads]


def export_all(model: Path, home: Path, report: Report = silent) -> tuple[dict[str, Path], dict[str, str]]:
    """The model's folders by runtime, exported into `home` where they are missing, and why others were not kept.

    Raises:
        InvalidTeacher: the model cannot be loaded, or has a head that cannot be exported.
    """
    places, refused = {"torch": model}, dict[str, str]()
    fingerprint = load_exportable(model).teacher.fingerprint
    for runtime in installed():
        if runtime == "torch":
            continue
        settings = ExportConfig.of_runtime(runtime)
        place = target(model, settings, home)
        try:
            if not _is_of(place, settings, fingerprint):
                pipeline.export(model, settings, home, partial(_told, report, runtime))
            places[runtime] = place
        except (InvalidExport, InvalidCorpus) as error:
            refused[runtime] = str(error)
    return places, refused


def _is_of(place: Path, settings: ExportConfig, fingerprint: str) -> bool:
    """Whether a folder holds a whole export of this very model."""
    if not (place / settings.runtime / PARITY).is_file():
        return False
    try:
        return find_export(place)[1].fingerprint == fingerprint
    except InvalidExport:  # damaged: it is made again
        return False


def _threads() -> list[int]:
    return sorted({1, usable_cores()})


def _timed(places: Sequence[Path], length: int, threads: int, report: Report) -> Bench:
    settings = load(BenchConfig, None, {"runtime": ["torch"], "length": [length], "threads": threads})
    return bench([str(place) for place in places], settings, report)


def _files(
    places: Mapping[str, Path], rows: Sequence[BenchRow], threads: int, kept: Mapping[str, float], path: Path
) -> list[ServedFile]:
    return [
        ServedFile(
            runtime=runtime,
            threads=threads,
            median_ms=row.median_ms,
            q1_ms=row.q1_ms,
            q3_ms=row.q3_ms,
            bytes=row.file_bytes,
            fidelity=kept.get(runtime),
            folder=str(place.relative_to(path)) if place.is_relative_to(path) else None,
        )
        for (runtime, place), row in zip(places.items(), rows, strict=True)
    ]


def _fidelity(path: Path, places: Mapping[str, Path], vocabulary: int, report: Report) -> dict[str, float]:
    """1 less the error of a search, of each of these files by runtime, which read with a vocabulary of that size."""
    if not places:
        return {}
    report("fidelity", 0, len(places))
    signal = Workbench.open(RunFolder.open(path).config(ExtractConfig), path).keeping(vocabulary).signal
    judge = signal.training if isinstance(signal, GoldSignal) else signal
    assert isinstance(judge, EmbeddingSignal | OutputsSignal)
    outputs = judge.teacher.outputs if isinstance(judge, OutputsSignal) else None
    found: dict[str, float] = {}
    for done, (name, place) in enumerate(places.items(), 1):
        found[name] = 1 - judge.error(_forward(place, name, outputs))
        report("fidelity", done, len(places))
    return found


def _forward(place: Path, runtime: str, outputs: Outputs | None) -> Forward:
    """A model, or its file, as a search asks candidates: ids and mask to embeddings, or to the outputs of a task."""
    if runtime == "torch":
        model = timed(source_of(place))
        assert model is not None
        return model
    session = open_export(place, usable_cores())
    choice = outputs is not None and outputs.kind == "choices"  # whose rows are the choices of one input

    def run(ids: Tensor, mask: Tensor) -> Tensor:
        given = {"input_ids": ids, "attention_mask": mask}
        if outputs is not None and outputs.separator is not None:
            given["token_type_ids"] = token_types(ids, outputs.separator) * mask
        arrays = {name: (value[None] if choice else value).numpy() for name, value in given.items()}
        found = torch.from_numpy(session(arrays)[session.outputs[-1]])
        return found[0, :, None] if choice else found

    return run


# Labels


def _fine_tuned(
    config: CompressConfig, teacher: AnyTeacher, path: Path, minutes: float, trained: Pretraining, report: Report
) -> tuple[Path, TaskScores]:
    """Fine-tune the student on labels in about so many minutes; of the two the better on dev, and its scores."""
    assert isinstance(teacher, TaskTeacher)
    task = {"task": config.task, "data": config.data}
    parts = parts_of(load(TaskData, None, task))
    tokens = float(Corpus.load(path / "corpus").train.size.mean()) + 2
    rows = max(10, int(60 * minutes * trained.tokens_per_second / (EPOCHS * tokens)))
    asked: dict[str, Any] = {"teacher": str(teacher.folder), "learning_rate": [3e-5], "epochs": EPOCHS}
    asked |= {"seeds": [config.seed], "any_teacher": True, "rows": rows if rows < len(parts.train) else None}
    settings = load(FinetuneConfig, None, task | asked)
    pipeline.finetune(path / "pretrained", settings, path, report=report)

    def scored(model: Path, examples: Examples) -> float:
        labels = labels_of(examples.task, predict(model, examples, max_length=settings.max_length, report=report))
        return float(score(examples, labels)[primary(examples.task)])

    models = [path / "pretrained", path / "finetuned" / settings.task]
    best = max(models, key=lambda model: scored(model, parts.dev))
    return best, TaskScores(
        task=settings.task,
        metric=primary(parts.heldout.task),
        examples=len(parts.heldout),
        ours=scored(best, parts.heldout),
        theirs=scored(teacher.folder, parts.heldout),
    )


# What came of it

_HEADS = {"classes": "classification", "labels": "classification", "number": "pair regression", "tags": "tagging"}
"""How models with the outputs of a task are loaded, see `show.card.USES`."""


def _finished(
    folder: RunFolder,
    config: CompressConfig,
    teacher: AnyTeacher,
    selection: Selection,
    spent: dict[str, float],
    model: Path | None = None,
    scores: TaskScores | None = None,
    trained: Pretraining | None = None,
    ours: Serving | None = None,
    theirs: Serving | None = None,
) -> Compressed:
    """Write down what it came to, with the lines that say so."""
    is_certain, proof = certified(selection)
    figures = figures_of(teacher, LENGTH)
    asked = config.model_dump(
        mode="json", include={"faster", "max_latency_ms", "max_megabytes", "keep"}, exclude_none=True
    )
    head = None
    if model is not None:
        head = _HEADS.get(teacher.outputs.kind, "choice") if isinstance(teacher, TaskTeacher) else "sentence"
    found = Compressed(
        architecture=None if trained is None else trained.architecture,
        parameters=None if trained is None else trained.parameters.total,
        model=None if model is None else str(model.relative_to(folder.path)),
        head=head,
        teacher=teacher.name,
        teacher_architecture=None if figures is None else figures.architecture,
        teacher_parameters=None if figures is None else figures.parameters,
        teacher_ms=None if selection.teacher is None else selection.teacher.latency_ms,
        runtime=None if selection.latency is None else selection.latency.runtime,
        asked=asked,
        error=None if trained is None else trained.heldout[-1].get("error"),
        scores=scores,
        certified=is_certain,
        certificate=proof,
        nearest=None if selection.nearest is None else selection.nearest.sentence,
        serving=ours,
        teacher_serving=theirs,
        seconds=spent,
        machine=Machine(**machine()),
        versions=versions(),
    )
    found = found.model_copy(update={"lines": lines(found, folder.path)})
    folder.write(found)
    return found
