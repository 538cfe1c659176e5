"""What `--heads all` costs the certified search, and when what it presumes of other numbers of heads is wrong.

    python -m benchmarks.search.heads                     # half a minute; results/search_heads.json

On minilm-heads.parquet, all recorded numbers of heads of the shapes whose nearest was recorded: how often others are
better than the nearest and by how much; what is trained with the nearest only and with all; whether the optimum of all
is found. On synthetic tables each shape gets three other numbers of heads, whose errors scatter about that of the
nearest: the claim of the certificate is compared with the truth. Independent scatter is hard on it, since the best of
the many that were not tried is better than the best of the few that were. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from benchmarks.search.measures import DELTA, LIMITS, Floats, asked, questions
from benchmarks.search.tables import SIZES, Axes, shape_of, synthetic
from numpy.typing import NDArray

from subarch.numbers.objectives import Objective
from subarch.numbers.space import nearest_heads
from subarch.search import Certified, Problem
from subarch.search.evidence import better_by

HERE = Path(__file__).parent
HEAD_SIZE, LATENCY = 32, "ms_torch_b1_l32_t2"
SCATTERS, AUDITS = (0.003, 0.01, 0.03), (0, 5, 20)


def without_heads(row: dict[str, int]) -> tuple[int, int, int]:
    depth, _, hidden, intermediate = shape_of(row)
    return depth, hidden, intermediate


def outcome(problem: Problem, error: Floats, audit: int) -> dict[str, Any]:
    """One search to its end. `off`: by how much the best of all is better than what was found."""
    search = Certified(problem, DELTA, audit)
    trained = [row for row, _ in asked(search, error)]
    found, value = search.evidence(), problem.objective.value(problem.parameters, problem.cost, error)
    off = better_by(float(value.min()), float(value[found.incumbent]))
    return {
        "affordable": int(problem.affordable.sum()),
        "trained": len(trained),
        "siblings": int((~search.lattice.represents[trained]).sum()),
        "error": float(error[found.incumbent]),
        "pairs": found.heads.pairs if found.heads else 0,
        "eta": found.heads.eta if found.heads and found.heads.pairs else None,
        "reached": found.reached,
        "off": off,
        "held": off <= found.reached + 1e-12,
    }


def on_the_recording(path: Path, audit: int) -> dict[str, Any]:
    """By question: the search among the nearest, and among all; and the gains of other numbers of heads, relative."""
    rows = pq.read_table(path).to_pylist()
    own = {without_heads(row): row["error"] for row in rows if row["heads"] * HEAD_SIZE in (0, row["hidden"])}
    rows = [row for row in rows if without_heads(row) in own]
    table = np.array([shape_of(row) for row in rows])
    columns = ("parameters", "operations", LATENCY, "error")
    parameters, operations, cost, error = (np.array([row[name] for row in rows]) for name in columns)
    nearest = nearest_heads(table, HEAD_SIZE)
    gains = (1 - error / np.array([own[without_heads(row)] for row in rows]))[~nearest]
    found: dict[str, Any] = {}
    for share in (None, *LIMITS):
        objective = Objective(
            "w" if share is None else "error",
            parameters_maximum=float(parameters.max()),
            cost_maximum=float(cost.max()),
            max_cost=None if share is None else float(np.quantile(cost, share)),
        )
        effort = operations + 0.1 * operations.max()
        every = Problem(parameters, cost, objective, table, effort, nearest)
        some = Problem(parameters[nearest], cost[nearest], objective, table[nearest], effort[nearest])
        found["W" if share is None else f"error at {share}"] = {
            "nearest": outcome(some, error[nearest], audit),
            "all": outcome(every, error, audit),
        }
    return {"candidates": len(table), "shapes": int(nearest.sum()), "gains": sorted(gains.tolist()), "questions": found}


def scattered(problem: Problem, error: Floats, scatter: float, seed: int) -> tuple[Problem, Floats]:
    """Three siblings for each row: errors off by a relative normal deviation, latencies by up to 3 %."""
    rng = np.random.default_rng(seed)
    assert problem.table is not None
    assert problem.effort is not None
    shape: NDArray[np.int64] = np.repeat(np.arange(len(problem)), 4)
    nearest = np.arange(len(shape)) % 4 == 0
    table = problem.table[shape]
    table[:, 1] = np.tile([8, 1, 2, 4], len(problem))
    cost = problem.cost[shape] * np.where(nearest, 1.0, rng.uniform(0.97, 1.03, len(shape)))
    errors = error[shape] * np.where(nearest, 1.0, np.maximum(1 + scatter * rng.standard_normal(len(shape)), 0.1))
    objective = replace(problem.objective, cost_maximum=float(cost.max()))
    return Problem(problem.parameters[shape], cost, objective, table, problem.effort[shape], nearest), errors


def on_synthetic(axes: Axes, seeds: int, scatter: float, audit: int) -> dict[str, Any]:
    found = [
        outcome(*scattered(problem, table.error(), scatter, seed), audit)
        for seed in range(seeds)
        for table in [synthetic(axes, seed)]
        for _, problem in questions(table)
    ]
    middle = {
        name: float(np.median([one[name] for one in found])) for name in ("trained", "siblings", "reached", "off")
    }
    return {"searches": len(found), "held": sum(one["held"] for one in found), **middle}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--results", type=Path, default=HERE.parent / "results" / "search_heads.json")
    parser.add_argument("--seeds", type=int, default=12)
    parser.add_argument("--sizes", nargs="+", default=["300", "2352"], choices=list(SIZES))
    arguments = parser.parse_args()
    recorded = {str(audit): on_the_recording(HERE / "minilm-heads.parquet", audit) for audit in (0, 5)}
    synthetics = {
        f"{size}/{scatter}/{audit}": on_synthetic(SIZES[size], arguments.seeds, scatter, audit)
        for size in arguments.sizes
        for scatter in SCATTERS
        for audit in AUDITS
    }
    record = {"date": date.today().isoformat(), "delta": DELTA, "recorded": recorded, "synthetic": synthetics}
    arguments.results.parent.mkdir(parents=True, exist_ok=True)
    temporary = arguments.results.with_suffix(".tmp")
    temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, arguments.results)
    for name, one in synthetics.items():
        print(name, one)
    for name, both in recorded["0"]["questions"].items():
        print(name, *(both[which] for which in ("nearest", "all")), sep="\n  ")
    gains = np.array(recorded["0"]["gains"])
    print(
        json.dumps(
            {
                "recorded_held": all(
                    both["all"]["held"] for part in recorded.values() for both in part["questions"].values()
                ),
                "better_than_nearest": round(float((gains > 0).mean()), 3),
                "largest_gain": round(float(gains.max()), 4),
                "held": {name: round(one["held"] / one["searches"], 3) for name, one in synthetics.items()},
            }
        )
    )
