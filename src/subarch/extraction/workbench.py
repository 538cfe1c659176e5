"""All that one process needs to train a candidate: teacher, data, targets, and where candidates start from.

What the run folder already holds (packed corpus, cached targets, the teacher's anatomy) is opened, what is missing is
computed and stored: the coordinator opens it once, and every worker again within seconds.

    >>> bench = Workbench.open(config, run)
    >>> trial = bench.train(Architecture.parse("2-12-384-512"), Settings(100, 2e-3, 64))
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from subarch.errors import InvalidTask, TrainingDiverged
from subarch.extraction.config import ExtractConfig
from subarch.extraction.estimate import CURVE, Signal, estimate, segments_needed
from subarch.extraction.trial import Settings, Trial
from subarch.learning.material import Material
from subarch.learning.signals import EmbeddingSignal, MaskedLMSignal, TaskSignal
from subarch.models.inherit import CALIBRATION, Anatomy, inherit
from subarch.models.sentence import Recipe
from subarch.models.student import Blueprint, Student, save_weights
from subarch.models.teacher import content_of as teacher_content
from subarch.numbers.architecture import Architecture, Inputs
from subarch.numbers.space import SearchSpace
from subarch.run import Report, silent
from subarch.run.folder import RunFolder
from subarch.run.inputs import StageInputs, of_file, of_values
from subarch.run.records import Basis, EmbeddingRecipe, EncoderBlueprint, EncoderInputs, Layers
from subarch.run.records import Teacher as TeacherFigures
from subarch.tasks.scoring import Task
from subarch.text.corpus import content_of as corpus_content

FREE = {"workers", "ray", "trial_minutes", "reuse", "space", "corpus", "teacher", "task"}
"""Configuration keys that may differ when a run is resumed: they decide its speed only, or name what is hashed."""


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
        """Load or compute everything; raises what `Teacher.load`, `corpus.build` and `Task.read` raise."""
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
            anatomy = material.anatomy(train[:CALIBRATION])
        return cls(config, run, material, material.blueprint(masked_lm), signal, anatomy)

    def basis(self) -> Basis:
        """What all candidates share and are measured against; `seconds` is 0."""
        config, inputs, teacher = self.config, self.blueprint.inputs, self.material.teacher
        reference, figures = 0.0 if config.error == "embedding" else None, None
        if teacher is not None:
            shape = teacher.architecture
            figures = TeacherFigures(
                name=f"{teacher.folder.resolve().name} ({shape})",
                architecture=str(shape),
                parameters=shape.parameters(inputs).total,
                operations=shape.operations(inputs, config.latency_length),
            )
            if isinstance(self.signal, TaskSignal):
                reference = 1 - self.signal.score(teacher.model)
        recipe = teacher.recipe if teacher is not None else Recipe(max_length=config.max_length)
        return Basis(
            inputs=EncoderInputs(**asdict(inputs)),
            blueprint=EncoderBlueprint(**asdict(self.blueprint)),
            recipe=EmbeddingRecipe(**asdict(recipe)),
            teacher=figures,
            reference_error=reference,
            identity=self.identity,
            seconds=0.0,
        )

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

    def student(self, architecture: Architecture, seed: int = 0, layers: tuple[int, ...] | None = None) -> Student:
        """An untrained candidate, inherited or from scratch as configured; `layers`: see `Settings`."""
        torch.manual_seed(seed)
        if self.anatomy is None:
            return Student(architecture, self.blueprint)
        assert self.material.teacher is not None
        layers = layers or self.material.layers(architecture.depth)
        return inherit(architecture, self.blueprint, self.material.teacher, self.anatomy, layers=layers)

    def train(self, architecture: Architecture, settings: Settings, weights: Path | None = None) -> Trial:
        """Train one candidate and save it as `weights`; a diverged one comes back as a failed trial.

        One that tries layers is measured at its end alone, and nothing of it is saved.
        """
        student, threads = self.student(architecture, settings.seed, settings.layers), torch.get_num_threads()
        try:
            result = estimate(student, self.signal, settings, CURVE if settings.layers is None else (1.0,))
        except TrainingDiverged as error:
            return Trial(architecture, settings, None, (), 0.0, threads, str(error))
        if weights is not None and settings.layers is None:
            save_weights(student, weights)
        return Trial(architecture, settings, result.error, result.curve, result.seconds, threads)


def inputs_of(config: ExtractConfig, space: SearchSpace) -> StageInputs:
    """What an extraction reads.

    Raises:
        InvalidTeacher, InvalidCorpus, InvalidTask: something is missing or cannot be read.
    """
    sources = {
        "search space": of_values(str(config.space), space.to_dict()),
        "corpus": corpus_content(config.corpus, config.text_column),
    }
    if config.teacher is not None:
        sources["teacher"] = teacher_content(config.teacher)
    if config.task is not None:
        sources["task"] = of_file(config.task, InvalidTask)
    return StageInputs(config=config.model_dump(mode="json"), sources=sources)


def make_basis(run: RunFolder, config: ExtractConfig, report: Report) -> Basis:
    """Corpus, targets and anatomy of a run, made where they are missing, and what all its candidates share."""
    start = time.perf_counter()
    bench = Workbench.open(config, run.path, report)
    if bench.anatomy is not None and not run.has(Layers):
        assert bench.material.teacher is not None
        ranked = tuple(bench.anatomy.keep)
        run.write(Layers(start=bench.material.teacher.fingerprint, ranked=ranked, trials=(), chosen={}))
    if run.has(Basis):
        return run.read(Basis).model_copy(update={"identity": bench.identity})
    if bench.material.teacher is not None:  # without one it is there already
        bench.material.tokenizer.save_pretrained(run.path / "tokenizer")
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
