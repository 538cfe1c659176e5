"""What students of a fine-tuned teacher keep of its score, when the search compares outputs on the task's own inputs.

    python -m benchmarks.outputs --teacher mrpc=runs/minilm/finetuned/mrpc --teacher ner=runs/minilm/finetuned/ner

Each TASK=FOLDER is a model that `subarch finetune` made for a public task. For each limit (of the teacher's latency in
PyTorch, one thread, at the lengths of the task's inputs) a student is searched on the unlabelled training part, whose
layers are chosen by trial, then trained in full on the teacher's outputs and hidden states; where there are few pairs,
also for as many steps on these and on those that `subarch augment` makes of them. No label is used until then; `then
labels` is the same student fine-tuned on the labels of the training part, with the teacher's outputs as soft targets.
Dev and held-out are predicted once. Beside it: the teacher, and hand-picked shapes with the same full training, of the
teacher's layers that it can least do without.

Everything runs on one thread. Results are written to benchmarks/results/outputs/TASK.json after each model, and the
same command goes on. The last line is JSON.
"""

from __future__ import annotations

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from benchmarks.runner import RESULTS, Results, command_line, show
from transformers import AutoConfig

import subarch
from subarch.demo.demo import teacher_folder
from subarch.evaluation.resampling import intervals
from subarch.extraction.config import ExtractConfig
from subarch.finetuning.config import FinetuneConfig
from subarch.latency.measuring import measure_models
from subarch.models.heads import labels_of, predict
from subarch.models.source import source_of, timed
from subarch.pipeline import extract, finetune, pretrain
from subarch.pretraining.config import PretrainConfig
from subarch.run.configuration import load
from subarch.run.folder import RunFolder
from subarch.run.records import Layers, Selection
from subarch.tasks import Examples, score
from subarch.tasks.division import parts_of
from subarch.tasks.metrics import primary
from subarch.text.corpus import Corpus

DATA: dict[str, dict[str, Any]] = {
    "copa": {"data": "COPA-full"},
    "ner": {"data": "WNUT-17"},
    "sst2": {"rows": 10_000},
}
"""What is read of each task below the folder of all, where that is not its whole official data."""
DEPTHS = {0.25: [2, 3], 0.33: [2, 3, 4], 0.5: [3, 4, 5]}
"""Depths that may be fast enough for a limit: layers are chosen for each depth of a space."""
SPACE = {"heads": [12], "hidden": [384], "intermediate": [64, 128, 256, 512, 1024]}
SEARCH: dict[str, Any] = {
    "steps": 100,
    "batch_size": [32],
    "heldout": 256,
    "max_length": 128,
    "repeats": 1,
    "audit": 1,
    "workers": 1,
    "length_from": "corpus",
    "latency_threads": 1,
}
TRAINING: dict[str, Any] = {
    "steps": 1200,
    "batch_tokens": 2048,
    "learning_rate": 3e-4,
    "freeze_embeddings": True,
    "precision": "bf16",
    "evaluations": 4,
    "threads": 1,
}
MORE: dict[str, Any] = {"points": 4, "re_pair": True}
FEW = ("mrpc", "rte")
"""Tasks with few pairs, of which more are made."""
LABELS: dict[str, Any] = {"learning_rate": [1e-4], "epochs": 2, "seeds": [0], "any_teacher": True, "threads": 1}


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--teacher", action="append", default=[], help="TASK=FOLDER of a fine-tuned model")
    parser.add_argument("--data", default="../shared/data/tasks", help="folder of the public tasks")
    parser.add_argument("--limits", type=float, nargs="*", default=[0.25], choices=list(DEPTHS), help="of its latency")
    parser.add_argument("--picked", nargs="*", default=["2-12-384-512"], help="shapes to compare with")
    parser.add_argument("--out", type=Path, default=Path("runs/outputs"))
    parser.add_argument("--results", type=Path, default=RESULTS / "outputs", help="folder for the numbers")
    arguments = parser.parse_args()
    found = {}
    for task, folder in (pair.split("=", 1) for pair in arguments.teacher):
        own = {"task": task} | DATA.get(task, {})
        own["data"] = str(Path(arguments.data) / own.get("data", ""))
        bench = Bench(own, Path(folder), arguments.out / task, Results(arguments.results / f"{task}.json"))
        bench.run(arguments.limits, arguments.picked)
        found[task] = bench.results
    print(json.dumps(found))


class Bench:
    """The models of one task."""

    def __init__(self, task: dict[str, Any], teacher: Path, out: Path, results: Results) -> None:
        self.task, self.teacher, self.out, self.results = task, teacher, out, results
        self.parts = parts_of(load(FinetuneConfig, None, task))
        settings = {"search": SEARCH, "space": SPACE, "training": TRAINING, "labels": LABELS}
        results.about(metric=primary(self.parts.train.task), **settings)

    def run(self, limits: list[float], picked: list[str]) -> None:
        keep = partial(self.results.keep, "models")
        keep("teacher", make=lambda: self.scored(self.teacher))
        for limit in limits:
            run = self.out / f"{limit:g}"
            keep(f"under {limit:g}, search alone", make=partial(self.searched, limit, run))
            if self.task["task"] in FEW:  # of a copy, so before the search's folder is trained further
                keep(f"under {limit:g}, on more inputs", make=partial(self.on_more, run))
            keep(f"under {limit:g}", make=partial(self.in_full, run))
            keep(f"under {limit:g}, then labels", make=partial(self.on_labels, run))
        for shape in picked:
            keep(shape, make=partial(self.picked, shape, self.out / f"{limits[0]:g}"))
        show_task(self.task["task"], self.results["models"])

    def searched(self, limit: float, run: Path) -> dict[str, Any]:
        space = self.out / f"space-{limit:g}.yaml"
        space.parent.mkdir(parents=True, exist_ok=True)
        space.write_text(yaml.safe_dump({"depth": DEPTHS[limit]} | SPACE), encoding="utf-8")
        given = {"teacher": str(self.teacher), "task": self.task["task"], "data": self.task["data"]}
        config = load(ExtractConfig, None, given | {"max_latency_ratio": limit, "space": str(space)} | SEARCH)
        extract(config, run, resume=(run / "config.yaml").is_file())
        folder = RunFolder.open(run)
        selection, winner = folder.read(Selection), folder.read(Selection).winner
        assert winner is not None
        return {
            "architecture": winner.architecture,
            "error": [winner.error],
            "trials": sum(row.error is not None for row in selection.candidates),
            "certificate": selection.gap_sentence,
            "layers": list(folder.read(Layers).chosen.get(winner.architecture.split("-")[0], ())),
            **latency(run / "selected", self.teacher, run),
            **self.scored(run / "selected"),
        }

    def in_full(self, run: Path) -> dict[str, Any]:
        searched = self.results["models"][f"under {run.name}, search alone"]
        return self.trained(run, run / "inputs.jsonl", searched["architecture"])

    def on_more(self, run: Path) -> dict[str, Any]:
        """The same student, trained as long on inputs that were made as well."""
        copy, inputs = run.with_name(f"{run.name}-more"), self.out / "more.jsonl"
        shutil.copytree(run, copy, dirs_exist_ok=True)
        if not inputs.is_file():
            subarch.augment(inputs, corpus=str(run / "inputs.jsonl"), encoder=teacher_folder(), **MORE)
        searched = self.results["models"][f"under {run.name}, search alone"]
        return self.trained(copy, inputs, searched["architecture"])

    def picked(self, shape: str, searched: Path) -> dict[str, Any]:
        return self.trained(self.out / shape, searched / "inputs.jsonl", shape)

    def trained(self, run: Path, inputs: Path, shape: str) -> dict[str, Any]:
        """Train in full, and say how fast it is and what it scores."""
        given = {"teacher": str(self.teacher), "corpus": [str(inputs)], "architecture": shape}
        found = pretrain(run, load(PretrainConfig, None, given | TRAINING))
        return {
            "architecture": found.architecture,
            "error": [found.heldout[0]["error"], found.heldout[-1]["error"]],
            "seconds": found.seconds,
            **latency(run / "pretrained", self.teacher, run),
            **self.scored(run / "pretrained"),
        }

    def on_labels(self, run: Path) -> dict[str, Any]:
        """The same student, fine-tuned on labels and soft targets."""
        config = load(FinetuneConfig, None, self.task | LABELS | {"teacher": str(self.teacher)})
        finetune(run / "pretrained", config, run)
        before = {key: self.results["models"][f"under {run.name}"][key] for key in ("architecture", "ms", "share")}
        return before | self.scored(run / "finetuned" / self.task["task"])

    def scored(self, model: Path) -> dict[str, Any]:
        return {"dev": of(model, self.parts.dev), "heldout": of(model, self.parts.heldout)}


def latency(model: Path, teacher: Path, run: Path) -> dict[str, float]:
    """Milliseconds in PyTorch on one thread at the mean length of a run's inputs, and as a share of the teacher's."""
    length = round(float(Corpus.load(run / "corpus").train.size.mean())) + 2
    both = {"student": timed(source_of(model)), "teacher": timed(source_of(teacher))}
    models = {name: one for name, one in both.items() if one is not None}
    vocabulary = int(AutoConfig.from_pretrained(teacher).vocab_size)
    found = measure_models(models, vocabulary, batch=1, length=length, threads=1, rounds=5)
    ms = {name: one.median_ms for name, one in found.items()}
    return {"tokens": length, "ms": ms["student"], "share": ms["student"] / ms["teacher"]}


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
        share = f"{row['share']:.2f}" if "share" in row else "1"
        kept = f"{100 * part['score'] / teacher:.1f} %"
        numbers = [f"{row['dev']['score']:.4f}", f"{part['score']:.4f}", f"{part['low']:.3f} to {part['high']:.3f}"]
        rows.append([name, row.get("architecture", ""), share, *numbers, kept])
    show(task, ["model", "architecture", "latency", "dev", "held-out", "95 %", "kept"], rows)


if __name__ == "__main__":
    main()
