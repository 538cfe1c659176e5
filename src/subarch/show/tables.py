"""The tables of the report as plain data: headers and cells whose text, sort value and exact figure are settled here.

The template only lays them out. A cell carries `value` beside its text, so that a table sorts by 13,427,328 and not by
"13.4 M", and `exact`, the figure in full, shown on hover.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from subarch.show import formats

if TYPE_CHECKING:
    from subarch.run.records import Parity, Retrieval

Item = dict[str, Any]

LONGEST = 300
"""Characters of a text that a cell shows."""


@dataclass(frozen=True)
class Cell:
    """One cell. `value` is what it sorts by (None sorts last); `exact` is empty where the text says it all."""

    text: str
    value: float | str | None = None
    exact: str = ""


@dataclass(frozen=True)
class Column:
    """A header; `numeric` columns are aligned right and set in tabular figures."""

    title: str
    numeric: bool = True


def texts(*titles: str) -> list[Column]:
    """Columns of words."""
    return [Column(title, numeric=False) for title in titles]


def numbers(*titles: str) -> list[Column]:
    """Columns of figures."""
    return [Column(title) for title in titles]


@dataclass(frozen=True)
class Row:
    cells: list[Cell]
    emphasis: str = ""
    """The class of the style sheet: "winner", "nearest", "total" or nothing."""


@dataclass(frozen=True)
class Table:
    caption: str
    columns: list[Column]
    rows: list[Row]
    sortable: bool = False


@dataclass(frozen=True)
class Fact:
    """A key figure under the headline."""

    name: str
    figure: str
    note: str
    small: bool = False
    """Whether the figure is words rather than a number."""


def exports(records: Sequence[Parity]) -> Table:
    """What exported files lose against PyTorch: each parity.json, an output a row."""
    columns = texts("Model", "As", "Output") + numbers("Size (MB)", "Largest difference", "Worst cosine", "Mean cosine")
    columns += numbers("Sequences") + texts("On its task")
    rows = []
    for record in records:
        size, score = sum(file.bytes for file in record.files.values()), formats.DASH
        if (task := record.task) and task.metric is not None:
            score = f"{task.metric} {task.pytorch:.4f} → {task.exported:.4f}"
        for output, like in record.likeness.items():
            figures = [size / 1e6, like.difference, like.worst_cosine, like.mean_cosine]
            words = [f"{figures[0]:.1f}", f"{figures[1]:.2g}", f"{figures[2]:.4f}", f"{figures[3]:.4f}"]
            cells = [text(record.model), text(record.variant), text(output)]
            cells += [Cell(word, figure, formats.digits(figure)) for word, figure in zip(words, figures, strict=True)]
            rows.append(Row([*cells, whole(record.sequences), text(score)]))
    return Table(
        "Exported files, compared with PyTorch on held-out text over varying batches and lengths", columns, rows
    )


def retrievals(records: Sequence[Retrieval]) -> Table:
    """How well models find documents: each collection's record, a model and metric a row."""
    columns = texts("Collection", "Model", "Metric") + numbers("Score", "From", "To", "Difference", "From", "To", "p")
    rows = []
    for record in records:
        for model in (record.model, *(one for one in (record.against, record.retriever) if one)):
            for name, metric in model.scores.metrics.items():
                cells = [text(f"{record.collection}, {record.part}"), text(model.model), text(words(name))]
                cells += [scored(value) for value in (metric.value, metric.low, metric.high)]
                if record.comparison and model is record.model:
                    other = record.comparison.metrics[name]
                    cells += [scored(value) for value in (other.difference, other.low, other.high, other.p_examples)]
                else:
                    cells += [text("")] * 4
                rows.append(Row(cells))
    caption = "Search in collections; differences are to the model compared with, of a reranker else to its retriever"
    return Table(caption, columns, rows)


def comparison(rows: list[Item], winner: str | None, caption: str) -> Table:
    """The final table: the columns of its rows, in the order in which they first appear."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    columns = [Column(words(name), any_number(row.get(name) for row in rows)) for name in names]
    body = [
        Row(
            [Cell(formats.by_name(name, row.get(name)), None, formats.digits(row.get(name))) for name in names],
            "winner" if any(winner in str(value).split() for value in row.values()) else "",
        )
        for row in rows
    ]
    return Table(caption, columns, body)


def flat(settings: Item, prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as (dotted name, value) pairs, in their order."""
    pairs: list[tuple[str, str]] = []
    for name, value in settings.items():
        if isinstance(value, dict):
            pairs += flat(value, f"{prefix}{name}.")
        else:
            pairs.append((f"{prefix}{name}", formats.plain(value)))
    return pairs


def architecture(name: str) -> Cell:
    """An architecture sorts by its numbers, so that 10-… comes after 2-…: each is padded with zeros."""
    return Cell(name, "-".join(part.zfill(8) for part in name.split("-")))


def setting(value: Any) -> Cell:
    number = formats.finite(value)
    return Cell(formats.plain(value), formats.plain(value) if number is None else number)


def counted(value: Any) -> Cell:
    return Cell(formats.count(value), formats.finite(value), formats.exact(value))


def scored(value: Any) -> Cell:
    """A metric of a task, or a p-value."""
    return Cell(formats.score(value), formats.finite(value), formats.digits(value))


def erred(value: float | None) -> Cell:
    """An error, or W."""
    return Cell(formats.error(value), formats.finite(value), formats.digits(value))


def number(value: int | None) -> Cell:
    """A number of something: a trial, a seed."""
    return Cell(str(value), value)


def whole(value: int) -> Cell:
    """A count that is shown in full."""
    return Cell(formats.exact(value), value)


def cut(content: str) -> Cell:
    """A text of any length: what is over LONGEST is shown on hovering only."""
    if len(content) <= LONGEST:
        return text(content)
    return Cell(content[:LONGEST] + "…", content[:LONGEST], content)


def text(content: str) -> Cell:
    return Cell(content, content)


def words(name: str) -> str:
    """The name of a column or a setting as it is read: learning_rate, learning rate."""
    return name.replace("_", " ")


def any_number(values: Iterable[Any]) -> bool:
    return any(formats.finite(value) is not None for value in values)
