"""Teachers of any stock family: their vectors are those of sentence-transformers; what is unsafe or damaged is refused.

The folders are generated: tiny, with random weights, as sentence-transformers itself saves them.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from sentence_transformers import CrossEncoder, SentenceTransformer
from sentence_transformers.sentence_transformer.modules import LayerNorm, StaticEmbedding
from transformers import AutoTokenizer

from subarch.errors import InvalidConfig, InvalidTeacher, NotInheritable
from subarch.models.kinds import check_embeds, check_folder
from subarch.models.stock import StockTeacher, teacher_of
from subarch.models.teacher import Teacher
from tiny import WIDTH, tiny_sentences, tiny_teacher, tiny_tokenizer, write_json
from tiny_stock import CAUSAL, FAMILIES, stock_folder

TEXTS = [*tiny_sentences(5, seed=1), "boat", "", "THE OLD BOAT", "the bell and a rose. " * 30]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def get(family: str) -> Path:
        if family not in made:
            made[family] = stock_folder(tmp_path_factory.mktemp(family), family)
        return made[family]

    return get


def copy_of(folder: Path, place: Path) -> Path:
    return Path(shutil.copytree(folder, place / "teacher"))


def theirs(folder: Path, **options: Any) -> Any:
    return SentenceTransformer(str(folder), device="cpu").encode(TEXTS, **options)


@pytest.mark.parametrize("family", FAMILIES)
def test_vectors_are_those_of_sentence_transformers(folders: Callable[[str], Path], family: str) -> None:
    folder = folders(family)
    teacher = StockTeacher.load(folder)
    expected = theirs(folder)
    found = teacher.embed_texts(TEXTS)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.ptp(expected @ expected.T) > 1e-3  # the texts differ
    assert (found.dtype, found.shape) == (torch.float32, (len(TEXTS), teacher.width))
    assert teacher.width == (24 if family in ("gemma3_text", *CAUSAL) else WIDTH)
    assert (teacher.name, teacher.similarity, teacher.max_length) == (folder.name, "dot", 40)
    assert teacher.module is not None
    assert teacher.parameters >= sum(p.numel() for p in teacher.module.parameters()) > 1000
    found.requires_grad_().sum().backward()  # not bound to inference mode


def test_a_teacher_of_the_hub_has_its_name(
    folders: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_of(folders("mpnet"), tmp_path)  # as it lies in the cache
    monkeypatch.setattr("subarch.models.stock.resolve", lambda source: folder)
    monkeypatch.chdir(tmp_path)
    assert StockTeacher.load("somebody/a-model").name == "somebody/a-model"
    assert StockTeacher.load("teacher").name == "teacher"


def test_no_texts_are_no_vectors(folders: Callable[[str], Path]) -> None:
    assert StockTeacher.load(folders("mpnet")).embed_texts([]).shape == (0, WIDTH)


def test_prompts(folders: Callable[[str], Path]) -> None:
    folder = folders("qwen3")
    teacher = StockTeacher.load(folder)
    assert (teacher.prompts, teacher.prompt) == ({"query": "find the "}, "find the ")
    for prompt in ("", "number:"):
        other = teacher.with_prompt(prompt)
        np.testing.assert_allclose(other.embed_texts(TEXTS), theirs(folder, prompt=prompt), atol=1e-5)
        assert np.abs(other.embed_texts(TEXTS) - teacher.embed_texts(TEXTS)).max() > 1e-2
        assert other.fingerprint != teacher.fingerprint
    assert teacher.with_prompt("query") is teacher
    assert teacher.with_prompt("").with_prompt("query").prompt == "find the "
    assert teacher_of(folder, prompt="number:").prompt == "number:"  # type: ignore[union-attr]
    with pytest.raises(InvalidConfig, match="'find' is not the name of a prompt of the teacher"):
        teacher.with_prompt("find")
    with pytest.raises(InvalidConfig, match="'find the' is given twice"):
        teacher.with_prompt("find the")


def test_a_static_table(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    torch.manual_seed(0)
    static = StaticEmbedding(tokenizer, embedding_dim=20)
    SentenceTransformer(modules=[static, LayerNorm(20)], device="cpu").save(str(tmp_path))
    teacher = teacher_of(tmp_path)
    assert isinstance(teacher, StockTeacher)
    assert (teacher.width, teacher.max_length, teacher.module) == (20, None, None)
    assert f"{tmp_path}: is a static table of token vectors" in teacher.reason
    np.testing.assert_allclose(teacher.embed_texts(TEXTS), theirs(tmp_path), atol=1e-6)


def test_the_fingerprint_is_that_of_the_content(folders: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copy_of(folders("mpnet"), tmp_path)
    before = StockTeacher.load(folder).fingerprint
    assert before == StockTeacher.load(folders("mpnet")).fingerprint
    (folder / "README.md").write_text("other words", encoding="utf-8")
    assert StockTeacher.load(folder).fingerprint == before
    state = load_file(folder / "model.safetensors")
    next(iter(state.values())).view(-1)[0] += 1
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    assert StockTeacher.load(folder).fingerprint != before


def test_the_inheritable_kind_comes_first(folders: Callable[[str], Path], tmp_path: Path) -> None:
    assert isinstance(teacher_of(tiny_teacher(tmp_path / "bert")), Teacher)
    teacher = teacher_of(folders("mpnet"))
    assert isinstance(teacher, StockTeacher)
    assert "model type 'mpnet' is not supported (its attention adds a bias" in teacher.reason
    folder = tiny_teacher(tmp_path / "max")
    write_json(folder / "1_Pooling" / "config.json", {"embedding_dimension": WIDTH, "pooling_mode": "max"})
    other = teacher_of(folder)
    assert isinstance(other, StockTeacher)
    assert "pooling ['max']" in other.reason
    np.testing.assert_allclose(other.embed_texts(TEXTS), theirs(folder), atol=1e-5)


def test_a_prompt_for_an_inheritable_teacher(tmp_path: Path) -> None:
    folder = tiny_teacher(tmp_path)
    about = {"prompts": {"query": "the bell: "}, "similarity_fn_name": "dot"}
    write_json(folder / "config_sentence_transformers.json", about)
    plain = teacher_of(folder)
    assert isinstance(plain, Teacher)
    for prompt, text in (("query", "the bell: "), ("a boat:", "a boat:")):
        teacher = teacher_of(folder, prompt=prompt)
        assert isinstance(teacher, Teacher)
        ids = teacher.tokenizer(TEXTS, add_special_tokens=False, verbose=False)["input_ids"]
        np.testing.assert_allclose(teacher.embed(ids), theirs(folder, prompt=text), atol=1e-5)
        assert np.abs(teacher.embed(ids) - plain.embed(ids)).max() > 1e-2
        assert teacher.fingerprint != plain.fingerprint
    assert plain.with_prompt("") is plain
    within = teacher_of(folder, prompt="the bell")  # "bell" runs into the first word
    assert isinstance(within, StockTeacher)
    assert "changes how its tokenizer reads the text behind it" in within.reason
    np.testing.assert_allclose(within.embed_texts(TEXTS), theirs(folder, prompt="the bell"), atol=1e-5)


Damage = Callable[[Path], object]


def put(name: str, **changes: Any) -> Damage:
    def apply(folder: Path) -> None:
        path = folder / name
        write_json(path, (json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}) | changes)

    return apply


def module(**changes: Any) -> Damage:
    """Changes the entry of the pooling in modules.json."""

    def apply(folder: Path) -> None:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        modules[1] |= changes
        write_json(folder / "modules.json", modules)

    return apply


def dense(weights: str = "model.safetensors", **config: Any) -> Damage:
    """Puts a Dense module behind the others."""

    def apply(folder: Path) -> None:
        modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
        modules.append({"idx": 9, "name": "9", "path": "9_Dense", "type": "sentence_transformers.models.Dense"})
        write_json(folder / "modules.json", modules)
        write_json(
            folder / "9_Dense" / "config.json", {"in_features": WIDTH, "out_features": 8, "bias": False} | config
        )
        state = {"linear.weight": torch.ones(8, WIDTH), "linear.bias": torch.ones(8)}
        if weights.endswith(".safetensors"):
            save_file(state, folder / "9_Dense" / weights)
        else:
            torch.save(state, folder / "9_Dense" / weights)

    return apply


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def weights(change: Callable[[dict[str, torch.Tensor]], object]) -> Damage:
    def apply(folder: Path) -> None:
        state = load_file(folder / "model.safetensors")
        change(state)
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})

    return apply


def without(state: dict[str, torch.Tensor]) -> None:
    del state[next(name for name in sorted(state) if "layer.1." in name)]


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def exported(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"")


def no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def more_tokens(folder: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["café"])
    tokenizer.save_pretrained(folder)


FILES: dict[str, Any] = {
    "modules.json": [
        {"type": f"sentence_transformers.models.{kind}", "path": path}
        for kind, path in (("Transformer", ""), ("Pooling", "1_Pooling"), ("Dense", "2_Dense"))
    ],
    "config.json": {"model_type": "bert", "architectures": ["BertModel"]},
    "tokenizer.json": {},
    "tokenizer_config.json": {},
    "sentence_bert_config.json": {},
    "config_sentence_transformers.json": {},
    "2_Dense/config.json": {},
}
KEYS = [
    "type",
    "path",
    "architectures",
    "model_type",
    "auto_map",
    "trust_remote_code",
    "transformers_weights",
    "attn_implementation",
    "activation_function",
    "model_args",
]

CODE = "asks to run code that comes with the model"
BAD: dict[str, tuple[Damage, str]] = {
    "remote code": (
        put("config.json", auto_map={"AutoModel": "modeling.Model"}),
        f"auto_map in its config.json {CODE}",
    ),
    "remote code of the tokenizer": (put("tokenizer_config.json", auto_map={"AutoTokenizer": ["t.T", None]}), CODE),
    "trust": (put("sentence_bert_config.json", model_args={"trust_remote_code": True}), CODE),
    "a module of its own": (module(type="custom.Pooling"), "module custom.Pooling is not supported"),
    "another class": (module(type="sentence_transformers.util.Router"), "util.Router is not supported"),
    "a module without a type": (module(type=None), "an entry without a type"),
    "a module outside": (module(path="../other"), "lies outside the folder"),
    "pickled weights": (pickled, "pickled weights (pytorch_model.bin) can run code and are refused"),
    "pickled Dense": (dense("pytorch_model.bin"), "9_Dense: no model.safetensors; pickled weights"),
    "another activation": (dense(activation_function="my.activation.GELU"), "'my.activation.GELU' is not supported"),
    "an activation that is a function": (dense(activation_function="torch.save"), "'torch.save' is not supported"),
    "an export only": (exported, "holds an export only (ONNX or OpenVINO)"),
    "an adapter": (put("adapter_config.json", peft_type="LORA"), "is an adapter for another model; merge it"),
    "weights elsewhere": (put("config.json", transformers_weights="a.bin"), "names another file of weights"),
    "tokenizer elsewhere": (put("sentence_bert_config.json", tokenizer_name_or_path="a/b"), "tokenizer from elsewhere"),
    "a kernel of the hub": (put("config.json", attn_implementation="a/kernel"), "would run a kernel from the hub"),
    "a reranker": (
        put("config_sentence_transformers.json", model_type="CrossEncoder"),
        "is a CrossEncoder",
    ),
    "sparse": (put("config_sentence_transformers.json", model_type="SparseEncoder"), "is a SparseEncoder"),
    "cut weights": (cut, "cannot load it"),
    "a weight is missing": (weights(without), "1 weights are missing from its files, first encoder.layer.1."),
    "not finite": (weights(lambda state: [value.mul_(torch.nan) for value in state.values()]), "is not finite"),
    "another shape": (put("config.json", intermediate_size=40), "cannot load it"),
    "unknown family": (put("config.json", model_type="unheard"), "cannot load it"),
    "no tokenizer": (no_tokenizer, "no tokenizer; one of tokenizer.json"),
    "not JSON": (lambda folder: (folder / "config.json").write_text("{", encoding="utf-8"), "not valid JSON"),
    "no pooling": (lambda folder: shutil.rmtree(folder / "1_Pooling"), "cannot load it"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_folders_are_refused(folders: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    folder = copy_of(folders("mpnet"), tmp_path)
    change, message = BAD[name]
    change(folder)
    with pytest.raises(InvalidTeacher) as caught:
        teacher_of(folder)
    assert not isinstance(caught.value, NotInheritable)
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8) | st.sampled_from(["CrossEncoder", "x/y"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=3),
    max_leaves=8,
)


@given(name=st.sampled_from(list(FILES)), value=VALUES, merged=st.booleans())
@settings(max_examples=100, deadline=None)
def test_whatever_a_file_holds_the_folder_is_in_order_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, value: Any, merged: bool
) -> None:
    folder = tmp_path_factory.mktemp("fuzz")
    for file, good in FILES.items():
        write_json(folder / file, good)
    for weights_of in (folder, folder / "2_Dense"):
        save_file({"a": torch.ones(1)}, weights_of / "model.safetensors")
    check_folder(folder)
    if merged and isinstance(value, dict):  # besides the good keys
        value = value | FILES[name] if isinstance(FILES[name], dict) else [*FILES[name], value]
    write_json(folder / name, value)
    for modules in (True, False):
        refusal = str(folder)
        try:
            check_embeds(folder)
            check_folder(folder)
        except InvalidTeacher as error:
            refusal = str(error)
        assert str(folder) in refusal
        if modules:
            (folder / "modules.json").unlink()


def test_a_table_of_model2vec_alone(tmp_path: Path) -> None:
    write_json(tmp_path / "config.json", {"model_type": "model2vec", "architectures": ["StaticModel"]})
    save_file({"embeddings": torch.ones(5, 3)}, tmp_path / "model.safetensors")
    with pytest.raises(InvalidTeacher, match=r"model2vec.*save it as SentenceTransformer\("):
        teacher_of(tmp_path)


def test_a_reranker_of_sentence_transformers(tmp_path: Path) -> None:
    folder = tiny_teacher(tmp_path / "encoder", modules=False)
    CrossEncoder(str(folder), num_labels=1, device="cpu").save_pretrained(str(tmp_path / "reranker"))
    with pytest.raises(InvalidTeacher, match=r"is a CrossEncoder, which scores pairs of texts.*error outputs"):
        teacher_of(tmp_path / "reranker")
    assert Teacher.load(tmp_path / "reranker").width == WIDTH  # its encoder is one to start from


def test_a_token_without_a_row(folders: Callable[[str], Path], tmp_path: Path) -> None:
    folder = copy_of(folders("mpnet"), tmp_path)
    more_tokens(folder)
    with pytest.raises(InvalidTeacher, match="a token for which the model has no row"):
        StockTeacher.load(folder).embed_texts(["a café"])


@pytest.mark.parametrize("name", ["cut weights", "a weight is missing", "another shape", "not JSON", "no tokenizer"])
def test_a_damaged_inheritable_folder_is_not_read_in_another_way(tmp_path: Path, name: str) -> None:
    folder = tiny_teacher(tmp_path / "teacher")
    BAD[name][0](folder)
    with pytest.raises(InvalidTeacher) as caught:
        teacher_of(folder)
    assert not isinstance(caught.value, NotInheritable)
    assert str(folder) in str(caught.value)


@pytest.mark.parametrize(
    ("architecture", "what"),
    [
        ("BertForSequenceClassification", "a classifier or reranker"),
        ("BertForTokenClassification", "a tagger"),
        ("BertForQuestionAnswering", "a question answerer"),
        ("BertForMultipleChoice", "a multiple-choice model"),
        ("BertLMHeadModelForCausalLM", "a language model"),
    ],
)
def test_a_model_of_a_task_is_no_teacher_of_embeddings(tmp_path: Path, architecture: str, what: str) -> None:
    folder = tiny_teacher(tmp_path / "teacher", modules=False)
    put("config.json", architectures=[architecture])(folder)
    with pytest.raises(InvalidTeacher, match=f"is {what} .* (name the encoder that it was made from|name the folder)"):
        teacher_of(folder)
    if what != "a language model":
        assert Teacher.load(folder).width == WIDTH  # fine-tuned folders are loaded on purpose
