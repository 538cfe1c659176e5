"""The plots of docs/search-benchmark.md from the raw numbers in benchmarks/results, as SVG files.

    python benchmarks/search/plots.py                 # writes docs/images/search-*.svg

A page on a code host shows images, not scripts, and Plotly writes an image only with kaleido and a browser of its own,
so lines, bands and axes are written here. Each file brings its own background, and another set of colours where the
reader's system is dark, so that it is legible on either.

    >>> svg([Panel("Speed-up", "workers", "times", [Line("300", [1, 2], [1, 1.7], 0)], (1, 2), (1, 2))])
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import betaincinv
from workers import speedups

RESULTS = Path(__file__).parents[1] / "results"
IMAGES = Path(__file__).parents[2] / "docs" / "images"
STYLE = """<style>
svg { --back: #ffffff; --ink: #1f2328; --grid: #d8dee4; --c0: #0072b2; --c1: #d55e00; --c2: #007f5f; --c3: #b0458f;
  --c4: #6e7781; font: 13px system-ui, "Segoe UI", Helvetica, Arial, sans-serif }
@media (prefers-color-scheme: dark) { svg { --back: #0d1117; --ink: #e6edf3; --grid: #30363d; --c0: #56b4e9;
  --c1: #f0883e; --c2: #3fc99a; --c3: #e58fca; --c4: #9198a1 } }
text { fill: var(--ink) }
</style>"""
HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 260, 62, 36, 66, 48
"""Of a panel in pixels, and around it."""

Parts = dict[str, Any]


@dataclass(frozen=True)
class Line:
    """`band`: lower and upper ends, in the unit of y. Of one name the first is in the legend; "" is in none."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    color: int
    band: tuple[Sequence[float], Sequence[float]] | None = None
    dashed: bool = False


@dataclass(frozen=True)
class Panel:
    """x is logarithmic, y if asked for. Axes go from their first tick to their last; what is beyond lies on the end."""

    title: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    x_ticks: Sequence[float]
    y_ticks: Sequence[float]
    log_y: bool = False
    width: int = 260

    def at(self, x: float, y: float) -> str:
        ends = (self.x_ticks[0], self.x_ticks[-1]), (self.y_ticks[0], self.y_ticks[-1])
        across = (math.log(x) - math.log(ends[0][0])) / math.log(ends[0][1] / ends[0][0])
        up = (y - ends[1][0]) / (ends[1][1] - ends[1][0])
        if self.log_y:
            up = math.log(max(y, ends[1][0]) / ends[1][0]) / math.log(ends[1][1] / ends[1][0])
        return f"{self.width * across:.1f},{HEIGHT * (1 - min(max(up, 0), 1)):.1f}"


def svg(panels: Sequence[Panel]) -> str:
    width, height = sum(LEFT + panel.width + RIGHT for panel in panels), TOP + HEIGHT + BOTTOM
    size = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    title = "; ".join(panel.title for panel in panels)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">', f"<title>{title}</title>", STYLE]
    parts.append(f'<rect width="{width}" height="{height}" fill="var(--back)"/>')
    named = {line.name: line for panel in panels for line in reversed(panel.lines) if line.name}
    right = 12.0
    for name, line in sorted(named.items(), key=lambda item: (item[1].dashed, item[1].color)):
        parts.append(f'<path d="M{right:.0f},18h26" {pen(line)}/><text x="{right + 32:.0f}" y="22">{name}</text>')
        right += 56 + 6.3 * len(name)
    across = 0
    for panel in panels:
        parts += [f'<g transform="translate({across + LEFT},{TOP})">', *drawn(panel), "</g>"]
        across += LEFT + panel.width + RIGHT
    return "\n".join([*parts, "</svg>", ""])


def pen(line: Line) -> str:
    dashes = ' stroke-dasharray="6 4"' if line.dashed else ""
    return f'stroke="var(--c{line.color})" fill="none" stroke-width="2"{dashes}'


def drawn(panel: Panel) -> list[str]:
    """One panel, its lower left corner of axes at (0, HEIGHT)."""
    parts = [f'<text y="-14" font-weight="600">{panel.title}</text>']
    for tick in panel.y_ticks:
        y = panel.at(panel.x_ticks[0], tick).split(",")[1]
        parts.append(f'<path d="M0,{y}h{panel.width}" stroke="var(--grid)"/>')
        parts.append(f'<text x="-7" y="{y}" dy="4" text-anchor="end">{tick:,.7g}</text>')
    for tick in panel.x_ticks:
        x = panel.at(tick, panel.y_ticks[0]).split(",")[0]
        parts.append(f'<path d="M{x},0v{HEIGHT}" stroke="var(--grid)"/>')
        parts.append(f'<text x="{x}" y="{HEIGHT + 18}" text-anchor="middle">{tick:,.7g}</text>')
    parts.append(f'<text x="{panel.width / 2}" y="{HEIGHT + 38}" text-anchor="middle">{panel.x_label}</text>')
    parts.append(
        f'<text transform="translate(-44,{HEIGHT / 2}) rotate(-90)" text-anchor="middle">{panel.y_label}</text>'
    )
    for line in panel.lines:
        if line.band:
            low, high = ([panel.at(*point) for point in zip(line.x, end, strict=True)] for end in line.band)
            outline = " ".join(low + high[::-1])
            parts.append(f'<polygon points="{outline}" fill="var(--c{line.color})" fill-opacity="0.15"/>')
    for line in panel.lines:
        points = [panel.at(*point) for point in zip(line.x, line.y, strict=True)]
        parts.append(f'<polyline points="{" ".join(points)}" {pen(line)}/>')
        parts += [
            f'<circle cx="{x}" cy="{y}" r="3" fill="var(--c{line.color})"/>'
            for x, y in (point.split(",") for point in points if not line.dashed)
        ]
    return parts


def curve(name: str, x: Sequence[float], values: Sequence[Sequence[float]], color: int, dashed: bool = False) -> Line:
    """Through the medians of each point's values; their quartiles are a band, unless it is dashed."""
    low, middle, high = ([float(np.quantile(each, share)) for each in values] for share in (0.25, 0.5, 0.75))
    return Line(name, x, middle, color, None if dashed else (low, high), dashed)


def trained(parts: Parts) -> list[Panel]:
    """What is trained until the certificate against |Ξ|, and what greedy choice needs that knows all errors."""
    groups = [parts[f"certificate/{group}"]["found"] for group in ("minilm", "300", "2352", "10000")]
    sizes = [float(found["W"][0]["affordable"]) for found in groups]  # W has no limit
    lines = []
    for color, (name, w) in enumerate({"least error": False, "greatest W": True}.items()):
        searches = [
            [run for question, runs in found.items() for run in runs if (question == "W") == w] for found in groups
        ]
        million = [
            run["trained"]
            for table in parts["steps"]["found"]
            for question, run in table.items()
            if (question == "W") == w
        ]
        ours, greedy = ([[run[key] for run in runs] for runs in searches] for key in ("trained", "greedy"))
        lines.append(curve(name, [*sizes, 1e6], [*ours, million], color))
        lines.append(curve(f"{name}, greedy", sizes, greedy, color, dashed=True))
    x_ticks, y_ticks = (10, 100, 1000, 10_000, 100_000, 1_000_000), (1, 2, 5, 10, 20, 50, 100)
    return [Panel("Trained until the certificate", "candidates", "trained", lines, x_ticks, y_ticks, True, width=600)]


def false_certificates(found: Parts) -> list[Panel]:
    """By planted rate: false certificates, with a 95 % interval (Clopper-Pearson); what audits state, and is so."""
    rates = [rate for rate in found if float(rate)]
    percent = [100 * float(rate) for rate in rates]
    lines, stated = [], []
    for color, audit in enumerate(found["0.0"]):
        flags = [found[rate][audit]["false"] for rate in rates]
        counts = [(sum(each), len(each)) for each in flags]
        low = [100 * float(betaincinv(k, n - k + 1, 0.025)) if k else 0.0 for k, n in counts]
        high = [100 * float(betaincinv(k + 1, n - k, 0.975)) if k < n else 100.0 for k, n in counts]
        lines.append(Line(f"audit {audit}", percent, [100 * k / n for k, n in counts], color, (low, high)))
        if audit != "0":  # that states nothing
            bounds = [[100 * bound for bound in found[rate][audit]["failing"]] for rate in rates]
            stated.append(curve(f"audit {audit}", percent, bounds, color))
    pairs = [zip(found[rate]["0"]["contradict"], found[rate]["0"]["excluded"], strict=True) for rate in rates]
    truth = [[100 * one / (of or 1) for one, of in each] for each in pairs]
    stated.append(curve("those that do", percent, truth, 4, dashed=True))
    label, x_ticks, y_ticks = "planted violations, % of candidates", (0.5, 1, 2, 5, 10, 20), (0, 20, 40, 60, 80)
    title = "Excluded that contradict the order, at most"
    return [
        Panel("False certificates", label, "% of searches", lines, x_ticks, y_ticks, width=370),
        Panel(title, label, "% of the excluded", stated, x_ticks, y_ticks, width=370),
    ]


def many_workers(found: Parts) -> list[Panel]:
    """Of `certified`: speed-up, idle share, and its time over that of `exhaustive` with as many workers."""
    faster, idle, shares = [], [], []
    for color, (name, of) in enumerate(found.items()):
        runs, everything = of["certified"], of["exhaustive"]
        counts = [float(count) for count in runs]
        faster.append(curve(name, counts, [speedups(runs, count) for count in runs], color))
        idle.append(curve(name, counts, [[100 * run["idle"] for run in runs[count]] for count in runs], color))
        ratios = [
            [ours["seconds"] / theirs["seconds"] for ours, theirs in zip(runs[count], everything[count], strict=True)]
            for count in runs
        ]
        shares.append(curve(name, counts, ratios, color))
    ideal = Line("all workers busy", [1, 20], [1, 20], 4, dashed=True)
    even = Line("", [1, 1000], [1, 1], 4, dashed=True)
    ticks = (1, 4, 16, 64, 256, 1000)
    return [
        Panel("Speed-up over one worker", "workers", "times as fast", [*faster, ideal], ticks, (1, 2, 5, 10, 20), True),
        Panel("Idle until the certificate", "workers", "% of the workers' time", idle, ticks, (0, 25, 50, 75, 100)),
        Panel(
            "Time over that of exhaustive", "workers", "times", [*shares, even], ticks, (0.001, 0.01, 0.1, 1, 10), True
        ),
    ]


def figures() -> dict[str, list[Panel]]:
    """The panels of each file, by name, from the shipped results."""
    search, violations, workers = (
        json.loads((RESULTS / f"{name}.json").read_text())["parts"]
        for name in ("search", "search_violations", "search_workers")
    )
    return {
        "search-trained": trained(search),
        "search-violations": false_certificates(violations["violations"]["found"]),
        "search-workers": many_workers(workers["workers"]["found"]),
    }


if __name__ == "__main__":
    IMAGES.mkdir(exist_ok=True)
    for name, panels in figures().items():
        (IMAGES / f"{name}.svg").write_text(svg(panels), encoding="utf-8")
