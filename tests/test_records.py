"""Every artifact of real, tiny runs is read by its record and written back byte for byte."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from subarch.errors import InvalidStudy
from subarch.evaluation.evaluate import evaluate
from subarch.exporting.runtimes import find_export
from subarch.extraction import latencies
from subarch.finetuning.config import FinetuneConfig
from subarch.latency.bench import bench
from subarch.latency.config import BenchConfig
from subarch.pipeline import extract, finetune, pretrain, write_report
from subarch.run import records
from subarch.run.configuration import load
from subarch.run.folder import RunFolder
from tasks_tiny import LABELS, topics
from tiny import tiny_teacher
from tiny_export import exported
from tiny_pretrain import tiny_pretraining
from tiny_run import OneProcess, tiny_config

KINDS = {kind.NAME: kind for kind in vars(records).values() if "NAME" in getattr(kind, "__dict__", {})}
"""By the stem of the file."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with runs of every stage."""
    folder = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SUBARCH_CACHE", str(folder / "cache"))
        patch.setattr("subarch.pipeline.Workers", OneProcess)
        patch.setattr(latencies, "MOST_MEASURED", 8)  # the others are predicted
        patch.setattr(latencies, "DESIGN", 6)
        certified = tiny_config(folder, cost="latency", strategy="certified", epsilon=None, audit=2)
        run = folder / "latency"
        extract(certified, run)
        extract(tiny_config(folder, max_parameters=1), folder / "infeasible")
        winner = json.loads((run / "selection.json").read_text(encoding="utf-8"))["winner"]["architecture"]
        pretrain(run, tiny_pretraining(folder, masked_lm=False, architecture=winner))
        exported(run / "pretrained", run, runtime="onnx")
        options = load(BenchConfig, None, {"runtime": ["torch"], "length": [16], "rounds": 1})
        RunFolder(run).write(bench([str(run / "pretrained"), "1-2-16-32"], options))
        write_report(run, [{"model": "teacher", "recall@10": 0.5, "sent./s": 4, "note": None}])
        _finetunings(folder)
    return folder


def _finetunings(folder: Path) -> None:
    model = tiny_teacher(folder / "model", layers=1, modules=False, masked_lm=True)
    for part, count, seed in (("train", 24, 0), ("dev", 12, 1), ("test", 20, 2)):
        with (folder / f"{part}.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(["text", "topic", "price"])
            writer.writerows([one.texts[0], LABELS[n % 3], n % 5] for n, one in enumerate(topics(count, seed)))
    asked = {"data": str(folder), "first": "text", "batch_size": [8], "epochs": 1, "dropout": 0.0, "max_length": 16}
    asked |= {"threads": 1, "learning_rate": [5e-4, 2e-3], "seeds": [0, 1]}

    def config(**more: Any) -> FinetuneConfig:
        return load(FinetuneConfig, None, asked | more)

    finetune(model, config(task="prices", label="price", kind="regression"), folder / "fine")
    finetune(model, config(task="topics", label="topic"), folder / "fine")
    teacher = folder / "fine" / "finetuned" / "topics"
    more = {"teacher": teacher, "any_teacher": True, "agora": "common", "points": 2, "masked_lm": model}
    finetune(model, config(task="topics", label="topic", **more), folder / "agora")
    evaluate([folder / "agora" / "finetuned" / "topics"], {}, "dev", against=[teacher])


@pytest.mark.slow
def test_what_stages_write_is_read_and_written_back_byte_for_byte(runs: Path) -> None:
    seen = set()
    for path in sorted(runs.rglob("*.json")):
        kind = KINDS.get(path.stem)
        if kind is None or "fits" in str(path):
            continue
        text = path.read_text(encoding="utf-8")
        record = RunFolder(path.parent).read(kind)
        assert record.to_json() == text, path
        assert kind.model_validate(record.to_dict()).to_json() == text, path
        assert json.loads(record.to_json()) == record.to_dict()
        seen.add(path.stem)
    assert seen == set(KINDS) - {
        "retrieval",
        "serving",
        "compressed",
    }  # tests/test_retrieval.py, tests/test_compress.py


@pytest.mark.slow
def test_alternatives_are_told_apart(runs: Path) -> None:
    found = RunFolder(runs / "latency").read(records.Latencies)
    kinds = {type(entry) for entry in found.candidates.values()}
    assert kinds == {records.Measured, records.Predicted}
    selection = RunFolder(runs / "latency").read(records.Selection)
    assert selection.certificate is not None
    assert selection.objective.keep is None
    nothing = RunFolder(runs / "infeasible").read(records.Selection)
    assert (nothing.outcome, nothing.winner) == ("infeasible", None)
    assert nothing.nearest is not None
    assert nothing.objective.max_parameters == 1
    assert find_export(runs / "latency" / "exported" / "onnx")[1].runtime == "onnx"


def test_numbers_keep_their_kind() -> None:
    text = '{\n "name": "w",\n "max_parameters": 4,\n "max_error": null,\n "keep": 0.5\n}\n'
    row = records.Limits.model_validate_json(text, strict=True)
    assert json.dumps(row.model_dump(exclude_unset=True), indent=1) + "\n" == text
    assert records.Limits.model_validate_json(text.replace("4", "4.0"), strict=True).max_parameters == 4.0


SPACE = {"depth": [1, 2], "heads": [4], "hidden": [16], "intermediate": [32]}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{}", "depth: Field required"),
        ("[]", "Input should be an object"),
        ("{", "Invalid JSON"),
        ("\xff", "Invalid JSON"),
        (json.dumps(SPACE | {"width": [1]}), "width: Extra inputs are not permitted"),
        (json.dumps(SPACE | {"heads": ["4"]}), "heads.0: Input should be a valid integer"),
        (json.dumps(SPACE | {"hidden": [16, 2.5]}), "hidden.1: Input should be a valid integer"),
    ],
)
def test_what_is_no_record_is_refused_by_its_first_wrong_key(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "space.json").write_text(content, encoding="latin-1")
    with pytest.raises(InvalidStudy) as refused:
        RunFolder(tmp_path).read(records.Space)
    assert str(refused.value).startswith(f"{tmp_path / 'space.json'}: damaged (")
    assert says in str(refused.value) or "utf-8" in str(refused.value)
    assert str(refused.value).endswith("delete it and resume the run")


def test_figures_that_are_not_finite_are_refused() -> None:
    for value in (float("nan"), float("inf")):
        with pytest.raises(ValidationError, match="finite"):
            records.LedgerRow(what="training", seconds=value)
        with pytest.raises(ValueError, match="not JSON compliant"):
            records.Comparison(value=[{"any": value}]).to_json()


rows = st.dictionaries(
    st.text(), st.none() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)


@given(value=st.lists(rows, max_size=3))
def test_a_table_of_any_columns_comes_back_as_it_went(tmp_path: Path, value: list[dict[str, Any]]) -> None:
    folder = RunFolder(tmp_path)
    folder.write(records.Comparison(value=value))
    assert folder.read(records.Comparison).value == value
    assert json.loads((tmp_path / "comparison.json").read_text(encoding="utf-8")) == value


def test_a_record_under_another_name(tmp_path: Path) -> None:
    folder, record = RunFolder(tmp_path), records.StudyName(value="mine")
    folder.write(record, name="study_other")
    assert not folder.has(records.StudyName)
    assert folder.has(records.StudyName, "study_other")
    assert folder.read(records.StudyName, "study_other") == record
