"""How long work tells what it is at: a function that is called, which `screen` shows as bars.

Importing this module imports neither torch nor rich.
"""

from __future__ import annotations

from collections.abc import Callable

Report = Callable[[str, float, float], None]
"""Called with what is being done, how much of it is done, and how much there is (0: unknown)."""


def silent(what: str, done: float, total: float) -> None:
    """Hears and says nothing."""
