"""The benchmark of teachers of another tokenizer: its texts, its record of vectors, its losses. Nothing is trained."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet
import pytest
import torch
from benchmarks.studies.anisotropic import LOSSES, plain
from benchmarks.teacher_texts import PART, WORDS, record, write_texts
from benchmarks.teachers import cranfield

from subarch.text.vectors import RecordedVectors

MODULE = SimpleNamespace(bfloat16=lambda: None, float=lambda: None)


def stub(calls: list[int], stops_after: int = 10**6) -> Any:
    """A teacher whose vectors are the lengths of the texts, and which is killed after so many calls."""

    def embed_texts(texts: list[str]) -> torch.Tensor:
        if len(calls) == stops_after:
            raise KeyboardInterrupt
        calls.append(len(texts))
        return torch.tensor([[len(text), 1.0] for text in texts])

    return SimpleNamespace(embed_texts=embed_texts, encoder=MODULE)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    lines = [" ".join(f"word{n}x{i}" for i in range(150)) + "." for n in range(300)]
    (tmp_path / "corpus.txt").write_text("\n\n".join(lines), encoding="utf-8")
    return tmp_path / "corpus.txt"


def test_texts_are_short_distinct_and_grouped(corpus: Path, tmp_path: Path) -> None:
    write_texts([str(corpus)], 400, tmp_path / "texts.parquet")
    write_texts([str(corpus)], 400, tmp_path / "again.parquet")
    table = pyarrow.parquet.read_table(tmp_path / "texts.parquet")
    texts = table["text"].to_pylist()
    assert table.equals(pyarrow.parquet.read_table(tmp_path / "again.parquet"))
    assert len(set(texts)) == 400
    assert max(len(text.split()) for text in texts) in range(WORDS[-2] + 1, WORDS[-1] + 1)
    for text, group in zip(texts, table["group"].to_pylist(), strict=True):
        assert {word.split("x")[0] for word in text.split()} == {f"word{group}"}


def test_texts_that_are_scored_on_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "corpus.txt").write_text("A cat sat here.\n\nThe dog ran home.\n", encoding="utf-8")
    write_texts([str(tmp_path / "corpus.txt")], 10, tmp_path / "texts.parquet", without=["the dog  ran home"])
    assert pyarrow.parquet.read_table(tmp_path / "texts.parquet")["text"].to_pylist() == ["A cat sat here."]


def test_a_recording_goes_on_and_is_a_teacher(corpus: Path, tmp_path: Path) -> None:
    write_texts([str(corpus)], PART + 50, tmp_path / "texts.parquet")
    with pytest.raises(KeyboardInterrupt):
        record(stub([], stops_after=2), tmp_path / "texts.parquet", tmp_path / "vectors.parquet")
    calls: list[int] = []
    least = record(stub(calls), tmp_path / "texts.parquet", tmp_path / "vectors.parquet")
    assert calls == [64, 50]  # in fp32, and the part that was missing
    assert least == pytest.approx(1, abs=1e-6)
    vectors = RecordedVectors.load(tmp_path / "vectors.parquet")
    assert vectors.embed_texts(vectors.texts[-1:])[0, 0] == len(vectors.texts[-1])


def test_losses_vanish_at_the_teacher_and_only_there() -> None:
    torch.manual_seed(0)
    theirs = torch.randn(6, 4) + 3
    mean = torch.nn.functional.normalize(theirs, dim=1).mean(0)
    for loss in LOSSES.values():
        assert float(loss(2 * theirs, theirs, mean)) == pytest.approx(0, abs=1e-5)
        assert float(loss(theirs.roll(1, 0), theirs, mean)) > 0.01
    # An anisotropic teacher: all that differs is little of the plain loss, and half of the centred one or more
    shifted = theirs.roll(1, 0)
    assert float(LOSSES["centred"](shifted, theirs, mean)) > 5 * float(plain(shifted, theirs, mean))


def test_cranfield_is_read_with_titles(tmp_path: Path) -> None:
    (tmp_path / "qrels").mkdir()
    rows = [{"_id": "7", "title": "On wings", "text": "They lift."}, {"_id": "8", "title": "", "text": "Nothing."}]
    (tmp_path / "corpus.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    (tmp_path / "queries.jsonl").write_text(json.dumps({"_id": "1", "text": "lift?"}), encoding="utf-8")
    judged = "query-id\tcorpus-id\tscore\n1\t7\t1\n1\t8\t0\n"
    (tmp_path / "qrels" / "test.tsv").write_text(judged, encoding="utf-8")
    documents = {"7": "On wings They lift.", "8": "Nothing."}
    assert cranfield(tmp_path) == ({"1": "lift?"}, documents, {"1": {"7"}})
