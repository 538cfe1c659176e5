"""Files and folders that appear whole or not at all, with the permissions of the umask; hashes of content."""

from __future__ import annotations

import errno
import json
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from subarch.errors import InvalidStudy, SubarchError
from subarch.exporting.runtimes import find_export
from subarch.extraction.config import ExtractConfig
from subarch.finetuning.fit import Fitted
from subarch.models.student import Student, load_weights
from subarch.models.teacher import Teacher
from subarch.run.configuration import load
from subarch.run.files import content_hash, replaced, replaced_file, save_tensors, unreadable, write_json, write_text
from subarch.run.folder import RunFolder
from subarch.run.inputs import of_file
from subarch.run.records import Selection
from subarch.text.corpus import Corpus
from subarch.text.formats import records


@pytest.fixture(params=[0o022, 0o077, 0o002])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def modes(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}


def by_tempfile(path: Path) -> None:
    """As libraries write that do not respect the umask."""
    handle, name = tempfile.mkstemp(dir=path.parent)
    os.write(handle, b"content")
    os.close(handle)
    os.replace(name, path)


def test_all_in_a_folder_has_the_permissions_of_the_umask(tmp_path: Path, umask: int) -> None:
    with replaced(tmp_path / "model") as partial:
        by_tempfile(partial / "model.safetensors")
        save_file({"a": torch.ones(1)}, partial / "other.safetensors")
        (partial / "1_Dense").mkdir(mode=0o700)
        by_tempfile(partial / "1_Dense" / "model.bin")
        (partial / "config.json").write_text("{}", encoding="utf-8")
    found = modes(tmp_path)
    folders = {"model", "model/1_Dense"}
    assert {found[name] for name in folders} == {0o777 & ~umask}
    assert {mode for name, mode in found.items() if name not in folders} == {0o666 & ~umask}


def test_a_file_has_the_permissions_of_the_umask(tmp_path: Path, umask: int) -> None:
    with replaced_file(tmp_path / "a") as partial:
        by_tempfile(partial)
    save_tensors({"a": torch.ones(1)}, tmp_path / "b.safetensors")
    write_text(tmp_path / "c", "text")
    write_json(tmp_path / "d.json", [1])
    assert set(modes(tmp_path).values()) == {0o666 & ~umask}
    assert len(modes(tmp_path)) == 4


def write_and_fail(place: AbstractContextManager[Path], name: str) -> None:
    with place as partial:
        (partial / name).write_text("new", encoding="utf-8")
        raise KeyError


def test_what_raises_leaves_the_old_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")
    with replaced(tmp_path / "folder") as partial:
        (partial / "file").write_text("old", encoding="utf-8")
    with pytest.raises(KeyError):
        write_and_fail(replaced_file(tmp_path / "file"), "")
    with pytest.raises(KeyError):
        write_and_fail(replaced(tmp_path / "folder"), "file")
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert (tmp_path / "file").read_text(encoding="utf-8") == "old"
    assert (tmp_path / "folder" / "file").read_text(encoding="utf-8") == "old"
    for value in (float("nan"), object()):
        with pytest.raises((ValueError, TypeError)):
            write_json(tmp_path / "file", value)
    assert (tmp_path / "file").read_text(encoding="utf-8") == "old"


def test_what_a_killed_process_left_of_a_folder_is_no_part_of_the_next(tmp_path: Path) -> None:
    (tmp_path / ".folder.partial").mkdir()
    (tmp_path / ".folder.partial" / "rest").write_text("", encoding="utf-8")
    with replaced(tmp_path / "folder") as partial:
        (partial / "file").write_text("new", encoding="utf-8")
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "file"]


@given(value=st.recursive(st.none() | st.integers() | st.text(), lambda inner: st.lists(inner), max_leaves=5))
def test_json_comes_back(tmp_path: Path, value: object) -> None:
    for ensure_ascii in (True, False):
        write_json(tmp_path / "value.json", value, ensure_ascii=ensure_ascii)
    assert json.loads((tmp_path / "value.json").read_text(encoding="utf-8")) == value
    assert os.listdir(tmp_path) == ["value.json"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "1_Pooling").mkdir(parents=True)
    for name in ("config.json", "model.safetensors", "1_Pooling/config.json"):
        (folder / name).write_text(name, encoding="utf-8")
    return folder


def test_a_hash_is_of_names_and_bytes(folder: Path, tmp_path: Path) -> None:
    whole = content_hash(folder)
    copy = shutil.copytree(folder, tmp_path / "copy")
    os.utime(copy / "config.json", (0, 0))
    (copy / "config.json").chmod(0o600)
    assert content_hash(copy) == whole
    for hidden in (".partial", ".cache/x", "1_Pooling/.lock"):
        (copy / hidden).parent.mkdir(exist_ok=True)
        (copy / hidden).write_text("", encoding="utf-8")
    assert content_hash(copy) == whole
    for change in (
        lambda: (copy / "config.json").write_text("other", encoding="utf-8"),
        lambda: (copy / "model.safetensors").rename(copy / "model2.safetensors"),
        lambda: (copy / "1_Pooling" / "config.json").unlink(),
        lambda: (copy / "vocab.txt").write_text("", encoding="utf-8"),
    ):
        before = content_hash(copy)
        change()
        assert content_hash(copy) != before
    assert content_hash(folder) == whole


def test_only_what_matters_counts(folder: Path) -> None:
    def matters(path: Path) -> bool:
        return path.suffix == ".safetensors"

    before = content_hash(folder, matters)
    (folder / "README.md").write_text("a card", encoding="utf-8")
    assert content_hash(folder, matters) == before
    assert content_hash(folder / "config.json") == content_hash(folder / "config.json", matters)


def test_a_missing_file_has_no_hash(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        content_hash(tmp_path / "missing")


def test_permission_denied_is_told_from_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "weights"
    path.write_text("damaged", encoding="utf-8")
    for of in (path, tmp_path):
        assert unreadable(of, ValueError("truncated"), "is truncated") == f"{of}: is truncated"
        assert unreadable(of, OSError("Input/output error")) == f"{of}: cannot be read: Input/output error"
    opened = Path.open

    def denied(self: Path, *arguments: Any) -> Any:  # these tests may run as root, who may read everything
        if self == path:
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(self, *arguments)

    monkeypatch.setattr(Path, "open", denied)
    for of in (path, tmp_path):
        said = unreadable(of, FileNotFoundError("No such file or directory: weights"), "is truncated")
        assert said == f"{path}: cannot be read: permission denied"


READERS: dict[str, Callable[[Path], object]] = {
    "corpus.json": lambda path: Corpus.load(path.parent),
    "text.jsonl.gz": lambda path: list(records(path)),
    "table.parquet": lambda path: list(records(path)),
    "fit.json": lambda path: Fitted.read(path.parent),
    "parity.json": lambda path: find_export(path.parent),
    "config.json": lambda path: Teacher.load(path.parent),
    "settings.yaml": lambda path: load(ExtractConfig, path, {}),
    "selection.json": lambda path: RunFolder(path.parent).read(Selection),
    "inputs.json": lambda path: of_file(path, InvalidStudy),
    "weights.safetensors": lambda path: load_weights(cast(Student, torch.nn.Linear(1, 1)), path),
}


@contextmanager
def unprivileged(path: Path) -> Iterator[None]:
    """A file that may not be read, and a user to whom that applies."""
    path.chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.mark.parametrize("name", READERS)
def test_no_reader_takes_a_missing_permission_for_damage(name: str) -> None:
    folder = Path(tempfile.mkdtemp())  # tmp_path is closed to other users
    try:
        folder.chmod(0o755)
        (folder / name).write_bytes(b"{}")
        said = f"{name}: cannot be read: permission denied"
        with unprivileged(folder / name), pytest.raises(SubarchError, match=said):
            READERS[name](folder / name)
    finally:
        shutil.rmtree(folder)
