"""An OpenAI-compatible `/v1/embeddings`: texts in, vectors out, or a sentence on what is wrong with the server.

What may pass (no connection, a time-out, 429, 5xx, a body that breaks off) is tried again with growing pauses, as late
as the server asks for; everything else fails at once, with the server's own words. Any number of threads may ask.

    >>> endpoint = Endpoint(config)
    >>> endpoint.embed(["a text", "another"]).vectors.shape
    (2, 384)

The key comes from the environment, goes into one header, and is struck out of every message.
"""

from __future__ import annotations

import base64
import binascii
import os
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx2
import numpy as np
from numpy.typing import NDArray

from subarch.errors import EndpointFailed, InvalidConfig, show
from subarch.recording.config import RecordConfig
from subarch.text.vectors import flaw

PATIENCE = 300.0
"""Seconds for which one request is tried: longer than a server takes to load its model again."""

PAUSES = (1.0, 60.0)
"""Seconds before the second attempt, which double with each further one, and their most."""

_TRANSIENT = {408, 409, 425, 429}  # and 5xx


@dataclass(frozen=True)
class Answer:
    """Vectors of some texts.

    Attributes:
        vectors: (n, width) fp32, in the order of the texts.
        model: what the server calls the model; "" if it does not say.
        tokens: tokens that the server counted; 0 if it does not say.
    """

    vectors: NDArray[np.float32]
    model: str
    tokens: int


class _Again(Exception):
    """What may pass, and for how many seconds the server asks to be left alone, if it does."""

    def __init__(self, reason: str, seconds: float = 0) -> None:
        super().__init__(reason)
        self.seconds = seconds


class Stopped(Exception):
    """Somebody called `Endpoint.stop`."""


class Endpoint:
    """A server.

    Attributes:
        requests: how many were sent, `retries` among them.
        trouble: why a request is being tried again, in words; "" if none is.
        was_lost: whether a connection broke; another server may be there now. The caller sets it back.
    """

    def __init__(self, config: RecordConfig) -> None:
        self._config = config
        self._url = embeddings_url(config.endpoint)
        self._shown = urlunsplit(urlsplit(self._url)._replace(query=""))  # a query may hold a key
        self._key = _key(config.key_variable)
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        limits = httpx2.Limits(max_connections=config.concurrency)
        self._client = httpx2.Client(headers=headers, timeout=config.timeout, limits=limits)
        self._lock = threading.Lock()
        self._next = 0.0
        self._stopped = threading.Event()
        self._has_answered = False
        self.requests = self.retries = 0
        self.trouble = ""
        self.was_lost = False

    def stop(self) -> None:
        """Let threads that wait give up; requests that were sent are still answered."""
        self._stopped.set()

    def close(self) -> None:
        self._client.close()

    def embed(self, texts: Sequence[str]) -> Answer:
        """The vectors of texts, with the prompt before each.

        Raises:
            EndpointFailed: the server refuses, answers what is no answer, or was not well for `PATIENCE` seconds.
            Stopped: `stop` was called before it was answered.
        """
        attempt = 0
        self._take_turn()
        began = time.monotonic()
        while True:
            try:
                answer = self._once(texts)
            except _Again as trouble:
                self.trouble = str(trouble)
                waited = time.monotonic() - began
                if waited + trouble.seconds > PATIENCE:
                    asks = f" and asks to come back in {trouble.seconds:.0f} s" if trouble.seconds else ""
                    raise self._failed(
                        f"{trouble} (after {attempt + 1} attempts in {waited:.0f} s){asks}; finished work is kept, and "
                        "the same command goes on when the server is well"
                    ) from trouble
                pause = min(PAUSES[0] * 2**attempt, PAUSES[1])
                attempt += 1
                with self._lock:
                    self.retries += 1
                    self._next = max(self._next, time.monotonic() + trouble.seconds)
                self._sleep(max(trouble.seconds, pause * random.uniform(0.5, 1)))
                self._take_turn()
            else:
                self.trouble = ""
                self._has_answered = True
                return answer

    def _take_turn(self) -> None:
        """Wait until a request may start, by the limit per minute and by what the server asked for."""
        interval = 60 / self._config.requests_per_minute if self._config.requests_per_minute else 0
        with self._lock:
            start = max(time.monotonic(), self._next)
            self._next = start + interval if interval else self._next
            self.requests += 1
        self._sleep(start - time.monotonic())

    def _sleep(self, seconds: float) -> None:
        if self._stopped.wait(max(seconds, 0)):
            raise Stopped

    def _once(self, texts: Sequence[str]) -> Answer:
        body: dict[str, Any] = {
            "model": self._config.model,
            "input": [f"{self._config.prompt or ''}{text}" for text in texts],
            "encoding_format": "float",
        }
        if self._config.dimensions is not None:
            body["dimensions"] = self._config.dimensions
        try:
            response = self._client.post(self._url, json=body)
        except httpx2.RequestError as error:
            reason = f"{type(error).__name__}: {error}"
            if isinstance(error, httpx2.ConnectError) and not self._has_answered:
                raise self._failed(
                    f"nothing answers there ({reason}); start the server, or correct --endpoint"
                ) from error
            self.was_lost = True
            raise _Again(f"no answer ({reason})") from error
        self._check_status(response, len(texts))
        try:
            content = response.json()
        except (ValueError, RecursionError) as error:
            if response.text.lstrip().startswith("<"):
                raise self._failed(f"answers with a page of HTML, not with JSON; {_ADDRESS}") from error
            raise _Again(f"an answer that is not JSON ({error})") from error
        return self._answer(content, texts)

    def _check_status(self, response: httpx2.Response, texts: int) -> None:
        code = response.status_code
        if code == 200:
            return
        said = f"HTTP {code}: {_message(response)}"
        if code in _TRANSIENT or (code >= 500 and code != 501):
            raise _Again(said, _retry_after(response))
        remedy = "correct the request"
        if 300 <= code < 400:
            remedy = f"it points to {show(response.headers.get('location'))}: give that address"
        elif code in (401, 403):
            held = "holds another key" if self._key else "is not set"
            remedy = f"the environment variable {self._config.key_variable} {held}; set it, or name one: --key-variable"
        elif code in (404, 405):
            remedy = f"{_ADDRESS}, and check --model {self._config.model}"
        elif texts > 1:
            remedy = "it may take fewer texts at a time (--texts-per-request) or shorter ones (--max-words)"
        raise self._failed(f"{said}; {remedy}")

    def _answer(self, content: Any, texts: Sequence[str]) -> Answer:
        data = content.get("data") if isinstance(content, dict) else None
        if not isinstance(data, list) or not all(isinstance(entry, dict) for entry in data):
            raise self._failed(f"answers {show(content)}, which has no list 'data' of vectors; {_ADDRESS}")
        if len(data) != len(texts):
            raise self._failed(f"answers {len(data)} vectors for {len(texts)} texts; {_SERVER}")
        order = [entry.get("index", position) for position, entry in enumerate(data)]
        if any(type(index) is not int for index in order) or sorted(order) != list(range(len(texts))):
            raise self._failed(f"numbers the vectors of {len(texts)} texts {show(order)}; {_SERVER}")
        vectors: list[NDArray[np.float32]] = [np.empty(0, np.float32)] * len(texts)
        for index, entry in zip(order, data, strict=True):
            vectors[index] = _vector(entry.get("embedding"))
        width = max(map(len, vectors))
        for text, vector in zip(texts, vectors, strict=True):
            if why := flaw(vector, width):
                raise self._failed(f"the vector of the text {show(text)} {why}; {_SERVER}, or leave that text out")
        asked = self._config.dimensions
        if asked is not None and width != asked:
            raise self._failed(f"answers {width} dimensions where {asked} are asked for; leave --dimensions out")
        model = content.get("model")
        usage = content.get("usage")
        tokens = usage.get("prompt_tokens", usage.get("total_tokens")) if isinstance(usage, dict) else 0
        return Answer(np.stack(vectors), model if isinstance(model, str) else "", tokens if type(tokens) is int else 0)

    def _failed(self, message: str) -> EndpointFailed:
        return EndpointFailed(self._struck(f"{self._shown}: {message}"))

    def _struck(self, text: str) -> str:
        return text.replace(self._key, "(the key)") if self._key else text


_ADDRESS = "check that --endpoint is the address of an OpenAI-compatible server, as http://localhost:8000/v1"
_SERVER = "mend or update the server"


def embeddings_url(endpoint: str) -> str:
    """Where to post to, from the address of a server, of its version (/v1), or of its embeddings.

    Raises:
        InvalidConfig: no http or https address, or one with a password.
    """
    try:
        parts = urlsplit(endpoint)
        sound = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port or an address in brackets that is none
        sound = False
    if not sound:
        raise InvalidConfig(f"--endpoint: {show(endpoint)} is no http or https address; as http://localhost:8000/v1")
    if parts.username is not None or parts.password is not None:
        raise InvalidConfig(
            "--endpoint: has a user or password in it, which histories and records would keep; put the key into the "
            "environment (--key-variable)"
        )
    path = parts.path.rstrip("/") or "/v1"
    return urlunsplit(parts._replace(path=path if path.endswith("/embeddings") else f"{path}/embeddings", fragment=""))


def _key(variable: str) -> str:
    key = os.environ.get(variable, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise InvalidConfig(f"--key-variable: {variable} holds characters that no key can have; set it again")
    return key


def _vector(embedding: Any) -> NDArray[np.float32]:
    """Numbers, or base64 of them; what is neither becomes a vector that `flaw` refuses."""
    try:
        if isinstance(embedding, str):
            return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4").astype(np.float32)
        if isinstance(embedding, list) and {type(number) for number in embedding} <= {int, float}:
            with np.errstate(over="ignore"):
                return np.array(embedding, np.float32)
    except (binascii.Error, ValueError, OverflowError):
        pass
    return np.empty(0, np.float32)


def _message(response: httpx2.Response) -> str:
    """What the server says about a failure, in any of the usual shapes, in a few words."""
    try:
        content = response.json()
    except (ValueError, RecursionError):
        content = response.text
    while isinstance(content, dict):
        content = next((content[key] for key in ("error", "message", "detail") if content.get(key)), str(content))
    return " ".join(str(content).split())[:300] or "(no message)"


def _retry_after(response: httpx2.Response) -> float:
    """Seconds, from a number or a date; 0 if the server does not say."""
    value = response.headers.get("retry-after", "").strip()
    is_number = value.replace(".", "", 1).isdigit()
    try:
        seconds = float(value) if is_number else parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return max(seconds, 0.0)
