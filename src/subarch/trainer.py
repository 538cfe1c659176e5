"""The training loop: `transformers.Trainer`, told what a batch is, what its loss is, and what a good checkpoint is.

Trainer brings devices, processes, precision, accumulation and the optimiser. Three things differ from its own ways:

- The loss. Trainer takes what a model returns for a mean over all tokens of all processes as soon as the model's
  `forward` accepts keyword arguments, and multiplies it by the number of processes to undo their averaging. Stock
  masked language models accept them and return the mean over their own batch: two processes train with twice the
  gradient.
  Here each part of a batch brings its share of the whole loss, and the sum over processes is what is trained.
- The data. The loader knows the position behind each batch, so a resumed run reads on instead of skipping.
- Checkpoints. They are sealed when they are whole, hold the position, and never a weight that is not finite.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback, TrainingArguments
from transformers.trainer_callback import PrinterCallback

from subarch.checkpoints import seal
from subarch.collate import Inputs, Loader
from subarch.distill import UNIT, Distiller, Targets, TeacherSide
from subarch.errors import TrainingDiverged

PROGRESS = "progress.json"
"""In each checkpoint: what `Progress` holds."""


@dataclass
class Progress:
    """What a training has behind it, over all its sittings. Tokens are those of all processes."""

    architecture: str
    position: dict[str, Any] | None = None
    seconds: float = 0.0
    tokens: int = 0
    padded: int = 0

    @classmethod
    def read(cls, checkpoint: Path) -> Progress:
        return cls(**json.loads((checkpoint / PROGRESS).read_text(encoding="utf-8")))


class PretrainTrainer(Trainer):
    """See the module.

    Args:
        distiller: student and losses.
        args: of Trainer; `max_steps` decides the length.
        loader: this process's parts of the batches, standing where `progress` says.
        heldout: batches for the evaluations, the same in every process.
        side: the teacher; None where no loss needs one.
        report: called with what is being done, the steps done and all steps.
    """

    loss_is_scaled_for_ga = True  # each part's share is of the whole batch, accumulation included

    def __init__(
        self,
        distiller: Distiller,
        args: TrainingArguments,
        loader: Loader,
        heldout: Sequence[Inputs],
        side: TeacherSide | None,
        progress: Progress,
        report: Callable[[str, float, float], None],
        patience: int = 0,
    ) -> None:
        callbacks: list[TrainerCallback] = [_Report(report)]
        if patience:
            callbacks.append(EarlyStoppingCallback(patience))
        super().__init__(model=distiller, args=args, callbacks=callbacks, eval_dataset=list(heldout))
        self.remove_callback(PrinterCallback)
        self.distiller, self.loader, self.heldout, self.side = distiller, loader, heldout, side
        self.progress, self.began = progress, time.perf_counter()
        if side is not None:
            side.to(args.device)
        self._heldout_targets: list[Targets | None] = []

    def get_train_dataloader(self) -> DataLoader[dict[str, Any]]:
        """The loader as it is: it knows its process, so accelerate has nothing to divide."""
        on_gpu = self.args.device.type == "cuda"
        return DataLoader(self.loader, batch_size=None, num_workers=int(on_gpu), pin_memory=on_gpu)

    def compute_loss(
        self, model: nn.Module, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """This part's share of the batch's loss, times the processes, over which gradients will be averaged."""
        position, (tokens, padded) = inputs.pop("position"), inputs.pop("sizes")
        outputs = model(targets=self._targets(inputs, inputs.pop("cached", None)), **inputs)
        loss: Tensor = outputs["loss"]
        if not math.isfinite(value := loss.item()):
            raise TrainingDiverged(
                f"the loss became {value} at step {self.state.global_step + 1}; the last good checkpoint is kept. "
                "Try a lower learning_rate"
            )
        self.progress.position = position
        self.progress.tokens += tokens * self.args.world_size
        self.progress.padded += padded * self.args.world_size
        return loss * self.args.world_size

    def _targets(self, inputs: dict[str, Any], cached: dict[str, Any] | None) -> Targets | None:
        if self.side is None:
            return None
        if cached is not None:
            return self.side.targets(cached)
        return self.side.live(inputs["ids"], inputs["mask"], inputs.get("where"))

    @torch.inference_mode()
    def evaluate(self, *_: Any, metric_key_prefix: str = "eval", **__: Any) -> dict[str, float]:
        """Each loss, unweighted, and their weighted sum, over the held-out sequences."""
        self.distiller.eval()
        totals: dict[str, float] = {}
        counts: dict[str, float] = {}
        for number, inputs in enumerate(self.heldout):
            on_device = self._prepare_inputs(
                {
                    name: value
                    for name in ("ids", "mask", "where", "labels")
                    if (value := getattr(inputs, name)) is not None
                }
            )
            if number == len(self._heldout_targets):
                self._heldout_targets.append(self._targets(on_device, None))
            found = self.model_wrapped(targets=self._heldout_targets[number], **on_device)
            for name in self.distiller.weights:
                value, count = found[name], inputs.count(UNIT[name])
                totals[name] = totals.get(name, 0.0) + float(value) * count
                counts[name] = counts.get(name, 0.0) + count
        metrics = {f"{metric_key_prefix}_{name}": totals[name] / counts[name] for name in totals}
        weights = self.distiller.weights
        metrics[f"{metric_key_prefix}_loss"] = sum(
            weight * metrics[f"{metric_key_prefix}_{name}"] for name, weight in weights.items()
        )
        if not all(map(math.isfinite, metrics.values())):
            raise TrainingDiverged(f"a held-out loss is not finite at step {self.state.global_step}: {metrics}")
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """As Trainer logs, with the seconds of all sittings."""
        super().log(logs | {"seconds": self.progress.seconds + time.perf_counter() - self.began}, start_time)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        for name, parameter in self.distiller.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise TrainingDiverged(
                    f"{name} is not finite after step {self.state.global_step}; the last good checkpoint is kept. "
                    "Try a lower learning_rate"
                )
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()  # each process writes its own random state
        if self.args.should_save:
            now = time.perf_counter()
            self.progress.seconds += now - self.began
            self.began = now
            folder = Path(str(self.args.output_dir)) / f"checkpoint-{self.state.global_step}"
            (folder / PROGRESS).write_text(json.dumps(vars(self.progress)), encoding="utf-8")
            seal(folder)
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Tied weights once; safetensors refuses them twice."""
        state = self.distiller.state_dict() if state_dict is None else state_dict
        tied = {f"student.{name}" for name in self.distiller.student.tied_names}
        super()._save(output_dir, {name: value for name, value in state.items() if name not in tied})


class _Report(TrainerCallback):
    """Hands progress on."""

    def __init__(self, report: Callable[[str, float, float], None]) -> None:
        self.report, self.loss = report, ""

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            self.report(f"pretraining{self.loss}", state.global_step, state.max_steps)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        if logs and "loss" in logs:
            self.loss = f", loss {logs['loss']:.4f}"
