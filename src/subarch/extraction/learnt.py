"""What earlier studies tell of a new one: how errors fell with size, as a prior of the law that a search proposes by.

Corpus, teacher, machine and number of steps may be others: each study's level is its own, and only how its error falls
along the axes is taken over. That decides in which order candidates are trained. No bound rests on it.

    >>> strategy.learn([observed(Path("runs/earlier"), question.costs.table, "embedding")])
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from subarch.errors import InvalidStudy
from subarch.extraction.config import ExtractConfig
from subarch.extraction.question import best_trials, thetas
from subarch.extraction.study import Study, sqlite
from subarch.numbers.space import sizes_of
from subarch.run.folder import RunFolder
from subarch.run.records import Basis, StudyName
from subarch.search.bounds import Observed

SIZES = ("depth", "hidden", "intermediate", "vocabulary")


def observed(path: Path, table: NDArray[np.int64], error: str) -> Observed:
    """Sizes and errors of the candidates with layers that a run has trained, for a space with this (N, 4 or 5) table.

    Raises:
        InvalidStudy: no run, errors of another kind, a space that varies other sizes, nothing trained, or an error
            that is not a positive number, at the end or on a curve; each names the run.
    """
    run = RunFolder.open(path)
    config, basis = run.config(ExtractConfig), run.read(Basis)
    if (theirs := basis.identity["error"]) != error:
        raise InvalidStudy(f"{path}: its errors are of kind {theirs!r}, here they are {error!r}; leave it out")
    study = Study.open(config.database or sqlite(path / "study.db"), run.read(StudyName).value, basis.identity)
    trials = [trial for trial in best_trials(study.trials(), thetas(config)).values() if trial.architecture.depth]
    for trial in trials:
        assert trial.error is not None
        for point in trial.curve:
            if not math.isfinite(point.error):
                where = f"trial {trial.number} of {trial.architecture}"
                raise InvalidStudy(
                    f"{path}: {where} has the error {point.error} after {point.step} steps; leave it out"
                )
        if trial.error <= 0:
            raise InvalidStudy(f"{path}: an error of {trial.error} tells nothing of a law; leave it out")
    if not trials:
        raise InvalidStudy(f"{path}: no candidate with layers was trained there, so there is nothing to learn")
    shapes = [trial.architecture for trial in trials]
    rows = np.array([[a.depth, a.heads, a.hidden, a.intermediate, a.vocabulary] for a in shapes], dtype=np.int64)
    rows = rows[:, : 5 if rows[:, 4].any() else 4]
    if (varied := _varied(rows)) != (here := _varied(table[table[:, 0] > 0])):
        raise InvalidStudy(
            f"{path}: its candidates differ in {_words(varied)}, those of this space in {_words(here)}, so its law is "
            "of another space; leave it out"
        )
    return rows, np.array([trial.error for trial in trials], dtype=np.float64)


def _varied(table: NDArray[np.int64]) -> list[str]:
    """The sizes that have more than one value."""
    columns = zip(SIZES, sizes_of(table).T, strict=False)
    return [name for name, column in columns if len(np.unique(column)) > 1]


def _words(names: list[str]) -> str:
    return ", ".join(names) or "nothing"
