"""Masks for masked-LM training: which tokens of a sequence are hidden, and what stands in their place.

15 % of the tokens are chosen; 80 % of them become the mask token, 10 % a random one, 10 % stay (Devlin et al., 2019,
section 3.1). A mask is a function of the sequence and a key (say: split, epoch, number of the sequence) and of nothing
else. So masks change from epoch to epoch as in RoBERTa, while a resumed run, another batch size, or another process
draws the same ones, and a teacher's output at the masked positions can be cached.

    >>> masker = Masker(tokenizer)
    >>> positions, replacements = masker.mask(tokens, key=[epoch, row])
    >>> labels, tokens[positions] = tokens[positions], replacements
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subarch.errors import InvalidTeacher

CHOSEN, HIDDEN, SWAPPED = 0.15, 0.8, 0.1
"""Share of the tokens that are chosen, and what share of these is hidden, or swapped for a random token."""

CONTINUES = "##"
STARTS = ("Ġ", "▁")
"""How tokens show words: WordPiece marks what continues one, byte-level BPE and SentencePiece what starts one."""


class Masker:
    """Draws masks for the sequences of one tokenizer; InvalidTeacher if it has no mask token.

    `scheme` belongs into the key of anything cached that depends on masks.
    """

    def __init__(self, tokenizer: Any) -> None:
        if tokenizer.mask_token_id is None:
            raise InvalidTeacher(
                "the tokenizer has no mask token, which masked-LM training needs; use a masked-LM teacher, "
                "or leave out the losses 'mlm' and 'logits'"
            )
        self.scheme = "masks 1 tokens"
        self._mask_token = int(tokenizer.mask_token_id)
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        self._ordinary = np.setdiff1d(list(vocabulary.values()), tokenizer.all_special_ids).astype(np.int64)

    def mask(self, tokens: NDArray[np.int32], key: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Masked positions in `tokens`, ascending, at least one, and the token ids to put there.

        `tokens` is one sequence without special tokens, not empty; `key` is made of numbers from 0.
        """
        generator = np.random.default_rng(key)
        positions = np.flatnonzero(generator.random(len(tokens)) < CHOSEN)
        if not len(positions):
            positions = generator.integers(0, len(tokens), 1)
        replacements = np.array(tokens[positions], dtype=np.int64)
        kind = generator.random(len(positions))
        swapped = np.flatnonzero((kind >= HIDDEN) & (kind < HIDDEN + SWAPPED))
        replacements[kind < HIDDEN] = self._mask_token
        replacements[swapped] = self._ordinary[generator.integers(0, len(self._ordinary), len(swapped))]
        return positions, replacements
