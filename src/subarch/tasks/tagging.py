"""Tags of words: BIO in its two variants, read as one; which tags a task has; the spans that tags mark.

`B-X` begins a span of type X, `I-X` continues it, `O` is outside of all (IOB2, usually called BIO). In IOB1, the
variant of the older CoNLL files, `I-X` also begins a span, and `B-X` only one right behind another of type X. A part
that is not IOB2 but IOB1 as a whole is rewritten, with a warning. Anything else is refused with file, sentence, line
and rule: `I-X` behind nothing of type X is then a mistake, and seqeval would score it without a word.

What a *model* says may break BIO; there, as in conlleval, `I-X` behind another type begins a span.

    >>> spans(["B-person", "I-person", "O", "B-location"])
    {('person', 0, 1), ('location', 3, 3)}
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice

from subarch.errors import InvalidTask, show
from subarch.tasks.examples import Example, Examples

OUTSIDE = "O"
_TAG = re.compile(f"{OUTSIDE}|[BI]-.+")

Span = tuple[str, int, int]
"""Type, and its first and last word, from 0."""


def spans(tags: Sequence[str]) -> set[Span]:
    """The spans that the tags of one sentence mark, by seqeval."""
    from seqeval.metrics.sequence_labeling import get_entities

    return set(get_entities(list(tags)))


def by_sentence(examples: Examples, values: Iterable[float]) -> list[list[str]]:
    """The tags of each sentence, of one number a word of all sentences."""
    names, rest = examples.task.labels, iter(values)
    return [[names[int(value)] for value in islice(rest, len(example.texts))] for example in examples]


def tags_of(examples: Sequence[Example], source: str) -> tuple[str, ...]:
    """`O`, and `B-` and `I-` of every type that occurs, sorted by type.

    Raises:
        InvalidTask: there are no types.
    """
    types = sorted({tag[2:] for example in examples for tag in example.golds if tag != OUTSIDE})
    if not types:
        raise InvalidTask(f"{source}: no tag but {OUTSIDE} (or none at all), so there is nothing to learn")
    return (OUTSIDE, *(f"{begins}-{kind}" for kind in types for begins in "BI"))


def in_iob2(examples: Sequence[Example], lines: Sequence[int | None], source: str) -> list[Example]:
    """The sentences of one part, their tags in IOB2.

    Args:
        lines: of each sentence the line of its first word, in a file with a word a line.

    Raises:
        InvalidTask: a tag that is none of BIO, or tags that are neither IOB2 nor IOB1.
    """

    def place(row: int, word: int) -> str:
        line = lines[row]
        return f"{source}, sentence {row + 1}, " + (f"word {word + 1}" if line is None else f"line {line + word}")

    for row, example in enumerate(examples):
        for word, tag in enumerate(example.golds):
            if not _TAG.fullmatch(tag):
                known = "; of BIOES or BILOU write B- for S- and U-, and I- for E- and L-" if tag[1:2] == "-" else ""
                raise InvalidTask(f"{place(row, word)}: the tag {show(tag)} is not O, B-TYPE or I-TYPE{known}")
    broken = _first_broken(examples, "I")
    if broken is None:
        return list(examples)
    if (other := _first_broken(examples, "B")) is None:
        warnings.warn(
            f"{source}: the tags are IOB1 (I- begins a span, B- only one right behind another of its type), "
            "and are read as such",
            stacklevel=2,
        )
        return [replace(example, golds=_rewritten(example.golds)) for example in examples]
    row, word = broken
    tags = examples[row].golds
    before = f"follows {tags[word - 1]}" if word else "begins the sentence"
    raise InvalidTask(
        f"{place(row, word)}: {tags[word]} {before}, but I-X continues B-X or I-X of the same type; nor are the tags "
        f"IOB1, where B-X stands only right behind another X: {place(*other)}. Write B- where a span begins"
    )


def check_known(examples: Sequence[Example], labels: Sequence[str], source: str) -> None:
    """Refuse tags that are none of the task's.

    Raises:
        InvalidTask: with the sentence.
    """
    known = set(labels)
    for row, example in enumerate(examples):
        for tag in example.golds:
            if tag not in known:
                raise InvalidTask(
                    f"{source}, sentence {row + 1} ({show(' '.join(example.texts))}): the tag {show(tag)} is of a type "
                    f"that the training part does not have, so nothing can learn it; known: {', '.join(labels)}"
                )


def is_bio(tags: Sequence[str]) -> bool:
    """Are these `O` and tags of spans?"""
    return OUTSIDE in tags and all(map(_TAG.fullmatch, tags))


def broken(tags: Sequence[str], letter: str = "I") -> int | None:
    """The first word of a sentence whose tag begins with the letter and is not right behind one of its type."""
    words = (word for word in range(len(tags)) if tags[word][0] == letter and _begins(tags, word))
    return next(words, None)


def _first_broken(examples: Sequence[Example], letter: str) -> tuple[int, int] | None:
    """The first sentence and word that `broken` finds."""
    found = ((row, broken(example.golds, letter)) for row, example in enumerate(examples))
    return next(((row, word) for row, word in found if word is not None), None)


def _rewritten(tags: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"B{tag[1:]}" if tag[0] == "I" and _begins(tags, word) else tag for word, tag in enumerate(tags))


def _begins(tags: Sequence[str], word: int) -> bool:
    """Whether the word before is of another type, or of none."""
    return word == 0 or tags[word - 1][2:] != tags[word][2:]
