"""The plots of README and docs from the raw numbers in benchmarks/results, as SVG files.

    python -m benchmarks.plots                 # writes docs/images/*.svg

`quality` is README's picture: quality kept against latency, for the teacher, hand-picked shapes and what was selected.
`peers` belongs to docs/peers.md: the same of all that a user would pick instead. The others belong to
docs/search-benchmark.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("svg")
import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from scipy.special import betaincinv

RESULTS = Path(__file__).parent / "results"
IMAGES = Path(__file__).parents[1] / "docs" / "images"
COLORS = ("#0072b2", "#d55e00", "#007f5f", "#b0458f", "#6e7781")

plt.rcParams |= {"axes.grid": True, "axes.spines.top": False, "axes.spines.right": False, "grid.alpha": 0.4}
plt.rcParams |= {"svg.hashsalt": "subarch", "svg.fonttype": "none", "font.size": 9, "legend.frameon": False}

Parts = dict[str, Any]


def results(name: str) -> Any:
    return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))


def quality() -> Figure:
    """STS-B dev against latency: shapes in PyTorch after the same training; teacher and selected in every runtime."""
    figure, (shapes, runtimes) = plt.subplots(1, 2, figsize=(9.5, 3.8), sharey=True)
    found, whole = results("quality"), results("quality")["teacher"]["sts_dev"]
    named = {"teacher": "teacher 6-12-384-1536", "selected-s0": "selected 2-12-384-512", "best": "selected, 75 min"}
    for name, latency in found["latency"].items():
        if name.endswith(("-s1", "-s2")):
            continue
        kept = 1.0 if name == "teacher" else found["runs"][name]["sts_dev"] / whole
        kind = 4 if name == "teacher" else 0 if name in named else 1
        _mark(shapes, latency["median_ms"], kept, named.get(name, name.removesuffix("-s0")), kind)
    exported: dict[tuple[str, int, int], list[Any]] = {}
    for row in results("end_to_end")["rows"]:
        if not row["variant"].endswith("static"):
            point = row["corpus"]["median_ms"], row["spearman"] / whole
            # One label for points that lie on each other
            place = row["model"], round(10 * math.log(point[0])), round(200 * point[1])
            exported.setdefault(place, []).append((*point, row["variant"]))
    for (model, *_), points in exported.items():
        for x, y, variant in points:
            label = ", ".join(of for *_, of in points) if variant == points[0][2] else ""
            _mark(runtimes, x, y, label, 4 if model == "teacher" else 0, rotation=-55)
    shapes.set(title="shapes, 15 minutes of training each, PyTorch", ylabel="STS-B dev kept (Spearman)")
    runtimes.set(title="teacher (grey) and selected (blue) as exported")
    for axes, ticks in ((shapes, (0.5, 1, 2, 4, 8)), (runtimes, (0.5, 1, 2, 4, 8))):
        _logarithmic(axes.xaxis, ticks)
        axes.set(xlabel="ms per text, batch 1, two cores", xlim=(0.35, 20), ylim=(0.91, 1.005))
    shapes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    return figure


def peers() -> Figure:
    """STS-B dev and Cranfield against latency: everything that a user would pick instead, and ours; the frontier."""
    figure, panels = plt.subplots(1, 2, figsize=(10.5, 5.2))
    found = results("peers")
    for axes, part in zip(panels, ("sts_dev", "cranfield"), strict=True):
        points = []
        for name, row in found["rows"].items():
            if "refused" not in row:
                latency = found["latency"][name]["one, 1"]["median_ms"]
                points.append((latency, row[part]["kept"], row["model"], row["variant"]))
        best = [point[:2] for point in points if not _beaten(point[:2], points)]
        axes.plot(*zip(*sorted(best), strict=True), color=COLORS[4], linewidth=1, linestyle=":", zorder=0)
        for x, y, model, variant in points:
            kind, label = _kind(model, variant)
            _mark(axes, x, y, label, kind, rotation=-65)
        _logarithmic(axes.xaxis, (0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10))
        low, high = axes.get_ylim()
        axes.set(xlabel="ms per text, batch 1, one thread", xlim=(0.05, 25), ylim=(low - 0.35 * (high - low), high))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    panels[0].set(title="STS-B dev (Spearman)", ylabel="kept of the teacher's")
    panels[1].set(title="Cranfield (nDCG@10)")
    return figure


def _beaten(point: tuple[float, float], others: Sequence[tuple[Any, ...]]) -> bool:
    """Whether another is at least as fast and as good, and better in one of the two."""
    return any(x <= point[0] and y >= point[1] and (x, y) != point for x, y, *_ in others)


def _kind(model: str, variant: str) -> tuple[int, str]:
    """Colour and label of a point: ours, picked by hand, sentence-transformers' recipe, others' models, the teacher."""
    if model == "teacher":
        return 4, f"teacher, {variant}"
    if model.startswith("ours"):
        return 0, model
    if model.startswith("picked"):
        return 1, model.removeprefix("picked ")
    return (2, model.replace("sentence-transformers", "ST")) if "layers" in model else (3, model)


def _mark(axes: Axes, x: float, y: float, label: str, kind: int, rotation: float = 0) -> None:
    axes.plot(x, y, "o", color=COLORS[kind], markersize=8 if kind == 0 else 6)
    at: dict[str, Any] = {"rotation": rotation, "rotation_mode": "anchor", "va": "center", "fontsize": 7.5}
    axes.annotate(label, (x, y), (5, -8), textcoords="offset points", **at)


def search_trained() -> Figure:
    """Candidates trained until the certificate, by the size of the space, and what greedy choice needs."""
    parts = results("search")["parts"]
    groups = [parts[f"certificate/{group}"]["found"] for group in ("minilm", "300", "2352", "10000")]
    sizes = [float(found["W"][0]["affordable"]) for found in groups]  # W has no limit
    figure, axes = plt.subplots(figsize=(7.5, 3.6))
    for color, (name, is_w) in zip(COLORS, {"least error": False, "greatest W": True}.items(), strict=False):
        runs = [[run for question, runs in of.items() for run in runs if (question == "W") == is_w] for of in groups]
        steps = parts["steps"]["found"]
        million = [run["trained"] for table in steps for question, run in table.items() if (question == "W") == is_w]
        _curve(axes, name, [*sizes, 1e6], [*([run["trained"] for run in of] for of in runs), million], color)
        _curve(axes, f"{name}, greedy", sizes, [[run["greedy"] for run in of] for of in runs], color, band=False)
    _logarithmic(axes.xaxis, (10, 100, 1000, 10_000, 100_000, 1_000_000))
    _logarithmic(axes.yaxis, (1, 2, 5, 10, 20, 50, 100))
    axes.set(title="Trained until the certificate", xlabel="candidates", ylabel="trained")
    axes.legend()
    return figure


def search_violations() -> Figure:
    """By planted rate: false certificates with a 95 % interval (Clopper-Pearson); what audits state, and the truth."""
    found = results("search_violations")["parts"]["violations"]["found"]
    rates = [rate for rate in found if float(rate)]
    percent = [100 * float(rate) for rate in rates]
    figure, (false, stated) = plt.subplots(1, 2, figsize=(9.5, 3.6))
    for color, audit in zip(COLORS, found["0.0"], strict=False):
        counts = [(sum(found[rate][audit]["false"]), len(found[rate][audit]["false"])) for rate in rates]
        low = [100 * float(betaincinv(k, n - k + 1, 0.025)) if k else 0.0 for k, n in counts]
        high = [100 * float(betaincinv(k + 1, n - k, 0.975)) if k < n else 100.0 for k, n in counts]
        false.plot(percent, [100 * k / n for k, n in counts], "o-", color=color, label=f"audit {audit}", markersize=4)
        false.fill_between(percent, low, high, color=color, alpha=0.15, linewidth=0)
        if audit != "0":  # which states nothing
            bounds = [[100 * bound for bound in found[rate][audit]["failing"]] for rate in rates]
            _curve(stated, f"audit {audit}", percent, bounds, color)
    pairs = [zip(found[rate]["0"]["contradict"], found[rate]["0"]["excluded"], strict=True) for rate in rates]
    truth = [[100 * one / (of or 1) for one, of in each] for each in pairs]
    _curve(stated, "truth", percent, truth, COLORS[4], band=False)
    false.set(title="False certificates", ylabel="% of searches")
    stated.set(title="Excluded candidates that contradict the order, at most", ylabel="% of the excluded")
    for axes in (false, stated):
        _logarithmic(axes.xaxis, (0.5, 1, 2, 5, 10, 20))
        axes.set(xlabel="planted violations, % of candidates", ylim=(0, 82))
        axes.legend()
    return figure


def search_workers() -> Figure:
    """Of `certified`: speed-up, idle share, and its time over that of `exhaustive` with as many workers."""
    found = results("search_workers")["parts"]["workers"]["found"]
    figure, (faster, idle, share) = plt.subplots(1, 3, figsize=(11, 3.6))
    for color, (name, of) in zip(COLORS, found.items(), strict=False):
        runs, everything = of["certified"], of["exhaustive"]
        counts = [float(count) for count in runs]
        single = [run["seconds"] for run in runs["1"]]
        times = [[one / run["seconds"] for one, run in zip(single, runs[count], strict=True)] for count in runs]
        _curve(faster, name, counts, times, color)
        _curve(idle, name, counts, [[100 * run["idle"] for run in runs[count]] for count in runs], color)
        ratios = [
            [ours["seconds"] / theirs["seconds"] for ours, theirs in zip(runs[count], everything[count], strict=True)]
            for count in runs
        ]
        _curve(share, name, counts, ratios, color)
    faster.plot([1, 20], [1, 20], "--", color=COLORS[4], label="all workers busy")
    share.axhline(1, linestyle="--", color=COLORS[4])
    faster.set(title="Speed-up over one worker", ylabel="times as fast")
    idle.set(title="Idle until the certificate", ylabel="% of the workers' time", ylim=(0, 102))
    share.set(title="Time over that of exhaustive", ylabel="times", yscale="log")
    _logarithmic(faster.yaxis, (1, 2, 5, 10, 20))
    for axes in (faster, idle, share):
        _logarithmic(axes.xaxis, (1, 4, 16, 64, 256, 1000))
        axes.set(xlabel="workers")
    faster.legend()
    return figure


def published_choice() -> Figure:
    """Recorded error ratios against those that the selection of Bort's shape asks for; below the line it fails."""
    found = {name: row for name, row in results("published_choice").items() if "recorded" in row}
    figure, places = plt.subplots(1, len(found), figsize=(3.1 * len(found), 3.4), sharex=True, sharey=True)
    for axes, (name, row) in zip(places, found.items(), strict=True):
        ratios = zip(row["ratios"].items(), row["recorded"]["ratios"], strict=True)
        points = [(int(shape.split("-")[0]), least, ratio) for (shape, least), ratio in ratios]
        for color, depth in zip((*COLORS, "#e69f00"), sorted({depth for depth, *_ in points}), strict=True):
            some = [(least, ratio) for at, least, ratio in points if at == depth]
            axes.plot(*zip(*some, strict=True), "o", color=color, markersize=4, label=f"depth {depth}")
        axes.axline((1, 1), slope=1, color="black", linewidth=0.8)
        axes.set(title=name.replace(", ", "\n"), xlabel="asked: e(ξ) / e(X) at least")
    places[0].set(ylabel="recorded e(ξ) / e(X)")
    places[0].legend(fontsize=7)
    return figure


def _curve(
    axes: Axes, name: str, x: Sequence[float], values: Sequence[Sequence[float]], color: str, band: bool = True
) -> None:
    """Through the medians of each point's values, with a band between their quartiles, or dashed without one."""
    low, middle, high = ([float(np.quantile(each, share)) for each in values] for share in (0.25, 0.5, 0.75))
    axes.plot(x, middle, "o-" if band else "--", color=color, label=name, markersize=4)
    if band:
        axes.fill_between(x, low, high, color=color, alpha=0.15, linewidth=0)


def _logarithmic(axis: Any, ticks: Sequence[float]) -> None:
    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    axis.set_ticks(ticks, [f"{tick:,.7g}" for tick in ticks])
    axis.set_minor_formatter(NullFormatter())
    axis.set_tick_params(which="minor", size=0)


FIGURES = {
    "quality": quality,
    "peers": peers,
    "search-trained": search_trained,
    "search-violations": search_violations,
    "search-workers": search_workers,
    "published-choice": published_choice,
}


def main() -> None:
    IMAGES.mkdir(exist_ok=True)
    for name, draw in FIGURES.items():
        figure = draw()
        figure.tight_layout()
        figure.savefig(IMAGES / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)


if __name__ == "__main__":
    main()
