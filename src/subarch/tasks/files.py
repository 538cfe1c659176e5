"""Files -> records: one reader for every format that a task comes in, strict and without guessing.

Text is UTF-8, with or without a byte order mark; anything else is refused by naming the byte. Lines end at a line
feed and nowhere else: `str.splitlines` would also split at Unicode separators, which stand inside sentences. TSV is
unquoted (a quote is a letter like any other, as in GLUE), CSV is quoted. Keys lose white space at their ends.

    >>> records(Path("RTE/dev.tsv"))[0]
    {'index': '0', 'sentence1': 'Dana Reeve, the widow of ...', 'sentence2': ..., 'label': 'not_entailment'}
"""

from __future__ import annotations

import codecs
import csv
import io
import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from subarch.errors import InvalidTask

Record = dict[str, Any]
FORMS = ("tsv", "csv", "jsonl", "json", "parquet", "xml")


def records(path: Path, form: str = "", header: Sequence[str] = (), ragged: str = "") -> list[Record]:
    """The records of a file, each with its columns by name.

    Args:
        form: one of FORMS; else the ending says it.
        header: names of the columns of a TSV file that has no header line.
        ragged: what to do with TSV rows of another length, see `Layout`.

    Raises:
        InvalidTask: not readable, not UTF-8, or not of its format, with file, line and byte.
    """
    form = form or path.suffix.lower().lstrip(".")
    if form == "parquet":
        return _parquet(path)
    text = decoded(path)
    if form == "tsv":
        return _tsv(text, path, header, ragged)
    if form == "csv":
        return _csv(text, path)
    if form == "jsonl":
        return [_object(_json(line, f"{path}, line {n}"), f"{path}, line {n}") for n, line in _lines(text)]
    if form == "json":
        return _json_rows(_json(text, str(path)), path)
    if form == "xml":
        return _xml(text, path)
    raise InvalidTask(f"{path}: unknown kind of file; known endings are {', '.join(FORMS)}")


def decoded(path: Path) -> str:
    """The text of a file without its byte order mark."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InvalidTask(f"{path}: cannot be read: {error}") from error
    if raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise InvalidTask(f"{path}: UTF-16; convert it: iconv -f UTF-16 -t UTF-8 {path.name} > utf8{path.suffix}")
    try:
        return raw.decode("utf-8").removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise InvalidTask(
            f"{path}, line {line}: not UTF-8 at byte {error.start} (0x{raw[error.start]:02x}, {error.reason}); convert "
            f"it, for example: iconv -f ISO-8859-1 -t UTF-8 {path.name} > utf8{path.suffix}"
        ) from error


def _lines(text: str) -> list[tuple[int, str]]:
    """(number from 1, line) of every line that holds anything."""
    numbered = ((n, line.removesuffix("\r")) for n, line in enumerate(text.split("\n"), 1))
    return [(n, line) for n, line in numbered if line.strip()]


def _tsv(text: str, path: Path, header: Sequence[str], ragged: str) -> list[Record]:
    lines = _lines(text)
    if not header and lines:
        header = [name.strip() for name in lines.pop(0)[1].split("\t")]
    found, skipped = [], 0
    for number, line in lines:
        fields = line.split("\t")
        if len(fields) > len(header) and ragged != "longer":
            raise InvalidTask(
                f"{path}, line {number}: {len(fields)} fields for {len(header)} columns ({', '.join(header)}); a tab "
                "inside a field cannot be told from one between fields: replace it by a space, or save as CSV or JSONL"
            )
        if len(fields) < len(header):
            if ragged != "shorter":
                raise InvalidTask(
                    f"{path}, line {number}: {len(fields)} fields for {len(header)} columns ({', '.join(header)}); the "
                    "row is cut off, or has a line break inside a field"
                )
            skipped += 1
            continue
        found.append(dict(zip(header, fields, strict=False)))
    if skipped:
        warnings.warn(f"{path}: {skipped} rows are cut off and were left out", stacklevel=2)
    return found


def _csv(text: str, path: Path) -> list[Record]:
    # newline="": line breaks inside quotes stay as they are; StringIO splits at line feeds and carriage returns only
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        rows = []
        for fields in reader:
            if len(fields) not in (0, len(header)):
                raise InvalidTask(
                    f"{path}, line {reader.line_num}: {len(fields)} fields for {len(header)} columns "
                    f"({', '.join(header)}); put fields with a comma in double quotes"
                )
            if fields:
                rows.append(dict(zip(header, fields, strict=True)))
    except csv.Error as error:
        raise InvalidTask(f"{path}, line {reader.line_num}: not CSV: {error}") from error
    return rows


def _json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidTask(f"{where}: not JSON: {error}") from error


def _object(value: Any, where: str) -> Record:
    if not isinstance(value, Mapping):
        raise InvalidTask(f"{where}: a JSON {type(value).__name__}, not an object with named fields")
    return {str(key).strip(): item for key, item in value.items()}


def _json_rows(value: Any, path: Path) -> list[Record]:
    """Rows of a JSON file: a list of objects or of lists, one object, or an object of numbered objects."""
    if isinstance(value, Mapping) and value and all(isinstance(item, Mapping) for item in value.values()):
        value = list(value.values())
    elif isinstance(value, Mapping):
        value = [value]
    if not isinstance(value, list):
        raise InvalidTask(f"{path}: a JSON {type(value).__name__}, not a list of rows")
    return [
        {str(n): part for n, part in enumerate(item)}
        if isinstance(item, list)
        else _object(item, f"{path}, item {row}")
        for row, item in enumerate(value, 1)
    ]


def _xml(text: str, path: Path) -> list[Record]:
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise InvalidTask(f"{path}: not XML: {error}") from error
    return [dict(item.attrib) | {child.tag: child.text or "" for child in item} for item in root]


def _parquet(path: Path) -> list[Record]:
    import pyarrow
    from pyarrow import parquet

    try:
        # ParquetFile and not read_table: that one takes parts of the path for columns
        with parquet.ParquetFile(path) as file:
            rows: list[Record] = file.read().to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise InvalidTask(f"{path}: not a readable Parquet file: {error}") from error
    return rows
