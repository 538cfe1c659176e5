"""What the report shows: plain data, as read from a run folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class RunData:
    """What any page shows; alone, that of a pretraining without a search, of a fine-tuned model, or of a benchmark.

    `command` reproduces the run; `config` is that of the search, or of the pretraining where there was none;
    `comparison` are the rows of the final table, with any columns; `pretraining` is pretraining.json; `finetuning` has
    for each fine-tuned model its name, the evaluations of its report.json, and agora.json (None: without Agora);
    `bench` is bench.json; `exports` are the parity.json of exported files.
    """

    name: str
    command: str
    config: dict[str, Any]
    environment: dict[str, Any]
    comparison: list[dict[str, Any]] | None
    pretraining: dict[str, Any] | None
    finetuning: list[dict[str, Any]] = field(default_factory=list)
    exports: list[dict[str, Any]] = field(default_factory=list)
    bench: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class SearchData(RunData):
    """What the page of a search shows besides.

    `selection` is selection.json; `trials` are all trials of the study; `order` are the candidates of the space in
    order of cost, as {"architecture", "parameters", "cost", "trained", "grid", "error", "w"}.
    """

    selection: dict[str, Any]
    trials: list[dict[str, Any]]
    order: list[dict[str, Any]]
