"""Masks: their proportions, and that they depend on the sequence and the key alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from subarch.errors import InvalidTeacher
from subarch.text.masking import Masker
from tiny import tiny_sentences, tiny_tokenizer

TEXT = "harbours are broken and unbroken harbourmasters break them"


def wordpiece() -> PreTrainedTokenizerFast:
    """BERT's kind: "##" continues a word."""
    pieces = ["harbour", "##s", "are", "broken", "and", "un", "##broken", "##master", "break", "them", "##"]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inner = Tokenizer(models.WordPiece({token: n for n, token in enumerate(special + pieces)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return wrap(inner)


def wrap(inner: Tokenizer) -> PreTrainedTokenizerFast:
    names = {name: f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(tokenizer_object=inner, **{f"{name}_token": text for name, text in names.items()})


def ids(tokenizer: Any, text: str) -> NDArray[np.int32]:
    return np.array(tokenizer(text, add_special_tokens=False)["input_ids"], dtype=np.int32)


def drawn(masker: Masker, tokens: NDArray[np.int32], draws: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions and replacements of many masks, end to end."""
    masks = [masker.mask(tokens, [7, draw]) for draw in range(draws)]
    return np.concatenate([positions for positions, _ in masks]), np.concatenate([given for _, given in masks])


def test_proportions_are_those_of_devlin() -> None:
    tokenizer = tiny_tokenizer()
    tokens = np.full(100, tokenizer.convert_tokens_to_ids("boat"), dtype=np.int32)
    positions, replacements = drawn(Masker(tokenizer), tokens, 400)
    total = 400 * 100
    # Six standard deviations: √(p (1 - p) / n) is 0.0018 of all tokens, and of 6000 masked ones 0.0052 and 0.0039
    assert len(positions) / total == pytest.approx(0.15, abs=0.011)
    hidden, kept = replacements == tokenizer.mask_token_id, replacements == tokens[0]
    ordinary = len(tokenizer) - 5
    assert hidden.mean() == pytest.approx(0.8, abs=0.032)
    assert kept.mean() == pytest.approx(0.1 + 0.1 / ordinary, abs=0.024)
    swapped = replacements[~hidden & ~kept]
    assert len(swapped) / len(replacements) == pytest.approx(0.1, abs=0.024)
    # Every position alike: 60 masks each, a standard deviation of 7.1
    assert np.abs(np.bincount(positions, minlength=100) - 60).max() < 45
    # The random ones are all of the vocabulary but special tokens: about 600 draws of 100 ordinary tokens
    assert not set(swapped.tolist()) & set(tokenizer.all_special_ids)
    assert len(set(swapped.tolist())) > 0.9 * ordinary
    assert np.bincount(swapped).max() < 40


def test_special_tokens_are_never_drawn() -> None:
    tokenizer = wordpiece()
    tokenizer.add_special_tokens({"additional_special_tokens": ["[QUERY]"]})
    _, replacements = drawn(Masker(tokenizer), ids(tokenizer, TEXT), 800)
    ordinary = set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)
    assert len(ordinary) == 11
    assert set(replacements.tolist()) == ordinary | {tokenizer.mask_token_id}


def test_a_mask_is_a_function_of_sequence_and_key() -> None:
    tokenizer = tiny_tokenizer()
    masker = Masker(tokenizer)
    tokens = ids(tokenizer, " ".join(tiny_sentences(4)))
    before = tokens.copy()
    first = masker.mask(tokens, [1, 0, 5])
    for key, same in (([1, 0, 5], True), ([1, 0, 6], False), ([1, 1, 5], False), ([0, 0, 5], False)):
        masker.mask(tokens[:9], [3])  # whatever was drawn in between
        positions, replacements = Masker(tokenizer).mask(tokens, key)
        assert np.array_equal(positions, first[0]) is same
        assert positions.dtype == replacements.dtype == np.dtype(np.int64)
        assert len(positions) == len(replacements) > 0
        assert (np.diff(positions) > 0).all()
        assert np.array_equal(replacements, first[1]) is same
    assert np.array_equal(tokens, before)


def test_the_shortest_sequence_has_a_mask_too() -> None:
    tokenizer = tiny_tokenizer()
    masker = Masker(tokenizer)
    for draw in range(50):
        assert masker.mask(ids(tokenizer, "boat"), [draw])[0].tolist() == [0]
        assert len(masker.mask(ids(tokenizer, "the boat"), [draw])[0]) >= 1


def test_a_tokenizer_without_a_mask_token_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.mask_token = None
    with pytest.raises(InvalidTeacher, match="no mask token"):
        Masker(tokenizer)
