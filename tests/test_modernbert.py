"""ModernBERT as teacher and student: counted, loaded, inherited, trained and exported as the stock classes compute."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from sentence_transformers import SentenceTransformer
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize
from torch.utils.flop_counter import FlopCounterMode
from transformers import ModernBertForMaskedLM, ModernBertModel

import subarch
from subarch import Architecture, Inputs, SearchSpace
from subarch.errors import InvalidArchitecture, InvalidConfig, InvalidSpace, InvalidTeacher
from subarch.exporting.graph import load_exportable
from subarch.exporting.int8 import smoothed
from subarch.exporting.parity import Text
from subarch.exporting.runtimes import open_export
from subarch.learning.distill import Distiller
from subarch.models.heads import collate, encode, outputs, tokenizer_for, with_head
from subarch.models.inherit import Anatomy, inherit
from subarch.models.inherit_modern import _turned_alike
from subarch.models.parts import layers_of, set_dropout
from subarch.models.student import Blueprint, Student
from subarch.models.teacher import Teacher
from subarch.numbers.abnc import check
from subarch.numbers.architecture import BIASES, local_pairs
from subarch.planning.cost import Job
from subarch.pretraining.pretrain import train
from subarch.run.folder import RunFolder
from subarch.run.records import Basis, Selection
from tasks_tiny import LABELS, topics
from tiny import WINDOW, tiny_sentences, tiny_teacher
from tiny_export import exported, tiny_model, with_corpus
from tiny_pretrain import tiny_pretraining
from tiny_run import OneProcess, tiny_options

INPUTS = Inputs(50368, 8192, 0, 768, "modernbert", biases=("decoder",))
SPACE = SearchSpace((1, 2, 3, 6, 22), (4, 6, 12), (96, 384, 768), (64, 1152))
SENTENCES, HELD_OUT = tiny_sentences(64), tiny_sentences(32, seed=1)


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


# --- closed forms ---


def test_parameters_equal_the_built_model_for_a_whole_space() -> None:
    with torch.device("meta"):
        for architecture in SPACE:
            model = ModernBertModel(architecture.to_config(INPUTS, "modernbert"))
            count = architecture.parameters(INPUTS)
            assert size(model.embeddings) == count.embeddings
            assert size(model.layers) + size(model.final_norm) == count.encoder
            assert size(model) + count.projection == count.total
    costs = SPACE.costs(INPUTS, 128)
    for row, parameters in enumerate(costs.parameters):
        architecture = costs.architecture(row)
        assert parameters == architecture.parameters(INPUTS).total
        assert costs.operations[row] == architecture.operations(INPUTS, 128)


@pytest.mark.parametrize("biases", [some for n in range(6) for some in itertools.combinations(BIASES, n)])
def test_biases_are_counted_where_there_are_any(biases: tuple[str, ...]) -> None:
    inputs, architecture = Inputs(100, 64, 0, 0, "modernbert", biases=biases), Architecture.parse("2-4-32-24")
    with torch.device("meta"):
        model = ModernBertForMaskedLM(architecture.to_config(inputs, "modernbert"))
    assert size(model) == architecture.parameters(inputs).with_heads


@pytest.mark.parametrize("text", ["1-1-8-3", "3-4-32-24", "4-2-24-40"])
@pytest.mark.parametrize("length", [1, 5, 20])
@pytest.mark.parametrize(("window", "every"), [(8, 3), (6, 2), (128, 1), (64, 5)])
def test_operations_equal_those_counted_on_the_built_model(text: str, length: int, window: int, every: int) -> None:
    """PyTorch's counter sees all pairs of tokens, the masked ones too; those that see each other are in the weights."""
    inputs = Inputs(11, 64, 0, 0, "modernbert", window, every)
    architecture = Architecture.parse(text)
    config = architecture.to_config(inputs, "modernbert", attn_implementation="eager")
    model = ModernBertModel(config).eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        attentions = model(torch.zeros(1, length, dtype=torch.long), output_attentions=True).attentions
    seen = [int((weights[0, 0] > 0).sum()) for weights in attentions]
    masked = sum(length**2 - pairs for pairs in seen)
    counted = counter.get_total_flops() // 2
    assert architecture.operations(inputs, length) == counted - 2 * architecture.hidden * masked
    assert all(pairs in (length**2, local_pairs(length, window)) for pairs in seen)


def test_text_within_the_window_costs_the_same_in_local_layers() -> None:
    narrow, whole = (Inputs(11, 64, 0, 0, "modernbert", 128, every) for every in (3, 1))
    architecture = Architecture.parse("6-4-32-24")
    assert architecture.operations(narrow, 65) == architecture.operations(whole, 65)
    assert architecture.operations(narrow, 66) < architecture.operations(whole, 66)


def test_the_conditions_of_the_scheme_are_checked_with_its_costs() -> None:
    conditions = {one.name: one for one in check(SPACE, INPUTS, 512)}
    assert conditions["order of operations"].holds
    layers = SPACE.costs(INPUTS, 512)
    work = layers.operations - INPUTS.output * layers.table[:, 2] * (layers.table[:, 2] != INPUTS.output)
    assert f"{np.ptp(work):,}" in conditions["growth of operations"].sentence


@pytest.mark.parametrize("text", ["0-0-32-0", "2-4-36-24", "1-32-32-8"])
def test_impossible_shapes_are_refused(text: str) -> None:
    with pytest.raises(InvalidArchitecture, match="at least one layer, and heads of an even size"):
        Architecture.parse(text).to_config(INPUTS, "modernbert")


def test_families_and_inputs_go_together() -> None:
    for family, inputs in (("bert", INPUTS), ("modernbert", Inputs(100))):
        with pytest.raises(InvalidArchitecture, match=f"a {family} cannot have the inputs of a {inputs.family}"):
            Architecture.parse("1-4-32-64").to_config(inputs, family)


def test_no_plan_for_an_impossible_shape() -> None:
    with pytest.raises(InvalidConfig, match="2-4-36-24: a ModernBERT has at least one layer, and heads of an even"):
        Job(Architecture.parse("2-4-36-24"), INPUTS, ("mlm",))


def test_spaces_with_impossible_shapes_are_refused() -> None:
    with pytest.raises(InvalidSpace, match=r"1 of 3 candidates, 0-0-32-0 for one: a ModernBERT has at least one layer"):
        SearchSpace((0, 1, 2), (4,), (32,), (64,)).costs(INPUTS, 32)
    with pytest.raises(InvalidSpace, match="2 of 4 candidates, 1-4-36-64 for one"):
        SearchSpace((1, 2), (4,), (32, 36), (64,)).costs(INPUTS, 32)


# --- teachers ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_teacher(tmp_path / "teacher", family="modernbert", layers=4)


def ids(teacher: Teacher, texts: list[str]) -> list[list[int]]:
    found: list[list[int]] = teacher.tokenizer(texts, add_special_tokens=False)["input_ids"]
    return found


@pytest.mark.parametrize("pooling", ["mean", "cls"])
@pytest.mark.parametrize("layout", ["modules", "plain", "masked-lm"])
def test_embeddings_equal_those_of_sentence_transformers(tmp_path: Path, pooling: str, layout: str) -> None:
    modules = layout != "plain"
    folder = tiny_teacher(
        tmp_path / "t", family="modernbert", pooling=pooling, modules=modules, masked_lm=layout == "masked-lm"
    )
    teacher = Teacher.load(folder)
    texts = [*HELD_OUT, "boat", "the bell and a rose. " * 30]
    found = teacher.embed(ids(teacher, texts)).numpy()
    np.testing.assert_allclose(found, SentenceTransformer(str(folder), device="cpu").encode(texts), atol=1e-5)
    assert teacher.family == "modernbert"
    assert teacher.inputs(5) == Inputs(len(teacher.tokenizer), 64, 0, 5, "modernbert", WINDOW, 3, ("decoder",))
    assert (
        sum(p.numel() for p in teacher.encoder.parameters())
        == teacher.architecture.parameters(teacher.inputs(32)).total
    )


def test_a_head_that_is_not_tied_to_the_embeddings_is_left_behind(tmp_path: Path) -> None:
    folder = tiny_teacher(tmp_path / "t", family="modernbert", masked_lm=True, tie_word_embeddings=False)
    teacher = Teacher.load(folder)
    assert teacher.masked_lm is None
    texts = SentenceTransformer(str(folder), device="cpu").encode(HELD_OUT)
    np.testing.assert_allclose(teacher.embed(ids(teacher, HELD_OUT)), texts, atol=1e-5)


def test_older_configurations_say_the_same(folder: Path) -> None:
    """Published folders have the pattern as a number, and the speeds of rotation as two."""
    config = json.loads((folder / "config.json").read_text())
    rope, kinds = config.pop("rope_parameters"), config.pop("layer_types")
    assert rope["full_attention"]["rope_theta"] == 160000.0
    assert kinds.count("full_attention") == 2
    expected = Teacher.load(folder).embed([[20, 21, 22]])
    old = {"global_attn_every_n_layers": 3, "global_rope_theta": 160000.0, "local_rope_theta": 10000.0}
    (folder / "config.json").write_text(json.dumps(config | old | {"reference_compile": True}))
    assert torch.equal(Teacher.load(folder).embed([[20, 21, 22]]), expected)
    (folder / "config.json").write_text(json.dumps(config | old | {"local_rope_theta": 10.0}))
    assert not torch.equal(Teacher.load(folder).embed([[20, 21, 22]]), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_types": ["full_attention"] * 2 + ["sliding_attention"] * 2}, "layer_types = .* every n-th after it"),
        ({"layer_types": ["sliding_attention"] * 4}, "layer_types"),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}},
            "rope_type = 'linear' of its full_attention is not supported",
        ),
        ({"num_attention_heads": 32}, "4-32-32-64: a ModernBERT has at least one layer, and heads of an even size"),
        ({"head_dim": 4}, "head_dim = 4 is not supported"),
        ({"num_hidden_layers": 0, "layer_types": []}, "configuration or weights cannot be read"),
        ({"num_hidden_layers": 3, "layer_types": None}, "weights of its encoder have no place .* layers.3"),
    ],
)
def test_what_a_student_could_not_follow_is_refused(folder: Path, changes: dict[str, Any], message: str) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(InvalidTeacher, match=message):
        Teacher.load(folder)


@pytest.mark.parametrize(("every", "layers", "found"), [(3, 2, 3), (2, 4, 2), (1, 3, 1), (4, 4, 4), (5, 7, 5)])
def test_the_pattern_of_layers_goes_on_in_deeper_students(tmp_path: Path, every: int, layers: int, found: int) -> None:
    settings = {"global_attn_every_n_layers": every}
    teacher = Teacher.load(tiny_teacher(tmp_path / "t", family="modernbert", layers=layers, **settings))
    assert teacher.inputs(0).global_every == found
    config = Student(Architecture.parse("8-4-32-64"), Blueprint.of_teacher(teacher)).encoder.config
    assert config.layer_types[:layers] == teacher.encoder.config.layer_types
    assert [at for at, kind in enumerate(config.layer_types) if kind == "full_attention"] == list(range(0, 8, found))


def test_students_have_the_teachers_settings(tmp_path: Path) -> None:
    settings = {
        **{"norm_eps": 1e-3, "hidden_activation": "silu", "classifier_activation": "relu", "local_attention": 6},
        **{"attention_bias": True, "mlp_bias": True, "norm_bias": True, "decoder_bias": False, "mlp_dropout": 0.25},
        "rope_parameters": {
            "full_attention": {"rope_type": "default", "rope_theta": 500.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 50.0},
        },
    }
    folder = tiny_teacher(tmp_path / "t", family="modernbert", masked_lm=True, **settings)
    teacher = Teacher.load(folder)
    student = Student(teacher.architecture, Blueprint.of_teacher(teacher, masked_lm=True))
    mine, theirs = student.model.config.to_dict(), teacher.masked_lm.config.to_dict()
    ignored = {"architectures", "_name_or_path", "dtype", "transformers_version"}
    assert {key: value for key, value in theirs.items() if key not in ignored} == {
        key: value for key, value in mine.items() if key not in ignored
    }


# --- inheritance ---


def heir(teacher: Teacher, shape: str, seed: int = 0) -> Student:
    torch.manual_seed(seed)
    anatomy = Anatomy.examine(teacher, ids(teacher, SENTENCES))
    return inherit(Architecture.parse(shape), Blueprint.of_teacher(teacher), teacher, anatomy).eval()


def from_scratch(teacher: Teacher, shape: str) -> Student:
    torch.manual_seed(0)
    return Student(Architecture.parse(shape), Blueprint.of_teacher(teacher)).eval()


@torch.inference_mode()
def deviation(student: Student, teacher: Teacher) -> float:
    """Largest difference of the held-out embeddings, at unit length."""
    batch = teacher.batch(ids(teacher, HELD_OUT))
    target = normalize(teacher.model(batch.ids, batch.mask), dim=-1)
    return float((normalize(student(batch.ids, batch.mask), dim=-1) - target).abs().max())


@torch.inference_mode()
def distance(student: Student, teacher: Teacher) -> float:
    """Mean cosine distance of the held-out embeddings."""
    batch = teacher.batch(ids(teacher, HELD_OUT))
    return float(1 - cosine_similarity(student(batch.ids, batch.mask), teacher.model(batch.ids, batch.mask)).mean())


BIASED = {"attention_bias": True, "mlp_bias": True, "norm_bias": True}
EITHER = pytest.mark.parametrize("settings", [{}, BIASED], ids=["no biases", "biases"])


@EITHER
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_the_teachers_own_shape_is_the_teacher(tmp_path: Path, pooling: str, settings: dict[str, Any]) -> None:
    folder = tiny_teacher(tmp_path / "t", family="modernbert", layers=4, pooling=pooling, **settings)
    teacher = Teacher.load(folder)
    student = heir(teacher, "4-4-32-64")
    assert deviation(student, teacher) < 1e-6
    assert deviation(from_scratch(teacher, "4-4-32-64"), teacher) > 0.1  # the yardstick sees a difference
    stock = teacher.encoder.state_dict()
    assert student.model.state_dict().keys() == stock.keys()
    assert all(torch.allclose(value, stock[name], atol=1e-6) for name, value in student.model.state_dict().items())


def test_the_masked_lm_head_comes_along_where_the_widths_agree(tmp_path: Path) -> None:
    teacher = Teacher.load(tiny_teacher(tmp_path / "t", family="modernbert", masked_lm=True))
    anatomy = Anatomy.examine(teacher, ids(teacher, SENTENCES))
    blueprint = Blueprint.of_teacher(teacher, masked_lm=True)
    batch = teacher.batch(ids(teacher, HELD_OUT))
    real = batch.mask.bool()
    with torch.inference_mode():
        expected = teacher.masked_lm(input_ids=batch.ids, attention_mask=batch.mask).logits[real]
        student = inherit(Architecture.parse("3-4-32-64"), blueprint, teacher, anatomy).eval()
        assert torch.allclose(student.head(student.hidden(batch.ids, batch.mask)[real]), expected, atol=1e-4)
        narrow = inherit(Architecture.parse("2-4-16-64"), blueprint, teacher, anatomy).eval()
        assert narrow.head(narrow.hidden(batch.ids, batch.mask)[real]).shape == expected.shape
    assert student.tied_names == {"model.decoder.weight"}


@EITHER
def test_idle_neurons_are_the_ones_removed(tmp_path: Path, settings: dict[str, Any]) -> None:
    """Idle ones write nothing, or have a gate that is shut."""
    teacher = Teacher.load(tiny_teacher(tmp_path / "t", family="modernbert", **settings))
    with torch.no_grad():
        for at, layer in enumerate(layers_of(teacher.encoder)):
            layer.mlp.Wo.weight[:, at : at + 12] = 0
            layer.mlp.Wi.weight[64 + 30 : 64 + 42] = 0
            if layer.mlp.Wi.bias is not None:
                layer.mlp.Wi.bias[64 + 30 : 64 + 42] = 0
    assert deviation(heir(teacher, "3-4-32-40"), teacher) < 1e-5
    assert deviation(heir(teacher, "3-4-32-39"), teacher) > 1e-5


def test_a_constant_neuron_goes_into_the_bias(tmp_path: Path) -> None:
    teacher = Teacher.load(tiny_teacher(tmp_path / "t", family="modernbert", mlp_bias=True))
    with torch.no_grad():
        for layer in layers_of(teacher.encoder):
            for half in (0, 64):
                layer.mlp.Wi.weight[half : half + 24] = 0
                layer.mlp.Wi.bias[half : half + 24] = 0.5
            layer.mlp.Wo.weight[:, :24] *= 0.03  # less energy than the others, yet enough to be missed
    student = heir(teacher, "3-4-32-40")
    assert deviation(student, teacher) < 1e-6
    with torch.no_grad():
        for own, theirs in zip(layers_of(student.encoder), layers_of(teacher.encoder), strict=True):
            own.mlp.Wo.bias.copy_(theirs.mlp.Wo.bias)
    assert deviation(student, teacher) > 1e-4


@EITHER
def test_a_narrower_stream_is_exact_where_the_teacher_uses_no_more(tmp_path: Path, settings: dict[str, Any]) -> None:
    """All that is written into the stream lies in 15 dimensions orthogonal to the ones; gains of readers do not matter.

    Two heads of four write nothing, others than the first two.
    """
    teacher = Teacher.load(tiny_teacher(tmp_path / "t", family="modernbert", layers=4, **settings))
    encoder = teacher.encoder
    with torch.no_grad():
        random = torch.randn(32, 15, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        basis = torch.linalg.qr(random - random.mean(0)).Q
        onto = (basis @ basis.T).float()
        encoder.embeddings.tok_embeddings.weight.copy_(4 * encoder.embeddings.tok_embeddings.weight @ onto)
        nn.init.ones_(encoder.embeddings.norm.weight)
        if settings:
            nn.init.zeros_(encoder.embeddings.norm.bias)
        for layer in layers_of(encoder):
            for end in (layer.attn.Wo, layer.mlp.Wo):
                end.weight.copy_(onto @ end.weight)
                if end.bias is not None:
                    end.bias.copy_(onto @ end.bias)
            layer.attn.Wo.weight.view(32, 4, 8)[:, [0, 2]] = 0
    student = heir(teacher, "4-2-16-64")
    assert student.projection is not None
    assert deviation(student, teacher) < 1e-4
    assert deviation(heir(teacher, "4-2-12-64"), teacher) > 1e-3


@EITHER
def test_an_idle_layer_is_removed(tmp_path: Path, settings: dict[str, Any]) -> None:
    """The last: others would have a layer of another kind follow."""
    teacher = Teacher.load(tiny_teacher(tmp_path / "t", family="modernbert", layers=3, **settings))
    with torch.no_grad():
        for end in (layers_of(teacher.encoder)[2].attn.Wo, layers_of(teacher.encoder)[2].mlp.Wo):
            for parameter in end.parameters():
                parameter.zero_()
    assert deviation(heir(teacher, "2-4-32-64"), teacher) < 1e-6
    assert deviation(heir(teacher, "1-4-32-64"), teacher) > 1e-3


def test_a_norm_before_the_first_attention_is_folded_into_it(tmp_path: Path) -> None:
    """All vectors of the embeddings have the same length behind their norm, if its gains are one: then it is exact."""
    teacher = Teacher.load(tiny_teacher(tmp_path / "t", family="modernbert", layers=2, local_attention=128))
    encoder = teacher.encoder
    with torch.no_grad():
        nn.init.ones_(encoder.embeddings.norm.weight)
        for end in (encoder.layers[0].attn.Wo, encoder.layers[0].mlp.Wo):
            end.weight.zero_()
    rope = encoder.config.rope_parameters
    rope["sliding_attention"]["rope_theta"] = rope["full_attention"]["rope_theta"]
    encoder.rotary_emb = type(encoder.rotary_emb)(encoder.config)
    student = heir(teacher, "1-4-32-64")
    assert deviation(student, teacher) < 1e-4  # their lengths differ by the norm's epsilon
    student.encoder.layers[0].attn.load_state_dict(encoder.layers[1].attn.state_dict())
    assert deviation(student, teacher) > 1e-2


@EITHER
def test_a_wider_block_changes_nothing_yet(tmp_path: Path, settings: dict[str, Any]) -> None:
    teacher = Teacher.load(tiny_teacher(tmp_path / "t", family="modernbert", **settings))
    student = heir(teacher, "3-4-32-100")
    assert deviation(student, teacher) < 1e-6
    for layer in student.encoder.layers:  # what is new can learn
        assert layer.mlp.Wi.weight[64:100].abs().min(1).values.max() > 0


def turned(states: Tensor, theta: float) -> Tensor:
    """(L, d) vectors of one head, turned by their positions as in the stock model."""
    half = states.shape[1] // 2
    speeds = theta ** (-torch.arange(half, dtype=torch.float64) / half)
    angles = torch.arange(len(states), dtype=torch.float64)[:, None] * speeds
    first, second = states[:, :half], states[:, half:]
    parts = [first * angles.cos() - second * angles.sin(), second * angles.cos() + first * angles.sin()]
    return torch.cat(parts, 1)


@pytest.mark.parametrize("theta", [10.0, 1e4])
def test_heads_of_half_the_size_keep_the_speeds_of_rotation(theta: float) -> None:
    """A head that uses only every second pair, at the speeds that a head of half its size has, loses nothing."""
    generator = torch.Generator().manual_seed(0)
    query, key, x = (torch.randn(*shape, generator=generator).double() for shape in ((16, 24), (16, 24), (9, 24)))
    for rows in (query, key):
        rows.view(2, 4, 2, 24)[:, :, 1] = 0
    expected = turned(x @ query.T, theta) @ turned(x @ key.T, theta).T
    q, k = _turned_alike(query, key, 1, 8)
    found = turned(x @ q.T, theta) @ turned(x @ k.T, theta).T
    assert torch.allclose(found, expected, atol=1e-9)


def test_merged_heads_that_do_not_turn_give_the_sum_of_their_logits() -> None:
    generator = torch.Generator().manual_seed(0)
    query, key, x = (torch.randn(*shape, generator=generator).double() for shape in ((16, 24), (16, 24), (9, 24)))
    q, k = _turned_alike(query, key, 2, 16)
    assert torch.allclose((x @ q.T) @ (x @ k.T).T, (x @ query.T) @ (x @ key.T).T)


SHAPES = ["4-4-24-64", "4-2-16-64", "4-4-16-32", "2-4-32-64", "1-4-32-16", "2-2-8-64", "4-8-32-64", "4-1-30-100"]
WIDER = ["4-4-48-64", "5-4-32-64"]


@EITHER
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_every_start_is_nearer_than_noise(tmp_path: Path, pooling: str, settings: dict[str, Any]) -> None:
    teacher = Teacher.load(tiny_teacher(tmp_path / "t", family="modernbert", layers=4, pooling=pooling, **settings))
    with torch.no_grad():  # layers that change the stream by little, as those of trained encoders do
        for layer in layers_of(teacher.encoder):
            for end in (layer.attn.Wo, layer.mlp.Wo):
                end.weight *= 0.3
    anatomy = Anatomy.examine(teacher, ids(teacher, SENTENCES))
    for shape in SHAPES + WIDER:
        torch.manual_seed(0)
        student = inherit(Architecture.parse(shape), Blueprint.of_teacher(teacher), teacher, anatomy).eval()
        assert distance(student, teacher) < 0.6 * distance(from_scratch(teacher, shape), teacher), shape


def test_the_ranking_of_layers_moves_them_as_they_are(folder: Path) -> None:
    """Against copies of the teacher with layers left out, each with its own kind and norm."""
    teacher = Teacher.load(folder)
    segments, blocks = ids(teacher, SENTENCES), layers_of(teacher.encoder)
    whole = teacher.embed(segments)

    def moved(kept: list[int]) -> float:
        teacher.encoder.layers = nn.ModuleList(blocks[at] for at in kept)
        distance = float(1 - cosine_similarity(teacher.embed(segments), whole).mean())
        teacher.encoder.layers = blocks
        return distance

    keep = Anatomy.examine(teacher, segments).keep
    assert layers_of(teacher.encoder) is blocks
    left = list(range(4))
    for removed in keep[::-1]:
        assert removed == min(left, key=lambda at: moved([one for one in left if one != at]))
        left.remove(removed)


# --- training ---


def test_masked_lm_is_the_stock_models(tmp_path: Path) -> None:
    torch.manual_seed(0)
    inputs = Inputs(60, 24, 0, 0, "modernbert", WINDOW, biases=("decoder",))
    student = Student(Architecture.parse("3-4-32-48"), Blueprint("modernbert", inputs, masked_lm=True)).eval()
    tokens, mask = torch.randint(5, 60, (4, 20)), torch.ones(4, 20, dtype=torch.long)
    mask[1, 15:] = 0
    is_masked = (torch.rand(tokens.shape) < 0.15) & mask.bool()
    where = is_masked.flatten().nonzero().flatten()
    student.model(input_ids=tokens, attention_mask=mask, labels=tokens.masked_fill(~is_masked, -100)).loss.backward()
    expected = {name: parameter.grad.clone() for name, parameter in student.named_parameters()}  # type: ignore[union-attr]
    student.zero_grad()
    Distiller(student, {"mlm": 1.0})(tokens, mask, where, tokens.flatten()[where])["loss"].backward()
    for name, parameter in student.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-6, rtol=1e-4)


def test_dropout_is_set_everywhere(folder: Path) -> None:
    student = from_scratch(Teacher.load(folder), "2-4-32-64").train()
    batch = torch.randint(5, 60, (2, 9)), torch.ones(2, 9, dtype=torch.long)
    assert torch.equal(student(*batch), student(*batch))
    set_dropout(student, 0.3)
    assert not torch.equal(student(*batch), student(*batch))
    assert [layer.attn.attention_dropout for layer in layers_of(student.encoder)] == [0.3, 0.3]
    set_dropout(student, 0.0)
    assert torch.equal(student(*batch), student(*batch))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished extraction from a ModernBERT, and its exports."""
    folder = tmp_path_factory.mktemp("world")
    tiny_teacher(folder / "teacher", family="modernbert", layers=4)
    axes = {"depth": [1, 2, 4], "heads": [4], "hidden": [16, 32], "intermediate": [16, 64]}
    (folder / "space.yaml").write_text(yaml.safe_dump(axes), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subarch.pipeline.Workers", OneProcess)
        subarch.extract(folder / "run", **tiny_options(folder, strategy=None, epsilon=None))
    return folder / "run"


def test_a_run_ends_in_a_stock_folder_that_sentence_transformers_reads(run: Path) -> None:
    basis, selection = RunFolder(run).read(Basis), RunFolder(run).read(Selection)
    assert basis.blueprint.family == basis.inputs.family == "modernbert"
    assert "correctly excluded" in subarch.verify(run)[0]
    selected = Teacher.load(run / "selected")
    assert str(selected.architecture) == selection.winner.architecture
    assert selected.family == "modernbert"
    assert selection.winner.parameters == selected.architecture.parameters(Inputs(**basis.inputs.model_dump())).total
    model = SentenceTransformer(str(run / "selected"), device="cpu")
    built = sum(parameter.numel() for parameter in model.parameters())
    assert built == selection.winner.parameters
    np.testing.assert_allclose(selected.embed(ids(selected, HELD_OUT)), model.encode(HELD_OUT), atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", ["onnx", "openvino"])
def test_its_exports_compute_the_same(run: Path, runtime: str) -> None:
    exact = subarch.export(run, runtime=runtime)
    assert exact.inputs == ("input_ids", "attention_mask")
    small = subarch.export(run, runtime=runtime, quantize="int8").likeness["sentence_embedding"]
    assert 0.95 <= small.worst_cosine < 1 - 1e-9
    texts = [HELD_OUT[0], "boat", " ".join(HELD_OUT[:4])]
    expected = SentenceTransformer(str(run / "selected"), device="cpu").encode(texts)
    batch = Teacher.load(run / "selected").tokenizer(texts, padding=True, truncation=True, return_tensors="np")
    found = open_export(run / "exported" / runtime, threads=1)(dict(batch))["sentence_embedding"]
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["masked-lm", "classification", "choice"])
def test_other_heads_are_exported(head: str, tmp_path: Path) -> None:
    model = tiny_model(tmp_path / "model", head, "modernbert", layers=4)
    exact = exported(model, tmp_path / "run", runtime="onnx")
    small = exported(model, tmp_path / "run", runtime="onnx", quantize="int8-static", **with_corpus(tmp_path))
    assert exact.likeness["logits"].share_of_limit < 1
    assert small.files["model.onnx"].bytes < exact.files["model.onnx"].bytes


def test_smoothing_changes_nothing_in_fp32(tmp_path: Path) -> None:
    model = load_exportable(tiny_model(tmp_path / "model", "sentence", "modernbert", layers=4))
    batches = Text.find(model, None, "text", tmp_path, tmp_path / "to").batches(model, longest=32)
    changed = smoothed(model.graph, batches)
    inputs = [torch.from_numpy(batches[-1][name]) for name in changed.inputs]
    with torch.no_grad():
        for one, other in zip(model.graph(*inputs), changed(*inputs), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    weights = [layers_of(graph.model)[1].attn.Wqkv.weight for graph in (model.graph, changed)]
    assert not torch.allclose(*weights, rtol=0.1)


@pytest.mark.parametrize("masked_lm", [False, True])
def test_pretraining_goes_on_from_there(masked_lm: bool, tmp_path: Path) -> None:
    teacher = tiny_teacher(tmp_path / "teacher", family="modernbert", masked_lm=masked_lm, modules=not masked_lm)
    config = tiny_pretraining(tmp_path, masked_lm, teacher=teacher, architecture="2-4-16-32", dropout=0.1)
    train(tmp_path / "run", config)
    trained = Teacher.load(tmp_path / "run" / "pretrained")
    assert (trained.family, str(trained.architecture)) == ("modernbert", "2-4-16-32")
    assert (trained.masked_lm is not None) == masked_lm


def test_a_head_of_a_task_reads_the_encoder(folder: Path) -> None:
    encoder = Teacher.load(folder)
    model = with_head(encoder, topics(1).task, dropout=0.25, seed=0)
    assert (model.drop.p, model.model.embeddings.drop.p, model.config.attention_dropout) == (0.25, 0.25, 0.25)
    state = encoder.encoder.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.base_model.state_dict().items())
    tokenizer = tokenizer_for(encoder, 16)
    assert (tokenizer.model_max_length, tokenizer.model_input_names) == (16, ["input_ids", "attention_mask"])
    encoded, _ = encode(topics(8), tokenizer)
    model.eval()
    assert outputs(model, collate(encoded, tokenizer, topics(1).task)).shape == (8, len(LABELS))
