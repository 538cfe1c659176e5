"""Which errors the script that trains recorded candidates again calls equal; nothing is trained."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "studies" / "retrain.py"
NAME = "3-6-192-512"
UNIT = 0.75
"""What the best constant vector leaves: the recorded errors are distances, ours shares of it."""


@pytest.fixture
def retrain(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, which finds the recorded errors again, in every code."""
    spec = importlib.util.spec_from_file_location("retrain", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    table, about = module.recorded(SCRIPT.parents[1] / "search" / "minilm.parquet")
    curve = [error / UNIT for error in table[NAME]]
    monkeypatch.setattr(module, "trained", lambda *_: ({NAME: curve}, about["identity"], UNIT))
    monkeypatch.setattr(module, "subarch", lambda *_: {"machine": {}, "versions": {}})
    return module


def run(module: ModuleType, monkeypatch: pytest.MonkeyPatch, *words: str) -> Any:
    monkeypatch.setattr(sys, "argv", ["retrain.py", *words])
    with pytest.raises(SystemExit) as stopped:
        module.main()
    return stopped.value.code


def test_the_same_errors_are_equal(
    retrain: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(retrain, monkeypatch) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("recorded 0.37658799877657895    equal")
    assert json.loads(lines[-1])["differ"] == {"recorded": []}


@pytest.mark.parametrize("point", range(6))
def test_one_bit_anywhere_on_the_curve_is_a_difference(
    retrain: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], point: int
) -> None:
    curves, identity, _ = retrain.trained()
    changed = list(curves[NAME])
    changed[point] = math.nextafter(changed[point], 1)
    monkeypatch.setattr(retrain, "trained", lambda *_: ({NAME: changed}, identity, UNIT))
    assert run(retrain, monkeypatch) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["differ"] == {"recorded": [NAME]}
    # beside another code that comes to the same, the recorded errors are only shown
    assert run(retrain, monkeypatch, "--against", "other") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["differ"] == {"recorded": [NAME], "against": []}


def test_errors_of_another_corpus_are_not_compared(retrain: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    curves, identity, _ = retrain.trained()
    monkeypatch.setattr(retrain, "trained", lambda *_: (curves, identity | {"corpus": "another"}, UNIT))
    assert "another corpus than the table's" in run(retrain, monkeypatch)


def test_distances_of_an_older_code_are_rescaled(
    retrain: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    curves, identity, _ = retrain.trained()
    older = {NAME: retrain.recorded(SCRIPT.parents[1] / "search" / "minilm.parquet")[0][NAME]}
    codes = {Path("older"): (older, identity, 1.0)}
    monkeypatch.setattr(retrain, "trained", lambda code, *_: codes.get(code, (curves, identity, UNIT)))
    assert run(retrain, monkeypatch, "--against", "older") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["differ"] == {"recorded": [], "against": []}
    older[NAME] = [math.nextafter(error, 1) * 1.0001 for error in older[NAME]]
    assert run(retrain, monkeypatch, "--against", "older") == 1
