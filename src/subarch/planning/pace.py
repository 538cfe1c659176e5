"""The pretraining speed of this machine: a few real training steps on random text, timed.

The steps are those of `distill`, without the reading of text. On a CPU a pass has at most SAMPLE tokens: its speed
hardly depends on the batch beyond that, and a full pass of a large teacher would take minutes.

    >>> from subarch.planning.pace import measure
    >>> plan(job, measure(job, None), tokens=1e8).both.hours
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from subarch.learning.distill import Distiller, TeacherSide
from subarch.models.parts import set_dropout
from subarch.models.sentence import Recipe
from subarch.models.student import Blueprint, Student
from subarch.models.teacher import Teacher
from subarch.planning.cost import Job, Pace, teacher_operations, training_operations
from subarch.pretraining.setup import step_times
from subarch.run.machine import machine

SAMPLE = 1024
"""Most tokens of a timed pass on a CPU."""
SECONDS, LEAST = 10.0, 3
"""Training steps are timed for so many seconds, but at least so many steps."""


def measure(job: Job, teacher: Teacher | None, seconds: float | None = None) -> Pace:
    """Median times over `seconds` (default SECONDS) of training steps on this machine's accelerator, or its CPU.

    Without a `teacher`, one with random weights is made if a loss needs it.
    """
    device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    if job.asked is not None and teacher is None:
        teacher = made_up(job)
    distiller, side = build(job, teacher)
    most = max(job.length, min(job.micro_tokens, SAMPLE)) if device.type == "cpu" else job.micro_tokens
    tokens = (sequences := most // job.length) * job.length
    batches = repeated(text(job, sequences), SECONDS if seconds is None else seconds)
    times = step_times(distiller, side, batches, device, precision=job.precision)
    of = {"student": times.student, "teacher": times.teacher, "optimizer": times.optimizer}
    quartiles = np.percentile(times.all, [25, 75], axis=0).T.tolist()
    operations = {"student": training_operations(job), "teacher": teacher_operations(job)}
    source = {
        "device": str(device),
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "tokens_per_pass": tokens,
        "passes": len(times.all),
        "seconds": of,
        "seconds_quartiles": dict(zip(("teacher", "student", "optimizer"), quartiles, strict=True)),
        "gflops": {who: 2e-9 * count * sequences / of[who] for who, count in operations.items() if count},
    }
    return Pace(times.student / tokens, times.teacher / tokens if side else 0.0, times.optimizer, source)


def build(job: Job, teacher: Teacher | None) -> tuple[Distiller, TeacherSide | None]:
    """The student with its losses, freshly initialised, and the teacher's side if there is a teacher."""
    if teacher is None:
        blueprint = Blueprint(job.inputs.family, job.inputs, masked_lm=True)
    else:
        blueprint = Blueprint.of_teacher(teacher, job.has_head, "embedding" in job.losses or not job.has_head)
    student = Student(job.student, blueprint)
    set_dropout(student, 0.0)
    distiller = Distiller(student, dict.fromkeys(job.losses, 1.0), teacher)
    return distiller, TeacherSide(teacher, distiller) if teacher is not None else None


def made_up(job: Job) -> Teacher:
    """A teacher of the job's shape with random weights, in evaluation mode; it has no tokenizer."""
    assert job.asked is not None
    model = (
        Student(job.asked, Blueprint(job.inputs.family, job.inputs, masked_lm=True)).model.eval().requires_grad_(False)
    )
    recipe = Recipe(max_length=job.length)
    return Teacher(Path(), model.base_model, None, recipe, nn.Sequential(), model, "")


def text(job: Job, sequences: int) -> dict[str, Tensor]:
    """Random full sequences: (n, L) ids and mask, (m,) masked positions in the flattened ids and their true tokens."""
    ids = torch.randint(5, job.inputs.vocabulary, (sequences, job.length))
    starts = torch.arange(sequences)[:, None] * job.length
    where = (starts + torch.arange(round(job.masked_positions))).flatten()
    return {"ids": ids, "mask": torch.ones_like(ids), "where": where, "labels": ids.flatten()[where]}


def repeated(batch: dict[str, Tensor], seconds: float) -> Iterator[dict[str, Tensor]]:
    """The batch again and again: once to warm up, then for `seconds`, but LEAST times at least."""
    yield batch
    end, done = time.perf_counter() + seconds, 0
    while done < LEAST or time.perf_counter() < end:
        yield batch
        done += 1
