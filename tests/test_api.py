"""The stages from Python, as a notebook would call them: the same results as the files that they leave."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

import subarch
from subarch import api
from subarch.errors import InvalidConfig
from subarch.run.folder import RunFolder
from subarch.run.records import Pretraining, Selection
from tasks_tiny import LABELS, topics
from tiny_run import OneProcess, tiny_options

FUNCTIONS = (
    *("bench", "compress", "evaluate", "export", "extract", "finetune", "load_model", "plan", "pretrain", "record"),
    *("push", "select", "verify"),
)


def test_from_a_teacher_and_text_to_an_exported_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("subarch.pipeline.Workers", OneProcess)
    run, options = tmp_path / "run", tiny_options(tmp_path, epsilon=13)

    selection = subarch.extract(str(run), **options)
    assert selection == RunFolder.open(run).read(Selection)
    assert selection.winner is not None
    smaller = subarch.select(run, cost="operations", max_parameters=20_000)
    assert smaller.objective.max_parameters == 20_000
    assert subarch.extract(run, resume=True).winner == selection.winner

    trained = subarch.pretrain(run, steps=2, batch_tokens=512, evaluations=1)
    assert trained == RunFolder.open(run).read(Pretraining)
    assert trained.architecture == selection.winner.architecture
    assert subarch.pretrain(run) == trained  # finished: the same call returns it

    file = subarch.export(run)
    assert (run / "exported" / "onnx" / "onnx" / "model.onnx").is_file()
    assert file.likeness["sentence_embedding"].worst_cosine > 0.999

    data = tmp_path / "topics.jsonl"
    rows = [{"text": example.texts[0], "label": LABELS[int(example.label or 0)]} for example in topics(60)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    found = subarch.finetune(run, task="topics", data=data, first="text", seeds=[0], epochs=1, learning_rate=[1e-3])
    assert (
        found.heldout.scores.keys() == subarch.evaluate(run / "finetuned" / "topics", "held-out").scores.metrics.keys()
    )  # type: ignore[union-attr]


def test_wrong_options_are_named(tmp_path: Path) -> None:
    with pytest.raises(subarch.SubarchError, match="unknown key 'step'; the nearest known key is 'steps'"):
        subarch.extract(tmp_path / "run", teacher="t", corpus="c", step=3)
    with pytest.raises(InvalidConfig, match="nothing to time"):
        subarch.bench()
    assert list(tmp_path.iterdir()) == []


def test_every_function_of_the_package_is_typed_and_documented() -> None:
    for name in FUNCTIONS:
        function = getattr(subarch, name)
        assert function is getattr(api, name)
        assert function.__doc__
        parameters = inspect.signature(function).parameters.values()
        assert all(parameter.annotation is not inspect.Parameter.empty for parameter in parameters)
    assert set(FUNCTIONS) <= set(subarch.__all__)
