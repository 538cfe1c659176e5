"""Text in its usual containers -> clean paragraphs, one at a time.

A source is a text file (one paragraph a line), a JSONL or Parquet file (one paragraph a record, with an optional
`group`), either text or JSONL compressed as .gz or .zst, a folder of these, or `datasets:NAME[:SPLIT]`. Everything
streams: what is held is one piece of text (one line for JSONL, one batch of records for Parquet). Decompression goes
through pyarrow, which, unlike zstandard's own reader, notices a truncated stream.

What comes out is Unicode NFC without control characters, with single spaces, at most 10,000 characters (longer
paragraphs are cut at white space) and at least three words; shorter pieces are dropped. A word is a run of letters
and digits, or one character of a script written without spaces.

    >>> [document.text for document in read(["notes.txt", "abstracts.jsonl.gz", "datasets:wikitext:train"])]
"""

from __future__ import annotations

import codecs
import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from subarch.errors import InvalidCorpus

LONGEST = 10_000
"""Characters of a document at most: bounds the memory, and keeps one endless line from being one document."""

DATASETS = "datasets:"
_COMPRESSION = {".gz": "gzip", ".zst": "zstd"}
_ENDINGS = (".txt", ".md", ".rst", ".jsonl", ".parquet")
_KNOWN = (*_ENDINGS, *(ending + packed for ending in _ENDINGS[:-1] for packed in _COMPRESSION))
_CHUNK = 1 << 20

# Cc without white space, the byte order mark, and surrogates without a partner (JSON can hold them, UTF-8 cannot)
_CONTROL = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\ufeff\ud800-\udfff]")
_PIECE = re.compile(rf".{{1,{LONGEST}}}(?=\s|\Z)|.{{{LONGEST}}}", re.DOTALL)
# Thai to Lao, Myanmar, Khmer, Kana, Han: each character counts as a word
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_THREE_WORDS = re.compile(rf"(?:[\W_]*+(?:[{_UNSPACED}]|[^\W_{_UNSPACED}]++)){{3}}")
# ASCII, Latin-1, general, CJK and full-width punctuation with white space; letters, digits and marks stay
_PUNCTUATION = re.compile(
    r"[\s!-/:-@\[-`{-~\u00a1\u00a7\u00ab\u00b6\u00b7\u00bb\u00bf\u2010-\u205e\u3001-\u3003\u3008-\u301f"
    r"\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65]+"
)


@dataclass(frozen=True, slots=True)
class Document:
    """A clean paragraph, and the name of what it must be held out together with (a package, an author), if any."""

    text: str
    group: str | None = None


def clean(text: str) -> str:
    """NFC, control characters removed, every run of white space (Unicode line separators too) one space."""
    return " ".join(unicodedata.normalize("NFC", _CONTROL.sub("", text)).split())


def identity(text: str) -> int:
    """64-bit hash of the text without case, punctuation and spacing: equal for exact duplicates.

    64 bits make one false duplicate among ten million documents a chance of 3e-6, at 8 bytes each.
    """
    key = _PUNCTUATION.sub(" ", text.casefold()).strip()
    return hash64(key)


def hash64(text: str) -> int:
    """A 64-bit hash that is the same in every process (unlike `hash`)."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def read(sources: Sequence[str | Path], text_column: str = "text") -> Iterator[Document]:
    """The documents of all sources, in the order given; folders recursively and sorted, hidden files skipped.

    `text_column` names the text of JSONL, Parquet and `datasets` records; their column `group`, where present, names
    the group. Data sets of the hub are streamed and never run code; the split is `train` unless named.

    Raises:
        InvalidCorpus: a source is missing, binary, not UTF-8, truncated or malformed, lacks the column, or no source
            holds any paragraph of three words.
    """
    empty = True
    for source in listed(sources):
        for document in _documents(source, text_column):
            empty = False
            yield document
    if empty:
        raise InvalidCorpus(
            f"no usable text in {', '.join(map(str, listed(sources))) or 'an empty list of sources'}: "
            "give text with paragraphs of at least three words"
        )


def listed(sources: Sequence[str | Path]) -> list[str | Path]:
    """A lone source is a list of one; without this a path would be read as a list of letters."""
    return [sources] if isinstance(sources, (str, Path)) else list(sources)


def files(source: str | Path) -> list[Path]:
    """The files a source consists of: itself, or those of a folder that have a known ending; none for a data set of
    the hub."""
    path = Path(source)
    if str(source).startswith(DATASETS):
        return sorted(file for file in Path(_dataset_name(str(source))[0]).rglob("*") if file.is_file())
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InvalidCorpus(
            f"{path}: no such file or folder; check the path (a Hugging Face data set is written datasets:NAME)"
        )
    inside = sorted(file for file in path.rglob("*") if file.name.lower().endswith(_KNOWN) and file.is_file())
    visible = [file for file in inside if not any(part.startswith(".") for part in file.relative_to(path).parts)]
    if not visible:
        raise InvalidCorpus(f"{path}: no text in this folder; files must end in one of {', '.join(_KNOWN)}")
    return visible


def _documents(source: str | Path, text_column: str) -> Iterator[Document]:
    if str(source).startswith(DATASETS):
        yield from _from_datasets(str(source), text_column)
        return
    for path in files(source):
        packed = path.suffix.lower() in _COMPRESSION
        kind = (path.with_suffix("") if packed else path).suffix.lower()
        if kind == ".parquet" and packed:
            raise InvalidCorpus(
                f"{path}: Parquet is compressed inside and cannot be streamed; decompress the file first"
            )
        if kind == ".parquet":
            yield from _from_parquet(path, text_column)
        elif kind == ".jsonl":
            yield from _from_jsonl(path, text_column)
        else:
            for paragraph in _paragraphs(_decoded(path)):
                yield from _pieces(paragraph, None)


def _from_jsonl(path: Path, text_column: str) -> Iterator[Document]:
    for number, line in enumerate(_lines(_decoded(path)), 1):
        where = f"{path}, line {number}"
        if not (line := line.strip("\ufeff \t\r")):
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:  # ValueError: also an integer of more than 4300 digits
            raise InvalidCorpus(f"{where}: not JSON ({error}); JSONL holds one object a line") from error
        if not isinstance(row, dict):
            raise InvalidCorpus(f"{where}: a JSON {type(row).__name__}, not an object; JSONL holds one object a line")
        yield from documents_of(row, text_column, where)


def _from_parquet(path: Path, text_column: str) -> Iterator[Document]:
    import pyarrow
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(path) as file:
            names = [name for name in file.schema_arrow.names if name in (text_column, "group")]
            if text_column not in names:
                raise _no_column(str(path), text_column, file.schema_arrow.names)
            for batch in file.iter_batches(batch_size=1024, columns=names):
                for row in batch.to_pylist():
                    number += 1
                    yield from documents_of(row, text_column, f"{path}, row {number}")
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InvalidCorpus(f"{path}, after row {number}: not a readable Parquet file: {error}") from error


def _from_datasets(source: str, text_column: str) -> Iterator[Document]:
    number = 0
    with explained(source):
        for row in streamed(source, text_column):
            number += 1
            yield from documents_of(row, text_column, f"{source}, row {number}")


def streamed(source: str, text_column: str) -> Any:
    """The rows of `datasets:NAME[:SPLIT]` as a streaming `IterableDataset`, without the columns that are of no use.

    Raises:
        InvalidCorpus: it cannot be loaded, or lacks the column.
    """
    import datasets

    name, split = _dataset_name(source)
    with explained(source):
        rows = datasets.load_dataset(name, split=split, streaming=True)
        if rows.column_names is not None:  # other columns (images, audio) would be decoded for nothing
            if text_column not in rows.column_names:
                raise _no_column(source, text_column, rows.column_names)
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
        raise _no_column(where, text_column, row)
    text, group = row[text_column], row.get("group")
    if not isinstance(text, (str, type(None))) or not isinstance(group, (str, int, type(None))):
        raise InvalidCorpus(
            f"{where}: {text_column!r} holds {type(text).__name__} and 'group' {type(group).__name__}; text is needed"
        )
    return _pieces(text or "", None if group is None else clean(str(group)) or None)


def _no_column(where: str, text_column: str, found: Iterable[str]) -> InvalidCorpus:
    names = ", ".join(sorted(map(repr, found))[:20]) or "none"
    return InvalidCorpus(f"{where}: no column {text_column!r}; found: {names}. Name the one that holds the text")


def _pieces(paragraph: str, group: str | None) -> Iterator[Document]:
    for raw in _split(paragraph):
        for piece in _split(clean(raw)):  # again, as NFC can lengthen a text
            if _THREE_WORDS.match(piece):
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


def _lines(chunks: Iterable[str]) -> Iterator[str]:
    waiting: list[str] = []
    for chunk in chunks:
        for index, part in enumerate(chunk.split("\n")):
            if index:
                yield "".join(waiting)
                waiting = []
            waiting.append(part)
    yield "".join(waiting)


def _decoded(path: Path) -> Iterator[str]:
    """The text of a file in chunks; refuses what is no UTF-8 text, naming the byte."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    position = 0
    unpacked = " (decompressed)" if path.suffix.lower() in _COMPRESSION else ""
    for chunk in chain(_bytes(path), [b""]):
        if position == 0 and chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise InvalidCorpus(f"{path}: UTF-16; convert it: iconv -f UTF-16 -t UTF-8 {path.name} > utf8.txt")
        if (zero := chunk.find(b"\0")) >= 0:
            raise InvalidCorpus(f"{path}: a binary file (a NUL byte at byte {position + zero}{unpacked}); give text")
        start = position - len(decoder.getstate()[0])
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            raise InvalidCorpus(
                f"{path}: not UTF-8 at byte {start + error.start}{unpacked} ({error.reason}); convert it, for example: "
                f"iconv -f ISO-8859-1 -t UTF-8 {path.name} > utf8.txt"
            ) from error
        position += len(chunk)
        yield text


def _bytes(path: Path) -> Iterator[bytes]:
    import pyarrow

    position = 0
    compression = _COMPRESSION.get(path.suffix.lower())
    try:
        with pyarrow.input_stream(str(path), compression=compression) as stream:
            while chunk := stream.read(_CHUNK):
                position += len(chunk)
                yield chunk
    except OSError as error:
        damaged = compression and error.errno is None
        kind = f"truncated or damaged {compression} data, write the file again" if damaged else "cannot be read"
        raise InvalidCorpus(f"{path}: {kind} (after {position} bytes of text): {error}") from error
