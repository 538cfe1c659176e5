"""Every stage as a function: what `import subarch` offers, and what the command line calls.

    >>> import subarch
    >>> subarch.compress("all-MiniLM-L6-v2", "runs/fast", corpus="my-texts", faster="4x", minutes=60).architecture
    '2-12-384-512'
    >>> selection = subarch.extract("runs/mine", teacher="all-MiniLM-L6-v2", corpus="my-texts", max_latency_ratio=0.25)
    >>> selection.winner.architecture
    '2-12-384-512'
    >>> subarch.pretrain("runs/mine", minutes=30).heldout[-1]["error"]
    0.11
    >>> subarch.export("runs/mine", quantize="int8").likeness["sentence_embedding"].worst_cosine
    0.993

`**options` are the other options of the command, with underscores (`subarch extract --help`, or the fields of
`ExtractConfig` and its like); `config` is a YAML file with the same keys, which options override. Results are the
records of `subarch.run.records`. All functions raise `SubarchError` and its subclasses, see `subarch.errors`.

Importing this module loads no torch: a stage is imported when it runs, after its options were found to be valid.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from subarch.compressing.config import CompressConfig
from subarch.errors import InvalidConfig
from subarch.exporting.config import ExportConfig
from subarch.extraction.config import ExtractConfig
from subarch.finetuning.config import AugmentConfig, FinetuneConfig
from subarch.latency.config import BenchConfig
from subarch.planning.config import PlanConfig
from subarch.recording.config import RecordConfig
from subarch.run import Report, silent
from subarch.run.configuration import load
from subarch.run.folder import RunFolder, places

if TYPE_CHECKING:
    from subarch.evaluation.benchmark import TaskScore
    from subarch.finetuning.augment import Augmented
    from subarch.planning.plan import Plan
    from subarch.recording.record import Recorded
    from subarch.run.records import Bench, Compressed, Evaluation, Metrics, Parity, Pretraining, Retrieval, Selection

Place = str | Path


def compress(
    teacher: Place,
    run: Place,
    *,
    corpus: str | Sequence[str] | None = None,
    task: str | None = None,
    data: Place | None = None,
    faster: str | float | None = None,
    max_latency_ms: float | None = None,
    max_megabytes: float | None = None,
    keep: float | None = None,
    minutes: float | None = None,
    report: Report = silent,
    say: Callable[[str], object] = lambda sentence: None,
    **options: Any,
) -> Compressed:
    """The whole way from a teacher and text to a file that serves, in the folder `run`; the same call goes on.

    Args:
        faster: so many times as fast as the teacher, 4 or "4x", which is the default; or
        max_latency_ms: of a forward pass; or
        max_megabytes: of the file that serves; or
        keep: a share of the score of a teacher of a task, of which the fastest is wanted; a limit may be given too.
        say: called with warnings about the machine, the plan, and what was decided on the way.
    """
    named: dict[str, Any] = {"task": task, "data": None if data is None else str(data), "faster": faster, "keep": keep}
    named |= {"teacher": teacher, "corpus": _list(corpus), "max_latency_ms": max_latency_ms, "minutes": minutes}
    named["max_megabytes"] = max_megabytes
    settings = load(CompressConfig, None, _given(options, **named))
    from subarch.compressing.compress import compress

    return compress(settings, Path(run), report=report, say=say)


def load_model(folder: Place, *, threads: int | None = None) -> Any:
    """A model of a run, a folder or an export as sentence-transformers' own: what embeds texts, or reranks.

    An exported file runs in its runtime on so many `threads`; it is refused if it is not the one that was compared.

        >>> subarch.load_model("runs/mine/exported/onnx-int8", threads=1).encode(["a text"]).shape
        (1, 384)
    """
    from subarch.exporting.searching import load as open_model

    return open_model(Path(folder), threads=threads).encoder


def extract(
    run: Place,
    *,
    teacher: Place | None = None,
    corpus: str | Sequence[str] | None = None,
    space: str | None = None,
    max_latency_ratio: float | None = None,
    max_latency_ms: float | None = None,
    max_parameters: int | None = None,
    max_megabytes: float | None = None,
    objective: str | None = None,
    keep: float | None = None,
    runtime: str | None = None,
    config: Place | None = None,
    resume: bool = False,
    remeasure: bool = False,
    report: Report = silent,
    **options: Any,
) -> Selection:
    """Find the optimal encoder for this machine; `run` is the folder that everything is left in.

    With `resume` the run that is there is continued; options that are not given are then its own.
    """
    path, file = Path(run), None if config is None else Path(config)
    given = _given(
        options,
        teacher=teacher,
        corpus=_list(corpus),
        space=space,
        max_latency_ratio=max_latency_ratio,
        max_latency_ms=max_latency_ms,
        max_parameters=max_parameters,
        max_megabytes=max_megabytes,
        objective=objective,
        keep=keep,
        runtime=runtime,
    )
    if resume and file is None:
        settings = load(ExtractConfig, RunFolder.open(path).path / "config.yaml", given)
    else:
        settings = load(ExtractConfig, file, given)
    from subarch import pipeline

    return pipeline.extract(settings, path, resume=resume, remeasure=remeasure, report=report)


def push(
    run: Place,
    name: str,
    *,
    dry_run: Place | None = None,
    private: bool = False,
    report: Report = silent,
    say: Callable[[str], object] = lambda sentence: None,
) -> str:
    """Upload the model of a run, its exports and its card to a hub as the repository `name`; returns the address.

    With `dry_run` that folder is written instead, and nothing is uploaded. `say` is called with every file first.
    """
    from subarch.publishing.push import push

    return push(Path(run), name, None if dry_run is None else Path(dry_run), private, report, say)


def select(run: Place, *, remeasure: bool = False, report: Report = silent, **options: Any) -> Selection:
    """Select again from a finished run, for another objective, limit, runtime or machine; nothing is trained.

    An objective or a limit given here replaces all of the run's; without any, the run's are kept.
    """
    from subarch import pipeline

    return pipeline.select(Path(run), _given(options), remeasure=remeasure, report=report)


def verify(run: Place) -> list[str]:
    """Check the certificate of a run against its records, by code that shares nothing with the search.

    Returns sentences on what was checked. Raises InvalidStudy if anything differs.
    """
    from subarch.extraction.verify import verify

    return verify(Path(run))


def pretrain(
    run: Place,
    *,
    architecture: str | None = None,
    teacher: Place | None = None,
    corpus: str | Sequence[str] | None = None,
    minutes: float | None = None,
    steps: int | None = None,
    config: Place | None = None,
    restart: bool = False,
    report: Report = silent,
    **options: Any,
) -> Pretraining:
    """Train the architecture that was selected in `run`, or another one, in full; the same call continues a training.

    In the folder of an extraction, options that are not given are taken from it.
    """
    from subarch import pipeline
    from subarch.pretraining.pretrain import configure

    named = {"architecture": architecture, "teacher": teacher, "corpus": _list(corpus)}
    given = _given(options, **named, minutes=minutes, steps=steps)
    settings = configure(Path(run), None if config is None else Path(config), given)
    return pipeline.pretrain(Path(run), settings, restart, report)


def finetune(
    model: Place,
    *,
    task: str | None = None,
    data: Place | None = None,
    teacher: Place | None = None,
    run: Place | None = None,
    config: Place | None = None,
    restart: bool = False,
    report: Report = silent,
    say: Callable[[str], object] = lambda sentence: None,
    command: str | None = None,
    **options: Any,
) -> Metrics:
    """Fine-tune a model for a task and score it on held-out data; the same call continues a fine-tuning.

    Args:
        model: the folder of an encoder, or a run folder that contains one.
        run: where to leave it; default: the model's run folder, or runs/ and the model's name.
        say: called with what Agora will take, before it begins.
        command: shown in the report.
    """
    given = _given(options, task=task, data=None if data is None else str(data), teacher=teacher)
    settings = load(FinetuneConfig, None if config is None else Path(config), given)
    from subarch import pipeline

    encoder, place = places(Path(model), None if run is None else Path(run))
    shown = shlex.join(["subarch", "finetune", str(model)]) if command is None else command
    return pipeline.finetune(encoder, settings, place, restart, report, say, shown)


@overload
def evaluate(
    models: Place | Sequence[Place],
    part: str | None = None,
    *,
    against: Place | Sequence[Place] = (),
    submission: Place | None = None,
    retrieval: None = None,
    documents: None = None,
    retriever: None = None,
    rerank: None = None,
    mteb: None = None,
    report: Report = silent,
    command: str = "",
    **options: Any,
) -> Evaluation: ...
@overload
def evaluate(
    models: Place | Sequence[Place],
    part: None = None,
    *,
    mteb: str | Sequence[str],
    report: Report = silent,
    **options: Any,
) -> list[TaskScore]: ...
@overload
def evaluate(
    models: Place | Sequence[Place],
    part: str | None = None,
    *,
    against: Place | Sequence[Place] = (),
    submission: None = None,
    retrieval: Place,
    documents: Place | None = None,
    retriever: Place | None = None,
    rerank: int | None = None,
    mteb: None = None,
    report: Report = silent,
    command: str = "",
    **options: Any,
) -> Retrieval: ...
def evaluate(
    models: Place | Sequence[Place],
    part: str | None = None,
    *,
    against: Place | Sequence[Place] = (),
    submission: Place | None = None,
    retrieval: Place | None = None,
    documents: Place | None = None,
    retriever: Place | None = None,
    rerank: int | None = None,
    mteb: str | Sequence[str] | None = None,
    report: Report = silent,
    command: str = "",
    **options: Any,
) -> Evaluation | Retrieval | list[TaskScore]:
    """Score fine-tuned models (of one fine-tuning, one per seed) with intervals, or compare them with others.

    Without `task`, task and data are those of the fine-tuning. Unlabelled data are predicted only.

    With `retrieval`, the folder of a collection in the layout of BEIR, one model is scored in search: an embedding
    model, or a reranker of what `retriever` finds. The record is left in the model's run folder, retrieval/.

    With `mteb`, names of tasks or benchmarks of MTEB, one embedding model is scored by the package mteb, whose files
    are left in the model's run folder, mteb/.

    Args:
        part: of the task; default: validation. Of a collection: the name of its judgements; default: test.
        documents: the model that embeds the documents, if it is another than the one that embeds the queries.
        rerank: documents that a reranker gets for a query; default: 50.
    """
    given, ours, others = _given(options), _paths(models), _paths(against)
    if mteb is not None:
        beside: dict[str, Any] = {
            "retrieval": retrieval,
            "documents": documents,
            "retriever": retriever,
            "rerank": rerank,
        }
        beside |= {"part": part, "submission": submission, "against": others or None}
        beside |= {key: value for key, value in given.items() if key != "max_length"}
        if unused := [key for key, value in beside.items() if value is not None]:
            raise InvalidConfig(f"{unused[0]} is not for the tasks that mteb names; leave one of them out")
        if len(ours) != 1:
            raise InvalidConfig(f"{len(ours)} models: tasks of mteb are run with one; name one")
        from subarch import pipeline

        return pipeline.benchmark(ours[0], _list(mteb) or [], given.get("max_length"), report)
    if retrieval is None:
        if (documents, retriever, rerank) != (None, None, None):
            raise InvalidConfig(
                "documents, and a retriever and what it hands over (rerank), are for a collection; name it in retrieval"
            )
        from subarch.evaluation.evaluate import evaluate

        place = None if submission is None else Path(submission)
        return evaluate(
            ours, given, part or "validation", against=others, submission=place, command=command, report=report
        )
    if unused := [*given.keys() - {"max_length"}, *(["submission"] if submission is not None else [])]:
        raise InvalidConfig(f"{min(unused)} is for a task, and retrieval names a collection; leave one of them out")
    if len(ours) != 1 or len(others) > 1:
        raise InvalidConfig(f"{len(ours)} models against {len(others)}: in search one is scored, against one at most")
    from subarch import pipeline

    return pipeline.retrieve(
        ours[0],
        Path(retrieval),
        part or "test",
        against=others[0] if others else None,
        documents=None if documents is None else Path(documents),
        retriever=None if retriever is None else Path(retriever),
        rerank=rerank,
        max_length=given.get("max_length"),
        command=command,
        report=report,
    )


def export(
    model: Place,
    *,
    runtime: str | None = None,
    quantize: str | None = None,
    corpus: str | Sequence[str] | None = None,
    run: Place | None = None,
    report: Report = silent,
    **options: Any,
) -> Parity:
    """Export a model to ONNX or OpenVINO, in `run`/exported; the file is kept only if its outputs equal PyTorch's.

    Args:
        model: the folder of a model, or a run folder that contains one.
        run: where to leave it; default: the model's run folder, or runs/ and the model's name.
    """
    settings = load(ExportConfig, None, _given(options, runtime=runtime, quantize=quantize, corpus=_list(corpus)))
    from subarch import pipeline

    encoder, place = places(Path(model), None if run is None else Path(run))
    return pipeline.export(encoder, settings, place, report)


def pair(queries: Place, documents: Place, out: Place) -> None:
    """Write two encoders as one model of sentence-transformers: `queries` reads queries, `documents` documents.

    The vectors of both must be of one space, as those of a student and its teacher are.
    """
    from subarch.exporting.pair import write_pair

    write_pair(Path(queries), Path(documents), Path(out))


def bench(
    *subjects: Place,
    run: Place | None = None,
    runtime: Sequence[str] | None = None,
    batch: Sequence[int] | None = None,
    length: Sequence[int] | None = None,
    report: Report = silent,
    command: str = "",
    **options: Any,
) -> Bench:
    """Compare the latency of models: run folders, folders of models, architectures, or exported folders.

    bench.json and bench.html are left in `run`; default: runs/bench- and the time.
    """
    if not subjects:
        raise InvalidConfig("nothing to time: name a run folder, a model, an architecture or an exported folder")
    settings = load(BenchConfig, None, _given(options, runtime=runtime, batch=batch, length=length))
    from subarch import pipeline

    place = Path(run) if run is not None else Path("runs") / time.strftime("bench-%Y%m%d-%H%M%S")
    return pipeline.bench([str(subject) for subject in subjects], settings, place, command, report)


def plan(architecture: str | None = None, **options: Any) -> Plan:
    """Estimate what a pretraining takes: operations, memory, tokens per second, hours."""
    settings = load(PlanConfig, None, _given(options, architecture=architecture))
    from subarch.planning.plan import draw_up

    return draw_up(settings)


def record(
    out: Place | None = None,
    *,
    endpoint: str | None = None,
    model: str | None = None,
    corpus: str | Sequence[str] | None = None,
    config: Place | None = None,
    dry_run: bool = False,
    report: Report = silent,
    say: Callable[[str], object] = lambda sentence: None,
    **options: Any,
) -> Recorded:
    """Ask an OpenAI-compatible server for the vectors of a corpus, and keep them in the Parquet file `out`.

    The same call goes on where one stopped, and adds to a finished file what it lacks: no text is paid for twice.

    Args:
        dry_run: only say what it would take; nothing is asked or written.
        say: called with what it will take, before it begins.
    """
    given = _given(
        options, out=None if out is None else Path(out), endpoint=endpoint, model=model, corpus=_list(corpus)
    )
    settings = load(RecordConfig, None if config is None else Path(config), given)
    from subarch.recording.record import record

    return record(settings, dry_run=dry_run, say=say, report=report)


def augment(
    out: Place | None = None,
    *,
    corpus: str | Sequence[str] | None = None,
    task: str | None = None,
    data: Place | None = None,
    points: int | None = None,
    config: Place | None = None,
    report: Report = silent,
    **options: Any,
) -> Augmented:
    """Write the inputs of a task, and new ones near each that the teacher of a search labels, to the file `out`.

    Args:
        corpus: inputs as `extract` takes them; instead of `task` and `data`.
        points: new inputs near each, at most.
    """
    given = _given(
        options,
        out=None if out is None else Path(out),
        corpus=_list(corpus),
        task=task,
        data=None if data is None else str(data),
        points=points,
    )
    settings = load(AugmentConfig, None if config is None else Path(config), given)
    from subarch.finetuning.augment import augment

    return augment(settings, report)


def _given(options: dict[str, Any], **named: Any) -> dict[str, Any]:
    """What was given, by key; a tuple is a list, as in a YAML file."""
    given = {key: value for key, value in (named | options).items() if value is not None}
    return {key: list(value) if isinstance(value, tuple) else value for key, value in given.items()}


def _paths(places: Place | Sequence[Place]) -> list[Path]:
    return [Path(places)] if isinstance(places, str | Path) else [Path(place) for place in places]


def _list(value: str | Sequence[str] | None) -> list[str] | None:
    return [value] if isinstance(value, str) else None if value is None else list(value)
