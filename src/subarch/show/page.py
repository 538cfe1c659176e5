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

from subarch.show import bench, finetuning, outcome, pretraining, search, tables
from subarch.show.axes import Figure
from subarch.show.data import RunData

HERE = Path(__file__).parent

COMPARED = "The selected candidate beside the teacher and shapes picked by hand, which were given the same training"


def render(run: RunData) -> str:
    """The page of a run as one HTML string of about 5 MB, nearly all of it Plotly. Pure: same data, same bytes."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    scripts = [plotly_source(), (HERE / "report.js").read_text(encoding="utf-8")]
    plots = plots_of(run)
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template("report.html.jinja").render(
        **view(run),
        run=run,
        policy=content_policy(scripts),
        scripts=scripts,
        style=(HERE / "report.css").read_text(encoding="utf-8"),
        plots=script_json(plots),
        drawn={name: any(trace["x"] for trace in plot["data"]) for name, plot in plots.items()},
    )
    # a path that is not UTF-8 reaches Python as lone surrogates, which no file could hold
    return page.encode("utf-8", "replace").decode("utf-8")


def plots_of(run: RunData) -> dict[str, Figure]:
    """All plots, by the id of their element."""
    plots = finetuning.plots(run.finetuning) | bench.plots(run.bench)
    if run.pretraining:
        plots["plot-pretraining"] = pretraining.losses(run.search, run.pretraining)
    return plots | (search.plots(run.search) if run.search else {})


def view(run: RunData) -> dict[str, Any]:
    """What the template shows: strings and tables, by section; None where the run has no such section."""
    import yaml

    found, searched = run.pretraining, run.search
    selection = searched.selection if searched else None
    caption = COMPARED + ("; what is called pretrained had the training above" if found else "")
    winner = search.winner_name(selection) if selection else None
    configs = {"Configuration": searched.config if searched else found.config if found else {}}
    if searched and found:
        configs["Configuration of the pretraining"] = found.config
    if run.bench and not (searched or found):
        configs["Configuration"] = run.bench.config
    return {
        "headline": headline(run),
        "lead": search.objective_sentence(selection.objective) if selection else "",
        "warnings": selection.warnings if selection else bench.warnings(run.bench) if run.bench else (),
        "facts": search.facts(selection) if selection else [],
        "outcome": outcome.view(run) if searched or found else None,
        "search": search.view(searched) if searched else None,
        "pretraining": pretraining.view(found) if found else None,
        "finetuning": finetuning.view(run.finetuning) if run.finetuning else None,
        "bench": bench.view(run.bench) if run.bench else None,
        "exports": tables.exports(run.exports) if run.exports else None,
        "comparison": tables.comparison(run.comparison, winner, caption if searched else "Compared")
        if run.comparison
        else None,
        "configs": [
            (name, yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
            for name, config in configs.items()
            if config
        ],
        "environment": tables.flat({"versions": run.versions, "git": run.git, "machine": run.machine.model_dump()}),
    }


def headline(run: RunData) -> str:
    """The outcome in one sentence."""
    if run.search:
        return search.headline(run.search.selection)
    if run.pretraining:
        return pretraining.headline(run.pretraining)
    if run.finetuning:
        return finetuning.headline(run.finetuning)
    assert run.bench is not None
    return bench.headline(run.bench)


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
