"""Collections in the layout of BEIR: what is read, and what is refused by file, line and reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from subarch.errors import InvalidCorpus, InvalidTask
from subarch.evaluation.collection import Collection
from tiny_retrieval import DOCUMENTS, tiny_collection, write_lines


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny_collection(tmp_path / "tiny")


def append(path: Path, line: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + line + "\n", encoding="utf-8")


def test_what_is_read(folder: Path) -> None:
    found = Collection.read(folder, "test")
    assert (found.name, found.part, len(found.documents), len(found.queries)) == ("tiny", "test", DOCUMENTS, 5)
    assert found.queries["q1"] == "the old kitchen"
    first = json.loads((folder / "corpus.jsonl").read_text().splitlines()[0])
    assert found.documents["d0"] == f"{first['title']} {first['text']}"
    assert sum(map(len, found.grades.values())) == DOCUMENTS
    assert all(sorted(grades.values())[-2:] == [1, 2] for grades in found.grades.values())
    assert found.warnings == ()


def test_titles_may_be_absent_and_ids_numbers(folder: Path) -> None:
    write_lines(folder / "corpus.jsonl", [{"_id": 7, "text": " a boat "}, {"_id": 8, "title": None, "text": "a net"}])
    (folder / "qrels" / "dev.tsv").write_text("query-id\tcorpus-id\tscore\nq0\t7\t3\nq1\t8\t0\n")
    found = Collection.read(folder, "dev")
    assert found.documents == {"7": "a boat", "8": "a net"}
    assert found.grades == {"q0": {"7": 3}}


def test_what_is_odd_is_counted_and_said(folder: Path) -> None:
    """Queries that nothing is relevant for are not scored; an empty document is there and can be found."""
    append(folder / "queries.jsonl", '{"_id": "q5", "text": "nobody judged this"}')
    append(folder / "queries.jsonl", '{"_id": "q6", "text": "nothing fits"}')
    append(folder / "qrels" / "test.tsv", "q6\td3\t0")
    append(folder / "corpus.jsonl", '{"_id": "empty", "title": "", "text": " "}')
    found = Collection.read(folder, "test")
    assert found.warnings == (
        "2 of 7 queries have no relevant document in qrels/test.tsv and are not scored",
        "1 of 41 documents are empty; they stay in the collection",
    )
    assert len(found.queries) == 5
    assert found.documents["empty"] == ""


@pytest.mark.parametrize("name", ["corpus.jsonl", "queries.jsonl", "qrels/test.tsv"])
def test_every_file_is_needed(folder: Path, name: str) -> None:
    text = (folder / name).read_text(encoding="utf-8")
    (folder / name).write_text("query-id\tcorpus-id\tscore\n" if name.endswith("tsv") else "", encoding="utf-8")
    with pytest.raises(InvalidTask, match=f"{name}: is empty; a collection in the layout of BEIR has corpus.jsonl, "):
        Collection.read(folder, "test")
    (folder / name).unlink()
    with pytest.raises(
        InvalidTask, match=f"{name}: no such file; a collection in the layout of BEIR has corpus.jsonl, "
    ):
        Collection.read(folder, "test")
    (folder / name).write_text(text, encoding="utf-8")
    assert Collection.read(folder, "test")


def test_the_parts_that_are_there_are_named(folder: Path) -> None:
    (folder / "qrels" / "train.tsv").touch()
    with pytest.raises(InvalidTask, match="there are the parts test, train, choose one with --part"):
        Collection.read(folder, "dev")


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("q0\td99\t1", "line 42: 'd99' is no id in corpus.jsonl"),
        ("q9\td1\t1", "line 42: 'q9' is no id in queries.jsonl"),
        ("q0\td1\t-1", "line 42: the grade '-1' is not a whole number from 0; 0 means not relevant"),
        ("q0\td1\t0.5", "line 42: the grade '0.5' is not a whole number"),
        ("q0\td1\t²", "line 42: the grade '²' is not a whole number"),
    ],
)
def test_refused_judgements(folder: Path, line: str, problem: str) -> None:
    append(folder / "qrels" / "test.tsv", line)
    with pytest.raises(InvalidTask, match=problem):
        Collection.read(folder, "test")


def test_a_document_is_judged_once(folder: Path) -> None:
    path = folder / "qrels" / "test.tsv"
    last = path.read_text(encoding="utf-8").splitlines()[-1]
    append(path, last)
    document, query = last.split("\t")[1], last.split("\t")[0]
    with pytest.raises(
        InvalidTask, match=f"line 42: the document '{document}' is judged twice for the query '{query}'"
    ):
        Collection.read(folder, "test")


@pytest.mark.parametrize(
    ("name", "line", "problem"),
    [
        ("corpus.jsonl", '{"_id": "d3", "text": "again"}', "line 41: the id 'd3' occurs twice"),
        ("queries.jsonl", '{"_id": "q3", "text": "again"}', "line 6: the id 'q3' occurs twice"),
        ("corpus.jsonl", '{"id": "d77", "text": "a boat"}', "line 41: has no '_id'"),
        ("corpus.jsonl", '{"_id": "d77", "title": "a boat"}', "line 41: has no 'text'"),
        ("corpus.jsonl", '{"_id": "d77", "text": ["a boat"]}', r"line 41: \['a boat'\] is not a text"),
    ],
)
def test_refused_texts(folder: Path, name: str, line: str, problem: str) -> None:
    append(folder / name, line)
    with pytest.raises(InvalidTask, match=f"{name}, {problem}"):
        Collection.read(folder, "test")


def test_a_file_of_another_format(folder: Path) -> None:
    append(folder / "corpus.jsonl", "d77 a boat")
    with pytest.raises(InvalidCorpus, match="line 41: not JSON"):
        Collection.read(folder, "test")


def test_a_file_of_judgements_with_other_columns(folder: Path) -> None:
    """As TREC has it: four columns and no header."""
    (folder / "qrels" / "test.tsv").write_text("q0\t0\td1\t1\nq1\t0\td2\t1\n")
    with pytest.raises(
        InvalidTask, match=r"line 2: has no 'query-id'; .*, with query-id, corpus-id, score in this one"
    ):
        Collection.read(folder, "test")


def test_nothing_to_score(folder: Path) -> None:
    path = folder / "qrels" / "test.tsv"
    path.write_text("query-id\tcorpus-id\tscore\nq0\td1\t0\n")
    with pytest.raises(InvalidTask, match=r"no query has a relevant document in qrels/test.tsv"):
        Collection.read(folder, "test")
    append(path, "q5\td1\t1")
    append(folder / "queries.jsonl", '{"_id": "q5", "text": ""}')
    with pytest.raises(InvalidTask, match=r"queries.jsonl: the query 'q5' has no text"):
        Collection.read(folder, "test")


def test_cranfield(shared_data: Path) -> None:
    folder = shared_data / "retrieval" / "cranfield"
    if not folder.is_dir():
        pytest.skip("Cranfield is not in the shared data folder")
    found = Collection.read(folder, "test")
    assert (len(found.documents), len(found.queries)) == (1400, 225)
    assert found.grades["1"]["184"] == 1
    assert found.warnings == ("2 of 1,400 documents are empty; they stay in the collection",)
