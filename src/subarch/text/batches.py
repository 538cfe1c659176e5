"""Padding, batches by length, and training batches by token budget that resume exactly.

A source yields chunks of sequences. Within a chunk they are sorted by length and cut into batches of equal tokens; the
batches are then shuffled. A batch is what one optimiser step sees, whatever the number of processes and accumulation
steps: `parts` cuts it further. A position (plain JSON) is the source's position at the start of a chunk and the number
of batches done in it; `batches` continues from it with exactly the batches that would have followed.

    >>> source = Packed(corpus.segments("train", 126), seed=0)
    >>> batch = next(batches(source, Budget(8192, 128), seed=0))
    >>> batch.epoch, len(batch), batch.position
    (0, 214, {'source': {'epoch': 0, 'chunk': 0}, 'done': 1})
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from subarch.errors import InvalidConfig, InvalidCorpus
from subarch.text.corpus import Segments, plain
from subarch.text.read import documents_of, explained, hash64, identity, streamed

BATCHES = 50
"""Batches of a chunk, whose sequences are sorted by length together."""

Position = dict[str, Any]


def by_length(sizes: Sequence[int] | NDArray[np.int64], batch: int) -> list[NDArray[np.int64]]:
    """Row numbers in batches of at most `batch`, ascending in size; rows of equal size keep their order."""
    order = np.argsort(np.asarray(sizes), kind="stable")
    return [order[start : start + batch] for start in range(0, len(order), batch)]


def pad(rows: Sequence[Sequence[int] | NDArray[np.int32]], filler: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(n, longest) ids, filled up with `filler` on the right, and the mask: 1 where a row has a token, else 0."""
    ids = np.full((len(rows), max(map(len, rows))), filler, dtype=np.int64)
    mask = np.zeros_like(ids)
    for number, row in enumerate(rows):
        ids[number, : len(row)] = row
        mask[number, : len(row)] = 1
    return ids, mask


@dataclass(frozen=True, slots=True)
class Budget:
    """At most `tokens` a batch, padding included; `extra` tokens are added to a sequence, which is cut at `length`."""

    tokens: int
    length: int
    extra: int = 2

    def sizes(self, sequences: Segments | Sequence[NDArray[np.int32]]) -> NDArray[np.int64]:
        """(n,) tokens of each sequence as the model sees it."""
        own = sequences.size if isinstance(sequences, Segments) else np.array([len(s) for s in sequences], np.int64)
        return np.minimum(own + self.extra, self.length)


@dataclass(frozen=True, slots=True)
class Chunk:
    """Sequences of one epoch, and where the source stood before them. `rows` names them, within the epoch."""

    position: Position
    epoch: int
    rows: NDArray[np.int64]
    sequences: Sequence[NDArray[np.int32]]


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """The sequences of one optimiser step, ascending in length, and the position behind it."""

    epoch: int
    rows: NDArray[np.int64]
    sequences: list[NDArray[np.int32]]
    sizes: NDArray[np.int64]
    position: Position = field(repr=False)

    def __len__(self) -> int:
        return len(self.rows)


class Source(Protocol):
    """Gives chunks without end, epoch after epoch, from a position on (None: from the start)."""

    def chunks(self, budget: Budget, position: Position | None) -> Iterator[Chunk]: ...


@dataclass(frozen=True)
class Packed:
    """A corpus on disk; each epoch is another permutation of it."""

    segments: Segments
    seed: int

    def chunks(self, budget: Budget, position: Position | None) -> Iterator[Chunk]:
        start = position or {"epoch": 0, "chunk": 0}
        tokens = int(budget.sizes(self.segments).sum())
        if tokens < budget.tokens:
            raise InvalidCorpus(
                f"the corpus has {tokens:,} tokens for training, less than one batch of {budget.tokens:,}; "
                "give more text, or set a smaller batch_tokens"
            )
        count = max(1, round(tokens / (BATCHES * budget.tokens)))
        for epoch in itertools.count(start["epoch"]):
            order = np.random.default_rng([self.seed, epoch]).permutation(len(self.segments))
            for number, rows in enumerate(np.array_split(order, count)):
                if epoch > start["epoch"] or number >= start["chunk"]:
                    here = {"epoch": epoch, "chunk": number}
                    yield Chunk(here, epoch, rows, [self.segments[row] for row in rows])


class Streamed:
    """`datasets:NAME`, read as it is needed: for corpora too large to pack. Its order is the data set's own.

    Documents whose hash falls below `heldout` are left out; they are what `held_out` finds.
    """

    def __init__(self, source: str, text_column: str, tokenizer: Any, heldout: float = 0.01) -> None:
        self.source, self.text_column, self.heldout = source, text_column, heldout
        self._backend = plain(tokenizer)

    def chunks(self, budget: Budget, position: Position | None) -> Iterator[Chunk]:
        start = position or {"epoch": 0, "number": 0, "rows": None}
        for epoch in itertools.count(start["epoch"]):
            rows = streamed(self.source, self.text_column)
            number = 0
            if epoch == start["epoch"] and start["rows"] is not None:
                rows.load_state_dict(start["rows"])
                number = start["number"]
            first = number
            reader = self._sequences(rows, budget, False)
            state = start["rows"] if first else rows.state_dict()  # before it reads on, it knows only its beginning
            while True:
                here = {"epoch": epoch, "number": number, "rows": state}
                found: list[NDArray[np.int32]] = []
                tokens = 0
                for some in reader:  # whole records: a position lies between two of them
                    found += some
                    tokens += int(budget.sizes(some).sum())
                    if tokens >= BATCHES * budget.tokens:
                        break
                if tokens < budget.tokens:  # the end; what is left fills no batch
                    break
                yield Chunk(here, epoch, np.arange(number, number + len(found)), found)
                number += len(found)
                state = rows.state_dict()
            if first == number == 0:
                raise InvalidCorpus(
                    f"{self.source}: less text than one batch of {budget.tokens:,} tokens; "
                    "give more text, or set a smaller batch_tokens"
                )

    def held_out(self, budget: Budget, count: int) -> list[NDArray[np.int32]]:
        """The first `count` sequences of documents that are never trained on; fewer where there are no more."""
        found: list[NDArray[np.int32]] = []
        for some in self._sequences(streamed(self.source, self.text_column), budget, True):
            found += some
            if len(found) >= count:
                break
        return found[:count]

    def _sequences(self, rows: Any, budget: Budget, heldout: bool) -> Iterator[list[NDArray[np.int32]]]:
        """The sequences of each record: its documents cut to the length that leaves room for the extra tokens."""
        room = budget.length - budget.extra
        with explained(self.source):
            for row in rows:
                found = []
                for document in documents_of(row, self.text_column, self.source):
                    unit = identity(document.text) if document.group is None else hash64(document.group)
                    if (unit / 2.0**64 < self.heldout) == heldout:
                        ids = np.array(self._backend.encode(document.text, add_special_tokens=False).ids, np.int32)
                        found += [ids[at : at + room] for at in range(0, len(ids), room)]
                yield found


def batches(source: Source, budget: Budget, seed: int, position: Position | None = None) -> Iterator[TrainingBatch]:
    """Batches without end, from a position on; the same ones for the same source, budget and seed.

    Raises:
        InvalidConfig: a sequence does not fit into a batch.
        InvalidCorpus: the source holds less than one batch, or cannot be read.
    """
    if budget.tokens < budget.length:
        raise InvalidConfig(f"batch_tokens {budget.tokens} is below max_length {budget.length}; make it larger")
    start = position or {"source": None, "done": 0}
    for number, chunk in enumerate(source.chunks(budget, start["source"])):
        sizes = budget.sizes(chunk.sequences)
        order = np.argsort(sizes, kind="stable")
        cut = _cut(sizes[order], budget.tokens)
        done = start["done"] if number == 0 else 0
        mixed = np.random.default_rng([seed, chunk.epoch, int(chunk.rows[0])]).permutation(len(cut))
        for place in range(done, len(cut)):
            members = order[cut[mixed[place]]]
            yield TrainingBatch(
                chunk.epoch,
                chunk.rows[members],
                [chunk.sequences[index] for index in members],
                sizes[members],
                {"source": chunk.position, "done": place + 1},
            )


def parts(sizes: NDArray[np.int64], count: int) -> list[slice]:
    """Cut ascending sizes into `count` runs of about equal tokens, none of them empty."""
    if len(sizes) < count:
        raise InvalidConfig(
            f"a batch of {len(sizes)} sequences cannot be split over {count} forward passes; "
            "set a larger batch_tokens, or fewer processes"
        )
    middle = np.cumsum(sizes) - sizes / 2  # a sequence goes where its middle falls
    bounds = np.searchsorted(middle, sizes.sum() * np.arange(1, count) / count)
    bounds = np.minimum(bounds, len(sizes) - count + np.arange(1, count))
    edges = [0, *bounds.tolist(), len(sizes)]
    for index in range(1, count):  # equal bounds would leave a part empty
        edges[index] = max(edges[index], edges[index - 1] + 1)
    return [slice(edges[index], edges[index + 1]) for index in range(count)]


def _cut(sizes: NDArray[np.int64], budget: int) -> list[slice]:
    """Runs of about equal tokens, padded, within the budget: the fewest that can be had, or little more."""
    padded = np.empty_like(sizes)
    stop, fewest = len(sizes), 0
    while stop:  # as many as fit, from the longest on
        start = max(0, stop - budget // int(sizes[stop - 1]))
        padded[start:stop] = sizes[stop - 1]
        stop, fewest = start, fewest + 1
    for count in range(fewest, len(sizes) + 1):
        runs = parts(padded, count)
        if all(sizes[run.stop - 1] * (run.stop - run.start) <= budget for run in runs):
            return runs
    raise AssertionError("one sequence a batch always fits")
