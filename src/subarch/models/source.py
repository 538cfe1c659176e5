"""A teacher as a search sees it: a source of vectors, whatever computes them.

    >>> source = source_of("all-mpnet-base-v2")          # a folder or a hub name, or a file of recorded vectors
    >>> source.embed_texts(["a text"]).shape
    torch.Size([1, 768])

Three kinds have this protocol: `Teacher`, whose weights a student can start from; `StockTeacher`, any other encoder
that sentence-transformers loads; and `RecordedVectors`, a file of texts with their vectors. A `TaskTeacher` is a
`Teacher` that gives the outputs of a task instead (`outputs.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, cast

from torch import Tensor, nn

from subarch.errors import InvalidConfig, InvalidTeacher
from subarch.models.kinds import task_head_of
from subarch.models.outputs import TaskTeacher
from subarch.models.stock import StockTeacher, teacher_of
from subarch.models.teacher import Teacher, resolve
from subarch.models.teacher import content_of as of_folder
from subarch.run.inputs import Content, of_file
from subarch.run.records import Teacher as Figures
from subarch.text.read import is_recording
from subarch.text.vectors import RecordedVectors


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


def is_of_task(teacher: str | Path | None) -> bool:
    """Whether this names a model with the head of a task, whose outputs students learn (`TaskTeacher`)."""
    return teacher is not None and not is_recording(teacher) and task_head_of(resolve(teacher)) is not None


def source_of(teacher: str | Path, prompt: str | None = None) -> AnyTeacher:
    """Load a teacher of any kind; `prompt`: see `teacher_of`.

    Raises:
        InvalidConfig: a prompt for recorded vectors, or one that does not go with the teacher.
        InvalidTeacher: it cannot be loaded, is damaged, or is no encoder of texts.
    """
    if is_of_task(teacher):
        if prompt is not None:
            raise InvalidConfig(f"prompt {prompt!r} is put before single texts that are embedded; drop it")
        return TaskTeacher.load(teacher)
    if not is_recording(teacher):
        return teacher_of(teacher, prompt)
    if prompt is not None:
        raise InvalidConfig(
            f"prompt {prompt!r} is put before what a teacher reads, and {teacher} holds vectors without the model that "
            "made them; drop it (vectors are recorded with the prompt that `subarch record` is given)"
        )
    return RecordedVectors.load(Path(teacher))


def content_of(teacher: str | Path) -> Content:
    """What a stage records of a teacher that it reads (`run.inputs`)."""
    return of_file(Path(teacher), InvalidTeacher) if is_recording(teacher) else of_folder(teacher)


def figures_of(teacher: AnyTeacher | None, length: int) -> Figures | None:
    """What is known of a teacher's size; operations at a sequence length, as far as they are known in closed form."""
    if teacher is None:
        return None
    if isinstance(teacher, Teacher):
        shape, own = teacher.architecture, teacher.inputs(teacher.width)  # of a task the head decides
        parameters, work = shape.parameters(own).total, shape.operations(own, length)
        name = f"{teacher.name} ({shape})"
        return Figures(name=name, architecture=str(shape), parameters=parameters, operations=work, timed=True)
    size = teacher.parameters if isinstance(teacher, StockTeacher) else None
    has_latency = isinstance(teacher, StockTeacher) and teacher.module is not None
    return Figures(name=teacher.name, architecture=None, parameters=size, operations=None, timed=has_latency)


def timed(teacher: AnyTeacher) -> nn.Module | None:
    """What of a teacher is timed: a module of (n, length) ids and mask. None where nothing takes time here."""
    if isinstance(teacher, Teacher):
        return teacher.model
    if isinstance(teacher, StockTeacher) and teacher.module is not None:
        return _Encoder(teacher.module)
    return None


class _Encoder(nn.Module):
    """The encoder of a stock teacher; ids beyond its vocabulary, as of another tokenizer, read its last row."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module
        self.last: int = cast(Any, module).get_input_embeddings().num_embeddings - 1

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        states: Tensor = self.module(input_ids=ids.clamp(max=self.last), attention_mask=mask).last_hidden_state
        return states
