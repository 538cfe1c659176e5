"""The run folder: whole files or the old ones, one process at a time, and nobody else's folder is written into."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError

from subarch.errors import InvalidConfig, InvalidStudy, TrainingDiverged
from subarch.extraction.config import ExtractConfig
from subarch.run.configuration import load
from subarch.run.folder import FORMAT, RunFolder
from subarch.run.record import Bare
from subarch.run.records import Basis, Comparison, Selection


class Thing(Bare):
    """Any JSON."""

    NAME = "thing"


def configured(**changes: Any) -> ExtractConfig:
    return load(ExtractConfig, None, {"teacher": "teacher", "corpus": ["text"], **changes})


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    """A run that has come to something: without a basis it would just be started again."""
    folder = RunFolder.create(tmp_path / "run", configured(), resume=False)
    (folder.path / "basis.json").write_text("{}", encoding="utf-8")
    return folder


def test_a_new_run_holds_its_configuration(run: RunFolder) -> None:
    assert run.config(ExtractConfig) == configured()
    assert RunFolder.open(run.path).config(ExtractConfig) == configured()
    assert sorted(os.listdir(run.path)) == [".lock", "basis.json", "config.yaml", "format.json"]


def test_a_run_that_is_there_is_not_started_again(run: RunFolder) -> None:
    with pytest.raises(InvalidStudy, match="holds a run already; add --resume to go on with it"):
        RunFolder.create(run.path, configured(), resume=False)


def test_no_run_to_go_on_with(tmp_path: Path) -> None:
    with pytest.raises(InvalidStudy, match=r"no run folder \(it has no config.yaml\)"):
        RunFolder.open(tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", ["thesis.tex", "selection.json", "config.yml"])
def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    for resume in (False, True):
        with pytest.raises(InvalidStudy, match="is not empty and not a run folder"):
            RunFolder.create(tmp_path, configured(), resume)
    assert os.listdir(tmp_path) == [name]


def test_a_start_that_was_killed_can_be_started_again(tmp_path: Path) -> None:
    for name in ("format.json", ".format.json.17.tmp", ".config.yaml.17.tmp", ".lock"):
        (tmp_path / name).write_text("1")
    assert RunFolder.create(tmp_path, configured(), resume=False).config(ExtractConfig) == configured()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(InvalidStudy, match=r"cannot be made: .*choose another with --run"):
            RunFolder.create(path, configured(), resume=False)


@pytest.mark.parametrize("content", ["3", "6", '"5"', "null", "[5]"])
def test_another_version_is_refused(run: RunFolder, content: str) -> None:
    (run.path / "format.json").write_text(content)
    for call in (RunFolder.open, lambda path: RunFolder.create(path, configured(), resume=True)):
        with pytest.raises(InvalidStudy, match=r"a run of format .*, this version reads 5; start a new one"):
            call(run.path)


def test_a_damaged_configuration_is_refused(run: RunFolder) -> None:
    (run.path / "config.yaml").write_text("steps: many")
    with pytest.raises(InvalidConfig, match=r"config.yaml: steps = 'many'"):
        RunFolder.open(run.path).config(ExtractConfig)


# Locking


def test_one_at_a_time(run: RunFolder) -> None:
    with run, pytest.raises(InvalidStudy, match="another process is working in this run; wait for it to end"):
        RunFolder.open(run.path).__enter__()
    with RunFolder.open(run.path):
        pass


HOLDER = """
import sys
from pathlib import Path
from subarch.run.folder import RunFolder
with RunFolder.open(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_lock_dies_with_its_process(run: RunFolder) -> None:
    words = [sys.executable, "-c", HOLDER, str(run.path)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(InvalidStudy, match="another process"):
            run.__enter__()
        process.kill()
    with run:
        pass


class Surprise(Exception):
    """Not ours."""


@pytest.mark.parametrize(
    "error", [Surprise("x"), KeyboardInterrupt(), TrainingDiverged("x"), InvalidStudy("x"), ValueError("x")]
)
def test_what_is_not_of_the_disk_passes_as_it_is_and_the_lock_is_free_again(
    run: RunFolder, error: BaseException
) -> None:
    with pytest.raises(type(error)) as caught, run:
        raise error
    assert caught.value is error
    with run:
        pass


@pytest.mark.parametrize(
    "error", [OSError(errno.ENOSPC, "No space left on device"), SafetensorError("No space left on device")]
)
def test_a_failure_of_the_disk_becomes_an_answer_with_its_cause(run: RunFolder, error: Exception) -> None:
    with pytest.raises(InvalidStudy, match=r"stopped by .*No space left on device.*then resume") as caught, run:
        raise error
    assert caught.value.__cause__ is error
    assert str(run.path) in str(caught.value)
    with run:
        pass


# Artifacts

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(value=json_values)
def test_an_artifact_comes_back_as_it_went(tmp_path: Path, value: Any) -> None:
    folder = RunFolder(tmp_path)
    folder.write(Thing(value=value))
    assert folder.has(Thing)
    assert folder.read(Thing).value == value
    assert os.listdir(tmp_path) == ["thing.json"]


def test_what_is_no_json_leaves_the_old_file(run: RunFolder) -> None:
    run.write(Thing(value=1))
    for value in (float("nan"), float("inf"), {"a": [object()]}):
        with pytest.raises((ValueError, TypeError)):
            run.write(Thing(value=value))
    assert run.read(Thing).value == 1


def test_a_full_disk_leaves_the_old_file_and_no_other(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    run.write(Thing(value=1))
    before = sorted(os.listdir(run.path))

    def full(*arguments: Any, **options: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for owner, name in ((os, "replace"), (Path, "write_text")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, full)
            with pytest.raises(InvalidStudy, match=r"thing.json: cannot be written: .*No space left.*is kept"):
                run.write(Thing(value=2))
        assert run.read(Thing).value == 1
        assert sorted(os.listdir(run.path)) == before


def test_a_file_is_old_or_new_but_never_half(run: RunFolder) -> None:
    """A reader that looks at any instant: 40 writes of 80 kB each, by another process."""
    code = (
        "import sys; from pathlib import Path; from subarch.run.folder import RunFolder\n"
        "from subarch.run.records import Comparison\n"
        "folder = RunFolder(Path(sys.argv[1]))\n"
        "for n in range(40): folder.write(Comparison(value=[{'n': n}] * 20_000))"
    )
    run.write(Comparison(value=[{"n": 0}]))
    seen = set()
    with subprocess.Popen([sys.executable, "-c", code, str(run.path)]) as process:
        while process.poll() is None:
            value = run.read(Comparison).value
            assert all(row == value[0] for row in value)
            seen.add((value[0]["n"], len(value)))
    assert process.returncode == 0
    assert len(seen) > 1
    assert {length for _, length in seen} <= {1, 20_000}


@pytest.mark.parametrize("content", [b"", b"{", b'{"a": NaN', b"\xff\xfe", b'["half', b"1" * 5000])
def test_damaged_artifacts_are_named(run: RunFolder, content: bytes) -> None:
    (run.path / "basis.json").write_bytes(content)
    with pytest.raises(InvalidStudy, match=r"basis.json: damaged .*; delete it and resume the run"):
        run.read(Basis)


def test_missing_artifacts_name_the_command_that_makes_them(run: RunFolder) -> None:
    with pytest.raises(InvalidStudy, match=rf"finish the run first: subarch extract --run {run.path} --resume"):
        run.read(Selection)
    assert not run.has(Selection)


def test_the_format_is_written_before_the_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever finds a config.yaml finds a whole run folder."""
    written: list[str] = []
    original = RunFolder.write_text

    def noting(self: RunFolder, name: str, text: str) -> None:
        written.append(name)
        original(self, name, text)

    monkeypatch.setattr(RunFolder, "write_text", noting)
    RunFolder.create(tmp_path / "run", configured(), resume=False)
    assert written == ["format.json", "config.yaml"]
    assert json.loads((tmp_path / "run" / "format.json").read_text()) == FORMAT


def test_a_start_that_finished_nothing_is_no_reason_to_insist(tmp_path: Path) -> None:
    RunFolder.create(tmp_path / "run", configured(), resume=False)
    other = configured(steps=7)
    assert RunFolder.create(tmp_path / "run", other, resume=False).config(ExtractConfig) == other
    with RunFolder.open(tmp_path / "run") as run:
        (run.path / "basis.json").write_text("{}", encoding="utf-8")
    with pytest.raises(InvalidStudy, match="holds a run already"):
        RunFolder.create(tmp_path / "run", other, resume=False)
