"""The smallest certificate that a greedy choice finds which knows all errors beforehand: what a search is held against.

A certificate is a set of trained candidates with the optimum in it, such that each affordable candidate is trained, or
lies below (in D, H, I and V) a trained one whose error it would have to undercut to beat the optimum by more than δ.
The cheapest such set is a weighted set cover, which greedy choice by candidates excluded per effort solves within a
factor of ln N (Chvátal 1979), usually far better. Errors are taken as exact.

    >>> greedy_certificate(problem, errors, delta=0.01)      # rows, the optimum first
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from subarch.numbers.space import sizes_of
from subarch.search import Problem

Floats = NDArray[np.float64]


def covers(problem: Problem, error: Floats, delta: float) -> NDArray[np.bool_]:
    """(N, N): does training the first exclude the second, or settle it as itself? N² bytes; the diagonal is true.

    Raises:
        ValueError: the problem has no table, or no candidate meets the limits.
    """
    if problem.table is None:
        raise ValueError("a certificate needs the table of ⟨D, A, H, I⟩")
    best = float(problem.values(slice(None), error).min())
    if not np.isfinite(best):
        raise ValueError("no candidate meets the limits: there is nothing to certify")
    target = best / (1 - delta) if best < 0 else best * (1 - delta)
    needed = problem.objective.break_even(problem.parameters, problem.cost, target, problem.megabytes)
    found = (error[:, None] >= needed[None, :]) & (problem.table[:, :1] > 0)
    for sizes in sizes_of(problem.table).T:
        found &= sizes[:, None] >= sizes[None]
    np.fill_diagonal(found, True)
    return found


def greedy_certificate(problem: Problem, error: Floats, delta: float) -> list[int]:
    """Rows whose training closes the certificate, chosen by newly settled candidates per effort; see `covers`."""
    effort = np.ones(len(problem)) if problem.effort is None else problem.effort
    best = int(problem.values(slice(None), error).argmin())
    cover = covers(problem, error, delta)
    chosen, still = [best], problem.affordable & ~cover[best]
    gain = cover[:, still].sum(axis=1)
    while still.any():
        row = int((gain / effort).argmax())
        settled = still & cover[row]
        gain -= cover[:, settled].sum(axis=1)
        still &= ~settled
        chosen.append(row)
    return chosen
