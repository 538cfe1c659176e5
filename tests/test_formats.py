"""Files of any format: records come out as they went in, the content is recognised, and anything else is refused."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import string
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from subarch.errors import InvalidCorpus
from subarch.text import formats
from subarch.text.formats import COMPRESSIONS, ENDINGS, MissingColumn, NotRecords, form_of, records

Row = dict[str, Any]

PACK: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".zst": zstandard.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}


def rows(path: Path, **options: Any) -> list[Row]:
    return [row for _, row in records(path, **options)]


def as_csv(table: list[Row], quoting: int = csv.QUOTE_MINIMAL, end: str = "\r\n") -> str:
    file = io.StringIO(newline="")
    writer = csv.DictWriter(file, list(table[0]), quoting=quoting, lineterminator=end)
    writer.writeheader()
    writer.writerows(table)
    return file.getvalue()


# --- what goes in comes out ---

# lone surrogates are no UTF-8, NUL marks binary files; in CSV a lone carriage return may stand in quotes only
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
texts = st.text(characters, max_size=12) | st.sampled_from(
    ['"', '""', "a\tb", "a\nb", ',"', '"\n', "a\u2028b", "#", "'"]
)
values = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts | st.lists(texts, max_size=2)


@given(
    st.lists(st.fixed_dictionaries({"text": texts, "other": values}), min_size=2, max_size=6),
    st.sampled_from([".jsonl", ".ndjson", ".json", ".txt", ".json array", ".jsonl array", ".json indented"]),
    st.sampled_from(list(PACK)),
    st.booleans(),
)
@settings(deadline=None, max_examples=100)
def test_json_in_every_shape(
    tmp_path_factory: pytest.TempPathFactory, table: list[Row], shape: str, packed: str, marked: bool
) -> None:
    ending, _, array = shape.partition(" ")
    if array:
        text = json.dumps(table, indent=1 if array == "indented" else None)
    else:
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in table) + "\n"
    path = tmp_path_factory.getbasetemp() / f"a{ending}{packed}"
    path.write_bytes(PACK[packed](text.encode("utf-8-sig" if marked else "utf-8")))
    assert form_of(path) == "json"
    assert rows(path) == table


@given(
    st.lists(st.fixed_dictionaries({"text": texts, "other": texts}), min_size=1, max_size=6),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(list(PACK)),
)
@settings(deadline=None, max_examples=100)
def test_csv(tmp_path_factory: pytest.TempPathFactory, table: list[Row], quoting: int, end: str, packed: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"a.csv{packed}"
    path.write_bytes(PACK[packed](as_csv(table, quoting, end).encode()))
    assert rows(path) == table


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=6), st.sampled_from(["\n", "\r\n"]))
@settings(deadline=None)
def test_tsv_is_unquoted(tmp_path_factory: pytest.TempPathFactory, cells: list[tuple[str, str]], end: str) -> None:
    table = [
        {"first": "x" + first.translate({9: 32, 10: 32, 13: 32}), "second": second.translate({9: 32, 10: 32, 13: 32})}
        for first, second in cells
    ]
    path = tmp_path_factory.getbasetemp() / "a.tsv"
    path.write_bytes(end.join(["first\tsecond", *("\t".join(row.values()) for row in table)]).encode())
    assert rows(path) == table


@given(st.lists(st.fixed_dictionaries({"text": st.none() | texts, "n": st.none() | st.integers(0, 9)}), max_size=6))
@settings(deadline=None)
def test_parquet_under_any_name(tmp_path_factory: pytest.TempPathFactory, table: list[Row]) -> None:
    schema = pa.schema([("text", pa.string()), ("n", pa.int64())])
    for name in ("a.parquet", "a", "a.txt", "a.csv"):
        path = tmp_path_factory.getbasetemp() / name
        pq.write_table(pa.Table.from_pylist(table, schema), path)
        assert rows(path) == table
        assert rows(path, only=["n"]) == [{"n": row["n"]} for row in table]


def test_other_shapes_of_json(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for text, expected in (
        ('{"a": 1}', [{"a": 1}]),
        ('{\n "a": 1\n}', [{"a": 1}]),
        ('{"0": {"a": 1}, "1": {"a": 2}}', [{"a": 1}, {"a": 2}]),  # pandas' orient="index"
        ('[[1, "x"], [2, "y"]]', [{"0": 1, "1": "x"}, {"0": 2, "1": "y"}]),
        ('[{"a": 1},\n{"a": 2}]', [{"a": 1}, {"a": 2}]),
        ('\n\n{" a ": 1}\n\n{"a": 2}\r\n', [{"a": 1}, {"a": 2}]),
        ('\ufeff{"a": 1}\n\ufeff{"a": 2}\n', [{"a": 1}, {"a": 2}]),  # files with byte order marks, joined
        ("[]", []),
        ("", []),
    ):
        path.write_text(text, encoding="utf-8")
        assert rows(path) == expected, text


def test_places_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('a,b\n\n1,"x\ny"\n2,z\n')
    assert [place for place, _ in records(path)] == ["lines 3 to 4", "line 5"]
    path = tmp_path / "a.jsonl"
    path.write_text('\n{"a": 1}\n\n{"a": 2}\n')
    assert [place for place, _ in records(path)] == ["line 2", "line 4"]


# --- the content decides ---


@pytest.mark.parametrize(
    ("name", "text", "form"),
    [
        ("a.txt", "plain text", "text"),
        ("a", "plain text", "text"),
        ("a.odd", "plain text", "text"),
        ("a.md", "# A heading", "text"),
        ("a.csv", "a,b", "csv"),
        ("a.TSV", "a\tb", "tsv"),
        ("a.json", "", "json"),
        # records under the name of text
        ("a.txt", '{"text": "one"}\n{"text": "two"}\n', "json"),
        ("a", '\n\n  {"text": "one"}', "json"),
        ("a.log", '[\n  {"text": "one"}\n]', "json"),
        ("a.md", '{\n  "text": "one"\n}', "json"),
        ("a.csv", '{"text": "one"}', "json"),
        ("a.txt", 'dump of today\n{"text": "one"}\n{"text": "two"}\n{"text": "three"}\n', "json"),
        # markup under any name
        ("a.html", "plain text", "markup"),
        ("a.xml", "", "markup"),
        ("a.txt", "<!DOCTYPE html>\n<p>one", "markup"),
        ("a.md", "\n<html><body>one", "markup"),
        ("a", '<?xml version="1.0"?><a>one</a>', "markup"),
        ("a.csv", "<html>not found</html>", "markup"),
        ("wiki_00", '<doc id="12" title="x">\none\n</doc>', "markup"),
        ("a.txt", "<p>one</p>", "markup"),
        ("a.txt", "<!-- saved from -->one", "markup"),
        # text that only looks a little like it
        ("a.txt", "<unk> is a word here", "text"),
        ("a.txt", "<3 this is love", "text"),
        ("a.md", '<p align="center">A logo</p>\n\n# A heading', "text"),
        ("a.txt", "[1] a reference", "text"),
        ("a.txt", "[ ] a task to do", "text"),
        ("a.txt", "[[a link]] of a wiki", "text"),
        ("a.txt", "{\\bf bold} text", "text"),
        ("a.txt", 'a text\nwith one line of JSON\n{"text": "one"}\nin four lines', "text"),
    ],
)
def test_the_format_of_a_content(tmp_path: Path, name: str, text: str, form: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    assert form_of(path) == form
    for ending, pack in PACK.items():  # compressed data is recognised whatever the file is called
        (tmp_path / "packed").write_bytes(pack(text.encode()))
        (tmp_path / f"{name}{ending}").write_bytes(pack(text.encode()))
        assert form_of(tmp_path / f"{name}{ending}") == form


def test_compressed_data_without_an_ending(tmp_path: Path) -> None:
    table = [{"a": "x"}, {"a": "y"}]
    for ending, pack in PACK.items():
        path = tmp_path / "a.csv"
        path.write_bytes(pack(as_csv(table).encode()))
        assert rows(path) == table, ending
    path.write_text("BZh is no reason to decompress,b\n1,2\n")
    assert len(rows(path)) == 1


# --- what is refused ---


def test_markup_and_prose_are_no_records(tmp_path: Path) -> None:
    for name, text, advice in (
        ("a.html", "<p>one", "get_text"),
        ("a.txt", "<?xml?>", "get_text"),
        ("a.txt", "one", "save them as JSON lines"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(NotRecords, match=advice):
            rows(tmp_path / name)


def test_a_missing_column_is_named_with_those_found(tmp_path: Path) -> None:
    table = [{"body": "x", "n": "y"}] * 2
    (tmp_path / "a.csv").write_text(as_csv(table))
    (tmp_path / "a.tsv").write_text("body\tn\nx\ty\n")
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, table)))
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "a.parquet")
    for path in tmp_path.iterdir():
        with pytest.raises(MissingColumn, match="no column 'text'; found: 'body', 'n'"):
            rows(path, only=["text"])


@given(
    st.lists(st.fixed_dictionaries({"text": texts, "other": texts}), min_size=1, max_size=6),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    st.integers(0),
)
@settings(deadline=None, max_examples=200)
def test_one_quote_more_never_joins_rows(
    tmp_path_factory: pytest.TempPathFactory, table: list[Row], quoting: int, place: int
) -> None:
    text = as_csv(table, quoting)
    place %= len(text) + 1
    path = tmp_path_factory.getbasetemp() / "quote.csv"
    path.write_bytes((text[:place] + '"' + text[place:]).encode())
    with pytest.raises(InvalidCorpus, match=r"quote\.csv, lines? \d+"):
        rows(path)
    lines = ["first\tsecond", *(f"{number}\tone two" for number in range(5))]
    text = "\n".join(lines)
    place %= len(text)
    path = tmp_path_factory.getbasetemp() / "quote.tsv"
    path.write_text(text[:place] + '"' + text[place:])
    assert len(rows(path)) == 5


@pytest.mark.parametrize("separator", [";", "\t"])
def test_csv_of_spreadsheets_that_separate_otherwise(tmp_path: Path, separator: str) -> None:
    table = [{"text": 'say "x", or; not', "n": "1\t2"}, {"text": "two\nlines", "n": ""}]
    path = tmp_path / "a.csv"
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, table[0], delimiter=separator)
        writer.writeheader()
        writer.writerows(table)
    assert rows(path) == table


def test_an_array_of_texts(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('["one text", "another"]')
    assert rows(path) == [{"text": "one text"}, {"text": "another"}]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", 'a,b\n1,"x\n2,y\n', r"line 2: not CSV: a double quote of this row is not closed \(until line 4\)"),
        ("a.csv", 'a,b\n1,x\n2,"y\n3,"z"\n4,w\n', "line 3: not CSV.*until line 6"),
        ("a.csv", 'a,b\n1,a 5" pipe\n2,a 6" pipe\n', "lines 2 to 3: not CSV"),
        ("a.csv", 'a,b\n1,say "x" twice\n', "line 2: not CSV"),
        ("a.csv", 'a,b\n"1"x,y\n', "line 2: not CSV"),
        ("a.csv", "a,b\n1,2,3\n", r"line 2: 3 fields for 2 columns \(a, b\)"),
        ("a.csv", "a,b\n1,2\n3\n", "line 3: 1 fields for 2 columns"),
        ("a.csv", "a,b\r1,2\r", "not CSV"),
        ("a.csv", "a,a\n1,2\n", "the column 'a' occurs twice"),
        ("a.csv", 'a,b\n"' + "x\n" * 3000 + '"', r"line 2: not CSV.*not closed \(until line 2[01]\d\d\)"),
        ("a.tsv", "a\tb\n1\n", "line 2: 1 fields for 2 columns .*cut off"),
        ("a.tsv", "a\tb\n1\t2\t3\n", "line 2: 3 fields for 2 columns .*a tab"),
        ("a.tsv", "a\ta\n1\t2\n", "the column 'a' occurs twice"),
        ("a.jsonl", '{"a": 1}\n{"a": \n', "line 2: not JSON"),
        ("a.jsonl", '{"a": \n{"a": 1}\n', "line 1: not JSON"),
        ("a.json", '[\n{"a": 1},\n{"a": \n]', "line 4: not JSON"),
        ("a.jsonl", '{"a": 1}\n[1]\n', "line 2: a JSON list, not an object"),
        ("a.json", "[1, 2]", "item 1: a JSON int"),
        ("a.json", '"text"', "line 1: a JSON str"),
        ("a.json", "[" * 100_000, "line 1: not JSON"),
        ("a.json", "1" * 5000, "line 1: not JSON"),
        ("a.txt", '{"a": 1} and prose', "line 1: not JSON"),
    ],
)
def test_files_that_are_not_well_formed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str, message: str
) -> None:
    monkeypatch.setattr(formats, "LONGEST_ROW", 2000)  # characters, so that a file need not be large
    path = tmp_path / name
    path.write_bytes(text.encode())
    with pytest.raises(InvalidCorpus, match=message) as caught:
        rows(path)
    assert str(path) in str(caught.value)


@given(st.sampled_from([ending for ending in PACK if ending]), st.integers(1), st.booleans())
@settings(deadline=None, max_examples=100)
def test_cut_compressed_data_is_never_read_as_the_whole(
    tmp_path_factory: pytest.TempPathFactory, ending: str, cut: int, twice: bool
) -> None:
    text = b"".join(b'{"n": %d}\n' % n for n in range(500))
    data = PACK[ending](text[:2000]) + PACK[ending](text[2000:]) if twice else PACK[ending](text)
    path = tmp_path_factory.getbasetemp() / f"cut.jsonl{ending}"
    path.write_bytes(data)
    assert len(rows(path)) == 500
    first = len(PACK[ending](text[:2000])) if twice else 0
    cut = 1 + cut % (len(data) - 1)
    if cut == first:  # a whole file by itself
        return
    path.write_bytes(data[:cut])
    with pytest.raises(InvalidCorpus, match=f"truncated or damaged {COMPRESSIONS[ending][0]}"):
        rows(path)


def test_zstd_windows(tmp_path: Path) -> None:
    text = b'{"a": 1}\n' * 1000
    path = tmp_path / "a.jsonl.zst"
    for log in (10, 27, 31):
        parameters = zstandard.ZstdCompressionParameters(window_log=log, enable_ldm=log > 27)
        chunks = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
        path.write_bytes(chunks.compress(text) + chunks.flush())  # the size is not known, so the window is declared
        assert zstandard.get_frame_parameters(path.read_bytes()).window_size == 1 << log
        assert len(rows(path)) == 1000
    # a header that asks for 2^32: no program writes it
    path.write_bytes(b"\x28\xb5\x2f\xfd\x00" + bytes([22 << 3]) + b"\x01\x00\x00")
    with pytest.raises(InvalidCorpus, match=r"window above 2 GiB.*zstd -dc --long=31"):
        rows(path)


def test_what_cannot_be_opened(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "absent.csv"):
        with pytest.raises(InvalidCorpus, match="cannot be read"):
            form_of(path)


lines = st.lists(
    st.binary(max_size=30) | values.map(lambda value: json.dumps({"text": value}).encode()) | texts.map(str.encode)
)


@given(st.sampled_from([*ENDINGS, ".odd", ""]), st.sampled_from(list(PACK)), lines, st.booleans())
@settings(deadline=None, max_examples=250)
def test_whatever_the_bytes(
    tmp_path_factory: pytest.TempPathFactory, ending: str, packed: str, content: list[bytes], well: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / f"fuzz{ending}{packed}"
    data = b"\n".join(content)
    path.write_bytes(PACK[packed](data) if well else data)
    try:
        found = rows(path)
    except InvalidCorpus:
        return
    assert all(isinstance(name, str) for row in found for name in row)


@given(
    st.text(string.ascii_letters + '",\n\r\t {}[]:<>', max_size=60), st.sampled_from([".csv", ".tsv", ".json", ".txt"])
)
@settings(deadline=None, max_examples=250)
def test_whatever_the_text(tmp_path_factory: pytest.TempPathFactory, text: str, ending: str) -> None:
    path = tmp_path_factory.getbasetemp() / f"fuzz{ending}"
    path.write_text(text)
    try:
        found = rows(path)
    except InvalidCorpus:
        return
    assert len({tuple(row) for row in found}) <= 1 or ending in (".json", ".txt")
