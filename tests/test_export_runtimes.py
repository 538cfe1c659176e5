"""Exported files that are run, timed, loaded by users' own code, and scored on the task that a model was tuned for."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from subarch.errors import InvalidExport
from subarch.exporting import export as stage
from subarch.exporting import runtimes
from subarch.exporting.graph import load_exportable
from subarch.exporting.parity import metric_drop
from subarch.exporting.runtimes import find_export, open_export, open_file
from subarch.finetuning.config import FinetuneConfig
from subarch.latency.timing import measure, session_call
from subarch.models.heads import labels_of, predict
from subarch.run.configuration import load
from subarch.run.folder import RunFolder, places
from subarch.run.records import MetricDrop
from subarch.tasks import own_task, read, score
from tasks_tiny import LABELS, tiny_metrics, topics
from tiny_export import exported, tiny_model

DOCUMENT = Path(__file__).parents[1] / "docs" / "export.md"


@pytest.fixture(autouse=True)
def _one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "usable_cores", lambda: 1)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a sentence encoder and its exports for both runtimes."""
    folder = tmp_path_factory.mktemp("run")
    model = tiny_model(folder / "pretrained", "sentence")
    for runtime in ("onnx", "openvino"):
        exported(model, folder, runtime=runtime)
    return folder


def documented_loader() -> Any:
    """The function in docs/export.md, as a user would copy it."""
    code = re.search(r"```python\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    assert len([line for line in code[1].split("def load")[1].splitlines() if line.strip()]) <= 22
    module = ModuleType("loader")
    exec(code[1], module.__dict__)
    return module.load  # type: ignore[attr-defined]


def test_the_documented_loader_gives_the_embeddings_of_sentence_transformers(run: Path) -> None:
    texts = ["the old boat sees a net", "bread", "the teacher takes the one pen under every lesson " * 9]
    expected = SentenceTransformer(str(run / "pretrained"), device="cpu").encode(texts)
    np.testing.assert_allclose(documented_loader()(run / "exported" / "onnx")(texts), expected, atol=1e-5)


@pytest.mark.parametrize("at", [0, 20_000, -1])
def test_a_file_that_was_changed_is_refused_by_both_loaders(at: int, run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run / "exported" / "onnx", tmp_path / "copy")
    file = folder / "onnx" / "model.onnx"
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)
    with pytest.raises(InvalidExport, match=r"model.onnx: was changed after it was compared with PyTorch .*export the"):
        open_export(folder, threads=1)
    with pytest.raises(ValueError, match=r"model.onnx is not the file that was compared"):
        documented_loader()(folder)


def test_the_weights_of_openvino_are_sealed_too(run: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(run / "exported" / "openvino", tmp_path / "copy")
    with (folder / "openvino" / "openvino_model.bin").open("ab") as file:
        file.write(b"\0")
    with pytest.raises(InvalidExport, match=r"openvino_model.bin: was changed after"):
        find_export(folder)


def test_what_is_no_export_is_refused(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidExport, match=r"no exported model \(it has no parity.json\)"):
        find_export(run / "pretrained")
    folder = shutil.copytree(run / "exported" / "onnx", tmp_path / "copy")
    for damage in ("{", "{}", '{"runtime": "onnx", "files": {}}', '{"runtime": "tensorrt", "files": {}}'):
        (folder / "onnx" / "parity.json").write_text(damage)
        with pytest.raises(InvalidExport, match=r"is damaged .*export the model again"):
            find_export(folder)
    shutil.copy(run / "exported" / "onnx" / "onnx" / "parity.json", folder / "onnx" / "parity.json")
    (folder / "onnx" / "model.onnx").unlink()
    with pytest.raises(InvalidExport, match="is damaged"):
        find_export(folder)


def test_a_folder_is_found_from_outside_and_inside(run: Path) -> None:
    folder = run / "exported" / "openvino"
    assert find_export(folder)[0] == find_export(folder / "openvino")[0] == folder / "openvino" / "openvino_model.xml"
    record = find_export(folder)[1]
    assert record.machine.cores.usable >= 1
    assert {"torch", "openvino", "nncf", "subarch"} <= set(record.versions)


@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_a_session_takes_any_batch_and_fills_in_token_types(runtime: str, run: Path) -> None:
    session = open_export(run / "exported" / runtime, threads=1)
    ids = np.arange(5, 25).reshape(2, 10)
    whole = session({"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)})
    assert whole["sentence_embedding"].shape == (2, 32)
    padded = np.pad(ids, ((0, 1), (0, 3)))
    mask = np.pad(np.ones_like(ids), ((0, 1), (0, 3)))
    mask[2, 0] = 1
    found = session({"input_ids": padded, "attention_mask": mask})
    np.testing.assert_allclose(found["sentence_embedding"][:2], whole["sentence_embedding"], atol=1e-5)
    assert session.outputs == ("last_hidden_state", "sentence_embedding")
    assert dict(session.inputs) == {"input_ids": 2, "attention_mask": 2, "token_type_ids": 2}


def test_results_of_a_session_are_not_overwritten_by_the_next_call(run: Path) -> None:
    ids = np.arange(5, 15).reshape(1, 10)
    for runtime in ("onnx", "openvino"):
        session = open_export(run / "exported" / runtime, threads=1)
        first = session({"input_ids": ids, "attention_mask": np.ones_like(ids)})["sentence_embedding"]
        before = first.copy()
        session({"input_ids": ids + 20, "attention_mask": np.ones_like(ids)})
        assert (first == before).all()


def test_exports_can_be_timed(run: Path, tmp_path: Path) -> None:
    exported(tiny_model(tmp_path / "choice", "choice", layers=1), tmp_path / "other")
    files = {"onnx": run, "openvino": run, "choice": tmp_path / "other"}
    calls = {}
    for name, folder in files.items():
        file, record = find_export(folder / "exported" / (name if name != "choice" else "onnx"))
        calls[name] = session_call(open_file(record.runtime, file, threads=1), 60, batch=3, lengths=(7, 5))
    first, second = calls["onnx"]()  # type: ignore[misc]
    assert first["sentence_embedding"].shape == (3, 32)
    assert [one["last_hidden_state"].shape for one in (first, second)] == [(3, 7, 32), (3, 5, 32)]
    assert calls["choice"]()[0]["logits"].shape == (3, 2)  # type: ignore[index]
    measured = measure(calls, rounds=1)
    assert all(latency.median_ms > 0 for latency in measured.values())


def test_openvino_and_nncf_are_kept_from_reporting_their_use(run: Path) -> None:
    """In a process of its own: another test may have imported them before."""
    code = f"""
import sys
from pathlib import Path
from subarch.exporting.runtimes import open_export
open_export(Path({str(run / "exported" / "openvino")!r}), threads=1)
assert sys.modules["openvino_telemetry"] is None
from openvino.tools.ovc import telemetry_utils
assert telemetry_utils.tm.__name__ == "openvino.tools.ovc.telemetry_stub"
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_runtime_is_told_when_a_file_is_opened(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(extra: str) -> None:
        raise ImportError(extra)

    monkeypatch.setattr(runtimes, "require", missing)
    with pytest.raises(ImportError, match="openvino"):
        open_export(run / "exported" / "openvino", threads=1)


@pytest.fixture
def tuned(tmp_path: Path) -> Path:
    """A classifier of topics with the record that fine-tuning leaves, whose data lies beside it."""
    folder = tmp_path / "run" / "finetuned" / "topic"
    tiny_model(folder, "classification")
    config = json.loads((folder / "config.json").read_text())
    names = {str(number): label for number, label in enumerate(LABELS)}
    config |= {"id2label": names, "label2id": {label: int(number) for number, label in names.items()}}
    (folder / "config.json").write_text(json.dumps(config))
    for part, count in (("train", 60), ("dev", 30), ("test", 90)):
        rows = topics(count, seed=count).rows
        lines = [json.dumps({"text": row.texts[0], "label": LABELS[int(row.label or 0)]}) for row in rows]
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"{part}.jsonl").write_text("\n".join(lines))
    options = {"task": "topic", "data": str(tmp_path / "data"), "first": "text", "max_length": 32}
    RunFolder(folder).write(tiny_metrics(load(FinetuneConfig, None, options)))
    return folder


@pytest.mark.parametrize("runtime", ["onnx", pytest.param("openvino", marks=pytest.mark.slow)])
def test_a_fine_tuned_model_is_scored_on_its_held_out_examples(runtime: str, tuned: Path, tmp_path: Path) -> None:
    model, run = places(tuned, None)
    record = exported(model, run, runtime=runtime)
    task = own_task(str(tmp_path / "data"), first="text", name="topic")
    examples = read(task, str(tmp_path / "data"), "test")
    expected = score(examples, labels_of(task, predict(tuned, examples, max_length=32)))
    assert record.task == MetricDrop(
        name="topic",
        examples=90,
        metric="accuracy",
        pytorch=expected["accuracy"],
        exported=expected["accuracy"],
        drop=0.0,
    )
    assert Path(record.folder) == tmp_path / "run" / "exported" / f"topic-{runtime}"


def test_the_file_is_scored_and_not_the_model_twice(tuned: Path) -> None:
    model = load_exportable(tuned)
    rows: list[int] = []

    def session(inputs: dict[str, Any]) -> dict[str, Any]:
        rows.append(len(inputs["input_ids"]))
        return {"logits": np.tile(np.float32([0, 1, 0]), (len(inputs["input_ids"]), 1))}

    found = metric_drop(model, session)  # type: ignore[arg-type]
    assert found is not None
    assert sum(rows) == found.examples == 90
    assert found.exported == pytest.approx(1 / 3)  # the topics come in turn
    assert found.drop == found.pytorch - found.exported != 0


def test_a_metric_that_drops_too_far_keeps_the_file_out(
    tuned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = MetricDrop(name="topic", examples=90, metric="accuracy", pytorch=0.8, exported=0.75, drop=0.05)
    monkeypatch.setattr(stage, "metric_drop", lambda *_: found)
    with pytest.raises(
        InvalidExport,
        match=r"not kept: accuracy on 90 held-out examples of topic drops from 0\.8000 to 0\.7500, the limit is 0\.02",
    ):
        exported(tuned, tmp_path / "run", quantize="int8")
    assert not list((tmp_path / "run" / "exported").glob("[!.]*"))
    assert exported(tuned, tmp_path / "run", quantize="int8", max_drop=0.05).task == found


def test_a_task_whose_data_is_gone_is_not_scored(tuned: Path, tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "data")
    record = exported(tuned, tmp_path / "run")
    assert record.task is not None
    assert record.task.name == "topic"
    assert "data" in str(record.task.unknown)
