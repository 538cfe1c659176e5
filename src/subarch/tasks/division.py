"""A task of one's own, and a task's data divided into three parts that share no group: train, dev and held-out.

Held-out is the labelled test part; without one, the validation part, which is official and comparable; without either,
a share of the training part. Dev is the validation part, unless that is held out already; then it is a share of the
training part. Shares are taken by group (`examples.divide`), the same on every machine and every time.

    >>> parts = parts_of(load(TaskData, None, {"task": "rte", "data": "glue_data"}))
    >>> parts.sentence
    'dev is divided off the training part, held out is the part validation'
    >>> read(own_task("reviews.csv", first="review", label="stars"), "reviews.csv", "train")
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from subarch.errors import InvalidTask
from subarch.run.configuration import Amount, Text, load
from subarch.tasks.catalogue import (
    COLUMNS,
    ONLY_RECORDS,
    PARTS,
    RECORDS,
    SPANS,
    Columns,
    Layout,
    Task,
    own_files,
    task_named,
)
from subarch.tasks.examples import Examples, Overlap, divide, hold_out, overlaps, share_of
from subarch.tasks.reader import find, is_missing, read, rows_of, with_tags
from subarch.text.read import DATASETS


class TaskData(BaseModel):
    """Which task's data is read, and how it is divided. Paths are relative to the current folder."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    task: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]*$",
        description="Task to fine-tune for (see `subarch tasks`); with first, a name for your own task",
    )
    data: Text = Field(description="Folder of the task or of many tasks, a file of your own, or datasets:NAME[:CONFIG]")
    first: Text | None = Field(
        None,
        description="Your own data: column of the text, of the first of two texts, of the context of choices, or of "
        "the words to tag",
    )
    second: Text | None = Field(
        None, description="Your own data: column of the second text, or of the question about choices"
    )
    choices: list[Text] | None = Field(
        None, description="Your own data: column with lists of choices, or one column per choice"
    )
    label: Text = Field(
        "label",
        description="Your own data: column of the class, of the number, of the text or position of the choice, or of "
        "the tags",
    )
    id: Text | None = Field(None, description="Your own data: column of unique row ids; null: rows are numbered")
    group: Text | None = Field(
        None, description="Your own data: column of groups that are never divided; null: equal first texts form a group"
    )
    kind: Literal["classification", "regression", "choice", "tagging"] = Field(
        "classification", description="Your own data: classification, regression, choice or tagging"
    )
    parts: list[Text] | None = Field(
        None,
        description="Labelled parts to combine and divide by group into train, dev and held-out, for example if there "
        "are few training examples; null: the task's own parts",
    )
    heldout: Annotated[Amount, Field(gt=0, lt=0.5)] = Field(
        0.2, description="Share of the groups for dev or held-out if the task has no labelled part for it"
    )
    rows: int | None = Field(None, ge=10, le=10**9, description="Use at most this many training examples; null: all")

    @model_validator(mode="after")
    def _check_own_data(self) -> TaskData:
        own = [key for key in ("second", "choices", "id", "group") if getattr(self, key)]
        if not self.first and (own or self.label != "label" or self.kind != "classification"):
            named = own or [key for key in ("label", "kind") if key in self.model_fields_set]
            raise ValueError(f"{named[0]} is only for your own data; name its text column with first")
        if (self.kind == "choice") != bool(self.choices):
            raise ValueError("kind 'choice' needs choices, and choices need kind 'choice'; give both or neither")
        if self.kind == "tagging" and self.second:
            raise ValueError("second is a second text, and words are tagged in one; leave it out")
        return self

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> TaskData:
        """These keys of a recorded configuration that has others, too, such as that of a fine-tuning."""
        return load(cls, None, {key: config[key] for key in cls.model_fields if key in config})


@dataclass(frozen=True, slots=True)
class Parts:
    """The labelled parts of a task: `train` to learn from, `dev` to choose by, `heldout` to score once at the end.

    `sentence` says where they come from; `overlap`, what they have in common (official parts may).
    """

    train: Examples
    dev: Examples
    heldout: Examples
    sentence: str
    overlap: tuple[Overlap, ...]


def parts_of(source: TaskData) -> Parts:
    """Read the data and divide it, the same way each time. Warns where rows of one part also are in another.

    Raises:
        InvalidTask: see `tasks.read`; the task has no training part of its own; a part has no labels.
    """
    task = task_of(source)
    if task.trained_on:
        raise InvalidTask(
            f"{task.name} has no training part: fine-tune for {task.trained_on}, then evaluate that model on "
            f"{task.name}"
        )
    share = source.heldout
    if source.parts:
        pool = _sample(_together([_labelled(task, source.data, part) for part in source.parts]), source.rows)
        train, dev, heldout = divide(pool, (1 - 2 * share, share, share))
        return _parts(train, dev, heldout, f"{' and '.join(source.parts)}, divided anew")
    train = _sample(_labelled(task, source.data, "train"), source.rows)
    known = set(task.parts) if source.data.startswith(DATASETS) else set(find(task, source.data))
    official = [read(task, source.data, part) for part in ("validation", "test") if part in known]
    scored = [examples for examples in official if examples.labels is not None]
    if len(scored) == 2:
        return _parts(train, scored[0], scored[1], "the task's own parts")
    if not scored:
        train, dev, heldout = divide(train, (1 - 2 * share, share, share))
        return _parts(train, dev, heldout, "the training part, divided")
    train, dev = hold_out(train, share)
    return _parts(train, dev, scored[0], f"dev is divided off the training part, held out is the part {scored[0].part}")


def _parts(train: Examples, dev: Examples, heldout: Examples, sentence: str) -> Parts:
    train, dev, heldout = replace(train, part="train"), replace(dev, part="dev"), replace(heldout, part="held-out")
    overlap = overlaps([train, dev, heldout])
    if listed := "; ".join(one.sentence for one in overlap):
        warnings.warn(
            f"{train.task.name}: {listed}. Scores on them partly measure memory: remove them from the training part, "
            "or divide the data anew with parts",
            stacklevel=3,
        )
    return Parts(train, dev, heldout, sentence, overlap)


def task_of(source: TaskData) -> Task:
    """The task: a known one, or one made from the columns of the user's own data."""
    if not source.first:
        task = task_named(source.task)
        if task.kind == "tagging" and Path(source.data).is_file():
            task = replace(task, layouts=_layouts(source.data, "tagging"))
        return with_tags(task, source.data)
    choices = source.choices or []
    return own_task(
        source.data,
        first=source.first,
        second=source.second or "",
        choices=choices[0] if len(choices) == 1 else choices,
        label=source.label,
        id=source.id or "",
        group=source.group or "",
        kind=source.kind,
        name=source.task,
    )


def _labelled(task: Task, data: str, part: str) -> Examples:
    examples = read(task, data, part)
    if examples.labels is None:
        raise InvalidTask(f"{examples.source}: part {part} of {task.name} has no labels to learn from")
    return examples


def _together(several: Sequence[Examples]) -> Examples:
    """Several parts as one; ids are prefixed with the part they come from."""
    if len(several) == 1:
        return several[0]
    rows = [replace(example, id=f"{examples.part}-{example.id}") for examples in several for example in examples]
    return replace(several[0], source=", ".join(examples.source for examples in several), rows=tuple(rows))


def _sample(examples: Examples, most: int | None) -> Examples:
    """At most `most` examples, chosen by a hash of their ids, in the order of the file."""
    if most is None or len(examples) <= most:
        return examples
    last = sorted(share_of(example.id, "rows") for example in examples)[most - 1]
    return replace(examples, rows=tuple(one for one in examples if share_of(one.id, "rows") <= last))


MOST_LABELS = 1000
DIVIDED = {"train": (0.0, 0.7), "validation": (0.7, 0.85), "test": (0.85, 1.0), "all": (0.0, 1.0)}
"""How a file of one's own is divided: ranges of the hash of each example's group."""


def own_task(
    source: str | Path,
    *,
    first: str,
    second: str = "",
    choices: str | Sequence[str] = (),
    label: str = "label",
    id: str = "",
    group: str = "",
    kind: Literal["classification", "regression", "choice", "tagging"] = "classification",
    labels: Sequence[str] = (),
    name: str = "own",
) -> Task:
    """The declaration of a user's own data as a task; reads the source once where labels must be found.

    A source is a folder with train.*, validation.* (or dev.*, val.*) and test.*; one file, which is divided by the hash
    of each example's group into 70 % train, 15 % validation and 15 % test; or `datasets:NAME[:CONFIG]`.

    Args:
        source: give the same to `read`.
        first, second: columns of the text, or of both; of context and question where there are choices.
        choices: one column that holds lists of texts, or several of one text each.
        label: a name; a number for regression; the text, the position from 0 or the letter (A, B, ...) of a choice; for
            tagging a list of tags, beside the list of words in `first`. Files of a word a line need neither name.
        id, group: columns; else rows are numbered, and equal first texts stay together. A row whose group is empty has
            none: its first text decides.
        labels: names in the order wanted; else those of the training part, sorted.

    Raises:
        InvalidTask: columns that do not go together, or labels that cannot be found.
    """
    if (kind == "choice") != bool(choices):
        raise InvalidTask("columns of choices and the kind 'choice' go together; give both or neither")
    if kind == "tagging" and second:
        raise InvalidTask(f"{second!r} is a second text, and words are tagged in one; leave it out")
    if labels and kind not in ("classification", "tagging"):
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
    metrics = {"regression": ("pearson", "spearman"), "choice": ("accuracy",), "tagging": SPANS}
    task = Task(
        name=name,
        benchmark="own",
        kind=pair,
        cast="tags" if kind == "tagging" else "choice" if choices else "texts",
        columns=columns,
        labels=tuple(labels),
        metrics=metrics.get(kind, ("accuracy", "macro_f1")),
        layouts=_layouts(source, kind),
    )
    if kind != "classification" or labels:
        return task
    return replace(task, labels=_names(task, source))


def _layouts(source: str | Path, kind: str) -> tuple[Layout, ...]:
    """Where a user's own data lies. In files of a word a line, columns have the names that `formats` gives them."""
    path, columns = Path(source), {"first": "tokens", "label": "tags"}
    if path.is_file():
        here = dict.fromkeys(DIVIDED, (escape(path.name),))
        if kind == "tagging" and not path.name.lower().endswith(ONLY_RECORDS):
            return (Layout("own file", here, columns=columns, form="conll", shares=DIVIDED),)
        return (Layout("own file", here, shares=DIVIDED),)
    parts = dict(zip(PARTS, PARTS, strict=True))
    if kind != "tagging":
        return (Layout("own folder", own_files(RECORDS), parts=parts),)
    return (
        Layout("own folder, columns", own_files(COLUMNS), columns=columns, form="conll"),
        Layout("own folder", own_files(ONLY_RECORDS), parts=parts),
    )


def _names(task: Task, source: str | Path) -> tuple[str, ...]:
    """The labels of the training part, sorted: as numbers where all are, else as text."""
    rows, _, where = rows_of(task, source, "all" if "all" in task.parts else "train")
    column = str(task.columns["label"])
    if rows and column not in rows[0]:
        raise InvalidTask(f"{where}: no column {column!r}; found: {', '.join(map(repr, rows[0]))}")
    found = {str(row[column]).strip() for row in rows if not is_missing(row.get(column))} - {""}
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
