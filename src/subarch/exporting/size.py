"""How many bytes a served file has, in closed form: what `--max-megabytes` limits before anything is trained.

A file is its tensors and the description of its graph. Tensors follow from the architecture and from how the runtime
stores them (`subarch export`, docs/export.md): in fp32 4 bytes a number; in int8 one byte a number of each product and
of the token table, with a scale and a zero point for each of its outputs, and biases, norms and the other tables in
fp32 (OpenVINO's int8: tables, too). The graph takes what it took of small models (`OVERHEADS`; tests hold the sums
against files that are written): with the versions of `requirements.lock`, some 15 to 60 kB a layer.

    >>> file_bytes(costs.table, Inputs(30522, output=384), "onnx-int8") / 1e6       # (N,)
    array([11.9, ...])
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from subarch.exporting.config import RuntimeName, parse_runtime
from subarch.numbers.architecture import (
    Inputs,
    embedding_parameters,
    encoder_parameters,
    has_map,
    projection_parameters,
)
from subarch.numbers.space import vocabularies_of

OVERHEADS: dict[str, dict[str, tuple[int, ...]]] = {}


def tensor_bytes(table: NDArray[np.int64], inputs: Inputs, runtime: RuntimeName) -> NDArray[np.int64]:
    """(N,) bytes of the tensors in the file of sentence encoders ⟨D, A, H, I⟩ or ⟨D, A, H, I, V⟩."""
    depth, hidden, intermediate, vocabulary = *table[:, [0, 2, 3]].T, vocabularies_of(table)
    engine, quantize = parse_runtime(runtime)
    tables = embedding_parameters(hidden, inputs, vocabulary)
    layers = encoder_parameters(depth, hidden, intermediate, inputs)
    outside = projection_parameters(hidden, inputs)
    if quantize is None:
        return 4 * (tables + layers + outside)
    tokens = vocabulary + (vocabulary == 0) * inputs.vocabulary
    rest = tables - tokens * hidden
    gates = 1 if inputs.family == "bert" else 2
    weights = 4 * hidden * hidden + (1 + gates) * hidden * intermediate
    channels = 5 * hidden + gates * intermediate
    small = layers - depth * weights  # biases and norms
    mapped = has_map(hidden, inputs) * inputs.output
    # A scale and a zero point for each output
    each = 3 if engine == "openvino" else 5
    found = tokens * (hidden + 4) + depth * (weights + each * channels) + 4 * small
    found = found + mapped * ((hidden + 1) * 4 if runtime == "onnx-int8-static" else hidden + each + 4)
    if engine == "openvino" and inputs.family == "bert":
        rows = inputs.positions + inputs.token_types
        return found + rows * (hidden + each) + 8 * hidden
    # Dynamic and static int8 of ONNX are smoothed: a factor for each channel of what the layer's two blocks read
    return found + 4 * rest + (8 * depth * hidden if engine == "onnx" else 0)
