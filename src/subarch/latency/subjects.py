"""What `subarch bench` times: from what the user names to files that a runtime opens.

    runs/mine                       a run folder: its pretrained model, else the selected one
    models/all-MiniLM-L6-v2         a stock Hugging Face folder, with or without a head
    4-8-1024-768                    a shape: an encoder with arbitrary weights, which do not matter for time
    runs/mine/exported/onnx-int8    an export, or its file: timed as it is

A model is exported for the runtimes asked for, into a scratch folder, unless an export of it exists already. Such an
export is neither compared with PyTorch nor calibrated.

    >>> subjects = find(["runs/mine", "4-8-1024-768"], config, scratch)
    >>> [artifact.task(threads=2).path for artifact in artifacts(subjects[0], ["torch", "onnx-int8"], scratch)]
    ['runs/mine/pretrained', 'runs/mine/exported/onnx-int8/onnx/model.onnx']
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from transformers import AutoConfig
from transformers.utils import logging

from subarch.errors import InvalidConfig, InvalidExport, InvalidTeacher
from subarch.exporting.config import Engine, ExportConfig, Head, RuntimeName
from subarch.exporting.export import target, write
from subarch.exporting.graph import load_exportable, load_graph
from subarch.exporting.runtimes import FILES, PARITY, find_export
from subarch.latency.config import BenchConfig
from subarch.latency.measuring import untrained
from subarch.latency.serving import Task
from subarch.models.student import Blueprint, Student
from subarch.models.teacher import FAMILIES, usable_positions
from subarch.numbers.architecture import Architecture, Inputs
from subarch.run.files import unreadable
from subarch.run.folder import places

GENERIC = ("model", "pretrained", "selected", "model.onnx", "onnx", "openvino", "onnx-int8", "openvino-int8")
"""Names of files and folders that say nothing without the name of the folder they are in."""


@dataclass(frozen=True)
class Subject:
    """A model under the name it is shown with.

    `source` is what the user named, `folder` holds its config.json, `longest` is the most tokens that it can read at
    once. By the `fingerprint` of a model its exports are recognised.
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
    """A model in a runtime. `path` is its folder for torch, else its file; `bytes` is the size of its files."""

    subject: Subject
    runtime: str
    engine: Engine
    path: Path
    bytes: int

    def task(self, threads: int) -> Task:
        """The task of a process that serves it."""
        return Task(self.engine, threads, str(self.path), self.subject.head, self.subject.inputs.vocabulary)


def find(texts: Sequence[str], config: BenchConfig, scratch: Path) -> list[Subject]:
    """The subjects of these names. `scratch`: a folder for the models of shapes.

    Raises:
        InvalidConfig: a name that is neither a path nor a shape.
        InvalidArchitecture: a shape that no encoder can have.
        InvalidTeacher: a model that cannot be loaded, or is of an unknown family.
        InvalidExport: an export that is damaged, or was changed after it was compared with PyTorch.
    """
    texts = list(dict.fromkeys(texts))
    paths = [Path(os.path.abspath(text)) for text in texts if Path(text).exists()]
    return [_subject(text, _short(Path(os.path.abspath(text)), paths), config, scratch) for text in texts]


def artifacts(subject: Subject, runtimes: Sequence[RuntimeName], scratch: Path) -> Iterator[Artifact]:
    """A subject in each of some runtimes; an export only in its own.

    Raises:
        InvalidExport: its export was changed after it was compared with PyTorch.
        OSError: for example a full disk.
    """
    if subject.kind == "export":
        file, record = find_export(subject.source)
        yield Artifact(subject, record.variant, record.runtime, file, _size(file.parent, FILES[record.runtime]))
        return
    for runtime in runtimes:
        if runtime == "torch":
            weights = [path.name for path in subject.folder.glob("model*.safetensors")]
            yield Artifact(subject, runtime, "torch", subject.folder, _size(subject.folder, weights))
        else:
            export = ExportConfig.of_runtime(runtime)
            file = _exported(subject, export) or _write(subject, export, scratch)
            yield Artifact(subject, runtime, export.runtime, file, _size(file.parent, FILES[export.runtime]))


def write_shape(architecture: Architecture, inputs: Inputs, folder: Path, family: str = "bert") -> None:
    """Write a stock encoder of this shape, with arbitrary weights of ordinary magnitude and no tokenizer."""
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
                f"{text}: is neither a path nor a shape: give a folder of a model, a run folder, an export, or "
                "depth-heads-hidden-intermediate, as in 4-8-1024-768"
            )
        architecture, inputs = Architecture.parse(text), Inputs(config.vocabulary, config.positions)
        folder = scratch / text
        write_shape(architecture, inputs, folder)
        return Subject(text, "shape", folder, folder, "encoder", architecture, inputs, config.positions)
    place = source.parent if source.is_file() else source
    is_model = any(place.glob("model*.safetensors"))
    if source.is_file() or (not is_model and any((place / at / PARITY).is_file() for at in ("", *FILES))):
        file, record = find_export(place)
        folder = file.parent.parent
        return Subject(name, "export", place, folder, record.head, *_read(folder))
    folder, _ = places(source, None)
    if not (folder / "config.json").is_file():
        raise InvalidTeacher(
            f"{source}: holds no model (there is no config.json), and is neither a run folder with a pretrained or "
            "selected model nor an export"
        )
    model = load_exportable(folder)
    about = (*_read(folder), model.teacher.fingerprint)
    return Subject(name, "model", source, folder, model.graph.head, *about)


def _short(path: Path, others: Sequence[Path]) -> str:
    """The end of a path, as long as it takes to tell it from the others and to be meaningful."""
    for count in range(1 + (path.name in GENERIC), len(path.parts)):
        end = path.parts[-count:]
        if sum(other.parts[-count:] == end for other in others) < 2:
            return "/".join(end)
    return str(path)


def _read(folder: Path) -> tuple[Architecture, Inputs, int]:
    """Shape, inputs and usable positions of a stock folder."""
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        problem = f"its config.json cannot be read ({error}); export the model again"
        raise InvalidExport(unreadable(folder, error, problem)) from error
    if config.model_type not in FAMILIES:
        raise InvalidTeacher(
            f"{folder}: model type {config.model_type!r} is not supported; use one of {', '.join(FAMILIES)}"
        )
    inputs = Inputs(config.vocab_size, config.max_position_embeddings, config.type_vocab_size)
    longest = usable_positions(config.model_type, config.max_position_embeddings, config.pad_token_id)
    return Architecture.from_config(config), inputs, longest


def _exported(subject: Subject, config: ExportConfig) -> Path | None:
    """The file of an existing export of this very model."""
    if subject.kind != "model":
        return None
    folder = target(subject.folder, config, places(subject.source, None)[1])
    if not (folder / config.runtime / PARITY).is_file():
        return None
    file, record = find_export(folder)
    return file if record.fingerprint == subject.fingerprint else None


def _write(subject: Subject, config: ExportConfig, scratch: Path) -> Path:
    place = scratch / "exported" / re.sub(r"\W", "_", subject.name) / config.variant
    place.mkdir(parents=True)
    write(load_graph(subject.folder, subject.head), config, None, place)
    return place / FILES[config.runtime][0]


def _size(folder: Path, names: Sequence[str]) -> int:
    return sum((folder / name).stat().st_size for name in names)
