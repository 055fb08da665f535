"""Where mails and webhooks of a restored ZITADEL end: servers on loopback that remember what they were sent."""

from __future__ import annotations

import email
import email.policy
import re
import socketserver
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import Generic, TypeVar, cast

from tests.zitadel.network import Network
from zbackup.zitadel.copy import LOOPBACK


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail, or a connection that brought none: then all is empty."""

    recipients: tuple[str, ...] = ()
    subject: str = ""


@dataclass(frozen=True, slots=True)
class Call:
    method: str
    path: str
    body: str


T = TypeVar("T", Mail, Call)


class Sink(socketserver.ThreadingTCPServer, Generic[T]):
    """A server that says what it `got`, in order."""

    allow_reuse_address = True
    daemon_threads = True

    def __init__(self, port: int, handler: type[socketserver.StreamRequestHandler]) -> None:
        super().__init__((LOOPBACK, port), handler)
        self._got: list[T] = []

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    @property
    def got(self) -> tuple[T, ...]:
        return tuple(self._got)

    def add(self, item: T) -> None:
        self._got.append(item)


class MailSink(Sink[Mail]):
    """An SMTP server that takes every mail and passes none on."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(port, _Smtp)


class WebhookSink(Sink[Call]):
    """An HTTP server that answers every request with an empty JSON object."""

    def __init__(self, port: int = 0) -> None:
        super().__init__(port, _Http)


POLL_SECONDS = 0.05
"""between looks whether a sink should end"""

S = TypeVar("S", MailSink, WebhookSink)


@contextmanager
def serving(network: Network, kind: Callable[[int], S], port: int = 0) -> Generator[S]:
    """Serve inside the network, on a free port unless one is given."""
    sink = network.call(kind, port)
    thread = threading.Thread(target=sink.serve_forever, args=(POLL_SECONDS,))
    thread.start()
    try:
        yield sink
    finally:
        sink.shutdown()
        thread.join()
        sink.server_close()


class _Smtp(socketserver.StreamRequestHandler):
    timeout = 30

    def handle(self) -> None:
        sink = cast("MailSink", self.server)
        recipients: list[str] = []
        mails = 0
        self._say("220 sink")
        try:
            while line := self.rfile.readline():
                verb = line[:4].upper()
                if verb == b"RCPT":
                    recipients += re.findall(r"<(.*)>", line.decode())
                elif verb == b"DATA":
                    self._say("354 go on")
                    message = email.message_from_bytes(self._text(), policy=email.policy.default)
                    sink.add(Mail(tuple(recipients), str(message["Subject"])))
                    mails += 1
                elif verb in {b"MAIL", b"RSET"}:
                    recipients.clear()
                elif verb == b"QUIT":
                    self._say("221 bye")
                    return
                self._say("250 ok" if verb in _KNOWN else "502 unknown")
        finally:
            if not mails:
                sink.add(Mail())

    def _say(self, line: str) -> None:
        self.wfile.write(f"{line}\r\n".encode())

    def _text(self) -> bytes:
        lines: list[bytes] = []
        while (line := self.rfile.readline()) and line != b".\r\n":
            lines.append(line.removeprefix(b"."))
        return b"".join(lines)


_KNOWN = {b"EHLO", b"HELO", b"MAIL", b"RCPT", b"DATA", b"RSET", b"NOOP"}


class _Http(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def _answer(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(length).decode(errors="replace")
        cast("WebhookSink", self.server).add(Call(self.command, self.path, body))
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer  # noqa: N815 - names that http.server looks for

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name it has there
        pass
