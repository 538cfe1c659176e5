"""The configuration of `subarch extract`: one flat, frozen record whose keys are the command-line options.

One description serves `--help` and the commented YAML. Reading and writing is in `configuration`:

    >>> config = load(ExtractConfig, Path("configs/minilm.yaml"), {"steps": 25})
    >>> config.steps, config.space
    (25, 'minilm')

Importing this module imports neither torch nor transformers.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from subarch.exporting.config import RuntimeName
from subarch.run.configuration import File, Number, Text
from subarch.text.read import with_corpus

# What may be asked of a finished run again, without training
QUESTION = ("objective", "max_latency_ms", "max_latency_ratio", "max_parameters", "max_megabytes", "keep", "cost")
MEASUREMENT = ("runtime", "latency_batch", "latency_length", "length_from", "latency_threads")


class ExtractConfig(BaseModel):
    """Everything that decides a search. Paths are relative to the current folder. Defaults suit MiniLM on a CPU.

    Construct it with `configuration.load`, which raises `InvalidConfig`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    teacher: File | None = Field(
        None,
        description="What to compress: a folder or hub name of an encoder of texts, or a file of recorded vectors "
        "(subarch record); may be left out only with error mlm and initialise scratch",
    )
    start_from: File | None = Field(
        None,
        description="Folder or hub name of the encoder whose weights, tokenizer and family candidates have; null: the "
        "teacher, where they can start from it",
    )
    prompt: str | None = Field(
        None,
        description="Prompt before every text, of teacher and candidates: its name in the teacher's folder, or its "
        "text; null: the folder's default",
    )
    corpus: list[Text] = Field(
        [],
        description="Text to train and measure on: files (text, JSON lines, CSV, TSV, Parquet), folders, datasets:NAME"
        "; in several languages LANGUAGE:SHARE=SOURCE each, as in de:0.3=FOLDER",
    )
    data: Text | None = Field(
        None,
        description="Folder of the public task that `task` names (see `subarch tasks`): its training part is what the "
        "candidates of a teacher that is fine-tuned for it learn from",
    )
    text_column: str = Field("text", min_length=1, description="Column of the text in files of records and data sets")
    space: str = Field(
        "auto",
        min_length=1,
        description="Search space: auto (sub-architectures of what candidates start from), paper, minilm, demo, or a "
        "YAML file with the four axes and, if wanted, vocabulary",
    )
    error: Literal["embedding", "outputs", "logits", "mlm", "task"] | None = Field(
        None,
        description="What the error e measures: embedding (distance to the teacher's sentence embeddings), outputs "
        "(divergence from the outputs of a teacher that is fine-tuned for a task), logits (distillation of a masked-LM "
        "teacher), mlm (masked-LM cross-entropy) or task (your labelled set); null: outputs, where the teacher has the "
        "head of a task, else embedding",
    )
    task: File | None = Field(
        None,
        description="Labelled or query-document set; needed with error task and only there, unless the teacher is "
        "fine-tuned for a task: then the labels of the inputs are",
    )
    objective: Literal["error", "latency", "w"] = Field(
        "error",
        description="What is optimised: error (least, under the limits), latency (least, under the floor keep) or w "
        "(the W-coefficient as published)",
    )
    max_latency_ms: Number | None = Field(None, description="Limit: milliseconds of one forward pass on this machine")
    max_latency_ratio: Annotated[Number, Field(le=10)] | None = Field(
        None, description="Limit: latency as a share of the teacher's, 0.33 is a third; instead of max_latency_ms"
    )
    max_parameters: int | None = Field(None, ge=1, le=10**15, description="Limit: parameters, embeddings included")
    max_megabytes: Number | None = Field(
        None,
        description="Limit: millions of bytes of the model's file in `runtime`, as export writes it (torch: the "
        "weights in fp32); the tokenizer is not counted",
    )
    keep: Annotated[Number, Field(le=1)] | None = Field(
        None,
        description="Quality floor as a share of the reference's, 0.97; needed with objective latency and only there",
    )
    heads: Literal["nearest", "all"] = Field(
        "nearest",
        description="Numbers of heads: nearest (for each depth, hidden and intermediate size the one whose heads are "
        "nearest in size to the teacher's) or all (each is a candidate; certified searches among the nearest and then "
        "trains every number of heads of the best shape)",
    )
    strategy: Literal["certified", "fptas", "exhaustive"] = Field(
        "certified",
        description="Which candidates are trained: certified (until no other can be better by more than delta), fptas "
        "(the paper's, every epsilon-th in order of cost) or exhaustive (all)",
    )
    delta: float = Field(
        0.01,
        ge=0,
        lt=1,
        description="Certified: relative difference by which the best candidate may be better than the one selected",
    )
    repeats: int = Field(
        6,
        ge=0,
        le=100,
        description="Certified: how many candidates, the best and those nearest to it in error, are trained with "
        "another seed too, to estimate random seed noise; 0: errors count as exact",
    )
    audit: int = Field(
        5,
        ge=0,
        le=10**6,
        description="Certified: how many excluded candidates, drawn at random, are trained to check the assumptions",
    )
    epsilon: int = Field(4, ge=1, le=10**9, description="Interval of the fptas strategy; 1 is the exhaustive search")
    cost: Literal["latency", "operations"] = Field(
        "latency",
        description="Inference cost i: latency (measured here) or operations (multiply-adds, the paper's surrogate)",
    )
    steps: int = Field(100, ge=1, le=10**9, description="Training steps s of each candidate")
    learning_rate: list[Number] = Field(
        [],
        description="Learning rates tried; with batch_size they span the hyperparameter space Θ; none: 1e-3, or 3e-4 "
        "with a teacher that is fine-tuned for a task",
    )
    batch_size: list[Annotated[int, Field(ge=1, le=10**6)]] = Field(
        [64], min_length=1, description="Sequences per training step, each tried with each learning rate"
    )
    max_length: int = Field(
        64, ge=8, le=512, description="Tokens per sequence in training and in the error; longer text is cut"
    )
    heldout: int = Field(
        512, ge=2, le=10**9, description="Sequences of the fixed held-out sample that the error is measured on"
    )
    vocabulary_size: int = Field(
        8192,
        ge=300,
        le=10**6,
        description="Entries of the BPE tokenizer trained on the corpus when there is no teacher",
    )
    initialise: Literal["inherit", "scratch"] = Field(
        "inherit",
        description="Where a candidate starts: inherit (the teacher's weights, of its layers those that learn best in "
        "short trainings) or scratch (random)",
    )
    latency_batch: int = Field(1, ge=1, le=10**6, description="Sequences per forward pass when latency is measured")
    latency_length: int = Field(
        32, ge=2, le=512, description="Tokens per sequence when latency is measured and operations are counted"
    )
    length_from: Literal["fixed", "corpus"] = Field(
        "fixed",
        description="Where latency is measured: fixed (at latency_length) or corpus (the mean over quantiles of the "
        "lengths of its texts; operations are counted at latency_length in either case)",
    )
    latency_threads: int | None = Field(
        None, ge=1, le=10**4, description="Threads when latency is measured; null: all cores this process may use"
    )
    runtime: RuntimeName = Field(
        "torch",
        description="What runs the forward pass when latency is measured: torch, onnx or openvino, the latter two also "
        "with -int8 or -int8-static, quantised as export does it",
    )
    workers: int = Field(0, ge=0, le=10**4, description="Candidates trained at the same time; 0: one per core")
    ray: Text | None = Field(
        None,
        description="Train candidates on a ray cluster: its address, auto (the one of this machine) or local (one is "
        "started here); null: in processes of this machine",
    )
    threads_per_worker: int = Field(
        1, ge=1, le=10**4, description="Threads of each worker; errors are repeatable for a fixed number"
    )
    minutes: Number | None = Field(
        None,
        description="Time limit of the search, measurements included: no training begins after it, but for that of a "
        "first candidate; null: none",
    )
    trial_minutes: Number | None = Field(
        None, description="Time limit of a trial; one over it is tried again once, then counts as failed; null: none"
    )
    seed: int = Field(0, ge=0, le=2**32 - 1, description="Seed of the order of the data and of random weights")
    reuse: list[File] = Field(
        [], description="Run folders whose trials are taken over; same corpus, teacher and way to measure the error"
    )
    learn_from: list[File] = Field(
        [],
        description="Certified: run folders of earlier searches over the same axes, whose law of the error is expected "
        "at first; corpus, teacher and machine may be others; it decides the order of trainings only",
    )
    database: str | None = Field(
        None, min_length=1, description="SQLAlchemy URL of the study; null: a SQLite file in the run folder"
    )

    _with_corpus = model_validator(mode="before")(with_corpus)

    @property
    def measures(self) -> str:
        """What the error measures; `embedding` where that is left to a teacher that was not looked at."""
        return self.error or "embedding"

    @model_validator(mode="after")
    def _check_together(self) -> ExtractConfig:
        """What no single key can tell. Every message names the keys and what to change."""
        if self.teacher is None and self.error != "mlm":
            raise ValueError(
                f"teacher is missing: error {self.measures!r} is measured with one; give a teacher, or set error to mlm"
            )
        if self.teacher is None and self.initialise != "scratch":
            raise ValueError(
                f"teacher is missing: initialise {self.initialise!r} takes its weights; use scratch instead"
            )
        if not self.corpus and self.data is None:
            raise ValueError("corpus is missing: give text to train and measure on")
        if self.data is not None and (self.task is None or self.corpus):
            raise ValueError(f"data {self.data!r} holds the task that `task` names, instead of a corpus; give both")
        if self.start_from is not None and self.initialise == "scratch":
            raise ValueError(f"start_from {str(self.start_from)!r} would not be used with initialise scratch; drop one")
        if self.error != "task" and self.task is not None and self.data is None:
            raise ValueError(f"task {str(self.task)!r} is used with error 'task' alone; set error to task, or drop it")
        if self.max_latency_ms is not None and self.max_latency_ratio is not None:
            raise ValueError("max_latency_ms and max_latency_ratio limit the same; give one of them")
        if self.max_latency_ratio is not None and self.teacher is None:
            raise ValueError("max_latency_ratio needs a teacher, of whose latency it is a share; use max_latency_ms")
        if self.cost == "operations":
            for key in ("max_latency_ms", "max_latency_ratio"):
                if getattr(self, key) is not None:
                    raise ValueError(f"{key} {getattr(self, key)} needs measured latency; set cost to latency")
            if self.objective == "latency":
                raise ValueError("objective 'latency' needs measured latency; set cost to latency")
        if self.objective == "latency" and self.keep is None:
            raise ValueError("keep is missing: objective 'latency' needs a quality floor, as in keep 0.97")
        if self.objective != "latency" and self.keep is not None:
            raise ValueError(f"keep {self.keep} would not be used with objective {self.objective!r}; drop it")
        if self.max_megabytes is not None and self.error in ("mlm", "logits"):
            raise ValueError(
                f"max_megabytes {self.max_megabytes} is of the file of a sentence encoder, and error {self.error!r} "
                "trains masked language models; use max_parameters"
            )
        for key in ("learning_rate", "batch_size"):
            if len(set(getattr(self, key))) < len(getattr(self, key)):
                raise ValueError(f"{key} {getattr(self, key)} holds a value twice, which would be trained twice")
        return self
