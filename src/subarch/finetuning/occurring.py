"""Fine-tuning trains the embeddings of those tokens only that occur in its texts.

A task's texts hold some thousands of the 30,000 tokens of a vocabulary. The embeddings of the others have no gradient,
and yet a step clears, measures and updates them all, which for a small encoder on short texts costs more than the
encoder does. So they are set aside, and put back as they were; weight decay, too, passes them by.

    >>> occurring = Occurring(model, [*train, *dev], tokenizer.pad_token_id)
    >>> trainer = Trainer(model, occurring.renumber(train), ...)
    >>> occurring.restore()             # the model reads the tokenizer's ids again
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import torch
from torch import nn

from subarch.models.heads import Encoded


class Occurring:
    """Reduces `model` to the tokens of `encoded`, until `restore`. Ids up to that of padding keep their place."""

    def __init__(self, model: Any, encoded: Sequence[Encoded], padding: int) -> None:
        self.embeddings: nn.Embedding = model.get_input_embeddings()
        self.all = self.embeddings.weight.detach()
        ids = chain.from_iterable(chain.from_iterable(one.ids for one in encoded))
        self.kept = np.union1d(np.arange(padding + 1), np.fromiter(ids, np.int64))
        self.embeddings.weight = nn.Parameter(self.all[self.kept])

    def renumber(self, encoded: Sequence[Encoded]) -> list[Encoded]:
        """The same examples by the numbers that the reduced model reads."""
        return [replace(one, ids=[np.searchsorted(self.kept, row).tolist() for row in one.ids]) for one in encoded]

    @torch.no_grad()
    def restore(self) -> None:
        """Put all embeddings back, those of tokens that occur as they have become."""
        whole = self.all.to(self.embeddings.weight.device)
        whole[self.kept] = self.embeddings.weight
        self.embeddings.weight = nn.Parameter(whole)
