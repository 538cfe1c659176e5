"""Plain fine-tuning of an encoder for a task: data divided once, settings searched on dev, a score on what neither saw.

    subarch finetune runs/mine --task rte --data glue_data          # the run's pretrained, or else selected, encoder
    subarch finetune models/all-MiniLM-L6-v2 --task sst2 --data glue_data --learning-rate 3e-5 --learning-rate 1e-4

Every setting is tried with the first seed; the best on dev is trained again with the other seeds, so that the score has
a spread. The held-out part (`division`) is predicted when all is chosen, by the models of the best setting only.

In the run folder, `finetuned/<task>/` is the model that is best on dev, a stock folder, with metrics.json (all fits and
scores) and heldout.json (the predictions); `finetuned/<task>.fits/` keeps the models of the best setting, one per seed.
Killed at any instant, the same command goes on, and repeats no fit that was finished.
"""

from __future__ import annotations

import shutil
import statistics as numbers
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from subarch.doctor import machine, usable_cores, versions
from subarch.errors import InvalidStudy, InvalidTask, TrainingDiverged
from subarch.finetuning.adequacy import adequate
from subarch.finetuning.config import FinetuneConfig, Theta
from subarch.finetuning.division import Parts, parts_of
from subarch.finetuning.fit import Fitted, Logits, fit, labels_of, predict
from subarch.progress import Report, silent
from subarch.runs import RunFolder
from subarch.tasks import Examples, score, statistics
from subarch.tasks.metrics import primary
from subarch.teacher import cached

FREE = {"threads"}
"""Configuration keys that may differ when a search goes on; weights then agree up to rounding only."""


def places(model: Path, run: Path | None) -> tuple[Path, Path]:
    """The model that is meant by a folder, and the run folder that results go to.

    A run folder means its pretrained encoder, or else the selected one. Results of a model that lies in a run folder go
    there too, of any other to runs/<its name>.
    """
    if not (model / "config.json").is_file():
        for name in ("pretrained", "selected"):
            if (model / name / "config.json").is_file():
                return model / name, run or model
    if run is None:
        home = model.absolute().parent
        is_run = any((home / name).is_file() for name in ("config.yaml", "pretrain.yaml"))
        run = home if is_run else Path("runs") / model.name
    return model, run


def finetune(
    model: Path, config: FinetuneConfig, run: Path, restart: bool = False, report: Report = silent
) -> dict[str, Any]:
    """Search, train, score, and return what metrics.json holds. What is finished already is returned as it is.

    Args:
        model: folder of the encoder.
        run: folder that `finetuned/` is made in.
        restart: begin anew, without the fits that are there.

    Raises:
        InvalidTask: data that is missing or malformed, or a teacher that is not adequate.
        InvalidStudy: the folder holds a search with other settings, or cannot be written in.
        InvalidTeacher: a model that cannot be loaded.
        TrainingDiverged: with no setting could the model be trained.
    """
    target = run / "finetuned" / config.task
    fits = target.with_name(f"{config.task}.fits")
    try:
        fits.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidStudy(f"{fits}: cannot be made: {error}; choose another folder with --run") from error
    with RunFolder(fits) as folder:
        done = RunFolder(target)
        if restart:
            shutil.rmtree(target, ignore_errors=True)
        if restart or not (done.has("metrics") or any(fits.glob("*/fit.json"))):  # a mistyped name is not insisted on
            _clear(fits, keep=set())
        _ask(folder, model, config)
        if not done.has("metrics"):
            torch.set_num_threads(config.threads or usable_cores())
            _search(model, config, folder, target, report)
        result: dict[str, Any] = done.read("metrics")
        _clear(fits, keep={"question.json", *result["heldout"]["fits"]})
        return result


def _clear(fits: Path, keep: set[str]) -> None:
    """Delete fits, teacher's outputs and notes, but for those named."""
    for path in fits.iterdir():
        if path.name not in keep and path.is_dir():
            shutil.rmtree(path)
        elif path.name not in keep and path.suffix == ".json":
            path.unlink()


def _ask(folder: RunFolder, model: Path, config: FinetuneConfig) -> None:
    """Make sure that what the folder holds answers this question."""
    asked = {"model": str(model.absolute())} | config.model_dump(mode="json")
    if folder.has("question"):
        before = folder.read("question")
        if changed := [key for key in asked if key not in FREE and asked[key] != before.get(key)]:
            raise InvalidStudy(
                f"{folder.path}: was begun with another {', '.join(changed)} ({changed[0]} = "
                f"{before.get(changed[0])!r}); go on with it as it was, begin again with --restart, or choose another "
                "folder with --run"
            )
    folder.write("question", asked)


def _search(model: Path, config: FinetuneConfig, folder: RunFolder, target: Path, report: Report) -> None:
    """Try all settings, repeat the best with the other seeds, score those, and leave `target`."""
    parts = parts_of(config)
    about_teacher, soft = _teacher(config, parts, folder, report)
    thetas, others = config.thetas(), config.seeds[1:]
    trainings = len(thetas) + len(others)
    fits: list[Fitted] = []
    failures: dict[str, str] = {}

    def train(theta: Theta, number: int) -> Fitted | None:
        title = f"fine-tuning {number} of {trainings}"
        name = f"diverged-{theta}"
        if not folder.has(name):
            try:
                found = fit(
                    model,
                    parts.train,
                    parts.dev,
                    theta,
                    folder.path / str(theta),
                    settings=config.settings(),
                    teacher=soft,
                    report=lambda _, done, total: report(title, done, total),
                )
                fits.append(found)
                return found
            except TrainingDiverged as error:
                folder.write(name, str(error))
        failures[str(theta)] = folder.read(name)
        return None

    tried = [found for number, theta in enumerate(thetas, 1) if (found := train(theta, number))]
    if not tried:
        raise TrainingDiverged(
            f"{model}: diverged with all {len(thetas)} settings ({next(iter(failures.values()))}); give lower learning "
            "rates"
        )
    best = max(tried, key=lambda found: found.dev_score)  # the first of equals
    repeats = enumerate(others, len(thetas) + 1)
    again = [found for number, seed in repeats if (found := train(replace(best.theta, seed=seed), number))]
    chosen = max([best, *again], key=lambda found: found.dev_score)
    outputs = {
        found.theta.seed: predict(found.folder, parts.heldout, max_length=config.max_length, report=report)
        for found in (best, *again)
    }
    predictions = {seed: labels_of(parts.heldout.task, logits) for seed, logits in outputs.items()}
    scores = {seed: score(parts.heldout, found) for seed, found in predictions.items()}
    result = {
        "task": config.task,
        "metric": primary(parts.train.task),
        "model": model.absolute().name,
        "data": {
            "source": config.data,
            "division": parts.sentence,
            **{name: statistics(getattr(parts, name)) for name in ("train", "dev", "heldout")},
            "truncated": best.truncated,
        },
        "fits": [_about(found) for found in fits],
        "diverged": failures,
        "best": str(best.theta),
        "chosen": str(chosen.theta),
        "heldout": {
            "scores": scores[chosen.theta.seed],
            "seeds": {str(seed): found for seed, found in scores.items()},
            "fits": [str(found.theta) for found in (best, *again)],
            **_spread(list(scores.values())),
        },
        "teacher": about_teacher,
        "cost": {
            "trainings": len(fits),
            "examples_seen": sum(found.examples_seen for found in fits),
            "seconds": sum(found.seconds for found in fits),
        },
        "config": config.model_dump(mode="json"),
        "machine": machine(),
        "versions": versions(),
    }
    rows = [example.id for example in parts.heldout]
    _leave(chosen.folder, target, result, {"ids": rows, "labels": parts.heldout.labels, "seeds": predictions})


def _teacher(
    config: FinetuneConfig, parts: Parts, folder: RunFolder, report: Report
) -> tuple[dict[str, Any] | None, Logits | None]:
    """What is told of a teacher that is adequate, or allowed to be anything; and its soft targets for train."""
    teacher = config.teacher
    if teacher is None:
        return None, None

    def says(examples: Examples) -> Logits:
        found: Logits = cached(
            folder.path / "teacher",
            examples.part,
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
    return about, np.array(says(parts.train))


def _about(found: Fitted) -> dict[str, Any]:
    """A row of the table of fits."""
    return {
        "name": str(found.theta),
        **asdict(found.theta),
        "dev": found.dev_scores,
        "epoch": found.epoch,
        "history": found.history,
        "steps": found.steps,
        "examples_seen": found.examples_seen,
        "seconds": found.seconds,
    }


def _spread(scores: list[dict[str, float]]) -> dict[str, Any]:
    """Mean and standard deviation (of a sample; None for one) of each metric over the seeds."""
    columns = {name: [one[name] for one in scores] for name in scores[0]}
    return {
        "mean": {name: numbers.fmean(column) for name, column in columns.items()},
        "deviation": {name: numbers.stdev(column) if len(column) > 1 else None for name, column in columns.items()},
    }


def _leave(chosen: Path, target: Path, result: dict[str, Any], predictions: dict[str, Any]) -> None:
    """The chosen fit with its scores; whole or not at all."""
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(chosen, partial)
    left = RunFolder(partial)
    left.write("heldout", predictions)
    left.write("metrics", result)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
