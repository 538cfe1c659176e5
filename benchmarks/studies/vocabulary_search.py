"""A recorded table with V: is the error ordered in ⟨D, H, I, V⟩, and what does a search with V cost?

    python -m benchmarks.studies.vocabulary_search      # seconds; results/vocabulary_search.json

minilm-vocabulary.parquet in benchmarks/search holds all candidates of a space with V (docs/vocabulary.md has the
commands). The ordered pairs and those whose smaller one has the lower error, by the axis in which alone they differ;
Kendall's τ of earlier errors with the last. Then searches on the table, with all of V and with the whole vocabulary
alone: how many are trained under each limit, and what is found. The last line is JSON.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from benchmarks.runner import Results, command_line, show
from benchmarks.search.measures import certificate, questions
from benchmarks.search.tables import Table, recorded
from numpy.typing import NDArray

from subarch.exporting.config import RuntimeName
from subarch.exporting.size import megabytes
from subarch.numbers.abnc import rank_agreement
from subarch.numbers.architecture import Architecture, Inputs
from subarch.numbers.objectives import Objective
from subarch.numbers.space import sizes_of
from subarch.search import Problem

TABLE = Path(__file__).parents[1] / "search" / "minilm-vocabulary.parquet"
MEGABYTES = (6.0, 8.0, 10.0, 12.0, 16.0)
RUNTIME: RuntimeName = "onnx-int8"
AXES = ("D", "H", "I", "V")


def main() -> None:
    arguments = command_line(__doc__, "vocabulary_search").parse_args()
    results, table = Results(arguments.results), recorded(TABLE, head_size=None)
    inputs = Inputs(**json.loads(pq.read_schema(TABLE).metadata[b"subarch"])["inputs"])
    size = megabytes(table.shapes, inputs, inputs.family, RUNTIME)
    results["order"] = order(table)
    parts = {"with V": np.full(len(table), True), "without": table.shapes[:, 4] == 0}
    results["searches"] = {
        name: {
            kind: searched(problem.only(some), some, table)
            for kind, some in parts.items()
            if problem.affordable[some].any()
        }
        for name, problem in [*questions(table), *limited(table, size)]
    }
    results.save()
    rows = [
        [name, kind, *(f"{one[key]}" for key in ("affordable", "trained", "greedy", "architecture", "value", "missed"))]
        for name, kinds in results["searches"].items()
        for kind, one in kinds.items()
    ]
    show("searches", ["question", "", "under the limit", "trained", "greedy", "selected", "value", "missed"], rows)
    print(json.dumps(results))


def order(table: Table) -> dict[str, Any]:
    """Ordered pairs of candidates with layers, and those that contradict the order; by axis those that differ there."""
    layered = table.shapes[:, 0] > 0
    sizes, error = sizes_of(table.shapes)[layered], table.error()[layered]
    below = (sizes[:, None] <= sizes[None]).all(axis=2) & ~np.eye(len(sizes), dtype=np.bool_)
    rise = np.where(below, np.maximum(error[None, :] - error[:, None], 0.0), 0.0)
    differs = sizes[:, None] != sizes[None]
    alone = {axis: below & differs[:, :, k] & (differs.sum(axis=2) == 1) for k, axis in enumerate(AXES)}
    return {
        "candidates": len(sizes),
        "all": {"pairs": int(below.sum()), "contradict": int((rise > 0).sum()), "largest": float(rise.max())},
        **{
            axis: {
                "pairs": int(some.sum()),
                "contradict": int((rise[some] > 0).sum()),
                "largest": float(rise[some].max(initial=0.0)),
            }
            for axis, some in alone.items()
        },
        "tau": {
            str(step): asdict(rank_agreement(table.errors[0, rung], table.error()))
            for rung, step in enumerate(table.rungs)
        },
    }


def limited(table: Table, size: NDArray[np.float64]) -> list[tuple[str, Problem]]:
    """The least error under each number of megabytes."""
    cost = table.costs["operations"]
    largest: dict[str, Any] = {"parameters_maximum": float(table.parameters.max()), "cost_maximum": float(cost.max())}
    effort = table.operations + 0.1 * table.operations.max() + 1.0
    return [
        (
            f"error under {limit:g} MB",
            Problem(
                table.parameters, cost, Objective("error", **largest, max_megabytes=limit), table.shapes, effort, size
            ),
        )
        for limit in MEGABYTES
    ]


def searched(problem: Problem, some: NDArray[np.bool_], table: Table) -> dict[str, Any]:
    """One search to its end, and what it selects."""
    part = Table(
        table.name,
        table.shapes[some],
        table.parameters[some],
        table.operations[some],
        {name: cost[some] for name, cost in table.costs.items()},
        table.rungs,
        table.errors[:, :, some],
        table.seconds[:, some],
        table.trial[some],
    )
    found = certificate(problem, part, 0)
    value = problem.values(slice(None), part.error())
    row = int(value.argmin())
    return found | {"architecture": str(Architecture(*map(int, part.shapes[row]))), "value": float(value[row])}


if __name__ == "__main__":
    main()
