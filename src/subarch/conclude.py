"""From trials to `selection.json`: who wins, who else is on the frontier, why the others lost, what it rests on.

Nothing here trains or measures: the same trials can be concluded from again under another objective or limit.

    >>> conclusion = conclude(run.config, basis, latencies, study.trials())
    >>> conclusion.selection["winner"]["architecture"]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subarch import abnc
from subarch.architecture import Architecture, Inputs
from subarch.config import ExtractConfig
from subarch.errors import InvalidConfig
from subarch.objectives import Objective, w_coefficient, w_warning
from subarch.search import Problem, Strategy, make
from subarch.search.base import gap_under_total_order
from subarch.selection import CostUnit, Selection, nearest, select
from subarch.space import Costs, SearchSpace
from subarch.trial import Settings, Trial

VERSION = 1
MOST_ROWS = 5_000
"""Candidates drawn in the report; of larger spaces only the trained ones are."""

Latencies = dict[str, Any]
"""latency.json: {"candidates": {name: {median_ms, q1_ms, q3_ms, passes}}, "teacher": {...} | None, "seconds", ...}."""


def thetas(config: ExtractConfig) -> list[Settings]:
    """Θ as configured: the product of learning rates and batch sizes."""
    return [
        Settings(config.steps, rate, size, config.seed)
        for rate, size in product(config.learning_rate, config.batch_size)
    ]


@dataclass(frozen=True)
class Question:
    """The space with its costs, the objective and the strategy: all that is asked before any trial is looked at."""

    config: ExtractConfig
    inputs: Inputs
    space: SearchSpace
    costs: Costs
    problem: Problem
    strategy: Strategy

    @property
    def cost(self) -> NDArray[np.float64]:
        """(N,) i(ξ) in `cost_unit`, in the order of `costs`."""
        return self.problem.cost

    @property
    def objective(self) -> Objective:
        return self.problem.objective

    @property
    def affordable(self) -> NDArray[np.bool_]:
        return self.problem.affordable

    @property
    def cost_unit(self) -> CostUnit:
        return "ms" if self.config.cost == "latency" else "multiply-adds"

    def rows(self, best: dict[Architecture, Trial]) -> dict[int, Trial]:
        """The trials of candidates of this space, by row, ascending."""
        found = {str(architecture): trial for architecture, trial in best.items()}
        names = (str(self.costs.architecture(row)) for row in range(len(self.costs)))
        return {row: found[name] for row, name in enumerate(names) if name in found}

    @classmethod
    def pose(cls, config: ExtractConfig, basis: dict[str, Any], latencies: Latencies | None) -> Question:
        """`basis` is basis.json; `latencies` is latency.json where latency is the cost.

        Raises:
            InvalidConfig: a quality floor without anything it could be a share of.
        """
        inputs, space = Inputs(**basis["inputs"]), SearchSpace.load(config.space)
        costs = space.costs(inputs, config.latency_length)
        cost = costs.operations.astype(np.float64)
        if latencies is not None:
            rows = range(len(costs))
            cost = np.array([latencies["candidates"][str(costs.architecture(row))]["median_ms"] for row in rows])
        limit = config.max_latency_ms
        if config.max_latency_ratio is not None and latencies is not None:
            limit = config.max_latency_ratio * latencies["teacher"]["median_ms"]
        objective = Objective(
            config.objective,
            parameters_maximum=float(costs.parameters.max()),
            cost_maximum=float(cost.max()),
            max_cost=limit,
            max_parameters=config.max_parameters,
            max_error=_floor(config, basis["reference_error"]),
        )
        problem = Problem(costs.parameters, cost, objective)
        return cls(config, inputs, space, costs, problem, make(config.strategy, problem, config.epsilon))


def _floor(config: ExtractConfig, reference: float | None) -> float | None:
    """The largest error that keeps the configured share of the reference's quality.

    Quality is 1 - e for a bounded error (cosine similarity to the teacher, the task's score), and exp(-e), the
    geometric mean probability of the right token, for a cross-entropy. (Ours; the paper has no floor.)
    """
    if config.keep is None:
        return None
    if reference is None:
        raise InvalidConfig("keep: there is no reference quality in this run to keep a share of")
    if config.error in ("mlm", "logits"):
        return reference - math.log(config.keep)
    floor = 1 - config.keep * (1 - reference)
    if floor <= 0:
        raise InvalidConfig("keep 1.0: only the teacher itself is as good as the teacher; ask for less")
    return floor


def best_trials(trials: Sequence[Trial], settings: Sequence[Settings]) -> dict[Architecture, Trial]:
    """Of each architecture the finished trial of least error over Θ (the first such)."""
    best: dict[Architecture, Trial] = {}
    for trial in trials:
        if trial.error is None or trial.settings not in settings:
            continue
        held = best.get(trial.architecture)
        if held is None or held.error is None or trial.error < held.error:
            best[trial.architecture] = trial
    return best


def conclude(
    question: Question, basis: dict[str, Any], latencies: Latencies | None, trials: Sequence[Trial]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """`selection.json`, and the candidates in order of cost as the report draws them.

    Raises:
        InvalidConfig: W was asked for and a candidate's error is 0.
    """
    config, costs, objective = question.config, question.costs, question.objective
    settings = thetas(config)
    best = best_trials(trials, settings)
    candidates = _candidates(question, latencies, best)
    chosen = _select(question, candidates)
    closest = _closest(question, latencies, candidates, chosen)
    for position, candidate in enumerate(candidates):
        candidate["reason"] = chosen.reasons.get(position) if chosen else None
    names = [candidate["architecture"] for candidate in candidates]
    winner = candidates[chosen.winner] if chosen is not None and chosen.winner is not None else None
    gap = _gap(question, best)
    conditions = abnc.check(question.space, question.inputs, config.latency_length)
    failed = sum(trial.error is None and trial.settings in settings for trial in trials)
    teacher_ms = latencies["teacher"]["median_ms"] if latencies and latencies["teacher"] else None
    selection = {
        "version": VERSION,
        "objective": {
            "name": objective.name,
            _limit_name(question): objective.max_cost,
            "max_parameters": objective.max_parameters,
            "max_error": objective.max_error,
            "keep": config.keep,
        },
        "outcome": "selected" if winner is not None else "infeasible",
        "winner": winner,
        "nearest": closest,
        "ties": [names[index] for index in chosen.ties] if chosen else [],
        "frontier": [name for name, on in zip(names, chosen.frontier, strict=True) if on] if chosen else [],
        "candidates": candidates,
        "strategy": {
            "name": config.strategy,
            "epsilon": config.epsilon if config.strategy == "fptas" else 1,
            "steps": config.steps,
            "hyperparameters": [_theta(setting) for setting in settings],
        },
        "gap": gap,
        "gap_sentence": _gap_sentence(gap, question, best),
        "maximum_point": str(costs.maximum_point),
        "teacher": basis["teacher"] | {"latency_ms": teacher_ms} if basis["teacher"] else None,
        "cost_kind": config.cost,
        "seeds": [config.seed],
        "ledger": [
            {"what": "corpus, teacher targets, anatomy", "seconds": basis["seconds"]},
            *([{"what": "latency measurements", "seconds": latencies["seconds"]}] if latencies else []),
            {"what": f"{len(trials)} trials, summed over workers", "seconds": sum(trial.seconds for trial in trials)},
        ],
        "abnc": {
            "verdict": abnc.verdict(conditions),
            "conditions": [asdict(condition) for condition in conditions],
            "rank_agreement": _agreement(best, trials),
        },
        "warnings": [
            *([warning] if (warning := w_warning(objective.name, config.error)) else []),
            *([f"{failed} trials failed; the table of trials gives their reasons."] if failed else []),
        ],
    }
    return selection, _order(question, {candidate["architecture"]: candidate for candidate in candidates})


def _candidates(
    question: Question, latencies: Latencies | None, best: dict[Architecture, Trial]
) -> list[dict[str, Any]]:
    """The trained candidates in order of cost."""
    objective, rows = question.objective, question.rows(best)
    errors = np.array([trial.error for trial in rows.values()], dtype=np.float64)
    w: list[float | None] = [None] * len(rows)
    if len(rows) and errors.min() > 0:
        parameters, cost = question.costs.parameters[list(rows)], question.cost[list(rows)]
        maxima = objective.parameters_maximum, objective.cost_maximum
        w = w_coefficient(parameters, cost, errors, *maxima).tolist()
    elif len(rows) and objective.name == "w":
        zero = question.costs.architecture(list(rows)[int(errors.argmin())])
        raise InvalidConfig(
            f"the error of {zero} is {errors.min():g} and W divides by it; use the objective 'error' here"
        )
    return [
        _row(trial.architecture, question, latencies)
        | {"error": trial.error, "hyperparameters": _theta(trial.settings), "trial": trial.number, "w": value}
        for trial, value in zip(rows.values(), w, strict=True)
    ]


def _select(question: Question, candidates: list[dict[str, Any]]) -> Selection | None:
    """None where nothing was trained, since nothing is affordable."""
    if not candidates:
        return None
    cost = "latency_ms" if question.cost_unit == "ms" else "operations"
    parameters, costs, errors = ([row[name] for row in candidates] for name in ("parameters", cost, "error"))
    names = [row["architecture"] for row in candidates]
    return select(question.objective, parameters, costs, errors, question.cost_unit, names)


def _closest(
    question: Question, latencies: Latencies | None, candidates: list[dict[str, Any]], chosen: Selection | None
) -> dict[str, Any] | None:
    """The nearest feasible point where no candidate meets the limits."""
    if chosen is not None:
        if chosen.nearest is None:
            return None
        found, row = chosen.nearest, candidates[chosen.nearest.index]
    else:
        costs = question.costs
        names = [str(costs.architecture(row)) for row in range(len(costs))]
        found = nearest(question.objective, costs.parameters, question.cost, None, question.cost_unit, names)
        row = _row(costs.architecture(found.index), question, latencies)
    limits = {_limit_name(question) if name == "max_cost" else name: value for name, value in found.limits.items()}
    return {"row": row, "limits": limits, "sentence": found.sentence}


def _row(architecture: Architecture, question: Question, latencies: Latencies | None) -> dict[str, Any]:
    """A candidate's known figures; those of training are None."""
    count = architecture.parameters(question.inputs)
    latency = latencies["candidates"][str(architecture)] if latencies else None
    return {
        "architecture": str(architecture),
        "parameters": count.total,
        "encoder_parameters": count.encoder,
        "operations": architecture.operations(question.inputs, question.config.latency_length),
        "latency_ms": latency["median_ms"] if latency else None,
        "latency_iqr_ms": [latency["q1_ms"], latency["q3_ms"]] if latency else None,
        "error": None,
        "error_kind": question.config.error,
        "hyperparameters": {},
        "trial": None,
        "w": None,
    }


def _theta(settings: Settings) -> dict[str, Any]:
    return {"learning_rate": settings.learning_rate, "batch_size": settings.batch_size}


def _limit_name(question: Question) -> str:
    return "max_latency_ms" if question.cost_unit == "ms" else "max_operations"


def _gap(question: Question, best: dict[Architecture, Trial]) -> dict[str, Any] | None:
    """What the untrained may still offer; None where nothing bounds it. Infinite figures become None."""
    error = np.full(len(question.costs), np.nan)
    for row, trial in question.rows(best).items():
        error[row] = trial.error
    gap = gap_under_total_order(question.problem, error)
    if gap is None:
        return None
    finite = {name: value if math.isfinite(value) else None for name, value in asdict(gap).items() if name != "row"}
    return finite | {"architecture": None if gap.row is None else str(question.costs.architecture(gap.row))}


def _gap_sentence(gap: dict[str, Any] | None, question: Question, best: dict[Architecture, Trial]) -> str:
    affordable = int(question.affordable.sum())
    if not affordable:
        return f"None of the {len(question.costs)} candidates meets the limits known beforehand: nothing was trained."
    skipped = affordable - sum(bool(question.affordable[row]) for row in question.rows(best))
    if not skipped:
        return f"All {affordable} candidates that meet the limits known beforehand were trained: nothing was skipped."
    text = f"{skipped} of the {affordable} candidates that meet the limits known beforehand were not trained. "
    if gap is None:
        return text + "Nothing bounds what they might offer."
    if gap["architecture"] is None:
        text += "If cost orders error, none of them can meet the limits."
    elif gap["absolute"]:
        text += f"If cost orders error, {gap['architecture']} may be better by {gap['absolute']:.4g}, and none by more."
    else:
        text += "If cost orders error, none of them is better than the best."
    if gap["violations"]:
        text += f" But {gap['violations']} trained neighbours break that order, so this is no guarantee here."
    return text


def _agreement(best: dict[Architecture, Trial], trials: Sequence[Trial]) -> dict[str, Any] | None:
    """Rank agreement of the errors with those of the longest run there is; else of half the steps with all."""
    longest: dict[Architecture, Trial] = {}
    for trial in trials:
        known = longest.get(trial.architecture)
        if trial.error is not None and (known is None or trial.settings.steps > known.settings.steps):
            longest[trial.architecture] = trial
    steps = max((trial.settings.steps for trial in longest.values()), default=0)
    s = next((trial.settings.steps for trial in best.values()), 0)
    if steps > s:
        pairs = [(t.error, longest[a].error) for a, t in best.items() if longest[a].settings.steps == steps]
        between = [s, steps]
    else:
        between = [math.ceil(s / 2), s]
        pairs = [(p.error, t.error) for t in best.values() for p in t.curve if p.step == between[0]]
    short, long = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    if len(pairs) < 3 or len(set(short)) == 1 or len(set(long)) == 1:
        return None
    return asdict(abnc.rank_agreement(short, long)) | {"steps": between}


def _order(question: Question, trained: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    grid, costs = set(question.strategy.rows.tolist()), question.costs
    order = []
    for row in range(len(costs)) if len(costs) <= MOST_ROWS else sorted(grid):
        name = str(costs.architecture(row))
        found = trained.get(name, {"error": None, "w": None})
        order.append(
            {
                "architecture": name,
                "parameters": int(costs.parameters[row]),
                "cost": float(question.cost[row]),
                "trained": name in trained,
                "grid": row in grid,
                "error": found["error"],
                "w": found["w"],
            }
        )
    return order
