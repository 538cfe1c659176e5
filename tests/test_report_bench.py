"""The page of a benchmark: its plots, its table, its sentences."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from report_fixture import MACHINE, Raw, render
from subarch.run.records import Bench
from subarch.show import bench

SHAPES = {"teacher": (6, 10.0), "student": (2, 1.0)}
RUNTIMES = {"torch": 1.0, "onnx": 0.5, "onnx-int8": 0.25}


def row(subject: str, runtime: str, batch: int, lengths: list[int]) -> dict[str, Any]:
    depth, factor = SHAPES[subject]
    median = factor * RUNTIMES[runtime] * batch * sum(lengths) / len(lengths) / 32
    return {
        "subject": subject,
        "architecture": f"{depth}-12-384-1536",
        "runtime": runtime,
        "batch": batch,
        "lengths": lengths,
        "median_ms": median,
        "q1_ms": 0.9 * median,
        "q3_ms": 1.2 * median,
        "p95_ms": 1.5 * median,
        "passes": 36,
        "sentences_per_second": 1000 * batch / median,
        "gflops": 50.0,
        "share_of_peak": 0.25,
        "peak_bytes": 2 * 10**8,
        "load_seconds": 0.31,
        "file_bytes": 90_400_000,
    }


def example(*settings: tuple[int, list[int]]) -> dict[str, Any]:
    settings = settings or ((1, [32]), (1, [128]))
    return {
        "version": 1,
        "seconds": 60.0,
        "begun": "2026-11-22T18:00:00+00:00",
        "load_average": 0.1,
        "threads": 2,
        "processes": 1,
        "peak_gflops": 200.0,
        "subjects": [],
        "rows": [row(one, runtime, *setting) for one in SHAPES for runtime in RUNTIMES for setting in settings],
        "config": {"batch": [1]},
        "versions": {"python": "3.11"},
        "machine": MACHINE,
        "command": "subarch bench teacher student",
    }


def page(found: dict[str, Any]) -> str:
    return render(Raw(name="bench", command=found["command"], bench=found))


def record(found: dict[str, Any] | None = None, **changes: Any) -> Bench:
    return Bench.model_validate((found or example()) | changes)


def test_a_plot_for_each_batch_size_and_length() -> None:
    plots = bench.plots(record(example()))
    assert list(plots) == ["plot-bench-0", "plot-bench-1"]
    for figure, factor in zip(plots.values(), (1, 4), strict=True):
        assert [trace["name"] for trace in figure["data"]] == list(RUNTIMES)
        for trace, speed in zip(figure["data"], RUNTIMES.values(), strict=True):
            assert trace["y"] == ["teacher", "student"]
            assert trace["x"] == pytest.approx([10 * speed * factor, speed * factor])
            assert trace["error_x"]["array"] == pytest.approx([2 * speed * factor, 0.2 * speed * factor])
            assert trace["error_x"]["arrayminus"] == pytest.approx([speed * factor, 0.1 * speed * factor])
        assert len({trace["marker"]["color"] for trace in figure["data"]}) == 3
    assert bench.plots(None) == {}


def test_an_axis_over_orders_of_magnitude_is_logarithmic() -> None:
    figure = bench.plots(record(example()))["plot-bench-0"]
    assert figure["layout"]["xaxis"]["type"] == "log"  # 0.225 to 12 ms
    found = example()
    found["rows"] = [one for one in found["rows"] if one["subject"] == "student"]
    assert "type" not in bench.plots(record(found))["plot-bench-0"]["layout"]["xaxis"]


def test_the_headline_names_the_fastest() -> None:
    told = bench.headline(record(example())).replace("\N{NO-BREAK SPACE}", " ")
    assert told == "At batch 1 and 32 tokens the fastest is student in onnx-int8: 0.25 ms a forward pass."


def test_the_table_has_every_figure() -> None:
    table = bench.table(record(example()))
    assert len(table.rows) == 12
    texts = [cell.text.replace("\N{NO-BREAK SPACE}", " ") for cell in table.rows[0].cells]
    assert texts[:7] == ["teacher", "6-12-384-1536", "torch", "1", "32", "10.00", "15.00"]
    assert texts[7:] == ["100", "25 %", "200.0", "0.31", "90.4"]
    assert table.sortable
    assert len(table.columns) == len(texts)


def test_of_a_corpus_the_lengths_are_told() -> None:
    found = example((8, [4, 8, 84]))
    table = bench.table(record(found))
    assert (table.rows[0].cells[4].text, table.rows[0].cells[4].exact) == ("32", "4 to 84 tokens")
    assert dict(bench.words(record(found)))["Tokens"].startswith("4, 8, 84: ")
    assert "At batch 8 and 4 to 84 tokens" in bench.headline(record(found))


def test_what_is_unknown_is_a_dash() -> None:
    found = example()
    for one in found["rows"]:
        one["peak_bytes"] = None
    assert bench.table(record(found)).rows[0].cells[9].text == "–"
    assert bench.warnings(record(found | {"load_average": None})) == []


def test_a_busy_machine_is_told() -> None:
    assert bench.warnings(record(example())) == []
    (told,) = bench.warnings(record(example() | {"load_average": 1.4}))
    assert "load average 1.4 on 2 usable cores" in told
    assert "load average 1.4" in page(example() | {"load_average": 1.4})


def test_several_processes_are_told() -> None:
    assert dict(bench.words(record(example())))["Served by"] == "2 threads"
    assert dict(bench.words(record(example() | {"processes": 4, "threads": 1})))["Served by"].startswith("4 processes")


def test_the_page() -> None:
    found = example()
    before = copy.deepcopy(found)
    html = page(found)
    assert page(found) == html
    assert found == before
    for text in ("Batch 1, 32 tokens", "Batch 1, 128 tokens", 'id="plot-bench-1"', "All figures", "Sentences/s"):
        assert text in html
    assert "subarch bench teacher student" in html
    assert "Cost against error" not in html


def test_names_from_outside_are_text() -> None:
    found = example()
    for one in found["rows"]:
        one["subject"] = one["runtime"] = "<img src=x onerror=alert(1)>"
    assert "<img" not in page(found)
