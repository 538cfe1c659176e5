"""Would cheap errors of all candidates spare the search trainings? Errors after few steps, given to it for nothing.

    python -m benchmarks.search.hinted            # half a minute; results/search_hints.json

Per table and question: trainings until the first trained candidate within 1 % of the optimum, without cheap errors, and
with those of all affordable candidates with layers after a part of the steps (`rungs` of the table), as `extract
--hints` would give them; and what these would cost, in whole trainings. The last line is JSON.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from benchmarks.runner import command_line
from benchmarks.search.measures import DELTA, ours, questions, store
from benchmarks.search.tables import SIZES, Table, recorded, synthetic

from subarch.search import Certified

SEEDS = 12


def main() -> None:
    parser = command_line(__doc__, "search_hints")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--sizes", nargs="*", default=["300", "2352"], choices=list(SIZES))
    arguments = parser.parse_args()
    found = {"minilm": hinted(lambda _: recorded(Path(__file__).with_name("minilm.parquet")), 1)}
    for size in arguments.sizes:
        found[size] = hinted(lambda seed, size=size: synthetic(SIZES[size], seed), arguments.seeds)  # type: ignore[misc]
    store(arguments.results, found)
    print("| table | steps | trainings, mean | more than without | fewer | cost of the cheap errors |")
    print("|---|---|---|---|---|---|")
    for name, by_rung in found.items():
        without = np.array(by_rung["none"]["trainings"])
        for rung, one in by_rung.items():
            trainings = np.array(one["trainings"])
            counts = f"{(trainings > without).mean():.0%} | {(trainings < without).mean():.0%}"
            print(f"| {name} | {rung} | {trainings.mean():.1f} | {counts} | {np.median(one['cost']):.1f} |")
    means = {name: {rung: float(np.mean(one["trainings"])) for rung, one in found[name].items()} for name in found}
    print(json.dumps(means))


def hinted(table_of: Callable[[int], Table], seeds: int) -> dict[str, dict[str, list[float]]]:
    """By rung: trainings of each search, and what its cheap errors cost."""
    found: dict[str, dict[str, list[float]]] = {}
    for seed in range(seeds):
        table = table_of(seed)
        rungs = {"none": 0.0} | {str(steps): steps / table.rungs[-1] for steps in table.rungs[:-1]}
        for _, problem in questions(table):
            assert problem.table is not None
            cheap = problem.affordable & (problem.table[:, 0] > 0)
            for number, (name, share) in enumerate(rungs.items()):
                hints = None if name == "none" else np.where(cheap, table.errors[0, number - 1], np.nan)
                posed = replace(problem, hints=hints)
                one = found.setdefault(name, {"trainings": [], "cost": []})
                one["trainings"].append(ours(posed, table, Certified(posed, DELTA))[0])
                one["cost"].append(share * float(cheap.sum()))
    return found


if __name__ == "__main__":
    main()
