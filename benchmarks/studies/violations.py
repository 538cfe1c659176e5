"""How often a certificate is false where errors are not monotone, and whether what it says of itself still holds.

    python -m benchmarks.studies.violations            # results/search_violations.json, and the table of the documents

Monotone tables of 300 candidates, of which some at random get an error 2 to 30 % below the least of their neighbours
one step up in D, H or I: smaller, and better than what lies above. One search of each, without noise, with audits of
growing size. Of a search is noted

    false      it is closed, and the table's optimum is better than the incumbent by more than `reached`
    seen       trained pairs contradict the order (`violations` > 0)
    widened    `slack` is the largest rise among all trained pairs, and `reached` what bounds lowered by it leave, both
               found again here by comparing every candidate with every trained one: what is seen is never passed over
    held       of all candidates that another's error excludes, at most the share `failing` have an error below that
               of a trained one above them: what the audit states, with probability 0.95

A search with an audit of 20 trains what one with 5 trains, and goes on: one search serves all. (What violations
recorded tables have: recording.py.) The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.search.measures import DELTA, asked, one_each, store
from benchmarks.search.tables import SIZES, Axes, Table
from numpy.typing import NDArray

from subarch.search import Certified
from subarch.search.bounds import Grid
from subarch.search.certified import better_by

RATES = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
AUDITS = (0, 5, 20, 59)
LOWERED = (0.02, 0.3)
RESULTS = Path(__file__).parents[1] / "results"

Floats = NDArray[np.float64]
Search = dict[str, float]
Cells = dict[str, dict[str, list[Search]]]
"""{rate: {audit: [what is noted of each search]}}."""


def planted(table: Table, rate: float, seed: int) -> Floats:
    """(N,) the errors of a table, at this rate lowered below those of the neighbours; a higher rate adds to a lower.

    The largest candidate has nobody above it and keeps its error.
    """
    grid, error = Grid(table.shapes), table.error()
    errors = grid.column(error, np.inf).reshape(grid.shape)
    least = np.full(grid.shape, np.inf)
    least[:-1] = errors[1:]
    least[:, :-1] = np.minimum(least[:, :-1], errors[:, 1:])
    least[:, :, :-1] = np.minimum(least[:, :, :-1], errors[:, :, 1:])
    neighbour = least.reshape(-1)[grid.cell]
    rng = np.random.default_rng([seed, 59])
    chosen, lowered = rng.random(len(error)) < rate, rng.uniform(*LOWERED, len(error))
    return np.where(chosen & np.isfinite(neighbour), (1 - lowered) * neighbour, error)


def judged(search: Certified, error: Floats) -> Search:
    """What a search says, held against the (N,) errors of all; for tables without noise (η = 0) and with D > 0."""
    found, problem, objective = search.evidence(), search.problem, search.problem.objective
    assert problem.table is not None
    sizes, trained = problem.table[:, [0, 2, 3]], np.flatnonzero(~np.isnan(search.error))
    below = (sizes[:, None] <= sizes[None, trained]).all(axis=2) & (np.arange(len(error))[:, None] != trained)
    above = np.where(below, error[trained], -np.inf).max(axis=1)  # (N,) the largest trained error above each
    slack = float((above - error)[trained].max(initial=0.0))

    value = objective.value(problem.parameters, problem.cost, error)
    incumbent = float(value[found.incumbent])
    off = better_by(float(value.min()), incumbent)
    floor = above - slack
    floor[trained] = error[trained]
    reached = better_by(float(objective.bound(problem.parameters, problem.cost, floor).min()), incumbent)

    target = incumbent / (1 - found.aim) if incumbent < 0 else incumbent * (1 - found.aim)
    needed = objective.break_even(problem.parameters, problem.cost, target)
    excluded = np.isfinite(needed) & (above - slack >= needed)
    contradict = int((excluded & (error < above)).sum())
    assert excluded[list(found.audited)].all(), "the audit drew from others than are excluded"
    # What its sentence says; without noise and violations that is δ, though less may have been reached
    said = max(found.delta, min(found.aim, found.reached))
    return {
        "trained": len(trained),
        "off": off,
        "reached": found.reached,
        "closed": found.closed,
        "false": found.closed and off > found.reached + 1e-12,
        "false_as_said": found.closed and off > said + 1e-12,
        "seen": found.violations > 0,
        "widened": abs(found.slack - slack) < 1e-12
        and abs(found.reached - reached) < 1e-9
        and (found.violations > 0) == (slack > 0),
        "excluded": int(excluded.sum()),
        "contradict": contradict,
        "drawn": len(found.audited),
        "failures": found.failures,
        "failing": found.failing,
        "held": contradict <= found.failing * int(excluded.sum()),
    }


def measure(axes: Axes, tables: int) -> Cells:
    """The same tables at all rates, each with one question."""
    cells: Cells = {str(rate): {str(audit): [] for audit in AUDITS} for rate in RATES}
    for seed, (table, _, problem) in enumerate(one_each(axes, tables)):
        for rate in RATES:
            search, error = Certified(problem, DELTA), planted(table, rate, seed)
            for search.audit.size in AUDITS:
                list(asked(search, error))
                cells[str(rate)][str(search.audit.size)].append(judged(search, error))
    return cells


def rate_of(searches: list[Search], what: str) -> float:
    return float(np.mean([search[what] for search in searches]))


def median(searches: list[Search], what: str) -> float:
    return float(np.median([search[what] for search in searches]))


def columns(cells: Cells) -> dict[str, Any]:
    """Raw numbers in a short form: {rate: {audit: {what: [of each search]}}}, flags as 0 and 1."""
    return {
        rate: {
            audit: {what: [json.loads(f"{search[what]:.4g}") for search in searches] for what in searches[0]}
            for audit, searches in of_audit.items()
        }
        for rate, of_audit in cells.items()
    }


def table_lines(cells: Cells) -> list[str]:
    """Rows: planted rates and audits. Shares of all searches; trained, reached, stated and off are medians."""
    lines = [
        "| planted | audit | trained | seen | reached | false | off, where false | stated | held |",
        "|" + "---|" * 9,
    ]
    for rate, of_audit in cells.items():
        for audit, searches in of_audit.items():
            trained, reached, failing = (median(searches, what) for what in ("trained", "reached", "failing"))
            off = [search["off"] for search in searches if search["false"]]
            lines.append(
                f"| {100 * float(rate):g} % | {audit} | {trained:g} | {rate_of(searches, 'seen'):.1%} | {reached:.1%} "
                f"| {rate_of(searches, 'false'):.1%} | {f'{np.median(off):.1%}' if off else ''} | {failing:.1%} "
                f"| {rate_of(searches, 'held'):.1%} |"
            )
    return lines


def summarise(cells: Cells) -> dict[str, Any]:
    """The last line. `false_at_1_percent` by audit; `held` is the least over all rates and audits."""
    every = [(rate, search) for rate, of in cells.items() for searches in of.values() for search in searches]
    seen = [search for _, search in every if search["seen"]]
    return {
        "false_without_violations": int(sum(search["false"] for rate, search in every if float(rate) == 0)),
        "false_at_1_percent": {audit: rate_of(searches, "false") for audit, searches in cells["0.01"].items()},
        "seen": len(seen),
        "seen_and_not_widened": int(sum(not search["widened"] for search in seen)),
        "held": min(rate_of(searches, "held") for of_audit in cells.values() for searches in of_audit.values()),
        "false_and_not_held": int(sum(search["false"] and not search["held"] for _, search in every)),
        "runs": len(every),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS / "search_violations.json")
    parser.add_argument("--tables", type=int, default=280, help="of each rate; 28: each form with each question")
    parser.add_argument("--quick", action="store_true", help="7 tables of 24 candidates: does it run?")
    arguments = parser.parse_args()
    start = time.process_time()
    small: Axes = ((1, 2, 3), (64, 128), (128, 256, 384, 512))
    cells = measure(small, 7) if arguments.quick else measure(SIZES["300"], arguments.tables)
    spent = {"date": date.today().isoformat(), "cpu_seconds": time.process_time() - start}
    store(arguments.results, {"violations": spent | {"found": columns(cells)}})
    print("\n".join(table_lines(cells)))
    print(json.dumps(summarise(cells)))
