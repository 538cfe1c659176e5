"""What turns an encoder into a sentence encoder: prompt, length, pooling, dense maps, normalisation.

Sentence encoders are published as a stock encoder with a few small modules beside it (the folder layout of
sentence-transformers). Every setting in those files changes what an embedding is, so each file has a model here that
lists the settings that a student can follow. Anything else is refused by name: neither ignored nor approximated.

    >>> recipe = Recipe.read(Path("all-MiniLM-L6-v2"))
    >>> recipe.pooling, recipe.normalize, recipe.max_length
    ('mean', True, 256)
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from subarch.errors import InvalidConfig, InvalidTeacher, NotInheritable
from subarch.run.files import unreadable, write_json

if TYPE_CHECKING:
    from torch import Tensor, nn

_KINDS = ("Transformer", "Pooling", "Dense", "Normalize")
"""The modules a teacher may have, in the order in which they must come; the first two exactly once."""

TRANSFORMER_FILES = tuple(
    f"sentence_{family}_config.json"
    for family in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
"""Names under which sentence-transformers saved a Transformer's settings; the first file that is not empty counts."""

_LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_Activation = Literal["torch.nn.modules.activation.Tanh", "torch.nn.modules.linear.Identity"]
_TANH: _Activation = "torch.nn.modules.activation.Tanh"
_IDENTITY: _Activation = "torch.nn.modules.linear.Identity"

Length = Annotated[int, Field(ge=3)]
"""Tokens, with the two special ones."""


class _Settings(BaseModel):
    """The settings of one file that are applied, or change nothing. Others, and other values, are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class _Nothing(_Settings):
    pass


class TokenizerOptions(_Settings):
    model_max_length: Length | None = None
    padding_side: Literal["left", "right"] | None = None  # padding is masked, on either side
    truncation_side: Literal["right"] | None = None


class _ModelOptions(_Settings):
    attn_implementation: Literal["eager", "sdpa"] | None = None  # the same sums in another order
    dtype: Literal["float32", "auto"] | None = None
    torch_dtype: Literal["float32", "auto"] | None = None


class _Forward(_Settings):
    method: Literal["forward"]
    method_output_name: Literal["last_hidden_state"]


class _Modalities(_Settings):
    text: _Forward


class TransformerSettings(_Settings):
    """sentence_bert_config.json and its siblings."""

    max_seq_length: Length | None = None
    do_lower_case: bool | None = None
    transformer_task: Literal["feature-extraction"] = "feature-extraction"
    modality_config: _Modalities | None = None
    module_output_name: Literal["token_embeddings"] | None = None
    processing_kwargs: _Nothing | None = None
    unpad_inputs: bool | None = None  # how flash attention is called
    query_length: None = None
    document_length: None = None
    query_expansion: None = None
    tokenizer_name_or_path: None = None
    tokenizer_args: TokenizerOptions | None = None
    processor_kwargs: TokenizerOptions | None = None
    model_args: _ModelOptions | None = None
    model_kwargs: _ModelOptions | None = None
    config_args: _Nothing | None = None
    config_kwargs: _Nothing | None = None

    @property
    def tokenizer_options(self) -> dict[str, Any]:
        """Keyword arguments with which the tokenizer is loaded. The older key wins, as in sentence-transformers."""
        options = self.tokenizer_args or self.processor_kwargs or TokenizerOptions()
        return options.model_dump(exclude_none=True)


class _PoolingSettings(_Settings):
    embedding_dimension: int | None = Field(
        None, validation_alias=AliasChoices("embedding_dimension", "word_embedding_dimension")
    )
    pooling_mode: str | list[str] | None = None
    pooling_mode_cls_token: bool = False
    pooling_mode_max_tokens: bool = False
    pooling_mode_mean_tokens: bool = False
    pooling_mode_mean_sqrt_len_tokens: bool = False
    pooling_mode_weightedmean_tokens: bool = False
    pooling_mode_lasttoken: bool = False
    include_prompt: Literal[True] = True


class DenseSettings(_Settings):
    in_features: Annotated[int, Field(ge=1)]
    out_features: Annotated[int, Field(ge=1)]
    bias: bool = True
    activation_function: _Activation = _TANH
    module_input_name: Literal["sentence_embedding"] = "sentence_embedding"
    module_output_name: Literal["sentence_embedding"] | None = None
    use_residual: Literal[False] = False


class _NormalizeSettings(_Settings):
    module_input_name: Literal["sentence_embedding"] = "sentence_embedding"
    module_output_name: Literal["sentence_embedding"] | None = None


class _ModuleEntry(_Settings):
    """One entry of modules.json."""

    idx: int | None = None
    name: str | None = None
    path: str
    type: str
    kwargs: Annotated[list[str], Field(max_length=0)] | None = None


class _ModelSettings(_Settings):
    """config_sentence_transformers.json."""

    version: Any = Field(None, alias="__version__")
    model_type: Literal["SentenceTransformer"] = "SentenceTransformer"
    prompts: dict[str, str | None] = {}
    default_prompt_name: str | None = None
    similarity_fn_name: str | None = None  # how embeddings are compared, not what they are
    truncate_dim: Annotated[int, Field(ge=1)] | None = None
    requirements: _Nothing | None = None


@dataclass(frozen=True, slots=True)
class Recipe:
    """How token vectors become one embedding.

    `dense` lists (folder, activation) of linear maps applied after pooling; `prefix` is put before every text;
    `max_length` counts tokens with the special ones; `lower_case` asks for lower-casing before the tokenizer.

    Where the folder cuts embeddings (`truncate_dim`), `dense` ends with the cut, ("", size), after normalisation,
    ("", "normalize"), if there is any: then `normalize` is False.

    `prompts` are (name, text) of what may be put before a text instead; `similarity` is how embeddings are compared.
    Both are handed over with a student.
    """

    pooling: str = "mean"
    dense: tuple[tuple[str, str], ...] = ()
    normalize: bool = False
    prefix: str = ""
    max_length: int = 512
    lower_case: bool = False
    prompts: tuple[tuple[str, str], ...] = ()
    similarity: str = "cosine"

    @classmethod
    def read(cls, folder: Path, positions: int = 512, tokens: int = 512) -> Recipe:
        """The recipe of a folder; a plain Hugging Face folder means mean pooling, as in sentence-transformers.

        Args:
            positions: what the encoder can take.
            tokens: the tokenizer's limit, which holds where the folder itself names none.

        Raises:
            InvalidTeacher: damaged files, or a setting that a stock student could not follow.
        """
        if not (folder / "modules.json").is_file():
            return cls(max_length=min(positions, tokens))
        _, settings = transformer_of(folder)
        length = settings.tokenizer_options.get("model_max_length") or settings.max_seq_length or tokens
        dense, normalize, pooling = [], False, "mean"
        for kind, path in _modules(folder / "modules.json"):
            config = folder / path / "config.json"
            if kind == "Pooling":
                pooling = _pooling(config)
            elif kind == "Dense":
                activation = dense_settings(folder / path).activation_function
                dense.append((path, "tanh" if activation == _TANH else "identity"))
            elif kind == "Normalize":
                _parse(config, _NormalizeSettings, _optional(config))
                normalize = True
        about = folder / "config_sentence_transformers.json"
        model = _parse(about, _ModelSettings, _optional(about))
        if model.truncate_dim is not None:
            dense += [("", "normalize")] * normalize + [("", str(model.truncate_dim))]
            normalize = False
        return cls(
            pooling,
            tuple(dense),
            normalize,
            prefix=_prompt(about, model),
            max_length=min(positions, length),
            lower_case=bool(settings.do_lower_case),
            prompts=tuple((name, text) for name, text in model.prompts.items() if text is not None),
            similarity=model.similarity_fn_name or "cosine",
        )


def prompt_text(prompt: str, prompts: Mapping[str, str], default: str) -> str:
    """The text that `prompt` stands for: that of a prompt of this name, or itself; "" for none.

    Args:
        prompts: the texts of the folder's prompts, by name.
        default: what the folder puts before every text.

    Raises:
        InvalidConfig: a word that is no name, or a text that the folder puts before every text already.
    """
    if prompt in prompts:
        return prompts[prompt]
    if prompt.isidentifier():
        named = ", ".join(prompts) or "there are none"
        raise InvalidConfig(
            f"prompt {prompt!r} is not the name of a prompt of the teacher ({named}), and a text would run into what "
            "follows it: end it with a space or a colon"
        )
    if prompt and default.startswith(prompt):
        raise InvalidConfig(
            f"prompt {prompt!r} is given twice: the teacher puts {default!r} before every text already; leave it out"
        )
    return prompt


def transformer_of(folder: Path) -> tuple[Path, TransformerSettings]:
    """Where the encoder and its tokenizer lie (the folder itself, or a folder in it), and how they are loaded."""
    if not (folder / "modules.json").is_file():  # then sentence-transformers reads no other file of its own either
        return folder, TransformerSettings()
    where = folder / _modules(folder / "modules.json")[0][1]
    for name in TRANSFORMER_FILES:
        if value := _optional(where / name):
            return where, _parse(where / name, TransformerSettings, value)
    return where, TransformerSettings()


def read_json(path: Path, expected: type = dict) -> Any:
    """Parse a JSON file of a teacher folder, an object unless told otherwise.

    Raises:
        InvalidTeacher: missing, not JSON, or JSON of another kind.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InvalidTeacher(f"{path}: missing; the teacher folder is incomplete, copy it again") from error
    except OSError as error:
        raise InvalidTeacher(unreadable(path, error)) from error
    except (ValueError, RecursionError) as error:  # besides bad syntax: not UTF-8, numbers of 5000 digits, deep nesting
        raise InvalidTeacher(
            f"{path}: not valid JSON ({error}); the teacher folder is damaged, copy it again"
        ) from error
    if not isinstance(value, expected):
        raise InvalidTeacher(f"{path}: holds a {type(value).__name__}, not a {expected.__name__}; copy it again")
    return value


def pool(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """(n, length, H) token vectors and their (n, length) mask -> (n, H)."""
    if pooling == "cls":
        return hidden[:, 0]
    weights = mask.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


def dense_settings(folder: Path) -> DenseSettings:
    return _parse(path := folder / "config.json", DenseSettings, read_json(path))


def write_modules(folder: Path, recipe: Recipe, hidden: int, projection: nn.Linear | None) -> None:
    """Put the modules of a sentence encoder beside a stock model of this hidden size: length, pooling, map, prompt.

    Written by hand, in the layout of version 2: every version of sentence-transformers since then loads it. What the
    package itself writes loads only in its own and later versions.
    """
    from safetensors.torch import save_file

    modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
    if projection is not None:
        modules.append(("2_Dense", "Dense"))
        size = {"in_features": projection.in_features, "out_features": projection.out_features}
        write_json(folder / "2_Dense" / "config.json", size | {"bias": True, "activation_function": _IDENTITY})
        state = {f"linear.{name}": value.detach().contiguous() for name, value in projection.named_parameters()}
        save_file(state, folder / "2_Dense" / "model.safetensors")
    if recipe.normalize:
        modules.append((f"{len(modules)}_Normalize", "Normalize"))
        (folder / modules[-1][0]).mkdir()
    _write_layout(folder, recipe, hidden, modules)
    prompts, default = dict(recipe.prompts), None
    if recipe.prefix:
        default = next((name for name, text in recipe.prompts if text == recipe.prefix), "default")
        prompts[default] = recipe.prefix
    about = {"prompts": prompts, "default_prompt_name": default, "similarity_fn_name": recipe.similarity}
    write_json(folder / "config_sentence_transformers.json", about)


def copy_modules(model: Path, recipe: Recipe, hidden: int, folder: Path) -> None:
    """Put the modules of a folder beside an export of it, in the layout of version 2, which more programs read.

    Text Embeddings Inference, for one, reads no other names of the pooling and of the maximum length.
    """
    modules = [(path, kind) for kind, path in _modules(model / "modules.json")]
    for path, kind in modules:
        if kind in ("Dense", "Normalize") and (model / path).is_dir():  # Normalize has no files, and may have no folder
            shutil.copytree(model / path, folder / path)
    _write_layout(folder, recipe, hidden, modules)
    about = "config_sentence_transformers.json"
    if (model / about).is_file():
        shutil.copyfile(model / about, folder / about)


def _write_layout(folder: Path, recipe: Recipe, hidden: int, modules: Sequence[tuple[str, str]]) -> None:
    """The list of the modules, (folder, kind), and the settings of the first two."""
    write_json(folder / TRANSFORMER_FILES[0], {"max_seq_length": recipe.max_length, "do_lower_case": recipe.lower_case})
    pooling = {
        "word_embedding_dimension": hidden,
        "pooling_mode_cls_token": recipe.pooling == "cls",
        "pooling_mode_mean_tokens": recipe.pooling == "mean",
        "pooling_mode_max_tokens": False,
        "pooling_mode_mean_sqrt_len_tokens": False,
    }
    write_json(folder / modules[1][0] / "config.json", pooling)
    entries = [
        {"idx": index, "name": str(index), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for index, (path, kind) in enumerate(modules)
    ]
    write_json(folder / "modules.json", entries)


_OF_A_CALL = ("is_local", "local_files_only", "name_or_path", "max_length", "stride", "truncation_strategy")
"""What transformers 5 writes of how a tokenizer was loaded, or called by whoever saved it before."""


def save_tokenizer(tokenizer: Any, folder: Path, longest: int) -> None:
    """Write a tokenizer's files so that programs that read them by themselves do what transformers 5 does.

    `longest`: tokens at which they cut a text, where no other length is left in the files. transformers 4 knows the
    class of a plain tokenizer under another name; fastembed before 0.9 reads special tokens from a file of their own.
    """
    from tokenizers import Tokenizer

    tokenizer.save_pretrained(folder)
    whole = Tokenizer.from_file(str(folder / "tokenizer.json"))
    whole.no_truncation()
    whole.no_padding()
    whole.save(str(folder / "tokenizer.json"))
    path = folder / "tokenizer_config.json"
    settings = read_json(path)
    if settings["tokenizer_class"] == "TokenizersBackend":
        settings["tokenizer_class"] = "PreTrainedTokenizerFast"
    settings |= {"model_max_length": longest, "model_input_names": tokenizer.model_input_names}
    write_json(path, {key: value for key, value in settings.items() if key not in _OF_A_CALL})
    write_json(folder / "special_tokens_map.json", tokenizer.special_tokens_map)


S = TypeVar("S", bound=_Settings)


def _parse(path: Path, kind: type[S], value: Any) -> S:
    """The settings that a file holds; InvalidTeacher names one that is unknown, missing or has another value."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
    name, found = ".".join(map(str, first["loc"])), repr(first["input"])[:80]
    if first["type"] == "missing":
        raise InvalidTeacher(f"{path}: {name} is missing; the teacher folder is damaged, copy it again")
    if first["type"] == "extra_forbidden":
        raise NotInheritable(f"{path}: {name} = {found} is a setting that is not supported; use a teacher without it")
    raise NotInheritable(f"{path}: {name} = {found} is not supported: {first['msg'][0].lower()}{first['msg'][1:]}")


def _optional(path: Path) -> dict[str, Any]:
    return dict(read_json(path)) if path.is_file() else {}


def _modules(path: Path) -> list[tuple[str, str]]:
    """(kind, folder) of each module, in the only order that a student can follow."""
    entries = [_parse(path, _ModuleEntry, entry) for entry in read_json(path, list)]
    for entry in entries:
        library, _, kind = entry.type.rpartition(".")
        if kind == "StaticEmbedding":
            raise NotInheritable(
                f"{path.parent}: is a static table of token vectors ({kind}): no student can inherit from it or be "
                "built like it; use an encoder, or let a student start from one and learn its vectors"
            )
        # A class of another library may have a stock name, and its own code.
        if library.split(".")[0] != "sentence_transformers" or kind not in _KINDS:
            raise NotInheritable(
                f"{path}: module {entry.type} is not supported; use a teacher made of {', '.join(_KINDS)}"
            )
        if Path(entry.path).is_absolute() or ".." in Path(entry.path).parts:
            raise InvalidTeacher(f"{path}: module {kind} lies outside the folder, in {entry.path}")
    modules = [(entry.type.rpartition(".")[2], entry.path) for entry in entries]
    kinds = [kind for kind, _ in modules]
    if kinds != sorted(kinds, key=_KINDS.index) or [kinds.count(kind) for kind in _KINDS[:2]] != [1, 1]:
        raise NotInheritable(
            f"{path}: the modules {', '.join(kinds)} are not in the order {', '.join(_KINDS)}, the first two of them "
            "once; a student cannot follow them"
        )
    names = [entry.name for entry in entries if entry.name is not None]
    if len(set(names)) < len(names):  # sentence-transformers keeps the last module of a name
        raise InvalidTeacher(f"{path}: two modules have the same name, among {', '.join(names)}")
    return modules


def _pooling(path: Path) -> str:
    settings = _parse(path, _PoolingSettings, read_json(path))
    modes = settings.pooling_mode or [mode for key, mode in _LEGACY_POOLING.items() if getattr(settings, key)] or "mean"
    modes = modes if isinstance(modes, list) else [modes]
    if modes not in (["mean"], ["cls"]):
        raise NotInheritable(f"{path}: pooling {modes} is not supported; use a teacher that pools by 'mean' or 'cls'")
    return modes[0]


def _prompt(path: Path, settings: _ModelSettings) -> str:
    """The text that is put before every input by default."""
    if settings.default_prompt_name is None:
        return ""
    if (prompt := settings.prompts.get(settings.default_prompt_name)) is None:
        raise InvalidTeacher(
            f"{path}: default prompt {settings.default_prompt_name!r} is not among the prompts {settings.prompts!r}"
        )
    return prompt
