"""What `subarch doctor` says: JSON-able, true of this machine, silent about who and where, with warnings that fire."""

from __future__ import annotations

import importlib.metadata
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

import subarch
from subarch.run import machine as doctor
from subarch.run.configuration import dump
from tiny_run import tiny_config


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrices that take microseconds, and the requirements of the installed package."""
    monkeypatch.setattr(doctor, "SIZE", 64)
    requirements = [
        "numpy>=2",
        "pytest>=9; extra == 'dev'",
        'no-such-runtime>=1.2; extra == "onnx"',
        'pytest[more]>=9 ; extra == "onnx"',
    ]
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: requirements if name == "subarch" else None)


@pytest.mark.usefixtures("small")
def test_the_examination_is_json_and_true_of_this_machine() -> None:
    report = doctor.examine(seconds=0.02)
    assert json.loads(json.dumps(report, allow_nan=False)) == report
    assert report["versions"]["subarch"] == subarch.__version__
    assert report["versions"]["torch"] == importlib.metadata.version("torch")
    assert report["torch_threads"] == report["matrix_product"]["threads"] == torch.get_num_threads()
    assert report["memory_gib"]["total"] == pytest.approx(psutil.virtual_memory().total / 2**30, abs=0.06)
    assert 0 < report["memory_gib"]["available"] <= report["memory_gib"]["total"]
    assert report["machine"] == doctor.machine()
    assert (report["gpu"] == []) == (not torch.cuda.is_available() and not torch.backends.mps.is_available())


def test_the_machine_is_stable_and_names_neither_host_nor_folder() -> None:
    text = json.dumps(doctor.machine())
    assert json.dumps(doctor.machine()) == text
    assert socket.gethostname() not in text.replace('"', " ").replace(",", " ").split()
    assert str(Path.cwd()) not in text
    assert str(Path.home()) not in text


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_matrix_product_takes_its_time_and_counts_what_it_did(dtype: str) -> None:
    begin = time.perf_counter()
    figure = doctor._matrix_product(dtype, 0.05)
    elapsed = time.perf_counter() - begin
    assert elapsed >= 0.05
    low, high = figure["quartiles"]
    assert 0 < low <= figure["gflops"] <= high
    assert figure["products"] >= 3
    assert figure["last_half_over_first"] > 0


@pytest.mark.usefixtures("small")
def test_gflops_follow_from_operations_and_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    # A clock that advances one second a look: each product takes exactly one
    ticks = iter(range(10_000))
    monkeypatch.setattr(doctor.time, "perf_counter", lambda: float(next(ticks)))
    figure = doctor._matrix_product("float32", 12.0)
    # A look before each product, one after it, one for the end: three a product
    assert figure["products"] == 4
    assert figure["gflops"] == round(2 * 64**3 / 1e9, 1)
    assert figure["last_half_over_first"] == 1.0


@pytest.mark.usefixtures("small")
def test_three_products_are_timed_even_when_time_is_up() -> None:
    assert doctor._matrix_product("float32", 0.0)["products"] == 3


@pytest.mark.usefixtures("small")
def test_extras_tell_what_is_missing_and_the_command() -> None:
    assert doctor.extras() == {
        "dev": {"complete": True, "missing": []},
        "onnx": {
            "complete": False,
            "missing": ["no-such-runtime>=1.2"],
            "command": "python -m pip install 'no-such-runtime>=1.2'",
        },
    }


@pytest.fixture
def fake_system(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A folder in the place of /proc and /sys/fs/cgroup."""
    monkeypatch.setattr(doctor, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(doctor, "_OWN_CGROUP", tmp_path / "own_cgroup")
    monkeypatch.setattr(doctor, "_CGROUP", tmp_path / "cgroup")
    monkeypatch.setattr(doctor, "_affinity", lambda: 8)
    return tmp_path


def test_processor_features(fake_system: Path) -> None:
    first = "processor\t: 0\nmodel name\t: Fast CPU @ 2 GHz: special\nflags\t\t: fpu avx2 amx_tile avx512f\n"
    (fake_system / "cpuinfo").write_text(f"{first}\nprocessor\t: 1\nmodel name\t: Other\nflags\t\t: sve\n")
    assert doctor._processor() == ("Fast CPU @ 2 GHz: special", ["avx2", "avx512f", "amx_tile"])


def test_arm_features(fake_system: Path) -> None:
    (fake_system / "cpuinfo").write_text("processor\t: 0\nBogoMIPS\t: 50\nFeatures\t: fp asimd bf16\n")
    assert doctor._processor()[1] == ["asimd", "bf16"]


def test_what_the_system_does_not_tell_is_unknown(fake_system: Path) -> None:
    name, features = doctor._processor()
    assert name
    assert features == "unknown"
    assert doctor._cgroup_cores() is None
    assert doctor.usable_cores() == 8


@pytest.mark.parametrize(
    ("own", "files", "cores"),
    [
        # version 2: in the root, in a parent, the least of several, no limit
        ("0::/\n", {"cpu.max": "150000 100000"}, 1.5),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "max 100000"}, 3.0),
        ("0::/a/b\n", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "50000 100000"}, 0.5),
        ("0::/\n", {"cpu.max": "max 100000"}, None),
        # version 1: the cpu hierarchy only, -1 is no limit; a container does not see the folder named
        (
            "3:cpu,cpuacct:/x\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "200000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            2.0,
        ),
        ("3:cpu:/\n0::/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("3:cpuset:/\n", {"cpuset/cpu.cfs_quota_us": "200000", "cpuset/cpu.cfs_period_us": "100000"}, None),
        ("", {"cpu.max": "100000 100000"}, None),
    ],
)
def test_container_limits(fake_system: Path, own: str, files: dict[str, str], cores: float | None) -> None:
    (fake_system / "own_cgroup").write_text(own)
    for name, text in files.items():
        path = fake_system / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert doctor._cgroup_cores() == cores
    assert doctor.usable_cores() == (8 if cores is None else max(1, int(cores)))


HEALTHY: dict[str, Any] = {
    "machine": {"cores": {"usable": 4}},
    "cores": {"affinity": 4, "cgroup_limit": None, "load_average": 0.1},
    "torch_threads": 4,
    "memory_gib": {"total": 16.0, "available": 12.0},
    "disk_free_gib": 100.0,
    "matrix_product": {"fp32": {"last_half_over_first": 1.0}},
}


@pytest.mark.parametrize(
    ("change", "variable", "words"),
    [
        ({}, None, None),
        ({"memory_gib": {"total": 16.0, "available": 1.5}}, None, "only 1.5 GiB of memory"),
        ({"disk_free_gib": 0.3}, None, "only 0.3 GiB are free on the disk"),
        ({"cores": HEALTHY["cores"] | {"cgroup_limit": 1.5}}, None, "1.5 of 4 cores"),
        ({"cores": HEALTHY["cores"] | {"cgroup_limit": 4.0}}, None, None),
        ({"cores": HEALTHY["cores"] | {"load_average": 3.0}}, None, "load average 3.0 on 4 usable cores"),
        ({"cores": HEALTHY["cores"] | {"load_average": None}}, None, None),
        ({"torch_threads": 5}, None, "5 threads on 4 usable cores"),
        ({"matrix_product": {"fp32": {"last_half_over_first": 0.5}}}, None, "slowed down to 50%"),
        ({}, "OPENBLAS_CORETYPE", "OPENBLAS_CORETYPE=Haswell is set"),
        ({}, "OMP_NUM_THREADS", "OMP_NUM_THREADS=Haswell is set"),
    ],
)
def test_warnings(
    monkeypatch: pytest.MonkeyPatch, change: dict[str, Any], variable: str | None, words: str | None
) -> None:
    for name in doctor.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    if variable:
        monkeypatch.setitem(os.environ, variable, "Haswell")
    warnings = doctor._warnings(HEALTHY | change)
    if words is None:
        assert warnings == []
    else:
        assert len(warnings) == 1
        assert words in warnings[0]


WITHOUT_HOME = """
import os, pwd, sys

def unknown(user):
    raise KeyError(user)

if "HOME" not in os.environ:
    pwd.getpwuid = unknown

import subarch.pipeline
from subarch.cli.app import main
from subarch.run import machine
from tiny_run import OneProcess

machine.SIZE = 64
subarch.pipeline.Workers = OneProcess
for words in (["doctor", "--seconds", "0.1"], ["extract", "--config", "config.yaml", "--run", "run"]):
    sys.argv = ["subarch", *words]
    try:
        main()
    except SystemExit as left:
        assert not left.code, (words, left)
"""


@pytest.mark.slow
@pytest.mark.parametrize("home", [None, "a file/home"])
def test_doctor_and_a_search_need_no_home(tmp_path: Path, home: str | None) -> None:
    """No home folder (a user whom the system does not know), or one that cannot be written (not even by root)."""
    (tmp_path / "config.yaml").write_text(dump(tiny_config(tmp_path, cost="latency")), encoding="utf-8")
    (tmp_path / "a file").touch()
    gone = ("HOME", "USER", "LOGNAME", "XDG_CACHE_HOME", "SUBARCH_CACHE", "HF_HOME")
    environment = {key: value for key, value in os.environ.items() if key not in gone}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path)} | ({"HOME": str(tmp_path / home)} if home else {})
    words = [sys.executable, "-c", WITHOUT_HOME]
    ended = subprocess.run(
        words, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert ended.returncode == 0, ended.stderr
    assert "latencies cannot be kept there" in ended.stderr
    assert (tmp_path / "run" / "report.html").is_file()
