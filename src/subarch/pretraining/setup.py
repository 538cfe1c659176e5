"""Everything that one pretraining works with: student and losses, teacher, batches, held-out batches.

>>> setup = Setup.load(config, Path("runs/mine"), Architecture.parse("2-12-384-512"))
>>> setup.distiller.student, setup.source
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from transformers import set_seed

from subarch.errors import InvalidConfig
from subarch.learning.collate import Collator, Inputs
from subarch.learning.distill import Distiller, TeacherSide
from subarch.learning.material import Material, check_heldout
from subarch.learning.targets import TargetStore
from subarch.models.inherit import CALIBRATION, inherit
from subarch.models.student import Blueprint, Student, load_weights
from subarch.numbers.architecture import Architecture
from subarch.pretraining.config import PretrainConfig
from subarch.run import Report, silent
from subarch.text.batches import Budget, Packed, Source, Streamed, by_length
from subarch.text.masking import Masker

BATCH = 64
"""Sequences of a held-out batch."""


@dataclass
class Setup:
    """See the module. `side` is None where no loss needs a teacher, `store` where its outputs cannot be cached."""

    material: Material
    blueprint: Blueprint
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
    ) -> Setup:
        """Load and build everything; `searched` are the candidate's weights from the search, if there are any.

        Raises:
            InvalidTeacher, InvalidCorpus, InvalidConfig: see `Material.load` and `Distiller`.
        """
        material = Material.load(config, run, report, streaming=config.streaming)
        teacher, recipe = material.teacher, material.recipe
        weights = config.weights(teacher is not None and teacher.masked_lm is not None, architecture.depth)
        masked = "mlm" in weights or "logits" in weights
        masker = Masker(material.tokenizer) if masked else None
        collator = Collator(material.tokenizer, recipe, masker, config.seed, config.maskings)
        budget = Budget(config.batch_tokens, recipe.max_length, collator.extra)

        source: Source
        sample: Sequence[NDArray[np.int32]]
        heldout: Sequence[NDArray[np.int32]]
        if config.streaming:
            source = _streamed(config, material.tokenizer)
            heldout = sample = source.held_out(budget, config.heldout)
            check_heldout(heldout, config.corpus)
        else:
            train, heldout = material.split(config, budget.length - budget.extra)
            source, sample = Packed(train, config.seed), train.shuffled()[:CALIBRATION]

        blueprint = material.blueprint(masked, "embedding" in weights or not masked)
        set_seed(config.seed)
        student, started = _student(config, architecture, blueprint, material, sample, searched)
        distiller = Distiller(student, weights, teacher, config.temperature)
        for module in distiller.modules():
            if isinstance(module, nn.Dropout):
                module.p = config.dropout
        student.encoder.embeddings.word_embeddings.weight.requires_grad_(not config.freeze_embeddings)

        side = TeacherSide(teacher, distiller) if teacher is not None and set(weights) != {"mlm"} else None
        store = None
        if side is not None and isinstance(source, Packed) and (config.maskings or not masked):
            segments, top_k, temperature = source.segments, config.top_k, config.temperature
            store = TargetStore(material.targets(), side, collator, segments, top_k, temperature)
        if side is not None and store is None and config.targets == "cache":  # streaming is refused before
            raise InvalidConfig(
                f"targets 'cache' needs every sequence to be masked in the same few ways, and the losses "
                f"{', '.join(weights)} mask it anew at each visit; set maskings to 1 or more, or targets to live"
            )
        return cls(
            material, blueprint, distiller, side, collator, budget, source, _batches(heldout, collator), store, started
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
    material: Material,
    sample: Sequence[NDArray[np.int32]],
    searched: Path | None,
) -> tuple[Student, str]:
    """The untrained student, and where its weights come from."""
    teacher = material.teacher
    initialise = config.initialise or ("search" if searched else "inherit" if teacher else "scratch")
    if initialise == "search":
        if searched is None:
            raise InvalidConfig(
                f"initialise 'search': the search in {material.run} left no weights of {architecture}; "
                "select it there first, or set initialise to inherit"
            )
        return load_weights(Student(architecture, blueprint), searched), "the search's own training of it"
    if initialise == "scratch":
        return Student(architecture, blueprint), "random weights"
    assert teacher is not None
    lowest = initialise == "inherit-lowest"
    student = inherit(architecture, blueprint, teacher, material.anatomy(sample, lowest))
    return student, f"the teacher's {'lowest layers' if lowest else 'weights'}, reduced"


def _batches(heldout: Sequence[NDArray[np.int32]], collator: Collator) -> list[Inputs]:
    """Batches of similar length. Their masks are those of an epoch that training never reaches."""
    groups = by_length([len(sequence) for sequence in heldout], BATCH)
    fixed = replace(collator, maskings=0, seed=0)
    return [fixed([heldout[int(row)] for row in rows], rows, torch.iinfo(torch.int32).max) for rows in groups]
