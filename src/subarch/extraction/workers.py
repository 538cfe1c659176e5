"""Workers: each opens the workbench once, then trains one candidate after the other; local or on a ray cluster.

Processes, not threads: a trial repeats bit for bit only with a fixed number of threads of its own. A worker that dies
(killed, out of memory, over the time limit of a trial, at which it ends itself) takes its trial with it. Those trials
are tried once more, and one that kills its worker twice comes back as failed. Workers end when their parent is gone.

    >>> with Workers(config, run, count=2) as workers:        # or RayWorkers(config, run, "local")
    ...     workers.submit(architecture, settings)
    ...     trials = list(workers.next())
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import cache
from multiprocessing import get_context, parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from subarch.errors import InvalidConfig
from subarch.extraction.config import ExtractConfig
from subarch.extraction.trial import Settings, Trial, weights_path
from subarch.numbers.architecture import Architecture

if TYPE_CHECKING:
    from subarch.extraction.workbench import Workbench

RETRIES = 1
"""Of a trial on a cluster whose process or machine is gone."""
STORE = 100 * 2**20
"""Bytes of shared memory of a cluster that is started here: tasks pass names and figures only."""
_place: tuple[ExtractConfig, Path, int]
"""In a worker: the configuration, the run folder and the number of threads."""


class Pool(Protocol):
    """Whatever trains candidates, here (`Workers`) or on a cluster (`RayWorkers`)."""

    count: int
    """Trials at a time."""

    def __enter__(self) -> Pool: ...
    def __exit__(self, *exception: object) -> None: ...

    @property
    def free(self) -> int:
        """How many more may be submitted now."""

    def submit(self, architecture: Architecture, settings: Settings) -> None: ...

    def next(self) -> Iterator[Trial]:
        """Wait until at least one trial has ended, and give those that have.

        An error that is not about one trial (a full disk, a damaged cache) is raised as it is.
        """


class Workers:
    """`count` processes with `config.threads_per_worker` threads each. Use as a context manager."""

    def __init__(self, config: ExtractConfig, run: Path, count: int) -> None:
        self.config, self.run, self.count = config, run, count
        self._running: dict[Future[Trial], tuple[Architecture, Settings]] = {}
        self._pool = self._start()

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()

    @property
    def free(self) -> int:
        return self.count - len(self._running)

    def submit(self, architecture: Architecture, settings: Settings) -> None:
        try:
            future = self._pool.submit(_train, architecture, settings)
        except BrokenProcessPool as error:  # a worker died since the last `next`; the coming one answers that
            future = Future()
            future.set_exception(error)
        self._running[future] = (architecture, settings)

    def next(self) -> Iterator[Trial]:
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        if any(isinstance(future.exception(), BrokenProcessPool) for future in done):
            yield from self._recover()
            return
        for future in done:
            del self._running[future]
            yield future.result()

    def _recover(self) -> Iterator[Trial]:
        """After a worker died every running trial is gone; which of them did it is found by running them one by one."""
        running, self._running = self._running, {}
        self._renew()
        for future, job in running.items():
            try:
                if isinstance(future.exception(), BrokenProcessPool):  # the others had ended before
                    future = self._pool.submit(_train, *job)
                yield future.result()
            except BrokenProcessPool:
                limit = self.config.trial_minutes
                late = "" if limit is None else f", or over the limit of {limit:g} minutes"
                reason = f"its worker process died twice, killed or out of memory{late}"
                yield Trial(*job, None, (), 0.0, self.config.threads_per_worker, reason)
                self._renew()

    def _start(self) -> ProcessPoolExecutor:
        place = self.config, self.run, self.config.threads_per_worker
        # Workers are forked from a process that has imported what they need, and shares it with them
        context = get_context("forkserver")
        context.set_forkserver_preload(["subarch.extraction.workbench"])
        return ProcessPoolExecutor(self.count, context, _open, place)

    def _renew(self) -> None:
        self._stop()
        self._pool = self._start()

    def _stop(self) -> None:
        processes = list((self._pool._processes or {}).values())
        self._pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.kill()


class RayWorkers:
    """Trials as tasks of a ray cluster: as many as it has room for, or `config.workers`. Use as a context manager.

    `address` is that of a cluster, "auto" (the one this machine belongs to) or "local" (one is started here). All
    machines must see the run folder under the same path: they read from and leave weights in it. Only the coordinator
    records trials, so none is counted twice. ray starts the tasks of a lost node again elsewhere, once.

    Raises:
        InvalidConfig: no cluster answers there, or it has no processors.
    """

    def __init__(self, config: ExtractConfig, run: Path, address: str) -> None:
        import ray

        self.config, self.run = config, run.resolve()
        self._began = not ray.is_initialized()
        if self._began:
            try:
                given: dict[str, Any] = {"object_store_memory": STORE} if address == "local" else {"address": address}
                ray.init(**given, log_to_driver=False)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise InvalidConfig(f"ray: no cluster at {address!r}: {error}; start one, or use 'local'") from error
        processors = int(ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]
        self.count = config.workers or processors // config.threads_per_worker
        if self.count < 1:
            threads = config.threads_per_worker
            raise InvalidConfig(f"ray: {address!r} has fewer processors than threads_per_worker {threads}; lower that")
        self._task = ray.remote(_train_for).options(num_cpus=config.threads_per_worker, max_retries=RETRIES)
        self._running: dict[Any, tuple[Architecture, Settings]] = {}

    def __enter__(self) -> RayWorkers:
        return self

    def __exit__(self, *exception: object) -> None:
        import ray

        for task in self._running:
            ray.cancel(task, force=True)
        if self._began:
            ray.shutdown()

    @property
    def free(self) -> int:
        return self.count - len(self._running)

    def submit(self, architecture: Architecture, settings: Settings) -> None:
        self._running[self._task.remote(self.config, self.run, architecture, settings)] = (architecture, settings)

    def next(self) -> Iterator[Trial]:
        import ray
        from ray.exceptions import RayError, RayTaskError

        ended, _ = ray.wait(list(self._running), num_returns=1)
        for task in ended:
            job = self._running.pop(task)
            try:
                yield ray.get(task)
            except RayTaskError as error:
                raise error.cause from error
            except RayError as error:  # its process or its machine, and the next one, too
                reason = f"its process died {RETRIES + 1} times: {type(error).__name__}"
                yield Trial(*job, None, (), 0.0, self.config.threads_per_worker, reason)


def _open(config: ExtractConfig, run: Path, threads: int) -> None:
    """Start-up of a worker. The workbench is opened with the first trial, whose future then carries any error."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    threading.Thread(target=_end_with_parent, daemon=True).start()
    global _place
    _place = config, run, threads


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


@cache
def _bench() -> Workbench:
    import torch

    from subarch.extraction.workbench import Workbench

    config, run, threads = _place
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    return Workbench.open(config, run)


@contextmanager
def _in_time(minutes: float | None) -> Iterator[None]:
    """Ends this process where that takes longer: nothing else stops a training that hangs."""
    timer = threading.Timer(60 * (minutes or 0), os._exit, (1,))
    timer.daemon = True
    if minutes is not None:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _train(architecture: Architecture, settings: Settings) -> Trial:
    bench = _bench()
    with _in_time(bench.config.trial_minutes):
        return bench.train(architecture, settings, weights_path(bench.run, architecture, settings))


def _train_for(config: ExtractConfig, run: Path, architecture: Architecture, settings: Settings) -> Trial:
    """In a process of ray's, which may serve several runs."""
    global _place
    place = config, run, config.threads_per_worker
    if globals().get("_place", place) != place:
        _bench.cache_clear()
    _place = place
    return _train(architecture, settings)
