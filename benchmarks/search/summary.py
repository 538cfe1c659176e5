"""Medians of what compare.py measured: the two targets, and the tables that it prints.

>>> summarise(json.loads(Path("benchmarks/results/search.json").read_text())["parts"])
"""

from __future__ import annotations

from typing import Any

import numpy as np

PEERS = ("random", "tpe", "nsga2", "gp", "asha", "moasha")


def summarise(parts: dict[str, Any]) -> dict[str, Any]:
    """The last line. Ratios are medians over problems (a table or family of tables, with a question).

    `cost_vs_best_peer`: our median cost until near the optimum over that of the peer that is best on that problem, in
    trainings, over the same seeds; `in_seconds`: likewise in seconds of training. `certificate_vs_greedy`: of searches,
    the cost of all that was trained over that of the greedy certificate, in effort.
    """
    searches = [
        (name.split("/")[1], search)
        for name, part in parts.items()
        if name.startswith("certificate/")
        for runs in part["found"].values()
        for search in runs
    ]
    times = [ms for table in parts["steps"]["found"] for search in table.values() for ms in search["ms"]]
    held = [
        run["held"]
        for name, part in parts.items()
        if name.startswith("noise/")
        for runs in part["found"].values()
        for run in runs
    ]
    return {
        "cost_vs_best_peer": median([found[0] for found in ratios(parts).values()]),
        "cost_vs_best_peer_in_seconds": median([found[1] for found in ratios(parts).values()]),
        "certificate_vs_greedy": median([search["effort"] for _, search in searches]),
        "misses": sum(search["missed"] for group, search in searches if group != "minilm"),
        "runs": sum(group != "minilm" for group, _ in searches),
        "held_under_noise": sum(held) / len(held),
        "step_ms_1e6": median(times),
    }


def ratios(parts: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """By "group: question" the ratio to the best peer there, in trainings and in seconds."""
    found: dict[str, tuple[float, float]] = {}
    for name, part in parts.items():
        if not (name.startswith("cost/") and name.endswith("/certified")):
            continue
        group = name.split("/")[1]
        for question, runs in part["found"].items():
            rivals = [
                parts[f"cost/{group}/{peer}"]["found"][question] for peer in PEERS if f"cost/{group}/{peer}" in parts
            ]
            found[f"{group}: {question}"] = (
                max(over(runs, theirs, 0) for theirs in rivals),
                max(over(runs, theirs, 1) for theirs in rivals),
            )
    return found


def over(ours: list[list[float]], theirs: list[list[float]], unit: int) -> float:
    """Our median over theirs, over the seeds that both have; ours with one seed is on one table, always the same."""
    seeds = min(len(ours), len(theirs)) if len(ours) > 1 else None
    return median([run[unit] for run in ours[:seeds]]) / median([run[unit] for run in theirs[:seeds]])


def median(values: list[float]) -> float:
    return float(np.median(values))
