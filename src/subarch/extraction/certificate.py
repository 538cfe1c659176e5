"""The certificate of a run, drawn from its trials: what excludes whom, and what that rests on.

    >>> found = certificate(question, study.trials())
    >>> found["excluded"]["2-12-192-512"], found["sentence"]
    ('3-12-384-512', 'Trained 9 of 60 candidates. ...')

`verify.py` checks such a record by other means.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from subarch.extraction.certificate_words import Certificate, sentence
from subarch.extraction.question import Question, noise_of, settled, thetas
from subarch.extraction.trial import Trial
from subarch.search import Certified
from subarch.search.evidence import Evidence
from subarch.search.noise import LEVEL


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
        "over": sum(not question.affordable[row] for row in errors),
        "excluded": {name(row): None if by < 0 else name(by) for row, by in evidence.because.items()},
    }
    return found | {"sentence": sentence(found)}


def _heads(evidence: Evidence) -> dict[str, Any] | None:
    """η_A, None: not measured; the pairs it was measured on, and what is aimed at for other numbers of heads."""
    if (heads := evidence.heads) is None:
        return None
    return {"eta": heads.eta if heads.pairs else None, "pairs": heads.pairs, "aim": heads.aim}
