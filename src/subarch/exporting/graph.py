"""A model as a graph: loaded from its folder, run in PyTorch, and traced into an ONNX file whose axes are dynamic.

The folder decides what the graph computes, unless a head is asked for: a folder with sentence-transformers modules is a
sentence encoder, otherwise the class in its config.json counts. Names and shapes of inputs and outputs are those that
sentence-transformers, Text Embeddings Inference and optimum use, for n sequences of `length` tokens:

    encoder         last_hidden_state (n, length, H)
    sentence        last_hidden_state (n, length, H), sentence_embedding (n, width): pooled, mapped and normalised
    masked-lm       logits (n, length, V)
    classification  logits (n, classes), or (n, 1) of a regression
    tagging         logits (n, length, tags)
    choice          logits (n, choices), of inputs (n, choices, length)

    >>> graph = load_exportable(Path("runs/mine/pretrained")).graph
    >>> graph.inputs, list(graph.outputs)
    (('input_ids', 'attention_mask', 'token_type_ids'), ['last_hidden_state', 'sentence_embedding'])
    >>> write_onnx(graph, Path("model.onnx"))

The graph is traced by torch's TorchScript-based exporter (docs/export.md: why), with attention written out in plain
products, which both runtimes fuse as they like.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from subarch.errors import InvalidTeacher
from subarch.exporting.config import Head
from subarch.models.sentence import Recipe, pool, read_json, transformer_of
from subarch.models.teacher import Teacher, dense_maps, load_encoder, load_model

Axes = tuple[str, ...]

OPSET = 17
"""The first with LayerNormalization as one operator; ONNX Runtime reads it since 1.13, OpenVINO since 2022.3."""

SMALL = 1024
"""Tensors with fewer numbers stay in fp32: they weigh nothing."""

OUTPUTS: dict[Head, dict[str, Axes]] = {
    "encoder": {"last_hidden_state": ("batch", "length")},
    "sentence": {"last_hidden_state": ("batch", "length"), "sentence_embedding": ("batch",)},
    "masked-lm": {"logits": ("batch", "length")},
    "classification": {"logits": ("batch",)},
    "tagging": {"logits": ("batch", "length")},
    "choice": {"logits": ("batch", "choices")},
}
"""Outputs of each head with their dynamic axes, which come first."""

_ENDINGS: dict[str, Head] = {
    "Model": "encoder",
    "ForPreTraining": "encoder",
    "ForMaskedLM": "masked-lm",
    "ForSequenceClassification": "classification",
    "ForTokenClassification": "tagging",
    "ForMultipleChoice": "choice",
}
_CLASSES: dict[Head, Any] = {
    "classification": AutoModelForSequenceClassification,
    "tagging": AutoModelForTokenClassification,
    "choice": AutoModelForMultipleChoice,
}


class Graph(nn.Module):
    """What is exported: int64 tensors of one shape, in the order of `inputs` -> tensors in the order of `outputs`."""

    def __init__(self, model: Any, head: Head, dense: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.model, self.head = model, head
        self.dense, self.pooling, self.normalize = dense, recipe.pooling, recipe.normalize
        types = ("token_type_ids",) if getattr(model.config, "type_vocab_size", 1) > 1 else ()
        self.inputs: tuple[str, ...] = ("input_ids", "attention_mask", *types)
        self.axes: Axes = ("batch", "choices", "length") if head == "choice" else ("batch", "length")
        self.outputs = OUTPUTS[head]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        found = self.model(**dict(zip(self.inputs, inputs, strict=True)))
        if self.head not in ("encoder", "sentence"):
            return (found.logits,)
        hidden = found.last_hidden_state
        if self.head == "encoder":
            return (hidden,)
        embedding = self.dense(pool(hidden, inputs[1], self.pooling))
        return hidden, nn.functional.normalize(embedding, dim=-1) if self.normalize else embedding


@dataclass(frozen=True)
class Exportable:
    """A loaded model: the graph to export, and all of its folder."""

    graph: Graph
    teacher: Teacher

    @property
    def is_regression(self) -> bool:
        """Whether its one logit is a number, not the score of a class."""
        return self.graph.head == "classification" and self.graph.model.config.num_labels == 1


def load_exportable(folder: Path, head: Head | None = None) -> Exportable:
    """Load a folder, or a model of the hub by its name. `head`: what to export; None: what the folder is for.

    Raises:
        InvalidTeacher: missing or damaged files, an unknown family, a head that cannot be exported or is not there.
    """
    teacher = Teacher.load(folder)  # refuses what is damaged, pickled, or brings code
    folder = teacher.folder
    if (inner := transformer_of(folder)[0]) != folder:
        raise InvalidTeacher(
            f"{folder}: its encoder lies in a folder of its own, {inner.name}; to export it, save it again with "
            "SentenceTransformer(folder).save_pretrained(other), which puts it at the top"
        )
    head = head or _head_of(folder)
    model = teacher.encoder
    if head == "masked-lm":
        model = teacher.masked_lm
        if model is None:
            raise InvalidTeacher(f"{folder}: has no masked-LM head; choose what to export with --head")
    elif head in _CLASSES:
        model = load_model(_CLASSES[head], folder)
    return Exportable(Graph(model, head, teacher.dense, teacher.recipe).eval(), teacher)


def load_graph(folder: Path, head: Head) -> Graph:
    """The graph of a folder that `load_exportable` has accepted, or that has no tokenizer: only the model is read.

    Raises:
        InvalidTeacher: files that cannot be read.
    """
    if head in _CLASSES:
        model = load_model(_CLASSES[head], folder)
    else:
        model = load_encoder(folder, masked_lm=head == "masked-lm")
    recipe = Recipe.read(folder)
    return Graph(model, head, dense_maps(folder, recipe.dense, model.config.hidden_size), recipe).eval()


def _head_of(folder: Path) -> Head:
    if (folder / "modules.json").is_file():
        return "sentence"
    name = (read_json(folder / "config.json").get("architectures") or ["Model"])[0]
    for ending, head in _ENDINGS.items():
        if name.endswith(ending):
            return head
    raise InvalidTeacher(
        f"{folder}: is a {name}, whose head cannot be exported; --head encoder exports the encoder below it"
    )


def write_onnx(graph: Graph, file: Path) -> None:
    """Trace the graph into a file. A full disk is an OSError."""
    inputs = [torch.ones((2,) * (len(graph.axes) - 1) + (7,), dtype=torch.int64) for _ in graph.inputs]
    inputs[1][..., -2:] = 0  # a mask with padding
    axes = dict.fromkeys(graph.inputs, graph.axes) | graph.outputs
    implementation = graph.model.config._attn_implementation
    graph.model.set_attn_implementation("eager")
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # The exporter is the older one, shapes are traced, no index may be negative: parity checks all that
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

    Numbers beyond the range of fp16 (65504) become infinite, which parity refuses.
    """
    import ml_dtypes
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
