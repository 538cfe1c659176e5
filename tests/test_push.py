"""What goes to a hub and what does not, the card with its results, and a hub that cannot be reached or refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from huggingface_hub import ModelCard

from hub_server import Hub, nobody_there
from subarch.cli import app as cli
from subarch.errors import EndpointFailed, InvalidConfig, InvalidStudy
from subarch.exporting.config import ExportConfig
from subarch.exporting.runtimes import open_file
from subarch.pipeline import export, extract, pretrain
from subarch.pretraining.pretrain import configure
from subarch.publishing.push import gather, push
from subarch.run.configuration import load
from tiny_run import OneProcess, tiny_config

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A search, its winner trained and exported in two ways; the teacher's card names a licence."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("push")
    config = tiny_config(folder, strategy="certified", repeats=0, audit=0, max_parameters=9_000)
    (folder / "teacher" / "README.md").write_text("---\nlicense: mit\n---\n# Teacher\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subarch.pipeline.Workers", OneProcess)
        extract(config, folder / "run")
    pretrain(folder / "run", configure(folder / "run", None, {"steps": 2, "batch_tokens": 256, "evaluations": 1}))
    for quantize in (None, "int8", "int8-embeddings"):
        given = {"quantize": quantize, "calibration": 16, "min_cosine": 0.5}
        export(folder / "run" / "pretrained", load(ExportConfig, None, given), folder / "run")
    (folder / "run" / "pretrained" / "predictions-x-dev.jsonl").write_text("a text of the user\n")
    return folder / "run"


@pytest.fixture(scope="module")
def folder(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("pushed") / "folder"
    gather(run, "me/small", place)
    return place


def names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_the_folder_has_model_files_parity_and_certificate_and_nothing_else(run: Path, folder: Path) -> None:
    found = names(folder)
    assert {name for name in found if "/" in name and name[0] not in "12"} == {
        "onnx/model.onnx",
        "onnx/model_quantized.onnx",
        "onnx/parity.json",
        "onnx/parity_quantized.json",
    }
    beside = {path.name for path in (run / "pretrained").iterdir() if path.is_file()}
    assert {name for name in found if "/" not in name} == beside - {"predictions-x-dev.jsonl"} | {"certificate.json"}
    selection = json.loads((run / "selection.json").read_text())
    assert json.loads((folder / "certificate.json").read_text()) == selection["certificate"]
    parity = json.loads((folder / "onnx" / "parity_quantized.json").read_text())
    assert list(parity["files"]) == ["model_quantized.onnx"]
    assert parity["files"]["model_quantized.onnx"]["bytes"] == (folder / "onnx" / "model_quantized.onnx").stat().st_size
    for name in found:
        assert str(run.parent).encode() not in (folder / name).read_bytes(), name


def test_the_model_and_its_files_are_those_of_the_run(run: Path, folder: Path) -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["the old boat", "one bell"]
    ours, theirs = (SentenceTransformer(str(one), device="cpu") for one in (folder, run / "pretrained"))
    expected = theirs.encode(texts)
    assert np.array_equal(ours.encode(texts), expected)
    tokens = ours.tokenizer(texts, padding=True, return_tensors="np")
    inputs = {name: tokens[name].astype(np.int64) for name in ("input_ids", "attention_mask")}
    for name, most in (("model.onnx", 1e-4), ("model_quantized.onnx", 0.2)):
        found = open_file("onnx", folder / "onnx" / name, 1)(inputs)["sentence_embedding"]
        assert np.abs(found - expected).max() < most


def test_the_card_has_results_licence_and_lineage(run: Path, folder: Path) -> None:
    text = (folder / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    error = json.loads((run / "pretraining.json").read_text())["heldout"][-1]["error"]
    (index,) = front["model-index"]
    assert (front["license"], front["base_model"], index["name"]) == ("mit", "teacher", "small")
    (result,) = index["results"]
    assert result["metrics"] == [
        {"type": "fidelity to the teacher", "value": round(1 - error, 4), "name": "fidelity to the teacher"}
    ]
    (known,) = ModelCard.load(folder / "README.md").data.eval_results
    assert (known.task_type, known.dataset_split) == ("sentence-similarity", "held-out")
    sources = json.loads((run / "pretraining.inputs.json").read_text())["sources"]
    assert f"- weights and outputs of teacher, content {sources['teacher']['hash']}" in text
    assert sources["corpus"]["hash"] in text
    for name in ("parity.json", "parity_quantized.json"):
        like = json.loads((folder / "onnx" / name).read_text())["likeness"]["sentence_embedding"]
        file = name.replace("parity", "model").replace("json", "onnx")
        assert f"| onnx/{file} | {like['worst_cosine']:.4f} | {like['mean_cosine']:.4f} |" in text
    assert "## What the search proved\n\nTrained " in text
    assert 'model = SentenceTransformer("me/small")' in text
    assert "## In other programs" in text
    assert 'add_custom_model("me/small", sources=ModelSource(hf="me/small"), dim=32, ' in text
    assert 'AutoModel.from_pretrained("me/small", { dtype: "q8" })' in text
    assert 'backend="openvino"' not in text


def test_the_upload_is_that_folder_and_every_file_is_named_first(run: Path, folder: Path) -> None:
    said: list[str] = []
    with Hub() as hub:
        asked_after = len(hub.asked)
        assert push(run, "me/small", private=True, say=said.append) == f"{hub.url}/me/small"
        assert push(run, "me/small") == f"{hub.url}/me/small"  # again: what is there is replaced
    assert asked_after == 0
    assert hub.private == {"me/small": True}
    assert hub.files["me/small"] == {name: (folder / name).read_bytes() for name in names(folder)}
    assert [line.split(":")[0] for line in said] == sorted(names(folder), key=lambda name: Path(name))


def test_a_dry_run_writes_the_folder_and_asks_nobody(
    run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Hub() as hub:
        monkeypatch.setattr("sys.argv", ["subarch", "push", str(run), "me/small", "--dry-run", str(tmp_path / "x")])
        with pytest.raises(SystemExit, match="0"):
            cli.main()
    assert hub.asked == []
    assert names(tmp_path / "x") == names(folder)
    out, err = capsys.readouterr()
    assert out == f"{tmp_path / 'x'}\n"
    assert "onnx/model_quantized.onnx: " in err


def test_what_cannot_be_uploaded_is_said(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EndpointFailed, match="HF_HUB_OFFLINE is set; unset it, or write the folder with --dry-run"):
        push(run, "me/small")
    with Hub():
        monkeypatch.setenv("HF_TOKEN", "hf_another")
        with pytest.raises(EndpointFailed, match=r"401 .*log in with `hf auth login`"):
            push(run, "me/small")
    with nobody_there(), pytest.raises(EndpointFailed, match="me/small: not uploaded, or not all of it"):
        push(run, "me/small")


@pytest.mark.parametrize("name", ["a/b/c", "me/sm all", ""])
def test_a_name_that_no_repository_can_have_is_refused(run: Path, name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match="write it as in user/model"):
        push(run, name, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_folders_that_are_taken_and_runs_without_a_model_are_refused(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").touch()
    with pytest.raises(InvalidStudy, match="is there and not empty; name a new folder"):
        push(run, "me/small", tmp_path)
    with pytest.raises(InvalidStudy, match="has no model that is trained in full; run `subarch pretrain"):
        push(tmp_path, "me/small", tmp_path / "x")


def test_the_model_of_a_compression_is_the_one_that_serves(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from subarch.publishing import push as stage
    from subarch.run.folder import RunFolder
    from subarch.run.records import Compressed

    def has(self: RunFolder, kind: Any, name: str | None = None) -> bool:
        return kind is Compressed

    monkeypatch.setattr(RunFolder, "has", has)
    monkeypatch.setattr(RunFolder, "read", lambda *_: Compressed.model_construct(model="selected"))
    assert stage._model(run) == run / "selected"
