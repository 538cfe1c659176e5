"""Is it the mistakes that matter, or more data? Agora's points against as many random ones, where labels are few.

    python -m benchmarks.studies.agora_growth --student models/paraphrase-MiniLM-L3-v2 --teacher runs/L6/finetuned/sst2

Of SST-2, 𝒟 are so many labelled sentences of the training part, ℰ are 200 others, and S is a fine-tuned teacher that
read many more. One iteration of Agora with one setting: the student is fine-tuned on 𝒟, and again, from the start, on 𝒟
with the points that S labels. Every training takes about as many steps, whatever its data, so that each way below
costs the same (two trainings, of which dev chooses the better):

    plain      𝒟, with two seeds
    soft       𝒟, with the teacher's soft targets; and plain
    agora N    𝒟 with at most N points near each mistake of plain on ℰ, by edits of words; and plain
    random N   𝒟 with as many other sentences of the training part, which S labels; and plain

Held-out (the official validation part) is predicted by what was chosen. The results are written to
benchmarks/results/agora_growth.json after each cell, and the same command goes on. The last line is JSON.
"""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from benchmarks.runner import Results, command_line, show

from subarch.finetuning.agora import mistakes
from subarch.finetuning.config import FitSettings, Theta
from subarch.finetuning.fit import Fitted, fit
from subarch.finetuning.neighbours import Neighbourhood
from subarch.models.heads import Logits, labels_of, predict
from subarch.tasks import Example, Examples, read, score

SIZES, POINTS, DEV = (100, 300, 1000), (4, 16), 200
STEPS, BATCH = 64, 16
"""Of a training, at least an epoch."""
SETTINGS = FitSettings(max_length=64, patience=0, threads=1)


def main() -> None:
    parser = command_line(__doc__, "agora_growth")
    parser.add_argument("--student", type=Path, required=True, help="folder of an encoder")
    parser.add_argument("--teacher", type=Path, required=True, help="folder of a model fine-tuned for SST-2")
    parser.add_argument("--data", default="../shared/data/tasks")
    parser.add_argument("--out", type=Path, default=Path("runs/agora-growth"))
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    parser.add_argument("--points", type=int, nargs="*", default=list(POINTS))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    arguments = parser.parse_args()
    results = Results(arguments.results)
    results.about(student=arguments.student.name, steps=STEPS, batch=BATCH, dev=DEV)
    pool, heldout = (read("sst2", arguments.data, part) for part in ("train", "validation"))
    results.keep("teacher", make=lambda: accuracy(arguments.teacher, heldout))
    for seed in arguments.seeds:
        for size in arguments.sizes:
            draw = Draw(pool, heldout, size, seed, arguments.student, arguments.teacher, arguments.out)
            names = ["plain", "soft", *(f"{way} {each}" for each in arguments.points for way in ("agora", "random"))]
            for name in names:
                results.keep("cells", f"{size}/{seed}/{name}", make=partial(draw.cell, name))
            shutil.rmtree(draw.out, ignore_errors=True)
    show_cells(results["cells"], arguments.sizes, results["teacher"])
    print(json.dumps(results))


class Draw:
    """𝒟 and ℰ of a seed, and what is trained on them."""

    def __init__(
        self, pool: Examples, heldout: Examples, size: int, seed: int, student: Path, teacher: Path, out: Path
    ) -> None:
        order = np.random.default_rng(seed).permutation(len(pool)).tolist()
        some = [pool[row] for row in order[: DEV + size + 20_000]]
        self.dev, self.data = replace(pool, rows=tuple(some[:DEV])), replace(pool, rows=tuple(some[DEV : DEV + size]))
        self.others = replace(pool, rows=tuple(some[DEV + size :]))
        self.heldout, self.seed, self.student, self.teacher = heldout, seed, student, teacher
        self.out = out / f"{size}-{seed}"

    def cell(self, name: str) -> dict[str, Any]:
        """What the way of this name scores; the better on dev of its two trainings."""
        way, _, each = name.partition(" ")
        if way in ("plain", "soft"):
            added = self.data[:0]
            soft = predict(self.teacher, self.data, max_length=SETTINGS.max_length) if way == "soft" else None
            second = self.trained(name, self.data, soft, self.seed + 100)
        else:
            added = self.near(int(each))
            if way == "random":
                added = self.labelled(self.others[: len(added)])
            second = self.trained(name, replace(self.data, rows=(*self.data.rows, *added.rows)), None, self.seed)
        chosen = max(self.plain, second, key=lambda one: one.dev_score)
        found = {
            "added": len(added),
            "dev": chosen.dev_score,
            "chose": "second" if chosen is second else "first",
            "heldout": accuracy(chosen.folder, self.heldout),
            "heldout_of_second": accuracy(second.folder, self.heldout),
        }
        return found | ({"positive": statistics.fmean(one.label or 0 for one in added)} if added else {})

    @cached_property
    def plain(self) -> Fitted:
        return self.trained("first", self.data, None, self.seed)

    def trained(self, name: str, data: Examples, soft: Logits | None, seed: int) -> Fitted:
        epochs = max(1, round(STEPS * BATCH / len(data)))
        theta = Theta(2e-4, batch_size=BATCH, epochs=epochs, seed=seed)
        place = self.out / name.replace(" ", "-")
        return fit(self.student, data, self.dev, theta, place, settings=SETTINGS, teacher=soft)

    def near(self, each: int) -> Examples:
        """Points near the mistakes of plain on ℰ, labelled by S."""
        wrong = mistakes(self.dev, labels_of(self.dev.task, self.plain.dev_logits))
        tau = Neighbourhood.load([self.data, self.dev, self.heldout], encoder=self.student, each=each, seed=self.seed)
        return self.labelled([point.example for point in tau(wrong, self.data, 1).points])

    def labelled(self, examples: Sequence[Example]) -> Examples:
        """The examples with the labels that S gives them."""
        bare = replace(self.data, rows=tuple(replace(one, label=None) for one in examples))
        said = labels_of(bare.task, predict(self.teacher, bare, max_length=SETTINGS.max_length))
        return replace(bare, rows=tuple(replace(one, label=int(label)) for one, label in zip(bare, said, strict=True)))


def accuracy(model: Path, examples: Examples) -> float:
    predictions = labels_of(examples.task, predict(model, examples, max_length=SETTINGS.max_length))
    return score(examples, predictions)["accuracy"]


def show_cells(cells: dict[str, dict[str, Any]], sizes: Sequence[int], teacher: float) -> None:
    names = list(dict.fromkeys(key.split("/")[2] for key in cells))
    rows = []
    for size in sizes:
        for name in names:
            own = {key.split("/")[1]: one for key, one in cells.items() if key.split("/")[::2] == [str(size), name]}
            plain = {seed: cells[f"{size}/{seed}/plain"]["heldout"] for seed in own}
            gains = [one["heldout"] - plain[seed] for seed, one in own.items()]
            grown = statistics.fmean(1 + one["added"] / size for one in own.values()) if own else 0.0
            mean = statistics.fmean(one["heldout"] for one in own.values()) if own else 0.0
            rows.append([f"{size} {name}", f"{grown:.2f}", f"{mean:.4f}", " ".join(f"{gain:+.3f}" for gain in gains)])
    show(f"held-out accuracy; teacher {teacher:.4f}", ["labels, way", "growth", "accuracy", "gain over plain"], rows)


if __name__ == "__main__":
    main()
