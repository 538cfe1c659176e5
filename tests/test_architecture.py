"""The closed forms against the models that transformers builds, and the rules of a valid ⟨D, A, H, I⟩."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    BertForMaskedLM,
    BertModel,
    ModernBertForMaskedLM,
    ModernBertModel,
    RobertaForMaskedLM,
    RobertaModel,
)

from subarch import Architecture, Inputs, SearchSpace
from subarch.errors import InvalidArchitecture, SubarchError
from subarch.numbers.architecture import operations

BORT_INPUTS = Inputs(vocabulary=50265, positions=512, token_types=1)
MINILM_INPUTS = Inputs(vocabulary=30522, positions=512, token_types=2, output=384)

layered = st.builds(
    lambda depth, heads, head_size, intermediate: Architecture(depth, heads, heads * head_size, intermediate),
    st.integers(1, 48),
    st.integers(1, 32),
    st.integers(1, 128),
    st.integers(1, 8192),
)
architectures = st.one_of(layered, st.builds(lambda hidden: Architecture(0, 0, hidden, 0), st.integers(1, 2048)))
kept = st.sampled_from([0, 1, 2000, 10**9 - 1])


def size(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)


@pytest.mark.slow
def test_parameters_equal_the_built_model_for_the_whole_paper_space() -> None:
    inputs = Inputs(vocabulary=50265, positions=514, token_types=1)
    with torch.device("meta"):
        for architecture in SearchSpace.load("paper"):
            count = architecture.parameters(inputs)
            model = BertModel(architecture.to_config(inputs))
            built = (size(model.embeddings), size(model.encoder), size(model.pooler))
            assert built == (count.embeddings, count.encoder, count.pooler), str(architecture)


def test_total_equals_the_built_model_for_every_shape_of_the_minilm_space() -> None:
    # Heads change no parameter, so each distinct ⟨D, H, I⟩ is built once
    shapes = {(a.depth, a.hidden, a.intermediate): a for a in SearchSpace.load("minilm")}
    assert len(shapes) == 4 + 6 * 4 * 6
    with torch.device("meta"):
        for architecture in shapes.values():
            model = BertModel(architecture.to_config(MINILM_INPUTS), add_pooling_layer=False)
            projection = torch.nn.Linear(architecture.hidden, 384) if architecture.hidden != 384 else None
            built = size(model) + (size(projection) if projection else 0)
            assert built == architecture.parameters(MINILM_INPUTS).total, str(architecture)


@pytest.mark.parametrize("text", ["4-8-1024-768", "4-8-768-1024", "2-16-1024-512", "1-1-8-3", "0-0-64-0"])
def test_masked_lm_and_roberta_models_agree_too(text: str) -> None:
    architecture = Architecture.parse(text)
    count = architecture.parameters(BORT_INPUTS)
    with torch.device("meta"):
        masked_lm = BertForMaskedLM(architecture.to_config(BORT_INPUTS))
        roberta = RobertaModel(architecture.to_config(BORT_INPUTS, "roberta"))
    assert size(masked_lm) == count.with_heads - count.pooler
    assert size(roberta) == count.total + count.pooler


@pytest.mark.parametrize("family", ["bert", "roberta", "modernbert"])
@pytest.mark.parametrize("text", ["2-4-64-96-500", "1-2-8-3-7"])
def test_parameters_of_a_smaller_vocabulary_are_those_of_the_built_model(family: str, text: str) -> None:
    architecture = Architecture.parse(text)
    inputs = BORT_INPUTS
    if family == "modernbert":
        inputs = Inputs(50368, 512, 0, family="modernbert", biases=("decoder",))
    count = architecture.parameters(inputs)
    model, masked_lm = {
        "bert": (BertModel, BertForMaskedLM),
        "roberta": (RobertaModel, RobertaForMaskedLM),
        "modernbert": (ModernBertModel, ModernBertForMaskedLM),
    }[family]
    config = architecture.to_config(inputs, family, pad_token_id=1)
    with torch.device("meta"):
        encoder, whole = model(config), masked_lm(config)
    assert config.vocab_size == architecture.vocabulary
    assert size(encoder) == count.total + count.pooler
    assert size(whole) == count.with_heads - count.pooler
    larger = replace(architecture, vocabulary=0).parameters(inputs)
    assert larger.embeddings - count.embeddings == (inputs.vocabulary - architecture.vocabulary) * architecture.hidden


def test_published_example_of_bort() -> None:
    count = Architecture.parse("4-8-1024-768").parameters(BORT_INPUTS)
    assert (count.embeddings, count.encoder, count.effective) == (51_998_720, 23_108_608, 23_108_608)


def counted_operations(architecture: Architecture, inputs: Inputs, length: int) -> int:
    """Multiply-adds that PyTorch's counter sees, which counts two a multiply-add and attention only when eager."""
    config = architecture.to_config(inputs, attn_implementation="eager")
    model = BertModel(config, add_pooling_layer=False).eval()
    projection = torch.nn.Linear(architecture.hidden, inputs.output or 1)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        pooled = model(torch.zeros(1, length, dtype=torch.long)).last_hidden_state.mean(1)
        if inputs.output and architecture.hidden != inputs.output:
            projection(pooled)
    assert counter.get_total_flops() % 2 == 0
    return counter.get_total_flops() // 2


@settings(max_examples=25)
@given(
    st.integers(0, 3), st.integers(1, 4), st.integers(1, 12), st.integers(1, 70), st.integers(1, 20), st.integers(0, 40)
)
def test_operations_equal_those_counted_on_the_built_model(
    depth: int, heads: int, head_size: int, intermediate: int, length: int, output: int
) -> None:
    hidden = heads * head_size
    architecture = Architecture(depth, heads, hidden, intermediate) if depth else Architecture(0, 0, hidden, 0)
    inputs = Inputs(vocabulary=11, positions=32, token_types=2, output=output)
    assert architecture.operations(inputs, length) == counted_operations(architecture, inputs, length)


@pytest.mark.parametrize("text", ["4-8-1024-768", "6-12-384-1536", "2-16-1024-512"])
def test_operations_of_real_shapes(text: str) -> None:
    architecture = Architecture.parse(text)
    inputs = Inputs(vocabulary=11, positions=160)
    assert architecture.operations(inputs, 128) == counted_operations(architecture, inputs, 128)


@given(layered)
def test_heads_change_neither_parameters_nor_operations(architecture: Architecture) -> None:
    one_head = Architecture(architecture.depth, 1, architecture.hidden, architecture.intermediate)
    assert one_head.parameters(BORT_INPUTS) == architecture.parameters(BORT_INPUTS)
    assert one_head.operations(BORT_INPUTS, 128) == architecture.operations(BORT_INPUTS, 128)


@given(layered, st.integers(0, 3), st.integers(0, 5), st.integers(0, 9))
def test_depth_hidden_and_intermediate_carry_the_partial_order(small: Architecture, d: int, h: int, i: int) -> None:
    large = Architecture(small.depth + d, 1, small.hidden + h, small.intermediate + i)
    assert small.parameters(BORT_INPUTS).total <= large.parameters(BORT_INPUTS).total
    assert small.operations(BORT_INPUTS, 64) <= large.operations(BORT_INPUTS, 64)


@given(architectures, kept)
def test_text_and_configuration_round_trips(architecture: Architecture, vocabulary: int) -> None:
    other = replace(architecture, vocabulary=vocabulary)
    assert Architecture.parse(str(other)) == other
    assert str(other).startswith(str(architecture))
    for family in ("bert", "roberta"):
        config = architecture.to_config(BORT_INPUTS, family)
        assert config.model_type == family
        assert Architecture.from_config(config) == architecture


@given(st.text(max_size=20) | st.from_regex(r"\A-?\d{1,5}(-\d{1,5}){2,4}\Z"))
def test_any_text_is_an_architecture_or_refused(text: str) -> None:
    try:
        architecture = Architecture.parse(text)
    except SubarchError:
        return
    assert Architecture.parse(str(architecture)) == architecture


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4-7-1024-768", "not divisible by 7 heads; use one of [1, 2, 4, 8, 16, 32, 64] heads"),
        ("4-0-1024-768", "heads and intermediate size must be at least 1"),
        ("4-8-1024-0", "heads and intermediate size must be at least 1"),
        ("4-8-0-768", "hidden size at least 1"),
        ("0-8-64-0", "write 0-0-64-0"),
        ("0-0-64-128", "write 0-0-64-0"),
        ("9" * 5000 + "-8-1024-768", "write depth-heads-hidden-intermediate"),
        ("4-8-1024", "write depth-heads-hidden-intermediate"),
        ("4-8-1024-768-16000-2", "4-8-1024-768-16000"),
        ("4-8-1024-+768", "write depth-heads-hidden-intermediate"),
        ("４-8-1024-768", "write depth-heads-hidden-intermediate"),
    ],
)
def test_impossible_architectures_are_refused_with_the_remedy(text: str, message: str) -> None:
    with pytest.raises(InvalidArchitecture) as caught:
        Architecture.parse(text)
    assert message in str(caught.value)


def test_negative_sizes_and_unknown_families_are_refused() -> None:
    with pytest.raises(InvalidArchitecture):
        Architecture(-1, 1, 8, 8)
    with pytest.raises(InvalidArchitecture, match="leave it out for the whole one"):
        Architecture(1, 1, 8, 8, -1)
    with pytest.raises(InvalidArchitecture, match="known: bert, roberta"):
        Architecture(1, 1, 8, 8).to_config(BORT_INPUTS, "gpt")


def test_depth_0_is_the_embeddings_alone() -> None:
    static = Architecture.parse("0-0-384-0")
    count = static.parameters(MINILM_INPUTS)
    assert (count.encoder, count.projection, static.head_size) == (0, 0, 0)
    assert count.total == count.embeddings == (30522 + 512 + 2 + 2) * 384
    assert static.operations(MINILM_INPUTS, 32) == 0
    # Of another width, it carries the map to the teacher's space
    narrow = Architecture.parse("0-0-128-0")
    assert narrow.parameters(MINILM_INPUTS).projection == 128 * 384 + 384
    assert narrow.operations(MINILM_INPUTS, 32) == operations(0, 128, 0, MINILM_INPUTS, 32) == 128 * 384


def test_order_and_hash() -> None:
    texts = ["0-0-64-0", "1-4-64-8", "1-8-64-8", "2-2-32-8", "10-2-32-8"]
    ordered = [Architecture.parse(text) for text in texts]
    backwards = [Architecture.parse(text) for text in texts[::-1]]
    assert sorted(backwards) == ordered
    assert len({*ordered, *backwards}) == len(texts)
