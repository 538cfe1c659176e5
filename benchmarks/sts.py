"""STS-B as the original download and the GLUE download have it: similarity tasks, never trained on."""

from __future__ import annotations

import csv
from pathlib import Path

from subarch.tasks.scoring import Task

GOLD = ("genre", "file", "year", "number", "score", "sentence1", "sentence2")
"""Columns of sts-test.tsv, the test set with its scores, which has no header."""


def sts_b(path: Path) -> Task:
    """dev.tsv (with a header) or sts-test.tsv (without)."""
    with path.open(encoding="utf-8", newline="") as file:
        names = None if "sentence1" in file.readline() else GOLD
        file.seek(0)
        # The licence line of some rows follows in further columns
        rows = list(csv.DictReader(file, names, restkey="rest", delimiter="\t", quoting=csv.QUOTE_NONE))
    return Task(
        "similarity",
        [{"text_a": row["sentence1"], "text_b": row["sentence2"], "score": row["score"]} for row in rows],
    )
