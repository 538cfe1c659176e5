"""Search strategies: which candidates to train. They ask for rows and are told errors; they train nothing themselves.

NumPy only; imports numbers and errors.

>>> strategy = Certified(Problem(costs.parameters, latency_ms, objective, costs.table), delta=0.01)
>>> while not strategy.done:
...     row = strategy.ask()
...     strategy.tell(row, train(costs.architecture(row)))
"""

from subarch.search.base import Gap, Problem, Strategy
from subarch.search.certified import Certified, Evidence
from subarch.search.fptas import Exhaustive, Fptas

__all__ = ["Certified", "Evidence", "Exhaustive", "Fptas", "Gap", "Problem", "Strategy"]
