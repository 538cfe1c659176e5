"""The run folder: what each stage writes. A kill at any instant leaves the old file or the new one, never a part.

config.yaml         the resolved configuration
environment.json    versions, git state and machine
basis.json          what all candidates share, and what they are measured against
space.json          the axes of the search space, as they were at the start
layers.json         which layers of the start candidates of each depth keep, and the trials that decided it
latency.json        latencies, measured or predicted; latency_*.json: of later questions, under other conditions
*.inputs.json       what a stage read, by content (see `inputs`)
outline.json, teacher/, serving.json, compressed.json   of `compress`: its plan, the teacher's files, what each file
                    takes and keeps, and what it came to
study.db            every finished trial (see docs/study.md); study.json: the study's name in it
weights/            trained weights by trial
selection.json      the choice, the frontier, the runners-up and why they lost
selected/           the chosen model as it stands after the search, in stock format
pretrain.yaml       the resolved configuration of the full training
schedule.json       its steps, and whether the teacher's outputs are kept; both decided once, by measurement
pretrained.checkpoints/, events/   checkpoints, TensorBoard
pretraining.json    its curves and what it came to
pretrained/         the trained model in stock format, with its card
finetuned/          a model in stock format per task; its report.json: evaluations
retrieval/          evaluations in search, a record for each model and collection
report.html         the page to look at

>>> with RunFolder.create(Path("runs/mine"), config, resume=False) as folder:
...     folder.write(Selection(...))
...     folder.read(Selection).winner.architecture
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError

from subarch.errors import InvalidConfig, InvalidStudy
from subarch.run.configuration import dump, load
from subarch.run.files import read_yaml, unreadable, write_text
from subarch.run.record import Bare, Record

Config = TypeVar("Config", bound=BaseModel)
Kind = TypeVar("Kind", bound=Record)

FORMAT = 5
"""Raised whenever an artifact changes; 5: latencies have visits, and certificates count with them."""

COMPRESSION = "compress.inputs.json"
"""What marks the folder of a `compress`, before a search has begun there too."""

_REMEDY = "delete it and resume the run"


class Format(Bare):
    """The version of the run folder's layout."""

    NAME = "format"

    value: Any  # of other versions too


class RunFolder:
    """A run folder. Use `create` or `open`. As a context manager it is locked and explains failures of the disk."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(path / ".lock")

    @classmethod
    def create(cls, path: Path, config: BaseModel, resume: bool) -> RunFolder:
        """A new run, or with `resume` the one that is there; whether that has the same input is for `inputs.claim`.

        Raises:
            InvalidStudy: a run is there and `resume` was not asked for, or it has another format.
        """
        if not (path / "config.yaml").is_file():
            # A start that was killed has left hidden files and format.json, but not yet a configuration; `compress`
            # leaves what it measures before the search
            others = [p.name for p in path.iterdir() if p.name[0] != "."] if path.is_dir() else []
            if COMPRESSION not in others and set(others) - {"format.json"}:
                raise InvalidStudy(f"{path}: is not empty and not a run folder; choose another with --run")
            try:
                path.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise InvalidStudy(f"{path}: cannot be made: {error}; choose another with --run") from error
            return cls(path)._start(config)
        folder = cls.open(path)
        if not folder.begun:
            return folder._start(config)
        if not resume:
            raise InvalidStudy(
                f"{path}: holds a run already; add --resume to go on with it, or choose another with --run"
            )
        return folder

    @property
    def begun(self) -> bool:
        """Whether something is finished that a start with other input would lose; a mistyped teacher leaves nothing."""
        return (self.path / "basis.json").is_file() or (self.path / "study.db").is_file()

    def _start(self, config: BaseModel) -> RunFolder:
        with self:  # not under the feet of a process that has only begun
            (self.path / "space.json").unlink(missing_ok=True)
            self.write(Format(value=FORMAT))
            self.write_text("config.yaml", dump(config))
        return self

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """A run that is there; InvalidStudy where there is none, or one of another format."""
        if not (path / "config.yaml").is_file():
            raise InvalidStudy(f"{path}: no run folder (it has no config.yaml)")
        folder = cls(path)
        if (found := folder.read(Format).value) != FORMAT:
            raise InvalidStudy(f"{path}: a run of format {found}, this version reads {FORMAT}; start a new one")
        return folder

    def __enter__(self) -> RunFolder:
        try:
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise InvalidStudy(f"{self.path}: another process is working in this run; wait for it to end") from error
        except OSError as error:
            raise InvalidStudy(f"{self.path}: cannot be written in: {error}") from error
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self._lock.release()
        # Wherever it happens, in a worker too: safetensors wraps what the system says
        if isinstance(error, (OSError, SafetensorError)):
            raise InvalidStudy(
                f"{self.path}: stopped by {type(error).__name__}: {error}; what was finished before is kept: "
                "set right what is wrong (a full disk?), then resume"
            ) from error

    def settings(self) -> dict[str, Any]:
        """The configuration that the run was started with, by key, for a stage that takes over some of it."""
        found = read_yaml(self.path / "config.yaml", InvalidConfig)
        return found if isinstance(found, dict) else {}

    def config(self, kind: type[Config]) -> Config:
        """The configuration that the run was started with; InvalidConfig where it was damaged."""
        return load(kind, self.path / "config.yaml", {})

    def has(self, kind: type[Record], name: str | None = None) -> bool:
        """Whether an artifact is there; `name` is the stem of its file where it is another than the kind's."""
        return self._path(kind, name).is_file()

    def read(self, kind: type[Kind], name: str | None = None) -> Kind:
        """An artifact; `name` as for `has`.

        Raises:
            InvalidStudy: it is missing, cannot be read, or does not hold what an artifact of this kind holds.
        """
        path = self._path(kind, name)
        try:
            return kind.model_validate_json(path.read_text(encoding="utf-8"), strict=True)
        except FileNotFoundError as error:
            raise InvalidStudy(
                f"{path}: missing; finish the run first: subarch extract --run {self.path} --resume"
            ) from error
        except OSError as error:
            raise InvalidStudy(unreadable(path, error)) from error
        except ValidationError as error:
            raise InvalidStudy(f"{path}: damaged ({_first_problem(error)}); {_REMEDY}") from error
        except ValueError as error:  # not UTF-8
            raise InvalidStudy(f"{path}: damaged ({error}); {_REMEDY}") from error

    def write(self, record: Record, name: str | None = None) -> None:
        """Write an artifact atomically; `name` as for `has`, errors as for `write_text`."""
        self.write_text(self._path(type(record), name).name, record.to_json())

    def write_text(self, name: str, text: str) -> None:
        """Write a file atomically.

        Raises:
            InvalidStudy: the disk is full or read-only.
        """
        path = self.path / name
        try:
            write_text(path, text)
        except OSError as error:
            raise InvalidStudy(f"{path}: cannot be written: {error}; what was finished before is kept") from error

    def _path(self, kind: type[Record], name: str | None) -> Path:
        return self.path / f"{name or kind.NAME}.json"


def _first_problem(error: ValidationError) -> str:
    problem = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, problem["loc"]))
    return f"{place}: {problem['msg']}" if place else problem["msg"]


def weights_file(
    run: Path, architecture: object, steps: int, learning_rate: float | None, batch_size: int | None, seed: int
) -> Path:
    """Where the search keeps the weights of a trained candidate."""
    return run / "weights" / f"{architecture}_s{steps}_lr{learning_rate}_b{batch_size}_seed{seed}.safetensors"


def places(model: Path, run: Path | None) -> tuple[Path, Path]:
    """The model that is meant by a folder, and the run folder that what is made of it goes to.

    A run folder means its pretrained encoder, or else the selected one. What is made of a model that lies in a
    run folder goes there too, of any other to runs/<its name>.
    """
    for name in ("pretrained", "selected"):
        if not (model / "config.json").is_file() and (model / name / "config.json").is_file():
            return model / name, run or model
    if run is None:
        above = model.absolute().parents[:2]
        marks = ("config.yaml", "pretrain.yaml", "finetuned")
        homes = [folder for folder in above if any((folder / mark).exists() for mark in marks)]
        run = homes[0] if homes else Path("runs") / model.name
    return model, run
