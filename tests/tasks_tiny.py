"""Tasks that a tiny encoder learns in a few steps: which topic a text is about, in every type of task.

>>> train = topics(40)                                  # classification; also pairs, numbers, questions, tags
>>> fit(tiny_teacher(tmp_path / "model", layers=1, modules=False), train, topics(20, seed=1), ...)
"""

from __future__ import annotations

import random
from dataclasses import replace

from subarch.finetuning.config import FinetuneConfig
from subarch.run import records
from subarch.run.machine import machine
from subarch.tasks import Example, Examples, Task
from subarch.tasks.catalogue import SPANS
from tiny import TOPICS, WORDS

LABELS = TOPICS[:3]


def task(name: str, kind: str, labels: tuple[str, ...], *metrics: str) -> Task:
    return Task(
        name=name,
        benchmark="own",
        kind=kind,  # type: ignore[arg-type]
        cast={"choice": "choice", "tagging": "tags"}.get(kind, "texts"),  # type: ignore[arg-type]
        columns={},
        labels=labels,
        metrics=metrics,
        layouts=(),
    )


TOPIC = task("topic", "classification", LABELS, "accuracy", "macro_f1")
SAME = task("same", "pair", ("different", "same"), "accuracy")
GRADE = task("grade", "regression", (), "pearson", "spearman")
PRICE = task("price", "regression", (), "pearson", "spearman")
QUIZ = task("quiz", "choice", (), "accuracy")
TAGS = task("tags", "tagging", ("O", "B-harbour", "I-harbour", "B-kitchen", "I-kitchen"), *SPANS)


def sentence(topic: str, draw: random.Random) -> str:
    return " ".join([topic, *draw.choices(WORDS[topic], k=draw.randint(2, 6))])


def examples(of: Task, rows: list[Example], part: str) -> Examples:
    return Examples(of, part, "made up", tuple(rows))


def topics(count: int, seed: int = 0, part: str = "train") -> Examples:
    """Texts of three topics in turn."""
    draw = random.Random(seed)
    rows = [Example(str(n), str(n), (sentence(LABELS[n % 3], draw),), label=n % 3) for n in range(count)]
    return examples(TOPIC, rows, part)


def pairs(count: int, seed: int = 0, part: str = "train") -> Examples:
    """Two texts, of one topic or not, in turn."""
    draw, rows = random.Random(seed), []
    for n in range(count):
        first, other = draw.sample(TOPICS, 2)
        texts = sentence(first, draw), sentence(first if n % 2 else other, draw)
        rows.append(Example(str(n), str(n), texts, label=n % 2))
    return examples(SAME, rows, part)


def grades(count: int, seed: int = 0, part: str = "train") -> Examples:
    """The pairs of `pairs`, as a query and a document with a grade of 0 or 3."""
    rows = [replace(example, label=3.0 * (example.label or 0)) for example in pairs(count, seed)]
    return examples(GRADE, rows, part)


def prices(count: int, seed: int = 0, part: str = "train") -> Examples:
    """A number in the thousands for each topic."""
    draw = random.Random(seed)
    rows = [
        Example(str(n), str(n), (sentence(LABELS[n % 3], draw),), label=9000.0 + 500 * (n % 3)) for n in range(count)
    ]
    return examples(PRICE, rows, part)


def quizzes(count: int, seed: int = 0, part: str = "train") -> Examples:
    """Which of two to four texts is about the harbour?"""
    draw, rows = random.Random(seed), []
    for n in range(count):
        right = n % 2
        choices = [sentence("harbour" if at == right else draw.choice(TOPICS[1:]), draw) for at in range(2 + n % 3)]
        rows.append(Example(str(n), str(n), (f"number {n}",), tuple(choices), right))
    return examples(QUIZ, rows, part)


def tagged(count: int, seed: int = 0, part: str = "train") -> Examples:
    """Sentences with a span of each of two topics, among words of none and numbers of several tokens.

    A span begins with one of the first six words of its topic, and goes on with others.
    """
    draw, rows = random.Random(seed), []
    for n in range(count):
        words, tags = [], []
        for topic in draw.sample(LABELS[:2], 2):
            others = [*draw.choices(WORDS["verbs"], k=draw.randint(1, 3)), str(draw.randint(10, 9999))]
            inside = draw.choices(WORDS[topic][6:], k=draw.randint(0, 2))
            words += [*others, draw.choice(WORDS[topic][:6]), *inside]
            tags += ["O"] * len(others) + [f"B-{topic}"] + [f"I-{topic}"] * len(inside)
        rows.append(Example(str(n), str(n), tuple(words), golds=tuple(tags)))
    return examples(TAGS, rows, part)


def in_columns(part: Examples) -> str:
    """Sentences as CoNLL files have them, a word a line."""
    return "\n".join(
        "".join(f"{word}\t{tag}\n" for word, tag in zip(one.texts, one.golds, strict=True)) for one in part
    )


def tiny_metrics(config: FinetuneConfig) -> records.Metrics:
    """What a fine-tuning with this configuration might leave, for those who read the configuration only."""
    counted = records.ExampleStatistics(rows=1, groups=1)
    scores = {"accuracy": 0.5}
    return records.Metrics(
        task=config.task,
        metric="accuracy",
        model="tiny",
        data=records.TaskData(
            source=config.data, division="", train=counted, dev=counted, heldout=counted, truncated=0.0
        ),
        fits=(),
        diverged={},
        best="",
        chosen="",
        heldout=records.HeldoutScores(scores=scores, seeds={}, fits=(), mean=scores, deviation={"accuracy": None}),
        teacher=None,
        cost=records.FitCost(trainings=0, examples_seen=0, seconds=0.0),
        agora=None,
        config=config.model_dump(mode="json"),
        machine=records.Machine.model_validate(machine()),
        versions={},
    )
