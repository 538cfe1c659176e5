"""The closed form of a file's size against the files that are written."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import nn

from subarch.exporting.config import ExportConfig, RuntimeName, parse_runtime
from subarch.exporting.export import write
from subarch.exporting.graph import Graph
from subarch.exporting.size import OVERHEADS, megabytes
from subarch.models.sentence import Recipe
from subarch.models.student import Blueprint, Student, hand_over
from subarch.numbers.architecture import Architecture, Inputs
from tiny import tiny_tokenizer

FAMILIES = ("bert", "roberta", "modernbert")
RUNTIMES = get_args(RuntimeName)
PACKAGES = {"torch": (), "onnx": ("onnx", "onnxruntime"), "openvino": ("onnx", "openvino", "nncf")}


def student_of(family: str, shape: str, output: int) -> tuple[Student, Inputs]:
    """With weights that all differ: equal tensors are stored once."""
    inputs = Inputs(600, 128, 2, output)
    if family == "roberta":
        inputs = Inputs(600, 130, 1, output)
    elif family == "modernbert":
        inputs = Inputs(600, 128, 0, output, "modernbert", window=16)
    with torch.random.fork_rng():
        student = Student(Architecture.parse(shape), Blueprint(family, inputs, settings={"pad_token_id": 1}))
        for parameter in student.parameters():
            nn.init.normal_(parameter, std=0.02)
    return student.eval().requires_grad_(False), inputs


def written(student: Student, runtime: RuntimeName, folder: Path) -> int:
    """Bytes of the files of a runtime, calibrated as an export with text is."""
    if runtime == "torch":
        hand_over(student, tiny_tokenizer(), Recipe(), folder / "model")
        return sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    config = ExportConfig.of_runtime(runtime)
    dense = nn.Identity() if student.projection is None else student.projection
    graph = Graph(student.encoder, "sentence", dense, Recipe()).eval()
    ids = np.random.default_rng(0).integers(5, 60, (2, 12))
    given = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
    calibrated = config.quantize is not None and runtime != "openvino-int8"
    write(graph, config, [{name: given[name] for name in graph.inputs}] if calibrated else None, folder)
    return sum(file.stat().st_size for file in folder.iterdir())


@pytest.mark.parametrize(
    "family", [pytest.param(one, marks=[] if one == "bert" else pytest.mark.slow) for one in FAMILIES]
)
@pytest.mark.parametrize(
    "runtime",
    [pytest.param(one, marks=[] if one in ("torch", "onnx-int8") else pytest.mark.slow) for one in RUNTIMES],
)
def test_the_closed_form_is_within_a_percent_of_the_file(tmp_path: Path, family: str, runtime: RuntimeName) -> None:
    for package in PACKAGES[parse_runtime(runtime)[0]]:
        pytest.importorskip(package)
    shapes = [("2-2-32-64-500", 48), ("3-4-64-160", 64)] + ([("0-0-24-0-300", 48)] if family != "modernbert" else [])
    for shape, output in shapes:
        student, inputs = student_of(family, shape, output)
        row = np.array([[int(size) for size in shape.split("-")]])
        (tmp_path / shape).mkdir()
        found = written(student, runtime, tmp_path / shape)
        assert megabytes(row, inputs, family, runtime)[0] * 1e6 == pytest.approx(found, rel=0.01), shape


def test_every_runtime_and_family_is_known() -> None:
    assert set(OVERHEADS) == set(RUNTIMES)
    assert all(set(one) == set(FAMILIES) for one in OVERHEADS.values())
