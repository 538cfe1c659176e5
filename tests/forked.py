"""Processes that cost no import, and processes that die when they are told to.

Importing torch and transformers takes longer than all that a test does with a tiny model, so a process is forked from
the test's own, where they are loaded.

    >>> assert fork(lambda: train(run, config)) == [0]
    >>> child = start(main)
    >>> os.kill(child, signal.SIGINT)
    >>> os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    130
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing import forkserver
from typing import Any

import torch
from accelerate.state import AcceleratorState


def start(work: Callable[[], object], **environment: str) -> int:
    """Do the work in a forked process; its pid.

    It ends with 0, with what the work exits with, or with 1 and a traceback after any other exception.
    """
    if (child := os.fork()) != 0:
        return child
    status = 1
    try:
        os.environ.update(environment)
        AcceleratorState._reset_state(reset_partial_state=True)  # that of a training in the test's process
        forkserver._forkserver.__init__()  # type: ignore[misc]  # that of the test's process is no child of this one
        work()
        status = 0
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else int(bool(left.code))
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)  # nothing of the test's own ending


def fork(work: Callable[[], object], processes: int = 1, seconds: float | None = None, **environment: str) -> list[int]:
    """Do the work in forked processes, which know each other by torchrun's variables; their exit codes, -9 if killed.

    Where one of them fails the others are killed, as torchrun does.

    Args:
        seconds: after which the first process is killed, should it not have ended.
        environment: further variables.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    torchrun = {"WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    children = []
    for rank in range(processes):
        own = {"RANK": rank, "LOCAL_RANK": rank, **torchrun} if processes > 1 else {}
        children.append(start(work, **{name: str(value) for name, value in own.items()}, **environment))
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
