"""
Who else is in the database, and in which transaction.

Each look is one statement in a transaction of its own: until that ends, PostgreSQL repeats its first answer.
What pg_stat_activity means here, as seen on 15, 16 and 18:

    xact_start, query_start  the lesser is the oldest clock a transaction can have taken: what goes on after a
                             COMMIT inside a procedure keeps the time of the statement
    xact_start NULL          means no transaction only where state is `idle`. The session may be hidden from
                             our role (state NULL, backend_start NULL), not report (`disabled`), have begun to
                             report in the middle of a transaction, or run SQL as a walsender, whose
                             transactions are never shown
    usesysid NULL            autovacuum and other helpers, which write no events

A session that hides is judged by its virtualxid lock, which every transaction holds and everybody may see.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

import psycopg
from psycopg.rows import class_row

from zbackup.database.connection import Connection
from zbackup.source import Blocker, Pending

# A session that commits inside a procedure goes on under another lock with old times, and holds none between: a
# tight loop of inserts showed none in up to 22 % of all looks, none twice in a row in up to 13 % (on 15, 16 and
# 18). Twelve in a row, at irregular distance, are one in 10^8; an idle session passes within 0.6 s.
SIGHTINGS = 12


@dataclass(frozen=True, slots=True)
class Session:
    pid: int
    role: str | None
    application: str | None
    state: str | None
    born: datetime | None
    """when the session began; no transaction of it is older"""
    transaction: Literal["none", "open", "unknown"]
    since: datetime | None
    """the oldest clock its transaction can have taken, where one is shown"""
    locked: bool
    """whether it holds a virtualxid lock"""

    def blocker(self) -> Blocker:
        """Write it down as one who held the horizon back."""
        if self.transaction == "open":
            return Blocker("backend", self.pid, self.role, self.application, self.since, self.state or "")
        why = {None: "hidden from our role", "disabled": "track_activities is off"}
        detail = why.get(self.state, f"{self.state}, the beginning of its transaction is not shown")
        return Blocker("hidden", self.pid, self.role, self.application, self.born, detail)


class Watch:
    """A clock, and the sessions whose transactions may have taken an older one."""

    def __init__(self, clock: datetime, pids: Iterable[int]) -> None:
        self.clock = clock
        self.hidden = False
        """whether any of them hid"""
        self._open: dict[int, Session | None] = dict.fromkeys(pids)
        """each as it showed what it had begun before the clock; None: not looked for yet"""
        self._sightings: dict[int, int] = {}
        """of those that hide: how often in a row without a transaction"""

    def observe(self, sessions: Mapping[int, Session]) -> None:
        """Strike out who has ended what it did at the clock."""
        for pid in tuple(self._open):
            session = sessions.get(pid)
            if session is not None and session.transaction == "unknown":
                self._look_closer(session)
                continue
            self._sightings.pop(pid, None)
            if session is None or session.since is None or session.since >= self.clock:
                del self._open[pid]
            else:
                self._open[pid] = session

    def _look_closer(self, session: Session) -> None:
        # `active` is mostly one that begins; the next look shows its transaction.
        self.hidden |= session.state != "active"
        seen = 0 if session.locked else self._sightings.get(session.pid, 0) + 1
        self._sightings[session.pid] = seen
        before = self._open[session.pid]
        if seen >= SIGHTINGS:
            self.hidden = True
            del self._open[session.pid], self._sightings[session.pid]
        elif before is None or before.since is None:
            # Else it hid itself after it was seen, and stays with what it showed.
            self._open[session.pid] = session

    @property
    def holding(self) -> tuple[Session, ...]:
        """Those seen with a transaction, the oldest first."""
        found = [(each.since, each.pid, each) for each in self._seen if each.since is not None]
        return tuple(session for _, _, session in sorted(found, key=lambda one: one[:2]))

    @property
    def hiding(self) -> tuple[Session, ...]:
        """Those of whose transactions nothing is known."""
        return tuple(session for session in self._seen if session.since is None)

    @property
    def least(self) -> datetime | None:
        """The oldest clock any of them can have taken, at most our own; None when one does not even show its age."""
        clocks = [each.since or each.born for each in self._seen]
        known = [clock for clock in clocks if clock is not None]
        return min((self.clock, *known)) if len(known) == len(clocks) else None

    def pending(self) -> Pending:
        """Write down what is left for another run to prove."""
        return Pending(self.clock, tuple(sorted(self._open)))

    @property
    def _seen(self) -> list[Session]:
        return [session for session in self._open.values() if session is not None]


# A walsender that streams runs no SQL, but holds a virtualxid lock while it decodes. It is known by its query
# or, where that is hidden, by the slot it uses; a temporary one may belong to a session that runs SQL as well.
_SESSIONS = """
    SELECT a.pid, a.usename AS role, a.application_name AS application, a.state, a.backend_start AS born,
           CASE WHEN a.xact_start IS NOT NULL THEN 'open'
                WHEN a.state = 'idle' THEN 'none' ELSE 'unknown' END AS transaction,
           CASE WHEN a.xact_start IS NOT NULL THEN least(a.xact_start, a.query_start) END AS since,
           a.pid IN (SELECT l.pid FROM pg_locks l WHERE l.locktype = 'virtualxid' AND l.pid IS NOT NULL) AS locked
      FROM pg_stat_activity a
     WHERE a.datid = (SELECT oid FROM pg_database WHERE datname = current_database())
       AND a.usesysid IS NOT NULL
       AND a.pid <> pg_backend_pid() AND a.pid <> ALL (%s)
       AND (a.backend_type = 'walsender' AND a.state = 'active' AND a.query ~* '^\\s*START_REPLICATION\\M')
           IS NOT TRUE
       AND NOT (a.state IS NULL
                AND a.pid IN (SELECT w.pid FROM pg_stat_get_wal_senders() w)
                AND a.pid IN (SELECT s.active_pid FROM pg_replication_slots s
                               WHERE s.active_pid IS NOT NULL AND s.slot_type = 'logical' AND NOT s.temporary))
"""

# The locks of a prepared transaction belong to no process. They go by the virtual transaction it had in its
# session or, after a crash, by -1/xid; the lock on its own xid leads to its name.
_PREPARED = """
    WITH locks AS MATERIALIZED (SELECT * FROM pg_locks WHERE pid IS NULL)
    SELECT p.gid, p.owner, p.prepared
      FROM (SELECT DISTINCT virtualtransaction FROM locks
             WHERE locktype = 'relation' AND relation = %s
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
               AND mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
           ) writer
           LEFT JOIN locks own ON own.virtualtransaction = writer.virtualtransaction
                              AND own.locktype = 'transactionid' AND own.mode = 'ExclusiveLock'
           LEFT JOIN pg_prepared_xacts p ON p.transaction = own.transactionid
     ORDER BY p.prepared
"""


def look(connection: Connection, own_pids: frozenset[int]) -> dict[int, Session]:
    """See all sessions of the database but our own, by process id."""
    with connection.cursor(row_factory=class_row(Session)) as cursor:
        return {session.pid: session for session in cursor.execute(_SESSIONS, (list(own_pids),))}


def prepared(connection: Connection, table_oid: int) -> tuple[Blocker, ...]:
    """
    Name the prepared transactions that wrote to the table or may have.

    When they began is recorded nowhere. To be read after the sessions: a transaction moves from a session to
    here, never back.
    """
    rows = connection.execute(_PREPARED, (table_oid,)).fetchall()
    return tuple(Blocker("prepared", None, owner, None, since, gid or "ending") for gid, owner, since in rows)


# Whoever waits for such a lock keeps others out as well.
_LOCKERS = """
    SELECT l.pid, a.usename, a.application_name, a.xact_start
      FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
     WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.relation = to_regclass(%s)
       AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
     ORDER BY l.granted DESC, l.pid
"""


@contextmanager
def naming_lockers(connection: Connection, table: str) -> Generator[None]:
    """
    Let the error about a lock that was not to be had name the table, and who has or awaits it.

    The connection must be in no transaction when it is raised.
    """
    try:
        yield
    except psycopg.errors.LockNotAvailable as error:
        found = [
            f"pid {pid} (role {role}, application {application or 'without a name'}, in a transaction since {since})"
            if pid is not None
            else "a prepared transaction"
            for pid, role, application, since in connection.execute(_LOCKERS, (table,))
        ]
        who = "; ".join(found) or "a session that has let go since"
        raise psycopg.errors.LockNotAvailable(f"{table} is locked by {who}") from error
