"""Where the words of a sentence are among its tokens.

>>> places_of(["Ann", "laughs"], [(0, 3), (4, 9), (9, 10)])
[0, 1]
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np

NOWHERE = -1
"""The place of a word without a token."""


def places_of(words: Sequence[str], offsets: Sequence[tuple[int, int]]) -> list[int]:
    """The position of the first token of each word, or NOWHERE, in a sentence of words joined by spaces.

    A token belongs to the word that its last character is in: some tokenizers count the space before to it.

    Args:
        offsets: the characters, from and to, of each token; special tokens have none.
    """
    ends = np.array(list(accumulate(len(word) + 1 for word in words)))  # behind the space that follows
    places = [NOWHERE] * len(words)
    for position, (start, end) in enumerate(offsets):
        if end > start:
            word = int(np.searchsorted(ends, end - 1, side="right"))
            if end < ends[word] and places[word] == NOWHERE:
                places[word] = position
    return places
