"""The plots of the documents show the shipped numbers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from benchmarks import plots

REPOSITORY = Path(__file__).parents[1]


def test_the_shipped_plots_are_those_of_the_shipped_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plots, "IMAGES", tmp_path)
    plots.main()
    shipped = sorted((REPOSITORY / "docs" / "images").glob("*.svg"))
    assert [path.name for path in shipped] == sorted(path.name for path in tmp_path.iterdir())
    for path in shipped:
        assert path.read_text(encoding="utf-8") == (tmp_path / path.name).read_text(encoding="utf-8"), path.name


def test_the_picture_of_quality_has_every_shape_where_it_was_measured() -> None:
    figure = plots.quality()
    found = json.loads((REPOSITORY / "benchmarks" / "results" / "quality.json").read_text(encoding="utf-8"))
    drawn = {(line.get_xdata()[0], line.get_ydata()[0]) for line in figure.axes[0].lines}
    best, whole = found["runs"]["best"], found["teacher"]["sts_dev"]
    assert (found["latency"]["best"]["median_ms"], best["sts_dev"] / whole) in drawn
    assert (found["latency"]["teacher"]["median_ms"], 1.0) in drawn


def test_every_peer_is_a_point_and_none_lies_above_the_frontier() -> None:
    figure = plots.peers()
    found = json.loads((REPOSITORY / "benchmarks" / "results" / "peers.json").read_text(encoding="utf-8"))
    for axes, part in zip(figure.axes, ("sts_dev", "cranfield"), strict=True):
        frontier, *points = [list(zip(*line.get_data(), strict=True)) for line in axes.lines]
        drawn = [point for (point,) in points]
        assert drawn == [
            (found["latency"][name]["one, 1"]["median_ms"], row[part]["kept"]) for name, row in found["rows"].items()
        ]
        assert set(frontier) <= set(drawn)
        for x, y in drawn:
            assert y <= max(best for ms, best in frontier if ms <= x)
