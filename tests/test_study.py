"""The study: what was reported as recorded is there after any death, and what is not ours or damaged is refused."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, event
from sqlalchemy.exc import OperationalError

from forked import fork, start
from subarch.errors import InvalidStudy
from subarch.extraction.study import Study, sqlite
from subarch.extraction.trial import Point, Settings, Trial
from subarch.numbers.architecture import Architecture

IDENTITY = {"error": "embedding", "teacher": "abc", "corpus": "def", "max_length": 64, "task": None}


def trial(number: int = 0, error: float | None = 0.25, points: int = 3) -> Trial:
    """A trial that no other number has."""
    curve = tuple(Point(step, 1 / (number + step + 3), 0.5 * step) for step in range(points))
    return Trial(
        Architecture(number % 5 + 1, 2, 8, number + 1),
        Settings(10, 1e-3 + number / 7, 16, number),
        error,
        curve if error is not None else (),
        12.5 + number,
        1,
        None if error is not None else "the loss became nan at step 3",
    )


def opened(path: Path, identity: dict[str, object] | None = None, name: str = "run") -> Study:
    return Study.open(sqlite(path), name, identity or IDENTITY)


def execute(path: Path, statement: str) -> None:
    connection = sqlite3.connect(path)
    changed = connection.execute(statement).rowcount
    connection.commit()
    connection.close()
    assert changed, "the statement met no row: the test would prove nothing"


trials = st.builds(
    Trial,
    architecture=st.one_of(
        st.builds(lambda hidden: Architecture(0, 0, hidden, 0), st.integers(1, 65_536)),
        st.builds(
            lambda depth, heads, size, inner: Architecture(depth, heads, heads * size, inner),
            st.integers(1, 1000),
            st.integers(1, 64),
            st.integers(1, 1024),
            st.integers(1, 10**6),
        ),
    ),
    # the widest that a configuration allows
    settings=st.builds(
        Settings,
        steps=st.integers(1, 10**9),
        learning_rate=st.floats(0, exclude_min=True, allow_infinity=False),
        batch_size=st.integers(1, 10**6),
        seed=st.integers(0, 2**32 - 1),
    ),
    error=st.floats(allow_nan=False, allow_infinity=False),
    curve=st.lists(
        st.builds(Point, st.integers(0, 10**9), st.floats(-1e300, 1e300), st.floats(0, 1e9)), max_size=4
    ).map(tuple),
    seconds=st.floats(0, 1e9),
    threads=st.integers(1, 10**4),
)


@pytest.fixture(scope="module")
def one_for_all(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return opened(tmp_path_factory.mktemp("study") / "study.db")


@given(made=trials)
@settings(max_examples=40)
def test_trials_come_back_as_they_went(one_for_all: Study, made: Trial) -> None:
    one_for_all.record(made)
    assert replace(one_for_all.trials()[-1], number=-1) == made


def test_trials_are_numbered_in_the_order_of_recording_and_failed_ones_keep_their_reason(tmp_path: Path) -> None:
    study = opened(tmp_path / "study.db")
    made = [trial(0), trial(1, error=None), trial(2, error=0.0), trial(0)]  # a trial may be repeated
    for one in made:
        study.record(one)
    expected = [replace(one, number=number) for number, one in enumerate(made)]
    assert study.trials() == expected
    assert opened(tmp_path / "study.db").trials() == expected
    assert [found.row().state for found in expected] == ["complete", "failed", "complete", "complete"]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_errors_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    study = opened(tmp_path / "study.db")
    with pytest.raises(ValueError, match="not finite"):
        study.record(trial(error=value))
    with pytest.raises(ValueError, match="not finite"):
        study.record(replace(trial(), curve=(Point(0, value, 0.0), Point(10, 0.25, 1.0))))
    assert study.trials() == []


@pytest.mark.parametrize("form", ["sqlite+pysqlite:///{}", "sqlite:///file:{}?uri=true"])
def test_any_form_of_url_will_do(tmp_path: Path, form: str) -> None:
    Study.open(form.format(tmp_path / "study.db"), "run", IDENTITY).record(trial())
    assert [found.key for found in opened(tmp_path / "study.db").trials()] == [trial().key]


def test_any_file_name_will_do(tmp_path: Path) -> None:
    folder = tmp_path / "what? 50 %41 #1 é+x"
    folder.mkdir()
    opened(folder / "a&b.db").record(trial())
    assert [path.name for path in folder.iterdir()] == ["a&b.db"]
    assert len(opened(folder / "a&b.db").trials()) == 1


def test_two_studies_share_a_file(tmp_path: Path) -> None:
    first, second = (opened(tmp_path / "study.db", {"error": name}, name) for name in ("one", "two"))
    first.record(trial(1))
    second.record(trial(2))
    first.record(trial(3))
    assert [found.settings.seed for found in first.trials()] == [1, 3]
    assert [found.settings.seed for found in second.trials()] == [2]
    assert [found.number for found in first.trials()] == [0, 1]


def test_another_identity_is_refused_and_the_keys_are_named(tmp_path: Path) -> None:
    opened(tmp_path / "study.db").record(trial())
    with pytest.raises(InvalidStudy, match=r"another corpus, max_length; use a new run folder"):
        opened(tmp_path / "study.db", IDENTITY | {"max_length": 32, "corpus": "x"})
    with pytest.raises(InvalidStudy, match="another task"):
        opened(tmp_path / "study.db", IDENTITY | {"task": "t"})
    with pytest.raises(InvalidStudy, match="another teacher"):
        opened(tmp_path / "study.db", {key: value for key, value in IDENTITY.items() if key != "teacher"})
    # a key that a later version adds, where nothing of it is used
    assert len(opened(tmp_path / "study.db", IDENTITY | {"invented_later": None}).trials()) == 1


def test_errors_of_the_old_scale_are_refused_with_the_reason(tmp_path: Path) -> None:
    Study.open(sqlite(tmp_path / "study.db"), "extract", {"error": "embedding"})
    with pytest.raises(
        InvalidStudy, match=r"plain distances.*Nothing can convert them.*train again, with subarch extract"
    ):
        Study.open(sqlite(tmp_path / "study.db"), "extract", {"error": "embedding", "scale": "constant"})


def test_another_schema_is_refused(tmp_path: Path) -> None:
    opened(tmp_path / "study.db").record(trial())
    execute(tmp_path / "study.db", "update study_user_attributes set value_json = '99' where key = 'schema'")
    with pytest.raises(InvalidStudy, match=r"schema 99, this version reads 3; use a new run folder"):
        opened(tmp_path / "study.db")


def test_a_study_of_somebody_else_is_refused(tmp_path: Path) -> None:
    theirs = optuna.create_study(storage=sqlite(tmp_path / "study.db"), study_name="run")
    theirs.optimize(lambda t: t.suggest_float("x", 0, 1), n_trials=1)
    with pytest.raises(InvalidStudy, match="schema None"):
        opened(tmp_path / "study.db")


@pytest.mark.slow
def test_a_study_killed_while_it_was_created_can_be_opened(tmp_path: Path) -> None:
    opened(tmp_path / "study.db")
    execute(tmp_path / "study.db", "delete from study_user_attributes where key = 'schema'")
    opened(tmp_path / "study.db").record(trial())
    execute(tmp_path / "study.db", "delete from study_user_attributes where key = 'schema'")
    with pytest.raises(InvalidStudy, match="schema None"):  # it holds trials: nothing we do leaves that behind
        opened(tmp_path / "study.db")


# Damage


@pytest.fixture(scope="module")
def intact(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("study") / "study.db"
    study = opened(path)
    for number in range(3):
        study.record(trial(number))
    return path.read_bytes()


@pytest.mark.parametrize("content", [b"hello\n", random.Random(0).randbytes(20_000)], ids=["text", "random"])
def test_a_file_that_is_no_study_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "study.db").write_bytes(content)
    with pytest.raises(InvalidStudy, match="cannot be opened: DatabaseError: file is not a database; if the file"):
        opened(tmp_path / "study.db")
    assert (tmp_path / "study.db").read_bytes() == content


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidStudy, match="unable to open database file"):
        opened(tmp_path)


@pytest.mark.parametrize("share", [0.001, 0.1, 0.5, 0.9])
def test_a_truncated_file_is_refused(tmp_path: Path, intact: bytes, share: float) -> None:
    (tmp_path / "study.db").write_bytes(intact[: int(len(intact) * share)])
    with pytest.raises(InvalidStudy, match="the study cannot be opened"):
        opened(tmp_path / "study.db").trials()


@given(seed=st.integers(0, 2**32), count=st.sampled_from([1, 30, 1000]))
@settings(max_examples=40)
def test_flipped_bytes_are_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, intact: bytes, seed: int, count: int
) -> None:
    source, damaged = random.Random(seed), bytearray(intact)
    for _ in range(count):
        damaged[source.randrange(len(damaged))] = source.randrange(256)
    path = tmp_path_factory.mktemp("damaged") / "study.db"
    path.write_bytes(damaged)
    try:  # noqa: SIM105
        assert len(opened(path).trials()) <= 3
    except InvalidStudy:
        pass


@pytest.mark.parametrize(
    "statement",
    [
        "update study_user_attributes set value_json = '{' where key = 'identity'",
        "update study_user_attributes set value_json = '\"[1]\"' where key = 'identity'",
        "delete from study_user_attributes where key = 'identity'",
        "delete from trial_user_attributes where key = 'curve' and trial_id = 2",
        "update trial_user_attributes set value_json = '7' where key = 'curve'",
        "delete from trial_values",
        "delete from trial_params where param_name = 'hidden'",
        "update trial_params set param_value = 5 where param_name = 'heads'",
        "update alembic_version set version_num = 'v99.0.a'",
    ],
)
def test_records_that_are_not_ours_are_refused(tmp_path: Path, intact: bytes, statement: str) -> None:
    (tmp_path / "study.db").write_bytes(intact)
    execute(tmp_path / "study.db", statement)
    with pytest.raises(InvalidStudy, match=r"cannot be (opened|read): \w+: .+ restore it from a copy"):
        opened(tmp_path / "study.db").trials()


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("postgresql+nosuchdriver://me:geheim@localhost/x", r"nosuchdriver://me:\*\*\*@localhost/x: "),
        ("mysql://me:geheim@localhost/x", r"me:\*\*\*@localhost/x: the driver .+ not installed; install it"),
        ("me:geheim", "the storage: the study cannot be opened: ArgumentError"),
        ("sqlite:////no/such/folder/study.db", "unable to open database file"),
    ],
)
def test_a_storage_that_cannot_be_is_refused_without_telling_the_password(url: str, message: str) -> None:
    with pytest.raises(InvalidStudy, match=message) as caught:
        Study.open(url, "run", IDENTITY)
    assert "geheim" not in str(caught.value)


# A disk that takes no more


@pytest.fixture
def read_only() -> Iterator[None]:
    """Whatever is begun from now on may not write."""

    def limit(connection: Connection) -> None:
        connection.exec_driver_sql("pragma query_only = 1")

    event.listen(Engine, "begin", limit)
    yield
    event.remove(Engine, "begin", limit)


def test_on_a_disk_that_became_read_only_the_finished_trials_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)  # Optuna waits between its five tries
    study = opened(tmp_path / "study.db")
    study.record(trial(1))
    request.getfixturevalue("read_only")
    with pytest.raises(InvalidStudy, match=r"could not be stored: .+ attempt to write a readonly database"):
        study.record(trial(2))
    assert [found.settings.seed for found in study.trials()] == [1]


def test_a_read_only_file_is_refused(tmp_path: Path) -> None:
    opened(tmp_path / "study.db").record(trial(1))
    url = f"sqlite:///file:{tmp_path / 'study.db'}?mode=ro&uri=true"
    with pytest.raises(InvalidStudy, match="cannot be opened: OperationalError: attempt to write a readonly database"):
        Study.open(url, "run", IDENTITY)


@pytest.fixture
def small_disk() -> Iterator[None]:
    """SQLite files cannot grow beyond 160 KiB, and SQLite says so as it does on a full disk."""

    def limit(connection: sqlite3.Connection, record: object) -> None:
        connection.execute("pragma max_page_count = 40")

    event.listen(Engine, "connect", limit)
    yield
    event.remove(Engine, "connect", limit)


@pytest.mark.usefixtures("small_disk")
def test_on_a_full_disk_the_finished_trials_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    study = opened(tmp_path / "study.db")
    stored = 0

    def fill() -> None:
        nonlocal stored
        for number in range(100):
            study.record(trial(number, points=40))
            stored += 1

    with pytest.raises(InvalidStudy, match=r"could not be stored: .+ database or disk is full; free some"):
        fill()
    assert stored > 3
    assert [found.settings.seed for found in study.trials()] == list(range(stored))
    assert [found.settings.seed for found in opened(tmp_path / "study.db").trials()] == list(range(stored))


# Deaths


def test_kill_9_loses_nothing_that_was_reported(tmp_path: Path) -> None:
    path, known = tmp_path / "study.db", 0

    def record(report: int) -> None:
        study = opened(path)
        for number in range(len(study.trials()), 10_000):
            study.record(trial(number, points=40))
            os.write(report, b"%d\n" % number)

    for patience in (0.13, 0.02):
        reading, writing = os.pipe()
        child = start(lambda: record(writing))  # noqa: B023
        os.close(writing)
        with os.fdopen(reading, "rb") as reports:
            reported = [int(reports.readline()) for _ in range(5)]
            assert reported[0] == known  # the one before went on from what the first left
            time.sleep(patience)
            os.kill(child, signal.SIGKILL)
            reported += [int(line) for line in reports.read().split(b"\n")[:-1]]
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        found = opened(path).trials()
        known = len(found)
        # what was reported, and at most the one that was being reported
        assert reported[-1] + 1 <= known <= reported[-1] + 2
        assert found == [replace(trial(number, points=40), number=number) for number in range(known)]


@pytest.mark.slow
def test_a_death_between_two_statements_leaves_no_half_trial(tmp_path: Path) -> None:
    whole = tmp_path / "study.db"
    opened(whole).record(trial(0))

    def record(path: Path, fuse: int | None) -> None:
        """Die before statement number `fuse`; the commit is the last of them. Without, exit with their number."""
        study, count = opened(path), 0

        def burn(*_: object) -> None:
            nonlocal count
            if count == fuse:
                os._exit(255)
            count += 1

        event.listen(Engine, "before_cursor_execute", burn)
        event.listen(Engine, "commit", burn)
        study.record(trial(1))
        sys.exit(count)

    def attempt(fuse: int | None) -> tuple[int, list[int]]:
        """The exit code, and the trials that are found."""
        path = Path(shutil.copy(whole, tmp_path / f"{fuse}.db"))
        (status,) = fork(lambda: record(path, fuse))
        return status, [one.settings.seed for one in opened(path).trials()]

    statements, survivors = attempt(None)
    assert 10 < statements < 250  # a trial is many rows, each a place to die at
    assert survivors == [0, 1]
    for fuse in (0, 1, statements // 2, statements - 2, statements - 1):
        assert attempt(fuse) == (255, [0])


# What others see


def test_optuna_reads_the_documented_record(tmp_path: Path) -> None:
    study = opened(tmp_path / "study.db")
    for number, error in enumerate([0.5, 0.125, None, 0.25]):
        study.record(trial(number, error))
    theirs = optuna.load_study(study_name="run", storage=sqlite(tmp_path / "study.db"))
    best = theirs.best_trial
    assert (best.number, best.value) == (1, 0.125)
    assert best.params == {
        "depth": 2,
        "heads": 2,
        "hidden": 8,
        "intermediate": 2,
        "vocabulary": 0,
        "steps": 10,
        "learning_rate": 1e-3 + 1 / 7,
        "batch_size": 16,
        "seed": 1,
    }
    assert best.user_attrs == {
        "architecture": "2-2-8-2",
        "curve": [[0, 1 / 4, 0.0], [1, 1 / 5, 0.5], [2, 1 / 6, 1.0]],
        "seconds": 13.5,
        "threads": 1,
        "reason": None,
    }
    assert [found.state.name for found in theirs.trials] == ["COMPLETE", "COMPLETE", "FAIL", "COMPLETE"]
    assert theirs.trials[2].user_attrs["reason"] == "the loss became nan at step 3"
    assert theirs.user_attrs["schema"] == 3
    assert json.loads(theirs.user_attrs["identity"]) == IDENTITY
    assert theirs.direction == optuna.study.StudyDirection.MINIMIZE
    assert os.listdir(tmp_path) == ["study.db"]  # no journal left
    page = (Path(__file__).parents[1] / "docs" / "study.md").read_text(encoding="utf-8")
    for name in (*best.params, *best.user_attrs, *theirs.user_attrs):
        assert f"`{name}`" in page


class Away:
    """A database that is gone for the first calls."""

    def __init__(self, study: optuna.Study, times: int) -> None:
        self.study, self.times = study, times

    def add_trial(self, frozen: optuna.trial.FrozenTrial) -> None:
        self._fail()
        self.study.add_trial(frozen)

    def _fail(self) -> None:
        if self.times:
            self.times -= 1
            raise OperationalError("insert", None, ConnectionError("server closed the connection"))


def test_a_database_that_goes_away_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    monkeypatch.setattr("subarch.extraction.study.time.sleep", slept.append)
    study = Study.open(sqlite(tmp_path / "study.db"), "x", IDENTITY)
    study._study = Away(study._study, times=3)  # type: ignore[assignment]
    with pytest.raises(InvalidStudy, match="server closed the connection"):  # a file does not come back
        study.record(trial())
    assert slept == []
    study._url = "postgresql://user:secret@host/db"
    with pytest.warns(UserWarning, match=r"host/db: .*server closed .*; trying again in 2 s") as warned:
        study.record(trial())
    assert slept == [1.0, 2.0]
    assert "secret" not in "".join(str(warning.message) for warning in warned)
    again = Study.open(sqlite(tmp_path / "study.db"), "x", IDENTITY)
    assert len(again.trials()) == 1
    monkeypatch.setattr("subarch.extraction.study.PATIENCE", -1.0)
    study._study.times = 1  # type: ignore[attr-defined]
    with pytest.raises(InvalidStudy, match="finished trials are kept"):
        study.record(trial(1))
