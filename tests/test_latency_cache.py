"""The cache of latencies: filed by conditions, written at once, and never in the way."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from subarch.latency.measuring import LatencyCache, cache_folder
from subarch.run.records import Measured

CONDITIONS = {"runtime": "onnx", "lengths": [32], "machine": {"processor": "some"}}


def entry(value: float) -> Measured:
    date = "2026-11-22T10:12:00+00:00"
    own = {"visits": (value,) * 12, "blocks": (12,), "passes": 48, "measured": date, "drift": 1.0, "others": 0.0}
    return Measured.model_construct(median_ms=value, **own)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SUBARCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_folder_is_the_users_own(monkeypatch: pytest.MonkeyPatch, place: Path) -> None:
    assert cache_folder() == place
    monkeypatch.delenv("SUBARCH_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert cache_folder() == Path("/somewhere/subarch")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "subarch"


def test_what_is_filed_is_found_under_the_same_conditions_only() -> None:
    cache = LatencyCache(CONDITIONS)
    assert cache.read() == {}
    cache.add({"1-2-8-8": entry(1.5), "teacher abc": entry(9.0)})
    cache.add({"2-2-8-8": entry(2.5), "1-2-8-8": entry(1.25)})
    again = LatencyCache(dict(reversed(CONDITIONS.items())))  # the order of keys means nothing
    assert again.read() == {"1-2-8-8": entry(1.25), "teacher abc": entry(9.0), "2-2-8-8": entry(2.5)}
    for other in ({"lengths": [16]}, {"runtime": "torch"}, {"machine": {"processor": "other"}}):
        assert LatencyCache(CONDITIONS | other).read() == {}


def test_forgetting_leaves_other_conditions_alone() -> None:
    one, other = LatencyCache(CONDITIONS), LatencyCache(CONDITIONS | {"lengths": [16]})
    one.add({"1-2-8-8": entry(1.5)})
    other.add({"1-2-8-8": entry(0.5)})
    one.clear()
    assert one.read() == {}
    assert other.read() == {"1-2-8-8": entry(0.5)}


def test_damaged_entries_are_measured_again_and_sound_ones_kept(place: Path) -> None:
    cache = LatencyCache(CONDITIONS)
    cache.add({name: entry(1.0) for name in ("good", "text", "list", "negative", "zero", "nan", "missing")})
    changes = {
        "text": "{",
        "list": "[1]",
        "negative": entry(-1.0).model_dump_json(),
        "zero": entry(0.0).model_dump_json(),
        "missing": '{"median_ms": 1}',
    }
    changes["nan"] = entry(1.0).model_dump_json().replace("[1.0,", "[NaN,")
    with sqlite3.connect(place / "latencies.sqlite") as database:
        for name, text in changes.items():
            database.execute("UPDATE latencies SET entry = ? WHERE name = ?", (text, name))
    database.close()
    with pytest.warns(UserWarning, match="the cache of latencies holds entries that are damaged"):
        assert cache.read() == {"good": entry(1.0)}


@pytest.mark.parametrize("damage", ["garbage", "truncated", "folder"])
def test_a_damaged_file_is_ignored_with_a_warning(place: Path, damage: str) -> None:
    cache = LatencyCache(CONDITIONS)
    cache.add({"1-2-8-8": entry(1.5)})
    file = place / "latencies.sqlite"
    content = file.read_bytes()
    file.unlink()
    if damage == "folder":
        file.mkdir()
    else:
        file.write_bytes(b"no database" * 100 if damage == "garbage" else content[: len(content) // 2 - 7])
    for use in (cache.read, cache.clear, lambda: cache.add({"1-2-8-8": entry(1.5)})):
        with pytest.warns(UserWarning, match=r"cannot be kept there .* set SUBARCH_CACHE to another folder"):
            assert not use()


def test_a_folder_that_cannot_be_made_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SUBARCH_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.warns(UserWarning, match="cannot be kept there"):
        assert LatencyCache(CONDITIONS).read() == {}


def test_without_a_home_folder_every_run_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("SUBARCH_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    with pytest.warns(UserWarning, match=r"no cache: .*the user has no home folder.*set SUBARCH_CACHE"):
        LatencyCache(CONDITIONS).add({"1-2-8-8": entry(1.5)})


def test_what_a_process_filed_outlives_its_death() -> None:
    child = os.fork()
    if not child:
        LatencyCache(CONDITIONS).add({"1-2-8-8": entry(1.5)})
        os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert LatencyCache(CONDITIONS).read() == {"1-2-8-8": entry(1.5)}
