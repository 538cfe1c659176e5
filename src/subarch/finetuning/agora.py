"""Agora (arXiv 2010.07990, never released by its authors): fine-tune, and let what goes wrong make the next data.

    while Θ is not empty:
        for θ in Θ: fine-tune a model on 𝒟 with θ, score it on ℰ           1
        take the mistakes that the best of them makes on ℰ                  2
        make new points near the mistakes, by τ                             3
        label the points by the teacher S, append them to 𝒟                 4
        sort Θ by score, take out the sets that are like the worst          5
    return the best model ever seen                                         6

What is known, inferred and ours is told apart in docs/agora.md. Training, teacher and τ are given as functions. What
they return is written down before anything else happens, and what is written down is never done again: the way to
resume is to call again, which runs through the past in no time.

ℰ shapes 𝒟 and chooses the model, so a score on it is no estimate of quality: keep a part that nothing here sees.

    >>> tau = Neighbourhood.load([train, dev, held_out], encoder=model)
    >>> outcome = agora(thetas, train, dev, Path("runs/mine/agora"), fit=partial(fit, model, settings=settings),
    ...                 predicted=labels_of, teacher=teacher, transform=tau)
    >>> outcome.model                            # agora.json, two folders up, tells how it came about
    PosixPath('runs/mine/agora/iteration-2/model-5')
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subarch.errors import InvalidConfig, InvalidTask, TrainingDiverged
from subarch.finetuning import diary
from subarch.finetuning.adequacy import adequate
from subarch.finetuning.config import Theta
from subarch.finetuning.diary import Training, kept
from subarch.finetuning.neighbours import Made, Point
from subarch.finetuning.pruning import PRUNINGS, forecast
from subarch.tasks import Example, Examples, Task
from subarch.tasks.metrics import primary

if TYPE_CHECKING:
    from subarch.finetuning.fit import Fitted

MOST_SETS = 8
"""Of Θ, unless more are asked for: 8 are up to 36 trainings, the published 480 would be up to 115,440."""

WORST = 0.2
"""Share of ℰ that a regression's mistakes are: the rows with the greatest absolute errors."""

SHAPED = "ℰ shaped the training data and chose the model, so a score on it is no estimate of quality; hold a part out"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The best model ever seen (the first of equals), its settings, and the data it was trained on, 𝒟 as it was then;
    all trainings; the record: what agora.json holds."""

    model: Path
    theta: Theta
    data: Examples
    trainings: tuple[Training, ...]
    record: dict[str, Any]

    @property
    def dev_score(self) -> float:
        """Its score on ℰ. Warns, each time, that it is none of its quality."""
        warnings.warn(SHAPED, stacklevel=2)
        return float(self.record["best"]["score"])


def agora(
    thetas: Sequence[Theta],
    train: Examples,
    dev: Examples,
    folder: Path,
    *,
    fit: Callable[[Examples, Examples, Theta, Path], Fitted],
    predicted: Callable[[Task, Any], Sequence[float]],
    teacher: Callable[[Examples], Sequence[float]],
    transform: Callable[[Examples, Examples, int], Made],
    pruning: str = "common",
    about: Mapping[str, Any] | None = None,
    many: bool = False,
    inadequate: bool = False,
) -> Outcome:
    """Run Agora in `folder`, or go on with what was begun there; after its end, return what it came to.

    Args:
        thetas: Θ, each set once; more than MOST_SETS only if `many`.
        train: 𝒟, labelled.
        dev: ℰ, labelled.
        fit: (𝒟, ℰ, θ, folder) -> a trained model; `finetuning.fit` with model and settings given.
        predicted: (task, logits on ℰ) -> predictions; `finetuning.labels_of`.
        teacher: S, examples -> predictions; adequate on ℰ, unless `inadequate` ones are allowed.
        transform: τ, (mistakes, 𝒟 as it has grown, iteration from 1) -> points; depends on nothing else.
        pruning: `common`, the published one, or `halving`.
        about: whatever else decides the result, for JSON (model, teacher, settings of τ): compared on resuming.

    Raises:
        InvalidConfig: Θ that is empty, too large or holds a set twice, or an unknown pruning.
        InvalidTask: no labels, or a teacher that is not adequate.
        InvalidStudy: `folder` was begun with another question, or a file there is damaged.
        TrainingDiverged: not one set could be trained; where that happens in a later iteration, it ends there.
    """
    check(thetas, train, dev, pruning, many)
    question = diary.asked(folder, diary.question(thetas, train, dev, pruning, about or {}))
    objection = adequate(dev, kept(folder / "teacher.json", lambda: _floats(teacher(dev))))
    if objection and not inadequate:
        raise InvalidTask(f"the teacher is not adequate: {objection}; take a better one, or allow it all the same")

    data, left = train, list(range(len(thetas)))
    trainings: list[Training] = []
    learnt: dict[str, Examples] = {}
    iterations: list[dict[str, Any]] = []
    stopped = ""
    while not stopped:
        number = len(iterations) + 1
        place = f"iteration-{number}"
        now = [_trained(fit, predicted, data, dev, thetas[at], at, folder, place) for at in left]  # 1
        ascending = sorted(now, key=lambda training: (training.value, -training.theta))
        failed = ascending[-1].predictions is None
        if failed and not trainings:
            raise TrainingDiverged(f"{folder / place}: none of {len(now)} sets could be trained: {now[0].failure}")
        wrong = mistakes(dev, ascending[-1].predictions or dev.labels or ())  # 2
        trainings += now
        learnt |= dict.fromkeys((training.model for training in now), data)
        iterations.append(diary.told(number, data, now, ascending[-1], wrong))

        if failed:
            stopped = f"no set could be trained any more: {now[0].failure}"
        elif len(left) == 1:
            stopped = "one set was left"
        elif not len(wrong):
            stopped = "the best model makes no mistake on ℰ: there is nothing to make points from"
        else:
            made, seconds = diary.made(folder / place / "points.json", partial(transform, wrong, data, number))  # 3
            points, labels_seconds = _labelled(made.points, data, teacher, folder / place / "labels.json")  # 4
            data = replace(data, rows=(*data.rows, *(point.example for point in points)))
            reasons = PRUNINGS[pruning]([thetas[training.theta].values for training in ascending])  # 5
            gone = {training.theta: reason for training, reason in zip(ascending, reasons, strict=False)}
            left = [at for at in left if at not in gone]
            iterations[-1] |= diary.grown(points, wrong) | {"dropped": made.dropped}
            iterations[-1] |= {"seconds": seconds, "labels_seconds": labels_seconds}
            iterations[-1]["pruned"] = [{"theta": at, "reason": reason} for at, reason in gone.items()]
            stopped = "" if points else "τ made no point: on the same data the same sets would come to the same"

        best = max(trainings, key=lambda training: training.value)  # 6; of equals the first
        record = question | {
            "warning": SHAPED,
            "objection": objection,
            "iterations": iterations,
            "stopped": stopped,
            "best": {"model": best.model, "theta": best.theta, "score": best.score},
            "cost": diary.cost(trainings, iterations),
        }
        diary.write(folder / "agora.json", record)
        diary.delete_models(folder, trainings, best)
    return Outcome(folder / best.model, thetas[best.theta], learnt[best.model], tuple(trainings), record)


def _trained(
    fit: Callable[[Examples, Examples, Theta, Path], Fitted],
    predicted: Callable[[Task, Any], Sequence[float]],
    data: Examples,
    dev: Examples,
    theta: Theta,
    at: int,
    folder: Path,
    place: str,
) -> Training:
    """Step 1 for one θ. One that diverges is the worst, and no reason to give the others up."""
    model = f"{place}/model-{at}"

    def run() -> dict[str, Any]:
        try:
            fitted = fit(data, dev, theta, folder / model)
        except TrainingDiverged as error:
            return asdict(Training(at, model, failure=str(error)))
        score = fitted.dev_scores[primary(dev.task)]
        predictions = _floats(predicted(dev.task, fitted.dev_logits))
        told = fitted.epoch, fitted.history, fitted.steps, fitted.examples_seen, fitted.seconds
        return asdict(Training(at, model, score, fitted.dev_scores, predictions, *told))

    return Training(**kept(folder / place / f"training-{at}.json", run))


def _labelled(
    points: Sequence[Point], data: Examples, teacher: Callable[[Examples], Sequence[float]], path: Path
) -> tuple[list[Point], float]:
    """Step 4, and the seconds it took: what S predicts is the label; of a cloze it is the right answer, too."""
    if not points:
        return [], 0.0
    examples = replace(data, rows=tuple(point.example for point in points))
    labels, seconds = diary.timed(path, lambda: _floats(teacher(examples)))
    return [
        replace(point, example=_with_label(point.example, label, data.task))
        for point, label in zip(points, labels, strict=True)
    ], seconds


def _with_label(example: Example, label: float, task: Task) -> Example:
    if task.head == "regression":
        return replace(example, label=label)
    golds = (example.choices[int(label)],) if task.kind == "cloze" else ()
    return replace(example, label=int(label), golds=golds)


def _floats(predictions: Sequence[float]) -> list[float]:
    return [float(prediction) for prediction in predictions]


def mistakes(dev: Examples, predictions: Sequence[float]) -> Examples:
    """The examples that are predicted wrongly, in their order.

    Classes, of any number, and choices: another than the label; of a cloze, none of the right answers. Regression: the
    share WORST with the greatest absolute errors, rounded up, as far as there is an error.
    """
    pairs = list(zip(dev, predictions, strict=True))
    if dev.task.head == "regression":
        errors = [abs(prediction - float(example.label or 0)) for example, prediction in pairs]
        worst = sorted(range(len(dev)), key=lambda row: -errors[row])[: math.ceil(WORST * len(dev))]
        rows = [dev[row] for row in sorted(worst) if errors[row] > 0]
    else:
        rows = [example for example, prediction in pairs if not _is_right(example, int(prediction))]
    return replace(dev, rows=tuple(rows))


def _is_right(example: Example, prediction: int) -> bool:
    return prediction == example.label or (bool(example.golds) and example.choices[prediction] in example.golds)


def check(thetas: Sequence[Theta], train: Examples, dev: Examples, pruning: str, many: bool) -> None:
    """Refuse what Agora cannot be run on: see there."""
    if not thetas or len(set(thetas)) < len(thetas):
        raise InvalidConfig(f"Θ has {len(thetas)} sets, {len(set(thetas))} different; give at least one, each once")
    if len(thetas) > MOST_SETS and not many:
        raise InvalidConfig(
            f"Θ has {len(thetas)} sets, which are up to {forecast(len(thetas)).most} trainings; "
            f"give {MOST_SETS} at most, or ask for so many (--many-sets)"
        )
    if pruning not in PRUNINGS:
        raise InvalidConfig(f"pruning: {pruning!r} is not known; known are {', '.join(PRUNINGS)}")
    for name, examples in (("train on", train), ("find mistakes in", dev)):
        if not examples.labels:
            raise InvalidTask(f"{examples.source}: Agora needs labelled examples to {name}; {examples.part} has none")
