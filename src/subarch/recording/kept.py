"""What was paid for stays: every answered request is on the disk before the next one is looked at.

While a recording goes on, answers lie in a SQLite file beside the output, `vectors.parquet.partial`, one transaction
for each request: a kill at any instant loses at most the requests that are not answered yet. At the end the Parquet
file appears whole, and the other is deleted. A later recording into the same file adds the texts that it lacks.

    >>> with Kept(Path("vectors.parquet")) as kept:
    ...     kept.begin()
    ...     kept.describe(recording)
    ...     kept.add([(0, "a text", None, vector)])
    ...     kept.finish()
    1
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from subarch.errors import InvalidConfig
from subarch.run.files import replaced_file
from subarch.run.record import Record
from subarch.text.formats import parquet_file

METADATA = b"subarch.recording"
"""Key of the description in the metadata of the Parquet file."""

_ROWS = 4096


class Recording(Record):
    """Where vectors are from. The address of the server is not among it.

    Attributes:
        model: the name that was asked for.
        served: the name in the server's answers; "" if it gives none.
        prompt: stood before every text that was sent, if any; the column of texts is without it.
        dimensions: the width that was asked for; None: the model's own.
        date: of the first vector, as 2026-11-27.
    """

    NAME = "recording"

    model: str
    served: str
    prompt: str | None
    dimensions: int | None
    width: int
    date: str


class Kept:
    """The vectors of a recording, finished or not. A context manager; one process at a time may have it.

    Raises:
        InvalidConfig: the output is no recording, what is there is damaged or in use, or cannot be written.
    """

    def __init__(self, out: Path) -> None:
        self.out = out
        self.partial = out.with_name(f"{out.name}.partial")
        self._database: sqlite3.Connection | None = None
        self.recording: Recording | None = None

    def __enter__(self) -> Kept:
        if self.out.exists():
            self.recording = _described(self.out)
        if self.partial.exists():
            try:
                with self._told():
                    self._open()
                    found = self._rows("SELECT description FROM recording")
                    self.recording = Recording.model_validate_json(found[0][0]) if found else self.recording
            except BaseException:
                self._close()
                raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def _close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def texts(self) -> set[str]:
        """The texts that have a vector."""
        found = {text for batch in self._finished("text") for text in batch.column("text").to_pylist()}
        with self._told():
            return found | {text for (text,) in self._rows("SELECT text FROM vectors")}

    def first(self) -> tuple[str, NDArray[np.float32]] | None:
        """The first text that has a vector, to ask for it again."""
        for batch in self._finished("text", "vector"):
            return batch.column("text")[0].as_py(), np.array(batch.column("vector")[0].as_py(), np.float32)
        with self._told():
            rows = self._rows("SELECT text, vector FROM vectors ORDER BY place LIMIT 1")
        return (rows[0][0], np.frombuffer(rows[0][1], "<f4")) if rows else None

    def begin(self) -> None:
        """Make the file that answers go into, before any is asked for."""
        with self._told():
            self.out.parent.mkdir(parents=True, exist_ok=True)
            self._open()
        if self.recording is not None:
            self.describe(self.recording)  # here too, should the finished file be taken away

    def describe(self, recording: Recording) -> None:
        """Say where the vectors that follow are from."""
        self.recording = recording
        with self._told(), self._writing() as database:
            database.execute("DELETE FROM recording")
            database.execute("INSERT INTO recording VALUES (?)", (recording.model_dump_json(),))

    def add(self, rows: Iterable[tuple[int, str, str | None, NDArray[np.float32]]]) -> None:
        """Keep (place in the corpus, text, group, vector), if not kept yet; on the disk when this returns."""
        with self._told(), self._writing() as database:
            database.executemany(
                "INSERT OR IGNORE INTO vectors VALUES (?, ?, ?, ?)",
                ((place, text, group, vector.astype("<f4").tobytes()) for place, text, group, vector in rows),
            )

    def finish(self) -> int:
        """Write the Parquet file, with what it held before first, and delete the other; the number of its rows."""
        import pyarrow
        from pyarrow import parquet

        if self._database is None:
            return self._count()
        assert self.recording is not None
        fields = [
            ("text", pyarrow.string()),
            ("vector", pyarrow.list_(pyarrow.float32(), self.recording.width)),
            ("group", pyarrow.string()),
        ]
        schema = pyarrow.schema(fields, {METADATA: self.recording.to_json()})
        seen: set[str] = set()  # of a recording that was killed between its last two steps
        with self._told(), replaced_file(self.out) as partial:
            with parquet.ParquetWriter(partial, schema, compression="zstd") as writer:
                for batch in self._finished(*schema.names):
                    seen.update(batch.column("text").to_pylist())
                    writer.write_batch(batch.cast(schema))
                rows = self._database.execute("SELECT text, vector, grouping FROM vectors ORDER BY place, text")
                while chunk := rows.fetchmany(_ROWS):
                    fresh = [row for row in chunk if row[0] not in seen]
                    numbers = np.frombuffer(b"".join(vector for _, vector, _ in fresh), "<f4").astype(np.float32)
                    columns = [
                        pyarrow.array([text for text, _, _ in fresh], pyarrow.string()),
                        pyarrow.FixedSizeListArray.from_arrays(numbers, self.recording.width),
                        pyarrow.array([group for _, _, group in fresh], pyarrow.string()),
                    ]
                    writer.write_batch(pyarrow.record_batch(columns, schema=schema))
            with partial.open("rb") as file:
                os.fsync(file.fileno())
        self._close()
        self.partial.unlink()
        return self._count()

    def _count(self) -> int:
        with parquet_file(self.out) as file:
            return int(file.metadata.num_rows)

    def _finished(self, *columns: str) -> Iterator[Any]:
        """Batches of the Parquet file, if there is one."""
        if self.out.exists():
            with parquet_file(self.out, columns) as file:
                yield from file.iter_batches(batch_size=_ROWS, columns=list(columns))

    def _open(self) -> None:
        if self._database is None:
            self._database = sqlite3.connect(self.partial, timeout=0)
            self._database.execute("PRAGMA locking_mode = EXCLUSIVE")
            with self._writing() as database:
                database.execute("CREATE TABLE IF NOT EXISTS recording (description TEXT NOT NULL)")
                database.execute(
                    "CREATE TABLE IF NOT EXISTS vectors "
                    "(place INTEGER NOT NULL, text TEXT PRIMARY KEY, grouping TEXT, vector BLOB NOT NULL)"
                )

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """A transaction: all of it is on the disk at the end, or nothing is."""
        assert self._database is not None
        with self._database:
            self._database.execute("BEGIN IMMEDIATE")
            yield self._database

    def _rows(self, query: str) -> list[Any]:
        return [] if self._database is None else self._database.execute(query).fetchall()

    @contextmanager
    def _told(self) -> Iterator[None]:
        """What can go wrong with the files, in words."""
        import pyarrow

        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise InvalidConfig(f"{self.out}: another process records into it; wait for it") from error
            raise InvalidConfig(f"{self.partial}: cannot be read or written: {error}; {_SPACE}") from error
        except (sqlite3.DatabaseError, ValidationError) as error:
            raise InvalidConfig(
                f"{self.partial}: is damaged ({error}); delete it, and the texts in it are asked for again"
            ) from error
        except (OSError, pyarrow.ArrowException) as error:
            raise InvalidConfig(f"{self.out}: cannot be written: {error}; {_SPACE}") from error


_SPACE = "free some space, or choose another --out; finished work is kept"


def _described(path: Path) -> Recording:
    with parquet_file(path) as file:
        description = (file.schema_arrow.metadata or {}).get(METADATA)
    try:
        return Recording.model_validate_json(description or b"")
    except ValidationError as error:
        raise InvalidConfig(
            f"{path}: is there already, and was not written by `subarch record`; choose another --out"
        ) from error
