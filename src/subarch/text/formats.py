"""A file of any usual format -> its records, or its text. Corpora, tasks and scoring all read through this module.

The content decides before the ending does: JSON, Parquet and compressed data are recognised under any name, and markup
is refused, so that braces and tags are never read as prose. Text is UTF-8. Lines end at a line feed only:
`str.splitlines` would also split at Unicode separators, which occur inside sentences. CSV is quoted as in RFC 4180, and
refused where it is not well formed. TSV is unquoted, as in GLUE: an unbalanced quote cannot join two rows.
Everything streams, except a JSON array or object, which is held in memory as a whole.

    >>> next(records(Path("RTE/dev.tsv")))
    ('line 2', {'index': '0', 'sentence1': 'Dana Reeve, the widow of ...', 'sentence2': ..., 'label': 'not_entailment'})
"""

from __future__ import annotations

import bz2
import codecs
import gzip
import json
import lzma
import re
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import Any, BinaryIO, Literal
from xml.etree import ElementTree

from subarch.errors import InvalidCorpus
from subarch.run.files import unreadable

Record = dict[str, Any]
"""A row by its column names; what a cell holds is up to the file."""

Form = Literal["text", "json", "csv", "tsv", "parquet", "markup", "xml", "conll"]

ENDINGS: Mapping[str, Form] = {
    **dict.fromkeys((".txt", ".md", ".rst"), "text"),
    **dict.fromkeys((".jsonl", ".ndjson", ".json"), "json"),
    **{".csv": "csv", ".tsv": "tsv", ".parquet": "parquet"},
    **dict.fromkeys((".html", ".htm", ".xhtml", ".xml"), "markup"),
}
READ = tuple(ending for ending, form in ENDINGS.items() if form != "markup")
COMPRESSIONS: Mapping[str, tuple[str, re.Pattern[bytes]]] = {
    ".gz": ("gzip", re.compile(rb"\x1f\x8b\x08")),
    ".zst": ("zstd", re.compile(rb"\x28\xb5\x2f\xfd")),
    ".bz2": ("bzip2", re.compile(rb"BZh[1-9](1AY&SY|\x17rE8P\x90)")),
    ".xz": ("xz", re.compile(rb"\xfd7zXZ\x00")),
}
"""Ending -> name, and how such a file begins."""

FOREIGN: Mapping[str, re.Pattern[bytes]] = {
    "an archive; unpack it and give the files or their folder": re.compile(
        rb"7z\xbc\xaf\x27\x1c|Rar!\x1a\x07|.{257}ustar", re.DOTALL
    ),
    "a ZIP archive, or a document that is one (.docx, .odt, .epub); unpack the archive, or save the document's text "
    "as .txt": re.compile(rb"PK(\x03\x04|\x05\x06)"),
    "a document with its layout; save its text as .txt": re.compile(rb"%PDF-|\{\\rtf|\xd0\xcf\x11\xe0"),
}
"""What holds text in a form that is not read, with what to do, and how such a file begins."""

LONGEST_ROW = 10_000_000
"""Characters of a CSV row at most: where a quote is never closed, the rest of the file is not collected as one row."""

_CHUNK = 1 << 20
_ZSTD_CHUNK = 1 << 13  # compressed bytes at a time; what they decompress to is held at once
_ZSTD_WINDOW = 1 << 31
_SAMPLE = 1 << 16  # characters that are looked at to tell the format

_JSON_START = re.compile(r'\{\s*["}]|\[\s*[{"]')
_DOCUMENT_START = re.compile(r"<(!doctype\b|\?xml\b|html\b)", re.IGNORECASE)
_ELEMENT_START = re.compile(r"<!--|<([a-z][\w:.-]*)(\s+[\w:.-]+\s*=[^<>]*)?/?>", re.IGNORECASE)
# a quoted cell, or an unquoted one without quotes
_CELL = {separator: re.compile(rf'"((?:[^"]|"")*+)"|([^"{separator}\r\n]*+)') for separator in ",;\t"}


class NotRecords(InvalidCorpus):
    """A sound file that holds neither text nor records that can be used: markup, or JSON of another shape."""


class MissingColumn(InvalidCorpus):
    """Records without the column that is asked for."""

    def __init__(self, where: str, column: str, found: Iterable[str]) -> None:
        names = ", ".join(sorted(map(repr, found))[:20]) or "none"
        super().__init__(f"{where}: no column {column!r}; found: {names}. Name the column that holds the text")


def form_of(path: Path) -> Form:
    """The format of a file, by its content, else by its ending.

    Raises:
        InvalidCorpus: it cannot be read or decompressed, or holds text in a form that is not read (`FOREIGN`).
    """
    ending, packed = _ending(path), _compression(path)
    if ending == ".parquet" and packed:
        raise InvalidCorpus(f"{path}: Parquet is compressed inside and cannot be streamed; decompress the file first")
    form = ENDINGS.get(ending, "text")
    head = next(_bytes(path), b"")[:_SAMPLE]
    if head.startswith(b"PAR1") or form == "parquet":
        return "parquet"
    for what, magic in FOREIGN.items():
        if magic.match(head):
            raise InvalidCorpus(f"{path}: {what}")
    start = head.decode(errors="replace").lstrip("\ufeff \t\r\n")
    if _JSON_START.match(start) or _are_json_lines(start):
        return "json"
    if _DOCUMENT_START.match(start) or (ending not in (".md", ".rst") and _is_element(start)):
        return "markup"
    return form


def records(
    path: Path,
    *,
    only: Sequence[str] = (),
    form: Form | None = None,
    header: Sequence[str] = (),
    ragged: Literal["", "longer", "shorter"] = "",
) -> Iterator[tuple[str, Record]]:
    """The records of a file, each with its place in it ("line 3", "row 3") for messages. Column names are stripped.

    CSV may be separated by semicolons or tabs, if no name in its header is followed by a comma.
    A JSON file may hold an object a line, an array of objects, of texts or of arrays (columns "0", "1", ...), an
    object of objects (a table by index), or one object.

    Args:
        only: columns that are used, of which the first must be there; others are not read from Parquet.
        form: the format, where neither content nor ending tell it; only by this `xml` (elements with attributes) and
            `conll` (a word a line, its tag last; a record is a sentence: its `tokens`, its `tags` if there are several
            columns, and the number of its first `line`).
        header: column names of a TSV file without a header line.
        ragged: TSV rows of another length than the header are refused; but with `longer`, fields behind the last
            column are left out; with `shorter`, incomplete rows are skipped with a warning.

    Raises:
        InvalidCorpus: not readable, not UTF-8, or not well-formed, with file, line and byte; `MissingColumn`,
            `NotRecords`.
    """
    form = form or form_of(path)
    if form == "markup":
        raise NotRecords(
            f"{path}: HTML or XML, and tags are not text; extract its text first (trafilatura, BeautifulSoup's "
            "get_text) and save it as .txt or .jsonl"
        )
    if form == "text":
        raise NotRecords(f"{path}: plain text, not records; save them as JSON lines, CSV, TSV or Parquet")
    if form == "parquet":
        found = _parquet(path, only)
    elif form == "tsv":
        found = _tsv(path, header, ragged)
    else:
        found = {"json": _json_records, "csv": _csv, "xml": _xml, "conll": _conll}[form](path)
    for place, record in found:
        if only and only[0] not in record:
            raise MissingColumn(f"{path}, {place}", only[0], record)
        yield place, record


def decoded(path: Path) -> Iterator[str]:
    """The text of a file in chunks, decompressed.

    Raises:
        InvalidCorpus: it cannot be read, is damaged, or is not UTF-8 text; names the line and the byte.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    position, line = 0, 1
    unpacked = " (decompressed)" if _compression(path) else ""
    for chunk in chain(_bytes(path), [b""]):
        if position == 0 and chunk.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            raise InvalidCorpus(f"{path}: UTF-16; convert it: iconv -f UTF-16 -t UTF-8 {path.name} > utf8.txt")
        if (zero := chunk.find(b"\0")) >= 0:
            raise InvalidCorpus(f"{path}: a binary file (a NUL byte at byte {position + zero}{unpacked}); give text")
        pending = decoder.getstate()[0]
        try:
            text = decoder.decode(chunk, final=not chunk)
        except UnicodeDecodeError as error:
            line += chunk.count(b"\n", 0, max(error.start - len(pending), 0))
            raise InvalidCorpus(
                f"{path}, line {line}: not UTF-8 at byte {position - len(pending) + error.start}{unpacked} "
                f"(0x{error.object[error.start]:02x}, {error.reason}); convert it, for example: "
                f"iconv -f ISO-8859-1 -t UTF-8 {path.name} > utf8.txt"
            ) from error
        position += len(chunk)
        line += chunk.count(b"\n")
        yield text


def _ending(path: Path) -> str:
    """The ending that says the format: of `a.json.gz` it is `.json`."""
    return (path.with_suffix("") if path.suffix.lower() in COMPRESSIONS else path).suffix.lower()


def is_known(path: Path) -> bool:
    """Does the ending say that this is text or records?"""
    return _ending(path) in READ


def _compression(path: Path) -> str:
    """The ending under which this kind of compressed data is known, by the first bytes, else by the ending; or ""."""
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise InvalidCorpus(unreadable(path, error)) from error
    by_content = (ending for ending, (_, magic) in COMPRESSIONS.items() if magic.match(start))
    return next(by_content, path.suffix.lower() if path.suffix.lower() in COMPRESSIONS else "")


def _bytes(path: Path) -> Iterator[bytes]:
    """The bytes of a file in chunks, decompressed."""
    import zstandard

    ending = _compression(path)
    openers = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    position = 0
    try:
        with openers.get(ending, open)(path, "rb") as file:  # type: ignore[operator]
            for chunk in _zstd(file) if ending == ".zst" else iter(lambda: file.read(_CHUNK), b""):
                position += len(chunk)
                yield chunk
    except (OSError, EOFError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise InvalidCorpus(unreadable(path, error)) from error
        name = COMPRESSIONS[ending][0]
        if "too much memory" in str(error):
            raise InvalidCorpus(
                f"{path}: compressed with a window above 2 GiB, which is not read; compress it again: "
                f"zstd -dc --long=31 --memory=4096MB {path.name} | zstd -o smaller.zst"
            ) from error
        raise InvalidCorpus(
            f"{path}: truncated or damaged {name} data (after {position} bytes of text): {error}; write the file again"
        ) from error


def _zstd(file: BinaryIO) -> Iterator[bytes]:
    """By frames, because zstandard's own stream reader does not notice a truncated last one."""
    import zstandard

    decompressor = zstandard.ZstdDecompressor(max_window_size=_ZSTD_WINDOW)
    frame = None
    while data := file.read(_ZSTD_CHUNK):
        while data:
            frame = frame or decompressor.decompressobj()
            if chunk := frame.decompress(data):
                yield chunk
            data = frame.unused_data if frame.eof else b""
            if frame.eof:
                frame = None
    if frame is not None:
        raise EOFError("the last frame is not complete")


def _are_json_lines(start: str) -> bool:
    """Is at least half of the lines of a sample a JSON object each?"""
    lines = [line.strip() for line in start.split("\n")[:200]]
    lines = [line for line in lines[:-1] if line] or lines  # the last line of the sample may be cut
    return 2 * sum(line.startswith("{") and isinstance(_parsed(line), dict) for line in lines) >= len(lines)


def _is_element(start: str) -> bool:
    """A comment, a tag with attributes, or one that is closed again; `<unk>` alone is a word."""
    match = _ELEMENT_START.match(start)
    return bool(match and (not match[1] or match[2] or f"</{match[1]}>" in start))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # ValueError: also an integer of more than 4300 digits
        return None


def _loaded(text: str, path: Path, line: int) -> Any:
    try:
        return json.loads(text.strip("\ufeff"))  # also in the middle, where files were joined
    except (ValueError, RecursionError) as error:
        line += error.lineno - 1 if isinstance(error, json.JSONDecodeError) else 0
        raise InvalidCorpus(f"{path}, line {line}: not JSON ({error}); give an object a line, or an array") from error


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line without its line feed)."""
    number = 1
    waiting: list[str] = []
    first = True
    for chunk in decoded(path):
        if first and chunk:
            chunk, first = chunk.removeprefix("\ufeff"), False
        for index, part in enumerate(chunk.split("\n")):
            if index:
                yield number, "".join(waiting)
                waiting, number = [], number + 1
            waiting.append(part)
    yield number, "".join(waiting)


def _filled(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that are not blank, without a carriage return at their end."""
    return ((number, line.removesuffix("\r")) for number, line in _lines(path) if line.strip())


def _json_records(path: Path) -> Iterator[tuple[str, Record]]:
    lines = _filled(path)
    first = list(islice(lines, 2))
    if not first:
        return
    number, opening = first[0]
    rest = chain(first, lines)
    # a line that ends inside an array or object is the beginning of one that goes over several lines
    if len(first) == 1 or (opening.rstrip().endswith(("[", "{", ",")) and _parsed(opening) is None):
        yield from _json_document(_loaded("\n".join(line for _, line in rest), path, number), path, number)
        return
    for number, line in rest:
        value = _loaded(line, path, number)
        if not isinstance(value, dict):
            raise NotRecords(
                f"{path}, line {number}: a JSON {type(value).__name__}, not an object; give an object a line"
            )
        yield f"line {number}", _stripped(value)


def _json_document(value: Any, path: Path, line: int) -> Iterator[tuple[str, Record]]:
    if isinstance(value, dict) and value and all(isinstance(item, dict) for item in value.values()):
        value = list(value.values())
    if isinstance(value, dict):
        yield f"line {line}", _stripped(value)
        return
    if not isinstance(value, list):
        raise NotRecords(f"{path}, line {line}: a JSON {type(value).__name__}, not an array of objects or texts")
    for number, item in enumerate(value, 1):
        if isinstance(item, list):
            yield f"item {number}", {str(column): cell for column, cell in enumerate(item)}
        elif isinstance(item, dict):
            yield f"item {number}", _stripped(item)
        elif isinstance(item, str):
            yield f"item {number}", {"text": item}
        else:
            raise NotRecords(f"{path}, item {number}: a JSON {type(item).__name__}, not an object with named fields")


def _stripped(record: Mapping[str, Any]) -> Record:
    return {name.strip(): value for name, value in record.items()}


def _header(names: Iterable[str], path: Path) -> list[str]:
    header = [name.strip() for name in names]
    if twice := {name for name in header if header.count(name) > 1}:
        raise InvalidCorpus(f"{path}, line 1: the column {min(twice)!r} occurs twice; rename one of them")
    return header


def _tsv(path: Path, header: Sequence[str], ragged: str) -> Iterator[tuple[str, Record]]:
    skipped = 0
    for number, line in _filled(path):
        fields = line.split("\t")
        if not header:
            header = _header(fields, path)
            continue
        problem = f"{path}, line {number}: {len(fields)} fields for {len(header)} columns ({', '.join(header)}); "
        if len(fields) > len(header) and ragged != "longer":
            raise InvalidCorpus(
                f"{problem}a tab inside a field cannot be told from one between fields: replace it by a space, or "
                "save as CSV or JSON lines"
            )
        if len(fields) < len(header):
            if ragged != "shorter":
                raise InvalidCorpus(f"{problem}the row is cut off, or has a line break inside a field")
            skipped += 1
            continue
        yield f"line {number}", dict(zip(header, fields, strict=False))
    if skipped:
        warnings.warn(f"{path}: {skipped} rows are cut off and were left out", stacklevel=2)


def _csv(path: Path) -> Iterator[tuple[str, Record]]:
    header: list[str] = []
    separator = ","
    for first, last, row in _csv_rows(path):
        place = f"line {first}" if first == last else f"lines {first} to {last}"
        if not header:
            separator = _separator(row)
        fields = _cells(row, separator)
        if fields is None:
            raise InvalidCorpus(
                f"{path}, {place}: not CSV (RFC 4180): a double quote inside a cell; put the cell in double quotes and "
                "double those that are text, or save as TSV or JSON lines"
            )
        if not header:
            header = _header(fields, path)
            continue
        if len(fields) != len(header):
            raise InvalidCorpus(
                f"{path}, {place}: {len(fields)} fields for {len(header)} columns ({', '.join(header)}); put fields "
                "with a separator or line break in double quotes"
            )
        yield place, dict(zip(header, fields, strict=True))


def _csv_rows(path: Path) -> Iterator[tuple[int, int, str]]:
    """(first line, last line, text) of each row: its quotes come in pairs, so it ends with the line that makes them so.

    Not csv.reader: that one takes a stray quote as text, and what follows the next one as well, and so joins rows.
    """
    waiting: list[str] = []
    first = last = size = 0
    is_open = False
    for number, line in _lines(path):
        if not waiting and not line.strip():
            continue
        first = first if waiting else number
        waiting.append(line)
        is_open ^= line.count('"') % 2 == 1
        last, size = number, size + len(line)
        if not is_open:
            yield first, last, "\n".join(waiting).removesuffix("\r")
            waiting, size = [], 0
        elif size > LONGEST_ROW:
            break
    if waiting:
        raise InvalidCorpus(
            f"{path}, line {first}: not CSV: a double quote of this row is not closed (until line {last}); close it, "
            "double it if it is text, or save as TSV or JSON lines"
        )


def _separator(header: str) -> str:
    """A comma; where there is none between the names, the semicolon or tab that spreadsheets write instead."""
    names = re.sub(r'"(?:[^"]|"")*+"', "", header)
    return next((separator for separator in ",;\t" if separator in names), ",")


def _cells(row: str, separator: str) -> list[str] | None:
    """The cells of a CSV row; None where it is not well formed."""
    if '"' not in row and "\r" not in row:
        return row.split(separator)
    cells: list[str] = []
    at = 0
    while match := _CELL[separator].match(row, at):
        cells.append(match[2] if match[1] is None else match[1].replace('""', '"'))
        at = match.end() + 1
        if match.end() == len(row):
            return cells
        if row[match.end()] != separator:
            break
    return None


def _xml(path: Path) -> Iterator[tuple[str, Record]]:
    try:
        root = ElementTree.fromstring("".join(decoded(path)))
    except ElementTree.ParseError as error:
        raise InvalidCorpus(f"{path}: not XML: {error}") from error
    for number, item in enumerate(root, 1):
        yield f"item {number}", dict(item.attrib) | {child.tag: child.text or "" for child in item}


def _conll(path: Path) -> Iterator[tuple[str, Record]]:
    """Sentences, between blank lines or lines of -DOCSTART-; columns are between tabs, or between spaces."""
    width, first, words = 0, 0, list[list[str]]()
    for number, line in chain(_lines(path), [(0, "")]):
        line = line.strip(" \r\n")
        fields = line.split("\t") if "\t" in line else re.split(" +", line)
        if not line.strip() or fields[0] == "-DOCSTART-":
            if words:
                tags = {"tags": [fields[-1] for fields in words]} if width > 1 else {}
                yield f"line {first}", {"tokens": [fields[0] for fields in words], **tags, "line": first}
            words = []
            continue
        width = width or len(fields)
        if len(fields) != width or not fields[0] or not fields[-1]:
            raise InvalidCorpus(
                f"{path}, line {number}: {sum(map(bool, fields))} columns, where lines before have {width}; give a "
                "word and its tag on each line, and a blank line between sentences"
            )
        first = first if words else number
        words.append(fields)


@contextmanager
def parquet_file(path: Path, needed: Sequence[str] = ()) -> Iterator[Any]:
    """An open `pyarrow.parquet.ParquetFile` that has the columns `needed`.

    Raises:
        InvalidCorpus: it is not readable, or damaged (also where that shows while it is read); `MissingColumn`.
    """
    import pyarrow
    from pyarrow import parquet

    try:
        # ParquetFile and not read_table: that one takes parts of the path for columns. A buffer would hold all of it
        with parquet.ParquetFile(path, pre_buffer=False, buffer_size=_CHUNK) as file:
            names = file.schema_arrow.names
            for column in needed:
                if column not in names:
                    raise MissingColumn(str(path), column, names)
            yield file
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InvalidCorpus(unreadable(path, error, f"not a readable Parquet file: {error}")) from error


def _parquet(path: Path, only: Sequence[str]) -> Iterator[tuple[str, Record]]:
    number = 0
    with parquet_file(path, only[:1]) as file:
        wanted = [name for name in file.schema_arrow.names if not only or name in only]
        for batch in file.iter_batches(batch_size=1024, columns=wanted):
            for row in batch.to_pylist():
                number += 1
                yield f"row {number}", row
