"""Measured latencies that outlive a run: what was measured on this machine, in this runtime, is not measured again.

One SQLite file in the user's cache folder ($SUBARCH_CACHE, else $XDG_CACHE_HOME/subarch or ~/.cache/subarch). A latency
is stored under its conditions, everything that it depends on besides the architecture: machine, runtime and versions,
threads, batch, lengths, what candidates are built of. Each is written as soon as it is known, so that a measurement
that is killed can continue. A damaged or unwritable cache costs a warning and the time to measure again.

    >>> cache = LatencyCache(conditions("onnx-int8", threads=2, batch=1, lengths=[32], blueprint={...}))
    >>> cache.add({"2-12-384-512": Measured(median_ms=0.93, ...)})
    >>> cache.read()["2-12-384-512"].median_ms
    0.93
"""

from __future__ import annotations

import json
import os
import sqlite3
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from subarch.exporting.config import parse_runtime
from subarch.run.machine import VARIABLES, machine, versions
from subarch.run.records import Measured

PACKAGES = {
    "torch": ("torch", "transformers"),
    "onnx": ("subarch", "torch", "transformers", "onnx", "onnxruntime"),
    "openvino": ("subarch", "torch", "transformers", "onnx", "openvino", "nncf"),
}
"""Packages by engine whose version can change a latency: those that run a file, and those that write it."""


def cache_folder() -> Path:
    """The folder for what can be made again.

    Raises:
        OSError: none is named, and the user has no home folder.
    """
    if own := os.environ.get("SUBARCH_CACHE"):
        return Path(own)
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "subarch"
    try:
        return Path.home() / ".cache" / "subarch"
    except RuntimeError as error:
        raise OSError("the user has no home folder") from error


def conditions(runtime: str, threads: int, batch: int, lengths: Sequence[int], **candidates: Any) -> dict[str, Any]:
    """Everything that a latency depends on besides the architecture.

    Args:
        candidates: what candidates are built of, as JSON.
    """
    found = versions()
    return {
        "runtime": runtime,
        "batch": batch,
        "lengths": list(lengths),
        "threads": threads,
        "machine": machine(),
        "versions": {name: found.get(name) for name in PACKAGES[parse_runtime(runtime)[0]]},
        "variables": {name: os.environ[name] for name in VARIABLES if name in os.environ},
        **candidates,
    }


class LatencyCache:
    """The latencies stored under some conditions, which are any JSON object."""

    def __init__(self, conditions: Mapping[str, Any]) -> None:
        self._conditions = json.dumps(conditions, sort_keys=True)

    def read(self) -> dict[str, Measured]:
        """Latencies by name; damaged entries are left out."""
        rows = self._run("SELECT name, entry FROM latencies WHERE conditions = ?", [(self._conditions,)])
        found = {name: _parsed(entry) for name, entry in rows}
        if None in found.values():
            warnings.warn("the cache of latencies holds damaged entries; they are measured again", stacklevel=2)
        return {name: entry for name, entry in found.items() if entry is not None}

    def add(self, entries: Mapping[str, Measured]) -> None:
        """Store latencies; older ones of the same names are replaced."""
        rows = [(self._conditions, name, entry.model_dump_json()) for name, entry in entries.items()]
        self._run("INSERT OR REPLACE INTO latencies VALUES (?, ?, ?)", rows)

    def clear(self) -> None:
        """Delete what was measured under these conditions."""
        self._run("DELETE FROM latencies WHERE conditions = ?", [(self._conditions,)])

    def _run(self, command: str, rows: Sequence[tuple[str, ...]]) -> list[tuple[str, str]]:
        """Run a command for each row, in one transaction; the answer to the last one. A failure is a warning."""
        path = None
        try:
            path = cache_folder() / "latencies.sqlite"
            path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(path, timeout=30)) as database, database:
                database.execute(
                    "CREATE TABLE IF NOT EXISTS latencies (conditions TEXT, name TEXT, entry TEXT, "
                    "PRIMARY KEY (conditions, name))"
                )
                found: list[tuple[str, str]] = []
                for row in rows:
                    found = database.execute(command, row).fetchall()
                return found
        except (OSError, sqlite3.Error) as error:
            warnings.warn(
                f"{path or 'no cache'}: latencies cannot be kept there ({error}), so every run measures them again. "
                "Delete the file if it is damaged, or set SUBARCH_CACHE to another folder",
                stacklevel=3,
            )
            return []


def _parsed(text: Any) -> Measured | None:
    try:
        entry = Measured.model_validate_json(text, strict=True)
    except (ValidationError, TypeError):
        return None
    return entry if min(entry.median_ms, entry.q1_ms, entry.q3_ms, entry.p95_ms) > 0 else None
