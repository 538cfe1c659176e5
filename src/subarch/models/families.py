"""Families of encoders that are BERT or RoBERTa under other names, and the exact conversion of each.

A student is a stock BERT or RoBERTa, so a teacher of such a family becomes one when it is loaded: the same function,
weight by weight, under the names of the stock class. Where a family is BERT only for some settings (ELECTRA, whose
embeddings may be narrower), the others are refused. Token types that a family lacks are a table of zeros.

    >>> model = stock_model(AutoModel.from_pretrained("distilbert-base-uncased"))
    >>> model.config.model_type, model.config.num_hidden_layers
    ('bert', 6)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    PretrainedConfig,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaModel,
)

from subarch.errors import NotInheritable
from subarch.models.kinds import architectures

State = dict[str, Tensor]

_CLASSES: dict[str, Any] = {"bert": (BertModel, BertForMaskedLM), "roberta": (RobertaModel, RobertaForMaskedLM)}
_KEPT = ("vocab_size", "max_position_embeddings", "pad_token_id", "bos_token_id", "eos_token_id", "architectures")

_DISTILBERT = {
    "distilbert.": "bert.",
    "transformer.layer.": "encoder.layer.",
    "attention.q_lin": "attention.self.query",
    "attention.k_lin": "attention.self.key",
    "attention.v_lin": "attention.self.value",
    "attention.out_lin": "attention.output.dense",
    "sa_layer_norm": "attention.output.LayerNorm",
    "ffn.lin1": "intermediate.dense",
    "ffn.lin2": "output.dense",
    "output_layer_norm": "output.LayerNorm",
    "vocab_transform": "cls.predictions.transform.dense",
    "vocab_layer_norm": "cls.predictions.transform.LayerNorm",
    "vocab_projector": "cls.predictions.decoder",
}
_HEADS = ("cls.predictions.", "lm_head.", "vocab_", "generator_", "head.", "decoder.")
"""How the weights of masked-LM heads begin."""

WITHOUT_POOLER = ("distilbert", "electra", "modernbert")
"""Families whose encoders have none, and no option to leave it out."""

WHY_NOT = {
    "mpnet": "its attention adds a bias for relative positions, which a BERT has no place for",
    "deberta": "its attention compares relative positions, which a BERT's does not",
    "deberta-v2": "its attention compares relative positions, which a BERT's does not",
    "albert": "its layers share one set of weights and its embeddings are projected",
    "nomic_bert": "its positions are rotary and its feed-forward layers gated, which a BERT's are not",
}
"""Families that students might be expected to start from, and why they cannot."""

_ELECTRA = {
    "electra.": "bert.",
    "generator_predictions": "cls.predictions.transform",
    "generator_lm_head": "cls.predictions.decoder",
}
"""Parts of the names of weights, and what BERT calls them."""


def stock_config(config: PretrainedConfig) -> PretrainedConfig:
    """The configuration of the BERT or RoBERTa that computes the same; any other family's is returned as it is.

    Raises:
        NotInheritable: ELECTRA with embeddings narrower than its layers.
    """
    return _CONFIGS[config.model_type](config) if config.model_type in _CONFIGS else config


def stock_model(model: Any) -> Any:
    """An encoder, or one with its masked-LM head, as the BERT or RoBERTa that computes the same.

    A model of any other family is returned as it is. Raises NotInheritable as `stock_config` does.
    """
    family = model.config.model_type
    if family not in _CONFIGS:
        return model
    config = stock_config(model.config)
    encoder, masked_lm = _CLASSES[config.model_type]
    masked = type(model).__name__.endswith("ForMaskedLM")
    stock = masked_lm(config) if masked else encoder(config, add_pooling_layer=False)
    state = {name: value for name, value in model.state_dict().items() if not name.startswith("pooler.")}
    stock.load_state_dict(_STATES[family](state, config, masked))
    return stock.eval().requires_grad_(False)


def has_head(config: dict[str, Any], weights: Iterable[str]) -> bool:
    """Whether a folder with this config.json and weights of these names has a masked-LM head that a student can have.

    Some name the architecture and have the encoder alone. The head of ELECTRA uses GELU whatever its layers do. A
    student's is tied to its embeddings.
    """
    return (
        any("ForMaskedLM" in name for name in architectures(config))
        and any(name.startswith(_HEADS) for name in weights)
        and config.get("tie_word_embeddings") is not False
        and (config["model_type"] != "electra" or config.get("hidden_act", "gelu") == "gelu")
    )


def _of_roberta(config: PretrainedConfig) -> PretrainedConfig:
    """XLM-RoBERTa and CamemBERT are RoBERTa with another tokenizer."""
    return RobertaConfig(**{key: value for key, value in config.to_dict().items() if key != "model_type"})


def _of_distilbert(config: Any) -> PretrainedConfig:
    return BertConfig(
        **{key: getattr(config, key) for key in _KEPT},
        num_hidden_layers=config.n_layers,
        num_attention_heads=config.n_heads,
        hidden_size=config.dim,
        intermediate_size=config.hidden_dim,
        hidden_act=config.activation,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.attention_dropout,
        layer_norm_eps=1e-12,  # a constant of its layers
        type_vocab_size=1,
    )


def _of_electra(config: Any) -> PretrainedConfig:
    if config.embedding_size != config.hidden_size:
        raise NotInheritable(
            f"{config.name_or_path}: its embeddings are {config.embedding_size} wide and its layers "
            f"{config.hidden_size}: an ELECTRA that projects its embeddings is no BERT, "
            "and a student cannot start from it; start from another encoder"
        )
    return BertConfig(**{key: value for key, value in config.to_dict().items() if key != "model_type"})


def _renamed(names: dict[str, str]) -> Callable[[State, Any, bool], State]:
    def rename(state: State, config: Any, masked: bool) -> State:
        found = {}
        for name, value in state.items():
            for theirs, ours in names.items():
                name = name.replace(theirs, ours)
            found[name] = value
        prefix = "bert." if masked else ""
        types = torch.zeros(config.type_vocab_size, config.hidden_size)
        found.setdefault(f"{prefix}embeddings.token_type_embeddings.weight", types)
        if masked:
            found["cls.predictions.bias"] = found["cls.predictions.decoder.bias"]
        return found

    return rename


_CONFIGS: dict[str, Callable[[Any], PretrainedConfig]] = {
    "distilbert": _of_distilbert,
    "xlm-roberta": _of_roberta,
    "camembert": _of_roberta,
    "electra": _of_electra,
}
_STATES: dict[str, Callable[[State, Any, bool], State]] = {
    "distilbert": _renamed(_DISTILBERT),
    "xlm-roberta": lambda state, *_: state,
    "camembert": lambda state, *_: state,
    "electra": _renamed(_ELECTRA),
}
CONVERTED = tuple(_CONFIGS)
