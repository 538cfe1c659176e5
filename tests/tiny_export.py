"""A tiny random model with every head that can be exported, and exports of it in the test's own process.

>>> folder = tiny_model(tmp_path / "model", "choice")
>>> parity = exported(folder, tmp_path / "run", runtime="onnx")
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from subarch.exporting.config import ExportConfig
from subarch.exporting.export import export
from subarch.run.configuration import load
from subarch.run.records import Parity
from tiny import tiny_corpus, tiny_teacher

HEADS = ("encoder", "sentence", "masked-lm", "classification", "regression", "tagging", "choice")
_AUTO = {"choice": AutoModelForMultipleChoice, "tagging": AutoModelForTokenClassification}


def tiny_model(folder: Path, head: str, family: str = "bert", **options: Any) -> Path:
    """A folder whose stock class has this head; random weights that make every layer matter."""
    options = {"layers": 2, "family": family, "modules": head == "sentence", "masked_lm": head == "masked-lm"} | options
    tiny_teacher(folder, **options)
    if head in ("classification", "regression", "tagging", "choice"):
        auto: Any = _AUTO.get(head, AutoModelForSequenceClassification)
        labels = {"classification": 3, "regression": 1, "tagging": 5}
        with torch.random.fork_rng():
            torch.manual_seed(1)
            model = auto.from_pretrained(folder, **({"num_labels": labels[head]} if head in labels else {}))
            for name, parameter in model.named_parameters():
                if "classifier" in name or "pooler" in name:
                    torch.nn.init.normal_(parameter, std=0.3)
        model.save_pretrained(folder)
    return folder


def exported(model: Path, run: Path, **options: Any) -> Parity:
    """Export a model into a run folder."""
    return export(model, load(ExportConfig, None, options), run)


def with_corpus(folder: Path) -> dict[str, Any]:
    """Options of an export that calibrates on a tiny corpus."""
    return {"corpus": [str(tiny_corpus(folder / "corpus.txt"))], "calibration": 16}
