"""The configuration of `subarch pretrain`: one flat, frozen record whose keys are the command-line options.

Three keys have defaults that depend on the run: the architecture (what the search selected), the initial weights, and
the losses (what the teacher offers). The length of the training is given in steps or in minutes on this machine.

Importing this module imports neither torch nor transformers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from subarch.learning.losses import LOSSES, NEED_TEACHER
from subarch.numbers.architecture import Architecture
from subarch.run.configuration import Amount, File, Number, Text
from subarch.text.read import with_corpus

# Default weights of the losses, by what the teacher offers. Those for a masked-LM teacher are the paper's.
WITH_HEAD = {"logits": 0.5, "mlm": 0.1}
WITHOUT_HEAD = {"embedding": 1.0, "relations": 1.0}
OF_TASK = {"outputs": 1.0, "hidden": 1.0}
WITHOUT_TEACHER = {"mlm": 1.0}

DEFAULT_STEPS = 10_000


def _widths(text: str) -> list[int]:
    """Widths that are separated by commas, the largest first."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdigit() and int(word) for word in words):
        raise ValueError("write whole numbers from 1 with commas between them, as 384,192,96")
    return sorted({int(word) for word in words}, reverse=True)


class PretrainConfig(BaseModel):
    """Everything that decides a pretraining. Paths are relative to the current folder.

    Use `configuration.load`, which raises `InvalidConfig`; the constructor raises pydantic's `ValidationError`.
    Exactly one of `steps` and `minutes` is None.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    architecture: Annotated[str, AfterValidator(lambda text: str(Architecture.parse(text)))] | None = Field(
        None,
        description="Architecture, as D-A-H-I, 4-8-1024-768; null: the one selected in the run folder",
    )
    teacher: File | None = Field(
        None,
        description="What to learn from: a folder or hub name of an encoder of texts, or a file of recorded vectors; "
        "null: no teacher, masked LM alone",
    )
    start_from: File | None = Field(
        None,
        description="Folder or hub name of the encoder whose weights, tokenizer and family the model has; null: the "
        "teacher, where it can start from it",
    )
    prompt: str | None = Field(
        None,
        description="Prompt before every text, of teacher and candidates: its name in the teacher's folder, or its "
        "text; null: the folder's default",
    )
    corpus: list[Text] = Field(
        [],
        description="Text to train on: files (text, JSON lines, CSV, TSV, Parquet), folders, datasets:NAME; "
        "in several languages LANGUAGE:SHARE=SOURCE each, as in de:0.3=FOLDER",
    )
    text_column: str = Field(
        "text", min_length=1, description="Column that holds the text in files of records and data sets"
    )
    streaming: bool = Field(
        False,
        description="Read the corpus during training instead of packing it first; for data too large to pack",
    )
    loss_mlm: Amount | None = Field(
        None,
        description="Weight of the masked-LM cross-entropy; if all weights are null, the kind of teacher decides; "
        "if any is given, the others are 0",
    )
    loss_logits: Amount | None = Field(
        None, description="Weight of the divergence from the teacher's masked-LM logits, at masked positions"
    )
    loss_embedding: Amount | None = Field(
        None, description="Weight of the distance to the teacher's sentence embedding, pooled as the teacher pools"
    )
    loss_similarities: Amount | None = Field(
        None,
        description="Weight of the divergence from the teacher's similarities of a sequence to the others of a batch; "
        "alone, without a search before, it leaves the student in the space of what it starts from, of whatever width",
    )
    loss_margins: Amount | None = Field(
        None,
        description="Weight of the squared difference from the teacher's margins between a sequence and its hard "
        "negatives, which the teacher finds in the corpus",
    )
    loss_outputs: Amount | None = Field(
        None,
        description="Weight of the divergence from the outputs of a teacher that is fine-tuned for a task, as a share "
        "of a constant's",
    )
    loss_hidden: Amount | None = Field(
        None,
        description="Weight of the distance to the teacher's hidden states, after trained linear maps",
    )
    loss_relations: Amount | None = Field(
        None, description="Weight of the divergence from the query, key and value relations in the teacher's last layer"
    )
    dimensions: Annotated[str, AfterValidator(lambda text: ",".join(map(str, _widths(text))))] | None = Field(
        None,
        description="Numbers that embeddings may be cut to by whoever uses them (Matryoshka), as 384,192,96: the "
        "similarities are learnt for each; null: only whole",
    )
    temperature: Number = Field(2.0, description="Temperature τ of the logits loss")
    top_k: int = Field(
        64,
        ge=1,
        le=10**6,
        description="Most probable tokens kept per masked position when the teacher's logits are cached",
    )
    maskings: int = Field(
        0,
        ge=0,
        le=10**6,
        description="Number of different masks of each sequence, used in turn, so that the teacher's outputs can be "
        "cached; 0: a new mask at each visit",
    )
    vocabulary_size: int = Field(
        8192,
        ge=300,
        le=10**6,
        description="Entries of the BPE tokenizer trained on the corpus when there is no teacher",
    )
    max_length: int = Field(128, ge=8, le=512, description="Tokens per sequence; longer text is cut")
    batch_tokens: int = Field(
        8192, ge=8, le=10**9, description="Tokens of one optimiser step over all processes, padding included"
    )
    micro_tokens: int | None = Field(
        None,
        ge=8,
        le=10**9,
        description="Tokens of one forward pass, padding included, approximately; null: batch_tokens divided by the "
        "number of processes",
    )
    steps: int | None = Field(
        None, ge=1, le=10**9, description=f"Optimiser steps; null: {DEFAULT_STEPS}, or as many as fit into minutes"
    )
    minutes: Number | None = Field(
        None,
        description="Instead of steps: as many steps as fit into this time on this machine; measured once, then fixed",
    )
    learning_rate: Number = Field(5e-4, description="Learning rate after the warm-up; then it decays linearly")
    warm_up: Annotated[Amount, Field(lt=1)] = Field(0.01, description="Share of the steps for linear warm-up")
    weight_decay: Amount = Field(0.01, description="Weight decay, except on biases and LayerNorm")
    clip: Amount = Field(1.0, description="Gradient norm to clip at; 0: no clipping")
    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="Optimiser: adamw, or sgd without momentum")
    dropout: Annotated[Amount, Field(lt=1)] = Field(0.0, description="Dropout of the student in training")
    freeze_embeddings: bool = Field(
        False, description="Do not train the token embeddings, which saves their gradients and optimiser state"
    )
    precision: Literal["fp32", "bf16"] = Field("fp32", description="Arithmetic of forward and backward passes")
    compile: bool = Field(False, description="Compile the encoder with torch.compile")
    initialise: Literal["inherit", "scratch", "search"] | None = Field(
        None,
        description="Initial weights: inherit (the teacher's, of its layers those that the search of this run chose, "
        "else those that it can least do without), scratch (random) or search (those that the search trained); null: "
        "search if the run has them, else inherit if there is a teacher, else scratch",
    )
    targets: Literal["auto", "cache", "live"] = Field(
        "auto",
        description="The teacher's outputs: cache (computed once, kept on disk), live (computed at each step) or auto "
        "(the faster of the two, as measured)",
    )
    heldout: int = Field(512, ge=2, le=10**9, description="Sequences held out of training, for evaluations")
    evaluations: int = Field(
        20,
        ge=1,
        le=10**6,
        description="Number of held-out evaluations and checkpoints, evenly spaced",
    )
    threads: int | None = Field(
        None, ge=1, le=10**4, description="Threads of each process; null: all usable cores, divided by the processes"
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Seed of data order, masks, dropout and random weights")

    _with_corpus = model_validator(mode="before")(with_corpus)

    @model_validator(mode="before")
    @classmethod
    def _say_how_long(cls, values: Any) -> Any:
        """Write the default number of steps into the record, so that a later default does not change a run."""
        if isinstance(values, Mapping) and values.get("steps") is None and values.get("minutes") is None:
            return {**values, "steps": DEFAULT_STEPS}
        return values

    @model_validator(mode="after")
    def _check_together(self) -> PretrainConfig:
        """Every message names the keys and what to change."""
        if not self.corpus:
            raise ValueError("corpus is missing: give text to train on")
        given = self._given()
        if given and not any(given.values()):
            raise ValueError(
                f"{', '.join(f'loss_{name} {weight}' for name, weight in given.items())}: no loss has a "
                "positive weight; give one a positive weight, or none a weight"
            )
        if self.teacher is None:
            for name in NEED_TEACHER:
                if given.get(name):
                    raise ValueError(f"teacher is missing: loss_{name} {given[name]} needs one; give one or remove it")
            if self.dimensions is not None:
                raise ValueError(
                    f"teacher is missing: dimensions {self.dimensions} are of embeddings, which are learnt from one; "
                    "give one or remove it"
                )
            if self.initialise == "inherit":
                raise ValueError("teacher is missing: initialise 'inherit' takes its weights; give one or use scratch")
            if self.targets != "auto":
                raise ValueError(f"teacher is missing: targets {self.targets!r} needs one; give one or remove it")
            if self.streaming:
                raise ValueError(
                    "streaming needs a teacher's tokenizer, as a new one is trained on a packed corpus; give a "
                    "teacher, or set streaming to false"
                )
        if self.streaming and given.get("margins"):
            raise ValueError(
                f"loss_margins {given['margins']} needs a packed corpus to find negatives in; set streaming to false, "
                "or remove it"
            )
        if self.targets == "cache":
            if self.streaming:
                raise ValueError("targets 'cache' needs a packed corpus; set targets to live or streaming to false")
            if given.get("logits") and not self.maskings:
                raise ValueError(
                    f"targets 'cache' is of no use to loss_logits {given['logits']} with a new mask at each visit; "
                    "set maskings to 1 or more, or targets to live"
                )
        if self.freeze_embeddings and self.initialise == "scratch":
            raise ValueError("freeze_embeddings with initialise 'scratch' would keep random embeddings; remove one")
        if self.steps is not None and self.minutes is not None:
            raise ValueError(f"steps {self.steps} and minutes {self.minutes} exclude each other; give one of them")
        for key in ("batch_tokens", "micro_tokens"):
            tokens = getattr(self, key)
            if tokens is not None and tokens < self.max_length:
                raise ValueError(f"{key} {tokens} is less than one sequence of max_length {self.max_length}; raise it")
        if self.micro_tokens is not None and self.micro_tokens > self.batch_tokens:
            raise ValueError(
                f"micro_tokens {self.micro_tokens} is more than batch_tokens {self.batch_tokens}; lower it"
            )
        return self

    def _given(self) -> dict[str, float]:
        weights = {name: getattr(self, f"loss_{name}") for name in LOSSES}
        return {name: weight for name, weight in weights.items() if weight is not None}

    @property
    def widths(self) -> list[int]:
        """What embeddings may be cut to, the largest first."""
        return _widths(self.dimensions) if self.dimensions is not None else []

    def weights(self, has_head: bool, depth: int = 1, insides: bool = True, of_task: bool = False) -> dict[str, float]:
        """The losses to train on and their positive weights, in the order of `LOSSES`.

        Args:
            of_task: whether the teacher gives the outputs of a task.
            insides: whether teacher and student read the same tokens, so that more than embeddings can be compared.
            has_head: whether the teacher has a masked-LM head; only matters for the defaults.
            depth: of the student; without layers there is no attention, so `relations` is no default.
        """
        if self._given():
            chosen = self._given()
        elif self.teacher is None:
            chosen = WITHOUT_TEACHER
        elif of_task:
            chosen = OF_TASK if depth else {"outputs": 1.0}
        else:
            chosen = WITH_HEAD if has_head else WITHOUT_HEAD if depth and insides else {"embedding": 1.0}
        if self.dimensions is not None and not self._given() and "embedding" in chosen:
            chosen = chosen | {"similarities": 0.1}
        return {name: chosen[name] for name in LOSSES if chosen.get(name)}
