"""The recorded benchmark of searches: tables, their file, the greedy certificate, and that the comparison runs."""

from __future__ import annotations

import json
import runpy
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from subarch.errors import InvalidStudy
from subarch.extraction.study import Study, sqlite
from subarch.extraction.trial import Point, Settings, Trial
from subarch.numbers.architecture import Architecture, Inputs
from subarch.numbers.objectives import Objective
from subarch.search import Problem

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[1] / "benchmarks" / "search"
AXES = ((1, 2, 3), (64, 128, 192), (128, 256, 384))
IDENTITY = {"error": "embedding", "max_length": 64}


@pytest.mark.parametrize("seed", range(8))
def test_synthetic_errors_never_rise_before_noise(seed: int) -> None:
    from benchmarks.search.tables import synthetic

    table = synthetic(AXES, seed)
    assert len(table) == 27
    assert table.true is not None
    assert (table.error() == table.true).all()
    assert (table.true > 0).all()
    assert (table.true < 1).all()
    sizes = table.shapes[:, [0, 2, 3]]
    larger = (sizes[:, None] >= sizes[None]).all(axis=2)
    assert (table.true[:, None] <= table.true[None] + 1e-12)[larger].all()
    assert len(np.unique(table.true)) >= 3  # a bottleneck leaves few
    assert (np.diff(table.operations) >= 0).all()
    noisy = synthetic(AXES, seed, noise=0.01, seeds=2)
    assert noisy.true is not None
    assert (noisy.true == table.true).all()
    assert 0 < np.abs(noisy.errors[:, -1] / noisy.true - 1).max() < 0.06
    assert (noisy.errors[0] != noisy.errors[1]).any()


def study(run: Path, identity: dict[str, object], trials: list[Trial], latency: dict[str, object]) -> Path:
    run.mkdir()
    inputs = {"vocabulary": 100, "positions": 32, "token_types": 1, "output": 64}
    (run / "basis.json").write_text(json.dumps({"identity": identity, "inputs": inputs, "teacher": None}))
    (run / "environment.json").write_text("{}")
    for name, content in latency.items():
        (run / name).write_text(json.dumps(content))
    stored = Study.open(sqlite(run / "study.db"), "extract", identity)
    for trial in trials:
        stored.record(trial)
    return run


def trial(shape: str, error: float | None, seed: int = 0, steps: int = 4) -> Trial:
    curve = (Point(0, 0.9, 0.0), Point(2, 0.7, 0.5), Point(steps, error, 1.5)) if error else ()
    return Trial(
        Architecture.parse(shape), Settings(steps, 1e-3, 8, seed), error, curve, 2.0, 1, None if error else "x"
    )


def latency(runtime: str, times: dict[str, float]) -> dict[str, object]:
    settings = {"runtime": runtime, "batch": 1, "length": 16, "threads": 2}
    predicted = {"9-2-64-64": {"median_ms": 7.0, "predicted": True}}
    return {"settings": settings, "candidates": {name: {"median_ms": ms} for name, ms in times.items()} | predicted}


def test_a_recorded_study_is_loaded_as_it_was(tmp_path: Path) -> None:
    from benchmarks.search.record import record
    from benchmarks.search.tables import recorded

    names = ["1-2-64-64", "2-2-64-64", "1-4-64-64", "0-0-64-0"]
    times = dict(zip(names, [1.0, 2.0, 1.1, 0.1], strict=True))
    errors = dict(zip(names, [0.5, 0.4, 0.52, 0.6], strict=True))
    first = study(
        tmp_path / "first",
        IDENTITY,
        [*(trial(name, errors[name]) for name in names), trial("2-2-64-128", None)],
        {"latency.json": latency("torch", times)},
    )
    onnx = latency("onnx", {name: ms / 2 for name, ms in times.items()})
    onnx["confirmed"] = {names[1]: {"median_ms": 0.9}}  # was predicted at first, and measured when it was trained
    more = study(tmp_path / "more", IDENTITY, [trial("2-2-64-64", 0.41, seed=1)], {"latency_1.json": onnx})
    out = tmp_path / "table.parquet"
    assert record([first, more], out) == 5
    table = recorded(out, head_size=32)
    assert table.shapes.tolist() == [[0, 0, 64, 0], [1, 2, 64, 64], [2, 2, 64, 64]]
    assert table.rungs == (2, 4)
    assert table.error().tolist() == [0.6, 0.5, 0.4]
    assert table.errors[0, 0].tolist() == [0.7, 0.7, 0.7]
    assert np.isnan(table.error(1)[:2]).all()
    assert table.error(1)[2] == 0.41
    assert table.costs["ms_torch_b1_l16_t2"].tolist() == [0.1, 1.0, 2.0]
    assert table.costs["ms_onnx_b1_l16_t2"].tolist() == [0.05, 0.5, 0.9]
    assert table.seconds.tolist() == [[0.5] * 3, [1.5] * 3]
    inputs = Inputs(100, 32, 1, 64)
    shape = Architecture(2, 2, 64, 64)
    assert (table.parameters[2], table.operations[2]) == (shape.parameters(inputs).total, shape.operations(inputs, 16))
    with pytest.raises(ValueError, match="heads of size 48"):
        recorded(study_free_of_static(first, tmp_path), head_size=48)
    other = study(tmp_path / "other", IDENTITY | {"max_length": 32}, [trial("1-2-64-64", 0.3)], {})
    with pytest.raises(InvalidStudy, match="another max_length"):
        record([first, other], out)


def study_free_of_static(run: Path, folder: Path) -> Path:
    """The same recording without the encoder that has no heads."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq
    from benchmarks.search.record import record

    record([run], folder / "all.parquet")
    rows = pq.read_table(folder / "all.parquet")
    pq.write_table(rows.filter(pc.greater(rows["depth"], 0)), folder / "layered.parquet")
    return folder / "layered.parquet"


def test_the_shipped_recording_loads() -> None:
    from benchmarks.search.tables import recorded

    table = recorded(FOLDER / "minilm.parquet")
    assert len(table) >= 96
    assert len(table.costs) == len(table.errors) == 2
    assert 3 * np.isfinite(table.error(1)).sum() >= len(table)
    assert np.isfinite(table.error()).all()
    assert ((table.shapes[:, 0] == 0) | (table.shapes[:, 2] == 32 * table.shapes[:, 1])).all()
    assert (FOLDER / "minilm.parquet").stat().st_size < 1_000_000


def test_where_w_is_flat_cheap_candidates_come_first() -> None:
    """On the recorded table W is flat: within 1 % of the best in fewer seconds than all that is cheaper, in order."""
    from benchmarks.search.measures import DELTA, ours, questions
    from benchmarks.search.tables import recorded

    from subarch.search import Certified, Exhaustive

    table = recorded(FOLDER / "minilm.parquet")
    name, problem = next(iter(questions(table)))
    assert name == "W"
    _, seconds, near = ours(problem, table, Certified(problem, DELTA))
    assert near
    assert seconds < ours(problem, table, Exhaustive(problem))[1]


def test_contradictions_of_a_table() -> None:
    from benchmarks.studies.recording import contradictions

    # 2-1-8-8 and 1-1-8-8 lie below the last; the one without layers is compared with nobody
    shapes = np.array([[0, 0, 8, 0], [1, 1, 8, 8], [2, 1, 8, 8], [1, 1, 16, 8], [2, 1, 16, 8]])
    found = contradictions(shapes, np.array([0.1, 0.6, 0.3, 0.5, 0.4]))
    assert (found["shapes"], found["pairs"], found["contradict"], found["candidates"]) == (4, 5, 1, 1)
    assert found["largest"] == pytest.approx(0.1)
    assert found["relative"] == pytest.approx(0.25)


def test_what_the_recording_says(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["recording.py", "--results", str(tmp_path / "recording.json")])
    runpy.run_module("benchmarks.studies.recording", run_name="__main__")
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["candidates"] >= 96
    parts = json.loads((tmp_path / "recording.json").read_text())["parts"]
    assert parts == json.loads((FOLDER.parent / "results" / "search_recording.json").read_text())["parts"]
    last = parts["contradict"]["minilm"][str(found["steps"])]
    assert (last["tau"], last["shapes"] + 4) == (1.0, found["candidates"])


def test_seeds_and_runtimes_are_compared() -> None:
    from benchmarks.search.tables import Table
    from benchmarks.studies.recording import between_runtimes, between_seeds

    shapes = np.array([[1, 1, 8, 8], [2, 1, 8, 8], [3, 1, 8, 8], [1, 1, 16, 8]])
    errors = np.array([[[0.4, 0.5, 0.3, 0.2]], [[0.4, 0.42, 0.5, np.nan]]])
    costs = {"one": np.array([1.0, 2.0, 3.0, 4.0]), "other": np.array([4.0, 3.0, 2.0, 1.0])}
    table = Table("t", shapes, shapes[:, 2], shapes[:, 2], costs, (5,), errors, errors[0], errors[0, 0])
    seeds = between_seeds(table)
    # 1 ≤ 2 is contradicted by both, 2 ≤ 3 and 1 ≤ 3 by the second alone; by the mean 1 ≤ 2 and no other
    assert (seeds["candidates"], seeds["pairs"]) == (3, 3)
    assert (seeds["contradict"], seeds["contradict_both"], seeds["contradict_mean"]) == ([1, 3], 1, 1)
    assert seeds["deviation"] == pytest.approx(np.sqrt((0 + 0.08**2 + 0.2**2) / 2 / 3))
    assert seeds["by_third"] == pytest.approx([0, 0.08 / np.sqrt(2), 0.2 / np.sqrt(2)])
    assert (seeds["shift"], seeds["largest"]) == (pytest.approx(-0.04), pytest.approx(np.sqrt(3 / (1 + 0.4**2))))
    asked = between_runtimes(table)["one and other"]
    assert (asked["rank_correlation"], asked["same"]) == (pytest.approx(-1), 0)
    one = {"one": "3-1-8-8", "other": "1-1-16-8", "over_limit": [4 / 3.25, 2 / 3.25]}
    assert asked["questions"]["0.75"] == one


@pytest.mark.parametrize("seed", range(6))
def test_greedy_gives_a_certificate_not_far_from_the_cheapest(seed: int) -> None:
    from benchmarks.search.greedy import covers, greedy_certificate
    from benchmarks.search.tables import synthetic

    table = synthetic(((1, 2), (64, 128), (128, 256, 384)), seed)
    cost = table.costs["ms_synthetic"]
    objective = Objective(
        "error" if seed % 2 else "w",
        parameters_maximum=float(table.parameters.max()),
        cost_maximum=float(cost.max()),
        max_cost=float(np.quantile(cost, 0.7)) if seed % 2 else None,
    )
    problem = Problem(table.parameters, cost, objective, table.shapes, table.operations + 1.0)
    error, effort = table.error(), table.operations + 1.0
    value = objective.value(problem.parameters, cost, error)
    best = int(value.argmin())

    def certifies(rows: tuple[int, ...]) -> bool:
        """By comparison of every row with every trained one, from the definition."""
        for row in np.flatnonzero(problem.affordable):
            above = [one for one in rows if (table.shapes[one, [0, 2, 3]] >= table.shapes[row, [0, 2, 3]]).all()]
            floor = np.array([max([error[one] for one in above], default=-np.inf)])
            bound = objective.bound(problem.parameters[[row]], cost[[row]], floor)[0]
            target = value[best] / 0.99 if value[best] < 0 else value[best] * 0.99
            if row not in rows and bound < target - 1e-12:
                return False
        return best in rows

    chosen = greedy_certificate(problem, error, 0.01)
    assert len(chosen) == len(set(chosen))
    assert certifies(tuple(chosen))
    assert covers(problem, error, 0.01)[chosen][:, problem.affordable].any(axis=0).all()
    sets = [rows for size in range(1, 6) for rows in combinations(range(len(table)), size) if best in rows]
    least = min(effort[list(rows)].sum() for rows in sets if certifies(rows))
    # Chvátal's bound of the greedy set cover, for all but the optimum, which is in every certificate
    harmonic = sum(1 / k for k in range(1, len(table) + 1))
    assert effort[chosen].sum() - effort[best] <= harmonic * (least - effort[best]) + 1e-9


def test_peers_train_what_is_affordable_once() -> None:
    from benchmarks.search.measures import questions, spent
    from benchmarks.search.peers import optuna_peer, random_peer
    from benchmarks.search.tables import synthetic

    table = synthetic(AXES, seed=0)
    name, problem = list(questions(table))[4]
    assert name == "error at 0.35"
    allowed = set(np.flatnonzero(problem.affordable).tolist())
    for space in ("nested", "constrained", "categories"):
        rows = [row for row, _ in optuna_peer(problem, table.errors[0], 0, "tpe", space, 3)]
        assert len(rows) == len(set(rows))
        assert set(rows) == allowed
    assert {row for row, _ in random_peer(problem, table.errors[0], 1)} == allowed
    best = int(np.where(problem.affordable, table.error(), np.inf).argmin())
    other = next(row for row in allowed if table.error()[row] > 1.02 * table.error()[best])
    # 7 of 25 steps of another, then all of it, then the best
    cost = spent(problem, table, iter([(other, 2), (other, 4), (best, 4), (other, 4)]))
    assert cost == [2.0, pytest.approx(table.seconds[4, other] + table.seconds[4, best]), 1.0]


def test_the_comparison_runs_and_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    results = tmp_path / "search.json"
    # Importing ray costs seconds; its scheduler is driven by hand in the full run
    monkeypatch.setitem(sys.modules, "ray", None)
    for package in ("syne_tune", "neps"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr(sys, "argv", ["compare.py", "--quick", "--results", str(results)])
    runpy.run_module("benchmarks.search.compare", run_name="__main__")
    first = capsys.readouterr().out.splitlines()
    found = json.loads(first[-1])
    assert {"cost_vs_best_peer", "certificate_vs_greedy", "misses", "runs", "step_ms_1e6"} <= set(found)
    assert found["misses"] == 0
    assert found["runs"] == 7
    held = json.loads(results.read_text())["parts"]
    assert {"cost/36/certified", "cost/36/tpe", "cost/minilm/random"} <= set(held)
    runpy.run_module("benchmarks.search.compare", run_name="__main__")
    assert capsys.readouterr().out.splitlines() == first[-1:]


def test_a_table_with_vocabularies_and_no_latency_is_searched_by_operations() -> None:
    from benchmarks.search.measures import certificate, questions
    from benchmarks.search.tables import recorded

    table = recorded(FOLDER / "l3.parquet")
    assert table.shapes.shape == (40, 5)
    assert set(table.shapes[:, 4].tolist()) == {0, 6000}
    assert (table.costs["operations"] == table.operations).all()
    for _, problem in questions(table):
        found = certificate(problem, table, 0)
        assert found["closed"]
        assert found["greedy"] <= found["trained"]
        assert not found["missed"]


def test_a_stopped_training_costs_less_and_proves_the_same() -> None:
    from benchmarks.search.measures import questions
    from benchmarks.search.tables import synthetic
    from benchmarks.studies.racing import frozen, least_ratios

    table = synthetic(AXES, seed=1)
    ratios = least_ratios([table], table.rungs)
    assert (np.diff(ratios) > 0).all()
    assert ratios[-1] == 1
    for _, problem in questions(table):
        whole, known, learnt = (frozen(table, problem, bound) for bound in ("none", "known", "learnt"))
        elsewhere = frozen(table, problem, "elsewhere", ratios)  # of the same curves, with a margin
        assert known["seconds"] <= elsewhere["seconds"] <= whole["seconds"]
        guarded = frozen(table, problem, "guarded", ratios)
        assert elsewhere["seconds"] <= guarded["seconds"] <= whole["seconds"] + 1e-9
        assert elsewhere["wrong"] == guarded["wrong"] == 0
        assert learnt["seconds"] <= whole["seconds"]
        assert known["trainings"] == learnt["trainings"] == whole["trainings"]
        assert (known["wrong"], whole["frozen"]) == (0, 0)
        assert (known["seconds"] < whole["seconds"]) == (known["frozen"] > 0)


def test_the_recorded_table_with_vocabularies_is_what_the_documents_say() -> None:
    """Sizes by the closed forms, and no pair of candidates that contradicts the order."""
    import pyarrow.parquet as pq
    from benchmarks.search.tables import recorded
    from benchmarks.studies import vocabulary_search

    table = recorded(vocabulary_search.TABLE, head_size=None)
    inputs = Inputs(**json.loads(pq.read_schema(vocabulary_search.TABLE).metadata[b"subarch"])["inputs"])
    shapes = [Architecture(*map(int, row)) for row in table.shapes]
    assert table.parameters.tolist() == [shape.parameters(inputs).total for shape in shapes]
    found = vocabulary_search.order(table)
    assert (len(table), found["all"]["pairs"], found["V"]["pairs"]) == (136, 2872, 192)
    assert found["all"]["contradict"] == 0


def test_the_libraries_places_are_the_shapes() -> None:
    from benchmarks.search.libraries import inverse
    from benchmarks.search.measures import questions
    from benchmarks.search.peers import place, table_of, tree_of
    from benchmarks.search.tables import synthetic

    _, problem = list(questions(synthetic(AXES, seed=0)))[4]
    affordable = table_of(problem)[problem.affordable]
    tree = tree_of(affordable)
    shapes = [(d, h, i) for d, _, h, i in affordable.tolist()]
    assert [place(inverse(shape, tree), tree) for shape in shapes] == shapes
    spread = {place(tuple(point), tree) for point in np.random.default_rng(0).random((400, 3))}
    assert spread == set(shapes)  # every share lies in some affordable shape, and all are found
    assert place((1.0, 1.0, 1.0), tree) == max(shapes)


@pytest.mark.parametrize("peer", ["bohb", "cqr", "ashacqr", "ehvi", "priorband", "primo"])
@pytest.mark.parametrize("space", ["nested", "axes"])
def test_peers_of_other_libraries_train_what_is_affordable_and_end(peer: str, space: str) -> None:
    from benchmarks.search.compare import LIBRARIES
    from benchmarks.search.measures import questions
    from benchmarks.search.tables import synthetic

    packages, propose, method, configurations = LIBRARIES[peer]
    for package in packages:
        pytest.importorskip(package, reason=f"{package} is not installed: docs/search-benchmark.md says how")
    table = synthetic(AXES, seed=0)
    name, problem = list(questions(table))[2]
    assert name == "error at 0.1"
    allowed = np.flatnonzero(problem.affordable).tolist()
    assert len(allowed) == 3
    options = configurations[0] | {"space": space}
    reached = dict.fromkeys(allowed, -1)
    for row, rung in propose(problem, table.errors[0], 0, table.rungs, method, **options):
        assert rung > reached[row]
        reached[row] = rung
    assert set(reached.values()) == {len(table.rungs) - 1}
