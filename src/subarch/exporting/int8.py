"""Quantisation to int8: changes to the model before it is traced, and the runtimes' own tools on the file.

Token embeddings, two thirds of a small model's bytes, are stored in int8 with a scale per row, in all variants: both
runtimes look rows up and widen them. Matrix products are then quantised, weights with a scale per output channel:

    int8         ONNX Runtime: dynamic, the ranges of inputs are taken at run time. OpenVINO: weights only. Neither
                 needs text.
    int8-static  the ranges of inputs are calibrated on text: by onnxruntime, and by nncf for OpenVINO.

Where there is text, outlying channels behind LayerNorms are first made smaller, and the weights that read them larger
(SmoothQuant, arXiv 2211.10438, section 4): a range for all channels otherwise spends most of its 256 values on a few of
them. In fp32 this changes nothing.

    >>> graph = smoothed(with_int8_embeddings(graph), batches)
    >>> write_onnx(graph, file); quantize_onnx(file, None, reduce_range=overflows())
"""

from __future__ import annotations

import copy
import io
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from subarch.exporting.graph import Graph
from subarch.exporting.parity import Batch
from subarch.exporting.runtimes import nncf
from subarch.models.parts import layers_of, readers_of
from subarch.run.machine import machine

STRENGTH = 0.5
"""Smoothing strength α: how much of a channel's spread is moved into the weights; 0.5 is the paper's usual value."""


class Int8Embedding(nn.Module):
    """A table in int8 with an fp32 scale per row: (...) ids -> (..., H), each number off by half a scale at most."""

    rows: Tensor
    scale: Tensor

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        scale = table.abs().amax(1, keepdim=True).clamp(min=1e-30) / 127  # a row of zeros stays one
        self.register_buffer("scale", scale)
        self.register_buffer("rows", torch.round(table / scale).to(torch.int8))

    def forward(self, ids: Tensor) -> Tensor:
        return nn.functional.embedding(ids, self.rows).to(torch.float32) * nn.functional.embedding(ids, self.scale)


def with_int8_embeddings(graph: Graph) -> Graph:
    """A copy whose token embeddings are int8; a tied masked-LM head keeps its weights."""
    changed = copy.deepcopy(graph)
    encoder = changed.model.base_model
    encoder.set_input_embeddings(Int8Embedding(encoder.get_input_embeddings().weight.detach()))
    return changed


@torch.no_grad()
def smoothed(graph: Graph, batches: Sequence[Batch]) -> Graph:
    """A copy that computes the same, whose vectors behind LayerNorm have channels of more equal range.

    Channel j is divided by s_j = max|x_j|^α / max|w_j|^(1-α), and the weights that read it are multiplied by s_j. The
    maximum of |x_j| is over all batches, padding included.
    """
    changed = copy.deepcopy(graph)
    readers = [reader for layer in layers_of(changed.model.base_model) for reader in readers_of(layer)]
    largest = [torch.zeros(linears[0].in_features) for _, linears in readers]

    def record(at: int) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(_: nn.Module, inputs: tuple[Any, ...]) -> None:
            largest[at] = torch.maximum(largest[at], inputs[0].abs().flatten(0, -2).amax(0))

        return hook

    hooks = [block.register_forward_pre_hook(record(at)) for at, (block, _) in enumerate(readers)]
    for batch in batches:
        changed(*(torch.from_numpy(batch[name]) for name in changed.inputs))
    for hook in hooks:
        hook.remove()
    for (block, linears), inputs in zip(readers, largest, strict=True):
        weights = torch.cat([linear.weight for linear in linears]).abs().amax(0)
        scale = inputs.clamp(min=1e-5) ** STRENGTH / weights.clamp(min=1e-5) ** (1 - STRENGTH)
        for linear in linears:
            linear.weight.mul_(scale)
        block.register_forward_pre_hook(_divide_by(scale))
    return changed


def _divide_by(scale: Tensor) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
    factors = 1 / scale
    return lambda _, inputs: (inputs[0] * factors, *inputs[1:])


def overflows() -> bool:
    """Whether products of 8 bits can overflow here: x86 without VNNI adds two of them in 16 bits.

    255 × 127 × 2 does not fit, 255 × 63 × 2 does: there, weights get 7 bits (onnxruntime's `reduce_range`).
    """
    found = machine()
    return found["instruction_set"] in ("x86_64", "AMD64") and not any("vnni" in one for one in found["features"])


def quantize_onnx(file: Path, batches: Sequence[Batch] | None, reduce_range: bool) -> None:
    """Quantise an ONNX file in place: dynamically, or with ranges from `batches`.

    `reduce_range`: weights in 7 bits, for processors whose sums would overflow (`overflows`).
    """
    import onnx
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, batches: Sequence[Batch]) -> None:
            self._waiting = iter(batches)

        def get_next(self) -> Batch | None:
            return next(self._waiting, None)

    graph = onnx.load(file).graph
    weights = {tensor.name for tensor in graph.initializer}
    options: dict[str, Any] = {
        "per_channel": True,
        "reduce_range": reduce_range,
        "weight_type": QuantType.QInt8,
        "op_types_to_quantize": ["MatMul"],
        # The products of attention are small and have no weights
        "nodes_to_exclude": [one.name for one in graph.node if one.op_type == "MatMul" and one.input[1] not in weights],
    }
    quantized = file.with_suffix(".int8")
    with _silence():
        if batches is None:
            quantize_dynamic(file, quantized, **options)
        else:
            options["activation_type"] = QuantType.QUInt8
            options["extra_options"] = {"OpTypesToExcludeOutputQuantization": ["MatMul"]}  # sums stay in fp32
            quantize_static(file, quantized, Reader(batches), **options)
    os.replace(quantized, file)


def quantize_openvino(model: Any, batches: Sequence[Batch] | None) -> Any:
    """A quantised copy of an OpenVINO model: weights only, or with the inputs' ranges from `batches`."""
    tools = nncf()
    with _silence():
        if batches is None:
            return tools.compress_weights(model, mode=tools.CompressWeightsMode.INT8_ASYM)
        # The model is smoothed already; bias correction takes longer than all the rest and gained nothing
        advanced = tools.AdvancedQuantizationParameters(
            smooth_quant_alphas=tools.AdvancedSmoothQuantParameters(matmul=-1), disable_bias_correction=True
        )
        return tools.quantize(
            model,
            tools.Dataset(batches),
            model_type=tools.ModelType.TRANSFORMER,
            subset_size=len(batches),
            advanced_parameters=advanced,
        )


@contextmanager
def _silence() -> Iterator[None]:
    """Both tools print and log; standard output may have to be JSON alone."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
