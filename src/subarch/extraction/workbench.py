"""All that one process needs to train a candidate: teacher, data, targets, and where candidates start from.

What the run folder already holds (packed corpus, cached targets, the teacher's anatomy) is opened, what is missing is
computed and stored: the coordinator opens it once, and every worker again within seconds.

    >>> bench = Workbench.open(config, run)
    >>> trial = bench.train(Architecture.parse("2-12-384-512"), Settings(100, 2e-3, 64))
"""

from __future__ import annotations

import time
import warnings
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from subarch.errors import InvalidConfig, InvalidTask, InvalidTeacher, TrainingDiverged
from subarch.extraction.config import ExtractConfig
from subarch.extraction.estimate import CURVE, Signal, estimate, segments_needed
from subarch.extraction.question import RATE, RATE_OF_TASKS
from subarch.extraction.trial import Settings, Trial
from subarch.learning.material import Material
from subarch.learning.signals import (
    EmbeddingSignal,
    GoldSignal,
    MaskedLMSignal,
    OutputsSignal,
    TaskSignal,
    teacher_embedder,
)
from subarch.models.inherit import CALIBRATION, Anatomy, inherit
from subarch.models.outputs import Outputs, TaskTeacher
from subarch.models.sentence import Recipe
from subarch.models.source import content_of as teacher_content
from subarch.models.source import figures_of, is_of_task
from subarch.models.student import Blueprint, Student, save_weights, start_from_tokens
from subarch.numbers.architecture import Architecture, Inputs
from subarch.numbers.space import SearchSpace
from subarch.run import Report, silent
from subarch.run.folder import RunFolder
from subarch.run.inputs import StageInputs, of_file, of_values
from subarch.run.records import Basis, EmbeddingRecipe, EncoderBlueprint, EncoderInputs, KeptVocabulary, Layers, Space
from subarch.tasks.scoring import Task
from subarch.text.corpus import content_of as corpus_content

INPUTS = "inputs.jsonl"
"""The inputs of a public task, in the run folder."""
SHARES, SMALLEST = (1 / 2, 1 / 4, 1 / 8), 2_000
"""Vocabularies of the space `auto`, as shares of the whole one, and the least of them."""
FREE = {
    "workers",
    "ray",
    "minutes",
    "trial_minutes",
    "reuse",
    "learn_from",
    "space",
    "corpus",
    "teacher",
    "start_from",
    "task",
}
"""Configuration keys that may differ when a run is resumed: they decide its speed only, or name what is hashed."""


@dataclass
class Workbench:
    """See the module. `anatomy` is None where nothing is inherited, `readout` where that is of the teacher itself.

    `tokens`: (V, width) the teacher's vectors of the vocabulary, which the tables of candidates from scratch begin as.
    `rows`: (n,) tokens of which candidates train the embeddings, where most of the vocabulary does not occur. Material,
    blueprint, signal and rows are those of candidates with the whole vocabulary; `keeping` gives those of others.
    """

    config: ExtractConfig
    run: Path
    material: Material
    blueprint: Blueprint
    signal: Signal
    anatomy: Anatomy | None
    readout: Tensor | None
    tokens: Tensor | None
    rows: Tensor | None
    others: dict[int, Workbench] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, config: ExtractConfig, run: Path, report: Report = silent) -> Workbench:
        """Load or compute everything; raises what `Teacher.load`, `corpus.build` and `Task.read` raise."""
        task = Task.read(config.task) if config.task is not None else None
        material = Material.load(config, run, report, vocabularies=lambda whole: _vocabularies(config, run, whole))
        max_length = material.recipe.max_length
        train, heldout = material.split(config, max_length - 2)
        train = train.shuffled()
        needed = max(segments_needed(config.steps, size) for size in config.batch_size)
        masked_lm = config.error in ("mlm", "logits")
        signal: Signal
        if masked_lm:
            if material.sizes:
                raise InvalidConfig(
                    f"error {config.error!r} compares token by token, so all candidates have to have the whole "
                    "vocabulary; take the axis vocabulary out of the space, or use error embedding"
                )
            if material.reads_text:
                raise InvalidConfig(
                    f"error {config.error!r} compares token by token, so the teacher has to be what candidates start "
                    "from; drop start_from and give a teacher whose weights they can take, or use error embedding"
                )
            source = (material.start, material.targets()) if config.error == "logits" else (None, None)
            signal = MaskedLMSignal(material.tokenizer, train, heldout, max_length, needed, report, *source)
        elif isinstance(material.teacher, TaskTeacher):
            teacher, recipe, cache = material.teacher, material.recipe, material.targets()
            signal = OutputsSignal(teacher, recipe, train, heldout, needed, cache, report)
            if config.error == "task":
                signal = GoldSignal(signal)
        else:
            assert material.teacher is not None  # the configuration's own check
            # A teacher that reads the student's tokens does so up to its own maximum
            reader = material if material.reads_text or material.start is None else material.start
            signal = EmbeddingSignal(material.teacher, reader, train, heldout, needed, material.targets(), report)
        anatomy = readout = rows = None
        if config.initialise != "scratch":
            report("what candidates start from", 0, 0)
            anatomy = material.anatomy(train[:CALIBRATION])
            if not masked_lm:  # whose output layer is the whole table
                rows = material.rows((train[:needed], heldout), task.texts if task is not None else ())
            if isinstance(signal, EmbeddingSignal) and material.learns_another:
                report("the map to the teacher's vectors", 0, 0)
                targets = signal.targets
                readout = material.readout(train[: len(targets)], lambda some: targets[: len(some)])
        tokens = material.token_vectors() if config.initialise == "scratch" and not masked_lm else None
        if task is not None:
            assert isinstance(signal, EmbeddingSignal)
            signal = TaskSignal(signal, task)
        return cls(config, run, material, material.blueprint(masked_lm), signal, anatomy, readout, tokens, rows)

    def keeping(self, size: int) -> Workbench:
        """The workbench of candidates with a vocabulary of this size, 0: the whole one, which is this."""
        if not size:
            return self
        if size not in self.others:
            material, config, signal = self.material.keeping(size), self.config, self.signal
            assert isinstance(signal, EmbeddingSignal | TaskSignal)
            train, heldout = material.split(config, material.recipe.max_length - 2)
            train = train.shuffled()
            rows = None
            if self.rows is not None:
                needed = max(segments_needed(config.steps, number) for number in config.batch_size)
                texts = signal.task.texts if isinstance(signal, TaskSignal) else ()
                rows = material.rows((train[:needed], heldout), texts)
            self.others[size] = replace(
                self,
                material=material,
                blueprint=material.blueprint(False),
                signal=signal.read_by(material, train, heldout),
                rows=rows,
            )
        return self.others[size]

    def vocabularies(self, report: Report) -> tuple[KeptVocabulary, ...]:
        """The vocabularies that candidates may have besides the whole one, each made where it is missing.

        A size that the corpus does not fill becomes the number of tokens that it uses; one of the space `auto` that is
        below the alphabet is left out.
        """
        if not (sizes := self.material.sizes):
            return ()
        least, used = self.material.vocabularies
        if self.config.space == "auto":
            sizes = tuple(size for size in sizes if size >= least)
        if max(sizes, default=0) > used:
            warnings.warn(
                f"the corpus uses {used} tokens, so a vocabulary of {max(sizes)} has no more than these", stacklevel=2
            )
        found = []
        for size in sorted({min(size, used) for size in sizes}):
            report(f"a vocabulary of {size} tokens", 0, 0)
            other = self.keeping(size)
            settings = {k: v for k, v in other.blueprint.settings.items() if v != self.blueprint.settings[k]}
            found.append(KeptVocabulary(size=size, tokens=float(other.material.tokens.mean()), settings=settings))
        return tuple(found)

    def basis(self, report: Report = silent) -> Basis:
        """What all candidates share and are measured against; `seconds` is 0."""
        config, inputs, material = self.config, self.blueprint.inputs, self.material
        reference, constant = 0.0 if config.error in ("embedding", "outputs") else None, None
        if isinstance(self.signal, TaskSignal):
            assert material.teacher is not None
            reference = 1 - self.signal.score(teacher_embedder(material.teacher))
        elif isinstance(self.signal, GoldSignal):
            reference = self.signal.reference
        elif isinstance(self.signal, EmbeddingSignal | OutputsSignal):
            constant = self.signal.constant
        kept = self.vocabularies(report)
        found = Basis(
            inputs=EncoderInputs(**asdict(inputs)),
            blueprint=EncoderBlueprint(**asdict(self.blueprint)),
            recipe=EmbeddingRecipe(**asdict(material.handed_over)),
            teacher=figures_of(material.teacher, config.latency_length),
            start=str(material.start.architecture) if material.start is not None else None,
            reference_error=reference,
            constant_distance=constant,
            identity=self.identity,
            seconds=0.0,
        )
        if not kept:
            return found
        return found.model_copy(update={"tokens": float(material.tokens.mean()), "vocabularies": kept})

    @property
    def identity(self) -> dict[str, Any]:
        """Everything a trial's error depends on, besides the candidate and its settings."""
        teacher, corpus = self.material.teacher, self.material.corpus
        assert corpus is not None
        names = ("error", "max_length", "heldout", "initialise", "threads_per_worker")
        start = self.material.start
        return {name: getattr(self.config, name) for name in names} | {
            "scale": "constant" if self.config.error in ("embedding", "outputs") else None,
            "start": start.fingerprint if start is not None and start is not teacher else None,
            "teacher": teacher.fingerprint if teacher is not None else None,
            "corpus": corpus.content_hash,
            "task": self.signal.task.fingerprint if isinstance(self.signal, TaskSignal) else None,
            "vocabulary_size": self.config.vocabulary_size if start is None else None,
        }

    def student(
        self,
        architecture: Architecture,
        seed: int = 0,
        layers: tuple[int, ...] | None = None,
        rows: Tensor | None = None,
    ) -> Student:
        """An untrained candidate, inherited or from scratch as configured; `layers`: see `Settings`.

        `rows`: of its table, see `models.rows`; None: all of them.
        """
        torch.manual_seed(seed)
        if self.anatomy is None:
            student = Student(architecture, self.blueprint)
            if self.tokens is not None:
                start_from_tokens(student, self.tokens)
            return student
        assert self.material.start is not None
        layers, reader = layers or self.material.layers(architecture.depth), self.material.reader
        kept = None if reader is None else torch.from_numpy(reader.kept)
        start = self.material.start
        return inherit(architecture, self.blueprint, start, self.anatomy, layers, self.readout, rows, kept)

    def train(self, architecture: Architecture, settings: Settings, weights: Path | None = None) -> Trial:
        """Train one candidate and save it as `weights`; a diverged one comes back as a failed trial.

        One that tries layers is measured at its end alone, and nothing of it is saved.
        """
        threads, own = torch.get_num_threads(), self.keeping(architecture.vocabulary)
        student = own.student(architecture, settings.seed, settings.layers, own.rows)
        try:
            result = estimate(student, own.signal, settings, CURVE if settings.layers is None else (1.0,))
        except TrainingDiverged as error:
            return Trial(architecture, settings, None, (), 0.0, threads, str(error))
        if weights is not None and settings.layers is None:
            save_weights(student, weights)
        return Trial(architecture, settings, result.error, result.curve, result.seconds, threads)


def resolved(config: ExtractConfig, run: Path) -> ExtractConfig:
    """The configuration with what is left to the teacher, and with inputs for a corpus.

    Raises:
        InvalidConfig, InvalidTask: a task that is not there, or that the teacher has no use for.
        InvalidTeacher: the teacher cannot be found, or is not one for the error that is named.
    """
    of_task = is_of_task(config.teacher)
    if config.data is not None:
        if not of_task:
            raise InvalidConfig(
                f"data {config.data!r}: inputs of {config.task} are for a teacher that is fine-tuned for it, and "
                f"{config.teacher} is none; give text with corpus"
            )
        config = config.model_copy(update={"corpus": [str(run / INPUTS)], "task": None, "data": None})
    if not config.learning_rate:  # written down, so that a run goes on with it whatever the default is then
        config = config.model_copy(update={"learning_rate": [RATE_OF_TASKS if of_task else RATE]})
    if config.error == "task" and (config.task is not None) == of_task:
        raise InvalidConfig(
            f"task {str(config.task)!r}: the teacher is fine-tuned for a task, so the labels of its inputs are what "
            "counts; drop it"
            if of_task
            else "task is missing: error 'task' scores candidates on that set"
        )
    if config.error is None:
        return config.model_copy(update={"error": "outputs" if of_task else "embedding"})
    if config.error == "outputs" and not of_task:
        raise InvalidTeacher(
            f"{config.teacher}: has no head of a task, so it has no outputs to learn; name a fine-tuned model "
            "(ForSequenceClassification, ForTokenClassification, ForMultipleChoice or CrossEncoder), or use error "
            "embedding"
        )
    if of_task and config.error not in ("outputs", "task"):
        raise InvalidTeacher(
            f"{config.teacher}: is a model with the head of a task, which error {config.error!r} has no use for; use "
            "error outputs (or task, if the inputs have labels), or name an encoder of texts"
        )
    return config


def inputs_of(config: ExtractConfig, space: SearchSpace | None) -> StageInputs:
    """What an extraction reads; `space` is None for `auto`, which follows from the other inputs.

    Raises:
        InvalidTeacher, InvalidCorpus, InvalidTask: something is missing or cannot be read.
    """
    sources = {
        "search space": of_values(str(config.space), space.to_dict() if space is not None else None),
        "corpus": corpus_content(config.corpus, config.text_column, is_of_task(config.teacher)),
    }
    for name in ("teacher", "start_from"):
        if (path := getattr(config, name)) is not None:
            sources[name] = teacher_content(path)
    if config.task is not None:
        sources["task"] = of_file(config.task, InvalidTask)
    return StageInputs(config=config.model_dump(mode="json"), sources=sources)


def _vocabularies(config: ExtractConfig, run: Path, whole: int) -> tuple[int, ...]:
    """The sizes of vocabularies that candidates may have besides the whole one, which has so many tokens.

    In the space `auto` a half, a quarter and an eighth of it, in thousands, where size matters: under a limit on it, or
    in W.
    """
    folder = RunFolder(run)
    if folder.has(Space):
        named: tuple[int, ...] = folder.read(Space).vocabulary
    elif config.space != "auto":
        named = SearchSpace.load(config.space).vocabulary
    else:
        limited = config.max_parameters is not None or config.max_megabytes is not None
        comparable = config.initialise == "inherit" and config.measures in ("embedding", "task")
        if not ((limited or config.objective == "w") and comparable) or is_of_task(config.teacher):
            return ()
        named = tuple(size for share in SHARES if (size := round(whole * share / 1000) * 1000) >= SMALLEST)
    return tuple(size for size in named if size)


def space_of(config: ExtractConfig, named: SearchSpace | None, basis: Basis) -> SearchSpace:
    """The space that is named, or `auto`: below what candidates start from; without such it is the preset `minilm`.

    Its vocabularies are those that the corpus can fill.
    """
    kept = tuple(one.size for one in basis.vocabularies)
    if named is not None:
        whole = tuple(size for size in named.vocabulary if not size)
        return replace(named, vocabulary=(*whole, *kept)) if named.has_vocabularies else named
    if basis.start is None or config.initialise == "scratch":
        return SearchSpace.load("minilm")
    shallowest = int(basis.blueprint.family == "modernbert")  # whose stock configuration has no depth 0
    return SearchSpace.below(Architecture.parse(basis.start), shallowest, (0, *kept))


def warn_unlimited(config: ExtractConfig) -> None:
    """Say what comes of a search for the least error in which nothing costs anything."""
    limits = (config.max_latency_ms, config.max_latency_ratio, config.max_parameters, config.max_megabytes)
    if config.objective == "error" and all(limit is None for limit in limits):
        warnings.warn(
            "nothing limits the candidates, so the largest will have the least error, whatever it costs. Name what it "
            "may cost (--max-latency-ratio 0.25, --max-megabytes 8), now or afterwards with subarch select",
            stacklevel=2,
        )


def warn_beyond(config: ExtractConfig, space: SearchSpace, basis: Basis) -> None:
    """Say what candidates begin with that are larger than what they start from."""
    if basis.start is None or config.initialise == "scratch":
        return
    start = Architecture.parse(basis.start)
    own = {"depth": start.depth, "hidden": start.hidden, "intermediate": start.intermediate}
    largest = {name: max(getattr(space, name)) for name in own}
    beyond = [f"{name} {largest[name]}, of the start {size}" for name, size in own.items() if largest[name] > size]
    if beyond:
        warnings.warn(
            f"space {space.name!r} goes beyond what candidates start from ({'; '.join(beyond)}). Further layers begin "
            "random, further width begins without effect: such candidates need more steps than others",
            stacklevel=2,
        )


def make_basis(run: RunFolder, config: ExtractConfig, report: Report) -> Basis:
    """Corpus, targets and anatomy of a run, made where they are missing, and what all its candidates share."""
    start = time.perf_counter()
    bench = Workbench.open(config, run.path, report)
    if bench.anatomy is not None and not run.has(Layers):
        assert bench.material.start is not None
        ranked = tuple(bench.anatomy.keep)
        run.write(Layers(start=bench.material.start.fingerprint, ranked=ranked, trials=(), chosen={}))
    if run.has(Basis):
        return run.read(Basis).model_copy(update={"identity": bench.identity})
    if bench.material.start is not None:  # without one it is there already
        bench.material.tokenizer.save_pretrained(run.path / "tokenizer")
    basis = bench.basis(report)
    basis = basis.model_copy(update={"seconds": time.perf_counter() - start})
    run.write(basis)
    return basis


def blueprint_of(basis: Basis, vocabulary: int = 0) -> Blueprint:
    """What candidates of a run with a vocabulary of this size are built from; 0: the whole one."""
    found = basis.blueprint
    task = None if found.task is None else Outputs(**found.task.model_dump())
    settings = found.settings | next((one.settings for one in basis.vocabularies if one.size == vocabulary), {})
    inputs = Inputs(**basis.inputs.model_dump())
    return Blueprint(**found.model_dump() | {"inputs": inputs, "task": task, "settings": settings})


def recipe_of(basis: Basis) -> Recipe:
    """How candidates of a run turn text into an embedding."""
    return Recipe(**basis.recipe.model_dump())
