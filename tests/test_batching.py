"""Training batches: all text once an epoch, within the budget, little padding, and resumed to the very same ones."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count, islice, takewhile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from subarch.errors import InvalidConfig, InvalidCorpus
from subarch.text import batches as batching
from subarch.text.batches import Budget, Packed, Source, Streamed, TrainingBatch, batches, by_length, pad, parts
from subarch.text.corpus import Segments
from tiny import tiny_sentences, tiny_tokenizer

SMALL = Budget(96, 24)
"""Holds 4 sequences of full length."""

Write = Callable[[Path, list[dict[str, Any]]], None]


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "BATCHES", 5)


def segments(sizes: NDArray[np.int64]) -> Segments:
    """Sequences of these sizes; all tokens differ, so that a sequence shows which one it is."""
    return Segments(np.arange(sizes.sum(), dtype=np.int32), np.cumsum(sizes) - sizes, sizes)


def some_sizes(number: int, longest: int, seed: int = 0) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(1, longest + 1, number)


PACKED = Packed(segments(some_sizes(211, 22)), seed=3)


def epochs(source: Source, budget: Budget, number: int, seed: int = 0) -> list[TrainingBatch]:
    return list(takewhile(lambda batch: batch.epoch < number, batches(source, budget, seed)))


def texts(found: list[TrainingBatch]) -> Counter[tuple[int, ...]]:
    return Counter(tuple(sequence.tolist()) for batch in found for sequence in batch.sequences)


def as_data(batch: TrainingBatch) -> Any:
    """What is trained on in a batch, comparable."""
    return batch.epoch, batch.rows.tolist(), [sequence.tolist() for sequence in batch.sequences], batch.sizes.tolist()


def interrupted(source: Source, budget: Budget, number: int, every: int) -> list[TrainingBatch]:
    """So many batches, begun anew `every` so many from the position behind the last one, as it comes back from JSON."""
    found: list[TrainingBatch] = []
    while len(found) < number:
        position = json.loads(json.dumps(found[-1].position)) if found else None
        found += islice(batches(source, budget, 0, position), every)
    return found[:number]


# Parts


@given(st.lists(st.integers(1, 60), min_size=1, max_size=40).map(sorted), st.data())
def test_parts_are_contiguous_not_empty_and_balanced(sizes: list[int], data: st.DataObject) -> None:
    number = data.draw(st.integers(1, len(sizes)))
    tokens = np.array(sizes)
    runs = parts(tokens, number)
    assert len(runs) == number
    assert [run.start for run in runs] == [0, *(run.stop for run in runs[:-1])]
    assert runs[-1].stop == len(sizes)
    assert all(run.start < run.stop for run in runs)
    assert all(abs(tokens[run].sum() - sum(sizes) / number) <= max(sizes) for run in runs)


@pytest.mark.parametrize("number", [1, 2, 3, 4, 6, 12])
def test_parts_of_equal_sequences_are_equal(number: int) -> None:
    assert {run.stop - run.start for run in parts(np.full(12, 7), number)} == {12 // number}


def test_too_few_sequences_for_the_parts() -> None:
    with pytest.raises(InvalidConfig, match=r"2 sequences cannot be split over 3 .* larger batch_tokens"):
        parts(np.array([5, 6]), 3)


# Batches


@given(st.lists(st.integers(1, 30), min_size=30, max_size=80), st.integers(24, 100), st.integers(0, 9))
def test_every_sequence_once_an_epoch_within_the_budget(sizes: list[int], tokens: int, seed: int) -> None:
    found = epochs(Packed(segments(np.array(sizes)), seed), budget := Budget(tokens, 24), 2)
    for epoch in (0, 1):
        rows = [int(row) for batch in found if batch.epoch == epoch for row in batch.rows]
        assert sorted(rows) == list(range(len(sizes)))
    for batch in found:
        assert [len(sequence) for sequence in batch.sequences] == [sizes[row] for row in batch.rows]
        assert batch.sizes.tolist() == [min(sizes[row] + 2, 24) for row in batch.rows]
        assert (np.diff(batch.sizes) >= 0).all()
        assert 0 < batch.sizes[-1] * len(batch) <= budget.tokens


def test_batches_are_nearly_full_and_hold_little_padding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    # Paragraphs as they are in documentation: log-normal, median 27 tokens, one of 20 cut at 126
    sizes = np.clip(np.random.default_rng(0).lognormal(3.3, 0.9, 40_000), 3, 126).astype(np.int64)
    found = epochs(Packed(segments(sizes), 0), Budget(8192, 128), 1)
    real = np.array([batch.sizes.sum() for batch in found])
    padded = np.array([batch.sizes[-1] * len(batch) for batch in found])
    assert 1 - real.sum() / padded.sum() < 0.03
    assert padded.mean() > 0.92 * 8192
    assert real.min() > 0.65 * 8192  # that of the shortest, whose lengths differ most
    # Lengths are mixed over the epoch, not ascending
    longest = [int(batch.sizes[-1]) for batch in found]
    assert abs(np.corrcoef(longest, np.arange(len(found)))[0, 1]) < 0.25


def test_seeds_decide_the_batches() -> None:
    def rows(source_seed: int, seed: int) -> list[list[int]]:
        source = Packed(PACKED.segments, source_seed)
        return [batch.rows.tolist() for batch in epochs(source, SMALL, 2, seed)]

    assert rows(3, 0) == rows(3, 0)
    assert rows(4, 0) != rows(3, 0)  # other chunks
    shuffled = rows(3, 1)
    assert shuffled != rows(3, 0)  # the same batches, in another order
    assert sorted(shuffled) == sorted(rows(3, 0))


def test_epochs_differ() -> None:
    first, second = ([b for b in epochs(PACKED, SMALL, 2) if b.epoch == epoch] for epoch in (0, 1))
    assert {tuple(sorted(batch.rows)) for batch in first} != {tuple(sorted(batch.rows)) for batch in second}


@given(st.integers(1, 40))
def test_a_packed_corpus_resumes_anywhere(every: int) -> None:
    whole = epochs(PACKED, SMALL, 2)
    assert len(whole) > 2 * 40
    again = interrupted(PACKED, SMALL, len(whole), every)
    assert [as_data(batch) for batch in again] == [as_data(batch) for batch in whole]
    assert [batch.position for batch in again] == [batch.position for batch in whole]


def test_a_corpus_of_less_than_a_batch() -> None:
    with pytest.raises(InvalidCorpus, match="45 tokens for training, less than one batch of 96"):
        next(batches(Packed(segments(np.array([20, 21])), 0), Budget(96, 24), 0))


def test_a_batch_that_holds_no_sequence() -> None:
    with pytest.raises(InvalidConfig, match="batch_tokens 20 holds no sequence of max_length 24"):
        next(batches(PACKED, Budget(20, 24), 0))


def test_a_prefix_takes_its_share_of_the_budget() -> None:
    assert Budget(96, 24, extra=5).sizes(segments(np.array([1, 18, 19, 20]))).tolist() == [6, 23, 24, 24]


# Streams


def write_jsonl(folder: Path, rows: list[dict[str, Any]]) -> None:
    for shard in range(3):
        lines = [json.dumps(row) + "\n" for row in rows[shard::3]]
        (folder / f"train-{shard}.jsonl").write_text("".join(lines), encoding="utf-8")


def write_parquet(folder: Path, rows: list[dict[str, Any]]) -> None:
    import pyarrow
    from pyarrow import parquet

    for shard in range(2):
        table = pyarrow.Table.from_pylist(rows[shard::2])
        parquet.write_table(table, folder / f"train-{shard}.parquet", row_group_size=17)


def stream(folder: Path, rows: list[dict[str, Any]], write: Write = write_jsonl, heldout: float = 0.2) -> Streamed:
    folder.mkdir(exist_ok=True)
    write(folder, rows)
    return Streamed(f"datasets:{folder}", "text", tiny_tokenizer(), heldout)


def records(number: int = 100, long: int = 10) -> list[dict[str, Any]]:
    """Sentences, every `long`th record a text of several of them, of more than one sequence."""
    sentences = iter(tiny_sentences(number * 2))
    return [{"text": " ".join(islice(sentences, 4 if at % long == 0 else 1)), "other": at} for at in range(number)]


def tokens_of(text: str) -> list[int]:
    return list(tiny_tokenizer()(text, add_special_tokens=False)["input_ids"])


@pytest.fixture(scope="module", params=[write_jsonl, write_parquet])
def streamed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Streamed:
    return stream(tmp_path_factory.mktemp("data") / "folder", records(), request.param)


@pytest.fixture(scope="module")
def all_streamed(streamed: Streamed) -> list[TrainingBatch]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batching, "BATCHES", 5)
        return epochs(streamed, SMALL, 3)


@pytest.mark.parametrize("every", [4, 11])
def test_a_stream_resumes_anywhere(streamed: Streamed, all_streamed: list[TrainingBatch], every: int) -> None:
    assert len(all_streamed) > 60
    # Within a chunk at first, then in later ones, other shards and other epochs. Positions name the same place in other
    # words (datasets goes on from the last whole piece of a file), so batches are compared
    again = interrupted(streamed, SMALL, len(all_streamed), every)
    assert [as_data(batch) for batch in again] == [as_data(batch) for batch in all_streamed]


def test_a_stream_gives_all_but_what_is_held_out_and_the_end(
    streamed: Streamed, all_streamed: list[TrainingBatch]
) -> None:
    room = SMALL.length - SMALL.extra
    expected: Counter[tuple[int, ...]] = Counter()
    for row in records():
        ids = tokens_of(row["text"])
        expected.update(tuple(ids[at : at + room]) for at in range(0, len(ids), room))
    held = Counter(tuple(sequence.tolist()) for sequence in streamed.held_out(SMALL, 10**6))
    first, second = (texts([batch for batch in all_streamed if batch.epoch == epoch]) for epoch in (0, 1))
    assert first == second
    assert 0.1 * expected.total() < held.total() < 0.35 * expected.total()
    assert set(first) <= set(expected) - set(held)
    missing = expected - held - first
    assert sum(len(sequence) + 2 for sequence in missing.elements()) < SMALL.tokens  # less than a batch
    assert max(map(len, first)) == room
    assert all(batch.sizes[-1] * len(batch) <= SMALL.tokens for batch in all_streamed)


def test_rows_name_sequences_of_a_stream_alike_in_each_epoch(all_streamed: list[TrainingBatch]) -> None:
    named: dict[int, set[tuple[int, ...]]] = {}
    for batch in all_streamed:
        for row, sequence in zip(batch.rows.tolist(), batch.sequences, strict=True):
            named.setdefault(row, set()).add(tuple(sequence.tolist()))
    assert sorted(named) == list(range(len(named)))
    assert {len(found) for found in named.values()} == {1}


def test_held_out_sequences_are_the_first_ones(streamed: Streamed) -> None:
    whole = [sequence.tolist() for sequence in streamed.held_out(SMALL, 10**6)]
    assert [sequence.tolist() for sequence in streamed.held_out(SMALL, 5)] == whole[:5]


def test_groups_stay_together(tmp_path: Path) -> None:
    sentences = tiny_sentences(240)
    rows = [{"text": text, "group": f"author {at % 12}"} for at, text in enumerate(sentences)]
    source = stream(tmp_path / "folder", rows)
    wide = Budget(96, 40)  # each sentence is one sequence
    group = {tuple(tokens_of(row["text"])): row["group"] for row in rows}
    held = {group[tuple(sequence.tolist())] for sequence in source.held_out(wide, 10**6)}
    trained = {group[sequence] for sequence in texts(epochs(source, wide, 1))}
    assert held
    assert not held & trained
    assert held | trained == set(group.values())


def test_a_stream_shorter_than_a_chunk_goes_on_for_ever(tmp_path: Path) -> None:
    source = stream(tmp_path / "folder", [{"text": text} for text in tiny_sentences(12)], heldout=0.0)
    found = list(islice(batches(source, Budget(160, 40), 0), 8))
    assert [batch.epoch for batch in found] == [0, 0, 1, 1, 2, 2, 3, 3]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": text} for text in tiny_sentences(2)], "less text than one batch of 96 tokens"),
        ([{"text": ""}, {"text": "too short"}], "less text than one batch of 96 tokens"),
        ([{"body": text} for text in tiny_sentences(30)], "no column 'text'; found: 'body'"),
    ],
)
def test_streams_that_cannot_be_used(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InvalidCorpus, match=message):
        next(batches(stream(tmp_path / "folder", rows), SMALL, 0))


def test_a_stream_that_is_not_there(tmp_path: Path) -> None:
    source = Streamed(f"datasets:{tmp_path}/nothing", "text", tiny_tokenizer())
    with pytest.raises(InvalidCorpus, match="nothing: cannot be loaded"):
        next(batches(source, SMALL, 0))


def test_a_stream_does_not_read_ahead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An endless data set: what is read is a chunk."""

    class Endless:
        read = 0

        def state_dict(self) -> dict[str, int]:
            return {"read": self.read}

        def __iter__(self) -> Iterator[dict[str, str]]:
            for number in count():
                self.read += 1
                yield {"text": f"the old boat number {number} takes a net"}

    endless = Endless()
    monkeypatch.setattr(batching, "streamed", lambda *_: endless)
    next(batches(Streamed("datasets:endless", "text", tiny_tokenizer(), 0.0), SMALL, 0))
    assert 5 * 96 / 16 <= endless.read <= 5 * 96 / 9


@given(
    st.lists(st.lists(st.integers(0, 99), max_size=6), min_size=1, max_size=9), st.integers(1, 4), st.integers(-1, 9)
)
def test_padding_by_length(rows: list[list[int]], size: int, filler: int) -> None:
    groups = by_length([len(row) for row in rows], size)
    assert np.concatenate(groups).tolist() == sorted(range(len(rows)), key=lambda row: len(rows[row]))
    assert [len(group) for group in groups[:-1]] == [size] * (len(groups) - 1)
    assert 1 <= len(groups[-1]) <= size
    for group in groups:
        ids, mask = pad([rows[row] for row in group], filler)
        assert ids.dtype == mask.dtype == np.int64
        assert ids.shape == mask.shape == (len(group), len(rows[group[-1]]))
        for row, given_ids, there in zip(group, ids, mask, strict=True):
            assert given_ids[there == 1].tolist() == rows[row]
            assert set(given_ids[there == 0].tolist()) <= {filler}
            assert there.tolist() == sorted(there.tolist(), reverse=True)
