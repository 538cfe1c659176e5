"""How far is the model of latency off, and does it order candidates as well as measuring them again does?

    python -m benchmarks.studies.latency_model --out runs/latency-model

Of the `minilm` space, the 36 candidates that a search would fit its model to and 60 drawn at random are measured
twice, A and B, in each runtime, as a search measures them: in blocks, linked by anchors, a block of A and the same of
B in turn. The model is fitted to A's 36. On the 60 its predictions are compared with B, and so is A: what the model
adds to the noise of a measurement is the difference. A and B are kept in the run folder, block by block, so that the
same command goes on after any interruption, and the results in benchmarks/results/latency_model.json. The last line is
JSON.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
from benchmarks.runner import command_line, console, show, write
from numpy.typing import NDArray
from scipy.stats import kendalltau

from subarch.exporting.config import RuntimeName
from subarch.extraction.latencies import DESIGN
from subarch.latency.measuring import Candidates, LatencyCache, Stopwatch
from subarch.latency.model import TERMS, fit, spread
from subarch.models.sentence import Recipe
from subarch.models.student import Blueprint
from subarch.numbers.architecture import Inputs
from subarch.numbers.space import SearchSpace
from subarch.run.machine import machine, usable_cores, versions

# all-MiniLM-L6-v2's
INPUTS = Inputs(vocabulary=30522, positions=512, token_types=2, output=384)
RECIPE = Recipe(normalize=True, max_length=256)


def measured_twice(timed: Candidates, names: Sequence[str]) -> list[NDArray[np.float64]]:
    """Milliseconds of A and of B, in the order of the names."""
    given = {"runtime": timed.runtime, "threads": timed.threads, "batch": timed.batch, "lengths": list(timed.lengths)}
    watches = [
        Stopwatch(timed.calls, LatencyCache(given | {"inputs": str(INPUTS), "series": series}), timed.block, 1)
        for series in "AB"
    ]
    for first in range(0, len(names), timed.block):
        for watch in watches:
            watch.measure(names[first : first + timed.block])
        console.print(f"{timed.runtime}: {min(first + timed.block, len(names))} of {len(names)} measured twice")
    return [np.array([watch.known[name].median_ms for name in names]) for watch in watches]


def compared(space: SearchSpace, design: list[int], rest: list[int], a: Any, b: Any) -> dict[str, Any]:
    """The model of A's design against B's rest, and A's rest against B's."""
    model = fit(space.table[design], a[: len(design)], INPUTS)
    predicted = model.predict(space.table[rest])
    again, truth = a[len(design) :], b[len(design) :]
    percentiles = {
        name: np.percentile(np.abs(values / truth - 1), [50, 90]).tolist()
        for name, values in (("model", predicted), ("twice", again))
    }
    return {
        "fitted_to": len(design),
        "compared_on": len(rest),
        "median_error": percentiles["model"][0],
        "p90_error": percentiles["model"][1],
        "median_error_twice": percentiles["twice"][0],
        "p90_error_twice": percentiles["twice"][1],
        "tau": float(kendalltau(predicted, truth).statistic),
        "tau_twice": float(kendalltau(again, truth).statistic),
        "stated_median_error": model.median_error,
        "stated_p90_error": model.p90_error,
        "terms": dict(zip(TERMS, model.coefficients, strict=True)),
    }


def main() -> None:
    parser = command_line(__doc__, "latency_model")
    parser.add_argument("--out", type=Path, default=Path("runs/latency-model"))
    parser.add_argument("--runtimes", nargs="+", default=["onnx-int8", "torch"], choices=get_args(RuntimeName))
    parser.add_argument("--space", default="minilm")
    parser.add_argument("--design", type=int, default=DESIGN, help="candidates that the model is fitted to")
    parser.add_argument("--others", type=int, default=60, help="candidates that it is compared on")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--threads", type=int, default=usable_cores())
    arguments = parser.parse_args()
    os.environ["SUBARCH_CACHE"] = str(arguments.out)  # nothing that a search measured, and nothing for one to find
    space = SearchSpace.load(arguments.space)
    design = spread(space.table, arguments.design)
    left = np.setdiff1d(np.arange(len(space)), design)
    rest = np.random.default_rng(0).permutation(left)[: arguments.others].tolist()
    names = ["-".join(map(str, space.table[row])) for row in [*design, *rest]]
    blueprint = Blueprint("bert", INPUTS, settings={"pad_token_id": 0})
    found: dict[str, Any] = {
        "space": space.name,
        "candidates": len(space),
        "machine": machine(),
        "versions": versions(),
    }
    found |= {name: getattr(arguments, name) for name in ("batch", "length", "threads")}
    rows = []
    for runtime in arguments.runtimes:
        place = cast(RuntimeName, runtime), arguments.threads, arguments.batch, [arguments.length]
        a, b = measured_twice(Candidates(*place, blueprint, RECIPE, None), names)
        found[runtime] = row = compared(space, design, rest, a, b)
        found[runtime] |= {"milliseconds": {name: [x, y] for name, x, y in zip(names, a, b, strict=True)}}
        twice = f"{100 * row['median_error_twice']:.1f} %, {100 * row['p90_error_twice']:.1f} %"
        of_model = f"{100 * row['median_error']:.1f} %, {100 * row['p90_error']:.1f} %"
        rows.append([runtime, of_model, twice, f"{row['tau']:.3f}", f"{row['tau_twice']:.3f}"])
    columns = ["runtime", "median, 90th percentile: model", "measured again", "τ: model", "measured again"]
    show("latency predicted and measured", columns, rows)
    write(found, arguments.results)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
