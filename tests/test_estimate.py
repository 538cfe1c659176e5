"""The estimate: repeatable bit for bit, a short run is the beginning of a long one, and NaN stops it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from subarch.errors import TrainingDiverged
from subarch.extraction.estimate import BUCKET, CLIP, WARM_UP, batches, estimate, segments_needed
from subarch.extraction.trial import Settings
from subarch.learning.distill import embedding_distance
from subarch.models.student import Blueprint, Student
from subarch.numbers.architecture import Architecture, Inputs

VOCABULARY, SEEN, WIDTH = 60, 40, 8
SHAPE = Architecture(1, 2, 16, 24)
BERT = Blueprint("bert", Inputs(VOCABULARY, positions=16, output=WIDTH))


class Toy:
    """Sequences of random tokens below SEEN (0 is the padding) and a random target vector for each."""

    def __init__(self, count: int = 96, scale: float = 1.0) -> None:
        source = np.random.default_rng(0)
        self.lengths = source.integers(2, 12, count)
        self.rows = [torch.from_numpy(source.integers(1, SEEN, size)) for size in self.lengths]
        self.targets = torch.from_numpy(source.normal(size=(count, WIDTH))).float()
        self.scale = scale
        self.visits: list[tuple[int, tuple[int, ...]]] = []

    def distance(self, student: Student, rows: NDArray[np.int64]) -> Tensor:
        ids = torch.nn.utils.rnn.pad_sequence([self.rows[row] for row in rows], batch_first=True)
        return embedding_distance(student(ids, (ids > 0).long()), self.targets[rows])

    def loss(self, student: Student, rows: NDArray[np.int64], epoch: int) -> Tensor:
        self.visits.append((epoch, tuple(int(row) for row in rows)))
        return self.distance(student, rows) * self.scale

    @torch.inference_mode()
    def error(self, student: Student) -> float:
        return float(self.distance(student, np.arange(8)))


class Recording(Toy):
    """Keeps the weights that each step starts from, and its loss."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []
        self.weights: list[list[Tensor]] = []

    def loss(self, student: Student, rows: NDArray[np.int64], epoch: int) -> Tensor:
        self.weights.append([p.detach().double().clone() for p in student.parameters()])
        loss = super().loss(student, rows, epoch)
        self.losses.append(loss.item())
        return loss


def fresh(architecture: Architecture = SHAPE, blueprint: Blueprint = BERT) -> Student:
    torch.manual_seed(0)
    return Student(architecture, blueprint)


def table(student: Student) -> Tensor:
    weight: Tensor = student.encoder.embeddings.word_embeddings.weight
    return weight.detach().clone()


# The stream of batches


def stream(lengths: NDArray[np.int64], theta: Settings) -> list[tuple[int, tuple[int, ...]]]:
    return [(epoch, tuple(int(row) for row in rows)) for epoch, rows in batches(lengths, theta)]


pools = st.integers(1, 400).flatmap(
    lambda count: st.tuples(
        st.integers(0, 2**32).map(lambda seed: np.random.default_rng(seed).integers(1, 60, count)),
        st.builds(
            Settings,
            steps=st.integers(1, 180),
            learning_rate=st.just(1.0),
            batch_size=st.integers(1, 24),
            seed=st.integers(0, 2**32 - 1),
        ),
    )
)


@given(pool=pools)
@settings(max_examples=60)
def test_every_epoch_visits_every_segment_once_but_the_rest(pool: tuple[NDArray[np.int64], Settings]) -> None:
    lengths, theta = pool
    taken = stream(lengths, theta)
    assert len(taken) == theta.steps
    size = min(theta.batch_size, len(lengths))
    per_epoch = len(lengths) // size
    for epoch in range(math.ceil(theta.steps / per_epoch)):
        rows = [row for number, batch in taken if number == epoch for row in batch]
        if (epoch + 1) * per_epoch <= theta.steps:
            assert sorted(rows) == list(range(per_epoch * size))
        else:
            assert len(set(rows)) == len(rows) == size * (theta.steps - epoch * per_epoch)
            assert set(rows) <= set(range(per_epoch * size))


@given(pool=pools)
@settings(max_examples=60)
def test_no_batch_draws_beyond_the_segments_needed(pool: tuple[NDArray[np.int64], Settings]) -> None:
    lengths, theta = pool
    needed = segments_needed(theta.steps, theta.batch_size)
    assert max(row for _, rows in stream(lengths, theta) for row in rows) < min(needed, len(lengths))
    # and no more than a bucket too many: teacher targets are not computed in vain
    assert needed < (theta.steps + BUCKET) * theta.batch_size


@given(pool=pools, share=st.floats(0, 1))
@settings(max_examples=40)
def test_a_short_run_reads_a_prefix_of_what_a_long_one_does(
    pool: tuple[NDArray[np.int64], Settings], share: float
) -> None:
    lengths, theta = pool
    fewer = max(1, int(theta.steps * share))
    short = Settings(fewer, theta.learning_rate, theta.batch_size, theta.seed)
    assert stream(lengths, short) == stream(lengths, theta)[:fewer]


@given(pool=pools)
@settings(max_examples=40)
def test_batches_of_a_bucket_do_not_overlap_in_length(pool: tuple[NDArray[np.int64], Settings]) -> None:
    lengths, theta = pool
    size = min(theta.batch_size, len(lengths))
    buckets: dict[tuple[int, int], list[tuple[int, int]]] = {}
    for epoch, rows in stream(lengths, theta):
        number = {row // (BUCKET * size) for row in rows}
        assert len(number) == 1
        found = lengths[list(rows)]
        buckets.setdefault((epoch, number.pop()), []).append((found.min(), found.max()))
    for spans in buckets.values():
        ordered = sorted(spans)
        assert all(low[1] <= high[0] for low, high in pairwise(ordered))


def test_little_of_a_batch_is_padding() -> None:
    lengths = np.random.default_rng(0).integers(4, 64, 64 * BUCKET)
    padded = sum(len(rows) * int(lengths[list(rows)].max()) for _, rows in stream(lengths, Settings(50, 1.0, 64)))
    unsorted = sum(64 * int(rows.max()) for rows in lengths.reshape(-1, 64))
    assert padded < 1.03 * lengths.sum() < 0.6 * unsorted


def test_seeds_and_epochs_give_other_orders() -> None:
    lengths = np.random.default_rng(0).integers(4, 64, 400)
    first, second = (stream(lengths, Settings(200, 1.0, 4, seed)) for seed in (0, 1))
    assert first != second
    assert sorted(sorted(rows) for _, rows in first[:100]) != sorted(sorted(rows) for _, rows in second[:100])
    assert [rows for _, rows in first[:100]] != [rows for _, rows in first[100:]]
    # the long batches do not all come last
    means = [float(lengths[list(rows)].mean()) for _, rows in first[:BUCKET]]
    assert means != sorted(means)


def test_a_batch_larger_than_the_pool_is_the_pool() -> None:
    taken = stream(np.array([5, 3, 9]), Settings(4, 1.0, 64))
    assert [(epoch, sorted(rows)) for epoch, rows in taken] == [(epoch, [0, 1, 2]) for epoch in range(4)]


def test_every_candidate_sees_the_same_data() -> None:
    seen = []
    for shape in (SHAPE, Architecture(0, 0, 8, 0), Architecture(2, 1, 4, 8)):
        toy = Toy()
        estimate(fresh(shape), toy, Settings(20, 1e-3, 8))
        seen.append(toy.visits)
    assert seen[0] == seen[1] == seen[2]
    assert len(seen[0]) == 20


# The run


def test_a_run_repeats_bit_for_bit() -> None:
    theta = Settings(30, 5e-3, 8, seed=3)
    students = [fresh(), fresh()]
    results = []
    for number, student in enumerate(students):
        torch.manual_seed(number)  # what was drawn before must not matter
        results.append(estimate(student, Toy(), theta))
    assert [(p.step, p.error) for p in results[0].curve] == [(p.step, p.error) for p in results[1].curve]
    for name, weight in students[0].state_dict().items():
        assert torch.equal(weight, students[1].state_dict()[name]), name
    other = estimate(fresh(), Toy(), Settings(30, 5e-3, 8, seed=4))
    assert other.error != results[0].error


def test_it_learns_and_the_curve_is_where_it_should_be() -> None:
    result = estimate(fresh(), Toy(), Settings(100, 5e-3, 32))
    assert [point.step for point in result.curve] == [0, 5, 10, 25, 50, 100]
    assert result.error == result.curve[-1].error < 0.5 * result.curve[0].error
    seconds = [point.seconds for point in result.curve]
    assert seconds[0] == 0
    assert all(early < late for early, late in pairwise(seconds))
    assert result.seconds > seconds[-1]


def test_the_curve_of_a_short_run_is_on_that_of_a_run_ten_times_as_long() -> None:
    short = {p.step: p.error for p in estimate(fresh(), Toy(), Settings(10, 5e-3, 8)).curve}
    long = {p.step: p.error for p in estimate(fresh(), Toy(), Settings(100, 5e-3, 8)).curve}
    common = short.keys() & long.keys()
    assert common == {0, 5, 10}
    assert all(short[step] == long[step] for step in common)


def test_the_average_stays_in_the_student() -> None:
    student, toy = fresh(), Toy()
    result = estimate(student, toy, Settings(20, 5e-3, 8))
    assert toy.error(student) == result.error


def test_the_average_is_the_polynomial_decay_one() -> None:
    # Shamir and Zhang, arXiv 1212.1824, section 4: the weight of step k of t is proportional to k^η at large k; here
    # exactly (η+1)/(k+η) · prod over later j of (j-1)/(j+η), by their recursion with η = 4.
    student, recording = fresh(), Recording()
    estimate(student, Toy(), Settings(12, 5e-3, 8))
    estimate(fresh(), recording, Settings(13, 5e-3, 8))
    history = recording.weights[1:]  # what step k + 1 starts from is what step k left
    shares = [5 / (k + 4) * math.prod((j - 1) / (j + 4) for j in range(k + 1, 13)) for k in range(1, 13)]
    assert sum(shares) == pytest.approx(1)
    for number, weight in enumerate(student.parameters()):
        expected = sum(share * weights[number] for share, weights in zip(shares, history, strict=True))
        torch.testing.assert_close(weight.detach().double(), expected, rtol=0, atol=1e-6)


def test_evaluating_does_not_disturb_the_training() -> None:
    # 7 steps are measured after 1, 2, 4 and 7 of them, 70 steps after 4, 7, 18, 35 and 70
    short, long = Recording(), Recording()
    estimate(fresh(), short, Settings(7, 5e-3, 8))
    estimate(fresh(), long, Settings(70, 5e-3, 8))
    assert short.losses == long.losses[:7]


def test_token_embeddings_learn_by_sparse_updates() -> None:
    student = fresh()
    before = table(student)
    estimate(student, Toy(), Settings(20, 5e-3, 32))
    gradient = student.encoder.embeddings.word_embeddings.weight.grad
    assert gradient.is_sparse
    assert gradient._nnz() < 32 * 12  # its cost goes with the batch and not with the vocabulary
    changed = (table(student) != before).any(dim=1)
    assert changed[1:SEEN].all()
    # rows never seen keep every bit (weight decay would shrink them), and so does the padding
    assert not changed[SEEN:].any()
    assert not changed[0]


def test_a_tied_masked_lm_head_trains_the_table_densely() -> None:
    class Head(Toy):
        def distance(self, student: Student, rows: NDArray[np.int64]) -> Tensor:
            ids = torch.nn.utils.rnn.pad_sequence([self.rows[row] for row in rows], batch_first=True)
            logits = student.head(student.hidden(ids, (ids > 0).long()))
            return torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten())

    student = fresh(blueprint=Blueprint("bert", Inputs(VOCABULARY, positions=16), masked_lm=True))
    before = table(student)
    result = estimate(student, Head(), Settings(10, 5e-3, 8))
    assert (table(student) != before).any(dim=1)[SEEN:].all()  # unseen rows are pushed down by the softmax
    assert result.error < result.curve[0].error
    assert student.head.predictions.decoder.weight is student.encoder.embeddings.word_embeddings.weight


@pytest.fixture
def optimizer_steps() -> Iterator[list[tuple[torch.optim.Optimizer, float, float]]]:
    """(optimizer, learning rate, gradient norm) just before each of its steps."""
    steps: list[tuple[torch.optim.Optimizer, float, float]] = []

    def record(optimizer: torch.optim.Optimizer, *_: object) -> None:
        (group,) = optimizer.param_groups
        gradients = [p.grad.coalesce().values() if p.grad.is_sparse else p.grad for p in group["params"]]
        norm = float(torch.stack([gradient.norm() for gradient in gradients]).norm())
        steps.append((optimizer, group["lr"], norm))

    handle = register_optimizer_step_pre_hook(record)
    yield steps
    handle.remove()


def test_gradients_are_clipped_and_the_rate_warms_up(
    optimizer_steps: list[tuple[torch.optim.Optimizer, float, float]],
) -> None:
    estimate(fresh(), Toy(scale=1e4), Settings(15, 2e-3, 8))
    dense = [(rate, norm) for optimizer, rate, norm in optimizer_steps if isinstance(optimizer, torch.optim.AdamW)]
    sparse = [rate for optimizer, rate, _ in optimizer_steps if isinstance(optimizer, torch.optim.SparseAdam)]
    expected = [2e-3 * min(1, step / WARM_UP) for step in range(1, 16)]
    assert [rate for rate, _ in dense] == sparse == pytest.approx(expected)
    assert all(norm == pytest.approx(CLIP, rel=1e-4) for _, norm in dense)
    # a gradient below the limit is left alone
    optimizer_steps.clear()
    estimate(fresh(), Toy(scale=1e-3), Settings(3, 2e-3, 8))
    assert all(0 < norm < 0.1 for optimizer, _, norm in optimizer_steps)


def test_a_learning_rate_far_too_high_is_a_diverged_run() -> None:
    with pytest.raises(TrainingDiverged, match=r"at step \d+; try a lower learning rate"):
        estimate(fresh(), Toy(), Settings(50, 1e30, 8))


def test_a_loss_that_is_no_number_names_its_step() -> None:
    class Broken(Toy):
        def loss(self, student: Student, rows: NDArray[np.int64], epoch: int) -> Tensor:
            return super().loss(student, rows, epoch) * (math.nan if len(self.visits) == 7 else 1)

    with pytest.raises(TrainingDiverged, match="loss became nan at step 7;"):
        estimate(fresh(), Broken(), Settings(50, 1e-3, 8))


@pytest.mark.parametrize(("good", "step"), [(0, 0), (1, 1), (3, 5)])
def test_an_error_that_is_no_number_names_its_step(good: int, step: int) -> None:
    class Broken(Toy):
        measured = 0

        def error(self, student: Student) -> float:
            self.measured += 1
            return 0.5 if self.measured <= good else math.inf

    with pytest.raises(TrainingDiverged, match=f"error is inf at step {step};"):
        estimate(fresh(), Broken(), Settings(20, 1e-3, 8))


def test_dropout_is_off() -> None:
    # the stock configuration asks for 10 %: two passes over the same weights would differ
    student = fresh()
    assert student.encoder.config.hidden_dropout_prob == 0.1
    untouched = copy.deepcopy(student).eval()
    recording, toy = Recording(), Toy()
    estimate(student, recording, Settings(1, 1e-3, 8))
    ((_, rows),) = batches(toy.lengths, Settings(1, 1e-3, 8))
    assert recording.losses == [toy.loss(untouched, rows, 0).item()]
