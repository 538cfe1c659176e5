"""A tiny collection in the layout of BEIR, and tiny rerankers.

>>> search(tiny_teacher(tmp_path / "model"), Collection.read(tiny_collection(tmp_path / "harbours"), "test"))
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from tiny import TOPICS, tiny_sentences, tiny_teacher

DOCUMENTS = 40


def write_lines(path: Path, rows: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def tiny_collection(folder: Path) -> Path:
    """40 documents; a query for each of five topics, whose documents are relevant, the first with grade 2."""
    (folder / "qrels").mkdir(parents=True)
    sentences = tiny_sentences(DOCUMENTS)
    write_lines(
        folder / "corpus.jsonl",
        [{"_id": f"d{n}", "title": text.split()[0], "text": text} for n, text in enumerate(sentences)],
    )
    write_lines(
        folder / "queries.jsonl", [{"_id": f"q{n}", "text": f"the old {topic}"} for n, topic in enumerate(TOPICS)]
    )
    judged = ["query-id\tcorpus-id\tscore"]
    for n, topic in enumerate(TOPICS):
        mine = [at for at, text in enumerate(sentences) if text.startswith(topic)]
        judged += [f"q{n}\td{at}\t{2 if at == mine[0] else 1}" for at in mine]
    (folder / "qrels" / "test.tsv").write_text("\n".join(judged) + "\n", encoding="utf-8")
    return folder


def tiny_reranker(folder: Path, family: str = "bert", outputs: int = 1, seed: int = 0) -> Path:
    """A random stock classifier: one output is a reranker."""
    tiny_teacher(folder, family=family, modules=False, layers=1, seed=seed)
    torch.manual_seed(seed)
    model = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=outputs)
    for name, parameter in model.named_parameters():
        if name.startswith("classifier"):
            parameter.data.normal_()  # at the usual spread all pairs would score about the same
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(folder).save_pretrained(folder)
    return folder
