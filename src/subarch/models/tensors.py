"""Tensors in one file, which appears whole or not at all.

>>> save_tensors({"weight": torch.eye(2)}, Path("weights.safetensors"))
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from subarch.run.files import replaced_file


def save_tensors(tensors: Mapping[str, Tensor], path: Path) -> None:
    """Write a safetensors file, and the folder it lies in; of a failure nothing is left.

    Raises:
        OSError, SafetensorError: a full disk, say.
    """
    with replaced_file(path) as partial:
        save_file({name: tensor.detach().contiguous() for name, tensor in tensors.items()}, partial)
