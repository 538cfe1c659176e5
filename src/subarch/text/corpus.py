"""Sources of text -> token sequences on disk, deduplicated, with a held-out part.

What is held out is decided by hashes and not by position, and by whole groups where the records name one (a package,
an author), so that neither the order of the files nor a near-copy next door carries text across the split. Where
there is no group, neighbouring paragraphs of one file may land on both sides.

The folder holds `train.npy` and `heldout.npy` (int32, the documents of a split end to end, without special tokens,
mapped into memory), `train.offsets.npy` and `heldout.offsets.npy` (int64, where each document begins, then the end) and
`corpus.json` (`Meta`: what it was made of). For a teacher of another tokenizer it also holds the text of each document,
as UTF-8 in `train.text.npy` (uint8) with `train.text.offsets.npy`; documents are then cut into pieces while they are
text, so that teacher and student read exactly the same.

A corpus of the inputs of a task keeps each of them whole: a text; or two with the special tokens between them; or such
a pair for each choice, with `NEXT` between the choices. `train.labels.json` and `heldout.labels.json` hold the labels,
where the records have any: of words `tags`, one for each, and `places`, where the first token of each is.

    >>> corpus = build(["docs/", "abstracts.jsonl.gz"], tokenizer, Path("corpus"))
    >>> corpus.segments("heldout", 128)[0], corpus.meta.tokens, corpus.content_hash
"""

from __future__ import annotations

import errno
import hashlib
import json
import warnings
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from subarch.errors import InvalidConfig, InvalidCorpus
from subarch.run.files import file_digest, replaced, unreadable
from subarch.run.inputs import Content, of_values
from subarch.run.record import Record, Row
from subarch.text.read import (
    Document,
    InputForm,
    Source,
    documents,
    hash64,
    identity,
    inputs,
    languages,
    listed,
    opened,
)
from subarch.text.words import places_of

if TYPE_CHECKING:
    from hashlib import _Hash

    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast

from itertools import chain
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from transformers import PreTrainedTokenizerFast


FORMAT = 3
NEXT = -1
"""Stands between the choices of an input."""
CRUMB = 4
"""The rest of a cut document is dropped when it has fewer tokens than this."""

TOKENIZER_TEXTS = 200_000
"""Documents a tokenizer is trained on, where there is no teacher."""

MADE_OF = "made_of.json"
"""What a trained tokenizer was trained on, beside it."""

Part = Literal["train", "heldout"]

Progress = Callable[[int, str], None]
"""Called with the work done so far and its unit."""


class Fingerprint(Row):
    """What a source held: a hash over names and bytes of its files, None for a data set that is only on the hub."""

    source: str
    blake2b: str | None
    language: str | None = None
    share: float | None = None


class Settings(Row):
    """How a corpus is made of its sources; see `build`."""

    text_column: str
    heldout_fraction: float
    max_tokens: int | None
    minimum: int
    texts: bool = False
    piece: int | None = None
    between: tuple[int, ...] | None = None


class Recipe(Record):
    """Everything that decides what is in a corpus; the same recipe gives the same corpus."""

    NAME: ClassVar[str] = "corpus"

    format: int
    sources: tuple[Fingerprint, ...]
    tokenizer: str
    """SHA-256 of the tokenizer."""
    settings: Settings


class Meta(Recipe):
    """`corpus.json`: what a corpus was made of, and what is in it."""

    read: tuple[str, ...]
    """Of each source which files were read, and which were skipped and why."""
    content_hash: str
    """SHA-256 over tokens and offsets of both splits."""
    documents: dict[Part, int]
    tokens: dict[Part, int]
    duplicates: int
    heldout_groups: tuple[str, ...]
    form: InputForm | None = None
    """What an input of a task consists of; None: prose."""
    languages: dict[str, dict[Part, int]] | None = None
    """Tokens of each language, ascending, where sources are named by theirs."""


@dataclass(frozen=True)
class Texts(Sequence[str]):
    """Texts as views of one flat array of UTF-8: number i is `utf8[offset[i] : offset[i] + size[i]]`."""

    utf8: NDArray[np.uint8]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.offset)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int | np.integer):
            return self.utf8[self.offset[index] : self.offset[index] + self.size[index]].tobytes().decode()
        return Texts(self.utf8, self.offset[index], self.size[index])


@dataclass(frozen=True)
class Segments(Sequence[NDArray[np.int32]]):
    """Token sequences as views of one flat array: number i is `tokens[offset[i] : offset[i] + size[i]]`.

    `texts`: what each of them was tokenised from, where the corpus keeps it; `labels`: (N,) of inputs that have any;
    `languages`: (N,) uint8, the number of each one's language, where sources are named by theirs.
    """

    tokens: NDArray[np.int32]
    offset: NDArray[np.int64]
    size: NDArray[np.int64]
    texts: Texts | None = None
    labels: NDArray[np.object_] | None = None
    languages: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self.offset)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, int | np.integer):
            return self.tokens[self.offset[index] : self.offset[index] + self.size[index]]
        texts = None if self.texts is None else self.texts[index]
        labels = None if self.labels is None else self.labels[index]
        languages = None if self.languages is None else self.languages[index]
        return Segments(self.tokens, self.offset[index], self.size[index], texts, labels, languages)

    def occurring(self) -> NDArray[np.int64]:
        """Ascending ids of the tokens that occur."""
        found = np.empty(0, np.int64)
        for first in range(0, len(self), 4096):
            found = np.union1d(found, np.concatenate(self[first : first + 4096]))
        return np.setdiff1d(found, [NEXT])

    def shuffled(self) -> Segments:
        """In one fixed random order, whatever the configuration: a longer search goes on where a shorter one ended."""
        shuffled: Segments = self[np.random.default_rng(0).permutation(len(self))]
        return shuffled


@dataclass(frozen=True)
class Corpus:
    """A corpus on disk. `train` and `heldout` are its documents; `meta` is `corpus.json`."""

    folder: Path
    train: Segments
    heldout: Segments
    meta: Meta

    @property
    def content_hash(self) -> str:
        return self.meta.content_hash

    @classmethod
    def load(cls, folder: Path) -> Corpus:
        """Open a folder written by `build`; the tokens stay on disk.

        Raises:
            InvalidCorpus: the folder is missing, incomplete, damaged, or of another version.
        """
        try:
            stored = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
            if isinstance(stored, dict) and stored.get("format") != FORMAT:
                raise InvalidCorpus(
                    f"{folder}: a corpus of format {stored.get('format')}, this version reads {FORMAT}; build it again"
                )
            meta = Meta.model_validate(stored)
            train, heldout = _open(folder, "train"), _open(folder, "heldout")
        except (OSError, EOFError, ValueError) as error:
            if isinstance(error, InvalidCorpus):
                raise
            problem = f"no readable corpus ({error!r}); delete the folder and build it again"
            raise InvalidCorpus(unreadable(folder, error, problem)) from error
        return cls(folder, train, heldout, meta)

    def segments(self, part: Part, length: int) -> Segments:
        """Each document cut into pieces of at most `length` tokens; a shorter document is one segment.

        What is left at the end of a cut document is dropped if it has fewer than CRUMB tokens. There are no special
        tokens: leave room for them in `length`.

        Of the inputs of a task each is one segment, cut as tokenizers cut it: of two texts the longer one.
        """
        if length < 1:
            raise InvalidConfig(f"segments of {length} tokens cannot be cut; the length must be at least 1")
        whole = self.train if part == "train" else self.heldout
        if self.meta.settings.between is not None:
            return _cut_inputs(whole, length, self.meta.settings.between)
        if whole.texts is not None:  # the teacher reads the whole piece, the student as much of it as it may
            return replace(whole, size=np.minimum(whole.size, length))
        pieces = -(-whole.size // length)
        # the index of each piece in its document: 0 1 2 0 0 1 ...
        number = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
        offset = np.repeat(whole.offset, pieces) + number * length
        size = np.minimum(length, np.repeat(whole.offset + whole.size, pieces) - offset)
        kept = (number == 0) | (size >= min(CRUMB, length))
        languages = None if whole.languages is None else np.repeat(whole.languages, pieces)[kept]
        return Segments(whole.tokens, offset[kept], size[kept], languages=languages)


def build(
    sources: Sequence[str | Path],
    tokenizer: PreTrainedTokenizerFast | Tokenizer,
    folder: Path,
    *,
    text_column: str = "text",
    heldout_fraction: float = 0.05,
    max_tokens: int | None = None,
    minimum: int = 20,
    texts: bool = False,
    piece: int | None = None,
    between: Sequence[int] | None = None,
    progress: Progress | None = None,
) -> Corpus:
    """Read, deduplicate, tokenise and pack `sources` (see `subarch.text.read`) into `folder`; open it.

    A folder already built from the same bytes, tokenizer and settings is opened as it is; one built from others is
    replaced. Files of a folder that are skipped are named in a warning and in `meta.read`. Of documents that differ
    only in case, punctuation and spacing, the first is kept. Sources are read in sorted order, so the order they are
    given in changes nothing; reading stops with the document that reaches `max_tokens`. Hashes decide which documents
    are held out: see `hold_out`.

    Text is tokenised as text: a literal "[MASK]" in it does not become the special token.

    With `texts` the text is kept beside the tokens, and a document of more than `piece` tokens (None: no limit) is cut
    at white space, as far as there is any, into pieces that are documents of their own, held out together.

    With `between`, the special tokens between two texts, the sources hold the inputs of a task (`read.inputs`).

    Raises:
        InvalidCorpus: see `subarch.text.read.read`; inputs of different kinds, or labels on some only; fewer than
            `minimum` distinct documents; all of them in one group; `folder` is something else than a corpus; the disk
            is full.
        InvalidConfig: a fraction outside (0, 0.5].
    """
    if not 0 < heldout_fraction <= 0.5:
        raise InvalidConfig(f"heldout_fraction is {heldout_fraction}; it must be above 0 and at most 0.5")
    backend = plain(tokenizer)
    folder = Path(folder)
    as_inputs = between is not None
    found = [opened(source, text_column, as_inputs) for source in sorted(listed(sources), key=str)]
    recipe = Recipe(
        format=FORMAT,
        sources=tuple(fingerprint(source) for source in found),
        tokenizer=hashlib.sha256(backend.to_str().encode()).hexdigest(),
        settings=Settings(
            text_column=text_column,
            heldout_fraction=heldout_fraction,
            max_tokens=max_tokens,
            minimum=minimum,
            texts=texts,
            piece=piece,
            between=None if between is None else tuple(between),
        ),
    )
    if skipped := [source.sentence for source in found if source.skipped]:
        warnings.warn("; ".join(skipped), stacklevel=2)
    with _rebuilt(folder, lambda: _is_corpus_of(folder, recipe)) as partial:
        if partial is not None:
            read = inputs if as_inputs else documents
            meta = _write(read(found, text_column), backend, partial, recipe, found, progress)
            (partial / "corpus.json").write_text(meta.to_json(), encoding="utf-8")
    return Corpus.load(folder)


def hold_out(units: NDArray[np.uint64], sizes: NDArray[np.int64], fraction: float) -> NDArray[np.bool_]:
    """Which documents are held out: (N,) bool from the (N,) hashes of their units and their sizes in tokens.

    Documents of one unit stay together. Units with a hash below `fraction` of the range are held out, so a document
    keeps its side when others are added or removed. If that would leave a part empty or hold out more than half (few
    units), units are taken in the order of their hashes, those with over half of all tokens last, until `fraction` of
    the tokens is reached.

    Raises:
        InvalidCorpus: there is only one unit.
    """
    unique, member = np.unique(units, return_inverse=True)
    if len(unique) < 2:
        raise InvalidCorpus(
            "there is only one document or group, so nothing can be held out; "
            "give at least two groups, or remove the column of groups"
        )
    weight = np.bincount(member, weights=sizes)
    chosen = unique / 2.0**64 < fraction
    if not 0 < weight[chosen].sum() <= weight.sum() / 2:
        rank = np.lexsort((unique, weight > weight.sum() / 2))
        count = np.searchsorted(np.cumsum(weight[rank]), fraction * weight.sum()) + 1
        chosen = np.isin(np.arange(len(unique)), rank[: min(count, len(unique) - 1)])
    held: NDArray[np.bool_] = chosen[member]
    return held


def own_tokenizer(sources: Sequence[str | Path], text_column: str, vocabulary_size: int, folder: Path) -> Any:
    """A BPE trained on the corpus, kept in `folder`; trained again if the corpus or the vocabulary's size changed."""
    from transformers import AutoTokenizer

    found = [opened(source, text_column) for source in listed(sources)]
    made_of = json.dumps([[fingerprint(source).model_dump() for source in found], text_column, vocabulary_size])
    file = folder / MADE_OF
    with _rebuilt(folder, lambda: file.is_file() and file.read_text(encoding="utf-8") == made_of) as partial:
        if partial is not None:
            texts = (document.text for document in islice(documents(found, text_column), TOKENIZER_TEXTS))
            train_tokenizer(texts, vocabulary_size).save_pretrained(partial)
            (partial / MADE_OF).write_text(made_of, encoding="utf-8")
    return AutoTokenizer.from_pretrained(folder)


def fingerprint(source: Source) -> Fingerprint:
    """Tells whether the bytes of a source changed, without decompressing or parsing them."""
    digest = hashlib.blake2b(digest_size=16)
    for path in source.files:
        try:
            content = file_digest(path)
        except OSError as error:
            raise InvalidCorpus(unreadable(path, error)) from error
        digest.update(path.name.encode(errors="surrogateescape") + b"\0" + content.encode())
    blake2b = digest.hexdigest() if source.files else None
    return Fingerprint(source=source.name, blake2b=blake2b, language=source.language, share=source.share)


def content_of(sources: Sequence[str | Path], text_column: str, as_inputs: bool = False) -> Content:
    """What a stage records of a corpus that it reads (`run.inputs`), whatever the order of the sources.

    The bytes of files are hashed; of a data set on the hub the name is all that is compared.

    Raises:
        InvalidCorpus: a source is missing or cannot be read.
    """
    found = [fingerprint(opened(source, text_column, as_inputs)) for source in listed(sources)]
    read = (
        (one.blake2b or one.source) + (f" {one.language} {one.share}" if one.language is not None else "")
        for one in found
    )
    return of_values(", ".join(map(str, listed(sources))), *sorted(read))


def _write(
    documents: Iterator[Document],
    backend: Tokenizer,
    folder: Path,
    recipe: Recipe,
    sources: Sequence[Source],
    progress: Progress | None,
) -> Meta:
    """Fill `folder` and describe it. Tokens go to a spool first: the split is known when all units are."""
    settings, max_tokens = recipe.settings, recipe.settings.max_tokens
    units, seconds, sizes, lengths = array("Q"), array("Q"), array("q"), array("q")
    spoken = array("B")
    names = list(languages(sources))
    labels: list[Any] = []
    made: list[bool] = []
    forms: set[InputForm] = set()
    seen: set[int] = set()
    groups: dict[str, int] = {}
    tokens = duplicates = 0
    spool, text_spool = folder / "spool", folder / "text.spool"
    with spool.open("wb") as file, text_spool.open("wb") as text_file:
        while batch := list(islice(documents, 512 if max_tokens is None or tokens < max_tokens else 0)):
            fresh: list[tuple[int, Document]] = []
            for document in batch:
                key = identity("\n".join((document.text, *document.others)))
                if key in seen:
                    duplicates += 1
                    continue
                seen.add(key)
                if document.group is not None:
                    key = groups.setdefault(document.group, hash64(f"group {document.group}"))
                fresh.append((key, document))
            if settings.piece is not None:
                fresh = [
                    (unit, Document(part, language=document.language))
                    for unit, document in fresh
                    for part in _cut(document.text, backend, settings.piece)
                ]
            encoded = _encoded([document for _, document in fresh], backend, settings.between or ())
            for (unit, document), ids in zip(fresh, encoded, strict=True):
                if max_tokens is not None and tokens >= max_tokens:
                    break
                if ids:
                    file.write(np.array(ids, dtype="<i4").tobytes())
                    units.append(unit)
                    seconds.append(unit if document.made_with is None else hash64(f"group {document.made_with}"))
                    sizes.append(len(ids))
                    labels.append(_label(document, backend))
                    made.append(document.made)
                    forms.add(document.form)
                    if document.language is not None:
                        spoken.append(names.index(document.language))
                    tokens += len(ids)
                    if settings.texts:
                        lengths.append(text_file.write(document.text.encode()))
            if progress is not None:
                progress(tokens, "tokens")
    if len(sizes) < settings.minimum:
        raise InvalidCorpus(
            f"only {len(sizes)} distinct documents, {tokens} tokens; at least {settings.minimum} documents are needed "
            "(a document is a line of a text file or a record, of three words or more): give more text"
        )
    is_made = np.array(made, dtype=bool)
    weights = np.where(is_made, 0, np.array(sizes, dtype=np.int64))
    held = hold_out(np.array(units, dtype=np.uint64), weights, settings.heldout_fraction)
    digest = hashlib.sha256()
    of_held = held | np.isin(np.array(seconds, dtype=np.uint64), np.array(units, dtype=np.uint64)[held])
    parts: tuple[tuple[Part, NDArray[np.bool_]], ...] = (("train", ~of_held), ("heldout", held & ~is_made))
    counts = {}
    for part, kept in parts:
        counts[part] = _pack(folder / part, spool, "<i4", np.array(sizes, dtype=np.int64), kept, digest)
        if settings.texts:
            _pack(folder / f"{part}.text", text_spool, "u1", np.array(lengths, dtype=np.int64), kept, digest)
    spool.unlink()
    text_spool.unlink()
    if len(forms) > 1:
        raise InvalidCorpus(
            f"some inputs are {' and some '.join(sorted(_FORMS[form] for form in forms))}; a model reads one kind of "
            "input: give files of one kind"
        )
    given = [label for label, is_new in zip(labels, made, strict=True) if not is_new]
    if (labelled := sum(label is not None for label in given)) not in (0, len(given)):
        raise InvalidCorpus(
            f"{labelled} of {len(given)} inputs have a label; give a label to all, or to none (then the teacher's "
            "outputs are all that is compared)"
        )
    for part, kept in parts if labelled else ():
        own = [label for label, is_kept in zip(labels, kept, strict=True) if is_kept]
        (folder / f"{part}.labels.json").write_text(json.dumps(own), encoding="utf-8")
        digest.update(json.dumps(own).encode())
    of_language = None
    if names:
        of_language = _save_languages(folder, names, np.frombuffer(spoken, np.uint8), np.array(sizes), parts, digest)
    chosen = {unit for unit, is_held in zip(units, held, strict=True) if is_held}
    return Meta(
        **recipe.model_dump(),
        read=tuple(source.sentence for source in sources),
        content_hash=digest.hexdigest(),
        documents={part: count for part, (count, _) in counts.items()},
        tokens={part: size for part, (_, size) in counts.items()},
        duplicates=duplicates,
        heldout_groups=tuple(sorted(group for group, unit in groups.items() if unit in chosen)),
        form=next(iter(forms)) if settings.between is not None else None,
        languages=of_language,
    )


def _save_languages(
    folder: Path,
    names: Sequence[str],
    spoken: NDArray[np.uint8],
    sizes: NDArray[np.int64],
    parts: Sequence[tuple[Part, NDArray[np.bool_]]],
    digest: _Hash,
) -> dict[str, dict[Part, int]]:
    """Write the language of each document; the tokens of each language by part."""
    tokens: dict[str, dict[Part, int]] = {name: {} for name in names}
    for part, kept in parts:
        _save(folder / f"{part}.languages.npy", "u1", int(kept.sum()), [spoken[kept]], digest)
        for number, name in enumerate(names):
            tokens[name][part] = int(sizes[kept & (spoken == number)].sum())
            if not tokens[name][part]:
                raise InvalidCorpus(
                    f"no text of language {name!r} is in the {part} part of the corpus; give more text of it"
                )
    return tokens


_FORMS: dict[InputForm, str] = {
    "text": "single texts",
    "pair": "pairs of texts",
    "words": "lists of words",
    "choices": "texts with choices",
}


def _encoded(documents: Sequence[Document], backend: Tokenizer, between: Sequence[int]) -> list[list[int]]:
    """The token ids of each: of its text, or of its text with each of the others in turn."""
    texts = [text for document in documents for text in (document.text, *document.others)]
    ids = iter([encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)])
    found = []
    for document in documents:
        first, others = next(ids), [next(ids) for _ in document.others]
        rows = [[*first, *between, *second] for second in others] or [first]
        found.append([token for row in rows for token in (NEXT, *row)][1:])
    return found


def _label(document: Document, backend: Tokenizer) -> Any:
    """The label of an input; of words their tags, and where the first token of each is."""
    if document.form != "words" or document.label is None:
        return document.label
    words = document.text.split(" ")
    places = places_of(words, backend.encode(document.text, add_special_tokens=False).offsets)
    return {"tags": document.label[: len(words)], "places": places}


def _cut_inputs(whole: Segments, length: int, between: Sequence[int]) -> Segments:
    """Inputs as tokenizers cut them to `length` tokens, those between two texts included."""
    rows, changed = [], False
    for row in whole:
        if len(row) > length:
            choices = (part[part != NEXT] for part in np.split(row, np.flatnonzero(row == NEXT)))
            cut = [shortened(choice, length, between) for choice in choices]
            row, changed = np.concatenate([[NEXT, *choice] for choice in cut])[1:].astype(np.int32), True
        rows.append(row)
    if not changed:
        return whole
    size = np.array([len(row) for row in rows], dtype=np.int64)
    return Segments(np.concatenate(rows), np.cumsum(size) - size, size, whole.texts, whole.labels)


def shortened(row: Sequence[int] | NDArray[np.int32], length: int, between: Sequence[int]) -> NDArray[np.int32]:
    """One text, or two of which the longer is cut first, of at most `length` tokens, those between them included."""
    row = np.asarray(row, np.int32)
    ends = np.flatnonzero(row == between[0]) if len(between) else np.array([], np.int64)
    if len(row) <= length or not len(ends):
        return row[:length]
    first, second = row[: ends[0]], row[ends[0] + len(between) :]
    room = length - len(between)
    short = min(len(first), len(second))
    long = max(room - short, short)
    if short + long > room:
        short, long = room // 2, room - room // 2
    sizes = (short, long) if len(first) <= len(second) else (long, short)
    return np.concatenate([first[: sizes[0]], np.array(between, np.int32), second[: sizes[1]]])


def _cut(text: str, backend: Tokenizer, length: int) -> list[str]:
    """The text in pieces of at most `length` tokens, cut at white space where a piece holds any."""
    starts = [start for start, _ in backend.encode(text, add_special_tokens=False).offsets]
    pieces, first, begin = [], 0, 0
    while len(starts) - first > length:
        after = first + length
        # A token of SentencePiece begins with the space before its word
        spaced = (at for at in range(after, first, -1) if any(map(str.isspace, text[starts[at] - 1 : starts[at] + 1])))
        after = next(spaced, after)
        pieces.append(text[begin : starts[after]].strip())
        first, begin = after, starts[after]
    return [piece for piece in (*pieces, text[begin:].strip()) if piece]


def _pack(
    file: Path, spool: Path, dtype: str, sizes: NDArray[np.int64], kept: NDArray[np.bool_], digest: _Hash
) -> tuple[int, int]:
    """Write the kept documents of the spool (raw numbers, `sizes` of each); how many documents and numbers they are.

    Written, not mapped: a full disk is then an error and not a crash of the process (SIGBUS).
    """

    def chosen() -> Iterator[NDArray[Any]]:
        with spool.open("rb") as stream:
            for first in range(0, len(sizes), 4096):
                some = slice(first, first + 4096)
                numbers = np.fromfile(stream, dtype, int(sizes[some].sum()))
                yield numbers[np.repeat(kept[some], sizes[some])]

    offsets = np.concatenate([[0], np.cumsum(sizes[kept])]).astype("<i8")
    _save(file.with_name(f"{file.name}.npy"), dtype, int(offsets[-1]), chosen(), digest)
    _save(file.with_name(f"{file.name}.offsets.npy"), "<i8", len(offsets), [offsets], digest)
    return len(offsets) - 1, int(offsets[-1])


def _save(path: Path, dtype: str, count: int, chunks: Iterable[NDArray[Any]], digest: _Hash) -> None:
    """A .npy file from chunks. (np.save reports a full disk without its error number.)"""
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": (count,)})
        for chunk in chunks:
            data = chunk.tobytes()
            digest.update(data)
            file.write(data)


def _open(folder: Path, part: Part) -> Segments:
    tokens, offset, size = _mapped(folder / part)
    texts = labels = None
    if (folder / f"{part}.text.npy").is_file():
        texts = Texts(*_mapped(folder / f"{part}.text"))
        if len(texts) != len(offset):
            raise ValueError(f"the {part} tokens and texts do not fit each other")
    if (path := folder / f"{part}.labels.json").is_file():
        found = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(found, list) or len(found) != len(offset):
            raise ValueError(f"the {part} tokens and labels do not fit each other")
        labels = np.fromiter(found, dtype=object, count=len(found))
    languages = None
    if (path := folder / f"{part}.languages.npy").is_file():
        languages = np.load(path, allow_pickle=False)
        if languages.shape != offset.shape:
            raise ValueError(f"the {part} tokens and languages do not fit each other")
    return Segments(tokens, offset, size, texts, labels, languages)


def _mapped(file: Path) -> tuple[NDArray[Any], NDArray[np.int64], NDArray[np.int64]]:
    """What `_pack` wrote: the numbers, where each document begins, and how many it has."""
    numbers = np.load(file.with_name(f"{file.name}.npy"), mmap_mode="r", allow_pickle=False)
    offsets = np.load(file.with_name(f"{file.name}.offsets.npy"), allow_pickle=False)
    if numbers.ndim != 1 or len(offsets) < 2 or offsets[-1] != len(numbers):
        raise ValueError(f"the numbers and offsets of {file.name} do not fit each other")
    return numbers, offsets[:-1], np.diff(offsets)


@contextmanager
def _rebuilt(folder: Path, is_current: Callable[[], bool]) -> Iterator[Path | None]:
    """A folder to write into, which then takes the place of `folder`; None where `folder` is up to date already.

    The lock makes a second process wait and then find the folder ready.
    """
    from filelock import FileLock

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_name(f".{folder.name}.lock")):
            if is_current():
                yield None
                return
            with replaced(folder) as partial:
                yield partial
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise InvalidCorpus(
            f"{folder}: the disk is full; free some space (a corpus takes about 8 bytes a token while it is built), "
            "choose another folder, or set max_tokens"
        ) from error


def _is_corpus_of(folder: Path, recipe: Recipe) -> bool:
    if not folder.exists():
        return False
    if not folder.is_dir() or (any(folder.iterdir()) and not (folder / "corpus.json").is_file()):
        raise InvalidCorpus(f"{folder} exists and is no corpus; it would be overwritten: choose another folder")
    try:
        meta = Corpus.load(folder).meta
    except InvalidCorpus:
        return False  # damaged or of another version: built again
    return Recipe(**{name: getattr(meta, name) for name in Recipe.model_fields}) == recipe


SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def train_tokenizer(texts: Iterable[str], vocabulary_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE with [PAD] [UNK] [CLS] [SEP] [MASK] as tokens 0 to 4, for a corpus without a teacher.

    Byte-level: no text is unknown. It writes `[CLS] a [SEP]` and `[CLS] a [SEP] b [SEP]`, and hands out no token
    types, so stock BERT and RoBERTa models (which have one type only) both take what it gives. Small texts fill less
    than `vocabulary_size`.

    Raises:
        InvalidConfig: `vocabulary_size` cannot hold the 256 bytes and the special tokens.
        InvalidCorpus: there is no text.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    least = 256 + len(SPECIAL_TOKENS)
    if vocabulary_size < least:
        raise InvalidConfig(f"a vocabulary of {vocabulary_size} is too small; at least {least} tokens are needed")
    texts = iter(texts)
    if (first := next(texts, None)) is None:
        raise InvalidCorpus("no text to train a tokenizer on")
    tokenizer = Tokenizer(models.BPE(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)  # a word is the same first and later
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(chain([first], texts), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(token, SPECIAL_TOKENS.index(token)) for token in ("[CLS]", "[SEP]")],
    )
    names = {f"{token[1:-1].lower()}_token": token for token in SPECIAL_TOKENS}
    inputs = ["input_ids", "attention_mask"]
    fast: Any = PreTrainedTokenizerFast
    trained: PreTrainedTokenizerFast = fast(tokenizer_object=tokenizer, model_input_names=inputs, **names)
    return trained


def plain(tokenizer: Any) -> Tokenizer:
    """A copy of the tokenizer proper: never truncates or pads, and reads special tokens in the text as text."""
    from tokenizers import Tokenizer

    backend = getattr(tokenizer, "backend_tokenizer", tokenizer)
    if not isinstance(backend, Tokenizer):
        raise InvalidCorpus(f"{type(tokenizer).__name__} is no fast tokenizer; load one with AutoTokenizer")
    copy = Tokenizer.from_str(backend.to_str())
    copy.no_truncation()
    copy.no_padding()
    copy.encode_special_tokens = True
    return copy
