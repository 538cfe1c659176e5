"""Parts of the start's vocabulary that students keep, and the run's corpus as they read it.

A run folder holds for each number of tokens V the folder vocabularies/V: the start's tokenizer cut to the V tokens that
the corpus needs most (`text.vocabulary`), as stock files; `kept.safetensors`, the old id of each new one; and for each
corpus of the run what it becomes. A vocabulary is made once and then stays as it is, also where the corpus is cut
otherwise later: weights that were trained with it are of no use with another.

    >>> reader = Reader.open(run / "vocabularies", start.tokenizer, corpus, "", 8000)
    >>> reader.kept[:3], len(reader.tokenizer)
    (array([  0, 100, 101]), 8000)
    >>> reader.read(corpus).heldout[0]                # of the same texts, in the same order
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file
from transformers import AutoTokenizer

from subarch.errors import InvalidArchitecture, InvalidStudy
from subarch.run.files import replaced, save_tensors, unreadable
from subarch.text.corpus import Corpus, Segments, plain
from subarch.text.vocabulary import Pruned, prune, sizes, stock_tokenizer

VOCABULARIES = "vocabularies"
"""Their folder in the run folder."""
TEXTS = 1000
"""Texts that are tokenised at once."""


@dataclass(frozen=True)
class Reader:
    """A tokenizer of V tokens; `kept` (V,) are their ids in the start's table, ascending.

    `origin` is a hash of the tokenizer that it was made of.
    """

    folder: Path
    tokenizer: Any
    kept: NDArray[np.int64]
    origin: torch.Tensor

    @classmethod
    def open(cls, folder: Path, whole: Any, corpus: Corpus, prefix: str, size: int) -> Reader:
        """The one of `folder`/V; made of the start's tokenizer and what the corpus, read with it, needs most.

        Args:
            prefix: a text that stands before every other.

        Raises:
            InvalidArchitecture: the corpus uses fewer tokens.
            InvalidVocabulary: see `text.vocabulary.prune`.
            InvalidStudy: it is there, and damaged or made of another tokenizer.
        """
        place, origin = folder / str(size), _digest(whole)
        folder.mkdir(exist_ok=True)
        with FileLock(folder / f".{size}.lock"):
            if not place.is_dir():
                counts = usage_of(corpus, whole, prefix)
                if size > (used := sizes(plain(whole), counts)[1]):
                    raise InvalidArchitecture(
                        f"a vocabulary of {size} tokens: the corpus uses {used} of the {len(whole)} that there are; "
                        f"ask for at most {used}, or for the whole vocabulary"
                    )
                made = prune(plain(whole), counts, size)
                with replaced(place) as partial:
                    stock_tokenizer(whole, made).save_pretrained(partial)
                    tensors = {"kept": torch.from_numpy(made.kept), "origin": origin}
                    save_tensors(tensors, partial / "kept.safetensors")
        found = cls.load(place)
        if not torch.equal(found.origin, origin):
            raise InvalidStudy(f"{place}: is of another tokenizer than what students start from; use a new run folder")
        return found

    @classmethod
    def load(cls, place: Path) -> Reader:
        """The one that a folder holds; InvalidStudy where it is damaged."""
        try:
            state = load_file(place / "kept.safetensors")
            tokenizer, kept = AutoTokenizer.from_pretrained(place), state["kept"].numpy()
            if len(tokenizer) > len(kept):
                raise ValueError(f"{len(tokenizer)} tokens with {len(kept)} rows")
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            problem = f"cannot be read ({error}); delete the folder to make it again"
            raise InvalidStudy(unreadable(place, error, problem)) from error
        return cls(place, tokenizer, kept, state["origin"])

    def renumbered(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Settings of a configuration with the ids of this tokenizer, see `Pruned.renumbered`."""
        return Pruned(self.tokenizer.backend_tokenizer, self.kept).renumbered(settings)

    def read(self, corpus: Corpus) -> Corpus:
        """A corpus that keeps its texts, as this tokenizer reads them; kept in the folder."""

        def part(name: str, segments: Segments) -> Segments:
            path = self.folder / f"{corpus.content_hash[:24]}-{name}.safetensors"
            with FileLock(self.folder / ".corpus.lock"):
                if not path.is_file():
                    save_tensors(self._tokens(segments), path)
            state = load_file(path)
            size = state["size"].numpy()
            return replace(segments, tokens=state["tokens"].numpy(), offset=np.cumsum(size) - size, size=size)

        return replace(corpus, train=part("train", corpus.train), heldout=part("heldout", corpus.heldout))

    def _tokens(self, segments: Segments) -> dict[str, torch.Tensor]:
        backend, tokens, size = plain(self.tokenizer), [], []
        assert segments.texts is not None
        for first in range(0, len(segments), TEXTS):
            texts = list(segments.texts[first : first + TEXTS])
            for encoding in backend.encode_batch_fast(texts, add_special_tokens=False):
                tokens.append(np.array(encoding.ids, np.int32))
                size.append(len(encoding.ids))
        return {"tokens": torch.from_numpy(np.concatenate(tokens)), "size": torch.tensor(size)}


def reader_of(run: Path, tokenizer: Any) -> Reader | None:
    """The vocabulary of a run that this is the tokenizer of; None: there is no such."""
    text = plain(tokenizer).to_str()
    readers = (Reader.load(place) for place in sorted((run / VOCABULARIES).glob("[0-9]*")))
    return next((one for one in readers if plain(one.tokenizer).to_str() == text), None)


def usage_of(corpus: Corpus, tokenizer: Any, prefix: str) -> NDArray[np.int64]:
    """(highest id + 1,) how often the training part of a corpus, built with this tokenizer, uses each token.

    The prefix counts once.
    """
    backend = plain(tokenizer)
    longest = 1 + max(backend.get_vocab(with_added_tokens=True).values())
    before = np.array(backend.encode(prefix, add_special_tokens=False).ids, np.int64)
    return np.bincount(corpus.train.tokens, minlength=longest) + np.bincount(before, minlength=longest)


def range_of(corpus: Corpus, tokenizer: Any, prefix: str) -> tuple[int, int]:
    """The least size of a vocabulary for a corpus, and the largest of which it uses every token."""
    return sizes(plain(tokenizer), usage_of(corpus, tokenizer, prefix))


def _digest(tokenizer: Any) -> torch.Tensor:
    """(32,) bytes that tell tokenizers apart by content."""
    return torch.frombuffer(bytearray(hashlib.sha256(plain(tokenizer).to_str().encode()).digest()), dtype=torch.uint8)
