"""Batches as tensors: what is masked and where, and that the parts of a batch are the batch, however it is divided."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from subarch.errors import InvalidConfig
from subarch.learning.collate import Collator, Inputs, Loader
from subarch.models.sentence import Recipe
from subarch.models.teacher import assemble
from subarch.text.batches import Budget, Packed, batches
from subarch.text.corpus import Segments
from subarch.text.masking import Masker
from tiny import tiny_tokenizer

TOKENIZER = tiny_tokenizer()
LENGTH = 24
PREFIX = "the old boat "
UNITS = {"sequences", "tokens", "masked"}


def corpus(number: int = 90, longest: int = 30) -> Segments:
    """Random ordinary tokens; some sequences do not fit into LENGTH."""
    random = np.random.default_rng(0)
    sizes = random.integers(1, longest, number)
    tokens = random.integers(5, len(TOKENIZER), sizes.sum()).astype(np.int32)
    return Segments(tokens, np.cumsum(sizes) - sizes, sizes)


CORPUS = corpus()


def collator(masked: bool = True, prefix: str = "", maskings: int = 0, seed: int = 0) -> Collator:
    recipe = Recipe(prefix=prefix, max_length=LENGTH)
    return Collator(TOKENIZER, recipe, Masker(TOKENIZER) if masked else None, seed, maskings)


def collate(collator: Collator, rows: list[int], epoch: int = 0) -> Inputs:
    return collator([CORPUS[row] for row in rows], np.array(rows), epoch)


def unmasked(inputs: Inputs) -> torch.Tensor:
    """The ids with the true tokens back in their places."""
    assert inputs.where is not None
    assert inputs.labels is not None
    ids = inputs.ids.clone()
    ids.view(-1)[inputs.where] = inputs.labels
    return ids


def by_row(inputs: Inputs, rows: list[int]) -> dict[int, list[int]]:
    """The masked sequence of each row, without padding."""
    return {row: ids[mask.bool()].tolist() for row, ids, mask in zip(rows, inputs.ids, inputs.mask, strict=True)}


@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_without_masks_a_batch_is_the_teachers(prefix: str) -> None:
    found = collate(collator(masked=False, prefix=prefix), [3, 5, 8])
    expected = assemble([CORPUS[row] for row in (3, 5, 8)], TOKENIZER, Recipe(prefix=prefix, max_length=LENGTH))
    assert torch.equal(found.ids, expected.ids)
    assert torch.equal(found.mask, expected.mask)
    assert found.where is None
    assert found.labels is None


@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_labels_are_the_tokens_that_were_there(prefix: str) -> None:
    rows = list(range(len(CORPUS)))
    found, clear = collate(collator(prefix=prefix), rows), collate(collator(masked=False, prefix=prefix), rows)
    assert torch.equal(unmasked(found), clear.ids)
    assert torch.equal(found.mask, clear.mask)
    where = found.where
    assert where is not None
    assert (where.diff() > 0).all()
    # At least one a sequence, 15 % on the whole, and 80 % of these are hidden
    at = torch.zeros(clear.ids.numel(), dtype=torch.bool)
    at[where] = True
    chosen = at.view(clear.ids.shape)
    assert chosen.any(1).all()
    assert not chosen[found.ids == clear.ids].all()
    assert 0.1 < chosen.sum() / clear.mask.sum() < 0.25
    assert 0.7 < (found.ids.view(-1)[where] == TOKENIZER.mask_token_id).float().mean() < 0.9
    # Only text is masked: not what opens, precedes or closes it, and no padding
    extra = 2 if not prefix else 2 + len(TOKENIZER(prefix, add_special_tokens=False)["input_ids"])
    assert not chosen[:, : extra - 1].any()
    ends = clear.mask.sum(1) - 1
    assert not chosen[torch.arange(len(rows)), ends].any()
    assert not chosen[clear.mask == 0].any()


def test_extra_tokens_are_those_that_are_added() -> None:
    for prefix, extra in (("", 2), (PREFIX, 5)):
        one = collator(masked=False, prefix=prefix)
        assert one.extra == extra
        sizes = Budget(96, LENGTH, one.extra).sizes(CORPUS)
        assert collate(one, list(range(len(CORPUS)))).mask.sum(1).tolist() == sizes.tolist()


def test_a_mask_depends_on_seed_masking_and_row_only() -> None:
    alone = {row: by_row(collate(collator(), [row]), [row])[row] for row in range(20)}
    for rows in ([4, 7, 1], list(range(19, -1, -1))):  # other neighbours, another order, other padding
        assert by_row(collate(collator(), rows), rows) == {row: alone[row] for row in rows}
    rows = list(range(20))
    assert by_row(collate(collator(), rows, epoch=1), rows) != alone
    assert by_row(collate(collator(seed=1), rows), rows) != alone
    same_text = [CORPUS[11]] * 12  # the row, not the text
    found = collator()(same_text, np.arange(12), 0)
    assert len({tuple(ids) for ids in found.ids.tolist()}) > 6


def test_maskings_are_used_in_turn() -> None:
    rows = list(range(30))
    three = [by_row(collate(collator(maskings=3), rows, epoch), rows) for epoch in range(6)]
    assert three[:3] == three[3:]
    fresh = [by_row(collate(collator(), rows, epoch), rows) for epoch in range(6)]
    assert fresh[:3] == three[:3]
    assert all(one != other for at, one in enumerate(fresh) for other in fresh[:at])


def test_counts_by_unit() -> None:
    found = collate(collator(), [2, 9])
    assert found.where is not None
    sizes = [min(len(CORPUS[row]) + 2, LENGTH) for row in (2, 9)]
    assert [found.count(unit) for unit in ("sequences", "tokens", "masked")] == [2, sum(sizes), len(found.where)]


# The parts of a batch

BUDGET = Budget(192, LENGTH)


def show_rows(epoch: int, rows: NDArray[np.int64], length: int) -> dict[str, Any]:
    """In place of the teacher's outputs: what is asked for."""
    return {"epoch": epoch, "rows": rows.tolist(), "length": length}


def loaded(number: int, processes: int = 1, accumulation: int = 1, **changes: Any) -> list[list[dict[str, Any]]]:
    """The parts of each of `number` batches, of all processes."""
    options: dict[str, Any] = {"processes": processes, "accumulation": accumulation, "cached": show_rows} | changes
    own = [
        list(islice(Loader(Packed(CORPUS, 0), BUDGET, collator(), process=process, **options), number * accumulation))
        for process in range(processes)
    ]
    steps = range(0, number * accumulation, accumulation)
    return [[part for parts in own for part in parts[step : step + accumulation]] for step in steps]


@pytest.mark.parametrize(("processes", "accumulation"), [(1, 1), (2, 1), (1, 3), (2, 2)])
def test_parts_are_the_batch_however_it_is_divided(processes: int, accumulation: int) -> None:
    budget = Budget(BUDGET.tokens, LENGTH, 2)
    whole = list(islice(batches(Packed(CORPUS, 0), budget, 0), 12))
    assert {batch.epoch for batch in whole} == {0, 1}
    for batch, parts in zip(whole, loaded(12, processes, accumulation), strict=True):
        assert len(parts) == processes * accumulation
        assert sorted(row for part in parts for row in part["cached"]["rows"]) == sorted(batch.rows.tolist())
        for part in parts:
            rows = part["cached"]["rows"]
            inputs = Inputs(part["ids"], part["mask"], part["where"], part["labels"])
            assert by_row(inputs, rows) == by_row(collate(collator(), rows, batch.epoch), rows)
            assert torch.equal(unmasked(inputs), collate(collator(masked=False), rows).ids)
            assert part["cached"]["epoch"] == batch.epoch
            assert part["cached"]["length"] == part["ids"].shape[1]
            assert part["position"] == batch.position
            assert part["sizes"] == (int(part["mask"].sum()), part["ids"].numel())
            assert set(part["shares"]) == UNITS
            totals = {unit: sum(count_of(other, unit) for other in parts) for unit in UNITS}
            assert part["shares"] == pytest.approx({unit: count_of(part, unit) / totals[unit] for unit in UNITS})
        for unit in UNITS:
            assert sum(part["shares"][unit] for part in parts) == pytest.approx(1.0, abs=1e-12)
        assert sum(part["sizes"][1] for part in parts) <= BUDGET.tokens


def count_of(part: dict[str, Any], unit: str) -> int:
    return Inputs(part["ids"], part["mask"], part["where"], part["labels"]).count(unit)


def test_parts_are_about_equal() -> None:
    shares = [part["shares"]["tokens"] for parts in loaded(12, 2) for part in parts]
    assert min(shares) > 0.35


def test_a_loader_goes_on_behind_a_position() -> None:
    whole = loaded(9)
    again = loaded(4, position=whole[4][0]["position"])
    for before, after in zip(whole[5:], again, strict=True):
        assert torch.equal(before[0]["ids"], after[0]["ids"])
        assert before[0]["position"] == after[0]["position"]


def test_without_masks_and_cache_a_part_has_neither() -> None:
    part = next(iter(Loader(Packed(CORPUS, 0), BUDGET, collator(masked=False))))
    assert set(part) == {"ids", "mask", "shares", "position", "sizes"}
    assert part["shares"] == {"sequences": 1.0, "tokens": 1.0}


def test_a_prefix_keeps_within_the_budget() -> None:
    one = collator(prefix=PREFIX)
    for part in islice(Loader(Packed(CORPUS, 0), replace(BUDGET, extra=one.extra), one), 12):
        assert part["sizes"] == (int(part["mask"].sum()), part["ids"].numel())
        assert part["ids"].numel() <= BUDGET.tokens


def test_a_batch_of_too_few_sequences_for_the_processes() -> None:
    long = Segments(CORPUS.tokens, np.arange(20), np.full(20, 22))
    with pytest.raises(InvalidConfig, match="a batch of 2 sequences cannot be split over 4 forward passes"):
        next(iter(Loader(Packed(long, 0), Budget(48, LENGTH), collator(), processes=4)))
