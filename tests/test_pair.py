"""A student for the queries and its teacher for the documents: handed over as one model, and scored in search."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

import subarch
from subarch.errors import InvalidConfig, InvalidTeacher
from tiny import tiny_sentences, tiny_teacher
from tiny_retrieval import tiny_collection, tiny_reranker


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("models")
    return tiny_teacher(folder / "student", layers=1, seed=1), tiny_teacher(folder / "teacher")


def test_each_side_is_embedded_by_its_own_model(models: tuple[Path, Path], tmp_path: Path) -> None:
    subarch.pair(*models, out=tmp_path / "pair")
    both, texts = SentenceTransformer(str(tmp_path / "pair")), tiny_sentences(8)
    student, teacher = (SentenceTransformer(str(model)) for model in models)
    np.testing.assert_allclose(both.encode_query(texts), student.encode(texts), atol=1e-6)
    np.testing.assert_allclose(both.encode_document(texts), teacher.encode(texts), atol=1e-6)
    assert not np.allclose(both.encode_query(texts), both.encode_document(texts), atol=1e-2)
    assert both.similarity_fn_name == teacher.similarity_fn_name


def test_a_search_takes_documents_by_the_other_model(models: tuple[Path, Path], tmp_path: Path) -> None:
    collection = tiny_collection(tmp_path / "collection")
    student, teacher = models
    pair = subarch.evaluate(student, retrieval=collection, documents=teacher)
    own = subarch.evaluate(student, retrieval=collection)
    same = subarch.evaluate(teacher, retrieval=collection, documents=teacher)
    alone = subarch.evaluate(teacher, retrieval=collection)
    assert pair.document_model == str(teacher)
    assert own.document_model is None
    assert same.model.scores == alone.model.scores
    assert pair.model.scores != own.model.scores


def test_refused(models: tuple[Path, Path], tmp_path: Path) -> None:
    student, teacher = models
    wide = tiny_teacher(tmp_path / "wide", width=64)
    reranker = tiny_reranker(tmp_path / "reranker")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(InvalidTeacher, match=r"embeds in 32 dimensions and .* in 64"):
        subarch.pair(student, wide, tmp_path / "pair")
    with pytest.raises(InvalidTeacher, match="is a reranker"):
        subarch.pair(student, reranker, tmp_path / "pair")
    with pytest.raises(InvalidConfig, match="is not empty; name a new folder"):
        subarch.pair(student, teacher, tmp_path / "full")
    collection = tiny_collection(tmp_path / "collection")
    with pytest.raises(InvalidTeacher, match="its vectors have 64 numbers"):
        subarch.evaluate(student, retrieval=collection, documents=wide)
    with pytest.raises(InvalidConfig, match="reads queries and documents itself"):
        subarch.evaluate(reranker, retrieval=collection, documents=teacher, retriever=teacher)
    with pytest.raises(InvalidConfig, match="name it in retrieval"):
        subarch.evaluate(student, documents=teacher)
    assert not (tmp_path / "pair").exists()
