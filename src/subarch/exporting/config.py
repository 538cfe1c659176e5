"""The configuration of `subarch export`, and the names of runtimes, which all stages share.

    >>> config = load(ExportConfig, None, {"runtime": "onnx", "quantize": "int8"})
    >>> config.variant
    'onnx-int8'
    >>> config == ExportConfig.of_runtime("onnx-int8")
    True

Importing this module imports neither torch nor a runtime.
"""

from __future__ import annotations

from typing import Annotated, Literal, cast, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from subarch.errors import InvalidConfig
from subarch.run.configuration import Amount, Text, load

Head = Literal["encoder", "sentence", "masked-lm", "classification", "tagging", "choice"]
"""What a graph computes: token vectors; token vectors and an embedding; logits of tokens, classes, tags, or choices."""

Engine = Literal["torch", "onnx", "openvino"]
"""What runs a forward pass. Apart from torch, it is also the name of the extra that installs it."""

Quantize = Literal["int8", "int8-static", "int8-embeddings"]

RuntimeName = Literal[
    "torch", "onnx", "onnx-int8", "onnx-int8-static", "openvino", "openvino-int8", "openvino-int8-static"
]
"""An engine and how the file that it opens is quantised, as `subarch export` does it; torch is eager PyTorch."""


def parse_runtime(name: str) -> tuple[Engine, Quantize | None]:
    """The engine and the quantisation of a runtime, as in `onnx-int8`.

    Raises:
        InvalidConfig: unknown name; the message lists the known ones.
    """
    if name not in get_args(RuntimeName):
        raise InvalidConfig(f"runtime {name!r} is unknown; choose one of {', '.join(get_args(RuntimeName))}")
    engine, _, quantize = name.partition("-")
    return cast(Engine, engine), cast(Quantize, quantize) if quantize else None


class ExportConfig(BaseModel):
    """Everything that decides `subarch export`.

    Construct it with `configuration.load`, which raises `InvalidConfig`. docs/export.md has the measurements behind the
    default limits on int8 and 16 bits.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    runtime: Literal["onnx", "openvino"] = Field("onnx", description="Runtime to export for: onnx or openvino")
    head: Head | None = Field(
        None,
        description="Output of the graph: encoder (token vectors), sentence (token vectors and the embedding, pooled "
        "and normalised as the folder says), masked-lm, classification, tagging, choice; null: what the model's folder "
        "is for",
    )
    quantize: Quantize | None = Field(
        None,
        description="int8: weights in 8 bits, inputs of each product quantised at run time; int8-static: input ranges "
        "calibrated on text; int8-embeddings: the token embeddings only; null: no quantisation",
    )
    storage: Literal["fp32", "fp16", "bf16"] = Field(
        "fp32", description="Storage format of weights that are not int8: fp32, fp16 or bf16; computed in fp32"
    )
    corpus: list[Text] | None = Field(
        None,
        min_length=1,
        description="Text to calibrate and compare on, as for extract; null: the run folder's corpus, or random tokens "
        "if there is none",
    )
    text_column: Text = Field("text", description="Column that holds the text in files of records and data sets")
    calibration: int = Field(128, ge=16, le=10**5, description="Texts to calibrate int8-static on")
    min_cosine: Annotated[Amount, Field(le=1)] = Field(
        0.95,
        description="Limit for int8 and 16 bits: least cosine with PyTorch's output, over all sequences",
    )
    max_drop: Annotated[Amount, Field(le=1)] = Field(
        0.02,
        description="Limit for int8 and 16 bits of a fine-tuned model: largest drop of its metric on held-out examples",
    )
    beside: bool = Field(
        False, description="Write onnx/ or openvino/ into the model's own folder instead of a new folder"
    )

    @model_validator(mode="after")
    def _check_together(self) -> ExportConfig:
        if self.runtime == "openvino" and self.storage == "bf16":
            raise ValueError("OpenVINO stores 16-bit weights as fp16; set storage to fp16, or runtime to onnx")
        return self

    @classmethod
    def of_runtime(cls, name: RuntimeName) -> ExportConfig:
        """How a model is exported for a runtime other than torch."""
        engine, quantize = parse_runtime(name)
        return load(cls, None, {"runtime": engine, "quantize": quantize})

    @property
    def variant(self) -> str:
        """A name: the runtime, quantisation and storage where they are not the default."""
        return "-".join(filter(None, (self.runtime, self.quantize, self.storage if self.storage != "fp32" else None)))

    @property
    def is_exact(self) -> bool:
        """Whether the file must compute what PyTorch does, up to rounding."""
        return self.quantize is None and self.storage == "fp32"
