"""The page: what a run found, in plain sentences, with its plots and tables, as one HTML string.

`render` turns a run into a view (strings, tables, figures) and hands it to the template. Everything is inlined, and
the Content-Security-Policy names the scripts by hash: the page asks for nothing from a network, and a script that came
in with the data would not run even if an escape were missing.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from subarch.run.records import Bench, BenchRow, Machine, Parity, Pretraining, Retrieval, Versions
from subarch.show import bench, finetuning, formats, pretraining, search, tables
from subarch.show.axes import Figure
from subarch.show.finetuning import FineTuned
from subarch.show.search import Search
from subarch.show.tables import Cell, Fact, Row, Table, numbers, text, texts

HERE = Path(__file__).parent

COMPARED = "The student beside its teacher"


@dataclass(frozen=True, kw_only=True)
class RunData:
    """Everything a page can show; what a run does not have is None or empty.

    `command` reproduces the run; `comparison` are the rows of a final table, with any columns.
    """

    name: str
    command: str
    machine: Machine
    versions: Versions
    git: str | None = None
    search: Search | None = None
    pretraining: Pretraining | None = None
    finetuning: list[FineTuned] = field(default_factory=list)
    exports: list[Parity] = field(default_factory=list)
    retrievals: list[Retrieval] = field(default_factory=list)
    bench: Bench | None = None
    comparison: list[dict[str, Any]] | None = None


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
        "outcome": outcome(run) if searched or found else None,
        "search": search.view(searched) if searched else None,
        "pretraining": pretraining.view(found) if found else None,
        "finetuning": finetuning.view(run.finetuning) if run.finetuning else None,
        "bench": bench.view(run.bench) if run.bench else None,
        "exports": tables.exports(run.exports) if run.exports else None,
        "retrievals": tables.retrievals(run.retrievals) if run.retrievals else None,
        "comparison": tables.comparison(run.comparison, winner, COMPARED if searched else "Compared")
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


# What the user got in the end: exported files that were timed, or the pretrained model, or the selected one


def outcome(run: RunData) -> dict[str, Any] | None:
    """Key figures, and a table of every file that was timed; None where nothing was selected or trained."""
    name = model_name(run)
    if name is None:
        return None
    return {
        "facts": [Fact("Architecture", name, "depth, heads, hidden, intermediate"), *speed(run, name), *quality(run)],
        "table": timed(run, name),
        "folders": folders(run),
    }


def model_name(run: RunData) -> str | None:
    """The architecture of the model that came out last."""
    if run.pretraining:
        return run.pretraining.architecture
    return search.winner_name(run.search.selection) if run.search else None


def teacher_name(run: RunData) -> str | None:
    """The teacher's architecture."""
    if run.pretraining:
        return run.pretraining.teacher_architecture
    teacher = run.search.selection.teacher if run.search else None
    return teacher.architecture if teacher else None


def fastest(run: RunData, architecture: str | None) -> BenchRow | None:
    """The fastest of the timed files of an architecture, at the first batch size and length."""
    if run.bench is None or architecture is None:
        return None
    rows = [row for row in bench.first_rows(run.bench) if row.architecture == architecture]
    return min(rows, key=lambda row: row.median_ms, default=None)


def speed(run: RunData, name: str) -> list[Fact]:
    """Latency, gain over the teacher and size: of the fastest file, or of the model in PyTorch."""
    ours, theirs = fastest(run, name), fastest(run, teacher_name(run))
    if ours:
        facts = [Fact("Latency", formats.milliseconds(ours.median_ms), f"in {ours.runtime}, {bench.setting(ours)}")]
        size = Fact("File", formats.megabytes(ours.file_bytes), "")
        if theirs:
            gain, before = theirs.median_ms / ours.median_ms, formats.milliseconds(theirs.median_ms)
            note = f"as fast as its best file: {before} in {theirs.runtime}"
            facts.append(Fact("Against the teacher", formats.factor(gain), note))
            size = Fact("File", formats.megabytes(ours.file_bytes), f"teacher {formats.megabytes(theirs.file_bytes)}")
        return [*facts, size]
    if run.pretraining:
        latency = run.pretraining.latency
        facts = [
            Fact("Latency", formats.milliseconds(latency.student.median_ms), f"in PyTorch, {latency.length} tokens")
        ]
        if latency.teacher:
            gain = latency.teacher.median_ms / latency.student.median_ms
            note = f"as fast: {formats.milliseconds(latency.teacher.median_ms)}"
            facts.append(Fact("Against the teacher", formats.factor(gain), note))
        return [*facts, Fact("Parameters", formats.count(run.pretraining.parameters.total), "")]
    assert run.search is not None
    return [fact for fact in search.facts(run.search.selection) if fact.name not in ("Error", "θ", "Encoder layers")]


def quality(run: RunData) -> list[Fact]:
    """How near the teacher it is, and what it scores on tasks."""
    facts = []
    if run.pretraining:
        start, end = run.pretraining.heldout[0], run.pretraining.heldout[-1]
        name, title = ("error", "Error") if "error" in end else ("loss", "Held-out loss")
        facts.append(Fact(title, formats.error(end[name]), f"before pretraining {formats.error(start[name])}"))
    elif run.search and run.search.selection.winner:
        winner = run.search.selection.winner
        facts.append(Fact("Error", formats.error(winner.error), f"{winner.error_kind}, after the search alone"))
    for model in run.finetuning:
        scored = [one for one in model.evaluations if one.scores]
        if scored and scored[-1].scores:
            found = scored[-1]
            metric = scored[-1].scores.metrics[found.primary]
            note = f"{formats.score(metric.low)} to {formats.score(metric.high)}"
            if found.comparison:
                note += f"; compared with {formats.score(found.comparison.metrics[found.primary].theirs)}"
            facts.append(Fact(f"{model.name}, {found.primary}", formats.score(metric.value), note))
    return facts


def timed(run: RunData, name: str) -> Table | None:
    """Every timed file of the model and of its teacher, fastest first."""
    if run.bench is None:
        return None
    kinds = {name: "this model", teacher_name(run): "teacher"}
    rows = [row for row in bench.first_rows(run.bench) if row.architecture in kinds]
    if not rows:
        return None
    exports = {record.variant: record for record in run.exports}
    body = []
    for row in sorted(rows, key=lambda row: row.median_ms):
        is_ours = row.architecture == name
        parity = exports.get(row.runtime) if is_ours else None
        cosine = min((like.mean_cosine for like in parity.likeness.values()), default=None) if parity else None
        cells = [
            text(kinds[row.architecture]),
            text(row.runtime),
            Cell(formats.milliseconds(row.median_ms, ""), row.median_ms),
            Cell(formats.megabytes(row.file_bytes, ""), row.file_bytes),
            Cell(formats.error(cosine), cosine),
        ]
        body.append(Row(cells, "winner" if is_ours else ""))
    columns = texts("Model", "Runtime") + numbers("Latency (ms)", "File (MB)", "Mean cosine with PyTorch")
    return Table(f"This model and its teacher in each runtime, {bench.setting(rows[0])}", columns, body)


def folders(run: RunData) -> list[tuple[str, str]]:
    """(what, folder below the run folder) of everything that can be loaded."""
    found = []
    if run.search and run.search.selection.winner:
        found.append(("after the search", "selected/"))
    if run.pretraining:
        found.append(("after full training", "pretrained/"))
    found += [(f"fine-tuned, {model.name}", f"finetuned/{model.name}/") for model in run.finetuning]
    return found + [(f"exported, {record.variant}", f"exported/{record.variant}/") for record in run.exports]


# The file


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
