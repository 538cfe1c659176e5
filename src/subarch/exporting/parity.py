"""Whether an exported file computes what PyTorch does, how much it differs, and the text that this is measured on.

Calibration takes texts of the corpus' training part as they are. Parity takes the held-out part, cut at random places
to get any length. Without a corpus, random tokens stand in: they show whether a file computes the same, but not what
int8 does to sentences.

Every batch goes through the stock model in PyTorch and through the file; outputs at padding are left out. Two figures
are kept for each output: the largest difference, absolute and as a share of the rounding error that is allowed (1e-4
plus 1e-4 of the value, since logits are large); and the cosine between the two outputs of a sequence, the worst and the
mean over sequences. Before the cosine is taken, an output is transformed by its kind:

    token vectors, embeddings   as they are, all token vectors of a sequence as one vector
    logits of tokens            less their mean over the vocabulary, which no probability depends on
    logits of classes, choices  probabilities
    logits of tags              probabilities, those of all tokens of a sequence as one vector
    numbers of a regression     less their mean, all sequences as one vector

`agreement` is the share of tokens, sequences or examples with the same most likely token, class or choice.

    >>> batches = Text.find(exportable, None, "text", run=Path("runs/mine"), scratch=folder).batches(exportable, 256)
    >>> compare(exportable, session, batches)["sentence_embedding"]
    Likeness(difference=2.1e-07, share_of_limit=0.0019, worst_cosine=0.9999999, mean_cosine=1.0, agreement=None)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import softmax
from torch import Tensor

from subarch.errors import InvalidCorpus, InvalidTask
from subarch.exporting.config import ExportConfig
from subarch.exporting.graph import Exportable
from subarch.exporting.runtimes import Session
from subarch.learning.vocabularies import reader_of
from subarch.models.heads import columns_of, encode, labels_of, logits_of, tokenizer_for
from subarch.models.outputs import token_types
from subarch.models.teacher import choices_of, special_tokens
from subarch.run import Report, silent
from subarch.run.folder import RunFolder
from subarch.run.records import Likeness, MetricDrop, Metrics, TextSource
from subarch.tasks import score
from subarch.tasks.division import TaskData, parts_of
from subarch.tasks.metrics import primary
from subarch.text.batches import pad
from subarch.text.corpus import NEXT, Corpus, build, plain

Batch = dict[str, NDArray[np.int64]]
"""input_ids, attention_mask, token_type_ids: (n, length), or (n, choices, length)."""

SIZES = (1, 2, 4, 8, 16)
LENGTHS = (3, 8, 16, 32, 64, 128, 256, 512)
TOKENS = 1024
"""Largest batch to compare, padding included; one sequence of the greatest length may be longer."""
CORPUS_TOKENS = 2_000_000
"""Tokens to read of a corpus that is given."""
CHOICES = (2, 3, 4)
"""Choices of the examples of multiple choice, in turn."""


@dataclass(frozen=True)
class Text:
    """`heldout`: (N,) token ids of all documents end to end; `train`: token ids by document, none without a corpus.

    `about` says where the text comes from.
    """

    heldout: NDArray[np.int32]
    train: Sequence[NDArray[np.int32]]
    about: TextSource

    @classmethod
    def find(cls, model: Exportable, corpus: Sequence[str] | None, text_column: str, run: Path, scratch: Path) -> Text:
        """Text of the corpus that is given, else of the run folder's, else random tokens.

        Args:
            scratch: folder to pack the given corpus into.

        Raises:
            InvalidCorpus: it cannot be read, or is too small to divide.
        """
        tokenizer = model.teacher.tokenizer
        if corpus is not None:
            packed = build(corpus, tokenizer, scratch, text_column=text_column, max_tokens=CORPUS_TOKENS)
            return cls._of(packed, "corpus")
        if (run / "corpus" / "corpus.json").is_file():
            packed = Corpus.load(run / "corpus")
            if packed.meta.tokenizer == hashlib.sha256(plain(tokenizer).to_str().encode()).hexdigest():
                return cls._of(packed, "the run's corpus")
            if packed.train.texts is not None and (reader := reader_of(run, tokenizer)) is not None:
                return cls._of(reader.read(packed), "the run's corpus")
        words = sorted(set(range(len(tokenizer))) - set(tokenizer.all_special_ids))
        drawn = np.random.default_rng(0).choice(words, 20_000).astype(np.int32)
        return cls(drawn, (), TextSource(source="random tokens"))

    @classmethod
    def _of(cls, corpus: Corpus, source: str) -> Text:
        about = TextSource(source=f"{source}, held-out part", content_hash=corpus.content_hash)
        heldout = corpus.heldout.tokens
        return cls(heldout[heldout != NEXT], corpus.train.shuffled(), about)

    def calibration(self, model: Exportable, count: int, longest: int) -> list[Batch]:
        """`count` texts as batches of one sequence (or of one example with two choices), at most `longest` tokens long.

        Raises:
            InvalidCorpus: there are fewer texts.
        """
        choices = CHOICES[0] if model.graph.head == "choice" else 1
        if len(self.train) < count * choices:
            raise InvalidCorpus(
                f"{len(self.train)} texts to calibrate on ({self.about.source}), but {count * choices} are needed: "
                "give more text with --corpus, or ask for fewer with --calibration"
            )
        rows = [choices_of(self.train[row])[0][: longest - 2] for row in range(count * choices)]
        return [_batch(rows[row : row + choices], model, choices) for row in range(0, len(rows), choices)]

    def batches(self, model: Exportable, longest: int) -> list[Batch]:
        """Every size in every length: the first row fills the batch, the others are shorter and padded.

        If the model has token types, every second row has two of them, as a pair of texts has.
        """
        draw = np.random.default_rng(0)
        found: list[Batch] = []
        for length in sorted({*(length for length in LENGTHS if length < longest), longest}):
            for size in SIZES:
                choices = CHOICES[len(found) % len(CHOICES)] if model.graph.head == "choice" else 1
                if size > 1 and size * choices * length > TOKENS:
                    break
                lengths = [length, *draw.integers(3, length, size * choices - 1, endpoint=True)]
                batch = _batch([self._cut(int(n) - 2, draw) for n in lengths], model, choices)
                if "token_type_ids" in batch:
                    types, mask = (batch[name].reshape(-1, length) for name in ("token_type_ids", "attention_mask"))
                    types[1::2, length // 3 :] = mask[1::2, length // 3 :]
                found.append(batch)
        return found

    def _cut(self, length: int, draw: np.random.Generator) -> NDArray[np.int32]:
        start = int(draw.integers(len(self.heldout)))
        return np.take(self.heldout, range(start, start + length), mode="wrap")


def _batch(rows: Sequence[NDArray[np.int32]], model: Exportable, choices: int) -> Batch:
    """Special tokens and padding around rows of ids."""
    start, end = special_tokens(model.teacher.tokenizer)
    ids, mask = pad([[start, *row, end] for row in rows], int(model.teacher.tokenizer.pad_token_id))
    types = token_types(torch.from_numpy(ids), end).numpy() * mask  # 1 for the second text of a pair
    named = {"input_ids": ids, "attention_mask": mask, "token_type_ids": types}
    longest = ids.shape[1]
    shape = (-1, choices, longest) if model.graph.head == "choice" else (-1, longest)
    return {name: named[name].reshape(shape) for name in model.graph.inputs}


ABSOLUTE = RELATIVE = 1e-4
"""Rounding error allowed in fp32: the sum of the two, the second times the absolute value."""

MOST_EXAMPLES = 1000
"""Of a task's held-out part, the first so many are predicted."""

Array = NDArray[Any]


def compare(
    model: Exportable, session: Session, batches: Sequence[Batch], report: Report = silent
) -> dict[str, Likeness]:
    """Run all batches through PyTorch and through the file, and compare each output."""
    outputs = model.graph.outputs
    tallies = {name: _tally(model) for name in outputs}
    for done, batch in enumerate(batches, 1):
        with torch.inference_mode():
            expected = model.graph(*(torch.from_numpy(batch[name]) for name in model.graph.inputs))
        found = session(batch)
        for (name, axes), reference in zip(outputs.items(), expected, strict=True):
            for row, mask in enumerate(batch["attention_mask"]):
                real = mask > 0 if "length" in axes else ...
                tallies[name].add(reference[row].numpy()[real], found[name][row][real])
        report("comparing with PyTorch", done, len(batches))
    return {name: tally.likeness() for name, tally in tallies.items()}


def objection(config: ExportConfig, found: dict[str, Likeness]) -> str | None:
    """Why an exported file must not be kept, or None. With int8 or 16 bits the last output decides."""
    if config.is_exact:
        for name, like in found.items():
            if not like.share_of_limit <= 1:  # NaN is refused too
                return (
                    f"{name} differs from PyTorch's by up to {like.difference:.3g}, {like.share_of_limit:.3g} times "
                    "the rounding error that is allowed; this is a fault of the runtime or the exporter, try the other "
                    "runtime"
                )
        return None
    name, like = list(found.items())[-1]
    if not like.worst_cosine >= config.min_cosine:
        return (
            f"the cosine of {name} with PyTorch's falls to {like.worst_cosine:.4f} (mean {like.mean_cosine:.4f}), the "
            f"limit is {config.min_cosine:g}; quantise less or in another way, or allow it with --min-cosine"
        )
    return None


class Tally:
    """Collects the likeness of pairs of arrays, one pair a sequence or example.

    Args:
        transform: applied to both before the cosine is taken; None: they are numbers of a regression.
        wins: whether the greatest entry of a vector is an answer.
    """

    def __init__(self, transform: Callable[[Array], Array] | None, wins: bool) -> None:
        self._transform, self._wins = transform, wins
        self._difference = self._share = np.float64(0)
        self._cosines: list[float] = []
        self._numbers: list[tuple[float, float]] = []
        self._same: list[NDArray[np.bool_]] = []

    def add(self, ours: Array, theirs: Array) -> None:
        """Outputs of PyTorch (`ours`) and of the file for a sequence: (W,), or (length, W)."""
        ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
        gap = np.abs(ours - theirs)
        # np.maximum keeps NaN, max() does not
        self._difference = np.maximum(self._difference, gap.max())
        self._share = np.maximum(self._share, (gap / (ABSOLUTE + RELATIVE * np.abs(ours))).max())
        if self._transform is None:
            self._numbers.append((ours.item(), theirs.item()))
        else:
            self._cosines.append(_cosine(self._transform(ours), self._transform(theirs)))
        if self._wins:
            self._same.append(np.atleast_1d(ours.argmax(-1) == theirs.argmax(-1)))

    def likeness(self) -> Likeness:
        """Over all pairs."""
        cosines = self._cosines
        if self._transform is None:
            ours, theirs = np.array(self._numbers).T
            cosines = [_cosine(ours - ours.mean(), theirs - theirs.mean())]
        agreement = float(np.concatenate(self._same).mean()) if self._same else None
        return Likeness.model_construct(  # not validated: figures may be NaN, which `objection` refuses
            difference=float(self._difference),
            share_of_limit=float(self._share),
            worst_cosine=float(np.min(cosines)),
            mean_cosine=float(np.mean(cosines)),
            agreement=agreement,
        )


def _tally(model: Exportable) -> Tally:
    head = model.graph.head
    if head == "masked-lm":
        return Tally(lambda logits: logits - logits.mean(-1, keepdims=True), wins=True)
    if head in ("classification", "tagging", "choice"):
        return Tally(None if model.is_regression else partial(softmax, axis=-1), wins=not model.is_regression)
    return Tally(lambda vectors: vectors, wins=False)


def _cosine(ours: Array, theirs: Array) -> float:
    sizes = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    return float((ours * theirs).sum()) / sizes if sizes else float(np.array_equal(ours, theirs))


def metric_drop(model: Exportable, session: Session, report: Report = silent) -> MetricDrop | None:
    """Scores of PyTorch and of the file on the task's held-out examples, and the difference.

    None for a model without the metrics.json of `subarch finetune`, which says what its task and data are. If the data
    is gone, `unknown` holds the reason why there are no scores.
    """
    folder = RunFolder(model.teacher.folder)
    if model.graph.head not in ("classification", "tagging", "choice") or not folder.has(Metrics):
        return None
    config = folder.read(Metrics).config
    try:
        examples = parts_of(TaskData.of(config)).heldout[:MOST_EXAMPLES]
    except InvalidTask as error:
        return MetricDrop(name=config["task"], unknown=str(error))
    task, stock = examples.task, model.graph.model
    tokenizer = tokenizer_for(model.teacher, config["max_length"])
    encoded, _ = encode(examples, tokenizer)
    values = []
    for what, runner in (("scoring PyTorch", stock), ("scoring the file", _AsModel(session, stock))):
        report(what, 0, 0)
        logits = logits_of(runner, encoded, tokenizer, task)
        if task.head != "choice":
            logits = logits[:, columns_of(stock, task)]
        values.append(score(examples, labels_of(task, logits))[primary(task)])
    return MetricDrop.model_construct(  # not validated: scores of constant predictions may be NaN
        name=config["task"],
        examples=len(examples),
        metric=primary(task),
        pytorch=values[0],
        exported=values[1],
        drop=values[0] - values[1],
    )


class _AsModel:
    """An exported file with the interface of the stock model it was made from."""

    def __init__(self, session: Session, model: Any) -> None:
        self._session, self.config, self.device = session, model.config, torch.device("cpu")

    def __call__(self, **inputs: Tensor) -> SimpleNamespace:
        found = self._session({name: value.numpy() for name, value in inputs.items()})
        return SimpleNamespace(logits=torch.from_numpy(found["logits"]))
