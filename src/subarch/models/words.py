"""Words of a sentence and the tokens that a model reads: which token stands for which word.

A word is tagged at its first token, the usual way (`aggregation_strategy="first"` of stock pipelines). The sentence is
tokenized as a text, its words joined by spaces, so that what is learnt is what a pipeline sees; a stock tokenizer gives
the same tokens for it as for the list of words. A word has no token beyond the tokenizer's `model_max_length`, or where
the tokenizer makes nothing of it (a zero-width character): it is not learnt, and taken for `O`.

    >>> aligned([["Ann", "laughs"]], tokenizer).places
    [[1, 3]]
    >>> first_tokens([[1, 3]], 5)
    tensor([[False,  True, False,  True, False]])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from subarch.text.words import NOWHERE, places_of


@dataclass(frozen=True, slots=True)
class Aligned:
    """Sentences as the model reads them.

    `ids` and `types` are those of each sentence, special tokens included; `places` the position in `ids` of the first
    token of each word, or NOWHERE; `cut` says of each sentence whether it was longer than `model_max_length`.
    """

    ids: list[list[int]]
    types: list[list[int]]
    places: list[list[int]]
    cut: list[bool]


def aligned(sentences: Sequence[Sequence[str]], tokenizer: Any) -> Aligned:
    """Tokenize sentences that are given as words, truncated to the tokenizer's `model_max_length`."""
    found = tokenizer(
        [" ".join(words) for words in sentences],
        truncation=True,
        return_attention_mask=False,
        return_token_type_ids=True,
    )
    places = [places_of(words, encoding.offsets) for words, encoding in zip(sentences, found.encodings, strict=True)]
    cut = [bool(encoding.overflowing) for encoding in found.encodings]
    return Aligned(found["input_ids"], found["token_type_ids"], places, cut)


def first_tokens(places: Sequence[Sequence[int]], length: int) -> Tensor:
    """(n, length) bool: where the words of n sentences have their first tokens.

    It picks the logits of words from those of tokens, (n, length, tags): the result is (words, tags), sentence by
    sentence, without the words that have no token.
    """
    mask = torch.zeros((len(places), length), dtype=torch.bool)
    for row, one in enumerate(places):
        mask[row, [place for place in one if place != NOWHERE]] = True
    return mask
