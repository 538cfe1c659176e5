"""Losses: values worked out by hand, gradients by finite differences, and what each must not react to."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sentence_transformers.sentence_transformer.losses import DistillKLDivLoss, MarginMSELoss
from torch import Tensor

from subarch.errors import InvalidConfig
from subarch.learning.bank import NEGATIVES, Bank
from subarch.learning.distill import (
    distillation,
    distillation_top,
    embedding_distance,
    hidden_distance,
    margin_difference,
    masked_lm,
    relation,
    similarity_divergence,
)


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


# What compares several embeddings


def cosines(a: Any, b: Any) -> Any:
    a, b = (np.asarray(x) / np.linalg.norm(x, axis=-1, keepdims=True) for x in (a, b))
    return a @ b.T


def test_similarity_divergence_is_its_formula() -> None:
    student, teacher = numbers(6, 4, seed=20), numbers(6, 9, seed=21)
    own, wanted = ([np.delete(row, n) for n, row in enumerate(cosines(x, x))] for x in (student, teacher))
    spread = np.std(wanted, ddof=1)
    p, q = ([np.exp(row / spread) / np.exp(row / spread).sum() for row in rows] for rows in (wanted, own))
    expected = np.mean([np.sum(a * np.log(a / b)) for a, b in zip(p, q, strict=True)])
    assert float(similarity_divergence(student, teacher)) == pytest.approx(expected, abs=1e-12)
    assert expected > 0.1


def test_similarity_divergence_is_the_librarys() -> None:
    """Its scores come by pairs, and its gradients are scaled to one size: by the square of the temperature."""
    student, teacher = numbers(5, 4, seed=22), numbers(5, 7, seed=23)
    own = torch.nn.functional.normalize(student, dim=1)
    others = [own.roll(-shift, dims=0) for shift in range(1, 5)]
    wanted = torch.tensor(cosines(teacher, teacher))
    labels = torch.stack([wanted[torch.arange(5), (torch.arange(5) + shift) % 5] for shift in range(1, 5)], 1)
    spread = float(labels.std())
    loss = DistillKLDivLoss(None, temperature=spread).compute_loss_from_embeddings([own, *others], labels)
    assert float(similarity_divergence(student, teacher)) == pytest.approx(float(loss) / spread**2, abs=1e-12)


def test_similarities_ignore_what_keeps_them() -> None:
    teacher = numbers(6, 8, seed=24)
    rotation = torch.linalg.qr(numbers(8, 8, seed=25)).Q
    assert abs(float(similarity_divergence(3 * teacher @ rotation, teacher))) < 1e-12
    # and the temperature is relative: a teacher whose vectors are all alike says no less
    alike = torch.cat([teacher, torch.full((6, 1), 30.0, dtype=torch.float64)], 1)
    assert float(similarity_divergence(numbers(6, 4, seed=26), alike)) > 0.1


@pytest.mark.parametrize("count", [1, 2])
def test_nothing_is_told_apart_in_a_batch_of_two(count: int) -> None:
    student = numbers(count, 4, seed=27).requires_grad_()
    loss = similarity_divergence(student, numbers(count, 4, seed=28))
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.item() == 0
    assert not gradient.any()


def test_margin_difference_is_its_formula_and_the_librarys() -> None:
    student, teacher, negatives = numbers(4, 6, seed=30), numbers(4, 6, seed=31), numbers(4, 5, 6, seed=32)
    differences, labels = [], []
    for own, theirs, others in zip(student, teacher, negatives, strict=True):
        wanted = 1 - cosines(theirs[None], others)[0]
        given = cosines(own[None], theirs[None])[0] - cosines(own[None], others)[0]
        differences.append((given - wanted) ** 2)
        labels.append(wanted)
    assert float(margin_difference(student, teacher, negatives)) == pytest.approx(np.mean(differences), abs=1e-12)
    embeddings = [student, teacher, *negatives.unbind(1)]
    library = MarginMSELoss(None, similarity_fct=torch.nn.functional.cosine_similarity)
    loss = library.compute_loss_from_embeddings(embeddings, torch.tensor(np.array(labels)))
    assert float(margin_difference(student, teacher, negatives)) == pytest.approx(float(loss), abs=1e-12)
    assert abs(float(margin_difference(2 * teacher, teacher, negatives))) < 1e-12


def test_negatives_are_the_nearest_that_are_not_the_same() -> None:
    vectors = numbers(300, 6, seed=33)
    vectors[7] = 2 * vectors[3] + 1e-3 * numbers(1, 6, seed=34)[0]  # nearly the same text as number 3
    bank = Bank(vectors)
    found = bank.negatives(vectors[:5])
    similar = cosines(vectors[:5], vectors)
    between = 1 - cosines(vectors, vectors).mean()
    for row in range(5):
        order = [at for at in np.argsort(-similar[row]) if 1 - similar[row, at] >= 0.05 * between]
        assert row not in order
        assert (7 in order) == (row != 3)
        expected = vectors[order[:NEGATIVES]] / vectors[order[:NEGATIVES]].norm(dim=1, keepdim=True)
        torch.testing.assert_close(found[row], expected, rtol=0, atol=1e-6)


def test_a_small_bank_gives_what_it_has() -> None:
    vectors = numbers(3, 6, seed=35)
    assert Bank(vectors).negatives(numbers(4, 6, seed=36)).shape == (4, 3, 6)
    torch.testing.assert_close(  # of near-duplicates alone, those
        Bank(vectors[:1]).negatives(vectors[:1])[0],
        torch.nn.functional.normalize(vectors[:1], dim=1),
        rtol=0,
        atol=1e-6,
    )


# The teacher's likeliest tokens


def top(teacher: Tensor, k: int, temperature: float) -> tuple[Tensor, Tensor]:
    """What a cache holds of (m, V) logits: the k likeliest tokens and their softened log-probabilities."""
    found = (teacher / temperature).log_softmax(-1).topk(k)
    return found.indices, found.values


def test_distillation_top_by_hand() -> None:
    # τ = 2. The teacher: 1/2 and 1/4 for tokens 3 and 0, so 1/4 for the rest. The student, softened: all of 5 alike.
    tokens, known = torch.tensor([[3, 0]]), torch.tensor([[0.5, 0.25]], dtype=torch.float64).log()
    loss = distillation_top(torch.full((1, 5), 7.0, dtype=torch.float64), tokens, known, 2.0)
    kl = 0.5 * math.log(0.5 / 0.2) + 0.25 * math.log(0.25 / 0.2) + 0.25 * math.log(0.25 / 0.6)
    assert float(loss) == pytest.approx(4 * kl, abs=1e-12)
    # Logits 2 ln p soften at τ = 2 to ln p: token 1 has 1/8 of it, the others 7/32 each
    student = 2 * torch.tensor([[7 / 32, 1 / 8, 7 / 32, 7 / 32, 7 / 32]], dtype=torch.float64).log()
    kl = 0.5 * math.log(0.5 / (7 / 32)) + 0.25 * math.log(0.25 / (7 / 32)) + 0.25 * math.log(0.25 / (18 / 32))
    assert float(distillation_top(student, tokens, known, 2.0)) == pytest.approx(4 * kl, abs=1e-12)


@given(seed=st.integers(0, 2**32), temperature=st.floats(0.5, 8))
@settings(max_examples=25)
def test_distillation_top_grows_with_k_up_to_the_full_one(seed: int, temperature: float) -> None:
    student, teacher = numbers(4, 9, seed=seed), numbers(4, 9, seed=seed + 1)
    full = float(distillation(student, teacher, temperature))
    bounds = [float(distillation_top(student, *top(teacher, k, temperature), temperature)) for k in range(1, 10)]
    assert all(less <= more + 1e-12 for less, more in pairwise(bounds))
    assert bounds[-2:] == pytest.approx([full, full], abs=1e-12)
    assert 0 <= bounds[0] < full


def test_distillation_top_is_full_where_the_rest_is_alike() -> None:
    teacher, student = numbers(3, 50, seed=7), numbers(3, 50, seed=8)
    tokens, known = top(teacher, 5, 2.0)
    unknown = torch.ones(3, 50, dtype=torch.bool).scatter(1, tokens, False)
    student[unknown] = teacher[unknown] + 0.5
    loss = distillation_top(student, tokens, known, 2.0)
    assert float(loss) == pytest.approx(float(distillation(student, teacher, 2.0)), abs=1e-12)
    assert abs(float(distillation_top(teacher + 5.0, tokens, known, 2.0))) < 1e-12


def test_the_student_learns_of_the_rest_too() -> None:
    # The student is sure of token 0, the teacher gives half to the rest: in 32 bits 1 - q(0) is 0, and yet the
    # rest's gradient is -(1/2) / 3 for each of its equal logits
    student = torch.tensor([[40.0, 0.0, 0.0, 0.0]], requires_grad=True)
    loss = distillation_top(student, torch.tensor([[0]]), torch.tensor([[0.5]]).log(), 1.0)
    (gradient,) = torch.autograd.grad(loss, student)
    torch.testing.assert_close(gradient, torch.tensor([[0.5, -1 / 6, -1 / 6, -1 / 6]]))
    assert loss.item() == pytest.approx(0.5 * math.log(0.5) + 0.5 * (math.log(0.5 / 3) + 40), abs=1e-5)


@pytest.mark.parametrize("known", [[0.0, -40.0], [0.0, -7.6], [-1e-3, -6.0]], ids=["all", "above 1", "hardly less"])
@pytest.mark.parametrize("vocabulary", [2, 3, 30])
def test_distillation_top_bears_16_bits(known: list[float], vocabulary: int) -> None:
    student = (30 * torch.randn(1, vocabulary, generator=torch.Generator().manual_seed(1))).requires_grad_()
    tokens = torch.tensor([[1, 0]])
    loss = distillation_top(student, tokens, torch.tensor([known], dtype=torch.float16), 2.0)
    (gradient,) = torch.autograd.grad(loss, student)
    assert gradient.isfinite().all()
    # Against 64 bits, of what those two say when brought to a sum of 1 or less
    p = torch.tensor(known, dtype=torch.float16).double().exp()
    p = torch.cat([p, (1 - p.sum()).clamp(min=0).view(1)]) if vocabulary > 2 else p
    p /= p.sum()
    q = (student[0].detach().double() / 2).softmax(0)
    q = torch.cat([q[[1, 0]], q[2:].sum().view(1)]) if vocabulary > 2 else q[[1, 0]]
    expected = 4 * float(torch.special.xlogy(p, p).sum() - torch.special.xlogy(p, q).sum())
    assert loss.item() == pytest.approx(expected, rel=1e-4, abs=1e-5)


# Hidden states and relations

MASK = torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]])


def test_hidden_distance_by_hand() -> None:
    student, teacher = torch.zeros(2, 2, 2), torch.tensor([[[1.0, 2.0], [3.0, 0.0]], [[0.0, 1.0], [9.0, 9.0]]])
    # real: (1, 4), (9, 0), (0, 1); the last of the second sequence is padding
    loss = hidden_distance(student, teacher, torch.tensor([[1, 1], [1, 0]]))
    assert loss.item() == pytest.approx((1 + 4 + 9 + 0 + 0 + 1) / 6)


def plain_relation(student: Tensor, teacher: Tensor, heads: int, mask: Tensor) -> float:
    """The definition, number by number."""

    def relations(vectors: Tensor, sequence: int, head: int) -> list[list[float]]:
        size = vectors.shape[-1] // heads
        rows = vectors[sequence, mask[sequence] == 1, head * size : (head + 1) * size].tolist()
        found = []
        for query in rows:
            weights = [math.exp(sum(a * b for a, b in zip(query, key, strict=True)) / math.sqrt(size)) for key in rows]
            found.append([weight / sum(weights) for weight in weights])
        return found

    divergences = []
    for sequence in range(len(mask)):
        for head in range(heads):
            pairs = zip(relations(teacher, sequence, head), relations(student, sequence, head), strict=True)
            divergences += [sum(p * math.log(p / q) for p, q in zip(*pair, strict=True)) for pair in pairs]
    return sum(divergences) / len(divergences)


def test_relation_by_hand() -> None:
    # Two tokens, one head of size 1. The teacher's are 1 and 0: token 1 relates as softmax(1, 0), token 2 as
    # (1/2, 1/2). The student's are 0 and 0: (1/2, 1/2) for both.
    teacher, student = torch.tensor([[[1.0], [0.0]]]), torch.zeros(1, 2, 1)
    p = math.e / (math.e + 1)
    kl = p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p))
    mask = torch.ones(1, 2)
    assert relation(student, teacher, 1, mask).item() == pytest.approx(kl / 2, abs=1e-7)
    # Logits are divided by the root of the head's size: of vectors of size 4 with the same products, 2 times as much
    wide = torch.zeros(1, 2, 4)
    wide[0, 0, 3] = math.sqrt(2)
    assert relation(student, wide, 1, mask).item() == pytest.approx(kl / 2, abs=1e-7)


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_relation_is_the_definition_for_other_widths(heads: int) -> None:
    student, teacher = numbers(2, 4, 8, seed=9), numbers(2, 4, 12, seed=10)
    loss = float(relation(student, teacher, heads, MASK))
    assert loss == pytest.approx(plain_relation(student, teacher, heads, MASK), abs=1e-12)
    assert loss > 1e-2


def test_relation_is_zero_for_what_relates_alike() -> None:
    teacher = numbers(2, 4, 8, seed=11)
    assert abs(float(relation(teacher, teacher, 2, MASK))) < 1e-12
    # a rotation within the heads keeps all products
    rotation = torch.linalg.qr(numbers(4, 4, seed=12)).Q
    turned = torch.cat([teacher[..., :4] @ rotation, teacher[..., 4:] @ rotation], -1)
    assert abs(float(relation(turned, teacher, 2, MASK))) < 1e-12
    assert float(relation(teacher.roll(1, dims=1), teacher, 2, MASK)) > 1e-2


@pytest.mark.parametrize(
    "loss", [hidden_distance, lambda s, t, mask: relation(s, t, 2, mask)], ids=["hidden", "relation"]
)
def test_padding_has_no_influence(loss: Callable[[Tensor, Tensor, Tensor], Tensor]) -> None:
    student, teacher = numbers(2, 4, 8, seed=13).float().requires_grad_(), numbers(2, 4, 8, seed=14).float()
    value = loss(student, teacher, MASK)
    (gradient,) = torch.autograd.grad(value, student)
    assert (gradient[MASK == 0] == 0).all()
    assert (gradient[MASK == 1] != 0).all()
    other, theirs = student.detach().clone(), teacher.clone()
    other[MASK == 0], theirs[MASK == 0] = 300.0, -1000.0
    other.requires_grad_()
    again = loss(other, theirs, MASK.bool())
    assert torch.equal(again, value)
    assert torch.equal(torch.autograd.grad(again, other)[0], gradient)
    # nor has its amount: longer padding, and each sequence by itself
    longer = [torch.nn.functional.pad(x, (0, 0, 0, 3), value=5.0) for x in (student.detach(), teacher)]
    mask = torch.nn.functional.pad(MASK, (0, 3))
    torch.testing.assert_close(loss(longer[0], longer[1], mask), value.detach())
    alone = [loss(student[i : i + 1, :n], teacher[i : i + 1, :n], MASK[i : i + 1, :n]) for i, n in enumerate((3, 2))]
    torch.testing.assert_close((3 * alone[0] + 2 * alone[1]) / 5, value)


def test_relations_that_cannot_be_split_are_refused() -> None:
    with pytest.raises(InvalidConfig, match="size 8 cannot be split into 3"):
        relation(numbers(2, 4, 8, seed=0), numbers(2, 4, 12, seed=1), 3, MASK)
    with pytest.raises(InvalidConfig, match="size 10 cannot be split into 4"):
        relation(numbers(2, 4, 8, seed=0), numbers(2, 4, 10, seed=1), 4, MASK)


@pytest.mark.parametrize(
    ("loss", "shape"),
    [
        (lambda x: masked_lm(x, torch.tensor([0, 3, 1])), (3, 4)),
        (lambda x: distillation(x, numbers(3, 4, seed=5), 2.0), (3, 4)),
        (lambda x: distillation_top(x, *top(numbers(3, 6, seed=5), 2, 2.0), 2.0), (3, 6)),
        (lambda x: embedding_distance(x, numbers(3, 4, seed=6)), (3, 4)),
        (lambda x: similarity_divergence(x, numbers(4, 5, seed=6)), (4, 3)),
        (lambda x: margin_difference(x, numbers(3, 4, seed=6), numbers(3, 2, 4, seed=7)), (3, 4)),
        (lambda x: hidden_distance(x, numbers(2, 4, 3, seed=6), MASK), (2, 4, 3)),
        (lambda x: relation(x, numbers(2, 4, 6, seed=6), 2, MASK), (2, 4, 4)),
    ],
    ids=[
        "masked_lm",
        "distillation",
        "distillation_top",
        "embedding_distance",
        "similarity_divergence",
        "margin_difference",
        "hidden_distance",
        "relation",
    ],
)
def test_gradients_equal_finite_differences(loss: object, shape: tuple[int, ...]) -> None:
    assert torch.autograd.gradcheck(loss, (numbers(*shape, seed=4).requires_grad_(),), eps=1e-6, atol=1e-7)  # type: ignore[arg-type]
