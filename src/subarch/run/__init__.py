"""The run folder: typed records, files and hashes of them, what a stage read, configurations, the machine.

Imports errors only, and neither torch nor NumPy: every other folder may use it.
"""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[str, float, float], None]
"""How long work tells its progress: what is being done, how much of it is done, and how much there is (0: unknown)."""


def silent(what: str, done: float, total: float) -> None:
    """A `Report` that shows nothing."""
