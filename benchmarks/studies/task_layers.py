"""Candidates of a fine-tuned teacher: which layers they keep, at which learning rate, and when the error tells.

    python -m benchmarks.studies.task_layers --task stsb --teacher runs/minilm/finetuned/stsb

Two shapes, trained on the outputs of the teacher from the task's own inputs, with different layers of the teacher and
learning rates, all on the same batches; the error after some numbers of steps. Results are written to
benchmarks/results/task_layers.json after each training; the last line is JSON.
"""

from __future__ import annotations

import json
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from benchmarks.runner import Results, command_line, show

from subarch.extraction.config import ExtractConfig
from subarch.extraction.estimate import estimate
from subarch.extraction.trial import Settings
from subarch.extraction.workbench import Workbench
from subarch.numbers.architecture import Architecture
from subarch.run.configuration import load
from subarch.tasks.inputs import write_inputs

STEPS = (4, 8, 12, 20, 40, 60, 80, 120)
BATCH = 32
CASES = {
    ("3-12-384-512", 1e-3): ("0,1,5", "0,1,2", "0,2,5"),
    ("3-12-384-512", 3e-4): ("0,1,5", "0,1,2", "0,2,5", "1,2,5", "1,2,3", "0,2,4", "0,3,5", "3,4,5"),
    ("3-12-384-512", 1.5e-4): ("0,1,5", "0,1,2"),
    ("2-12-384-512", 3e-4): tuple(f"{low},{high}" for low, high in combinations(range(6), 2)),
}
"""Layers that are kept, by shape and learning rate."""


def main() -> None:
    parser = command_line(__doc__, "task_layers")
    parser.add_argument("--task", default="stsb")
    parser.add_argument("--teacher", type=Path, required=True)
    parser.add_argument("--data", default="../shared/data/tasks")
    parser.add_argument("--out", type=Path, default=Path("runs/task-layers"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    inputs = arguments.out / "inputs.jsonl"
    if not inputs.is_file():
        write_inputs(arguments.task, arguments.data, inputs)
    given = {"teacher": str(arguments.teacher), "corpus": [str(inputs)], "max_length": 128, "heldout": 256}
    config = load(ExtractConfig, None, given | {"steps": STEPS[-1], "batch_size": [BATCH]})
    bench = Workbench.open(config, arguments.out)
    results = Results(arguments.results)
    results.about(task=arguments.task, batch=BATCH)
    rows = []
    for (shape, rate), several in CASES.items():
        for kept in several:
            results.keep("errors", shape, f"{rate:g}", kept, make=partial(errors, bench, shape, rate, kept))
            curve = results["errors"][shape][f"{rate:g}"][kept]
            rows.append([shape, f"{rate:g}", kept, *(f"{curve[str(step)]:.3f}" for step in STEPS)])
    show("error after so many steps", ["shape", "rate", "layers", *map(str, STEPS)], rows)
    print(json.dumps(results))


def errors(bench: Workbench, shape: str, rate: float, kept: str) -> dict[str, Any]:
    """The error after each number of steps."""
    layers = tuple(map(int, kept.split(",")))
    student = bench.student(Architecture.parse(shape), layers=layers)
    settings = Settings(STEPS[-1], rate, BATCH, layers=layers)
    found = estimate(student, bench.signal, settings, [step / STEPS[-1] for step in STEPS])
    return {str(point.step): point.error for point in found.curve}


if __name__ == "__main__":
    main()
