"""Full training of one architecture: by distillation, by masked LM, or both.

    subarch pretrain runs/mine --minutes 30              # what extraction selected there
    subarch pretrain runs/new --architecture 4-8-1024-768 --teacher roberta-large --corpus my-texts

It writes `pretrained/` (a stock folder), `pretrained.checkpoints/` and `pretraining.json` to the run folder. If it is
killed, the same command continues; on a CPU the weights are then equal, bit for bit, to those of a run that was never
interrupted. Under `torchrun` or `accelerate launch` all processes call it with the same arguments: with DDP, or with
FSDP if accelerate is configured for it (ACCELERATE_USE_FSDP=true FSDP_VERSION=2, best with
FSDP_AUTO_WRAP_POLICY=TRANSFORMER_BASED_WRAP FSDP_TRANSFORMER_CLS_TO_WRAP=BertLayer or RobertaLayer; not on CPUs).
"""

from __future__ import annotations

import math
import shutil
import warnings
from contextlib import nullcontext
from dataclasses import replace
from datetime import timedelta
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from numpy.typing import NDArray
from transformers import TrainingArguments, set_seed

from subarch.errors import InvalidConfig, InvalidStudy
from subarch.latency.measuring import measure_models
from subarch.learning.collate import Loader
from subarch.models.source import content_of as teacher_content
from subarch.models.source import figures_of, is_of_task, timed
from subarch.models.student import Student, hand_over
from subarch.numbers.architecture import Architecture, ParameterCount
from subarch.pretraining.config import PretrainConfig
from subarch.pretraining.setup import Setup, decide
from subarch.pretraining.trainer import PretrainTrainer, Progress, newest, put_aside
from subarch.run import Report, silent
from subarch.run.configuration import dump, load
from subarch.run.files import read_yaml
from subarch.run.folder import RunFolder, weights_file
from subarch.run.inputs import StageInputs, claim, of_file
from subarch.run.machine import machine, usable_cores, versions
from subarch.run.records import (
    Conclusion,
    CurveRow,
    Machine,
    PretrainedLatency,
    Pretraining,
    Schedule,
    Selection,
    Timing,
    TrainedParameters,
)
from subarch.show.card import write_card
from subarch.show.pretraining import against_labels, cut
from subarch.text.corpus import content_of as corpus_content

CHECKPOINTS = "pretrained.checkpoints"
EVENTS = "events"
FREE = {"threads", "teacher", "start_from", "corpus"}
"""Keys that may differ when a training goes on: threads change rounding only, the others are hashed by content."""
LATENCY_LENGTH = 32
"""Tokens of the input that student and teacher are timed on, as far as they read so many."""


def configure(run: Path, file: Path | None, given: dict[str, Any]) -> PretrainConfig:
    """The configuration of a pretraining in `run`: options override the file, which overrides that of the search.

    Raises:
        InvalidConfig: see `configuration.load`; or no architecture is given, and none was selected.
    """
    if file is None and not given and _has_begun(RunFolder(run)) and (run / "pretrain.yaml").is_file():
        return load(PretrainConfig, run / "pretrain.yaml", {})
    base: dict[str, Any] = {}
    if (run / "config.yaml").is_file():
        extraction = RunFolder.open(run)
        found = extraction.settings()
        base = {
            name: found.get(name)
            for name in (
                "teacher",
                "start_from",
                "prompt",
                "corpus",
                "text_column",
                "vocabulary_size",
                "max_length",
                "seed",
            )
        }
        if given.get("architecture") is None and extraction.has(Selection):
            winner = extraction.read(Selection).winner
            base["architecture"] = winner.architecture if winner else None
    named = read_yaml(file, InvalidConfig) if file is not None else None
    inherited = {key: value for key, value in base.items() if not isinstance(named, dict) or key not in named}
    config = load(PretrainConfig, file, inherited | {key: value for key, value in given.items() if value is not None})
    if config.architecture is None:
        raise InvalidConfig(
            f"{run}: no architecture was selected there; name one with --architecture, or run `subarch extract` first"
        )
    return config


def train(run: Path, config: PretrainConfig, restart: bool = False, report: Report = silent) -> Pretraining:
    """Train, write the model, and return the record of it. A training that is finished already is only read.

    Raises:
        SubarchError: see `errors`; the checkpoints that were written are kept.
    """
    try:
        run.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidStudy(f"{run}: cannot be made: {error}; choose another folder") from error
    state = PartialState(cpu=not torch.cuda.is_available(), timeout=timedelta(days=1))
    folder = RunFolder(run)
    with folder if state.is_main_process else nullcontext():
        architecture = Architecture.parse(str(config.architecture))
        searched = _searched(folder, architecture)
        if state.is_main_process and not restart:
            _claim(folder, config, searched)
        state.wait_for_everyone()
        if folder.has(Pretraining) and not restart:
            return folder.read(Pretraining)
        torch.set_num_threads(config.threads or max(1, usable_cores() // state.num_processes))
        torch.use_deterministic_algorithms(state.device.type == "cpu")
        # It would also overwrite every new tensor, which is slow and only helps code that reads uninitialised memory
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        told = report if state.is_main_process else silent
        with state.main_process_first():
            setup = Setup.load(config, folder.path, architecture, searched, told)
        if state.is_main_process and restart:  # not before: what cannot be loaded shall not cost a finished training
            for name in (CHECKPOINTS, EVENTS):
                shutil.rmtree(folder.path / name, ignore_errors=True)
            for kind in (Pretraining, Schedule):
                (folder.path / f"{kind.NAME}.json").unlink(missing_ok=True)
            _claim(folder, config, searched)
        state.wait_for_everyone()
        return _train(folder, config, setup, state, told)


def _claim(folder: RunFolder, config: PretrainConfig, searched: Path | None) -> None:
    """Make sure that what the folder holds was made from this input, or that nothing was made yet."""
    sources = {"corpus": corpus_content(config.corpus, config.text_column, is_of_task(config.teacher))}
    for name in ("teacher", "start_from"):
        if (path := getattr(config, name)) is not None:
            sources[name] = teacher_content(path)
    if searched is not None and config.initialise in (None, "search"):
        sources["file of weights to start from"] = of_file(searched, InvalidStudy)
    inputs = StageInputs(config=config.model_dump(mode="json"), sources=sources)
    claim(folder, inputs, begun=_has_begun(folder), free=FREE, name="pretraining.inputs")
    folder.write_text("pretrain.yaml", dump(config))


def _has_begun(folder: RunFolder) -> bool:
    """What was refused before the first step, for a mistyped teacher or a loss, leaves nothing that could be lost."""
    return folder.has(Schedule) or folder.has(Pretraining)


def _train(folder: RunFolder, config: PretrainConfig, setup: Setup, state: PartialState, report: Report) -> Pretraining:
    architecture = Architecture.parse(str(config.architecture))
    distiller, processes = setup.distiller, state.num_processes
    if config.compile:
        distiller.student.encoder.compile(dynamic=True)
    micro = config.micro_tokens or config.batch_tokens
    accumulation = math.ceil(config.batch_tokens / (micro * processes))

    if state.is_main_process and not folder.has(Schedule):
        report("measuring the pace", 0, 0)
        folder.write(decide(setup, config, state.device, processes, accumulation))
    state.wait_for_everyone()
    schedule = folder.read(Schedule)
    report(schedule.sentence, 0, 0)
    if schedule.cached:
        assert setup.store is not None
        for masking in range(schedule.maskings):
            told = partial(report, "teacher targets")
            setup.store.fill(masking, told, state.process_index, processes)
        state.wait_for_everyone()

    def warn(message: str) -> None:
        warnings.warn(message, stacklevel=2)

    if state.is_main_process:
        put_aside(folder.path / CHECKPOINTS, warn)
    state.wait_for_everyone()
    checkpoint = newest(folder.path / CHECKPOINTS, warn)
    progress = Progress.read(checkpoint) if checkpoint else Progress(str(architecture))
    if progress.architecture != str(architecture):
        raise InvalidStudy(
            f"{checkpoint}: is a checkpoint of {progress.architecture}, and {architecture} is to be trained; "
            "begin again with --restart, or choose another folder"
        )
    # Only the maskings that are cached
    collator = replace(setup.collator, maskings=schedule.maskings) if schedule.cached else setup.collator

    def read(epoch: int, rows: NDArray[np.int64], length: int) -> dict[str, Any]:
        assert setup.store is not None
        return setup.store.read(collator.masking(epoch) if collator.masker else 0, rows, length)

    loader = Loader(
        setup.source,
        setup.budget,
        collator,
        progress.position,
        process=state.process_index,
        processes=processes,
        accumulation=accumulation,
        cached=read if schedule.cached else None,
    )
    set_seed(config.seed)
    trainer = PretrainTrainer(
        distiller,
        _arguments(folder.path, config, set(distiller.weights), schedule.steps, accumulation, fresh=checkpoint is None),
        loader,
        setup.heldout,
        setup.side,
        progress,
        report,
        folder.path / EVENTS if find_spec("tensorboard") else None,
        setup.heldout_targets,
        setup.spoken,
    )
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    weights = trainer.accelerator.get_state_dict(trainer.model)
    if state.is_main_process:
        student = setup.trained(architecture, weights)
        folder.write(_hand_over(folder, config, setup, student, trainer, schedule, report))
    state.wait_for_everyone()
    return folder.read(Pretraining)


def _arguments(
    run: Path, config: PretrainConfig, losses: set[str], steps: int, accumulation: int, fresh: bool
) -> TrainingArguments:
    every = max(1, math.ceil(steps / config.evaluations))
    cpu = not torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(run / CHECKPOINTS),
        max_steps=steps,
        per_device_train_batch_size=1,  # not used: the loader makes the batches
        gradient_accumulation_steps=accumulation,
        optim="sgd" if config.optimizer == "sgd" else "adamw_torch_fused",
        learning_rate=config.learning_rate,
        lr_scheduler_type="linear",
        warmup_steps=round(config.warm_up * steps),
        weight_decay=config.weight_decay,
        max_grad_norm=config.clip,
        bf16=config.precision == "bf16",
        use_cpu=cpu,
        ddp_backend="gloo" if cpu and PartialState().num_processes > 1 else None,
        # Relations use the last layer's queries, keys and values: the weights after them get no gradient
        ddp_find_unused_parameters=losses == {"relations"},
        ignore_data_skip=True,  # the loader starts after the last trained batch
        eval_strategy="steps",
        eval_steps=every,
        eval_on_start=fresh,  # a checkpoint has that of its step already
        save_strategy="steps",
        save_steps=every,
        logging_strategy="steps",
        logging_steps=max(1, every // 5),
        report_to="none",  # the trainer writes the events
        disable_tqdm=True,
        seed=config.seed,
    )


def _searched(folder: RunFolder, architecture: Architecture) -> Path | None:
    """The weights that the search left of this architecture, if it was trained there."""
    if not folder.has(Selection) or not folder.has(Conclusion):
        return None
    numbers = {row.architecture: row.trial for row in folder.read(Selection).candidates}
    for trial in folder.read(Conclusion).trials:
        if trial.number == numbers.get(str(architecture)):
            theta = trial.hyperparameters
            settings = (trial.steps, theta.learning_rate, theta.batch_size, trial.seed)
            path = weights_file(folder.path, architecture, *settings)
            return path if path.is_file() else None
    return None


def _hand_over(
    folder: RunFolder,
    config: PretrainConfig,
    setup: Setup,
    student: Student,
    trainer: PretrainTrainer,
    schedule: Schedule,
    report: Report,
) -> Pretraining:
    """Time the student, write it as stock files with a model card, and return the record of the training."""
    report("measuring latency", 0, 0)
    teacher, progress = setup.material.teacher, trainer.progress
    figures = figures_of(teacher, LATENCY_LENGTH)
    architecture = Architecture.parse(str(config.architecture))
    parameters = architecture.parameters(setup.blueprint.inputs)
    recipe = setup.material.handed_over
    curve, heldout = _curves(trainer)
    record = Pretraining(
        architecture=str(architecture),
        parameters=TrainedParameters(total=parameters.total, encoder=parameters.effective),
        config=config.model_dump(mode="json"),
        started=setup.started,
        losses=setup.distiller.weights,
        schedule=schedule,
        steps=trainer.state.global_step,
        seconds=progress.seconds,
        tokens=progress.tokens,
        max_length=recipe.max_length,
        padding=1 - progress.tokens / progress.padded,
        tokens_per_second=progress.tokens / progress.seconds,
        curve=curve,
        heldout=heldout,
        teacher=None if teacher is None else teacher.name,
        teacher_architecture=None if figures is None else figures.architecture,
        gold=setup.gold(student),
        agreement=setup.agreement(student, trainer.teacher_said),
        latency=_latency(setup, student),
        machine=Machine.model_validate(machine()),
        versions=versions(),
    )
    hand_over(student, setup.material.tokenizer, recipe, folder.path / "pretrained")
    write_card(folder.path / "pretrained", _facts(folder, config, record, parameters))
    return record


def _latency(setup: Setup, student: Student) -> PretrainedLatency:
    models: dict[str, torch.nn.Module] = {"student": student}
    if setup.material.teacher is not None and (teacher := timed(setup.material.teacher)) is not None:
        models["teacher"] = teacher.cpu()
    length, threads = min(LATENCY_LENGTH, setup.material.recipe.max_length), usable_cores()
    vocabulary = len(setup.material.tokenizer)
    found = measure_models(models, vocabulary, batch=1, length=length, threads=threads, rounds=5)
    times = {name: Timing(**latency.model_dump()) for name, latency in found.items()}
    return PretrainedLatency(batch=1, length=length, threads=threads, runtime="torch", **times)


def _curves(trainer: PretrainTrainer) -> tuple[tuple[CurveRow, ...], tuple[dict[str, float], ...]]:
    """Training losses and held-out losses by step, over all interruptions."""
    log = trainer.state.log_history
    training = tuple(
        CurveRow(step=int(row["step"]), seconds=row["seconds"], loss=row["loss"], learning_rate=row["learning_rate"])
        for row in log
        if "loss" in row
    )
    heldout = tuple(
        {"step": row["step"], "seconds": row["seconds"]}
        | {name.removeprefix("eval_"): value for name, value in row.items() if name.startswith("eval_")}
        for row in log
        if "eval_loss" in row
    )
    return training, heldout


def _facts(folder: RunFolder, config: PretrainConfig, record: Pretraining, parts: ParameterCount) -> dict[str, Any]:
    """What the model card says."""
    why = None
    winner = folder.read(Selection).winner if folder.has(Selection) else None
    if winner is not None and winner.architecture == record.architecture:
        asked = folder.read(Selection).objective.model_dump(exclude_none=True)
        limits = ", ".join(
            f"{key.replace('_', ' ')} {value:g}" for key, value in asked.items() if isinstance(value, (int, float))
        )
        why = f"Selected by architecture search: optimal in {asked['name']}" + (f", under {limits}" if limits else "")
    kept = ", vocabulary" if Architecture.parse(record.architecture).vocabulary else ""
    first, last, latency = record.heldout[0], record.heldout[-1], record.latency
    times = {"student": latency.student} | ({"teacher": latency.teacher} if latency.teacher else {})
    return {
        "teacher": config.teacher,
        "architecture": {
            f"depth, heads, hidden, intermediate{kept}": record.architecture,
            "total": record.parameters.total,
            "embeddings": parts.embeddings,
            "encoder": parts.encoder,
            "map to the output": parts.projection or None,
        },
        "why": why,
        "data": {"corpus": ", ".join(Path(name).name for name in config.corpus), "tokens read": record.tokens},
        "loss": {
            "weights": ", ".join(f"{name} {weight:g}" for name, weight in record.losses.items()),
            "started from": record.started,
        },
        "cost": {
            "steps": record.steps,
            "minutes": round(record.seconds / 60, 1),
            "machine": f"{latency.threads} cores of {record.machine.processor}",
        },
        "quality": [
            {"held-out loss": name, "before": first[name], "after": last[name]}
            for name in (*record.losses, *(name for name in last if name.startswith("loss")))
        ],
        "labels": against_labels(record),
        "dimensions": cut(record),
        "latency": [
            {"model": who, "ms": time.median_ms, "batch": 1, "tokens": latency.length, "threads": latency.threads}
            for who, time in times.items()
        ],
        "limits": [f"reads at most {record.max_length} tokens", "evaluated on held-out text of its own corpus only"],
    }
