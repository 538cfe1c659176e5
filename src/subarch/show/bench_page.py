"""A benchmark kept: bench.json with every figure, and bench.html, the page to look at.

>>> found = keep(["models/all-MiniLM-L6-v2"], config, Path("runs/bench"), "subarch bench models/all-MiniLM-L6-v2")
>>> found.rows[0].median_ms
10.3
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from subarch.errors import InvalidStudy
from subarch.latency.bench import bench
from subarch.latency.config import BenchConfig
from subarch.run.folder import RunFolder
from subarch.run.progress import Report, silent
from subarch.run.records import Bench
from subarch.show import RunData, render


def keep(subjects: Sequence[str], config: BenchConfig, place: Path, command: str, report: Report = silent) -> Bench:
    """Time subjects, write bench.json and bench.html into `place`, and return what bench.json holds.

    Raises:
        InvalidStudy: `place` cannot be written in, which is told before anything is timed.
        SubarchError: see `bench.bench`; then a folder that was not there is not left behind.
    """
    is_new = not place.exists()
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InvalidStudy(f"{place}: cannot be made: {error}; choose another with --run") from error
    if not os.access(place, os.W_OK):
        raise InvalidStudy(f"{place}: cannot be written in; choose another with --run")
    try:
        record = bench(subjects, config, report).model_copy(update={"command": command})
    except BaseException:
        if is_new:
            place.rmdir()
        raise
    folder = RunFolder(place)
    folder.write(record)
    found = record.to_dict()
    environment = {name: found[name] for name in ("versions", "machine")}
    page = RunData(
        name=place.name,
        command=command,
        config=found["config"],
        environment=environment,
        comparison=None,
        pretraining=None,
        bench=found,
    )
    folder.write_text("bench.html", render(page))
    return record
