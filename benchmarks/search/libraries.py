"""More peers: CQR, ASHACQR, BOHB and EHVI of syne-tune, PriorBand and PriMO of NePS, by their own ask and tell.

A point is three shares in [0, 1), which stand for depth, hidden and intermediate size in one of two ways: `nested` as
in peers.py, or `axes`: positions among all candidates, of which those over the limit cost nothing and are told the
worst there is. What is known already costs nothing either; after `PATIENCE` proposals in a row that were free, a
sampler is given a random candidate, trained in full, so that each search ends. The libraries draw from the global
generators, which are seeded.

    >>> for row, rung in synetune_peer(problem, errors, seed=0, rungs=table.rungs, method="CQR", space="nested"):

Neither library is in the lock file: what they require would bring CUDA. docs/search-benchmark.md says how to install
them.
"""

from __future__ import annotations

import logging
import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple, Protocol

import numpy as np
from benchmarks.search.peers import Floats, Proposals, place, table_of, tree_of
from numpy.typing import NDArray

from subarch.search import Problem

SHARES = ("d", "h", "i")
PATIENCE = 5
"""Proposals in a row of what is known; fewer than Optuna's samplers have: most of these need a second for one."""


class Asked(NamedTuple):
    """What a library calls it, its shares, and up to which of our rungs it is to be trained."""

    trial: Any
    shares: tuple[float, ...]
    rung: int


class Told(NamedTuple):
    """To be minimised, each: the objective, the error, and the cost over the greatest one."""

    value: float
    error: float
    cost: float


class Sampler(Protocol):
    def ask(self) -> Asked: ...

    def given(self, shares: tuple[float, ...]) -> Asked:
        """A candidate that is to be trained in full, whatever the sampler would have asked for."""

    def tell(self, asked: Asked, told: Told) -> None: ...


def driven(problem: Problem, errors: Floats, seed: int, space: str, sampler: Sampler) -> Proposals:
    """Ask and tell until all affordable candidates have been trained in full."""
    table, last = table_of(problem), len(errors) - 1
    affordable = np.flatnonzero(problem.affordable)
    tree = tree_of(table[affordable] if space == "nested" else table)
    rows = {(d, h, i): row for row, (d, _, h, i) in enumerate(table.tolist())}
    values = np.stack([problem.values(slice(None), error) for error in errors])
    cost = problem.cost / problem.cost.max()
    still = iter(np.random.default_rng(seed).permutation(affordable).tolist())
    reached = {int(row): -1 for row in affordable}
    free, before = 0, None
    while min(reached.values()) < last:
        if free > PATIENCE:
            depth, _, hidden, intermediate = table[next(row for row in still if reached[row] < last)].tolist()
            asked = sampler.given(inverse((depth, hidden, intermediate), tree))
        else:
            asked = sampler.ask()
        row, rung = rows[place(asked.shares, tree)], asked.rung
        free, before = free + (asked.trial is not before), asked.trial
        if row not in reached:
            told = Told(float(values[rung, affordable].max()), float(errors[rung].max()), 1.0)
        else:
            told = Told(float(values[rung, row]), float(errors[rung, row]), float(cost[row]))
            if rung > reached[row]:
                yield row, rung
                reached[row], free = rung, 0
        with quiet():
            sampler.tell(asked, told)


def inverse(shape: tuple[int, int, int], tree: dict[int, dict[int, list[int]]]) -> tuple[float, ...]:
    """The middle of the shares that `place` maps to this shape."""
    depth, hidden, intermediate = shape
    levels = (list(tree), depth), (list(tree[depth]), hidden), (tree[depth][hidden], intermediate)
    return tuple((values.index(size) + 0.5) / len(values) for values, size in levels)


@contextmanager
def quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def seeded(seed: int) -> None:
    import torch

    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - the libraries draw from it
    torch.manual_seed(seed)


def synetune_peer(
    problem: Problem, errors: Floats, seed: int, rungs: tuple[int, ...], method: str, space: str, **options: Any
) -> Proposals:
    """`method`: a class of syne_tune.optimizer.baselines, with its own defaults but for `options`; see `SyneTune`."""
    return driven(problem, errors, seed, space, SyneTune(method, seed, rungs, **options))


class SyneTune:
    """`first`: the rung (from 1) at which ASHA may stop a trial first.

    EHVI measures hypervolume from 2 after its objectives have changed sign, which nothing in [0, 1] reaches; with
    `shift` = 3 they lie in [-3, -2] and the worst of both is the reference.
    """

    def __init__(
        self,
        method: str,
        seed: int,
        rungs: tuple[int, ...],
        first: int | None = None,
        shift: float = 0.0,
        **options: Any,
    ) -> None:
        seeded(seed)
        with quiet():
            from syne_tune.backend.trial_status import Trial
            from syne_tune.config_space import uniform
            from syne_tune.optimizer import baselines

            if first is not None:
                options |= {"time_attr": "step", "max_t": rungs[-1], "grace_period": rungs[first - 1]}
            options |= {"metrics": ["error", "cost"]} if method == "EHVI" else {"metric": "value"}
            space = {name: uniform(0, 1) for name in SHARES}
            self.scheduler: Any = getattr(baselines, method)(space, random_seed=seed, **options)
        self.trial, self.rungs, self.staged, self.shift = Trial, rungs, first is not None, shift
        self.number = 0
        self.goes_on: Asked | None = None

    def ask(self) -> Asked:
        if self.goes_on is not None:
            return self.goes_on._replace(rung=self.goes_on.rung + 1)
        with quiet():
            config = self.scheduler.suggest().config
        trial = self.trial(self.number, config, datetime.now())
        self.number += 1
        self.scheduler.on_trial_add(trial)
        return Asked(trial, tuple(config[name] for name in SHARES), 0 if self.staged else len(self.rungs) - 1)

    def given(self, shares: tuple[float, ...]) -> Asked:
        self.goes_on = None
        self.scheduler.searcher.points_to_evaluate.append(dict(zip(SHARES, shares, strict=True)))
        return self.ask()._replace(rung=len(self.rungs) - 1)

    def tell(self, asked: Asked, told: Told) -> None:
        result = {"value": told.value, "error": told.error - self.shift, "cost": told.cost - self.shift}
        if self.staged:
            decision = self.scheduler.on_trial_result(asked.trial, result | {"step": self.rungs[asked.rung]})
            self.goes_on = asked if decision == "CONTINUE" else None
        else:
            self.scheduler.on_trial_complete(asked.trial, result)


def neps_peer(
    problem: Problem, errors: Floats, seed: int, rungs: tuple[int, ...], method: str, space: str, **options: Any
) -> Proposals:
    """`method`: priorband, told the value, or primo, told error and cost; see `Neps`."""
    return driven(problem, errors, seed, space, Neps(method, seed, rungs, **options))


class Neps:
    """`prior`: the share on each axis at which the prior has its centre; none: PriorBand samples uniformly instead.

    NePS has fidelities of its own, by `eta`; each stands for the recorded rung that is nearest by ratio. `first`: the
    rung (from 1) that is the least fidelity.
    """

    def __init__(
        self, method: str, seed: int, rungs: tuple[int, ...], first: int, prior: float | None = None, **options: Any
    ) -> None:
        seeded(seed)
        with quiet():
            import neps

            self.fidelities: NDArray[np.float64] = np.log(rungs)
            shares = {name: neps.HPOFloat(0, 1, prior=prior, prior_confidence="medium") for name in SHARES}
            steps = neps.HPOInteger(rungs[first - 1], rungs[-1], is_fidelity=True)
            space = neps.SearchSpace({**shares, "steps": steps})
            if method == "primo":
                centre = None if prior is None else dict.fromkeys(SHARES, prior)
                options |= {"prior_centers": {} if centre is None else {"error": centre}}
                if centre is not None:
                    options |= {"prior_confidences": {"error": dict.fromkeys(SHARES, 0.5)}}
            self.both = method == "primo"
            self.optimizer: Any = neps.AskAndTell(getattr(neps.algorithms, method)(space, **options))
        optimizer = self.optimizer.optimizer
        self.highest = max(getattr(optimizer, "bracket_optimizer", optimizer).rung_to_fid)
        self.last = rungs[-1]

    def ask(self) -> Asked:
        with quiet():
            trial = self.optimizer.ask()
        rung = np.abs(self.fidelities - np.log(trial.config["steps"])).argmin()
        return Asked(trial, tuple(trial.config[name] for name in SHARES), int(rung))

    def given(self, shares: tuple[float, ...]) -> Asked:
        return Asked(None, shares, len(self.fidelities) - 1)

    def tell(self, asked: Asked, told: Told) -> None:
        result = [told.error, told.cost] if self.both else told.value
        if asked.trial is not None:
            self.optimizer.tell(asked.trial, result)
            return
        config = dict(zip(SHARES, asked.shares, strict=True)) | {"steps": self.last}
        number = 1 + max((int(name.split("_")[0]) for name in self.optimizer.trials), default=0)
        self.optimizer.tell_custom(config_id=f"{number}_rung_{self.highest}", config=config, result=result)
