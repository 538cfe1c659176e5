"""The configuration of fine-tuning: Θ that lists span, what is refused in words, the published ranges."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from subarch.errors import InvalidConfig
from subarch.finetuning.config import FinetuneConfig, FitSettings, Theta
from subarch.run.configuration import dump, load

REPOSITORY = Path(__file__).parents[1]
GOOD: dict[str, Any] = {"task": "rte", "data": "glue_data"}


def refusal(**given: Any) -> str:
    with pytest.raises(InvalidConfig) as caught:
        load(FinetuneConfig, None, GOOD | given)
    return str(caught.value)


def test_every_key_is_described() -> None:
    for name, field in FinetuneConfig.model_fields.items():
        assert field.description, name
        assert "\n" not in field.description


def test_a_dumped_configuration_is_read_as_it_was(tmp_path: Path) -> None:
    config = load(FinetuneConfig, None, GOOD | {"learning_rate": [1e-4, 2], "seeds": [4], "rows": 50, "teacher": "t"})
    (tmp_path / "a.yaml").write_text(dump(config))
    assert load(FinetuneConfig, tmp_path / "a.yaml", {}) == config


def test_lists_span_the_sets_in_order() -> None:
    config = load(
        FinetuneConfig,
        None,
        GOOD | {"learning_rate": [1e-4, 1e-5, 1e-4], "weight_decay": [0.0, 10], "batch_size": [8], "seeds": [7, 8]},
    )
    assert [theta.values for theta in config.thetas()] == [
        (1e-4, 0, 0.1, 8),
        (1e-4, 10, 0.1, 8),
        (1e-5, 0, 0.1, 8),
        (1e-5, 10, 0.1, 8),
    ]
    assert {theta.seed for theta in config.thetas()} == {7}


def test_other_seeds_are_tried_once() -> None:
    assert load(FinetuneConfig, None, GOOD | {"seeds": [3, 1, 3, 0, 1]}).others() == [1, 0]


def test_a_single_set_is_a_search_space_too() -> None:
    assert load(FinetuneConfig, None, GOOD | {"learning_rate": [1e-4]}).thetas() == (Theta(1e-4),)


def test_defaults_of_a_single_training_are_those_of_the_configuration() -> None:
    config = load(FinetuneConfig, None, GOOD)
    assert config.settings() == FitSettings()
    assert config.thetas()[0] == Theta(config.learning_rate[0])


def test_the_published_ranges_are_480_sets_with_their_seeds() -> None:
    config = load(FinetuneConfig, REPOSITORY / "configs" / "finetune-bort.yaml", GOOD)
    thetas = config.thetas()
    assert (len(thetas), len(thetas) * len(config.seeds)) == (96, 480)
    axes: list[set[float]] = [set(axis) for axis in zip(*(theta.values for theta in thetas), strict=True)]
    assert axes == [{1e-4, 1e-5, 9e-6}, {0, 10, 100, 350}, {0.35, 0.40, 0.45, 0.50}, {8, 16}]


def test_names_tell_settings_apart() -> None:
    theta = Theta(3e-5)
    assert str(theta) == "lr3e-05-wd0.01-wu0.1-b16-e10-d0.1-s0"
    changed = [dataclasses.replace(theta, **{field.name: 1}) for field in dataclasses.fields(Theta)]
    assert len({str(one) for one in [theta, *changed]}) == 8
    assert dataclasses.replace(theta, seed=5).values == theta.values


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"learning_rates": [1e-4]}, "'learning_rate'"),
        ({"learning_rate": []}, "learning_rate"),
        ({"learning_rate": [-1e-4]}, "learning_rate[0]"),
        ({"warm_up": [0.1, 1.0]}, "warm_up[1]"),
        ({"heldout": 0.5}, "heldout"),
        ({"second": "q"}, "name its text column with first"),
        ({"label": "stars"}, "label is only for your own data"),
        ({"first": "t", "kind": "choice"}, "give both or neither"),
        ({"first": "t", "choices": ["a", "b"]}, "give both or neither"),
        ({"any_teacher": True}, "any_teacher needs a teacher"),
        ({"agora": "common"}, "agora needs a teacher"),
        ({"agora": "lcs", "teacher": "t"}, "'common' or 'halving'"),
        ({"points": 2}, "points is for agora only"),
        ({"neighbours": ["texts"], "teacher": "t"}, "neighbours is for agora only"),
        ({"task": "../rte"}, "task"),
    ],
)
def test_what_is_refused(given: dict[str, Any], said: str) -> None:
    assert said in refusal(**given)


def test_a_task_without_data_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="data"):
        load(FinetuneConfig, None, {"task": "rte"})
