"""The benchmark of the model of latency runs, on little, and goes on where it was; its figures are its own."""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from subarch.latency.model import TERMS


def test_the_last_line_is_json_and_nothing_is_measured_twice_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SUBARCH_CACHE", os.environ["SUBARCH_CACHE"])  # put back what the script sets
    (tmp_path / "space.yaml").write_text("{depth: [0, 1, 2], heads: [4], hidden: [16, 32], intermediate: [16, 64]}")
    words = [
        "--out",
        tmp_path / "run",
        "--space",
        tmp_path / "space.yaml",
        "--design",
        6,
        "--others",
        4,
        "--threads",
        1,
    ]
    words += ["--results", tmp_path / "results.json", "--length", 8, "--runtimes", "torch"]

    def run() -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", ["latency_model", *map(str, words)])
        runpy.run_module("benchmarks.studies.latency_model", run_name="__main__")
        last: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return last

    first = run()
    found = first["torch"]
    assert len(found["milliseconds"]) == 10
    assert all(a != b for a, b in found["milliseconds"].values())  # measured twice indeed
    assert set(found["terms"]) == set(TERMS)
    assert -1 <= found["tau"] <= 1
    assert -1 <= found["tau_twice"] <= 1
    assert 0 <= found["median_error"] <= found["p90_error"]
    assert json.loads((tmp_path / "results.json").read_text()) == first
    monkeypatch.setattr("subarch.latency.measuring.visits", None)
    assert run() == first
