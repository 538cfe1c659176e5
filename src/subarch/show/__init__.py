"""The report of a run: one self-contained page, `report.html`, that opens years later without a network.

`render` is pure: what it shows is in `RunData`, or for a search in `SearchData`, and the same data gives the same
bytes. Plotly and Jinja are imported when a page is rendered, never before.

    from subarch.show import SearchData, render

    Path("report.html").write_text(render(run), encoding="utf-8")

Split by concern: `page` puts the page together, `tables`, `figures`, `bench`, `pretraining`, `finetuning` and `growth`
build its parts as plain data, `formats` writes every number; markup, style and behaviour lie beside them as
`report.html.jinja`, `report.css`, `report.js`.
"""

from __future__ import annotations

from subarch.show.data import RunData, SearchData
from subarch.show.page import render

__all__ = ["RunData", "SearchData", "render"]
