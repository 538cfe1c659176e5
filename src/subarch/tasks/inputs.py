"""The examples of a task as the inputs of a search (`text.read.inputs`): records, one a line.

>>> write_inputs("mrpc", "glue_data", Path("inputs.jsonl"))
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from subarch.run.files import write_text
from subarch.tasks.catalogue import Task
from subarch.tasks.examples import Example
from subarch.tasks.reader import read


def write_inputs(task: str, data: str, path: Path) -> None:
    """Write the training part of a public task into `path`, with the labels and the groups that stay together.

    Raises:
        InvalidTask: see `reader.read`.
    """
    examples = read(task, data, "train")
    write_records(path, (record_of(examples.task, one, label_of(examples.task, one)) for one in examples))


def write_records(path: Path, records: Iterable[dict[str, Any]]) -> None:
    write_text(path, "".join(f"{json.dumps(record, ensure_ascii=False)}\n" for record in records))


def label_of(task: Task, example: Example) -> Any:
    """The label of an example as inputs have it: a class's name, a number, a choice's position, a tag for each word."""
    if task.head == "tagging":
        return list(example.golds) or None
    if example.label is None or not task.labels or example.choices:
        return example.label
    return task.labels[int(example.label)]


def record_of(task: Task, example: Example, label: Any = None) -> dict[str, Any]:
    """An input of a search: the texts of an example, its label if there is one, and its group."""
    if task.head == "tagging":
        record: dict[str, Any] = {"tokens": list(example.texts)}
    elif example.choices:
        pairs = example.pairs()
        record = {"text_a": pairs[0][0], "choices": [choice for _, choice in pairs]}
    else:
        record = dict(zip(("text_a", "text_b") if len(example.texts) > 1 else ("text",), example.texts, strict=True))
    if label is not None:
        record["label"] = label
    return record | {"group": example.group}
