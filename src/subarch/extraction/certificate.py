"""The certificate of a run, drawn from its trials: what excludes whom, what that rests on, and all of it in words.

    >>> found = certificate(question, study.trials())
    >>> found["excluded"]["2-12-192-512"], found["sentence"]
    ('3-12-384-512', 'Trained 9 of 60 candidates, ...')

`verify.py` checks such a record by other means.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from subarch.extraction.question import Question, noise_of, settled, thetas
from subarch.extraction.trial import Trial
from subarch.search import Certified
from subarch.search.evidence import Evidence
from subarch.search.noise import LEVEL

Certificate = dict[str, Any]


def certificate(question: Question, trials: Sequence[Trial]) -> Certificate | None:
    """What the trials prove of the question; None: it was asked of another strategy than `certified`."""
    config = question.config
    if config.strategy != "certified":
        return None
    strategy = Certified(question.problem, config.delta, config.audit)
    strategy.noise = noise_of(trials, thetas(config))
    errors = settled(question, trials)
    for row, error in errors.items():
        strategy.recall(row, error)
    complete = {trial.architecture for trial in trials if trial.settings in thetas(config)}
    for row in question.rows({trial.architecture: trial for trial in trials if trial.architecture in complete}):
        strategy.failed[row] = row not in errors
    evidence = strategy.evidence()

    def name(row: int) -> str:
        return str(question.costs.architecture(row))

    found = {
        "incumbent": None if evidence.incumbent is None else name(evidence.incumbent),
        "closed": evidence.closed,
        "delta": evidence.delta,
        "aim": evidence.aim,
        "reached": evidence.reached if math.isfinite(evidence.reached) else None,
        "noise": {
            "eta": evidence.eta,
            "deviation": strategy.noise.deviation,
            "freedom": strategy.noise.freedom,
            "level": LEVEL,
        },
        "slack": evidence.slack,
        "violations": evidence.violations,
        "heads": _heads(evidence),
        "audit": {
            "drawn": [name(row) for row in evidence.audited],
            "failures": evidence.failures,
            "failing": evidence.failing,
        },
        "candidates": len(question.costs),
        "affordable": int(question.affordable.sum()),
        "trained": [name(row) for row in errors],
        "excluded": {name(row): None if by < 0 else name(by) for row, by in evidence.because.items()},
    }
    return found | {"sentence": _sentence(question, evidence, found, set(errors))}


def _heads(evidence: Evidence) -> dict[str, Any] | None:
    """η_A, None: not measured; the pairs it was measured on, and what is aimed at for other numbers of heads."""
    if (heads := evidence.heads) is None:
        return None
    return {"eta": heads.eta if heads.pairs else None, "pairs": heads.pairs, "aim": heads.aim}


def _sentence(question: Question, evidence: Evidence, found: Certificate, trained: set[int]) -> str:
    affordable = found["affordable"]
    if not affordable:
        return f"None of the {found['candidates']} candidates meets the limits known beforehand."
    beyond = sum(not question.affordable[row] for row in trained)
    over = f" ({beyond} of them over a limit, to exclude others)" if beyond else ""
    text = f"Trained {len(trained)} of {found['candidates']} candidates{over}. "
    rest = len(found["excluded"])
    if found["incumbent"] is None:
        text += f"None meets all limits, and of the {rest} others within those known beforehand none can. "
    elif not evidence.closed:
        text += f"The search is not finished: among the {rest} others there may be better ones. "
    elif rest:
        text += f"The other {rest} that meet the limits cannot beat {found['incumbent']} by more than "
        text += _most_better(evidence)
        text += ", because each is too dear or no larger, in depth, hidden and intermediate size, than a trained one "
        text += f"whose error is too large: {_most(found)}. "
    else:
        text += "All that meet the limits were trained. "
    wider = evidence.aim if evidence.heads is None else evidence.heads.aim
    if wider > evidence.delta and evidence.reached > evidence.delta:
        why = "noise and violations" if wider == evidence.aim else "noise, violations and other numbers of heads"
        text += f"(Asked for were {_percent(evidence.delta)}; {why} leave no more within reach.) "
    return text + _rests_on(evidence, found)


def _most_better(evidence: Evidence) -> str:
    """By how much others may be better than the incumbent, those with other numbers of heads apart."""
    aims = [evidence.aim] if evidence.heads is None else [evidence.aim, evidence.heads.aim]
    nearest, *others = (_percent(max(evidence.delta, min(aim, evidence.reached))) for aim in aims)
    return nearest if others in ([], [nearest]) else f"{nearest}, or {others[0]} with another number of heads"


def _most(found: Certificate) -> str:
    """Which trained candidates exclude most."""
    counts = Counter(by for by in found["excluded"].values() if by is not None)
    shown = [f"{name} excludes {count}" for name, count in counts.most_common(3)]
    return ", ".join(shown) + (", ..." if len(counts) > len(shown) else "")


def _rests_on(evidence: Evidence, found: Certificate) -> str:
    noise = found["noise"]
    text = "This presumes that errors do not rise with size"
    if noise["freedom"]:
        text += f"; a measured one is off by at most {evidence.eta:.2g} (with probability {noise['level']:.2f}, from "
        text += f"{noise['freedom']} trainings with other seeds)"
    text += ". "
    if evidence.violations:
        text += f"{evidence.violations} trained pairs contradict it, and all bounds are wider by {evidence.slack:.2g}. "
    else:
        text += "No trained pair contradicts it. "
    if evidence.heads is not None and (pairs := evidence.heads.pairs):
        text += "It is presumed too that no other number of heads has a lower error than the nearest by more than "
        text += f"{evidence.heads.eta:.2g}, as measured on {pairs} {'pairs' if pairs > 1 else 'pair'}. "
    if drawn := len(evidence.audited):
        contradict = f"{evidence.failures or 'none'} contradict{'s' if evidence.failures < 2 else ''}"
        text += f"Of {drawn} excluded candidates drawn at random, {contradict} it: with "
        text += f"probability {noise['level']:.2f} at most {_percent(evidence.failing)} of all excluded do. "
    return text.rstrip()


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
