"""Cut tokenizers: stock ones, that read text as before wherever they have the tokens, and lose no text elsewhere."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers import SentenceTransformer
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from subarch.errors import InvalidVocabulary
from subarch.models.sentence import write_modules
from subarch.models.teacher import Teacher
from subarch.models.vocabulary import cut
from subarch.text.vocabulary import Pruned, prune, sizes, stock_tokenizer, unwritten, usage
from tiny import tiny_sentences, tiny_teacher

SPECIAL = ["<s>", "<pad>", "</s>", "<unk>"]
KINDS = ("wordpiece", "bytes", "bpe", "suffix", "unigram")
ALPHABET = "abcdeghilnorstäß"


def words(count: int, seed: int = 0) -> list[str]:
    """Words of syllables, so that they share pieces; the first ones are used most."""
    source = random.Random(seed)
    syllables = ["".join(source.sample(ALPHABET, source.randint(1, 3))) for _ in range(40)]
    return ["".join(source.choices(syllables, k=source.randint(1, 4))) for _ in range(count)]


def lines(count: int, seed: int = 0) -> list[str]:
    source = random.Random(seed)
    some = words(300)
    weights = [1 / rank for rank in range(1, len(some) + 1)]
    return [" ".join(source.choices(some, weights, k=12)) + "." for _ in range(count)]


def trained(kind: str) -> Tokenizer:
    common: dict[str, Any] = {"vocab_size": 400, "special_tokens": SPECIAL, "show_progress": False}
    if kind == "wordpiece":
        made = Tokenizer(models.WordPiece(unk_token="<unk>"))
        made.pre_tokenizer, made.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
        trainer: Any = trainers.WordPieceTrainer(**common)
    elif kind == "bytes":
        made = Tokenizer(models.BPE())
        made.pre_tokenizer, made.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
        trainer = trainers.BpeTrainer(initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **common)
    elif kind == "bpe":
        made = Tokenizer(models.BPE(unk_token="<unk>"))
        made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.BpeTrainer(**common)
    elif kind == "suffix":
        made = Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
        made.pre_tokenizer, made.decoder = pre_tokenizers.WhitespaceSplit(), decoders.BPEDecoder()
        trainer = trainers.BpeTrainer(end_of_word_suffix="</w>", **common)
    else:
        made = Tokenizer(models.Unigram())
        made.pre_tokenizer, made.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
        trainer = trainers.UnigramTrainer(unk_token="<unk>", **common)
    made.normalizer = normalizers.NFC()
    made.train_from_iterator(lines(200), trainer)
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(token, made.token_to_id(token)) for token in ("<s>", "</s>")]
    )
    made.add_special_tokens(["<mask>"])
    made.add_tokens([AddedToken("C3PO", normalized=False)])
    made.enable_padding(pad_id=made.token_to_id("<pad>"), pad_token="<pad>")
    return Tokenizer.from_str(made.to_str())  # as loaded: the last digit of a score may differ from what was trained


@pytest.fixture(scope="module")
def tokenizers() -> dict[str, Tokenizer]:
    return {kind: trained(kind) for kind in KINDS}


def strings(tokenizer: Tokenizer, text: str) -> list[str]:
    return list(tokenizer.encode(text).tokens)


def is_unknown(tokenizer: Tokenizer, text: str) -> bool:
    return tokenizer.token_to_id("<unk>") in tokenizer.encode(text).ids


TEXTS = st.lists(st.sampled_from(words(300)) | st.text(f"{ALPHABET}C3PO.<s>日Z", max_size=8), max_size=12).map(" ".join)


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=40, deadline=None)
@given(corpus=st.lists(st.sampled_from(lines(60, seed=1)), min_size=1, max_size=30), share=st.floats(0, 1), text=TEXTS)
def test_what_is_kept_is_read_as_before(
    tokenizers: dict[str, Tokenizer], kind: str, corpus: list[str], share: float, text: str
) -> None:
    whole = tokenizers[kind]
    counts = usage(whole, corpus)
    least, most = sizes(whole, counts)
    size = round(least + share * (most - least))
    pruned = prune(whole, counts, size)
    made = pruned.tokenizer
    assert len(pruned.kept) == made.get_vocab_size() == size
    assert (np.diff(pruned.kept) > 0).all()
    assert [made.id_to_token(number) for number in range(size)] == [whole.id_to_token(int(old)) for old in pruned.kept]
    assert {"C3PO", "<mask>", *SPECIAL} <= set(made.get_vocab())
    assert Tokenizer.from_str(made.to_str()).to_str() == made.to_str() == prune(whole, counts, size).tokenizer.to_str()
    for one in (text, *corpus[:3], "C3PO <mask>"):
        before, after = strings(whole, one), strings(made, one)
        assert max(made.encode(one).ids) < size
        if set(before) <= set(made.get_vocab()):
            assert after == before
        if not is_unknown(made, one):
            assert made.decode(made.encode(one).ids) == whole.decode(whole.encode(one).ids)
    for one in corpus:  # its characters are kept, so nothing of it is lost
        assert is_unknown(made, one) == is_unknown(whole, one)


@pytest.mark.parametrize("kind", KINDS)
def test_all_tokens_are_the_same_tokenizer(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    whole = tokenizers[kind]
    pruned = prune(whole, usage(whole, ["ein"]), whole.get_vocab_size())
    assert pruned.tokenizer.to_str() == whole.to_str()
    assert pruned.kept.tolist() == list(range(whole.get_vocab_size()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_cut_tokenizer_is_a_stock_one(tokenizers: dict[str, Tokenizer], kind: str, tmp_path: Path) -> None:
    names = {"pad_token": "<pad>", "unk_token": "<unk>", "cls_token": "<s>", "sep_token": "</s>"}
    fast: Any = PreTrainedTokenizerFast
    whole = fast(tokenizer_object=tokenizers[kind], model_max_length=9, **names, mask_token="<mask>")
    counts = usage(whole.backend_tokenizer, lines(30))
    pruned = prune(whole.backend_tokenizer, counts, (sum(sizes(whole.backend_tokenizer, counts))) // 2)
    made = stock_tokenizer(whole, pruned)
    made.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    for one in (made, loaded):
        assert len(one) == len(pruned.kept) < len(whole)
        assert one.model_max_length == 9
        given = one(lines(5, seed=3), padding=True, truncation=True)
        assert given["input_ids"] == made(lines(5, seed=3), padding=True, truncation=True)["input_ids"]
        assert [row[0] for row in given["input_ids"]] == [one.cls_token_id] * 5
        assert one.mask_token_id == int(np.flatnonzero(pruned.kept == whole.mask_token_id)[0])
    assert len(whole("ein")["input_ids"]) > 2  # the whole one is left as it was
    assert len(whole) == whole.backend_tokenizer.get_vocab_size() > len(made)


@pytest.mark.parametrize("kind", KINDS)
def test_a_larger_vocabulary_writes_less(tokenizers: dict[str, Tokenizer], kind: str) -> None:
    whole, corpus = tokenizers[kind], lines(200)
    counts = usage(whole, corpus)
    least, most = sizes(whole, counts)
    cuts = [prune(whole, counts, size).tokenizer for size in (least, (least + most) // 2, most)]
    lengths = [int(usage(tokenizer, corpus).sum()) for tokenizer in cuts]
    assert lengths[0] > lengths[1] > lengths[2] == int(counts.sum())


def word_piece(vocabulary: list[str]) -> Tokenizer:
    made = Tokenizer(models.WordPiece({name: token for token, name in enumerate(vocabulary)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    return made


LETTERS = ["[UNK]", *"abcdex", *(f"##{letter}" for letter in "abcdex")]


@pytest.mark.parametrize(("times", "stays"), [(10, "ab"), (8, "abcde")])
def test_what_goes_costs_least(times: int, stays: str) -> None:
    """Without ab each of its uses costs one token more; without abcde, then ab ##c ##d ##e, each of three costs 3."""
    whole = word_piece([*LETTERS, "ab", "abcde"])
    counts = usage(whole, ["ab"] * times + ["abcde"] * 3 + ["x"])
    kept = prune(whole, counts, len(LETTERS) + 1).kept
    assert [whole.id_to_token(token) for token in kept[len(LETTERS) :]] == [stays]


def test_pieces_that_nobody_used_come_into_use() -> None:
    ending = [f"{letter}cde" for letter in "abdex"]
    whole = word_piece([*LETTERS, *ending, "##cde"])
    counts = usage(whole, [" ".join(ending)])
    assert counts[whole.token_to_id("##cde")] == 0
    kept = prune(whole, counts, len(LETTERS) + 1).kept
    assert whole.token_to_id("##cde") == kept[-1]


def test_what_cannot_be_written_otherwise_goes_last() -> None:
    whole = word_piece(["[UNK]", *"ab", "##a", "##b", "aaab", "zoo"])
    counts = usage(whole, ["aaab"] * 100 + ["zoo", "b"])
    kept = prune(whole, counts, 6).kept
    assert whole.token_to_id("zoo") in kept


def test_bytes_are_all_kept(tokenizers: dict[str, Tokenizer]) -> None:
    whole = tokenizers["bytes"]
    counts = usage(whole, lines(20))
    made = prune(whole, counts, sizes(whole, counts)[0]).tokenizer
    text = "日本 naïve\U0001f600"
    assert made.decode(made.encode(text, add_special_tokens=False).ids) == text
    assert unwritten(made, usage(made, [text])) > 0.5
    assert unwritten(made, usage(made, ["a b"])) == 0


def test_unknown_tokens_are_counted(tokenizers: dict[str, Tokenizer]) -> None:
    whole = tokenizers["wordpiece"]
    assert unwritten(whole, usage(whole, ["日 日 a a"])) == 0.5
    assert unwritten(whole, usage(whole, lines(2))) == 0


def test_bytes_stand_in_for_characters() -> None:
    codes = [f"<0x{byte:02X}>" for byte in range(256)]
    pieces = [("<unk>", 0.0), *((code, 0.0) for code in codes), ("▁", -2.0), ("a", -2.0), ("日", -3.0), ("aa", -9.0)]
    whole = Tokenizer(models.Unigram(pieces, 0, byte_fallback=True))
    whole.pre_tokenizer = pre_tokenizers.Metaspace()
    counts = usage(whole, ["a a a"])
    made = prune(whole, counts, sizes(whole, counts)[1]).tokenizer
    assert "日" not in made.get_vocab()
    assert made.encode("日").tokens == ["▁", "<0xE6>", "<0x97>", "<0xA5>"]
    assert unwritten(made, usage(made, ["日"])) == 0.75


def test_a_corpus_that_uses_fewer_tokens(tokenizers: dict[str, Tokenizer]) -> None:
    whole = tokenizers["wordpiece"]
    counts = usage(whole, lines(1))
    _, most = sizes(whole, counts)
    with pytest.warns(UserWarning, match=rf"uses {most} of the {whole.get_vocab_size()} tokens.*{most + 1} were asked"):
        assert len(prune(whole, counts, most + 1).kept) == most


def test_what_cannot_be_cut_is_refused(tokenizers: dict[str, Tokenizer]) -> None:
    whole = tokenizers["unigram"]
    counts = usage(whole, lines(3))
    least, _ = sizes(whole, counts)
    with pytest.raises(InvalidVocabulary, match=rf"of {least - 1} tokens is too small: {least} are kept"):
        prune(whole, counts, least - 1)
    with pytest.raises(InvalidVocabulary, match="counts of 3 tokens are not of this tokenizer"):
        prune(whole, counts[:3], least)
    level = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    with pytest.raises(InvalidVocabulary, match="of the model WordLevel cannot be pruned"):
        prune(level, np.ones(2, np.int64), 1)
    slow: Any = object()
    for call in (lambda: usage(slow, ["a"]), lambda: prune(slow, counts, least), lambda: sizes(slow, counts)):
        with pytest.raises(InvalidVocabulary, match="object is no fast tokenizer"):
            call()


def cut_to_a_topic(folder: Path, **options: Any) -> tuple[Teacher, Teacher, list[str]]:
    """A tiny teacher, the same with the words of some sentences alone, and these sentences."""
    teacher = Teacher.load(tiny_teacher(folder, **options))
    sentences = [one for one in tiny_sentences(100) if one.startswith(("harbour", "kitchen"))]
    backend = teacher.tokenizer.backend_tokenizer
    counts = usage(backend, sentences)
    return teacher, cut(teacher, prune(backend, counts, sizes(backend, counts)[1])), sentences


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_a_cut_teacher_reads_kept_tokens_as_before(tmp_path: Path, family: str) -> None:
    teacher, made, sentences = cut_to_a_topic(tmp_path / "whole", family=family)
    rows = made.encoder.config.vocab_size
    assert rows == len(made.tokenizer) == len(made.encoder.get_input_embeddings().weight) < len(teacher.tokenizer)
    assert made.encoder.config.pad_token_id == made.tokenizer.pad_token_id
    assert made.fingerprint != teacher.fingerprint
    torch.testing.assert_close(made.embed_texts(sentences), teacher.embed_texts(sentences), rtol=0, atol=1e-6)
    folder = tmp_path / "cut"
    made.encoder.save_pretrained(folder)
    made.tokenizer.save_pretrained(folder)
    write_modules(folder, made.recipe, made.width, None)
    stock = SentenceTransformer(str(folder), device="cpu").encode(sentences, convert_to_tensor=True)
    torch.testing.assert_close(stock, teacher.embed_texts(sentences), rtol=0, atol=1e-5)


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
def test_a_cut_masked_lm_predicts_kept_tokens_as_before(tmp_path: Path, family: str) -> None:
    teacher, made, sentences = cut_to_a_topic(tmp_path, family=family, masked_lm=True, modules=False)
    logits = []
    for one in (teacher, made):
        batch = one.batch(one.tokenizer(sentences[:5], add_special_tokens=False)["input_ids"])
        logits.append(one.masked_lm(input_ids=batch.ids, attention_mask=batch.mask).logits)
    names = made.tokenizer.convert_ids_to_tokens(list(range(len(made.tokenizer))))
    of_kept = logits[0][..., teacher.tokenizer.convert_tokens_to_ids(names)]
    torch.testing.assert_close(logits[1], of_kept, rtol=0, atol=1e-5)


def test_ids_of_settings_are_renumbered() -> None:
    pruned = Pruned(word_piece(LETTERS), np.array([0, 3, 5]))
    settings = {"pad_token_id": 3, "eos_token_id": [5, 4], "bos_token_id": None, "hidden_size": 5}
    assert pruned.renumbered(settings) == {
        "pad_token_id": 1,
        "eos_token_id": [2, None],
        "bos_token_id": None,
        "hidden_size": 5,
    }


def test_a_roberta_keeps_the_id_of_its_padding(tmp_path: Path) -> None:
    teacher = Teacher.load(tiny_teacher(tmp_path, family="roberta"))
    backend = teacher.tokenizer.backend_tokenizer
    kept = np.setdiff1d(np.arange(backend.get_vocab_size()), [0])
    with pytest.raises(InvalidVocabulary, match="padding would have id 0 instead of 1"):
        cut(teacher, Pruned(backend, kept))


def test_what_an_absence_costs_is_looked_at_again() -> None:
    """Once ab has gone, abx is no longer two pieces but three: then its three uses cost more than the five of cd."""
    whole = word_piece([*LETTERS, "ab", "abx", "cd"])
    counts = usage(whole, ["ab"] + ["abx"] * 3 + ["cd"] * 5 + ["e"])
    kept = prune(whole, counts, len(LETTERS) + 1).kept
    assert whole.id_to_token(int(kept[-1])) == "abx"


@pytest.mark.parametrize("kind", ["template", "bert", "roberta", "sequence"])
def test_ids_are_renumbered_wherever_they_are_named(kind: str) -> None:
    whole = word_piece([*LETTERS, "ab", "abcde", "[PAD]", "[CLS]", "[SEP]"])
    whole.add_special_tokens(["[PAD]", "[CLS]", "[SEP]"])
    close, start = (("[SEP]", whole.token_to_id("[SEP]")), ("[CLS]", whole.token_to_id("[CLS]")))
    template = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[close, start])
    whole.post_processor = {
        "template": template,
        "bert": processors.BertProcessing(close, start),
        "roberta": processors.RobertaProcessing(close, start),
        "sequence": processors.Sequence([processors.ByteLevel(), template]),
    }[kind]
    whole.enable_padding(pad_id=whole.token_to_id("[PAD]"), pad_token="[PAD]", length=6)
    counts = usage(whole, ["a x"])
    made = prune(whole, counts, sizes(whole, counts)[1]).tokenizer
    assert made.padding is not None
    assert made.padding["pad_id"] == made.token_to_id("[PAD]") < whole.token_to_id("[PAD]")
    found = made.encode("a")
    assert found.tokens == ["[CLS]", "a", "[SEP]", "[PAD]", "[PAD]", "[PAD]"]
    assert found.ids == [made.token_to_id(token) for token in found.tokens]


def test_unknown_characters_stay_as_unlikely_as_they_were() -> None:
    """There is no f: if the unlikeliest token went, abcde and an unknown character would beat ab, cd and ef."""
    letters = [(letter, -9.0) for letter in "abcde"]
    pieces = [
        ("zz", -30.0),
        ("▁", -1.0),
        *letters,
        ("ab", -9.0),
        ("cd", -9.0),
        ("ef", -9.0),
        ("abcde", -1.0),
        ("qq", -12.0),
    ]
    whole = Tokenizer(models.Unigram([*pieces, ("<unk>", 0.0)], len(pieces)))
    whole.pre_tokenizer = pre_tokenizers.Metaspace()
    counts = usage(whole, ["abcdef abcde"])
    pruned = prune(whole, counts, sizes(whole, counts)[1])
    assert len(pruned.kept) < len(counts)
    assert strings(pruned.tokenizer, "abcdef") == strings(whole, "abcdef") == ["▁", "ab", "cd", "ef"]
