"""Evaluate fine-tuned models on a part of a task: scores with intervals, confusion matrix, the most confident mistakes.

    subarch evaluate runs/mine/finetuned/rte --part held-out             # task, data and division of its fine-tuning
    subarch evaluate MODEL --task mnli-mm --data glue_data               # the part validation
    subarch evaluate MODEL-SEED-0 MODEL-SEED-1 --task rte --data glue_data --against OTHER-0 --against OTHER-1
    subarch evaluate MODEL --task rte --data glue_data --part test --submission glue.zip

Several models are the seeds of one fine-tuning: scores are means over them, single examples are shown for the first,
whose folder gets report.json, report.html and predictions-TASK-PART.jsonl. `assess` computes an evaluation from
outputs, `leave` writes it; fine-tuning uses both for its held-out part.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from subarch.errors import InvalidConfig, InvalidTask
from subarch.evaluation.resampling import compare, intervals
from subarch.models.heads import Logits, labels_of, predict
from subarch.run import Report, silent
from subarch.run.folder import RunFolder
from subarch.run.inputs import StageInputs
from subarch.run.machine import machine, versions
from subarch.run.records import (
    Agora,
    Confusion,
    Evaluation,
    Evaluations,
    ExampleStatistics,
    Machine,
    Metrics,
    Mistake,
    Mistakes,
    PredictedStatistics,
    TypeScores,
)
from subarch.show.finetuning import FineTuned
from subarch.show.page import RunData, render
from subarch.tasks import Example, Examples, Task, overlaps, read, score, statistics, write_submission
from subarch.tasks.division import Parts, TaskData, parts_of, task_of
from subarch.tasks.metrics import primary
from subarch.tasks.tagging import by_sentence, spans

DIVIDED = {"dev": "dev", "held-out": "heldout"}
"""Parts that only exist after the data was divided, see `tasks.division`."""

MISTAKES = 50
"""At most this many mistakes are recorded, the worst first."""


def evaluate(
    models: Sequence[Path],
    given: Mapping[str, Any],
    part: str,
    *,
    against: Sequence[Path] = (),
    submission: Path | None = None,
    command: str = "",
    report: Report = silent,
) -> Evaluation:
    """Predict a part with models of one fine-tuning (one per seed), score it if it has labels, and write the report.

    Args:
        given: keys of `TaskData`, and `max_length`; without `task`, the other keys are those of the fine-tuning.
        part: of the task; `dev` or `held-out`: as fine-tuning divides the data.
        submission: archive to write for the benchmark's server, from the predictions of the first model.

    Raises:
        InvalidConfig: task or data are missing or wrong.
        InvalidTask: data that is missing or malformed, or that cannot be compared or submitted.
        InvalidTeacher: a model cannot be loaded, or is not fine-tuned for this kind of task.
        InvalidStudy: the first model's folder holds a damaged report.json, or cannot be written.
    """
    trained = data_of(models[0])
    if "task" not in given and trained is None:
        raise InvalidConfig(f"{models[0]}: has no record of its fine-tuning; give --task and --data")
    source = TaskData.of(given if "task" in given or trained is None else {**trained.model_dump(mode="json"), **given})
    examples = getattr(parts_of(source), DIVIDED[part]) if part in DIVIDED else read(task_of(source), source.data, part)
    _check(models, against, examples)
    run = partial(predict, examples=examples, max_length=given.get("max_length"), report=report)
    ours = [run(model) for model in models]
    found = assess(examples, ours, [run(model) for model in against])
    try:
        warned = cautions(parts_of(trained), examples) if trained else []
    except InvalidTask as error:
        warned = [f"whether the model was trained on these examples is unknown: {error}"]
    names = {"models": tuple(map(str, models)), "against": tuple(map(str, against))}
    found = found.model_copy(update={**names, "warnings": (*warned, *found.warnings)})
    found = leave(models[0], examples, ours[0], found, command)
    if submission:
        write_submission(submission, [(examples, labels_of(examples.task, ours[0]))])
    return found


def _check(models: Sequence[Path], against: Sequence[Path], examples: Examples) -> None:
    task, part = examples.task, examples.part
    if not len(examples):
        raise InvalidTask(f"{examples.source}: part {part} of {task.name} is empty")
    if against and len(against) != len(models):
        raise InvalidTask(f"{len(models)} models against {len(against)}; give as many of both, one per seed")
    if against and examples.labels is None:
        raise InvalidTask(f"{examples.source}: part {part} of {task.name} has no labels to compare by")
    _evaluations(models[0])


def data_of(model: Path) -> TaskData | None:
    """The data that a model was fine-tuned with; None if its folder has no record of that."""
    if RunFolder(model).has(Metrics):
        return TaskData.of(RunFolder(model).read(Metrics).config)
    if RunFolder(model.parent).has(StageInputs):  # one of the fits
        return TaskData.of(RunFolder(model.parent).read(StageInputs).config)
    return None


def cautions(parts: Parts, examples: Examples) -> list[str]:
    """Warnings about examples that are also in the training part or in dev, which chose the model."""
    advice = "" if examples.part == parts.heldout.part else "; evaluate the part held-out instead"
    found = []
    for part, where in ((parts.train, "the training data"), (parts.dev, "the dev part, which chose the model")):
        found += [
            f"{one.rows:,} of {one.of:,} examples are also in {where}: the score overestimates the quality on new "
            f"data{advice}"
            for one in overlaps([part, examples])
        ]
    return found


def assess(examples: Examples, ours: Sequence[Logits], theirs: Sequence[Logits] = ()) -> Evaluation:
    """Evaluate (N, C) outputs of models (one per seed), against `theirs`; without labels only count predictions."""
    task = examples.task
    rows = np.asarray([labels_of(task, logits) for logits in ours])
    scores = comparison = confused = by_type = missed = None
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if examples.labels is not None:
            scores = intervals(examples, rows)
            confused = confusion(examples, rows[0])
            by_type = type_scores(examples, rows[0]) if task.head == "tagging" else None
            missed = (mistagged if task.head == "tagging" else mistakes)(examples, rows[0], ours[0])
            if theirs:
                others = np.asarray([labels_of(task, logits) for logits in theirs])
                comparison = compare(examples, rows, others)
    return Evaluation(
        task=task.name,
        part=examples.part,
        source=examples.source,
        head=task.head,
        primary=primary(task),
        statistics=ExampleStatistics(**statistics(examples)),
        predicted=_counts(task, rows[0]),
        scores=scores,
        comparison=comparison,
        confusion=confused,
        types=by_type,
        mistakes=missed,
        warnings=(*_unseen(examples, ours[0]), *dict.fromkeys(str(warning.message) for warning in said)),
    )


def _unseen(examples: Examples, logits: Logits) -> list[str]:
    """A warning of words that a tagger does not see."""
    if examples.task.head != "tagging":
        return []
    is_unseen = np.asarray(np.isneginf(logits).any(axis=1))
    ends = np.cumsum([len(example.texts) for example in examples])
    sentences = np.unique(np.searchsorted(ends, np.flatnonzero(is_unseen), side="right"))
    told = f"{is_unseen.sum():,} of {len(is_unseen):,} words, in {len(sentences):,} of {len(examples):,} sentences"
    why = "beyond the greatest length, or nothing to the tokenizer; they are taken for O"
    return [f"{told}, are not seen by the model ({why})"] if len(sentences) else []


def confusion(examples: Examples, predictions: Sequence[float]) -> Confusion | None:
    """Counts by label (rows) and prediction (columns), of words where these are tagged; None without classes."""
    from sklearn.metrics import confusion_matrix

    task = examples.task
    if task.head not in ("classification", "tagging"):
        return None
    counts = confusion_matrix(examples.labels, predictions, labels=range(len(task.labels)))
    return Confusion(labels=task.labels, counts=counts.tolist())


def mistakes(examples: Examples, predictions: Sequence[float], logits: Logits) -> Mistakes:
    """The wrong predictions with the highest confidence; for a regression those with the largest error."""
    task, sure = examples.task, confidences(examples.task, logits)
    if sure is None:
        missed = np.abs(np.asarray(predictions) - np.asarray(examples.labels, dtype=float))
    else:
        right = [is_right(examples[n : n + 1], value) for n, value in enumerate(predictions)]
        missed = np.where(right, 0.0, sure)
    # the order of the data among equals
    order = [int(row) for row in np.argsort(-missed, kind="stable") if missed[row] > 0]
    shown = []
    for row in order[:MISTAKES]:
        example = examples[row]
        assert example.label is not None  # either all examples of a part are labelled or none
        label, prediction = (worded(example, task, value) for value in (example.label, predictions[row]))
        confidence = sure[row] if sure else None
        shown.append(
            Mistake(id=example.id, texts=example.texts, label=label, prediction=prediction, confidence=confidence)
        )
    return Mistakes(count=len(order), rows=len(examples), shown=tuple(shown))


def type_scores(examples: Examples, predictions: Sequence[float]) -> tuple[TypeScores, ...]:
    """The scores of each type of span, by seqeval, sorted by type."""
    from seqeval.metrics import classification_report

    truth, said = [list(example.golds) for example in examples], by_sentence(examples, predictions)
    if not any(map(spans, (*truth, *said))):
        return ()
    report = classification_report(truth, said, output_dict=True, zero_division=0)
    return tuple(
        TypeScores(
            type=name,
            f1=float(one["f1-score"]),
            precision=float(one["precision"]),
            recall=float(one["recall"]),
            spans=int(one["support"]),
        )
        for name, one in report.items()
        if not name.endswith(" avg")
    )


def mistagged(examples: Examples, predictions: Sequence[float], logits: Logits) -> Mistakes:
    """The sentences whose spans are not exactly right, first those with the greatest confidence in a wrong tag."""
    task, truth = examples.task, [example.golds for example in examples]
    said, sure = by_sentence(examples, predictions), iter(confidences(task, logits) or ())
    found = []
    for example, right, tags in zip(examples, truth, said, strict=True):
        wrong = [chance for tag, other, chance in zip(right, tags, sure, strict=False) if tag != other]
        if spans(right) != spans(tags):
            found.append((max(wrong), example, right, tags))
    found.sort(key=lambda one: -one[0])
    shown = [
        Mistake(
            id=example.id,
            texts=(" ".join(example.texts),),
            label=marked(example.texts, right),
            prediction=marked(example.texts, tags),
            confidence=confidence,
        )
        for confidence, example, right, tags in found[:MISTAKES]
    ]
    return Mistakes(count=len(found), rows=len(examples), shown=tuple(shown))


def marked(words: Sequence[str], tags: Sequence[str]) -> str:
    """The spans of a sentence for readers, in their order: `person: Ann Lee; location: Rome`."""
    found = sorted(spans(tags), key=lambda span: span[1])
    return "; ".join(f"{kind}: {' '.join(words[first : last + 1])}" for kind, first, last in found) or "no span"


def is_right(one: Examples, prediction: float) -> bool:
    """Whether the prediction for one example is right; for a cloze, whether its text is one of the answers."""
    if one.task.cast == "record":
        return score(one, [prediction])["em"] == 1
    return one[0].label == prediction


def confidences(task: Task, logits: Logits) -> list[float] | None:
    """The probability (softmax) of each prediction; None for a regression."""
    if task.head == "regression":
        return None
    found: list[float] = softmax(np.asarray(logits, np.float64), axis=1).max(1).tolist()
    return found


def worded(example: Example, task: Task, value: float) -> str | float:
    """A label or prediction for readers: the name of a class, the text of a choice, the number of a regression."""
    if task.head == "regression":
        return float(value)
    return example.choices[int(value)] if task.head == "choice" else task.labels[int(value)]


def _counts(task: Task, predictions: NDArray[Any]) -> PredictedStatistics:
    if task.head == "regression":
        return PredictedStatistics(mean=float(predictions.mean()), deviation=float(predictions.std()))
    values, counts = np.unique(predictions.astype(int), return_counts=True)
    names = [task.labels[value] if task.labels else str(value) for value in values]
    return PredictedStatistics(counts=dict(zip(names, counts.tolist(), strict=True)))


def leave(folder: Path, examples: Examples, logits: Logits, found: Evaluation, command: str = "") -> Evaluation:
    """Write an evaluation, the predictions of the first model, and the page about everything evaluated in its folder.

    An earlier evaluation of the same task and part is replaced. Returns what was written.
    """
    task, part, run = examples.task, examples.part, RunFolder(folder)
    here = Machine.model_validate(machine())
    found = found.model_copy(update={"command": command, "versions": versions(), "machine": here})
    others = [one for one in _evaluations(folder) if (one.task, one.part) != (task.name, part)]
    sure = confidences(task, logits)
    values: list[Any] = labels_of(task, logits)
    if task.head == "tagging":
        said, chances = by_sentence(examples, values), iter(sure or ())
        told = [{"prediction": tags, "confidence": [next(chances) for _ in tags]} for tags in said]
    else:
        told = [
            {"prediction": worded(example, task, value), "confidence": sure[row] if sure else None}
            for row, (example, value) in enumerate(zip(examples, values, strict=True))
        ]
    lines = [json.dumps({"id": example.id} | one) + "\n" for example, one in zip(examples, told, strict=True)]
    run.write_text(f"predictions-{task.name}-{part}.jsonl", "".join(lines))
    run.write(Evaluations(version=1, evaluations=(*others, found)))
    items = gathered([folder])
    shown = "\n".join(commands(items))
    page = RunData(name=folder.name, command=shown, machine=here, versions=versions(), finetuning=items)
    run.write_text("report.html", render(page))
    return found


def _evaluations(folder: Path) -> tuple[Evaluation, ...]:
    run = RunFolder(folder)
    return run.read(Evaluations).evaluations if run.has(Evaluations) else ()


def gathered(folders: Sequence[Path]) -> list[FineTuned]:
    """What the report shows of fine-tuned folders: their evaluations, and how Agora made the data grow if it did."""
    return [
        FineTuned(
            name=folder.path.name,
            evaluations=folder.read(Evaluations).evaluations,
            agora=folder.read(Agora) if folder.has(Agora) else None,
        )
        for folder in map(RunFolder, folders)
        if folder.has(Evaluations)
    ]


def commands(items: list[FineTuned]) -> list[str]:
    return list(dict.fromkeys(one.command for item in items for one in item.evaluations if one.command))
