"""
A pooler of PostgreSQL sessions and servers of other kinds, as far as a client meets them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import socketserver
import struct
import threading
from collections.abc import Callable, Generator, Iterator
from typing import IO, Literal

from psycopg.conninfo import conninfo_to_dict

from zbackup.database.embedded import EmbeddedPostgres

Mode = Literal["session", "transaction", "statement"]


def name_of(database: str) -> str:
    return str(conninfo_to_dict(database)["dbname"])


def pack(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def unpack(stream: IO[bytes]) -> tuple[bytes, bytes]:
    """Read one message; its kind is empty at the end."""
    kind = stream.read(1)
    if not kind:
        return b"", b""
    (length,) = struct.unpack("!i", stream.read(4))
    return kind, stream.read(length - 4)


def greeting(parameters: dict[str, str], key: int = 4711) -> bytes:
    """Welcome a client as a server does."""
    status = b"".join(pack(b"S", f"{name}\0{value}\0".encode()) for name, value in parameters.items())
    return pack(b"R", bytes(4)) + status + pack(b"K", struct.pack("!ii", key, 0)) + pack(b"Z", b"I")


def startup(stream: IO[bytes]) -> bytes:
    (length,) = struct.unpack("!i", stream.read(4))
    return stream.read(length - 4)


class Process:
    """A session of the pool with the server."""

    def __init__(self, server: EmbeddedPostgres, database: str) -> None:
        host = conninfo_to_dict(server.dsn())["host"]
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(os.fspath(f"{host}/.s.PGSQL.{server.port}"))
        self._stream: IO[bytes] = self._socket.makefile("rwb")  # type: ignore[assignment]
        hello = struct.pack("!i", 196608) + f"user\0postgres\0database\0{database}\0\0".encode()
        self.send(struct.pack("!i", len(hello) + 4) + hello)
        self.parameters: dict[str, str] = {}
        for kind, body in self.answers():
            if kind == b"S":
                name, value, _ = body.decode().split("\0")
                self.parameters[name] = value

    def send(self, data: bytes) -> None:
        self._stream.write(data)
        self._stream.flush()

    def answers(self) -> Iterator[tuple[bytes, bytes]]:
        """Yield messages up to the one that says that the server is ready."""
        kind = b""
        while kind != b"Z":
            kind, body = unpack(self._stream)
            yield kind, body

    def close(self) -> None:
        self._stream.close()
        self._socket.close()


class Pool:
    """Server processes given to sessions, or to each transaction of theirs."""

    def __init__(self, server: EmbeddedPostgres, database: str, size: int, mode: Mode, *, rotate: bool) -> None:
        self.mode, self._rotate = mode, rotate
        self.processes = [Process(server, database) for _ in range(size)]
        self._free = list(self.processes)
        self._changed = threading.Condition()

    def take(self) -> Process:
        with self._changed:
            assert self._changed.wait_for(lambda: self._free, timeout=10)
            return self._free.pop(0 if self._rotate else -1)

    def give(self, process: Process) -> None:
        with self._changed:
            self._free.append(process)
            self._changed.notify()

    def serve(self, client: IO[bytes]) -> None:
        """Serve one session to its end."""
        startup(client)
        client.write(greeting(self.processes[0].parameters))
        client.flush()
        process: Process | None = None
        while (message := unpack(client))[0] not in {b"", b"X"}:
            if self.mode == "statement" and message == (b"Q", b"BEGIN\0"):
                text = b"SERROR\0C08P01\0Mtransaction blocks not allowed in statement pooling mode\0\0"
                client.write(pack(b"E", text) + pack(b"Z", b"I"))
                client.flush()
                continue
            process = process or self.take()
            process.send(pack(*message))
            if message[0] in {b"Q", b"S"}:
                status = b""
                for kind, body in process.answers():
                    client.write(pack(kind, body))
                    status = body
                if self.mode != "session" and status == b"I":
                    self.give(process)
                    process = None
                client.flush()
        if process is not None:
            process.send(pack(b"Q", b"ROLLBACK; DISCARD ALL\0" if self.mode == "session" else b"ROLLBACK\0"))
            list(process.answers())
            self.give(process)


@contextlib.contextmanager
def listening(serve: Callable[[IO[bytes]], None]) -> Generator[str]:
    """Accept clients on a port of this machine; yields the DSN."""

    class Client(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            with self.request.makefile("rwb") as stream, contextlib.suppress(OSError):
                serve(stream)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Client) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            port = server.server_address[1]
            yield f"host=127.0.0.1 port={port} user=postgres dbname=any sslmode=disable gssencmode=disable"
        finally:
            server.shutdown()
            thread.join()


@contextlib.contextmanager
def pooled(
    server: EmbeddedPostgres, database: str, size: int, mode: Mode, *, rotate: bool = False
) -> Generator[tuple[str, Pool]]:
    pool = Pool(server, name_of(database), size, mode, rotate=rotate)
    with listening(pool.serve) as dsn:
        yield dsn, pool
    for process in pool.processes:
        process.close()
