"""All that one process needs to train a candidate: teacher, data, targets, and where candidates start from.

Opening a workbench is idempotent: what the run folder already holds (packed corpus, cached targets, the
teacher's anatomy) is opened, what is missing is computed and stored. So the coordinator opens it once, with
progress, and every worker opens it again within seconds.

    >>> bench = Workbench.open(config, run)
    >>> trial = bench.train(Architecture.parse("2-12-384-512"), Settings(100, 2e-3, 64))
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from subarch.errors import InvalidCorpus, TrainingDiverged
from subarch.extraction.config import ExtractConfig
from subarch.extraction.estimate import Signal, estimate, segments_needed
from subarch.extraction.trial import Settings, Trial
from subarch.learning.signals import EmbeddingSignal, MaskedLMSignal, TaskSignal
from subarch.learning.targets import TargetCache
from subarch.models.inherit import CALIBRATION, Anatomy, inherit
from subarch.models.sentence import Recipe
from subarch.models.student import Blueprint, Student, save_weights
from subarch.models.teacher import Teacher
from subarch.numbers.architecture import Architecture, Inputs
from subarch.run.folder import RunFolder
from subarch.run.progress import Report, silent
from subarch.run.records import Basis, EmbeddingRecipe, EncoderBlueprint, EncoderInputs
from subarch.run.records import Teacher as TeacherFigures
from subarch.tasks.scoring import Task
from subarch.text.corpus import Corpus, build, own_tokenizer


@dataclass
class Workbench:
    """See the module. `teacher` is None for masked-LM from scratch, `anatomy` where nothing is inherited."""

    config: ExtractConfig
    run: Path
    teacher: Teacher | None
    tokenizer: Any
    corpus: Corpus
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
        teacher = Teacher.load(config.teacher) if config.teacher is not None else None
        tokenizer = (
            teacher.tokenizer
            if teacher is not None
            else own_tokenizer(config.corpus, config.text_column, config.vocabulary_size, run / "tokenizer")
        )
        corpus = build(
            config.corpus,
            tokenizer,
            run / "corpus",
            text_column=config.text_column,
            progress=lambda done, unit: report(f"reading the corpus ({unit})", done, 0),
        )
        max_length = min(config.max_length, teacher.recipe.max_length) if teacher is not None else config.max_length
        train = corpus.segments("train", max_length - 2).shuffled()
        heldout = corpus.segments("heldout", max_length - 2).shuffled()[: config.heldout]
        if len(heldout) < 2:
            raise InvalidCorpus(f"{config.corpus}: {len(heldout)} held-out sequences; give more text")
        needed = max(segments_needed(config.steps, size) for size in config.batch_size)
        text = f"{corpus.content_hash} {max_length}"
        cache = None if teacher is None else TargetCache(run / "targets", teacher.fingerprint, text)
        masked_lm = config.error in ("mlm", "logits")
        signal: Signal
        if masked_lm:
            source = (teacher, cache) if config.error == "logits" else (None, None)
            signal = MaskedLMSignal(tokenizer, train, heldout, max_length, needed, report, *source)
        else:
            assert teacher is not None  # the configuration's own check
            assert cache is not None
            signal = EmbeddingSignal(teacher, train, heldout, needed, cache, report)
            if task is not None:
                signal = TaskSignal(signal, task)
        if teacher is not None:
            blueprint = Blueprint.of_teacher(teacher, masked_lm)
        else:
            blueprint = Blueprint.of_tokenizer(tokenizer)
        anatomy = None
        if config.initialise != "scratch":
            assert teacher is not None
            report("the teacher's anatomy", 0, 0)
            of = hashlib.sha256(f"{text} {teacher.fingerprint}".encode()).hexdigest()[:16]
            anatomy = Anatomy.cached(run / f"anatomy-{of}.safetensors", teacher, train[:CALIBRATION])
            anatomy = anatomy.lowest() if config.initialise == "inherit-lowest" else anatomy
        return cls(config, run, teacher, tokenizer, corpus, blueprint, signal, anatomy)

    def basis(self) -> Basis:
        """What all candidates share and are measured against; `seconds` is 0."""
        teacher, inputs = None, self.blueprint.inputs
        reference = 0.0 if self.config.error == "embedding" else None
        if self.teacher is not None:
            shape = self.teacher.architecture
            teacher = TeacherFigures(
                name=f"{self.teacher.folder.resolve().name} ({shape})",
                architecture=str(shape),
                parameters=shape.parameters(inputs).total,
                operations=shape.operations(inputs, self.config.latency_length),
            )
            if isinstance(self.signal, TaskSignal):
                reference = 1 - self.signal.score(self.teacher.model)
        recipe = self.teacher.recipe if self.teacher is not None else Recipe(max_length=self.config.max_length)
        return Basis(
            inputs=EncoderInputs(**asdict(inputs)),
            blueprint=EncoderBlueprint(**asdict(self.blueprint)),
            recipe=EmbeddingRecipe(**asdict(recipe)),
            teacher=teacher,
            reference_error=reference,
            identity=self.identity,
            seconds=0.0,
        )

    @property
    def identity(self) -> dict[str, Any]:
        """Everything a trial's error depends on, besides the candidate and its settings."""
        names = ("error", "max_length", "heldout", "initialise", "threads_per_worker")
        return {name: getattr(self.config, name) for name in names} | {
            "teacher": self.teacher.fingerprint if self.teacher is not None else None,
            "corpus": self.corpus.content_hash,
            "task": self.signal.task.fingerprint if isinstance(self.signal, TaskSignal) else None,
            "vocabulary_size": self.config.vocabulary_size if self.teacher is None else None,
        }

    def student(self, architecture: Architecture, seed: int = 0) -> Student:
        """An untrained candidate, inherited or from scratch as configured."""
        torch.manual_seed(seed)
        if self.anatomy is None:
            return Student(architecture, self.blueprint)
        assert self.teacher is not None
        return inherit(architecture, self.blueprint, self.teacher, self.anatomy)

    def train(self, architecture: Architecture, settings: Settings, weights: Path | None = None) -> Trial:
        """Train one candidate and save it as `weights`; a diverged one comes back as a failed trial."""
        student, threads = self.student(architecture, settings.seed), torch.get_num_threads()
        try:
            result = estimate(student, self.signal, settings)
        except TrainingDiverged as error:
            return Trial(architecture, settings, None, (), 0.0, threads, str(error))
        if weights is not None:
            save_weights(student, weights)
        return Trial(architecture, settings, result.error, result.curve, result.seconds, threads)


def make_basis(run: RunFolder, config: ExtractConfig, report: Report) -> Basis:
    """Corpus, targets and anatomy of a run, made where they are missing, and what all its candidates share."""
    start = time.perf_counter()
    bench = Workbench.open(config, run.path, report)
    if run.has(Basis):
        return run.read(Basis).model_copy(update={"identity": bench.identity})
    if bench.teacher is not None:  # without one it is there already
        bench.tokenizer.save_pretrained(run.path / "tokenizer")
    basis = bench.basis()
    basis = basis.model_copy(update={"seconds": time.perf_counter() - start})
    run.write(basis)
    return basis


def blueprint_of(basis: Basis) -> Blueprint:
    """What candidates of a run are built from."""
    return Blueprint(**basis.blueprint.model_dump() | {"inputs": Inputs(**basis.inputs.model_dump())})


def recipe_of(basis: Basis) -> Recipe:
    """How candidates of a run turn text into an embedding."""
    return Recipe(**basis.recipe.model_dump())
