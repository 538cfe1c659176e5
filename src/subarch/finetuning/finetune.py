"""Fine-tune an encoder for a task: divide the data once, search settings on dev, score on what neither saw.

    subarch finetune runs/mine --task rte --data glue_data          # the run's pretrained, or else selected, encoder
    subarch finetune models/all-MiniLM-L6-v2 --task sst2 --data glue_data --learning-rate 3e-5 --learning-rate 1e-4
    subarch finetune runs/mine --task rte --data glue_data --teacher runs/all-MiniLM-L6-v2/finetuned/rte --agora common

Every setting is tried with the first seed, and the best on dev is trained again with the other seeds, so that the score
has a standard deviation: on the data as it is (`plain`), or by Agora, which adds data near the mistakes (`with_agora`).
The held-out part is predicted at the very end, by the models of the best setting only.

In the run folder, `finetuned/<task>/` is the model that is best on dev, with the records and the report;
`finetuned/<task>.fits/` keeps the models of the best setting, one per seed. If it is killed at any instant, the same
command continues and repeats no finished training.
"""

from __future__ import annotations

import math
import shutil
import statistics as numbers
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from subarch.errors import InvalidStudy, InvalidTask, TrainingDiverged
from subarch.evaluation.evaluate import assess, cautions, leave
from subarch.finetuning.agora import WORST, Outcome, Training, adequate, agora, check, forecast, worded
from subarch.finetuning.config import FinetuneConfig, Theta
from subarch.finetuning.fit import Fitted, fit
from subarch.finetuning.neighbours import Neighbourhood
from subarch.learning.targets import TargetCache
from subarch.models.heads import Logits, labels_of, predict
from subarch.models.teacher import Teacher, content_of
from subarch.run import Report, records, silent
from subarch.run.files import replaced
from subarch.run.folder import RunFolder
from subarch.run.inputs import StageInputs, claim, of_values
from subarch.run.machine import machine, usable_cores, versions
from subarch.run.record import Bare
from subarch.show.card import facts_of, write_card
from subarch.tasks import Examples, score, statistics
from subarch.tasks.division import Parts, parts_of
from subarch.tasks.metrics import primary
from subarch.text.corpus import content_of as corpus_content
from subarch.text.read import hash64

FREE = {"threads", "data", "teacher", "masked_lm", "neighbours"}
"""Keys that may change when a search is continued: threads change rounding only, the others are hashed by content."""

STEPS = 9
"""Optimiser steps that the speed is measured with; the first is not timed."""

Says = Callable[[Examples], Logits]
"""The outputs of a teacher for examples."""


class Pace(Bare):
    """Seconds that a training example takes; measured once, so that a resumed run forecasts the same."""

    NAME = "pace"

    value: float


class Diverged(Bare):
    """Why a setting diverged, so that it is not tried again; in a file of its own for each setting."""

    NAME = "diverged"

    value: str


def finetune(
    model: Path,
    config: FinetuneConfig,
    run: Path,
    restart: bool = False,
    report: Report = silent,
    *,
    say: Callable[[str], object] = lambda sentence: None,
    command: str = "",
) -> records.Metrics:
    """Search, train and score; a search that is finished is returned as it is.

    Args:
        run: folder that `finetuned/` is made in.
        restart: begin again, without the trainings that are there.
        say: called with what Agora will take, before the first training.
        command: that the report shows to repeat the fine-tuning.

    Raises:
        InvalidTask: data that is missing or malformed, or a teacher that is not adequate.
        InvalidStudy: the folder holds a search with other settings, or cannot be written.
        InvalidTeacher: a model cannot be loaded.
        InvalidConfig, InvalidCorpus: Agora cannot run with these settings, or the corpus of neighbours cannot be read.
        TrainingDiverged: the training diverged with every setting.
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
            Teacher.load(model)  # fails before a finished fine-tuning is deleted
            shutil.rmtree(target, ignore_errors=True)
        begun = not restart and any(place.rglob("fit.json"))
        if done.has(records.Metrics):
            claim(done, inputs, begun=True, free=FREE)
        else:
            if not begun:  # nothing is lost, so the question may change
                _clear(place, keep=set())
            claim(folder, inputs, begun=begun, free=FREE)
            torch.set_num_threads(config.threads or usable_cores())
            about_teacher, says = _teacher(config, parts, folder, report)
            fits = Fits(model, parts, config, folder, report)
            if config.agora:
                assert says is not None  # the configuration requires a teacher
                found = with_agora(fits, lambda examples: labels_of(examples.task, says(examples)), say)
            else:
                found = plain(fits, None if says is None else np.array(says(parts.train)))
            _finish(found, fits, about_teacher, inputs, target, command)
        result = done.read(records.Metrics)
        _clear(place, keep={"inputs.json", *result.heldout.fits})
        shutil.rmtree(_unfinished(target), ignore_errors=True)
        return result


def _unfinished(target: Path) -> Path:
    return target.with_name(f".{target.name}.partial")


def _clear(folder: Path, keep: set[str]) -> None:
    for path in folder.iterdir():
        if path.name not in keep and path.is_dir():
            shutil.rmtree(path)
        elif path.name not in keep and path.suffix == ".json":
            path.unlink()


def _inputs(model: Path, config: FinetuneConfig, parts: Parts) -> StageInputs:
    """Everything that a fine-tuning reads."""
    sources = {"model": content_of(model)}
    for name, part in (("training", parts.train), ("development", parts.dev), ("held-out", parts.heldout)):
        sources[f"set of {name} examples"] = of_values(part.source, part.rows)
    for name, path in (("teacher", config.teacher), ("masked language model", config.masked_lm)):
        if path is not None:
            sources[name] = content_of(path)
    if config.neighbours is not None:
        sources["corpus of neighbours"] = corpus_content(config.neighbours, "text")
    return StageInputs(config=config.model_dump(mode="json"), sources=sources)


def _teacher(
    config: FinetuneConfig, parts: Parts, folder: RunFolder, report: Report
) -> tuple[records.TaskTeacher | None, Says | None]:
    """The record of the teacher, once it is adequate or allowed not to be; and its outputs, cached on disk."""
    teacher = config.teacher
    if teacher is None:
        return None, None

    identity = content_of(teacher).hash

    def says(examples: Examples) -> Logits:
        def compute() -> Tensor:
            return torch.from_numpy(predict(teacher, examples, max_length=config.max_length, report=report))

        cache = TargetCache(folder.path / "teacher", identity, f"{examples.part} {hash64(repr(examples.rows)):016x}")
        found: Logits = cache.get((config.max_length,), compute).numpy()
        return found

    on_dev = labels_of(parts.dev.task, says(parts.dev))
    objection = adequate(parts.dev, on_dev)
    if objection and not config.any_teacher:
        raise InvalidTask(
            f"{teacher}: is not an adequate teacher: {objection}; use a better one or none, or add --any-teacher"
        )
    about = records.TaskTeacher(
        model=teacher.absolute().name,
        objection=objection,
        dev=score(parts.dev, on_dev),
        heldout=score(parts.heldout, labels_of(parts.heldout.task, says(parts.heldout))),
    )
    return about, says


# Search


@dataclass(frozen=True, slots=True)
class Found:
    """The result of a search.

    `best` is the best on dev with the first seed (the first if equal), `again` the same settings with the other seeds.
    `rows` are all trainings (the name of one whose model is kept is that of its folder), `failures` say by name why
    trainings diverged, `seconds` were spent on the data in addition to the trainings.
    """

    best: Fitted
    again: list[Fitted]
    rows: list[records.FitRow]
    failures: dict[str, str]
    seconds: float = 0.0
    agora: records.AgoraSummary | None = None
    record: records.Agora | None = None


@dataclass(slots=True)
class Fits:
    """The trainings of a search, each in its own folder below `folder`."""

    model: Path
    parts: Parts
    config: FinetuneConfig
    folder: RunFolder
    report: Report

    def train(self, theta: Theta, data: Examples, place: Path, title: str, soft: Logits | None = None) -> Fitted:
        """Train, or read a finished training; `soft` are the teacher's outputs for `data`."""
        return fit(
            self.model,
            data,
            self.parts.dev,
            theta,
            place,
            settings=self.config.settings(),
            teacher=soft,
            report=lambda _, done, total: self.report(title, done, total),
        )

    def each(
        self, thetas: Sequence[Theta], data: Examples, title: str, soft: Logits | None = None
    ) -> tuple[list[Fitted], dict[str, str]]:
        """Train with each setting; for those that diverge the reasons, noted so as not to try them again."""
        found, failures = [], dict[str, str]()
        for number, theta in enumerate(thetas, 1):
            note = f"diverged-{theta}"
            if not self.folder.has(Diverged, note):
                try:
                    place = self.folder.path / str(theta)
                    found.append(self.train(theta, data, place, f"{title} {number} of {len(thetas)}", soft))
                    continue
                except TrainingDiverged as error:
                    self.folder.write(Diverged(value=str(error)), note)
            failures[str(theta)] = self.folder.read(Diverged, note).value
        return found, failures

    def repeat(self, best: Theta, data: Examples, soft: Logits | None = None) -> tuple[list[Fitted], dict[str, str]]:
        """Train the best setting with the other seeds."""
        others = [replace(best, seed=seed) for seed in self.config.others()]
        return self.each(others, data, "fine-tuning with other seeds", soft)


def plain(fits: Fits, soft: Logits | None) -> Found:
    """Try every setting on the training data, with the teacher's outputs for it if there is a teacher."""
    thetas, train = fits.config.thetas(), fits.parts.train
    tried, failures = fits.each(thetas, train, "fine-tuning", soft)
    if not tried:
        raise TrainingDiverged(
            f"{fits.model}: diverged with all {len(thetas)} settings ({next(iter(failures.values()))}); give lower "
            "learning rates"
        )
    best = max(tried, key=lambda found: found.dev_score)  # the first if equal
    again, lost = fits.repeat(best.theta, train, soft)
    rows = [_row(str(found.theta), found.theta, found.dev_scores, found) for found in (*tried, *again)]
    return Found(best, again, rows, failures | lost)


def with_agora(fits: Fits, teacher: Callable[[Examples], Sequence[float]], say: Callable[[str], object]) -> Found:
    """Run Agora over the settings; dev is ℰ, the teacher labels, and no text of the three parts is made again."""
    config, parts, folder = fits.config, fits.parts, fits.folder.path
    thetas, pruning = config.thetas(), config.agora
    assert pruning is not None
    check(thetas, parts.train, parts.dev, pruning, config.many_sets)
    transform = Neighbourhood.load(
        [parts.train, parts.dev, parts.heldout],
        encoder=fits.model,
        masked_lm=config.masked_lm,
        corpus=config.neighbours or (),
        cache=folder / "embeddings",
        each=config.points,
        seed=config.seeds[0],
    )
    expected = _expected(fits, thetas)
    text = f"Agora over {f'{len(thetas)} settings' if len(thetas) > 1 else 'one setting'}: {worded(expected)}"
    if seeds := config.others():
        text += f"; this includes repeating the best setting with seed {', '.join(map(str, seeds))}"
    say(text if len(thetas) > 1 else f"{text}; with one setting no examples are made and nothing is pruned")
    outcome = agora(
        thetas,
        parts.train,
        parts.dev,
        folder / "agora",
        fit=lambda data, _, theta, place: fits.train(theta, data, place, f"Agora, {place.parent.name}, {theta}"),
        teacher=teacher,
        transform=transform,
        pruning=pruning,
        about=config.model_dump(mode="json", include={"teacher", "points", "masked_lm", "neighbours"}),
        many=config.many_sets,
        inadequate=config.any_teacher,
    )
    place = folder / str(outcome.theta)
    if not place.is_dir():
        with replaced(place) as partial:
            shutil.copytree(outcome.model, partial, dirs_exist_ok=True)
    best = Fitted.read(place)
    again, lost = fits.repeat(outcome.theta, outcome.data)
    named = [(_name(training, outcome, thetas), training) for training in outcome.trainings]
    rows = [_row(name, thetas[one.theta], one.scores, one) for name, one in named if not one.failure]
    rows += [_row(str(one.theta), one.theta, one.dev_scores, one) for one in again]
    failures = {name: training.failure for name, training in named if training.failure}
    record = outcome.record
    return Found(
        best,
        again,
        rows,
        failures | lost,
        record.cost.points_seconds + record.cost.labels_seconds,
        records.AgoraSummary(
            pruning=record.pruning,
            iterations=len(record.iterations),
            stopped=record.stopped,
            points=record.cost.points,
            examples=len(outcome.data),
            cost=record.cost,
            forecast=expected,
        ),
        record,
    )


def _expected(fits: Fits, thetas: Sequence[Theta]) -> records.AgoraForecast:
    """A forecast; an iteration makes at most the points of a model that always predicts the majority."""
    config, train, dev = fits.config, fits.parts.train, fits.parts.dev
    assert config.agora is not None
    if not fits.folder.has(Pace):
        fits.folder.write(Pace(value=_pace(fits, thetas[0])))
    wrong = WORST if dev.task.head == "regression" else 1 - statistics(dev)["majority_share"]
    return forecast(
        len(thetas),
        config.agora,
        repeats=len(config.others()),
        examples=len(train) + len(dev) // 3,  # dev is scored once an epoch: forward only, a third of a training
        epochs=config.epochs,
        growth=config.points * math.ceil(wrong * len(dev)),
        seconds=fits.folder.read(Pace).value,
    )


def _pace(fits: Fits, theta: Theta) -> float:
    """Seconds for one training example, forward and backward, by a few steps on examples of all labels."""
    train = fits.parts.train
    rows = sorted(train, key=lambda example: example.label or 0)
    taken = np.linspace(0, len(rows) - 1, min(len(rows), STEPS * theta.batch_size)).astype(int)
    sample = replace(train, rows=tuple(rows[at] for at in taken))
    # with a learning rate of 0 it cannot diverge
    theta = replace(theta, learning_rate=0.0, epochs=1, batch_size=max(1, min(theta.batch_size, len(sample) // 2)))
    place, ends = fits.folder.path / "pace", list[float]()
    shutil.rmtree(place, ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about its scores, which do not matter
        timed = replace(fits, parts=replace(fits.parts, dev=sample), report=lambda *_: ends.append(time.perf_counter()))
        timed.train(theta, sample, place, "measuring the pace")
    shutil.rmtree(place)
    return (ends[-1] - ends[0]) / (len(ends) - 1) / theta.batch_size


def _name(training: Training, outcome: Outcome, thetas: Sequence[Theta]) -> str:
    """The folder of the model that is kept; for others with the iteration, as settings are trained in several."""
    place = "" if training.model == outcome.record.best.model else f"{training.model.split('/')[0]}/"
    return f"{place}{thetas[training.theta]}"


def _row(name: str, theta: Theta, dev: dict[str, float] | None, one: Fitted | Training) -> records.FitRow:
    took = {key: getattr(one, key) for key in ("epoch", "steps", "examples_seen", "seconds")}
    return records.FitRow(name=name, **asdict(theta), dev=dev, history=tuple(one.history), **took)


# Result


def _ids(examples: Examples) -> tuple[str, ...]:
    """An id for each prediction: the example's; where words are tagged, with the number of the word from 0."""
    if examples.task.head != "tagging":
        return tuple(example.id for example in examples)
    return tuple(f"{example.id}-{word}" for example in examples for word in range(len(example.texts)))


def _finish(
    found: Found, fits: Fits, about_teacher: records.TaskTeacher | None, inputs: StageInputs, target: Path, command: str
) -> None:
    """Predict the held-out part and write `target`."""
    parts, config, models = fits.parts, fits.config, [found.best, *found.again]
    chosen = max(models, key=lambda fitted: fitted.dev_score)
    outputs = {
        fitted.theta.seed: predict(fitted.folder, parts.heldout, max_length=config.max_length, report=fits.report)
        for fitted in models
    }
    predictions = {seed: labels_of(parts.heldout.task, logits) for seed, logits in outputs.items()}
    scores = {seed: score(parts.heldout, predicted) for seed, predicted in predictions.items()}
    columns = {name: [one[name] for one in scores.values()] for name in scores[chosen.theta.seed]}
    overlaps = {f"{one.part} in {one.other}": one.rows for one in parts.overlap}
    result = records.Metrics(
        task=config.task,
        metric=primary(parts.train.task),
        model=fits.model.absolute().name,
        data=records.TaskData(
            source=config.data,
            division=parts.sentence,
            train=records.ExampleStatistics(**statistics(parts.train)),
            dev=records.ExampleStatistics(**statistics(parts.dev)),
            heldout=records.ExampleStatistics(**statistics(parts.heldout)),
            truncated=chosen.truncated,
            **({"overlaps": overlaps} if overlaps else {}),
        ),
        fits=tuple(found.rows),
        diverged=found.failures,
        best=str(found.best.theta),
        chosen=str(chosen.theta),
        heldout=records.HeldoutScores(
            scores=scores[chosen.theta.seed],
            seeds={str(seed): one for seed, one in scores.items()},
            fits=tuple(str(fitted.theta) for fitted in models),
            mean={name: numbers.fmean(column) for name, column in columns.items()},
            deviation={name: numbers.stdev(column) if len(column) > 1 else None for name, column in columns.items()},
        ),
        teacher=about_teacher,
        cost=records.FitCost(
            trainings=len(found.rows) + len(found.failures),
            examples_seen=sum(row.examples_seen for row in found.rows),
            seconds=sum(row.seconds for row in found.rows) + found.seconds,
        ),
        agora=found.agora,
        config=config.model_dump(mode="json"),
        machine=records.Machine.model_validate(machine()),
        versions=versions(),
    )
    shown = [chosen.theta.seed, *(seed for seed in outputs if seed != chosen.theta.seed)]  # examples are the first's
    assessed = assess(parts.heldout, [outputs[seed] for seed in shown])
    assessed = assessed.model_copy(update={"warnings": (*cautions(parts, parts.heldout), *assessed.warnings)})
    partial = _unfinished(target) / target.name  # the page shows the folder's name
    shutil.rmtree(partial.parent, ignore_errors=True)
    shutil.copytree(chosen.folder, partial)
    left = RunFolder(partial)
    assert parts.heldout.labels is not None
    left.write(
        records.Heldout(
            ids=_ids(parts.heldout),
            labels=parts.heldout.labels,
            seeds={str(seed): tuple(predicted) for seed, predicted in predictions.items()},
        )
    )
    left.write(result)
    left.write(inputs)
    write_card(partial, facts_of(fits.model, parts.heldout, result))
    if found.record:
        left.write(found.record)
    leave(partial, parts.heldout, outputs[shown[0]], assessed, command)
    shutil.rmtree(target, ignore_errors=True)
    partial.rename(target)
