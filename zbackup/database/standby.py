"""A hot standby and its primary: whether they belong together, and how far the replay has come."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta

from zbackup.database.connection import Connection
from zbackup.database.identity import read_identity
from zbackup.errors import SourceRefused

PAUSE_SECONDS = 0.05

# Headers of a WAL page and of a segment's first page (access/xlog_internal.h), which no record ends in.
PAGE_HEADER = 24
SEGMENT_HEADER = 40


def in_recovery(connection: Connection) -> bool:
    row = connection.execute("SELECT pg_is_in_recovery()").fetchone()
    assert row is not None
    return row[0]


def last_replay(connection: Connection) -> datetime | None:
    """Return when the last transaction replayed was committed on the primary; None when none was since the start."""
    row = connection.execute("SELECT pg_last_xact_replay_timestamp()").fetchone()
    assert row is not None
    return row[0] and row[0].astimezone(UTC)


def expect_primary(standby: Connection, fence: Connection) -> str | None:
    """
    Make sure that `fence` is the primary of the standby's database; say what stays in doubt, if anything.

    Raises SourceRefused when it is not.
    """
    here, there = read_identity(standby), read_identity(fence)
    if there.in_recovery:
        raise SourceRefused("the fence is a standby itself", hint="Name the primary as the fence.")
    if (here.system_identifier, here.database_oid) != (there.system_identifier, there.database_oid):
        raise SourceRefused(
            f"the fence is another database: system {there.system_identifier}, oid {there.database_oid}; "
            f"the source has system {here.system_identifier}, oid {here.database_oid}",
            hint="Name the same database on the standby's primary as the fence.",
        )
    if here.timeline is None:
        return "; ".join(("whether it follows the fence is not known", *here.notes))
    assert there.timeline is not None
    if there.timeline < here.timeline:
        raise SourceRefused(
            f"the fence is on timeline {there.timeline}, the standby on {here.timeline}: it follows another primary",
            hint="Name the primary that was promoted as the fence.",
        )
    if there.timeline > here.timeline:
        return f"the fence is on timeline {there.timeline}, the standby still on {here.timeline}"
    return None


def await_replay(standby: Connection, fence: Connection, wait: timedelta) -> str | None:
    """
    Wait until the standby shows all that is visible on its primary by now; say what lacks when it takes too long.

    The insert position is the one to wait for: a transaction committed asynchronously is visible before it is
    written.
    """
    wanted = _insert_position(fence)
    deadline = time.monotonic() + wait.total_seconds()
    while True:
        row = standby.execute("SELECT pg_last_wal_replay_lsn() - '0/0'::pg_lsn").fetchone()
        assert row is not None
        if row[0] is not None and row[0] >= wanted:
            return None
        if time.monotonic() >= deadline:
            lacking = "all" if row[0] is None else f"{wanted - int(row[0])} bytes"
            return f"after {wait.total_seconds():g} s the standby has still to replay {lacking} of its primary's WAL"
        time.sleep(PAUSE_SECONDS)


def _insert_position(primary: Connection) -> int:
    row = primary.execute(
        """SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn,
                  (SELECT setting::int FROM pg_settings WHERE name = 'wal_block_size'),
                  (SELECT setting::int FROM pg_settings WHERE name = 'wal_segment_size')"""
    ).fetchone()
    assert row is not None
    at, page, segment = (int(value) for value in row)
    # At the start of a page the next record's place is behind the header, where the last record's end never is:
    # on a quiet server the replay would not get there.
    header = SEGMENT_HEADER if at % segment == SEGMENT_HEADER else PAGE_HEADER
    return at - header if at % page == header else at
