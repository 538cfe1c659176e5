"""Candidates as parts of one larger network of the same hidden size: some of its layers, some of their neurons.

Which ones is what the teacher's anatomy ranks first, the same that weight inheritance keeps; from a network without an
anatomy, the first ones. So a small candidate lies within every larger one, and can begin as a part of a trained one.

Trained elastically, a network learns together with its parts, by the sandwich rule (Yu and Huang, arXiv 1903.05134):
in each step the largest, the smallest, and two others drawn by seed. Afterwards a part has an error without training of
its own. Theirs learn from the widest network's outputs; ours have a teacher, and learn from that. Stock modules compute
all of it: a part is a candidate of its shape, called with slices of the network's parameters.

    >>> signal = Elastic(bench.signal, whole, family, bench.blueprint, bench.anatomy, seed=0)
    >>> estimate(network, signal, settings)                       # trains all parts at once
    >>> small.load_state_dict(part(network.state_dict(), small_shape, whole, bench.anatomy))
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache, partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call

from subarch.extraction.estimate import Signal
from subarch.models.inherit import Anatomy
from subarch.models.student import Blueprint, Student
from subarch.numbers.architecture import Architecture

DRAWN = 2
"""Parts in a step besides the largest and the smallest."""
_LAYER = re.compile(r"(?<=encoder\.layer\.)\d+")


def part(
    state: Mapping[str, Tensor], own: Architecture, whole: Architecture, anatomy: Anatomy | None
) -> dict[str, Tensor]:
    """The parameters (or gradients, or a state) of the part `own` of a network `whole`, from those of the network.

    Raises:
        ValueError: it is no part: of another hidden size or number of heads, deeper, or with more neurons.
    """
    if own.hidden != whole.hidden or (own.depth and own.heads != whole.heads):
        raise ValueError(f"{own} is no part of {whole}: hidden size and heads must be the same")
    if own.depth > whole.depth or own.intermediate > whole.intermediate:
        raise ValueError(f"{own} is no part of {whole}: it is larger")
    theirs, ours = (_layers(one.depth, anatomy) for one in (whole, own))
    found = {}
    for name, tensor in state.items():
        match = _LAYER.search(name)
        if match is not None:
            layer = theirs[int(match.group())]
            if layer not in ours:
                continue
            name = f"{name[: match.start()]}{ours.index(layer)}{name[match.end() :]}"
            if own.intermediate < whole.intermediate:
                if "intermediate.dense" in name:
                    tensor = tensor[_neurons(layer, own, whole, anatomy)]
                elif name.endswith(".output.dense.weight") and ".attention." not in name:
                    tensor = tensor[:, _neurons(layer, own, whole, anatomy)]
        found[name] = tensor
    return found


def _layers(depth: int, anatomy: Anatomy | None) -> list[int]:
    """The teacher's layer at each position; beyond the teacher's depth, numbers of their own."""
    keep = [] if anatomy is None else anatomy.keep
    return sorted(keep[:depth]) + list(range(len(keep), depth))


def _neurons(layer: int, own: Architecture, whole: Architecture, anatomy: Anatomy | None) -> Tensor:
    """(I,) positions in the network's layer of the neurons that the part has."""
    order = torch.arange(whole.intermediate)
    if anatomy is not None and layer < len(anatomy.keep):
        ranked = torch.argsort(anatomy.neurons[layer], descending=True, stable=True)
        there = ranked[: whole.intermediate].sort().values
        position = torch.full((len(ranked),), -1)
        position[there] = torch.arange(len(there))
        ranked = position[ranked[: len(there)]]
        order = torch.cat([ranked, torch.arange(len(ranked), whole.intermediate)])  # surplus ones stand last
    return order[: own.intermediate].sort().values


class _Loss(nn.Module):
    """A signal's loss of a student as a module, whose parameters can be given from outside."""

    def __init__(self, student: Student, signal: Signal) -> None:
        super().__init__()
        self.student, self.signal = student, signal

    def forward(self, rows: NDArray[np.int64], epoch: int) -> Tensor:
        return self.signal.loss(self.student, rows, epoch)


class Elastic:
    """A signal for the network `whole` whose loss is the mean over it and some of its parts; see `estimate.Signal`.

    Args:
        family: shapes of parts, the smallest first; the last is the network's own.
        seed: of which are drawn.
    """

    def __init__(
        self,
        signal: Signal,
        whole: Architecture,
        family: Sequence[Architecture],
        blueprint: Blueprint,
        anatomy: Anatomy | None,
        seed: int,
    ) -> None:
        self.signal, self.whole, self.anatomy = signal, whole, anatomy
        self.family = family
        self.random = np.random.default_rng(seed)
        self._shell = cache(partial(_shell, blueprint=blueprint, signal=signal))

    @property
    def lengths(self) -> NDArray[np.int64]:
        return self.signal.lengths

    def error(self, student: Student) -> float:
        """Of the whole network."""
        return self.signal.error(student)

    def loss(self, student: Student, rows: NDArray[np.int64], epoch: int) -> Tensor:
        inner = self.family[1:-1]
        drawn = self.random.choice(len(inner), min(DRAWN, len(inner)), replace=False)
        shapes = dict.fromkeys([self.family[-1], self.family[0], *(inner[index] for index in drawn)])
        parameters = dict(student.named_parameters())
        losses = []
        for shape in shapes:
            shell = self._shell(shape)
            shell.student.encoder.embeddings.word_embeddings.sparse = student.encoder.embeddings.word_embeddings.sparse
            of_part = part(parameters, shape, self.whole, self.anatomy)
            given = {f"student.{name}": tensor for name, tensor in of_part.items()}
            losses.append(functional_call(shell, given, (rows, epoch)))
        return torch.stack(losses).mean()


def _shell(shape: Architecture, blueprint: Blueprint, signal: Signal) -> _Loss:
    student = Student(shape, blueprint).eval()  # no dropout, as in `estimate`
    for parameter in student.parameters():
        parameter.data = torch.empty(0)  # given with every call
    return _Loss(student, signal)
