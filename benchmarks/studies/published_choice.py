"""What would have to be true of the error for W to select Bort's shape among the paper's 300 candidates.

    python -m benchmarks.studies.published_choice           # seconds; writes benchmarks/results/published_choice.json

W = f(ξ) / e(ξ), where f, the savings in parameters and in inference cost, is known in closed form (method.md). So X is
selected if and only if e(ξ) / e(X) > f(ξ) / f(X) for every other ξ: whatever is cheaper must be so much worse. That is
computed for both possible shapes of Bort (see `reproduction`), with p counted as the encoder's layers or with the
embeddings, and with i as operations at 128 tokens.

Then it is asked of errors that were recorded (benchmarks/search/minilm.parquet): the paper's candidates are placed in
the MiniLM space, maximum on maximum (depth / 2, hidden * 384 / 1024, intermediate / 2), and the errors there are
interpolated in logarithms. Since a cross-entropy has a part that no candidate removes, so does the error here:
e = c + d, where d is the recorded share, for every c. The last line is JSON; `benchmarks.plots` draws the region.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.runner import command_line, console, show, write
from benchmarks.search.tables import recorded
from benchmarks.studies.reproduction import EXCHANGED, INPUTS, RELEASED
from numpy.typing import NDArray
from scipy.interpolate import RegularGridInterpolator

from subarch import Architecture, SearchSpace
from subarch.numbers.objectives import cost_factor

LENGTH = 128
TABLE = Path(__file__).parents[1] / "search" / "minilm.parquet"
CONSTANT = 0.6849372082980465
"""The distance that the best constant vector has to the teacher of that table: its errors are distances."""
OFFSETS = np.concatenate([[0.0], np.geomspace(0.001, 1000, 601)])
SCALE = (1 / 2, 384 / 1024, 1 / 2)
"""Of depth, hidden and intermediate size, from the paper's space to the table's."""

Floats = NDArray[np.float64]


def main() -> None:
    arguments = command_line(__doc__, "published_choice").parse_args()
    found: dict[str, Any] = {}
    shapes, savings = candidates()
    errors = placed(shapes)
    for reading, saved in savings.items():
        for name in (RELEASED, EXCHANGED):
            found[f"{name}, p {reading}"] = region(shapes, saved, name) | {
                "recorded": held(shapes, saved, errors, name)
            }
        winners = [str(Architecture(*shapes[best])) for best in np.argmax(saved / (OFFSETS[:, None] + errors), axis=1)]
        found[f"winners, p {reading}"] = list(dict.fromkeys(winners))
    rows = []
    for name, row in found.items():
        if "recorded" in row:
            least, known = row["strictest"], row["recorded"]
            most = f"{least['ratio']:.3f} ({least['architecture']})"
            chosen = " to ".join(f"{c:.3g}" for c in known["offsets"] or ()) or "none"
            rows.append([name, str(len(row["worse"])), most, str(len(known["broken"])), chosen])
    show("selected if", ["shape", "must be worse", "by most", "broken by recorded errors", "c that selects it"], rows)
    for name, row in found.items():
        if name.startswith("winners"):
            console.print(f"{name}: {', '.join(row)}")
    write(found, arguments.results)
    print(json.dumps(found))


def candidates() -> tuple[NDArray[np.int64], dict[str, Floats]]:
    """(N, 4) the paper's shapes, one A of each ⟨D, H, I⟩, and f by the reading of p."""
    costs = SearchSpace.load("paper").costs(INPUTS, LENGTH)
    first = np.unique(costs.table[:, [0, 2, 3]], axis=0, return_index=True)[1]
    table = costs.table[np.sort(first)][:, :4]
    shapes = [Architecture(*map(int, row)) for row in table]
    counts = [shape.parameters(INPUTS) for shape in shapes]
    work = np.array([shape.operations(INPUTS, LENGTH) for shape in shapes])
    sizes = {
        "of the layers": np.array([count.encoder for count in counts]),
        "with embeddings": np.array([count.total for count in counts]),
    }
    return table, {name: cost_factor(size, work, size.max(), work.max()) for name, size in sizes.items()}


def at(shapes: NDArray[np.int64], name: str) -> int:
    """The row of a shape, whatever its number of heads."""
    depth, _, hidden, inner = map(int, name.split("-"))
    return int(np.flatnonzero((shapes[:, [0, 2, 3]] == (depth, hidden, inner)).all(axis=1))[0])


def region(shapes: NDArray[np.int64], saved: Floats, name: str) -> dict[str, Any]:
    """How much worse, or at most how much better, every other candidate must be: the least e(ξ) / e(X)."""
    least = saved / saved[at(shapes, name)]
    ratios = {str(Architecture(*map(int, row))): float(ratio) for row, ratio in zip(shapes, least, strict=True)}
    worst = max(ratios, key=lambda shape: ratios[shape])
    return {
        "worse": {shape: ratio for shape, ratio in ratios.items() if ratio > 1 + 1e-9},
        "strictest": {"architecture": worst, "ratio": ratios[worst]},
        "ratios": ratios,
    }


def placed(shapes: NDArray[np.int64]) -> Floats:
    """(N,) recorded errors, as shares of what a constant leaves, at the places of these shapes."""
    table = recorded(TABLE)
    layered = table.shapes[:, 0] > 0
    axes = [np.unique(table.shapes[layered, column]) for column in (0, 2, 3)]
    grid = np.full([len(axis) for axis in axes], np.nan)
    where = tuple(
        np.searchsorted(axis, table.shapes[layered, column]) for axis, column in zip(axes, (0, 2, 3), strict=True)
    )
    grid[where] = np.log(table.error()[layered] / CONSTANT)
    assert not np.isnan(grid).any()
    places = np.log(shapes[:, [0, 2, 3]] * np.array(SCALE))
    found: Floats = np.exp(RegularGridInterpolator([np.log(axis) for axis in axes], grid)(places))
    return found


def held(shapes: NDArray[np.int64], saved: Floats, errors: Floats, name: str) -> dict[str, Any]:
    """Recorded e(ξ) / e(X), which conditions they break (c = 0), and the c, if any, with which X is selected."""
    row = at(shapes, name)
    broken = errors / errors[row] < saved / saved[row] - 1e-12
    chosen = OFFSETS[np.argmax(saved / (OFFSETS[:, None] + errors), axis=1) == row]
    return {
        "ratios": [float(ratio) for ratio in errors / errors[row]],
        "broken": [str(Architecture(*map(int, shape))) for shape in shapes[broken]],
        "offsets": [float(chosen.min()), float(chosen.max())] if len(chosen) else None,
    }


if __name__ == "__main__":
    main()
