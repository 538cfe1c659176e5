"""The page about fine-tuned models: what it says. `test_report_browser` shows it in a browser."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import report_fixture
from report_fixture import Raw, render
from subarch.evaluation.evaluate import assess
from subarch.finetuning.agora import Training, _grown, _iteration
from subarch.finetuning.neighbours import Point
from subarch.run.records import AgoraPruned, Confusion
from subarch.show import finetuning, tables
from subarch.show.finetuning import FineTuned
from subarch.show.tables import LONGEST
from subarch.tasks import TASKS, Examples
from subarch.tasks.examples import Example
from test_report import Page, plots

LONG = "a long passage " * 40


def part_of(task: str, part: str, labels: Any, texts: tuple[str, ...] = ("first", "second")) -> Examples:
    rows = tuple(Example(f"r{n}", f"g{n // 2}", texts, label=label) for n, label in enumerate(labels))
    return Examples(TASKS[task], part, "here", rows)


def example(texts: tuple[str, ...] = ("The cat sat.", LONG)) -> list[dict[str, Any]]:
    """Two seeds of RTE beside another model, its unlabelled test part, Agora's record; and STS-B alone."""
    source = np.random.default_rng(0)
    rte = part_of("rte", "validation", source.integers(0, 2, 60).tolist(), texts)
    right = np.eye(2)[np.asarray(rte.labels)]
    ours, theirs = ([right * 2 + source.normal(size=(60, 2)) * noise for _ in range(2)] for noise in (1.0, 2.0))
    stsb = part_of("stsb", "heldout", (source.random(30) * 5).tolist(), texts)
    near = np.asarray(stsb.labels)[:, None] + source.normal(size=(30, 1))
    test = assess(part_of("rte", "test", [None] * 9, texts), [ours[0][:9]]).to_dict()
    return [
        {"name": "rte", "evaluations": [assess(rte, ours, theirs).to_dict(), test], "agora": agora(rte)},
        {"name": "runs", "evaluations": [assess(stsb, [near]).to_dict()], "agora": None},
    ]


def agora(dev: Examples) -> dict[str, Any]:
    """A record as Agora writes it: two iterations, four points of the first."""

    def training(theta: int, score: float | None, failure: str = "") -> Training:
        scores = None if score is None else {"accuracy": score}
        facts = {"epoch": 1, "steps": 1, "examples_seen": 1, "seconds": 1.0, "predictions": None, "history": ()}
        return Training(theta=theta, model=f"m{theta}", score=score, scores=scores, failure=failure, **facts)

    first, last, lost = training(0, 0.625), training(1, 0.75), training(2, None, "the loss became NaN")
    wrong = dev[:4]
    points = [
        Point(Example(f"new{n}", "g", (f"The dog sat {n}.", *origin.texts[1:]), label=n % 2), origin.id, "edited", 0.75)
        for n, origin in enumerate(wrong)
    ]
    more = replace(dev, rows=(*dev.rows, *(point.example for point in points)))
    more_facts = {"dropped": {"copy": 3, "known": 1}, "seconds": 1.0}
    more_facts["pruned"] = (AgoraPruned(theta=2, reason="is like the worst"),)
    iterations = [
        _iteration(1, dev, [first, lost], first, wrong).model_copy(update=_grown(points, wrong) | more_facts),
        _iteration(2, more, [last], last, dev[:0]),
    ]
    theta = {"learning_rate": 1e-4, "weight_decay": 0.0, "warm_up": 0.1, "batch_size": 8, "epochs": 2, "dropout": 0.1}
    cost = {"trainings": 3, "points": 4, "examples_seen": 100}
    return {
        "task": "rte",
        "pruning": "common",
        "thetas": [theta | {"seed": seed} for seed in range(3)],
        "train": {"rows": 60, "hash": "a"},
        "dev": {"rows": 60, "hash": "b"},
        "about": {},
        "objection": None,
        "best": {"model": "m1", "theta": 1, "score": 0.75},
        "cost": cost | {"training_seconds": 3.0, "points_seconds": 1.0, "labels_seconds": 1.0},
        "metric": "accuracy",
        "warning": "ℰ shaped the data",
        "stopped": "one set was left",
        "iterations": [iteration.to_dict() for iteration in iterations],
    }


def page_of(items: list[dict[str, Any]]) -> Raw:
    return Raw(name="rte", command="subarch evaluate runs/rte --task rte", finetuning=items)


def models(items: list[dict[str, Any]]) -> list[FineTuned]:
    return page_of(items).run().finetuning


ITEMS = example()
MODELS = models(ITEMS)


@pytest.fixture(scope="module")
def page() -> Page:
    return Page(render(page_of(json.loads(json.dumps(ITEMS)))))


def cells(table: tables.Table) -> list[list[str]]:
    return [[cell.text for cell in row.cells] for row in table.rows]


def matrix(labels: list[str], counts: list[list[int]]) -> Confusion:
    return Confusion.model_validate({"labels": labels, "counts": counts})


def mistakes(item: int) -> tables.Table:
    found = MODELS[item].evaluations[0]
    assert found.mistakes is not None
    return finetuning.mistakes(found.head, found.mistakes.shown)


def test_headline_and_every_part(page: Page) -> None:
    metric = ITEMS[0]["evaluations"][0]["scores"]["metrics"]["accuracy"]
    low, high = (f"{metric[name]:.3f}" for name in ("low", "high"))
    assert f"rte, validation: accuracy {metric['value']:.3f}, 95 % interval {low} to {high}." in page.text
    parts = [
        "rte, test",
        "There are no labels; predictions lie beside report.json.",
        "runs: stsb, heldout",
        "What is shown are those of the first seed.",
        "Agora: rte",
        "2 iterations made 4 points near mistakes on the development set ℰ; the training data grew from 60 to 64 "
        "examples. It ended because one set was left. ℰ shaped the data.",
        "3 copy, 1 known",
        "The dog sat 3.",
        "subarch evaluate runs/rte --task rte",
    ]
    assert [part for part in parts if part not in page.text] == []
    assert "Configuration" not in page.text
    ids = {item["id"] for item in page.all("div") if item.get("class") == "plot"}
    assert ids == set(plots(page)) == {"plot-scores", "plot-agora-0"}


def test_the_table_of_scores() -> None:
    shown = finetuning.view(MODELS)
    rows = cells(shown["scores"])
    first = ITEMS[0]["evaluations"][0]["scores"]["metrics"]["accuracy"]
    majority = ITEMS[0]["evaluations"][0]["statistics"]["majority_share"]
    low_high = f"{first['low']:.3f} to {first['high']:.3f}"
    assert rows[0] == [
        "rte, validation", "accuracy", f"{first['value']:.3f}", low_high, "95\N{NO-BREAK SPACE}%", "2",
        f"{first['deviation']:.3f}", "60", "30", f"{majority:.3f}",
    ]  # fmt: skip
    assert rows[1][:3] == ["rte, test", "no labels: predicted, not scored", ""]
    assert rows[1][7:] == ["9", "5", ""]
    assert [row[1] for row in rows[2:]] == ["pearson", "spearman"]
    assert all(len(row) == len(shown["scores"].columns) for row in rows)
    compared = ITEMS[0]["evaluations"][0]["comparison"]["metrics"]["accuracy"]
    (row,) = cells(shown["comparison"])
    assert row[4] == f"{compared['difference']:+.3f}"
    assert row[6:] == [f"{compared['p_examples']:.3f}", f"{compared['p_seeds']:.3f}"]


def test_the_figure_of_scores_has_intervals_a_rival_and_the_majority() -> None:
    score, rival, majority = finetuning.scores(MODELS)["data"]
    metric = ITEMS[0]["evaluations"][0]["scores"]["metrics"]["accuracy"]
    assert score["x"] == [metric["value"], ITEMS[1]["evaluations"][0]["scores"]["metrics"]["pearson"]["value"]]
    assert score["x"][0] - score["error_x"]["arrayminus"][0] == pytest.approx(metric["low"])
    assert score["x"][0] + score["error_x"]["array"][0] == pytest.approx(metric["high"])
    assert (len(rival["x"]), len(majority["x"])) == (1, 1)
    assert (rival["y"], majority["y"]) == ([0], [0])


def test_confusion_as_a_matrix_and_of_many_classes_as_a_list() -> None:
    table = finetuning.confusion(matrix(["yes", "no"], [[3, 1], [0, 0]]))
    assert cells(table) == [["yes", "3", "1", "75\N{NO-BREAK SPACE}%"], ["no", "0", "0", "–"]]
    counts = np.eye(20, dtype=int) * 9
    counts[3, 4], counts[5, 2], counts[5, 6] = 2, 7, 2
    table = finetuning.confusion(matrix([f"c{n}" for n in range(20)], counts.tolist()))
    assert cells(table) == [["c5", "c2", "7"], ["c3", "c4", "2"], ["c5", "c6", "2"]]


def test_mistakes_show_long_texts_cut_and_confidence_where_there_is_one() -> None:
    found = ITEMS[0]["evaluations"][0]
    table = mistakes(0)
    mistake, row = found["mistakes"]["shown"][0], table.rows[0]
    assert [column.title for column in table.columns][1:3] == ["Text 1", "Text 2"]
    assert [cell.text for cell in row.cells] == [
        mistake["id"], "The cat sat.", LONG[:LONGEST] + "…", mistake["label"], mistake["prediction"],
        f"{100 * mistake['confidence']:.3g}\N{NO-BREAK SPACE}%",
    ]  # fmt: skip
    assert row.cells[2].exact == LONG
    assert "Confidence" not in [column.title for column in mistakes(1).columns]


def test_agora_iterations_and_points_beside_their_origins() -> None:
    grown = MODELS[0].agora
    assert grown is not None
    shown = finetuning.agora_view(0, "rte", grown, ["entailment", "not_entailment"])
    assert cells(shown["iterations"]) == [
        ["1", "60", "2", "0.625", "4", "4", "3 copy, 1 known", "1"],
        ["2", "64", "1", "0.750", "0", "0", "–", "0"],
    ]
    points = {row[2]: row for row in cells(shown["points"])}
    # the second text is the same, and left out
    assert points["The dog sat 1."][:2] == ["1", "The cat sat."]
    assert points["The dog sat 1."][4:] == ["not_entailment", "edited", "0.750"]
    bars, line = finetuning.agora_figure(grown)["data"]
    assert (bars["y"], line["y"]) == ([60, 64], [0.625, 0.75])


def test_all_unlabelled_is_said_and_nothing_is_plotted() -> None:
    page = Page(render(page_of([{"name": "rte", "evaluations": ITEMS[0]["evaluations"][1:], "agora": None}])))
    assert "rte, test: predicted, not scored, for there are no labels." in page.text
    assert "Nothing to plot" not in page.text
    assert [item for item in page.all("div") if item.get("class") == "plot"] == []


def test_beside_a_search_the_search_keeps_the_headline() -> None:
    run = report_fixture.example()
    page = Page(render(replace(run, finetuning=ITEMS)))
    assert "was selected:" in page.text
    assert "Agora: rte" in page.text
