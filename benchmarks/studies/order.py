"""Do the errors of searches keep their order: in D, H and I, and between the beginning of a training and its end?

    python -m benchmarks.studies.order "mpnet, from MiniLM-L6=runs/mpnet" "ModernBERT=runs/modernbert-search"

Nothing is trained. Of the candidates that each search trained with its first seed, after each number of steps at
which errors were recorded: ordered pairs of which the smaller has the lower error, the largest such rise, and Kendall's
τ with the last errors, with its bootstrap interval over candidates. Which candidates a certified search trains depends
on their errors, so these are no random sample; an exhaustive search trains all. The last line is JSON.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.runner import Results, command_line, show
from benchmarks.search.record import finished
from benchmarks.studies.rank_agreement import agreement, contradict, errors_at

from subarch.run.folder import RunFolder
from subarch.run.records import Selection

COUNTS = ("shapes", "pairs", "contradict")
NUMBERS = ("largest", "tau", "low", "high")


def order_of(run: Path) -> dict[str, Any]:
    """By share of the steps, of the finished trials of one search."""
    trials = finished(run, json.loads((run / "basis.json").read_text(encoding="utf-8")))
    first = min(trial.settings.seed for trial in trials)
    trials = [trial for trial in trials if trial.settings.seed == first and trial.architecture.depth]
    last = {point.step / trial.settings.steps for trial in trials for point in trial.curve if point.step}
    selection = RunFolder.open(run).read(Selection)
    return {
        "candidates": len(selection.candidates),
        "trained": {str(trial.architecture): trial.error for trial in trials},
        "claim": selection.gap_sentence,
        "steps": trials[0].settings.steps,
        "spread": float(np.ptp(errors_at(trials, 1.0))),
        "by_share": {
            f"{share:g}": contradict(trials, share) | asdict(agreement(trials, share)) for share in sorted(last)
        },
    }


def main() -> None:
    parser = command_line(__doc__, "order")
    parser.add_argument("searches", nargs="+", help="NAME=RUN of a finished search")
    arguments = parser.parse_args()
    results = Results(arguments.results)
    for name, _, run in (one.rpartition("=") for one in arguments.searches):
        results.setdefault("searches", {})[name] = order_of(Path(run))
        results.save()
    rows = [
        [name, share, *(str(row[key]) for key in COUNTS), *(f"{row[key]:.3f}" for key in NUMBERS)]
        for name, found in results["searches"].items()
        for share, row in found["by_share"].items()
    ]
    show("order of errors", ["search", "of the steps", *COUNTS, *NUMBERS], rows)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
