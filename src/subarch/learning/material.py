"""What any training of a student works with: the teacher, the tokenizer, the text, and where students start.

Loading can be repeated: what the run folder holds already (packed corpus, tokenizer, anatomy of the teacher) is opened,
what is missing is made. So the first process makes it, and every further one opens it within seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import chain
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from subarch.errors import InvalidConfig, InvalidCorpus
from subarch.learning.targets import TargetCache
from subarch.learning.vocabularies import VOCABULARIES, Reader, range_of
from subarch.models.inherit import Anatomy
from subarch.models.outputs import TaskTeacher
from subarch.models.sentence import Recipe, pool
from subarch.models.source import AnyTeacher, is_of_task, source_of
from subarch.models.stock import StockTeacher
from subarch.models.student import Blueprint
from subarch.models.teacher import Teacher, embed
from subarch.models.vocabulary import check_padding
from subarch.run import Report, silent
from subarch.run.folder import RunFolder
from subarch.run.records import Layers
from subarch.text.corpus import Corpus, Segments, build, own_tokenizer
from subarch.text.vectors import RecordedVectors
from subarch.text.vocabulary import check_written, unwritten_by_language

OF_PROSE, OF_INPUTS = 0.05, 0.1
"""Shares of a corpus that are held out: of the inputs of a task there are fewer."""
PAYS = 0.5
"""Share of a vocabulary below which the rows of its other tokens are left out of a student's table."""
READOUT = 2048
"""Sequences that the map from the start's vectors to the teacher's is fitted on, as far as there are so many."""
RIDGES = 10.0 ** np.arange(-5, 3)
"""Tried for the map from the start's vectors to the teacher's, relative to the mean variance of the former."""


class Wanted(Protocol):
    """The keys of a configuration that are read here."""

    @property
    def teacher(self) -> Path | None: ...
    @property
    def start_from(self) -> Path | None: ...
    @property
    def prompt(self) -> str | None: ...
    @property
    def initialise(self) -> str | None: ...
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

    `start` is the encoder whose weights, tokenizer and family students have: the teacher itself where that can be, else
    what `start_from` names, or None. `handed_over` is how students read when they are handed over, `recipe` how they
    read here: no more tokens than the configuration says.

    `sizes` are the vocabularies besides the whole one that students may have. If there are any, the corpus is cut into
    texts, which the teacher reads with the whole vocabulary and each student with its own (`keeping`); `reader` is
    that of the vocabulary that is kept here, None: the whole one.
    """

    run: Path
    teacher: AnyTeacher | None
    start: Teacher | None
    tokenizer: Any
    handed_over: Recipe
    recipe: Recipe
    corpus: Corpus | None
    sizes: tuple[int, ...] = ()
    reader: Reader | None = None

    @classmethod
    def load(
        cls,
        wanted: Wanted,
        run: Path,
        report: Report = silent,
        streaming: bool = False,
        vocabularies: Callable[[int], Sequence[int]] = lambda whole: (),
    ) -> Material:
        """Load or make everything; with `streaming` no corpus is packed.

        Args:
            vocabularies: the sizes of vocabularies that students may have besides the whole one, of this size.

        Raises:
            InvalidTeacher, InvalidCorpus: see `source_of`, `Teacher.load` and `corpus.build`; a language that the
                tokenizer cannot write.
            InvalidConfig: students cannot start from this teacher, and nothing says what else they start from; or
                there is no vocabulary that could be cut, or a loss that compares tokens.
        """
        teacher, start = teacher_and_start(wanted)
        tokenizer = (
            start.tokenizer
            if start is not None
            else own_tokenizer(wanted.corpus, wanted.text_column, wanted.vocabulary_size, run / "tokenizer")
        )
        handed_over = recipe_of(teacher, start, wanted.max_length)
        recipe = replace(handed_over, max_length=min(wanted.max_length, handed_over.max_length))
        sizes = tuple(vocabularies(start.inputs(0).vocabulary)) if start is not None else tuple(vocabularies(0))
        if sizes and (start is None or teacher is None or isinstance(teacher, TaskTeacher)):
            why = "students have a tokenizer of their own (see vocabulary_size)"
            if isinstance(teacher, TaskTeacher):
                why = "outputs for a task are compared input by input, of teacher and student alike"
            elif start is not None:
                why = "without a teacher nothing compares what students with different vocabularies learn"
            raise InvalidConfig(f"vocabulary {sizes[0]}: {why}; leave the vocabulary whole")
        found = cls(run, teacher, start, tokenizer, handed_over, recipe, None, sizes)
        if streaming:
            return found
        # Pieces as long as the student reads; a recorded vector is of the whole text
        reads_text = found.reads_text
        length = recipe.max_length - 2 if reads_text and not isinstance(teacher, RecordedVectors) else None
        corpus = build(
            wanted.corpus,
            tokenizer,
            run / "corpus",
            text_column=wanted.text_column,
            heldout_fraction=OF_INPUTS if isinstance(teacher, TaskTeacher) else OF_PROSE,
            texts=reads_text,
            piece=length,
            between=teacher.between if isinstance(teacher, TaskTeacher) else None,
            progress=lambda done, unit: report(f"reading the corpus ({unit})", done, 0),
        )
        if isinstance(teacher, TaskTeacher):
            teacher.check_form(corpus.meta.form, wanted.corpus)
        check_written(unwritten_by_language(corpus, tokenizer))
        return replace(found, corpus=corpus)

    @property
    def learns_another(self) -> bool:
        """Whether the teacher is another encoder than the one that students start from."""
        return self.teacher is not None and self.teacher is not self.start and not isinstance(self.teacher, TaskTeacher)

    @property
    def reads_text(self) -> bool:
        """Whether the teacher reads text, since the student's tokens are not, or not always, its own."""
        return self.learns_another or bool(self.sizes)

    def keeping(self, size: int) -> Material:
        """The same for students with a vocabulary of this size; 0: the whole one.

        They read the same texts whole, in more tokens: as many as they can read once they are handed over.

        Raises:
            InvalidArchitecture, InvalidVocabulary: see `Reader.open`.
            InvalidCorpus: it cannot write a language of the corpus.
        """
        if not size:
            return self
        assert self.corpus is not None
        reader = Reader.open(self.run / VOCABULARIES, self.tokenizer, self.corpus, self.recipe.prefix, size)
        corpus = reader.read(self.corpus)
        before = unwritten_by_language(self.corpus, self.tokenizer)
        check_written(unwritten_by_language(corpus, reader.tokenizer), before)
        return replace(self, tokenizer=reader.tokenizer, recipe=self.handed_over, corpus=corpus, reader=reader)

    @property
    def vocabularies(self) -> tuple[int, int]:
        """The least size of a vocabulary for this corpus, and the largest of which it uses every token."""
        assert self.corpus is not None
        return range_of(self.corpus, self.tokenizer, self.recipe.prefix)

    @property
    def tokens(self) -> NDArray[np.int64]:
        """(n,) tokens of each training text as a student reads it when it is handed over, special ones included."""
        assert self.corpus is not None
        return np.minimum(self.corpus.train.size + 2, self.handed_over.max_length)

    def split(self, wanted: Wanted, length: int) -> tuple[Segments, Segments]:
        """Training and held-out sequences of at most `length` tokens; of the latter as many as are wanted."""
        assert self.corpus is not None
        heldout = self.corpus.segments("heldout", length).shuffled()[: wanted.heldout]
        check_heldout(heldout, wanted.corpus)
        return self.corpus.segments("train", length), heldout

    def targets(self) -> TargetCache:
        assert self.teacher is not None
        assert self.corpus is not None
        # A teacher that reads text reads it whole, whatever students read of it
        text = self.corpus.content_hash + ("" if self.sizes else f" {self.recipe.max_length}")
        return TargetCache(self.run / "targets", self.teacher.fingerprint, text)

    def blueprint(self, masked_lm: bool, sentence: bool | None = None, own_space: bool = False) -> Blueprint:
        """What all students have in common; see `Blueprint.of_teacher`. Without a teacher they are masked LMs.

        `own_space`: their embeddings stay in the space of what they start from, whatever the teacher's width.
        """
        if isinstance(self.teacher, TaskTeacher):
            return Blueprint.of_task(self.teacher, self.start or self.teacher)
        if self.start is None:
            return Blueprint.of_tokenizer(self.tokenizer, self.teacher.width if self.teacher is not None else 0)
        teacher = None if own_space or self.teacher is self.start else self.teacher
        width = teacher.width if teacher is not None else None
        found = Blueprint.of_teacher(self.start, masked_lm, sentence, width)
        if self.reader is None:
            return found
        settings = self.reader.renumbered(found.settings)
        check_padding(found.family, found.settings["pad_token_id"], settings["pad_token_id"])
        return replace(found, settings=settings)

    def rows(self, parts: Sequence[Segments], texts: Sequence[str] = ()) -> Tensor | None:
        """(n,) ascending ids of all tokens that a student of the start reads in these parts and texts.

        None where they are so many that leaving out the others does not pay (`PAYS`).
        """
        assert self.start is not None
        vocabulary = len(self.reader.kept) if self.reader is not None else self.start.inputs(0).vocabulary
        given = self.tokenizer(
            [self.recipe.prefix, *texts], add_special_tokens=False, truncation=True, max_length=self.recipe.max_length
        )
        ids = [*self.tokenizer.all_special_ids, *chain.from_iterable(given["input_ids"])]
        found = reduce(np.union1d, (part.occurring() for part in parts), np.array(ids, np.int64))
        return torch.from_numpy(found) if len(found) < PAYS * vocabulary else None

    def layers(self, depth: int) -> tuple[int, ...] | None:
        """The start's layers that a search in this run has chosen for students of this depth; None: it has not.

        Read at each call, since workers that try layers train with those that are chosen afterwards.
        """
        assert self.start is not None
        run = RunFolder(self.run)
        found = run.read(Layers) if run.has(Layers) else None
        return found.chosen.get(str(depth)) if found and found.start == self.start.fingerprint else None

    def anatomy(self, sample: Sequence[NDArray[np.int32]]) -> Anatomy:
        """The anatomy, on a sample of the text, of what students start from; kept in the run folder."""
        assert self.start is not None
        text = [[int(token) for token in segment] for segment in sample]
        name = hashlib.sha256(f"{self.start.fingerprint} {text}".encode()).hexdigest()[:16]
        return Anatomy.cached(self.run / f"anatomy-{name}.safetensors", self.start, sample)

    def readout(self, train: Segments, vectors: Callable[[Segments], Tensor]) -> Tensor | None:
        """The linear map from the start's pooled vectors to the teacher's space, (width, K + 1), its bias last.

        Fitted by ridge regression on some of the training sequences (shuffled), kept in the run folder. None where the
        teacher is the start: then its own dense maps are what students inherit.

        Args:
            vectors: the teacher's, (n, width), of n sequences.
        """
        if not self.learns_another or self.start is None:
            return None
        segments = train[:READOUT]
        start, recipe = self.start, replace(self.start.recipe, max_length=self.recipe.max_length)

        def pooled(ids: Tensor, mask: Tensor) -> Tensor:
            return pool(start.encoder(input_ids=ids, attention_mask=mask).last_hidden_state, mask, recipe.pooling)

        def fit() -> Tensor:
            return ridge(embed(pooled, segments, self.tokenizer, recipe), vectors(segments))

        return self.targets().get(("readout", start.fingerprint, len(segments)), fit)

    def token_vectors(self) -> Tensor | None:
        """(V, width) the teacher's vectors of the tokens of a vocabulary of our own, in 16 bits.

        What model2vec distils: with them a student without layers is a static encoder already. None where the student
        has the tokenizer of another encoder, or the teacher cannot be asked.
        """
        teacher = self.teacher
        if self.start is not None or teacher is None or isinstance(teacher, RecordedVectors):
            return None
        decoded = [self.tokenizer.decode([token]).strip() for token in range(len(self.tokenizer))]
        texts = [text or self.tokenizer.convert_ids_to_tokens(token) for token, text in enumerate(decoded)]
        return self.targets().get(("tokens", tuple(texts)), lambda: teacher.embed_texts(texts).half()).float()


def ridge(own: Tensor, theirs: Tensor) -> Tensor:
    """The linear map from (n, K) vectors to the directions of (n, width) others, (width, K + 1), its bias last.

    Ridge regression; of `RIDGES` the one with the least squared error on rows that are left out, one at a time.
    """
    own, wanted = own.double(), nn.functional.normalize(theirs.double(), dim=-1)
    own_mean, mean = own.mean(0), wanted.mean(0)
    u, s, vt = torch.linalg.svd(own - own_mean, full_matrices=False)
    products = u.T @ (wanted - mean)
    best, least = None, float("inf")
    for penalty in RIDGES * float(s.square().mean()):
        kept = s.square() / (s.square() + penalty)
        leverage = (u.square() @ kept + 1 / len(own)).clamp(max=1 - 1e-9)
        error = float((((wanted - mean) - u @ (kept[:, None] * products)) / (1 - leverage)[:, None]).square().sum())
        if error < least or best is None:
            weight = (vt.T @ ((s / (s.square() + penalty))[:, None] * products)).T
            best, least = torch.cat([weight, (mean - weight @ own_mean)[:, None]], 1), error
    assert best is not None
    return best


def teacher_and_start(wanted: Wanted) -> tuple[AnyTeacher | None, Teacher | None]:
    """The teacher, and the encoder whose weights, tokenizer and family students have; errors: see `Material.load`."""
    if wanted.teacher is None and wanted.prompt is not None:
        raise InvalidConfig(f"prompt {wanted.prompt!r} is put before what a teacher reads, and there is none; drop it")
    teacher = source_of(wanted.teacher, wanted.prompt) if wanted.teacher is not None else None
    start = teacher if isinstance(teacher, Teacher) else None
    if wanted.start_from is not None:
        has_task = isinstance(teacher, TaskTeacher) and is_of_task(wanted.start_from)
        named = (TaskTeacher if has_task else Teacher).load(wanted.start_from).with_prefix(prompt_of(teacher))
        if isinstance(teacher, TaskTeacher) and named.tokenizer.get_vocab() != teacher.tokenizer.get_vocab():
            raise InvalidConfig(
                f"start_from {wanted.start_from}: reads with another tokenizer than the teacher {teacher.name}, whose "
                "outputs are compared input by input; start from an encoder with the teacher's tokenizer"
            )
        if start is None or named.fingerprint != start.fingerprint:  # else it names the teacher itself
            start = named
    if start is None and teacher is not None and wanted.initialise not in ("scratch", "search"):
        raise InvalidConfig(
            f"{no_start(teacher)}; name one with start_from, {cached_models()}; or set initialise to scratch"
        )
    return teacher, start


def no_start(teacher: AnyTeacher) -> str:
    """Why no student can take weights from this teacher."""
    why = teacher.reason if isinstance(teacher, StockTeacher) else "it is a record of vectors, without weights"
    return f"students cannot start from the teacher {teacher.name} ({why}), so they need another encoder to start from"


def cached_models() -> str:
    """What a user could name: models that this machine has already."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    advice = "a folder or hub name of a small BERT-like encoder such as sentence-transformers/all-MiniLM-L6-v2"
    try:
        found = sorted(repo.repo_id for repo in scan_cache_dir().repos if repo.repo_type == "model")
    except CacheNotFound:
        found = []
    return f"{advice}; in the cache of this machine: {', '.join(found)}" if found else advice


def prompt_of(teacher: AnyTeacher | None) -> str:
    """What stands before every text that a teacher reads. A student reads it too."""
    if isinstance(teacher, Teacher):
        return teacher.recipe.prefix
    return teacher.prompt if isinstance(teacher, StockTeacher) else ""


def recipe_of(teacher: AnyTeacher | None, start: Teacher | None, max_length: int) -> Recipe:
    """How students read and pool: as the teacher where they start from it, else as what they start from.

    A student of another encoder than the teacher gives vectors of length 1: directions are what it learns. Without a
    teacher or a start students read `max_length` tokens.
    """
    if start is not None and (teacher is start or teacher is None):
        return start.recipe
    own = Recipe(max_length=max_length) if start is None else start.recipe
    recipe = Recipe(pooling=own.pooling, normalize=teacher is not None, max_length=own.max_length)
    if isinstance(teacher, TaskTeacher):
        return replace(teacher.recipe, max_length=min(teacher.recipe.max_length, own.max_length))
    if isinstance(teacher, Teacher):
        said = teacher.recipe
        return replace(recipe, prefix=said.prefix, prompts=said.prompts, similarity=said.similarity)
    if isinstance(teacher, StockTeacher):
        prompts = tuple(teacher.prompts.items())
        return replace(recipe, prefix=teacher.prompt, prompts=prompts, similarity=teacher.similarity)
    return recipe


def check_heldout(sequences: Sequence[Any], corpus: list[str]) -> None:
    """Refuse a corpus that leaves too little to measure an error on."""
    if len(sequences) < 2:
        raise InvalidCorpus(f"{corpus}: {len(sequences)} held-out sequences; give more text")
