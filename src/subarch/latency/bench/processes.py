"""The processes that serve, from the side that asks them.

    >>> with Group("MiniLM in onnx", task, count=2) as group:
    ...     group.visit(batch=1, lengths=(32,), passes=4)
    [[2.9, 2.8, 2.8, 2.9], [3.1, 3.0, 3.0, 3.0]]

Importing this module imports no runtime and no torch.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from subarch.errors import InvalidExport

TOGETHER = 0.25
"""Seconds that a visit lasts at least where several processes serve, so that they do so at the same time."""


class Group:
    """Processes that serve the same model at the same time. As a context manager it ends them."""

    def __init__(self, name: str, task: dict[str, Any], count: int) -> None:
        """Start them one after the other, each undisturbed by the others.

        Args:
            name: of what they serve, for a message.
            task: see `serving.opened`.

        Raises:
            InvalidExport: one of them could not open the model.
        """
        self.name, self.load_seconds, self.peak_bytes = name, list[float](), list[int | None]()
        self._processes: list[Any] = []
        try:
            for _ in range(count):
                self._processes.append(_start(task))
                self.load_seconds.append(self._answer(self._processes[-1])["load_seconds"])
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def visit(self, batch: int, lengths: Sequence[int], passes: int) -> list[list[float]]:
        """All at once: milliseconds of each timed call, by process.

        Raises:
            InvalidExport: a process died.
        """
        seconds = TOGETHER if passes and len(self._processes) > 1 else 0.0
        asked = {"batch": batch, "lengths": list(lengths), "passes": passes, "seconds": seconds}
        for process in self._processes:
            try:
                print(json.dumps(asked), file=process.stdin, flush=True)
            except BrokenPipeError:
                raise self._dead(process) from None
        answers = [self._answer(process) for process in self._processes]
        self.peak_bytes = [answer["peak_bytes"] for answer in answers]
        return [answer["times_ms"] for answer in answers]

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.kill()
            process.wait()
            process.stdout.close()
            with suppress(BrokenPipeError):  # of a question that one which died did not hear
                process.stdin.close()

    def _answer(self, process: Any) -> dict[str, Any]:
        line = process.stdout.readline()
        if not line:
            raise self._dead(process)
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _dead(self, process: Any) -> InvalidExport:
        return InvalidExport(
            f"{self.name}: the process that runs it ended with code {process.wait()}; what it said is above. If it was "
            "killed (-9), there is not enough memory: time fewer models, runtimes or processes at once"
        )


def _start(task: dict[str, Any]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "subarch.latency.bench.serving", json.dumps(task)]
    # A session of its own: Ctrl-C is for the one that asks, which then ends them
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
