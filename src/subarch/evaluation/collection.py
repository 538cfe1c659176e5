"""A collection to search in, in the layout of BEIR: documents, queries, and which documents answer which query.

    corpus.jsonl     {"_id": "d1", "title": "a title, or none", "text": "what the document says"}
    queries.jsonl    {"_id": "q1", "text": "what is asked"}
    qrels/test.tsv   query-id, corpus-id, score: whole numbers from 0, and 0 is not relevant

    >>> collection = Collection.read(Path("cranfield"), "test")
    >>> len(collection.documents), len(collection.queries), collection.grades["1"]["184"]
    (1400, 225, 1)

A document is its title and its text, with a space between them, as in BEIR. What has no judgement is not relevant.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from subarch.errors import InvalidTask, show
from subarch.text.formats import Form, records

_COLUMNS = ("query-id", "corpus-id", "score")
_LAYOUT = "a collection in the layout of BEIR has corpus.jsonl, queries.jsonl and qrels/test.tsv"


@dataclass(frozen=True, slots=True)
class Collection:
    """Documents and the queries that are scored: those with at least one relevant document.

    Attributes:
        documents: text by id.
        queries: text by id.
        grades: by query and document, 0 or more; what is not in it is 0.
        warnings: what is odd about the files.
    """

    name: str
    part: str
    source: str
    documents: dict[str, str]
    queries: dict[str, str]
    grades: dict[str, dict[str, int]]
    warnings: tuple[str, ...]

    @classmethod
    def read(cls, folder: Path, part: str) -> Collection:
        """Read a folder; `part` names the file of judgements.

        Raises:
            InvalidTask: a missing or empty file, an id that occurs twice or is unknown, a query without text, a grade
                that is no whole number from 0, no query with a relevant document.
            InvalidCorpus: a file that is not JSON lines or TSV.
        """
        documents = _texts(_file(folder, "corpus.jsonl"), ("title", "text"))
        asked = _texts(_file(folder, "queries.jsonl"), ("text",))
        judged = _grades(_file(folder, f"qrels/{part}.tsv"), asked, documents)
        grades = {query: found for query in asked if any((found := judged.get(query, {})).values())}
        if not grades:
            raise InvalidTask(
                f"{folder}: no query has a relevant document in qrels/{part}.tsv, so nothing can be scored"
            )
        if unasked := [query for query in grades if not asked[query]]:
            raise InvalidTask(f"{folder / 'queries.jsonl'}: the query {unasked[0]!r} has no text; give it one")
        warnings = []
        if left := len(asked) - len(grades):
            warnings.append(
                f"{left:,} of {len(asked):,} queries have no relevant document in qrels/{part}.tsv and are not scored"
            )
        if empty := sum(not text for text in documents.values()):
            warnings.append(f"{empty:,} of {len(documents):,} documents are empty; they stay in the collection")
        return cls(
            name=folder.resolve().name,
            part=part,
            source=str(folder),
            documents=documents,
            queries={query: asked[query] for query in grades},
            grades=grades,
            warnings=tuple(warnings),
        )


def _file(folder: Path, name: str) -> Path:
    path = folder / name
    if not path.is_file():
        parts = ", ".join(sorted(file.stem for file in (folder / "qrels").glob("*.tsv")))
        there = f"; there are the parts {parts}, choose one with --part" if parts and name.startswith("qrels") else ""
        raise InvalidTask(f"{path}: no such file; {_LAYOUT}{there}")
    return path


def _rows(path: Path, form: Form, columns: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The records of a file with their places, each with these columns."""
    some = False
    for place, record in records(path, form=form):
        if lacking := [column for column in columns if record.get(column) is None]:
            raise InvalidTask(
                f"{path}, {place}: has no {lacking[0]!r}; {_LAYOUT}, with {', '.join(columns)} in this one"
            )
        some = True
        yield f"{path}, {place}", record
    if not some:
        raise InvalidTask(f"{path}: is empty; {_LAYOUT}")


def _texts(path: Path, columns: tuple[str, ...]) -> dict[str, str]:
    """Text by id: that of all columns, of which only the last has to be there."""
    found: dict[str, str] = {}
    for where, record in _rows(path, "json", ("_id", columns[-1])):
        if (key := str(record["_id"])) in found:
            raise InvalidTask(f"{where}: the id {key!r} occurs twice; ids have to differ")
        cells = [record.get(column) or "" for column in columns]
        if wrong := [cell for cell in cells if not isinstance(cell, str)]:
            raise InvalidTask(f"{where}: {show(wrong[0])} is not a text")
        found[key] = " ".join(cells).strip()
    return found


def _grades(path: Path, queries: dict[str, str], documents: dict[str, str]) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for where, record in _rows(path, "tsv", _COLUMNS):
        query, document, grade = (str(record[column]).strip() for column in _COLUMNS)
        for key, known, file in ((query, queries, "queries.jsonl"), (document, documents, "corpus.jsonl")):
            if key not in known:
                raise InvalidTask(f"{where}: {key!r} is no id in {file}; are these files of one collection?")
        if not (grade.isascii() and grade.isdigit()):
            raise InvalidTask(f"{where}: the grade {show(grade)} is not a whole number from 0; 0 means not relevant")
        if document in found.setdefault(query, {}):
            raise InvalidTask(f"{where}: the document {document!r} is judged twice for the query {query!r}; keep one")
        found[query][document] = int(grade)
    return found
