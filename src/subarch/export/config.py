"""What decides an export: one flat, frozen record whose keys are the command-line options of `subarch export`.

    >>> config = load(ExportConfig, None, {"runtime": "onnx", "quantize": "int8"})
    >>> config.variant
    'onnx-int8'

Importing this module imports neither torch nor a runtime.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from subarch.run.configuration import Amount, Text

Head = Literal["encoder", "sentence", "masked-lm", "classification", "choice"]
"""What a graph computes: token vectors; those and an embedding; logits of tokens, of classes, of choices."""


class ExportConfig(BaseModel):
    """Everything that decides `subarch export`.

    Construct it with `configuration.load`, whose errors are `InvalidConfig`. The default limits on int8 and 16 bits are
    justified by the measurements in docs/export.md.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    runtime: Literal["onnx", "openvino"] = Field("onnx", description="Runtime that will serve: onnx or openvino")
    head: Head | None = Field(
        None,
        description="What the graph computes: encoder (token vectors), sentence (those, and the embedding, pooled and "
        "normalised as the folder says), masked-lm, classification, choice; null: what the model's folder is for",
    )
    quantize: Literal["int8", "int8-static", "int8-embeddings"] | None = Field(
        None,
        description="int8: weights in 8 bits, inputs of each product quantised as they come; int8-static: their ranges "
        "calibrated on text; int8-embeddings: the token embeddings only; null: nothing",
    )
    storage: Literal["fp32", "fp16", "bf16"] = Field(
        "fp32", description="Format that what is not int8 is stored in: fp32, fp16 or bf16; it is computed in fp32"
    )
    corpus: list[Text] | None = Field(
        None,
        min_length=1,
        description="Text to calibrate on and to compare on, as for extract; null: the run folder's corpus, and where "
        "there is none random tokens",
    )
    text_column: Text = Field("text", description="Column of JSONL, Parquet and datasets records that holds the text")
    calibration: int = Field(128, ge=16, le=10**5, description="Texts to calibrate int8-static on")
    max_length: int | None = Field(
        None, ge=8, le=512, description="Longest sequence that is calibrated and compared; null: the model's longest"
    )
    min_cosine: Annotated[Amount, Field(le=1)] = Field(
        0.95,
        description="Of int8 and 16 bits: least cosine between what file and PyTorch compute, for the worst sequence",
    )
    max_drop: Annotated[Amount, Field(le=1)] = Field(
        0.02,
        description="Of int8 and 16 bits, where the task is known: largest drop of its metric on held-out examples",
    )
    beside: bool = Field(
        False, description="Put onnx/ or openvino/ into the model's own folder instead of a folder of its own"
    )

    @model_validator(mode="after")
    def _check_together(self) -> ExportConfig:
        if self.runtime == "openvino" and self.storage == "bf16":
            raise ValueError("OpenVINO stores 16-bit weights as fp16; set storage to fp16, or runtime to onnx")
        return self

    @property
    def variant(self) -> str:
        """A name: the runtime, and what was made smaller."""
        return "-".join(filter(None, (self.runtime, self.quantize, self.storage if self.storage != "fp32" else None)))

    @property
    def is_exact(self) -> bool:
        """Whether the file must compute what PyTorch does, up to rounding."""
        return self.quantize is None and self.storage == "fp32"
