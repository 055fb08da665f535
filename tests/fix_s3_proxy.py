"""An HTTP proxy in front of an S3 server that breaks what it is told to, once or a few times."""

from __future__ import annotations

import http.client
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock, Thread
from typing import Literal
from urllib.parse import urlsplit

import pytest

Kind = Literal["lose answer", "answer instead", "refuse", "cut body", "ignore", "edit"]


@dataclass
class Fault:
    """
    What goes wrong with the next `times` requests of a method (and, if given, with a header in it, or a part of
    the path), when `after` of them went well.

    lose answer: the server does it, and the connection breaks. answer instead: the server does it, and the
    client is told `status`. refuse: the client is told `status`, the server nothing. cut body: the
    connection breaks after `cut` bytes of the answer. ignore: `header` is dropped from the request. edit:
    `edit` makes another answer of the server's.
    """

    kind: Kind
    method: str
    times: int = 1
    status: int = 500
    code: str = "InternalError"
    cut: int = 0
    header: str = ""
    path: str = ""
    after: int = 0
    edit: Callable[[bytes], bytes] = bytes


@dataclass
class FaultyProxy:
    endpoint: str
    faults: list[Fault] = field(default_factory=list[Fault])
    seen: list[str] = field(default_factory=list[str])
    """method of every request, a `!` behind it when it met a fault"""
    lock: Lock = field(default_factory=Lock)

    def arm(
        self,
        kind: Kind,
        method: str,
        *,
        times: int = 1,
        status: int = 500,
        code: str = "InternalError",
        cut: int = 0,
        header: str = "",
        path: str = "",
        after: int = 0,
        edit: Callable[[bytes], bytes] = bytes,
    ) -> None:
        self.faults.append(Fault(kind, method, times, status, code, cut, header, path, after, edit))

    def fault_for(self, method: str, path: str, headers: dict[str, str]) -> Fault | None:
        with self.lock:
            for fault in self.faults:
                here = fault.path in path and (not fault.header or fault.header in headers)
                if fault.method == method and fault.times and here:
                    if fault.after:
                        fault.after -= 1
                        continue
                    fault.times -= 1
                    self.seen.append(f"{method}!")
                    return fault
            self.seen.append(method)
            return None


FaultyProxies = Callable[[str], FaultyProxy]


@pytest.fixture
def faulty() -> Iterator[FaultyProxies]:
    """Put a proxy in front of an endpoint."""
    with ExitStack() as stack:

        def start(upstream: str) -> FaultyProxy:
            server = stack.enter_context(_Server(upstream))
            thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return server.proxy

        yield start


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.proxy = FaultyProxy(f"http://127.0.0.1:{self.server_port}")

    def handle_error(self, request: object, client_address: object) -> None: ...  # connections break here


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server  # pyright: ignore[reportIncompatibleVariableOverride]  it is one of ours

    def _handle(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", "0")))
        fault = self.server.proxy.fault_for(self.command, self.path, headers)
        if fault and fault.kind == "refuse":
            self._error(fault)
            return
        if fault and fault.kind == "ignore":
            headers.pop(fault.header)
        status, answered, data = self._forward(headers, body)
        if fault and fault.kind == "edit":
            data = fault.edit(data)
            answered = [(n, v) for n, v in answered if n != "Content-Length"] + [("Content-Length", str(len(data)))]
        if fault and fault.kind == "lose answer":
            self._reset()
        elif fault and fault.kind == "answer instead":
            self._error(fault)
        else:
            self.send_response_only(status)
            for name, value in answered:
                self.send_header(name, value)
            self.end_headers()
            if fault and fault.kind == "cut body":
                self.wfile.write(data[: fault.cut])
                self._reset()
            else:
                self.wfile.write(data)

    do_GET = do_PUT = do_HEAD = do_DELETE = _handle  # noqa: N815  http.server's names

    def _forward(self, headers: dict[str, str], body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        upstream = http.client.HTTPConnection(self.server.upstream, timeout=30)
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                if name not in {"expect", "connection"}:
                    upstream.putheader(name, value)
            upstream.endheaders(body)
            answer = upstream.getresponse()
            data = answer.read()
            skipped = {"transfer-encoding", "connection", "content-length"}
            kept = [(n, v) for n, v in answer.getheaders() if n.lower() not in skipped]
            length = answer.getheader("content-length") if self.command == "HEAD" else str(len(data))
            return answer.status, [*kept, ("Content-Length", length or "0")], data
        finally:
            upstream.close()

    def _error(self, fault: Fault) -> None:
        data = f"<?xml version='1.0'?><Error><Code>{fault.code}</Code><Message>told so</Message></Error>".encode()
        if not fault.code:
            data = b"<html>a middle box says no</html>"
        self.send_response_only(fault.status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _reset(self) -> None:
        # Closed with zero linger, a connection ends in RST: what a crashed server or a firewall does.
        self.wfile.flush()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002
