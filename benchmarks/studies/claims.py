"""What a certificate claims under noise, and whether it is true: on recorded noise and on simulated.

    python -m benchmarks.studies.claims                # two minutes of processor time; results/search_claims.json

The truth of `minilm` is its recorded errors made monotone (each at least that of every larger shape). Its noise is what
was recorded between two seeds of 50 candidates: what is left of their differences without the mean is drawn, with
replacement, for each candidate and seed; and each seed moves all candidates by the deviation of that mean. The truth of
the synthetic tables is known; a seed moves all their errors by 0.3 %, and each by another 0.3 %.

A search as `extract` makes it (δ = 1 %, an audit of five, six candidates with a second seed) then claims that nothing
is better by more than `reached`. `held`: by the true errors that is so. The last line is JSON.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.runner import command_line, show
from benchmarks.search.measures import DELTA, Floats, asked, questions, store
from benchmarks.search.tables import SIZES, Table, recorded, synthetic

from subarch.search import Certified, Problem
from subarch.search.certified import better_by
from subarch.search.noise import Noise

REPEATS, AUDIT = 6, 5
"""As `extract` has them by default."""
RELATIVE = 0.003
"""Deviation of an error of the synthetic tables within its seed, and of what the seed does to all of them."""


def monotone(table: Table) -> Floats:
    """(N,) the recorded errors, each raised to that of the worst larger shape."""
    sizes, error = table.shapes[:, [0, 2, 3]], table.error()
    larger = (sizes[None] >= sizes[:, None]).all(axis=2) & (table.shapes[:, 0] > 0)[None]
    worst: Floats = np.where(larger, error[None], error[:, None]).max(axis=1)
    return worst


def recorded_noise(table: Table, seed: int) -> Table:
    """The table with noise as it was recorded between its two seeds."""
    rng, true = np.random.default_rng([seed, 1]), monotone(table)
    off = table.error(0) - table.error(1)
    off = off[~np.isnan(off)]
    shift, own = abs(off.mean()) / np.sqrt(2), (off - off.mean()) / np.sqrt(2)
    errors = true + rng.normal(0, shift, (2, 1)) + rng.choice([-1, 1], (2, len(true))) * rng.choice(own, (2, len(true)))
    return replace(table, errors=errors[:, None], true=true)


def simulated_noise(seed: int) -> Table:
    rng, table = np.random.default_rng([seed, 2]), synthetic(SIZES["300"], seed)
    assert table.true is not None
    errors = table.true * (1 + RELATIVE * (rng.normal(size=(2, 1)) + rng.normal(size=(2, len(table)))))
    return replace(table, errors=errors[:, None])


def claimed(problem: Problem, table: Table) -> dict[str, Any]:
    """One search; `off` is by how much the best of all is really better than what was selected."""
    search, true = Certified(problem, DELTA, AUDIT), np.asarray(table.true)
    trained = len(list(asked(search, table.error())))
    again = search.nearest(REPEATS)
    search.noise = Noise.of([dict(enumerate(table.errors[:, -1, row].tolist())) for row in again])
    trained += len(again) + len(list(asked(search, table.error())))
    found, value = search.evidence(), problem.values(slice(None), true)
    off = better_by(float(value.min()), float(value[found.incumbent]))
    reached = max(found.delta, min(found.aim, found.reached))
    return {"trained": trained, "off": off, "reached": reached, "held": off <= reached + 1e-12}


def main() -> None:
    parser = command_line(__doc__, "search_claims")
    parser.add_argument("--tables", type=int, default=40, help="draws of noise of each table")
    arguments = parser.parse_args()
    table = recorded(Path(__file__).parents[1] / "search" / "minilm.parquet")
    parts: dict[str, Any] = {}
    for seed in range(arguments.tables):
        for noisy, name in ((recorded_noise(table, seed), "minilm"), (simulated_noise(seed), "300")):
            for question, problem in questions(noisy):
                parts.setdefault(name, {}).setdefault(question, []).append(claimed(problem, noisy))
    store(arguments.results, parts)
    rows = []
    for name, by_question in parts.items():
        for question, runs in by_question.items():
            low, median, high = np.percentile([100 * run["reached"] for run in runs], [25, 50, 75])
            off, held = max(100 * run["off"] for run in runs), sum(run["held"] for run in runs)
            trained = f"{np.median([run['trained'] for run in runs]):g}"
            claim = f"{median:.2g} % ({low:.2g} - {high:.2g})"
            rows.append([name, question, claim, f"{off:.2g} %", f"{held} of {len(runs)}", trained])
    show("claims under noise", ["table", "question", "claim", "really, at most", "held", "trainings"], rows)
    held = {name: [run["held"] for runs in found.values() for run in runs] for name, found in parts.items()}
    print(json.dumps({name: [sum(of), len(of)] for name, of in held.items()}))


if __name__ == "__main__":
    main()
