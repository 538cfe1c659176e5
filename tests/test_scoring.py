"""Scores against sums done by hand, the three kinds of task file, and what is refused."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from subarch.errors import InvalidCorpus
from subarch.tasks.scoring import LEAST_ROWS, Task, retrieval

Rows = list[dict[str, Any]]

RETRIEVAL: Rows = [{"query": f"query {n}", "document": f"document {n}, at length"} for n in range(9)]
SIMILARITY: Rows = [{"text_a": f"one {n}", "text_b": f"other {n}", "score": n / 2} for n in range(9)]
LABELS: Rows = [{"text": f"text {n}", "label": n % 3} for n in range(40)]


def jsonl(path: Path, rows: Rows) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def table(path: Path, rows: Rows, delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def as_text(rows: Rows) -> list[dict[str, str]]:
    return [{name: str(value) for name, value in row.items()} for row in rows]


def embedder(vectors: dict[str, list[float]]) -> Callable[[list[str]], NDArray[np.float32]]:
    return lambda texts: np.array([vectors[text] for text in texts], dtype=np.float32)


# --- retrieval ---


def test_mrr_and_recall_by_hand() -> None:
    documents = np.array([[1, 0], [0, 1], [-1, 0], [0, -1]], dtype=np.float32)
    queries = np.array(
        [
            [5, 0.1],  # nearest to document 0, its own: rank 1
            [3, 2],  # nearest to 0, then 1, its own: rank 2
            [1, 0.5],  # its own, 2, is the last but ... 0, 1, 3, 2: rank 4
            [-0.5, -1],  # 3 is nearest: rank 1
        ],
        dtype=np.float32,
    )
    assert retrieval(queries, documents) == {"mrr": pytest.approx((1 + 1 / 2 + 1 / 4 + 1) / 4), "recall@10": 1.0}
    # lengths play no part
    assert retrieval(queries * 7, documents * np.array([[1], [20], [0.1], [3]]))["mrr"] == pytest.approx(2.75 / 4)


def test_ties_count_against_the_query() -> None:
    same = np.ones((20, 3), dtype=np.float32)
    assert retrieval(same, same) == {"mrr": pytest.approx(1 / 20), "recall@10": 0.0}
    # two equal documents: each of their queries ranks second
    documents = np.eye(8, dtype=np.float32)
    documents[1] = documents[0]
    assert retrieval(documents, documents)["mrr"] == pytest.approx((6 + 2 / 2) / 8)


def test_recall_at_ten_by_hand() -> None:
    angles = np.linspace(0, 1, 12)
    documents = np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)
    queries = np.repeat(documents[:1], 12, axis=0)  # all look where document 0 is: query n finds its own at rank n + 1
    scores = retrieval(queries, documents)
    assert scores["recall@10"] == pytest.approx(10 / 12)
    assert scores["mrr"] == pytest.approx(sum(1 / n for n in range(1, 13)) / 12)


@given(st.integers(2, 30), st.integers(2, 6), st.integers(0, 10_000))
def test_retrieval_against_sorting(rows: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    queries, documents = random.normal(size=(2, rows, width)).astype(np.float32)
    ranks = []
    for n, query in enumerate(queries):
        cosine = [float(query @ document) / float(np.linalg.norm(document)) for document in documents]
        ranks.append(1 + sorted(range(rows), key=lambda k: -cosine[k]).index(n))
    scores = retrieval(queries, documents)
    assert scores["mrr"] == pytest.approx(sum(1 / rank for rank in ranks) / rows)
    assert scores["recall@10"] == pytest.approx(sum(rank <= 10 for rank in ranks) / rows)


def test_a_retrieval_task_embeds_queries_and_documents(tmp_path: Path) -> None:
    task = Task.read(jsonl(tmp_path / "task.jsonl", RETRIEVAL))
    vectors = {}
    for n, row in enumerate(RETRIEVAL):
        vectors[row["query"]] = vectors[row["document"]] = np.eye(9)[n].tolist()
    assert task.scores(embedder(vectors)) == {"mrr": 1.0, "recall@10": 1.0}
    vectors[RETRIEVAL[0]["query"]] = [0.0, 1.0, *[0.5] * 7]  # finds all others before its own
    assert task.scores(embedder(vectors))["mrr"] == pytest.approx((8 + 1 / 9) / 9)


# --- similarity ---


def test_spearman_by_hand(tmp_path: Path) -> None:
    task = Task.read(jsonl(tmp_path / "task.jsonl", SIMILARITY))
    angles = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1]  # the higher the score, the smaller the angle
    vectors = {f"one {n}": [9.0 - n, 0.0] for n in range(9)}  # lengths play no part
    vectors |= {f"other {n}": [math.cos(angle) / (n + 1), math.sin(angle) / (n + 1)] for n, angle in enumerate(angles)}
    assert task.scores(embedder(vectors)) == {"spearman": pytest.approx(1.0)}
    # the two best swapped: 1 - 6·Σd²/(n(n² - 1)) = 1 - 6·2/(9·80)
    vectors["other 7"], vectors["other 8"] = vectors["other 8"], vectors["other 7"]
    assert task.scores(embedder(vectors))["spearman"] == pytest.approx(1 - 12 / 720)


def test_scores_of_any_scale(tmp_path: Path) -> None:
    rows = [
        row | {"score": text}
        for row, text in zip(SIMILARITY, ["-3", "-1e2", "0", ".5", "1", "2.50", "+4", "5e0", "1e3"], strict=True)
    ]
    task = Task.read(table(tmp_path / "task.csv", rows))
    assert [float(row["score"]) for row in task.rows] == [-3, -100, 0, 0.5, 1, 2.5, 4, 5, 1000]


# --- labels ---


def _first_half(text: str) -> bool:
    return hashlib.sha256(text.encode()).digest()[0] < 128


def test_accuracy_on_the_half_that_was_not_fitted(tmp_path: Path) -> None:
    task = Task.read(jsonl(tmp_path / "task.jsonl", LABELS))
    vectors = {row["text"]: np.eye(3)[row["label"]].tolist() for row in LABELS}
    assert task.scores(embedder(vectors)) == {"accuracy": 1.0}
    scored = [row for row in LABELS if not _first_half(row["text"])]
    assert 5 < len(scored) < 35
    # three of the scored texts are embedded as if they had another label
    for row in scored[:3]:
        vectors[row["text"]] = np.eye(3)[(row["label"] + 1) % 3].tolist()
    assert task.scores(embedder(vectors))["accuracy"] == pytest.approx(1 - 3 / len(scored))


def test_one_label_in_the_half_that_is_fitted(tmp_path: Path) -> None:
    rows = [{"text": f"text {n}", "label": "same"} for n in range(20)]
    task = Task.read(jsonl(tmp_path / "task.jsonl", rows))
    with pytest.raises(InvalidCorpus, match="a single label"):
        task.scores(lambda texts: np.ones((len(texts), 2), dtype=np.float32))


# --- files ---


@pytest.mark.parametrize("kind", ["retrieval", "similarity", "labels"])
def test_the_formats_are_equal(tmp_path: Path, kind: str) -> None:
    rows = {"retrieval": RETRIEVAL, "similarity": SIMILARITY, "labels": LABELS}[kind]
    files = [
        jsonl(tmp_path / "a.jsonl", rows),
        table(tmp_path / "b.csv", rows),
        table(tmp_path / "c.tsv", rows, "\t"),
    ]
    files.append(tmp_path / "bom.jsonl")
    files[-1].write_bytes(b"\xef\xbb\xbf" + files[0].read_bytes())
    files.append(tmp_path / "bom.csv")
    files[-1].write_bytes(b"\xef\xbb\xbf" + files[1].read_bytes())
    files.append(tmp_path / "blank.jsonl")
    files[-1].write_text("\n" + files[0].read_text(encoding="utf-8").replace("\n", "\n\n"), encoding="utf-8")
    files.append(tmp_path / "windows.csv")
    files[-1].write_bytes(files[1].read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))
    tasks = [Task.read(file) for file in files]
    assert all(task.kind == kind for task in tasks)
    assert all(task.rows == as_text(rows) for task in tasks)
    assert len({task.fingerprint for task in tasks}) == 1


def test_other_kinds_of_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(RETRIEVAL, indent=1), encoding="utf-8")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(table(tmp_path / "a.csv", RETRIEVAL).read_bytes()))
    for name in ("a.json", "a.csv.gz"):
        assert Task.read(tmp_path / name).rows == RETRIEVAL


def test_an_unbalanced_quote_in_tsv_is_text(tmp_path: Path, shared_cases: Path) -> None:
    rows = [row | {"document": f'"{row["document"]}'} for row in RETRIEVAL]
    text = "query\tdocument\n" + "".join(f"{row['query']}\t{row['document']}\n" for row in rows)
    (tmp_path / "a.tsv").write_text(text, encoding="utf-8")
    assert Task.read(tmp_path / "a.tsv").rows == rows
    assert len(Task.read(shared_cases / "tasks" / "unbalanced-quote.tsv").rows) == 20


def test_other_columns_are_left_out(tmp_path: Path) -> None:
    more = [{"id": n, **row, "source": None} for n, row in enumerate(RETRIEVAL)]
    assert Task.read(jsonl(tmp_path / "a.jsonl", more)).rows == as_text(RETRIEVAL)


def test_the_fingerprint_is_of_the_content(tmp_path: Path) -> None:
    prints = {Task.read(jsonl(tmp_path / "a.jsonl", rows)).fingerprint for rows in (RETRIEVAL, RETRIEVAL[::-1], LABELS)}
    changed = [RETRIEVAL[0] | {"query": "another"}, *RETRIEVAL[1:]]
    assert len(prints | {Task.read(jsonl(tmp_path / "a.jsonl", changed)).fingerprint}) == 4


def test_zero_is_a_value(tmp_path: Path) -> None:
    labels = Task.read(jsonl(tmp_path / "a.jsonl", [{"text": f"text {n}", "label": n % 2} for n in range(8)]))
    assert {row["label"] for row in labels.rows} == {"0", "1"}
    flags = Task.read(jsonl(tmp_path / "b.jsonl", [{"text": f"text {n}", "label": n % 2 == 0} for n in range(8)]))
    assert {row["label"] for row in flags.rows} == {"True", "False"}
    scores = Task.read(jsonl(tmp_path / "c.jsonl", [row | {"score": row["score"] - 2} for row in SIMILARITY]))
    assert [float(row["score"]) for row in scores.rows] == [n / 2 - 2 for n in range(9)]


@pytest.mark.parametrize(
    "text", ["two\nlines", 'a "quoted" word', "a, comma", "form\x0cfeed", "line\u2028separator", "é"]
)
def test_a_table_cell_may_hold_anything(tmp_path: Path, text: str) -> None:
    rows = [*RETRIEVAL, {"query": "last", "document": text}]
    assert Task.read(table(tmp_path / "a.csv", rows)).rows[-1]["document"] == text
    assert Task.read(jsonl(tmp_path / "a.jsonl", rows)).rows[-1]["document"] == text


BAD: dict[str, tuple[str, bytes, str]] = {
    # file name, content, what the message must say; malformed files are the reader's: see test_formats.py
    "empty": ("a.jsonl", b"", r"has the columns \[\]; a task needs query, document; or text_a, text_b, score"),
    "blank lines": ("a.jsonl", b"\n\n \n", r"has the columns \[\]"),
    "header alone": ("a.csv", b"query,document\n", r"has the columns \[\]"),
    "missing column": ("a.csv", b"query,documents\n" + b"a,b\n" * 9, r"\['documents', 'query'\]; a task needs"),
    "score missing": ("a.jsonl", b'{"text_a": "a", "text_b": "b"}\n' * 9, r"\['text_a', 'text_b'\]"),
    "csv by another name": ("a.tsv", b"query,document\n" + b"a,b\n" * 9, r"has the columns \['query,document'\]"),
    "seven rows": ("a.csv", b"query,document\n" + b"a,b\n" * 7, "7 rows; at least 8 are needed"),
    "not json": ("a.jsonl", b'{"query": "a", "document": "b"}\n{"query": \n', "line 2: not JSON"),
    "prose": ("a.txt", b"query and document\n" * 9, "plain text, not records"),
    "latin-1": ("a.csv", b"query,document\n" + "é,b\n".encode("latin-1") * 9, "line 2: not UTF-8"),
    "a cell without end": ("a.csv", b"query,document\n" + b'a,"' + b"long " * 40_000 + b"\n", "line 2: not CSV"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files(tmp_path: Path, name: str) -> None:
    file, content, message = BAD[name]
    (tmp_path / file).write_bytes(content)
    with pytest.raises(InvalidCorpus, match=message) as caught:
        Task.read(tmp_path / file)
    assert str(tmp_path / file) in str(caught.value)


def test_no_file(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.jsonl", tmp_path):
        with pytest.raises(InvalidCorpus, match="cannot be read"):
            Task.read(path)


@pytest.mark.parametrize(
    ("rows", "change", "message"),
    [
        (RETRIEVAL, {"document": ""}, "line [45]: document is empty"),
        (RETRIEVAL, {"query": "  "}, "line [45]: query is empty"),
        (RETRIEVAL, {"query": None}, "line [45]: query is empty"),
        (LABELS, {"label": ""}, "line [45]: label is empty"),
        (SIMILARITY, {"score": "high"}, "line [45]: score 'high' is not a number"),
        (SIMILARITY, {"score": "nan"}, "line [45]: score 'nan' is not a number"),
        (SIMILARITY, {"score": "inf"}, "line [45]: score 'inf' is not a number"),
        (SIMILARITY, {"score": ""}, "line [45]: score is empty"),
    ],
)
@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_bad_cells(tmp_path: Path, rows: Rows, change: dict[str, Any], message: str, form: str) -> None:
    changed = [*rows[:3], rows[3] | change, *rows[4:]]
    path = tmp_path / f"a.{form}"
    with pytest.raises(InvalidCorpus, match=message):
        Task.read(jsonl(path, changed) if form == "jsonl" else table(path, changed))


def test_a_number_that_is_no_number(tmp_path: Path) -> None:
    rows = [*SIMILARITY[:3], SIMILARITY[3] | {"score": math.nan}, *SIMILARITY[4:]]  # JSON as Python writes it: NaN
    with pytest.raises(InvalidCorpus, match=r"line [45]: score 'nan' is not a number"):
        Task.read(jsonl(tmp_path / "a.jsonl", rows))


def test_a_short_row(tmp_path: Path) -> None:
    path = table(tmp_path / "a.csv", RETRIEVAL)
    path.write_text(path.read_text(encoding="utf-8") + "alone\n", encoding="utf-8")
    with pytest.raises(InvalidCorpus, match="line 11: 1 fields for 2 columns"):
        Task.read(path)


def test_scores_that_are_all_the_same(tmp_path: Path) -> None:
    rows = [row | {"score": 3} for row in SIMILARITY]
    with pytest.raises(InvalidCorpus, match="all scores are 3"):
        Task.read(jsonl(tmp_path / "a.jsonl", rows))


@given(st.binary(max_size=300), st.sampled_from(["a.jsonl", "a.csv", "a.tsv"]))
def test_whatever_the_bytes(tmp_path_factory: pytest.TempPathFactory, content: bytes, name: str) -> None:
    path = tmp_path_factory.mktemp("fuzz") / name
    path.write_bytes(content)
    with pytest.raises(InvalidCorpus):
        Task.read(path)


cells = st.none() | st.integers() | st.floats() | st.text(max_size=6) | st.lists(st.integers(), max_size=2)
columns = st.sampled_from(["query", "document", "text", "label", "text_a", "text_b", "score", "id"])


@given(st.lists(st.dictionaries(columns, cells, max_size=4), min_size=1, max_size=12))
def test_whatever_the_rows(tmp_path_factory: pytest.TempPathFactory, rows: Rows) -> None:
    path = jsonl(tmp_path_factory.mktemp("fuzz") / "a.jsonl", rows)
    try:
        task = Task.read(path)
    except InvalidCorpus:
        return
    assert len(task.rows) == len(rows) >= LEAST_ROWS
    assert all(cell for row in task.rows for cell in row.values())
