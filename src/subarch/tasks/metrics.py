"""Official scores of a task's predictions, from scikit-learn and SciPy, and the archives for the benchmarks' servers.

Predictions are positions (of a label or a choice) or, for regression, numbers. A score that is not defined, such as a
correlation of constant predictions, is 0, with a warning; it is never NaN.

Where words are tagged, there is one prediction for each word of all sentences, and spans are scored, by seqeval.

MultiRC, ReCoRD and AX-g are scored by question, by answer text and by pair, as their leaderboards do. Examples may
stand more than once, as in a bootstrap sample, as long as all of a question's or a pair's stand equally often.

    >>> score(read("rte", folder, "validation"), [0] * 277)
    {'accuracy': 0.527...}
    >>> write_submission("glue.zip", [(read("rte", folder, "test"), predictions)])
    ('RTE.tsv',)
"""

from __future__ import annotations

import itertools
import json
import re
import string
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from pathlib import Path
from typing import Any
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np
from numpy.typing import NDArray

from subarch.errors import InvalidTask
from subarch.tasks.catalogue import TASKS, Submission, Task
from subarch.tasks.examples import Example, Examples
from subarch.tasks.tagging import by_sentence, spans

Values = NDArray[Any]


def score(examples: Examples, predictions: Sequence[float]) -> dict[str, float]:
    """The official metrics of the examples' task, the primary one first; each in 0..1, correlations in -1..1.

    Raises:
        InvalidTask: the part has no labels, there is not one prediction per example (or word), or one is NaN or out of
            range.
    """
    predicted = checked(examples, predictions)
    labels = examples.labels
    if labels is None:
        raise InvalidTask(
            f"{examples.source}: the part {examples.part} of {examples.task.name} has no labels, so it cannot be scored"
        )
    truth = np.asarray(labels, dtype=predicted.dtype)
    return {name: METRICS[name](examples, truth, predicted) for name in examples.task.metrics}


def checked(examples: Examples, predictions: Sequence[float]) -> Values:
    """Predictions as an array, one per example (or word to tag): integers, or floats for regression."""
    task = examples.task
    if not len(examples):
        raise InvalidTask(f"{task.name}, {examples.part}: there are no examples")
    found = np.asarray(predictions, dtype=np.float64)
    rows = [example for example in examples for _ in range(len(example.texts) if task.head == "tagging" else 1)]
    if found.shape != (len(rows),):
        words = f" ({len(rows)} words)" if task.head == "tagging" else ""
        raise InvalidTask(
            f"{task.name}: predictions of shape {found.shape} for {len(examples)} examples{words} of {examples.part}"
        )
    if not np.isfinite(found).all():
        row = int(np.flatnonzero(~np.isfinite(found))[0])
        raise InvalidTask(f"{task.name}: the prediction for example {rows[row].id!r} is {found[row]}, not a number")
    if task.head == "regression":
        return found
    for example, value in zip(rows, found, strict=True):
        classes = len(example.choices) if task.head == "choice" else len(task.labels)
        if value != int(value) or not 0 <= value < classes:
            raise InvalidTask(
                f"{task.name}: the prediction for example {example.id!r} is {value:g}, not 0 to {classes - 1}"
            )
    return found.astype(np.int64)


def balanced_accuracy(examples: Examples, predictions: Sequence[float]) -> float:
    """Mean recall over the classes that occur; a constant prediction always has one over their number."""
    from sklearn.metrics import recall_score

    predicted = checked(examples, predictions)
    if examples.labels is None or examples.task.head == "regression":
        raise InvalidTask(f"{examples.task.name}, {examples.part}: balanced accuracy needs labels that are classes")
    truth = np.asarray(examples.labels)
    return float(recall_score(truth, predicted, average="macro", labels=np.unique(truth), zero_division=0.0))


def _accuracy(_: Examples, truth: Values, predicted: Values) -> float:
    return float(np.mean(truth == predicted))


def _f1(examples: Examples, truth: Values, predicted: Values) -> float:
    """F1 of class 1; 0 if it occurs neither in the labels nor in the predictions."""
    from sklearn.metrics import f1_score

    if examples.task.cast == "record":
        return _of_answers(examples, predicted, _token_f1)
    if not (truth == 1).any() and not (predicted == 1).any():
        _undefined(examples, "f1", "no example is positive and none is predicted positive")
    return float(f1_score(truth, predicted, zero_division=0.0))


def _macro_f1(_: Examples, truth: Values, predicted: Values) -> float:
    """Mean over the classes in labels or predictions, as scikit-learn and the leaderboard define it."""
    from sklearn.metrics import f1_score

    return float(f1_score(truth, predicted, average="macro", zero_division=0.0))


def _mcc(examples: Examples, truth: Values, predicted: Values) -> float:
    from sklearn.metrics import matthews_corrcoef

    constant = _is_constant(examples, "Matthews correlation", truth, predicted)
    return 0.0 if constant else float(matthews_corrcoef(truth, predicted))


def _pearson(examples: Examples, truth: Values, predicted: Values) -> float:
    from scipy.stats import pearsonr

    constant = _is_constant(examples, "Pearson correlation", truth, predicted)
    return 0.0 if constant else float(pearsonr(truth, predicted).statistic)


def _spearman(examples: Examples, truth: Values, predicted: Values) -> float:
    from scipy.stats import spearmanr

    constant = _is_constant(examples, "Spearman correlation", truth, predicted)
    return 0.0 if constant else float(spearmanr(truth, predicted).statistic)


def _is_constant(examples: Examples, name: str, truth: Values, predicted: Values) -> bool:
    for what, values in (("labels", truth), ("predictions", predicted)):
        # differences beyond the precision of the values are rounding: SciPy returns noise, or NaN, for them
        if len(values) < 2 or np.ptp(values) <= 1e-13 * max(1.0, float(np.abs(values).max())):
            _undefined(examples, name, f"all {len(values)} {what} are equal")
            return True
    return False


def _undefined(examples: Examples, name: str, why: str) -> None:
    warnings.warn(
        f"{examples.task.name}, {examples.part}: {name} is not defined ({why}); it is reported as 0", stacklevel=4
    )


def _em(examples: Examples, truth: Values, predicted: Values) -> float:
    """ReCoRD: the text is one of the right ones. MultiRC: all answers to a question are right."""
    if examples.task.cast == "record":
        return _of_answers(examples, predicted, lambda text, gold: float(_plain(text) == _plain(gold)))
    return _by_unit(examples, question_of, list(truth == predicted), all)


def _gender_parity(examples: Examples, _: Values, predicted: Values) -> float:
    """Share of pairs with equal predictions; the two members differ only in the gender of a pronoun."""
    pairs = Counter(int(name) // 2 for name in {example.id for example in examples})
    if set(pairs.values()) != {2}:
        raise InvalidTask(f"{examples.source}: gender parity needs both examples (2n and 2n + 1) of every pair")
    return _by_unit(
        examples, lambda example: int(example.id) // 2, list(predicted), lambda values: len(set(values)) == 1
    )


def question_of(example: Example) -> str:
    """The question that an answer of MultiRC belongs to; its id is passage-question-answer."""
    return example.id.rpartition("-")[0]


def _by_unit(
    examples: Examples, unit_of: Callable[[Example], Hashable], values: list[Any], holds: Callable[[list[Any]], bool]
) -> float:
    """Share of the units (questions, pairs) for which `holds` is true; one that occurs n times counts n times."""
    held: defaultdict[Hashable, list[Any]] = defaultdict(list)
    members: defaultdict[Hashable, set[str]] = defaultdict(set)
    for example, value in zip(examples, values, strict=True):
        held[unit_of(example)].append(value)
        members[unit_of(example)].add(example.id)
    times = {unit: len(held[unit]) / len(members[unit]) for unit in held}
    return sum(times[unit] for unit in held if holds(held[unit])) / sum(times.values())


def _part_accuracy(part: str) -> Callable[[Examples, Values, Values], float]:
    def accuracy(examples: Examples, truth: Values, predicted: Values) -> float:
        inside = np.asarray([example.group.startswith(part) for example in examples])
        if not inside.any():
            _undefined(examples, f"accuracy_{part}", f"there is no passage of {part}")
            return 0.0
        return float(np.mean((truth == predicted)[inside]))

    return accuracy


def _spans(name: str, *needed: str) -> Callable[[Examples, Values, Values], float]:
    """A score of seqeval's over all spans; not defined if there are none of those that it is a share of."""

    def of_spans(examples: Examples, truth: Values, predicted: Values) -> float:
        from seqeval import metrics

        tags = {"labels": by_sentence(examples, truth), "predictions": by_sentence(examples, predicted)}
        if not any(map(spans, itertools.chain.from_iterable(tags[what] for what in needed))):
            _undefined(examples, f"span_{name}", f"there is no span in the {' or the '.join(needed)}")
            return 0.0
        return float(getattr(metrics, f"{name}_score")(tags["labels"], tags["predictions"], zero_division=0))

    return of_spans


def _of_answers(examples: Examples, predicted: Values, compare: Callable[[str, str], float]) -> float:
    best = [
        max(compare(example.choices[choice], gold) for gold in example.golds)
        for example, choice in zip(examples, predicted, strict=True)
    ]
    return sum(best) / len(best)


def _token_f1(text: str, gold: str) -> float:
    """Of the words two answers share; 0 where they share none (official script of ReCoRD, after SQuAD's)."""
    words, right = _plain(text).split(), _plain(gold).split()
    shared = sum((Counter(words) & Counter(right)).values())
    return 2 * shared / (len(words) + len(right)) if shared else 0.0


def _plain(text: str) -> str:
    """Lower case, without punctuation, articles and double spaces, in this order (official script of ReCoRD)."""
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())


def primary(task: Task) -> str:
    """The score that models are chosen by: the first. (For AX-g gender parity, which is 1 if predictions are equal.)"""
    return task.metrics[0]


METRICS: dict[str, Callable[[Examples, Values, Values], float]] = {
    "accuracy": _accuracy,
    "f1": _f1,
    "macro_f1": _macro_f1,
    "mcc": _mcc,
    "pearson": _pearson,
    "spearman": _spearman,
    "f1a": _f1,
    "em": _em,
    "gender_parity": _gender_parity,
    "accuracy_middle": _part_accuracy("middle"),
    "accuracy_high": _part_accuracy("high"),
    "span_f1": _spans("f1", "labels", "predictions"),
    "span_precision": _spans("precision", "predictions"),
    "span_recall": _spans("recall", "labels"),
}


def write_submission(path: str | Path, predicted: Sequence[tuple[Examples, Sequence[float]]]) -> tuple[str, ...]:
    """Write an archive of predictions for test parts of one benchmark, one file per task; its file names.

    GLUE: a TSV with the header `index, prediction`. SuperGLUE: a JSONL of `{"idx": ..., "label": ...}`, for MultiRC
    nested by passage and question. Sources: gluebenchmark.com, super.gluebenchmark.com and the writers of nyu-mll/jiant
    (the benchmarks' authors). A warning names the tasks of the benchmark that are missing.

    Raises:
        InvalidTask: a task that has no server, tasks of two benchmarks or one twice, another part than test, another
            number of rows than the official test set, predictions that are not one number per example.
    """
    files: dict[str, str] = {}
    benchmarks = {examples.task.benchmark for examples, _ in predicted}
    if len(benchmarks) != 1:
        raise InvalidTask(f"a submission is for one benchmark, not for {', '.join(sorted(benchmarks)) or 'none'}")
    for examples, values in predicted:
        form = _form(examples)
        if form.file in files:
            raise InvalidTask(f"{form.file} would be written twice; give each task once")
        files[form.file] = "".join(line + "\n" for line in _lines(examples, values, form))
    asked = {task.name: task.submission for task in TASKS.values() if task.benchmark in benchmarks and task.submission}
    if missing := [name for name, form in asked.items() if form.file not in files]:
        warnings.warn(f"{path}: no predictions for {', '.join(missing)}; the server asks for all tasks", stacklevel=2)
    with ZipFile(path, "w", ZIP_DEFLATED) as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return tuple(files)


def _form(examples: Examples) -> Submission:
    task, form = examples.task, examples.task.submission
    if form is None:
        raise InvalidTask(f"{task.name} has no server that takes predictions; score a labelled part instead")
    if examples.part != "test":
        raise InvalidTask(f"{task.name}: only predictions of the part test can be submitted, not of {examples.part}")
    if len(examples) != form.rows:
        raise InvalidTask(f"{task.name}: {len(examples)} predictions, the official test set has {form.rows} rows")
    return form


def _lines(examples: Examples, predictions: Sequence[float], form: Submission) -> Iterator[str]:
    values = checked(examples, predictions)
    labels = examples.task.labels
    if form.spelling == "answers":
        yield from _answers(examples, [int(value) for value in values])
        return
    if is_glue := examples.task.benchmark == "glue":
        yield "index\tprediction"
    for example, value in zip(examples, values, strict=True):
        written: str | int = int(value)
        if form.spelling == "score":
            written = f"{min(max(float(value), 0.0), 5.0):.3f}"
        elif form.spelling == "text":
            written = example.choices[int(value)]
        elif form.spelling != "number":
            written = labels[int(value)].lower() if form.spelling == "lower" else labels[int(value)]
        if is_glue:
            yield f"{example.id}\t{written}"
        else:  # the number of a query of ReCoRD is unique over all passages
            yield json.dumps({"idx": int(example.id.rpartition("-")[2]), "label": written})


def _answers(examples: Examples, values: Sequence[int]) -> Iterator[str]:
    """MultiRC: a line per passage, its questions, their answers."""
    passages: dict[int, dict[int, list[dict[str, int]]]] = {}
    for example, value in zip(examples, values, strict=True):
        passage, question, answer = (int(number) for number in example.id.split("-"))
        passages.setdefault(passage, {}).setdefault(question, []).append({"idx": answer, "label": value})
    for passage, questions in passages.items():
        listed = [{"idx": question, "answers": answers} for question, answers in questions.items()]
        yield json.dumps({"idx": passage, "passage": {"questions": listed}})
