"""The configuration: round trips, every refusal in words, and for any input a configuration or InvalidConfig."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from subarch.errors import InvalidConfig
from subarch.extraction.config import ExtractConfig
from subarch.numbers.space import SearchSpace
from subarch.run.configuration import dump, load

REPOSITORY = Path(__file__).parents[1]
GOOD: dict[str, Any] = {"teacher": "teacher", "corpus": ["docs", "more.txt"]}
SHIPPED = [REPOSITORY / "configs" / name for name in ("keep-quality.yaml", "minilm.yaml", "paper-mlm.yaml")]
PRETRAINING = ["bort.yaml"]
"""Configurations of `subarch pretrain`, in tests/test_pretrain_config.py."""


def refusal(overrides: dict[str, Any], path: Path | None = None) -> str:
    with pytest.raises(InvalidConfig) as caught:
        load(ExtractConfig, path, overrides)
    return str(caught.value)


def written(folder: Path, content: Any) -> Path:
    path = folder / "mine.yaml"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return path


def test_defaults() -> None:
    config = load(ExtractConfig, None, GOOD)
    assert config.teacher == Path("teacher")
    assert (config.steps, config.epsilon, config.batch_size, config.learning_rate) == (100, 4, [64], [])
    assert (config.error, config.objective, config.cost) == (None, "error", "latency")
    assert (config.strategy, config.delta, config.heads) == ("certified", 0.01, "nearest")
    with pytest.raises(ValidationError, match="frozen"):
        config.steps = 3  # type: ignore[misc]


def test_every_key_is_described() -> None:
    for name, field in ExtractConfig.model_fields.items():
        assert field.description, name
        assert "\n" not in field.description


def test_every_shipped_configuration_is_in_a_test() -> None:
    shipped = {path.name for path in (REPOSITORY / "configs").iterdir()}
    assert shipped == {*PRETRAINING, "finetune-bort.yaml", *(path.name for path in SHIPPED)}


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_configurations_are_valid(path: Path, tmp_path: Path) -> None:
    config = load(ExtractConfig, path, {})
    assert len(SearchSpace.load(config.space)) > 0
    assert load(ExtractConfig, written(tmp_path, dump(config)), {}) == config


def test_the_command_line_wins_over_the_file_and_none_is_not_given(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD | {"steps": 7, "seed": 3})
    config = load(ExtractConfig, path, {"steps": 9, "seed": None})
    assert (config.steps, config.seed, config.corpus) == (9, 3, ["docs", "more.txt"])


def test_yaml_reads_a_learning_rate_without_a_point_as_text(tmp_path: Path) -> None:
    assert yaml.safe_load("5e-4") == "5e-4"
    assert load(
        ExtractConfig, written(tmp_path, "teacher: t\ncorpus: [c]\nlearning_rate: [5e-4, 1]"), {}
    ).learning_rate == [5e-4, 1.0]


def test_dump_is_commented_yaml_of_every_key() -> None:
    text = dump(load(ExtractConfig, None, GOOD))
    assert list(yaml.safe_load(text)) == list(ExtractConfig.model_fields)
    for name, field in ExtractConfig.model_fields.items():
        assert f"# {field.description}\n{name}:" in text


positive = st.floats(min_value=0, exclude_min=True, allow_nan=False, allow_infinity=False)
# Lone surrogates are no UTF-8 and are refused
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
paths = texts.map(Path)


def choice(key: str) -> st.SearchStrategy[str]:
    return st.sampled_from(get_args(ExtractConfig.model_fields[key].annotation))


fields: dict[str, st.SearchStrategy[Any]] = {
    "teacher": st.none() | paths,
    "start_from": st.none() | paths,
    "prompt": st.none() | texts,
    "corpus": st.lists(texts, min_size=1, max_size=3),
    "text_column": texts,
    "space": texts,
    "error": st.none() | st.sampled_from(get_args(get_args(ExtractConfig.model_fields["error"].annotation)[0])),
    "task": st.none() | paths,
    "data": st.none(),
    "objective": choice("objective"),
    "max_latency_ms": st.none() | positive,
    "max_latency_ratio": st.none() | st.floats(0, 10, exclude_min=True),
    "max_parameters": st.none() | st.integers(1, 10**15),
    "max_megabytes": st.none() | positive,
    "keep": st.none() | st.floats(0, 1, exclude_min=True),
    "heads": choice("heads"),
    "strategy": choice("strategy"),
    "delta": st.floats(0, 1, exclude_max=True),
    "repeats": st.integers(0, 100),
    "audit": st.integers(0, 10**6),
    "epsilon": st.integers(1, 10**9),
    "cost": choice("cost"),
    "steps": st.integers(1, 10**9),
    "learning_rate": st.lists(positive, min_size=1, max_size=3, unique=True),
    "batch_size": st.lists(st.integers(1, 10**6), min_size=1, max_size=3, unique=True),
    "max_length": st.integers(8, 512),
    "heldout": st.integers(2, 10**9),
    "vocabulary_size": st.integers(300, 10**6),
    "initialise": choice("initialise"),
    "latency_batch": st.integers(1, 10**6),
    "latency_length": st.integers(2, 512),
    "length_from": choice("length_from"),
    "latency_threads": st.none() | st.integers(1, 10**4),
    "runtime": choice("runtime"),
    "workers": st.integers(0, 10**4),
    "ray": st.none() | texts,
    "threads_per_worker": st.integers(1, 10**4),
    "minutes": st.none() | positive,
    "trial_minutes": st.none() | positive,
    "seed": st.integers(0, 2**32 - 1),
    "reuse": st.lists(paths, max_size=2),
    "learn_from": st.lists(paths, max_size=2),
    "database": st.none() | texts,
}


def coherent(values: dict[str, Any]) -> bool:
    """The rules between keys, written a second time."""
    limits = [values[key] is not None for key in ("max_latency_ms", "max_latency_ratio")]
    measured = values["cost"] == "latency"
    return all(
        [
            values["teacher"] is not None or (values["error"], values["initialise"]) == ("mlm", "scratch"),
            values["start_from"] is None or values["initialise"] != "scratch",
            values["task"] is None or values["error"] == "task" or values["data"] is not None,
            values["data"] is None or (values["task"] is not None and not values["corpus"]),
            (values["keep"] is not None) == (values["objective"] == "latency"),
            sum(limits) <= 1,
            measured or not any(limits),
            measured or values["objective"] != "latency",
            values["teacher"] is not None or values["max_latency_ratio"] is None,
            values["max_megabytes"] is None or values["error"] not in ("mlm", "logits"),
        ]
    )


@settings(max_examples=300)
@given(st.fixed_dictionaries(fields))
def test_values_within_the_limits_are_accepted_exactly_when_they_go_together(values: dict[str, Any]) -> None:
    assert set(values) == set(ExtractConfig.model_fields)
    try:
        config = load(ExtractConfig, None, values)
    except InvalidConfig:
        assert not coherent(values)
    else:
        assert coherent(values)
        assert {key: getattr(config, key) for key in fields} == values


@given(st.fixed_dictionaries(fields))
def test_reading_what_was_dumped_gives_the_same(
    tmp_path_factory: pytest.TempPathFactory, values: dict[str, Any]
) -> None:
    values |= {"max_latency_ratio": None} if values["max_latency_ms"] else {}
    values |= {"cost": "latency", "teacher": values["teacher"] or Path("teacher")}
    values |= {"start_from": None} if values["initialise"] == "scratch" else {}
    values |= {"task": Path("task") if values["error"] == "task" else None, "data": None}
    values |= {"keep": 0.97 if values["objective"] == "latency" else None}
    values |= {"max_megabytes": None} if values["error"] in ("mlm", "logits") else {}
    config = load(ExtractConfig, None, values)
    path = tmp_path_factory.mktemp("config") / "dumped.yaml"
    path.write_text(dump(config), encoding="utf-8")
    assert load(ExtractConfig, path, {}) == config


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher": None}, "teacher is missing: error 'embedding' is measured with one"),
        ({"teacher": None, "error": "mlm"}, "initialise 'inherit' takes its weights"),
        (
            {"teacher": None, "error": "mlm", "initialise": "scratch", "max_latency_ratio": 0.5},
            "max_latency_ratio needs a teacher",
        ),
        ({"task": "sts"}, "task 'sts' is used with error 'task' alone"),
        ({"data": "glue_data"}, "data 'glue_data' holds the task that `task` names"),
        ({"max_latency_ms": 3.0, "max_latency_ratio": 0.5}, "limit the same; give one of them"),
        ({"max_latency_ms": 3.0, "cost": "operations"}, "max_latency_ms 3.0 needs measured latency"),
        ({"max_latency_ratio": 0.5, "cost": "operations"}, "max_latency_ratio 0.5 needs measured latency"),
        ({"objective": "latency", "keep": 0.9, "cost": "operations"}, "objective 'latency' needs measured latency"),
        ({"objective": "latency"}, "keep is missing"),
        ({"keep": 0.9}, "keep 0.9 would not be used with objective 'error'"),
        (
            {"start_from": "small", "initialise": "scratch"},
            "start_from 'small' would not be used with initialise scratch",
        ),
        ({"corpus": []}, "corpus is missing: give text to train and measure on"),
        ({"learning_rate": [0.1, 0.1]}, "learning_rate [0.1, 0.1] holds a value twice"),
        ({"batch_size": [8, 16, 8]}, "batch_size [8, 16, 8] holds a value twice"),
    ],
)
def test_keys_that_do_not_go_together(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = written(tmp_path, GOOD | change)
    refused = refusal({}, path)
    assert message in refused
    assert str(path) in refused


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": 0}, "steps = 0: Input should be greater than or equal to 1"),
        ({"steps": True}, "steps = True: Input should be a valid integer"),
        ({"steps": 1.0}, "steps = 1.0: Input should be a valid integer"),
        ({"steps": "many"}, "steps = 'many': Input should be a valid integer"),
        ({"error": "mse"}, "error = 'mse': Input should be 'embedding', 'outputs', 'logits', 'mlm' or 'task'"),
        ({"corpus": "docs"}, "corpus = 'docs': Input should be a valid list"),
        ({"corpus": ["a", ""]}, "corpus[1] = '': String should have at least 1 character"),
        ({"learning_rate": [0.1, float("nan")]}, "learning_rate[1] = nan"),
        ({"learning_rate": [float("inf")]}, "learning_rate[0] = inf"),
        ({"learning_rate": [True]}, "learning_rate[0] = True: a number is needed, not a truth value"),
        ({"max_latency_ms": float("inf")}, "max_latency_ms = inf"),
        ({"max_latency_ms": 0}, "max_latency_ms = 0: Input should be greater than 0"),
        ({"max_latency_ratio": 11}, "max_latency_ratio = 11: Input should be less than or equal to 10"),
        ({"keep": 1.01}, "keep = 1.01: Input should be less than or equal to 1"),
        ({"max_length": 513}, "max_length = 513"),
        ({"max_length": 7}, "max_length = 7"),
        ({"seed": -1}, "seed = -1"),
        ({"workers": 10**60}, "workers = <a number of 200 bits>"),
        ({"teacher": ["a"]}, "teacher = ['a']"),
    ],
)
def test_impossible_values_name_file_key_and_value(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = written(tmp_path, GOOD | change)
    assert f"{path}: {message}" in refusal({}, path)


def test_every_wrong_key_is_named_at_once_and_options_as_options(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD | {"steps": 0, "epsilon": 0})
    lines = refusal({"max_latency_ms": -1.0, "epsilon": -3}, path).splitlines()
    assert [line.split(": Input")[0] for line in sorted(lines)] == [
        "--epsilon: epsilon = -3",
        "--max-latency-ms: max_latency_ms = -1.0",
        f"{path}: steps = 0",
    ]


def test_a_missing_corpus_is_named() -> None:
    assert "corpus is missing" in refusal({"teacher": "t"})


def test_the_texts_of_recorded_vectors_are_the_corpus_where_none_is_given() -> None:
    assert load(ExtractConfig, None, {"teacher": "vectors.parquet"}).corpus == ["vectors.parquet"]
    assert load(ExtractConfig, None, {"teacher": Path("a.jsonl.gz"), "corpus": ["docs"]}).corpus == ["docs"]


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("stepz", "steps"),
        ("max-latency-ms", "max_latency_ms"),
        ("learning_rates", "learning_rate"),
        ("seeds", "seed"),
        ("initialize", "initialise"),
        (3, ""),
        (None, ""),
        ((1, 2), ""),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(tmp_path: Path, key: Any, nearest: str) -> None:
    path = written(tmp_path, yaml.dump({**GOOD, key: 1}))
    if isinstance(key, tuple):
        path.write_text("? [1, 2]\n: 1", encoding="utf-8")
        assert "not a YAML file" in refusal({}, path)
        return
    refused = refusal({}, path)
    assert f"{path}: unknown key {key!r}; the nearest known key is '{nearest}" in refused
    if isinstance(key, str):
        assert refusal({key: 1}).startswith(f"--{key.replace('_', '-')}: unknown key")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "teacher is missing"),
        (b"- 1", "needs a mapping of keys to values"),
        (b"just text", "needs a mapping of keys to values"),
        (b"0x" + b"f" * 9000, "<a number of 36000 bits>"),
        (b"\xff\xfe\x00", "cannot be read as UTF-8 text"),
        (b"steps: [1", "not a YAML file"),
        (b"steps: " + b"9" * 6000, "not a YAML file"),
        (b"steps: 2001-99-99", "not a YAML file"),
        (b"steps: 1" + b":59" * 300 + b".0", "not a YAML file"),
        (b"steps: !!timestamp no", "not a YAML file"),
        (b"steps: !!float ''", "not a YAML file"),
        (b"steps: !!bool maybe", "not a YAML file"),
        (b"steps: !!python/object/apply:os.getcwd []", "not a YAML file"),
        (b"[" * 3000, "not a YAML file"),
        (b"teacher: t\ncorpus: &a [*a]", "corpus[0]"),
        (b"teacher: t\ncorpus: [c]\ndatabase: " + b"x" * 10**6 + b"\nkeep: " + b"y" * 10**6, "keep = 'yyy"),
    ],
    ids=lambda value: value[:24].decode(errors="replace") if isinstance(value, bytes) else "",
)
def test_files_that_are_no_configuration(tmp_path: Path, content: bytes, message: str) -> None:
    path = written(tmp_path, content)
    refused = refusal({}, path)
    assert message in refused
    assert str(path) in refused
    assert len(refused) < 2000


def test_an_alias_bomb_is_refused_shortly(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)), "corpus: *a39"]
    # Unknown keys are named first; the value itself, of 2^40 items, comes as corpus alone
    bomb = yaml.safe_load("\n".join(lines))["corpus"]
    assert len(refusal({"teacher": "t", "corpus": bomb})) < 2000


LONG = 10**5000
"""More digits than Python prints."""


@pytest.mark.parametrize("values", [{LONG: 1}, {"steps": LONG}, {"corpus": [LONG]}, {"task": {LONG: [LONG]}}])
def test_numbers_that_python_does_not_print(values: dict[Any, Any]) -> None:
    assert "<a number of 16610 bits>" in refusal(values)


@pytest.mark.parametrize("name", ["missing.yaml", ".", "nul\0.yaml"])
def test_unreadable_paths_are_refused(tmp_path: Path, name: str) -> None:
    assert "cannot be read as UTF-8 text" in refusal({}, tmp_path / name)


scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=10) | st.binary(max_size=10) | st.dates()
)
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(sorted(fields)), anything, max_size=6), st.booleans())
def test_any_values_give_a_configuration_or_a_refusal(values: dict[str, Any], complete: bool) -> None:
    try:
        config = load(ExtractConfig, None, (GOOD if complete else {}) | values)
    except InvalidConfig:
        return
    assert config == ExtractConfig.model_validate(config.model_dump())


@given(st.dictionaries(scalars, scalars, max_size=4))
def test_any_keys_give_a_configuration_or_a_refusal(values: dict[Any, Any]) -> None:
    assume(any(value is not None for value in values.values()))
    refusal(values)


@given(st.text(max_size=60) | st.binary(max_size=60) | st.dictionaries(st.sampled_from(sorted(fields)), anything))
def test_any_file_gives_a_configuration_or_a_refusal(tmp_path_factory: pytest.TempPathFactory, content: Any) -> None:
    path = tmp_path_factory.mktemp("config") / "any.yaml"
    if isinstance(content, dict):
        content = yaml.safe_dump(content)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
    for overrides in ({}, GOOD):
        try:
            config = load(ExtractConfig, path, overrides)
        except InvalidConfig:
            continue
        assert isinstance(config, ExtractConfig)
