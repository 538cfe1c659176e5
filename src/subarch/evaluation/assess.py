"""What a fine-tuned model is worth: scores with intervals, what it takes for what, and where it is surest and wrong.

`assess` is pure; `appraise` predicts, assesses and leaves beside the model:

    report.json                        per task and part: scores, comparison, confusion matrix, worst mistakes
    predictions-TASK-PART.jsonl        a line per example: id, prediction, confidence
    report.html                        the page about it

Several models are those of one fine-tuning by several seeds: scores are means over them with their spread; what is
shown of single examples is the first one's. Whoever predicts is handed in, so that nothing here loads torch.

    >>> found, predictions = appraise([folder], read("rte", data, "validation"), predict, labels_of)
    >>> found["scores"]["metrics"]["accuracy"]
    {'value': 0.61, 'low': 0.55, 'high': 0.67, 'seeds': [0.61], 'deviation': None}
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subarch.errors import InvalidTask
from subarch.evaluation.resampling import compare, intervals
from subarch.run.folder import RunFolder
from subarch.run.machine import machine, versions
from subarch.show import RunData, render
from subarch.tasks import Example, Examples, Task, score, statistics
from subarch.tasks.metrics import primary

Logits = NDArray[np.float32]
"""(N, C): a column per class or choice, -inf where an example has fewer choices; (N, 1) of a regression."""
Predict = Callable[[Path, Examples], Logits]
Decide = Callable[[Task, Logits], list[float]]

MISTAKES = 50
"""So many are kept, the worst first."""


def appraise(
    models: Sequence[Path],
    examples: Examples,
    predict: Predict,
    decide: Decide,
    *,
    against: Sequence[Path] = (),
    command: str = "",
    cautions: Sequence[str] = (),
) -> tuple[dict[str, Any], list[float]]:
    """Predict by models of one fine-tuning, one per seed; what it came to, and the predictions of the first.

    Everything is left in the folder of the first, see `leave`.

    Args:
        against: as many models to compare with.
        command: that the page shows, to do it again.
        cautions: what else a reader of the scores must know; they head the warnings.

    Raises:
        InvalidTask: no examples, not as many models to compare with, or no labels to compare by.
        InvalidTeacher: a model that cannot be loaded.
        InvalidStudy: the folder holds a damaged report.json, or cannot be written in.
    """
    task, part = examples.task, examples.part
    if not len(examples):
        raise InvalidTask(f"{task.name}, {part}: there is no example to predict")
    if against and len(against) != len(models):
        raise InvalidTask(f"{len(models)} of one model against {len(against)}; compare as many of both, one per seed")
    if against and examples.labels is None:
        raise InvalidTask(f"{examples.source}: {task.name}, {part}, has no labels: there is nothing to compare")
    _evaluations(models[0])
    ours = [predict(model, examples) for model in models]
    found = assess(examples, ours, decide, [predict(model, examples) for model in against])
    found |= {"models": [str(model) for model in models], "against": [str(model) for model in against]}
    found["warnings"] = [*cautions, *found["warnings"]]
    leave(models[0], examples, ours[0], decide, found, command)
    return found, decide(task, ours[0])


def leave(
    folder: Path, examples: Examples, logits: Logits, decide: Decide, found: dict[str, Any], command: str = ""
) -> None:
    """Write an assessment and what was predicted into a model's folder, and the page about all that was found there.

    What other tasks and parts came to is kept, the same again is replaced.
    """
    task, part, run = examples.task, examples.part, RunFolder(folder)
    found |= {"command": command, "versions": versions(), "machine": machine()}
    others = [one for one in _evaluations(folder) if (one["task"], one["part"]) != (task.name, part)]
    sure = confidences(task, logits)
    lines = []
    for row, (example, value) in enumerate(zip(examples, decide(task, logits), strict=True)):
        line = {"id": example.id, "prediction": worded(example, task, value), "confidence": sure[row] if sure else None}
        lines.append(json.dumps(line) + "\n")
    run.write_text(f"predictions-{task.name}-{part}.jsonl", "".join(lines))
    run.write("report", {"version": 1, "evaluations": [*others, found]})
    items = gathered([folder])
    page = RunData(
        name=folder.name,
        command="\n".join(commands(items)),
        config={},
        environment={name: found[name] for name in ("versions", "machine")},
        comparison=None,
        pretraining=None,
        finetuning=items,
    )
    run.write_text("report.html", render(page))


def _evaluations(folder: Path) -> list[dict[str, Any]]:
    run = RunFolder(folder)
    found: list[dict[str, Any]] = run.read("report")["evaluations"] if run.has("report") else []
    return found


def gathered(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """What the report shows of fine-tuned folders: their evaluations, and how Agora made the data grow if it did."""
    found = []
    for folder in map(RunFolder, folders):
        if folder.has("report"):
            agora = folder.read("agora") if folder.has("agora") else None
            found.append({"name": folder.path.name, "agora": agora} | folder.read("report"))
    return found


def commands(items: list[dict[str, Any]]) -> list[str]:
    """What was run to evaluate, each once."""
    return list(dict.fromkeys(one["command"] for item in items for one in item["evaluations"] if one["command"]))


def assess(
    examples: Examples, ours: Sequence[Logits], decide: Decide, theirs: Sequence[Logits] = (), seed: int = 0
) -> dict[str, Any]:
    """What the outputs of models (one per seed) come to, in plain data; without labels only what was predicted.

    Raises:
        InvalidTask: no examples, outputs of another number, or not as many of `theirs`.
    """
    task = examples.task
    rows = np.asarray([decide(task, logits) for logits in ours])
    found: dict[str, Any] = {
        "task": task.name,
        "part": examples.part,
        "source": examples.source,
        "head": task.head,
        "primary": primary(task),
        "statistics": statistics(examples),
        "predicted": _counts(task, rows[0]),
    }
    found |= {"scores": None, "comparison": None, "confusion": None, "mistakes": None}
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        if examples.labels is not None:
            found["scores"] = intervals(examples, rows, seed=seed)
            found["confusion"] = confusion(examples, rows[0])
            found["mistakes"] = mistakes(examples, rows[0], ours[0])
            if theirs:
                others = np.asarray([decide(task, logits) for logits in theirs])
                found["comparison"] = compare(examples, rows, others, seed=seed)
    return found | {"warnings": list(dict.fromkeys(str(warning.message) for warning in said))}


def confusion(examples: Examples, predictions: Sequence[float]) -> dict[str, Any] | None:
    """How many of each class (rows) were taken for each (columns); None where there are no classes in common."""
    from sklearn.metrics import confusion_matrix

    task = examples.task
    if task.head != "classification":
        return None
    counts = confusion_matrix(examples.labels, predictions, labels=range(len(task.labels)))
    return {"labels": list(task.labels), "counts": counts.tolist()}


def mistakes(examples: Examples, predictions: Sequence[float], logits: Logits) -> dict[str, Any]:
    """The examples that were wrong with the greatest confidence; of a regression the farthest off."""
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
        assert example.label is not None  # a part is labelled throughout or not at all
        shown.append(
            {
                "id": example.id,
                "texts": list(example.texts),
                "label": worded(example, task, example.label),
                "prediction": worded(example, task, predictions[row]),
                "confidence": sure[row] if sure else None,
            }
        )
    return {"count": len(order), "rows": len(examples), "shown": shown}


def is_right(one: Examples, prediction: float) -> bool:
    """Whether the prediction for one example is right; of a cloze, whether its text is one of the answers."""
    if one.task.cast == "record":
        return score(one, [prediction])["em"] == 1
    return one[0].label == prediction


def confidences(task: Task, logits: Logits) -> list[float] | None:
    """The probability that each prediction was given (softmax); a regression gives none."""
    if task.head == "regression":
        return None
    from scipy.special import softmax

    found: list[float] = softmax(np.asarray(logits, np.float64), axis=1).max(1).tolist()
    return found


def worded(example: Example, task: Task, value: float) -> str | float:
    """A label or prediction as it is read: the name of a class, the text of a choice, the number of a regression."""
    if task.head == "regression":
        return float(value)
    return example.choices[int(value)] if task.head == "choice" else task.labels[int(value)]


def _counts(task: Task, predictions: NDArray[Any]) -> dict[str, Any]:
    """What was predicted how often, or for a regression mean and deviation: all one class is a model that failed."""
    if task.head == "regression":
        return {"mean": float(predictions.mean()), "deviation": float(predictions.std())}
    values, counts = np.unique(predictions.astype(int), return_counts=True)
    names = [task.labels[value] if task.labels else str(value) for value in values]
    return {"counts": dict(zip(names, counts.tolist(), strict=True))}
