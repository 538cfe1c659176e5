"""Whether an exported file computes what PyTorch does, and by how much it does not.

Every batch goes through the stock model in PyTorch and through the file; outputs at padding are nobody's business and
are left out. Two figures are kept for each output: the largest difference, absolute and as a share of what rounding is
allowed (1e-4 plus 1e-4 of the value, since logits are large); and, sequence by sequence, the cosine between what the
two compute for it, of which the worst and the mean are told. For the cosine an output is taken for what it means:

    token vectors, embeddings   as they are, the vectors of a sequence end to end
    logits of tokens            less their mean over the vocabulary, which no probability depends on
    logits of classes, choices  probabilities
    numbers of a regression     less their mean, all sequences as one vector

and `agreement` is the share of tokens, sequences or examples for which the same token, class or choice wins.

    >>> compare(exportable, session, batches)["sentence_embedding"]
    Likeness(difference=2.1e-07, share_of_limit=0.0019, worst_cosine=0.9999999, mean_cosine=1.0, agreement=None)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax

from subarch.export.config import ExportConfig
from subarch.export.exportable import Exportable
from subarch.export.text import Batch
from subarch.latency.runtimes import Session
from subarch.run.progress import Report, silent

ABSOLUTE = RELATIVE = 1e-4
"""What rounding is allowed in fp32: the sum of the two, the second times the size of the number."""

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Likeness:
    """How like two computations of an output are; see the module. `agreement` is None where nothing wins."""

    difference: float
    share_of_limit: float
    worst_cosine: float
    mean_cosine: float
    agreement: float | None


def compare(
    model: Exportable, session: Session, batches: Sequence[Batch], report: Report = silent
) -> dict[str, Likeness]:
    """Run all batches through PyTorch and through the file, and tell how like each output is."""
    outputs = model.graph.outputs
    tallies = {name: _tally(model) for name in outputs}
    for done, batch in enumerate(batches, 1):
        with torch.inference_mode():
            expected = model.graph(*(torch.from_numpy(batch[name]) for name in model.graph.inputs))
        found = session(batch)
        for (name, axes), reference in zip(outputs.items(), expected, strict=True):
            for row, mask in enumerate(batch["attention_mask"]):
                real = mask > 0 if "length" in axes else ...
                tallies[name].add(reference[row].numpy()[real], found[name][row][real])
        report("comparing with PyTorch", done, len(batches))
    return {name: tally.likeness() for name, tally in tallies.items()}


def objection(config: ExportConfig, found: dict[str, Likeness]) -> str | None:
    """Why an exported file must not be kept, or None. Of several outputs, int8 and 16 bits are judged by the last."""
    if config.is_exact:
        for name, like in found.items():
            if not like.share_of_limit <= 1:  # NaN is refused too
                return (
                    f"{name} differs from PyTorch's by up to {like.difference:.3g}, {like.share_of_limit:.3g} times "
                    "what rounding is allowed; the runtime or the exporter is at fault, try the other runtime"
                )
        return None
    name, like = list(found.items())[-1]
    if not like.worst_cosine >= config.min_cosine:
        return (
            f"{name} falls to a cosine of {like.worst_cosine:.4f} with PyTorch's (mean {like.mean_cosine:.4f}), the "
            f"limit is {config.min_cosine:g}; quantise less or in another way, or allow it with --min-cosine"
        )
    return None


class Tally:
    """Likeness over pairs of arrays, one pair a sequence or example, added one by one.

    Args:
        meaning: applied to both before the cosine is taken; None: they are numbers of a regression.
        wins: whether the greatest entry of a vector is an answer.
    """

    def __init__(self, meaning: Callable[[Array], Array] | None, wins: bool) -> None:
        self._meaning, self._wins = meaning, wins
        self._difference = self._share = np.float64(0)
        self._cosines: list[float] = []
        self._numbers: list[tuple[float, float]] = []
        self._same: list[NDArray[np.bool_]] = []

    def add(self, ours: Array, theirs: Array) -> None:
        """What PyTorch (`ours`) and the file compute for a sequence: (W,), or (length, W)."""
        ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
        gap = np.abs(ours - theirs)
        # np.maximum hands on NaN, max() does not
        self._difference = np.maximum(self._difference, gap.max())
        self._share = np.maximum(self._share, (gap / (ABSOLUTE + RELATIVE * np.abs(ours))).max())
        if self._meaning is None:
            self._numbers.append((ours.item(), theirs.item()))
        else:
            self._cosines.append(_cosine(self._meaning(ours), self._meaning(theirs)))
        if self._wins:
            self._same.append(np.atleast_1d(ours.argmax(-1) == theirs.argmax(-1)))

    def likeness(self) -> Likeness:
        """Over all that was added."""
        cosines = self._cosines
        if self._meaning is None:
            ours, theirs = np.array(self._numbers).T
            cosines = [_cosine(ours - ours.mean(), theirs - theirs.mean())]
        agreement = float(np.concatenate(self._same).mean()) if self._same else None
        return Likeness(
            float(self._difference), float(self._share), float(np.min(cosines)), float(np.mean(cosines)), agreement
        )


def _tally(model: Exportable) -> Tally:
    head = model.graph.head
    if head == "masked-lm":
        return Tally(lambda logits: logits - logits.mean(-1, keepdims=True), wins=True)
    if head in ("classification", "choice"):
        return Tally(None if model.is_regression else partial(softmax, axis=-1), wins=not model.is_regression)
    return Tally(lambda vectors: vectors, wins=False)


def _cosine(ours: Array, theirs: Array) -> float:
    sizes = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    return float((ours * theirs).sum()) / sizes if sizes else float(np.array_equal(ours, theirs))
