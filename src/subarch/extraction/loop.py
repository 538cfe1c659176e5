"""The search loop: what a strategy asks for is trained by workers, written down, and told.

Each trial is in the study before the strategy hears of it, so a kill loses the running trials only, and nothing is
trained twice.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

from subarch.extraction.config import ExtractConfig
from subarch.extraction.layers import take_over
from subarch.extraction.learnt import observed
from subarch.extraction.question import Question, noise_of, settled, thetas
from subarch.extraction.study import Study, sqlite
from subarch.extraction.trial import Settings, Trial, weights_path
from subarch.extraction.workers import Pool
from subarch.numbers.architecture import Architecture
from subarch.run import Report, silent
from subarch.run.folder import RunFolder
from subarch.run.records import Layers, StudyName
from subarch.search import Certified


def train(
    jobs: Sequence[tuple[Architecture, Settings]],
    study: Study,
    workers: Pool,
    report: Report = silent,
    doing: str = "training with another seed",
    seconds: float = math.inf,
) -> list[Trial]:
    """The trials of these jobs, in their order; those that are known are not repeated.

    Args:
        seconds: see `search`; jobs that are too late are left out.
    """
    known = {trial.key: trial for trial in study.trials()}
    left, running = [job for job in jobs if job not in known], 0
    while left or running:
        if is_late(known.values(), seconds, workers):
            left.clear()
        while left and workers.free > 0:
            workers.submit(*left.pop(0))
            running += 1
        for trial in workers.next() if running else ():
            study.record(trial)
            known[trial.key] = trial
            running -= 1
            report(doing, sum(job in known for job in jobs), len(jobs))
    return [known[job] for job in jobs if job in known]


def is_late(trials: Collection[Trial], seconds: float, workers: Pool) -> bool:
    """Whether these trainings took so long that no further one begins; one that succeeded there has to be."""
    has_one = any(trial.error is not None for trial in trials)
    return has_one and sum(trial.seconds for trial in trials) / workers.count >= seconds


def adopt(study: Study, run: RunFolder, others: Sequence[Path]) -> None:
    """Take over the finished trials of other runs, with their weights and layers, as if they had been trained here.

    Raises:
        InvalidStudy: another is no run, or its errors do not compare: other corpus, teacher, estimate, or layers.
    """
    known = {trial.key for trial in study.trials()}
    for path in others:
        other = RunFolder.open(path)
        storage = other.config(ExtractConfig).database or sqlite(path / "study.db")
        theirs = Study.open(storage, other.read(StudyName).value, study.identity)
        inherits = run.has(Layers)
        if inherits:
            take_over(run, other)
        for trial in theirs.trials():
            weights = weights_path(path, trial.architecture, trial.settings)
            if trial.key in known or trial.error is None:
                continue
            if inherits and not other.read(Layers).is_settled(trial.architecture.depth):
                continue  # of a depth that it had not chosen the layers of
            if weights.is_file():
                ours = weights_path(run.path, trial.architecture, trial.settings)
                ours.parent.mkdir(exist_ok=True)
                shutil.copyfile(weights, ours)
            study.record(trial)
            known.add(trial.key)


def search(question: Question, study: Study, workers: Pool, report: Report, seconds: float = math.inf) -> None:
    """Train what the strategy asks for, over all of Θ, and tell it the least error.

    A certified search then trains the candidates that noise decides on with another seed, and goes on if that leaves
    something open. Where it looked at one number of heads for each shape, all those of the best shape are trained then.

    Args:
        seconds: no training begins once all in the study have taken so long, shared by the workers. What is left open
            by that is not certified.
    """
    searched, settings = question.searched, thetas(question.config)
    strategy = searched.strategy
    if isinstance(strategy, Certified):
        table, paths = searched.costs.table, question.config.learn_from
        strategy.learn([observed(path, table, question.config.measures) for path in paths])
        _prepare(strategy, searched, study, workers, report, seconds)
    _train_what_is_asked_for(searched, study, workers, report, seconds)
    if isinstance(strategy, Certified) and _know_noise(strategy, searched, study, workers, report, seconds):
        _train_what_is_asked_for(searched, study, workers, report, seconds)
    if searched is not question and isinstance(searched.strategy, Certified):
        best = searched.strategy.evidence().incumbent
        rows = [] if best is None else question.head_counts(searched.costs.architecture(best))
        shapes = [question.costs.architecture(row) for row in rows if question.affordable[row]]
        jobs = [(shape, setting) for shape in shapes for setting in settings]
        train(jobs, study, workers, report, "training other numbers of heads", seconds)


def _train_what_is_asked_for(question: Question, study: Study, workers: Pool, report: Report, seconds: float) -> None:
    strategy, costs, settings = question.strategy, question.costs, thetas(question.config)
    trials = study.trials()
    known = {trial.key: trial for trial in trials}
    asked: dict[Architecture, int] = {}
    results: dict[int, list[Trial]] = {}

    def settle(trial: Trial) -> None:
        row = asked[trial.architecture]
        results.setdefault(row, []).append(trial)
        if len(results[row]) == len(settings):
            errors = [t.error for t in results[row] if t.error is not None and question.comparable(t.error)]
            strategy.tell(row, min(errors)) if errors else strategy.fail(row)
        report(f"training candidates, last {trial.architecture}", *strategy.progress)

    report("training candidates", *strategy.progress)
    while not strategy.done:
        late = is_late(trials, seconds, workers)
        while not late and workers.free > 0 and (row := strategy.ask()) is not None:
            asked[costs.architecture(row)] = row
            for setting in settings:
                key = (costs.architecture(row), setting)
                if key in known:
                    settle(known[key])
                else:
                    workers.submit(*key)
        if not strategy.done and workers.free < workers.count:
            for trial in workers.next():
                study.record(trial)
                trials.append(trial)
                settle(trial)
        elif late:
            return


def _prepare(
    strategy: Certified, question: Question, study: Study, workers: Pool, report: Report, seconds: float
) -> None:
    """Train its first candidates at the same time, and let it know these and all that was trained before."""
    settings = thetas(question.config)
    first = [question.costs.architecture(row) for row in strategy.first]
    jobs = [(architecture, setting) for architecture in first for setting in settings]
    train(jobs, study, workers, report, "training the first candidates", seconds)
    for row, error in settled(question, study.trials()).items():
        if error is not None:
            strategy.recall(row, error)


def _know_noise(
    strategy: Certified, question: Question, study: Study, workers: Pool, report: Report, seconds: float
) -> bool:
    """Train what noise decides on with the next seed too, and let the strategy know; False: that was not finished."""
    if not strategy.done:
        return False
    settings, wanted = thetas(question.config), question.config.repeats
    repeated = {trial.architecture for trial in study.trials() if trial.settings.seed != settings[0].seed}
    missing = max(0, wanted - len(repeated))
    near = [question.costs.architecture(row) for row in strategy.nearest(wanted)]
    again = [replace(setting, seed=setting.seed + 1) for setting in settings]
    left = [architecture for architecture in near if architecture not in repeated][:missing]
    jobs = [(architecture, setting) for architecture in left for setting in again]
    if len(train(jobs, study, workers, report, seconds=seconds)) < len(jobs):
        return False
    strategy.noise = noise_of(study.trials(), settings)
    return True
