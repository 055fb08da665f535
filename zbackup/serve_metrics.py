"""
Shows metrics over HTTP to Prometheus, from a thread beside the work.

    with serve("127.0.0.1:9187", board):
        ...

There are /metrics, /healthz, which says that the process is alive, and /, to be got and nothing else. There is neither
TLS nor a password: what is told are figures, and the address of the archive. MOST_AT_ONCE requests are answered at a
time, each on a connection of its own that is closed after LONGEST_SECONDS at most.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from functools import partial
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from typing import Any

from zbackup.errors import UsageError
from zbackup.metrics import Board

MOST_AT_ONCE = 8

LONGEST_SECONDS = 10.0

_INDEX = (
    b'<!doctype html><title>zbackup</title><p>zbackup: <a href="/metrics">metrics</a>, <a href="/healthz">health</a>\n'
)


@contextmanager
def serve(listen: str, board: Board) -> Generator[str]:
    """
    Answer at HOST:PORT while the context lasts; yield the address, with the port that port 0 became.

    Raises UsageError for an address that cannot be had.
    """
    host, port = address(listen)
    try:
        server = _Server(host, port, board)
    except OSError as error:
        raise UsageError(
            f"cannot listen on {listen}: {error.strerror or error}",
            hint="Choose another port, or an address of this machine.",
        ) from None
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), name="metrics", daemon=True)
    thread.start()
    try:
        yield f"[{host}]:{server.server_address[1]}" if ":" in host else f"{host}:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def address(listen: str) -> tuple[str, int]:
    """Read HOST:PORT; an IPv6 address stands in brackets, and an empty host is all addresses. Raises UsageError."""
    host, colon, port = listen.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    if not colon or not port.isdecimal() or int(port) > 0xFFFF or (":" in bare) != host.startswith("["):
        raise UsageError(f"{listen!r} is not HOST:PORT", hint="Such as 127.0.0.1:9187 or [::1]:9187.")
    return bare, int(port)


class _Server(ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 16

    def __init__(self, host: str, port: int, board: Board) -> None:
        self._places = threading.BoundedSemaphore(MOST_AT_ONCE)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, port), partial(_Handler, board))

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread; whoever comes when all places are taken is turned away."""
        if not self._places.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except Exception:  # no thread can be had, and so nobody else gives the place back
            self._places.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        end = threading.Timer(LONGEST_SECONDS, _cut, (request,))
        end.daemon = True
        try:
            end.start()
        except Exception:  # nobody would cut it
            self.shutdown_request(request)
        else:
            super().process_request_thread(request, client_address)
        finally:
            end.cancel()
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: a client that goes away is no business of the log."""


def _cut(request: socket.socket) -> None:
    with suppress(OSError):
        request.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    server_version = "zbackup"
    sys_version = ""

    def __init__(self, board: Board, *request: Any) -> None:
        self._board = board
        super().__init__(*request)

    def do_GET(self) -> None:
        match self.path.partition("?")[0]:
            case "/metrics":
                self._answer(200, "text/plain; version=0.0.4; charset=utf-8", self._board.text(time.time()))
            case "/healthz":
                self._answer(200, "text/plain; charset=utf-8", b"alive\n")
            case "/":
                self._answer(200, "text/html; charset=utf-8", _INDEX)
            case _:
                self.send_error(404)

    def _answer(self, status: int, kind: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Log no request: there is one every few seconds."""
