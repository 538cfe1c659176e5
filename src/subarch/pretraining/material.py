"""All that a pretraining works with, loaded: teacher, student, losses, text, held-out text.

Loading is idempotent, as a workbench's is: what the run folder holds already (packed corpus, tokenizer, the teacher's
anatomy) is opened, what is missing is made. So one process of several makes it, and the others open it.

    >>> material = Material.load(config, Path("runs/mine"), Architecture.parse("2-12-384-512"))
    >>> material.distiller.student, material.source
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import set_seed

from subarch.errors import InvalidConfig, InvalidCorpus
from subarch.learning.collate import Collator, Inputs
from subarch.learning.distill import Distiller, TeacherSide
from subarch.learning.targets import TargetCache, TargetStore
from subarch.models.inherit import CALIBRATION, Anatomy, inherit
from subarch.models.sentence import Recipe
from subarch.models.student import Blueprint, Student, load_weights
from subarch.models.teacher import Teacher, Tokens
from subarch.numbers.architecture import Architecture
from subarch.pretraining.config import PretrainConfig
from subarch.run.progress import Report, silent
from subarch.text.batches import Budget, Packed, Source, Streamed
from subarch.text.corpus import Corpus, Segments, build, own_tokenizer
from subarch.text.masking import Masker

BATCH = 64
"""Sequences of a held-out batch."""


@dataclass
class Material:
    """See the module. `store` is None where the teacher's outputs cannot be kept."""

    run: Path
    teacher: Teacher | None
    tokenizer: Any
    blueprint: Blueprint
    recipe: Recipe
    distiller: Distiller
    side: TeacherSide | None
    collator: Collator
    budget: Budget
    source: Source
    heldout: list[Inputs]
    store: TargetStore | None
    started: str
    """Where the weights came from, in words."""

    @classmethod
    def load(
        cls,
        config: PretrainConfig,
        run: Path,
        architecture: Architecture,
        searched: Path | None = None,
        report: Report = silent,
    ) -> Material:
        """`searched` are the candidate's weights from the search, if there are any.

        Raises:
            InvalidTeacher, InvalidCorpus, InvalidConfig: see `Teacher.load`, `corpus.build` and `Distiller`.
        """
        teacher = Teacher.load(config.teacher) if config.teacher is not None else None
        tokenizer = (
            teacher.tokenizer
            if teacher is not None
            else own_tokenizer(config.corpus, config.text_column, config.vocabulary_size, run / "tokenizer")
        )
        recipe = teacher.recipe if teacher is not None else Recipe()
        recipe = replace(recipe, max_length=min(config.max_length, recipe.max_length))
        weights = config.weights(teacher is not None and teacher.masked_lm is not None, architecture.depth)
        masked = "mlm" in weights or "logits" in weights
        masker = Masker(tokenizer, config.whole_word) if masked else None
        collator = Collator(tokenizer, recipe, masker, config.seed, config.maskings)
        budget = Budget(config.batch_tokens, recipe.max_length, collator.extra)

        source: Source
        sample: Tokens
        heldout: Sequence[Any]
        corpus: Corpus | None = None
        if config.streaming:
            source = _streamed(config, tokenizer)
            heldout = sample = source.held_out(budget, config.heldout)
        else:
            corpus = build(
                config.corpus,
                tokenizer,
                run / "corpus",
                text_column=config.text_column,
                progress=lambda done, unit: report(f"reading the corpus ({unit})", done, 0),
            )
            room = budget.length - budget.extra
            source = Packed(corpus.segments("train", room), config.seed)
            heldout = corpus.segments("heldout", room).shuffled()[: config.heldout]
            sample = source.segments.shuffled()[:CALIBRATION]
        if len(heldout) < 2:
            raise InvalidCorpus(f"{config.corpus}: {len(heldout)} held-out sequences; give more text")

        if teacher is None:
            blueprint = Blueprint.of_tokenizer(tokenizer)
        else:
            blueprint = Blueprint.of_teacher(teacher, masked, "embedding" in weights or not masked)
        set_seed(config.seed)
        student, started = _student(config, architecture, blueprint, teacher, sample, run, searched)
        distiller = Distiller(student, weights, teacher, config.temperature)
        for module in distiller.modules():
            if isinstance(module, nn.Dropout):
                module.p = config.dropout
        student.encoder.embeddings.word_embeddings.weight.requires_grad_(not config.freeze_embeddings)

        side = TeacherSide(teacher, distiller) if teacher is not None and set(weights) != {"mlm"} else None
        store = None
        if side is not None and corpus is not None and isinstance(source, Packed) and (config.maskings or not masked):
            text = f"{corpus.content_hash} {recipe.max_length} {recipe.prefix!r}"
            cache = TargetCache(run / "targets", side.teacher.fingerprint, text)
            store = TargetStore(cache, side, collator, source.segments, config.top_k, config.temperature)
        if side is not None and store is None and config.targets == "cache":  # streaming is refused before
            raise InvalidConfig(
                f"targets 'cache' cannot hold what a teacher says of a new masking at each visit, and the losses "
                f"{', '.join(weights)} are of masked text; set maskings to 1 or more, or targets to live"
            )
        return cls(
            run=run,
            teacher=teacher,
            tokenizer=tokenizer,
            blueprint=blueprint,
            recipe=recipe,
            distiller=distiller,
            side=side,
            collator=collator,
            budget=budget,
            source=source,
            heldout=_batches(heldout, collator),
            store=store,
            started=started,
        )


def _streamed(config: PretrainConfig, tokenizer: Any) -> Streamed:
    if len(config.corpus) != 1 or not config.corpus[0].startswith("datasets:"):
        raise InvalidConfig(
            f"streaming reads one data set, and corpus is {config.corpus}; write datasets:NAME, or datasets:FOLDER"
        )
    return Streamed(config.corpus[0], config.text_column, tokenizer)


def _student(
    config: PretrainConfig,
    architecture: Architecture,
    blueprint: Blueprint,
    teacher: Teacher | None,
    sample: Tokens,
    run: Path,
    searched: Path | None,
) -> tuple[Student, str]:
    """The untrained student, and where its weights come from."""
    initialise = config.initialise or ("search" if searched else "inherit" if teacher else "scratch")
    if initialise == "search":
        if searched is None:
            raise InvalidConfig(
                f"initialise 'search': no trained {architecture} is in {run}; select it there first, or inherit"
            )
        return load_weights(Student(architecture, blueprint), searched), "the search's own training of it"
    if initialise == "scratch":
        return Student(architecture, blueprint), "random weights"
    assert teacher is not None
    of = hashlib.sha256(f"{teacher.fingerprint} {[list(map(int, s)) for s in sample]}".encode()).hexdigest()[:16]
    anatomy = Anatomy.cached(run / f"anatomy-{of}.safetensors", teacher, sample)
    if initialise == "inherit-lowest":
        return inherit(architecture, blueprint, teacher, anatomy.lowest()), "the teacher's lowest layers, reduced"
    return inherit(architecture, blueprint, teacher, anatomy), "the teacher's weights, reduced"


def _batches(heldout: Sequence[Any], collator: Collator) -> list[Inputs]:
    """Ascending in length. Their masks are those of an epoch that training never reaches."""
    sizes = heldout.size if isinstance(heldout, Segments) else np.array([len(sequence) for sequence in heldout])
    order = np.argsort(sizes, kind="stable")
    groups = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    fixed = replace(collator, maskings=0, seed=0)
    return [fixed([heldout[int(row)] for row in rows], rows, torch.iinfo(torch.int32).max) for rows in groups]
