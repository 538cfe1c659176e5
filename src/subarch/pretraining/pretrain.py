"""Full training of one architecture: by distillation, by masked LM, or both.

    subarch pretrain runs/mine --minutes 30              # what extraction selected there
    subarch pretrain runs/new --architecture 4-8-1024-768 --teacher roberta-large --corpus my-texts

It leaves `pretrained/` (a stock Hugging Face folder with a model card), `pretrained.checkpoints/` and
`pretraining.json` in the run folder. Killed at any instant, the same command goes on; on a CPU the weights are then,
bit for bit, those of a run that was never interrupted. Under `torchrun` or `accelerate launch` all processes call it
alike: with DDP, or with FSDP where accelerate is told so (ACCELERATE_USE_FSDP=true FSDP_VERSION=2, best with
FSDP_AUTO_WRAP_POLICY=TRANSFORMER_BASED_WRAP FSDP_TRANSFORMER_CLS_TO_WRAP=BertLayer or RobertaLayer). accelerate 1.15
does not shard on CPUs: there it trains with DDP whatever it is told.
"""

from __future__ import annotations

import math
import shutil
import warnings
from contextlib import nullcontext
from dataclasses import asdict, replace
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from transformers import TrainingArguments, set_seed

from subarch.errors import InvalidConfig, InvalidStudy
from subarch.learning.collate import Cached, Collator, Loader
from subarch.learning.targets import TargetStore
from subarch.models.student import Student
from subarch.numbers.architecture import Architecture
from subarch.pretraining.checkpoints import newest, put_aside
from subarch.pretraining.config import PretrainConfig
from subarch.pretraining.material import Material
from subarch.pretraining.outcome import outcome
from subarch.pretraining.schedule import Schedule, decide
from subarch.pretraining.trainer import PretrainTrainer, Progress
from subarch.run.configuration import dump, load
from subarch.run.folder import RunFolder, trial_weights
from subarch.run.machine import usable_cores
from subarch.run.progress import Report, silent
from subarch.run.records import Conclusion, Selection
from subarch.run.yamlfile import read_yaml

CHECKPOINTS = "pretrained.checkpoints"
EVENTS = "events"
FREE = {"threads"}
"""Configuration keys that may differ when a training goes on; weights then agree up to rounding only."""


def configure(run: Path, file: Path | None, given: dict[str, Any]) -> PretrainConfig:
    """The configuration of a pretraining in `run`: options over file, over what the run was extracted with.

    Raises:
        InvalidConfig: see `configuration.load`; no architecture is given, and none was selected.
    """
    if file is None and not given and (run / "pretrain.yaml").is_file():
        return load(PretrainConfig, run / "pretrain.yaml", {})
    base: dict[str, Any] = {}
    if (run / "config.yaml").is_file():
        extraction = RunFolder.open(run)
        found = extraction.config
        base = {name: getattr(found, name) for name in ("teacher", "corpus", "text_column", "max_length", "seed")}
        if given.get("architecture") is None and extraction.has("selection"):
            winner = extraction.read("selection")["winner"]
            base["architecture"] = winner["architecture"] if winner else None
    named = read_yaml(file, InvalidConfig) if file is not None else None
    inherited = {key: value for key, value in base.items() if not isinstance(named, dict) or key not in named}
    config = load(PretrainConfig, file, inherited | {key: value for key, value in given.items() if value is not None})
    if config.architecture is None:
        raise InvalidConfig(
            f"{run}: holds no selected architecture; name one with --architecture, or extract one first"
        )
    return config


def train(run: Path, config: PretrainConfig, restart: bool = False, report: Report = silent) -> dict[str, Any]:
    """Train, hand over, and return what `pretraining.json` holds. What is finished already is returned as it is.

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
        if state.is_main_process:
            _open(folder, config, restart)
        state.wait_for_everyone()
        if folder.has("pretraining"):
            done: dict[str, Any] = folder.read("pretraining")
            return done
        torch.set_num_threads(config.threads or max(1, usable_cores() // state.num_processes))
        torch.use_deterministic_algorithms(state.device.type == "cpu")
        # That writes over every new tensor too, for programs that read what they never wrote
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        return _train(folder, config, state, report if state.is_main_process else silent)


def _open(folder: RunFolder, config: PretrainConfig, restart: bool) -> None:
    """Make sure that what the folder holds is this training's, or nothing's."""
    path = folder.path / "pretrain.yaml"
    if restart:
        for name in (CHECKPOINTS, EVENTS):
            shutil.rmtree(folder.path / name, ignore_errors=True)
        for name in ("pretraining.json", "schedule.json", "pretrain.yaml"):
            (folder.path / name).unlink(missing_ok=True)
    elif path.is_file():
        ours, theirs = config.model_dump(), load(PretrainConfig, path, {}).model_dump()
        if changed := [key for key in ours if key not in FREE and ours[key] != theirs[key]]:
            raise InvalidStudy(
                f"{folder.path}: its pretraining was started with another {', '.join(changed)} "
                f"({changed[0]} = {theirs[changed[0]]!r}); go on with it as it was, begin again with --restart, "
                "or choose another folder"
            )
    folder.write_text("pretrain.yaml", dump(config))


def _train(folder: RunFolder, config: PretrainConfig, state: PartialState, report: Report) -> dict[str, Any]:
    assert config.architecture is not None
    architecture = Architecture.parse(config.architecture)
    with state.main_process_first():
        searched = _searched(folder, architecture)
        material = Material.load(config, folder.path, architecture, searched, report)
    distiller, processes = material.distiller, state.num_processes
    if config.compile:
        distiller.student.encoder.compile(dynamic=True)
    micro = config.micro_tokens or config.batch_tokens
    accumulation = math.ceil(config.batch_tokens / (micro * processes))

    if state.is_main_process and not folder.has("schedule"):
        report("measuring the pace", 0, 0)
        folder.write("schedule", asdict(decide(material, config, state.device, processes, accumulation)))
    state.wait_for_everyone()
    schedule = Schedule(**folder.read("schedule"))
    report(schedule.sentence, 0, 0)
    if schedule.cached:
        assert material.store is not None
        for masking in range(schedule.maskings):
            material.store.fill(
                masking, lambda done, total: report("teacher targets", done, total), state.process_index, processes
            )
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
            f"{checkpoint}: is of {progress.architecture}, and {architecture} is to be trained; "
            "begin again with --restart, or choose another folder"
        )
    # Of all maskings, those that are on disk
    collator = replace(material.collator, maskings=schedule.maskings) if schedule.cached else material.collator
    loader = Loader(
        material.source,
        material.budget,
        collator,
        progress.position,
        process=state.process_index,
        processes=processes,
        accumulation=accumulation,
        cached=_reader(material.store, collator) if schedule.cached else None,
    )
    set_seed(config.seed)
    trainer = PretrainTrainer(
        distiller,
        _arguments(folder.path, config, set(distiller.weights), schedule.steps, accumulation, fresh=checkpoint is None),
        loader,
        material.heldout,
        material.side,
        progress,
        report,
        config.patience,
        folder.path / EVENTS if find_spec("tensorboard") else None,
    )
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    weights = trainer.accelerator.get_state_dict(trainer.model)
    if state.is_main_process:
        student = Student(architecture, material.blueprint)
        prefix = "student."
        own = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
        student.load_state_dict(own, strict=False)
        result = outcome(folder, config, material, student.eval(), trainer, schedule, report)
        folder.write("pretraining", result)
    state.wait_for_everyone()
    found: dict[str, Any] = folder.read("pretraining")
    return found


def _reader(store: TargetStore | None, collator: Collator) -> Cached:
    assert store is not None
    return lambda epoch, rows, length: store.read(collator.masking(epoch) if collator.masker else 0, rows, length)


def _arguments(
    run: Path, config: PretrainConfig, losses: set[str], steps: int, accumulation: int, fresh: bool
) -> TrainingArguments:
    every = max(1, math.ceil(steps / config.evaluations))
    cpu = not torch.cuda.is_available()
    return TrainingArguments(
        output_dir=str(run / CHECKPOINTS),
        max_steps=steps,
        per_device_train_batch_size=1,  # nominal: the loader makes the batches
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
        # Relations are compared within the last layer: what follows its queries, keys and values gets no gradient
        ddp_find_unused_parameters=losses == {"relations"},
        ignore_data_skip=True,  # the loader starts behind the last trained batch
        eval_strategy="steps",
        eval_steps=every,
        eval_on_start=fresh,  # a checkpoint has the evaluation of its step; a second one would count for patience
        save_strategy="steps",
        save_steps=every,
        logging_strategy="steps",
        logging_steps=max(1, every // 5),
        load_best_model_at_end=config.patience > 0,
        metric_for_best_model="loss" if config.patience else None,
        greater_is_better=False,
        restore_callback_states_from_checkpoint=True,  # how long there has been no gain
        report_to="none",  # the trainer writes the events
        disable_tqdm=True,
        seed=config.seed,
    )


def _searched(folder: RunFolder, architecture: Architecture) -> Path | None:
    """The weights that the search left of this architecture, if it was selected or trained there."""
    if not folder.has("selection") or not folder.has("conclusion"):
        return None
    numbers = {row.architecture: row.trial for row in folder.read(Selection).candidates}
    for trial in folder.read(Conclusion).trials:
        if trial.number == numbers.get(str(architecture)):
            theta = trial.hyperparameters
            assert theta.learning_rate is not None
            assert theta.batch_size is not None
            given = trial.architecture, trial.steps, theta.learning_rate, theta.batch_size, trial.seed
            path = trial_weights(folder.path, *given)
            return path if path.is_file() else None
    return None
