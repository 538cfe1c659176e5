"""What one pretraining works with, and how long it takes: student and losses, teacher, batches, and the schedule.

A few real steps measure how long student, teacher and optimiser take on this machine. From that follow the steps that
fit into the minutes given, and the cheaper of two ways to the teacher's outputs: to compute them at every step, or once
for the whole corpus. The decision is recorded, since a resumed training must take the same steps.

>>> setup = Setup.load(config, Path("runs/mine"), Architecture.parse("2-12-384-512"))
>>> schedule = decide(setup, config, device, processes=1, accumulation=1)
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import set_seed

from subarch.errors import InvalidConfig
from subarch.learning.bank import SIZE, Bank
from subarch.learning.collate import Collator, Inputs, Loader
from subarch.learning.distill import Distiller, Targets, TeacherSide, TextSide
from subarch.learning.losses import OF_VECTORS
from subarch.learning.material import Material, check_heldout
from subarch.learning.outputs import constant, counts_of, flat, gold_of, metric_of, score
from subarch.learning.signals import outputs_of, vectors_of
from subarch.learning.targets import TargetStore
from subarch.learning.vocabularies import Reader
from subarch.models.inherit import CALIBRATION, inherit
from subarch.models.outputs import TaskTeacher
from subarch.models.parts import set_dropout
from subarch.models.rows import Rows
from subarch.models.student import Blueprint, Student, load_weights, put_back, start_from_tokens
from subarch.numbers.architecture import Architecture, has_map
from subarch.pretraining.config import PretrainConfig
from subarch.run import Report, silent
from subarch.run.folder import RunFolder
from subarch.run.records import Basis, EncoderBlueprint, GoldScores, Schedule
from subarch.text.batches import Budget, Packed, Source, Streamed, by_length
from subarch.text.corpus import Corpus, Segments
from subarch.text.masking import Masker

BATCH = 64
"""Sequences of a held-out batch."""
PROBED = 7
"""Parts of batches that are timed; the first is a warm-up."""
INPUTS = ("ids", "mask", "where", "labels", "choices")


@dataclass
class Setup:
    """See the module. `side` is None where no loss needs a teacher, `store` where its outputs cannot be cached.

    `spoken`: the language of each batch of `heldout`; none where the corpus names no languages.
    `heldout_targets`: those of a teacher that reads text; None where they are computed when they are needed.
    """

    material: Material
    blueprint: Blueprint
    distiller: Distiller
    side: TeacherSide | TextSide | None
    collator: Collator
    budget: Budget
    source: Source
    heldout: list[Inputs]
    heldout_targets: list[Targets] | None
    spoken: list[str]
    store: TargetStore | None
    started: str
    """Where the weights came from, in words."""
    labelled: Segments | None
    """The held-out inputs, where they have labels."""

    @classmethod
    def load(
        cls,
        config: PretrainConfig,
        run: Path,
        architecture: Architecture,
        searched: Path | None = None,
        report: Report = silent,
    ) -> Setup:
        """Load and build everything; `searched` are the candidate's weights from the search, if there are any."""
        if config.initialise is None and searched is not None:
            config = config.model_copy(update={"initialise": "search"})
        vocabulary = architecture.vocabulary
        sizes = (vocabulary,) if vocabulary else ()
        material = uncut = Material.load(config, run, report, config.streaming, lambda _: sizes)
        # A teacher whose insides can be compared: it reads the student's tokens
        task = material.teacher if isinstance(material.teacher, TaskTeacher) else None
        teacher = task or (None if material.reads_text else material.start)
        search = None
        if config.initialise == "search" and RunFolder(run).has(Basis):
            search = RunFolder(run).read(Basis).blueprint
        has_head = teacher is not None and teacher.masked_lm is not None and (search is None or search.masked_lm)
        weights = config.weights(has_head, architecture.depth, not material.reads_text, task is not None)
        _check_losses(weights, task)
        if sizes and (others := set(weights) - set(OF_VECTORS)):
            raise InvalidConfig(
                f"loss_{sorted(others)[0]} compares token by token, and a student of {architecture} reads with another "
                "vocabulary than the teacher; only its embeddings can be learnt (loss_embedding, loss_similarities, "
                "loss_margins), or leave the vocabulary whole"
            )
        if material.reads_text and (others := set(weights) - set(OF_VECTORS)):
            raise InvalidConfig(
                f"loss_{sorted(others)[0]} compares the insides of teacher and student, which read different tokens; "
                "of a teacher that the student does not start from only its embeddings can be learnt (loss_embedding, "
                "loss_similarities, loss_margins)"
            )
        if config.streaming and (material.reads_text or task is not None):
            what = "reads text" if task is None else "reads the inputs of its task"
            raise InvalidConfig(f"streaming reads tokens of prose, and this teacher {what}; set streaming to false")
        material = uncut.keeping(vocabulary)
        recipe = material.recipe
        masked = "mlm" in weights or "logits" in weights
        masker = Masker(material.tokenizer) if masked else None
        collator = Collator(material.tokenizer, recipe, masker, config.seed, config.maskings)
        budget = Budget(config.batch_tokens, recipe.max_length, collator.extra)

        source: Source
        sample: Sequence[NDArray[np.int32]]
        heldout: Sequence[NDArray[np.int32]]
        if config.streaming:
            if len(config.corpus) != 1 or not config.corpus[0].startswith("datasets:"):
                raise InvalidConfig(
                    f"streaming reads one data set, not {config.corpus}; write datasets:NAME, or datasets:FOLDER"
                )
            source = Streamed(config.corpus[0], config.text_column, material.tokenizer)
            heldout = sample = source.held_out(budget, config.heldout)
            check_heldout(heldout, config.corpus)
        else:
            train, heldout = material.split(config, budget.length - budget.extra)
            source, sample = Packed(train, config.seed), train.shuffled()[:CALIBRATION]
            if vocabulary:  # what students start from is examined on its own tokens
                sample = uncut.split(config, uncut.recipe.max_length - 2)[0].shuffled()[:CALIBRATION]

        of_vectors = weights.keys() & set(OF_VECTORS)
        # Similarities alone do not name a space: the student stays in that of its start, and needs no map
        own_space = of_vectors == {"similarities"} and search is None
        blueprint = material.blueprint(masked, bool(of_vectors) or not masked, own_space)
        widths = _widths(config, weights, blueprint.inputs.output)
        if search is not None:
            _check_fits(blueprint, architecture.hidden, search, run)
        set_seed(config.seed)
        student, started = _student(config, architecture, blueprint, uncut, material.reader, sample, searched)
        rows = None
        if isinstance(source, Packed) and material.start is not None and not masked:  # whose output layer is the table
            assert isinstance(heldout, Segments)
            rows = material.rows((source.segments, heldout))
        if rows is not None:
            student.encoder.set_input_embeddings(Rows(student.encoder.get_input_embeddings(), rows))
        # Batches of similar length. Their masks are those of an epoch that training never reaches
        groups, spoken = _groups(heldout, material.corpus)
        fixed, never = replace(collator, maskings=0, seed=0), torch.iinfo(torch.int32).max
        grouped = [fixed([heldout[int(row)] for row in rows], rows, never) for rows in groups]
        scale = _constant(task, grouped) if task is not None else 1.0
        distiller = Distiller(student, weights, teacher, config.temperature, scale, widths)
        set_dropout(distiller, config.dropout)
        student.encoder.get_input_embeddings().weight.requires_grad_(not config.freeze_embeddings)

        bank = None
        if "margins" in weights:
            assert isinstance(source, Packed)  # the configuration's own check
            bank = _bank(material, source.segments.shuffled(), budget.length - budget.extra, report)
        side: TeacherSide | TextSide | None = None
        if material.reads_text:
            assert material.teacher is not None
            side = TextSide(material.teacher, bank)
        elif teacher is not None and set(weights) != {"mlm"}:
            side = TeacherSide(teacher, distiller, bank)
        store = None
        # The outputs of an input with choices are not kept: they are several rows
        several = task is not None and task.outputs.kind == "choices"
        if side is not None and isinstance(source, Packed) and (config.maskings or not masked) and not several:
            segments, top_k, temperature = source.segments, config.top_k, config.temperature
            store = TargetStore(material.targets(), side, collator, segments, top_k, temperature)
        if side is not None and store is None and config.targets == "cache":  # streaming is refused before
            raise InvalidConfig(
                f"targets 'cache' needs the same few masks of every sequence, but {', '.join(weights)} mask it anew at "
                "each visit; set maskings to 1 or more, or targets to live"
            )
        heldout_targets: list[Targets] | None = None
        if isinstance(side, TextSide):
            assert isinstance(heldout, Segments)
            whole, texts = side.teacher, heldout.texts
            assert texts is not None
            vectors = material.targets().get(("heldout",), lambda: whole.embed_texts(texts))
            heldout_targets = [side.targets({"embedding": vectors[torch.from_numpy(rows)]}) for rows in groups]
        labelled = heldout if isinstance(heldout, Segments) and heldout.labels is not None else None
        return cls(
            material,
            blueprint,
            distiller,
            side,
            collator,
            budget,
            source,
            grouped,
            heldout_targets,
            spoken,
            store,
            started,
            labelled,
        )

    def gold(self, student: Student) -> GoldScores | None:
        """Student and teacher against the labels of the held-out inputs, if these have any that can be scored."""
        teacher, inputs = self.material.teacher, self.labelled
        if inputs is None or not isinstance(teacher, TaskTeacher) or (metric := metric_of(teacher.outputs)) is None:
            return None
        assert inputs.labels is not None
        truth = [gold_of(teacher.outputs, label) for label in inputs.labels]
        own, theirs = (
            score(teacher.outputs, truth, outputs_of(teacher, self.material.recipe, model, inputs))
            for model in (student, teacher.model)
        )
        return GoldScores(metric=metric, inputs=len(inputs), student=own, teacher=theirs)

    @torch.inference_mode()
    def agreement(self, student: Student, targets: Sequence[Targets]) -> dict[str, float] | None:
        """By width how the student's cosines of all pairs of held-out texts correlate with the teacher's (Pearson).

        None where embeddings are not to be cut.

        Args:
            targets: the teacher's for each batch of `heldout`.
        """
        if not self.distiller.widths:
            return None
        own = torch.cat([student(one.ids, one.mask) for one in self.heldout])
        theirs = torch.cat([one["embedding"].to(own) for one in targets])
        first, second = torch.triu_indices(len(own), len(own), offset=1)

        def cosines(vectors: Tensor) -> Tensor:
            directions = nn.functional.normalize(vectors, dim=1)
            return (directions @ directions.T)[first, second]

        wanted = cosines(theirs)
        return {
            str(width): float(torch.corrcoef(torch.stack([cosines(own[:, :width]), wanted]))[0, 1])
            for width in (own.shape[1], *self.distiller.widths)
        }

    def trained(self, architecture: Architecture, weights: Mapping[str, Tensor]) -> Student:
        """The whole student with these weights of the distiller, in evaluation mode."""
        student, prefix = Student(architecture, self.blueprint), "student."
        own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        table = self.distiller.student.encoder.get_input_embeddings()
        if isinstance(table, Rows):
            assert table.whole is not None
            put_back(student, own, table.kept, table.whole)
        student.load_state_dict(own, strict=False)
        return student.eval()


def _groups(heldout: Sequence[NDArray[np.int32]], corpus: Corpus | None) -> tuple[list[NDArray[np.int64]], list[str]]:
    """Rows of held-out sequences of similar length, and of one language each, whose names come second, if any."""
    sizes = np.array([len(sequence) for sequence in heldout])
    if corpus is None or corpus.meta.languages is None:
        return by_length(sizes, BATCH), []
    assert isinstance(heldout, Segments)
    assert heldout.languages is not None
    groups, spoken = [], []
    for number, language in enumerate(corpus.meta.languages):
        rows = np.flatnonzero(heldout.languages == number)
        own = [rows[some] for some in by_length(sizes[rows], BATCH)]
        groups += own
        spoken += [language] * len(own)
    return groups, spoken


def _widths(config: PretrainConfig, weights: dict[str, float], whole: int) -> list[int]:
    """What embeddings may be cut to, the whole width aside."""
    if config.dimensions is None:
        return []
    if "similarities" not in weights:
        raise InvalidConfig(
            f"dimensions {config.dimensions}: nothing is learnt of embeddings that are cut but by loss_similarities; "
            "give it a weight, or remove dimensions"
        )
    widths = [width for width in config.widths if width != whole]
    if not widths or widths[0] > whole:
        raise InvalidConfig(f"dimensions {config.dimensions}: embeddings have {whole} numbers; name fewer than these")
    return widths


def _bank(material: Material, train: Segments, length: int, report: Report) -> Bank:
    """The teacher's vectors of the first of the training sequences, which are cut at `length` tokens; cached."""
    teacher = material.teacher
    assert teacher is not None
    told = partial(report, "teacher's vectors to find negatives in")

    def compute(piece: range) -> Tensor:
        return vectors_of(teacher, train[piece.start : piece.stop]).half()

    return Bank(material.targets().rows(("bank", length), len(train), SIZE, compute, told))


def _check_losses(weights: dict[str, float], task: TaskTeacher | None) -> None:
    if task is None and "outputs" in weights:
        raise InvalidConfig(
            "loss_outputs needs a teacher that is fine-tuned for a task, and this one is an encoder of texts; use "
            "loss_embedding"
        )
    if task is not None and (others := set(weights) - {"outputs", "hidden", "relations"}):
        raise InvalidConfig(
            f"loss_{sorted(others)[0]} has no meaning for a teacher that is fine-tuned for a task; use loss_outputs, "
            "loss_hidden and loss_relations"
        )


@torch.inference_mode()
def _constant(task: TaskTeacher, batches: Sequence[Inputs]) -> float:
    """What is left of the divergence by the best constant outputs, on the held-out inputs."""
    said = [flat(task.outputs, task.model(one.ids, one.mask), one.mask) for one in batches]
    counts = [counts_of(task.outputs, one.mask, one.choices) for one in batches]
    known = [one for one in counts if one is not None]
    return max(constant(task.outputs.kind, torch.cat(said), torch.cat(known) if known else None), 1e-6)


def _check_fits(blueprint: Blueprint, hidden: int, search: EncoderBlueprint, run: Path) -> None:
    """Refuse losses that need a head or a map which the weights of a search lack, or that leave out the head there."""
    without = blueprint.masked_lm and not search.masked_lm
    if without or (search.masked_lm and (not blueprint.masked_lm or has_map(hidden, blueprint.inputs))):
        if without:
            why = "have no masked-LM head; leave out loss_mlm and loss_logits"
        elif blueprint.masked_lm:
            why = "have no map to the teacher's embeddings; leave out loss_embedding"
        else:
            why = "have a masked-LM head that no loss here trains; add loss_mlm"
        raise InvalidConfig(f"the weights that the search in {run} trained {why}, or set initialise to inherit")


def _student(
    config: PretrainConfig,
    architecture: Architecture,
    blueprint: Blueprint,
    material: Material,
    reader: Reader | None,
    sample: Sequence[NDArray[np.int32]],
    searched: Path | None,
) -> tuple[Student, str]:
    """The untrained student, and where its weights come from; `material` is that of the whole vocabulary."""
    start = material.start
    initialise = config.initialise or ("inherit" if start else "scratch")
    if initialise == "search":
        if searched is None:
            raise InvalidConfig(
                f"initialise 'search': the search in {material.run} left no weights of {architecture}; "
                "select it there first, or set initialise to inherit"
            )
        student = load_weights(Student(architecture, blueprint), searched, lambda: start)
        return student, "the search's own training of it"
    if initialise == "scratch":
        student, tokens = Student(architecture, blueprint), material.token_vectors()
        if tokens is None or blueprint.masked_lm:
            return student, "random weights"
        start_from_tokens(student, tokens)
        return student, "random weights, and the teacher's vectors of the tokens"
    assert start is not None
    readout = None
    if material.learns_another:
        assert material.teacher is not None
        teacher, train = material.teacher, material.split(config, material.recipe.max_length - 2)[0].shuffled()
        readout = material.readout(train, lambda some: vectors_of(teacher, some))
    layers, anatomy = material.layers(architecture.depth), material.anatomy(sample)
    kept = None if reader is None else torch.from_numpy(reader.kept)
    student = inherit(architecture, blueprint, start, anatomy, layers, readout, vocabulary=kept)
    whose = "the teacher's" if start is material.teacher else f"{start.name}'s"
    return student, f"{whose} weights, reduced"


def decide(
    setup: Setup, config: PretrainConfig, device: torch.device, processes: int = 1, accumulation: int = 1
) -> Schedule:
    """Measure and decide. The student's weights do not change."""
    loader = Loader(setup.source, setup.budget, setup.collator, processes=processes, accumulation=accumulation)
    parts = list(islice(loader, PROBED))
    times = step_times(setup.distiller, setup.side, parts, device, config.optimizer, config.precision)
    student, teacher = times.student * accumulation + times.optimizer, times.teacher * accumulation
    reads_text = isinstance(setup.side, TextSide)

    def steps_at(seconds: float, before: float = 0.0) -> int:
        if config.steps is not None:
            return config.steps
        assert config.minutes is not None
        return max(1, int((60 * config.minutes - before) / seconds))

    live = steps_at(student + teacher)

    def schedule(steps: int, teacher: float, sentence: str, maskings: int = 0) -> Schedule:
        return Schedule(
            steps=steps,
            student_seconds=student,
            teacher_seconds=teacher,
            cached=maskings > 0,
            maskings=maskings,
            sentence=sentence,
        )

    if setup.side is None:
        return schedule(live, teacher, "no loss needs a teacher")
    sentence = f"running the teacher at every step takes {live * teacher / 60:.1f} min"
    store = setup.store
    if store is None:
        return schedule(live, teacher, f"{sentence}; no output is needed twice, so none is cached")
    whole = int(setup.budget.sizes(store.segments).sum())
    seen = sum(part["sizes"][0] for part in parts) / len(parts)
    missing = 0.0
    for maskings in range(1, (config.maskings if setup.collator.masker is not None else 1) + 1):
        missing += len(store.missing(maskings - 1)) / store.shards * whole
        once = times.teacher / seen * missing / processes
        cached = steps_at(student, once)
        if cached * config.batch_tokens <= maskings * whole:  # no epoch needs a further one
            break
    size = store.bytes_of(parts[0]) / parts[0]["sizes"][0] * missing
    sentence += f"; computing its outputs once takes {once / 60:.1f} min and {size / 1e9:.1f} GB"
    fits = size < shutil.disk_usage(setup.material.run).free / 2
    pays = cached > live if config.steps is None else once < live * teacher
    if reads_text or config.targets == "cache" or (config.targets == "auto" and pays and fits):
        return schedule(cached, 0.0, f"{sentence}: they are cached", maskings)
    return schedule(live, teacher, f"{sentence}: it runs at every step")


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Median seconds of a part of a batch (teacher; student forward and backward) and of an optimiser step.

    `all`: the times that these are medians of, (teacher, student, optimiser).
    """

    teacher: float
    student: float
    optimizer: float
    all: list[tuple[float, float, float]]


def step_times(
    distiller: Distiller,
    side: TeacherSide | TextSide | None,
    parts: Iterable[dict[str, Any]],
    device: torch.device,
    optimizer: str = "adamw",
    precision: str = "fp32",
) -> StepTimes:
    """Train on the parts at a learning rate of 0, so that the weights do not change, and time it. The first warms up.

    Args:
        parts: what a `Loader` yields, or the keyword arguments of `Distiller.forward` without the targets.
    """
    distiller.to(device).train()
    if side is not None:
        side.to(device)
    trained = [parameter for parameter in distiller.parameters() if parameter.requires_grad]
    # As the trainer does: fused, one pass over each weight. At a rate of 0 weights keep ordinary magnitudes.
    step = torch.optim.AdamW(trained, lr=0.0, fused=True) if optimizer == "adamw" else torch.optim.SGD(trained, lr=0.0)
    times = []
    for part in parts:
        inputs = {name: part[name].to(device) for name in INPUTS if name in part}
        marks = [_now(device)]
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            targets = _targets(side, inputs)
            marks.append(_now(device))
            loss = distiller(**inputs, targets=targets)["loss"]
        loss.backward()
        marks.append(_now(device))
        nn.utils.clip_grad_norm_(trained, 1.0)
        step.step()
        step.zero_grad()
        marks.append(_now(device))
        times.append((marks[1] - marks[0], marks[2] - marks[1], marks[3] - marks[2]))
    teacher, student, stepping = map(statistics.median, zip(*times[1:], strict=True))
    return StepTimes(teacher, student, stepping, times[1:])


def _targets(side: TeacherSide | TextSide | None, inputs: dict[str, torch.Tensor]) -> Targets | None:
    """The teacher's targets; of one that reads text, as many numbers, since its vectors are computed beforehand."""
    if isinstance(side, TextSide):
        ones = torch.ones(len(inputs["ids"]), side.teacher.width, device=inputs["ids"].device)
        return side.targets({"embedding": ones})
    return None if side is None else side.live(inputs["ids"], inputs["mask"], inputs.get("where"))


def _now(device: torch.device) -> float:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()
