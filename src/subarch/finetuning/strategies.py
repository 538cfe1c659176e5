"""How a fine-tuning searches: plainly, on the data as it is, or by Agora, which makes more of it near the mistakes.

Both try all settings with the first seed, train the best again with the other seeds, on the data that the best was
trained on, and tell what they found in one form: whoever scores the models need not know how they came about.

    >>> fits = Fits(model, parts, config, folder, report)
    >>> found = with_agora(fits, teacher, print) if config.agora else plain(fits, None)
    >>> found.best.dev_score, len(found.again)
    (0.61, 2)
"""

from __future__ import annotations

import math
import shutil
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from subarch.errors import TrainingDiverged
from subarch.finetuning.agora import WORST, Outcome, agora, check
from subarch.finetuning.config import FinetuneConfig, Theta
from subarch.finetuning.diary import Training
from subarch.finetuning.fit import Fitted, fit
from subarch.finetuning.neighbours import Neighbourhood
from subarch.finetuning.pruning import Forecast, forecast
from subarch.models.heads import Logits, labels_of
from subarch.run.files import replaced
from subarch.run.folder import RunFolder
from subarch.run.progress import Report
from subarch.tasks import Examples, statistics
from subarch.tasks.division import Parts

STEPS = 9
"""Optimiser steps that the pace is taken of; the first is not timed."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search came to.

    Attributes:
        best: of all trainings with the first seed the best on dev, the first of equals.
        again: the same settings on the same data with the other seeds.
        rows: of the table of trainings, in their order; the name of one whose model is kept is that of its folder.
        failures: why trainings diverged, by name.
        seconds: spent on the data, besides the trainings.
        agora: how Agora went, in short; None: plain.
        record: the whole of it, for agora.json.
    """

    best: Fitted
    again: list[Fitted]
    rows: list[dict[str, Any]]
    failures: dict[str, str]
    seconds: float = 0.0
    agora: dict[str, Any] | None = None
    record: dict[str, Any] | None = None


@dataclass(slots=True)
class Fits:
    """The trainings of a search, each in a folder of its own below `folder`."""

    model: Path
    parts: Parts
    config: FinetuneConfig
    folder: RunFolder
    report: Report

    def train(self, theta: Theta, data: Examples, place: Path, title: str, soft: Logits | None = None) -> Fitted:
        """Train, or find again what was trained; `soft` are the teacher's outputs for `data`."""
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
        """Train with each setting; of those that diverge the reasons, which are noted and not sought again."""
        found, failures = [], {}
        for number, theta in enumerate(thetas, 1):
            note = f"diverged-{theta}"
            if not self.folder.has(note):
                try:
                    place = self.folder.path / str(theta)
                    found.append(self.train(theta, data, place, f"{title} {number} of {len(thetas)}", soft))
                    continue
                except TrainingDiverged as error:
                    self.folder.write(note, str(error))
            failures[str(theta)] = self.folder.read(note)
        return found, failures

    def repeat(self, best: Theta, data: Examples, soft: Logits | None = None) -> tuple[list[Fitted], dict[str, str]]:
        """Train the best setting with the other seeds."""
        others = [replace(best, seed=seed) for seed in self.config.others()]
        return self.each(others, data, "fine-tuning with other seeds", soft)


def plain(fits: Fits, soft: Logits | None) -> Found:
    """Every setting on the training data, with the teacher's outputs for it where there is a teacher.

    Raises:
        TrainingDiverged: with every setting.
    """
    thetas, train = fits.config.thetas(), fits.parts.train
    tried, failures = fits.each(thetas, train, "fine-tuning", soft)
    if not tried:
        raise TrainingDiverged(
            f"{fits.model}: diverged with all {len(thetas)} settings ({next(iter(failures.values()))}); give lower "
            "learning rates"
        )
    best = max(tried, key=lambda found: found.dev_score)  # the first of equals
    again, lost = fits.repeat(best.theta, train, soft)
    return Found(best, again, [_row_of(found) for found in (*tried, *again)], failures | lost)


def with_agora(fits: Fits, teacher: Callable[[Examples], Sequence[float]], say: Callable[[str], object]) -> Found:
    """Agora over the settings; dev is ℰ, and no text of the three parts is made again.

    Args:
        teacher: S, examples -> labels; whether it is adequate was asked before.
        say: told once what to expect, before the first training.

    Raises:
        InvalidConfig, InvalidTeacher, InvalidCorpus: what Agora or `Neighbourhood` cannot run with.
        TrainingDiverged: with every setting.
    """
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
    say(_sentence(expected, len(thetas), config.others()))
    outcome = agora(
        thetas,
        parts.train,
        parts.dev,
        folder / "agora",
        fit=lambda data, _, theta, place: fits.train(theta, data, place, f"Agora, {place.parent.name}, {theta}"),
        predicted=labels_of,
        teacher=teacher,
        transform=transform,
        pruning=pruning,
        about=config.model_dump(mode="json", include={"teacher", "points", "masked_lm", "neighbours"}),
        many=config.many_sets,
        inadequate=config.any_teacher,
    )
    best = _taken(outcome, folder / str(outcome.theta))
    again, lost = fits.repeat(outcome.theta, outcome.data)
    named = [(_name(training, outcome, thetas), training) for training in outcome.trainings]
    rows = [_row(name, thetas[one.theta], one.scores, one) for name, one in named if not one.failure]
    failures = {name: training.failure for name, training in named if training.failure}
    cost = outcome.record["cost"]
    return Found(
        best,
        again,
        rows + [_row_of(found) for found in again],
        failures | lost,
        cost["points_seconds"] + cost["labels_seconds"],
        _summary(outcome, expected),
        outcome.record,
    )


def _expected(fits: Fits, thetas: Sequence[Theta]) -> Forecast:
    """What is ahead; an iteration makes at most as many points as a best model needs that says always the same."""
    config, train, dev = fits.config, fits.parts.train, fits.parts.dev
    assert config.agora is not None
    if not fits.folder.has("pace"):
        fits.folder.write("pace", _pace(fits, thetas[0]))
    wrong = WORST if dev.task.head == "regression" else 1 - statistics(dev)["majority_share"]
    return forecast(
        len(thetas),
        config.agora,
        repeats=len(config.others()),
        examples=len(train) + len(dev) // 3,  # dev is scored once an epoch: forward only, a third of a training
        epochs=config.epochs,
        growth=config.points * math.ceil(wrong * len(dev)),
        seconds=fits.folder.read("pace"),
    )


def _pace(fits: Fits, theta: Theta) -> float:
    """Seconds for one training example, forward and backward, by a few steps on examples of all labels."""
    train = fits.parts.train
    rows = sorted(train, key=lambda example: example.label or 0)
    taken = np.linspace(0, len(rows) - 1, min(len(rows), STEPS * theta.batch_size)).astype(int)
    sample = replace(train, rows=tuple(rows[at] for at in taken))
    # one that learns nothing cannot diverge either
    theta = replace(theta, learning_rate=0.0, epochs=1, batch_size=max(1, min(theta.batch_size, len(sample) // 2)))
    place, ends = fits.folder.path / "pace", list[float]()
    shutil.rmtree(place, ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its scores are of no interest
        settings = fits.config.settings()
        fit(
            fits.model,
            sample,
            sample,
            theta,
            place,
            settings=settings,
            report=lambda *_: ends.append(time.perf_counter()),
        )
    shutil.rmtree(place)
    return (ends[-1] - ends[0]) / (len(ends) - 1) / theta.batch_size


def _sentence(expected: Forecast, sets: int, seeds: Sequence[int]) -> str:
    text = f"Agora over {sets} settings: {expected}" if sets > 1 else f"Agora over one setting: {expected}"
    if seeds:
        text += f"; this counts the best setting again with seed {', '.join(map(str, seeds))}"
    return text if sets > 1 else f"{text}; with one setting no example is made, and no setting taken out"


def _taken(outcome: Outcome, place: Path) -> Fitted:
    """The best model as one of the fits, where its repetitions with other seeds will stand beside it."""
    if not place.is_dir():
        with replaced(place) as partial:
            shutil.copytree(outcome.model, partial, dirs_exist_ok=True)
    return Fitted.read(place)


def _name(training: Training, outcome: Outcome, thetas: Sequence[Theta]) -> str:
    """Settings are trained in several iterations; what is kept is named as its folder is."""
    theta = str(thetas[training.theta])
    is_best = training.model == outcome.record["best"]["model"]
    return theta if is_best else f"{training.model.split('/')[0]}/{theta}"


def _summary(outcome: Outcome, expected: Forecast) -> dict[str, Any]:
    record = outcome.record
    return {
        "pruning": record["pruning"],
        "iterations": len(record["iterations"]),
        "stopped": record["stopped"],
        "points": record["cost"]["points"],
        "examples": len(outcome.data),
        "cost": record["cost"],
        "forecast": asdict(expected),
    }


def _row_of(found: Fitted) -> dict[str, Any]:
    return _row(str(found.theta), found.theta, found.dev_scores, found)


def _row(name: str, theta: Theta, dev: dict[str, float] | None, one: Fitted | Training) -> dict[str, Any]:
    """A row of the table of trainings."""
    return {
        "name": name,
        **asdict(theta),
        "dev": dev,
        "epoch": one.epoch,
        "history": one.history,
        "steps": one.steps,
        "examples_seen": one.examples_seen,
        "seconds": one.seconds,
    }
