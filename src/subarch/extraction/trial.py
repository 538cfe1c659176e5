"""A trial: one candidate, trained with one θ, and the error curve it left. Plain data, shared by all who pass it on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from subarch.numbers.architecture import Architecture
from subarch.run.folder import weights_file
from subarch.run.records import Hyperparameters, TrialRow


@dataclass(frozen=True, slots=True)
class Settings:
    """One element θ of the hyperparameter space Θ, with the number of steps s and the seed.

    `layers` are those of the start that the candidate keeps, while it is tried which ones are best (see
    `extraction.layers`); None: those that were chosen for its depth.
    """

    steps: int
    learning_rate: float
    batch_size: int
    seed: int = 0
    layers: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Point:
    """The error after so many steps, and the seconds of training it took (evaluation not counted)."""

    step: int
    error: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Trial:
    """A trained candidate: `error` and `curve`, or the `reason` it failed for. `seconds` is its whole cost."""

    architecture: Architecture
    settings: Settings
    error: float | None
    curve: tuple[Point, ...]
    seconds: float
    threads: int
    reason: str | None = None
    number: int = -1

    @property
    def key(self) -> tuple[Architecture, Settings]:
        return self.architecture, self.settings

    @classmethod
    def of(cls, row: TrialRow) -> Trial:
        """The trial that gave this row."""
        theta = row.hyperparameters
        assert theta.learning_rate is not None
        assert theta.batch_size is not None
        settings = Settings(row.steps, theta.learning_rate, theta.batch_size, row.seed)
        curve = tuple(Point(*point) for point in row.curve)
        architecture = Architecture.parse(row.architecture)
        return cls(architecture, settings, row.error, curve, row.seconds, row.threads, row.reason, row.number)

    def row(self) -> TrialRow:
        """The record that later tools and the report read."""
        settings = self.settings
        return TrialRow(
            number=self.number,
            architecture=str(self.architecture),
            hyperparameters=Hyperparameters(learning_rate=settings.learning_rate, batch_size=settings.batch_size),
            seed=settings.seed,
            steps=settings.steps,
            state="failed" if self.error is None else "complete",
            reason=self.reason,
            error=self.error,
            curve=tuple((point.step, point.error, point.seconds) for point in self.curve),
            seconds=self.seconds,
            threads=self.threads,
        )


def weights_path(run: Path, architecture: Architecture, settings: Settings) -> Path:
    """Where a trial's trained weights are kept."""
    return weights_file(run, architecture, settings.steps, settings.learning_rate, settings.batch_size, settings.seed)
