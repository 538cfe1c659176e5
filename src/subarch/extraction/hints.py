"""Cheap errors of all affordable candidates, before the search proper: they say what to train, and bound nothing.

    rungs       successive halving: an eighth of the steps for all, a quarter for the better half, half for the better
                half of these. Those left behind are put on the scale of the last rung by the median ratio.
    warm        of each hidden size the largest candidate is trained in full (an ordinary trial, which counts as one);
                all others of that size begin as parts of it, and are trained for an eighth of the steps
    supernet    of each hidden size the largest is trained in full together with its parts (`elastic.py`); all others
                have the error that they have as parts of it, without any training of their own

How well each orders candidates, and what it costs, is in docs/estimate.md. Every training is a trial of the study like
any other, so it is known when the search is resumed. Only the first θ of Θ is used. Encoders without layers get none,
nor do those of other numbers of heads than the nearest (`--heads all`).

    >>> question = question.hinted(hints(question, study, workers, run, report))
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from subarch.extraction.loop import train
from subarch.extraction.question import Question, thetas
from subarch.extraction.study import Study
from subarch.extraction.trial import Settings, weights_path
from subarch.extraction.workers import Pool
from subarch.numbers.architecture import Architecture
from subarch.run.progress import Report, silent

RUNGS = (1 / 8, 1 / 4, 1 / 2)
"""Shares of the steps s."""
WARM = 1 / 8


def hints(question: Question, study: Study, workers: Pool, run: Path, report: Report = silent) -> dict[int, float]:
    """The configured cheap error by row; those that failed have none.

    Raises:
        SubarchError: what a training raises that is nobody's trial; see `workers.Pool`.
    """
    kind, costs = question.config.hints, question.costs
    nearest = question.problem.nearest
    hinted = question.affordable & (costs.table[:, 0] > 0) & (True if nearest is None else nearest)
    rows: list[int] = np.flatnonzero(hinted).tolist()
    if kind == "none" or not rows:
        return {}
    full = thetas(question.config)[0]
    if kind == "rungs":
        return _halving(question, rows, full, study, workers, report)
    whole = replace(full, elastic=kind == "supernet")
    own = replace(whole, steps=0 if whole.elastic else math.ceil(WARM * full.steps))
    largest = {row: _largest(question, row) for row in rows}
    there = _trained(dict.fromkeys(largest.values()), whole, study, workers, run, report)
    settings = {
        row: replace(own, parent=parent, parent_steps=full.steps) for row, parent in largest.items() if parent in there
    }
    return _errors(question, settings, study, workers, report)


def _halving(
    question: Question, rows: Sequence[int], full: Settings, study: Study, workers: Pool, report: Report
) -> dict[int, float]:
    found: dict[int, float] = {}
    for share in RUNGS:
        setting = replace(full, steps=math.ceil(share * full.steps))
        errors = _errors(question, dict.fromkeys(rows, setting), study, workers, report)
        ratios = [error / found[row] for row, error in errors.items() if row in found]
        falling = float(np.median(ratios)) if ratios else 1.0
        found = {row: error * falling for row, error in found.items()} | errors
        known = np.array(list(errors), dtype=np.int64)
        value = question.objective.value(
            question.costs.parameters[known], question.cost[known], np.array(list(errors.values()))
        )
        rows = known[np.argsort(value, kind="stable")[: math.ceil(len(known) / 2)]].tolist()
    return found


def _largest(question: Question, row: int) -> Architecture:
    """The largest shape of the space with a candidate's hidden size and heads, affordable or not."""
    _, heads, hidden, _ = question.costs.table[row].tolist()
    return Architecture(max(question.space.depth), heads, hidden, max(question.space.intermediate))


def _trained(
    parents: Iterable[Architecture], whole: Settings, study: Study, workers: Pool, run: Path, report: Report
) -> set[Architecture]:
    """Train them, and see that their weights are there; those that did not fail."""
    trials = train([(parent, whole) for parent in parents], study, workers, report, "training the largest candidates")
    done = {trial.architecture for trial in trials if trial.error is not None}
    for parent in done:
        if not weights_path(run, parent, whole).is_file():
            workers.submit(parent, whole)
            list(workers.next())  # the study has this trial already, bit for bit
    return done


def _errors(
    question: Question, settings: dict[int, Settings], study: Study, workers: Pool, report: Report
) -> dict[int, float]:
    jobs = [(question.costs.architecture(row), setting) for row, setting in settings.items()]
    trials = train(jobs, study, workers, report, "cheap errors")
    return {row: trial.error for row, trial in zip(settings, trials, strict=True) if trial.error is not None}
