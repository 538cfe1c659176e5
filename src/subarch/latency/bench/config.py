"""What decides a benchmark: one flat, frozen record whose keys are the command-line options of `subarch bench`.

    >>> config = load(BenchConfig, None, {"runtime": ["torch", "onnx-int8"], "batch": [1, 32]})
    >>> config.lengths
    (32, 128)

Importing this module imports neither torch nor a runtime.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from subarch.run.configuration import Text

Runtime = Literal["torch", "onnx", "onnx-int8", "openvino", "openvino-int8"]
RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)

LENGTHS = (32, 128)
"""Tokens of a sequence, where none are given."""


class BenchConfig(BaseModel):
    """Everything that decides `subarch bench` but the subjects. Construct it with `configuration.load`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    runtime: list[Runtime] | None = Field(
        None,
        min_length=1,
        description=f"Runtime to time in, may be given several times: {', '.join(RUNTIMES)}; null: all that are "
        "installed. Exported files are timed in their own",
    )
    batch: list[Annotated[int, Field(ge=1, le=4096)]] = Field(
        [1], min_length=1, description="Sequences of a forward pass, may be given several times"
    )
    length: list[Annotated[int, Field(ge=1, le=4096)]] | None = Field(
        None,
        min_length=1,
        description="Tokens of a sequence, may be given several times; null: 32 and 128, without length_from",
    )
    length_from: list[Text] | None = Field(
        None,
        min_length=1,
        description="Text, as for extract, whose lengths are taken: times are means over eight quantiles of them",
    )
    text_column: Text = Field("text", description="Column of JSONL, Parquet and datasets records that holds the text")
    threads: int | None = Field(
        None, ge=1, le=1024, description="Threads of each process; null: the usable cores, divided by processes"
    )
    processes: int = Field(1, ge=1, le=256, description="Processes that serve at the same time, each with its threads")
    rounds: int = Field(9, ge=1, le=1000, description="Visits of everything in turn that are timed")
    vocabulary: int = Field(30522, ge=6, le=10**7, description="Of a subject that is a shape: tokens it knows")
    positions: int = Field(512, ge=8, le=4096, description="Of a subject that is a shape: tokens it can read at once")

    @model_validator(mode="after")
    def _check_together(self) -> BenchConfig:
        if self.length is not None and self.length_from is not None:
            raise ValueError("length and length_from exclude each other")
        return self

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths that are timed one by one; none where they are a corpus's."""
        if self.length_from is not None:
            return ()
        return tuple(dict.fromkeys(self.length or LENGTHS))
