"""Search strategies: which candidates to train. One file each, ask/tell, NumPy only; they never train anything.

>>> strategy = Certified(Problem(costs.parameters, latency_ms, objective, costs.table), delta=0.01)
>>> while not strategy.done:
...     row = strategy.ask()
...     strategy.tell(row, train(costs.architecture(row)))
"""

from subarch.search.base import Gap, Problem, Strategy
from subarch.search.certified import Certified
from subarch.search.exhaustive import Exhaustive
from subarch.search.fptas import Fptas

__all__ = ["Certified", "Exhaustive", "Fptas", "Gap", "Problem", "Strategy"]
