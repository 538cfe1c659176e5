"""The part of a page about a search: its outcome in sentences, its tables, its plots as plain Plotly figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from subarch.run.records import (
    AbncAgreement,
    AbncCondition,
    Candidate,
    Certificate,
    Hyperparameters,
    Layers,
    LayerTrial,
    LedgerRow,
    Limits,
    OrderRow,
    Selection,
    Teacher,
    TrialRow,
)
from subarch.show import formats
from subarch.show.axes import (
    LOG_FROM_RATIO,
    Figure,
    bars,
    base_layout,
    label,
    leaves_room,
    log_ticks,
    marker_line,
    padded_axis,
    ramp,
    scatter,
)
from subarch.show.tables import (
    Cell,
    Column,
    Fact,
    Row,
    Table,
    any_number,
    architecture,
    counted,
    cut,
    erred,
    number,
    numbers,
    setting,
    text,
    texts,
    whole,
    words,
)

OBJECTIVES = {"error": "least error", "latency": "least latency", "w": "greatest W-coefficient"}
LIMITS = {
    # name in selection.json: (in words, digits of its unit, whether it is an upper limit, unit)
    "max_latency_ms": ("latency at most", 2, True, "ms"),
    "max_operations": ("multiply-adds at most", 0, True, ""),
    "max_parameters": ("parameters at most", 0, True, ""),
    "max_megabytes": ("file at most", 2, True, "MB"),
    "max_error": ("error at most", 4, True, ""),
    "keep": ("quality kept at least", 4, False, ""),
}


@dataclass(frozen=True, kw_only=True)
class Search:
    """A finished search; `order` are the candidates in order of cost, `config` its configuration by key.

    `layers` is None where nothing is inherited.
    """

    selection: Selection
    trials: tuple[TrialRow, ...]
    order: tuple[OrderRow, ...]
    config: dict[str, Any]
    layers: Layers | None = None


def view(run: Search) -> dict[str, Any]:
    """What the sections about the search show."""
    selection = run.selection
    rows, name = selection.candidates, winner_name(selection)
    members = [row for row in rows if row.architecture in selection.frontier]
    failed = [trial for trial in run.trials if trial.state == "failed"]
    return {
        "selection": selection,
        "admitting": admitting_limits(selection),
        "ties": [tie for tie in selection.ties if tie != name],
        "strategy": strategy_sentence(selection, run),
        "latency": selection.latency.sentence if selection.latency else None,
        "conditions": [condition(item) for item in selection.abnc.conditions],
        "agreement": agreement_sentence(selection.abnc.rank_agreement),
        "excluders": excluders(selection.certificate, run.order) if selection.certificate else None,
        "frontier": candidates(
            selection, "Candidates that no other beats in cost, error and parameters at once", members, False
        ),
        "candidates": candidates(selection, "All trained candidates; click a header to sort", rows, True),
        "languages": formats.by_language(selection.languages) if selection.languages is not None else None,
        "failures": failures(failed) if failed else None,
        "layers": layers(run.layers) if run.layers and run.layers.chosen else None,
        "ledger": ledger(selection.ledger),
    }


def headline(selection: Selection) -> str:
    """The outcome in one sentence."""
    if selection.winner is None:
        if selection.nearest is None:
            return "No candidate meets the limits."
        row = selection.nearest.row
        error = f"error {formats.error(row.error)}" if row.error is not None else "not trained"
        return f"No candidate meets the limits. Nearest: {row.architecture}, {cost_words(row, selection)}, {error}."
    row, gain, teacher = selection.winner, speed_up(selection), ""
    if gain is not None:
        comparison = "as fast as" if selection.cost_kind == "latency" else "less work than"
        teacher = f", {formats.factor(gain)} {comparison} the teacher"
    outcome = f"{row.architecture} was selected: {cost_words(row, selection)}{teacher}"
    return f"{outcome}, with an error of {formats.error(row.error)}."


def cost_words(row: Candidate, selection: Selection) -> str:
    if selection.cost_kind == "latency":
        return f"{formats.milliseconds(row.latency_ms)} a forward pass"
    return f"{formats.count(row.operations)} multiply-adds a forward pass"


def speed_up(selection: Selection) -> float | None:
    """The teacher's cost over the winner's; None where either was not measured."""
    before, after = cost_of(selection.teacher, selection), cost_of(selection.winner, selection)
    return before / after if before and after else None


def facts(selection: Selection) -> list[Fact]:
    """The key figures under the headline: of the winner, or of the nearest point where nothing is feasible."""
    row = selection.winner or (selection.nearest.row if selection.nearest else None)
    if row is None:
        return []
    spread = f"99 % {formats.interval(row.latency_interval_ms)}" if row.latency_interval_ms else ""
    shown = [
        Fact("Latency", formats.milliseconds(row.latency_ms), spread),
        Fact("Error", formats.error(row.error), row.error_kind),
        Fact("Parameters", formats.count(row.parameters), formats.exact(row.parameters)),
        Fact("Encoder layers", formats.count(row.encoder_parameters), formats.exact(row.encoder_parameters)),
    ]
    if row.embedding_parameters is not None:
        share, rest = row.embedding_parameters / row.parameters, row.parameters - row.encoder_parameters
        shown.append(Fact("Embeddings", formats.count(row.embedding_parameters), f"{100 * share:.0f} % of all"))
        if mapped := rest - row.embedding_parameters:
            shown.append(Fact("Map to the output", formats.count(mapped), formats.exact(mapped)))
    if row.megabytes is not None:
        shown.append(Fact("File", formats.megabytes(1e6 * row.megabytes), str(selection.objective.megabytes_in)))
    teacher, gain = selection.teacher, speed_up(selection)
    if selection.winner and teacher and gain is not None:
        before = formats.count(teacher.operations, "multiply-adds")
        if selection.cost_kind == "latency":
            before = formats.milliseconds(teacher.latency_ms)
        shown.insert(1, Fact("Against the teacher", formats.factor(gain), f"{teacher.name}: {before}"))
    if theta := thetas(row.hyperparameters):
        settings = "\n".join(formats.hyperparameters({name: value}) for name, value in theta.items())
        shown.append(Fact("θ", settings, f"trial {row.trial}", small=True))
    return shown


def objective_sentence(objective: Limits) -> str:
    """What was asked for: the objective and the limits that were set."""
    wanted = OBJECTIVES.get(objective.name, objective.name)
    given = objective.model_dump().items()
    limits = [limit_words(name, value) for name, value in given if name in LIMITS and value is not None]
    return f"Asked for: {wanted}" + (f", with {' and '.join(limits)}." if limits else ", without limits.")


def admitting_limits(selection: Selection) -> list[str]:
    """The limits that would admit the nearest point, rounded to the side that does admit it."""
    limits = selection.nearest.limits if selection.nearest else {}
    return [limit_words(name, value) for name, value in limits.items() if value is not None]


def limit_words(name: str, value: float) -> str:
    phrase, digits, upper, unit = LIMITS[name]
    return f"{phrase} {formats.outward(value, digits, upper)}" + (f"{formats.SPACE}{unit}" if unit else "")


def strategy_sentence(selection: Selection, run: Search) -> str:
    strategy, seeds = selection.strategy, selection.seeds
    trained = sum(bool(row.trained) for row in run.order)
    settings = len(strategy.hyperparameters)
    epsilon = f" with ε = {strategy.epsilon}" if strategy.epsilon else ""
    return (
        f"Strategy {strategy.name}{epsilon}: {trained:,} of {len(run.order):,} candidates "
        f"trained, up to {strategy.steps:,} steps each; {settings} hyperparameter setting{'s' * (settings != 1)}; "
        f"seed{'s' * (len(seeds) != 1)} {', '.join(map(str, seeds))}. Maximum point T: {selection.maximum_point}."
    )


def condition(item: AbncCondition) -> dict[str, str]:
    """A condition of AB^nC with its state as a word and a class of the style sheet."""
    word, style = {True: ("holds", "good"), False: ("fails", "bad"), None: ("not checked", "open")}[item.holds]
    value = "" if item.value is None else formats.plain(item.value)
    return {"name": item.name, "sentence": item.sentence, "word": word, "style": style, "value": value}


def agreement_sentence(agreement: AbncAgreement | None) -> str:
    if agreement is None:
        return "Rank agreement with longer training was not measured in this run."
    low, high, (short, long) = agreement.low, agreement.high, agreement.steps
    return (
        f"Kendall τ between the errors after {short:,} and after {long:,} steps: {agreement.tau:.2f} "
        f"(95 % interval {low:.2f} to {high:.2f}, {agreement.candidates:,} candidates)."
    )


# Tables


def candidates(selection: Selection, caption: str, rows: Sequence[Candidate], reasons: bool) -> Table:
    """Candidates with their objectives; with `reasons`, sortable and with why each one lost."""
    settings = list(dict.fromkeys(name for row in rows for name in thetas(row.hyperparameters)))
    columns = texts("⟨D, A, H, I⟩") + numbers("Error", "Latency (ms)", "Parameters", "W")
    columns += (texts("Outcome") if reasons else []) + numbers("Encoder", "Multiply-adds")
    columns += [
        Column(words(name), any_number(thetas(row.hyperparameters).get(name) for row in rows)) for name in settings
    ]
    columns += numbers("Trial")
    winner, nearest = winner_name(selection), nearest_name(selection)
    body = []
    for row in rows:
        name = row.architecture
        spread = f"99 % {formats.interval(row.latency_interval_ms)}" if row.latency_interval_ms else ""
        outcome = "selected" if name == winner else row.reason or formats.DASH
        cells = [
            architecture(name),
            erred(row.error),
            Cell(formats.milliseconds(row.latency_ms, ""), row.latency_ms, spread),
            counted(row.parameters),
            erred(row.w),
            *([text(outcome)] if reasons else []),
            counted(row.encoder_parameters),
            counted(row.operations),
            *(setting(thetas(row.hyperparameters).get(name)) for name in settings),
            number(row.trial),
        ]
        body.append(Row(cells, "winner" if name == winner else "nearest" if name == nearest else ""))
    return Table(caption, columns, body, sortable=reasons)


def excluders(certificate: Certificate, order: Sequence[OrderRow]) -> Table:
    """Who excludes whom by a certificate: the trained candidates, with those that they exclude."""
    excluded: dict[str | None, list[str]] = {}
    for name, by in certificate.excluded.items():
        excluded.setdefault(by, []).append(name)
    errors = {row.architecture: row.error for row in order}
    columns = texts("Trained") + numbers("Error", "Excludes") + texts("Of these")
    rows = [
        Row(
            [
                architecture(by) if by else text("no one: the cost alone excludes them"),
                erred(errors[by]) if by else Cell(formats.DASH),
                whole(len(names)),
                cut(", ".join(names)),
            ]
        )
        for by, names in sorted(excluded.items(), key=lambda item: -len(item[1]))
    ]
    caption = "What excludes the candidates that were not trained: each is no larger, and would have to be better"
    return Table(caption, columns, rows, sortable=True)


def failures(trials: Sequence[TrialRow]) -> Table:
    columns = numbers("Trial") + texts("⟨D, A, H, I⟩", "θ") + numbers("Seed", "Steps", "Time") + texts("Why it failed")
    body = [
        Row(
            [
                number(trial.number),
                architecture(trial.architecture),
                text(formats.hyperparameters(thetas(trial.hyperparameters)) or formats.DASH),
                number(trial.seed),
                Cell(formats.plain(trial.steps), trial.steps),
                Cell(formats.duration(trial.seconds), trial.seconds),
                text(trial.reason or "no reason recorded"),
            ]
        )
        for trial in trials
    ]
    return Table("Trials that failed; the search went on without them", columns, body)


def layers(found: Layers) -> Table:
    """The trials that decided which layers are kept: a row for each proposal, with its error after each training."""
    rungs = sorted({trial.steps for trial in found.trials})
    proposed: dict[tuple[str, tuple[int, ...]], dict[int, LayerTrial]] = {}
    for trial in found.trials:
        proposed.setdefault((trial.architecture, trial.layers), {})[trial.steps] = trial
    columns = texts("⟨D, A, H, I⟩", "Layers", "Proposed by") + numbers(*(f"Error after {steps}" for steps in rungs))
    body = []
    for (shape, kept), by_steps in sorted(
        proposed.items(), key=lambda item: (int(item[0][0].split("-")[0]), item[0][1])
    ):
        chosen = found.chosen.get(shape.split("-")[0]) == kept
        errors = [by_steps[steps].error if steps in by_steps else None for steps in rungs]
        why = next(iter(by_steps.values())).proposed + (", chosen" if chosen else "")
        cells = [architecture(shape), text(", ".join(map(str, kept))), text(why), *map(erred, errors)]
        body.append(Row(cells, "winner" if chosen else ""))
    caption = "Layers of the start, counted from 0, tried by short trainings of the largest candidate of each depth"
    return Table(caption, columns, body)


def ledger(entries: Sequence[LedgerRow]) -> Table:
    """What the run spent its time on, with the share of each part and the sum."""
    total = sum(entry.seconds for entry in entries)
    columns = texts("Work") + numbers("Time", "Share")
    body = [
        Row(
            [
                text(entry.what),
                Cell(formats.duration(entry.seconds), entry.seconds, f"{entry.seconds:,.1f} s"),
                Cell(f"{entry.seconds / total:.0%}" if total else formats.DASH, entry.seconds),
            ]
        )
        for entry in entries
    ]
    body.append(Row([text("Together"), Cell(formats.duration(total), total, f"{total:,.1f} s"), Cell("")], "total"))
    return Table("Wall time of the run", columns, body)


# Plots


LARGEST_MARKER = 34.0  # diameter in pixels of the candidate of most parameters
SMALLEST_MARKER = 7.0


def plots(run: Search) -> dict[str, Figure]:
    """All plots of a search, by the id of their element."""
    return {"plot-frontier": frontier(run), "plot-w": scalarisation(run), "plot-curves": curves(run)}


def frontier(run: Search) -> Figure:
    """Cost (latency or operations) against error; the area of a marker is proportional to the parameters."""
    selection = run.selection
    title = "Latency of a forward pass (ms)" if selection.cost_kind == "latency" else "Multiply-adds of a forward pass"
    shown = [row for row in selection.candidates if plottable(row, selection)]
    layout = base_layout(title, f"Error ({label(error_kind(shown))})")
    layout["shapes"] = limit_lines(selection)
    lines = [shape for shape in layout["shapes"] if shape["xref"] == "x"]
    layout["xaxis"] |= padded_axis([cost(row, selection) for row in shown] + [line["x0"] for line in lines])
    for line in lines:
        line["label"]["xanchor"] = "right" if leaves_room(line["x0"], layout["xaxis"]) else "left"

    members = set(selection.frontier)
    named = {"Selected": (winner_name(selection), "--accent"), "Nearest": (nearest_name(selection), "--warn")}
    special = {wanted for wanted, _ in named.values()}
    plain = [row for row in shown if row.architecture not in special]
    largest = max((row.parameters for row in shown), default=1)
    optimal = [row for row in plain if row.architecture in members]
    losers = [row for row in plain if row.architecture not in members]
    traces = [
        markers("Other candidates", losers, selection, largest, "--muted-mark", 0.55),
        markers("Frontier", optimal, selection, largest, "--frontier", 0.85),
        trade_off([row for row in shown if row.architecture in members], selection),
    ]
    for name, (wanted, color) in named.items():
        for row in (row for row in shown if row.architecture == wanted):
            # no candidate lies below and to the left of one on the frontier: the name covers nothing there
            side = "bottom left" if leaves_room(cost(row, selection), layout["xaxis"]) else "bottom right"
            trace = markers(name, [row], selection, largest, color, 1.0) | {"mode": "markers+text", "cliponaxis": False}
            trace |= {"text": [label(row.architecture)], "textposition": side}
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


def markers(
    name: str, rows: Sequence[Candidate], selection: Selection, largest: int, color: str, opacity: float
) -> Figure:
    """One trace of candidates, with their interquartile range as bars where the cost is a latency."""
    sizes = [max(LARGEST_MARKER * math.sqrt(row.parameters / largest), SMALLEST_MARKER) for row in rows]
    costs = [cost(row, selection) for row in rows]
    is_latency = selection.cost_kind == "latency"
    ranges = [
        row.latency_interval_ms if is_latency and row.latency_interval_ms else (at, at)
        for row, at in zip(rows, costs, strict=True)
    ]
    above = [max(high - at, 0) for at, (_, high) in zip(costs, ranges, strict=True)]
    below = [max(at - low, 0) for at, (low, _) in zip(costs, ranges, strict=True)]
    marker = {"size": sizes, "color": color, "opacity": opacity, "line": {"color": "--surface", "width": 1}}
    hovers = [candidate_hover(row) for row in rows]
    trace = scatter(name, "markers", costs, [row.error for row in rows], hovers, marker=marker)
    return trace | {"error_x": bars(above, below, color, thickness=1)}


def trade_off(rows: Sequence[Candidate], selection: Selection) -> Figure:
    """The staircase below which no candidate lies: the members of the frontier undominated in cost and error alone."""
    steps: list[tuple[float, float]] = []
    for at, error in sorted((cost(row, selection), row.error or 0.0) for row in rows):
        if not steps or error < steps[-1][1]:
            steps.append((at, error))
    return {
        "type": "scatter",
        "mode": "lines",
        "name": "Trade-off",
        "x": [at for at, _ in steps],
        "y": [error for _, error in steps],
        "line": {"shape": "hv", "color": "--frontier", "width": 1.5},
        "hoverinfo": "skip",
    }


def limit_lines(selection: Selection) -> list[Figure]:
    """The teacher's cost and the limits the plot has an axis for, as labelled lines."""
    teacher, objective = selection.teacher, selection.objective
    lines = []
    if (before := cost_of(teacher, selection)) is not None:
        lines.append(marker_line("x", before, "teacher", "--ink-soft", "dot"))
    if selection.cost_kind == "latency" and objective.max_latency_ms is not None:
        text = f"limit {formats.milliseconds(objective.max_latency_ms)}"
        lines.append(marker_line("x", objective.max_latency_ms, text, "--warn", "dash"))
    if objective.max_error is not None:
        text = f"limit {formats.error(objective.max_error)}"
        lines.append(marker_line("y", objective.max_error, text, "--warn", "dash"))
    return lines


def scalarisation(run: Search) -> Figure:
    """W over the space in order of cost: filled on the ε-grid, hollow off it, ticks where not trained."""
    ranked = list(enumerate(run.order, start=1))
    scored = [(rank, row) for rank, row in ranked if row.w is not None]
    winner = winner_name(run.selection)

    def points(name: str, rows: list[tuple[int, OrderRow]], symbol: str, color: str, size: int) -> Figure:
        x, y = [rank for rank, _ in rows], [row.w or 0 for _, row in rows]
        marker = {"symbol": symbol, "color": color, "size": size, "line": {"color": color, "width": 1.5}}
        hovers = [order_hover(rank, row, run) for rank, row in rows]
        return scatter(name, "markers", x, y, hovers, cliponaxis=False, marker=marker)

    on_grid = [item for item in scored if item[1].grid]
    off_grid = [item for item in scored if not item[1].grid]
    untrained = [(rank, row) for rank, row in ranked if row.w is None]
    traces = [
        points("Not trained", untrained, "line-ns-open", "--muted-mark", 7),
        points("Trained, off the grid" if on_grid else "Trained", off_grid, "circle-open", "--frontier", 9),
        points("Trained, on the ε-grid", on_grid, "circle", "--frontier", 9),
        points("Selected", [item for item in scored if item[1].architecture == winner], "diamond", "--accent", 13),
    ]
    layout = base_layout("Rank in the space, cheapest first", "W")
    layout["xaxis"] |= {"range": [0, len(ranked) + 1], "zeroline": False}
    layout["yaxis"] |= {"rangemode": "tozero"}
    return {"data": [trace for trace in traces if trace["x"]], "layout": layout}


def curves(run: Search) -> Figure:
    """The error over training steps of every completed trial, a legend entry a candidate."""
    rank = {row.architecture: position for position, row in enumerate(run.order)}
    ended = [trial for trial in run.trials if trial.state == "complete" and trial.curve]
    in_full = run.selection.strategy.steps
    trials = [trial for trial in ended if trial.steps >= in_full]
    names = sorted({trial.architecture for trial in trials}, key=lambda name: (rank.get(name, len(rank)), name))
    winner = winner_name(run.selection)
    steps = [step for trial in trials for step, *_ in trial.curve if step > 0]
    logarithmic = bool(steps) and max(steps) / min(steps) >= LOG_FROM_RATIO
    traces: list[Figure] = []
    for position, name in enumerate(names):
        color = "--accent" if name == winner else ramp(position / max(len(names) - 1, 1))
        for place, trial in enumerate(trial for trial in trials if trial.architecture == name):
            points = [point for point in trial.curve if point[0] > 0 or not logarithmic]
            mode = "lines+markers" if len(points) < 12 else "lines"
            hovers = [curve_hover(trial, point) for point in points]
            trace = scatter(label(name), mode, [point[0] for point in points], [point[1] for point in points], hovers)
            trace |= {"line": {"color": color, "width": 3.5 if name == winner else 1.5}}
            trace |= {"marker": {"color": color, "size": 7 if name == winner else 4}}
            traces.append(trace | {"legendgroup": label(name), "showlegend": place == 0})
    layout = base_layout("Training steps", f"Error ({label(error_kind(run.selection.candidates))})")
    if logarithmic:
        layout["xaxis"] |= log_ticks(min(steps), max(steps))
    return {"data": traces, "layout": layout}


def cost_of(row: Candidate | Teacher | None, selection: Selection) -> float | None:
    """The cost of a candidate or the teacher, in the unit of the search; None where it was not measured."""
    if row is None:
        return None
    return row.latency_ms if selection.cost_kind == "latency" else row.operations


def cost(row: Candidate, selection: Selection) -> float:
    """The cost of a candidate that can be plotted."""
    found = cost_of(row, selection)
    assert found is not None
    return found


def winner_name(selection: Selection) -> str | None:
    return selection.winner.architecture if selection.winner else None


def nearest_name(selection: Selection) -> str | None:
    return selection.nearest.row.architecture if selection.nearest else None


def plottable(row: Candidate, selection: Selection) -> bool:
    return cost_of(row, selection) is not None and row.error is not None


def error_kind(rows: Sequence[Candidate]) -> str:
    return rows[0].error_kind if rows else "none measured"


def candidate_hover(row: Candidate) -> str:
    lines = [f"<b>{label(formats.shape(row.architecture))}</b>", f"{formats.count(row.parameters)} parameters"]
    if row.latency_ms is not None:
        spread = f" (99 % {formats.interval(row.latency_interval_ms)})" if row.latency_interval_ms else ""
        lines.append(f"{formats.milliseconds(row.latency_ms)}{spread}")
    lines.append(f"{formats.count(row.operations)} multiply-adds")
    lines.append(f"error {formats.error(row.error)}")
    return "<br>".join([*lines, *theta_line(row.hyperparameters)])


def order_hover(rank: int, row: OrderRow, run: Search) -> str:
    shown = formats.milliseconds if run.selection.cost_kind == "latency" else formats.count
    lines = [f"<b>{label(formats.shape(row.architecture))}</b>", f"rank {rank:,} of {len(run.order):,}"]
    lines += [f"cost {shown(row.cost)}", f"{formats.count(row.parameters)} parameters"]
    if row.trained:
        lines += [f"error {formats.error(row.error)}", f"W {formats.error(row.w)}"]
    else:
        lines.append("not trained")
    return "<br>".join([*lines, "on the ε-grid"] if row.grid else lines)


def curve_hover(trial: TrialRow, point: tuple[int, float, float]) -> str:
    lines = [
        f"<b>{label(formats.shape(trial.architecture))}</b>",
        f"step {point[0]:,}: error {formats.error(point[1])}",
    ]
    lines.append(f"after {formats.duration(point[2])}, trial {trial.number}, seed {trial.seed}")
    return "<br>".join([*lines, *theta_line(trial.hyperparameters)])


def theta_line(settings: Hyperparameters) -> list[str]:
    return [label(formats.hyperparameters(theta))] if (theta := thetas(settings)) else []


def thetas(settings: Hyperparameters) -> dict[str, Any]:
    """θ by name; empty for a candidate that was not trained."""
    return settings.model_dump(exclude_none=True)
