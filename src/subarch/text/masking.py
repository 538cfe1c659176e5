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

from subarch.errors import InvalidConfig, InvalidTeacher

CHOSEN, HIDDEN, SWAPPED = 0.15, 0.8, 0.1
"""Share of the tokens that are chosen, and what share of these is hidden, or swapped for a random token."""

CONTINUES = "##"
STARTS = ("Ġ", "▁")
"""How tokens show words: WordPiece marks what continues one, byte-level BPE and SentencePiece what starts one."""


class Masker:
    """Draws masks for the sequences of one tokenizer.

    `whole_word` hides all tokens of a word or none; each word is chosen with the same probability, so of the tokens it
    is again 15 %. A word is a token and what continues it: where the tokenizer marks starts (BPE, SentencePiece) that
    includes the punctuation behind it, and a text without spaces is one word.

    Attributes:
        scheme: belongs into the key of anything cached that depends on masks.

    Raises:
        InvalidTeacher: the tokenizer has no mask token.
        InvalidConfig: whole words are asked for, and no token of the tokenizer shows where words start.
    """

    def __init__(self, tokenizer: Any, whole_word: bool = False) -> None:
        if tokenizer.mask_token_id is None:
            raise InvalidTeacher(
                "the tokenizer has no mask token, which masked-LM training needs; use a masked-LM teacher, "
                "or leave out the losses 'mlm' and 'logits'"
            )
        self.scheme = f"masks 1 {'words' if whole_word else 'tokens'}"
        self._mask_token = int(tokenizer.mask_token_id)
        vocabulary: dict[str, int] = tokenizer.get_vocab()
        self._ordinary = np.setdiff1d(list(vocabulary.values()), tokenizer.all_special_ids).astype(np.int64)
        self._starts = _word_starts(vocabulary) if whole_word else None

    def mask(self, tokens: NDArray[np.int32], key: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Masked positions in `tokens`, ascending, at least one, and the token ids to put there.

        `tokens` is one sequence without special tokens, not empty; `key` is made of numbers from 0.
        """
        generator = np.random.default_rng(key)
        if self._starts is None:
            positions = _choose(len(tokens), generator)
        else:
            starts = self._starts[tokens]
            starts[0] = True  # a sequence may begin within a word: what is there of it is one
            word = np.cumsum(starts) - 1
            is_chosen = np.zeros(word[-1] + 1, dtype=np.bool_)
            is_chosen[_choose(len(is_chosen), generator)] = True
            positions = np.flatnonzero(is_chosen[word])
        replacements = np.array(tokens[positions], dtype=np.int64)
        kind = generator.random(len(positions))
        swapped = np.flatnonzero((kind >= HIDDEN) & (kind < HIDDEN + SWAPPED))
        replacements[kind < HIDDEN] = self._mask_token
        replacements[swapped] = self._ordinary[generator.integers(0, len(self._ordinary), len(swapped))]
        return positions, replacements


def _choose(count: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """Each of 0 to count - 1 with probability CHOSEN; one of them where that would be none."""
    chosen = np.flatnonzero(generator.random(count) < CHOSEN)
    return chosen if len(chosen) else generator.integers(0, count, 1)


def _word_starts(vocabulary: dict[str, int]) -> NDArray[np.bool_]:
    """For each token id: does it start a word?

    The marker that most tokens begin with is the tokenizer's: BPEs know "##" too, the heading of a text in Markdown.
    """
    marked = {
        marker: [number for token, number in vocabulary.items() if token.startswith(marker)]
        for marker in (CONTINUES, *STARTS)
    }
    marker = max(marked, key=lambda marker: len(marked[marker]))
    if not marked[marker]:
        raise InvalidConfig(
            f"whole words cannot be masked: no token of the tokenizer starts with {', '.join(marked)}; "
            "turn whole-word masking off, or use a WordPiece, byte-level BPE or SentencePiece tokenizer"
        )
    starts = np.full(max(vocabulary.values()) + 1, marker == CONTINUES)
    starts[marked[marker]] = marker != CONTINUES
    return starts
