"""Makes the recorded table: from studies of ours to one Parquet file, a row per trial.

    python -m benchmarks.search.record runs/recorded [RUN ...] --out benchmarks/search/minilm.parquet

Every run gives the finished trials of its study, also of one that is still being recorded, and its latency.json and
latency_*.json, where it has any, a column for each runtime and setting. Trials of several runs compare only if all that
an error depends on is the same (the identity, see docs/study.md); others are refused. The file is written whole.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, astuple
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from subarch.errors import InvalidStudy
from subarch.extraction.config import ExtractConfig
from subarch.extraction.study import Study, sqlite
from subarch.extraction.trial import Trial
from subarch.numbers.architecture import Inputs
from subarch.run.configuration import load
from subarch.run.folder import RunFolder
from subarch.run.records import Basis


def record(runs: Sequence[Path], out: Path) -> int:
    """Write the trials of all runs to one file; how many there are.

    Raises:
        InvalidStudy: a run whose errors do not compare with the first one's, or a study that cannot be read.
    """
    bases = [json.loads((run / "basis.json").read_text()) for run in runs]
    for run, basis in zip(runs, bases, strict=True):
        differ = sorted(key for key in basis["identity"] if basis["identity"][key] != bases[0]["identity"].get(key))
        if differ:
            raise InvalidStudy(f"{run}: trained with another {', '.join(differ)} than {runs[0]}; record it by itself")
    latency = latencies(runs)
    length = next(iter(latency.values()))[0]["length"] if latency else configured_length(runs[0])
    inputs = Inputs(**bases[0]["inputs"])
    trials = {trial.key: trial for run, basis in zip(runs, bases, strict=True) for trial in finished(run, basis)}
    cut = any(trial.architecture.vocabulary for trial in trials.values())
    longer = RunFolder(runs[0]).read(Basis).longer(length) if cut else {}
    rows = [
        asdict(trial.architecture)
        | {
            "parameters": trial.architecture.parameters(inputs).total,
            "operations": trial.architecture.operations(inputs, longer.get(trial.architecture.vocabulary, length)),
        }
        | {"learning_rate": trial.settings.learning_rate, "batch_size": trial.settings.batch_size}
        | {"steps": trial.settings.steps, "seed": trial.settings.seed, "error": trial.error}
        | {"curve_steps": [point.step for point in trial.curve], "curve_errors": [point.error for point in trial.curve]}
        | {
            "curve_seconds": [point.seconds for point in trial.curve],
            "seconds": trial.seconds,
            "threads": trial.threads,
        }
        | {name: median.get(str(trial.architecture)) for name, (_, median) in latency.items()}
        for trial in sorted(trials.values(), key=lambda trial: (trial.architecture, astuple(trial.settings)))
    ]
    about = {
        "identity": bases[0]["identity"],
        "inputs": bases[0]["inputs"],
        "teacher": bases[0]["teacher"],
        "latency": {name: settings for name, (settings, _) in latency.items()},
        "environment": json.loads((runs[0] / "environment.json").read_text()),
    }
    table = pa.Table.from_pylist(rows).replace_schema_metadata({"subarch": json.dumps(about)})
    unfinished = out.with_name(out.name + ".tmp")
    pq.write_table(table, unfinished, compression="zstd")
    os.replace(unfinished, out)
    return len(rows)


def latencies(runs: Sequence[Path]) -> dict[str, tuple[dict[str, Any], dict[str, float]]]:
    """By column: what was measured with, and the median of each candidate in ms. Predicted ones are left out."""
    found: dict[str, tuple[dict[str, Any], dict[str, float]]] = {}
    for file in (file for run in runs for file in sorted(run.glob("latency*.json"))):
        measured = json.loads(file.read_text())
        settings = measured["settings"]
        name = "ms_{runtime}_b{batch}_l{length}_t{threads}".format(**settings)
        medians = found.setdefault(name, (settings, {}))[1]
        for candidate, times in (measured["candidates"] | measured.get("confirmed", {})).items():
            if "predicted" not in times:
                medians.setdefault(candidate, times["median_ms"])
    return found


def configured_length(run: Path) -> int:
    """Tokens that operations are counted at in a run whose cost these are."""
    return load(ExtractConfig, run / "config.yaml", {}).latency_length


def finished(run: Path, basis: dict[str, Any]) -> list[Trial]:
    """The trials of a run that ended well, from a copy of its study: opening one needs leave to write."""
    with tempfile.TemporaryDirectory() as folder:
        copied = Path(folder) / "study.db"
        with (
            closing(sqlite3.connect(f"{(run / 'study.db').resolve().as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(copied)) as copy,
        ):
            source.backup(copy)
            (name,) = copy.execute("SELECT study_name FROM studies").fetchone()
        trials = Study.open(sqlite(copied), name, basis["identity"]).trials()
    return [trial for trial in trials if trial.error is not None]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("minilm.parquet"))
    arguments = parser.parse_args()
    count = record(arguments.runs, arguments.out)
    print(json.dumps({"trials": count, "bytes": arguments.out.stat().st_size}))
