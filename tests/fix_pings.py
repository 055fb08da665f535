"""A receiver of pings on 127.0.0.1, as healthcheck services are."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


@dataclass(slots=True)
class Pings:
    url: str
    got: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    """method, path with query, body"""
    headers: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    answers: list[int] = field(default_factory=list[int])
    """status of each answer to come, 200 after them; 0: none at all, -1: one without an end"""
    location: str = ""
    """where answers of 3xx lead to"""
    gate: threading.Event = field(default_factory=threading.Event)
    """what gets no answer, or one without an end, waits for this"""

    @property
    def paths(self) -> list[str]:
        return [path for _, path, _ in self.got]


@pytest.fixture
def pings() -> Iterator[Pings]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0))).decode()
            found.got.append((self.command, self.path, body))
            found.headers.append(dict(self.headers))
            status = found.answers.pop(0) if found.answers else 200
            if status < 1:
                with suppress(OSError):  # nobody waits any more
                    while not found.gate.wait(0.02 if status else 30):
                        self.wfile.write(b"HTTP/1.1 200 OK and so on")
                return
            self.send_response(status)
            if status in range(300, 400):
                self.send_header("Location", found.location)
            self.end_headers()

        do_POST = do_GET  # noqa: N815

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        found = Pings(f"http://127.0.0.1:{server.server_port}/a-secret-uuid")
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield found
        found.gate.set()
        server.shutdown()
        thread.join()
