"""A student: a stock encoder of some architecture with what its error needs on top.

For sentence errors that is the teacher's pooling and, where the hidden sizes differ, a linear map to the teacher's
width; for masked-LM errors the stock masked-LM head. Only the blueprint, not the architecture, decides which.

    >>> student = Student(Architecture.parse("2-12-384-512"), Blueprint.of_teacher(teacher))
    >>> student(batch.ids, batch.mask).shape
    torch.Size([64, 384])
    >>> save_weights(student, Path("weights.safetensors"))  # for `load_weights`, into a student like it
    >>> hand_over(student, tokenizer, recipe, Path("selected"))  # for `AutoModel` and `SentenceTransformer`
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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
from subarch.models.parts import head_of, settings_of
from subarch.models.sentence import Recipe, pool, write_modules
from subarch.models.teacher import Teacher, quiet, special_tokens
from subarch.numbers.architecture import Architecture, Inputs
from subarch.run.files import replaced, save_tensors, unreadable

_ENCODERS: dict[str, Any] = {"bert": BertModel, "roberta": RobertaModel, "modernbert": ModernBertModel}
_MASKED_LMS: dict[str, Any] = {
    "bert": BertForMaskedLM,
    "roberta": RobertaForMaskedLM,
    "modernbert": ModernBertForMaskedLM,
}


@dataclass(frozen=True)
class Blueprint:
    """What all candidates of a search share: family, inputs, pooling, further settings of the stock configuration."""

    family: str
    inputs: Inputs
    pooling: str = "mean"
    masked_lm: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_teacher(cls, teacher: Teacher, masked_lm: bool = False, sentence: bool | None = None) -> Blueprint:
        """Candidates with the teacher's vocabulary, special ids, activation and pooling.

        Masked language models, sentence encoders (None: if not the former) or both.
        """
        settings = settings_of(teacher.encoder.config)
        sentence = not masked_lm if sentence is None else sentence
        inputs = teacher.inputs(teacher.width if sentence else 0)
        return cls(teacher.family, inputs, teacher.recipe.pooling, masked_lm, settings)

    @classmethod
    def of_tokenizer(cls, tokenizer: Any) -> Blueprint:
        """Masked-LM candidates of the BERT family for a vocabulary of our own."""
        start, end = special_tokens(tokenizer)
        ids = {"pad_token_id": tokenizer.pad_token_id, "bos_token_id": start, "eos_token_id": end}
        return cls("bert", Inputs(len(tokenizer)), masked_lm=True, settings=ids)


class Student(nn.Module):
    """`model` is stock transformers; `projection` maps the pooled vector to the teacher's width, or is None."""

    def __init__(self, architecture: Architecture, blueprint: Blueprint) -> None:
        super().__init__()
        config = architecture.to_config(blueprint.inputs, blueprint.family, **blueprint.settings)
        self.model: PreTrainedModel
        if blueprint.masked_lm:
            self.model = _MASKED_LMS[blueprint.family](config)
        else:
            options = {} if blueprint.family in WITHOUT_POOLER else {"add_pooling_layer": False}
            self.model = _ENCODERS[blueprint.family](config, **options)
        self.masked_lm = blueprint.masked_lm
        self.sentence = not blueprint.masked_lm or blueprint.inputs.output > 0
        self.pooling = blueprint.pooling
        output = blueprint.inputs.output
        self.projection = nn.Linear(architecture.hidden, output) if output not in (0, architecture.hidden) else None

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
        """(n, length) ids and mask -> sentence embeddings (n, output), not normalised."""
        pooled = pool(self.hidden(ids, mask), mask, self.pooling)
        return pooled if self.projection is None else self.projection(pooled)


def save_weights(student: Student, path: Path) -> None:
    """Write a student's weights atomically; tied tensors are stored once."""
    save_tensors(dict(student.named_parameters()), path)


def load_weights(student: Student, path: Path) -> Student:
    """Read what `save_weights` wrote into a student of the same architecture, up to the number of heads.

    Raises:
        InvalidStudy: a missing or damaged file, or the weights of another architecture.
    """
    try:
        missing, unexpected = student.load_state_dict(load_file(path), strict=False)
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


def hand_over(student: Student, tokenizer: Any, recipe: Recipe, folder: Path) -> None:
    """Write stock files: model, tokenizer and, for a sentence encoder, the modules that pool, map and normalise.

    The folder appears whole or not at all; one that is there is replaced.
    """
    with quiet(), replaced(folder) as partial:
        student.model.save_pretrained(partial)
        tokenizer.save_pretrained(partial)
        if student.sentence:
            write_modules(partial, recipe, student.model.config.hidden_size, student.projection)
