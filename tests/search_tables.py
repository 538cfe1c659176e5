"""Random tables for the tests of strategies, and the loop that trains on them."""

from __future__ import annotations

import numpy as np

from subarch.numbers.objectives import Objective
from subarch.search import Problem, Strategy

NAMES = ["w", "error", "latency"]


def random_problem(
    seed: int, name: str, total_order: bool, limits: bool = True, size: int = 0
) -> tuple[Problem, np.ndarray]:
    """A table with ties; operations ascend, parameters and measured latency only roughly. Errors fall if asked to."""
    rng = np.random.default_rng(seed)
    size = size or int(rng.integers(1, 40))
    cost = np.maximum(0.0, np.sort(rng.integers(0, 30, size)) + rng.choice([0.0, 0.5, -2.0], size))
    parameters = np.maximum(1, 5 * np.arange(size) // 2 + rng.integers(-3, 9, size))
    error = rng.integers(1, 20, size) / 20
    if total_order:
        error = np.sort(error)[::-1].copy()
    objective = Objective(
        name,  # type: ignore[arg-type]
        parameters_maximum=float(parameters.max()),
        cost_maximum=float(cost.max()) + 1,
        max_cost=float(rng.uniform(5, 35)) if limits and rng.random() < 0.5 else None,
        max_parameters=int(rng.integers(20, 100)) if limits and rng.random() < 0.5 else None,
        max_error=float(rng.uniform(0.2, 1)) if name == "latency" or (limits and rng.random() < 0.5) else None,
    )
    return Problem(parameters.astype(np.int64), cost, objective), error


def run(strategy: Strategy, error: np.ndarray, failing: frozenset[int] = frozenset()) -> list[int]:
    """Train what is asked for; the rows that were trained."""
    trained = []
    while (row := strategy.ask()) is not None:
        if row in failing:
            strategy.fail(row)
        else:
            strategy.tell(row, float(error[row]))
            trained.append(row)
    assert strategy.done
    return trained


def all_values(problem: Problem, error: np.ndarray) -> np.ndarray:
    return problem.objective.value(problem.parameters, problem.cost, error)
