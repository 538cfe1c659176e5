"""From trials to `selection.json`: who wins, who else is on the frontier, why the others lost, what it rests on.

Nothing here trains or measures: the same trials can be concluded from again under another objective or limit.

    >>> selection, order = conclude(question, basis, latencies, study.trials())
    >>> selection["winner"]["architecture"]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from subarch.errors import InvalidConfig, InvalidStudy, TrainingDiverged
from subarch.extraction.certificate import certificate
from subarch.extraction.latency_words import measurement
from subarch.extraction.question import Latencies, Question, best_trials, thetas
from subarch.extraction.trial import Settings, Trial
from subarch.numbers import abnc
from subarch.numbers.architecture import Architecture
from subarch.numbers.objectives import w_coefficient, w_warning
from subarch.numbers.selection import Selection, nearest, select
from subarch.search.base import gap_under_total_order

VERSION = 1
MOST_ROWS = 5_000
"""Candidates drawn in the report; of larger spaces only the trained ones are."""


def conclude(
    question: Question, basis: dict[str, Any], latencies: Latencies | None, trials: Sequence[Trial]
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """`selection.json`, and the candidates in order of cost as the report draws them.

    Raises:
        InvalidConfig: W was asked for and a candidate's error is 0.
        TrainingDiverged: candidates can be afforded, and the training of every one failed.
        InvalidStudy: candidates can be afforded, and none was trained yet.
    """
    config, costs, objective = question.config, question.costs, question.objective
    settings = thetas(config)
    best = best_trials(trials, settings)
    candidates = _candidates(question, latencies, best)
    failures = [trial for trial in trials if trial.error is None and trial.settings in settings]
    if not candidates and question.affordable.any():
        if failures:
            raise TrainingDiverged(f"all {len(failures)} trials failed, the first one because: {failures[0].reason}")
        raise InvalidStudy("no candidate has been trained yet: resume the run first")
    chosen = _select(question, candidates)
    closest = _closest(question, latencies, candidates, chosen)
    for position, candidate in enumerate(candidates):
        candidate["reason"] = chosen.reasons.get(position) if chosen else None
    names = [candidate["architecture"] for candidate in candidates]
    winner = candidates[chosen.winner] if chosen is not None and chosen.winner is not None else None
    proof = certificate(question, trials)
    gap = _gap(question, best) if proof is None else None
    conditions = abnc.check(question.space, question.inputs, config.latency_length)
    latency = measurement(latencies) if latencies else None
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
            "epsilon": config.epsilon if config.strategy == "fptas" else None,
            "steps": config.steps,
            "hyperparameters": [_theta(setting) for setting in settings],
        },
        "gap": gap,
        "gap_sentence": _gap_sentence(gap, question, best) if proof is None else proof["sentence"],
        "certificate": proof,
        "maximum_point": str(costs.maximum_point),
        "teacher": basis["teacher"] | {"latency_ms": teacher_ms} if basis["teacher"] else None,
        "cost_kind": config.cost,
        "latency": latency,
        "seeds": sorted({trial.settings.seed for trial in trials}),
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
            *(latency["warnings"] if latency else []),
            *([f"{len(failures)} trials failed; the table of trials gives their reasons."] if failures else []),
        ],
    }
    return selection, _order(
        question, latencies, best, {candidate["architecture"]: candidate for candidate in candidates}
    )


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
    predicted = latency is not None and "predicted" in latency
    return {
        "architecture": str(architecture),
        "parameters": count.total,
        "encoder_parameters": count.encoder,
        "operations": architecture.operations(question.inputs, question.config.latency_length),
        "latency_ms": latency["median_ms"] if latency else None,
        "latency_iqr_ms": [latency["q1_ms"], latency["q3_ms"]] if latency and not predicted else None,
        "latency_predicted": predicted,
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
        return f"None of the {len(question.costs)} candidates meets the limits known beforehand."
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


def _order(
    question: Question,
    latencies: Latencies | None,
    best: dict[Architecture, Trial],
    trained: dict[str, dict[str, Any]],
) -> list[dict[str, Any]]:
    known = latencies["candidates"] if latencies else {}
    costs = question.costs
    # A certified search may ask for any row, and has no grid
    grid = set() if question.config.strategy == "certified" else set(question.strategy.rows.tolist())
    order = []
    for row in range(len(costs)) if len(costs) <= MOST_ROWS else sorted(grid or question.rows(best)):
        name = str(costs.architecture(row))
        found = trained.get(name, {"error": None, "w": None})
        order.append(
            {
                "architecture": name,
                "parameters": int(costs.parameters[row]),
                "cost": float(question.cost[row]),
                "cost_predicted": "predicted" in known.get(name, {}),
                "trained": name in trained,
                "grid": row in grid,
                "error": found["error"],
                "w": found["w"],
            }
        )
    return order
