"""What the commands show on a terminal: results on standard output, warnings on standard error.

>>> show_selection(selection, Path("runs/mine"))
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE, Box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from subarch.show import formats

if TYPE_CHECKING:
    from subarch.run.records import (
        Bench,
        BenchRow,
        Compressed,
        Evaluation,
        Metrics,
        Parity,
        Pretraining,
        Ranked,
        Retrieval,
        Selection,
    )

ENDS = 20
"""Candidates of a large space that are shown at either end."""

errors = Console(stderr=True)

COLUMNS = ("\nms", "p95\nms", "sent.\n/s", "of\npeak", "mem.\nMB", "load\ns", "file\nMB")


def cell(value: object) -> str:
    """A figure in three digits or so; whole numbers are counts, in millions; nothing for what was not measured."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}" if abs(value) < 1 else f"{value:.2f}" if value < 100 else f"{value:.0f}"
    return f"{value / 1e6:.1f} M" if isinstance(value, int) else str(value)


def _table(title: str | None, *columns: str, left: int = 1, box: Box | None = SIMPLE) -> Table:
    """A table whose first `left` columns are words and the others figures."""
    table = Table(title=title) if box is None else Table(title=title, box=box)
    for position, column in enumerate(columns):
        table.add_column(column, justify="left" if position < left else "right")
    return table


def _say(text: str, soft_wrap: bool = False) -> None:
    Console().print(text, highlight=False, markup=False, soft_wrap=soft_wrap)


def show_space(title: str, candidates: list[dict[str, Any]]) -> None:
    """The candidates of a space in order of cost; of many the first and the last."""
    table = _table(title, "D-A-H-I", "parameters", "encoder", "multiply-adds", left=0, box=None)
    left_out = len(candidates) - 2 * ENDS if len(candidates) > 3 * ENDS else 0
    for number, row in enumerate(candidates):
        if left_out and number == ENDS:
            table.add_row("…", f"{left_out} more", "use --json", "…")
        if not left_out or number < ENDS or number >= ENDS + left_out:
            figures = (f"{row[key]:,}" for key in ("parameters", "encoder_parameters", "operations"))
            table.add_row(row["architecture"], *figures)
    Console().print(table)


def show_compressed(found: Compressed) -> None:
    """The lines that a compression ends in."""
    for line in found.lines:
        _say(line, soft_wrap=True)


def show_training(trained: Pretraining, run: Path) -> None:
    """What a training came to: `trained` is what the run's pretraining.json holds."""
    from subarch.show.pretraining import against_labels, cut

    start, end = trained.heldout[0], trained.heldout[-1]
    table = _table("loss on the held-out sample", "", "weight", "start", "end")
    for name, weight in trained.losses.items():
        table.add_row(name, f"{weight:g}", cell(start[name]), cell(end[name]))
    table.add_row("all, weighted", "", cell(start["loss"]), cell(end["loss"]))
    if "error" in end:
        table.add_row("error, as of a search", "", cell(start["error"]), cell(end["error"]))
    Console().print(table)
    for sentence in filter(None, (against_labels(trained), cut(trained))):
        _say(sentence, soft_wrap=True)
    _say(
        f"{trained.steps:,} steps, {trained.tokens:,} tokens, {trained.seconds / 60:.1f} minutes, "
        f"{trained.tokens_per_second:,.0f} tokens/s, {trained.padding:.1%} padding",
        soft_wrap=True,
    )
    print(f"trained {trained.architecture}: {run / 'pretrained'}")


def show_export(found: Parity) -> None:
    """How like PyTorch an exported file is, output by output, and where it lies."""
    title = f"{found.model} as {found.variant}, {found.sequences} sequences compared"
    table = _table(title, "output", "largest difference", "worst cosine", "mean cosine")
    for name, like in found.likeness.items():
        table.add_row(name, f"{like.difference:.2g}", f"{like.worst_cosine:.4f}", f"{like.mean_cosine:.4f}")
    console = Console()
    console.print(table)
    if (task := found.task) and task.metric is not None:
        console.print(f"{task.metric} on held-out: {task.pytorch:.4f} by PyTorch, {task.exported:.4f} exported")
    console.print(f"compared on {found.text.source}; written to {found.folder}", markup=False, soft_wrap=True)


def show_augmented(found: dict[str, Any]) -> None:
    """What `finetuning.augment` wrote."""
    methods = ", ".join(f"{count} by {name}" for name, count in found["by_method"].items())
    dropped = ", ".join(f"{count} {reason}" for reason, count in found["dropped"].items())
    made = f"{found['made']} new inputs" + f" ({methods})" * bool(methods) + f"; dropped: {dropped}" * bool(dropped)
    _say(f"{found['out']}: {found['given']} inputs, {made}")


def show_recorded(found: dict[str, Any]) -> None:
    """What `recording.record` came to, or would come to."""
    table = _table(None, "", "")
    table.show_header = False
    words = {
        "model": "model asked for",
        "served": "  as the server calls it",
        "texts": "texts of the corpus",
        "known": "  recorded before",
        "estimated_tokens": "tokens, estimated",
        "estimated_cost": "cost, estimated",
        "tokens": "tokens, by the server",
        "cost": "cost",
        "requests": "requests",
        "retries": "  tried again",
        "seconds": "seconds",
        "width": "numbers in a vector",
        "rows": "texts in the file",
    }
    for key, name in words.items():
        value = found.get(key)
        if isinstance(value, str):
            table.add_row(name, escape(value))
        elif value is not None:
            table.add_row(name, f"{value:,.4g}" if isinstance(value, float) else f"{value:,}")
    Console().print(table)
    if "rows" in found:
        _say(f"written to {found['file']}", soft_wrap=True)


def show_plan(planned: dict[str, Any]) -> None:
    """The account of `plan.plan`: a column each for student, teacher and both."""
    shown = ("student", "teacher", "both") if planned["teacher"]["parameters"] else ("student",)
    table = _table(f"{planned['architecture']}, {' + '.join(planned['losses'])}", "", *shown)

    def add(title: str, scale: float, *keys: str) -> None:
        figures = []
        for who in shown:
            value: Any = planned[who]
            for key in keys:
                value = value.get(key) if value else None
            digits = ",.0f" if value and value >= 1000 * scale else ".3g"
            figures.append(format(value / scale, digits) if value else "")
        if any(figures):
            table.add_row(title, *figures)

    add("million weights", 1e6, "parameters")
    add("MFLOP a token", 1e6, "flops_per_token")
    add("  forward alone", 1e6, "forward_flops_per_token")
    for part in ("weights", "gradients", "optimizer", "activations", "total"):
        add(f"GiB of {part}", 2**30, "memory_bytes", part)
    add("tokens/s", 1, "tokens_per_second")
    add("PFLOP", 1e15, "flops")
    add("device hours", 1, "hours")
    if planned["gpus"] > 1:
        add(f"hours on {planned['gpus']}", 1, "wall_hours")
    Console().print(table)
    pace = planned["pace"]
    if "utilisation" in pace:
        speed = f"{pace['utilisation']:.0%} of {pace['peak_tflops']:g} TFLOP/s assumed"
    else:
        speed = f"{pace['passes']} steps of {pace['tokens_per_pass']:,} tokens timed, {pace['threads']} threads"
    lines = [f"{pace['device']}, {planned['precision']}: {speed}"]
    if planned["tokens"] is not None:
        lines.append(f"{planned['tokens']:.4g} tokens in {planned['steps']:,.0f} steps of {planned['batch_tokens']:,}")
    if planned["epochs"] is not None:
        lines.append(f"{planned['epochs']:.3g} passes over the corpus")
    _say("\n".join(lines))


def show_selection(selection: Selection, run: Path) -> None:
    """The frontier and the winner: `selection` is what the run's selection.json holds."""
    columns = ("", "D-A-H-I", "parameters", "multiply-adds", "latency ms", "error", "W")
    table = _table("candidates on the frontier, and the winner", *columns, left=0, box=None)
    winner = selection.winner.architecture if selection.winner else None
    for row in selection.candidates:
        if row.architecture in selection.frontier:
            table.add_row(
                "→" if row.architecture == winner else "",
                row.architecture,
                f"{row.parameters:,}",
                f"{row.operations:,}",
                "" if row.latency_ms is None else f"{row.latency_ms:.2f}",
                f"{row.error:.4f}",
                "" if row.w is None else f"{row.w:.3f}",
            )
    Console().print(table)
    if selection.latency:
        _say(selection.latency.sentence)
    if selection.layers_sentence:
        _say(selection.layers_sentence)
    if selection.languages is not None:
        _say(formats.by_language(selection.languages))
    _say(selection.gap_sentence)
    show_warnings(selection.warnings)
    if winner is None and selection.nearest:
        errors.print(selection.nearest.sentence, highlight=False, markup=False)
    elif winner is not None:
        print(f"selected {winner}: {run / 'selected'}")
    print(f"report: {run / 'report.html'}")


def show_finetuning(found: Metrics, run: Path) -> None:
    """The fits and the held-out scores: `found` is what metrics.json holds."""
    metric, heldout = found.metric, found.heldout
    columns = ("", "learning rate", "decay", "warm-up", "batch", "seed", "epoch", metric)
    table = _table(f"fits, {metric} on dev", *columns, left=0)
    for row in found.fits:
        settings = (row.learning_rate, row.weight_decay, row.warm_up, row.batch_size, row.seed, row.epoch)
        score = f"{row.dev[metric]:.3f}" if row.dev else "failed"
        table.add_row("→" if row.name == found.chosen else "", *(f"{value:g}" for value in settings), score)
    Console().print(table)
    shown = ("", "this model", f"mean of {len(heldout.seeds)} seeds", "deviation", "teacher")
    table = _table(f"held out, {found.data.heldout.rows:,} examples", *shown)
    for name, value in heldout.scores.items():
        deviation, teacher = heldout.deviation[name], found.teacher
        figures = (value, heldout.mean[name], deviation, teacher.heldout[name] if teacher else None)
        table.add_row(name, *("" if figure is None else f"{figure:.3f}" for figure in figures))
    Console().print(table)
    cut = f", {found.data.truncated:.1%} of them truncated" if found.data.truncated else ""
    _say(f"{found.data.division}; trained on {found.data.train.rows:,} examples{cut}")
    if grown := found.agora:
        data = found.data.train.rows, grown.examples
        sentence = f"Agora ({grown.pruning}), {grown.iterations} iterations: {grown.stopped}; "
        sentence += f"the best was trained on {data[1]:,} examples, {data[1] - data[0]:,} of them made"
        _say(sentence, soft_wrap=True)
    show_warnings([f"{name}: {why}" for name, why in found.diverged.items()])
    print(f"fine-tuned model: {run / 'finetuned' / found.task}")
    print(f"report: {run / 'report.html'}")


def show_demo(found: Compressed, comparison: list[dict[str, Any]]) -> None:
    """What the demo came to, and how the files search."""
    if comparison:
        table = _table("held-out docstrings, searched by their first lines", *comparison[0], left=2)
        for row in comparison:
            table.add_row(*(cell(value) for value in row.values()))
        Console().print(table)
    show_compressed(found)


def show_evaluation(found: Evaluation, model: Path) -> None:
    """Scores with intervals, the difference where there was a comparison, and what must be known of them."""
    about, compared = found.scores, found.comparison
    if about:
        title = f"{found.task}, {found.part}: {about.examples:,} examples in {about.groups:,} groups"
        beside = ("against", "difference", "interval", "p, examples", "p, seeds") if compared else ()
        table = _table(title, "", "score", f"{about.level:.0%} interval", "deviation", *beside)
        for name, metric in about.metrics.items():
            cells = [name, f"{metric.value:.3f}", f"{metric.low:.3f} to {metric.high:.3f}"]
            cells.append("" if metric.deviation is None else f"{metric.deviation:.3f}")
            if compared:
                other = compared.metrics[name]
                cells += [f"{other.theirs:.3f}", f"{other.difference:+.3f}"]
                cells += [f"{other.low:+.3f} to {other.high:+.3f}", f"{other.p_examples:.3f}"]
                cells.append("" if other.p_seeds is None else f"{other.p_seeds:.3f}")
            table.add_row(*cells)
        Console().print(table)
    else:
        print(f"{found.task}, {found.part}: {found.statistics.rows:,} examples predicted; no labels, no score")
    show_warnings(found.warnings)
    print(f"predictions: {model / f'predictions-{found.task}-{found.part}.jsonl'}")
    print(f"report: {model / 'report.html'}")


def show_retrieval(found: Retrieval, run: Path) -> None:
    """Scores of each model with intervals, the difference, what must be known of them, and where the record lies."""
    title = f"{found.collection}, {found.part}: {found.queries:,} queries, {found.documents:,} documents"
    if found.rerank is not None:
        title += f", the first {found.rerank} of the retriever reranked"
    others = [("against", found.against), ("retriever", found.retriever)]
    named = [("this model", found.model), *((role, model) for role, model in others if model)]
    compared = ("difference", "interval", "p") if found.comparison else ()
    table = _table(title, "", "", "score", f"{found.model.scores.level:.0%} interval", *compared, left=2)
    for role, model in named:
        for name, metric in model.scores.metrics.items():
            cells = [role, name, f"{metric.value:.3f}", f"{metric.low:.3f} to {metric.high:.3f}"]
            if found.comparison and model is found.model:
                other = found.comparison.metrics[name]
                cells += [
                    f"{other.difference:+.3f}",
                    f"{other.low:+.3f} to {other.high:+.3f}",
                    f"{other.p_examples:.3f}",
                ]
            table.add_row(*cells)
            role = ""
    Console().print(table)
    for role, model in named:
        _say(f"{role}: {_read(model)}", soft_wrap=True)
    if found.document_model is not None:
        _say(f"documents by: {found.document_model}", soft_wrap=True)
    show_warnings(found.warnings)
    print(f"record: {run / 'retrieval'}")


def show_benchmark(scores: list[dict[str, Any]], run: Path) -> None:
    """The main score of each task of MTEB, and where mteb's own files lie."""
    table = _table("tasks of MTEB", "task", "metric", "score", left=2)
    for one in scores:
        table.add_row(one["task"], one["metric"], f"{one['score']:.4f}")
    Console().print(table)
    print(f"results: {run / 'mteb' / 'results'}")


def _read(model: Ranked) -> str:
    """The name of a model, and how it read texts."""
    length = "" if model.max_length is None else f", {model.max_length} tokens"
    return f"{model.model}{length}" + "".join(f", {role} after {text!r}" for role, text in model.prompts.items())


def show_doctor(found: dict[str, Any]) -> None:
    """Versions, machine and speed, and warnings: `found` is what `machine.examine` gives."""
    table = Table(show_header=False, title="subarch doctor")
    for key, value in found.items():
        if key != "warnings":
            table.add_row(key, json.dumps(value, indent=1, ensure_ascii=False).strip("{}\n "))
    Console().print(table)
    show_warnings(found["warnings"])


def show_tasks(listed: list[dict[str, Any]]) -> None:
    """A row per task: what it asks, or, where a folder was looked through, the rows of each part that is there."""
    surveyed = any("found" in row for row in listed)
    parts = ["train", "validation", "test"]
    table = Table(box=SIMPLE, caption="u: unlabelled" if surveyed else None)
    for column in ["task", *(parts if surveyed else ["type", "labels", "metrics"])]:
        table.add_column(column, justify="right" if column in parts else "left", overflow="fold")
    if surveyed:
        table.add_column("other")
    for row in listed:
        if not surveyed:
            table.add_row(row["task"], row["type"], " ".join(row["labels"]), " ".join(row["metrics"]))
            continue
        figures = {
            part: f"{about['rows']:,}{'' if about['labelled'] else ' u'}" if "rows" in about else "unreadable"
            for part, about in row["found"].items()
        }
        others = ", ".join(f"{part} {figure}" for part, figure in figures.items() if part not in parts)
        table.add_row(row["task"], *(figures.get(part, "") for part in parts), others)
    Console().print(table)
    show_warnings([about["problem"] for row in listed for about in row.get("found", {}).values() if "problem" in about])


def show_warnings(warnings: Sequence[str]) -> None:
    for warning in warnings:
        errors.print("[yellow]warning[/]: ", end="")
        errors.print(warning, markup=False, highlight=False, soft_wrap=True)


def show_bench(found: Bench, place: Path) -> None:
    """A table per batch size and length: `found` is what bench.json holds."""
    console, rows = Console(), found.rows
    for batch, lengths in dict.fromkeys((row.batch, tuple(row.lengths)) for row in rows):
        tokens = f"{lengths[0]} tokens" if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]} tokens, mean"
        table = Table(
            title=f"a forward pass: batch {batch}, {tokens}", box=SIMPLE, pad_edge=False, padding=(0, 1, 0, 0)
        )
        table.add_column("\nmodel", overflow="fold", min_width=12)
        table.add_column("\nruntime", no_wrap=True)
        for column in COLUMNS:
            table.add_column(column, justify="right", no_wrap=True)
        for row in rows:
            if (row.batch, tuple(row.lengths)) == (batch, lengths):
                table.add_row(row.subject, row.runtime, *_figures(row))
        console.print(table)
    shares = f"{found.processes} process{'es' * (found.processes != 1)} of {found.threads} thread"
    console.print(
        f"{shares}{'s' * (found.threads != 1)}; peak: {found.peak_gflops:.0f} GFLOP/s in fp32 matrix products",
        highlight=False,
    )
    print(f"report: {place / 'bench.html'}")


def _figures(row: BenchRow) -> list[str]:
    memory = "" if row.peak_bytes is None else f"{row.peak_bytes / 1e6:.0f}"
    digits = 3 if row.median_ms < 1 else 2
    return [
        f"{row.median_ms:.{digits}f}",
        f"{row.p95_ms:.{digits}f}",
        f"{row.sentences_per_second:,.0f}",
        f"{row.share_of_peak:.0%}",
        memory,
        f"{row.load_seconds:.2f}",
        f"{row.file_bytes / 1e6:.1f}",
    ]
