"""What would workers gain who train speculatively instead of waiting? Simulated searches with both, event by event.

    python -m benchmarks.studies.speculation       # two minutes of processor time

A certified search hands out nothing while the trainings that are under way are expected to exclude all that is open.
`Speculative` then hands out what excludes most in case that they do not. Both end as soon as their certificate is
closed, whatever is still being trained. Results are written to benchmarks/results/search_speculation.json; the last
line is JSON.
"""

from __future__ import annotations

import json
import math
from functools import partial
from heapq import heappop, heappush
from typing import Any

import numpy as np
from benchmarks.runner import Results, command_line, show
from benchmarks.search.measures import DELTA, one_each, questions
from benchmarks.search.tables import SIZES, Table, recorded
from benchmarks.studies.workers import SEARCH, schedule

from subarch.search import Certified, Problem
from subarch.search.base import FixedRows

WORKERS = (2, 4, 8, 16)
SEARCHES = {"300": 28, "2352": 14}

Searches = list[tuple[Problem, Table]]


class Speculative(Certified):
    """Hands out further trainings where nothing else is to do but to wait."""

    def _wanted(self) -> int | None:
        row = super()._wanted()
        known = self._known()
        if row is not None or not self.awaited or not len(known.trained):
            return row
        free = self._free(known, sorted(self.awaited))
        cell = self._excluding(known, *self._guess(known), free, pending=[])
        return None if cell is None else int(self.grid.row[cell])


def search(strategy: Certified, problem: Problem, table: Table, workers: int) -> tuple[float, int]:
    """When the certificate is closed, and how many trainings have begun by then."""
    error, seconds = table.error(), table.trial
    first = schedule(FixedRows(problem, np.array(strategy.first)), error, seconds, workers).ended
    for _, row in first:
        strategy.recall(row, float(error[row]))
    clock, begun = first[-1][0], len(first)
    running: list[tuple[float, int, int]] = []
    while not strategy.evidence().closed:
        while len(running) < workers and (asked := strategy.ask()) is not None:
            heappush(running, (clock + float(seconds[asked]), begun, asked))
            begun += 1
        clock, _, row = heappop(running)
        strategy.tell(row, float(error[row]))
    return clock, begun


def compared(searches: Searches, workers: int) -> dict[str, Any]:
    """Medians of both ways, and the time of the plain one over that of the speculative one."""
    plain, speculative = (
        [search(of(problem, DELTA), problem, table, workers) for problem, table in searches]
        for of in (Certified, Speculative)
    )
    ratios = [math.log(one[0] / other[0]) for one, other in zip(plain, speculative, strict=True)]
    return {
        "searches": len(searches),
        "trainings": [float(np.median([begun for _, begun in of])) for of in (plain, speculative)],
        "gain": math.exp(float(np.mean(ratios))),
        "range": [math.exp(min(ratios)), math.exp(max(ratios))],
    }


def main() -> None:
    arguments = command_line(__doc__, "search_speculation").parse_args()
    results = Results(arguments.results)
    recording = recorded(SEARCH / "minilm.parquet")
    groups: dict[str, Searches] = {"minilm": [(problem, recording) for _, problem in questions(recording)]}
    groups |= {
        size: [(problem, table) for table, _, problem in one_each(SIZES[size], count)]
        for size, count in SEARCHES.items()
    }
    rows = []
    for name, searches in groups.items():
        for workers in WORKERS:
            results.keep(name, str(workers), make=partial(compared, searches, workers))
            found = results[name][str(workers)]
            low, high = found["range"]
            trainings = [f"{count:g}" for count in found["trainings"]]
            rows.append([name, str(workers), *trainings, f"{found['gain']:.3f} ({low:.2f} to {high:.2f})"])
    show("until the certificate", ["table", "workers", "trainings", "speculative", "times as fast"], rows)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
