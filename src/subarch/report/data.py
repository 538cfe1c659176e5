"""What the report shows: plain data, as read from a run folder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RunData:
    """What any page shows; alone, that of a pretraining without a search.

    `command` reproduces the run; `config` is that of the search, or of the pretraining where there was none;
    `comparison` are the rows of the final table, with any columns; `pretraining` is pretraining.json.
    """

    name: str
    command: str
    config: dict[str, Any]
    environment: dict[str, Any]
    comparison: list[dict[str, Any]] | None
    pretraining: dict[str, Any] | None


@dataclass(frozen=True)
class SearchData(RunData):
    """What the page of a search shows besides.

    `selection` is selection.json; `trials` are all trials of the study; `order` are the candidates of the space in
    order of cost, as {"architecture", "parameters", "cost", "trained", "grid", "error", "w"}.
    """

    selection: dict[str, Any]
    trials: list[dict[str, Any]]
    order: list[dict[str, Any]]
