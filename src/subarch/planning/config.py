"""The question of `subarch plan`: one flat, frozen record whose keys are the command-line options.

It is read as that of `subarch pretrain` is, and where both have a key it means the same.

    >>> from subarch.run.configuration import load
    >>> load(PlanConfig, None, {"architecture": "4-8-1024-768", "device": "v100", "hours": 288}).length
    128

Importing this module imports neither torch nor transformers.
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
"""10¹² floating-point operations a second of one device, by precision; 16 bits stand under bf16."""


class PlanConfig(BaseModel):
    """What is planned. `configuration.load` constructs it, with errors that are `InvalidConfig`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    architecture: Text = Field(description="What is trained, as D-A-H-I, 4-8-1024-768")
    teacher: Text | None = Field(
        None,
        description="What it learns from: a model folder or a shape, 24-16-1024-4096; null: none, masked LM alone",
    )
    loss: list[Literal["mlm", "logits", "embedding", "hidden", "relations"]] | None = Field(
        None, min_length=1, description="Losses of the training; null: those of `subarch pretrain` for such a teacher"
    )
    vocabulary: int | None = Field(
        None, ge=1, le=10**7, description="Rows of the token table; null: the teacher folder's, else RoBERTa's 50265"
    )
    positions: int | None = Field(
        None, ge=1, le=10**6, description="Rows of the position table; null: the teacher folder's, else RoBERTa's 514"
    )
    token_types: int | None = Field(
        None, ge=1, le=100, description="Rows of the token-type table; null: the teacher folder's, else RoBERTa's 1"
    )
    length: int = Field(128, ge=3, le=10**6, description="Tokens per sequence, the two special ones included")
    masked: Annotated[Number, Field(le=1)] = Field(0.15, description="Share of the tokens that is masked")
    batch_tokens: int = Field(8192, ge=3, le=10**9, description="Tokens of one optimiser step over all devices")
    micro_tokens: int | None = Field(
        None,
        ge=3,
        le=10**9,
        description="Tokens of one forward pass of a device; null: batch_tokens over the devices",
    )
    steps: int | None = Field(None, ge=1, le=10**12, description="How long: optimiser steps")
    epochs: Number | None = Field(None, description="How long: passes over the corpus; null with a corpus alone: one")
    hours: Number | None = Field(None, description="How long: hours of one device, which tell the tokens")
    corpus: File | None = Field(None, description="Folder of a packed corpus, to count its tokens")
    corpus_tokens: Number | None = Field(None, description="Tokens of the corpus, instead of the corpus")
    device: Text = Field(
        HERE, description=f"Device: here (some steps are timed on this machine), or {', '.join(PEAK_TFLOPS)}"
    )
    peak_tflops: Number | None = Field(
        None, description="Peak of another device in 10^12 operations a second, at this precision"
    )
    utilisation: Annotated[Number, Field(le=1)] = Field(
        0.3, description="Share of its peak that a device reaches; of no consequence where steps are timed"
    )
    gpus: int = Field(1, ge=1, le=10**6, description="Devices that share the hours")
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="Optimiser: adamw, or sgd without momentum")
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Arithmetic of forward and backward passes")
    freeze_embeddings: bool = Field(False, description="Keep the token table as it is")
    seconds: Number = Field(10.0, description="Seconds that training steps are timed for, at device here")

    @model_validator(mode="after")
    def _check_together(self) -> PlanConfig:
        """What no single key can tell. Every message names the keys and what to change."""
        for keys in (("steps", "epochs", "hours"), ("corpus", "corpus_tokens")):
            given = [f"{key} {getattr(self, key)}" for key in keys if getattr(self, key) is not None]
            if len(given) > 1:
                raise ValueError(f"{' and '.join(given)} say the same; give one of them")
        if self.epochs is not None and self.corpus is None and self.corpus_tokens is None:
            raise ValueError(f"epochs {self.epochs:g} are passes over a corpus; give corpus or corpus_tokens")
        if self.device.lower() not in (HERE, *PEAK_TFLOPS) and self.peak_tflops is None:
            raise ValueError(
                f"device {self.device!r} has no known peak, only {', '.join(PEAK_TFLOPS)} have; give peak_tflops, or "
                "device here to time some steps on this machine"
            )
        return self

    @property
    def peak(self) -> float | None:
        """The device's peak in 10¹² operations a second; None where steps are timed instead."""
        if self.peak_tflops is not None or self.device.lower() == HERE:
            return self.peak_tflops
        return PEAK_TFLOPS[self.device.lower()][self.precision]
