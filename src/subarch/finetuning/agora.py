"""Agora (arXiv 2010.07990, never released by its authors): fine-tune, and make the next training data from mistakes.

    while Θ is not empty:
        for θ in Θ: fine-tune a model on 𝒟 with θ, score it on ℰ           1
        take the mistakes that the best of them makes on ℰ                  2
        make new points near the mistakes, by τ                             3
        label the points by the teacher S, append them to 𝒟                 4
        sort Θ by score, remove the sets that are like the worst            5
    return the best model ever seen                                         6

docs/agora.md says what is known, what is inferred and what is our choice. Each result (question.json, teacher.json,
iteration-1/training-0.json, points.json, labels.json) is written before anything else happens and is never computed
again, so the same call resumes an interrupted run. Only the best model so far is kept.

ℰ shapes 𝒟 and chooses the model, so a score on ℰ is no estimate of quality: keep a part that nothing here sees.
"""

from __future__ import annotations

import json
import math
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import TypeAdapter

from subarch.errors import InvalidConfig, InvalidStudy, InvalidTask, TrainingDiverged
from subarch.finetuning.config import Theta
from subarch.finetuning.neighbours import Made, Point
from subarch.models.heads import labels_of
from subarch.run import records
from subarch.run.files import write_json
from subarch.run.record import Number
from subarch.tasks import Example, Examples, Task, balanced_accuracy, statistics
from subarch.tasks.metrics import checked, primary
from subarch.text.read import hash64

if TYPE_CHECKING:
    from subarch.finetuning.fit import Fitted

MOST_SETS = 8
"""Largest Θ without `many`: 8 sets are up to 36 trainings, the published 480 would be up to 115,440."""

WORST = 0.2
"""Mistakes of a regression are this share of ℰ, the examples with the largest absolute errors."""

SAMPLE = 20
"""Points of an iteration that agora.json shows."""

LEAST_BALANCED = 2 / 3
"""Balanced accuracy that a teacher needs with two classes or two choices."""

SHAPED = "ℰ shaped the training data and chose the model, so a score on it is no estimate of quality; hold a part out"


class Training(records.AgoraTraining):
    """One training, with its predictions on ℰ and, per epoch, loss and scores.

    If the training diverged, `failure` says why, and there are no score and no predictions.
    """

    predictions: tuple[float, ...] | None
    history: tuple[dict[str, Number], ...]

    @property
    def value(self) -> float:
        return -math.inf if self.score is None else self.score


@dataclass(frozen=True, slots=True)
class Outcome:
    """The best model ever seen (the first if equal), and the hyperparameters and 𝒟 that it was trained with."""

    model: Path
    theta: Theta
    data: Examples
    trainings: tuple[Training, ...]
    record: records.Agora

    @property
    def dev_score(self) -> float:
        """Its score on ℰ. Warns, each time, that it is no estimate of its quality."""
        warnings.warn(SHAPED, stacklevel=2)
        return self.record.best.score


def agora(
    thetas: Sequence[Theta],
    train: Examples,
    dev: Examples,
    folder: Path,
    *,
    fit: Callable[[Examples, Examples, Theta, Path], Fitted],
    teacher: Callable[[Examples], Sequence[float]],
    transform: Callable[[Examples, Examples, int], Made],
    pruning: str = "common",
    about: Mapping[str, Any] | None = None,
    many: bool = False,
    inadequate: bool = False,
) -> Outcome:
    """Run Agora in `folder`, or continue or return what is there.

    Args:
        thetas: Θ, each set once; more than MOST_SETS only with `many`.
        train, dev: 𝒟 and ℰ, labelled.
        fit: (𝒟, ℰ, θ, folder) -> a trained model; `finetuning.fit.fit` with model and settings given.
        teacher: S, examples -> predictions; must be adequate on ℰ unless `inadequate`.
        transform: τ, (mistakes, 𝒟 as it has grown, iteration from 1) -> points; deterministic in these.
        pruning: a key of PRUNINGS.
        about: whatever else decides the result, as JSON (model, teacher, settings of τ); compared on resuming.

    Raises:
        InvalidConfig: Θ is empty, too large or has duplicates, or the pruning is unknown.
        InvalidTask: missing labels, or a teacher that is not adequate.
        InvalidStudy: `folder` holds another question, or a file there is damaged.
        TrainingDiverged: all trainings of the first iteration diverged. In a later iteration, Agora ends there.
    """
    check(thetas, train, dev, pruning, many)
    question = _asked(folder, thetas, train, dev, pruning, about or {})
    objection = adequate(dev, _kept(folder / "teacher.json", lambda: _floats(teacher(dev))))
    if objection and not inadequate:
        raise InvalidTask(f"the teacher is not adequate: {objection}; use a better one, or allow it all the same")

    data, left = train, list(range(len(thetas)))
    trainings: list[Training] = []
    learnt: dict[str, Examples] = {}
    iterations: list[records.AgoraIteration] = []
    stopped = ""
    while not stopped:
        number = len(iterations) + 1
        place = f"iteration-{number}"
        now = [_trained(fit, data, dev, thetas[at], at, folder, place) for at in left]  # 1
        ascending = sorted(now, key=lambda training: (training.value, -training.theta))
        failed = ascending[-1].predictions is None
        if failed and not trainings:
            raise TrainingDiverged(f"{folder / place}: all {len(now)} trainings diverged: {now[0].failure}")
        wrong = mistakes(dev, ascending[-1].predictions or dev.labels or ())  # 2
        trainings += now
        learnt |= dict.fromkeys((training.model for training in now), data)
        iteration = _iteration(number, data, now, ascending[-1], wrong)

        if failed:
            stopped = f"no set could be trained any more: {now[0].failure}"
        elif len(left) == 1:
            stopped = "one set was left"
        elif not len(wrong):
            stopped = "the best model makes no mistake on ℰ: there is nothing to make points from"
        else:
            made, seconds = _made(folder / place / "points.json", partial(transform, wrong, data, number))  # 3
            points, labels_seconds = _labelled(made.points, data, teacher, folder / place / "labels.json")  # 4
            data = replace(data, rows=(*data.rows, *(point.example for point in points)))
            reasons = PRUNINGS[pruning]([thetas[training.theta].values for training in ascending])  # 5
            gone = {training.theta: reason for training, reason in zip(ascending, reasons, strict=False)}
            left = [at for at in left if at not in gone]
            pruned = tuple(records.AgoraPruned(theta=at, reason=reason) for at, reason in gone.items())
            took = {"dropped": made.dropped, "seconds": seconds, "labels_seconds": labels_seconds}
            iteration = iteration.model_copy(update={**_grown(points, wrong), **took, "pruned": pruned})
            stopped = "" if points else "τ made no point: the same sets on the same data would give the same models"
        iterations.append(iteration)

        best = max(trainings, key=lambda training: training.value)  # 6; the first if equal
        assert best.score is not None
        record = records.Agora(
            **question,
            warning=SHAPED,
            objection=objection,
            iterations=tuple(iterations),
            stopped=stopped,
            best=records.AgoraBest(model=best.model, theta=best.theta, score=best.score),
            cost=_cost(trainings, iterations),
        )
        write_json(folder / "agora.json", record.to_dict(), ensure_ascii=False)
        for training in trainings:  # a Θ of 8 would leave up to 36 models
            if training is not best:
                shutil.rmtree(folder / training.model, ignore_errors=True)
    return Outcome(folder / best.model, thetas[best.theta], learnt[best.model], tuple(trainings), record)


def _trained(
    fit: Callable[[Examples, Examples, Theta, Path], Fitted],
    data: Examples,
    dev: Examples,
    theta: Theta,
    at: int,
    folder: Path,
    place: str,
) -> Training:
    """Step 1 for one θ. A training that diverges counts as the worst and does not stop the others."""
    model = f"{place}/model-{at}"

    def run() -> Any:
        failure = ""
        try:
            fitted = fit(data, dev, theta, folder / model)
        except TrainingDiverged as error:
            fitted, failure = None, str(error)
        return Training(
            theta=at,
            model=model,
            score=fitted.dev_scores[primary(dev.task)] if fitted else None,
            scores=fitted.dev_scores if fitted else None,
            **{name: getattr(fitted, name, 0) for name in ("epoch", "steps", "examples_seen", "seconds")},
            failure=failure,
            predictions=tuple(_floats(labels_of(dev.task, fitted.dev_logits))) if fitted else None,
            history=tuple(fitted.history) if fitted else (),
        ).model_dump(mode="json")

    return Training.model_validate(_kept(folder / place / f"training-{at}.json", run))


def _labelled(
    points: Sequence[Point], data: Examples, teacher: Callable[[Examples], Sequence[float]], path: Path
) -> tuple[list[Point], float]:
    """Step 4, and its duration: the prediction of S is the label; of a cloze it is also the only right answer."""
    if not points:
        return [], 0.0
    examples = replace(data, rows=tuple(point.example for point in points))
    labels, seconds = _timed(path, lambda: _floats(teacher(examples)))
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

    Classes and choices: another prediction than the label; of a cloze, none of the right answers. Regression: the share
    WORST (rounded up) with the largest absolute errors, without those that have no error.
    """
    pairs = list(zip(dev, predictions, strict=True))
    if dev.task.head == "regression":
        errors = [abs(prediction - float(example.label or 0)) for example, prediction in pairs]
        worst = sorted(range(len(dev)), key=lambda row: -errors[row])[: math.ceil(WORST * len(dev))]
        rows = [dev[row] for row in sorted(worst) if errors[row] > 0]
    else:
        rows = [
            example
            for example, prediction in pairs
            if prediction != example.label and not (example.golds and example.choices[int(prediction)] in example.golds)
        ]
    return replace(dev, rows=tuple(rows))


def check(thetas: Sequence[Theta], train: Examples, dev: Examples, pruning: str, many: bool) -> None:
    """Refuse arguments that `agora` cannot run with."""
    if not thetas or len(set(thetas)) < len(thetas):
        raise InvalidConfig(f"Θ has {len(thetas)} sets, {len(set(thetas))} of them different; give each set once")
    if len(thetas) > MOST_SETS and not many:
        raise InvalidConfig(
            f"Θ has {len(thetas)} sets, which take up to {forecast(len(thetas)).most} trainings; "
            f"give at most {MOST_SETS}, or allow more with --many-sets"
        )
    if pruning not in PRUNINGS:
        raise InvalidConfig(f"pruning: {pruning!r} is unknown; choose one of {', '.join(PRUNINGS)}")
    if train.task.head == "tagging":
        raise InvalidTask(
            f"{train.task.name}: Agora makes texts with one label each, and a sentence to tag has one for each word; "
            "fine-tune without agora: with a teacher alone, its outputs for the training sentences are learnt as well"
        )
    for name, examples in (("train on", train), ("find mistakes in", dev)):
        if not examples.labels:
            raise InvalidTask(f"{examples.source}: Agora needs labelled examples to {name}; {examples.part} has none")


def adequate(examples: Examples, predictions: Sequence[float]) -> str | None:
    """Why a teacher with these predictions of labelled examples is not good enough to learn from; None if it is.

    The paper asks for an accuracy above 2/3 on a balanced binary task. On unbalanced data the majority class may reach
    that, so we take balanced accuracy, over classes or over positions of two choices. In addition, for every
    task: an accuracy above that of the most frequent class or position, for a regression a squared error below that of
    the mean.

    Raises:
        InvalidTask: as `tasks.score`.
    """
    predicted, known = checked(examples, predictions), statistics(examples)
    where = f"on {len(examples)} examples of {examples.task.name}, {examples.part},"
    if examples.task.head == "regression":
        assert examples.labels is not None
        error, variance = float(np.mean((predicted - np.asarray(examples.labels)) ** 2)), known["deviation"] ** 2
        if error >= variance:
            return f"its squared error {where} is {error:.3g}; always predicting the mean gives {variance:.3g}"
        return None
    two = len(examples.task.labels) == 2 or all(len(example.choices) == 2 for example in examples)
    balanced = balanced_accuracy(examples, predictions)
    if two and balanced < LEAST_BALANCED:
        return f"its balanced accuracy {where} is {balanced:.3f}; a teacher needs {LEAST_BALANCED:.3f}"
    accuracy, share = float(np.mean(predicted == np.asarray(examples.labels))), known["majority_share"]
    if accuracy <= share:
        return f"its accuracy {where} is {accuracy:.3f}; always predicting {known['majority']!r} gives {share:.3f}"
    return None


# Files


def _kept(path: Path, compute: Callable[[], Any]) -> Any:
    """The JSON in `path`; if there is no such file, compute it and write it first."""
    if not path.is_file():
        write_json(path, compute(), ensure_ascii=False)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidStudy(f"{path}: damaged ({error}); delete it and run again") from error


def _timed(path: Path, compute: Callable[[], Any]) -> tuple[Any, float]:
    """`_kept`, and the seconds that `compute` took."""

    def run() -> dict[str, Any]:
        start = time.perf_counter()
        return {"value": compute(), "seconds": time.perf_counter() - start}

    found = _kept(path, run)
    return found["value"], found["seconds"]


def _made(path: Path, transform: Callable[[], Made]) -> tuple[Made, float]:
    """The points of an iteration, and how long they took."""
    found, seconds = _timed(path, lambda: asdict(transform()))
    return TypeAdapter(Made).validate_python(found), seconds


def _asked(
    folder: Path, thetas: Sequence[Theta], train: Examples, dev: Examples, pruning: str, about: Mapping[str, Any]
) -> dict[str, Any]:
    """Everything that decides the result, written down; refused if the folder was begun with something else."""

    def identified(examples: Examples) -> records.AgoraExamples:
        return records.AgoraExamples(rows=len(examples), hash=f"{hash64(repr(examples.rows)):016x}")

    question = {
        "task": dev.task.name,
        "metric": primary(dev.task),
        "pruning": pruning,
        "thetas": tuple(records.AgoraTheta(**asdict(theta)) for theta in thetas),
        "train": identified(train),
        "dev": identified(dev),
        "about": dict(about),
    }
    plain = json.loads(json.dumps(question, default=lambda row: row.model_dump(mode="json")))
    begun = _kept(folder / "question.json", lambda: plain)
    if changed := [name for name in plain | begun if plain.get(name) != begun.get(name)]:
        raise InvalidStudy(
            f"{folder}: was begun with another {', '.join(changed)}; continue with the same, or choose another folder"
        )
    return question


def _iteration(
    number: int, data: Examples, trainings: Sequence[Training], best: Training, wrong: Examples
) -> records.AgoraIteration:
    """An iteration before points are made; predictions and histories stay in the files of the trainings."""
    names = records.AgoraTraining.model_fields
    return records.AgoraIteration(
        number=number,
        examples=len(data),
        trainings=tuple(records.AgoraTraining(**{name: getattr(one, name) for name in names}) for one in trainings),
        best=best.theta,
        mistakes=len(wrong),
        points=0,
        pruned=(),
        sample=(),
    )


def _grown(points: Sequence[Point], wrong: Examples) -> dict[str, Any]:
    """Of an iteration: counts of its labelled points, and a sample of them beside their origins."""

    def shown(example: Example) -> records.AgoraExample:
        return records.AgoraExample(id=example.id, texts=example.texts, choices=example.choices, label=example.label)

    task, origins = wrong.task, {example.id: example for example in wrong}
    names = [task.labels[int(point.example.label or 0)] if task.labels else "" for point in points]
    sample = sorted(points, key=lambda point: hash64(point.example.id))[:SAMPLE]
    return {
        "points": len(points),
        "methods": dict(sorted(Counter(point.method for point in points).items())),
        "labels": dict(sorted(Counter(names).items())) if task.labels else {},
        "sample": tuple(
            records.AgoraPoint(
                origin=shown(origins[one.origin]),
                point=shown(one.example),
                method=one.method,
                similarity=one.similarity,
            )
            for one in sample
        ),
    }


def _cost(trainings: Sequence[Training], iterations: Sequence[records.AgoraIteration]) -> records.AgoraCost:
    """Totals of all iterations; examples seen are counted forward and backward."""
    return records.AgoraCost(
        trainings=len(trainings),
        points=sum(iteration.points for iteration in iterations),
        examples_seen=sum(training.examples_seen for training in trainings),
        training_seconds=math.fsum(training.seconds for training in trainings),
        points_seconds=math.fsum(iteration.seconds or 0.0 for iteration in iterations),
        labels_seconds=math.fsum(iteration.labels_seconds or 0.0 for iteration in iterations),
    )


# Pruning of Θ

Values = tuple[float, ...]


def common(ascending: Sequence[Values]) -> list[str]:
    """Reasons for the first sets to go: the worst, and the next ones that have most in common with it.

    The published rule, "the longest common sequence rooted at the first element" of Θ sorted by accuracy; its details
    are inferred. The order is ascending, so the first set is the worst. ℓ is the largest length of a longest common
    subsequence of the worst with any other set but the best. The worst goes, and after it each next set as long as what
    it has in common with the worst has length ℓ. If no other set shares a value with the worst, all but the best go.

        >>> common([(1e-4, 0, .35, 8), (1e-4, 10, .35, 8), (1e-4, 10, .45, 16), (1e-5, 10, .45, 8)])
        ['the worst', 'has 3 values in common with the worst, as many as any']
    """
    worst, others = ascending[0], ascending[1:-1]
    shared = [longest_common(worst, other) for other in others]
    reasons = ["the worst"]
    for length in shared:
        if length < max(shared):
            break
        reasons.append(f"has {length} values in common with the worst, as many as any")
    return reasons


def halving(ascending: Sequence[Values]) -> list[str]:
    """Reasons for the worse half to go; of an odd number the middle one stays (Jamieson and Talwalkar, 1502.07943)."""
    return ["of the worse half"] * (len(ascending) // 2)


def longest_common(one: Values, other: Values) -> int:
    """Length of the longest common subsequence: values that both have, in the same order, not necessarily adjacent."""
    lengths = [0] * (len(other) + 1)
    for value in one:
        before = lengths[:]
        for at, theirs in enumerate(other, 1):
            lengths[at] = before[at - 1] + 1 if value == theirs else max(before[at], lengths[at - 1])
    return lengths[-1]


PRUNINGS: dict[str, Callable[[Sequence[Values]], list[str]]] = {"common": common, "halving": halving}
"""Each gets two or more sets, ascending by score, and gives a reason for each of the first ones that goes: at least
one, and never the last, which is the best."""


def forecast(
    sets: int,
    pruning: str = "common",
    *,
    repeats: int = 0,
    examples: int = 0,
    epochs: int = 1,
    growth: int = 0,
    seconds: float | None = None,
) -> records.AgoraForecast:
    """How many trainings so many sets take, at least (ℰ has no mistakes) and at most, and the hours of each.

    Args:
        repeats: trainings of the best set with other seeds afterwards, on 𝒟 as it is then.
        examples: of 𝒟 at the start.
        epochs: of a training, at most.
        growth: points that an iteration may add (mistakes on ℰ times points for each).
        seconds: for one example, forward and backward; None: unknown, then there are no hours.

    >>> worded(forecast(8, examples=8_000, epochs=10, growth=400, seconds=0.01))
    '8 to 36 trainings, 1.8 to 8.9 hours if no training stops early'
    """
    left = [sets]
    while left[-1] > 1:
        left.append(left[-1] - len(halving([()] * left[-1])) if pruning == "halving" else left[-1] - 1)
    # the repeats come after the only iteration, or after the last of all
    least = (sets + repeats) * examples
    most = sum(number * (examples + at * growth) for at, number in enumerate(left))
    most += repeats * (examples + (len(left) - 1) * growth)
    hours = None if seconds is None else (least * epochs * seconds / 3600, most * epochs * seconds / 3600)
    return records.AgoraForecast(fewest=sets + repeats, most=sum(left) + repeats, hours=hours)


def worded(expected: records.AgoraForecast) -> str:
    number = f"{expected.fewest}" if expected.fewest == expected.most else f"{expected.fewest} to {expected.most}"
    text = f"{number} training{'s' * (expected.most > 1)}"
    if expected.hours is None:
        return text
    hours = " to ".join(dict.fromkeys(f"{hours:.2g}" for hours in expected.hours))
    return f"{text}, {hours} hours if no training stops early"
