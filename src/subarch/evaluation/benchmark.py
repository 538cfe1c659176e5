"""Tasks of MTEB, scored by the package mteb itself: the extra `mteb`.

    subarch evaluate runs/mine --mteb NanoBEIR
    subarch evaluate runs/mine --mteb STSBenchmark --mteb SciFact

A name is that of a task or of a benchmark, whose tasks it stands for. The files are those that mteb writes,
mteb/results/MODEL/FINGERPRINT/TASK.json, and so are the scores in them; a task that is there already for the same model
is not run again. Data sets come from the hub, as mteb loads them.

    >>> benchmarked(load(Path("runs/mine/pretrained")), tasks_of(["STSBenchmark"]), Path("runs/mine/mteb"))
    [TaskScore(task='STSBenchmark', metric='cosine_spearman', score=0.79)]
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from subarch.errors import InvalidTask, InvalidTeacher, MissingExtra
from subarch.evaluation.retrieval import Embedder, Model, prompts_of
from subarch.models.teacher import BATCH
from subarch.run import Report, silent
from subarch.run.record import Row


class TaskScore(Row):
    """The main score of a task, as mteb names it: the mean over the task's subsets and parts."""

    task: str
    metric: str
    score: float


def tasks_of(names: Sequence[str]) -> list[Any]:
    """The tasks of these names, or of the benchmarks of these names, each once.

    Raises:
        MissingExtra: mteb is not installed.
        InvalidTask: a name that mteb does not know.
    """
    mteb = _mteb()
    found: dict[str, Any] = {}
    for name in names:
        try:
            tasks = mteb.get_benchmark(name).tasks
        except KeyError:
            try:
                tasks = [mteb.get_task(name)]
            except KeyError as error:
                raise InvalidTask(
                    f"{name!r} is neither a task nor a benchmark of mteb {mteb.__version__}: {error.args[0]}"
                ) from error
        found |= {task.metadata.name: task for task in tasks}
    return list(found.values())


def benchmarked(model: Model, tasks: Sequence[Any], folder: Path, report: Report = silent) -> list[TaskScore]:
    """Run the tasks, and leave mteb's own files in the folder.

    Raises:
        InvalidTeacher: the model is a reranker.
        InvalidTask: mteb could not run a task, such as for data that it could not load; those before it are kept.
    """
    mteb = _mteb()
    if not isinstance(model, Embedder):
        raise InvalidTeacher(f"{model.name}: is a reranker, and tasks of mteb are run with embedding models; name one")
    wrapped, cache, scores = _wrapped(model), mteb.ResultCache(folder), []
    for number, task in enumerate(tasks):
        name = task.metadata.name
        report(f"task {name} of mteb", number, len(tasks))
        try:
            found = mteb.evaluate(
                wrapped,
                [task],
                co2_tracker=False,
                encode_kwargs={"batch_size": BATCH, "show_progress_bar": False},
                cache=cache,
                show_progress_bar=False,
            )
        except Exception as error:  # of any library that mteb, or the loader of this task, uses
            why = f"{type(error).__name__}: {error}"
            raise InvalidTask(
                f"task {name} of mteb could not be run: {why}. Its data are loaded from the hub; tasks that are done "
                "stay, and the same command goes on"
            ) from error
        (result,) = found.task_results
        scores.append(TaskScore(task=name, metric=task.metadata.main_score, score=float(result.get_score())))
    report("tasks of mteb", len(tasks), len(tasks))
    return scores


def _wrapped(model: Embedder) -> Any:
    """The model as mteb takes it, under its name and its fingerprint, with the prompts of its folder by role."""
    from mteb.models import ModelMeta, SentenceTransformerEncoderWrapper

    prompts = prompts_of(model)
    wrapped = SentenceTransformerEncoderWrapper(model.encoder, model_prompts=prompts if any(prompts.values()) else None)
    name = re.sub(r"[^\w.-]+", "-", Path(model.name).absolute().name)
    wrapped.mteb_model_meta = ModelMeta.create_empty(
        overwrites={"name": f"subarch/{name}", "revision": model.fingerprint, "loader": type(wrapped)}
    )
    return wrapped


def _mteb() -> Any:
    try:
        import mteb
    except ImportError as error:
        raise MissingExtra(
            f"tasks of MTEB need the package mteb, which cannot be imported ({error}); pip install 'subarch[mteb]'"
        ) from error
    return mteb
