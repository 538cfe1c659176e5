"""What the guarantee of the paper's scheme rests on, checked as far as it can be: AB^nC (arXiv 2010.08512).

A network f = C(B_n(...B_1(A(x)))) has the AB^nC property if the input part A (embeddings) and the output part C (the
map to the output width) grow no faster than the n layers B, if a partial order on ξ orders p and i, and if training
behaves, so that errors after s steps order like errors after full training (`rank_agreement` shows that afterwards).

    >>> conditions = check(SearchSpace.load("minilm"), Inputs(30522, output=384), length=128)
    >>> print(verdict(conditions))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from subarch.numbers.architecture import (
    Inputs,
    embedding_parameters,
    encoder_parameters,
    operations,
    projection_parameters,
)
from subarch.numbers.objectives import Floats, refuse
from subarch.numbers.space import Costs, SearchSpace, sizes_of, vocabularies_of

Integers = NDArray[np.int64]
CostOf = Callable[[Integers, Integers, Integers], Integers]
"""Columns of D, H and I to a column of exact costs."""


@dataclass(frozen=True, slots=True)
class Condition:
    """One condition: `holds` is None where it cannot be checked; `value` is the number that decides, if any does."""

    name: str
    holds: bool | None
    value: float | None
    sentence: str


@dataclass(frozen=True, slots=True)
class RankAgreement:
    """Kendall's τ_b between errors after s steps and after a longer run; [low, high] is its 95 % interval."""

    tau: float
    low: float
    high: float
    candidates: int


UNCHECKED = {
    "bounded gradients": "Lipschitz losses and bounded stochastic gradients cannot be checked before training; "
    "training clips the norm of the gradient, all but the sparse one of token embeddings.",
    "compact weights": "That the weights stay in a compact set cannot be checked before training; weight decay holds "
    "them near 0, but none is clipped.",
    "errors keep their order": "That errors after s steps order like errors after full training cannot be checked "
    "before training (training is by AdamW, not by the SGD of the proof); the rank agreement with longer runs measures "
    "it after the search.",
}


def check(space: SearchSpace, inputs: Inputs, length: int, longer: Mapping[int, int] | None = None) -> list[Condition]:
    """Every condition of the AB^nC property for this Ξ, these inputs and sequences of `length` tokens.

    `longer`: how many tokens another vocabulary than the whole one makes of them, see `SearchSpace.costs`.
    """
    costs = space.costs(inputs, length, longer)
    depth, _, hidden, intermediate = costs.table[:, :4].T
    layers = encoder_parameters(depth, hidden, intermediate, inputs)
    map_work = operations(0 * depth, hidden, intermediate, inputs, length)

    def parameters_of(d: Integers, h: Integers, i: Integers) -> Integers:
        return embedding_parameters(h, inputs) + projection_parameters(h, inputs) + encoder_parameters(d, h, i, inputs)

    def operations_of(d: Integers, h: Integers, i: Integers) -> Integers:
        return operations(d, h, i, inputs, length)

    return [
        _growth("parameters", costs.parameters - layers, layers),
        _growth("operations", map_work, costs.common - map_work),
        _share_of_embeddings(costs, inputs),
        _order("parameters", space, parameters_of),
        _order("operations", space, operations_of),
        _total_order(costs),
        _heads(space),
        *([_vocabulary(length, longer)] if longer else []),
        *(Condition(name, None, None, sentence) for name, sentence in UNCHECKED.items()),
    ]


def verdict(conditions: list[Condition]) -> str:
    """The conditions in one paragraph."""
    kept = [condition for condition in conditions if condition.holds]
    broken = [condition for condition in conditions if condition.holds is False]
    open_ = [condition.name for condition in conditions if condition.holds is None]
    text = f"Of the {len(kept) + len(broken)} conditions that can be checked {len(kept)} hold"
    text += f" ({', '.join(condition.name for condition in kept)})." if kept else "."
    if broken:
        text += " The others do not: " + " ".join(condition.sentence for condition in broken)
        text += " So the published bound is a guide here and no guarantee."
    if open_:
        text += f" What cannot be checked before training: {', '.join(open_)}."
    return text


def rank_agreement(short: ArrayLike, long: ArrayLike, seed: int = 0, resamples: int = 2000) -> RankAgreement:
    """How far errors after few steps, (N,), order candidates like errors after many, (N,), with a bootstrap interval.

    The interval is the percentile bootstrap over candidates. A resample is a vector of counts w, and its τ_b is a ratio
    of quadratic forms in w over the signs of all pairs. Resamples without any order (one candidate drawn N times) are
    left out. With few candidates in perfect agreement the interval is [1, 1] and says little. Memory grows with N².

    Raises:
        ValueError: fewer than 3 candidates, columns of unequal length, NaN or infinite errors, or all errors equal.
    """
    columns = [np.asarray(column, dtype=np.float64) for column in (short, long)]
    if columns[0].ndim != 1 or columns[0].shape != columns[1].shape:
        raise ValueError(f"both must be columns of one length, not {columns[0].shape} and {columns[1].shape}")
    candidates = len(columns[0])
    if candidates < 3:
        raise ValueError(f"rank agreement of {candidates} candidates means nothing; train at least 3 both ways")
    for name, column in zip(("short", "long"), columns, strict=True):
        refuse(~np.isfinite(column), f"the {name} run's error", column, "is not finite; leave failed candidates out")
        if (column == column[0]).all():
            raise ValueError(f"all {name} runs have the error {column[0]}: there is no order to compare")
    signs = [np.sign(column[:, None] - column[None, :]) for column in columns]
    counts = np.random.default_rng(seed).multinomial(candidates, np.full(candidates, 1 / candidates), size=resamples)
    tau = float(_tau(np.ones((1, candidates)), *signs)[0])
    resampled = _tau(counts.astype(np.float64), *signs)
    low, high = np.percentile(resampled[~np.isnan(resampled)], [2.5, 97.5])
    return RankAgreement(tau, float(low), float(high), candidates)


def _tau(counts: Floats, short: Floats, long: Floats) -> Floats:
    """τ_b per row of `counts`, from the signs of all pairs; NaN where either side has only ties."""

    def pairs(signs: Floats) -> Floats:
        total: Floats = ((counts @ signs) * counts).sum(axis=1)
        return total

    with np.errstate(invalid="ignore"):
        tau: Floats = pairs(short * long) / np.sqrt(pairs(np.abs(short)) * pairs(np.abs(long)))
    return tau


def _growth(what: str, ends: Integers, layers: Integers) -> Condition:
    """The words "no faster" on a finite Ξ: from least to greatest, A and C together gain no more than B.

    (Ours; the paper compares polynomials, where it always holds: A and C are linear in H, a layer is quadratic.)
    """
    gained, by_layers = int(np.ptp(ends)), int(np.ptp(layers))
    embeddings = "embeddings" if what == "parameters" else "embeddings (looked up, at no operation)"
    ratio = gained / by_layers if by_layers else None
    sentence = f"Over Ξ {embeddings} and output map together gain up to {gained:,} {what}, the layers {by_layers:,}"
    sentence += f": {ratio:.2g} for each one of the layers'." if ratio is not None else "."
    if gained > by_layers:
        sentence += f" A and C grow faster than B: the layers do not drive the {what} of this space."
    return Condition(f"growth of {what}", gained <= by_layers, ratio, sentence)


def _share_of_embeddings(costs: Costs, inputs: Inputs) -> Condition:
    by_size = np.argsort(costs.parameters, kind="stable")
    chosen = by_size[[0, len(by_size) // 2, -1]]
    tables = embedding_parameters(costs.table[chosen, 2], inputs, vocabularies_of(costs.table)[chosen])
    shares = tables / costs.parameters[chosen]
    at = [f"{100 * share:.0f} % of {costs.architecture(row)}" for share, row in zip(shares, chosen, strict=True)]
    sentence = f"Embeddings are {at[0]}, the smallest candidate, {at[1]}, the median, and {at[2]}, the largest."
    holds = bool(shares[1] <= 0.5)
    if not holds:
        sentence += (
            f" With {inputs.vocabulary:,} tokens at these hidden sizes they dominate p, which then tells hidden sizes "
            "apart rather than layers: the property is weak here, and the guarantee with it."
        )
    return Condition("share of embeddings", holds, float(shares[1]), sentence)


def _order(what: str, space: SearchSpace, cost_of: CostOf) -> Condition:
    """Does a larger ⟨D, H, I⟩ never cost less, on the actual candidates?"""
    shapes, lower, upper = neighbours(space)
    cost = cost_of(*shapes.T)
    gain = cost[upper] - cost[lower]
    falls = int((gain < 0).sum())
    if not falls:
        sentence = f"No larger ⟨D, H, I⟩ has fewer {what}: none of {len(gain):,} steps between neighbours falls."
        return Condition(f"order of {what}", True, 0.0, sentence)
    worst = int(gain.argmin())
    (d, h, i), (larger_d, larger_h, larger_i) = shapes[lower[worst]], shapes[upper[worst]]
    sentence = (
        f"A larger ⟨D, H, I⟩ can have fewer {what}, on {falls:,} of {len(gain):,} steps between neighbours: "
        f"⟨{larger_d}, {larger_h}, {larger_i}⟩ has {cost[upper[worst]]:,}, ⟨{d}, {h}, {i}⟩ has {cost[lower[worst]]:,} "
        "(no map is needed at the output width). There the order of cost contradicts the order of ⟨D, H, I⟩."
    )
    return Condition(f"order of {what}", False, falls / len(gain), sentence)


def neighbours(space: SearchSpace) -> tuple[Integers, Integers, Integers]:
    """The distinct ⟨D, H, I⟩ of Ξ, (M, 3), and the neighbours in their partial order as rows (lower, upper).

    Every comparable pair is joined by a chain of neighbours, so what is monotone on these is monotone on all. The
    layered shapes are a full grid over D, H (those some A divides) and I; the static ones (D = 0) are a chain over H,
    and each lies below the least layered shape of its H.
    """
    static = np.array(space.hidden if 0 in space.depth else (), dtype=np.int64)
    depth = np.array([d for d in space.depth if d], dtype=np.int64)
    hidden = np.array([h for h in space.hidden if any(h % a == 0 for a in space.heads)], dtype=np.int64)
    axes = np.meshgrid(depth, hidden, np.array(space.intermediate, dtype=np.int64), indexing="ij")
    layered = np.stack([axis.ravel() for axis in axes], axis=1)
    shapes = np.concatenate([np.stack([0 * static, static, 0 * static], axis=1), layered])
    grid = len(static) + np.arange(len(layered)).reshape(axes[0].shape)
    chain = np.arange(len(static))
    pairs = [(grid[:-1], grid[1:]), (grid[:, :-1], grid[:, 1:]), (grid[:, :, :-1], grid[:, :, 1:])]
    pairs += [(chain[:-1], chain[1:])]
    if len(static) and len(layered):
        pairs += [(np.searchsorted(static, hidden), grid[0, :, 0])]
    lower, upper = (np.concatenate([pair[side].ravel() for pair in pairs]) for side in (0, 1))
    return shapes, lower, upper


def _total_order(costs: Costs) -> Condition:
    """The between-grid bound needs errors in order of cost: so neighbours in cost should be comparable in ⟨D, H, I⟩."""
    shapes = sizes_of(costs.table)
    named = "⟨D, H, I⟩" if shapes.shape[1] == 3 else "⟨D, H, I, V⟩"
    below, above = shapes[:-1], shapes[1:]
    different = (below != above).any(axis=1)
    ordered = (below[different] <= above[different]).all(axis=1)
    if ordered.all():
        sentence = f"{named} orders all candidates totally, as the bound between trained candidates needs."
        return Condition("total order", True, 1.0, sentence)
    share = float(ordered.mean())
    sentence = (
        f"Of candidates next to each other in cost {100 * share:.0f} % are ordered by {named}; nothing orders the "
        "errors of the others, so a skipped one may be better than the bound between trained candidates says."
    )
    return Condition("total order", False, share, sentence)


def _vocabulary(length: int, longer: Mapping[int, int]) -> Condition:
    """Whether V orders operations too: a smaller vocabulary makes more tokens of a text."""
    size, most = min(longer), max(longer.values())
    if most <= length:
        sentence = f"Every vocabulary makes {length} tokens of a text, so operations do not depend on V."
        return Condition("operations by vocabulary", True, 1.0, sentence)
    sentence = (
        f"Where the whole vocabulary makes {length} tokens of a text, one of {size:,} makes {longer[size]}: a smaller "
        "V has fewer parameters and more operations. So candidates are in order of operations on equally many tokens."
    )
    return Condition("operations by vocabulary", False, most / length, sentence)


def _heads(space: SearchSpace) -> Condition:
    shapes = len(neighbours(space)[0]) * len(space.vocabulary)
    if len(space) == shapes:
        sentence = "Each ⟨D, H, I⟩ comes with one number of heads, so none is left unordered by A."
        return Condition("heads", True, 1.0, sentence)
    sentence = (
        f"A changes neither parameters nor operations and nothing orders the error by it, yet the {shapes:,} shapes "
        f"⟨D, H, I⟩ come with {len(space) / shapes:.3g} numbers of heads each: no trained one bounds its siblings."
    )
    return Condition("heads", False, len(space) / shapes, sentence)
