"""`--heads all` with the certified search, from end to end: what a run leaves and says, and that edits are found."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from subarch.errors import InvalidStudy
from subarch.extraction.verify import verify
from subarch.numbers.architecture import Architecture
from subarch.pipeline import extract, select
from tiny_run import OneProcess, tiny_config

AXES = {"depth": [0, 1, 2], "heads": [2, 4, 8], "hidden": [16, 32], "intermediate": [16, 64]}
"""26 candidates: three numbers of heads for each shape with layers. The tiny teacher has heads of 8 units."""

OPTIONS: dict[str, Any] = {"strategy": "certified", "heads": "all", "delta": 0.02, "audit": 0, "repeats": 1}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("world")
    (folder / "space.yaml").write_text(yaml.safe_dump(AXES), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def finished(world: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subarch.pipeline.Workers", OneProcess)
        extract(tiny_config(world, **OPTIONS | {"repeats": 2, "audit": 3}), world / "finished")
    return world / "finished"


@pytest.fixture(scope="module")
def exact(world: Path) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subarch.pipeline.Workers", OneProcess)
        extract(tiny_config(world, **OPTIONS), world / "exact")
    return world / "exact"


@pytest.fixture
def copy(exact: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exact, tmp_path / "copy"))


def certificate(run: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((run / "selection.json").read_text(encoding="utf-8"))["certificate"]
    return found


def test_what_a_run_leaves(finished: Path) -> None:
    selection = json.loads((finished / "selection.json").read_text(encoding="utf-8"))
    found, errors = selection["certificate"], {one["architecture"]: one["error"] for one in selection["candidates"]}
    assert found["closed"]
    assert (found["candidates"], found["affordable"]) == (26, 26)
    assert found["incumbent"] == selection["winner"]["architecture"]

    shapes: dict[tuple[int, int, int], dict[int, float]] = {}
    for name, error in errors.items():
        one = Architecture.parse(name)
        shapes.setdefault((one.depth, one.hidden, one.intermediate), {})[one.heads] = error
    best = Architecture.parse(found["incumbent"])
    assert set(shapes[best.depth, best.hidden, best.intermediate]) == {2, 4, 8}
    gains = [
        heads[hidden // 8] - error
        for (_, hidden, _), heads in shapes.items()
        if hidden // 8 in heads
        for number, error in heads.items()
        if number != hidden // 8
    ]
    assert found["heads"]["pairs"] == len(gains) >= 2
    assert found["heads"]["eta"] >= max(0.0, *gains)
    assert found["heads"]["aim"] >= found["aim"]
    for by in found["excluded"].values():
        assert Architecture.parse(by).hidden == 8 * Architecture.parse(by).heads
    assert f"as measured on {len(gains)} pairs" in found["sentence"]


def test_it_verifies(finished: Path, exact: Path) -> None:
    assert verify(finished)[0].startswith("26 candidates: ")
    heads = certificate(exact)["heads"]
    assert f"lower an error by at most {heads['eta']:.3g}, on {heads['pairs']} pairs" in verify(exact)[-1]


def test_the_same_trials_answer_another_question(finished: Path, tmp_path: Path) -> None:
    run = Path(shutil.copytree(finished, tmp_path / "copy"))
    found = select(run, {"max_parameters": 9_000})["certificate"]
    assert found["affordable"] == 11
    if found["closed"]:
        verify(run)
    else:
        with pytest.raises(InvalidStudy, match="closed: claimed False"):
            verify(run)


def without_a_mate(found: dict[str, Any]) -> None:
    """As if one of the incumbent's shape had not been trained, and everything else fitted."""
    found["trained"].remove(MATE)
    found["excluded"][MATE] = NEAREST
    found["heads"]["pairs"] -= 1


BEST, NEAREST, MATE = "2-2-32-64", "2-4-32-64", "2-8-32-64"
EDITS: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda c: c["heads"].update(eta=c["heads"]["eta"] / 2), "eta of the heads: claimed"),
    (lambda c: c["heads"].update(eta=None), "eta of the heads: claimed None"),
    (lambda c: c["heads"].update(pairs=c["heads"]["pairs"] + 1), "the number of pairs that differ in heads"),
    (lambda c: c["heads"].update(aim=c["heads"]["aim"] / 2), "the aim for other numbers of heads: claimed"),
    (lambda c: c.update(heads=None), "does not say what is known of other numbers of heads"),
    (lambda c: c["excluded"].update({"1-2-16-16": MATE}), "has not the heads that the order is of"),
    (without_a_mate, f"{MATE}, of the incumbent's shape, was not trained"),
]


@pytest.mark.parametrize(("edit", "message"), EDITS)
def test_an_edited_certificate_is_refused(copy: Path, edit: Callable[[dict[str, Any]], object], message: str) -> None:
    file = copy / "selection.json"
    selection = json.loads(file.read_text(encoding="utf-8"))
    assert selection["certificate"]["incumbent"] == BEST
    edit(selection["certificate"])
    file.write_text(json.dumps(selection), encoding="utf-8")
    with pytest.raises(InvalidStudy, match=message):
        verify(copy)


def test_with_one_number_of_heads_nothing_is_said_of_others(world: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subarch.pipeline.Workers", OneProcess)
        extract(tiny_config(world, **OPTIONS | {"heads": "nearest"}), tmp_path / "run")
    found = certificate(tmp_path / "run")
    assert (found["heads"], found["candidates"]) == (None, 10)
    assert "number of heads" not in found["sentence"]
    file = tmp_path / "run" / "selection.json"
    selection = json.loads(file.read_text(encoding="utf-8"))
    verify(tmp_path / "run")
    selection["certificate"]["heads"] = {"eta": 0.0, "pairs": 3, "aim": 0.02}
    file.write_text(json.dumps(selection), encoding="utf-8")
    with pytest.raises(InvalidStudy, match="what is known of other numbers of heads: claimed"):
        verify(tmp_path / "run")
