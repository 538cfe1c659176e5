"""The configuration of `subarch pretrain`: one flat, frozen record whose keys are the command-line options.

It is read and written as that of `subarch extract` is (`config`, `configuration`). Three keys may be left to what only
the run can tell: the architecture (what extraction selected), where the weights come from, and the losses (what the
teacher offers). How long to train is always said: in steps, or in minutes of this machine.

    >>> config = load(PretrainConfig, None, {"teacher": "all-MiniLM-L6-v2", "corpus": ["my-texts"], "minutes": 15})
    >>> config.weights(has_head=False)
    {'embedding': 1.0, 'relations': 1.0}
    >>> print(dump(config))                             # commented YAML; reading it gives the same record

Importing this module imports neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from subarch.numbers.architecture import Architecture
from subarch.run.configuration import Amount, File, Number, Text

LOSSES = ("mlm", "logits", "embedding", "hidden", "relations")
NEED_TEACHER = ("logits", "embedding", "hidden", "relations")

# The weights where none is given, by what the teacher offers. Those of a masked-LM teacher are the paper's.
WITH_HEAD = {"logits": 0.5, "mlm": 0.1}
WITHOUT_HEAD = {"embedding": 1.0, "relations": 1.0}
WITHOUT_TEACHER = {"mlm": 1.0}

DEFAULT_STEPS = 10_000


def _check_architecture(text: str) -> str:
    return str(Architecture.parse(text))


class PretrainConfig(BaseModel):
    """Everything that decides a pretraining. Paths are relative to the current folder.

    Construct it with `configuration.load`, whose errors are `InvalidConfig`; constructing it directly raises pydantic's
    `ValidationError`. Of `steps` and `minutes` one is None, never both.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    architecture: Annotated[str, AfterValidator(_check_architecture)] | None = Field(
        None, description="What is trained, as D-A-H-I, 4-8-1024-768; null: what extraction selected in the run folder"
    )
    teacher: File | None = Field(
        None,
        description="Folder of the model to learn from, Hugging Face or sentence-transformers format; null: none, "
        "masked LM alone",
    )
    corpus: list[Text] = Field(
        min_length=1,
        description="Text to train on: files (also .gz, .zst, JSONL, Parquet), folders or a datasets name",
    )
    text_column: str = Field(
        "text", min_length=1, description="Column that holds the text in JSONL, Parquet and datasets"
    )
    streaming: bool = Field(
        False,
        description="Read the corpus as it is needed instead of packing it first: for datasets names and folders that "
        "are too large to pack",
    )
    loss_mlm: Amount | None = Field(
        None,
        description="Weight of the masked-LM cross-entropy; with all five weights null the teacher decides, with any "
        "given those left out are 0",
    )
    loss_logits: Amount | None = Field(
        None, description="Weight of the divergence from the teacher's masked-LM logits, at masked positions"
    )
    loss_embedding: Amount | None = Field(
        None, description="Weight of the distance to the teacher's sentence embedding, pooled as the teacher pools"
    )
    loss_hidden: Amount | None = Field(
        None, description="Weight of the distance to the teacher's hidden states, through projections dropped later"
    )
    loss_relations: Amount | None = Field(
        None, description="Weight of the divergence from one teacher layer's query, key and value relations"
    )
    temperature: Number = Field(2.0, description="Temperature τ that the logits of teacher and student are divided by")
    top_k: int = Field(
        64,
        ge=1,
        le=10**6,
        description="Likeliest tokens kept per masked position where the teacher's logits are cached",
    )
    maskings: int = Field(
        0,
        ge=0,
        le=10**6,
        description="Different maskings of each sequence, used in turn, so that what the teacher says of them can be "
        "cached; 0: a new one at each visit",
    )
    vocabulary_size: int = Field(
        8192,
        ge=300,
        le=10**6,
        description="Entries of the BPE tokenizer trained on the corpus when there is no teacher",
    )
    max_length: int = Field(128, ge=8, le=512, description="Tokens per sequence; longer text is cut")
    batch_tokens: int = Field(
        8192, ge=8, le=10**9, description="Tokens, padding included, of one optimiser step over all processes"
    )
    micro_tokens: int | None = Field(
        None,
        ge=8,
        le=10**9,
        description="About the most tokens, padding included, of one forward pass; null: batch_tokens split over the "
        "processes",
    )
    steps: int | None = Field(
        None, ge=1, le=10**9, description=f"Optimiser steps; null: {DEFAULT_STEPS}, or as many as fit into minutes"
    )
    minutes: Number | None = Field(
        None,
        description="Instead of steps: as many as this machine does in this time, found in the first steps, then fixed",
    )
    learning_rate: Number = Field(5e-4, description="Highest learning rate, after the warm-up; then it falls linearly")
    warm_up: Annotated[Amount, Field(lt=1)] = Field(
        0.01, description="Share of the steps in which the learning rate rises linearly"
    )
    weight_decay: Amount = Field(0.01, description="Weight decay, none on biases and LayerNorm")
    clip: Amount = Field(1.0, description="Norm that gradients are clipped at; 0: they are not")
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="Optimiser: adamw, or sgd without momentum")
    dropout: Annotated[Amount, Field(lt=1)] = Field(0.0, description="Dropout of the student while it is trained")
    freeze_embeddings: bool = Field(
        False, description="Keep the token embeddings as they are initialised, at no cost in optimiser or gradient"
    )
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Arithmetic of forward and backward passes")
    compile: bool = Field(False, description="Compile the encoder with torch.compile")
    initialise: Literal["inherit", "inherit-lowest", "scratch", "search"] | None = Field(
        None,
        description="Where weights start: inherit (the teacher's, of its layers those that it can least do without), "
        "inherit-lowest (of its layers the lowest, for tasks with pairs of texts), scratch (random) or search "
        "(the candidate's own, from the search); null: search where the run has them, else inherit with a teacher, "
        "else scratch",
    )
    targets: Literal["auto", "cache", "live"] = Field(
        "auto",
        description="What the teacher says: cache (computed once, kept on disk), live (computed at each step) or auto "
        "(the cheaper, as measured)",
    )
    heldout: int = Field(512, ge=2, le=10**9, description="Sequences held out of training, for the evaluations")
    evaluations: int = Field(
        20, ge=1, le=10**6, description="Held-out evaluations, and checkpoints, evenly over the training"
    )
    threads: int | None = Field(
        None, ge=1, le=10**4, description="Threads of each process; null: all cores this process may use"
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Seed of data order, masking and random weights")

    @model_validator(mode="before")
    @classmethod
    def _say_how_long(cls, values: Any) -> Any:
        """The number of steps is written into the record, so that a run does not change with a later default."""
        if isinstance(values, Mapping) and values.get("steps") is None and values.get("minutes") is None:
            return {**values, "steps": DEFAULT_STEPS}
        return values

    @model_validator(mode="after")
    def _check_together(self) -> PretrainConfig:
        """What no single key can tell. Every message names the keys and what to change."""
        given = self._given()
        if given and not any(given.values()):
            raise ValueError(
                f"{', '.join(f'loss_{name} {weight}' for name, weight in given.items())}: every loss is "
                "given weight 0 or left out; give one a positive weight, or leave all out"
            )
        if self.teacher is None:
            for name in NEED_TEACHER:
                if given.get(name):
                    raise ValueError(
                        f"teacher is missing: loss_{name} {given[name]} compares with one; give a teacher, "
                        f"or drop loss_{name}"
                    )
            if self.initialise in ("inherit", "inherit-lowest"):
                raise ValueError(
                    f"teacher is missing: initialise {self.initialise!r} takes its weights; give one, or set "
                    "initialise to scratch"
                )
            if self.targets != "auto":
                raise ValueError(
                    f"targets {self.targets!r} are a teacher's and there is none; give one, or drop targets"
                )
            if self.streaming:
                raise ValueError(
                    "streaming needs a teacher's tokenizer, and there is no teacher: one is trained on a packed corpus "
                    "only; give a teacher, or set streaming to false"
                )
        if self.targets == "cache":
            if self.streaming:
                raise ValueError(
                    "targets 'cache' needs a packed corpus; set targets to live, or set streaming to false"
                )
            if given.get("logits") and not self.maskings:
                raise ValueError(
                    f"targets 'cache' cannot hold loss_logits {given['logits']} with a new masking at each visit; "
                    "set maskings to 1 or more, or targets to live"
                )
        if self.freeze_embeddings and self.initialise == "scratch":
            raise ValueError(
                "freeze_embeddings would keep random embeddings with initialise 'scratch'; drop one of the two"
            )
        if self.steps is not None and self.minutes is not None:
            raise ValueError(f"steps {self.steps} and minutes {self.minutes} say the same; give one of them")
        for key in ("batch_tokens", "micro_tokens"):
            tokens = getattr(self, key)
            if tokens is not None and tokens < self.max_length:
                raise ValueError(
                    f"{key} {tokens} holds no sequence of max_length {self.max_length}; raise it, or lower max_length"
                )
        if self.micro_tokens is not None and self.micro_tokens > self.batch_tokens:
            raise ValueError(
                f"micro_tokens {self.micro_tokens} is more than the batch_tokens {self.batch_tokens} of a whole step; "
                "lower it, or leave it out"
            )
        return self

    def _given(self) -> dict[str, float]:
        weights = {name: getattr(self, f"loss_{name}") for name in LOSSES}
        return {name: weight for name, weight in weights.items() if weight is not None}

    def weights(self, has_head: bool, depth: int = 1) -> dict[str, float]:
        """The losses to train on, by name, each with its positive weight, in the order of `LOSSES`.

        Args:
            has_head: whether the teacher has a masked-LM head; of no consequence without a teacher, or where weights
                were given.
            depth: of the student; one without layers has no attention that `relations` could compare by default.
        """
        if self._given():
            chosen = self._given()
        elif self.teacher is None:
            chosen = WITHOUT_TEACHER
        else:
            chosen = WITH_HEAD if has_head else WITHOUT_HEAD if depth else {"embedding": 1.0}
        return {name: chosen[name] for name in LOSSES if chosen.get(name)}
