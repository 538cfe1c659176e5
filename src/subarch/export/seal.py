"""An exported folder on disk: where its file is, and whether it is still the one that was compared with PyTorch.

    exported/onnx-int8/           config.json, tokenizer and sentence-transformers modules of the model
        onnx/model.onnx           or openvino/openvino_model.xml and .bin
        onnx/parity.json          what was compared, how, and the SHA-256 of the files

    >>> session = open_sealed(Path("runs/mine/exported/onnx-int8"), threads=2)

Importing this module imports no runtime.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from subarch.errors import InvalidExport
from subarch.export.packages import require
from subarch.latency.runtimes import FileRuntime, Session

FILES = {"onnx": ("model.onnx",), "openvino": ("openvino_model.xml", "openvino_model.bin")}
"""By runtime, the one that is opened first; the names that sentence-transformers and others look for."""

PARITY = "parity.json"


def hashes(folder: Path, runtime: str) -> dict[str, dict[str, Any]]:
    """Size in bytes and SHA-256 of each file of an export."""
    found = {}
    for name in FILES[runtime]:
        with (folder / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        found[name] = {"bytes": (folder / name).stat().st_size, "sha256": digest}
    return found


def sealed(folder: Path) -> tuple[Path, dict[str, Any]]:
    """The file of an exported folder and what its parity.json holds.

    Args:
        folder: an exported folder, or its onnx/ or openvino/.

    Raises:
        InvalidExport: no export, a damaged one, or files that changed since they were compared with PyTorch.
    """
    places = [place for place in (folder, *(folder / name for name in FILES)) if (place / PARITY).is_file()]
    if not places:
        raise InvalidExport(f"{folder}: no exported model (there is no {PARITY}); export one with `subarch export`")
    path = places[0] / PARITY
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name, one in hashes(path.parent, record["runtime"]).items() if one != record["files"][name]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InvalidExport(f"{path.parent}: is damaged ({error!r}); export the model again") from error
    if changed:
        raise InvalidExport(
            f"{path.parent / changed[0]}: was changed since it was compared with PyTorch (its size or SHA-256 is not "
            f"that in {PARITY}); export the model again"
        )
    return path.parent / FILES[record["runtime"]][0], record


def open_sealed(folder: Path, threads: int) -> Session:
    """An exported folder, ready to be run.

    Raises:
        InvalidExport: see `sealed`.
        MissingExtra: its runtime is not installed.
    """
    file, record = sealed(folder)
    require(record["runtime"])
    return FileRuntime(record["runtime"], threads).open(file)
