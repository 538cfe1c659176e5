"""The part of a page about a benchmark: a plot of latencies per batch size and length, and the table of all figures."""

from __future__ import annotations

from typing import Any

from subarch.run.records import Bench, BenchRow
from subarch.show import formats
from subarch.show.axes import Figure, bars, base_layout, label, padded_axis, ramp, scatter
from subarch.show.tables import Cell, Row, Table, architecture, counted, number, numbers, text, texts

BUSY = 0.5
"""Load average, as a share of the usable cores, above which other programs make latencies too long."""
ROW_PIXELS, FRAME_PIXELS = 48, 170
"""Height of a model in a plot, and of what is around them."""


def view(found: Bench) -> dict[str, Any]:
    return {
        "parts": [
            {"title": f"Batch {batch}, {tokens(lengths)}", "plot": f"plot-bench-{number}"}
            for number, (batch, lengths) in enumerate(settings(found))
        ],
        "words": words(found),
        "table": table(found),
    }


def headline(found: Bench) -> str:
    """The fastest at the first batch size and length, in one sentence."""
    fastest = min(first_rows(found), key=lambda row: row.median_ms)
    return (
        f"At {setting(fastest)} the fastest is {fastest.subject} in {fastest.runtime}: "
        f"{formats.milliseconds(fastest.median_ms)} a forward pass."
    )


def warnings(found: Bench) -> list[str]:
    """What would have spoilt the measurement."""
    load, cores = found.load_average, found.machine.cores.usable
    if load is None or load <= BUSY * cores:
        return []
    return [
        f"Other programs were running (load average {load:.1f} on {cores} usable cores): latencies are too long and "
        "uneven, and not of all runtimes alike."
    ]


def plots(found: Bench | None) -> dict[str, Figure]:
    """A figure per batch size and length, by the id of its element."""
    if found is None:
        return {}
    return {
        f"plot-bench-{number}": latencies(found, batch, lengths)
        for number, (batch, lengths) in enumerate(settings(found))
    }


def latencies(found: Bench, batch: int, lengths: tuple[int, ...]) -> Figure:
    """Median latency by model (a line each) and runtime (a colour each), with the interquartile range."""
    rows = rows_of(found, batch, lengths)
    subjects = list(dict.fromkeys(label(row.subject) for row in rows))
    runtimes = list(dict.fromkeys(row.runtime for row in found.rows))
    traces = []
    for position, runtime in enumerate(runtimes):
        color = ramp(position / max(len(runtimes) - 1, 1))
        own = [row for row in rows if row.runtime == runtime]
        costs, names = [row.median_ms for row in own], [label(row.subject) for row in own]
        trace = scatter(label(runtime), "markers", costs, names, [hover(row) for row in own])
        above, below = [row.q3_ms - row.median_ms for row in own], [row.median_ms - row.q1_ms for row in own]
        traces.append(trace | {"marker": {"color": color, "size": 11}, "error_x": bars(above, below, color)})
    layout = base_layout("Latency of a forward pass (ms)", "")
    layout["height"] = FRAME_PIXELS + ROW_PIXELS * len(subjects)
    layout["xaxis"] |= padded_axis([end for row in rows for end in (row.q1_ms, row.q3_ms)])
    layout["yaxis"] |= {"type": "category", "categoryorder": "array", "categoryarray": subjects[::-1]}
    return {"data": [trace for trace in traces if trace["x"]], "layout": layout}


def hover(row: BenchRow) -> str:
    lines = [
        f"<b>{label(row.subject)}</b>, {label(row.runtime)}",
        f"{formats.milliseconds(row.median_ms)} (IQR {formats.interval([row.q1_ms, row.q3_ms])})",
        f"95 % within {formats.milliseconds(row.p95_ms)}",
        f"{formats.count(row.sentences_per_second)} sentences a second",
        f"{formats.percent(row.share_of_peak)} of the peak",
    ]
    return "<br>".join(lines)


def words(found: Bench) -> list[tuple[str, str]]:
    """What no figure tells, as (name, sentence) pairs."""
    threads, processes = found.threads, found.processes
    served = f"{threads} thread{'s' * (threads != 1)}"
    if processes > 1:
        served = f"{processes} processes at the same time, {served} each; sentences a second are of all together"
    pairs = [("Begun", found.begun), ("Served by", served)]
    pairs.append(
        ("Peak", f"{found.peak_gflops:.0f} GFLOP/s in products of fp32 matrices, measured in turn with the rest")
    )
    _, lengths = settings(found)[0]
    if len(lengths) > 1:
        quantiles = ", ".join(map(str, lengths))
        pairs.append(("Tokens", f"{quantiles}: the middle of each eighth of the texts; times are means over them"))
    return pairs


def table(found: Bench) -> Table:
    """Every figure of every row."""
    columns = texts("Model", "⟨D, A, H, I⟩", "Runtime") + numbers("Batch", "Tokens", "ms", "p95 (ms)", "Sentences/s")
    columns += numbers("Of peak", "Memory (MB)", "Load (s)", "File (MB)")
    body = []
    for row in found.rows:
        lengths = row.lengths
        mean, spread = sum(lengths) / len(lengths), formats.interval([row.q1_ms, row.q3_ms])
        cells = [
            text(row.subject),
            architecture(row.architecture),
            text(row.runtime),
            number(row.batch),
            Cell(f"{mean:g}", mean, tokens(lengths) if len(lengths) > 1 else ""),
            Cell(formats.milliseconds(row.median_ms, ""), row.median_ms, f"IQR {spread}, {row.passes} passes"),
            Cell(formats.milliseconds(row.p95_ms, ""), row.p95_ms),
            counted(row.sentences_per_second),
            Cell(formats.percent(row.share_of_peak), row.share_of_peak, f"{row.gflops:.1f} GFLOP/s"),
            megabytes(row.peak_bytes),
            Cell(f"{row.load_seconds:.2f}", row.load_seconds),
            megabytes(row.file_bytes),
        ]
        body.append(Row(cells))
    return Table("All figures; click a header to sort", columns, body, sortable=True)


def megabytes(count: int | None) -> Cell:
    """Bytes in millions, with the exact figure."""
    return Cell(formats.megabytes(count, ""), count, formats.exact(count, "bytes"))


def tokens(lengths: tuple[int, ...]) -> str:
    return f"{lengths[0]} tokens" if len(lengths) == 1 else f"{lengths[0]} to {lengths[-1]} tokens"


def settings(found: Bench) -> list[tuple[int, tuple[int, ...]]]:
    """The batch sizes and lengths, in the order of the rows."""
    return list(dict.fromkeys((row.batch, row.lengths) for row in found.rows))


def first_rows(found: Bench) -> list[BenchRow]:
    """The rows at the first batch size and length."""
    return rows_of(found, *settings(found)[0])


def setting(row: BenchRow) -> str:
    return f"batch {row.batch} and {tokens(row.lengths)}"


def rows_of(found: Bench, batch: int, lengths: tuple[int, ...]) -> list[BenchRow]:
    return [row for row in found.rows if (row.batch, row.lengths) == (batch, lengths)]
