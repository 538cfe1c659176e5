"""Medians of what compare.py measured: the last line with the targets, and the tables of docs/search-benchmark.md.

python -m benchmarks.search.summary [benchmarks/results/search.json]     # prints the tables as Markdown
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

GRIDS = ("exhaustive", "fptas 2", "fptas 4", "fptas 8", "fptas 16")
ON_AXES = (*GRIDS, "random", "asha", "moasha", "nsga2 on axes", "tpe on axes", "gp on axes")
MODELLED = ("bohb", "cqr", "ashacqr", "ehvi", "priorband", "primo")
PEERS = (*ON_AXES, *MODELLED, "nsga2", "tpe", "gp")
"""Those that are not on the axes may propose in a space made for them, in which every proposal is affordable."""
Parts = dict[str, Any]


def summarise(parts: Parts) -> dict[str, Any]:
    """The last line of compare.py.

    `cost_vs_best_peer`: on each problem (a table or a family of tables, with a question) our median trainings until
    near the optimum over those of the peer that is best there; of these ratios the median. `in_seconds`: likewise in
    seconds of training; `on_axes`: without the peers that propose in a space made for them. `certificate_vs_greedy`:
    the cost of all that a search trained over that of the greedy certificate, in effort; of all searches the median.
    `misses` are counted where errors are monotone, on synthetic tables.
    """
    searches = [(name.split("/")[1], search) for name, search in runs_of(parts, "certificate/")]
    held = [run["held"] for _, run in runs_of(parts, "noise/")]
    times = [ms for table in parts["steps"]["found"] for search in table.values() for ms in search["ms"]]
    return {
        "cost_vs_best_peer": median([ratio for _, ratio in best_peers(parts, 0).values()]),
        "cost_vs_best_peer_in_seconds": median([ratio for _, ratio in best_peers(parts, 1).values()]),
        "cost_vs_best_peer_on_axes": median([ratio for _, ratio in best_peers(parts, 0, ON_AXES).values()]),
        "certificate_vs_greedy": median([search["effort"] for _, search in searches]),
        "misses": sum(search["missed"] for group, search in searches if group != "minilm"),
        "runs": sum(group != "minilm" for group, _ in searches),
        "held_under_noise": float(np.mean(held)),
        "step_ms_1e6": median(times),
    }


def runs_of(parts: Parts, start: str) -> list[tuple[str, Any]]:
    """Every run of the parts whose name starts so, with that name."""
    found = [(name, part["found"]) for name, part in parts.items() if name.startswith(start)]
    return [(name, run) for name, by_question in found for runs in by_question.values() for run in runs]


def best_peers(parts: Parts, unit: int, peers: Sequence[str] = PEERS) -> dict[tuple[str, str], tuple[str, float]]:
    """By group and question the peer that costs least there, and our cost over its; `unit` 0: trainings, 1: seconds."""
    found = {}
    for group in groups(parts):
        ours = parts[f"cost/{group}/certified"]["found"]
        for question, runs in ours.items():
            ratio = {
                peer: over(costs(runs, "certified", unit), costs(theirs["found"][question], peer, unit))
                for peer in peers
                if (theirs := parts.get(f"cost/{group}/{peer}"))
            }
            best = max(ratio, key=lambda peer: ratio[peer])
            found[group, question] = best, ratio[best]
    return found


def groups(parts: Parts) -> list[str]:
    return [name.split("/")[1] for name in parts if name.startswith("cost/") and name.endswith("/certified")]


def costs(runs: list[list[float]], name: str, unit: int) -> list[float]:
    """Of each run what it spent. A grid that passed the optimum by never finds it; others that were stopped may."""
    return [run[unit] if run[2] or not name.startswith("fptas") else math.inf for run in runs]


def over(ours: list[float], theirs: list[float]) -> float:
    """Our median over theirs, over the seeds that both have; one run alone is on one table, the same for all seeds."""
    seeds = min(len(ours), len(theirs)) if min(len(ours), len(theirs)) > 1 else None
    return median(ours[:seeds]) / median(theirs[:seeds])


def median(values: list[float]) -> float:
    return float(np.median(values))


def cost_table(parts: Parts, unit: int) -> list[str]:
    """Rows: strategies; columns: groups. Per group the median over questions of the median cost, and the quartiles."""
    lines = ["| | " + " | ".join(groups(parts)) + " |", "|---|" + "---|" * len(groups(parts))]
    for name in ("certified", *PEERS):
        if not any(f"cost/{group}/{name}" in parts for group in groups(parts)):
            continue
        row = []
        for group in groups(parts):
            part = parts.get(f"cost/{group}/{name}")
            if part is None:
                row.append("")
                continue
            of_question = [costs(runs, name, unit) for runs in part["found"].values()]
            every = [cost for runs in of_question for cost in runs]
            middle = median([median(runs) for runs in of_question])
            low, high = np.quantile(every, [0.25, 0.75], method="nearest")
            row.append("missed" if math.isinf(middle) else f"{middle:.3g} ({low:.3g} – {high:.3g})")
        lines.append(f"| {name} | " + " | ".join(row) + " |")
    return lines


def problem_table(parts: Parts) -> list[str]:
    """One row per problem: our median cost, the best peer and the ratio, and what the certificate cost."""
    lines = [
        "| table | question | affordable | trainings to near the optimum | best peer | ratio | ratio in seconds "
        "| trained to the certificate | greedy | ratio in effort |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    seconds = best_peers(parts, 1)
    for (group, question), (peer, ratio) in best_peers(parts, 0).items():
        ours = costs(parts[f"cost/{group}/certified"]["found"][question], "certified", 0)
        searches = parts[f"certificate/{group}"]["found"][question]
        trained, greedy, effort = (median([one[key] for one in searches]) for key in ("trained", "greedy", "effort"))
        lines.append(
            f"| {group} | {question} | {searches[0]['affordable']} | {median(ours):.3g} | {peer} | {ratio:.2f} "
            f"| {seconds[group, question][1]:.2f} | {trained:.3g} | {greedy:.3g} | {effort:.2f} |"
        )
    return lines


def main(path: Path) -> None:
    parts = json.loads(path.read_text())["parts"]
    for lines in (cost_table(parts, 0), cost_table(parts, 1), problem_table(parts)):
        print("\n".join(lines), end="\n\n")
    for name, part in parts.items():
        if name.startswith("tuning/"):
            print(name.split("/")[1], {key: round(cost, 1) for key, cost in part["found"].items()})
    print(json.dumps(summarise(parts)))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parents[1] / "results" / "search.json")
