"""What this machine is, what it can do, and what would spoil a measurement on it.

`machine` is the short description that goes beside every measurement: stable between runs on the same hardware, and
without anything that names a person, a host or a folder. `examine` is the long answer behind `subarch doctor`, with the
speed of matrix products, which is what training and timing candidates come down to. What a system does not tell is
"unknown" or None, never guessed.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
import os
import platform
import re
import shlex
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

import subarch
from subarch.run.records import Environment, Machine

PACKAGES = (
    *("torch", "transformers", "tokenizers", "datasets", "numpy", "scipy", "scikit-learn", "optuna", "plotly"),
    *("onnx", "onnxruntime", "openvino", "nncf", "ray"),
)
"""Packages whose version can change a measurement or a file."""

FEATURES = (
    *("avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "sve", "bf16", "i8mm"),
)
"""Processor features that matrix kernels are written for: x86 in the first line, ARM in the second."""

VARIABLES = (
    *("OPENBLAS_CORETYPE", "MKL_ENABLE_INSTRUCTIONS", "ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"),
)
"""Environment variables that change the speed of matrix products behind the back of whoever measures."""

SIZE = 2048
"""Rows and columns of the measured matrices: 17 GFLOP a product, 16 MiB a matrix in fp32."""

GIB = 2**30

# Where Linux describes processor and limits; elsewhere the files are absent and the answer is "unknown"
_CPUINFO = Path("/proc/cpuinfo")
_OWN_CGROUP = Path("/proc/self/cgroup")
_CGROUP = Path("/sys/fs/cgroup")


def machine() -> dict[str, Any]:
    """The hardware in a few stable words, to be recorded beside measurements. Names no host, user or path."""
    name, features = _processor()
    return {
        "processor": name,
        "instruction_set": platform.machine(),
        "features": features,
        "cores": {
            "logical": psutil.cpu_count(logical=True),
            "physical": psutil.cpu_count(logical=False),
            "usable": usable_cores(),
        },
        "memory_gib": round(psutil.virtual_memory().total / GIB, 1),
        "system": platform.system(),
    }


def versions() -> dict[str, str]:
    """Versions of Python, of this package and of the installed packages that can change a measurement or a file."""
    found = {"python": platform.python_version(), "subarch": subarch.__version__}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def usable_cores() -> int:
    """Cores this process can keep busy: its affinity mask, and the whole cores of a container's quota; at least 1."""
    quota = _cgroup_cores()
    allowed = _affinity()
    return allowed if quota is None else max(1, min(allowed, int(quota)))


def release_memory() -> None:
    """Return freed memory to the system: where sizes vary, as those of batches do, glibc keeps much of it."""
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def extras() -> dict[str, dict[str, Any]]:
    """Each optional part of the installed package: whether it is complete, and the command that completes it."""
    required: dict[str, list[str]] = {}
    for line in importlib.metadata.requires("subarch") or []:
        requirement, _, marker = line.partition(";")
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", marker)
        if extra:
            required.setdefault(extra[1], []).append(requirement.strip())
    found: dict[str, dict[str, Any]] = {}
    for extra_name, requirements in sorted(required.items()):
        missing = [requirement for requirement in requirements if not _is_installed(requirement)]
        found[extra_name] = {"complete": not missing, "missing": missing}
        if missing:
            # The requirements, not `subarch[extra]`: this works for an installation from a clone too
            found[extra_name]["command"] = f"python -m pip install {shlex.join(missing)}"
    return found


def examine(seconds: float = 10.0) -> dict[str, Any]:
    """Everything `subarch doctor` prints, as JSON-able values.

    `seconds` are spent on matrix products, half of them in each number format; of three products at least.
    """
    import torch

    memory, disk = psutil.virtual_memory(), shutil.disk_usage(Path.cwd())
    # Before our own products raise it
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else None
    report: dict[str, Any] = {
        "versions": versions(),
        "operating_system": platform.platform(),
        "machine": machine(),
        "cores": {"affinity": _affinity(), "cgroup_limit": _cgroup_cores(), "load_average": load},
        "torch_threads": torch.get_num_threads(),
        "memory_gib": {"total": round(memory.total / GIB, 1), "available": round(memory.available / GIB, 1)},
        "disk_free_gib": round(disk.free / GIB, 1),
        "extras": extras(),
        "gpu": _gpu(),
        "matrix_product": {
            "size": SIZE,
            "threads": torch.get_num_threads(),
            "fp32": _matrix_product("float32", seconds / 2),
            "bf16": _matrix_product("bfloat16", seconds / 2),
        },
    }
    return report | {"warnings": _warnings(report)}


def _warnings(report: dict[str, Any]) -> list[str]:
    cores, usable = report["cores"], report["machine"]["cores"]["usable"]
    available, free, threads = report["memory_gib"]["available"], report["disk_free_gib"], report["torch_threads"]
    warnings = [
        f"{name}={os.environ[name]} is set: it changes the speed of matrix products; unset it, or keep it for every run"
        for name in VARIABLES
        if name in os.environ
    ]
    if available < 4:
        warnings.append(f"only {available} GiB of memory are available: use fewer workers, or close other programs")
    if free < 4:
        warnings.append(
            f"only {free} GiB are free on the disk of this folder: cached targets and the study may not fit"
        )
    if cores["cgroup_limit"] is not None and cores["cgroup_limit"] < cores["affinity"]:
        warnings.append(
            f"a container limit gives this process {cores['cgroup_limit']:g} of {cores['affinity']} cores and "
            "stops it when it uses more: measure with that many threads at most"
        )
    if threads > usable:
        warnings.append(f"torch uses {threads} threads on {usable} usable cores: they will wait for each other")
    if cores["load_average"] is not None and cores["load_average"] > 0.5 * usable:
        warnings.append(
            f"other programs are running (load average {cores['load_average']:.1f} on {usable} usable cores): "
            "latencies will be too long and uneven"
        )
    fp32 = report["matrix_product"]["fp32"]
    if fp32["last_half_over_first"] < 0.85:
        warnings.append(
            f"matrix products slowed down to {fp32['last_half_over_first']:.0%} while they were measured: "
            "the processor is throttled or shared"
        )
    return warnings


def _matrix_product(dtype: str, seconds: float) -> dict[str, Any]:
    """GFLOP/s of square matrix products (two operations a multiply-add): median, quartiles, number and drift."""
    import torch

    left = torch.ones(SIZE, SIZE, dtype=getattr(torch, dtype))
    right = torch.ones(SIZE, SIZE, dtype=getattr(torch, dtype))
    # The first product pays for threads and kernels
    torch.mm(left, right)
    rates: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(rates) < 3:
        begin = time.perf_counter()
        torch.mm(left, right)
        rates.append(2 * SIZE**3 / (time.perf_counter() - begin) / 1e9)
    low, median, high = statistics.quantiles(rates, n=4, method="inclusive")
    half = len(rates) // 2
    return {
        "gflops": round(median, 1),
        "quartiles": [round(low, 1), round(high, 1)],
        "products": len(rates),
        "last_half_over_first": round(statistics.median(rates[-half:]) / statistics.median(rates[:half]), 2),
    }


def _gpu() -> list[dict[str, Any]]:
    import torch

    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        return [{"name": device.name, "memory_gib": round(device.total_memory / GIB, 1)} for device in devices]
    return [{"name": "Apple MPS", "memory_gib": None}] if torch.backends.mps.is_available() else []


def _processor() -> tuple[str, list[str] | str]:
    """Name and interesting features, from the first processor that Linux describes."""
    first = _read(_CPUINFO).split("\n\n")[0]
    fields = {
        key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in first.splitlines())
    }
    name = fields.get("model name") or platform.processor() or platform.machine() or "unknown"
    flags = (fields.get("flags") or fields.get("features") or "").split()
    return name, [feature for feature in FEATURES if feature in flags] if flags else "unknown"


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1


def _cgroup_cores() -> float | None:
    """The least CPU quota, in cores, over this process's control groups (versions 1 and 2); None without one."""
    quotas = []
    for folder in _cgroup_folders("cpu"):
        text = (
            _read(folder / "cpu.max") or f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}"
        )
        match text.split():
            case [quota, period] if quota.isdigit() and period.isdigit():
                quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def _cgroup_folders(controller: str) -> list[Path]:
    """This process's folder in the hierarchy of a controller, and every folder above it: each can set a limit."""
    folders: list[Path] = []
    for line in _read(_OWN_CGROUP).splitlines():
        _, controllers, path = line.split(":", 2)
        # Version 2 is the one unnamed hierarchy
        if controllers and controller not in controllers.split(","):
            continue
        root = _CGROUP / controllers
        own = root / path.lstrip("/")
        folders += [own, *(parent for parent in own.parents if parent.is_relative_to(root))]
    return folders


def _is_installed(requirement: str) -> bool:
    name = re.match(r"[\w.-]+", requirement)
    try:
        importlib.metadata.version(name[0] if name else requirement)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _read(path: Path) -> str:
    """Text of a system file, empty where this system does not have it."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def environment() -> Environment:
    """Versions, git state and machine, as recorded beside every extraction."""
    state = None
    if git := shutil.which("git"):
        words = [git, "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
        state = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() or None
    return Environment(versions=versions(), git=state, machine=Machine(**machine()))
