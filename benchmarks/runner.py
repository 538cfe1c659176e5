"""What the benchmarks share: their options, results that survive a kill, a table for people, JSON as the last line.

arguments = command_line(__doc__, "ablation").parse_args()
results = Results(arguments.results)                      # what an earlier call left, or the machine alone
for name in variants:
    results.keep("runs", name, make=lambda: train(name))  # skipped where it is there; else written at once
show("title", ["model", "ms"], rows)
print(json.dumps(results))
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from subarch.run.machine import machine, versions

RESULTS = Path(__file__).parent / "results"

console = Console(stderr=True)


def command_line(description: str | None, results: str | None = None) -> argparse.ArgumentParser:
    """A parser that shows the module's docstring; with a name of a file in `results/`, also --results."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if results is not None:
        parser.add_argument("--results", type=Path, default=RESULTS / f"{results}.json", help="file for the numbers")
    return parser


class Results(dict[str, Any]):
    """Results in a JSON file, with the machine and the versions that the first of them were made with."""

    def __init__(self, path: Path) -> None:
        super().__init__(json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {})
        self.path = path
        if not self:
            self.update(machine=machine(), versions=versions())

    def about(self, **settings: Any) -> None:
        """What the results are of. Results of other settings are dropped."""
        if any(self.get(name, value) != value for name, value in settings.items()):
            self.clear()
            self.update(machine=machine(), versions=versions())
        self.update(settings)

    def keep(self, *keys: str, make: Callable[[], Any]) -> Any:
        """The value below these keys; made and saved if it is not there yet."""
        place: dict[str, Any] = self
        for key in keys[:-1]:
            place = place.setdefault(key, {})
        if keys[-1] not in place:
            place[keys[-1]] = make()
            self.save()
        return place[keys[-1]]

    def save(self) -> None:
        """Replace the file in one step."""
        write(self, self.path)


def write(results: Any, path: Path) -> None:
    """Write JSON; a kill leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    temporary.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, path)


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on standard error, its first column to the left."""
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right")
    for row in rows:
        table.add_row(*row)
    console.print(table)
