"""
Sessions of one database that are used again.

Each costs the server a process and both sides a login, so whoever comes back in seconds keeps them. Not for long:
behind a name may soon be another server, while the old one still answers those who are connected.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from datetime import timedelta

import psycopg

from zbackup.database.connection import LOCK_TIMEOUT, Connection, connect


class Sessions:
    """Source sessions by their DSN, taken and given back; to be closed. Not for use by several threads."""

    def __init__(self, dsn: str, *, keep: timedelta = timedelta(0)) -> None:
        """Keep what is given back until it is so old."""
        self.dsn = dsn
        self._keep = keep.total_seconds()
        self._idle: list[Connection] = []
        self._opened: dict[Connection, float] = {}

    @property
    def pids(self) -> frozenset[int]:
        """The server processes of those that nobody has taken."""
        return frozenset(session.info.backend_pid for session in self._idle)

    def take(self, lock_timeout: timedelta = LOCK_TIMEOUT) -> Connection:
        """Return a session that is in no transaction. Raises as `connect` does."""
        while self._idle:
            session = self._idle.pop()
            if self._is_young(session) and _answers(session, lock_timeout):
                return session
            self.drop(session)
        session = connect(self.dsn, lock_timeout=lock_timeout)
        self._opened[session] = time.monotonic()
        return session

    def give(self, session: Connection) -> None:
        """Take a session back; a transaction that is open ends."""
        if self._is_young(session):
            with suppress(psycopg.Error):
                session.rollback()
                self._idle.append(session)
                return
        self.drop(session)

    def drop(self, session: Connection) -> None:
        """Close a session that was taken, whatever state it is in."""
        self._opened.pop(session, None)
        session.close()

    @contextmanager
    def borrow(self, lock_timeout: timedelta = LOCK_TIMEOUT) -> Generator[Connection]:
        """Take a session for a block; one in which that failed is not kept."""
        session = self.take(lock_timeout)
        try:
            yield session
        except BaseException:
            self.drop(session)
            raise
        self.give(session)

    def close(self) -> None:
        """Close all, those that were not given back, too. Others may be taken afterwards."""
        self._idle.clear()
        for session in [*self._opened]:
            self.drop(session)

    def _is_young(self, session: Connection) -> bool:
        return not session.closed and time.monotonic() - self._opened[session] < self._keep


def _answers(session: Connection, lock_timeout: timedelta) -> bool:
    milliseconds = str(round(lock_timeout / timedelta(milliseconds=1)))
    try:
        session.execute("SELECT set_config('lock_timeout', %s, false)", (milliseconds,))
    except psycopg.Error:
        return False
    return True
