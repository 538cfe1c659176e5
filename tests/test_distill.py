"""The weighted losses: each what its formula says of this student and teacher, and the parts of a batch add up."""

from __future__ import annotations

import copy
import math
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from subarch.errors import InvalidConfig, InvalidTeacher
from subarch.learning import collate
from subarch.learning.bank import Bank
from subarch.learning.collate import Collator, Inputs, Loader
from subarch.learning.distill import (
    Distiller,
    TeacherSide,
    TextSide,
    distillation,
    distillation_top,
    embedding_distance,
    hidden_distance,
    layer_pairs,
    margin_difference,
    masked_lm,
    relation,
    relation_heads,
    similarity_divergence,
)
from subarch.models.parts import layers_of, readers_of
from subarch.models.sentence import Recipe, pool
from subarch.models.student import Blueprint, Student
from subarch.models.teacher import Teacher
from subarch.numbers.architecture import Architecture
from subarch.numbers.architecture import Inputs as Sizes
from subarch.text.batches import Budget, Packed
from subarch.text.corpus import Segments
from subarch.text.masking import Masker
from tiny import tiny_teacher

ALL = {"mlm": 0.3, "logits": 0.5, "embedding": 1.5, "hidden": 0.7, "relations": 1.1}
LENGTH = 20


@pytest.fixture(scope="module", params=["bert", "modernbert"])
def teacher(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    """Of depth 3, width 32, 4 heads, with head and pooling; in double precision."""
    folder = tmp_path_factory.mktemp("teacher")
    return precise(Teacher.load(tiny_teacher(folder, family=request.param, masked_lm=True)))


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Teacher:
    return precise(Teacher.load(tiny_teacher(tmp_path_factory.mktemp("bert"), masked_lm=True)))


def precise(teacher: Teacher) -> Teacher:
    (teacher.encoder if teacher.masked_lm is None else teacher.masked_lm).double()
    teacher.dense.double()
    return teacher


def student_of(teacher: Teacher, architecture: str = "2-2-24-40") -> Student:
    """Random weights, large enough to matter; no dropout; double precision."""
    torch.manual_seed(0)
    blueprint = Blueprint.of_teacher(teacher, teacher.masked_lm is not None, True)
    student = Student(Architecture.parse(architecture), blueprint).double().eval()
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.2)
    return student


def copy_of(teacher: Teacher) -> Student:
    student = Student(teacher.architecture, Blueprint.of_teacher(teacher, True, True)).double().eval()
    student.model.load_state_dict(teacher.masked_lm.state_dict())
    return student


def corpus(number: int = 40) -> Segments:
    random = np.random.default_rng(1)
    sizes = random.integers(2, LENGTH - 1, number)
    return Segments(random.integers(5, 90, sizes.sum()).astype(np.int32), np.cumsum(sizes) - sizes, sizes)


def parts_of_a_batch(teacher: Teacher, number: int = 1) -> list[dict[str, Any]]:
    """The first batch, of some 8 sequences of different lengths, cut into so many parts."""
    collator = Collator(teacher.tokenizer, Recipe(max_length=LENGTH), Masker(teacher.tokenizer), 0)
    loader = Loader(Packed(corpus(), 0), Budget(128, LENGTH), collator, accumulation=number)
    return list(islice(loader, number))


def arguments(part: dict[str, Any]) -> dict[str, Any]:
    return {name: part[name] for name in ("ids", "mask", "where", "labels")}


def gradients(distiller: Distiller, side: TeacherSide, parts: list[dict[str, Any]]) -> dict[str, Tensor]:
    """The sum over parts of losses ("loss", and each by name) and of gradients by parameter."""
    distiller.zero_grad()
    total: dict[str, Tensor] = {}
    for part in parts:
        targets = side.live(part["ids"], part["mask"], part["where"])
        found = distiller(**arguments(part), targets=targets, shares=part["shares"])
        found["loss"].backward()
        for name, value in found.items():
            total[name] = total.get(name, torch.zeros(())) + value.detach()
    grads = {name: p.grad.clone() for name, p in distiller.named_parameters() if p.grad is not None}
    assert not set(grads) & set(total)
    return total | grads


MASKED = {name: ALL[name] for name in ("mlm", "logits", "relations")}
"""What needs nothing of the last layer but its masked positions and its attention."""


@pytest.mark.parametrize("weights", [ALL, MASKED], ids=["all", "masked"])
@pytest.mark.parametrize("number", [2, 3, 5])
def test_the_parts_of_a_batch_add_up_to_the_batch(teacher: Teacher, weights: dict[str, float], number: int) -> None:
    check_adds_up(teacher, number, weights)


@pytest.mark.parametrize("bounds", [[0, 1, 2, -1], [0, -1, -1], [0, 1, -1]])
def test_very_uneven_parts_add_up_too(teacher: Teacher, monkeypatch: pytest.MonkeyPatch, bounds: list[int]) -> None:
    def uneven(sizes: Any, count: int) -> list[slice]:
        edges = [*(at % len(sizes) for at in bounds), len(sizes)] if count > 1 else [0, len(sizes)]
        edges = sorted(set(edges))
        assert len(edges) == count + 1
        return [slice(*pair) for pair in pairwise(edges)]

    number = len(set(bounds))
    check_adds_up(teacher, number, ALL, lambda: monkeypatch.setattr(collate, "parts", uneven))


def check_adds_up(teacher: Teacher, number: int, weights: dict[str, float], before: Any = lambda: None) -> None:
    distiller = Distiller(student_of(teacher), weights, teacher).double().eval()
    side = TeacherSide(teacher, distiller)
    whole = gradients(distiller, side, parts_of_a_batch(teacher))
    before()
    parts = parts_of_a_batch(teacher, number)
    assert len({part["ids"].shape for part in parts}) > 1  # not a batch of equals
    divided = gradients(distiller, side, parts)
    # All that is trained: the student, its head, its projection where it is needed, and the maps
    trained = {name for name, _ in distiller.named_parameters() if "embedding" in weights or "projection" not in name}
    assert whole.keys() == {"loss", *weights} | trained
    assert whole.keys() == divided.keys()
    for name, value in whole.items():
        assert value.abs().max() > 0 or name.endswith("key.bias"), name  # which shifts all logits alike
        torch.testing.assert_close(divided[name], value, rtol=1e-9, atol=1e-12, msg=name)


VECTORS = {"embedding": 1.0, "similarities": 0.5, "margins": 2.0}


def of_vectors(teacher: Teacher, weights: dict[str, float], **options: Any) -> tuple[Distiller, TeacherSide]:
    distiller = Distiller(student_of(teacher), weights, teacher, **options).double().eval()
    bank = Bank(torch.randn(50, 32, generator=torch.Generator().manual_seed(0)))
    return distiller, TeacherSide(teacher, distiller, bank if "margins" in weights else None)


def test_margins_add_up_and_similarities_are_those_within_a_part(bert: Teacher) -> None:
    distiller, side = of_vectors(bert, {"margins": 1.0})
    whole, parts = parts_of_a_batch(bert), parts_of_a_batch(bert, 2)
    found, divided = gradients(distiller, side, whole), gradients(distiller, side, parts)
    assert found["margins"] > 0.01
    for name, value in found.items():
        torch.testing.assert_close(divided[name], value, rtol=1e-9, atol=1e-12, msg=name)
    distiller, side = of_vectors(bert, {"similarities": 1.0})
    found, divided = gradients(distiller, side, whole), gradients(distiller, side, parts)
    own = [
        part["shares"]["sequences"]
        * similarity_divergence(
            distiller.student(part["ids"], part["mask"]), side.live(part["ids"], part["mask"])["embedding"]
        ).item()
        for part in parts
    ]
    assert divided["similarities"].item() == pytest.approx(sum(own))
    assert abs(found["similarities"].item() - sum(own)) > 1e-3


def test_losses_of_vectors_need_nothing_else_of_the_teacher(teacher: Teacher) -> None:
    distiller, side = of_vectors(teacher, VECTORS)
    assert side.kinds == ["embedding"]
    (part,) = parts_of_a_batch(teacher)
    targets = side.live(part["ids"], part["mask"])
    assert targets["negatives"].shape == (len(part["ids"]), 8, 32)
    found = distiller(part["ids"], part["mask"], targets=targets)
    vectors = distiller.student(part["ids"], part["mask"])
    expected = {
        "embedding": embedding_distance(vectors, targets["embedding"]),
        "similarities": similarity_divergence(vectors, targets["embedding"]),
        "margins": margin_difference(vectors, targets["embedding"], targets["negatives"]),
    }
    assert found.keys() == {"loss", *VECTORS}
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-9), name
    of_text = TextSide(None, side.bank).targets({"embedding": targets["embedding"]})  # type: ignore[arg-type]
    assert torch.equal(of_text["negatives"], targets["negatives"])
    assert set(TextSide(None).targets({"embedding": targets["embedding"]})) == {"embedding"}  # type: ignore[arg-type]


def test_the_loss_is_the_weighted_sum(teacher: Teacher) -> None:
    distiller = Distiller(student_of(teacher), ALL, teacher).double().eval()
    (part,) = parts_of_a_batch(teacher)
    found = distiller(**arguments(part), targets=TeacherSide(teacher, distiller).live(*first_three(part)))
    assert set(found) == {"loss", *ALL}
    assert found["loss"].item() == pytest.approx(sum(weight * found[name].item() for name, weight in ALL.items()))
    assert not any(found[name].requires_grad for name in ALL)
    for name, weight in ALL.items():  # alone it is the same
        single = Distiller(distiller.student, {name: weight}, teacher).double().eval()
        single.maps.load_state_dict(distiller.maps.state_dict() if name == "hidden" else {})
        assert single.masked == (name in ("mlm", "logits"))
        alone = single(**arguments(part), targets=TeacherSide(teacher, single).live(*first_three(part)))
        assert set(alone) == {"loss", name}
        assert alone["loss"].item() == pytest.approx(weight * found[name].item())


def test_what_is_left_out_changes_no_gradient(bert: Teacher) -> None:
    """Without losses that see all positions, only masked ones go through the last layer: the same, for less."""
    teacher = bert
    student = student_of(teacher)
    lean = Distiller(student, MASKED, teacher).double().eval()
    sizes: list[tuple[int, ...]] = []
    hook = student.encoder.encoder.layer[-1].output.register_forward_hook(lambda *given: sizes.append(given[2].shape))
    (part,) = parts_of_a_batch(teacher)
    found = gradients(lean, TeacherSide(teacher, lean), [part])
    assert sizes == [(len(part["where"]), 24)]
    hook.remove()
    full = Distiller(student_of(teacher), MASKED | {"hidden": 1e-300}, teacher).double().eval()
    expected = gradients(full, TeacherSide(teacher, full), [part])
    for name in found.keys() - {"loss"}:
        torch.testing.assert_close(found[name], expected[name], rtol=1e-9, atol=1e-12, msg=name)
    assert found["loss"].item() == pytest.approx(expected["loss"].item(), rel=1e-12)


def first_three(part: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
    return part["ids"], part["mask"], part["where"]


def test_each_loss_is_its_formula_on_what_the_models_say(teacher: Teacher) -> None:
    """The models' inner states taken by hand, layer by layer, and not by the hooks and outputs the distiller uses."""
    student = student_of(teacher)
    distiller = Distiller(student, ALL, teacher, temperature=3.0).double().eval()
    (part,) = parts_of_a_batch(teacher)
    found = distiller(**arguments(part), targets=TeacherSide(teacher, distiller).live(*first_three(part)))
    mask, where, labels = part["mask"], part["where"], part["labels"]
    own, theirs = states(student.encoder, part), states(teacher.encoder, part)
    own_logits, logits = (model.head(s[-1].flatten(0, 1)[where]) for model, s in ((student, own), (teacher, theirs)))
    assert student.projection is not None
    assert distiller.layers == [(1, 2), (2, 3)]
    hidden = [hidden_distance(distiller.maps[at - 1](own[at]), theirs[to], mask) for at, to in ((1, 2), (2, 3))]
    related = [
        relation(vectors(student.encoder, own, kind), vectors(teacher.encoder, theirs, kind), 4, mask)
        for kind in ("query", "key", "value")
    ]
    expected: dict[str, Tensor] = {
        "mlm": masked_lm(own_logits, labels),
        "logits": distillation(own_logits, logits, 3.0),
        "embedding": embedding_distance(
            student.projection(pool(own[-1], mask, "mean")), pool(theirs[-1], mask, "mean")
        ),
        "hidden": torch.stack(hidden).mean(),
        "relations": torch.stack(related).mean(),
    }
    for name, value in expected.items():
        assert found[name].item() == pytest.approx(value.item(), rel=1e-9), name


@torch.no_grad()
def states(encoder: Any, part: dict[str, Any]) -> list[Tensor]:
    """The hidden states of an encoder, those of the embeddings first."""
    seen = [encoder.embeddings(part["ids"])]
    allowed = ((part["mask"] - 1) * 1e9)[:, None, None].double()
    if encoder.config.model_type == "bert":
        for layer in encoder.encoder.layer:
            seen.append(layer(seen[-1], allowed))
        return seen
    places = torch.arange(part["ids"].shape[1])
    far = (places[:, None] - places).abs() > encoder.config.local_attention // 2
    for at, layer in enumerate(encoder.layers):
        kind = "sliding_attention" if at % 3 else "full_attention"
        turned = encoder.rotary_emb(seen[-1], places[None], kind)
        mask = allowed - 1e9 * far.double() * (at % 3 > 0)
        seen.append(layer(seen[-1], attention_mask=mask, position_embeddings=turned))
    return [*seen[:-1], encoder.final_norm(seen[-1])]


def vectors(encoder: Any, seen: list[Tensor], kind: str) -> Tensor:
    """Queries, keys or values of the last layer."""
    if encoder.config.model_type == "bert":
        linear = getattr(encoder.encoder.layer[-1].attention.self, kind)
        result: Tensor = seen[-2] @ linear.weight.T + linear.bias
        return result
    layer, at = encoder.layers[-1], ("query", "key", "value").index(kind)
    normed: Tensor = layer.attn_norm(seen[-2])
    return normed @ layer.attn.Wqkv.weight.chunk(3)[at].T


def test_likely_tokens_only(teacher: Teacher) -> None:
    distiller = Distiller(student_of(teacher), {"logits": 1.0}, teacher, temperature=1.5).double().eval()
    (part,) = parts_of_a_batch(teacher)
    logits = TeacherSide(teacher, distiller).live(*first_three(part))["logits"]
    soft, tokens = (logits / 1.5).log_softmax(-1).topk(7)
    found = distiller(**arguments(part), targets={"top": (tokens, soft)})
    own = student_logits(distiller.student, part)
    assert found["logits"].item() == pytest.approx(distillation_top(own, tokens, soft, 1.5).item())


def student_logits(student: Student, part: dict[str, Any]) -> Tensor:
    logits: Tensor = student.model(input_ids=part["ids"], attention_mask=part["mask"]).logits.flatten(0, 1)
    return logits[part["where"]]


def test_a_student_that_equals_the_teacher_has_nothing_to_learn_from_it(teacher: Teacher) -> None:
    distiller = Distiller(copy_of(teacher), ALL, teacher).double().eval()
    (part,) = parts_of_a_batch(teacher)
    targets = TeacherSide(teacher, distiller).live(*first_three(part))
    found = distiller(**arguments(part), targets=targets)
    assert distiller.heads == 4
    for name in ("logits", "embedding", "hidden", "relations"):
        assert abs(found[name].item()) < 1e-12, name
    assert found["mlm"].item() > 1
    with torch.no_grad():  # and one that does not, has
        attention, _ = readers_of(layers_of(distiller.student.encoder)[-1])
        attention[1][0].weight.mul_(0.8)
    other = distiller(**arguments(part), targets=targets)
    assert all(other[name].item() > 1e-5 for name in ("logits", "embedding", "hidden", "relations"))


@pytest.mark.parametrize("architecture", ["1-1-16-8", "3-4-32-64", "2-6-48-16", "5-5-20-24"])
def test_other_shapes(teacher: Teacher, architecture: str) -> None:
    shape = Architecture.parse(architecture)
    distiller = Distiller(student_of(teacher, architecture), ALL, teacher).double().eval()
    parts = parts_of_a_batch(teacher)
    found = gradients(distiller, TeacherSide(teacher, distiller), parts)
    assert all(math.isfinite(value) and value > 0 for value in (found[name].item() for name in ALL))
    assert len(distiller.maps) == shape.depth
    assert {tuple(to.weight.shape) for to in distiller.maps} == {(32, shape.hidden)}
    assert distiller.heads == {16: 4, 32: 4, 48: 4, 20: 4}[shape.hidden]


def test_depth_0_can_learn_all_but_relations(bert: Teacher) -> None:
    teacher = bert
    weights = {name: weight for name, weight in ALL.items() if name != "relations"}
    distiller = Distiller(student_of(teacher, "0-0-32-0"), weights, teacher).double().eval()
    assert distiller.layers == [(0, 3)]
    found = gradients(distiller, TeacherSide(teacher, distiller), parts_of_a_batch(teacher))
    assert all(found[name].item() > 0 for name in weights)
    parts = parts_of_a_batch(teacher)
    last = TeacherSide(teacher, distiller).live(*first_three(parts[0]))["hidden"][0]
    own = distiller.maps[0](distiller.student.encoder.embeddings(parts[0]["ids"]))
    assert found["hidden"].item() == pytest.approx(hidden_distance(own, last, parts[0]["mask"]).item())
    with pytest.raises(InvalidConfig, match="loss_relations compares attention, and a model of depth 0 has none"):
        Distiller(student_of(teacher, "0-0-32-0"), ALL, teacher)


def test_padding_changes_nothing(teacher: Teacher) -> None:
    distiller = Distiller(student_of(teacher), ALL, teacher).double().eval()
    side = TeacherSide(teacher, distiller)
    (part,) = parts_of_a_batch(teacher)
    length = part["ids"].shape[1]
    row, column = part["where"] // length, part["where"] % length
    wider = part | {
        "ids": torch.nn.functional.pad(part["ids"], (0, 5), value=7),  # tokens that are not there
        "mask": torch.nn.functional.pad(part["mask"], (0, 5)),
        "where": row * (length + 5) + column,
    }
    narrow, wide = gradients(distiller, side, [part]), gradients(distiller, side, [wider])
    for name, value in narrow.items():
        torch.testing.assert_close(wide[name], value, rtol=1e-9, atol=1e-12, msg=name)


def test_layers_are_compared_evenly_and_up_to_the_last() -> None:
    assert layer_pairs(2, 6) == [(1, 3), (2, 6)]
    assert layer_pairs(6, 6) == [(at, at) for at in range(1, 7)]
    assert layer_pairs(4, 24) == [(1, 6), (2, 12), (3, 18), (4, 24)]
    assert layer_pairs(3, 2) == [(1, 1), (2, 1), (3, 2)]
    assert layer_pairs(0, 6) == [(0, 6)]


def test_relation_heads_divide_both_widths() -> None:
    assert relation_heads(384, 384, 12) == 12
    assert relation_heads(256, 384, 12) == 8
    assert relation_heads(312, 384, 12) == 12
    assert relation_heads(25, 384, 12) == 1


def test_what_is_asked_of_the_teacher(teacher: Teacher) -> None:
    def kinds(**weights: float) -> list[str]:
        return TeacherSide(teacher, Distiller(student_of(teacher), weights, teacher)).kinds

    assert kinds(embedding=1.0) == ["embedding"]
    assert kinds(mlm=1.0, logits=1.0) == ["logits"]
    assert kinds(relations=1.0) == ["state 2"]  # what enters the last of 3 layers
    assert kinds(hidden=1.0, relations=1.0) == ["state 3", "state 2"]  # a state that both need is there once


def test_the_teacher_learns_nothing(teacher: Teacher) -> None:
    before = copy.deepcopy(teacher.masked_lm.state_dict())
    distiller = Distiller(student_of(teacher), ALL, teacher).double()
    gradients(distiller, TeacherSide(teacher, distiller), parts_of_a_batch(teacher))
    assert all(parameter.grad is None for parameter in teacher.masked_lm.parameters())
    assert all(torch.equal(value, before[name]) for name, value in teacher.masked_lm.state_dict().items())
    assert not any("teacher" in name for name in distiller.state_dict())


def test_sentence_encoders_pooled_by_the_first_token(tmp_path: Path) -> None:
    """RoBERTa, no masked-LM head: the input is not masked."""
    teacher = precise(Teacher.load(tiny_teacher(tmp_path, family="roberta", pooling="cls")))
    distiller = Distiller(student_of(teacher), {"embedding": 1.0, "relations": 1.0}, teacher).double().eval()
    assert not distiller.masked
    inputs = Collator(teacher.tokenizer, teacher.recipe, None, 0)(list(corpus(6)), np.arange(6), 0)
    targets = TeacherSide(teacher, distiller).live(inputs.ids, inputs.mask)
    found = distiller(inputs.ids, inputs.mask, targets=targets)
    assert isinstance(inputs, Inputs)
    expected = embedding_distance(distiller.student(inputs.ids, inputs.mask), targets["embedding"])
    assert found["embedding"].item() == pytest.approx(expected.item())
    assert torch.allclose(targets["embedding"], teacher.encoder(inputs.ids, inputs.mask).last_hidden_state[:, 0])
    assert found["relations"].item() > 0


def test_losses_without_what_they_need(teacher: Teacher, tmp_path: Path) -> None:
    for name in ("logits", "hidden", "relations"):
        with pytest.raises(InvalidConfig, match=f"loss_{name} needs a teacher, and there is none"):
            Distiller(student_of(teacher), {"mlm": 1.0, name: 1.0})
    headless = Teacher.load(tiny_teacher(tmp_path / "headless"))
    with pytest.raises(InvalidTeacher, match="has no masked-LM head"):
        Distiller(student_of(teacher), {"logits": 1.0}, headless)
    roberta = Teacher.load(tiny_teacher(tmp_path / "smaller", masked_lm=True))
    roberta.encoder.resize_token_embeddings(90)
    with pytest.raises(InvalidConfig, match=r"teacher has 90 tokens, the student \d+"):
        Distiller(student_of(teacher), {"logits": 1.0}, roberta)


def test_masked_lm_alone_needs_no_teacher(teacher: Teacher) -> None:
    (part,) = parts_of_a_batch(teacher)
    distiller = Distiller(student_of(teacher), {"mlm": 2.0}).double().eval()
    expected = masked_lm(student_logits(distiller.student, part), part["labels"])
    assert distiller(**arguments(part))["loss"].item() == pytest.approx(2 * expected.item())


@pytest.mark.slow
@pytest.mark.parametrize("weights", [ALL, MASKED], ids=["all", "masked"])
def test_a_compiled_encoder_gives_the_same(teacher: Teacher, weights: dict[str, float]) -> None:
    """Of the relations above all, which are taken by hooks inside what is compiled."""
    plain, compiled = (Distiller(student_of(teacher, "1-2-24-40"), weights, teacher).double().eval() for _ in range(2))
    compiled.load_state_dict(plain.state_dict())
    compiled.student.encoder.compile(dynamic=True, backend="eager")
    side = TeacherSide(teacher, plain)
    try:
        for part in parts_of_a_batch(teacher, 2):  # two shapes
            expected, found = gradients(plain, side, [part]), gradients(compiled, side, [part])
            assert found.keys() == expected.keys()
            for name, value in expected.items():
                torch.testing.assert_close(found[name], value, rtol=1e-9, atol=1e-12, msg=name)
    finally:
        torch.compiler.reset()


@pytest.mark.parametrize("family", ["bert", "roberta"])
def test_masked_lm_is_the_stock_models_though_the_last_layer_ends_at_masked_positions(family: str) -> None:
    torch.manual_seed(0)
    student = Student(Architecture.parse("2-4-32-48"), Blueprint(family, Sizes(60, 24), masked_lm=True)).eval()
    ids, mask = torch.randint(5, 60, (4, 20)), torch.ones(4, 20, dtype=torch.long)
    mask[1, 15:] = 0
    is_masked = (torch.rand(ids.shape) < 0.15) & mask.bool()
    where = is_masked.flatten().nonzero().flatten()
    student.model(input_ids=ids, attention_mask=mask, labels=ids.masked_fill(~is_masked, -100)).loss.backward()
    expected = {name: parameter.grad.clone() for name, parameter in student.named_parameters()}  # type: ignore[union-attr]
    student.zero_grad()
    seen: list[torch.Size] = []
    student.encoder.encoder.layer[-1].intermediate.register_forward_hook(lambda _, args, __: seen.append(args[0].shape))
    Distiller(student, {"mlm": 1.0})(ids, mask, where, ids.flatten()[where])["loss"].backward()
    assert seen == [(len(where), 32)]
    for name, parameter in student.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-6, rtol=1e-4)
    assert student.hidden(ids, mask).shape == (4, 20, 32)  # by itself, the student is whole
