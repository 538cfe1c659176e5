"""What a pretraining run will take, before it is paid for: operations, memory, hours; of student and teacher.

Operations and memory are closed forms (`cost`). Speed is measured here (`pace`), or follows from a device's peak and a
given utilisation. docs/plan.md applies `subarch plan` to the published run.

    >>> bort, teacher = Architecture.parse("4-8-1024-768"), Architecture.parse("24-16-1024-4096")
    >>> job = Job(bort, Inputs(50265, 514, 1), ("logits", "mlm"), teacher, length=512)
    >>> plan(job, at_peak(job, 125.0, 0.3), tokens=1e9).both.hours
    6.525...
"""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from subarch.errors import InvalidArchitecture, InvalidTeacher, NotInheritable
from subarch.models.kinds import architectures
from subarch.models.sentence import read_json, transformer_of
from subarch.numbers.architecture import Architecture, Inputs
from subarch.planning.config import PlanConfig
from subarch.planning.cost import (
    Job,
    Memory,
    Pace,
    student_memory,
    student_operations,
    student_parameters,
    teacher_memory,
    teacher_operations,
    teacher_parameters,
    training_operations,
)
from subarch.pretraining.config import WITH_HEAD, WITHOUT_HEAD, WITHOUT_TEACHER
from subarch.run.files import unreadable
from subarch.run.record import Free, Record, Row
from subarch.text.corpus import Corpus

ROBERTA = Inputs(vocabulary=50265, positions=514, token_types=1)
"""The tables if no teacher folder is given."""


class Account(Row):
    """What the student, the teacher or both take. FLOPs count 2 for a multiply-add; hours are those of one device.

    Totals over the run are None if its duration is not given.
    """

    parameters: int | None = None
    forward_flops_per_token: float | None = None
    flops_per_token: float
    tokens_per_second: float | None
    flops: float | None = None
    hours: float | None = None
    wall_hours: float | None = None
    memory_bytes: Memory


class Plan(Record):
    """A plan: the job, the speed that it assumes (`pace`), the duration, and what student, teacher and both take."""

    NAME = "plan"

    architecture: str
    teacher_architecture: str | None
    vocabulary: int
    losses: tuple[str, ...]
    length: int
    batch_tokens: int
    micro_tokens: int
    precision: str
    gpus: int
    pace: Free
    tokens: float | None
    steps: float | None
    epochs: float | None
    student: Account
    teacher: Account
    both: Account


def at_peak(job: Job, tflops: float, utilisation: float, name: str = "") -> Pace:
    """The pace of a device that reaches `utilisation` of its `tflops` on every operation; the optimiser is free."""
    rate = tflops * 1e12 * utilisation
    student, teacher = (2 * count / job.length for count in (training_operations(job), teacher_operations(job)))
    source = {"device": name, "peak_tflops": tflops, "utilisation": utilisation}
    return Pace(student / rate, teacher / rate, 0.0, source)


def plan(
    job: Job,
    pace: Pace,
    tokens: float | None = None,
    hours: float | None = None,
    corpus: float | None = None,
    gpus: int = 1,
) -> Plan:
    """The plan of a job at a pace.

    Args:
        tokens: processed in the run, special ones included; or
        hours: of one device, teacher and student, from which the tokens follow; neither: no totals.
        corpus: tokens of one pass over the corpus, if known.
        gpus: devices that share the hours, with no loss between them.
    """
    student, teacher = (2 * count / job.length for count in (training_operations(job), teacher_operations(job)))
    step = pace.student_token + pace.optimizer_step * gpus / job.batch_tokens  # each device updates all weights
    if hours is not None:
        tokens = hours * 3600 / (step + pace.teacher_token)

    def account(flops: float, seconds: float, **more: Any) -> Account:
        more |= {"flops_per_token": flops, "tokens_per_second": 1 / seconds if seconds else None}
        if tokens is not None:
            spent = tokens * seconds / 3600
            more |= {"flops": flops * tokens, "hours": spent, "wall_hours": spent / gpus}
        return Account(**more)

    total = student_memory(job).total + teacher_memory(job).total
    return Plan(
        architecture=str(job.student),
        teacher_architecture=str(job.teacher) if job.teacher else None,
        vocabulary=job.inputs.vocabulary,
        losses=job.losses,
        length=job.length,
        batch_tokens=job.batch_tokens,
        micro_tokens=job.micro_tokens,
        precision=job.precision,
        gpus=gpus,
        pace=pace.source,
        tokens=tokens,
        steps=tokens / job.batch_tokens if tokens else None,
        epochs=tokens / corpus if tokens and corpus else None,
        student=account(
            student,
            step,
            parameters=student_parameters(job),
            forward_flops_per_token=2 * student_operations(job) / job.length,
            memory_bytes=student_memory(job),
        ),
        teacher=account(
            teacher, pace.teacher_token, parameters=teacher_parameters(job), memory_bytes=teacher_memory(job)
        ),
        both=account(student + teacher, step + pace.teacher_token, memory_bytes=Memory(total=total)),
    )


@dataclass(frozen=True, slots=True)
class Known:
    """A teacher without its weights; `inputs` and `folder` are None if only its architecture was given."""

    architecture: Architecture
    inputs: Inputs | None
    has_head: bool
    folder: Path | None


def draw_up(config: PlanConfig) -> Plan:
    """The plan of a configuration. Only the timing of steps, at device here, takes time.

    Raises:
        InvalidArchitecture, InvalidTeacher, InvalidCorpus: one of them cannot be read or does not exist.
        InvalidConfig: a loss without the teacher it needs, or sequences that do not fit.
    """
    teacher = read_teacher(config.teacher) if config.teacher else None
    job = _job(config, teacher)
    corpus = None
    if config.corpus is not None:
        sizes = Corpus.load(config.corpus).segments("train", config.length - 2).size
        corpus = float(sizes.sum() + 2 * len(sizes))
    if config.steps is not None:
        tokens: float | None = config.steps * config.batch_tokens
    elif corpus is not None and config.hours is None:
        tokens = corpus * (config.epochs or 1)
    else:
        tokens = None
    if config.peak is not None:
        pace = at_peak(job, config.peak, config.utilisation, config.device)
    else:
        from subarch.models.teacher import Teacher
        from subarch.planning.pace import measure

        loaded = Teacher.load(teacher.folder) if teacher and teacher.folder and job.asked else None
        pace = measure(job, loaded)
        job = replace(job, cpu=pace.source["device"] == "cpu")
    return plan(job, pace, tokens, config.hours, corpus, config.gpus)


def read_teacher(text: str) -> Known:
    """A teacher given by its folder, of which only config.json is read, or by its architecture D-A-H-I.

    An architecture is assumed to have the head that its losses need.

    Raises:
        InvalidTeacher: neither, or a folder whose config.json is not that of an encoder with known operations.
    """
    from subarch.models.parts import inputs_of

    folder = Path(os.path.expanduser(text))
    if not folder.is_dir():
        try:
            return Known(Architecture.parse(text), None, has_head=True, folder=None)
        except InvalidArchitecture as error:
            raise InvalidTeacher(f"teacher {text!r} is neither a folder nor an architecture: {error}") from error
    config, stock = _configs(folder, transformer_of(folder)[0])
    has_head = any("ForMaskedLM" in name for name in architectures(config))
    try:
        return Known(Architecture.from_config(stock), inputs_of(stock), has_head, folder)
    except NotInheritable as error:
        raise InvalidTeacher(f"{folder}: {error}") from error


def _configs(folder: Path, where: Path) -> tuple[dict[str, Any], Any]:
    """config.json, and the configuration of the stock class that computes the same."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    from subarch.models.families import CONVERTED, stock_config
    from subarch.models.teacher import FAMILIES

    config: dict[str, Any] = read_json(where / "config.json")
    if (family := config.get("model_type")) not in (*FAMILIES, *CONVERTED):
        raise InvalidTeacher(
            f"{folder}: model type {family!r} has no known number of operations here; give the architecture of a "
            "teacher of about its size instead, as in 12-12-768-3072, or a folder of one of "
            f"{', '.join((*FAMILIES, *CONVERTED))}"
        )
    try:
        stock = AutoConfig.from_pretrained(where, trust_remote_code=False)
    except (OSError, ValueError, StrictDataclassError) as error:
        raise InvalidTeacher(unreadable(where, error, f"its config.json cannot be read: {error}")) from error
    return config, stock_config(stock)


def _job(config: PlanConfig, teacher: Known | None) -> Job:
    if config.loss is None:
        losses = tuple(WITHOUT_TEACHER if teacher is None else WITH_HEAD if teacher.has_head else WITHOUT_HEAD)
    else:
        losses = tuple(dict.fromkeys(config.loss))
    if "logits" in losses and teacher and not teacher.has_head:
        raise InvalidTeacher(f"{teacher.folder}: has no masked-LM head, which loss logits needs; use loss embedding")
    architecture = Architecture.parse(config.architecture)
    if architecture.vocabulary:
        raise InvalidArchitecture(
            f"{architecture}: a plan counts teacher and student on the same tokens, so with the whole vocabulary; "
            f"leave out -{architecture.vocabulary}"
        )
    return Job(
        architecture,
        teacher.inputs if teacher and teacher.inputs else ROBERTA,
        losses,
        teacher.architecture if teacher else None,
        config.length,
        config.batch_tokens,
        config.micro_tokens or max(config.length, config.batch_tokens // config.gpus),
        config.precision,
    )
