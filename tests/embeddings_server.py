"""A server with an OpenAI-compatible `/v1/embeddings` on the loopback, that counts what it is asked and errs on demand.

>>> with Server() as server:
...     server.faults[1] = Reply(429, retry_after="1")     # the second request
...     record(config_for(server))
...     server.answered["a text"]
1
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass
class Reply:
    """Something else than an answer. `cut`: bytes that are missing at the end of the body that was announced."""

    status: int = 200
    body: str | bytes = ""
    retry_after: str | None = None
    location: str | None = None
    cut: int = 0
    seconds: float = 0


@dataclass
class Asked:
    at: float
    path: str
    key: str | None
    body: dict[str, Any]


@dataclass
class Server:
    """`faults` by the number of the request, from 0; `answered` counts the texts of answers that are whole."""

    model: str = "tiny"
    width: int = 5
    salt: str = ""
    seconds: float = 0
    faults: dict[int, Reply] = field(default_factory=dict)
    always: Reply | None = None
    twist: Callable[[dict[str, Any]], Any] = lambda answer: answer
    on_request: Callable[[int], object] = lambda number: None
    asked: list[Asked] = field(default_factory=list)
    answered: Counter[str] = field(default_factory=Counter)
    most_at_once: int = 0

    def __enter__(self) -> Server:
        self._lock = threading.Lock()
        self._at_once = 0
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"owner": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/v1"

    def vector(self, text: str) -> NDArray[np.float32]:
        """What this server's model says of a text."""
        digest = hashlib.sha256((self.salt + text).encode()).digest()
        return np.frombuffer(digest, np.uint8)[: self.width].astype(np.float32) - 127.5

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        data = [
            {"object": "embedding", "index": index, "embedding": self.vector(text).tolist()}
            for index, text in enumerate(request["input"])
        ]
        tokens = sum(len(text.split()) for text in request["input"])
        return {"object": "list", "model": self.model, "data": data, "usage": {"prompt_tokens": tokens}}


class _Handler(BaseHTTPRequestHandler):
    owner: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        owner = self.owner
        request = json.loads(self.rfile.read(int(self.headers["content-length"])))
        with owner._lock:
            number = len(owner.asked)
            owner.asked.append(Asked(time.monotonic(), self.path, self.headers.get("authorization"), request))
            owner._at_once += 1
            owner.most_at_once = max(owner.most_at_once, owner._at_once)
        owner.on_request(number)
        reply = owner.faults.get(number, owner.always) or Reply()
        time.sleep(reply.seconds or owner.seconds)
        body = reply.body or json.dumps(owner.twist(owner.answer(request)))
        data = body if isinstance(body, bytes) else body.encode()
        with owner._lock:
            owner._at_once -= 1
            if reply.status == 200 and not reply.body and not reply.cut:
                owner.answered.update(request["input"])
        try:
            self.send_response(reply.status)
            for name, value in (("retry-after", reply.retry_after), ("location", reply.location)):
                if value is not None:
                    self.send_header(name, value)
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data[: len(data) - reply.cut])
            self.wfile.flush()
        except OSError:  # the other side was killed
            self.close_connection = True
            return
        if reply.cut:
            self.close_connection = True

    def log_message(self, format: str, *arguments: Any) -> None: ...
