"""The study: every finished trial, on disk, so that no work is ever done twice.

Trials live in an Optuna storage (SQLite in the run folder, or any SQLAlchemy URL); `docs/study.md` documents the
attributes. One process, the coordinator, writes a trial in one transaction when it has ended: a kill loses the running
trials and leaves nothing to clean up.

    >>> study = Study.open(sqlite(run / "study.db"), "extract", bench.identity)
    >>> study.record(bench.train(architecture, settings))
    >>> study.trials()
"""

from __future__ import annotations

import json
import math
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import OptunaError
from optuna.trial import TrialState, create_trial
from sqlalchemy import URL, make_url
from sqlalchemy.exc import SQLAlchemyError

from subarch.errors import InvalidStudy
from subarch.extraction.trial import Point, Settings, Trial
from subarch.numbers.architecture import Architecture

SCHEMA = 3
"""3: trials have a vocabulary."""
PATIENCE = 30 * 60.0
"""Seconds that a database which went away is waited for; workers go on training what they have."""

THETA = ("steps", "learning_rate", "batch_size", "seed")

Result = TypeVar("Result")

# One fixed range each, wide enough for whatever a configuration allows: Optuna refuses a value outside of it.
DISTRIBUTIONS: dict[str, BaseDistribution] = {
    "depth": IntDistribution(0, 1_000_000),
    "heads": IntDistribution(0, 1_000_000),
    "hidden": IntDistribution(1, 1_000_000),
    "intermediate": IntDistribution(0, 1_000_000),
    "vocabulary": IntDistribution(0, 1_000_000_000),
    "learning_rate": FloatDistribution(0, sys.float_info.max),
    "batch_size": IntDistribution(1, 1_000_000),
    "steps": IntDistribution(0, 1_000_000_000),
    "seed": IntDistribution(0, 2**32 - 1),
}


class Study:
    """The trials of one run. Use `Study.open`."""

    def __init__(self, study: optuna.Study, url: str, identity: Mapping[str, Any]) -> None:
        self._study, self._url, self.identity = study, url, identity

    @classmethod
    def open(cls, url: str, name: str, identity: Mapping[str, Any]) -> Study:
        """Create or reopen the study; `identity` is all that an error depends on besides candidate and settings.

        Raises:
            InvalidStudy: unreadable or corrupt storage, a database without its driver, another schema, or trials of
                another identity.
        """
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        try:
            # The sampler proposes nothing here; the default one would cost an import and a warning.
            study = optuna.create_study(
                storage=url, study_name=name, load_if_exists=True, sampler=optuna.samplers.RandomSampler(seed=0)
            )
            attributes = study.user_attrs
            # The schema is written last, so a kill in between leaves a study that is still new
            if attributes.keys() <= {"identity"} and not study.get_trials(deepcopy=False):
                study.set_user_attr("identity", json.dumps(identity, sort_keys=True))
                study.set_user_attr("schema", SCHEMA)
                return cls(study, url, identity)
            schema = attributes.get("schema")
            recorded = dict(json.loads(attributes["identity"])) if schema == SCHEMA else {}
        except ImportError as error:
            raise InvalidStudy(
                f"{_shown(url)}: the driver of this database is not installed; install it "
                "(for PostgreSQL: pip install 'subarch[postgresql]'), or leave the storage to SQLite"
            ) from error
        # RuntimeError: tables of another version of Optuna; KeyError and so on: attributes that are not ours
        except (OptunaError, SQLAlchemyError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise InvalidStudy(
                f"{_shown(url)}: the study cannot be opened: {_cause(error)}; "
                "if the file is damaged, restore it from a copy, or move it away to train again"
            ) from error
        if schema != SCHEMA:
            raise InvalidStudy(f"{_shown(url)}: has schema {schema}, this version reads {SCHEMA}; use a new run folder")
        changed = sorted(key for key in {*recorded, *identity} if recorded.get(key) != identity.get(key))
        if "scale" in identity and "scale" not in recorded:
            raise InvalidStudy(
                f"{_shown(url)}: its errors are plain distances, of an earlier version; this one has shares of what "
                "the best constant vector leaves. Nothing can convert them, since a study holds neither that distance "
                "nor the vectors that it comes from; train again, with subarch extract --run NEW"
            )
        if changed:
            other = ", ".join(changed)
            raise InvalidStudy(f"{_shown(url)}: its trials were trained with another {other}; use a new run folder")
        return cls(study, url, identity)

    def record(self, trial: Trial) -> None:
        """Store a finished trial, in one transaction.

        Raises:
            ValueError: an error that is NaN or infinite, at the end or on the curve.
            InvalidStudy: the storage cannot be written (a full disk, a database that went away).
        """
        for error in (trial.error, *(point.error for point in trial.curve)):
            if error is not None and not math.isfinite(error):
                raise ValueError(f"trial of {trial.architecture}: the error {error} is not finite")
        frozen = create_trial(
            state=TrialState.FAIL if trial.error is None else TrialState.COMPLETE,
            value=trial.error,
            params=asdict(trial.architecture) | {name: getattr(trial.settings, name) for name in THETA},
            distributions=DISTRIBUTIONS,
            user_attrs={
                "architecture": str(trial.architecture),
                "curve": [[point.step, point.error, point.seconds] for point in trial.curve],
                "seconds": trial.seconds,
                "threads": trial.threads,
                "reason": trial.reason,
            },
        )
        try:
            self._patiently(lambda: self._study.add_trial(frozen))
        except (OptunaError, SQLAlchemyError) as error:
            raise InvalidStudy(
                f"trial of {trial.architecture} could not be stored: {_cause(error)}; "
                "free some disk space or bring the database back, then resume: finished trials are kept"
            ) from error

    def trials(self) -> list[Trial]:
        """All trials, oldest first.

        Raises:
            InvalidStudy: unreadable or corrupt storage.
        """
        try:
            frozen = self._patiently(lambda: self._study.get_trials(deepcopy=False))
            return [_to_trial(trial) for trial in frozen if trial.state.is_finished()]
        except (OptunaError, SQLAlchemyError, KeyError, TypeError, ValueError) as error:
            raise InvalidStudy(f"the study cannot be read: {_cause(error)}; restore it from a copy") from error

    def _patiently(self, call: Callable[[], Result]) -> Result:
        """A database server that goes away is waited for, up to `PATIENCE`; a file that cannot be written is not."""
        pause, deadline = 1.0, time.monotonic() + PATIENCE
        while True:
            try:
                return call()
            except (OptunaError, SQLAlchemyError) as error:
                if make_url(self._url).drivername.startswith("sqlite") or time.monotonic() + pause > deadline:
                    raise
                warnings.warn(f"{_shown(self._url)}: {_cause(error)}; trying again in {pause:.0f} s", stacklevel=3)
            time.sleep(pause)
            pause = min(2 * pause, 60.0)


def sqlite(path: Path) -> str:
    """The URL of a SQLite file, whatever characters its name holds."""
    return URL.create("sqlite", database=str(path)).render_as_string()


def _to_trial(frozen: optuna.trial.FrozenTrial) -> Trial:
    params, more = frozen.params, frozen.user_attrs
    if (frozen.state == TrialState.COMPLETE) != (frozen.value is not None):
        raise ValueError(f"trial {frozen.number} is {frozen.state.name} with the error {frozen.value}")
    architecture = Architecture(*(params[axis] for axis in ("depth", "heads", "hidden", "intermediate", "vocabulary")))
    settings, curve = Settings(*(params[name] for name in THETA)), tuple(Point(*point) for point in more["curve"])
    rest = more["seconds"], more["threads"], more["reason"], frozen.number
    return Trial(architecture, settings, frozen.value, curve, *rest)


def _cause(error: BaseException) -> str:
    """The first line of what went wrong at the bottom: "database or disk is full"."""
    while error.__cause__ is not None:
        error = error.__cause__
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _shown(url: str) -> str:
    """A URL without its password."""
    try:
        return make_url(url).render_as_string(hide_password=True)
    except SQLAlchemyError:
        return "the storage"
