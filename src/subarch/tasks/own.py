"""A user's own data as a task: records in any format, or a data set of the hub, with columns given by name.

A source is a folder with train.*, validation.* (or dev.*, val.*) and test.*; or one file, which is divided by the hash
of each example's group into 70 % train, 15 % validation and 15 % test; or `datasets:NAME[:CONFIG]`. Labels are names,
in the order given, else sorted as they stand in the source.

    >>> task = own_task("reviews.csv", first="review", label="stars")
    >>> read(task, "reviews.csv", "train")
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from glob import escape
from pathlib import Path
from typing import Literal

from subarch.errors import InvalidTask
from subarch.tasks.declaration import DIVIDED, Columns, Layout, Task
from subarch.tasks.reader import rows_of
from subarch.text.formats import COMPRESSIONS

ENDINGS = (
    *(
        f"{ending}{packed}"
        for ending in (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
        for packed in ("", *COMPRESSIONS)
    ),
    ".parquet",
)
MOST_LABELS = 1000

_NAMES = {"train": ("train",), "validation": ("validation", "dev", "val"), "test": ("test",)}


def own_task(
    source: str | Path,
    *,
    first: str,
    second: str = "",
    choices: str | Sequence[str] = (),
    label: str = "label",
    id: str = "",
    group: str = "",
    kind: Literal["classification", "regression", "choice"] = "classification",
    labels: Sequence[str] = (),
    name: str = "own",
) -> Task:
    """The declaration of a task of one's own; reads the source once where labels must be found.

    Args:
        source: folder, file or `datasets:NAME[:CONFIG]`; give the same to `read`.
        first, second: columns of the text, or of both; of context and question where there are choices.
        choices: one column that holds lists of texts, or several of one text each.
        label: a name; a number for regression; the text, the position from 0 or the letter (A, B, ...) of a choice.
        id, group: columns; else rows are numbered, and equal first texts stay together. A row whose group is empty has
            none: its first text decides.
        labels: names in the order wanted; else those of the training part, sorted.

    Raises:
        InvalidTask: columns that do not go together, or labels that cannot be found.
    """
    if (kind == "choice") != bool(choices):
        raise InvalidTask("columns of choices and the kind 'choice' go together; give both or neither")
    if labels and kind != "classification":
        raise InvalidTask(f"labels are names of classes, which {kind} does not have; leave them out")
    texts = {"context": first, "question": second} if choices else {"first": first, "second": second}
    columns: Columns = {
        **{meaning: column for meaning, column in texts.items() if column},
        **({"choices": choices if isinstance(choices, str) else tuple(choices)} if choices else {}),
        **({"id": id} if id else {}),
        **({"group": group} if group else {}),
        "label": label,
    }
    pair = "pair" if second and kind == "classification" else kind
    metrics = {"regression": ("pearson", "spearman"), "choice": ("accuracy",)}
    task = Task(
        name=name,
        benchmark="own",
        kind=pair,
        cast="choice" if choices else "texts",
        columns=columns,
        labels=tuple(labels),
        metrics=metrics.get(kind, ("accuracy", "macro_f1")),
        layouts=(_layout(source),),
    )
    if kind != "classification" or labels:
        return task
    return replace(task, labels=_names(task, source))


def _layout(source: str | Path) -> Layout:
    path = Path(source)
    if path.is_file():
        return Layout("own file", dict.fromkeys(DIVIDED, (escape(path.name),)), shares=DIVIDED)
    files = {
        part: tuple(f"{name}{more}{ending}" for name in names for ending in ENDINGS for more in ("", "-*"))
        for part, names in _NAMES.items()
    }
    return Layout("own folder", files, parts={"train": "train", "validation": "validation", "test": "test"})


def _names(task: Task, source: str | Path) -> tuple[str, ...]:
    """The labels of the training part, sorted: as numbers where all are, else as text."""
    rows, _, where = rows_of(task, source, "all" if "all" in task.parts else "train")
    column = str(task.columns["label"])
    if rows and column not in rows[0]:
        raise InvalidTask(f"{where}: no column {column!r}; found: {', '.join(map(repr, rows[0]))}")
    values = (row.get(column) for row in rows)
    found = {
        str(value).strip()
        for value in values
        if not (value is None or (isinstance(value, float) and math.isnan(value)))
    } - {""}
    if not 2 <= len(found) <= MOST_LABELS:
        raise InvalidTask(
            f"{where}: column {column!r} holds {len(found)} different labels; classes are 2 to {MOST_LABELS} (is it a "
            "regression, or another column?)"
        )
    return tuple(sorted(found, key=_order))


def _order(label: str) -> tuple[float, str]:
    try:
        return float(label), label
    except ValueError:
        return math.inf, label
