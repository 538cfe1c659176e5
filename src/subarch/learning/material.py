"""What any training of a student works with: the teacher, the tokenizer, the text, and where students start.

Loading can be repeated: what the run folder holds already (packed corpus, tokenizer, anatomy of the teacher) is opened,
what is missing is made. So the first process makes it, and every further one opens it within seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from subarch.errors import InvalidCorpus
from subarch.learning.targets import TargetCache
from subarch.models.inherit import Anatomy
from subarch.models.sentence import Recipe
from subarch.models.student import Blueprint
from subarch.models.teacher import Teacher
from subarch.run import Report, silent
from subarch.run.folder import RunFolder
from subarch.run.records import Layers
from subarch.text.corpus import Corpus, Segments, build, own_tokenizer


class Wanted(Protocol):
    """The keys of a configuration that are read here."""

    @property
    def teacher(self) -> Path | None: ...
    @property
    def corpus(self) -> list[str]: ...
    @property
    def text_column(self) -> str: ...
    @property
    def vocabulary_size(self) -> int: ...
    @property
    def max_length(self) -> int: ...
    @property
    def heldout(self) -> int: ...


@dataclass(frozen=True)
class Material:
    """See the module. `teacher` is None for masked LM alone, `corpus` where the text is read as it is needed.

    `recipe` is how sequences are read: as the teacher reads them, and no longer than the configuration says.
    """

    run: Path
    teacher: Teacher | None
    tokenizer: Any
    recipe: Recipe
    corpus: Corpus | None

    @classmethod
    def load(cls, wanted: Wanted, run: Path, report: Report = silent, streaming: bool = False) -> Material:
        """Load or make everything; with `streaming` no corpus is packed. Errors: see `Teacher.load`, `corpus.build`."""
        teacher = Teacher.load(wanted.teacher) if wanted.teacher is not None else None
        tokenizer = (
            teacher.tokenizer
            if teacher is not None
            else own_tokenizer(wanted.corpus, wanted.text_column, wanted.vocabulary_size, run / "tokenizer")
        )
        recipe = teacher.recipe if teacher is not None else Recipe()
        recipe = replace(recipe, max_length=min(wanted.max_length, recipe.max_length))
        corpus = None
        if not streaming:
            corpus = build(
                wanted.corpus,
                tokenizer,
                run / "corpus",
                text_column=wanted.text_column,
                progress=lambda done, unit: report(f"reading the corpus ({unit})", done, 0),
            )
        return cls(run, teacher, tokenizer, recipe, corpus)

    def split(self, wanted: Wanted, length: int) -> tuple[Segments, Segments]:
        """Training and held-out sequences of at most `length` tokens; of the latter as many as are wanted."""
        assert self.corpus is not None
        heldout = self.corpus.segments("heldout", length).shuffled()[: wanted.heldout]
        check_heldout(heldout, wanted.corpus)
        return self.corpus.segments("train", length), heldout

    def targets(self) -> TargetCache:
        assert self.teacher is not None
        assert self.corpus is not None
        text = f"{self.corpus.content_hash} {self.recipe.max_length}"
        return TargetCache(self.run / "targets", self.teacher.fingerprint, text)

    def blueprint(self, masked_lm: bool, sentence: bool | None = None) -> Blueprint:
        """What all students have in common; see `Blueprint.of_teacher`. Without a teacher they are masked LMs."""
        if self.teacher is None:
            return Blueprint.of_tokenizer(self.tokenizer)
        return Blueprint.of_teacher(self.teacher, masked_lm, sentence)

    def layers(self, depth: int) -> tuple[int, ...] | None:
        """The teacher's layers that a search in this run has chosen for students of this depth; None: it has not.

        Read at each call, since workers that try layers train with those that are chosen afterwards.
        """
        assert self.teacher is not None
        run = RunFolder(self.run)
        found = run.read(Layers) if run.has(Layers) else None
        return found.chosen.get(str(depth)) if found and found.start == self.teacher.fingerprint else None

    def anatomy(self, sample: Sequence[NDArray[np.int32]]) -> Anatomy:
        """The teacher's anatomy on a sample of the text, kept in the run folder."""
        assert self.teacher is not None
        text = [[int(token) for token in segment] for segment in sample]
        name = hashlib.sha256(f"{self.teacher.fingerprint} {text}".encode()).hexdigest()[:16]
        return Anatomy.cached(self.run / f"anatomy-{name}.safetensors", self.teacher, sample)


def check_heldout(sequences: Sequence[Any], corpus: list[str]) -> None:
    """Refuse a corpus that leaves too little to measure an error on."""
    if len(sequences) < 2:
        raise InvalidCorpus(f"{corpus}: {len(sequences)} held-out sequences; give more text")
