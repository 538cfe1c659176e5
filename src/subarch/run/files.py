"""Folders that are there whole or not at all.

>>> with replaced(Path("runs/mine/selected")) as partial:
...     model.save_pretrained(partial)
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced(folder: Path) -> Iterator[Path]:
    """A hidden folder beside, to write into; it takes the place of `folder` if nothing is raised, and is gone if not.

    What a killed process left of it is removed at the next time.

    Raises:
        OSError: it cannot be written.
    """
    partial, old = (folder.with_name(f".{folder.name}.{kind}") for kind in ("partial", "old"))
    for leftover in (partial, old):
        shutil.rmtree(leftover, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        yield partial
        if folder.exists():
            folder.rename(old)
        partial.rename(folder)
    finally:
        for leftover in (partial, old):
            shutil.rmtree(leftover, ignore_errors=True)
