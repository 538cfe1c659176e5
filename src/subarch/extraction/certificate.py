"""The certificate of a run, drawn from its trials: which trained candidate excludes which other, and why; in words.

    >>> found = certificate(question, study.trials())
    >>> found.excluded["2-12-192-512"], found.sentence
    ('3-12-384-512', 'Trained 9 of 60 candidates. ...')

All that the sentence says follows from the record. `verify` checks such a record by other means.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np

from subarch.extraction.question import Question, noise_of, settled, thetas
from subarch.extraction.trial import Trial
from subarch.numbers.architecture import Architecture
from subarch.run.records import Certificate, CertificateAudit, CertificateHeads, CertificateNoise
from subarch.search import Certified
from subarch.search.noise import LEVEL


def certificate(question: Question, trials: Sequence[Trial]) -> Certificate | None:
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
    heads = None if config.heads == "nearest" else _heads(question, trials, best)
    noise, deviation = strategy.noise, strategy.noise.deviation
    found = Certificate(
        incumbent=None if best is None else str(best),
        closed=evidence.closed and (heads is None or not heads.left),
        delta=evidence.delta,
        aim=evidence.aim,
        reached=evidence.reached if math.isfinite(evidence.reached) else None,
        noise=CertificateNoise(eta=evidence.eta, deviation=deviation, freedom=noise.freedom, level=LEVEL),
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
    return found.model_copy(update={"sentence": sentence(found)})


def _heads(question: Question, trials: Sequence[Trial], incumbent: Architecture | None) -> CertificateHeads:
    """What was trained of the numbers of heads that the incumbent's shape can have."""
    if incumbent is None:
        return CertificateHeads(candidates=0, over=0, failed=0, left=(), best=None)
    rows = question.head_counts(incumbent)
    within = [row for row in rows if question.affordable[row]]
    known = settled(question, trials)
    errors = {row: error for row in within if (error := known.get(row)) is not None}
    problem, trained, e = question.problem, list(errors), np.array(list(errors.values()))
    value = question.objective.value(problem.parameters[trained], problem.cost[trained], e)
    best = trained[int(np.lexsort((e, problem.cost[trained], value))[0])]
    return CertificateHeads(
        candidates=len(rows),
        over=len(rows) - len(within),
        failed=sum(row in known and row not in errors for row in within),
        left=tuple(str(question.costs.architecture(row)) for row in within if row not in known),
        best=str(question.costs.architecture(best)),
    )


def sentence(found: Certificate) -> str:
    """What was trained, what the others cannot do and why, and which assumptions that rests on."""
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
        text += f"{_list(missing)} were not trained. " if missing else f"the {rest} others may include better ones. "
    elif rest:
        text += f"None of the other {rest} that meet the limits can beat {found.incumbent} by more than "
        text += f"{_percent(max(found.delta, min(found.aim, _reached(found))))}: each is "
        text += "too expensive to win or " if None in found.excluded.values() else ""
        text += "no larger in depth, hidden and intermediate size than a trained candidate whose error is too large "
        text += f"({_most(found)}). "
    else:
        text += "All that meet the limits were trained. "
    return (text + _tightness(found) + _other_heads(found) + _assumptions(found)).rstrip()


def _tightness(found: Certificate) -> str:
    """Why less is claimed than was asked for, if it is."""
    if found.aim <= found.delta or _reached(found) <= found.delta:
        return ""
    causes = []
    if found.noise.eta:
        causes.append(f"random seed noise ({found.noise.freedom} trainings with other seeds)")
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
        text += f", and that a measured error is within {noise.eta:.2g} of its mean over seeds (with probability "
        text += f"{noise.level:.2f}, from {noise.freedom} trainings with other seeds)"
    text += ". "
    if count := found.violations:
        pairs = "1 trained pair contradicts" if count == 1 else f"{count} trained pairs contradict"
        text += f"{pairs} the order by up to {found.slack:.2g}, and all bounds are lowered by that. "
    else:
        text += "No trained pair contradicts the order. "
    if drawn := len(audit.drawn):
        contradict = f"{audit.failures or 'none'} contradict{'s' if audit.failures < 2 else ''}"
        text += f"Of {drawn} excluded candidates that were drawn at random and trained, {contradict} it: with "
        text += f"probability {noise.level:.2f} at most {_percent(audit.failing)} of all excluded ones do. "
    return text


def _reached(found: Certificate) -> float:
    return math.inf if found.reached is None else float(found.reached)


def _most(found: Certificate) -> str:
    """Which trained candidates exclude most."""
    counts = Counter(by for by in found.excluded.values() if by is not None)
    shown = [f"{name} excludes {count}" for name, count in counts.most_common(3)]
    return ", ".join(shown) + (", ..." if len(counts) > len(shown) else "")


def _list(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} others" if len(names) > 3 else "")


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
