"""How many steps a pretraining takes, and whether the teacher is asked at every step or once: decided by measurement.

A few real steps tell the pace of student and teacher on this machine. From it follow the steps that fit into the
minutes given, and the cheaper of two ways to the teacher's targets: a pass at every step, or one pass over the whole
corpus whose outputs are kept on disk. Decided once and written down, since a resumed training must take the same steps.

    >>> schedule = decide(material, config, device, processes=1, accumulation=1)
    >>> schedule.steps, schedule.sentence
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from itertools import islice

import torch

from subarch.learning.collate import Loader
from subarch.pretraining.config import PretrainConfig
from subarch.pretraining.material import Material
from subarch.pretraining.timing import step_times

PROBED = 7
"""Parts of batches that the pace is measured on; the first only warms up."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """Seconds are those of an optimiser step; `sentence` says how the teacher is asked, and what else it would cost."""

    steps: int
    student_seconds: float
    teacher_seconds: float
    cached: bool
    maskings: int
    sentence: str


def decide(
    material: Material, config: PretrainConfig, device: torch.device, processes: int = 1, accumulation: int = 1
) -> Schedule:
    """Measure and decide. The student's weights stay as they are."""
    loader = Loader(material.source, material.budget, material.collator, processes=processes, accumulation=accumulation)
    parts = list(islice(loader, PROBED))
    times = step_times(material.distiller, material.side, parts, device, config.optimizer, config.precision)
    student, teacher = times.student * accumulation + times.optimizer, times.teacher * accumulation

    def steps_at(seconds: float, before: float = 0.0) -> int:
        if config.steps is not None:
            return config.steps
        assert config.minutes is not None
        return max(1, int((60 * config.minutes - before) / seconds))

    live = steps_at(student + teacher)
    if material.side is None:
        return Schedule(live, student, 0.0, False, 0, "no teacher is asked")
    sentence = f"the teacher at every step takes {_minutes(live * teacher)}"
    store = material.store
    if store is None:
        return Schedule(live, student, teacher, False, 0, f"{sentence}; each of its outputs is needed only once")
    whole = int(material.budget.sizes(store.segments).sum())
    seen = sum(part["sizes"][0] for part in parts) / len(parts)
    missing = 0.0
    for maskings in range(1, (config.maskings if material.collator.masker is not None else 1) + 1):
        missing += len(store.missing(maskings - 1)) / store.shards * whole
        once = times.teacher / seen * missing / processes
        cached = steps_at(student, once)
        if cached * config.batch_tokens <= maskings * whole:  # no epoch needs a further one
            break
    size = store.bytes_of(parts[0]) / parts[0]["sizes"][0] * missing
    sentence += f"; its outputs, computed once and kept, {_minutes(once)} and {size / 1e9:.1f} GB"
    fits = size < shutil.disk_usage(material.run).free / 2
    pays = cached > live if config.steps is None else once < live * teacher
    if config.targets == "cache" or (config.targets == "auto" and pays and fits):
        return Schedule(cached, student, 0.0, True, maskings, f"{sentence}: kept")
    return Schedule(live, student, teacher, False, 0, f"{sentence}: at every step")


def _minutes(seconds: float) -> str:
    return f"{seconds / 60:.1f} min"
