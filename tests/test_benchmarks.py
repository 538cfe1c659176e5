"""Each benchmark runs, on little, and its last line is JSON. What it measures is no test's business."""

from __future__ import annotations

import json
import math
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from forked import start
from subarch.cli.app import app
from subarch.models.teacher import Teacher
from test_bench import FakeGroup
from tiny import TOPICS, tiny_corpus, tiny_teacher
from tiny_run import OneProcess, searched, tiny_options

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick_trainer")]

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"

Benchmark = Callable[..., dict[str, Any]]


@pytest.fixture
def last_line(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Benchmark:
    """Runs a script as `python` does, but in this process, where torch is imported, and gives what it prints last."""
    for place in ("subarch.extraction.workers.Workers", "subarch.pipeline.Workers"):
        monkeypatch.setattr(place, OneProcess)

    def run(script: str, *arguments: str) -> dict[str, Any]:
        monkeypatch.setattr(sys, "argv", [script, *arguments])
        runpy.run_module(script, run_name="__main__")
        found: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
        return found

    return run


def test_reproduction(last_line: Benchmark) -> None:
    found = last_line("benchmarks.studies.reproduction", "--runtimes")
    assert found["rows"]
    assert found["speed"] is None


@pytest.fixture
def milliseconds(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, float]]:
    """What a forward pass is said to take, by model and runtime; nothing is timed."""
    monkeypatch.setattr("subarch.latency.bench.Group", FakeGroup)
    yield FakeGroup.milliseconds
    FakeGroup.milliseconds.clear()


def test_reproduction_of_speed(last_line: Benchmark, tmp_path: Path, milliseconds: dict[str, float]) -> None:
    milliseconds |= {"Bort in torch": 2.0, "BERT-large in torch": 30.0}
    arguments = ["--tiny", "--runtimes", "torch", "--lengths", "8", "--rounds", "1"]
    arguments += ["--out", str(tmp_path / "models"), "--results", str(tmp_path / "reproduction.json")]
    found = last_line("benchmarks.studies.reproduction", *arguments)["speed"]
    assert json.loads((tmp_path / "reproduction.json").read_text()) == found
    assert found["runtimes"]["torch"]["ratios"]["8"] == {
        "Bort": {"BERT-base": 0.5, "BERT-large": 15.0, "RoBERTa-large": 0.5},
        "Bort, H and I exchanged": {"BERT-base": 1.0, "BERT-large": 30.0, "RoBERTa-large": 1.0},
    }


def test_end_to_end(last_line: Benchmark, tmp_path: Path, milliseconds: dict[str, float]) -> None:
    student, teacher = (tiny_teacher(tmp_path / name, layers=n) for name, n in (("student", 1), ("teacher", 2)))
    sts = tmp_path / "sts" / "dev.tsv"
    sts.parent.mkdir()
    pairs = [f"the {word} sees a boat\tone old {word}\t{score}" for score, word in enumerate(TOPICS)]
    sts.write_text("\n".join(["sentence1\tsentence2\tscore", *pairs]), encoding="utf-8")
    corpus = str(tiny_corpus(tmp_path / "corpus.txt", 400))
    arguments = ["--student", str(student), "--teacher", str(teacher), "--sts", str(sts.parent), "--rounds", "1"]
    arguments += ["--corpus", corpus, "--variants", "torch", "onnx", "onnx-int8"]
    arguments += ["--out", str(tmp_path / "out"), "--results", str(tmp_path / "results.json")]
    milliseconds |= {"teacher in torch": 48.0, "teacher/exported/onnx in onnx": 32.0, "student in torch": 6.0}
    milliseconds |= {"student/exported/onnx in onnx": 8.0, "student/exported/onnx-int8 in onnx-int8": 4.0}
    milliseconds["teacher/exported/onnx-int8 in onnx-int8"] = 16.0
    found = last_line("benchmarks.end_to_end", *arguments)
    kept = json.loads((tmp_path / "results.json").read_text())
    assert kept["refused"] == {}
    rows = {(row["model"], row["variant"]): row for row in kept["rows"]}
    assert len(rows) == 6
    assert len(rows["teacher", "onnx"]["corpus"]["lengths"]) == 8
    assert rows["student", "torch"]["eager_length"]["lengths"] == [32]
    for who in ("teacher", "student"):
        assert rows[who, "onnx"]["spearman"] == pytest.approx(rows[who, "torch"]["spearman"], abs=1e-6)
    score = rows["teacher", "torch"]["spearman"]
    assert kept["best_fp32"] == {"teacher": "onnx", "student": "torch"}
    assert found == {
        "speedup_fp32": 32 / 6,
        "keep_fp32": rows["student", "torch"]["spearman"] / score,
        "speedup_int8": 32 / 4,
        "keep_int8": rows["student", "onnx-int8"]["spearman"] / score,
    }
    assert kept["int8_against_int8"] == 4
    assert kept["eager"] == {"teacher": {"fp32": 1.5, "any": 3.0}, "student": {"fp32": 0.75, "any": 1.5}}


def test_rank_agreement_and_again(last_line: Benchmark, tmp_path: Path) -> None:
    teacher, corpus = tiny_teacher(tmp_path / "teacher"), tiny_corpus(tmp_path / "corpus.txt")
    names = ["0-0-32-0", "1-4-32-16", "1-2-16-16"]
    arguments = ["--out", str(tmp_path / "run"), "--teacher", str(teacher), "--corpus", str(corpus), "--steps", "1"]
    first = last_line("benchmarks.studies.rank_agreement", *arguments, "--candidates", *names)
    assert first["candidates"] == 3
    assert -1 <= first["tau_at_0.1"][0] <= 1
    trained = OneProcess.submitted
    assert last_line("benchmarks.studies.rank_agreement", *arguments, "--candidates", *names) == first
    assert OneProcess.submitted == trained


def test_the_order_of_errors_in_a_finished_search(last_line: Benchmark, tmp_path: Path) -> None:
    run = searched(tmp_path / "run", strategy="exhaustive", epsilon=None)
    results = str(tmp_path / "order.json")
    found = last_line("benchmarks.studies.order", f"tiny, all={run}", "--results", results)["searches"]["tiny, all"]
    assert len(found["trained"]) == found["by_share"]["1"]["shapes"] > 1
    assert found["by_share"]["1"]["tau"] == 1
    assert all(share["pairs"] for share in found["by_share"].values())


def test_speedup_of_workers(last_line: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[list[str]] = []
    process = subprocess.run

    def in_this_process(command: list[str], **options: Any) -> Any:
        if command[1:3] != ["-m", "subarch"]:
            return process(command, **options)
        asked.append(command[3:])
        assert CliRunner().invoke(app, command[3:]).exit_code == 0

    monkeypatch.setattr("subprocess.run", in_this_process)
    options = tiny_options(tmp_path, max_parameters=9_000, strategy="certified", repeats=0, audit=1, epsilon=None)
    words = [word for key, value in options.items() if key not in ("teacher", "corpus") for word in _words(key, value)]
    given = [
        "--teacher",
        options["teacher"],
        "--corpus",
        options["corpus"][0],
        "--results",
        str(tmp_path / "found.json"),
    ]
    found = last_line("benchmarks.studies.speedup", *given, "--rounds", "2", "--", *words)
    assert found["speedup_1"] == 1
    assert [command[command.index("--workers") + 1] for command in asked] == ["1", "1", "2", "1", "2"]
    runs = json.loads((tmp_path / "found.json").read_text())["runs"]
    assert len({run["trainings"] for run in runs["1"]}) == 1  # each began with nothing trained
    assert runs["1"][0]["trainings"] > 2


def _words(key: str, value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [word for item in values for word in (f"--{key.replace('_', '-')}", str(item))]


def test_inheritance(last_line: Benchmark, tmp_path: Path) -> None:
    teacher, corpus = tiny_teacher(tmp_path / "teacher", width=24, heads=6), tiny_corpus(tmp_path / "corpus.txt")
    sts = tmp_path / "dev.tsv"
    pairs = [f"a sentence about {word}\ton one {word}\t{score}" for score, word in enumerate(TOPICS)]
    sts.write_text("\n".join(["sentence1\tsentence2\tscore", *pairs]), encoding="utf-8")
    arguments = ["--out", str(tmp_path / "run"), "--teacher", str(teacher), "--corpus", str(corpus), "--sts", str(sts)]
    result = last_line("benchmarks.studies.inheritance", *arguments, "--architecture", "2-6-24-48", "--steps", "2")
    assert list(result["untrained"]) == ["24", "16", "12", "8"]
    assert result["untrained"]["24"][0] < 1e-6 < result["untrained"]["24"][1]
    assert result["inherited"]["curve"]["0"] < result["scratch"]["curve"]["0"]


def test_starts_of_a_modernbert(last_line: Benchmark, tmp_path: Path) -> None:
    source, corpus = tiny_teacher(tmp_path / "source"), tiny_corpus(tmp_path / "corpus.txt")
    arguments = ["--out", str(tmp_path / "run"), "--source", str(source), "--corpus", str(corpus), "--steps", "2"]
    result = last_line("benchmarks.studies.modernbert", *arguments, "--shape", "3-2-16-24")
    assert list(result["heads"]) == ["3-2-16-24", "3-4-16-24", "3-8-16-24", "3-1-16-24"]
    assert result["heads"]["3-2-16-24"][0] < 1e-4
    assert all(inherited < scratch for inherited, scratch in result["sizes"].values())
    assert len(result["kinds"]) == 1
    assert (tmp_path / "run" / "teacher" / "modules.json").is_file()


class Forked:
    """In place of `subprocess.Popen` of the script itself, with its pipes: a process that has torch imported."""

    def __init__(self, command: list[str], stdin: int, stdout: int, text: bool) -> None:
        (asked, ask), (answer, answered) = os.pipe(), os.pipe()

        def work() -> None:
            os.dup2(asked, 0)
            os.dup2(answered, 1)
            sys.stdin, sys.stdout, sys.argv = os.fdopen(0), os.fdopen(1, "w"), command[2:]
            runpy.run_module(command[2], run_name="__main__")

        self.pid = start(work)
        os.close(asked)
        os.close(answered)
        self.stdin, self.stdout = os.fdopen(ask, "w"), os.fdopen(answer)

    def __enter__(self) -> Forked:
        return self

    def __exit__(self, *exception: object) -> None:
        self.stdin.close()
        self.stdout.close()
        os.waitpid(self.pid, 0)

    def terminate(self) -> None:
        os.kill(self.pid, signal.SIGTERM)


def test_throughput(last_line: Benchmark, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("subprocess.Popen", Forked)
    result = last_line("benchmarks.throughput", "--tiny", "--results", str(tmp_path / "throughput.json"))
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
    documents = [{"text": line} for line in tiny_corpus(tmp_path / "lines.txt", documents=300).read_text().split("\n")]
    (out / "docstrings.jsonl").write_text("\n".join(json.dumps(row) for row in documents if row["text"]))
    pairs = [(f"the {word} boat", f"a {word} net", str(score)) for score, word in enumerate("abcdefghij")]
    rows = ["sentence1\tsentence2\tscore", *("\t".join(pair) for pair in pairs)]
    (sts / "dev.tsv").write_text("\n".join(rows), encoding="utf-8")
    gold = [f"genre\tfile\tyear\t{score}\t{score}\t{first}\t{second}" for first, second, score in pairs]
    (sts / "sts-test.tsv").write_text("\n".join(gold), encoding="utf-8")
    corpus = tiny_corpus(tmp_path / "corpus.txt", documents=300, seed=1)
    return ["--out", str(out), "--results", str(tmp_path / "results.json"), "--corpora", str(corpus)]


def test_vocabulary(last_line: Benchmark, little: list[str], tmp_path: Path) -> None:
    results, corpus = little[3], Path(little[5])
    (tmp_path / "tasks").mkdir()
    (tmp_path / "sts").rename(tmp_path / "tasks" / "STS-B")
    (tmp_path / "corpora").mkdir()
    corpus.rename(tmp_path / "corpora" / corpus.name)
    teacher = Teacher.load(tiny_teacher(tmp_path / "teacher"))
    whole = len(teacher.tokenizer)
    arguments = ["--minilm", str(teacher.folder), "--data", str(tmp_path), "--results", results]
    arguments += ["--sizes", str(whole), "60", "--moved", "60"]
    found = last_line("benchmarks.studies.vocabulary", *arguments)
    wholes = [found[way][str(whole)]["spearman"] for way in ("what absence costs", "frequency")]
    assert wholes[0] == wholes[1]
    cuts = [found[way]["60"] for way in ("what absence costs", "frequency", "rows moved")]
    assert [cut["tokens"] for cut in cuts] == [60, 60, 60]


def test_quality(last_line: Benchmark, little: list[str], tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text("depth: [1]\nheads: [4]\nhidden: [32]\nintermediate: [16]\n")
    teacher = tiny_teacher(tmp_path / "teacher")
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
    found = last_line("benchmarks.quality", *arguments)
    seeded = {f"{shape}-s{seed}" for shape in ("selected", "1-2-16-16") for seed in (0, 1, 2)}
    assert set(found["runs"]) == {*seeded, "best"}
    assert -1 <= found["teacher"]["sts_dev"] <= 1
    assert last_line("benchmarks.quality", *arguments) == found


def test_ablation(last_line: Benchmark, little: list[str], tmp_path: Path) -> None:
    arguments = [*little, "--teacher", str(tiny_teacher(tmp_path / "teacher")), "--sts", str(tmp_path / "sts")]
    arguments += ["--architecture", "1-4-32-16", "--steps", "1", "--variants", "relations", "embedding + hidden"]
    found = last_line("benchmarks.studies.ablation", *arguments)
    assert set(found["runs"]) == {"relations", "embedding + hidden"}
    assert set(found["pace"]) >= {"embedding", "relations"}


def test_distillation(last_line: Benchmark, little: list[str], tmp_path: Path) -> None:
    teacher = tiny_teacher(tmp_path / "teacher", masked_lm=True, modules=False)
    arguments = [*little, "--teacher", str(teacher), "--student", "1-4-32-16", "--teacher-steps", "1"]
    found = last_line("benchmarks.studies.distillation", *arguments, "--steps", "1", "--seeds", "1")
    assert {"teacher", "inherit mlm", "scratch distillation"} <= set(found)


def test_pair_reading(last_line: Benchmark, tmp_path: Path) -> None:
    teacher, sts = tiny_teacher(tmp_path / "teacher"), tmp_path / "sts"
    sts.mkdir()
    for name, rows in (("train", 40), ("dev", 20), ("test", 20)):
        pairs = [f"{name} of {TOPICS[row % 5]} {row}\tone {TOPICS[row % 3]}\t{row % 6}" for row in range(rows)]
        (sts / f"{name}.tsv").write_text("\n".join(["sentence1\tsentence2\tscore", *pairs]), encoding="utf-8")
    arguments = ["--teacher", str(teacher), "--sts", str(sts), "--out", str(tmp_path / "out"), "--epochs", "2"]
    arguments += ["--results", str(tmp_path / "results.json"), "--encoder", f"whole={teacher}"]
    found = last_line("benchmarks.studies.pair_reading", *arguments, "--layers", "0,1,2", "0,2")
    scores = {name: [one[key] for key in ("dev", "heldout", "embeddings")] for name, one in found["runs"].items()}
    assert scores["0,1,2"] == scores["whole"] != scores["0,2"]
    assert last_line("benchmarks.studies.pair_reading", *arguments, "--layers", "0,2") == found
