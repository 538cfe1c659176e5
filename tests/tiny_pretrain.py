"""Whole pretrainings in a second, and what they hand over.

>>> train(run, tiny_pretraining(tmp_path, steps=8))
>>> weights(run)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from subarch.pretraining.config import PretrainConfig
from subarch.run.configuration import load
from tiny import tiny_corpus, tiny_teacher

QUICK: dict[str, Any] = {
    "architecture": "1-4-16-32",
    "max_length": 32,
    "batch_tokens": 512,
    "learning_rate": 5e-3,
    "steps": 8,
    "evaluations": 4,
    "heldout": 8,
    "threads": 1,
    "targets": "live",
}


def tiny_pretraining(folder: Path, masked_lm: bool = True, **changes: Any) -> PretrainConfig:
    """A configuration with a teacher and a corpus made in `folder`, where they are missing; None leaves a key out."""
    teacher = folder / ("masked-lm" if masked_lm else "encoder")
    if not teacher.is_dir():
        tiny_teacher(teacher, masked_lm=masked_lm, modules=not masked_lm)
    corpus = folder / "corpus.txt"
    if not corpus.is_file():
        tiny_corpus(corpus, 300)
    options = {"teacher": teacher, "corpus": [str(corpus)], **QUICK, **changes}
    return load(PretrainConfig, None, {key: value for key, value in options.items() if value is not None})


def weights(run: Path, folder: str = "pretrained") -> bytes:
    """The weights that a run handed over, as they are on disk."""
    return (run / folder / "model.safetensors").read_bytes()


def tensors(run: Path, folder: str = "pretrained") -> dict[str, Tensor]:
    return load_file(run / folder / "model.safetensors")
