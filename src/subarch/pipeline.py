"""The stages in order: candidates, objectives, selection, hand-over, report. Each reads and writes the run folder.

>>> selection = extract(config, Path("runs/mine"))
>>> selection.winner.architecture
"""

from __future__ import annotations

import math
import os
import shlex
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from subarch.errors import InvalidConfig, InvalidStudy
from subarch.evaluation.benchmark import TaskScore, benchmarked, tasks_of
from subarch.evaluation.collection import Collection
from subarch.evaluation.evaluate import commands as evaluation_commands
from subarch.evaluation.evaluate import gathered
from subarch.evaluation.retrieval import search as search_in
from subarch.exporting.config import ExportConfig
from subarch.exporting.export import export as write_export
from subarch.exporting.runtimes import require
from subarch.exporting.searching import load as load_searcher
from subarch.extraction.conclude import conclude
from subarch.extraction.config import QUESTION, ExtractConfig
from subarch.extraction.latencies import check_runtime, confirm, measure_latencies
from subarch.extraction.layers import choose_layers
from subarch.extraction.loop import adopt, search
from subarch.extraction.loop import train as train_trials
from subarch.extraction.question import Question, best_trials, candidates, thetas
from subarch.extraction.study import Study, sqlite
from subarch.extraction.trial import Trial, weights_path
from subarch.extraction.workbench import (
    FREE,
    INPUTS,
    Workbench,
    blueprint_of,
    inputs_of,
    make_basis,
    recipe_of,
    resolved,
    space_of,
    warn_beyond,
    warn_unlimited,
)
from subarch.extraction.workers import Pool, RayWorkers, Workers
from subarch.finetuning.config import FinetuneConfig
from subarch.finetuning.finetune import finetune as fine_tune
from subarch.latency.bench import bench as time_models
from subarch.latency.config import BenchConfig
from subarch.learning.signals import EmbeddingSignal
from subarch.learning.vocabularies import VOCABULARIES
from subarch.models.student import Student, hand_over, load_weights
from subarch.models.teacher import Teacher
from subarch.numbers.architecture import Inputs
from subarch.numbers.space import SearchSpace
from subarch.pretraining.config import PretrainConfig
from subarch.pretraining.pretrain import train
from subarch.run import Report, silent
from subarch.run.configuration import dump, load
from subarch.run.folder import RunFolder, places
from subarch.run.inputs import claim
from subarch.run.machine import environment, usable_cores
from subarch.run.records import (
    Basis,
    Bench,
    Comparison,
    Conclusion,
    Environment,
    Latencies,
    Layers,
    Metrics,
    Parity,
    Pretraining,
    Retrieval,
    Selection,
    Space,
    StudyName,
)
from subarch.show.page import RunData, render
from subarch.show.search import Search
from subarch.tasks.inputs import write_inputs
from subarch.text.corpus import Corpus

SHORTEST = 8
"""Tokens that a text may be cut to for a search, as for a task."""


def extract(
    config: ExtractConfig, path: Path, *, resume: bool = False, remeasure: bool = False, report: Report = silent
) -> Selection:
    """Find the optimal architecture; everything is left in the run folder `path`, the selection is returned.

    Stopped at any instant, it goes on with `resume` where it was: finished trials, targets and latencies are kept.
    With `remeasure`, latencies are measured again, whatever the run or the cache of this machine holds.

    Raises:
        SubarchError: see `errors`; whatever was finished before is kept.
    """
    check_runtime(config)
    named = SearchSpace.load(config.space) if config.space != "auto" else None
    with RunFolder.create(path, config, resume) as run:
        if config.data is not None:
            write_inputs(str(config.task), config.data, path / INPUTS)
        config = resolved(config, path)
        remedy = "restore it to resume the run, or choose a new folder with --run"
        claim(run, inputs_of(config, named), begun=run.begun, free=FREE, name="extraction.inputs", remedy=remedy)
        run.write_text("config.yaml", dump(config))  # paths may be others now, of the same content
        run.write(environment())
        warn_unlimited(config)
        basis = make_basis(run, config, report)
        space = space_of(config, named, basis)
        run.write(Space.model_validate(space.to_dict()))
        report(space.sentence, 0, 0)
        warn_beyond(config, space, basis)
        space = candidates(config, space, basis)
        latencies = (
            measure_latencies(run, config, space, basis, report, remeasure) if config.cost == "latency" else None
        )
        study = _open_study(run, config, basis)
        adopt(study, run, config.reuse)
        with _workers(run, config) as workers:
            choose_layers(run, config, space, workers, report)
            if config.keep is not None and basis.reference_error is None:
                reference = _train_maximum_point(config, space, basis, study, workers)
                basis = basis.model_copy(update={"reference_error": reference})
                run.write(basis)
            question = Question.pose(config, space, basis, latencies)
            search(question, study, workers, report, _seconds_left(run, config, basis, latencies, workers))
            if config.strategy == "certified" and latencies is not None:
                # What was predicted and is measured now may need more to prove; known trials are not repeated
                while (found := _confirmed(run, question, basis, study.trials(), report)) != latencies:
                    latencies = found
                    question = Question.pose(config, space, basis, latencies)
                    search(question, study, workers, report, _seconds_left(run, config, basis, latencies, workers))
            return _finish(run, question, basis, latencies, study.trials(), report, workers)


def select(path: Path, changes: dict[str, Any], *, remeasure: bool = False, report: Report = silent) -> Selection:
    """Select again from a finished run, for another objective or limit, machine or runtime; nothing is trained.

    `changes` are configuration keys of `config.QUESTION` and `config.MEASUREMENT`; one of the former replaces all.

    Raises:
        SubarchError: see `errors`.
    """
    with RunFolder.open(path) as run:
        kept = run.config(ExtractConfig).model_dump(mode="json")
        if any(key in changes for key in QUESTION):
            kept = {key: value for key, value in kept.items() if key not in QUESTION}
        config = load(ExtractConfig, None, kept | changes)
        check_runtime(config)
        # The axes as they were, even where the file that named them is gone
        basis, axes = run.read(Basis), run.read(Space)
        space = SearchSpace.from_dict({name: list(axis) for name, axis in axes}, Path(config.space).stem)
        space = candidates(config, space, basis)
        latencies = (
            measure_latencies(run, config, space, basis, report, remeasure) if config.cost == "latency" else None
        )
        question = Question.pose(config, space, basis, latencies)
        return _finish(run, question, basis, latencies, _open_study(run, config, basis).trials(), report)


def pretrain(path: Path, config: PretrainConfig, restart: bool = False, report: Report = silent) -> Pretraining:
    """Train an architecture in full, in the run it was selected in or in a new folder; see `pretrain.train`.

    One process of several writes the report.

    Raises:
        SubarchError: see `errors`; checkpoints are kept.
    """
    result = train(path, config, restart, report)
    if int(os.environ.get("RANK", 0)) == 0:
        write_report(path)
    return result


def finetune(
    model: Path,
    config: FinetuneConfig,
    path: Path,
    restart: bool = False,
    report: Report = silent,
    say: Callable[[str], object] = lambda sentence: None,
    command: str = "",
) -> Metrics:
    """Fine-tune the encoder `model` for a task, in `path`/finetuned, and write the report; see `finetuning.finetune`.

    Raises:
        SubarchError: see `errors`; what was finished is kept.
    """
    result = fine_tune(model, config, path, restart, report, say=say, command=command)
    write_report(path)
    return result


def export(model: Path, config: ExportConfig, path: Path, report: Report = silent) -> Parity:
    """Write a model for another runtime, in `path`/exported; see `export.export`. The page of a run shows it.

    Raises:
        SubarchError: see `errors`; nothing that was not compared is left behind.
    """
    result = write_export(model, config, path, report)
    if (path / "report.html").is_file():
        write_report(path)
    return result


def _place_to_score(model: Path, max_length: int | None) -> Path:
    """The folder where the results of a model are left; see `retrieve` for what is refused."""
    if max_length is not None and max_length < SHORTEST:
        raise InvalidConfig(f"max_length = {max_length} leaves nothing of a text; give at least {SHORTEST} tokens")
    path = places(model, None)[1]
    above = next(folder for folder in (path, *path.absolute().parents) if folder.exists())
    if not os.access(above, os.W_OK):
        raise InvalidStudy(f"{above}: cannot be written in, and results go to {path}; work in another folder")
    return path


def benchmark(
    model: Path, names: Sequence[str], max_length: int | None = None, report: Report = silent
) -> list[TaskScore]:
    """Run tasks of MTEB with an embedding model; mteb's own files are left in its run folder, mteb/.

    Raises:
        InvalidStudy, InvalidConfig: see `retrieve`.
        SubarchError: see `evaluation.benchmark`.
    """
    path = _place_to_score(model, max_length)
    tasks = tasks_of(names)
    return benchmarked(load_searcher(model, max_length), tasks, path / "mteb", report)


def retrieve(
    model: Path,
    folder: Path,
    part: str,
    *,
    against: Path | None = None,
    documents: Path | None = None,
    retriever: Path | None = None,
    rerank: int | None = None,
    max_length: int | None = None,
    command: str = "",
    report: Report = silent,
) -> Retrieval:
    """Score a model on a collection in the layout of BEIR, and leave the record in its run folder, retrieval/.

    Models are what `exporting.searching.load` takes. An earlier record of the same model, collection and part is
    replaced. The page of a run shows it.

    Args:
        documents: the model that embeds the documents, if it is another.
        rerank: documents that a reranker gets from `retriever` for a query; None: 50.
        max_length: texts, or pairs, are cut to so many tokens; None: to what each model reads.

    Raises:
        InvalidStudy: the run folder cannot be written in, which is said before anything is read.
        InvalidConfig: fewer than 8 tokens.
        SubarchError: see `evaluation.retrieval.search` and `evaluation.collection`.
    """
    path, encoder = _place_to_score(model, max_length), places(model, None)[0]
    collection = Collection.read(folder, part)
    result = search_in(
        load_searcher(model, max_length),
        collection,
        against=load_searcher(against, max_length) if against else None,
        documents=load_searcher(documents, max_length) if documents else None,
        retriever=load_searcher(retriever, max_length) if retriever else None,
        rerank=rerank,
        command=command,
        report=report,
    )
    beside = f"-with-{documents.absolute().name}" if documents else ""
    RunFolder(path / "retrieval").write(result, f"{encoder.absolute().name}{beside}-{collection.name}-{part}")
    if (path / "report.html").is_file():
        write_report(path)
    return result


def bench(
    subjects: Sequence[str], config: BenchConfig, path: Path, command: str = "", report: Report = silent
) -> Bench:
    """Time models against each other; bench.json and bench.html are left in `path`.

    Raises:
        InvalidStudy: `path` cannot be written in, which is said before anything is timed.
        SubarchError: see `latency.bench.bench`; then a folder that was not there is not left behind.
    """
    is_new = not path.exists()
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidStudy(f"{path}: cannot be made: {error}; choose another with --run") from error
    if not os.access(path, os.W_OK):
        raise InvalidStudy(f"{path}: cannot be written in; choose another with --run")
    try:
        found = time_models(subjects, config, report).model_copy(update={"command": command})
    except BaseException:
        if is_new:
            path.rmdir()
        raise
    folder = RunFolder(path)
    folder.write(found)
    page = RunData(name=path.name, command=command, machine=found.machine, versions=found.versions, bench=found)
    folder.write_text("bench.html", render(page))
    return found


def write_report(path: Path, comparison: list[dict[str, Any]] | None = None) -> Path:
    """Write `report.html` from the artifacts of a run, with a final table of any columns where there is one.

    Raises:
        InvalidStudy: the folder holds neither a finished search nor a finished pretraining nor an evaluated model.
    """
    run = RunFolder(path)
    pretraining = run.read(Pretraining) if run.has(Pretraining) else None
    finetuned = gathered(sorted((path / "finetuned").glob("*")))
    commands, environment, search = [], None, None
    if run.has(Conclusion) or not (pretraining or finetuned):
        run = RunFolder.open(path)
        conclusion, environment = run.read(Conclusion), run.read(Environment)
        config = run.config(ExtractConfig).model_dump(mode="json")
        selection = run.read(Selection)
        search = Search(
            selection=selection,
            trials=conclusion.trials,
            order=conclusion.order,
            config=config,
            layers=run.read(Layers) if run.has(Layers) else None,
        )
        commands.append(["subarch", "extract", "--config", f"{path}/config.yaml", "--run", f"{path}-again"])
    if pretraining is not None:
        commands.append(["subarch", "pretrain", f"{path}-again", "--config", f"{path}/pretrain.yaml"])
    if comparison is not None:
        run.write(Comparison(value=comparison))
    made_on = environment or pretraining or finetuned[0].evaluations[-1]
    assert made_on.machine is not None
    data = RunData(
        name=path.name,
        command="\n".join([*map(shlex.join, commands), *evaluation_commands(finetuned)]),
        machine=made_on.machine,
        versions=made_on.versions or {},
        git=environment.git if environment else None,
        search=search,
        pretraining=pretraining,
        finetuning=finetuned,
        exports=[
            Parity.model_validate_json(file.read_text("utf-8")) for file in sorted(path.glob("exported/**/parity.json"))
        ],
        retrievals=[
            Retrieval.model_validate_json(file.read_text("utf-8")) for file in sorted(path.glob("retrieval/*.json"))
        ],
        bench=run.read(Bench) if run.has(Bench) else None,
        comparison=run.read(Comparison).value if run.has(Comparison) else None,
    )
    run.write_text("report.html", render(data))
    return path / "report.html"


def _workers(run: RunFolder, config: ExtractConfig) -> Pool:
    if config.ray is not None:
        require("ray")
        return RayWorkers(config, run.path, config.ray)
    return Workers(config, run.path, config.workers or max(1, usable_cores() // config.threads_per_worker))


def _open_study(run: RunFolder, config: ExtractConfig, basis: Basis) -> Study:
    # The path tells runs apart that share one database. It is written down, since a folder may be moved.
    if not run.has(StudyName):
        run.write(StudyName(value=str(run.path.resolve())))
    return Study.open(config.database or sqlite(run.path / "study.db"), run.read(StudyName).value, basis.identity)


def _seconds_left(
    run: RunFolder, config: ExtractConfig, basis: Basis, latencies: Latencies | None, workers: Pool
) -> float:
    """What the time limit of a search leaves for training, by the records: an interruption does not count."""
    if config.minutes is None:
        return math.inf
    spent = basis.seconds + (latencies.seconds if latencies is not None else 0)
    spent += run.read(Layers).seconds / workers.count if run.has(Layers) else 0
    return 60 * config.minutes - spent


def _train_maximum_point(config: ExtractConfig, space: SearchSpace, basis: Basis, study: Study, workers: Pool) -> float:
    """e(T): what a share of the quality is taken of, where there is no teacher to measure it on."""
    length = config.latency_length
    costs = space.costs(Inputs(**basis.inputs.model_dump()), length, basis.longer(length))
    trials = train_trials([(costs.maximum_point, setting) for setting in thetas(config)], study, workers)
    errors = [trial.error for trial in trials if trial.error is not None]
    if not errors:
        raise InvalidStudy(f"the maximum point {costs.maximum_point} failed to train, so `keep` has no reference")
    return min(errors)


def _confirmed(run: RunFolder, question: Question, basis: Basis, trials: Sequence[Trial], report: Report) -> Latencies:
    """The latencies, those of trained candidates and others that decide measured and no longer predicted."""
    best = question.rows(best_trials(trials, thetas(question.config))).values()
    errors = {str(trial.architecture): trial.error for trial in best if trial.error is not None}
    return confirm(run, question, basis, errors, report)


def _finish(
    run: RunFolder,
    question: Question,
    basis: Basis,
    latencies: Latencies | None,
    trials: Sequence[Trial],
    report: Report,
    workers: Pool | None = None,
) -> Selection:
    """Write the selection, the chosen model and the report. With workers, weights that are gone are trained again."""
    if latencies is not None:
        latencies = _confirmed(run, question, basis, trials, report)
        question = question.with_latencies(basis, latencies)
    layers = run.read(Layers) if run.has(Layers) else None
    selection, order = conclude(question, basis, latencies, trials, layers)
    run.write(selection)
    run.write(Conclusion(trials=tuple(trial.row() for trial in trials), order=order))
    if selection.winner is not None:
        trial = next(t for t in trials if t.number == selection.winner.trial)
        if workers is not None and not weights_path(run.path, trial.architecture, trial.settings).is_file():
            workers.submit(*trial.key)
            list(workers.next())  # the study has this trial already, bit for bit
        student = _trained(run, basis, trial)
        vocabulary = trial.architecture.vocabulary
        place = run.path / VOCABULARIES / str(vocabulary) if vocabulary else run.path / "tokenizer"
        tokenizer = AutoTokenizer.from_pretrained(place)
        hand_over(student, tokenizer, recipe_of(basis), run.path / "selected")
        if (languages := Corpus.load(run.path / "corpus").meta.languages) is not None:
            signal = Workbench.open(run.config(ExtractConfig), run.path, report).keeping(vocabulary).signal
            if isinstance(signal, EmbeddingSignal):
                by_language = signal.error_by_language(student, list(languages))
                selection = selection.model_copy(update={"languages": by_language})
                run.write(selection)
    else:
        shutil.rmtree(run.path / "selected", ignore_errors=True)  # nobody's any more
    write_report(run.path)
    return selection


def _trained(run: RunFolder, basis: Basis, trial: Trial) -> Student:
    def start() -> Teacher:
        config = run.config(ExtractConfig)
        named = config.start_from or config.teacher
        assert named is not None
        return Teacher.load(named)

    student = Student(trial.architecture, blueprint_of(basis, trial.architecture.vocabulary))
    return load_weights(student, weights_path(run.path, trial.architecture, trial.settings), start).eval()
