"""`subarch augment`: more inputs of a task where there are few, by Agora's transformation τ.

Near each input new ones are made (`neighbours`), of which no text equals one that was given, of any part of the task.
They have no label: the teacher of a search says what it says of them. What is written is a corpus for `extract` and
`pretrain`: the inputs with their labels, and the new ones, marked `made`, in the groups of those they were made of; one
that was paired anew also names the group of its other side, `made_with`. A search never measures an error on a new one,
nor trains on one that was made of an input that is held out.

    >>> augment(load(AugmentConfig, None, {"task": "mrpc", "data": "glue_data", "out": Path("more.jsonl")}))
    Augmented(out='more.jsonl', given=3668, made=14103, by_method={'edits': 14103}, dropped={'copy': 402, 'known': 9})
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Any

from subarch.errors import InvalidConfig, InvalidCorpus
from subarch.finetuning.config import AugmentConfig
from subarch.finetuning.neighbours import Neighbourhood
from subarch.run import Report, silent
from subarch.tasks import Example, Examples, Task, find, read, task_named
from subarch.tasks.catalogue import Cast, Kind
from subarch.tasks.inputs import label_of, record_of, write_records
from subarch.text.read import DATASETS, Document, InputForm, inputs, opened

PART = 5000
"""Inputs whose neighbours are made at a time."""


@dataclass(frozen=True, slots=True)
class Augmented:
    """What was written: how many inputs were given and how many were made, by which method, and what was dropped."""

    out: str
    given: int
    made: int
    by_method: dict[str, int] = field(default_factory=dict)
    dropped: dict[str, int] = field(default_factory=dict)


def augment(config: AugmentConfig, report: Report = silent) -> Augmented:
    """Write the inputs and the new ones near them to `config.out`, JSON lines.

    Raises:
        InvalidTask, InvalidCorpus, InvalidTeacher: what is named cannot be read.
        InvalidConfig: inputs of which no text may be changed, such as words to tag; see also `Neighbourhood`.
    """
    known, labels = _of_task(config) if config.task else _of_corpus(config)
    examples = known[0]
    if examples.task.head == "tagging":
        raise InvalidConfig(
            f"{examples.source}: holds words to tag; new inputs are made of texts, pairs and choices only"
        )
    near = Neighbourhood.load(
        known,
        encoder=config.encoder,
        masked_lm=config.masked_lm,
        corpus=config.neighbours or (),
        re_pair=config.re_pair,
        each=config.points,
        seed=config.seed,
    )
    task, group = examples.task, {one.id: one.group for one in examples}
    records = [record_of(task, one, label) for one, label in zip(examples, labels, strict=True)]
    methods, dropped = Counter[str](), Counter[str]()
    new = replace(examples, rows=())
    for start in range(0, len(examples), PART):
        found = near(examples[start : start + PART], new, start)
        for point in found.points:
            record = record_of(task, replace(point.example, group=group[point.origin]))
            partner = {"made_with": group[point.partner]} if point.partner is not None else {}
            records.append(record | {"made": point.method} | partner)
            methods[point.method] += 1
        dropped.update(found.dropped)
        new = replace(new, rows=(*new.rows, *(point.example for point in found.points)))
        report("inputs whose neighbours were made", min(start + PART, len(examples)), len(examples))
    write_records(config.out, records)
    return Augmented(str(config.out), len(examples), methods.total(), dict(methods), dict(sorted(dropped.items())))


def _of_task(config: AugmentConfig) -> tuple[list[Examples], list[Any]]:
    """All parts of a public task, the training part first, and the latter's labels."""
    task, data = task_named(str(config.task)), str(config.data)
    train = read(task, data, "train")
    others = [] if data.startswith(DATASETS) else [part for part in find(task, data) if part != "train"]
    return [train, *(read(task, data, part) for part in others)], [label_of(train.task, one) for one in train]


def _of_corpus(config: AugmentConfig) -> tuple[list[Examples], list[Any]]:
    """The inputs of files, as the examples of a task without name, and their labels."""
    sources = [opened(source, config.text_column, as_inputs=True) for source in config.corpus]
    documents = [one for one in inputs(sources, config.text_column) if not one.made]
    forms = sorted({one.form for one in documents})
    if len(forms) > 1:
        raise InvalidCorpus(f"inputs of several kinds, {' and '.join(forms)}; give files of one kind")
    task = _TASKS[forms[0]]
    rows = tuple(_example(task, str(number), one) for number, one in enumerate(documents))
    return [Examples(task, "train", ", ".join(config.corpus), rows)], [one.label for one in documents]


def _example(task: Task, number: str, given: Document) -> Example:
    """An input as an example; one without a group is a group of its own."""
    group = given.group or f"input {number}"
    if task.head == "choice":
        return Example(number, group, (given.text,), given.others)
    return Example(number, group, (given.text, *given.others))


def _task(kind: Kind, cast: Cast) -> Task:
    return Task("inputs", "own", kind, cast, columns={}, labels=(), metrics=(), layouts=())


_TASKS: dict[InputForm, Task] = {
    "text": _task("classification", "texts"),
    "pair": _task("pair", "texts"),
    "choices": _task("choice", "choice"),
    "words": _task("tagging", "tags"),
}
