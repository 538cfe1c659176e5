"""A reranker: a query and a document in, a score out, computed by sentence-transformers' CrossEncoder itself.

    >>> reranker = Reranker.load("ms-marco-MiniLM-L6-v2")
    >>> reranker.score([("a query", "a document"), ("a query", "another")]).shape
    (2,)

It is a CrossEncoder folder of any version, or a stock ForSequenceClassification folder with one output, such as what
`subarch finetune` makes of pairs with a number. As everywhere, no code of the folder runs and no pickles are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoModelForSequenceClassification

from subarch.errors import InvalidTeacher
from subarch.models.kinds import check_reranker
from subarch.models.stock import load_folder
from subarch.models.teacher import load_model, resolve
from subarch.run.inputs import of_model

BATCH = 32


@dataclass(frozen=True)
class Reranker:
    """A loaded reranker; `max_length` is how many tokens of a pair it reads, `encoder` a CrossEncoder."""

    name: str
    fingerprint: str
    max_length: int
    encoder: Any = field(repr=False, compare=False)

    @classmethod
    def load(cls, source: str | Path, max_length: int | None = None) -> Reranker:
        """Load a local folder or a hub name that `kinds.is_reranker`; `max_length` cuts pairs shorter than it says.

        Raises:
            InvalidTeacher: remote code, pickled weights, damaged or missing files, more than one output.
        """
        folder = resolve(source)
        check_reranker(folder)
        outputs = load_model(AutoModelForSequenceClassification, folder).config.num_labels  # refuses what is not whole
        if outputs != 1:
            raise InvalidTeacher(
                f"{folder}: is a classifier with {outputs} outputs; a reranker has one: fine-tune it on "
                "records of query, document and a number (--kind regression)"
            )
        encoder = load_folder(folder, "CrossEncoder")
        length = min(encoder.max_seq_length, max_length or encoder.max_seq_length)
        encoder.max_seq_length = length
        return cls(str(source), of_model(folder, InvalidTeacher).hash, length, encoder)

    def score(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float32]:
        """(n,) scores of (query, document), by the folder's own activation; higher is better.

        Raises:
            InvalidTeacher: a score is not finite.
        """
        scores: NDArray[np.float32] = self.encoder.predict(list(pairs), batch_size=BATCH, show_progress_bar=False)
        if not np.isfinite(scores).all():
            query, document = pairs[int(np.argmin(np.isfinite(scores)))]
            raise InvalidTeacher(
                f"{self.name}: its score of {document[:60]!r} for {query[:60]!r} is not finite; use another reranker"
            )
        return scores
