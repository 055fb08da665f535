"""A wire in front of a server that counts what passes, and breaks where it is told to."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, Self

from psycopg.conninfo import conninfo_to_dict, make_conninfo

Way = Literal["up", "down"]
"""to the server, or from it"""

Address = tuple[str, int] | str
"""host and port, or the path of a socket"""


@dataclass(frozen=True)
class Fault:
    """
    What goes wrong, once, when `after` bytes have passed one way and one more comes.

    cut: that connection ends, as when a process ends. reset: it ends in RST, as when a middle box forgets it. stall:
    it stays open, and nothing passes any more. With `whole` all others, and new ones, share its fate.

    With `when` the bytes are counted on the connection whose client sends that text, from the `nth` time on. Up and
    after no byte, that means as soon as the text is sent; down, that no answer to it comes.
    """

    kind: Literal["cut", "reset", "stall"]
    way: Way = "down"
    after: int = 0
    when: bytes = b""
    nth: int = 1
    whole: bool = False


class _Link:
    """One connection through the wire."""

    def __init__(self, upstream: Address) -> None:
        self.client = socket.socket()
        self.server = socket.socket(socket.AF_UNIX if isinstance(upstream, str) else socket.AF_INET)
        self.sent = b""
        """the end of what the client sent: a text may come in two pieces"""
        self.state: Literal["open", "stalled", "ended"] = "open"

    def strike(self, kind: Literal["cut", "reset", "stall"]) -> None:
        self.state = "stalled" if kind == "stall" else "ended"
        if kind == "stall":
            return
        for end in (self.client, self.server):
            with contextlib.suppress(OSError):
                reset = kind == "reset" and end.family == socket.AF_INET
                if reset:  # closed with zero linger it says RST
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                # Wakes the threads; the close is theirs.
                end.shutdown(socket.SHUT_RD if reset else socket.SHUT_RDWR)


class Wire:
    """Forwards the connections to a port of this machine, until the block ends."""

    def __init__(self, upstream: Address) -> None:
        self._upstream = upstream
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.passed: dict[Way, int] = {"up": 0, "down": 0}
        self.met = threading.Event()
        """set when the fault has happened"""
        self._lock = threading.Lock()
        self._links: set[_Link] = set()
        self._threads: list[threading.Thread] = []
        self._ending = threading.Event()
        self.arm(None)

    def arm(self, fault: Fault | None) -> None:
        """Count from 0, and wait for a fault if one is given; connections that are broken stay so."""
        with self._lock:
            self.passed = {"up": 0, "down": 0}
            self.met.clear()
            self._fault = fault
            self._counted = 0
            self.found = 0
            """how often the text was sent"""
            self._on: _Link | None = None
            """the connection that has sent the text"""
            self._all: Fault | None = None
            """what meets new connections, too"""

    def cut(self) -> None:
        """Cut all connections now."""
        with self._lock:
            for link in self._links:
                link.strike("cut")

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._ending.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self.cut()
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _start(self, work: object, *values: object) -> threading.Thread:
        thread = threading.Thread(target=work, args=values)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()
        return thread

    def _accept(self) -> None:
        while not self._ending.is_set():
            with contextlib.suppress(OSError):
                client, _ = self._listener.accept()
                link = _Link(self._upstream)
                link.client.close()
                link.client = client
                with self._lock:
                    self._links.add(link)
                    if self._all is not None:
                        link.strike(self._all.kind)
                self._start(self._serve, link)

    def _serve(self, link: _Link) -> None:
        with contextlib.suppress(OSError), link.client, link.server:
            if link.state == "open":
                link.server.connect(self._upstream)
            down = self._start(self._forward, link, "down")
            self._forward(link, "up")
            down.join()
        with self._lock:
            self._links.discard(link)

    def _forward(self, link: _Link, way: Way) -> None:
        source, sink = (link.client, link.server) if way == "up" else (link.server, link.client)
        with contextlib.suppress(OSError):
            while link.state == "open" and (data := source.recv(1 << 16)):
                passing, fault = self._look(link, way, data)
                if link.state == "open":
                    sink.sendall(passing)
                if fault is not None:
                    with self._lock:
                        for each in self._links if fault.whole else {link}:
                            each.strike(fault.kind)
            if link.state == "stalled":
                self._ending.wait()
            elif link.state == "open":
                sink.shutdown(socket.SHUT_WR)

    def _look(self, link: _Link, way: Way, data: bytes) -> tuple[bytes, Fault | None]:
        """Say what of the data passes, and what happens then."""
        with self._lock:
            self.passed[way] += len(data)
            fault = self._fault
            if fault is None:
                return data, None
            if fault.when and self._on is None:
                if way == "up" and self._says(link, fault, data):
                    self._on = link
                    if fault.way == "up" and not fault.after:
                        return data, self._happens(fault)
                return data, None
            if way != fault.way or self._on not in {None, link}:
                return data, None
            passing = data[: fault.after - self._counted]
            self._counted += len(data)
            return passing, self._happens(fault) if self._counted > fault.after else None

    def _says(self, link: _Link, fault: Fault, data: bytes) -> bool:
        text = link.sent + data
        self.found += text.count(fault.when)
        link.sent = text[len(text) - len(fault.when) + 1 :]
        return self.found >= fault.nth

    def _happens(self, fault: Fault) -> Fault:
        self._fault = None
        self._all = fault if fault.whole else None
        self.met.set()
        return fault


@contextmanager
def wired(dsn: str) -> Generator[tuple[Wire, str]]:
    """Lay a wire to the server of a DSN that names the folder of its socket; yields it and the DSN through it."""
    place = conninfo_to_dict(dsn)
    with Wire(f"{place['host']}/.s.PGSQL.{place['port']}") as wire:
        yield wire, make_conninfo(dsn, host="127.0.0.1", port=wire.port, sslmode="disable", gssencmode="disable")
