"""Measured latencies that outlive a run: what was measured on this machine, in this runtime, is not measured again.

One SQLite file in the user's cache folder ($SUBARCH_CACHE, else $XDG_CACHE_HOME/subarch or ~/.cache/subarch). A
latency is filed under its conditions, all that it depends on beside the architecture: machine, runtime and versions,
threads, batch, lengths, what candidates are built of. Each is written as soon as it is known, so that a measurement
that is killed goes on where it was. A cache is no result: one that is damaged or cannot be written costs a warning and
the time to measure again.

    >>> cache = LatencyCache({"runtime": "onnx-int8", "threads": 2, "batch": 1, "lengths": [32], "machine": machine()})
    >>> cache.add({"2-12-384-512": {"median_ms": 0.93, "measured": "2026-11-22T10:12:00+00:00", "drift": 1.0}})
    >>> cache.read()["2-12-384-512"]["median_ms"]
    0.93
"""

from __future__ import annotations

import json
import os
import sqlite3
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

Entry = dict[str, Any]
"""A latency as it stands in latency.json: median_ms, q1_ms, q3_ms, p95_ms, passes, measured (date), drift."""

FIGURES = {"median_ms", "q1_ms", "q3_ms", "p95_ms"}


def cache_folder() -> Path:
    """Where things are kept that can be made again; in the folder of temporary files where there is no home to use."""
    if own := os.environ.get("SUBARCH_CACHE"):
        return Path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared) / "subarch"
    home = Path(os.path.expanduser("~"))  # unlike Path.home(), it does not raise for a user without a home
    if home.is_absolute() and os.access(home, os.W_OK):
        return home / ".cache" / "subarch"
    return Path(tempfile.gettempdir()) / f"subarch-{os.getuid() if hasattr(os, 'getuid') else 'cache'}"


class LatencyCache:
    """The latencies filed under some conditions, which are any JSON object."""

    def __init__(self, conditions: Mapping[str, Any]) -> None:
        self.path = cache_folder() / "latencies.sqlite"
        self._conditions = json.dumps(conditions, sort_keys=True)

    def read(self) -> dict[str, Entry]:
        """What is known, by name; an entry that makes no sense is left out."""
        rows = self._run("SELECT name, entry FROM latencies WHERE conditions = ?", [(self._conditions,)])
        found = {name: _parsed(entry) for name, entry in rows}
        if None in found.values():
            warnings.warn(f"{self.path}: holds damaged entries, which are measured again", stacklevel=2)
        return {name: entry for name, entry in found.items() if entry is not None}

    def add(self, entries: Mapping[str, Entry]) -> None:
        """File latencies; older ones of the same names are replaced."""
        rows = [(self._conditions, name, json.dumps(entry)) for name, entry in entries.items()]
        self._run("INSERT OR REPLACE INTO latencies VALUES (?, ?, ?)", rows)

    def clear(self) -> None:
        """Forget what was measured under these conditions."""
        self._run("DELETE FROM latencies WHERE conditions = ?", [(self._conditions,)])

    def _run(self, command: str, rows: Sequence[tuple[str, ...]]) -> list[tuple[str, str]]:
        """In one transaction; what it gives for the last row. A failure is a warning."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self.path, timeout=30)) as database, database:
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
                f"{self.path}: latencies cannot be kept there ({error}); they are measured anew in each run. Delete "
                "the file if it is damaged, or set SUBARCH_CACHE to another folder",
                stacklevel=3,
            )
            return []


def _parsed(text: Any) -> Entry | None:
    try:
        entry = json.loads(text)
        return entry if isinstance(entry, dict) and all(entry[name] > 0 for name in FIGURES) else None
    except (ValueError, TypeError, KeyError):
        return None
