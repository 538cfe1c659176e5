"""What `subarch bench` shows on a terminal.

>>> show_bench(found, Path("runs/bench"))
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

COLUMNS = ("\nms", "p95\nms", "sent.\n/s", "of\npeak", "mem.\nMB", "load\ns", "file\nMB")


def show_bench(found: dict[str, Any], place: Path) -> None:
    """A table per batch size and length: `found` is what bench.json holds."""
    console, rows = Console(), found["rows"]
    for batch, lengths in dict.fromkeys((row["batch"], tuple(row["lengths"])) for row in rows):
        tokens = f"{lengths[0]} tokens" if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]} tokens, mean"
        table = Table(
            title=f"a forward pass: batch {batch}, {tokens}", box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0)
        )
        table.add_column("\nmodel", overflow="fold", min_width=12)
        table.add_column("\nruntime", no_wrap=True)
        for column in COLUMNS:
            table.add_column(column, justify="right", no_wrap=True)
        for row in rows:
            if (row["batch"], tuple(row["lengths"])) == (batch, lengths):
                table.add_row(row["subject"], row["runtime"], *_figures(row))
        console.print(table)
    shares = f"{found['processes']} process{'es' * (found['processes'] != 1)} of {found['threads']} thread"
    console.print(
        f"{shares}{'s' * (found['threads'] != 1)}; peak: {found['peak_gflops']:.0f} GFLOP/s in fp32 matrix products",
        highlight=False,
    )
    print(f"report: {place / 'bench.html'}")


def _figures(row: dict[str, Any]) -> list[str]:
    memory = "" if row["peak_bytes"] is None else f"{row['peak_bytes'] / 1e6:.0f}"
    digits = 3 if row["median_ms"] < 1 else 2
    return [
        f"{row['median_ms']:.{digits}f}",
        f"{row['p95_ms']:.{digits}f}",
        f"{row['sentences_per_second']:,.0f}",
        f"{row['share_of_peak']:.0%}",
        memory,
        f"{row['load_seconds']:.2f}",
        f"{row['file_bytes'] / 1e6:.1f}",
    ]
