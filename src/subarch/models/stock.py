"""Any stock sentence encoder as a teacher: text in, vectors out, computed by sentence-transformers itself.

`Teacher` reads a folder strictly, because a student inherits from it. Where only its vectors are wanted, what
`SentenceTransformer(folder)` computes is what the folder says: any family of transformers, pooling, prompt, map or
static table, as long as loading it runs no code of the folder's own and reads no pickles.

    >>> teacher = teacher_of("all-mpnet-base-v2")
    >>> teacher.embed_texts(["a text", "another"]).shape
    torch.Size([2, 768])
    >>> teacher.reason  # why no student can inherit from it
    "all-mpnet-base-v2: model type 'mpnet' is not supported; ..."
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from subarch.errors import InvalidTeacher, NotInheritable
from subarch.models.kinds import check_embeds, check_folder
from subarch.models.sentence import prompt_text
from subarch.models.teacher import BATCH, Teacher, quiet, resolve
from subarch.run.files import unreadable
from subarch.run.inputs import of_model


@dataclass(frozen=True)
class StockTeacher:
    """A loaded sentence encoder of which only the vectors are used.

    Attributes:
        name: the folder's, or the hub name.
        fingerprint: identifies by content what it computes, its prompt included.
        width: of an embedding.
        prompts: texts that the folder names, to be put before an input.
        prompt: the one that is, "" for none.
        similarity: how its embeddings are compared: "cosine", "dot", ...
        parameters: how many numbers it has.
        max_length: tokens it reads of a text, or None for all.
        module: the encoder below pooling, or None for a static table.
        reason: why no student can inherit from it, or "" where nobody asked.
    """

    folder: Path
    name: str
    fingerprint: str
    width: int
    prompts: dict[str, str]
    prompt: str
    similarity: str
    parameters: int
    max_length: int | None
    module: nn.Module | None
    reason: str = ""
    encoder: Any = field(default=None, repr=False, compare=False)

    @classmethod
    def load(cls, source: str | Path, reason: str = "") -> StockTeacher:
        """Load a local folder or a hub name.

        Raises:
            InvalidTeacher: remote code, pickled weights, another kind of model, damaged or missing files, weights that
                do not fit the configuration, an embedding that is not finite.
        """
        folder = resolve(source)
        check_embeds(folder)
        check_folder(folder)
        encoder = load_folder(folder, "SentenceTransformer").float().eval().requires_grad_(False)
        first = encoder[0]
        module = getattr(first, "auto_model", None)
        if module is not None:
            _check_whole(folder, first, module)
        prompts = {name: text for name, text in encoder.prompts.items() if text}
        length = encoder.max_seq_length
        teacher = cls(
            folder=folder,
            name=folder.resolve().name if os.path.isdir(os.path.expanduser(source)) else str(source),
            fingerprint=of_model(folder, InvalidTeacher).hash,
            width=0,
            prompts=prompts,
            prompt=prompts.get(encoder.default_prompt_name, ""),
            similarity=str(encoder.similarity_fn_name),
            parameters=sum(parameter.numel() for parameter in encoder.parameters()),
            max_length=None if length is None or length == math.inf else int(length),
            module=module,
            reason=reason,
            encoder=encoder,
        )
        return replace(teacher, width=teacher.embed_texts(["A text."]).shape[1])

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """(n, width) fp32 embeddings of the texts on the CPU, in the order given; normalised where the folder says so.

        Raises:
            InvalidTeacher: an embedding is not finite, or a text has a token that the model has no row for.
        """
        if not texts:
            return torch.empty(0, self.width)
        try:
            found = self.encoder.encode(
                list(texts), prompt=self.prompt, batch_size=BATCH, convert_to_tensor=True, show_progress_bar=False
            )
        except IndexError as error:
            raise InvalidTeacher(
                f"{self.folder}: its tokenizer has a token for which the model has no row ({error}); they do not "
                "belong together"
            ) from error
        vectors: Tensor = found.float().cpu().clone()  # a clone: not bound to inference mode
        if not bool(vectors.isfinite().all()):
            row = int((~vectors.isfinite().all(1)).nonzero()[0, 0])
            raise InvalidTeacher(
                f"{self.folder}: its embedding of {texts[row][:60]!r} is not finite; use another teacher"
            )
        return vectors

    def with_prompt(self, prompt: str) -> StockTeacher:
        """The same teacher with another prompt before every text: one of its folder by name, or a text; "" for none.

        Raises:
            InvalidConfig: see `sentence.prompt_text`.
        """
        text = prompt_text(prompt, self.prompts, self.prompt)
        if text == self.prompt:
            return self
        told = hashlib.blake2b(f"{self.fingerprint}\0{text}".encode(), digest_size=16).hexdigest()
        return replace(self, prompt=text, fingerprint=told)


def teacher_of(source: str | Path, prompt: str | None = None) -> Teacher | StockTeacher:
    """The teacher in a local folder or of a hub name: inheritable where students can follow it, else stock.

    Args:
        prompt: what it puts before every text, see `with_prompt`; None: what its folder says.

    Raises:
        InvalidConfig: see `with_prompt`.
        InvalidTeacher: see `Teacher.load` and `StockTeacher.load`. A damaged folder is not tried in another way.
    """
    folder = resolve(source)
    check_embeds(folder)
    try:
        teacher = Teacher.load(folder)
        return teacher if prompt is None else teacher.with_prompt(prompt)
    except NotInheritable as error:
        stock = StockTeacher.load(source, reason=str(error))
        return stock if prompt is None else stock.with_prompt(prompt)


def load_folder(folder: Path, kind: Literal["SentenceTransformer", "CrossEncoder"]) -> Any:
    """The folder as this class of sentence-transformers loads it, in fp32, on a GPU if there is one.

    Raises:
        InvalidTeacher: it cannot be loaded.
    """
    import sentence_transformers  # takes seconds

    options = {"use_safetensors": True, "dtype": torch.float32}
    try:
        with quiet():
            load = getattr(sentence_transformers, kind)
            return load(str(folder), local_files_only=True, trust_remote_code=False, model_kwargs=options)
    except Exception as error:  # whatever the libraries meet in a damaged or unknown folder
        why = f"sentence-transformers cannot load it: {type(error).__name__}: {error}"
        raise InvalidTeacher(unreadable(folder, error, why)) from error


def _check_whole(folder: Path, first: Any, module: Any) -> None:
    """Every weight comes from the files: transformers draws those at random that are missing, and goes on."""
    with quiet():
        _, report = type(module).from_pretrained(
            module.name_or_path, config=module.config, use_safetensors=True, device_map="meta", output_loading_info=True
        )
    needs_pooler = "pooler_output" in str(first.modality_config)
    missing = [name for name in sorted(report["missing_keys"]) if needs_pooler or not name.startswith("pooler.")]
    if missing:
        raise InvalidTeacher(
            f"{folder}: {len(missing)} weights are missing from its files, first {missing[0]}; the folder is damaged, "
            "or its weights are those of another model"
        )
