"""Training batches as tensors: special tokens, padding, masks, and each process's part of every batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset

from subarch.models.sentence import Recipe
from subarch.models.teacher import assemble, prompt_ids
from subarch.text.batches import Budget, Position, Source, TrainingBatch, batches, parts
from subarch.text.masking import Masker

Cached = Callable[[int, NDArray[np.int64], int], dict[str, Any]]
"""(epoch, rows, length) -> the cached outputs of the teacher for these sequences."""

Masks = list[tuple[NDArray[np.int64], NDArray[np.int64]]]
"""Of each sequence the masked positions, and the tokens to put there."""


@dataclass(frozen=True, slots=True)
class Inputs:
    """(n, L) ids and mask; with masking, the (m,) masked positions in the flattened ids, and their true tokens.

    `choices`: see `Batch`.
    """

    ids: Tensor
    mask: Tensor
    where: Tensor | None = None
    labels: Tensor | None = None
    choices: Tensor | None = None

    def count(self, unit: str) -> int:
        """How many sequences, tokens or masked positions there are."""
        if unit == "sequences":
            return len(self.ids if self.choices is None else self.choices)
        return int(self.mask.sum()) if unit == "tokens" else len(self.labels)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Collator:
    """Turns token sequences into tensors; `masker` is None where the input is not masked, `seed` is of the masks.

    `maskings`: number of different masks of a sequence, used in turn; 0: a new one in each epoch.
    """

    tokenizer: Any
    recipe: Recipe
    masker: Masker | None
    seed: int
    maskings: int = 0

    @cached_property
    def extra(self) -> int:
        """Tokens added to each sequence: [CLS], the teacher's prefix and [SEP]."""
        return 2 + len(prompt_ids(self.tokenizer, self.recipe.prefix))

    def masking(self, epoch: int) -> int:
        return epoch % self.maskings if self.maskings else epoch

    def masks(self, sequences: Sequence[NDArray[np.int32]], rows: NDArray[np.int64], epoch: int) -> Masks:
        """Tokens that are cut off are not masked."""
        assert self.masker is not None
        room = self.recipe.max_length - self.extra
        keys = ([self.seed, self.masking(epoch), int(row)] for row in rows)
        return [self.masker.mask(tokens[:room], key) for tokens, key in zip(sequences, keys, strict=True)]

    def __call__(
        self,
        sequences: Sequence[NDArray[np.int32]],
        rows: NDArray[np.int64],
        epoch: int,
        masks: Masks | None = None,
    ) -> Inputs:
        """Token sequences without special tokens, and the rows and epoch that their masks depend on -> tensors."""
        batch = assemble(sequences, self.tokenizer, self.recipe)
        if self.masker is None:
            return Inputs(batch.ids, batch.mask, choices=batch.choices)
        masks = masks if masks is not None else self.masks(sequences, rows, epoch)
        length, before = batch.ids.shape[1], self.extra - 1
        where = torch.from_numpy(np.concatenate([row * length + before + at for row, (at, _) in enumerate(masks)]))
        flat = batch.ids.view(-1)
        labels = flat[where]
        flat[where] = torch.from_numpy(np.concatenate([instead for _, instead in masks]))
        return Inputs(batch.ids, batch.mask, where, labels)


class Loader(IterableDataset[dict[str, Any]]):
    """This process's parts of every batch, in order, starting at a position: `accumulation` parts for each step.

    Each part holds the keyword arguments of `Distiller.forward`, and "position" (behind the batch), "sizes" (real and
    padded tokens) and, where the teacher's outputs are cached, "cached".
    """

    def __init__(
        self,
        source: Source,
        budget: Budget,
        collator: Collator,
        position: Position | None = None,
        *,
        process: int = 0,
        processes: int = 1,
        accumulation: int = 1,
        cached: Cached | None = None,
    ) -> None:
        self.source, self.budget, self.collator, self.position = source, budget, collator, position
        self.process, self.processes, self.accumulation, self.cached = process, processes, accumulation, cached

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in batches(self.source, self.budget, self.collator.seed, self.position):
            masks = self.collator.masks(batch.sequences, batch.rows, batch.epoch) if self.collator.masker else None
            runs = parts(batch.sizes, self.processes * self.accumulation)
            for step in range(self.accumulation):
                yield self._part(batch, masks, runs[step * self.processes + self.process])

    def _part(self, batch: TrainingBatch, masks: Masks | None, run: slice) -> dict[str, Any]:
        own = None if masks is None else masks[run]
        inputs = self.collator(batch.sequences[run], batch.rows[run], batch.epoch, own)
        shares = {
            "sequences": (run.stop - run.start) / len(batch),
            "tokens": float(batch.sizes[run].sum() / batch.sizes.sum()),
        }
        part = {
            "ids": inputs.ids,
            "mask": inputs.mask,
            "shares": shares,
            "position": batch.position,
            "sizes": (int(batch.sizes[run].sum()), inputs.ids.numel()),
        }
        if inputs.choices is not None:
            part["choices"] = inputs.choices
        if masks is not None and own is not None:
            counts = [len(at) for at, _ in masks]
            shares["masked"] = sum(counts[run]) / sum(counts)
            part |= {"where": inputs.where, "labels": inputs.labels}
        if self.cached is not None:
            part["cached"] = self.cached(batch.epoch, batch.rows[run], inputs.ids.shape[1])
        return part
