"""Check a certificate again, from the study, by other means than those that made it.

Nothing of the search is used here: errors come from the trials in the study, parameters and operations from the closed
forms of `Architecture`, latencies from the record of measurements, in plain loops over the space. Each candidate must
have been trained, or exceed a limit known before training, or be no larger in depth, hidden and intermediate size and
vocabulary than the trained one named as its excluder, whose error, less noise and slack, leaves it no value that beats
the incumbent's by more than is claimed. Noise is what is left of errors by candidate and seed when both are swept out
in turn, and of η it is the probability that is computed. With `heads: all` this is asked of the number of heads nearest
to the teacher's head size; of the incumbent's shape every other number must have been trained, or have failed, or be
over a limit.

    >>> verify(Path("runs/mine"))
    ['148 candidates: 11 trained, 60 over a limit, 77 excluded for a reason that holds', ...]
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean, median
from typing import Any, cast

import numpy as np
from scipy import stats

from subarch.errors import InvalidStudy
from subarch.exporting.config import RuntimeName
from subarch.exporting.size import megabytes
from subarch.extraction.conclude import certificate_sentence
from subarch.extraction.config import ExtractConfig
from subarch.extraction.study import Study, sqlite
from subarch.numbers.architecture import Architecture, Inputs
from subarch.run.folder import RunFolder
from subarch.run.records import Basis, Certificate, Latencies, LatencySettings, Measured, Selection, Space, StudyName

LEVEL, TAIL, ROUNDING = 0.95, 0.005, 1e-9
_SETTINGS = set(LatencySettings.model_fields)


@dataclass(frozen=True)
class Candidate:
    shape: tuple[float, ...]
    """D, H, I and V; the whole vocabulary is larger than any other."""
    parameters: int
    cost: float
    affordable: bool
    error: float | None
    failed: bool


def verify(path: Path) -> list[str]:
    """What was found to hold, a sentence each.

    Raises:
        InvalidStudy: there is no certificate, or it does not follow from the study; the message says where.
    """
    run = RunFolder.open(path)
    selection = run.read(Selection)
    if (certificate := selection.certificate) is None:
        raise InvalidStudy(f"{path}: has no certificate: it was searched by strategy {selection.strategy.name}")
    check = _Check(path, selection, certificate)
    errors, failed = check.trials(run)
    everything = check.candidates(run, errors, failed)
    candidates = {name: one for name, one in everything.items() if name in check.nearest}
    later = check.trained_since(candidates)
    trained = {name: one for name, one in candidates.items() if one.error is not None}
    check.sides_of_the_limit(trained)
    check.same("closed", certificate.closed, True)
    check.same("delta", certificate.delta, run.config(ExtractConfig).delta)
    check.same("confidence level of the noise", certificate.noise.level, LEVEL)
    check.same("trained candidates", sorted(certificate.trained), sorted(trained))
    check.same("number of candidates", certificate.candidates, len(candidates))
    check.same("affordable candidates", certificate.affordable, sum(one.affordable for one in candidates.values()))
    eta = check.noise(errors, len(trained))
    slack = check.slack(trained, eta)
    check.equal(trained, eta)
    excluded = check.exclusions(candidates, trained, eta, slack)
    check.audit(trained, eta)
    check.not_beaten_by(later, trained)
    check.heads(everything, run.config(ExtractConfig).heads == "all")
    check.in_words(trained)
    near = certificate.latency
    over = sum(not one.affordable and one.error is None for one in candidates.values())
    heads = certificate.heads
    return [
        f"{len(candidates)} candidates: {len(trained)} trained, {over} over a limit, {excluded} correctly excluded",
        f"the errors are those of the study; noise {eta:.3g}, slack {slack:.3g}",
        f"{certificate.incumbent} is the best trained candidate; no other can be better by more than "
        f"{certificate.reached or 0:.3g}, noise included",
        *(
            [
                f"latencies: {near.near} near the limit are on their side of it, {len(near.undecided)} not told apart "
                f"from it; errors and latencies hold together with probability {certificate.probability:.3f}"
            ]
            if near
            else []
        ),
        f"audit: {certificate.audit.failures} of {len(certificate.audit.drawn)} contradict the order",
        *([f"of {heads.candidates} numbers of heads of its shape {heads.best} has the best"] if heads else []),
    ]


class _Check:
    def __init__(self, path: Path, selection: Selection, certificate: Certificate) -> None:
        self.path, self.selection, self.certificate = path, selection, certificate
        self.objective, self.kind = selection.objective, selection.objective.name
        self.visits: dict[str, Measured] = {}
        self.teacher: Measured | None = None

    def fail(self, what: str) -> InvalidStudy:
        return InvalidStudy(f"{self.path}/selection.json: the certificate does not follow from the study: {what}")

    def same(self, what: str, claimed: Any, found: Any) -> None:
        close = isinstance(found, float) and claimed is not None and math.isclose(claimed, found, rel_tol=ROUNDING)
        if not close and claimed != found:
            raise self.fail(f"{what}: claimed {claimed}, recomputed {found}")

    def trials(self, run: RunFolder) -> tuple[dict[str, dict[int, float]], set[str]]:
        """The least error over Θ by candidate and seed, where all of Θ was trained; and who failed with all of it."""
        study = run.config(ExtractConfig).database or sqlite(self.path / "study.db")
        steps, thetas = self.selection.strategy.steps, self.selection.strategy.hyperparameters
        wanted = {(theta.learning_rate, theta.batch_size) for theta in thetas}
        found: dict[str, dict[int, list[float]]] = {}
        trials = Study.open(study, run.read(StudyName).value, run.read(Basis).identity).trials()
        for trial in {trial.key: trial for trial in trials}.values():
            theta = trial.settings.learning_rate, trial.settings.batch_size
            if trial.settings.steps == steps and theta in wanted:
                name = str(trial.architecture)
                one = found.setdefault(name, {}).setdefault(trial.settings.seed, [])
                one.append(math.inf if trial.error is None else trial.error)
        complete = {
            name: {seed: min(errors) for seed, errors in seeds.items() if len(errors) == len(wanted)}
            for name, seeds in found.items()
        }
        self.seed = run.config(ExtractConfig).seed
        failed = {name for name, seeds in complete.items() if seeds.get(self.seed) == math.inf}
        finite = {name: {s: e for s, e in seeds.items() if e < math.inf} for name, seeds in complete.items()}
        return finite, failed

    def candidates(self, run: RunFolder, errors: dict[str, dict[int, float]], failed: set[str]) -> dict[str, Candidate]:
        basis, length = run.read(Basis), run.config(ExtractConfig).latency_length
        inputs, longest = Inputs(**basis.inputs.model_dump()), max(basis.recipe.max_length, length)
        tokens = {
            one.size: min(round(length * one.tokens / (basis.tokens or one.tokens)), longest)
            for one in basis.vocabularies
        }
        measured = self.latencies(run) if self.selection.cost_kind == "latency" else {}
        undecided = () if self.certificate.latency is None else self.certificate.latency.undecided
        limit = self.objective.max_latency_ms or self.objective.max_operations or math.inf
        largest, heaviest = self.objective.max_parameters or math.inf, self.objective.max_megabytes
        found, config, self.nearest = {}, run.config(ExtractConfig), set[str]()
        for architecture, nearest in _space(run.read(Space), self._head_size(run), config.heads == "all"):
            name, parameters = str(architecture), architecture.parameters(inputs).total
            self.nearest |= {name} if nearest else set()
            cost = float(architecture.operations(inputs, tokens.get(architecture.vocabulary, config.latency_length)))
            if self.selection.cost_kind == "latency":
                if name not in measured:
                    raise self.fail(f"the latency of {name} is not on record")
                cost = max(measured[name], math.nextafter(limit, math.inf) if name in undecided else 0.0)
            vocabulary = architecture.vocabulary or math.inf
            shape = architecture.depth, architecture.hidden, architecture.intermediate, vocabulary
            affordable, error = cost <= limit and parameters <= largest, errors.get(name, {}).get(self.seed)
            if heaviest is not None:
                row = np.array([astuple(architecture)])
                runtime = cast(RuntimeName, self.objective.megabytes_in)
                affordable &= bool(megabytes(row, inputs, basis.blueprint.family, runtime)[0] <= heaviest)
            found[name] = Candidate(shape, parameters, cost, affordable, error, name in failed)
        self.maxima = max(one.parameters for one in found.values()), max(one.cost for one in found.values())
        return found

    def latencies(self, run: RunFolder) -> dict[str, float]:
        """Milliseconds by candidate, from the record of measurements that the selection was made from."""
        said = self.selection.latency
        for file in sorted(self.path.glob("latency*.json")):
            record = run.read(Latencies, file.stem)
            if said is not None and record.settings == LatencySettings(**said.model_dump(include=_SETTINGS)):
                self.same(f"SHA-256 of the latencies in {file.name}", said.sha256, record.digest())
                entries = {**record.candidates, **(record.confirmed or {})}
                self.visits = {name: entry for name, entry in entries.items() if isinstance(entry, Measured)}
                self.teacher = record.teacher
                for name, entry in self.visits.items():
                    self.same(f"median of the visits of {name}", entry.median_ms, median(entry.visits))
                return record.milliseconds()
        raise self.fail("there is no record of latencies under its conditions (latency*.json)")

    def _head_size(self, run: RunFolder) -> float:
        if (start := run.read(Basis).start) is None:
            return 64.0
        shape = Architecture.parse(start)
        return shape.hidden / max(shape.heads, 1)

    def trained_since(self, candidates: dict[str, Candidate]) -> dict[str, Candidate]:
        """Those that were trained, or failed, after the certificate was made; here they count as untrained."""
        before, excluded = set(self.certificate.trained), self.certificate.excluded
        later = ((name, one) for name, one in candidates.items() if name not in before)
        since = {name: one for name, one in later if one.error is not None or (one.failed and name in excluded)}
        candidates |= {name: replace(one, error=None, failed=False) for name, one in since.items()}
        return since

    def not_beaten_by(self, later: dict[str, Candidate], trained: dict[str, Candidate]) -> None:
        best = min((self._value(one, _error(one)) for one in trained.values()), default=math.inf)
        for name, one in later.items():
            if one.error is not None and self._value(one, one.error) < _less_by(best, self.certificate.aim):
                raise self.fail(f"{name} was trained since, and beats the incumbent by more than claimed")

    def noise(self, errors: dict[str, dict[int, float]], trials: int) -> float:
        claimed = self.certificate.noise
        own, over_seeds, freedom = _deviations([seeds for seeds in errors.values() if len(seeds) > 1])
        self.same("degrees of freedom of the noise", claimed.freedom, freedom)
        if self.kind != "error":
            own = max(own, over_seeds / math.sqrt(2))
        close = math.isclose(claimed.deviation, own, rel_tol=1e-6, abs_tol=1e-12)
        self.same("deviation of the noise", claimed.deviation, claimed.deviation if close else own)
        if not freedom:
            self.same("eta", claimed.eta, 0.0)
        elif own > 1e-12:
            held = float(stats.studentized_range.cdf(claimed.eta / own, max(trials, 2), freedom))
            if not math.isclose(held, LEVEL, abs_tol=1e-3):
                raise self.fail(f"eta: claimed {claimed.eta}, which holds with probability {held:.4f}")
        return float(claimed.eta)

    def sides_of_the_limit(self, trained: dict[str, Candidate]) -> None:
        """Each measured latency is on the side of the limit that its visits say, or counts as undecided."""
        claimed, limit = self.certificate.latency, self.objective.max_latency_ms
        doubt = 0.0
        if self.selection.cost_kind != "latency" or limit is None:
            self.same("claim about latencies", claimed, None)
        elif claimed is None:
            raise self.fail("it claims nothing about latencies, which are limited")
        else:
            ends = [float(limit), float(limit)]
            if claimed.ratio is not None and self.teacher is not None:
                self.same("limit on latency", float(limit), claimed.ratio * median(self.teacher.visits))
                ends = [claimed.ratio * end for end in _order_statistics(self.teacher.visits)]
                doubt += 2 * _doubt(self.teacher.blocks)
            self.same("least limit on latency", claimed.limit_ms[0], ends[0])
            self.same("greatest limit on latency", claimed.limit_ms[1], ends[1])
            bounds = {name: _order_statistics(entry.visits) for name, entry in self.visits.items()}
            undecided = [name for name, (low, high) in bounds.items() if high > ends[0] and low <= ends[1]]
            self.same("candidates not told apart from the limit", sorted(claimed.undecided), sorted(undecided))
            near = [
                name
                for name, entry in self.visits.items()
                if name not in undecided and ends[0] <= 1.25 * entry.median_ms and entry.median_ms <= 1.25 * ends[1]
            ]
            self.same("latencies near the limit", claimed.near, len(near))
            doubt += sum(_doubt(self.visits[name].blocks) for name in near if name in trained)
            doubt += max((_doubt(self.visits[name].blocks) for name in near if name not in trained), default=0.0)
            self.same("probability of the latencies", claimed.probability, max(0.0, 1 - doubt))
        level = LEVEL if self.certificate.noise.freedom else 1.0
        self.same("probability of all", self.certificate.probability, max(0.0, level - doubt))

    def equal(self, trained: dict[str, Candidate], eta: float) -> None:
        """What cannot be told apart from the incumbent is named."""
        best, incumbent = self._incumbent(trained)
        found = []
        for name, one in trained.items():
            if incumbent is None or one is incumbent:
                continue
            if self.kind != "latency":
                same = self._value(one, self._floor(one, one, incumbent, eta, 0.0)) <= best
            elif self._value(one, _error(one)) == math.inf or not {name, self.certificate.incumbent} <= set(
                self.visits
            ):
                same = False
            else:
                low, high = _order_statistics(self.visits[name].visits)
                least, most = _order_statistics(self.visits[str(self.certificate.incumbent)].visits)
                same = high > least and low <= most
            found += [name] * same
        self.same("candidates not told apart from the incumbent", sorted(self.certificate.equal), sorted(found))

    def slack(self, trained: dict[str, Candidate], eta: float) -> float:
        drops = [
            _error(large) - _error(small) - eta
            for small, large in product(trained.values(), trained.values())
            if small is not large and _below(small, large)
        ]
        self.same("slack", self.certificate.slack, max([0.0, *drops]))
        self.same("violations", self.certificate.violations, sum(drop > 0 for drop in drops))
        return max([0.0, *drops])

    def heads(self, everything: dict[str, Candidate], free: bool) -> None:
        """Every number of heads of the incumbent's shape was trained, or failed, or is over a limit."""
        claimed = self.certificate.heads
        if not free or claimed is None:
            self.same("other numbers of heads", None if claimed is None else "some", "some" if free else None)
            return
        incumbent = everything.get(self.certificate.incumbent or "")
        shape = None if incumbent is None else incumbent.shape
        own = {name: one for name, one in everything.items() if one.shape == shape}
        within = {name: one for name, one in own.items() if one.affordable}
        values = {
            name: (self._value(one, one.error), one.cost, one.error)
            for name, one in within.items()
            if one.error is not None
        }
        found = {
            "candidates": len(own),
            "over": len(own) - len(within),
            "failed": sum(one.failed for one in within.values()),
            "left": tuple(
                sorted((n for n, one in within.items() if one.error is None and not one.failed), key=Architecture.parse)
            ),
            "best": min(values, key=lambda name: (*values[name], Architecture.parse(name)), default=None),
        }
        for key, value in found.items():
            self.same(f"numbers of heads of the incumbent's shape, {key}", getattr(claimed, key), value)

    def exclusions(
        self, candidates: dict[str, Candidate], trained: dict[str, Candidate], eta: float, slack: float
    ) -> int:
        value, incumbent = self._incumbent(trained)
        aim = float(self.certificate.delta)
        if incumbent is not None and self.kind != "latency":
            aim = min(aim + (eta + slack) / max(_error(incumbent), 1e-12), max(aim, 0.99))
        self.same("aim", self.certificate.aim, aim)
        pending = {n for n, one in candidates.items() if one.affordable and one.error is None and not one.failed}
        self.same("excluded candidates", sorted(self.certificate.excluded), sorted(pending))
        rivals = []
        for one in trained.values():
            above = [by for by in trained.values() if by is not one and _below(one, by)]
            floors = [self._floor(by, one, incumbent, eta, slack) for by in above]
            if one is not incumbent:
                rivals.append(self._value(one, max([self._floor(one, one, incumbent, eta, 0.0), *floors])))
        for name, by in self.certificate.excluded.items():
            one, floor = candidates[name], -math.inf
            if by is not None:
                if by not in trained:
                    raise self.fail(f"{name} is excluded by {by}, which was not trained")
                if not _below(one, trained[by]):
                    raise self.fail(
                        f"{name} is excluded by {by}, which is smaller in depth, hidden or intermediate size or "
                        "vocabulary"
                    )
                floor = self._floor(trained[by], one, incumbent, eta, slack)
                if incumbent is not None and _below(one, incumbent):
                    floor = max(floor, self._floor(incumbent, one, incumbent, eta, slack))
            rivals.append(self._value(one, floor))
            target = _less_by(value, aim)
            if rivals[-1] < target - ROUNDING * abs(target):
                raise self.fail(f"{name} may beat the incumbent by more than claimed: {by} does not exclude it")
        best, reached = min(rivals, default=math.inf), None
        if best >= value:
            reached = 0.0
        elif math.isfinite(best) and math.isfinite(value):
            reached = 1 - value / best if best < 0 else 1 - best / value
        self.same("reached", self.certificate.reached, reached)
        return len(pending)

    def _floor(self, by: Candidate, one: Candidate, incumbent: Candidate | None, eta: float, slack: float) -> float:
        """The least error that a trained candidate leaves one below it, or itself, on the scale of the incumbent's."""
        if self.kind == "latency" or incumbent is None:
            return _error(by) - slack - eta
        reference = _error(incumbent)
        if by is incumbent and one is not incumbent:
            return reference - slack  # compared with itself, there is no noise
        bound = _error(by) - slack
        return bound - eta if bound - eta <= reference else bound / (1 + eta / reference)

    def _incumbent(self, trained: dict[str, Candidate]) -> tuple[float, Candidate | None]:
        """And its value; a value is to be small, so W counts as -W."""
        values = {name: self._value(one, _error(one)) for name, one in trained.items()}
        best = min(values.values(), default=math.inf)
        name = self.certificate.incumbent
        if best == math.inf or name not in trained:
            self.same("incumbent", name, None if best == math.inf else min(values, key=lambda one: values[one]))
            return math.inf, None
        self.same("value of the incumbent", values[name], best)
        return best, trained[name]

    def _value(self, one: Candidate, error: float) -> float:
        if not one.affordable or error > (self.objective.max_error or math.inf):
            return math.inf
        if self.kind == "error":
            return error
        if self.kind == "latency":
            return one.cost
        largest, dearest = self.maxima
        factor = (1 - one.parameters / largest) * (1 - one.cost / dearest)
        return 0.0 if factor == 0 else -factor / error if error > 0 else -math.inf

    def in_words(self, trained: dict[str, Candidate]) -> None:
        """The sentences say what the record says; checked last, when the record is known to be right."""
        over = sum(not one.affordable for one in trained.values())
        self.same("trained candidates over a limit", self.certificate.over, over)
        for said in (self.certificate.sentence, self.selection.gap_sentence):
            self.same("sentence", said, certificate_sentence(self.certificate))

    def audit(self, trained: dict[str, Candidate], eta: float) -> None:
        claimed, failures = self.certificate.audit, 0
        drawn = claimed.drawn
        for name in drawn:
            if name not in trained:
                raise self.fail(f"{name}, which the audit drew, was not trained")
            one = trained[name]
            others = [other for other in trained.values() if other is not one and _below(one, other)]
            failures += any(_error(one) < _error(other) - eta for other in others)
        self.same("failures in the audit", claimed.failures, failures)
        most = float(stats.beta.ppf(LEVEL, failures + 1, len(drawn) - failures)) if failures < len(drawn) else 1.0
        self.same("rate of failures that the audit leaves possible", claimed.failing, most)


def _space(axes: Space, head_size: float, free: bool) -> Iterator[tuple[Architecture, bool]]:
    """Every candidate, and whether its heads are nearest to that size among its shape; if not `free`, only these."""
    sizes = product(set(axes.depth), set(axes.hidden), set(axes.intermediate), set(axes.vocabulary))
    for depth, hidden, intermediate, vocabulary in sizes:
        heads = [a for a in set(axes.heads) if hidden % a == 0]
        if depth and heads:
            nearest = min(heads, key=lambda a: (round(abs(math.log(hidden / a / head_size)), 9), -a))
            for number in heads if free else [nearest]:
                yield Architecture(depth, number, hidden, intermediate, vocabulary), number == nearest
    for hidden, vocabulary in product(set(axes.hidden), set(axes.vocabulary)) if 0 in axes.depth else ():
        yield Architecture(0, 0, hidden, 0, vocabulary), True


def _below(small: Candidate, large: Candidate) -> bool:
    """Is the first no larger than the second in each of D, H, I and V? Encoders without layers bound no other."""
    return large.shape[0] > 0 and all(a <= b for a, b in zip(small.shape, large.shape, strict=True))


def _order_statistics(visits: tuple[float, ...]) -> tuple[float, float]:
    """Between which two visits their true median is, but for 0.5 % on either side: heads and tails, counted."""
    tosses, below, heads = 2 ** len(visits), -1, 0
    while (heads := heads + math.comb(len(visits), below + 1)) <= TAIL * tosses:
        below += 1
    return (sorted(visits)[below], sorted(visits, reverse=True)[below]) if below >= 0 else (0.0, math.inf)


def _doubt(blocks: tuple[int, ...]) -> float:
    """The probability that one of the looks after each block, to one side, was wrong."""
    doubt, count = 0.0, 0
    for more in blocks:
        count, tail, heads = count + more, 0, 0
        while (heads := heads + math.comb(count, tail)) <= TAIL * 2**count:
            doubt += math.comb(count, tail) / 2**count
            tail += 1
    return doubt


def _deviations(groups: list[dict[int, float]]) -> tuple[float, float, int]:
    """Of errors by seed, a group for each candidate: deviation within seeds and over seeds, degrees of the former.

    What candidates and seeds have in common is swept out in turn until nothing changes; a single candidate has no part
    in common with others.
    """
    cells = {(row, seed): error for row, group in enumerate(groups) for seed, error in group.items()}
    if not cells:
        return 0.0, 0.0, 0
    rows, seeds = set(range(len(groups))), {seed for _, seed in cells}
    degrees = len(cells) - len(rows)
    over_seeds = math.sqrt(sum((cells[k] - fmean(groups[k[0]].values())) ** 2 for k in cells) / degrees)
    linked = [set(group) for group in groups]
    parts: list[set[int]] = []
    for own in linked:
        joined = [part for part in parts if part & own]
        parts = [part for part in parts if not part & own] + [own.union(*joined)]
    freedom = degrees - len(seeds) + len(parts)
    if not freedom:
        return over_seeds, over_seeds, degrees
    left = dict(cells)
    for _ in range(10_000):
        before = dict(left)
        for at in (0, 1):
            for key in (rows, seeds)[at]:
                mean = fmean(value for cell, value in left.items() if cell[at] == key)
                left = {cell: value - mean * (cell[at] == key) for cell, value in left.items()}
        if max(abs(left[cell] - before[cell]) for cell in left) < 1e-15:
            break
    return math.sqrt(sum(value**2 for value in left.values()) / freedom), over_seeds, freedom


def _error(one: Candidate) -> float:
    assert one.error is not None
    return one.error


def _less_by(value: float, share: float) -> float:
    """What is better than a value by a share of it; -W is better where it is further from 0."""
    return value / (1 - share) if value < 0 else value * (1 - share)
