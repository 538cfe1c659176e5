"""An encoder cut to the tokens of a pruned tokenizer: the rows of its table that these have, and nothing else changed.

    >>> pruned = prune(teacher.tokenizer.backend_tokenizer, counts, 8000)
    >>> cut(teacher, pruned).encoder.config.vocab_size
    8000

What is cut is a `Teacher` again, so students inherit from it, and are built like it, as from any other.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

import torch

from subarch.errors import InvalidVocabulary
from subarch.models.teacher import Teacher
from subarch.text.vocabulary import Pruned, stock_tokenizer


def cut(teacher: Teacher, pruned: Pruned) -> Teacher:
    """The teacher with the tokens of `pruned` alone, its encoder's weights copied.

    Raises:
        InvalidVocabulary: a RoBERTa's token of padding gets another id, from which it counts positions.
    """
    kept = torch.from_numpy(pruned.kept)
    masked_lm = None if teacher.masked_lm is None else cut_model(teacher.masked_lm, pruned)
    encoder = cut_model(teacher.encoder, pruned) if masked_lm is None else masked_lm.base_model
    fingerprint = hashlib.sha256(teacher.fingerprint.encode() + kept.numpy().tobytes()).hexdigest()
    tokenizer = stock_tokenizer(teacher.tokenizer, pruned)
    return replace(teacher, encoder=encoder, masked_lm=masked_lm, tokenizer=tokenizer, fingerprint=fingerprint)


def check_padding(family: str, old: int, new: int) -> None:
    """Raises InvalidVocabulary where a RoBERTa's token of padding gets another id, from which it counts positions."""
    if family == "roberta" and new != old:
        raise InvalidVocabulary(
            f"the token of padding would have id {new} instead of {old}, from which a RoBERTa counts positions; "
            "add the tokens before it to the special tokens of the tokenizer, so that they are kept"
        )


def cut_model(model: Any, pruned: Pruned) -> Any:
    """A stock model with the rows of the kept tokens in its table and, where it has one, in its masked-LM head.

    Raises:
        InvalidVocabulary: see `cut`.
    """
    config = type(model.config).from_dict(pruned.renumbered(model.config.to_dict()))
    config.vocab_size = len(pruned.kept)
    check_padding(config.model_type, model.config.pad_token_id, config.pad_token_id)
    options = {"add_pooling_layer": model.pooler is not None} if hasattr(model, "pooler") else {}
    made = type(model)(config, **options)
    table, head = model.get_input_embeddings().weight, model.get_output_embeddings()
    of_tokens = {table.data_ptr()} | ({value.data_ptr() for value in head.parameters()} if head is not None else set())
    state = model.state_dict()
    kept = torch.from_numpy(pruned.kept)
    made.load_state_dict(
        {name: value[kept] if value.data_ptr() in of_tokens else value for name, value in state.items()}
    )
    return made.eval().requires_grad_(False)
