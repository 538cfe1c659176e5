"""Checkpoints: whatever happens to a sealed folder is seen, and the newest whole one is found."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subarch.pretraining.trainer import MANIFEST, newest, put_aside, seal, verify

CONTENT = {
    "model.safetensors": bytes(range(200)),
    "trainer_state.json": b'{"step": 3}',
    "parts/rng é.pt": b"x",
    "empty": b"",
}


def made(folder: Path, sealed: bool = True) -> Path:
    for name, data in CONTENT.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    if sealed:
        seal(folder)
    return folder


def test_the_manifest_holds_size_and_digest_of_every_file(tmp_path: Path) -> None:
    folder = made(tmp_path / "checkpoint-1")
    assert json.loads((folder / MANIFEST).read_text(encoding="utf-8")) == {
        name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in CONTENT.items()
    }
    assert verify(folder) is None
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-1"]  # nothing else is left


def test_a_folder_can_be_written_and_sealed_again(tmp_path: Path) -> None:
    folder = made(tmp_path / "checkpoint-1")
    (folder / "model.safetensors").write_bytes(b"new")
    assert verify(folder) == "model.safetensors is damaged: its 3 bytes are not those that were sealed"
    seal(folder)
    assert verify(folder) is None


def test_a_seal_that_cannot_be_written_leaves_the_folder_unsealed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = made(tmp_path / "checkpoint-1", sealed=False)

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        seal(folder)
    assert verify(folder) == "it was not finished (it has no manifest.json)"


@pytest.mark.parametrize("name", list(CONTENT))
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = made(tmp_path / "checkpoint-1")
    (folder / name).unlink()
    assert verify(folder) == f"{name} is missing"


def test_a_file_that_came_after_the_seal_is_named(tmp_path: Path) -> None:
    folder = made(tmp_path / "checkpoint-1")
    (folder / "parts" / "late").write_bytes(b"")
    assert verify(folder) == "parts/late is not in manifest.json"


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b"1", b"null"])
def test_a_manifest_that_is_none_is_damaged(tmp_path: Path, content: bytes) -> None:
    folder = made(tmp_path / "checkpoint-1")
    (folder / MANIFEST).write_bytes(content)
    assert verify(folder) == "manifest.json is damaged"


def test_what_is_no_folder_is_not_finished_or_not_readable(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert verify(tmp_path / "nothing") == "it was not finished (it has no manifest.json)"
    assert str(verify(tmp_path / "file")).startswith("it cannot be read")


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("sealed") / "checkpoint-1")


@settings(max_examples=300)
@given(st.data())
def test_any_damage_to_any_file_is_seen(pristine: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from([*CONTENT, MANIFEST]))
    path = pristine / name
    whole = path.read_bytes()
    kind = data.draw(st.sampled_from(["remove", "truncate", "flip", "append"] if whole else ["remove", "append"]))
    if kind == "remove":
        path.unlink()
    elif kind == "truncate":
        path.write_bytes(whole[: data.draw(st.integers(0, len(whole) - 1))])
    elif kind == "flip":
        place, mask = data.draw(st.integers(0, len(whole) - 1)), data.draw(st.integers(1, 255))
        path.write_bytes(whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :])
    elif name != MANIFEST:
        path.write_bytes(whole + data.draw(st.binary(min_size=1, max_size=5)))
    else:
        path.write_bytes(whole + b"}")
    try:
        assert verify(pristine) is not None
    finally:
        path.write_bytes(whole)
    assert verify(pristine) is None


# The newest


def test_the_newest_is_the_greatest_number_not_the_last_name(tmp_path: Path) -> None:
    for step in (5, 40, 300):
        made(tmp_path / f"checkpoint-{step}")
    for name in ("checkpoint-", "checkpoint-900x", "xcheckpoint-901", "checkpoint-٩٩٩", f"checkpoint-{'9' * 50}"):
        made(tmp_path / name)
    (tmp_path / "checkpoint-1000").write_text("a file")
    warnings: list[str] = []
    assert newest(tmp_path, warnings.append) == tmp_path / "checkpoint-300"
    assert warnings == []


@pytest.fixture
def partly_broken(tmp_path: Path) -> Path:
    """5 damaged, 40 whole, 300 truncated, 1000 never finished."""
    for step in (5, 40, 300, 1000):
        made(tmp_path / f"checkpoint-{step}", sealed=step != 1000)
    path = tmp_path / "checkpoint-300" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    shutil.rmtree(tmp_path / "checkpoint-5" / "parts")
    return tmp_path


def test_those_that_are_not_whole_are_skipped_each_with_a_warning(partly_broken: Path) -> None:
    before = sorted(partly_broken.rglob("*"))
    warnings: list[str] = []
    assert newest(partly_broken, warnings.append) == partly_broken / "checkpoint-40"
    assert warnings == [
        f"{partly_broken / 'checkpoint-1000'}: it was not finished (it has no manifest.json); it is not used",
        f"{partly_broken / 'checkpoint-300'}: model.safetensors is damaged: its 199 bytes are not those that were "
        "sealed; it is not used",
    ]
    assert sorted(partly_broken.rglob("*")) == before


def test_what_is_broken_gets_out_of_the_way(partly_broken: Path) -> None:
    made(partly_broken / "broken-checkpoint-300")  # of an earlier time
    warnings: list[str] = []
    put_aside(partly_broken, warnings.append)
    assert sorted(path.name for path in partly_broken.iterdir()) == [
        "broken-checkpoint-300",
        "checkpoint-40",
        "checkpoint-5",  # an earlier one is not looked at
    ]
    assert "199 bytes" in str(verify(partly_broken / "broken-checkpoint-300"))
    assert [warning.rsplit("; ", 1)[1] for warning in warnings] == [
        "it is deleted",
        "it is kept as broken-checkpoint-300 and not used",
    ]
    warnings.clear()
    put_aside(partly_broken, warnings.append)
    assert newest(partly_broken, warnings.append) == partly_broken / "checkpoint-40"
    assert warnings == []


def test_without_any_there_is_none(tmp_path: Path) -> None:
    warnings: list[str] = []
    assert newest(tmp_path / "missing", warnings.append) is None
    put_aside(tmp_path / "missing", warnings.append)
    assert newest(tmp_path, warnings.append) is None
    made(tmp_path / "checkpoint-3", sealed=False)
    assert warnings == []
    assert newest(tmp_path, warnings.append) is None
    assert len(warnings) == 1
