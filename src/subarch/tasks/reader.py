"""Find the data of a task, read it and cast it to examples, the same way for every task and layout.

A source is the folder of a task, a folder that holds many tasks under the names that they have in the public downloads
or on the hub, or `datasets:NAME`. The first folder that holds anything of the task is taken for all
its parts, so that parts of two distributions, which may overlap, are not mixed. Within it, each part is read by the
first layout of the declaration that is there.

    >>> examples = read("rte", "glue_data", "validation")
    >>> len(examples), examples[0].texts, examples.task.labels[examples[0].label]
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subarch.errors import InvalidCorpus, InvalidTask
from subarch.tasks.casts import cast, unfolded
from subarch.tasks.catalogue import task_named
from subarch.tasks.declaration import Layout, Task
from subarch.tasks.examples import Examples, share_of
from subarch.text.formats import Form, Record, records
from subarch.text.read import DATASETS

_SAME = {"dev": "validation", "val": "validation"}


@dataclass(frozen=True, slots=True)
class Found:
    """A part of a task that was found: its layout and its files."""

    layout: Layout
    files: tuple[Path, ...]


def read(task: Task | str, source: str | Path, part: str = "train", layout: str = "") -> Examples:
    """The examples of one part of a task.

    Args:
        task: a declaration, or the name of one (`TASKS`).
        source: folder, file or `datasets:NAME`.
        part: train, validation (or dev, val), test, or what else the task has.
        layout: the name of a layout; "": the first one that is there.

    Raises:
        InvalidTask: unknown task or part; nothing found (says what was looked for and what is there); a malformed file;
            an empty part; a part with labels on some rows only.
    """
    task = task_named(task) if isinstance(task, str) else task
    part = _SAME.get(part, part)
    rows, found, where = rows_of(task, source, part, layout)
    examples = cast(task, found, rows, part, where)
    if task.part:
        examples = [example for example in examples if example.group.startswith(task.part)]
    if found.shares:
        low, high = found.shares[part]
        examples = [example for example in examples if low <= share_of(example.group, "parts") < high]
    if not examples:
        raise InvalidTask(f"{where}: the part {part} of {task.name} is empty")
    labelled = sum(example.label is not None for example in examples)
    if 0 < labelled < len(examples):
        raise InvalidTask(f"{where}: {labelled} of {len(examples)} rows have a label; label all rows of a part or none")
    return Examples(task, part, where, tuple(examples))


def rows_of(task: Task, source: str | Path, part: str, layout: str = "") -> tuple[list[Record], Layout, str]:
    """The flat rows of one part, their layout, and their place for messages."""
    if part not in task.parts:
        raise InvalidTask(f"{task.name} has no part {part!r}; it has {', '.join(task.parts)}")
    if str(source).startswith(DATASETS):
        return _from_datasets(task, str(source), part)
    there = find(task, source, layout)
    if part not in there:
        raise InvalidTask(_nothing(task, Path(source), part, layout, there))
    chosen = there[part]
    rows: list[Record] = []
    for file in chosen.files:
        rows += unfolded(_records(file, chosen.layout), chosen.layout.unfold, str(file))
    if part in chosen.layout.rows:
        rows = rows[slice(*chosen.layout.rows[part])]
    if chosen.layout.listed:
        rows = _of_list(rows, chosen, part)
    where = str(chosen.files[0] if len(chosen.files) == 1 else chosen.files[0].parent)
    return rows, chosen.layout, where


def find(task: Task, source: str | Path, layout: str = "", *, named: bool = False) -> dict[str, Found]:
    """Every part of a task in a folder: in the first of the task's folders below it that has any, or in itself.

    `named`: look in the folder itself only if it has one of the task's names, because every task has a train.tsv.
    """
    root = Path(source)
    if root.is_file():
        root = root.parent
    own_name = not named or any(root.name == Path(folder).name for folder in task.folders)
    for folder in [*(root / name for name in task.folders), *([root] if own_name else [])]:
        there: dict[str, Found] = {}
        for candidate in task.layouts:
            for part, patterns in candidate.files.items():
                if part not in there and layout in ("", candidate.name) and _lists(candidate, folder):
                    files = next((hit for pattern in patterns if (hit := sorted(folder.glob(pattern)))), None)
                    if files:
                        there[part] = Found(candidate, tuple(files))
        if there:
            return there
    return {}


def survey(source: str | Path, tasks: Mapping[str, Task]) -> dict[str, dict[str, Any]]:
    """What a folder holds: task -> part -> rows, whether labelled, layout and place, or the problem."""
    if not Path(source).is_dir():
        raise InvalidTask(f"{source}: no such folder")
    found: dict[str, dict[str, Any]] = {}
    for name, task in tasks.items():
        found[name] = {}
        there = find(task, source, named=True)
        for part in (part for part in task.parts if part in there):
            try:
                examples = read(task, source, part)
            except InvalidTask as error:
                found[name][part] = {"problem": str(error)}
                continue
            labelled = examples.labels is not None
            about = {
                "rows": len(examples),
                "labelled": labelled,
                "layout": there[part].layout.name,
                "source": examples.source,
            }
            found[name][part] = about
    return found


def _lists(layout: Layout, folder: Path) -> bool:
    return not layout.listed or any((folder / name).is_file() for name in layout.listed)


def _records(file: Path, layout: Layout) -> Iterator[tuple[str, Record]]:
    form: Form | None = layout.form or None
    try:
        yield from records(file, form=form, header=layout.header, ragged=layout.ragged)
    except InvalidCorpus as error:
        raise InvalidTask(str(error)) from error


def _of_list(rows: list[Record], found: Found, part: str) -> list[Record]:
    """MRPC: a file lists the pairs of ids of the validation rows; the other rows are for training."""
    folder = found.files[0].parent
    file = next(folder / name for name in found.layout.listed if (folder / name).is_file())
    columns = ("#1 ID", "#2 ID")
    ids = Layout("ids", {}, header=columns, form="tsv")
    listed = {tuple(record[name] for name in columns) for _, record in _records(file, ids)}
    return [row for row in rows if (tuple(row.get(name) for name in columns) in listed) == (part == "validation")]


def _nothing(task: Task, source: Path, part: str, layout: str, there: Mapping[str, Found]) -> str:
    known = sorted({one.name for one in task.layouts})
    if layout and layout not in known:
        return f"{task.name} has no layout {layout!r}; it has {', '.join(known)}"
    if not source.exists():
        return f"{source}: no such file or folder"
    looked = [pattern for one in task.layouts if layout in ("", one.name) for pattern in one.files.get(part, ())]
    folders = ", ".join(("the folder itself", *(f"{name}/" for name in task.folders)))
    if there:
        place = next(iter(there.values())).files[0].parent
        has = f"{place} has only {', '.join(there)}"
    else:
        inside = sorted(entry.name for entry in (source if source.is_dir() else source.parent).iterdir())
        has = f"found: {', '.join(inside[:20]) or 'nothing'}{', ...' if len(inside) > 20 else ''}"
    return f"{source}: no part {part} of {task.name}; looked for {', '.join(looked[:8])} in {folders}; {has}"


def _from_datasets(task: Task, source: str, part: str) -> tuple[list[Record], Layout, str]:
    """The rows of `datasets:NAME[:CONFIG]`, streamed; the configurations of benchmarks are known."""
    import datasets
    import pyarrow

    name, _, config = source.removeprefix(DATASETS).partition(":")
    layout = next((one for one in task.layouts if part in one.parts), None)
    if not name or layout is None:
        raise InvalidTask(f"{source}: {task.name} has no part {part} on the hub; write datasets:NAME[:CONFIG]")
    try:
        split = datasets.load_dataset(name, config or layout.config or None, split=layout.parts[part], streaming=True)
        column = str(task.columns.get("label", ""))
        names = getattr((split.features or {}).get(column), "names", None)
        rows: list[Record] = [dict(row) for row in split]
    except (datasets.exceptions.DatasetsError, pyarrow.ArrowException, OSError, ValueError, RuntimeError) as error:
        raise InvalidTask(
            f"{source}: the part {part} cannot be loaded: {error}. Check name, configuration and connection; offline, "
            "give a folder"
        ) from error
    if names and task.benchmark == "own":
        # labels of a user's own task are names; the data set may hold their numbers
        rows = [row | {column: names[row[column]] if row[column] not in (None, -1) else math.nan} for row in rows]
    return rows, layout, f"{source}, {part}"
