"""Texts with the vectors that some model gave them: a teacher that need not be here, or be open, to be learned from.

A file of Parquet or of JSON lines, with a column of text and one of vectors; `subarch record` writes one from any
endpoint, and anybody's script can. The model is not needed any more, so there are vectors for the recorded texts only.
Texts are compared as `subarch.text.read` hands them out: NFC, without control characters, with single spaces.

    >>> recorded = RecordedVectors.load(Path("vectors.parquet"))
    >>> recorded.embed_texts(recorded.texts[:2]).shape
    torch.Size([2, 768])

Vectors stay in an array of 32-bit numbers (16-bit where the file has these): a million of 768 take 3 GB. Parquet and
JSON lines stream; one JSON array would be held in memory as a whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from subarch.errors import InvalidCorpus, InvalidTeacher, show
from subarch.run.files import file_digest, unreadable
from subarch.text.formats import form_of, parquet_file, records
from subarch.text.read import clean

if TYPE_CHECKING:
    from torch import Tensor

VECTOR_COLUMNS = ("vector", "embedding")

SAME = 0.05
"""Two vectors of one text may differ by this share of their length (a cosine of 0.999), as endpoints differ by call."""

_BATCH = 1024


@dataclass(frozen=True)
class RecordedVectors:
    """Vectors of texts, without the model that made them.

    Attributes:
        name: the file's name.
        fingerprint: hash of the file's content and of the columns that are used.
        vectors: (number of texts, width) fp32 or fp16.
    """

    path: Path
    name: str
    fingerprint: str
    vectors: NDArray[np.floating[Any]] = field(repr=False)
    _rows: Mapping[str, int] = field(repr=False)

    @classmethod
    def load(cls, path: Path, text_column: str = "text", vector_column: str | None = None) -> RecordedVectors:
        """Read a file. Without `vector_column` it is `vector` or `embedding`, or the only column of lists of numbers.

        Raises:
            InvalidTeacher: it cannot be read, is of another format, lacks a column, holds no rows, or a row without
                text or without a sound vector of the same width as the others; names the row.
        """
        buffer = bytearray()
        rows: dict[str, int] = {}
        first = np.empty(0, np.float32)
        column = ""
        try:
            fingerprint = file_digest(path)
            for place, column, text, vector in _cells(path, text_column, vector_column):
                where = f"{path}, {place}"
                words = _checked_text(where, text_column, text)
                if not rows:
                    first = vector
                if why := flaw(vector, len(first)):
                    raise InvalidTeacher(f"{where}: the vector in {column!r} {why}; {_REMEDY}")
                if words not in rows:
                    rows[words] = len(rows)
                    buffer += vector.tobytes()
                    continue
                start = rows[words] * vector.nbytes
                if not agree(np.frombuffer(buffer[start : start + vector.nbytes], vector.dtype), vector):
                    raise InvalidTeacher(
                        f"{where}: the text {show(words)} has another vector in an earlier row; keep those of one model"
                    )
        except OSError as error:
            raise InvalidTeacher(unreadable(path, error)) from error
        except InvalidCorpus as error:
            raise InvalidTeacher(str(error)) from error
        if not rows:
            raise InvalidTeacher(f"{path}: holds no rows; record some texts: subarch record --out {path.name}")
        made_of = repr((fingerprint, text_column, column)).encode()
        return cls(
            path,
            path.name,
            hashlib.blake2b(made_of, digest_size=16).hexdigest(),
            np.frombuffer(buffer, first.dtype).reshape(len(rows), len(first)),
            rows,
        )

    @property
    def width(self) -> int:
        return int(self.vectors.shape[1])

    @property
    def texts(self) -> list[str]:
        """The distinct texts, clean, in the order of the file."""
        return list(self._rows)

    def __contains__(self, text: str) -> bool:
        return clean(text) in self._rows

    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """(n, width) fp32 vectors as they were recorded, in the order given.

        Raises:
            InvalidTeacher: some of the texts were not recorded.
        """
        import torch

        rows = [self._rows.get(clean(text), -1) for text in texts]
        if missing := [text for text, row in zip(texts, rows, strict=True) if row < 0]:
            raise InvalidTeacher(
                f"{self.path}: has no vector for {len(set(missing))} of {len(set(texts))} texts, first "
                f"{show(missing[0])}; give the file itself as the corpus, or record these too: "
                f"subarch record --corpus ... --out {self.path.name}"
            )
        return torch.from_numpy(self.vectors[rows].astype(np.float32))


Cell = tuple[str, str, Any, NDArray[np.floating[Any]]]
"""(place in the file, name of the column of vectors, text, vector)"""


def _cells(path: Path, text_column: str, vector_column: str | None) -> Iterator[Cell]:
    form = form_of(path)
    if form == "parquet":
        return _of_parquet(path, text_column, vector_column)
    if form == "json":
        return _of_json(path, text_column, vector_column)
    raise InvalidTeacher(
        f"{path}: recorded vectors are read from Parquet or JSON lines, and this is neither by content and name; save "
        "text and vector as columns of such a file, for example with pandas: frame.to_parquet('vectors.parquet')"
    )


def _of_parquet(path: Path, text_column: str, vector_column: str | None) -> Iterator[Cell]:
    import pyarrow.compute
    from pyarrow import types

    with parquet_file(path, (text_column,)) as file:
        schema = file.schema_arrow
        lists = [
            name
            for name, kind in zip(schema.names, schema.types, strict=True)
            if (types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))
            and (types.is_floating(kind.value_type) or types.is_integer(kind.value_type))
        ]
        column = _vector_column(str(path), schema.names, lists, vector_column)
        if column not in lists:
            kind = schema.field(column).type
            raise InvalidTeacher(f"{path}: column {column!r} holds {kind}, not lists of numbers; {_REMEDY}")
        is_half = types.is_float16(schema.field(column).type.value_type)
        dtype = np.float16 if is_half else np.float32
        number = 0
        for batch in file.iter_batches(batch_size=_BATCH, columns=list(dict.fromkeys((text_column, column)))):
            vectors = batch.column(column)
            lengths = pyarrow.compute.list_value_length(vectors).to_pylist()
            values = vectors.flatten()
            holes = values.is_null().to_numpy(zero_copy_only=False) if values.null_count else None
            with np.errstate(over="ignore"):
                numbers = values.to_numpy(zero_copy_only=False).astype(dtype)
            start = 0
            for text, length in zip(batch.column(text_column).to_pylist(), lengths, strict=True):
                number += 1
                if length is None:
                    raise InvalidTeacher(f"{path}, row {number}: no vector in column {column!r}; {_REMEDY}")
                if holes is not None and holes[start : start + length].any():
                    raise InvalidTeacher(f"{path}, row {number}: the vector in {column!r} has a hole (null); {_REMEDY}")
                yield f"row {number}", column, text, numbers[start : start + length]
                start += length


def _of_json(path: Path, text_column: str, vector_column: str | None) -> Iterator[Cell]:
    column = ""
    for place, record in records(path, only=(text_column,)):
        where = f"{path}, {place}"
        lists = [name for name, value in record.items() if _is_numbers(value)]
        column = column or _vector_column(where, list(record), lists, vector_column)
        value = record.get(column)
        if value is None:
            raise InvalidTeacher(f"{where}: no vector in column {column!r}; {_REMEDY}")
        if value != [] and column not in lists:
            raise InvalidTeacher(f"{where}: column {column!r} holds {show(value)}, not a list of numbers; {_REMEDY}")
        try:
            with np.errstate(over="ignore"):
                vector = np.array(value, np.float32)
        except OverflowError:  # an integer beyond any float
            vector = np.full(len(value), np.inf, np.float32)
        yield place, column, record[text_column], vector


_REMEDY = "record the text again by the same model, or leave the row out"


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and {type(item) for item in value} <= {int, float}


def _vector_column(where: str, names: Sequence[str], lists: Sequence[str], asked: str | None) -> str:
    """The column asked for, the one with a usual name, or the only one that holds lists of numbers."""
    if asked is not None:
        if asked in names:
            return asked
        raise InvalidTeacher(f"{where}: no column {asked!r}; found: {', '.join(map(repr, names))}")
    for candidates in ([name for name in VECTOR_COLUMNS if name in names], lists):
        if len(candidates) == 1:
            return candidates[0]
    raise InvalidTeacher(
        f"{where}: {len(lists) or 'no'} columns hold lists of numbers ({', '.join(map(repr, lists or names))}); name "
        "that of the vectors 'vector'"
    )


def _checked_text(where: str, column: str, text: Any) -> str:
    if not isinstance(text, str) or not (words := clean(text)):
        raise InvalidTeacher(f"{where}: no text in column {column!r} but {show(text)}; {_REMEDY}")
    return words


def flaw(vector: NDArray[np.floating[Any]], width: int) -> str | None:
    """Why a vector cannot be learned from beside others of `width` numbers: what to say after "the vector"."""
    if not len(vector):
        return "holds no numbers"
    if len(vector) != width:
        return f"has {len(vector)} numbers, and others have {width}"
    wide = vector.astype(np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        square = np.dot(wide, wide)
    if not np.isfinite(square):
        return "holds NaN, or infinite or too large numbers"
    return "is zero, and has no direction" if square == 0 else None


def agree(kept: NDArray[np.floating[Any]], again: NDArray[np.floating[Any]]) -> bool:
    """Can both be what one model says of one text?"""
    kept, again = kept.astype(np.float64), again.astype(np.float64)
    return bool(np.linalg.norm(kept - again) <= SAME * np.linalg.norm(kept))
