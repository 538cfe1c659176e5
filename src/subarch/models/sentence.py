"""What turns an encoder into a sentence encoder: prefix, pooling, dense maps, normalisation.

Sentence encoders are published as a stock encoder and a few small modules beside it (the sentence-transformers
layout). What they say decides what an embedding *is*, so teacher and student read it here, from the folder, and a
folder that asks for something else is refused rather than approximated.

    >>> recipe = Recipe.read(Path("all-MiniLM-L6-v2"))
    >>> recipe.pooling, recipe.normalize, recipe.max_length
    ('mean', True, 256)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subarch.errors import InvalidTeacher

if TYPE_CHECKING:
    from torch import Tensor, nn

# Of the older and the newer configuration keys of sentence-transformers' Pooling module.
_LEGACY_POOLING = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_ORDER = ("Transformer", "Pooling", "Dense", "Normalize")
_ACTIVATIONS = {
    "torch.nn.modules.linear.Identity": "identity",
    "torch.nn.modules.activation.Tanh": "tanh",
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """How token vectors become one embedding.

    `dense` lists (folder, activation) of linear maps applied after pooling; `prefix` is put before every text;
    `max_length` counts tokens with the special ones; `lower_case` asks for lower-casing before the tokenizer.
    """

    pooling: str = "mean"
    dense: tuple[tuple[str, str], ...] = ()
    normalize: bool = False
    prefix: str = ""
    max_length: int = 512
    lower_case: bool = False

    @classmethod
    def read(cls, folder: Path, positions: int = 512, tokens: int = 512) -> Recipe:
        """The recipe of a folder; a plain Hugging Face folder means mean pooling, as in sentence-transformers.

        `positions` is what the encoder can take, `tokens` the tokenizer's limit, which holds where the folder itself
        names none.

        Raises:
            InvalidTeacher: a module, pooling mode or activation that a stock student could not reproduce.
        """
        if not (folder / "modules.json").is_file():
            return cls(max_length=min(positions, tokens))
        recipe: dict[str, Any] = {"dense": ()}
        modules = _modules(folder / "modules.json")
        for kind, path in modules:
            if kind == "Transformer":
                settings = _optional(folder / path / "sentence_bert_config.json")
                length = settings.get("max_seq_length") or tokens
                if not isinstance(length, int) or length < 3:
                    raise InvalidTeacher(f"{folder}: max_seq_length is {length!r}; whole numbers from 3 are allowed")
                recipe["max_length"] = min(positions, length)
                recipe["lower_case"] = bool(settings.get("do_lower_case", False))
            elif kind == "Pooling":
                recipe["pooling"] = _pooling(folder / path / "config.json")
            elif kind == "Dense":
                recipe["dense"] += ((path, _activation(folder / path / "config.json")),)
            else:
                recipe["normalize"] = True
        settings = _optional(folder / "config_sentence_transformers.json")
        if name := settings.get("default_prompt_name"):
            prompts = settings.get("prompts")
            if not isinstance(prompts, dict) or not isinstance(prompts.get(str(name)), str):
                raise InvalidTeacher(f"{folder}: its default prompt {name!r} is not among its prompts {prompts!r}")
            recipe["prefix"] = prompts[str(name)]
        return cls(**recipe)


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
        raise InvalidTeacher(f"{path}: cannot be read: {error.strerror}") from error
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


def dense_maps(folder: Path, maps: Sequence[tuple[str, str]], width: int) -> nn.Sequential:
    """The recipe's dense maps, applied to (n, width) pooled vectors; frozen, in evaluation mode.

    Raises:
        InvalidTeacher: weights that are missing, pickled, truncated, or of a shape that does not follow.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from torch import nn

    modules = nn.Sequential()
    for name, activation in maps:
        path = folder / name / "model.safetensors"
        if not path.is_file():
            raise InvalidTeacher(f"{path}: missing; a Dense module needs it, pickled weights are refused")
        try:
            state = load_file(path)
        except SafetensorError as error:
            raise InvalidTeacher(f"{path}: cannot be read, the file may be truncated: {error}") from error
        weight, bias = state.get("linear.weight"), state.get("linear.bias")
        if weight is None or weight.ndim != 2 or weight.shape[1] != width:
            raise InvalidTeacher(f"{path}: has no linear.weight of shape (any, {width}), as its input asks for")
        width = len(weight)
        linear = nn.Linear(weight.shape[1], width, bias=bias is not None)
        linear.load_state_dict({key.removeprefix("linear."): value for key, value in state.items()})
        modules.append(nn.Sequential(linear, nn.Tanh() if activation == "tanh" else nn.Identity()))
    return modules.eval().requires_grad_(False)


def _optional(path: Path) -> dict[str, Any]:
    return dict(read_json(path)) if path.is_file() else {}


def _modules(path: Path) -> list[tuple[str, str]]:
    """(kind, folder) of each module, in the only order that a student can follow."""
    modules = []
    for module in read_json(path, list):
        if not isinstance(module, dict) or not all(isinstance(module.get(key), str) for key in ("type", "path")):
            raise InvalidTeacher(f"{path}: {module!r} names no type and path; the teacher folder is damaged")
        library, _, kind = module["type"].rpartition(".")
        # A class of another library may have a stock name, and its own code.
        if library.split(".")[0] != "sentence_transformers" or kind not in _ORDER:
            raise InvalidTeacher(
                f"{path}: module {module['type']} is not supported; use a teacher made of {', '.join(_ORDER)}"
            )
        if Path(module["path"]).is_absolute() or ".." in Path(module["path"]).parts:
            raise InvalidTeacher(f"{path}: module {kind} lies outside the folder, in {module['path']}")
        modules.append((kind, module["path"]))
    kinds = [kind for kind, _ in modules]
    if kinds != sorted(kinds, key=_ORDER.index) or [kinds.count(kind) for kind in _ORDER[:2]] != [1, 1]:
        raise InvalidTeacher(f"{path}: the modules {', '.join(kinds)} are not in the order {', '.join(_ORDER)}")
    return modules


def _pooling(path: Path) -> str:
    settings = read_json(path)
    modes = settings.get("pooling_mode") or [mode for key, mode in _LEGACY_POOLING.items() if settings.get(key)]
    modes = modes if isinstance(modes, list) else [modes]
    if modes not in (["mean"], ["cls"]):
        raise InvalidTeacher(f"{path}: pooling {modes} is not supported; use a teacher that pools by 'mean' or 'cls'")
    if settings.get("include_prompt") is False:
        raise InvalidTeacher(f"{path}: a prompt excluded from pooling is not supported")
    return str(modes[0])


def _activation(path: Path) -> str:
    settings = read_json(path)
    if settings.get("use_residual") or settings.get("module_input_name", "sentence_embedding") != "sentence_embedding":
        raise InvalidTeacher(f"{path}: a Dense module that is residual or maps single tokens is not supported")
    name = str(settings.get("activation_function", "torch.nn.modules.activation.Tanh"))
    if name not in _ACTIVATIONS:
        raise InvalidTeacher(f"{path}: activation {name} is not supported; known: {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]
