"""Do selections from latencies that are measured anew agree?

    python -m benchmarks.studies.repeatability --out runs/repeatability        # five minutes of processor time

Errors are those of the recorded table; the latencies of a few shapes, and of one that plays the teacher, are measured
anew for each selection, as `extract` does it: with a cache of its own, in blocks, again where the limit is straddled.
The limit is a share of the teacher's latency, amidst those of the shapes. The candidate of least error within the limit
is selected; what cannot be told apart from the limit counts as over it.

Two selections agree if they are the same candidate, or if one of them says of the other's candidate that it cannot be
told apart: from the limit, or, by `ETA`, in error from its own. Selections are written down one by one, so that the
same command goes on after an interruption. The last line is JSON.
"""

from __future__ import annotations

import json
import os
from itertools import combinations
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast, get_args

import numpy as np
from benchmarks.runner import Results, command_line, show
from benchmarks.search.tables import recorded

from subarch.exporting.config import RuntimeName
from subarch.extraction import latencies as extraction
from subarch.extraction.config import ExtractConfig
from subarch.extraction.question import limit_interval
from subarch.latency.interval import interval, side
from subarch.latency.measuring import Candidates, LatencyCache, Stopwatch
from subarch.models.sentence import Recipe
from subarch.models.student import Blueprint
from subarch.numbers.architecture import Inputs

# all-MiniLM-L6-v2's
INPUTS = Inputs(vocabulary=30522, positions=512, token_types=2, output=384)
RECIPE = Recipe(normalize=True, max_length=256)
SHAPES, WITHIN, ETA = 8, 1.5, 0.0065
"""Shapes whose latencies are measured, evenly from those whose recorded ones are so many times below the limit to those
that are above it; and how far differences of errors may be off: the recorded deviation within a seed, 0.0009, times the
studentized range of eleven candidates."""


def main() -> None:
    parser = command_line(__doc__, "latency_repeatability")
    parser.add_argument("--out", type=Path, default=Path("runs/repeatability"))
    parser.add_argument("--selections", type=int, default=10)
    parser.add_argument("--runtime", default="torch", choices=get_args(RuntimeName))
    parser.add_argument("--ratio", type=float, default=0.33)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    table = recorded(Path(__file__).parents[1] / "search" / "minilm.parquet")
    names = ["-".join(map(str, shape)) for shape in table.shapes]
    before = table.costs["ms_torch_b1_l32_t1"]
    largest = int(before.argmax())
    share = before / (arguments.ratio * before[largest])
    around = [int(row) for row in np.argsort(before) if 1 / WITHIN <= share[row] <= WITHIN]
    rows = [around[int(place)] for place in np.linspace(0, len(around) - 1, SHAPES).round()]
    error = {names[row]: float(table.error()[row]) for row in rows}
    results = Results(arguments.results)
    asked = {name: getattr(arguments, name) for name in ("runtime", "ratio", "threads")}
    results.about(**asked, shapes=list(error), teacher=names[largest])
    for number in range(arguments.selections):
        os.environ["SUBARCH_CACHE"] = str(arguments.out / str(number))
        results.keep("selections", str(number), make=lambda: selected(error, names[largest], asked))
    runs = list(results["selections"].values())
    results["pairs"] = len(pairs := list(combinations(runs, 2)))
    results["same"] = sum(one["selected"] == other["selected"] for one, other in pairs)
    results["agree"] = sum(agree(one, other, error) for one, other in pairs)
    results["agree_by_medians"] = sum(one["by_medians"] == other["by_medians"] for one, other in pairs)
    results.save()
    columns = ["selected", "by medians alone", "limit, ms", "not told apart", "visits", "cores of others"]
    shown = [
        [
            run["selected"] or "none",
            run["by_medians"] or "none",
            f"{run['limit'][0]:.2f} - {run['limit'][1]:.2f}",
            ", ".join(run["undecided"]),
            str(run["visits"]),
            f"{run['others'] or 0:.1f}",
        ]
        for run in runs
    ]
    show("selections from latencies measured anew", columns, shown)
    print(json.dumps({name: results[name] for name in ("pairs", "same", "agree", "agree_by_medians")}))


def agree(one: dict[str, Any], other: dict[str, Any], error: dict[str, float]) -> bool:
    mine, theirs = one["selected"], other["selected"]
    if mine == theirs or theirs in one["undecided"] or mine in other["undecided"]:
        return True
    return None not in (mine, theirs) and abs(error[mine] - error[theirs]) <= ETA


def selected(error: dict[str, float], teacher: str, asked: dict[str, Any]) -> dict[str, Any]:
    """What is selected from latencies that are measured now."""
    own = {"runtime": asked["runtime"], "threads": asked["threads"], "batch": 1, "lengths": [32]}
    blueprint = Blueprint("bert", INPUTS, settings={"pad_token_id": 0})
    timed = Candidates(cast(RuntimeName, asked["runtime"]), asked["threads"], 1, [32], blueprint, RECIPE, None)
    watch = Stopwatch(timed.calls, LatencyCache(own), timed.block, 1)
    watch.measure([teacher, *error])
    config = cast(ExtractConfig, SimpleNamespace(max_latency_ratio=asked["ratio"], max_latency_ms=None))
    while left := extraction.open_ones(config, watch.known, list(error), watch.known[teacher])[: extraction.AGAIN]:
        watch.again([teacher, *left])
    limit = limit_interval(config, watch.known[teacher])
    assert limit is not None
    where = {name: side(interval(watch.known[name].visits), limit) for name in error}
    medians = {name: watch.known[name].median_ms for name in error}
    most = asked["ratio"] * watch.known[teacher].median_ms
    return {
        "selected": min((name for name in error if where[name] == "within"), key=error.__getitem__, default=None),
        "by_medians": min((name for name in error if medians[name] <= most), key=error.__getitem__, default=None),
        "undecided": [name for name in error if where[name] == "open"],
        "limit": limit,
        "medians": medians,
        "visits": sum(len(entry.visits) for entry in watch.known.values()),
        "others": max((entry.others for entry in watch.known.values() if entry.others is not None), default=None),
    }


if __name__ == "__main__":
    main()
