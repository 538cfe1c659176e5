"""The configuration of pretraining: defaults by what the teacher offers, round trips, every refusal in words."""

from __future__ import annotations

from pathlib import Path
from types import NoneType
from typing import Any, get_args

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from subarch.errors import InvalidConfig
from subarch.extraction.config import ExtractConfig
from subarch.learning.losses import LOSSES
from subarch.pretraining.config import PretrainConfig
from subarch.run.configuration import dump, load

REPOSITORY = Path(__file__).parents[1]
GOOD: dict[str, Any] = {"teacher": "teacher", "corpus": ["docs", "more.txt"]}
ALONE: dict[str, Any] = {"corpus": ["docs"]}


def refusal(overrides: dict[str, Any], path: Path | None = None) -> str:
    with pytest.raises(InvalidConfig) as caught:
        load(PretrainConfig, path, overrides)
    return str(caught.value)


def written(folder: Path, content: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(content, encoding="utf-8")
    return path


def test_defaults() -> None:
    config = load(PretrainConfig, None, GOOD)
    assert config.teacher == Path("teacher")
    assert (config.architecture, config.initialise, config.micro_tokens) == (None, None, None)
    assert (config.batch_tokens, config.max_length, config.targets, config.precision) == (8192, 128, "auto", "fp32")
    with pytest.raises(ValidationError, match="frozen"):
        config.steps = 3  # type: ignore[misc]


def test_every_key_is_described() -> None:
    for name, field in PretrainConfig.model_fields.items():
        assert field.description, name
        assert "\n" not in field.description


def test_keys_shared_with_extraction_are_of_one_kind() -> None:
    for key in (
        "teacher",
        "start_from",
        "prompt",
        "corpus",
        "text_column",
        "vocabulary_size",
        "seed",
        "heldout",
        "max_length",
    ):
        ours, theirs = PretrainConfig.model_fields[key], ExtractConfig.model_fields[key]
        assert (ours.annotation, ours.metadata) == (theirs.annotation, theirs.metadata)


# How long


@pytest.mark.parametrize(
    ("given", "steps", "minutes"),
    [({}, 10_000, None), ({"steps": 7}, 7, None), ({"minutes": 2.5}, None, 2.5), ({"minutes": "15"}, None, 15.0)],
)
def test_the_length_is_in_steps_or_in_minutes(given: dict[str, Any], steps: int | None, minutes: float | None) -> None:
    config = load(PretrainConfig, None, GOOD | given)
    assert (config.steps, config.minutes) == (steps, minutes)


def test_the_texts_of_recorded_vectors_are_the_corpus_where_none_is_given() -> None:
    assert load(PretrainConfig, None, {"teacher": "vectors.parquet"}).corpus == ["vectors.parquet"]
    assert load(PretrainConfig, None, {"teacher": Path("a.jsonl.gz"), "corpus": ["docs"]}).corpus == ["docs"]


def test_the_default_length_is_written_down() -> None:
    assert "\nsteps: 10000\n" in dump(load(PretrainConfig, None, GOOD))


# The losses


@pytest.mark.parametrize(
    ("given", "has_head", "weights"),
    [
        (GOOD, True, {"mlm": 0.1, "logits": 0.5}),
        (GOOD, False, {"embedding": 1.0, "relations": 1.0}),
        (ALONE, False, {"mlm": 1.0}),
        (ALONE, True, {"mlm": 1.0}),
        (GOOD | {"loss_hidden": 2.0}, True, {"hidden": 2.0}),
        (GOOD | {"loss_relations": 3, "loss_mlm": 0, "loss_embedding": 0.5}, False, {"embedding": 0.5, "relations": 3}),
        (ALONE | {"loss_mlm": 0.25, "loss_logits": 0}, False, {"mlm": 0.25}),
    ],
)
def test_losses_by_what_the_teacher_offers(given: dict[str, Any], has_head: bool, weights: dict[str, float]) -> None:
    found = load(PretrainConfig, None, given).weights(has_head)
    assert found == weights
    assert list(found) == [name for name in LOSSES if name in weights]


def test_embeddings_that_may_be_cut_have_similarities_to_learn() -> None:
    config = load(PretrainConfig, None, GOOD | {"dimensions": "96, 384,96"})
    assert (config.dimensions, config.widths) == ("384,96", [384, 96])
    assert config.weights(False) == {"embedding": 1.0, "similarities": 0.1, "relations": 1.0}
    assert load(PretrainConfig, None, GOOD | {"dimensions": "9", "loss_margins": 1}).weights(False) == {"margins": 1.0}


def test_a_student_without_layers_compares_no_attention_by_default() -> None:
    assert load(PretrainConfig, None, GOOD).weights(False, depth=0) == {"embedding": 1.0}
    assert load(PretrainConfig, None, GOOD | {"loss_relations": 1}).weights(False, depth=0) == {"relations": 1.0}


# Shipped


def test_the_papers_run() -> None:
    config = load(PretrainConfig, REPOSITORY / "configs" / "bort.yaml", {})
    assert config.architecture == "4-8-1024-768"
    assert config.weights(has_head=True) == {"mlm": 0.1, "logits": 0.5}
    assert (config.batch_tokens, config.micro_tokens) == (8 * 1024, 1024)
    assert (config.learning_rate, config.warm_up, config.weight_decay, config.clip) == (1e-4, 0.01, 0.01, 1.0)
    assert (config.temperature, config.optimizer) == (2.0, "adamw")


def test_the_papers_run_names_no_machine_and_no_key_twice() -> None:
    text = (REPOSITORY / "configs" / "bort.yaml").read_text(encoding="utf-8")
    keys = [line.split(":")[0] for line in text.splitlines() if line and line[0] not in "# "]
    assert len(keys) == len(set(keys))
    assert not any(Path(value).is_absolute() for value in yaml.safe_load(text).values() if isinstance(value, str))


# For any values


positive = st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False)
amount = st.sampled_from([0.0, 0.1, 1.0, 3.5])
share = st.floats(0, 1, exclude_max=True)
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)


def choice(key: str) -> st.SearchStrategy[Any]:
    """Every value of a key that is one of a few words, and None where that is allowed."""
    words: list[Any] = []
    for option in get_args(PretrainConfig.model_fields[key].annotation):
        words += get_args(option) or ([None] if option is NoneType else [option])
    return st.sampled_from(words)


fields: dict[str, st.SearchStrategy[Any]] = {
    "architecture": st.sampled_from([None, "4-8-1024-768", "0-0-64-0"]),
    "teacher": st.none() | texts.map(Path),
    "start_from": st.none() | texts.map(Path),
    "prompt": st.none() | texts,
    "corpus": st.lists(texts, min_size=1, max_size=3),
    "text_column": texts,
    "streaming": st.booleans(),
    **{f"loss_{name}": st.none() | amount for name in LOSSES},
    "dimensions": st.sampled_from([None, None, "384,96", "1"]),
    "temperature": positive,
    "top_k": st.integers(1, 10**6),
    "maskings": st.sampled_from([0, 0, 1, 10**6]),
    "vocabulary_size": st.integers(300, 10**6),
    "max_length": st.integers(8, 512),
    "batch_tokens": st.integers(8, 2048) | st.integers(8, 10**9),
    "micro_tokens": st.none() | st.integers(8, 2048),
    "steps": st.none() | st.integers(1, 10**9),
    "minutes": st.none() | positive,
    "learning_rate": positive,
    "warm_up": share,
    "weight_decay": amount,
    "clip": amount,
    "optimizer": choice("optimizer"),
    "dropout": share,
    "freeze_embeddings": st.booleans(),
    "precision": choice("precision"),
    "compile": st.booleans(),
    "initialise": choice("initialise"),
    "targets": choice("targets"),
    "heldout": st.integers(2, 10**9),
    "evaluations": st.integers(1, 10**6),
    "threads": st.none() | st.integers(1, 10**4),
    "seed": st.integers(0, 2**32 - 1),
}


def coherent(values: dict[str, Any]) -> bool:
    """The rules between keys, written a second time."""
    weights = {name: values[f"loss_{name}"] for name in LOSSES}
    alone = values["teacher"] is None
    micro = values["micro_tokens"] or values["batch_tokens"]
    return all(
        [
            set(weights.values()) == {None} or any(weights.values()),
            not alone or not any(weight for name, weight in weights.items() if name != "mlm"),
            not alone or ("inherit" not in (values["initialise"] or "") and values["targets"] == "auto"),
            not alone or not values["streaming"],
            not alone or values["dimensions"] is None,
            not weights["margins"] or not values["streaming"],
            values["targets"] != "cache" or not values["streaming"],
            values["targets"] != "cache" or not weights["logits"] or values["maskings"] > 0,
            not values["freeze_embeddings"] or values["initialise"] != "scratch",
            values["steps"] is None or values["minutes"] is None,
            values["max_length"] <= micro <= values["batch_tokens"],
        ]
    )


@settings(max_examples=300)
@given(st.fixed_dictionaries(fields))
def test_values_within_the_limits_are_accepted_exactly_when_they_go_together(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]
) -> None:
    assert set(values) == set(PretrainConfig.model_fields)
    try:
        config = load(PretrainConfig, None, values)
    except InvalidConfig:
        assert not coherent(values)
        return
    assert coherent(values)
    if values["minutes"] is None:
        values["steps"] = values["steps"] or 10_000
    assert {key: getattr(config, key) for key in fields} == values
    for has_head in (False, True):
        assert all(weight > 0 for weight in config.weights(has_head).values())
        assert config.weights(has_head)
    path = tmp_path_factory.mktemp("config") / "dumped.yaml"
    path.write_text(dump(config), encoding="utf-8")
    assert load(PretrainConfig, path, {}) == config


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (GOOD | {"corpus": []}, "corpus is missing: give text to train on"),
        (GOOD | {"loss_mlm": 0}, "loss_mlm 0.0: no loss has a positive weight"),
        (ALONE | {"loss_logits": 0.5}, "teacher is missing: loss_logits 0.5 needs one"),
        (ALONE | {"loss_embedding": 1, "loss_mlm": 1}, "loss_embedding 1.0 needs one; give one or remove it"),
        (ALONE | {"dimensions": "96"}, "teacher is missing: dimensions 96 are of embeddings"),
        (ALONE | {"initialise": "inherit"}, "initialise 'inherit' takes its weights"),
        (ALONE | {"targets": "live"}, "targets 'live' needs one"),
        (ALONE | {"streaming": True}, "streaming needs a teacher's tokenizer"),
        (GOOD | {"targets": "cache", "streaming": True}, "targets 'cache' needs a packed corpus"),
        (GOOD | {"loss_margins": 2, "streaming": True}, "loss_margins 2.0 needs a packed corpus to find negatives in"),
        (GOOD | {"targets": "cache", "loss_logits": 1}, "set maskings to 1 or more, or targets to live"),
        (GOOD | {"freeze_embeddings": True, "initialise": "scratch"}, "would keep random embeddings"),
        (GOOD | {"steps": 10, "minutes": 1}, "steps 10 and minutes 1.0 exclude each other; give one of them"),
        (GOOD | {"batch_tokens": 100}, "batch_tokens 100 is less than one sequence of max_length 128"),
        (GOOD | {"micro_tokens": 100}, "micro_tokens 100 is less than one sequence of max_length 128"),
        (GOOD | {"micro_tokens": 9000}, "micro_tokens 9000 is more than batch_tokens 8192"),
    ],
)
def test_keys_that_do_not_go_together(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    path = written(tmp_path, yaml.safe_dump(given))
    refused = refusal({}, path)
    assert message in refused
    assert refused.startswith(f"{path}: ")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"architecture": "4-8-1023-768"}, "the hidden size 1023 is not divisible by 8 heads"),
        ({"dimensions": "0,8"}, "dimensions = '0,8': write whole numbers from 1 with commas between them"),
        ({"dimensions": "8;4"}, "dimensions = '8;4': write whole numbers from 1 with commas between them"),
        ({"architecture": "bort"}, "architecture = 'bort': 'bort' is not an architecture; write depth-heads-hidden"),
        ({"steps": 0}, "steps = 0: Input should be greater than or equal to 1"),
        ({"minutes": 0}, "minutes = 0: Input should be greater than 0"),
        ({"minutes": True}, "minutes = True: a number is needed, not a truth value"),
        ({"loss_mlm": -1}, "loss_mlm = -1: Input should be greater than or equal to 0"),
        ({"loss_mlm": float("nan")}, "loss_mlm = nan"),
        ({"warm_up": 1}, "warm_up = 1: Input should be less than 1"),
        ({"dropout": 1.5}, "dropout = 1.5: Input should be less than 1"),
        ({"clip": float("inf")}, "clip = inf"),
        ({"streaming": 1}, "streaming = 1: Input should be a valid boolean"),
        ({"compile": "yes"}, "compile = 'yes': Input should be a valid boolean"),
        ({"top_k": 0}, "top_k = 0"),
        (
            {"initialise": "teacher"},
            "initialise = 'teacher': Input should be 'inherit', 'scratch' or 'search'",
        ),
        ({"precision": "fp16"}, "precision = 'fp16': Input should be 'fp32' or 'bf16'"),
        ({"max_length": 513}, "max_length = 513"),
        ({"batch_tokens": 10**60}, "batch_tokens = <a number of 200 bits>"),
        ({"warmup": 0.1}, "unknown key 'warmup'; the nearest known key is 'warm_up'"),
        ({"loss_logit": 0.1}, "unknown key 'loss_logit'; the nearest known key is 'loss_logits'"),
    ],
)
def test_impossible_values_name_file_key_and_value(tmp_path: Path, given: dict[str, Any], message: str) -> None:
    path = written(tmp_path, yaml.safe_dump(GOOD | given))
    refused = refusal({}, path)
    assert refused.startswith(f"{path}: ")
    assert message in refused


def test_a_learning_rate_without_a_point_is_a_number_and_options_win(tmp_path: Path) -> None:
    path = written(tmp_path, "teacher: t\ncorpus: [c]\nlearning_rate: 5e-4\nseed: 3\n")
    config = load(PretrainConfig, path, {"seed": 4, "steps": None})
    assert (config.learning_rate, config.seed, config.steps) == (5e-4, 4, 10_000)


@settings(max_examples=200)
@given(
    st.dictionaries(
        st.sampled_from(sorted(fields)),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.integers()),
        max_size=6,
    )
)
def test_any_values_give_a_configuration_or_a_refusal(values: dict[str, Any]) -> None:
    try:
        config = load(PretrainConfig, None, GOOD | values)
    except InvalidConfig:
        return
    assert config == PretrainConfig.model_validate(config.model_dump())
