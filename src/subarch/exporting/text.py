"""What an export is calibrated and compared on: sequences of text, and batches of many sizes and lengths.

Calibration takes texts of the corpus' training part as they are. Parity takes the held-out part, which neither the
model nor the calibration has seen, cut at random places to get any length. Without a corpus, random tokens stand in:
they show whether a file computes the same, but not what int8 does to sentences.

    >>> text = Text.find(exportable, None, "text", run=Path("runs/mine"), scratch=folder)
    >>> batches = text.batches(exportable, longest=256)
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from subarch.errors import InvalidCorpus
from subarch.exporting.graph import Exportable
from subarch.models.teacher import special_tokens
from subarch.run.records import TextSource
from subarch.text.batches import pad
from subarch.text.corpus import Corpus, build, plain

Batch = dict[str, NDArray[np.int64]]
"""input_ids, attention_mask, token_type_ids: (n, length), or (n, choices, length)."""

SIZES = (1, 2, 4, 8, 16)
LENGTHS = (3, 8, 16, 32, 64, 128, 256, 512)
TOKENS = 1024
"""Largest batch to compare, padding included; one sequence of the greatest length may be longer."""
CORPUS_TOKENS = 2_000_000
"""Tokens to read of a corpus that is given."""
CHOICES = (2, 3, 4)
"""Choices of the examples of multiple choice, in turn."""


@dataclass(frozen=True)
class Text:
    """`heldout`: (N,) token ids of all documents end to end; `train`: token ids by document, none without a corpus.

    `about` says where the text comes from.
    """

    heldout: NDArray[np.int32]
    train: Sequence[NDArray[np.int32]]
    about: TextSource

    @classmethod
    def find(cls, model: Exportable, corpus: Sequence[str] | None, text_column: str, run: Path, scratch: Path) -> Text:
        """Text of the corpus that is given, else of the run folder's, else random tokens.

        Args:
            scratch: folder to pack the given corpus into.

        Raises:
            InvalidCorpus: it cannot be read, or is too small to divide.
        """
        tokenizer = model.teacher.tokenizer
        if corpus is not None:
            packed = build(corpus, tokenizer, scratch, text_column=text_column, max_tokens=CORPUS_TOKENS)
            return cls._of(packed, "corpus")
        if (run / "corpus" / "corpus.json").is_file():
            packed = Corpus.load(run / "corpus")
            if packed.meta.tokenizer == hashlib.sha256(plain(tokenizer).to_str().encode()).hexdigest():
                return cls._of(packed, "the run's corpus")
        words = sorted(set(range(len(tokenizer))) - set(tokenizer.all_special_ids))
        drawn = np.random.default_rng(0).choice(words, 20_000).astype(np.int32)
        return cls(drawn, (), TextSource(source="random tokens"))

    @classmethod
    def _of(cls, corpus: Corpus, source: str) -> Text:
        about = TextSource(source=f"{source}, held-out part", content_hash=corpus.content_hash)
        return cls(corpus.heldout.tokens, corpus.train.shuffled(), about)

    def calibration(self, model: Exportable, count: int, longest: int) -> list[Batch]:
        """`count` texts as batches of one sequence (or of one example with two choices), at most `longest` tokens long.

        Raises:
            InvalidCorpus: there are fewer texts.
        """
        choices = CHOICES[0] if model.graph.head == "choice" else 1
        if len(self.train) < count * choices:
            raise InvalidCorpus(
                f"{len(self.train)} texts to calibrate on ({self.about.source}), but {count * choices} are needed: "
                "give more text with --corpus, or ask for fewer with --calibration"
            )
        rows = [self.train[row][: longest - 2] for row in range(count * choices)]
        return [_batch(rows[row : row + choices], model, choices) for row in range(0, len(rows), choices)]

    def batches(self, model: Exportable, longest: int) -> list[Batch]:
        """Every size in every length: the first row fills the batch, the others are shorter and padded.

        If the model has token types, every second row has two of them, as a pair of texts has.
        """
        draw = np.random.default_rng(0)
        found: list[Batch] = []
        for length in sorted({*(length for length in LENGTHS if length < longest), longest}):
            for size in SIZES:
                choices = CHOICES[len(found) % len(CHOICES)] if model.graph.head == "choice" else 1
                if size > 1 and size * choices * length > TOKENS:
                    break
                lengths = [length, *draw.integers(3, length, size * choices - 1, endpoint=True)]
                batch = _batch([self._cut(int(n) - 2, draw) for n in lengths], model, choices)
                if "token_type_ids" in batch:
                    types, mask = (batch[name].reshape(-1, length) for name in ("token_type_ids", "attention_mask"))
                    types[1::2, length // 3 :] = mask[1::2, length // 3 :]
                found.append(batch)
        return found

    def _cut(self, length: int, draw: np.random.Generator) -> NDArray[np.int32]:
        start = int(draw.integers(len(self.heldout)))
        return np.take(self.heldout, range(start, start + length), mode="wrap")


def _batch(rows: Sequence[NDArray[np.int32]], model: Exportable, choices: int) -> Batch:
    """Special tokens and padding around rows of ids."""
    start, end = special_tokens(model.teacher.tokenizer)
    ids, mask = pad([[start, *row, end] for row in rows], int(model.teacher.tokenizer.pad_token_id))
    named = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    longest = ids.shape[1]
    shape = (-1, choices, longest) if model.graph.head == "choice" else (-1, longest)
    return {name: named[name].reshape(shape) for name in model.graph.inputs}
