"""How many steps a pretraining takes, and whether the teacher's outputs are cached: decided by measurement, once.

A few real steps measure how long student, teacher and optimiser take on this machine. From that follow the steps that
fit into the minutes given, and the cheaper of two ways to the teacher's outputs: to compute them at every step, or once
for the whole corpus. The decision is recorded, since a resumed training must take the same steps.

    >>> schedule = decide(setup, config, device, processes=1, accumulation=1)
    >>> schedule.steps, schedule.sentence
    >>> step_times(distiller, side, parts, torch.device("cpu")).student          # median seconds
"""

from __future__ import annotations

import shutil
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import nn

from subarch.learning.collate import Loader
from subarch.learning.distill import Distiller, TeacherSide
from subarch.pretraining.config import PretrainConfig
from subarch.pretraining.setup import Setup
from subarch.run.records import Schedule

PROBED = 7
"""Parts of batches that are timed; the first is a warm-up."""
INPUTS = ("ids", "mask", "where", "labels")


def decide(
    setup: Setup, config: PretrainConfig, device: torch.device, processes: int = 1, accumulation: int = 1
) -> Schedule:
    """Measure and decide. The student's weights do not change."""
    loader = Loader(setup.source, setup.budget, setup.collator, processes=processes, accumulation=accumulation)
    parts = list(islice(loader, PROBED))
    times = step_times(setup.distiller, setup.side, parts, device, config.optimizer, config.precision)
    student, teacher = times.student * accumulation + times.optimizer, times.teacher * accumulation

    def steps_at(seconds: float, before: float = 0.0) -> int:
        if config.steps is not None:
            return config.steps
        assert config.minutes is not None
        return max(1, int((60 * config.minutes - before) / seconds))

    live = steps_at(student + teacher)

    def uncached(sentence: str) -> Schedule:
        return Schedule(
            steps=live,
            student_seconds=student,
            teacher_seconds=teacher,
            cached=False,
            maskings=0,
            sentence=sentence,
        )

    if setup.side is None:
        return uncached("no loss needs a teacher")
    sentence = f"running the teacher at every step takes {_minutes(live * teacher)}"
    store = setup.store
    if store is None:
        return uncached(f"{sentence}; no output is needed twice, so none is cached")
    whole = int(setup.budget.sizes(store.segments).sum())
    seen = sum(part["sizes"][0] for part in parts) / len(parts)
    missing = 0.0
    for maskings in range(1, (config.maskings if setup.collator.masker is not None else 1) + 1):
        missing += len(store.missing(maskings - 1)) / store.shards * whole
        once = times.teacher / seen * missing / processes
        cached = steps_at(student, once)
        if cached * config.batch_tokens <= maskings * whole:  # no epoch needs a further one
            break
    size = store.bytes_of(parts[0]) / parts[0]["sizes"][0] * missing
    sentence += f"; computing its outputs once takes {_minutes(once)} and {size / 1e9:.1f} GB"
    fits = size < shutil.disk_usage(setup.material.run).free / 2
    pays = cached > live if config.steps is None else once < live * teacher
    if config.targets == "cache" or (config.targets == "auto" and pays and fits):
        return Schedule(
            steps=cached,
            student_seconds=student,
            teacher_seconds=0.0,
            cached=True,
            maskings=maskings,
            sentence=f"{sentence}: they are cached",
        )
    return uncached(f"{sentence}: it runs at every step")


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min"


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Median seconds of a part of a batch (teacher; student forward and backward) and of an optimiser step.

    `all`: the times that these are medians of, (teacher, student, optimiser).
    """

    teacher: float
    student: float
    optimizer: float
    all: list[tuple[float, float, float]]


def step_times(
    distiller: Distiller,
    side: TeacherSide | None,
    parts: Iterable[dict[str, Any]],
    device: torch.device,
    optimizer: str = "adamw",
    precision: str = "fp32",
) -> StepTimes:
    """Train on the parts at a learning rate of 0, so that the weights do not change, and time it. The first warms up.

    Args:
        parts: what a `Loader` yields, or the keyword arguments of `Distiller.forward` without the targets.
    """
    distiller.to(device).train()
    if side is not None:
        side.to(device)
    trained = [parameter for parameter in distiller.parameters() if parameter.requires_grad]
    # As the trainer does: fused, one pass over each weight. At a rate of 0 weights keep ordinary magnitudes.
    step = torch.optim.AdamW(trained, lr=0.0, fused=True) if optimizer == "adamw" else torch.optim.SGD(trained, lr=0.0)
    times = []
    for part in parts:
        inputs = {name: part[name].to(device) for name in INPUTS if name in part}
        marks = [_now(device)]
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            targets = None if side is None else side.live(inputs["ids"], inputs["mask"], inputs.get("where"))
            marks.append(_now(device))
            loss = distiller(**inputs, targets=targets)["loss"]
        loss.backward()
        marks.append(_now(device))
        nn.utils.clip_grad_norm_(trained, 1.0)
        step.step()
        step.zero_grad()
        marks.append(_now(device))
        times.append((marks[1] - marks[0], marks[2] - marks[1], marks[3] - marks[2]))
    teacher, student, stepping = map(statistics.median, zip(*times[1:], strict=True))
    return StepTimes(teacher, student, stepping, times[1:])


def _now(device: torch.device) -> float:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
    return time.perf_counter()
