"""`subarch record`: the vectors of a corpus come once, whole, from one model, whatever befalls server and process."""

from __future__ import annotations

import base64
import errno
import json
import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from email.utils import formatdate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import subarch
from embeddings_server import Reply, Server
from subarch.cli.app import app
from subarch.errors import EndpointFailed, InvalidConfig, InvalidCorpus, SubarchError
from subarch.recording import endpoint
from subarch.recording.config import RecordConfig
from subarch.recording.endpoint import embeddings_url
from subarch.recording.kept import METADATA, Kept
from subarch.recording.record import Recorded
from subarch.recording.texts import cut, wanted
from subarch.run import silent
from subarch.run.configuration import load
from subarch.text.read import clean, read
from subarch.text.vectors import RecordedVectors

TEXTS = [f"this is text number {number}" for number in range(20)]
KEY = "sk-very-secret-0123456789"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(endpoint, "PAUSES", (0.01, 0.05))
    monkeypatch.setattr(endpoint, "PATIENCE", 3.0)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with Server() as running:
        yield running


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    path = tmp_path / "corpus.txt"
    path.write_text("\n".join(TEXTS))
    return path


def record(server: Server, corpus: Path, **options: Any) -> Recorded:
    """Into vectors.parquet beside the corpus, four texts at a time, one request after the other."""
    values: dict[str, Any] = {"endpoint": server.url, "model": "tiny", "texts_per_request": 4, "concurrency": 1}
    return subarch.record(out_of(corpus), corpus=str(corpus), **values | options)


def out_of(corpus: Path) -> Path:
    return corpus.with_name("vectors.parquet")


def check(server: Server, corpus: Path, texts: list[str] = TEXTS, prompt: str = "") -> None:
    """The file holds the server's vectors of exactly these texts."""
    recorded = RecordedVectors.load(out_of(corpus))
    assert sorted(recorded.texts) == sorted(texts)
    expected = np.stack([server.vector(prompt + text) for text in recorded.texts])
    np.testing.assert_array_equal(recorded.vectors, expected)
    assert not corpus.with_name("vectors.parquet.partial").exists()
    assert not list(corpus.parent.glob(".*"))


# --- what it does ---


def test_every_text_once(server: Server, corpus: Path) -> None:
    corpus.write_text("\n".join([*TEXTS, TEXTS[3].upper() + "!", "two words"]))
    found = record(server, corpus, price=2.0)
    check(server, corpus)
    assert server.answered == Counter(TEXTS)
    assert [asked.body["input"] for asked in server.asked] == [TEXTS[first : first + 4] for first in range(0, 20, 4)]
    assert {(asked.path, asked.key) for asked in server.asked} == {("/v1/embeddings", None)}
    assert server.asked[0].body.keys() == {"model", "input", "encoding_format"}
    assert (found.texts, found.known, found.rows, found.width, found.requests, found.retries) == (20, 0, 20, 5, 5, 0)
    assert (found.tokens, found.cost) == (100, 100 * 2.0 / 1e6)
    assert found.estimated_tokens == -(-sum(map(len, TEXTS)) // 4)
    assert found.estimated_cost == found.estimated_tokens * 2.0 / 1e6
    kept = json.loads(pq.ParquetFile(out_of(corpus)).schema_arrow.metadata[METADATA])
    assert kept == {
        "model": "tiny",
        "served": "tiny",
        "prompt": None,
        "dimensions": None,
        "width": 5,
        "date": time.strftime("%Y-%m-%d"),
    }
    assert server.url.split("/")[2].encode() not in out_of(corpus).read_bytes()


def test_prompt_and_dimensions(server: Server, corpus: Path) -> None:
    server.width = 3
    record(server, corpus, prompt="query: ", dimensions=3)
    check(server, corpus, prompt="query: ")
    assert server.asked[0].body["input"][0] == f"query: {TEXTS[0]}"
    assert server.asked[0].body["dimensions"] == 3
    for options, message in (
        ({"dimensions": 3}, r"--prompt: .* was recorded with 'query: ', and None is asked for"),
        ({"prompt": "query: "}, r"--dimensions: .* was recorded with 3, and None is asked for"),
        ({"prompt": "query: ", "dimensions": 3, "model": "other"}, "--model: .* was recorded with 'tiny', and 'other'"),
    ):
        with pytest.raises(InvalidConfig, match=message):
            record(server, corpus, **options)


def test_a_later_recording_adds_what_is_missing(server: Server, corpus: Path) -> None:
    assert record(server, corpus, limit=6).rows == 6
    check(server, corpus, TEXTS[:6])
    found = record(server, corpus)
    assert (found.known, found.rows) == (6, 20)
    check(server, corpus)
    assert server.answered == Counter(TEXTS) + Counter(TEXTS[:1])  # the first one again, to know the model by
    before = len(server.asked)
    assert record(server, corpus).requests == 0
    corpus.write_text("Something else entirely.")
    assert record(server, corpus).rows == 21
    assert len(server.asked) == before + 2
    check(server, corpus, [*TEXTS, "Something else entirely."])


def test_a_dry_run_asks_nothing_and_writes_nothing(server: Server, corpus: Path) -> None:
    said: list[str] = []
    found = record(server, corpus, dry_run=True, price=1000.0, say=said.append)
    assert said == ["20 texts to record: about 108 tokens, estimated as characters / 4, about 0.108 at 1000 a million"]
    assert (found.texts, found.estimated_tokens, found.rows) == (20, 108, None)
    assert server.asked == []
    assert list(corpus.parent.iterdir()) == [corpus]
    record(server, corpus, limit=5, say=said.append)
    record(server, corpus, dry_run=True, say=said.append)
    assert said[2].startswith("15 texts to record (5 of 20 are recorded already): about ")


@pytest.mark.slow
def test_requests_at_once_and_per_minute(server: Server, corpus: Path) -> None:
    server.seconds = 0.1
    record(server, corpus, concurrency=3, texts_per_request=1)
    assert server.most_at_once == 3
    check(server, corpus)
    out_of(corpus).unlink()
    server.asked.clear()
    server.seconds = 0
    record(server, corpus, concurrency=3, requests_per_minute=600)
    times = [asked.at for asked in server.asked]
    assert times[-1] - times[0] > 0.3  # a tenth of a second between the starts of five


def test_progress(server: Server, corpus: Path) -> None:
    server.faults[1] = Reply(500)
    told: list[tuple[str, float, float]] = []
    record(server, corpus, report=lambda *news: told.append(news))
    assert told[-1] == ("recording", 20, 20)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)


def test_command_line(server: Server, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    words = ["record", "--endpoint", server.url, "--model", "tiny", "--corpus", str(corpus), "--out"]
    done = CliRunner().invoke(app, [*words, str(out_of(corpus)), "--price", "1", "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["rows"] == 20
    done = CliRunner().invoke(app, [*words, str(out_of(corpus)), "--limit", "3"], catch_exceptions=False)
    assert "recorded before" in done.stdout
    assert f"written to {out_of(corpus)}" in done.stdout
    server.model = "other[/b]"
    done = CliRunner().invoke(app, [*words, f"{out_of(corpus)}2.parquet"], catch_exceptions=False)
    assert re.search(r"model asked for +tiny\b", done.stdout)
    assert re.search(r"as the server calls it +other\[/b\]", done.stdout)
    for wrong, message in (
        (["--model", "\udcff"], "--model: model = .*: Input should be a valid string"),
        ([], "configuration: out: Field required"),
    ):
        done = CliRunner().invoke(app, [*words[:-1], *wrong])
        assert isinstance(done.exception, InvalidConfig)
        assert re.search(message, str(done.exception))
    done = CliRunner().invoke(app, [*words, "vectors.jsonl"])
    assert isinstance(done.exception, InvalidConfig)
    assert "--out: out = " in str(done.exception)
    assert "let the name end in .parquet" in str(done.exception)


# --- the texts ---


def test_long_documents_are_cut_and_stay_together(server: Server, corpus: Path, tmp_path: Path) -> None:
    long = " ".join(f"Sentence {number} has five words." for number in range(30))
    rows = [{"text": long, "group": None}, {"text": long.replace("five", "5"), "group": "g"}, {"text": TEXTS[0]}]
    corpus = tmp_path / "corpus.jsonl"
    corpus.write_text("\n".join(map(json.dumps, rows)))
    record(server, corpus)
    table = pq.read_table(out_of(corpus)).to_pylist()
    groups = Counter(row["group"] for row in table)
    assert all(len(row["text"].split()) <= 48 and row["text"].endswith((".", "0")) for row in table)
    assert len(groups) == 3
    assert (groups["g"], groups[None]) == (4, 1)
    # as a corpus, the file is the texts that have vectors
    documents = list(read([out_of(corpus)]))
    assert [(document.text, document.group) for document in documents] == [(row["text"], row["group"]) for row in table]
    RecordedVectors.load(out_of(corpus)).embed_texts([document.text for document in documents])


@given(
    st.text(st.sampled_from("ab .!?\u3002'\u4e2d\u6587\u0301\n"), max_size=200) | st.text(max_size=100),
    st.integers(3, 9),
)
@settings(deadline=None, max_examples=300)
def test_cutting_loses_nothing(text: str, most: int) -> None:
    text = clean(text)
    pieces = cut(text, most)
    assert "".join("".join(pieces).split()) == "".join(text.split())
    assert all(clean(piece) == piece for piece in pieces)
    assert all(len(piece.split()) <= most for piece in pieces)


def test_where_texts_are_cut() -> None:
    assert cut("One two three. Four five six seven! Eight.", 5) == ["One two three.", "Four five six seven! Eight."]
    assert cut("a b c d e f g h i", 8) == ["a b c d e", "f g h i"]
    assert [len(piece) for piece in cut("\u4e2d" * 100, 48)] == [48, 26, 26]
    assert [len(piece) for piece in cut("x" * 400, 5)] == [200, 200]
    assert cut("one two", 5) == ["one two"]


def test_a_corpus_without_text(server: Server, corpus: Path) -> None:
    corpus.write_text("a b\nc d\n")
    with pytest.raises(InvalidCorpus, match="no usable text"):
        record(server, corpus)
    config = {"endpoint": server.url, "model": "m", "corpus": [str(corpus)], "out": out_of(corpus), "max_words": 3}
    corpus.write_text("a / b / c")
    with pytest.raises(InvalidCorpus, match=r"no text of three words or more in .*corpus\.txt"):
        wanted(load(RecordConfig, None, config), silent)


# --- a server that is not well ---


@pytest.mark.parametrize(
    "fault",
    [
        Reply(500),
        Reply(502, "<html>bad gateway"),
        Reply(429, "{}"),
        Reply(503),
        Reply(408),
        Reply(cut=40),
        Reply(200, '{"data"'),
    ],
    ids=["500", "502", "429", "503", "408", "truncated", "not JSON"],
)
def test_what_passes_is_tried_again(server: Server, corpus: Path, fault: Reply) -> None:
    server.faults = {0: fault, 3: fault, 4: fault}
    found = record(server, corpus)
    assert found.retries == 3
    again = server.answered - Counter(TEXTS)
    assert again.keys() <= ({TEXTS[0]} if fault.cut else set())  # after a lost connection, to know the model by
    assert found.requests == 8 + again.total()
    check(server, corpus)


@pytest.mark.slow
def test_a_slow_answer_is_asked_for_again(server: Server, corpus: Path) -> None:
    server.faults[1] = Reply(seconds=2.5)
    assert record(server, corpus, timeout=1).retries == 1
    check(server, corpus)


@pytest.mark.slow
@pytest.mark.parametrize("is_date", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_server_says_when_to_come_back(server: Server, corpus: Path, is_date: bool) -> None:
    server.seconds = 0.3  # what is under way is answered when the refusal is known
    when = formatdate(time.time() + 2.5, usegmt=True) if is_date else "1"
    server.faults[1] = Reply(429, retry_after=when, seconds=0.001)
    record(server, corpus, concurrency=2)
    assert min(asked.at for asked in server.asked[2:]) - server.asked[1].at > 0.9  # nobody asks in between
    check(server, corpus)


def test_patience_ends(server: Server, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint, "PATIENCE", 0.2)
    server.faults = {number: Reply(500, '{"error": {"message": "out of memory"}}') for number in range(2, 99)}
    with pytest.raises(EndpointFailed, match=r"HTTP 500: out of memory \(after \d+ attempts in \d s\); finished work"):
        record(server, corpus)
    server.faults = {number: Reply(429, "quota", retry_after="7200") for number in range(len(server.asked), 999)}
    with pytest.raises(EndpointFailed, match=r"HTTP 429: quota \(after 1 attempts .* asks to come back in 7200 s"):
        record(server, corpus)
    server.faults = {}
    assert record(server, corpus).known == 8
    assert server.answered == Counter(TEXTS) + Counter(TEXTS[:1])


def test_no_server(corpus: Path, server: Server) -> None:
    server.__exit__()
    began = time.monotonic()
    with pytest.raises(
        EndpointFailed, match=r"127.0.0.1:\d+/v1/embeddings: nothing answers there .*; start the server"
    ):
        record(server, corpus)
    assert time.monotonic() - began < 2


@pytest.mark.slow
def test_a_server_that_goes_away(server: Server, corpus: Path) -> None:
    server.on_request = lambda number: setattr(server, "always", Reply(cut=40) if number >= 2 else None)
    began = time.monotonic()
    with pytest.raises(
        EndpointFailed, match=r"no answer \(RemoteProtocolError.* attempts in [0-9] s\); finished work is"
    ):
        record(server, corpus, concurrency=2)
    assert 3 <= time.monotonic() - began < 6  # its patience once
    server.on_request, server.always = lambda number: None, None
    assert record(server, corpus).known in (4, 8)
    check(server, corpus)


REFUSALS = {
    "bad request": (Reply(400, '{"error": {"message": "too long"}}'), r"HTTP 400: too long; .*--texts-per-request"),
    "bad key": (Reply(401, f'{{"error": {{"message": "Incorrect key: {KEY}"}}}}'), r"HTTP 401: .*OPENAI_API_KEY"),
    "unknown": (Reply(404, '{"detail": "no such model"}'), "HTTP 404: no such model; check that --endpoint"),
    "too many": (Reply(413, "batch size 4 > maximum 2"), "HTTP 413: batch size 4 > maximum 2; it may take fewer"),
    "moved": (Reply(301, "x", location="https://new/v1"), "HTTP 301: x; it points to 'https://new/v1': give that"),
    "page": (
        Reply(200, "<!DOCTYPE html><p>Welcome"),
        "answers with a page of HTML, not with JSON; check that --endpoint",
    ),
    "no data": (Reply(200, '{"error": "overloaded"}'), "answers {'error': 'overloaded'}, which has no list 'data'"),
    "empty": (Reply(200, '{"data": []}'), "answers 0 vectors for 4 texts"),
    "a list": (Reply(200, "[1]"), r"answers \[1\], which has no list 'data'"),
    "nested": (Reply(400, '{"error": ' * 5 + "{}" + "}" * 5), "HTTP 400: "),
    "silent": (Reply(422, " "), r"HTTP 422: \(no message\)"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_does_not_pass_fails_at_once(
    server: Server, corpus: Path, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server.always, message = REFUSALS[case]
    with pytest.raises(EndpointFailed, match=message) as error:
        record(server, corpus)
    assert "/v1/embeddings: " in str(error.value)
    assert KEY not in str(error.value)
    assert len(server.asked) == 1


def data_of(change: Any) -> Any:
    """A twist of the answer's list of vectors."""
    return lambda answer: answer | {"data": change(answer["data"])}


def entry(**values: Any) -> Any:
    return data_of(lambda data: [data[0] | values, *data[1:]])


BAD = {
    "one too few": (data_of(lambda data: data[:-1]), "answers 3 vectors for 4 texts; mend"),
    "one twice": (entry(index=1), r"numbers the vectors of 4 texts \[1, 1, 2, 3\]"),
    "index from 1": (data_of(lambda data: [one | {"index": one["index"] + 1} for one in data]), r"\[1, 2, 3, 4\]"),
    "index is text": (entry(index="0"), r"numbers the vectors of 4 texts \['0', 1, 2, 3\]"),
    "NaN": (entry(embedding=[float("nan")] * 5), "vector of the text 'this is text number 0' holds NaN"),
    "huge": (entry(embedding=[10**400] * 5), "vector of the text 'this is text number 0' holds no numbers"),
    "zero": (entry(embedding=[0] * 5), "'this is text number 0' is zero"),
    "null": (entry(embedding=None), "'this is text number 0' holds no numbers"),
    "short": (entry(embedding=[1, 2]), "'this is text number 0' has 2 numbers, and others have 5"),
    "no base64": (entry(embedding="?!"), "'this is text number 0' holds no numbers"),
    "words": (entry(embedding=["1"] * 5), "'this is text number 0' holds no numbers"),
    "not objects": (data_of(lambda data: [1, 2, 3, 4]), "no list 'data' of vectors"),
}


@pytest.mark.parametrize("case", BAD)
def test_answers_that_cannot_be_right(server: Server, corpus: Path, case: str) -> None:
    server.twist, message = BAD[case]
    with pytest.raises(EndpointFailed, match=message):
        record(server, corpus)
    assert not out_of(corpus).exists()


def test_answers_in_other_forms(server: Server, corpus: Path) -> None:
    def encoded(data: Any) -> Any:
        return [one | {"embedding": base64.b64encode(np.array(one["embedding"], "<f4")).decode()} for one in data]

    for twist in (
        data_of(lambda data: data[::-1]),  # the index decides
        data_of(encoded),
        data_of(lambda data: [{"embedding": one["embedding"]} for one in data]),
        lambda answer: {"data": answer["data"]},
        lambda answer: answer | {"usage": {"total_tokens": "many"}},
    ):
        server.twist = twist
        record(server, corpus)
        check(server, corpus)
        out_of(corpus).unlink()


READER = endpoint.Endpoint(
    load(RecordConfig, None, {"endpoint": "http://x", "model": "m", "corpus": ["c"], "out": Path("o.parquet")})
)
anything = st.recursive(st.none() | st.floats() | st.integers() | st.text(max_size=3), st.lists, max_leaves=4)
numbers = st.lists(st.floats(-2, 2), min_size=2, max_size=2)
entries = st.fixed_dictionaries({}, optional={"index": st.integers(0, 1) | anything, "embedding": numbers | anything})
answers = st.fixed_dictionaries(
    {"data": st.lists(entries, min_size=2, max_size=2) | anything},
    optional={"model": anything, "usage": anything | st.dictionaries(st.just("prompt_tokens"), anything)},
)


@given(answers | anything)
@settings(deadline=None, max_examples=400)
def test_an_answer_is_sound_or_refused(content: Any) -> None:
    try:
        answer = READER._answer(content, ["a", "b"])
    except EndpointFailed:
        return
    assert answer.vectors.shape[0] == 2
    assert np.isfinite(answer.vectors).all()
    assert answer.vectors.any(axis=1).all()


# --- the key ---


def test_the_key_is_sent_and_kept_nowhere(
    server: Server, corpus: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("MY_KEY", f" {KEY}\n")
    server.faults[2] = Reply(403, KEY)
    with pytest.raises(EndpointFailed, match=r"HTTP 403: \(the key\); .* MY_KEY holds another key"):
        record(server, corpus, key_variable="MY_KEY")
    assert corpus.with_name("vectors.parquet.partial").exists()
    found = record(server, corpus, key_variable="MY_KEY")
    assert {asked.key for asked in server.asked} == {f"Bearer {KEY}"}
    assert KEY not in found.to_json()
    assert KEY not in caplog.text
    assert all(KEY.encode() not in path.read_bytes() for path in corpus.parent.rglob("*") if path.is_file())


def test_a_key_that_is_none(server: Server, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in (f"{KEY}\nX-Other: 1", f"{KEY}é"):
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with pytest.raises(InvalidConfig, match="--key-variable: OPENAI_API_KEY holds characters that no key") as error:
            record(server, corpus)
        assert KEY not in str(error.value)
    monkeypatch.delenv("OPENAI_API_KEY")
    server.always = Reply(401, "who are you?")
    with pytest.raises(EndpointFailed, match=r"OPENAI_API_KEY is not set; set it, or name one: --key-variable"):
        record(server, corpus)


def test_addresses() -> None:
    for given_, expected in (
        ("http://localhost:8000", "http://localhost:8000/v1/embeddings"),
        ("http://localhost:8000/", "http://localhost:8000/v1/embeddings"),
        ("https://api.example.org/v1/", "https://api.example.org/v1/embeddings"),
        ("https://example.org/v1beta/openai", "https://example.org/v1beta/openai/embeddings"),
        ("https://example.org/a/embeddings?api-version=2#x", "https://example.org/a/embeddings?api-version=2"),
        ("http://[::1]:80/v1", "http://[::1]:80/v1/embeddings"),
    ):
        assert embeddings_url(given_) == expected
    for wrong in ("localhost:8000", "ftp://x/v1", "http://", "http://x:99999", "http://[::1", "/v1"):
        with pytest.raises(InvalidConfig, match="is no http or https address"):
            embeddings_url(wrong)
    with pytest.raises(InvalidConfig, match="has a user or password in it") as error:
        embeddings_url("https://me:hunter2@example.org/v1")
    assert "hunter2" not in str(error.value)


# --- another model ---


def test_a_model_that_changes_in_between(server: Server, corpus: Path) -> None:
    def swap(number: int) -> None:
        if number == 2:
            server.model = "other"

    server.on_request = swap
    with pytest.raises(EndpointFailed, match=r"the server answers as model 'other', and what is kept was .* by 'tiny'"):
        record(server, corpus)
    with pytest.raises(EndpointFailed, match="answers as model 'other'"):
        record(server, corpus)
    server.model = "tiny"
    server.width = 7
    with pytest.raises(EndpointFailed, match="answers vectors of 7 numbers, and what is kept has 5; serve that model"):
        record(server, corpus)
    server.width = 5
    server.salt = "other weights"
    with pytest.raises(
        EndpointFailed, match=r"'tiny' has changed: the text 'this is text number 0' has another vector"
    ):
        record(server, corpus)
    server.salt = ""
    record(server, corpus)
    check(server, corpus)
    server.salt = "other weights"  # also into a finished file
    corpus.write_text("one more text")
    with pytest.raises(EndpointFailed, match="has changed"):
        record(server, corpus)


def test_another_model_after_a_lost_connection(server: Server, corpus: Path) -> None:
    server.faults[2] = Reply(cut=40)
    server.on_request = lambda number: setattr(server, "salt", "other weights" if number > 2 else "")
    with pytest.raises(EndpointFailed, match="'tiny' has changed: the text 'this is text number 0' has another vector"):
        record(server, corpus, concurrency=2)
    server.on_request = lambda number: None
    server.salt = ""
    assert record(server, corpus).known <= 8  # nothing of the other one
    check(server, corpus)


def test_a_width_that_changes_in_between(server: Server, corpus: Path) -> None:
    server.on_request = lambda number: setattr(server, "width", 5 + (number >= 2))
    with pytest.raises(EndpointFailed, match="answers vectors of 6 numbers, and what is kept has 5"):
        record(server, corpus)


def test_another_width_than_asked_for(server: Server, corpus: Path) -> None:
    with pytest.raises(EndpointFailed, match="answers 5 dimensions where 4 are asked for; leave --dimensions out"):
        record(server, corpus, dimensions=4)


# --- what was paid for stays ---

COMMAND = """
import sys, os, signal, json
from pathlib import Path
import subarch
from subarch.recording import kept
dies, values = sys.argv[1], json.loads(sys.argv[2])
def die(*arguments, **options):
    os.kill(os.getpid(), signal.SIGKILL)
if dies == "before the file":
    kept.Kept.finish = die
elif dies == "in the file":
    kept.os.fsync = die
elif dies == "after the file":
    Path.unlink = die
subarch.record(**values)
"""


def started(server: Server, corpus: Path, dies: str = "", **options: Any) -> subprocess.Popen[bytes]:
    values = {"out": str(out_of(corpus)), "corpus": str(corpus), "endpoint": server.url, "model": "tiny"}
    values |= {"texts_per_request": 2, "concurrency": 2, **options}
    return subprocess.Popen([sys.executable, "-c", COMMAND, dies, json.dumps(values)])


@pytest.mark.parametrize("at", [1, pytest.param(4, marks=pytest.mark.slow), pytest.param(7, marks=pytest.mark.slow)])
def test_kill_at_any_instant(server: Server, corpus: Path, at: int) -> None:
    server.seconds = 0.02
    processes: list[subprocess.Popen[bytes]] = []

    def kill(number: int) -> None:
        if number == at:
            processes[0].kill()

    server.on_request = kill
    processes.append(started(server, corpus))
    assert processes[0].wait(60) == -signal.SIGKILL
    time.sleep(0.1)
    with Kept(out_of(corpus)) as kept:
        stored = kept.texts()
    sent = server.answered.copy()
    assert stored <= sent.keys()
    assert len(sent.keys() - stored) <= 2 * 2  # the requests in flight
    server.answered.clear()
    record(server, corpus)
    first = {TEXTS[0]} if TEXTS[0] in stored else stored and {min(stored, key=TEXTS.index)}
    assert server.answered.keys() & stored == set(first)  # asked again to know the model by, and nothing else
    assert max(server.answered.values()) == 1
    check(server, corpus)


@pytest.mark.slow
@pytest.mark.parametrize(
    "dies",
    ["in the file", *(pytest.param(when, marks=pytest.mark.slow) for when in ("before the file", "after the file"))],
)
def test_kill_at_the_end(server: Server, corpus: Path, dies: str) -> None:
    assert started(server, corpus, dies).wait(60) == -signal.SIGKILL
    asked = len(server.asked)
    found = record(server, corpus)
    assert (found.known, found.rows, found.requests) == (20, 20, 0)
    assert len(server.asked) == asked
    for path in corpus.parent.glob(".*.tmp"):  # a killed process cannot tidy up
        path.unlink()
    check(server, corpus)


def test_ctrl_c_keeps_what_is_in_flight(server: Server, corpus: Path) -> None:
    server.seconds = 0.3
    words = ["record", "--endpoint", server.url, "--model", "tiny", "--corpus", str(corpus), "--out", out_of(corpus)]
    batches = ["--texts-per-request", "2", "--concurrency", "2"]
    process = subprocess.Popen(
        [sys.executable, "-m", "subarch", *words, *batches],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # what runs in the background ignores it
    )
    server.on_request = lambda number: process.send_signal(signal.SIGINT) if number == 3 else None
    assert "Finished work is kept; continue with: subarch record --endpoint" in process.communicate(timeout=60)[1]
    assert process.returncode == 130
    with Kept(out_of(corpus)) as kept:
        assert kept.texts() == set(server.answered) == set(TEXTS[:8])


def test_an_error_keeps_what_else_is_in_flight(server: Server, corpus: Path) -> None:
    server.faults = {0: Reply(400, "bad", seconds=0.3), 1: Reply(seconds=0.6)}  # the second is asked for before
    with pytest.raises(EndpointFailed, match="bad"):
        record(server, corpus, concurrency=2)
    with Kept(out_of(corpus)) as kept:
        assert kept.texts() == set(server.answered)
        assert len(kept.texts()) == 4


def test_one_process_at_a_time(server: Server, corpus: Path) -> None:
    with Kept(out_of(corpus)) as kept:
        kept.begin()
        with pytest.raises(InvalidConfig, match=r"vectors\.parquet: another process records into it; wait for it"):
            record(server, corpus)
    record(server, corpus)
    check(server, corpus)


def test_the_finished_file_is_taken_away(server: Server, corpus: Path) -> None:
    record(server, corpus, limit=4)
    server.faults[3] = Reply(400, "bad")  # after the first text again, and one request
    with pytest.raises(EndpointFailed, match="bad"):
        record(server, corpus)
    out_of(corpus).unlink()
    server.model = "other"
    with pytest.raises(EndpointFailed, match="answers as model 'other', and what is kept was answered by 'tiny'"):
        record(server, corpus)


def test_files_that_are_no_recordings(server: Server, corpus: Path) -> None:
    partial = corpus.with_name("vectors.parquet.partial")
    partial.write_bytes(b"no database" * 100)
    with pytest.raises(InvalidConfig, match=r"vectors\.parquet\.partial: is damaged .*; delete it, and the texts"):
        record(server, corpus)
    partial.unlink()
    pq.write_table(pa.table({"text": ["a"]}), out_of(corpus))
    before = out_of(corpus).read_bytes()
    with pytest.raises(InvalidConfig, match=r"vectors\.parquet: is there already, and was not written by"):
        record(server, corpus)
    assert out_of(corpus).read_bytes() == before
    out_of(corpus).write_bytes(before[:50])
    with pytest.raises(SubarchError, match=r"vectors\.parquet: not a readable Parquet file"):
        record(server, corpus)
    assert server.asked == []


def test_a_full_disk_at_the_end(server: Server, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("subarch.recording.kept.os.fsync", full)
        with pytest.raises(InvalidConfig, match=r"cannot be written: .*No space left.*; free some space"):
            record(server, corpus)
    assert not out_of(corpus).exists()
    assert record(server, corpus).requests == 0
    check(server, corpus)


def test_a_folder_that_cannot_be_written(server: Server, corpus: Path) -> None:
    blocked = corpus / "vectors.parquet"  # in a file
    values: dict[str, Any] = {"endpoint": server.url, "model": "tiny", "corpus": str(corpus)}
    with pytest.raises(InvalidConfig, match=r"vectors\.parquet: cannot be written: "):
        subarch.record(blocked, **values)
    assert server.asked == []
