"""Small text files for the tests of readers and corpora."""

from __future__ import annotations

import json
import random
from pathlib import Path

TEXT = "the quick brown fox jumps over a lazy dog while seven small grey cats sleep under one old wooden table"
WORDS = TEXT.split()


def sentences(count: int, seed: int = 0, words: int = 8) -> list[str]:
    """Distinct sentences: the number in each makes it so."""
    source = random.Random(seed)
    return [f"number{seed}x{n} " + " ".join(source.choices(WORDS, k=words)) for n in range(count)]


def write(path: Path, lines: list[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def records(path: Path, rows: list[tuple[str, str | None]]) -> Path:
    return write(path, [json.dumps({"text": text, "group": group}) for text, group in rows])
