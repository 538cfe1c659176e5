"""The recipe of a teacher folder: read as written, refused where it is unknown or damaged, whatever the damage."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from subarch.errors import InvalidConfig, InvalidTeacher
from subarch.models.sentence import Recipe, pool, read_json
from tiny import WIDTH, add_modules, write_json


def test_a_plain_folder_pools_by_mean(tmp_path: Path) -> None:
    assert Recipe.read(tmp_path, 514, 512) == Recipe("mean", (), False, "", 512, False)
    assert Recipe.read(tmp_path, 128, 512).max_length == 128


def test_everything_at_once(tmp_path: Path) -> None:
    add_modules(tmp_path, "cls")
    modules = json.loads((tmp_path / "modules.json").read_text(encoding="utf-8"))
    for n in (3, 4):
        modules.insert(n - 1, {"type": "sentence_transformers.models.Dense", "path": f"{n}_Dense"})
    write_json(tmp_path / "modules.json", modules)
    sizes = {"in_features": WIDTH, "out_features": WIDTH}
    write_json(tmp_path / "3_Dense" / "config.json", sizes)  # sentence-transformers means tanh
    write_json(
        tmp_path / "4_Dense" / "config.json",
        sizes
        | {
            "activation_function": "torch.nn.modules.linear.Identity",
            "use_residual": False,
            "module_input_name": "sentence_embedding",
        },
    )
    write_json(tmp_path / "sentence_bert_config.json", {"max_seq_length": 48, "do_lower_case": True})
    write_json(
        tmp_path / "config_sentence_transformers.json",
        {"prompts": {"a": "A: ", "b": "B: ", "c": None}, "default_prompt_name": "b", "similarity_fn_name": "dot"},
    )
    dense, prompts = (("3_Dense", "tanh"), ("4_Dense", "identity")), (("a", "A: "), ("b", "B: "))
    expected = Recipe("cls", dense, True, "B: ", 48, True, prompts, "dot")
    assert Recipe.read(tmp_path, 64, 512) == expected
    assert Recipe.read(tmp_path, 32, 512).max_length == 32


@pytest.mark.parametrize("place", ["", "0_Transformer"])
@pytest.mark.parametrize(
    ("written", "length"), [({"max_seq_length": 20}, 20), ({"max_seq_length": None}, 40), ({}, 40)]
)
def test_the_length_of_the_folder_or_else_of_the_tokenizer(
    tmp_path: Path, place: str, written: dict[str, Any], length: int
) -> None:
    add_modules(tmp_path)
    modules = json.loads((tmp_path / "modules.json").read_text(encoding="utf-8"))
    modules[0]["path"] = place
    write_json(tmp_path / "modules.json", modules)
    (tmp_path / "sentence_bert_config.json").unlink()
    write_json(tmp_path / place / "sentence_bert_config.json", written)
    assert Recipe.read(tmp_path, 64, 40).max_length == length


@pytest.mark.parametrize(("prompt", "prefix"), [("a", "A: "), ("b", "B: "), ("other: ", "other: "), ("", "")])
def test_another_prompt(prompt: str, prefix: str) -> None:
    recipe = Recipe(prefix="B: ", prompts=(("a", "A: "), ("b", "B: ")))
    assert recipe.with_prompt(prompt) == Recipe(prefix=prefix, prompts=recipe.prompts)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("c", r"prompt 'c' is not the name of a prompt of the teacher \(a, b\), and a text would run into"),
        ("B: ", "prompt 'B: ' is given twice: the teacher puts 'B: '"),
        ("B:", "is given twice"),
    ],
)
def test_bad_prompts(prompt: str, message: str) -> None:
    recipe = Recipe(prefix="B: ", prompts=(("a", "A: "), ("b", "B: ")))
    with pytest.raises(InvalidConfig, match=message):
        recipe.with_prompt(prompt)


FILES = (
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
    "2_Dense/config.json",
)
NAMES = (
    "type path max_seq_length do_lower_case prompts default_prompt_name pooling_mode include_prompt "
    "pooling_mode_mean_tokens pooling_mode_cls_token activation_function use_residual query mean cls Normalize "
    "sentence_transformers.models.Transformer sentence_transformers.models.Pooling sentence_transformers.models.Dense"
)
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-3, 10**30)
    | st.floats()
    | st.sampled_from(NAMES.split())
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(NAMES.split()) | st.text(max_size=5), inner)
    ),
    max_leaves=12,
)


def _good(folder: Path) -> Path:
    add_modules(folder)
    modules = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    modules.insert(2, {"type": "sentence_transformers.models.Dense", "path": "2_Dense"})
    write_json(folder / "modules.json", modules)
    write_json(folder / "2_Dense" / "config.json", {"in_features": WIDTH, "out_features": WIDTH})
    write_json(
        folder / "config_sentence_transformers.json", {"prompts": {"query": "q: "}, "default_prompt_name": "query"}
    )
    return folder


def _read(folder: Path) -> Recipe | None:
    """The recipe, or None where it is refused in words that name the folder. Any other error is a failure."""
    try:
        return Recipe.read(folder)
    except InvalidTeacher as error:
        refusal = str(error)
    assert str(folder) in refusal
    return None


@given(st.sampled_from(FILES), json_values, st.booleans())
@settings(max_examples=120)
def test_whatever_a_file_holds_it_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, name: str, value: Any, merged: bool
) -> None:
    folder = _good(tmp_path_factory.mktemp("fuzz"))
    assert Recipe.read(folder).dense == (("2_Dense", "tanh"),)
    if merged and isinstance(value, dict):  # besides the good keys
        good = read_json(folder / name, object)
        value = good | value if isinstance(good, dict) else [*good[:2], value, *good[3:]]
    write_json(folder / name, value)
    recipe = _read(folder)
    if recipe is not None:
        assert recipe.pooling in ("mean", "cls")
        assert 3 <= recipe.max_length <= 512
        assert isinstance(recipe.prefix, str)
        assert all(activation in ("tanh", "identity") for _, activation in recipe.dense)


@given(st.sampled_from(FILES), st.binary(max_size=40))
@settings(max_examples=60)
def test_whatever_bytes_a_file_holds(tmp_path_factory: pytest.TempPathFactory, name: str, data: bytes) -> None:
    folder = _good(tmp_path_factory.mktemp("fuzz"))
    (folder / name).write_bytes(data)
    _read(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ('{"a": ' + "1" * 5000 + "}", "not valid JSON"),
        ("[]", "holds a list, not a dict; copy it again"),
        ("null", "holds a NoneType, not a dict"),
    ],
)
def test_read_json_names_the_damage(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidTeacher, match=message) as caught:
        read_json(path)
    assert str(path) in str(caught.value)
    with pytest.raises(InvalidTeacher, match="missing; the teacher folder is incomplete"):
        read_json(tmp_path / "other.json")
    with pytest.raises(InvalidTeacher, match="cannot be read"):
        read_json(tmp_path)


@pytest.mark.parametrize("path", ["../other", "a/../../other", "/other"])
def test_modules_stay_inside_the_folder(tmp_path: Path, path: str) -> None:
    add_modules(tmp_path / "teacher")
    modules = json.loads((tmp_path / "teacher" / "modules.json").read_text(encoding="utf-8"))
    modules[1]["path"] = path
    write_json(tmp_path / "teacher" / "modules.json", modules)
    write_json(tmp_path / "other" / "config.json", {"pooling_mode": "cls"})
    with pytest.raises(InvalidTeacher, match="outside the folder"):
        Recipe.read(tmp_path / "teacher")


def test_pool_against_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(5, 7, 3, generator=generator)
    lengths = [7, 1, 3, 6, 2]
    mask = torch.tensor([[1] * n + [0] * (7 - n) for n in lengths])
    mean = torch.stack([rows[:n].mean(0) for rows, n in zip(hidden, lengths, strict=True)])
    assert torch.allclose(pool(hidden, mask, "mean"), mean, atol=1e-6)
    assert torch.equal(pool(hidden, mask, "cls"), hidden[:, 0])
    # what lies under the padding plays no part
    hidden[mask == 0] = 1e6
    assert torch.allclose(pool(hidden, mask, "mean"), mean, atol=1e-6)
