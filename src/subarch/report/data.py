"""What the report shows: plain data, as read from a run folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RunData:
    """Everything the report shows, as read from a run folder.

    `selection` is selection.json; `trials` are all trials of the study; `order` are the candidates of the space in
    order of cost, as {"architecture", "parameters", "cost", "trained", "grid", "error", "w"}; `comparison` are the rows
    of the final table, with any columns; `command` reproduces the run.
    """

    name: str
    command: str
    selection: dict[str, Any]
    trials: list[dict[str, Any]]
    order: list[dict[str, Any]]
    config: dict[str, Any]
    environment: dict[str, Any]
    comparison: list[dict[str, Any]] | None
