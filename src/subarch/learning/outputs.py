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

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from scipy.stats import spearmanr
from seqeval.metrics import f1_score
from torch import Tensor
from torch.nn import functional

from subarch.errors import InvalidConfig, InvalidCorpus
from subarch.models.outputs import Kind, Outputs
from subarch.tasks.tagging import OUTSIDE, broken, is_bio


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


Gold = int | float | tuple[int, ...] | tuple[tuple[int, str], ...]
"""The right answer: the position of a class or a choice; a number; of several labels whether each is right; of words
the place of the first token of each, and its tag."""


def gold_of(task: Outputs, label: Any) -> Gold:
    """The right answer that a record's label names: by name, or by position.

    Several labels are a list of those that are right, or of 0 and 1 for each that the teacher knows, in its order. The
    tags of words are as a corpus holds them (`text.corpus`).

    Raises:
        InvalidCorpus: the teacher does not know the label, the task has labels of another kind, or tags break BIO.
        InvalidConfig: there is no official score of such outputs.
    """
    if task.kind == "tags":
        return _tagged(task, label)
    if task.kind == "number":
        try:
            number = float(label)
        except (TypeError, ValueError):
            number = math.nan
        if not math.isfinite(number):
            raise InvalidCorpus(f"label {label!r} is no number, and the teacher gives one")
        return number
    if task.kind == "labels":
        if not isinstance(label, list):
            raise InvalidCorpus(f"label {label!r} is one, and the teacher gives any number of labels; write a list")
        if len(label) == len(task.names) and all(one in (0, 1) for one in label):
            return tuple(int(one) for one in label)
        known = {_position(task, one) for one in label}
        return tuple(int(at in known) for at in range(len(task.names)))
    return _position(task, label)


def _tagged(task: Outputs, label: Any) -> tuple[tuple[int, str], ...]:
    if metric_of(task) is None:
        raise InvalidConfig(
            f"error 'task' of a tagger is the F1 of spans, and its tags, as {', '.join(task.names[:4])}, are not "
            "O, B-TYPE and I-TYPE; use error outputs"
        )
    if not isinstance(label, dict):
        raise InvalidCorpus(f"label {label!r} is of a whole text, and the teacher tags words; give tokens with tags")
    tags = [task.names[_position(task, tag)] for tag in label["tags"]]
    if (at := broken(tags)) is not None:
        raise InvalidCorpus(
            f"tags {' '.join(tags)}: {tags[at]} of word {at + 1} continues no span; I-X follows B-X or I-X of the same "
            "type: write B- where a span begins"
        )
    return tuple(zip(label["places"], tags, strict=True))


def _position(task: Outputs, label: Any) -> int:
    names = list(task.names)
    if isinstance(label, str) and label in names:
        return names.index(label)
    if isinstance(label, int) and not isinstance(label, bool) and (not names or 0 <= label < len(names)):
        return label
    raise InvalidCorpus(
        f"label {label!r} is unknown to the teacher; it knows {', '.join(names)}, also by position from 0"
        if names
        else f"label {label!r} is not the position of a choice, counted from 0"
    )


def metric_of(task: Outputs) -> str | None:
    """The name of the official score of such outputs; None: there is none of tags that mark no spans."""
    metric: dict[Kind, str] = {"labels": "micro F1", "number": "Spearman's correlation", "tags": "span F1"}
    return None if task.kind == "tags" and not is_bio(task.names) else metric.get(task.kind, "accuracy")


def score(task: Outputs, truth: Sequence[Any], rows: Sequence[Tensor]) -> float:
    """The official score of outputs, from the right answer and the rows of each input, at most 1.

    Accuracy of classes and choices; micro F1 of labels, each told where its probability is above one half; Spearman's
    rank correlation of a number; of tags the F1 of spans, by seqeval: a word whose token was cut off is taken for `O`.
    """
    if task.kind == "tags":
        gold = [[tag for _, tag in words] for words in truth]
        own = [
            [task.names[int(row[place].argmax())] if 0 <= place < len(row) else OUTSIDE for place, _ in words]
            for words, row in zip(truth, rows, strict=True)
        ]
        return float(f1_score(gold, own, zero_division=0))
    if task.kind == "number":
        found = spearmanr([float(row) for row in rows], truth).statistic
        return float(np.nan_to_num(found))
    if task.kind == "labels":
        said, right = torch.cat(list(rows)) > 0, torch.tensor(truth).bool()
        wrong, hits = int((said != right).sum()), int((said & right).sum())
        return 2 * hits / (2 * hits + wrong) if hits or wrong else 1.0
    answers = [int(row.argmax()) for row in rows]
    return float(np.mean([answer == gold for answer, gold in zip(answers, truth, strict=True)]))


def _side_by_side(rows: Tensor, counts: Tensor | None) -> Tensor:
    """(k, 1) scores of choices, one input after another -> (n, most choices), -inf where an input has fewer."""
    if counts is None:
        return torch.zeros_like(rows)
    there = torch.arange(int(counts.max()), device=rows.device) < counts[:, None]
    return torch.full(there.shape, -torch.inf, dtype=rows.dtype, device=rows.device).masked_scatter(there, rows)
