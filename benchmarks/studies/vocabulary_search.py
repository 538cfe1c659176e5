"""A recorded table with V: is the error ordered in ⟨D, H, I, V⟩, and what does a search with V cost?

    python -m benchmarks.studies.vocabulary_search --run RUN        # seconds; RUN is a finished exhaustive search

of a space with V (the command is in docs/size.md). Its errors are kept in the results, so that without --run the rest
is computed again from them. Of all candidates of one seed: the ordered pairs and those whose smaller one has the lower
error, by the axis in which alone they differ; Kendall's τ of earlier errors with the last. Then searches on the table,
with all of V and with the whole vocabulary alone: how many are trained under each limit, and what is found. The
last line is JSON.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.runner import Results, command_line, show
from benchmarks.search.measures import certificate, questions
from benchmarks.search.tables import Table
from numpy.typing import NDArray

from subarch.exporting.config import RuntimeName
from subarch.exporting.size import megabytes
from subarch.extraction.config import ExtractConfig
from subarch.extraction.study import Study, sqlite
from subarch.numbers.abnc import rank_agreement
from subarch.numbers.architecture import Inputs
from subarch.numbers.objectives import Objective
from subarch.numbers.space import SearchSpace, sizes_of
from subarch.run.folder import RunFolder
from subarch.run.records import Basis, Space, StudyName
from subarch.search import Problem

MEGABYTES = (6.0, 8.0, 10.0, 12.0, 16.0)
RUNTIME: RuntimeName = "onnx-int8"
AXES = ("D", "H", "I", "V")


def main() -> None:
    parser = command_line(__doc__, "vocabulary_search")
    parser.add_argument("--run", type=Path, help="where all candidates of a space with V were trained")
    arguments = parser.parse_args()
    results = Results(arguments.results)
    results.keep("recorded", make=lambda: recorded(arguments.run))
    table, size = table_of(results["recorded"])
    results["order"] = order(table)
    parts = {"with V": np.full(len(table), True), "without": table.shapes[:, 4] == table.shapes[:, 4].max()}
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


def recorded(path: Path) -> dict[str, Any]:
    """What the run knows: its space, its inputs, the tokens of a text by V, and the errors of all candidates."""
    with RunFolder.open(path) as run:
        config, basis, axes = run.config(ExtractConfig), run.read(Basis), run.read(Space)
        trials = Study.open(sqlite(path / "study.db"), run.read(StudyName).value, basis.identity).trials()
    return {
        "space": {name: list(axis) for name, axis in axes},
        "inputs": basis.inputs.model_dump(mode="json"),
        "tokens": {str(size): tokens for size, tokens in basis.longer(config.latency_length).items()},
        "length": config.latency_length,
        "settings": {"steps": config.steps, "heldout": config.heldout, "max_length": config.max_length},
        "trials": {
            str(trial.architecture): {
                "steps": [point.step for point in trial.curve],
                "errors": [point.error for point in trial.curve],
                "seconds": [point.seconds for point in trial.curve],
            }
            for trial in trials
            if trial.error is not None
        },
    }


def table_of(kept: dict[str, Any]) -> tuple[Table, NDArray[np.float64]]:
    """The table, and (N,) megabytes of the candidates' files."""
    inputs = Inputs(**kept["inputs"])
    longer = {int(size): tokens for size, tokens in kept["tokens"].items()}
    costs = SearchSpace.from_dict(kept["space"], "recorded").costs(inputs, kept["length"], longer)
    trials = [kept["trials"][str(costs.architecture(row))] for row in range(len(costs))]
    rungs = tuple(step for step in trials[0]["steps"] if step)
    errors = np.array([trial["errors"][-len(rungs) :] for trial in trials]).T[None]
    seconds = np.array([trial["seconds"][-len(rungs) :] for trial in trials]).T
    shapes = costs.table.copy()
    shapes[shapes[:, 4] == 0, 4] = inputs.vocabulary
    work = {"multiply-adds": costs.operations.astype(np.float64)}
    table = Table("recorded", shapes, costs.parameters, costs.operations, work, rungs, errors, seconds, seconds[-1])
    return table, megabytes(costs.table, inputs, inputs.family, RUNTIME)


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
    cost = table.costs["multiply-adds"]
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
    return found | {"architecture": "-".join(map(str, part.shapes[row])), "value": float(value[row])}


if __name__ == "__main__":
    main()
