"""A certificate in words. All that is said follows from the record, so that whoever checks it can say it again.

>>> sentence(found)
'Trained 9 of 60 candidates. The other 51 that meet the limits cannot beat 2-12-384-512 by more than 1 %, ...'
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

Certificate = dict[str, Any]


def sentence(found: Certificate) -> str:
    """What was trained, what the others cannot do and why, and what that presumes."""
    if not found["affordable"]:
        return f"None of the {found['candidates']} candidates meets the limits known beforehand."
    over = f" ({found['over']} of them over a limit, to exclude others)" if found["over"] else ""
    text = f"Trained {len(found['trained'])} of {found['candidates']} candidates{over}. "
    rest = len(found["excluded"])
    if found["incumbent"] is None:
        text += f"None meets all limits, and of the {rest} others within those known beforehand none can. "
    elif not found["closed"]:
        text += f"The search is not finished: among the {rest} others there may be better ones. "
    elif rest:
        text += f"The other {rest} that meet the limits cannot beat {found['incumbent']} by more than "
        text += _most_better(found)
        text += ", because each is too dear or no larger, in depth, hidden and intermediate size, than a trained one "
        text += f"whose error is too large: {_most(found)}. "
    else:
        text += "All that meet the limits were trained. "
    wider = _aims(found)[-1]
    if wider > found["delta"] and _reached(found) > found["delta"]:
        why = "noise and violations" if wider == found["aim"] else "noise, violations and other numbers of heads"
        text += f"(Asked for were {_percent(found['delta'])}; {why} leave no more within reach.) "
    return text + _rests_on(found)


def _aims(found: Certificate) -> list[float]:
    """What is aimed at, and where the number of heads was free, what for other numbers of heads."""
    return [found["aim"]] if found["heads"] is None else [found["aim"], found["heads"]["aim"]]


def _reached(found: Certificate) -> float:
    return math.inf if found["reached"] is None else float(found["reached"])


def _most_better(found: Certificate) -> str:
    """By how much others may be better than the incumbent, those with other numbers of heads apart."""
    nearest, *others = (_percent(max(found["delta"], min(aim, _reached(found)))) for aim in _aims(found))
    return nearest if others in ([], [nearest]) else f"{nearest}, or {others[0]} with another number of heads"


def _most(found: Certificate) -> str:
    """Which trained candidates exclude most."""
    counts = Counter(by for by in found["excluded"].values() if by is not None)
    shown = [f"{name} excludes {count}" for name, count in counts.most_common(3)]
    return ", ".join(shown) + (", ..." if len(counts) > len(shown) else "")


def _rests_on(found: Certificate) -> str:
    noise, heads, audit = found["noise"], found["heads"], found["audit"]
    text = "This presumes that errors do not rise with size"
    if noise["freedom"]:
        text += f"; a measured one is off by at most {noise['eta']:.2g} (with probability {noise['level']:.2f}, from "
        text += f"{noise['freedom']} trainings with other seeds)"
    text += ". "
    if found["violations"]:
        text += f"{found['violations']} trained pairs contradict it, and all bounds are wider by {found['slack']:.2g}. "
    else:
        text += "No trained pair contradicts it. "
    if heads is not None and (pairs := heads["pairs"]):
        text += "It is presumed too that no other number of heads has a lower error than the nearest by more than "
        text += f"{heads['eta']:.2g}, as measured on {pairs} {'pairs' if pairs > 1 else 'pair'}. "
    if drawn := len(audit["drawn"]):
        contradict = f"{audit['failures'] or 'none'} contradict{'s' if audit['failures'] < 2 else ''}"
        text += f"Of {drawn} excluded candidates drawn at random, {contradict} it: with "
        text += f"probability {noise['level']:.2f} at most {_percent(audit['failing'])} of all excluded do. "
    return text.rstrip()


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"
