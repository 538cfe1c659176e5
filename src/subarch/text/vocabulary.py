"""A tokenizer cut to the V tokens that a corpus needs most: a stock fast tokenizer, made of a larger one.

Whatever V is, special tokens stay, those that users added, and every single character that the corpus has (of a
tokenizer of bytes every byte), so that text is written with more tokens and not lost. Of the others that token goes
first whose absence costs the corpus least: what it stood for is then written with its pieces, whose use rises by its
own. So tokens that the corpus does not use itself stay as long as they may become pieces, and go at the end.

What an absence costs, for each time that a token is used:

- WordPiece takes the longest piece that fits, from the left: the pieces that stand in for a token, less one.
- BPE builds a token out of two others: one. A token goes only after all those that are built of it, so what is kept is
  closed under merges.
- Unigram takes the likeliest pieces: the log-likelihood that is lost by the next best ones.

A token that cannot be written with others goes after all that can. (Costs add up over tokens as if each was replaced by
itself; that is exact but for words whose pieces across two tokens change too.)

    >>> counts = usage(tokenizer, texts)
    >>> pruned = prune(tokenizer, counts, 8000)
    >>> table[pruned.kept]                             # the rows of its tokens, in their new order
    >>> stock_tokenizer(fast, pruned).save_pretrained("folder")
"""

from __future__ import annotations

import copy
import heapq
import json
import math
import re
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from subarch.errors import InvalidCorpus, InvalidVocabulary
from subarch.text.corpus import Corpus, plain

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

_TEXTS = 1000
"""Texts that are tokenised at once."""
MOST_UNWRITTEN = 0.1
"""Share of tokens that stand for no character, or for a part of one, from which a tokenizer does not fit a script."""
_BYTE = re.compile("<0x[0-9A-F]{2}>")
_UNKNOWN_PENALTY = 10.0
"""By which an unknown character is less likely than the least likely token, in the tokenizers library."""


@dataclass(frozen=True)
class Pruned:
    """A tokenizer of fewer tokens. `kept`: (V,) ascending, the old id of each token by its new id."""

    tokenizer: Tokenizer
    kept: NDArray[np.int64]

    def renumbered(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings of a configuration with the new ids of tokens, in its keys `..._token_id`; None for lost tokens."""
        new = {int(old): number for number, old in enumerate(self.kept)}

        def mapped(ids: Any) -> Any:
            return [new.get(token) for token in ids] if isinstance(ids, list) else new.get(ids)

        return {name: mapped(value) if name.endswith("_token_id") else value for name, value in settings.items()}


def usage(tokenizer: Tokenizer, texts: Iterable[str]) -> NDArray[np.int64]:
    """(highest id + 1,) how often each token occurs in the texts, without those that a template adds."""
    reader = plain(_fast(tokenizer))
    counts = np.zeros(1 + max(reader.get_vocab(with_added_tokens=True).values()), np.int64)
    texts = iter(texts)
    while batch := list(islice(texts, _TEXTS)):
        found = chain.from_iterable(one.ids for one in reader.encode_batch_fast(batch, add_special_tokens=False))
        counts += np.bincount(np.fromiter(found, np.int64), minlength=len(counts))
    return counts


def sizes(tokenizer: Tokenizer, counts: NDArray[Any]) -> tuple[int, int]:
    """The least size of a vocabulary for a corpus of these counts, and the largest of which every token is used.

    Raises:
        InvalidVocabulary: see `prune`.
    """
    cut = _Cut(tokenizer, counts)
    return len(cut.base), len(cut.live)


def prune(tokenizer: Tokenizer, counts: NDArray[Any], size: int) -> Pruned:
    """The tokenizer with the `size` tokens that a corpus needs most; the same for the same input.

    Tokens keep their order. A size that is not below the tokenizer's own leaves it whole. Where the corpus uses fewer
    tokens than `size`, these are kept alone, and a warning says so.

    Args:
        counts: (highest id + 1,) how often the corpus uses each token, not negative: `usage`, or weighted sums of it.

    Raises:
        InvalidVocabulary: a slow tokenizer; another model than WordPiece, BPE or Unigram; counts of another tokenizer;
            a size below the least possible.
    """
    cut = _Cut(tokenizer, counts)
    if size >= len(cut.ids):
        kept = cut.ids
    elif size < len(cut.base):
        raise InvalidVocabulary(
            f"a vocabulary of {size} tokens is too small: {len(cut.base)} are kept whatever its size, of which "
            f"{len(cut.special)} are special or added and the others single characters of the corpus; ask for "
            f"{len(cut.base)} or more"
        )
    else:
        if size > len(cut.live):
            warnings.warn(
                f"the corpus uses {len(cut.live)} of the {len(cut.ids)} tokens, so the vocabulary has no more than "
                f"these ({size} were asked for)",
                stacklevel=2,
            )
        cut.shrink(size)
        kept = sorted(cut.live)
    return Pruned(cut.rebuilt(kept), np.array(kept, np.int64))


def stock_tokenizer(whole: PreTrainedTokenizerFast, pruned: Pruned) -> PreTrainedTokenizerFast:
    """The pruned tokenizer as an object of the stock class, with all other settings of the whole one."""
    made: PreTrainedTokenizerFast = copy.deepcopy(whole, {id(whole.backend_tokenizer): pruned.tokenizer})
    return made


def unwritten(tokenizer: Tokenizer, counts: NDArray[Any]) -> float:
    """The share of the tokens in use that are unknown, or a byte of a character that has no token of its own."""
    model = _model_of(json.loads(tokenizer.to_str()))
    lost = {token for token, name in model.names.items() if _BYTE.fullmatch(name)} if model.byte_fallback else set()
    if model.byte_level:
        from tokenizers.pre_tokenizers import ByteLevel

        # Bytes of ASCII are characters; those that cannot be printed begin the second page of Unicode
        lost |= {
            token
            for token, name in model.names.items()
            if name in ByteLevel.alphabet() and not name.isascii() and not 0x100 <= ord(name) <= 0x121
        }
    if model.unknown is not None:
        lost.add(model.unknown)
    return float(counts[sorted(lost)].sum() / max(counts.sum(), 1))


def _fast(tokenizer: Any) -> Tokenizer:
    from tokenizers import Tokenizer

    if not isinstance(tokenizer, Tokenizer):
        raise InvalidVocabulary(
            f"{type(tokenizer).__name__} is no fast tokenizer, so it cannot be cut; give the `backend_tokenizer` of one"
        )
    return tokenizer


def unwritten_by_language(corpus: Corpus, tokenizer: Any) -> dict[str, float]:
    """The share of `unwritten` tokens in a corpus read with this tokenizer, by language, as far as it names any."""
    backend, names = plain(tokenizer), list(corpus.meta.languages or ())
    counts = np.zeros((len(names), 1 + max(backend.get_vocab(with_added_tokens=True).values())), np.int64)
    for part in (corpus.train, corpus.heldout):
        for number, row in enumerate(counts):
            assert part.languages is not None
            row += np.bincount(part.tokens[np.repeat(part.languages, part.size) == number], minlength=len(row))
    return {name: unwritten(backend, row) for name, row in zip(names, counts, strict=True)}


def check_written(shares: Mapping[str, float], before: Mapping[str, float] | None = None) -> None:
    """Refuse languages that a tokenizer cannot write; shares as `unwritten_by_language` gives them.

    Args:
        before: those of the whole tokenizer, where this one is cut.

    Raises:
        InvalidCorpus: a share is above `MOST_UNWRITTEN`.
    """
    for language, share in shares.items():
        if share > MOST_UNWRITTEN:
            whole = "" if before is None else f", and {before[language]:.1%} with its whole vocabulary"
            remedy = "keep more tokens, or " if before is not None and before[language] <= MOST_UNWRITTEN else ""
            raise InvalidCorpus(
                f"language {language!r} cannot be written by the tokenizer: {share:.1%} of its tokens are unknown or "
                f"single bytes of characters{whole} (at most {MOST_UNWRITTEN:.0%} are taken); {remedy}start from an "
                "encoder of a tokenizer for this script"
            )


class _Model(ABC):
    """The tokens of a model by id, and what stands in for one.

    `alive`: those that are still there. `pillars`: those without which text would be read otherwise.
    """

    prefix = suffix = ""

    def __init__(self, state: dict[str, Any]) -> None:
        model = state["model"]
        vocabulary = model["vocab"]
        self.names: dict[int, str] = (
            {token: name for token, (name, _) in enumerate(vocabulary)}
            if isinstance(vocabulary, list)
            else {token: name for name, token in vocabulary.items()}
        )
        self.ids = {name: token for token, name in self.names.items()}
        self.alive = set(self.names)
        self.byte_fallback = bool(model.get("byte_fallback"))
        self.byte_level = any('"ByteLevel"' in json.dumps(state[part]) for part in ("normalizer", "pre_tokenizer"))
        self.unknown: int | None = self.ids.get(model.get("unk_token"))
        self.pillars: set[int] = set()

    def bare(self, token: int) -> str:
        """The characters that a token stands for, without the marks of where in a word it is."""
        name = self.names[token]
        name = name[len(self.prefix) :] if self.continues(name) else name
        return name[: -len(self.suffix)] if self.ends(name) else name

    def continues(self, name: str) -> bool:
        return bool(self.prefix) and name.startswith(self.prefix) and len(name) > len(self.prefix)

    def ends(self, name: str) -> bool:
        return bool(self.suffix) and name.endswith(self.suffix) and len(name) > len(self.suffix)

    @abstractmethod
    def pieces(self, token: int) -> tuple[float, Sequence[int]]:
        """What the absence of a token costs each time that it is used, and the tokens that stand in for it."""

    def complete(self, tokens: set[int], fixed: set[int]) -> set[int]:
        """These tokens with all that they are built of; `fixed` ones are not built."""
        return tokens

    def is_needed(self, token: int) -> bool:
        """Whether another token is built of it."""
        return False

    def remove(self, token: int) -> Iterable[int]:
        """Remove a token; those of which nothing else is built any more."""
        self.alive.remove(token)
        return ()

    def without(self, model: dict[str, Any], new: dict[int, int]) -> None:
        """Leave in the state of the model the tokens alone that have a new id."""
        model["vocab"] = {name: new[token] for name, token in model["vocab"].items() if token in new}


class _WordPiece(_Model):
    def __init__(self, state: dict[str, Any]) -> None:
        super().__init__(state)
        self.prefix = state["model"]["continuing_subword_prefix"]

    def pieces(self, token: int) -> tuple[float, Sequence[int]]:
        text, inside = self.bare(token), self.continues(self.names[token])
        found: list[int] = []
        first = 0
        while first < len(text):
            mark = self.prefix if inside or first else ""
            for last in range(len(text), first, -1):
                piece = self.ids.get(mark + text[first:last])
                if piece is not None and piece != token and piece in self.alive:
                    break
            else:
                return 1.0, [self.unknown] if self.unknown is not None else []
            found.append(piece)
            first = last
        return len(found) - 1.0, found


class _BPE(_Model):
    def __init__(self, state: dict[str, Any]) -> None:
        super().__init__(state)
        model = state["model"]
        self.prefix = model["continuing_subword_prefix"] or ""
        self.suffix = model["end_of_word_suffix"] or ""
        self.ranks = {(left, right): rank for rank, (left, right) in enumerate(model["merges"])}
        self.parts: dict[int, list[int]] = {}
        self.users: dict[int, int] = {}

    def pieces(self, token: int) -> tuple[float, Sequence[int]]:
        parts = self.parts[token]
        return max(len(parts) - 1.0, 1.0), parts

    def complete(self, tokens: set[int], fixed: set[int]) -> set[int]:
        found, left = set(tokens), sorted(tokens - fixed)
        while left:
            token = left.pop()
            self.parts[token] = self._built_of(token)
            for part in set(self.parts[token]):
                self.users[part] = self.users.get(part, 0) + 1
                if part not in found:
                    found.add(part)
                    if part not in fixed:
                        left.append(part)
        return found

    def is_needed(self, token: int) -> bool:
        return self.users.get(token, 0) > 0

    def remove(self, token: int) -> Iterable[int]:
        super().remove(token)
        for part in set(self.parts[token]):
            self.users[part] -= 1
            if not self.users[part]:
                yield part

    def without(self, model: dict[str, Any], new: dict[int, int]) -> None:
        def stays(*names: str) -> bool:
            return all(self.ids[name] in new for name in names)

        merges = model["merges"]
        model["merges"] = [pair for pair in merges if stays(*pair, self._joined(*pair))]
        super().without(model, new)

    def _joined(self, left: str, right: str) -> str:
        return left + right[len(self.prefix) :]

    def _built_of(self, token: int) -> list[int]:
        """What the token's characters become just before they become the token; none for a single character."""
        name, text = self.names[token], self.bare(token)
        row = [*text[0], *(self.prefix + character for character in text[1:])]
        if self.continues(name):
            row[0] = self.prefix + row[0]
        if self.ends(name):
            row[-1] += self.suffix
        before: list[str] = []
        while len(row) > 1:
            pairs = enumerate(pairwise(row))
            rank, place = min((self.ranks.get(pair, math.inf), place) for place, pair in pairs)
            if rank == math.inf:
                break
            before = row
            row = [*row[:place], self._joined(row[place], row[place + 1]), *row[place + 2 :]]
        return [part for piece in (before if row == [name] else row) for part in self._tokens_of(piece)]

    def _tokens_of(self, name: str) -> list[int]:
        if name in self.ids:
            return [self.ids[name]]
        if self.byte_fallback:
            return [self.ids[code] for byte in name.encode() if (code := f"<0x{byte:02X}>") in self.ids]
        return [self.unknown] if self.unknown is not None else []


class _Unigram(_Model):
    def __init__(self, state: dict[str, Any]) -> None:
        super().__init__(state)
        self.scores = [score for _, score in state["model"]["vocab"]]
        self.longest = max(map(len, self.ids))
        self.unknown = state["model"]["unk_id"]
        self.unknown_score = min(self.scores) - _UNKNOWN_PENALTY
        self.pillars = {self.scores.index(min(self.scores))}  # which the score of an unknown character is counted from

    def pieces(self, token: int) -> tuple[float, Sequence[int]]:
        text, alive = self.names[token], self.alive
        best, last = [0.0] + [-math.inf] * len(text), [(0, self.unknown)] * (len(text) + 1)
        for first in range(len(text)):
            for end in range(first + 1, min(len(text), first + self.longest) + 1):
                piece = self.ids.get(text[first:end])
                if piece is None or piece == token or piece not in alive:
                    if end > first + 1:
                        continue
                    piece, score = self.unknown, self.unknown_score
                else:
                    score = self.scores[piece]
                if best[first] + score > best[end]:
                    best[end], last[end] = best[first] + score, (first, piece)
        found: list[int | None] = []
        end = len(text)
        while end:
            end, piece = last[end]
            found.append(piece)
        pieces = [piece for piece in found if piece is not None]
        return max(self.scores[token] - best[-1], 0.0), pieces if len(pieces) == len(found) else []

    def without(self, model: dict[str, Any], new: dict[int, int]) -> None:
        model["vocab"] = [entry for token, entry in enumerate(model["vocab"]) if token in new]


_MODELS: dict[str, type[_Model]] = {"WordPiece": _WordPiece, "BPE": _BPE, "Unigram": _Unigram}


def _model_of(state: dict[str, Any]) -> _Model:
    kind = state["model"]["type"]
    if kind not in _MODELS:
        raise InvalidVocabulary(
            f"a tokenizer of the model {kind} cannot be pruned, only those of {', '.join(_MODELS)}; keep its "
            "vocabulary whole"
        )
    return _MODELS[kind](state)


class _Cut:
    """Which tokens of a tokenizer stay.

    `ids` are all of them, ascending; `special` those that are named anywhere in it, `base` these and the single
    characters; `live` those that are in use, the base included.
    """

    def __init__(self, tokenizer: Tokenizer, counts: NDArray[Any]) -> None:
        self.whole = _fast(tokenizer)
        self.state: dict[str, Any] = json.loads(self.whole.to_str())
        self.model = _model_of(self.state)
        added = {entry["id"]: entry["content"] for entry in self.state["added_tokens"]}
        self.ids = sorted({*self.model.names, *added})
        if len(counts) != self.ids[-1] + 1:
            raise InvalidVocabulary(
                f"counts of {len(counts)} tokens are not of this tokenizer, whose highest id is {self.ids[-1]}; count "
                "with usage()"
            )
        self.special = {place[key] for place, key in _references(self.state)} & set(self.ids)
        if self.model.unknown is not None:
            self.special.add(self.model.unknown)
        self.counts: list[float] = counts.tolist()
        used = {token for token in self.model.names if self.counts[token]} - self.special
        self.base = self.special | self.model.pillars | self._alphabet(used)
        self.live = self.model.complete(used | self.base, self.base)

    def _alphabet(self, used: set[int]) -> set[int]:
        """The tokens that are one character of the tokens in use, wherever in a word; and those that are a byte."""
        model = self.model
        characters = set().union(*map(model.bare, used))
        if model.byte_level:
            from tokenizers.pre_tokenizers import ByteLevel

            characters |= set(ByteLevel.alphabet())
        found = {token for token in model.names if len(bare := model.bare(token)) == 1 and bare in characters}
        if model.byte_fallback:
            found |= {token for token, name in model.names.items() if _BYTE.fullmatch(name)}
        return found

    def shrink(self, size: int) -> None:
        """Remove tokens, the least needed first, until no more than `size` are in use."""
        model = self.model
        queue = [self._cost(token)[0] for token in sorted(self.live - self.base) if not model.is_needed(token)]
        heapq.heapify(queue)
        while len(self.live) > size:
            stored = heapq.heappop(queue)
            token = -stored[2]
            cost, pieces = self._cost(token)
            if cost > stored:  # its own use has risen since, or what would stand in for it has gone
                heapq.heappush(queue, cost)
                continue
            self.live.remove(token)
            for piece in pieces:
                self.counts[piece] += self.counts[token]
                if piece not in self.live:
                    self.live.add(piece)
                    heapq.heappush(queue, self._cost(piece)[0])
            for freed in model.remove(token):
                if freed not in self.base:
                    heapq.heappush(queue, self._cost(freed)[0])

    def _cost(self, token: int) -> tuple[tuple[bool, float, int], Sequence[int]]:
        """(whether text is lost, what it costs, minus the token), and what stands in for it."""
        each, pieces = self.model.pieces(token)
        is_lost = not pieces or self.model.unknown in pieces
        return (is_lost, each * self.counts[token], -token), pieces

    def rebuilt(self, kept: Sequence[int]) -> Tokenizer:
        """The tokenizer with these tokens, ascending, alone."""
        from tokenizers import Tokenizer

        new = {old: number for number, old in enumerate(kept)}
        self.model.without(self.state["model"], new)
        for place, key in _references(self.state):
            place[key] = new.get(place[key], place[key])
        self.state["added_tokens"] = sorted(self.state["added_tokens"], key=lambda entry: entry["id"])
        made = Tokenizer.from_str(json.dumps(self.state))
        vocabulary = self.whole.get_vocab(with_added_tokens=True)
        wanted = {name: new[token] for name, token in vocabulary.items() if token in new}
        if made.get_vocab(with_added_tokens=True) != wanted:
            raise InvalidVocabulary(
                "the tokenizer cannot be renumbered, since its added tokens take up ids within its vocabulary; save it "
                "with ids that follow each other, or keep its vocabulary whole"
            )
        return made


def _references(state: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    """Where else than in its model's vocabulary a tokenizer holds ids: (container, key)."""
    yield from ((entry, "id") for entry in state["added_tokens"])
    if state["padding"] is not None:
        yield state["padding"], "pad_id"
    if state["model"].get("unk_id") is not None:
        yield state["model"], "unk_id"
    processors = [state["post_processor"]] if state["post_processor"] is not None else []
    while processors:
        one = processors.pop()
        if one["type"] == "Sequence":
            processors += one["processors"]
        elif one["type"] == "TemplateProcessing":
            for special in one["special_tokens"].values():
                yield from ((special["ids"], place) for place in range(len(special["ids"])))
        elif one["type"] in ("BertProcessing", "RobertaProcessing"):
            yield one["sep"], 1
            yield one["cls"], 1
