"""How far the outputs of a student are from those of a teacher of a task (`models.outputs`).

One scale for all kinds: the divergence, divided by that of the constant outputs that are nearest to the teacher's. 0 is
the teacher, 1 is what knows nothing of the input. (Ours; the same scale as the error of embeddings.)

    classes, tags   Kullback-Leibler divergence of the teacher's probabilities, of tags the mean over a text's tokens
    choices         the same among the choices of an input, of which a constant finds all alike
    labels          the mean over labels of the divergence of the probability that each is right
    number          the squared difference

    >>> flat(task, student(batch.ids, batch.mask), batch.mask)      # one row an input, a token or a choice
    >>> divergence(task.kind, own, theirs, counts).mean() / constant(task.kind, theirs, counts)
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from subarch.models.outputs import Kind, Outputs


def flat(task: Outputs, outputs: Tensor, mask: Tensor) -> Tensor:
    """Outputs of a batch as rows (k, C): of tags those of the tokens between the two that enclose a text."""
    if task.kind != "tags":
        return outputs
    inner = mask.bool().clone()
    inner[:, 0] = False
    inner[torch.arange(len(mask)), mask.sum(1) - 1] = False
    return outputs[inner]


def counts_of(task: Outputs, mask: Tensor, choices: Tensor | None) -> Tensor | None:
    """(n,) how many rows of `flat` each input has; None: one each."""
    return mask.sum(1) - 2 if task.kind == "tags" else choices


def divergence(kind: Kind, own: Tensor, theirs: Tensor, counts: Tensor | None = None) -> Tensor:
    """(n,) divergence of each input, from (k, C) outputs of a student and of its teacher; see the module."""
    if kind == "number":
        return (own - theirs).square().squeeze(1)
    if kind == "labels":
        right = theirs.sigmoid()
        entropy = functional.binary_cross_entropy_with_logits(theirs, right, reduction="none")
        return (functional.binary_cross_entropy_with_logits(own, right, reduction="none") - entropy).mean(1)
    if kind == "choices":
        own, theirs = _side_by_side(own, counts), _side_by_side(theirs, counts)
    absent = theirs.isneginf()
    known, said = (functional.log_softmax(logits, dim=1).masked_fill(absent, 0.0) for logits in (own, theirs))
    rows = (functional.softmax(theirs, dim=1) * (said - known)).sum(1)
    if kind != "tags" or counts is None:
        return rows
    input_of = torch.arange(len(counts), device=rows.device).repeat_interleave(counts)
    sums = torch.zeros(len(counts), dtype=rows.dtype, device=rows.device).index_add(0, input_of, rows)
    return sums / counts.clamp(min=1)


def constant(kind: Kind, theirs: Tensor, counts: Tensor | None = None) -> float:
    """Mean divergence of the constant outputs that are nearest to the teacher's (k, C) ones."""
    theirs = theirs.double()
    if kind == "number":
        best = theirs.mean(0, keepdim=True)
    elif kind == "labels":
        best = theirs.sigmoid().mean(0, keepdim=True).logit(eps=1e-12)
    elif kind == "choices":
        best = torch.zeros_like(theirs[:1])
    else:
        # of tags every text counts the same, whatever its number of tokens
        weight = torch.ones(len(theirs), 1, dtype=torch.float64)
        if kind == "tags" and counts is not None:
            weight = (1 / counts.clamp(min=1)).double().repeat_interleave(counts)[:, None]
        best = ((theirs.softmax(1) * weight).sum(0, keepdim=True) / weight.sum()).clamp(min=1e-30).log()
    return float(divergence(kind, best.expand_as(theirs), theirs, counts).mean())


def _side_by_side(rows: Tensor, counts: Tensor | None) -> Tensor:
    """(k, 1) scores of choices, one input after another -> (n, most choices), -inf where an input has fewer."""
    if counts is None:
        return torch.zeros_like(rows)
    there = torch.arange(int(counts.max()), device=rows.device) < counts[:, None]
    return torch.full(there.shape, -torch.inf, dtype=rows.dtype, device=rows.device).masked_scatter(there, rows)
