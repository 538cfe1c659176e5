"""The configuration of `subarch plan`: one flat, frozen record whose keys are the command-line options.

Where `subarch pretrain` has the same key, it means the same. Importing this module imports neither torch nor
transformers.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from subarch.run.configuration import File, Number, Text

HERE = "here"
PEAK_TFLOPS: dict[str, dict[str, float]] = {
    # Dense, without sparsity, SXM boards. NVIDIA V100 datasheet (2020): 125 tensor (fp16; it has no bf16), 15.7 fp32
    "v100": {"bf16": 125.0, "fp32": 15.7},
    # NVIDIA A100 datasheet (2021): 312 bf16, 19.5 fp32 (156 with TF32, which torch leaves off by default)
    "a100": {"bf16": 312.0, "fp32": 19.5},
    # NVIDIA H100 datasheet (2023) prints 1979 bf16 with sparsity, half of it without; 67 fp32
    "h100": {"bf16": 989.5, "fp32": 67.0},
}
"""10¹² floating-point operations per second of one device, by precision; 16 bits are listed as bf16."""


class PlanConfig(BaseModel):
    """What to plan. Construct it with `configuration.load`, which raises `InvalidConfig`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    architecture: Text = Field(description="Architecture to train, as D-A-H-I, 4-8-1024-768")
    teacher: Text | None = Field(
        None,
        description="Teacher: a model folder or an architecture, 24-16-1024-4096; null: none, masked LM alone",
    )
    loss: list[Literal["mlm", "logits", "embedding", "hidden", "relations"]] | None = Field(
        None, min_length=1, description="Losses of the training; null: those of `subarch pretrain` for such a teacher"
    )
    length: int = Field(128, ge=3, le=10**6, description="Tokens per sequence, the two special ones included")
    batch_tokens: int = Field(8192, ge=3, le=10**9, description="Tokens per optimiser step, of all devices together")
    micro_tokens: int | None = Field(
        None,
        ge=3,
        le=10**9,
        description="Tokens per forward pass of a device; null: batch_tokens divided by the devices",
    )
    steps: int | None = Field(None, ge=1, le=10**12, description="Duration in optimiser steps")
    epochs: Number | None = Field(
        None, description="Duration in passes over the corpus; null: one, if there is a corpus"
    )
    hours: Number | None = Field(None, description="Duration in device hours, from which the tokens follow")
    corpus: File | None = Field(None, description="Folder of a packed corpus, to count its tokens")
    device: Text = Field(
        HERE, description=f"Device: here (some steps are timed on this machine), or {', '.join(PEAK_TFLOPS)}"
    )
    peak_tflops: Number | None = Field(
        None, description="Peak of another device in 10^12 operations per second, at this precision"
    )
    utilisation: Annotated[Number, Field(le=1)] = Field(
        0.3, description="Share of its peak that a device reaches; not used at device here"
    )
    gpus: int = Field(1, ge=1, le=10**6, description="Devices that share the hours")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Arithmetic of forward and backward passes")

    @model_validator(mode="after")
    def _check_together(self) -> PlanConfig:
        """Checks that need several keys. Every message names the keys and what to change."""
        keys = ("steps", "epochs", "hours")
        given = [f"{key} {getattr(self, key)}" for key in keys if getattr(self, key) is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} both set the duration; give one of them")
        if self.epochs is not None and self.corpus is None:
            raise ValueError(f"epochs {self.epochs:g} are passes over a corpus; give the corpus, or steps instead")
        if self.device.lower() not in (HERE, *PEAK_TFLOPS) and self.peak_tflops is None:
            raise ValueError(
                f"device {self.device!r} has no known peak, only {', '.join(PEAK_TFLOPS)} have; give peak_tflops, or "
                "device here to time some steps on this machine"
            )
        return self

    @property
    def peak(self) -> float | None:
        """The device's peak in 10¹² operations per second; None if steps are timed instead."""
        if self.peak_tflops is not None or self.device.lower() == HERE:
            return self.peak_tflops
        return PEAK_TFLOPS[self.device.lower()][self.precision]
