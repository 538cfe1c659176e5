"""The page: what a run found, in plain sentences, with its plots and tables, as one HTML string.

`render` turns a run into a view (strings, tables, figures) and hands it to the template. Everything is inlined, and
the Content-Security-Policy names the scripts by hash: the page asks for nothing from a network, and a script that came
in with the data would not run even if an escape were missing.

    >>> html = render(run)
    >>> html.startswith("<!doctype html>")
    True
"""

from __future__ import annotations

import base64
import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

from subarch.show import bench, figures, finetuning, formats, pretraining, tables
from subarch.show.data import RunData, SearchData

HERE = Path(__file__).parent

COMPARED = "The selected candidate beside the teacher and shapes picked by hand, which were given the same training"
OBJECTIVES = {"error": "least error", "latency": "least latency", "w": "greatest W-coefficient"}
LIMITS = {
    # name in selection.json: (in words, digits of its unit, whether it is an upper limit, unit)
    "max_latency_ms": ("latency at most", 2, True, "ms"),
    "max_operations": ("multiply-adds at most", 0, True, ""),
    "max_parameters": ("parameters at most", 0, True, ""),
    "max_error": ("error at most", 4, True, ""),
    "keep": ("quality kept at least", 4, False, ""),
}


def render(run: RunData) -> str:
    """The report as one HTML page of about 5 MB, nearly all of it Plotly. Pure: same data, same bytes."""
    import yaml
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    found = run.pretraining
    plots = {"plot-pretraining": pretraining.losses(run, found)} if found else {}
    view: dict[str, Any] = {"search": None, "pretraining": pretraining.view(found) if found else None}
    view |= {"finetuning": finetuning.view(run.finetuning) if run.finetuning else None}
    plots |= finetuning.plots(run.finetuning) | bench.plots(run.bench)
    view["bench"] = bench.view(run.bench) if run.bench else None
    view["exports"] = tables.exports(run.exports) if run.exports else None
    configs = [("Configuration", run.config)] if run.config else []
    winner, caption = None, "Compared"
    if isinstance(run, SearchData):
        winner, caption = figures.winner_name(run.selection), COMPARED
        plots |= {
            "plot-frontier": figures.frontier(run),
            "plot-w": figures.scalarisation(run),
            "plot-curves": figures.curves(run),
        }
        view |= {"search": search_view(run), "headline": headline(run.selection)}
        view |= {"lead": objective_sentence(run.selection["objective"]), "facts": facts(run.selection)}
        view |= {"warnings": run.selection["warnings"]}
        if found:
            caption += "; what is called pretrained had the training above"
            configs.append(("Configuration of the pretraining", found["config"]))
    else:
        if run.bench:
            view |= {"headline": bench.headline(run.bench), "warnings": bench.warnings(run.bench)}
        else:
            view |= {"headline": pretraining.headline(found) if found else finetuning.headline(run.finetuning)}
            view["warnings"] = []
        view |= {"lead": "", "facts": []}
    scripts = [plotly_source(), (HERE / "report.js").read_text(encoding="utf-8")]

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("report.html.jinja").render(
        **view,
        run=run,
        policy=content_policy(scripts),
        scripts=scripts,
        style=(HERE / "report.css").read_text(encoding="utf-8"),
        plots=script_json(plots),
        drawn={name: any(trace["x"] for trace in plot["data"]) for name, plot in plots.items()},
        comparison=tables.comparison(run.comparison, winner, caption) if run.comparison else None,
        configs=[(name, yaml.safe_dump(config, sort_keys=False, allow_unicode=True)) for name, config in configs],
        environment=tables.flat(run.environment),
    )
    # a path that is not UTF-8 reaches Python as lone surrogates, which no file could hold
    return page.encode("utf-8", "replace").decode("utf-8")


def search_view(run: SearchData) -> dict[str, Any]:
    """What the sections about the search show."""
    selection = run.selection
    rows, name = selection["candidates"], figures.winner_name(selection)
    members = [row for row in rows if row["architecture"] in selection["frontier"]]
    failed = [trial for trial in run.trials if trial["state"] == "failed"]
    return {
        "selection": selection,
        "admitting": admitting_limits(selection),
        "ties": [tie for tie in selection["ties"] if tie != name],
        "strategy": strategy_sentence(selection, run),
        "latency": (selection.get("latency") or {}).get("sentence"),  # earlier runs do not say
        "conditions": [condition(item) for item in selection["abnc"]["conditions"]],
        "agreement": agreement_sentence(selection["abnc"]["rank_agreement"]),
        "excluders": tables.excluders(selection, run.order) if selection["certificate"] else None,
        "frontier": tables.candidates(
            selection, "Candidates that no other beats in cost, error and parameters at once", members, False
        ),
        "candidates": tables.candidates(selection, "All trained candidates; click a header to sort", rows, True),
        "failures": tables.failures(failed) if failed else None,
        "ledger": tables.ledger(selection["ledger"]),
    }


def headline(selection: dict[str, Any]) -> str:
    """The outcome in one sentence."""
    if selection["winner"] is None:
        if selection["nearest"] is None:
            return "No candidate meets the limits."
        row = selection["nearest"]["row"]
        error = f"error {formats.error(row['error'])}" if row["error"] is not None else "not trained"
        return f"No candidate meets the limits. Nearest: {row['architecture']}, {cost_words(row, selection)}, {error}."
    row, gain, teacher = selection["winner"], speed_up(selection), ""
    if gain is not None:
        comparison = "as fast as" if selection["cost_kind"] == "latency" else "less work than"
        teacher = f", {formats.factor(gain)} {comparison} the teacher"
    outcome = f"{row['architecture']} was selected: {cost_words(row, selection)}{teacher}"
    return f"{outcome}, with an error of {formats.error(row['error'])}."


def cost_words(row: dict[str, Any], selection: dict[str, Any]) -> str:
    if selection["cost_kind"] == "latency":
        return f"{formats.milliseconds(row['latency_ms'])} a forward pass"
    return f"{formats.count(row['operations'])} multiply-adds a forward pass"


def speed_up(selection: dict[str, Any]) -> float | None:
    """The teacher's cost over the winner's; None where either was not measured."""
    key, _ = figures.cost_axis(selection)
    before = formats.finite((selection["teacher"] or {}).get(key))
    after = formats.finite((selection["winner"] or {}).get(key))
    return before / after if before and after else None


def facts(selection: dict[str, Any]) -> list[tables.Fact]:
    """The key figures under the headline: of the winner, or of the nearest point where nothing is feasible."""
    row = selection["winner"] or (selection["nearest"] or {}).get("row")
    if row is None:
        return []
    teacher = selection["teacher"] or {}
    spread = f"IQR {formats.interval(row['latency_iqr_ms'])}" if row["latency_iqr_ms"] else ""
    shown = [
        tables.Fact("Latency", formats.milliseconds(row["latency_ms"]), spread),
        tables.Fact("Error", formats.error(row["error"]), str(row["error_kind"])),
        tables.Fact("Parameters", formats.count(row["parameters"]), formats.exact(row["parameters"])),
        tables.Fact(
            "Encoder layers", formats.count(row["encoder_parameters"]), formats.exact(row["encoder_parameters"])
        ),
    ]
    if selection["winner"] and (gain := speed_up(selection)) is not None:
        key, _ = figures.cost_axis(selection)
        before = (
            formats.milliseconds(teacher[key]) if key == "latency_ms" else formats.count(teacher[key], "multiply-adds")
        )
        shown.insert(1, tables.Fact("Against the teacher", formats.factor(gain), f"{teacher['name']}: {before}"))
    if row["hyperparameters"]:
        settings = "\n".join(formats.hyperparameters({name: value}) for name, value in row["hyperparameters"].items())
        shown.append(tables.Fact("θ", settings, f"trial {row['trial']}", small=True))
    return shown


def objective_sentence(objective: dict[str, Any]) -> str:
    """What was asked for: the objective and the limits that were set."""
    wanted = OBJECTIVES.get(objective["name"], objective["name"])
    limits = [limit_words(name, value) for name, value in objective.items() if name != "name" and value is not None]
    return f"Asked for: {wanted}" + (f", with {' and '.join(limits)}." if limits else ", without limits.")


def admitting_limits(selection: dict[str, Any]) -> list[str]:
    """The limits that would admit the nearest point, rounded to the side that does admit it."""
    limits = selection["nearest"]["limits"] if selection["nearest"] else {}
    return [limit_words(name, value) for name, value in limits.items() if value is not None]


def limit_words(name: str, value: float) -> str:
    if name not in LIMITS:
        return f"{tables.words(name)} {formats.plain(value)}"
    words, digits, upper, unit = LIMITS[name]
    return f"{words} {formats.outward(value, digits, upper)}" + (f"{formats.SPACE}{unit}" if unit else "")


def strategy_sentence(selection: dict[str, Any], run: SearchData) -> str:
    strategy, seeds = selection["strategy"], selection["seeds"]
    trained = sum(bool(row["trained"]) for row in run.order)
    settings = len(strategy["hyperparameters"])
    epsilon = f" with ε = {strategy['epsilon']}" if strategy["epsilon"] else ""
    return (
        f"Strategy {strategy['name']}{epsilon}: {trained:,} of {len(run.order):,} candidates "
        f"trained, up to {strategy['steps']:,} steps each; {settings} hyperparameter setting{'s' * (settings != 1)}; "
        f"seed{'s' * (len(seeds) != 1)} {', '.join(map(str, seeds))}. Maximum point T: {selection['maximum_point']}."
    )


def condition(item: dict[str, Any]) -> dict[str, str]:
    """A condition of AB^nC with its state as a word and a class of the style sheet."""
    word, style = {True: ("holds", "good"), False: ("fails", "bad"), None: ("not checked", "open")}[item["holds"]]
    value = "" if item["value"] is None else formats.plain(item["value"])
    return {"name": item["name"], "sentence": item["sentence"], "word": word, "style": style, "value": value}


def agreement_sentence(agreement: dict[str, Any] | None) -> str:
    if agreement is None:
        return "Rank agreement with longer training was not measured in this run."
    low, high, (short, long) = agreement["low"], agreement["high"], agreement["steps"]
    return (
        f"Kendall τ between the errors after {short:,} and after {long:,} steps: {agreement['tau']:.2f} "
        f"(95 % interval {low:.2f} to {high:.2f}, {agreement['candidates']:,} candidates)."
    )


def content_policy(scripts: list[str]) -> str:
    """A policy that allows these inline scripts, inline style and images made by the page; nothing from a network."""
    hashes = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in hashes)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )


def script_json(data: Any) -> str:
    """JSON that can stand inside a <script> element: no `</script>` or `<!--` can occur, for there is no `<`."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


@cache
def plotly_source() -> str:
    from plotly.offline import get_plotlyjs

    source: str = get_plotlyjs()
    return source
