"""A search with up to 1,000 workers, simulated event by event: time to the certificate, idle workers, trainings.

    python -m benchmarks.studies.workers               # results/search_workers.json, and the tables of the documents

Whenever a worker is idle the strategy is asked, as in `extraction/loop.py`; where it has nothing to hand out, the
worker waits until the next training has ended and its error is told. `certified` begins as there: its first candidates
are trained side by side, once each (no repeats for the noise), and nothing else is until all of these have ended.
A training takes as long as it was recorded to take (`minilm`), or as its operations say (synthetic tables, in the unit
of their seconds). A search has ended when nothing is awaited and nothing more asked: for `certified` that is the
certificate, for `exhaustive` that all is trained, for `fptas` that its grid is. The start of workers is not counted,
nor what the strategy itself takes, nor that workers of one machine slow each other down. The last line is JSON.

    >>> schedule(Exhaustive(problem), errors, seconds, workers=2).ended      # [(when, row), ...]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date
from functools import partial
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.search.measures import DELTA, NEAR, one_each, questions, store
from benchmarks.search.tables import SIZES, Axes, Table, recorded
from numpy.typing import NDArray

from subarch.search import Certified, Exhaustive, Fptas, Problem, Strategy
from subarch.search.base import FixedRows
from subarch.search.certified import better_by

SEARCH = Path(__file__).parents[1] / "search"
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000)
SHOWN = (1, 2, 8, 64, 1000)
"""Of these the printed table; the file has all."""
SEARCHES = {"300": 56, "2352": 28, "10000": 14}
"""How many tables of each size; the search with 1,000 workers among 10,000 candidates takes seconds."""
STRATEGIES: dict[str, Callable[[Problem], Strategy]] = {
    "certified": lambda problem: Certified(problem, DELTA),
    "exhaustive": Exhaustive,
    "fptas 4": partial(Fptas, epsilon=4),
}
AUDITED = "certified, audit 5"
"""The default of `subarch extract`; on the small tables only, since it takes as long again."""

Floats = NDArray[np.float64]
Run = dict[str, float | None]
Parts = dict[str, dict[str, dict[str, list[Run]]]]
"""{table: {strategy: {workers: [run]}}}."""


@dataclass(frozen=True)
class Schedule:
    """`ended`: when each training ended, and its row, in this order. `full`: all workers were busy at some time."""

    ended: list[tuple[float, int]]
    full: bool


def schedule(strategy: Strategy, error: Floats, seconds: Floats, workers: int, clock: float = 0.0) -> Schedule:
    """The events until a search has ended. Of two trainings that end at once the one asked for first is told first."""
    running: list[tuple[float, int, int]] = []
    ended: list[tuple[float, int]] = []
    full = False
    while True:
        while len(running) < workers and (row := strategy.ask()) is not None:
            heappush(running, (clock + float(seconds[row]), len(ended) + len(running), row))
        if not running:
            return Schedule(ended, full)
        full |= len(running) == workers
        clock, _, row = heappop(running)
        strategy.tell(row, float(error[row]))
        ended.append((clock, row))


def search(strategy: Strategy, problem: Problem, table: Table, workers: int) -> Schedule:
    """As `extraction.loop.search` goes about it, with one seed."""
    error, seconds = table.error(), table.trial
    if not isinstance(strategy, Certified):
        return schedule(strategy, error, seconds, workers)
    first = schedule(FixedRows(problem, np.array(strategy.first)), error, seconds, workers)
    for _, row in first.ended:
        strategy.recall(row, float(error[row]))
    rest = schedule(strategy, error, seconds, workers, clock=first.ended[-1][0])
    return Schedule(first.ended + rest.ended, first.full or rest.full)


def judged(ended: list[tuple[float, int]], problem: Problem, table: Table, workers: int) -> Run:
    """Until its end, the share of the workers' time that was idle till then, and until near the optimum or None."""
    value = problem.values(slice(None), table.error())
    best, end = float(value.min()), ended[-1][0]
    return {
        "seconds": end,
        "idle": 1 - float(table.trial[[row for _, row in ended]].sum()) / (workers * end),
        "trainings": len(ended),
        "near": next((clock for clock, row in ended if better_by(best, float(value[row])) <= NEAR), None),
    }


def measure(
    searches: Iterable[tuple[Table, str, Problem]],
    workers: Iterable[int],
    strategies: dict[str, Callable[[Problem], Strategy]],
) -> dict[str, Any]:
    """{strategy: {workers: [run of each search]}}."""
    found: dict[str, dict[str, list[Run]]] = {name: {str(count): [] for count in workers} for name in strategies}
    for table, _, problem in searches:
        for name, make in strategies.items():
            events = None
            for count in workers:
                if events is None or events.full:  # else more workers change nothing
                    events = search(make(problem), problem, table, count)
                found[name][str(count)].append(judged(events.ended, problem, table, count))
    return found


def speedups(of_workers: dict[str, list[Run]], count: str) -> list[float]:
    """Of each search the time with one worker over that with so many."""
    one, many = column(of_workers["1"], "seconds"), column(of_workers[count], "seconds")
    return [first / second for first, second in zip(one, many, strict=True)]


def quartiles(values: list[float], form: str = ".3g") -> str:
    low, high = np.quantile(values, [0.25, 0.75], method="nearest")
    return f"{np.median(values):{form}} ({low:{form}} – {high:{form}})"


def column(runs: list[Run], what: str) -> list[float]:
    """inf: never."""
    return [np.inf if (value := run[what]) is None else value for run in runs]


def table_lines(parts: Parts) -> list[str]:
    """Medians and quartiles of `certified` by table and workers; of the others the median time to their end."""
    lines = [
        "| table | workers | to the certificate | speed-up | idle | trainings | to near the optimum "
        "| exhaustive, to its end | fptas 4, to its end | speed-up with an audit of 5 |",
        "|" + "---|" * 10,
    ]
    for name, found in parts.items():
        runs = found["certified"]
        for count in (count for count in runs if int(count) in SHOWN):
            others = (
                f"{np.median(column(found[other][count], 'seconds')):,.3g}" for other in ("exhaustive", "fptas 4")
            )
            audited = quartiles(speedups(found[AUDITED], count), ".1f") if AUDITED in found else ""
            lines.append(
                f"| {name} | {count} | {quartiles(column(runs[count], 'seconds'))} "
                f"| {quartiles(speedups(runs, count), '.1f')} | {quartiles(column(runs[count], 'idle'), '.0%')} "
                f"| {quartiles(column(runs[count], 'trainings'))} | {quartiles(column(runs[count], 'near'))} "
                f"| {' | '.join(others)} | {audited} |"
            )
    return lines


def summarise(parts: Parts) -> dict[str, Any]:
    """The last line: by table the medians of `certified` with two workers and with the most."""
    found = {}
    for name, of in parts.items():
        runs = of["certified"]
        most = list(runs)[-1]
        found[name] = {
            "searches": len(runs["1"]),
            "speedup_2": float(np.median(speedups(runs, "2"))),
            f"speedup_{most}": float(np.median(speedups(runs, most))),
            f"idle_{most}": float(np.median(column(runs[most], "idle"))),
            "trainings_1": float(np.median(column(runs["1"], "trainings"))),
            f"trainings_{most}": float(np.median(column(runs[most], "trainings"))),
        }
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=SEARCH.parent / "results" / "search_workers.json")
    parser.add_argument("--quick", action="store_true", help="one tiny table, up to 4 workers: does it run?")
    arguments = parser.parse_args()
    recording = recorded(SEARCH / "minilm.parquet")
    small: Axes = ((1, 2, 3), (64, 128), (128, 256, 384, 512))
    groups: dict[str, Iterable[tuple[Table, str, Problem]]]
    groups = {"minilm": ((recording, name, problem) for name, problem in questions(recording))}
    groups |= {size: one_each(SIZES[size], count) for size, count in SEARCHES.items()}
    if arguments.quick:
        groups = {"24": one_each(small, 2)}
    parts: Parts = {}
    for name, searches in groups.items():
        start = time.process_time()
        strategies = dict(STRATEGIES)
        if name not in ("2352", "10000"):
            strategies[AUDITED] = lambda problem: Certified(problem, DELTA, audit=5)
        parts[name] = measure(searches, WORKERS[:3] if arguments.quick else WORKERS, strategies)
        print(f"{name}: {time.process_time() - start:.0f} s of processor time", flush=True)
    store(arguments.results, {"workers": {"date": date.today().isoformat(), "found": parts}})
    print("\n".join(table_lines(parts)))
    print(json.dumps(summarise(parts)))
