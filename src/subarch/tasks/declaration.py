"""What a task is: a declaration that says where its data may lie, what its columns mean, and how it is judged.

Everything that differs between tasks is data here; the code that reads, casts, scores and writes submissions is the
same for all. Columns are mapped from a meaning to the hub's column name; a layout lists the names that differ.

    >>> Task(
    ...     name="sst2", benchmark="glue", kind="classification", cast="texts",
    ...     columns={"first": "sentence", "label": "label", "id": "idx"}, labels=("negative", "positive"),
    ...     metrics=("accuracy",), folders=("SST-2", "sst2"), layouts=(hub("sst2"),),
    ... )
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Kind = Literal["classification", "pair", "regression", "choice", "span", "cloze", "multi-sentence"]
Cast = Literal["texts", "choice", "wic", "wsc", "record", "multirc"]
Head = Literal["classification", "regression", "choice"]
Spelling = Literal["number", "name", "lower", "score", "answers", "text"]
Columns = Mapping[str, str | tuple[str, ...]]

PARTS = ("train", "validation", "test")
DIVIDED = {"train": (0.0, 0.7), "validation": (0.7, 0.85), "test": (0.85, 1.0), "all": (0.0, 1.0)}
"""How a file without official parts is divided: ranges of the hash of each example's group."""


@dataclass(frozen=True, slots=True)
class Layout:
    """One way in which the data of a task is distributed.

    Attributes:
        name: what it is called in messages and asked for by.
        files: part (train, validation, test, ...) -> glob patterns below the folder; the first with a match is used.
        columns: meaning -> column, where it differs from the task's own.
        header: the columns of files that have no header line.
        form: the format, where neither the ending nor the content tell it (`text.formats`).
        unfold: how nested records become flat rows (`casts.py`).
        ragged: `longer`: fields after the last column are dropped; `shorter`: incomplete rows are skipped.
        unlabelled: the label of rows without one (the hub writes -1).
        rows: part -> first and last row (exclusive) of the file that belong to this part.
        shares: part -> range of the groups' hashes in [0, 1), for data without official parts.
        listed: names of a file that lists the validation rows; all other rows are training rows.
        config: the name of the configuration on the hub.
        parts: our name of a part -> its name on the hub.
    """

    name: str
    files: Mapping[str, tuple[str, ...]]
    columns: Columns = field(default_factory=dict)
    header: tuple[str, ...] = ()
    form: Literal["", "tsv", "xml"] = ""
    unfold: str = ""
    ragged: Literal["", "longer", "shorter"] = ""
    unlabelled: float | None = None
    rows: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    shares: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    listed: tuple[str, ...] = ()
    config: str = ""
    parts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Submission:
    """The file a benchmark's server expects: its name, how labels are spelt, and the rows of the official test set.

    `score`: a number cut to 0..5 with three decimals (STS-B); `answers`: nested by passage and question (MultiRC);
    `text`: the text of the choice (ReCoRD).
    """

    file: str
    spelling: Spelling
    rows: int


@dataclass(frozen=True, slots=True)
class Task:
    """A task. `columns` maps a meaning (id, group, label, first, second, context, question, choices) to a column.

    Attributes:
        labels: names in official order, a label is a position in it; empty for regression and free choices.
        metrics: official, the primary one first (`metrics.py`).
        folders: where it lies below a folder of many tasks, in order of preference.
        trained_on: the task whose model predicts this one, if this one has no training part.
        until: the group is its column's text up to this separator (BoolQ: the title before " -- ").
        part: keep only rows whose group starts with this (RACE).
        wording: question in the data -> question in the model's input.
        numbered: text files hold labels as positions ("0", "1"); otherwise they hold names, and "0" is an error.
    """

    name: str
    benchmark: Literal["glue", "superglue", "race", "dream", "own"]
    kind: Kind
    cast: Cast
    columns: Columns
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    layouts: tuple[Layout, ...]
    folders: tuple[str, ...] = ()
    submission: Submission | None = None
    trained_on: str = ""
    until: str = ""
    part: str = ""
    wording: Mapping[str, str] = field(default_factory=dict)
    numbered: bool = False

    @property
    def head(self) -> Head:
        """The stock head: sequence classification, the same with one output (regression), or multiple choice."""
        if self.kind in ("choice", "cloze"):
            return "choice"
        return "regression" if self.kind == "regression" else "classification"

    @property
    def parts(self) -> tuple[str, ...]:
        """Every part that some layout has: train, validation, test, then others."""
        found = dict.fromkeys(part for layout in self.layouts for part in layout.files)
        return (*(part for part in PARTS if part in found), *(part for part in found if part not in PARTS))


def hub(config: str, **parts: str) -> Layout:
    """The hub's layout, a folder of Parquet per configuration; `parts`: our name of a part = the hub's name."""
    names = parts or {"train": "train", "validation": "validation", "test": "test"}
    files = {ours: (f"{name}-*.parquet", f"{name}/*.parquet", f"{name}.parquet") for ours, name in names.items()}
    return Layout("hub", files, unlabelled=-1, config=config, parts=names)
