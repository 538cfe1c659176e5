"""Intervals of latencies: they hold what they promise, whatever the distribution, and tell sides of a limit apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import binom

from subarch.errors import UnsteadyClock
from subarch.extraction.verify import _doubt, _order_statistics
from subarch.latency.interval import TAIL, doubt, interval, side, tail
from subarch.latency.measuring import Watch, joined
from subarch.latency.timing import visit
from subarch.run.records import Measured


def test_by_hand() -> None:
    visits = [5.8, 5.7, 5.9, 6.3, 5.8, 5.6, 5.8, 5.7, 5.9, 5.8, 8.1, 5.7]
    assert interval(visits) == (5.7, 6.3)
    assert interval(visits[:7]) == (0.0, math.inf)
    assert tail(12) == pytest.approx(13 / 2**12)
    assert tail(7) == 0.0
    assert doubt((12, 24)) == pytest.approx(tail(12) + tail(36))
    assert [side((1, 2), limit) for limit in ((2, 3), (0.5, 0.9), (1.5, 1.5), (0.9, 1.0))] == [
        "within",
        "over",
        "open",
        "open",
    ]


@pytest.mark.parametrize("count", [1, 8, 12, 13, 36, 60, 84])
def test_as_the_binomial_distribution_has_it_and_as_they_are_verified(count: int) -> None:
    visits = tuple(np.random.default_rng(count).permutation(count) + 1.0)
    below = [k for k in range(count) if binom.cdf(k, count, 0.5) <= TAIL]
    assert interval(visits) == _order_statistics(visits)
    if below:
        assert interval(visits) == (1.0 + below[-1], count - below[-1])
        assert tail(count) == pytest.approx(binom.cdf(below[-1], count, 0.5))
    assert _doubt((count, 24)) == pytest.approx(doubt((count, 24)))


@pytest.mark.parametrize("shape", ["normal", "long tail", "two speeds"])
def test_the_true_median_lies_inside_as_often_as_is_said(shape: str) -> None:
    rng, tries = np.random.default_rng(0), 4000
    drawn = {
        "normal": rng.normal(10, 1, (tries, 12)) - 10,
        "long tail": np.exp(rng.standard_cauchy((tries, 12)).clip(-20, 20)) - 1,
        "two speeds": np.where(rng.random((tries, 12)) < 0.4, rng.uniform(5, 9, (tries, 12)), 0.0)
        + rng.uniform(0, 1, (tries, 12))
        - 5 / 6,  # half of all visits are of the three fifths below this
    }[shape]
    outside = [(low > 0) or (high < 0) for low, high in map(interval, drawn.tolist())]
    assert np.mean(outside) <= 2 * tail(12) + 3 * math.sqrt(2 * tail(12) / tries)
    assert np.mean(outside) > 0


def test_a_clock_that_is_set_back_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for second, message in ((9e6, "took -1 ms"), (1e7, "took 0 ms")):
        times = iter([1e7, second])
        monkeypatch.setattr("subarch.latency.timing.time.perf_counter_ns", lambda times=times: next(times))
        with pytest.raises(UnsteadyClock, match=f"{message}.*measure again"):
            visit(lambda: None)


def test_a_clock_that_jumps_ahead_moves_neither_median_nor_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    def timed(jump: int) -> list[float]:
        now, calls = 0, 0

        def clock() -> int:
            nonlocal now, calls
            now, calls = now + 1_000_000 + 10_000 * calls, calls + 1
            return now + (3600 * 10**9 if calls > jump else 0)

        monkeypatch.setattr("subarch.latency.timing.time.perf_counter_ns", clock)
        return [float(np.median(visit(lambda: None, passes=1))) for _ in range(12)]

    without, ahead = timed(10**6), timed(9)
    assert max(ahead) > 3.6e6 > max(without)
    assert np.median(ahead) == pytest.approx(np.median(without), rel=0.05)
    assert interval(ahead)[1] < 2 * interval(without)[1]


def test_what_is_measured_again_is_added() -> None:
    def measured(visits: tuple[float, ...], drift: float, others: float | None) -> Measured:
        return Measured(
            median_ms=float(np.median(visits)),
            visits=visits,
            blocks=(len(visits),),
            passes=4 * len(visits),
            measured=f"{drift}",
            drift=drift,
            others=others,
        )

    both = joined(measured((1.0, 3.0), 0.7, None), measured((2.0, 2.5, 9.0), 1.1, 0.5))
    assert both == Measured(
        median_ms=2.5,
        visits=(1.0, 3.0, 2.0, 2.5, 9.0),
        blocks=(2, 3),
        passes=20,
        measured="1.1",
        drift=0.7,
        others=0.5,
    )
    assert joined(both, measured((1.0,), 1.0, 1.5)).others == 1.5


def test_what_other_programs_took_is_what_this_one_did_not(monkeypatch: pytest.MonkeyPatch) -> None:
    states = iter([(0.0, 100.0, 5.0), (10.0, 125.0, 14.0), (0.0, 0.0, 0.0), (0.1, 0.2, 0.0)])
    monkeypatch.setattr(Watch, "_now", lambda self: next(states))
    with Watch() as watch:
        pass
    assert watch.others == pytest.approx(1.6)
    with Watch() as watch:  # too short to tell
        pass
    assert watch.others is None
