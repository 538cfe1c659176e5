"""The training loop: `transformers.Trainer` with batches, losses and checkpoints of our own.

Trainer takes care of devices, processes, precision, accumulation and the optimiser. Three things are different here:

- The loss. If a model's `forward` accepts keyword arguments, Trainer passes it the number of labels in the whole batch
  and assumes that it returns a sum over its own part, divided by that number. So Trainer multiplies the loss by the
  number of processes, to undo their averaging, and does not divide it by the accumulation steps. Stock masked language
  models accept the number, ignore it, and return the mean over their part: two processes, or two accumulation steps,
  train with twice the gradient, and log twice the loss (transformers 5.23; `tests/test_distributed.py` shows it).
  Here each part of a batch contributes its share of the whole loss, and the sum over processes is minimised.
- The data. The loader knows the position after each batch, so a resumed run continues there instead of skipping.
- Checkpoints. They hold the position and only finite weights, and are sealed: a process may be killed while it writes
  one, and a disk may be full or lose data. So the last file is a manifest with size and hash of every other one. A
  checkpoint without it was not finished; one that differs from it is damaged.
"""

from __future__ import annotations

import json
import math
import re
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments
from transformers.integrations.integration_utils import TensorBoardCallback
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import rotate_checkpoints

from subarch.errors import InvalidStudy, TrainingDiverged
from subarch.learning.collate import Inputs, Loader
from subarch.learning.distill import Distiller, Targets, TeacherSide, TextSide
from subarch.learning.losses import UNIT
from subarch.learning.signals import constant_distance
from subarch.run.files import file_seal, write_text
from subarch.run.machine import release_memory

PROGRESS = "progress.json"
"""The file of `Progress` in each checkpoint."""
KEPT = 2
"""Checkpoints that stay on disk: should the newest be damaged, there is the one before."""
RELEASED_EVERY = 20
"""Steps until freed memory is returned to the system."""


@dataclass
class Progress:
    """How far a training has come, over all its interruptions. Tokens are those of all processes.

    `done`: it took its last step, and only the writing of the model is left.
    """

    architecture: str
    position: dict[str, Any] | None = None
    seconds: float = 0.0
    tokens: int = 0
    padded: int = 0
    done: bool = False

    @classmethod
    def read(cls, checkpoint: Path) -> Progress:
        return cls(**json.loads((checkpoint / PROGRESS).read_text(encoding="utf-8")))


class PretrainTrainer(Trainer):
    """See the module.

    Args:
        loader: this process's parts of the batches, starting at the position in `progress`.
        heldout: batches for the evaluations, the same in every process.
        side: the teacher; None if no loss needs one.
        events: folder for TensorBoard; None: none is written.
        heldout_targets: the teacher's for each batch of `heldout`; None: computed when they are needed.
        spoken: the language of each batch of `heldout`, for its loss by language; none: of no language.
    """

    loss_is_scaled_for_ga = True  # each part's share is of the whole batch, accumulation included

    def __init__(
        self,
        distiller: Distiller,
        args: TrainingArguments,
        loader: Loader,
        heldout: Sequence[Inputs],
        side: TeacherSide | TextSide | None,
        progress: Progress,
        report: Callable[[str, float, float], None],
        events: Path | None = None,
        heldout_targets: Sequence[Targets] | None = None,
        spoken: Sequence[str] = (),
    ) -> None:
        callbacks: list[TrainerCallback] = [_Report(report), _Memory()]
        if events is not None:
            board = TensorBoardCallback()
            board.logging_dir = str(events)
            callbacks.append(board)
        super().__init__(model=distiller, args=args, callbacks=callbacks, eval_dataset=list(heldout))
        self.remove_callback(PrinterCallback)
        self.distiller, self.loader, self.heldout, self.side = distiller, loader, heldout, side
        self.progress, self.began = progress, time.perf_counter()
        if side is not None:
            side.to(args.device)
        self._own = torch.zeros(2, dtype=torch.long)  # this process's tokens since the last checkpoint, real and padded
        self._heldout_targets: list[Targets | None] = list(heldout_targets or ())
        self._spoken = spoken

    def get_train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The loader itself: it knows its process, so accelerate has nothing to divide."""
        on_gpu = self.args.device.type == "cuda"
        # A generator of its own: DataLoader draws a seed, and drawing it from the global generator would change the
        # dropout of a resumed run, whose random state is restored before
        own = torch.Generator()
        return DataLoader(self.loader, batch_size=None, num_workers=int(on_gpu), pin_memory=on_gpu, generator=own)

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Trainer would continue a training that was killed after its last step."""
        if self.progress.done:
            self.control.should_training_stop = True
        else:
            super()._run_epoch(*args, **kwargs)  # type: ignore[no-untyped-call]

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """This part's share of the batch's loss, times the number of processes that gradients are averaged over."""
        position, (tokens, padded) = inputs.pop("position"), inputs.pop("sizes")
        outputs = model(targets=self._targets(inputs, inputs.pop("cached", None)), **inputs)
        loss: Tensor = outputs["loss"]
        if not math.isfinite(value := loss.item()):
            raise TrainingDiverged(
                f"the loss became {value} at step {self.state.global_step + 1}; the last good checkpoint is kept. "
                "Begin again with a lower learning_rate and --restart"
            )
        self.progress.position = position
        self._own += torch.tensor([tokens, padded])
        return loss * self.args.world_size

    def _targets(self, inputs: dict[str, Any], cached: dict[str, Any] | None) -> Targets | None:
        if self.side is None:
            return None
        if cached is not None:
            return self.side.targets(cached)
        assert isinstance(self.side, TeacherSide)  # the other kind's are always cached
        return self.side.live(inputs["ids"], inputs["mask"], inputs.get("where"))

    @torch.no_grad()  # not inference_mode: FSDP gathers weights here that training goes on with
    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Each loss on the held-out sequences, unweighted, the weighted sum, and the error as a search measures it."""
        self.distiller.eval()
        totals: dict[tuple[str, str], float] = {}
        counts: dict[tuple[str, str], float] = {}
        for number, inputs in enumerate(self.heldout):
            tensors = {name: getattr(inputs, name) for name in ("ids", "mask", "where", "labels", "choices")}
            on_device = self._prepare_inputs({name: value for name, value in tensors.items() if value is not None})
            if number == len(self._heldout_targets):
                self._heldout_targets.append(self._targets(on_device, None))
            targets = self._heldout_targets[number]
            targets = None if targets is None else self._prepare_inputs(targets)
            found = self.model_wrapped(targets=targets, **on_device)
            for name in self.distiller.weights:
                value, count = found[name], inputs.count(UNIT[name])
                for language in ("", *self._spoken[number : number + 1]):
                    totals[name, language] = totals.get((name, language), 0.0) + float(value) * count
                    counts[name, language] = counts.get((name, language), 0.0) + count
        weights = self.distiller.weights
        metrics = {f"{metric_key_prefix}_{name}": totals[name, ""] / counts[name, ""] for name in weights}
        if "embedding" in weights:
            theirs = [targets["embedding"] for targets in self.teacher_said]
            constant = constant_distance(torch.cat([vectors.float().cpu() for vectors in theirs]))
            metrics[f"{metric_key_prefix}_error"] = metrics[f"{metric_key_prefix}_embedding"] / max(constant, 1e-9)
        if "outputs" in weights:
            metrics[f"{metric_key_prefix}_error"] = metrics[f"{metric_key_prefix}_outputs"]  # a share already
        for language in ("", *sorted(set(self._spoken))):
            parts = {name: totals[name, language] / counts[name, language] for name in weights}
            mark = f"_{language}" if language else ""
            metrics[f"{metric_key_prefix}_loss{mark}"] = sum(weight * parts[name] for name, weight in weights.items())
        if not all(map(math.isfinite, metrics.values())):
            raise TrainingDiverged(
                f"a held-out loss is not finite after step {self.state.global_step}: {metrics}; the last good "
                "checkpoint is kept. Begin again with a lower learning_rate and --restart"
            )
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @property
    def teacher_said(self) -> list[Targets]:
        """The teacher's targets of the held-out batches, as far as they were evaluated."""
        return [targets for targets in self._heldout_targets if targets is not None]

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as Trainer does, with the seconds of training so far."""
        super().log(logs | {"seconds": self.progress.seconds + time.perf_counter() - self.began}, start_time)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint and seal it, then delete older ones."""
        for name, parameter in self.distiller.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise TrainingDiverged(
                    f"{name} is not finite after step {self.state.global_step}; the last good checkpoint is kept. "
                    "Begin again with a lower learning_rate and --restart"
                )
        root = Path(str(self.args.output_dir))
        folder = root / f"checkpoint-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)
            tokens, padded = self.accelerator.reduce(self._own.to(self.args.device)).tolist()
            self._own.zero_()
            self.progress.tokens += tokens
            self.progress.padded += padded
            self.accelerator.wait_for_everyone()  # each process writes its own random state
            if self.args.should_save:
                now = time.perf_counter()
                self.progress.seconds += now - self.began
                self.began, self.progress.done = now, self.control.should_training_stop
                (folder / PROGRESS).write_text(json.dumps(vars(self.progress)), encoding="utf-8")
                seal(folder)
                rotate_checkpoints(str(root), KEPT)
        except (OSError, SafetensorError, RuntimeError) as error:  # torch.save says RuntimeError
            raise InvalidStudy(
                f"{folder}: cannot be written: {error}; the checkpoint before it is kept. Is the disk full? Make room, "
                "then give the same command again"
            ) from error
        self.accelerator.wait_for_everyone()

    def _issue_warnings_after_load(self, load_result: Any) -> None:
        """Refuse a checkpoint that lacks weights: Trainer would warn, and continue with those of two models."""
        if wrong := [*(set(load_result.missing_keys) - self._tied), *load_result.unexpected_keys]:
            raise InvalidStudy(
                f"the checkpoint belongs to another model: {', '.join(sorted(wrong)[:3])} are only in one of the two; "
                "begin again with --restart"
            )

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save tied weights once; safetensors refuses to save them twice."""
        state = self.distiller.state_dict() if state_dict is None else state_dict
        tied = self._tied
        super()._save(output_dir, {name: value for name, value in state.items() if name not in tied})

    @property
    def _tied(self) -> set[str]:
        return {f"student.{name}" for name in self.distiller.student.tied_names}


class _Memory(TrainerCallback):
    """Batches have many shapes, and what was freed between them is not found again."""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step % RELEASED_EVERY == 0:
            release_memory()


class _Report(TrainerCallback):
    def __init__(self, report: Callable[[str, float, float], None]) -> None:
        self.report, self.loss = report, ""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            self.report(f"pretraining{self.loss}", state.global_step, state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.loss = f", loss {logs['loss']:.4f}"


# Checkpoints

MANIFEST = "manifest.json"


def seal(folder: Path) -> None:
    """Write the manifest of all files in the folder; OSError if it cannot. Nothing may be written there afterwards."""
    manifest = {name: file_seal(path).model_dump() for name, path in _files(folder).items()}
    # Compact: whitespace could be damaged without changing the content
    write_text(folder / MANIFEST, json.dumps(manifest, ensure_ascii=False, separators=(",", ":")))


def verify(folder: Path) -> str | None:
    """What is wrong with a checkpoint, or None if its files are those that were sealed, no more and no fewer."""
    try:
        known = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return f"it was not finished (it has no {MANIFEST})"
    except OSError as error:
        return f"it cannot be read: {error}"
    except (ValueError, RecursionError):
        known = None
    if not isinstance(known, dict):
        return f"{MANIFEST} is damaged"
    files = _files(folder)
    for name in sorted(known.keys() | files.keys()):
        if name not in files:
            return f"{name} is missing"
        if name not in known:
            return f"{name} is not in {MANIFEST}"
        try:
            found = file_seal(files[name]).model_dump()
        except OSError as error:
            return f"it cannot be read: {error}"
        if found != known[name]:
            return f"{name} is damaged: its {found['bytes']} bytes are not those that were sealed"
    return None


def put_aside(root: Path, warn: Callable[[str], None]) -> None:
    """Remove every checkpoint that is later than the newest intact one, with a warning.

    An unfinished one is deleted, a damaged one is kept as `broken-checkpoint-N`. If they stayed, the training would
    count them when it deletes old checkpoints, and delete the intact one first. One process alone may call this.
    """
    for folder in _latest_first(root):
        wrong = verify(folder)
        if wrong is None:
            return
        if (folder / MANIFEST).exists():
            broken = folder.with_name(f"broken-{folder.name}")
            shutil.rmtree(broken, ignore_errors=True)
            folder.rename(broken)
            warn(f"{folder}: {wrong}; it is kept as {broken.name} and not used")
        else:
            shutil.rmtree(folder)
            warn(f"{folder}: {wrong}; it is deleted")


def newest(root: Path, warn: Callable[[str], None]) -> Path | None:
    """The intact `checkpoint-N` of greatest N, None if there is none; warns of each later one, changes nothing."""
    for folder in _latest_first(root):
        wrong = verify(folder)
        if wrong is None:
            return folder
        warn(f"{folder}: {wrong}; it is not used")
    return None


_NAME = re.compile(r"checkpoint-([0-9]{1,18})")


def _latest_first(root: Path) -> list[Path]:
    folders = [path for path in root.iterdir() if path.is_dir()] if root.is_dir() else []
    found = [(int(match[1]), path) for path in folders if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


def _files(folder: Path) -> dict[str, Path]:
    """All files in the folder except the manifest, by relative path."""
    found = {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}
    found.pop(MANIFEST, None)
    return found
