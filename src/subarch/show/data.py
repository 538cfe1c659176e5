"""What a page shows: the records of a run folder, together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from subarch.run.records import (
    Agora,
    Bench,
    Evaluation,
    Machine,
    OrderRow,
    Parity,
    Pretraining,
    Selection,
    TrialRow,
    Versions,
)


@dataclass(frozen=True, kw_only=True)
class FineTuned:
    """A fine-tuned model: its name, its evaluations, and how Agora grew its data (None: without Agora)."""

    name: str
    evaluations: tuple[Evaluation, ...]
    agora: Agora | None = None


@dataclass(frozen=True, kw_only=True)
class Search:
    """A finished search; `order` are the candidates in order of cost, `config` its configuration by key."""

    selection: Selection
    trials: tuple[TrialRow, ...]
    order: tuple[OrderRow, ...]
    config: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class RunData:
    """Everything a page can show; what a run does not have is None or empty.

    `command` reproduces the run; `comparison` are the rows of a final table, with any columns.
    """

    name: str
    command: str
    machine: Machine
    versions: Versions
    git: str | None = None
    search: Search | None = None
    pretraining: Pretraining | None = None
    finetuning: list[FineTuned] = field(default_factory=list)
    exports: list[Parity] = field(default_factory=list)
    bench: Bench | None = None
    comparison: list[dict[str, Any]] | None = None
