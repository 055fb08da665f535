"""
Whether a source has anything that its newest backup does not: a few short statements instead of a backup.

Rows below the last horizon are final, so new ones stand at or above it: as many as the backup's tail has, and
counters, files and identity as they were, are the same rows. Whoever wrote old-dated rows, or changed some, moved
the counters; what these do not tell at once is found by the next backup that counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from zbackup.attempt import BackupOptions
from zbackup.backup import Made
from zbackup.database.connection import Connection
from zbackup.database.export import count, counters
from zbackup.database.horizon import Horizon, settle
from zbackup.database.identity import clock, read_identity
from zbackup.database.kept import Sessions
from zbackup.database.shape import events_files
from zbackup.event import BEGINNING, END, parse_instant
from zbackup.source import Counters, Source


@dataclass(frozen=True, slots=True)
class Pulse:
    clock: datetime
    """the source's: what was committed by then is archived, unless something is new"""
    horizon: Horizon
    new: str
    """what the newest backup lacks; empty when it lacks nothing"""
    counted: bool
    """the server counts what is written; where it does not, old rows may have changed unseen"""
    clears: bool
    """the horizon has passed half of the time that the tail spans, or more"""


def feel(
    made: Made, control: Connection, sessions: Sessions, primary: Connection | None, options: BackupOptions
) -> Pulse:
    """Compare a source with its newest backup. Raises what psycopg raises."""
    manifest = made.manifest
    now = clock(control)
    horizon = settle(
        control,
        table_oid=manifest.files.oid,
        last=manifest.horizon.at,
        pending=manifest.horizon.pending,
        own_pids=sessions.pids | {control.info.backend_pid},
        margin=options.margin,
        wait=timedelta(0),
        fence=primary,
        standby_lag=options.standby_lag,
    )
    first = parse_instant(manifest.tail[0].first[0]) if manifest.tail else None
    at = horizon.at
    clears = first is not None and at is not None and at > first + (manifest.snapshot - first) / 2
    counting = primary or (None if manifest.source.standby else control)
    counted = counters(counting, manifest.files.oid) if counting is not None else None
    return Pulse(now, horizon, _new(made, control, counted, first, at), counted is not None, clears)


def _new(made: Made, control: Connection, counted: Counters | None, first: datetime | None, at: datetime | None) -> str:
    manifest = made.manifest
    if _who(read_identity(control).source(None)) != _who(manifest.source):
        return "another server, timeline or database"
    if events_files(control) != manifest.files:
        return "the table was rewritten or truncated"
    if first is not None and at is not None and at > first:
        return "rows of the tail are final"
    if counted is not None and counted != made.counters:
        return "rows were inserted, updated or deleted"
    tail = sum(chunk.rows for chunk in manifest.tail)
    rows = count(control, manifest.table, manifest.horizon.at or BEGINNING, END)
    return "" if rows == tail else f"{rows} rows at or above the horizon, {tail} in the tail"


def _who(source: Source) -> tuple[object, ...]:
    return source.system_identifier, source.database_oid, source.timeline, source.standby
