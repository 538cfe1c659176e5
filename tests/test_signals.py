"""The signals: errors equal a direct computation with the stock models, masks repeat, targets are computed once."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy, log_softmax

from subarch.errors import InvalidTeacher
from subarch.extraction.estimate import batches, segments_needed
from subarch.extraction.trial import Settings
from subarch.learning import targets
from subarch.learning.signals import EmbeddingSignal, MaskedLMSignal, TaskSignal, teacher_embedder, text_embedder
from subarch.learning.targets import TargetCache
from subarch.models.inherit import Anatomy, inherit
from subarch.models.student import Blueprint, Student
from subarch.models.teacher import Teacher
from subarch.numbers.architecture import Architecture
from subarch.run import silent
from subarch.tasks.scoring import Task, retrieval
from subarch.text.corpus import Segments, Texts, build
from tiny import tiny_corpus, tiny_sentences, tiny_teacher

LENGTH = 24
SHAPE = Architecture(1, 2, 16, 24)


class World:
    """A tiny teacher, its corpus in segments, and its targets."""

    def __init__(self, folder: Path, family: str = "bert", masked_lm: bool = False, **options: Any) -> None:
        self.folder = folder
        self.teacher = Teacher.load(
            tiny_teacher(folder / "teacher", family=family, masked_lm=masked_lm, modules=not masked_lm, **options)
        )
        corpus = build([tiny_corpus(folder / "corpus.txt")], self.teacher.tokenizer, folder / "corpus")
        self.train = corpus.segments("train", LENGTH - 2)
        self.heldout = corpus.segments("heldout", LENGTH - 2)
        self.blueprint = Blueprint.of_teacher(self.teacher, masked_lm)

    def cache(self, name: str = "targets") -> TargetCache:
        return TargetCache(self.folder / name, self.teacher.fingerprint, "corpus")

    def masked(self, teacher: bool, train: Segments | None = None, needed: int = 64, **options: Any) -> MaskedLMSignal:
        return MaskedLMSignal(
            self.teacher.tokenizer,
            self.train if train is None else train,
            options.get("heldout", self.heldout),
            LENGTH,
            needed,
            silent,
            *((self.teacher, self.cache(options.get("cache", "targets"))) if teacher else ()),
        )

    def student(self, shape: Architecture = SHAPE) -> Student:
        torch.manual_seed(0)
        return Student(shape, self.blueprint).eval()

    def copy(self) -> Student:
        """The teacher itself, as a student."""
        anatomy = Anatomy.examine(self.teacher, self.train[:16])
        return inherit(self.teacher.architecture, self.blueprint, self.teacher, anatomy).eval()


@pytest.fixture(scope="module")
def sentence(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("sentence"))


@pytest.fixture(scope="module", params=["bert", "roberta"])
def masked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp(request.param), request.param, masked_lm=True)


def one_by_one(forward: Callable[[Tensor, Tensor], Tensor], segments: Segments, tokenizer: Any) -> Tensor:
    """Embeddings without any padding or batching."""
    found = []
    for segment in segments:
        ids = torch.tensor([[tokenizer.cls_token_id, *segment.tolist(), tokenizer.sep_token_id]])
        with torch.inference_mode():
            found.append(forward(ids, torch.ones_like(ids)))
    return torch.cat(found)


def distance(a: Tensor, b: Tensor) -> float:
    a, b = a.double(), b.double()
    return float((1 - (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))).mean())


# Embedding


def embedding(world: World) -> EmbeddingSignal:
    return EmbeddingSignal(world.teacher, world.teacher, world.train, world.heldout, 64, world.cache(), silent)


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_embedding_error_is_a_share_of_what_the_best_constant_leaves(tmp_path: Path, pooling: str) -> None:
    world = World(tmp_path, pooling=pooling)
    signal = embedding(world)
    for shape in (SHAPE, Architecture(0, 0, 32, 0)):  # with and without a map to the teacher's width
        student = world.student(shape)
        own = one_by_one(student, world.heldout, world.teacher.tokenizer)
        theirs = one_by_one(world.teacher.model, world.heldout, world.teacher.tokenizer)
        error = signal.error(student) * signal.constant
        assert error == pytest.approx(distance(own, theirs.half()), abs=1e-5)
        # Targets are kept in 16 bits. That turns a vector by at most 2^-11, and a cosine changes by no more than that.
        assert error == pytest.approx(distance(own, theirs), abs=2**-11)
        assert 0.1 < error < 1.9

    # By hand: no direction is nearer to all of the teacher's than that of their mean, and a constant has error 1
    directions = torch.nn.functional.normalize(theirs.double(), dim=-1)
    best = directions.mean(0).expand_as(directions)
    assert signal.constant == pytest.approx(distance(best, directions), rel=1e-3)
    constants = (directions.mean(0) + 0.1 * torch.randn(len(directions[0]), dtype=torch.float64) for _ in range(20))
    assert all(distance(one.expand_as(directions), directions) >= distance(best, directions) for one in constants)
    width = theirs.shape[1]
    assert signal.error(lambda ids, mask: best[:1].expand(len(ids), width).float()) == pytest.approx(1, abs=1e-3)


def test_a_teacher_that_says_the_same_of_everything_is_refused(sentence: World) -> None:
    class Constant:
        name, fingerprint, width = "constant", "constant", 8

        def embed_texts(self, texts: Sequence[str]) -> torch.Tensor:
            return torch.ones(len(texts), 8)

    def with_texts(segments: Segments) -> Segments:
        count = len(segments)
        texts = Texts(np.frombuffer(b"a text", np.uint8), np.zeros(count, np.int64), np.full(count, 6))
        return replace(segments, texts=texts)

    cache = TargetCache(sentence.folder / "constant", "constant", "corpus")
    train, heldout = with_texts(sentence.train), with_texts(sentence.heldout)
    with pytest.raises(InvalidTeacher, match=r"constant: its vectors of .* held-out texts are all the same"):
        EmbeddingSignal(Constant(), sentence.teacher, train, heldout, 64, cache, silent)  # type: ignore[arg-type]


def test_the_teacher_is_at_distance_zero_from_itself(sentence: World) -> None:
    signal = embedding(sentence)
    # Near zero the distance is half the squared angle: (2^-11)² / 2 = 1.2e-7 for targets in 16 bits
    assert abs(signal.error(sentence.copy())) * signal.constant < 2.0**-23


def test_the_embedding_loss_is_that_of_the_rows_asked_for(sentence: World) -> None:
    signal = embedding(sentence)
    student, rows = sentence.student(), np.array([40, 3, 17, 3])
    loss = signal.loss(student, rows, 0)
    chosen = [sentence.train[row] for row in rows]
    own = one_by_one(student, chosen, sentence.teacher.tokenizer)  # type: ignore[arg-type]
    theirs = one_by_one(sentence.teacher.model, chosen, sentence.teacher.tokenizer)  # type: ignore[arg-type]
    assert loss.item() == pytest.approx(distance(own, theirs.half()), abs=1e-5)
    assert signal.loss(student, rows, 5).item() == loss.item()  # an epoch is no matter here
    torch.autograd.backward(loss)
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in student.projection.parameters())  # type: ignore[union-attr]
    assert list(signal.lengths) == [len(segment) for segment in sentence.train]


# Masks


def flat(world: World, count: int, length: int) -> Segments:
    """Segments of one length, of random tokens of which none is special."""
    source = np.random.default_rng(0)
    tokens = source.integers(5, len(world.teacher.tokenizer), count * length).astype(np.int32)
    return Segments(tokens, np.arange(0, count * length, length), np.full(count, length))


def plan(signal: MaskedLMSignal, part: str, epoch: int, rows: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(n, length) ids, mask and whether a position is masked, and the (m,) true tokens there."""
    inputs = signal._masked(part, np.asarray(rows), epoch)
    assert inputs.where is not None
    assert inputs.labels is not None
    where = torch.zeros(inputs.ids.numel(), dtype=torch.bool)
    where[inputs.where] = True
    return inputs.ids, inputs.mask, where.view(inputs.ids.shape), inputs.labels


def test_masks_depend_on_the_segment_the_epoch_and_the_part_alone(masked: World) -> None:
    pool = flat(masked, 40, 20)
    signal = masked.masked(False, pool, heldout=pool)
    drawn = plan(signal, "train", 0, range(40))
    ids, _, where, _ = drawn
    again = masked.masked(False, pool, heldout=pool)
    for a, b in zip(plan(again, "train", 0, range(40)), drawn, strict=True):
        assert torch.equal(a, b)
    # in another batch
    alone = plan(again, "train", 0, range(7, 8))
    assert torch.equal(alone[0][0], ids[7])
    assert torch.equal(alone[2][0], where[7])
    for part, epoch in (("train", 1), ("heldout", 0)):
        same = (plan(signal, part, epoch, range(40))[2] == where).all(dim=1)
        assert same.sum() <= 1, (part, epoch)


def test_masks_follow_devlin(masked: World) -> None:
    tokenizer, count, length = masked.teacher.tokenizer, 400, 22
    signal = masked.masked(False, flat(masked, count, length))
    ids, _, where, labels = plan(signal, "train", 0, range(count))
    tokens = torch.from_numpy(signal.train.tokens.reshape(count, length)).long()
    assert ids.shape == (count, length + 2)
    assert not where[:, 0].any()
    assert not where[:, -1].any()
    assert (ids[:, 0] == tokenizer.cls_token_id).all()
    assert (ids[:, -1] == tokenizer.sep_token_id).all()
    assert torch.equal(labels, tokens[where[:, 1:-1]])
    assert torch.equal(ids[:, 1:-1][~where[:, 1:-1]], tokens[~where[:, 1:-1]])
    assert where.any(dim=1).all()
    # 8800 tokens: a standard deviation is 0.004 of the tokens; a sequence without any (2.8 %) gets one: + 0.001
    assert where[:, 1:-1].double().mean().item() == pytest.approx(0.1513, abs=0.012)
    shown = ids[where]
    n = len(shown)
    is_mask, is_same = shown == tokenizer.mask_token_id, shown == labels
    # about 1300 masked tokens: standard deviations 0.011, 0.008, 0.008
    assert is_mask.sum().item() / n == pytest.approx(0.8, abs=0.04)
    assert is_same.sum().item() / n == pytest.approx(0.1 + 0.1 / (len(tokenizer) - 5), abs=0.03)
    assert (~is_mask & ~is_same).sum().item() / n == pytest.approx(0.1, abs=0.03)
    assert len(set(shown[~is_mask & ~is_same].tolist())) > 40  # random ones, not some one


def test_the_shortest_sequence_has_a_mask_too(masked: World) -> None:
    signal = masked.masked(False, flat(masked, 50, 1))
    _, _, where, _ = plan(signal, "train", 0, range(50))
    assert where.tolist() == [[False, True, False]] * 50


def test_padding_is_never_masked_and_long_sequences_are_cut(masked: World) -> None:
    tokens = np.arange(5, 5 + 60, dtype=np.int32)
    pool = Segments(tokens, np.array([0, 0, 0]), np.array([60, 3, 12]))
    signal = masked.masked(False, pool)
    for epoch in range(30):
        ids, mask, where, labels = plan(signal, "train", epoch, range(3))
        assert ids.shape == (3, LENGTH)
        assert not (where & (mask == 0)).any()
        assert not where[0, LENGTH - 1 :].any()
        assert not where[1, 4:].any()
        assert len(labels) == where.sum()


# Masked-LM and distillation


def stock_loss(model: Any, signal: MaskedLMSignal, part: str, rows: NDArray[np.int64], epoch: int) -> float:
    ids, mask, where, labels = plan(signal, part, epoch, rows)
    everywhere = torch.full_like(ids, -100)
    everywhere[where] = labels
    with torch.inference_mode():
        return float(model(input_ids=ids, attention_mask=mask, labels=everywhere).loss)


def test_the_masked_lm_loss_is_that_of_the_stock_model(masked: World) -> None:
    signal, student = masked.masked(False), masked.student()
    for rows, epoch in ((np.array([5, 0, 33]), 0), (np.arange(16), 2)):
        loss = signal.loss(student, rows, epoch)
        assert loss.item() == pytest.approx(stock_loss(student.model, signal, "train", rows, epoch), abs=1e-5)
    assert 2 <= len(signal.heldout) <= 64
    expected = stock_loss(student.model, signal, "heldout", np.arange(len(signal.heldout)), 0)
    assert signal.error(student) == pytest.approx(expected, abs=1e-5)
    assert list(signal.lengths) == [len(segment) for segment in masked.train]


def test_an_error_over_many_batches_weighs_each_by_its_sequences(masked: World) -> None:
    signal, student = masked.masked(False, heldout=masked.train[:100]), masked.student()
    order = np.argsort(signal.heldout.size, kind="stable")
    first, second = (stock_loss(student.model, signal, "heldout", rows, 0) for rows in (order[:64], order[64:]))
    assert signal.error(student) == pytest.approx((64 * first + 36 * second) / 100, abs=1e-5)


def direct_logits(teacher: Teacher, signal: MaskedLMSignal, part: str, rows: Any, epoch: int) -> Tensor:
    ids, mask, where, _ = plan(signal, part, epoch, rows)
    with torch.inference_mode():
        logits: Tensor = teacher.masked_lm(input_ids=ids, attention_mask=mask).logits
    return logits[where].clone()


def test_cached_hidden_states_give_the_teachers_logits(masked: World) -> None:
    signal = masked.masked(True)
    for part, rows, epoch in (("train", np.array([9, 2, 60, 2]), 0), ("heldout", np.arange(5), 0)):
        cached = signal._teacher_states(part, rows, epoch)
        with torch.inference_mode():
            logits = masked.teacher.head(cached)
        expected = direct_logits(masked.teacher, signal, part, rows, epoch)
        # States in 16 bits are off by a relative 2^-11 each; the head adds up and does not amplify that much
        assert (logits - expected).abs().max() < 2**-9 * expected.abs().max()
        assert expected.std() > 0.5


def test_the_distillation_loss_is_the_papers(masked: World) -> None:
    signal, student, rows = masked.masked(True), masked.student(), np.array([9, 2, 60, 31])
    ids, mask, where, labels = plan(signal, "train", 0, rows)
    teacher = direct_logits(masked.teacher, signal, "train", rows, 0)
    with torch.inference_mode():
        own = student.model(input_ids=ids, attention_mask=mask).logits[where]
    p, q = log_softmax(teacher / 2, -1), log_softmax(own / 2, -1)
    kl = (p.exp() * (p - q)).sum(-1).mean()
    expected = 0.5 * 4 * kl + 0.1 * cross_entropy(own, labels)
    loss = signal.loss(student, rows, 0)
    assert loss.item() == pytest.approx(expected.item(), rel=2e-3)
    torch.autograd.backward(loss)
    assert student.encoder.embeddings.word_embeddings.weight.grad.abs().sum() > 0


def test_for_the_teacher_itself_only_the_cross_entropy_is_left(masked: World) -> None:
    signal = masked.masked(True)
    expected = 0.1 * stock_loss(masked.teacher.masked_lm, signal, "heldout", np.arange(len(signal.heldout)), 0)
    error = signal.error(masked.copy())
    # KL goes with the square of what 16 bits lose
    assert error == pytest.approx(expected, abs=1e-4)
    assert signal.error(masked.student()) > 2 * error


def test_states_are_there_for_every_batch_of_several_epochs(masked: World, monkeypatch: pytest.MonkeyPatch) -> None:
    # 36 of 100 segments are left over in each epoch, so 5 steps take 5 epochs and not the 3.2 that 5 · 64 rows would
    # be; the last epochs must not find the teacher's states missing.
    monkeypatch.setattr(targets, "SHARD", 8)
    monkeypatch.setattr("subarch.extraction.estimate.BUCKET", 5)
    theta = Settings(5, 1e-3, 64)
    needed = segments_needed(theta.steps, theta.batch_size)
    assert needed == 320
    signal = masked.masked(True, masked.train[:100], needed, cache="epochs")
    student = masked.student()
    seen = []
    for epoch, rows in batches(signal.lengths, theta):
        seen.append(epoch)
        _, _, where, _ = plan(signal, "train", epoch, rows)
        assert len(signal._teacher_states("train", rows, epoch)) == where.sum()
        assert signal.loss(student, rows, epoch).item() > 0
    assert seen == [0, 1, 2, 3, 4]


def test_what_a_run_does_not_need_is_not_computed(masked: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "SHARD", 8)
    masked.masked(True, needed=20, cache="few")
    # 24 of the segments, and the held-out ones
    assert len(list((masked.folder / "few").iterdir())) == 3 + -(-len(masked.heldout) // 8)


def test_a_teacher_without_a_head_is_refused(tmp_path: Path) -> None:
    world = World(tmp_path)
    with pytest.raises(InvalidTeacher, match="no masked-LM head"):
        world.masked(True)
    assert not (tmp_path / "targets").exists()  # before anything is computed


# Task


def write_task(path: Path) -> Path:
    rows = [{"query": line.split(":")[0], "document": line.split(":")[1]} for line in tiny_sentences(30)]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


def test_the_task_error_is_what_is_missing_to_a_perfect_score(sentence: World, tmp_path: Path) -> None:
    task = Task.read(write_task(tmp_path / "task.jsonl"))
    training = embedding(sentence)
    signal, student = TaskSignal(training, task), sentence.student()
    tokenizer = sentence.teacher.tokenizer
    vectors = []
    for column in ("query", "document"):
        ids = [np.array(tokenizer(row[column], add_special_tokens=False)["input_ids"]) for row in task.rows]
        vectors.append(one_by_one(student, ids, tokenizer).numpy())  # type: ignore[arg-type]
    assert signal.error(student) == pytest.approx(1 - retrieval(*vectors)["mrr"], abs=1e-9)
    assert 0 < signal.error(student) < 1
    assert signal.score(teacher_embedder(sentence.teacher)) == pytest.approx(
        1 - signal.error(sentence.copy()), abs=1e-9
    )
    rows = np.array([4, 1])
    assert signal.loss(student, rows, 0).item() == training.loss(student, rows, 0).item()
    assert signal.lengths is training.lengths


def test_the_text_embedder_is_the_teachers_own(sentence: World) -> None:
    texts = [*tiny_sentences(5), " ".join(tiny_sentences(20))]  # the last is longer than the teacher reads
    tokenizer = sentence.teacher.tokenizer
    found = text_embedder(sentence.teacher.model, sentence.teacher)(texts)
    ids = tokenizer(texts, truncation=True, max_length=64, padding=True, return_tensors="pt")
    with torch.inference_mode():
        expected = sentence.teacher.model(ids["input_ids"], ids["attention_mask"])
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
