"""An exported file as a model that searches: what int8 costs in search is measured on the file that is served.

    >>> model = load(Path("runs/mine/exported/onnx-int8"))
    >>> search(model, Collection.read(Path("cranfield"), "test")).model.scores.metrics["ndcg@10"].value
    0.309

The file stands as a module in sentence-transformers' own model, which does all the rest: prompts, order of batches,
similarity, activation.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoTokenizer

from subarch.errors import InvalidExport, InvalidTeacher
from subarch.evaluation.retrieval import Embedder, Model
from subarch.evaluation.retrieval import load as load_model
from subarch.exporting.runtimes import FILES, PARITY, Session, find_export, open_file, require
from subarch.models.kinds import activation_of
from subarch.models.reranker import Reranker
from subarch.models.sentence import read_json
from subarch.run.folder import places
from subarch.run.machine import usable_cores

_OUTPUTS = {"sentence": ("sentence_embedding", "sentence_embedding"), "classification": ("logits", "scores")}
"""Output of a file by its head, and what sentence-transformers calls it."""


def load(source: Path, max_length: int | None = None, threads: int | None = None) -> Model:
    """A model in a folder, of a hub name, in a run folder, or exported; texts are cut to `max_length` tokens.

    Args:
        threads: of an export; None: the usable cores.

    Raises:
        InvalidTeacher, InvalidExport: it cannot be loaded, was changed, or neither embeds nor scores pairs.
        MissingExtra: the runtime of an export is not installed.
    """
    model = places(source, None)[0]
    if any(model.glob("model*.safetensors")) or not any((model / at / PARITY).is_file() for at in ("", *FILES)):
        return load_model(model, max_length)
    return load_export(model, max_length, threads)


def load_export(source: Path, max_length: int | None = None, threads: int | None = None) -> Model:
    """An exported folder, or its onnx/ or openvino/; errors as for `load`."""
    from sentence_transformers import CrossEncoder, SentenceTransformer  # takes seconds

    file, record = find_export(source)
    if record.head not in _OUTPUTS:
        raise InvalidExport(
            f"{source}: its head, {record.head}, neither embeds a text nor scores a pair; export a sentence encoder "
            "or a reranker"
        )
    require(record.runtime)
    folder, length = file.parent.parent, min(record.max_length, max_length or record.max_length)
    module = _module(folder, open_file(record.runtime, file, threads or usable_cores()), record.head, length)
    fingerprint = f"{record.fingerprint}-{record.variant}"
    if record.head == "classification":
        if (outputs := AutoConfig.from_pretrained(folder).num_labels) != 1:
            raise InvalidTeacher(f"{source}: is a classifier with {outputs} outputs; a reranker has one")
        name = activation_of(folder) or "torch.nn.Sigmoid"
        activation = getattr(torch.nn, name.rpartition(".")[2])()
        scorer = CrossEncoder(modules=[module], activation_fn=activation, device="cpu")
        return Reranker(str(source), fingerprint, length, scorer)
    about = folder / "config_sentence_transformers.json"
    settings = read_json(about) if about.is_file() else {}
    prompts = {name: text for name, text in (settings.get("prompts") or {}).items() if text}
    similarity: Any = settings.get("similarity_fn_name") or "cosine"
    named, default = prompts, None
    if record.prefix:  # what the file was trained with stands before a text of no other role
        default = next((name for name, text in prompts.items() if text == record.prefix), "default")
        named = prompts | {default: record.prefix}
    encoder = SentenceTransformer(
        modules=[module], similarity_fn_name=similarity, prompts=named, default_prompt_name=default, device="cpu"
    )
    return Embedder(str(source), fingerprint, prompts, record.prefix, length, encoder)


def _module(folder: Path, session: Session, head: str, max_length: int) -> Any:
    """The file as the one module of a sentence-transformers model."""
    from sentence_transformers.base.modules import InputModule

    tokenizer = AutoTokenizer.from_pretrained(folder)

    class Exported(InputModule):
        max_seq_length = max_length

        def preprocess(self, inputs: Any, prompt: str | None = None, **_: Any) -> dict[str, Tensor]:
            texts = [(prompt or "") + one if isinstance(one, str) else tuple(one) for one in inputs]
            options = {"padding": True, "truncation": True, "max_length": self.max_seq_length}
            found: dict[str, Tensor] = tokenizer(texts, return_tensors="pt", **options).data
            return found

        def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
            output, name = _OUTPUTS[head]
            found = session({key: value.numpy() for key, value in features.items() if isinstance(value, Tensor)})
            return features | {name: torch.from_numpy(found[output])}

        def save(self, *_: Any, **__: Any) -> None:
            """Asked for by the base class alone: nothing saves what is only evaluated."""

    module: Any = Exported
    return module()
