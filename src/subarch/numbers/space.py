"""The search space Ξ: finite axes for ⟨D, A, H, I⟩, the candidates in order of cost, and the maximum point T.

>>> from subarch import Inputs, SearchSpace
>>> space = SearchSpace.load("paper")
>>> len(space), str(space.costs(Inputs(50265, 514, 1), length=128).maximum_point)
(300, '12-4-1024-3072')
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subarch.errors import InvalidSpace, show
from subarch.numbers.architecture import (
    IMPOSSIBLE,
    Architecture,
    Inputs,
    embedding_parameters,
    encoder_parameters,
    impossible,
    operations,
    projection_parameters,
)
from subarch.run.files import read_yaml

AXES = ("depth", "heads", "hidden", "intermediate")

# Within these the operations of a candidate fit an int64 at any length up to 4096, and a space fits in memory
LARGEST = {"depth": 1_000, "heads": 65_536, "hidden": 65_536, "intermediate": 1_000_000}
COMBINATIONS = 10_000_000

INTERMEDIATE = (2 / 3, 1 / 2, 1 / 3, 1 / 6, 1 / 12)
"""Shares of the start's intermediate size in the space `auto`, besides the whole."""

PRESETS: dict[str, dict[str, list[int]]] = {
    # arXiv 2010.10499, section 3: 300 candidates remain
    "paper": {
        "depth": [2, 4, 6, 8, 10, 12],
        "heads": [4, 8, 12, 16],
        "hidden": [512, 768, 1024],
        "intermediate": [256, 512, 768, 1024, 3072],
    },
    # sub-architectures of all-MiniLM-L6-v2 (6-12-384-1536)
    "minilm": {
        "depth": [0, 1, 2, 3, 4, 5, 6],
        "heads": [4, 6, 8, 12],
        "hidden": [128, 192, 256, 384],
        "intermediate": [128, 256, 512, 768, 1024, 1536],
    },
    # a small part of `minilm`, for a first look within minutes
    "demo": {
        "depth": [0, 1, 2, 3, 4],
        "heads": [12],
        "hidden": [192, 384],
        "intermediate": [256, 512, 1024, 1536],
    },
}


@dataclass(frozen=True, slots=True)
class Costs:
    """The candidates of a space in ascending order of cost: operations, then parameters, then ⟨D, A, H, I⟩.

    (Inferred, not the paper's word: under AB^nC this extends the partial order of ⟨D, H, I⟩.) `table` is (N, 4).
    """

    table: NDArray[np.int64]
    parameters: NDArray[np.int64]
    operations: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.table)

    def only(self, some: NDArray[np.bool_]) -> Costs:
        """Some of the candidates, in the same order."""
        return Costs(self.table[some], self.parameters[some], self.operations[some])

    def architecture(self, index: int) -> Architecture:
        return Architecture(*(int(value) for value in self.table[index]))

    @property
    def maximum_point(self) -> Architecture:
        """T: the candidate of most operations; among equals, of most parameters and then of fewest heads."""
        ties = np.flatnonzero((self.operations == self.operations[-1]) & (self.parameters == self.parameters[-1]))
        return self.architecture(int(ties[0]))


@dataclass(frozen=True)
class SearchSpace:
    """Finite axes; the candidates are their product without the invalid combinations.

    Raises:
        InvalidSpace: an empty or malformed axis, or no valid candidate at all.
    """

    depth: tuple[int, ...]
    heads: tuple[int, ...]
    hidden: tuple[int, ...]
    intermediate: tuple[int, ...]
    name: str = "custom"
    head_size: float | None = None
    """Of each ⟨D, H, I⟩ only the A whose heads are nearest to this size is a candidate; None: all are."""

    def __post_init__(self) -> None:
        for axis in AXES:
            values = getattr(self, axis)
            least = 0 if axis == "depth" else 1
            if not isinstance(values, (list, tuple)) or not values:
                raise InvalidSpace(
                    f"space {self.name!r}: {axis} must be a non-empty list of integers, not {show(values)}"
                )
            for value in values:
                if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= LARGEST[axis]:
                    raise InvalidSpace(
                        f"space {self.name!r}: {axis} holds {show(value)}; "
                        f"whole numbers from {least} to {LARGEST[axis]} are allowed"
                    )
            object.__setattr__(self, axis, tuple(sorted(set(values))))
        combinations = math.prod(len(getattr(self, axis)) for axis in AXES)
        if combinations > COMBINATIONS:
            raise InvalidSpace(f"space {self.name!r}: {combinations} combinations; at most {COMBINATIONS} are allowed")
        if not len(self):
            sizes = f"no hidden size of {list(self.hidden)} is divisible by a number of heads of {list(self.heads)}"
            raise InvalidSpace(f"space {self.name!r} is empty: {sizes}")

    @classmethod
    def load(cls, source: str | Path) -> SearchSpace:
        """A preset by name, or a YAML file that maps depth, heads, hidden and intermediate to lists."""
        if str(source) in PRESETS:
            return cls.from_dict(PRESETS[str(source)], str(source))
        path = Path(source)
        if not path.is_file():
            raise InvalidSpace(f"{source}: neither a preset ({', '.join(PRESETS)}) nor a YAML file")
        return cls.from_dict(read_yaml(path, InvalidSpace), path.stem)

    @classmethod
    def below(cls, start: Architecture, shallowest: int = 0) -> SearchSpace:
        """The preset `auto`: sub-architectures of what candidates start from, up to itself; about two hundred.

        All depths from the shallowest to 4, then every other one or fewer; a third to all of the hidden size, in whole
        heads of the start's; a twelfth to all of the intermediate size.
        """
        depth = {*range(min(start.depth, 4) + 1), *np.linspace(4, start.depth, 5).round().astype(int).tolist()}
        size = start.hidden // max(start.heads, 1)
        counts = {max(1, round(start.heads * share)) for share in (1, 3 / 4, 1 / 2, 1 / 3)}
        step = 32 if start.intermediate >= 512 else 1
        inner = {max(step, round(start.intermediate * share / step) * step) for share in INTERMEDIATE}
        whole = max(start.intermediate, 1)  # a start without layers has none
        return cls(
            depth=tuple(d for d in depth if shallowest <= d <= start.depth),
            heads=tuple(counts),
            hidden=tuple(size * count for count in counts),
            intermediate=(*(size for size in inner if size < whole), whole),
            name="auto",
        )

    @classmethod
    def from_dict(cls, data: Any, name: str = "custom") -> SearchSpace:
        """Axes from a mapping; missing and unknown keys are refused."""
        if not isinstance(data, dict) or set(data) != set(AXES):
            found = sorted(map(show, data)) if isinstance(data, dict) else type(data).__name__
            raise InvalidSpace(f"space {name!r}: needs exactly the keys {', '.join(AXES)}; found {found}")
        return cls(**data, name=name)

    def with_heads_of(self, head_size: float) -> SearchSpace:
        """The part of it with one A for each ⟨D, H, I⟩: A enters neither p nor the operations, nor orders e."""
        return replace(self, head_size=head_size)

    @property
    def sentence(self) -> str:
        """The axes in one line."""
        axes = (f"{name} {' '.join(map(str, getattr(self, name)))}" for name in AXES)
        return f"space {self.name}: {', '.join(axes)}"

    def to_dict(self) -> dict[str, list[int]]:
        return {axis: list(getattr(self, axis)) for axis in AXES}

    @cached_property
    def table(self) -> NDArray[np.int64]:
        """(N, 4) int64: the valid ⟨D, A, H, I⟩, lexicographically. Depth 0 has one row per hidden size."""
        depth = np.array([d for d in self.depth if d], dtype=np.int64)
        grid = np.meshgrid(depth, self.heads, self.hidden, self.intermediate, indexing="ij")
        combined = np.stack([axis.ravel() for axis in grid], axis=1).astype(np.int64)
        layered: NDArray[np.int64] = combined[combined[:, 2] % combined[:, 1] == 0]
        if self.head_size is not None:
            layered = layered[nearest_heads(layered, self.head_size)]
        if 0 not in self.depth:
            return layered
        static = np.zeros((len(self.hidden), 4), dtype=np.int64)
        static[:, 2] = self.hidden
        return np.concatenate([static, layered])

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[Architecture]:
        return (Architecture(*map(int, row)) for row in self.table)

    def __contains__(self, architecture: object) -> bool:
        if not isinstance(architecture, Architecture):
            return False
        return bool((self.table == astuple(architecture)).all(axis=1).any())

    def costs(self, inputs: Inputs, length: int) -> Costs:
        """Every candidate with its exact parameters and operations, in ascending order of cost.

        Raises:
            InvalidSpace: a candidate that the inputs' family cannot be.
        """
        depth, heads, hidden, intermediate = self.table.T
        if np.any(wrong := impossible(depth, heads, hidden, inputs)):
            worst = Architecture(*map(int, self.table[wrong][0]))
            raise InvalidSpace(f"{np.sum(wrong)} of {len(self)} candidates, {worst} for one: {IMPOSSIBLE}")
        parameters = (
            embedding_parameters(hidden, inputs)
            + encoder_parameters(depth, hidden, intermediate, inputs)
            + projection_parameters(hidden, inputs)
        )
        work = operations(depth, hidden, intermediate, inputs, length)
        order = np.lexsort((intermediate, hidden, heads, depth, parameters, work))
        return Costs(self.table[order], parameters[order], work[order])


def nearest_heads(table: NDArray[np.int64], head_size: float) -> NDArray[np.bool_]:
    """(N,) of each ⟨D, H, I⟩ the one row with heads nearest to `head_size` in size (by ratio; ties: more heads)."""
    depth, heads, hidden, intermediate = table.T
    size = hidden / np.maximum(heads, 1)
    order = np.lexsort((-heads, np.abs(np.log(size / head_size)).round(9), intermediate, hidden, depth))
    shapes = table[order][:, [0, 2, 3]]
    first = np.ones(len(table), dtype=np.bool_)
    first[1:] = (shapes[1:] != shapes[:-1]).any(axis=1)
    chosen = np.zeros(len(table), dtype=np.bool_)
    chosen[order[first]] = True
    return chosen
