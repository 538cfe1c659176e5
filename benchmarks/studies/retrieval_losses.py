"""Which losses make a student search better? One shape, equal steps, the losses of vectors one at a time and together.

    python -m benchmarks.studies.retrieval_losses --out runs/retrieval-losses

The teacher is all-MiniLM-L6-v2; the text is a share of the prose in ../shared/data/corpora and of the docstrings of
installed packages, cut at 64 tokens. Each variant trains the same shape from the same start for the same steps, with
--seeds seeds of the order of the text. What counts is nDCG@10 on Cranfield, of whose documents the first 128 tokens
are read, and STS-B dev (Spearman), with whole vectors and with their first numbers alone; nothing of either is trained
on. Results are written to benchmarks/results/retrieval_losses.json after each run. The last line is JSON.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.quality import material, shared
from benchmarks.runner import Results, command_line, console, show
from benchmarks.sts import sts_b
from numpy.typing import NDArray

from subarch.demo.demo import PACKAGES, teacher_folder
from subarch.demo.docstrings import collect, write_corpus
from subarch.evaluation.collection import Collection
from subarch.evaluation.retrieval import Embedder, figures_of
from subarch.pipeline import pretrain
from subarch.pretraining.config import PretrainConfig
from subarch.run.configuration import load
from subarch.tasks.scoring import Task

SETTINGS: dict[str, Any] = {
    "architecture": "3-12-384-512",
    "max_length": 64,
    "batch_tokens": 2048,
    "learning_rate": 1e-3,
    "evaluations": 1,
    "heldout": 128,
    "targets": "cache",
    "threads": 1,
}
CUT = {"dimensions": "192,96,48"}
VARIANTS: dict[str, dict[str, Any]] = {
    "embedding": {"loss_embedding": 1.0},
    "embedding + similarities": {"loss_embedding": 1.0, "loss_similarities": 1.0},
    "embedding + similarities, dimensions": {"loss_embedding": 1.0, "loss_similarities": 1.0} | CUT,
    "embedding + 10 margins": {"loss_embedding": 1.0, "loss_margins": 10.0},
    "embedding + 0.1 similarities": {"loss_embedding": 1.0, "loss_similarities": 0.1},
    "embedding + 0.1 similarities, dimensions": {"loss_embedding": 1.0, "loss_similarities": 0.1} | CUT,
    "embedding + relations": {"loss_embedding": 1.0, "loss_relations": 1.0},
}
WIDTHS = (384, 192, 96, 48)
LENGTH = 128
"""Tokens of a document that are read."""
BYTES = 500_000
"""Of each kind of text."""


def main() -> None:
    parser = command_line(__doc__, "retrieval_losses")
    parser.add_argument("--out", type=Path, default=Path("runs/retrieval-losses"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--steps", type=int, default=80)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    teacher = teacher_folder()
    base = SETTINGS | {
        "teacher": str(teacher),
        "corpus": texts(arguments.out, arguments.data / "corpora"),
        "steps": arguments.steps,
    }
    results = Results(arguments.results)
    results.about(architecture=SETTINGS["architecture"], steps=arguments.steps)
    tests = (
        Collection.read(arguments.data / "retrieval/cranfield", "test"),
        sts_b(arguments.data / "tasks/STS-B/dev.tsv"),
    )
    if not (arguments.out / "common").is_dir():
        material(arguments.out, base | VARIANTS["embedding"])

    def trained(name: str, seed: int) -> dict[str, Any]:
        console.print(f"{name}, seed {seed}")
        folder = shared(arguments.out, f"{name.replace(' ', '').replace(',', '-')}-s{seed}")
        found = pretrain(folder, load(PretrainConfig, None, base | VARIANTS[name] | {"seed": seed}))
        kept = {"heldout": found.heldout[-1], "seconds": found.seconds}
        return kept | scores(folder / "pretrained", *tests)

    for seed in range(arguments.seeds):
        for name in arguments.variants:
            results.keep("runs", name, str(seed), make=partial(trained, name, seed))
    results.keep("teacher", make=lambda: scores(teacher, *tests))
    rows = [["teacher", *listed([results["teacher"]])]]
    rows += [[name, *listed(list(found.values()))] for name, found in results["runs"].items()]
    columns = [f"{test}, {width}" for test in ("nDCG@10", "STS-B dev") for width in WIDTHS]
    show(f"{SETTINGS['architecture']}, {arguments.steps} steps", ["losses", *columns], rows)
    print(json.dumps(results))


def texts(out: Path, corpora: Path) -> list[str]:
    """Files of the first of the docstrings, and of the first of each file of prose; written once."""
    docstrings, folder = out / "docstrings.jsonl", out / "prose"
    if not docstrings.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        files = sorted(corpora.glob("*.txt"))
        for file in files:
            (folder / file.name).write_bytes(file.read_bytes()[: BYTES // len(files)].rpartition(b"\n")[0])
        write_corpus(collect(PACKAGES, limit_bytes=BYTES), docstrings)
    return [str(folder), str(docstrings)]


def scores(folder: Path, collection: Collection, similarity: Task) -> dict[str, Any]:
    """nDCG@10 and Spearman's correlation by width."""
    model = Embedder.load(folder, LENGTH).encoder

    def vectors(some: list[str]) -> NDArray[Any]:
        return np.asarray(model.encode(some, batch_size=32))

    names, grades = list(collection.documents), list(collection.grades.values())
    queries, documents = (vectors(list(part.values())) for part in (collection.queries, collection.documents))
    pairs = {text: row for row, text in enumerate(dict.fromkeys(similarity.texts))}
    sentences = vectors(list(pairs))
    ndcg, spearman = {}, {}
    for width in WIDTHS:
        cut = [
            part[:, :width] / np.linalg.norm(part[:, :width], axis=1, keepdims=True) for part in (queries, documents)
        ]
        ranking = [[names[at] for at in np.argsort(-row, kind="stable")] for row in cut[0] @ cut[1].T]
        ndcg[str(width)] = float(np.mean(figures_of(ranking, grades)["ndcg@10"]))
        embed = lambda some, width=width: sentences[[pairs[text] for text in some], :width]  # noqa: E731
        spearman[str(width)] = similarity.scores(embed)["spearman"]
    return {"ndcg": ndcg, "sts_dev": spearman}


def listed(runs: list[dict[str, Any]]) -> list[str]:
    """The figures of each seed, by test and width."""
    return [
        ", ".join(f"{run[test][str(width)]:.3f}" for run in runs) for test in ("ndcg", "sts_dev") for width in WIDTHS
    ]


if __name__ == "__main__":
    main()
