"""Workers on a ray cluster: each trial is a task, placed, retried and counted by ray.

Like `workers.Workers`, to the search that uses it. The run folder must be seen by all machines under the same path (a
shared file system): corpus, targets and anatomy are opened from there, trained weights are left there. A node that goes
away takes its tasks with it; ray starts them again elsewhere, once, and a trial that ends twice that way fails. Trials
are written down by the coordinator alone, so none is counted twice.

    >>> with RayWorkers(config, run, "local") as workers:        # or "auto", or an address
    ...     workers.submit(architecture, settings)
    ...     trials = list(workers.next())

Importing this module imports ray.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from subarch.errors import InvalidConfig
from subarch.extraction import workers
from subarch.extraction.config import ExtractConfig
from subarch.extraction.trial import Settings, Trial
from subarch.numbers.architecture import Architecture

RETRIES = 1
"""Of a trial whose process or machine is gone."""
STORE = 100 * 2**20
"""Bytes for what passes between processes of a cluster started here."""


class RayWorkers:
    """As many trials at a time as the cluster has room for, or as `config.workers` says. Use as a context manager.

    Args:
        address: of a cluster; "auto": the one this machine belongs to; "local": one is started here.

    Raises:
        InvalidConfig: no cluster answers there, or it has no processors.
    """

    def __init__(self, config: ExtractConfig, run: Path, address: str) -> None:
        self.config, self.run = config, run.resolve()
        self._began = not ray.is_initialized()
        if self._began:
            try:
                # Tasks pass names and figures only: a small store will do
                given: dict[str, Any] = {"object_store_memory": STORE} if address == "local" else {"address": address}
                ray.init(**given, log_to_driver=False)
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise InvalidConfig(f"ray: no cluster at {address!r}: {error}; start one, or use 'local'") from error
        processors = int(ray.cluster_resources().get("CPU", 0))  # type: ignore[no-untyped-call]
        self.count = config.workers or processors // config.threads_per_worker
        if self.count < 1:
            raise InvalidConfig(
                f"ray: the cluster at {address!r} has fewer processors than threads_per_worker "
                f"{config.threads_per_worker}; set that lower, or add machines"
            )
        self._task = ray.remote(_train).options(num_cpus=config.threads_per_worker, max_retries=RETRIES)
        self._running: dict[Any, tuple[Architecture, Settings]] = {}

    def __enter__(self) -> RayWorkers:
        return self

    def __exit__(self, *exception: object) -> None:
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
        """See `workers.Pool`."""
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


def _train(config: ExtractConfig, run: Path, architecture: Architecture, settings: Settings) -> Trial:
    """In a process of ray's, which serves one trial after the other and opens the workbench with the first."""
    place = (config, run, config.threads_per_worker)
    if getattr(workers, "_place", place) != place:
        workers._bench.cache_clear()  # it served another run before
    workers._place = place
    return workers._train(architecture, settings)
