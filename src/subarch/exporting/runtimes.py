"""Opening and running exported files, in ONNX Runtime and OpenVINO.

    exported/onnx-int8/           config.json, tokenizer and sentence-transformers modules of the model
        onnx/model.onnx           or openvino/openvino_model.xml and .bin
        onnx/parity.json          the comparison with PyTorch, and the SHA-256 of the files

A file is opened as a session, which is called with NumPy arrays by name. Everything runs on the CPU with a fixed number
of threads, in fp32 where nothing is quantised: on some processors OpenVINO would choose bf16 by itself, which is not
what was compared with PyTorch.

    >>> session = open_export(Path("runs/mine/exported/onnx-int8"), threads=2)
    >>> session({"input_ids": ids, "attention_mask": mask})["sentence_embedding"].shape
    (8, 384)

OpenVINO and nncf report their use to their makers when they are imported. Nothing else here uses a network unasked, so
both are imported here, with that switched off. Importing this module imports no runtime.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Iterable, Mapping
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from subarch.errors import InvalidExport, MissingExtra
from subarch.exporting.config import Engine
from subarch.run.files import file_seal, unreadable
from subarch.run.machine import extras
from subarch.run.record import FileSeal
from subarch.run.records import Parity

Arrays = Mapping[str, NDArray[Any]]

FILES = {"onnx": ("model.onnx",), "openvino": ("openvino_model.xml", "openvino_model.bin")}
"""Files by engine, the one to open first; sentence-transformers and others look for these names."""

PARITY = f"{Parity.NAME}.json"


class Session(Protocol):
    """An opened file."""

    @property
    def inputs(self) -> Mapping[str, int]:
        """Names, with the number of axes."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names, in the order of the graph."""

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        """int64 arrays by name, all of one shape -> all outputs by name; missing `token_type_ids` are zeros."""


def open_file(engine: Engine, file: Path, threads: int) -> Session:
    """Open model.onnx, or openvino_model.xml with its .bin beside it."""
    return _OnnxSession(file, threads) if engine == "onnx" else _OpenVinoSession(file, threads)


class _OnnxSession:
    def __init__(self, file: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors
        self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.inputs: Mapping[str, int] = {one.name: len(one.shape) for one in self._session.get_inputs()}
        self.outputs = tuple(str(one.name) for one in self._session.get_outputs())

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        found = self._session.run(None, named(self.inputs, inputs))
        return dict(zip(self.outputs, found, strict=True))


class _OpenVinoSession:
    def __init__(self, file: Path, threads: int) -> None:
        options = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
        }
        compiled = openvino().Core().compile_model(str(file), "CPU", options)
        self._request = compiled.create_infer_request()
        self.inputs: Mapping[str, int] = {one.any_name: len(one.partial_shape) for one in compiled.inputs}
        self.outputs = tuple(str(one.any_name) for one in compiled.outputs)

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        found = self._request.infer(named(self.inputs, inputs), share_inputs=True)
        return {name: found[name] for name in self.outputs}


def named(names: Iterable[str], inputs: Arrays) -> dict[str, NDArray[Any]]:
    """The inputs of these names, in this order; token types that are missing are zeros."""
    return {name: inputs[name] if name in inputs else np.zeros_like(inputs["input_ids"]) for name in names}


def hashes(folder: Path, engine: str) -> dict[str, FileSeal]:
    """Size in bytes and SHA-256 of each file of an export."""
    return {name: file_seal(folder / name) for name in FILES[engine]}


def find_export(folder: Path) -> tuple[Path, Parity]:
    """The file to open of an exported folder, or of its onnx/ or openvino/, and its parity.json.

    Raises:
        InvalidExport: no export, a damaged one, or files that were changed after the comparison with PyTorch.
    """
    places = [place for place in (folder, *(folder / name for name in FILES)) if (place / PARITY).is_file()]
    if not places:
        raise InvalidExport(f"{folder}: no exported model (it has no {PARITY}); make one with `subarch export`")
    path = places[0] / PARITY
    try:
        record = Parity.model_validate_json(path.read_text(encoding="utf-8"), strict=True)
        changed = [name for name, one in hashes(path.parent, record.runtime).items() if one != record.files.get(name)]
    except (OSError, ValueError) as error:
        problem = f"is damaged ({' '.join(str(error).split())}); export the model again"
        raise InvalidExport(unreadable(path.parent, error, problem)) from error
    if changed:
        raise InvalidExport(
            f"{path.parent / changed[0]}: was changed after it was compared with PyTorch (its size or SHA-256 is not "
            f"that in {PARITY}); export the model again"
        )
    return path.parent / FILES[record.runtime][0], record


def open_export(folder: Path, threads: int) -> Session:
    """Open an exported folder; the errors are those of `find_export` and `require`."""
    file, record = find_export(folder)
    require(record.runtime)
    return open_file(record.runtime, file, threads)


def require(extra: str) -> None:
    """Check that the packages of an extra are installed.

    Raises:
        MissingExtra: some are not; the message names them and the command that installs them.
    """
    found = extras()[extra]
    if found["missing"]:
        raise MissingExtra(
            f"{extra}: needs packages that are not installed: {', '.join(found['missing'])}; install the extra "
            f"subarch[{extra}], or: {found['command']}"
        )


def openvino() -> Any:
    _forbid_telemetry()
    import openvino as module

    return module


def nncf() -> Any:
    """The module `nncf`, which then logs errors only."""
    _forbid_telemetry()
    with redirect_stdout(io.StringIO()):  # its logger is bound to what standard output is when it is imported
        import nncf as module
    module.set_log_level(40)
    return module


def _forbid_telemetry() -> None:
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # both do without what is missing
