"""The part of the page about fine-tuned models: scores with intervals, what was taken for what, the worst mistakes, and
how Agora made the training data grow.

All of it is told from report.json (`evaluation`) and, where Agora ran, agora.json; each model gives one item of
{"name", "evaluations", "agora"}.

    >>> scores(items)["data"][0]["name"]
    'Score'
"""

from __future__ import annotations

from typing import Any

from subarch.show import formats, growth
from subarch.show.axes import Figure, base_layout, label, padded_axis
from subarch.show.tables import Cell, Column, Row, Table, cut, scored, text, whole, words

Item = dict[str, Any]

MOST_CLASSES = 12
"""Classes up to which a confusion matrix is one; of more, the most frequent confusions are listed."""
CONFUSED = 30


def view(items: list[Item]) -> Item:
    """What the template shows: the scores of all, then a part for each evaluation and for each run of Agora."""
    evaluations = evaluated(items)
    compared = [(title, found) for title, found in evaluations if found["comparison"]]
    return {
        "scores": score_table(evaluations),
        "comparison": comparison_table(compared) if compared else None,
        "parts": [part(title, found) for title, found in evaluations],
        "agora": [
            growth.view(position, item["name"], item["agora"], class_names(item))
            for position, item in enumerate(items)
            if item["agora"]
        ],
        "warnings": [f"{title}: {words}" for title, found in evaluations for words in found["warnings"]],
    }


def evaluated(items: list[Item]) -> list[tuple[str, Item]]:
    """Every evaluation with its title: task and part, after the name of the model where that is another."""
    return [
        (f"{found['task']}, {found['part']}" if item["name"] == found["task"] else
         f"{item['name']}: {found['task']}, {found['part']}", found)
        for item in items
        for found in item["evaluations"]
    ]  # fmt: skip


def class_names(item: Item) -> list[str]:
    """The names of the classes that Agora's labels are positions of, as far as an evaluation tells them."""
    known = [one["confusion"]["labels"] for one in item["evaluations"] if one["confusion"]]
    return known[0] if known else []


def headline(items: list[Item]) -> str:
    """The outcome in one sentence: the primary score of the first evaluation that has one."""
    for title, found in evaluated(items):
        if found["scores"]:
            metric = found["scores"]["metrics"][found["primary"]]
            return (
                f"{title}: {words(found['primary'])} {formats.score(metric['value'])}, "
                f"{formats.percent(found['scores']['level'])} interval {spanned(metric)}."
            )
    return f"{', '.join(title for title, _ in evaluated(items))}: predicted, not scored, for there are no labels."


def plots(items: list[Item]) -> dict[str, Figure]:
    """Figures by the id of their place on the page."""
    if not items:
        return {}
    ran = {growth.plot_id(place): growth.figure(item["agora"]) for place, item in enumerate(items) if item["agora"]}
    return {"plot-scores": scores(items)} | ran


def scores(items: list[Item]) -> Figure:
    """The primary score of each evaluation with its interval, beside the models compared with and the majority."""
    found = [(title, one) for title, one in evaluated(items) if one["scores"]]
    places = {title: -position for position, (title, _) in enumerate(found)}
    traces = [points("Score", [(t, f, f["scores"]["metrics"][f["primary"]]) for t, f in found], places)]
    others = [
        (title, one, {"value": one["comparison"]["metrics"][one["primary"]]["theirs"]})
        for title, one in found
        if one["comparison"]
    ]
    majority = [
        (title, one, {"value": one["statistics"]["majority_share"]})
        for title, one in found
        if one["primary"] == "accuracy"
    ]
    traces.append(points("Compared with", others, places))
    traces.append(points("Most frequent label", majority, places))
    traces = [trace for trace in traces if trace["x"]]
    layout = base_layout("Score", "")
    values = [value for trace in traces for value in trace["x"]]
    values += [one["scores"]["metrics"][one["primary"]][end] for _, one in found for end in ("low", "high")]
    layout["xaxis"] |= padded_axis(values)
    names = {"tickvals": list(places.values()), "ticktext": [label(title) for title in places]}
    layout["yaxis"] |= names | {"range": [0.5 - len(places), 0.5]}
    return {"data": traces, "layout": layout | {"showlegend": True}}


MARKERS = {
    "Score": {"symbol": "circle", "color": "--accent", "size": 11},
    "Compared with": {"symbol": "diamond", "color": "--frontier", "size": 10},
    "Most frequent label": {"symbol": "line-ns-open", "color": "--muted-mark", "size": 14},
}


def points(name: str, rows: list[tuple[str, Item, Item]], places: dict[str, int]) -> Figure:
    """One trace of scores, with intervals where they have one."""
    bars = {
        "type": "data",
        "symmetric": False,
        "array": [metric.get("high", metric["value"]) - metric["value"] for *_, metric in rows],
        "arrayminus": [metric["value"] - metric.get("low", metric["value"]) for *_, metric in rows],
        "color": MARKERS[name]["color"],
        "thickness": 1.5,
        "width": 5 if name == "Score" else 0,
    }
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": [metric["value"] for *_, metric in rows],
        "y": [places[title] for title, *_ in rows],
        "hovertext": [hover(name, *row) for row in rows],
        "hoverinfo": "text",
        "marker": MARKERS[name],
        "error_x": bars,
    }


def hover(name: str, title: str, found: Item, metric: Item) -> str:
    score = f"{words(found['primary'])} {formats.score(metric['value'])}"
    lines = [f"<b>{label(title)}</b>", score if name == "Score" else f"{name.lower()}: {score}"]
    if name == "Score":
        lines[-1] += f" ({spanned(metric)})"
        lines.append(f"{sized(found['scores'])}")
    return "<br>".join(lines)


def score_table(evaluations: list[tuple[str, Item]]) -> Table:
    """Every metric of every evaluation."""
    columns = [Column("Task", numeric=False), Column("Metric", numeric=False), Column("Score"), Column("Interval")]
    columns += [Column("Level"), Column("Seeds"), Column("Deviation"), Column("Examples"), Column("Groups")]
    columns += [Column("Most frequent label")]
    rows = []
    for title, found in evaluations:
        if not found["scores"]:
            cells = [text(title), text("no labels: predicted, not scored"), *[Cell("")] * 5]
            rows.append(
                Row([*cells, whole(found["statistics"]["rows"]), whole(found["statistics"]["groups"]), Cell("")])
            )
            continue
        about = found["scores"]
        for name, metric in about["metrics"].items():
            majority = found["statistics"].get("majority_share") if name == "accuracy" else None
            rows.append(
                Row(
                    [
                        text(title),
                        text(words(name)),
                        scored(metric["value"]),
                        Cell(spanned(metric), metric["low"]),
                        Cell(formats.percent(about["level"]), about["level"]),
                        Cell(str(about["n_seeds"]), about["n_seeds"], ", ".join(map(formats.score, metric["seeds"]))),
                        scored(metric["deviation"]),
                        whole(about["examples"]),
                        whole(about["groups"]),
                        scored(majority),
                    ],
                    "winner" if name == found["primary"] and len(about["metrics"]) > 1 else "",
                )
            )
    return Table("Official scores; the metric that models are chosen by is set off", columns, rows)


def comparison_table(evaluations: list[tuple[str, Item]]) -> Table:
    """Every metric of every comparison, and what speaks for a difference."""
    columns = [Column("Task", numeric=False), Column("Metric", numeric=False), Column("Score"), Column("Compared with")]
    columns += [Column("Difference"), Column("Interval"), Column("p, examples"), Column("p, seeds")]
    rows = [
        Row(
            [
                text(title),
                text(words(name)),
                scored(metric["ours"]),
                scored(metric["theirs"]),
                Cell(signed(metric["difference"]), metric["difference"], formats.digits(metric["difference"])),
                Cell(f"{signed(metric['low'])} to {signed(metric['high'])}", metric["low"]),
                scored(metric["p_examples"]),
                scored(metric["p_seeds"]),
            ]
        )
        for title, found in evaluations
        for name, metric in found["comparison"]["metrics"].items()
    ]
    return Table(
        "Compared on the same examples: bootstrap intervals of the difference, permutation tests", columns, rows
    )


def part(title: str, found: Item) -> Item:
    """What is shown of one evaluation."""
    counted = found["mistakes"]
    sentence = "There are no labels; predictions lie beside report.json."
    if counted:
        what = "not exactly right" if found["head"] == "regression" else "wrong"
        sentence = f"{counted['count']:,} of {counted['rows']:,} predictions are {what}."
        if found["scores"]["n_seeds"] > 1:
            sentence += " What is shown are those of the first seed."
    return {
        "title": title,
        "sentence": sentence,
        "confusion": confusion(found["confusion"]) if found["confusion"] else None,
        "mistakes": mistakes(found) if counted and counted["shown"] else None,
    }


def confusion(found: Item) -> Table:
    """Rows are the labels, columns what was predicted; of many classes a list of the most frequent confusions."""
    names, counts = found["labels"], found["counts"]
    if len(names) <= MOST_CLASSES:
        columns = [Column("Label", numeric=False), *(Column(name) for name in names), Column("Found")]
        rows = []
        for position, (name, row) in enumerate(zip(names, counts, strict=True)):
            share = row[position] / sum(row) if sum(row) else None
            rows.append(Row([text(name), *map(whole, row), Cell(formats.percent(share), share)]))
        return Table("Label in rows, prediction in columns, and the share of each label that was found", columns, rows)
    pairs = [(counts[a][b], a, b) for a in range(len(names)) for b in range(len(names)) if a != b and counts[a][b]]
    pairs.sort(key=lambda pair: (-pair[0], pair[1:]))
    columns = [Column("Label", numeric=False), Column("Prediction", numeric=False), Column("Times")]
    rows = [Row([text(names[a]), text(names[b]), whole(times)]) for times, a, b in pairs[:CONFUSED]]
    return Table("The most frequent confusions", columns, rows)


def mistakes(found: Item) -> Table:
    """The mistakes made with the greatest confidence, to be read."""
    shown = found["mistakes"]["shown"]
    most = max(len(mistake["texts"]) for mistake in shown)
    columns = [Column("Example", numeric=False)]
    columns += [Column(f"Text {n + 1}" if most > 1 else "Text", numeric=False) for n in range(most)]
    columns += [Column("Label", numeric=False), Column("Prediction", numeric=False)]
    surest = found["head"] != "regression"
    columns += [Column("Confidence")] if surest else []
    rows = []
    for mistake in shown:
        texts = [*mistake["texts"], *[""] * (most - len(mistake["texts"]))]
        cells = [text(mistake["id"]), *map(cut, texts)]
        cells += [cut(formats.plain(mistake["label"])), cut(formats.plain(mistake["prediction"]))]
        rows.append(Row(cells + ([Cell(formats.percent(mistake["confidence"]))] if surest else [])))
    worst = "made with the greatest confidence" if surest else "that are farthest off"
    return Table(f"The {len(rows)} mistakes {worst}", columns, rows)


def spanned(metric: Item) -> str:
    return f"{formats.score(metric['low'])} to {formats.score(metric['high'])}"


def signed(value: float) -> str:
    return f"{value:+.3f}"


def sized(about: Item) -> str:
    return f"{about['examples']:,} examples in {about['groups']:,} groups"
