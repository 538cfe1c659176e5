"""A trial: one candidate, trained with one θ, and the error curve it left. Plain data, shared by all who pass it on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subarch.numbers.architecture import Architecture
from subarch.run.folder import weights_file


@dataclass(frozen=True, slots=True)
class Settings:
    """One element θ of the hyperparameter space Θ, with the number of steps s and the seed.

    The last three are for cheap errors (`hints.py`). `elastic`: trained together with its parts. `parent`: begins as a
    part of this candidate, which was trained for `parent_steps`, elastically where that is said.
    """

    steps: int
    learning_rate: float
    batch_size: int
    seed: int = 0
    elastic: bool = False
    parent: Architecture | None = None
    parent_steps: int = 0


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
        settings = Settings(
            data["steps"], **data["hyperparameters"], seed=data["seed"], **start_from(data.get("start"))
        )
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
            "start": start_of(self.settings),
            "state": "failed" if self.error is None else "complete",
            "reason": self.reason,
            "error": self.error,
            "curve": [[point.step, point.error, point.seconds] for point in self.curve],
            "seconds": self.seconds,
            "threads": self.threads,
        }


def start_of(settings: Settings) -> dict[str, Any] | None:
    """How a trial began, as JSON, where it was not as configured."""
    if not settings.elastic and settings.parent is None:
        return None
    parent = None if settings.parent is None else str(settings.parent)
    return {"elastic": settings.elastic, "parent": parent, "parent_steps": settings.parent_steps}


def start_from(data: dict[str, Any] | None) -> dict[str, Any]:
    """Fields of `Settings` from what `start_of` gave."""
    if data is None or data["parent"] is None:
        return data or {}
    return data | {"parent": Architecture.parse(data["parent"])}


def weights_path(run: Path, architecture: Architecture, settings: Settings) -> Path:
    """Where a trial's trained weights are kept."""
    path = weights_file(run, architecture, settings.steps, settings.learning_rate, settings.batch_size, settings.seed)
    return path.with_name(f"{path.stem}_elastic{path.suffix}") if settings.elastic else path
