"""What the recorded tables say by themselves: is the error monotone, how noisy, ordered how soon, and by which runtime.

    python -m benchmarks.studies.recording             # seconds; results/search_recording.json, tables of the documents

Of `minilm.parquet`, after each number of steps at which errors were recorded:

    contradict      ordered pairs ⟨D, H, I⟩ ≤ ⟨D', H', I'⟩ of which the smaller has the lower error
    tau             Kendall's τ with the errors after all steps, with a bootstrap interval over candidates

between seeds the deviation of one error, and which contradictions come back with the other seed; between runtimes
the rank correlation of latencies, and whether the least error under a limit is the same candidate's. The candidates
of docs/estimate.md, which were trained longer, and minilm-heads.parquet are asked for contradictions too. The last line
is JSON.
"""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.runner import command_line
from benchmarks.search.measures import LIMITS, Floats, store
from benchmarks.search.tables import Table, recorded
from numpy.typing import NDArray
from scipy.stats import shapiro, spearmanr

from subarch.numbers.abnc import rank_agreement

SEARCH = Path(__file__).parents[1] / "search"
RESULTS = SEARCH.parent / "results"


def pairs_of(shapes: NDArray[np.int64], error: Floats) -> tuple[NDArray[np.bool_], Floats]:
    """Of (N, 4) shapes: is row ≤ column in D, H and I, both with layers; and by how much the row is better."""
    sizes, layered = shapes[:, [0, 2, 3]], shapes[:, 0] > 0
    below = (sizes[:, None] <= sizes[None]).all(axis=2) & ~np.eye(len(sizes), dtype=np.bool_)
    below &= layered[:, None] & layered[None]
    return below, np.where(below, np.maximum(error[None, :] - error[:, None], 0.0), 0.0)


def contradictions(shapes: NDArray[np.int64], error: Floats) -> dict[str, float]:
    """Ordered pairs, those that contradict the order, and the largest rise in an error.

    `candidates` are better than a larger one; `relative` is the largest rise as a share of the larger one's error.
    """
    below, rise = pairs_of(shapes, error)
    return {
        "shapes": int((shapes[:, 0] > 0).sum()),
        "pairs": int(below.sum()),
        "contradict": int((rise > 0).sum()),
        "candidates": int((rise > 0).any(axis=1).sum()),
        "largest": float(rise.max(initial=0.0)),
        "relative": float((rise / error).max(initial=0.0)),
    }


def by_steps(table: Table) -> dict[str, dict[str, Any]]:
    last = table.error()
    found: dict[str, dict[str, Any]] = {}
    for rung, steps in enumerate(table.rungs):
        error = table.errors[0, rung]
        agreement = rank_agreement(error, last)
        tau = {"tau": agreement.tau, "tau_low": agreement.low, "tau_high": agreement.high}
        found[str(steps)] = contradictions(table.shapes, error) | tau
    return found


def between_seeds(table: Table) -> dict[str, Any]:
    """How an error differs with the seed, from the candidates that were trained with two; and what comes back.

    `deviation` is that of one error, as `search/noise.py` pools it, `by_third` the same of the cheapest, the middle and
    the dearest third of the candidates. `shift` is how far one seed lies below the other on average, and `own` the
    deviation that is left without it. `largest` is the largest difference in deviations of differences, and `shapiro`
    the p-value of normal ones.
    """
    both = ~np.isnan(table.error(1))
    shapes, first, second = table.shapes[both], table.error(0)[both], table.error(1)[both]
    rises = [pairs_of(shapes, error)[1] > 0 for error in (first, second, (first + second) / 2)]
    off = first - second
    return {
        "candidates": len(off),
        "deviation": deviation(off),
        "relative": deviation(off / ((first + second) / 2)),
        "by_third": [deviation(third) for third in np.array_split(off, 3)],
        "shift": float(off.mean()),
        "own": float(off.std(ddof=1) / np.sqrt(2)),
        "largest": float(np.abs(off).max() / (np.sqrt(2) * deviation(off))),
        "shapiro": float(shapiro(off).pvalue),
        "pairs": int(pairs_of(shapes, first)[0].sum()),
        "contradict": [int(rise.sum()) for rise in rises[:2]],
        "contradict_both": int((rises[0] & rises[1]).sum()),
        "contradict_mean": int(rises[2].sum()),
    }


def deviation(differences: Floats) -> float:
    """Of one error, from differences between two."""
    return float(np.sqrt(np.mean(differences**2) / 2))


def between_runtimes(table: Table) -> dict[str, dict[str, Any]]:
    """By pair of latency columns: how alike they order, and by question the best under each."""
    found = {}
    for one, other in combinations(table.costs, 2):
        questions = {}
        for share in LIMITS:
            best, excess = [], []
            for cost in (table.costs[one], table.costs[other]):
                within = cost <= np.quantile(cost, share)
                best.append(int(np.where(within, table.error(), np.inf).argmin()))
            for cost, theirs in zip((table.costs[one], table.costs[other]), reversed(best), strict=True):
                excess.append(float(cost[theirs] / np.quantile(cost, share)))
            names = ["-".join(map(str, table.shapes[row].tolist())) for row in best]
            # the other runtime's choice, in latency over this one's limit
            questions[str(share)] = {one: names[0], other: names[1], "over_limit": excess}
        correlation = float(spearmanr(table.costs[one], table.costs[other]).statistic)
        same = sum(asked[one] == asked[other] for asked in questions.values())
        found[f"{one} and {other}"] = {"rank_correlation": correlation, "same": same, "questions": questions}
    return found


def of_estimate() -> dict[str, dict[str, float]]:
    """Contradictions among the candidates of docs/estimate.md, by steps."""
    trials = [trial for trial in json.loads((RESULTS / "rank_agreement.json").read_text())["trials"] if trial["curve"]]
    shapes = np.array([[int(size) for size in trial["architecture"].split("-")] for trial in trials])
    steps = [step for step, _, _ in trials[0]["curve"]]
    columns = np.array([[error for _, error, _ in trial["curve"]] for trial in trials]).T
    return {str(step): contradictions(shapes, error) for step, error in list(zip(steps, columns, strict=True))[1:]}


def main() -> None:
    parser = command_line(__doc__, "search_recording")
    parser.add_argument("--table", type=Path, default=SEARCH / "minilm.parquet")
    arguments = parser.parse_args()
    table, heads = recorded(arguments.table), recorded(SEARCH / "minilm-heads.parquet")
    steps, runtimes = by_steps(table), between_runtimes(table)
    earlier = {str(rung): contradictions(heads.shapes, heads.errors[0, at]) for at, rung in enumerate(heads.rungs)}
    contradict = {"minilm": steps, "minilm-heads": earlier, "estimate": of_estimate()}
    seeds = between_seeds(table) if len(table.errors) > 1 else None
    store(arguments.results, {"contradict": contradict, "seeds": seeds, "runtimes": runtimes})
    print("| table | steps | shapes with layers | ordered pairs | contradict | largest rise | of the error | τ |")
    print("|---|---|---|---|---|---|---|---|")
    for name, rows in contradict.items():
        for step, row in rows.items():
            tau = f"{row['tau']:.3f} ({row['tau_low']:.3f} – {row['tau_high']:.3f})" if "tau" in row else ""
            print(
                f"| {name} | {step} | {row['shapes']} | {row['pairs']} | {row['contradict']} | {row['largest']:.4f} "
                f"| {row['relative']:.1%} | {tau} |"
            )
    print(json.dumps({"candidates": len(table), "steps": table.rungs[-1], "seeds": seeds} | runtimes))


if __name__ == "__main__":
    main()
