"""The part of the page about a pretraining: how its losses fell, what it took, where it started.

What the search said of the same architecture is drawn beside it, where it is the same quantity.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from subarch.run.record import Number
from subarch.run.records import Pretraining
from subarch.show import formats
from subarch.show.axes import Figure, base_layout, label, marker_line, padded_axis, ramp, scatter
from subarch.show.search import Search
from subarch.show.tables import Cell, Fact, Row, Table, erred, numbers, text, texts

Point = dict[str, Number]
"""Step, seconds and losses by name."""

FEW_POINTS = 30
"""Points of a line up to which each one is marked."""
SAME_SAMPLE = ("teacher", "start_from", "prompt", "corpus", "text_column", "max_length", "heldout")
"""Configuration keys that search and pretraining must share for their held-out samples to be the same."""


def view(found: Pretraining) -> dict[str, Any]:
    return {
        "sentence": f"{found.architecture}, {learnt(found)}. Held-out losses are those of text that was never "
        "trained on. Hover for a figure, drag to zoom, double-click to reset.",
        "facts": facts(found),
        "words": words(found),
        "losses": before_and_after(found),
    }


def headline(found: Pretraining) -> str:
    """The outcome in one sentence."""
    start, end = (formats.error(point["loss"]) for point in ends(found))
    steps = f"{found.steps:,} step{'s' * (found.steps != 1)}"
    return f"{found.architecture} was pretrained: {steps} took its held-out loss from {start} to {end}."


def against_labels(found: Pretraining) -> str | None:
    """What student and teacher score on the held-out inputs with labels, if there are any."""
    if (gold := found.gold) is None:
        return None
    kept = f", {gold.student / gold.teacher:.1%} of it" if gold.teacher > 0 else ""
    return (
        f"{gold.metric} on {gold.inputs:,} held-out inputs: {gold.student:.3f}, teacher {gold.teacher:.3f}{kept}. "
        "The labels were not trained on."
    )


def cut(found: Pretraining) -> str | None:
    """What embeddings may be cut to, and how their cosines then correlate with the teacher's; None: only whole."""
    if found.agreement is None:
        return None
    figures = ", ".join(f"{width}: {value:.3f}" for width, value in found.agreement.items())
    return (
        "Embeddings may be cut to their first numbers (truncate_dim of SentenceTransformer). Correlation of the "
        f"cosines of held-out texts with the teacher's, by how many: {figures}."
    )


def ends(found: Pretraining) -> tuple[Point, Point]:
    """The held-out losses before and after training."""
    return found.heldout[0], found.heldout[-1]


def learnt(found: Pretraining) -> str:
    """From whom, by which losses."""
    shape = f" ({found.teacher_architecture})" if found.teacher_architecture else ""
    teacher = f"from {found.teacher}{shape}" if found.teacher else "without a teacher"
    return f"learnt {teacher} by " + " + ".join(f"{weight:g} {name}" for name, weight in found.losses.items())


def losses(search: Search | None, found: Pretraining) -> Figure:
    """Training loss, held-out losses and their weighted sum by step."""
    names = list(found.losses)
    colors = {name: ramp(position / max(len(names) - 1, 1)) for position, name in enumerate(names)}
    traces = [line("Training", [point.model_dump() for point in found.curve], "loss", "--muted-mark", 1.5)]
    traces += [line(f"Held-out {name}", found.heldout, name, colors[name], 2) for name in names]
    if found.losses != {names[0]: 1.0}:  # else the sum is the one loss again
        traces.append(line("Held-out, weighted sum", found.heldout, "loss", "--accent", 3.5))
    layout = base_layout("Steps", "Loss")
    values = [value for trace in traces for value in trace["y"]]
    if (error := searched_error(search, found)) is not None:
        last = found.heldout[-1]
        distance = error * last["embedding"] / max(last["error"], 1e-12)  # an error is a share of a constant's distance
        words = f"embedding after the search {formats.error(distance)}"
        layout["shapes"] = [marker_line("y", distance, words, colors["embedding"], "dot")]
        values.append(distance)
    layout["xaxis"] |= {"rangemode": "tozero"}
    layout["yaxis"] |= padded_axis(values)
    return {"data": traces, "layout": layout}


def line(name: str, points: Sequence[Point], key: str, color: str, width: float) -> Figure:
    x, y = [point["step"] for point in points], [point[key] for point in points]
    hovers = [hover(name, point, point[key]) for point in points]
    trace = scatter(label(name), "lines+markers" if len(points) <= FEW_POINTS else "lines", x, y, hovers)
    return trace | {"line": {"color": color, "width": width}, "marker": {"color": color, "size": 2 * width + 1}}


def hover(name: str, point: Point, value: float) -> str:
    lines = [f"<b>{label(name)}</b>", f"step {point['step']:,}, after {formats.duration(point['seconds'])}"]
    lines.append(f"loss {formats.error(value)}")
    if "learning_rate" in point:
        lines.append(f"learning rate {formats.plain(point['learning_rate'])}")
    return "<br>".join(lines)


def searched_error(search: Search | None, found: Pretraining) -> float | None:
    """The error that the search left this architecture at, where that of pretraining is the same quantity.

    That is: measured on the same sample, and not on masked input, as all losses are beside `mlm` or `logits`.
    """
    if search is None or "embedding" not in found.losses:
        return None
    same = all(search.config.get(key) == found.config[key] for key in SAME_SAMPLE)
    if not same or {"mlm", "logits"} & set(found.losses):
        return None
    for row in search.selection.candidates:
        if row.architecture == found.architecture and row.error_kind == "embedding":
            return row.error
    return None


def facts(found: Pretraining) -> list[Fact]:
    """What it took and what it gave, in figures."""
    latency, size = found.latency, found.parameters
    student, teacher = latency.student, latency.teacher
    beside = f"IQR {formats.interval([student.q1_ms, student.q3_ms])}"
    if teacher:
        gain = formats.factor(teacher.median_ms / student.median_ms)
        beside += f"; teacher {formats.milliseconds(teacher.median_ms)}, {gain} as long"
    return [
        Fact("Steps", f"{found.steps:,}", ""),
        Fact("Time", formats.duration(found.seconds), f"{found.seconds / 60:,.1f} minutes"),
        Fact("Tokens", formats.count(found.tokens), f"{found.tokens_per_second:,.0f} a second"),
        Fact("Padding", f"{100 * found.padding:.1f}{formats.SPACE}%", "of all that was computed"),
        Fact("Latency", formats.milliseconds(student.median_ms), beside),
        Fact("Parameters", formats.count(size.total), f"{formats.exact(size.encoder)} in encoder layers"),
    ]


def words(found: Pretraining) -> list[tuple[str, str]]:
    """What no figure tells, as (name, sentence) pairs."""
    latency = found.latency
    threads = f"{latency.threads} thread{'s' * (latency.threads != 1)}"
    labels = against_labels(found)
    return [
        *([("Against labels", labels)] if labels else []),
        *([("Dimensions", sentence)] if (sentence := cut(found)) else []),
        ("Weights came from", found.started),
        ("Teacher's targets", found.schedule.sentence),
        ("Latency of", f"batch {latency.batch}, {latency.length} tokens, {latency.runtime}, {threads}"),
    ]


def before_and_after(found: Pretraining) -> Table:
    """Each held-out loss before and after training, with its weight."""
    start, end = ends(found)
    rows = [
        Row([text(name), Cell(formats.plain(weight), weight), erred(start[name]), erred(end[name])])
        for name, weight in found.losses.items()
    ]
    rows.append(Row([text("weighted sum"), Cell(""), erred(start["loss"]), erred(end["loss"])], "total"))
    for name in (name for name in end if name.startswith("loss_")):
        language = text(f"weighted sum, {name.removeprefix('loss_')}")
        rows.append(Row([language, Cell(""), erred(start[name]), erred(end[name])]))
    columns = texts("Loss") + numbers("Weight", "Start", "End")
    return Table("Loss on the held-out sample before and after", columns, rows)
