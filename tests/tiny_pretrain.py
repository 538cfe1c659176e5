"""Whole pretrainings in a second, processes that cost no import, and processes that die when they are told to.

Importing torch and transformers takes longer than all the training of a tiny run, so a process is forked from the
test's own, where they are loaded.

    >>> config = tiny_pretraining(tmp_path, steps=8)
    >>> with one_core():
    ...     assert fork(lambda: train(run, config)) == [0]
    >>> weights(run)
"""

from __future__ import annotations

import gc
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file
from torch import Tensor
from tqdm import tqdm

from subarch.pretraining.config import PretrainConfig, load_pretrain
from tiny import tiny_corpus, tiny_teacher

QUICK: dict[str, Any] = {
    "architecture": "1-4-16-32",
    "max_length": 32,
    "batch_tokens": 512,
    "learning_rate": 5e-3,
    "steps": 8,
    "evaluations": 4,
    "heldout": 8,
    "threads": 1,
    "targets": "live",
}


def tiny_pretraining(folder: Path, masked_lm: bool = True, **changes: Any) -> PretrainConfig:
    """A configuration with a teacher and a corpus made in `folder`, where they are missing; None leaves a key out."""
    teacher = folder / ("masked-lm" if masked_lm else "encoder")
    if not teacher.is_dir():
        tiny_teacher(teacher, masked_lm=masked_lm, modules=not masked_lm)
    corpus = folder / "corpus.txt"
    if not corpus.is_file():
        tiny_corpus(corpus, 300)
    options = {"teacher": teacher, "corpus": [str(corpus)], **QUICK, **changes}
    return load_pretrain(None, {key: value for key, value in options.items() if value is not None})


@contextmanager
def one_core() -> Iterator[None]:
    """One thread for all, latency's included, and garbage collected quickly: Trainer collects at each start."""
    threads, deterministic = torch.get_num_threads(), torch.are_deterministic_algorithms_enabled()
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subarch.pretraining.outcome.usable_cores", lambda: 1)
        # The usual lock is common to all processes: one that is killed while it holds it stops the others
        tqdm.set_lock(threading.RLock())
        patch.setattr(tqdm, "monitor_interval", 0)
        yield
    gc.unfreeze()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(deterministic)


def weights(run: Path, folder: str = "pretrained") -> bytes:
    """The weights that a run handed over, as they are on disk."""
    return (run / folder / "model.safetensors").read_bytes()


def tensors(run: Path, folder: str = "pretrained") -> dict[str, Tensor]:
    return load_file(run / folder / "model.safetensors")


def fork(work: Callable[[], object], processes: int = 1, seconds: float | None = None, **environment: str) -> list[int]:
    """Do the work in forked processes, which know each other by torchrun's variables; their exit codes, -9 if killed.

    An exception is printed, and is exit code 1. Where one of them fails the others are killed, as torchrun does.

    Args:
        seconds: after which the first process is killed, should it not have ended.
        environment: further variables.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    children = []
    for rank in range(processes):
        if (child := os.fork()) == 0:
            status = 1
            try:
                if processes > 1:
                    torchrun = {
                        "RANK": rank,
                        "LOCAL_RANK": rank,
                        "WORLD_SIZE": processes,
                        "LOCAL_WORLD_SIZE": processes,
                    }
                    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
                    os.environ.update({name: str(value) for name, value in (torchrun | address).items()})
                os.environ.update(environment)
                AcceleratorState._reset_state(reset_partial_state=True)  # that of a training in the test's process
                work()
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(status)  # nothing of the test's own ending
        children.append(child)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(children[0], signal.SIGKILL)  # one that has ended is there until it is waited for
    codes: dict[int, int] = {}
    while len(codes) < processes:
        child, status = os.wait()
        if child in children:
            codes[child] = os.waitstatus_to_exitcode(status)
            if codes[child] != 0:
                for other in set(children) - set(codes):
                    os.kill(other, signal.SIGKILL)
    return [codes[child] for child in children]


def die() -> None:
    """As by `kill -9`: nothing is flushed, nothing is tidied up."""
    os.kill(os.getpid(), signal.SIGKILL)


def dies(function: Callable[..., Any], call: int, after: bool = False) -> Callable[..., Any]:
    """The function, whose `call`-th call (from 1) kills the process before it is made, or after it."""
    calls = 0

    def deadly(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call and not after:
            die()
        result = function(*args, **kwargs)
        if calls == call:
            die()
        return result

    return deadly


def half_written(call: int) -> Callable[..., Any]:
    """`torch.save`, whose `call`-th call leaves half of its file and kills the process."""
    save, calls = torch.save, 0

    def deadly(value: Any, path: Any, *args: Any, **kwargs: Any) -> None:
        nonlocal calls
        calls += 1
        save(value, path, *args, **kwargs)
        if calls == call:
            with open(path, "r+b") as file:
                file.truncate(os.path.getsize(path) // 2)
            die()

    return deadly
