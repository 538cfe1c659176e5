"""A corpus on disk: damage, other versions, a full disk and a kill are noticed, and never leave half a corpus."""

from __future__ import annotations

import errno
import json
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from transformers import PreTrainedTokenizerFast

from documents import sentences, write
from subarch.errors import InvalidCorpus
from subarch.text import packed
from subarch.text.corpus import Corpus, build, train_tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(sentences(100), 300)


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
    monkeypatch.setattr(packed, "_save", failing(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(InvalidCorpus, match="disk is full"):
        build([path], tokenizer, folder)
    assert {file.name for file in folder.parent.iterdir()} == {".corpus.lock"}
    monkeypatch.setattr(packed, "_save", failing(OSError(errno.EIO, "Input/output error")))
    with pytest.raises(OSError, match="Input/output"):  # another error keeps its name
        build([path], tokenizer, folder)


def test_a_failed_write_keeps_its_error_number(tmp_path: Path) -> None:
    """np.save and ndarray.tofile lose it, and then a full disk could not be told from other errors."""
    code = (
        "import hashlib, resource, signal, numpy as np; from pathlib import Path\n"
        "from subarch.text.packed import _save\n"
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
        "from tokenizers import Tokenizer; from subarch import corpus\n"
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
    monkeypatch.setattr(packed, "_save", failing(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        build([write(path, sentences(60))], tokenizer, folder)
    assert Corpus.load(folder).content_hash == first.content_hash
