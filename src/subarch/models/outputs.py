"""Teachers of a task: encoders with the head of a stock class, whose outputs students learn.

    classes   scores of classes of which one is right                    ForSequenceClassification
    labels    scores of labels of which any number may be right          ForSequenceClassification, several labels
    number    one number: a regression, or the score of a reranker       ForSequenceClassification, CrossEncoder
    tags      scores of tags for each token                              ForTokenClassification
    choices   a score for each choice of an input                        ForMultipleChoice

    >>> teacher = TaskTeacher.load(Path("finetuned-mrpc"))
    >>> teacher.outputs.kind, teacher.outputs.names
    ('classes', ('not_equivalent', 'equivalent'))

A model reads the special tokens between two texts with the texts, and tells from them which token is of the second
(`add_token_types`): so all that is done with single texts (calibration, hidden states, relations, latency) is done with
pairs in the same way.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn
from transformers import AutoModelForMultipleChoice, AutoModelForSequenceClassification, AutoModelForTokenClassification

from subarch.errors import InvalidTeacher, NotInheritable
from subarch.models.families import stock_model
from subarch.models.kinds import TaskHead, is_cross_encoder, task_head_of
from subarch.models.parts import is_modern
from subarch.models.sentence import read_json
from subarch.models.teacher import Teacher, assemble, load_model, resolve, special_tokens
from subarch.numbers.architecture import Inputs
from subarch.text.corpus import shortened
from subarch.text.read import InputForm

Kind = Literal["classes", "labels", "number", "tags", "choices"]

CLASSES: dict[TaskHead, Any] = {
    "sequence": AutoModelForSequenceClassification,
    "tokens": AutoModelForTokenClassification,
    "choice": AutoModelForMultipleChoice,
}
_KEPT = ("problem_type", "id2label", "label2id", "sentence_transformers", "classifier_pooling")
"""Settings of a stock configuration that belong to the head, or to those who load it."""


@dataclass(frozen=True)
class Outputs:
    """What models with the head of a task say.

    `names`: of classes, labels or tags, in the order of the outputs; none of a number and of choices. `separator`: the
    token behind which a text is the second of a pair; None: token types say nothing. `settings`: of the stock
    configuration, for whoever loads the model.
    """

    kind: Kind
    names: tuple[str, ...]
    separator: int | None
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def head(self) -> TaskHead:
        heads: dict[str, TaskHead] = {"tags": "tokens", "choices": "choice"}
        return heads.get(self.kind, "sequence")

    @property
    def count(self) -> int:
        """Outputs of a text, a token or a choice."""
        return len(self.names) or 1

    def inputs(self, inputs: Inputs) -> Inputs:
        """The inputs of encoders with this head."""
        return replace(inputs, head=self.head, classes=self.count)


@dataclass
class TaskTeacher(Teacher):
    """A teacher with the head of a task.

    `task` is the stock model of its own family, `encoder` the part of it below the head, as students' family has it.
    """

    task: Any = None
    outputs: Outputs = Outputs("classes", (), None)
    between: tuple[int, ...] = ()
    """The special tokens between two texts."""

    @classmethod
    def load(cls, source: str | Path) -> TaskTeacher:
        """Load a local folder or a hub name: of a stock class with a head, or of a CrossEncoder.

        Raises:
            InvalidTeacher: see `Teacher.load`; no head, or one that is not supported; token types or special tokens
                that a pair of texts gets in another way than here.
        """
        folder = resolve(source)
        head = task_head_of(folder)
        if head is None:
            raise InvalidTeacher(f"{folder}: has no head of a task; with an encoder of texts use error embedding")
        plain = Teacher.load(folder)
        task = load_model(CLASSES[head], folder)
        tokenizer, config = plain.tokenizer, task.config
        typed = "token_type_ids" in tokenizer.model_input_names and getattr(config, "type_vocab_size", 1) > 1
        separator = special_tokens(tokenizer)[1] if typed else None
        between = _between(folder, tokenizer)
        outputs = _outputs(folder, head, config, separator)
        add_token_types(task.base_model, separator)
        encoder = stock_model(task.base_model)
        recipe = replace(plain.recipe, pooling="cls", dense=(), normalize=False)
        found = cls(
            plain.folder, encoder, tokenizer, recipe, nn.Sequential(), None, plain.fingerprint, task, outputs, between
        )
        _check_pairs(folder, tokenizer, found)
        return found

    @property
    def width(self) -> int:
        return self.outputs.count

    @property
    def model(self) -> TaskModel:  # type: ignore[override]
        return TaskModel(self.task, self.outputs.head).eval()

    def inputs(self, output: int = 0) -> Inputs:
        return self.outputs.inputs(super().inputs(0))

    def check_form(self, form: InputForm | None, corpus: Sequence[str]) -> None:
        """Refuse inputs that the head is not made for.

        Raises:
            InvalidTeacher: it scores pairs, or tags single texts, or chooses, and the inputs are others.
        """
        wanted: tuple[InputForm, ...]
        if self.outputs.head == "choice":
            wanted, what = ("choices",), "chooses among answers, so an input needs text_a (or text) and choices"
        elif self.outputs.head == "tokens":
            wanted, what = ("text", "words"), "tags the tokens of one text, so an input is text, or tokens"
        elif self.is_cross_encoder:
            wanted, what = ("pair",), "scores pairs of texts, so an input needs text_a and text_b"
        else:
            wanted, what = (
                ("text", "pair"),
                "scores a text, or a pair of texts, so an input is text, or text_a and text_b",
            )
        if form not in wanted:
            raise InvalidTeacher(f"{self.name}: {what}; {', '.join(corpus)} holds {form or 'prose'}")
        if form == "pair" and not self.between:
            raise InvalidTeacher(f"{self.folder}: its tokenizer puts nothing between two texts; use another teacher")

    @property
    def is_cross_encoder(self) -> bool:
        """Whether sentence-transformers wrote it, as a model that scores pairs."""
        return "sentence_transformers" in self.outputs.settings


class TaskModel(nn.Module):
    """(n, L) ids and mask -> (n, C) outputs, or (n, L, C) for each token, or (n, 1) of choices one below the other."""

    def __init__(self, task: Any, head: TaskHead) -> None:
        super().__init__()
        self.task, self.head = task, head

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return run(self.task, self.head, ids, mask)[0]


def run(
    model: Any, head: TaskHead, ids: Tensor, mask: Tensor, states: bool = False
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The outputs of a stock model with a head, whose shapes `TaskModel` gives; and its hidden states, if wanted."""
    if head == "choice":  # to the stock class all rows are choices of one input
        found = model(input_ids=ids[None], attention_mask=mask[None], output_hidden_states=states)
        return found.logits[0, :, None], found.hidden_states or ()
    found = model(input_ids=ids, attention_mask=mask, output_hidden_states=states)
    return found.logits, found.hidden_states or ()


def add_token_types(encoder: Any, separator: int | None) -> Any:
    """The encoder, which from now on gives itself token types: 1 behind the first separator. None: it has none."""
    if separator is None:
        return encoder

    def types(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        ids = args[0] if args else kwargs["input_ids"]
        return args, kwargs | {"token_type_ids": token_types(ids, separator)}

    encoder.register_forward_pre_hook(types, with_kwargs=True)
    return encoder


def token_types(ids: Tensor, separator: int) -> Tensor:
    """(n, L): 1 behind the first separator of each row, else 0. What is padding does not matter."""
    at = (ids == separator).long()
    return (at.cumsum(1) - at).clamp(max=1)


def head_parts(model: Any) -> tuple[nn.Linear | None, nn.LayerNorm | None, nn.Linear]:
    """Of a stock model with a head: the dense map behind the first token, the norm behind it, and the map to outputs.

    BERT calls the first its pooler, RoBERTa and ELECTRA a part of the classifier, ModernBERT the head.
    """
    last = model.classifier
    if is_modern(model):
        return model.head.dense, model.head.norm, last
    if not isinstance(last, nn.Linear):
        return last.dense, None, last.out_proj
    for name in ("pre_classifier", "sequence_summary"):  # DistilBERT, ELECTRA
        if hasattr(model, name):
            return getattr(getattr(model, name), "summary", getattr(model, name)), None, last
    pooler = getattr(model.base_model, "pooler", None)
    return (None if pooler is None else pooler.dense), None, last


def _outputs(folder: Path, head: TaskHead, config: Any, separator: int | None) -> Outputs:
    kinds: dict[TaskHead, Kind] = {"tokens": "tags", "choice": "choices"}
    kind: Kind = kinds.get(head, "classes")
    count = int(config.num_labels)
    if head == "sequence":
        if config.problem_type == "multi_label_classification":
            kind = "labels"
        elif count == 1:
            kind = "number"
        elif config.problem_type == "regression":
            raise InvalidTeacher(f"{folder}: is a regression to {count} numbers, and one is supported")
    names = () if kind in ("number", "choices") else tuple(str(config.id2label[at]) for at in range(count))
    if kind in ("classes", "tags") and count < 2:
        raise InvalidTeacher(f"{folder}: has one {'tag' if kind == 'tags' else 'class'}, so it always says the same")
    settings = {name: getattr(config, name) for name in _KEPT if getattr(config, name, None) is not None}
    if is_cross_encoder(folder):  # what a stock configuration says of one, where the modules do not
        activation = read_json(folder / "config_sentence_transformers.json").get("activation_fn")
        settings["sentence_transformers"] = {"activation_fn": activation}
    settings["id2label"] = {str(number): name for number, name in settings["id2label"].items()}
    return Outputs(kind, names, separator, settings)


def _between(folder: Path, tokenizer: Any) -> tuple[int, ...]:
    """The special tokens that the tokenizer puts between two texts."""
    first, second = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in _PAIRS[0])
    whole = tokenizer(*_PAIRS[0])["input_ids"]
    inner = whole[1 + len(first) : len(whole) - 1 - len(second)]
    if whole != [special_tokens(tokenizer)[0], *first, *inner, *second, special_tokens(tokenizer)[1]]:
        raise NotInheritable(
            f"{folder}: of a pair of texts its tokenizer makes {tokenizer.convert_ids_to_tokens(whole)}, which is not "
            "supported: the first text must follow the opening token, and the second end with the closing one"
        )
    return tuple(inner)


_PAIRS = (("the boat", "a bell"), ("", "42"), ("The old boat, near 42 bells. É café 東京", "the"))


def _check_pairs(folder: Path, tokenizer: Any, teacher: TaskTeacher) -> None:
    """What is made of a pair here has to be what the folder's own tokenizer makes of it, token types included."""
    separator, recipe = teacher.outputs.separator, teacher.recipe
    if not teacher.between:
        return
    (a, b), length = _PAIRS[0], recipe.max_length
    long = itertools.product((1, length), (1, length // 3, length))
    for pair in (*_PAIRS, *((f"{a} " * left, f"{b} " * right) for left, right in long)):
        first, second = (tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"] for text in pair)
        row = shortened([*first, *teacher.between, *second], length - 2, teacher.between)
        own = assemble([row], tokenizer, recipe)
        given = tokenizer(*pair, truncation="longest_first", max_length=length)
        types = None if separator is None else token_types(own.ids, separator)[0].tolist()
        if given["input_ids"] != own.ids[0].tolist() or (types is not None and given.get("token_type_ids") != types):
            raise NotInheritable(
                f"{folder}: of the pair {pair[0][:20]!r}, {pair[1][:20]!r} its tokenizer makes other tokens or token "
                "types than a BERT's or a RoBERTa's does; use another teacher, or mend its post-processor"
            )
