"""Tasks as data: what is in GLUE, SuperGLUE, RACE, DREAM and in a user's own files, read into one kind of example.

    declaration.py   what a task is: columns by meaning, labels, metrics, layouts, submission file
    catalogue.py     the public tasks by name
    own.py           a user's own files as a task
    reader.py, casts.py    a task's files -> records -> examples
    examples.py      examples, how they are divided, counted and compared
    division.py      train, dev and held-out of a task
    metrics.py       official scores
    submission.py    the archives that the benchmarks' servers take
    scoring.py       scores of sentence embeddings on a user's own set

Imports `text`, `run` and `errors` only; importing it loads neither torch nor transformers nor scikit-learn.

    >>> from subarch.tasks import hold_out, read, score
    >>> train, dev = read("boolq", "data", "train"), read("boolq", "data", "validation")
    >>> score(dev, [1] * len(dev))
    {'accuracy': 0.6217...}
"""

from __future__ import annotations

from subarch.tasks.catalogue import TASKS, described, task_named
from subarch.tasks.declaration import Task
from subarch.tasks.examples import Example, Examples, Overlap, divide, hold_out, overlaps, statistics
from subarch.tasks.metrics import balanced_accuracy, score
from subarch.tasks.own import own_task
from subarch.tasks.reader import find, read, survey
from subarch.tasks.submission import write_submission

__all__ = [
    "TASKS",
    "Example",
    "Examples",
    "Overlap",
    "Task",
    "balanced_accuracy",
    "described",
    "divide",
    "find",
    "hold_out",
    "overlaps",
    "own_task",
    "read",
    "score",
    "statistics",
    "survey",
    "task_named",
    "write_submission",
]
