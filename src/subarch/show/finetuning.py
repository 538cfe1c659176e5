"""The part of the page about fine-tuned models: scores with intervals, what was taken for what, the worst mistakes, and
how Agora made the training data grow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from subarch.run.records import (
    Agora,
    AgoraExample,
    AgoraIteration,
    AgoraPoint,
    Confusion,
    Evaluation,
    Interval,
    Mistake,
    Scores,
    TypeScores,
)
from subarch.show import formats
from subarch.show.axes import Figure, bars, base_layout, label, padded_axis, scatter
from subarch.show.tables import Cell, Row, Table, cut, number, numbers, scored, text, texts, whole, words

View = dict[str, Any]
Evaluated = tuple[str, Evaluation]
"""An evaluation with its title."""

MOST_CLASSES = 12
"""Classes up to which a confusion matrix is one; of more, the most frequent confusions are listed."""
CONFUSED = 30


@dataclass(frozen=True, kw_only=True)
class FineTuned:
    """A fine-tuned model: its name, its evaluations, and how Agora grew its data (None: without Agora)."""

    name: str
    evaluations: tuple[Evaluation, ...]
    agora: Agora | None = None


def view(items: list[FineTuned]) -> View:
    """What the template shows: the scores of all, then a part for each evaluation and for each run of Agora."""
    evaluations = evaluated(items)
    compared = [(title, found) for title, found in evaluations if found.comparison]
    return {
        "scores": score_table(evaluations),
        "comparison": comparison_table(compared) if compared else None,
        "parts": [part(title, found) for title, found in evaluations],
        "agora": [
            agora_view(position, item.name, item.agora, class_names(item))
            for position, item in enumerate(items)
            if item.agora
        ],
        "warnings": [f"{title}: {words}" for title, found in evaluations for words in found.warnings],
    }


def evaluated(items: list[FineTuned]) -> list[Evaluated]:
    """Every evaluation with its title: task and part, after the name of the model where that is another."""
    return [
        (f"{found.task}, {found.part}" if item.name == found.task else
         f"{item.name}: {found.task}, {found.part}", found)
        for item in items
        for found in item.evaluations
    ]  # fmt: skip


def class_names(item: FineTuned) -> Sequence[str]:
    """The names of the classes that Agora's labels are positions of, as far as an evaluation tells them."""
    known = [one.confusion.labels for one in item.evaluations if one.confusion]
    return known[0] if known else []


def headline(items: list[FineTuned]) -> str:
    """The outcome in one sentence: the primary score of the first evaluation that has one."""
    for title, found in evaluated(items):
        if found.scores:
            metric = found.scores.metrics[found.primary]
            return (
                f"{title}: {words(found.primary)} {formats.score(metric.value)}, "
                f"{formats.percent(found.scores.level)} interval {spanned(metric)}."
            )
    return f"{', '.join(title for title, _ in evaluated(items))}: predicted, not scored, for there are no labels."


def plots(items: list[FineTuned]) -> dict[str, Figure]:
    """Figures by the id of their place on the page."""
    if not items:
        return {}
    ran = {agora_plot_id(place): agora_figure(item.agora) for place, item in enumerate(items) if item.agora}
    return {"plot-scores": scores(items)} | ran


def scores(items: list[FineTuned]) -> Figure:
    """The primary score of each evaluation with its interval, beside the models compared with and the majority."""
    found = [(title, one, one.scores.metrics[one.primary]) for title, one in evaluated(items) if one.scores]
    places = {title: -position for position, (title, *_) in enumerate(found)}
    traces = [points("Score", [(title, one, metric.value) for title, one, metric in found], places)]
    above, below = ([m.high - m.value for *_, m in found], [m.value - m.low for *_, m in found])
    traces[0]["error_x"] |= {"array": above, "arrayminus": below, "width": 5}
    others = [(title, one, one.comparison.metrics[one.primary].theirs) for title, one, _ in found if one.comparison]
    majority = [
        (title, one, one.statistics.majority_share or 0.0) for title, one, _ in found if one.primary == "accuracy"
    ]
    traces.append(points("Compared with", others, places))
    traces.append(points("Most frequent label", majority, places))
    traces = [trace for trace in traces if trace["x"]]
    layout = base_layout("Score", "")
    values = [value for trace in traces for value in trace["x"]]
    values += [end for *_, metric in found for end in (metric.low, metric.high)]
    layout["xaxis"] |= padded_axis(values)
    names = {"tickvals": list(places.values()), "ticktext": [label(title) for title in places]}
    layout["yaxis"] |= names | {"range": [0.5 - len(places), 0.5]}
    return {"data": traces, "layout": layout | {"showlegend": True}}


MARKERS = {
    "Score": {"symbol": "circle", "color": "--accent", "size": 11},
    "Compared with": {"symbol": "diamond", "color": "--frontier", "size": 10},
    "Most frequent label": {"symbol": "line-ns-open", "color": "--muted-mark", "size": 14},
}


def points(name: str, rows: list[tuple[str, Evaluation, float]], places: dict[str, int]) -> Figure:
    """One trace of scores."""
    x, y = [score for *_, score in rows], [places[title] for title, *_ in rows]
    nothing = [0.0] * len(rows)
    trace = scatter(name, "markers", x, y, [hover(name, *row) for row in rows], marker=MARKERS[name])
    return trace | {"error_x": bars(nothing, nothing, str(MARKERS[name]["color"]))}


def hover(name: str, title: str, found: Evaluation, value: float) -> str:
    score = f"{words(found.primary)} {formats.score(value)}"
    lines = [f"<b>{label(title)}</b>", score if name == "Score" else f"{name.lower()}: {score}"]
    if name == "Score" and found.scores:
        lines[-1] += f" ({spanned(found.scores.metrics[found.primary])})"
        lines.append(sized(found.scores))
    return "<br>".join(lines)


def score_table(evaluations: list[Evaluated]) -> Table:
    """Every metric of every evaluation."""
    columns = texts("Task", "Metric") + numbers("Score", "Interval", "Level", "Seeds", "Deviation")
    columns += numbers("Examples", "Groups", "Most frequent label")
    rows = []
    for title, found in evaluations:
        if not found.scores:
            cells = [text(title), text("no labels: predicted, not scored"), *[Cell("")] * 5]
            rows.append(Row([*cells, whole(found.statistics.rows), whole(found.statistics.groups), Cell("")]))
            continue
        about = found.scores
        for name, metric in about.metrics.items():
            majority = found.statistics.majority_share if name == "accuracy" else None
            rows.append(
                Row(
                    [
                        text(title),
                        text(words(name)),
                        scored(metric.value),
                        Cell(spanned(metric), metric.low),
                        Cell(formats.percent(about.level), about.level),
                        Cell(str(about.n_seeds), about.n_seeds, ", ".join(map(formats.score, metric.seeds))),
                        scored(metric.deviation),
                        whole(about.examples),
                        whole(about.groups),
                        scored(majority),
                    ],
                    "winner" if name == found.primary and len(about.metrics) > 1 else "",
                )
            )
    return Table("Official scores; the metric that models are chosen by is set off", columns, rows)


def comparison_table(evaluations: list[Evaluated]) -> Table:
    """Every metric of every comparison, and what speaks for a difference."""
    columns = texts("Task", "Metric") + numbers("Score", "Compared with", "Difference", "Interval")
    columns += numbers("p, examples", "p, seeds")
    rows = [
        Row(
            [
                text(title),
                text(words(name)),
                scored(metric.ours),
                scored(metric.theirs),
                Cell(signed(metric.difference), metric.difference, formats.digits(metric.difference)),
                Cell(f"{signed(metric.low)} to {signed(metric.high)}", metric.low),
                scored(metric.p_examples),
                scored(metric.p_seeds),
            ]
        )
        for title, found in evaluations
        if found.comparison
        for name, metric in found.comparison.metrics.items()
    ]
    return Table(
        "Compared on the same examples: bootstrap intervals of the difference, permutation tests", columns, rows
    )


def part(title: str, found: Evaluation) -> View:
    """What is shown of one evaluation."""
    counted = found.mistakes
    sentence = "There are no labels; predictions lie beside report.json."
    if counted:
        what = "wrong" if found.head in ("classification", "choice") else "not exactly right"
        sentence = f"{counted.count:,} of {counted.rows:,} predictions are {what}."
        if found.scores and found.scores.n_seeds > 1:
            sentence += " What is shown are those of the first seed."
    return {
        "title": title,
        "sentence": sentence,
        "types": types(found.types) if found.types else None,
        "confusion": confusion(found.confusion) if found.confusion else None,
        "mistakes": mistakes(found.head, counted.shown) if counted and counted.shown else None,
    }


def confusion(found: Confusion) -> Table:
    """Rows are the labels, columns what was predicted; of many classes a list of the most frequent confusions."""
    names, counts = found.labels, found.counts
    if len(names) <= MOST_CLASSES:
        columns = texts("Label") + numbers(*names, "Found")
        rows = []
        for position, (name, row) in enumerate(zip(names, counts, strict=True)):
            share = row[position] / sum(row) if sum(row) else None
            rows.append(Row([text(name), *map(whole, row), Cell(formats.percent(share), share)]))
        return Table("Label in rows, prediction in columns, and the share of each label that was found", columns, rows)
    pairs = [(counts[a][b], a, b) for a in range(len(names)) for b in range(len(names)) if a != b and counts[a][b]]
    pairs.sort(key=lambda pair: (-pair[0], pair[1:]))
    columns = texts("Label", "Prediction") + numbers("Times")
    rows = [Row([text(names[a]), text(names[b]), whole(times)]) for times, a, b in pairs[:CONFUSED]]
    return Table("The most frequent confusions", columns, rows)


def types(found: Sequence[TypeScores]) -> Table:
    """The scores of each type of span."""
    columns = texts("Type") + numbers("F1", "Precision", "Recall", "Spans")
    rows = [Row([text(one.type), *map(scored, (one.f1, one.precision, one.recall)), whole(one.spans)]) for one in found]
    return Table("Spans by type", columns, rows)


def mistakes(head: str, shown: Sequence[Mistake]) -> Table:
    """The mistakes made with the greatest confidence, to be read."""
    most = max(len(mistake.texts) for mistake in shown)
    surest = head != "regression"
    titles = [f"Text {n + 1}" for n in range(most)] if most > 1 else ["Text"]
    columns = texts("Example", *titles, "Label", "Prediction") + (numbers("Confidence") if surest else [])
    rows = []
    for mistake in shown:
        filled = [*mistake.texts, *[""] * (most - len(mistake.texts))]
        cells = [text(mistake.id), *map(cut, filled)]
        cells += [cut(formats.plain(mistake.label)), cut(formats.plain(mistake.prediction))]
        rows.append(Row(cells + ([Cell(formats.percent(mistake.confidence))] if surest else [])))
    worst = "made with the greatest confidence" if surest else "that are farthest off"
    return Table(f"The {len(rows)} mistakes {worst}", columns, rows)


def spanned(metric: Interval) -> str:
    return f"{formats.score(metric.low)} to {formats.score(metric.high)}"


def signed(value: float) -> str:
    return f"{value:+.3f}"


def sized(about: Scores) -> str:
    return f"{about.examples:,} examples in {about.groups:,} groups"


# Agora


def agora_plot_id(position: int) -> str:
    return f"plot-agora-{position}"


def agora_view(position: int, name: str, grown: Agora, names: Sequence[str]) -> View:
    """What is shown of a run of Agora: each iteration, and points that it made. `names` are those of the classes."""
    iterations, made = grown.iterations, sum(one.points for one in grown.iterations)
    first, last = iterations[0].examples, iterations[-1].examples + iterations[-1].points
    sampled = [(one.number, point) for one in iterations for point in one.sample]
    return {
        "name": name,
        "plot": agora_plot_id(position),
        "sentence": f"{len(iterations):,} iterations made {made:,} points near mistakes on the development set ℰ; the "
        f"training data grew from {first:,} to {last:,} examples. It ended because {grown.stopped}. "
        f"{grown.warning}.",
        "iterations": iteration_table(iterations, grown.metric),
        "points": point_table(sampled, names) if sampled else None,
    }


def agora_figure(grown: Agora) -> Figure:
    """Training examples, as bars, and the best score on ℰ, as a line with an axis of its own, by iteration."""
    iterations = grown.iterations
    hovers = [
        f"<b>iteration {one.number:,}</b><br>{one.examples:,} training examples<br>"
        f"{label(words(grown.metric))} on ℰ {formats.score(best_score(one))}"
        for one in iterations
    ]
    shared: Figure = {"x": [one.number for one in iterations], "hovertext": hovers, "hoverinfo": "text"}
    bars = shared | {"type": "bar", "name": "Training examples", "y": [one.examples for one in iterations]}
    bars |= {"marker": {"color": "--frontier", "opacity": 0.55}}
    line = shared | {"type": "scatter", "mode": "lines+markers", "name": "Best score on ℰ", "yaxis": "y2"}
    line |= {"y": [best_score(one) for one in iterations], "line": {"color": "--accent", "width": 2.5}}
    layout = base_layout("Iteration", "Training examples")
    right = {"title": {"text": f"{label(words(grown.metric))} on ℰ"}, "overlaying": "y", "side": "right"}
    layout["yaxis2"] = layout["yaxis"] | right | {"showgrid": False}
    layout["xaxis"] |= {"dtick": 1}
    return {"data": [bars, line | {"marker": {"color": "--accent", "size": 9}}], "layout": layout}


def best_score(iteration: AgoraIteration) -> float | None:
    return max((one.score for one in iteration.trainings if one.score is not None), default=None)


def iteration_table(iterations: Sequence[AgoraIteration], metric: str) -> Table:
    columns = numbers("Iteration", "Training examples", "Trainings", f"Best {words(metric)} on ℰ", "Mistakes")
    columns += numbers("New points") + texts("Points left out") + numbers("Θ taken out")
    rows = [
        Row(
            [
                number(one.number),
                whole(one.examples),
                whole(len(one.trainings)),
                scored(best_score(one)),
                whole(one.mistakes),
                whole(one.points),
                text(", ".join(f"{count:,} {why}" for why, count in (one.dropped or {}).items()) or formats.DASH),
                whole(len(one.pruned)),
            ]
        )
        for one in iterations
    ]
    return Table("What each iteration trained, got wrong and made of it", columns, rows)


def point_table(sampled: list[tuple[int, AgoraPoint]], names: Sequence[str]) -> Table:
    """Points beside the mistakes they were made from: what differs between them, and how the teacher labelled them."""
    columns = numbers("Iteration") + texts("Mistake on ℰ", "New point", "Label of the mistake", "Label by the teacher")
    columns += texts("Made by") + numbers("Similarity")
    rows = []
    for iteration, made in sampled:
        before, after = (example.texts + example.choices for example in (made.origin, made.point))
        changed = [(old, new) for old, new in zip(before, after, strict=False) if old != new]
        rows.append(
            Row(
                [
                    number(iteration),
                    cut(" … ".join(old for old, _ in changed)),
                    cut(" … ".join(new for _, new in changed)),
                    *(cut(named(example, names)) for example in (made.origin, made.point)),
                    text(made.method),
                    scored(made.similarity),
                ]
            )
        )
    return Table("Some of the new points: what differs from the mistake each was made from", columns, rows)


def named(example: AgoraExample, names: Sequence[str]) -> str:
    """A label as it is read: the name of a class, the text of a choice, a number."""
    classes = example.choices or names
    return classes[int(example.label)] if classes and example.label is not None else formats.plain(example.label)
