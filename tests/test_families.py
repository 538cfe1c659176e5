"""Families that are BERT or RoBERTa under other names: read into the stock class, they compute exactly the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BertModel,
    BertTokenizer,
    CamembertTokenizer,
    RobertaModel,
    XLMRobertaTokenizer,
)

from subarch.errors import InvalidTeacher
from subarch.exporting.graph import load_exportable, load_graph
from subarch.models.families import CONVERTED
from subarch.models.heads import predict
from subarch.models.stock import StockTeacher, teacher_of
from subarch.models.student import Blueprint, Student, hand_over
from subarch.models.teacher import Teacher
from subarch.pipeline import extract
from subarch.tasks import TASKS, Example, Examples
from tiny import WIDTH, add_modules, tiny_sentences, tiny_teacher, tiny_tokenizer, write_json
from tiny_export import exported
from tiny_run import OneProcess, tiny_config

TEXTS = [*tiny_sentences(5, seed=1), "boat", "THE OLD BOAT. Café 東京", "the bell and a rose. " * 30]

SHAPE = {
    "hidden_size": WIDTH,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "layer_norm_eps": 1e-4,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "distilbert": {"dim": WIDTH, "n_layers": 3, "n_heads": 4, "hidden_dim": 64, "activation": "relu"},
    "xlm-roberta": SHAPE,
    "camembert": SHAPE,
    "electra": SHAPE | {"embedding_size": WIDTH},
}
STOCK = {"distilbert": "bert", "xlm-roberta": "roberta", "camembert": "roberta", "electra": "bert"}


def tokenizer_of(family: str) -> Any:
    """The family's own tokenizer: WordPiece, or a Unigram that was trained on `tiny_sentences`."""
    if STOCK[family] == "bert":
        return BertTokenizer(vocab=tiny_tokenizer().get_vocab(), model_max_length=64)
    inner = Tokenizer(models.Unigram())
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    if family == "camembert":
        special = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<mask>"]
    trainer = trainers.UnigramTrainer(vocab_size=200, unk_token="<unk>", special_tokens=special)
    inner.train_from_iterator(tiny_sentences(50), trainer)
    vocabulary = [tuple(entry) for entry in json.loads(inner.to_str())["model"]["vocab"]]
    kind: Any = XLMRobertaTokenizer if family == "xlm-roberta" else CamembertTokenizer
    return kind(vocab=vocabulary, model_max_length=64)


def folder_of(folder: Path, family: str, auto: Any = AutoModelForMaskedLM, modules: bool = True, **more: Any) -> Path:
    """A random model of the family with its tokenizer, and the modules of a sentence encoder on wish."""
    tokenizer = tokenizer_of(family)
    settings = SETTINGS[family] | {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id} | more
    settings |= {"max_position_embeddings": 64 + (tokenizer.pad_token_id + 1) * (STOCK[family] == "roberta")}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = auto.from_config(AutoConfig.for_model(family, **settings))
        for parameter in model.parameters():
            parameter.data += torch.randn_like(parameter) * 0.2
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if modules:
        add_modules(folder)
    return folder


def ours(teacher: Teacher) -> Any:
    return teacher.embed(teacher.tokenizer(TEXTS, add_special_tokens=False, verbose=False)["input_ids"]).numpy()


def theirs(folder: Path) -> Any:
    return SentenceTransformer(str(folder), device="cpu").encode(TEXTS)


@pytest.mark.parametrize("family", CONVERTED)
@pytest.mark.parametrize("auto", [AutoModel, AutoModelForMaskedLM])
def test_the_stock_class_computes_the_same(tmp_path: Path, family: str, auto: Any) -> None:
    folder = folder_of(tmp_path / "teacher", family, auto)
    teacher = teacher_of(folder)
    assert isinstance(teacher, Teacher)
    assert teacher.family == STOCK[family]
    assert isinstance(teacher.encoder, BertModel if STOCK[family] == "bert" else RobertaModel)
    expected = theirs(folder)
    np.testing.assert_allclose(ours(teacher), expected, atol=1e-6)
    assert np.ptp(expected @ expected.T) > 1e-3  # the texts differ
    assert (teacher.masked_lm is None) == (auto is AutoModel)
    if auto is AutoModelForMaskedLM:
        batch = teacher.batch(teacher.tokenizer(TEXTS, add_special_tokens=False, verbose=False)["input_ids"])
        with torch.inference_mode():
            logits = auto.from_pretrained(folder)(batch.ids, attention_mask=batch.mask).logits
            found = teacher.head(teacher.encoder(batch.ids, attention_mask=batch.mask).last_hidden_state)
            both = teacher.masked_lm(batch.ids, attention_mask=batch.mask).logits
        seen = batch.mask.bool()
        torch.testing.assert_close(found[seen], logits[seen], atol=1e-6, rtol=0)
        torch.testing.assert_close(both[seen], logits[seen], atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", CONVERTED)
def test_what_is_handed_over_is_stock(tmp_path: Path, family: str) -> None:
    teacher = Teacher.load(folder_of(tmp_path / "teacher", family))
    student = Student(teacher.architecture, Blueprint.of_teacher(teacher)).eval()
    student.model.load_state_dict(teacher.encoder.state_dict())
    hand_over(student, teacher.tokenizer, teacher.recipe, tmp_path / "student")
    assert AutoConfig.from_pretrained(tmp_path / "student").model_type == STOCK[family]
    expected = theirs(tmp_path / "teacher")
    np.testing.assert_allclose(theirs(tmp_path / "student"), expected, atol=1e-6)
    np.testing.assert_allclose(ours(Teacher.load(tmp_path / "student")), expected, atol=1e-6)


@pytest.mark.parametrize("family", CONVERTED)
def test_a_graph_computes_the_same(tmp_path: Path, family: str) -> None:
    folder = folder_of(tmp_path / "teacher", family, modules=False)
    batch = Teacher.load(folder).batch([[7, 8, 9], [10]])
    stock = AutoModelForMaskedLM.from_pretrained(folder)
    with torch.inference_mode():
        expected = stock(batch.ids, attention_mask=batch.mask).logits
        for graph in (load_exportable(folder).graph, load_graph(folder, "masked-lm")):
            inputs = (batch.ids, batch.mask, torch.zeros_like(batch.ids))[: len(graph.inputs)]
            torch.testing.assert_close(graph(*inputs)[0], expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("family", CONVERTED)
def test_a_fine_tuned_folder_predicts(tmp_path: Path, family: str) -> None:
    folder = folder_of(tmp_path / "tuned", family, AutoModelForSequenceClassification, modules=False)
    rows = tuple(Example(str(row), str(row), (text,)) for row, text in enumerate(TEXTS[:6]))
    found = predict(folder, Examples(TASKS["cola"], "test", "here", rows))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.inference_mode():
        for text, logits in zip(TEXTS, found, strict=False):
            batch = tokenizer(text, truncation=True, return_tensors="pt")
            expected = model(batch["input_ids"], attention_mask=batch["attention_mask"]).logits[0]
            np.testing.assert_allclose(logits, expected, atol=1e-5)


@pytest.mark.parametrize(
    "family", ["distilbert", pytest.param("camembert", marks=pytest.mark.slow)]
)  # a BERT and a RoBERTa
def test_a_search_and_an_export(tmp_path: Path, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subarch.pipeline.Workers", OneProcess)
    folder, run = folder_of(tmp_path / "own", family), tmp_path / "run"
    selection = extract(tiny_config(tmp_path, teacher=str(folder)), run).to_dict()
    assert f"own ({Teacher.load(folder).architecture})" in selection["teacher"]["name"]
    selected = Teacher.load(run / "selected")
    assert selected.family == STOCK[family]
    found = theirs(run / "selected")
    assert found.shape == (len(TEXTS), WIDTH)
    np.testing.assert_allclose(ours(selected), found, atol=1e-5)
    parity = exported(run / "selected", tmp_path / "exports", runtime="onnx", quantize="int8", min_cosine=0.9)
    assert (parity.head, parity.variant) == ("sentence", "onnx-int8")


def test_an_electra_that_projects_its_embeddings_is_a_stock_teacher(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "electra", AutoModel, embedding_size=16)
    teacher = teacher_of(folder)
    assert isinstance(teacher, StockTeacher)
    assert f"{folder}: its embeddings are 16 wide and its layers {WIDTH}" in teacher.reason
    np.testing.assert_allclose(teacher.embed_texts(TEXTS), theirs(folder), atol=1e-6)


def test_the_head_of_an_electra_with_another_activation_is_left_out(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "electra", hidden_act="relu")
    teacher = Teacher.load(folder)
    np.testing.assert_allclose(ours(teacher), theirs(folder), atol=1e-6)
    with pytest.raises(InvalidTeacher, match="has no masked-LM head"):
        _ = teacher.head


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_an_architecture_with_a_head_that_the_file_lacks(tmp_path: Path, family: str) -> None:
    folder = tiny_teacher(tmp_path, family=family, masked_lm=True)
    expected = theirs(folder)
    state = load_file(folder / "model.safetensors")
    encoder = {name: value for name, value in state.items() if name.startswith(family)}
    for prefix in ("", f"{family}."):  # both are in circulation
        renamed = {prefix + name.removeprefix(f"{family}."): value for name, value in encoder.items()}
        save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
        assert json.loads((folder / "config.json").read_text())["architectures"][0].endswith("ForMaskedLM")
        teacher = Teacher.load(folder)
        np.testing.assert_allclose(ours(teacher), expected, atol=1e-6)
        with pytest.raises(InvalidTeacher, match="has no masked-LM head"):
            _ = teacher.head
    part = sorted(set(state) - set(encoder))[0]
    save_file(encoder | {part: state[part]}, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidTeacher, match="weights are missing from its files"):
        Teacher.load(folder)


def test_a_weight_that_is_missing_or_too_many(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "distilbert")
    state = load_file(folder / "model.safetensors")
    name = "distilbert.transformer.layer.1.ffn.lin1.weight"
    for changed, message in (
        ({key: value for key, value in state.items() if key != name}, f"first {name}"),
        (state | {"distilbert.transformer.layer.3.ffn.lin1.weight": state[name].clone()}, "have no place in the model"),
    ):
        save_file(changed, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(InvalidTeacher, match=message):
            teacher_of(folder)


def test_weights_that_cannot_be_read(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, "distilbert")
    (folder / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(InvalidTeacher, match="its weights cannot be read, the file may be truncated"):
        teacher_of(folder)
    write_json(folder / "config.json", {"model_type": "distilbert", "architectures": ["DistilBertModel"]})
    with pytest.raises(InvalidTeacher, match="its configuration or weights cannot be read"):
        teacher_of(folder)
