"""Tasks as data: what is in GLUE, SuperGLUE, RACE, DREAM and in a user's own files, read into one kind of example.

    declaration.py   what a task is: columns by meaning, labels, metrics, layouts, submission file
    glue.py, superglue.py, exams.py, own.py    the declarations
    catalogue.py     all of them by name
    files.py, unfold.py, casts.py, reader.py   a file -> records -> flat rows -> examples
    examples.py      examples, how they are divided and counted
    metrics.py       official scores
    submission.py    the archives that the benchmarks' servers take

Importing this loads neither torch nor transformers nor scikit-learn.

    >>> from subarch.tasks import hold_out, read, score
    >>> train, dev = read("boolq", "data", "train"), read("boolq", "data", "validation")
    >>> score(dev, [1] * len(dev))
    {'accuracy': 0.6217...}
"""

from __future__ import annotations

from subarch.tasks.catalogue import TASKS, described, task_named
from subarch.tasks.declaration import Task
from subarch.tasks.examples import Example, Examples, divide, hold_out, statistics
from subarch.tasks.metrics import balanced_accuracy, score
from subarch.tasks.own import own_task
from subarch.tasks.reader import find, read, survey
from subarch.tasks.submission import write_submission

__all__ = [
    "TASKS",
    "Example",
    "Examples",
    "Task",
    "balanced_accuracy",
    "described",
    "divide",
    "find",
    "hold_out",
    "own_task",
    "read",
    "score",
    "statistics",
    "survey",
    "task_named",
    "write_submission",
]
