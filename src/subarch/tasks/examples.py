"""Examples, the same for every task and layout: how they are divided, counted and compared.

Text is kept as it was read, except for white space at its ends.

    >>> Example("7", "7", ("Is _ red?",), ("Mars", "Earth"), 0).pairs()
    (('Is _ red?', 'Mars'), ('Is _ red?', 'Earth'))
    >>> train, held = hold_out(read("boolq", folder, "validation"), 0.3, seed=0)
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any, overload

from subarch.errors import InvalidTask
from subarch.tasks.catalogue import Task
from subarch.text.read import hash64, identity

PLACEHOLDER = "@placeholder"
_BLANK = re.compile("_+")


@dataclass(frozen=True, slots=True)
class Example:
    """One row to learn from or predict.

    Attributes:
        id: unique in its part; the benchmark's own number where it has one, else the number of the row from 0.
        group: examples of one group stay on one side when data is divided: a passage, an article, a word.
        texts: one or two; (context, question) where there are choices; the words of a sentence to tag.
        choices: of multiple choice and cloze.
        label: position among the task's labels or the choices, or the target of a regression; None: not labelled.
        golds: texts of all right answers of a cloze, of which `label` is the first among the choices; the tag of each
            word of a sentence, which has no `label`.
    """

    id: str
    group: str
    texts: tuple[str, ...]
    choices: tuple[str, ...] = ()
    label: int | float | None = None
    golds: tuple[str, ...] = ()

    @property
    def is_labelled(self) -> bool:
        return self.label is not None or bool(self.golds)

    def pairs(self) -> tuple[tuple[str, str | None], ...]:
        """(first, second or None) for a tokenizer: one, or one per choice.

        A choice fills the blank of its question (the only run of `_`, or `@placeholder`), else it follows it.
        """
        if not self.choices:
            return ((self.texts[0], self.texts[1] if len(self.texts) > 1 else None),)
        if len(self.texts) == 1:
            return tuple((self.texts[0], choice) for choice in self.choices)
        return tuple((self.texts[0], _filled(self.texts[1], choice)) for choice in self.choices)


def _filled(question: str, choice: str) -> str:
    if PLACEHOLDER in question:
        return question.replace(PLACEHOLDER, choice)
    if len(_BLANK.findall(question)) == 1:
        return _BLANK.sub(lambda _: choice, question)
    return f"{question} {choice}"


@dataclass(frozen=True, slots=True)
class Examples(Sequence[Example]):
    """The examples of one part of a task, in the order of the file, and where they were read."""

    task: Task
    part: str
    source: str
    rows: tuple[Example, ...]

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, at: int) -> Example: ...
    @overload
    def __getitem__(self, at: slice) -> Examples: ...
    def __getitem__(self, at: int | slice) -> Example | Examples:
        return replace(self, rows=self.rows[at]) if isinstance(at, slice) else self.rows[at]

    def __iter__(self) -> Iterator[Example]:
        return iter(self.rows)

    @property
    def answers(self) -> int:
        """How many predictions they take: one an example, or one a word where words are tagged."""
        return sum(len(example.texts) for example in self.rows) if self.task.head == "tagging" else len(self.rows)

    @property
    def labels(self) -> tuple[int | float, ...] | None:
        """The labels, one an example, or one a word where words are tagged; None if the part is not labelled."""
        if self.task.head == "tagging":
            number = {name: position for position, name in enumerate(self.task.labels)}
            tags = tuple(number[tag] for example in self.rows for tag in example.golds)
            return tags if len(tags) == self.answers else None
        found = tuple(example.label for example in self.rows if example.label is not None)
        return found if len(found) == len(self.rows) else None


def share_of(group: str, salt: object) -> float:
    """A hash of a group in [0, 1): the same on every machine, whatever else is in the data."""
    return hash64(f"{salt}\n{group}") / 2**64


def divide(examples: Examples, shares: Sequence[float], seed: int = 0) -> tuple[Examples, ...]:
    """Divide into parts with about these shares of the groups, by a hash of each group: no group is in two parts.

    The side of a group does not depend on the other examples, so data that grows is divided the same way. Use another
    seed to divide a part again: with the same seed all of its groups fall on one side.

    Raises:
        InvalidTask: shares that are not positive or do not add up to 1, or a part that would be empty.
    """
    if min(shares, default=0) <= 0 or not math.isclose(math.fsum(shares), 1):
        raise InvalidTask(f"shares {list(shares)} are not positive numbers that add up to 1")
    bounds = list(accumulate(shares))[:-1]
    held: list[list[Example]] = [[] for _ in shares]
    for example in examples:
        held[bisect_right(bounds, share_of(example.group, seed))].append(example)
    if not all(held):
        groups = len({example.group for example in examples})
        raise InvalidTask(
            f"{examples.source}: {groups} groups ({len(examples)} rows) divided by {list(shares)} and seed {seed} "
            "leave a part empty; use other shares or another seed"
        )
    return tuple(replace(examples, rows=tuple(rows)) for rows in held)


def hold_out(examples: Examples, share: float, seed: int = 0) -> tuple[Examples, Examples]:
    """(the rest, about a `share` of the groups): `divide` in two."""
    rest, held = divide(examples, (1 - share, share), seed)
    return rest, held


@dataclass(frozen=True, slots=True)
class Overlap:
    """`rows` of the `of` rows of `part` also are in the part `other`: a score on them partly measures memory."""

    part: str
    other: str
    rows: int
    of: int

    @property
    def sentence(self) -> str:
        return f"{self.rows} of the {self.of} rows of {self.part} also are in {self.other}"


def overlaps(parts: Sequence[Examples]) -> tuple[Overlap, ...]:
    """What parts have in common: for each part, how many of its rows are in each part before it; none that are 0.

    Rows are the same if all texts and choices are, but for case, punctuation and spacing, whatever their labels. Give
    the parts in the order in which they are used: train, dev, held-out.
    """
    inputs = [[tuple(map(identity, (*one.texts, *one.choices))) for one in part] for part in parts]
    found: list[Overlap] = []
    for later, part in enumerate(parts):
        for earlier in range(later):
            known = set(inputs[earlier])
            if rows := sum(one in known for one in inputs[later]):
                found.append(Overlap(part.part, parts[earlier].part, rows, len(part)))
    return tuple(found)


def statistics(examples: Examples) -> dict[str, Any]:
    """Numbers of rows and groups, and the distribution of the labels, with the score of a constant prediction.

    Classes: `counts` by name, `majority` (a name), `majority_share` (accuracy of always predicting it) and
    `majority_balanced` (its balanced accuracy: one over the number of classes that occur). Regression: mean, standard
    deviation and range. Choices are counted by position. Unlabelled: rows and groups only.
    """
    found: dict[str, Any] = {"rows": len(examples), "groups": len({example.group for example in examples})}
    labels = examples.labels
    if not labels:
        return found
    if examples.task.head == "regression":
        mean = math.fsum(labels) / len(labels)
        spread = math.sqrt(math.fsum((label - mean) ** 2 for label in labels) / len(labels))
        return found | {"mean": mean, "deviation": spread, "minimum": min(labels), "maximum": max(labels)}
    names = examples.task.labels
    counted = Counter(int(label) for label in labels)
    counts = {names[label] if names else str(label): counted[label] for label in sorted(counted)}
    majority = max(counts, key=counts.__getitem__)
    return found | {
        "counts": counts,
        "majority": majority,
        "majority_share": counts[majority] / len(labels),
        "majority_balanced": 1 / len(counts),
    }
