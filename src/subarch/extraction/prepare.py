"""What a search knows before it trains anything: what its candidates share, their latencies, where it runs.

>>> basis = make_basis(run, config, report)
>>> latencies = measure_latencies(run, config, space, basis, report)
"""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

from subarch.architecture import Inputs
from subarch.doctor import machine, usable_cores, versions
from subarch.errors import InvalidConfig
from subarch.extraction.config import ExtractConfig
from subarch.extraction.question import Latencies
from subarch.extraction.signals import TaskSignal
from subarch.extraction.workbench import Workbench
from subarch.latency import TorchRuntime, measure, untrained
from subarch.model import Blueprint, Student
from subarch.progress import Report
from subarch.runs import RunFolder
from subarch.sentence import Recipe
from subarch.space import SearchSpace
from subarch.teacher import Teacher

MOST_MEASURED = 2_000
"""Candidates whose latency is measured one by one; larger spaces need operations as their cost."""


def environment() -> dict[str, Any]:
    """Versions, git state and machine, as recorded beside every run."""
    state = None
    if git := shutil.which("git"):
        words = [git, "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
        state = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() or None
    return {"versions": versions(), "git": state, "machine": machine()}


def make_basis(run: RunFolder, config: ExtractConfig, report: Report) -> dict[str, Any]:
    """Corpus, targets and anatomy; basis.json says what all candidates share and are measured against."""
    start = time.perf_counter()
    bench = Workbench.open(config, run.path, report)
    if run.has("basis"):
        basis: dict[str, Any] = run.read("basis")
        return basis | {"identity": bench.identity}
    if bench.teacher is not None:  # without one it is there already
        bench.tokenizer.save_pretrained(run.path / "tokenizer")
    basis = {
        "inputs": asdict(bench.blueprint.inputs),
        "blueprint": asdict(bench.blueprint),
        "recipe": asdict(bench.teacher.recipe if bench.teacher else Recipe(max_length=config.max_length)),
        "teacher": None,
        "reference_error": 0.0 if config.error == "embedding" else None,
        "identity": bench.identity,
    }
    if bench.teacher is not None:
        shape, inputs = bench.teacher.architecture, bench.blueprint.inputs
        basis["teacher"] = {
            "name": f"{bench.teacher.folder.resolve().name} ({shape})",
            "architecture": str(shape),
            "parameters": shape.parameters(inputs).total,
            "operations": shape.operations(inputs, config.latency_length),
        }
        if isinstance(bench.signal, TaskSignal):
            basis["reference_error"] = 1 - bench.signal.score(bench.teacher.model)
    basis["seconds"] = time.perf_counter() - start
    run.write("basis", basis)
    return basis


def measure_latencies(
    run: RunFolder,
    config: ExtractConfig,
    space: SearchSpace,
    basis: dict[str, Any],
    report: Report,
    remeasure: bool = False,
) -> Latencies:
    """Measured once per run and setting; read back afterwards, so that a resumed run decides on the same figures."""
    settings = _conditions(config)
    own = settings == _conditions(run.config)
    name = "latency" if own else "_".join(("latency", *map(str, settings.values())))
    if not remeasure and run.has(name) and run.read(name)["settings"] == settings:
        known: Latencies = run.read(name)
        return known
    blueprint = blueprint_of(basis)
    # RoBERTa counts positions from pad_token_id + 1
    usable = blueprint.inputs.positions
    usable -= blueprint.settings["pad_token_id"] + 1 if blueprint.family == "roberta" else 0
    if config.latency_length > usable:
        raise InvalidConfig(f"latency_length {config.latency_length}: these encoders read at most {usable} tokens")
    if len(space) > MOST_MEASURED:
        raise InvalidConfig(
            f"cost latency: measuring {len(space)} candidates one by one takes too long (limit {MOST_MEASURED}); "
            "set cost to operations, or make the space smaller"
        )
    start = time.perf_counter()
    models: dict[str, torch.nn.Module] = dict(untrained(space, lambda architecture: Student(architecture, blueprint)))
    if config.teacher is not None:
        models["teacher"] = Teacher.load(config.teacher).model
    runtime, vocabulary = TorchRuntime(settings["threads"]), blueprint.inputs.vocabulary
    calls = {
        name: runtime.prepare(model, vocabulary, config.latency_batch, config.latency_length)
        for name, model in models.items()
    }
    measured = {
        name: asdict(latency) for name, latency in measure(calls, on_round=partial(report, "measuring latency")).items()
    }
    latencies = {
        "settings": settings,
        "machine": machine(),
        "teacher": measured.pop("teacher", None),
        "candidates": measured,
        "seconds": time.perf_counter() - start,
    }
    run.write(name, latencies)
    return latencies


def _conditions(config: ExtractConfig) -> dict[str, Any]:
    return {
        "runtime": config.runtime,
        "batch": config.latency_batch,
        "length": config.latency_length,
        "threads": config.latency_threads or usable_cores(),
    }


def blueprint_of(basis: dict[str, Any]) -> Blueprint:
    return Blueprint(**basis["blueprint"] | {"inputs": Inputs(**basis["blueprint"]["inputs"])})


def recipe_of(basis: dict[str, Any]) -> Recipe:
    recipe = basis["recipe"]
    return Recipe(**recipe | {"dense": tuple(map(tuple, recipe["dense"]))})
