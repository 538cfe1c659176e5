"""What Agora writes down: each result as soon as it is there, and the record that tells how the data grew.

    question.json                   what was asked; another question in the same folder is refused
    teacher.json                    what the teacher says of ℰ
    iteration-1/training-0.json     scores, predictions on ℰ and cost of one training; model-0/ is the model, while it
                                    is the best ever seen
    iteration-1/points.json         what τ made; labels.json: what the teacher says of it; both with their seconds
    agora.json                      the record: everything but the points (a sample of them) and the predictions

`kept` is all there is to resuming: a result that is written down is read, any other is computed and written. Files
appear whole or not at all.

    >>> kept(Path("runs/mine/agora/teacher.json"), lambda: slow())      # slow() is called once, ever
    [1.0, 0.0]
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from subarch.errors import InvalidStudy
from subarch.finetuning.config import Theta
from subarch.finetuning.neighbours import Made, Point
from subarch.run.files import write_json
from subarch.tasks import Example, Examples
from subarch.tasks.metrics import primary
from subarch.text.read import hash64

SAMPLE = 20
"""Points of an iteration that agora.json shows."""


@dataclass(frozen=True, slots=True)
class Training:
    """One training. `theta` is the position in Θ, `model` the folder below Agora's, `score` the primary metric on ℰ.

    `epoch` is the one that was kept, `history` has loss and scores of each. `failure` says why there is no score and no
    prediction.
    """

    theta: int
    model: str
    score: float | None = None
    scores: dict[str, float] | None = None
    predictions: list[float] | None = None
    epoch: int = 0
    history: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0
    examples_seen: int = 0
    seconds: float = 0.0
    failure: str = ""

    @property
    def value(self) -> float:
        """The score; less than any where there is none."""
        return -math.inf if self.score is None else self.score


def kept(path: Path, compute: Callable[[], Any]) -> Any:
    """What `path` holds; where there is no such file, what `compute` gives, for JSON, written there first.

    Raises:
        InvalidStudy: the file is damaged.
    """
    if not path.is_file():
        write(path, compute())
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidStudy(f"{path}: damaged ({error}); delete it and run again, which makes it anew") from error


def timed(path: Path, compute: Callable[[], Any]) -> tuple[Any, float]:
    """`kept`, and the seconds that `compute` took."""

    def run() -> dict[str, Any]:
        start = time.perf_counter()
        return {"value": compute(), "seconds": time.perf_counter() - start}

    found = kept(path, run)
    return found["value"], found["seconds"]


def write(path: Path, value: Any) -> None:
    """Write JSON atomically, making the folder where it is missing."""
    write_json(path, value, ensure_ascii=False)


def asked(folder: Path, question: dict[str, Any]) -> dict[str, Any]:
    """Write the question down, or compare it with the one that was begun here.

    Raises:
        InvalidStudy: they differ, naming where.
    """
    begun: dict[str, Any] = kept(folder / "question.json", lambda: question)
    ours = json.loads(json.dumps(question))
    if changed := [name for name in ours | begun if ours.get(name) != begun.get(name)]:
        raise InvalidStudy(
            f"{folder}: was begun with another {', '.join(changed)}; go on with it as it was, or choose another folder"
        )
    return begun


def question(
    thetas: Sequence[Theta], train: Examples, dev: Examples, pruning: str, about: Mapping[str, Any]
) -> dict[str, Any]:
    """What decides the result. Examples go in by a hash of all that they hold."""
    return {
        "task": dev.task.name,
        "metric": primary(dev.task),
        "pruning": pruning,
        "thetas": [asdict(theta) for theta in thetas],
        "train": {"rows": len(train), "hash": f"{hash64(repr(train.rows)):016x}"},
        "dev": {"rows": len(dev), "hash": f"{hash64(repr(dev.rows)):016x}"},
        "about": dict(about),
    }


def made(path: Path, compute: Callable[[], Made]) -> tuple[Made, float]:
    """What τ made, and the seconds it took."""
    found, seconds = timed(path, lambda: asdict(compute()))
    return Made(tuple(map(_point, found["points"])), found["dropped"]), seconds


def _point(found: dict[str, Any]) -> Point:
    example = found["example"]
    texts = {name: tuple(example[name]) for name in ("texts", "choices", "golds")}
    return Point(**found | {"example": Example(**example | texts)})


def told(
    number: int, data: Examples, trainings: Sequence[Training], best: Training, mistakes: Examples
) -> dict[str, Any]:
    """An iteration up to its mistakes; predictions and history stay in the files of the trainings."""
    shown = [
        {name: value for name, value in asdict(training).items() if name not in ("predictions", "history")}
        for training in trainings
    ]
    return {
        "number": number,
        "examples": len(data),
        "trainings": shown,
        "best": best.theta,
        "mistakes": len(mistakes),
        "points": 0,
        "pruned": [],
        "sample": [],
    }


def grown(points: Sequence[Point], mistakes: Examples) -> dict[str, Any]:
    """What the labelled points are, counted, and some of them beside their origins, to be read."""
    task, origins = mistakes.task, {example.id: example for example in mistakes}
    names = [task.labels[int(point.example.label or 0)] if task.labels else "" for point in points]
    shown = sorted(points, key=lambda point: hash64(point.example.id))[:SAMPLE]
    return {
        "points": len(points),
        "methods": dict(sorted(Counter(point.method for point in points).items())),
        "labels": dict(sorted(Counter(names).items())) if task.labels else {},
        "sample": [
            {
                "origin": shown_example(origins[point.origin]),
                "point": shown_example(point.example),
                "method": point.method,
                "similarity": point.similarity,
            }
            for point in shown
        ],
    }


def shown_example(example: Example) -> dict[str, Any]:
    """What a reader needs of an example."""
    return {"id": example.id, "texts": list(example.texts), "choices": list(example.choices), "label": example.label}


def cost(trainings: Sequence[Training], iterations: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """In all: trainings, examples seen (forward and backward), points; seconds of training, of τ, of the teacher."""
    return {
        "trainings": len(trainings),
        "points": sum(iteration["points"] for iteration in iterations),
        "examples_seen": sum(training.examples_seen for training in trainings),
        "training_seconds": math.fsum(training.seconds for training in trainings),
        "points_seconds": math.fsum(iteration.get("seconds", 0.0) for iteration in iterations),
        "labels_seconds": math.fsum(iteration.get("labels_seconds", 0.0) for iteration in iterations),
    }


def delete_models(folder: Path, trainings: Sequence[Training], best: Training) -> None:
    """Delete all models but one: a Θ of 8 would leave up to 36."""
    for training in trainings:
        if training is not best:
            shutil.rmtree(folder / training.model, ignore_errors=True)
