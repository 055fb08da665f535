"""Stores that answer wrongly: each passes everything on to a real one, but for the vice it is named for."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from datetime import datetime
from typing import BinaryIO

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

    def list(self, prefix: str) -> Iterator[Stat]:
        return self.store.list(prefix)

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
