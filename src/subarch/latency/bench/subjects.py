"""What is timed: from what the user names to files that a runtime opens.

    runs/mine                       a run folder: its pretrained model, else the selected one
    models/all-MiniLM-L6-v2         a stock Hugging Face folder, with or without a head
    4-8-1024-768                    a shape: an encoder with arbitrary weights, which do not matter for time
    runs/mine/exported/onnx-int8    an export, or its file: timed as it is

Models are exported for the runtimes asked for, into a scratch folder where an export of them is not there already;
nothing is compared with PyTorch then, and nothing calibrated.

    >>> subjects = find(["runs/mine", "4-8-1024-768"], config, scratch)
    >>> [artifact.path for artifact in artifacts(subjects[0], ["torch", "onnx-int8"], scratch)]
    [PosixPath('runs/mine/pretrained'), PosixPath('runs/mine/exported/onnx-int8/onnx/model.onnx')]
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from transformers import AutoConfig
from transformers.utils import logging

from subarch.errors import InvalidConfig, InvalidExport, InvalidTeacher
from subarch.export.config import ExportConfig, Head
from subarch.export.export import target, write
from subarch.export.exportable import load as load_exportable
from subarch.export.exportable import reload
from subarch.export.seal import FILES, PARITY, sealed
from subarch.latency.bench.config import BenchConfig, Runtime
from subarch.latency.timing import untrained
from subarch.models.student import Blueprint, Student
from subarch.models.teacher import FAMILIES, usable_positions
from subarch.numbers.architecture import Architecture, Inputs
from subarch.run.configuration import load
from subarch.run.folder import places

Engine = Literal["torch", "onnx", "openvino"]

SAYING_NOTHING = ("model", "pretrained", "selected", "model.onnx", "onnx", "openvino", "onnx-int8", "openvino-int8")
"""Names of files and folders that need the name of the folder they are in."""


@dataclass(frozen=True)
class Subject:
    """A model by the name it is shown with, and what must be known of it.

    `folder` holds its config.json; `longest` are the tokens that it can read at once. `fingerprint` (of a model) tells
    its exports; `source` is what the user named.
    """

    name: str
    kind: Literal["model", "shape", "export"]
    source: Path
    folder: Path
    head: Head
    architecture: Architecture
    inputs: Inputs
    longest: int
    fingerprint: str | None = None

    def operations(self, length: int) -> int:
        """Multiply-adds over one sequence of `length` tokens: the closed form, and those of a masked-LM head."""
        hidden, vocabulary = self.architecture.hidden, self.inputs.vocabulary
        head = length * hidden * (hidden + vocabulary) if self.head == "masked-lm" else 0
        return self.architecture.operations(self.inputs, length) + head


@dataclass(frozen=True)
class Artifact:
    """A model in a runtime. `path` is its folder for torch, else its file; `bytes` is what its files take."""

    subject: Subject
    runtime: str
    engine: Engine
    path: Path
    bytes: int

    def task(self, threads: int) -> dict[str, Any]:
        """What a process is told that serves it; see `serving.opened`."""
        return {
            "engine": self.engine,
            "path": str(self.path),
            "head": self.subject.head,
            "vocabulary": self.subject.inputs.vocabulary,
            "threads": threads,
        }


def find(texts: Sequence[str], config: BenchConfig, scratch: Path) -> list[Subject]:
    """The subjects that are named. `scratch`: a folder for the models of shapes.

    Raises:
        InvalidConfig: nothing is there by that name, and it is no shape.
        InvalidArchitecture: a shape that no encoder can have.
        InvalidTeacher: a model that cannot be loaded, or is of an unknown family.
        InvalidExport: an export that is damaged, or was changed since it was compared with PyTorch.
    """
    texts = list(dict.fromkeys(texts))
    paths = [Path(os.path.abspath(text)) for text in texts if Path(text).exists()]
    return [_subject(text, _short(Path(os.path.abspath(text)), paths), config, scratch) for text in texts]


def artifacts(subject: Subject, runtimes: Sequence[Runtime], scratch: Path) -> Iterator[Artifact]:
    """A subject in each of some runtimes; an export only in its own.

    Raises:
        InvalidExport: an export of it is there, and was changed since it was compared with PyTorch.
        OSError: a full disk, say.
    """
    if subject.kind == "export":
        file, record = sealed(subject.source)
        engine = record["runtime"]
        yield Artifact(subject, record["variant"], engine, file, _size(file.parent, FILES[engine]))
        return
    for runtime in runtimes:
        if runtime == "torch":
            weights = [path.name for path in subject.folder.glob("model*.safetensors")]
            yield Artifact(subject, runtime, "torch", subject.folder, _size(subject.folder, weights))
        else:
            engine, _, quantize = runtime.partition("-")
            export = load(ExportConfig, None, {"runtime": engine, "quantize": quantize or None})
            file = _exported(subject, export) or _write(subject, export, scratch)
            yield Artifact(subject, runtime, export.runtime, file, _size(file.parent, FILES[export.runtime]))


def write_shape(architecture: Architecture, inputs: Inputs, folder: Path, family: str = "bert") -> None:
    """Write a stock encoder of this shape, with arbitrary weights of ordinary size and no tokenizer."""
    blueprint = Blueprint(family, inputs, settings={"pad_token_id": 1 if family == "roberta" else 0})
    student = untrained([architecture], lambda shape: Student(shape, blueprint))[str(architecture)]
    bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    student.model.save_pretrained(folder)
    if bars:
        logging.enable_progress_bar()


def _subject(text: str, name: str, config: BenchConfig, scratch: Path) -> Subject:
    source = Path(text)
    if not source.exists():
        if not re.fullmatch(r"\d+(-\d+){3}", text):
            raise InvalidConfig(
                f"{text}: nothing is there, and it is no shape: give a folder of a model, a run folder, an export, or "
                "depth-heads-hidden-intermediate, as in 4-8-1024-768"
            )
        architecture, inputs = Architecture.parse(text), Inputs(config.vocabulary, config.positions)
        folder = scratch / text
        write_shape(architecture, inputs, folder)
        return Subject(text, "shape", folder, folder, "encoder", architecture, inputs, config.positions)
    place = source.parent if source.is_file() else source
    is_model = any(place.glob("model*.safetensors"))
    if source.is_file() or (not is_model and any((place / at / PARITY).is_file() for at in ("", *FILES))):
        file, record = sealed(place)
        folder = file.parent.parent
        return Subject(name, "export", place, folder, record["head"], *_read(folder))
    folder, _ = places(source, None)
    if not (folder / "config.json").is_file():
        raise InvalidTeacher(
            f"{source}: holds no model (config.json), is no run with a pretrained/ or selected/ one, and no export"
        )
    model = load_exportable(folder)
    about = (*_read(folder), model.teacher.fingerprint)
    return Subject(name, "model", source, folder, model.graph.head, *about)


def _short(path: Path, others: Sequence[Path]) -> str:
    """The end of a path: as much of it as tells it from the others, and says something."""
    for count in range(1 + (path.name in SAYING_NOTHING), len(path.parts)):
        end = path.parts[-count:]
        if sum(other.parts[-count:] == end for other in others) < 2:
            return "/".join(end)
    return str(path)


def _read(folder: Path) -> tuple[Architecture, Inputs, int]:
    """Shape, inputs and usable positions of a stock folder."""
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise InvalidExport(f"{folder}: its config.json cannot be read ({error}); export the model again") from error
    if config.model_type not in FAMILIES:
        raise InvalidTeacher(
            f"{folder}: model type {config.model_type!r} is not supported; use one of {', '.join(FAMILIES)}"
        )
    inputs = Inputs(config.vocab_size, config.max_position_embeddings, config.type_vocab_size)
    longest = usable_positions(config.model_type, config.max_position_embeddings, config.pad_token_id)
    return Architecture.from_config(config), inputs, longest


def _exported(subject: Subject, config: ExportConfig) -> Path | None:
    """The file of an export of this very model that is there already."""
    if subject.kind != "model":
        return None
    folder = target(subject.folder, config, places(subject.source, None)[1])
    if not (folder / config.runtime / PARITY).is_file():
        return None
    file, record = sealed(folder)
    return file if record["fingerprint"] == subject.fingerprint else None


def _write(subject: Subject, config: ExportConfig, scratch: Path) -> Path:
    place = scratch / "exported" / re.sub(r"\W", "_", subject.name) / config.variant
    place.mkdir(parents=True)
    write(reload(subject.folder, subject.head), config, None, place)
    return place / FILES[config.runtime][0]


def _size(folder: Path, names: Sequence[str]) -> int:
    return sum((folder / name).stat().st_size for name in names)
