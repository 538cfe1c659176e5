"""Lengths that stand for a corpus."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from subarch.errors import InvalidCorpus
from subarch.latency.lengths import quantiles_of


def test_by_hand() -> None:
    assert quantiles_of([30, 10, 20, 40], count=2) == (10, 30)
    assert quantiles_of([30, 10, 20, 40], count=4) == (10, 20, 30, 40)
    assert quantiles_of(range(1, 801)) == (50, 150, 250, 350, 450, 550, 650, 750)
    assert quantiles_of([7], count=3) == (7, 7, 7)


@given(st.lists(st.integers(1, 512), min_size=1, max_size=60), st.integers(1, 9))
def test_lengths_occur_ascend_and_halve_their_shares(lengths: list[int], count: int) -> None:
    found = quantiles_of(lengths, count)
    assert set(found) <= set(lengths)
    assert list(found) == sorted(found)
    for place, length in enumerate(found):
        middle = (place + 0.5) / count
        assert np.mean(np.array(lengths) < length) <= middle + 1e-9
        assert np.mean(np.array(lengths) <= length) >= middle - 1e-9


def test_without_text() -> None:
    with pytest.raises(InvalidCorpus, match="no text"):
        quantiles_of([])
