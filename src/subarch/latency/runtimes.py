"""Running exported files: one small interface over ONNX Runtime and OpenVINO.

A runtime opens a file as a session, which is called with NumPy arrays by name; parity and evaluation use that. Its
`prepare` fits `latency.measure`. Everything runs on the processor with a fixed number of threads, and in fp32 where
nothing is quantised: OpenVINO would choose bf16 by itself on some processors, which is not what was compared.

    >>> session = FileRuntime("onnx", threads=2).open(Path("runs/mine/exported/onnx/onnx/model.onnx"))
    >>> session({"input_ids": ids, "attention_mask": mask})["sentence_embedding"].shape
    (8, 384)
    >>> measure({"exported": FileRuntime("onnx", threads=2).prepare(file, vocabulary=30522, batch=1, lengths=(32,))})

Importing this module imports no runtime.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from subarch.export.packages import openvino
from subarch.latency.visits import Call

Arrays = Mapping[str, NDArray[Any]]

CHOICES = 2
"""Of each example of a multiple-choice model that is timed."""


class Session(Protocol):
    """An opened file: what it is called with, and what it gives."""

    @property
    def inputs(self) -> Mapping[str, int]:
        """Names, with the number of axes."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names, in the order of the graph."""

    def __call__(self, inputs: Arrays) -> dict[str, NDArray[np.float32]]:
        """int64 arrays by name, all of one shape -> all outputs by name; missing `token_type_ids` are zeros."""


@dataclass(frozen=True, slots=True)
class FileRuntime:
    """Opens exported files of a runtime, to be run with so many threads."""

    name: Literal["onnx", "openvino"]
    threads: int

    def open(self, file: Path) -> Session:
        """A file, ready to run: model.onnx, or openvino_model.xml with its .bin beside it."""
        return (_OnnxSession if self.name == "onnx" else _OpenVinoSession)(file, self.threads)

    def prepare(self, file: Path, vocabulary: int, batch: int, lengths: Sequence[int]) -> Call:
        """The file as a call to be timed; see `timed`."""
        return timed(self.open(file), vocabulary, batch, lengths)


def timed(session: Session, vocabulary: int, batch: int, lengths: Sequence[int]) -> Call:
    """A call that is one pass over `batch` sequences of so many random tokens for each length, in turn.

    For multiple choice it is `batch` examples of `CHOICES` sequences. The call gives the outputs, one per length.
    """
    draw, choices = np.random.default_rng(0), [CHOICES] * (session.inputs["input_ids"] - 2)
    rows = [draw.integers(5, vocabulary, (batch, *choices, length)) for length in lengths]
    inputs = [given(session.inputs, {"input_ids": ids, "attention_mask": np.ones_like(ids)}) for ids in rows]
    return lambda: [session(one) for one in inputs]


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
        found = self._session.run(None, given(self.inputs, inputs))
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
        found = self._request.infer(given(self.inputs, inputs), share_inputs=True)
        return {name: found[name] for name in self.outputs}


def given(names: Iterable[str], inputs: Arrays) -> dict[str, NDArray[Any]]:
    """What of the inputs is named, in that order, and zeros for token types that are not there."""
    return {name: inputs[name] if name in inputs else np.zeros_like(inputs["input_ids"]) for name in names}
