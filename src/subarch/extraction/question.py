"""The question of a search: which candidates there are, what they cost, what is sought, and which are to be trained.

All of it is known before anything is trained, so the same trials can be asked another question later.

    >>> question = Question.pose(config, space, run.read("basis"), run.read("latency"))
    >>> question.strategy.ask(), question.objective.max_cost
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import astuple, dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subarch.architecture import Architecture, Inputs
from subarch.errors import InvalidConfig
from subarch.extraction.config import ExtractConfig
from subarch.extraction.trial import Settings, Trial
from subarch.objectives import Objective
from subarch.search import Problem, Strategy, make
from subarch.selection import CostUnit
from subarch.space import Costs, SearchSpace

Latencies = dict[str, Any]
"""latency.json: {"candidates": {name: {median_ms, q1_ms, q3_ms, passes}}, "teacher": {...} | None, "seconds", ...}."""


def thetas(config: ExtractConfig) -> list[Settings]:
    """Θ as configured: the product of learning rates and batch sizes."""
    return [
        Settings(config.steps, rate, size, config.seed)
        for rate, size in product(config.learning_rate, config.batch_size)
    ]


@dataclass(frozen=True)
class Question:
    """The space with its costs, the objective and the strategy: all that is asked before any trial is looked at."""

    config: ExtractConfig
    inputs: Inputs
    space: SearchSpace
    costs: Costs
    problem: Problem
    strategy: Strategy

    @property
    def cost(self) -> NDArray[np.float64]:
        """(N,) i(ξ) in `cost_unit`, in the order of `costs`."""
        return self.problem.cost

    @property
    def objective(self) -> Objective:
        return self.problem.objective

    @property
    def affordable(self) -> NDArray[np.bool_]:
        return self.problem.affordable

    @property
    def cost_unit(self) -> CostUnit:
        return "ms" if self.config.cost == "latency" else "multiply-adds"

    def rows(self, best: dict[Architecture, Trial]) -> dict[int, Trial]:
        """The trials of candidates of this space, by row, ascending."""
        found = {}
        for architecture, trial in best.items():
            work = architecture.operations(self.inputs, self.config.latency_length)
            first, last = np.searchsorted(self.costs.operations, [work, work + 1])  # the order is that of operations
            same = np.flatnonzero((self.costs.table[first:last] == astuple(architecture)).all(axis=1))
            if len(same):
                found[int(first + same[0])] = trial
        return dict(sorted(found.items()))

    @classmethod
    def pose(
        cls, config: ExtractConfig, space: SearchSpace, basis: dict[str, Any], latencies: Latencies | None
    ) -> Question:
        """`basis` is basis.json; `latencies` is latency.json where latency is the cost.

        Raises:
            InvalidConfig: a quality floor without anything it could be a share of.
        """
        inputs = Inputs(**basis["inputs"])
        costs = space.costs(inputs, config.latency_length)
        cost = costs.operations.astype(np.float64)
        if latencies is not None:
            rows = range(len(costs))
            cost = np.array([latencies["candidates"][str(costs.architecture(row))]["median_ms"] for row in rows])
        limit = config.max_latency_ms
        if config.max_latency_ratio is not None and latencies is not None:
            limit = config.max_latency_ratio * latencies["teacher"]["median_ms"]
        objective = Objective(
            config.objective,
            parameters_maximum=float(costs.parameters.max()),
            cost_maximum=float(cost.max()),
            max_cost=limit,
            max_parameters=config.max_parameters,
            max_error=_floor(config, basis["reference_error"]),
        )
        problem = Problem(costs.parameters, cost, objective)
        return cls(config, inputs, space, costs, problem, make(config.strategy, problem, config.epsilon))


def _floor(config: ExtractConfig, reference: float | None) -> float | None:
    """The largest error that keeps the configured share of the reference's quality.

    Quality is 1 - e for a bounded error (cosine similarity to the teacher, the task's score), and exp(-e), the
    geometric mean probability of the right token, for a cross-entropy. (Ours; the paper has no floor.)
    """
    if config.keep is None:
        return None
    if reference is None:
        raise InvalidConfig("keep: there is no reference quality in this run to keep a share of")
    if config.error in ("mlm", "logits"):
        return reference - math.log(config.keep)
    floor = 1 - config.keep * (1 - reference)
    if floor <= 0:
        raise InvalidConfig("keep 1.0: only the teacher itself is as good as the teacher; ask for less")
    return floor


def best_trials(trials: Sequence[Trial], settings: Sequence[Settings]) -> dict[Architecture, Trial]:
    """Of each architecture the finished trial of least error over Θ (the first such)."""
    best: dict[Architecture, Trial] = {}
    for trial in trials:
        if trial.error is None or trial.settings not in settings:
            continue
        held = best.get(trial.architecture)
        if held is None or held.error is None or trial.error < held.error:
            best[trial.architecture] = trial
    return best
