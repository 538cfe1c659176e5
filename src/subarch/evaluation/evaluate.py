"""Evaluate fine-tuned models by name: a part of a task is read, predicted and scored; what spoils the score is said.

    subarch evaluate runs/mine/finetuned/rte --part held-out             # task, data and division as it was fine-tuned
    subarch evaluate MODEL --task mnli-mm --data glue_data               # the part validation
    subarch evaluate MODEL-SEED-0 MODEL-SEED-1 --task rte --data glue_data --against OTHER-0 --against OTHER-1
    subarch evaluate MODEL --task rte --data glue_data --part test --submission glue.zip

`evaluation` has the scores and says what is left beside the first model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from subarch.errors import InvalidConfig, InvalidTask
from subarch.evaluation.assess import appraise
from subarch.models.heads import labels_of, predict
from subarch.run.folder import RunFolder
from subarch.run.inputs import StageInputs
from subarch.run.progress import Report, silent
from subarch.tasks import Example, Examples, read, write_submission
from subarch.tasks.division import TaskData, parts_of, task_of
from subarch.text.read import identity

DIVIDED = {"dev": "dev", "held-out": "heldout"}
"""Parts that exist only as `division` makes them."""


def evaluate(
    models: Sequence[Path],
    given: Mapping[str, Any],
    part: str,
    *,
    against: Sequence[Path] = (),
    submission: Path | None = None,
    command: str = "",
    report: Report = silent,
) -> dict[str, Any]:
    """Predict a part by models of one fine-tuning (one per seed), and score it where it has labels.

    Args:
        given: keys of a FinetuneConfig that say what to read; without `task` the rest is as the first was fine-tuned.
        part: of the task, or `dev` or `held-out` as fine-tuning divides the data.
        against: as many models to compare with.
        submission: archive to write for the benchmark's server, from the predictions of the first.
        command: to do it again.

    Raises:
        InvalidConfig: task or data are not given, or wrong.
        InvalidTask: data that is missing or malformed, or that cannot be compared or submitted.
        InvalidTeacher: a model that cannot be loaded, or is not fine-tuned for such a task.
        InvalidStudy: the folder of the first cannot be written in.
    """
    asked = question_of(models[0])
    if "task" not in given and asked is None:
        raise InvalidConfig(f"{models[0]}: holds no record of what it was fine-tuned for; give --task and --data")
    source = TaskData.of(given if "task" in given or asked is None else {**asked, **given})
    examples = getattr(parts_of(source), DIVIDED[part]) if part in DIVIDED else read(task_of(source), source.data, part)
    found, predictions = appraise(
        models,
        examples,
        partial(predict, max_length=given.get("max_length"), report=report),
        labels_of,
        against=against,
        command=command,
        cautions=cautions(asked, examples) if asked else [],
    )
    if submission:
        write_submission(submission, [(examples, predictions)])
    return found


def question_of(model: Path) -> dict[str, Any] | None:
    """The configuration that a model was fine-tuned with; None for one from elsewhere."""
    if RunFolder(model).has("metrics"):
        config: dict[str, Any] = RunFolder(model).read("metrics")["config"]
        return config
    if RunFolder(model.parent).has(StageInputs):  # one of the fits
        return RunFolder(model.parent).read(StageInputs).config
    return None


def cautions(asked: Mapping[str, Any], examples: Examples) -> list[str]:
    """How many of the examples the model has learnt from or was chosen by, if any."""
    try:
        parts = parts_of(TaskData.of(asked))
    except InvalidTask as error:
        return [f"it cannot be told whether the model has seen these examples: {error}"]
    found = []
    for name, what in (("train", "were learnt from"), ("dev", "chose the model")):
        seen = set(map(_content, getattr(parts, name)))
        count = sum(_content(example) in seen for example in examples)
        if count:
            found.append(
                f"{count:,} of {len(examples):,} examples {what}: the score is no estimate of quality; that on the "
                "part held-out is"
            )
    return found


def _content(example: Example) -> tuple[int, ...]:
    return tuple(map(identity, (*example.texts, *example.choices)))
