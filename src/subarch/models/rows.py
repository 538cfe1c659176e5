"""The rows of a token table that a text needs: all that a student trains with, where its vocabulary is much larger.

Of the 250,000 tokens of a multilingual encoder a corpus in one language has a tenth. The other rows get no gradient, so
they are left out of the table while a student is trained and saved, and put back when it is loaded as a whole. Token
ids stay those of the whole vocabulary.

    >>> encoder.set_input_embeddings(Rows(encoder.get_input_embeddings(), torch.tensor([0, 1, 2, 3, 17])))
    >>> encoder.get_input_embeddings().weight.shape
    torch.Size([5, 384])
"""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from torch import Tensor, nn

from subarch.models.parts import is_modern, norms_of


class Rows(nn.Module):
    """In place of a stock table: the rows `kept` of it, (n,) ascending ids with that of padding.

    An id that is not kept raises IndexError. `origin` says what the other rows are made of by `token_table`: the
    "rotation" (H, K), "start", the `digest_of` the encoder, and "vocabulary", the ids there of a table that has not all
    its rows; None: they stay here, as `whole`.
    """

    places: Tensor

    def __init__(self, table: nn.Embedding, kept: Tensor, origin: dict[str, Tensor] | None = None) -> None:
        super().__init__()
        places = torch.full((table.num_embeddings,), -1)
        places[kept] = torch.arange(len(kept))
        self.register_buffer("places", places, persistent=False)
        self.kept, self.origin = kept, origin
        self.whole = table.weight.detach() if origin is None else None
        self.weight = nn.Parameter(table.weight.detach()[kept])
        self.padding = None if table.padding_idx is None else int(places[table.padding_idx])
        self.sparse = False

    def forward(self, ids: Tensor) -> Tensor:
        return nn.functional.embedding(self.places[ids], self.weight, self.padding, sparse=self.sparse)


@torch.no_grad()
def token_table(encoder: Any, rotate: Tensor, kept: Tensor | None = None) -> Tensor:
    """The (V, H) table of an encoder as a student inherits it, in the coordinates of the (H, K) rotation.

    A ModernBERT's is normalised first, where it is cut. `kept`: (n,) ids, for these rows only.
    """
    table: Tensor = encoder.get_input_embeddings().weight
    table = table if kept is None else table[kept]
    if rotate.shape[0] == rotate.shape[1]:
        return table
    if is_modern(encoder):
        table = norms_of(encoder)[0](table)
    return table.double() @ rotate.T


def digest_of(encoder: Any) -> Tensor:
    """(32,) bytes that tell by content what `token_table` makes of an encoder."""
    digest = hashlib.sha256(encoder.get_input_embeddings().weight.detach().numpy())
    for value in norms_of(encoder)[0].state_dict().values():
        digest.update(value.numpy())
    return torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8)
