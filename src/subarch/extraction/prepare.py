"""What a search knows before it trains anything: what its candidates share, and where it runs.

>>> basis = make_basis(run, config, report)
"""

from __future__ import annotations

import shutil
import subprocess
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from subarch.errors import InvalidTask
from subarch.extraction.config import ExtractConfig
from subarch.extraction.workbench import Workbench
from subarch.learning.signals import TaskSignal
from subarch.models.sentence import Recipe
from subarch.models.student import Blueprint
from subarch.models.teacher import content_of as teacher_content
from subarch.numbers.architecture import Inputs
from subarch.numbers.space import SearchSpace
from subarch.run.folder import RunFolder
from subarch.run.inputs import StageInputs, of_file, of_values
from subarch.run.machine import machine, versions
from subarch.run.progress import Report
from subarch.text.corpus import content_of as corpus_content

FREE = {"workers", "ray", "trial_minutes", "reuse", "space", "corpus", "teacher", "task"}
"""Configuration keys that may differ when a run is resumed: they decide its speed only, or name what is hashed."""


def environment() -> dict[str, Any]:
    """Versions, git state and machine, as recorded beside every run."""
    state = None
    if git := shutil.which("git"):
        words = [git, "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
        state = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip() or None
    return {"versions": versions(), "git": state, "machine": machine()}


def inputs_of(config: ExtractConfig, space: SearchSpace) -> StageInputs:
    """What an extraction reads.

    Raises:
        InvalidTeacher, InvalidCorpus, InvalidTask: something is missing or cannot be read.
    """
    sources = {
        "search space": of_values(str(config.space), space.to_dict()),
        "corpus": corpus_content(config.corpus, config.text_column),
    }
    if config.teacher is not None:
        sources["teacher"] = teacher_content(config.teacher)
    if config.task is not None:
        sources["task"] = of_file(config.task, InvalidTask)
    return StageInputs(config=config.model_dump(mode="json"), sources=sources)


def make_basis(run: RunFolder, config: ExtractConfig, report: Report) -> dict[str, Any]:
    """Corpus, targets and anatomy; basis.json says what all candidates share and are measured against."""
    start = time.perf_counter()
    bench = Workbench.open(config, run.path, report)
    if run.has("basis"):
        basis: dict[str, Any] = run.read("basis")
        return basis | {"identity": bench.identity}
    teacher = bench.material.teacher
    if teacher is not None:  # without one it is there already
        bench.material.tokenizer.save_pretrained(run.path / "tokenizer")
    basis = {
        "inputs": asdict(bench.blueprint.inputs),
        "blueprint": asdict(bench.blueprint),
        "recipe": asdict(teacher.recipe if teacher else Recipe(max_length=config.max_length)),
        "teacher": None,
        "reference_error": 0.0 if config.error == "embedding" else None,
        "identity": bench.identity,
    }
    if teacher is not None:
        shape, inputs = teacher.architecture, bench.blueprint.inputs
        basis["teacher"] = {
            "name": f"{teacher.folder.resolve().name} ({shape})",
            "architecture": str(shape),
            "parameters": shape.parameters(inputs).total,
            "operations": shape.operations(inputs, config.latency_length),
        }
        if isinstance(bench.signal, TaskSignal):
            basis["reference_error"] = 1 - bench.signal.score(teacher.model)
    basis["seconds"] = time.perf_counter() - start
    run.write("basis", basis)
    return basis


def blueprint_of(basis: dict[str, Any]) -> Blueprint:
    return Blueprint(**basis["blueprint"] | {"inputs": Inputs(**basis["blueprint"]["inputs"])})


def recipe_of(basis: dict[str, Any]) -> Recipe:
    recipe = basis["recipe"]
    return Recipe(**recipe | {"dense": tuple(map(tuple, recipe["dense"]))})
