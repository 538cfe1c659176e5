"""A trial: one candidate, trained with one θ, and the error curve it left. Plain data, shared by all who pass it on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subarch.numbers.architecture import Architecture


@dataclass(frozen=True, slots=True)
class Settings:
    """One element θ of the hyperparameter space Θ, with the number of steps s and the seed."""

    steps: int
    learning_rate: float
    batch_size: int
    seed: int = 0


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
    def from_dict(cls, data: dict[str, Any]) -> Trial:
        """What `to_dict` gave."""
        settings = Settings(data["steps"], **data["hyperparameters"], seed=data["seed"])
        return cls(
            Architecture.parse(data["architecture"]),
            settings,
            data["error"],
            tuple(Point(*point) for point in data["curve"]),
            data["seconds"],
            data["threads"],
            data["reason"],
            data["number"],
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON: the record later tools and the report read."""
        settings = self.settings
        return {
            "number": self.number,
            "architecture": str(self.architecture),
            "hyperparameters": {"learning_rate": settings.learning_rate, "batch_size": settings.batch_size},
            "seed": self.settings.seed,
            "steps": self.settings.steps,
            "state": "failed" if self.error is None else "complete",
            "reason": self.reason,
            "error": self.error,
            "curve": [[point.step, point.error, point.seconds] for point in self.curve],
            "seconds": self.seconds,
            "threads": self.threads,
        }


def weights_path(run: Path, architecture: Architecture, settings: Settings) -> Path:
    """Where a trial's trained weights are kept."""
    name = f"{architecture}_s{settings.steps}_lr{settings.learning_rate}_b{settings.batch_size}_seed{settings.seed}"
    return run / "weights" / f"{name}.safetensors"
