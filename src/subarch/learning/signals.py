"""The four errors: what a candidate learns from, and how its error is measured.

All of them train on the same pool of segments, whose teacher targets are computed once and cached, and measure on
the same held-out segments. See `estimate.Signal` for the protocol they fill.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from subarch.learning.losses import distillation, embedding_distance, masked_lm
from subarch.models.sentence import Recipe
from subarch.models.student import Student
from subarch.models.teacher import BATCH, Batch, Teacher, assemble, cached, embed
from subarch.tasks.scoring import Task
from subarch.text.corpus import Segments
from subarch.text.masking import Masker

TEMPERATURE, KL_WEIGHT, MLM_WEIGHT = 2.0, 0.5, 0.1
"""The released scripts of arXiv 2010.10499: 0.5 τ² KL + 0.1 cross-entropy, τ = 2."""
SHARD = 2048
"""Segments whose targets are computed and cached together: what a kill costs at most."""

Forward = Callable[[Tensor, Tensor], Tensor]
"""(n, length) ids and mask to (n, K) embeddings: a student, or the teacher."""

Progress = Callable[[int, int], None]
"""Called with the segments done and their total."""


@dataclass(frozen=True)
class TargetCache:
    """Teacher outputs on disk, in shards: a kill costs one of them, and a longer search adds to those of a shorter."""

    folder: Path
    key: str
    progress: Progress

    def get(self, name: str, segments: Segments, needed: int, compute: Callable[[range], NDArray[Any]]) -> NDArray[Any]:
        """The outputs for the first `needed` segments (rounded up to whole shards), `compute`d piece by piece."""
        shards, total = [], min(len(segments), -(-needed // SHARD) * SHARD)
        for start in range(0, total, SHARD):
            piece = range(start, min(start + SHARD, total))
            shards.append(cached(self.folder, f"{self.key} {name} {start} {len(piece)}", partial(compute, piece)))
            self.progress(piece.stop, total)
        return np.concatenate(shards)


class EmbeddingSignal:
    """Cosine distance between the student's and the teacher's sentence embeddings."""

    def __init__(self, teacher: Teacher, train: Segments, heldout: Segments, needed: int, targets: TargetCache) -> None:
        self.teacher, self.train, self.heldout = teacher, train, heldout

        def get(part: str, segments: Segments, count: int) -> NDArray[Any]:
            def compute(piece: range) -> NDArray[Any]:
                return np.asarray(teacher.embed(segments[piece.start : piece.stop]).half().numpy())

            return targets.get(f"{teacher.fingerprint} embedding {part}", segments, count, compute)

        self.heldout_targets = torch.from_numpy(get("heldout", heldout, len(heldout))).double()
        self.targets = get("train", train, needed)

    @property
    def lengths(self) -> NDArray[np.int64]:
        return self.train.size

    def loss(self, student: Student, rows: NDArray[np.int64], epoch: int) -> Tensor:
        batch = self.teacher.batch([self.train[row] for row in rows])
        target = torch.from_numpy(self.targets[rows]).float()
        return embedding_distance(student(batch.ids, batch.mask), target)

    def error(self, student: Forward) -> float:
        own = embed(student, self.heldout, self.teacher.tokenizer, self.teacher.recipe)
        return float(embedding_distance(own.double(), self.heldout_targets))


class TaskSignal:
    """Trained on the teacher's embeddings; the error is 1 - score on the user's own set."""

    def __init__(self, training: EmbeddingSignal, task: Task) -> None:
        self.training, self.task = training, task
        self.loss, self.lengths = training.loss, training.lengths

    def error(self, student: Student) -> float:
        return 1 - self.score(student)

    def score(self, model: Forward) -> float:
        """The first score of the task for anything that maps (ids, mask) to embeddings."""
        return next(iter(self.task.scores(text_embedder(model, self.training.teacher)).values()))


def text_embedder(model: Forward, teacher: Teacher) -> Callable[[list[str]], NDArray[np.float32]]:
    """Texts to embeddings with the teacher's tokenizer, prefix and maximum length."""

    def embed_texts(texts: list[str]) -> NDArray[np.float32]:
        room = teacher.recipe.max_length
        ids = teacher.tokenizer(texts, add_special_tokens=False, truncation=True, max_length=room)["input_ids"]
        return embed(model, ids, teacher.tokenizer, teacher.recipe).numpy()

    return embed_texts


class MaskedLMSignal:
    """Masked-LM cross-entropy, or the paper's distillation where a teacher with a masked-LM head is given.

    Masks are a function of the segment and the epoch alone, so the teacher's output there can be cached:
    its last hidden states at the masked positions (H numbers) rather than its logits (V numbers). Its head turns one
    into the other.
    """

    def __init__(
        self,
        tokenizer: Any,
        train: Segments,
        heldout: Segments,
        max_length: int,
        needed: int,
        teacher: Teacher | None,
        targets: TargetCache,
    ) -> None:
        self.tokenizer, self.train, self.heldout, self.teacher = tokenizer, train, heldout, teacher
        self.recipe, self.masker = Recipe(max_length=max_length), Masker(tokenizer)
        self.needed, self.targets = needed, targets
        self._states: dict[tuple[str, int], tuple[NDArray[Any], NDArray[np.int64]]] = {}
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
        order = np.argsort(self.heldout.size, kind="stable")
        groups = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
        return sum(float(self._loss(student, "heldout", rows, 0)) * len(rows) for rows in groups) / len(order)

    def _loss(self, student: Student, part: str, rows: NDArray[np.int64], epoch: int) -> Tensor:
        batch, where, labels = self._masked(part, rows, epoch)
        logits = student.head(student.hidden(batch.ids, batch.mask)[where])
        cross_entropy = masked_lm(logits, labels)
        if self._head is None:
            return cross_entropy
        with torch.inference_mode():
            theirs = self._head(self._teacher_states(part, rows, epoch))
        return KL_WEIGHT * distillation(logits, theirs.clone(), TEMPERATURE) + MLM_WEIGHT * cross_entropy

    def _masked(self, part: str, rows: Sequence[int] | NDArray[np.int64], epoch: int) -> tuple[Batch, Tensor, Tensor]:
        """The masked batch, its (n, length) masked positions, and the (m,) true tokens there in row order."""
        segments = self._segments(part)
        batch = assemble([segments[row] for row in rows], self.tokenizer, self.recipe)
        masks = [self._mask(part, int(row), epoch) for row in rows]
        where = torch.zeros_like(batch.mask, dtype=torch.bool)
        for index, (positions, _) in enumerate(masks):
            where[index, 1 + positions] = True  # behind the token that opens the sequence
        labels = batch.ids[where]
        batch.ids[where] = torch.from_numpy(np.concatenate([replacements for _, replacements in masks]))
        return batch, where, labels

    def _mask(self, part: str, row: int, epoch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Masked positions in a segment as far as it is read, and the tokens to put there."""
        tokens = self._segments(part)[row][: self.recipe.max_length - 2]
        return self.masker.mask(tokens, [part == "train", epoch, row])

    def _segments(self, part: str) -> Segments:
        return self.train if part == "train" else self.heldout

    def _teacher_states(self, part: str, rows: NDArray[np.int64], epoch: int) -> Tensor:
        """(m, H) hidden states of the teacher at the masked positions of `rows`."""
        if (part, epoch) not in self._states:
            self._states[part, epoch] = self._compute_states(part, epoch)
        states, start = self._states[part, epoch]
        return torch.from_numpy(np.concatenate([states[start[row] : start[row + 1]] for row in rows])).float()

    def _compute_states(self, part: str, epoch: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """The teacher's states at the masked positions of an epoch, and where those of each segment start."""
        teacher, segments = self.teacher, self._segments(part)
        assert teacher is not None
        # A run of several epochs draws all segments in each: the incomplete batch at an epoch's end shifts the next
        needed = min(len(segments), self.needed) if part == "train" else len(segments)

        @torch.inference_mode()
        def compute(piece: range) -> NDArray[Any]:
            found = []
            for start in range(piece.start, piece.stop, BATCH):
                batch, where, _ = self._masked(part, range(start, min(start + BATCH, piece.stop)), epoch)
                hidden = teacher.encoder(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
                found.append(hidden[where].half().numpy())
            return np.concatenate(found)

        name = f"{teacher.fingerprint} {self.masker.scheme} {part} {epoch}"
        states = self.targets.get(name, segments, needed, compute)
        counts = [len(self._mask(part, row, epoch)[0]) for row in range(needed)]
        return states, np.concatenate([[0], np.cumsum(counts)])
