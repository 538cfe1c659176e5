"""All that one process needs to train a candidate: teacher, data, targets, and where candidates start from.

Opening a workbench is idempotent: what the run folder already holds (packed corpus, cached targets, the
teacher's anatomy) is opened, what is missing is computed and stored. So the coordinator opens it once, with
progress, and every worker opens it again within seconds.

    >>> bench = Workbench.open(config, run)
    >>> trial = bench.train(Architecture.parse("2-12-384-512"), Settings(100, 2e-3, 64))
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from subarch.errors import TrainingDiverged
from subarch.extraction.config import ExtractConfig
from subarch.extraction.elastic import Elastic, part
from subarch.extraction.estimate import Signal, estimate, segments_needed
from subarch.extraction.trial import Settings, Trial, weights_path
from subarch.learning.material import Material
from subarch.learning.signals import EmbeddingSignal, MaskedLMSignal, TaskSignal
from subarch.models.inherit import CALIBRATION, Anatomy, inherit
from subarch.models.student import Blueprint, Student, load_weights, save_weights
from subarch.numbers.architecture import Architecture
from subarch.numbers.space import SearchSpace
from subarch.run.progress import Report, silent
from subarch.tasks.scoring import Task


@dataclass
class Workbench:
    """See the module. `anatomy` is None where nothing is inherited."""

    config: ExtractConfig
    run: Path
    material: Material
    blueprint: Blueprint
    signal: Signal
    anatomy: Anatomy | None

    @classmethod
    def open(cls, config: ExtractConfig, run: Path, report: Report = silent) -> Workbench:
        """Load or compute everything.

        Raises:
            InvalidTeacher, InvalidCorpus: see `Teacher.load`, `corpus.build` and `Task.read`.
        """
        task = Task.read(config.task) if config.task is not None else None
        material = Material.load(config, run, report)
        max_length = material.recipe.max_length
        train, heldout = material.split(config, max_length - 2)
        train = train.shuffled()
        needed = max(segments_needed(config.steps, size) for size in config.batch_size)
        masked_lm = config.error in ("mlm", "logits")
        signal: Signal
        if masked_lm:
            source = (material.teacher, material.targets()) if config.error == "logits" else (None, None)
            signal = MaskedLMSignal(material.tokenizer, train, heldout, max_length, needed, report, *source)
        else:
            assert material.teacher is not None  # the configuration's own check
            signal = EmbeddingSignal(material.teacher, train, heldout, needed, material.targets(), report)
            if task is not None:
                signal = TaskSignal(signal, task)
        anatomy = None
        if config.initialise != "scratch":
            report("the teacher's anatomy", 0, 0)
            anatomy = material.anatomy(train[:CALIBRATION], lowest=config.initialise == "inherit-lowest")
        return cls(config, run, material, material.blueprint(masked_lm), signal, anatomy)

    @property
    def identity(self) -> dict[str, Any]:
        """Everything a trial's error depends on, besides the candidate and its settings."""
        teacher, corpus = self.material.teacher, self.material.corpus
        assert corpus is not None
        names = ("error", "max_length", "heldout", "initialise", "threads_per_worker")
        return {name: getattr(self.config, name) for name in names} | {
            "teacher": teacher.fingerprint if teacher is not None else None,
            "corpus": corpus.content_hash,
            "task": self.signal.task.fingerprint if isinstance(self.signal, TaskSignal) else None,
            "vocabulary_size": self.config.vocabulary_size if teacher is None else None,
        }

    def student(self, architecture: Architecture, seed: int = 0) -> Student:
        """An untrained candidate, inherited or from scratch as configured."""
        torch.manual_seed(seed)
        if self.anatomy is None:
            return Student(architecture, self.blueprint)
        assert self.material.teacher is not None
        return inherit(architecture, self.blueprint, self.material.teacher, self.anatomy)

    def train(self, architecture: Architecture, settings: Settings, weights: Path | None = None) -> Trial:
        """Train one candidate; a diverged one comes back as a failed trial. `weights` is where they are saved, if they
        are worth it: those of a cheap error (fewer steps, or a part of another candidate) are nobody's.

        Raises:
            InvalidStudy: its parent's weights are gone.
        """
        student, signal = self._start(architecture, settings), self.signal
        if settings.elastic and settings.parent is None:
            family = SearchSpace.load(self.config.space).parts(architecture)
            signal = Elastic(signal, architecture, family, self.blueprint, self.anatomy, settings.seed)
        threads = torch.get_num_threads()
        try:
            result = estimate(student, signal, settings)
        except TrainingDiverged as error:
            return Trial(architecture, settings, None, (), 0.0, threads, str(error))
        if weights is not None and settings.parent is None and settings.steps >= self.config.steps:
            save_weights(student, weights)
        return Trial(architecture, settings, result.error, result.curve, result.seconds, threads)

    def _start(self, architecture: Architecture, settings: Settings) -> Student:
        if settings.parent is None:
            return self.student(architecture, settings.seed)
        trained = replace(settings, steps=settings.parent_steps, parent=None, parent_steps=0)
        path = weights_path(self.run, settings.parent, trained)
        whole = load_weights(Student(settings.parent, self.blueprint), path).state_dict()
        student = Student(architecture, self.blueprint)
        student.load_state_dict(part(whole, architecture, settings.parent, self.anatomy))
        return student
