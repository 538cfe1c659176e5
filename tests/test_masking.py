"""Masks: their proportions, that they depend on the sequence and the key alone, and where words start."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from subarch.errors import InvalidConfig, InvalidTeacher
from subarch.text.masking import Masker
from subarch.text.tokenizer import train_tokenizer
from tiny import tiny_sentences, tiny_tokenizer

TEXT = "harbours are broken and unbroken harbourmasters break them"
WORDS = TEXT.split()


def wordpiece() -> PreTrainedTokenizerFast:
    """BERT's kind: "##" continues a word."""
    pieces = ["harbour", "##s", "are", "broken", "and", "un", "##broken", "##master", "break", "them", "##"]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inner = Tokenizer(models.WordPiece({token: n for n, token in enumerate(special + pieces)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    return wrap(inner)


def byte_level() -> PreTrainedTokenizerFast:
    """RoBERTa's kind: "Ġ" starts a word. Its text is full of Markdown, so it knows tokens that begin with "##"."""
    tokenizer = train_tokenizer([TEXT, "## a ### b #### c"] * 3, 290)
    assert any(token.startswith("##") for token in tokenizer.get_vocab())
    return tokenizer


def metaspace() -> PreTrainedTokenizerFast:
    """XLM-RoBERTa's kind: "▁" starts a word."""
    pieces = ["▁", "▁harbour", "s", "▁are", "▁bro", "ken", "▁and", "▁un", "bro", "master", "▁break", "▁them"]
    inner = Tokenizer(models.Unigram([("<unk>", 0.0), *((piece, -1.0) for piece in pieces)], unk_id=0))
    inner.pre_tokenizer = pre_tokenizers.Metaspace()
    return wrap(inner, unk="<unk>", mask="<mask>", pad="<pad>", cls="<s>", sep="</s>")


def wrap(inner: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    names = special or {name: f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
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


@pytest.mark.parametrize("whole_word", [False, True])
def test_special_tokens_are_never_drawn(whole_word: bool) -> None:
    tokenizer = wordpiece()
    tokenizer.add_special_tokens({"additional_special_tokens": ["[QUERY]"]})
    _, replacements = drawn(Masker(tokenizer, whole_word), ids(tokenizer, TEXT), 800)
    ordinary = set(tokenizer.get_vocab().values()) - set(tokenizer.all_special_ids)
    assert len(ordinary) == 11
    assert set(replacements.tolist()) == ordinary | {tokenizer.mask_token_id}


@pytest.mark.parametrize("whole_word", [False, True])
def test_a_mask_is_a_function_of_sequence_and_key(whole_word: bool) -> None:
    tokenizer = tiny_tokenizer()
    masker = Masker(tokenizer, whole_word)
    tokens = ids(tokenizer, " ".join(tiny_sentences(4)))
    before = tokens.copy()
    first = masker.mask(tokens, [1, 0, 5])
    for key, same in (([1, 0, 5], True), ([1, 0, 6], False), ([1, 1, 5], False), ([0, 0, 5], False)):
        masker.mask(tokens[:9], [3])  # whatever was drawn in between
        positions, replacements = Masker(tokenizer, whole_word).mask(tokens, key)
        assert np.array_equal(positions, first[0]) is same
        assert positions.dtype == replacements.dtype == np.dtype(np.int64)
        assert len(positions) == len(replacements) > 0
        assert (np.diff(positions) > 0).all()
        assert np.array_equal(replacements, first[1]) is same
    assert np.array_equal(tokens, before)
    assert Masker(tokenizer, True).scheme != Masker(tokenizer).scheme


@pytest.mark.parametrize("whole_word", [False, True])
def test_the_shortest_sequence_has_a_mask_too(whole_word: bool) -> None:
    tokenizer = tiny_tokenizer()
    masker = Masker(tokenizer, whole_word)
    for draw in range(50):
        assert masker.mask(ids(tokenizer, "boat"), [draw])[0].tolist() == [0]
        assert len(masker.mask(ids(tokenizer, "the boat"), [draw])[0]) >= 1


@pytest.mark.parametrize("make", [wordpiece, byte_level, metaspace])
def test_whole_words_are_never_split(make: Any) -> None:
    tokenizer = make()
    tokens = ids(tokenizer, TEXT)
    # What belongs together, from the words read one by one
    word = np.repeat(np.arange(len(WORDS)), [len(ids(tokenizer, text)) for text in WORDS])
    assert len(word) == len(tokens) > len(WORDS)
    masker = Masker(tokenizer, whole_word=True)
    chosen = np.zeros(len(WORDS))
    for draw in range(600):
        positions, _ = masker.mask(tokens, [draw])
        words = np.unique(word[positions])
        assert positions.tolist() == np.flatnonzero(np.isin(word, words)).tolist()
        chosen[words] += 1
    # Each word alike, long or short: 0.15, and where that would be none (0.85^8 = 27 % of draws) 1/8 more.
    # A standard deviation is √(0.18 · 0.82 / 600) = 0.016.
    assert chosen / 600 == pytest.approx(0.15 + 0.85**8 / 8, abs=0.08)


@pytest.mark.parametrize("make", [wordpiece, byte_level, metaspace])
def test_a_sequence_may_begin_within_a_word(make: Any) -> None:
    tokenizer = make()
    tokens = ids(tokenizer, "harbours broken")
    size = len(ids(tokenizer, "harbours"))
    assert size >= 2
    masker = Masker(tokenizer, whole_word=True)
    # Both words in 2 % of the draws
    found = {tuple(masker.mask(tokens[1:], [draw])[0].tolist()) for draw in range(400)}
    left, right = tuple(range(size - 1)), tuple(range(size - 1, len(tokens) - 1))
    assert found == {left, right, left + right}


def test_whole_words_are_15_percent_of_the_tokens() -> None:
    tokenizer = byte_level()
    tokens = ids(tokenizer, " ".join([TEXT] * 20))
    positions, replacements = drawn(Masker(tokenizer, whole_word=True), tokens, 100)
    # 160 words a draw, of 1 to 10 tokens: a standard deviation below 0.36 √(2 / 16000) = 0.004
    assert len(positions) / (100 * len(tokens)) == pytest.approx(0.15, abs=0.024)
    assert (replacements == tokenizer.mask_token_id).mean() == pytest.approx(0.8, abs=0.04)


def test_a_tokenizer_without_a_mask_token_is_refused() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.mask_token = None
    with pytest.raises(InvalidTeacher, match="no mask token"):
        Masker(tokenizer)


def test_whole_words_need_a_tokenizer_that_shows_them() -> None:
    inner = Tokenizer(models.WordLevel({"[UNK]": 0, "[MASK]": 1, "boat": 2, "tide": 3}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", mask_token="[MASK]")
    with pytest.raises(InvalidConfig, match="turn whole-word masking off"):
        Masker(tokenizer, whole_word=True)
    positions, replacements = Masker(tokenizer).mask(np.array([2, 3, 2], dtype=np.int32), [0])
    assert len(positions) == len(replacements) >= 1
