"""A pretraining that is killed, damaged, diverging or out of disk: it goes on to the same bits, or says why not.

Bits are compared on a CPU, which is where they are promised.
"""

from __future__ import annotations

import errno
import json
import random
import resource
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from forked import die, dies, fork, half_written
from subarch.cli.app import main
from subarch.errors import InvalidStudy, TrainingDiverged
from subarch.learning.distill import Distiller
from subarch.pretraining import pretrain as stage
from subarch.pretraining import trainer
from subarch.pretraining.config import PretrainConfig
from subarch.pretraining.pretrain import CHECKPOINTS, train
from subarch.pretraining.trainer import PROGRESS, PretrainTrainer, seal, verify
from tiny_pretrain import tensors, tiny_pretraining, weights

pytestmark = [
    pytest.mark.usefixtures("quick_trainer"),
    pytest.mark.skipif(torch.cuda.is_available(), reason="bits are promised on a CPU"),
]

Patch = tuple[Any, str, Callable[..., Any]]


@pytest.fixture(scope="module")
def config(place: Path) -> PretrainConfig:
    """With dropout: the random state counts."""
    return tiny_pretraining(place, dropout=0.1)


@pytest.fixture(scope="module")
def finished(place: Path, config: PretrainConfig) -> Path:
    """A run of 8 steps, never interrupted, with the checkpoints of steps 6 and 8."""
    train(place / "finished", config)
    return place / "finished"


@pytest.fixture
def unfinished(finished: Path, tmp_path: Path) -> Path:
    """The same, as it stood before the hand-over."""
    run = shutil.copytree(finished, tmp_path / "run")
    (run / "pretraining.json").unlink()
    shutil.rmtree(run / "pretrained")
    return run


def record(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "pretraining.json").read_text(encoding="utf-8"))
    return found


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / CHECKPOINTS).iterdir())


# Killed


def killed(run: Path, config: PretrainConfig, *patches: Patch) -> None:
    """Train in another process, which a patched function kills."""

    def work() -> None:
        for owner, name, function in patches:
            setattr(owner, name, function)
        train(run, config)

    assert fork(work) == [-signal.SIGKILL]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*it was not finished")
@pytest.mark.parametrize(
    "changes",
    [
        {"dropout": 0.1},
        {"masked_lm": False, "targets": "cache", "dropout": 0.1, "micro_tokens": 256, "architecture": "2-2-16-32"},
    ],
    ids=["mlm + logits", "embedding + relations, cached, accumulated"],
)
def test_killed_again_and_again_it_ends_in_the_same_bits(place: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    config = tiny_pretraining(place, **changes)
    train(tmp_path / "whole", config)
    run = tmp_path / "killed"
    step = PretrainTrainer.training_step
    killed(run, config, (stage, "put_aside", dies(stage.put_aside, 1)))
    killed(run, config, (PretrainTrainer, "training_step", dies(step, 2)))  # before the first checkpoint
    killed(run, config, (torch, "save", half_written(2)))  # in the middle of a checkpoint
    killed(run, config, (trainer, "seal", dies(trainer.seal, 1)))
    killed(
        run,
        config,
        (trainer, "rotate_checkpoints", dies(trainer.rotate_checkpoints, 1)),
    )
    killed(run, config, (PretrainTrainer, "training_step", dies(step, 4, after=True)))
    killed(
        run,
        config,
        (
            trainer,
            "rotate_checkpoints",
            dies(trainer.rotate_checkpoints, 1, True),
        ),
    )
    killed(run, config, (stage, "_hand_over", dies(stage._hand_over, 1)))
    killed(
        run,
        config,
        (stage, "_hand_over", dies(stage._hand_over, 1, after=True)),
    )
    train(run, config)
    assert weights(run) == weights(tmp_path / "whole")
    ours, theirs = record(run), record(tmp_path / "whole")
    for key in ("steps", "tokens", "padding"):
        assert ours[key] == theirs[key]
    for curve in ("curve", "heldout"):  # nothing is missing, nothing is there twice
        assert [{**row, "seconds": 0} for row in ours[curve]] == [{**row, "seconds": 0} for row in theirs[curve]]
    assert checkpoints(run) == checkpoints(tmp_path / "whole") == ["checkpoint-6", "checkpoint-8"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*it was not finished")
def test_kill_9_at_random_instants(finished: Path, config: PretrainConfig, tmp_path: Path) -> None:
    run, source, codes = tmp_path / "run", random.Random(0), []
    began = time.monotonic()
    train(tmp_path / "timed", config)
    usual = time.monotonic() - began
    for _ in range(4):
        codes += fork(lambda: train(run, config), seconds=source.uniform(0.2, 1) * usual)
    assert set(codes) <= {0, -signal.SIGKILL}
    train(run, config)
    assert weights(run) == weights(finished)


def test_kill_9_of_the_command_and_the_same_command_again(
    finished: Path, config: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, file = tmp_path / "run", tmp_path / "config.yaml"
    file.write_text((finished / "pretrain.yaml").read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(sys, "argv", ["subarch", "pretrain", str(run), "--config", str(file)])

    def half() -> None:
        threading.Thread(target=when_there, daemon=True).start()
        main()

    def when_there() -> None:
        while not (run / CHECKPOINTS / "checkpoint-2" / "optimizer.pt").is_file():  # sealed by then, or not
            time.sleep(0.001)
        die()

    assert fork(half) == [-signal.SIGKILL]
    assert not (run / "pretraining.json").exists()
    assert fork(main) == [0]
    assert weights(run) == weights(finished)


# Damaged


def truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-7])


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("damage", "file"), [(truncate, "model.safetensors"), (flip, "optimizer.pt"), (flip, "rng_state.pth")]
)
def test_a_damaged_checkpoint_is_skipped_for_the_one_before(
    finished: Path, unfinished: Path, config: PretrainConfig, damage: Callable[[Path], None], file: str
) -> None:
    damage(unfinished / CHECKPOINTS / "checkpoint-8" / file)
    with pytest.warns(UserWarning, match=f"checkpoint-8: {file} is damaged.*kept as broken-checkpoint-8"):
        train(unfinished, config)
    assert weights(unfinished) == weights(finished)
    assert checkpoints(unfinished) == ["broken-checkpoint-8", "checkpoint-6", "checkpoint-8"]


@pytest.mark.filterwarnings("ignore:.*kept as broken")
def test_with_no_whole_checkpoint_it_starts_over(finished: Path, unfinished: Path, config: PretrainConfig) -> None:
    for folder in (unfinished / CHECKPOINTS).glob("checkpoint-*"):
        flip(folder / "trainer_state.json")
    train(unfinished, config)
    assert weights(unfinished) == weights(finished)


def test_a_checkpoint_of_another_architecture_is_refused(unfinished: Path, config: PretrainConfig) -> None:
    folder = unfinished / CHECKPOINTS / "checkpoint-8"
    progress = json.loads((folder / PROGRESS).read_text(encoding="utf-8"))
    (folder / PROGRESS).write_text(json.dumps(progress | {"architecture": "2-4-16-32"}), encoding="utf-8")
    seal(folder)
    with pytest.raises(InvalidStudy, match=r"checkpoint-8: is a checkpoint of 2-4-16-32, and 1-4-16-32 .*--restart"):
        train(unfinished, config)


def test_a_checkpoint_that_lacks_weights_is_refused(unfinished: Path, config: PretrainConfig) -> None:
    """Trainer warns, and goes on with what was in the model: half trained, half new."""
    from safetensors.torch import load_file, save_file

    folder = unfinished / CHECKPOINTS / "checkpoint-8"
    state = load_file(folder / "model.safetensors")
    del state["student.model.bert.encoder.layer.0.output.dense.weight"]
    save_file(state, folder / "model.safetensors")
    seal(folder)
    with pytest.raises(InvalidStudy, match=r"another model: student\.model\.bert\.encoder\.layer\.0\.output\.dense"):
        train(unfinished, config)


# What is there already


def test_what_is_finished_is_returned_at_once(
    finished: Path, config: PretrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = record(finished)
    monkeypatch.setattr("subarch.pretraining.pretrain._train", lambda *_: pytest.fail("it trained again"))
    assert train(finished, config).to_dict() == before


def test_another_configuration_is_refused_by_the_key(finished: Path, place: Path, tmp_path: Path) -> None:
    changed = tiny_pretraining(place, dropout=0.1, learning_rate=1e-3, threads=2)  # threads may differ
    with pytest.raises(InvalidStudy, match=r"changed since .*: learning_rate = 0.001 now and was 0.005; .*--restart"):
        train(finished, changed)


def test_restart_begins_again(unfinished: Path, place: Path) -> None:
    changed = tiny_pretraining(place, dropout=0.1, steps=3, evaluations=1)
    (unfinished / "events" / "old").touch()
    result = train(unfinished, changed, restart=True)
    assert result.steps == 3
    assert [row["step"] for row in result.heldout] == [0, 3]
    assert checkpoints(unfinished) == ["checkpoint-3"]
    assert not (unfinished / "events" / "old").exists()


# Diverging, and out of disk


def fails_once(monkeypatch: pytest.MonkeyPatch, at: int, spoil: Callable[[dict[str, Any]], None]) -> None:
    """Spoils what the losses are in the `at`-th training step."""
    forward, calls = Distiller.forward, 0

    def spoilt(self: Distiller, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        found = forward(self, *args, **kwargs)
        if self.training:
            calls += 1
            if calls == at:
                spoil(found)
        return found

    monkeypatch.setattr(Distiller, "forward", spoilt)


def test_a_loss_that_is_not_finite_stops_it(
    finished: Path, place: Path, config: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    # The pace is measured first, in 7 steps
    fails_once(monkeypatch, 7 + 6, lambda found: found.update(loss=found["loss"] * float("nan")))
    with pytest.raises(TrainingDiverged, match=r"loss became nan at step 6; the last good checkpoint is kept"):
        train(run, config)
    monkeypatch.undo()
    assert checkpoints(run) == ["checkpoint-2", "checkpoint-4"]
    assert verify(run / CHECKPOINTS / "checkpoint-4") is None
    with pytest.raises(InvalidStudy, match=r"learning_rate = 0.0001 now and was.*--restart"):
        train(run, tiny_pretraining(place, dropout=0.1, learning_rate=1e-4))
    train(run, config)
    assert weights(run) == weights(finished)


def test_a_rate_that_is_too_high_ends_in_an_error_and_leaves_no_bad_checkpoint(place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(TrainingDiverged, match=r"step \d.*lower learning_rate and --restart"):
        train(run, tiny_pretraining(place, optimizer="sgd", clip=0.0, learning_rate=1e38, evaluations=8))
    for folder in (run / CHECKPOINTS).iterdir():
        assert verify(folder) is None
        state = tensors(run / CHECKPOINTS, folder.name)
        assert all(bool(torch.isfinite(value).all()) for value in state.values())


def test_a_weight_that_is_not_finite_is_never_saved(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where no loss shows it: the last position, which no sequence reaches."""
    run, evaluate = tmp_path / "run", PretrainTrainer.evaluate

    def spoil(self: PretrainTrainer, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 4:
            with torch.no_grad():
                self.distiller.student.encoder.embeddings.position_embeddings.weight[-1, 0] = float("inf")
        return evaluate(self, *args, **kwargs)

    monkeypatch.setattr(PretrainTrainer, "evaluate", spoil)
    with pytest.raises(TrainingDiverged, match=r"position_embeddings.weight is not finite after step 4"):
        train(run, tiny_pretraining(place))
    assert checkpoints(run) == ["checkpoint-2"]


@pytest.mark.filterwarnings("ignore:.*it was not finished")
@pytest.mark.parametrize("share", [0.5, 1.2], ids=["while the weights are written", "while the optimiser's state is"])
def test_a_full_disk_costs_one_checkpoint(
    finished: Path, config: PretrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, share: float
) -> None:
    """Files longer than a limit stand in for it: the system refuses to write on, as it does on a full disk."""
    run, save, (_, hard) = tmp_path / "run", PretrainTrainer._save_checkpoint, resource.getrlimit(resource.RLIMIT_FSIZE)
    full = int(share * (finished / CHECKPOINTS / "checkpoint-8" / "model.safetensors").stat().st_size)

    def refused(self: PretrainTrainer, *args: Any) -> None:
        if self.state.global_step == 4:
            resource.setrlimit(resource.RLIMIT_FSIZE, (full, hard))
        try:
            save(self, *args)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, hard))

    with monkeypatch.context() as patch:
        patch.setattr(PretrainTrainer, "_save_checkpoint", refused)
        with pytest.raises(InvalidStudy, match=r"checkpoint-4: cannot be written.*disk full\?.*same command again"):
            train(run, config)
    assert verify(run / CHECKPOINTS / "checkpoint-2") is None
    train(run, config)
    assert weights(run) == weights(finished)


def test_a_full_disk_at_the_hand_over(finished: Path, unfinished: Path, config: PretrainConfig) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subarch.pretraining.pretrain.hand_over", full)
        with pytest.raises(InvalidStudy, match=r"No space left on device.*then resume"):
            train(unfinished, config)
    assert not (unfinished / "pretrained").exists()
    train(unfinished, config)
    assert weights(unfinished) == weights(finished)
