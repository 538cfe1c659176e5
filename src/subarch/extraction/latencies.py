"""The latencies a search decides on: which candidates are measured, which are predicted, and what must not be.

In PyTorch, where a candidate costs nothing to build, all are measured, up to `MOST_MEASURED`. In an exported runtime,
in larger spaces, and where latency is not asked about, `DESIGN` candidates spread over the space are measured, a model
fitted to them (`latency_model`) predicts the others, and then everything that a decision turns on is measured:

- before training, each candidate whose prediction lies as near to the limit as the model's 90th percentile of error,
  with the model fitted again after each round; where no candidate meets the limits, the one that comes nearest; where
  W is asked for, the slowest, which W is scaled by;
- after training, whatever was trained, so the frontier and the winner (`confirm`).

A measured latency is an interval (`latency.interval`). Candidates whose interval straddles the limit, or where latency
is the objective that of the fastest, are measured again with the teacher among them, until they are on one side or have
been in `MOST_BLOCKS` blocks. Then they cannot be told apart, and count as over the limit.

latency.json says of every candidate which it is. The figures that the search began with stay as they are, so that a
resumed run trains the same candidates; those that were measured later stand beside them, as `confirmed`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subarch.errors import InvalidConfig
from subarch.exporting.config import parse_runtime
from subarch.exporting.runtimes import require
from subarch.extraction.config import ExtractConfig
from subarch.extraction.question import Question, latency_limit, limit_interval, megabytes_of
from subarch.extraction.workbench import blueprint_of, recipe_of
from subarch.latency.interval import interval, side
from subarch.latency.measuring import TEACHER, Candidates, LatencyCache, Stopwatch, conditions
from subarch.latency.model import TERMS, fit, spread
from subarch.latency.timing import quantiles_of
from subarch.learning.vocabularies import VOCABULARIES, Reader
from subarch.models.parts import usable_positions
from subarch.numbers.space import Costs, SearchSpace
from subarch.run import Report
from subarch.run.folder import RunFolder
from subarch.run.machine import machine, usable_cores
from subarch.run.records import Basis, Latencies, LatencyFit, LatencySettings, Machine, Measured, Predicted
from subarch.text.corpus import Corpus

Rows = NDArray[np.intp]
Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]

MOST_MEASURED = 2_000
"""Candidates that are measured one by one in PyTorch, and near a limit in any runtime; of more, the nearest."""

MOST_BLOCKS, AGAIN = 3, 16
"""Blocks that a candidate is measured in at most, and how many are measured again in one block."""

DESIGN = 36
"""Candidates that the model is fitted to at first."""


def measure_latencies(
    run: RunFolder, config: ExtractConfig, space: SearchSpace, basis: Basis, report: Report, remeasure: bool = False
) -> Latencies:
    """Measured once per run and setting, then read back; `remeasure` ignores the record and clears the cache.

    Raises:
        InvalidConfig: sequences are longer than candidates can read.
        InvalidCorpus: the run's corpus, whose lengths are asked for, cannot be read.
        MissingExtra: the runtime is not installed.
    """
    name, settings = _file(run, config, basis)
    if not remeasure and run.has(Latencies, name) and (known := run.read(Latencies, name)).settings == settings:
        return known
    start = time.perf_counter()
    cache = _cache(settings, basis)
    if remeasure:
        cache.clear()
    stopwatch = _stopwatch(config, settings, basis, cache, report)
    teacher = _teacher(config, basis)
    candidates, model = _measured_where_it_matters(stopwatch, config, settings, space, basis, teacher)
    costs = space.costs(blueprint_of(basis).inputs, config.latency_length)
    possible = [n for n, share in zip(_names(costs), _shares(config, costs, basis), strict=True) if share <= 1]
    while left := open_ones(config, stopwatch.known, possible, stopwatch.known[teacher] if teacher else None)[:AGAIN]:
        stopwatch.again([*([teacher] if teacher else []), *left])
        candidates |= {name: stopwatch.known[name] for name in left}
    latencies = Latencies(
        settings=settings,
        machine=Machine(**machine()),
        teacher=stopwatch.known[teacher] if teacher else None,
        candidates=candidates,
        model=model,
        seconds=time.perf_counter() - start,
    )
    run.write(latencies, name=name)
    return latencies


def confirm(run: RunFolder, question: Question, basis: Basis, errors: Mapping[str, float], report: Report) -> Latencies:
    """The latencies of a run with all that was ever measured under the question's conditions.

    Trained candidates (`errors`, by name) are measured if they were only predicted so far. So are those that decide
    this question, if it is another than the latencies were taken for. If latency is the objective, so are those about
    as fast as the fastest trained one that is good enough: one of them may be the answer. What cannot be told apart
    from the limit, or from the fastest, is measured again, on the machine that it was measured on.
    """
    config, objective = question.config, question.objective
    name, settings = _file(run, config, basis)
    latencies = run.read(Latencies, name)
    start, confirmed, teacher = time.perf_counter(), dict(latencies.confirmed or {}), latencies.teacher
    figures: dict[str, Measured | Predicted] = {**latencies.candidates, **confirmed}
    stopwatch = _stopwatch(config, settings, basis, _cache(settings, basis), report)
    # On the scale of this record, whatever another run has left in the cache since
    stopwatch.known |= {n: entry for n, entry in figures.items() if isinstance(entry, Measured)}
    names, others, here = _names(question.costs), _shares(config, question.costs, basis), Machine(**machine())
    teacher_name = None if teacher is None else _teacher(config, basis)
    if teacher_name and teacher:
        stopwatch.known[teacher_name] = teacher
    while True:
        left: list[str] = []
        if latencies.model is not None:
            milliseconds = np.array([figures[n].median_ms for n in names])
            predicted = np.array([isinstance(figures[n], Predicted) for n in names])
            limit = objective.max_cost
            if objective.max_error is not None:
                fast = [figures[n].median_ms for n, error in errors.items() if error <= objective.max_error]
                limit = min(fast, default=limit)
            rows = decisive(milliseconds, predicted, others, limit, latencies.model.p90_error, objective.name == "w")
            left = [n for n in errors if isinstance(figures[n], Predicted)]
            left = left or [names[row] for row in rows[: _room(predicted)]]
        if left:
            stopwatch.measure(left)
        elif latencies.machine == here:
            measured = {n: stopwatch.known[n] for n in names if n in stopwatch.known}
            possible = [n for n, share in zip(names, others, strict=True) if share <= 1]
            left = open_ones(config, measured, possible, teacher)
            if objective.name == "latency" and objective.max_error is not None:
                enough = [n for n, error in errors.items() if n in measured and error <= objective.max_error]
                left += _as_fast(measured, enough)
            left = list(dict.fromkeys(left))[:AGAIN]
            if left:
                stopwatch.again([*([teacher_name] if teacher_name else []), *left])
                teacher = stopwatch.known[teacher_name] if teacher_name else None
        if not left:
            break
        confirmed |= {n: stopwatch.known[n] for n in left}
        figures |= confirmed
    if figures != {**latencies.candidates, **(latencies.confirmed or {})}:
        seconds = latencies.seconds + time.perf_counter() - start
        latencies = latencies.model_copy(update={"confirmed": confirmed, "teacher": teacher, "seconds": seconds})
        run.write(latencies, name=name)
    return latencies.model_copy(update={"candidates": figures})


def open_ones(
    config: ExtractConfig, measured: Mapping[str, Measured], names: Iterable[str], teacher: Measured | None
) -> list[str]:
    """Those of some that cannot be told apart from the limit yet and may be measured again, the nearest first."""
    limit = limit_interval(config, teacher)
    if limit is None:
        return []
    left = [
        n
        for n in names
        if n in measured and _may_again(measured[n]) and side(interval(measured[n].visits), limit) == "open"
    ]
    return sorted(left, key=lambda n: abs(math.log(measured[n].median_ms / sum(limit))))


def _as_fast(measured: Mapping[str, Measured], names: Sequence[str]) -> list[str]:
    """The fastest of some, and those that cannot be told apart from it yet and may be measured again; none, or two."""
    if not names:
        return []
    fastest = min(names, key=lambda n: measured[n].median_ms)
    own = interval(measured[fastest].visits)
    left = [n for n in names if n != fastest and side(interval(measured[n].visits), own) == "open"]
    left = [n for n in left if _may_again(measured[n])]
    return [fastest, *left] if left else []


def _may_again(entry: Measured) -> bool:
    return len(entry.blocks) < MOST_BLOCKS


def check_runtime(config: ExtractConfig) -> None:
    """Raises MissingExtra if the runtime that latency is measured in is not installed."""
    if config.cost == "latency" and config.runtime != "torch":
        require(parse_runtime(config.runtime)[0])


def decisive(
    milliseconds: Floats, predicted: Mask, others: Floats, limit: float | None, error: float, scale: bool
) -> Rows:
    """Rows whose predicted latency a decision turns on, those first that it turns on most.

    `milliseconds` (N,) are measured or `predicted` (N,), with a relative `error`. `others` (N,) is the largest share of
    another limit that a candidate takes: over 1, it is out whatever its latency. `scale`: the largest latency counts,
    as the maximum i_T of W does.
    """
    wanted = np.zeros(len(milliseconds), dtype=bool)
    distance = np.zeros(len(milliseconds))
    if limit is not None:
        distance = np.abs(np.log(np.maximum(milliseconds, 1e-9) / limit))
        wanted = (others <= 1) & (distance <= np.log1p(error))
        excess = np.maximum(milliseconds / limit, others)
        if excess.min() > 1:
            wanted[excess.argmin()] = True
    if scale:
        wanted[milliseconds.argmax()] = True
    rows = np.flatnonzero(wanted & predicted)
    return rows[distance[rows].argsort(kind="stable")]


def _teacher(config: ExtractConfig, basis: Basis) -> str | None:
    """The name under which the teacher is measured; None where there is none that runs here."""
    if basis.teacher is not None and basis.teacher.timed:
        return TEACHER + str(basis.identity["teacher"])
    if config.max_latency_ratio is not None:
        raise InvalidConfig(
            f"max_latency_ratio {config.max_latency_ratio} is a share of the teacher's latency, and "
            "this teacher, recorded vectors or a static table, has none; give max_latency_ms"
        )
    return None


def _measured_where_it_matters(
    stopwatch: Stopwatch,
    config: ExtractConfig,
    settings: LatencySettings,
    space: SearchSpace,
    basis: Basis,
    teacher: str | None,
) -> tuple[dict[str, Measured | Predicted], LatencyFit | None]:
    """The latency of each candidate and, where not all were measured, the model that predicted the others."""
    inputs = blueprint_of(basis).inputs
    costs = space.costs(inputs, config.latency_length)
    longer = {int(size): sum(_as_list(own)) / sum(_as_list(settings.length)) for size, own in _longer(settings).items()}
    names = _names(costs)
    asked = config.max_latency_ms is not None or config.max_latency_ratio is not None or config.objective != "error"
    every = len(names) <= (MOST_MEASURED if config.runtime == "torch" and asked else DESIGN)
    first = range(len(names)) if every else spread(costs.table, DESIGN)
    stopwatch.measure([*([teacher] if teacher else []), *(names[row] for row in first)])
    if every:
        return {name: stopwatch.known[name] for name in names}, None
    limit = latency_limit(config, stopwatch.known[teacher].median_ms if teacher else None)
    others = _shares(config, costs, basis)
    while True:
        measured = np.array([name in stopwatch.known for name in names])
        found = np.array([stopwatch.known[names[row]].median_ms for row in np.flatnonzero(measured)])
        model = fit(costs.table[measured], found, inputs, longer)
        milliseconds = model.predict(costs.table)
        milliseconds[measured] = found
        rows = decisive(milliseconds, ~measured, others, limit, model.p90_error, config.objective == "w")
        now = rows[: _room(~measured)]
        if not len(now):
            break
        stopwatch.measure(names[row] for row in now)
    candidates: dict[str, Measured | Predicted] = {}
    for name, value in zip(names, milliseconds.tolist(), strict=True):
        known = stopwatch.known.get(name)
        candidates[name] = Predicted(median_ms=value, predicted=True) if known is None else known
    return candidates, LatencyFit(
        terms=dict(zip(TERMS, model.coefficients, strict=True)),
        median_error=model.median_error,
        p90_error=model.p90_error,
        measured=int(measured.sum()),
        left_near_limit=len(rows),
    )


def _shares(config: ExtractConfig, costs: Costs, basis: Basis) -> Floats:
    """(N,) the largest share of another limit than that on latency that each candidate takes."""
    shares = costs.parameters / (config.max_parameters or np.inf)
    if config.max_megabytes is not None:
        shares = np.maximum(shares, megabytes_of(config, costs, basis) / config.max_megabytes)
    return shares


def _room(predicted: Mask) -> int:
    """How many more candidates may be measured."""
    return max(0, MOST_MEASURED - int((~predicted).sum()))


def _names(costs: Costs) -> list[str]:
    return [str(costs.architecture(row)) for row in range(len(costs))]


def _stopwatch(
    config: ExtractConfig, settings: LatencySettings, basis: Basis, cache: LatencyCache, report: Report
) -> Stopwatch:
    check_runtime(config)
    lengths = _as_list(settings.length)
    shared = blueprint_of(basis), recipe_of(basis), config.teacher
    others = {int(size): (blueprint_of(basis, int(size)), _as_list(own)) for size, own in _longer(settings).items()}
    candidates = Candidates(config.runtime, settings.threads, settings.batch, lengths, *shared, report, others)
    return Stopwatch(candidates.calls, cache, candidates.block, len(lengths), report)


def _file(run: RunFolder, config: ExtractConfig, basis: Basis) -> tuple[str, LatencySettings]:
    """The artifact of latencies under a configuration, and its settings."""
    settings = _settings(run, config, basis)
    if settings == _settings(run, run.config(ExtractConfig), basis):
        return "latency", settings
    length = settings.length if isinstance(settings.length, int) else config.length_from
    return f"latency_{settings.runtime}_{settings.batch}_{length}_{settings.threads}", settings


def _settings(run: RunFolder, config: ExtractConfig, basis: Basis) -> LatencySettings:
    """What decides a latency of a run."""
    blueprint = blueprint_of(basis)
    usable = usable_positions(blueprint.family, blueprint.inputs.positions, blueprint.settings["pad_token_id"])
    length: int | tuple[int, ...] = config.latency_length
    longer: dict[str, int | tuple[int, ...]] = {str(v): n for v, n in basis.longer(config.latency_length).items()}
    if config.length_from == "corpus":
        corpus = Corpus.load(run.path / "corpus")

        def quantiles(size: NDArray[np.int64]) -> tuple[int, ...]:
            # With the tokens that open and close a sequence
            return tuple(quantiles_of(np.minimum(size + 2, min(usable, basis.recipe.max_length))))

        length = quantiles(corpus.train.size)
        for one in basis.vocabularies:
            folder = run.path / VOCABULARIES
            longer[str(one.size)] = quantiles(Reader.load(folder / str(one.size)).read(corpus).train.size)
    elif config.latency_length > usable:
        raise InvalidConfig(f"latency_length {config.latency_length}: these encoders read at most {usable} tokens")
    threads = config.latency_threads or usable_cores()
    given = {"runtime": config.runtime, "batch": config.latency_batch, "length": length, "threads": threads}
    return LatencySettings.model_validate(given | ({"longer": longer} if longer else {}))


def _as_list(length: int | tuple[int, ...]) -> list[int]:
    return [length] if isinstance(length, int) else list(length)


def _longer(settings: LatencySettings) -> dict[str, int | tuple[int, ...]]:
    return settings.longer or {}


def _cache(settings: LatencySettings, basis: Basis) -> LatencyCache:
    given = settings.runtime, settings.threads, settings.batch, _as_list(settings.length)
    built: dict[str, Any] = {"blueprint": basis.blueprint.model_dump(), "normalize": basis.recipe.normalize}
    if longer := _longer(settings):
        built |= {"longer": longer, "settings": {str(one.size): one.settings for one in basis.vocabularies}}
    return LatencyCache(conditions(*given, **built))
