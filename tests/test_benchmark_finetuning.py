"""The benchmark of fine-tuning runs, on little; what it leaves and compares is what it should."""

from __future__ import annotations

import importlib
import json
import random
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tiny import WORDS, tiny_teacher

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*Matthews correlation is not defined")]
CELLS = ("teacher/teacher", "ours/plain", "ours/distilled", "ours/agora", "ours/plain-equal")


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, with few sets, by which tiny models learn."""
    module = importlib.import_module("benchmarks.finetuning")
    monkeypatch.setattr(module, "RATES", (5e-3, 2e-3))
    monkeypatch.setattr(module, "BATCHES", (4,))
    return module


def test_cells_are_filled_once_and_compared(
    benchmark: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "tasks" / "CoLA"
    folder.mkdir(parents=True)
    for name, seed in (("train", 0), ("dev", 1)):
        source = random.Random(seed)
        drawn = [source.sample(WORDS[("kitchen", "harbour")[row % 2]], 4) for row in range(60)]
        rows = [f"x\t{row % 2}\t\t{' '.join(words)}" for row, words in enumerate(drawn)]
        (folder / f"{name}.tsv").write_text("\n".join(rows), encoding="utf-8")
    teacher, ours = tiny_teacher(tmp_path / "teacher"), tiny_teacher(tmp_path / "ours" / "pretrained", layers=1)
    command = ["finetuning.py", "--teacher", str(teacher), "--data", str(tmp_path / "tasks"), "--tasks", "cola"]
    command += ["--encoder", f"ours={ours}", "--out", str(tmp_path / "out"), "--results", str(tmp_path / "results")]
    command += [
        "--methods",
        "teacher",
        "plain",
        "distilled",
        "agora",
        "plain-equal",
        "--epochs",
        "4",
        "--seeds",
        "0",
        "1",
    ]

    def last_line(*more: str) -> dict[str, dict[str, dict[str, float]]]:
        monkeypatch.setattr(sys, "argv", [*command, *more])
        benchmark.main()
        found: dict[str, dict[str, dict[str, float]]] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return found

    found = last_line()
    left = json.loads((tmp_path / "results" / "cola.json").read_text(encoding="utf-8"))
    cells = left["cells"]
    assert set(cells) == {f"{cell}/{seed}" for cell in CELLS for seed in (0, 1)}
    assert not any("refused" in cell for cell in cells.values())
    for seed in (0, 1):
        agora, equal = cells[f"ours/agora/{seed}"], cells[f"ours/plain-equal/{seed}"]
        assert agora["examples_seen"] <= equal["examples_seen"]
    others = {"agora": "ours/plain-equal", "distilled": "ours/plain"}
    compared = {f"ours/{way} - {other}" for way, other in others.items()}
    assert set(left["comparisons"]) == compared | {"ours/distilled - teacher/teacher"}
    assert set(found["keeps"]["ours"]) == {"plain", "distilled", "tasks"}
    assert not list((tmp_path / "out" / "cola" / "ours").iterdir())  # models of cells that are done are not kept

    monkeypatch.setattr(benchmark, "fit", lambda *_, **__: pytest.fail("it trained again"))
    assert last_line() == last_line("--tables") == found
