"""Latency: who is called when, what the clock says, and models that cost their shape but hardly any memory."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from subarch.errors import InvalidCorpus
from subarch.latency import timing
from subarch.latency.measuring import measure_models, torch_calls, untrained
from subarch.latency.timing import PASSES, Latency, measure, quantiles_of
from subarch.models.student import Blueprint, Student
from subarch.models.teacher import Teacher
from subarch.numbers.architecture import Architecture, Inputs
from tiny import WIDTH, tiny_teacher


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


class FakeClock:
    """Time passes only in the calls it makes; it is handed to the module in place of `time`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.order = 0, list[str]()
        monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter_ns=lambda: self.now))

    def call(self, name: str, milliseconds: Callable[[int], float]) -> Callable[[], object]:
        """A call that takes milliseconds(n) in its n-th run, counted from 0."""

        def run() -> None:
            self.now += round(1e6 * milliseconds(self.order.count(name)))
            self.order.append(name)

        return run


def test_candidates_take_turns_and_the_first_pass_of_a_visit_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, heard = FakeClock(monkeypatch), list[tuple[int, int]]()
    calls = {name: clock.call(name, lambda n: 1.0) for name in "abc"}
    result = measure(calls, rounds=2, on_round=lambda *progress: heard.append(progress))
    visit = PASSES + 1
    assert "".join(clock.order) == "abc" + ("a" * visit + "b" * visit + "c" * visit) * 2
    assert heard == [(1, 3), (2, 3), (3, 3)]
    assert list(result) == ["a", "b", "c"]
    assert all(figure.passes == 2 * PASSES for figure in result.values())


def test_median_and_quartiles_of_the_timed_passes_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, rounds, visit = FakeClock(monkeypatch), 3, PASSES + 1

    def warm_up(n: int) -> bool:
        return n == 0 or (n - 1) % visit == 0

    # a pass that is not to be timed takes a second; one of b's timed passes is an outlier
    calls = {
        "a": clock.call("a", lambda n: 1000.0 if warm_up(n) else 2.0 + n),
        "b": clock.call("b", lambda n: 1000.0 if warm_up(n) else (500.0 if n == 4 else 7.0)),
    }
    result = measure(calls, rounds)
    timed = [2.0 + n for n in range(1 + rounds * visit) if not warm_up(n)]
    assert len(timed) == rounds * PASSES
    first, median, third = statistics.quantiles(timed, n=4, method="inclusive")
    a, b = result["a"], result["b"]
    assert (a.q1_ms, a.median_ms, a.q3_ms) == pytest.approx((first, median, third))
    assert (b.q1_ms, b.median_ms, b.q3_ms) == (7.0, 7.0, 7.0)
    assert a.p95_ms == pytest.approx(statistics.quantiles(timed, n=20, method="inclusive")[-1])
    assert b.p95_ms == pytest.approx(
        7.0 + 0.45 * 493
    )  # between the greatest but one and the outlier, the 11th and 12th of 12


def test_the_mean_of_the_parts_of_a_call() -> None:
    whole = Latency(median_ms=8.0, q1_ms=6.0, q3_ms=10.0, p95_ms=12.0, passes=36)
    assert whole.per(4) == Latency(median_ms=2.0, q1_ms=1.5, q3_ms=2.5, p95_ms=3.0, passes=36)


def test_drift_hits_all_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that gets slower by the call: equal candidates stay within one visit of each other."""
    clock = FakeClock(monkeypatch)
    calls = {name: clock.call(name, lambda n: 1.0 + 0.01 * len(clock.order)) for name in "abcd"}
    result = measure(calls)
    medians = [figure.median_ms for figure in result.values()]
    per_visit = 0.01 * (PASSES + 1)
    assert np.diff(medians) == pytest.approx([per_visit] * 3, abs=1e-6)


def test_threads_are_those_asked_for_and_put_back() -> None:
    seen = []

    class Probe(nn.Module):
        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            seen.append(torch.get_num_threads())
            return ids

    torch.set_num_threads(1)
    found = measure_models({"a": Probe(), "b": Probe()}, 50, batch=1, length=4, threads=2, rounds=1)
    assert list(found) == ["a", "b"]
    assert seen == [2] * 2 * (PASSES + 2)
    assert torch.get_num_threads() == 1
    with pytest.raises(ZeroDivisionError), torch_calls({}, 50, batch=1, lengths=(4,), threads=2):
        raise ZeroDivisionError
    assert torch.get_num_threads() == 1


def test_a_call_is_one_pass_at_each_length_without_gradients_or_dropout() -> None:
    seen: list[tuple[Tensor, Tensor]] = []

    class Probe(nn.Module):
        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            assert torch.is_inference_mode_enabled()
            assert not self.training
            seen.append((ids, mask))
            return ids

    models = {name: Probe().train() for name in "ab"}
    with torch_calls(models, 50, batch=3, lengths=(8, 3), threads=1) as calls:
        for call in calls.values():
            call()
    (ids, mask), (shorter, shorter_mask), (again, _), (shorter_again, _) = seen
    assert ids.shape == mask.shape == (3, 8)
    assert shorter.shape == shorter_mask.shape == (3, 3)
    assert torch.equal(ids, again)  # all candidates get the same input
    assert torch.equal(shorter, shorter_again)
    assert int(ids.min()) >= 0
    assert int(ids.max()) < 50
    assert bool((mask == 1).all())


SHAPES = [Architecture.parse(shape) for shape in ("2-4-32-64", "1-4-32-64", "2-4-32-48", "2-2-16-64", "0-0-16-0")]


@pytest.fixture(scope="module", params=["bert", "roberta"])
def blueprint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Blueprint:
    return Blueprint.of_teacher(Teacher.load(tiny_teacher(tmp_path_factory.mktemp("t") / "t", family=request.param)))


def make(blueprint: Blueprint) -> Callable[[Architecture], Student]:
    return lambda architecture: Student(architecture, blueprint)


def outputs(student: Student, vocabulary: int, batch: int) -> Any:
    with torch_calls({"it": student}, vocabulary, batch, (8,), threads=1) as calls:
        return calls["it"]()


def shapes_of(student: Student) -> dict[str, Any]:
    return {name: (parameter.shape, parameter.dtype) for name, parameter in student.named_parameters()}


def test_untrained_students_have_real_shapes_and_run(blueprint: Blueprint) -> None:
    students = untrained(SHAPES, make(blueprint))
    assert list(students) == [str(shape) for shape in SHAPES]
    for shape in SHAPES:
        student, real = students[str(shape)], Student(shape, blueprint)
        assert shapes_of(student) == shapes_of(real)
        assert (student.projection is None) == (shape.hidden == WIDTH)
        for tensor in (*student.parameters(), *student.buffers()):
            assert tensor.device.type == "cpu"
        assert not student.training
        (output,) = outputs(student, 100, batch=2)
        assert isinstance(output, Tensor)
        assert output.shape == (2, WIDTH)
        assert bool(output.isfinite().all())


def test_buffers_hold_their_real_values(blueprint: Blueprint) -> None:
    """Positions and token types are looked up in them: nonsense there would read out of bounds."""
    student, real = untrained(SHAPES[:1], make(blueprint))[str(SHAPES[0])], Student(SHAPES[0], blueprint)
    expected = dict(real.named_buffers())
    assert expected
    assert {name: value.tolist() for name, value in student.named_buffers()} == {
        name: value.tolist() for name, value in expected.items()
    }


def test_equal_tensors_are_shared(blueprint: Blueprint) -> None:
    students = untrained(SHAPES, make(blueprint))
    places: dict[tuple[str, Any], set[int]] = {}
    for student in students.values():
        for name, parameter in student.named_parameters():
            places.setdefault((name, parameter.shape), set()).add(parameter.data_ptr())
    assert all(len(pointers) == 1 for pointers in places.values())
    pointers = [next(iter(place)) for place in places.values()]
    assert len(set(pointers)) == len(pointers)  # within one model no two weights are the same memory
    assert len(places) < sum(len(list(student.parameters())) for student in students.values())


def test_arbitrary_weights_are_of_ordinary_magnitude(blueprint: Blueprint) -> None:
    """Denormal numbers are slow."""
    for student in untrained(SHAPES, make(blueprint)).values():
        values = torch.cat([parameter.flatten() for parameter in student.parameters()])
        assert float((values.abs() > 1e-5).float().mean()) > 0.99
        assert float(values.abs().max()) < 1


def test_masked_lm_students_can_be_timed_too() -> None:
    blueprint = Blueprint("bert", Inputs(60, 16, 2), masked_lm=True, settings={"pad_token_id": 0})
    students = untrained([Architecture.parse("1-2-16-8"), Architecture.parse("2-2-16-8")], make(blueprint))
    for student in students.values():
        assert not any(tensor.is_meta for tensor in (*student.parameters(), *student.buffers()))
        assert not any(tensor.is_meta for tensor in student.state_dict().values())
        (output,) = outputs(student, 60, batch=1)
        assert isinstance(output, Tensor)
        assert output.shape == (1, 16)


def test_quantiles_of_lengths_by_hand() -> None:
    assert quantiles_of([30, 10, 20, 40], count=2) == (10, 30)
    assert quantiles_of([30, 10, 20, 40], count=4) == (10, 20, 30, 40)
    assert quantiles_of(range(1, 801)) == (50, 150, 250, 350, 450, 550, 650, 750)
    assert quantiles_of([7], count=3) == (7, 7, 7)


@given(st.lists(st.integers(1, 512), min_size=1, max_size=60), st.integers(1, 9))
def test_quantiles_occur_ascend_and_halve_their_shares(lengths: list[int], count: int) -> None:
    found = quantiles_of(lengths, count)
    assert set(found) <= set(lengths)
    assert list(found) == sorted(found)
    for place, length in enumerate(found):
        middle = (place + 0.5) / count
        assert np.mean(np.array(lengths) < length) <= middle + 1e-9
        assert np.mean(np.array(lengths) <= length) >= middle - 1e-9


def test_quantiles_without_text() -> None:
    with pytest.raises(InvalidCorpus, match="no text"):
        quantiles_of([])
