"""The first part of a page: what the user got in the end, against the teacher.

The furthest stage that there is counts: exported files that were timed, or the pretrained model, or the selected one.

    >>> view(run)["facts"][0].figure
    '3-12-384-512'
"""

from __future__ import annotations

from typing import Any

from subarch.run.records import BenchRow
from subarch.show import bench, formats, search
from subarch.show.data import RunData
from subarch.show.tables import Cell, Column, Fact, Row, Table, text


def view(run: RunData) -> dict[str, Any] | None:
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
        name = "embedding" if "embedding" in end else "loss"
        title = "Distance to the teacher" if name == "embedding" else "Held-out loss"
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
    if not rows:
        return None
    titles = ("Latency (ms)", "File (MB)", "Mean cosine with PyTorch")
    columns = [Column("Model", numeric=False), Column("Runtime", numeric=False), *map(Column, titles)]
    return (
        Table(f"This model and its teacher in each runtime, {bench.setting(rows[0])}", columns, body) if rows else None
    )


def folders(run: RunData) -> list[tuple[str, str]]:
    """(what, folder below the run folder) of everything that can be loaded."""
    found = []
    if run.search and run.search.selection.winner:
        found.append(("after the search", "selected/"))
    if run.pretraining:
        found.append(("after full training", "pretrained/"))
    found += [(f"fine-tuned, {model.name}", f"finetuned/{model.name}/") for model in run.finetuning]
    return found + [(f"exported, {record.variant}", f"exported/{record.variant}/") for record in run.exports]
