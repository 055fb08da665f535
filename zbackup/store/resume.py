"""
A stream over a stored object that survives broken connections.

A restore holds streams open for as long as the database takes to load what came, far longer than servers
and middle boxes keep a connection that stands still. So a stream that breaks is opened again where it
broke, and what comes is taken only when it is still the same object.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zbackup.errors import StoreError, StoreUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import WriteableBuffer

    from zbackup.progress import Report
    from zbackup.store.retry import Retry


@dataclass(frozen=True, slots=True)
class Part:
    """An answer that carries an object from some offset on."""

    size: int
    """of the whole object"""
    etag: str
    """changes when the object does; may be empty"""
    read: Callable[[int], bytes]
    """next bytes, at most so many, empty at the end; raises StoreUnreachable when the connection breaks"""
    close: Callable[[], None]


class ResumingBody(io.RawIOBase):
    """
    The bytes of an object from `start` to `stop` (None = its end).

    `fetch(offset)` opens it at an offset. The first fetch happens at once, so that a missing object is
    found when it is opened. Pauses and tries count anew whenever bytes have come.
    """

    def __init__(
        self,
        what: str,
        fetch: Callable[[int], Part],
        retry: Retry,
        report: Report,
        *,
        start: int = 0,
        stop: int | None = None,
    ) -> None:
        super().__init__()
        self._what, self._fetch, self._retry, self._report = what, fetch, retry, report
        self._at = start
        self._part: Part | None = None
        self._part = self._first = retry.call(what, self._connect, report)
        self._stop = self._first.size if stop is None else stop
        if self._stop > self._first.size:
            self.close()
            raise StoreError(
                f"{what}: {self._first.size} bytes, at least {self._stop} expected",
                hint="The object is shorter than what refers to it says: run `zbackup verify`.",
            )

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        wanted = min(len(view), self._stop - self._at)
        if wanted <= 0:
            return 0
        block = self._retry.call(self._what, lambda: self._next(wanted), self._report)
        view[: len(block)] = block
        self._at += len(block)
        return len(block)

    def readall(self) -> bytes:
        whole = bytearray(self._stop - self._at)
        with memoryview(whole) as view:
            filled = 0
            while filled < len(view):
                filled += self.readinto(view[filled:])
        return bytes(whole)

    def close(self) -> None:
        self._drop()
        super().close()

    def _next(self, wanted: int) -> bytes:
        if self._part is None:
            self._part = self._connect()
        try:
            block = self._part.read(wanted)
            if not block:
                raise StoreUnreachable(f"{self._what}: ended at {self._at} of {self._stop} bytes")
        except StoreUnreachable:
            self._drop()
            raise
        return block

    def _connect(self) -> Part:
        part = self._fetch(self._at)
        first = getattr(self, "_first", part)
        if (part.size, part.etag) != (first.size, first.etag):
            part.close()
            raise StoreError(
                f"{self._what}: replaced while it was read ({first.size} bytes, {part.size} now)",
                hint="Objects never change: something other than zbackup writes into this archive.",
            )
        return part

    def _drop(self) -> None:
        part = getattr(self, "_part", None)
        if part is not None:
            part.close()
            self._part = None
