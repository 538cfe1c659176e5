"""What is fine-tuned on pairs is a CrossEncoder of sentence-transformers and answers like it, exported too."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sentence_transformers import CrossEncoder

from subarch.evaluation.collection import Collection
from subarch.evaluation.retrieval import load, search
from subarch.exporting.runtimes import open_file
from subarch.finetuning.config import FitSettings, Theta
from subarch.finetuning.fit import fit
from subarch.models.heads import predict
from subarch.tasks import Examples
from tasks_tiny import grades, pairs
from tiny import tiny_teacher, write_json
from tiny_export import exported
from tiny_retrieval import tiny_collection

FAST = Theta(3e-3, batch_size=8, epochs=2, dropout=0.0)
SHORT = FitSettings(max_length=14, threads=1)  # shorter than some pairs


def fine_tuned(place: Path, family: str, train: Examples, dev: Examples) -> Path:
    model = tiny_teacher(place / "model", family=family, layers=1, modules=False)
    if family == "bert":  # real ones tell the two texts apart
        settings = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
        names = {"model_input_names": ["input_ids", "token_type_ids", "attention_mask"]}
        write_json(model / "tokenizer_config.json", settings | names)
    return fit(model, train, dev, FAST, place / "fit", settings=SHORT).folder


def texts(part: Examples) -> list[tuple[str, str]]:
    return [(example.texts[0], example.texts[1]) for example in part]


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_grades_are_predicted_as_the_cross_encoder_does(family: str, tmp_path: Path) -> None:
    part = grades(30, 1)
    folder = fine_tuned(tmp_path, family, grades(40), part)
    encoder = CrossEncoder(str(folder), local_files_only=True)
    found = predict(folder, part)
    np.testing.assert_allclose(encoder.predict(texts(part)), found[:, 0], atol=1e-5)
    assert ("token_type_ids" in encoder.preprocess(texts(part))) == (family == "bert")
    assert encoder.max_seq_length == SHORT.max_length
    assert np.ptp(found) > 0.01
    assert not ((found > 0) & (found < 1)).all()  # grades, not probabilities
    query = part[0].texts[0]
    documents = [example.texts[1] for example in part]
    ranked = encoder.rank(query, documents)
    scores = encoder.predict([(query, document) for document in documents])
    assert [one["corpus_id"] for one in ranked] == np.argsort(-scores, kind="stable").tolist()


def test_classes_are_predicted_as_the_cross_encoder_does(tmp_path: Path) -> None:
    part = pairs(30, 1)
    folder = fine_tuned(tmp_path, "bert", pairs(40), part)
    encoder = CrossEncoder(str(folder), local_files_only=True)
    np.testing.assert_allclose(encoder.predict(texts(part)), predict(folder, part), atol=1e-5)
    assert encoder.num_labels == 2


@pytest.mark.parametrize("runtime", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_the_exported_file_answers_like_the_cross_encoder(runtime: str, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip(runtime)
    part = grades(30, 1)
    folder = fine_tuned(tmp_path, "bert", grades(40), part)
    parity = exported(folder, tmp_path / "run", runtime=runtime)
    assert parity.folder is not None
    encoder = CrossEncoder(str(folder), local_files_only=True)
    file = next(Path(parity.folder).glob("**/model.onnx" if runtime == "onnx" else "**/openvino_model.xml"))
    session = open_file(parity.runtime, file, 1)
    features = encoder.preprocess(texts(part))
    said = session({name: features[name].numpy() for name in parity.inputs})
    np.testing.assert_allclose(said["logits"][:, 0], encoder.predict(texts(part)), atol=1e-4)


def test_it_is_evaluated_as_a_reranker(tmp_path: Path) -> None:
    folder = fine_tuned(tmp_path, "bert", grades(40), grades(30, 1))
    collection = Collection.read(tiny_collection(tmp_path / "harbours"), "test")
    retriever = load(tiny_teacher(tmp_path / "retriever", layers=1))
    found = search(load(folder), collection, retriever=retriever)
    assert (found.model.kind, found.model.max_length) == ("reranker", SHORT.max_length)
