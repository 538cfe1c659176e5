"""Text in its usual containers -> clean paragraphs, one at a time.

A source is a file of text (one paragraph a line) or of records (one paragraph a record, with an optional `group`), in
any format that `subarch.text.formats` reads; a folder of these; or `datasets:NAME[:SPLIT]`. Everything streams.

Where text is of several languages, each source is named by its own, `de=notes.txt`; with a share,
`de:0.3=notes.txt`, text is taken in these shares until a language has no more.

For the teacher of a task a source holds *inputs* instead (`inputs`): records with `text`, or with `text_a` and
`text_b`, or with `tokens`, or with `choices`, and perhaps a `label`; or lines of text. All of them are kept.

What comes out of prose is Unicode NFC without control characters, with single spaces, at most 10,000 characters (longer
paragraphs are cut at white space) and at least three words; shorter pieces are dropped. A word is a run of letters
and digits, or one character of a script written without spaces.

    >>> [document.text for document in read(["notes.txt", "abstracts.jsonl.gz", "datasets:wikitext:train"])]
"""

from __future__ import annotations

import hashlib
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any, Literal

from subarch.errors import InvalidCorpus, show
from subarch.text.formats import COMPRESSIONS, READ, MissingColumn, NotRecords, decoded, form_of, is_known, records

LONGEST = 10_000
"""Characters of a document at most: bounds the memory, and keeps one endless line from being one document."""

DATASETS = "datasets:"
RECORDINGS = (".parquet", ".jsonl", ".ndjson", ".json")
"""Endings of files of recorded vectors (`text.vectors`), also with .gz or .zst."""
ABOUT_RECORDS = ("readme", "license", "licence", "notice", "citation", "changelog", "source")
"""Names of text files that, beside files of records, describe these and are no part of the data."""

# Cc without white space, the byte order mark, and surrogates without a partner (JSON can hold them, UTF-8 cannot)
_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufeff\ud800-\udfff]")
_PIECE = re.compile(rf".{{1,{LONGEST}}}(?=\s|\Z)|.{{{LONGEST}}}", re.DOTALL)
# Thai to Lao, Myanmar, Khmer, Kana, Han: each character counts as a word
UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
THREE_WORDS = re.compile(rf"(?:[\W_]*+(?:[{UNSPACED}]|[^\W_{UNSPACED}]++)){{3}}")
# ASCII, Latin-1, general, CJK and full-width punctuation with white space; letters, digits and marks stay
_PUNCTUATION = re.compile(
    r"[\s!-/:-@\[-`{-~\u00a1\u00a7\u00ab\u00b6\u00b7\u00bb\u00bf\u2010-\u205e\u3001-\u3003\u3008-\u301f"
    r"\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65]+"
)


SECOND = "text_b"
"""The column of the second text of a pair; the first is in `text_a`."""
WORDS = "tokens"
CHOICES = "choices"
LABELS = ("label", "tags")
MADE = "made"
"""The column that says how an input was made from another one of its group; null where it was given."""
MADE_WITH = "made_with"
"""The column that names the group of a second input that it was made of."""


_LANGUAGE = re.compile(r"(?P<language>[a-z]{2,3}(?:-[A-Za-z0-9]+)*)(?::(?P<share>[^=]*))?=(?P<source>.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Document:
    """A clean paragraph, and the name of what it must be held out together with (a package, an author), if any.

    `language` is that of its source, where these are named.

    An input of a task may have a second text, or one for each of its choices, and a label: a name, a number, a list of
    names (several labels, or one for each word). One that was `made` near another (`subarch augment`) is only trained
    on, and only if neither its group nor `made_with` is held out.
    """

    text: str
    group: str | None = None
    others: tuple[str, ...] = ()
    label: Any = None
    form: InputForm = "text"
    made: bool = False
    made_with: str | None = None
    language: str | None = None


def clean(text: str) -> str:
    """NFC, control characters removed, every run of white space (Unicode line separators too) one space."""
    return " ".join(unicodedata.normalize("NFC", _CONTROL.sub("", text)).split())


def identity(text: str) -> int:
    """64-bit hash of the text without case, punctuation and spacing: equal for exact duplicates.

    64 bits make one false duplicate among ten million documents a chance of 3e-6, at 8 bytes each.
    """
    return hash64(_PUNCTUATION.sub(" ", text.casefold()).strip())


def hash64(text: str) -> int:
    """A 64-bit hash that is the same in every process (unlike `hash`)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


InputForm = Literal["text", "pair", "words", "choices"]
"""What an input of a task consists of."""


@dataclass(frozen=True, slots=True)
class Source:
    """A file, a folder or a data set of the hub: the files that are read, and those that are not with the reason.

    `language` and `share` are what the source is given with, if any.
    """

    name: str
    files: tuple[Path, ...]
    skipped: tuple[tuple[Path, str], ...] = ()
    language: str | None = None
    share: float | None = None

    @property
    def is_dataset(self) -> bool:
        return self.name.startswith(DATASETS)

    @property
    def sentence(self) -> str:
        """What was read and what was skipped, with the reasons, in one line."""
        if self.is_dataset or not (self.skipped or len(self.files) > 1):
            return self.name
        text = f"{self.name}: read {len(self.files)} file{'s' * (len(self.files) > 1)} ({_names(self.files)})"
        reasons = Counter(reason for _, reason in self.skipped)
        skipped = (
            f"{count} ({_names([path for path, why in self.skipped if why == reason])}: {reason})"
            for reason, count in reasons.items()
        )
        return f"{text}; skipped {', '.join(skipped)}" if reasons else text


def read(sources: Sequence[str | Path], text_column: str = "text") -> Iterator[Document]:
    """The documents of all sources, in the order given; folders recursively and sorted.

    `text_column` names the text of records; their column `group`, where present, names the group. Data sets of the hub
    are streamed and never run code; the split is `train` unless named.

    Raises:
        InvalidCorpus: a source is missing, binary, not UTF-8, truncated or malformed, lacks the column, or no source
            holds any paragraph of three words.
    """
    return documents([opened(source, text_column) for source in listed(sources)], text_column)


def documents(sources: Sequence[Source], text_column: str) -> Iterator[Document]:
    """The documents of sources that were looked at before; see `read`.

    Raises:
        InvalidCorpus: some sources have a language or a share and some not, or a language has two shares.
    """
    shares = languages(sources)
    if shares:
        found = _mixed(sources, shares, text_column)
    else:
        found = chain.from_iterable(_documents(source, text_column) for source in sources)
    return _some(sources, found, "usable text", "give text with paragraphs of at least three words")


def inputs(sources: Sequence[Source], text_column: str) -> Iterator[Document]:
    """The inputs of a task in sources that were looked at before: records, or the lines of text files.

    Records without any text are left out.

    Raises:
        InvalidCorpus: see `read`; a record has none of the columns, or something else than text in them; a language.
    """
    if languages(sources):
        raise InvalidCorpus(
            f"{sources[0].language}={sources[0].name}: languages are of prose, and this holds inputs of a task; give "
            "the path alone"
        )
    found = chain.from_iterable(_inputs(source, text_column) for source in sources)
    remedy = f"with {text_column!r}, with 'text_a' and {SECOND!r}, with {WORDS!r} or with {CHOICES!r}, or lines of text"
    return _some(sources, found, "inputs", f"give records {remedy}")


def languages(sources: Sequence[Source]) -> dict[str, float | None]:
    """The languages of the sources, sorted, with the share of each; none where sources are not named by language.

    Raises:
        InvalidCorpus: see `documents`.
    """
    found: dict[str, float | None] = {}
    for source in sorted(sources, key=lambda one: one.language or ""):
        if source.language is not None and found.setdefault(source.language, source.share) != source.share:
            raise InvalidCorpus(
                f"language {source.language!r} has the shares {found[source.language]} and {source.share}; give all of "
                "its sources the same"
            )
    if found and (without := [source.name for source in sources if source.language is None]):
        raise InvalidCorpus(
            f"{without[0]}: has no language, and other sources have; name that of each, as in en={without[0]}, or none"
        )
    if None in found.values() and any(found.values()):
        missing = next(language for language, share in found.items() if share is None)
        raise InvalidCorpus(
            f"language {missing!r} has no share, and others have; give one to each, as in {missing}:0.5=FOLDER, or "
            "to none"
        )
    return found


def _mixed(sources: Sequence[Source], shares: dict[str, float | None], text_column: str) -> Iterator[Document]:
    """Documents of several languages: all; or in turn, by shares of the characters, until one language has no more."""

    def of(language: str) -> Iterator[Document]:
        own = (source for source in sources if source.language == language)
        found = chain.from_iterable(_documents(source, text_column) for source in own)
        return (replace(document, language=language) for document in found)

    weights = {language: share for language, share in shares.items() if share is not None}
    if not weights:
        yield from chain.from_iterable(map(of, shares))
        return
    streams, done = {language: of(language) for language in weights}, dict.fromkeys(weights, 0)
    while True:
        behind = min(weights, key=lambda language: done[language] / weights[language])
        document = next(streams[behind], None)
        if document is None:
            return
        done[behind] += len(document.text)
        yield document


def _some(sources: Sequence[Source], found: Iterator[Document], what: str, remedy: str) -> Iterator[Document]:
    """What is found in the sources, or an InvalidCorpus where that is nothing."""
    first = next(found, None)
    if first is None:
        names = ", ".join(source.name for source in sources) or "an empty list of sources"
        raise InvalidCorpus(f"no {what} in {names}: {remedy}")
    yield first
    yield from found


def _inputs(source: Source, text_column: str) -> Iterator[Document]:
    if source.is_dataset:
        import datasets

        name, split = _dataset_name(source.name)
        with explained(source.name):
            for number, row in enumerate(datasets.load_dataset(name, split=split, streaming=True), 1):
                yield from input_of(row, text_column, f"{source.name}, row {number}")
        return
    for path in source.files:
        if form_of(path) == "text":
            for line in _paragraphs(decoded(path)):
                if text := _plain(line):
                    yield Document(text[:LONGEST])
        else:
            for place, record in records(path):
                yield from input_of(record, text_column, f"{path}, {place}")


def input_of(row: Mapping[str, Any], text_column: str, where: str) -> Iterator[Document]:
    """The input in one record, named by `where` in errors; none where all texts are empty."""
    form: InputForm = next((form for name, form in _FORMS.items() if row.get(name) is not None), "text")
    first = {"pair": "text_a", "words": WORDS, "choices": "text_a"}.get(form, text_column)
    if first not in row and form == "choices":
        first = text_column
    if first not in row:
        raise MissingColumn(where, first, row)
    if form in ("words", "choices") and not _are_texts(row[listed := WORDS if form == "words" else CHOICES]):
        raise InvalidCorpus(f"{where}: {listed!r} holds {row[listed]!r:.60} where a list of texts is needed")
    if form == "choices" and len(row[CHOICES]) < 2:
        raise InvalidCorpus(f"{where}: {CHOICES!r} holds {len(row[CHOICES])} texts; a choice is among two or more")
    texts = [row[first], *([row[SECOND]] if form == "pair" else [])]
    if form == "words":
        texts = [" ".join(row[WORDS])]
    elif form == "choices":  # of a context, perhaps with a question
        question = row.get(SECOND)
        texts += [f"{question} {choice}" if isinstance(question, str) else choice for choice in row[CHOICES]]
    if wrong := [text for text in texts if not isinstance(text, str | None)]:
        raise InvalidCorpus(f"{where}: holds {type(wrong[0]).__name__} where text is needed, in column {first!r}")
    label = next((row[name] for name in LABELS if row.get(name) is not None), None)
    group = row.get("group")
    cleaned = [_plain(text or "")[:LONGEST] for text in texts]
    if any(cleaned):
        if form == "words" and label is not None:
            _check_tags(label, cleaned[0], where)
        names = [
            None if one is None or isinstance(one, float) else clean(str(one)) or None
            for one in (group, row.get(MADE_WITH))
        ]
        yield Document(cleaned[0], names[0], tuple(cleaned[1:]), label, form, bool(row.get(MADE)), names[1])


def _check_tags(tags: Any, text: str, where: str) -> None:
    count = len(text.split(" "))
    if not isinstance(tags, list | tuple):
        raise InvalidCorpus(f"{where}: the label {show(tags)} is one, and words have a tag each; give a list of tags")
    if len(tags) != count:
        raise InvalidCorpus(
            f"{where}: {count} words and {len(tags)} tags; give a tag for each word, and no word that is empty or "
            "holds a space"
        )


def _are_texts(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(one, str) for one in value)


_FORMS: dict[str, InputForm] = {CHOICES: "choices", SECOND: "pair", WORDS: "words"}


def _plain(text: str) -> str:
    """As it is served, but for control characters and white space at its ends."""
    return _CONTROL.sub("", text).strip()


def listed(sources: Sequence[str | Path]) -> list[str | Path]:
    """A lone source is a list of one; without this a path would be read as a list of letters."""
    return [sources] if isinstance(sources, (str, Path)) else list(sources)


def opened(source: str | Path, text_column: str = "text", as_inputs: bool = False) -> Source:
    """Look at a source: the files that it consists of; of a data set of the hub, those that are on this machine.

    `as_inputs`: records are the inputs of a task, and each is looked at when it is read.

    In a folder, files with unknown endings and markup are skipped, hidden ones without being listed. Where it holds
    records with the text column, so are records without it and the README and LICENSE beside them; where all records
    lack it, that is an error.

    Raises:
        InvalidCorpus: nothing there, nothing of use in a folder, or no records have the column (names those found).
    """
    if isinstance(source, str) and (named := _LANGUAGE.fullmatch(source)) and not Path(source).exists():
        language, share, inner = named.group("language", "share", "source")
        return replace(opened(inner, text_column, as_inputs), language=language, share=_share(source, share))
    path = Path(source)
    if str(source).startswith(DATASETS):
        inside = Path(_dataset_name(str(source))[0]).rglob("*")
        return Source(str(source), tuple(sorted(file for file in inside if file.is_file())))
    if path.is_file():
        return Source(str(source), (path,))
    if not path.is_dir():
        raise InvalidCorpus(
            f"{path}: no such file or folder; check the path (a Hugging Face data set is written datasets:NAME)"
        )
    files: list[Path] = []
    skipped: list[tuple[Path, str]] = []
    lacking: list[MissingColumn] = []
    are_records = False
    for file in sorted(file for file in path.rglob("*") if file.is_file()):
        if any(part.startswith(".") for part in file.relative_to(path).parts):
            continue
        if not is_known(file):
            skipped.append((file, f"not text or records by its ending {file.suffix or '(none)'}"))
            continue
        try:
            form = form_of(file)
            if form != "text":
                next(records(file, only=() if as_inputs else (text_column,)), None)
                are_records = True
            files.append(file)
        except MissingColumn as error:
            lacking.append(error)
            skipped.append((file, f"no column {text_column!r}"))
        except NotRecords:
            skipped.append((file, "HTML or XML" if form == "markup" else "JSON without records"))
    if lacking and not are_records:
        raise lacking[0]
    if are_records:
        about = [file for file in files if file.stem.lower() in ABOUT_RECORDS and form_of(file) == "text"]
        skipped += [(file, "describes the records beside it") for file in about]
        files = [file for file in files if file not in about]
    if not files:
        raise InvalidCorpus(
            f"{path}: no text in this folder; names must end in {', '.join(READ)} (also compressed: "
            f"{', '.join(COMPRESSIONS)}); {Source(str(source), (), tuple(skipped)).sentence}"
        )
    return Source(str(source), tuple(files), tuple(skipped))


def _share(source: str, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share < math.inf:
        raise InvalidCorpus(f"{source}: the share {text!r} is no number above 0; write it as in de:0.3=FOLDER")
    return share


def _names(paths: Sequence[Path]) -> str:
    return ", ".join(path.name for path in paths[:5]) + (", ..." if len(paths) > 5 else "")


def _documents(source: Source, text_column: str) -> Iterator[Document]:
    if source.is_dataset:
        with explained(source.name):
            for number, row in enumerate(streamed(source.name, text_column), 1):
                yield from documents_of(row, text_column, f"{source.name}, row {number}")
        return
    for path in source.files:
        if form_of(path) == "text":
            for paragraph in _paragraphs(decoded(path)):
                yield from _pieces(paragraph, None)
        else:
            for place, record in records(path, only=(text_column, "group")):
                yield from documents_of(record, text_column, f"{path}, {place}")


def streamed(source: str, text_column: str) -> Any:
    """The rows of `datasets:NAME[:SPLIT]` as a streaming `IterableDataset`, with the columns that are used only."""
    import datasets

    name, split = _dataset_name(source)
    with explained(source):
        rows = datasets.load_dataset(name, split=split, streaming=True)
        if rows.column_names is not None:  # other columns (images, audio) would be decoded for nothing
            if text_column not in rows.column_names:
                raise MissingColumn(source, text_column, rows.column_names)
            rows = rows.select_columns([column for column in rows.column_names if column in (text_column, "group")])
        return rows


@contextmanager
def explained(source: str) -> Iterator[None]:
    """What a data set of the hub can raise while it is loaded or read, as an InvalidCorpus."""
    import datasets
    import pyarrow

    try:
        yield
    except (datasets.exceptions.DatasetsError, pyarrow.ArrowException, OSError, ValueError, RuntimeError) as error:
        if isinstance(error, InvalidCorpus):
            raise
        raise InvalidCorpus(
            f"{source}: cannot be loaded: {error}. Check name, split and connection; "
            "offline, give a folder: datasets:FOLDER:SPLIT"
        ) from error


def _dataset_name(source: str) -> tuple[str, str]:
    name, _, split = source.removeprefix(DATASETS).partition(":")
    if not name:
        raise InvalidCorpus(f"{source}: no data set named; write datasets:NAME or datasets:NAME:SPLIT")
    return name, split or "train"


def documents_of(row: Mapping[str, Any], text_column: str, where: str) -> Iterator[Document]:
    """The documents of one record, named by `where` in errors."""
    if text_column not in row:
        raise MissingColumn(where, text_column, row)
    text, group = row[text_column], row.get("group")
    if isinstance(group, float) and math.isnan(group):  # an empty cell, as pandas writes it
        group = None
    if not isinstance(text, str | None):
        raise InvalidCorpus(f"{where}: {text_column!r} holds {type(text).__name__} where text is needed")
    if not isinstance(group, str | int | None):
        raise InvalidCorpus(f"{where}: 'group' holds {type(group).__name__} where a name or a number is needed")
    return _pieces(text or "", None if group is None else clean(str(group)) or None)


def _pieces(paragraph: str, group: str | None) -> Iterator[Document]:
    for raw in _split(paragraph):
        for piece in _split(clean(raw)):  # again, as NFC can lengthen a text
            if THREE_WORDS.match(piece):
                yield Document(piece.strip(), group)


def _split(text: str) -> list[str]:
    """Pieces of at most LONGEST characters, cut before white space where there is any."""
    return [text] if len(text) <= LONGEST else _PIECE.findall(text)


def _paragraphs(chunks: Iterable[str]) -> Iterator[str]:
    """The lines of a text of which never more than a chunk is held: an endless line comes in pieces."""
    rest = ""
    for chunk in chunks:
        *lines, rest = (rest + chunk).replace("\r", "\n").split("\n")
        yield from lines
        *pieces, rest = _split(rest)
        yield from pieces
    yield rest


def is_recording(source: str | Path) -> bool:
    """Does this name a file of recorded vectors, and not the folder or the hub name of a model? It need not exist."""
    path = Path(source)
    ending = (path.with_suffix("") if path.suffix.lower() in (".gz", ".zst") else path).suffix.lower()
    return ending in RECORDINGS and not path.is_dir()


def with_corpus(values: Any) -> Any:
    """The keys of a configuration: the texts of a teacher of recorded vectors are the corpus, where none is given."""
    teacher = values.get("teacher") if isinstance(values, Mapping) else None
    if isinstance(teacher, str | Path) and is_recording(teacher) and not values.get("corpus"):
        return {**values, "corpus": [str(teacher)]}
    return values
