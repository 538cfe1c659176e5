"""The archives that the servers of GLUE and SuperGLUE take: one file per task, in the published spelling.

GLUE: a TSV per task with the header `index, prediction`. SuperGLUE: a JSONL per task of `{"idx": ..., "label": ...}`,
for MultiRC nested by passage and question. Sources: gluebenchmark.com and super.gluebenchmark.com, and the writers in
nyu-mll/jiant, made by the benchmarks' authors. Each file must hold the whole official test set; anything else is
refused. A warning names the tasks of the benchmark that are missing.

    >>> write_submission("glue.zip", [(read("rte", folder, "test"), predictions)])
    ('RTE.tsv',)
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

from subarch.errors import InvalidTask
from subarch.tasks.catalogue import TASKS
from subarch.tasks.declaration import Submission
from subarch.tasks.examples import Examples
from subarch.tasks.metrics import checked


def write_submission(path: str | Path, predicted: Sequence[tuple[Examples, Sequence[float]]]) -> tuple[str, ...]:
    """Write an archive of predictions for test parts of one benchmark; its file names.

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
    others = [task for task in TASKS.values() if task.benchmark in benchmarks and task.submission]
    missing = [task.name for task in others if task.submission and task.submission.file not in files]
    if missing:
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
    names = examples.task.labels
    if form.spelling == "answers":
        yield from _answers(examples, [int(value) for value in values])
        return
    if examples.task.benchmark == "glue":
        yield "index\tprediction"
    for example, value in zip(examples, values, strict=True):
        if form.spelling == "score":
            yield f"{example.id}\t{min(max(float(value), 0.0), 5.0):.3f}"
        elif examples.task.benchmark == "glue":
            yield f"{example.id}\t{names[int(value)] if form.spelling == 'name' else int(value)}"
        else:
            # the number of a query of ReCoRD is unique over all passages
            number = int(example.id.rpartition("-")[2])
            label: int | str = int(value)
            if form.spelling == "text":
                label = example.choices[int(value)]
            elif form.spelling != "number":
                label = names[int(value)].lower() if form.spelling == "lower" else names[int(value)]
            yield json.dumps({"idx": number, "label": label})


def _answers(examples: Examples, values: Sequence[int]) -> Iterator[str]:
    """MultiRC: a line per passage, its questions, their answers."""
    passages: dict[int, dict[int, list[dict[str, int]]]] = {}
    for example, value in zip(examples, values, strict=True):
        passage, question, answer = (int(number) for number in example.id.split("-"))
        passages.setdefault(passage, {}).setdefault(question, []).append({"idx": answer, "label": value})
    for passage, questions in passages.items():
        listed = [{"idx": question, "answers": answers} for question, answers in questions.items()]
        yield json.dumps({"idx": passage, "passage": {"questions": listed}})
