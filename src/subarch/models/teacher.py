"""The teacher: a sentence encoder that is loaded safely and computes what sentence-transformers computes with it.

A teacher is a local folder (or the hub name of one) with a BERT, RoBERTa or ModernBERT encoder in safetensors, or with
one that is exactly such an encoder under another name (`families.py`). What else the folder says is applied or refused
by name (`sentence.py`); its tokenizer has to put special tokens around a text as `assemble` does. Nothing in it is ever
executed: pickled weights and remote code are refused.

    >>> teacher = Teacher.load("path/to/all-MiniLM-L6-v2")
    >>> teacher.embed([[2023, 2003, 1037, 7953]]).shape
    torch.Size([1, 384])
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from tokenizers import normalizers
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer
from transformers.utils import logging

from subarch.errors import InvalidTeacher, NotInheritable
from subarch.models.families import CONVERTED, WHY_NOT, WITHOUT_POOLER, has_head, stock_model
from subarch.models.kinds import check_folder, check_reranker, is_cross_encoder
from subarch.models.parts import head_of, inputs_of, usable_positions
from subarch.models.rows import digest_of
from subarch.models.sentence import (
    Recipe,
    TransformerSettings,
    dense_settings,
    pool,
    prompt_text,
    read_json,
    transformer_of,
)
from subarch.numbers.architecture import Architecture, Inputs
from subarch.run.files import unreadable
from subarch.run.inputs import Content, of_model
from subarch.text.batches import by_length, pad
from subarch.text.corpus import NEXT

FAMILIES = ("bert", "roberta", "modernbert")
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json")
BATCH = 64
"""Sequences per forward pass where only outputs are wanted."""

_CONFIG: dict[str, tuple[Any, ...]] = {
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
    "is_causal": (False,),
    "is_encoder_decoder": (False,),
    "add_cross_attention": (False,),
    "return_dict": (True,),
    "chunk_size_feed_forward": (0,),
    "pruned_heads": ({},),
    "attn_implementation": ("eager", "sdpa"),
    "_attn_implementation": ("eager", "sdpa"),
    "quantization_config": (),
    "processor_class": (),
    "head_dim": (),
}
"""Settings of config.json that would make an encoder differ from a student's; the values with which they do not."""

_FOREIGN = {
    "processor_config.json": "asks for a processor of more than text; use a text encoder",
    "preprocessor_config.json": "asks for a processor of more than text; use a text encoder",
    "video_preprocessor_config.json": "asks for a processor of more than text; use a text encoder",
}

Tokens = Sequence[Any]
"""Sequences of token ids, as lists or arrays, without special tokens."""


@dataclass
class Batch:
    """Padded token ids and their mask, (n, length) int64. `choices`: (inputs,) rows of each, if any has several."""

    ids: Tensor
    mask: Tensor
    choices: Tensor | None = None


@dataclass
class Teacher:
    """A loaded teacher in evaluation mode. `masked_lm` is the encoder with its masked-LM head, or None without one."""

    folder: Path
    encoder: Any
    tokenizer: Any
    recipe: Recipe
    dense: nn.Sequential
    masked_lm: Any
    fingerprint: str

    @classmethod
    def load(cls, source: str | Path) -> Teacher:
        """Load a local folder or a hub name.

        Raises:
            InvalidTeacher: missing, truncated or damaged files, pickled weights, remote code, another family.
        """
        folder = resolve(source)
        check_folder(folder)
        if scores := is_cross_encoder(folder):
            check_reranker(folder)  # so its modules say nothing that a stock class does not
        where, settings = (folder, TransformerSettings()) if scores else transformer_of(folder)
        config = _config(where)
        weights = sorted(where.glob("model*.safetensors"))
        masked_lm = load_encoder(where, masked_lm=True) if has_head(config, _names(weights)) else None
        encoder = masked_lm.base_model if masked_lm else load_encoder(where)
        tokenizer = _tokenizer(where, settings.tokenizer_options)
        config = encoder.config
        if len(tokenizer) > config.vocab_size:
            raise InvalidTeacher(
                f"{where}: the tokenizer has {len(tokenizer)} tokens, the model only {config.vocab_size} rows"
            )
        try:
            inputs_of(config)
        except NotInheritable as error:
            raise NotInheritable(f"{where}: {error}") from error
        positions = usable_positions(config.model_type, config.max_position_embeddings, config.pad_token_id)
        longest = int(tokenizer.model_max_length)
        recipe = Recipe(max_length=min(positions, longest)) if scores else Recipe.read(folder, positions, longest)
        if recipe.max_length < 3:
            raise InvalidTeacher(f"{where}: reads {recipe.max_length} tokens at once; at least 3 are needed")
        if recipe.lower_case:
            backend = tokenizer.backend_tokenizer
            backend.normalizer = normalizers.Sequence(
                [normalizers.Lowercase(), *([backend.normalizer] if backend.normalizer else [])]
            )
        if not (folder / "modules.json").is_file():
            _check_default(folder, config, tokenizer)
        _check_prefix(folder, tokenizer, recipe.prefix)
        _check_assembly(where, tokenizer, recipe)
        dense = dense_maps(folder, recipe.dense, int(config.hidden_size))
        return cls(folder, encoder, tokenizer, recipe, dense, masked_lm, _fingerprint(folder, where, weights))

    def with_prompt(self, prompt: str) -> Teacher:
        """The same teacher with another prompt before every text: one of its folder by name, or a text; "" for none.

        Raises:
            InvalidConfig: see `sentence.prompt_text`.
            NotInheritable: the prompt changes how the tokenizer reads what follows it.
        """
        return self.with_prefix(prompt_text(prompt, dict(self.recipe.prompts), self.recipe.prefix))

    def with_prefix(self, text: str) -> Teacher:
        """The same teacher with this text before every other, whatever its folder says.

        Raises:
            NotInheritable: the text changes how the tokenizer reads what follows it.
        """
        if text == self.recipe.prefix:
            return self
        recipe = replace(self.recipe, prefix=text)
        _check_prefix(self.folder, self.tokenizer, text)
        _check_assembly(self.folder, self.tokenizer, recipe)
        fingerprint = hashlib.sha256(f"{self.fingerprint}\0{text}".encode()).hexdigest()
        return replace(self, recipe=recipe, fingerprint=fingerprint)

    @property
    def architecture(self) -> Architecture:
        return Architecture.from_config(self.encoder.config)

    @property
    def width(self) -> int:
        """Size of the teacher's sentence embedding."""
        width = int(self.encoder.config.hidden_size)
        for module in self.dense.modules():
            if isinstance(module, nn.Linear):
                width = module.out_features
            elif isinstance(module, _First):
                width = min(width, module.size)
        return width

    @property
    def family(self) -> str:
        return str(self.encoder.config.model_type)

    @property
    def head(self) -> Any:
        """The stock masked-LM head: (m, H) hidden states -> (m, V) logits."""
        if self.masked_lm is None:
            raise InvalidTeacher(
                f"{self.folder}: has no masked-LM head, which the errors 'mlm' and 'logits' need of a teacher; "
                "use a masked-LM teacher, or the error 'embedding'"
            )
        return head_of(self.masked_lm)

    @cached_property
    def table_digest(self) -> Tensor:
        """(32,) bytes that identify the table of tokens, whatever else is read with it."""
        return digest_of(self.encoder)

    def inputs(self, output: int) -> Inputs:
        """The candidates' inputs: the teacher's tables, and the embedding width they must reach (0: none)."""
        return inputs_of(self.encoder.config, output)

    def batch(self, segments: Tokens) -> Batch:
        """Token lists without special tokens -> a padded batch, with the prefix and the special tokens."""
        return assemble(segments, self.tokenizer, self.recipe)

    @property
    def model(self) -> SentenceModel:
        """The teacher as one module: ids and mask to embeddings as the folder defines them."""
        return SentenceModel(self.encoder, self.recipe.pooling, self.dense, self.recipe.normalize).eval()

    def embed(self, segments: Tokens) -> Tensor:
        """(n, width) embeddings of token lists without special tokens, in the order given."""
        return embed(self.model, segments, self.tokenizer, self.recipe)

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """(n, width) embeddings of texts, in the order given."""
        room = self.recipe.max_length
        given = self.tokenizer(list(texts), add_special_tokens=False, truncation=True, max_length=room)
        return self.embed(given["input_ids"])

    @property
    def name(self) -> str:
        return self.folder.resolve().name


class SentenceModel(nn.Module):
    """(n, length) ids and mask -> (n, width) embeddings."""

    def __init__(self, encoder: Any, pooling: str, dense: nn.Module, normalize: bool) -> None:
        super().__init__()
        self.encoder, self.pooling, self.dense, self.normalize = encoder, pooling, dense, normalize

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        hidden = self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        embedding: Tensor = self.dense(pool(hidden, mask, self.pooling))
        return nn.functional.normalize(embedding, dim=-1) if self.normalize else embedding


@torch.inference_mode()
def embed(forward: Callable[[Tensor, Tensor], Tensor], segments: Tokens, tokenizer: Any, recipe: Recipe) -> Tensor:
    """(n, width) outputs of `forward(ids, mask)`, in the order given; batched by length."""
    groups = by_length([len(segment) for segment in segments], BATCH)
    parts = []
    for rows in groups:
        batch = assemble([segments[row] for row in rows], tokenizer, recipe)
        parts.append(forward(batch.ids, batch.mask).float())
    outputs = torch.cat(parts)
    result = torch.empty_like(outputs)
    result[np.concatenate(groups)] = outputs
    return result


def assemble(segments: Tokens, tokenizer: Any, recipe: Recipe) -> Batch:
    """Add prefix and special tokens, cut to the recipe's maximum length and pad to the longest: (n, length).

    Of an input with choices each choice is a row.
    """
    prefix = prompt_ids(tokenizer, recipe.prefix)
    start, end = special_tokens(tokenizer)
    room = recipe.max_length - 2
    inputs = [choices_of(segment) for segment in segments]
    rows = [
        [start, *[*(prefix if len(row) else prompt_ids(tokenizer, recipe.prefix, "")), *row][:room], end]
        for choices in inputs
        for row in choices
    ]
    ids, mask = pad(rows, int(tokenizer.pad_token_id))
    several = torch.tensor([len(choices) for choices in inputs]) if len(rows) > len(inputs) else None
    return Batch(torch.from_numpy(ids), torch.from_numpy(mask), several)


def choices_of(segment: Any) -> list[Any]:
    """The choices of an input, as the token sequences between the marks `NEXT`; of any other sequence itself."""
    if not isinstance(segment, np.ndarray):
        return [segment]
    marks = np.flatnonzero(segment == NEXT)
    if not len(marks):
        return [segment]
    return [part[part != NEXT] for part in np.split(segment, marks)]


def special_tokens(tokenizer: Any) -> tuple[int, int]:
    """The ids that open and close a sequence: [CLS] and [SEP], or <s> and </s>."""
    start = tokenizer.cls_token_id if tokenizer.cls_token_id is not None else tokenizer.bos_token_id
    end = tokenizer.sep_token_id if tokenizer.sep_token_id is not None else tokenizer.eos_token_id
    if start is None or end is None:
        raise InvalidTeacher("the tokenizer has no token that opens or closes a sequence ([CLS]/[SEP] or <s>/</s>)")
    return int(start), int(end)


def content_of(source: str | Path) -> Content:
    """What a stage records of a model folder or hub name that it reads (`run.inputs`)."""
    return of_model(resolve(source), InvalidTeacher).model_copy(update={"path": str(source)})


def resolve(source: str | Path) -> Path:
    """The folder of a model, downloaded from the hub if it is a hub name.

    Raises:
        InvalidTeacher: there is no such folder, or the hub does not have it.
    """
    folder = Path(os.path.expanduser(source))  # Path.expanduser() raises for a user without a home
    if folder.is_dir():
        return folder
    name = str(source)
    if folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise InvalidTeacher(
            f"{source}: no such folder; give a folder with config.json and model.safetensors, or a hub name"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

    try:  # the patterns leave pickled weights and code behind
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.jinja", "*.txt", "*.model", "*.safetensors"]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled, OSError) as error:
        raise InvalidTeacher(f"{source}: not a folder, and the hub did not give it: {error}") from error


def load_encoder(folder: Path, masked_lm: bool = False) -> Any:
    """The encoder of a folder, or all of its masked-LM, as the stock class that computes the same (`families.py`).

    Raises:
        InvalidTeacher: as `load_model`.
    """
    if masked_lm:
        return stock_model(load_model(AutoModelForMaskedLM, folder))
    without = read_json(folder / "config.json").get("model_type") in WITHOUT_POOLER
    return stock_model(load_model(AutoModel, folder, **({} if without else {"add_pooling_layer": False})))


def load_model(auto: Any, folder: Path, **options: Any) -> Any:
    """A stock model of class `auto`, in fp32 and evaluation mode, frozen, whole.

    Raises:
        InvalidTeacher: files that cannot be read, weights that are missing or of another shape.
    """
    from huggingface_hub.errors import StrictDataclassError

    try:
        with quiet():
            model, report = auto.from_pretrained(
                folder,
                use_safetensors=True,
                trust_remote_code=False,
                output_loading_info=True,
                dtype=torch.float32,
                ignore_mismatched_sizes=True,  # checked below, where the message can name the weight
                **options,
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, StrictDataclassError) as error:
        why = f"its configuration or weights cannot be read, a file may be truncated: {type(error).__name__}: {error}"
        raise InvalidTeacher(unreadable(folder, error, why)) from error
    if missing := sorted(report["missing_keys"]):
        raise InvalidTeacher(f"{folder}: {len(missing)} weights are missing from its files, first {missing[0]}")
    if mismatched := sorted(report["mismatched_keys"]):
        name, found, wanted = mismatched[0]
        raise InvalidTeacher(
            f"{folder}: {name} has shape {tuple(found)} in its weights, {tuple(wanted)} by its config.json"
        )
    prefix = f"{model.base_model_prefix}."
    if inside := [name for name in sorted(report["unexpected_keys"]) if _is_of_encoder(name, prefix)]:
        raise InvalidTeacher(
            f"{folder}: {len(inside)} weights of its encoder have no place in the model that config.json describes, "
            f"first {inside[0]}; without them it would compute something else"
        )
    return model.eval().requires_grad_(False)


class _Normalize(nn.Module):
    def forward(self, embedding: Tensor) -> Tensor:
        return nn.functional.normalize(embedding, dim=-1)


class _First(nn.Module):
    """The first `size` numbers of each embedding."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, embedding: Tensor) -> Tensor:
        return embedding[..., : self.size]


def dense_maps(folder: Path, maps: Sequence[tuple[str, str]], width: int) -> nn.Sequential:
    """What the recipe does to (n, width) pooled vectors, but for `recipe.normalize`; frozen, in evaluation mode.

    Raises:
        InvalidTeacher: weights that are missing, pickled, truncated, or of another shape than the configuration says.
    """
    modules = nn.Sequential()
    for name, activation in maps:
        if not name:
            modules.append(_Normalize() if activation == "normalize" else _First(int(activation)))
            continue
        settings = dense_settings(folder / name)
        path = folder / name / "model.safetensors"
        if not path.is_file():
            raise InvalidTeacher(f"{path}: missing; a Dense module needs it, pickled weights are refused")
        try:
            state = load_file(path)
        except SafetensorError as error:
            raise InvalidTeacher(f"{path}: cannot be read, the file may be truncated: {error}") from error
        output = settings.out_features
        wanted = {"linear.weight": (output, width)} | ({"linear.bias": (output,)} if settings.bias else {})
        found = {key: tuple(value.shape) for key, value in state.items()}
        if settings.in_features != width or found != wanted:
            raise InvalidTeacher(
                f"{path}: holds {found}, but its config.json and the width of its input, {width}, ask for {wanted}"
            )
        linear = nn.Linear(width, output, bias=settings.bias)
        linear.load_state_dict({key.removeprefix("linear."): value for key, value in state.items()})
        modules.append(nn.Sequential(linear, nn.Tanh() if activation == "tanh" else nn.Identity()))
        width = output
    return modules.eval().requires_grad_(False)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars and load reports of transformers."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _is_of_encoder(name: str, prefix: str) -> bool:
    """Whether a weight lies within the encoder: neither in its pooler nor in a head, nor a buffer of indices."""
    inner = name.removeprefix(prefix)
    if inner.startswith("pooler.") or name.endswith((".position_ids", ".token_type_ids")):
        return False
    return inner != name or inner.startswith(("embeddings.", "encoder.", "transformer.", "layers.", "final_norm."))


def _names(weights: Sequence[Path]) -> Iterator[str]:
    """The names of the weights in safetensors files."""
    for path in weights:
        try:
            with safe_open(path, "pt") as file:
                yield from file.keys()
        except (OSError, SafetensorError) as error:
            problem = f"its weights cannot be read, the file may be truncated: {error}"
            raise InvalidTeacher(unreadable(path, error, problem)) from error


def _config(folder: Path) -> dict[str, Any]:
    """config.json of an encoder that students can follow."""
    for name, problem in _FOREIGN.items():
        if (folder / name).exists():
            raise InvalidTeacher(f"{folder / name}: {problem}")
    config: dict[str, Any] = read_json(folder / "config.json")
    if config.get("model_type") not in (*FAMILIES, *CONVERTED):
        family = config.get("model_type")
        why = f" ({WHY_NOT[family]})" if isinstance(family, str) and family in WHY_NOT else ""
        raise NotInheritable(
            f"{folder}: model type {family!r} is not supported{why}; use one of {', '.join((*FAMILIES, *CONVERTED))}"
        )
    for key, allowed in _CONFIG.items():
        if (value := config.get(key)) is not None and value not in allowed:
            raise NotInheritable(f"{folder / 'config.json'}: {key} = {value!r} is not supported; use another teacher")
    return config


def _tokenizer(folder: Path, options: dict[str, Any]) -> Any:
    config = read_json(path) if (path := folder / "tokenizer_config.json").is_file() else {}
    if config.get("processor_class") is not None:
        raise NotInheritable(f"{path}: processor_class = {config['processor_class']!r} is not supported")
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **options)
    except Exception as error:  # the tokenizers library raises nothing more specific
        raise InvalidTeacher(f"{folder}: its tokenizer cannot be read: {type(error).__name__}: {error}") from error
    if not tokenizer.is_fast:
        raise NotInheritable(
            f"{folder}: its tokenizer, {type(tokenizer).__name__}, is a slow one, without a tokenizer.json; convert it "
            "for the tokenizers library and save it here, or use a teacher that has a fast tokenizer"
        )
    if tokenizer.pad_token_id is None:
        raise NotInheritable(f"{folder}: its tokenizer has no padding token")
    try:
        special_tokens(tokenizer)
    except InvalidTeacher as error:
        raise NotInheritable(f"{folder}: {error}") from error
    return tokenizer


def _check_default(folder: Path, config: Any, tokenizer: Any) -> None:
    """Without modules.json sentence-transformers takes the mean of a text's tokens, with two exceptions."""
    if any(name.endswith("ForCausalLM") for name in (config.architectures or ())[:1]):
        raise InvalidTeacher(f"{folder}: is a language model that reads to the left only; use an encoder")
    if tokenizer.chat_template is not None:
        raise NotInheritable(
            f"{folder}: its tokenizer has a chat template, into which sentence-transformers would put every text; "
            "remove the template or use another teacher"
        )


_BEGINNINGS = ("the", "The", " the", "42", ".", "é", "東京", "##s")
_TEXTS = ("the", "", "The old boat, near 42 bells. É café 東京 [x]")


def prompt_ids(tokenizer: Any, prompt: str, text: str = "the") -> list[int]:
    """The tokens of a prompt as they stand before a text.

    Where the space before a word belongs to the word (SentencePiece), one at the end of the prompt is no token of its
    own, unless the text is empty.
    """

    def ids(text: str) -> list[int]:
        found: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
        return found

    if not prompt or not text or ids(prompt + text) == ids(prompt) + ids(text):
        return ids(prompt) if prompt else []
    return ids(prompt.rstrip(" "))


def _check_prefix(folder: Path, tokenizer: Any, prefix: str) -> None:
    """Texts are tokenized without the prefix, which is right only where it does not run into their first word."""
    before = prompt_ids(tokenizer, prefix)
    for text in _BEGINNINGS if prefix else ():
        whole, own = (tokenizer(one, add_special_tokens=False)["input_ids"] for one in (prefix + text, text))
        if whole != before + own:
            raise NotInheritable(
                f"{folder}: its prompt {prefix!r} changes how its tokenizer reads the text behind it, "
                "which is not supported; use a teacher without a default prompt"
            )


def _check_assembly(folder: Path, tokenizer: Any, recipe: Recipe) -> None:
    """What `assemble` makes of a text, short or too long, has to be what the folder's own tokenizer makes of it."""
    if tokenizer.truncation_side != "right":
        raise NotInheritable(
            f"{folder}: its tokenizer cuts long texts on the left (truncation_side), which is not supported"
        )
    for text in (*_TEXTS, f"{_TEXTS[-1]} " * recipe.max_length):
        own = assemble([tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]], tokenizer, recipe)
        given = tokenizer(recipe.prefix + text, truncation="longest_first", max_length=recipe.max_length)
        if given["input_ids"] != own.ids[0].tolist():
            start, end = tokenizer.convert_ids_to_tokens(special_tokens(tokenizer))
            raise NotInheritable(
                f"{folder}: its tokenizer does not put a text between {start} and {end} (no post-processor, or another "
                f"one): of {text[:20]!r} it makes {tokenizer.convert_ids_to_tokens(given['input_ids'])[:10]}; add "
                "them to its post-processor if the model was trained with them, or use another teacher"
            )
        if given.get("attention_mask") != own.mask[0].tolist() or any(given.get("token_type_ids", ())):
            raise NotInheritable(
                f"{folder}: its tokenizer gives {', '.join(given)}, where an attention mask of ones and token types of "
                "zeros are needed; look at model_input_names and the post-processor"
            )


def _fingerprint(folder: Path, where: Path, weights: Sequence[Path]) -> str:
    """Identifies what a teacher computes: the hash of its weights and of every small file that shapes its output."""
    digest = hashlib.sha256()
    small = sorted(folder.glob("*.json")) + sorted(folder.glob("*_*/*.json")) + sorted(folder.glob("*_*/*.safetensors"))
    if not (where / "tokenizer.json").is_file():  # then the vocabulary is in other files
        small += [where / name for name in (*TOKENIZER_FILES, "merges.txt") if (where / name).is_file()]
    modules = read_json(folder / "modules.json", list) if (folder / "modules.json").is_file() else []
    for path in (folder / module["path"] for module in modules if module["path"]):
        small += sorted(path.glob("*.json")) + sorted(path.glob("*.safetensors"))
    for path in dict.fromkeys((*weights, *small)):
        digest.update(str(path.relative_to(folder)).encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
