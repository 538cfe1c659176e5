"""Find the data of a task, read it and cast it to examples, the same way for every task and layout.

A source is the folder of a task, a folder that holds many tasks under the names that they have in the public downloads
or on the hub, or `datasets:NAME`. The first folder that holds anything of the task is taken for all its parts, so that
parts of two distributions, which may overlap, are not mixed. Within it, each part is read by the first layout of the
declaration that is there. Nested records become flat rows with the hub's columns (`unfolded`), and rows become
examples (`cast`).

    >>> examples = read("rte", "glue_data", "validation")
    >>> len(examples), examples[0].texts, examples.task.labels[examples[0].label]
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from subarch.errors import InvalidCorpus, InvalidTask, show
from subarch.tasks.catalogue import Columns, Layout, Task, task_named
from subarch.tasks.examples import Example, Examples, share_of
from subarch.tasks.tagging import check_known, in_iob2, tags_of
from subarch.text.formats import Record, records
from subarch.text.read import DATASETS, identity

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
            an empty part; a part with labels on some rows only; a tag that the training part does not have.
    """
    task = with_tags(task_named(task) if isinstance(task, str) else task, source)
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
    labelled = sum(example.is_labelled for example in examples)
    if 0 < labelled < len(examples):
        raise InvalidTask(f"{where}: {labelled} of {len(examples)} rows have a label; label all rows of a part or none")
    return Examples(task, part, where, tuple(examples))


def with_tags(task: Task, source: str | Path) -> Task:
    """A task whose tags are those of its training part, if it is one that tags words and names none itself.

    Raises:
        InvalidTask: as `read`; there is no tag but O.
    """
    if task.head != "tagging" or task.labels:
        return task
    part = "all" if "all" in task.parts else "train"
    rows, found, where = rows_of(task, source, part)
    return replace(task, labels=tags_of(cast(task, found, rows, part, where), where))


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
            if layout not in ("", candidate.name):
                continue
            if candidate.listed and not any((folder / name).is_file() for name in candidate.listed):
                continue
            for part, patterns in candidate.files.items():
                files = next((hit for pattern in patterns if (hit := sorted(folder.glob(pattern)))), None)
                if files and part not in there:
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
            found[name][part] = {
                "rows": len(examples),
                "labelled": examples.labels is not None,
                "layout": there[part].layout.name,
                "source": examples.source,
            }
    return found


def _records(file: Path, layout: Layout) -> Iterator[tuple[str, Record]]:
    try:
        yield from records(file, form=layout.form or None, header=layout.header, ragged=layout.ragged)
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
        column = str({**task.columns, **layout.columns}.get("label", ""))
        feature = (split.features or {}).get(column)
        names = getattr(getattr(feature, "feature", feature), "names", None)  # of a list, those of its items
        rows: list[Record] = [dict(row) for row in split]
    except (datasets.exceptions.DatasetsError, pyarrow.ArrowException, OSError, ValueError, RuntimeError) as error:
        raise InvalidTask(
            f"{source}: the part {part} cannot be loaded: {error}. Check name, configuration and connection; offline, "
            "give a folder"
        ) from error
    if names and task.benchmark == "own":
        # labels of a user's own task are names; the data set may hold their numbers
        rows = [row | {column: _named(row[column], names)} for row in rows]
    return rows, layout, f"{source}, {part}"


def _named(value: Any, names: Sequence[str]) -> Any:
    if isinstance(value, list):  # of a part without tags, all are -1
        return [names[number] for number in value] if min(value, default=0) >= 0 else math.nan
    return names[value] if value not in (None, -1) else math.nan


def unfolded(found: Iterable[tuple[str, Record]], unfold: str, file: str) -> list[Record]:
    """Flat rows of records that a layout calls nested; `unfold` is a name of `_UNFOLD`, "" for rows that are flat."""
    if not unfold:
        return [record for _, record in found]
    rows: list[Record] = []
    for place, record in found:
        try:
            rows += _UNFOLD[unfold](record)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            keys = ", ".join(map(repr, record))
            raise InvalidTask(
                f"{file}, {place}: not a record of the layout {unfold} ({type(error).__name__}: {error}); found: {keys}"
            ) from error
    return rows


def cast(task: Task, layout: Layout, rows: Sequence[Record], part: str, source: str) -> list[Example]:
    """The examples of flat rows, in their order, for stock heads. Only rows of the part `test` may lack labels.

    - `texts`: one text or a pair, a class or a number.
    - `choice`: (context, question) and choices; the label is the text of the right choice, a letter or a number.
    - `wic`, `wsc`: the words in question are marked in the text, `* so *` the word or pronoun, `# so #` the noun
      phrase, because a stock head sees text only (the official baselines read the spans' vectors; ours is after T5's).
    - `multirc`: one yes-no example per answer: (passage, question and answer).
    - `record`: (passage, query with @placeholder) and all entities as choices; every spelling of the answer is gold.
    - `tags`: the words of a sentence and a tag for each, in IOB2 (`tasks.tagging`).

    Raises:
        InvalidTask: a missing column or text, an unknown or missing label, ids that are not unique, tags that break
            BIO; with file and row.
    """
    columns = {**task.columns, **layout.columns}
    turn = _CASTS[task.cast]
    examples = [
        turn(task, Row(row, columns, layout.unlabelled, part, number, f"{source}, row {number + 1}"))
        for number, row in enumerate(rows)
    ]
    twice = [name for name, count in Counter(example.id for example in examples).items() if count > 1]
    if twice:
        raise InvalidTask(f"{source}: more than one row has the id {twice[0]!r}; ids must be unique")
    if task.cast == "tags":
        examples = in_iob2(examples, [row.get("line") for row in rows], source)
        if task.labels:
            check_known(examples, task.labels, source)
    return examples


@dataclass(frozen=True, slots=True)
class Row:
    """A row and its place, so that errors name file, row and column."""

    values: Mapping[str, Any]
    columns: Columns
    unlabelled: float | None
    part: str
    number: int
    where: str

    def column(self, meaning: str) -> Any:
        return self.named(str(self.columns[meaning]))

    def named(self, name: str) -> Any:
        if name not in self.values:
            found = ", ".join(map(repr, self.values)) or "none"
            raise InvalidTask(f"{self.where}: no column {name!r}; found: {found}")
        return self.values[name]

    def text(self, meaning: str) -> str:
        """A text; lists (the turns of a dialogue) are joined by spaces."""
        value = self.column(meaning)
        if isinstance(value, list):
            value = " ".join(str(piece) for piece in value)
        if not isinstance(value, str):
            raise InvalidTask(f"{self.where}: column {self.columns[meaning]!r} holds {show(value)}, not a text")
        return value.strip()

    def id(self) -> str:
        """The benchmark's id of the row; without one, the number of the row from 0."""
        name = str(self.columns.get("id", ""))
        return str(self.values[name]) if name in self.values else str(self.number)

    def group(self, task: Task, first: str) -> str:
        """The value of the group's column; else a hash of the first text, so that equal texts stay together.

        A row whose cell is empty belongs to no group: its text decides, too.
        """
        cell = self.column("group") if "group" in self.columns else None
        value = "" if is_missing(cell) else str(cell)
        if not value.strip():
            return f"{identity(first):016x}"
        return f"{identity(value.split(task.until)[0]):016x}" if task.until else value

    def label(self) -> Any:
        """The cell of the label's column; None if it is empty."""
        name = str(self.columns["label"])
        if name not in self.values and self.part == "test":
            return None
        value = self.named(name)
        if is_missing(value) or value == self.unlabelled or str(value).strip().lower() in ("", "nan"):
            if self.part != "test":
                raise InvalidTask(
                    f"{self.where}: no label (column {name!r} holds {show(value)}); only the part test may go without"
                )
            return None
        return value


def is_missing(value: Any) -> bool:
    """An empty cell, as JSON or pandas have it."""
    return value is None or (isinstance(value, float) and math.isnan(value))


def _class(task: Task, value: Any, where: str) -> int | None:
    """The position of a label among the task's, given by its name or by its position."""
    if value is None:
        return None
    written = str(value).strip()
    if written in task.labels:
        return task.labels.index(written)
    # numbers of JSON and Parquet are positions, but for a user's labels; digits in text only where the task has them
    is_number = isinstance(value, int) and not isinstance(value, bool) and task.benchmark != "own"
    if (is_number or task.numbered) and written.isdecimal() and len(written) < 6 and int(written) < len(task.labels):
        return int(written)
    known = ", ".join(task.labels) + (f", or 0 to {len(task.labels) - 1}" if is_number or task.numbered else "")
    raise InvalidTask(f"{where}: unknown label {show(value)}; those of {task.name} are {known}")


def _target(task: Task, row: Row) -> int | float | None:
    value = row.label()
    if task.head != "regression" or value is None:
        return _class(task, value, row.where)
    try:
        target = float(value)
    except (TypeError, ValueError):
        target = math.nan
    if not math.isfinite(target):
        raise InvalidTask(f"{row.where}: the target {show(value)} is not a finite number, which a regression needs")
    return target


def _texts(task: Task, row: Row) -> Example:
    texts = tuple(row.text(meaning) for meaning in ("first", "second") if meaning in row.columns)
    return Example(row.id(), row.group(task, texts[0]), texts, label=_target(task, row))


def _choice(task: Task, row: Row) -> Example:
    context = row.text("context")
    question = row.text("question") if "question" in row.columns else ""
    question = task.wording.get(question, question)
    columns = row.columns["choices"]
    raw = row.named(columns) if isinstance(columns, str) else [row.named(name) for name in columns]
    if not isinstance(raw, list) or len(raw) < 2 or not all(isinstance(choice, str) for choice in raw):
        raise InvalidTask(f"{row.where}: column {columns!r} holds {show(raw)}, not a list of at least two texts")
    choices = tuple(choice.strip() for choice in raw)
    value = row.label()
    if task.labels or value is None:
        label = _class(task, value, row.where)
        if label is not None and label >= len(choices):
            raise InvalidTask(f"{row.where}: the label {show(value)} is beyond its {len(choices)} choices")
    else:
        label = _chosen(str(value).strip(), choices, row.where)
    group = row.group(task, context)
    # questions of one passage are numbered within the file: RACE and DREAM have no ids of their own
    name = f"{group}-{row.id()}" if "id" not in row.columns else row.id()
    return Example(name, group, (context, question) if question else (context,), choices, label)


def _chosen(value: str, choices: tuple[str, ...], where: str) -> int:
    if value in choices:
        return choices.index(value)
    if re.fullmatch(r"\d{1,6}", value) and int(value) < len(choices):
        return int(value)
    if re.fullmatch("[A-Z]", value) and string.ascii_uppercase.index(value) < len(choices):
        return string.ascii_uppercase.index(value)
    raise InvalidTask(f"{where}: the answer {show(value)} is none of the choices {show(list(choices))}")


def _multirc(task: Task, row: Row) -> Example:
    passage, number = row.text("first"), row.column("id")
    name = "-".join(str(number[key]) for key in ("paragraph", "question", "answer"))
    second = f"{row.text('question')} {row.text('answer')}"
    return Example(name, f"{identity(passage):016x}", (passage, second), label=_class(task, row.label(), row.where))


def _record(task: Task, row: Row) -> Example:
    passage, golds = row.text("context"), tuple(row.column("golds") or ())
    choices = tuple(row.column("choices"))
    if golds and not set(golds) & set(choices):
        raise InvalidTask(f"{row.where}: none of the answers {show(golds)} is among the entities {show(choices)}")
    if not golds and row.part != "test":
        raise InvalidTask(f"{row.where}: no label (no answers); only the part test may go without")
    label = next((n for n, choice in enumerate(choices) if choice in golds), None)
    number = row.column("id")
    name = f"{number['passage']}-{number['query']}"
    return Example(name, f"{identity(passage):016x}", (passage, row.text("question")), choices, label, golds)


def _wic(task: Task, row: Row) -> Example:
    marked = []
    for side, meaning in (("1", "first"), ("2", "second")):
        text, start, end = row.column(meaning), int(row.named(f"start{side}")), int(row.named(f"end{side}"))
        if not 0 <= start < end <= len(text):
            raise InvalidTask(f"{row.where}: characters {start} to {end} are not in {show(text)}")
        marked.append(_mark(text, [(start, end, "*")]).strip())
    return Example(row.id(), row.group(task, marked[0]), tuple(marked), label=_class(task, row.label(), row.where))


def _wsc(task: Task, row: Row) -> Example:
    text = row.column("first")
    noun, pronoun = (
        _place(text, row.named(f"{span}_text"), int(row.named(f"{span}_index"))) for span in ("span1", "span2")
    )
    marked = _mark(text, [(*noun, "#"), (*pronoun, "*")]).strip()
    label = _class(task, row.label(), row.where)
    return Example(row.id(), f"{identity(text):016x}", (marked,), label=label)


def _tags(task: Task, row: Row) -> Example:
    words = _list(row, "first", row.column("first"))
    if not words:
        raise InvalidTask(f"{row.where}: a sentence without words; leave it out")
    if str(row.columns["label"]) not in row.values and "line" in row.values and row.part != "test":
        raise InvalidTask(
            f"{row.where}, line {row.values['line']}: one column only; give the word first and its tag last on each "
            "line, with a tab or a space between (only the part test may go without tags)"
        )
    value = row.label()
    tags = () if value is None else _list(row, "label", value)
    if value is not None and len(words) != len(tags):
        raise InvalidTask(f"{row.where}: {len(words)} words and {len(tags)} tags; give a tag for each word")
    return Example(row.id(), row.group(task, " ".join(words)), words, golds=tags)


def _list(row: Row, meaning: str, value: Any) -> tuple[str, ...]:
    """A cell that holds a list of texts, none of them empty."""
    if not isinstance(value, list) or not all(isinstance(item, str) and item for item in value):
        what = "words" if meaning == "first" else "tags"
        raise InvalidTask(f"{row.where}: column {row.columns[meaning]!r} holds {show(value)}, not {what} as text")
    return tuple(value)


def _mark(text: str, spans: Sequence[tuple[int, int, str]]) -> str:
    signs = [sign for start, end, mark in spans for sign in ((end, False, f" {mark}"), (start, True, f"{mark} "))]
    for place, _, sign in sorted(signs, reverse=True):  # from the end, so that the places before stay right
        text = text[:place] + sign + text[place:]
    return text


def _place(text: str, phrase: str, index: int) -> tuple[int, int]:
    """Characters (from, to) of a phrase that begins with a text's word number `index`, counted by white space.

    A few official indices are wrong: then the nearest place where the phrase stands; if it stands nowhere (two
    persons named apart and counted as one), the words at the index.
    """
    words = list(re.finditer(r"\S+", text))
    length = len(phrase.split())

    def stands(at: int) -> bool:
        return [_bare(word.group()) for word in words[at : at + length]] == [_bare(word) for word in phrase.split()]

    nearest = sorted(range(len(words)), key=lambda at: abs(at - index))
    first = next(filter(stands, nearest), min(index, len(words) - 1))
    start, end = words[first].start(), words[min(first + length, len(words)) - 1].end()
    while end - 1 > start and text[end - 1] in string.punctuation and text[end - 1] != phrase[-1]:
        end -= 1
    while start < end - 1 and text[start] in string.punctuation and text[start] != phrase[0]:
        start += 1
    return start, end


def _bare(word: str) -> str:
    return word.lower().strip(string.punctuation)


_CASTS: dict[str, Callable[[Task, Row], Example]] = {
    "texts": _texts,
    "choice": _choice,
    "wic": _wic,
    "wsc": _wsc,
    "record": _record,
    "multirc": _multirc,
    "tags": _tags,
}


# nested records of the downloads


def _flat_copa(item: Record) -> list[Record]:
    row = {"premise": item["p"], "choice1": item["a1"], "choice2": item["a2"], "question": item["asks-for"]}
    answer = item.get("most-plausible-alternative")
    return [row | ({"label": int(answer) - 1} if answer else {})]


def _flat_wsc(item: Record) -> list[Record]:
    return [item | item["target"]]


def _flat_multirc(item: Record) -> list[Record]:
    passage = item["passage"]
    return [
        {
            "paragraph": passage["text"],
            "question": question["question"],
            "answer": answer["text"],
            "idx": {"paragraph": item["idx"], "question": question["idx"], "answer": answer["idx"]},
        }
        | ({"label": answer["label"]} if "label" in answer else {})
        for question in passage["questions"]
        for answer in question["answers"]
    ]


def _flat_record(item: Record) -> list[Record]:
    passage = item["passage"]
    text = passage["text"]
    # ends are inclusive in ReCoRD
    entities = sorted({text[entity["start"] : entity["end"] + 1] for entity in passage["entities"]})
    return [
        {
            "passage": text,
            "query": query["query"],
            "entities": entities,
            "answers": sorted({answer["text"] for answer in query.get("answers", ())}),
            "idx": {"passage": item["idx"], "query": query["idx"]},
        }
        for query in item["qas"]
    ]


def _flat_race(item: Record) -> list[Record]:
    answers = item.get("answers") or [None] * len(item["questions"])
    return [
        {"example_id": item["id"], "article": item["article"], "question": question, "options": options}
        | ({"answer": answer} if answer else {})
        for question, options, answer in zip(item["questions"], item["options"], answers, strict=True)
    ]


def _flat_dream(item: Record) -> list[Record]:
    dialogue, questions, name = item["0"], item["1"], item["2"]
    return [{"dialogue": dialogue, "dialogue_id": name} | question for question in questions]


_UNFOLD: dict[str, Callable[[Record], list[Record]]] = {
    "copa": _flat_copa,
    "wsc": _flat_wsc,
    "multirc": _flat_multirc,
    "record": _flat_record,
    "race": _flat_race,
    "dream": _flat_dream,
}
