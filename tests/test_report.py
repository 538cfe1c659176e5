"""The report: what it says, that data stays data, and that it is deterministic."""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

import report_fixture
from report_fixture import render
from subarch.run.records import Pretraining
from subarch.show import formats, pretraining, search, tables
from subarch.show.axes import label

EXAMPLE = report_fixture.example()
WINNER = EXAMPLE.selection["winner"]
TRAINED: Any = EXAMPLE.pretraining
SEARCH = EXAMPLE.search()


class Page(HTMLParser):
    """The elements of a page, the text outside scripts and styles, and the contents of its scripts."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.scripts: list[str] = []
        self.inside = ""
        self.feed(html)
        self.close()
        self.text = re.sub(r"\s+", " ", " ".join(self.words)).replace(formats.SPACE, " ")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.inside = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts[-1] += data
        elif self.inside != "style":
            self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def html() -> str:
    return render(EXAMPLE)


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_importing_the_report_imports_neither_plotly_nor_jinja() -> None:
    code = "import sys, subarch.show; print([m for m in ('plotly', 'jinja2', 'yaml', 'torch') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_same_data_gives_the_same_bytes_and_is_left_unchanged(html: str) -> None:
    run = copy.deepcopy(EXAMPLE)
    assert render(run) == html
    assert repr(run) == repr(EXAMPLE)


def test_headline_states_winner_latency_speed_up_and_error(page: Page) -> None:
    gain = 12.3 / WINNER["latency_ms"]
    expected = (
        f"{WINNER['architecture']} was selected: {WINNER['latency_ms']:.2f} ms a forward pass, {gain:.1f}× as fast as "
        f"the teacher, with an error of {WINNER['error']:.4f}."
    )
    assert expected in page.text
    assert "Asked for: least error, with latency at most 4.10 ms." in page.text


def test_every_part_is_there(page: Page) -> None:
    selection = EXAMPLE.selection
    parts = [
        EXAMPLE.command,
        selection["gap_sentence"],
        selection["abnc"]["verdict"],
        *selection["warnings"],
        *(item["sentence"] for item in selection["abnc"]["conditions"]),
        *(entry["what"] for entry in selection["ledger"]),
        *(row["architecture"] for row in selection["candidates"]),
        *(row["reason"] for row in selection["candidates"] if row["reason"]),
        *(trial["reason"] for trial in EXAMPLE.trials if trial["reason"]),
        "machine.processor",
        "x86-64, AVX-512",
        "strategy: fptas",
        "8 min 22 s",
        "Kendall τ between the errors after 100 and after 1,000 steps: 0.91 (95 % interval 0.84 to 0.96",
    ]
    assert [part for part in parts if part not in page.text] == []
    assert {item["id"] for item in page.all("div") if item.get("class") == "plot"} == set(plots(page))


def test_without_pretraining_comparison_failures_gap_teacher_or_agreement_the_page_still_stands() -> None:
    run = copy.deepcopy(EXAMPLE)
    run.selection.update(gap=None, teacher=None, gap_sentence="No gap is known.")
    run.selection["abnc"]["rank_agreement"] = None
    trials = [trial for trial in run.trials if trial["state"] == "complete"]
    page = Page(render(replace(run, comparison=None, pretraining=None, trials=trials)))
    assert "Comparison" not in page.text
    assert "retraining" not in page.text
    assert "Failed trials" not in page.text
    assert "the teacher," not in page.text
    assert "was not measured in this run" in page.text


def test_operations_as_the_cost() -> None:
    run = copy.deepcopy(EXAMPLE)
    run.selection["cost_kind"] = "operations"
    run.selection["objective"]["max_latency_ms"] = None
    for row in (run.selection["winner"], *run.selection["candidates"]):
        row.update(latency_ms=None, latency_interval_ms=None)
    page = Page(render(run))
    assert "multiply-adds a forward pass, 6.3× less work than the teacher" in page.text
    assert plots(page)["plot-frontier"]["data"][-1]["x"] == [WINNER["operations"]]


def test_infeasible_names_the_nearest_point_and_limits_that_admit_it() -> None:
    run = report_fixture.infeasible()
    nearest = run.selection["nearest"]["row"]
    nearest["latency_ms"] = run.selection["nearest"]["limits"]["max_latency_ms"] = 0.0613
    page = Page(render(run))
    assert f"No candidate meets the limits. Nearest: {nearest['architecture']}, 0.061 ms" in page.text
    assert "latency at most 0.07 ms" in page.text  # rounded up: 0.06 would not admit it
    assert "was selected" not in page.text


def test_infeasible_before_anything_was_trained() -> None:
    run = report_fixture.infeasible()
    run.selection["nearest"]["row"] |= {"error": None, "latency_interval_ms": None, "w": None, "hyperparameters": {}}
    run.selection.update(candidates=[], frontier=[])
    order = [row | {"trained": False, "error": None, "w": None} for row in run.order]
    page = Page(render(replace(run, trials=[], order=order)))
    assert "not trained." in page.text
    assert page.text.count("Nothing to plot") == 2


def test_the_pretraining_is_told_before_the_comparison(page: Page) -> None:
    name, start, end = WINNER["architecture"], TRAINED["heldout"][0], TRAINED["heldout"][-1]
    parts = [
        f"{name}, learnt from all-MiniLM-L6-v2 (6-12-384-1536) by 1 embedding + 0.5 relations.",
        f"embedding 1 {start['embedding']:.4f} {end['embedding']:.4f}",
        f"weighted sum {start['loss']:.4f} {end['loss']:.4f}",
        "Steps 400 Time 4 min 02 s 4.0 minutes Tokens 801 k 3,311 a second Padding 2.1 %",
        "Latency 3.10 ms IQR 3.00–3.30 ms; teacher 12.40 ms, 4.0× as long Parameters",
        "Weights came from the search's own training of it",
        "Teacher's targets the teacher at every step takes 1.4 min: at every step",
        "Latency of batch 1, 32 tokens, torch, 2 threads",
        "Comparison The student beside its teacher",
        "Configuration of the pretraining, with every default resolved",
    ]
    assert [part for part in parts if part not in page.text] == []
    places = [page.text.index(part) for part in (*parts[:9], "Frontier Candidates")]
    assert places == sorted(places)


def test_a_pretraining_without_a_search_has_a_page_of_its_own() -> None:
    alone = Page(render(report_fixture.pretrained()))
    start, end = (point["loss"] for point in (TRAINED["heldout"][0], TRAINED["heldout"][-1]))
    title = f"{WINNER['architecture']} was pretrained: 400 steps took its held-out loss from {start:.4f} to {end:.4f}."
    assert title in alone.text
    assert set(plots(alone)) == {"plot-pretraining"}
    assert [text for text in ("Frontier", "candidate", "Asked for", "Comparison") if text in alone.text] == []
    assert "subarch pretrain runs/again" in alone.text
    assert "minutes: 4.0" in alone.text
    compared = Page(render(replace(report_fixture.pretrained(), comparison=EXAMPLE.comparison)))
    assert "Comparison Compared model" in compared.text


def test_a_pretraining_without_a_teacher() -> None:
    found = copy.deepcopy(TRAINED)
    found |= {"losses": {"mlm": 1.0}, "teacher": None, "teacher_architecture": None, "steps": 2}
    losses = enumerate((9.0, 8.5, 8.0))
    found["heldout"] = [{"step": step, "seconds": 1.0, "mlm": loss, "loss": loss} for step, loss in losses]
    del found["latency"]["teacher"]
    page = Page(render(replace(report_fixture.pretrained(), pretraining=found)))
    assert "2 steps took its held-out loss from 9.0000 to 8.0000." in page.text
    assert "mlm 1 9.0000 8.0000 weighted sum 9.0000 8.0000" in page.text
    assert "learnt without a teacher by 1 mlm." in page.text
    assert "Steps 2 Time" in page.text
    assert "IQR 3.00–3.30 ms Parameters" in page.text
    names = [trace["name"] for trace in plots(page)["plot-pretraining"]["data"]]
    assert names == ["Training", "Held-out mlm"]  # the weighted sum would be the same line again


def test_every_loss_is_drawn_as_recorded_and_hovered_with_step_and_time() -> None:
    figure = losses(TRAINED)
    traces = {trace["name"]: trace for trace in figure["data"]}
    keys = {"Held-out embedding": "embedding", "Held-out relations": "relations", "Held-out, weighted sum": "loss"}
    assert set(traces) == {"Training", *keys}
    for name, key in keys.items():
        points = [(point["step"], point[key]) for point in TRAINED["heldout"]]
        assert list(zip(traces[name]["x"], traces[name]["y"], strict=True)) == points
    assert traces["Training"]["x"] == list(range(4, 401, 4))
    assert traces["Training"]["y"] == [point["loss"] for point in TRAINED["curve"]]
    value = TRAINED["heldout"][5]["embedding"]
    hover = traces["Held-out embedding"]["hovertext"][5].replace(formats.SPACE, " ")
    assert hover == f"<b>Held-out embedding</b><br>step 100, after 1 min 02 s<br>loss {value:.4f}"
    assert traces["Training"]["hovertext"][49].endswith("<br>learning rate 0.00025")
    low, high = figure["layout"]["yaxis"]["range"]
    assert all(low < value < high for trace in traces.values() for value in trace["y"])


def test_the_searchs_error_is_a_line_where_it_is_the_same_quantity() -> None:
    def line(run: Any, **changes: Any) -> Any:
        layout = pretraining.losses(
            run.search() if run.selection else None, Pretraining.model_validate(TRAINED | changes)
        )["layout"]
        return [shape["y0"] for shape in layout.get("shapes", [])]

    # The error is a share of what the best constant vector leaves, the loss is the distance itself
    assert line(EXAMPLE) == [pytest.approx(report_fixture.CONSTANT * WINNER["error"])]
    assert line(report_fixture.pretrained()) == []
    for key in pretraining.SAME_SAMPLE:
        assert line(EXAMPLE, config=TRAINED["config"] | {key: "another"}) == []
    assert line(EXAMPLE, architecture="9-1-8-8") == []
    assert line(EXAMPLE, losses={"relations": 0.5}) == []
    masked = [point | {"mlm": 3.0} for point in TRAINED["heldout"]]
    assert line(EXAMPLE, losses={"embedding": 1.0, "mlm": 0.1}, heldout=masked) == []
    other = copy.deepcopy(EXAMPLE)
    for row in other.selection["candidates"]:
        row["error_kind"] = "logits"
    assert line(other) == []


def test_losses_that_span_much_are_logarithmic() -> None:
    small = [point | {"relations": point["relations"] / 1000} for point in TRAINED["heldout"]]
    assert losses(TRAINED | {"heldout": small})["layout"]["yaxis"]["type"] == "log"
    assert "type" not in losses(TRAINED)["layout"]["yaxis"]


def test_scripts_are_the_only_ones_the_policy_allows(page: Page) -> None:
    policy = next(item["content"] for item in page.all("meta") if item.get("http-equiv") == "Content-Security-Policy")
    kinds = [item.get("type") for item in page.all("script")]
    assert kinds == ["application/json", None, None]
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in page.scripts[1:]]
    assert policy is not None
    assert policy.startswith(f"default-src 'none'; script-src 'sha256-{hashes[0]}' 'sha256-{hashes[1]}';")
    assert "http" not in policy
    assert page.scripts[1].count("plotly.js v") == 1


def test_nothing_is_loaded_from_anywhere(page: Page) -> None:
    loading = [(tag, item) for tag, item in page.tags if {"src", "href", "srcset", "action", "data"} & set(item)]
    outside = [(tag, item) for tag, item in loading if not str(item.get("href", "")).startswith("#")]
    assert outside == [("link", {"rel": "icon", "href": "data:,"})]


def test_the_page_opens_with_what_the_user_got_and_every_entry_of_the_contents_leads_somewhere(page: Page) -> None:
    assert page.text.index("What you got") < page.text.index("Down and to the left is better")
    places = {item["id"] for _, item in page.tags if "id" in item}
    links = [str(item["href"])[1:] for item in page.all("a")]
    assert len(links) > 8
    assert set(links) <= places


@pytest.mark.parametrize("page_of", [lambda run: run, report_fixture.pretrained], ids=["search", "pretraining"])
def test_hostile_strings_stay_text(page_of: Any) -> None:
    hostile = Page(render(page_of(report_fixture.hostile())))
    plain = Page(render(page_of(EXAMPLE)))
    assert {tag for tag, _ in hostile.tags} <= {tag for tag, _ in plain.tags}
    assert [name for _, item in hostile.tags for name in item if name.startswith("on")] == []
    assert len(hostile.scripts) == len(plain.scripts)
    for string in report_fixture.HOSTILE:
        assert string in hostile.text
    assert not set("<>&") & set(hostile.scripts[0])


def test_what_is_not_text_is_replaced() -> None:
    Page(render(report_fixture.hostile())).text.encode("utf-8")  # the lone surrogate of the command is gone


def test_plotly_labels_hold_no_markup_from_data() -> None:
    data = plots(Page(render(report_fixture.hostile())))
    strings = [text for figure in data.values() for text in strings_of(figure)]
    assert any("&lt;img src=x" in text for text in strings)
    for text in strings:
        assert not re.search(r"<(?!/?b>|br>)", text), text


def test_label_is_undone_by_reading_entities() -> None:
    for string in report_fixture.HOSTILE:
        assert not set("<>") & set(label(string))
        assert label(string).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&") == string


def test_the_trade_off_line_lies_on_or_below_every_candidate() -> None:
    line = search.trade_off(SEARCH.selection.candidates, SEARCH.selection)
    steps = list(zip(line["x"], line["y"], strict=True))
    for row in EXAMPLE.selection["candidates"]:
        assert min(y for x, y in steps if x <= row["latency_ms"]) <= row["error"]
    assert steps == sorted(steps)


def test_frontier_shows_each_candidate_once_with_area_proportional_to_parameters() -> None:
    data = search.frontier(SEARCH)["data"]
    traces = [trace for trace in data if "markers" in trace["mode"] and trace["hoverinfo"] == "skip"]
    points = [(x, y) for trace in traces for x, y in zip(trace["x"], trace["y"], strict=True)]
    rows = EXAMPLE.selection["candidates"]
    assert sorted(points) == sorted((row["latency_ms"], row["error"]) for row in rows)
    size = {x: s for trace in traces for x, s in zip(trace["x"], trace["marker"]["size"], strict=True)}
    for row in rows:
        area = size[row["latency_ms"]] ** 2 / size[WINNER["latency_ms"]] ** 2
        assert area == pytest.approx(row["parameters"] / WINNER["parameters"])


def test_w_plot_places_every_candidate_of_the_space_at_its_rank() -> None:
    traces = {trace["name"]: trace for trace in search.scalarisation(SEARCH)["data"]}
    grid = {rank for rank, row in enumerate(EXAMPLE.order, start=1) if row["grid"]}
    assert set(traces["Trained, on the ε-grid"]["x"]) == grid
    assert set(traces["Trained, off the grid"]["x"]) == {8, 20}
    every = {rank for name, trace in traces.items() if name != "Selected" for rank in trace["x"]}
    assert every == set(range(1, len(EXAMPLE.order) + 1))


def test_curves_have_one_legend_entry_a_candidate_and_no_failed_trial() -> None:
    traces = search.curves(SEARCH)["data"]
    assert len(traces) == sum(trial["state"] == "complete" for trial in EXAMPLE.trials)
    entries = [trace["name"] for trace in traces if trace["showlegend"]]
    assert len(entries) == len(set(entries)) == len(EXAMPLE.selection["candidates"])


@pytest.mark.parametrize(("last", "kind"), [(20, None), (1000, "log")])
def test_curves_are_logarithmic_only_where_the_steps_span_much(last: int, kind: str | None) -> None:
    trial = EXAMPLE.trials[0] | {"curve": [[0, 0.9, 0.0], [1, 0.5, 0.1], [last, 0.2, 1.0]]}
    figure = search.curves(replace(EXAMPLE, trials=[trial]).search())
    assert figure["layout"]["xaxis"].get("type") == kind
    assert figure["data"][0]["x"] == ([1, last] if kind else [0, 1, last])  # a logarithm has no place for step 0


def test_figures_are_figures_to_plotly() -> None:
    import plotly.graph_objects as go

    drawn = [search.frontier(SEARCH), search.scalarisation(SEARCH), search.curves(SEARCH), losses(TRAINED)]
    for figure in drawn:
        text = re.sub(r'"--[a-z-]+"', '"#123456"', json.dumps(figure))
        assert len(go.Figure(json.loads(text)).data) == len(figure["data"])  # refuses unknown properties


def test_numbers_are_written_with_sensible_precision() -> None:
    written = [formats.count(n) for n in (0, 999, 1000, 13_427_328, 999_999, 107_000_000, 2_300_000_000)]
    assert [text.replace(formats.SPACE, " ") for text in written] == [
        *("0", "999", "1.00 k", "13.4 M", "1.00 M", "107 M", "2.30 G"),
    ]
    assert [formats.error(e) for e in (0.18932, 6.91, 0.000123456, 0)] == ["0.1893", "6.9100", "0.0001235", "0.0000"]
    assert [formats.milliseconds(t, "") for t in (3.018, 0.0612)] == ["3.02", "0.061"]
    times = [formats.duration(s).replace(formats.SPACE, " ") for s in (4.23, 140.2, 3780)]
    assert times == ["4.2 s", "2 min 20 s", "1 h 03 min"]
    assert formats.by_name("parameters", 22_713_216).replace(formats.SPACE, " ") == "22.7 M"
    assert formats.by_name("ms per query", 11.6) == "11.60"
    assert formats.by_name("items", 11.6) == "11.6"
    for write in (formats.count, formats.error, formats.milliseconds, formats.duration, formats.factor, formats.exact):
        assert {write(None), write(float("nan")), write(float("inf")), write("3"), write(True)} == {formats.DASH}


def test_the_comparison_marks_the_row_of_the_winner_only() -> None:
    assert EXAMPLE.comparison is not None
    table = tables.comparison(EXAMPLE.comparison, WINNER["architecture"], "Compared")
    assert [row.emphasis for row in table.rows] == ["", "winner", "", ""]


def test_columns_of_the_comparison_are_arbitrary_and_keep_their_order() -> None:
    table = tables.comparison([{"b": 1, "a_ms": 2.0}, {"b": None, "parameters": 7_000_000}], None, "Compared")
    assert [column.title for column in table.columns] == ["b", "a ms", "parameters"]
    texts = [[cell.text.replace(formats.SPACE, " ") for cell in row.cells] for row in table.rows]
    assert texts == [["1", "2.00", "–"], ["–", "–", "7.00 M"]]


def losses(found: dict[str, Any], raw: report_fixture.Raw = EXAMPLE) -> dict[str, Any]:
    return pretraining.losses(raw.search() if raw.selection else None, Pretraining.model_validate(found))


def plots(page: Page) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(page.scripts[0])
    return data


def strings_of(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for item in value.values() for text in strings_of(item)]
    if isinstance(value, list):
        return [text for item in value for text in strings_of(item)]
    return [value] if isinstance(value, str) else []
