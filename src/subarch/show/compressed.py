"""What a compression came to, in five lines: what it is, against the teacher, what is certain, where, how to load it.

>>> print("\n".join(lines(found, Path("runs/mine"))))
"""

from __future__ import annotations

from pathlib import Path

from subarch.run.records import Certificate, Compressed, Selection, ServedFile, Serving
from subarch.show import formats
from subarch.show.card import USES


def lines(found: Compressed, run: Path) -> tuple[str, ...]:
    """The five lines; the last has two of Python. One alone where no candidate meets the limits."""
    if found.serving is None:
        return (f"nothing: {found.nearest}",)
    best = found.serving.best()
    return (
        f"got        {found.architecture}, {formats.count(found.parameters or 0)} parameters: {_file(best)}",
        f"against    {_against(found, best)}",
        f"certified  {found.certificate}",
        f"lies in    {run / str(best.folder)}; in PyTorch: {run / str(found.model)}; report: {run / 'report.html'}",
        f"load       {_load(found, best, run)}",
    )


def certified(selection: Selection) -> tuple[bool, str]:
    """Whether a search was finished, and what it proved, in a sentence."""
    proof = selection.certificate
    if proof is None:
        return False, selection.gap_sentence
    after = f"after {selection.strategy.steps} steps of training"
    trained = f"{len(proof.trained)} of {proof.candidates} candidates trained"
    if not proof.closed:
        return False, f"nothing, the search was not finished ({trained}): others may be better {after}"
    rest = len(proof.excluded)
    if not rest:
        return True, f"{trained}, all that meet the limits: none is better {after}"
    text = f"none of the {rest} others that meet the limits is better by more than {_by(proof)} {after} ({trained})"
    return True, text


def _by(proof: Certificate) -> str:
    reached = proof.aim if proof.reached is None else min(proof.aim, proof.reached)
    return f"{100 * max(proof.delta, reached):.2g} %"


def _file(file: ServedFile) -> str:
    threads = f"{file.threads} thread{'s' * (file.threads != 1)}"
    kept = "" if file.fidelity is None else f", fidelity {file.fidelity:.3f}"
    time = formats.milliseconds(file.median_ms)
    return f"{file.runtime} on {threads}: {time}, {formats.megabytes(file.bytes)}{kept}"


def _against(found: Compressed, best: ServedFile) -> str:
    """The teacher at its best in fp32 and in int8, and how many times as fast the student is."""
    theirs, parts = found.teacher_serving, []
    if theirs is not None:
        for name, int8 in (("fp32", False), ("int8", True)):
            if theirs.of(int8):
                file = theirs.best(int8)
                gain = formats.factor(file.median_ms / best.median_ms)
                parts.append(f"the teacher's {name} ({_file(file)}): {gain} as fast")
        if (same := theirs.same(best)) is not None:
            parts.append(f"in the same runtime: {formats.factor(same.median_ms / best.median_ms)}")
    elif found.teacher_ms is not None:
        gain = formats.factor(found.teacher_ms / best.median_ms)
        parts.append(f"the teacher in {found.runtime} ({formats.milliseconds(found.teacher_ms)}): {gain} as fast")
    if (scores := found.scores) is not None:
        share = f", {scores.ours / scores.theirs:.1%} kept" if scores.theirs > 0 else ""
        parts.append(f"held-out {scores.metric} {scores.ours:.3f}, the teacher's {scores.theirs:.3f}{share}")
    return "; ".join(parts) or f"{found.teacher}, which has no latency"


def _load(found: Compressed, best: ServedFile, run: Path) -> str:
    if best.runtime == "torch":
        code = USES[str(found.head)].code.replace("path/to/this/folder", str(run / str(best.folder)))
        first, second = code.replace("\n\n", "\n").split("\n")[:2]
    elif found.head in ("sentence", "pair regression"):
        first = "import subarch"
        second = f'model = subarch.load_model("{run / str(best.folder)}", threads={best.threads})'
    else:
        first = "from pathlib import Path; from subarch.exporting.runtimes import open_export"
        second = f'session = open_export(Path("{run / str(best.folder)}"), threads={best.threads})'
    return f"{first}\n           {second}"


def serving_sentence(theirs: Serving, asked: str) -> str:
    """Which runtime the search is limited in, and why."""
    best = theirs.best()
    text = f"asked for: {asked}, in what serves fastest here, {_file(best)}"
    for runtime, why in theirs.refused.items():
        text += f"; not {runtime}: {why}"
    return text
