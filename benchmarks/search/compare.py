"""What a search costs: `certified` against random order, Optuna, syne-tune, NePS, ASHA and the paper's scheme.

    python -m benchmarks.search.compare                   # results/search.json; run it again to go on after a stop
    python -m benchmarks.search.compare --seeds 10        # fewer; parts that are there with as many seeds are kept
    python -m benchmarks.search.compare --peers bohb cqr  # of the peers these alone

Measured, in whole trainings (their steps) and in seconds of training: (a) the cost until the first trained candidate
within 1 % of the table's optimum; (b) the cost until the certificate, beside the smallest that greedy choice with all
errors known finds. For W and the least error under six latency limits, on the recorded table and on synthetic ones. A
synthetic table is drawn anew for each seed. A run that has spent 100 trainings is stopped and counts as that, which
flatters the peers. See docs/search-benchmark.md. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from datetime import date
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.search.libraries import neps_peer, synetune_peer
from benchmarks.search.measures import DELTA, by_question, certificate, covered, ours, spent, steps, store
from benchmarks.search.peers import Proposals, asha_peer, moasha_peer, optuna_peer, random_peer
from benchmarks.search.summary import summarise
from benchmarks.search.tables import SIZES, Axes, Table, recorded, synthetic

from subarch.search import Certified, Exhaustive, Fptas, Problem, Strategy

HERE = Path(__file__).parent
EPSILONS = (2, 4, 8, 16)
NOISES = (0.003, 0.01)
TUNING = 1000
"""The tables on which a peer's configuration is chosen have seeds from here on."""
QUICK: dict[str, Axes] = {"36": ((1, 2, 3), (64, 128, 192), (128, 256, 384, 512))}

Peer = Callable[[Problem, Table, int], Proposals]

STAGES: list[dict[str, Any]] = [
    {"space": "nested", "first": 1},
    {"space": "nested", "first": 3},
    {"space": "axes", "first": 1},
]
LIBRARIES: dict[str, tuple[tuple[str, ...], Callable[..., Proposals], str, list[dict[str, Any]]]] = {
    "bohb": (("syne_tune", "statsmodels"), synetune_peer, "BOHB", STAGES),
    "cqr": (("syne_tune", "xgboost"), synetune_peer, "CQR", [{"space": "nested"}]),
    "ashacqr": (("syne_tune", "xgboost"), synetune_peer, "ASHACQR", STAGES[:2]),
    "priorband": (
        ("neps",),
        neps_peer,
        "priorband",
        [
            *({"space": "nested", "first": 1, "prior": prior} for prior in (None, 0.5, 0.9)),
            {"space": "nested", "first": 1, "eta": 2},
            {"space": "axes", "first": 1},
        ],
    ),
    "primo": (
        ("neps",),
        neps_peer,
        "primo",
        [{"space": "nested", "first": 1}, {"space": "nested", "first": 1, "bo_scalar_weights": [1.0, 0.0]}],
    ),
    "ehvi": (
        ("syne_tune", "botorch"),
        synetune_peer,
        "EHVI",
        [{"space": "nested", "shift": 3.0}, {"space": "nested"}],
    ),
}
"""Peers of libraries.py: the packages without which they are skipped, and their configurations, the likeliest first."""
SLOW = ("gp on axes", *LIBRARIES)
SLOWEST = ("moasha", "cqr", "ashacqr", "primo", "ehvi")
"""They run on the two small groups only; the sorting of MO-ASHA alone takes longer than all of Optuna's samplers."""


def configurations() -> dict[str, list[tuple[str, Peer]]]:
    """Of each peer that is installed the configurations that are tried, by name."""

    def of_optuna(sampler: str, space: str, startup: int, front: bool = False) -> tuple[str, Peer]:
        def peer(problem: Problem, table: Table, seed: int) -> Proposals:
            return optuna_peer(problem, table.errors[0], seed, sampler, space, startup, front)

        return f"{space}, {startup}" + (", front" if front else ""), peer

    def of_asha(scheduler: Callable[..., Proposals], first: int, reduction: int) -> tuple[str, Peer]:
        def peer(problem: Problem, table: Table, seed: int) -> Proposals:
            return scheduler(problem, table.errors[0], seed, table.rungs, table.rungs[first - 1], reduction)

        return f"from rung {first}, reduction {reduction}", peer

    def of_library(peer: Callable[..., Proposals], method: str, options: dict[str, Any]) -> tuple[str, Peer]:
        def made(problem: Problem, table: Table, seed: int) -> Proposals:
            return peer(problem, table.errors[0], seed, table.rungs, method, **options)

        return ", ".join(f"{key} {value}" for key, value in options.items()), made

    spaces = ("nested", "constrained", "categories")
    populations = [(size, front) for size in (10, 20) for front in (False, True)]
    found: dict[str, list[tuple[str, Peer]]] = {
        "random": [("", lambda problem, table, seed: random_peer(problem, table.errors[0], seed))],
        "tpe": [of_optuna("tpe", space, startup) for space in spaces for startup in (5, 10)],
        "nsga2": [of_optuna("nsga2", space, size, front) for space in spaces[:2] for size, front in populations],
        # The axes as they are, as a library's documentation would have it
        "tpe on axes": [of_optuna("tpe", space, startup) for space in spaces[1:] for startup in (5, 10)],
        "nsga2 on axes": [of_optuna("nsga2", "constrained", size, front) for size, front in populations],
    }
    for name, package, scheduler in (("asha", "ray", asha_peer), ("moasha", "syne_tune", moasha_peer)):
        if find_spec(package):
            found[name] = [of_asha(scheduler, first, reduction) for first in (1, 3) for reduction in (2, 3, 4)]
    found["gp"] = [of_optuna("gp", "nested", 5)]
    found["gp on axes"] = [of_optuna("gp", "constrained", 5)]
    for name, (packages, peer, method, options) in LIBRARIES.items():
        if all(map(find_spec, packages)):
            found[name] = [of_library(peer, method, each) for each in options]
    return found


def tune(axes: Axes, tried: list[tuple[str, Peer]], seeds: int) -> dict[str, float]:
    """Trainings until near the optimum of each configuration, on tables of other seeds; the least is used.

    The geometric mean over tables and questions: they differ in size by much, and each counts alike.
    """
    found = {}
    for name, propose in tried:
        runs = by_question(lambda seed: synthetic(axes, TUNING + seed), seeds, partial(until_near, propose))
        found[name] = float(np.exp(np.mean([np.log(run[0]) for each in runs.values() for run in each])))
    return found


def until_near(propose: Peer, problem: Problem, table: Table, seed: int) -> list[float]:
    return spent(problem, table, propose(problem, table, seed))


def own() -> dict[str, Callable[[Problem, Table, int], list[float]]]:
    """The strategies of this package."""
    made: dict[str, Callable[[Problem], Strategy]] = {"certified": lambda problem: Certified(problem, DELTA)}
    made |= {f"fptas {epsilon}": partial(Fptas, epsilon=epsilon) for epsilon in EPSILONS}
    made["exhaustive"] = Exhaustive
    return {name: partial(run_own, make) for name, make in made.items()}


def run_own(make: Callable[[Problem], Strategy], problem: Problem, table: Table, seed: int) -> list[float]:
    return ours(problem, table, make(problem))


class Results:
    """results/search.json: parts that are finished, each with how many seeds it has."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parts: dict[str, Any] = json.loads(path.read_text())["parts"] if path.exists() else {}

    def part(self, name: str, seeds: int, make: Callable[[int], Any]) -> Any:
        held = self.parts.get(name)
        if held is None or held["seeds"] < seeds:
            start = time.process_time()
            found = make(seeds)
            held = {"seeds": seeds, "date": date.today().isoformat(), "cpu_seconds": time.process_time() - start}
            self.parts[name] = held | {"found": found}
            store(self.path, self.parts)
            print(f"{name}: {held['cpu_seconds']:.0f} s", flush=True)
        return self.parts[name]["found"]


def measure(
    results: Results,
    sizes: dict[str, Axes],
    million: Axes,
    seeds: int,
    fewer: dict[str, int],
    peers: Sequence[str] | None = None,
) -> None:
    """All parts, the cheap and important first. `fewer`: the seeds of peers that are slow; `peers`: these only."""
    recording = recorded(HERE / "minilm.parquet")
    groups: dict[str, Callable[[int], Table]] = {"minilm": lambda seed: recording}
    groups |= {size: partial(synthetic, axes) for size, axes in sizes.items()}
    tried = {name: named for name, named in configurations().items() if peers is None or name in peers}
    for group, table_of in groups.items():
        once = 1 if group == "minilm" else seeds  # ours draws nothing: on one table it is always the same
        run = partial(by_question, table_of)
        for name, make in own().items():
            results.part(f"cost/{group}/{name}", once, partial(run, run=make))
        results.part(
            f"certificate/{group}",
            once if len(table_of(0)) < 5000 else max(once // 3, 1),
            partial(run, run=certificate),
        )
    for noise in NOISES:
        for size, axes in list(sizes.items())[:2]:
            noisy = partial(by_question, partial(synthetic, axes, noise=noise, seeds=3), run=covered)
            results.part(f"noise/{size}/{noise}", seeds, noisy)
    results.part("steps", 4, lambda count: [steps(synthetic(million, seed, rungs=(25,))) for seed in range(count)])
    small = next(iter(sizes.values()))
    counts = {peer: fewer.get(peer, seeds) for peer in tried}
    best = {}
    for peer, named in tried.items():
        best[peer] = named[0][1]
        if len(named) > 1 and counts[peer]:
            tables = 1 if peer in SLOW else min(counts[peer], 4)
            found = results.part(f"tuning/{peer}", tables, partial(tune, small, named))
            best[peer] = dict(named)[min(found, key=lambda name: found[name])]
    for place, (group, table_of) in enumerate(groups.items()):
        for peer, propose in best.items():
            if counts[peer] and (peer not in SLOWEST or place < 2):
                run = partial(until_near, propose)
                results.part(f"cost/{group}/{peer}", counts[peer], partial(by_question, table_of, run=run))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=HERE.parent / "results" / "search.json")
    parser.add_argument("--seeds", type=int, default=30)
    parser.add_argument("--gp-seeds", type=int, default=12, help="Optuna's Gaussian process is slow; 0: none")
    parser.add_argument("--slow-seeds", type=int, default=4, help=f"of {', '.join(SLOW)}; 0: none")
    parser.add_argument("--peers", nargs="+", help="of the peers these alone")
    parser.add_argument("--quick", action="store_true", help="tiny tables, one seed: does it run?")
    arguments = parser.parse_args()
    results = Results(arguments.results)
    if arguments.quick:
        measure(results, QUICK, QUICK["36"], 1, dict.fromkeys(("gp", *SLOW), 0))
    else:
        million = SIZES["1000000"]
        measure(
            results,
            {size: axes for size, axes in SIZES.items() if axes != million},
            million,
            arguments.seeds,
            {"gp": arguments.gp_seeds} | dict.fromkeys(SLOW, arguments.slow_seeds),
            arguments.peers,
        )
    print(json.dumps(summarise(results.parts)))
