"""A study in a real PostgreSQL server, which goes away in the middle of a search and comes back."""

from __future__ import annotations

import signal
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from subarch.errors import InvalidStudy
from subarch.extraction.study import Study
from subarch.extraction.trial import Point, Settings, Trial
from subarch.extraction.verify import verify
from subarch.numbers.architecture import Architecture
from subarch.pipeline import extract
from subarch.run.folder import RunFolder
from subarch.run.records import Basis, StudyName
from tiny_run import OneProcess, tiny_config

pytestmark = pytest.mark.slow

pgserver = pytest.importorskip(
    "pgserver", reason="brings a PostgreSQL server for tests; there is none for this platform"
)
CERTIFIED: dict[str, Any] = {"strategy": "certified", "delta": 0.02, "repeats": 2, "audit": 1, "max_parameters": 9_000}


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    with tempfile.TemporaryDirectory(prefix="pg") as folder:  # a socket's path must be short
        started = pgserver.get_server(Path(folder) / "data", cleanup_mode="stop")
        yield started
        started.cleanup()


def test_trials_come_back_as_they_went(server: Any) -> None:
    study = Study.open(server.get_uri(), "round trip", {"error": "embedding"})
    curve = (Point(0, 1.0, 0.0), Point(4, 0.1 + 0.2, 1.5))
    trial = Trial(Architecture(2, 4, 32, 64), Settings(4, 1e-3 + 1 / 7, 8, 3), 0.1 + 0.2, curve, 2.5, 1)
    failed = Trial(Architecture(1, 4, 32, 64), Settings(4, 1e30, 8), None, (), 0.0, 1, "the loss became nan")
    study.record(trial)
    study.record(failed)
    found = Study.open(server.get_uri(), "round trip", {"error": "embedding"}).trials()
    assert [(one.key, one.error, one.curve, one.reason) for one in found] == [
        (one.key, one.error, one.curve, one.reason) for one in (trial, failed)
    ]
    with pytest.raises(InvalidStudy, match="trained with another error"):
        Study.open(server.get_uri(), "round trip", {"error": "mlm"})


def test_a_server_that_is_gone_in_mid_run_is_waited_for(
    server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("subarch.pipeline.Workers", OneProcess)
    expected = extract(tiny_config(tmp_path, **CERTIFIED), tmp_path / "sqlite").to_dict()
    record, before = Study.record, list[int]()

    def away() -> None:
        time.sleep(9)  # Optuna itself tries five times, with up to 2 s between: a shorter absence may be over by then
        server.ensure_postgres_running()

    def recording(study: Study, trial: Trial) -> None:
        before.append(1)
        if len(before) == 4:
            process = psutil.Process(server.get_pid())
            process.send_signal(signal.SIGQUIT)  # as in a crash: connections are cut, nothing is tidied up
            process.wait(10)
            threading.Thread(target=away).start()
        record(study, trial)

    monkeypatch.setattr(Study, "record", recording)
    with pytest.warns(UserWarning, match="trying again in 1 s"):
        found = extract(tiny_config(tmp_path, **CERTIFIED, database=server.get_uri()), tmp_path / "run").to_dict()
    assert found["certificate"] == expected["certificate"]
    run = RunFolder.open(tmp_path / "run")
    study = Study.open(server.get_uri(), run.read(StudyName).value, run.read(Basis).identity)
    keys = [trial.key for trial in study.trials()]
    assert len(keys) == len(set(keys)) == len(before)
    verify(tmp_path / "run")
