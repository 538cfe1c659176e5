"""τ of Agora: new points near given ones, neither copies nor strangers.

A point is an example of which one text was changed: of one text that text, of a pair one side, of multiple choice the
context or a choice (never the question), of a cloze the passage. Three ways make the new text (`rewording.py`):

- `edits`: words deleted, swapped with their neighbour, or (one at most) doubled; needs nothing.
- `infilling`: words hidden and filled in by a masked language model: the user's, or a student that kept its head.
- `nearest`: the nearest texts of a corpus of the user's, by the sentence encoder. Not where words are marked.

What they make is kept if it lies inside a band of similarity to the text it came from, and is no text of any split,
the held-out ones included (`readers.identity`: case, punctuation and spacing do not make a difference). The words that
the question is about (`* so *` and `# so #`, a cloze's entities) stay as they are.

The band is on a scale of its own, so that one default serves all encoders: 0 is the median similarity of unrelated
texts of the task, 1 is equality. BERT-like encoders that were never trained on sentences put unrelated texts at
cosines of 0.8 and more, others near 0; nearer to the origin than half-way from a stranger is near for both. None of
this is the paper's word, which asks for points "similar but neither copies nor far" and was never released as code.

All is drawn by the seed, the iteration and the id of the mistake, and by nothing else: a call that is repeated gives
the same points.

    >>> tau = Neighbourhood.load([train, dev, held_out], encoder=Path("runs/mine/pretrained"))
    >>> made = tau(mistakes, train, iteration=1)
    >>> made.points[0].example.texts, made.points[0].similarity, made.dropped
    (('a gripping, funny and honest',), 0.93, {'copy': 3, 'known': 1})
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from pathlib import Path

import numpy as np

from subarch.errors import InvalidConfig
from subarch.finetuning.rewording import Draft, Embedding, Infilling, Method, Nearest, Similarity, edited, overlap
from subarch.tasks import Example, Examples, Task
from subarch.text.read import hash64, identity, read

BAND = (0.5, 0.98)
"""By all-MiniLM-L6-v2 on six tasks (docs/agora.md) 99 % of unrelated pairs are below 0.46, and half of the word-level
edits are above 0.98: to the encoder those are copies."""

CORPUS_LIMIT = 50_000
"""Texts of a corpus that are embedded: 77 MB at a width of 384."""

_PAIRS = 256  # unrelated pairs that the scale's zero is the median of
_SPAN = re.compile(r"\* .+? \*|# .+? #", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Point:
    """A new point: an example without label, the id of its origin, how it was made, and how near it is (see above)."""

    example: Example
    origin: str
    method: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Made:
    """The points that were kept, and how many were dropped for which reason."""

    points: tuple[Point, ...]
    dropped: dict[str, int]


class Neighbourhood:
    """τ: mistakes -> points. `known` are all splits; the first is where unrelated texts are drawn from.

    `each` points are kept per mistake, at most, out of twice as many drafts. The methods take turns.

    Raises:
        InvalidConfig: a band that is none, no method, no split, or a number of points below 1.
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
            raise InvalidConfig(f"band: {band} is none; give two similarities with 0 <= least < greatest <= 1")
        if not methods or not known or each < 1:
            raise InvalidConfig("new points need at least one method, one split to compare with, and one point each")
        self._methods, self._similarity, self._each, self._seed, self._band = methods, similarity, each, seed, band
        self._known = frozenset(chain.from_iterable(map(identities, known)))
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
        cache: Path | None = None,
        each: int = 4,
        seed: int = 0,
        band: tuple[float, float] = BAND,
    ) -> Neighbourhood:
        """With what is given: word edits always, infilling by `masked_lm`, nearest texts of a `corpus`.

        Similarity is the cosine of the embeddings of `encoder`, or the overlap of words where there is none. The
        corpus' embeddings are kept in the folder `cache`.

        Raises:
            InvalidTeacher: a model that cannot be loaded, or a masked LM without its head.
            InvalidCorpus: a corpus that cannot be read.
            InvalidConfig: a corpus without encoder; see also the class.
        """
        from subarch.models.teacher import Teacher

        methods: dict[str, Method] = {"edits": lambda drafts: [edited(draft) for draft in drafts]}
        if masked_lm:
            methods["infilling"] = Infilling(Teacher.load(masked_lm))
        if not encoder:
            if corpus:
                raise InvalidConfig("a corpus of neighbours needs a sentence encoder that says what is near; name one")
            return cls(known, methods, overlap, each=each, seed=seed, band=band)
        embedding = Embedding(Teacher.load(encoder), cache)
        if corpus:
            methods["nearest"] = Nearest([document.text for document in islice(read(corpus), CORPUS_LIMIT)], embedding)
        return cls(known, methods, embedding.cosine, each=each, seed=seed, band=band)

    def __call__(self, mistakes: Examples, data: Examples, iteration: int) -> Made:
        """Points near the mistakes whose changed texts stand neither in `data` (𝒟 as it has grown) nor in any split."""
        drafts = list(self._drafts(mistakes, iteration))
        texts = self._changed([(method, draft) for _, _, method, draft in drafts])
        pairs = [(draft.text, text or draft.text) for (*_, draft), text in zip(drafts, texts, strict=True)]
        near = self._similarity(*zip(*pairs, strict=True)) if pairs else np.zeros(0, np.float32)
        scaled = (near - self.unrelated) / max(1 - self.unrelated, 1e-6)
        taken = set(chain(identities(data), identities(mistakes))) | self._known
        points: list[Point] = []
        kept, dropped = Counter[str](), Counter[str]()
        for (origin, slot, method, draft), text, similarity in zip(drafts, texts, scaled, strict=True):
            if kept[origin.id] == self._each:
                continue
            if reason := self._objection(draft, text, similarity, taken):
                dropped[reason] += 1
                continue
            assert text is not None  # which is an objection
            taken.add(identity(text))
            kept[origin.id] += 1
            name = f"agora-{iteration}-{len(points)}"
            points.append(Point(_with_text(origin, slot, text, name), origin.id, method, round(float(similarity), 4)))
        return Made(tuple(points), dict(sorted(dropped.items())))

    def _drafts(self, mistakes: Examples, iteration: int) -> Iterator[tuple[Example, int, str, Draft]]:
        """(origin, slot, method, draft), twice as many as are kept at most."""
        names = list(self._methods)
        for example in mistakes:
            slots, locked = slots_of(mistakes.task, example), locked_in(mistakes.task, example)
            for attempt in range(2 * self._each):
                random = np.random.default_rng([self._seed, iteration, hash64(example.id), attempt])
                slot = slots[random.integers(len(slots))]
                draft = Draft((*example.texts, *example.choices)[slot], locked, random)
                yield example, slot, names[attempt % len(names)], draft

    def _changed(self, drafts: list[tuple[str, Draft]]) -> list[str | None]:
        """Each method is given all its drafts at once: models read them in batches."""
        rows: defaultdict[str, list[int]] = defaultdict(list)
        for row, (method, _) in enumerate(drafts):
            rows[method].append(row)
        texts: list[str | None] = [None] * len(drafts)
        for method, mine in rows.items():
            for row, text in zip(mine, self._methods[method]([drafts[row][1] for row in mine]), strict=True):
                texts[row] = text
        return texts

    def _objection(self, draft: Draft, text: str | None, similarity: float, taken: set[int]) -> str | None:
        if text is None:
            return "none made"
        if draft.locked and draft.locked.findall(text) != draft.locked.findall(draft.text):
            return "marks lost"
        if identity(text) in taken:
            return "known"
        least, greatest = self._band
        return "stranger" if similarity < least else "copy" if similarity > greatest else None


def identities(examples: Examples) -> Iterator[int]:
    """Of every text and choice: what a new text must differ from."""
    return (identity(text) for example in examples for text in (*example.texts, *example.choices))


def slots_of(task: Task, example: Example) -> list[int]:
    """Positions among texts and choices that may be changed."""
    if task.head != "choice":
        return list(range(len(example.texts)))
    first_choice = len(example.texts)
    return [0] if task.kind == "cloze" else [0, *range(first_choice, first_choice + len(example.choices))]


def locked_in(task: Task, example: Example) -> re.Pattern[str] | None:
    """What must stay: the marked words of span tasks, the entities of a cloze (longer ones first, they may nest)."""
    if task.kind == "span":
        return _SPAN
    if task.kind == "cloze":
        return re.compile("|".join(map(re.escape, sorted(set(example.choices), key=lambda name: (-len(name), name)))))
    return None


def _with_text(origin: Example, slot: int, text: str, name: str) -> Example:
    """The origin with one text changed, without label; its group stays, as what it was made from."""
    parts = [*origin.texts, *origin.choices]
    parts[slot] = text
    count = len(origin.texts)
    return replace(origin, id=name, texts=tuple(parts[:count]), choices=tuple(parts[count:]), label=None, golds=())
