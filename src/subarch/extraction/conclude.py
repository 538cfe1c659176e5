"""From trials to `selection.json`: who wins, what else is on the frontier, why the others lost, what it rests on.

Nothing here trains or measures: the same trials can answer another objective or limit.

    >>> selection, order = conclude(question, basis, latencies, study.trials())
    >>> selection.winner.architecture, selection.certificate.sentence
    ('3-12-384-512', 'Trained 9 of 60 candidates. ...')
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from subarch.errors import InvalidConfig, InvalidStudy, TrainingDiverged
from subarch.extraction.layers import rises, sentence
from subarch.extraction.question import Question, best_trials, limit_interval, noise_of, settled, thetas
from subarch.extraction.trial import Settings, Trial
from subarch.latency.interval import Interval, doubt, interval, side
from subarch.numbers import abnc
from subarch.numbers.architecture import Architecture
from subarch.numbers.objectives import w_coefficient, w_warning
from subarch.numbers.selection import Selection as Choice
from subarch.numbers.selection import nearest, select
from subarch.numbers.space import rows_of
from subarch.run.records import (
    Abnc,
    AbncAgreement,
    AbncCondition,
    Basis,
    Candidate,
    Certificate,
    CertificateAudit,
    CertificateHeads,
    CertificateLatency,
    CertificateNoise,
    GapRow,
    Hyperparameters,
    Latencies,
    LatencyMeasurement,
    LatencyModelErrors,
    Layers,
    LedgerRow,
    Limits,
    Measured,
    Nearest,
    OrderRow,
    Predicted,
    SearchStrategy,
    Selection,
)
from subarch.search import Certified, Evidence
from subarch.search.base import gap_under_total_order
from subarch.search.noise import LEVEL, floor

VERSION = 1
MOST_ROWS = 5_000
"""Candidates drawn in the report; of larger spaces only the trained ones are."""
BUSY, WIDE = 0.25, 0.2
"""Cores missing while latencies were measured, and the relative width of intervals, above which the user is warned."""
NEAR = 1.25
"""A latency this many times the limit, or further away, is on its side of it whatever the machine does."""
_MODEL_ERRORS = set(LatencyModelErrors.model_fields)
DRIFT = 0.15
"""A change of the machine's speed between measurements above which the user is warned; it was corrected for."""


def conclude(
    question: Question,
    basis: Basis,
    latencies: Latencies | None,
    trials: Sequence[Trial],
    layers: Layers | None = None,
) -> tuple[Selection, tuple[OrderRow, ...]]:
    """The selection, and the candidates in order of cost as the report draws them. `layers`: where any are inherited.

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
    undecided = set(question.undecided)
    chosen = _choose(question, candidates, list(question.rows(best)))
    reasons = dict(chosen.reasons) if chosen is not None else {}
    reasons |= {at: _open_in_words(one, question) for at, one in enumerate(candidates) if one.architecture in undecided}
    candidates = [one.model_copy(update={"reason": reasons.get(at)}) for at, one in enumerate(candidates)]
    names = [candidate.architecture for candidate in candidates]
    winner = candidates[chosen.winner] if chosen is not None and chosen.winner is not None else None
    proof = certificate(question, trials, latencies)
    gap = _gap(question, best) if proof is None else None
    conditions = abnc.check(question.space, question.inputs, config.latency_length, question.longer)
    latency = None if latencies is None else measurement(latencies)
    teacher_ms = latencies.teacher.median_ms if latencies is not None and latencies.teacher is not None else None
    ledger = [LedgerRow(what="corpus, teacher targets, anatomy", seconds=basis.seconds)]
    if latencies is not None:
        ledger.append(LedgerRow(what="latency measurements", seconds=latencies.seconds))
    if layers is not None and layers.trials:
        what = f"{len(layers.trials)} short trainings to choose layers, summed over workers"
        ledger.append(LedgerRow(what=what, seconds=layers.seconds))
    seconds = sum(trial.seconds for trial in trials)
    ledger.append(LedgerRow(what=f"{len(trials)} trials, summed over workers", seconds=seconds))
    warnings = list(latency.warnings) if latency is not None else []
    if warning := w_warning(objective.name, config.measures):
        warnings.insert(0, warning)
    for shallow, deep in rises(layers) if layers is not None else ():
        warnings.append(
            f"In the trials of layers the error was greater at depth {deep} than at depth {shallow}: the certificate "
            "presumes that it does not rise with depth, and says how many trained candidates contradict that."
        )
    if undecided:
        warnings.append(
            f"{_are(question.undecided)} not told apart from the limit on latency, and "
            f"{_counts(question.undecided)} as over it; a quiet machine may tell: subarch select RUN --remeasure."
        )
    if failures:
        warnings.append(f"{len(failures)} trials failed; the table of trials gives their reasons.")
    selection = Selection(
        version=VERSION,
        objective=Limits(
            name=objective.name,
            max_parameters=objective.max_parameters,
            max_error=objective.max_error,
            keep=config.keep,
            **_other_limits(question),
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
        layers_sentence=sentence(layers) if layers is not None else None,
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


def _other_limits(question: Question) -> dict[str, Any]:
    """The limit on cost, by the name that its unit gives it, and that on the file, where there is one."""
    objective = question.objective
    limits: dict[str, Any] = {_limit_name(question): objective.max_cost}
    if objective.max_megabytes is not None:
        limits |= {"max_megabytes": objective.max_megabytes, "megabytes_in": question.config.runtime}
    return limits


def measurement(latencies: Latencies) -> LatencyMeasurement:
    """How latencies came about: conditions, counts, the model's errors, all of it in a sentence, and warnings."""
    settings, model, entries = latencies.settings, latencies.model, latencies.candidates.values()
    measured = [entry for entry in entries if isinstance(entry, Measured)]
    predicted = len(entries) - len(measured)
    drift = max((abs(entry.drift - 1) for entry in measured), default=0.0)
    others = max((entry.others for entry in measured if entry.others is not None), default=0.0)
    cores = latencies.machine.cores.logical or latencies.machine.cores.usable
    widths = [(high - low) / entry.median_ms for entry in measured for low, high in [interval(entry.visits)]]
    width = float(np.median(widths)) if widths else 0.0
    at = f"at {settings.length} tokens"
    if isinstance(settings.length, tuple):
        at = f"at the lengths of the corpus (the mean over {', '.join(map(str, settings.length))} tokens)"
    sentence = f"Latency is that of a forward pass of batch {settings.batch} {at} in {settings.runtime} on "
    sentence += f"{settings.threads} thread{'s' * (settings.threads != 1)}; "
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
    if settings.threads + others > cores + BUSY:
        warnings.append(
            f"Other programs kept {others:.1f} of {cores} cores busy while latencies were measured on "
            f"{settings.threads}: they are too long and uneven. Measure on a quiet machine: --remeasure."
        )
    if width > WIDE:
        warnings.append(
            f"The latencies are uneven: half of their intervals are wider than {100 * width:.0f} % of the latency. "
            "Measure on a quiet machine: --remeasure."
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
        raise InvalidConfig(f"the error of {zero} is {errors.min():g} and W divides by it; use the objective 'error'")
    trained = zip(rows.values(), w, strict=True)
    return [_row(trial.architecture, question, latencies, trial, value) for trial, value in trained]


def _choose(question: Question, candidates: list[Candidate], rows: list[int]) -> Choice | None:
    """None where nothing was trained, since nothing is affordable. `rows` are those of the candidates."""
    if not candidates:
        return None
    costs = question.cost[rows] if question.cost_unit == "ms" else [one.operations for one in candidates]
    parameters, errors = [one.parameters for one in candidates], [one.error for one in candidates]
    names = [one.architecture for one in candidates]
    size = None if question.problem.megabytes is None else [one.megabytes for one in candidates]
    return select(question.objective, parameters, costs, errors, question.cost_unit, names, size)  # type: ignore[arg-type]


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
        size = question.problem.megabytes
        found = nearest(question.objective, costs.parameters, question.cost, None, question.cost_unit, names, size)
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
    size: dict[str, Any] = {}
    if question.problem.megabytes is not None:
        (row,) = np.flatnonzero(rows_of(question.costs.table, architecture))
        size["megabytes"] = float(question.problem.megabytes[row])
    return Candidate(
        **size,
        architecture=str(architecture),
        parameters=count.total,
        encoder_parameters=count.encoder,
        embedding_parameters=count.embeddings,
        operations=architecture.operations(
            question.inputs, question.longer.get(architecture.vocabulary, question.config.latency_length)
        ),
        latency_ms=None if latency is None else latency.median_ms,
        latency_interval_ms=_interval(latency) if isinstance(latency, Measured) else None,
        latency_predicted=isinstance(latency, Predicted),
        error=None if trial is None else trial.error,
        error_kind=question.config.measures,
        hyperparameters=Hyperparameters() if trial is None else _theta(trial.settings),
        trial=None if trial is None else trial.number,
        w=w,
    )


def _interval(latency: Measured) -> Interval:
    """Of few visits all that is known is their range."""
    low, high = interval(latency.visits)
    return (low, high) if math.isfinite(high) else (min(latency.visits), max(latency.visits))


def _open_in_words(one: Candidate, question: Question) -> str:
    assert one.latency_interval_ms is not None
    low, high = one.latency_interval_ms
    return (
        f"cannot be told apart from the latency limit: {one.latency_ms:.3g} ms, between {low:.3g} and {high:.3g}, at "
        f"{question.objective.max_cost:.3g} ms; the safer side is taken"
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


def certificate(question: Question, trials: Sequence[Trial], latencies: Latencies | None) -> Certificate | None:
    """What the trials prove of the question; None: it was asked of another strategy than `certified`."""
    config, searched = question.config, question.searched
    if config.strategy != "certified":
        return None
    strategy = Certified(searched.problem, config.delta, config.audit)
    strategy.noise = noise_of(trials, thetas(config))
    known = settled(searched, trials)
    errors = {row: error for row, error in known.items() if error is not None}
    for row, error in errors.items():
        strategy.recall(row, error)
    strategy.failed[[row for row in known if row not in errors]] = True
    evidence = strategy.evidence()

    def name(row: int) -> str:
        return str(searched.costs.architecture(row))

    best = None if evidence.incumbent is None else searched.costs.architecture(evidence.incumbent)
    heads = None if config.heads == "nearest" else _heads_trained(question, trials, best)
    latency = None if latencies is None else _limited(question, latencies, {name(row) for row in errors})
    equal = () if evidence.incumbent is None else _equal(strategy, evidence, latencies, name)
    noise, deviation = strategy.noise, strategy.noise.scale(same_scale=question.objective.name == "error")
    found = Certificate(
        incumbent=None if best is None else str(best),
        closed=evidence.closed and (heads is None or not heads.left),
        delta=evidence.delta,
        aim=evidence.aim,
        reached=evidence.reached if math.isfinite(evidence.reached) else None,
        noise=CertificateNoise(eta=evidence.eta, deviation=deviation, freedom=noise.freedom, level=LEVEL),
        latency=latency,
        probability=together(noise.freedom, latency),
        equal=equal,
        slack=evidence.slack,
        violations=evidence.violations,
        heads=heads,
        audit=CertificateAudit(
            drawn=tuple(name(row) for row in evidence.audited), failures=evidence.failures, failing=evidence.failing
        ),
        candidates=len(searched.costs),
        affordable=int(searched.affordable.sum()),
        trained=tuple(name(row) for row in errors),
        over=sum(not searched.affordable[row] for row in errors),
        excluded={name(row): None if by < 0 else name(by) for row, by in evidence.because.items()},
        sentence="",
    )
    return found.model_copy(update={"sentence": certificate_sentence(found)})


def together(freedom: int, latency: CertificateLatency | None) -> float:
    """The probability of errors and of latencies, by the union bound."""
    return max(0.0, (LEVEL if freedom else 1.0) - (0.0 if latency is None else 1 - latency.probability))


def _limited(question: Question, latencies: Latencies, trained: set[str]) -> CertificateLatency | None:
    """What may be wrong with the side of the limit that latencies are on; None: there is no limit.

    The candidate that was selected has to be within it, and it is one of those that were trained: all of these count
    that are near. The best of all has to be seen to be within it, if it is: whichever that is, it is one. A teacher
    whose latency the limit is a share of may be off to either side.
    """
    limit = limit_interval(question.config, latencies.teacher)
    if limit is None:
        return None
    measured = {n: entry for n, entry in latencies.candidates.items() if isinstance(entry, Measured)}
    near = {n: e for n, e in measured.items() if limit[0] / NEAR <= e.median_ms <= limit[1] * NEAR}
    doubts = {n: doubt(entry.blocks) for n, entry in near.items() if n not in question.undecided}
    total = sum(value for n, value in doubts.items() if n in trained)
    total += max((value for n, value in doubts.items() if n not in trained), default=0.0)
    ratio = question.config.max_latency_ratio
    if ratio is not None and latencies.teacher is not None:
        total += 2 * doubt(latencies.teacher.blocks)
    return CertificateLatency(
        ratio=ratio,
        limit_ms=limit,
        undecided=tuple(sorted(question.undecided)),
        near=len(doubts),
        probability=max(0.0, 1 - total),
    )


def _equal(
    strategy: Certified, evidence: Evidence, latencies: Latencies | None, name: Callable[[int], str]
) -> tuple[str, ...]:
    """The trained candidates that may be as good as the incumbent: less η, or by a latency that may be as low."""
    problem, best = strategy.problem, evidence.incumbent
    trained = np.flatnonzero(~np.isnan(strategy.error))
    errors = strategy.error[trained]
    values, reference = problem.values(trained, errors), float(strategy.error[best])
    if problem.objective.name != "latency":
        may = problem.values(trained, floor(errors, evidence.eta, reference)) <= values[trained == best]
        return tuple(sorted(name(row) for row in trained[may] if row != best))
    if latencies is None:
        return ()
    entries = {row: latencies.candidates[name(row)] for row in trained[np.isfinite(values)]}
    measured = {row: interval(entry.visits) for row, entry in entries.items() if isinstance(entry, Measured)}
    same = [row for row, own in measured.items() if row != best and side(own, measured[best]) == "open"]
    return tuple(sorted(name(row) for row in same))


def _heads_trained(question: Question, trials: Sequence[Trial], incumbent: Architecture | None) -> CertificateHeads:
    """What was trained of the numbers of heads that the incumbent's shape can have."""
    if incumbent is None:
        return CertificateHeads(candidates=0, over=0, failed=0, left=(), best=None)
    rows = question.head_counts(incumbent)
    within = [row for row in rows if question.affordable[row]]
    known = settled(question, trials)
    errors = {row: error for row in within if (error := known.get(row)) is not None}
    problem, trained, e = question.problem, list(errors), np.array(list(errors.values()))
    value = problem.values(trained, e)
    best = trained[int(np.lexsort((e, problem.cost[trained], value))[0])]
    return CertificateHeads(
        candidates=len(rows),
        over=len(rows) - len(within),
        failed=sum(row in known and row not in errors for row in within),
        left=tuple(str(question.costs.architecture(row)) for row in within if row not in known),
        best=str(question.costs.architecture(best)),
    )


def certificate_sentence(found: Certificate) -> str:
    """A certificate in words: what was trained, why no other is better, and which assumptions that rests on."""
    if not found.affordable:
        return f"None of the {found.candidates} candidates meets the limits known before training."
    over = f" ({found.over} of them over a limit, to exclude others)" if found.over else ""
    text = f"Trained {len(found.trained)} of {found.candidates} candidates{over}. "
    if found.heads is not None:
        text = f"For each shape only the number of heads nearest to the teacher's head size was searched. {text}"
    rest, missing = len(found.excluded), () if found.heads is None else found.heads.left
    if found.incumbent is None:
        text += f"None of them meets all limits, and none of the {rest} others within the limits known before can. "
    elif not found.closed:
        text += "The search is not finished: "
        text += f"{_listed(missing)} were not trained. " if missing else f"the {rest} others may include better ones. "
    elif rest:
        text += f"None of the other {rest} that meet the limits can beat {found.incumbent} by more than "
        text += f"{_percent(max(found.delta, min(found.aim, _reached(found))))}: each is "
        text += "too expensive to win or " if None in found.excluded.values() else ""
        kept = " and vocabulary" if any(name.count("-") > 3 for name in found.excluded) else ""
        text += f"no larger in depth, hidden and intermediate size{kept} than a trained candidate whose error is too "
        text += "large "
        text += f"({_excluding_most(found)}). "
    else:
        text += "All that meet the limits were trained. "
    return (text + _tightness(found) + _other_heads(found) + _assumptions(found)).rstrip()


def _tightness(found: Certificate) -> str:
    if found.aim <= found.delta or _reached(found) <= found.delta:
        return ""
    causes = []
    if found.noise.eta:
        causes.append("random seed noise")
    if found.violations:
        causes.append(f"{found.violations} pairs of errors that contradict the order")
    return f"(Asked for was {_percent(found.delta)}; {' and '.join(causes)} prevent a tighter bound.) "


def _other_heads(found: Certificate) -> str:
    heads = found.heads
    if heads is None or found.incumbent is None or not found.closed:
        return ""
    trained = heads.candidates - heads.over - heads.failed
    text = f"Of the {heads.candidates} numbers of heads that its shape can have, {trained} were trained"
    text += f", {heads.over} are over a limit" if heads.over else ""
    text += f", {heads.failed} failed" if heads.failed else ""
    return f"{text}; {heads.best} is the best. Other numbers of heads of other shapes were not searched. "


def _assumptions(found: Certificate) -> str:
    noise, audit = found.noise, found.audit
    text = "This assumes that errors do not rise with size"
    if noise.freedom:
        text += (
            f", and that measured differences of two errors are within {noise.eta:.2g} of those of their means over "
        )
        text += (
            f"seeds (all of them at once with probability {noise.level:.2f}, from {noise.freedom} degrees of freedom)"
        )
    else:
        text += ", and that they are exact, since nothing was trained with another seed"
    text += ". "
    if count := found.violations:
        pairs = "1 trained pair contradicts" if count == 1 else f"{count} trained pairs contradict"
        text += f"{pairs} the order by up to {found.slack:.2g}, and all bounds are lowered by that. "
    else:
        text += "No trained pair contradicts the order. "
    text += _latency_in_words(found)
    if drawn := len(audit.drawn):
        contradict = f"{audit.failures or 'none'} contradict{'s' if audit.failures < 2 else ''}"
        text += f"Of {drawn} excluded candidates that were drawn at random and trained, {contradict} it: with "
        text += f"probability {noise.level:.2f} at most {_percent(audit.failing)} of all excluded ones do. "
    return text


def _latency_in_words(found: Certificate) -> str:
    text, latency = "", found.latency
    if latency is not None:
        text += f"Of {latency.near} measured latencies near the limit all that decide are on their side of it with "
        text += f"probability {latency.probability:.2f}; errors and latencies hold together with "
        text += f"{found.probability:.2f}. "
        if latency.undecided:
            text += (
                f"{_are(latency.undecided)} not told apart from the limit, and {_counts(latency.undecided)} as over "
            )
            text += "it. "
    if found.equal:
        text += f"Not told apart from {found.incumbent} {'are' if len(found.equal) > 1 else 'is'} "
        text += f"{_listed(found.equal)}. "
    return text


def _are(names: Sequence[str]) -> str:
    return f"{_listed(names)} {'is' if len(names) == 1 else 'are'}"


def _counts(names: Sequence[str]) -> str:
    return "counts" if len(names) == 1 else "count"


def _reached(found: Certificate) -> float:
    return math.inf if found.reached is None else float(found.reached)


def _excluding_most(found: Certificate) -> str:
    """Which trained candidates exclude most."""
    counts = Counter(by for by in found.excluded.values() if by is not None)
    shown = [f"{name} excludes {count}" for name, count in counts.most_common(3)]
    return ", ".join(shown) + (", ..." if len(counts) > len(shown) else "")


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} others" if len(names) > 3 else "")


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
