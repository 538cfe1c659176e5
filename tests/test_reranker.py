"""Rerankers: every layout of a CrossEncoder scores as the library says, and what is none or unsafe is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder

from subarch.errors import InvalidTeacher
from subarch.models.kinds import is_reranker
from subarch.models.reranker import Reranker
from tiny import tiny_sentences, tiny_teacher, write_json
from tiny_retrieval import tiny_reranker

PAIRS = [("the old boat", text) for text in tiny_sentences(9)]


def change(path: Path, **values: Any) -> None:
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    write_json(path, before | values)


def logits(folder: Path) -> Any:
    """By the stock class alone."""
    model = CrossEncoder(str(folder), local_files_only=True)
    return model.predict(PAIRS, activation_fn=torch.nn.Identity())


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_stock_classifier_with_one_output(family: str, tmp_path: Path) -> None:
    folder = tiny_reranker(tmp_path, family)
    assert is_reranker(folder)
    reranker = Reranker.load(folder)
    assert (reranker.name, reranker.max_length) == (str(tmp_path), 64)
    expected = 1 / (1 + np.exp(-logits(folder)))  # the library's default for one output
    np.testing.assert_allclose(reranker.score(PAIRS), expected, atol=1e-6)
    assert np.std(expected) > 1e-3


def test_the_layout_of_every_version(tmp_path: Path) -> None:
    """The activation stands in another place in each."""
    folder = tiny_reranker(tmp_path / "stock")
    expected = logits(folder)
    identity = "torch.nn.modules.linear.Identity"
    CrossEncoder(str(folder), activation_fn=torch.nn.Identity()).save_pretrained(str(tmp_path / "6"))
    assert (tmp_path / "6" / "modules.json").is_file()
    for name, setting in (
        ("4", {"sentence_transformers": {"activation_fn": identity, "version": "4.0.1"}}),
        ("2", {"sbert_ce_default_activation_function": identity}),
    ):
        change(tiny_reranker(tmp_path / name) / "config.json", **setting)
    for name in ("6", "4", "2"):
        assert is_reranker(tmp_path / name)
        np.testing.assert_allclose(Reranker.load(tmp_path / name).score(PAIRS), expected, atol=1e-6)


def test_pairs_are_cut(tmp_path: Path) -> None:
    folder = tiny_reranker(tmp_path)
    short = Reranker.load(folder, max_length=12)
    assert short.max_length == 12
    expected = CrossEncoder(str(folder), max_length=12).predict(PAIRS)
    np.testing.assert_allclose(short.score(PAIRS), expected, atol=1e-6)
    assert np.abs(short.score(PAIRS) - Reranker.load(folder).score(PAIRS)).max() > 1e-3
    assert Reranker.load(folder, max_length=500).max_length == 64  # it cannot read more


def test_what_is_no_reranker(tmp_path: Path) -> None:
    assert not is_reranker(tiny_teacher(tmp_path / "sentence"))
    assert not is_reranker(tiny_teacher(tmp_path / "plain", modules=False))
    assert not is_reranker(tmp_path / "nothing")
    with pytest.raises(
        InvalidTeacher, match=r"is a classifier with 3 outputs; a reranker has one: .*--kind regression"
    ):
        Reranker.load(tiny_reranker(tmp_path / "three", outputs=3))


def test_an_encoder_that_says_it_is_a_reranker(tmp_path: Path) -> None:
    """Its head would be drawn at random."""
    folder = tiny_teacher(tmp_path, modules=False)
    change(folder / "config.json", architectures=["BertForSequenceClassification"], id2label={"0": "x"})
    with pytest.raises(InvalidTeacher, match=r"weights are missing from its files, first .*classifier"):
        Reranker.load(folder)


def test_what_would_run_code_is_refused(tmp_path: Path) -> None:
    code = tiny_reranker(tmp_path / "code")
    change(code / "config.json", auto_map={"AutoModelForSequenceClassification": "mine.Model"})
    with pytest.raises(InvalidTeacher, match=r"auto_map in its config.json asks to run code"):
        Reranker.load(code)
    pickled = tiny_reranker(tmp_path / "pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    with pytest.raises(InvalidTeacher, match=r"pickled weights .pytorch_model.bin. can run code"):
        Reranker.load(pickled)


@pytest.mark.parametrize(
    ("file", "setting"),
    [
        ("config_sentence_transformers.json", {"activation_fn": "os.system"}),
        ("config.json", {"sentence_transformers": {"activation_fn": "os.system"}}),
        ("config.json", {"sbert_ce_default_activation_function": "os.system"}),
    ],
)
def test_a_strange_activation(file: str, setting: dict[str, Any], tmp_path: Path) -> None:
    folder = tiny_reranker(tmp_path)
    change(folder / file, **setting)
    with pytest.raises(InvalidTeacher, match=r"activation_fn = 'os.system' is not supported: not a class of torch.nn"):
        Reranker.load(folder)


def test_other_modules(tmp_path: Path) -> None:
    folder = tiny_reranker(tmp_path)
    kinds = [("", "Transformer"), ("1_Dense", "Dense")]
    listed = [
        {"idx": n, "name": str(n), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for n, (path, kind) in enumerate(kinds)
    ]
    write_json(folder / "modules.json", listed)
    with pytest.raises(
        InvalidTeacher, match="is a CrossEncoder made of Transformer, Dense; supported is one of a ForSeq"
    ):
        Reranker.load(folder)


def test_damaged(tmp_path: Path) -> None:
    folder = tiny_reranker(tmp_path / "no-tokenizer")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InvalidTeacher, match="no tokenizer"):
        Reranker.load(folder)
    folder = tiny_reranker(tmp_path / "nan")
    state = load_file(folder / "model.safetensors")
    state["classifier.bias"][:] = torch.nan
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InvalidTeacher, match=r"nan: its score of 'harbour.*' for 'the old boat' is not finite"):
        Reranker.load(folder).score([("the old boat", "harbour")])
    folder = tiny_reranker(tmp_path / "broken")
    (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InvalidTeacher, match="sentence-transformers cannot load it: "):
        Reranker.load(folder)
