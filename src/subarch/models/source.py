"""A teacher as a search sees it: a source of vectors, whatever computes them.

    >>> source = source_of("all-mpnet-base-v2")          # a folder or a hub name, or a file of recorded vectors
    >>> source.embed_texts(["a text"]).shape
    torch.Size([1, 768])

Three kinds have this protocol: `Teacher`, whose weights a student can start from; `StockTeacher`, any other encoder
that sentence-transformers loads; and `RecordedVectors`, a file of texts with their vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor

from subarch.errors import InvalidTeacher
from subarch.models.stock import StockTeacher, teacher_of
from subarch.models.teacher import Teacher
from subarch.models.teacher import content_of as of_folder
from subarch.run.inputs import Content, of_file
from subarch.run.records import Teacher as Figures
from subarch.text.vectors import RecordedVectors, is_recording


class Source(Protocol):
    """What a teacher is to its students. `fingerprint` identifies by content what it computes."""

    @property
    def name(self) -> str: ...
    @property
    def fingerprint(self) -> str: ...
    @property
    def width(self) -> int:
        """Size of a vector."""
        ...

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """(n, width) vectors of n texts, fp32."""
        ...


AnyTeacher = Teacher | StockTeacher | RecordedVectors


def source_of(teacher: str | Path) -> AnyTeacher:
    """Load a teacher of any kind.

    Raises:
        InvalidTeacher: it cannot be loaded, is damaged, or is no encoder of texts.
    """
    if is_recording(teacher):
        return RecordedVectors.load(Path(teacher))
    return teacher_of(teacher)


def content_of(teacher: str | Path) -> Content:
    """What a stage records of a teacher that it reads (`run.inputs`)."""
    return of_file(Path(teacher), InvalidTeacher) if is_recording(teacher) else of_folder(teacher)


def figures_of(teacher: AnyTeacher | None, length: int) -> Figures | None:
    """What is known of a teacher's size; operations at a sequence length, as far as they are known in closed form."""
    if teacher is None:
        return None
    if isinstance(teacher, Teacher):
        shape, own = teacher.architecture, teacher.inputs(teacher.width)
        parameters, work = shape.parameters(own).total, shape.operations(own, length)
        return Figures(name=teacher.name, architecture=str(shape), parameters=parameters, operations=work)
    parameters = teacher.parameters if isinstance(teacher, StockTeacher) else None
    return Figures(name=teacher.name, architecture=None, parameters=parameters, operations=None)
