"""The plots of the report as plain Plotly figures: dictionaries of traces and layout, no Plotly import.

Plain data keeps building a figure instant and its bytes deterministic; `axes` holds what the plots share.

    >>> figure = frontier(run)
    >>> [trace["name"] for trace in figure["data"]]
    ['Other candidates', 'Frontier', 'Trade-off', 'Selected']
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from subarch.show import formats
from subarch.show.axes import (
    LOG_FROM_RATIO,
    Figure,
    base_layout,
    label,
    leaves_room,
    log_ticks,
    marker_line,
    padded_axis,
    ramp,
)
from subarch.show.data import SearchData

Row = dict[str, Any]

LARGEST_MARKER = 34.0  # diameter in pixels of the candidate of most parameters
SMALLEST_MARKER = 7.0


def frontier(run: SearchData) -> Figure:
    """Cost (latency or operations) against error; the area of a marker is proportional to the parameters."""
    selection = run.selection
    key, title = cost_axis(selection)
    shown = [row for row in selection["candidates"] if plottable(row, key)]
    layout = base_layout(title, f"Error ({label(error_kind(shown))})")
    layout["shapes"] = limit_lines(selection, key)
    lines = [shape for shape in layout["shapes"] if shape["xref"] == "x"]
    layout["xaxis"] |= padded_axis([row[key] for row in shown] + [line["x0"] for line in lines])
    for line in lines:
        line["label"]["xanchor"] = "right" if leaves_room(line["x0"], layout["xaxis"]) else "left"

    members = set(selection["frontier"])
    named = {"Selected": (winner_name(selection), "--accent"), "Nearest": (nearest_name(selection), "--warn")}
    special = {architecture for architecture, _ in named.values()}
    plain = [row for row in shown if row["architecture"] not in special]
    largest = max((row["parameters"] for row in shown), default=1)
    losers = [row for row in plain if row["architecture"] not in members]
    traces = [
        markers("Other candidates", losers, key, largest, "--muted-mark", 0.55),
        markers("Frontier", [row for row in plain if row["architecture"] in members], key, largest, "--frontier", 0.85),
        trade_off([row for row in shown if row["architecture"] in members], key),
    ]
    for name, (architecture, color) in named.items():
        for row in (row for row in shown if row["architecture"] == architecture):
            # no candidate lies below and to the left of one on the frontier: the name covers nothing there
            side = "bottom left" if leaves_room(row[key], layout["xaxis"]) else "bottom right"
            trace = markers(name, [row], key, largest, color, 1.0) | {"mode": "markers+text", "cliponaxis": False}
            trace |= {"text": [label(row["architecture"])], "textposition": side}
            traces.append(trace | {"textfont": {"color": "--ink", "size": 13}})
    traces = [trace for trace in traces if trace["x"]]
    targets = [hover_target(trace) for trace in traces if trace["hoverinfo"] == "text"]
    return {"data": targets + traces, "layout": layout}


def hover_target(trace: Figure) -> Figure:
    """Takes the hover over from a trace of markers: an unseen twin whose markers are all equally small.

    Where markers overlap Plotly answers with the smaller one, even at the very centre of the larger; among equals it
    answers with the one whose centre is nearest.
    """
    target = {name: trace[name] for name in ("type", "name", "x", "y", "hovertext", "hoverinfo")}
    target |= {"mode": "markers", "showlegend": False, "legendgroup": trace["name"]}
    trace |= {"hoverinfo": "skip", "legendgroup": trace["name"]}
    del trace["hovertext"]
    return target | {"marker": {"size": SMALLEST_MARKER, "opacity": 0, "color": trace["marker"]["color"]}}


def markers(name: str, rows: list[Row], key: str, largest: int, color: str, opacity: float) -> Figure:
    """One trace of candidates, with their interquartile range as bars where the cost is a latency."""
    sizes = [max(LARGEST_MARKER * math.sqrt(row["parameters"] / largest), SMALLEST_MARKER) for row in rows]
    ranges = [(row["latency_iqr_ms"] if key == "latency_ms" else None) or [row[key], row[key]] for row in rows]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [row[key] for row in rows],
        "y": [row["error"] for row in rows],
        "hovertext": [candidate_hover(row) for row in rows],
        "hoverinfo": "text",
        "marker": {"size": sizes, "color": color, "opacity": opacity, "line": {"color": "--surface", "width": 1}},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [max(high - row[key], 0) for row, (_, high) in zip(rows, ranges, strict=True)],
            "arrayminus": [max(row[key] - low, 0) for row, (low, _) in zip(rows, ranges, strict=True)],
            "color": color,
            "thickness": 1,
            "width": 0,
        },
    }


def trade_off(rows: list[Row], key: str) -> Figure:
    """The staircase below which no candidate lies: the members of the frontier undominated in cost and error alone."""
    steps: list[Row] = []
    for row in sorted(rows, key=lambda row: (row[key], row["error"])):
        if not steps or row["error"] < steps[-1]["error"]:
            steps.append(row)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "Trade-off",
        "x": [row[key] for row in steps],
        "y": [row["error"] for row in steps],
        "line": {"shape": "hv", "color": "--frontier", "width": 1.5},
        "hoverinfo": "skip",
    }


def limit_lines(selection: Row, key: str) -> list[Figure]:
    """The teacher's cost and the limits the plot has an axis for, as labelled lines."""
    teacher, objective = selection["teacher"], selection["objective"]
    lines = []
    if teacher and formats.finite(teacher.get(key)) is not None:
        lines.append(marker_line("x", teacher[key], "teacher", "--ink-soft", "dot"))
    if key == "latency_ms" and objective["max_latency_ms"] is not None:
        text = f"limit {formats.milliseconds(objective['max_latency_ms'])}"
        lines.append(marker_line("x", objective["max_latency_ms"], text, "--warn", "dash"))
    if objective["max_error"] is not None:
        text = f"limit {formats.error(objective['max_error'])}"
        lines.append(marker_line("y", objective["max_error"], text, "--warn", "dash"))
    return lines


def scalarisation(run: SearchData) -> Figure:
    """W over the space in order of cost: filled on the ε-grid, hollow off it, ticks where not trained."""
    ranked = list(enumerate(run.order, start=1))
    scored = [(rank, row) for rank, row in ranked if formats.finite(row["w"]) is not None]
    winner = winner_name(run.selection)

    def points(name: str, rows: Iterable[tuple[int, Row]], symbol: str, color: str, size: int) -> Figure:
        kept = list(rows)
        return {
            "type": "scatter",
            "mode": "markers",
            "name": name,
            "x": [rank for rank, _ in kept],
            "y": [formats.finite(row["w"]) or 0 for _, row in kept],
            "hovertext": [order_hover(rank, row, run) for rank, row in kept],
            "hoverinfo": "text",
            "cliponaxis": False,
            "marker": {"symbol": symbol, "color": color, "size": size, "line": {"color": color, "width": 1.5}},
        }

    on_grid = [item for item in scored if item[1]["grid"]]
    off_grid = [item for item in scored if not item[1]["grid"]]
    untrained = [(rank, row) for rank, row in ranked if formats.finite(row["w"]) is None]
    traces = [
        points("Not trained", untrained, "line-ns-open", "--muted-mark", 7),
        points("Trained, off the grid" if on_grid else "Trained", off_grid, "circle-open", "--frontier", 9),
        points("Trained, on the ε-grid", on_grid, "circle", "--frontier", 9),
        points("Selected", [item for item in scored if item[1]["architecture"] == winner], "diamond", "--accent", 13),
    ]
    layout = base_layout("Rank in the space, cheapest first", "W")
    layout["xaxis"] |= {"range": [0, len(ranked) + 1], "zeroline": False}
    layout["yaxis"] |= {"rangemode": "tozero"}
    return {"data": [trace for trace in traces if trace["x"]], "layout": layout}


def curves(run: SearchData) -> Figure:
    """The error over training steps of every completed trial, a legend entry a candidate."""
    rank = {row["architecture"]: position for position, row in enumerate(run.order)}
    ended = [trial for trial in run.trials if trial["state"] == "complete" and trial["curve"]]
    in_full = run.selection["strategy"]["steps"]
    trials = [trial for trial in ended if trial["steps"] >= in_full]
    names = sorted({trial["architecture"] for trial in trials}, key=lambda name: (rank.get(name, len(rank)), name))
    winner = winner_name(run.selection)
    steps = [step for trial in trials for step, *_ in trial["curve"] if step > 0]
    logarithmic = bool(steps) and max(steps) / min(steps) >= LOG_FROM_RATIO
    traces: list[Figure] = []
    for position, name in enumerate(names):
        color = "--accent" if name == winner else ramp(position / max(len(names) - 1, 1))
        for number, trial in enumerate(trial for trial in trials if trial["architecture"] == name):
            points = [point for point in trial["curve"] if point[0] > 0 or not logarithmic]
            traces.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers" if len(points) < 12 else "lines",
                    "name": label(name),
                    "legendgroup": label(name),
                    "showlegend": number == 0,
                    "x": [point[0] for point in points],
                    "y": [formats.finite(point[1]) for point in points],
                    "hovertext": [curve_hover(trial, point) for point in points],
                    "hoverinfo": "text",
                    "line": {"color": color, "width": 3.5 if name == winner else 1.5},
                    "marker": {"color": color, "size": 7 if name == winner else 4},
                }
            )
    layout = base_layout("Training steps", f"Error ({label(error_kind(run.selection['candidates']))})")
    if logarithmic:
        layout["xaxis"] |= log_ticks(min(steps), max(steps))
    return {"data": traces, "layout": layout}


def cost_axis(selection: Row) -> tuple[str, str]:
    """The column of a candidate that is its cost, and what the axis is called."""
    if selection["cost_kind"] == "latency":
        return "latency_ms", "Latency of a forward pass (ms)"
    return "operations", "Multiply-adds of a forward pass"


def winner_name(selection: Row) -> str | None:
    return selection["winner"]["architecture"] if selection["winner"] else None


def nearest_name(selection: Row) -> str | None:
    return selection["nearest"]["row"]["architecture"] if selection["nearest"] else None


def plottable(row: Row, key: str) -> bool:
    return formats.finite(row.get(key)) is not None and formats.finite(row["error"]) is not None


def error_kind(rows: list[Row]) -> str:
    return str(rows[0]["error_kind"]) if rows else "none measured"


def candidate_hover(row: Row) -> str:
    lines = [f"<b>{label(formats.shape(row['architecture']))}</b>", f"{formats.count(row['parameters'])} parameters"]
    if formats.finite(row["latency_ms"]) is not None:
        spread = f" (IQR {formats.interval(row['latency_iqr_ms'])})" if row["latency_iqr_ms"] else ""
        lines.append(f"{formats.milliseconds(row['latency_ms'])}{spread}")
    lines.append(f"{formats.count(row['operations'])} multiply-adds")
    lines.append(f"error {formats.error(row['error'])}")
    return "<br>".join([*lines, *theta_line(row["hyperparameters"])])


def order_hover(rank: int, row: Row, run: SearchData) -> str:
    cost = formats.milliseconds if run.selection["cost_kind"] == "latency" else formats.count
    lines = [f"<b>{label(formats.shape(row['architecture']))}</b>", f"rank {rank:,} of {len(run.order):,}"]
    lines += [f"cost {cost(row['cost'])}", f"{formats.count(row['parameters'])} parameters"]
    if row["trained"]:
        lines += [f"error {formats.error(row['error'])}", f"W {formats.error(row['w'])}"]
    else:
        lines.append("not trained")
    return "<br>".join([*lines, "on the ε-grid"] if row["grid"] else lines)


def curve_hover(trial: Row, point: list[float]) -> str:
    lines = [
        f"<b>{label(formats.shape(trial['architecture']))}</b>",
        f"step {point[0]:,}: error {formats.error(point[1])}",
    ]
    lines.append(f"after {formats.duration(point[2])}, trial {trial['number']}, seed {trial['seed']}")
    return "<br>".join([*lines, *theta_line(trial["hyperparameters"])])


def theta_line(settings: Row) -> list[str]:
    return [label(formats.hyperparameters(settings))] if settings else []
