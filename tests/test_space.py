"""The search space: what it holds, in which order, and what it refuses."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from subarch import Architecture, Inputs, SearchSpace
from subarch.errors import InvalidSpace
from subarch.numbers.space import AXES, LARGEST, PRESETS

INPUTS = Inputs(vocabulary=1000, positions=64, token_types=2, output=24)

axis = st.lists(st.integers(1, 40), min_size=1, max_size=4)
LONGER = {250: 24, 500: 17, 750: 16}
"""Tokens of a text by vocabulary, where the whole one makes 16."""
spaces = st.builds(
    # One head divides every hidden size, so that none is empty
    lambda depth, heads, hidden, intermediate, vocabulary: SearchSpace(
        tuple(depth), (1, *heads), tuple(hidden), tuple(intermediate), vocabulary=vocabulary
    ),
    st.lists(st.integers(0, 12), min_size=1, max_size=4),
    axis,
    axis,
    axis,
    st.sampled_from([(0,), (0, 500), (250, 500, 750), (750, 0, 250)]),
)


def brute_force(space: SearchSpace) -> list[Architecture]:
    """Every candidate, with a loop and in ascending order."""
    found = {Architecture(0, 0, h, 0, v) for h in space.hidden for v in space.vocabulary if 0 in space.depth}
    axes = (getattr(space, name) for name in (*AXES, "vocabulary"))
    for depth, heads, hidden, intermediate, vocabulary in itertools.product(*axes):
        if depth > 0 and hidden % heads == 0:
            found.add(Architecture(depth, heads, hidden, intermediate, vocabulary))
    return sorted(found)


def cost(architecture: Architecture, longer: dict[int, int]) -> tuple[int, int]:
    tokens = longer.get(architecture.vocabulary, 16)
    return architecture.operations(INPUTS, tokens), architecture.parameters(INPUTS).total


def test_the_paper_space_has_300_candidates() -> None:
    space = SearchSpace.load("paper")
    assert len(space) == len(list(space)) == len(set(space)) == 300
    assert Architecture.parse("4-8-1024-768") in space
    # 12 heads divide neither 512 nor 1024
    assert {a.hidden for a in space if a.heads == 12} == {768}


@pytest.mark.parametrize(("preset", "teacher"), [("minilm", "6-12-384-1536"), ("demo", "4-12-384-1536")])
def test_presets_hold_their_largest_shape_and_one_static_candidate_a_width(preset: str, teacher: str) -> None:
    space = SearchSpace.load(preset)
    assert Architecture.parse(teacher) in space
    assert sorted(a.hidden for a in space if a.depth == 0) == list(space.hidden)
    assert set(space) <= set(SearchSpace.load("minilm"))


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_equal_brute_force(preset: str) -> None:
    space = SearchSpace.load(preset)
    assert list(space) == brute_force(space)


@given(spaces)
def test_candidates_equal_brute_force(space: SearchSpace) -> None:
    assert list(space) == brute_force(space)
    assert len(space) == len(brute_force(space))


@given(spaces)
def test_costs_equal_those_of_the_single_candidates(space: SearchSpace) -> None:
    costs = space.costs(INPUTS, 16, LONGER)
    architectures = [costs.architecture(index) for index in range(len(costs))]
    assert sorted(architectures) == list(space)
    assert list(zip(costs.operations.tolist(), costs.parameters.tolist(), strict=True)) == [
        cost(a, LONGER) for a in architectures
    ]
    assert costs.common.tolist() == [cost(a, {})[0] for a in architectures]


@given(spaces)
def test_order_ascends_by_operations_on_one_text_then_parameters_then_shape(space: SearchSpace) -> None:
    costs = space.costs(INPUTS, 16, LONGER)
    keys = [(*cost(costs.architecture(index), {}), costs.architecture(index)) for index in range(len(costs))]
    assert keys == sorted(keys)


@given(spaces)
def test_nothing_comes_before_what_is_smaller_in_every_size(space: SearchSpace) -> None:
    """So errors that fall with D, H, I and V fall along the order too, though a smaller V has more operations."""
    costs = space.costs(Inputs(vocabulary=1000), 16, LONGER)
    sizes = costs.table[:, [0, 2, 3, *range(4, costs.table.shape[1])]].astype(float)
    sizes[:, 3:][sizes[:, 3:] == 0] = np.inf
    for row in range(1, len(sizes)):
        equal = (sizes[:row] == sizes[row]).all(axis=1)
        assert not ((sizes[:row] >= sizes[row]).all(axis=1) & ~equal).any()


@given(spaces)
def test_maximum_point_equals_brute_force(space: SearchSpace) -> None:
    candidates = brute_force(space)
    most = max(cost(architecture, {}) for architecture in candidates)
    first = min(architecture for architecture in candidates if cost(architecture, {}) == most)
    assert space.costs(INPUTS, 16, LONGER).maximum_point == first


@given(spaces, st.integers(0, 13), st.integers(1, 5), st.integers(1, 41), st.integers(1, 41))
def test_contains_equals_membership_in_the_list(space: SearchSpace, d: int, a: int, h: int, i: int) -> None:
    candidates = set(space)
    assert all(architecture in space for architecture in candidates)
    probe = Architecture(d, a, a * h, i) if d else Architecture(0, 0, h, 0)
    assert (probe in space) == (probe in candidates)
    assert "4-8-1024-768" not in space


@given(spaces)
def test_file_round_trip(tmp_path_factory: pytest.TempPathFactory, space: SearchSpace) -> None:
    path = tmp_path_factory.mktemp("space") / "mine.yaml"
    path.write_text(yaml.safe_dump(space.to_dict()), encoding="utf-8")
    loaded = SearchSpace.load(path)
    assert loaded.to_dict() == space.to_dict()
    assert (loaded.name, list(loaded)) == ("mine", list(space))


def test_a_million_candidates_in_order() -> None:
    space = SearchSpace(tuple(range(25)), (1, 2, 4, 8), tuple(range(8, 8 * 101, 8)), tuple(range(16, 16 * 105, 16)))
    assert len(space) == 24 * 4 * 100 * 104 + 100 == 998_500
    costs = space.costs(INPUTS, 128)
    keys = np.column_stack([costs.operations, costs.parameters, costs.table])
    step = np.diff(keys, axis=0)
    # The first column that changes must grow, and one must change: every candidate is there once
    changes = step != 0
    assert changes.any(axis=1).all()
    assert (step[np.arange(len(step)), changes.argmax(axis=1)] > 0).all()
    for index in np.linspace(0, len(costs) - 1, 500).astype(int):
        architecture = costs.architecture(index)
        assert costs.operations[index] == architecture.operations(INPUTS, 128)
        assert costs.parameters[index] == architecture.parameters(INPUTS).total


def test_the_largest_numbers_do_not_overflow() -> None:
    """Columns are int64; Python's integers are exact."""
    largest = SearchSpace(*((LARGEST[axis],) for axis in AXES))
    inputs = Inputs(vocabulary=1_000_000, output=100_000)
    costs = largest.costs(inputs, 4096)
    architecture = costs.architecture(0)
    assert costs.operations[0] == architecture.operations(inputs, 4096) < np.iinfo(np.int64).max
    assert costs.parameters[0] == architecture.parameters(inputs).total
    for axis in AXES:
        with pytest.raises(
            InvalidSpace, match=f"{axis} holds {LARGEST[axis] + 1}; whole numbers from . to {LARGEST[axis]} "
        ):
            SearchSpace(**largest.to_dict() | {axis: [LARGEST[axis] + 1]})  # type: ignore[arg-type]


def test_values_are_sorted_and_taken_once() -> None:
    space = SearchSpace((2, 1, 2), (1,), (8, 4), (16,))
    assert space.to_dict() == {"depth": [1, 2], "heads": [1], "hidden": [4, 8], "intermediate": [16]}


GOOD: dict[str, Any] = {"depth": [1], "heads": [4], "hidden": [8], "intermediate": [8]}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"heads": [3, 5]}, "no hidden size of [8] is divisible by a number of heads of [3, 5]"),
        ({"depth": []}, "depth must be a non-empty list"),
        ({"depth": 4}, "depth must be a non-empty list"),
        ({"depth": [-1]}, "depth holds -1; whole numbers from 0"),
        ({"heads": [0]}, "heads holds 0; whole numbers from 1"),
        ({"hidden": [8.0]}, "hidden holds 8.0"),
        ({"hidden": [True]}, "hidden holds True"),
        ({"hidden": ["8"]}, "hidden holds '8'"),
        ({"hidden": [10**7]}, "hidden holds 10000000"),
        ({"intermediate": None}, "intermediate must be a non-empty list"),
        ({"layers": [1]}, "needs exactly the keys depth, heads, hidden, intermediate, and may have vocabulary"),
        ({"vocabulary": []}, "vocabulary must be a non-empty list"),
        ({"vocabulary": "all"}, "vocabulary must be a non-empty list"),
        ({"vocabulary": [-1]}, "vocabulary holds -1; whole numbers from 0"),
        ({"vocabulary": ["most"]}, "vocabulary holds 'most'"),
    ],
)
def test_malformed_spaces_are_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(GOOD | change), encoding="utf-8")
    with pytest.raises(InvalidSpace) as caught:
        SearchSpace.load(path)
    assert message in str(caught.value)
    assert "mine" in str(caught.value)


def test_a_vocabulary_is_a_part_of_the_whole_one() -> None:
    space = SearchSpace.from_dict(GOOD | {"vocabulary": ["all", 500]})
    assert [str(one) for one in space] == ["1-4-8-8", "1-4-8-8-500"]
    assert space.sentence.endswith("vocabulary all 500")
    assert "vocabulary" not in SearchSpace.from_dict(GOOD | {"vocabulary": ["all"]}).to_dict()
    with pytest.raises(InvalidSpace, match="vocabulary 500 is no part of the 500 tokens that there are"):
        space.costs(Inputs(vocabulary=500), 16)


@pytest.mark.parametrize("name", ["papre", "missing.yaml", "", "a\0b"])
def test_what_is_neither_preset_nor_file_is_refused(name: str) -> None:
    with pytest.raises(InvalidSpace, match="neither a preset"):
        SearchSpace.load(name)


TRAPS = [
    b"",
    b"\xff\xfe\x00",
    b"depth: [1",
    b"depth: 2001-99-99",
    b"depth: !!timestamp no",
    b"depth: !!float ''",
    b"depth: !!bool no-bool",
    b"depth: 0001-01-01T00:00:00+10:00",
    b"depth: [0x" + b"f" * 6000 + b"]\nheads: [1]\nhidden: [1]\nintermediate: [1]",
    b"depth: [" + b"9" * 6000 + b"]\nheads: [1]\nhidden: [1]\nintermediate: [1]",
    b"[" * 2000,
    b"&a [*a]",
    b"depth: &a [*a]\nheads: [1]\nhidden: [1]\nintermediate: [1]",
    b"? [1]\n: 2",
]


@pytest.mark.parametrize("content", TRAPS)
def test_traps_of_yaml_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "trap.yaml"
    path.write_bytes(content)
    with pytest.raises(InvalidSpace, match="trap"):
        SearchSpace.load(path)


def test_a_space_that_fits_in_no_memory_is_refused() -> None:
    values = tuple(range(1, 500))
    with pytest.raises(InvalidSpace, match="62001498001 combinations; at most 10000000"):
        SearchSpace(values, values, values, values)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=8)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
)


@given(st.dictionaries(st.sampled_from(AXES) | scalars, values, max_size=5) | values)
def test_any_mapping_is_a_space_or_refused(data: Any) -> None:
    try:
        space = SearchSpace.from_dict(data)
    except InvalidSpace:
        return
    assert len(space) > 0


@given(st.text(max_size=60) | st.binary(max_size=60))
def test_any_file_is_a_space_or_refused(tmp_path_factory: pytest.TempPathFactory, content: str | bytes) -> None:
    path = tmp_path_factory.mktemp("space") / "any.yaml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    with pytest.raises(InvalidSpace):
        SearchSpace.load(path)


# The space `auto`


@given(
    st.integers(1, 30),
    st.integers(1, 16),
    st.sampled_from([2, 8, 32, 64]),
    st.integers(1, 4096),
    st.integers(0, 1),
)
def test_the_space_below_an_architecture(depth: int, heads: int, size: int, intermediate: int, shallowest: int) -> None:
    start = Architecture(depth, heads, heads * size, intermediate)
    space = SearchSpace.below(start, shallowest).with_heads_of(size)
    assert len(space) <= 9 * 4 * 6
    assert min(space.depth) == shallowest
    assert max(space.depth) == depth
    assert max(space.hidden) == start.hidden
    # whole heads of the start's size: no candidate has others
    assert all(one.hidden == one.heads * size for one in space if one.depth)
    assert max(space.intermediate) == intermediate


def test_the_space_below_real_ones() -> None:
    mini = SearchSpace.below(Architecture.parse("6-12-384-1536"))
    assert mini.to_dict() == {
        "depth": [0, 1, 2, 3, 4, 5, 6],
        "heads": [4, 6, 9, 12],
        "hidden": [128, 192, 288, 384],
        "intermediate": [128, 256, 512, 768, 1024, 1536],
    }
    assert len(mini.with_heads_of(32)) == 148
    base = SearchSpace.below(Architecture.parse("12-12-768-3072"))
    assert base.depth == (0, 1, 2, 3, 4, 6, 8, 10, 12)
    assert len(base.with_heads_of(64)) == 196
    assert list(map(str, SearchSpace.below(Architecture.parse("0-0-64-0")))) == ["0-0-64-0"]
