"""Configuration of a fine-tuning (`FinetuneConfig`), of its trainings (`Theta`, `FitSettings`), of `AugmentConfig`.

The configuration is one flat, frozen record whose keys are the command-line options; its lists span the search space Θ.
The published ranges are in `configs/finetune-bort.yaml`: 96 sets, 480 with their seeds.

Importing this module imports neither torch nor transformers.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from subarch.run.configuration import Amount, File, Number, Text
from subarch.tasks.division import TaskData


@dataclass(frozen=True, slots=True)
class Theta:
    """The hyperparameters of one training; `FinetuneConfig` describes them.

    `seed` is of the new head, the order of the data, and dropout; it is not in `values`: no seed is better.
    """

    learning_rate: float
    weight_decay: float = 0.01
    warm_up: float = 0.1
    batch_size: int = 16
    epochs: int = 10
    dropout: float = 0.1
    seed: int = 0

    @property
    def values(self) -> tuple[float, float, float, int]:
        """The values that Agora compares: learning rate, weight decay, warm-up, batch size."""
        return self.learning_rate, self.weight_decay, self.warm_up, self.batch_size

    def __str__(self) -> str:
        rate, decay, warm_up, batch = self.values
        return f"lr{rate:g}-wd{decay:g}-wu{warm_up:g}-b{batch}-e{self.epochs}-d{self.dropout:g}-s{self.seed}"


@dataclass(frozen=True, slots=True)
class FitSettings:
    """What all trainings of a search have in common; see `FinetuneConfig`.

    `threads` None: unchanged. The same seed gives the same weights only with the same number of threads.
    """

    max_length: int = 128
    patience: int = 3
    threads: int | None = None


class AugmentConfig(BaseModel):
    """The options of `subarch augment`; `configuration.load` makes it. Paths are relative to the current folder."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    corpus: list[Text] = Field([], description="Inputs to make more of: files or folders, as for extract")
    task: Text | None = Field(None, description="A public task, instead of a corpus (see `subarch tasks`)")
    data: Text | None = Field(None, description="Folder of the task, or of many tasks, or datasets:NAME")
    text_column: Text = Field("text", description="Column of the text in files of records and data sets")
    out: File = Field(description="JSON lines to write: the inputs, and the new ones, which are only trained on")
    points: int = Field(4, ge=1, le=1000, description="New inputs near each, at most")
    encoder: File | None = Field(
        None, description="Folder of a sentence encoder that judges what is near; null: words in common do"
    )
    masked_lm: File | None = Field(
        None, description="Folder of a masked language model that fills in words of new inputs; null: none"
    )
    neighbours: list[Text] | None = Field(
        None, description="Text files or folders whose nearest texts become new inputs; needs an encoder; null: none"
    )
    re_pair: bool = Field(
        False, description="Also exchange a side of a pair with a near one of another pair; needs an encoder"
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Seed of what is changed")

    @model_validator(mode="after")
    def _check_together(self) -> AugmentConfig:
        if bool(self.corpus) == (self.task is not None):
            raise ValueError("give either a corpus of inputs or a task, so that it is clear what more is made of")
        if (self.task is None) != (self.data is None):
            raise ValueError("task and data go together; give both or neither")
        if self.out.suffix.lower() != ".jsonl":
            raise ValueError(f"out {str(self.out)!r}: JSON lines are written; let the name end in .jsonl")
        return self


EXAMINED = (*TaskData.model_fields, "max_length")
"""Keys that say what is read; `subarch evaluate` has them as options as well."""


class FinetuneConfig(TaskData):
    """The options of `subarch finetune`; `configuration.load` makes it. Paths are relative to the current folder."""

    learning_rate: list[Number] = Field(
        [3e-5, 1e-4, 3e-4],
        min_length=1,
        description="Peak learning rates to try; every combination of the lists is tried",
    )
    weight_decay: list[Amount] = Field(
        [0.01], min_length=1, description="Weight decays to try; biases and LayerNorm have none"
    )
    warm_up: list[Annotated[Amount, Field(lt=1)]] = Field(
        [0.1], min_length=1, description="Warm-ups to try, as shares of the steps; the learning rate rises linearly"
    )
    batch_size: list[Annotated[int, Field(ge=1, le=10**6)]] = Field(
        [16], min_length=1, description="Batch sizes to try, in examples per optimiser step"
    )
    epochs: int = Field(10, ge=1, le=10**6, description="Passes over the training examples, at most")
    patience: int = Field(
        3,
        ge=0,
        le=10**6,
        description="Stop after this many epochs in a row, after the warm-up, without a better dev score; 0: never",
    )
    dropout: Annotated[Amount, Field(lt=1)] = Field(0.1, description="Dropout of hidden states, attention and head")
    seeds: list[Annotated[int, Field(ge=0, le=2**32 - 1)]] = Field(
        [0, 1, 2],
        min_length=1,
        description="All settings are tried with the first seed, the best with all",
    )
    max_length: int = Field(
        128,
        ge=8,
        le=512,
        description="Tokens of a text, a pair, or a pair per choice; longer ones are truncated",
    )
    teacher: File | None = Field(
        None,
        description="Folder of a model fine-tuned for the task: the student also learns its outputs; with agora it "
        "labels new examples instead; null: none",
    )
    any_teacher: bool = Field(False, description="Also learn from a teacher that is no better than chance on dev")
    agora: Literal["common", "halving"] | None = Field(
        None,
        description="Add training examples near the mistakes on dev, in iterations with ever fewer settings: each "
        "drops those like the worst (common) or the worse half (halving); null: search on the data as it is",
    )
    points: int = Field(4, ge=1, le=1000, description="With agora: new examples per mistake and iteration, at most")
    masked_lm: File | None = Field(
        None,
        description="With agora: folder of a masked language model that fills in words of new examples; null: none",
    )
    neighbours: list[Text] | None = Field(
        None, description="With agora: text files or folders whose nearest texts become new examples; null: none"
    )
    many_sets: bool = Field(False, description="With agora: allow more than 8 settings, which takes long")
    threads: int | None = Field(None, ge=1, le=10**4, description="Threads; null: all cores this process may use")

    @model_validator(mode="after")
    def _check_together(self) -> FinetuneConfig:
        if self.any_teacher and self.teacher is None:
            raise ValueError("any_teacher needs a teacher; name one, or leave it out")
        if self.agora and self.teacher is None:
            raise ValueError("agora needs a teacher to label new examples; name a model fine-tuned for the task")
        if not self.agora:
            for key in ("points", "masked_lm", "neighbours", "many_sets"):
                if getattr(self, key) != type(self).model_fields[key].default:
                    raise ValueError(f"{key} is for agora only; add agora, or leave it out")
        return self

    def thetas(self) -> tuple[Theta, ...]:
        """All combinations of the lists, each once, with the first seed."""
        spanned = product(self.learning_rate, self.weight_decay, self.warm_up, self.batch_size)
        found = (Theta(*values, self.epochs, self.dropout, self.seeds[0]) for values in spanned)
        return tuple(dict.fromkeys(found))

    def others(self) -> list[int]:
        """The other seeds, each once, that the best setting is repeated with."""
        return list(dict.fromkeys(self.seeds))[1:]

    def settings(self) -> FitSettings:
        return FitSettings(max_length=self.max_length, patience=self.patience, threads=self.threads)
