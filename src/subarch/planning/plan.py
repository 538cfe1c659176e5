"""What a pretraining run will take, before it is paid for: operations, memory, hours; of student and teacher.

Operations and memory are closed forms (`cost`). Speed is not: it is measured here (`pace`), or taken from a device's
peak and a stated utilisation.

    >>> bort, teacher = Architecture.parse("4-8-1024-768"), Architecture.parse("24-16-1024-4096")
    >>> job = Job(bort, Inputs(50265, 514, 1), ("logits", "mlm"), teacher, length=512)
    >>> plan(job, at_peak(job, 125.0, 0.3), tokens=1e9)["both"]["hours"]
    6.525...

`subarch plan --architecture 4-8-1024-768 --teacher 24-16-1024-4096 --loss logits --device v100 --hours 288` is the same
from a shell; docs/plan.md reads the published run with it.
"""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from subarch.errors import InvalidArchitecture, InvalidConfig, InvalidTeacher
from subarch.models.sentence import read_json, transformer_of
from subarch.numbers.architecture import Architecture, Inputs
from subarch.planning.config import PlanConfig
from subarch.planning.cost import (
    Job,
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
from subarch.text.corpus import Corpus

ROBERTA = Inputs(vocabulary=50265, positions=514, token_types=1)
"""The tables where no teacher folder tells them."""


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
) -> dict[str, Any]:
    """The whole account, ready for JSON. FLOPs count 2 for a multiply-add; bytes are of one device.

    Args:
        tokens: processed in the run, special ones included; or
        hours: of one device, teacher and student, from which the tokens follow; neither: no totals.
        corpus: tokens of one pass over the corpus, where it is known.
        gpus: devices that share the hours, with no loss between them.
    """
    student, teacher = (2 * count / job.length for count in (training_operations(job), teacher_operations(job)))
    flops = {"student": student, "teacher": teacher, "both": student + teacher}
    step = pace.student_token + pace.optimizer_step * gpus / job.batch_tokens  # each device updates all weights
    seconds = {"student": step, "teacher": pace.teacher_token, "both": step + pace.teacher_token}
    if hours is not None:
        tokens = hours * 3600 / seconds["both"]

    def account(who: str) -> dict[str, Any]:
        speed = {"flops_per_token": flops[who], "tokens_per_second": 1 / seconds[who] if seconds[who] else None}
        if tokens is None:
            return speed
        spent = tokens * seconds[who] / 3600
        return speed | {"flops": flops[who] * tokens, "hours": spent, "wall_hours": spent / gpus}

    memory = {"student": student_memory(job), "teacher": teacher_memory(job)}
    settings = {name: getattr(job, name) for name in ("losses", "length", "masked", "batch_tokens", "micro_tokens")}
    return {
        "architecture": str(job.student),
        "teacher_architecture": job.teacher and str(job.teacher),
        "vocabulary": job.inputs.vocabulary,
        **settings,
        "optimizer": job.optimizer,
        "precision": job.precision,
        "freeze_embeddings": job.freeze_embeddings,
        "gpus": gpus,
        "pace": pace.source,
        "tokens": tokens,
        "steps": tokens and tokens / job.batch_tokens,
        "epochs": tokens and corpus and tokens / corpus,
        "student": {
            "parameters": student_parameters(job),
            "forward_flops_per_token": 2 * student_operations(job) / job.length,
            **account("student"),
            "memory_bytes": memory["student"].to_dict(),
        },
        "teacher": {
            "parameters": teacher_parameters(job),
            **account("teacher"),
            "memory_bytes": memory["teacher"].to_dict(),
        },
        "both": account("both") | {"memory_bytes": {"total": sum(m.total for m in memory.values())}},
    }


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of a teacher without its weights; `inputs` and `folder` are None where only its shape was given."""

    architecture: Architecture
    inputs: Inputs | None
    has_head: bool
    folder: Path | None


def draw_up(config: PlanConfig) -> dict[str, Any]:
    """The plan that a configuration asks for. Only the timing of steps, at device here, takes time.

    Raises:
        InvalidArchitecture, InvalidTeacher, InvalidCorpus: what is planned with cannot be.
        InvalidConfig: a loss without the teacher it needs, or sequences that do not fit.
    """
    teacher = read_teacher(config.teacher) if config.teacher else None
    job = _job(config, teacher)
    corpus = _pass_tokens(config)
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
        pace = measure(job, loaded, config.seconds)
    return plan(job, pace, tokens, config.hours, corpus, config.gpus)


def read_teacher(text: str) -> Known:
    """A teacher given by its folder, of which config.json alone is read, or by its shape D-A-H-I.

    A shape is taken to have the head that its losses need.

    Raises:
        InvalidTeacher: neither, or a folder whose config.json is not that of a BERT or RoBERTa model.
    """
    folder = Path(os.path.expanduser(text))
    if not folder.is_dir():
        try:
            return Known(Architecture.parse(text), None, has_head=True, folder=None)
        except InvalidArchitecture as error:
            raise InvalidTeacher(f"teacher {text!r} is no folder; as a shape: {error}") from error
    config = read_json(transformer_of(folder)[0] / "config.json")
    try:
        keys = ("num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size")
        tables = Inputs(*(config[key] for key in ("vocab_size", "max_position_embeddings", "type_vocab_size")))
        architecture = Architecture(*(config[key] for key in keys))
    except KeyError as error:
        raise InvalidTeacher(
            f"{folder}/config.json: {error} is missing; the folder of a BERT or RoBERTa model is needed"
        ) from error
    has_head = any("ForMaskedLM" in name for name in config.get("architectures") or ())
    return Known(architecture, tables, has_head, folder)


def _job(config: PlanConfig, teacher: Known | None) -> Job:
    tables = asdict(teacher.inputs if teacher and teacher.inputs else ROBERTA)
    given = {"vocabulary": config.vocabulary, "positions": config.positions, "token_types": config.token_types}
    for key, rows in given.items():
        if rows is not None and teacher and teacher.inputs and rows != tables[key]:
            raise InvalidConfig(
                f"{key} {rows} differs from the {tables[key]} of {teacher.folder}, whose tokenizer the student shares; "
                f"leave {key} out, or give the teacher's shape instead of its folder"
            )
    tables |= {key: rows for key, rows in given.items() if rows is not None}
    if config.loss is None:
        losses = tuple(WITHOUT_TEACHER if teacher is None else WITH_HEAD if teacher.has_head else WITHOUT_HEAD)
    else:
        losses = tuple(dict.fromkeys(config.loss))
    if "logits" in losses and teacher and not teacher.has_head:
        raise InvalidTeacher(f"{teacher.folder}: has no masked-LM head, which loss logits needs; use loss embedding")
    return Job(
        Architecture.parse(config.architecture),
        Inputs(**tables),
        losses,
        teacher.architecture if teacher else None,
        config.length,
        config.masked,
        config.batch_tokens,
        config.micro_tokens or max(config.length, config.batch_tokens // config.gpus),
        config.optimizer,
        config.precision,
        config.freeze_embeddings,
    )


def _pass_tokens(config: PlanConfig) -> float | None:
    """Tokens of one pass over the corpus, with the two special ones of each sequence; None without a corpus.

    A packed corpus is counted sequence by sequence, a number of tokens is taken to fill its sequences.
    """
    room = config.length - 2
    if config.corpus is not None:
        sizes = Corpus.load(config.corpus).segments("train", room).size
        return float(sizes.sum() + 2 * len(sizes))
    return None if config.corpus_tokens is None else config.corpus_tokens * config.length / room
