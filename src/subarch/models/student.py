"""A student: a stock encoder of some architecture with what its error needs on top.

For sentence errors that is the teacher's pooling and, where the hidden sizes differ, a linear map to the teacher's
width; for masked-LM errors the stock masked-LM head; for the outputs of a task the head of the stock class. Only the
blueprint, not the architecture, decides which.

    >>> student = Student(Architecture.parse("2-12-384-512"), Blueprint.of_teacher(teacher))
    >>> student(batch.ids, batch.mask).shape
    torch.Size([64, 384])
    >>> save_weights(student, Path("weights.safetensors"))  # for `load_weights`, into a student like it
    >>> hand_over(student, tokenizer, recipe, Path("selected"))  # for `AutoModel` and `SentenceTransformer`
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import (
    BertForMaskedLM,
    BertModel,
    ModernBertForMaskedLM,
    ModernBertModel,
    PreTrainedModel,
    RobertaForMaskedLM,
    RobertaModel,
)

from subarch.errors import InvalidStudy
from subarch.models.families import WITHOUT_POOLER
from subarch.models.outputs import CLASSES, Outputs, TaskTeacher, add_token_types, run
from subarch.models.parts import head_of, settings_of
from subarch.models.rows import Rows, token_table
from subarch.models.sentence import Recipe, pool, save_tokenizer, write_modules
from subarch.models.teacher import Teacher, quiet, special_tokens
from subarch.numbers.architecture import Architecture, Inputs, has_map
from subarch.run.files import replaced, save_tensors, unreadable

_ENCODERS: dict[str, Any] = {"bert": BertModel, "roberta": RobertaModel, "modernbert": ModernBertModel}
_MASKED_LMS: dict[str, Any] = {
    "bert": BertForMaskedLM,
    "roberta": RobertaForMaskedLM,
    "modernbert": ModernBertForMaskedLM,
}


_ROWS = "rows."
"""Begins the names of what a file has instead of the rows of a table that it does not have."""
SCALE = 0.05
"""Root mean square of a table that begins as a teacher's vectors; the stock one's is 0.02."""


@dataclass(frozen=True)
class Blueprint:
    """What all candidates of a search share: family, inputs, pooling, further settings of the stock configuration."""

    family: str
    inputs: Inputs
    pooling: str = "mean"
    masked_lm: bool = False
    settings: dict[str, Any] = field(default_factory=dict)
    task: Outputs | None = None

    @classmethod
    def of_task(cls, teacher: TaskTeacher, start: Teacher) -> Blueprint:
        """Candidates with the teacher's head, on encoders like `start`, which may be the teacher itself."""
        inputs = teacher.outputs.inputs(start.inputs(0))
        return cls(start.family, inputs, "cls", False, settings_of(start.encoder.config), teacher.outputs)

    @classmethod
    def of_teacher(
        cls, teacher: Teacher, masked_lm: bool = False, sentence: bool | None = None, width: int | None = None
    ) -> Blueprint:
        """Candidates with the teacher's vocabulary, special ids, activation and pooling.

        Masked language models, sentence encoders (None: if not the former) or both; `width`: of the embeddings that
        these give where they learn those of another teacher than this one.
        """
        settings = settings_of(teacher.encoder.config)
        sentence = not masked_lm if sentence is None else sentence
        inputs = teacher.inputs((width or teacher.width) if sentence else 0)
        inputs = replace(inputs, mapped=width is not None)
        return cls(teacher.family, inputs, teacher.recipe.pooling, masked_lm, settings)

    @classmethod
    def of_tokenizer(cls, tokenizer: Any, width: int = 0) -> Blueprint:
        """Candidates of the BERT family for a vocabulary of our own: masked LMs, or encoders to this width."""
        start, end = special_tokens(tokenizer)
        ids = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": start, "eos_token_id": end}
        return cls("bert", Inputs(len(tokenizer), output=width, mapped=width > 0), masked_lm=not width, settings=ids)


class Student(nn.Module):
    """`model` is stock transformers; `projection` maps the pooled vector to the teacher's width, or is None."""

    def __init__(self, architecture: Architecture, blueprint: Blueprint) -> None:
        super().__init__()
        task = blueprint.task
        settings = blueprint.settings | (task.settings if task is not None else {})
        config = architecture.to_config(blueprint.inputs, blueprint.family, **settings)
        self.model: PreTrainedModel
        self.task = task
        if task is not None:
            self.model = CLASSES[task.head].from_config(config)
            add_token_types(self.model.base_model, task.separator)
        elif blueprint.masked_lm:
            self.model = _MASKED_LMS[blueprint.family](config)
        else:
            options = {} if blueprint.family in WITHOUT_POOLER else {"add_pooling_layer": False}
            self.model = _ENCODERS[blueprint.family](config, **options)
        self.masked_lm = blueprint.masked_lm
        self.sentence = task is None and (not blueprint.masked_lm or blueprint.inputs.output > 0)
        self.pooling = blueprint.pooling
        mapped = has_map(architecture.hidden, blueprint.inputs)
        self.projection = nn.Linear(architecture.hidden, blueprint.inputs.output) if mapped else None

    @property
    def encoder(self) -> Any:
        return self.model.base_model

    @property
    def head(self) -> Any:
        """The stock masked-LM head: (m, H) hidden states -> (m, V) logits."""
        return head_of(self.model)

    @property
    def tied_names(self) -> set[str]:
        """Names in the state of parameters that are another parameter: the masked-LM decoder, its bias."""
        return set(self.state_dict()) - {name for name, _ in self.named_parameters()}

    def hidden(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(n, length) ids and mask -> last hidden states (n, length, H)."""
        states: Tensor = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return states

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(n, length) ids and mask -> sentence embeddings (n, output), not normalised; or outputs: see `TaskModel`."""
        if self.task is not None:
            return run(self.model, self.task.head, ids, mask)[0]
        pooled = pool(self.hidden(ids, mask), mask, self.pooling)
        return pooled if self.projection is None else self.projection(pooled)


@torch.no_grad()
def start_from_tokens(student: Student, vectors: Tensor) -> None:
    """Begin with (V, width) vectors of the tokens, reduced to H by their principal components, and the map back.

    The rest stays random but for the positions, which begin at zero, so that they do not drown the tokens. (model2vec's
    way to a static encoder, as its documentation describes; the layers on top are ours.)
    """
    table = student.encoder.get_input_embeddings().weight
    centred = (vectors - vectors.mean(0)).double()
    basis = torch.linalg.eigh(centred.T @ centred).eigenvectors.flip(1)[:, : table.shape[1]]
    reduced = centred @ basis
    table[: len(reduced), : reduced.shape[1]] = (SCALE * reduced / reduced.square().mean().sqrt()).to(table.dtype)
    student.encoder.embeddings.position_embeddings.weight.zero_()
    if student.projection is not None:
        student.projection.weight.zero_()
        student.projection.weight[:, : basis.shape[1]] = basis.to(table.dtype)
        student.projection.bias.zero_()


def save_weights(student: Student, path: Path) -> None:
    """Write a student's weights atomically; tied tensors are stored once.

    Of a table without the rows that its text does not need, those are not stored either, but where they come from.
    """
    tensors, table = dict[str, Tensor](student.named_parameters()), student.encoder.get_input_embeddings()
    if isinstance(table, Rows):
        assert table.origin is not None
        tensors |= {f"{_ROWS}{name}": value for name, value in {"kept": table.kept, **table.origin}.items()}
    save_tensors(tensors, path)


def load_weights(student: Student, path: Path, start: Callable[[], Teacher | None] = lambda: None) -> Student:
    """Read what `save_weights` wrote into a whole student of the same architecture, up to the number of heads.

    Args:
        start: loads the encoder that the student started from; called where rows of its table are not in the file.

    Raises:
        InvalidStudy: a missing or damaged file, the weights of another architecture, or a start with another table.
    """
    try:
        state = load_file(path)
        if f"{_ROWS}kept" in state:
            _put_back_inherited(state, student, path, start())
        missing, unexpected = student.load_state_dict(state, strict=False)
    except (OSError, SafetensorError) as error:
        problem = f"cannot be read ({error}); delete the file to train it again"
        raise InvalidStudy(unreadable(path, error, problem)) from error
    except RuntimeError:  # tensors of other shapes
        fits = False
    else:
        fits = not unexpected and set(missing) <= student.tied_names
    if not fits:
        raise InvalidStudy(f"{path}: its weights are of another architecture; delete the file to train it again")
    return student


def put_back(student: Student, state: dict[str, Tensor], kept: Tensor, table: Tensor) -> None:
    """Complete the state of a student with the rows `kept` alone by the others, which are those of the (V, H) table."""
    own = student.encoder.get_input_embeddings().weight
    name = next(name for name, parameter in student.named_parameters() if parameter is own)
    whole = table.to(own.dtype, copy=True)
    whole[kept] = state[name].to(whole.device)
    state[name] = whole


def _put_back_inherited(state: dict[str, Tensor], student: Student, path: Path, start: Teacher | None) -> None:
    kept, rotation, digest = (state.pop(f"{_ROWS}{name}") for name in ("kept", "rotation", "start"))
    vocabulary = state.pop(f"{_ROWS}vocabulary", None)
    if start is None or not torch.equal(start.table_digest, digest):
        given = "no encoder to start from is named" if start is None else f"that of {start.folder} is another"
        raise InvalidStudy(
            f"{path}: has only those rows of the token table that occur in the search's text; the others are those of "
            f"what it started from, and {given} now. Restore or name that, or delete the file to train it again"
        )
    put_back(student, state, kept, token_table(start.encoder, rotation, vocabulary))


def hand_over(student: Student, tokenizer: Any, recipe: Recipe, folder: Path) -> None:
    """Write stock files: model, tokenizer and, for a sentence encoder, the modules that pool, map and normalise.

    The folder appears whole or not at all; one that is there is replaced.
    """
    with quiet(), replaced(folder) as partial:
        student.model.save_pretrained(partial)
        save_tokenizer(tokenizer, partial, recipe.max_length)
        if student.sentence:
            write_modules(partial, recipe, student.model.config.hidden_size, student.projection)
