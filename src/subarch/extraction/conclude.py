"""From trials to `selection.json`: who wins, what else is on the frontier, why the others lost, what it rests on.

Nothing here trains or measures: the same trials can answer another objective or limit.

    >>> selection, order = conclude(question, basis, latencies, study.trials())
    >>> selection.winner.architecture
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from subarch.errors import InvalidConfig, InvalidStudy, TrainingDiverged
from subarch.extraction.certificate import certificate
from subarch.extraction.question import Question, best_trials, thetas
from subarch.extraction.trial import Settings, Trial
from subarch.numbers import abnc
from subarch.numbers.architecture import Architecture
from subarch.numbers.objectives import w_coefficient, w_warning
from subarch.numbers.selection import Selection as Choice
from subarch.numbers.selection import nearest, select
from subarch.run.records import (
    Abnc,
    AbncAgreement,
    AbncCondition,
    Basis,
    Candidate,
    GapRow,
    Hyperparameters,
    Latencies,
    LatencyMeasurement,
    LatencyModelErrors,
    LedgerRow,
    Limits,
    Measured,
    Nearest,
    OrderRow,
    Predicted,
    SearchStrategy,
    Selection,
)
from subarch.search.base import gap_under_total_order

VERSION = 1
MOST_ROWS = 5_000
"""Candidates drawn in the report; of larger spaces only the trained ones are."""
_MODEL_ERRORS = set(LatencyModelErrors.model_fields)
DRIFT = 0.15
"""A change of the machine's speed between measurements above which the user is warned; it was corrected for."""


def conclude(
    question: Question, basis: Basis, latencies: Latencies | None, trials: Sequence[Trial]
) -> tuple[Selection, tuple[OrderRow, ...]]:
    """The selection, and the candidates in order of cost as the report draws them.

    Raises:
        InvalidConfig: W was asked for and a candidate's error is 0.
        TrainingDiverged: there are affordable candidates, and the training of every one failed.
        InvalidStudy: there are affordable candidates, and none was trained yet.
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
    chosen = _choose(question, candidates)
    reasons = chosen.reasons if chosen is not None else {}
    candidates = [one.model_copy(update={"reason": reasons.get(at)}) for at, one in enumerate(candidates)]
    names = [candidate.architecture for candidate in candidates]
    winner = candidates[chosen.winner] if chosen is not None and chosen.winner is not None else None
    proof = certificate(question, trials)
    gap = _gap(question, best) if proof is None else None
    conditions = abnc.check(question.space, question.inputs, config.latency_length)
    latency = None if latencies is None else measurement(latencies)
    teacher_ms = latencies.teacher.median_ms if latencies is not None and latencies.teacher is not None else None
    ledger = [LedgerRow(what="corpus, teacher targets, anatomy", seconds=basis.seconds)]
    if latencies is not None:
        ledger.append(LedgerRow(what="latency measurements", seconds=latencies.seconds))
    seconds = sum(trial.seconds for trial in trials)
    ledger.append(LedgerRow(what=f"{len(trials)} trials, summed over workers", seconds=seconds))
    warnings = list(latency.warnings) if latency is not None else []
    if warning := w_warning(objective.name, config.error):
        warnings.insert(0, warning)
    if failures:
        warnings.append(f"{len(failures)} trials failed; the table of trials gives their reasons.")
    selection = Selection(
        version=VERSION,
        objective=Limits(
            name=objective.name,
            max_parameters=objective.max_parameters,
            max_error=objective.max_error,
            keep=config.keep,
            **{_limit_name(question): objective.max_cost},
        ),
        outcome="selected" if winner is not None else "infeasible",
        winner=winner,
        nearest=_nearest(question, latencies, candidates, chosen),
        ties=tuple(names[index] for index in chosen.ties) if chosen else (),
        frontier=tuple(name for name, on in zip(names, chosen.frontier, strict=True) if on) if chosen else (),
        candidates=tuple(candidates),
        strategy=SearchStrategy(
            name=config.strategy,
            epsilon=config.epsilon if config.strategy == "fptas" else None,
            steps=config.steps,
            hyperparameters=tuple(_theta(setting) for setting in settings),
        ),
        gap=gap,
        gap_sentence=_gap_sentence(gap, question, best) if proof is None else proof.sentence,
        certificate=proof,
        maximum_point=str(costs.maximum_point),
        teacher=basis.teacher and basis.teacher.model_copy(update={"latency_ms": teacher_ms}),
        cost_kind=config.cost,
        latency=latency,
        seeds=tuple(sorted({trial.settings.seed for trial in trials})),
        ledger=tuple(ledger),
        abnc=Abnc(
            verdict=abnc.verdict(conditions),
            conditions=tuple(AbncCondition(**asdict(condition)) for condition in conditions),
            rank_agreement=_agreement(best, trials),
        ),
        warnings=tuple(warnings),
    )
    return selection, _order(question, latencies, best, {one.architecture: one for one in candidates})


def measurement(latencies: Latencies) -> LatencyMeasurement:
    """How latencies came about: conditions, counts, the model's errors, all of it in a sentence, and warnings."""
    settings, model, entries = latencies.settings, latencies.model, latencies.candidates.values()
    measured = [entry for entry in entries if isinstance(entry, Measured)]
    predicted = len(entries) - len(measured)
    drift = max((abs(entry.drift - 1) for entry in measured), default=0.0)
    at = f"at {settings.length} tokens"
    if isinstance(settings.length, tuple):
        lengths = ", ".join(map(str, settings.length))
        at = f"at the lengths of the corpus (the mean over {lengths} tokens)"
    sentence = (
        f"Latency is that of a forward pass of batch {settings.batch} {at} in {settings.runtime} on {settings.threads} "
        f"thread{'s' * (settings.threads != 1)}; "
    )
    warnings = []
    if model is None or not predicted:
        sentence += f"all {len(entries)} candidates were measured."
    else:
        sentence += (
            f"{len(measured)} of {len(entries)} candidates were measured, among them all that were trained and all "
            "near the limit; the others were predicted, by a model whose error is "
            f"{100 * model.median_error:.1f} % in the median and {100 * model.p90_error:.1f} % at the 90th "
            f"percentile (each of {model.measured} measured candidates left out in turn)."
        )
        if model.left_near_limit:
            warnings.append(
                f"{model.left_near_limit} candidates near the limit on latency were too many to measure; whether they "
                "meet it rests on predictions."
            )
    if drift > DRIFT:
        warnings.append(
            f"The speed of this machine differed by up to {100 * drift:.0f} % between measurements. It was corrected "
            "for by candidates that were measured each time, but measurements on a quiet machine are better: "
            "--remeasure."
        )
    return LatencyMeasurement(
        **settings.model_dump(),
        measured=len(measured),
        predicted=predicted,
        sha256=latencies.digest(),
        model=None if model is None else LatencyModelErrors(**model.model_dump(include=_MODEL_ERRORS)),
        sentence=sentence,
        warnings=tuple(warnings),
    )


def _candidates(question: Question, latencies: Latencies | None, best: dict[Architecture, Trial]) -> list[Candidate]:
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
        _row(trial.architecture, question, latencies, trial, value)
        for trial, value in zip(rows.values(), w, strict=True)
    ]


def _choose(question: Question, candidates: list[Candidate]) -> Choice | None:
    """None where nothing was trained, since nothing is affordable."""
    if not candidates:
        return None
    costs = [one.latency_ms if question.cost_unit == "ms" else one.operations for one in candidates]
    parameters, errors = [one.parameters for one in candidates], [one.error for one in candidates]
    names = [one.architecture for one in candidates]
    return select(question.objective, parameters, costs, errors, question.cost_unit, names)  # type: ignore[arg-type]


def _nearest(
    question: Question, latencies: Latencies | None, candidates: list[Candidate], chosen: Choice | None
) -> Nearest | None:
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
    return Nearest(row=row, limits=limits, sentence=found.sentence)


def _row(
    architecture: Architecture,
    question: Question,
    latencies: Latencies | None,
    trial: Trial | None = None,
    w: float | None = None,
) -> Candidate:
    """A candidate's figures; those of training are None without a trial."""
    count = architecture.parameters(question.inputs)
    latency = latencies.candidates[str(architecture)] if latencies is not None else None
    return Candidate(
        architecture=str(architecture),
        parameters=count.total,
        encoder_parameters=count.encoder,
        operations=architecture.operations(question.inputs, question.config.latency_length),
        latency_ms=None if latency is None else latency.median_ms,
        latency_iqr_ms=(latency.q1_ms, latency.q3_ms) if isinstance(latency, Measured) else None,
        latency_predicted=isinstance(latency, Predicted),
        error=None if trial is None else trial.error,
        error_kind=question.config.error,
        hyperparameters=Hyperparameters() if trial is None else _theta(trial.settings),
        trial=None if trial is None else trial.number,
        w=w,
    )


def _theta(settings: Settings) -> Hyperparameters:
    return Hyperparameters(learning_rate=settings.learning_rate, batch_size=settings.batch_size)


def _limit_name(question: Question) -> str:
    return "max_latency_ms" if question.cost_unit == "ms" else "max_operations"


def _gap(question: Question, best: dict[Architecture, Trial]) -> GapRow | None:
    """What the untrained may still offer; None where there is no bound. Infinite figures become None."""
    error = np.full(len(question.costs), np.nan)
    for row, trial in question.rows(best).items():
        error[row] = trial.error
    gap = gap_under_total_order(question.problem, error)
    if gap is None:
        return None
    bound, least, absolute = (value if math.isfinite(value) else None for value in (gap.bound, gap.best, gap.absolute))
    architecture = None if gap.row is None else str(question.costs.architecture(gap.row))
    return GapRow(bound=bound, best=least, absolute=absolute, violations=gap.violations, architecture=architecture)


def _gap_sentence(gap: GapRow | None, question: Question, best: dict[Architecture, Trial]) -> str:
    affordable = int(question.affordable.sum())
    if not affordable:
        return f"None of the {len(question.costs)} candidates meets the limits known before training."
    skipped = affordable - sum(bool(question.affordable[row]) for row in question.rows(best))
    if not skipped:
        return f"All {affordable} candidates that meet the limits known before training were trained."
    text = f"{skipped} of the {affordable} candidates that meet the limits known before training were not trained. "
    if gap is None:
        return text + "There is no bound on how good they may be."
    if gap.architecture is None:
        text += "If errors fall as cost rises, none of them can meet the limits."
    elif gap.absolute:
        text += f"If errors fall as cost rises, {gap.architecture} may be better than the best trained one by "
        text += f"{gap.absolute:.4g}, and none by more."
    else:
        text += "If errors fall as cost rises, none of them is better than the best trained one."
    if gap.violations:
        text += f" But {gap.violations} pairs of trained neighbours contradict that, so this is no guarantee here."
    return text


def _agreement(best: dict[Architecture, Trial], trials: Sequence[Trial]) -> AbncAgreement | None:
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
        between = s, steps
    else:
        between = math.ceil(s / 2), s
        pairs = [(p.error, t.error) for t in best.values() for p in t.curve if p.step == between[0]]
    short, long = np.array(pairs, dtype=np.float64).reshape(-1, 2).T
    if len(pairs) < 3 or len(set(short)) == 1 or len(set(long)) == 1:
        return None
    return AbncAgreement(**asdict(abnc.rank_agreement(short, long)), steps=between)


def _order(
    question: Question, latencies: Latencies | None, best: dict[Architecture, Trial], trained: dict[str, Candidate]
) -> tuple[OrderRow, ...]:
    costs = question.costs
    # A certified search may ask for any row, and has no grid
    grid = set() if question.config.strategy == "certified" else set(question.strategy.rows.tolist())
    order = []
    for row in range(len(costs)) if len(costs) <= MOST_ROWS else sorted(grid or question.rows(best)):
        name = str(costs.architecture(row))
        found = trained.get(name)
        order.append(
            OrderRow(
                architecture=name,
                parameters=int(costs.parameters[row]),
                cost=float(question.cost[row]),
                cost_predicted=latencies is not None and isinstance(latencies.candidates[name], Predicted),
                trained=found is not None,
                grid=row in grid,
                error=None if found is None else found.error,
                w=None if found is None else found.w,
            )
        )
    return tuple(order)
