"""What a fine-tuning learns from, chooses by and is scored on: three parts that share no group.

The held-out part is the labelled test part; where there is none, the validation part, which is official and comparable;
where there is none either, a share of the training data. Dev is the validation part, unless that is held out; then it
is a share of the training data. Shares are taken by group (`tasks.divide`), once, the same on every machine.

    >>> parts = parts_of(load(FinetuneConfig, None, {"task": "rte", "data": "glue_data"}))
    >>> parts.sentence
    'dev is divided off the training part, held out is the part validation'
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from subarch.errors import InvalidTask
from subarch.finetuning.config import FinetuneConfig
from subarch.tasks import Example, Examples, Task, divide, find, hold_out, own_task, read, task_named
from subarch.tasks.examples import share_of
from subarch.tasks.reader import DATASETS


@dataclass(frozen=True, slots=True)
class Parts:
    """The data of a task as it is used: `train` is learnt, `dev` chooses, `heldout` is scored once; all labelled.

    `sentence` says where they come from.
    """

    train: Examples
    dev: Examples
    heldout: Examples
    sentence: str


def parts_of(config: FinetuneConfig) -> Parts:
    """Read the data and divide it, the same way each time.

    Raises:
        InvalidTask: see `tasks.read`; a task that is learnt by another's model; parts without labels.
    """
    task = task_of(config)
    if task.trained_on:
        raise InvalidTask(
            f"{task.name} has no training part: it is predicted by the model of {task.trained_on}; fine-tune for that, "
            f"then evaluate it on {task.name}"
        )
    share = config.heldout
    if config.parts:
        pool = _sample(_together([_labelled(task, config.data, part) for part in config.parts]), config.rows)
        train, dev, heldout = divide(pool, (1 - 2 * share, share, share))
        return _parts(train, dev, heldout, f"{' and '.join(config.parts)}, divided anew")
    train = _sample(_labelled(task, config.data, "train"), config.rows)
    known = set(task.parts) if config.data.startswith(DATASETS) else set(find(task, config.data))
    official = [read(task, config.data, part) for part in ("validation", "test") if part in known]
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
    return Parts(train, dev, heldout, sentence)


def task_of(config: FinetuneConfig) -> Task:
    """The task that is asked for: a known one, or that of data of one's own."""
    if not config.first:
        return task_named(config.task)
    choices = config.choices or []
    return own_task(
        config.data,
        first=config.first,
        second=config.second or "",
        choices=choices[0] if len(choices) == 1 else choices,
        label=config.label,
        id=config.id or "",
        group=config.group or "",
        kind=config.kind,
        name=config.task,
    )


def _labelled(task: Task, data: str, part: str) -> Examples:
    examples = read(task, data, part)
    if examples.labels is None:
        raise InvalidTask(f"{examples.source}: the part {part} of {task.name} has no labels: there is nothing to learn")
    return examples


def _together(several: Sequence[Examples]) -> Examples:
    """One part of several, whose ids say where they come from."""
    if len(several) == 1:
        return several[0]
    rows: list[Example] = []
    for examples in several:
        rows += [replace(example, id=f"{examples.part}-{example.id}") for example in examples]
    return replace(several[0], source=", ".join(examples.source for examples in several), rows=tuple(rows))


def _sample(examples: Examples, most: int | None) -> Examples:
    """At most so many, by a hash of the id, in the order of the file."""
    if most is None or len(examples) <= most:
        return examples
    last = sorted(share_of(example.id, "rows") for example in examples)[most - 1]
    return replace(examples, rows=tuple(one for one in examples if share_of(one.id, "rows") <= last))
