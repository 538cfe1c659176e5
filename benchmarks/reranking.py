"""A reranker and its student: how well they order what all-MiniLM-L6-v2 finds on Cranfield.

    python -m benchmarks.reranking                        # goes on where it was stopped; half an hour on one core

Two thirds of Cranfield's queries are learnt from, one third is judged on. all-MiniLM-L6-v2 is fine-tuned as a
CrossEncoder on the first: pairs of a query and one of the `FOUND` documents that the same encoder finds for it, or one
that is relevant, with 1 or 0 for a number. That is the teacher. Its student is searched under a limit of its latency
on the same pairs without their numbers, and trained in full on the teacher's outputs and hidden states, as in
`outputs.py`. Judged by nDCG@10 of the first 50 documents that the encoder finds, in a new order.

Results are written to benchmarks/results/reranking.json after each part. The last line is JSON.
"""

from __future__ import annotations

import csv
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from benchmarks.outputs import DEPTHS, SEARCH, SPACE, TRAINING, latency
from benchmarks.runner import Results, command_line, show
from benchmarks.teachers import cranfield
from sentence_transformers import SentenceTransformer

import subarch
from subarch.demo.demo import teacher_folder
from subarch.run.folder import RunFolder
from subarch.run.records import Layers, Retrieval
from subarch.text.read import hash64

FOUND = 16
"""Documents found by the encoder that are learnt from, for each query."""
TEACHER: dict[str, Any] = {"learning_rate": [1e-4], "epochs": 2, "seeds": [0], "max_length": 128, "threads": 1}
LIMIT = 0.25


def main() -> None:
    parser = command_line(__doc__, "reranking")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/retrieval/cranfield"))
    parser.add_argument("--out", type=Path, default=Path("runs/reranking"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results, out, encoder = Results(arguments.results), arguments.out, teacher_folder()
    results.about(found=FOUND, teacher=TEACHER, limit=LIMIT, search=SEARCH, space=SPACE, training=TRAINING)
    collection, pairs = divided(arguments.data, out / "cranfield"), out / "pairs.jsonl"
    if not pairs.is_file():
        write_pairs(encoder, collection, pairs)
    keep = partial(results.keep, "models")
    keep("retriever", make=lambda: judged(encoder, collection))
    run, teacher = out / "run", out / "teacher" / "finetuned" / "relevance"

    def taught() -> dict[str, Any]:
        columns: dict[str, Any] = {
            "first": "text_a",
            "second": "text_b",
            "label": "label",
            "group": "group",
            "kind": "regression",
        }
        subarch.finetune(encoder, task="relevance", data=pairs, run=out / "teacher", **columns, **TEACHER)
        return judged(teacher, collection)

    def searched() -> dict[str, Any]:
        space = out / "space.yaml"
        space.write_text(yaml.safe_dump({"depth": DEPTHS[LIMIT]} | SPACE), encoding="utf-8")
        given: dict[str, Any] = {"teacher": teacher, "corpus": str(pairs), "max_latency_ratio": LIMIT}
        found = subarch.extract(run, resume=(run / "config.yaml").is_file(), space=str(space), **given, **SEARCH)
        assert found.winner is not None
        layers = RunFolder.open(run).read(Layers).chosen[found.winner.architecture.split("-")[0]]
        made = {"architecture": found.winner.architecture, "layers": list(layers), "error": found.winner.error}
        return made | latency(run / "selected", teacher, run) | judged(run / "selected", collection)

    def in_full() -> dict[str, Any]:
        made = subarch.pretrain(run, **TRAINING)
        subarch.export(run, quantize="int8")
        found = {"architecture": made.architecture, "error": made.heldout[-1]["error"], "seconds": made.seconds}
        return found | latency(run / "pretrained", teacher, run) | judged(run / "pretrained", collection)

    keep("teacher", make=taught)
    keep("student, search alone", make=searched)
    keep("student", make=in_full)
    rows = []
    for name, one in results["models"].items():
        share = f"{one['share']:.2f}" if "share" in one else ""
        interval = f"{one['low']:.3f} to {one['high']:.3f}"
        rows.append([name, one.get("architecture", ""), share, f"{one['ndcg']:.4f}", interval])
    show("Cranfield, queries that were held out", ["model", "architecture", "latency", "nDCG@10", "95 %"], rows)
    print(json.dumps(results))


def divided(data: Path, out: Path) -> Path:
    """A copy of the collection whose judgements are in two parts, learn.tsv and judge.tsv."""
    (out / "qrels").mkdir(parents=True, exist_ok=True)
    for name in ("corpus.jsonl", "queries.jsonl"):
        shutil.copyfile(data / name, out / name)
    with (data / "qrels" / "test.tsv").open(encoding="utf-8", newline="") as file:
        head, *lines = csv.reader(file, delimiter="\t")
    for part, is_judged in {"learn": False, "judge": True}.items():
        with (out / "qrels" / f"{part}.tsv").open("w", encoding="utf-8", newline="") as file:
            rows = [line for line in lines if (hash64(line[0]) % 3 == 0) == is_judged]
            csv.writer(file, delimiter="\t", lineterminator="\n").writerows([head, *rows])
    return out


def write_pairs(encoder: Path, collection: Path, file: Path) -> None:
    """Queries of the part to learn from with documents, and whether these are relevant."""
    queries, documents, relevant = cranfield(collection, "learn")
    model = SentenceTransformer(str(encoder), device="cpu")
    ids = list(documents)
    vectors = model.encode([documents[one] for one in ids], show_progress_bar=False, convert_to_tensor=True)
    lines = []
    for query, wanted in sorted(relevant.items()):
        near = model.encode(queries[query], convert_to_tensor=True) @ vectors.T
        found = [ids[at] for at in near.topk(FOUND).indices.tolist()]
        for document in dict.fromkeys([*found, *sorted(wanted)]):
            texts = {"text_a": queries[query], "text_b": documents[document]}
            lines.append(json.dumps(texts | {"label": float(document in wanted), "group": query}) + "\n")
    file.write_text("".join(lines), encoding="utf-8")


def judged(model: Path, collection: Path) -> dict[str, float]:
    """nDCG@10 on the queries that are judged, with its 95 % interval over them."""
    options: dict[str, Any] = {} if model == teacher_folder() else {"retriever": teacher_folder()}
    found = subarch.evaluate(model, "judge", retrieval=collection, **options)
    assert isinstance(found, Retrieval)
    scores = found.model.scores.metrics["ndcg@10"]
    return {"ndcg": scores.value, "low": scores.low, "high": scores.high}


if __name__ == "__main__":
    main()
