"""As much of the hub's API as an upload needs, on the loopback: it keeps what it is sent.

>>> with Hub() as hub:
...     push(run, "me/model")
...     hub.files["me/model"]["README.md"]
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import pytest
from huggingface_hub import constants

TOKEN = "hf_of_the_test"


class Hub:
    """`files` by repository and path; `private` by repository; `asked` are the paths of all requests."""

    def __init__(self) -> None:
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.asked: list[str] = []
        self.tokens: set[str | None] = set()
        self._patch = pytest.MonkeyPatch()

    def __enter__(self) -> Hub:
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._patch.setattr(constants, "ENDPOINT", self.url)
        self._patch.setattr(constants, "HF_HUB_OFFLINE", False)
        self._patch.setenv("HF_TOKEN", TOKEN)
        return self

    def __exit__(self, *error: object) -> None:
        self._patch.undo()
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def nobody_there() -> Iterator[None]:
    """A hub at which nobody answers."""
    with Hub() as hub:
        hub._server.shutdown()
        hub._server.server_close()
        yield
        hub._server.shutdown = hub._server.server_close = lambda: None  # type: ignore[method-assign]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        length = self.headers.get("content-length")
        body = self.rfile.read(int(length)) if length else self._chunks()
        path = urlsplit(self.path).path
        self.hub.asked.append(path)
        token = self.headers.get("authorization")
        self.hub.tokens.add(token)
        if token != f"Bearer {TOKEN}":
            self._answer({"error": "Invalid username or password."}, 401)
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization'] or 'me'}/{asked['name']}"
            is_new = name not in self.hub.files
            if is_new:
                self.hub.files[name], self.hub.private[name] = {}, asked.get("visibility") == "private"
            self._answer({"url": f"{self.hub.url}/{name}"}, 200 if is_new else 409)
        elif path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            files = json.loads(body)["files"]
            kept = {"uploadMode": "regular", "shouldIgnore": False}
            self._answer({"files": [{"path": file["path"], "oid": None} | kept for file in files]})
        elif "/commit/" in path:
            name = path.removeprefix("/api/models/").split("/commit/")[0]
            for line in body.splitlines():
                part = json.loads(line)
                if part["key"] == "file":
                    file = part["value"]
                    self.hub.files[name][file["path"]] = base64.b64decode(file["content"])
            oid = "0" * 40
            self._answer({"commitUrl": f"{self.hub.url}/{name}/commit/{oid}", "commitOid": oid, "success": True})
        else:
            self._answer({"error": f"{path} is not known here"}, 404)

    def do_GET(self) -> None:
        self.hub.asked.append(self.path)
        if self.headers.get("authorization") != f"Bearer {TOKEN}":
            self._answer({"error": "Invalid username or password."}, 401)
        else:
            self._answer({"id": "me/small", "sha": "0" * 40, "siblings": []})

    def _chunks(self) -> bytes:
        found = b""
        while size := int(self.rfile.readline(), 16):
            found += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return found

    def _answer(self, value: Any, status: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *arguments: Any) -> None: ...
