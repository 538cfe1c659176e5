"""The study of losses for search: its scores are those of the package, at every width."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from benchmarks.studies import retrieval_losses
from scipy.stats import spearmanr

from subarch.evaluation.collection import Collection
from subarch.evaluation.retrieval import search
from subarch.exporting.searching import load
from subarch.tasks.scoring import Task
from tiny import tiny_sentences, tiny_teacher
from tiny_retrieval import tiny_collection


def test_scores_by_width(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval_losses, "WIDTHS", (32, 8))
    folder = tiny_teacher(tmp_path / "model", layers=1)
    collection = Collection.read(tiny_collection(tmp_path / "harbours"), "test")
    texts = tiny_sentences(24)
    rows = [{"text_a": texts[n], "text_b": texts[n + 12], "score": str(n % 5)} for n in range(12)]
    found = retrieval_losses.scores(folder, collection, Task("similarity", rows))
    whole = search(load(folder), collection).model.scores.metrics["ndcg@10"].value
    assert found["ndcg"]["32"] == pytest.approx(whole)
    assert set(found["ndcg"]) == set(found["sts_dev"]) == {"32", "8"}
    vectors = load(folder).encoder.encode(texts)[:, :8]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = (unit[:12] * unit[12:]).sum(1)
    assert found["sts_dev"]["8"] == pytest.approx(spearmanr(cosines, [n % 5 for n in range(12)]).statistic)
    assert found["ndcg"]["8"] != found["ndcg"]["32"]


def test_text_is_taken_from_each_file_of_prose(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval_losses, "BYTES", 3000)
    (tmp_path / "corpora").mkdir()
    for name in ("a", "b"):
        (tmp_path / "corpora" / f"{name}.txt").write_text("\n".join(tiny_sentences(200)), encoding="utf-8")
    prose, docstrings = retrieval_losses.texts(tmp_path / "out", tmp_path / "corpora")
    sizes = [file.stat().st_size for file in sorted(Path(prose).glob("*.txt"))]
    assert len(sizes) == 2
    assert all(1300 < size <= 1500 for size in sizes)
    assert Path(docstrings).stat().st_size > 0
