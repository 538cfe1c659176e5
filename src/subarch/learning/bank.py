"""Hard negatives: texts of the corpus that the teacher finds almost, but not quite, the same as a given one.

The bank holds the teacher's vectors of some training sequences, computed once and cached. For the sequences of a batch
those nearest to each are found by exact search, at every visit: that takes less than reading a list of them would save.

    >>> bank = Bank(teacher_vectors)                     # (8192, K)
    >>> bank.negatives(targets["embedding"]).shape       # of a batch of 100
    torch.Size([100, 8, 384])
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

SIZE = 8192
"""Training sequences in a bank, in the corpus's fixed random order, as far as there are so many."""
NEGATIVES = 8
"""Of each sequence."""
SAME = 0.05
"""Nearer than this share of the mean distance in the bank is the same text, or nearly."""


class Bank:
    """(n, K) vectors of a teacher, compared by cosine.

    Distances are relative to the mean one, since all vectors of some teachers are alike.
    """

    def __init__(self, vectors: Tensor) -> None:
        self.vectors = normalize(vectors.float(), dim=1)
        # The mean cosine of all pairs is the squared length of the mean direction
        self.same = SAME * float(1 - self.vectors.mean(0).square().sum())

    @torch.no_grad()
    def negatives(self, vectors: Tensor) -> Tensor:
        """(n, K) vectors -> (n, k, K) of length 1, those nearest to each in the bank; near-duplicates come last."""
        cosines = normalize(vectors.float(), dim=1) @ self.vectors.T
        cosines[cosines > 1 - self.same] -= 2
        nearest = cosines.topk(min(NEGATIVES, len(self.vectors)), dim=1).indices
        return self.vectors[nearest].to(vectors.dtype)

    def to(self, device: torch.device) -> None:
        self.vectors = self.vectors.to(device)
