"""Local worker processes: each opens the workbench once, then trains one candidate after the other.

Processes, not threads: a trial repeats bit for bit only with a fixed number of threads of its own. A worker that
dies (killed, out of memory) takes its trial with it; the others are tried again once, and the one that kills its worker
twice comes back as failed. Workers end by themselves when their parent is gone.

    >>> with Workers(config, run, count=2) as workers:
    ...     workers.submit(architecture, settings)
    ...     trial = workers.next()
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING

from subarch.architecture import Architecture
from subarch.config import ExtractConfig
from subarch.trial import Settings, Trial

if TYPE_CHECKING:
    from subarch.workbench import Workbench

_bench: Workbench | None = None


class Workers:
    """`count` processes with `config.threads_per_worker` threads each. Use as a context manager."""

    def __init__(self, config: ExtractConfig, run: Path, count: int) -> None:
        self.config, self.run, self.count = config, run, count
        self._running: dict[Future[Trial], tuple[Architecture, Settings]] = {}
        self._lost: set[tuple[Architecture, Settings]] = set()
        self._pool = self._start()

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    @property
    def free(self) -> int:
        return self.count - len(self._running)

    def submit(self, architecture: Architecture, settings: Settings) -> None:
        future = self._pool.submit(_train, architecture, settings)
        self._running[future] = (architecture, settings)

    def next(self) -> Iterator[Trial]:
        """Wait until at least one trial has ended, and give those that have.

        An error that is nobody's trial but the run's (a full disk, a damaged cache) is raised as it is.
        """
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        try:
            ended = [future.result() for future in done]
        except BrokenProcessPool:
            yield from self._recover()
            return
        for future in done:
            del self._running[future]
        yield from ended

    def _recover(self) -> Iterator[Trial]:
        """After a worker died every running trial is gone; which of them did it is found by running them one by one."""
        jobs = list(self._running.values())
        self._running.clear()
        for job in jobs:
            self._stop()
            self._pool = self._start()
            future = self._pool.submit(_train, *job)
            try:
                yield future.result()
            except BrokenProcessPool:
                threads = self.config.threads_per_worker
                yield Trial(*job, None, (), 0.0, threads, "its worker process died twice, killed or out of memory")
        self._stop()
        self._pool = self._start()

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self.count, get_context("spawn"), _open, (self.config, self.run, self.config.threads_per_worker)
        )

    def _stop(self) -> None:
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()


def _open(config: ExtractConfig, run: Path, threads: int) -> None:
    """Start-up of a worker."""
    import torch

    from subarch.workbench import Workbench

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    global _bench
    _bench = Workbench.open(config, run)


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def _train(architecture: Architecture, settings: Settings) -> Trial:
    assert _bench is not None
    return _bench.train(architecture, settings, weights_path(_bench.run, architecture, settings))


def weights_path(run: Path, architecture: Architecture, settings: Settings) -> Path:
    """Where a trial's trained weights are kept."""
    name = f"{architecture}_s{settings.steps}_lr{settings.learning_rate:g}_b{settings.batch_size}_seed{settings.seed}"
    return run / "weights" / f"{name}.safetensors"
