"""Reading comprehension with choices from English examinations: RACE (arXiv 1704.04683) and DREAM (1902.00164).

RACE is read whole or by part, middle and high school. Its download is a folder of passages, each a JSON file that ends
in .txt; a sample in one file without official parts is divided by passage. Neither benchmark has a server to submit to.

    >>> [task.name for task in EXAMS]
    ['race', 'race-middle', 'race-high', 'dream']
"""

from __future__ import annotations

from subarch.tasks.declaration import DIVIDED, Layout, Task, hub


def _race(part: str) -> Task:
    config = part or "all"
    inside = {ours: (f"{theirs}/{part or '*'}/*.txt",) for ours, theirs in _OFFICIAL.items()}
    return Task(
        name=f"race-{part}" if part else "race",
        benchmark="race",
        kind="choice",
        cast="choice",
        columns={
            "context": "article",
            "question": "question",
            "choices": "options",
            "label": "answer",
            "group": "example_id",
        },
        labels=("A", "B", "C", "D"),
        metrics=("accuracy",) if part else ("accuracy", "accuracy_middle", "accuracy_high"),
        folders=("RACE", f"race/{config}", config, "RACE-sample"),
        layouts=(
            Layout("race", inside, form="json", unfold="race"),
            hub(config),
            Layout("sample", dict.fromkeys(DIVIDED, ("race.jsonl",)), shares=DIVIDED),
        ),
        part=part,
    )


_OFFICIAL = {"train": "train", "validation": "dev", "test": "test"}

EXAMS: tuple[Task, ...] = (
    _race(""),
    _race("middle"),
    _race("high"),
    Task(
        name="dream",
        benchmark="dream",
        kind="choice",
        cast="choice",
        columns={
            "context": "dialogue",
            "question": "question",
            "choices": "choice",
            "label": "answer",
            "group": "dialogue_id",
        },
        labels=(),
        metrics=("accuracy",),
        folders=("DREAM", "dream", "dream/plain_text", "plain_text"),
        layouts=(
            Layout("dream", {ours: (f"{theirs}.json",) for ours, theirs in _OFFICIAL.items()}, unfold="dream"),
            hub("plain_text"),
        ),
    ),
)
