"""Stores that answer wrongly: each passes everything on to a real one, but for the vice it is named for."""

from __future__ import annotations

import contextlib
import io
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from datetime import datetime
from typing import BinaryIO

from zbackup.errors import StoreError
from zbackup.store.base import Probed, Stat, Store, Written


class StoreWrapper:
    """Passes everything on."""

    def __init__(self, store: Store) -> None:
        self.store = store

    @property
    def address(self) -> str:
        return self.store.address

    def put(self, name: str, body: BinaryIO, *, size: int, sha256: str) -> None:
        self.store.put(name, body, size=size, sha256=sha256)

    def get(self, name: str) -> bytes:
        return self.store.get(name)

    def open(self, name: str) -> BinaryIO:
        return self.store.open(name)

    def read(self, name: str, offset: int, length: int) -> bytes:
        return self.store.read(name, offset, length)

    def stat(self, name: str) -> Stat | None:
        return self.store.stat(name)

    def list(self, prefix: str, *, fold: bool = False) -> Iterator[Stat]:
        return self.store.list(prefix, fold=fold)

    def delete(self, name: str) -> None:
        self.store.delete(name)

    def close(self) -> None:
        self.store.close()

    def write_once(self, name: str, data: bytes, *, declare: bytes | None = None) -> Written:
        assert isinstance(self.store, Probed)
        return self.store.write_once(name, data, declare=declare)

    def clock(self) -> datetime:
        assert isinstance(self.store, Probed)
        return self.store.clock()


class Meeting(StoreWrapper):
    """Keeps a writer's first object of a kind back until the others come with theirs, or will not come any more."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.kind, self.place = "", threading.Barrier(1)

    def put(self, name: str, body: BinaryIO, *, size: int, sha256: str) -> None:
        if self.kind and name.startswith(self.kind):
            self.kind = ""
            with contextlib.suppress(threading.BrokenBarrierError):
                self.place.wait(60)
        super().put(name, body, size=size, sha256=sha256)


class LaggingList(StoreWrapper):
    """Lists what was there when it froze, and nothing that came later, whoever put it."""

    known: frozenset[str] | None = None

    def freeze(self) -> None:
        self.known = frozenset(found.name for found in self.store.list(""))

    def thaw(self) -> None:
        self.known = None

    def list(self, prefix: str, *, fold: bool = False) -> Iterator[Stat]:
        return (found for found in self.store.list(prefix, fold=fold) if self._shows(found.name))

    def _shows(self, name: str) -> bool:
        if self.known is None:
            return True
        return any(known.startswith(name) for known in self.known) if name.endswith("/") else name in self.known


class WrongRead(StoreWrapper, ABC):
    """Answers each read of what is under a prefix with wrong bytes; `asked` are the names."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self.prefix: str | None = None
        self.asked: list[str] = []

    @abstractmethod
    def wrong(self, name: str) -> bytes: ...

    def get(self, name: str) -> bytes:
        return self.wrong(name) if self._is_wrong(name) else self.store.get(name)

    def open(self, name: str) -> BinaryIO:
        return io.BytesIO(self.wrong(name)) if self._is_wrong(name) else self.store.open(name)

    def read(self, name: str, offset: int, length: int) -> bytes:
        if not self._is_wrong(name):
            return self.store.read(name, offset, length)
        part = self.wrong(name)[offset : offset + length]
        if len(part) != length:
            raise StoreError(f"{name}: {len(part)} bytes at {offset}, {length} expected")
        return part

    def _is_wrong(self, name: str) -> bool:
        if self.prefix is None or not name.startswith(self.prefix):
            return False
        self.asked.append(name)
        return True


class StaleRead(WrongRead):
    """Reads the object that came before, as if a name had been written twice."""

    def wrong(self, name: str) -> bytes:
        kind = name.partition("/")[0]
        before = [found.name for found in self.store.list(f"{kind}/") if found.name < name]
        return self.store.get(before[-1]) if before else b""


class OtherRead(WrongRead):
    """Reads an object of another kind, as a cache does whose keys collide."""

    def wrong(self, name: str) -> bytes:
        other = "runs/" if name.startswith("archive/") else "archive/"
        return self.store.get(next(self.store.list(other)).name)


class TruncatedRead(WrongRead):
    """Reads an object without its end, and reports no error."""

    def wrong(self, name: str) -> bytes:
        body = self.store.get(name)
        return body[: len(body) // 2]
