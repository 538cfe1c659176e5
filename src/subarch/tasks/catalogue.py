"""Every task there is by name, in the order of the benchmarks.

>>> task_named("sst2").metrics
('accuracy',)
"""

from __future__ import annotations

from difflib import get_close_matches
from typing import Any

from subarch.errors import InvalidTask
from subarch.tasks.declaration import Task
from subarch.tasks.exams import EXAMS
from subarch.tasks.glue import GLUE
from subarch.tasks.superglue import SUPERGLUE

TASKS: dict[str, Task] = {task.name: task for task in (*GLUE, *SUPERGLUE, *EXAMS)}


def task_named(name: str) -> Task:
    """The task of a name, whatever its case.

    Raises:
        InvalidTask: there is none; names the nearest.
    """
    if name.lower() in TASKS:
        return TASKS[name.lower()]
    near = get_close_matches(name.lower(), TASKS, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]}? " if near else ""
    raise InvalidTask(f"no task {name!r}; {hint}known: {', '.join(TASKS)}; or give columns for data of your own")


def described(task: Task) -> dict[str, Any]:
    """What is known of a task without its data, for a listing."""
    return {
        "task": task.name,
        "benchmark": task.benchmark,
        "type": task.kind,
        "head": task.head,
        "labels": list(task.labels),
        "metrics": list(task.metrics),
        "submission": task.submission.file if task.submission else None,
        "trained_on": task.trained_on or None,
        "layouts": list(dict.fromkeys(layout.name for layout in task.layouts)),
        "parts": list(task.parts),
    }
