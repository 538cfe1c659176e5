"""Exports of every head for both runtimes: what is computed, where it lies, what is refused and what then is left."""

from __future__ import annotations

import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from filelock import FileLock
from sentence_transformers import SentenceTransformer
from tokenizers import Tokenizer
from transformers import (
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from subarch.errors import InvalidConfig, InvalidCorpus, InvalidExport, InvalidTeacher, MissingExtra
from subarch.exporting import export as stage
from subarch.exporting import int8
from subarch.exporting.config import ExportConfig
from subarch.exporting.export import target
from subarch.exporting.graph import Graph
from subarch.exporting.runtimes import find_export, open_export, open_file
from subarch.models.teacher import Teacher
from subarch.run import machine as doctor
from subarch.run.configuration import load
from subarch.run.folder import places
from subarch.run.records import TextSource
from subarch.text.corpus import build
from tiny import tiny_corpus, tiny_teacher, write_json
from tiny_export import HEADS, exported, tiny_model, with_corpus

STOCK: dict[str, Any] = {
    "encoder": AutoModel,
    "sentence": AutoModel,
    "masked-lm": AutoModelForMaskedLM,
    "classification": AutoModelForSequenceClassification,
    "regression": AutoModelForSequenceClassification,
    "tagging": AutoModelForTokenClassification,
    "choice": AutoModelForMultipleChoice,
}

ALWAYS = ("sentence", "classification")
"""Heads that the default run tries; the others have the same way."""


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "usable_cores", lambda: 1)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny model per head, BERT and RoBERTa in turn."""
    folder = tmp_path_factory.mktemp("models")
    return {head: tiny_model(folder / head, head, ("bert", "roberta")[n % 2]) for n, head in enumerate(HEADS)}


def padded(head: str, types: bool) -> dict[str, torch.Tensor]:
    """Five rows of up to eleven tokens, a shape that no export looks at; three examples of five for multiple choice."""
    shape = (3, 5, 11) if head == "choice" else (5, 11)
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(5, 60, shape, generator=generator)
    mask = torch.ones_like(ids)
    mask[..., 1, 7:] = mask[..., 3, 2:] = 0
    batch = {"input_ids": torch.where(mask > 0, ids, 0), "attention_mask": mask}
    return batch | ({"token_type_ids": torch.arange(11).ge(4).long() * mask} if types else {})


@pytest.mark.parametrize(
    ("runtime", "head"),
    [pytest.param("onnx", head, marks=[pytest.mark.slow] * (head not in ALWAYS)) for head in HEADS]
    + [pytest.param("openvino", head, marks=pytest.mark.slow) for head in HEADS],
)
def test_every_head_computes_what_the_stock_model_does(
    head: str, runtime: str, models: dict[str, Path], tmp_path: Path
) -> None:
    record = exported(models[head], tmp_path / "run", runtime=runtime)
    stock = STOCK[head].from_pretrained(models[head]).eval()
    batch = padded(head, stock.config.type_vocab_size > 1)
    session = open_export(tmp_path / "run" / "exported" / runtime, threads=1)
    assert tuple(session.inputs) == tuple(batch) == record.inputs
    found = session({name: value.numpy() for name, value in batch.items()})
    with torch.inference_mode():
        expected = stock(**batch)
    name = "last_hidden_state" if head in ("encoder", "sentence") else "logits"
    kept = batch["attention_mask"].numpy() > 0 if expected[name].ndim == 3 else ...
    np.testing.assert_allclose(found[name][kept], expected[name].numpy()[kept], rtol=1e-4, atol=1e-5)
    assert tuple(found) == record.outputs == tuple(record.likeness)
    assert all(like.share_of_limit < 1 for like in record.likeness.values())
    assert record.text == TextSource(source="random tokens")


def test_embeddings_in_the_graph_are_those_of_sentence_transformers(models: dict[str, Path], tmp_path: Path) -> None:
    exported(models["sentence"], tmp_path, runtime="onnx")
    texts = ["the old boat sees a net", "bread", "the teacher takes the one pen under every lesson and a map"]
    expected = SentenceTransformer(str(models["sentence"]), device="cpu").encode(texts)
    batch = AutoTokenizer.from_pretrained(tmp_path / "exported" / "onnx")(texts, padding=True, return_tensors="np")
    found = open_export(tmp_path / "exported" / "onnx", threads=1)(dict(batch))["sentence_embedding"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_head_can_be_asked_for(models: dict[str, Path], tmp_path: Path) -> None:
    assert exported(models["masked-lm"], tmp_path, head="encoder").outputs == ("last_hidden_state",)
    pooled = exported(models["encoder"], tmp_path, head="sentence")
    assert pooled.outputs == ("last_hidden_state", "sentence_embedding")
    with pytest.raises(InvalidTeacher, match="has no masked-LM head"):
        exported(models["encoder"], tmp_path, head="masked-lm")
    with pytest.raises(InvalidTeacher, match=r"weights are missing from its files, first classifier"):
        exported(models["encoder"], tmp_path, head="classification")


@pytest.mark.parametrize(
    "head", [pytest.param(head, marks=[pytest.mark.slow] * (head not in ALWAYS)) for head in HEADS]
)
def test_int8_of_every_head(head: str, models: dict[str, Path], tmp_path: Path) -> None:
    exact = exported(models[head], tmp_path, runtime="onnx")
    small = exported(models[head], tmp_path, runtime="onnx", quantize="int8", min_cosine=0.9)
    like = small.likeness[small.outputs[-1]]
    assert 0.9 <= like.worst_cosine <= like.mean_cosine < 1 - 1e-9
    assert like.difference > 1e-4
    assert small.limits == {"min_cosine": 0.9, "max_drop": 0.02}
    assert (small.reduced_range, exact.reduced_range) == (int8.overflows(), False)
    assert small.files["model.onnx"].bytes < exact.files["model.onnx"].bytes
    assert (like.agreement is None) == (head in ("encoder", "sentence", "regression"))


@pytest.mark.parametrize("runtime", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_calibrated_int8_says_what_it_was_calibrated_on_and_nothing_else(
    runtime: str, models: dict[str, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    options = with_corpus(tmp_path) | {"runtime": runtime, "quantize": "int8-static", "min_cosine": 0.9}
    record = exported(models["choice" if runtime == "onnx" else "sentence"], tmp_path, **options)
    assert capfd.readouterr().out == ""
    assert record.calibrated_on == 16
    assert record.text.source == "corpus, held-out part"
    names = {path.name for path in Path(str(record.folder)).rglob("*")}
    assert not names & {".scratch", "corpus", "corpus.json", "model.int8"}
    assert ("model.onnx" in names) == (runtime == "onnx")


@pytest.mark.slow
def test_openvino_int8_stores_weights_in_a_byte(models: dict[str, Path], tmp_path: Path) -> None:
    sizes = {}
    for quantize in (None, "int8-embeddings", "int8"):
        record = exported(models["sentence"], tmp_path, runtime="openvino", quantize=quantize)
        sizes[quantize] = record.files["openvino_model.bin"].bytes
    assert sizes["int8"] < 0.5 * sizes[None]
    assert sizes["int8"] < sizes["int8-embeddings"] < sizes[None]


@pytest.mark.parametrize(
    ("runtime", "storage"),
    [
        ("onnx", "fp16"),
        pytest.param("onnx", "bf16", marks=pytest.mark.slow),
        pytest.param("openvino", "fp16", marks=pytest.mark.slow),
    ],
)
def test_16_bits_take_half(runtime: str, storage: str, models: dict[str, Path], tmp_path: Path) -> None:
    data = {"onnx": "model.onnx", "openvino": "openvino_model.bin"}[runtime]
    whole = exported(models["encoder"], tmp_path, runtime=runtime).files[data].bytes
    record = exported(models["encoder"], tmp_path, runtime=runtime, storage=storage)
    half = record.files[data].bytes
    parameters = sum(parameter.numel() for parameter in AutoModel.from_pretrained(models["encoder"]).parameters())
    assert 1.6 * parameters < whole - half < 2 * parameters + 2000
    like = record.likeness["last_hidden_state"]
    # 11 and 8 bits of a number are kept
    assert 1 - {"fp16": 2**-11, "bf16": 2**-8}[storage] < like.worst_cosine < 1
    assert like.difference > 1e-5


def test_openvino_has_no_bf16() -> None:
    with pytest.raises(InvalidConfig, match="OpenVINO stores 16-bit weights as fp16"):
        load(ExportConfig, None, {"runtime": "openvino", "storage": "bf16"})


@pytest.mark.slow
def test_the_layout_is_that_of_sentence_transformers(models: dict[str, Path], tmp_path: Path) -> None:
    exported(models["sentence"], tmp_path)
    folder = tmp_path / "exported" / "onnx"
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert {"onnx/model.onnx", "onnx/parity.json", "modules.json", "1_Pooling/config.json", "config.json"} <= files
    assert {"tokenizer.json", "tokenizer_config.json", "sentence_bert_config.json"} <= files
    assert not [name for name in files if name.endswith(".safetensors")]
    exported(models["encoder"], tmp_path, runtime="openvino")
    plain = {path.name for path in (tmp_path / "exported" / "openvino").rglob("*")}
    assert {"openvino_model.xml", "openvino_model.bin", "config.json", "tokenizer.json"} <= plain
    assert "modules.json" not in plain


def test_text_embeddings_inference_finds_what_it_reads_whoever_saved_the_model(
    models: dict[str, Path], tmp_path: Path
) -> None:
    texts = ["the old boat sees a net", "the teacher takes the one pen under every lesson and a map " * 9]
    model = SentenceTransformer(str(models["sentence"]), device="cpu")
    expected = model.encode(texts)  # leaves a length at which to cut in the tokenizer
    model.save_pretrained(str(tmp_path / "saved"))
    assert "pooling_mode" in json.loads((tmp_path / "saved" / "1_Pooling" / "config.json").read_text())
    exported(tmp_path / "saved", tmp_path / "run")
    folder = tmp_path / "run" / "exported" / "onnx"
    # Its router and ONNX backend at commit 0d124dc: these files and keys, all of them needed
    config, pooling, settings, about = (
        json.loads((folder / name).read_text())
        for name in (
            "config.json",
            "1_Pooling/config.json",
            "sentence_bert_config.json",
            "config_sentence_transformers.json",
        )
    )
    assert {"architectures", "model_type", "max_position_embeddings", "hidden_size", "num_hidden_layers"} <= set(config)
    assert (pooling["pooling_mode_cls_token"], pooling["pooling_mode_mean_tokens"]) == (False, True)
    assert all(isinstance(text, str) for text in about["prompts"].values())
    assert not (folder / "model.onnx").exists()  # it would be taken first
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    assert tokenizer.truncation is tokenizer.padding is None
    tokenizer.enable_truncation(settings["max_seq_length"])
    session = open_file("onnx", folder / "onnx" / "model.onnx", 1)
    for text, vector in zip(texts, expected, strict=True):
        ids = np.array([tokenizer.encode(text).ids])
        found = session({"input_ids": ids, "attention_mask": np.ones_like(ids)})["sentence_embedding"]
        np.testing.assert_allclose(found[0], vector, atol=1e-5)
    # fastembed takes the lesser of two lengths; transformers 4 knows no TokenizersBackend
    read = json.loads((folder / "tokenizer_config.json").read_text())
    assert "max_length" not in read
    assert (read["model_max_length"], read["tokenizer_class"]) == (
        settings["max_seq_length"],
        "PreTrainedTokenizerFast",
    )
    named = json.loads((folder / "special_tokens_map.json").read_text())
    assert named["pad_token"] == tokenizer.id_to_token(config["pad_token_id"])


@pytest.mark.parametrize("head", ["sentence", "classification", "choice"])
def test_an_exported_folder_has_a_card_whose_code_runs(head: str, models: dict[str, Path], tmp_path: Path) -> None:
    model = shutil.copytree(models[head], tmp_path / "model")
    (model / "README.md").write_text("---\nlicense: mit\n---\n# A model\n")
    record = exported(model, tmp_path, quantize="int8", min_cosine=0.5)
    folder = Path(str(record.folder))
    text = (folder / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert (front["license"], front["base_model"], front["tags"]) == ("mit", "model", ["subarch", "onnx", "int8"])
    like = record.likeness[record.outputs[-1]]
    assert f"| {record.outputs[-1]} | {like.worst_cosine:.6f} | {like.mean_cosine:.6f} |" in text.replace("\\", "")
    assert f"| processor | {record.machine.processor} |" in text
    assert "on that processor only; int8 computes differently" in text
    code = text.split("```python\n")[1].split("```")[0].replace("path/to/this/folder", str(folder))
    names: dict[str, Any] = {}
    exec(code, names)
    if head == "sentence":
        assert names["embeddings"].shape == (2, SentenceTransformer(str(model)).get_embedding_dimension())


def test_beside_the_model_only_the_graph_is_added(models: dict[str, Path], tmp_path: Path) -> None:
    model = shutil.copytree(models["encoder"], tmp_path / "model")
    before = {path.name for path in model.iterdir()}
    for _ in range(2):  # its own export is replaced
        assert exported(model, tmp_path / "run", beside=True).folder == str(model / "onnx")
    assert {path.name for path in model.iterdir()} - before == {"onnx", ".onnx.lock"}
    assert {path.name for path in (model / "onnx").iterdir()} == {"model.onnx", "parity.json"}
    assert not (tmp_path / "run").exists()
    (model / "openvino").mkdir()
    (model / "openvino" / "openvino_model.xml").write_text("somebody's")
    with pytest.raises(InvalidExport, match="exists already and is not an export of this program; move it away"):
        exported(model, tmp_path / "run", beside=True, runtime="openvino")
    assert (model / "openvino" / "openvino_model.xml").read_text() == "somebody's"
    with pytest.raises(InvalidExport, match="no such folder to write into"):
        exported(tmp_path / "missing", tmp_path / "run", beside=True)


def test_where_exports_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, other = tmp_path / "run", tmp_path / "elsewhere" / "minilm"
    for folder in (run / "selected", run / "pretrained", run / "finetuned" / "sst2", other):
        write_json(folder / "config.json", {})
    config = load(ExportConfig, None, {"quantize": "int8"})

    def goes(model: Path, asked: Path | None = None) -> Path:
        found = places(model, asked)
        return target(found[0], config, found[1])

    assert goes(run) == goes(run / "pretrained") == run / "exported" / "onnx-int8"
    assert places(run, None)[0] == run / "pretrained"
    assert goes(run / "selected") == run / "exported" / "selected-onnx-int8"
    assert goes(run / "finetuned" / "sst2") == run / "exported" / "sst2-onnx-int8"
    assert goes(other) == Path("runs") / "minilm" / "exported" / "onnx-int8"
    assert goes(other, run) == run / "exported" / "minilm-onnx-int8"
    monkeypatch.chdir(tmp_path)
    for named in ("run", "run/pretrained"):
        assert goes(Path(named)).absolute() == run / "exported" / "onnx-int8"


def test_the_runs_own_corpus_is_taken_where_the_tokenizer_made_it(models: dict[str, Path], tmp_path: Path) -> None:
    corpus = tiny_corpus(tmp_path / "corpus.txt")
    build([corpus], Teacher.load(models["encoder"]).tokenizer, tmp_path / "run" / "corpus")
    record = exported(models["encoder"], tmp_path / "run", quantize="int8", calibration=16)
    assert record.text.source == "the run's corpus, held-out part"
    assert record.calibrated_on == 16
    other = tiny_model(tmp_path / "other", "encoder")
    words = json.loads((other / "tokenizer.json").read_text())
    words["model"]["vocab"]["gnu"] = words["model"]["vocab"].pop("bee")
    write_json(other / "tokenizer.json", words)
    assert exported(other, tmp_path / "run").text.source == "random tokens"


def left(run: Path) -> list[str]:
    return [path.name for path in (run / "exported").iterdir() if path.suffix != ".lock"]


@pytest.mark.parametrize("runtime", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_int8_that_is_too_far_off_is_kept_out_and_its_figure_told(
    runtime: str, models: dict[str, Path], tmp_path: Path
) -> None:
    options = {"runtime": runtime, "quantize": "int8"}
    with pytest.raises(
        InvalidExport,
        match=r"not kept: the cosine of sentence_embedding with PyTorch's falls to 0\.99\d\d .*limit is 0\.99999",
    ):
        exported(models["sentence"], tmp_path, **options, min_cosine=0.99999)
    assert left(tmp_path) == []
    kept = exported(models["sentence"], tmp_path, **options)
    with pytest.raises(InvalidExport, match="was not kept"):
        exported(models["sentence"], tmp_path, **options, min_cosine=0.99999)
    found = find_export(tmp_path / "exported" / f"{runtime}-int8")[1]
    assert found.files == kept.files, "a failed export leaves the earlier one"


def test_fp32_that_differs_is_refused(models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = stage.write_onnx

    def wrong(graph: Graph, file: Path) -> None:
        changed = int8.with_int8_embeddings(graph)  # a good copy, but for rounding
        write(changed, file)

    monkeypatch.setattr(stage, "write_onnx", wrong)
    with pytest.raises(
        InvalidExport, match=r"onnx was not kept: last_hidden_state differs from PyTorch's by up to 0\.0"
    ):
        exported(models["sentence"], tmp_path)
    assert left(tmp_path) == []


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_missing_package_is_named_with_its_extra(
    runtime: str, models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "_is_installed", lambda requirement: not requirement.startswith(runtime))
    with pytest.raises(
        MissingExtra, match=rf"{runtime}: needs .*install the extra subarch\[{runtime}\], or: .*pip install"
    ):
        exported(models["encoder"], tmp_path, runtime=runtime)


def test_models_that_cannot_be_exported_are_refused(tmp_path: Path) -> None:
    folder = tiny_teacher(tmp_path / "model", layers=0, modules=False)
    config = json.loads((folder / "config.json").read_text())
    write_json(folder / "config.json", config | {"architectures": ["BertForQuestionAnswering"]})
    with pytest.raises(InvalidTeacher, match="is a BertForQuestionAnswering, whose head cannot be exported; --head"):
        exported(folder, tmp_path)
    write_json(folder / "config.json", config | {"model_type": "mpnet"})
    with pytest.raises(InvalidTeacher, match=r"'mpnet' is not supported \(.*relative positions.*\); use one of bert"):
        exported(folder, tmp_path)


def test_too_little_to_calibrate_on(models: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(
        InvalidCorpus, match=r"0 texts to calibrate on \(random tokens\), but 128 are needed: give more text"
    ):
        exported(models["encoder"], tmp_path, quantize="int8-static")
    options = with_corpus(tmp_path) | {"quantize": "int8-static", "calibration": 1000}
    with pytest.raises(InvalidCorpus, match=r"1\d\d texts to calibrate on .*but 1000 are needed"):
        exported(models["encoder"], tmp_path, **options)
    assert left(tmp_path) == []


@contextmanager
def full_disk(kilobytes: int) -> Iterator[None]:
    """The kernel refuses files beyond a size, as a full disk refuses them, and whoever writes them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("options", [{}, {"quantize": "int8"}, {"storage": "fp16"}], ids=str)
def test_a_full_disk_is_told_and_nothing_is_left(
    options: dict[str, Any], models: dict[str, Path], tmp_path: Path
) -> None:
    with full_disk(50), pytest.raises(InvalidExport, match=r"cannot be written: .*nothing was kept"):
        exported(models["encoder"], tmp_path, **options)
    assert left(tmp_path) == []


@pytest.mark.slow
def test_a_disk_that_is_full_when_openvino_writes(
    models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as later:
        write = stage.write_onnx
        monkeypatch.setattr(stage, "write_onnx", lambda *to: (write(*to), later.enter_context(full_disk(50))))
        with pytest.raises(InvalidExport, match=r"cannot be written: OpenVINO: .*nothing was kept"):
            exported(models["encoder"], tmp_path, runtime="openvino")
    assert left(tmp_path) == []


def test_a_folder_that_cannot_be_written_in(models: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file")
    with pytest.raises(InvalidExport, match=r"run.exported.onnx: cannot be written: .*Not a directory"):
        exported(models["encoder"], tmp_path / "run")


def test_what_a_killed_export_left_is_cleared_and_two_at_once_are_not_let_in(
    models: dict[str, Path], tmp_path: Path
) -> None:
    junk = tmp_path / "exported" / ".onnx.partial" / "onnx" / "model.onnx"
    junk.parent.mkdir(parents=True)
    junk.write_text("half")
    with (
        FileLock(tmp_path / "exported" / ".onnx.lock"),
        pytest.raises(InvalidExport, match="another process is exporting there"),
    ):
        exported(models["encoder"], tmp_path)
    exported(models["encoder"], tmp_path)
    assert left(tmp_path) == ["onnx"]
