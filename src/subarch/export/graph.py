"""PyTorch module -> ONNX file whose axes are dynamic.

The graph is traced by torch's TorchScript-based exporter (docs/export.md: why), with attention written out in plain
products, which both runtimes fuse as they like. `store_in_16_bits` halves what is left in fp32: each large tensor is
kept in 16 bits and widened when the file is loaded, so that everything is computed in fp32.

    >>> write_onnx(exportable.graph, Path("model.onnx"))
    >>> store_in_16_bits(Path("model.onnx"), "fp16")
"""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Literal

import torch

from subarch.export.exportable import Graph

OPSET = 17
"""The first with LayerNormalization as one operator; ONNX Runtime reads it since 1.13, OpenVINO since 2022.3."""

SMALL = 1024
"""Tensors of fewer numbers stay in fp32: they weigh nothing."""


def write_onnx(graph: Graph, file: Path) -> None:
    """Trace the graph into a file.

    Raises:
        OSError: a full disk, say.
    """
    inputs = [torch.ones((2,) * (len(graph.axes) - 1) + (7,), dtype=torch.int64) for _ in graph.inputs]
    inputs[1][..., -2:] = 0  # a mask with padding
    axes = dict.fromkeys(graph.inputs, graph.axes) | graph.outputs
    implementation = graph.model.config._attn_implementation
    graph.model.set_attn_implementation("eager")
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # That the exporter is the older one, that shapes are traced, that no index may be negative: parity tells
            warnings.simplefilter("ignore")
            torch.onnx.export(
                graph,
                tuple(inputs),
                str(file),
                input_names=list(graph.inputs),
                output_names=list(graph.outputs),
                dynamic_axes={name: dict(enumerate(named)) for name, named in axes.items()},
                opset_version=OPSET,
                dynamo=False,
            )
    finally:
        graph.model.set_attn_implementation(implementation)


def store_in_16_bits(file: Path, storage: Literal["fp16", "bf16"]) -> None:
    """Rewrite an ONNX file so that its large fp32 tensors are stored in 16 bits and cast to fp32 where they are used.

    Numbers beyond the range of fp16 (65504) become infinite, which parity does not let pass.
    """
    import ml_dtypes
    import numpy as np
    import onnx

    model = onnx.load(file)
    kind = np.float16 if storage == "fp16" else ml_dtypes.bfloat16
    casts = []
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and math.prod(tensor.dims) >= SMALL:
            with np.errstate(over="ignore"):
                stored = onnx.numpy_helper.to_array(tensor).astype(kind)
            name, narrow = tensor.name, f"{tensor.name}.{storage}"
            casts.append(onnx.helper.make_node("Cast", [narrow], [name], to=onnx.TensorProto.FLOAT))
            tensor.CopyFrom(onnx.numpy_helper.from_array(stored, narrow))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    onnx.save(model, file)
