"""Students: stock models inside, counted exactly, with the teacher's settings and pooling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers import BertForMaskedLM, BertModel, RobertaForMaskedLM, RobertaModel

from subarch.models.sentence import pool, read_json
from subarch.models.student import Blueprint, Student
from subarch.models.teacher import Batch, Teacher
from subarch.numbers.architecture import Architecture, Inputs
from tiny import POSITIONS, WIDTH, tiny_sentences, tiny_teacher, tiny_tokenizer, write_json

STOCK: dict[tuple[str, bool], Any] = {
    ("bert", False): BertModel,
    ("roberta", False): RobertaModel,
    ("bert", True): BertForMaskedLM,
    ("roberta", True): RobertaForMaskedLM,
}
BOTH = pytest.mark.parametrize("family", ["bert", "roberta"])


def load(folder: Path, **options: Any) -> Teacher:
    return Teacher.load(tiny_teacher(folder, **options))


def some(teacher: Teacher, count: int = 12) -> Batch:
    return teacher.batch(teacher.tokenizer(tiny_sentences(count), add_special_tokens=False)["input_ids"])


shapes = st.builds(
    lambda depth, heads, size, inner: (
        Architecture(depth, heads, heads * size, inner) if depth else Architecture(0, 0, heads * size, 0)
    ),
    st.integers(0, 3),
    st.integers(1, 5),
    st.integers(1, 9),
    st.integers(1, 40),
)


@given(shapes, st.sampled_from(["bert", "roberta"]), st.sampled_from([0, 7, 12]), st.booleans())
@settings(max_examples=40)
def test_the_closed_form_counts_what_is_built(shape: Architecture, family: str, output: int, masked_lm: bool) -> None:
    inputs = Inputs(vocabulary=23, positions=11, token_types=1, output=0 if masked_lm else output)
    student = Student(shape, Blueprint(family, inputs, masked_lm=masked_lm, settings={"pad_token_id": 0}))
    count = shape.parameters(inputs)
    expected = count.total + (count.masked_lm_head if masked_lm else 0)
    assert sum(parameter.numel() for parameter in student.parameters()) == expected
    assert (student.projection is not None) == (inputs.output not in (0, shape.hidden))


@BOTH
@pytest.mark.parametrize("masked_lm", [False, True])
@pytest.mark.parametrize("shape", ["2-4-32-48", "1-2-24-16", "0-0-32-0"])
def test_a_student_saves_as_a_stock_model(tmp_path: Path, family: str, masked_lm: bool, shape: str) -> None:
    teacher = load(tmp_path / "t", family=family, masked_lm=masked_lm)
    student = Student(Architecture.parse(shape), Blueprint.of_teacher(teacher, masked_lm)).eval()
    student.model.save_pretrained(tmp_path / "saved")
    options = {} if masked_lm else {"add_pooling_layer": False}
    stock, report = STOCK[family, masked_lm].from_pretrained(tmp_path / "saved", output_loading_info=True, **options)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert Architecture.from_config(stock.config) == Architecture.parse(shape)
    batch = some(teacher)
    with torch.inference_mode():
        hidden = stock.eval().base_model(input_ids=batch.ids, attention_mask=batch.mask).last_hidden_state
        assert torch.equal(student.hidden(batch.ids, batch.mask), hidden)
        if masked_lm:
            logits = stock(input_ids=batch.ids, attention_mask=batch.mask).logits
            assert torch.allclose(student.head(hidden), logits, atol=1e-6)


@BOTH
def test_the_state_loads_into_the_stock_class(tmp_path: Path, family: str) -> None:
    """By name, without save_pretrained in between: nothing is renamed and nothing is ours."""
    teacher = load(tmp_path / "t", family=family)
    student = Student(Architecture.parse("2-4-32-48"), Blueprint.of_teacher(teacher))
    stock = STOCK[family, False](student.model.config, add_pooling_layer=False)
    assert type(student.model) is type(stock)
    stock.load_state_dict(student.model.state_dict(), strict=True)


@BOTH
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_an_embedding_is_pooled_and_mapped_to_the_teachers_width(tmp_path: Path, family: str, pooling: str) -> None:
    teacher = load(tmp_path / "t", family=family, pooling=pooling)
    blueprint, batch = Blueprint.of_teacher(teacher), some(teacher)
    assert blueprint.pooling == pooling
    with torch.inference_mode():
        same = Student(Architecture.parse("1-4-32-16"), blueprint).eval()
        expected = pool(same.hidden(batch.ids, batch.mask), batch.mask, pooling)
        assert torch.equal(same(batch.ids, batch.mask), expected)
        assert same.projection is None
        narrow = Student(Architecture.parse("1-4-16-16"), blueprint).eval()
        assert narrow.projection is not None
        pooled = pool(narrow.hidden(batch.ids, batch.mask), batch.mask, pooling)
        assert torch.equal(narrow(batch.ids, batch.mask), narrow.projection(pooled))
        assert narrow(batch.ids, batch.mask).shape == (12, WIDTH)


def test_no_dropout_in_evaluation(tmp_path: Path) -> None:
    teacher = load(tmp_path / "t")
    student, batch = Student(Architecture.parse("2-4-16-48"), Blueprint.of_teacher(teacher)), some(teacher)

    def run() -> Tensor:
        with torch.inference_mode():
            result: Tensor = student(batch.ids, batch.mask)
            return result

    student.eval()
    assert torch.equal(run(), run())
    student.train()
    assert not torch.equal(run(), run())  # the teacher's dropout is there, and would show


@BOTH
def test_padding_changes_nothing(tmp_path: Path, family: str) -> None:
    teacher = load(tmp_path / "t", family=family)
    student = Student(Architecture.parse("2-4-16-48"), Blueprint.of_teacher(teacher)).eval()
    batch = some(teacher)
    with torch.inference_mode():
        together = student(batch.ids, batch.mask)
        for row, mask, expected in zip(batch.ids, batch.mask, together, strict=True):
            length = int(mask.sum())
            assert torch.allclose(student(row[None, :length], mask[None, :length])[0], expected, atol=1e-5)


TIED = {
    "bert": {"model.cls.predictions.decoder.weight", "model.cls.predictions.decoder.bias"},
    "roberta": {"model.lm_head.decoder.weight", "model.lm_head.decoder.bias"},
}


@BOTH
def test_tied_names(tmp_path: Path, family: str) -> None:
    teacher = load(tmp_path / "t", family=family, masked_lm=True)
    student = Student(Architecture.parse("1-2-16-8"), Blueprint.of_teacher(teacher, masked_lm=True))
    assert student.tied_names == TIED[family]
    state = student.state_dict()
    own = {parameter.data_ptr() for parameter in student.parameters()}
    assert {state[name].data_ptr() for name in student.tied_names} <= own
    assert Student(Architecture.parse("1-2-16-8"), Blueprint.of_teacher(teacher)).tied_names == set()


def test_the_teachers_settings_are_the_students(tmp_path: Path) -> None:
    folder = tiny_teacher(tmp_path / "t", family="roberta")
    changes = {"layer_norm_eps": 1e-5, "hidden_act": "relu", "hidden_dropout_prob": 0.25}
    write_json(folder / "config.json", read_json(folder / "config.json") | changes)
    teacher = Teacher.load(folder)
    config = Student(Architecture.parse("1-2-16-8"), Blueprint.of_teacher(teacher)).encoder.config
    for name, value in changes.items():
        assert getattr(config, name) == value
    for name in ("vocab_size", "max_position_embeddings", "type_vocab_size", "pad_token_id", "bos_token_id"):
        assert getattr(config, name) == getattr(teacher.encoder.config, name)
    assert config.max_position_embeddings == POSITIONS + 2


def test_a_dense_teacher_asks_for_its_own_width(tmp_path: Path) -> None:
    teacher = load(tmp_path / "t")
    teacher.dense = torch.nn.Sequential(torch.nn.Linear(WIDTH, 20))
    blueprint = Blueprint.of_teacher(teacher)
    assert blueprint.inputs.output == 20
    assert Student(Architecture.parse("1-2-20-8"), blueprint).projection is None
    assert Student(Architecture.parse("1-2-32-8"), blueprint).projection is not None
    assert Blueprint.of_teacher(teacher, masked_lm=True).inputs.output == 0


def test_masked_lm_candidates_for_a_vocabulary_of_ones_own() -> None:
    tokenizer = tiny_tokenizer()
    blueprint = Blueprint.of_tokenizer(tokenizer)
    student = Student(Architecture.parse("1-2-16-8"), blueprint)
    assert blueprint.masked_lm
    assert isinstance(student.model, BertForMaskedLM)
    assert student.encoder.config.vocab_size == len(tokenizer)
    assert student.encoder.config.pad_token_id == tokenizer.pad_token_id
    assert student.projection is None
    assert student.head(torch.zeros(3, 16)).shape == (3, len(tokenizer))
