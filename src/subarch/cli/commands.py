"""The commands. Each reads its options, calls its stage, and says how the result is shown; nothing else happens here.

torch takes seconds to import, so a command imports its stage when it runs, after its options were found to be valid.
"""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from subarch import api
from subarch.cli.options import Answer, Progress, answering, errors, options_of
from subarch.compressing.config import CompressConfig
from subarch.exporting.config import ExportConfig
from subarch.extraction.config import MEASUREMENT, QUESTION, ExtractConfig
from subarch.finetuning.config import EXAMINED, AugmentConfig, FinetuneConfig
from subarch.latency.config import BenchConfig
from subarch.planning.config import PlanConfig
from subarch.pretraining.config import PretrainConfig
from subarch.recording.config import RecordConfig
from subarch.run.configuration import load
from subarch.run.folder import places
from subarch.show import screen

if TYPE_CHECKING:
    from subarch.run.records import Selection

INFEASIBLE = 3
"""Exit code if no candidate meets the limits."""

FIND, CHECK, LOOK = "Find and train an encoder", "Check and compare", "Before you start"
"""The panels of --help."""

FOLDER = click.Path(path_type=Path)
MODEL = click.argument("model", type=FOLDER)
RUN = click.argument("run", type=FOLDER)
CONFIG = click.option("--config", type=FOLDER, help="YAML file with the same keys; options override it.")
RESTART = click.option("--restart", is_flag=True, help="Start again from the beginning; earlier work is deleted.")
REMEASURE = click.option("--remeasure", is_flag=True, help="Measure latencies again, ignoring those in the cache.")


def run_option(help: str) -> Callable[[Any], Any]:
    return click.option("--run", type=FOLDER, help=help)


@click.command(panel=FIND)
@click.argument("teacher", type=FOLDER)
@run_option("Run folder; default: runs/ and the time. The same command with the same folder goes on.")
@options_of(CompressConfig, [key for key in CompressConfig.model_fields if key != "teacher"])
@answering
def compress(teacher: Path, run: Path | None, given: dict[str, Any], report: Progress) -> Answer:
    """The whole way in one command: find, train and export a faster encoder of TEACHER, and compare it.

    Stopped at any instant, the same command goes on. What it leaves is a run folder, with which the other commands
    go on.
    """
    path = run or Path("runs") / time.strftime("%Y%m%d-%H%M%S")
    if run is None:
        report.resume += ["--run", str(path)]
    say = partial(errors.print, markup=False, highlight=False, soft_wrap=True)
    found = api.compress(teacher, path, report=report, say=say, **given)
    return Answer(found, partial(screen.show_compressed, found), 0 if found.serving else INFEASIBLE)


@click.command(panel=FIND)
@run_option("Run folder; default: runs/ and the time.")
@CONFIG
@click.option("--resume", is_flag=True, help="Continue the run in --run.")
@REMEASURE
@options_of(ExtractConfig)
@answering
def extract(
    run: Path | None, config: Path | None, resume: bool, remeasure: bool, given: dict[str, Any], report: Progress
) -> Answer:
    """Find the optimal encoder for this machine."""
    if resume and run is None:
        raise click.BadParameter("--resume needs the folder of the run, in --run")
    path = run or Path("runs") / time.strftime("%Y%m%d-%H%M%S")
    report.resume = ["subarch", "extract", "--run", str(path), "--resume"]
    selection = api.extract(path, config=config, resume=resume, remeasure=remeasure, report=report, **given)
    return _selected(selection, path)


@click.command(panel=FIND)
@RUN
@REMEASURE
@options_of(ExtractConfig, [*QUESTION, *MEASUREMENT])
@answering
def select(run: Path, remeasure: bool, given: dict[str, Any], report: Progress) -> Answer:
    """Select again from a finished run, for another objective, limit, machine or runtime. Nothing is trained.

    An objective or a limit given here replaces all of the run's; without any, the run's are kept.
    """
    return _selected(api.select(run, remeasure=remeasure, report=report, **given), run)


def _selected(selection: Selection, run: Path) -> Answer:
    code = INFEASIBLE if selection.winner is None else 0
    return Answer(selection, partial(screen.show_selection, selection, run), code)


@click.command(panel=CHECK)
@RUN
@answering
def verify(run: Path, report: Progress) -> Answer:
    """Check the certificate of a run against its records, by code that shares nothing with the search."""
    sentences = api.verify(run)
    return Answer(sentences, lambda: print("\n".join(sentences)))


@click.command(panel=FIND)
@RUN
@CONFIG
@RESTART
@options_of(PretrainConfig)
@answering
def pretrain(run: Path, config: Path | None, restart: bool, given: dict[str, Any], report: Progress) -> Answer:
    """Train the selected architecture in full, or any other. The same command continues an interrupted training.

    In the folder of an extraction, options that are not given are taken from it. On several devices: torchrun -m
    subarch pretrain
    """
    trained = api.pretrain(run, config=config, restart=restart, report=report, **given)
    return Answer(trained, partial(screen.show_training, trained, run))


@click.command(panel=FIND)
@MODEL
@run_option("Run folder; default: that of the model, or runs/ and the model's name.")
@CONFIG
@RESTART
@options_of(FinetuneConfig)
@answering
def finetune(
    model: Path, run: Path | None, config: Path | None, restart: bool, given: dict[str, Any], report: Progress
) -> Answer:
    """Fine-tune a model for a task and score it on held-out data. The same command continues an interrupted one.

    MODEL is the folder of an encoder, or a run folder that contains one. Of repeatable options every combination of
    values is tried.
    """
    told: dict[str, Any] = {"report": report, "say": errors.print, "command": shlex.join(report.resume)}
    found = api.finetune(model, run=run, config=config, restart=restart, **told, **given)
    place = places(model, run)[1]
    return Answer(found, partial(screen.show_finetuning, found, place))


@click.command(panel=CHECK)
@click.argument("models", type=FOLDER, nargs=-1, required=True)
@click.option(
    "--part",
    help="Part of the task; dev and held-out: as divided. [default: validation; of a collection, test]",
)
@click.option("--against", type=FOLDER, multiple=True, help="Model to compare with, one for each model. [repeatable]")
@click.option("--submission", type=FOLDER, help="Archive to write for the server of the benchmark.")
@options_of(FinetuneConfig, EXAMINED)
@click.option(
    "--retrieval",
    type=FOLDER,
    help="Instead of a task: a collection to search in, with corpus.jsonl, queries.jsonl and qrels/.",
    panel="Retrieval",
)
@click.option(
    "--documents",
    type=FOLDER,
    help="Embedding model for the documents, such as the teacher; MODEL then embeds the queries alone.",
    panel="Retrieval",
)
@click.option(
    "--retriever", type=FOLDER, help="For a reranker: the embedding model that finds documents.", panel="Retrieval"
)
@click.option(
    "--rerank",
    type=click.IntRange(min=1),
    help="Documents that a reranker gets for a query. [default: 50]",
    panel="Retrieval",
)
@click.option(
    "--mteb",
    multiple=True,
    help="Instead of a task: one of MTEB, or a benchmark such as NanoBEIR, run by the package mteb. [repeatable]",
    panel="Retrieval",
)
@answering
def evaluate(
    models: tuple[Path, ...],
    part: str | None,
    against: tuple[Path, ...],
    submission: Path | None,
    retrieval: Path | None,
    documents: Path | None,
    retriever: Path | None,
    rerank: int | None,
    mteb: tuple[str, ...],
    given: dict[str, Any],
    report: Progress,
) -> Answer:
    """Score a model with confidence intervals, or compare it with another: on a task, or in search.

    MODELS are folders of one fine-tuning, one per seed. Without --task, task and data are those of the fine-tuning.
    Unlabelled data are predicted only. With --retrieval, MODELS is one embedding model or
    reranker, exported or not, or a run folder; --max-length is then by default what the model reads. With --mteb it is
    one embedding model, and results are those of the package mteb, as it writes them.
    """
    command = shlex.join(["subarch", *sys.argv[1:]])
    where: dict[str, Any] = {"retrieval": retrieval, "documents": documents, "retriever": retriever, "rerank": rerank}
    beside: dict[str, Any] = {"against": against, "submission": submission, "report": report, "command": command}
    named: dict[str, Any] = {"mteb": mteb} if mteb else {}
    found: Any = api.evaluate(list(models), part, **where, **beside, **given, **named)
    if mteb:
        answer = [score.to_dict() for score in found]
        return Answer(answer, partial(screen.show_benchmark, answer, places(models[0], None)[1]))
    if retrieval is not None:
        return Answer(found, partial(screen.show_retrieval, found, places(models[0], None)[1]))
    return Answer(found, partial(screen.show_evaluation, found, models[0]))


@click.command(panel=FIND)
@MODEL
@run_option("Run folder; default: that of the model, or runs/ and the model's name.")
@options_of(ExportConfig)
@answering
def export(model: Path, run: Path | None, given: dict[str, Any], report: Progress) -> Answer:
    """Export a model to ONNX or OpenVINO. The file is kept only if its outputs equal PyTorch's.

    MODEL is the folder of a model, or a run folder that contains one.
    """
    found = api.export(model, run=run, report=report, **given)
    return Answer(found, partial(screen.show_export, found))


@click.command(panel=FIND)
@click.argument("queries", type=FOLDER)
@click.argument("documents", type=FOLDER)
@click.option("--out", type=FOLDER, required=True, help="Folder to write; it must be new or empty.")
@answering
def pair(queries: Path, documents: Path, out: Path, report: Progress) -> Answer:
    """Write two encoders as one model: QUERIES, a student, reads queries, DOCUMENTS, its teacher, reads documents.

    sentence-transformers loads it; encode_query and encode_document take the one or the other.
    """
    api.pair(queries, documents, out)
    return Answer(str(out), lambda: print(out))


@click.command(panel=CHECK)
@click.argument("subjects", nargs=-1, required=True)
@run_option("Folder for bench.json and bench.html; default: runs/bench- and the time.")
@options_of(BenchConfig)
@answering
def bench(subjects: tuple[str, ...], run: Path | None, given: dict[str, Any], report: Progress) -> Answer:
    """Compare the latency of models, by runtime, batch size and length.

    SUBJECTS are run folders, folders of models, architectures such as 4-8-1024-768, or exported folders.
    """
    place = run or Path("runs") / time.strftime("bench-%Y%m%d-%H%M%S")
    command = shlex.join(["subarch", *sys.argv[1:]])
    found = api.bench(*subjects, run=place, report=report, command=command, **given)
    return Answer(found, partial(screen.show_bench, found, place))


@click.command(panel=CHECK)
@RUN
@click.argument("name")
@click.option("--dry-run", type=FOLDER, help="Write the folder that would be uploaded; nothing is.")
@click.option("--private", is_flag=True, help="Make the repository private, if it has to be made.")
@answering
def push(run: Path, name: str, dry_run: Path | None, private: bool, report: Progress) -> Answer:
    """Upload the model of RUN, with its exports and its card, to a hub as the repository NAME.

    Every file is named first. Corpus, trials and paths of this machine stay here.
    """
    say = partial(errors.print, markup=False, highlight=False, soft_wrap=True)
    where = api.push(run, name, dry_run=dry_run, private=private, report=report, say=say)
    return Answer(where, lambda: print(where))


@click.command(panel=LOOK)
@options_of(PlanConfig)
@answering
def plan(given: dict[str, Any], report: Progress) -> Answer:
    """Estimate what a pretraining takes: operations, memory, tokens per second, hours."""
    planned = api.plan(**given)
    return Answer(planned, partial(screen.show_plan, planned.to_dict()))


@click.command(panel=LOOK)
@CONFIG
@click.option("--dry-run", is_flag=True, help="Only say what it would take; nothing is asked for or written.")
@options_of(RecordConfig)
@answering
def record(config: Path | None, dry_run: bool, given: dict[str, Any], report: Progress) -> Answer:
    """Ask an OpenAI-compatible server for the vectors of a corpus, to be a teacher without the model.

    The same command goes on where one stopped, and adds to a finished file what it lacks: no text is paid for twice.
    """
    say = partial(errors.print, markup=False, highlight=False, soft_wrap=True)
    found = api.record(config=config, dry_run=dry_run, report=report, say=say, **given)
    return Answer(found, partial(screen.show_recorded, found.to_dict()))


@click.command(panel=LOOK)
@CONFIG
@options_of(AugmentConfig)
@answering
def augment(config: Path | None, given: dict[str, Any], report: Progress) -> Answer:
    """Make more inputs of a task where there are few: new ones near each, which the teacher of a search labels."""
    found = api.augment(config=config, report=report, **given)
    return Answer(found, partial(screen.show_augmented, asdict(found)))


@click.command(panel=CHECK)
@RUN
@answering
def report(run: Path, report: Progress) -> Answer:
    """Write the run's report.html again."""
    from subarch.pipeline import write_report

    page = write_report(run)
    return Answer(str(page), lambda: print(page))


@click.command(panel=LOOK)
@click.option(
    "--preset", default="minilm", show_default=True, help="paper, minilm, demo, or a YAML file with the axes."
)
@click.option("--vocabulary", type=click.IntRange(1, 10**7), default=30522, show_default=True, help="Number of tokens.")
@click.option("--positions", type=click.IntRange(1, 4096), default=512, show_default=True, help="RoBERTa: 514.")
@click.option("--token-types", type=click.IntRange(1, 100), default=2, show_default=True, help="RoBERTa: 1.")
@click.option(
    "--output", type=click.IntRange(0, 65536), default=0, help="Width that embeddings are mapped to; 0: none."
)
@click.option("--length", type=click.IntRange(1, 4096), default=128, show_default=True, help="Tokens per sequence.")
@answering
def space(
    preset: str, vocabulary: int, positions: int, token_types: int, output: int, length: int, report: Progress
) -> Answer:
    """List a search space with exact parameters and operations, and check the AB^nC conditions on it."""
    from subarch.numbers import abnc
    from subarch.numbers.architecture import Inputs
    from subarch.numbers.space import SearchSpace

    found, inputs = SearchSpace.load(preset), Inputs(vocabulary, positions, token_types, output)
    costs = found.costs(inputs, length)
    verdict = abnc.verdict(abnc.check(found, inputs, length))
    rows = []
    for row in range(len(costs)):
        architecture = costs.architecture(row)
        count = architecture.parameters(inputs)
        rows.append(
            {
                "architecture": str(architecture),
                "parameters": count.total,
                "embedding_parameters": count.embeddings,
                "encoder_parameters": count.effective,
                "projection_parameters": count.projection,
                "with_heads": count.with_heads,
                "operations": int(costs.operations[row]),
            }
        )
    listing = {"space": found.name, **found.to_dict(), "maximum_point": str(costs.maximum_point)}
    title = f"{found.name}: {len(costs)} candidates, maximum point {costs.maximum_point}"

    def show() -> None:
        screen.show_space(title, rows)
        print(verdict)

    return Answer(listing | {"candidates": rows, "abnc": verdict}, show)


@click.command(panel=LOOK)
@click.option("--data", type=FOLDER, help="Folder to look for the tasks in.")
@answering
def tasks(data: Path | None, report: Progress) -> Answer:
    """List the tasks that are known: type, labels, metrics; with --data also what of each is found."""
    from subarch.tasks import TASKS, described, survey

    listed = {name: described(task) for name, task in TASKS.items()}
    if data is not None:
        listed = {name: listed[name] | {"found": found} for name, found in survey(data, TASKS).items()}
    rows = list(listed.values())
    return Answer(rows, partial(screen.show_tasks, rows))


@click.command(panel=LOOK)
@click.argument("file", type=FOLDER, required=False)
def config(file: Path | None) -> None:
    """Print a commented configuration of extract with every key, or check a YAML file and print it completed."""
    from subarch.run.configuration import dump

    print(dump(load(ExtractConfig, file, {} if file else {"teacher": "path/to/teacher", "corpus": ["path/to/text"]})))


@click.command(panel=LOOK)
@click.option("--seconds", type=click.FloatRange(min=0.1), default=10.0, show_default=True, help="Time to measure for.")
@answering
def doctor(seconds: float, report: Progress) -> Answer:
    """Show versions, processor, memory, disk, extras, and the speed of matrix products."""
    from subarch.run.machine import examine

    report("multiplying matrices", 0, 0)
    found = examine(seconds)
    return Answer(found, partial(screen.show_doctor, found))


@click.command(panel=LOOK)
@click.option("--run", type=FOLDER, default=Path("runs/demo"), show_default=True, help="Run folder.")
@answering
def demo(run: Path, report: Progress) -> Answer:
    """Compress all-MiniLM-L6-v2 for the documentation of installed packages, to a third of its latency.

    The same command continues an interrupted demo.
    """
    from subarch.demo.demo import demonstrate

    say = partial(errors.print, markup=False, highlight=False, soft_wrap=True)
    found, comparison = demonstrate(run, report, say)
    answer = {"compressed": found.to_dict(), "comparison": comparison}
    return Answer(answer, partial(screen.show_demo, found, comparison), 0 if found.serving else INFEASIBLE)
