"""A model as it is exported: one module from named inputs to named outputs, which PyTorch can run too.

What the folder is for decides what the graph computes, unless a head is asked for: a folder with sentence-transformers
modules is a sentence encoder, otherwise the class in its config.json counts. Names and shapes of inputs and outputs are
those that sentence-transformers, Text Embeddings Inference and optimum use, for n sequences of `length` tokens:

    encoder         last_hidden_state (n, length, H)
    sentence        last_hidden_state (n, length, H), sentence_embedding (n, width): pooled, mapped and normalised
    masked-lm       logits (n, length, V)
    classification  logits (n, classes), or (n, 1) of a regression
    choice          logits (n, choices), of inputs (n, choices, length)

    >>> graph = load(Path("runs/mine/pretrained")).graph
    >>> graph.inputs, list(graph.outputs)
    (('input_ids', 'attention_mask', 'token_type_ids'), ['last_hidden_state', 'sentence_embedding'])
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from transformers import AutoModel, AutoModelForMaskedLM, AutoModelForMultipleChoice, AutoModelForSequenceClassification

from subarch.errors import InvalidTeacher
from subarch.export.config import Head
from subarch.models.sentence import Recipe, dense_maps, pool, read_json, transformer_of
from subarch.models.teacher import Teacher, load_model

Axes = tuple[str, ...]

OUTPUTS: dict[Head, dict[str, Axes]] = {
    "encoder": {"last_hidden_state": ("batch", "length")},
    "sentence": {"last_hidden_state": ("batch", "length"), "sentence_embedding": ("batch",)},
    "masked-lm": {"logits": ("batch", "length")},
    "classification": {"logits": ("batch",)},
    "choice": {"logits": ("batch", "choices")},
}
"""Outputs of each head with their dynamic axes, which come first."""

_ENDINGS: dict[str, Head] = {
    "Model": "encoder",
    "ForPreTraining": "encoder",
    "ForMaskedLM": "masked-lm",
    "ForSequenceClassification": "classification",
    "ForMultipleChoice": "choice",
}
_CLASSES: dict[Head, Any] = {
    "classification": AutoModelForSequenceClassification,
    "choice": AutoModelForMultipleChoice,
}


class Graph(nn.Module):
    """What is exported: int64 tensors of one shape, in the order of `inputs` -> tensors in the order of `outputs`."""

    def __init__(self, model: Any, head: Head, dense: nn.Module, recipe: Recipe) -> None:
        super().__init__()
        self.model, self.head = model, head
        self.dense, self.pooling, self.normalize = dense, recipe.pooling, recipe.normalize
        types = ("token_type_ids",) if model.config.type_vocab_size > 1 else ()
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
    """A loaded model: what is exported, and the encoder, tokenizer and recipe of its folder."""

    graph: Graph
    teacher: Teacher

    @property
    def is_regression(self) -> bool:
        """Whether its one logit is a number, and no score of a class."""
        return self.graph.head == "classification" and self.graph.model.config.num_labels == 1


def load(folder: Path, head: Head | None = None) -> Exportable:
    """Load a folder, or a model of the hub by its name. `head`: what to export; None: what the folder is for.

    Raises:
        InvalidTeacher: missing or damaged files, an unknown family, a head that is not exported or not there.
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
            raise InvalidTeacher(f"{folder}: has no masked-LM head; name what to export of it with --head")
    elif head in _CLASSES:
        model = load_model(_CLASSES[head], folder)
    return Exportable(Graph(model, head, teacher.dense, teacher.recipe).eval(), teacher)


def reload(folder: Path, head: Head) -> Graph:
    """The graph of a folder that `load` has accepted, or of one of a model alone: no tokenizer is read, no hash taken.

    Raises:
        InvalidTeacher: files that cannot be read.
    """
    if head in ("encoder", "sentence"):
        model = load_model(AutoModel, folder, add_pooling_layer=False)
    else:
        model = load_model(AutoModelForMaskedLM if head == "masked-lm" else _CLASSES[head], folder)
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
