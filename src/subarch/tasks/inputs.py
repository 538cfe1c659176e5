"""The examples of a task as the inputs of a search (`text.read.inputs`): records, one a line.

>>> write_inputs("mrpc", "glue_data", Path("inputs.jsonl"))
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from subarch.run.files import write_text
from subarch.tasks.examples import Example, Examples
from subarch.tasks.reader import read


def write_inputs(task: str, data: str, path: Path) -> None:
    """Write the training part of a public task into `path`, with the labels and the groups that stay together.

    Raises:
        InvalidTask: see `reader.read`.
    """
    examples = read(task, data, "train")
    write_text(path, "".join(f"{json.dumps(_record(examples, one), ensure_ascii=False)}\n" for one in examples))


def _record(examples: Examples, example: Example) -> dict[str, Any]:
    pairs = example.pairs()
    first, second = pairs[0]
    record: dict[str, Any] = {"text": first} if second is None else {"text_a": first, "text_b": second}
    if example.choices:
        record = {"text_a": first, "choices": [choice for _, choice in pairs]}
    if example.label is not None:
        names = examples.task.labels
        record["label"] = names[int(example.label)] if names and not example.choices else example.label
    return record | {"group": example.group}
