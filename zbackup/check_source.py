"""Check a source: whether a backup can read it, what it would miss, and what holds it back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import timedelta

from zbackup.check import Check, fail, failed, ok, skipped, some, tried, warn
from zbackup.database import inspect_source as look
from zbackup.database.capture import list_tables
from zbackup.database.connection import Connection, connect, shown, source_errors
from zbackup.database.grants import grants
from zbackup.database.horizon import LONG, Horizon, refuse_subscriber, settle
from zbackup.database.identity import clock, read_identity
from zbackup.database.schema_dump import NoProgram, find_program
from zbackup.database.sessions import prepared
from zbackup.database.shape import FoundTable, find_events_table, zitadel_version
from zbackup.database.standby import expect_primary, in_recovery
from zbackup.errors import SourceRefused, ZbackupError
from zbackup.source import Blocker
from zbackup.zitadel import push, tables

# Long enough to see a session end a transaction, short enough for somebody who waits.
HORIZON_WAIT = timedelta(seconds=3)

# ZITADEL supports these; zbackup reads 13 and later too.
SUPPORTED = range(14, 19)

_TIMEOUTS = (
    "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout",
    "transaction_timeout",
)  # fmt: skip

_CLOCKS = {
    "transaction": "the beginning of the transaction",
    "statement": "the beginning of the push",
    "row": "the insertion of each row",
}

_GRANTS = "Run what `zbackup doctor --grants` prints."


@dataclass(slots=True)
class SourceCheck:
    """Checks of one source over one session, and what others need to know of it."""

    dsn: str
    fence: str | None
    pg_dump: str | None
    connection: Connection | None = None
    found: FoundTable | None = None
    role: look.Role | None = None

    def run(self) -> Iterator[Check]:
        """Check all; the session stays open for `clock`, `events_bytes` and `grants`."""
        reached = tuple(self._reach())
        yield from reached
        if self.connection is None:
            return
        connection = self.connection
        yield self._tried("zitadel", lambda: self._zitadel(connection))
        yield self._tried("events", lambda: self._events(connection))
        yield self._tried("tables", lambda: self._tables(connection))
        yield self._tried("rights", lambda: self._rights(connection))
        yield self._tried("sessions", lambda: self._sessions(connection))
        yield self._tried("track_activities", lambda: self._track_activities(connection))
        yield self._tried("prepared", lambda: self._prepared(connection))
        yield self._tried("horizon", lambda: self._horizon(connection))
        yield self._tried("replication", lambda: self._replication(connection))
        yield self._tried("timeouts", lambda: self._timeouts(connection))
        yield self._tried("pg_dump", lambda: self._pg_dump(connection))

    def close(self) -> None:
        if self.connection is not None:
            self.connection.close()

    def _tried(self, name: str, one: Callable[[], Check]) -> Check:
        def within() -> Check:
            with source_errors(self.dsn):
                return one()

        return tried(name, within)

    def _reach(self) -> Iterator[Check]:
        try:
            self.connection = connect(self.dsn)
            with source_errors(self.dsn):
                identity = read_identity(self.connection)
        except ZbackupError as error:
            # Refused for the pooler means reached.
            yield failed("pooler" if isinstance(error, SourceRefused) and "pooler" in error.message else "source", error)
            return
        major = identity.server_version_num // 10000
        what = f"{shown(self.dsn)}: PostgreSQL {identity.server_version}, {identity.encoding}, {identity.collation}"
        if major not in SUPPORTED:
            yield warn("source", f"{what}; ZITADEL supports 14 to 18", "Move ZITADEL to a version that it supports.")
        elif identity.encoding != "UTF8":
            yield warn("source", what, "Use a database in UTF8: text of another encoding may not restore elsewhere.")
        else:
            yield ok("source", what)
        if look.behind_pooler(self.connection):
            yield ok("pooler", "there is one, and it gives each session a server process of its own")
        else:
            yield ok("pooler", "none in between")
