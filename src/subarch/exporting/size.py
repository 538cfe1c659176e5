"""How many bytes a served file has, in closed form: what `--max-megabytes` limits before anything is trained.

A file is its tensors and the description of its graph. Tensors follow from the architecture and from how the runtime
stores them (`subarch export`, docs/export.md): in fp32 4 bytes a number; in int8 one byte a number of each product and
of the token table, with a scale and a zero point for each of its outputs, and biases, norms and the other tables in
fp32 (OpenVINO's int8 has all tables in 8 bits). The graph takes what it took of small models (`OVERHEADS`; the tests
hold the sums against files that are written): with the versions of `requirements.lock`, some 15 to 60 kB a layer.

    >>> megabytes(costs.table, Inputs(30522, output=384), "bert", "onnx-int8")
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

# By runtime and family: bytes of a graph without layers, what the first (of a ModernBERT the second) one adds besides,
# bytes of each layer, and of the map to the output width
OVERHEADS: dict[str, dict[str, tuple[int, int, int, int]]] = {
    "torch": {"bert": (512, 0, 1684, 144), "roberta": (512, 0, 1684, 144), "modernbert": (200, 0, 536, 144)},
    "onnx": {
        "bert": (4641, 6555, 15160, 176),
        "roberta": (9696, 6603, 15135, 175),
        "modernbert": (12281, 4972, 19290, 0),
    },
    "onnx-int8": {
        "bert": (6770, 11525, 29303, 1090),
        "roberta": (13881, 11680, 29228, 1100),
        "modernbert": (19425, 7342, 33343, 742),
    },
    "onnx-int8-static": {
        "bert": (6764, 11510, 27268, 218),
        "roberta": (13873, 11680, 27186, 230),
        "modernbert": (19416, 7323, 32966, 0),
    },
    "openvino": {
        "bert": (18928, 32369, 29121, 1647),
        "roberta": (27778, 30711, 29108, 1618),
        "modernbert": (53252, 12239, 40873, 1525),
    },
    "openvino-int8": {
        "bert": (31712, 32429, 46674, 4560),
        "roberta": (40483, 30845, 46702, 4601),
        "modernbert": (60018, 12141, 52662, 4448),
    },
    "openvino-int8-static": {
        "bert": (27148, 32083, 51076, 4454),
        "roberta": (35976, 30413, 51110, 4468),
        "modernbert": (59777, 12822, 57304, 4781),
    },
}


def megabytes(table: NDArray[np.int64], inputs: Inputs, family: str, runtime: RuntimeName) -> NDArray[np.float64]:
    """(N,) millions of bytes of the files of sentence encoders, or of encoders with the head of a task.

    In torch these are the files of weights, in OpenVINO the model and its weights. No tokenizer is counted.

    Args:
        family: "bert", "roberta" or "modernbert".
    """
    bare, first, layer, mapped = OVERHEADS[runtime][family]
    depth = table[:, 0]
    graph = bare + first * (depth > (family == "modernbert")) + layer * depth + mapped * has_map(table[:, 2], inputs)
    found: NDArray[np.float64] = (tensor_bytes(table, inputs, runtime) + graph) / 1e6
    return found


def tensor_bytes(table: NDArray[np.int64], inputs: Inputs, runtime: RuntimeName) -> NDArray[np.int64]:
    """(N,) bytes of the tensors in a file."""
    depth, hidden, intermediate, vocabulary = *table[:, [0, 2, 3]].T, vocabularies_of(table)
    engine, quantize = parse_runtime(runtime)
    tables = embedding_parameters(hidden, inputs, vocabulary)
    layers = encoder_parameters(depth, hidden, intermediate, inputs)
    outside = projection_parameters(hidden, inputs)
    found: NDArray[np.int64] = 4 * (tables + layers + outside)
    if quantize is None:
        return found
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
        found = found + rows * (hidden + each) + 8 * hidden
        return found
    # Dynamic and static int8 of ONNX are smoothed: a factor for each channel of what the layer's two blocks read
    found = found + 4 * rest + (8 * depth * hidden if engine == "onnx" else 0)
    return found
