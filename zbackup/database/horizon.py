"""
The instant below which every event is committed and visible.

Events carry clocks taken before their commit, so rows appear late. The server's clock is read first, then the
sessions, then the prepared transactions. A row that has yet to appear belongs to a transaction that one of
these shows, with the oldest clock it can have taken, or to one that began after our clock: below the least of
all, minus a margin, the log is final.

    basis            how `at` was found
    observed         every session showed when its transaction began, or at least when itself did
    hidden-settled   some did not, and each of these was seen without one after the clock
    assumed          a standby that cannot see its primary: the replay's time minus a lag
    frozen           nothing newer could be proven: `at` is the last horizon, None where there was none

The margin covers sessions that have taken their clock and do not show it yet, and small steps of the clock.
It is an assumption, and part of the record.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from psycopg import pq

from zbackup.database.connection import Connection
from zbackup.database.identity import clock as read_clock
from zbackup.database.identity import started as read_start
from zbackup.database.sessions import SIGHTINGS, Watch, look, prepared
from zbackup.database.standby import await_replay, expect_primary, in_recovery, last_replay
from zbackup.errors import SourceRefused
from zbackup.event import instant_text
from zbackup.progress import Report, Step, silent
from zbackup.source import Blocker, HorizonRecord, Pending

__all__ = ["Blocker", "Horizon", "Pending", "refuse_subscriber", "settle"]

Basis = Literal["observed", "hidden-settled", "assumed", "frozen"]

MARGIN = timedelta(seconds=10)
WAIT = timedelta(seconds=30)
STANDBY_LAG = timedelta(seconds=60)

# Between two looks at sessions that hide; irregular, not to fall in step with one that works in a loop.
PAUSE_SECONDS = (0.037, 0.061, 0.043, 0.059)

# Named in a manifest; more would be noise.
MOST_BLOCKERS = 10

# A transaction this old is worth a warning: everything younger stays in the tail.
LONG = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Horizon:
    at: datetime | None
    """never below the last one; None: nothing can be sealed yet"""
    basis: Basis
    clock: datetime
    """the server's, read first"""
    margin: timedelta
    blockers: tuple[Blocker, ...]
    """who held it back: prepared transactions, then sessions, the oldest first, then those that hide"""
    pending: Pending | None
    """a clock that the next run may prove"""
    warnings: tuple[str, ...]

    def record(self, at: datetime | None) -> HorizonRecord:
        """Write it down for a manifest that goes by `at`."""
        return HorizonRecord(at, self.basis, self.margin.total_seconds(), self.clock, self.blockers, self.pending)


def settle(
    connection: Connection,
    *,
    table_oid: int,
    last: datetime | None,
    pending: Pending | None,
    own_pids: frozenset[int],
    margin: timedelta = MARGIN,
    wait: timedelta = WAIT,
    fence: Connection | None = None,
    standby_lag: timedelta = STANDBY_LAG,
    report: Report = silent,
) -> Horizon:
    """
    Find the horizon; the snapshot is to be taken after it, on the same server.

    `last` and `pending` are those of the backup that is continued. Waits up to `wait` for sessions that hide
    their transactions, and once more for a standby to replay what its primary, `fence`, has written.

    Raises SourceRefused when `fence` is not the primary of that standby.
    """
    _expect_outside_transaction(connection)
    if not in_recovery(connection):
        found = _settle(connection, table_oid, last, pending, own_pids, margin, wait, report)
        unused = () if fence is None else ("the source is a primary: its fence was not used",)
        return replace(found, warnings=(*found.warnings, *unused))
    if fence is None:
        doubt = "the source is a standby without a fence: open transactions of its primary cannot be seen"
        unseen = Horizon(None, "assumed", read_clock(connection), margin, (), pending, ())
        return _assume(connection, unseen, last, standby_lag, doubt)
    _expect_outside_transaction(fence)
    doubt = expect_primary(connection, fence)
    # Process ids of the standby mean nothing on its primary.
    found = _settle(fence, table_oid, last, pending, frozenset(), margin, wait, report)
    if doubt is None:
        report(Step("horizon", "waiting for the standby to replay what its primary wrote"))
        doubt = await_replay(connection, fence, wait)
    return found if doubt is None else _assume(connection, found, last, standby_lag, doubt)


def refuse_subscriber(connection: Connection, table_oid: int) -> None:
    """Raise SourceRefused when logical replication fills the table: its rows come in with old times."""
    row = connection.execute(
        "SELECT string_agg(srsubid::text, ', ') FROM pg_subscription_rel WHERE srrelid = %s", (table_oid,)
    ).fetchone()
    if row is not None and row[0] is not None:
        raise SourceRefused(
            f"logical replication fills the events table (subscription {row[0]} in pg_subscription)",
            hint="Back up the publisher: here rows arrive later than their times say.",
        )


def _expect_outside_transaction(connection: Connection) -> None:
    # Inside one the server would repeat its first answer about sessions.
    assert connection.autocommit
    assert connection.info.transaction_status == pq.TransactionStatus.IDLE


def _settle(
    connection: Connection,
    table_oid: int,
    last: datetime | None,
    pending: Pending | None,
    own_pids: frozenset[int],
    margin: timedelta,
    wait: timedelta,
    report: Report,
) -> Horizon:
    deadline = time.monotonic() + wait.total_seconds()
    clock, server = read_clock(connection), read_start(connection)
    sessions = look(connection, own_pids)
    now = Watch(clock, sessions)
    watches = [now]
    # Process ids of another server, a copy with this one's identity, say nothing about sessions here; unless this
    # one was started after that clock, and has none that old.
    if pending is not None and pending.server != server and server <= pending.clock:
        pending = None
    if pending is not None and pending.clock < clock and (last is None or last < pending.clock - margin):
        watches.append(Watch(pending.clock, pending.pids))
    for number, pause in enumerate(itertools.cycle(PAUSE_SECONDS), start=1):
        for watch in watches:
            watch.observe(sessions)
        if not now.hiding or (number >= SIGHTINGS and time.monotonic() >= deadline):
            break
        if number == SIGHTINGS:
            report(Step("horizon", f"waiting for sessions that hide their transactions: {len(now.hiding)}"))
        time.sleep(pause)
        sessions = look(connection, own_pids)
    proven = next((watch for watch in watches if not watch.hiding), None)
    # Of two unproven clocks the older: its sessions only become fewer from run to run.
    unproven = None if proven is now else next(watch for watch in reversed(watches) if watch.hiding)
    writers = prepared(connection, table_oid)
    at, basis = last, "frozen"
    least = (proven or now).least
    if least is not None and not writers and (last is None or last <= least - margin):
        at, basis = least - margin, "hidden-settled" if proven and proven.hidden else "observed"
    holding = tuple(session.blocker() for session in (proven or now).holding)
    hiding = () if proven is now else tuple(session.blocker() for session in now.hiding)
    return Horizon(
        at=at,
        basis=basis,
        clock=clock,
        margin=margin,
        blockers=(*writers, *holding, *hiding)[:MOST_BLOCKERS],
        pending=None if unproven is None else replace(unproven.pending(), server=server),
        warnings=(
            *_behind(clock, last),
            *(_freezing(writer) for writer in writers),
            *(_holding(each) for each in holding[:1] if at == last or _older(each, clock - LONG)),
            *((_hiding(hiding),) if proven is None else ()),
        ),
    )


def _assume(standby: Connection, seen: Horizon, last: datetime | None, lag: timedelta, doubt: str) -> Horizon:
    """Go by what the standby has replayed, and not beyond what was `seen` on the primary, if anything was."""
    replayed = last_replay(standby)
    at = None if replayed is None else replayed - lag
    if seen.basis != "assumed":
        at = None if at is None or seen.at is None else min(at, seen.at)
    kept = at is None or (last is not None and at <= last)
    when = "none since its start" if replayed is None else instant_text(replayed)
    warning = f"{doubt}; the horizon is assumed to be {lag.total_seconds():g} s below the last replay ({when})"
    return replace(
        seen,
        at=last if kept else at,
        basis="frozen" if kept else "assumed",
        blockers=(Blocker("standby", None, None, None, replayed, doubt), *seen.blockers),
        warnings=(*seen.warnings, warning),
    )


def _older(blocker: Blocker, than: datetime) -> bool:
    return blocker.since is not None and blocker.since < than


def _behind(clock: datetime, last: datetime | None) -> Iterator[str]:
    if last is not None and clock < last:
        yield (
            f"the server's clock went back: it shows {instant_text(clock)}, the last horizon is "
            f"{instant_text(last)}; until it has caught up, new events are amendments"
        )


def _freezing(writer: Blocker) -> str:
    when = "" if writer.since is None else f" of {writer.role}, from {instant_text(writer.since)},"
    return (
        f"the prepared transaction {writer.detail!r}{when} wrote events: "
        "nothing new is sealed until COMMIT PREPARED or ROLLBACK PREPARED"
    )


def _holding(session: Blocker) -> str:
    since = "" if session.since is None else f" since {instant_text(session.since)}"
    return (
        f"process {session.pid} ({session.role}, {session.application or 'no application name'}) is in a "
        f"transaction{since}: newer events stay in the tail"
    )


def _hiding(sessions: tuple[Blocker, ...]) -> str:
    pids = ", ".join(str(session.pid) for session in sessions[:MOST_BLOCKERS])
    return (
        f"sessions hide their transactions (processes {pids}): newer events stay in the tail; "
        "grant pg_read_all_stats to the role of zbackup, and see that track_activities is on"
    )
