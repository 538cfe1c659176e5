"""When the page of a pretraining is written, and of what: training itself is replaced by what it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import report_fixture
from subarch.errors import InvalidStudy
from subarch.extraction.config import ExtractConfig
from subarch.pipeline import pretrain, write_report
from subarch.pretraining.config import PretrainConfig
from subarch.run.configuration import load
from subarch.run.folder import RunFolder
from subarch.run.records import Pretraining

TRAINED = Pretraining.model_validate(report_fixture.example().pretraining)
CONFIG = load(PretrainConfig, None, {"architecture": "2-2-8-16", "corpus": ["docs"], "steps": 400})


@pytest.fixture(autouse=True)
def trained(monkeypatch: pytest.MonkeyPatch) -> None:
    def train(run: Path, config: PretrainConfig, restart: bool, report: Any) -> Any:
        run.mkdir(exist_ok=True)
        RunFolder(run).write(TRAINED)
        return TRAINED

    monkeypatch.setattr("subarch.pipeline.train", train)


def test_a_pretraining_in_a_new_folder_leaves_its_page(tmp_path: Path) -> None:
    run = tmp_path / "a run"
    assert pretrain(run, CONFIG) == TRAINED
    page = (run / "report.html").read_text()
    assert f"{TRAINED.architecture} was pretrained: 400 steps" in page
    assert f"subarch pretrain &#39;{run}-again&#39; --config &#39;{run}/pretrain.yaml&#39;" in page
    assert "subarch extract" not in page
    assert "versions.python" in page


def test_only_the_first_of_several_processes_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    pretrain(tmp_path, CONFIG)
    assert not (tmp_path / "report.html").exists()
    monkeypatch.setenv("RANK", "0")
    pretrain(tmp_path, CONFIG)
    assert (tmp_path / "report.html").exists()


def test_a_search_that_is_not_finished_is_left_out(tmp_path: Path) -> None:
    run = tmp_path / "run"
    RunFolder.create(run, load(ExtractConfig, None, {"teacher": "teacher", "corpus": ["docs"]}), resume=False)
    pretrain(run, CONFIG)
    page = (run / "report.html").read_text()
    assert "was pretrained" in page
    assert "subarch extract" not in page


def test_a_comparison_is_kept_beside_it_and_shown_again(tmp_path: Path) -> None:
    pretrain(tmp_path, CONFIG)
    rows = [{"model": "teacher", "ms": 12.345}]
    write_report(tmp_path, rows)
    assert json.loads((tmp_path / "comparison.json").read_text()) == rows
    assert write_report(tmp_path) == tmp_path / "report.html"
    assert ">12.35</td>" in (tmp_path / "report.html").read_text()


def test_neither_search_nor_pretraining_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidStudy, match="no run folder"):
        write_report(tmp_path, [{"model": "teacher"}])
    assert list(tmp_path.iterdir()) == []
