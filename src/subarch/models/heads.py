"""Models with a task's head: build one on an encoder, load one, feed it examples, read its predictions.

The head is a stock one, so that `AutoModelForSequenceClassification`, `AutoModelForTokenClassification` or
`AutoModelForMultipleChoice` loads what is fine-tuned here. The published head (released scripts of Bort) is dropout,
dense(H, tanh), dropout, dense(classes) on the first token. RoBERTa's classification head is exactly that; BERT's lacks
the first dropout.

A multiple-choice model gets one example with all choices of a batch, so that the number of choices may vary between
examples and no padding is computed. The logits of choices that an example lacks are -inf.

Words are tagged by the logits of their first tokens (`models.words`), one row for each word of all sentences.

    >>> model = with_head(Teacher.load(folder), task, dropout=0.1, seed=0)
    >>> encoded, truncated = encode(examples, tokenizer)
    >>> outputs(model, collate(encoded[:8], tokenizer, task)).shape
    torch.Size([8, 2])
    >>> labels_of(task, predict(fine_tuned, examples))
    [0, 1, 1, 0]
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import (
    AutoModelForMultipleChoice,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    set_seed,
)

from subarch.errors import InvalidTask, InvalidTeacher
from subarch.models.parts import set_dropout_of, usable_positions
from subarch.models.products import products
from subarch.models.teacher import Teacher, quiet, special_tokens
from subarch.models.words import aligned, first_tokens
from subarch.run import Report, silent
from subarch.tasks import Examples, Task
from subarch.tasks.tagging import OUTSIDE
from subarch.text.batches import pad
from subarch.text.words import NOWHERE

Logits = NDArray[np.float32]
"""(N, C) outputs for N examples. Classification: one column per class. Regression: (N, 1), in the units of the labels.
Multiple choice: one column per choice, -inf where an example has fewer choices than others. Tagging: a row per word of
all sentences, one column per tag; of a word that the model does not see, 0 for `O` and -inf for all others."""

TOKENS = 8192
"""At most this many tokens, including padding, in one forward pass for predictions; an example is never split."""

_IDENTITY = "torch.nn.modules.linear.Identity"
"""What sentence-transformers' CrossEncoder does with outputs: as they are; on one alone it would put a sigmoid."""


@dataclass(frozen=True, slots=True)
class Encoded:
    """An example as the model reads it: token ids and token types of its text, or of each of its choices.

    `label` is None for unlabelled examples. `soft`: (C,) logits of a teacher, or None. Of a sentence to tag, `places`
    has the token of each word (`models.words`), `tags` their tags, and `soft` is (words, C).
    """

    ids: list[list[int]]
    types: list[list[int]]
    label: float | None
    soft: Logits | None = None
    places: tuple[int, ...] = ()
    tags: tuple[int, ...] = ()

    @property
    def tokens(self) -> int:
        """Number of tokens, including the padding of shorter choices."""
        return len(self.ids) * max(map(len, self.ids))


def with_head(encoder: Teacher, task: Task, dropout: float, seed: int) -> Any:
    """A stock model with the encoder's weights and a new head that is initialised with the seed."""
    config = copy.deepcopy(encoder.encoder.config)
    set_dropout_of(config, dropout)
    if hasattr(config, "sentence_transformers"):  # of a CrossEncoder: it would mean a model of pairs
        del config.sentence_transformers
    if task.head == "regression":
        config.sentence_transformers = {"activation_fn": _IDENTITY}
        config.problem_type, config.num_labels = "regression", 1
    elif task.head != "choice":
        config.problem_type = "single_label_classification" if task.head == "classification" else None
        config.id2label = dict(enumerate(task.labels))
        config.label2id = {name: number for number, name in enumerate(task.labels)}
    set_seed(seed)
    model = _auto(task).from_config(config)
    # not strict: the pooler is part of the head
    model.base_model.load_state_dict(encoder.encoder.state_dict(), strict=False)
    return model


def last_layer(model: Any) -> nn.Linear:
    """The linear layer whose outputs are the logits."""
    return [module for module in model.modules() if isinstance(module, nn.Linear)][-1]


def tokenizer_for(encoder: Teacher, max_length: int) -> Any:
    """A copy of the encoder's tokenizer, set so that a stock pipeline truncates and types tokens as training does.

    Raises:
        InvalidTeacher: the tokenizer does not start a pair of texts with the token that heads read.
    """
    config, tokenizer = encoder.encoder.config, copy.deepcopy(encoder.tokenizer)
    usable = usable_positions(config.model_type, config.max_position_embeddings, config.pad_token_id)
    tokenizer.model_max_length = min(max_length, usable)
    if getattr(config, "type_vocab_size", 0) < 2:
        tokenizer.model_input_names = [name for name in tokenizer.model_input_names if name != "token_type_ids"]
    ids = tokenizer("a", "a")["input_ids"]
    if ids[0] != special_tokens(tokenizer)[0]:
        raise InvalidTeacher(
            f"{encoder.folder}: the tokenizer does not put {tokenizer.cls_token}, which the head reads, before a pair "
            "of texts; add a template for pairs to its post-processor"
        )
    return tokenizer


def load_fine_tuned(folder: Path, task: Task) -> tuple[Any, Teacher]:
    """Load a folder that was fine-tuned for a task: the model in evaluation mode, and its encoder with tokenizer.

    Raises:
        InvalidTeacher: it cannot be loaded, has no head for this kind of task, or a head for other labels.
    """
    encoder = Teacher.load(folder)  # refuses what is damaged, pickled, or brings code
    with quiet():
        model, found = _auto(task).from_pretrained(
            folder, use_safetensors=True, output_loading_info=True, dtype=torch.float32, local_files_only=True
        )
    if missing := sorted(found["missing_keys"]):
        raise InvalidTeacher(
            f"{folder}: is not fine-tuned for {task.head}, which {task.name} needs ({missing[0]} is missing); "
            "fine-tune it first"
        )
    wanted = 1 if task.head == "regression" else len(task.labels)
    if task.head != "choice" and model.config.num_labels != wanted:
        raise InvalidTeacher(
            f"{folder}: has {model.config.num_labels} outputs, but {task.name} needs {wanted}; was it fine-tuned for "
            "another task?"
        )
    return model.eval(), encoder


def columns_of(model: Any, task: Task) -> list[int]:
    """The column of the model's outputs for each label of the task, matched by name (models differ, as for MNLI).

    A model whose labels have other names, such as LABEL_0, is assumed to use the task's order.
    """
    names = [str(model.config.id2label[column]).lower() for column in range(model.config.num_labels)]
    wanted = [name.lower() for name in task.labels]
    named = task.head in ("classification", "tagging") and len(set(wanted)) == len(wanted)
    if named and sorted(names) == sorted(wanted):
        return [names.index(name) for name in wanted]
    return list(range(model.config.num_labels))


def encode(examples: Examples, tokenizer: Any, soft: Logits | None = None) -> tuple[list[Encoded], float]:
    """Tokenize all examples, truncated to the tokenizer's `model_max_length`; also the share that was truncated.

    `soft`: (N, C) logits of a teacher.

    Raises:
        InvalidTask: some examples have one text and some have two.
    """
    if examples.task.head == "tagging":
        return _encode_words(examples, tokenizer, soft)
    pairs = [example.pairs() for example in examples]
    first, second = zip(*(pair for choices in pairs for pair in choices), strict=True)
    if None in second and any(text is not None for text in second):
        raise InvalidTask(
            f"{examples.source}: some examples have one text and some have two; a model can learn only one of these"
        )
    texts = (list(first), None if second[0] is None else list(second))
    found = tokenizer(*texts, truncation=True, return_attention_mask=False, return_token_type_ids=True)
    encoded, cut, start = [], 0, 0
    for number, (example, choices) in enumerate(zip(examples, pairs, strict=True)):
        rows = slice(start, start + len(choices))
        start = rows.stop
        cut += any(encoding.overflowing for encoding in found.encodings[rows])
        target = None if soft is None else soft[number]
        encoded.append(Encoded(found["input_ids"][rows], found["token_type_ids"][rows], example.label, target))
    return encoded, cut / len(encoded)


def _encode_words(examples: Examples, tokenizer: Any, soft: Logits | None) -> tuple[list[Encoded], float]:
    found = aligned([example.texts for example in examples], tokenizer)
    tags = examples.labels
    encoded, start = [], 0
    for ids, types, places in zip(found.ids, found.types, found.places, strict=True):
        rows = slice(start, start + len(places))
        start = rows.stop
        own = () if tags is None else tuple(map(int, tags[rows]))
        encoded.append(Encoded([ids], [types], None, None if soft is None else soft[rows], tuple(places), own))
    return encoded, sum(found.cut) / len(encoded)


def collate(encoded: Sequence[Encoded], tokenizer: Any, task: Task) -> dict[str, Tensor]:
    """A padded batch of N examples with M rows in total (M = N except for multiple choice).

    `input_ids`, `attention_mask` and, if the tokenizer has them, `token_type_ids`: (M, length) int64; `counts`: (N,)
    numbers of choices, for multiple choice only; `labels` (N,) and `soft` (N, C) if there are any. For tagging, `words`
    (M, length) bool marks the first tokens of words, and `labels` and `soft` have a row for each of these.
    """
    rows = [row for one in encoded for row in one.ids]
    ids, mask = pad(rows, int(tokenizer.pad_token_id))
    batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
    if "token_type_ids" in tokenizer.model_input_names:
        types, _ = pad([kinds for one in encoded for kinds in one.types], 0)
        batch["token_type_ids"] = torch.from_numpy(types)
    if task.head == "choice":
        batch["counts"] = torch.tensor([len(one.ids) for one in encoded])
    if task.head == "tagging":
        return batch | _of_words(encoded, ids.shape[1])
    labels = [one.label for one in encoded if one.label is not None]
    if len(labels) == len(encoded):
        batch["labels"] = torch.tensor(labels, dtype=torch.float32 if task.head == "regression" else torch.int64)
    soft = [torch.from_numpy(one.soft) for one in encoded if one.soft is not None]
    if soft:
        batch["soft"] = torch.stack(soft)
    return batch


def _of_words(encoded: Sequence[Encoded], length: int) -> dict[str, Tensor]:
    seen = [[word for word, place in enumerate(one.places) if place != NOWHERE] for one in encoded]
    batch = {"words": first_tokens([one.places for one in encoded], length)}
    if all(one.tags for one in encoded):
        tags = [one.tags[word] for one, words in zip(encoded, seen, strict=True) for word in words]
        batch["labels"] = torch.tensor(tags, dtype=torch.int64)
    soft = [torch.from_numpy(one.soft[words]) for one, words in zip(encoded, seen, strict=True) if one.soft is not None]
    return batch | ({"soft": torch.cat(soft)} if soft else {})


@products()
def outputs(model: Any, batch: dict[str, Tensor]) -> Tensor:
    """(N, C) logits; for multiple choice C is the largest number of choices in the batch, missing ones are -inf.

    For tagging, a row for each word that has a token.
    """
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in batch}
    if "counts" not in batch:
        logits: Tensor = model(**inputs).logits
        return logits[batch["words"]] if "words" in batch else logits
    flat = model(**{name: value[None] for name, value in inputs.items()}).logits[0]
    counts = batch["counts"]
    there = torch.arange(int(counts.max()), device=counts.device) < counts[:, None]
    return torch.full(there.shape, -torch.inf, device=flat.device).masked_scatter(there, flat)


@torch.no_grad()
def logits_of(
    model: Any, encoded: Sequence[Encoded], tokenizer: Any, task: Task, done: Callable[[int], None] = lambda _: None
) -> Logits:
    """(N, C) logits of the examples (or their words), in their order, by a model in evaluation mode; batched by length.

    `done` is called with the number of examples finished so far.
    """
    columns = max(len(one.ids) for one in encoded) if task.head == "choice" else int(model.config.num_labels)
    if task.head == "tagging":
        ends = np.cumsum([len(one.places) for one in encoded])
        starts = ends - [len(one.places) for one in encoded]
        seen = [np.flatnonzero(np.array(one.places) != NOWHERE) for one in encoded]
        places = [start + words for start, words in zip(starts, seen, strict=True)]
        result = np.full((ends[-1], columns), -np.inf, dtype=np.float32)
        result[:, columns_of(model, task)[task.labels.index(OUTSIDE)]] = 0
    else:
        places = [np.array([row]) for row in range(len(encoded))]
        result = np.full((len(encoded), columns), -np.inf, dtype=np.float32)
    finished = 0
    for rows in _by_length(encoded):
        batch = collate([encoded[row] for row in rows], tokenizer, task)
        found = outputs(model, {name: value.to(model.device) for name, value in batch.items()})
        result[np.concatenate([places[row] for row in rows]), : found.shape[1]] = found.float().cpu().numpy()
        finished += len(rows)
        done(finished)
    return result


def predict(model: Path, examples: Examples, *, max_length: int | None = None, report: Report = silent) -> Logits:
    """The (N, C) outputs of a fine-tuned or any stock folder for examples, labelled or not; see `Logits`.

    Texts are truncated to `max_length` tokens; None: to the tokenizer's own maximum.

    Raises:
        InvalidTeacher: the folder cannot be loaded, or is not fine-tuned for this kind of task.
        InvalidTask: there are no examples.
    """
    if not len(examples):
        raise InvalidTask(f"{examples.source}: part {examples.part} of {examples.task.name} is empty")
    loaded, encoder = load_fine_tuned(model, examples.task)
    tokenizer = tokenizer_for(encoder, max_length or int(encoder.tokenizer.model_max_length))
    loaded.to("cuda" if torch.cuda.is_available() else "cpu")
    encoded, _ = encode(examples, tokenizer)
    found = logits_of(loaded, encoded, tokenizer, examples.task, lambda done: report("predicting", done, len(encoded)))
    return found if examples.task.head == "choice" else found[:, columns_of(loaded, examples.task)]


def labels_of(task: Task, logits: Logits) -> list[float]:
    """Predictions as `tasks.score` takes them: the position of the largest output, or the value of a regression.

    One for each row of the outputs, which is a word where words are tagged.
    """
    found: list[float] = (logits[:, 0] if task.head == "regression" else logits.argmax(axis=1)).tolist()
    return found


def _by_length(encoded: Sequence[Encoded]) -> Iterator[list[int]]:
    """Row numbers of batches of examples of similar length, shortest first, of at most `TOKENS` tokens with padding."""
    rows: list[int] = []
    sequences = longest = 0
    for row in sorted(range(len(encoded)), key=lambda row: max(map(len, encoded[row].ids))):
        longest = max(map(len, encoded[row].ids))
        if rows and (sequences + len(encoded[row].ids)) * longest > TOKENS:
            yield rows
            rows, sequences = [], 0
        rows.append(row)
        sequences += len(encoded[row].ids)
    yield rows


def _auto(task: Task) -> Any:
    other = {"choice": AutoModelForMultipleChoice, "tagging": AutoModelForTokenClassification}
    return other.get(task.head, AutoModelForSequenceClassification)
