"""Recorded vectors: what was recorded comes out, whatever the container; anything unsound is refused by its row."""

from __future__ import annotations

import gzip
import json
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from subarch.errors import InvalidTeacher
from subarch.text.read import clean, is_recording
from subarch.text.vectors import RecordedVectors

TEXTS = ["a first text", "and a second", "the third"]
VECTORS = [[1.0, 0.5, -2.0], [0.0, 3.0, 1.0], [0.25, 0.25, 0.25]]


def write_lines(path: Path, texts: Sequence[Any], vectors: Sequence[Any], column: str = "vector") -> Path:
    lines = [json.dumps({"text": text, column: vector}) for text, vector in zip(texts, vectors, strict=True)]
    data = ("\n".join(lines) + "\n").encode()
    packed: dict[str, Callable[[bytes], bytes]] = {".gz": gzip.compress, ".zst": zstandard.compress}
    path.write_bytes(packed.get(path.suffix, bytes)(data))
    return path


def write_parquet(path: Path, texts: Sequence[Any], vectors: Sequence[Any], kind: Any = None) -> Path:
    kind = pa.list_(pa.float32()) if kind is None else kind
    pq.write_table(pa.table({"text": pa.array(texts, pa.string()), "vector": pa.array(vectors, kind)}), path)
    return path


def loaded_or_refused(path: Path) -> RecordedVectors | str:
    try:
        return RecordedVectors.load(path)
    except InvalidTeacher as error:
        return str(error)


# --- what goes in comes out ---

cells = st.floats(-1000, 1000, width=16)


@given(
    st.integers(1, 5).flatmap(
        lambda width: st.lists(
            st.tuples(st.text(min_size=1, max_size=9), st.lists(cells, min_size=width, max_size=width).filter(any)),
            min_size=1,
            max_size=7,
            unique_by=lambda row: clean(row[0]),
        )
    ),
    st.sampled_from(["a.jsonl", "a.json", "a.ndjson", "a.jsonl.gz", "a.jsonl.zst", "list", "large", "fixed", "half"]),
)
@settings(deadline=None, max_examples=200)
def test_every_container(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, list[float]]], container: str
) -> None:
    rows = [(text, vector) for text, vector in rows if clean(text)]
    if not rows:
        return
    texts, vectors = [clean(text) for text, _ in rows], [vector for _, vector in rows]
    path = tmp_path_factory.getbasetemp() / (container if "." in container else "a.parquet")
    kinds = {
        "list": pa.list_(pa.float64()),
        "large": pa.large_list(pa.float32()),
        "fixed": pa.list_(pa.float32(), len(vectors[0])),
        "half": pa.list_(pa.float16()),
    }
    if container in kinds:
        halves = [np.array(vector, np.float16) for vector in vectors] if container == "half" else vectors
        write_parquet(path, texts, halves, kinds[container])
    else:
        write_lines(path, [text for text, _ in rows], vectors)
    recorded = RecordedVectors.load(path)
    assert (recorded.texts, recorded.width) == (texts, len(vectors[0]))
    assert recorded.vectors.dtype == (np.float16 if container == "half" else np.float32)
    back = recorded.embed_texts(texts[::-1])
    assert back.numpy().dtype == np.float32
    np.testing.assert_array_equal(back.numpy(), np.array(vectors[::-1], np.float32))


@given(st.binary(max_size=200) | st.recursive(st.none() | st.floats() | st.text(), st.lists).map(json.dumps))
@settings(deadline=None, max_examples=200)
def test_whatever_a_file_holds_the_error_names_it(
    tmp_path_factory: pytest.TempPathFactory, content: bytes | str
) -> None:
    path = tmp_path_factory.getbasetemp() / "fuzzed.jsonl"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidTeacher, match=r"fuzzed\.jsonl"):
        RecordedVectors.load(path)


values = st.none() | st.floats() | st.integers() | st.booleans() | st.text(max_size=3)


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["text", "vector", "embedding", "n"]), values | st.lists(values, max_size=3)),
        min_size=1,
        max_size=4,
    )
)
@settings(deadline=None, max_examples=300)
def test_rows_of_any_kind_are_sound_or_refused(
    tmp_path_factory: pytest.TempPathFactory, table: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, table)))
    recorded = loaded_or_refused(path)
    if isinstance(recorded, str):
        assert "rows.jsonl" in recorded
        return
    assert np.isfinite(recorded.vectors).all()
    assert recorded.vectors.any(axis=1).all()
    assert {clean(row["text"]) for row in table} == set(recorded.texts)


@given(st.integers(0, 10_000), st.integers(0, 255))
@settings(deadline=None, max_examples=150)
def test_damaged_parquet(tmp_path_factory: pytest.TempPathFactory, at: int, byte: int) -> None:
    path = write_parquet(tmp_path_factory.getbasetemp() / "damaged.parquet", TEXTS, VECTORS)
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= byte
    path.write_bytes(data)
    recorded = loaded_or_refused(path)
    if isinstance(recorded, str):
        assert "damaged.parquet" in recorded
        return
    assert np.isfinite(recorded.vectors).all()


def test_texts_are_compared_clean(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", ["cafe\u0301  au\n lait"], [[1, 2]])
    recorded = RecordedVectors.load(path)
    assert recorded.texts == ["café au lait"]
    assert recorded.embed_texts(["café\u00a0au lait", "cafe\u0301 au lait\0"]).tolist() == [[1, 2], [1, 2]]
    assert "caf\u00e9 au lait " in recorded
    assert "tea" not in recorded
    assert recorded.embed_texts([]).shape == (0, 2)


def test_fingerprint_is_of_content_and_columns(tmp_path: Path) -> None:
    first = RecordedVectors.load(write_lines(tmp_path / "a.jsonl", TEXTS, VECTORS))
    copy = RecordedVectors.load(write_lines(tmp_path / "copy.jsonl", TEXTS, VECTORS))
    other = RecordedVectors.load(write_lines(tmp_path / "other.jsonl", TEXTS, VECTORS[::-1]))
    assert first.fingerprint == copy.fingerprint != other.fingerprint
    path = tmp_path / "two.jsonl"
    path.write_text(json.dumps({"text": "a", "vector": [1, 2], "small": [1]}))
    both = [RecordedVectors.load(path), RecordedVectors.load(path, vector_column="small")]
    assert [one.width for one in both] == [2, 1]
    assert both[0].fingerprint != both[1].fingerprint
    assert first.name == "a.jsonl"


def test_which_column_holds_the_vectors(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    for row, expected in (
        ({"embedding": [1, 2], "ids": [7, 8]}, [1, 2]),
        ({"weird": [3, 4], "tags": ["x"], "n": 1}, [3, 4]),
        ({"vector": [5, 6], "weird": [3, 4]}, [5, 6]),
    ):
        path.write_text(json.dumps({"text": "a", **row}))
        assert RecordedVectors.load(path).embed_texts(["a"]).tolist() == [expected]
    for row, message in (
        ({"a": [1], "b": [2]}, r"a\.json, line 1: 2 columns hold lists of numbers \('a', 'b'\); name"),
        ({"a": "x"}, r"no columns hold lists of numbers \('text', 'a'\); name"),
    ):
        path.write_text(json.dumps({"text": "a", **row}))
        with pytest.raises(InvalidTeacher, match=message):
            RecordedVectors.load(path)
    with pytest.raises(InvalidTeacher, match="no column 'body'; found: 'a', 'text'"):
        RecordedVectors.load(path, "body")
    with pytest.raises(InvalidTeacher, match="no column 'v'; found: 'text', 'a'"):
        RecordedVectors.load(path, vector_column="v")
    table = write_parquet(tmp_path / "a.parquet", TEXTS, VECTORS)
    with pytest.raises(InvalidTeacher, match="no column 'body'; found: 'text', 'vector'"):
        RecordedVectors.load(table, "body")
    with pytest.raises(InvalidTeacher, match="column 'text' holds string, not lists of numbers"):
        RecordedVectors.load(table, vector_column="text")


# --- what is refused ---

ROWS: dict[str, tuple[Sequence[Any], Sequence[Any], str]] = {
    "changing width": (
        TEXTS,
        [[1, 2], [1, 2, 3], [1, 2]],
        "2: the vector in 'vector' has 3 numbers, and others have 2",
    ),
    "NaN": (TEXTS, [[1, 2], [1, 2], [1, float("nan")]], "3: the vector in 'vector' holds NaN"),
    "infinite": (TEXTS, [[1, 2], [1, float("-inf")], [1, 2]], "2: the vector in 'vector' holds NaN, or infinite"),
    "too large": (TEXTS, [[1, 2], [1, 1e39], [1, 2]], "2: the vector in 'vector' holds NaN, or infinite or too large"),
    "zero": (TEXTS, [[0, 0], [1, 2], [1, 2]], "1: the vector in 'vector' is zero"),
    "empty text": (["a", " \n", "b"], [[1], [1], [1]], "2: no text in column 'text' but ' "),
    "no text": (["a", "b", None], [[1], [1], [1]], "3: no text in column 'text' but None"),
    "no vector": (TEXTS, [[1], None, [1]], "2: no vector in column 'vector'; record the text again by the same model"),
    "width zero": (TEXTS, [[], [], []], "1: the vector in 'vector' holds no numbers"),
    "two vectors": (["a", "b", "a "], [[1, 2], [1, 2], [1, 3]], "3: the text 'a' has another vector in an earlier row"),
}


@pytest.mark.parametrize("case", ROWS)
def test_unsound_rows(tmp_path: Path, case: str) -> None:
    texts, vectors, message = ROWS[case]
    with pytest.raises(InvalidTeacher, match=rf"a\.jsonl, line {message}"):
        RecordedVectors.load(write_lines(tmp_path / "a.jsonl", texts, vectors))
    with pytest.raises(InvalidTeacher, match=rf"a\.parquet, row {message}"):
        RecordedVectors.load(write_parquet(tmp_path / "a.parquet", texts, vectors))


def test_what_is_no_vector(tmp_path: Path) -> None:
    for value in ("AACAPw==", ["1", "2"], [True, False], [1, None], 3.5, {"0": 1}, [[1, 2]]):
        with pytest.raises(InvalidTeacher, match=r"a\.jsonl, line 2: column 'vector' holds .*, not a list of numbers"):
            RecordedVectors.load(write_lines(tmp_path / "a.jsonl", ["a", "b"], [[1, 2], value]))
    with pytest.raises(InvalidTeacher, match=r"line 2: the vector in 'vector' holds NaN, or infinite"):
        RecordedVectors.load(write_lines(tmp_path / "a.jsonl", ["a", "b"], [[1, 2], [1, 10**400]]))
    with pytest.raises(InvalidTeacher, match=r"a\.parquet, row 2: the vector in 'vector' has a hole"):
        RecordedVectors.load(write_parquet(tmp_path / "a.parquet", ["a", "b"], [[1, 2], [1, None]]))
    with pytest.raises(InvalidTeacher, match=r"no text in column 'text' but 5"):
        RecordedVectors.load(write_lines(tmp_path / "a.jsonl", [5], [[1, 2]]))
    pq.write_table(pa.table({"text": ["a"], "vector": ["[1, 2]"]}), tmp_path / "a.parquet")
    with pytest.raises(InvalidTeacher, match="column 'vector' holds string, not lists of numbers"):
        RecordedVectors.load(tmp_path / "a.parquet")


def test_a_text_twice_with_nearly_the_same_vector_counts_once(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "a.jsonl", ["b", "a", "a"], [[9, 9], [1, 2], [1.0001, 2]])
    assert RecordedVectors.load(path).embed_texts(["a", "b"]).tolist() == [[1, 2], [9, 9]]


def test_other_files(tmp_path: Path) -> None:
    with pytest.raises(InvalidTeacher, match=r"gone\.parquet: cannot be read"):
        RecordedVectors.load(tmp_path / "gone.parquet")
    for name, content in (("a.pkl", pickle.dumps(VECTORS)), ("a.npy", b"\x93NUMPY"), ("a.csv", b"text,vector\na,1\n")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidTeacher, match=rf"{name}: recorded vectors are read from Parquet or JSON lines"):
            RecordedVectors.load(tmp_path / name)
    (tmp_path / "a.parquet").write_bytes(pickle.dumps(VECTORS))
    with pytest.raises(InvalidTeacher, match=r"a\.parquet: not a readable Parquet file"):
        RecordedVectors.load(tmp_path / "a.parquet")
    for empty in (write_parquet(tmp_path / "a.parquet", [], []), write_lines(tmp_path / "a.jsonl", [], [])):
        with pytest.raises(InvalidTeacher, match=rf"{empty.name}: holds no rows; record some texts"):
            RecordedVectors.load(empty)


def test_texts_that_were_not_recorded(tmp_path: Path) -> None:
    recorded = RecordedVectors.load(write_parquet(tmp_path / "a.parquet", TEXTS, VECTORS))
    with pytest.raises(InvalidTeacher, match=r"no vector for 2 of 3 texts, first 'x'; .* subarch record .*a\.parquet"):
        recorded.embed_texts([TEXTS[0], "x", "y", "x"])


def test_what_is_taken_for_a_recording(tmp_path: Path) -> None:
    (tmp_path / "folder.json").mkdir()
    for name in ("v.parquet", "v.JSONL", "v.ndjson.gz", "v.json.zst", "no/such/folder/v.jsonl"):
        assert is_recording(tmp_path / name)
        assert is_recording(name)
    for name in ("folder.json", "all-MiniLM-L6-v2", "BAAI/bge-small-en-v1.5", "v.csv", "v.gz", ""):
        assert not is_recording(tmp_path / name), name
    code = "import sys; import subarch.text.vectors; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
