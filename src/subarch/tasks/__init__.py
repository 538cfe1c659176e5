"""Tasks as data: what is in GLUE, SuperGLUE, RACE, DREAM and in a user's own files, read into one kind of example.

    catalogue.py     what a task is (columns, labels, metrics, layouts, submission file); the public tasks by name
    reader.py        a task's files -> records -> examples
    examples.py      examples, how they are divided, counted and compared
    inputs.py        examples as the inputs of a search
    division.py      a user's own files as a task; train, dev and held-out of a task
    metrics.py       official scores, and the archives that the benchmarks' servers take
    scoring.py       scores of sentence embeddings on a user's own set

Imports `text`, `run` and `errors` only; importing it loads neither torch nor transformers nor scikit-learn.

    >>> from subarch.tasks import hold_out, read, score
    >>> train, dev = read("boolq", "data", "train"), read("boolq", "data", "validation")
    >>> score(dev, [1] * len(dev))
    {'accuracy': 0.6217...}
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from subarch.tasks.catalogue import TASKS, Task, described, task_named
from subarch.tasks.division import own_task
from subarch.tasks.examples import Example, Examples, Overlap, divide, hold_out, overlaps, statistics
from subarch.tasks.reader import find, read, survey

if TYPE_CHECKING:
    from subarch.tasks.metrics import balanced_accuracy, score, write_submission

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


def __getattr__(name: str) -> Any:
    """Metrics when they are asked for: they load NumPy, which the command line's help does without."""
    if name in ("balanced_accuracy", "score", "write_submission"):
        from subarch.tasks import metrics

        return getattr(metrics, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
