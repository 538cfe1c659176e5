"""Ways to change a text a little, and to say how little: what Agora's transformation τ is made of (`neighbours.py`).

- `edited`: words deleted, swapped with their neighbour, or (one at most) doubled; needs nothing.
- `Infilling`: words hidden and filled in by a masked language model.
- `Nearest`: the nearest texts of a corpus, by a sentence encoder.
- `overlap`, `Embedding.cosine`: the similarity of two texts, from their words or from an encoder.

Each way takes drafts, many at a time, and draws only from the generator of each draft: what becomes of one does not
depend on which others are there.

    >>> edited(Draft("the film is long and rather dull", None, np.random.default_rng(1)))
    'the film long and rather dull'
    >>> overlap(["the film is dull"], ["the film is long"])
    array([0.71428573], dtype=float32)
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from subarch.errors import InvalidTeacher
from subarch.text.masking import CONTINUES, STARTS
from subarch.text.read import hash64

if TYPE_CHECKING:
    from subarch.models.teacher import Teacher

Floats = NDArray[np.float32]

EDITED = 0.1
"""Share of the words that are edited, at least one: of a sentence of ten words the least that changes it."""

HIDDEN = 0.15
"""Share of the words that are infilled, at least one: what masked language models are trained to bear."""

LIKELIEST = 10
"""A word is drawn from so many of the likeliest, and a neighbour from so many of the nearest."""

_ROWS = 256  # drafts compared with a corpus at a time
_WORD = re.compile(r"\w(?:[\w'’-]*\w)?")


@dataclass(frozen=True, slots=True)
class Draft:
    """A text to be changed: what matches `locked` stays; all that is drawn is drawn from `random`."""

    text: str
    locked: re.Pattern[str] | None
    random: np.random.Generator


Method = Callable[[Sequence[Draft]], list[str | None]]
"""A new text for each draft, or None where the method has none."""

Similarity = Callable[[Sequence[str], Sequence[str]], Floats]
"""(n,) similarities of texts taken pairwise; at most 1, which equal texts have."""


def edited(draft: Draft) -> str | None:
    """The text with a tenth of its words deleted, swapped or doubled; None where fewer than three words are free.

    Punctuation goes with its word, runs of white space become a space. One word at most is doubled: that is noise,
    which a text can bear once.
    """
    locked = f"{draft.locked.pattern}|" if draft.locked else ""
    words = [match.group() for match in re.finditer(rf"(?:{locked}\S)+", draft.text, re.DOTALL)]
    is_free = [draft.locked is None or not draft.locked.search(word) for word in words]
    ways = ["delete", "swap", "double"]
    for _ in range(max(1, round(EDITED * sum(is_free)))):
        free = np.flatnonzero(is_free)
        if len(free) < 3:
            return None
        way = ways[draft.random.integers(len(ways))]
        at = int(draft.random.choice(free))
        if way == "delete":
            del words[at], is_free[at]
        elif way == "double":
            words.insert(at, words[at])
            is_free.insert(at, True)
            ways.remove("double")
        elif at + 1 < len(words) and is_free[at + 1]:  # the last word, and one before a locked one, stay
            words[at : at + 2] = words[at + 1], words[at]
    return " ".join(words)


class Infilling:
    """Hides words and has a masked language model fill them in: one of its likeliest words, never the one hidden.

    The words of a text are filled in from one reading, each by itself. Of a text that is longer than the model reads,
    only the part that it reads is changed.

    Raises:
        InvalidTeacher: the model has no masked-LM head, or its tokenizer no mask token.
    """

    def __init__(self, model: Teacher) -> None:
        if model.masked_lm is None or model.tokenizer.mask_token is None:
            raise InvalidTeacher(
                f"{model.folder}: has no masked-LM head, or its tokenizer no mask token, which infilling needs; "
                "name a masked language model, or leave infilling out"
            )
        self._model = model
        self._tokenizer = model.tokenizer
        self._length = model.recipe.max_length
        self._ids, self._words = _whole_words(model.tokenizer)
        self._folded = np.char.lower(self._words)

    def __call__(self, drafts: Sequence[Draft]) -> list[str | None]:
        from subarch.models.teacher import BATCH

        texts: list[str | None] = []
        for start in range(0, len(drafts), BATCH):
            texts += self._filled(drafts[start : start + BATCH])
        return texts

    def _filled(self, drafts: Sequence[Draft]) -> list[str | None]:
        import torch

        mask = self._tokenizer.mask_token
        chosen = [self._chosen(draft) for draft in drafts]
        hidden = [_spliced(draft.text, spans, [mask] * len(spans)) for draft, spans in zip(drafts, chosen, strict=True)]
        batch = self._tokenizer(hidden, truncation=True, max_length=self._length, padding=True, return_tensors="pt")
        is_hidden = batch["input_ids"] == self._tokenizer.mask_token_id
        with torch.inference_mode():
            states = self._model.encoder(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]
            ).last_hidden_state
            logits = self._model.head(states[is_hidden])[:, torch.from_numpy(self._ids)]
        texts: list[str | None] = []
        for draft, spans, scores in zip(drafts, chosen, logits.split(is_hidden.sum(1).tolist()), strict=True):
            # fewer scores than words where cutting took a mask away: the words there stay
            words = [self._drawn(row, draft, span) for row, span in zip(scores.numpy(), spans, strict=False)]
            texts.append(_spliced(draft.text, spans[: len(words)], words) if words else None)
        return texts

    def _chosen(self, draft: Draft) -> list[tuple[int, int]]:
        """Characters (from, to) of the words to hide, ascending; none locked, or beyond what the model reads."""
        if self._tokenizer.mask_token in draft.text:
            return []  # a mask of the text's own could not be told from ours
        read = self._tokenizer(
            draft.text,
            add_special_tokens=False,
            truncation=True,
            max_length=self._length - 2,
            return_offsets_mapping=True,
        )["offset_mapping"]
        locked = [match.span() for match in draft.locked.finditer(draft.text)] if draft.locked else []
        words = [match.span() for match in _WORD.finditer(draft.text, 0, read[-1][1] if read else 0)]
        free = [word for word in words if all(word[1] <= start or word[0] >= end for start, end in locked)]
        if not free:
            return []
        count = max(1, round(HIDDEN * len(free)))
        return [free[at] for at in sorted(draft.random.choice(len(free), count, replace=False))]

    def _drawn(self, logits: Floats, draft: Draft, span: tuple[int, int]) -> str:
        """One of the likeliest words, by its probability among them; with the capital of the word it replaces."""
        old = draft.text[slice(*span)]
        scores = np.where(self._folded == old.lower(), -np.inf, logits.astype(np.float64))
        best = np.argsort(-scores, kind="stable")[:LIKELIEST]
        weights = np.exp(scores[best] - scores[best[0]])
        word = str(self._words[draft.random.choice(best, p=weights / weights.sum())])
        return word[0].upper() + word[1:] if old[0].isupper() else word


def _spliced(text: str, spans: Sequence[tuple[int, int]], words: Sequence[str]) -> str:
    """The text with the characters of each span, ascending, replaced by a word."""
    for (start, end), word in zip(reversed(spans), reversed(words), strict=True):
        text = text[:start] + word + text[end:]
    return text


def _whole_words(tokenizer: Any) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
    """Ids, and the words, of the tokens that are words by themselves: no piece of one, no punctuation, not special."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    is_start_marked = sum(token.startswith(STARTS) for token in vocabulary) > sum(
        token.startswith(CONTINUES) for token in vocabulary
    )
    starts = sorted(number for token, number in vocabulary.items() if not is_start_marked or token.startswith(STARTS))
    ids = [number for number in starts if number not in set(tokenizer.all_special_ids)]
    words = [word.strip() for word in tokenizer.batch_decode([[number] for number in ids])]
    is_word = [_WORD.fullmatch(word) is not None for word in words]
    return np.array(ids, np.int64)[is_word], np.array(words)[is_word]


class Embedding:
    """Unit embeddings of texts, by a sentence encoder or the mean of any encoder's outputs."""

    def __init__(self, encoder: Teacher, cache: Path | None = None) -> None:
        self._encoder, self._cache = encoder, cache

    def __call__(self, texts: Sequence[str]) -> Floats:
        """(n, H) float32; equal texts are read once."""
        distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        tokens = self._encoder.tokenizer(list(distinct), add_special_tokens=False, verbose=False)["input_ids"]
        vectors = self._encoder.embed(tokens).numpy()
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        found: Floats = vectors[[distinct[text] for text in texts]]
        return found

    def kept(self, texts: Sequence[str]) -> Floats:
        """The same, kept in the cache's folder, where there is one."""
        from subarch.models.teacher import cached

        if self._cache is None:
            return self(texts)
        key = f"unit embeddings 1 {self._encoder.fingerprint} {hash64(chr(0).join(texts))}"
        return cached(self._cache, key, lambda: self(texts))

    def cosine(self, ones: Sequence[str], others: Sequence[str]) -> Floats:
        """(n,) cosines of texts taken pairwise."""
        both = self([*ones, *others])
        found: Floats = (both[: len(ones)] * both[len(ones) :]).sum(1)
        return found


class Nearest:
    """One of the nearest texts of a corpus; none where a text has words that must stay."""

    def __init__(self, texts: Sequence[str], embedding: Embedding) -> None:
        self._texts, self._embedding = texts, embedding
        self._vectors = embedding.kept(texts)

    def __call__(self, drafts: Sequence[Draft]) -> list[str | None]:
        found: list[str | None] = []
        for start in range(0, len(drafts), _ROWS):
            rows = drafts[start : start + _ROWS]
            near = self._embedding([draft.text for draft in rows]) @ self._vectors.T
            best = np.argsort(-near, axis=1, kind="stable")[:, :LIKELIEST]
            found += [
                None if draft.locked else self._texts[draft.random.choice(ranked)]
                for draft, ranked in zip(rows, best, strict=True)
            ]
        return found


def overlap(ones: Sequence[str], others: Sequence[str]) -> Floats:
    """(n,) shares of the words and of the pairs of neighbouring words that two texts have in common (Dice).

    The pairs make it see an exchange of words. White space and case make no difference.
    """
    return np.array([_dice(_grams(one), _grams(other)) for one, other in zip(ones, others, strict=True)], np.float32)


def _grams(text: str) -> Counter[str]:
    words = text.casefold().split()
    return Counter([*words, *(f"{one} {next_}" for one, next_ in pairwise(words))])


def _dice(one: Counter[str], other: Counter[str]) -> float:
    size = one.total() + other.total()
    return 2 * (one & other).total() / size if size else 1.0
