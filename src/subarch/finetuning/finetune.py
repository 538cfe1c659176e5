"""Fine-tuning of an encoder for a task: data divided once, settings searched on dev, a score on what neither saw.

    subarch finetune runs/mine --task rte --data glue_data          # the run's pretrained, or else selected, encoder
    subarch finetune models/all-MiniLM-L6-v2 --task sst2 --data glue_data --learning-rate 3e-5 --learning-rate 1e-4
    subarch finetune runs/mine --task rte --data glue_data --teacher runs/all-MiniLM-L6-v2/finetuned/rte --agora common

Every setting is tried with the first seed; the best on dev is trained again with the other seeds, so that the score has
a spread. What is tried on what is a matter of the strategy (`strategies`). The held-out part (`division`) is predicted
when all is chosen, by the models of the best setting only.

In the run folder, `finetuned/<task>/` is the model that is best on dev, a stock folder, with metrics.json (all fits and
scores), heldout.json (the predictions), report.json and report.html (see `evaluation.assess`), and agora.json where
Agora ran; `finetuned/<task>.fits/` keeps the models of the best setting, one per seed. Killed at any instant, the same
command goes on, and repeats no fit that was finished.
"""

from __future__ import annotations

import shutil
import statistics as numbers
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from subarch.errors import InvalidStudy, InvalidTask
from subarch.evaluation.assess import assess, leave
from subarch.finetuning.adequacy import adequate
from subarch.finetuning.config import FinetuneConfig
from subarch.finetuning.strategies import Fits, Found, plain, with_agora
from subarch.models.heads import Logits, labels_of, predict
from subarch.models.teacher import Teacher, cached, content_of
from subarch.run.folder import RunFolder
from subarch.run.inputs import StageInputs, claim, of_values
from subarch.run.machine import machine, usable_cores, versions
from subarch.run.progress import Report, silent
from subarch.show.card import write_card
from subarch.show.finetuned_card import facts_of
from subarch.tasks import Examples, score, statistics
from subarch.tasks.division import Parts, parts_of
from subarch.tasks.metrics import primary
from subarch.text.corpus import content_of as corpus_content
from subarch.text.read import hash64

FREE = {"threads", "data", "teacher", "masked_lm", "neighbours"}
"""Configuration keys that may differ when a search goes on: with other threads, weights agree up to rounding only;
the others name what is hashed."""

Says = Callable[[Examples], Logits]
"""What a teacher says of examples."""


def finetune(
    model: Path,
    config: FinetuneConfig,
    run: Path,
    restart: bool = False,
    report: Report = silent,
    *,
    say: Callable[[str], object] = lambda sentence: None,
    command: str = "",
) -> dict[str, Any]:
    """Search, train, score, and return what metrics.json holds. What is finished already is returned as it is.

    Args:
        model: folder of the encoder.
        run: folder that `finetuned/` is made in.
        restart: begin anew, without the fits that are there.
        say: told what Agora will take, before it begins.
        command: that the report shows, to do it again.

    Raises:
        InvalidTask: data that is missing or malformed, or a teacher that is not adequate.
        InvalidStudy: the folder holds a search with other settings, or cannot be written in.
        InvalidTeacher: a model that cannot be loaded.
        InvalidConfig, InvalidCorpus: what Agora cannot run with, or make examples of.
        TrainingDiverged: with no setting could the model be trained.
    """
    target = run / "finetuned" / config.task
    place = target.with_name(f"{config.task}.fits")
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidStudy(f"{place}: cannot be made: {error}; choose another folder with --run") from error
    with RunFolder(place) as folder:
        done, parts = RunFolder(target), parts_of(config)
        inputs = _inputs(model, config, parts)
        if restart:
            Teacher.load(model)  # what cannot be loaded shall not cost a finished fine-tuning
            shutil.rmtree(target, ignore_errors=True)
        begun = not restart and any(place.rglob("fit.json"))
        if done.has("metrics"):
            claim(done, inputs, begun=True, free=FREE)
        else:
            if not begun:  # a mistyped name is not insisted on
                _clear(place, keep=set())
            claim(folder, inputs, begun=begun, free=FREE)
            torch.set_num_threads(config.threads or usable_cores())
            about_teacher, says = _teacher(config, parts, folder, report)
            fits = Fits(model, parts, config, folder, report)
            _finish(_search(fits, says, say), fits, about_teacher, inputs, target, command)
        result: dict[str, Any] = done.read("metrics")
        _clear(place, keep={"inputs.json", *result["heldout"]["fits"]})
        shutil.rmtree(_unfinished(target), ignore_errors=True)
        return result


def _unfinished(target: Path) -> Path:
    return target.with_name(f".{target.name}.partial")


def _clear(folder: Path, keep: set[str]) -> None:
    """Delete fits, teacher's outputs and notes, but for those named."""
    for path in folder.iterdir():
        if path.name not in keep and path.is_dir():
            shutil.rmtree(path)
        elif path.name not in keep and path.suffix == ".json":
            path.unlink()


def _inputs(model: Path, config: FinetuneConfig, parts: Parts) -> StageInputs:
    """What a fine-tuning reads.

    Raises:
        InvalidTeacher, InvalidCorpus: something is missing or cannot be read.
    """
    sources = {"model": content_of(model)}
    for name, part in (("training", parts.train), ("development", parts.dev), ("held-out", parts.heldout)):
        sources[f"set of {name} examples"] = of_values(part.source, part.rows)
    if config.teacher is not None:
        sources["teacher"] = content_of(config.teacher)
    if config.masked_lm is not None:
        sources["masked language model"] = content_of(config.masked_lm)
    if config.neighbours is not None:
        sources["corpus of neighbours"] = corpus_content(config.neighbours, "text")
    return StageInputs(config=config.model_dump(mode="json"), sources=sources)


def _search(fits: Fits, says: Says | None, say: Callable[[str], object]) -> Found:
    if fits.config.agora:
        assert says is not None  # which the configuration sees to
        return with_agora(fits, lambda examples: labels_of(examples.task, says(examples)), say)
    return plain(fits, None if says is None else np.array(says(fits.parts.train)))


def _finish(
    found: Found,
    fits: Fits,
    about_teacher: dict[str, Any] | None,
    inputs: StageInputs,
    target: Path,
    command: str,
) -> None:
    """Predict what is held out, and leave `target` with what it came to."""
    parts, config, models = fits.parts, fits.config, [found.best, *found.again]
    chosen = max(models, key=lambda fitted: fitted.dev_score)
    outputs = {
        fitted.theta.seed: predict(fitted.folder, parts.heldout, max_length=config.max_length, report=fits.report)
        for fitted in models
    }
    predictions = {seed: labels_of(parts.heldout.task, logits) for seed, logits in outputs.items()}
    scores = {seed: score(parts.heldout, predicted) for seed, predicted in predictions.items()}
    result = {
        "task": config.task,
        "metric": primary(parts.train.task),
        "model": fits.model.absolute().name,
        "data": {
            "source": config.data,
            "division": parts.sentence,
            **{name: statistics(getattr(parts, name)) for name in ("train", "dev", "heldout")},
            "truncated": chosen.truncated,
        },
        "fits": found.rows,
        "diverged": found.failures,
        "best": str(found.best.theta),
        "chosen": str(chosen.theta),
        "heldout": {
            "scores": scores[chosen.theta.seed],
            "seeds": {str(seed): one for seed, one in scores.items()},
            "fits": [str(fitted.theta) for fitted in models],
            **_spread(list(scores.values())),
        },
        "teacher": about_teacher,
        "cost": {
            "trainings": len(found.rows) + len(found.failures),
            "examples_seen": sum(row["examples_seen"] for row in found.rows),
            "seconds": sum(row["seconds"] for row in found.rows) + found.seconds,
        },
        "agora": found.agora,
        "config": config.model_dump(mode="json"),
        "machine": machine(),
        "versions": versions(),
    }
    shown = [chosen.theta.seed, *(seed for seed in outputs if seed != chosen.theta.seed)]  # of examples the first's
    assessed = assess(parts.heldout, [outputs[seed] for seed in shown], labels_of)
    ids = [example.id for example in parts.heldout]
    partial = _unfinished(target) / target.name  # pages name a model as its folder
    shutil.rmtree(partial.parent, ignore_errors=True)
    shutil.copytree(chosen.folder, partial)
    left = RunFolder(partial)
    left.write("heldout", {"ids": ids, "labels": parts.heldout.labels, "seeds": predictions})
    left.write("metrics", result)
    left.write(inputs)
    write_card(partial, facts_of(fits.model, parts.heldout, result))
    if found.record:
        left.write("agora", found.record)
    leave(partial, parts.heldout, outputs[shown[0]], labels_of, assessed, command)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)


def _teacher(
    config: FinetuneConfig, parts: Parts, folder: RunFolder, report: Report
) -> tuple[dict[str, Any] | None, Says | None]:
    """What is told of a teacher that is adequate, or allowed to be anything; and the teacher, never asked twice."""
    teacher = config.teacher
    if teacher is None:
        return None, None

    def says(examples: Examples) -> Logits:
        found: Logits = cached(
            folder.path / "teacher",
            f"{examples.part} {hash64(repr(examples.rows)):016x}",
            lambda: predict(teacher, examples, max_length=config.max_length, report=report),
        )
        return found

    on_dev = labels_of(parts.dev.task, says(parts.dev))
    objection = adequate(parts.dev, on_dev)
    if objection and not config.any_teacher:
        raise InvalidTask(
            f"{teacher}: is no adequate teacher: {objection}; give a better one, none, or say --any-teacher"
        )
    about = {
        "model": teacher.absolute().name,
        "objection": objection,
        "dev": score(parts.dev, on_dev),
        "heldout": score(parts.heldout, labels_of(parts.heldout.task, says(parts.heldout))),
    }
    return about, says


def _spread(scores: list[dict[str, float]]) -> dict[str, Any]:
    """Mean and standard deviation (of a sample; None for one) of each metric over the seeds."""
    columns = {name: [one[name] for one in scores] for name in scores[0]}
    return {
        "mean": {name: numbers.fmean(column) for name, column in columns.items()},
        "deviation": {name: numbers.stdev(column) if len(column) > 1 else None for name, column in columns.items()},
    }
