"""How long a training step takes on this machine: the teacher's part, the student's passes, the optimiser's.

>>> times = step_times(distiller, side, parts, torch.device("cpu"))
>>> times.student, times.teacher, times.optimizer            # median seconds
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from subarch.learning.distill import Distiller, TeacherSide

INPUTS = ("ids", "mask", "where", "labels")


@dataclass(frozen=True, slots=True)
class StepTimes:
    """Median seconds of a part of a batch, forward and backward, and of the optimiser's step; (n, 3) `all` of them."""

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
    """Train on the parts, the first to warm up, and time it; at a rate of 0, so that the weights stay as they are.

    Args:
        parts: what a `Loader` yields, or the keyword arguments of `Distiller.forward` but the targets.
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
