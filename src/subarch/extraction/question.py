"""The question of a search: which candidates there are, what they cost, what is optimised, and by which strategy.

All of it is known before anything is trained, so the same trials can answer another question later.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from subarch.errors import InvalidConfig
from subarch.exporting.size import megabytes
from subarch.extraction.config import ExtractConfig
from subarch.extraction.trial import Settings, Trial
from subarch.latency.interval import Interval, interval, side
from subarch.numbers.architecture import Architecture, Inputs
from subarch.numbers.objectives import Objective
from subarch.numbers.selection import CostUnit
from subarch.numbers.space import Costs, SearchSpace, nearest_heads, rows_of
from subarch.run.records import Basis, Latencies, Measured
from subarch.search import Certified, Exhaustive, Fptas, Problem, Strategy
from subarch.search.noise import Noise

HEAD_SIZE = 64
"""Units per head where there is no teacher: that of BERT in all its published sizes."""
RATE, RATE_OF_TASKS = 1e-3, 3e-4
"""Learning rates of trials: of a task's teacher the larger one undoes most of what they inherit (docs/outputs.md)."""


def thetas(config: ExtractConfig) -> list[Settings]:
    """Θ as configured: the product of learning rates, `RATE` if none are named, and batch sizes."""
    pairs = product(config.learning_rate or [RATE], config.batch_size)
    return [Settings(config.steps, rate, size, config.seed) for rate, size in pairs]


@dataclass(frozen=True)
class Question:
    """The space with its costs, the objective and the strategy: all that is asked before any trial is looked at.

    `longer` are the tokens of a text by vocabulary, see `SearchSpace.costs`.

    `within` (N,) marks the candidates that the strategy looks at, which are those of `searched`: all, except that a
    certified search over every number of heads looks at one for each shape, the nearest to the teacher's head size.
    `undecided` are the candidates whose latency cannot be told apart from the limit: they cost a little more than that.
    """

    config: ExtractConfig
    inputs: Inputs
    longer: dict[int, int]
    space: SearchSpace
    costs: Costs
    problem: Problem
    within: NDArray[np.bool_]
    strategy: Strategy
    undecided: tuple[str, ...] = ()

    @property
    def searched(self) -> Question:
        """The part that the strategy looks at, in whose rows it speaks."""
        if self.within.all():
            return self
        costs, problem = self.costs.only(self.within), self.problem.only(self.within)
        return replace(self, costs=costs, problem=problem, within=self.within[self.within])

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
        found = {}
        for architecture, trial in best.items():
            work = architecture.operations(self.inputs, self.config.latency_length)
            first, last = np.searchsorted(self.costs.common, [work, work + 1])  # the order is that of these operations
            same = np.flatnonzero(rows_of(self.costs.table[first:last], architecture))
            if len(same):
                found[int(first + same[0])] = trial
        return dict(sorted(found.items()))

    def comparable(self, error: float) -> bool:
        """W divides by the error: one of 0 cannot be told to a strategy that maximises W."""
        return self.objective.name != "w" or error > 0

    @classmethod
    def pose(cls, config: ExtractConfig, space: SearchSpace, basis: Basis, latencies: Latencies | None) -> Question:
        """What a run asks; `latencies` are there where latency is the cost.

        Raises:
            InvalidConfig: a quality floor without anything it could be a share of.
        """
        inputs = Inputs(**basis.inputs.model_dump())
        longer = basis.longer(config.latency_length)
        costs = space.costs(inputs, config.latency_length, longer)
        open_ones = undecided(config, latencies)
        problem = _problem(config, costs, basis, latencies, open_ones)
        within = np.ones(len(costs), dtype=np.bool_)
        if config.strategy == "certified" and config.heads == "all":
            within = nearest_heads(costs.table, _head_size(basis))
        strategy = strategy_of(config, problem.only(within))
        return cls(config, inputs, longer, space, costs, problem, within, strategy, open_ones)

    def head_counts(self, architecture: Architecture) -> list[int]:
        """The rows that have this depth, hidden and intermediate size and vocabulary, with every number of heads."""
        table = np.delete(self.costs.table, 1, axis=1)
        own = table[rows_of(self.costs.table, architecture)]
        rows: list[int] = np.flatnonzero((table == own).all(axis=1)).tolist()
        return rows

    def with_latencies(self, basis: Basis, latencies: Latencies) -> Question:
        """The same question with other latencies, such as those measured since; the strategy keeps what it asked."""
        open_ones = undecided(self.config, latencies)
        return replace(
            self, problem=_problem(self.config, self.costs, basis, latencies, open_ones), undecided=open_ones
        )


def candidates(config: ExtractConfig, space: SearchSpace, basis: Basis) -> SearchSpace:
    """The part of a space that is searched: with all numbers of heads, or with heads of about the teacher's size."""
    return space if config.heads == "all" else space.with_heads_of(_head_size(basis))


def _head_size(basis: Basis) -> float:
    if basis.start is None:
        return HEAD_SIZE
    start = Architecture.parse(basis.start)
    return start.hidden / max(start.heads, 1)


def strategy_of(config: ExtractConfig, problem: Problem) -> Strategy:
    """The configured strategy.

    Raises:
        InvalidConfig: an ε that the space is too small for.
    """
    if config.strategy == "certified":
        return Certified(problem, config.delta, config.audit)
    return Fptas(problem, config.epsilon) if config.strategy == "fptas" else Exhaustive(problem)


def latency_limit(config: ExtractConfig, teacher_ms: float | None) -> float | None:
    """The limit on latency in milliseconds, given or as a share of the teacher's; None: there is none."""
    if config.max_latency_ratio is not None and teacher_ms is not None:
        return config.max_latency_ratio * teacher_ms
    return config.max_latency_ms


def limit_interval(config: ExtractConfig, teacher: Measured | None) -> Interval | None:
    """What that limit can be, since the teacher's latency is measured too."""
    if config.max_latency_ratio is not None and teacher is not None:
        low, high = interval(teacher.visits)
        return config.max_latency_ratio * low, config.max_latency_ratio * high
    return None if config.max_latency_ms is None else (config.max_latency_ms, config.max_latency_ms)


def undecided(config: ExtractConfig, latencies: Latencies | None) -> tuple[str, ...]:
    """The measured candidates whose latency cannot be told apart from the limit."""
    limit = None if latencies is None else limit_interval(config, latencies.teacher)
    if latencies is None or limit is None:
        return ()
    measured = {name: entry for name, entry in latencies.candidates.items() if isinstance(entry, Measured)}
    return tuple(name for name, entry in measured.items() if side(interval(entry.visits), limit) == "open")


def _problem(
    config: ExtractConfig, costs: Costs, basis: Basis, latencies: Latencies | None, undecided: tuple[str, ...]
) -> Problem:
    """Those that are undecided are put on the safer side of the limit."""
    cost, teacher_ms = costs.operations.astype(np.float64), None
    if latencies is not None:
        names = [str(costs.architecture(row)) for row in range(len(costs))]
        cost = np.array([latencies.candidates[name].median_ms for name in names])
        teacher_ms = None if latencies.teacher is None else latencies.teacher.median_ms
        if undecided:
            over = np.nextafter(latency_limit(config, teacher_ms) or 0.0, np.inf)
            cost = np.where(np.isin(names, undecided), np.maximum(cost, over), cost)
    objective = Objective(
        config.objective,
        parameters_maximum=float(costs.parameters.max()),
        cost_maximum=float(cost.max()),
        max_cost=latency_limit(config, teacher_ms),
        max_parameters=config.max_parameters,
        max_megabytes=config.max_megabytes,
        max_error=_floor(config, basis.reference_error),
    )
    # The time of a trial: its operations, and something fixed
    effort = costs.operations + 0.1 * costs.operations.max() + 1.0
    megabytes = None if config.max_megabytes is None else megabytes_of(config, costs, basis)
    return Problem(costs.parameters, cost, objective, costs.table, effort, megabytes)


def megabytes_of(config: ExtractConfig, costs: Costs, basis: Basis) -> NDArray[np.float64]:
    """(N,) megabytes of the candidates' files in the runtime of the configuration."""
    return megabytes(costs.table, Inputs(**basis.inputs.model_dump()), basis.blueprint.family, config.runtime)


def _floor(config: ExtractConfig, reference: float | None) -> float | None:
    """The largest error that keeps the configured share of the reference's quality. (Ours; the paper has no floor.)

    Quality is 1 - e for a bounded error, and exp(-e), the geometric mean probability of the right token, for a
    cross-entropy.
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


def settled(question: Question, trials: Sequence[Trial]) -> dict[int, float | None]:
    """The least error over Θ of each row that was trained with all of it, None where all of them failed."""
    settings = thetas(question.config)
    done = Counter(architecture for architecture, theta in {trial.key for trial in trials} if theta in settings)
    whole = {trial.architecture: trial for trial in trials if done[trial.architecture] == len(settings)}
    best = best_trials(trials, settings)
    found: dict[int, float | None] = {}
    for row, trial in question.rows(whole).items():
        error = best[trial.architecture].error if trial.architecture in best else None
        found[row] = error if error is not None and question.comparable(error) else None
    return found


def noise_of(trials: Sequence[Trial], settings: Sequence[Settings]) -> Noise:
    """How the least error over Θ differs with the seed, from what was trained with several."""
    found: dict[tuple[Architecture, int], list[float]] = {}
    for trial in {trial.key: trial for trial in trials}.values():
        if replace(trial.settings, seed=settings[0].seed) in settings:
            error = math.inf if trial.error is None else trial.error
            found.setdefault((trial.architecture, trial.settings.seed), []).append(error)
    groups: dict[Architecture, dict[int, float]] = {}
    for (architecture, seed), errors in found.items():
        if len(errors) == len(settings) and min(errors) < math.inf:
            groups.setdefault(architecture, {})[seed] = min(errors)
    return Noise.of(groups.values())
