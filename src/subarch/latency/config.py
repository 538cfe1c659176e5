"""The configuration of `subarch bench`: one flat, frozen record whose keys are the command-line options.

    >>> config = load(BenchConfig, None, {"runtime": ["torch", "onnx-int8"], "batch": [1, 32]})
    >>> config.lengths
    (32, 128)

Importing this module imports neither torch nor a runtime.
"""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from subarch.run.configuration import Text

BenchRuntime = Literal["torch", "onnx", "onnx-int8", "openvino", "openvino-int8"]
"""Runtimes of `export.config.RuntimeName` that need no text to calibrate on."""

RUNTIMES: tuple[BenchRuntime, ...] = get_args(BenchRuntime)

LENGTHS = (32, 128)
"""Default tokens of a sequence."""


class BenchConfig(BaseModel):
    """Everything that decides `subarch bench` except what to time. Construct it with `configuration.load`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    runtime: list[BenchRuntime] | None = Field(
        None,
        min_length=1,
        description=f"Runtime to time in, repeatable: {', '.join(RUNTIMES)}; null: all that are installed. Exported "
        "files are timed in their own",
    )
    batch: list[Annotated[int, Field(ge=1, le=4096)]] = Field(
        [1], min_length=1, description="Sequences per forward pass, repeatable"
    )
    length: list[Annotated[int, Field(ge=1, le=4096)]] | None = Field(
        None,
        min_length=1,
        description="Tokens per sequence, repeatable; null: 32 and 128, unless length_from is given",
    )
    length_from: list[Text] | None = Field(
        None,
        min_length=1,
        description="Text, as for extract, to take lengths from: times are means over eight quantiles of them",
    )
    text_column: Text = Field("text", description="Column that holds the text in files of records and data sets")
    threads: int | None = Field(
        None, ge=1, le=1024, description="Threads of each process; null: the usable cores, divided by processes"
    )
    processes: int = Field(1, ge=1, le=256, description="Processes that serve at the same time, each with its threads")
    rounds: int = Field(9, ge=1, le=1000, description="Timed rounds; each visits everything in turn")
    vocabulary: int = Field(30522, ge=6, le=10**7, description="Size of the vocabulary of subjects that are shapes")
    positions: int = Field(512, ge=8, le=4096, description="Most tokens of a sequence, for subjects that are shapes")

    @model_validator(mode="after")
    def _check_together(self) -> BenchConfig:
        if self.length is not None and self.length_from is not None:
            raise ValueError("length and length_from exclude each other; give one of them")
        return self

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths to time one by one; none if they are taken from a corpus."""
        if self.length_from is not None:
            return ()
        return tuple(dict.fromkeys(self.length or LENGTHS))
