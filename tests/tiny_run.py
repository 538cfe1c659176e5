"""Whole runs in a second: a tiny space, and a stand-in for the worker processes that trains in this one.

Starting a process that imports torch takes longer than all the training of a tiny run. Tests that are not about
processes therefore replace `Workers` by `OneProcess`; `test_pipeline` shows that both give the same errors, bit for
bit.

    >>> monkeypatch.setattr("subarch.pipeline.Workers", OneProcess)
    >>> selection = extract(tiny_config(tmp_path), tmp_path / "run")
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from subarch.extraction.config import ExtractConfig
from subarch.extraction.loop import train
from subarch.extraction.question import thetas
from subarch.extraction.study import Study, sqlite
from subarch.extraction.trial import Settings, Trial, weights_path
from subarch.extraction.workbench import Workbench, blueprint_of
from subarch.models.student import Student, load_weights
from subarch.numbers.architecture import Architecture
from subarch.pipeline import extract
from subarch.run.configuration import load
from subarch.run.folder import RunFolder
from subarch.run.records import Basis, Conclusion, Selection, StudyName
from tiny import tiny_corpus, tiny_teacher

AXES = {"depth": [0, 1, 2, 3], "heads": [4], "hidden": [16, 32], "intermediate": [16, 64]}
"""14 candidates, from static embeddings to the tiny teacher's own shape."""

QUICK: dict[str, Any] = {
    "steps": 6,
    "learning_rate": [2e-3],
    "batch_size": [16],
    "max_length": 16,
    "latency_length": 8,
    "latency_threads": 1,
    "strategy": "fptas",
    "epsilon": 3,
    "cost": "operations",
}


class OneProcess:
    """Has the methods of `Workers`; trains one candidate at a time, in this process, when it is waited for."""

    submitted = 0
    """Trainings asked of any instance so far, but for trials of layers."""

    def __init__(self, config: ExtractConfig, run: Path, count: int) -> None:
        self.config, self.run, self.count = config, run, 1
        self._waiting: list[tuple[Architecture, Settings]] = []
        self._bench: Workbench | None = None

    def __enter__(self) -> OneProcess:
        self._deterministic = torch.are_deterministic_algorithms_enabled()
        torch.use_deterministic_algorithms(True)
        return self

    def __exit__(self, *exception: object) -> None:
        torch.use_deterministic_algorithms(self._deterministic)

    @property
    def free(self) -> int:
        return self.count - len(self._waiting)

    def submit(self, architecture: Architecture, settings: Settings) -> None:
        OneProcess.submitted += settings.layers is None
        self._waiting.append((architecture, settings))

    def next(self) -> Iterator[Trial]:
        torch.set_num_threads(self.config.threads_per_worker)
        self._bench = self._bench or Workbench.open(self.config, self.run)
        while self._waiting:
            job = self._waiting.pop(0)
            yield self._bench.train(*job, weights_path(self.run, *job))


def tiny_options(folder: Path, **changes: Any) -> dict[str, Any]:
    """Options of a run over `AXES`, with a teacher, a corpus and a space file made in `folder`; None leaves one out."""
    made = {"teacher": folder / "teacher", "corpus": folder / "corpus.txt", "space": folder / "space.yaml"}
    if not made["teacher"].is_dir():
        tiny_teacher(made["teacher"])
    if not made["corpus"].is_file():
        tiny_corpus(made["corpus"])
    if not made["space"].is_file():
        made["space"].write_text(yaml.safe_dump(AXES), encoding="utf-8")
    options = {"teacher": str(made["teacher"]), "corpus": [str(made["corpus"])], "space": str(made["space"])}
    return {key: value for key, value in (options | QUICK | changes).items() if value is not None}


def tiny_config(folder: Path, **changes: Any) -> ExtractConfig:
    """The configuration of `tiny_options`."""
    return load(ExtractConfig, None, tiny_options(folder, **changes))


def searched(run: Path, **changes: Any) -> Path:
    """The folder of a finished search of `tiny_config`, trained in this process; what it read lies beside it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subarch.pipeline.Workers", OneProcess)
        extract(tiny_config(run.parent, **changes), run)
    return run


def train_also(path: Path, architectures: Sequence[Architecture]) -> list[Trial]:
    """Train other shapes into the study of a finished run, as its candidates were."""
    run = RunFolder.open(path)
    config = run.config(ExtractConfig)
    study = Study.open(sqlite(path / "study.db"), run.read(StudyName).value, run.read(Basis).identity)
    setting = thetas(config)[0]
    with OneProcess(config, path, 1) as workers:
        return train([(architecture, setting) for architecture in architectures], study, workers)


def load_winner(path: Path) -> Student:
    """What a run selected, with the weights of its trial."""
    run = RunFolder.open(path)
    basis, winner = run.read(Basis), run.read(Selection).winner
    assert winner is not None
    trial = Trial.of(next(row for row in run.read(Conclusion).trials if row.number == winner.trial))
    student = Student(trial.architecture, blueprint_of(basis, trial.architecture.vocabulary))
    return load_weights(student, weights_path(path, trial.architecture, trial.settings)).eval()
