"""
What a store can do, found out by trying.

Servers that speak S3 differ where it hurts, and some accept an option and ignore it. zbackup does not rely
on any of this except `read_back`, `listing` and `range_read`; the rest says which second belts are there.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal

from zbackup.errors import StoreError, StoreFull, StoreUnreachable
from zbackup.store.base import Probed

if TYPE_CHECKING:
    from collections.abc import Callable

    from zbackup.store.base import Store

Verdict = Literal["yes", "no", "unknown"]

# Every writer races for every name: where create-only is not atomic, 2 of 8 win nearly every time.
_WRITERS, _RACES = 8, 4


@dataclass(frozen=True, slots=True)
class Probes:
    """What one probe found; only text, numbers and None, so that it can be recorded as JSON."""

    create_only: Literal["yes", "racy", "no", "unknown"]
    """whether the store refuses to write a name twice: always, not when writers race, never"""
    read_back: Verdict
    """whether an object reads as it was written"""
    listing: Verdict
    """whether an object is listed as soon as it is stored"""
    checksum: Verdict
    """whether the store refuses bytes that are not those announced"""
    range_read: Verdict
    """whether a part of an object can be read"""
    clock: str | None
    """the store's time, ISO 8601 in UTC"""
    clock_skew: float | None
    """seconds that clock is ahead of ours; an S3 server tells whole seconds"""
    notes: tuple[str, ...]
    """what failed, as text for people"""
    left: tuple[str, ...]
    """probe objects that could not be removed; a backup needs no right to remove, so this is no fault"""


def utc_now() -> datetime:
    return datetime.now(UTC)


def probe(store: Store, run_id: str, *, now: Callable[[], datetime] = utc_now) -> Probes:
    """
    Try out a store with a handful of small objects under `probes/<run id>-…`, removed afterwards.

    Raises StoreError (StoreUnreachable, AccessDenied …) when nothing can be stored at all, and StoreFull when
    there is no room to try; whatever else fails is a verdict and a note.
    """
    return _Probe(store, f"probes/{run_id}", now).run()


class _Probe:
    def __init__(self, store: Store, stem: str, now: Callable[[], datetime]) -> None:
        self._store, self._stem, self._now = store, stem, now
        self._notes: list[str] = []
        self._names: list[str] = []

    def run(self) -> Probes:
        try:
            body = f"zbackup probe {self._stem}".encode() * 8
            name = self._name("object")
            self._store.put(name, io.BytesIO(body), size=len(body), sha256=hashlib.sha256(body).hexdigest())
            read_back = self._verdict("read back", lambda: self._store.get(name) == body)
            listing = self._verdict(
                "listing", lambda: (name, len(body)) in ((s.name, s.size) for s in self._store.list(name))
            )
            range_read = self._verdict("range", lambda: self._store.read(name, 5, 9) == body[5:14])
            create_only: Literal["yes", "racy", "no", "unknown"] = "unknown"
            checksum: Verdict = "unknown"
            clock, skew = self._clock()
            if isinstance(self._store, Probed):
                create_only = self._create_only(self._store)
                checksum = self._checksum(self._store)
        finally:
            left = self._clean()
        return Probes(create_only, read_back, listing, checksum, range_read, clock, skew, tuple(self._notes), left)

    def _create_only(self, store: Probed) -> Literal["yes", "racy", "no", "unknown"]:
        name = self._name("twice")
        try:
            first, second = store.write_once(name, b"first"), store.write_once(name, b"second")
            if (first, second) != ("stored", "exists") or self._store.get(name) != b"first":
                return "no"
            most = max(self._winners(store, self._name(f"race{n}")) for n in range(_RACES))
        except StoreFull:
            raise
        except StoreError as error:
            self._notes.append(f"create-only: {error.message}")
            return "unknown"
        return "racy" if most > 1 else "yes"

    def _winners(self, store: Probed, name: str) -> int:
        def write(writer: int) -> str:
            try:
                return store.write_once(name, f"writer {writer}".encode())
            except StoreUnreachable:  # a server may turn racing writers away
                return "turned away"

        with ThreadPoolExecutor(_WRITERS) as pool:
            return Counter(pool.map(write, range(_WRITERS)))["stored"]

    def _checksum(self, store: Probed) -> Verdict:
        name = self._name("digest")
        try:
            written = store.write_once(name, b"these bytes", declare=b"those bytes")
            return "yes" if written == "refused" and self._store.stat(name) is None else "no"
        except StoreFull:
            raise
        except StoreError as error:
            self._notes.append(f"checksum: {error.message}")
            return "unknown"

    def _clock(self) -> tuple[str | None, float | None]:
        try:
            before = self._now()
            clock = self._store.clock()
            after = self._now()
        except StoreFull:
            raise
        except StoreError as error:
            self._notes.append(f"clock: {error.message}")
            return None, None
        skew = (clock - (before + (after - before) / 2)).total_seconds()
        return clock.astimezone(UTC).isoformat(), round(skew, 3)

    def _verdict(self, what: str, found: Callable[[], bool]) -> Verdict:
        try:
            return "yes" if found() else "no"
        except StoreError as error:
            self._notes.append(f"{what}: {error.message}")
            return "no"

    def _name(self, part: str) -> str:
        self._names.append(f"{self._stem}-{part}")
        return self._names[-1]

    def _clean(self) -> tuple[str, ...]:
        left: list[str] = []
        for name in self._names:
            try:
                self._store.delete(name)
            except StoreError:
                left.append(name)
        return tuple(left)
