"""Corpus: deduplicated, held out by group, the tokenizer's own tokens, and safe on disk whatever interrupts it."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from documents import WORDS, records, sentences, write
from subarch.errors import InvalidConfig, InvalidCorpus
from subarch.text import corpus as corpus_module
from subarch.text import packed
from subarch.text.corpus import Corpus, build, hold_out, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [f"##{c}" for c in "0123456789x"]
    vocabulary = {word: n for n, word in enumerate([*names, "number", *pieces, *WORDS, "[", "]", "mask", "MASK"])}
    inner = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]", pad_token="[PAD]", mask_token="[MASK]")
    return fast


def decoded(corpus: Corpus, part: str, tokenizer: PreTrainedTokenizerFast) -> set[str]:
    return {tokenizer.decode(ids.tolist()) for ids in getattr(corpus, part)}


def test_tokens_are_those_of_the_tokenizer(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    lines = [*sentences(1200), "the [MASK] is a fox"]
    calls: list[tuple[int, str]] = []
    path = write(tmp_path / "a.txt", lines)
    tokenizer(["a dog"], truncation=True, max_length=4, padding="max_length")  # leaves both switched on
    corpus = build([path], tokenizer, tmp_path / "corpus", progress=lambda *call: calls.append(call))
    assert tokenizer.backend_tokenizer.truncation["max_length"] == 4  # the caller's tokenizer is left as it was
    expected = {tuple(tokenizer(line, add_special_tokens=False, truncation=False)["input_ids"]) for line in lines[:-1]}
    packed_ids = {tuple(ids.tolist()) for part in (corpus.train, corpus.heldout) for ids in part}
    masked = packed_ids - expected
    assert expected <= packed_ids
    assert len(masked) == 1
    assert tokenizer.mask_token_id not in masked.pop()  # text, not a mask
    total = sum(corpus.meta["tokens"].values())
    assert total == len(corpus.train.tokens) + len(corpus.heldout.tokens)
    assert calls[-1] == (total, "tokens")
    assert len(calls) == 3
    assert sum(corpus.meta["documents"].values()) == len(corpus.train) + len(corpus.heldout) == 1201
    assert corpus.train.tokens.dtype == np.int32
    assert isinstance(corpus.train.tokens, np.memmap)
    assert 0.02 < corpus.meta["tokens"]["heldout"] / total < 0.09


def test_duplicates_go_also_across_the_split(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    lines = sentences(200)
    plain = build([write(tmp_path / "a.txt", lines)], tokenizer, tmp_path / "plain", heldout_fraction=0.4)
    copies = [line.upper().replace(" ", ",  ") + "!" for line in lines]
    noisy = build([write(tmp_path / "b.txt", lines + copies)], tokenizer, tmp_path / "noisy", heldout_fraction=0.4)
    assert noisy.meta["duplicates"] == 200
    assert noisy.content_hash == plain.content_hash
    train, heldout = (decoded(noisy, part, tokenizer) for part in ("train", "heldout"))
    assert not train & heldout
    assert len(train) + len(heldout) == 200


def test_whole_groups_are_held_out(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [(text, f"package{n % 9}") for n, text in enumerate(sentences(300))]
    corpus = build([records(tmp_path / "a.jsonl", rows)], tokenizer, tmp_path / "corpus", heldout_fraction=0.3)
    held = set(corpus.meta["heldout_groups"])
    assert 0 < len(held) < 9
    normal = {tokenizer.decode(tokenizer(text, add_special_tokens=False)["input_ids"]): group for text, group in rows}
    assert {normal[text] for text in decoded(corpus, "heldout", tokenizer)} == held
    assert not {normal[text] for text in decoded(corpus, "train", tokenizer)} & held
    with pytest.raises(InvalidCorpus, match="at least two groups"):
        build([records(tmp_path / "b.jsonl", [(text, "one") for text, _ in rows])], tokenizer, tmp_path / "one")


def test_the_order_of_files_changes_nothing(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    parts = [sentences(60, seed) for seed in range(3)]
    paths = [write(tmp_path / f"{n}.txt", part) for n, part in enumerate(parts)]
    first = build(paths, tokenizer, tmp_path / "first", heldout_fraction=0.2)
    second = build(paths[::-1], tokenizer, tmp_path / "second", heldout_fraction=0.2)
    assert second.content_hash == first.content_hash
    # renamed files come in another order: the same documents on the same side
    renamed = [write(tmp_path / "renamed" / f"{9 - n}.txt", part) for n, part in enumerate(parts)]
    third = build(renamed, tokenizer, tmp_path / "third", heldout_fraction=0.2)
    assert third.content_hash != first.content_hash
    for part in ("train", "heldout"):
        assert decoded(third, part, tokenizer) == decoded(first, part, tokenizer)


units = st.lists(st.tuples(st.integers(0, 12), st.integers(1, 50)), min_size=2, max_size=60)


@given(units, st.floats(0.01, 0.5), st.randoms())
@settings(deadline=None)
def test_hold_out_keeps_units_whole_and_both_parts_filled(
    pairs: list[tuple[int, int]], fraction: float, shuffler: random.Random
) -> None:
    def held(order: list[tuple[int, int]]) -> dict[int, bool]:
        hashes = np.array([corpus_module.hash64(f"{unit}") for unit, _ in order], dtype=np.uint64)
        chosen = hold_out(hashes, np.array([size for _, size in order]), fraction)
        sides = {unit: bool(side) for (unit, _), side in zip(order, chosen, strict=True)}
        assert [sides[unit] for unit, _ in order] == chosen.tolist()
        return sides

    if len({unit for unit, _ in pairs}) == 1:
        with pytest.raises(InvalidCorpus, match="only one"):
            held(pairs)
        return
    sides = held(pairs)
    assert set(sides.values()) == {True, False}
    assert held(shuffler.sample(pairs, len(pairs))) == sides


def test_a_dominant_group_is_not_held_out() -> None:
    for salt in range(20):
        hashes = np.array([corpus_module.hash64(f"{salt} {n}") for n in range(4)], dtype=np.uint64)
        assert not hold_out(hashes, np.array([900, 30, 40, 30]), 0.05)[0]


def test_a_lopsided_draw_is_ranked_instead() -> None:
    """By its hash of 1 the first unit is below any fraction, but it has nine tenths of the tokens."""
    chosen = hold_out(np.array([1, 2**62, 2**63], dtype=np.uint64), np.array([900, 50, 50]), 0.05)
    assert chosen.tolist() == [False, True, False]


def test_segments_against_brute_force(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    lines = [text for words in range(1, 40) for text in sentences(2, words, words)]
    lines += [f"fox {one} {two}" for one in WORDS[:5] for two in WORDS[5:9]]  # shorter than a crumb
    corpus = build([write(tmp_path / "a.txt", lines)], tokenizer, tmp_path / "corpus", heldout_fraction=0.3)
    for part in ("train", "heldout"):
        for length in (1, 2, 3, 4, 7, 16, 1000):
            expected = []
            for ids in getattr(corpus, part):
                cut = [ids[start : start + length].tolist() for start in range(0, len(ids), length)]
                expected += [piece for n, piece in enumerate(cut) if n == 0 or len(piece) >= min(packed.CRUMB, length)]
            segments = corpus.segments(part, length)
            assert [segment.tolist() for segment in segments] == expected
            assert len(segments) == len(expected)
            assert np.shares_memory(segments[0], corpus.train.tokens) or part == "heldout"
    assert [list(ids) for ids in corpus.train[2:4]] == [list(corpus.train[2]), list(corpus.train[3])]


def test_reopening_and_rebuilding(tmp_path: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: Any) -> None:
    path, folder = write(tmp_path / "a.txt", sentences(50)), tmp_path / "deep" / "corpus"
    first = build([path], tokenizer, folder)
    loaded = Corpus.load(folder)
    assert loaded.meta == first.meta
    assert [list(ids) for ids in loaded.heldout] == [list(ids) for ids in first.heldout]

    runs: list[int] = []
    real = corpus_module.read
    monkeypatch.setattr(corpus_module, "read", lambda *args: runs.append(1) or real(*args))
    write(path, sentences(50))  # another time, the same bytes
    assert build([path], tokenizer, folder).content_hash == first.content_hash
    assert not runs
    assert len(build([path], tokenizer, folder, max_tokens=300).train.tokens) < len(first.train.tokens)
    write(path, sentences(51))
    assert build([path], tokenizer, folder).content_hash != first.content_hash
    assert len(runs) == 2
    changed = train_tokenizer(sentences(51), 300)
    assert build([path], changed, folder).meta["tokenizer"] != first.meta["tokenizer"]
    np.save(folder / "train.npy", np.zeros(3, dtype=np.int32))  # damaged: built again
    assert len(build([path], changed, folder).train) > 3
    assert len(runs) == 4
    assert {file.name for file in folder.parent.iterdir()} == {"corpus", ".corpus.lock"}


def test_max_tokens_stops_with_the_document_that_reaches_it(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    path = write(tmp_path / "a.txt", sentences(1500))
    corpus = build([path], tokenizer, tmp_path / "corpus", max_tokens=10_000)
    assert 10_000 <= sum(corpus.meta["tokens"].values()) < 10_000 + 20


def test_tiny_and_useless_input(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    path = write(tmp_path / "a.txt", sentences(19) + ["too short"] * 9)
    with pytest.raises(InvalidCorpus, match=r"only 19 distinct documents, .* at least 20"):
        build([path], tokenizer, tmp_path / "corpus")
    assert len(build([path], tokenizer, tmp_path / "corpus", minimum=2).heldout) >= 1
    with pytest.raises(InvalidCorpus, match="no usable text"):
        build([write(tmp_path / "b.txt", [""])], tokenizer, tmp_path / "none")
    assert not (tmp_path / "none").exists()
    with pytest.raises(InvalidConfig, match="heldout_fraction"):
        build([path], tokenizer, tmp_path / "none", heldout_fraction=0.0)
    with pytest.raises(InvalidCorpus, match="object is no fast tokenizer"):
        build([path], object(), tmp_path / "none")  # type: ignore[arg-type]


def test_a_trained_tokenizer(tmp_path: Path) -> None:
    lines = sentences(300)
    tokenizer = train_tokenizer(iter(lines), 400)
    assert tokenizer.backend_tokenizer.to_str() == train_tokenizer(lines, 400).backend_tokenizer.to_str()
    assert 261 < len(tokenizer) <= 400
    names = [tokenizer.pad_token, tokenizer.unk_token, tokenizer.cls_token, tokenizer.sep_token, tokenizer.mask_token]
    assert tokenizer.convert_tokens_to_ids(names) == [0, 1, 2, 3, 4]
    odd = "naïve 猫 \U0001f600 fox"
    ids = tokenizer(odd)["input_ids"]
    assert (ids[0], ids[-1]) == (2, 3)
    assert 1 not in ids
    assert tokenizer.decode(ids, skip_special_tokens=True).strip() == odd
    pair = tokenizer("a fox", "a dog")
    assert set(pair) == {"input_ids", "attention_mask"}
    assert [n for n, token in enumerate(pair["input_ids"]) if token == 3] == [
        len(tokenizer("a fox")["input_ids"]) - 1,
        len(pair["input_ids"]) - 1,
    ]
    tokenizer.save_pretrained(tmp_path)
    again = PreTrainedTokenizerFast.from_pretrained(tmp_path)
    assert again(odd)["input_ids"] == ids
    assert build([write(tmp_path / "a.txt", lines)], tokenizer, tmp_path / "corpus").train
    with pytest.raises(InvalidConfig, match="at least 261"):
        train_tokenizer(lines, 260)
    with pytest.raises(InvalidCorpus, match="no text"):
        train_tokenizer([], 400)


def test_importing_is_light() -> None:
    code = (
        "import sys, subarch.text.corpus, subarch.demo.docstrings\n"
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
