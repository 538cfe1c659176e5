"""The teacher's outputs on disk: what is read is what it would say now, and nothing is computed twice."""

from __future__ import annotations

import multiprocessing
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from subarch.learning import targets
from subarch.learning.collate import Collator, Inputs
from subarch.learning.distill import Distiller, TeacherSide
from subarch.learning.targets import TargetCache, TargetStore
from subarch.models.student import Blueprint, Student
from subarch.models.teacher import Teacher
from subarch.numbers.architecture import Architecture
from subarch.text.corpus import Segments
from subarch.text.masking import Masker
from tiny import tiny_teacher

ROWS = 45
"""Of the corpus: 6 shards of 8 sequences, the last of 5."""
ALL = {"logits": 1.0, "embedding": 1.0, "hidden": 1.0, "relations": 1.0}
CLEAR = {"embedding": 1.0, "hidden": 1.0, "relations": 1.0}
KINDS = {"embedding", "logits", "state 2", "state 3"}
"""What ALL needs of a teacher of depth 3 with a student of depth 2."""


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "SHARD", 8)
    monkeypatch.setattr(targets, "BATCH", 3)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    return Teacher.load(tiny_teacher(tmp_path_factory.mktemp("teacher"), masked_lm=True))


def corpus() -> Segments:
    random = np.random.default_rng(2)
    sizes = random.integers(2, 17, ROWS)
    return Segments(random.integers(5, 90, sizes.sum()).astype(np.int32), np.cumsum(sizes) - sizes, sizes)


Make = Callable[..., TargetStore]


@pytest.fixture
def make(teacher: Teacher, tmp_path: Path) -> Make:
    def make(weights: dict[str, float] = ALL, **changes: Any) -> TargetStore:
        masked = "logits" in weights
        torch.manual_seed(0)
        student = Student(Architecture.parse("2-2-16-24"), Blueprint.of_teacher(teacher, masked, True))
        side = TeacherSide(teacher, Distiller(student, weights, teacher))
        collator = Collator(teacher.tokenizer, teacher.recipe, Masker(teacher.tokenizer) if masked else None, 0, 2)
        cache = TargetCache(
            changes.pop("folder", tmp_path / "kept"), teacher.fingerprint, changes.pop("text", "corpus")
        )
        given: dict[str, Any] = {"cache": cache, "side": side, "collator": collator, "segments": corpus()}
        return TargetStore(**given | {"top_k": 9, "temperature": 2.0} | changes)

    return make


@pytest.fixture
def passes(teacher: Teacher) -> Iterator[list[int]]:
    """The number of sequences in each forward pass of the teacher."""
    seen: list[int] = []
    hook = teacher.encoder.register_forward_pre_hook(
        lambda _module, _args, named: seen.append(len(named["input_ids"])), with_kwargs=True
    )
    yield seen
    hook.remove()


def quiet(_done: int, _total: int) -> None:
    pass


def written(store: TargetStore) -> set[str]:
    return {path.name for path in store.cache.folder.iterdir()}


def inputs_of(store: TargetStore, rows: NDArray[np.int64], masking: int = 0) -> Inputs:
    return store.collator([store.segments[row] for row in rows], rows, masking)


# One array a key


def tripled(calls: list[range]) -> Callable[[range], Tensor]:
    def compute(piece: range) -> Tensor:
        calls.append(piece)
        return torch.tensor([[3 * number] for number in piece])

    return compute


def cache_in(folder: Path, teacher: str = "teacher", text: str = "text") -> TargetCache:
    return TargetCache(folder, teacher, text)


def test_rows_are_computed_once_shard_by_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "SHARD", 16)
    calls: list[range] = []
    told: list[tuple[int, int]] = []
    cache = cache_in(tmp_path / "targets")
    first = cache.rows(("x",), 100, 20, tripled(calls), lambda done, total: told.append((done, total)))
    assert calls == [range(0, 16), range(16, 20)]
    assert told == [(16, 20), (20, 20)]
    assert first.tolist() == [[3 * number] for number in range(20)]
    before = {path: path.stat().st_mtime_ns for path in cache.folder.iterdir()}
    # a longer search adds to what a shorter one left
    more = cache.rows(("x",), 100, 1000, tripled(calls), quiet)
    assert calls[2:] == [range(at, min(at + 16, 100)) for at in range(16, 100, 16)]
    assert more.tolist() == [[3 * number] for number in range(100)]
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())
    count = len(calls)
    cache.rows(("x",), 100, 50, tripled(calls), quiet)
    cache_in(tmp_path / "targets").rows(("x",), 100, 100, tripled(calls), quiet)
    assert len(calls) == count


def test_teacher_text_and_settings_tell_answers_apart(tmp_path: Path) -> None:
    asked = [(cache_in(tmp_path), ("x",)), (cache_in(tmp_path, teacher="other"), ("x",))]
    asked += [(cache_in(tmp_path, text="other"), ("x",)), (cache_in(tmp_path), ("y",)), (cache_in(tmp_path), ("x", 1))]
    for number, (cache, settings) in enumerate(asked):
        cache.get(settings, lambda number=number: torch.tensor([number]))  # type: ignore[misc]
    for number, (cache, settings) in enumerate(asked):
        assert cache.get(settings, lambda: pytest.fail("computed again")).tolist() == [number]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64, torch.int64])
def test_what_is_kept_comes_back_as_it_was(tmp_path: Path, dtype: torch.dtype) -> None:
    values = torch.tensor([[0.1, -1e-3], [1.5, 2.0]]).to(dtype)
    if dtype.is_floating_point:
        values[0, 0] = -torch.inf  # choices that are not there
    cache = cache_in(tmp_path)
    computed, read = (cache.get(("x",), lambda: values) for _ in range(2))
    assert computed.dtype == read.dtype == dtype
    assert torch.equal(computed, values)
    assert torch.equal(read, values)


def test_a_computation_that_fails_leaves_the_shards_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "SHARD", 16)
    cache, calls = cache_in(tmp_path), list[range]()

    def fail(piece: range) -> Tensor:
        if piece.start == 32:
            raise KeyboardInterrupt
        return tripled(calls)(piece)

    with pytest.raises(KeyboardInterrupt):
        cache.rows(("x",), 100, 100, fail, quiet)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".safetensors"] * 2
    calls.clear()
    assert cache.rows(("x",), 100, 100, tripled(calls), quiet).shape == (100, 1)
    assert [piece.start for piece in calls] == [32, 48, 64, 80, 96]


def _slowly(folder: Path, barrier: Any, answers: Any) -> None:
    def compute(piece: range) -> Tensor:
        barrier.wait(20)  # both have found nothing, and compute
        time.sleep(0.01)
        return torch.tensor([[3 * number] for number in piece])

    answers.put(int(cache_in(folder).rows(("x",), 50, 50, compute, quiet).sum()))


def test_two_processes_may_compute_the_same_targets(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    barrier, answers = context.Barrier(2), context.SimpleQueue()
    processes = [context.Process(target=_slowly, args=(tmp_path / "t", barrier, answers)) for _ in range(2)]
    for process in processes:
        process.start()
    assert [answers.get(), answers.get()] == [3 * sum(range(50))] * 2
    for process in processes:
        process.join()
    assert sorted(path.suffix for path in (tmp_path / "t").iterdir()) == [".safetensors"] * 7


# The sequences of a pretraining


PICKED = np.array([7, 8, 44, 0, 23, 8])
"""At edges of shards, in no order, one twice."""


@pytest.mark.parametrize("weights", [ALL, CLEAR])
@pytest.mark.parametrize("masking", [0, 1])
def test_what_is_read_is_what_the_teacher_says(make: Make, weights: dict[str, float], masking: int) -> None:
    store = make(weights)
    for each in (0, 1) if "logits" in weights else (masking,):
        store.fill(each, quiet)
    inputs = inputs_of(store, PICKED, masking)
    live = store.side.live(inputs.ids, inputs.mask, inputs.where)
    kept = store.side.targets(store.read(masking, PICKED, inputs.ids.shape[1]))
    assert kept.keys() - {"top"} == live.keys() - {"logits"}
    close(kept["embedding"], live["embedding"])
    real = inputs.mask.bool()
    for name in ("hidden", "relations"):
        assert len(kept[name]) == len(live[name]) == {"hidden": 2, "relations": 3}[name]
        for own, theirs in zip(kept[name], live[name], strict=True):
            assert own.shape == theirs.shape
            close(own[real], theirs[real])
    if "logits" in weights:
        soft, tokens = (live["logits"] / 2.0).log_softmax(-1).topk(9)
        assert torch.equal(kept["top"][0], tokens)
        close(kept["top"][1], soft)
        other = store.read(1 - masking, PICKED, inputs.ids.shape[1])["state 3"]
        assert other.shape == kept["hidden"][1].shape
        assert not torch.allclose(other[real], kept["hidden"][1][real], atol=0.1)


def close(kept: Tensor, live: Tensor) -> None:
    """To 16 bits: 11 of them are the fraction, and the maps behind states add up some of their errors."""
    assert kept.dtype == live.dtype == torch.float32
    torch.testing.assert_close(kept, live, rtol=2e-3, atol=4e-3)


def test_all_tokens_are_kept_where_k_is_the_vocabulary(make: Make) -> None:
    store = make({"logits": 1.0}, top_k=10**6, temperature=0.5)
    store.fill(0, quiet)
    inputs = inputs_of(store, PICKED)
    tokens, soft = store.read(0, PICKED, 0)["top"]
    logits = store.side.live(inputs.ids, inputs.mask, inputs.where)["logits"]
    assert tokens.shape == logits.shape
    expected = (logits / 0.5).log_softmax(-1).gather(1, tokens)
    torch.testing.assert_close(soft, expected, rtol=1e-3, atol=2e-3)


def test_the_losses_of_cached_targets_are_those_of_live_ones(make: Make, teacher: Teacher) -> None:
    store = make(top_k=10**6)
    store.fill(0, quiet)
    torch.manual_seed(0)
    student = Student(Architecture.parse("2-2-16-24"), Blueprint.of_teacher(teacher, True, True)).eval()
    distiller = Distiller(student, ALL, teacher).eval()
    inputs = inputs_of(store, PICKED)
    given = {"ids": inputs.ids, "mask": inputs.mask, "where": inputs.where, "labels": inputs.labels}
    live = distiller(**given, targets=store.side.live(inputs.ids, inputs.mask, inputs.where))
    kept = distiller(**given, targets=store.side.targets(store.read(0, PICKED, inputs.ids.shape[1])))
    for name in ("loss", *ALL):
        assert kept[name].item() == pytest.approx(live[name].item(), rel=2e-3), name


def test_each_sequence_is_computed_once_for_all_kinds(make: Make, passes: list[int]) -> None:
    store = make()
    assert set(store.side.kinds) == KINDS
    reports: list[tuple[int, int]] = []
    store.fill(0, lambda done, total: reports.append((done, total)))
    assert sum(passes) == ROWS
    assert reports == [(at, 6) for at in range(1, 7)]
    assert len(written(store)) == 6 * len(KINDS)
    assert store.missing(0) == []
    assert store.missing(1) == list(range(6))
    store.fill(0, quiet)
    assert sum(passes) == ROWS  # nothing is left to do


def test_losses_share_what_they_have_in_common(make: Make, passes: list[int]) -> None:
    make({"relations": 1.0}).fill(0, quiet)
    first = written(make())
    both = make({"relations": 1.0, "hidden": 1.0})
    before = {path: path.stat().st_mtime_ns for path in both.cache.folder.iterdir()}
    both.fill(0, quiet)
    assert written(both) > first
    assert len(written(both)) == 2 * 6  # state 2 of the relations, and with it state 3 of the last layer
    assert {path: path.stat().st_mtime_ns for path in before} == before
    passes.clear()
    make({"hidden": 1.0}).fill(0, quiet)
    assert passes == []


def test_a_kill_costs_one_shard(make: Make, passes: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    store = make()
    save, calls = targets.save_tensors, [0]

    def deadly(tensors: dict[str, Tensor], path: Path) -> None:
        calls[0] += 1
        if calls[0] == 2 * len(KINDS) + 3:  # within the third shard
            raise KeyboardInterrupt
        save(tensors, path)

    monkeypatch.setattr(targets, "save_tensors", deadly)
    with pytest.raises(KeyboardInterrupt):
        store.fill(0, quiet)
    assert store.missing(0) == [2, 3, 4, 5]
    passes.clear()
    again = make()
    again.fill(0, quiet)
    assert sum(passes) == ROWS - 2 * 8
    assert again.missing(0) == []
    assert again.read(0, np.arange(ROWS), 20)["embedding"].shape == (ROWS, 32)


def test_what_was_written_in_part_is_not_taken_for_a_shard(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make()

    def full(_tensors: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        store.fill(0, quiet)
    assert written(store) == set()
    assert store.missing(0) == list(range(6))


def test_processes_fill_shares_that_are_a_whole(make: Make, passes: list[int]) -> None:
    alone = make(folder=make().cache.folder.with_name("alone"))
    alone.fill(0, quiet)
    passes.clear()
    reports: list[tuple[int, int]] = []
    first, second = make(), make()
    first.fill(0, lambda done, total: reports.append((done, total)), process=0, processes=2)
    assert first.missing(0) == [1, 3, 5]
    assert reports == [(1, 3), (2, 3), (3, 3)]
    assert sum(passes) == 3 * 8
    second.fill(0, quiet, process=1, processes=2)
    assert sum(passes) == ROWS
    assert first.missing(0) == []
    assert contents(first) == contents(alone)


def test_processes_fill_at_the_same_time(make: Make) -> None:
    stores = [make(), make()]
    workers = [threading.Thread(target=store.fill, args=(0, quiet, at, 2)) for at, store in enumerate(stores)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert stores[0].missing(0) == []
    alone = make(folder=make().cache.folder.with_name("alone"))
    alone.fill(0, quiet)
    assert contents(alone) == contents(stores[0])


def contents(store: TargetStore) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in store.cache.folder.iterdir()}


def test_a_file_is_named_by_all_that_it_depends_on(make: Make, teacher: Teacher, tmp_path: Path) -> None:
    clear, masked = make(CLEAR), make()
    other = Teacher.load(tiny_teacher(tmp_path / "other", masked_lm=True, seed=5))
    different = [
        masked.path("state 3", 1, 0),
        masked.path("state 3", 0, 1),
        masked.path("state 2", 0, 0),
        clear.path("state 3", 0, 0),
        make(text="another corpus").path("state 3", 0, 0),
        make(cache=replace(masked.cache, teacher=other.fingerprint)).path("state 3", 0, 0),
        make(collator=replace(masked.collator, seed=1)).path("state 3", 0, 0),
    ]
    assert len({masked.path("state 3", 0, 0), *different}) == 1 + len(different)
    # Of the logits k and τ count too; and of clear text no seed
    others = [make(top_k=8), make(temperature=1.0)]
    assert len({store.path("logits", 0, 0) for store in (masked, *others)}) == 3
    assert {store.path("state 3", 0, 0) for store in (masked, *others)} == {masked.path("state 3", 0, 0)}
    assert make(CLEAR, collator=replace(clear.collator, seed=1)).path("state 3", 0, 0) == clear.path("state 3", 0, 0)


def test_bytes_are_those_on_disk(make: Make) -> None:
    store = make()
    store.fill(0, quiet)
    rows = np.arange(ROWS)
    inputs = inputs_of(store, rows)
    expected = store.bytes_of({"ids": inputs.ids, "mask": inputs.mask, "where": inputs.where})
    assert inputs.where is not None
    tokens, masked = int(inputs.mask.sum()), len(inputs.where)
    assert expected == ROWS * 32 * 2 + 2 * tokens * 32 * 2 + masked * 9 * (2 + 4)
    # Headers and the ends of the sequences come on top, a kilobyte a file at most
    on_disk = sum(path.stat().st_size for path in store.cache.folder.iterdir())
    assert expected < on_disk < expected + 1024 * len(written(store))


def test_a_store_is_read_where_it_was_moved_to(make: Make, tmp_path: Path) -> None:
    store = make(CLEAR)
    store.fill(0, quiet)
    before = store.read(0, PICKED, 20)
    shutil.move(store.cache.folder, tmp_path / "elsewhere")
    after = make(CLEAR, folder=tmp_path / "elsewhere").read(0, PICKED, 20)
    assert all(torch.equal(after[kind], value) for kind, value in before.items())
