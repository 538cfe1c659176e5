"""Losses: values worked out by hand, gradients by finite differences, and what each must not react to."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from subarch.losses import distillation, embedding_distance, masked_lm


def numbers(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_masked_lm_is_the_mean_of_minus_log_p_of_the_true_token() -> None:
    p = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]], dtype=torch.float64)
    loss = masked_lm(p.log() + 3.0, torch.tensor([1, 2]))  # a constant added to the logits is no information
    assert float(loss) == pytest.approx((math.log(4) - math.log(0.7)) / 2, abs=1e-12)


def test_masked_lm_of_logits_without_information_is_the_log_of_the_vocabulary() -> None:
    assert float(masked_lm(torch.zeros(7, 50), torch.arange(7))) == pytest.approx(math.log(50), abs=1e-6)


def test_distillation_of_two_way_distributions_by_hand() -> None:
    # Logits 2 ln 3 and 0 soften at τ = 2 to ln 3 and 0: p = (3/4, 1/4). The student is undecided: q = (1/2, 1/2).
    teacher = torch.tensor([[2 * math.log(3), 0.0]], dtype=torch.float64)
    student = torch.zeros(1, 2, dtype=torch.float64)
    kl = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert float(distillation(student, teacher, 2.0)) == pytest.approx(4 * kl, abs=1e-12)
    # KL is not symmetric: the teacher is the one that is averaged over
    other = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert float(distillation(teacher, student, 2.0)) == pytest.approx(4 * other, abs=1e-12)


def test_distillation_is_a_mean_over_positions_and_not_over_the_vocabulary() -> None:
    student, teacher = numbers(6, 11, seed=0), numbers(6, 11, seed=1)
    rows = [float(distillation(student[i : i + 1], teacher[i : i + 1], 2.0)) for i in range(6)]
    assert float(distillation(student, teacher, 2.0)) == pytest.approx(sum(rows) / 6, abs=1e-12)


def test_the_square_of_the_temperature_keeps_gradients_of_one_size() -> None:
    # Hinton et al., 2015, section 2.1: at high τ the gradient tends to (z - v) / V, whatever τ is
    teacher, student = numbers(1, 5, seed=2), numbers(1, 5, seed=3).requires_grad_()
    (gradient,) = torch.autograd.grad(distillation(student, teacher, 1e3), student)
    centred = (student - student.mean()) - (teacher - teacher.mean())
    torch.testing.assert_close(gradient, centred.detach() / 5, rtol=0, atol=1e-3)


@given(seed=st.integers(0, 2**32), temperature=st.floats(0.5, 8))
@settings(max_examples=25)
def test_distillation_is_zero_only_for_the_teacher_itself(seed: int, temperature: float) -> None:
    teacher, student = numbers(4, 9, seed=seed), numbers(4, 9, seed=seed + 1)
    assert float(distillation(student, teacher, temperature)) > 1e-3
    assert abs(float(distillation(teacher + 5.0, teacher, temperature))) < 1e-12


def test_embedding_distance_is_zero_one_and_two() -> None:
    here = torch.tensor([[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]])
    across = torch.tensor([[-2.0, 1.0, 0.0], [5.0, 0.0, 0.0]])
    assert float(embedding_distance(here, here)) == pytest.approx(0, abs=1e-6)
    assert float(embedding_distance(here, across)) == pytest.approx(1, abs=1e-6)
    assert float(embedding_distance(here, -here)) == pytest.approx(2, abs=1e-6)
    mixed = torch.stack([here[0], across[1]])  # one at 0 and one at 1
    assert float(embedding_distance(mixed, here)) == pytest.approx(0.5, abs=1e-6)


@given(seed=st.integers(0, 2**32), own=st.floats(0.01, 100), other=st.floats(0.01, 100))
@settings(max_examples=25)
def test_embedding_distance_ignores_lengths(seed: int, own: float, other: float) -> None:
    a, b = numbers(3, 8, seed=seed), numbers(3, 8, seed=seed + 1)
    expected = sum(1 - float(x @ y) / float(x.norm() * y.norm()) for x, y in zip(a, b, strict=True)) / 3
    assert float(embedding_distance(own * a, other * b)) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("loss", "shape"),
    [
        (lambda x: masked_lm(x, torch.tensor([0, 3, 1])), (3, 4)),
        (lambda x: distillation(x, numbers(3, 4, seed=5), 2.0), (3, 4)),
        (lambda x: embedding_distance(x, numbers(3, 4, seed=6)), (3, 4)),
    ],
    ids=["masked_lm", "distillation", "embedding_distance"],
)
def test_gradients_equal_finite_differences(loss: object, shape: tuple[int, int]) -> None:
    assert torch.autograd.gradcheck(loss, (numbers(*shape, seed=4).requires_grad_(),), eps=1e-6, atol=1e-7)  # type: ignore[arg-type]
