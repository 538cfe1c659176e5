"""What lies inside a stock encoder, by what it is for: BERT and RoBERTa name it in one way, ModernBERT in another.

BERT normalises behind each block, ModernBERT before it: its residual stream is normalised by the embeddings, by each
reader on its own (the first attention excepted) and at the end. It has one map for queries, keys and values, whose
positions are turned in (rotary), and a feed-forward block that is gated: Wi gives I activations and I gates.

    >>> [len(reads) for _, reads in readers_of(layers_of(encoder)[0])]     # maps behind each LayerNorm of a layer
    [3, 1]
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import chain
from typing import Any

from torch import Tensor, nn

from subarch.errors import NotInheritable
from subarch.numbers.architecture import BIASES, IMPOSSIBLE, Architecture, Inputs, impossible

_SETTINGS = (
    *("pad_token_id", "bos_token_id", "eos_token_id"),
    *("hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob", "layer_norm_eps"),
)
_MODERN_SETTINGS = (
    *("pad_token_id", "bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id"),
    *("hidden_activation", "embedding_dropout", "attention_dropout", "mlp_dropout", "norm_eps", "rope_parameters"),
    *("classifier_pooling", "classifier_activation", "classifier_dropout"),
)
_DROPOUTS = (
    *("hidden_dropout_prob", "attention_probs_dropout_prob"),
    *("embedding_dropout", "attention_dropout", "mlp_dropout"),
    "classifier_dropout",
)


def is_modern(model: Any) -> bool:
    return bool(model.config.model_type == "modernbert")


def usable_positions(family: str, positions: int, pad_token_id: int) -> int:
    """Tokens that an encoder with so many positions can read at once.

    RoBERTa counts positions from pad_token_id + 1, so that many rows of its table are never used.
    """
    return positions - (pad_token_id + 1 if family == "roberta" else 0)


def inputs_of(config: Any, output: int = 0) -> Inputs:
    """The inputs that encoders of this stock configuration share, and the embedding width they must reach (0: none).

    Raises:
        NotInheritable: a ModernBERT whose layers a student cannot repeat.
    """
    tables = (config.vocab_size, config.max_position_embeddings)
    if config.model_type != "modernbert":
        return Inputs(*tables, config.type_vocab_size, output)
    biases = tuple(name for name in BIASES if getattr(config, f"{name}_bias"))
    inputs = Inputs(*tables, 0, output, "modernbert", config.local_attention, _period(config.layer_types), biases)
    if impossible(config.num_hidden_layers, config.num_attention_heads, config.hidden_size, inputs):
        raise NotInheritable(f"{Architecture.from_config(config)}: {IMPOSSIBLE}")
    for kind in sorted(set(config.layer_types)):
        if (found := config.rope_parameters[kind]["rope_type"]) != "default":
            raise NotInheritable(f"rope_type = {found!r} of its {kind} is not supported; use another teacher")
    return inputs


def _period(kinds: Sequence[str]) -> int:
    """Every how many layers, from the first on, one is global; 3, as published, where few layers leave it open."""
    whole = [kind == "full_attention" for kind in kinds]
    for period in chain([3], range(1, len(kinds) + 1)):
        if whole == [at % period == 0 for at in range(len(kinds))]:
            return period
    raise NotInheritable(
        f"layer_types = {list(kinds)} is not supported: global layers must be the first and every n-th after it"
    )


def settings_of(config: Any) -> dict[str, Any]:
    """What students take over of a configuration, besides the inputs: special ids, activation, dropout, rotation."""
    names = _MODERN_SETTINGS if config.model_type == "modernbert" else _SETTINGS
    return {name: copy.deepcopy(getattr(config, name)) for name in names}


def set_dropout(model: nn.Module, share: float) -> None:
    """Everywhere in a built model: behind embeddings and blocks, and on the weights of attention."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = share
        elif hasattr(module, "attention_dropout"):  # a ModernBERT keeps it as a number
            module.attention_dropout = share  # type: ignore[assignment]


def set_dropout_of(config: Any, share: float) -> None:
    """In a configuration that a model with a head is built from."""
    for name in _DROPOUTS:
        if hasattr(config, name):
            setattr(config, name, share)


def head_of(model: Any) -> Any:
    """The stock masked-LM head of a model that has one: (m, H) hidden states -> (m, V) logits."""
    if is_modern(model):
        return nn.Sequential(model.head, model.decoder)
    return model.cls if hasattr(model, "cls") else model.lm_head


def layers_of(encoder: Any) -> nn.ModuleList:
    layers: nn.ModuleList = encoder.layers if is_modern(encoder) else encoder.encoder.layer
    return layers


def set_layers(encoder: Any, layers: nn.ModuleList) -> None:
    if is_modern(encoder):
        encoder.layers = layers
    else:
        encoder.encoder.layer = layers


def norms_of(encoder: Any) -> list[nn.Module]:
    """In the order in which text passes them: embeddings, two in each layer (L), and ModernBERT's last.

    2L + 1, or 2L + 2 of a ModernBERT, whose second is an identity.
    """
    if is_modern(encoder):
        pairs = [(layer.attn_norm, layer.mlp_norm) for layer in encoder.layers]
        return [encoder.embeddings.norm, *(norm for pair in pairs for norm in pair), encoder.final_norm]
    pairs = [(layer.attention.output.LayerNorm, layer.output.LayerNorm) for layer in encoder.encoder.layer]
    return [encoder.embeddings.LayerNorm, *(norm for pair in pairs for norm in pair)]


def ends_of(layer: Any) -> tuple[nn.Linear, nn.Linear]:
    """The maps that end attention, (H, heads · head size), and the feed-forward block, (H, I)."""
    if hasattr(layer, "attn"):
        return layer.attn.Wo, layer.mlp.Wo
    return layer.attention.output.dense, layer.output.dense


def readers_of(layer: Any) -> list[tuple[nn.Module, list[nn.Linear]]]:
    """Attention and the feed-forward block: the module that takes a normalised stream, and the maps that read it."""
    if hasattr(layer, "attn"):
        return [(layer.attn, [layer.attn.Wqkv]), (layer.mlp, [layer.mlp.Wi])]
    attention = layer.attention.self
    return [
        (attention, [attention.query, attention.key, attention.value]),
        (layer.intermediate, [layer.intermediate.dense]),
    ]


def attended(layer: Any, entering: Tensor) -> list[Tensor]:
    """Queries, keys and values (n, L, H) of a layer from what enters it; not yet turned by position in a ModernBERT."""
    normed = layer.attn_norm(entering) if hasattr(layer, "attn") else entering
    return split_attended([read(normed) for read in readers_of(layer)[0][1]])


def split_attended(outputs: list[Tensor]) -> list[Tensor]:
    """Queries, keys and values from the outputs of the one map, or the three, that give them."""
    return [part for output in outputs for part in output.chunk(3 // len(outputs), dim=-1)]
