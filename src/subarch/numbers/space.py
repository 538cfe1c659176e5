"""The search space Ξ: finite axes for ⟨D, A, H, I, V⟩, the candidates in order of cost, and the maximum point T.

>>> from subarch import Inputs, SearchSpace
>>> space = SearchSpace.load("paper")
>>> len(space), str(space.costs(Inputs(50265, 514, 1), length=128).maximum_point)
(300, '12-4-1024-3072')
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
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
"""The axes that every space has; a fifth, `vocabulary`, is the whole one where nothing else is said."""

WHOLE = np.iinfo(np.int64).max
"""Stands for the whole vocabulary where vocabularies are compared: none is larger."""

# Within these the operations of a candidate fit an int64 at any length up to 4096, and a space fits in memory
LARGEST = {"depth": 1_000, "heads": 65_536, "hidden": 65_536, "intermediate": 1_000_000, "vocabulary": 10_000_000}
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
    """The candidates of a space in ascending order of cost: `common`, then parameters, then ⟨D, A, H, I, V⟩.

    `operations` are those on the tokens that a candidate's own vocabulary makes of a text, `common` those on as many as
    the whole vocabulary makes of it. A smaller vocabulary makes more, so `operations` fall as V grows, while errors do
    not rise: ordered by `common` and then by parameters, which rise with V, no candidate comes before one that is
    smaller in D, H, I and V. (Inferred, not the paper's word: under AB^nC this extends the partial order of ⟨D, H, I⟩.)

    `table` is (N, 4), ⟨D, A, H, I⟩, or (N, 5) with V where the space has that axis.
    """

    table: NDArray[np.int64]
    parameters: NDArray[np.int64]
    operations: NDArray[np.int64]
    common: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.table)

    def only(self, some: NDArray[np.bool_]) -> Costs:
        """Some of the candidates, in the same order."""
        return Costs(self.table[some], self.parameters[some], self.operations[some], self.common[some])

    def architecture(self, index: int) -> Architecture:
        return Architecture(*(int(value) for value in self.table[index]))

    @property
    def maximum_point(self) -> Architecture:
        """T: the candidate of most operations on one text; among equals, of most parameters, then of fewest heads."""
        ties = np.flatnonzero((self.common == self.common[-1]) & (self.parameters == self.parameters[-1]))
        return self.architecture(int(ties[0]))


@dataclass(frozen=True)
class SearchSpace:
    """Finite axes; the candidates are their product without the invalid combinations. Vocabulary 0 is the whole one.

    Raises:
        InvalidSpace: an empty or malformed axis, or no valid candidate at all.
    """

    depth: tuple[int, ...]
    heads: tuple[int, ...]
    hidden: tuple[int, ...]
    intermediate: tuple[int, ...]
    name: str = "custom"
    head_size: float | None = None
    """Of each ⟨D, H, I, V⟩ only the A whose heads are nearest to this size is a candidate; None: all are."""
    vocabulary: tuple[int, ...] = (0,)

    def __post_init__(self) -> None:
        for axis in (*AXES, "vocabulary"):
            values = getattr(self, axis)
            least = 0 if axis in ("depth", "vocabulary") else 1
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
        combinations = math.prod(len(getattr(self, axis)) for axis in (*AXES, "vocabulary"))
        if combinations > COMBINATIONS:
            raise InvalidSpace(f"space {self.name!r}: {combinations} combinations; at most {COMBINATIONS} are allowed")
        if not len(self):
            sizes = f"no hidden size of {list(self.hidden)} is divisible by a number of heads of {list(self.heads)}"
            raise InvalidSpace(f"space {self.name!r} is empty: {sizes}")

    @classmethod
    def load(cls, source: str | Path) -> SearchSpace:
        """A preset by name, or a YAML file that maps depth, heads, hidden, intermediate, and vocabulary, to lists."""
        if str(source) in PRESETS:
            return cls.from_dict(PRESETS[str(source)], str(source))
        path = Path(source)
        if not path.is_file():
            raise InvalidSpace(f"{source}: neither a preset ({', '.join(PRESETS)}) nor a YAML file")
        return cls.from_dict(read_yaml(path, InvalidSpace), path.stem)

    @classmethod
    def below(cls, start: Architecture, shallowest: int = 0, vocabulary: Sequence[int] = (0,)) -> SearchSpace:
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
            vocabulary=tuple(vocabulary),
            name="auto",
        )

    @classmethod
    def from_dict(cls, data: Any, name: str = "custom") -> SearchSpace:
        """Axes from a mapping; missing and unknown keys are refused. Of vocabularies `all` is the whole one."""
        if not isinstance(data, dict) or {*data, "vocabulary"} != {*AXES, "vocabulary"}:
            found = sorted(map(show, data)) if isinstance(data, dict) else type(data).__name__
            raise InvalidSpace(
                f"space {name!r}: needs exactly the keys {', '.join(AXES)}, and may have vocabulary; found {found}"
            )
        if isinstance(data.get("vocabulary"), (list, tuple)):
            data = data | {"vocabulary": [0 if value == "all" else value for value in data["vocabulary"]]}
        return cls(**data, name=name)

    def with_heads_of(self, head_size: float) -> SearchSpace:
        """The part of it with one A for each ⟨D, H, I, V⟩: A enters neither p nor the operations, nor orders e."""
        return replace(self, head_size=head_size)

    @property
    def sentence(self) -> str:
        """The axes in one line."""
        axes = [f"{name} {' '.join(map(str, getattr(self, name)))}" for name in AXES]
        if self.has_vocabularies:
            axes.append(f"vocabulary {' '.join(str(size or 'all') for size in self.vocabulary)}")
        return f"space {self.name}: {', '.join(axes)}"

    @property
    def has_vocabularies(self) -> bool:
        """Whether it has candidates with another vocabulary than the whole one."""
        return self.vocabulary != (0,)

    def to_dict(self) -> dict[str, list[int]]:
        named = (*AXES, "vocabulary") if self.has_vocabularies else AXES
        return {axis: list(getattr(self, axis)) for axis in named}

    @cached_property
    def table(self) -> NDArray[np.int64]:
        """(N, 4) int64: the valid ⟨D, A, H, I⟩, lexicographically; (N, 5) with V where there are several.

        Depth 0 has one row per hidden size and vocabulary.
        """
        depth = np.array([d for d in self.depth if d], dtype=np.int64)
        vocabularies = (self.vocabulary,) if self.has_vocabularies else ()
        grid = np.meshgrid(depth, self.heads, self.hidden, self.intermediate, *vocabularies, indexing="ij")
        combined = np.stack([axis.ravel() for axis in grid], axis=1).astype(np.int64)
        layered: NDArray[np.int64] = combined[combined[:, 2] % combined[:, 1] == 0]
        if self.head_size is not None:
            layered = layered[nearest_heads(layered, self.head_size)]
        if 0 not in self.depth:
            return layered
        static = np.zeros((len(self.hidden) * len(self.vocabulary), layered.shape[1]), dtype=np.int64)
        static[:, 2] = np.repeat(self.hidden, len(self.vocabulary))
        if vocabularies:
            static[:, 4] = np.tile(self.vocabulary, len(self.hidden))
        return np.concatenate([static, layered])

    def __len__(self) -> int:
        return len(self.table)

    def __iter__(self) -> Iterator[Architecture]:
        return (Architecture(*map(int, row)) for row in self.table)

    def __contains__(self, architecture: object) -> bool:
        if not isinstance(architecture, Architecture):
            return False
        return bool(rows_of(self.table, architecture).any())

    def costs(self, inputs: Inputs, length: int, longer: Mapping[int, int] | None = None) -> Costs:
        """Every candidate with its exact parameters and operations, in ascending order of cost.

        Args:
            length: tokens that the whole vocabulary makes of a text.
            longer: by V how many another vocabulary makes of it; `length` where it is not named.

        Raises:
            InvalidSpace: a candidate that the inputs' family cannot be, or a vocabulary not smaller than theirs.
        """
        if (most := max(self.vocabulary)) >= inputs.vocabulary:
            raise InvalidSpace(
                f"space {self.name!r}: vocabulary {most} is no part of the {inputs.vocabulary} tokens that there are; "
                "give smaller numbers, and all for the whole vocabulary"
            )
        depth, heads, hidden, intermediate = self.table[:, :4].T
        if np.any(wrong := impossible(depth, heads, hidden, inputs)):
            worst = Architecture(*map(int, self.table[wrong][0]))
            raise InvalidSpace(f"{np.sum(wrong)} of {len(self)} candidates, {worst} for one: {IMPOSSIBLE}")
        vocabulary = vocabularies_of(self.table)
        parameters = (
            embedding_parameters(hidden, inputs, vocabulary)
            + encoder_parameters(depth, hidden, intermediate, inputs)
            + projection_parameters(hidden, inputs)
        )
        common = operations(depth, hidden, intermediate, inputs, length)
        work = common.copy()
        for size, tokens in (longer or {}).items():
            own = vocabulary == size
            work[own] = operations(depth[own], hidden[own], intermediate[own], inputs, tokens)
        order = np.lexsort((intermediate, hidden, heads, depth, parameters, common))
        return Costs(self.table[order], parameters[order], work[order], common[order])


def rows_of(table: NDArray[np.int64], architecture: Architecture) -> NDArray[np.bool_]:
    """(N,) which rows of a table are this architecture."""
    shape = astuple(architecture)
    same: NDArray[np.bool_] = (table == shape[: table.shape[1]]).all(axis=1)
    return same & (not any(shape[table.shape[1] :]))


def vocabularies_of(table: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N,) V, 0 for the whole vocabulary."""
    return table[:, 4] if table.shape[1] > 4 else np.zeros(len(table), dtype=np.int64)


def sizes_of(table: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N, 3 or 4) D, H and I, and V where the table has it: what errors do not rise with. The whole V is `WHOLE`."""
    sizes = table[:, [0, 2, 3, *range(4, table.shape[1])]]
    sizes[:, 3:][sizes[:, 3:] == 0] = WHOLE
    return sizes


def nearest_heads(table: NDArray[np.int64], head_size: float) -> NDArray[np.bool_]:
    """(N,) of each ⟨D, H, I, V⟩ the one row with heads nearest to `head_size` in size (by ratio; ties: more heads)."""
    heads, hidden = table[:, 1], table[:, 2]
    size = hidden / np.maximum(heads, 1)
    sizes = sizes_of(table)
    order = np.lexsort((-heads, np.abs(np.log(size / head_size)).round(9), *sizes.T[::-1]))
    shapes = sizes[order]
    first = np.ones(len(table), dtype=np.bool_)
    first[1:] = (shapes[1:] != shapes[:-1]).any(axis=1)
    chosen = np.zeros(len(table), dtype=np.bool_)
    chosen[order[first]] = True
    return chosen
