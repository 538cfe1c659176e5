"""Layers by trial: which layers of the start the candidates of each depth keep.

Removing layers from the start without training says which it can least do without, not from which a smaller encoder
learns best. So for each depth below the start's a few subsets are proposed, and all of them train for a few steps on
what the error measures, from the same seed on the same batches (successive halving):

    s/20 steps: what greedy removal keeps, the lowest, evenly spread and highest layers; then the neighbours of the best
                of these, in which one layer is exchanged by an adjacent one; then what was best at the depth before,
                with the layers added that removal keeps longest
    s/10 steps: the best four
    s/5 steps:  the best two, of which the better is chosen

where s are the steps of a candidate. With outputs of a task, as long as the best of a depth knows hardly more than a
constant, its error says nothing of its layers: then all that is proposed for this depth trains for twice the steps, up
to 2s/5, its neighbours are those of what is best then, and its later rungs are longer too. (Two layers of a teacher
that is fine-tuned for pairs take 40 steps to begin, see docs/outputs.md.) The one that trains is the largest candidate
of its depth. Ties go to what was proposed first. Each training is recorded when it has ended, so a kill loses the
running ones only. Workers with the same number of threads give the same errors, so the same layers.

    >>> with Workers(config, run.path, count=2) as workers:
    ...     choose_layers(run, config, space, workers, report)
    >>> run.read(Layers).chosen
    {'1': (5,), '2': (4, 5)}
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise

from subarch.errors import InvalidStudy
from subarch.extraction.config import ExtractConfig
from subarch.extraction.question import thetas
from subarch.extraction.workers import Pool
from subarch.numbers.architecture import Architecture
from subarch.numbers.space import WHOLE, SearchSpace
from subarch.run import Report, silent
from subarch.run.folder import RunFolder
from subarch.run.records import Layers, LayerTrial

Subset = tuple[int, ...]
"""Layers of the start, counted from 0, ascending."""

RUNGS = (1 / 20, 1 / 10, 1 / 5)
"""Shares of the steps of a candidate that the trials of each rung have."""
PLACES = (4, 2)
"""How many go on to the second and to the third rung."""
TELLING, LONGEST = 0.75, 2 / 5
"""The greatest error of outputs, of which 1 is what a constant leaves, that orders layers; the share of the steps up to
which the first rung goes on until there is one."""


def choose_layers(
    run: RunFolder, config: ExtractConfig, space: SearchSpace, workers: Pool, report: Report = silent
) -> None:
    """Choose the layers of each depth of the space that has a choice, and write them down.

    A run without the record `Layers` inherits nothing, and has nothing to choose. A proposal whose training fails is
    behind all others; if all fail, what greedy removal keeps is chosen.
    """
    if not run.has(Layers):
        return
    ranked = run.read(Layers).ranked
    shapes = {depth: largest(space, depth) for depth in space.depth if not run.read(Layers).is_settled(depth)}
    settings = thetas(config)[0]
    rungs = [math.ceil(config.steps * share) for share in RUNGS]
    at, longest = dict.fromkeys(shapes, rungs[0]), math.ceil(config.steps * LONGEST)  # steps, by depth

    def train(field: Mapping[int, Mapping[Subset, str]]) -> None:
        """Train what is proposed and not known; the record grows with each that ends."""
        known = run.read(Layers)
        done = {(trial.architecture, trial.layers, trial.steps) for trial in known.trials}
        names = {(str(shapes[depth]), kept): why for depth, some in field.items() for kept, why in some.items()}
        left = [(shapes[depth], kept) for depth, some in field.items() for kept in some]
        left = [(shape, kept) for shape, kept in left if (str(shape), kept, at[shape.depth]) not in done]
        for shape, kept in left:
            workers.submit(shape, replace(settings, steps=at[shape.depth], layers=kept))
        ended, numbers = 0, sorted({at[depth] for depth in field})
        while ended < len(left):
            for trial in workers.next():
                tried = trial.settings.layers
                assert tried is not None
                row = LayerTrial(
                    architecture=str(trial.architecture),
                    layers=tried,
                    proposed=names[str(trial.architecture), tried],
                    steps=trial.settings.steps,
                    error=trial.error,
                    seconds=trial.seconds,
                )
                known = known.model_copy(update={"trials": (*known.trials, row)})
                run.write(known)
                ended += 1
                report(f"choosing layers: trials of {', '.join(map(str, numbers))} steps", ended, len(left))

    def errors(depth: int) -> dict[Subset, float]:
        return {
            trial.layers: math.inf if trial.error is None else trial.error
            for trial in run.read(Layers).trials
            if (trial.architecture, trial.steps) == (str(shapes[depth]), at[depth])
        }

    def best(depth: int, some: Iterable[Subset], places: int = 1) -> list[Subset]:
        known = errors(depth)
        return sorted(some, key=lambda kept: known[kept])[:places]

    def tells(depth: int) -> bool:
        """Whether the errors of a depth are to choose by: one is small enough, or the trials are as long as may be."""
        of_outputs = config.measures == "outputs"  # others order layers long before they are small
        return not of_outputs or at[depth] == longest or not TELLING < min(errors(depth).values()) < math.inf

    field: dict[int, dict[Subset, str]] = {depth: {} for depth in shapes}
    for depth, some in field.items():
        for why, kept in proposals(depth, ranked).items():
            some.setdefault(kept, why)
    early = field
    while early:
        train(early)
        for depth, some in early.items():
            for kept in neighbours(best(depth, some)[0], len(ranked)):
                some.setdefault(kept, "neighbour of the best")
        train(early)
        early = {depth: some for depth, some in early.items() if not tells(depth)}
        at |= {depth: min(2 * at[depth], longest) for depth in early}
    leaders = {depth: best(depth, some)[0] for depth, some in field.items()}
    for below, depth in pairwise(field):
        field[depth].setdefault(grown(leaders[below], depth, ranked), f"best of depth {below}, grown")
    train(field)
    for (before, steps), places in zip(pairwise(rungs), PLACES, strict=True):
        field = {depth: {kept: some[kept] for kept in best(depth, some, places)} for depth, some in field.items()}
        at = {depth: steps if own == before else min(2 * own, config.steps) for depth, own in at.items()}
        train(field)
    chosen = {str(depth): best(depth, some)[0] for depth, some in field.items()}
    known = run.read(Layers)
    run.write(known.model_copy(update={"chosen": known.chosen | chosen}))


def largest(space: SearchSpace, depth: int) -> Architecture:
    """The candidate of this depth that is largest in hidden, then intermediate size, then vocabulary, then heads."""
    return max(
        (one for one in space if one.depth == depth),
        key=lambda one: (one.hidden, one.intermediate, one.vocabulary or WHOLE, one.heads),
    )


def proposals(depth: int, ranked: Sequence[int]) -> dict[str, Subset]:
    """The subsets of so many layers that a trial begins with, by what proposes them; some may be the same.

    Args:
        ranked: all layers of the start, the one that greedy removal keeps longest first.
    """
    last = len(ranked) - 1
    spread = (round(last / 2),) if depth == 1 else tuple(round(at * last / (depth - 1)) for at in range(depth))
    return {
        "greedy removal": tuple(sorted(ranked[:depth])),
        "lowest": tuple(range(depth)),
        "evenly spread": spread,
        "highest": tuple(range(last + 1 - depth, last + 1)),
    }


def neighbours(kept: Subset, count: int) -> list[Subset]:
    """All subsets of `count` layers in which one of these layers is exchanged by an adjacent one."""
    moved = ((layer, layer + step) for layer in kept for step in (-1, 1))
    return [tuple(sorted({*kept, new} - {old})) for old, new in moved if 0 <= new < count and new not in kept]


def grown(kept: Subset, depth: int, ranked: Sequence[int]) -> Subset:
    """These layers and those that removal keeps longest of the others, `depth` in all."""
    others = [layer for layer in ranked if layer not in kept]
    return tuple(sorted([*kept, *others[: depth - len(kept)]]))


def take_over(run: RunFolder, other: RunFolder) -> None:
    """Choose what another run chose, at the depths where nothing is chosen yet: its trials are to compare with ours.

    Raises:
        InvalidStudy: both have chosen, and differ.
    """
    ours, theirs = run.read(Layers), other.read(Layers)
    for depth, kept in theirs.chosen.items():
        if (own := ours.chosen.get(depth, kept)) != kept:
            raise InvalidStudy(
                f"{other.path}: its candidates of depth {depth} keep the layers {listed(kept)} of the start, those of "
                f"{run.path} keep {listed(own)}, so their errors do not compare; leave it out of reuse"
            )
    new = theirs.chosen.keys() - ours.chosen.keys()
    trials = tuple(trial for trial in theirs.trials if trial.architecture.split("-")[0] in new)
    run.write(ours.model_copy(update={"trials": ours.trials + trials, "chosen": theirs.chosen | ours.chosen}))


def sentence(found: Layers) -> str | None:
    """What was chosen, in words; None where there was nothing to choose."""
    if not found.chosen:
        return None
    kept = "; ".join(f"{depth}: {listed(layers)}" for depth, layers in sorted(found.chosen.items(), key=_depth))
    return (
        f"Layers kept, by {len(found.trials)} short trainings, counted from 0, for each depth: {kept} "
        f"(of {len(found.ranked)})."
    )


def rises(found: Layers) -> list[tuple[int, int]]:
    """The pairs of consecutive depths of which the deeper ended its trial with the greater error.

    The certificate of a search presumes that there are none.
    """
    ends: dict[int, float] = {}
    for trial in found.trials:  # of each choice the longest training comes last
        depth = trial.architecture.split("-")[0]
        if trial.error is not None and trial.layers == found.chosen.get(depth):
            ends[int(depth)] = trial.error
    depths = sorted(ends)
    return [(a, b) for a, b in pairwise(depths) if ends[b] > ends[a]]


def listed(layers: Subset) -> str:
    return ", ".join(map(str, layers))


def _depth(item: tuple[str, Subset]) -> int:
    return int(item[0])
