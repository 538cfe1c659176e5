"""What is measured of a search on a table: the cost until a good candidate, the certificate, its cover under noise.

>>> by_question(lambda seed: synthetic(SIZES["300"], seed), seeds=4, run=certificate)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.runner import write
from benchmarks.search.greedy import greedy_certificate
from benchmarks.search.peers import Proposals
from benchmarks.search.tables import Axes, Table, synthetic
from numpy.typing import NDArray

from subarch.numbers.objectives import Objective
from subarch.run.machine import machine, versions
from subarch.search import Certified, Problem, Strategy
from subarch.search.certified import better_by
from subarch.search.noise import Noise

DELTA, NEAR, CAP = 0.01, 0.01, 100
LIMITS = (0.05, 0.1, 0.2, 0.35, 0.5, 0.75)
"""Shares of the candidates that meet the latency limit."""

Floats = NDArray[np.float64]


def questions(table: Table) -> Iterator[tuple[str, Problem]]:
    """W, and the least error under each limit. The search is told the effort that a search of ours would be told."""
    cost = next(iter(table.costs.values()))
    effort = table.operations + 0.1 * table.operations.max() + 1.0
    for limit in (None, *LIMITS):
        objective = Objective(
            "w" if limit is None else "error",
            parameters_maximum=float(table.parameters.max()),
            cost_maximum=float(cost.max()),
            max_cost=None if limit is None else float(np.quantile(cost, limit)),
        )
        name = "W" if limit is None else f"error at {limit}"
        yield name, Problem(table.parameters, cost, objective, table.shapes, effort)


def spent(problem: Problem, table: Table, proposals: Proposals) -> list[float]:
    """[trainings, seconds, 1 or 0] until the first trained candidate near the optimum, or (0) until it gave up."""
    value = problem.values(slice(None), table.error())
    best = float(value.min())
    reached: dict[int, int] = {}
    trainings = seconds = 0.0
    for row, rung in proposals:
        before = reached.get(row)
        done, took = (0, 0.0) if before is None else (table.rungs[before], table.seconds[before, row])
        trainings += (table.rungs[rung] - done) / table.rungs[-1]
        seconds += float(table.seconds[rung, row] - took)
        reached[row] = rung
        near = rung == len(table.rungs) - 1 and better_by(best, float(value[row])) <= NEAR
        if near or trainings >= CAP:
            return [trainings, seconds, float(near)]
    return [trainings, seconds, 0.0]


def asked(strategy: Strategy, error: Floats) -> Proposals:
    """The rows that a strategy of ours trains, in full."""
    while (row := strategy.ask()) is not None:
        yield row, -1
        strategy.tell(row, float(error[row]))


def ours(problem: Problem, table: Table, strategy: Strategy) -> list[float]:
    last = len(table.rungs) - 1
    return spent(problem, table, ((row, last) for row, _ in asked(strategy, table.error())))


def certificate(problem: Problem, table: Table, seed: int) -> dict[str, Any]:
    """One search to its end, and the greedy certificate with all errors known, in trainings, effort and seconds."""
    search, error = Certified(problem, DELTA), table.error()
    rows = [row for row, _ in asked(search, error)]
    greedy = greedy_certificate(problem, error, DELTA)
    found, value = search.evidence(), problem.values(slice(None), error)
    off = better_by(float(value.min()), float(value[found.incumbent]))
    return {
        "trained": len(rows),
        "greedy": len(greedy),
        "effort": over(problem.effort, rows, greedy),
        "seconds": over(table.seconds[-1], rows, greedy),
        "affordable": int(problem.affordable.sum()),
        "closed": found.closed,
        "aim": found.aim,
        "missed": bool(found.closed and off > max(DELTA, found.aim) + 1e-12),
        "off": off,
    }


def over(spent: Floats | None, rows: list[int], others: list[int]) -> float:
    """What some rows cost, by a column (N,), over what others do."""
    assert spent is not None
    return float(spent[rows].sum() / spent[others].sum())


def covered(problem: Problem, table: Table, seed: int, repeats: int = 6) -> dict[str, Any]:
    """One search under noise; six candidates are trained by a second seed at its end, as `extract` does.

    `off` is relative to the incumbent's measured value, as claims are.
    """
    search, true = Certified(problem, DELTA), np.asarray(table.true)
    trained = len(list(asked(search, table.error())))
    again = search.nearest(repeats)
    search.noise = Noise.of([dict(enumerate(table.errors[:2, -1, row].tolist())) for row in again])
    trained += len(again) + len(list(asked(search, table.error())))
    found = search.evidence()
    value = problem.values(slice(None), true)
    off = better_by(float(value.min()), float(value[found.incumbent]))
    return {"trained": trained, "off": off, "reached": found.reached, "held": off <= found.reached + 1e-12}


def steps(table: Table) -> dict[str, Any]:
    """Processor time of one step (an ask and a tell), ms, over whole searches; and how many were trained."""
    found: dict[str, Any] = {}
    for name, problem in questions(table):
        search, error = Certified(problem, DELTA), table.error()
        times: list[float] = []
        while len(times) < CAP:
            start = time.process_time()
            if (row := search.ask()) is None:
                break
            search.tell(row, float(error[row]))
            times.append(1000 * (time.process_time() - start))
        found[name] = {"trained": len(times), "closed": search.done, "ms": times}
    return found


def by_question(table_of: Callable[[int], Table], seeds: int, run: Callable[[Problem, Table, int], Any]) -> Any:
    """{question: [result of each seed]}."""
    found: dict[str, list[Any]] = {}
    for seed in range(seeds):
        table = table_of(seed)
        for name, problem in questions(table):
            found.setdefault(name, []).append(run(problem, table, seed))
    return found


def one_each(axes: Axes, searches: int) -> Iterator[tuple[Table, str, Problem]]:
    """A new table for each search, and one question of it: 28 in a row are the four forms with the seven questions."""
    for seed in range(searches):
        table = synthetic(axes, seed)
        asked_of = list(questions(table))
        yield table, *asked_of[seed % len(asked_of)]


def store(path: Path, parts: dict[str, Any]) -> None:
    """Write results with the machine and the versions."""
    write({"machine": machine(), "versions": versions(), "parts": parts}, path)
