"""The model of latency: an exact law is recovered, a noisy one within its noise, and the stated error is true."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subarch.latency.model import TERMS, fit, spread, terms
from subarch.numbers.architecture import Inputs
from subarch.numbers.space import SearchSpace

SPACE = SearchSpace.load("minilm")
TABLE, INPUTS = SPACE.table, Inputs(30522, output=384)
# What each part costs the largest candidate, in ms: of the order of a real encoder's
PARTS = np.array([0.05, 0.02, 0.01, 0.3, 0.2, 0.5, 0.4, 2.0, 3.0, 0.2, 0.4])


def law(parts: np.ndarray) -> np.ndarray:
    columns = terms(TABLE, INPUTS)
    return columns @ (parts / columns.max(0))


def test_the_terms_by_hand() -> None:
    found = terms(np.array([[2, 4, 8, 16], [0, 0, 384, 0]]), INPUTS)
    weights = 2 * (4 * 64 + 2 * 8 * 16)
    assert len(TERMS) == found.shape[1]
    assert found[0] == pytest.approx([1, 8, 8 * 384, 2, 8, 16, 32, 128, 256, 4, weights**1.5])
    assert found[1] == pytest.approx([1, 384, 0, 0, 0, 0, 0, 0, 0, 0, 0])  # of that width nothing is mapped
    mapped = terms(np.array([[0, 0, 384, 0]]), replace(INPUTS, mapped=True))  # but from another encoder's vectors
    assert mapped[0] == pytest.approx([1, 384, 384 * 384, 0, 0, 0, 0, 0, 0, 0, 0])
    # Twice as many tokens are twice the work of each part that is done for each token
    whole, other = terms(np.array([[2, 4, 8, 16, 0], [2, 4, 8, 16, 500]]), INPUTS, {500: 2.0})
    assert whole == pytest.approx(found[0])
    assert other / whole == pytest.approx([1, 2, 1, 1, 1, 2, 2, 2, 2, 1, 1])


@settings(max_examples=25)
@given(st.lists(st.sampled_from([0.0, 0.1, 0.5, 1.0, 3.0]), min_size=len(TERMS) - 1, max_size=len(TERMS) - 1))
def test_an_exact_law_is_recovered_from_36_of_436(parts: list[float]) -> None:
    milliseconds = law(np.array([0.05, *parts]))
    rows = spread(TABLE, 36)
    model = fit(TABLE[rows], milliseconds[rows], INPUTS)
    assert model.predict(TABLE) == pytest.approx(milliseconds, rel=1e-6)
    assert model.p90_error < 1e-6


def test_a_noisy_law_is_recovered_within_the_noise_and_the_stated_error_is_the_true_one() -> None:
    noise, truth, rows = 0.05, law(PARTS), spread(TABLE, 36)
    rest = np.setdiff1d(np.arange(len(TABLE)), rows)
    stated, true, measured = [], [], []
    for seed in range(20):
        seen = truth * np.exp(noise * np.random.default_rng(seed).normal(size=len(truth)))
        model = fit(TABLE[rows], seen[rows], INPUTS)
        predicted = model.predict(TABLE)
        stated.append([model.median_error, model.p90_error])
        measured.append(np.percentile(np.abs(predicted[rest] / seen[rest] - 1), [50, 90]))
        true.append(np.median(np.abs(predicted[rest] / truth[rest] - 1)))
    # 11 parts from 36 points: the prediction is nearer to the truth than one more measurement would be
    assert np.mean(true) < noise * 0.6745
    assert np.mean(stated, 0) == pytest.approx(np.mean(measured, 0), rel=0.35)
    assert np.mean(stated, 0)[0] > 0.6745 * noise


def test_a_law_of_another_form_is_told_by_the_stated_error() -> None:
    rows, truth = spread(TABLE, 36), law(PARTS)
    bent = truth * np.where(TABLE[:, 1] == 6, 1.5, 1.0)  # numbers of heads of which one is slow
    assert fit(TABLE[rows], truth[rows], INPUTS).p90_error < 0.01
    assert fit(TABLE[rows], bent[rows], INPUTS).p90_error > 0.15


def test_more_work_never_takes_less_time() -> None:
    rng, rows = np.random.default_rng(0), spread(TABLE, 36)
    model = fit(TABLE[rows], rng.uniform(1, 10, len(rows)), Inputs(30522))  # even of noise alone
    small, large = TABLE[TABLE[:, 0] > 0], TABLE[TABLE[:, 0] > 0] + [1, 0, 64, 128]
    assert (model.predict(large) >= model.predict(small)).all()
    assert (model.predict(TABLE) >= 0).all()


@pytest.mark.parametrize("name", ["minilm", "paper", "demo"])
def test_what_is_measured_spans_the_space(name: str) -> None:
    table = SearchSpace.load(name).table
    rows = spread(table, 24)
    assert len(set(rows)) == 24
    assert rows == spread(table, 24)
    assert rows[:8] == spread(table, 8)
    chosen = table[rows]
    assert (chosen.max(0) == table.max(0)).all()
    assert (chosen.min(0) == table.min(0)).all()
    # every shape has a measured one nearby: no further than half the way along two axes
    ranks = np.column_stack([np.unique(column, return_inverse=True)[1] for column in table.T]).astype(float)
    ranks /= ranks.max(0).clip(1)
    assert np.sqrt(((ranks[:, None] - ranks[rows]) ** 2).sum(2)).min(1).max() <= np.sqrt(0.5)


def test_a_small_space_is_measured_whole() -> None:
    table = SearchSpace((1, 2), (2,), (8,), (8, 16)).table
    assert sorted(spread(table, 36)) == [0, 1, 2, 3]
    assert spread(table[:1], 36) == [0]
