"""A realistic run for the report: a search over the `demo` space with errors and latencies from smooth formulas.

.venv/bin/python tests/report_fixture.py report.html     # write the example, to look at it
"""

from __future__ import annotations

import copy
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from subarch import Inputs, SearchSpace
from subarch.run.records import Agora, Bench, Evaluation, Machine, OrderRow, Parity, Pretraining, Selection, TrialRow
from subarch.show.finetuning import FineTuned
from subarch.show.page import RunData
from subarch.show.page import render as render_page
from subarch.show.search import Search

INPUTS = Inputs(vocabulary=30522, positions=512, token_types=2, output=384)
LENGTH, EPSILON = 128, 3
SCHEDULE = {"steps": 400, "student_seconds": 0.4, "teacher_seconds": 0.2, "cached": False, "maskings": 0}
SCHEDULE |= {"sentence": "the teacher at every step takes 1.4 min: at every step"}
STEPS = (1, 5, 10, 20, 40, 60, 80, 100)
THETA = ({"learning_rate": 3e-4, "batch_size": 64}, {"learning_rate": 1e-3, "batch_size": 64})
LIMIT_MS = 4.1
CONSTANT = 0.7
"""Cosine distance of the best constant vector: losses are distances, errors shares of it."""
TEXT = {"teacher": "all-MiniLM-L6-v2", "corpus": ["docs"], "text_column": "text", "max_length": 64, "heldout": 512}
TEXT |= {"start_from": None, "prompt": None}
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "</script><script>alert(2)</script>",
    "<!--<script>",
    "&lt;b&gt; &#60;i&#62; %{x} {{ 7*7 }}",
    "\"' onmouseover='alert(3)",
    '<a href="javascript:alert(4)">x</a>',
)


MACHINE: dict[str, Any] = {"processor": "x86-64, AVX-512", "instruction_set": "x86_64", "features": ["avx2"]}
MACHINE |= {"cores": {"logical": 2, "physical": 2, "usable": 2}, "memory_gib": 23.5, "system": "Linux"}


@dataclass
class Raw:
    """What a run folder holds, as plain data that a test can change; `run` makes the records of it."""

    name: str
    command: str
    selection: dict[str, Any] | None = None
    trials: list[dict[str, Any]] = field(default_factory=list)
    order: list[dict[str, Any]] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    pretraining: dict[str, Any] | None = None
    comparison: list[dict[str, Any]] | None = None
    bench: dict[str, Any] | None = None
    finetuning: list[dict[str, Any]] = field(default_factory=list)
    exports: list[dict[str, Any]] = field(default_factory=list)
    machine: dict[str, Any] = field(default_factory=lambda: copy.deepcopy(MACHINE))
    versions: dict[str, str] = field(default_factory=lambda: {"python": "3.11.7"})

    def run(self) -> RunData:
        """The records."""
        return RunData(
            name=self.name,
            command=self.command,
            machine=Machine.model_validate(self.machine),
            versions=self.versions,
            search=self.search() if self.selection else None,
            pretraining=Pretraining.model_validate(self.pretraining) if self.pretraining else None,
            finetuning=[FineTuned(**item) for item in self.finetuned()],
            exports=[Parity.model_validate(item) for item in self.exports],
            bench=Bench.model_validate(self.bench) if self.bench else None,
            comparison=self.comparison,
        )

    def search(self) -> Search:
        return Search(
            selection=Selection.model_validate(self.selection),
            trials=tuple(TrialRow.model_validate(trial) for trial in self.trials),
            order=tuple(OrderRow.model_validate(row) for row in self.order),
            config=self.config,
        )

    def finetuned(self) -> list[dict[str, Any]]:
        return [
            {
                "name": item["name"],
                "evaluations": tuple(Evaluation.model_validate(one) for one in item["evaluations"]),
                "agora": Agora.model_validate(item["agora"]) if item["agora"] else None,
            }
            for item in self.finetuning
        ]


def render(raw: Raw) -> str:
    """The page of plain data."""
    return render_page(raw.run())


def example() -> Raw:
    """A search that selected a candidate under a latency limit and trained it in full; two trials failed."""
    costs = SearchSpace.load("demo").costs(INPUTS, LENGTH)
    rows, trials, order = [], [], []
    top_operations, top_parameters = int(costs.operations[-1]), int(costs.parameters.max())
    for index in range(len(costs)):
        shape = costs.architecture(index)
        parameters, operations = shape.parameters(INPUTS), int(costs.operations[index])
        entry: dict[str, Any] = {"architecture": str(shape), "parameters": parameters.total, "cost": operations}
        entry |= {"trained": False, "grid": index % EPSILON == 0, "cost_predicted": False, "error": None, "w": None}
        order.append(entry)
        if index % EPSILON and index not in (7, 19):
            continue
        width = 1.25 if shape.hidden == 192 else 1.0
        final = 0.46 * width / (1 + 0.33 * shape.depth + 0.0007 * shape.depth * shape.intermediate)
        for theta in THETA:
            penalty = 1.0 if theta is THETA[0] else 1.06
            curve = [[step, final * penalty * (1 + 1.4 * (step**-0.6 - 100**-0.6)), 0.12 * step] for step in STEPS]
            trial: dict[str, Any] = {
                "number": len(trials),
                "architecture": str(shape),
                "hyperparameters": theta,
                "seed": 0,
            }
            trial |= {"steps": 100, "state": "complete", "reason": None, "error": curve[-1][1], "curve": curve}
            trials.append(trial | {"seconds": curve[-1][2], "threads": 1})
        latency = 0.06 + operations / 88e6 + 0.21 * shape.depth
        w = (1 - parameters.total / top_parameters) * (1 - operations / top_operations) / final
        row: dict[str, Any] = {"architecture": str(shape), "parameters": parameters.total, "operations": operations}
        row |= {
            "encoder_parameters": parameters.encoder,
            "latency_ms": latency,
            "error": final,
            "error_kind": "embedding",
        }
        row |= {
            "latency_interval_ms": [latency * 0.97, latency * 1.05],
            "latency_predicted": False,
            "hyperparameters": THETA[0],
        }
        rows.append(row | {"trial": len(trials) - 2, "w": w})
        entry |= {"trained": True, "error": final, "w": w}

    feasible = [row for row in rows if row["latency_ms"] <= LIMIT_MS]
    winner = min(feasible, key=lambda row: row["error"])
    frontier = [row["architecture"] for row in rows if not any(dominates(other, row) for other in rows)]
    for row in rows:
        row["reason"] = reason(row, winner)
    failed = {"state": "failed", "reason": "the loss became NaN at step 40; lower the learning rate", "error": None}
    for name in ("4-12-384-1024", "3-12-384-1536"):
        trial = {
            "number": len(trials),
            "architecture": name,
            "hyperparameters": {"learning_rate": 0.1, "batch_size": 64},
        }
        trials.append(
            trial | {"seed": 0, "steps": 100, "curve": [[1, 0.9, 0.1]], "seconds": 4.8, "threads": 1, **failed}
        )

    teacher = {
        "name": "all-MiniLM-L6-v2",
        "architecture": "6-12-384-1536",
        "parameters": 22_713_216,
        "latency_ms": 12.3,
        "operations": 1_434_451_968,
        "timed": True,
    }
    selection: dict[str, Any] = {
        "version": 1,
        "objective": {
            "name": "error",
            "max_latency_ms": LIMIT_MS,
            "max_parameters": None,
            "max_error": None,
            "keep": None,
        },
        "outcome": "selected",
        "winner": winner,
        "nearest": None,
        "ties": [],
        "frontier": frontier,
        "candidates": rows,
        "strategy": {"name": "fptas", "epsilon": EPSILON, "steps": 100, "hyperparameters": list(THETA)},
        "gap": {"bound": 3.61, "best": 3.22, "absolute": 0.39, "violations": 0, "architecture": "1-12-192-512"},
        "gap_sentence": "If cost orders error, no skipped candidate has W above 3.61; the best has 3.22.",
        "certificate": None,
        "maximum_point": str(costs.maximum_point),
        "teacher": teacher,
        "cost_kind": "latency",
        "latency": None,
        "seeds": [0],
        "ledger": [
            {"what": "reading the corpus", "seconds": 21.4},
            {"what": "targets of the teacher", "seconds": 96.0},
            {"what": f"training {len(rows)} candidates", "seconds": 340.2},
            {"what": "measuring latency", "seconds": 44.7},
        ],
        "abnc": {
            "verdict": "AB^nC holds in part: the embeddings outweigh the encoder layers in this space.",
            "conditions": [
                condition(
                    "Polynomial cost",
                    True,
                    None,
                    "Parameters and operations are polynomials of ⟨D, A, H, I⟩, in closed form.",
                ),
                condition(
                    "Growth of A and C", False, 6.61, "At the maximum point the embeddings hold 62 % of all parameters."
                ),
                condition(
                    "Convexity", None, None, "Strong convexity of the loss cannot be checked and is not assumed."
                ),
            ],
            "rank_agreement": {"tau": 0.91, "low": 0.84, "high": 0.96, "candidates": 24, "steps": [100, 1000]},
        },
        "warnings": ["2 trials failed: their candidates were compared with fewer hyperparameter settings."],
    }
    comparison = [
        compared("teacher all-MiniLM-L6-v2", 0.0, 0.941, 12.3, 22_713_216),
        compared(
            f"selected {winner['architecture']}", winner["error"], 0.913, winner["latency_ms"], winner["parameters"]
        ),
        compared("4-12-312-1200", 0.2411, 0.871, 6.02, 14_350_248),
        compared("2-2-128-512", 0.4102, 0.755, 0.81, 4_385_920),
    ]
    return Raw(
        name="demo",
        command="subarch extract --space demo --corpus docstrings --epsilon 3 --max-latency-ms 4.1 --seed 0",
        selection=selection,
        trials=trials,
        order=order,
        config={"space": "demo", "search": {"strategy": "fptas", "epsilon": 3, "steps": 100}, "seed": 0} | TEXT,
        comparison=comparison,
        pretraining=pretraining(winner),
    )


def pretraining(row: dict[str, Any]) -> dict[str, Any]:
    """pretraining.json of a candidate: 400 steps by two losses from where the search left it."""
    heldout = []
    for step in range(0, 401, 20):
        left = 0.45 + 0.55 / (1 + step / 40)
        embedding, relations = CONSTANT * row["error"] * left, 0.3 * left
        point = {"step": step, "seconds": 0.6 * step + 2, "embedding": embedding, "relations": relations}
        point["error"] = row["error"] * left
        heldout.append(point | {"loss": embedding + 0.5 * relations})
    curve = []
    for step in range(4, 401, 4):
        loss = heldout[step // 20]["loss"] * (1 + 0.05 * (-1) ** (step // 4))
        curve.append({"step": step, "seconds": 0.6 * step, "loss": loss, "learning_rate": 5e-4 * (1 - step / 400)})
    return {
        "architecture": row["architecture"],
        "parameters": {"total": row["parameters"], "encoder": row["encoder_parameters"]},
        "config": {"architecture": row["architecture"], "minutes": 4.0} | TEXT,
        "started": "the search's own training of it",
        "losses": {"embedding": 1.0, "relations": 0.5},
        "schedule": {
            "steps": 400,
            "student_seconds": 0.4,
            "teacher_seconds": 0.2,
            "cached": False,
            "maskings": 0,
            "sentence": "the teacher at every step takes 1.4 min: at every step",
        },
        "steps": 400,
        "seconds": 242.0,
        "tokens": 801_234,
        "max_length": 64,
        "padding": 0.0213,
        "tokens_per_second": 801_234 / 242,
        "curve": curve,
        "heldout": heldout,
        "teacher": "all-MiniLM-L6-v2",
        "teacher_architecture": "6-12-384-1536",
        "latency": {
            "batch": 1,
            "length": 32,
            "threads": 2,
            "runtime": "torch",
            "student": {"median_ms": 3.1, "q1_ms": 3.0, "q3_ms": 3.3, "p95_ms": 3.5, "passes": 20},
            "teacher": {"median_ms": 12.4, "q1_ms": 12.2, "q3_ms": 12.9, "p95_ms": 13.4, "passes": 20},
        },
        "machine": MACHINE,
        "versions": {"python": "3.11.7"},
    }


def pretrained(run: Raw | None = None) -> Raw:
    """A pretraining alone, that of the example or of another run."""
    run = run or example()
    return Raw(
        name=run.name,
        command="subarch pretrain runs/again --config runs/first/pretrain.yaml",
        pretraining=run.pretraining,
        machine=run.machine,
        versions=run.versions,
    )


def infeasible() -> Raw:
    """The same search under a limit that no candidate meets."""
    run = copy.deepcopy(example())
    rows = run.selection["candidates"]
    nearest = min(rows, key=lambda row: row["latency_ms"])
    run.selection["objective"]["max_latency_ms"] = 0.01
    run.selection.update(outcome="infeasible", winner=None)
    run.selection["nearest"] = {
        "row": nearest,
        "limits": {"max_latency_ms": nearest["latency_ms"]},
        "sentence": "nearest",
    }
    for row in rows:
        row["reason"] = f"latency {row['latency_ms']:.2f} ms is above the limit of 0.01 ms"
    return run


def hostile() -> Raw:
    """The example with every free string replaced by one that tries to break out of its place."""
    taken = iter(range(10**6))

    def poison(value: Any, key: str = "") -> Any:
        if isinstance(value, dict):
            return {name: poison(item, name) for name, item in value.items()}
        if isinstance(value, list):
            return [poison(item, key) for item in value]
        if isinstance(value, str) and key in {
            "reason",
            "sentence",
            "verdict",
            "what",
            "gap_sentence",
            "warnings",
            "processor",
            "space",
            "started",
            "teacher",
            "teacher_architecture",
        }:
            return HOSTILE[next(taken) % len(HOSTILE)]
        return value

    run = copy.deepcopy(example())
    selection = poison(run.selection)
    # names of candidates reach plots, legends and hovers
    names = {row["architecture"]: f"{HOSTILE[i % len(HOSTILE)]} {i}" for i, row in enumerate(selection["candidates"])}

    def rename(value: Any) -> Any:
        if isinstance(value, dict):
            return {rename(name): rename(item) for name, item in value.items()}
        if isinstance(value, list):
            return [rename(item) for item in value]
        return names.get(value, value) if isinstance(value, str) else value

    selection = rename(selection)
    for part in (selection["winner"], *selection["candidates"]):
        part["error_kind"] = HOSTILE[0]
    selection["teacher"]["name"] = HOSTILE[0]
    trained = rename(poison(run.pretraining))
    trained["losses"] = {HOSTILE[0]: 1.0, HOSTILE[3]: 0.5}
    for point in trained["heldout"]:
        point |= {HOSTILE[0]: point["embedding"], HOSTILE[3]: point["relations"]}
    trained["config"] = {HOSTILE[1]: HOSTILE[2]}
    return Raw(
        name=HOSTILE[1],
        command=HOSTILE[2] + "\udce9",
        selection=selection,
        trials=rename(poison(run.trials)),
        order=rename(run.order),
        config={HOSTILE[0]: HOSTILE[1]},
        machine=MACHINE | {"processor": HOSTILE[5], "system": HOSTILE[3]},
        versions={HOSTILE[4]: HOSTILE[3]},
        comparison=[{HOSTILE[0]: HOSTILE[1], HOSTILE[4]: 1.5}],
        pretraining=trained,
    )


def dominates(a: dict[str, Any], b: dict[str, Any]) -> bool:
    keys = ("latency_ms", "error", "parameters")
    return all(a[key] <= b[key] for key in keys) and any(a[key] < b[key] for key in keys)


def reason(row: dict[str, Any], winner: dict[str, Any]) -> str | None:
    if row is winner:
        return None
    if row["latency_ms"] > LIMIT_MS:
        return f"latency {row['latency_ms']:.2f} ms is above the limit of {LIMIT_MS} ms"
    return f"its error is {row['error'] - winner['error']:.4f} above that of {winner['architecture']}"


def condition(name: str, holds: bool | None, value: float | None, sentence: str) -> dict[str, Any]:
    return {"name": name, "holds": holds, "value": value, "sentence": sentence}


def compared(model: str, distance: float, recall: float, latency: float, parameters: int) -> dict[str, Any]:
    row = {"model": model, "held_out_distance": distance, "recall@10": recall}
    return row | {"ms per query": latency, "sentences/s": 1000 / latency, "parameters": parameters}


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(render(example()), encoding="utf-8")
