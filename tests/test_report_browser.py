"""The report in a real browser, Debian's Chromium: it renders without a complaint, answers a hover, sorts, is inert."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import report_fixture
import test_report_finetuning as finetuned
from report_fixture import Raw, render
from subarch.show import formats

pytestmark = pytest.mark.slow

EXAMPLE = report_fixture.example()
WINNER = EXAMPLE.selection["winner"]
TRAINED: Any = EXAMPLE.pretraining
ITEMS = finetuned.ITEMS
CHROMIUM = shutil.which("chromium")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-sync"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip("no `chromium` on the PATH: install Debian's package to run")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@contextmanager
def opened(browser: Any, folder: Path, run: Raw, **context: Any) -> Iterator[Any]:
    """The report of a run in a fresh page; leaving asserts that nothing was complained of or asked for."""
    file = folder / "report.html"
    file.write_text(render(run), encoding="utf-8")
    session = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **context})
    session.set_default_timeout(60_000)  # milliseconds; only a busy machine needs them
    page = session.new_page()
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
    page.on("dialog", lambda dialog: (trouble.append(f"dialog: {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: None if local(request.url) else trouble.append(f"request: {request.url}"))
    page.goto(file.as_uri())
    for plot in page.locator(".plot").all():
        plot.locator(".legend").wait_for()
    yield page
    session.close()
    assert trouble == []


def local(url: str) -> bool:
    return url.startswith(("file:", "data:", "blob:"))


@pytest.fixture(scope="module")
def example(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The page of the example, for tests that leave it as it was."""
    with opened(browser, tmp_path_factory.mktemp("example"), EXAMPLE) as page:
        yield page


def hover(page: Any, selector: str) -> str:
    marker = page.locator(selector)
    marker.scroll_into_view_if_needed()
    box = marker.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    label = page.locator(f"{selector.split()[0]} .hoverlayer .hovertext")
    label.wait_for()
    return str(label.text_content()).replace(formats.SPACE, " ")


def test_hovering_the_winner_shows_its_figures(example: Any) -> None:
    text = hover(example, "#plot-frontier .scatterlayer .trace:last-child .points path")
    assert formats.shape(WINNER["architecture"]) in text
    assert f"error {WINNER['error']:.4f}" in text
    assert f"{WINNER['latency_ms']:.2f} ms (99 %" in text
    assert "learning rate 0.0003" in text


def test_hovering_a_loss_shows_step_time_and_value(example: Any) -> None:
    last = TRAINED["heldout"][-1]
    text = hover(example, "#plot-pretraining .scatterlayer .trace:last-child .points path:last-child")
    assert text == f"Held-out, weighted sumstep 400, after 4 min 02 sloss {last['loss']:.4f}"
    written = example.locator("#plot-pretraining .shapelayer .shape-label text").text_content()
    assert written == f"embedding after the search {report_fixture.CONSTANT * WINNER['error']:.4f}"


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_of_a_pretraining_alone(browser: Any, tmp_path: Path, width: int) -> None:
    run = report_fixture.pretrained()
    size = {"width": width, "height": 844}
    with opened(browser, tmp_path, run, viewport=size, permissions=["clipboard-read", "clipboard-write"]) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.locator(".plot").count() == 1
        legend = page.locator("#plot-pretraining .legendtext").all_text_contents()
        assert legend == ["Training", "Held-out embedding", "Held-out relations", "Held-out, weighted sum"]
        height = page.evaluate("document.getElementById('plot-pretraining')._fullLayout._size.h")
        assert height > 150  # pixels that the legend above leaves to the lines
        page.locator("#copy").click()
        expect()(page.locator("#copied")).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == run.command


def test_clicking_a_header_sorts_both_ways(browser: Any, tmp_path: Path) -> None:
    run = copy.deepcopy(EXAMPLE)
    rows = run.selection["candidates"]
    rows[3].update(latency_ms=None, latency_interval_ms=None)  # what is missing comes last, whichever way
    columns = {
        "Parameters": {row["architecture"]: row["parameters"] for row in rows},
        "Latency (ms)": {row["architecture"]: row["latency_ms"] for row in rows},
        "⟨D, A, H, I⟩": {row["architecture"]: [int(part) for part in row["architecture"].split("-")] for row in rows},
    }
    with opened(browser, tmp_path, run) as page:
        for column, values in columns.items():
            known = [value for value in values.values() if value is not None]
            header = page.locator("table.sortable thead th", has=page.get_by_role("button", name=column, exact=True))
            assert header.get_attribute("aria-sort") == "none"
            for descending, state in ((False, "ascending"), (True, "descending"), (False, "ascending")):
                header.get_by_role("button").click()
                names = page.locator("table.sortable tbody th").all_inner_texts()
                expected = sorted(known, reverse=descending) + [None] * (len(values) - len(known))
                assert [values[name] for name in names] == expected
                assert header.get_attribute("aria-sort") == state
                assert page.locator("table.sortable thead th:not([aria-sort=none])").count() == 1


def test_hostile_strings_are_inert_and_shown_literally(browser: Any, tmp_path: Path) -> None:
    run = report_fixture.hostile()
    with opened(browser, tmp_path, run) as page:
        text = hover(page, "#plot-frontier .scatterlayer .trace:last-child .points path")
        assert run.selection["winner"]["architecture"] in text
        legend = page.locator("#plot-curves .legendtext").all_text_contents()
        assert set(legend) == {row["architecture"] for row in run.selection["candidates"]}
        shown = page.locator("body").inner_text()
        assert [string for string in report_fixture.HOSTILE if string not in shown] == []
        assert page.locator("img, a[href^=javascript]").count() == 0
        assert page.locator("script").count() == 3


def test_hostile_strings_in_a_pretraining_are_inert_and_shown_literally(browser: Any, tmp_path: Path) -> None:
    run = report_fixture.hostile()
    with opened(browser, tmp_path, report_fixture.pretrained(run)) as page:
        legend = page.locator("#plot-pretraining .legendtext").all_text_contents()
        assert set(legend) == {
            "Training",
            "Held-out, weighted sum",
            *(f"Held-out {n}" for n in run.pretraining["losses"]),
        }
        shown = page.locator("body").inner_text()
        assert [string for string in report_fixture.HOSTILE if string not in shown] == []
        assert page.locator("img, a[href^=javascript]").count() == 0


def test_infeasible_report_renders(browser: Any, tmp_path: Path) -> None:
    run = report_fixture.infeasible()
    with opened(browser, tmp_path, run) as page:
        assert page.locator("h1").inner_text().startswith("No candidate meets the limits")
        assert "Nearest" in page.locator("#plot-frontier .legend").text_content()


def test_a_plot_can_be_saved_and_offers_no_upload(example: Any) -> None:
    example.locator("#plot-frontier").hover()
    buttons = example.locator("#plot-frontier .modebar-btn")
    titles = [button.get_attribute("data-title") for button in buttons.all()]
    assert titles == ["Download plot as a PNG", "Zoom", "Pan", "Zoom in", "Zoom out", "Reset axes"]
    with example.expect_download() as download:
        buttons.first.click()
    assert Path(download.value.path()).read_bytes().startswith(b"\x89PNG")


def test_legend_hides_every_trial_of_a_candidate(example: Any) -> None:
    lines = example.locator("#plot-curves .scatterlayer .trace")
    before = lines.count()
    entry = example.locator("#plot-curves .legendtoggle").first
    entry.click()
    expect()(lines).to_have_count(before - len(report_fixture.THETA))
    entry.click()
    expect()(lines).to_have_count(before)


def test_narrow_dark_and_copying(browser: Any, tmp_path: Path) -> None:
    allowed = ["clipboard-read", "clipboard-write"]
    narrow = {"width": 390, "height": 844}
    with opened(browser, tmp_path, EXAMPLE, viewport=narrow, color_scheme="light", permissions=allowed) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == 390
        title = page.locator("#plot-w .xtitle")
        expect()(title).to_have_css("fill", "rgb(85, 96, 109)")
        page.emulate_media(color_scheme="dark")
        expect()(title).to_have_css("fill", "rgb(163, 173, 185)")
        page.locator("#copy").click()
        expect()(page.locator("#copied")).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == EXAMPLE.command


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_of_finetuned_models(browser: Any, tmp_path: Path, width: int) -> None:
    with opened(browser, tmp_path, finetuned.page_of(ITEMS), viewport={"width": width, "height": 844}) as page:
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.locator(".plot").count() == 2
        names = page.locator("#plot-scores .legendtext").all_text_contents()
        assert names == ["Score", "Compared with", "Most frequent label"]
        metric = ITEMS[0]["evaluations"][0]["scores"]["metrics"]["accuracy"]
        text = hover(page, "#plot-scores .scatterlayer .trace:first-child .points path:first-child")
        assert f"accuracy {metric['value']:.3f} ({metric['low']:.3f} to {metric['high']:.3f})" in text
        expect()(page.locator("#plot-agora-0 .barlayer .point")).to_have_count(2)


def test_hostile_strings_in_finetuned_models_are_inert_and_shown_literally(browser: Any, tmp_path: Path) -> None:
    hostile = report_fixture.HOSTILE
    items: Any = json.loads(json.dumps(finetuned.example((hostile[0], hostile[1]))))
    items[0]["name"], found = hostile[2], items[0]["evaluations"][0]
    found |= {"part": hostile[3], "warnings": [hostile[4]]}
    found["confusion"]["labels"] = [hostile[5], hostile[0]]
    items[0]["agora"] |= {"stopped": hostile[4], "metric": hostile[1]}
    with opened(browser, tmp_path, finetuned.page_of(items)) as page:
        shown = page.locator("body").inner_text()
        assert [string for string in hostile if string not in shown] == []
        assert page.locator("img, a[href^=javascript]").count() == 0
        assert page.locator("script").count() == 3


def expect() -> Any:
    """Playwright's retrying assertions; imported late, so that the module can be collected without Playwright."""
    from playwright.sync_api import expect

    return expect
