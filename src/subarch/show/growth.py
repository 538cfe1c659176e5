"""The part of the page about Agora: how the training data grew, and points that it made, beside their origins.

All of it is told from agora.json.

    >>> figure(agora)["data"][0]["y"]                   # training examples by iteration
    [2490, 2713, 2841]
"""

from __future__ import annotations

from typing import Any

from subarch.show import formats
from subarch.show.axes import Figure, base_layout, label
from subarch.show.tables import Cell, Column, Row, Table, cut, scored, text, whole, words

Item = dict[str, Any]


def plot_id(position: int) -> str:
    return f"plot-agora-{position}"


def view(position: int, name: str, grown: Item, names: list[str]) -> Item:
    """What is shown of a run of Agora: each iteration, and points that it made. `names` are those of the classes."""
    iterations, made = grown["iterations"], sum(one["points"] for one in grown["iterations"])
    first, last = iterations[0]["examples"], iterations[-1]["examples"] + iterations[-1]["points"]
    sampled = [(one["number"], point) for one in iterations for point in one["sample"]]
    return {
        "name": name,
        "plot": plot_id(position),
        "sentence": f"{len(iterations):,} iterations made {made:,} points near mistakes on the development set ℰ; the "
        f"training data grew from {first:,} to {last:,} examples. It ended because {grown['stopped']}. "
        f"{grown['warning']}.",
        "iterations": iteration_table(iterations, grown["metric"]),
        "points": point_table(sampled, names) if sampled else None,
    }


def figure(grown: Item) -> Figure:
    """Training examples, as bars, and the best score on ℰ, as a line with an axis of its own, by iteration."""
    iterations = grown["iterations"]
    hovers = [
        f"<b>iteration {one['number']:,}</b><br>{one['examples']:,} training examples<br>"
        f"{label(words(grown['metric']))} on ℰ {formats.score(best_score(one))}"
        for one in iterations
    ]
    shared: Figure = {"x": [one["number"] for one in iterations], "hovertext": hovers, "hoverinfo": "text"}
    bars = shared | {"type": "bar", "name": "Training examples", "y": [one["examples"] for one in iterations]}
    bars |= {"marker": {"color": "--frontier", "opacity": 0.55}}
    line = shared | {"type": "scatter", "mode": "lines+markers", "name": "Best score on ℰ", "yaxis": "y2"}
    line |= {"y": [best_score(one) for one in iterations], "line": {"color": "--accent", "width": 2.5}}
    layout = base_layout("Iteration", "Training examples")
    right = {"title": {"text": f"{label(words(grown['metric']))} on ℰ"}, "overlaying": "y", "side": "right"}
    layout["yaxis2"] = layout["yaxis"] | right | {"showgrid": False}
    layout["xaxis"] |= {"dtick": 1}
    return {"data": [bars, line | {"marker": {"color": "--accent", "size": 9}}], "layout": layout}


def best_score(iteration: Item) -> float | None:
    return max((one["score"] for one in iteration["trainings"] if one["score"] is not None), default=None)


def iteration_table(iterations: list[Item], metric: str) -> Table:
    columns = [Column("Iteration"), Column("Training examples"), Column("Trainings")]
    columns += [Column(f"Best {words(metric)} on ℰ"), Column("Mistakes"), Column("New points")]
    columns += [Column("Points left out", numeric=False), Column("Θ taken out")]
    rows = [
        Row(
            [
                Cell(str(one["number"]), one["number"]),
                whole(one["examples"]),
                whole(len(one["trainings"])),
                scored(best_score(one)),
                whole(one["mistakes"]),
                whole(one["points"]),
                text(", ".join(f"{count:,} {why}" for why, count in one.get("dropped", {}).items()) or formats.DASH),
                whole(len(one["pruned"])),
            ]
        )
        for one in iterations
    ]
    return Table("What each iteration trained, got wrong and made of it", columns, rows)


def point_table(sampled: list[tuple[int, Item]], names: list[str]) -> Table:
    """Points beside the mistakes they were made from: what differs between them, and how the teacher labelled them."""
    columns = [Column("Iteration"), Column("Mistake on ℰ", numeric=False), Column("New point", numeric=False)]
    columns += [Column("Label of the mistake", numeric=False), Column("Label by the teacher", numeric=False)]
    columns += [Column("Made by", numeric=False), Column("Similarity")]
    rows = []
    for number, made in sampled:
        before, after = (made[name]["texts"] + made[name]["choices"] for name in ("origin", "point"))
        changed = [(old, new) for old, new in zip(before, after, strict=False) if old != new]
        rows.append(
            Row(
                [
                    Cell(str(number), number),
                    cut(" … ".join(old for old, _ in changed)),
                    cut(" … ".join(new for _, new in changed)),
                    *(cut(named(made[name], names)) for name in ("origin", "point")),
                    text(made["method"]),
                    scored(made["similarity"]),
                ]
            )
        )
    return Table("Some of the new points: what differs from the mistake each was made from", columns, rows)


def named(example: Item, names: list[str]) -> str:
    """A label as it is read: the name of a class, the text of a choice, a number."""
    if example["choices"]:
        return str(example["choices"][int(example["label"])])
    return names[int(example["label"])] if names else formats.plain(example["label"])
