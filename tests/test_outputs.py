"""Teachers of a task: what they say, what students inherit and learn of it, and what is handed over."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from subarch.errors import InvalidCorpus, InvalidTeacher
from subarch.extraction.config import ExtractConfig
from subarch.learning.outputs import constant, counts_of, divergence, flat
from subarch.models.inherit import Anatomy, inherit
from subarch.models.outputs import TaskTeacher, token_types
from subarch.models.student import Blueprint, Student
from subarch.models.teacher import assemble
from subarch.numbers.architecture import Architecture
from subarch.pipeline import extract
from subarch.run.configuration import load
from subarch.run.folder import RunFolder
from subarch.run.records import Basis
from subarch.text.corpus import build
from tests.tiny import tiny_sentences, tiny_task_teacher, write_json

KINDS = ("classes", "labels", "number", "tags", "choices")
FAMILIES = ("bert", "roberta", "modernbert", "distilbert", "electra")


def inputs_file(path: Path, kind: str, count: int = 120, label: bool = False) -> Path:
    texts = tiny_sentences(2 * count)
    rows: list[dict[str, Any]] = []
    for first, second in zip(texts[:count], texts[count:], strict=True):
        if kind == "tags":
            row: dict[str, Any] = {"tokens": first.split()}
        elif kind == "choices":
            row = {"text_a": first, "choices": [second, second[::-1], first][: 2 + len(first) % 2]}
        else:
            row = {"text_a": first, "text_b": second}
        rows.append(row | ({"label": "a" if len(first) % 2 else "b"} if label else {}))
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_a_search_ends_in_a_folder_that_the_stock_class_loads(tmp_path: Path, kind: str) -> None:
    teacher = tiny_task_teacher(tmp_path / "teacher", kind)
    settings = {
        "teacher": str(teacher),
        "corpus": [str(inputs_file(tmp_path / "inputs.jsonl", kind))],
        "steps": 6,
        "batch_size": [8],
        "heldout": 16,
        "cost": "operations",
        "workers": 1,
        "audit": 1,
        "repeats": 1,
        "strategy": "exhaustive",
        "space": str(_space(tmp_path)),
    }
    selection = extract(load(ExtractConfig, None, settings), tmp_path / "run")
    assert selection.winner is not None
    assert selection.winner.error_kind == "outputs"
    print(kind, [(c.architecture, round(c.error or 9, 3)) for c in selection.candidates])
    handed = TaskTeacher.load(tmp_path / "run" / "selected")
    assert handed.outputs.names == TaskTeacher.load(teacher).outputs.names


def _space(tmp_path: Path) -> Path:
    path = tmp_path / "space.yaml"
    path.write_text("depth: [1, 3]\nheads: [2]\nhidden: [16, 32]\nintermediate: [24]\n", encoding="utf-8")
    return path
