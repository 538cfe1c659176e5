"""What students of a fine-tuned teacher keep of its score, when the search compares outputs on the task's own inputs.

    python -m benchmarks.outputs --teacher stsb=runs/stsb/finetuned --limits 0.25 0.5 --minutes 15

Each TASK=FOLDER is a model that `subarch finetune` made for a public task. For each limit (of the teacher's latency
in PyTorch) a student is searched on the unlabelled training part, whose layers are chosen by trial, then trained in
full for so many minutes. It is chosen without a label; dev and held-out are predicted once. Beside it: the teacher, and
hand-picked shapes with the same training, from the teacher's lowest layers. Results are written to
benchmarks/results/outputs.json after each model, and the same command goes on. The last line is JSON.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.runner import Results, command_line, show

from subarch.evaluation.resampling import intervals
from subarch.extraction.config import ExtractConfig
from subarch.finetuning.config import FinetuneConfig
from subarch.models.heads import labels_of, predict
from subarch.pipeline import extract, pretrain
from subarch.pretraining.config import PretrainConfig
from subarch.run.configuration import load
from subarch.run.folder import RunFolder
from subarch.run.records import Layers, Selection
from subarch.tasks import Examples, score
from subarch.tasks.division import parts_of
from subarch.tasks.metrics import primary


def main() -> None:
    parser = command_line(__doc__, "outputs")
    parser.add_argument("--teacher", action="append", default=[], help="TASK=FOLDER of a fine-tuned model")
    parser.add_argument("--data", default="../shared/data/tasks", help="folder of the public tasks")
    parser.add_argument("--limits", type=float, nargs="*", default=[0.25, 0.5], help="of the teacher's latency")
    parser.add_argument("--picked", nargs="*", default=["3-12-384-512"], help="shapes to compare with")
    parser.add_argument("--steps", type=int, default=100, help="of each candidate")
    parser.add_argument("--minutes", type=float, default=15.0, help="of the full training")
    parser.add_argument("--set", action="append", default=[], help="KEY=JSON of the search's configuration")
    parser.add_argument("--out", type=Path, default=Path("runs/outputs"))
    arguments = parser.parse_args()
    teachers = dict(pair.split("=", 1) for pair in arguments.teacher)
    more = {key: json.loads(value) for key, value in (pair.split("=", 1) for pair in arguments.set)}
    results = Results(arguments.results)
    results.about(steps=arguments.steps, minutes=arguments.minutes, search=more)

    for task, folder in teachers.items():
        parts = parts_of(load(FinetuneConfig, None, {"task": task, "data": arguments.data}))

        def scored(model: Path, parts: Any = parts) -> dict[str, Any]:
            return {"dev": of(model, parts.dev), "heldout": of(model, parts.heldout)}

        def searched(limit: float, task: str = task, folder: str = folder) -> dict[str, Any]:
            given = {"teacher": folder, "task": task, "data": arguments.data, "steps": arguments.steps}
            run = arguments.out / f"{task}-{limit:g}"
            config = load(ExtractConfig, None, given | {"max_latency_ratio": limit} | more)
            extract(config, run, resume=(run / "config.yaml").is_file())
            return trained(run, {}, arguments.minutes) | scored(run / "pretrained")

        def picked(shape: str, task: str = task, folder: str = folder) -> dict[str, Any]:
            run, corpus = arguments.out / f"{task}-{shape}", arguments.out / f"{task}-{arguments.limits[0]:g}"
            given = {"teacher": folder, "corpus": [str(corpus / "inputs.jsonl")], "architecture": shape}
            return trained(run, given, arguments.minutes) | scored(run / "pretrained")

        results.keep(task, "teacher", make=partial(scored, Path(folder)))
        for limit in arguments.limits:
            results.keep(task, f"under {limit:g}", make=partial(searched, limit))
        for shape in arguments.picked:
            results.keep(task, shape, make=partial(picked, shape))
        show_task(task, results[task])
    print(json.dumps(results))


def trained(run: Path, given: dict[str, Any], minutes: float) -> dict[str, Any]:
    """Train in full, and say what was trained, from which layers, and how fast it is."""
    if not given:
        settings = RunFolder.open(run).settings()
        winner = RunFolder.open(run).read(Selection).winner
        assert winner is not None
        given = {key: settings[key] for key in ("teacher", "corpus")} | {"architecture": winner.architecture}
    found = pretrain(run, load(PretrainConfig, None, given | {"minutes": minutes}))
    latency, folder = found.latency, RunFolder(run)
    about: dict[str, Any] = {
        "architecture": found.architecture,
        "error": [found.heldout[0]["error"], found.heldout[-1]["error"]],
        "steps": found.steps,
        "seconds": found.seconds,
        "ms": latency.student.median_ms,
        "share": latency.student.median_ms / latency.teacher.median_ms if latency.teacher else None,
    }
    if folder.has(Selection):
        selection, depth = folder.read(Selection), found.architecture.split("-")[0]
        about |= {
            "trials": sum(row.error is not None for row in selection.candidates),
            "certificate": selection.gap_sentence,
            "layers": list(folder.read(Layers).chosen.get(depth, ())),
            "searched": selection.winner.error if selection.winner else None,
        }
    return about


def of(model: Path, examples: Examples) -> dict[str, float]:
    """The primary score of a model with its 95 % interval over examples."""
    predictions = labels_of(examples.task, predict(model, examples))
    metric = primary(examples.task)
    interval = intervals(examples, predictions).metrics[metric]
    return {"score": score(examples, predictions)[metric], "low": interval.low, "high": interval.high}


def show_task(task: str, found: dict[str, Any]) -> None:
    teacher = found["teacher"]["heldout"]["score"]
    rows = []
    for name, row in found.items():
        part = row["heldout"]
        share = f"{row['share']:.2f}" if row.get("share") else "1"
        kept = f"{100 * part['score'] / teacher:.1f} %"
        numbers = [f"{row['dev']['score']:.4f}", f"{part['score']:.4f}", f"{part['low']:.3f} to {part['high']:.3f}"]
        rows.append([name, row.get("architecture", ""), share, *numbers, kept])
    show(task, ["model", "architecture", "latency", "dev", "held-out", "95 %", "kept"], rows)


if __name__ == "__main__":
    main()
