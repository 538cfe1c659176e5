"""Exported files search as their models do; what is exported, but does not search, is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForSequenceClassification

import subarch
from subarch.errors import InvalidExport, InvalidTeacher, MissingExtra
from subarch.evaluation.collection import Collection
from subarch.evaluation.retrieval import Embedder, embedded, reranked
from subarch.exporting.searching import load
from subarch.models.reranker import Reranker
from subarch.run import silent
from tiny import write_json
from tiny_export import exported, tiny_model
from tiny_retrieval import tiny_collection, tiny_reranker

pytest.importorskip("onnxruntime")
pytest.importorskip("openvino")

PROMPTS = {"query": "kitchen: ", "document": "school: "}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("searching")
    tiny_collection(place / "harbours")
    model = tiny_model(place / "model", "sentence")
    about = {"prompts": PROMPTS, "default_prompt_name": None, "similarity_fn_name": "dot"}
    write_json(model / "config_sentence_transformers.json", about)
    tiny_reranker(place / "reranker")
    return place


@pytest.fixture(scope="module")
def collection(place: Path) -> Collection:
    return Collection.read(place / "harbours", "test")


def export(model: Path, run: Path, **options: object) -> Path:
    folder = exported(model, run, **options).folder
    assert folder is not None
    return Path(folder)


@pytest.mark.parametrize("runtime", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_an_embedding_model(runtime: str, place: Path, collection: Collection, tmp_path: Path) -> None:
    model, file = load(place / "model", 20), load(export(place / "model", tmp_path, runtime=runtime), 20)
    assert isinstance(model, Embedder)
    assert isinstance(file, Embedder)
    assert (file.prompts, file.max_length) == (PROMPTS, 20)
    assert file.encoder.similarity_fn_name == "dot"
    assert file.fingerprint.endswith(f"-{runtime}")
    ours, theirs = (embedded(one, collection, 40, silent) for one in (file, model))
    assert ours.ranking == theirs.ranking
    assert ours.record.prompts == theirs.record.prompts == PROMPTS


def test_int8_differs(place: Path, collection: Collection, tmp_path: Path) -> None:
    """It is the quantised file that is run."""
    file = load(export(place / "model", tmp_path, quantize="int8", min_cosine=0.5))
    exact = load(place / "model")
    assert isinstance(file, Embedder)
    assert isinstance(exact, Embedder)
    texts = list(collection.queries.values())
    ours, theirs = (torch.from_numpy(one.encoder.encode(texts)) for one in (file, exact))
    assert 1e-4 < float((ours - theirs).abs().max()) < 0.2


@pytest.mark.parametrize("runtime", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_a_reranker(runtime: str, place: Path, collection: Collection, tmp_path: Path) -> None:
    model, file = load(place / "reranker", 20), load(export(place / "reranker", tmp_path, runtime=runtime), 20)
    assert isinstance(model, Reranker)
    assert isinstance(file, Reranker)
    pairs = [("the old harbour", text) for text in collection.documents.values()]
    assert file.score(pairs) == pytest.approx(model.score(pairs), abs=1e-5)  # a sigmoid on top, as in the folder
    ranking = [list(collection.documents)] * len(collection.queries)
    assert (
        reranked(file, collection, ranking, 40, silent).ranking
        == reranked(model, collection, ranking, 40, silent).ranking
    )


def test_beside_its_model(place: Path, collection: Collection, tmp_path: Path) -> None:
    """The folder is that of the model then, and its onnx/ the file."""
    model = tmp_path / "model"
    shutil.copytree(place / "model", model)
    exported(model, tmp_path / "run", beside=True)
    whole, file = load(model), load(model / "onnx")
    assert isinstance(whole, Embedder)
    assert isinstance(file, Embedder)
    assert whole.fingerprint != file.fingerprint
    assert embedded(whole, collection, 40, silent).ranking == embedded(file, collection, 40, silent).ranking


def test_from_python(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = export(place / "model", tmp_path / "run")
    found = subarch.evaluate(file, retrieval=place / "harbours", against=place / "model")
    assert found.comparison is not None
    assert found.comparison.metrics["ndcg@10"].difference == 0
    assert found.model.model == str(file)


def test_refused(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = export(tiny_model(tmp_path / "encoder", "encoder"), tmp_path / "a")
    with pytest.raises(InvalidExport, match="its head, encoder, neither embeds a text nor scores a pair"):
        load(encoder)
    classifier = tiny_model(tmp_path / "classifier", "classification")
    assert AutoModelForSequenceClassification.from_pretrained(classifier).config.num_labels == 3
    with pytest.raises(InvalidTeacher, match="is a classifier with 3 outputs; a reranker has one"):
        load(export(classifier, tmp_path / "b"))
    changed = export(place / "model", tmp_path / "c")
    with (changed / "onnx" / "model.onnx").open("ab") as file:
        file.write(b"more")
    with pytest.raises(InvalidExport, match=r"model.onnx: was changed after it was compared with PyTorch"):
        load(changed)
    whole = export(place / "model", tmp_path / "d")
    monkeypatch.setattr(
        "subarch.exporting.runtimes.extras", lambda: {"onnx": {"missing": ["onnxruntime"], "command": "pip install x"}}
    )
    with pytest.raises(MissingExtra, match="onnx: needs packages that are not installed: onnxruntime"):
        load(whole)
