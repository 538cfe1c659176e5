"""What a pretraining leaves: the model as stock files with its card, its measured speed, and the record of it all.

>>> result = outcome(run, config, material, student, trainer, schedule)
>>> result["heldout"][-1]["embedding"], result["latency"]["student"]["median_ms"]
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from subarch.latency.measuring import measure_models
from subarch.models.student import Student, hand_over
from subarch.numbers.architecture import Architecture
from subarch.pretraining.config import PretrainConfig
from subarch.pretraining.material import Material
from subarch.pretraining.schedule import Schedule
from subarch.pretraining.trainer import PretrainTrainer
from subarch.run.folder import RunFolder
from subarch.run.machine import machine, usable_cores, versions
from subarch.run.progress import Report
from subarch.show.card import write_card

LATENCY_LENGTH = 32


def outcome(
    folder: RunFolder,
    config: PretrainConfig,
    material: Material,
    student: Student,
    trainer: PretrainTrainer,
    schedule: Schedule,
    report: Report,
) -> dict[str, Any]:
    """Time the student, hand it over, and say all about it."""
    report("measuring latency", 0, 0)
    models: dict[str, torch.nn.Module] = {"student": student}
    if material.teacher is not None:
        models["teacher"] = material.teacher.model.cpu()
    length = min(LATENCY_LENGTH, material.recipe.max_length)
    vocabulary = material.blueprint.inputs.vocabulary
    times = measure_models(models, vocabulary, batch=1, length=length, threads=usable_cores(), rounds=5)
    architecture, progress, history = Architecture.parse(str(config.architecture)), trainer.progress, _curve(trainer)
    parameters = architecture.parameters(material.blueprint.inputs)
    result = {
        "architecture": str(architecture),
        "parameters": {"total": parameters.total, "encoder": parameters.effective},
        "config": config.model_dump(mode="json"),
        "started": material.started,
        "losses": material.distiller.weights,
        "schedule": asdict(schedule),
        "steps": trainer.state.global_step,
        "kept": trainer.kept or trainer.state.global_step,
        "seconds": progress.seconds,
        "tokens": progress.tokens,
        "max_length": (material.teacher.recipe if material.teacher else material.recipe).max_length,
        "padding": 1 - progress.tokens / progress.padded,
        "tokens_per_second": progress.tokens / progress.seconds,
        "curve": history["training"],
        "heldout": history["heldout"],
        "teacher": None if material.teacher is None else material.teacher.folder.resolve().name,
        "teacher_architecture": None if material.teacher is None else str(material.teacher.architecture),
        "latency": {
            "batch": 1,
            "length": length,
            "threads": usable_cores(),
            "runtime": "torch",
            **{name: asdict(latency) for name, latency in times.items()},
        },
        "machine": machine(),
        "versions": versions(),
    }
    recipe = material.teacher.recipe if material.teacher is not None else material.recipe
    hand_over(student, material.tokenizer, recipe, folder.path / "pretrained")
    write_card(folder.path / "pretrained", _facts(folder, config, result))
    return result


def _facts(folder: RunFolder, config: PretrainConfig, result: dict[str, Any]) -> dict[str, Any]:
    """What the model card tells of a result."""
    why = None
    selection: dict[str, Any] = folder.read("selection") if folder.has("selection") else {"winner": None}
    if selection["winner"] and selection["winner"]["architecture"] == result["architecture"]:
        asked = {key: value for key, value in selection["objective"].items() if value is not None}
        limits = ", ".join(f"{key.replace('_', ' ')} {value:g}" for key, value in asked.items() if key != "name")
        why = f"Selected by architecture search: optimal in {asked['name']}" + (f", under {limits}" if limits else "")
    kept = next(row for row in reversed(result["heldout"]) if row["step"] == result["kept"])
    times = {who: result["latency"][who]["median_ms"] for who in ("student", "teacher") if who in result["latency"]}
    latency = result["latency"]
    return {
        "teacher": config.teacher,
        "architecture": {"depth, heads, hidden, intermediate": result["architecture"], **result["parameters"]},
        "why": why,
        "data": {"corpus": ", ".join(Path(name).name for name in config.corpus), "tokens read": result["tokens"]},
        "loss": {
            "weights": ", ".join(f"{name} {weight:g}" for name, weight in result["losses"].items()),
            "started from": result["started"],
        },
        "cost": {
            "steps": result["steps"],
            "minutes": round(result["seconds"] / 60, 1),
            "machine": f"{latency['threads']} cores of {result['machine']['processor']}",
        },
        "quality": [
            {"held-out loss": name, "before": result["heldout"][0][name], "after": kept[name]}
            for name in (*result["losses"], "loss")
        ],
        "latency": [
            {"model": who, "ms": ms, "batch": 1, "tokens": latency["length"], "threads": latency["threads"]}
            for who, ms in times.items()
        ],
        "limits": [f"reads at most {result['max_length']} tokens", "evaluated on held-out text of its own corpus only"],
    }


def _curve(trainer: PretrainTrainer) -> dict[str, list[dict[str, float]]]:
    """Training loss and held-out losses by step, of all sittings."""
    curve: dict[str, list[dict[str, float]]] = {"training": [], "heldout": []}
    for row in trainer.state.log_history:
        if "loss" in row:
            curve["training"].append({name: row[name] for name in ("step", "seconds", "loss", "learning_rate")})
        elif "eval_loss" in row:
            found = {name.removeprefix("eval_"): value for name, value in row.items() if name.startswith("eval_")}
            curve["heldout"].append({"step": row["step"], "seconds": row["seconds"], **found})
    return curve
