"""Three ways to spend fewer seconds that are not in the search, or do not pay: stopped trainings, laws, and prices.

    python -m benchmarks.studies.racing                  # a minute; results/search_racing.json, tables of the documents

`freezing`: a training stops at a rung where all that it could exclude, itself among it, is excluded by a bound on how
far its curve can still fall. The bound is the least ratio of the last error to that at the rung: `known` of all curves
of the table, which nobody knows beforehand; `learnt` from the trainings that were completed before in this search,
three at least, with half as much again; or `elsewhere`, of all curves of the other recorded tables and of what was
completed in this search, with a margin of MARGIN. Seconds over those of the same search that completes all. These
searches are told the last error of what stopped. `guarded` is as it would have to be built, with the bound of
elsewhere: what stopped leaves its bound alone, the first candidates and three trainings are completed before, and
nothing stops while its error is above TELLING, where curves of other teachers fell by far more.

`learning`: a search that expects the law of another recorded table (`--learn-from`), or one that misleads: the errors
turned upside down, or shuffled. Trainings and seconds until near the optimum and until the certificate.

`prices`: the same with other efforts: as the search has them, which is operations and a tenth of the dearest; with the
share that a fit of the seconds has; and the true seconds. `greedy`: seconds until the certificate over those of
greedy choice by seconds.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from benchmarks.runner import command_line
from benchmarks.search.greedy import greedy_certificate
from benchmarks.search.measures import DELTA, NEAR, Floats, asked, over, questions, store
from benchmarks.search.tables import SIZES, Table, recorded, synthetic

from subarch.search import Certified, Problem
from subarch.search.bounds import Observed
from subarch.search.certified import better_by

SEARCH = Path(__file__).parents[1] / "search"
TABLES = {"300": 8, "2352": 2}
"""Synthetic tables of each size, with seeds from 1000."""
MARGIN = 0.15
"""By how much more a curve may fall than any did elsewhere."""
TELLING = 0.75


def least_ratios(tables: Iterable[Table], rungs: tuple[int, ...]) -> Floats:
    """(R,) the least ratio of the last error to that at a rung in other tables, between their rungs on a line.

    Rungs are compared by their share of all steps. 0 before the first rung of a table: nothing is known there.
    """
    share, found = np.array(rungs) / rungs[-1], np.ones(len(rungs))
    for table in tables:
        layered = table.shapes[:, 0] > 0
        least = (table.error() / table.errors[0])[:, layered].min(axis=1)
        found = np.minimum(found, np.interp(share, np.array(table.rungs) / table.rungs[-1], least, left=0.0))
    return found


def frozen(table: Table, problem: Problem, bound: str, elsewhere: Floats | None = None) -> dict[str, float]:
    """One search; `bound` is none, known, learnt, or elsewhere or guarded, which have (R,) `least_ratios`."""
    search, curves, last = Certified(problem, DELTA), table.errors[0], table.error()
    value = problem.values(slice(None), last)
    ratios, completed, whole = last / curves, list[int](), set[int]()
    if bound == "guarded":
        whole.update(search.first)
    found = {"seconds": 0.0, "near": 0.0, "trainings": 0.0, "frozen": 0.0, "wrong": 0.0}
    while (row := search.ask()) is not None:
        rung, box = len(curves) - 1, search.grid.below(row)
        floor = np.full(len(curves), -np.inf)
        if bound in ("known", "elsewhere") or (bound != "none" and len(completed) >= 3 and row not in whole):
            known = search._known()
            still = search._free(known, []) & (known.least < known.needed)
            below = still.reshape(search.grid.shape)[box]
            needed = known.needed.reshape(search.grid.shape)[box][below].max(initial=-np.inf)
            needed = max(needed, known.needed[search.grid.cell[row]])
            least = ratios.min(axis=1) if bound == "known" else ratios[:, completed].min(axis=1, initial=1.0)
            if elsewhere is not None:
                least = 1 - (1 + MARGIN) * (1 - np.minimum(least, elsewhere))
            elif bound == "learnt":
                least = 1 - 1.5 * (1 - least)
            floor = curves[:, row] * least
            if bound == "guarded":
                floor[curves[:, row] > TELLING] = -np.inf
            rung = int(np.append(floor[:-1] >= needed, True).argmax())
        stops = rung < len(curves) - 1
        found["frozen"] += stops
        found["wrong"] += float(stops and floor[rung] > last[row] + 1e-12)
        found["trainings"] += 1
        found["seconds"] += float(table.seconds[rung, row])
        if stops and bound == "guarded":
            whole.add(row)  # should it be asked for again
            search.awaited.remove(row)
            smaller = search.bounds.highest.reshape(search.grid.shape)[box]
            np.maximum(smaller, floor[rung], out=smaller)
            continue
        if not stops:
            completed.append(row)
        search.tell(row, float(last[row]))
        if not found["near"] and better_by(float(value.min()), float(value[row])) <= NEAR:
            found["near"] = found["seconds"]
    return found


def freezing(tables: Iterable[Table], others: Iterable[Table] = ()) -> dict[str, list[dict[str, float]]]:
    """By bound; those of elsewhere where there are other tables."""
    asked_of = [(table, problem) for table in tables for _, problem in questions(table)]
    found = {bound: [frozen(*one, bound) for one in asked_of] for bound in ("none", "known", "learnt")}
    if others := list(others):
        for bound in ("elsewhere", "guarded"):
            found[bound] = [frozen(*one, bound, least_ratios(others, one[0].rungs)) for one in asked_of]
    return found


def learning(table: Table, studies: list[Observed], effort: Floats | None = None) -> list[dict[str, float]]:
    """One search for each question; `effort` (N,) instead of what the search would be told."""
    found, seconds = [], table.seconds[-1]
    for _, asked_of in questions(table):
        problem = asked_of if effort is None else replace(asked_of, effort=effort)
        search, value = Certified(problem, DELTA), problem.values(slice(None), table.error())
        least = greedy_certificate(replace(problem, effort=seconds), table.error(), DELTA)
        search.learn(studies)
        rows = [row for row, _ in asked(search, table.error())]
        near = [better_by(float(value.min()), float(value[row])) <= NEAR for row in rows].index(True) + 1
        found.append(
            {
                "near": near,
                "near_seconds": float(seconds[rows[:near]].sum()),
                "trainings": len(rows),
                "seconds": float(seconds[rows].sum()),
                "greedy": over(seconds, rows, least),
            }
        )
    return found


def prices(table: Table) -> dict[str, list[dict[str, float]]]:
    operations, seconds = table.operations.astype(np.float64), table.seconds[-1]
    slope, share = (float(c) for c in np.polyfit(operations / operations.max(), seconds, 1))
    fitted = operations + share / slope * operations.max()
    return {
        "as told": learning(table, []),
        f"fitted, fixed {share / slope:.1%}": learning(table, [], fitted),
        "true seconds": learning(table, [], seconds),
    }


def laws(table: Table) -> dict[str, list[Observed]]:
    """Of candidates with layers and the whole vocabulary: as they are, and two that mislead."""
    used = table.shapes[:, 0] > 0
    if table.shapes.shape[1] == 5:
        used &= table.shapes[:, 4] == 0
    shapes, error = table.shapes[used][:, :4], table.error()[used]
    return {
        "as recorded": [(shapes, error)],
        "upside down": [(shapes, 1 / error)],
        "shuffled": [(shapes, np.random.default_rng(0).permutation(error))],
    }


def mean_ratio(runs: list[dict[str, float]], others: list[dict[str, float]], what: str) -> float:
    """The geometric mean over searches."""
    return float(np.exp(np.mean([np.log(one[what] / other[what]) for one, other in zip(runs, others, strict=True)])))


def main() -> None:
    arguments = command_line(__doc__, "search_racing").parse_args()
    tables = {path.stem: recorded(path) for path in sorted(SEARCH.glob("*.parquet"))}
    minilm, heads, l3 = (tables[name] for name in ("minilm", "minilm-heads", "l3"))
    stopped = {
        name: freezing([table], [other for other in tables.values() if other is not table])
        for name, table in tables.items()
    }
    for size, count in TABLES.items():
        stopped[size] = freezing([synthetic(SIZES[size], 1000 + seed) for seed in range(count)])
    learnt = {"nothing": learning(minilm, [])}
    for source in (heads, l3):
        learnt |= {f"{source.name}, {kind}": learning(minilm, studies) for kind, studies in laws(source).items()}
    priced = prices(minilm)
    store(arguments.results, {"freezing": stopped, "learning": learnt, "prices": priced})
    print("| table | bound | searches | to near the optimum | to the certificate | stopped | bounds that were wrong |")
    print("|---|---|---|---|---|---|---|")
    for name, runs in stopped.items():
        for bound in ("known", "learnt", "elsewhere", "guarded"):
            if bound not in runs:
                continue
            near, whole = (mean_ratio(runs[bound], runs["none"], what) for what in ("near", "seconds"))
            count, of, wrong = (int(sum(run[what] for run in runs[bound])) for what in ("frozen", "trainings", "wrong"))
            print(f"| {name} | {bound} | {len(runs[bound])} | {near:.2f} | {whole:.2f} | {count} of {of} | {wrong} |")
    print("\n| law of | trainings to near the optimum | in seconds | trainings to the certificate | in seconds |")
    print("|---|---|---|---|---|")
    last = {}
    for name, found in learnt.items():
        near, whole = (mean_ratio(found, learnt["nothing"], what) for what in ("near_seconds", "seconds"))
        counts = [", ".join(str(run[what]) for run in found) for what in ("near", "trainings")]
        print(f"| {name} | {counts[0]} | {near:.2f} | {counts[1]} | {whole:.2f} |")
        last[name] = [near, whole]
    print("\n| effort | seconds to near the optimum, by question | to the certificate, over greedy by seconds |")
    print("|---|---|---|")
    for name, searches in priced.items():
        near_seconds, greedy = ([round(run[what], 2) for run in searches] for what in ("near_seconds", "greedy"))
        print(f"| {name} | {near_seconds} | {greedy} |")
    print(json.dumps({"learning": last}))


if __name__ == "__main__":
    main()
