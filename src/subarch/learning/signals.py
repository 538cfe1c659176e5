"""The errors of the search: what a candidate learns from, and how its error is measured.

All of them train on the same segments, whose teacher targets are computed once and cached, and measure on the same
held-out segments. `extraction.estimate.Signal` is the protocol they implement. A new error is a class here.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from subarch.errors import InvalidConfig, InvalidCorpus, InvalidTeacher
from subarch.learning.collate import Collator, Inputs
from subarch.learning.distill import distillation, embedding_distance, masked_lm, rows_of
from subarch.learning.outputs import constant, counts_of, divergence, flat, gold_of, metric_of, score
from subarch.learning.targets import TargetCache
from subarch.models.outputs import TaskTeacher
from subarch.models.sentence import Recipe
from subarch.models.source import AnyTeacher
from subarch.models.student import Student
from subarch.models.teacher import BATCH, Teacher, assemble, choices_of, embed
from subarch.run import Report
from subarch.tasks.scoring import Embed, Task
from subarch.text.batches import by_length
from subarch.text.corpus import Segments
from subarch.text.masking import Masker

TEMPERATURE, KL_WEIGHT, MLM_WEIGHT = 2.0, 0.5, 0.1
"""The released scripts of arXiv 2010.10499: 0.5 τ² KL + 0.1 cross-entropy, τ = 2."""

Forward = Callable[[Tensor, Tensor], Tensor]
"""(n, length) ids and mask to (n, K) embeddings: a student, or the teacher."""


class Reader(Protocol):
    """How a model reads: a `Teacher`, or the material of a training."""

    @property
    def tokenizer(self) -> Any: ...
    @property
    def recipe(self) -> Recipe: ...


class EmbeddingSignal:
    """How far a student's sentence embeddings are from the teacher's, as the share of what a constant vector leaves.

    The mean cosine distance on the held-out sequences, divided by the one of the vector that is nearest to all of the
    teacher's on average: 0 is the teacher, 1 is what knows nothing of the text. (Ours; the distance itself means little
    for a teacher all of whose vectors are alike, as those of E5 are.) Training minimises the plain distance.

    `train` and `heldout` are segments without special tokens, of which the first `needed` training ones are used.
    Where they have texts, the teacher reads these; else it reads the same tokens as the student.

    Args:
        reader: how the student reads.

    Raises:
        InvalidTeacher: all held-out vectors are the same, so there is nothing to learn.
    """

    def __init__(
        self,
        teacher: AnyTeacher,
        reader: Reader,
        train: Segments,
        heldout: Segments,
        needed: int,
        cache: TargetCache,
        report: Report,
    ) -> None:
        self.reader, self.train, self.heldout = reader, train, heldout

        def get(part: str, segments: Segments, count: int) -> Tensor:
            def compute(piece: range) -> Tensor:
                return vectors_of(teacher, segments[piece.start : piece.stop]).half()

            return cache.rows(("embedding", part), len(segments), count, compute, _progress(report))

        self.heldout_targets = get("heldout", heldout, len(heldout)).double()
        self.targets = get("train", train, needed)
        self.constant = constant_distance(self.heldout_targets)
        if self.constant < 1e-6:
            raise InvalidTeacher(
                f"{teacher.name}: its vectors of {len(heldout)} held-out texts are all the same, so there is nothing "
                "to learn; is it trained, and is its prompt shorter than its maximum length?"
            )

    def read_by(self, reader: Reader, train: Segments, heldout: Segments) -> EmbeddingSignal:
        """The same texts and vectors for students that read with another tokenizer: its tokens, in the same order."""
        other = copy.copy(self)
        other.reader, other.train, other.heldout = reader, train, heldout
        return other

    @property
    def lengths(self) -> NDArray[np.int64]:
        return self.train.size

    def loss(self, student: Student, rows: NDArray[np.int64], epoch: int) -> Tensor:
        batch = assemble([self.train[row] for row in rows], self.reader.tokenizer, self.reader.recipe)
        return embedding_distance(student(batch.ids, batch.mask), self.targets[torch.from_numpy(rows)].float())

    def error(self, student: Forward) -> float:
        own = embed(student, self.heldout, self.reader.tokenizer, self.reader.recipe)
        return float(embedding_distance(own.double(), self.heldout_targets)) / self.constant

    def error_by_language(self, student: Forward, names: Sequence[str]) -> dict[str, float]:
        """The error on the held-out sequences of each language, as a share of the same constant's.

        The mean over all sequences is the error. Languages without a held-out sequence are left out.

        Args:
            names: of the languages by their number in the corpus.
        """
        assert self.heldout.languages is not None
        own = embed(student, self.heldout, self.reader.tokenizer, self.reader.recipe).double()
        found = {}
        for number, name in enumerate(names):
            rows = torch.from_numpy(np.flatnonzero(self.heldout.languages == number))
            if len(rows):
                found[name] = float(embedding_distance(own[rows], self.heldout_targets[rows])) / self.constant
        return found


def constant_distance(vectors: Tensor) -> float:
    """Mean cosine distance of (n, K) vectors to the one vector that is nearest to all of them: 1 - |mean direction|."""
    return float(1 - nn.functional.normalize(vectors.double(), dim=-1).mean(0).norm())


def vectors_of(teacher: AnyTeacher, segments: Segments) -> Tensor:
    """(n, width) vectors of the segments: of their texts where they have some, else of their tokens."""
    if segments.texts is not None:
        return teacher.embed_texts(segments.texts)
    assert isinstance(teacher, Teacher)
    return teacher.embed(segments)


class OutputsSignal:
    """How far a student's outputs for a task are from the teacher's, as the share of what a constant leaves.

    The measure depends on what the outputs are: see `learning.outputs`. It is what training minimises, too.

    Args:
        train, heldout: inputs of the task without special tokens, of which the first `needed` training ones are used.

    Raises:
        InvalidTeacher: on all held-out inputs the outputs are the same, so there is nothing to learn.
    """

    def __init__(
        self,
        teacher: TaskTeacher,
        recipe: Recipe,
        train: Segments,
        heldout: Segments,
        needed: int,
        cache: TargetCache,
        report: Report,
    ) -> None:
        self.teacher, self.recipe, self.train, self.heldout = teacher, recipe, train, heldout
        self.kind = teacher.outputs.kind
        self.targets = self._targets("train", train[:needed], cache, report)
        self.heldout_targets = self._targets("heldout", heldout, cache, report)
        self.constant = constant(self.kind, torch.cat(self.heldout_targets), self.counts(heldout))
        if self.constant < 1e-6:
            raise InvalidTeacher(
                f"{teacher.name}: its outputs of {len(heldout)} held-out inputs are all the same (they are "
                f"{self.constant:.1g} from a constant on average), so there is nothing to learn; is it fine-tuned, and "
                "for such inputs?"
            )

    def counts(self, segments: Segments) -> Tensor | None:
        """(n,) rows of outputs of each input; None: one each."""
        if self.kind == "tags":
            return torch.tensor([min(len(segment), self.recipe.max_length - 2) for segment in segments])
        if self.kind == "choices":
            return torch.tensor([len(choices_of(segment)) for segment in segments])
        return None

    def _targets(self, part: str, segments: Segments, cache: TargetCache, report: Report) -> list[Tensor]:
        """The teacher's rows of outputs of each input."""
        counts = self.counts(segments)
        sizes = [1] * len(segments) if counts is None else counts.tolist()

        def compute(piece: range) -> Tensor:
            some = segments[piece.start : piece.stop]
            return torch.cat(outputs_of(self.teacher, self.recipe, self.teacher.model, some))

        rows = cache.rows(("outputs", part), len(segments), len(segments), compute, _progress(report))
        return list(torch.split(rows, sizes))

    @property
    def lengths(self) -> NDArray[np.int64]:
        return self.train.size

    def loss(self, student: Student, rows: NDArray[np.int64], epoch: int) -> Tensor:
        batch = assemble([self.train[row] for row in rows], self.teacher.tokenizer, self.recipe)
        own = flat(self.teacher.outputs, student(batch.ids, batch.mask), batch.mask)
        counts = counts_of(self.teacher.outputs, batch.mask, batch.choices)
        theirs = torch.cat([self.targets[row] for row in rows])
        return divergence(self.kind, own, theirs, counts).mean() / self.constant

    def error(self, student: Forward) -> float:
        own = torch.cat(outputs_of(self.teacher, self.recipe, student, self.heldout)).double()
        theirs = torch.cat(self.heldout_targets).double()
        return float(divergence(self.kind, own, theirs, self.counts(self.heldout)).mean()) / self.constant


@torch.inference_mode()
def outputs_of(teacher: TaskTeacher, recipe: Recipe, model: Forward, segments: Segments) -> list[Tensor]:
    """The rows of outputs of each input (`learning.outputs.flat`) by the teacher or a student, in fp32."""
    found: list[Tensor] = [Tensor()] * len(segments)
    for numbers in by_length(segments.size, BATCH):
        batch = assemble([segments[number] for number in numbers], teacher.tokenizer, recipe)
        counts = counts_of(teacher.outputs, batch.mask, batch.choices)
        rows = flat(teacher.outputs, model(batch.ids, batch.mask).float(), batch.mask)
        parts = torch.split(rows, 1 if counts is None else counts.tolist())
        for number, part in zip(numbers, parts, strict=True):
            found[number] = part.clone()
    return found


class GoldSignal:
    """Trained on a teacher's outputs; the error is 1 - the official score against the labels of the held-out inputs.

    Raises:
        InvalidConfig: the inputs have no labels.
        InvalidCorpus: a label that the teacher does not know, or labels of which the teacher itself gets none right.
    """

    def __init__(self, training: OutputsSignal) -> None:
        self.training = training
        self.loss, self.lengths = training.loss, training.lengths
        labels = training.heldout.labels
        if labels is None:
            raise InvalidConfig(
                "error 'task' is a score against labels, and the inputs have none; give records with a label, or use "
                "error outputs"
            )
        self.truth = [gold_of(training.teacher.outputs, label) for label in labels]
        teacher = training.teacher
        self.reference = 1 - score(teacher.outputs, self.truth, training.heldout_targets)
        if self.reference >= 1:
            raise InvalidCorpus(
                f"{teacher.name}: its own {metric_of(teacher.outputs)} against the labels of {len(labels)} held-out "
                f"inputs is {1 - self.reference:.3g}, so there is nothing to keep of it; are they labels of its task, "
                "and enough of them?"
            )

    def error(self, student: Forward) -> float:
        teacher, recipe = self.training.teacher, self.training.recipe
        return 1 - score(teacher.outputs, self.truth, outputs_of(teacher, recipe, student, self.training.heldout))


class TaskSignal:
    """Trained on the teacher's embeddings; the error is 1 - score on the user's own set."""

    def __init__(self, training: EmbeddingSignal, task: Task) -> None:
        self.training, self.task = training, task
        self.loss, self.lengths = training.loss, training.lengths

    def read_by(self, reader: Reader, train: Segments, heldout: Segments) -> TaskSignal:
        """See `EmbeddingSignal.read_by`."""
        return TaskSignal(self.training.read_by(reader, train, heldout), self.task)

    def error(self, student: Student) -> float:
        return 1 - self.score(text_embedder(student, self.training.reader))

    def score(self, embed_texts: Embed) -> float:
        """The first score of the task for anything that maps texts to embeddings."""
        return next(iter(self.task.scores(embed_texts).values()))


def teacher_embedder(teacher: AnyTeacher) -> Embed:
    """Texts to the teacher's own embeddings."""
    return lambda texts: teacher.embed_texts(texts).numpy()


def text_embedder(model: Forward, reader: Reader) -> Embed:
    """Texts to embeddings of a model that reads with this tokenizer, prefix and maximum length."""

    def embed_texts(texts: list[str]) -> NDArray[np.float32]:
        room = reader.recipe.max_length
        ids = reader.tokenizer(texts, add_special_tokens=False, truncation=True, max_length=room)["input_ids"]
        return embed(model, ids, reader.tokenizer, reader.recipe).numpy()

    return embed_texts


class MaskedLMSignal:
    """Masked-LM cross-entropy, or the paper's distillation where a teacher with a masked-LM head is given.

    Masks depend on the segment and the epoch alone, so what the teacher says there can be cached: its last hidden
    states at the masked positions (H numbers each), which its head turns into logits (V numbers each).

    Args:
        needed: how many training segments a run visits, over all epochs.
        teacher, cache: both or neither; None for masked LM without a teacher.

    Raises:
        InvalidTeacher: the teacher has no masked-LM head, or the tokenizer no mask token.
    """

    def __init__(
        self,
        tokenizer: Any,
        train: Segments,
        heldout: Segments,
        max_length: int,
        needed: int,
        report: Report,
        teacher: Teacher | None = None,
        cache: TargetCache | None = None,
    ) -> None:
        self.teacher, self.needed, self.cache, self.report = teacher, needed, cache, report
        self.train, self.heldout = train, heldout
        masker, recipe = Masker(tokenizer), Recipe(max_length=max_length)
        seeds = {"train": 1, "heldout": 0}
        self.collators = {part: Collator(tokenizer, recipe, masker, seed) for part, seed in seeds.items()}
        self._states: dict[tuple[str, int], tuple[Tensor, NDArray[np.int64]]] = {}
        # Asked for first: a teacher without one is refused before anything is computed
        self._head = teacher.head if teacher is not None else None
        if teacher is not None:
            self._teacher_states("heldout", np.arange(1), 0)
            for epoch in range(-(-needed // len(train))):
                self._teacher_states("train", np.arange(1), epoch)

    @property
    def lengths(self) -> NDArray[np.int64]:
        return self.train.size

    def loss(self, student: Student, rows: NDArray[np.int64], epoch: int) -> Tensor:
        return self._loss(student, "train", rows, epoch)

    @torch.inference_mode()
    def error(self, student: Student) -> float:
        groups = by_length(self.heldout.size, BATCH)
        return sum(float(self._loss(student, "heldout", rows, 0)) * len(rows) for rows in groups) / len(self.heldout)

    def _loss(self, student: Student, part: str, rows: NDArray[np.int64], epoch: int) -> Tensor:
        inputs = self._masked(part, rows, epoch)
        assert inputs.where is not None
        assert inputs.labels is not None
        logits = student.head(rows_of(student.hidden(inputs.ids, inputs.mask), inputs.where))
        cross_entropy = masked_lm(logits, inputs.labels)
        if self._head is None:
            return cross_entropy
        with torch.inference_mode():
            theirs = self._head(self._teacher_states(part, rows, epoch))
        return KL_WEIGHT * distillation(logits, theirs.clone(), TEMPERATURE) + MLM_WEIGHT * cross_entropy

    def _masked(self, part: str, rows: NDArray[np.int64], epoch: int) -> Inputs:
        segments = self._segments(part)
        return self.collators[part]([segments[row] for row in rows], rows, epoch)

    def _segments(self, part: str) -> Segments:
        return self.train if part == "train" else self.heldout

    def _teacher_states(self, part: str, rows: NDArray[np.int64], epoch: int) -> Tensor:
        """(m, H) hidden states of the teacher at the masked positions of `rows`."""
        if (part, epoch) not in self._states:
            self._states[part, epoch] = self._compute_states(part, epoch)
        states, start = self._states[part, epoch]
        return torch.cat([states[start[row] : start[row + 1]] for row in rows]).float()

    def _compute_states(self, part: str, epoch: int) -> tuple[Tensor, NDArray[np.int64]]:
        """The teacher's states at the masked positions of an epoch, and where those of each segment start."""
        teacher, cache, segments, collator = self.teacher, self.cache, self._segments(part), self.collators[part]
        assert teacher is not None
        assert cache is not None
        # A run of several epochs draws all segments in each: the incomplete batch at an epoch's end shifts the next
        needed = min(len(segments), self.needed) if part == "train" else len(segments)

        @torch.inference_mode()
        def compute(piece: range) -> Tensor:
            found = []
            for start in range(piece.start, piece.stop, BATCH):
                inputs = self._masked(part, np.arange(start, min(start + BATCH, piece.stop)), epoch)
                assert inputs.where is not None
                hidden = teacher.encoder(input_ids=inputs.ids, attention_mask=inputs.mask).last_hidden_state
                found.append(rows_of(hidden, inputs.where).half())
            return torch.cat(found)

        assert collator.masker is not None
        settings = (collator.masker.scheme, part, epoch)
        states = cache.rows(settings, len(segments), needed, compute, _progress(self.report))
        rows = np.arange(needed)
        counts = [len(at) for at, _ in collator.masks([segments[row] for row in rows], rows, epoch)]
        return states, np.concatenate([[0], np.cumsum(counts)])


def _progress(report: Report) -> Callable[[int, int], None]:
    return lambda done, total: report("teacher targets", done, total)
