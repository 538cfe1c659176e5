"""Search strategies: which candidates to train. One file each, ask/tell, NumPy only; they never train anything.

>>> strategy = make("fptas", Problem(costs.parameters, latency_ms, objective), epsilon=4)
>>> while not strategy.done:
...     row = strategy.ask()
...     strategy.tell(row, train(costs.architecture(row)))
"""

from __future__ import annotations

from collections.abc import Callable

from subarch.errors import InvalidConfig
from subarch.search.base import Gap, Problem, Strategy
from subarch.search.exhaustive import Exhaustive
from subarch.search.fptas import Fptas

__all__ = ["STRATEGIES", "Gap", "Problem", "Strategy", "make"]

STRATEGIES: dict[str, Callable[[Problem, int], Strategy]] = {
    Exhaustive.name: lambda problem, epsilon: Exhaustive(problem),
    Fptas.name: Fptas,
}
"""By name; each takes the problem and ε, which only the strategies with a grid read."""


def make(name: str, problem: Problem, epsilon: int = 1) -> Strategy:
    """The strategy of that name.

    Raises:
        InvalidConfig: an unknown name, or an ε the strategy cannot use.
    """
    if name not in STRATEGIES:
        raise InvalidConfig(f"unknown strategy {name!r}; known: {', '.join(STRATEGIES)}")
    return STRATEGIES[name](problem, epsilon)
