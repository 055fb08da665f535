"""One gate before one store, by which two programs take turns, call by call, as a schedule says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import BinaryIO, TypeVar

from tests.fix_vices import StoreWrapper
from zbackup.store.base import Stat, Store

T = TypeVar("T")

PATIENCE = 60.0
"""Seconds after which something hangs; nothing is measured by it."""

ALL = 1 << 30
"""Calls of a turn that lasts to the end of its program."""


@dataclass
class Clock:
    """Runs ahead of the store's clock, for all who use the gate."""

    ahead: timedelta = timedelta(0)


class Gate:
    """Lets one call pass at a time: so many of one program, then so many of the other, until both have ended."""

    def __init__(self, schedule: Sequence[tuple[str, int]]) -> None:
        self._turns = list(schedule)
        self._ended: set[str] = set()
        self._changed = threading.Condition()
        self.calls: list[tuple[str, str]] = []
        """who did what, in order"""

    def passing(self, who: str, what: str, act: Callable[[], T]) -> T:
        with self._changed:
            assert self._changed.wait_for(lambda: self._turn() in {who, None}, PATIENCE), f"{who} waits for its turn"
            try:
                self.calls.append((who, what))
                return act()
            finally:
                if self._turns:
                    self._turns[0] = who, self._turns[0][1] - 1
                self._changed.notify_all()

    def end(self, who: str) -> None:
        with self._changed:
            self._ended.add(who)
            self._changed.notify_all()

    def _turn(self) -> str | None:
        while self._turns and (self._turns[0][1] <= 0 or self._turns[0][0] in self._ended):
            self._turns.pop(0)
        return self._turns[0][0] if self._turns else None


class Gated(StoreWrapper):
    """A store behind a gate, as one program sees it."""

    def __init__(self, store: Store, gate: Gate, who: str, clock: Clock, *, later: timedelta = timedelta(0)) -> None:
        """`later` is how long after the call before it the first call of this program comes."""
        super().__init__(store)
        self.gate, self.who, self.ahead, self.later = gate, who, clock, later

    def put(self, name: str, body: BinaryIO, *, size: int, sha256: str) -> None:
        self._pass(f"put {name}", lambda: self.store.put(name, body, size=size, sha256=sha256))

    def get(self, name: str) -> bytes:
        return self._pass(f"get {name}", lambda: self.store.get(name))

    def open(self, name: str) -> BinaryIO:
        return self._pass(f"open {name}", lambda: self.store.open(name))

    def read(self, name: str, offset: int, length: int) -> bytes:
        return self._pass(f"read {name}", lambda: self.store.read(name, offset, length))

    def stat(self, name: str) -> Stat | None:
        return self._pass(f"stat {name}", lambda: self.store.stat(name))

    def list(self, prefix: str, *, fold: bool = False) -> Iterator[Stat]:
        return iter(self._pass(f"list {prefix}", lambda: [*self.store.list(prefix, fold=fold)]))

    def delete(self, name: str) -> None:
        self._pass(f"delete {name}", lambda: self.store.delete(name))

    def clock(self) -> datetime:
        return self._pass("clock", lambda: self.store.clock() + self.ahead.ahead)

    def _pass(self, what: str, act: Callable[[], T]) -> T:
        def act_later() -> T:
            self.ahead.ahead += self.later
            self.later = timedelta(0)
            return act()

        return self.gate.passing(self.who, what, act_later)


class Ahead(StoreWrapper):
    """A store whose clock can be put forward."""

    def __init__(self, store: Store, clock: Clock | None = None) -> None:
        super().__init__(store)
        self.ahead = clock or Clock()

    def clock(self) -> datetime:
        return self.store.clock() + self.ahead.ahead
