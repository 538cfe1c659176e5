"""What the model card of a fine-tuned model tells: task, data, scores where nothing was chosen by, teacher and cost.

All of it is told from what metrics.json holds; `subarch.show.card` writes it down.

    >>> write_card(folder, facts_of(encoder, heldout, result))
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from subarch.tasks import Examples

MOST_LABELS = 30
"""Labels up to which they are all named."""


def facts_of(encoder: Path, heldout: Examples, result: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a card, as `subarch.show.card.write_card` takes them.

    Args:
        encoder: folder of the model that was fine-tuned.
        heldout: the examples that the scores are of.
        result: what metrics.json holds.
    """
    task, data, config = heldout.task, result["data"], result["config"]
    chosen = next(row for row in result["fits"] if row["name"] == result["chosen"])
    pair = task.head != "choice" and heldout[0].pairs()[0][1] is not None
    use = {"classification": "pair", "regression": "pair regression"}[task.head] if pair else task.head
    told = {"name": task.name, "type": task.kind, "metric": result["metric"]}
    if task.labels:
        named = len(task.labels) <= MOST_LABELS
        told["labels"] = ", ".join(task.labels) if named else f"{len(task.labels):,}, from {task.labels[0]} on"
    counted = {
        f"examples, {words}": f"{data[part]['rows']:,} in {data[part]['groups']:,} groups"
        for part, words in (("train", "training"), ("dev", "dev"), ("heldout", "held out"))
    }
    settings = ("learning_rate", "weight_decay", "warm_up", "batch_size", "dropout", "seed")
    training = {name.replace("_", " "): chosen[name] for name in settings}
    training |= {"epochs": f"{chosen['epochs']} at most, the weights of epoch {chosen['epoch']}"}
    if result["teacher"] and not result["agora"]:
        training["distillation"] = "soft targets of the teacher and labels"
    return {
        "use": use,
        "encoder": encoder,
        "teacher": config["teacher"],
        "task": told,
        "data": {"source": _name(config["data"]), "division": data["division"], **counted},
        "training": training,
        "agora": _agora(result["agora"], data["train"]["rows"]) if result["agora"] else None,
        "cost": {
            "trainings": result["cost"]["trainings"],
            "examples seen": result["cost"]["examples_seen"],
            "minutes": round(result["cost"]["seconds"] / 60, 1),
            "threads": config["threads"] or result["machine"]["cores"]["usable"],
            "processor": result["machine"]["processor"],
        },
        "quality": _quality(result),
        "limits": _limits(result),
    }


def _name(source: str) -> str:
    """A source without where it lies on this machine."""
    return source if source.startswith("datasets:") else Path(source).name


def _agora(told: Mapping[str, Any], rows: int) -> dict[str, Any]:
    return {
        "iterations": told["iterations"],
        "pruning": told["pruning"],
        "ended because": told["stopped"],
        "examples": f"{told['examples']:,}, of them {told['examples'] - rows:,} made, labelled by the teacher",
    }


def _quality(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each metric, on the part held out."""
    heldout, teacher = result["heldout"], result["teacher"]
    several = len(heldout["seeds"]) > 1
    rows = []
    for name, value in heldout["scores"].items():
        row = {"held out": name.replace("_", " "), "this model": value}
        if several:
            row |= {
                f"mean of {len(heldout['seeds'])} seeds": heldout["mean"][name],
                "standard deviation": heldout["deviation"][name],
            }
        if teacher:
            row["teacher"] = teacher["heldout"][name]
        if name == "accuracy" and "majority_share" in result["data"]["heldout"]:
            row["always the most frequent"] = result["data"]["heldout"]["majority_share"]
        rows.append(row)
    return rows


def _limits(result: Mapping[str, Any]) -> list[str]:
    config, truncated = result["config"], result["data"]["truncated"]
    cut = f"; {truncated:.1%} of the training examples were longer" if truncated else ""
    limits = [
        f"Reads at most {config['max_length']} tokens{cut}.",
        "Scored on the part held out of its own data only, once, when all was chosen.",
    ]
    for where, count in result["data"].get("overlaps", {}).items():
        where = where.replace(" in ", " examples are also in ")
        limits.append(f"{count:,} {where}, so scores overestimate the quality on new data.")
    if len(result["heldout"]["seeds"]) == 1:
        limits.append("Trained with one seed: how far another would differ is not known.")
    if result["teacher"] and result["teacher"]["objection"]:
        limits.append(f"Its teacher was not adequate: {result['teacher']['objection']}.")
    return limits
