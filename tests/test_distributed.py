"""Two processes train as one does with the same global batch: gradients, weights, losses, checkpoints.

Weights are compared after plain SGD without clipping: Adam and clipping divide by the gradient's size, and hide a wrong
scale. A float32 sum over a batch that is cut in two differs in its last bits, of gradients and losses of order 1 to 10:
`CLOSE` is some ten of these. Processes are forked (`forked.fork`); one test goes through torchrun.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributed.run import main as torchrun
from torch.utils.data import SequentialSampler
from transformers import BertForMaskedLM, Trainer, TrainingArguments, default_data_collator

from forked import dies, fork
from subarch.pretraining.pretrain import CHECKPOINTS, train
from subarch.pretraining.trainer import PretrainTrainer, verify
from tiny_pretrain import tensors, tiny_pretraining, weights

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("quick_trainer"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="two processes share what is there of processors"),
]

CLOSE = 1e-5
PLAIN: dict[str, Any] = {"optimizer": "sgd", "clip": 0.0, "learning_rate": 0.1, "steps": 4, "evaluations": 2}


def furthest(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


def observed(run: Path, **options: Any) -> None:
    """Train, and write down the first step's gradients, and what each part's shares of a batch were."""
    norm, loss, shares = PretrainTrainer._get_grad_norm, PretrainTrainer.compute_loss, []

    def see_gradients(self: PretrainTrainer, model: Any, **given: Any) -> Any:
        if self.state.global_step == 0:
            found = {name: p.grad.detach() for name, p in self.distiller.named_parameters() if p.grad is not None}
            torch.save(found, run / f"gradients-{self.args.process_index}.pt")
        return norm(self, model, **given)

    def see_shares(self: PretrainTrainer, model: Any, inputs: dict[str, Any], *args: Any, **given: Any) -> Any:
        shares.append(inputs["shares"])
        return loss(self, model, inputs, *args, **given)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PretrainTrainer, "_get_grad_norm", see_gradients)
        patch.setattr(PretrainTrainer, "compute_loss", see_shares)
        train(run, **options)
    (run / f"shares-{os.environ.get('RANK', 0)}.json").write_text(json.dumps(shares), encoding="utf-8")


@pytest.mark.parametrize(
    ("masked_lm", "divisions"),
    [(True, [(1, 128), (2, None)]), (False, [(2, 128)])],
    ids=["mlm + logits", "embedding + relations"],
)
def test_any_division_of_a_batch_trains_alike(
    place: Path, tmp_path: Path, masked_lm: bool, divisions: list[tuple[int, int | None]]
) -> None:
    """By processes, by accumulation steps, by both."""
    whole = tiny_pretraining(place, masked_lm, **PLAIN)
    observed(tmp_path / "one", config=whole)
    reference = json.loads((tmp_path / "one" / "pretraining.json").read_text(encoding="utf-8"))
    gradients = torch.load(tmp_path / "one" / "gradients-0.pt")
    halfway = tensors(tmp_path / "one" / CHECKPOINTS, "checkpoint-2")
    prefix = "student.model."
    trained = {name.removeprefix(prefix): value for name, value in halfway.items() if name.startswith(prefix)}
    assert furthest(tensors(tmp_path / "one"), trained) > 100 * CLOSE
    for processes, micro in divisions:
        run = tmp_path / f"{processes} {micro}"
        run.mkdir()
        config = tiny_pretraining(place, masked_lm, micro_tokens=micro, **PLAIN)
        assert fork(lambda: observed(run, config=config), processes) == [0] * processes  # noqa: B023
        for process in range(processes):
            ours = torch.load(run / f"gradients-{process}.pt")
            assert furthest(ours, gradients) < CLOSE
        assert furthest(tensors(run), tensors(tmp_path / "one")) < CLOSE
        result = json.loads((run / "pretraining.json").read_text(encoding="utf-8"))
        assert result["tokens"] == reference["tokens"]
        assert len(result["curve"]) == len(reference["curve"]) == 4
        for curve in ("curve", "heldout"):
            for own, other in zip(result[curve], reference[curve], strict=True):
                assert own["loss"] == pytest.approx(other["loss"], abs=CLOSE)
        # The division is uneven, or the test shows nothing
        parts = [json.loads((run / f"shares-{process}.json").read_text()) for process in range(processes)]
        unit, count = "masked" if masked_lm else "sequences", sum(map(len, parts)) // 4
        found = [share[unit] for part in parts for share in part]
        assert len(found) == 4 * count
        assert count == processes * (1 if micro is None else 4 // processes)
        assert max(abs(share - 1 / count) for share in found) > 0.01


def test_adamw_sees_the_same_losses(place: Path, tmp_path: Path) -> None:
    config = tiny_pretraining(place, steps=4, evaluations=1)
    curves = []
    for processes in (1, 2):
        run = tmp_path / str(processes)
        assert fork(lambda: train(run, config), processes) == [0] * processes  # noqa: B023
        result = json.loads((run / "pretraining.json").read_text(encoding="utf-8"))
        curves.append([row["loss"] for row in result["curve"]])
    assert curves[1] == pytest.approx(curves[0], abs=1e-5)
    assert len(curves[0]) == 4


@pytest.mark.parametrize("losses", [{"loss_relations": 1.0}, {"loss_hidden": 1.0}])
def test_weights_that_a_loss_does_not_reach_stop_nobody(place: Path, tmp_path: Path, losses: dict[str, float]) -> None:
    """DDP waits for the gradient of every weight, unless it is told not to."""
    config = tiny_pretraining(place, masked_lm=False, **PLAIN | {"steps": 2, "evaluations": 1}, **losses)
    train(tmp_path / "one", config)
    assert fork(lambda: train(tmp_path / "two", config), 2) == [0, 0]
    assert furthest(tensors(tmp_path / "two"), tensors(tmp_path / "one")) < CLOSE


class Ordered(Trainer):
    def _get_train_sampler(self, *_: Any) -> SequentialSampler:
        return SequentialSampler(self.train_dataset)


def stock(teacher: Path, data: list[dict[str, Tensor]], out: Path, accumulation: int, averaged: bool) -> None:
    """One SGD step of Trainer as it is on all of the data; the logged loss and the step are left in `out`."""
    model = BertForMaskedLM.from_pretrained(teacher, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    before = {name: value.clone() for name, value in model.named_parameters()}
    arguments = TrainingArguments(
        output_dir=str(out),
        max_steps=1,
        per_device_train_batch_size=len(data) // (accumulation * int(os.environ.get("WORLD_SIZE", 1))),
        gradient_accumulation_steps=accumulation,
        optim="sgd",
        learning_rate=0.1,
        lr_scheduler_type="constant",
        max_grad_norm=0,
        logging_steps=1,
        average_tokens_across_devices=averaged,
        save_strategy="no",
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
    )
    trainer = Ordered(model, arguments, default_data_collator, data)
    trainer.train()
    step = {name: value.detach() - before[name].detach() for name, value in model.named_parameters()}
    torch.save((trainer.state.log_history[0]["loss"], step), out / f"{arguments.process_index}.pt")


def test_what_the_stock_trainer_does(place: Path, tmp_path: Path) -> None:
    """Why `pretraining/trainer.py` says so: two processes, or two accumulation steps, give twice the gradient."""
    teacher = tiny_pretraining(place).teacher
    assert teacher is not None
    ids = torch.randint(5, 100, (8, 12), generator=torch.Generator().manual_seed(0))
    labels = torch.full_like(ids, -100)
    labels[:, 3:5] = ids[:, 3:5]  # as many in each half, so that the mean of their means is the mean
    data = [
        {"input_ids": i, "labels": n, "attention_mask": torch.ones_like(i)} for i, n in zip(ids, labels, strict=True)
    ]

    def outcome(processes: int, accumulation: int, averaged: bool) -> tuple[float, dict[str, Tensor]]:
        out = tmp_path / f"{processes} {accumulation} {averaged}"
        out.mkdir()
        assert fork(lambda: stock(teacher, data, out, accumulation, averaged), processes) == [0] * processes
        found: tuple[float, dict[str, Tensor]] = torch.load(out / "0.pt")
        return found

    loss, step = outcome(1, 1, True)
    for processes, accumulation, averaged, factor in ((2, 1, True, 2), (1, 2, True, 2), (2, 1, False, 1)):
        again, further = outcome(processes, accumulation, averaged)
        assert again == pytest.approx(factor * loss, rel=1e-5)
        assert furthest(further, {name: factor * value for name, value in step.items()}) < CLOSE


# Checkpoints


def both_died(codes: list[int]) -> bool:
    """One was killed, and the other was killed too or found its connection closed, which of them is chance."""
    return -signal.SIGKILL in codes and 0 not in codes


def test_two_processes_with_cached_targets_are_resumed_to_the_same_bits(place: Path, tmp_path: Path) -> None:
    config = tiny_pretraining(place, masked_lm=False, targets="cache", dropout=0.1, steps=6, evaluations=3)
    assert fork(lambda: train(tmp_path / "whole", config), 2) == [0, 0]

    def killed() -> None:
        PretrainTrainer.training_step = dies(PretrainTrainer.training_step, 5)  # type: ignore[method-assign]
        train(tmp_path / "killed", config)

    assert both_died(fork(killed, 2))
    assert (tmp_path / "killed" / CHECKPOINTS / "checkpoint-4" / "rng_state_1.pth").is_file()
    assert fork(lambda: train(tmp_path / "killed", config), 2) == [0, 0]
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")


def test_one_that_diverges_stops_all(place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    loss = PretrainTrainer.compute_loss

    def spoilt(self: PretrainTrainer, model: Any, inputs: dict[str, Any], *args: Any, **given: Any) -> Any:
        if self.state.global_step == 4 and self.args.process_index == 1:
            inputs["shares"] = dict.fromkeys(inputs["shares"], float("nan"))
        return loss(self, model, inputs, *args, **given)

    def diverges() -> None:
        PretrainTrainer.compute_loss = spoilt  # type: ignore[method-assign]
        train(tmp_path / "run", tiny_pretraining(place))

    codes = fork(diverges, 2)
    assert codes[1] == 1
    assert codes[0] != 0
    assert "the loss became nan at step 5" in capfd.readouterr().err
    assert verify(tmp_path / "run" / CHECKPOINTS / "checkpoint-4") is None


def sharded(work: Callable[[], object]) -> None:
    """Do the work with CPUs that count as GPUs, or accelerate 1.15 would not look at what it is told of FSDP."""
    import accelerate.state

    start = accelerate.state.PartialState.__init__

    def counted(self: Any, *args: Any, **given: Any) -> None:
        start(self, *args, **given)
        if self.distributed_type == accelerate.state.DistributedType.MULTI_CPU:
            self.distributed_type = accelerate.state.DistributedType.MULTI_GPU

    accelerate.state.PartialState.__init__ = counted
    work()


FSDP = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "BertLayer",
}


def test_fsdp_trains_as_ddp_does(place: Path, tmp_path: Path) -> None:
    config = tiny_pretraining(place, dropout=0.1, **PLAIN)
    assert fork(lambda: train(tmp_path / "ddp", config), 2) == [0, 0]
    assert fork(lambda: sharded(lambda: train(tmp_path / "fsdp", config)), 2, **FSDP) == [0, 0]
    assert furthest(tensors(tmp_path / "fsdp"), tensors(tmp_path / "ddp")) < CLOSE


def test_fsdp_is_resumed_to_the_same_bits(place: Path, tmp_path: Path) -> None:
    config = tiny_pretraining(place, masked_lm=False, dropout=0.1, steps=6, evaluations=3)

    def killed() -> None:
        PretrainTrainer.training_step = dies(PretrainTrainer.training_step, 4)  # type: ignore[method-assign]
        train(tmp_path / "killed", config)

    assert both_died(fork(lambda: sharded(killed), 2, **FSDP))
    shards = tmp_path / "killed" / CHECKPOINTS / "checkpoint-2" / "pytorch_model_fsdp_0"
    assert {path.name for path in shards.glob("*.distcp")} == {"__0_0.distcp", "__1_0.distcp"}  # it was sharded
    for run in ("killed", "whole"):
        assert fork(lambda: sharded(lambda: train(tmp_path / run, config)), 2, **FSDP) == [0, 0]  # noqa: B023
    assert weights(tmp_path / "killed") == weights(tmp_path / "whole")


def test_fsdp_is_ignored_on_cpus(place: Path, tmp_path: Path) -> None:
    """What the docstring of `pretraining` says of accelerate. If this fails, it says too much."""
    config = tiny_pretraining(place, **PLAIN | {"steps": 2, "evaluations": 1})
    assert fork(lambda: train(tmp_path / "run", config), 2, **FSDP) == [0, 0]
    checkpoint = tmp_path / "run" / CHECKPOINTS / "checkpoint-2"
    assert (checkpoint / "optimizer.pt").is_file()  # as DDP writes it
    assert not list(checkpoint.glob("*fsdp*"))


# The command


COMMAND = """
import contextlib
from subarch.cli.app import main
with contextlib.suppress(SystemExit):  # torchrun takes it for the death of a process that it has forked
    main()
"""


def test_torchrun_trains_as_one_process(place: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its own command line, with processes that it forks."""
    config = tiny_pretraining(place, **PLAIN)
    train(tmp_path / "one", config)
    (tmp_path / "command.py").write_text(COMMAND, encoding="utf-8")
    launch = ["--standalone", "--nproc-per-node", "2", "--start-method", "fork", "--run-path"]
    command = ["pretrain", str(tmp_path / "two"), "--config", str(tmp_path / "one" / "pretrain.yaml"), "--json"]
    capfd.readouterr()
    assert fork(lambda: torchrun([*launch, str(tmp_path / "command.py"), *command])) == [0]
    assert json.loads(capfd.readouterr().out)["steps"] == 4  # one process speaks
    assert furthest(tensors(tmp_path / "two"), tensors(tmp_path / "one")) < CLOSE
