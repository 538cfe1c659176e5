"""What a search takes over from earlier ones: the order of trainings, and nothing that it claims."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from subarch.errors import InvalidStudy
from subarch.extraction.learnt import observed
from subarch.extraction.study import Study
from subarch.extraction.trial import Point, Trial
from subarch.extraction.verify import verify
from subarch.pipeline import extract
from subarch.run.folder import RunFolder
from subarch.run.records import Basis
from tiny_run import searched, tiny_config

pytestmark = pytest.mark.usefixtures("one_process")
CERTIFIED: dict[str, Any] = {"strategy": "certified", "delta": 0.02, "repeats": 1, "audit": 0}
TABLE = np.array([[d, 4, h, i] for d in (1, 2, 3) for h in (16, 32) for i in (16, 64)], dtype=np.int64)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return searched(tmp_path_factory.mktemp("world") / "earlier", **CERTIFIED)


@pytest.mark.slow
def test_a_search_begins_with_the_law_of_an_earlier_one(
    earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, errors = observed(earlier, TABLE, "embedding")
    trials = json.loads((earlier / "conclusion.json").read_text(encoding="utf-8"))["trials"]
    by_name = {trial["architecture"]: trial["error"] for trial in trials if not trial["seed"]}
    assert {"-".join(map(str, row)): error for row, error in zip(rows.tolist(), errors, strict=True)} == {
        name: error for name, error in by_name.items() if not name.startswith("0-")
    }
    learnt = []
    monkeypatch.setattr("subarch.search.certified.Law.learn", lambda law, studies: learnt.append(studies))
    run = tmp_path / "run"  # errors on another sample do not compare, and need not
    extract(tiny_config(earlier.parent, **CERTIFIED, heldout=32, learn_from=[str(earlier)]), run)
    assert (learnt[0][0][0] == rows).all()
    assert (learnt[0][0][1] == errors).all()
    verify(run)


def test_what_teaches_nothing_here_is_refused(earlier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidStudy, match=r"earlier: its errors are of kind 'embedding', here they are 'mlm'"):
        observed(earlier, TABLE, "mlm")
    with pytest.raises(InvalidStudy, match="differ in depth, hidden, intermediate, those of this space in depth, hid"):
        observed(earlier, TABLE[TABLE[:, 3] == 16], "embedding")
    with pytest.raises(
        InvalidStudy, match="in depth, hidden, intermediate, vocabulary, so its law is of another space"
    ):
        observed(earlier, np.column_stack([TABLE, np.arange(len(TABLE)) * 1000]), "embedding")
    with pytest.raises(InvalidStudy, match="no run folder"):
        observed(tmp_path, TABLE, "embedding")
    assert RunFolder.open(earlier).read(Basis).identity["error"] == "embedding"
    trials = Study.trials

    def spoilt(study: Study) -> list[Trial]:
        nothing = Point(3, math.nan, 1.0)
        return [replace(one, curve=(*one.curve[:2], nothing, *one.curve[2:])) for one in trials(study)]

    monkeypatch.setattr(Study, "trials", spoilt)
    with pytest.raises(InvalidStudy, match=r"trial \d+ of [\d-]+ has the error nan after 3 steps"):
        observed(earlier, TABLE, "embedding")
    monkeypatch.setattr(Study, "trials", lambda study: [replace(trial, error=0.0) for trial in trials(study)])
    with pytest.raises(InvalidStudy, match=r"an error of 0\.0 tells nothing"):
        observed(earlier, TABLE, "embedding")
    monkeypatch.setattr(Study, "trials", lambda study: [])
    with pytest.raises(InvalidStudy, match="nothing to learn"):
        observed(earlier, TABLE, "embedding")
