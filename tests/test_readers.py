"""Readers: text in any container in, clean bounded documents or a clear error out."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
import tracemalloc
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from documents import records, sentences, write
from subarch.errors import InvalidCorpus
from subarch.text.read import LONGEST, Document, clean, identity, opened, read


def texts(sources: Any, **options: Any) -> list[str]:
    return [document.text for document in read(sources, **options)]


def test_every_container_gives_the_same_documents(tmp_path: Path) -> None:
    lines = sentences(50)
    data = ("\ufeff" + "\r\n".join(lines)).encode()
    rows = "\n\n".join(json.dumps({"text": line, "other": 1}) for line in lines).encode()
    (tmp_path / "a.txt").write_bytes(data)
    (tmp_path / "a.gz").write_bytes(gzip.compress(data[:99]) + gzip.compress(data[99:]))  # two members
    (tmp_path / "a.txt.zst").write_bytes(zstandard.compress(data[:99]) + zstandard.compress(data[99:]))
    (tmp_path / "mac.txt").write_bytes(data.replace(b"\r\n", b"\r"))
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + rows)
    (tmp_path / "a.JSONL.gz").write_bytes(gzip.compress(rows))
    pq.write_table(pa.table({"text": lines, "other": [1] * 50}), tmp_path / "a.parquet")
    for name in ("a.txt", "mac.txt", "a.gz", "a.txt.zst", "a.jsonl", "a.JSONL.gz", "a.parquet"):
        assert list(read([tmp_path / name])) == [Document(line) for line in lines], name
    assert texts(tmp_path / "a.txt") == texts([tmp_path / "a.txt"]) == lines


def test_a_folder_is_read_sorted_without_hidden_and_unknown_files(tmp_path: Path) -> None:
    for name in ("b/z.txt", "a.md", "c.jsonl.zst.bak", ".git/x.txt", "b/.y.txt", "k.py"):
        write(tmp_path / name, [f"the file {name} here"])
    assert texts([tmp_path]) == ["the file a.md here", "the file b/z.txt here"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidCorpus, match=r"no text in this folder.*\.jsonl.*\.gz"):
        texts([tmp_path / "empty"])


@pytest.mark.parametrize(
    "name", ["records.json.gz", "records.ndjson", "array.json", "table.csv", "long-window.jsonl.zst"]
)
def test_records_of_others_are_not_read_as_prose(shared_cases: Path, name: str) -> None:
    found = texts([shared_cases / "corpora" / name])
    assert len(found) == 60
    assert not [text for text in found if "{" in text or "x.example" in text or "2019-" in text]


def test_a_folder_of_others(shared_cases: Path) -> None:
    found = opened(shared_cases / "corpora" / "folder-of-three-kinds")
    assert [path.name for path in found.files] == ["c4.json.gz", "train.csv"]
    assert found.skipped == (
        (shared_cases / "corpora" / "folder-of-three-kinds" / "README.md", "describes the records beside it"),
    )


def test_a_folder_says_what_is_read_and_what_is_skipped_and_why(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", ['{"text": "one two three"}'])
    write(tmp_path / "b" / "notes.txt", ["four five six"])
    write(tmp_path / "labels.csv", ["id,label", "1,x"])
    write(tmp_path / "README.md", ["about these records"])
    write(tmp_path / "page.html", ["<p>seven eight nine</p>"])
    write(tmp_path / "page.txt", ["<html>seven eight nine</html>"])
    write(tmp_path / "config.json", ["[1, 2, 3]"])
    write(tmp_path / "code.py", ["import this and that"])
    write(tmp_path / ".hidden.txt", ["hidden words are here"])
    found = opened(tmp_path)
    assert [path.relative_to(tmp_path).as_posix() for path in found.files] == ["a.jsonl", "b/notes.txt"]
    assert {path.name: reason for path, reason in found.skipped} == {
        "labels.csv": "no column 'text'",
        "README.md": "describes the records beside it",
        "page.html": "not text or records by its ending .html",
        "page.txt": "HTML or XML",
        "config.json": "JSON without records",
        "code.py": "not text or records by its ending .py",
    }
    for name in ("a.jsonl", "notes.txt", *(path.name for path, _ in found.skipped)):
        assert name in found.sentence
    assert texts([tmp_path]) == ["one two three", "four five six"]
    (tmp_path / "bad.csv").write_bytes(b'text\n"one two three\n')  # damage is never skipped
    with pytest.raises(InvalidCorpus, match=r"bad\.csv, line 2"):
        texts([tmp_path])


def test_a_folder_of_text_keeps_its_readme(tmp_path: Path) -> None:
    for name in ("README.md", "guide.md"):
        write(tmp_path / name, [f"the file {name} here"])
    assert texts([tmp_path]) == ["the file README.md here", "the file guide.md here"]


def test_a_wrong_column_name_is_no_reason_to_skip(tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", ['{"body": "one two three"}'])
    write(tmp_path / "b.csv", ["body,n", "four five six,1"])
    write(tmp_path / "README.md", ["about these records"])
    with pytest.raises(InvalidCorpus, match=r"a\.jsonl, line 1: no column 'text'; found: 'body'"):
        texts([tmp_path])
    assert texts([tmp_path], text_column="body") == ["one two three", "four five six"]


def test_rows_without_a_group(tmp_path: Path) -> None:
    write(tmp_path / "a.csv", ["text,group", "one two three,", "four five six,g"])
    write(tmp_path / "a.jsonl", ['{"text": "one two three", "group": ""}', '{"text": "four five six", "group": "g"}'])
    table = pa.table({"text": ["one two three", "four five six"], "group": [None, "g"]})
    pq.write_table(table, tmp_path / "a.parquet")
    for path in sorted(tmp_path.iterdir()):
        assert list(read([path])) == [Document("one two three"), Document("four five six", "g")]


def test_groups_and_columns(tmp_path: Path) -> None:
    rows = [{"body": "one two three", "group": "g"}, {"body": "four five six", "group": 7}, {"body": None}]
    write(tmp_path / "a.jsonl", [json.dumps(row) for row in rows])
    expected = [Document("one two three", "g"), Document("four five six", "7")]
    assert list(read([tmp_path / "a.jsonl"], "body")) == expected
    table = pa.table({"body": [row["body"] for row in rows], "group": ["g", "7", None]})
    pq.write_table(table, tmp_path / "a.parquet")
    assert list(read([tmp_path / "a.parquet"], "body")) == expected
    for name in ("a.jsonl", "a.parquet"):
        with pytest.raises(InvalidCorpus, match=r"no column 'text'; found: 'body', 'group'"):
            texts([tmp_path / name])


def test_a_local_datasets_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    folder = tmp_path / "set"
    records(folder / "train.jsonl", [("one two three", "g"), ("four five six", None)])
    records(folder / "test.jsonl", [("seven eight nine", None)])
    assert list(read([f"datasets:{folder}"])) == [Document("one two three", "g"), Document("four five six")]
    assert texts([f"datasets:{folder}:test"]) == ["seven eight nine"]
    with pytest.raises(InvalidCorpus, match="no column 'body'; found: 'group', 'text'"):
        texts([f"datasets:{folder}"], text_column="body")
    with pytest.raises(InvalidCorpus, match="nosuch"):
        texts([f"datasets:{folder}:nosuch"])
    (folder / "train.jsonl").write_text("{bad")
    with pytest.raises(InvalidCorpus, match="cannot be loaded"):
        texts([f"datasets:{folder}"])


def test_an_unknown_dataset_offline(tmp_path: Path) -> None:
    code = (
        "from subarch.text.read import read\nfrom subarch.errors import InvalidCorpus\n"
        "try: list(read(['datasets:no/such']))\n"
        "except InvalidCorpus as error: print(error)"
    )
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path), "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "datasets:no/such" in done.stdout
    assert "datasets:FOLDER" in done.stdout


def test_cleaning() -> None:
    assert clean("\ufeffe\u0301 a\x00\x1bb\u2028c\t\x85 d\ud800") == "\u00e9 ab c d"
    assert identity("The  Fox, jumps!") == identity("the fox\njumps") != identity("the fox jumped")


@given(st.text())
def test_clean_is_idempotent_and_clean(text: str) -> None:
    done = clean(text)
    assert clean(done) == done
    assert unicodedata.is_normalized("NFC", done)
    assert not [c for c in done if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    done.encode()


def test_short_pieces_are_dropped_whatever_the_script(tmp_path: Path) -> None:
    lines = ["two words", "--- *** ...", "one two three", "我喜欢读书。", "слово за словом", "ab", "a-b-c", ""]
    write(tmp_path / "a.txt", lines)
    assert texts([tmp_path / "a.txt"]) == ["one two three", "我喜欢读书。", "слово за словом", "a-b-c"]


@pytest.mark.parametrize("end", ["", "\n"])
def test_an_endless_line_is_cut_at_words_within_bounded_memory(tmp_path: Path, end: str) -> None:
    path = tmp_path / "a.txt"
    line = " ".join(f"word{n}" for n in range(500_000))  # 5.4 MB
    path.write_text(line + end)
    pieces = texts([path])
    assert " ".join(pieces) == line
    assert max(map(len, pieces)) <= LONGEST
    assert min(map(len, pieces[:-1])) > LONGEST - 20
    path.write_text("a" * 5_000_000 + " and three words more")
    assert texts([path]) == ["and three words more"]


@pytest.mark.slow
def test_memory_stays_bounded(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"some words of text " * 500_000, 1))  # 9.5 MB in one line
    tracemalloc.start()
    characters = sum(len(document.text) + 1 for document in read([path]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert characters == 9_500_000
    assert peak < 8_000_000  # a few chunks of 1 MB, whatever the size


BAD: dict[str, tuple[bytes, str]] = {
    "empty.txt": (b"", "no usable text"),
    "blank.txt": (b" \n\t\n\r\n", "no usable text"),
    "binary.txt": (b"plain text first\n\x00\x01", "NUL byte at byte 17"),
    "letter.txt": (b"{\\rtf1\\ansi One two three.}", "a document with its layout; save its text as .txt"),
    "paper.pdf": (b"%PDF-1.4 one two three", "a document with its layout"),
    "texts.zip": (b"PK\x03\x04\x14\x00", "a ZIP archive, or a document that is one"),
    "texts.tar.gz": (gzip.compress(b"texts/one.txt".ljust(257, b"\0") + b"ustar\0"), "an archive; unpack it"),
    "texts.7z": (b"7z\xbc\xaf\x27\x1c\x00", "an archive; unpack it"),
    "picture.png": (b"\x89PNG\r\n\x1a\n\x00\x00", "binary"),
    "latin.txt": ("ein ganzer schöner Tag".encode("latin-1"), "not UTF-8 at byte 14.*iconv"),
    "far.txt": (b"a b c\n" * 300_000 + b"\xff", "not UTF-8 at byte 1800000"),
    "cut.txt": ("one two three é".encode()[:-1], "not UTF-8 at byte 14"),
    "wide.txt": ("one two three".encode("utf-16"), "UTF-16.*iconv"),
    "bad.jsonl": (b'{"text": "one two three"}\n\n{"text": \n', "line 3: not JSON"),
    "list.jsonl": (b"[1]\n[2]", "line 1: a JSON list"),
    "numbers.json": (b"[1, 2]", "item 1: a JSON int"),
    "page.html": (b"<p>one two three</p>", "HTML or XML.*extract its text"),
    "page.txt": (b"<!DOCTYPE html>\none two three", "HTML or XML.*extract its text"),
    "quote.csv": (b'text\n"one two three\nfour five six\n', "line 2: not CSV.*not closed"),
    "ragged.csv": (b"text,n\none two three,1\nfour, five six,2\n", "line 3: 3 fields for 2 columns"),
    "column.csv": (b"body,n\none two three,1\n", "line 2: no column 'text'; found: 'body', 'n'"),
    "column.json": (b'[{"body": "one two three"}]', "item 1: no column 'text'; found: 'body'"),
    "deep.jsonl": (b"[" * 200_000, "line 1: not JSON"),
    "digits.jsonl": (b'{"text": ' + b"9" * 5000 + b"}", "line 1: not JSON"),
    "number.jsonl": (b'{"text": 5}', "line 1: 'text' holds int"),
    "list-of-groups.jsonl": (b'{"text": "one two three", "group": ["a"]}', "line 1: 'group' holds list where a name"),
    "column.jsonl": (b'{"body": "one two three"}', "line 1: no column 'text'; found: 'body'"),
    "cut.gz": (gzip.compress(b"some words of text " * 1000)[:-9], "truncated or damaged gzip"),
    "no.gz": (b"this is no gzip", "truncated or damaged gzip"),
    "cut.jsonl.zst": (zstandard.compress(b'{"text": "a b c"}\n' * 1000)[:-3], "truncated or damaged zstd"),
    "bytes.gz": (gzip.compress(b"one two three \xff"), r"not UTF-8 at byte 14 \(decompressed\)"),
    "no.parquet": (b"this is no Parquet file", "not a readable Parquet"),
    "packed.parquet.gz": (b"", "decompress the file first"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_by_name_and_place(tmp_path: Path, name: str) -> None:
    content, message = BAD[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InvalidCorpus, match=message) as caught:
        texts([path])
    assert str(path) in str(caught.value)


def test_missing_sources(tmp_path: Path) -> None:
    with pytest.raises(InvalidCorpus, match="nosuch: no such file or folder"):
        texts([tmp_path / "nosuch"])
    with pytest.raises(InvalidCorpus, match="empty list of sources"):
        texts([])
    with pytest.raises(InvalidCorpus, match="no data set named"):
        texts(["datasets:"])


def test_a_truncated_parquet_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": sentences(5000)}), tmp_path / "a.parquet")
    data = (tmp_path / "a.parquet").read_bytes()
    for damaged in (data[:-100], data[:50_000] + bytes(2000) + data[52_000:]):
        (tmp_path / "b.parquet").write_bytes(damaged)
        with pytest.raises(InvalidCorpus, match=r"b\.parquet"):
            texts([tmp_path / "b.parquet"])
    pq.write_table(pa.table({"text": [b"one two three"]}), tmp_path / "c.parquet")
    with pytest.raises(InvalidCorpus, match="row 1: 'text' holds bytes"):
        texts([tmp_path / "c.parquet"])


json_values = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.integers(), lambda inner: st.lists(inner, max_size=3)
)
json_lines = st.dictionaries(st.sampled_from(["text", "group", "x"]), json_values).map(
    lambda row: json.dumps(row).encode()
)
ENDINGS = (".txt", ".jsonl", ".csv", ".tsv", ".html", ".txt.gz", ".jsonl.zst", ".parquet", ".odd")


@given(st.sampled_from(ENDINGS), st.lists(st.binary() | json_lines | st.text().map(str.encode)), st.booleans())
@settings(max_examples=300, deadline=None)
def test_fuzz_either_documents_or_invalid_corpus(
    tmp_path_factory: pytest.TempPathFactory, ending: str, lines: list[bytes], packed_well: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / f"fuzz{ending}"
    data = b"\n".join(lines)
    if packed_well:
        data = {"gz": gzip.compress, "st": zstandard.compress}.get(ending[-2:], bytes)(data)
    path.write_bytes(data)
    try:
        documents = list(read([path]))
    except InvalidCorpus:
        return
    assert documents
    for document in documents:
        assert document.text == clean(document.text)
        assert 3 <= len(document.text) <= LONGEST
        document.text.encode()
