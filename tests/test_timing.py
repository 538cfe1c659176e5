"""The time of a training step: medians of a clock that the test turns, and weights that stay as they are."""

from __future__ import annotations

import copy
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from subarch.learning.collate import Collator, Loader
from subarch.learning.distill import Distiller, TeacherSide
from subarch.models.student import Blueprint, Student
from subarch.models.teacher import Teacher
from subarch.numbers.architecture import Architecture
from subarch.pretraining.setup import INPUTS, StepTimes, step_times
from subarch.text.batches import Budget, Packed
from subarch.text.corpus import Segments
from subarch.text.masking import Masker
from tiny import tiny_teacher

CPU = torch.device("cpu")


@pytest.fixture
def teacher(tmp_path: Path) -> Teacher:
    return Teacher.load(tiny_teacher(tmp_path / "teacher", masked_lm=True))


def distiller_of(teacher: Teacher, **weights: float) -> Distiller:
    student = Student(Architecture.parse("1-2-16-24"), Blueprint.of_teacher(teacher, True, True))
    return Distiller(student, weights, teacher)


def parts(teacher: Teacher, number: int = 4) -> list[dict[str, Any]]:
    sizes = np.random.default_rng(0).integers(3, 20, 40)
    segments = Segments(np.arange(sizes.sum(), dtype=np.int32) % 80 + 5, np.cumsum(sizes) - sizes, sizes)
    collator = Collator(teacher.tokenizer, teacher.recipe, Masker(teacher.tokenizer), 0)
    return list(islice(Loader(Packed(segments, 0), Budget(128, 64), collator), number))


def clock(monkeypatch: pytest.MonkeyPatch, steps: list[tuple[float, float, float]]) -> None:
    """The teacher, the student and the optimiser take these seconds in turn."""
    marks = [0.0]
    for step in steps:
        marks += [marks[-1], *(marks[-1] + sum(step[: at + 1]) for at in range(3))]
    times = iter(marks[1:])
    monkeypatch.setattr("subarch.pretraining.setup._now", lambda _device: next(times))


def test_medians_without_the_first_step(teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = [(90.0, 90.0, 90.0), (1.0, 5.0, 2.0), (3.0, 4.0, 9.0), (2.0, 6.0, 3.0)]
    clock(monkeypatch, steps)
    distiller = distiller_of(teacher, mlm=1.0, logits=1.0)
    found = step_times(distiller, TeacherSide(teacher, distiller), parts(teacher), CPU)
    assert found == StepTimes(teacher=2.0, student=5.0, optimizer=3.0, all=steps[1:])


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_weights_stay_as_they_are(teacher: Teacher, optimizer: str) -> None:
    distiller = distiller_of(teacher, mlm=1.0, logits=1.0, hidden=1.0)
    distiller.student.encoder.embeddings.word_embeddings.weight.requires_grad_(False)
    before = copy.deepcopy(distiller.state_dict())
    found = step_times(distiller, TeacherSide(teacher, distiller), parts(teacher), CPU, optimizer)
    assert all(torch.equal(value, before[name]) for name, value in distiller.state_dict().items())
    assert all(parameter.grad is None for parameter in distiller.parameters())
    assert distiller.training
    assert min(found.teacher, found.student, found.optimizer) > 0


def test_without_a_teacher(teacher: Teacher, monkeypatch: pytest.MonkeyPatch) -> None:
    clock(monkeypatch, [(0.0, 1.0, 1.0)] * 2)
    only = {name: parts(teacher, 1)[0][name] for name in INPUTS[:-1]}  # what a forward pass of prose takes
    found = step_times(distiller_of(teacher, mlm=1.0), None, [only] * 2, CPU)
    assert (found.teacher, found.student) == (0.0, 1.0)


def test_half_precision_is_used_where_it_is_asked_for(teacher: Teacher) -> None:
    seen = set()
    distiller = distiller_of(teacher, mlm=1.0)
    distiller.student.head.register_forward_hook(lambda _module, _args, output: seen.add(output.dtype))
    step_times(distiller, None, parts(teacher, 2), CPU, precision="bf16")
    assert seen == {torch.bfloat16}
