"""Other strategies on the same tables: Optuna's samplers, ASHA of ray tune, MO-ASHA of syne-tune, random order.

A peer is a generator of (row, rung): train this candidate up to that rung. Peers look their errors up in the table, so
whoever drives them only adds up what it costs. All know the costs and propose only candidates that meet the limits; a
candidate that was trained is not charged again. Three ways to tell a sampler what is affordable:

    nested        depth among those with an affordable candidate, then hidden size as a position among those that are
                  left, then intermediate size likewise: every proposal is affordable
    constrained   positions on the axes; what is proposed over the limit is free, and told as a violated constraint
    categories    the same with unordered values

Samplers that only propose what is known get a random candidate after `PATIENCE` such proposals.

    >>> for row, rung in optuna_peer(problem, errors, seed=0, sampler="tpe", space="nested", startup=5):
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray

from subarch.search import Problem

Floats = NDArray[np.float64]
Proposals = Iterator[tuple[int, int]]

PATIENCE = 20


def random_peer(problem: Problem, errors: Floats, seed: int) -> Proposals:
    """Affordable candidates in random order. `errors` of all peers is (R, N), by rung."""
    rows = np.flatnonzero(problem.affordable)
    for row in np.random.default_rng(seed).permutation(rows):
        yield int(row), len(errors) - 1


def optuna_peer(
    problem: Problem, errors: Floats, seed: int, sampler: str, space: str, startup: int, front: bool = False
) -> Proposals:
    """`startup`: random trials of tpe and gp, the population of nsga2. `front`: minimise error and cost instead."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    table, rung = table_of(problem), len(errors) - 1
    value = problem.values(slice(None), errors[-1])
    rows = {(d, h, i): row for row, (d, _, h, i) in enumerate(table.tolist())}
    affordable = set(np.flatnonzero(problem.affordable).tolist())
    axes = [sorted(set(table[:, column].tolist())) for column in (0, 2, 3)]
    tree = tree_of(table[sorted(affordable)])
    study = optuna.create_study(directions=["minimize"] * (2 if front else 1), sampler=_sampler(sampler, seed, startup))
    random = iter(np.random.default_rng(seed).permutation(sorted(affordable)).tolist())
    trained: set[int] = set()
    free = 0
    while len(trained) < len(affordable):
        if free > PATIENCE:
            shape = table[next(row for row in random if row not in trained)][[0, 2, 3]].tolist()
            study.enqueue_trial(_parameters(shape, axes, tree, space))
        trial = study.ask()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            row = rows.get(_proposed(trial, axes, tree, space), -1)
        trial.set_user_attr("over", 0.0 if row in affordable else 1.0)
        known = row not in affordable or row in trained
        if not known:
            yield row, rung
            trained.add(row)
        free = free + 1 if known else 0
        # What breaks the limit is never trained: it is told the worst error there is, and its cost
        worst = float(errors[-1].max()), float(problem.cost.max())
        point = (float(errors[-1, row]), float(problem.cost[row])) if row in affordable else worst
        single = float(value[row]) if row in affordable else float(value[np.isfinite(value)].max())
        study.tell(trial, point if front else single)


def _sampler(name: str, seed: int, startup: int) -> optuna.samplers.BaseSampler:
    def over(trial: optuna.trial.FrozenTrial) -> tuple[float]:
        return (trial.user_attrs["over"],)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if name == "tpe":
            return optuna.samplers.TPESampler(
                seed=seed, n_startup_trials=startup, multivariate=True, constraints_func=over
            )
        if name == "gp":
            return optuna.samplers.GPSampler(
                seed=seed, n_startup_trials=startup, deterministic_objective=True, constraints_func=over
            )
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=startup, constraints_func=over)


Tree = dict[int, dict[int, list[int]]]


def tree_of(table: NDArray[np.int64]) -> Tree:
    """The affordable shapes: depth to hidden size to intermediate sizes, ascending."""
    tree: Tree = {}
    for depth, _, hidden, intermediate in sorted(table.tolist()):
        tree.setdefault(depth, {}).setdefault(hidden, []).append(intermediate)
    return tree


def _proposed(trial: optuna.Trial, axes: list[list[int]], tree: Tree, space: str) -> tuple[int, int, int]:
    if space == "constrained":
        d, h, i = (axis[trial.suggest_int(name, 0, len(axis) - 1)] for name, axis in zip("dhi", axes, strict=True))
        return d, h, i
    if space == "categories":
        d, h, i = (trial.suggest_categorical(name, axis) for name, axis in zip("dhi", axes, strict=True))
        return d, h, i
    depths = list(tree)
    depth = depths[trial.suggest_int("d", 0, len(depths) - 1)]
    hidden = _at(list(tree[depth]), trial.suggest_float("h", 0, 1))
    return depth, hidden, _at(tree[depth][hidden], trial.suggest_float("i", 0, 1))


def _parameters(shape: list[int], axes: list[list[int]], tree: Tree, space: str) -> dict[str, Any]:
    """The trial that proposes this affordable shape: the inverse of `_proposed`."""
    if space == "constrained":
        return {name: axis.index(size) for name, axis, size in zip("dhi", axes, shape, strict=True)}
    if space == "categories":
        return dict(zip("dhi", shape, strict=True))
    depth, hidden, intermediate = shape
    places = (list(tree[depth]), hidden), (tree[depth][hidden], intermediate)
    h, i = ((values.index(size) + 0.5) / len(values) for values, size in places)
    return {"d": list(tree).index(depth), "h": h, "i": i}


def place(shares: Sequence[float], tree: Tree) -> tuple[int, int, int]:
    """⟨D, H, I⟩ at three shares in [0, 1], each of what the ones before it leave."""
    depth = _at(list(tree), shares[0])
    hidden = _at(list(tree[depth]), shares[1])
    return depth, hidden, _at(tree[depth][hidden], shares[2])


def _at(values: list[int], share: float) -> int:
    return values[min(int(share * len(values)), len(values) - 1)]


def table_of(problem: Problem) -> NDArray[np.int64]:
    if problem.table is None:
        raise ValueError("peers need the table of ⟨D, A, H, I⟩")
    return problem.table


def asha_peer(
    problem: Problem, errors: Floats, seed: int, rungs: tuple[int, ...], grace: int, reduction: int
) -> Proposals:
    """Random order; ray tune's scheduler stops a trial at a rung. Only what reaches the last rung counts as trained."""
    from ray.tune.schedulers import AsyncHyperBandScheduler

    # Of trials it looks at the id only, and at no controller
    scheduler: Any = AsyncHyperBandScheduler(
        time_attr="step", metric="value", mode="min", max_t=rungs[-1], grace_period=grace, reduction_factor=reduction
    )
    values = np.stack([problem.values(slice(None), error) for error in errors])
    for row, _ in random_peer(problem, errors, seed):
        trial = SimpleNamespace(trial_id=str(row))
        scheduler.on_trial_add(None, trial)
        for rung, step in enumerate(rungs):
            yield row, rung
            if scheduler.on_trial_result(None, trial, {"step": step, "value": values[rung, row]}) == scheduler.STOP:
                break


def moasha_peer(
    problem: Problem, errors: Floats, seed: int, rungs: tuple[int, ...], grace: int, reduction: int
) -> Proposals:
    """As ASHA, of syne-tune, by non-dominated sorting of error and cost instead of the value."""
    logging.disable(logging.WARNING)  # its optional extras are missed at import
    from syne_tune.optimizer.schedulers.multiobjective.moasha import MOASHA

    logging.disable(logging.NOTSET)
    scheduler = MOASHA(
        {}, ["error", "cost"], time_attr="step", max_t=rungs[-1], grace_period=grace, reduction_factor=reduction
    )
    for row, _ in random_peer(problem, errors, seed):
        trial = SimpleNamespace(trial_id=row)
        scheduler.on_trial_add(trial)
        for rung, step in enumerate(rungs):
            yield row, rung
            result = {"step": step, "error": errors[rung, row], "cost": problem.cost[row]}
            if scheduler.on_trial_result(trial, result) == "STOP":
                break
