"""Tables on which a strategy runs in milliseconds: every candidate with its costs and its errors, trained or made up.

`recorded` loads what an exhaustive study of ours left (record.py makes the file; README.md has the schema). `synthetic`
makes errors of scaling-law form. A search that fits a law of its own must not be tested on that law alone, so there are
four forms, and none of them is a quadratic in logarithms, which is what `search/bounds.py` fits:

    additive     e = e∞ + Σ w_k n_k^-α_k                       a power law in each of D, H and I
    parameters   e = e∞ + w (D (4H² + 2HI))^-α + v D^-β        one in the size of the encoder, and one in depth
    bottleneck   e = e∞ + max_k w_k n_k^-α_k                   what is too small decides alone: kinks
    plateau      e = low + (high - low) σ(-Σ w_k (x_k - c))    flat at both ends, x_k = log n_k scaled to [0, 1]

Constants are drawn by seed; each form is monotone in D, H and I. Noise is relative, independent for every seed and
candidate. Latency has a part per layer, so that it orders candidates otherwise than operations do.

    >>> table = synthetic(SIZES["300"], seed=0, noise=0.0)
    >>> table.shapes.shape, table.error().min()
    >>> recorded(Path("benchmarks/search/minilm.parquet")).costs["ms_torch_b1_l32_t1"]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from subarch.numbers.architecture import Inputs
from subarch.numbers.space import SearchSpace

Floats = NDArray[np.float64]
Axes = tuple[Sequence[int], Sequence[int], Sequence[int]]

FORMS = ("additive", "parameters", "bottleneck", "plateau")
RUNGS = (2, 3, 7, 13, 25)
"""Steps at which errors of synthetic tables are known: those of a study of 25 steps."""
SIZES: dict[str, Axes] = {
    "300": (range(1, 7), range(128, 641, 128), range(256, 2561, 256)),
    "2352": (range(1, 13), range(64, 897, 64), range(128, 1793, 128)),
    "10000": (range(1, 21), range(64, 1281, 64), range(128, 3201, 128)),
    "1000000": (range(1, 101), range(64, 6401, 64), range(64, 6401, 64)),
}
"""Axes D, H, I of the synthetic tables."""


@dataclass(frozen=True, eq=False)
class Table:
    """Candidates in ascending order of operations; one number of heads for each ⟨D, H, I⟩.

    Attributes:
        shapes: (N, 4) ⟨D, A, H, I⟩, or (N, 5) with V.
        parameters: (N,) p(ξ).
        operations: (N,) multiply-adds of a forward pass.
        costs: (N,) columns of i(ξ) by what they were measured with, in ms; the operations where none was.
        rungs: (R,) training steps.
        errors: (S, R, N) by seed and rung; NaN where not recorded. The last rung of the first seed is complete.
        seconds: (R, N) of training up to each rung, in any unit where nothing was trained.
        trial: (N,) seconds of a whole trial, evaluation included: for so long a worker is busy.
        true: (N,) the errors without noise; None where nobody knows them.
    """

    name: str
    shapes: NDArray[np.int64]
    parameters: NDArray[np.int64]
    operations: NDArray[np.int64]
    costs: dict[str, Floats]
    rungs: tuple[int, ...]
    errors: Floats
    seconds: Floats
    trial: Floats
    true: Floats | None = None

    def __len__(self) -> int:
        return len(self.shapes)

    def error(self, seed: int = 0) -> Floats:
        """(N,) errors after the last rung."""
        last: Floats = self.errors[seed, -1]
        return last


def recorded(path: Path, head_size: int | None = 32) -> Table:
    """The table of record.py: shapes with heads of exactly this size, and those without layers, trained the longest.

    None: all shapes, of which each has one number of heads. Other numbers are left out, not only second ones of a
    shape: where the largest shapes were recorded with other heads only, their errors would stand in for those of the
    shape.

    Raises:
        ValueError: no such candidate was recorded.
    """
    rows = pq.read_table(path).to_pylist()
    rows = [row for row in rows if head_size is None or row["heads"] * head_size in (0, row["hidden"])]
    if not rows:
        raise ValueError(f"{path}: no recorded candidate has heads of size {head_size}")
    steps, seeds = max(row["steps"] for row in rows), sorted({row["seed"] for row in rows})
    rows = [row for row in rows if row["steps"] == steps]
    complete = {shape_of(row): row for row in rows if row["seed"] == seeds[0]}
    order = sorted(complete, key=lambda shape: (complete[shape]["operations"], complete[shape]["parameters"], shape))
    position = {shape: index for index, shape in enumerate(order)}
    first = [complete[shape] for shape in order]
    rungs = tuple(step for step in first[0]["curve_steps"] if step)
    errors = np.full((len(seeds), len(rungs), len(order)), np.nan)
    for row in rows:
        if shape_of(row) in position:
            errors[seeds.index(row["seed"]), :, position[shape_of(row)]] = row["curve_errors"][-len(rungs) :]
    shapes = np.array(order, dtype=np.int64)
    return Table(
        path.stem,
        shapes if shapes[:, 4].any() else shapes[:, :4],
        np.array([row["parameters"] for row in first], dtype=np.int64),
        np.array([row["operations"] for row in first], dtype=np.int64),
        {name: np.array([row[name] for row in first]) for name in first[0] if name.startswith("ms_")}
        or {"operations": np.array([float(row["operations"]) for row in first])},
        rungs,
        errors,
        np.array([row["curve_seconds"][-len(rungs) :] for row in first]).T,
        np.array([row["seconds"] for row in first]),
    )


def shape_of(row: dict[str, int]) -> tuple[int, int, int, int, int]:
    return row["depth"], row["heads"], row["hidden"], row["intermediate"], row.get("vocabulary", 0)


def synthetic(axes: Axes, seed: int, noise: float = 0.0, seeds: int = 1, rungs: tuple[int, ...] = RUNGS) -> Table:
    """A table of one of `FORMS`, in turn by seed; `noise` is the relative deviation of an error.

    Training costs what the operations cost, and a tenth of the dearest candidate's besides. Errors fall as s^-1/2, for
    some candidates faster than for others, so that early rungs order them nearly.
    """
    depths, hiddens, intermediates = (tuple(axis) for axis in axes)
    costs = SearchSpace(depths, (8,), hiddens, intermediates).costs(Inputs(30522, 512, 2), length=128)
    rng = np.random.default_rng([seed, len(costs)])
    form = FORMS[seed % len(FORMS)]
    true = law(form, costs.table, rng)
    giga = costs.operations / 1e9
    excess = (np.sqrt(rungs[-1] / np.array(rungs)) - 1) / (np.sqrt(25 / 2) - 1)
    speed = 1 + 0.1 * rng.standard_normal(len(costs))
    longer = true + np.maximum(0.9 - true, 0.0) * speed * excess[:, None]
    errors = longer * (1 + noise * rng.standard_normal((seeds, len(rungs), len(costs))))
    work = giga + 0.1 * giga.max()
    latency = (1 + 0.3 * costs.table[:, 0] + 15 * giga) * (1 + 0.02 * rng.standard_normal(len(costs)))
    return Table(
        f"{form}-{len(costs)}-{seed}",
        costs.table,
        costs.parameters,
        costs.operations,
        {"ms_synthetic": latency},
        rungs,
        errors,
        work * np.array(rungs)[:, None] / rungs[-1],
        work,
        true,
    )


def law(form: str, table: NDArray[np.int64], rng: np.random.Generator) -> Floats:
    """(N,) errors within (0, 1), never rising from a shape to a larger one."""
    sizes = table[:, [0, 2, 3]].T.astype(np.float64)
    relative = sizes / sizes.min(axis=1, keepdims=True)
    floor, span = rng.uniform(0.05, 0.2), rng.uniform(0.3, 0.6)
    alpha, weight = rng.uniform(0.3, 1.2, 3), rng.dirichlet([2, 2, 2])
    if form == "additive":
        powers: Floats = (weight[:, None] * relative ** -alpha[:, None]).sum(axis=0)
        return floor + span * powers
    if form == "parameters":
        d, h, i = sizes
        encoder = d * (4 * h * h + 2 * h * i)
        part: Floats = (
            weight[0] * (encoder / encoder.min()) ** (-alpha[0] / 3) + (1 - weight[0]) * relative[0] ** -alpha[1]
        )
        return floor + span * part
    if form == "bottleneck":
        narrow: Floats = (weight[:, None] / weight.max() * relative ** -alpha[:, None]).max(axis=0)
        return floor + span * narrow
    logs = np.log(relative)
    scaled = logs / logs.max(axis=1, keepdims=True)
    score = 8 * (weight[:, None] * (scaled - rng.uniform(0.3, 0.7))).sum(axis=0)
    falling: Floats = 1 / (1 + np.exp(score))
    return floor + span * falling
