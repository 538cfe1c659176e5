"""Corpus: deduplicated, held out by group, the tokenizer's own tokens, and safe on disk whatever interrupts it."""

from __future__ import annotations

import errno
import json
import random
import resource
import subprocess
import sys
from collections.abc import Callable
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
from subarch.text.corpus import CRUMB, Corpus, build, hold_out, own_tokenizer, train_tokenizer


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
    total = sum(corpus.meta.tokens.values())
    assert total == len(corpus.train.tokens) + len(corpus.heldout.tokens)
    assert calls[-1] == (total, "tokens")
    assert len(calls) == 3
    assert sum(corpus.meta.documents.values()) == len(corpus.train) + len(corpus.heldout) == 1201
    assert corpus.train.tokens.dtype == np.int32
    assert isinstance(corpus.train.tokens, np.memmap)
    assert 0.02 < corpus.meta.tokens["heldout"] / total < 0.09


def test_duplicates_go_also_across_the_split(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    lines = sentences(200)
    plain = build([write(tmp_path / "a.txt", lines)], tokenizer, tmp_path / "plain", heldout_fraction=0.4)
    copies = [line.upper().replace(" ", ",  ") + "!" for line in lines]
    noisy = build([write(tmp_path / "b.txt", lines + copies)], tokenizer, tmp_path / "noisy", heldout_fraction=0.4)
    assert noisy.meta.duplicates == 200
    assert noisy.content_hash == plain.content_hash
    train, heldout = (decoded(noisy, part, tokenizer) for part in ("train", "heldout"))
    assert not train & heldout
    assert len(train) + len(heldout) == 200


def test_whole_groups_are_held_out(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [(text, f"package{n % 9}") for n, text in enumerate(sentences(300))]
    corpus = build([records(tmp_path / "a.jsonl", rows)], tokenizer, tmp_path / "corpus", heldout_fraction=0.3)
    held = set(corpus.meta.heldout_groups)
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
                expected += [piece for n, piece in enumerate(cut) if n == 0 or len(piece) >= min(CRUMB, length)]
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
    real = corpus_module.documents
    monkeypatch.setattr(corpus_module, "documents", lambda *args: runs.append(1) or real(*args))
    write(path, sentences(50))  # another time, the same bytes
    assert build([path], tokenizer, folder).content_hash == first.content_hash
    assert not runs
    assert len(build([path], tokenizer, folder, max_tokens=300).train.tokens) < len(first.train.tokens)
    write(path, sentences(51))
    assert build([path], tokenizer, folder).content_hash != first.content_hash
    assert len(runs) == 2
    changed = train_tokenizer(sentences(51), 300)
    assert build([path], changed, folder).meta.tokenizer != first.meta.tokenizer
    np.save(folder / "train.npy", np.zeros(3, dtype=np.int32))  # damaged: built again
    assert len(build([path], changed, folder).train) > 3
    assert len(runs) == 4
    assert {file.name for file in folder.parent.iterdir()} == {"corpus", ".corpus.lock"}


def test_a_trained_tokenizer_follows_its_corpus(tmp_path: Path) -> None:
    path, folder = write(tmp_path / "a.txt", sentences(50)), tmp_path / "run" / "tokenizer"
    first = own_tokenizer([path], "text", 300, folder)
    written = (folder / "tokenizer.json").stat().st_mtime_ns
    assert own_tokenizer(path, "text", 300, folder).get_vocab() == first.get_vocab()  # type: ignore[arg-type]
    assert (folder / "tokenizer.json").stat().st_mtime_ns == written
    assert len(own_tokenizer([path], "text", 290, folder)) == 290
    write(path, ["zebra zebra zebras zebra"] * 300)
    assert "\u0120zebra" in own_tokenizer([path], "text", 290, folder).get_vocab()
    assert {file.name for file in folder.parent.iterdir()} == {"tokenizer", ".tokenizer.lock"}


def test_what_was_skipped_is_said(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    write(tmp_path / "set" / "a.txt", sentences(50))
    corpus = build([tmp_path / "set"], tokenizer, tmp_path / "corpus")
    assert corpus.meta.read == (str(tmp_path / "set"),)
    write(tmp_path / "set" / "page.html", ["<p>one two three</p>"])
    for _ in range(2):  # also when nothing has to be built
        with pytest.warns(UserWarning, match=r"read 1 file \(a\.txt\); skipped 1 \(page\.html: "):
            again = build([tmp_path / "set"], tokenizer, tmp_path / "corpus")
    assert again.content_hash == corpus.content_hash
    (tmp_path / "set" / "more.jsonl").write_text("".join(f'{{"text": "{text}"}}\n' for text in sentences(9, seed=1)))
    with pytest.warns(UserWarning, match="skipped"):
        assert build([tmp_path / "set"], tokenizer, tmp_path / "corpus").content_hash != corpus.content_hash


def test_max_tokens_stops_with_the_document_that_reaches_it(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    path = write(tmp_path / "a.txt", sentences(1500))
    corpus = build([path], tokenizer, tmp_path / "corpus", max_tokens=10_000)
    assert 10_000 <= sum(corpus.meta.tokens.values()) < 10_000 + 20


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


# --- on disk: damage, other versions, a full disk and a kill are noticed, and never leave half a corpus ---


@pytest.mark.parametrize("missing", ["train.npy", "heldout.offsets.npy", "corpus.json"])
def test_a_damaged_folder_is_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerFast, missing: str) -> None:
    folder = build([write(tmp_path / "a.txt", sentences(50))], tokenizer, tmp_path / "corpus").folder
    (folder / missing).write_bytes((folder / missing).read_bytes()[:-50])
    with pytest.raises(InvalidCorpus, match="build it again"):
        Corpus.load(folder)
    (folder / missing).unlink()
    with pytest.raises(InvalidCorpus, match="build it again"):
        Corpus.load(folder)


def test_another_version_is_refused(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    folder = build([write(tmp_path / "a.txt", sentences(50))], tokenizer, tmp_path / "corpus").folder
    meta = json.loads((folder / "corpus.json").read_text())
    (folder / "corpus.json").write_text(json.dumps(meta | {"format": 99}))
    with pytest.raises(InvalidCorpus, match="format 99"):
        Corpus.load(folder)


def test_a_folder_that_is_no_corpus_is_never_overwritten(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    path = write(tmp_path / "home" / "a.txt", sentences(50))
    for folder in (path.parent, path):
        with pytest.raises(InvalidCorpus, match="no corpus"):
            build([path], tokenizer, folder)
    assert path.read_text().startswith("number0x0")


def failing(error: BaseException) -> Callable[..., Any]:
    def fail(*_: Any) -> Any:
        raise error

    return fail


def test_a_full_disk_leaves_nothing(tmp_path: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: Any) -> None:
    path, folder = write(tmp_path / "a.txt", sentences(50)), tmp_path / "out" / "corpus"
    monkeypatch.setattr(corpus_module, "_save", failing(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(InvalidCorpus, match="disk is full"):
        build([path], tokenizer, folder)
    assert {file.name for file in folder.parent.iterdir()} == {".corpus.lock"}
    monkeypatch.setattr(corpus_module, "_save", failing(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match="Input/output"):  # another error keeps its name
        build([path], tokenizer, folder)


def test_a_failed_write_keeps_its_error_number(tmp_path: Path) -> None:
    """np.save and ndarray.tofile lose it, and then a full disk could not be told from other errors."""
    code = (
        "import hashlib, resource, signal, numpy as np\n"
        "from pathlib import Path; from subarch.text.corpus import _save\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (4096, {resource.getrlimit(resource.RLIMIT_FSIZE)[1]}))\n"
        f"try: _save(Path({str(tmp_path / 'x.npy')!r}), '<i4', 99999, [np.zeros(99999, 'i4')], hashlib.sha256())\n"
        "except OSError as error: print(error.errno)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(run.stdout) == errno.EFBIG


def test_a_kill_leaves_no_half_corpus(tmp_path: Path, tokenizer: PreTrainedTokenizerFast, monkeypatch: Any) -> None:
    path, folder = write(tmp_path / "a.txt", sentences(50)), tmp_path / "corpus"
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    code = (
        "import os, signal; from pathlib import Path\n"
        "from tokenizers import Tokenizer; from subarch.text import corpus\n"
        f"t = Tokenizer.from_file({str(tmp_path / 'tokenizer' / 'tokenizer.json')!r})\n"
        f"kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"corpus.build([{str(path)!r}], t, Path({str(folder)!r}), progress=kill)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    assert not folder.exists()
    assert (tmp_path / ".corpus.partial").exists()
    first = build([path], tokenizer, folder)
    assert not (tmp_path / ".corpus.partial").exists()
    with monkeypatch.context() as patch:  # the folder appears by one rename
        patch.setattr(Path, "rename", failing(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            build([path], tokenizer, tmp_path / "other")
    assert not [file for file in tmp_path.iterdir() if "other" in file.name and file.name != ".other.lock"]
    # an interrupted replacement keeps the old corpus
    monkeypatch.setattr(corpus_module, "_save", failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        build([write(path, sentences(60))], tokenizer, folder)
    assert Corpus.load(folder).content_hash == first.content_hash


def test_importing_is_light() -> None:
    code = (
        "import sys, subarch.text.corpus, subarch.demo.docstrings\n"
        "assert not {'torch', 'transformers', 'datasets'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
