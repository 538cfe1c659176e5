"""The configuration of `subarch compress`: few keys; all others belong to the commands of the single stages.

    >>> load(CompressConfig, None, {"teacher": "all-MiniLM-L6-v2", "corpus": ["my-texts"], "faster": "4x"}).ratio
    0.25

Importing this module imports neither torch nor transformers.
"""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from subarch.run.configuration import File, Number, Text
from subarch.text.read import with_corpus

FASTER = "4x"
"""What is asked for where neither a limit nor a floor is."""


def _times(value: Any) -> Any:
    """A number of times as text: 4 and "4" are "4x"."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    text = f"{value:g}" if is_number else value
    return f"{text}x" if isinstance(text, str) and re.fullmatch(r"[\d.]+", text) else text


class CompressConfig(BaseModel):
    """What to compress, and how far. Construct it with `configuration.load`, which raises `InvalidConfig`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    teacher: File = Field(description="What to compress, as for extract: a folder or hub name, or recorded vectors")
    start_from: File | None = Field(
        None,
        description="Folder or hub name of the encoder whose weights, tokenizer and family the student has; null: the "
        "teacher's",
    )
    corpus: list[Text] = Field(
        [], description="Text like what the model will read, as for extract: files, folders, datasets:NAME"
    )
    task: Text | None = Field(
        None, description="Public task that the teacher is fine-tuned for (see `subarch tasks`), instead of a corpus"
    )
    data: Text | None = Field(None, description="Folder of the task")
    faster: Annotated[str | None, BeforeValidator(_times)] = Field(
        None,
        description="Limit: so many times as fast as the teacher in the same runtime, as in 4x; this is the default "
        "where no other limit is given",
    )
    max_latency_ms: Number | None = Field(
        None, description="Limit: milliseconds of one forward pass on this machine, in the runtime that serves"
    )
    max_megabytes: Number | None = Field(
        None,
        description="Limit: millions of bytes of the file in the runtime that serves; the vocabulary is cut for it",
    )
    keep: Annotated[Number, Field(lt=1)] | None = Field(
        None,
        description="Share of the score of a teacher of a task that is enough, 0.97: the fastest that keeps it is "
        "taken, instead of the best under the limit; the inputs need labels",
    )
    minutes: Number = Field(60.0, description="How long it may take, about")
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Seed of the order of the data and of random weights")

    _with_corpus = model_validator(mode="before")(with_corpus)

    @model_validator(mode="before")
    @classmethod
    def _say_how_fast(cls, values: Any) -> Any:
        """Write the default limit into the record."""
        limits = ("faster", "max_latency_ms", "max_megabytes", "keep")
        if isinstance(values, dict) and all(values.get(key) is None for key in limits):
            return {**values, "faster": FASTER}
        return values

    @model_validator(mode="after")
    def _check_together(self) -> CompressConfig:
        """Every message names the keys and what to change."""
        if self.faster is not None and not self._is_faster:
            raise ValueError(f"faster {self.faster!r} is no number of times above 1; write it as in 4x")
        limits = [key for key in ("faster", "max_latency_ms", "max_megabytes") if getattr(self, key) is not None]
        if len(limits) > 1:
            raise ValueError(f"{' and '.join(limits)} are two limits; give one (subarch extract takes several)")
        if (self.task is None) != (self.data is None):
            raise ValueError("task and data belong together: the name of a task, and the folder that holds it")
        if self.task is None and not self.corpus:
            raise ValueError("corpus is missing: give text like what the model will read")
        if self.task is not None and self.corpus:
            raise ValueError(f"task {self.task!r} gives the inputs, instead of a corpus; leave one of them out")
        return self

    @property
    def _is_faster(self) -> bool:
        found = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)x", self.faster or "")
        return found is not None and float(found[1]) > 1

    @property
    def ratio(self) -> float | None:
        """The limit on latency as a share of the teacher's; None: it is another, or none."""
        return None if self.faster is None else 1 / float(self.faster.removesuffix("x"))
