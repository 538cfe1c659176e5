"""The lengths that a latency is measured at, where it is that of a corpus.

Texts differ in length, and time grows faster than length. A few mid-quantiles stand for the whole distribution: the
mean time over them is that of a text of the corpus, up to what happens within an eighth of the texts.

    >>> quantiles_of([len(ids) for ids in texts])
    (9, 14, 21, 33, 48, 70, 104, 206)

Importing this module imports no torch.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from subarch.errors import InvalidCorpus


def quantiles_of(lengths: Sequence[int] | NDArray[np.int_], count: int = 8) -> tuple[int, ...]:
    """Mid-quantiles: of `count` equal shares of the texts by length, the middle one of each, as a length that occurs.

    Args:
        lengths: tokens of each text as the encoder gets it (special tokens among them, cut at its positions).

    Raises:
        InvalidCorpus: there is no text.
    """
    if not len(lengths):
        raise InvalidCorpus("there is no text to take lengths from: give a corpus that has some")
    middles = (np.arange(count) + 0.5) / count
    return tuple(int(length) for length in np.quantile(np.asarray(lengths), middles, method="inverted_cdf"))
