"""New texts near given ones, neither copies nor unrelated: Agora's transformation τ.

A point is an example of which one text was changed: a single text, one side of a pair, of multiple choice the context
or one of the choices (never the question), of a cloze the passage. Four methods make the new text:

- `edits`: words are deleted, swapped with their neighbour, or (one at most) doubled; needs nothing.
- `infilling`: words are masked and filled in by a masked language model: any folder with that head, such as a student
  pretrained with `mlm`.
- `nearest`: the nearest texts of a corpus, by the sentence encoder. Not for texts with marked words.
- `re-pairing`: of a pair of texts, the nearest ones that stand on the same side of another pair.

A text is kept if its similarity to the original lies inside a band and if no split, the held-out one included, has the
same text (`text.read.identity`); what re-pairing makes, if no split has the same pair. The words that a question is
about (`* so *` and `# so #`, the entities of a cloze) stay unchanged.

The band has its own scale, so that one default serves all encoders: 0 is the median similarity of unrelated texts of
the task (some encoders give them cosines of 0.8), 1 is equality. Scale and methods are our choice: the paper only asks
for points that are "similar but neither copies nor far", and its code was never released.

Everything random depends only on the seed, the iteration and the id of the mistake.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice, pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from subarch.errors import InvalidConfig, InvalidTeacher
from subarch.tasks import Example, Examples, Task
from subarch.text.masking import CONTINUES, STARTS
from subarch.text.read import hash64, identity, read

if TYPE_CHECKING:
    from subarch.models.teacher import Teacher

Floats = NDArray[np.float32]

BAND = (0.5, 0.98)
"""By all-MiniLM-L6-v2 on six tasks (docs/agora.md), 99 % of unrelated pairs are below 0.46, and half of the word-level
edits are above 0.98: the encoder does not notice them."""

CORPUS_LIMIT = 50_000
"""At most this many texts of a corpus are embedded: 77 MB at a width of 384."""

EDITED = 0.1
"""Share of the words that are edited, at least one."""

REPAIRING = "re-pairing"

HIDDEN = 0.15
"""Share of the words that are masked, at least one: what masked language models are trained with."""

LIKELIEST = 10
"""A word is drawn from this many of the likeliest, a neighbour from this many of the nearest."""

_PAIRS = 256  # unrelated pairs whose median similarity is the zero of the scale
_ROWS = 256  # drafts compared with a corpus at a time
_SPAN = re.compile(r"\* .+? \*|# .+? #", re.DOTALL)
_WORD = re.compile(r"\w(?:[\w'’-]*\w)?")


@dataclass(frozen=True, slots=True)
class Draft:
    """The text at a slot, to be changed. What matches `locked` stays; all randomness comes from `random`."""

    text: str
    locked: re.Pattern[str] | None
    random: np.random.Generator
    slot: int = 0


Method = Callable[[Sequence[Draft]], list[str | None]]
"""A new text for each draft, or None if the method has none. It must not matter which other drafts are in the call."""

Similarity = Callable[[Sequence[str], Sequence[str]], Floats]
"""(n,) similarities of n pairs of texts; 1 for equal texts, which is the maximum."""


@dataclass(frozen=True, slots=True)
class Point:
    """A new example without label, the id of its origin, the method that made it, and their similarity (see above).

    `partner`: id of the example whose side it has, where it is paired anew.
    """

    example: Example
    origin: str
    method: str
    similarity: float
    partner: str | None = None


@dataclass(frozen=True, slots=True)
class Made:
    """The points that were kept, and the number that was dropped by reason."""

    points: tuple[Point, ...]
    dropped: dict[str, int]


class Neighbourhood:
    """τ: mistakes -> points. `known` are all splits; pairs of unrelated texts are drawn from the first.

    At most `each` points per mistake are kept of twice as many drafts; the methods take turns.

    Raises:
        InvalidConfig: an invalid band, no method, no split, or `each` below 1.
    """

    def __init__(
        self,
        known: Sequence[Examples],
        methods: dict[str, Method],
        similarity: Similarity,
        *,
        each: int = 4,
        seed: int = 0,
        band: tuple[float, float] = BAND,
    ) -> None:
        if not 0 <= band[0] < band[1] <= 1:
            raise InvalidConfig(f"band: {band} is invalid; give two similarities with 0 <= least < greatest <= 1")
        if not methods or not known or each < 1:
            raise InvalidConfig("new points need at least one method, one split to compare with and one point each")
        self._methods, self._similarity, self._each, self._seed, self._band = methods, similarity, each, seed, band
        self._known = frozenset(chain.from_iterable(map(identities, known)))
        self._inputs = frozenset(chain.from_iterable(map(inputs_of, known)))
        self._sides = sides_of(known) if REPAIRING in methods else ()
        texts = [text for example in known[0] for text in example.texts[:1]]
        ones, others = np.random.default_rng(seed).integers(0, len(texts), (2, _PAIRS))
        apart = [(texts[a], texts[b]) for a, b in zip(ones, others, strict=True) if texts[a] != texts[b]]
        self.unrelated = float(np.median(similarity(*zip(*apart, strict=True)))) if apart else 0.0

    @classmethod
    def load(
        cls,
        known: Sequence[Examples],
        *,
        encoder: Path | None = None,
        masked_lm: Path | None = None,
        corpus: Sequence[str | Path] = (),
        re_pair: bool = False,
        cache: Path | None = None,
        each: int = 4,
        seed: int = 0,
        band: tuple[float, float] = BAND,
    ) -> Neighbourhood:
        """Word edits always, infilling if there is a `masked_lm`, nearest texts if there is a `corpus`.

        With `re_pair` also sides of other pairs: of the first split, if no other has the text.

        Similarity is the cosine of the embeddings of `encoder`; without an encoder it is the overlap of words. The
        embeddings of the corpus are cached in the folder `cache`.

        Raises:
            InvalidTeacher: a model cannot be loaded, or `masked_lm` has no masked-LM head or mask token.
            InvalidCorpus: the corpus cannot be read.
            InvalidConfig: a corpus or `re_pair` without an encoder, or the latter without pairs; see also the class.
        """
        from subarch.models.teacher import Teacher

        methods: dict[str, Method] = {"edits": lambda drafts: [edited(draft) for draft in drafts]}
        if masked_lm:
            methods["infilling"] = Infilling(Teacher.load(masked_lm))
        if not encoder:
            if corpus:
                raise InvalidConfig("a corpus of neighbours needs a sentence encoder, to find near texts; name one")
            if re_pair:
                raise InvalidConfig("re_pair needs a sentence encoder, to find the nearest sides of pairs; name one")
            return cls(known, methods, overlap, each=each, seed=seed, band=band)
        embedding = Embedding(Teacher.load(encoder), cache)
        if corpus:
            methods["nearest"] = Nearest([document.text for document in islice(read(corpus), CORPUS_LIMIT)], embedding)
        if re_pair:
            methods[REPAIRING] = Repairing(sides_of(known), embedding)
        return cls(known, methods, embedding.cosine, each=each, seed=seed, band=band)

    def __call__(self, mistakes: Examples, data: Examples, iteration: int) -> Made:
        """Points near the mistakes whose changed texts are neither in `data` (𝒟 as it has grown) nor in any split."""
        drafts = list(self._drafts(mistakes, iteration))
        texts = self._changed([(method, draft) for _, _, method, draft in drafts])
        pairs = [(draft.text, text or draft.text) for (*_, draft), text in zip(drafts, texts, strict=True)]
        near = self._similarity(*zip(*pairs, strict=True)) if pairs else np.zeros(0, np.float32)
        scaled = (near - self.unrelated) / max(1 - self.unrelated, 1e-6)
        taken = set(chain(identities(data), identities(mistakes))) | self._known
        inputs = set(chain(inputs_of(data), inputs_of(mistakes))) | self._inputs
        points: list[Point] = []
        kept, dropped = Counter[str](), Counter[str]()
        for (origin, slot, method, draft), text, similarity in zip(drafts, texts, scaled, strict=True):
            if kept[origin.id] == self._each:
                continue
            example = _with_text(origin, slot, text or "", f"agora-{iteration}-{len(points)}")
            is_known = input_of(example) in inputs if method == REPAIRING else identity(text or "") in taken
            if reason := self._objection(draft, text, similarity, is_known):
                dropped[reason] += 1
                continue
            assert text is not None  # None is an objection
            taken.add(identity(text))
            inputs.add(input_of(example))
            kept[origin.id] += 1
            partner = self._sides[slot][text] if method == REPAIRING else None
            points.append(Point(example, origin.id, method, round(float(similarity), 4), partner))
        return Made(tuple(points), dict(sorted(dropped.items())))

    def _drafts(self, mistakes: Examples, iteration: int) -> Iterator[tuple[Example, int, str, Draft]]:
        """(origin, slot, method, draft), twice as many as can be kept."""
        names = list(self._methods)
        for example in mistakes:
            slots, locked = slots_of(mistakes.task, example), locked_in(mistakes.task, example)
            for attempt in range(2 * self._each):
                random = np.random.default_rng([self._seed, iteration, hash64(example.id), attempt])
                slot = slots[random.integers(len(slots))]
                draft = Draft((*example.texts, *example.choices)[slot], locked, random, slot)
                yield example, slot, names[attempt % len(names)], draft

    def _changed(self, drafts: list[tuple[str, Draft]]) -> list[str | None]:
        """The new texts, in order. Each method gets all of its drafts at once, because models read them in batches."""
        rows: defaultdict[str, list[int]] = defaultdict(list)
        for row, (method, _) in enumerate(drafts):
            rows[method].append(row)
        texts: list[str | None] = [None] * len(drafts)
        for method, mine in rows.items():
            for row, text in zip(mine, self._methods[method]([drafts[row][1] for row in mine]), strict=True):
                texts[row] = text
        return texts

    def _objection(self, draft: Draft, text: str | None, similarity: float, is_known: bool) -> str | None:
        if text is None:
            return "none made"
        if draft.locked and draft.locked.findall(text) != draft.locked.findall(draft.text):
            return "marks lost"
        if is_known:
            return "known"
        least, greatest = self._band
        return "stranger" if similarity < least else "copy" if similarity > greatest else None


def identities(examples: Examples) -> Iterator[int]:
    return (identity(text) for example in examples for text in (*example.texts, *example.choices))


def input_of(example: Example) -> tuple[int, ...]:
    """Equal for examples of the same texts and choices."""
    return tuple(map(identity, (*example.texts, *example.choices)))


def inputs_of(examples: Examples) -> Iterator[tuple[int, ...]]:
    return map(input_of, examples)


def sides_of(known: Sequence[Examples]) -> tuple[dict[str, str], dict[str, str]]:
    """The texts on each side of the pairs of the first split, with the id of the pair.

    Without those that are in another split, or more than once in their own: with a text, its pair can be held out.

    Raises:
        InvalidConfig: the examples are no pairs of texts.
    """
    train = known[0]
    if train.task.head == "choice" or any(len(example.texts) != 2 for example in train):
        raise InvalidConfig(f"{train.source}: re_pair exchanges sides of pairs, and these are none; leave it out")
    counts = Counter(chain.from_iterable(map(identities, known)))
    first, second = (
        {example.texts[slot]: example.id for example in train if counts[identity(example.texts[slot])] == 1}
        for slot in (0, 1)
    )
    return first, second


def slots_of(task: Task, example: Example) -> list[int]:
    """Positions, counted over texts and then choices, that may be changed."""
    if task.head != "choice":
        return list(range(len(example.texts)))
    first_choice = len(example.texts)
    return [0] if task.kind == "cloze" else [0, *range(first_choice, first_choice + len(example.choices))]


def locked_in(task: Task, example: Example) -> re.Pattern[str] | None:
    """What must stay: the marked words of span tasks, the entities of a cloze (longer first, as they may overlap)."""
    if task.kind == "span":
        return _SPAN
    if task.kind == "cloze":
        return re.compile("|".join(map(re.escape, sorted(set(example.choices), key=lambda name: (-len(name), name)))))
    return None


def _with_text(origin: Example, slot: int, text: str, name: str) -> Example:
    """The origin, in its group, with one text changed and without label."""
    parts = [*origin.texts, *origin.choices]
    parts[slot] = text
    count = len(origin.texts)
    return replace(origin, id=name, texts=tuple(parts[:count]), choices=tuple(parts[count:]), label=None, golds=())


def edited(draft: Draft) -> str | None:
    """The text with a tenth of its words deleted, swapped or doubled; None if fewer than three words may change.

    Punctuation stays with its word, white space is collapsed. At most one word is doubled.
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
    """Masks words and draws replacements from the likeliest words of a masked language model, never the original.

    All masks of a text are filled in one forward pass, independently. Only what the model reads of a text is changed.
    """

    def __init__(self, model: Teacher) -> None:
        if model.masked_lm is None or model.tokenizer.mask_token is None:
            raise InvalidTeacher(
                f"{model.folder}: infilling needs a masked-LM head and a mask token; name a masked language model"
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
            # truncation may have removed masks at the end: the words there stay
            words = [self._drawn(row, draft, span) for row, span in zip(scores.numpy(), spans, strict=False)]
            texts.append(_spliced(draft.text, spans[: len(words)], words) if words else None)
        return texts

    def _chosen(self, draft: Draft) -> list[tuple[int, int]]:
        """Spans of characters of the words to mask, ascending; not locked ones, nor any beyond what the model reads."""
        if self._tokenizer.mask_token in draft.text:
            return []  # a mask in the text itself could not be told from ours
        cut = {"add_special_tokens": False, "truncation": True, "max_length": self._length - 2}
        read = self._tokenizer(draft.text, return_offsets_mapping=True, **cut)["offset_mapping"]
        locked = [match.span() for match in draft.locked.finditer(draft.text)] if draft.locked else []
        words = [match.span() for match in _WORD.finditer(draft.text, 0, read[-1][1] if read else 0)]
        free = [word for word in words if all(word[1] <= start or word[0] >= end for start, end in locked)]
        if not free:
            return []
        count = max(1, round(HIDDEN * len(free)))
        return [free[at] for at in sorted(draft.random.choice(len(free), count, replace=False))]

    def _drawn(self, logits: Floats, draft: Draft, span: tuple[int, int]) -> str:
        """One of the likeliest words, drawn by probability; capitalised if the word it replaces is."""
        old = draft.text[slice(*span)]
        scores = np.where(self._folded == old.lower(), -np.inf, logits.astype(np.float64))
        best = np.argsort(-scores, kind="stable")[:LIKELIEST]
        weights = np.exp(scores[best] - scores[best[0]])
        word = str(self._words[draft.random.choice(best, p=weights / weights.sum())])
        return word[0].upper() + word[1:] if old[0].isupper() else word


def _spliced(text: str, spans: Sequence[tuple[int, int]], words: Sequence[str]) -> str:
    """The text with each span of characters (ascending) replaced by a word."""
    for (start, end), word in zip(reversed(spans), reversed(words), strict=True):
        text = text[:start] + word + text[end:]
    return text


def _whole_words(tokenizer: Any) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
    """Ids and texts of the tokens that are whole words: no pieces of words, no punctuation, no special tokens."""
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
    """Embeddings of length 1, by a sentence encoder or the mean of any encoder's outputs."""

    def __init__(self, encoder: Teacher, cache: Path | None = None) -> None:
        self._encoder, self._cache = encoder, cache

    def __call__(self, texts: Sequence[str]) -> Floats:
        """(n, H) float32; equal texts are embedded once."""
        distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        tokens = self._encoder.tokenizer(list(distinct), add_special_tokens=False, verbose=False)["input_ids"]
        vectors = self._encoder.embed(tokens).numpy()
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        found: Floats = vectors[[distinct[text] for text in texts]]
        return found

    def kept(self, texts: Sequence[str]) -> Floats:
        """The same, cached on disk if there is a cache folder."""
        import torch

        from subarch.learning.targets import TargetCache

        if self._cache is None:
            return self(texts)
        cache = TargetCache(self._cache, self._encoder.fingerprint, f"{hash64(chr(0).join(texts)):016x}")
        found: Floats = cache.get(("unit embedding",), lambda: torch.from_numpy(self(texts))).numpy()
        return found

    def cosine(self, ones: Sequence[str], others: Sequence[str]) -> Floats:
        both = self([*ones, *others])
        found: Floats = (both[: len(ones)] * both[len(ones) :]).sum(1)
        return found


class Nearest:
    """Draws one of the nearest texts of a corpus; none for texts with locked words."""

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


class Repairing:
    """Draws one of the nearest texts on the same side of other pairs (`sides_of`)."""

    def __init__(self, sides: Sequence[dict[str, str]], embedding: Embedding) -> None:
        self._nearest = [Nearest(list(side), embedding) if side else None for side in sides]

    def __call__(self, drafts: Sequence[Draft]) -> list[str | None]:
        found: list[str | None] = [None] * len(drafts)
        for slot, nearest in enumerate(self._nearest):
            if nearest is None:  # such as queries, each of which is in several pairs
                continue
            rows = [row for row, draft in enumerate(drafts) if draft.slot == slot]
            for row, text in zip(rows, nearest([drafts[row] for row in rows]), strict=True):
                found[row] = text
        return found


def overlap(ones: Sequence[str], others: Sequence[str]) -> Floats:
    """(n,) Dice coefficients of the words and word bigrams of n pairs of texts, ignoring case and white space.

    The bigrams make it notice swapped words.
    """

    def grams(text: str) -> Counter[str]:
        words = text.casefold().split()
        return Counter([*words, *(f"{one} {following}" for one, following in pairwise(words))])

    found = []
    for one, other in zip(map(grams, ones), map(grams, others), strict=True):
        size = one.total() + other.total()
        found.append(2 * (one & other).total() / size if size else 1.0)
    return np.array(found, np.float32)
